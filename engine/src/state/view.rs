//! The view of state that one step works on: committed entries under the step's own writes.
//!
//! A key space is used in one of three ways: by whole key ([`Points`], with a cache of what is committed), in order of
//! keys (`get`, `put`, `range`), or only written (`write`).
//!
//! Invariants: a failed step leaves the cache as it was but for what it read; a range that is dropped is not touched
//! again.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use millpond_types::Result;
use millpond_types::ports::{StateReader, Writes};

use super::points::{EntryId, Points};
use crate::ops::key::Strings;

/// Reads of ranges take so many entries at a time.
const RANGE_CHUNK: usize = 1024;

/// What a step changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// The last one of a key counts.
    pub writes: Writes,
    pub drops: Vec<(Vec<u8>, Vec<u8>)>,
    pub bytes: usize,
}

/// Keys that an operator will look at by whole key.
#[derive(Debug, Default)]
pub struct Wants {
    pub keys: Strings,
}

pub struct View<'a> {
    store: &'a dyn StateReader,
    pub points: &'a mut Points,
    ordered: BTreeMap<Vec<u8>, Option<Bytes>>,
    written: Writes,
    drops: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> View<'a> {
    /// Begins a step: what an earlier one left pending is forgotten.
    pub fn new(store: &'a dyn StateReader, points: &'a mut Points) -> Self {
        points.rollback();
        Self { store, points, ordered: BTreeMap::new(), written: Writes::default(), drops: Vec::new() }
    }

    /// What the step changed; the points stay pending until they are committed or rolled back.
    pub fn into_changes(self) -> Changes {
        let kept = |key: &[u8]| !self.drops.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice());
        let (count, bytes) = self.points.pending();
        let mut writes = Writes::with_capacity(
            count + self.written.len() + self.ordered.len(),
            bytes + self.written.bytes() + self.ordered.len() * 64,
        );
        self.points.writes().filter(|(k, _)| kept(k)).for_each(|(k, v)| writes.push(k, v));
        // Dropped ranges were taken out of the ordered ones when they were dropped.
        self.ordered.iter().for_each(|(k, v)| writes.push(k, v.as_deref()));
        if self.drops.is_empty() {
            writes.append(&self.written);
        } else {
            self.written.iter().filter(|(k, _)| kept(k)).for_each(|(k, v)| writes.push(k, v));
        }
        let bytes = writes.bytes();
        Changes { writes, drops: self.drops, bytes }
    }

    /// Entries for the keys, in their order, loaded with one read.
    pub fn fetch(&mut self, wants: &Wants) -> Result<Vec<EntryId>> {
        let ids: Vec<EntryId> = wants.keys.iter().map(|key| self.points.locate(key)).collect();
        self.points.load_missing(&ids, |keys| self.store.multi_get(keys))?;
        Ok(ids)
    }

    /// The entry of one key, loaded.
    pub fn point(&mut self, key: &[u8]) -> Result<EntryId> {
        let id = self.points.locate(key);
        if !self.points.is_loaded(id) {
            let value = self.store.get(key)?;
            self.points.load(id, value.as_deref());
        }
        Ok(id)
    }

    pub fn point_value(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        let id = self.point(key)?;
        Ok(self.points.value(id))
    }

    /// Writes a key that no operator reads.
    pub fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.written.push(key, value);
    }

    fn dropped(&self, key: &[u8]) -> bool {
        self.drops.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
    }

    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.ordered.get(key) {
            Some(written) => Ok(written.clone()),
            None if self.dropped(key) => Ok(None),
            None => self.store.get(key),
        }
    }

    pub fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.ordered.insert(key.to_vec(), Some(value.into()));
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.ordered.insert(key.to_vec(), None);
    }

    /// Drops `from <= key < to`, as it is now.
    pub fn drop_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        if from >= to {
            return;
        }
        let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let doomed: Vec<Vec<u8>> = self.ordered.range::<[u8], _>(bounds).map(|(k, _)| k.clone()).collect();
        for key in doomed {
            self.ordered.remove(&key);
        }
        self.drops.push((from, to));
    }

    /// Entries with `from <= key < to` in key order, at most `entries_max`; of points only what is committed.
    pub fn range(&mut self, from: &[u8], to: &[u8], entries_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut written = self.ordered.range::<[u8], _>(bounds).peekable();
        let mut from = from.to_vec();
        loop {
            let chunk_max = RANGE_CHUNK.min(entries_max.saturating_add(1));
            let chunk = self.store.range(&from, to, false, chunk_max)?;
            let last = chunk.len() < chunk_max;
            for (key, value) in &chunk {
                while let Some((k, v)) = written.next_if(|(k, _)| k.as_slice() < &key[..]) {
                    if let Some(v) = v {
                        found.push((Bytes::copy_from_slice(k), v.clone()));
                    }
                }
                match written.next_if(|(k, _)| k.as_slice() == &key[..]) {
                    Some((_, Some(v))) => found.push((key.clone(), v.clone())),
                    Some((_, None)) => {}
                    None if self.dropped(key) => {}
                    None => found.push((key.clone(), value.clone())),
                }
                if found.len() >= entries_max {
                    found.truncate(entries_max);
                    return Ok(found);
                }
            }
            match chunk.last() {
                Some((key, _)) if !last => {
                    from = key.to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        found.extend(written.filter_map(|(k, v)| v.as_ref().map(|v| (Bytes::copy_from_slice(k), v.clone()))));
        found.truncate(entries_max);
        Ok(found)
    }

    /// Whether storage has anything in a range; the step's own writes do not count.
    pub fn is_stored(&self, from: &[u8], to: &[u8]) -> Result<bool> {
        Ok(!self.store.range(from, to, false, 1)?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use millpond_types::memory::MemoryStorage;
    use millpond_types::ports::{Step, TopicLog};

    use super::*;

    #[test]
    fn a_step_sees_its_own_writes_and_nothing_of_a_failed_one() {
        let storage = MemoryStorage::new();
        let put = |k: &str| (k.as_bytes().to_vec(), Some(b"old".to_vec()));
        storage.commit(Step { state: ["a", "b", "c", "d", "p"].map(put).to_vec().into(), ..Step::default() }).wait();
        let mut points = Points::new(1 << 20, &millpond_types::Pool::unlimited("caches"));
        let mut view = View::new(&storage, &mut points);
        view.put(b"b", b"new".to_vec());
        view.delete(b"c");
        view.put(b"bb", b"new".to_vec());
        view.drop_range(b"d".to_vec(), b"e".to_vec());
        let p = view.point(b"p").unwrap();
        view.points.put(p, b"new");
        let names = |entries: Vec<(Bytes, Bytes)>| {
            entries.iter().map(|(k, v)| format!("{k:?}={v:?}")).collect::<Vec<_>>().join(" ")
        };
        let all = names(view.range(b"a", b"o", 9).unwrap());
        assert_eq!(all, r#"b"a"=b"old" b"b"=b"new" b"bb"=b"new""#);
        assert_eq!(names(view.range(b"a", b"o", 2).unwrap()), r#"b"a"=b"old" b"b"=b"new""#);
        assert_eq!(view.get(b"d").unwrap(), None);
        let changes = view.into_changes();
        assert_eq!((changes.writes.len(), changes.drops.len()), (4, 1));
        let mut view = View::new(&storage, &mut points);
        assert_eq!(view.get(b"b").unwrap().unwrap(), &b"old"[..]);
        assert_eq!(view.get(b"d").unwrap().unwrap(), &b"old"[..]);
        assert_eq!(view.point_value(b"p").unwrap(), Some(&b"old"[..]));
    }
}

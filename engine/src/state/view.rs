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
use millpond_types::ports::{Scan, ScanLimits, StateReader, Writes};
use millpond_types::{Error, Result};

use super::points::{EntryId, Points};
use super::shards::Shards;
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

/// What a task's part of a view holds besides points.
#[derive(Default)]
pub struct Delta {
    ordered: BTreeMap<Vec<u8>, Option<Bytes>>,
    written: Writes,
    drops: Vec<(Vec<u8>, Vec<u8>)>,
    read: usize,
}

/// Makes views that see nothing.
#[derive(Clone, Copy)]
pub struct Blank<'a>(&'a dyn StateReader);

impl<'a> Blank<'a> {
    pub fn view(self) -> View<'a> {
        View {
            store: self.0,
            points: Shards::all(&mut []),
            ordered: BTreeMap::new(),
            written: Writes::default(),
            drops: Vec::new(),
            read: 0,
            read_max: usize::MAX,
        }
    }
}

pub struct View<'a> {
    store: &'a dyn StateReader,
    pub points: Shards<'a>,
    ordered: BTreeMap<Vec<u8>, Option<Bytes>>,
    written: Writes,
    drops: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of values that were read by whole key, and how many may be.
    read: usize,
    read_max: usize,
}

impl<'a> View<'a> {
    /// Begins a step: what an earlier one left pending is forgotten. To read more than `read_max` bytes by whole key is
    /// an error: the step is to be tried with fewer rows.
    pub fn new(store: &'a dyn StateReader, points: &'a mut [Points], read_max: usize) -> Self {
        points.iter_mut().for_each(Points::rollback);
        let points = Shards::all(points);
        let (ordered, written, drops) = (BTreeMap::new(), Writes::default(), Vec::new());
        Self { store, points, ordered, written, drops, read: 0, read_max }
    }

    /// A view for each shard, to be worked on at the same time by one operator: each of its tasks sees what it has in its
    /// partitions itself, and nobody else looks at that within the step. [`View::absorb`] takes what they changed.
    pub fn split(&mut self) -> Vec<View<'_>> {
        let store = self.store;
        let read_max = self.read_max.saturating_sub(self.read);
        let part = |points| View {
            store,
            points,
            ordered: BTreeMap::new(),
            written: Writes::default(),
            drops: Vec::new(),
            read: 0,
            read_max,
        };
        self.points.each().map(part).collect()
    }

    /// For work that looks at no state.
    pub fn blank(&self) -> Blank<'a> {
        Blank(self.store)
    }

    /// What a part of a view changed.
    pub fn into_delta(self) -> Delta {
        Delta { ordered: self.ordered, written: self.written, drops: self.drops, read: self.read }
    }

    pub fn absorb(&mut self, delta: Delta) -> Result<()> {
        self.ordered.extend(delta.ordered);
        self.written.append(&delta.written);
        self.drops.extend(delta.drops);
        self.took(delta.read)
    }

    /// Bytes of values that were read by whole key.
    pub fn read_bytes(&self) -> usize {
        self.read
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

    /// Entries for the keys, in their order, loaded by reads of a few each: before more is read what was read counts.
    pub fn fetch(&mut self, wants: &Wants) -> Result<Vec<EntryId>> {
        let ids: Vec<EntryId> = wants.keys.iter().map(|key| self.points.locate(key)).collect();
        let missing = self.points.missing(&ids);
        let mut rest = &missing[..];
        while !rest.is_empty() {
            let at_once = self.points.at_once(self.read_max.saturating_sub(self.read)).min(rest.len());
            let (now, later) = rest.split_at(at_once);
            let keys: Vec<&[u8]> = now.iter().map(|id| self.points.key(*id)).collect();
            let values = self.store.multi_get(&keys)?;
            let bytes = values.iter().flatten().map(Bytes::len).sum();
            let largest = values.iter().flatten().map(Bytes::len).max().unwrap_or(0);
            for (id, value) in now.iter().zip(values) {
                self.points.load(*id, value.as_deref());
            }
            self.points.saw(largest);
            self.took(bytes)?;
            rest = later;
        }
        Ok(ids)
    }

    fn took(&mut self, bytes: usize) -> Result<()> {
        self.read = self.read.saturating_add(bytes);
        if self.read > self.read_max {
            return Err(Error::bad_request(format!("the step looks at more than {} bytes of state", self.read_max)));
        }
        Ok(())
    }

    /// The entry of one key, loaded.
    pub fn point(&mut self, key: &[u8]) -> Result<EntryId> {
        let id = self.points.locate(key);
        if !self.points.is_loaded(id) {
            let value = self.store.get(key)?;
            self.points.load(id, value.as_deref());
            self.took(value.map_or(0, |v| v.len()))?;
        }
        Ok(id)
    }

    pub fn point_value(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        let id = self.point(key)?;
        Ok(self.points.value(id))
    }

    /// Writes keys that no operator reads.
    pub fn write_all(&mut self, writes: &Writes) {
        self.written.append(writes);
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

    /// Entries with `from <= key < to` in key order; of points only what is committed. `more` where a limit ended it,
    /// which may be where the range ends.
    pub fn scan(&mut self, from: &[u8], to: &[u8], limits: ScanLimits) -> Result<Scan> {
        let mut found = Scan::default();
        if from >= to {
            return Ok(found);
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut written = self.ordered.range::<[u8], _>(bounds).peekable();
        let mut from = from.to_vec();
        let mut bytes = 0;
        let mut add = |found: &mut Scan, key: Bytes, value: Bytes| {
            bytes += key.len() + value.len();
            found.entries.push((key, value));
            found.more = limits.reached(found.entries.len(), bytes);
            found.more
        };
        let mut left = limits.bytes_max;
        loop {
            let entries_max = RANGE_CHUNK.min(limits.entries_max.saturating_sub(found.entries.len()).saturating_add(1));
            let bytes_max = left.max(limits.bytes_max / 8).max(1);
            let chunk = self.store.scan(&from, to, false, ScanLimits { entries_max, bytes_max })?;
            for (key, value) in &chunk.entries {
                left = left.saturating_sub(key.len() + value.len());
                while let Some((k, v)) = written.next_if(|(k, _)| k.as_slice() < &key[..]) {
                    if let Some(v) = v
                        && add(&mut found, Bytes::copy_from_slice(k), v.clone())
                    {
                        return Ok(found);
                    }
                }
                let value = match written.next_if(|(k, _)| k.as_slice() == &key[..]) {
                    Some((_, written)) => written.clone(),
                    None if self.dropped(key) => None,
                    None => Some(value.clone()),
                };
                if let Some(value) = value
                    && add(&mut found, key.clone(), value)
                {
                    return Ok(found);
                }
            }
            match chunk.entries.last() {
                Some((key, _)) if chunk.more => {
                    from = key.to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        for (key, value) in written {
            if let Some(value) = value
                && add(&mut found, Bytes::copy_from_slice(key), value.clone())
            {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// The same, at most `entries_max`, whatever their size: for entries that are known to be small.
    pub fn range(&mut self, from: &[u8], to: &[u8], entries_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        Ok(self.scan(from, to, ScanLimits { entries_max, bytes_max: usize::MAX })?.entries)
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

    /// Counts what it gives.
    struct Counted<'a>(&'a MemoryStorage, std::sync::atomic::AtomicUsize);

    impl StateReader for Counted<'_> {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
            self.0.get(key)
        }

        fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
            let values = self.0.multi_get(keys)?;
            let bytes = values.iter().flatten().map(Bytes::len).sum();
            self.1.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            Ok(values)
        }

        fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan> {
            self.0.scan(from, to, reverse, limits)
        }
    }

    #[test]
    fn large_values_behind_small_ones_are_not_read_past_the_limit() {
        let (small, large, limit) = (8, 100_000, 1_000_000);
        let storage = MemoryStorage::new();
        let put = |i: u32| {
            let len = if i < 2_000 { small } else { large };
            (i.to_be_bytes().to_vec(), Some(vec![0; len]))
        };
        let entries: Vec<_> = (0..2_500).map(put).collect();
        storage.commit(Step { state: entries.into(), ..Step::default() }).wait();
        let reader = Counted(&storage, Default::default());
        let pool = millpond_types::Pool::unlimited("caches");
        let mut points = [Points::new(1 << 20, &pool)];
        let mut view = View::new(&reader, &mut points, limit);
        let mut wants = Wants::default();
        (0..2_500u32).for_each(|i| wants.keys.push(|key| key.extend_from_slice(&i.to_be_bytes())));
        assert!(view.fetch(&wants).unwrap_err().message().contains("more than 1000000 bytes of state"));
        let read = reader.1.load(std::sync::atomic::Ordering::Relaxed);
        assert!(read < limit + super::super::points::READ_MAX * large, "{read}");
    }

    #[test]
    fn a_step_sees_its_own_writes_and_nothing_of_a_failed_one() {
        let storage = MemoryStorage::new();
        let put = |k: &str| (k.as_bytes().to_vec(), Some(b"old".to_vec()));
        storage.commit(Step { state: ["a", "b", "c", "d", "p"].map(put).to_vec().into(), ..Step::default() }).wait();
        let pool = millpond_types::Pool::unlimited("caches");
        let mut points = [Points::new(1 << 20, &pool), Points::new(1 << 20, &pool)];
        let mut view = View::new(&storage, &mut points, usize::MAX);
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
        let few = view.scan(b"a", b"o", ScanLimits { entries_max: 9, bytes_max: 5 }).unwrap();
        assert!(few.more);
        assert_eq!(names(few.entries), r#"b"a"=b"old" b"b"=b"new""#);
        assert_eq!(view.get(b"d").unwrap(), None);
        let changes = view.into_changes();
        assert_eq!((changes.writes.len(), changes.drops.len()), (4, 1));
        let mut view = View::new(&storage, &mut points, usize::MAX);
        assert_eq!(view.get(b"b").unwrap().unwrap(), &b"old"[..]);
        assert_eq!(view.get(b"d").unwrap().unwrap(), &b"old"[..]);
        assert_eq!(view.point_value(b"p").unwrap(), Some(&b"old"[..]));
    }
}

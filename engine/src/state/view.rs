//! The view of state that one step works on: committed entries through a bounded read cache, under the step's own
//! writes.
//!
//! Invariants: a failed step leaves the cache as it was but for what it read; the cache never holds what is not
//! committed; a cached `None` means that the key is not there.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use millpond_types::Result;
use millpond_types::ports::StateReader;

/// Reads of ranges take so many entries at a time.
const RANGE_CHUNK: usize = 1024;

/// Entries read or written lately, in two generations: when the young one is full it becomes the old one, whose entries
/// are dropped unless they were used.
pub struct ReadCache {
    young: HashMap<Vec<u8>, Option<Bytes>>,
    old: HashMap<Vec<u8>, Option<Bytes>>,
    young_bytes: usize,
    bytes_max: usize,
}

fn weight(key: &[u8], value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len) + 96
}

impl ReadCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, bytes_max }
    }

    fn get(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(found) = self.young.get(key) {
            return Some(found.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.young_bytes += weight(&key, value.as_ref());
        self.young.insert(key, value);
    }

    /// Forgets what is too much. Between steps only, so that what a step prefetched stays for it.
    fn trim(&mut self) {
        if self.young_bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    /// Takes over the writes of a committed step.
    pub fn merge(&mut self, writes: BTreeMap<Vec<u8>, Option<Bytes>>, drops: &[(Vec<u8>, Vec<u8>)]) {
        if !drops.is_empty() {
            let kept = |key: &Vec<u8>| !drops.iter().any(|(from, to)| from <= key && key < to);
            self.young.retain(|key, _| kept(key));
            self.old.retain(|key, _| kept(key));
        }
        for (key, value) in writes {
            self.old.remove(&key);
            self.put(key, value);
        }
        self.trim();
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_bytes = 0;
    }
}

/// What a step wrote so far.
#[derive(Debug, Default)]
pub struct Overlay {
    pub writes: BTreeMap<Vec<u8>, Option<Bytes>>,
    pub drops: Vec<(Vec<u8>, Vec<u8>)>,
    pub bytes: usize,
}

impl Overlay {
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.drops.is_empty()
    }
}

/// Keys and ranges that an operator will look at.
#[derive(Debug, Default)]
pub struct Wants {
    pub keys: Vec<Vec<u8>>,
}

pub struct View<'a> {
    store: &'a dyn StateReader,
    cache: &'a mut ReadCache,
    overlay: Overlay,
}

impl<'a> View<'a> {
    pub fn new(store: &'a dyn StateReader, cache: &'a mut ReadCache) -> Self {
        Self { store, cache, overlay: Overlay::default() }
    }

    pub fn into_overlay(self) -> Overlay {
        self.overlay
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> usize {
        self.overlay.bytes
    }

    fn dropped(&self, key: &[u8]) -> bool {
        self.overlay.drops.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
    }

    /// Fetches in one read what is not at hand.
    pub fn prefetch(&mut self, mut wants: Wants) -> Result<()> {
        wants.keys.retain(|key| !self.overlay.writes.contains_key(key) && self.cache.get(key).is_none());
        wants.keys.sort_unstable();
        wants.keys.dedup();
        if wants.keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = wants.keys.iter().map(Vec::as_slice).collect();
        let values = self.store.multi_get(&keys)?;
        for (key, value) in wants.keys.into_iter().zip(values) {
            self.cache.put(key, value);
        }
        Ok(())
    }

    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(written) = self.overlay.writes.get(key) {
            return Ok(written.clone());
        }
        if self.dropped(key) {
            return Ok(None);
        }
        if let Some(cached) = self.cache.get(key) {
            return Ok(cached);
        }
        let value = self.store.get(key)?;
        self.cache.put(key.to_vec(), value.clone());
        Ok(value)
    }

    pub fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.write(key, Some(value.into()));
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.write(key, None);
    }

    fn write(&mut self, key: &[u8], value: Option<Bytes>) {
        self.overlay.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        match self.overlay.writes.get_mut(key) {
            Some(place) => *place = value,
            None => {
                self.overlay.writes.insert(key.to_vec(), value);
            }
        }
    }

    /// Drops `from <= key < to`, as it is now.
    pub fn drop_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        if from >= to {
            return;
        }
        let doomed: Vec<Vec<u8>> = self
            .overlay
            .writes
            .range::<[u8], _>((Bound::Included(&from[..]), Bound::Excluded(&to[..])))
            .map(|(k, _)| k.clone())
            .collect();
        for key in doomed {
            self.overlay.writes.remove(&key);
        }
        self.overlay.bytes += from.len() + to.len();
        self.overlay.drops.push((from, to));
    }

    /// Entries with `from <= key < to` in key order, at most `entries_max`.
    pub fn range(&mut self, from: &[u8], to: &[u8], entries_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut written = self.overlay.writes.range::<[u8], _>(bounds).peekable();
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
        storage.commit(Step { state: ["a", "b", "c", "d"].map(put).to_vec(), ..Step::default() }).wait();
        let mut cache = ReadCache::new(1 << 20);
        let mut view = View::new(&storage, &mut cache);
        view.put(b"b", b"new".to_vec());
        view.delete(b"c");
        view.put(b"bb", b"new".to_vec());
        view.drop_range(b"d".to_vec(), b"e".to_vec());
        let names = |entries: Vec<(Bytes, Bytes)>| {
            entries.iter().map(|(k, v)| format!("{:?}={:?}", k, v)).collect::<Vec<_>>().join(" ")
        };
        let all = names(view.range(b"a", b"z", 9).unwrap());
        assert_eq!(all, r#"b"a"=b"old" b"b"=b"new" b"bb"=b"new""#);
        assert_eq!(names(view.range(b"a", b"z", 2).unwrap()), r#"b"a"=b"old" b"b"=b"new""#);
        assert_eq!(view.get(b"d").unwrap(), None);
        drop(view);
        let mut view = View::new(&storage, &mut cache);
        assert_eq!(view.get(b"b").unwrap().unwrap(), &b"old"[..]);
        assert_eq!(view.get(b"d").unwrap().unwrap(), &b"old"[..]);
    }
}

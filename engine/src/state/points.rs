//! Entries of state that are read and written by whole key: what is committed and what the step under way has changed,
//! in one table.
//!
//! Invariants: a key is in the table once; a number of an entry is good until the end of its step; `commit` and
//! `rollback` leave nothing pending; entries are forgotten between steps only.

use millpond_types::budget::{Pool, Reservation};

/// Places of an index at first.
const INDEX_MIN: usize = 64;

/// Number of an entry, within a step.
pub type EntryId = u32;

const EMPTY: u32 = u32::MAX;

/// Room for a step's values that is kept for the next one.
const VALUES_KEPT_BYTES: usize = 16 << 10;

/// Most values that are read at once: as many as RocksDB itself reads at a time. Any of them may be larger than all before.
pub const READ_MAX: usize = 32;

/// About what an entry takes besides its key and value: itself, its places in the index, two allocations.
const ENTRY_BYTES: usize = 144;

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    value: Option<Box<[u8]>>,
    pending: Pending,
    /// Whether `value` is what storage has.
    loaded: bool,
    /// Step in which it was used last.
    used: u32,
    /// What an operator has noted, and for which of its calls.
    note: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    None,
    /// Where in `values`, and how long.
    Put(usize, usize),
    Delete,
}

#[derive(Debug)]
pub struct Points {
    entries: Vec<Entry>,
    /// Open addressing; a power of two, at most half full.
    index: Vec<u32>,
    seed: u64,
    bytes: usize,
    bytes_max: usize,
    step: u32,
    stamp: u32,
    dirty: Vec<EntryId>,
    /// What the step puts, one behind the other.
    values: Vec<u8>,
    /// How large values are that are read, the largest of late; 0 before the first one. It falls slowly, as operators take turns.
    large: usize,
    /// What is counted of `bytes` in the pool of all queries' caches.
    room: Reservation,
}

impl Points {
    pub fn new(bytes_max: usize, pool: &Pool) -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self {
            entries: Vec::new(),
            index: vec![EMPTY; INDEX_MIN],
            seed: std::collections::hash_map::RandomState::new().build_hasher().finish() | 1,
            bytes: 0,
            bytes_max,
            step: 1,
            stamp: 0,
            dirty: Vec::new(),
            values: Vec::new(),
            large: 0,
            room: pool.reservation(),
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mix = |a: u64, b: u64| {
            let wide = u128::from(a) * u128::from(b);
            (wide as u64) ^ (wide >> 64) as u64
        };
        let mut hash = self.seed ^ key.len() as u64;
        let mut chunks = key.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(<[u8; 8]>::try_from(chunk).unwrap_or_default());
            hash = mix(hash ^ word, 0x9e37_79b9_7f4a_7c15 ^ self.seed.rotate_left(23));
        }
        let mut tail = [0; 8];
        tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        mix(hash ^ u64::from_le_bytes(tail), 0xd6e8_feb8_6659_fd93)
    }

    /// The entry of a key, made if it is not there; then it is not loaded.
    pub fn locate(&mut self, key: &[u8]) -> EntryId {
        let hash = self.hash(key);
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let id = self.index[at];
            if id == EMPTY {
                break;
            }
            let entry = &mut self.entries[id as usize];
            if entry.hash == hash && *entry.key == *key {
                entry.used = self.step;
                return id;
            }
            at = (at + 1) & mask;
        }
        let id = self.entries.len() as u32;
        self.index[at] = id;
        self.bytes += key.len() + ENTRY_BYTES;
        self.entries.push(Entry {
            hash,
            key: key.into(),
            value: None,
            pending: Pending::None,
            loaded: false,
            used: self.step,
            note: (0, 0),
        });
        if self.entries.len() * 2 > self.index.len() {
            self.reindex(self.index.len() * 2);
        }
        id
    }

    fn reindex(&mut self, len: usize) {
        self.index.clear();
        self.index.resize(len, EMPTY);
        if self.index.capacity() > 4 * len {
            self.index.shrink_to(len);
        }
        let mask = len - 1;
        for (id, entry) in self.entries.iter().enumerate() {
            let mut at = entry.hash as usize & mask;
            while self.index[at] != EMPTY {
                at = (at + 1) & mask;
            }
            self.index[at] = id as u32;
        }
    }

    pub fn is_loaded(&self, id: EntryId) -> bool {
        let entry = &self.entries[id as usize];
        entry.loaded || entry.pending != Pending::None
    }

    pub fn key(&self, id: EntryId) -> &[u8] {
        &self.entries[id as usize].key
    }

    /// Notes what storage has.
    pub fn load(&mut self, id: EntryId, value: Option<&[u8]>) {
        let entry = &mut self.entries[id as usize];
        entry.loaded = true;
        self.bytes += value.map_or(0, <[u8]>::len);
        entry.value = value.map(Into::into);
    }

    /// The value as this step sees it.
    pub fn value(&self, id: EntryId) -> Option<&[u8]> {
        let entry = &self.entries[id as usize];
        match entry.pending {
            Pending::None => entry.value.as_deref(),
            Pending::Put(start, len) => self.values.get(start..start + len),
            Pending::Delete => None,
        }
    }

    fn pend(&mut self, id: EntryId, pending: Pending) {
        let entry = &mut self.entries[id as usize];
        if entry.pending == Pending::None {
            self.dirty.push(id);
        }
        entry.pending = pending;
    }

    pub fn put(&mut self, id: EntryId, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        if let Pending::Put(start, len) = self.entries[id as usize].pending
            && len == value.len()
        {
            self.values[start..start + len].copy_from_slice(value);
            return;
        }
        self.pend(id, Pending::Put(self.values.len(), value.len()));
        self.values.extend_from_slice(value);
    }

    pub fn delete(&mut self, id: EntryId) {
        self.pend(id, Pending::Delete);
    }

    /// Forgets all notes.
    pub fn clear_notes(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamp = 1;
            self.entries.iter_mut().for_each(|e| e.note = (0, 0));
        }
    }

    /// What was noted since `clear_notes`.
    pub fn note(&self, id: EntryId) -> Option<u32> {
        let (stamp, note) = self.entries[id as usize].note;
        (stamp == self.stamp).then_some(note)
    }

    pub fn set_note(&mut self, id: EntryId, note: u32) {
        self.entries[id as usize].note = (self.stamp, note);
    }

    /// How much the step writes: entries, and bytes of their keys and values.
    pub fn pending(&self) -> (usize, usize) {
        let keys: usize = self.dirty.iter().map(|id| self.entries[*id as usize].key.len()).sum();
        (self.dirty.len(), keys + self.values.len())
    }

    /// What the step writes, by key.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.dirty.iter().filter_map(|id| {
            let entry = &self.entries[*id as usize];
            match entry.pending {
                Pending::None => None,
                Pending::Put(start, len) => Some((&*entry.key, self.values.get(start..start + len))),
                Pending::Delete => Some((&*entry.key, None)),
            }
        })
    }

    /// The step is committed: what was pending is what storage has.
    pub fn commit(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            let entry = &mut self.entries[id as usize];
            let value = match std::mem::replace(&mut entry.pending, Pending::None) {
                Pending::None => continue,
                Pending::Put(start, len) => Some(&self.values[start..start + len]),
                Pending::Delete => None,
            };
            entry.loaded = true;
            // Most values are as long as those that they replace.
            if let (Some(old), Some(new)) = (&mut entry.value, value)
                && old.len() == new.len()
            {
                old.copy_from_slice(new);
                continue;
            }
            self.bytes = self.bytes.saturating_sub(entry.value.as_ref().map_or(0, |v| v.len()));
            self.bytes += value.map_or(0, <[u8]>::len);
            entry.value = value.map(Into::into);
        }
        self.clear_values();
        self.step = self.step.wrapping_add(1);
        self.fit();
    }

    /// Forgets as much as the own limit and the pool of all queries ask for. Between steps only.
    pub fn fit(&mut self) {
        let pool = self.room.pool();
        let greedy = self.bytes > pool.share() && pool.crowded();
        if self.bytes <= self.bytes_max && !greedy && self.room.try_set(self.bytes) {
            return;
        }
        if !self.entries.is_empty() {
            self.forget();
        }
        if !self.room.try_set(self.bytes) {
            self.entries.clear();
            self.shrink();
        }
        self.room.set(self.bytes);
    }

    fn shrink(&mut self) {
        if self.entries.capacity() > 4 * self.entries.len().max(256) {
            self.entries.shrink_to(2 * self.entries.len());
        }
        let weight = |e: &Entry| e.key.len() + ENTRY_BYTES + e.value.as_ref().map_or(0, |v| v.len());
        self.bytes = self.entries.iter().map(weight).sum();
        let len = (self.entries.len() * 4).next_power_of_two().max(INDEX_MIN);
        self.reindex(len);
    }

    /// The step failed.
    pub fn rollback(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            self.entries[id as usize].pending = Pending::None;
        }
        self.clear_values();
    }

    fn clear_values(&mut self) {
        self.values.clear();
        if self.values.capacity() > VALUES_KEPT_BYTES {
            self.values = Vec::new();
        }
    }

    /// Forgets the older half: what the last steps did not use, or all if they used too much.
    fn forget(&mut self) {
        let mut ages: Vec<u32> = self.entries.iter().map(|e| self.step.wrapping_sub(e.used)).collect();
        let middle = ages.len() / 2;
        let (_, &mut age, _) = ages.select_nth_unstable(middle);
        let step = self.step;
        // Those of the last step are the youngest: they stay if there is anything else to forget.
        let youngest = ages.iter().copied().min().unwrap_or(0);
        let kept = if age > youngest { age - 1 } else { age };
        self.entries.retain(|e| e.loaded && step.wrapping_sub(e.used) <= kept);
        self.shrink();
        if self.bytes > self.bytes_max {
            self.entries.clear();
            self.shrink();
        }
    }

    /// How many values are to be read at once, where there is room for so many bytes.
    pub fn at_once(&self, bytes: usize) -> usize {
        bytes.checked_div(self.large).unwrap_or(READ_MAX).clamp(1, READ_MAX)
    }

    /// Notes how large the largest value was that was read.
    pub fn saw(&mut self, largest: usize) {
        self.large = largest.max(self.large - self.large / 8).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_leaves_nothing() {
        let mut points = Points::new(1 << 20, &Pool::unlimited("caches"));
        let a = points.locate(b"a");
        points.load(a, Some(b"1"));
        points.put(a, b"2");
        assert_eq!(points.value(a), Some(&b"2"[..]));
        points.rollback();
        assert_eq!(points.value(a), Some(&b"1"[..]));
        points.delete(a);
        assert_eq!(points.writes().count(), 1);
        points.commit();
        assert_eq!((points.value(a), points.is_loaded(a)), (None, true));
    }

    #[test]
    fn what_is_used_stays_when_room_is_needed() {
        let mut points = Points::new(40_000, &Pool::unlimited("caches"));
        for i in 0..2_000u32 {
            let hot = points.locate(b"hot");
            points.put(hot, i.to_be_bytes());
            let cold = points.locate(&i.to_be_bytes());
            points.put(cold, vec![0; 100]);
            points.commit();
            assert!(points.bytes <= 40_000);
        }
        let hot = points.locate(b"hot");
        assert_eq!(points.value(hot), Some(&1_999u32.to_be_bytes()[..]));
        let gone = points.locate(&0u32.to_be_bytes());
        assert!(!points.is_loaded(gone));
    }

    #[test]
    fn caches_share_what_there_is() {
        let pool = Pool::root("caches", 100_000);
        let mut all: Vec<Points> = (0..4).map(|_| Points::new(1 << 20, &pool)).collect();
        // The first takes all there is before the others come.
        for round in 0..3_000u32 {
            for (i, points) in all.iter_mut().enumerate() {
                if i > 0 && round < 1_500 {
                    continue;
                }
                let id = points.locate(&round.to_be_bytes());
                points.put(id, vec![0; 50]);
                points.commit();
                assert!(points.bytes <= 100_000);
            }
            assert!(pool.used() <= 100_000, "{pool:?}");
        }
        for points in &all {
            assert!(
                points.bytes > 8_000 && points.bytes < 50_000,
                "{:?}",
                all.iter().map(|p| p.bytes).collect::<Vec<_>>()
            );
        }
        drop(all);
        assert_eq!(pool.used(), 0);
    }
}

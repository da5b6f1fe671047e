//! A query's points, cut by partition so that tasks of a step work on them at the same time.
//!
//! Invariant: a key's shard follows from its partition alone; the number of an entry says in which shard it is.

use millpond_types::PartitionId;

use super::key::partition_of;
use super::points::{EntryId, Points};

/// Bits of an entry's number within its shard.
const SHARD_BITS: u32 = 26;
/// Most shards of a query.
pub const SHARDS_MAX: usize = 1 << (32 - SHARD_BITS);

/// The shards that a view may touch: all of a query's, or one.
pub struct Shards<'a> {
    shards: &'a mut [Points],
    /// Number of the first of them among all of the query's.
    first: usize,
}

/// The shard of a partition, of so many.
pub fn shard_of(partition: PartitionId, shards: usize) -> usize {
    partition.unsigned_abs() as usize % shards.max(1)
}

impl<'a> Shards<'a> {
    pub fn all(shards: &'a mut [Points]) -> Self {
        Self { shards, first: 0 }
    }

    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Each by itself.
    pub fn each(&mut self) -> impl Iterator<Item = Shards<'_>> {
        let first = self.first;
        self.shards.chunks_mut(1).enumerate().map(move |(i, shard)| Shards { shards: shard, first: first + i })
    }

    fn of(&self, id: EntryId) -> (&Points, EntryId) {
        if self.shards.len() == 1 && self.first == 0 {
            return (&self.shards[0], id);
        }
        (&self.shards[(id >> SHARD_BITS) as usize - self.first], id & ((1 << SHARD_BITS) - 1))
    }

    fn of_mut(&mut self, id: EntryId) -> (&mut Points, EntryId) {
        if self.shards.len() == 1 && self.first == 0 {
            return (&mut self.shards[0], id);
        }
        (&mut self.shards[(id >> SHARD_BITS) as usize - self.first], id & ((1 << SHARD_BITS) - 1))
    }

    /// The entry of a key, made if it is not there; then it is not loaded.
    pub fn locate(&mut self, key: &[u8]) -> EntryId {
        let shard = if self.shards.len() == 1 { 0 } else { shard_of(partition_of(key), self.shards.len()) };
        let id = self.shards[shard].locate(key);
        id | ((shard + self.first) as u32) << SHARD_BITS
    }

    pub fn is_loaded(&self, id: EntryId) -> bool {
        let (points, id) = self.of(id);
        points.is_loaded(id)
    }

    pub fn key(&self, id: EntryId) -> &[u8] {
        let (points, id) = self.of(id);
        points.key(id)
    }

    /// Notes what storage has.
    pub fn load(&mut self, id: EntryId, value: Option<&[u8]>) {
        let (points, id) = self.of_mut(id);
        points.load(id, value);
    }

    /// The value as this step sees it.
    pub fn value(&self, id: EntryId) -> Option<&[u8]> {
        let (points, id) = self.of(id);
        points.value(id)
    }

    pub fn put(&mut self, id: EntryId, value: impl AsRef<[u8]>) {
        let (points, id) = self.of_mut(id);
        points.put(id, value);
    }

    pub fn delete(&mut self, id: EntryId) {
        let (points, id) = self.of_mut(id);
        points.delete(id);
    }

    /// Forgets all notes.
    pub fn clear_notes(&mut self) {
        self.shards.iter_mut().for_each(Points::clear_notes);
    }

    /// What was noted since `clear_notes`.
    pub fn note(&self, id: EntryId) -> Option<u32> {
        let (points, id) = self.of(id);
        points.note(id)
    }

    pub fn set_note(&mut self, id: EntryId, note: u32) {
        let (points, id) = self.of_mut(id);
        points.set_note(id, note);
    }

    /// Those of the entries that are not loaded, by key.
    pub fn missing(&self, ids: &[EntryId]) -> Vec<EntryId> {
        let mut missing: Vec<EntryId> = ids.iter().copied().filter(|id| !self.is_loaded(*id)).collect();
        missing.sort_unstable_by(|a, b| self.key(*a).cmp(self.key(*b)));
        missing.dedup();
        missing
    }

    /// How many values are to be read at once, where there is room for so many bytes.
    pub fn at_once(&self, bytes: usize) -> usize {
        self.shards.iter().map(|points| points.at_once(bytes)).min().unwrap_or(1)
    }

    /// Notes how large the largest value was that was read.
    pub fn saw(&mut self, largest: usize) {
        self.shards.iter_mut().for_each(|points| points.saw(largest));
    }

    /// How much the step writes: entries, and bytes of their keys and values.
    pub fn pending(&self) -> (usize, usize) {
        self.shards.iter().map(Points::pending).fold((0, 0), |(n, bytes), (m, more)| (n + m, bytes + more))
    }

    /// What the step writes, by key.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.shards.iter().flat_map(Points::writes)
    }
}

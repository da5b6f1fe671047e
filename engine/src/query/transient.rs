//! State of a push query.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_types::budget::{Pool, Reservation};
use millpond_types::ports::{Scan, ScanLimits, StateReader};
use millpond_types::{Error, Result};

use crate::memory::EngineMemory;
use crate::state::view::Changes;

/// About what an entry of a push query's state takes besides its key and value.
const ENTRY_BYTES: usize = 96;

/// State of a push query: in memory, gone with it.
pub(super) struct TransientState {
    entries: BTreeMap<Vec<u8>, Bytes>,
    bytes: usize,
    /// What is counted of it in the pool of all push queries.
    room: Reservation,
    /// What steps hold while they are under way, its own among them.
    steps: Pool,
}

impl TransientState {
    pub(super) fn new(memory: &EngineMemory) -> Self {
        let (room, steps) = (memory.push_queries.reservation(), memory.steps.clone());
        Self { entries: BTreeMap::new(), bytes: 0, room, steps }
    }

    /// Counts what it has become; false where there is no room for that. What only steps stand in the way of is room: they
    /// let go of it when they end, and get no more before all is within the limits again.
    fn count(&mut self) -> bool {
        if self.room.try_set(self.bytes) {
            return true;
        }
        let (more, pool) = (self.bytes - self.room.bytes(), self.room.pool());
        let fits = more <= pool.limit().saturating_sub(pool.used()) && more <= self.steps.used();
        if fits {
            self.room.set(self.bytes);
        }
        fits
    }

    pub(super) fn apply(&mut self, changes: Changes, bytes_max: usize) -> Result<()> {
        use std::ops::Bound;
        for (from, to) in &changes.drops {
            let doomed: Vec<Vec<u8>> = self
                .entries
                .range::<[u8], _>((Bound::Included(&from[..]), Bound::Excluded(&to[..])))
                .map(|(k, _)| k.clone())
                .collect();
            for key in doomed {
                self.remove(&key);
            }
        }
        for (key, value) in changes.writes.iter() {
            self.remove(key);
            if let Some(value) = value {
                self.bytes += key.len() + value.len() + ENTRY_BYTES;
                self.entries.insert(key.to_vec(), Bytes::copy_from_slice(value));
            }
        }
        if self.bytes > bytes_max {
            return Err(Error::bad_request(format!(
                "the push query needs more than {bytes_max} bytes of state; make it a persistent query"
            )));
        }
        if !self.count() {
            return Err(Error::bad_request(format!(
                "the memory for push queries is used up: {} bytes are left of {}; close some, or make it a persistent query",
                self.room.pool().left(),
                self.room.pool().limit()
            )));
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.entries.remove(key) {
            self.bytes -= key.len() + value.len() + ENTRY_BYTES;
        }
    }
}

impl StateReader for TransientState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.entries.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        Ok(keys.iter().map(|key| self.entries.get(*key).cloned()).collect())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan> {
        use std::ops::Bound;
        if from >= to {
            return Ok(Scan::default());
        }
        let range = self.entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        Ok(if reverse { Scan::of(range.rev(), limits) } else { Scan::of(range, limits) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_under_way_do_not_end_a_push_query_and_what_stays_does() {
        let entry = || {
            let mut changes = Changes::default();
            changes.writes.push(b"key", Some(&[0; 200]));
            changes
        };
        let memory = EngineMemory::within(&Pool::root("engine", 1600));
        memory.read_caches.take(1000);
        memory.steps.take(500);
        let mut state = TransientState::new(&memory);
        state.apply(entry(), usize::MAX).unwrap();
        assert_eq!(memory.push_queries.used(), 3 + 200 + ENTRY_BYTES);
        // It counts as long as it is there.
        assert!(memory.steps.try_reserve(1).is_none());
        drop(state);
        memory.steps.give(500);
        memory.pull_queries.take(500);
        let refused = TransientState::new(&memory).apply(entry(), usize::MAX).unwrap_err();
        assert!(refused.to_string().contains("100 bytes are left"), "{refused}");
    }
}

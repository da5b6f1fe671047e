//! State of a push query.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_types::budget::{Pool, Reservation};
use millpond_types::ports::{Scan, ScanLimits, StateReader};
use millpond_types::{Error, Result};

use crate::state::view::Changes;

/// About what an entry of a push query's state takes besides its key and value.
const ENTRY_BYTES: usize = 96;

/// State of a push query: in memory, gone with it.
pub(super) struct TransientState {
    entries: BTreeMap<Vec<u8>, Bytes>,
    bytes: usize,
    /// What is counted of it in the pool of all push queries.
    room: Reservation,
}

impl TransientState {
    pub(super) fn new(pool: &Pool) -> Self {
        Self { entries: BTreeMap::new(), bytes: 0, room: pool.reservation() }
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
        if !self.room.try_set(self.bytes) {
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

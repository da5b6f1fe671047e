//! Stream time and what goes with it: a few numbers per stateful operator and partition, kept in state.
//!
//! ```text
//! version (1) = 01 | count (zigzag varint) | numbers (zigzag varints)
//! ```
//!
//! Invariant: what is loaded is written back in the same step if it changed.

use std::collections::HashMap;

use millpond_types::record::put_varint;
use millpond_types::{Error, PartitionId, Result};

use crate::state::cells::{take_int, take_u8};
use crate::state::key::KeySpace;
use crate::state::view::View;

const VERSION: u8 = 1;
/// Stream time before the first row.
pub const NO_TIME: i64 = i64::MIN;

/// `N` numbers per partition; the first is the stream time.
pub struct Times<'a, const N: usize> {
    space: &'a KeySpace,
    loaded: HashMap<PartitionId, ([i64; N], bool)>,
}

impl<'a, const N: usize> Times<'a, N> {
    pub fn new(space: &'a KeySpace) -> Self {
        Self { space, loaded: HashMap::new() }
    }

    /// The numbers of a partition; all [`NO_TIME`] at first.
    pub fn get(&mut self, partition: PartitionId, view: &mut View<'_>) -> Result<&mut [i64; N]> {
        if !self.loaded.contains_key(&partition) {
            let mut numbers = [NO_TIME; N];
            if let Some(mut bytes) = view.point_value(&self.space.partition_prefix(partition))? {
                if take_u8(&mut bytes)? != VERSION {
                    return Err(Error::corrupt("stream time in state has an unknown version"));
                }
                let count = take_int(&mut bytes)?;
                for number in numbers.iter_mut().take(usize::try_from(count).unwrap_or(0)) {
                    *number = take_int(&mut bytes)?;
                }
            }
            self.loaded.insert(partition, (numbers, false));
        }
        let entry = self.loaded.get_mut(&partition).ok_or_else(|| Error::bug("stream time was not loaded"))?;
        entry.1 = true;
        Ok(&mut entry.0)
    }

    /// Advances the stream time of a partition; returns it.
    pub fn advance(&mut self, partition: PartitionId, time: i64, view: &mut View<'_>) -> Result<i64> {
        let numbers = self.get(partition, view)?;
        numbers[0] = numbers[0].max(time);
        Ok(numbers[0])
    }

    pub fn store(self, view: &mut View<'_>) -> Result<()> {
        for (partition, (numbers, touched)) in self.loaded {
            if touched {
                let mut bytes = vec![VERSION];
                put_varint(&mut bytes, N as i64);
                numbers.iter().for_each(|n| put_varint(&mut bytes, *n));
                let id = view.point(&self.space.partition_prefix(partition))?;
                view.points.put(id, bytes);
            }
        }
        Ok(())
    }
}

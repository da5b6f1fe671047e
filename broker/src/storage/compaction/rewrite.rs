//! A piece of a compaction as the writer puts it: batches that lost records, batches that are gone, the segment that
//! they make, and how far the partition is compacted once all pieces are there.

use std::sync::Arc;

use millpond_types::Offset;

use super::super::Result;
use super::super::partition::{LogState, Partition, Segment};
use super::super::pass::{Pass, pending};
use super::Compacted;
use crate::keys::{self, put_batch_prefix};

/// What an edit costs in a write besides its batch.
const EDIT_COST: usize = 32;

pub struct Rewrite {
    pub partition: Arc<Partition>,
    /// By last offset; in the order of offsets.
    pub edits: Vec<Edit>,
    /// Last offset that the edits and the segment are about.
    pub last: Offset,
    /// Takes the place of all closed segments within its offsets.
    pub segment: Option<Segment>,
    pub compacted: Option<Compacted>,
    pub bytes: usize,
}

pub enum Edit {
    Delete(Offset),
    /// With room for the prefix, which gets the sequence that the batch had.
    Replace {
        last: Offset,
        sequence: u64,
        value: Vec<u8>,
    },
    /// The marker that ended it is gone.
    ForgetAborted(Offset),
    /// No batch lies in it any more.
    ForgetSettled(Offset),
}

impl Edit {
    pub fn size(&self) -> usize {
        match self {
            Self::Replace { value, .. } => value.len() + EDIT_COST,
            Self::Delete(_) | Self::ForgetAborted(_) | Self::ForgetSettled(_) => EDIT_COST,
        }
    }
}

impl Rewrite {
    pub fn size(&self) -> usize {
        self.bytes
    }
}

/// What becomes of a partition's memory when a piece is written.
pub struct Rewritten {
    pub last: Offset,
    segment: Option<Segment>,
    compacted: Option<Compacted>,
}

impl Rewritten {
    pub fn show(&self, log: &mut LogState) {
        if let Some(segment) = self.segment {
            let from = log.segments.partition_point(|s| s.base < segment.base);
            let to = log.segments.partition_point(|s| s.last <= segment.last);
            if from < to {
                log.segments.drain(from..to);
                log.segments.insert(from, segment);
            }
        }
        if let Some(compacted) = self.compacted {
            log.compacted = compacted;
        }
    }
}

impl Pass<'_> {
    /// Batches that were deleted since the piece was made stay deleted.
    pub fn rewrite(&mut self, rewrite: Rewrite) -> Result<()> {
        let Rewrite { partition, edits, last, segment, compacted, .. } = rewrite;
        let uid = partition.uid;
        let entry = pending(&mut self.partitions, &partition, self.shared.epoch);
        let start = entry.start.unwrap_or(entry.start_now);
        if entry.gone || self.deleted.iter().any(|t| t.id == partition.place.topic) {
            return Err(super::super::StorageError::unknown_partition(partition.place));
        }
        for edit in edits {
            match edit {
                Edit::Delete(last) => self.batch.delete_cf(self.families.log, keys::batch(uid, last)),
                Edit::Replace { last, .. } if last < start => {}
                Edit::Replace { last, sequence, mut value } => {
                    put_batch_prefix(&mut value, sequence);
                    self.batch.put_cf(self.families.log, keys::batch(uid, last), &value);
                }
                Edit::ForgetAborted(marker) => self.batch.delete_cf(self.families.index, keys::aborted(uid, marker)),
                Edit::ForgetSettled(last) => self.batch.delete_cf(self.families.index, keys::settled(uid, last)),
            }
        }
        let segment = segment.filter(|s| s.last >= start);
        if let Some(segment) = segment {
            let log = partition.log.lock();
            let from = log.segments.partition_point(|s| s.base < segment.base);
            for old in log.segments.iter().skip(from).take_while(|s| s.last < segment.last) {
                self.batch.delete_cf(self.families.index, keys::segment(uid, old.last));
            }
            drop(log);
            self.batch.put_cf(self.families.index, keys::segment(uid, segment.last), segment.encode());
        }
        if let Some(compacted) = compacted {
            self.batch.put_cf(self.families.meta, keys::compacted(uid), compacted.encode());
        }
        entry.rewritten.push(Rewritten { last, segment, compacted });
        Ok(())
    }
}

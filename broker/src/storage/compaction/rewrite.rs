//! A piece of a compaction as the writer puts it: batches that lost records, batches that are gone, the segment that
//! they make, and how far the partition is compacted once all pieces are there. Batches that are moved to another log file
//! are put the same way. What is left of batches lies in files of survivors already (`log_files`): the writer puts keys.
//!
//! Invariant: whoever makes pieces holds `Shared::compacting`, so that what lies under a key is what was read, or was
//! deleted with all that was before it.

use std::sync::Arc;

use millpond_types::Offset;

use super::super::Result;
use super::super::partition::{LogState, Partition, Segment};
use super::super::pass::{Pass, pending};
use super::Compacted;
use crate::keys::{self, BatchPlace, PLACE_LEN};

/// What an edit costs in a write.
pub const EDIT_COST: usize = 32 + PLACE_LEN;

pub struct Rewrite {
    pub partition: Arc<Partition>,
    /// By last offset; in the order of offsets.
    pub edits: Vec<Edit>,
    /// Last offset that the edits and the segment are about.
    pub last: Offset,
    /// Takes the place of all closed segments within its offsets.
    pub segment: Option<Segment>,
    pub compacted: Option<Compacted>,
}

pub enum Edit {
    /// With the log file that it was in, and its bytes there.
    Delete(Offset, Option<(u32, u64)>),
    /// It lies there now, on disk.
    Replace { last: Offset, place: BatchPlace, was: Option<(u32, u64)> },
    /// The marker that ended it is gone.
    ForgetAborted(Offset),
    /// No batch lies in it any more.
    ForgetSettled(Offset),
}

impl Rewrite {
    /// An edit that leaves segments, and how far the partition is compacted, as they are.
    pub fn of(partition: Arc<Partition>, edit: Edit) -> Self {
        Self { partition, edits: vec![edit], last: -1, segment: None, compacted: None }
    }

    /// It gives more space back than it takes.
    pub fn is_move(&self) -> bool {
        self.last < 0 && self.segment.is_none() && self.compacted.is_none()
    }

    pub fn size(&self) -> usize {
        self.edits.len() * EDIT_COST
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
            log.segments.replace(from..to, segment);
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
                Edit::Delete(last, _) | Edit::Replace { last, .. } if last < start => {}
                Edit::Delete(last, was) => {
                    self.batch.delete_cf(self.families.log, keys::batch(uid, last));
                    self.replaced.extend(was);
                }
                Edit::Replace { last, place, was } => {
                    self.batch.put_cf(self.families.log, keys::batch(uid, last), place.encode());
                    self.survived.push(place);
                    self.replaced.extend(was);
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

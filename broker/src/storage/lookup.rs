//! Offsets by time, by name and by leader epoch.
//!
//! Segments narrow a time to about a megabyte of log; within it, batches and then records are looked at.

use millpond_types::Offset;

use super::Result;
use super::error::StorageError;
use super::forced::in_doubt;
use super::partition::{Partition, Segment};
use super::read::{damaged, open_batch, stored};
use super::shared::Shared;
use crate::batch::{BatchHeader, RecordIter};

const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    Earliest,
    Latest,
    /// First offset that is not decided yet.
    LatestStable,
    /// The first record with the greatest timestamp; transactions' markers are records too.
    MaxTimestamp,
    /// The first record at or after this time, or marker.
    Timestamp(i64),
}

/// An offset, or -1 in every field where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    pub offset: Offset,
    /// Of the record, -1 where none was asked for.
    pub timestamp: i64,
    pub leader_epoch: i32,
}

impl ListedOffset {
    const NONE: Self = Self { offset: -1, timestamp: -1, leader_epoch: -1 };
}

pub fn list_offset(shared: &Shared, partition: &Partition, what: OffsetQuery) -> Result<ListedOffset> {
    let (start, end, segments) = {
        let log = partition.log.lock();
        if log.gone {
            return Err(StorageError::unknown_partition(partition.place));
        }
        let at = |offset: Offset, leader_epoch| ListedOffset { offset, timestamp: -1, leader_epoch };
        match what {
            OffsetQuery::Earliest if log.start == log.end => return Ok(at(log.start, shared.epoch)),
            OffsetQuery::Earliest => return Ok(at(log.start, log.epoch_of(log.start))),
            OffsetQuery::Latest | OffsetQuery::LatestStable => {
                let end = match shared.forced.limit() {
                    None => log.end,
                    Some(limit) => log.end_at(limit).ok_or_else(in_doubt)?,
                };
                // The epoch is that of what comes next. What is in doubt may be the marker that made what is before it stable.
                return match what {
                    OffsetQuery::Latest => Ok(at(end, shared.epoch)),
                    _ if end < log.end && log.transactions.settled_to >= 0 => Err(in_doubt()),
                    _ => Ok(at(log.stable_end().min(end), shared.epoch)),
                };
            }
            OffsetQuery::MaxTimestamp | OffsetQuery::Timestamp(_) => {}
        }
        let segments: Vec<Segment> = log.segments.iter().chain(&log.open).copied().collect();
        (log.start, log.end, segments)
    };
    let found = match what {
        OffsetQuery::Timestamp(time) => first_at(shared, partition, start, end, &segments, time)?,
        _ => greatest(shared, partition, start, end, segments)?,
    };
    Ok(found.map_or(ListedOffset::NONE, |(offset, timestamp)| ListedOffset {
        offset,
        timestamp,
        leader_epoch: partition.log.lock().epoch_of(offset),
    }))
}

fn first_at(
    shared: &Shared,
    partition: &Partition,
    start: Offset,
    end: Offset,
    segments: &[Segment],
    time: i64,
) -> Result<Option<(Offset, i64)>> {
    for segment in segments.iter().filter(|s| s.max_timestamp >= time) {
        let mut found = None;
        walk(
            shared,
            partition,
            segment.base.max(start),
            segment.last.min(end - 1),
            |header| header.max_timestamp >= time,
            |offset, timestamp| {
                if timestamp >= time {
                    found = Some((offset, timestamp));
                }
                found.is_none()
            },
        )?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn greatest(
    shared: &Shared,
    partition: &Partition,
    start: Offset,
    end: Offset,
    mut segments: Vec<Segment>,
) -> Result<Option<(Offset, i64)>> {
    // A segment's greatest record may lie below the log's start, so that the next one has to be looked at too.
    segments.sort_by_key(|s| (std::cmp::Reverse(s.max_timestamp), s.base));
    let mut best: Option<(Offset, i64)> = None;
    for segment in segments {
        if best.is_some_and(|(offset, time)| {
            time > segment.max_timestamp || (time == segment.max_timestamp && offset < segment.base)
        }) {
            break;
        }
        walk(
            shared,
            partition,
            segment.base.max(start),
            segment.last.min(end - 1),
            |_| true,
            |offset, timestamp| {
                if best.is_none_or(|(first, time)| timestamp > time || (timestamp == time && offset < first)) {
                    best = Some((offset, timestamp));
                }
                true
            },
        )?;
    }
    Ok(best)
}

/// Shows the records of `from..=last` in order until `record` says false; batches that `wanted` refuses are passed.
fn walk(
    shared: &Shared,
    partition: &Partition,
    mut from: Offset,
    last: Offset,
    wanted: impl Fn(&BatchHeader) -> bool,
    mut record: impl FnMut(Offset, i64) -> bool,
) -> Result<()> {
    while from <= last {
        let (batches, _) = match stored(shared, partition, from, CHUNK_BYTES) {
            Ok(found) => found,
            // Deleted meanwhile: go on where the log starts now.
            Err(StorageError::OffsetOutOfRange { offset, start, .. }) if offset < start => {
                from = start;
                continue;
            }
            Err(e) => return Err(e),
        };
        let first = from;
        for stored in batches {
            from = stored.last + 1;
            if BatchHeader::parse(&stored.batch()).is_some_and(|h| !wanted(&h)) {
                continue;
            }
            let (header, bytes) = open_batch(shared, partition, &stored)?;
            for raw in RecordIter::new(&bytes, header.count) {
                let raw = raw.map_err(|e| damaged(shared, partition, stored.last, e))?;
                let offset = header.base_offset.saturating_add(i64::from(raw.offset_delta));
                if offset >= first && !record(offset, header.timestamp_of(raw.timestamp_delta)) {
                    return Ok(());
                }
            }
            if from > last {
                return Ok(());
            }
        }
        if from == first {
            return Ok(());
        }
    }
    Ok(())
}

/// Where the records of an epoch end that is not after the `present` one, which every log is in, also without records of it.
pub fn epoch_end(partition: &Partition, epoch: i32, present: i32) -> (i32, Offset) {
    let log = partition.log.lock();
    if epoch == present {
        return (present, log.end);
    }
    let after = log.epochs.partition_point(|(e, _)| *e <= epoch);
    match after.checked_sub(1).and_then(|i| log.epochs.get(i)) {
        // Before all that is known: it ended where the first begins.
        None if epoch >= 0 => (epoch, log.epochs.first().map_or(log.end, |(_, first)| *first)),
        None => (-1, -1),
        Some((found, _)) => (*found, log.epochs.get(after).map_or(log.end, |(_, first)| *first)),
    }
}

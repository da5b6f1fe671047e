//! Log compaction: of records with the same key only the newest stays.
//!
//! A pass over a partition notes the newest offset of each key in the part that is not compacted yet, the dirty part
//! (`offsets`), and then goes through all batches from the log's start and leaves out what is superseded (`pass`). The
//! batches are read and made anew here, into files of survivors (`log_files`), and put by the writer in small pieces
//! (`rewrite`), each under the key that it had. Offsets, times, the place in the log's order and producers' fields stay.
//!
//! Invariants: a record goes only when a later one with its key is there and is decided, so that what a pass leaves when
//! it is cut off anywhere is a right log; how far a partition is compacted is written with the last piece of a pass.
//! Nothing is touched that is not decided, nor the newest records ("active"), so that the last batch stays. Damaged
//! batches are never made anew.

mod offsets;
mod pass;
mod rewrite;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use millpond_types::{Offset, TopicPartition};

use self::pass::Pass;
pub use self::rewrite::{Edit, Rewrite, Rewritten};
use super::error::StorageError;
use super::housekeeping::Stop;
use super::partition::{LogState, Partition, Segment};
use super::shared::Shared;
use super::{Result, topics::Topic};
use crate::configs::TopicSettings;
use crate::keys::Fields;

/// What is read at once, and what is put at once; both small, so that those who wait for the writer wait little.
const CHUNK_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 256 << 10;
/// Batches read, the one that is made anew, and the piece; without records decompressed.
pub const BUFFER_BYTES_MAX: usize = 4 * CHUNK_BYTES + PIECE_BYTES;

/// How far a partition is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Below this no record has a later one with its key below this.
    pub to: Offset,
    /// From when on all deletion markers and transactions' markers that were left may go; -1 where there are none.
    pub horizon_ms: i64,
    /// Bytes of the batches that they are in.
    pub horizon_bytes: u64,
}

impl Default for Compacted {
    fn default() -> Self {
        Self { to: 0, horizon_ms: -1, horizon_bytes: 0 }
    }
}

impl Compacted {
    const VERSION: u8 = 1;

    /// Version u8, offset i64, horizon i64, bytes u64.
    pub fn encode(&self) -> [u8; 25] {
        let mut value = [Self::VERSION; 25];
        value[1..9].copy_from_slice(&self.to.to_be_bytes());
        value[9..17].copy_from_slice(&self.horizon_ms.to_be_bytes());
        value[17..].copy_from_slice(&self.horizon_bytes.to_be_bytes());
        value
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != Self::VERSION {
            return None;
        }
        Some(Self { to: fields.i64()?.max(0), horizon_ms: fields.i64()?, horizon_bytes: fields.u64()? })
    }
}

/// What compacting a partition came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Below this everything is compacted.
    pub to: Offset,
    pub passes: usize,
    /// Of the batches looked at, by all passes.
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Written for it.
    pub bytes_written: u64,
}

/// The part of a partition that may be compacted, and how much that is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Dirty {
    from: Offset,
    to: Offset,
    bytes: u64,
    ratio: f64,
    /// Something waits for longer than it may.
    overdue: bool,
}

/// `None` where there is nothing to be won.
fn dirty(log: &LogState, settings: &TopicSettings, active_bytes_max: u64, now_ms: i64) -> Option<Dirty> {
    if log.gone || log.uncleanable || !settings.compacted {
        return None;
    }
    let from = log.compacted.to.max(log.start);
    let to = cleanable_end(log, settings, active_bytes_max, now_ms);
    let cleanable = log.segments.partition_point(|s| s.last < to);
    let clean = log.segments.partition_point(|s| s.last < from).min(cleanable);
    let (mut clean_bytes, mut dirty_bytes) = (log.segments.bytes(0..clean), log.segments.bytes(clean..cleanable));
    let waits_since = now_ms.saturating_sub(settings.compaction_lag_max_ms);
    // Nothing was appended before the first one that is not compacted, or it was with it.
    let overdue = clean < cleanable && log.segments.get(clean).is_some_and(|oldest| oldest.appended_ms < waits_since);
    if log.compacted.horizon_ms >= 0 && log.compacted.horizon_ms <= now_ms {
        let markers = log.compacted.horizon_bytes.min(clean_bytes);
        clean_bytes -= markers;
        dirty_bytes = dirty_bytes.saturating_add(markers);
    }
    let all = clean_bytes.saturating_add(dirty_bytes);
    (dirty_bytes > 0).then(|| Dirty {
        from,
        to: to.max(from),
        bytes: dirty_bytes,
        ratio: dirty_bytes as f64 / all as f64,
        overdue,
    })
}

/// What could be compacted of a partition and was not yet, whether it is due or not.
pub fn backlog_bytes(log: &LogState, settings: &TopicSettings, active_bytes_max: u64, now_ms: i64) -> u64 {
    dirty(log, settings, active_bytes_max, now_ms).map_or(0, |dirty| dirty.bytes)
}

/// The offset below which records may be compacted away.
fn cleanable_end(log: &LogState, settings: &TopicSettings, active_bytes_max: u64, now_ms: i64) -> Offset {
    let active_max = (settings.segment_bytes as u64).min(active_bytes_max);
    let mut active = log.open.map_or(0, |open| open.bytes);
    let mut closed = log.segments.len();
    if log.open.is_none() {
        closed = closed.saturating_sub(1);
        active = log.segments.get(closed).map_or(0, |newest| newest.bytes);
    }
    // The newest that together have no more than may be left alone, and came so late that they are not a segment yet.
    let few = |at: usize| log.segments.bytes(at..closed).saturating_add(active) <= active_max;
    let late = |s: &Segment| s.appended_ms.saturating_add(settings.segment_ms) > now_ms;
    let mut at = first(closed, few);
    if settings.segment_ms < i64::MAX {
        at = at.max(first(closed, |at| log.segments.get(at).is_some_and(late)));
    }
    let stable_end = log.stable_end();
    at = at.min(log.segments.partition_point(|s| s.last < stable_end));
    if settings.compaction_lag_min_ms > 0 {
        let youngest_ms = now_ms.saturating_sub(settings.compaction_lag_min_ms);
        let from = log.segments.partition_point(|s| s.last < log.compacted.to);
        let waiting = log.segments.range(from.min(at)..at).take_while(|s| s.age_from() <= youngest_ms);
        at = from.min(at) + waiting.count();
    }
    at.checked_sub(1).and_then(|last| log.segments.get(last)).map_or(log.start, |s| s.last + 1)
}

/// The first place from which on something holds, as it does for all places behind one for which it does.
fn first(len: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, len);
    while from < to {
        let middle = from.midpoint(to);
        if holds(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

/// Compacts what is due until it is time to end.
pub fn run(shared: &Shared, stop: &Stop) {
    let interval = shared.options.compaction_interval.max(Duration::from_millis(1));
    while !stop.wait(interval) {
        // A partition that failed is tried again in the next round.
        let mut failed = HashSet::new();
        while let Some((topic, partition)) = dirtiest(shared, &failed) {
            if stop.wait(Duration::ZERO) {
                return;
            }
            let _held = shared.compacting.lock();
            match compact(shared, Some(stop), &topic, &partition, false) {
                Ok(done) if done.passes > 0 => {}
                Ok(_) => drop(failed.insert(partition.uid)),
                Err(StorageError::Closed | StorageError::UnknownTopicOrPartition(_)) => {
                    failed.insert(partition.uid);
                }
                Err(e) => {
                    shared.measures.compaction_failures.fetch_add(1, Relaxed);
                    shared.measures.compaction_failed_ms.store(shared.options.clock.now_ms(), Relaxed);
                    tracing::error!(topic = topic.name, partition = partition.place.partition, "not compacted: {e}");
                    failed.insert(partition.uid);
                }
            }
        }
    }
}

fn dirtiest(shared: &Shared, failed: &HashSet<u64>) -> Option<(Arc<Topic>, Arc<Partition>)> {
    // Compacting takes room before it gives any.
    if shared.space.is_low() || shared.broken.load(Relaxed) {
        return None;
    }
    let now_ms = shared.options.clock.now_ms();
    let topics: Vec<Arc<Topic>> =
        shared.topics.read().by_id.values().filter(|t| t.settings.compacted).cloned().collect();
    let mut best: Option<(f64, Arc<Topic>, Arc<Partition>)> = None;
    for topic in topics {
        for partition in topic.partitions.iter().filter(|p| !failed.contains(&p.uid)) {
            let found = dirty(&partition.log.lock(), &topic.settings, shared.options.active_bytes_max, now_ms);
            if let Some(dirty) = found.filter(|d| d.overdue || d.ratio >= topic.settings.dirty_ratio_min)
                && best.as_ref().is_none_or(|(ratio, ..)| dirty.ratio > *ratio)
            {
                best = Some((dirty.ratio, topic.clone(), partition.clone()));
            }
        }
    }
    best.map(|(_, topic, partition)| (topic, partition))
}

pub fn compact_now(shared: &Shared, place: TopicPartition) -> Result<Compaction> {
    let topic = shared.topic(place.topic)?;
    let partition = shared.partition(place)?;
    if !topic.settings.compacted {
        return Err(StorageError::InvalidRequest(format!(
            "topic \"{}\" is not compacted: its \"cleanup.policy\" has no \"compact\"",
            topic.name
        )));
    }
    let _held = shared.compacting.lock();
    compact(shared, None, &topic, &partition, true)
}

/// Passes until nothing is dirty. Forced, there is at least one, also where nothing seems to be won.
fn compact(
    shared: &Shared,
    stop: Option<&Stop>,
    topic: &Topic,
    partition: &Arc<Partition>,
    forced: bool,
) -> Result<Compaction> {
    let mut done = Compaction::default();
    loop {
        let now_ms = shared.options.clock.now_ms();
        let (found, segments, aborted_to) = {
            let log = partition.log.lock();
            let active_max = shared.options.active_bytes_max;
            let mut found = dirty(&log, &topic.settings, active_max, now_ms);
            done.to = log.compacted.to;
            if found.is_none() && forced && done.passes == 0 && !log.gone && !log.uncleanable {
                let to = cleanable_end(&log, &topic.settings, active_max, now_ms);
                let from = log.compacted.to.max(log.start);
                found = Some(Dirty { from, to: to.max(from), bytes: 0, ratio: 0.0, overdue: false });
            }
            let to = found.map_or(0, |d| d.to);
            let segments: Vec<_> = log.segments.iter().take_while(|s| s.base < to).copied().collect();
            (found, segments, log.transactions.aborted_to)
        };
        let Some(found) = found else { return Ok(done) };
        let mut pass = Pass::new(shared, stop, &topic.settings, partition, aborted_to, now_ms);
        match pass.run(found.from, found.to, segments) {
            Ok(true) => {}
            // It was told to end.
            Ok(false) => return Ok(done),
            Err(e) => {
                if matches!(e, StorageError::Corrupt(_)) {
                    partition.log.lock().uncleanable = true;
                }
                return Err(e);
            }
        }
        done.passes += 1;
        done.to = pass.to();
        done.bytes_before += pass.bytes_before;
        done.bytes_after += pass.bytes_after;
        done.bytes_written += pass.bytes_written;
        let m = &shared.measures;
        m.compaction_passes.fetch_add(1, Relaxed);
        m.compaction_bytes_read.fetch_add(pass.bytes_before, Relaxed);
        m.compaction_bytes_written.fetch_add(pass.bytes_written, Relaxed);
        m.compaction_bytes_freed.fetch_add(pass.bytes_before.saturating_sub(pass.bytes_after), Relaxed);
        tracing::info!(
            topic = topic.name,
            partition = partition.place.partition,
            "compacted up to offset {}: {} KiB became {} KiB, {} KiB written",
            pass.to(),
            pass.bytes_before >> 10,
            pass.bytes_after >> 10,
            pass.bytes_written >> 10,
        );
        shared.deleted(partition.uid, pass.bytes_before.saturating_sub(pass.bytes_after));
        if pass.to() >= found.to {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::configs::check_topic_configs;

    const NOW_MS: i64 = 1_000_000;

    fn compacted(more: &[(&str, String)]) -> TopicSettings {
        let mut configs = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        configs.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        check_topic_configs(&configs).unwrap()
    }

    /// Segments of ten offsets, by bytes and the time of their last append.
    fn log(sizes: &[u64], step_ms: i64, open: Option<u64>) -> LogState {
        let mut log = LogState::default();
        for (i, bytes) in sizes.iter().enumerate() {
            let (base, age) = (i as i64 * 10, (sizes.len() - i) as i64 * step_ms);
            log.segments.push(Segment::starting_with(base, base + 9, NOW_MS - age, NOW_MS - age, *bytes as usize));
        }
        log.end = sizes.len() as i64 * 10;
        if let Some(bytes) = open {
            log.open = Some(Segment::starting_with(log.end, log.end + 9, NOW_MS, NOW_MS, bytes as usize));
            log.end += 10;
        }
        log
    }

    /// The bytes below the place that may be compacted, by a walk over all segments.
    fn walked(log: &LogState, settings: &TopicSettings, active_max: u64) -> (Offset, u64) {
        let mut active = log.open.map_or(0, |open| open.bytes);
        let mut newest_first = log.segments.iter().rev();
        if log.open.is_none() {
            active = newest_first.next().map_or(0, |newest| newest.bytes);
        }
        let mut end = log.start;
        for segment in newest_first {
            active += segment.bytes;
            if active > active_max || segment.appended_ms.saturating_add(settings.segment_ms) <= NOW_MS {
                end = segment.last + 1;
                break;
            }
        }
        let youngest_ms = NOW_MS.saturating_sub(settings.compaction_lag_min_ms);
        let fit = |s: &&Segment| {
            s.last < end
                && s.last < log.stable_end()
                && (settings.compaction_lag_min_ms == 0 || s.last < log.compacted.to || s.age_from() <= youngest_ms)
        };
        let end = log.segments.iter().take_while(fit).last().map_or(log.start, |s| s.last + 1);
        let dirty = log.segments.iter().filter(|s| s.last < end && s.last >= log.compacted.to.max(log.start));
        (end, dirty.map(|s| s.bytes).sum())
    }

    proptest! {
        #[test]
        fn what_may_be_compacted_is_what_a_walk_finds(
            sizes in prop::collection::vec(1u64..1000, 0..30),
            (open, active_max, to) in (prop::option::of(1u64..1000), 0u64..10_000, 0i64..300),
            (segment_ms, lag_ms, undecided) in (1i64..300, prop_oneof![Just(0i64), 1i64..300], prop::option::of(0i64..300)),
        ) {
            let mut log = log(&sizes, 10, open);
            log.compacted.to = to;
            log.transactions.open.extend(undecided.map(|first| (first, 1)));
            let lag = ("min.compaction.lag.ms", lag_ms.to_string());
            let settings = compacted(&[("segment.ms", segment_ms.to_string()), lag]);
            let (end, bytes) = walked(&log, &settings, active_max);
            prop_assert_eq!(cleanable_end(&log, &settings, active_max, NOW_MS), end);
            prop_assert_eq!(backlog_bytes(&log, &settings, active_max, NOW_MS), bytes);
        }
    }

    #[test]
    fn the_first_of_many_is_found_by_few_looks() {
        for at in [0, 1, 777, 999_999, 1_000_000] {
            let mut looks = 0;
            let found = first(1_000_000, |i| {
                looks += 1;
                i >= at
            });
            assert_eq!(found, at);
            assert!(looks <= 20, "{looks}");
        }
    }
}

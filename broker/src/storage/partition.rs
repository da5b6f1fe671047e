//! What is in memory of a partition: its ends, the hot tail, the segments, the leader epochs, and who waits for it.
//!
//! Only the writer changes these, after what they say is durable; everybody reads. Invariants: every batch that ends at
//! `tail_from` or after is in the tail; closed segments and the open one cover everything from the first batch to `end`,
//! with the offsets that compaction emptied.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use millpond_types::{Offset, Sequence, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::compaction::Compacted;
use super::producers::Producer;
use super::segments::Segments;
use crate::configs::TopicSettings;
use crate::keys::Fields;

/// What an entry of the tail costs besides its batch.
pub const TAIL_ENTRY_BYTES: usize = 128;

/// A batch that is in the log.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    pub last: Offset,
    pub sequence: Sequence,
    batch: Bytes,
    /// The log file that it was read from, if it was.
    pub file: Option<u32>,
}

impl StoredBatch {
    pub fn new(last: Offset, sequence: Sequence, batch: Bytes) -> Self {
        Self { last, sequence, batch, file: None }
    }

    pub fn batch(&self) -> Bytes {
        self.batch.clone()
    }

    pub fn len(&self) -> usize {
        self.batch.len()
    }

    pub fn cost(&self) -> usize {
        self.batch.len() + TAIL_ENTRY_BYTES
    }

    /// What goes from a log file when this batch does.
    pub fn in_file(&self) -> Option<(u32, u64)> {
        self.file.map(|file| (file, self.batch.len() as u64))
    }
}

/// A run of batches that retention and time lookups take as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub base: Offset,
    pub last: Offset,
    /// Greatest timestamp of its records; -1 where none has one.
    pub max_timestamp: i64,
    /// Wall-clock time of its last append; of one that was open at an end without warning, of the start after it.
    pub appended_ms: i64,
    /// Wall-clock time of its first append, as far as it is known: it is not stored.
    pub began_ms: i64,
    pub bytes: u64,
    /// Batches that were appended to it since the start: it is not stored either.
    pub batches: u32,
}

/// A segment of so many batches is closed however small it is, as those of open ones are all read in a start after an end
/// without warning.
const SEGMENT_BATCHES_MAX: u32 = 1024;

impl Segment {
    const VERSION: u8 = 1;

    pub fn starting_with(base: Offset, last: Offset, max_timestamp: i64, appended_ms: i64, bytes: usize) -> Self {
        Self { base, last, max_timestamp, appended_ms, began_ms: appended_ms, bytes: bytes as u64, batches: 1 }
    }

    pub fn add(&mut self, last: Offset, max_timestamp: i64, appended_ms: i64, bytes: usize) {
        self.last = last;
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        self.appended_ms = self.appended_ms.max(appended_ms);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.batches = self.batches.saturating_add(1);
    }

    /// The time that retention counts from.
    pub fn age_from(&self) -> i64 {
        if self.max_timestamp >= 0 { self.max_timestamp } else { self.appended_ms }
    }

    /// Whether its last append is so recent. One that is later than now was told by a clock that has been set back since,
    /// and keeps nothing for longer.
    pub fn is_young(&self, now_ms: i64, grace: Duration) -> bool {
        u128::from(now_ms.abs_diff(self.appended_ms)) < grace.as_millis()
    }

    /// Version u8, base i64, max timestamp i64, appended i64, bytes u64; the last offset is in the key.
    pub fn encode(&self) -> [u8; 33] {
        let mut value = [Self::VERSION; 33];
        value[1..9].copy_from_slice(&self.base.to_be_bytes());
        value[9..17].copy_from_slice(&self.max_timestamp.to_be_bytes());
        value[17..25].copy_from_slice(&self.appended_ms.to_be_bytes());
        value[25..].copy_from_slice(&self.bytes.to_be_bytes());
        value
    }

    pub fn decode(last: Offset, value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != Self::VERSION {
            return None;
        }
        let (base, max_timestamp, appended_ms) = (fields.i64()?, fields.i64()?, fields.i64()?);
        Some(Self { base, last, max_timestamp, appended_ms, began_ms: appended_ms, bytes: fields.u64()?, batches: 0 })
    }
}

#[derive(Debug, Default)]
pub struct LogState {
    pub start: Offset,
    /// Offset that the next record gets; everything below is durable as far as the setting promises.
    pub end: Offset,
    /// The topic was deleted.
    pub gone: bool,
    pub tail: VecDeque<StoredBatch>,
    pub tail_from: Offset,
    /// Of what was appended since the start and ends before `tail_from`, the greatest.
    pub untailed: Sequence,
    pub tail_cost: usize,
    /// Closed segments, oldest first.
    pub segments: Segments,
    pub open: Option<Segment>,
    /// Leader epochs with the first offset of each, in order.
    pub epochs: Vec<(i32, Offset)>,
    pub transactions: Transactions,
    pub compacted: Compacted,
    /// How often compaction changed what lies on disk.
    pub rewrites: u64,
    /// Damage was found that compaction cannot get past.
    pub uncleanable: bool,
}

/// What transactions make of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// Open ones: their first offsets, and whose they are.
    pub open: BTreeMap<Offset, i64>,
    /// Marker of the last aborted one; what lies after it needs no look at the index of the aborted. -1: none.
    pub aborted_to: Offset,
    /// Last offset that became stable by a marker instead of its own append; -1: none.
    pub settled_to: Offset,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { open: BTreeMap::new(), aborted_to: -1, settled_to: -1 }
    }
}

impl Transactions {
    /// First offset that is not decided, in a log of this start and end.
    pub fn stable_end(&self, start: Offset, end: Offset) -> Offset {
        self.open.first_key_value().map_or(end, |(first, _)| (*first).max(start))
    }
}

/// A transaction whose records nobody should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    pub first: Offset,
    /// Where its marker lies.
    pub marker: Offset,
    /// First undecided offset once it had ended; aborted ones that ended later begin there or after.
    pub stable_end: Offset,
}

impl Aborted {
    const VERSION: u8 = 1;

    /// Version u8, producer id i64, first offset i64, stable end i64; the marker's offset is in the key.
    pub fn encode(&self) -> [u8; 25] {
        let mut value = [Self::VERSION; 25];
        value[1..9].copy_from_slice(&self.producer_id.to_be_bytes());
        value[9..17].copy_from_slice(&self.first.to_be_bytes());
        value[17..].copy_from_slice(&self.stable_end.to_be_bytes());
        value
    }

    pub fn decode(marker: Offset, value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != Self::VERSION {
            return None;
        }
        Some(Self { producer_id: fields.i64()?, first: fields.i64()?, marker, stable_end: fields.i64()? })
    }
}

/// A run of offsets that a marker made stable, and the marker's sequence, which is their place from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub first: Offset,
    pub last: Offset,
    pub sequence: Sequence,
}

impl Settled {
    const VERSION: u8 = 1;

    /// Version u8, first offset i64, sequence u64; the last offset is in the key.
    pub fn encode(&self) -> [u8; 17] {
        let mut value = [Self::VERSION; 17];
        value[1..9].copy_from_slice(&self.first.to_be_bytes());
        value[9..].copy_from_slice(&self.sequence.to_be_bytes());
        value
    }

    pub fn decode(last: Offset, value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != Self::VERSION {
            return None;
        }
        Some(Self { first: fields.i64()?, last, sequence: fields.u64()? })
    }
}

impl LogState {
    /// First offset that is not decided: what is below it stays as it is.
    pub fn stable_end(&self) -> Offset {
        self.transactions.stable_end(self.start, self.end)
    }

    /// The end of what was written up to a sequence, where memory tells.
    pub fn end_at(&self, limit: Sequence) -> Option<Offset> {
        if self.tail.back().map_or(self.untailed, |last| last.sequence) <= limit {
            return Some(self.end);
        }
        let sure = self.tail.iter().rev().find(|batch| batch.sequence <= limit);
        sure.map(|batch| batch.last + 1).or((self.untailed <= limit).then_some(self.tail_from))
    }

    pub fn bytes(&self) -> u64 {
        self.segments.bytes_of_all().saturating_add(self.open.map_or(0, |open| open.bytes))
    }

    /// The leader epoch that an offset was written in.
    pub fn epoch_of(&self, offset: Offset) -> i32 {
        let after = self.epochs.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).and_then(|i| self.epochs.get(i)).map_or(-1, |(epoch, _)| *epoch)
    }

    /// Takes the oldest batch out of the tail and says what it cost.
    pub fn shorten_tail(&mut self) -> usize {
        let Some(oldest) = self.tail.pop_front() else { return 0 };
        self.tail_from = oldest.last + 1;
        self.untailed = oldest.sequence;
        self.tail_cost -= oldest.cost();
        oldest.cost()
    }

    /// Batches of the tail from the one that contains `from` on; `None` where the tail does not reach back so far.
    pub fn tail_at(&self, from: Offset) -> Option<impl Iterator<Item = &StoredBatch>> {
        if from < self.tail_from {
            return None;
        }
        let first = self.tail.partition_point(|b| b.last < from);
        Some(self.tail.range(first..))
    }
}

/// Tells one who waits that partitions changed, and which.
#[derive(Debug, Default)]
pub struct Wakeups {
    notify: Notify,
    changed: Mutex<Vec<u32>>,
}

impl Wakeups {
    /// Ready when something changed since the last call.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Which partitions changed since they were last unmarked, by the tokens that they are watched under.
    pub fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.changed.lock())
    }
}

/// A place in a partition's list of those to wake, held until this is dropped.
#[derive(Debug)]
pub struct Waiter {
    wakeups: Arc<Wakeups>,
    token: u32,
    /// The token is among those changed, where it needs no second entry.
    marked: AtomicBool,
}

impl Waiter {
    pub fn new(wakeups: &Arc<Wakeups>, token: u32) -> Arc<Self> {
        Arc::new(Self { wakeups: Arc::clone(wakeups), token, marked: AtomicBool::new(false) })
    }

    /// To be called before the partition is looked at: what changes after it is told again.
    pub fn unmark(&self) {
        self.marked.store(false, Ordering::Release);
    }

    pub async fn changed(&self) {
        self.wakeups.changed().await;
    }

    fn wake(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            self.wakeups.changed.lock().push(self.token);
        }
        self.wakeups.notify.notify_one();
    }
}

#[derive(Debug)]
pub struct Partition {
    /// Never used again, so that a topic deleted and created again has other keys.
    pub uid: u64,
    pub place: TopicPartition,
    pub log: Mutex<LogState>,
    /// Idempotent producers by id. Only the writer adds, so that check and append are one.
    pub producers: Mutex<HashMap<i64, Producer>>,
    /// A segment is closed when it has so many bytes, or is so old: the topic's settings.
    roll_bytes: AtomicU64,
    roll_ms: AtomicI64,
    /// Offset of the damage that was told of last; -1: none.
    pub damaged_at: AtomicI64,
    waiters: Mutex<Vec<Weak<Waiter>>>,
    /// Bytes appended since somebody read last.
    unread: AtomicUsize,
}

impl Partition {
    pub fn new(uid: u64, place: TopicPartition, log: LogState) -> Self {
        Self {
            uid,
            place,
            log: Mutex::new(log),
            producers: Mutex::new(HashMap::new()),
            roll_bytes: AtomicU64::new(u64::MAX),
            roll_ms: AtomicI64::new(i64::MAX),
            damaged_at: AtomicI64::new(-1),
            waiters: Mutex::new(Vec::new()),
            unread: AtomicUsize::new(usize::MAX),
        }
    }

    /// Somebody reads who will be back for more.
    pub fn was_read(&self) {
        self.unread.store(0, Ordering::Relaxed);
    }

    /// Counts what is appended; returns what had been since somebody read last. Called by the writer alone.
    pub fn appended(&self, bytes: usize) -> usize {
        let before = self.unread.load(Ordering::Relaxed);
        self.unread.store(before.saturating_add(bytes), Ordering::Relaxed);
        before
    }

    /// Takes over what the topic's settings say of segments.
    pub fn obey(&self, settings: &TopicSettings) {
        let lag = if settings.compacted { settings.compaction_lag_max_ms } else { i64::MAX };
        self.roll_bytes.store(settings.segment_bytes as u64, Ordering::Relaxed);
        self.roll_ms.store(settings.segment_ms.min(lag), Ordering::Relaxed);
    }

    /// Whether a segment has to be closed before something is appended.
    pub fn is_old(&self, open: &Segment, now_ms: i64) -> bool {
        open.began_ms.saturating_add(self.roll_ms.load(Ordering::Relaxed)) <= now_ms
    }

    pub fn is_full(&self, open: &Segment, segment_bytes: u64) -> bool {
        open.batches >= SEGMENT_BATCHES_MAX || open.bytes >= segment_bytes.min(self.roll_bytes.load(Ordering::Relaxed))
    }

    pub fn add_waiter(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        // Those that gave up are forgotten here too, so that a partition nobody writes to does not gather them.
        if waiters.len() == waiters.capacity() {
            waiters.retain(|w| w.strong_count() > 0);
        }
        waiters.push(Arc::downgrade(waiter));
    }

    pub fn wake(&self) {
        self.waiters.lock().retain(|waiter| match waiter.upgrade() {
            None => false,
            Some(waiter) => {
                waiter.wake();
                true
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_closed_for_its_bytes_or_its_batches() {
        let place = TopicPartition { topic: millpond_types::TopicId([0; 16]), partition: 0 };
        let partition = Partition::new(1, place, LogState::default());
        let mut segment = Segment::starting_with(0, 0, -1, 10, 1);
        while !partition.is_full(&segment, 1 << 20) {
            segment.add(segment.last + 1, -1, 10, 1);
        }
        assert_eq!(segment.last + 1, i64::from(SEGMENT_BATCHES_MAX));
        assert!(partition.is_full(&Segment::starting_with(0, 0, -1, 10, 1 << 20), 1 << 20));
    }

    #[test]
    fn a_segment_survives_the_round_trip() {
        let mut segment = Segment::starting_with(3, 5, -1, 10, 100);
        assert_eq!(segment.age_from(), 10);
        segment.add(9, 7, 11, 50);
        let grown =
            Segment { base: 3, last: 9, max_timestamp: 7, appended_ms: 11, began_ms: 10, bytes: 150, batches: 2 };
        assert_eq!(segment, grown);
        assert_eq!(Segment::decode(9, &segment.encode()), Some(Segment { began_ms: 11, batches: 0, ..segment }));
        assert_eq!(Segment::decode(9, &segment.encode()[..32]), None);
    }
}

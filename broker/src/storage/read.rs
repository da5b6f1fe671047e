//! Reading batches: from the hot tail where it reaches back far enough, else from the database and the log files that it
//! names.
//!
//! Committed reads end where something is undecided. What a transaction held up has its place in the order of commits
//! where its marker lies; what was aborted is served to clients beside a list of the aborted, and not at all to queries.
//! Both are looked up in the index only where the partition's memory says that there is something to be found.
//!
//! What is read from disk in one go is of one snapshot, so that batches and what the index says of them belong together
//! although compaction changes both.
//!
//! After a failed fsync, what was written since the last good one is not read (`forced`).
//!
//! Ends are read before an iterator is opened, so nothing is seen that is not durable. Log starts are looked at again
//! afterwards, so that what was deleted meanwhile is an error and not a gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use millpond_types::ports::ReadLimits;
use millpond_types::record::{RecordView, Records, Slice};
use millpond_types::{Offset, Sequence};
use rocksdb::{DB, ReadOptions, Snapshot};

use super::Result;
use super::error::StorageError;
use super::forced;
use super::log_files::{LogFiles, Unread, is_at};
use super::partition::{Aborted, LogState, Partition, Settled, StoredBatch};
use super::read_ahead::{Place, Run};
use super::shared::{Shared, family};
use crate::batch::{BatchHeader, HEADER_LEN, RecordIter, Span, decompress, is_intact};
use crate::keys::{self, BATCH_PREFIX_LEN, BatchPlace, Kind, cf};

/// Records are read in pieces of about this, so that little is read in vain where another limit ends the read.
const CHUNK_BYTES: usize = 256 << 10;
/// Batches that lie one after the other are read from a log file in pieces of about this.
const RUN_BYTES: usize = 1 << 20;
/// Keys and values that one read returns at most, whatever the caller allows.
const READ_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    pub bytes_max: usize,
    /// The first batch is returned even where it is larger.
    pub at_least_one: bool,
    /// Ends where something is undecided, and names what was aborted.
    pub committed: bool,
}

/// Batches as they lie in the log; they may be sent one after the other.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    pub batches: Vec<Bytes>,
    pub bytes: usize,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// Of a committed read: aborted transactions with records among the batches, by first offset.
    pub aborted: Vec<AbortedTransaction>,
    /// Where the next read goes on, if this one was of what memory alone does not hold.
    pub behind: Option<Offset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: Offset,
}

impl Fetched {
    fn empty(log: &LogState) -> Self {
        Self {
            high_watermark: log.end,
            last_stable_offset: log.stable_end(),
            log_start_offset: log.start,
            ..Self::default()
        }
    }

    fn add(&mut self, batches: impl IntoIterator<Item = StoredBatch>) {
        for stored in batches {
            self.bytes += stored.len();
            self.high_watermark = self.high_watermark.max(stored.last + 1);
            self.batches.push(stored.batch());
        }
    }
}

fn check_range(partition: &Partition, log: &LogState, offset: Offset) -> Result<()> {
    if log.gone {
        return Err(StorageError::unknown_partition(partition.place));
    }
    if offset < log.start || offset > log.end {
        return Err(StorageError::OffsetOutOfRange { offset, start: log.start, end: log.end });
    }
    Ok(())
}

/// Counts bytes until the limit is reached.
struct Budget {
    left: usize,
    first_is_free: bool,
}

impl Budget {
    fn takes(&mut self, len: usize) -> bool {
        if len > self.left && !self.first_is_free {
            return false;
        }
        self.left = self.left.saturating_sub(len);
        self.first_is_free = false;
        true
    }

    /// It takes nothing more, whatever comes.
    fn is_empty(&self) -> bool {
        self.left < HEADER_LEN && !self.first_is_free
    }
}

/// Batches of the tail from the one that contains `offset` on, up to `end`.
fn from_tail(log: &LogState, offset: Offset, end: Offset, budget: &mut Budget) -> Option<VecDeque<StoredBatch>> {
    Some(log.tail_at(offset)?.take_while(|b| b.last < end && budget.takes(b.len())).cloned().collect())
}

/// What memory says of a fetch.
struct Begun {
    fetched: Fetched,
    /// Offset before which it ends.
    end: Offset,
    /// `None` where the tail does not reach back so far.
    batches: Option<VecDeque<StoredBatch>>,
    /// The index has to be asked for aborted transactions.
    look_up: bool,
    /// What was kept of another read is of the same log where this says so.
    rewrites: u64,
}

/// A marker may be in doubt while the records that it made stable are not.
fn check_markers(shared: &Shared, log: &LogState, from: Offset) -> Result<()> {
    match shared.forced.limit() {
        Some(_) if from <= log.transactions.settled_to => Err(forced::in_doubt()),
        _ => Ok(()),
    }
}

fn begin(shared: &Shared, partition: &Partition, offset: Offset, limits: FetchLimits) -> Result<Begun> {
    partition.was_read();
    let log = partition.log.lock();
    check_range(partition, &log, offset)?;
    if limits.committed {
        check_markers(shared, &log, offset)?;
    }
    let mut fetched = Fetched::empty(&log);
    let end = if limits.committed { fetched.last_stable_offset } else { fetched.high_watermark };
    if let Some(limit) = shared.forced.limit() {
        let sure = log.end_at(limit).unwrap_or(offset);
        fetched.high_watermark = sure;
        fetched.last_stable_offset = fetched.last_stable_offset.min(sure);
    }
    let mut budget = Budget { left: limits.bytes_max, first_is_free: limits.at_least_one };
    let batches = from_tail(&log, offset, end, &mut budget);
    let look_up = limits.committed && offset <= log.transactions.aborted_to;
    Ok(Begun { fetched, end, batches, look_up, rewrites: log.rewrites })
}

pub fn fetch_hot(
    shared: &Shared,
    partition: &Partition,
    offset: Offset,
    limits: FetchLimits,
) -> Result<Option<Fetched>> {
    if shared.forced.limit().is_some() {
        return Ok(None);
    }
    let Begun { mut fetched, end, batches, look_up, rewrites } = begin(shared, partition, offset, limits)?;
    if batches.is_none() && !look_up {
        let place = Place { uid: partition.uid, rewrites, next: offset };
        let Some(kept) = shared.read_ahead.at(place) else { return Ok(None) };
        let mut budget = Budget { left: limits.bytes_max, first_is_free: limits.at_least_one };
        let (batches, next) = from_kept(kept, offset, end, &mut budget);
        if batches.is_empty() {
            return Ok(None);
        }
        fetched.behind = Some(next);
        fetched.add(batches);
        return Ok(Some(fetched));
    }
    Ok(batches.filter(|batches| !look_up || batches.is_empty()).map(|batches| {
        fetched.add(batches);
        fetched
    }))
}

pub fn fetch(shared: &Shared, partition: &Partition, offset: Offset, limits: FetchLimits) -> Result<Fetched> {
    let Begun { mut fetched, end, batches, look_up, rewrites } = begin(shared, partition, offset, limits)?;
    if !look_up && let Some(mut batches) = batches {
        leave_doubtful(shared, &mut batches)?;
        fetched.add(batches);
        return Ok(fetched);
    }
    let db = shared.db()?;
    let view = View::of(shared, &db);
    let mut batches = match batches {
        Some(batches) => batches,
        None => {
            let budget = Budget { left: limits.bytes_max, first_is_free: limits.at_least_one };
            // What the index says belongs to what lies there now.
            let ahead = (!look_up).then_some(rewrites);
            from_disk(&view, partition, offset, end, budget, ahead)?
        }
    };
    leave_doubtful(shared, &mut batches)?;
    if look_up && let Some(last) = batches.back() {
        let mut aborted = aborted_from(&view, partition, offset, last.last + 1)?;
        aborted.sort_unstable_by_key(|a| a.first);
        let named = |a: &Aborted| AbortedTransaction { producer_id: a.producer_id, first_offset: a.first };
        fetched.aborted = aborted.iter().map(named).collect();
    }
    fetched.behind = batches.back().map(|last| last.last + 1);
    fetched.add(batches);
    check_range(partition, &partition.log.lock(), offset)?;
    Ok(fetched)
}

/// Leaves out what is not known to be on disk; where that is all, it is an error, so that nobody takes it for the end.
fn leave_doubtful(shared: &Shared, batches: &mut VecDeque<StoredBatch>) -> Result<()> {
    let Some(limit) = shared.forced.limit() else { return Ok(()) };
    let sure = batches.iter().take_while(|b| b.sequence <= limit).count();
    if sure == 0 && !batches.is_empty() {
        return Err(forced::in_doubt());
    }
    batches.truncate(sure);
    Ok(())
}

/// The log and its index as of one moment.
pub struct View<'a> {
    shared: &'a Shared,
    pub db: &'a DB,
    snapshot: Snapshot<'a>,
    /// Log files that the snapshot names are not removed before this.
    _reader: Arc<()>,
}

impl<'a> View<'a> {
    pub fn of(shared: &'a Shared, db: &'a DB) -> Self {
        let reader = shared.files.reader();
        Self { shared, db, snapshot: db.snapshot(), _reader: reader }
    }

    pub fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

/// Calls `each` with the entries of an index of the partition from an offset on, until it says that it is enough.
fn scan_index(
    view: &View<'_>,
    partition: &Partition,
    kind: Kind,
    from: Offset,
    mut each: impl FnMut(Offset, &[u8]) -> Option<bool>,
) -> Result<()> {
    let mut read = view.options();
    read.set_iterate_upper_bound(keys::partition_range(kind, partition.uid).1.to_vec());
    let mut at = view.db.raw_iterator_cf_opt(family(view.db, cf::INDEX)?, read);
    at.seek(keys::indexed(kind, partition.uid, from));
    while let (Some(key), Some(value)) = (at.key(), at.value()) {
        let more = keys::parse_numbered(kind, key)
            .and_then(|(_, offset)| Offset::try_from(offset).ok())
            .and_then(|offset| each(offset, value))
            .ok_or_else(|| StorageError::Corrupt(format!("the stored index entry {key:02x?} is damaged")))?;
        if !more {
            break;
        }
        at.next();
    }
    Ok(at.status()?)
}

/// Aborted transactions with records in `from..to`.
fn aborted_from(view: &View<'_>, partition: &Partition, from: Offset, to: Offset) -> Result<Vec<Aborted>> {
    let mut found = Vec::new();
    scan_index(view, partition, Kind::Aborted, from, |marker, value| {
        let aborted = Aborted::decode(marker, value)?;
        if aborted.first < to {
            found.push(aborted);
        }
        Some(aborted.stable_end < to)
    })?;
    Ok(found)
}

/// Runs of offsets in `from..to` that markers made stable.
fn settled_from(view: &View<'_>, partition: &Partition, from: Offset, to: Offset) -> Result<VecDeque<Settled>> {
    let mut found = VecDeque::new();
    scan_index(view, partition, Kind::Settled, from, |last, value| {
        let settled = Settled::decode(last, value)?;
        if settled.first < to {
            found.push_back(settled);
        }
        Some(settled.last < to)
    })?;
    Ok(found)
}

/// Runs of offsets that lie wholly in `from..to` and that markers made stable.
pub fn settled_within(view: &View<'_>, partition: &Partition, from: Offset, to: Offset) -> Result<Vec<Settled>> {
    Ok(settled_from(view, partition, from, to)?.into_iter().filter(|s| s.first >= from && s.last < to).collect())
}

/// What transactions say of some batches in order: where their place is, and whether their records count.
#[derive(Default)]
pub struct Verdicts {
    settled: VecDeque<Settled>,
    aborted: Vec<Aborted>,
}

impl Verdicts {
    /// Of batches that begin with the one that contains `from` and end before `to`.
    pub fn of(
        view: &View<'_>,
        partition: &Partition,
        transactions: (Offset, Offset),
        from: Offset,
        to: Offset,
    ) -> Result<Self> {
        let (settled_to, aborted_to) = transactions;
        let mut verdicts = Self::default();
        if from <= settled_to {
            verdicts.settled = settled_from(view, partition, from, to)?;
        }
        if from <= aborted_to {
            verdicts.aborted = aborted_from(view, partition, from, to)?;
        }
        Ok(verdicts)
    }

    /// The sequence with which a batch became stable. Batches are asked for in order.
    fn place_of(&mut self, stored: &StoredBatch) -> Sequence {
        while self.settled.front().is_some_and(|s| s.last < stored.last) {
            self.settled.pop_front();
        }
        match self.settled.front() {
            Some(settled) if settled.first <= stored.last => settled.sequence,
            _ => stored.sequence,
        }
    }

    pub fn aborts(&self, header: &BatchHeader) -> bool {
        header.is_transactional()
            && self
                .aborted
                .iter()
                .any(|a| a.producer_id == header.producer_id && (a.first..=a.marker).contains(&header.base_offset))
    }
}

/// Batches of a run up to `end`, and where it goes on.
fn from_kept(run: Run, offset: Offset, end: Offset, budget: &mut Budget) -> (VecDeque<StoredBatch>, Offset) {
    let batches: VecDeque<StoredBatch> =
        run.into_iter().take_while(|b| b.last < end && budget.takes(b.len())).collect();
    let next = batches.back().map_or(offset, |b| b.last + 1);
    (batches, next)
}

/// Reads what a consumer that is behind will ask for next, up to `bytes_max`, unless it is there. Only computes and reads.
pub fn ahead(shared: &Shared, partition: &Partition, next: Offset, bytes_max: usize, committed: bool) -> Result<()> {
    let limits = FetchLimits { bytes_max, at_least_one: true, committed };
    let Begun { end, batches, look_up, rewrites, .. } = begin(shared, partition, next, limits)?;
    let place = Place { uid: partition.uid, rewrites, next };
    let doubt = shared.forced.limit().is_some();
    if doubt || batches.is_some() || look_up || next >= end || shared.read_ahead.has(place) {
        return Ok(());
    }
    let db = shared.db()?;
    let budget = Budget { left: bytes_max, first_is_free: true };
    let run = from_disk(&View::of(shared, &db), partition, next, end, budget, Some(rewrites))?;
    shared.read_ahead.keep(place, run);
    Ok(())
}

/// Batches from the one that contains `offset` on, up to `end`. Where `ahead` says how often the log was rewritten when this
/// read began, what was read in advance does.
fn from_disk(
    view: &View<'_>,
    partition: &Partition,
    offset: Offset,
    end: Offset,
    mut budget: Budget,
    ahead: Option<u64>,
) -> Result<VecDeque<StoredBatch>> {
    let mut next = offset;
    let place = ahead.map(|rewrites| Place { uid: partition.uid, rewrites, next });
    if let Some(kept) = place.and_then(|place| view.shared.read_ahead.at(place)) {
        let (kept, _) = from_kept(kept, offset, end, &mut budget);
        if !kept.is_empty() {
            return Ok(kept);
        }
    }
    if budget.is_empty() || next >= end {
        return Ok(VecDeque::new());
    }
    let mut read = view.options();
    // Keys hold last offsets, so this leaves out every batch that is not below the end.
    read.set_iterate_upper_bound(keys::batch(partition.uid, end).to_vec());
    read.fill_cache(false);
    let mut at = view.db.raw_iterator_cf_opt(family(view.db, cf::LOG)?, read);
    at.seek(keys::batch(partition.uid, next));
    let mut found = Vec::new();
    while let (Some(key), Some(value)) = (at.key(), at.value()) {
        let last = keys::parse_numbered(Kind::Batch, key)
            .and_then(|(_, last)| Offset::try_from(last).ok().filter(|last| *last < end))
            .ok_or_else(|| damaged(view.shared, partition, next, "its key is"))?;
        let lies =
            Lies::of(value).ok_or_else(|| damaged(view.shared, partition, last, "what the log notes before it is"))?;
        if !budget.takes(lies.len()) {
            break;
        }
        found.push((last, lies));
        next = last + 1;
        if budget.is_empty() {
            break;
        }
        at.next();
    }
    let status = at.status();
    // What it holds of the database's blocks is let go of before files are read.
    drop(at);
    let (batches, wrong) = resolve(&view.shared.files, found);
    if batches.is_empty()
        && let Some(wrong) = wrong
    {
        return Err(wrong.told(view.shared, partition));
    }
    match status {
        Ok(()) => Ok(batches),
        // What lies before the damage is served; the next read begins with it.
        Err(e) if e.kind() == rocksdb::ErrorKind::Corruption && !batches.is_empty() => Ok(batches),
        Err(e) if e.kind() == rocksdb::ErrorKind::Corruption => {
            Err(damaged(view.shared, partition, next, &format!("it cannot be read: {e}")))
        }
        Err(e) => Err(e.into()),
    }
}

/// What lies under the key of a batch.
enum Lies {
    Here(Sequence, Bytes),
    There(BatchPlace),
}

impl Lies {
    fn of(value: &[u8]) -> Option<Self> {
        if let Some(place) = BatchPlace::decode(value) {
            return Some(Self::There(place));
        }
        let sequence = keys::parse_batch_prefix(value)?;
        Some(Self::Here(sequence, Bytes::copy_from_slice(value.get(BATCH_PREFIX_LEN..)?)))
    }

    fn len(&self) -> usize {
        match self {
            Self::Here(_, batch) => batch.len(),
            Self::There(place) => place.len as usize,
        }
    }
}

/// A batch that cannot be read from its log file.
struct Wrong {
    first: Offset,
    last: Offset,
    why: Unread,
}

impl Wrong {
    fn at(last: Offset, place: &BatchPlace, why: Unread) -> Self {
        Self { first: last.saturating_sub(i64::from(place.last_offset_delta)).max(0), last, why }
    }

    fn told(self, shared: &Shared, partition: &Partition) -> StorageError {
        match self.why {
            Unread::Damaged(why) => damaged_range(shared, partition, (self.first, self.last), &why),
            Unread::Failed(why) => {
                let at = offsets(self.first, self.last);
                let message = format!("{} cannot be read now at {at}: {why}", named(shared, partition));
                if partition.damaged_at.swap(self.last, Relaxed) != self.last {
                    tracing::error!("{message}");
                }
                StorageError::Unavailable(message)
            }
        }
    }
}

/// Reads what lies in log files, up to the first batch that is not as it was written, and says what is wrong with that one.
fn resolve(files: &LogFiles, found: Vec<(Offset, Lies)>) -> (VecDeque<StoredBatch>, Option<Wrong>) {
    let mut batches = VecDeque::with_capacity(found.len());
    let mut rest = &found[..];
    while let Some((last, lies)) = rest.first() {
        let place = match lies {
            Lies::Here(sequence, batch) => {
                batches.push_back(StoredBatch::new(*last, *sequence, batch.clone()));
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            Lies::There(place) => place,
        };
        let count = run_of(rest);
        let (run, after) = rest.split_at(count);
        rest = after;
        let len = run.iter().map(|(_, lies)| lies.len()).sum();
        let mut bytes = match files.read(place.file, place.at, len) {
            Ok(bytes) => bytes,
            // One that is damaged does not take those before it along.
            Err(_) if count > 1 => {
                let (one_by_one, wrong) = resolve_each(files, run);
                batches.extend(one_by_one);
                match wrong {
                    Some(wrong) => return (batches, Some(wrong)),
                    None => continue,
                }
            }
            Err(why) => return (batches, Some(Wrong::at(*last, place, why))),
        };
        for (last, lies) in run {
            let Lies::There(place) = lies else { break };
            let batch = bytes.split_to(lies.len().min(bytes.len()));
            if !is_at(&batch, place) {
                return (batches, Some(Wrong::at(*last, place, files.is_other(place))));
            }
            let mut stored = StoredBatch::new(*last, place.sequence, batch);
            stored.file = Some(place.file);
            batches.push_back(stored);
        }
    }
    (batches, None)
}

fn resolve_each(files: &LogFiles, run: &[(Offset, Lies)]) -> (VecDeque<StoredBatch>, Option<Wrong>) {
    let mut batches = VecDeque::new();
    for (last, lies) in run {
        let Lies::There(place) = lies else { break };
        match files.read(place.file, place.at, place.len as usize) {
            Ok(batch) if is_at(&batch, place) => {
                let mut stored = StoredBatch::new(*last, place.sequence, batch);
                stored.file = Some(place.file);
                batches.push_back(stored);
            }
            Ok(_) => return (batches, Some(Wrong::at(*last, place, files.is_other(place)))),
            Err(why) => return (batches, Some(Wrong::at(*last, place, why))),
        }
    }
    (batches, None)
}

/// How many of these lie one after the other in one file, so that they are read at once.
fn run_of(found: &[(Offset, Lies)]) -> usize {
    let (mut count, mut bytes, mut next) = (0, 0, None);
    for (_, lies) in found {
        let Lies::There(place) = lies else { break };
        if next.is_some_and(|next| next != (place.file, place.at)) || (count > 0 && bytes >= RUN_BYTES) {
            break;
        }
        next = Some((place.file, place.at.wrapping_add(place.len)));
        bytes += lies.len();
        count += 1;
    }
    count
}

fn named(shared: &Shared, partition: &Partition) -> String {
    let place = partition.place;
    let topic = shared.topic(place.topic).map_or_else(|_| format!("{:?}", place.topic), |t| t.name.clone());
    format!("topic \"{topic}\" partition {}", place.partition)
}

fn offsets(first: Offset, last: Offset) -> String {
    if first >= last { format!("offset {last}") } else { format!("offsets {first} to {last}") }
}

/// Damage in a batch, by the names that people know. It is logged once, however often it is met.
pub fn damaged(shared: &Shared, partition: &Partition, offset: Offset, what: &str) -> StorageError {
    damaged_at(partition, offset, format!("{} is damaged at offset {offset}: {what}", named(shared, partition)))
}

/// As [`damaged`], where it is known which offsets cannot be read.
pub fn damaged_range(
    shared: &Shared,
    partition: &Partition,
    (first, last): (Offset, Offset),
    what: &str,
) -> StorageError {
    let at = offsets(first, last);
    let next = last.saturating_add(1);
    let message = format!("{} is damaged at {at}: {what}; offset {next} comes next", named(shared, partition));
    damaged_at(partition, last, message)
}

fn damaged_at(partition: &Partition, offset: Offset, message: String) -> StorageError {
    if partition.damaged_at.swap(offset, Relaxed) != offset {
        tracing::error!("{message}");
    }
    StorageError::Corrupt(message)
}

/// Some batches on disk from the one that contains `from` on that end before `to`; at least one where there is one.
pub fn lying(
    view: &View<'_>,
    partition: &Partition,
    from: Offset,
    to: Offset,
    bytes_max: usize,
) -> Result<VecDeque<StoredBatch>> {
    from_disk(view, partition, from, to, Budget { left: bytes_max, first_is_free: true }, None)
}

/// Some stored batches from the one that contains `from` on, at least one where there is one, and the log's end.
pub fn stored(
    shared: &Shared,
    partition: &Partition,
    from: Offset,
    bytes_max: usize,
) -> Result<(VecDeque<StoredBatch>, Offset)> {
    let end = {
        let log = partition.log.lock();
        check_range(partition, &log, from)?;
        let mut budget = Budget { left: bytes_max, first_is_free: true };
        if let Some(mut batches) = from_tail(&log, from, log.end, &mut budget) {
            leave_doubtful(shared, &mut batches)?;
            return Ok((batches, log.end));
        }
        log.end
    };
    let budget = Budget { left: bytes_max, first_is_free: true };
    let db = shared.db()?;
    let mut batches = from_disk(&View::of(shared, &db), partition, from, end, budget, None)?;
    leave_doubtful(shared, &mut batches)?;
    check_range(partition, &partition.log.lock(), from)?;
    Ok((batches, end))
}

/// As [`stored`], up to the first offset that is not decided, with what transactions say of the batches.
fn decided(
    shared: &Shared,
    partition: &Partition,
    from: Offset,
    bytes_max: usize,
) -> Result<(VecDeque<StoredBatch>, Offset, Verdicts)> {
    let mut budget = Budget { left: bytes_max, first_is_free: true };
    partition.was_read();
    let (end, batches, transactions, rewrites) = {
        let log = partition.log.lock();
        check_range(partition, &log, from)?;
        check_markers(shared, &log, from)?;
        let end = log.stable_end();
        let transactions = (log.transactions.settled_to, log.transactions.aborted_to);
        (end, from_tail(&log, from, end, &mut budget), transactions, log.rewrites)
    };
    let db = shared.db()?;
    let view = View::of(shared, &db);
    let mut batches = match batches {
        Some(batches) => batches,
        None => {
            let ahead = (from > transactions.0 && from > transactions.1).then_some(rewrites);
            from_disk(&view, partition, from, end, budget, ahead)?
        }
    };
    leave_doubtful(shared, &mut batches)?;
    let to = batches.back().map_or(from, |b| b.last + 1);
    let verdicts = Verdicts::of(&view, partition, transactions, from, to)?;
    check_range(partition, &partition.log.lock(), from)?;
    Ok((batches, end, verdicts))
}

/// A stored batch opened: its header and its decompressed records.
pub fn open_batch(shared: &Shared, partition: &Partition, stored: &StoredBatch) -> Result<(BatchHeader, Bytes)> {
    let batch = stored.batch();
    let damaged = |what: &str| damaged(shared, partition, stored.last, what);
    let header = BatchHeader::parse(&batch).ok_or_else(|| damaged("it is cut short"))?;
    let codec = header.codec().ok_or_else(|| damaged("its codec is unknown"))?;
    let records = decompress(codec, &batch.slice(HEADER_LEN..), shared.options.decompressed_bytes_max)
        .map_err(|e| damaged(&e.to_string()))?;
    Ok((header, records))
}

/// As [`open_batch`], where the batch will be made anew, so that damage must not go unseen.
pub fn open_intact(shared: &Shared, partition: &Partition, stored: &StoredBatch) -> Result<(BatchHeader, Bytes)> {
    if !is_intact(&stored.batch()) {
        return Err(damaged(shared, partition, stored.last, "its checksum is wrong"));
    }
    open_batch(shared, partition, stored)
}

/// Records from `from` on, as views.
pub fn records(shared: &Shared, partition: &Partition, from: Offset, limits: ReadLimits) -> Result<Records> {
    let limits = ReadLimits { bytes_max: limits.bytes_max.min(READ_BYTES_MAX), ..limits };
    let mut records = Records { next_offset: from, ..Records::default() };
    let mut size = 0;
    loop {
        let from = records.next_offset;
        let chunk = limits.bytes_max.saturating_sub(size).min(CHUNK_BYTES);
        let (batches, end, mut verdicts) = match decided(shared, partition, from, chunk) {
            Ok(found) => found,
            Err(StorageError::OffsetOutOfRange { offset, start, end }) if offset >= start => {
                // At or past the end there is nothing.
                records.stable_end = end;
                return Ok(records);
            }
            // Deleted while this read went on: what was read is right, and the next read tells.
            Err(StorageError::OffsetOutOfRange { .. }) if !records.views.is_empty() => return Ok(records),
            // What lies before it is right; the next read begins with it.
            Err(_) if !records.views.is_empty() => return Ok(records),
            Err(e) => return Err(e),
        };
        records.stable_end = end;
        if batches.is_empty() {
            // What there was up to the end was compacted away.
            records.next_offset = end.max(from);
            return Ok(records);
        }
        for stored in batches {
            let place = verdicts.place_of(&stored);
            if place > limits.up_to {
                return Ok(records);
            }
            let skipped = BatchHeader::parse(&stored.batch()).is_some_and(|h| h.is_control() || verdicts.aborts(&h));
            if !skipped {
                let before = records.views.len();
                match add_batch(shared, partition, (&stored, place), from, limits, &mut size, &mut records) {
                    Ok(true) => {}
                    Ok(false) => return Ok(records),
                    Err(_) if before > 0 => {
                        records.views.truncate(before);
                        return Ok(records);
                    }
                    Err(e) => return Err(e),
                }
            }
            records.next_offset = stored.last + 1;
        }
        if records.views.len() >= limits.records_max || size >= limits.bytes_max {
            return Ok(records);
        }
    }
}

/// Adds a batch's records; false where a limit ended it, `next_offset` then being that of the next record.
fn add_batch(
    shared: &Shared,
    partition: &Partition,
    (stored, sequence): (&StoredBatch, Sequence),
    from: Offset,
    limits: ReadLimits,
    size: &mut usize,
    records: &mut Records,
) -> Result<bool> {
    let (header, bytes) = open_batch(shared, partition, stored)?;
    let buffer = records.buffers.len() as u32;
    let slice = |span: Span| Slice { buffer, start: span.start, len: span.len };
    let before = records.views.len();
    let mut ended = false;
    for record in RecordIter::new(&bytes, header.count) {
        let record = record.map_err(|e| damaged(shared, partition, stored.last, e))?;
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        if offset < from {
            continue;
        }
        if !records.views.is_empty() && (records.views.len() >= limits.records_max || *size >= limits.bytes_max) {
            records.next_offset = offset;
            ended = true;
            break;
        }
        *size += record.key.map_or(0, |s| s.len as usize) + record.value.map_or(0, |s| s.len as usize);
        records.views.push(RecordView {
            offset,
            timestamp: header.timestamp_of(record.timestamp_delta),
            sequence,
            key: record.key.map(slice),
            value: record.value.map(slice),
            headers: if record.headers.len == 0 {
                Slice { buffer: 0, start: 0, len: 0 }
            } else {
                slice(record.headers)
            },
        });
    }
    if records.views.len() > before {
        records.buffers.push(bytes);
    }
    Ok(!ended)
}

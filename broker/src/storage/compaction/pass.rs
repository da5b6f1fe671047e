//! One pass over a partition: which keys are newest where, then every batch without what is superseded.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_types::Offset;

use super::super::housekeeping::Stop;
use super::super::log_files::Survivors;
use super::super::log_space::write_survivors;
use super::super::partition::{Partition, Segment, StoredBatch};
use super::super::read::{self, Verdicts, View};
use super::super::shared::Shared;
use super::super::space::Weight;
use super::super::writer::Change;
use super::super::{Result, StorageError};
use super::offsets::NewestOffsets;
use super::rewrite::{EDIT_COST, Edit, Rewrite};
use super::{CHUNK_BYTES, Compacted, PIECE_BYTES};
use crate::batch::{BatchHeader, Codec, Compression, RawRecord, RecordIter, Retained, empty_batch, retain};
use crate::configs::TopicSettings;
use crate::keys::BatchPlace;

/// Shorter waits would take longer than they should.
const WAIT_MIN: Duration = Duration::from_millis(5);

pub struct Pass<'a> {
    shared: &'a Shared,
    stop: Option<&'a Stop>,
    settings: &'a TopicSettings,
    partition: &'a Arc<Partition>,
    aborted_to: Offset,
    now_ms: i64,
    newest: NewestOffsets,
    /// Records from here on are left alone.
    to: Offset,
    /// Producers of transactions with a batch before the place that was reached, without their marker.
    open: HashSet<i64>,
    horizon_ms: i64,
    horizon_bytes: u64,
    edits: Vec<Edit>,
    edits_bytes: usize,
    /// What edits name.
    survivors: Survivors<'a>,
    /// Last offset that the edits may be about.
    reached: Offset,
    /// What the limit on reading asks to wait still.
    owed: Duration,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub bytes_written: u64,
}

/// What becomes of a batch.
enum Fate {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

impl<'a> Pass<'a> {
    pub fn new(
        shared: &'a Shared,
        stop: Option<&'a Stop>,
        settings: &'a TopicSettings,
        partition: &'a Arc<Partition>,
        aborted_to: Offset,
        now_ms: i64,
    ) -> Self {
        Self {
            shared,
            stop,
            settings,
            partition,
            aborted_to,
            now_ms,
            newest: NewestOffsets::new(shared.options.compaction_map_bytes),
            to: 0,
            open: HashSet::new(),
            horizon_ms: -1,
            horizon_bytes: 0,
            edits: Vec::new(),
            edits_bytes: 0,
            survivors: Survivors::new(&shared.files),
            reached: -1,
            owed: Duration::ZERO,
            bytes_before: 0,
            bytes_after: 0,
            bytes_written: 0,
        }
    }

    /// Up to where it compacted.
    pub fn to(&self) -> Offset {
        self.to
    }

    /// Compacts `segments`, with what is newest in `from..to`, or as much of that as there is memory for. False where it
    /// was told to end.
    pub fn run(&mut self, from: Offset, to: Offset, segments: Vec<Segment>) -> Result<bool> {
        self.to = from;
        if !self.note_newest(from, to)? {
            return Ok(false);
        }
        let segment_bytes = self.shared.options.segment_bytes.min(self.settings.segment_bytes as u64);
        let mut merged: Option<Segment> = None;
        let mut changed = false;
        let to = self.to;
        for segment in segments.into_iter().take_while(|s| s.base < to) {
            let Some(left) = self.compact_segment(&segment)? else { return Ok(false) };
            merged = match merged {
                Some(before) if before.bytes.saturating_add(left.bytes) <= segment_bytes => {
                    changed = true;
                    Some(join(before, left))
                }
                Some(before) => {
                    self.close(before, changed)?;
                    changed = left.bytes != segment.bytes || left.max_timestamp != segment.max_timestamp;
                    Some(left)
                }
                None => {
                    changed = left.bytes != segment.bytes || left.max_timestamp != segment.max_timestamp;
                    Some(left)
                }
            };
        }
        let compacted = Compacted { to: self.to, horizon_ms: self.horizon_ms, horizon_bytes: self.horizon_bytes };
        self.put(merged.filter(|_| changed), Some(compacted))?;
        Ok(true)
    }

    /// Reads what is dirty; false where it was told to end.
    fn note_newest(&mut self, from: Offset, to: Offset) -> Result<bool> {
        while self.to < to {
            let (batches, mut verdicts) = self.read(self.to, to)?;
            if batches.is_empty() {
                self.to = to;
            }
            for stored in batches {
                if !self.wait_for(stored.len()) {
                    return Ok(false);
                }
                let (header, records) = self.open_batch(&stored, &mut verdicts)?;
                let Some(records) = records else {
                    self.to = stored.last + 1;
                    continue;
                };
                for record in RecordIter::new(&records, header.count) {
                    let record = record.map_err(|e| self.damaged(stored.last, e))?;
                    let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
                    if offset < from {
                        continue;
                    }
                    if let Some(key) = record.key
                        && !self.newest.put(key.of(&records), offset)
                    {
                        // The next pass goes on here.
                        self.to = offset;
                        return Ok(true);
                    }
                }
                self.to = stored.last + 1;
            }
        }
        Ok(true)
    }

    fn damaged(&self, last: Offset, what: &str) -> StorageError {
        read::damaged(self.shared, self.partition, last, what)
    }

    fn read(&self, from: Offset, to: Offset) -> Result<(VecDeque<StoredBatch>, Verdicts)> {
        let db = self.shared.db()?;
        let view = View::of(self.shared, &db);
        let batches = read::lying(&view, self.partition, from, to, CHUNK_BYTES)?;
        let end = batches.back().map_or(from, |b| b.last + 1);
        let verdicts = Verdicts::of(&view, self.partition, (-1, self.aborted_to), from, end)?;
        Ok((batches, verdicts))
    }

    /// The header, and the records where they count.
    fn open_batch(&self, stored: &StoredBatch, verdicts: &mut Verdicts) -> Result<(BatchHeader, Option<Bytes>)> {
        let (header, records) = read::open_intact(self.shared, self.partition, stored)?;
        let counts = !header.is_control() && !verdicts.aborts(&header);
        Ok((header, counts.then_some(records)))
    }

    /// Keeps to the limit on reading; false when it is time to end.
    fn wait_for(&mut self, bytes: usize) -> bool {
        let Some(stop) = self.stop else { return true };
        if let Some(nanos) =
            (bytes as u64).saturating_mul(1_000_000_000).checked_div(self.shared.options.compaction_bytes_per_second)
        {
            self.owed += Duration::from_nanos(nanos);
        }
        let wait = if self.owed < WAIT_MIN { Duration::ZERO } else { std::mem::take(&mut self.owed) };
        !stop.wait(wait)
    }

    /// Compacts the batches of a segment and says what is left of it.
    fn compact_segment(&mut self, segment: &Segment) -> Result<Option<Segment>> {
        let mut left = Segment { max_timestamp: -1, bytes: 0, ..*segment };
        let mut lasts = Vec::new();
        let mut at = segment.base;
        while at <= segment.last {
            let (batches, mut verdicts) = self.read(at, segment.last + 1)?;
            if batches.is_empty() {
                break;
            }
            for stored in batches {
                if !self.wait_for(stored.len()) {
                    return Ok(None);
                }
                at = stored.last + 1;
                self.reached = stored.last;
                self.bytes_before += stored.len() as u64;
                let (header, records) = self.open_batch(&stored, &mut verdicts)?;
                let (bytes, max_timestamp) = match self.fate(&stored, &header, records)? {
                    Fate::Stays => (stored.len(), header.max_timestamp),
                    Fate::Goes => {
                        self.edit(Edit::Delete(stored.last, stored.in_file()));
                        (0, -1)
                    }
                    Fate::Becomes(batch) => {
                        let batch = Bytes::from(batch);
                        let max_timestamp = BatchHeader::parse(&batch).map_or(-1, |h| h.max_timestamp);
                        let place = BatchPlace {
                            sequence: stored.sequence,
                            last_offset_delta: header.last_offset_delta,
                            max_timestamp,
                            ..BatchPlace::default()
                        };
                        let place = self.survivors.add(1, &batch, &place);
                        self.edits_bytes += batch.len();
                        self.edit(Edit::Replace { last: stored.last, place, was: stored.in_file() });
                        (batch.len(), max_timestamp)
                    }
                };
                if bytes > 0 {
                    lasts.push(stored.last);
                    left.bytes += bytes as u64;
                    left.max_timestamp = left.max_timestamp.max(max_timestamp);
                }
                if self.edits_bytes >= PIECE_BYTES {
                    self.put(None, None)?;
                }
            }
        }
        self.bytes_after += left.bytes;
        self.forget_settled(segment, &lasts)?;
        Ok(Some(left))
    }

    /// Runs of offsets without batches need no place in the order any more.
    fn forget_settled(&mut self, segment: &Segment, lasts: &[Offset]) -> Result<()> {
        if self.partition.log.lock().transactions.settled_to < segment.base {
            return Ok(());
        }
        let db = self.shared.db()?;
        for run in read::settled_within(&View::of(self.shared, &db), self.partition, segment.base, segment.last + 1)? {
            let next = lasts.partition_point(|last| *last < run.first);
            if lasts.get(next).is_none_or(|last| *last > run.last) {
                self.edit(Edit::ForgetSettled(run.last));
            }
        }
        Ok(())
    }

    fn fate(&mut self, stored: &StoredBatch, header: &BatchHeader, records: Option<Bytes>) -> Result<Fate> {
        if header.base_offset >= self.to {
            return Ok(Fate::Stays);
        }
        let whole = stored.last < self.to;
        if header.is_control() {
            return self.fate_of_marker(stored, header, whole);
        }
        if header.is_transactional() {
            self.open.insert(header.producer_id);
        }
        let (kept, markers) = match &records {
            // It was aborted.
            None => (Retained::Nothing, false),
            Some(records) => self.retain(stored, header, records, whole)?,
        };
        Ok(match kept {
            Retained::Unchanged if header.count == 0 && !self.is_last_of_producer(stored, header) => Fate::Goes,
            Retained::Unchanged => {
                if markers {
                    self.note_horizon(header.delete_horizon(), stored.len());
                }
                Fate::Stays
            }
            Retained::Nothing if self.is_last_of_producer(stored, header) => Fate::Becomes(empty_batch(header)),
            Retained::Nothing => Fate::Goes,
            Retained::Rewritten(value) => {
                if markers {
                    let horizon = BatchHeader::parse(&value).and_then(|h| h.delete_horizon());
                    self.note_horizon(horizon, value.len());
                }
                Fate::Becomes(value)
            }
        })
    }

    /// A batch without what is superseded, and whether deletion markers are left in it.
    fn retain(
        &self,
        stored: &StoredBatch,
        header: &BatchHeader,
        records: &Bytes,
        whole: bool,
    ) -> Result<(Retained, bool)> {
        let horizon = header.delete_horizon();
        let passed = horizon.is_some_and(|horizon| horizon <= self.now_ms);
        let keep = |record: &RawRecord| {
            let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
            if offset >= self.to {
                return true;
            }
            // What has no key was written before the topic was compacted.
            let Some(key) = record.key else { return false };
            !self.newest.supersedes(key.of(records), offset) && (record.value.is_some() || !passed)
        };
        let mut markers = false;
        for record in RecordIter::new(records, header.count) {
            let record = record.map_err(|e| self.damaged(stored.last, e))?;
            markers |= record.value.is_none() && keep(&record);
        }
        let new_horizon = (markers && whole && horizon.is_none())
            .then(|| self.now_ms.saturating_add(self.settings.delete_retention_ms));
        let own = header.codec().map(Compression::from);
        let compression = self.settings.compression.or(own).unwrap_or(Codec::None.into());
        let kept = retain(header, records, compression, new_horizon, keep).map_err(|e| self.damaged(stored.last, e))?;
        Ok((kept, markers))
    }

    /// A transaction's marker goes when all batches of the transaction have gone and the time for that has passed.
    fn fate_of_marker(&mut self, stored: &StoredBatch, header: &BatchHeader, whole: bool) -> Result<Fate> {
        if self.open.remove(&header.producer_id) || !whole {
            return Ok(Fate::Stays);
        }
        match header.delete_horizon() {
            Some(horizon) if horizon <= self.now_ms => {
                self.edit(Edit::ForgetAborted(stored.last));
                Ok(Fate::Goes)
            }
            Some(horizon) => {
                self.note_horizon(Some(horizon), stored.len());
                Ok(Fate::Stays)
            }
            None => {
                let (_, records) = read::open_batch(self.shared, self.partition, stored)?;
                let horizon = self.now_ms.saturating_add(self.settings.delete_retention_ms);
                let compression = Codec::None.into();
                let kept = retain(header, &records, compression, Some(horizon), |_| true)
                    .map_err(|e| self.damaged(stored.last, e))?;
                self.note_horizon(Some(horizon), stored.len());
                Ok(match kept {
                    Retained::Rewritten(value) => Fate::Becomes(value),
                    Retained::Unchanged | Retained::Nothing => Fate::Stays,
                })
            }
        }
    }

    fn note_horizon(&mut self, horizon: Option<i64>, bytes: usize) {
        if let Some(horizon) = horizon {
            self.horizon_ms = self.horizon_ms.max(horizon);
            self.horizon_bytes += bytes as u64;
        }
    }

    /// Its sequence is the one that the producer goes on from.
    fn is_last_of_producer(&self, stored: &StoredBatch, header: &BatchHeader) -> bool {
        header.producer_id >= 0
            && self.partition.producers.lock().get(&header.producer_id).is_some_and(|producer| {
                producer.epoch == header.producer_epoch
                    && producer.batches.back().is_some_and(|batch| batch.last_offset == stored.last)
            })
    }

    fn edit(&mut self, edit: Edit) {
        self.edits_bytes += EDIT_COST;
        self.edits.push(edit);
    }

    fn close(&mut self, segment: Segment, changed: bool) -> Result<()> {
        if changed || !self.edits.is_empty() {
            self.put(Some(segment).filter(|_| changed), None)?;
        }
        Ok(())
    }

    /// Has the writer put what there is to put, and waits for it.
    fn put(&mut self, segment: Option<Segment>, compacted: Option<Compacted>) -> Result<()> {
        if let Some(full) = self.shared.space.refusal(Weight::Bulk) {
            return Err(full);
        }
        let survivors = std::mem::replace(&mut self.survivors, Survivors::new(&self.shared.files));
        write_survivors(self.shared, &survivors)?;
        let rewrite = Rewrite {
            partition: self.partition.clone(),
            edits: std::mem::take(&mut self.edits),
            last: self.reached,
            segment,
            compacted,
        };
        self.bytes_written += std::mem::take(&mut self.edits_bytes) as u64;
        self.shared.change_blocking(Change::Rewrite(Box::new(rewrite))).map(drop)
    }
}

fn join(a: Segment, b: Segment) -> Segment {
    Segment {
        base: a.base,
        last: b.last,
        max_timestamp: a.max_timestamp.max(b.max_timestamp),
        appended_ms: a.appended_ms.max(b.appended_ms),
        began_ms: a.began_ms.min(b.began_ms),
        bytes: a.bytes.saturating_add(b.bytes),
        batches: 0,
    }
}

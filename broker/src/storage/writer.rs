//! The one thread that writes: gives offsets and sequences, writes once for all that came together, then shows it.
//!
//! Everything a pass would change is kept beside what is visible until the write is done, so a write that fails leaves
//! nothing behind: no offset, no sequence, no producer state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use millpond_types::ports::{Outcome, TopicInfo};
use millpond_types::{Offset, Sequence, TopicId, TopicPartition};
use rocksdb::{ColumnFamily, DB, WriteBatch, WriteOptions};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::StorageError;
use super::partition::{LogState, Partition, Segment, StoredBatch};
use super::producers::{self, Producer};
use super::shared::{Counters, Shared, family};
use super::topics::{NewTopic, Topic};
use super::{Appended, Durability, Result};
use crate::batch::{BatchHeader, ValidBatch, patch_place};
use crate::configs::TopicSettings;
use crate::keys::{self, BATCH_PREFIX_LEN, Counter, Kind, cf};

/// RocksDB is asked how far it is behind once in so many writes.
const PRESSURE_WRITES: u64 = 64;
/// Files in level 0 from which steps wait, well before RocksDB slows every write down (at 20).
const LEVEL0_FILES_MIN: u64 = 12;
const STEP_DELAY_MS_MAX: u64 = 50;

pub struct ProduceJob {
    pub partition: Arc<Partition>,
    pub batch: ValidBatch,
    pub _room: OwnedSemaphorePermit,
    pub answer: oneshot::Sender<Result<Appended>>,
}

pub enum Change {
    CreateTopic(NewTopic),
    DeleteTopic(TopicId),
    SetConfigs {
        id: TopicId,
        configs: BTreeMap<String, String>,
        settings: Box<TopicSettings>,
    },
    AddPartitions {
        id: TopicId,
        total: i32,
    },
    /// Moves the log's start to `before`, or its end for -1; answers the start. Past the end is an error if `strict`.
    MoveStart {
        partition: Arc<Partition>,
        before: Offset,
        strict: bool,
    },
    ForgetProducers {
        partition: Arc<Partition>,
        unused_since_ms: i64,
    },
    AllocateProducerId,
    Group(Vec<(Vec<u8>, Option<Vec<u8>>)>),
}

impl Change {
    pub fn size(&self) -> usize {
        match self {
            Self::Group(entries) => entries.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum(),
            _ => 0,
        }
    }
}

pub struct ChangeJob {
    pub change: Change,
    pub answer: oneshot::Sender<Result<i64>>,
    pub _room: Option<OwnedSemaphorePermit>,
}

/// A step with everything encoded.
pub struct StepJob {
    pub create_topics: Vec<NewTopic>,
    pub delete_topics: Vec<TopicId>,
    pub appends: Vec<(Arc<Partition>, Vec<ValidBatch>)>,
    pub cursors: Vec<(Vec<u8>, Offset)>,
    pub drop_cursors: Vec<(Vec<u8>, Vec<u8>)>,
    pub state: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub drop_state: Vec<(Vec<u8>, Vec<u8>)>,
    pub catalog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub bytes: usize,
    pub answer: SyncSender<Outcome>,
}

pub enum Job {
    Step(Box<StepJob>),
    Change(ChangeJob),
}

impl Job {
    pub fn changes_topics(&self) -> bool {
        match self {
            Self::Step(step) => !step.create_topics.is_empty() || !step.delete_topics.is_empty(),
            Self::Change(job) => matches!(
                job.change,
                Change::CreateTopic(_)
                    | Change::DeleteTopic(_)
                    | Change::SetConfigs { .. }
                    | Change::AddPartitions { .. }
            ),
        }
    }

    pub fn size(&self) -> usize {
        match self {
            Self::Step(step) => step.bytes,
            Self::Change(job) => job.change.size(),
        }
    }
}

#[derive(Default)]
pub struct Work {
    pub produces: Vec<ProduceJob>,
    pub jobs: Vec<Job>,
    pub bytes: usize,
}

/// Writes until the queue is closed and empty.
pub fn run(shared: &Shared) {
    // Also when this thread ends by a panic: nobody waits for an answer that will not come.
    struct Clear<'a>(&'a Shared);
    impl Drop for Clear<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                tracing::error!("the storage's writer ended by a panic: nothing is written until the next start");
            }
            self.0.queue.clear();
        }
    }
    let _clear = Clear(shared);
    let mut writer = Writer { shared, counters: shared.counters, tails: Tails::default() };
    let mut writes = 0u64;
    while let Some(work) = shared.queue.take(shared.options.write_bytes_max) {
        writer.write(work);
        writes += 1;
        if writes.is_multiple_of(PRESSURE_WRITES) {
            shared.step_delay_ms.store(step_delay_ms(shared).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Steps give way, so that produced batches are not slowed down on their account.
fn step_delay_ms(shared: &Shared) -> Result<u64> {
    let db = shared.db()?;
    let files = db.property_int_value_cf(family(&db, cf::STATE)?, "rocksdb.num-files-at-level0")?.unwrap_or(0);
    Ok((files.saturating_sub(LEVEL0_FILES_MIN) * 5).min(STEP_DELAY_MS_MAX))
}

struct Writer<'a> {
    shared: &'a Shared,
    counters: Counters,
    tails: Tails,
}

impl Writer<'_> {
    fn write(&mut self, work: Work) {
        let mut answers = Vec::with_capacity(work.produces.len() + work.jobs.len());
        let outcome = self.write_pass(work, &mut answers);
        if let Err(e) = &outcome {
            tracing::error!("nothing was written: {e}");
        }
        for answer in answers {
            answer.give(&outcome);
        }
    }

    fn write_pass(&mut self, work: Work, answers: &mut Vec<Answer>) -> Result<()> {
        let db = match self.shared.db() {
            Ok(db) => db,
            Err(e) => {
                answers.extend(work.produces.into_iter().map(|j| Answer::Produce(j.answer, Err(e.clone()))));
                answers.extend(work.jobs.into_iter().map(|j| match j {
                    Job::Step(step) => Answer::Step(step.answer, Outcome::Retry(e.to_string())),
                    Job::Change(job) => Answer::Change(job.answer, Err(e.clone())),
                }));
                return Ok(());
            }
        };
        let families = Families::of(&db)?;
        let mut pass = Pass {
            shared: self.shared,
            families,
            batch: WriteBatch::with_capacity_bytes(work.bytes + work.bytes / 16 + 1024),
            now_ms: self.shared.options.clock.now_ms(),
            counters: self.counters,
            partitions: HashMap::new(),
            created: Vec::new(),
            deleted: Vec::new(),
        };
        for job in work.produces {
            let result = pass.produce(&job.partition, job.batch);
            answers.push(Answer::Produce(job.answer, result));
        }
        for job in work.jobs {
            answers.push(match job {
                Job::Step(mut step) => {
                    let outcome = pass.step(&mut step);
                    Answer::Step(step.answer, outcome)
                }
                Job::Change(job) => {
                    let result = pass.change(job.change);
                    Answer::Change(job.answer, result)
                }
            });
        }
        if pass.batch.is_empty() {
            return Ok(());
        }
        if pass.counters.sequence != self.counters.sequence {
            let value = pass.counters.sequence.to_be_bytes();
            pass.batch.put_cf(pass.families.meta, keys::counter(Counter::Sequence), value);
        }
        let mut options = WriteOptions::default();
        options.set_sync(self.shared.options.durability == Durability::Group);
        db.write_opt(std::mem::take(&mut pass.batch), &options)?;
        self.publish(pass);
        Ok(())
    }

    /// Shows what was written.
    fn publish(&mut self, pass: Pass<'_>) {
        let options = &self.shared.options;
        let Pass { counters, partitions, created, deleted, .. } = pass;
        self.counters = counters;
        if !created.is_empty() || !deleted.is_empty() {
            let mut topics = self.shared.topics.write();
            for topic in &deleted {
                topics.remove(topic.id);
            }
            for topic in created {
                topics.insert(topic);
            }
        }
        for partition in deleted.iter().flat_map(|t| &t.partitions) {
            partition.log.lock().gone = true;
            self.tails.drop_tail(partition);
            partition.producers.lock().clear();
            self.shared.reclaim.lock().push(partition.uid);
            partition.wake();
        }
        for pending in partitions.into_values() {
            let partition = &pending.partition;
            let moved = pending.end != pending.first || pending.start.is_some();
            let mut log = partition.log.lock();
            log.end = pending.end;
            log.open = pending.open;
            log.segments.extend(pending.closed);
            if let Some(start) = pending.start {
                move_start(&mut log, start);
            }
            if pending.epoch_began {
                log.epochs.push((self.shared.epoch, pending.first));
            }
            self.tails.add(partition, &mut log, pending.appended, options.tail_partition_bytes);
            drop(log);
            if !pending.producers.is_empty() {
                let mut producers = partition.producers.lock();
                for (id, producer) in pending.producers {
                    match producer {
                        Some(producer) => producers.insert(id, producer),
                        None => producers.remove(&id),
                    };
                }
            }
            if moved {
                partition.wake();
            }
        }
        self.tails.shrink_to(options.tail_bytes);
        if counters.sequence != self.shared.sequence() {
            self.shared.publish(counters.sequence);
        }
    }
}

fn move_start(log: &mut LogState, start: Offset) {
    log.start = start;
    while log.segments.front().is_some_and(|s| s.last < start) {
        log.segments.pop_front();
    }
    if log.open.is_some_and(|s| s.last < start) {
        log.open = None;
    }
    let current = log.epochs.partition_point(|(_, first)| *first <= start);
    log.epochs.drain(..current.saturating_sub(1));
}

enum Answer {
    Produce(oneshot::Sender<Result<Appended>>, Result<Appended>),
    Change(oneshot::Sender<Result<i64>>, Result<i64>),
    Step(SyncSender<Outcome>, Outcome),
}

impl Answer {
    /// Whoever no longer waits is not missed.
    fn give(self, written: &Result<()>) {
        match self {
            Self::Produce(to, result) => drop(to.send(written.clone().and(result))),
            Self::Change(to, result) => drop(to.send(written.clone().and(result))),
            Self::Step(to, outcome) => {
                let outcome = match (written, outcome) {
                    (Err(e), Outcome::Committed { .. }) => Outcome::Retry(e.to_string()),
                    (_, outcome) => outcome,
                };
                drop(to.send(outcome));
            }
        }
    }
}

struct Families<'a> {
    meta: &'a ColumnFamily,
    log: &'a ColumnFamily,
    index: &'a ColumnFamily,
    producer: &'a ColumnFamily,
    group: &'a ColumnFamily,
    catalog: &'a ColumnFamily,
    state: &'a ColumnFamily,
}

impl<'a> Families<'a> {
    fn of(db: &'a DB) -> Result<Self> {
        Ok(Self {
            meta: family(db, cf::META)?,
            log: family(db, cf::LOG)?,
            index: family(db, cf::INDEX)?,
            producer: family(db, cf::PRODUCER)?,
            group: family(db, cf::GROUP)?,
            catalog: family(db, cf::CATALOG)?,
            state: family(db, cf::STATE)?,
        })
    }
}

/// One write in the making.
struct Pass<'a> {
    shared: &'a Shared,
    families: Families<'a>,
    batch: WriteBatch,
    now_ms: i64,
    counters: Counters,
    partitions: HashMap<u64, PendingPartition>,
    /// New topics, and those that replace one with the same id.
    created: Vec<Arc<Topic>>,
    deleted: Vec<Arc<Topic>>,
}

/// What a partition becomes when the write is done.
struct PendingPartition {
    partition: Arc<Partition>,
    gone: bool,
    first: Offset,
    end: Offset,
    start_now: Offset,
    start: Option<Offset>,
    open: Option<Segment>,
    closed: Vec<Segment>,
    appended: Vec<StoredBatch>,
    producers: HashMap<i64, Option<Producer>>,
    epoch_known: bool,
    epoch_began: bool,
}

impl PendingPartition {
    fn of(partition: &Arc<Partition>, epoch: i32) -> Self {
        let log = partition.log.lock();
        Self {
            partition: partition.clone(),
            gone: log.gone,
            first: log.end,
            end: log.end,
            start_now: log.start,
            start: None,
            open: log.open,
            closed: Vec::new(),
            appended: Vec::new(),
            producers: HashMap::new(),
            epoch_known: log.epochs.last().is_some_and(|(last, _)| *last == epoch),
            epoch_began: false,
        }
    }
}

fn pending<'p>(
    partitions: &'p mut HashMap<u64, PendingPartition>,
    partition: &Arc<Partition>,
    epoch: i32,
) -> &'p mut PendingPartition {
    partitions.entry(partition.uid).or_insert_with(|| PendingPartition::of(partition, epoch))
}

impl Pass<'_> {
    fn produce(&mut self, partition: &Arc<Partition>, batch: ValidBatch) -> Result<Appended> {
        let header = batch.header;
        let now_ms = self.now_ms;
        let log_append_time_ms = if header.is_log_append_time() { header.max_timestamp } else { -1 };
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        if entry.gone {
            return Err(StorageError::unknown_partition(partition.place));
        }
        let log_start_offset = entry.start.unwrap_or(entry.start_now);
        if header.producer_id < 0 {
            let (base_offset, last_offset, sequence) = self.append(partition, batch);
            return Ok(Appended {
                base_offset,
                last_offset,
                log_append_time_ms,
                log_start_offset,
                duplicate: false,
                sequence,
            });
        }
        let known = partition.producers.lock();
        let producer = match entry.producers.get(&header.producer_id) {
            Some(pending) => pending.as_ref(),
            None => known.get(&header.producer_id),
        };
        if let Some(same) = producers::check(producer, &header)? {
            return Ok(Appended {
                base_offset: same.base_offset,
                last_offset: same.last_offset,
                log_append_time_ms: same.log_append_time_ms,
                log_start_offset,
                duplicate: true,
                sequence: 0,
            });
        }
        let after = Producer::after(producer, &header, entry.end, log_append_time_ms, now_ms);
        let evicted = match producer {
            Some(_) => None,
            None => idle_longest(&known, &entry.producers, self.shared.options.partition_producers_max),
        };
        drop(known);
        let family = self.families.producer;
        if let Some(evicted) = evicted {
            self.batch.delete_cf(family, keys::producer(partition.uid, evicted));
            entry.producers.insert(evicted, None);
        }
        self.batch.put_cf(family, keys::producer(partition.uid, header.producer_id), after.encode());
        entry.producers.insert(header.producer_id, Some(after));
        let (base_offset, last_offset, sequence) = self.append(partition, batch);
        Ok(Appended { base_offset, last_offset, log_append_time_ms, log_start_offset, duplicate: false, sequence })
    }

    /// Puts a batch at the partition's end; returns its base offset, last offset and sequence.
    fn append(&mut self, partition: &Arc<Partition>, batch: ValidBatch) -> (Offset, Offset, Sequence) {
        let ValidBatch { mut bytes, header, .. } = batch;
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        self.counters.sequence += 1;
        let sequence = self.counters.sequence;
        let base = entry.end;
        let last = base + i64::from(header.last_offset_delta);
        keys::put_batch_prefix(&mut bytes, sequence);
        patch_place(bytes.get_mut(BATCH_PREFIX_LEN..).unwrap_or_default(), base, self.shared.epoch);
        self.batch.put_cf(self.families.log, keys::batch(partition.uid, last), &bytes);
        if !entry.epoch_known {
            let key = keys::epoch_start(partition.uid, self.shared.epoch);
            self.batch.put_cf(self.families.meta, key, base.to_be_bytes());
            entry.epoch_known = true;
            entry.epoch_began = true;
        }
        entry.end = last + 1;
        let size = bytes.len() - BATCH_PREFIX_LEN;
        let open = match &mut entry.open {
            Some(open) => {
                open.add(last, header.max_timestamp, self.now_ms, size);
                open
            }
            none => none.insert(Segment::starting_with(base, last, header.max_timestamp, self.now_ms, size)),
        };
        if open.bytes >= self.shared.options.segment_bytes {
            self.batch.put_cf(self.families.index, keys::segment(partition.uid, last), open.encode());
            entry.closed.push(*open);
            entry.open = None;
        }
        entry.appended.push(StoredBatch::new(last, sequence, Bytes::from(bytes)));
        (base, last, sequence)
    }

    /// Checks a step whole, then puts all of it.
    fn step(&mut self, step: &mut StepJob) -> Outcome {
        if let Err(e) = self.check_step(step) {
            return Outcome::Fatal(e.to_string());
        }
        let mut created: Vec<TopicInfo> = Vec::with_capacity(step.create_topics.len());
        for id in &step.delete_topics {
            if let Ok(topic) = self.shared.topic(*id) {
                self.delete_topic(topic);
            }
        }
        for new in step.create_topics.drain(..) {
            created.push(self.create_topic(new).info());
        }
        for (partition, batches) in step.appends.drain(..) {
            for batch in batches {
                self.append(&partition, batch);
            }
        }
        for (from, to) in &step.drop_cursors {
            self.batch.delete_range_cf(self.families.catalog, from, to);
        }
        for (key, offset) in &step.cursors {
            self.batch.put_cf(self.families.catalog, key, offset.to_be_bytes());
        }
        for (from, to) in step.drop_state.iter().filter(|(from, to)| from < to) {
            self.batch.delete_range_cf(self.families.state, from, to);
        }
        put_all(&mut self.batch, self.families.state, &step.state);
        put_all(&mut self.batch, self.families.catalog, &step.catalog);
        Outcome::Committed { sequence: self.counters.sequence, created }
    }

    fn check_step(&mut self, step: &StepJob) -> Result<()> {
        self.shared.check_new_topics(&step.create_topics)?;
        for id in &step.delete_topics {
            self.shared.topic(*id)?;
        }
        for (partition, _) in &step.appends {
            let entry = pending(&mut self.partitions, partition, self.shared.epoch);
            if entry.gone || step.delete_topics.contains(&partition.place.topic) {
                return Err(StorageError::unknown_partition(partition.place));
            }
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<i64> {
        match change {
            Change::CreateTopic(new) => {
                self.shared.check_new_topics(std::slice::from_ref(&new))?;
                self.create_topic(new);
            }
            Change::DeleteTopic(id) => {
                let topic = self.shared.topic(id)?;
                self.delete_topic(topic);
            }
            Change::SetConfigs { id, configs, settings } => {
                let topic = self.shared.topic(id)?;
                self.put_topic(Topic {
                    id,
                    name: topic.name.clone(),
                    replicas: topic.replicas,
                    configs,
                    settings: *settings,
                    partitions: topic.partitions.clone(),
                });
            }
            Change::AddPartitions { id, total } => self.add_partitions(id, total)?,
            Change::MoveStart { partition, before, strict } => return self.move_start(&partition, before, strict),
            Change::ForgetProducers { partition, unused_since_ms } => {
                let entry = pending(&mut self.partitions, &partition, self.shared.epoch);
                for (id, producer) in &*partition.producers.lock() {
                    if producer.used_ms < unused_since_ms && !entry.producers.contains_key(id) {
                        self.batch.delete_cf(self.families.producer, keys::producer(partition.uid, *id));
                        entry.producers.insert(*id, None);
                    }
                }
            }
            Change::AllocateProducerId => {
                let id = self.counters.producer_id;
                self.counters.producer_id += 1;
                let value = self.counters.producer_id.to_be_bytes();
                self.batch.put_cf(self.families.meta, keys::counter(Counter::ProducerId), value);
                return Ok(id as i64);
            }
            Change::Group(entries) => {
                for (key, value) in entries {
                    let key = keys::prefixed(Kind::Group, &key);
                    match value {
                        Some(value) => self.batch.put_cf(self.families.group, key, value),
                        None => self.batch.delete_cf(self.families.group, key),
                    }
                }
            }
        }
        Ok(0)
    }

    fn new_partitions(&mut self, topic: TopicId, from: i32, to: i32) -> Vec<Arc<Partition>> {
        let partitions = (from..to)
            .map(|partition| {
                let uid = self.counters.partition_uid;
                self.counters.partition_uid += 1;
                Arc::new(Partition::new(uid, TopicPartition { topic, partition }, LogState::default()))
            })
            .collect();
        let value = self.counters.partition_uid.to_be_bytes();
        self.batch.put_cf(self.families.meta, keys::counter(Counter::PartitionUid), value);
        partitions
    }

    fn create_topic(&mut self, new: NewTopic) -> Arc<Topic> {
        let id = TopicId(*uuid::Uuid::new_v4().as_bytes());
        let partitions = self.new_partitions(id, 0, new.spec.partitions);
        self.put_topic(Topic {
            id,
            name: new.spec.name,
            replicas: new.spec.replicas,
            configs: new.spec.configs,
            settings: new.settings,
            partitions,
        })
    }

    fn put_topic(&mut self, topic: Topic) -> Arc<Topic> {
        self.batch.put_cf(self.families.meta, keys::topic(topic.id), topic.stored().encode());
        let topic = Arc::new(topic);
        self.created.push(topic.clone());
        topic
    }

    fn add_partitions(&mut self, id: TopicId, total: i32) -> Result<()> {
        let topic = self.shared.topic(id)?;
        let now = topic.partition_count();
        let max = self.shared.options.topic_partitions_max;
        if total <= now || total > max {
            return Err(StorageError::InvalidPartitions(format!(
                "topic \"{}\" has {now} partitions and cannot have {total}: it must be more, up to {max}",
                topic.name
            )));
        }
        let all = self.shared.topics.read().partition_count().saturating_add((total - now) as usize);
        self.shared.check_partition_count(all)?;
        let mut partitions = topic.partitions.clone();
        partitions.extend(self.new_partitions(id, now, total));
        self.put_topic(Topic {
            id,
            name: topic.name.clone(),
            replicas: topic.replicas,
            configs: topic.configs.clone(),
            settings: topic.settings.clone(),
            partitions,
        });
        Ok(())
    }

    fn delete_topic(&mut self, topic: Arc<Topic>) {
        self.batch.delete_cf(self.families.meta, keys::topic(topic.id));
        for partition in &topic.partitions {
            let uid = partition.uid;
            for (family, kind) in [
                (self.families.log, Kind::Batch),
                (self.families.index, Kind::Segment),
                (self.families.producer, Kind::Producer),
            ] {
                let (from, to) = keys::partition_range(kind, uid);
                self.batch.delete_range_cf(family, from, to);
            }
            let epochs = (keys::epoch_start(uid, 0), keys::epoch_start(uid.wrapping_add(1), 0));
            self.batch.delete_range_cf(self.families.meta, epochs.0, epochs.1);
            self.batch.delete_cf(self.families.meta, keys::log_start(uid));
        }
        self.deleted.push(topic);
    }

    fn move_start(&mut self, partition: &Arc<Partition>, before: Offset, strict: bool) -> Result<i64> {
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        if entry.gone {
            return Err(StorageError::unknown_partition(partition.place));
        }
        let now = entry.start.unwrap_or(entry.start_now);
        // Only what was visible before this write.
        let end = entry.first;
        if before < -1 || (strict && before > end) {
            return Err(StorageError::OffsetOutOfRange { offset: before, start: now, end });
        }
        let start = if before == -1 { end } else { before.min(end) };
        if start <= now {
            return Ok(now);
        }
        entry.start = Some(start);
        let uid = partition.uid;
        self.batch.put_cf(self.families.meta, keys::log_start(uid), start.to_be_bytes());
        self.batch.delete_range_cf(self.families.log, keys::batch(uid, now), keys::batch(uid, start));
        self.batch.delete_range_cf(self.families.index, keys::segment(uid, now), keys::segment(uid, start));
        let log = partition.log.lock();
        let current = log.epochs.partition_point(|(_, first)| *first <= start);
        for (epoch, _) in log.epochs.iter().take(current.saturating_sub(1)) {
            self.batch.delete_cf(self.families.meta, keys::epoch_start(uid, *epoch));
        }
        Ok(start)
    }
}

fn put_all(batch: &mut WriteBatch, family: &ColumnFamily, entries: &[(Vec<u8>, Option<Vec<u8>>)]) {
    for (key, value) in entries {
        match value {
            Some(value) => batch.put_cf(family, key, value),
            None => batch.delete_cf(family, key),
        }
    }
}

/// The producer that makes room for a new one, where the limit is reached.
fn idle_longest(
    known: &HashMap<i64, Producer>,
    pending: &HashMap<i64, Option<Producer>>,
    producers_max: usize,
) -> Option<i64> {
    if known.len() + pending.len() < producers_max {
        return None;
    }
    let idle = known.iter().filter(|(id, _)| !pending.contains_key(id));
    idle.min_by_key(|(_, producer)| producer.used_ms).map(|(id, _)| *id)
}

/// The hot tails of all partitions, within one budget: who appended longest ago loses its tail first.
#[derive(Default)]
struct Tails {
    cost: usize,
    turn: u64,
    turn_of: HashMap<u64, u64>,
    by_turn: BTreeMap<u64, Arc<Partition>>,
}

impl Tails {
    fn add(&mut self, partition: &Arc<Partition>, log: &mut LogState, batches: Vec<StoredBatch>, max: usize) {
        if batches.is_empty() {
            return;
        }
        for batch in batches {
            log.tail_cost += batch.cost();
            self.cost += batch.cost();
            log.tail.push_back(batch);
        }
        while log.tail_cost > max {
            self.cost -= log.shorten_tail();
        }
        self.turn += 1;
        if let Some(old) = self.turn_of.insert(partition.uid, self.turn) {
            self.by_turn.remove(&old);
        }
        self.by_turn.insert(self.turn, partition.clone());
    }

    fn drop_tail(&mut self, partition: &Partition) {
        if let Some(turn) = self.turn_of.remove(&partition.uid) {
            self.by_turn.remove(&turn);
        }
        let mut log = partition.log.lock();
        while !log.tail.is_empty() {
            self.cost -= log.shorten_tail();
        }
    }

    fn shrink_to(&mut self, max: usize) {
        while self.cost > max {
            let Some((_, partition)) = self.by_turn.pop_first() else { return };
            self.turn_of.remove(&partition.uid);
            let mut log = partition.log.lock();
            while self.cost > max && !log.tail.is_empty() {
                self.cost -= log.shorten_tail();
            }
            if !log.tail.is_empty() {
                drop(log);
                self.turn += 1;
                self.turn_of.insert(partition.uid, self.turn);
                self.by_turn.insert(self.turn, partition);
            }
        }
    }
}

/// For the loader: what a stored batch says about its segment.
pub fn add_to_segment(open: &mut Option<Segment>, last: Offset, header: &BatchHeader, now_ms: i64, size: usize) {
    match open {
        Some(open) => open.add(last, header.max_timestamp, now_ms, size),
        None => *open = Some(Segment::starting_with(header.base_offset, last, header.max_timestamp, now_ms, size)),
    }
}

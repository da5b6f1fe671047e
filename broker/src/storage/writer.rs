//! Writes: gives offsets and sequences, writes once for all that came together, then shows it. One thread at a time,
//! see `queue`.
//!
//! Everything a pass would change is kept beside what is visible until the write is done, so a write that fails leaves
//! nothing behind: no offset, no sequence, no producer state.
//!
//! After a write that failed, or an fsync of what had been written, no other is made here (RocksDB itself would take
//! them): the storage can only be read, until the database could be opened again (`recovery`). Whether the write that
//! failed is there all the same is looked up before anybody is answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use millpond_types::ports::{Outcome, Writes};
use millpond_types::{Offset, TopicId};
use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::commits;
use super::compaction::Rewrite;
use super::error::StorageError;
use super::gather::Gather;
use super::housekeeping::Stop;
use super::log_files::Placing;
use super::log_space::{self, Dead};
use super::offsets_topic::{self, OffsetsTopic};
use super::partition::{LogState, Partition};
use super::pass::{Families, Pass, PendingPartition};
use super::recovery;
use super::shared::{Counters, Shared, family};
use super::space::Weight;
use super::state::OwnedSnapshot;
use super::topics::{NewTopic, Topic};
use super::{Appended, Durability, Result, TransactionWrite};
use crate::batch::ValidBatch;
use crate::configs::ChangedConfigs;
use crate::keys::{self, BatchPlace, Counter, Placed, cf};

/// RocksDB is asked how far it is behind once in so many writes.
const PRESSURE_WRITES: u64 = 64;
/// Files in level 0 from which steps wait, well before RocksDB slows every write down (at 20).
const LEVEL0_FILES_MIN: u64 = 12;
const STEP_DELAY_MS_MAX: u64 = 50;
/// Of the batches that lie in the database none is larger than this part of what all of a write may have.
const INLINE_BATCH_PART: usize = 8;
/// What a write takes in the database besides batches.
const ENTRIES_BYTES: usize = 16 << 10;
/// About what a transaction writes per partition that joins it or that it ends in.
const PARTITION_COST: usize = 256;

pub struct ProduceJob {
    pub partition: Arc<Partition>,
    pub batch: ValidBatch,
    pub _room: OwnedSemaphorePermit,
    pub answer: oneshot::Sender<Result<Appended>>,
}

pub enum Change {
    CreateTopic(NewTopic),
    CreateOffsetsTopic(NewTopic),
    /// Puts a piece of what groups hold into that topic.
    FillOffsetsTopic,
    DeleteTopic(TopicId),
    SetConfigs {
        id: TopicId,
        configs: BTreeMap<String, String>,
    },
    SetBrokerConfigs(ChangedConfigs),
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
    /// Entries of security, with their whole keys.
    Security(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Transaction(Box<TransactionWrite>),
    /// A piece of a compaction.
    Rewrite(Box<Rewrite>),
}

impl Change {
    pub fn size(&self) -> usize {
        match self {
            Self::Group(entries) | Self::Security(entries) => size_of_all(entries),
            Self::Transaction(write) => {
                let markers = write.ending.as_ref().map_or(0, |ending| ending.partitions.len());
                size_of_all(&write.entries) + (markers + write.added.len()) * PARTITION_COST
            }
            Self::Rewrite(rewrite) => rewrite.size(),
            _ => 0,
        }
    }
}

fn size_of_all(entries: &[(Vec<u8>, Option<Vec<u8>>)]) -> usize {
    entries.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum()
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
    pub state: Writes,
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
    /// It changes topics, or reads what all before it have written.
    pub fn goes_alone(&self) -> bool {
        match self {
            Self::Step(step) => !step.create_topics.is_empty() || !step.delete_topics.is_empty(),
            Self::Change(job) => matches!(
                job.change,
                Change::CreateTopic(_)
                    | Change::CreateOffsetsTopic(_)
                    | Change::FillOffsetsTopic
                    | Change::DeleteTopic(_)
                    | Change::SetConfigs { .. }
                    | Change::SetBrokerConfigs(_)
                    | Change::AddPartitions { .. }
            ),
        }
    }

    /// It replaces batches.
    pub fn rewrites(&self) -> bool {
        matches!(self, Self::Change(ChangeJob { change: Change::Rewrite(_), .. }))
    }

    /// Bytes of batches that it writes: of all, and of the largest. `told`: what groups hold is written to a topic too.
    fn batch_bytes(&self, told: bool) -> (usize, usize) {
        match self {
            Self::Step(step) => {
                let sizes = || step.appends.iter().flat_map(|(_, batches)| batches).map(|batch| batch.bytes.len());
                (sizes().sum(), sizes().max().unwrap_or(0))
            }
            Self::Change(job) => match job.change {
                Change::Group(_) | Change::Transaction(_) if told => (job.change.size(), job.change.size()),
                Change::FillOffsetsTopic => (offsets_topic::PIECE_BYTES, offsets_topic::PIECE_BYTES),
                _ => (0, 0),
            },
        }
    }

    /// What it takes of a disk that is nearly full. Steps without records that are as small as this are progress alone.
    fn weight(&self) -> Weight {
        const SMALL_BYTES: usize = 64 << 10;
        match self {
            Self::Step(step) if !step.appends.is_empty() || step.bytes > SMALL_BYTES => Weight::Bulk,
            Self::Step(step) if !step.delete_topics.is_empty() => Weight::Deletion,
            Self::Step(_) => Weight::Small,
            Self::Change(job) => match job.change {
                Change::DeleteTopic(_) | Change::MoveStart { .. } | Change::ForgetProducers { .. } => Weight::Deletion,
                Change::Rewrite(ref rewrite) if rewrite.is_move() => Weight::Deletion,
                Change::CreateTopic(_)
                | Change::CreateOffsetsTopic(_)
                | Change::FillOffsetsTopic
                | Change::AddPartitions { .. }
                | Change::Rewrite(_) => Weight::Bulk,
                Change::SetConfigs { .. }
                | Change::SetBrokerConfigs(_)
                | Change::AllocateProducerId
                | Change::Group(_)
                | Change::Security(_)
                | Change::Transaction(_) => Weight::Small,
            },
        }
    }

    /// Somebody deletes by it, which gives space back once it is written.
    fn deletes(&self) -> bool {
        self.weight() == Weight::Deletion && !self.rewrites()
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

impl Work {
    /// Whether its batches are so few and small that one fsync of the database is less than what it costs to write them
    /// several times.
    fn is_small(&self, bytes_max: usize, told: bool) -> bool {
        let produced = self.produces.iter().map(|job| (job.batch.bytes.len(), job.batch.bytes.len()));
        let (all, largest) = produced
            .chain(self.jobs.iter().map(|job| job.batch_bytes(told)))
            .fold((0, 0), |(all, largest): (usize, usize), (bytes, one)| (all.saturating_add(bytes), largest.max(one)));
        all <= bytes_max && largest <= bytes_max / INLINE_BATCH_PART
    }
}

/// When whoever writes ends by a panic, nobody waits for an answer that will not come.
struct Clear<'a>(&'a Shared);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the storage's writer ended by a panic: nothing is written until the next start");
            self.0.queue.clear();
        }
    }
}

/// Writes until the queue is closed and empty.
pub fn run(shared: &Shared, stop: &Stop) {
    let _clear = Clear(shared);
    let mut gather = Gather::new(match shared.options.durability {
        Durability::Group => shared.options.gather_wait_max,
        _ => Duration::ZERO,
    });
    let mut writes = 0u64;
    while let Some(work) = shared.queue.take(shared.options.write_bytes_max) {
        let batches = work.produces.len();
        #[allow(clippy::disallowed_methods, reason = "only how long to wait for others")]
        let begun = std::time::Instant::now();
        let mut writer = Writer { shared, progress: &mut shared.progress.lock() };
        writer.make_ready(&work, stop);
        writer.write(work);
        shared.queue.done();
        gather.wrote(batches, begun.elapsed());
        gather.wait(&shared.queue);
        writes += 1;
        if writes.is_multiple_of(PRESSURE_WRITES) {
            shared.step_delay_ms.store(step_delay_ms(shared).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Writes what is queued, if it is little and nobody else writes, on the thread of somebody who waits for it. What cannot be
/// written now is the thread's.
pub fn write_direct(shared: &Shared) {
    if shared.broken.load(Ordering::Relaxed) || shared.mend_due.load(Ordering::Relaxed) {
        return shared.queue.wake();
    }
    if let Some(work) = shared.queue.take_few() {
        let _clear = Clear(shared);
        Writer { shared, progress: &mut shared.progress.lock() }.write(work);
        shared.queue.done();
    }
}

/// Steps give way, so that produced batches are not slowed down on their account.
fn step_delay_ms(shared: &Shared) -> Result<u64> {
    let db = shared.db()?;
    let files = db.property_int_value_cf(family(&db, cf::STATE)?, "rocksdb.num-files-at-level0")?.unwrap_or(0);
    Ok((files.saturating_sub(LEVEL0_FILES_MIN) * 5).min(STEP_DELAY_MS_MAX))
}

/// Where the writing is at.
pub struct Progress {
    counters: Counters,
    recorded: Recorded,
    /// A write has failed and the database was not opened again yet.
    broken: Option<Broken>,
}

impl Progress {
    pub fn new(counters: Counters) -> Self {
        Self { counters, recorded: Recorded::default(), broken: None }
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    progress: &'a mut Progress,
}

/// How far RocksDB's log may be behind what is on disk: the commit records of one log file.
#[derive(Clone, Copy, Default)]
struct Recorded {
    /// RocksDB's log was forced with or after a record in this file.
    file: Option<u32>,
    bytes: u64,
}

struct Broken {
    why: StorageError,
    /// What could not be found out whether it was written, and who waits to hear of it.
    doubt: Option<(Shown, Vec<Answer>)>,
    /// Opening it again showed that it is not what it was.
    hopeless: bool,
}

/// What becomes visible when a pass is written.
struct Shown {
    counters: Counters,
    partitions: HashMap<u64, PendingPartition>,
    created: Vec<Arc<Topic>>,
    deleted: Vec<Arc<Topic>>,
    configs: Option<Arc<ChangedConfigs>>,
    offsets_topic: Option<OffsetsTopic>,
    placed: Placed,
    /// Its commit record lies behind what was placed.
    recorded: bool,
    replaced: Vec<(u32, u64)>,
    survived: Vec<BatchPlace>,
    dead: Option<Dead>,
}

impl Shown {
    /// Counts what was deleted now, as the database will not be held for it.
    fn count_dead(&mut self) {
        if let Some(dead) = self.dead.take()
            && let Ok((files, _)) = dead.count()
        {
            self.replaced.extend(files);
        }
    }
}

/// Why nothing was written, or may have been; and what would have been shown then.
type Failed = (StorageError, Option<Shown>);

impl Writer<'_> {
    /// The thread's before each write: what has failed is mended when it may be.
    fn make_ready(&mut self, work: &Work, stop: &Stop) {
        self.hear_of_failure();
        if self.shared.mend_due.load(Ordering::Relaxed) {
            if self.progress.broken.is_some() {
                self.shared.space.look();
                if !self.shared.space.is_low() {
                    self.mend(stop);
                }
            }
            // Not before: the next time counts from here on.
            self.shared.mend_due.store(false, Ordering::Relaxed);
        }
        if work.jobs.iter().any(Job::deletes) && (self.progress.broken.is_some() || self.shared.space.is_low()) {
            // It cannot wait until there is room: nothing else may ever make some.
            self.shared.space.look();
            self.shared.reserve.give_up(self.shared.space.free());
            if self.progress.broken.is_some() {
                self.mend(stop);
            }
        }
        if self.progress.broken.is_none() {
            log_space::begin_counting_if_asked(self.shared);
        }
    }

    fn hear_of_failure(&mut self) {
        if let Some(why) = self.shared.forced.take_failure()
            && self.progress.broken.is_none()
        {
            self.progress.broken = Some(Broken { why, doubt: None, hopeless: false });
        }
    }

    fn write(&mut self, work: Work) {
        self.hear_of_failure();
        let produces = work.produces.len();
        let mut answers = Vec::with_capacity(produces + work.jobs.len());
        if let Some(broken) = &self.progress.broken {
            refuse(work, &broken.why, &mut answers);
        } else if let Err(failed) = self.write_pass(work, &mut answers) {
            return self.fail(*failed, answers);
        }
        // Batches backwards: a connection waits for the first of its requests, and then finds the answers to all.
        answers.get_mut(..produces).into_iter().for_each(<[Answer]>::reverse);
        for answer in answers {
            answer.give(&Ok(()));
        }
    }

    /// Finds out whether a write that failed is there, so that everybody can be told the truth.
    fn fail(&mut self, (e, shown): Failed, answers: Vec<Answer>) {
        let outcome = Err(e.clone());
        let files = &self.shared.files;
        let Some(mut shown) = shown else {
            files.gave_up();
            return answers.into_iter().for_each(|answer| answer.give(&outcome));
        };
        shown.count_dead();
        files.begin_another();
        tracing::error!("a write failed, and nothing can be written until the database could be opened again: {e}");
        self.shared.writes_failed.fetch_add(1, Ordering::Relaxed);
        self.shared.broken.store(true, Ordering::Relaxed);
        let mut doubt = None;
        match recovery::last_write(&self.shared.options) {
            // Neither forced to disk nor known to the handle that is read from: it is shown when the database was reopened.
            Ok(last) if last == shown.counters.writes => doubt = Some((shown, answers)),
            Ok(_) => match files.take_back(shown.placed) {
                Err(why) if shown.recorded => {
                    tracing::error!("it cannot be told yet whether that write will be there: {why}");
                    doubt = Some((shown, answers));
                }
                _ => {
                    files.gave_up();
                    answers.into_iter().for_each(|answer| answer.give(&outcome));
                }
            },
            Err(why) => {
                tracing::error!("it cannot be found out yet whether that write is there: {why}");
                doubt = Some((shown, answers));
            }
        }
        self.progress.broken = Some(Broken { why: e, doubt, hopeless: false });
    }

    /// Opens the database again.
    fn mend(&mut self, stop: &Stop) {
        if self.progress.broken.as_ref().is_some_and(|b| b.hopeless) {
            return;
        }
        let last = match recovery::reopen(self.shared, stop, self.progress.counters.writes) {
            Ok(last) => last,
            Err(e) => return tracing::error!("the database cannot be opened again yet: {e}"),
        };
        let Some(broken) = self.progress.broken.take() else { return };
        match broken.doubt {
            Some((shown, answers)) if last == shown.counters.writes => {
                self.publish(shown);
                self.shared.forced.shows_more(false);
                answers.into_iter().for_each(|answer| answer.give(&Ok(())));
            }
            _ if last != self.progress.counters.writes => {
                let why =
                    "the database does not end with what was written last: it can only be read until it is looked into";
                tracing::error!("{why}");
                self.progress.broken =
                    Some(Broken { why: StorageError::Unavailable(why.into()), doubt: None, hopeless: true });
                return;
            }
            doubt => {
                self.shared.forced.shows_more(false);
                self.shared.files.gave_up();
                let outcome = Err(broken.why);
                if let Some((shown, answers)) = doubt {
                    if let Err(e) = self.shared.files.take_back(shown.placed) {
                        tracing::warn!("{e}");
                    }
                    answers.into_iter().for_each(|answer| answer.give(&outcome));
                }
            }
        }
        // What was read back lies in new files, all of which were forced to disk; batches were written again and forced.
        if let Err(e) = log_space::begin_counting(self.shared) {
            tracing::error!("deleted space of log files is not given back until the next start: {e}");
        }
        self.shared.forced.good(self.progress.counters.sequence);
        self.shared.notes.wrote(self.progress.counters.writes, true);
        self.shared.broken.store(false, Ordering::Relaxed);
        tracing::info!("the database is open again: writing goes on");
    }

    fn write_pass(&mut self, work: Work, answers: &mut Vec<Answer>) -> Result<(), Box<Failed>> {
        let db = match self.shared.db() {
            Ok(db) => db,
            Err(e) => {
                refuse(work, &e, answers);
                return Ok(());
            }
        };
        self.write_to(&db, work, answers)
    }

    fn write_to(&mut self, db: &Arc<DB>, work: Work, answers: &mut Vec<Answer>) -> Result<(), Box<Failed>> {
        let families = Families::of(db).map_err(|e| Box::new((e, None)))?;
        let files = &self.shared.files;
        let offsets_topic = self.shared.offsets_topic.lock().clone();
        let small = work.is_small(self.shared.options.inline_bytes_max, offsets_topic.is_some());
        let produced: usize = work.produces.iter().map(|job| job.batch.bytes.len()).sum();
        let in_database = if small { work.bytes } else { work.bytes.saturating_sub(produced) };
        let mut pass = Pass {
            shared: self.shared,
            families,
            batch: WriteBatch::with_capacity_bytes(in_database + ENTRIES_BYTES),
            now_ms: self.shared.options.clock.now_ms(),
            counters: self.progress.counters,
            partitions: HashMap::new(),
            created: Vec::new(),
            deleted: Vec::new(),
            configs: None,
            offsets_topic,
            placing: (!small).then(|| files.place()),
            replaced: Vec::new(),
            survived: Vec::new(),
            dead: Vec::new(),
        };
        let space = &self.shared.space;
        for job in work.produces {
            let result = match space.refusal(Weight::Bulk) {
                None => pass.produce(&job.partition, job.batch),
                Some(full) => Err(full),
            };
            answers.push(Answer::Produce(job.answer, result));
        }
        for job in work.jobs {
            let full = space.refusal(job.weight());
            answers.push(match (job, full) {
                (Job::Step(mut step), None) => {
                    let outcome = pass.step(&mut step);
                    Answer::Step(step.answer, outcome)
                }
                (Job::Step(step), Some(full)) => Answer::Step(step.answer, Outcome::Retry(full.to_string())),
                (Job::Change(job), None) => {
                    let result = pass.change(job.change);
                    Answer::Change(job.answer, result)
                }
                (Job::Change(job), Some(full)) => Answer::Change(job.answer, Err(full)),
            });
        }
        if pass.batch.is_empty() {
            files.gave_up();
            return Ok(());
        }
        if pass.counters.sequence != self.progress.counters.sequence {
            let value = pass.counters.sequence.to_be_bytes();
            pass.batch.put_cf(pass.families.meta, keys::counter(Counter::Sequence), value);
        }
        let placing = pass.placing.take();
        // Also which the last file was.
        let nothing = || Placed { file: files.writes_from(), ..Placed::default() };
        let placed = placing.as_ref().map(Placing::placed).filter(|placed| placed.len > 0).unwrap_or_else(nothing);
        // In every write, so that nothing else is taken for it.
        pass.batch.put_cf(pass.families.meta, keys::counter(Counter::Placed), placed.encode());
        pass.counters.writes += 1;
        pass.batch.put_cf(pass.families.meta, keys::counter(Counter::Writes), pass.counters.writes.to_be_bytes());
        let durable = self.shared.options.durability == Durability::Group;
        let mut options = WriteOptions::default();
        let batch = std::mem::take(&mut pass.batch);
        let measures = &self.shared.measures;
        let bytes = batch.size_in_bytes() + placed.len as usize;
        measures.commit_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared.space.wrote(bytes);
        // Where that is not much, it goes behind the batches too, and what forces them to disk is enough.
        let recorded = durable && placed.len > 0 && batch.size_in_bytes() <= commits::RECORD_BYTES_MAX;
        let record = recorded.then(|| commits::encode(pass.counters.writes, batch.data()));
        let unforced =
            self.progress.recorded.bytes + u64::from(placed.len) + record.as_ref().map_or(0, |r| r.len() as u64);
        let enough =
            recorded && self.progress.recorded.file == Some(placed.file) && unforced <= commits::UNFORCED_BYTES_MAX;
        options.set_sync(durable && !enough);
        let Pass { counters, partitions, created, deleted, configs, offsets_topic, replaced, survived, dead, .. } =
            pass;
        let snapshot = || OwnedSnapshot::new(db.clone(), |db| db.snapshot());
        let dead = (!dead.is_empty()).then(|| Dead { snapshot: snapshot(), ranges: dead });
        let shown = Shown {
            counters,
            partitions,
            created,
            deleted,
            configs,
            offsets_topic,
            placed,
            recorded,
            replaced,
            survived,
            dead,
        };
        #[allow(clippy::disallowed_methods, reason = "only how long a write took is told")]
        let begun = std::time::Instant::now();
        // Where the order matters: what names the batches is never on disk without them.
        let appended = match &placing {
            Some(placing) if placed.len > 0 => files.append(placing, record, durable),
            _ => Ok(()),
        };
        let written = appended.and_then(|()| Ok(db.write_opt(batch, &options)?));
        measures.commits.count(begun.elapsed());
        match written {
            Ok(()) => {
                self.progress.recorded = match (enough, recorded) {
                    (true, _) => Recorded { bytes: unforced, ..self.progress.recorded },
                    (false, true) => Recorded { file: Some(placed.file), bytes: 0 },
                    (false, false) => Recorded { bytes: 0, ..self.progress.recorded },
                };
                self.publish(shown);
                Ok(())
            }
            Err(e) => {
                self.progress.recorded = Recorded::default();
                Err(Box::new((e, Some(shown))))
            }
        }
    }

    /// Shows what was written.
    fn publish(&mut self, shown: Shown) {
        let options = &self.shared.options;
        let Shown {
            counters,
            partitions,
            created,
            deleted,
            configs,
            offsets_topic,
            placed,
            replaced,
            survived,
            dead,
            ..
        } = shown;
        self.progress.counters = counters;
        // Before what it deleted is told: a file that this write has emptied goes only when this write is on disk.
        self.shared.written.store(counters.writes, Ordering::Release);
        self.shared.files.wrote(placed);
        self.shared.files.survived(&survived);
        replaced.into_iter().for_each(|(file, bytes)| self.shared.files.deleted(file, bytes));
        if let Some(dead) = dead {
            log_space::deleted(self.shared, dead);
        }
        self.shared.notes.wrote(counters.writes, options.durability == Durability::Group);
        if let Some(configs) = configs {
            self.shared.set_configs(configs);
        }
        *self.shared.offsets_topic.lock() = offsets_topic;
        if !created.is_empty() || !deleted.is_empty() {
            let mut topics = self.shared.topics.write();
            for topic in &deleted {
                topics.remove(topic.id);
            }
            for topic in created {
                topics.insert(topic);
            }
        }
        let mut tails = self.shared.tails.lock();
        for partition in deleted.iter().flat_map(|t| &t.partitions) {
            let mut log = partition.log.lock();
            log.gone = true;
            drop(log);
            tails.drop_tail(partition);
            partition.producers.lock().clear();
            partition.wake();
        }
        let mut topics = Vec::new();
        for pending in partitions.into_values() {
            let partition = &pending.partition;
            let moved = pending.end != pending.first || pending.start.is_some();
            let mut log = partition.log.lock();
            log.end = pending.end;
            log.open = pending.open;
            log.transactions = pending.transactions;
            for rewritten in &pending.rewritten {
                rewritten.show(&mut log);
                log.rewrites += 1;
                tails.cut(&mut log, rewritten.last);
            }
            pending.closed.into_iter().for_each(|closed| log.segments.push(closed));
            if let Some(start) = pending.start {
                move_start(&mut log, start);
            }
            if pending.epoch_began {
                log.epochs.push((self.shared.epoch, pending.first));
            }
            let (max, unread_max) = (options.tail_partition_bytes, options.tail_unread_bytes);
            tails.add(partition, &mut log, pending.appended, max, unread_max);
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
                topics.push(partition.place.topic);
                partition.wake();
            }
        }
        tails.shrink_to(options.tail_bytes);
        drop(tails);
        if counters.sequence != self.shared.sequence() {
            self.shared.publish(counters.sequence, topics);
        }
    }
}

fn refuse(work: Work, why: &StorageError, answers: &mut Vec<Answer>) {
    answers.extend(work.produces.into_iter().map(|j| Answer::Produce(j.answer, Err(why.clone()))));
    answers.extend(work.jobs.into_iter().map(|j| match j {
        Job::Step(step) => Answer::Step(step.answer, Outcome::Retry(why.to_string())),
        Job::Change(job) => Answer::Change(job.answer, Err(why.clone())),
    }));
}

fn move_start(log: &mut LogState, start: Offset) {
    log.start = start;
    while log.segments.front().is_some_and(|s| s.last < start) {
        log.segments.pop_oldest();
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

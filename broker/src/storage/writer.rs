//! The one thread that writes: gives offsets and sequences, writes once for all that came together, then shows it.
//!
//! Everything a pass would change is kept beside what is visible until the write is done, so a write that fails leaves
//! nothing behind: no offset, no sequence, no producer state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use millpond_types::ports::{Outcome, Writes};
use millpond_types::{Offset, TopicId};
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::partition::{LogState, Partition};
use super::pass::{Families, Pass};
use super::shared::{Counters, Shared, family};
use super::tails::Tails;
use super::topics::NewTopic;
use super::{Appended, Durability, Result, TransactionWrite};
use crate::batch::ValidBatch;
use crate::configs::ChangedConfigs;
use crate::keys::{self, Counter, cf};

/// RocksDB is asked how far it is behind once in so many writes.
const PRESSURE_WRITES: u64 = 64;
/// Files in level 0 from which steps wait, well before RocksDB slows every write down (at 20).
const LEVEL0_FILES_MIN: u64 = 12;
const STEP_DELAY_MS_MAX: u64 = 50;
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
}

impl Change {
    pub fn size(&self) -> usize {
        match self {
            Self::Group(entries) | Self::Security(entries) => size_of_all(entries),
            Self::Transaction(write) => {
                let markers = write.ending.as_ref().map_or(0, |ending| ending.partitions.len());
                size_of_all(&write.entries) + (markers + write.added.len()) * PARTITION_COST
            }
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
    pub fn changes_topics(&self) -> bool {
        match self {
            Self::Step(step) => !step.create_topics.is_empty() || !step.delete_topics.is_empty(),
            Self::Change(job) => matches!(
                job.change,
                Change::CreateTopic(_)
                    | Change::DeleteTopic(_)
                    | Change::SetConfigs { .. }
                    | Change::SetBrokerConfigs(_)
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
            configs: None,
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
        let Pass { counters, partitions, created, deleted, configs, .. } = pass;
        self.counters = counters;
        if let Some(configs) = configs {
            self.shared.set_configs(configs);
        }
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
        let mut topics = Vec::new();
        for pending in partitions.into_values() {
            let partition = &pending.partition;
            let moved = pending.end != pending.first || pending.start.is_some();
            let mut log = partition.log.lock();
            log.end = pending.end;
            log.open = pending.open;
            log.transactions = pending.transactions;
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
                topics.push(partition.place.topic);
                partition.wake();
            }
        }
        self.tails.shrink_to(options.tail_bytes);
        self.shared.tail_used.store(self.tails.cost(), Ordering::Relaxed);
        if counters.sequence != self.shared.sequence() {
            self.shared.publish(counters.sequence, topics);
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

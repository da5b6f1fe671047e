//! One write in the making: what jobs put into the batch, and what partitions become when it is written.
//!
//! A job is checked whole before anything of it is put. Jobs of one write see each other through the pending state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use millpond_types::ports::{Outcome, TopicInfo};
use millpond_types::{Offset, Sequence, TopicId, TopicPartition};
use rocksdb::{ColumnFamily, DB, WriteBatch};

use super::compaction::Rewritten;
use super::error::StorageError;
use super::log_files::Placing;
use super::offsets_topic::OffsetsTopic;
use super::partition::{Aborted, LogState, Partition, Segment, Settled, StoredBatch, Transactions};
use super::producers::{self, Producer};
use super::shared::{Counters, Shared, family};
use super::topics::{NewTopic, Topic};
use super::writer::{Change, StepJob};
use super::{Appended, Result, TransactionWrite};
use crate::batch::{BatchHeader, ValidBatch, control_batch, patch_place, stamp_time};
use crate::configs::{ChangedConfigs, TopicSettings, topic_settings};
use crate::keys::{self, BATCH_PREFIX_LEN, BatchPlace, Counter, Kind, cf};

pub struct Families<'a> {
    pub meta: &'a ColumnFamily,
    pub log: &'a ColumnFamily,
    pub index: &'a ColumnFamily,
    producer: &'a ColumnFamily,
    pub group: &'a ColumnFamily,
    catalog: &'a ColumnFamily,
    state: &'a ColumnFamily,
}

impl<'a> Families<'a> {
    pub fn of(db: &'a DB) -> Result<Self> {
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
pub struct Pass<'a> {
    pub shared: &'a Shared,
    pub families: Families<'a>,
    pub batch: WriteBatch,
    pub now_ms: i64,
    pub counters: Counters,
    pub partitions: HashMap<u64, PendingPartition>,
    /// New topics, and those that replace one with the same id.
    pub created: Vec<Arc<Topic>>,
    pub deleted: Vec<Arc<Topic>>,
    /// The broker's settings from now on, where they change.
    pub configs: Option<Arc<ChangedConfigs>>,
    /// The topic that changes of groups are written to.
    pub offsets_topic: Option<OffsetsTopic>,
    /// Batches go to a log file; `None`: all of this write together are so small that they go into the database.
    pub placing: Option<Placing>,
    /// Batches in log files that are replaced or deleted one by one: the file, and their bytes.
    pub replaced: Vec<(u32, u64)>,
    /// Batches that lie elsewhere now.
    pub survived: Vec<BatchPlace>,
    /// Keys of batches that are deleted together, each from one on to before another.
    pub dead: Vec<([u8; 17], [u8; 17])>,
}

/// What a partition becomes when the write is done.
pub struct PendingPartition {
    pub partition: Arc<Partition>,
    pub gone: bool,
    pub first: Offset,
    pub end: Offset,
    pub start_now: Offset,
    pub start: Option<Offset>,
    pub open: Option<Segment>,
    pub closed: Vec<Segment>,
    pub rewritten: Vec<Rewritten>,
    pub appended: Vec<StoredBatch>,
    pub producers: HashMap<i64, Option<Producer>>,
    pub transactions: Transactions,
    pub epoch_known: bool,
    pub epoch_began: bool,
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
            rewritten: Vec::new(),
            appended: Vec::new(),
            producers: HashMap::new(),
            transactions: log.transactions.clone(),
            epoch_known: log.epochs.last().is_some_and(|(last, _)| *last == epoch),
            epoch_began: false,
        }
    }

    fn stable_end(&self) -> Offset {
        self.transactions.stable_end(self.start.unwrap_or(self.start_now), self.end)
    }
}

pub(super) fn pending<'p>(
    partitions: &'p mut HashMap<u64, PendingPartition>,
    partition: &Arc<Partition>,
    epoch: i32,
) -> &'p mut PendingPartition {
    partitions.entry(partition.uid).or_insert_with(|| PendingPartition::of(partition, epoch))
}

impl Pass<'_> {
    pub fn produce(&mut self, partition: &Arc<Partition>, batch: ValidBatch) -> Result<Appended> {
        let header = batch.header;
        let now_ms = self.now_ms;
        let log_append_time_ms = if header.is_log_append_time() { now_ms } else { -1 };
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
        if let Some(first) = after.open_from() {
            entry.transactions.open.insert(first, header.producer_id);
        }
        let evicted = match producer {
            Some(_) => None,
            None => idle_longest(&known, &entry.producers, self.shared.options.partition_producers_max),
        };
        drop(known);
        self.put_producer(partition, header.producer_id, after, evicted);
        let (base_offset, last_offset, sequence) = self.append(partition, batch);
        Ok(Appended { base_offset, last_offset, log_append_time_ms, log_start_offset, duplicate: false, sequence })
    }

    /// Puts a batch at the partition's end; returns its base offset, last offset and sequence.
    pub(super) fn append(&mut self, partition: &Arc<Partition>, batch: ValidBatch) -> (Offset, Offset, Sequence) {
        let ValidBatch { mut bytes, mut header, .. } = batch;
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        self.counters.sequence += 1;
        let sequence = self.counters.sequence;
        let base = entry.end;
        let last = base + i64::from(header.last_offset_delta);
        let stored = bytes.get_mut(BATCH_PREFIX_LEN..).unwrap_or_default();
        patch_place(stored, base, self.shared.epoch);
        // Who checked it may have waited for room since, longer than those that are before it now.
        if header.is_log_append_time() && header.max_timestamp != self.now_ms {
            header.max_timestamp = self.now_ms;
            stamp_time(stored, self.now_ms);
        }
        let key = keys::batch(partition.uid, last);
        let written =
            put_batch(&mut self.batch, self.families.log, &mut self.placing, &key, bytes, (&header, sequence));
        if !entry.epoch_known {
            let key = keys::epoch_start(partition.uid, self.shared.epoch);
            self.batch.put_cf(self.families.meta, key, base.to_be_bytes());
            entry.epoch_known = true;
            entry.epoch_began = true;
        }
        entry.end = last + 1;
        let size = written.len();
        if let Some(old) = entry.open.filter(|open| partition.is_old(open, self.now_ms)) {
            self.batch.put_cf(self.families.index, keys::segment(partition.uid, old.last), old.encode());
            entry.closed.push(old);
            entry.open = None;
        }
        let open = match &mut entry.open {
            Some(open) => {
                open.add(last, header.max_timestamp, self.now_ms, size);
                open
            }
            none => none.insert(Segment::starting_with(base, last, header.max_timestamp, self.now_ms, size)),
        };
        if partition.is_full(open, self.shared.options.segment_bytes) {
            self.batch.put_cf(self.families.index, keys::segment(partition.uid, last), open.encode());
            entry.closed.push(*open);
            entry.open = None;
        }
        entry.appended.push(StoredBatch::new(last, sequence, written));
        (base, last, sequence)
    }

    /// Partitions become part of a transaction, or it ends in all of them, together with what the coordinator says of
    /// it. Checked whole before anything is put.
    fn transaction(&mut self, write: TransactionWrite) -> Result<()> {
        let mut added = Vec::with_capacity(write.added.len());
        for place in &write.added {
            let partition = self.shared.partition(*place)?;
            if pending(&mut self.partitions, &partition, self.shared.epoch).gone {
                return Err(StorageError::unknown_partition(*place));
            }
            added.push(partition);
        }
        for partition in added {
            self.add_to_transaction(&partition, &write);
        }
        if let Some(ending) = &write.ending {
            for place in &ending.partitions {
                // A topic that was deleted meanwhile needs no marker.
                if let Ok(partition) = self.shared.partition(*place) {
                    self.end_transaction(&partition, write.producer_id, write.producer_epoch, ending.commit);
                }
            }
        }
        self.put_group(write.entries);
        Ok(())
    }

    fn add_to_transaction(&mut self, partition: &Arc<Partition>, write: &TransactionWrite) {
        let id = write.producer_id;
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        let known = partition.producers.lock();
        let producer = match entry.producers.get(&id) {
            Some(pending) => pending.as_ref(),
            None => known.get(&id),
        };
        let evicted = match producer {
            Some(_) => None,
            None => idle_longest(&known, &entry.producers, self.shared.options.partition_producers_max),
        };
        let after = Producer::added(producer, write.producer_epoch, !write.by_produce, self.now_ms);
        drop(known);
        self.put_producer(partition, id, after, evicted);
    }

    /// Appends the marker and makes stable what it decides.
    fn end_transaction(&mut self, partition: &Arc<Partition>, id: i64, epoch: i16, commit: bool) {
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        let known = partition.producers.lock();
        let producer = match entry.producers.get(&id) {
            Some(pending) => pending.as_ref(),
            None => known.get(&id),
        };
        let Some((producer, _)) = producer.and_then(|p| Some((p, p.open?))).filter(|_| !entry.gone) else { return };
        let first = producer.open_from();
        let after = producer.ended(epoch, self.shared.epoch, self.now_ms);
        drop(known);
        let stable_before = entry.stable_end();
        self.put_producer(partition, id, after, None);
        let marker = control_batch(id, epoch, commit, self.now_ms, self.shared.epoch, BATCH_PREFIX_LEN);
        let (_, marker, sequence) = self.append(partition, marker);
        let Some(first) = first else { return };
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        entry.transactions.open.remove(&first);
        let stable_end = entry.stable_end();
        if !commit {
            let aborted = Aborted { producer_id: id, first, marker, stable_end };
            self.batch.put_cf(self.families.index, keys::aborted(partition.uid, marker), aborted.encode());
            entry.transactions.aborted_to = marker;
        }
        if stable_end > stable_before {
            let settled = Settled { first: stable_before, last: stable_end - 1, sequence };
            self.batch.put_cf(self.families.index, keys::settled(partition.uid, settled.last), settled.encode());
            entry.transactions.settled_to = settled.last;
        }
    }

    /// Puts what is known of a producer from now on; another one may have to make room.
    fn put_producer(&mut self, partition: &Arc<Partition>, id: i64, producer: Producer, evicted: Option<i64>) {
        let family = self.families.producer;
        let entry = pending(&mut self.partitions, partition, self.shared.epoch);
        if let Some(evicted) = evicted {
            self.batch.delete_cf(family, keys::producer(partition.uid, evicted));
            entry.producers.insert(evicted, None);
        }
        self.batch.put_cf(family, keys::producer(partition.uid, id), producer.encode());
        entry.producers.insert(id, Some(producer));
    }

    fn put_group(&mut self, entries: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        if self.offsets_topic.is_some() {
            self.tell_offsets_topic(&entries);
        }
        for (key, value) in entries {
            let key = keys::prefixed(Kind::Group, &key);
            match value {
                Some(value) => self.batch.put_cf(self.families.group, key, value),
                None => self.batch.delete_cf(self.families.group, key),
            }
        }
    }

    /// Checks a step whole, then puts all of it.
    pub fn step(&mut self, step: &mut StepJob) -> Outcome {
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
            match self.create_topic(new) {
                Ok(topic) => created.push(topic.info()),
                // Its settings were checked before.
                Err(e) => return Outcome::Fatal(e.to_string()),
            }
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
        for (key, value) in step.state.iter() {
            match value {
                Some(value) => self.batch.put_cf(self.families.state, key, value),
                None => self.batch.delete_cf(self.families.state, key),
            }
        }
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

    pub fn change(&mut self, change: Change) -> Result<i64> {
        match change {
            Change::CreateTopic(new) => {
                self.shared.check_new_topics(std::slice::from_ref(&new))?;
                self.create_topic(new)?;
            }
            Change::DeleteTopic(id) => {
                let topic = self.shared.topic(id)?;
                self.delete_topic(topic);
            }
            Change::CreateOffsetsTopic(new) => self.create_offsets_topic(new)?,
            Change::FillOffsetsTopic => self.fill_offsets_topic()?,
            Change::SetConfigs { id, configs } => {
                let topic = self.shared.topic(id)?;
                let settings = self.settings(&configs)?;
                self.put_topic(Topic {
                    id,
                    name: topic.name.clone(),
                    replicas: topic.replicas,
                    configs,
                    settings,
                    partitions: topic.partitions.clone(),
                });
            }
            Change::SetBrokerConfigs(configs) => self.set_broker_configs(configs)?,
            Change::AddPartitions { id, total } => self.add_partitions(id, total)?,
            Change::MoveStart { partition, before, strict } => return self.move_start(&partition, before, strict),
            Change::ForgetProducers { partition, unused_since_ms } => {
                let entry = pending(&mut self.partitions, &partition, self.shared.epoch);
                for (id, producer) in &*partition.producers.lock() {
                    if producer.used_ms < unused_since_ms
                        && producer.open.is_none()
                        && !entry.producers.contains_key(id)
                    {
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
            Change::Group(entries) => self.put_group(entries),
            Change::Security(entries) => put_all(&mut self.batch, self.families.meta, &entries),
            Change::Transaction(write) => self.transaction(*write)?,
            Change::Rewrite(rewrite) => self.rewrite(*rewrite)?,
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

    fn settings(&self, configs: &BTreeMap<String, String>) -> Result<TopicSettings> {
        topic_settings(configs, &self.shared.configs()).map_err(StorageError::InvalidConfig)
    }

    /// All topics take their defaults anew.
    fn set_broker_configs(&mut self, configs: ChangedConfigs) -> Result<()> {
        let topics: Vec<Arc<Topic>> = self.shared.topics.read().by_id.values().cloned().collect();
        let mut changed = Vec::with_capacity(topics.len());
        for topic in topics {
            let settings = topic_settings(&topic.configs, &configs).map_err(StorageError::InvalidConfig)?;
            changed.push(Arc::new(Topic {
                id: topic.id,
                name: topic.name.clone(),
                replicas: topic.replicas,
                configs: topic.configs.clone(),
                settings,
                partitions: topic.partitions.clone(),
            }));
        }
        self.batch.put_cf(self.families.meta, keys::broker_configs(), configs.encode());
        self.created.extend(changed);
        self.configs = Some(Arc::new(configs));
        Ok(())
    }

    pub(super) fn create_topic(&mut self, new: NewTopic) -> Result<Arc<Topic>> {
        let settings = self.settings(&new.spec.configs)?;
        let id = TopicId(*uuid::Uuid::new_v4().as_bytes());
        let partitions = self.new_partitions(id, 0, new.spec.partitions);
        Ok(self.put_topic(Topic {
            id,
            name: new.spec.name,
            replicas: new.spec.replicas,
            configs: new.spec.configs,
            settings,
            partitions,
        }))
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
        self.forget_offsets_topic(&topic);
        self.batch.delete_cf(self.families.meta, keys::topic(topic.id));
        for partition in &topic.partitions {
            let uid = partition.uid;
            for (family, kind) in [
                (self.families.log, Kind::Batch),
                (self.families.index, Kind::Segment),
                (self.families.index, Kind::Aborted),
                (self.families.index, Kind::Settled),
                (self.families.producer, Kind::Producer),
            ] {
                let (from, to) = keys::partition_range(kind, uid);
                self.batch.delete_range_cf(family, from, to);
            }
            self.dead.push(keys::partition_range(Kind::Batch, uid));
            let epochs = (keys::epoch_start(uid, 0), keys::epoch_start(uid.wrapping_add(1), 0));
            self.batch.delete_range_cf(self.families.meta, epochs.0, epochs.1);
            self.batch.delete_cf(self.families.meta, keys::log_start(uid));
            self.batch.delete_cf(self.families.meta, keys::compacted(uid));
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
        // Retention leaves what is undecided alone; whoever deletes by hand may have all.
        let end = if strict { end } else { entry.transactions.stable_end(now, end).min(end) };
        let start = if before == -1 { end } else { before.min(end) };
        if start <= now {
            return Ok(now);
        }
        entry.start = Some(start);
        let uid = partition.uid;
        self.batch.put_cf(self.families.meta, keys::log_start(uid), start.to_be_bytes());
        let dead = (keys::batch(uid, now), keys::batch(uid, start));
        self.batch.delete_range_cf(self.families.log, dead.0, dead.1);
        self.dead.push(dead);
        self.batch.delete_range_cf(self.families.index, keys::segment(uid, now), keys::segment(uid, start));
        if entry.transactions.aborted_to >= 0 {
            self.batch.delete_range_cf(self.families.index, keys::aborted(uid, now), keys::aborted(uid, start));
        }
        if entry.transactions.settled_to >= 0 {
            self.batch.delete_range_cf(self.families.index, keys::settled(uid, now), keys::settled(uid, start));
        }
        let log = partition.log.lock();
        let current = log.epochs.partition_point(|(_, first)| *first <= start);
        for (epoch, _) in log.epochs.iter().take(current.saturating_sub(1)) {
            self.batch.delete_cf(self.families.meta, keys::epoch_start(uid, *epoch));
        }
        Ok(start)
    }
}

/// Puts a batch, for which there is room before it for the prefix, under its key; returns it alone.
fn put_batch(
    write: &mut WriteBatch,
    log: &ColumnFamily,
    placing: &mut Option<Placing>,
    key: &[u8],
    mut bytes: Vec<u8>,
    (header, sequence): (&BatchHeader, Sequence),
) -> Bytes {
    if placing.is_none() {
        keys::put_batch_prefix(&mut bytes, sequence);
        write.put_cf(log, key, &bytes);
    }
    let mut batch = Bytes::from(bytes);
    let _prefix = batch.split_to(BATCH_PREFIX_LEN.min(batch.len()));
    if let Some(placing) = placing {
        let place = placing.add(&batch, sequence, header.last_offset_delta, header.max_timestamp);
        write.put_cf(log, key, place.encode());
    }
    batch
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
    let idle = known.iter().filter(|(id, producer)| producer.open.is_none() && !pending.contains_key(id));
    idle.min_by_key(|(_, producer)| producer.used_ms).map(|(id, _)| *id)
}

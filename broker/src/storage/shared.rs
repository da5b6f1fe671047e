//! What the storage's callers and threads share: the database, the topics, the queue, and what is visible.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_types::ports::{Cursor, TopicSpec};
use millpond_types::{Sequence, TopicId, TopicPartition};
use parking_lot::{Condvar, Mutex, RwLock};
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::directory::Claim;
use super::error::StorageError;
use super::flush::{Failures, flush, waiting_bytes};
use super::forced::{Forced, in_doubt};
use super::log_files::LogFiles;
use super::log_space::{self, LogSpace};
use super::measures::Measures;
use super::note::Notes;
use super::offsets_topic::OffsetsTopic;
use super::partition::Partition;
use super::queue::Queue;
use super::read_ahead::ReadAhead;
use super::recovery;
use super::reserve::Reserve;
use super::salvage;
use super::space::Space;
use super::tails::Tails;
use super::topics::{NewTopic, Topic, TopicTable};
use super::writer::{Change, ChangeJob, Progress};
use super::{Durability, Result, StorageOptions};
use crate::configs::ChangedConfigs;
use crate::keys::{self, Counter, Kind, cf};

/// A flush writes at least so much when memtables are small.
const MEMTABLE_BYTES_LEAST: u64 = 4 << 20;

/// A change without bytes of its own counts as so many in the produce queue.
const CHANGE_COST: usize = 256;
/// Until the database is opened again.
const UNLIMITED_MEMTABLES: [(&str, &str); 1] = [("max_write_buffer_number", "64")];

pub struct Shared {
    pub options: StorageOptions,
    pub cluster_id: String,
    pub node_id: i32,
    pub epoch: i32,
    pub topics: RwLock<TopicTable>,
    configs: RwLock<Arc<ChangedConfigs>>,
    /// Changed by the writer alone.
    pub offsets_topic: Mutex<Option<OffsetsTopic>>,
    /// Of whoever has taken work from the queue.
    pub progress: Mutex<Progress>,
    pub published: watch::Sender<Sequence>,
    visible: Mutex<Sequence>,
    moved: Mutex<MovedTopics>,
    visible_moved: Condvar,
    pub queue: Queue,
    produce_room: Arc<Semaphore>,
    /// How long a step waits before it is queued, because RocksDB is behind with its compactions.
    pub step_delay_ms: AtomicU64,
    pub measures: Measures,
    pub tails: Mutex<Tails>,
    pub read_ahead: ReadAhead,
    /// Bytes deleted of partitions, by uid, whose space the disk did not get back yet.
    pub reclaim: Mutex<HashMap<u64, u64>>,
    /// Held by whoever compacts, so that the memory for it is taken once.
    pub compacting: Mutex<()>,
    pub space: Space,
    pub files: Arc<LogFiles>,
    pub log_space: LogSpace,
    /// A write or a force has failed, and the database takes no more.
    pub broken: AtomicBool,
    pub writes_failed: AtomicU64,
    pub forced: Forced,
    pub flush_failures: Failures,
    pub notes: Notes,
    /// Number of the last write that is shown.
    pub written: AtomicU64,
    /// The writer is to try to open the database again, or does so.
    pub mend_due: AtomicBool,
    database: RwLock<Option<Arc<DB>>>,
    claim: Mutex<Option<Claim>>,
    pub reserve: Reserve,
}

/// The latest writes by topic, so that only those are woken who read it.
struct MovedTopics {
    latest: VecDeque<(Sequence, TopicId)>,
    /// Up to here they are not known any more.
    forgotten: Sequence,
}

/// Writes that are remembered; whoever is further behind looks everywhere.
const MOVED_TOPICS_MAX: usize = 4096;

impl MovedTopics {
    fn add(&mut self, sequence: Sequence, topic: TopicId) {
        match self.latest.back_mut() {
            Some(last) if last.1 == topic => last.0 = sequence,
            _ => self.latest.push_back((sequence, topic)),
        }
        if self.latest.len() > MOVED_TOPICS_MAX
            && let Some((gone, _)) = self.latest.pop_front()
        {
            self.forgotten = gone;
        }
    }

    fn since(&self, sequence: Sequence) -> Option<Vec<TopicId>> {
        if sequence < self.forgotten {
            return None;
        }
        let mut topics: Vec<TopicId> =
            self.latest.iter().rev().take_while(|(at, _)| *at > sequence).map(|(_, topic)| *topic).collect();
        topics.sort_unstable();
        topics.dedup();
        Some(topics)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub partition_uid: u64,
    pub producer_id: u64,
    pub sequence: Sequence,
    pub writes: u64,
}

/// What was found at open.
pub struct Found {
    pub cluster_id: String,
    pub node_id: i32,
    pub epoch: i32,
    pub topics: TopicTable,
    pub configs: ChangedConfigs,
    pub offsets_topic: Option<OffsetsTopic>,
    pub counters: Counters,
}

pub fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily> {
    db.cf_handle(name).ok_or_else(|| StorageError::Corrupt(format!("the column family \"{name}\" is missing")))
}

impl Shared {
    pub fn new(
        options: StorageOptions,
        found: Found,
        database: DB,
        files: Arc<LogFiles>,
        claim: Claim,
        notes: Notes,
        reserve: Reserve,
    ) -> Self {
        let (sequence, read_ahead_bytes) = (found.counters.sequence, options.read_ahead_bytes);
        let room = options.produce_queue_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            queue: Queue::new(options.step_queue_bytes, options.durability != Durability::Group),
            space: Space::new(options.path.clone(), options.disk_free_bytes_min),
            options,
            files,
            log_space: LogSpace::default(),
            cluster_id: found.cluster_id,
            node_id: found.node_id,
            epoch: found.epoch,
            topics: RwLock::new(found.topics),
            configs: RwLock::new(Arc::new(found.configs)),
            offsets_topic: Mutex::new(found.offsets_topic),
            progress: Mutex::new(Progress::new(found.counters)),
            published: watch::Sender::new(sequence),
            visible: Mutex::new(sequence),
            moved: Mutex::new(MovedTopics { latest: VecDeque::new(), forgotten: sequence }),
            visible_moved: Condvar::new(),
            produce_room: Arc::new(Semaphore::new(room)),
            step_delay_ms: AtomicU64::new(0),
            measures: Measures::default(),
            tails: Mutex::default(),
            read_ahead: ReadAhead::new(read_ahead_bytes),
            reclaim: Mutex::new(HashMap::new()),
            compacting: Mutex::new(()),
            broken: AtomicBool::new(false),
            writes_failed: AtomicU64::new(0),
            forced: Forced::new(sequence),
            flush_failures: Failures::default(),
            notes,
            written: AtomicU64::new(found.counters.writes),
            mend_due: AtomicBool::new(false),
            database: RwLock::new(Some(Arc::new(database))),
            claim: Mutex::new(Some(claim)),
            reserve,
        }
    }

    pub fn db(&self) -> Result<Arc<DB>> {
        self.database.read().clone().ok_or(StorageError::Closed)
    }

    /// Has everybody who comes from now on use another handle of the database; returns the one before.
    pub fn replace_db(&self, new: Arc<DB>) -> Result<Arc<DB>> {
        let mut database = self.database.write();
        let old = database.take().ok_or(StorageError::Closed)?;
        self.read_ahead.clear();
        *database = Some(new);
        Ok(old)
    }

    /// Flushes and lets go of database and directory. Called after the writer ended.
    pub fn close(&self) -> Result<()> {
        // While there is a database to count in; nobody else is to hold it.
        log_space::count(self);
        log_space::stop_counting(self);
        let Some(db) = self.database.write().take() else { return Ok(()) };
        self.files.close();
        let done = self.finish(&db);
        drop(db);
        self.claim.lock().take();
        done
    }

    fn finish(&self, db: &DB) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return self.check_state();
        }
        // Open segments are closed, so that the next open need not read their batches.
        let mut batch = rocksdb::WriteBatch::default();
        let index = family(db, cf::INDEX)?;
        for topic in self.topics.read().by_id.values() {
            for partition in &topic.partitions {
                if let Some(open) = partition.log.lock().open {
                    batch.put_cf(index, keys::segment(partition.uid, open.last), open.encode());
                }
            }
        }
        let last = recovery::number_in(db)?;
        // Otherwise the next start counts.
        if let Some(noted) = self.files.to_note() {
            let meta = family(db, cf::META)?;
            batch.delete_range_cf(meta, keys::log_file(0), keys::log_file(u32::MAX));
            for (number, file) in noted {
                let mut value = [file.live.to_be_bytes(), file.end.to_be_bytes()].concat();
                value.extend(file.records.iter().flat_map(|records| records.to_be_bytes()));
                batch.put_cf(meta, keys::log_file(number), value);
            }
            batch.put_cf(meta, keys::counter(Counter::Closed), last.to_be_bytes());
        }
        if let Err(why) = self.files.force() {
            // Nobody may take the end for a clean one.
            self.force_failed("a log file", &why);
            return self.check_state();
        }
        db.write(batch)?;
        let in_log = db.flush_wal(true);
        if let Err(e) = &in_log {
            match self.options.durability {
                Durability::Group => {
                    tracing::warn!("the log's end is not forced to disk, all that was acknowledged is: {e}")
                }
                _ => self.force_failed("the write-ahead log", e),
            }
        }
        match (flush(db), &in_log) {
            (Ok(()), _) => {}
            // It only makes the next open faster.
            (Err(e), Ok(())) => tracing::warn!("{e}"),
            // Nor can it be trusted to what is in the log.
            (Err(e), Err(_)) => {
                self.check_state()?;
                tracing::warn!("{e}");
            }
        }
        self.notes.forced(last);
        if in_log.is_err() && self.options.durability != Durability::Group {
            tracing::info!("all of it was written to tables instead, and is on disk");
        }
        db.cancel_all_background_work(true);
        Ok(())
    }

    /// After an fsync that failed: nothing is written until the database could be opened again.
    pub fn force_failed(&self, what: &str, e: &dyn std::fmt::Display) {
        self.forced.failed(what, e);
        self.broken.store(true, Ordering::Relaxed);
    }

    /// After a flush that failed, which begins with an fsync of the log. RocksDB does not try it again.
    pub fn flush_failed(&self, e: &StorageError) {
        let waiting = self.db().and_then(|db| waiting_bytes(&db)).unwrap_or(0);
        let e = &self.space.explained(e, waiting.max(MEMTABLE_BYTES_LEAST));
        match self.options.durability {
            Durability::Group | Durability::None => self.forced.stopped(e),
            Durability::Interval(_) => self.forced.failed("the write-ahead log or what is in memory", e),
        }
        self.broken.store(true, Ordering::Relaxed);
        // A write that waits for the flush goes on, so that the writer takes notice.
        if let Ok(db) = self.db() {
            for name in cf::ALL {
                if let Err(e) = family(&db, name).and_then(|f| Ok(db.set_options_cf(f, &UNLIMITED_MEMTABLES)?)) {
                    tracing::debug!("column family \"{name}\": {e}");
                }
            }
        }
    }

    /// Has the writer look what is to be done, where there is no work: whoever could give it some may be waiting for it.
    pub fn wake_writer(&self) {
        let (answer, _ignored) = oneshot::channel();
        let nothing = ChangeJob { change: Change::Group(Vec::new()), answer, _room: None };
        let _closing = self.queue.push_change(nothing).is_err();
    }

    /// An error while what was written last is in doubt.
    pub fn check_state(&self) -> Result<()> {
        self.forced.check(self.sequence())
    }

    /// A handle that shows nothing that nobody was told of. An error where there is none.
    pub fn shown_db(&self) -> Result<Arc<DB>> {
        let db = self.db()?;
        // Afterwards: it is said before such a handle is there.
        if self.forced.may_show_more() { Err(in_doubt()) } else { Ok(db) }
    }

    /// The same for state.
    pub fn state_db(&self) -> Result<Arc<DB>> {
        let db = self.shown_db()?;
        self.check_state()?;
        Ok(db)
    }

    /// By the name of the limit.
    pub fn memory_used(&self) -> Vec<(&'static str, usize)> {
        let room = self.options.produce_queue_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let mut used = vec![
            ("tail_bytes", self.tails.lock().cost()),
            ("read_ahead_bytes", self.read_ahead.bytes()),
            ("produce_queue_bytes", room.saturating_sub(self.produce_room.available_permits())),
            ("step_queue_bytes", self.queue.step_bytes()),
        ];
        if let Ok(db) = self.db() {
            let property = |family: &ColumnFamily, name: &str| {
                db.property_int_value_cf(family, name).ok().flatten().and_then(|v| usize::try_from(v).ok()).unwrap_or(0)
            };
            let families: Vec<&ColumnFamily> = cf::ALL.iter().filter_map(|name| db.cf_handle(name)).collect();
            let memtables = families.iter().map(|f| property(f, "rocksdb.cur-size-all-mem-tables")).sum();
            used.push(("write_buffer_bytes", memtables));
            // All column families share one cache.
            let cache = families.first().map_or(0, |f| property(f, "rocksdb.block-cache-usage"));
            used.push(("block_cache_bytes", cache));
        }
        used
    }

    /// Notes that so much of a partition was deleted.
    pub fn deleted(&self, uid: u64, bytes: u64) {
        if bytes > 0 {
            let mut reclaim = self.reclaim.lock();
            let sum = reclaim.entry(uid).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    pub fn topic(&self, id: TopicId) -> Result<Arc<Topic>> {
        self.topics.read().by_id.get(&id).cloned().ok_or(StorageError::UnknownTopicId(id))
    }

    pub fn partition(&self, place: TopicPartition) -> Result<Arc<Partition>> {
        let topics = self.topics.read();
        let topic = topics.by_id.get(&place.topic).ok_or(StorageError::UnknownTopicId(place.topic))?;
        topic.partition(place.partition).cloned().ok_or_else(|| StorageError::unknown_partition(place))
    }

    /// Settings of the broker that were changed while it ran.
    pub fn configs(&self) -> Arc<ChangedConfigs> {
        self.configs.read().clone()
    }

    /// Called by the writer alone.
    pub fn set_configs(&self, configs: Arc<ChangedConfigs>) {
        *self.configs.write() = configs;
    }

    pub fn partitions_default(&self) -> i32 {
        self.configs.read().partitions().unwrap_or(self.options.partitions_default)
    }

    pub fn check_new_topic(&self, spec: TopicSpec) -> Result<NewTopic> {
        let options = &self.options;
        if spec.replicas > 1 && !options.any_replication_factor {
            return Err(StorageError::InvalidReplicationFactor(format!(
                "topic \"{}\" cannot have {} replicas: there is one broker; the setting \"any_replication_factor\" takes any number",
                spec.name, spec.replicas
            )));
        }
        NewTopic::check(spec, self.partitions_default(), options.topic_partitions_max)
    }

    /// Checks new topics against those that are there, against each other, and against the limit.
    pub fn check_new_topics(&self, new: &[NewTopic]) -> Result<()> {
        let topics = self.topics.read();
        let mut partitions = topics.partition_count();
        for (i, topic) in new.iter().enumerate() {
            let name = &topic.spec.name;
            topics.check_new(name)?;
            if new.iter().take(i).any(|other| other.spec.name == *name) {
                return Err(StorageError::TopicExists(name.clone()));
            }
            partitions = partitions.saturating_add(topic.spec.partitions.max(0) as usize);
            self.check_partition_count(partitions)?;
        }
        Ok(())
    }

    pub fn check_partition_count(&self, partitions: usize) -> Result<()> {
        let max = self.options.partitions_max;
        if partitions > max {
            return Err(StorageError::InvalidPartitions(format!(
                "there would be {partitions} partitions, more than the limit \"partitions_max\", {max}"
            )));
        }
        Ok(())
    }

    /// Waits until so many bytes may be queued.
    pub async fn produce_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let all = self.options.produce_queue_bytes.clamp(1, u32::MAX as usize);
        let permits = bytes.clamp(1, all) as u32;
        match self.produce_room.clone().try_acquire_many_owned(permits) {
            Ok(room) => return Ok(room),
            // Of those who have it, nobody may wait for their batches yet.
            Err(_) => self.queue.wake(),
        }
        self.produce_room.clone().acquire_many_owned(permits).await.map_err(|_| StorageError::Closed)
    }

    pub async fn change(&self, change: Change) -> Result<i64> {
        let room = self.produce_room(CHANGE_COST + change.size()).await?;
        let (answer, pending) = oneshot::channel();
        self.queue.push_change(ChangeJob { change, answer, _room: Some(room) })?;
        pending.await.unwrap_or(Err(StorageError::Closed))
    }

    /// As `change`, from a thread of the storage itself.
    pub fn change_blocking(&self, change: Change) -> Result<i64> {
        let (answer, pending) = oneshot::channel();
        self.queue.push_change(ChangeJob { change, answer, _room: None })?;
        pending.blocking_recv().unwrap_or(Err(StorageError::Closed))
    }

    pub fn sequence(&self) -> Sequence {
        *self.visible.lock()
    }

    /// Makes everything up to `sequence` visible; `topics` are those in which something is new.
    pub fn publish(&self, sequence: Sequence, topics: impl IntoIterator<Item = TopicId>) {
        let mut moved = self.moved.lock();
        for topic in topics {
            moved.add(sequence, topic);
        }
        drop(moved);
        *self.visible.lock() = sequence;
        self.visible_moved.notify_all();
        self.published.send_replace(sequence);
    }

    pub fn moved_since(&self, sequence: Sequence) -> Option<Vec<TopicId>> {
        self.moved.lock().since(sequence)
    }

    pub fn wait_past(&self, sequence: Sequence, timeout: Duration) -> Sequence {
        let mut visible = self.visible.lock();
        self.visible_moved.wait_while_for(&mut visible, |v| *v <= sequence, timeout);
        *visible
    }

    /// Entries of a kind whose key after the kind byte starts with `prefix`; keys without the kind byte.
    pub fn scan_prefixed(&self, name: &str, kind: Kind, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let db = self.shown_db()?;
        let prefix = keys::prefixed(kind, prefix);
        let mut entries = Vec::new();
        for entry in db.iterator_cf(family(&db, name)?, IteratorMode::From(&prefix, Direction::Forward)) {
            let (key, value) = entry.map_err(|e| salvage::failed_in(&self.options, name, e))?;
            if !key.starts_with(&prefix) {
                break;
            }
            entries.push((key.get(1..).unwrap_or_default().to_vec(), Bytes::from(value)));
        }
        Ok(entries)
    }

    /// Cursors whose whole key starts with `prefix`.
    pub fn cursors(&self, prefix: &[u8]) -> Result<Vec<Cursor>> {
        let db = self.shown_db()?;
        let mut cursors = Vec::new();
        for entry in db.iterator_cf(family(&db, cf::CATALOG)?, IteratorMode::From(prefix, Direction::Forward)) {
            let (key, value) = entry.map_err(|e| salvage::failed_in(&self.options, cf::CATALOG, e))?;
            if !key.starts_with(prefix) {
                break;
            }
            let cursor = keys::parse_cursor(&key).zip(keys::Fields(&value).i64());
            let ((query, source), offset) =
                cursor.ok_or_else(|| StorageError::Corrupt(format!("the stored cursor {key:02x?} is damaged")))?;
            cursors.push(Cursor { query, source, offset });
        }
        Ok(cursors)
    }
}

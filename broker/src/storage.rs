//! The embedded storage: topics, partitions and their batches, state, cursors, catalog and group data in one RocksDB.
//!
//! One thread writes (`writer`): it gives offsets and commit sequences, puts everything that came while the last write
//! was under way into one `WriteBatch`, and shows nothing before that is as durable as the setting promises. Checks,
//! codecs and encoding run with the caller, but of what groups write to a topic (`offsets_topic`). Not here: the wire and groups
//! (`api`, `groups`), the bytes of a batch (`batch`), the bytes of keys (`keys`), what state and catalog mean (the engine).
//!
//! Invariants: an offset belongs to a batch that is written or to none; a step is written whole or not at all; a later
//! append has a higher sequence; what was shown is not taken back by a crash, as far as the durability setting says.
//!
//! Calls that may block on disk say so; from async code they belong on a blocking thread.

mod commits;
mod compaction;
mod directory;
mod disk_watch;
mod error;
mod flush;
mod forced;
mod gather;
mod housekeeping;
mod load;
mod log_files;
mod log_space;
mod lookup;
mod measures;
mod note;
mod offsets_topic;
mod ordered;
mod partition;
mod pass;
mod port;
mod producers;
mod queue;
mod read;
mod read_ahead;
mod recheck;
mod recovery;
mod reserve;
mod salvage;
mod segments;
mod shared;
mod space;
mod state;
mod tails;
mod topics;
mod verify;
mod wal;
mod walk;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use millpond_types::ports::{Cursor, PartitionOffsets, TopicSpec};
use millpond_types::{Clock, Offset, Sequence, SystemClock, TopicId, TopicPartition};
use tokio::sync::{Semaphore, oneshot, watch};

pub use self::compaction::Compaction;
pub use self::directory::OPEN_FILES_MAX;
pub use self::error::{OpenError, StorageError};
use self::housekeeping::Threads;
pub use self::lookup::{ListedOffset, OffsetQuery};
pub use self::measures::StorageSnapshot;
pub use self::offsets_topic::{NAME as OFFSETS_TOPIC, PARTITIONS as OFFSETS_TOPIC_PARTITIONS};
pub use self::ordered::{ProtocolWrite, Room};
pub use self::partition::{Waiter, Wakeups};
pub use self::read::{AbortedTransaction, FetchLimits, Fetched};
use self::shared::Shared;
use self::topics::NewTopic;
pub use self::topics::{Topic, check_name as check_topic_name};
use self::writer::{Change, ProduceJob};
use crate::batch::{BatchRules, DECODER_BYTES_USUAL, ValidBatch, decoder_bytes, validate};
use crate::configs::ChangedConfigs;
use crate::keys::{self, BATCH_PREFIX_LEN, Kind, cf};

type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Partitions of one topic, where nothing else is said.
pub const TOPIC_PARTITIONS_MAX: i32 = 10_000;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the operating system's hands: survives the end of the process, not of the machine.
    None,
    /// As `None`, and forced to disk so often; a power loss may take what came since.
    Interval(Duration),
    /// Forced to disk before it is shown or answered, one force for all that came together.
    Group,
}

/// How a data directory is opened. Every limit has a default that suits a small machine.
#[derive(Clone)]
pub struct StorageOptions {
    pub path: PathBuf,
    pub durability: Durability,
    pub clock: Arc<dyn Clock>,
    pub node_id: i32,
    /// Partitions of a topic created with -1.
    pub partitions_default: i32,
    /// Partitions of one topic.
    pub topic_partitions_max: i32,
    /// Partitions of all topics.
    pub partitions_max: usize,
    /// Topics may be created with more replicas than there are brokers, for clients that insist. There is still one.
    pub any_replication_factor: bool,
    /// RocksDB's memtables together.
    pub write_buffer_bytes: usize,
    /// RocksDB's block cache.
    pub block_cache_bytes: usize,
    /// About how large a log file becomes before another is begun.
    pub log_file_bytes: u64,
    /// Log files that are open at a time.
    pub log_files_open_max: usize,
    /// So many batches are looked at in a start after an end without warning, to count what is live in log files; the rest
    /// is counted beside the work.
    pub start_keys_max: usize,
    /// Dead log files go when all keys were looked at; one part of so many of the time is spent on that, unless much is dead.
    pub look_part: u32,
    /// Batches of one write that together have no more than this, and each no more than an eighth, go into the database
    /// instead of a log file.
    pub inline_bytes_max: usize,
    /// RocksDB's threads for flushes and compactions.
    pub background_jobs: i32,
    /// Newest batches kept in memory, over all partitions.
    pub tail_bytes: usize,
    /// Newest batches kept in memory, of one partition.
    pub tail_partition_bytes: usize,
    /// The same where nobody has read for so long that it would not reach back far enough anyway.
    pub tail_unread_bytes: usize,
    /// Batches read from disk in advance, for consumers that are behind.
    pub read_ahead_bytes: usize,
    /// Produced batches waiting for the writer.
    pub produce_queue_bytes: usize,
    /// Steps waiting for the writer.
    pub step_queue_bytes: usize,
    /// One step.
    pub step_bytes_max: usize,
    /// About so much goes into one write.
    pub write_bytes_max: usize,
    /// How long a write that is forced to disk waits, at most, for more from producers that were just answered.
    pub gather_wait_max: Duration,
    /// The next log file is filled with zeros while little at a time is forced to disk, so that this takes half the time.
    pub log_prewrite: bool,
    /// Memory of decoders that check produced batches and need more for it than is usual (`DECODER_BYTES_USUAL`): large
    /// blocks and windows. Who needs more than this waits until nobody else has any.
    pub decoder_bytes: usize,
    /// Records of one batch when decompressed.
    pub decompressed_bytes_max: usize,
    /// Retention, compaction and time lookups see runs of batches of about this size.
    pub segment_bytes: u64,
    /// How often it is looked whether something is to be compacted.
    pub compaction_interval: Duration,
    /// Memory for the newest offset of each key while a partition is compacted; more keys take several passes.
    pub compaction_map_bytes: usize,
    /// Compaction reads no more than this in a second; 0 is no limit.
    pub compaction_bytes_per_second: u64,
    /// Nothing but what is small and deletions is written while the disk has less than this free.
    pub disk_free_bytes_min: u64,
    /// Kept of the disk, so that the directory can be opened when somebody else has filled it; 0: nothing.
    pub disk_reserve_bytes: u64,
    /// A database that lost something is opened with what is left, this once.
    pub accept_data_loss: bool,
    /// At most so much of the newest of a partition is left uncompacted, whatever "segment.bytes" says.
    pub active_bytes_max: u64,
    pub retention_interval: Duration,
    /// Nothing is deleted for its age within so long of its append, however old it says it is.
    pub retention_grace: Duration,
    /// An idempotent producer that appended nothing for so long is forgotten, unless it was changed since.
    pub producer_expiration: Duration,
    /// Idempotent producers remembered per partition; the one idle longest makes room.
    pub partition_producers_max: usize,
}

impl StorageOptions {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::Group,
            clock: Arc::new(SystemClock),
            node_id: 1,
            partitions_default: 1,
            topic_partitions_max: TOPIC_PARTITIONS_MAX,
            partitions_max: 100_000,
            any_replication_factor: false,
            write_buffer_bytes: 96 << 20,
            block_cache_bytes: 64 << 20,
            log_file_bytes: 64 << 20,
            log_files_open_max: 128,
            start_keys_max: 20_000,
            look_part: 50,
            inline_bytes_max: 32 << 10,
            background_jobs: 2,
            tail_bytes: 64 << 20,
            tail_partition_bytes: 8 << 20,
            tail_unread_bytes: 32 << 10,
            read_ahead_bytes: 8 << 20,
            produce_queue_bytes: 64 << 20,
            step_queue_bytes: 64 << 20,
            step_bytes_max: 64 << 20,
            write_bytes_max: 4 << 20,
            gather_wait_max: Duration::from_millis(1),
            log_prewrite: true,
            decoder_bytes: 48 << 20,
            decompressed_bytes_max: 128 << 20,
            segment_bytes: 1 << 20,
            compaction_interval: Duration::from_secs(15),
            compaction_map_bytes: 32 << 20,
            compaction_bytes_per_second: 64 << 20,
            active_bytes_max: 16 << 20,
            disk_free_bytes_min: 256 << 20,
            disk_reserve_bytes: 16 << 20,
            accept_data_loss: false,
            // At full speed a minute is a disk full of what nobody wants any more.
            retention_interval: Duration::from_secs(5),
            retention_grace: Duration::from_secs(300),
            producer_expiration: Duration::from_secs(24 * 3600),
            partition_producers_max: 10_000,
        }
    }

    /// All limits on memory, without what callers hold of answers: by the names of their settings, or, what cannot be set,
    /// by names of their own.
    pub fn memory_limits(&self) -> [(&'static str, usize); 10] {
        [
            ("write_buffer_bytes", self.write_buffer_bytes),
            ("block_cache_bytes", self.block_cache_bytes),
            ("tail_bytes", self.tail_bytes),
            ("read_ahead_bytes", self.read_ahead_bytes),
            ("produce_queue_bytes", self.produce_queue_bytes),
            ("decoder_bytes", self.decoder_bytes),
            ("step_queue_bytes", self.step_queue_bytes),
            // The write in the making: produced batches, steps, and the batch of both.
            ("writes", self.write_bytes_max.saturating_mul(4)),
            ("compaction_map_bytes", self.compaction_map_bytes),
            ("compaction_buffer", compaction::BUFFER_BYTES_MAX),
        ]
    }
}

/// The embedded storage; clones share it. Dropping the last one stops its threads after what is queued was written.
#[derive(Clone)]
pub struct Storage {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    /// Bytes of decoders that need more than is usual.
    decoders: Arc<Semaphore>,
}

/// A checked batch, ready to be appended.
#[derive(Debug)]
pub struct PreparedBatch(ValidBatch);

impl PreparedBatch {
    pub fn len(&self) -> usize {
        self.0.bytes.len() - BATCH_PREFIX_LEN
    }

    pub fn is_empty(&self) -> bool {
        self.0.header.count == 0
    }
}

/// Where a batch came to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// The time that the log stamped, or -1.
    pub log_append_time_ms: i64,
    pub log_start_offset: Offset,
    /// It had been appended before; nothing was written now.
    pub duplicate: bool,
    /// 0 for a duplicate.
    pub sequence: Sequence,
}

/// The outcome of something queued; ready when it is durable and visible.
#[derive(Debug)]
pub struct Pending<T>(pub(crate) oneshot::Receiver<Result<T>>);

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(StorageError::Closed)))
    }
}

/// The outcome of an append. Where nothing is forced to disk, waiting for it may be what writes it.
pub struct PendingAppend {
    answer: Pending<Appended>,
    /// Nobody was asked to write it yet.
    unwritten: Option<Arc<Shared>>,
}

impl Future for PendingAppend {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(shared) = self.unwritten.take() {
            writer::write_direct(&shared);
        }
        Pin::new(&mut self.answer).poll(context)
    }
}

impl fmt::Debug for PendingAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAppend").field("written", &self.unwritten.is_none()).finish_non_exhaustive()
    }
}

impl Drop for PendingAppend {
    fn drop(&mut self) {
        if let Some(shared) = &self.unwritten {
            shared.queue.wake();
        }
    }
}

/// One change of a producer's transaction, see [`Storage::transaction_write`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionWrite {
    pub producer_id: i64,
    /// Partitions hold what the producer sends against this from now on.
    pub producer_epoch: i16,
    /// Partitions that it may append to; an unknown one fails the whole write.
    pub added: Vec<TopicPartition>,
    /// They join by a batch that is produced to them (Produce 12 and later): where nothing is known of the producer it begins with
    /// sequence 0, and not with any.
    pub by_produce: bool,
    pub ending: Option<Ending>,
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// How the storage is with its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// False after something failed, until the database could be opened again, and while the disk is nearly full.
    pub writable: bool,
    /// What was acknowledged since the last good fsync may be lost.
    pub in_doubt: bool,
    pub writes_failed: u64,
    /// Fsyncs of what had been acknowledged already.
    pub forces_failed: u64,
}

/// What a partition remembers of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub id: i64,
    pub epoch: i16,
    /// -1 where it is not known.
    pub last_sequence: i32,
    /// When it was last heard of here.
    pub used_ms: i64,
    /// First offset of its open transaction.
    pub open_from: Option<Offset>,
    /// That of the coordinator that ended its last transaction here; -1: none has.
    pub coordinator_epoch: i32,
}

/// How a transaction ends, and where; topics that are gone are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub commit: bool,
    pub partitions: Vec<TopicPartition>,
}

/// What is kept apart from topics and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityKind {
    /// What users prove themselves by.
    Credential,
    /// Access control entries.
    Acl,
    Quota,
    /// Levels of features.
    Feature,
    /// Delegation tokens.
    Token,
}

impl SecurityKind {
    fn kind(self) -> Kind {
        match self {
            Self::Credential => Kind::Credential,
            Self::Acl => Kind::Acl,
            Self::Quota => Kind::Quota,
            Self::Feature => Kind::Feature,
            Self::Token => Kind::Token,
        }
    }
}

/// Wakes when one of some partitions changes: an append, a new log start, the topic's end. Made before the first look,
/// it misses nothing.
#[derive(Debug)]
pub struct Watch(Arc<Waiter>);

impl Watch {
    /// Ready when something changed since the last call, or since the watch was made.
    pub async fn changed(&self) {
        self.0.changed().await;
    }
}

fn decoders_bytes(options: &StorageOptions) -> usize {
    options.decoder_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize))
}

impl Storage {
    /// Opens a data directory, making it where it is missing or empty. Blocks on disk.
    pub fn open(options: StorageOptions) -> Result<Storage, OpenError> {
        let shared = Arc::new(load::open(options)?);
        let threads = housekeeping::start(&shared)?;
        let decoders = Arc::new(Semaphore::new(decoders_bytes(&shared.options)));
        Ok(Self { shared, threads: Arc::new(threads), decoders })
    }

    /// Writes what is queued, flushes, and lets go of the directory. Later calls fail with [`StorageError::Closed`].
    /// Blocks on disk. The directory is free when all snapshots are gone too.
    pub fn close(&self) -> Result<()> {
        self.threads.stop();
        self.shared.close()
    }

    /// What of its limits on memory is used now, by the limit's name.
    pub fn memory_used(&self) -> Vec<(&'static str, usize)> {
        let mut used = self.shared.memory_used();
        let decoders = decoders_bytes(&self.shared.options) - self.decoders.available_permits();
        used.push(("decoder_bytes", decoders));
        used
    }

    pub fn health(&self) -> Health {
        let shared = &self.shared;
        Health {
            writable: !shared.broken.load(Ordering::Relaxed) && !shared.space.is_low(),
            in_doubt: shared.forced.limit().is_some_and(|limit| shared.sequence() > limit),
            writes_failed: shared.writes_failed.load(Ordering::Relaxed),
            forces_failed: shared.forced.failures(),
        }
    }

    /// What is counted and measured of all this. Blocks for a moment; looks at every partition.
    pub fn measure(&self) -> StorageSnapshot {
        self.shared.measure()
    }

    /// The wall clock, in milliseconds.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.shared.options.clock.now_ms()
    }

    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    pub fn node_id(&self) -> i32 {
        self.shared.node_id
    }

    /// Of all partitions; grows at each open.
    pub fn leader_epoch(&self) -> i32 {
        self.shared.epoch
    }

    /// Partitions of a topic that is created without saying how many.
    pub fn default_partitions(&self) -> i32 {
        self.shared.partitions_default()
    }

    /// As at start, whatever was changed since.
    pub fn started_partitions(&self) -> i32 {
        self.shared.options.partitions_default
    }

    /// How long idle producers are remembered: as at start, whatever was changed since.
    pub fn started_producer_expiration(&self) -> Duration {
        self.shared.options.producer_expiration
    }

    /// How long what was appended is safe from retention by time.
    pub fn retention_grace(&self) -> Duration {
        self.shared.options.retention_grace
    }

    /// Whether topics may ask for more replicas than there are brokers.
    pub fn any_replication_factor(&self) -> bool {
        self.shared.options.any_replication_factor
    }

    pub fn find_topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.shared.topics.read().by_name.get(name).cloned()
    }

    pub fn find_topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.shared.topics.read().by_id.get(&id).cloned()
    }

    /// By name.
    pub fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.shared.topics.read().by_name.values().cloned().collect()
    }

    /// Another number whenever a topic was created, changed or deleted.
    pub fn topics_version(&self) -> u64 {
        self.shared.topics.read().version
    }

    /// Everything that creating the topic would check now.
    pub fn check_topic(&self, spec: &TopicSpec) -> Result<()> {
        let new = self.shared.check_new_topic(spec.clone())?;
        self.shared.check_new_topics(std::slice::from_ref(&new))
    }

    /// Partitions and replicas of -1 mean the defaults.
    pub async fn create_topic(&self, spec: TopicSpec) -> Result<Arc<Topic>> {
        let new: NewTopic = self.shared.check_new_topic(spec)?;
        let name = new.spec.name.clone();
        self.shared.change(Change::CreateTopic(new)).await?;
        self.find_topic(&name).ok_or_else(|| StorageError::InvalidTopic(format!("topic \"{name}\" was deleted")))
    }

    /// The topic of groups' offsets, made and filled where it is not there.
    pub async fn make_offsets_topic(&self) -> Result<Arc<Topic>> {
        offsets_topic::make(&self.shared).await?;
        self.find_topic(OFFSETS_TOPIC)
            .ok_or_else(|| StorageError::InvalidTopic(format!("topic \"{OFFSETS_TOPIC}\" was deleted")))
    }

    pub async fn delete_topic(&self, id: TopicId) -> Result<()> {
        self.shared.change(Change::DeleteTopic(id)).await.map(drop)
    }

    /// Replaces all settings of a topic.
    pub async fn set_topic_configs(&self, id: TopicId, configs: BTreeMap<String, String>) -> Result<()> {
        crate::configs::check_topic_configs(&configs).map_err(StorageError::InvalidConfig)?;
        self.shared.change(Change::SetConfigs { id, configs }).await.map(drop)
    }

    /// Settings of the broker that were changed while it ran.
    pub fn broker_configs(&self) -> Arc<ChangedConfigs> {
        self.shared.configs()
    }

    /// Replaces them; topics that fall back on them follow at once.
    pub async fn set_broker_configs(&self, configs: ChangedConfigs) -> Result<()> {
        configs.check().map_err(StorageError::InvalidConfig)?;
        self.shared.change(Change::SetBrokerConfigs(configs)).await.map(drop)
    }

    /// Gives a topic more partitions.
    pub async fn add_partitions(&self, id: TopicId, total: i32) -> Result<()> {
        self.shared.change(Change::AddPartitions { id, total }).await.map(drop)
    }

    /// Moves the log's start forward, -1 to its end; returns the start.
    pub async fn delete_records(&self, place: TopicPartition, before: Offset) -> Result<Offset> {
        let partition = self.shared.partition(place)?;
        self.shared.change(Change::MoveStart { partition, before, strict: true }).await
    }

    /// Does now what retention does at intervals: deletes what is too old or too much, and forgets idle producers.
    pub fn retain(&self) -> Result<()> {
        housekeeping::retain(&self.shared, None)
    }

    /// Gives the disk back what was deleted, however little. It happens by itself when it is much. Blocks.
    pub fn reclaim(&self) -> Result<()> {
        housekeeping::reclaim_all(&self.shared)
    }

    /// Compacts a partition now as far as it may be, whatever its dirty ratio. Blocks until it is done.
    pub fn compact(&self, place: TopicPartition) -> Result<Compaction> {
        compaction::compact_now(&self.shared, place)
    }

    /// An id that no producer had.
    pub async fn allocate_producer_id(&self) -> Result<i64> {
        self.shared.change(Change::AllocateProducerId).await
    }

    /// Checks the records of a produce request for one partition. Only computes, but for those that are compressed so that
    /// it takes much memory: these wait for it.
    pub async fn prepare(&self, place: TopicPartition, batch: &Bytes) -> Result<PreparedBatch> {
        let needed = decoder_bytes(batch);
        let _room = match needed > DECODER_BYTES_USUAL {
            true => {
                let permits = needed.min(decoders_bytes(&self.shared.options)) as u32;
                Some(self.decoders.acquire_many(permits).await.map_err(|_| StorageError::Closed)?)
            }
            false => None,
        };
        let topic = self.shared.topic(place.topic)?;
        let settings = &topic.settings;
        let rules = BatchRules {
            batch_bytes_max: settings.batch_bytes_max,
            compacted: settings.compacted,
            timestamp_type: settings.timestamp_type,
            before_max_ms: settings.timestamp_before_max_ms,
            after_max_ms: settings.timestamp_after_max_ms,
            compression: settings.compression,
            decompressed_bytes_max: self.shared.options.decompressed_bytes_max,
            now_ms: self.shared.options.clock.now_ms(),
            room_before: BATCH_PREFIX_LEN,
        };
        let valid = validate(batch, &rules)?;
        let size = valid.bytes.len() - BATCH_PREFIX_LEN;
        if size > settings.segment_bytes {
            return Err(StorageError::RecordListTooLarge { size, max: settings.segment_bytes });
        }
        Ok(PreparedBatch(valid))
    }

    /// Waits for room in the queue and queues; batches of a partition lie in the order of queueing. The result is
    /// awaited apart, so that a caller may queue its next batch meanwhile.
    pub async fn append(&self, place: TopicPartition, batch: PreparedBatch) -> Result<PendingAppend> {
        let partition = self.shared.partition(place)?;
        let room = self.shared.produce_room(batch.0.bytes.len()).await?;
        let (answer, pending) = oneshot::channel();
        self.shared.queue.push_produce(ProduceJob { partition, batch: batch.0, _room: room, answer })?;
        let unwritten = self.shared.queue.is_direct().then(|| self.shared.clone());
        Ok(PendingAppend { answer: Pending(pending), unwritten })
    }

    pub fn partition_offsets(&self, place: TopicPartition) -> Result<PartitionOffsets> {
        let partition = self.shared.partition(place)?;
        let log = partition.log.lock();
        Ok(PartitionOffsets { start: log.start, stable_end: log.stable_end(), end: log.end })
    }

    /// An error while something that was acknowledged is in doubt: nobody knows then what of the last writes is there.
    pub fn check_sure(&self) -> Result<()> {
        self.shared.forced.check(self.shared.sequence())
    }

    /// Whether the partition is part of an open transaction of the producer.
    pub fn in_transaction(&self, place: TopicPartition, (producer_id, epoch): (i64, i16)) -> Result<bool> {
        let partition = self.shared.partition(place)?;
        let producers = partition.producers.lock();
        Ok(producers.get(&producer_id).is_some_and(|p| p.epoch == epoch && p.open.is_some()))
    }

    /// Producers with an id that a partition remembers, by id.
    pub fn active_producers(&self, place: TopicPartition) -> Result<Vec<ActiveProducer>> {
        let partition = self.shared.partition(place)?;
        let mut all: Vec<_> = partition
            .producers
            .lock()
            .iter()
            .map(|(id, producer)| ActiveProducer {
                id: *id,
                epoch: producer.epoch,
                last_sequence: producer.batches.back().map_or(-1, |b| b.last_sequence),
                used_ms: producer.used_ms,
                open_from: producer.open_from(),
                coordinator_epoch: producer.coordinator_epoch,
            })
            .collect();
        all.sort_unstable_by_key(|p| p.id);
        Ok(all)
    }

    /// One of them.
    pub fn active_producer(&self, place: TopicPartition, id: i64) -> Result<Option<ActiveProducer>> {
        let partition = self.shared.partition(place)?;
        let producers = partition.producers.lock();
        Ok(producers.get(&id).map(|producer| ActiveProducer {
            id,
            epoch: producer.epoch,
            last_sequence: producer.batches.back().map_or(-1, |b| b.last_sequence),
            used_ms: producer.used_ms,
            open_from: producer.open_from(),
            coordinator_epoch: producer.coordinator_epoch,
        }))
    }

    /// Checks that a topic may come to have so many partitions.
    pub fn check_more_partitions(&self, topic: &Topic, total: i32) -> Result<()> {
        if topic.name == OFFSETS_TOPIC {
            let why = "a group's records are in the partition that follows from its id and from how many there are";
            return Err(StorageError::InvalidRequest(format!("topic \"{OFFSETS_TOPIC}\" keeps its partitions: {why}")));
        }
        let per_topic = self.shared.options.topic_partitions_max;
        if total > per_topic {
            return Err(StorageError::InvalidPartitions(format!(
                "topic \"{}\" cannot have {total} partitions: the limit \"topic_partitions_max\" is {per_topic}",
                topic.name
            )));
        }
        let more = usize::try_from(total.saturating_sub(topic.partition_count())).unwrap_or(0);
        self.shared.check_partition_count(self.shared.topics.read().partition_count().saturating_add(more))
    }

    /// Bytes of the volume that everything lies on, and how many of them can be written; a system call.
    pub fn volume(&self) -> Option<(u64, u64)> {
        self.shared.space.volume()
    }

    /// Bytes of the partition's batches.
    pub fn partition_bytes(&self, place: TopicPartition) -> Result<u64> {
        Ok(self.shared.partition(place)?.log.lock().bytes())
    }

    /// Whole batches from the one that contains `offset` on. May block on disk.
    pub fn fetch(&self, place: TopicPartition, offset: Offset, limits: FetchLimits) -> Result<Fetched> {
        read::fetch(&self.shared, &*self.shared.partition(place)?, offset, limits)
    }

    /// As [`Storage::fetch`] from memory alone; `None` where that would not do, as where aborted transactions have to
    /// be looked up.
    pub fn fetch_hot(&self, place: TopicPartition, offset: Offset, limits: FetchLimits) -> Result<Option<Fetched>> {
        read::fetch_hot(&self.shared, &*self.shared.partition(place)?, offset, limits)
    }

    /// How much is read in advance for one consumer.
    pub fn read_ahead_bytes(&self) -> usize {
        self.shared.read_ahead.bytes_at_once()
    }

    /// Reads what a fetch that went on to `next` will ask for next ([`Fetched::behind`]), and forgets what it is past. May
    /// block on disk.
    pub fn read_ahead(&self, place: TopicPartition, next: Offset, limits: FetchLimits) -> Result<()> {
        let partition = self.shared.partition(place)?;
        self.shared.read_ahead.forget(partition.uid, next);
        read::ahead(&self.shared, &partition, next, limits.bytes_max, limits.committed)
    }

    /// Unknown partitions are left out; a look at them fails at once.
    pub fn watch(&self, places: &[TopicPartition]) -> Watch {
        let waiter = Waiter::new(&Arc::default(), 0);
        for place in places {
            if let Ok(partition) = self.shared.partition(*place) {
                partition.add_waiter(&waiter);
            }
        }
        Watch(waiter)
    }

    /// Wakes by a partition's changes, under a token, for as long as the waiter is kept. `None`: there is no such
    /// partition.
    pub fn watch_one(&self, place: TopicPartition, wakeups: &Arc<Wakeups>, token: u32) -> Option<Arc<Waiter>> {
        let partition = self.shared.partition(place).ok()?;
        let waiter = Waiter::new(wakeups, token);
        partition.add_waiter(&waiter);
        Some(waiter)
    }

    /// The sequence up to which everything is visible, as it grows.
    pub fn sequences(&self) -> watch::Receiver<Sequence> {
        self.shared.published.subscribe()
    }

    /// May block on disk for times.
    pub fn list_offset(&self, place: TopicPartition, what: OffsetQuery) -> Result<ListedOffset> {
        lookup::list_offset(&self.shared, &*self.shared.partition(place)?, what)
    }

    /// The largest leader epoch up to `epoch` and where it ends; (-1, -1) where there is none.
    pub fn epoch_end(&self, place: TopicPartition, epoch: i32) -> Result<(i32, Offset)> {
        if epoch > self.leader_epoch() {
            return Ok((-1, -1));
        }
        Ok(lookup::epoch_end(&*self.shared.partition(place)?, epoch, self.leader_epoch()))
    }

    /// Puts and deletes entries of the protocol layer, all or nothing; durable when it returns.
    pub async fn group_write(&self, entries: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        self.shared.change(Change::Group(entries)).await.map(drop)
    }

    /// Lets partitions join a transaction, or ends it in partitions with a marker in each, and writes entries of the
    /// protocol layer with it: all or nothing, durable when it returns. What becomes stable is visible then too.
    pub async fn transaction_write(&self, write: TransactionWrite) -> Result<()> {
        self.shared.change(Change::Transaction(Box::new(write))).await.map(drop)
    }

    pub fn group_get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let db = self.shared.db()?;
        let value = db.get_cf(shared::family(&db, cf::GROUP)?, keys::prefixed(Kind::Group, key))?;
        Ok(value.map(Bytes::from))
    }

    /// Entries whose key starts with `prefix`, in key order.
    pub fn group_scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>> {
        self.shared.scan_prefixed(cf::GROUP, Kind::Group, prefix)
    }

    /// Puts and deletes entries of security, all or nothing; durable when it returns.
    pub async fn security_write(&self, kind: SecurityKind, entries: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        let kind = kind.kind();
        let entries = entries.into_iter().map(|(key, value)| (keys::prefixed(kind, &key), value)).collect();
        self.shared.change(Change::Security(entries)).await.map(drop)
    }

    /// All entries of a kind, in key order.
    pub fn security_scan(&self, kind: SecurityKind) -> Result<Vec<(Vec<u8>, Bytes)>> {
        self.shared.scan_prefixed(cf::META, kind.kind(), &[])
    }

    /// Cursors of all queries.
    pub fn query_cursors(&self) -> Result<Vec<Cursor>> {
        self.shared.cursors(&[Kind::Cursor as u8])
    }
}

//! The ports between the engine and storage, shaped so that a Kafka cluster can implement them as well as the embedded
//! log and memory.
//!
//! Order: the embedded log has one writer and so one total order; every append gets a [`Sequence`]. `commit` is the only
//! call that writes: appends, cursors, state and catalog of a [`Step`] are there whole or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::record::{RecordBuffer, Records};
use crate::{Offset, PartitionId, Result, Sequence, TopicId, TopicPartition};

/// What a topic is created from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub replicas: i16,
    /// Topic settings by Kafka's names, such as `cleanup.policy`; those not given have their defaults.
    pub configs: BTreeMap<String, String>,
}

/// Whether a topic of this name is the broker's own in Kafka: groups' offsets and transactions. Clients and statements
/// neither make nor write one.
pub fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    pub id: TopicId,
    pub name: String,
    pub partitions: i32,
    pub replicas: i16,
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// First offset still there.
    pub start: Offset,
    /// First offset that is not stable: below it everything is durable and decided (the last stable offset).
    pub stable_end: Offset,
    /// Offset that the next record will get.
    pub end: Offset,
}

#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// At most so many records; at least one is returned if there is one.
    pub records_max: usize,
    /// About so many bytes of keys and values; the record that passes it is still returned.
    pub bytes_max: usize,
    /// Only records with a sequence up to and including this.
    pub up_to: Sequence,
}

/// Which tasks this process works on, and under which generation it may commit them. The embedded storage assigns all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub generation: u64,
    /// Partitions this process works on; `None` means all.
    pub tasks: Option<Vec<PartitionId>>,
}

/// Where a query goes on reading a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub query: String,
    pub source: TopicPartition,
    pub offset: Offset,
}

/// Puts (`Some`) and deletes (`None`) by whole key, in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    bytes: Vec<u8>,
    /// Per write: where its key and its value end; the value's is `None` for a delete.
    ends: Vec<(usize, Option<usize>)>,
}

impl Writes {
    pub fn with_capacity(writes: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(writes) }
    }

    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends.push((key_end, value.map(|_| self.bytes.len())));
    }

    /// Adds all of another's.
    pub fn append(&mut self, other: &Writes) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|(key, value)| (base + key, value.map(|end| base + end))));
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, value_end)| {
            let key = &self.bytes[start..key_end];
            start = value_end.unwrap_or(key_end);
            (key, value_end.map(|end| &self.bytes[key_end..end]))
        })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl FromIterator<(Vec<u8>, Option<Vec<u8>>)> for Writes {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>>(writes: I) -> Self {
        let mut all = Self::default();
        writes.into_iter().for_each(|(key, value)| all.push(&key, value.as_deref()));
        all
    }
}

impl From<Vec<(Vec<u8>, Option<Vec<u8>>)>> for Writes {
    fn from(writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Self {
        writes.into_iter().collect()
    }
}

/// Everything that one commit writes.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub generation: u64,
    pub create_topics: Vec<TopicSpec>,
    pub delete_topics: Vec<TopicId>,
    pub appends: Vec<(TopicPartition, RecordBuffer)>,
    pub cursors: Vec<Cursor>,
    /// Queries whose cursors are forgotten.
    pub drop_cursors: Vec<String>,
    /// State puts (`Some`) and deletes (`None`), by whole key; the last one of a key counts.
    pub state: Writes,
    /// Ranges `[from, to)` of state dropped before `state` is applied.
    pub drop_state: Vec<(Vec<u8>, Vec<u8>)>,
    /// Catalog puts and deletes.
    pub catalog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable as far as the storage's setting promises, and visible. Created topics in the order asked for.
    Committed { sequence: Sequence, created: Vec<TopicInfo> },
    /// Another owner has a later generation; nothing was written, and this process stops the task.
    Fenced,
    /// Nothing was written; the same step may be committed again (disk full, busy).
    Retry(String),
    /// Nothing was written, and never will be (a topic is gone, a record is too large).
    Fatal(String),
}

/// The outcome of a commit, when it is known.
pub trait Ticket: Send {
    /// Blocks until the commit ended.
    fn wait(self: Box<Self>) -> Outcome;
}

/// A ticket of a commit that has ended already.
#[derive(Debug)]
pub struct Done(pub Outcome);

impl Ticket for Done {
    fn wait(self: Box<Self>) -> Outcome {
        self.0
    }
}

/// The log: topics, partitions, records. All calls may block on disk; none waits for data but [`TopicLog::wait_past`].
pub trait TopicLog: Send + Sync {
    fn assignment(&self) -> Assignment;

    /// How often a new topic is kept that is to be kept so often.
    fn replicas(&self, wanted: i16) -> i16 {
        wanted
    }

    /// All topics, by name.
    fn topics(&self) -> Vec<TopicInfo>;

    fn topic(&self, name: &str) -> Option<TopicInfo>;

    fn topic_by_id(&self, id: TopicId) -> Option<TopicInfo>;

    /// `NotFound` where the topic or partition is gone.
    fn offsets(&self, partition: TopicPartition) -> Result<PartitionOffsets>;

    /// Committed records from `from` on, below the last stable offset. `from` below the log's start is `NotFound`
    /// with the start in the message; `from` at or past the end gives no records.
    fn read(&self, partition: TopicPartition, from: Offset, limits: ReadLimits) -> Result<Records>;

    /// Checks a step and queues it. Steps commit in the order of these calls. A step that fails its checks gives a
    /// ticket that says so.
    fn commit(&self, step: Step) -> Box<dyn Ticket>;

    /// Everything with a sequence up to this is visible.
    fn sequence(&self) -> Sequence;

    /// Blocks until something past `sequence` is visible, or the time is over; returns the current sequence.
    fn wait_past(&self, sequence: Sequence, timeout: Duration) -> Sequence;

    /// Topics in which something past `sequence` may be visible; `None` where that is not known.
    fn moved_since(&self, sequence: Sequence) -> Option<Vec<TopicId>> {
        let _ = sequence;
        None
    }

    /// Offsets where a query goes on, by partition.
    fn cursors(&self, query: &str) -> Result<Vec<Cursor>>;

    /// All catalog entries whose key starts with `prefix`, in key order.
    fn catalog(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>>;
}

/// How many read a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    pub groups: usize,
    pub members: usize,
}

/// Consumer groups, beside which queries read.
pub trait Consumers: Send + Sync {
    /// By topic's name, the groups with members that have partitions of it, and these members. Groups that do not count
    /// are not looked at.
    fn readers(&self, counts: &dyn Fn(&str) -> bool) -> BTreeMap<String, Readers>;
}

/// Reads of committed state. The keys' layout is the engine's; storage sees bytes in order.
pub trait StateReader: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// One answer per key, in order.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>>;

    /// Entries with `from <= key < to` in key order, or from the end where `reverse`.
    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan>;

    /// The same, at most `entries_max` of them, whatever their size: for entries that are known to be small.
    fn range(&self, from: &[u8], to: &[u8], reverse: bool, entries_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let limits = ScanLimits { entries_max, bytes_max: usize::MAX };
        Ok(self.scan(from, to, reverse, limits)?.entries)
    }
}

/// How much one scan gives.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    pub entries_max: usize,
    /// About so many bytes of keys and values; the entry that passes it is still given.
    pub bytes_max: usize,
}

impl ScanLimits {
    /// Whether nothing more fits behind so many entries and bytes.
    pub fn reached(&self, entries: usize, bytes: usize) -> bool {
        entries >= self.entries_max || bytes >= self.bytes_max
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    pub entries: Vec<(Bytes, Bytes)>,
    /// A limit ended it before the range did.
    pub more: bool,
}

impl Scan {
    /// Of entries in memory, in the order in which they are given.
    pub fn of<'a>(entries: impl Iterator<Item = (&'a Vec<u8>, &'a Bytes)>, limits: ScanLimits) -> Self {
        let mut scan = Self::default();
        let mut bytes = 0;
        for (key, value) in entries {
            if limits.reached(scan.entries.len(), bytes) {
                scan.more = true;
                break;
            }
            bytes += key.len() + value.len();
            scan.entries.push((Bytes::copy_from_slice(key), value.clone()));
        }
        scan
    }
}

pub trait StateStore: StateReader {
    /// A view that stays as it is now while commits go on.
    fn snapshot(&self) -> Box<dyn StateReader>;
}

/// A name for both halves of storage, as the engine takes it.
pub trait Storage: TopicLog + StateStore {}
impl<T: TopicLog + StateStore> Storage for T {}

/// The partition a record with this key bytes goes to, as Kafka's default partitioner chooses: murmur2, sign bit
/// cleared, modulo the number of partitions.
pub fn partition_of(key: &[u8], partitions: i32) -> PartitionId {
    ((murmur2(key) & 0x7fff_ffff) % partitions.max(1) as u32) as PartitionId
}

/// Kafka's murmur2 (seed 0x9747b28c, 32 bit).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, b) in rest.iter().enumerate() {
            h ^= u32::from(*b) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own `Utils.murmur2`, as its published test lists them.
    #[test]
    fn murmur2_is_kafkas() {
        for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
        {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }
}

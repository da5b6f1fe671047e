//! Storage in memory: the same ports and the same order as the embedded log, for tests and `millpond test`.
//!
//! Nothing is durable, everything is stable at once, and there is one lock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::ports::{
    Assignment, Cursor, Done, Outcome, PartitionOffsets, ReadLimits, Scan, ScanLimits, StateReader, StateStore, Step,
    Ticket, TopicInfo, TopicLog, TopicSpec,
};
use crate::record::{OwnedRecord, Records, decode_headers};
use crate::{Error, Offset, Result, Sequence, TopicId, TopicPartition};

/// Ordered bytes; cloned as a whole for a snapshot, which is rare in tests.
type Pairs = BTreeMap<Vec<u8>, Bytes>;

#[derive(Default)]
pub struct MemoryStorage {
    inner: Mutex<Inner>,
    moved: Condvar,
    /// Most bytes of state that one read gave.
    largest_read: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    topics: BTreeMap<String, TopicInfo>,
    logs: BTreeMap<TopicPartition, Vec<(Sequence, OwnedRecord)>>,
    cursors: BTreeMap<(String, TopicPartition), Offset>,
    state: Arc<Pairs>,
    catalog: Pairs,
    sequence: Sequence,
    topics_created: u64,
}

impl MemoryStorage {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most bytes of state that one read has given so far.
    pub fn largest_read(&self) -> usize {
        self.largest_read.load(Ordering::Relaxed)
    }

    fn gave<'a>(&self, values: impl Iterator<Item = &'a Bytes>) {
        self.largest_read.fetch_max(values.map(Bytes::len).sum(), Ordering::Relaxed);
    }

    /// Creates a topic by itself, as an administrator would.
    pub fn create_topic(&self, spec: TopicSpec) -> Result<TopicInfo> {
        let mut inner = self.lock();
        inner.check_new_topic(&spec)?;
        Ok(inner.create_topic(&spec))
    }

    /// Appends a record as a producer would.
    pub fn produce(&self, partition: TopicPartition, record: OwnedRecord) -> Result<Offset> {
        let mut inner = self.lock();
        inner.sequence += 1;
        let sequence = inner.sequence;
        let log = inner.logs.get_mut(&partition).ok_or_else(|| unknown(partition))?;
        log.push((sequence, record));
        let offset = log.len() as Offset - 1;
        self.moved.notify_all();
        Ok(offset)
    }

    /// Everything in a topic, in the order in which it came.
    pub fn records_of(&self, topic: &TopicInfo) -> Vec<OwnedRecord> {
        let inner = self.lock();
        let partitions = (0..topic.partitions).map(|partition| TopicPartition { topic: topic.id, partition });
        let mut all: Vec<&(Sequence, OwnedRecord)> = partitions.filter_map(|p| inner.logs.get(&p)).flatten().collect();
        all.sort_by_key(|(sequence, _)| *sequence);
        all.into_iter().map(|(_, record)| record.clone()).collect()
    }

    /// Everything in a partition, in offset order.
    pub fn records(&self, partition: TopicPartition) -> Vec<OwnedRecord> {
        self.lock().logs.get(&partition).map_or_else(Vec::new, |log| log.iter().map(|(_, r)| r.clone()).collect())
    }
}

fn unknown(partition: TopicPartition) -> Error {
    Error::not_found(format!("there is no partition {} of topic {:?}", partition.partition, partition.topic))
}

impl Inner {
    fn check_new_topic(&self, spec: &TopicSpec) -> Result<()> {
        if self.topics.contains_key(&spec.name) {
            return Err(Error::conflict(format!("topic \"{}\" exists already", spec.name)));
        }
        if spec.partitions < 1 {
            return Err(Error::bad_request(format!("topic \"{}\" needs at least one partition", spec.name)));
        }
        Ok(())
    }

    fn create_topic(&mut self, spec: &TopicSpec) -> TopicInfo {
        self.topics_created += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.topics_created.to_be_bytes());
        let info = TopicInfo {
            id: TopicId(id),
            name: spec.name.clone(),
            partitions: spec.partitions,
            replicas: spec.replicas,
            configs: spec.configs.clone(),
        };
        for partition in 0..spec.partitions {
            self.logs.insert(TopicPartition { topic: info.id, partition }, Vec::new());
        }
        self.topics.insert(spec.name.clone(), info.clone());
        info
    }

    fn apply(&mut self, step: Step) -> Outcome {
        for spec in &step.create_topics {
            if let Err(e) = self.check_new_topic(spec) {
                return Outcome::Fatal(e.to_string());
            }
        }
        if let Some((partition, _)) = step.appends.iter().find(|(p, _)| !self.logs.contains_key(p)) {
            return Outcome::Fatal(unknown(*partition).to_string());
        }
        let created = step.create_topics.iter().map(|spec| self.create_topic(spec)).collect();
        for id in &step.delete_topics {
            self.topics.retain(|_, info| info.id != *id);
            self.logs.retain(|partition, _| partition.topic != *id);
        }
        for (partition, records) in &step.appends {
            self.sequence += 1;
            let sequence = self.sequence;
            if let Some(log) = self.logs.get_mut(partition) {
                log.extend(records.iter().map(|r| {
                    let record = OwnedRecord {
                        key: r.key.map(<[u8]>::to_vec),
                        value: r.value.map(<[u8]>::to_vec),
                        timestamp: r.timestamp,
                        headers: if r.headers.is_empty() {
                            vec![]
                        } else {
                            decode_headers(r.headers).unwrap_or_default()
                        },
                    };
                    (sequence, record)
                }));
            }
        }
        for query in &step.drop_cursors {
            self.cursors.retain(|(q, _), _| q != query);
        }
        for cursor in step.cursors {
            self.cursors.insert((cursor.query, cursor.source), cursor.offset);
        }
        if !step.drop_state.is_empty() || !step.state.is_empty() {
            let state = Arc::make_mut(&mut self.state);
            for (from, to) in step.drop_state {
                let doomed: Vec<Vec<u8>> = range_of(state, &from, &to).map(|(k, _)| k.clone()).collect();
                for key in doomed {
                    state.remove(&key);
                }
            }
            for (key, value) in step.state.iter() {
                match value {
                    Some(value) => state.insert(key.to_vec(), Bytes::copy_from_slice(value)),
                    None => state.remove(key),
                };
            }
        }
        write_pairs(&mut self.catalog, step.catalog);
        Outcome::Committed { sequence: self.sequence, created }
    }
}

fn write_pairs(pairs: &mut Pairs, writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, value) in writes {
        match value {
            Some(value) => pairs.insert(key, Bytes::from(value)),
            None => pairs.remove(&key),
        };
    }
}

fn range_of<'a>(pairs: &'a Pairs, from: &[u8], to: &[u8]) -> std::collections::btree_map::Range<'a, Vec<u8>, Bytes> {
    if from >= to {
        return pairs.range::<[u8], _>((Bound::Excluded(&[][..]), Bound::Excluded(&[0][..])));
    }
    pairs.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}

impl TopicLog for MemoryStorage {
    fn assignment(&self) -> Assignment {
        Assignment { generation: 0, tasks: None }
    }

    fn topics(&self) -> Vec<TopicInfo> {
        self.lock().topics.values().cloned().collect()
    }

    fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.lock().topics.get(name).cloned()
    }

    fn topic_by_id(&self, id: TopicId) -> Option<TopicInfo> {
        self.lock().topics.values().find(|info| info.id == id).cloned()
    }

    fn offsets(&self, partition: TopicPartition) -> Result<PartitionOffsets> {
        let inner = self.lock();
        let end = inner.logs.get(&partition).ok_or_else(|| unknown(partition))?.len() as Offset;
        Ok(PartitionOffsets { start: 0, stable_end: end, end })
    }

    fn read(&self, partition: TopicPartition, from: Offset, limits: ReadLimits) -> Result<Records> {
        let inner = self.lock();
        let log = inner.logs.get(&partition).ok_or_else(|| unknown(partition))?;
        let mut records = Records { next_offset: from, stable_end: log.len() as Offset, ..Records::default() };
        let mut size = 0;
        for (i, (sequence, record)) in log.iter().enumerate().skip(from.max(0) as usize) {
            if *sequence > limits.up_to
                || records.views.len() >= limits.records_max.max(1)
                || (size >= limits.bytes_max && !records.views.is_empty())
            {
                break;
            }
            size += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
            records.push(i as Offset, record.timestamp, *sequence, record);
        }
        Ok(records)
    }

    fn commit(&self, step: Step) -> Box<dyn Ticket> {
        let outcome = self.lock().apply(step);
        self.moved.notify_all();
        Box::new(Done(outcome))
    }

    fn sequence(&self) -> Sequence {
        self.lock().sequence
    }

    fn wait_past(&self, sequence: Sequence, timeout: Duration) -> Sequence {
        let guard = self.lock();
        let (guard, _) = self
            .moved
            .wait_timeout_while(guard, timeout, |inner| inner.sequence <= sequence)
            .unwrap_or_else(PoisonError::into_inner);
        guard.sequence
    }

    fn cursors(&self, query: &str) -> Result<Vec<Cursor>> {
        Ok(self
            .lock()
            .cursors
            .iter()
            .filter(|((q, _), _)| q == query)
            .map(|((q, source), offset)| Cursor { query: q.clone(), source: *source, offset: *offset })
            .collect())
    }

    fn catalog(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let inner = self.lock();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        Ok(inner
            .catalog
            .range::<[u8], _>(from)
            .take_while(|(k, _)| k.starts_with(prefix))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }
}

struct Snapshot(Arc<Pairs>);

impl StateReader for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        Ok(keys.iter().map(|key| self.0.get(*key).cloned()).collect())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan> {
        let range = range_of(&self.0, from, to);
        Ok(if reverse { Scan::of(range.rev(), limits) } else { Scan::of(range, limits) })
    }
}

impl StateReader for MemoryStorage {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.lock().state.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let state = self.lock().state.clone();
        let values = Snapshot(state).multi_get(keys)?;
        self.gave(values.iter().flatten());
        Ok(values)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan> {
        let state = self.lock().state.clone();
        let scan = Snapshot(state).scan(from, to, reverse, limits)?;
        self.gave(scan.entries.iter().map(|(_, value)| value));
        Ok(scan)
    }
}

impl StateStore for MemoryStorage {
    fn snapshot(&self) -> Box<dyn StateReader> {
        Box::new(Snapshot(self.lock().state.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordBuffer;

    fn spec(name: &str) -> TopicSpec {
        TopicSpec { name: name.into(), partitions: 2, replicas: 1, configs: BTreeMap::new() }
    }

    #[test]
    fn a_step_is_written_whole_or_not_at_all() {
        let storage = MemoryStorage::new();
        let topic = storage.create_topic(spec("a")).unwrap();
        let good = TopicPartition { topic: topic.id, partition: 0 };
        let bad = TopicPartition { topic: topic.id, partition: 9 };
        let mut records = RecordBuffer::default();
        records.push(None, Some(b"v"), 1, &[]);
        let step = Step {
            appends: vec![(good, records.clone()), (bad, records.clone())],
            state: vec![(b"k".to_vec(), Some(b"v".to_vec()))].into(),
            ..Step::default()
        };
        assert!(matches!(storage.commit(step).wait(), Outcome::Fatal(_)));
        assert_eq!(storage.offsets(good).unwrap().end, 0);
        assert_eq!(storage.get(b"k").unwrap(), None);

        let step = Step { appends: vec![(good, records)], ..Step::default() };
        assert!(matches!(storage.commit(step).wait(), Outcome::Committed { sequence: 1, .. }));
        assert_eq!(storage.records(good).len(), 1);
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let storage = MemoryStorage::new();
        let put = |v: &[u8]| Step { state: vec![(b"k".to_vec(), Some(v.to_vec()))].into(), ..Step::default() };
        storage.commit(put(b"1")).wait();
        let before = storage.snapshot();
        storage.commit(put(b"2")).wait();
        assert_eq!(before.get(b"k").unwrap().unwrap(), &b"1"[..]);
        assert_eq!(storage.range(b"a", b"z", false, 9).unwrap()[0].1, &b"2"[..]);
    }
}

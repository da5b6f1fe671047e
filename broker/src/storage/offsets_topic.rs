//! The topic `__consumer_offsets`, in which Kafka keeps what groups hold, for tools that read it instead of asking. It is not
//! where groups are kept here: nothing reads it but clients.
//!
//! It is made when somebody asks for it. From then on each write of groups' entries has their records too. What groups held
//! before is put in piece by piece, each by the writer with nothing else under way, so that what it reads is what is
//! written: a record is never older than another of its key that lies before it. How far that has come is written with
//! each piece, and the keeper goes on with it after a start.
//!
//! Not here: the bytes of records (`groups::in_topic`).

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_types::TopicId;
use millpond_types::ports::TopicSpec;
use millpond_types::record::RecordBuffer;
use rocksdb::{Direction, IteratorMode};

use super::Result;
use super::error::StorageError;
use super::housekeeping::Stop;
use super::pass::Pass;
use super::port::encode_options;
use super::shared::Shared;
use super::topics::{NewTopic, Topic};
use super::writer::Change;
use crate::batch::encode;
use crate::groups::{partition_of, record_of};
use crate::keys::{self, Fields, Kind};

pub const NAME: &str = "__consumer_offsets";
/// As many as Kafka gives it.
pub const PARTITIONS: i32 = 50;
const SEGMENT_BYTES: &str = "104857600";
/// No record takes more beside its key and its value, the head of its batch with it.
const RECORD_COST: usize = 128;
/// About so much of what groups hold is put in at once.
pub const PIECE_BYTES: usize = 256 << 10;

/// The topic that changes of groups are written to: by its id, so that one of that name which is an ordinary topic is left
/// alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsTopic {
    pub id: TopicId,
    /// What lies at and behind this key in storage is not in it yet, but for what changed since; `None`: all is.
    pub missing_from: Option<Vec<u8>>,
}

impl OffsetsTopic {
    /// Topic id [16], and u8 0, or u8 1 and the key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.id.0.to_vec();
        out.push(u8::from(self.missing_from.is_some()));
        out.extend(self.missing_from.iter().flatten());
        out
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let id = TopicId(fields.take()?);
        let missing_from = match (fields.u8()?, fields.0) {
            (0, []) => None,
            (1, key) => Some(key.to_vec()),
            _ => return None,
        };
        Some(Self { id, missing_from })
    }
}

fn new_topic(shared: &Shared) -> NewTopic {
    let configs = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", SEGMENT_BYTES)];
    let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let partitions = PARTITIONS.min(shared.options.topic_partitions_max).max(1);
    // Nobody else may create one of this name.
    NewTopic { spec: TopicSpec { name: NAME.into(), partitions, replicas: 1, configs: configs.into() } }
}

/// Makes the topic and fills it where it is not there.
pub async fn make(shared: &Shared) -> Result<()> {
    match shared.change(Change::CreateOffsetsTopic(new_topic(shared))).await {
        // By somebody else meanwhile, who may be filling it.
        Ok(_) | Err(StorageError::TopicExists(_)) => {}
        Err(e) => return Err(e),
    }
    while is_missing_some(shared) {
        shared.change(Change::FillOffsetsTopic).await?;
    }
    Ok(())
}

/// Whether something is missing in it.
fn is_missing_some(shared: &Shared) -> bool {
    shared.offsets_topic.lock().as_ref().is_some_and(|topic| topic.missing_from.is_some())
}

/// Puts in what is missing yet, while there is room for it.
pub fn fill(shared: &Shared, stop: &Stop) -> Result<()> {
    while is_missing_some(shared) && !shared.space.is_low() && !stop.wait(Duration::ZERO) {
        shared.change_blocking(Change::FillOffsetsTopic)?;
    }
    Ok(())
}

impl Pass<'_> {
    pub fn create_offsets_topic(&mut self, new: NewTopic) -> Result<()> {
        self.shared.check_new_topics(std::slice::from_ref(&new))?;
        let id = self.create_topic(new)?.id;
        self.set_offsets_topic(OffsetsTopic { id, missing_from: Some(Vec::new()) });
        Ok(())
    }

    fn set_offsets_topic(&mut self, topic: OffsetsTopic) {
        self.batch.put_cf(self.families.meta, keys::offsets_topic(), topic.encode());
        self.offsets_topic = Some(topic);
    }

    /// Called for a topic that is deleted.
    pub fn forget_offsets_topic(&mut self, topic: &Topic) {
        if self.offsets_topic.take_if(|of| of.id == topic.id).is_some() {
            self.batch.delete_cf(self.families.meta, keys::offsets_topic());
        }
    }

    /// Puts in a piece of what is missing, where nothing else is in this write.
    pub fn fill_offsets_topic(&mut self) -> Result<()> {
        let Some(topic) = self.offsets_topic.clone() else { return Ok(()) };
        let Some(from) = topic.missing_from else { return Ok(()) };
        let (from, db) = (keys::prefixed(Kind::Group, &from), self.shared.db()?);
        let (mut entries, mut bytes, mut missing_from) = (Vec::new(), 0, None);
        for entry in db.iterator_cf(self.families.group, IteratorMode::From(&from, Direction::Forward)) {
            let (key, value) = entry?;
            let Some(key) = key.strip_prefix(&[Kind::Group as u8]) else { break };
            if bytes >= PIECE_BYTES {
                missing_from = Some(key.to_vec());
                break;
            }
            bytes += key.len() + value.len();
            entries.push((key.to_vec(), Some(value.into_vec())));
        }
        self.tell_offsets_topic(&entries);
        self.set_offsets_topic(OffsetsTopic { id: topic.id, missing_from });
        Ok(())
    }

    /// Appends records of groups' entries to the topic, where there is one.
    pub fn tell_offsets_topic(&mut self, entries: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let Some(topic) = self.offsets_topic.as_ref().and_then(|of| self.shared.topic(of.id).ok()) else { return };
        let options = encode_options(&topic.settings, self.now_ms);
        let mut partitions: BTreeMap<i32, RecordBuffer> = BTreeMap::new();
        for (key, value) in entries {
            let Some(record) = record_of(key, value.as_deref()) else { continue };
            let partition = partition_of(&record.group, topic.partition_count());
            let size = record.key.len() + record.value.as_ref().map_or(0, Vec::len);
            // Kafka has no place for such a group either.
            if size + RECORD_COST > options.batch_bytes_max {
                tracing::debug!(group = record.group, size, "too large for the topic of groups' offsets");
                continue;
            }
            let records = partitions.entry(partition).or_default();
            records.push(Some(&record.key), record.value.as_deref(), self.now_ms, &[]);
        }
        for (index, records) in partitions {
            let Some(partition) = topic.partition(index) else { continue };
            for batch in encode(&records, options).unwrap_or_default() {
                self.append(partition, batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_types::TopicPartition;

    use super::super::{Storage, StorageOptions};
    use super::*;
    use crate::groups::{Committed, OffsetKey, offset_entry};

    fn options(path: &std::path::Path) -> StorageOptions {
        let mut options = StorageOptions::new(path);
        options.durability = super::super::Durability::None;
        options.disk_free_bytes_min = 0;
        options
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn what_is_known_of_it_survives_the_round_trip() {
        for missing_from in [None, Some(vec![]), Some(vec![1, 0, 2])] {
            let topic = OffsetsTopic { id: TopicId([7; 16]), missing_from };
            let value = topic.encode();
            assert_eq!(OffsetsTopic::decode(&value), Some(topic));
            assert!((0..17).all(|cut| OffsetsTopic::decode(&value[..cut]).is_none()));
        }
        assert_eq!(OffsetsTopic::decode(&[[7; 16].as_slice(), &[0, 1]].concat()), None);
        assert_eq!(OffsetsTopic::decode(&[[7; 16].as_slice(), &[2]].concat()), None);
    }

    #[test]
    fn a_start_goes_on_with_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(options(directory.path())).unwrap();
        let committed = Committed {
            topic_id: TopicId([1; 16]),
            offset: 5,
            leader_epoch: -1,
            metadata: "x".repeat(1000),
            committed_at: 0,
            expires_at: -1,
        };
        let all = 1000;
        let key = |partition| OffsetKey { topic: "t".into(), partition };
        let entries = (0..all).map(|partition| offset_entry("g", &key(partition), Some(&committed))).collect();
        block_on(storage.group_write(entries)).unwrap();
        let shared = &storage.shared;
        shared.change_blocking(Change::CreateOffsetsTopic(new_topic(shared))).unwrap();
        let topic = storage.find_topic(NAME).unwrap();
        let place = TopicPartition { topic: topic.id, partition: partition_of("g", topic.partition_count()) };
        shared.change_blocking(Change::FillOffsetsTopic).unwrap();
        storage.close().unwrap();
        drop(storage);
        let storage = Storage::open(options(directory.path())).unwrap();
        let end = || storage.partition_offsets(place).unwrap().end;
        for _ in 0..1000 {
            if !is_missing_some(&storage.shared) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert_eq!((is_missing_some(&storage.shared), end()), (false, i64::from(all)), "each once");
        block_on(storage.group_write(vec![offset_entry("g", &key(3), None)])).unwrap();
        assert_eq!(end(), i64::from(all) + 1);
    }

    /// Earlier versions let clients create one.
    #[test]
    fn an_ordinary_topic_of_that_name_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(options(directory.path())).unwrap();
        let spec = TopicSpec { name: NAME.into(), partitions: 1, replicas: 1, configs: BTreeMap::new() };
        let topic = storage.shared.change_blocking(Change::CreateTopic(NewTopic { spec }));
        let topic = topic.map(|_| storage.find_topic(NAME).unwrap().id).unwrap();
        let key = OffsetKey { topic: "t".into(), partition: 0 };
        let place = TopicPartition { topic, partition: 0 };
        assert_eq!(block_on(storage.make_offsets_topic()).unwrap().id, topic);
        block_on(storage.group_write(vec![offset_entry("g", &key, None)])).unwrap();
        assert_eq!(storage.partition_offsets(place).unwrap().end, 0);
        block_on(storage.delete_topic(topic)).unwrap();
        let made = block_on(storage.make_offsets_topic()).unwrap();
        block_on(storage.group_write(vec![offset_entry("g", &key, None)])).unwrap();
        let place = TopicPartition { topic: made.id, partition: partition_of("g", PARTITIONS) };
        assert_eq!(storage.partition_offsets(place).unwrap().end, 1);
    }
}

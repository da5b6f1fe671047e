//! A storage in a directory of its own, with a clock that the test moves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_broker::batch::{BatchHeader, Codec, EncodeOptions, HEADER_LEN, encode};
use millpond_broker::storage::{Appended, Durability, OpenError, Storage, StorageError, StorageOptions};
use millpond_types::ports::{Outcome, ReadLimits, Step, TopicInfo, TopicLog, TopicSpec};
use millpond_types::record::RecordBuffer;
use millpond_types::{ManualClock, Offset, TopicPartition};

pub const START_MS: i64 = 1_000_000;

pub struct Fixture {
    pub storage: Storage,
    pub clock: Arc<ManualClock>,
    pub options: StorageOptions,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut StorageOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START_MS));
        let mut options = options(directory.path());
        options.clock = clock.clone();
        change(&mut options);
        Self { storage: open(options.clone()).unwrap(), clock, options, _directory: directory }
    }

    /// Opens again after a clean end, or after the end of all threads without one.
    pub fn reopen(self, clean: bool) -> Self {
        if clean {
            self.storage.close().unwrap();
        }
        drop(self.storage);
        Self { storage: open(self.options.clone()).unwrap(), ..self }
    }
}

/// Opens what may just have been closed: a process that another test begins holds the lock too, from its fork to its exec.
pub fn open(options: StorageOptions) -> Result<Storage, OpenError> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match Storage::open(options.clone()) {
            Err(OpenError::Locked(_)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
}

pub fn options(path: &Path) -> StorageOptions {
    let mut options = StorageOptions::new(path);
    options.durability = Durability::None;
    // All batches go to log files, however small.
    options.inline_bytes_max = 0;
    // What is old goes at once.
    options.retention_grace = Duration::ZERO;
    options.disk_reserve_bytes = 0;
    options
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn spec(name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicSpec {
    let configs: BTreeMap<_, _> = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    TopicSpec { name: name.into(), partitions, replicas: 1, configs }
}

pub fn create(storage: &Storage, name: &str, configs: &[(&str, &str)]) -> TopicPartition {
    let topic = block_on(storage.create_topic(spec(name, 1, configs))).unwrap();
    TopicPartition { topic: topic.id, partition: 0 }
}

/// A batch of text values with their times.
pub fn batch(rows: &[(&str, i64)], codec: Codec) -> Bytes {
    let mut records = RecordBuffer::default();
    for (value, time) in rows {
        records.push(Some(b"k"), Some(value.as_bytes()), *time, &[]);
    }
    let options =
        EncodeOptions { compression: codec.into(), batch_bytes_max: 1 << 20, log_append_time: None, room_before: 0 };
    encode(&records, options).unwrap().remove(0).bytes.into()
}

pub fn produce(storage: &Storage, place: TopicPartition, batch: &Bytes) -> Result<Appended, StorageError> {
    block_on(async { storage.append(place, storage.prepare(place, batch).await?).await?.await })
}

pub fn send(storage: &Storage, place: TopicPartition, values: &[&str]) -> Appended {
    let rows: Vec<_> = values.iter().map(|v| (*v, START_MS)).collect();
    produce(storage, place, &batch(&rows, Codec::None)).unwrap()
}

pub fn step(storage: &Storage, step: Step) -> Outcome {
    storage.commit(step).wait()
}

pub const ALL: ReadLimits = ReadLimits { records_max: usize::MAX, bytes_max: usize::MAX, up_to: u64::MAX };

/// Offsets and values of a partition from `from` to its end.
pub fn read_all(storage: &Storage, place: TopicPartition, mut from: Offset) -> Vec<(Offset, String)> {
    let mut rows = Vec::new();
    loop {
        let records = storage.read(place, from, ALL).unwrap();
        for row in 0..records.views.len() {
            let value = String::from_utf8_lossy(records.value(row).unwrap()).into_owned();
            rows.push((records.views[row].offset, value));
        }
        if records.next_offset >= records.stable_end {
            return rows;
        }
        assert!(records.next_offset > from, "no progress at {from}");
        from = records.next_offset;
    }
}

pub fn topic(storage: &Storage, name: &str) -> TopicInfo {
    storage.topic(name).unwrap()
}

/// Bytes of log files that batches lie in.
pub fn live_in_files(storage: &Storage) -> u64 {
    let measured = storage.measure();
    measured.log_file_bytes - measured.log_file_dead_bytes
}

/// Gives an uncompressed batch a producer.
pub fn with_producer(batch: &Bytes, id: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    (header.producer_id, header.producer_epoch, header.base_sequence) = (id, epoch, sequence);
    let mut out = Vec::new();
    header.put(&mut out);
    out.extend_from_slice(&batch[HEADER_LEN..]);
    let crc = crc32c_of(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

/// The checksum bit by bit, so that the test does not trust the code it tests.
pub fn crc32c_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

pub fn produce_with_id(storage: &Storage, place: TopicPartition, id: i64, sequence: i32) -> Option<Appended> {
    produce(storage, place, &with_producer(&batch(&[("p", START_MS)], Codec::None), id, 0, sequence)).ok()
}

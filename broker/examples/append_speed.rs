//! Measures appends: batches of 1 KB, 16 KB and 1 MB through the whole way of a produced batch, from the checks to the
//! acknowledgement. `cargo run -p millpond-broker --example append_speed [DIRECTORY]`
#![allow(clippy::disallowed_methods, reason = "how long something takes is what is told here")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_broker::batch::{Codec, EncodeOptions, encode};
use millpond_broker::storage::{Durability, FetchLimits, Storage, StorageOptions};
use millpond_types::TopicPartition;
use millpond_types::ports::{ReadLimits, TopicLog, TopicSpec};
use millpond_types::record::RecordBuffer;

/// Batches that a producer has under way at once.
const IN_FLIGHT: usize = 16;
/// Written per run: so much, or so many batches.
const BYTES_MAX: usize = 512 << 20;
const BATCHES_MAX: usize = 64 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "append_speed_data".into());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for durability in [Durability::None, Durability::Interval(Duration::from_millis(50)), Durability::Group] {
        for size in [1 << 10, 16 << 10, 1 << 20] {
            let mut options = StorageOptions::new(format!("{directory}/run"));
            options.durability = durability;
            let started = Instant::now();
            let storage = Storage::open(options)?;
            let opened = started.elapsed();
            let idle = resident_mb();
            let rate = runtime.block_on(append(&storage, size))?;
            let place = TopicPartition { topic: storage.topics()[0].id, partition: 0 };
            println!(
                "{durability:?} {} KB: open {opened:?}, idle {idle} MB, append {rate:.0} MB/s, fetch {:.0} MB/s, read {:.1} M records/s, read hot {:.1} M records/s, resident {} MB",
                size >> 10,
                fetch(&storage, place)?,
                read(&storage, place)?,
                read_hot(&storage, place)?,
                resident_mb(),
            );
            storage.close()?;
            std::fs::remove_dir_all(format!("{directory}/run"))?;
        }
    }
    Ok(())
}

fn batch(size: usize) -> Result<Bytes, Box<dyn std::error::Error>> {
    let mut records = RecordBuffer::default();
    let value = [b'v'; 200];
    while records.size() < size - size / 12 {
        records.push(Some(b"a key of it"), Some(&value), 1, &[]);
    }
    let options = EncodeOptions {
        compression: Codec::None.into(),
        batch_bytes_max: 1 << 20,
        log_append_time: None,
        room_before: 0,
    };
    let mut batches = encode(&records, options).map_err(|e| format!("{e:?}"))?;
    Ok(batches.swap_remove(0).bytes.into())
}

/// Appends to four partitions in turn; MB/s.
async fn append(storage: &Storage, size: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let spec = TopicSpec { name: "t".into(), partitions: 4, replicas: 1, configs: Default::default() };
    let topic = storage.create_topic(spec).await?.id;
    let batch = batch(size)?;
    let started = Instant::now();
    let mut pending = VecDeque::new();
    let batches = (BYTES_MAX / batch.len()).min(BATCHES_MAX);
    for i in 0..batches {
        let place = TopicPartition { topic, partition: i as i32 % 4 };
        let prepared = storage.prepare(place, &batch).await?;
        pending.push_back(storage.append(place, prepared).await?);
        if pending.len() >= IN_FLIGHT
            && let Some(first) = pending.pop_front()
        {
            first.await?;
        }
    }
    for pending in pending {
        pending.await?;
    }
    Ok((batches * batch.len()) as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn fetch(storage: &Storage, place: TopicPartition) -> Result<f64, Box<dyn std::error::Error>> {
    let (started, mut offset, mut bytes) = (Instant::now(), 0, 0);
    loop {
        let fetched =
            storage.fetch(place, offset, FetchLimits { bytes_max: 1 << 20, at_least_one: true, committed: false })?;
        let Some(last) = fetched.batches.last() else { break };
        let header = millpond_broker::batch::BatchHeader::parse(last).ok_or("a batch without header")?;
        offset = header.last_offset() + 1;
        bytes += fetched.bytes;
    }
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn read(storage: &Storage, place: TopicPartition) -> Result<f64, Box<dyn std::error::Error>> {
    let limits = ReadLimits { records_max: 10_000, bytes_max: 4 << 20, up_to: u64::MAX };
    let (started, mut offset) = (Instant::now(), 0);
    loop {
        let records = storage.read(place, offset, limits)?;
        if records.next_offset == offset {
            break;
        }
        offset = records.next_offset;
    }
    Ok(offset as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// The last 4 MB, which are in memory, again and again.
fn read_hot(storage: &Storage, place: TopicPartition) -> Result<f64, Box<dyn std::error::Error>> {
    let limits = ReadLimits { records_max: usize::MAX, bytes_max: 2 << 20, up_to: u64::MAX };
    let end = storage.partition_offsets(place)?.end;
    let (started, mut records) = (Instant::now(), 0);
    for _ in 0..200 {
        records += storage.read(place, end - 10_000, limits)?.views.len();
    }
    Ok(records as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) >> 10
}

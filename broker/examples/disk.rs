//! Measures what the log takes of a disk: space after deletions of each kind, how long it takes until it is back, how
//! many bytes are written for one that was sent, and what compaction costs those who produce beside it.
//! `cargo run -p millpond-broker --example disk [DIRECTORY]`; the directory is made, and removed at the end.
#![allow(clippy::disallowed_methods, reason = "how long something takes is what is told here")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_broker::batch::{Codec, EncodeOptions, encode};
use millpond_broker::storage::{Durability, Storage, StorageOptions};
use millpond_types::TopicPartition;
use millpond_types::ports::TopicSpec;
use millpond_types::record::RecordBuffer;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MB: u64 = 1 << 20;
const KEYS: usize = 16 << 10;
const VALUE_BYTES: usize = 1000;
const BATCH_RECORDS: usize = 64;
const PARTITIONS: i32 = 4;
/// Of topics with different retention, and how long one takes.
const LIFETIMES_ROUNDS: usize = 256;
const ROUND: Duration = Duration::from_millis(250);
/// Longer is not waited for space.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "disk_data".into()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("| what | sent | live | on disk before | at rest | after | written per byte sent |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    runtime.block_on(async {
        deletions(&directory, "nothing deleted", &[], 0).await?;
        deletions(&directory, "retention.bytes", &[("retention.bytes", "16777216")], 1).await?;
        deletions(&directory, "retention.ms", &[("retention.ms", "3000")], 2).await?;
        deletions(&directory, "DeleteRecords, three quarters", &[], 3).await?;
        deletions(&directory, "topic deleted", &[], 4).await?;
        deletions(&directory, "one topic of two deleted", &[], 5).await?;
        beside_each_other(&directory).await?;
        compaction(&directory, "none").await?;
        compaction(&directory, "lz4").await?;
        println!();
        latency(&directory).await
    })
}

async fn open(directory: &Path, change: impl FnOnce(&mut StorageOptions)) -> Result<Storage> {
    let mut options = StorageOptions::new(directory);
    options.durability = Durability::None;
    options.retention_interval = Duration::from_secs(1);
    options.retention_grace = Duration::from_secs(1);
    options.compaction_interval = Duration::from_secs(3600);
    change(&mut options);
    Ok(Storage::open(options)?)
}

async fn topic(storage: &Storage, name: &str, configs: &[(&str, &str)]) -> Result<Vec<TopicPartition>> {
    let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replicas: 1, configs };
    let topic = storage.create_topic(spec).await?;
    Ok((0..PARTITIONS).map(|partition| TopicPartition { topic: topic.id, partition }).collect())
}

/// Records of about a kilobyte that do not compress to nothing, from key number `first` on.
fn batch(first: usize, round: usize, count: usize, codec: Codec) -> Result<Bytes> {
    let mut records = RecordBuffer::default();
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    for key in first..first + count {
        value.clear();
        let mut random = (key * 1_000_003 + round) as u64 | 1;
        while value.len() < VALUE_BYTES {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value.extend_from_slice(format!("{:08x},", random >> 32).as_bytes());
        }
        records.push(Some(format!("key {key}").as_bytes()), Some(&value), now_ms, &[]);
    }
    let options =
        EncodeOptions { compression: codec.into(), batch_bytes_max: 1 << 20, log_append_time: None, room_before: 0 };
    Ok(encode(&records, options).map_err(|e| format!("{e:?}"))?.swap_remove(0).bytes.into())
}

/// Sends all keys once, spread over partitions; returns the bytes.
async fn send(storage: &Storage, places: &[TopicPartition], round: usize, codec: Codec) -> Result<u64> {
    let (mut sent, mut pending) = (0, Vec::new());
    for (i, first) in (0..KEYS).step_by(BATCH_RECORDS).enumerate() {
        let Some(place) = places.get(i % places.len()) else { continue };
        let batch = batch(first, round, BATCH_RECORDS, codec)?;
        sent += batch.len() as u64;
        pending.push(storage.append(*place, storage.prepare(*place, &batch).await?).await?);
    }
    for pending in pending {
        pending.await?;
    }
    Ok(sent)
}

async fn deletions(directory: &Path, what: &str, configs: &[(&str, &str)], how: usize) -> Result<()> {
    let storage = open(directory, |_| {}).await?;
    let places = topic(&storage, "t", configs).await?;
    let other = topic(&storage, "other", &[]).await?;
    let written = written()?;
    let mut sent = 0;
    for round in 0..24 {
        sent += send(&storage, &places, round, Codec::None).await?;
        if how == 5 {
            sent += send(&storage, &other, round, Codec::None).await?;
        }
    }
    let before = on_disk(directory)?;
    let started = Instant::now();
    match how {
        3 => {
            for place in &places {
                let end = storage.partition_offsets(*place)?.end;
                storage.delete_records(*place, end / 4 * 3).await?;
            }
        }
        4 | 5 => storage.delete_topic(places.first().ok_or("no partition")?.topic).await?,
        _ => {}
    }
    rest(&storage, directory, &[places, other].concat(), (what, sent, before, written, started)).await
}

/// Of sixteen rounds twelve go to a topic that keeps 64 MB, three to one that keeps 256 MB, and one to a topic that keeps all.
/// Before it is at rest, the most is told that was on disk in the second half.
async fn beside_each_other(directory: &Path) -> Result<()> {
    let storage = open(directory, |_| {}).await?;
    let short = topic(&storage, "short", &[("retention.bytes", "16777216")]).await?;
    let medium = topic(&storage, "medium", &[("retention.bytes", "67108864")]).await?;
    let long = topic(&storage, "long", &[]).await?;
    let (written, started) = (written()?, Instant::now());
    let (mut sent, mut most) = (0, 0);
    for round in 0..LIFETIMES_ROUNDS {
        let places = match round % 16 {
            5 => &long,
            2 | 7 | 12 => &medium,
            _ => &short,
        };
        sent += send(&storage, places, round, Codec::None).await?;
        if round >= LIFETIMES_ROUNDS / 2 {
            most = most.max(on_disk(directory)?);
        }
        // As much in a second as a disk takes beside other things.
        tokio::time::sleep_until((started + ROUND * (round as u32 + 1)).into()).await;
    }
    let what = "short, medium and long retention, 12 : 3 : 1";
    rest(&storage, directory, &[short, medium, long].concat(), (what, sent, most, written, Instant::now())).await
}

/// Waits until the disk has what it will get back, and prints the line.
async fn rest(
    storage: &Storage,
    directory: &Path,
    places: &[TopicPartition],
    (what, sent, before, written_before, started): (&str, u64, u64, u64, Instant),
) -> Result<()> {
    let (mut last, mut since) = (on_disk(directory)?, Instant::now());
    // At rest: nothing changed for some seconds.
    while since.elapsed() < Duration::from_secs(6) && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = on_disk(directory)?;
        if now.abs_diff(last) > MB {
            (last, since) = (now, Instant::now());
        }
    }
    let live: u64 = places.iter().map(|place| storage.partition_bytes(*place).unwrap_or(0)).sum();
    let wrote = (written()? - written_before) as f64 / sent as f64;
    let took = since.duration_since(started).as_secs_f64();
    println!(
        "| {what} | {} MB | {} MB | {} MB | {} MB | {took:.1} s | {wrote:.2} |",
        sent / MB,
        live / MB,
        before / MB,
        on_disk(directory)? / MB,
    );
    storage.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

async fn compaction(directory: &Path, codec: &str) -> Result<()> {
    let storage = open(directory, |o| o.compaction_interval = Duration::from_secs(1)).await?;
    let places = topic(&storage, "t", &[("cleanup.policy", "compact")]).await?;
    let written = written()?;
    let (mut sent, started) = (0, Instant::now());
    for round in 0..24 {
        sent += send(&storage, &places, round, Codec::by_name(codec).unwrap_or(Codec::None)).await?;
    }
    let before = on_disk(directory)?;
    let what = format!("compaction, each of {KEYS} keys 24 times, {codec}");
    rest(&storage, directory, &places, (&what, sent, before, written, started)).await
}

/// What one who sends single records at a fixed rate waits, alone and beside a compaction.
async fn latency(directory: &Path) -> Result<()> {
    println!("| durability | one record each 2 ms | p50 | p99 | p99.9 |");
    println!("|---|---|---:|---:|---:|");
    for durability in [Durability::None, Durability::Group] {
        let storage = open(directory, |o| o.durability = durability).await?;
        let places = topic(&storage, "t", &[("cleanup.policy", "compact")]).await?;
        let single = topic(&storage, "single", &[]).await?;
        let place = *single.first().ok_or("no partition")?;
        for round in 0..12 {
            send(&storage, &places, round, Codec::None).await?;
        }
        let one = batch(0, 0, 1, Codec::None)?;
        for beside in ["alone", "beside a compaction"] {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let (compacting, places) = (storage.clone(), places.clone());
            let busy = beside != "alone";
            let worker = tokio::task::spawn_blocking(move || -> millpond_types::Result<usize> {
                let (mut stopped, mut passes) = (stopped, 0);
                while busy && stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                    for place in &places {
                        passes += compacting.compact(*place)?.passes;
                    }
                }
                Ok(passes)
            });
            let mut times = Vec::new();
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            for _ in 0..2500 {
                tick.tick().await;
                let sent = Instant::now();
                storage.append(place, storage.prepare(place, &one).await?).await?.await?;
                times.push(sent.elapsed());
            }
            drop(stop);
            let passes = worker.await??;
            times.sort_unstable();
            let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
            println!(
                "| {durability:?} | {beside}{} | {:.2} ms | {:.2} ms | {:.2} ms |",
                if busy { format!(", {passes} passes") } else { String::new() },
                at(0.5).as_secs_f64() * 1e3,
                at(0.99).as_secs_f64() * 1e3,
                at(0.999).as_secs_f64() * 1e3,
            );
        }
        storage.close()?;
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}

/// Blocks of all files.
fn on_disk(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // What was removed meanwhile takes nothing.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        sum += if metadata.is_dir() { on_disk(&path)? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

/// Bytes that this process gave to the operating system to write.
fn written() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|l| l.strip_prefix("wchar: ")).ok_or("no wchar in /proc/self/io")?;
    Ok(line.trim().parse()?)
}

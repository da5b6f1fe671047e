//! A process that is killed while it writes loses nothing that it acknowledged, and keeps no half of a step.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_broker::storage::{Durability, StorageOptions};
use millpond_types::ports::{Cursor, Outcome, StateReader, Step, TopicLog};
use millpond_types::record::RecordBuffer;
use millpond_types::{ManualClock, TopicPartition};

use crate::actor::wait_until;
use crate::fixture::{START_MS, block_on, create, open, options, read_all, send, spec, step, topic};

const DIRECTORY: &str = "MILLPOND_TEST_CRASH_DIRECTORY";

/// Writes until it is killed; without the variable it has nothing to do.
#[test]
fn writer_to_be_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let mut options = options(Path::new(&directory));
    options.durability = if directory.ends_with("group") { Durability::Group } else { Durability::None };
    let storage = open(options).unwrap();
    let place = match storage.topic("t") {
        Some(topic) => TopicPartition { topic: topic.id, partition: 0 },
        None => create(&storage, "t", &[]),
    };
    for i in storage.partition_offsets(place).unwrap().end.. {
        let mut records = RecordBuffer::default();
        records.push(None, Some(format!("v{i}").as_bytes()), 1, &[]);
        let next = Step {
            appends: vec![(place, records)],
            cursors: vec![Cursor { query: "q".into(), source: place, offset: i + 1 }],
            state: vec![(b"count".to_vec(), Some((i + 1).to_be_bytes().to_vec()))].into(),
            create_topics: if i % 50 == 0 { vec![spec(&format!("t{i}"), 1, &[])] } else { vec![] },
            ..Step::default()
        };
        match step(&storage, next) {
            Outcome::Committed { .. } => println!("acknowledged {i}"),
            Outcome::Retry(why) => {
                assert_eq!(storage.partition_offsets(place).unwrap().end, i);
                assert_eq!(storage.sequence(), i as u64);
                assert_eq!(storage.get(b"count").unwrap().unwrap(), i.to_be_bytes()[..]);
                println!("refused: {why}");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    for mode in ["none", "group"] {
        let path = directory.path().join(mode);
        let mut last = -1;
        for round in 0..3 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash::writer_to_be_killed", "--nocapture"])
                .env(DIRECTORY, &path)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let started = std::time::Instant::now();
            let mut killed = false;
            for line in lines {
                // The rest of what it wrote before it died still comes.
                if let Some((_, i)) = line.unwrap().split_once("acknowledged ") {
                    last = i.parse::<i64>().unwrap();
                }
                if !killed && last > 150 * (round + 1) && started.elapsed() > Duration::from_millis(50) {
                    child.kill().unwrap();
                    killed = true;
                }
            }
            child.wait().unwrap();
            assert!(killed, "the writer ended by itself after {last}");

            check_whole_steps(&path, last);
        }
    }
}

/// Opens what the writer left: its acknowledged steps are there, and each step is there whole.
fn check_whole_steps(path: &Path, last: i64) {
    let storage = open(options(path)).unwrap();
    let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
    let rows = read_all(&storage, place, 0);
    let end = rows.len() as i64;
    assert!(end > last, "{last} was acknowledged, but the log ends at {end}");
    assert!(rows.iter().enumerate().all(|(i, (offset, v))| *offset == i as i64 && *v == format!("v{i}")));
    assert_eq!(storage.cursors("q").unwrap()[0].offset, end);
    assert_eq!(storage.get(b"count").unwrap().unwrap(), end.to_be_bytes()[..]);
    assert_eq!(storage.topics().len() as i64, 1 + (end + 49) / 50);
    assert_eq!(storage.sequence(), end as u64);
}

/// A limit on the size of files fails writes in the middle of a record, as a full disk does.
#[test]
fn a_write_that_fails_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" --exact crash::writer_to_be_killed --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, &path)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("refused: storage failed"), "{output}");
    let last = output.lines().filter_map(|l| l.split_once("acknowledged ")).next_back().unwrap().1;
    check_whole_steps(&path, last.parse().unwrap());
}

const COMPACTED: &str = "MILLPOND_TEST_CRASH_COMPACTED";
const KEYS: i64 = 17;

/// Writes keys over and over while they are compacted, until it is killed; without the variable it has nothing to do.
#[test]
fn compactor_to_be_killed() {
    let Ok(directory) = std::env::var(COMPACTED) else { return };
    let mut options = options(Path::new(&directory));
    options.segment_bytes = 2000;
    options.active_bytes_max = 0;
    options.tail_partition_bytes = 1000;
    let storage = open(options).unwrap();
    let place = match storage.topic("t") {
        Some(topic) => TopicPartition { topic: topic.id, partition: 0 },
        None => create(&storage, "t", &[("cleanup.policy", "compact"), ("delete.retention.ms", "0")]),
    };
    let compactor = storage.clone();
    std::thread::spawn(move || {
        while let Ok(done) = compactor.compact(place) {
            println!("compacted {}", done.to);
        }
    });
    for i in storage.partition_offsets(place).unwrap().end.. {
        let mut records = RecordBuffer::default();
        let (key, value) = (format!("k{}", i % KEYS), format!("v{i}"));
        records.push(Some(key.as_bytes()), Some(value.as_bytes()), 1, &[]);
        let state = vec![(b"count".to_vec(), Some((i + 1).to_be_bytes().to_vec()))];
        let next = Step { appends: vec![(place, records)], state: state.into(), ..Step::default() };
        assert!(matches!(step(&storage, next), Outcome::Committed { .. }));
        println!("acknowledged {i}");
    }
}

#[test]
fn a_kill_while_compacting_leaves_a_right_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let rounds = if std::env::var_os("SLOW").is_some() { 50 } else { 10 };
    let mut last = -1;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::compactor_to_be_killed", "--nocapture"])
            .env(COMPACTED, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (first, mut killed, mut compactions) = (last, false, 0);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, i)) = line.split_once("acknowledged ") {
                last = i.parse::<i64>().unwrap();
            }
            compactions += i64::from(line.contains("compacted "));
            if !killed && compactions > 2 + round % 5 && last > first + 100 + 13 * round {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "it ended by itself after {last}");

        let storage = open(options(&path)).unwrap();
        let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
        let rows = read_all(&storage, place, 0);
        let end = storage.partition_offsets(place).unwrap().end;
        assert!(end > last, "{last} was acknowledged, but the log ends at {end}");
        assert_eq!(storage.get(b"count").unwrap().unwrap(), end.to_be_bytes()[..]);
        assert!(rows.iter().all(|(offset, value)| *value == format!("v{offset}")), "something is elsewhere");
        assert!(rows.is_sorted());
        for offset in (end - KEYS).max(0)..end {
            assert!(rows.iter().any(|r| r.0 == offset), "the newest of a key, {offset}, is missing");
        }
        let all = storage.compact(place).unwrap();
        assert!(read_all(&storage, place, 0).iter().filter(|r| r.0 < all.to).count() <= KEYS as usize);
    }
}

const MOVED: &str = "MILLPOND_TEST_CRASH_MOVED";

/// The same number of batches goes to a topic that stays and, before it, to one that is deleted again and again, until it is
/// killed; without the variable it has nothing to do.
#[test]
fn mover_to_be_killed() {
    let Ok(directory) = std::env::var(MOVED) else { return };
    let storage = open(moving(Path::new(&directory))).unwrap();
    let place = match storage.topic("stays") {
        Some(topic) => TopicPartition { topic: topic.id, partition: 0 },
        None => create(&storage, "stays", &[]),
    };
    let (mover, rounds) = (storage.clone(), Arc::new(AtomicU64::new(0)));
    std::thread::spawn({
        let rounds = rounds.clone();
        move || {
            while mover.reclaim().is_ok() {
                rounds.fetch_add(1, Ordering::Relaxed);
                println!("moved");
            }
        }
    });
    let mut goes = None;
    for i in storage.partition_offsets(place).unwrap().end.. {
        if i % 30 == 0 || goes.is_none() {
            // It does not end as long as something is written.
            let before = rounds.load(Ordering::Relaxed);
            wait_until("it is not moved", || rounds.load(Ordering::Relaxed) > before);
            if let Some(topic) = storage.topic("goes") {
                block_on(storage.delete_topic(topic.id)).unwrap();
            }
            goes = Some(create(&storage, "goes", &[]));
        }
        if let Some(goes) = goes {
            send(&storage, goes, &[&"x".repeat(900)]);
        }
        send(&storage, place, &[&format!("v{i}")]);
        println!("acknowledged {i}");
    }
}

fn moving(path: &Path) -> StorageOptions {
    let mut options = options(path);
    options.durability = if path.ends_with("group") { Durability::Group } else { Durability::None };
    options.log_file_bytes = 5000;
    options.tail_bytes = 0;
    // Nothing becomes too old.
    options.clock = Arc::new(ManualClock::at(START_MS));
    options
}

#[test]
fn a_kill_while_batches_are_moved_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let rounds = if std::env::var_os("SLOW").is_some() { 25 } else { 5 };
    for mode in ["none", "group"] {
        let path = directory.path().join(mode);
        let mut last = -1;
        for round in 0..rounds {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash::mover_to_be_killed", "--nocapture"])
                .env(MOVED, &path)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (first, mut killed, mut moved) = (last, false, 0);
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                let line = line.unwrap();
                if let Some((_, i)) = line.split_once("acknowledged ") {
                    last = i.parse::<i64>().unwrap();
                }
                moved += i64::from(line.contains("moved"));
                if !killed && moved > round % 3 && last > first + 60 + 11 * round {
                    child.kill().unwrap();
                    killed = true;
                }
            }
            child.wait().unwrap();
            assert!(killed, "it ended by itself after {last}");

            let storage = open(moving(&path)).unwrap();
            let place = TopicPartition { topic: topic(&storage, "stays").id, partition: 0 };
            let check = || {
                let rows = read_all(&storage, place, 0);
                assert!(rows.len() as i64 > last, "{last} was acknowledged, but the log ends at {}", rows.len());
                assert!(rows.iter().enumerate().all(|(i, (offset, v))| *offset == i as i64 && *v == format!("v{i}")));
            };
            check();
            // What the end left of a move is given back.
            if let Some(goes) = storage.topic("goes") {
                block_on(storage.delete_topic(goes.id)).unwrap();
            }
            wait_until("deleted space stays", || {
                storage.reclaim().unwrap();
                let found = storage.measure();
                found.log_file_dead_bytes * 3 < found.log_file_bytes + 20_000
            });
            check();
        }
    }
}

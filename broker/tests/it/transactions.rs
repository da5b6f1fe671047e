//! Transactions as storage keeps them: what readers see, what producers may send, and what a kill leaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use millpond_broker::batch::{BatchHeader, Codec};
use millpond_broker::storage::{
    AbortedTransaction, Appended, Ending, FetchLimits, Fetched, OffsetQuery, Storage, StorageError, TransactionWrite,
};
use millpond_types::ports::{ReadLimits, TopicLog};
use millpond_types::{Offset, TopicPartition};

use crate::fixture::{
    ALL, Fixture, START_MS, batch, block_on, create, open, options, produce, read_all, send, spec, topic, with_producer,
};

pub fn transactional(values: &[&str], id: i64, epoch: i16, sequence: i32) -> Bytes {
    let rows: Vec<_> = values.iter().map(|v| (*v, START_MS)).collect();
    let mut plain = batch(&rows, Codec::None).to_vec();
    plain[22] |= 0x10;
    with_producer(&plain.into(), id, epoch, sequence)
}

pub fn add(storage: &Storage, places: &[TopicPartition], id: i64, epoch: i16) {
    let write =
        TransactionWrite { producer_id: id, producer_epoch: epoch, added: places.to_vec(), ..Default::default() };
    block_on(storage.transaction_write(write)).unwrap();
}

pub fn end(storage: &Storage, places: &[TopicPartition], id: i64, epoch: i16, commit: bool) {
    let ending = Some(Ending { commit, partitions: places.to_vec() });
    let write = TransactionWrite { producer_id: id, producer_epoch: epoch, ending, ..Default::default() };
    block_on(storage.transaction_write(write)).unwrap();
}

fn send_in(storage: &Storage, place: TopicPartition, id: i64, sequence: i32, value: &str) -> Appended {
    produce(storage, place, &transactional(&[value], id, 0, sequence)).unwrap()
}

fn fetch(storage: &Storage, place: TopicPartition, from: Offset, committed: bool) -> Fetched {
    storage.fetch(place, from, FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed }).unwrap()
}

fn values(storage: &Storage, place: TopicPartition) -> String {
    read_all(storage, place, 0).into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(" ")
}

#[test]
fn queries_see_what_is_committed_where_its_marker_lies() {
    let mut fixture = Fixture::new();
    let place = create(&fixture.storage, "t", &[]);
    let storage = &fixture.storage;
    send(storage, place, &["a"]);
    add(storage, &[place], 7, 0);
    add(storage, &[place], 8, 0);
    assert_eq!(storage.partition_offsets(place).unwrap().stable_end, 1, "nothing is open before something is sent");
    send_in(storage, place, 7, 0, "b");
    send(storage, place, &["c"]);
    send_in(storage, place, 8, 0, "d");
    let offsets = storage.partition_offsets(place).unwrap();
    assert_eq!((offsets.stable_end, offsets.end), (1, 4));
    assert_eq!(values(storage, place), "a");
    end(storage, &[place], 8, 0, true);
    assert_eq!(values(storage, place), "a");
    let before = storage.sequence();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| storage.wait_past(before, Duration::from_secs(20)));
        end(storage, &[place], 7, 0, false);
        waiting.join().unwrap()
    });
    assert_eq!(waiting, before + 1);

    for clean in [None, Some(true), Some(false)] {
        if let Some(clean) = clean {
            fixture = fixture.reopen(clean);
        }
        let storage = &fixture.storage;
        assert_eq!(read_all(storage, place, 0), [(0, "a".into()), (2, "c".into()), (3, "d".into())]);
        let records = storage.read(place, 0, ALL).unwrap();
        assert_eq!(records.views.iter().map(|v| v.sequence).collect::<Vec<_>>(), [1, before + 1, before + 1]);
        assert_eq!((records.next_offset, records.stable_end), (6, 6));
        let early = storage.read(place, 0, ReadLimits { up_to: before, ..ALL }).unwrap();
        assert_eq!((early.views.len(), early.next_offset), (1, 1), "what was not stable yet is not seen early");
        assert_eq!(storage.read(place, 2, ALL).unwrap().views.len(), 2);

        let fetched = fetch(storage, place, 0, true);
        assert_eq!(fetched.batches.len(), 6);
        assert_eq!(fetched.aborted, [AbortedTransaction { producer_id: 7, first_offset: 1 }]);
        assert_eq!(fetch(storage, place, 5, true).aborted.len(), 1, "the marker itself still belongs to it");
        assert!(fetch(storage, place, 0, false).aborted.is_empty());
        let marker = BatchHeader::parse(&fetched.batches[5]).unwrap();
        assert!(marker.is_control() && marker.producer_id == 7 && marker.base_offset == 5);
    }
}

#[test]
fn committed_reads_end_at_what_is_open() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let place = create(storage, "t", &[]);
    send(storage, place, &["a"]);
    add(storage, &[place], 7, 0);
    send_in(storage, place, 7, 0, "b");
    send(storage, place, &["c"]);
    let committed = fetch(storage, place, 0, true);
    assert_eq!((committed.batches.len(), committed.last_stable_offset, committed.high_watermark), (1, 1, 3));
    assert!(fetch(storage, place, 2, true).batches.is_empty(), "in range, and empty");
    assert_eq!(fetch(storage, place, 0, false).batches.len(), 3);
    assert_eq!(storage.list_offset(place, OffsetQuery::LatestStable).unwrap().offset, 1);
    assert_eq!(storage.list_offset(place, OffsetQuery::Latest).unwrap().offset, 3);
    let watch = storage.watch(&[place]);
    end(storage, &[place], 7, 0, true);
    block_on(async { tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap() });
    assert_eq!(storage.list_offset(place, OffsetQuery::LatestStable).unwrap().offset, 4);
    // Deleting by hand what is open does not hold up the rest.
    add(storage, &[place], 7, 0);
    send_in(storage, place, 7, 1, "d");
    send(storage, place, &["e"]);
    block_on(storage.delete_records(place, 5)).unwrap();
    assert_eq!(storage.partition_offsets(place).unwrap().stable_end, 5);
    end(storage, &[place], 7, 0, false);
    assert_eq!(read_all(storage, place, 5), [(5, "e".into())]);
}

#[test]
fn markers_are_found_by_their_time() {
    let mut fixture = Fixture::new();
    let place = create(&fixture.storage, "t", &[]);
    add(&fixture.storage, &[place], 7, 0);
    send_in(&fixture.storage, place, 7, 0, "a");
    fixture.clock.set(START_MS + 60_000);
    end(&fixture.storage, &[place], 7, 0, true);
    for clean in [None, Some(true), Some(false)] {
        if let Some(clean) = clean {
            fixture = fixture.reopen(clean);
        }
        let listed = |what| fixture.storage.list_offset(place, what).map(|l| (l.offset, l.timestamp)).unwrap();
        assert_eq!(listed(OffsetQuery::Timestamp(START_MS)), (0, START_MS));
        assert_eq!(listed(OffsetQuery::Timestamp(START_MS + 1)), (1, START_MS + 60_000));
        assert_eq!(listed(OffsetQuery::Timestamp(START_MS + 60_001)), (-1, -1));
        assert_eq!(listed(OffsetQuery::MaxTimestamp), (1, START_MS + 60_000));
    }
}

#[test]
fn who_joins_by_producing_begins_with_sequence_0() {
    let fixture = Fixture::new();
    let (old, new) = (create(&fixture.storage, "old", &[]), create(&fixture.storage, "new", &[]));
    let join = |place, by_produce| {
        let added = vec![place];
        let write = TransactionWrite { producer_id: 7, producer_epoch: 3, added, by_produce, ..Default::default() };
        block_on(fixture.storage.transaction_write(write)).unwrap();
    };
    let send = |place, sequence| produce(&fixture.storage, place, &transactional(&["x"], 7, 3, sequence));
    join(old, false);
    send(old, 40).unwrap();
    join(new, true);
    assert!(
        matches!(send(new, 1), Err(StorageError::OutOfOrderSequence(_))),
        "the one before did not come, or is gone"
    );
    send(new, 0).unwrap();
    send(new, 1).unwrap();
}

#[test]
fn a_partition_takes_only_what_belongs_to_the_open_transaction() {
    let fixture = Fixture::new();
    let place = create(&fixture.storage, "t", &[]);
    let fixture = fixture.reopen(true);
    let storage = &fixture.storage;
    let try_send = |epoch, sequence| produce(storage, place, &transactional(&["x"], 7, epoch, sequence));
    assert!(matches!(try_send(0, 0), Err(StorageError::InvalidTxnState(_))), "not added");
    add(storage, &[place], 7, 0);
    assert!(matches!(try_send(1, 0), Err(StorageError::InvalidTxnState(_))), "an epoch that was not added");
    // Any sequence may come first, as where a producer was forgotten.
    let first = try_send(0, 40).unwrap();
    assert!(matches!(try_send(0, 42), Err(StorageError::OutOfOrderSequence(_))));
    let plain = |sequence| {
        produce(storage, place, &with_producer(&batch(&[("x", START_MS)], Codec::None), 7, 0, sequence)).unwrap_err()
    };
    assert!(matches!(plain(41), StorageError::InvalidTxnState(_)), "not in between");
    assert!(matches!(plain(42), StorageError::OutOfOrderSequence(_)), "what is missing is told first");
    end(storage, &[place], 7, 0, true);
    assert!(matches!(try_send(0, 41), Err(StorageError::InvalidTxnState(_))), "late for a transaction that ended");
    let again = try_send(0, 40).unwrap();
    assert_eq!((again.base_offset, again.duplicate), (first.base_offset, true));
    add(storage, &[place], 7, 0);
    try_send(0, 41).unwrap();
    end(storage, &[place], 7, 1, false);
    assert!(matches!(try_send(0, 42), Err(StorageError::InvalidProducerEpoch(_))), "fenced");
    add(storage, &[place], 7, 1);
    assert!(matches!(try_send(1, 43), Err(StorageError::OutOfOrderSequence(_))), "a new epoch begins with 0");
    try_send(1, 0).unwrap();
    // A transaction that is open is not forgotten, however idle; one of a topic that is gone ends without it.
    let gone = create(storage, "gone", &[]);
    add(storage, &[gone], 7, 1);
    block_on(storage.delete_topic(gone.topic)).unwrap();
    end(storage, &[place, gone], 7, 1, true);
    assert_eq!(values(storage, place), "x x");
    let unknown = TransactionWrite { producer_id: 7, producer_epoch: 1, added: vec![gone], ..Default::default() };
    assert!(matches!(block_on(storage.transaction_write(unknown)), Err(StorageError::UnknownTopicId(_))));
}

/// So many seeds, from MILLPOND_SEED on or else from anywhere.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = std::env::var("MILLPOND_SEED").ok().map(|seed| seed.parse().expect("MILLPOND_SEED is a number"));
    let first = given.unwrap_or_else(|| u64::from(std::process::id()) * 1000);
    println!("MILLPOND_SEED={first} and on");
    first..first + count
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What every offset holds: a value and the producer's transaction that it is of, or a marker.
enum Row {
    Value(String, Option<usize>),
    Marker,
}

/// Random histories against a plain model, in memory and after restarts.
#[test]
fn random_histories_read_as_the_model_says() {
    for seed in seeds(6) {
        let mut random = Random(seed);
        let mut fixture = Fixture::with(|o| {
            o.tail_partition_bytes = 600;
            o.segment_bytes = 500;
        });
        let place = create(&fixture.storage, "t", &[]);
        let mut rows: Vec<Row> = Vec::new();
        // How each transaction ended, by number; and the open one of each producer, with its next sequence.
        let mut outcomes: Vec<Option<bool>> = Vec::new();
        let mut open: BTreeMap<i64, usize> = BTreeMap::new();
        let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
        for i in 0..120 {
            let (id, value) = (random.below(3) as i64 + 1, format!("v{i}"));
            let storage = &fixture.storage;
            match random.below(10) {
                0..2 => {
                    send(storage, place, &[&value]);
                    rows.push(Row::Value(value, None));
                }
                2..7 => {
                    let number = *open.entry(id).or_insert_with(|| {
                        add(storage, &[place], id, 0);
                        outcomes.push(None);
                        outcomes.len() - 1
                    });
                    let sequence = sequences.entry(id).or_default();
                    send_in(storage, place, id, *sequence, &value);
                    *sequence += 1;
                    rows.push(Row::Value(value, Some(number)));
                }
                7..9 => {
                    if let Some(number) = open.remove(&id) {
                        let commit = random.below(2) == 0;
                        end(storage, &[place], id, 0, commit);
                        outcomes[number] = Some(commit);
                        rows.push(Row::Marker);
                    }
                }
                _ => fixture = fixture.reopen(random.below(2) == 0),
            }
            let storage = &fixture.storage;
            let undecided = |row: &Row| matches!(row, Row::Value(_, Some(n)) if outcomes[*n].is_none());
            let stable = rows.iter().position(undecided).unwrap_or(rows.len());
            let offsets = storage.partition_offsets(place).unwrap();
            assert_eq!((offsets.stable_end, offsets.end), (stable as i64, rows.len() as i64), "seed {seed}, step {i}");
            let from = random.below(rows.len() as u64 + 1).min(stable as u64) as usize;
            let wanted: Vec<(Offset, String)> = (from..stable)
                .filter_map(|at| match &rows[at] {
                    Row::Value(value, None) => Some((at as Offset, value.clone())),
                    Row::Value(value, Some(n)) if outcomes[*n] == Some(true) => Some((at as Offset, value.clone())),
                    _ => None,
                })
                .collect();
            assert_eq!(read_all(storage, place, from as Offset), wanted, "seed {seed}, step {i}, from {from}");
            assert_eq!(as_a_consumer(&fetch(storage, place, from as Offset, true)), wanted, "seed {seed}, step {i}");
            let places: Vec<_> = storage.read(place, 0, ALL).unwrap().views.iter().map(|v| v.sequence).collect();
            assert!(places.is_sorted() && places.iter().all(|p| *p <= storage.sequence()), "{places:?}");
        }
    }
}

/// Filters a committed fetch by its list of aborted transactions, as consumers do.
fn as_a_consumer(fetched: &Fetched) -> Vec<(Offset, String)> {
    let mut aborted = fetched.aborted.iter().peekable();
    let mut skipping = std::collections::BTreeSet::new();
    let mut rows = Vec::new();
    for bytes in &fetched.batches {
        let header = BatchHeader::parse(bytes).unwrap();
        while let Some(next) = aborted.next_if(|a| a.first_offset <= header.last_offset()) {
            skipping.insert(next.producer_id);
        }
        if header.is_control() {
            // An abort marker ends what is skipped: the type is the last byte of the key.
            if bytes[61 + 8] == 0 {
                skipping.remove(&header.producer_id);
            }
        } else if !header.is_transactional() || !skipping.contains(&header.producer_id) {
            let value = bytes.iter().rposition(|b| *b == b'v').unwrap();
            let value = String::from_utf8_lossy(&bytes[value..bytes.len() - 1]).into_owned();
            rows.push((header.base_offset, value));
        }
    }
    rows
}

const DIRECTORY: &str = "MILLPOND_TEST_TRANSACTIONS_DIRECTORY";

/// Writes each number to two partitions in a transaction of its own, every third of which it aborts, until it is killed;
/// without the variable it has nothing to do.
#[test]
fn producer_to_be_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let storage = open(options(Path::new(&directory))).unwrap();
    let id = match storage.topic("t") {
        Some(topic) => topic.id,
        None => block_on(storage.create_topic(spec("t", 2, &[]))).unwrap().id,
    };
    let places = [0, 1].map(|partition| TopicPartition { topic: id, partition });
    let number = |key: &[u8]| storage.group_get(key).unwrap().map(|v| i64::from_be_bytes(v[..].try_into().unwrap()));
    if let Some(old) = number(b"zid") {
        end(&storage, &places, old, 1, false);
    }
    let id = block_on(storage.allocate_producer_id()).unwrap();
    let entry = |key: &[u8], value: i64| (key.to_vec(), Some(value.to_be_bytes().to_vec()));
    for (sequence, i) in (0..).zip(number(b"zdone").unwrap_or(0)..) {
        let added = TransactionWrite {
            producer_id: id,
            added: places.to_vec(),
            entries: vec![entry(b"zid", id)],
            ..Default::default()
        };
        block_on(storage.transaction_write(added)).unwrap();
        for place in places {
            send_in(&storage, place, id, sequence, &format!("v{i}"));
        }
        let ending = Some(Ending { commit: i % 3 != 0, partitions: places.to_vec() });
        let entries = vec![entry(b"zdone", i + 1)];
        block_on(storage.transaction_write(TransactionWrite {
            producer_id: id,
            ending,
            entries,
            ..Default::default()
        }))
        .unwrap();
        println!("acknowledged {i}");
    }
}

#[test]
fn a_kill_leaves_no_transaction_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut last = -1;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transactions::producer_to_be_killed", "--nocapture"])
            .env(DIRECTORY, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (first, mut killed) = (last, false);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some((_, i)) = line.unwrap().split_once("acknowledged ") {
                last = i.parse::<i64>().unwrap();
            }
            if !killed && last > first + 40 + 7 * round {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the producer ended by itself after {last}");

        let storage = open(options(&path)).unwrap();
        let id = topic(&storage, "t").id;
        let read = |partition| values(&storage, TopicPartition { topic: id, partition });
        let done = storage.group_get(b"zdone").unwrap().unwrap();
        let done = i64::from_be_bytes(done[..].try_into().unwrap());
        assert!(done > last, "{last} was acknowledged, but {done} are done");
        let wanted: Vec<_> = (0..done).filter(|i| i % 3 != 0).map(|i| format!("v{i}")).collect();
        assert_eq!((read(0), read(1)), (wanted.join(" "), wanted.join(" ")));
    }
}

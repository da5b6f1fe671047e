//! A disk whose fsync fails: what is not surely on it is not shown, and nothing acknowledged is lost.

use std::path::Path;
use std::time::Duration;

use millpond_broker::storage::{Durability, FetchLimits, OffsetQuery, Storage, StorageError};
use millpond_types::TopicPartition;
use millpond_types::ports::{Outcome, StateReader, StateStore, Step, TopicLog};
use millpond_types::record::RecordBuffer;

use crate::actor::{Actor, at, check_six, ready_with_five, sixth_row, wait_until, while_nothing_is_forced};
use crate::fixture::{ALL, START_MS, batch, create, open, options, produce, read_all, send, step};
use crate::strace::{self, FSYNCS, Fault};

const LIMITS: FetchLimits = FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed: false };

fn commit_state(storage: &Storage, place: TopicPartition, value: &str) -> Outcome {
    let mut records = RecordBuffer::default();
    records.push(None, Some(value.as_bytes()), 1, &[]);
    let state = vec![(b"k".to_vec(), Some(value.as_bytes().to_vec()))].into();
    step(storage, Step { appends: vec![(place, records)], state, ..Step::default() })
}

pub fn loses_trust(directory: &Path) {
    let mut options = options(directory);
    options.durability = Durability::Interval(Duration::from_millis(50));
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..10 {
        send(&storage, place, &[&format!("v{i}")]);
    }
    assert!(matches!(commit_state(&storage, place, "v10"), Outcome::Committed { .. }));
    wait_until("it is not forced", || all_is_forced(directory));
    let good = storage.health();
    assert!(good.writable && !good.in_doubt && good.forces_failed == 0, "{good:?}");
    at("ready");

    assert!(
        matches!(commit_state(&storage, place, "v11"), Outcome::Committed { .. }),
        "acknowledged before it is forced"
    );
    wait_until("nobody notices", || storage.health().in_doubt);
    let bad = storage.health();
    assert!(!bad.writable && bad.forces_failed == 1, "{bad:?}");
    // From memory and from disk.
    for from in [0, 3] {
        let fetched = storage.fetch(place, from, LIMITS).unwrap();
        assert_eq!(fetched.batches.len() as i64, 11 - from, "what is sure is read");
        assert_eq!((fetched.high_watermark, fetched.last_stable_offset), (11, 11), "and told of");
    }
    assert!(storage.fetch_hot(place, 11, LIMITS).unwrap().is_none());
    let refused = |e: StorageError| matches!(&e, StorageError::Unavailable(why) if why.contains("in doubt"));
    assert!(refused(storage.fetch(place, 11, LIMITS).unwrap_err()));
    assert!(refused(storage.list_offset(place, OffsetQuery::MaxTimestamp).unwrap_err()));
    for query in [OffsetQuery::Latest, OffsetQuery::LatestStable] {
        assert_eq!(storage.list_offset(place, query).unwrap().offset, 11);
    }
    assert!(refused(storage.check_sure().unwrap_err()));
    assert_eq!(storage.read(place, 0, ALL).unwrap().views.len(), 11);
    assert!(storage.read(place, 11, ALL).unwrap_err().message().contains("in doubt"));
    assert!(storage.get(b"k").is_err() && storage.snapshot().get(b"k").is_err(), "state goes with the log");
    wait_until("it writes on", || refused_write(&storage, place));
    at("doubt");

    wait_until("it does not go on", || {
        produce(&storage, place, &batch(&[("v12", START_MS)], millpond_broker::batch::Codec::None)).is_ok()
    });
    let mended = storage.health();
    assert!(mended.writable && !mended.in_doubt, "{mended:?}");
    storage.check_sure().unwrap();
    assert_eq!(storage.list_offset(place, OffsetQuery::Latest).unwrap().offset, 13);
    let all = |storage: &Storage| {
        let values: Vec<String> = (0..13).map(|i| format!("v{i}")).collect();
        assert_eq!(read_all(storage, place, 0).into_iter().map(|r| r.1).collect::<Vec<_>>(), values);
        assert_eq!(storage.get(b"k").unwrap().unwrap(), "v11");
    };
    all(&storage);
    storage.close().unwrap();
    all(&open(options).unwrap());
}

/// Whether the directory's note says that everything that was written is on disk.
fn all_is_forced(directory: &Path) -> bool {
    let note = std::fs::read_to_string(directory.join("written")).unwrap();
    let number = |name: &str| {
        let (_, rest) = note.split_once(name).unwrap();
        rest.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    number(" wrote ") == number(" forced ")
}

fn refused_write(storage: &Storage, place: TopicPartition) -> bool {
    let batch = batch(&[("refused", START_MS)], millpond_broker::batch::Codec::None);
    matches!(produce(storage, place, &batch), Err(StorageError::Unavailable(why)) if why.contains("in doubt"))
}

#[test]
fn what_was_acknowledged_before_an_fsync_that_failed_is_in_doubt_until_it_was_read_back() {
    while_nothing_is_forced("interval", "doubt", "a disk whose fsync fails");
}

pub fn cannot_force_what_a_table_names(directory: &Path) {
    // Nobody else forces log files.
    let (options, storage, place) = ready_with_five(directory, Durability::None);

    // Before it writes the table, RocksDB has the log file forced.
    let _written = storage.reclaim();
    wait_until("nobody notices", || storage.health().in_doubt);
    let bad = storage.health();
    assert!(!bad.writable && bad.forces_failed == 1, "{bad:?}");
    let refused = |e: StorageError| matches!(&e, StorageError::Unavailable(why) if why.contains("in doubt"));
    assert!(refused(storage.fetch(place, 0, LIMITS).unwrap_err()), "none of it was ever forced");
    wait_until("it writes on", || refused_write(&storage, place));
    // As long as the file cannot be forced it does not go on either.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(storage.health().in_doubt && refused_write(&storage, place));
    at("doubt");

    let one = sixth_row();
    wait_until("it does not go on", || produce(&storage, place, &one).is_ok());
    check_six(&storage, place);
    drop(storage);
    let storage = open(options.clone()).unwrap();
    check_six(&storage, place);
    storage.close().unwrap();
    check_six(&open(options).unwrap(), place);
}

/// What is told as an error.
#[derive(Default)]
struct Told(parking_lot::Mutex<String>);

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'a>(&'a mut String);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{value:?}\n"));
            }
        }
        event.record(&mut Text(&mut self.0.lock()));
    }
}

/// After the fsync that failed the system has dropped what was to be written, and RocksDB's log, which could tell, is gone.
pub fn is_told_of_what_was_dropped(directory: &Path) {
    let told = std::sync::Arc::new(Told::default());
    tracing::subscriber::set_global_default(told.clone()).unwrap();
    let mut options = options(directory);
    options.durability = Durability::None;
    options.tail_bytes = 0;
    let storage = open(options).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..5 {
        send(&storage, place, &[&format!("v{i}"), "and another"]);
    }
    at("ready");

    let _written = storage.reclaim();
    wait_until("nobody notices", || storage.health().in_doubt);
    let file = directory.join("log/000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let third = bytes.windows(2).position(|w| w == b"v2").unwrap();
    bytes[third] ^= 1;
    std::fs::write(file, bytes).unwrap();
    at("doubt");

    let one = sixth_row();
    wait_until("it does not go on", || produce(&storage, place, &one).is_ok());
    wait_until("nobody tells", || {
        told.0.lock().contains("topic \"t\" partition 0 is damaged at offsets 4 to 5: log file")
    });
    assert_eq!(told.0.lock().matches("is damaged at").count(), 1, "{}", told.0.lock());
    assert_eq!(read_all(&storage, place, 6).len(), 5);
}

#[test]
fn what_the_system_dropped_after_an_fsync_that_failed_is_told_though_no_log_names_it() {
    while_a_log_file_cannot_be_forced("rewritten");
}

#[test]
fn a_log_file_that_cannot_be_forced_before_a_table_is_written_puts_all_in_doubt() {
    while_a_log_file_cannot_be_forced("batches");
}

fn while_a_log_file_cannot_be_forced(role: &str) {
    if !strace::is_possible("a log file that cannot be forced") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start(role, directory.path());
    actor.expect("ready");
    let file = directory.path().canonicalize().unwrap().join("log/000001.log");
    let fault = Fault::on(actor.id(), Some(&file), FSYNCS, "error=EIO");
    actor.go_on();
    actor.expect("doubt");
    drop(fault);
    actor.go_on();
    actor.end();
}

pub fn ends_on_a_bad_disk(directory: &Path) {
    for durability in [Durability::Interval(Duration::from_secs(3600)), Durability::None, Durability::Group] {
        let mut options = options(directory);
        options.durability = durability;
        let storage = open(options.clone()).unwrap();
        let place = match storage.topic("t") {
            Some(topic) => TopicPartition { topic: topic.id, partition: 0 },
            None => create(&storage, "t", &[]),
        };
        send(&storage, place, &["a"]);
        let end = storage.partition_offsets(place).unwrap().end;
        at("ready");
        let closed = storage.close();
        if durability == Durability::Group {
            assert!(closed.is_ok(), "all was forced before: {closed:?}");
        } else {
            assert!(matches!(&closed, Err(StorageError::Unavailable(why)) if why.contains("in doubt")), "{closed:?}");
        }
        at("closed");
        drop(storage);
        let storage = open(options).unwrap();
        assert_eq!(read_all(&storage, place, 0).len() as i64, end);
        storage.close().unwrap();
    }
}

#[test]
fn a_last_fsync_that_fails_is_not_passed_over() {
    if !strace::is_possible("a disk whose fsync fails") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start("close", directory.path());
    for _ in 0..3 {
        actor.expect("ready");
        let fault = Fault::on(actor.id(), None, FSYNCS, "error=EIO");
        actor.go_on();
        actor.expect("closed");
        drop(fault);
        actor.go_on();
    }
    actor.end();
}

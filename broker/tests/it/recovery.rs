//! Writes of the storage's own that fail, of tables and of retention: it writes nothing until it can, and goes on by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_broker::storage::{Durability, Storage, StorageError};
use millpond_types::ManualClock;
use millpond_types::ports::{Cursor, Outcome, StateReader, StateStore, Step, TopicLog};
use millpond_types::record::RecordBuffer;

use crate::actor::{Actor, at, check_six, ready_with_five, sixth_row, wait_until, while_nothing_is_forced};
use crate::fixture::{START_MS, batch, create, open, options, produce, read_all, send};
use crate::strace::{self, Fault};

pub fn cannot_write_tables(directory: &Path) {
    let mut options = options(directory);
    options.durability = Durability::None;
    options.write_buffer_bytes = 3 << 20;
    options.tail_bytes = 0;
    // Batches lie in tables too.
    options.inline_bytes_max = 1 << 30;
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    at("ready");

    let value = |i: usize| format!("{i} {}", "x".repeat(100_000));
    let try_send = |i: usize| {
        produce(&storage, place, &batch(&[(&value(i), START_MS)], millpond_broker::batch::Codec::None)).map(drop)
    };
    // More than all memtables that may wait hold. It must not wait for ever.
    let mut sent = 0;
    wait_until("it writes on", || {
        let done = try_send(sent);
        sent += usize::from(done.is_ok());
        matches!(done, Err(StorageError::Unavailable(_)))
    });
    assert!(!storage.health().writable && !storage.health().in_doubt, "{:?}", storage.health());
    assert_eq!(read_all(&storage, place, 0).len(), sent, "all can be read");
    at("stopped");

    wait_until("it does not go on", || try_send(sent).is_ok());
    sent += 1;
    let check = |storage: &Storage| {
        let rows = read_all(storage, place, 0);
        assert_eq!(rows.len(), sent);
        assert!(rows.iter().enumerate().all(|(i, row)| row.1.starts_with(&format!("{i} "))));
    };
    check(&storage);
    storage.close().unwrap();
    check(&open(options).unwrap());
}

#[test]
fn tables_that_cannot_be_written_stop_writing_until_they_can() {
    while_nothing_is_forced("flush", "stopped", "writing on after what could not be written to tables");
}

pub fn cannot_force_batches(directory: &Path) {
    let (options, storage, place) = ready_with_five(directory, Durability::Group);

    let one = sixth_row();
    let why = produce(&storage, place, &one).unwrap_err();
    assert!(matches!(&why, StorageError::Unavailable(why) if why.contains("000001.log")), "{why}");
    let health = storage.health();
    assert!(!health.writable && !health.in_doubt && health.writes_failed == 1, "{health:?}");
    assert!(produce(&storage, place, &one).is_err());
    assert_eq!(read_all(&storage, place, 0).len(), 5, "what was acknowledged is read, and nothing else");
    at("stopped");

    wait_until("it does not go on", || produce(&storage, place, &one).is_ok());
    check_six(&storage, place);
    let files = std::fs::read_dir(directory.join("log")).unwrap().count();
    assert_eq!(files, 2, "after an fsync that failed another file is begun");
    storage.close().unwrap();
    check_six(&open(options).unwrap(), place);
}

#[test]
fn batches_that_cannot_be_forced_are_refused_and_another_file_is_begun() {
    while_nothing_is_forced("group", "stopped", "batches that cannot be forced to disk");
}

pub fn cannot_write_log(directory: &Path) {
    let (options, storage, place) = ready_with_five(directory, Durability::Group);

    let one = sixth_row();
    assert!(produce(&storage, place, &one).is_err());
    assert_eq!(read_all(&storage, place, 0).len(), 5);
    at("stopped");

    wait_until("it does not go on", || produce(&storage, place, &one).is_ok());
    check_six(&storage, place);
    drop(storage);
    check_six(&open(options).unwrap(), place);
}

#[test]
fn a_commit_record_of_a_write_that_was_refused_is_taken_back() {
    if !strace::is_possible("a write that RocksDB cannot log") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start("log", directory.path());
    actor.expect("ready");
    let log = std::fs::read_dir(directory.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap();
    let fault = Fault::on(actor.id(), Some(&log), "write,pwrite64", "error=EIO");
    actor.go_on();
    actor.expect("stopped");
    drop(fault);
    actor.go_on();
    actor.end();
}

pub fn cannot_force_state(directory: &Path) {
    let mut options = options(directory);
    options.durability = Durability::Group;
    // All in the write-ahead log.
    options.inline_bytes_max = 1 << 20;
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    let commit = |value: &'static str| {
        let state = vec![(b"k".to_vec(), Some(value.as_bytes().to_vec()))].into();
        let mut records = RecordBuffer::default();
        records.push(None, Some(value.as_bytes()), 1, &[]);
        let cursors = vec![Cursor { query: "q".into(), source: place, offset: value.len() as i64 }];
        storage.commit(Step { appends: vec![(place, records)], state, cursors, ..Step::default() })
    };
    assert!(matches!(commit("a").wait(), Outcome::Committed { .. }));
    at("ready");

    let pending = commit("bb");
    let cursor = || storage.cursors("q").map(|c| c[0].offset);
    let since = Instant::now();
    let mut refused = false;
    while since.elapsed() < Duration::from_secs(6) || !refused {
        assert!(since.elapsed() < Duration::from_secs(60), "what is in doubt was never there to be seen");
        for state in [storage.get(b"k"), storage.snapshot().get(b"k")] {
            refused |= state.is_err();
            assert!(state.is_err() || state.unwrap().unwrap() == "a", "it may not be on disk");
        }
        assert!(cursor().is_err() || cursor().unwrap() == 1);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(read_all(&storage, place, 0).len(), 1);
    at("stopped");

    let written = matches!(pending.wait(), Outcome::Committed { .. });
    let check = |storage: &Storage| {
        assert_eq!(storage.get(b"k").unwrap().unwrap(), if written { "bb" } else { "a" });
        assert_eq!(storage.cursors("q").unwrap()[0].offset, if written { 2 } else { 1 });
        assert_eq!(read_all(storage, place, 0).len(), if written { 2 } else { 1 });
    };
    check(&storage);
    storage.close().unwrap();
    check(&open(options).unwrap());
}

#[test]
fn state_that_may_not_be_on_disk_is_not_shown() {
    while_nothing_is_forced("state", "stopped", "state that cannot be forced to disk");
}

pub fn fails_in_retention(directory: &Path) {
    let clock = Arc::new(ManualClock::at(START_MS));
    let mut options = options(directory);
    options.durability = Durability::Group;
    options.clock = clock.clone();
    options.retention_interval = Duration::from_millis(10);
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[("retention.ms", "1000")]);
    send(&storage, place, &["old"]);
    at("ready");

    // What fails is retention's own write, which waits for its answer, and only opening again gives one.
    clock.set(START_MS + 5000);
    wait_until("nothing fails", || !storage.health().writable);
    at("stopped");

    let new = |value: &str| batch(&[(value, START_MS + 5000)], millpond_broker::batch::Codec::None);
    wait_until("it does not go on", || produce(&storage, place, &new("new")).is_ok());
    wait_until("retention does not go on", || storage.partition_offsets(place).unwrap().start == 1);
    assert_eq!(read_all(&storage, place, 1), [(1, "new".to_owned())]);
    clock.set(START_MS + 10_000);
    wait_until("retention does not go on", || storage.partition_offsets(place).unwrap().start == 2);
    storage.close().unwrap();
}

#[test]
fn a_write_of_retention_that_fails_does_not_keep_the_storage_closed() {
    while_nothing_is_forced("retention", "stopped", "retention after a write of its own that failed");
}

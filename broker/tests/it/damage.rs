//! Bytes that changed on the disk: they are noticed, named, and nobody else is harmed.

use std::fs;
use std::path::{Path, PathBuf};

use kafka_protocol::ResponseError;
use millpond_broker::batch::Codec;
use millpond_broker::storage::{FetchLimits, OpenError, StorageError, StorageOptions};
use millpond_types::ErrorKind;
use millpond_types::ports::TopicLog;

use crate::actor::wait_until;
use crate::fixture::{ALL, Fixture, START_MS, batch, block_on, create, produce, read_all, send};
use crate::wire::answers::fetch_request;
use crate::wire::client::Server;

/// Changes a byte of the first place in files of a kind where `text` is.
fn flip(directory: &Path, ending: &str, text: &str) -> bool {
    let folder = directory.join(if ending == ".log" { "log" } else { "db" });
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|p| p.to_string_lossy().contains(ending)) {
        let mut bytes = fs::read(path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|w| w == text.as_bytes()) {
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
            return true;
        }
    }
    false
}

const LIMITS: FetchLimits = FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed: true };

/// Large batches, which go to log files, and small ones, which go to tables.
fn filled() -> (Fixture, [millpond_types::TopicPartition; 3]) {
    let fixture = Fixture::with(|o| {
        o.tail_bytes = 0;
        o.segment_bytes = 1;
        o.active_bytes_max = 0;
        o.inline_bytes_max = 8000;
    });
    let storage = &fixture.storage;
    let places = ["large", "small", "whole"].map(|name| create(storage, name, &[("cleanup.policy", "compact")]));
    // So many that they fill more than one block of a table.
    for i in 0..400 {
        send(storage, places[1], &[&format!("{i} of the small ones")]);
    }
    for i in 0..9 {
        let value = format!("{i} of the large ones {}", "x".repeat(5000));
        produce(storage, places[0], &batch(&[(&value, START_MS)], Codec::None)).unwrap();
        let value = format!("{i} of the others {}", "y".repeat(5000));
        send(storage, places[2], &[&value]);
    }
    storage.close().unwrap();
    (fixture, places)
}

#[test]
fn damage_in_a_partition_is_named_and_the_others_are_served() {
    for (ending, text, which, name, offset) in
        [(".log", "5 of the large ones", 0, "large", 5), (".sst", "5 of the small ones", 1, "small", 0)]
    {
        let (fixture, places) = filled();
        assert!(flip(&fixture.options.path, ending, text), "nowhere: {text}");
        let fixture = fixture.reopen(false);
        let (storage, place) = (&fixture.storage, places[which]);
        let expected = format!("topic \"{name}\" partition 0 is damaged at offset {offset}");
        if offset > 0 {
            let before = storage.fetch(place, 0, LIMITS).unwrap();
            assert_eq!(before.batches.len(), offset as usize, "what lies before the damage is served");
        }
        let named = |e: StorageError| matches!(&e, StorageError::Corrupt(m) if m.contains(&expected));
        assert!(named(storage.fetch(place, offset, LIMITS).unwrap_err()));
        let error = storage.read(place, offset, ALL).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains(&expected), "{error}");
        assert!(named(storage.compact(place).unwrap_err()), "damage is not made anew with a right checksum");
        assert_eq!(storage.compact(place).unwrap().passes, 0, "nor tried again");
        for (other, place) in places.iter().enumerate().filter(|(other, _)| *other != which) {
            if !(ending == ".sst" && other == 0) {
                assert_eq!(read_all(storage, *place, 0).len(), [9, 400, 9][other]);
            }
        }
        // What comes later can be read, and written.
        let end = send(storage, place, &["new"]).base_offset;
        assert_eq!(read_all(storage, place, end).len(), 1);

        let server = Server::with(fixture, |_, _| {});
        let answer = server.client().call(11, &fetch_request(name, offset, 1, 100));
        assert_eq!(answer.responses[0].partitions[0].error_code, ResponseError::CorruptMessage.code());
        let answer = server.client().call(11, &fetch_request("whole", 0, 1, 100));
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
    }
}

#[test]
fn a_log_file_that_is_missing_or_cut_short_is_named() {
    // The first thing that each partition still has, or what is missing.
    for (cut, large, whole) in [(None, 0, 0), (Some(0), 0, 0), (Some(30_000), 3, 2)] {
        let (fixture, [large_place, small_place, whole_place]) = filled();
        let path = fixture.options.path.join("log/000001.log");
        match cut {
            None => fs::remove_file(&path).unwrap(),
            Some(len) => fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap(),
        }
        let mut fixture = fixture;
        if cut.is_none() {
            let refused = crate::fixture::open(fixture.options.clone()).err();
            assert!(matches!(refused, Some(OpenError::Damaged { .. })), "{refused:?}");
            fixture.options.accept_data_loss = true;
        }
        let fixture = fixture.reopen(false);
        let storage = &fixture.storage;
        assert_eq!(read_all(storage, small_place, 0).len(), 400);
        for (place, name, left) in [(large_place, "large", large), (whole_place, "whole", whole)] {
            if left > 0 {
                assert_eq!(storage.fetch(place, 0, LIMITS).unwrap().batches.len() as i64, left);
            }
            let said = storage.fetch(place, left, LIMITS).unwrap_err().to_string();
            let expected = format!("topic \"{name}\" partition 0 is damaged at offset {left}");
            assert!(said.contains(&expected) && said.contains("000001.log"), "{said}");
            let end = send(storage, place, &["new"]).base_offset;
            assert_eq!(read_all(storage, place, end).len(), 1);
        }
    }
}

#[test]
fn a_log_file_that_cannot_be_opened_now_is_not_taken_for_a_damaged_one() {
    let (fixture, places) = filled();
    let fixture = fixture.reopen(true);
    let (storage, log) = (fixture.storage.clone(), fixture.options.path.join("log"));
    let (path, aside) = (log.join("000001.log"), log.join("aside"));
    fs::rename(&path, &aside).unwrap();
    // Too many levels of links: an error of the moment, like too many open files.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let passing = |e: StorageError| {
        let expected = "topic \"large\" partition 0 cannot be read now at offset 0: log file";
        assert!(matches!(&e, StorageError::Unavailable(why) if why.contains(expected)), "{e:?}");
    };
    passing(storage.fetch(places[0], 0, LIMITS).unwrap_err());
    passing(storage.compact(places[0]).unwrap_err());
    assert_eq!(storage.read(places[0], 0, ALL).unwrap_err().kind(), ErrorKind::Retry);
    let server = Server::with(fixture, |_, _| {});
    let code = |server: &Server| {
        let answer = server.client().call(11, &fetch_request("large", 0, 1, 100));
        answer.responses[0].partitions[0].error_code
    };
    assert_eq!(code(&server), ResponseError::KafkaStorageError.code());
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(code(&server), 0);
    assert_eq!(read_all(&storage, places[0], 0).len(), 9);
    assert!(storage.compact(places[0]).unwrap().passes > 0, "it was left alone");
}

#[test]
fn a_damaged_table_after_an_end_without_warning_takes_no_other_partition_along() {
    let (fixture, [large, small, whole]) = filled();
    let fixture = fixture.reopen(false);
    send(&fixture.storage, whole, &["not closed"]);
    let path = fixture.options.path.clone();
    let files_of = |path: &Path| fs::read_dir(path.join("log")).unwrap().count();
    assert!(flip(&path, ".sst", "200 of the small ones"));
    let fixture = fixture.reopen(false);
    let storage = &fixture.storage;
    assert!(storage.fetch(small, 200, LIMITS).is_err());
    assert_eq!((read_all(storage, large, 0).len(), read_all(storage, whole, 0).len()), (9, 10));
    let end = send(storage, small, &["goes on"]).base_offset;
    assert_eq!((end, read_all(storage, small, end).len()), (400, 1));

    // What the damaged part names stays, what was written since does not.
    let before = files_of(&path);
    let big = create(storage, "big", &[]);
    produce(storage, big, &batch(&[(&"z".repeat(9000), START_MS)], Codec::None)).unwrap();
    block_on(storage.delete_topic(big.topic)).unwrap();
    block_on(storage.delete_topic(large.topic)).unwrap();
    block_on(storage.delete_topic(whole.topic)).unwrap();
    wait_until("what was written since stays", || {
        storage.reclaim().unwrap();
        files_of(&path) == before
    });
    // When it is deleted nothing is unsure any more.
    block_on(storage.delete_topic(small.topic)).unwrap();
    wait_until("what was unsure stays", || files_of(&path) == 0);
}

#[test]
fn a_damaged_end_of_a_partition_is_named_and_given_up_only_if_somebody_says_so() {
    let fixture = Fixture::with(|o| {
        o.tail_bytes = 0;
        o.inline_bytes_max = 8000;
    });
    let places = ["small", "whole"].map(|name| create(&fixture.storage, name, &[]));
    for i in 0..400 {
        send(&fixture.storage, places[0], &[&format!("{i} of the small ones")]);
        send(&fixture.storage, places[1], &[&format!("{i} of the others")]);
    }
    fixture.storage.reclaim().unwrap();
    let options = &fixture.options;
    let path = options.path.with_extension("copy");
    copy(&options.path, &path);
    assert!(flip(&path, ".sst", "5 of the small ones"));
    let mut options = StorageOptions { path: path.clone(), ..options.clone() };
    for _ in 0..2 {
        match crate::fixture::open(options.clone()).err() {
            Some(OpenError::Damaged { detail, .. }) => {
                assert!(
                    detail.contains("topic \"small\" partition 0") && detail.contains("--accept-data-loss"),
                    "{detail}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    options.accept_data_loss = true;
    let storage = crate::fixture::open(options.clone()).unwrap();
    assert_eq!(read_all(&storage, places[1], 0).len(), 400);
    assert!(storage.fetch(places[0], 0, LIMITS).is_err());
    assert_eq!(read_all(&storage, places[0], 399).len(), 1, "what lies behind the damage is there");
    assert_eq!(send(&storage, places[0], &["goes on"]).base_offset, 400);
    storage.close().unwrap();
    drop(storage);
    options.accept_data_loss = false;
    let storage = crate::fixture::open(options).unwrap();
    assert_eq!(read_all(&storage, places[0], 400).len(), 1);
    drop(storage);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn damage_in_what_is_said_of_topics_keeps_the_log_closed() {
    let (fixture, _) = filled();
    let path = &fixture.options.path;
    let place = path.join("copy");
    let open = |change: &dyn Fn(&Path)| -> String {
        let _gone = fs::remove_dir_all(&place);
        copy(path, &place);
        change(&place);
        let mut options = fixture.options.clone();
        options.path = place.clone();
        match crate::fixture::open(options).err() {
            Some(OpenError::Damaged { path, detail }) => {
                assert_eq!(path, place.display().to_string());
                detail
            }
            other => panic!("{other:?}"),
        }
    };
    // The topic's name lies in the table of topics, with its settings.
    let table = open(&|path| assert!(flip(path, ".sst", "cleanup.policy")));
    assert!(table.contains(".sst") && table.contains("checksum"), "{table}");
    let manifest = open(&|path| assert!(flip(path, "MANIFEST", "leveldb.BytewiseComparator")));
    assert!(!manifest.is_empty());
    let missing = open(&|path| {
        let tables = fs::read_dir(path.join("db")).unwrap().map(|e| e.unwrap().path());
        tables.filter(|p| p.extension().is_some_and(|e| e == "sst")).for_each(|p| fs::remove_file(p).unwrap());
    });
    assert!(missing.contains(".sst"), "{missing}");
    let current = open(&|path| fs::write(path.join("db/CURRENT"), "MANIFEST-9\n").unwrap());
    assert!(current.contains("MANIFEST"), "{current}");
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true if ["db", "log"].iter().any(|own| path.file_name().unwrap() == *own) => copy(&path, &name),
            true => {}
            false => drop(fs::copy(&path, &name).unwrap()),
        }
    }
}

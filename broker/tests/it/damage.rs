//! Bytes that changed on the disk: they are noticed, named, and nobody else is harmed.

use std::fs;
use std::path::{Path, PathBuf};

use kafka_protocol::ResponseError;
use millpond_broker::batch::Codec;
use millpond_broker::storage::{FetchLimits, OpenError, StorageError};
use millpond_types::ErrorKind;
use millpond_types::ports::TopicLog;

use crate::fixture::{ALL, Fixture, START_MS, batch, create, produce, read_all, send};
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

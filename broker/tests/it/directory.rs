//! Whose directory it is, and what else may be wrong with it.

use std::fs;

use millpond_broker::storage::{OpenError, Storage};

use millpond_types::ports::{ReadLimits, StateReader, TopicLog};
use proptest::prelude::*;
use rocksdb::{DB, IteratorMode, Options};

use crate::fixture::{self, Fixture, create, options, produce_with_id, read_all, send};

#[test]
fn each_wrong_directory_has_its_own_error() {
    let open = |path: &std::path::Path| fixture::open(options(path)).err();

    let held = tempfile::tempdir().unwrap();
    let storage = Storage::open(options(held.path())).unwrap();
    assert!(matches!(Storage::open(options(held.path())), Err(OpenError::Locked(_))));
    storage.close().unwrap();
    assert!(open(held.path()).is_none());

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(open(foreign.path()), Some(OpenError::Foreign(_))));
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "a foreign directory was written to");

    let marker = held.path().join("millpond");
    let ours = fs::read(&marker).unwrap();
    fs::write(&marker, "millpond data directory\nformat 99\nready\n").unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Newer { found: 99, .. })));
    fs::write(&marker, "something else").unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Damaged { .. })));
    fs::write(&marker, ours).unwrap();
    assert!(open(held.path()).is_none());

    let database = held.path().join("db");
    let manifest = fs::read_dir(&database)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"))
        .unwrap();
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, &good[..good.len() / 2]).unwrap();
    match open(held.path()) {
        Some(OpenError::Damaged { .. }) => {}
        other => panic!("a torn manifest gives {other:?}"),
    }
    fs::remove_dir_all(&database).unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Damaged { .. })), "the database is missing");

    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(open(file.path()), Some(OpenError::Io { .. })));
}

#[test]
fn a_directory_from_before_there_were_log_files_is_gone_on_with() {
    let fixture = Fixture::with(|o| o.inline_bytes_max = 1 << 30);
    let place = create(&fixture.storage, "t", &[]);
    let values: Vec<String> = (0..5).map(|i| format!("{i} {}", "x".repeat(i * 3000))).collect();
    values[..4].iter().for_each(|value| assert!(send(&fixture.storage, place, &[value]).base_offset >= 0));
    fixture.storage.close().unwrap();
    // Batches of more than two kilobytes were in RocksDB's blob files.
    let path = fixture.options.path.join("db");
    let names = DB::list_cf(&Options::default(), &path).unwrap();
    let families = names.iter().map(|name| {
        let mut options = Options::default();
        options.set_enable_blob_files(name == "log");
        options.set_min_blob_size(2048);
        rocksdb::ColumnFamilyDescriptor::new(name, options)
    });
    let db = DB::open_cf_descriptors(&Options::default(), &path, families).unwrap();
    let log = db.cf_handle("log").unwrap();
    let entries: Vec<_> = db.iterator_cf(log, IteratorMode::Start).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 4);
    entries.iter().for_each(|(key, value)| db.put_cf(log, key, value).unwrap());
    db.flush_cf(log).unwrap();
    drop(db);
    assert!(fs::read_dir(&path).unwrap().any(|e| e.unwrap().path().extension().is_some_and(|e| e == "blob")));
    fs::remove_dir(fixture.options.path.join("log")).unwrap();
    let marker = fixture.options.path.join("millpond");
    fs::write(&marker, "millpond data directory\nformat 1\nready\n").unwrap();

    let mut fixture = fixture;
    fixture.options.inline_bytes_max = 0;
    let fixture = fixture.reopen(false);
    assert_eq!(fs::read_to_string(&marker).unwrap(), "millpond data directory\nformat 3\nready\n");
    send(&fixture.storage, place, &[&values[4]]);
    let fixture = fixture.reopen(false);
    let rows: Vec<String> = read_all(&fixture.storage, place, 0).into_iter().map(|row| row.1).collect();
    assert_eq!(rows, values);
    assert_eq!(fs::read_dir(fixture.options.path.join("log")).unwrap().count(), 1);
}

#[test]
fn identity_stays_and_the_epoch_grows() {
    let fixture = Fixture::with(|o| o.node_id = 7);
    let (cluster, epoch) = (fixture.storage.cluster_id().to_owned(), fixture.storage.leader_epoch());
    let fixture = fixture.reopen(true).reopen(false);
    assert_eq!((fixture.storage.cluster_id(), fixture.storage.node_id()), (&cluster[..], 7));
    assert_eq!(fixture.storage.leader_epoch(), epoch + 2);
}

#[test]
fn a_closed_storage_says_so_and_frees_its_directory() {
    let fixture = Fixture::new();
    let place = create(&fixture.storage, "t", &[]);
    send(&fixture.storage, place, &["a"]);
    let kept = fixture.storage.clone();
    fixture.storage.close().unwrap();
    fixture.storage.close().unwrap();
    let again = fixture::open(fixture.options.clone()).unwrap();
    assert_eq!(read_all(&again, place, 0).len(), 1);
    let closed = crate::fixture::block_on(kept.delete_topic(place.topic));
    assert_eq!(closed, Err(millpond_broker::storage::StorageError::Closed));
}

/// Every value of the database is read by us, so each may be damaged: that is an error or other contents, no panic.
fn damage(path: &std::path::Path, places: &[(prop::sample::Index, prop::sample::Index, u8)]) {
    let database = path.join("db");
    let names = DB::list_cf(&Options::default(), &database).unwrap();
    let db = DB::open_cf(&Options::default(), &database, &names).unwrap();
    let mut entries = Vec::new();
    for name in &names {
        for entry in db.iterator_cf(db.cf_handle(name).unwrap(), IteratorMode::Start) {
            let (key, value) = entry.unwrap();
            entries.push((name, key, value.to_vec()));
        }
    }
    for (which, byte, new) in places {
        let which = which.index(entries.len());
        let (name, key, value) = &mut entries[which];
        let byte = byte.index(value.len() + 1);
        match value.get_mut(byte) {
            Some(byte) => *byte = *new,
            None => value.truncate(value.len() / 2),
        }
        db.put_cf(db.cf_handle(name).unwrap(), key, value).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn damaged_values_never_panic(
        places in proptest::collection::vec(any::<(prop::sample::Index, prop::sample::Index, u8)>(), 1..4),
    ) {
        let fixture = Fixture::with(|o| o.segment_bytes = 100);
        let place = create(&fixture.storage, "t", &[("retention.ms", "1000")]);
        for i in 0..4 {
            send(&fixture.storage, place, &["a", "b"]);
            produce_with_id(&fixture.storage, place, 1, i);
        }
        crate::fixture::block_on(fixture.storage.delete_records(place, 1)).unwrap();
        let cursor = millpond_types::ports::Cursor { query: "q".into(), source: place, offset: 1 };
        let step = millpond_types::ports::Step { cursors: vec![cursor], ..Default::default() };
        crate::fixture::step(&fixture.storage, step);
        fixture.storage.close().unwrap();
        damage(&fixture.options.path, &places);
        match crate::fixture::open(fixture.options.clone()) {
            Err(OpenError::Damaged { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
            Ok(storage) => {
                for topic in storage.all_topics() {
                    for partition in 0..topic.partition_count() {
                        let place = millpond_types::TopicPartition { topic: topic.id, partition };
                        let offsets = storage.partition_offsets(place).unwrap();
                        let limits = ReadLimits { records_max: 100, bytes_max: 1000, up_to: u64::MAX };
                        let _ = storage.read(place, offsets.start, limits);
                        let _ = storage.list_offset(place, millpond_broker::storage::OffsetQuery::MaxTimestamp);
                        let _ = storage.list_offset(place, millpond_broker::storage::OffsetQuery::Timestamp(5));
                        let batch = crate::fixture::batch(&[("v", 1_000_000)], millpond_broker::batch::Codec::None);
                        let _ = crate::fixture::produce(&storage, place, &batch);
                        let _ = produce_with_id(&storage, place, 1, 4);
                    }
                }
                let _ = (storage.cursors("q"), storage.query_cursors(), storage.get(b"k"));
            }
        }
    }
}

//! The topic of a table is compacted, and damage in a topic ends the query that reads it.

use std::time::{Duration, Instant};

use millpond::{Database, OwnedRecord};
use millpond_engine::processing_log::LineKind;
use millpond_types::TopicPartition;
use millpond_types::ports::{ReadLimits, TopicLog};

use crate::library::{explain, open_with, options, settle};

fn open(path: &std::path::Path) -> Database {
    let mut options = options(path);
    options.storage.segment_bytes = 64 << 10;
    options.storage.active_bytes_max = 64 << 10;
    options.storage.tail_bytes = 1 << 10;
    options.storage.write_buffer_bytes = 3 << 20;
    options.storage.inline_bytes_max = 0;
    open_with(options)
}

/// Blocks of all files.
fn on_disk(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).unwrap().filter_map(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => on_disk(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn settled_place(db: &Database, topic: &str) -> TopicPartition {
    TopicPartition { topic: db.storage().topic(topic).unwrap().id, partition: 0 }
}

#[test]
fn the_topic_of_a_table_shrinks_to_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let mut db = open(directory.path());
    db.execute(
        "SET 'cache.max.bytes.buffering' = '0';
         CREATE STREAM S (ID STRING KEY, TEXT STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
         CREATE TABLE T AS SELECT ID, LATEST_BY_OFFSET(TEXT) AS TEXT, COUNT(*) AS N FROM S GROUP BY ID EMIT CHANGES;",
    )
    .unwrap();
    let text = "x".repeat(3000);
    for round in 0..40 {
        let record = |key: usize| OwnedRecord {
            key: Some(format!("k{key}").into()),
            value: Some(format!(r#"{{"text":"{round}{text}"}}"#).into()),
            timestamp: 1_000 + round,
            headers: Vec::new(),
        };
        db.produce("s", &(0..50).map(record).collect::<Vec<_>>()).unwrap();
        settle(&db);
    }
    let place = settled_place(&db, "T");
    let bytes = |db: &Database| db.storage().partition_bytes(place).unwrap();
    let (before, files_before) = (bytes(&db), on_disk(directory.path()));
    assert!(before > 40 * 50 * 3000, "every change was sent on: {before}");
    let done = db.storage().compact(place).unwrap();
    // Once for each of 50 rows, and what is active.
    let after = bytes(&db);
    assert!(after < 50 * 3100 + (128 << 10) + (64 << 10), "{before} became {after}: {done:?}");
    let newest = |db: &Database| {
        let mut rows = std::collections::BTreeMap::new();
        let mut from = 0;
        loop {
            let limits = ReadLimits { records_max: 1000, bytes_max: 1 << 20, up_to: u64::MAX };
            let records = db.storage().read(place, from, limits).unwrap();
            for row in 0..records.views.len() {
                rows.insert(records.key(row).unwrap().to_vec(), records.value(row).unwrap().to_vec());
            }
            from = records.next_offset;
            if from >= records.stable_end {
                return rows;
            }
        }
    };
    assert_eq!(newest(&db).len(), 50);
    assert!(newest(&db).values().all(|v| v.starts_with(br#"{"TEXT":"39"#)));
    // A table over the topic, and the first one after a restart, go on.
    db.execute(
        "CREATE TABLE U (ID STRING PRIMARY KEY, TEXT STRING, N BIGINT) WITH (KAFKA_TOPIC='T', VALUE_FORMAT='JSON');
         CREATE TABLE V AS SELECT ID, N + 1 AS M FROM U EMIT CHANGES;",
    )
    .unwrap();
    settle(&db);
    let rows = |db: &Database| crate::pull::rows(db, "SELECT COUNT(*) AS C, MIN(M) AS A, MAX(M) AS B FROM V;");
    assert_eq!(rows(&db), ["50 41 41"]);
    drop(db);
    db = open(directory.path());
    assert_eq!(rows(&db), ["50 41 41"]);
    assert_eq!(newest(&db).len(), 50);
    // With the old input deleted, the files shrink too.
    let s = settled_place(&db, "s");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(db.storage().delete_records(s, -1)).unwrap();
    db.storage().compact(place).unwrap();
    db.storage().reclaim().unwrap();
    let files = on_disk(directory.path());
    assert!(files < files_before / 4, "{files_before} became {files}");
}

#[test]
fn a_query_that_meets_damage_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    db.execute(
        "CREATE STREAM S (ID STRING KEY, TEXT STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
         CREATE STREAM O (ID STRING KEY, TEXT STRING) WITH (KAFKA_TOPIC='o', PARTITIONS=1, VALUE_FORMAT='JSON');",
    )
    .unwrap();
    for i in 0..6 {
        for topic in ["s", "o"] {
            let value = format!(r#"{{"text":"{i} of {topic} {}"}}"#, "x".repeat(3000));
            let (key, value) = (Some(format!("k{i}").into()), Some(value.into()));
            db.produce(topic, &[OwnedRecord { key, value, timestamp: 1_000, headers: Vec::new() }]).unwrap();
        }
    }
    // Only what is closed is in files of its own.
    db.storage().close().unwrap();
    drop(db);
    let mut flipped = false;
    for entry in std::fs::read_dir(directory.path().join("log")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(6).position(|w| w == b"4 of s");
        if let Some(at) = found {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            flipped = true;
        }
    }
    assert!(flipped, "the record is in no log file");
    let db = open(directory.path());
    db.execute(
        "CREATE TABLE CS AS SELECT ID, COUNT(*) AS N FROM S GROUP BY ID EMIT CHANGES;
         CREATE TABLE CO AS SELECT ID, COUNT(*) AS N FROM O GROUP BY ID EMIT CHANGES;
         CREATE STREAM CI WITH (PARTITIONS=1) AS SELECT ID, SUBSTRING(TEXT, 1, 6) AS TEXT FROM S EMIT CHANGES;",
    )
    .unwrap();
    let count = |table: &str| crate::pull::rows(&db, &format!("SELECT COUNT(*) AS C FROM {table};"));
    let ids: Vec<String> = db.engine().catalog().queries.keys().cloned().collect();
    let state = || ids.iter().map(|id| explain(&db, id)).collect::<Vec<_>>();
    let until = Instant::now() + Duration::from_secs(90);
    while state().iter().filter(|s| s.contains("ERROR")).count() < 2 || count("CO") != ["6"] {
        assert!(Instant::now() < until, "{:?}", state());
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = |s: &String| s.contains("ERROR") && s.contains("topic \\\"s\\\" partition 0 is damaged at offset 4");
    assert_eq!(state().iter().filter(|s| said(s)).count(), 2, "{:?}", state());
    let shown = format!("{:?}", db.execute("SHOW QUERIES EXTENDED;").unwrap());
    assert!(shown.contains("topic \\\"s\\\" partition 0 is damaged at offset 4"), "{shown}");
    let lines = db.engine().processing_log().lines();
    let fatal: Vec<_> = lines.iter().filter(|line| line.kind == LineKind::Fatal).collect();
    assert_eq!(fatal.len(), 2, "{lines:?}");
    assert!(fatal.iter().all(|l| (l.topic.as_str(), l.partition, l.offset) == ("s", 0, 4)), "{fatal:?}");
    assert_eq!(count("CS"), ["4"], "all before the damage is there");
    assert_eq!(db.storage().offsets(settled_place(&db, "CI")).unwrap().end, 4);
    assert_eq!(count("CO"), ["6"], "other queries go on");
}

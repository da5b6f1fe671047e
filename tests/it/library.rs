//! The library's face: everything through `millpond::Database`, with no listener. And what tests of it share.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use millpond::{Database, DatabaseOptions, Entity, ErrorKind, OwnedRecord, Session};
use millpond_broker::storage::Durability;
use millpond_types::TopicPartition;
use millpond_types::ports::TopicLog;

use crate::process::guest;
use crate::pull::rows;

#[path = "../../examples/embedded.rs"]
mod embedded;

/// Options for tests: queries read topics from their beginning, and nothing is forced to disk.
pub fn options(path: &Path) -> DatabaseOptions {
    let mut options = DatabaseOptions::new(path);
    options.storage.durability = Durability::None;
    options.storage.disk_reserve_bytes = 0;
    options.engine.properties.insert("auto.offset.reset".into(), "earliest".into());
    options
}

pub fn open(path: &Path) -> Database {
    open_with(options(path))
}

/// Opens what may just have been closed: a process that another test begins holds the lock too, from its fork to its exec.
pub fn open_with(options: DatabaseOptions) -> Database {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match Database::open_with(options.clone()) {
            Err(e) if e.kind() == ErrorKind::Conflict && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// What queries still have to read, in records.
pub fn lag(db: &Database) -> i64 {
    let storage = db.storage();
    let ids: Vec<String> = db.engine().catalog().queries.keys().cloned().collect();
    let cursors = ids.iter().flat_map(|id| storage.cursors(id).unwrap());
    cursors.map(|c| storage.offsets(c.source).unwrap().stable_end - c.offset).sum()
}

/// Waits until every persistent query has read all there is, results of others included.
pub fn settle(db: &Database) {
    let storage = db.storage();
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        let before = storage.sequence();
        if lag(db) == 0 && storage.sequence() == before {
            return;
        }
        if Instant::now() > until {
            let explained: Vec<String> = db.engine().catalog().queries.keys().map(|id| explain(db, id)).collect();
            panic!("queries are {} records behind: {explained:#?}", lag(db));
        }
        storage.wait_past(before, Duration::from_millis(50));
    }
}

/// State and reason of a query.
pub fn explain(db: &Database, id: &str) -> String {
    match db.execute(&format!("EXPLAIN {id};")).map(|answers| answers.into_iter().next().map(|a| a.entity)) {
        Ok(Some(Entity::Query(query))) => format!("{id}: {} {:?}", query.summary.state, query.summary.reason),
        other => format!("{id}: {other:?}"),
    }
}

/// All records of a topic: partition, key, value, timestamp, in the order of each partition.
pub fn records(db: &Database, topic: &str) -> Vec<Vec<(String, String, i64)>> {
    let storage = db.storage();
    let info = storage.topic(topic).unwrap_or_else(|| panic!("no topic {topic}"));
    let text = |bytes: Option<&[u8]>| bytes.map_or("null".to_string(), |b| String::from_utf8_lossy(b).into_owned());
    let limits = millpond_types::ports::ReadLimits { records_max: 100_000, bytes_max: 64 << 20, up_to: u64::MAX };
    (0..info.partitions)
        .map(|partition| {
            let at = TopicPartition { topic: info.id, partition };
            let (mut out, mut next) = (Vec::new(), storage.offsets(at).unwrap().start);
            while next < storage.offsets(at).unwrap().stable_end {
                let read = storage.read(at, next, limits).unwrap();
                for row in 0..read.views.len() {
                    out.push((text(read.key(row)), text(read.value(row)), read.views[row].timestamp));
                }
                assert!(read.next_offset > next, "no progress at {next}");
                next = read.next_offset;
            }
            out
        })
        .collect()
}

fn record(key: &str, value: &str) -> OwnedRecord {
    OwnedRecord { key: Some(key.into()), value: Some(value.into()), timestamp: 5_000, headers: Vec::new() }
}

#[test]
fn the_example_runs() {
    embedded::main().unwrap();
}

#[test]
fn statements_produce_subscribe_pull_register_close() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let answers = db
        .execute(
            "CREATE STREAM VISITS (USER STRING KEY, URL STRING) WITH (KAFKA_TOPIC='visits', PARTITIONS=2, VALUE_FORMAT='JSON');
             SHOW STREAMS;",
        )
        .unwrap();
    assert!(matches!(&answers[0].entity, Entity::Status(s) if s.message.contains("created")), "{answers:?}");
    assert!(
        matches!(&answers[1].entity, Entity::Sources { sources, .. } if sources.iter().any(|s| s.name == "VISITS"))
    );

    let entry = db.register_module("classify", &guest("classify")).unwrap();
    assert_eq!(entry.report.functions.len(), 2, "{:?}", entry.report);
    // The same bytes again change nothing; garbage is refused.
    db.register_module("classify", &guest("classify")).unwrap();
    assert_eq!(db.register_module("other", b"not wasm").unwrap_err().kind(), ErrorKind::BadRequest);

    db.execute(
        "CREATE TABLE PER_SECTION AS SELECT URL_SECTION(URL) AS SECTION, COUNT(*) AS N FROM VISITS
           GROUP BY URL_SECTION(URL) EMIT CHANGES;",
    )
    .unwrap();
    let mut subscription =
        db.subscribe("SELECT USER, URL_SECTION(URL) AS S FROM VISITS EMIT CHANGES LIMIT 3;").unwrap();
    let names: Vec<&str> = subscription.schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["USER", "S"]);

    let urls = [("ann", "/shop/1"), ("bob", "/docs/a"), ("ann", "/shop/2")];
    let visits: Vec<OwnedRecord> =
        urls.iter().map(|(user, url)| record(user, &format!(r#"{{"url":"{url}"}}"#))).collect();
    db.produce("visits", &visits).unwrap();
    let mut seen = 0;
    while let Some(batch) = subscription.next_blocking() {
        seen += batch.unwrap().num_rows();
    }
    assert_eq!(seen, 3, "the subscription ends at its limit");

    settle(&db);
    let select = "SELECT SECTION, N FROM PER_SECTION ORDER BY SECTION;";
    assert_eq!(rows(&db, select), ["docs 1", "shop 2"]);

    assert_eq!(db.produce("nowhere", &visits).unwrap_err().kind(), ErrorKind::NotFound);
    let error =
        db.execute("CREATE STREAM VISITS (A INT) WITH (KAFKA_TOPIC='visits', VALUE_FORMAT='JSON');").unwrap_err();
    assert!(error.to_string().contains("VISITS"), "{error}");
    db.close().unwrap();
    drop(db);

    // Everything is there again, guests included, and goes on.
    let db = open(directory.path());
    assert_eq!(rows(&db, select), ["docs 1", "shop 2"]);
    db.produce("visits", &visits).unwrap();
    settle(&db);
    assert_eq!(rows(&db, select), ["docs 2", "shop 4"]);
    db.close().unwrap();
}

#[test]
fn a_subscription_is_an_async_stream_and_ends_when_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    db.execute("CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');")
        .unwrap();
    let mut session = Session::new();
    session.set("auto.offset.reset", "latest");
    db.produce("s", &[record("before", r#"{"v":0}"#)]).unwrap();
    let mut subscription = db.subscribe_in("SELECT K, V FROM S EMIT CHANGES;", &session).unwrap();
    db.produce("s", &[record("after", r#"{"v":1}"#)]).unwrap();
    let batch = futures::executor::block_on(subscription.next()).unwrap().unwrap();
    assert_eq!(batch.num_rows(), 1, "what came before a query that starts at the latest is not its business");

    let open_queries = || match db.execute("SHOW QUERIES;").unwrap().remove(0).entity {
        Entity::Queries { queries, .. } => queries.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(open_queries(), 1);
    drop(subscription);
    assert_eq!(open_queries(), 0);
    db.close().unwrap();
}

#[test]
fn one_database_per_directory() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let Err(error) = Database::open_with(options(directory.path())) else { panic!("opened twice") };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    db.close().unwrap();
}

//! A full disk: queries stand still, say so, and go on by themselves when there is space again; producers and the
//! healthcheck tell of it.

use std::path::Path;
use std::time::{Duration, Instant};

use millpond::{Database, OwnedRecord};

use crate::cli::{command, feed};
use crate::disk::Disk;
use crate::library::{explain, open_with, options, records, settle};
use crate::process::{Process, client, serve};

const MB: usize = 1 << 20;
const ROWS: usize = 60;

fn open(path: &Path) -> Database {
    let mut options = options(path);
    options.storage.durability = millpond_broker::storage::Durability::Group;
    options.storage.disk_free_bytes_min = 0;
    options.storage.write_buffer_bytes = 6 * MB;
    options.storage.tail_bytes = MB;
    open_with(options)
}

fn wait_until(what: &str, db: &Database, ids: &[String], done: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let states: Vec<String> = ids.iter().map(|id| explain(db, id)).collect();
        if done(&states) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {states:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_query_on_a_full_disk_is_stalled_and_goes_on_exactly_once() {
    let Some(disk) = Disk::new(200, "queries on a full disk") else { return };
    let path = disk.data();
    let db = open(&path);
    db.execute(
        "CREATE STREAM S (ID STRING KEY, N INT, TEXT STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
         CREATE STREAM O WITH (KAFKA_TOPIC='o', PARTITIONS=1) AS SELECT * FROM S EMIT CHANGES;
         CREATE TABLE C WITH (KAFKA_TOPIC='c', PARTITIONS=1) AS SELECT ID, COUNT(*) AS N, SUM(N) AS X, MAX(TEXT) AS T
           FROM S GROUP BY ID EMIT CHANGES;
         PAUSE ALL;",
    )
    .unwrap();
    let ids: Vec<String> = db.engine().catalog().queries.keys().cloned().collect();
    for n in 0..ROWS {
        let value = format!(r#"{{"N": {n}, "TEXT": "{}"}}"#, "x".repeat(MB / 2));
        let (key, value) = (Some(b"k".to_vec()), Some(value.into_bytes()));
        // Of now, so that retention keeps it.
        let timestamp = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        db.produce("s", &[OwnedRecord { key, value, timestamp, headers: Vec::new() }]).unwrap();
    }
    disk.fill(2);
    db.execute("RESUME ALL;").unwrap();
    wait_until("nothing is stalled", &db, &ids, |states| states.iter().any(|s| s.contains("STALLED")));
    // Long enough for some attempts on the full disk.
    std::thread::sleep(Duration::from_millis(2500));
    wait_until("it does not say why", &db, &ids, |states| {
        states.iter().any(|s| s.contains("STALLED") && s.contains("No space left"))
    });
    let shown = format!("{:?}", db.execute("SHOW QUERIES;").unwrap());
    assert!(shown.contains("STALLED"), "{shown}");
    let stuck = records(&db, "o")[0].len();
    assert!(stuck < ROWS, "the disk was not full");
    assert_eq!(records(&db, "s")[0].len(), ROWS, "all can be read");

    disk.free();
    wait_until("they do not go on", &db, &ids, |states| states.iter().all(|s| s.contains("RUNNING")));
    let check = |db: &Database| {
        settle(db);
        let copied: Vec<String> = records(db, "o")[0].iter().map(|r| r.1[..20].to_owned()).collect();
        let expected: Vec<String> =
            (0..ROWS).map(|n| format!(r#"{{"N":{n},"TEXT":"{}"#, "x".repeat(20))[..20].to_owned()).collect();
        assert_eq!(copied, expected, "each row once, in order");
        let sum = ROWS * (ROWS - 1) / 2;
        assert_eq!(crate::pull::rows(db, "SELECT N, X FROM C WHERE ID = 'k';"), [format!("{ROWS} {sum}")]);
    };
    check(&db);
    db.close().unwrap();
    drop(db);
    check(&open(&path));
}

/// A server that writes nothing bulky with less free than `min`; its settings lie in `directory`.
fn with_free_min(directory: &Path, data: &Path, min: u64) -> Process {
    let config = directory.join("c.toml");
    std::fs::write(&config, format!("[limits]\ndisk_free_bytes_min = {min}\n")).unwrap();
    let mut command = serve(data);
    command.arg("--config").arg(&config);
    Process::spawn(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_is_told_by_the_producer_and_the_healthcheck() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Process::start(&data);
    let bootstrap = server.kafka.to_string();
    feed(command(&bootstrap, &["topic", "create", "t"]), b"").ok();
    server.stop();

    let volume = rustix::fs::statvfs(&data).unwrap();
    let server = with_free_min(directory.path(), &data, volume.f_bavail * volume.f_frsize / 2 * 3);
    let bootstrap = server.kafka.to_string();
    let until = Instant::now() + Duration::from_secs(60);
    let health = loop {
        let answer = client().get(format!("{}/healthcheck", server.http)).send().await.unwrap();
        if answer.status().as_u16() == 503 {
            break answer.json::<serde_json::Value>().await.unwrap();
        }
        assert!(Instant::now() < until, "healthy though nothing can be written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&health["isHealthy"], &health["details"]["kafka"]["isHealthy"]), (&false.into(), &false.into()));
    assert_eq!(health["serverState"], "READY");
    let ran = tokio::task::spawn_blocking(move || {
        feed(command(&bootstrap, &["produce", "t", "--delivery-timeout", "3"]), b"a record\n")
    });
    let ran = ran.await.unwrap();
    ran.fails(&["trying again for", "disk"]);
    // It is told in the log, too.
    let log = server.kill();
    assert!(log.contains("disk_free_bytes_min"), "{log}");
}

const BEGINS: &str = "groups and transactions cannot be written";
const ENDS: &str = "groups and transactions are written again";

#[test]
fn who_joins_a_group_on_a_full_disk_is_told_so_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Process::start(&data);
    let bootstrap = server.kafka.to_string();
    feed(command(&bootstrap, &["topic", "create", "t"]), b"").ok();
    feed(command(&bootstrap, &["produce", "t", "-q"]), b"one\ntwo\n").ok();
    server.stop();

    let volume = rustix::fs::statvfs(&data).unwrap();
    let server = with_free_min(directory.path(), &data, volume.f_bavail * volume.f_frsize * 8);
    let (bootstrap, begun) = (server.kafka.to_string(), Instant::now());
    let ran = feed(command(&bootstrap, &["consume", "t", "-g", "g", "-n", "2", "--timeout", "2"]), b"");
    ran.fails(&["cannot join group \"g\": COORDINATOR_NOT_AVAILABLE", "its log says why"]);
    // One attempt waits for others first.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    let log = server.kill();
    assert_eq!(log.matches(BEGINS).count(), 1, "{log}");
    assert!(!log.contains("groups not written"), "{log}");
}

#[test]
fn that_groups_cannot_be_written_is_told_when_it_begins_and_when_it_ends() {
    let Some(disk) = Disk::new(200, "groups on a full disk") else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = with_free_min(directory.path(), &disk.data(), 40 * MB as u64);
    let bootstrap = server.kafka.to_string();
    feed(command(&bootstrap, &["topic", "create", "t"]), b"").ok();
    feed(command(&bootstrap, &["produce", "t", "-q"]), b"one\ntwo\n").ok();
    disk.fill(2);
    let consume = |timeout| {
        let arguments = ["consume", "t", "-g", "g", "-e", "--timeout", timeout, "-q"];
        feed(command(&bootstrap, &arguments), b"")
    };
    // It is looked at intervals how full it is.
    let until = Instant::now() + Duration::from_secs(60);
    while consume("1").status == Some(0) {
        assert!(Instant::now() < until, "the disk is not full");
    }
    consume("2").fails(&["COORDINATOR_NOT_AVAILABLE"]);
    disk.free();
    consume("60").ok();
    let log = server.kill();
    assert_eq!((log.matches(BEGINS).count(), log.matches(ENDS).count()), (1, 1), "{log}");
}

//! A disk that is really full: queries stand still, say so, and go on by themselves when there is space again.

use std::path::Path;
use std::time::{Duration, Instant};

use millpond::{Database, OwnedRecord};

use crate::disk::Disk;
use crate::library::{explain, open_with, options, records, settle};

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

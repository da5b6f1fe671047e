//! A disk that is really full: queries stand still, say so, and go on by themselves when there is space again.
//!
//! Needs a file system of its own: a tmpfs, which only root may mount. Without it the test says so and does nothing.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use millpond::{Database, OwnedRecord};

use crate::library::{explain, options, records, settle};

const MB: usize = 1 << 20;
const ROWS: usize = 60;

/// A small file system, unmounted at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(mb: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mb}m"), "tmpfs"])
            .arg(directory.path())
            .output();
        if !mount.is_ok_and(|o| o.status.success()) {
            println!("NOT RUN: no file system can be mounted here, so nothing is known of queries on a full disk");
            return None;
        }
        Some(Self(directory))
    }

    /// Takes what is left but for so much.
    fn fill(&self, leave_mb: usize) {
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        let free = (found.f_bavail * found.f_frsize) as usize;
        std::fs::write(self.0.path().join("ballast"), vec![0; free.saturating_sub(leave_mb * MB)]).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}

fn open(path: &Path) -> Database {
    let mut options = options(path);
    options.storage.durability = millpond_broker::storage::Durability::Group;
    options.storage.disk_free_bytes_min = 0;
    options.storage.write_buffer_bytes = 6 * MB;
    options.storage.tail_bytes = MB;
    Database::open_with(options).unwrap()
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
    let Some(disk) = Disk::new(200) else { return };
    let path = disk.0.path().join("data");
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

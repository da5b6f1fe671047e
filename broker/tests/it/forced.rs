//! A disk whose fsync fails, or takes long: what is not surely on it is not shown, and nothing acknowledged is lost.
//!
//! The system calls of another process are made to fail by strace. Without it the tests say so and do nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_broker::storage::{Durability, FetchLimits, OffsetQuery, Storage, StorageError};
use millpond_types::ports::{Outcome, StateReader, StateStore, Step, TopicLog};
use millpond_types::record::RecordBuffer;
use millpond_types::{ManualClock, TopicPartition};

use crate::fixture::{ALL, START_MS, batch, create, options, produce, read_all, send, step};

/// Says what a child is to do, and where.
const ROLE: &str = "MILLPOND_TEST_FORCED_ROLE";
const DIRECTORY: &str = "MILLPOND_TEST_FORCED_DIRECTORY";

const FSYNCS: &str = "fdatasync,fsync";

/// Another process of this test, which does a role and says how far it is; it goes on when it is told.
struct Actor {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Actor {
    fn start(role: &str, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "forced::a_role", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, says) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, told, says }
    }

    fn expect(&mut self, what: &str) {
        for line in (&mut self.says).lines() {
            if line.unwrap().ends_with(&format!("at {what}")) {
                return;
            }
        }
        panic!("it ended before it was at {what}: {:?}", self.child.wait());
    }

    fn go_on(&mut self) {
        self.told.write_all(b"\n").unwrap();
    }

    fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

/// In the role: says where it is, and waits.
fn at(what: &str) {
    println!("\nat {what}");
    std::io::stdout().flush().unwrap();
    assert_ne!(std::io::stdin().read_line(&mut String::new()).unwrap(), 0, "nobody is there any more");
}

/// What strace does to system calls of a process, for as long as it is kept.
struct Fault(Child);

impl Fault {
    fn is_possible() -> bool {
        let possible = Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success());
        if !possible {
            println!("NOT RUN: there is no strace here, so nothing is known of a disk whose fsync fails");
        }
        possible
    }

    fn on(process: &Child, calls: &str, what: &str) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")])
            .args(["-p", &process.id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(strace.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        Self(strace)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of the process before it ends.
        let _told = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ended = self.0.wait();
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const LIMITS: FetchLimits = FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed: false };

/// What a test does in a process of its own; without the variable it has nothing to do.
#[test]
fn a_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    match &role[..] {
        "interval" => loses_trust(Path::new(&directory)),
        "close" => ends_on_a_bad_disk(Path::new(&directory)),
        "flush" => cannot_write_tables(Path::new(&directory)),
        "retention" => fails_in_retention(Path::new(&directory)),
        other => panic!("{other}"),
    }
}

fn commit_state(storage: &Storage, place: TopicPartition, value: &str) -> Outcome {
    let mut records = RecordBuffer::default();
    records.push(None, Some(value.as_bytes()), 1, &[]);
    let state = vec![(b"k".to_vec(), Some(value.as_bytes().to_vec()))].into();
    step(storage, Step { appends: vec![(place, records)], state, ..Step::default() })
}

fn loses_trust(directory: &Path) {
    let mut options = options(directory);
    options.durability = Durability::Interval(Duration::from_millis(50));
    let storage = Storage::open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..10 {
        send(&storage, place, &[&format!("v{i}")]);
    }
    assert!(matches!(commit_state(&storage, place, "v10"), Outcome::Committed { .. }));
    // A few turns of the keeper.
    std::thread::sleep(Duration::from_millis(300));
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
    all(&Storage::open(options).unwrap());
}

fn refused_write(storage: &Storage, place: TopicPartition) -> bool {
    let batch = batch(&[("refused", START_MS)], millpond_broker::batch::Codec::None);
    matches!(produce(storage, place, &batch), Err(StorageError::Unavailable(why)) if why.contains("in doubt"))
}

#[test]
fn what_was_acknowledged_before_an_fsync_that_failed_is_in_doubt_until_it_was_read_back() {
    if !Fault::is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start("interval", directory.path());
    actor.expect("ready");
    let fault = Fault::on(&actor.child, FSYNCS, "error=EIO");
    actor.go_on();
    actor.expect("doubt");
    drop(fault);
    actor.go_on();
    actor.end();
}

fn ends_on_a_bad_disk(directory: &Path) {
    for durability in [Durability::Interval(Duration::from_secs(3600)), Durability::None, Durability::Group] {
        let mut options = options(directory);
        options.durability = durability;
        let storage = Storage::open(options.clone()).unwrap();
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
        let storage = Storage::open(options).unwrap();
        assert_eq!(read_all(&storage, place, 0).len() as i64, end);
        storage.close().unwrap();
    }
}

#[test]
fn a_last_fsync_that_fails_is_not_passed_over() {
    if !Fault::is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start("close", directory.path());
    for _ in 0..3 {
        actor.expect("ready");
        let fault = Fault::on(&actor.child, FSYNCS, "error=EIO");
        actor.go_on();
        actor.expect("closed");
        drop(fault);
        actor.go_on();
    }
    actor.end();
}

fn cannot_write_tables(directory: &Path) {
    let mut options = options(directory);
    options.durability = Durability::None;
    options.write_buffer_bytes = 3 << 20;
    options.tail_bytes = 0;
    let storage = Storage::open(options.clone()).unwrap();
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
    check(&Storage::open(options).unwrap());
}

#[test]
fn tables_that_cannot_be_written_stop_writing_until_they_can() {
    if !Fault::is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start("flush", directory.path());
    actor.expect("ready");
    let fault = Fault::on(&actor.child, FSYNCS, "error=EIO");
    actor.go_on();
    actor.expect("stopped");
    drop(fault);
    actor.go_on();
    actor.end();
}

fn fails_in_retention(directory: &Path) {
    let clock = Arc::new(ManualClock::at(START_MS));
    let mut options = options(directory);
    options.durability = Durability::Group;
    options.clock = clock.clone();
    options.retention_interval = Duration::from_millis(10);
    let storage = Storage::open(options.clone()).unwrap();
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
    if !Fault::is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start("retention", directory.path());
    actor.expect("ready");
    let fault = Fault::on(&actor.child, FSYNCS, "error=EIO");
    actor.go_on();
    actor.expect("stopped");
    drop(fault);
    actor.go_on();
    actor.end();
}

//! Another process of this test binary, to which something is done while it goes through a role step by step.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_broker::batch::Codec;
use millpond_broker::storage::{Durability, Storage, StorageOptions};
use millpond_types::TopicPartition;

use crate::fixture::{START_MS, batch, create, open, options, read_all, send};
use crate::strace::{self, FSYNCS, Fault};

/// Says what a child is to do, and where.
const ROLE: &str = "MILLPOND_TEST_ROLE";
const DIRECTORY: &str = "MILLPOND_TEST_ROLE_DIRECTORY";

/// The process, which says how far it is; it goes on when it is told.
pub struct Actor {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Actor {
    pub fn start(role: &str, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "actor::a_role", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, says) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, told, says }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn expect(&mut self, what: &str) {
        for line in (&mut self.says).lines() {
            if line.unwrap().ends_with(&format!("at {what}")) {
                return;
            }
        }
        panic!("it ended before it was at {what}: {:?}", self.child.wait());
    }

    pub fn go_on(&mut self) {
        self.told.write_all(b"\n").unwrap();
    }

    pub fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

/// Has a process go through a role in which no file can be forced to disk from "ready" until it is at `until`.
pub fn while_nothing_is_forced(role: &str, until: &str, what: &str) {
    if !strace::is_possible(what) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut actor = Actor::start(role, directory.path());
    actor.expect("ready");
    let fault = Fault::on(actor.id(), None, FSYNCS, "error=EIO");
    actor.go_on();
    actor.expect(until);
    drop(fault);
    actor.go_on();
    actor.end();
}

/// In the role: says where it is, and waits.
pub fn at(what: &str) {
    println!("\nat {what}");
    std::io::stdout().flush().unwrap();
    assert_ne!(std::io::stdin().read_line(&mut String::new()).unwrap(), 0, "nobody is there any more");
}

/// In the role: is ready with five rows, none of which is in memory.
pub fn ready_with_five(directory: &Path, durability: Durability) -> (StorageOptions, Storage, TopicPartition) {
    let mut options = options(directory);
    options.durability = durability;
    options.tail_bytes = 0;
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..5 {
        send(&storage, place, &[&format!("v{i}")]);
    }
    at("ready");
    (options, storage, place)
}

pub fn sixth_row() -> Bytes {
    batch(&[("v5", START_MS)], Codec::None)
}

pub fn check_six(storage: &Storage, place: TopicPartition) {
    assert_eq!(read_all(storage, place, 0), (0..6).map(|i| (i, format!("v{i}"))).collect::<Vec<_>>());
}

#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a test does in a process of its own; without the variable it has nothing to do.
#[test]
fn a_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    let role: fn(&Path) = match &role[..] {
        "interval" => crate::forced::loses_trust,
        "close" => crate::forced::ends_on_a_bad_disk,
        "batches" => crate::forced::cannot_force_what_a_table_names,
        "rewritten" => crate::forced::is_told_of_what_was_dropped,
        "state" => crate::recovery::cannot_force_state,
        "flush" => crate::recovery::cannot_write_tables,
        "group" => crate::recovery::cannot_force_batches,
        "log" => crate::recovery::cannot_write_log,
        "retention" => crate::recovery::fails_in_retention,
        other => panic!("{other}"),
    };
    role(Path::new(&directory));
}

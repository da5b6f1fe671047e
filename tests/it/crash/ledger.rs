//! Transactions at a server that is killed again and again, and followers that read meanwhile what they commit.
//!
//! Those who write ask again until they are told, so that they know of each transaction how it ended. Those who follow have
//! nothing but the offset to go on with; they see what was committed, once and in order, and all of it is there in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Lasting, PATIENCE};
use crate::kafka::{Client, Producer, Sent};
use crate::process::Random;

const TOPIC: &str = "ledger";
const PARTITIONS: usize = 2;
const WRITERS: u64 = 2;

/// A record's value: its writer, the number of its transaction, and its own in it.
type Value = (u64, u64, u64);

/// A record that was acknowledged: its partition, its offset where that was told.
struct Written {
    partition: usize,
    offset: Option<i64>,
    value: Value,
    is_committed: bool,
}

struct Followed {
    seen: Vec<(i64, Value)>,
    /// Connections that ended while it read.
    lost: usize,
}

pub struct Ledger {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Vec<Written>>>,
    followers: Vec<JoinHandle<Followed>>,
    /// By partition how far a follower has come, and where it is to end.
    at: Arc<[(AtomicI64, AtomicI64); PARTITIONS]>,
}

fn read(text: &[u8]) -> Value {
    let numbers: Vec<u64> = std::str::from_utf8(text).unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    (numbers[0], numbers[1], numbers[2])
}

impl Ledger {
    pub fn begin(address: &Arc<Mutex<SocketAddr>>, random: &mut Random) -> Self {
        let kafka = *address.lock().unwrap();
        let forever = [("retention.ms", i64::MAX as u64)];
        Client::connect(kafka).unwrap().create_topic(TOPIC, PARTITIONS as i32, &forever).unwrap();
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<Mutex<BTreeSet<(u64, u64)>>>::default());
        let at: Arc<[(AtomicI64, AtomicI64); PARTITIONS]> =
            Arc::new(std::array::from_fn(|_| (AtomicI64::new(0), AtomicI64::new(i64::MAX))));
        let writers = (0..WRITERS).map(|writer| {
            let (server, stop, asked, random) =
                (Lasting::new(address, false), stop.clone(), asked.clone(), random.fork());
            std::thread::spawn(move || write(server, &stop, &asked, writer, random))
        });
        let writers = writers.collect();
        let followers = (0..PARTITIONS).map(|partition| {
            let (server, asked, at, random) = (Lasting::new(address, true), asked.clone(), at.clone(), random.fork());
            std::thread::spawn(move || follow(server, partition, &at[partition], &asked, random))
        });
        Self { stop, writers, followers: followers.collect(), at }
    }

    /// Ends it, and holds what the followers saw against what the writers know and what is there.
    pub fn check(self, kafka: SocketAddr, kills: usize) {
        self.stop.store(true, Ordering::Relaxed);
        let written: Vec<Written> = self.writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        let (mut committed, mut whole) = (Client::connect_committed(kafka).unwrap(), Client::connect(kafka).unwrap());
        for (partition, (reached, until)) in self.at.iter().enumerate() {
            let end = whole.end_offset(TOPIC, partition).unwrap();
            assert_eq!(committed.end_offset(TOPIC, partition).unwrap(), end, "a transaction is open that has ended");
            let reached = reached.load(Ordering::Relaxed);
            assert!(reached > end / 2, "the follower was at {reached} of {end}: it did not read during the kills");
            until.store(end, Ordering::Relaxed);
        }
        let read_all = |client: &mut Client, partition| -> Vec<(i64, Value)> {
            let records = client.read_all(TOPIC, partition).unwrap();
            records.into_iter().map(|record| (record.offset, read(&record.value.unwrap()))).collect()
        };
        for (partition, follower) in self.followers.into_iter().enumerate() {
            let Followed { seen, lost } = follower.join().unwrap();
            assert!(lost >= kills / 2, "the follower lost {lost} connections by {kills} kills");
            assert_eq!(read_all(&mut committed, partition), seen, "partition {partition}, from its start and followed");
            let there: BTreeMap<i64, Value> = read_all(&mut whole, partition).into_iter().collect();
            assert!(seen.iter().all(|(offset, value)| there.get(offset) == Some(value)), "read, and not there");

            let here: Vec<&Written> = written.iter().filter(|w| w.partition == partition).collect();
            for Written { offset, value, .. } in &here {
                let Some(offset) = offset else { continue };
                assert_eq!(there.get(offset), Some(value), "acknowledged at {partition}, {offset}");
            }
            // Each once, whatever was sent again, and in its writer's order.
            for writer in 0..WRITERS {
                let of_writer = |value: &&Value| value.0 == writer;
                let sent = |all: bool| -> Vec<&Value> {
                    here.iter().filter(|w| all || w.is_committed).map(|w| &w.value).filter(of_writer).collect()
                };
                let got: Vec<&Value> = seen.iter().map(|(_, value)| value).filter(of_writer).collect();
                assert_eq!(got, sent(false), "partition {partition}: what was followed, and what was committed");
                let got: Vec<&Value> = there.values().filter(of_writer).collect();
                assert_eq!(got, sent(true), "partition {partition}: what is there, and what was sent");
            }
        }
        let transactions = |is_committed| -> usize {
            let of = written.iter().filter(|w| w.is_committed == is_committed);
            of.map(|w| (w.value.0, w.value.1)).collect::<BTreeSet<_>>().len()
        };
        let (committed, aborted) = (transactions(true), transactions(false));
        println!("{committed} transactions committed and followed, {aborted} aborted");
        assert!(committed > kills && aborted > 0, "too little was tried");
    }
}

/// Transactions one after the other; some are aborted, and some left to whoever comes next under their id. `asked` are those
/// that are to be committed, from before that is asked on.
fn write(
    mut server: Lasting,
    stop: &AtomicBool,
    asked: &Mutex<BTreeSet<(u64, u64)>>,
    writer: u64,
    mut random: Random,
) -> Vec<Written> {
    let id = format!("ledger-{writer}");
    let mut producer: Option<Producer> = None;
    let mut written = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut who = match producer.take() {
            Some(who) if random.below(6) > 0 => who,
            _ => server.ask(|client| client.init_transactional(&id, PARTITIONS)),
        };
        let to: Vec<usize> = if random.below(2) == 0 { vec![0, 1] } else { vec![random.below(2) as usize] };
        server.ask(|client| client.add_to_transaction(&id, &who, TOPIC, &to));
        let (mut i, first) = (0, written.len());
        for _ in 0..1 + random.below(3) {
            let mut batches = Vec::new();
            for partition in &to {
                let from = i;
                i += 1 + random.below(20);
                let sent = (from..i).map(|i| Sent { key: None, value: format!("{writer} {n} {i}"), timestamp: 1000 });
                batches.push((*partition, sent.collect::<Vec<_>>()));
            }
            let offsets = server.ask(|client| client.produce_in_transaction(&id, TOPIC, &who, &batches));
            for (partition, sent) in batches {
                who.next[partition] += sent.len() as i32;
                written.extend((0..).zip(&sent).map(|(at, sent)| Written {
                    partition,
                    offset: offsets.get(&partition).map(|base| base + at),
                    value: read(sent.value.as_bytes()),
                    is_committed: false,
                }));
            }
            std::thread::sleep(Duration::from_millis(random.below(4)));
        }
        match random.below(8) {
            // Left open.
            0 => continue,
            1 => server.ask(|client| client.end_transaction(&id, &who, false)),
            _ => {
                asked.lock().unwrap().insert((writer, n));
                server.ask(|client| client.end_transaction(&id, &who, true));
                written[first..].iter_mut().for_each(|w| w.is_committed = true);
            }
        }
        producer = Some(who);
        std::thread::sleep(Duration::from_millis(random.below(15)));
    }
    // Ends what was left open.
    server.ask(|client| client.init_transactional(&id, PARTITIONS));
    written
}

/// Reads what is committed of a partition, in pieces that end anywhere in a transaction, until it is told where the end is.
fn follow(
    mut server: Lasting,
    partition: usize,
    (reached, until): &(AtomicI64, AtomicI64),
    asked: &Mutex<BTreeSet<(u64, u64)>>,
    mut random: Random,
) -> Followed {
    let (mut seen, mut next, mut moved) = (Vec::<(i64, Value)>::new(), 0, Instant::now());
    while next < until.load(Ordering::Relaxed) {
        let bytes_max = 1 + random.below(10_000) as i32;
        let (records, after) = server.ask(|client| client.consume(TOPIC, partition, next, bytes_max));
        for record in records {
            let (last, value) = (seen.last().map_or(-1, |(offset, _)| *offset), read(&record.value.unwrap()));
            assert!(record.offset > last, "offset {} comes after {last}", record.offset);
            let (writer, n, _) = value;
            let is_asked = asked.lock().unwrap().contains(&(writer, n));
            assert!(is_asked, "offset {}: transaction {n} of {writer} is open or aborted", record.offset);
            seen.push((record.offset, value));
        }
        if after > next {
            moved = Instant::now();
        }
        assert!(moved.elapsed() < PATIENCE, "no progress at offset {next}");
        next = after;
        reached.store(next, Ordering::Relaxed);
    }
    Followed { seen, lost: server.lost }
}

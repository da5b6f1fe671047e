//! A server that is killed at random moments, again and again, while a client produces and queries run: every
//! acknowledged record is in the filter's topic once, and every window's count is right. An offset that was acknowledged, or
//! read between two ends, has that record for ever. Beside it there are transactions, and followers of what they commit.

mod ledger;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use self::ledger::Ledger;
use crate::kafka::{Client, Producer, Sent};
use crate::process::{Process, Random};

const PARTITIONS: usize = 3;
const WINDOW_MS: i64 = 10_000;
const START_MS: i64 = 1_700_000_000_000;
const KEYS: u64 = 7;
/// Within this a server that was killed is there again, and answers.
const PATIENCE: Duration = Duration::from_secs(120);

/// A produced record as the queries should see it.
#[derive(Clone, Debug)]
struct Event {
    id: u64,
    key: u64,
    value: i64,
    timestamp: i64,
    /// Its partition, and its offset as it was acknowledged, where that was told.
    place: (usize, Option<i64>),
}

impl Event {
    fn sent(&self) -> Sent {
        let Self { id, key, value, timestamp, .. } = self;
        Sent {
            key: Some(format!("id-{id}")),
            value: json!({ "K": format!("k{key}"), "V": value, "FILLER": "x".repeat((id % 97) as usize) }).to_string(),
            timestamp: *timestamp,
        }
    }
}

/// A client of whatever server there is.
struct Lasting {
    address: Arc<Mutex<SocketAddr>>,
    committed: bool,
    connection: Option<Client>,
    /// Connections that ended, or were given up, before an answer.
    lost: usize,
}

impl Lasting {
    fn new(address: &Arc<Mutex<SocketAddr>>, committed: bool) -> Self {
        Self { address: address.clone(), committed, connection: None, lost: 0 }
    }

    /// Asks the same until it is answered well: the server may be gone, or being started.
    fn ask<T>(&mut self, mut question: impl FnMut(&mut Client) -> anyhow::Result<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = match self.connection.take() {
                Some(connection) => Ok(connection),
                None => Client::connect(address),
            };
            let answer = connection.and_then(|mut client| {
                client.committed = self.committed;
                let answer = question(&mut client);
                match &answer {
                    Ok(_) => self.connection = Some(client),
                    Err(_) => self.lost += 1,
                }
                answer
            });
            match answer {
                Ok(answer) => return answer,
                Err(e) => assert!(Instant::now() < until, "not answered within {PATIENCE:?}: {e:#}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Produces until it is told to stop, over whatever server there is; a batch is sent again until it is acknowledged. `done`
/// is how many records that were.
fn produce(mut server: Lasting, stop: &AtomicBool, mut random: Random, done: &AtomicUsize) -> Vec<Event> {
    let mut producer: Option<Producer> = None;
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut events: Vec<(usize, Vec<Event>)> = Vec::new();
        for partition in 0..PARTITIONS {
            if random.below(3) == 0 {
                continue;
            }
            let count = 1 + random.below(40);
            let of_partition = (0..count).map(|_| {
                let id = acknowledged.len() as u64 + events.iter().map(|(_, e)| e.len() as u64).sum::<u64>();
                let (key, value) = (random.below(KEYS), random.below(100) as i64);
                Event { id, key, value, timestamp: 0, place: (partition, None) }
            });
            let mut of_partition: Vec<Event> = of_partition.collect();
            for (i, event) in of_partition.iter_mut().enumerate() {
                event.id += i as u64;
                // Time goes on, and some come late or early by half a minute.
                event.timestamp = START_MS + event.id as i64 * 3 + random.below(60_000) as i64 - 30_000;
            }
            events.push((partition, of_partition));
        }
        let batches: Vec<(usize, Vec<Sent>)> =
            events.iter().map(|(partition, events)| (*partition, events.iter().map(Event::sent).collect())).collect();
        if batches.is_empty() {
            continue;
        }
        let offsets = server.ask(|client| {
            let producer = match &mut producer {
                Some(producer) => producer,
                None => producer.insert(client.init_producer(PARTITIONS)?),
            };
            client.produce("events", producer, &batches)
        });
        for (partition, batch) in &mut events {
            let base = offsets.get(partition);
            for (i, event) in batch.iter_mut().enumerate() {
                event.place.1 = base.map(|base| base + i as i64);
            }
        }
        if let Some(producer) = &mut producer {
            for (partition, batch) in &batches {
                producer.next[*partition] += batch.len() as i32;
            }
        }
        acknowledged.extend(events.into_iter().flat_map(|(_, events)| events));
        done.store(acknowledged.len(), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(random.below(4)));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_loses_and_doubles_nothing() {
    let slow = std::env::var("SLOW").is_ok_and(|v| !v.is_empty() && v != "0");
    let kills = if slow { 50 } else { 2 };
    if !slow {
        println!("only {kills} kills; SLOW=1 runs 50");
    }
    let mut random = Random::seeded("crash");
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::start(directory.path());
    server
        .sql(
            "CREATE STREAM EVENTS (ID STRING KEY, K STRING, V INT, FILLER STRING)
               WITH (KAFKA_TOPIC='events', PARTITIONS=3, VALUE_FORMAT='JSON');
             CREATE STREAM EVEN AS SELECT ID, K, V FROM EVENTS WHERE V % 2 = 0 EMIT CHANGES;
             CREATE TABLE COUNTS AS SELECT K, COUNT(*) AS N, SUM(V) AS S FROM EVENTS
               WINDOW TUMBLING (SIZE 10 SECONDS) GROUP BY K EMIT CHANGES;",
        )
        .await;

    let address = Arc::new(Mutex::new(server.kafka));
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let producing = {
        let (lasting, stop, random) = (Lasting::new(&address, false), stop.clone(), random.fork());
        let count = count.clone();
        std::thread::spawn(move || produce(lasting, &stop, random, &count))
    };
    let ledger = Ledger::begin(&address, &mut random);
    // Of an end of the server now and then there is as much to be seen on a slow machine.
    let enough = async |kills: usize| {
        let until = Instant::now() + Duration::from_secs(120);
        while count.load(Ordering::Relaxed) <= 1_000 * (1 + kills / 3) && !producing.is_finished() {
            assert!(Instant::now() < until, "only {} records", count.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut seen = Seen::default();
    for kill in 0..kills {
        // Also soon after a start, while the producer and the queries catch up.
        let soon = random.below(3) == 0;
        let alive = if soon { random.below(60) } else { 100 + random.below(700) };
        tokio::time::sleep(Duration::from_millis(alive)).await;
        if !soon {
            enough(kill).await;
        }
        if producing.is_finished() {
            break;
        }
        let log = server.kill();
        let alarming: Vec<&str> = log.lines().filter(|l| l.contains("ERROR") || l.contains("panicked")).collect();
        assert!(alarming.is_empty(), "kill {kill}: {alarming:#?}");
        server = Process::start(directory.path());
        *address.lock().unwrap() = server.kafka;
        if kill % 4 == 0 {
            seen.read(server.kafka, kill % PARTITIONS);
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    enough(kills).await;
    stop.store(true, Ordering::Relaxed);
    let events = producing.join().unwrap();
    println!("{} records acknowledged over {kills} kills", events.len());
    assert!(events.len() > 1_000 * (1 + kills / 3), "only {} records", events.len());

    ledger.check(server.kafka, kills);
    for partition in 0..PARTITIONS {
        seen.read(server.kafka, partition);
    }
    check_log(&seen, &events);
    check_filter(&server, &events).await;
    check_windows(&server, &events).await;
    server.stop();
}

/// What the input topic was seen to have, by partition and offset.
#[derive(Default)]
struct Seen(BTreeMap<(usize, i64), Bytes>);

impl Seen {
    /// Reads a partition, which must have what it had before.
    fn read(&mut self, kafka: SocketAddr, partition: usize) {
        let records = Client::connect(kafka).unwrap().read_all("events", partition).unwrap();
        let there: BTreeMap<(usize, i64), Bytes> =
            records.into_iter().map(|record| ((partition, record.offset), record.key.unwrap())).collect();
        for (place, key) in self.0.range((partition, 0)..=(partition, i64::MAX)) {
            assert_eq!(there.get(place), Some(key), "read at {place:?} before");
        }
        self.0.extend(there);
    }
}

/// The input topic itself: each acknowledged record once, where the acknowledgement said.
fn check_log(seen: &Seen, events: &[Event]) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for key in seen.0.values() {
        *times.entry(String::from_utf8(key.to_vec()).unwrap()).or_default() += 1;
    }
    let wrong: Vec<_> = times.iter().filter(|(_, n)| **n != 1).take(5).collect();
    assert!(wrong.is_empty(), "not once in the log: {wrong:?}");
    let lost: Vec<u64> = events.iter().filter(|e| !times.contains_key(&format!("id-{}", e.id))).map(|e| e.id).collect();
    assert!(lost.is_empty(), "{} acknowledged and lost, such as {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert_eq!(times.len(), events.len());
    let mut told = 0;
    for Event { id, place: (partition, offset), .. } in events {
        let Some(offset) = offset else { continue };
        let there = seen.0.get(&(*partition, *offset));
        assert_eq!(there, Some(&Bytes::from(format!("id-{id}"))), "acknowledged at {partition}, {offset}");
        told += 1;
    }
    assert!(told * 2 > events.len(), "only {told} of {} offsets were told", events.len());
}

async fn check_filter(server: &Process, events: &[Event]) {
    let expected: BTreeMap<String, i64> =
        events.iter().filter(|e| e.value % 2 == 0).map(|e| (format!("id-{}", e.id), e.value)).collect();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut kafka = Client::connect_committed(server.kafka).unwrap();
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            records.extend(kafka.read_all("EVEN", partition).unwrap());
        }
        if records.len() < expected.len() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let mut found = BTreeMap::new();
        for record in &records {
            let id = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            let value: Json = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            assert_eq!(found.insert(id.clone(), value["V"].as_i64().unwrap()), None, "\"{id}\" came twice");
        }
        let lost: Vec<_> = expected.keys().filter(|id| !found.contains_key(*id)).take(5).collect();
        assert!(found == expected, "the filter gave {} of {} records; lost {lost:?}", found.len(), expected.len());
        return;
    }
}

async fn check_windows(server: &Process, events: &[Event]) {
    let mut expected: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
    for event in events {
        let start = event.timestamp.div_euclid(WINDOW_MS) * WINDOW_MS;
        let window = expected.entry((format!("k{}", event.key), start)).or_default();
        *window = (window.0 + 1, window.1 + event.value);
    }
    let rows: Vec<Json> = expected.iter().map(|((k, start), (n, s))| json!([k, start, n, s])).collect();
    server.eventually("SELECT K, WINDOWSTART, N, S FROM COUNTS;", &rows).await;

    // The changes in the topic end with the same: its last value of each window.
    let mut kafka = Client::connect_committed(server.kafka).unwrap();
    let mut last: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in kafka.read_all("COUNTS", partition).unwrap() {
            let key = record.key.unwrap();
            let (key, start) = key.split_at(key.len() - 8);
            let start = i64::from_be_bytes(start.try_into().unwrap());
            let value: Json = serde_json::from_slice(&record.value.unwrap()).unwrap();
            let counted = (value["N"].as_i64().unwrap(), value["S"].as_i64().unwrap());
            let before = last.insert((String::from_utf8(key.to_vec()).unwrap(), start), counted);
            assert!(before.is_none_or(|b| b.0 < counted.0), "a window's count went from {before:?} to {counted:?}");
        }
    }
    assert_eq!(last, expected);
}

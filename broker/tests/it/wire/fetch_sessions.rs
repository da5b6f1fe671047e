//! Fetch sessions and topics named by their ids.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use millpond_types::TopicPartition;
use uuid::Uuid;

use super::answers::name;
use super::client::{Client, Server};
use crate::fixture::{Fixture, START_MS, batch, block_on, create, send, spec};

const NOT_FOUND: i16 = 70;
const BAD_EPOCH: i16 = 71;
const BAD_TOPIC_IDS: i16 = 106;
const UNKNOWN_TOPIC: i16 = 3;
const ANOTHER_TOPIC: i16 = 103;
const UNKNOWN_ID: i16 = 100;
const FENCED_EPOCH: i16 = 74;

fn partition(index: i32, from: i64) -> FetchPartition {
    FetchPartition::default().with_partition(index).with_fetch_offset(from).with_partition_max_bytes(1 << 20)
}

fn ask(session: (i32, i32), topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
}

fn topic(topic: &str, partitions: &[(i32, i64)]) -> FetchTopic {
    let partitions = partitions.iter().map(|(index, from)| partition(*index, *from)).collect();
    FetchTopic::default().with_topic(name(topic)).with_partitions(partitions)
}

fn by_id(id: Uuid, partitions: &[(i32, i64)]) -> FetchTopic {
    topic("", partitions).with_topic_id(id)
}

/// Error, session, and of each partition its error, its end and whether it has records.
type Got = (i16, i32, Vec<(i32, i16, i64, bool)>);

fn got(response: FetchResponse) -> Got {
    let partitions = response.responses.iter().flat_map(|t| &t.partitions).map(|p| {
        (p.partition_index, p.error_code, p.high_watermark, p.records.as_ref().is_some_and(|r| !r.is_empty()))
    });
    (response.error_code, response.session_id, partitions.collect())
}

fn call(client: &mut Client, request: &FetchRequest) -> Got {
    got(client.call(11, request))
}

fn topic_of(server: &Server, name: &str, partitions: i32) -> Vec<TopicPartition> {
    let topic = block_on(server.storage().create_topic(spec(name, partitions, &[]))).unwrap();
    (0..partitions).map(|partition| TopicPartition { topic: topic.id, partition }).collect()
}

#[test]
fn a_session_says_only_what_changed() {
    let server = Server::new();
    let places = topic_of(&server, "t", 3);
    send(server.storage(), places[1], &["a"]);
    let mut client = server.client();
    let (code, id, all) = call(&mut client, &ask((0, 0), vec![topic("t", &[(0, 0), (1, 0), (2, 0)])]));
    assert_eq!((code, id > 0, all), (0, true, vec![(0, 0, 0, false), (1, 0, 1, true), (2, 0, 0, false)]));
    // What was read once is read again until the client moves on.
    assert_eq!(call(&mut client, &ask((id, 1), vec![])), (0, id, vec![(1, 0, 1, true)]));
    assert_eq!(call(&mut client, &ask((id, 2), vec![topic("t", &[(1, 1)])])), (0, id, vec![]));
    send(server.storage(), places[2], &["b"]);
    assert_eq!(call(&mut client, &ask((id, 3), vec![])), (0, id, vec![(2, 0, 1, true)]));
    // From another connection too.
    let mut other = server.client();
    assert_eq!(call(&mut other, &ask((id, 4), vec![topic("t", &[(2, 1)])])), (0, id, vec![]));
    // A log that starts later is news without records.
    block_on(server.storage().delete_records(places[2], 1)).unwrap();
    assert_eq!(call(&mut other, &ask((id, 5), vec![])), (0, id, vec![(2, 0, 1, false)]));
    assert_eq!(call(&mut other, &ask((id, 6), vec![])), (0, id, vec![]));
    // Errors are told again and again.
    let bad = vec![topic("t", &[(0, 9)]), topic("gone", &[(0, 0)])];
    let errors = vec![(0, 1, -1, false), (0, UNKNOWN_TOPIC, -1, false)];
    assert_eq!(call(&mut other, &ask((id, 7), bad)), (0, id, errors.clone()));
    assert_eq!(call(&mut other, &ask((id, 8), vec![])), (0, id, errors));
    // Once there is such a topic it is found.
    let born = create(server.storage(), "gone", &[]);
    assert_eq!(call(&mut other, &ask((id, 9), vec![topic("t", &[(0, 0)])])), (0, id, vec![(0, 0, 0, false); 2]));
    let mut forget = ask((id, 10), vec![]);
    forget.forgotten_topics_data = vec![ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![0, 1, 2])];
    send(server.storage(), places[0], &["not asked for"]);
    send(server.storage(), born, &["c"]);
    assert_eq!(call(&mut other, &forget), (0, id, vec![(0, 0, 1, true)]));
    // Nothing is left in it: it is over.
    let mut forget = ask((id, 11), vec![]);
    forget.forgotten_topics_data = vec![ForgottenTopic::default().with_topic(name("gone")).with_partitions(vec![0])];
    assert_eq!(call(&mut other, &forget), (0, 0, vec![]));
    assert_eq!(call(&mut other, &ask((id, 12), vec![])), (NOT_FOUND, 0, vec![]));
}

#[test]
fn sessions_are_told_apart_by_id_and_epoch() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let t = || vec![topic("t", &[(0, 0)])];
    assert_eq!(call(&mut client, &ask((0, -1), t())).1, 0, "none is asked for");
    assert_eq!(call(&mut client, &ask((0, 3), t())), (NOT_FOUND, 0, vec![]));
    assert_eq!(call(&mut client, &ask((5, 3), t())), (NOT_FOUND, 0, vec![]));
    let (_, first, _) = call(&mut client, &ask((0, 0), t()));
    assert_eq!(call(&mut client, &ask((first, 2), vec![])), (BAD_EPOCH, 0, vec![]));
    assert_eq!(call(&mut client, &ask((first, 1), vec![])), (0, first, vec![]));
    assert_eq!(call(&mut client, &ask((first, 1), vec![])), (BAD_EPOCH, 0, vec![]), "asked twice");
    // A full fetch closes the session that it names.
    let (_, second, _) = call(&mut client, &ask((first, 0), t()));
    assert!(second > 0 && second != first);
    assert_eq!(call(&mut client, &ask((first, 2), vec![])).0, NOT_FOUND);
    let mixed = client.call(13, &ask((second, 1), vec![]));
    assert_eq!(mixed.error_code, BAD_TOPIC_IDS);
    // So does one that wants none.
    assert_eq!(call(&mut client, &ask((second, -1), t())).1, 0);
    assert_eq!(call(&mut client, &ask((second, 1), vec![])).0, NOT_FOUND);
    // Two requests of one epoch: the first is still waiting when the second is refused.
    let (id, correlation) = (0..10)
        .find_map(|_| {
            let (_, id, _) = call(&mut client, &ask((0, 0), t()));
            let waits = ask((id, 1), vec![]).with_min_bytes(1).with_max_wait_ms(60_000);
            let correlation = client.send(11, &waits);
            std::thread::sleep(Duration::from_millis(100));
            if call(&mut server.client(), &ask((id, 1), vec![])).0 == BAD_EPOCH {
                return Some((id, correlation));
            }
            // It came before the first, on a busy machine.
            assert_eq!(got(client.response::<FetchRequest>(11, correlation)).0, BAD_EPOCH);
            None
        })
        .expect("one of two is refused, and not each time the first");
    send(server.storage(), place, &["a"]);
    assert_eq!(got(client.response::<FetchRequest>(11, correlation)), (0, id, vec![(0, 0, 1, true)]));
}

#[test]
fn sessions_wait_and_committed_reads_see_the_marker() {
    let server = Server::new();
    let places = topic_of(&server, "t", 50);
    let mut client = server.client();
    let all: Vec<(i32, i64)> = (0..50).map(|p| (p, 0)).collect();
    let (_, id, _) = call(&mut client, &ask((0, 0), vec![topic("t", &all)]));
    let mut epoch = 0;
    for round in 0..20 {
        epoch += 1;
        let place = places[round * 7 % 50];
        let correlation = client.send(11, &ask((id, epoch), vec![]).with_min_bytes(1).with_max_wait_ms(60_000));
        std::thread::sleep(Duration::from_millis(5));
        let end = send(server.storage(), place, &["a"]).last_offset + 1;
        let (_, _, parts) = got(client.response::<FetchRequest>(11, correlation));
        assert_eq!(parts, [(place.partition, 0, end, true)]);
        epoch += 1;
        let moved = vec![topic("t", &[(place.partition, end)])];
        assert_eq!(call(&mut client, &ask((id, epoch), moved)).2, []);
    }
    let started = Instant::now();
    let quiet = ask((id, epoch + 1), vec![]).with_min_bytes(1).with_max_wait_ms(300);
    assert_eq!(call(&mut client, &quiet), (0, id, vec![]));
    assert!(started.elapsed() >= Duration::from_millis(290));
}

#[test]
fn who_was_served_goes_to_the_back() {
    let server = Server::new();
    let places = topic_of(&server, "t", 4);
    for place in &places {
        send(server.storage(), *place, &["a", "b"]);
    }
    let mut client = server.client();
    let all: Vec<(i32, i64)> = (0..4).map(|p| (p, 0)).collect();
    let one = |session, topics| ask(session, topics).with_max_bytes(1);
    let (_, id, first) = call(&mut client, &one((0, 0), vec![topic("t", &all)]));
    assert_eq!(first.iter().filter(|p| p.3).count(), 1);
    // Nobody moves on, and yet each has its turn.
    let mut served = BTreeMap::new();
    for epoch in 1..=8 {
        let (_, _, parts) = call(&mut client, &one((id, epoch), vec![]));
        for part in parts.iter().filter(|p| p.3) {
            *served.entry(part.0).or_insert(0) += 1;
        }
    }
    assert_eq!(served, BTreeMap::from([(0, 2), (1, 2), (2, 2), (3, 2)]));
}

#[test]
fn sessions_have_limits() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.fetch_sessions_max = 2;
        settings.fetch_session_partitions_max = 3;
        settings.fetch_session_eviction = Duration::from_secs(2);
    });
    topic_of(&server, "t", 5);
    let mut client = server.client();
    let open = |client: &mut Client, n: i32| {
        let all: Vec<(i32, i64)> = (0..n).map(|p| (p, 0)).collect();
        call(client, &ask((0, 0), vec![topic("t", &all)])).1
    };
    assert_eq!(open(&mut client, 4), 0, "too many partitions");
    let (a, b) = (open(&mut client, 1), open(&mut client, 2));
    assert!(a > 0 && b > 0);
    assert_eq!(open(&mut client, 3), 0, "both are new");
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(call(&mut client, &ask((a, 1), vec![])).0, 0);
    assert!(open(&mut client, 1) > 0, "nobody used the other one for long");
    assert_eq!(call(&mut client, &ask((b, 1), vec![])).0, NOT_FOUND);
    // One that grows past the limit is over; its client begins anew.
    assert_eq!(call(&mut client, &ask((a, 2), vec![topic("t", &[(1, 0), (2, 0)])])).0, 0);
    assert_eq!(call(&mut client, &ask((a, 3), vec![topic("t", &[(3, 0)])])).0, NOT_FOUND);
    assert_eq!(call(&mut client, &ask((a, 4), vec![])).0, NOT_FOUND);
}

fn produce_by_id(client: &mut Client, id: Uuid) -> (Uuid, i16) {
    let records = batch(&[("v", START_MS)], millpond_broker::batch::Codec::None);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default().with_topic_id(id).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic]);
    let response = client.call(13, &request).responses.remove(0);
    (response.topic_id, response.partition_responses[0].error_code)
}

#[test]
fn a_topic_made_anew_is_another_one() {
    let server = Server::new();
    let mut client = server.client();
    let old = Uuid::from_bytes(create(server.storage(), "t", &[]).topic.0);
    assert_eq!(produce_by_id(&mut client, old), (old, 0));
    let mut sessions = Vec::new();
    for version in 13..=18 {
        let (code, id, parts) = got(client.call(version, &ask((0, 0), vec![by_id(old, &[(0, 0), (7, 0)])])));
        assert_eq!((code, parts), (0, vec![(0, 0, 1, true), (7, UNKNOWN_TOPIC, -1, false)]), "v{version}");
        sessions.push(id);
    }
    let topic = server.storage().find_topic("t").unwrap();
    let mut parked = server.client();
    let waits = ask((sessions[0], 1), vec![by_id(old, &[(0, 1)])]).with_min_bytes(1).with_max_wait_ms(60_000);
    let mut waits_without_7 = waits.clone();
    waits_without_7.forgotten_topics_data = vec![ForgottenTopic::default().with_topic_id(old).with_partitions(vec![7])];
    let correlation = parked.send(13, &waits_without_7);
    std::thread::sleep(Duration::from_millis(100));
    block_on(server.storage().delete_topic(topic.id)).unwrap();
    let woken = got(parked.response::<FetchRequest>(13, correlation));
    assert_eq!(woken, (0, sessions[0], vec![(0, UNKNOWN_TOPIC, -1, false)]), "who has found it knows its name");
    let new = Uuid::from_bytes(create(server.storage(), "t", &[]).topic.0);
    assert_ne!(old, new);
    assert_eq!(produce_by_id(&mut client, old), (old, UNKNOWN_ID));
    assert_eq!(produce_by_id(&mut client, Uuid::nil()), (Uuid::nil(), UNKNOWN_ID));
    assert_eq!(got(client.call(17, &ask((0, -1), vec![by_id(old, &[(0, 0)])]))).2, [(0, UNKNOWN_ID, -1, false)]);
    assert_eq!(got(client.call(17, &ask((0, -1), vec![by_id(new, &[(0, 0)])]))).2, [(0, 0, 0, false)]);
    // So it goes on, whether the client names it again or not, but that there is another one of its name; who never found
    // it is told that.
    let (gone, another) = (|index| (index, UNKNOWN_TOPIC, -1, false), (0, ANOTHER_TOPIC, -1, false));
    assert_eq!(got(client.call(17, &ask((sessions[4], 1), vec![]))).2, [gone(7), another]);
    let again = vec![by_id(old, &[(0, 1)])];
    assert_eq!(got(client.call(17, &ask((sessions[4], 2), again.clone()))).2, [gone(7), another]);
    let (_, id, parts) = got(client.call(17, &ask((0, 0), again)));
    assert_eq!((parts, id > 0), (vec![(0, UNKNOWN_ID, -1, false)], true));
    assert_eq!(got(client.call(17, &ask((id, 1), vec![]))).2, [(0, UNKNOWN_ID, -1, false)]);
    assert_eq!(produce_by_id(&mut client, new), (new, 0));
    // Whoever believes in an older leader is told who leads and where.
    let mut fenced = by_id(new, &[(0, 0)]);
    fenced.partitions[0].current_leader_epoch = 0;
    let response = client.call(16, &ask((0, -1), vec![fenced]));
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.current_leader.leader_id.0), (FENCED_EPOCH, 1));
    assert_eq!(response.node_endpoints[0].port, i32::from(server.address.port()));
}

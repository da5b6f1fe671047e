//! Bytes that no client sends: they end their own connection, and nothing else.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use millpond_broker::inspect;
use millpond_broker::server::TopicGuard;

use super::answers::{fetch_request, name, produce_request};
use super::client::{Client, Server, frame};
use crate::fixture::{Fixture, START_MS, batch, create};

fn alive(server: &Server) {
    let response = server.client().call(12, &MetadataRequest::default().with_topics(None));
    assert_eq!(response.brokers.len(), 1);
}

fn closes(server: &Server, what: &str, bytes: &[u8]) {
    let mut client = server.client();
    // The server may close before it has read all.
    let _early = client.stream.write_all(bytes);
    assert!(client.is_closed(), "{what}");
    alive(server);
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes(), body].concat()
}

#[test]
fn counts_that_ask_for_all_memory() {
    let server = Server::new();
    let mut bystander = server.client();
    // Metadata v1: key 3, version 1, correlation 1, no client id, and 2147483647 topics.
    let bomb = framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    closes(&server, "metadata v1", &bomb);
    // The same in a compact count of version 12.
    let bomb = framed(&[0, 3, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    closes(&server, "metadata v12", &bomb);
    // Within a count that is right: a produce of one topic with 2^31 - 1 partitions.
    let mut body = vec![0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff];
    body.extend([0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0x7f, 0xff, 0xff, 0xff]);
    closes(&server, "produce v3", &framed(&body));
    // Tagged fields of the header, and of the body.
    closes(&server, "header tags", &framed(&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]));
    closes(
        &server,
        "body tags",
        &framed(&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    );
    bystander.call(0, &ApiVersionsRequest::default());
    assert_eq!(server.metrics.snapshot().malformed_total, 5);
}

#[test]
fn more_elements_than_allowed() {
    let server = Server::with(Fixture::new(), |settings, _| settings.request_elements_max = 10);
    let ask = |count| {
        let topic = |i| MetadataRequestTopic::default().with_name(Some(name(&format!("t{i}"))));
        MetadataRequest::default()
            .with_topics(Some((0..count).map(topic).collect()))
            .with_allow_auto_topic_creation(false)
    };
    assert_eq!(server.client().call(4, &ask(10)).topics.len(), 10);
    closes(&server, "11 topics", &frame(1, 4, &ask(11)));
}

#[test]
fn lengths_keys_and_versions() {
    let server = Server::new();
    closes(&server, "negative length", &[0xff, 0xff, 0xff, 0xff, 0, 0]);
    closes(&server, "2 GiB", &[0x7f, 0xff, 0xff, 0xff, 0, 0]);
    closes(&server, "empty frame", &[0, 0, 0, 0]);
    closes(&server, "half a header", &framed(&[0, 3, 0]));
    closes(&server, "unknown key", &framed(&[0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    closes(&server, "negative key", &framed(&[0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    closes(&server, "produce v2", &framed(&[0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff]));
    closes(&server, "metadata v99", &framed(&[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff]));
    closes(&server, "client id of -2", &framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xfe, 0, 0, 0, 0]));
    closes(&server, "client id not UTF-8", &framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0]));
    // At once: long before a request has to be there.
    let start = Instant::now();
    closes(&server, "TLS", &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]);
    closes(&server, "HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn who_is_slow_or_idle_or_too_many_is_let_go() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.idle_timeout = Duration::from_millis(300);
        settings.receive_timeout = Duration::from_millis(300);
    });
    let mut idle = server.client();
    assert!(idle.is_closed());
    let mut slow = server.client();
    slow.stream.write_all(&[0, 0, 1, 0, 0]).unwrap();
    let start = Instant::now();
    // A byte now and then does not help.
    while start.elapsed() < Duration::from_secs(20) && slow.stream.write_all(&[0]).is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed() < Duration::from_secs(20), "held for as long as it pleased");
    let server = Server::with(Fixture::new(), |settings, _| settings.connections_max = 2);
    let (mut first, mut second) = (server.client(), server.client());
    first.call(0, &ApiVersionsRequest::default());
    second.call(0, &ApiVersionsRequest::default());
    assert!(server.client().is_closed(), "a third connection");
    assert_eq!(server.metrics.snapshot().connections_refused_total, 1);
}

struct Trap;

impl TopicGuard for Trap {
    fn refuse_write(&self, topic: &str) -> Option<String> {
        assert_ne!(topic, "trap", "a defect that this test wants");
        None
    }
}

#[test]
fn a_defect_ends_its_own_connection_only() {
    let server = Server::with(Fixture::new(), |_, hooks| hooks.guard = Arc::new(Trap));
    create(server.storage(), "trap", &[]);
    let mut bystander = server.client();
    bystander.call(0, &ApiVersionsRequest::default());
    closes(&server, "panic", &frame(1, 9, &produce_request("trap", -1, Bytes::new())));
    bystander.call(0, &ApiVersionsRequest::default());
    // The end is told to the client before it is counted.
    let started = Instant::now();
    while server.metrics.snapshot().panics_total != 1 {
        assert!(started.elapsed() < Duration::from_secs(30), "the defect is not counted");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn lengths_that_are_never_sent_take_nothing_from_others() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.request_bytes_max = 8 << 20;
        settings.requests_bytes_max = 8 << 20;
    });
    create(server.storage(), "t", &[]);
    let liars: Vec<Client> = (0..150).map(|_| server.client()).collect();
    for liar in &liars {
        (&liar.stream).write_all(&[&(8i32 << 20).to_be_bytes()[..], &[0; 100]].concat()).unwrap();
    }
    let value = "x".repeat(600_000);
    let records = batch(&[(&value, START_MS)], millpond_broker::batch::Codec::None);
    let mut client = server.client();
    for _ in 0..3 {
        let response = client.call(9, &produce_request("t", -1, records.clone()));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
}

#[test]
fn requests_that_never_end_keep_others_from_nothing() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.request_bytes_max = 2 << 20;
        settings.requests_bytes_max = 8 << 20;
        settings.connections_per_address_max = 15;
    });
    create(server.storage(), "t", &[]);
    // Nearly all of 2 MiB, from one address, as often as there may be connections.
    let crowd: Vec<Client> = (0..15).map(|_| server.client()).collect();
    for one in &crowd {
        one.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut bytes = vec![0; 2 << 20];
        bytes[..4].copy_from_slice(&(2i32 << 20).to_be_bytes());
        // More than what is there for this address is not read.
        let _sent = (&one.stream).write_all(&bytes);
    }
    assert!(server.client().is_closed(), "one connection too many");
    let value = "x".repeat(600_000);
    let records = batch(&[(&value, START_MS)], millpond_broker::batch::Codec::None);
    let mut other = server.client_from([127, 0, 0, 2]);
    let begun = Instant::now();
    for _ in 0..3 {
        let response = other.call(9, &produce_request("t", -1, records.clone()));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    drop(crowd);
    server.stop();
}

/// Requests of every API in every version, changed at random places, cut and mixed.
#[test]
fn random_changes() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.fetch_wait_max = Duration::from_millis(1);
        settings.receive_timeout = Duration::from_millis(200);
    });
    create(server.storage(), "t", &[]);
    let records: Bytes = batch(&[("a", START_MS), ("b", START_MS)], millpond_broker::batch::Codec::Zstd);
    let topics = vec![MetadataRequestTopic::default().with_name(Some(name("t")))];
    let group = GroupId("g".into());
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name("range".into());
    let join = JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(6000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    let topic = create_topics_request::CreatableTopic::default().with_name(name("t")).with_num_partitions(1);
    let partition = offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(1);
    let commit = offset_commit_request::OffsetCommitRequestTopic::default().with_name(name("t"));
    let commit = OffsetCommitRequest::default()
        .with_group_id(group.clone())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![commit.with_partitions(vec![partition])]);
    let mut samples: Vec<Vec<u8>> = vec![
        frame(1, 9, &produce_request("t", -1, records.clone())),
        frame(1, 3, &produce_request("t", 1, records)),
        frame(1, 12, &fetch_request("t", 0, 1, 0)),
        frame(1, 4, &fetch_request("t", 0, 1, 0)),
        frame(1, 12, &MetadataRequest::default().with_topics(Some(topics.clone()))),
        frame(1, 1, &MetadataRequest::default().with_topics(Some(topics))),
        frame(1, 5, &join),
        frame(1, 9, &join.clone().with_group_instance_id(Some("i".into()))),
        frame(1, 8, &commit),
        frame(1, 2, &commit),
        frame(1, 7, &CreateTopicsRequest::default().with_topics(vec![topic])),
        frame(1, 2, &DeleteGroupsRequest::default().with_groups_names(vec![group])),
        frame(1, 3, &ApiVersionsRequest::default().with_client_software_name("x".into())),
    ];
    let mut seed = crate::transactions::seeds(1).start;
    let mut any: Vec<Vec<u8>> = inspect::samples(&mut seed).iter().map(|body| framed(body)).collect();
    // As they are first: whatever the values, a request of the right form is answered, or refused with its connection.
    for bytes in &any {
        let mut client = server.client();
        client.stream.write_all(bytes).unwrap();
        let _answer = client.receive();
    }
    alive(&server);
    assert_eq!(server.metrics.snapshot().panics_total, 0);
    // What makes sense comes as often as all that does not.
    samples = samples.into_iter().cycle().take(any.len()).collect();
    samples.append(&mut any);
    let mut random = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound.max(1)
    };
    let mut client: Option<Client> = None;
    for round in 0..4000 {
        let mut bytes = samples[random(samples.len())].clone();
        for _ in 0..=random(4) {
            let at = 4 + random(bytes.len() - 4);
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random(4)],
                _ => bytes.truncate(at.max(6)),
            }
        }
        let length = (bytes.len() - 4) as i32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        // Most connections end here; the next one begins a new one.
        let mut current = client.take().unwrap_or_else(|| server.client());
        current.stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        if current.stream.write_all(&bytes).is_ok() && current.receive_in_time().is_ok() {
            client = Some(current);
        }
        if round % 500 == 0 {
            alive(&server);
        }
    }
    alive(&server);
    let snapshot = server.metrics.snapshot();
    assert_eq!(snapshot.panics_total, 0);
    assert!(snapshot.malformed_total > 500, "{snapshot:?}");
    server.stop();
}

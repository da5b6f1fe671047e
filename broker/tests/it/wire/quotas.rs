//! Quotas: who uses too much is answered at once and then not read for a while.

use std::time::{Duration, Instant};

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::*;
use millpond_broker::batch::Codec;

use super::answers::{fetch_request, name, produce_request};
use super::client::{Client, Server};
use crate::fixture::{Fixture, START_MS, batch, create};

const MEGABYTE: f64 = 1024.0 * 1024.0;

type Part = (&'static str, Option<&'static str>);

fn entity(parts: &[Part]) -> Vec<EntityData> {
    let part = |(kind, name): &Part| {
        EntityData::default().with_entity_type((*kind).into()).with_entity_name(name.map(Into::into))
    };
    parts.iter().map(part).collect()
}

/// Sets or removes a quota; the code.
fn alter(client: &mut Client, parts: &[Part], key: &'static str, value: Option<f64>) -> i16 {
    let op = OpData::default().with_key(key.into()).with_value(value.unwrap_or_default()).with_remove(value.is_none());
    let entry = EntryData::default().with_entity(entity(parts)).with_ops(vec![op]);
    let changed = client.call(1, &AlterClientQuotasRequest::default().with_entries(vec![entry]));
    changed.entries[0].error_code
}

fn records(bytes: usize) -> bytes::Bytes {
    let value = "v".repeat(bytes);
    batch(&[(value.as_str(), START_MS)], Codec::None)
}

/// Bytes a second of a call that is repeated for some time, the first second, which may be used at once, left out.
fn rate(seconds: f64, mut call: impl FnMut() -> usize) -> f64 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1200) {
        call();
    }
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed().as_secs_f64() < seconds {
        bytes += call();
    }
    bytes as f64 / begin.elapsed().as_secs_f64()
}

fn is_about(rate: f64, wanted: f64) -> bool {
    (rate / wanted - 1.0).abs() < 0.15
}

#[test]
fn a_producer_is_slowed_to_its_quota_and_another_is_not() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut admin = server.client();
    assert_eq!(alter(&mut admin, &[("client-id", Some("slow"))], "producer_byte_rate", Some(MEGABYTE)), 0);
    let request = produce_request("t", -1, records(64 * 1024));
    let (mut slow, mut other) = (server.client().named("slow"), server.client().named("other"));
    let begin = Instant::now();
    for _ in 0..320 {
        assert_eq!(other.call(9, &request).throttle_time_ms, 0);
    }
    assert!(20.0 * MEGABYTE / begin.elapsed().as_secs_f64() > 2.0 * MEGABYTE, "{:?} for 20 MB", begin.elapsed());
    let mut told = 0;
    let measured = rate(3.0, || {
        told += slow.call(9, &request).throttle_time_ms;
        64 * 1024
    });
    assert!(is_about(measured, MEGABYTE), "{measured} bytes a second");
    assert!(told > 1000, "told to wait for {told} ms");
    // Without the quota it is as fast as any, once it has waited for the last time.
    assert_eq!(alter(&mut admin, &[("client-id", Some("slow"))], "producer_byte_rate", None), 0);
    slow.call(9, &request);
    let begin = Instant::now();
    for _ in 0..64 {
        assert_eq!(slow.call(9, &request).throttle_time_ms, 0);
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?} for 4 MB", begin.elapsed());
    server.stop();
}

#[test]
fn a_consumer_is_slowed_to_its_users_quota_over_all_connections() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut producer = server.client();
    for _ in 0..16 {
        producer.call(9, &produce_request("t", -1, records(64 * 1024)));
    }
    let user = [("user", Some("ANONYMOUS"))];
    assert_eq!(alter(&mut producer, &user, "consumer_byte_rate", Some(MEGABYTE)), 0);
    let (mut a, mut b) = (server.client().named("a"), server.client().named("b"));
    let mut first = true;
    let mut request = fetch_request("t", 0, 1, 0);
    request.max_bytes = 100 * 1024;
    let measured = rate(3.0, || {
        first = !first;
        let client = if first { &mut a } else { &mut b };
        let response = client.call(11, &request);
        let records = response.responses[0].partitions[0].records.as_ref().map_or(0, |r| r.len());
        assert!(records > 0, "an answer without records");
        records
    });
    assert!(is_about(measured, MEGABYTE), "{measured} bytes a second");
    server.stop();
}

#[test]
fn responses_tell_how_long_to_wait() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut admin = server.client();
    let mut tried = 0;
    macro_rules! told {
        ($($version:literal $request:expr),* $(,)?) => {
            $({
                // So little that any request uses it up; the connection is not needed again.
                assert_eq!(alter(&mut admin, &[("client-id", Some("slow"))], "request_percentage", Some(1e-7)), 0);
                let response = server.client().named("slow").call($version, &$request);
                assert!(response.throttle_time_ms > 0, "{} v{}", stringify!($request), $version);
                tried += 1;
                assert_eq!(alter(&mut admin, &[("client-id", Some("slow"))], "request_percentage", None), 0);
            })*
        };
    }
    told! {
        3 produce_request("t", 1, records(1)),
        9 produce_request("t", 1, records(1)),
        12 produce_request("t", -1, records(1)),
        4 fetch_request("t", 0, 0, 0),
        12 fetch_request("t", 0, 0, 0),
        3 MetadataRequest::default(),
        12 MetadataRequest::default(),
        7 ListOffsetsRequest::default(),
        4 FindCoordinatorRequest::default(),
        4 HeartbeatRequest::default(),
        0 OffsetDeleteRequest::default(),
        2 DescribeAclsRequest::default(),
        1 DescribeClientQuotasRequest::default(),
        0 DescribeClusterRequest::default(),
        4 DescribeConfigsRequest::default(),
        0 ListTransactionsRequest::default(),
    }
    assert_eq!(tried, 16);
    let snapshot = server.metrics.snapshot();
    assert_eq!((snapshot.malformed_total, snapshot.panics_total), (0, 0));
}

#[test]
fn changes_of_topics_have_a_quota() {
    let server = Server::new();
    let mut client = server.client();
    assert_eq!(alter(&mut client, &[("user", None)], "controller_mutation_rate", Some(1.0)), 0);
    let new = |topic: &str, partitions| {
        let topic =
            CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions).with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic])
    };
    // Ten seconds' worth is at hand; what goes beyond it is done, and the next one has to wait.
    let first = client.call(7, &new("a", 12));
    assert_eq!((first.topics[0].error_code, first.throttle_time_ms / 1000), (0, 1));
    let begin = Instant::now();
    // The connection is not read meanwhile, another one is.
    let refused = server.client().call(7, &new("b", 1));
    assert_eq!(refused.topics[0].error_code, 89);
    assert!(refused.throttle_time_ms > 0 && begin.elapsed() < Duration::from_millis(900));
    let old = server.client().call(4, &new("b", 1));
    assert_eq!((old.topics[0].error_code, old.throttle_time_ms / 1000), (0, 2));
    assert_eq!(client.call(7, &new("c", 1)).topics[0].error_code, 89);
    assert!(begin.elapsed() > Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[test]
fn connections_of_an_address_have_a_quota() {
    let server = Server::new();
    let mut client = server.client();
    assert_eq!(alter(&mut client, &[("ip", Some("127.0.0.1"))], "connection_creation_rate", Some(1.0)), 0);
    let mut refused = 0;
    for _ in 0..6 {
        let mut other = server.client();
        let sent =
            std::io::Write::write_all(&mut other.stream, &super::client::frame(1, 0, &ApiVersionsRequest::default()));
        refused += i32::from(sent.is_err() || other.receive().is_none());
    }
    assert!((3..=5).contains(&refused), "{refused} of 6 were refused");
    // Who is connected stays so.
    assert_eq!(client.call(0, &ApiVersionsRequest::default()).error_code, 0);
    assert_eq!(alter(&mut client, &[("ip", Some("127.0.0.1"))], "connection_creation_rate", None), 0);
    assert_eq!(server.client().call(0, &ApiVersionsRequest::default()).error_code, 0);
}

#[test]
fn quotas_are_checked_found_and_kept() {
    let server = Server::new();
    let mut client = server.client();
    let pair = [("user", Some("a")), ("client-id", None)];
    assert_eq!(alter(&mut client, &pair, "producer_byte_rate", Some(5.0)), 0);
    assert_eq!(alter(&mut client, &[("user", Some("a"))], "consumer_byte_rate", Some(7.0)), 0);
    for (parts, key, value) in [
        (&[("user", Some("a"))][..], "retention.ms", 5.0),
        (&[("user", Some("a"))], "producer_byte_rate", -1.0),
        (&[("user", Some(""))], "producer_byte_rate", 5.0),
        (&[("broker", Some("1"))], "producer_byte_rate", 5.0),
        (&[("ip", Some("nowhere"))], "connection_creation_rate", 5.0),
        (&[], "producer_byte_rate", 5.0),
    ] {
        assert_eq!(alter(&mut client, parts, key, Some(value)), 42, "{parts:?} {key}");
    }
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    let find = |client: &mut Client, component: ComponentData, strict| {
        let asked = DescribeClientQuotasRequest::default().with_components(vec![component]).with_strict(strict);
        let found = client.call(0, &asked);
        let value = |e: &describe_client_quotas_response::EntryData| (e.entity.len(), e.values[0].value);
        (found.error_code, found.entries.unwrap_or_default().iter().map(value).collect::<Vec<_>>())
    };
    let of = |kind: &'static str, match_type, name: Option<&'static str>| {
        let component = ComponentData::default().with_entity_type(kind.into()).with_match_type(match_type);
        component.with_match(name.map(Into::into))
    };
    assert_eq!(find(&mut client, of("user", 0, Some("a")), false), (0, vec![(1, 7.0), (2, 5.0)]));
    assert_eq!(find(&mut client, of("user", 0, Some("a")), true), (0, vec![(1, 7.0)]));
    assert_eq!(find(&mut client, of("client-id", 1, None), false), (0, vec![(2, 5.0)]));
    assert_eq!(find(&mut client, of("client-id", 2, None), true), (0, vec![]));
    assert_eq!(find(&mut client, of("broker", 2, None), true), (35, vec![]));
    assert_eq!(find(&mut client, of("user", 2, Some("a")), true), (42, vec![]));
}

#[test]
fn connections_of_one_address_are_few() {
    let server = Server::with(Fixture::new(), |settings, _| settings.connections_per_address_max = 2);
    let versions = ApiVersionsRequest::default();
    let (mut first, mut second) = (server.client(), server.client());
    assert_eq!((first.call(0, &versions).error_code, second.call(0, &versions).error_code), (0, 0));
    assert!(server.client().is_closed());
    assert_eq!(second.call(0, &versions).error_code, 0);
    drop(first);
    let until = Instant::now() + Duration::from_secs(10);
    let answered = || {
        let mut third = server.client();
        let _sent = std::io::Write::write_all(&mut third.stream, &super::client::frame(1, 0, &versions));
        third.receive().is_some()
    };
    while !answered() {
        assert!(Instant::now() < until, "the place of a connection that ended is not free");
    }
    assert!(server.metrics.snapshot().connections_refused_total >= 1);
}

#[test]
fn a_connection_does_not_take_the_memory_of_others() {
    const KILOBYTE: usize = 1024;
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.request_bytes_max = 4096 * KILOBYTE;
        settings.requests_bytes_max = 4096 * KILOBYTE;
        settings.connection_bytes_max = 1024 * KILOBYTE;
        settings.groups.initial_rebalance_delay_ms = 3000;
    });
    let large = |bytes: usize| {
        let part = sync_group_request::SyncGroupRequestAssignment::default()
            .with_member_id("m".into())
            .with_assignment(vec![0; bytes].into());
        SyncGroupRequest::default()
            .with_group_id(GroupId("nobody".into()))
            .with_generation_id(1)
            .with_member_id("m".into())
            .with_assignments(vec![part])
    };
    // A request that is at work for three seconds, and another one behind it.
    let protocol = join_group_request::JoinGroupRequestProtocol::default()
        .with_name("p".into())
        .with_metadata(vec![0; 600 * KILOBYTE].into());
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    let mut greedy = server.client();
    let greedy = std::thread::spawn(move || {
        let joining = greedy.send(3, &join);
        let behind = greedy.send(3, &large(900 * KILOBYTE));
        let joined = greedy.response::<JoinGroupRequest>(3, joining).error_code;
        (joined, greedy.response::<SyncGroupRequest>(3, behind).error_code)
    });
    std::thread::sleep(Duration::from_millis(700));
    let begin = Instant::now();
    assert_eq!(server.client().call(3, &large(2800 * KILOBYTE)).error_code, 25);
    assert!(begin.elapsed() < Duration::from_millis(1500), "waited for {:?}", begin.elapsed());
    assert_eq!(greedy.join().unwrap(), (0, 25));
    server.stop();
}

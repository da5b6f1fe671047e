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

/// Repeats a call that uses some bytes. At no moment it has used more than the quota allows: what drained since the beginning,
/// a second's worth that may be used at once, and answers that were under way. But for those it gets its quota in a few
/// seconds; on a busy machine perhaps not in the first few.
#[track_caller]
fn is_slowed_to(quota: f64, mut call: impl FnMut() -> usize) {
    const UNDER_WAY: f64 = 3.0 * 102_400.0;
    let (begin, mut total) = (Instant::now(), 0.0);
    for attempt in 0.. {
        let (since, before) = (Instant::now(), total);
        while since.elapsed() < Duration::from_secs(3) {
            total += call() as f64;
            let seconds = begin.elapsed().as_secs_f64();
            assert!(total <= quota * (seconds + 1.0) + UNDER_WAY, "{total} bytes in {seconds} s");
        }
        let rate = (total - before) / since.elapsed().as_secs_f64();
        if attempt > 0 && rate > 0.85 * quota {
            return;
        }
        assert!(attempt < 10, "{rate} bytes a second");
    }
}

/// 20 MB in requests of 64 KiB; nobody tells it to wait, and it takes less time than one megabyte a second would.
#[track_caller]
fn is_not_slowed(client: &mut Client, request: &ProduceRequest) {
    let begin = Instant::now();
    for _ in 0..320 {
        assert_eq!(client.call(9, request).throttle_time_ms, 0);
    }
    assert!(begin.elapsed() < Duration::from_secs(18), "{:?} for 20 MB", begin.elapsed());
}

#[test]
fn a_producer_is_slowed_to_its_quota_and_another_is_not() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut admin = server.client();
    assert_eq!(alter(&mut admin, &[("client-id", Some("slow"))], "producer_byte_rate", Some(MEGABYTE)), 0);
    let request = produce_request("t", -1, records(64 * 1024));
    let (mut slow, mut other) = (server.client().named("slow"), server.client().named("other"));
    is_not_slowed(&mut other, &request);
    let mut told = 0;
    is_slowed_to(MEGABYTE, || {
        told += slow.call(9, &request).throttle_time_ms;
        64 * 1024
    });
    assert!(told > 1000, "told to wait for {told} ms");
    // Without the quota it is as fast as any, once it has waited for the last time.
    assert_eq!(alter(&mut admin, &[("client-id", Some("slow"))], "producer_byte_rate", None), 0);
    slow.call(9, &request);
    is_not_slowed(&mut slow, &request);
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
    is_slowed_to(MEGABYTE, || {
        first = !first;
        let client = if first { &mut a } else { &mut b };
        let response = client.call(11, &request);
        let records = response.responses[0].partitions[0].records.as_ref().map_or(0, |r| r.len());
        assert!(records > 0, "an answer without records");
        records
    });
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
    assert_eq!(alter(&mut client, &[("user", None)], "controller_mutation_rate", Some(0.5)), 0);
    let new = |topic: &str, partitions| {
        let topic =
            CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions).with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic])
    };
    // Ten seconds' worth is at hand; what goes beyond it is done, and the next one has to wait.
    let begin = Instant::now();
    let is_told = |wait: i32, drained_ms: i32| {
        let passed = begin.elapsed().as_millis() as i32 + 1;
        assert!((drained_ms - passed..=drained_ms).contains(&wait), "{wait} ms, of {drained_ms} after {passed}");
    };
    let first = client.call(7, &new("a", 8));
    assert_eq!(first.topics[0].error_code, 0);
    is_told(first.throttle_time_ms, 6000);
    // The connection is not read meanwhile, another one is.
    let refused = server.client().call(7, &new("b", 1));
    assert_eq!(refused.topics[0].error_code, 89);
    assert!(refused.throttle_time_ms > 0 && begin.elapsed() < Duration::from_secs(6));
    let old = server.client().call(4, &new("b", 3));
    assert_eq!(old.topics[0].error_code, 0);
    is_told(old.throttle_time_ms, 12_000);
    assert_eq!(client.call(7, &new("c", 1)).topics[0].error_code, 89);
    assert!(begin.elapsed() >= Duration::from_millis(5900), "{:?}", begin.elapsed());
}

#[test]
fn connections_of_an_address_have_a_quota() {
    let server = Server::new();
    let mut client = server.client();
    assert_eq!(alter(&mut client, &[("ip", Some("127.0.0.1"))], "connection_creation_rate", Some(1.0)), 0);
    let (begin, mut refused, mut let_in) = (Instant::now(), 0, 0);
    while refused < 4 {
        let mut other = server.client();
        let sent =
            std::io::Write::write_all(&mut other.stream, &super::client::frame(1, 0, &ApiVersionsRequest::default()));
        match sent.is_err() || other.receive().is_none() {
            true => refused += 1,
            false => let_in += 1,
        }
        // Two at once, and one a second.
        let most = 2.0 + begin.elapsed().as_secs_f64();
        assert!((1.0..=most).contains(&f64::from(let_in)), "{let_in} were let in, not {most}");
        assert!(let_in < 100, "each took a second");
    }
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
    let until = Instant::now() + Duration::from_secs(30);
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
        settings.groups.initial_rebalance_delay_ms = 0;
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
    let join = |bytes: usize| {
        let protocol = join_group_request::JoinGroupRequestProtocol::default()
            .with_name("p".into())
            .with_metadata(vec![0; bytes].into());
        JoinGroupRequest::default()
            .with_group_id(GroupId("g".into()))
            .with_session_timeout_ms(100_000)
            .with_rebalance_timeout_ms(100_000)
            .with_protocol_type("consumer".into())
            .with_protocols(vec![protocol])
    };
    let mut member = server.client();
    let first = member.call(3, &join(1));
    assert_eq!(first.error_code, 0);
    // A request that waits for the member who is there, and another one behind it.
    let (mut greedy, large_join) = (server.client(), join(600 * KILOBYTE));
    let greedy = std::thread::spawn(move || {
        let joining = greedy.send(3, &large_join);
        let behind = greedy.send(3, &large(900 * KILOBYTE));
        let joined = greedy.response::<JoinGroupRequest>(3, joining).error_code;
        (joined, greedy.response::<SyncGroupRequest>(3, behind).error_code)
    });
    server.has_got("join_group", 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.client().call(3, &large(2800 * KILOBYTE)).error_code, 25);
    let leave = LeaveGroupRequest::default().with_group_id(GroupId("g".into())).with_member_id(first.member_id);
    assert_eq!(member.call(0, &leave).error_code, 0);
    assert_eq!(greedy.join().unwrap(), (0, 25));
    server.stop();
}

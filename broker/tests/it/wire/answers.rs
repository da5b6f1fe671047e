//! What is advertised is answered, in every version, in order and in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use millpond_broker::batch::Codec;
use millpond_broker::server::TopicGuard;

use super::client::{Client, Server, frame};
use crate::fixture::{Fixture, START_MS, batch, create, send};

pub fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn produce_request(topic: &str, acks: i16, records: bytes::Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(1000)
        .with_topic_data(vec![TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data])])
}

pub fn fetch_request(topic: &str, from: i64, min_bytes: i32, wait_ms: i32) -> FetchRequest {
    let partition =
        FetchPartition::default().with_partition(0).with_fetch_offset(from).with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(1 << 20)
        .with_topics(vec![FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition])])
}

fn values(count: usize) -> bytes::Bytes {
    let rows: Vec<_> = (0..count).map(|_| ("value", START_MS)).collect();
    batch(&rows, Codec::None)
}

pub fn ranges(server: &Server) -> Vec<(i16, i16, i16)> {
    let keys = server.client().call(0, &ApiVersionsRequest::default()).api_keys;
    keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect()
}

/// The table of docs/kafka.md is what clients are told.
#[test]
fn the_documented_apis_are_those_that_are_told() {
    let document = include_str!("../../../../docs/kafka.md");
    let mut documented = BTreeMap::new();
    let table = document.lines().skip_while(|line| !line.starts_with("| API |")).skip(2);
    for line in table.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        for pair in cells.chunks(3).filter(|pair| !pair[0].is_empty()) {
            // Where more is told than is answered, that stands in parentheses.
            let versions = pair[1].split_once('(').map_or(pair[1], |(_, told)| told.trim_end_matches(" told)"));
            let (min, max) = versions.split_once('–').unwrap_or((versions, versions));
            let range: (i16, i16) = (min.parse().unwrap(), max.parse().unwrap());
            assert_eq!(documented.insert(pair[0].to_owned(), range), None, "{} stands there twice", pair[0]);
        }
    }
    let server = Server::new();
    let told = ranges(&server).into_iter();
    let told: BTreeMap<String, (i16, i16)> =
        told.map(|(key, min, max)| (format!("{:?}", ApiKey::try_from(key).unwrap()), (min, max))).collect();
    assert_eq!(documented, told);
    server.stop();
}

/// Sends an all but empty request of every advertised version, and reads the response to its last byte.
#[test]
fn every_advertised_version_is_answered() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let mut seen = Vec::new();
    macro_rules! all {
        ($($request:ident $make:expr),* $(,)?) => {
            $({
                let (_, min, max) = *ranges(&server).iter().find(|(key, ..)| *key == <$request as Request>::KEY).unwrap();
                seen.push(<$request as Request>::KEY);
                for version in min.max(if <$request as Request>::KEY == 0 { 3 } else { 0 })..=max {
                    let make: fn(i16) -> $request = $make;
                    client.call(version, &make(version));
                }
            })*
        };
    }
    let text = StrBytes::from_static_str;
    let _ = text;
    all! {
        ProduceRequest |v| by_id(v >= 13, produce_request("t", -1, values(2))),
        FetchRequest |v| match v {
            13.. => FetchRequest::default(),
            _ => fetch_request("t", 0, 1, 0),
        },
        ListOffsetsRequest |_| ListOffsetsRequest::default(),
        MetadataRequest |v| MetadataRequest::default().with_topics((v > 0).then(Vec::new).or(Some(vec![]))),
        OffsetCommitRequest |_| OffsetCommitRequest::default().with_group_id("g".to_owned().into_group()),
        OffsetFetchRequest |v| match v {
            8.. => OffsetFetchRequest::default(),
            _ => OffsetFetchRequest::default().with_group_id("g".to_owned().into_group()),
        },
        FindCoordinatorRequest |v| match v {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec!["g".into()]),
            _ => FindCoordinatorRequest::default().with_key("g".into()),
        },
        JoinGroupRequest |_| JoinGroupRequest::default(),
        HeartbeatRequest |_| HeartbeatRequest::default(),
        LeaveGroupRequest |_| LeaveGroupRequest::default(),
        SyncGroupRequest |_| SyncGroupRequest::default(),
        DescribeGroupsRequest |_| DescribeGroupsRequest::default().with_groups(vec!["g".to_owned().into_group()]),
        ListGroupsRequest |_| ListGroupsRequest::default(),
        SaslHandshakeRequest |_| SaslHandshakeRequest::default(),
        ApiVersionsRequest |v| match v {
            3.. => ApiVersionsRequest::default()
                .with_client_software_name("test".into())
                .with_client_software_version("1".into()),
            _ => ApiVersionsRequest::default(),
        },
        CreateTopicsRequest |v| CreateTopicsRequest::default().with_topics(vec![
            CreatableTopic::default().with_name(name(&format!("new-{v}"))).with_num_partitions(1).with_replication_factor(1),
            CreatableTopic::default().with_name(name("a/b")).with_num_partitions(1).with_replication_factor(1),
        ]),
        DeleteTopicsRequest |v| match v {
            6.. => DeleteTopicsRequest::default(),
            _ => DeleteTopicsRequest::default().with_topic_names(vec![name(&format!("new-{v}"))]),
        },
        DeleteRecordsRequest |_| DeleteRecordsRequest::default(),
        InitProducerIdRequest |_| InitProducerIdRequest::default(),
        OffsetForLeaderEpochRequest |_| OffsetForLeaderEpochRequest::default(),
        AddPartitionsToTxnRequest |_| AddPartitionsToTxnRequest::default(),
        AddOffsetsToTxnRequest |_| AddOffsetsToTxnRequest::default(),
        EndTxnRequest |_| EndTxnRequest::default(),
        WriteTxnMarkersRequest |_| WriteTxnMarkersRequest::default(),
        TxnOffsetCommitRequest |_| TxnOffsetCommitRequest::default(),
        DescribeAclsRequest |_| DescribeAclsRequest::default(),
        CreateAclsRequest |_| CreateAclsRequest::default().with_creations(vec![Default::default()]),
        DeleteAclsRequest |_| DeleteAclsRequest::default().with_filters(vec![Default::default()]),
        DescribeConfigsRequest |_| DescribeConfigsRequest::default().with_resources(vec![
            describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name("t".into())
                .with_configuration_keys(None),
            describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(4)
                .with_resource_name("1".into())
                .with_configuration_keys(None),
        ]),
        AlterConfigsRequest |_| AlterConfigsRequest::default(),
        AlterReplicaLogDirsRequest |_| AlterReplicaLogDirsRequest::default(),
        DescribeLogDirsRequest |_| DescribeLogDirsRequest::default().with_topics(None),
        SaslAuthenticateRequest |_| SaslAuthenticateRequest::default(),
        CreatePartitionsRequest |_| CreatePartitionsRequest::default(),
        DeleteGroupsRequest |_| DeleteGroupsRequest::default().with_groups_names(vec!["g".to_owned().into_group()]),
        ElectLeadersRequest |_| ElectLeadersRequest::default(),
        IncrementalAlterConfigsRequest |_| IncrementalAlterConfigsRequest::default(),
        AlterPartitionReassignmentsRequest |_| AlterPartitionReassignmentsRequest::default(),
        ListPartitionReassignmentsRequest |_| ListPartitionReassignmentsRequest::default(),
        OffsetDeleteRequest |_| OffsetDeleteRequest::default(),
        DescribeClientQuotasRequest |_| DescribeClientQuotasRequest::default(),
        AlterClientQuotasRequest |_| AlterClientQuotasRequest::default().with_entries(vec![Default::default()]),
        DescribeUserScramCredentialsRequest |_| DescribeUserScramCredentialsRequest::default(),
        AlterUserScramCredentialsRequest |_| AlterUserScramCredentialsRequest::default(),
        DescribeQuorumRequest |_| DescribeQuorumRequest::default(),
        CreateDelegationTokenRequest |_| CreateDelegationTokenRequest::default(),
        RenewDelegationTokenRequest |_| RenewDelegationTokenRequest::default(),
        ExpireDelegationTokenRequest |_| ExpireDelegationTokenRequest::default(),
        DescribeDelegationTokenRequest |_| DescribeDelegationTokenRequest::default(),
        UpdateFeaturesRequest |_| UpdateFeaturesRequest::default(),
        DescribeClusterRequest |_| DescribeClusterRequest::default(),
        UnregisterBrokerRequest |_| UnregisterBrokerRequest::default(),
        DescribeProducersRequest |_| DescribeProducersRequest::default(),
        DescribeTransactionsRequest |_| DescribeTransactionsRequest::default(),
        ListTransactionsRequest |_| ListTransactionsRequest::default(),
        ConsumerGroupHeartbeatRequest |v| ConsumerGroupHeartbeatRequest::default()
            .with_group_id("new".to_owned().into_group())
            .with_member_id(format!("member-{v}").into())
            .with_rebalance_timeout_ms(1000)
            .with_subscribed_topic_names(Some(vec![name("t")]))
            .with_topic_partitions(Some(vec![])),
        ConsumerGroupDescribeRequest |_| ConsumerGroupDescribeRequest::default()
            .with_group_ids(vec!["new".to_owned().into_group(), "g".to_owned().into_group()]),
        ListConfigResourcesRequest |_| ListConfigResourcesRequest::default(),
        DescribeTopicPartitionsRequest |_| DescribeTopicPartitionsRequest::default(),
    }
    let advertised: Vec<i16> = ranges(&server).iter().map(|(key, ..)| *key).collect();
    seen.sort_unstable();
    assert_eq!(seen, advertised, "an advertised api is not tried here");
    let snapshot = server.metrics.snapshot();
    assert_eq!((snapshot.malformed_total, snapshot.panics_total), (0, 0));
    assert!(snapshot.requests_total.iter().any(|(api, n)| *api == "produce" && *n == 11), "{snapshot:?}");
    server.stop();
}

/// The request with a topic's id, of a topic that is not there, in place of its name.
fn by_id(is: bool, mut request: ProduceRequest) -> ProduceRequest {
    if is {
        request.topic_data[0].name = TopicName::default();
        request.topic_data[0].topic_id = uuid::Uuid::from_u128(7);
    }
    request
}

trait IntoGroup {
    fn into_group(self) -> GroupId;
}

impl IntoGroup for String {
    fn into_group(self) -> GroupId {
        GroupId(StrBytes::from_string(self))
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let server = Server::new();
    let mut client = server.client();
    // Version 77 with a body that nobody knows.
    let mut bytes = vec![0, 0, 0, 14, 0, 18, 0, 77, 0, 0, 0, 9, 0xff, 0xff];
    bytes.extend([1, 2, 3, 4]);
    std::io::Write::write_all(&mut client.stream, &bytes).unwrap();
    let response = super::client::read::<ApiVersionsRequest>(client.receive().unwrap(), 0, 9);
    assert_eq!(response.error_code, 35);
    let produce = response.api_keys.iter().find(|k| k.api_key == 0).unwrap();
    assert_eq!(produce.min_version, 0, "old librdkafka compresses only where version 0 is offered");
    // The connection goes on.
    assert_eq!(client.call(0, &ApiVersionsRequest::default()).error_code, 0);
    let nameless = client.call(3, &ApiVersionsRequest::default().with_client_software_name("-".into()));
    assert_eq!(nameless.error_code, 42);
}

#[test]
fn pipelined_produces_are_answered_in_order() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let sent: Vec<i32> = (0..50).map(|_| client.send(9, &produce_request("t", -1, values(3)))).collect();
    let listed = client.send(0, &ApiVersionsRequest::default());
    for (i, correlation) in sent.into_iter().enumerate() {
        let response = client.response::<ProduceRequest>(9, correlation);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, 3 * i as i64);
    }
    client.response::<ApiVersionsRequest>(0, listed);
}

#[test]
fn acks_0_gets_no_response_and_an_error_ends_the_connection() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    client.send(7, &produce_request("t", 0, values(1)));
    let correlation = client.send(7, &produce_request("t", 1, values(1)));
    let response = client.response::<ProduceRequest>(7, correlation);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 1);
    let refused = client.call(7, &produce_request("t", 2, values(1)));
    assert_eq!(refused.responses[0].partition_responses[0].error_code, 21);
    client.send(7, &produce_request("nowhere", 0, values(1)));
    assert!(client.is_closed());
}

#[test]
fn a_fetch_waits_for_what_comes() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let fetch = |client: &mut Client, from, min, wait| {
        let start = Instant::now();
        let response = client.call(12, &fetch_request("t", from, min, wait));
        let partition = response.responses[0].partitions[0].clone();
        (partition.error_code, partition.records.unwrap().len(), partition.high_watermark, start.elapsed())
    };
    let (code, bytes, _, took) = fetch(&mut client, 0, 1, 300);
    assert_eq!((code, bytes), (0, 0));
    assert!(took >= Duration::from_millis(290), "{took:?}");
    let storage = server.storage().clone();
    let producer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        send(&storage, place, &["a"]);
    });
    let (code, bytes, end, _) = fetch(&mut client, 0, 1, 60_000);
    producer.join().unwrap();
    assert_eq!((code, end), (0, 1));
    assert!(bytes > 61, "{bytes}");
    // Not enough bytes yet: waits till the end and gives what is there.
    let (_, bytes, _, took) = fetch(&mut client, 0, 100_000, 300);
    assert!(bytes > 61 && took >= Duration::from_millis(290), "{took:?}");
    assert_eq!(fetch(&mut client, 2, 1, 60_000).0, 1, "past the end is an error, and errors do not wait");
    // A topic that is deleted wakes those who wait for it.
    let storage = server.storage().clone();
    let deleter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        crate::fixture::block_on(storage.delete_topic(place.topic)).unwrap();
    });
    let (code, ..) = fetch(&mut client, 1, 1, 60_000);
    deleter.join().unwrap();
    assert_eq!(code, 3);
}

#[test]
fn a_fetch_gives_at_least_one_batch_and_otherwise_keeps_to_its_limits() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let one = values(100);
    for _ in 0..4 {
        client.call(9, &produce_request("t", -1, one.clone()));
    }
    let mut fetch = |bytes_max: i32, from: i64| {
        let mut request = fetch_request("t", from, 1, 0);
        request.topics[0].partitions[0].partition_max_bytes = bytes_max;
        let response = client.call(11, &request);
        response.responses[0].partitions[0].records.as_ref().unwrap().len() / one.len()
    };
    assert_eq!(fetch(1, 0), 1);
    assert_eq!(fetch(2 * one.len() as i32 + 5, 0), 2);
    assert_eq!(fetch(1 << 20, 0), 4);
    assert_eq!(fetch(1 << 20, 150), 3, "the whole batch that has the offset");
    assert_eq!(fetch(1 << 20, 400), 0);
}

struct Sinks;

impl TopicGuard for Sinks {
    fn refuse_write(&self, topic: &str) -> Option<String> {
        (topic == "sink").then(|| "\"sink\" is written by a table".to_owned())
    }
}

#[test]
fn guarded_topics_refuse_writers_and_say_why() {
    let server = Server::with(Fixture::new(), |_, hooks| hooks.guard = Arc::new(Sinks));
    create(server.storage(), "sink", &[]);
    let response = server.client().call(9, &produce_request("sink", -1, values(1)));
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 29);
    assert_eq!(partition.error_message.as_deref(), Some("\"sink\" is written by a table"));
}

#[test]
fn metadata_creates_topics_only_where_both_allow_it() {
    let server = Server::new();
    let ask = |server: &Server, topic: &str, allow: bool| {
        let topics = vec![MetadataRequestTopic::default().with_name(Some(name(topic)))];
        let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(allow);
        let topic = server.client().call(12, &request).topics.remove(0);
        (topic.error_code, topic.partitions.len(), topic.topic_id.is_nil())
    };
    assert_eq!(ask(&server, "new", false), (3, 0, true));
    assert_eq!(ask(&server, "new", true), (0, 1, false));
    assert_eq!(ask(&server, "a b", true), (17, 0, true));
    assert_eq!(ask(&server, "a b", false), (17, 0, true));
    for version in 10..=13 {
        let by_id = |id, beside: Option<&str>| {
            let topics = vec![MetadataRequestTopic::default().with_name(beside.map(name)).with_topic_id(id)];
            let response = server.client().call(version, &MetadataRequest::default().with_topics(Some(topics)));
            let topic = response.topics[0].clone();
            (topic.error_code, topic.name.map(|n| n.to_string()).unwrap_or_default(), topic.topic_id)
        };
        let id = uuid::Uuid::from_bytes(server.storage().find_topic("new").unwrap().id.0);
        let nobody = uuid::Uuid::from_bytes([9; 16]);
        // An empty name, and none, which old versions cannot say.
        for beside in [Some(""), None] {
            assert_eq!(by_id(id, beside), (0, "new".into(), id));
            assert_eq!(by_id(nobody, beside), (100, String::new(), nobody));
        }
    }
    let server = Server::with(Fixture::new(), |settings, _| settings.auto_create_topics = false);
    assert_eq!(ask(&server, "new", true), (3, 0, true));
}

#[test]
fn shutting_down_answers_what_is_under_way_and_waits_for_no_fetch() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut waiting = server.client();
    waiting.send(11, &fetch_request("t", 0, 1, 60_000));
    server.has_got("fetch", 1);
    std::thread::sleep(Duration::from_millis(100));
    server.stop();
    assert!(waiting.is_closed());
}

#[test]
fn frame_is_what_it_says() {
    let bytes = frame(1, 0, &ApiVersionsRequest::default());
    assert_eq!(bytes, [0, 0, 0, 14, 0, 18, 0, 0, 0, 0, 0, 1, 0, 4, b't', b'e', b's', b't']);
}

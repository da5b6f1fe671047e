//! Small requests that ask for large answers, long work or memory that nobody gets back: each has its limit, and the
//! answer says so by an error of the protocol.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::answers::{fetch_request, name};
use super::client::{Client, Server};
use crate::fixture::{Fixture, create};

const TIMES: usize = 20_000;
const INVALID_REQUEST: i16 = 42;

fn string(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

/// Calls, and says how many bytes came back too.
fn sized<R: kafka_protocol::protocol::Request>(client: &mut Client, version: i16, request: &R) -> (R::Response, usize) {
    let correlation = client.send(version, request);
    let frame = client.receive().unwrap();
    let size = frame.len();
    (super::client::read::<R>(frame, version, correlation), size)
}

fn commit(client: &mut Client, group: &str, topic: &str, partitions: i32, metadata: &str) -> i16 {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(1)
            .with_committed_metadata(Some(string(metadata.to_owned())))
    };
    let partitions = (0..partitions).map(partition).collect();
    let topic = OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(partitions);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(string(group.to_owned())))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    client.call(8, &request).topics[0].partitions[0].error_code
}

/// Joins with so much metadata; the code.
fn join(client: &mut Client, group: &str, metadata: usize) -> i16 {
    let protocol = JoinGroupRequestProtocol::default().with_name("range".into());
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(string(group.to_owned())))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol.with_metadata(Bytes::from(vec![0; metadata]))]);
    let joined = client.call(3, &request);
    if joined.error_code != 0 {
        return joined.error_code;
    }
    // Only of a group that has settled members' metadata is told.
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(string(group.to_owned())))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id);
    client.call(2, &request).error_code
}

/// Sets a group's session timeout; the code.
fn configure(client: &mut Client, group: &str, value: &str) -> i16 {
    const GROUP: i8 = 32;
    let config = AlterableConfig::default()
        .with_name("consumer.session.timeout.ms".into())
        .with_value(Some(string(value.to_owned())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(GROUP)
        .with_resource_name(string(group.to_owned()))
        .with_configs(vec![config]);
    client.call(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource])).responses[0].error_code
}

#[test]
fn what_is_named_often_is_answered_once() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(commit(&mut client, "g", "t", 1, &"m".repeat(4000)), 0);
    assert_eq!(join(&mut client, "members", 100_000), 0);
    let id = |group: &str| GroupId(string(group.to_owned()));

    let many = vec![id("members"); TIMES];
    let described = client.call(5, &DescribeGroupsRequest::default().with_groups(many.clone()));
    assert_eq!(described.groups.len(), 1);
    let described = client.call(1, &ConsumerGroupDescribeRequest::default().with_group_ids(many));
    assert_eq!(described.groups.len(), 1);

    let indexes = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0; TIMES]);
    let asked = OffsetFetchRequest::default().with_group_id(id("g")).with_topics(Some(vec![indexes; 2]));
    let (fetched, size) = sized(&mut client, 7, &asked);
    assert_eq!((fetched.topics.len(), fetched.topics[0].partitions.len()), (1, 1));
    assert!(size < 10_000, "{size}");
    let indexes = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0; 10]);
    let group = OffsetFetchRequestGroup::default().with_group_id(id("g")).with_topics(Some(vec![indexes; 10]));
    let (fetched, size) = sized(&mut client, 9, &OffsetFetchRequest::default().with_groups(vec![group; 500]));
    assert_eq!((fetched.groups.len(), fetched.groups[0].topics.len()), (1, 1));
    assert!(size < 10_000, "{size}");

    let topic = TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0; TIMES]);
    let described = client.call(0, &DescribeProducersRequest::default().with_topics(vec![topic; 2]));
    assert_eq!((described.topics.len(), described.topics[0].partitions.len()), (1, 1));
    let ids = vec![TransactionalId("x".into()); TIMES];
    let described = client.call(0, &DescribeTransactionsRequest::default().with_transactional_ids(ids));
    assert_eq!(described.transaction_states.len(), 1);
    let topic = DescribableLogDirTopic::default().with_topic(name("t")).with_partitions(vec![0]);
    let described = client.call(4, &DescribeLogDirsRequest::default().with_topics(Some(vec![topic; 1000])));
    assert_eq!((described.results[0].topics.len(), described.results[0].topics[0].partitions.len()), (1, 1));

    // As in Kafka, a partition that is named twice is an error.
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition; 3]);
    let listed = client.call(7, &ListOffsetsRequest::default().with_topics(vec![topic]));
    assert!(listed.topics[0].partitions.iter().all(|p| p.error_code == INVALID_REQUEST), "{listed:?}");
    server.stop();
}

#[test]
fn long_names_are_not_told_over_and_over() {
    let server = Server::new();
    let mut client = server.client();
    let long = "n".repeat(30_000);
    let topic = TopicPartitions::default().with_topic(name(&long)).with_partitions((0..TIMES as i32).collect());
    let (answer, size) =
        sized(&mut client, 2, &ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])));
    assert_eq!(answer.replica_election_results[0].partition_result.len(), TIMES);
    assert!(size < 10_000_000, "{size} bytes");
    server.stop();
}

#[test]
fn an_answer_that_is_too_large_is_an_error() {
    let server = Server::with(Fixture::new(), |settings, _| settings.answer_bytes_max = 200_000);
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    for group in ["a", "b", "c"] {
        assert_eq!(join(&mut client, group, 100_000), 0);
        for i in 0..30 {
            create(server.storage(), &format!("{group}{i}"), &[]);
            assert_eq!(commit(&mut client, "offsets", &format!("{group}{i}"), 1, &"m".repeat(4000)), 0);
        }
    }
    let id = |group: &str| GroupId(string(group.to_owned()));
    let describe = |ids: &[&str]| {
        let ids = ids.iter().map(|group| id(group)).collect();
        DescribeGroupsRequest::default().with_groups(ids)
    };
    let described = client.call(5, &describe(&["a"]));
    assert_eq!(described.groups[0].error_code, 0);
    let (described, size) = sized(&mut client, 5, &describe(&["a", "b", "c"]));
    assert!(size < 1000 && described.groups.iter().all(|g| g.error_code == INVALID_REQUEST), "{size} {described:?}");
    // Offsets of a whole group, in each way of telling that it is too much.
    let all = OffsetFetchRequest::default().with_group_id(id("offsets")).with_topics(None);
    let (fetched, size) = sized(&mut client, 7, &all);
    assert!(size < 1000 && fetched.error_code == INVALID_REQUEST, "{size} {fetched:?}");
    let group = OffsetFetchRequestGroup::default().with_group_id(id("offsets")).with_topics(None);
    let (fetched, size) = sized(&mut client, 8, &OffsetFetchRequest::default().with_groups(vec![group]));
    assert!(size < 1000 && fetched.groups[0].error_code == INVALID_REQUEST, "{size} {fetched:?}");
    server.stop();
}

#[test]
fn whoever_takes_no_answer_keeps_no_memory_from_others() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.answers = millpond_types::Pool::root("answers", 3_000_000);
        settings.answer_bytes_max = 3_000_000;
    });
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    for i in 0..600 {
        create(server.storage(), &format!("t{i}"), &[]);
        assert_eq!(commit(&mut client, "offsets", &format!("t{i}"), 1, &"m".repeat(4000)), 0);
    }
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId("offsets".into())).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let greedy: Vec<Client> = (0..20)
        .map(|_| {
            let mut greedy = server.client();
            greedy.send(8, &request);
            greedy
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    // Those who take nothing lose their places after a while.
    client.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (_, size) = sized(&mut client, 8, &request);
    assert!(size > 2_000_000, "{size} bytes");
    drop(greedy);
    server.stop();
}

#[test]
fn settings_of_many_topics_are_counted_as_they_are_told() {
    let server = Server::with(Fixture::new(), |settings, _| settings.answer_bytes_max = 900_000);
    let mut client = server.client();
    let resource =
        |i: usize| DescribeConfigsResource::default().with_resource_type(2).with_resource_name(string(format!("t{i}")));
    for i in 0..300 {
        create(server.storage(), &format!("t{i}"), &[]);
    }
    let mut request = DescribeConfigsRequest::default().with_resources((0..300).map(resource).collect());
    let (described, size) = sized(&mut client, 4, &request);
    assert!(described.results.iter().all(|r| r.error_code == 0 && r.configs.len() > 25), "{size}");
    assert!((300_000..900_000).contains(&size), "{size}");
    let (older, _) = sized(&mut client, 3, &request);
    assert_eq!(older.results.len(), 300);
    request.include_documentation = true;
    request.include_synonyms = true;
    let (described, size) = sized(&mut client, 4, &request);
    let refused = described.results.iter().filter(|r| r.error_code == INVALID_REQUEST && r.configs.is_empty()).count();
    assert!(size < 1_000_000 && (50..300).contains(&refused), "{size} {refused}");
    server.stop();
}

#[test]
fn names_count_as_bytes() {
    let server = Server::with(Fixture::new(), |settings, _| {
        settings.groups.members_bytes_max = 2_000_000;
        settings.transactions.bytes_max = 2_000_000;
        settings.fetch_sessions_bytes_max = 200_000;
    });
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let long = |i: usize| format!("{i}{}", "x".repeat(30_000));
    // Groups that offsets make, and that members make: about 20 names of 30 KB fit, three times each.
    let made = (0..100).take_while(|i| commit(&mut client, &long(*i), "t", 1, "") == 0).count();
    assert!((5..40).contains(&made), "{made} groups by offsets");
    assert_ne!(join(&mut client, &long(1000), 10), 0, "a group by a member");
    let init = |client: &mut Client, i: usize| {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(string(long(i)))))
            .with_transaction_timeout_ms(60_000);
        client.call(4, &request).error_code
    };
    let made = (0..100).take_while(|i| init(&mut client, *i) == 0).count();
    assert!((10..60).contains(&made), "{made} transactional ids");
    // A session with a name of 30 KB is there, one with twenty is not; both get their answers.
    let session = |client: &mut Client, names: usize| {
        let mut request = fetch_request("t", 0, 0, 0).with_session_epoch(0);
        request.max_wait_ms = 0;
        let topic = request.topics[0].clone();
        request.topics = (0..names).map(|i| topic.clone().with_topic(name(&long(i)))).collect();
        client.call(11, &request)
    };
    let (small, large) = (session(&mut client, 1), session(&mut client, 20));
    assert!(small.session_id != 0 && large.session_id == 0, "{} {}", small.session_id, large.session_id);
    assert_eq!((small.error_code, large.error_code, large.responses.len()), (0, 0, 20));
    server.stop();
}

#[test]
fn settings_of_groups_count_as_bytes() {
    let server = Server::with(Fixture::new(), |settings, _| settings.groups.members_bytes_max = 300_000);
    let mut client = server.client();
    let long = |i: usize| format!("{i}{}", "x".repeat(30_000));
    // What stands around a value is not kept.
    let spaced = format!("50000{}", " ".repeat(30_000));
    let made = (0..100).take_while(|i| configure(&mut client, &long(*i), &spaced) == 0).count();
    assert_eq!(made, 9);
    assert_eq!(configure(&mut client, &long(0), "51000"), 0, "what is there is changed");
    assert_ne!(join(&mut client, "g", 100_000), 0, "members and settings count together");
    let server = Server::with(server.stop().reopen(true), |settings, _| settings.groups.members_bytes_max = 300_000);
    assert_ne!(configure(&mut server.client(), &long(50), "50000"), 0, "also after a restart");
    server.stop();
}

#[test]
fn topics_that_metadata_makes_count_for_the_quota() {
    let server = Server::new();
    let mut client = server.client();
    let entity = EntityData::default().with_entity_type("client-id".into()).with_entity_name(Some("test".into()));
    let op = OpData::default().with_key("controller_mutation_rate".into()).with_value(1.0);
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
    assert_eq!(client.call(1, &AlterClientQuotasRequest::default().with_entries(vec![entry])).entries[0].error_code, 0);
    let topic = |i| MetadataRequestTopic::default().with_name(Some(name(&format!("made{i}"))));
    let request =
        MetadataRequest::default().with_topics(Some((0..60).map(topic).collect())).with_allow_auto_topic_creation(true);
    let codes: Vec<i16> = client.call(12, &request).topics.iter().map(|t| t.error_code).collect();
    let made = codes.iter().filter(|code| **code == 0).count();
    // A burst of ten seconds' worth, and one over it.
    assert!((5..30).contains(&made), "{made} of 60 at one a second");
    assert!(codes.iter().all(|code| [0, ResponseError::LeaderNotAvailable.code()].contains(code)), "{codes:?}");
    server.stop();
}

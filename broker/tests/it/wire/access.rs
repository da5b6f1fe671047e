//! Who may do what: every API asks for the rights that Kafka's asks for.

use std::collections::BTreeSet;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::alter_configs_request;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use millpond_broker::batch::Codec;
use millpond_broker::security::acl::{Binding, Filter, Operation, RawBinding, ResourceType};
use millpond_broker::security::{AuthorizationSettings, Authorizer, Principal};

use super::answers::{fetch_request, name, produce_request};
use super::client::{Client, Server};
use crate::fixture::{Fixture, START_MS, batch, block_on, create};

const TOPIC: i16 = 29;
const GROUP: i16 = 30;
const CLUSTER: i16 = 31;
const TRANSACTION: i16 = 53;

/// A server that lets nobody do anything until entries say so.
fn guarded() -> (Server, Authorizer) {
    let server =
        Server::with(Fixture::new(), |settings, _| settings.authorization = Some(AuthorizationSettings::default()));
    let authorizer = server.authorizer().unwrap();
    (server, authorizer)
}

fn entry(resource: ResourceType, resource_name: &str, operation: Operation) -> Binding {
    let principal = Principal::anonymous().to_string();
    let raw = RawBinding {
        resource: resource.code(),
        name: resource_name,
        pattern: 3,
        principal: &principal,
        host: "*",
        operation: operation.code(),
        permission: 3,
    };
    Binding::check(raw).unwrap()
}

fn of_topic(operation: Operation) -> Binding {
    entry(ResourceType::Topic, "t", operation)
}

fn of_group(operation: Operation) -> Binding {
    entry(ResourceType::Group, "g", operation)
}

fn of_cluster(operation: Operation) -> Binding {
    entry(ResourceType::Cluster, "kafka-cluster", operation)
}

fn of_transaction(operation: Operation) -> Binding {
    entry(ResourceType::TransactionalId, "x", operation)
}

fn allow(authorizer: &Authorizer, entries: &[Binding]) {
    block_on(authorizer.delete(&[Filter::any()])).unwrap();
    block_on(authorizer.create(entries.to_vec())).unwrap();
}

fn group(id: &str) -> GroupId {
    GroupId(StrBytes::from_string(id.to_owned()))
}

fn transaction(id: &'static str) -> TransactionalId {
    TransactionalId(StrBytes::from_static_str(id))
}

type Call = Box<dyn Fn(&mut Client) -> i16>;

/// An API, the rights that it needs, the code without them, and a call that gives the code.
struct Case {
    key: i16,
    needs: Vec<Binding>,
    denied: i16,
    call: Call,
}

fn case<R: Request + 'static>(
    needs: &[Binding],
    denied: i16,
    version: i16,
    request: R,
    code: impl Fn(R::Response) -> i16 + 'static,
) -> Case {
    let call = Box::new(move |client: &mut Client| code(client.call(version, &request)));
    Case { key: R::KEY, needs: needs.to_vec(), denied, call }
}

/// The code of a list that shows only what may be seen.
fn seen(count: usize, denied: i16) -> i16 {
    if count == 0 { denied } else { 0 }
}

fn records() -> bytes::Bytes {
    batch(&[("v", START_MS)], Codec::None)
}

fn setting(kind: i8, resource: &'static str) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(resource.into())
        .with_configuration_keys(None)
}

fn data_cases() -> Vec<Case> {
    use Operation::{ClusterAction, Create, Describe, IdempotentWrite, Read, Write};
    let offsets = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]);
    let epoch = OffsetForLeaderTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![OffsetForLeaderPartition::default().with_current_leader_epoch(-1)]);
    let epoch = OffsetForLeaderEpochRequest::default().with_topics(vec![epoch]);
    let named = |topic: &str| {
        let topics = vec![MetadataRequestTopic::default().with_name(Some(name(topic)))];
        MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true)
    };
    let made = [entry(ResourceType::Topic, "made", Describe), entry(ResourceType::Topic, "made", Create)];
    let made_2 = [entry(ResourceType::Topic, "made-2", Describe), of_cluster(Create)];
    vec![
        case(&[of_topic(Write)], TOPIC, 9, produce_request("t", -1, records()), |r| {
            r.responses[0].partition_responses[0].error_code
        }),
        case(&[of_topic(Read)], TOPIC, 12, fetch_request("t", 0, 0, 0), |r| r.responses[0].partitions[0].error_code),
        case(&[of_topic(Describe)], TOPIC, 5, ListOffsetsRequest::default().with_topics(vec![offsets]), |r| {
            r.topics[0].partitions[0].error_code
        }),
        case(&[of_topic(Read)], TOPIC, 9, named("t"), |r| r.topics[0].error_code),
        case(&made, TOPIC, 9, named("made"), |r| r.topics[0].error_code),
        case(&made_2, TOPIC, 9, named("made-2"), |r| r.topics[0].error_code),
        case(&[of_topic(Describe)], TOPIC, 9, MetadataRequest::default().with_topics(None), |r| {
            seen(r.topics.len(), TOPIC)
        }),
        case(&[of_topic(Describe)], TOPIC, 4, epoch.clone(), |r| r.topics[0].partitions[0].error_code),
        case(&[of_cluster(ClusterAction)], TOPIC, 4, epoch, |r| r.topics[0].partitions[0].error_code),
        case(&[of_topic(Write)], CLUSTER, 4, InitProducerIdRequest::default().with_transactional_id(None), |r| {
            r.error_code
        }),
        case(
            &[of_cluster(IdempotentWrite)],
            CLUSTER,
            4,
            InitProducerIdRequest::default().with_transactional_id(None),
            |r| r.error_code,
        ),
    ]
}

fn group_cases() -> Vec<Case> {
    use Operation::{Delete, Describe, Read};
    let commit = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![OffsetCommitRequestPartition::default()]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![commit]);
    let fetch_topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let fetch = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(Some(vec![fetch_topic]));
    let fetch = OffsetFetchRequest::default().with_groups(vec![fetch]);
    let join = JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_protocol_type("consumer".into());
    let forget = OffsetDeleteRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    let forget = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![forget]);
    let heartbeat = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("c"))
        .with_member_id("m".into())
        .with_rebalance_timeout_ms(1000)
        .with_subscribed_topic_names(Some(vec![name("t")]))
        .with_topic_partitions(Some(vec![]));
    let describe = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("nobody")]);
    vec![
        case(&[of_group(Read)], GROUP, 7, commit.clone(), |r| match r.topics[0].partitions[0].error_code {
            // Without a right to the topic it is the topic that is refused.
            TOPIC => 0,
            other => other,
        }),
        case(&[of_group(Read), of_topic(Read)], GROUP, 7, commit, |r| r.topics[0].partitions[0].error_code),
        case(&[of_group(Describe), of_topic(Describe)], GROUP, 8, fetch, |r| {
            r.groups[0].error_code.max(r.groups[0].topics.first().map_or(0, |t| t.partitions[0].error_code))
        }),
        case(&[of_group(Describe)], GROUP, 2, OffsetFetchRequest::default().with_group_id(group("g")), |r| {
            r.error_code
        }),
        case(&[of_group(Describe)], GROUP, 3, FindCoordinatorRequest::default().with_key("g".into()), |r| r.error_code),
        case(
            &[of_transaction(Describe)],
            TRANSACTION,
            4,
            FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec!["x".into()]),
            |r| r.coordinators[0].error_code,
        ),
        case(&[of_group(Read)], GROUP, 4, join, |r| r.error_code),
        case(&[of_group(Read)], GROUP, 4, HeartbeatRequest::default().with_group_id(group("g")), |r| r.error_code),
        case(&[of_group(Read)], GROUP, 4, LeaveGroupRequest::default().with_group_id(group("g")), |r| r.error_code),
        case(&[of_group(Read)], GROUP, 4, SyncGroupRequest::default().with_group_id(group("g")), |r| r.error_code),
        case(&[of_group(Describe)], GROUP, 5, describe, |r| r.groups[0].error_code),
        case(&[of_group(Describe)], GROUP, 4, ListGroupsRequest::default(), |r| seen(r.groups.len(), GROUP)),
        case(&[of_cluster(Describe)], GROUP, 4, ListGroupsRequest::default(), |r| seen(r.groups.len(), GROUP)),
        case(&[entry(ResourceType::Group, "nobody", Delete)], GROUP, 2, delete, |r| r.results[0].error_code),
        case(&[of_group(Delete)], GROUP, 0, forget.clone(), |r| r.error_code),
        case(&[entry(ResourceType::Group, "c", Read), of_topic(Describe)], GROUP, 1, heartbeat, |r| r.error_code),
        case(
            &[entry(ResourceType::Group, "c", Describe), of_topic(Describe)],
            GROUP,
            1,
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![group("c")]),
            |r| r.groups[0].error_code,
        ),
        case(&[of_group(Delete), of_topic(Read)], GROUP, 0, forget, |r| match r.error_code {
            0 => r.topics[0].partitions[0].error_code,
            code => code,
        }),
    ]
}

fn transaction_cases() -> Vec<Case> {
    use Operation::{Describe, Read, Write};
    let id = transaction("x");
    let topic = AddPartitionsToTxnTopic::default().with_name(name("t")).with_partitions(vec![0]);
    let partitions = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id.clone())
        .with_v3_and_below_topics(vec![topic]);
    let offsets = AddOffsetsToTxnRequest::default().with_transactional_id(id.clone()).with_group_id(group("g"));
    let commit = TxnOffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
    let commit = TxnOffsetCommitRequest::default()
        .with_transactional_id(id.clone())
        .with_group_id(group("g"))
        .with_generation_id(-1)
        .with_topics(vec![commit]);
    let init =
        InitProducerIdRequest::default().with_transactional_id(Some(id.clone())).with_transaction_timeout_ms(60_000);
    let producers = TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0]);
    vec![
        case(&[of_transaction(Write)], TRANSACTION, 4, init, |r| r.error_code),
        case(&[of_transaction(Write), of_topic(Write)], TRANSACTION, 3, partitions, |r| {
            r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        }),
        case(&[of_transaction(Write), of_group(Read)], TRANSACTION, 3, offsets, |r| r.error_code),
        case(
            &[of_transaction(Write)],
            TRANSACTION,
            3,
            EndTxnRequest::default().with_transactional_id(id.clone()),
            |r| r.error_code,
        ),
        case(&[of_transaction(Write), of_group(Read), of_topic(Read)], TRANSACTION, 3, commit, |r| {
            r.topics[0].partitions[0].error_code
        }),
        case(&[of_topic(Read)], TOPIC, 0, DescribeProducersRequest::default().with_topics(vec![producers]), |r| {
            r.topics[0].partitions[0].error_code
        }),
        case(
            &[of_transaction(Describe)],
            TRANSACTION,
            0,
            DescribeTransactionsRequest::default().with_transactional_ids(vec![id]),
            |r| r.transaction_states[0].error_code,
        ),
        case(&[of_transaction(Describe)], TRANSACTION, 0, ListTransactionsRequest::default(), |r| {
            seen(r.transaction_states.len(), TRANSACTION)
        }),
    ]
}

fn admin_cases() -> Vec<Case> {
    use Operation::{Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs};
    let moved = alter_replica_log_dirs_request::AlterReplicaLogDirTopic::default().with_name(name("t"));
    let directory = alter_replica_log_dirs_request::AlterReplicaLogDir::default()
        .with_path("/millpond-data".into())
        .with_topics(vec![moved.with_partitions(vec![0])]);
    let page = describe_topic_partitions_request::TopicRequest::default().with_name(name("t"));
    let pages = DescribeTopicPartitionsRequest::default().with_topics(vec![page]);
    let hanging = write_txn_markers_request::WritableTxnMarkerTopic::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    let marker = write_txn_markers_request::WritableTxnMarker::default().with_topics(vec![hanging]);
    let abort = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let new = |topic: &str| {
        let topic = CreatableTopic::default().with_name(name(topic)).with_num_partitions(1).with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic])
    };
    let gone = |topic: &str| DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]);
    let records = DeleteRecordsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![DeleteRecordsPartition::default().with_offset(0)]);
    let configs = |kind, resource| DescribeConfigsRequest::default().with_resources(vec![setting(kind, resource)]);
    let alter =
        alter_configs_request::AlterConfigsResource::default().with_resource_type(2).with_resource_name("t".into());
    let incremental = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name("t".into());
    let alter = AlterConfigsRequest::default().with_resources(vec![alter]);
    let incremental = IncrementalAlterConfigsRequest::default().with_resources(vec![incremental]);
    let wider = CreatePartitionsTopic::default().with_name(name("t")).with_count(2);
    let creation = AclCreation::default()
        .with_resource_type(2)
        .with_resource_name("other".into())
        .with_resource_pattern_type(3)
        .with_principal("User:alice".into())
        .with_host("*".into())
        .with_operation(3)
        .with_permission_type(3);
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(2)
        .with_resource_name_filter(Some("nothing".into()))
        .with_pattern_type_filter(3)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(1)
        .with_permission_type(1);
    let gone_user = alter_user_scram_credentials_request::ScramCredentialDeletion::default()
        .with_name("nobody".into())
        .with_mechanism(1);
    let find = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(1)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(1)
        .with_permission_type(1);
    vec![
        case(&[entry(ResourceType::Topic, "n1", Create)], TOPIC, 6, new("n1"), |r| r.topics[0].error_code),
        case(&[of_cluster(Create)], TOPIC, 6, new("n2"), |r| r.topics[0].error_code),
        case(&[entry(ResourceType::Topic, "n1", Delete)], TOPIC, 5, gone("n1"), |r| r.responses[0].error_code),
        case(&[of_cluster(Delete)], TOPIC, 5, gone("n2"), |r| r.responses[0].error_code),
        case(&[of_topic(Delete)], TOPIC, 2, DeleteRecordsRequest::default().with_topics(vec![records]), |r| {
            r.topics[0].partitions[0].error_code
        }),
        case(&[of_cluster(Describe)], CLUSTER, 2, find, |r| r.error_code),
        case(&[of_cluster(Alter)], CLUSTER, 2, CreateAclsRequest::default().with_creations(vec![creation]), |r| {
            r.results[0].error_code
        }),
        case(&[of_cluster(Alter)], CLUSTER, 2, DeleteAclsRequest::default().with_filters(vec![filter]), |r| {
            r.filter_results[0].error_code
        }),
        case(&[of_topic(DescribeConfigs)], TOPIC, 4, configs(2, "t"), |r| r.results[0].error_code),
        case(&[of_cluster(AlterConfigs)], CLUSTER, 4, configs(4, "1"), |r| r.results[0].error_code),
        case(&[of_topic(AlterConfigs)], TOPIC, 2, alter, |r| r.responses[0].error_code),
        case(&[of_topic(AlterConfigs)], TOPIC, 1, incremental, |r| r.responses[0].error_code),
        case(&[of_cluster(Alter)], CLUSTER, 2, AlterReplicaLogDirsRequest::default().with_dirs(vec![directory]), |r| {
            r.results[0].partitions[0].error_code
        }),
        case(&[of_cluster(Describe)], CLUSTER, 4, DescribeLogDirsRequest::default().with_topics(None), |r| {
            r.error_code
        }),
        case(&[of_topic(Alter)], TOPIC, 3, CreatePartitionsRequest::default().with_topics(vec![wider]), |r| {
            r.results[0].error_code
        }),
        case(&[of_cluster(Alter)], CLUSTER, 2, ElectLeadersRequest::default().with_topic_partitions(None), |r| {
            r.error_code
        }),
        case(&[of_cluster(Describe)], CLUSTER, 0, DescribeUserScramCredentialsRequest::default(), |r| r.error_code),
        case(
            &[of_cluster(Alter)],
            CLUSTER,
            0,
            AlterUserScramCredentialsRequest::default().with_deletions(vec![gone_user]),
            |r| r.results[0].error_code,
        ),
        case(&[of_cluster(DescribeConfigs)], CLUSTER, 1, DescribeClientQuotasRequest::default(), |r| r.error_code),
        case(
            &[of_cluster(AlterConfigs)],
            CLUSTER,
            1,
            AlterClientQuotasRequest::default().with_entries(vec![Default::default()]),
            |r| r.entries[0].error_code,
        ),
        case(&[of_cluster(Describe)], CLUSTER, 0, ListPartitionReassignmentsRequest::default(), |r| r.error_code),
        case(&[of_cluster(Alter)], CLUSTER, 1, AlterPartitionReassignmentsRequest::default(), |r| r.error_code),
        case(&[of_cluster(ClusterAction)], CLUSTER, 1, abort.clone(), |r| {
            r.markers[0].topics[0].partitions[0].error_code
        }),
        case(&[of_cluster(Alter)], CLUSTER, 1, abort, |r| r.markers[0].topics[0].partitions[0].error_code),
        case(&[of_cluster(Alter)], CLUSTER, 1, UpdateFeaturesRequest::default(), |r| r.error_code),
        case(&[of_cluster(Alter)], CLUSTER, 0, UnregisterBrokerRequest::default(), |r| r.error_code),
        case(&[of_cluster(Describe)], CLUSTER, 2, DescribeQuorumRequest::default(), |r| r.error_code),
        case(&[of_cluster(DescribeConfigs)], CLUSTER, 1, ListConfigResourcesRequest::default(), |r| r.error_code),
        case(&[of_topic(Describe)], TOPIC, 0, DescribeTopicPartitionsRequest::default(), |r| {
            seen(r.topics.len(), TOPIC)
        }),
        case(&[of_topic(Describe)], TOPIC, 0, pages, |r| r.topics[0].error_code),
        case(
            &[of_cluster(Describe)],
            CLUSTER,
            1,
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true).with_endpoint_type(1),
            |r| seen(r.cluster_authorized_operations as usize, CLUSTER),
        ),
    ]
}

/// Versions and proving who one is are everybody's; delegation tokens are whose they are, or see `security.rs`.
const FREE: [i16; 7] = [17, 18, 36, 38, 39, 40, 41];

#[test]
fn every_api_asks_for_its_right() {
    let (server, authorizer) = guarded();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let mut cases = data_cases();
    cases.extend(group_cases());
    cases.extend(transaction_cases());
    cases.extend(admin_cases());
    for (i, case) in cases.iter().enumerate() {
        let what = format!("case {i}, api {}, {:?}", case.key, case.needs);
        allow(&authorizer, &[]);
        assert_eq!((case.call)(&mut client), case.denied, "without rights: {what}");
        // Each right is needed, unless it is one of several that would do.
        for missing in (0..case.needs.len()).filter(|_| case.needs.len() > 1) {
            let mut rest = case.needs.clone();
            rest.remove(missing);
            allow(&authorizer, &rest);
            let code = (case.call)(&mut client);
            assert!([TOPIC, GROUP, CLUSTER, TRANSACTION].contains(&code), "{code} with {rest:?} alone: {what}");
        }
        allow(&authorizer, &case.needs);
        let code = (case.call)(&mut client);
        assert!(![TOPIC, GROUP, CLUSTER, TRANSACTION].contains(&code), "{code} with the rights: {what}");
    }
    let advertised = client.call(0, &ApiVersionsRequest::default()).api_keys;
    let tried: BTreeSet<i16> = cases.iter().map(|case| case.key).chain(FREE).collect();
    let missing: Vec<i16> = advertised.iter().map(|k| k.api_key).filter(|key| !tried.contains(key)).collect();
    assert!(missing.is_empty(), "no case here for apis {missing:?}: which right do they ask for?");
}

#[test]
fn what_may_not_be_described_does_not_seem_to_exist() {
    let (server, authorizer) = guarded();
    let there = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let named = ["t", "nowhere"];
    let topics = named.iter().map(|n| MetadataRequestTopic::default().with_name(Some(name(n)))).collect();
    let asked = MetadataRequest::default()
        .with_topics(Some(topics))
        .with_allow_auto_topic_creation(true)
        .with_include_topic_authorized_operations(true);
    let blind = client.call(10, &asked).topics;
    for topic in &blind {
        assert_eq!((topic.error_code, topic.topic_id.is_nil(), topic.partitions.len()), (TOPIC, true, 0));
        assert_eq!(topic.topic_authorized_operations, i32::MIN);
    }
    assert!(server.storage().find_topic("nowhere").is_none());
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(uuid::Uuid::from_bytes(there.topic.0));
    let by_id = client.call(12, &MetadataRequest::default().with_topics(Some(vec![by_id]))).topics.remove(0);
    assert_eq!((by_id.error_code, by_id.name), (TOPIC, None));
    let state = |id: &[u8; 16]| DeleteTopicState::default().with_name(None).with_topic_id(uuid::Uuid::from_bytes(*id));
    let gone = client.call(6, &DeleteTopicsRequest::default().with_topics(vec![state(&there.topic.0)]));
    assert_eq!((gone.responses[0].error_code, &gone.responses[0].name), (TOPIC, &None));

    allow(&authorizer, &[of_topic(Operation::Read), of_topic(Operation::AlterConfigs)]);
    let topics = client.call(10, &asked).topics;
    let bits = 1 << 3 | 1 << 8 | 1 << 10 | 1 << 11;
    assert_eq!((topics[0].error_code, topics[0].topic_authorized_operations), (0, bits));
    assert_eq!(topics[1].error_code, TOPIC);
    server.stop();
}

#[test]
fn a_fetch_session_gives_what_may_be_read_now_and_to_its_owner() {
    let (server, authorizer) = guarded();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let ask = |client: &mut Client, session: (i32, i32), topics| {
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(topics);
        let response = client.call(13, &request.with_session_id(session.0).with_session_epoch(session.1));
        let codes = response.responses.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect::<Vec<_>>();
        (response.session_id, codes)
    };
    let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = fetch_request::FetchTopic::default().with_topic_id(uuid::Uuid::from_bytes(place.topic.0));
    let (id, codes) = ask(&mut client, (0, 0), vec![topic.with_partitions(vec![partition])]);
    assert_eq!(codes, [TOPIC]);
    allow(&authorizer, &[of_topic(Operation::Read)]);
    assert_eq!(ask(&mut client, (id, 1), vec![]).1, [0]);
    assert!(ask(&mut client, (id, 2), vec![]).1.is_empty());
    allow(&authorizer, &[]);
    crate::fixture::send(server.storage(), place, &["secret"]);
    assert_eq!(ask(&mut client, (id, 3), vec![]).1, [TOPIC]);
    server.stop();
}

#[test]
fn transactional_batches_need_the_right_to_their_id() {
    let (server, authorizer) = guarded();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    allow(&authorizer, &[of_topic(Operation::Write)]);
    let mut bytes = records().to_vec();
    bytes[22] |= 0x10;
    let request = produce_request("t", -1, bytes.into());
    let code = |client: &mut Client, request: &ProduceRequest| {
        client.call(9, request).responses[0].partition_responses[0].error_code
    };
    assert_eq!(code(&mut client, &request), TRANSACTION);
    let named = request.with_transactional_id(Some(transaction("x")));
    assert_eq!(code(&mut client, &named), TRANSACTION);
    allow(&authorizer, &[of_topic(Operation::Write), of_transaction(Operation::Write)]);
    // The batch itself is not one; that is found out only now.
    assert_eq!(code(&mut client, &named), 2);
}

#[test]
fn entries_are_made_found_and_removed_over_the_wire_and_survive() {
    let open = |fixture| {
        Server::with(fixture, |settings, _| {
            settings.authorization = Some(AuthorizationSettings { acls_max: 3, ..Default::default() });
            settings.super_users = vec![Principal::anonymous()];
        })
    };
    let server = open(Fixture::new());
    let mut client = server.client();
    let creation = |resource: &'static str, kind| {
        AclCreation::default()
            .with_resource_type(kind)
            .with_resource_name(resource.into())
            .with_resource_pattern_type(4)
            .with_principal("User:alice".into())
            .with_host("*".into())
            .with_operation(3)
            .with_permission_type(3)
    };
    let mut make = |creations: Vec<AclCreation>| {
        let made = client.call(3, &CreateAclsRequest::default().with_creations(creations));
        made.results.iter().map(|r| r.error_code).collect::<Vec<_>>()
    };
    assert_eq!(make(vec![creation("a", 2), creation("b", 4), creation("a", 3), creation("a", 2)]), [0, 42, 0, 0]);
    assert_eq!(make(vec![creation("a", 2), creation("x", 2), creation("y", 2)]), [44, 44, 44]);
    assert_eq!(make(vec![creation("x", 2), creation("x", 9)]), [0, 42]);
    let server = open(server.stop().reopen(true));
    let mut client = server.client();
    let find = |client: &mut Client, resource: Option<&'static str>, pattern| {
        let asked = DescribeAclsRequest::default()
            .with_resource_type_filter(2)
            .with_resource_name_filter(resource.map(Into::into))
            .with_pattern_type_filter(pattern)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(1)
            .with_permission_type(1);
        let found = client.call(2, &asked);
        assert_eq!(found.error_code, 0);
        found.resources.iter().map(|r| r.resource_name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(find(&mut client, None, 1), ["a", "x"]);
    assert_eq!(find(&mut client, Some("apple"), 2), ["a"]);
    assert_eq!(find(&mut client, Some("apple"), 4), Vec::<String>::new());
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(1)
        .with_resource_name_filter(Some("a".into()))
        .with_pattern_type_filter(4)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(3)
        .with_permission_type(1);
    let wrong = filter.clone().with_operation(0);
    let gone = client.call(3, &DeleteAclsRequest::default().with_filters(vec![wrong, filter])).filter_results;
    assert_eq!((gone[0].error_code, gone[1].error_code, gone[1].matching_acls.len()), (42, 0, 2));
    assert_eq!(find(&mut client, None, 1), ["x"]);
}

#[test]
fn without_an_authorizer_there_are_no_entries() {
    let server = Server::new();
    let mut client = server.client();
    assert_eq!(client.call(1, &DescribeAclsRequest::default()).error_code, 54);
    let created = CreateAclsRequest::default().with_creations(vec![AclCreation::default()]);
    assert_eq!(client.call(1, &created).results[0].error_code, 54);
    let deleted = DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default()]);
    assert_eq!(client.call(1, &deleted).filter_results[0].error_code, 54);
}

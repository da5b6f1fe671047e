//! What tools of administrators ask for beside topics and groups.

use std::time::Duration;

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use millpond_broker::batch::Codec;
use millpond_broker::storage::TransactionWrite;
use millpond_types::Clock;

use super::answers::name;
use super::client::{Client, Server};
use super::transactions::{ABORTABLE, begin, end, init, produce, produce_in};
use crate::fixture::{Fixture, batch, block_on, create, produce as append, read_all, spec, with_producer};

/// Names with the first partition and the count of each, and where the next page begins.
type Page = (Vec<(String, i16, i32, usize)>, Option<(String, i32)>);

fn page(client: &mut Client, topics: &[&str], limit: i32, from: Option<(String, i32)>) -> Page {
    let cursor = from.map(|(topic, index)| Cursor::default().with_topic_name(name(&topic)).with_partition_index(index));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.iter().map(|t| TopicRequest::default().with_name(name(t))).collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor);
    let response = client.call(0, &request);
    let topics = response.topics.iter().map(|t| {
        let first = t.partitions.first();
        assert!(first.is_none_or(|p| p.eligible_leader_replicas == Some(vec![]) && p.last_known_elr == Some(vec![])));
        let name = t.name.as_ref().unwrap().to_string();
        (name, t.error_code, first.map_or(-1, |p| p.partition_index), t.partitions.len())
    });
    (topics.collect(), response.next_cursor.map(|c| (c.topic_name.to_string(), c.partition_index)))
}

#[test]
fn topics_are_described_page_by_page() {
    let server = Server::new();
    for (topic, partitions) in [("a", 3), ("b", 1), ("c", 5)] {
        block_on(server.storage().create_topic(spec(topic, partitions, &[]))).unwrap();
    }
    let mut client = server.client();
    let row = |t: &str, first, count| (t.to_owned(), 0, first, count);
    assert_eq!(page(&mut client, &[], 2000, None), (vec![row("a", 0, 3), row("b", 0, 1), row("c", 0, 5)], None));
    let (first, next) = page(&mut client, &["c", "a", "b"], 2, None);
    assert_eq!((first, next.clone()), (vec![row("a", 0, 2)], Some(("a".into(), 2))));
    let (second, next) = page(&mut client, &["c", "a", "b"], 2, next);
    assert_eq!((second, next.clone()), (vec![row("a", 2, 1), row("b", 0, 1)], Some(("c".into(), 0))));
    let (third, next) = page(&mut client, &["c", "a", "b"], 100, next);
    assert_eq!((third, next), (vec![row("c", 0, 5)], None));
    // A limit that makes no sense still gets on; a topic that went meanwhile is passed over.
    assert_eq!(page(&mut client, &[], 0, Some(("b".into(), 0))).1, Some(("c".into(), 0)));
    assert_eq!(page(&mut client, &["a", "c"], 9, Some(("b".into(), 7))).0, [row("c", 0, 5)]);
    let missing = |t: &str, code| (t.to_owned(), code, -1, 0);
    assert_eq!(page(&mut client, &["no", "b/d"], 9, None).0, [missing("b/d", 17), missing("no", 3)]);
    assert_eq!(page(&mut client, &["a"], 9, Some(("a".into(), -1))).0, [missing("a", 42)]);
}

/// Kafka's own topics are nobody's to make or to write, whether they are there or not.
#[test]
fn internal_topics_are_neither_made_nor_written() {
    let server = Server::new();
    let mut client = server.client();
    for topic in ["__consumer_offsets", "__transaction_state"] {
        let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)));
        // That of groups' offsets is made for who asks: `offsets_topic`.
        let create = topic != "__consumer_offsets";
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(create);
        let found = client.call(12, &request).topics.remove(0);
        assert_eq!((found.error_code, found.is_internal), (3, true), "{topic}");
        for version in [9, 12] {
            let records = batch(&[("v", 1)], Codec::None);
            let answer = client.call(version, &super::answers::produce_request(topic, -1, records));
            let partition = &answer.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, 17, "{topic}, produce {version}");
            let message = partition.error_message.as_deref().unwrap();
            assert_eq!(message, format!("cannot append to internal topic \"{topic}\""));
        }
        for validate_only in [true, false] {
            let creatable = create_topics_request::CreatableTopic::default()
                .with_name(name(topic))
                .with_num_partitions(1)
                .with_replication_factor(1);
            let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_validate_only(validate_only);
            let answer = client.call(7, &request).topics.remove(0);
            assert_eq!(answer.error_code, 17, "{topic}");
            assert!(answer.error_message.unwrap().contains("is internal"));
        }
        let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
        let asked = delete_records_request::DeleteRecordsTopic::default().with_name(name(topic));
        let request = DeleteRecordsRequest::default().with_topics(vec![asked.with_partitions(vec![partition])]);
        assert_eq!(client.call(2, &request).topics[0].partitions[0].error_code, 17, "{topic}");
        let request =
            DescribeTopicPartitionsRequest::default().with_topics(vec![TopicRequest::default().with_name(name(topic))]);
        let described = client.call(0, &request.with_response_partition_limit(9)).topics.remove(0);
        assert_eq!((described.error_code, described.is_internal), (3, true), "{topic}");
        let producer = init(&mut client, 4, 60_000).unwrap();
        assert_eq!(begin(&mut client, 3, producer, &[topic]), [29], "{topic}");
        assert!(server.storage().find_topic(topic).is_none());
    }
    create(server.storage(), "_consumer_offsets", &[]);
}

#[test]
fn a_partition_is_where_it_is() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let mut ask = |topic: &str, index, replicas: Option<&[i32]>| {
        let replicas = replicas.map(|all| all.iter().map(|id| BrokerId(*id)).collect());
        let partition = ReassignablePartition::default().with_partition_index(index).with_replicas(replicas);
        let topic = ReassignableTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let response = client.call(1, &request);
        (response.error_code, response.responses[0].partitions[0].error_code)
    };
    assert_eq!(ask("t", 0, Some(&[1])), (0, 0));
    assert_eq!(ask("t", 0, None), (0, 85));
    for elsewhere in [&[2][..], &[1, 2], &[]] {
        assert_eq!(ask("t", 0, Some(elsewhere)), (0, 39));
    }
    assert_eq!(ask("t", 1, Some(&[1])), (0, 3));
    assert_eq!(ask("u", 0, Some(&[1])), (0, 3));
}

#[test]
fn a_partition_lies_in_the_one_directory() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let ours =
        client.call(4, &DescribeLogDirsRequest::default().with_topics(None)).results.remove(0).log_dir.to_string();
    for version in [1, 2] {
        type Partitions<'a> = (&'a str, &'a [i32]);
        let mut ask = |asked: &[(&str, &[Partitions])]| {
            let topic = |(topic, indexes): &Partitions| {
                alter_replica_log_dirs_request::AlterReplicaLogDirTopic::default()
                    .with_name(name(topic))
                    .with_partitions(indexes.to_vec())
            };
            let directory = |(path, topics): &(&str, &[Partitions])| {
                alter_replica_log_dirs_request::AlterReplicaLogDir::default()
                    .with_path(StrBytes::from_string((*path).to_owned()))
                    .with_topics(topics.iter().map(topic).collect())
            };
            let request = AlterReplicaLogDirsRequest::default().with_dirs(asked.iter().map(directory).collect());
            let topics = client.call(version, &request).results.into_iter().map(|topic| {
                let codes: Vec<_> = topic.partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
                (topic.topic_name.to_string(), codes)
            });
            topics.collect::<Vec<_>>()
        };
        let of_t = |codes: &[(i32, i16)]| vec![("t".to_owned(), codes.to_vec())];
        assert_eq!(ask(&[(&ours, &[("t", &[0, 7, -1])])]), of_t(&[(0, 0), (7, 3), (-1, 3)]));
        assert_eq!(ask(&[(&ours, &[("u", &[0])])]), [("u".to_owned(), vec![(0, 3)])]);
        for elsewhere in ["/nowhere", "any", "", &format!("{ours}/")] {
            assert_eq!(ask(&[(elsewhere, &[("t", &[0, 7])])]), of_t(&[(0, 57), (7, 57)]), "{elsewhere:?}");
        }
        // Each partition once, by the last directory that it is named with.
        assert_eq!(ask(&[(&ours, &[("t", &[0, 0])]), ("/nowhere", &[("t", &[0])])]), of_t(&[(0, 57)]));
        assert_eq!(ask(&[("/nowhere", &[("t", &[0])]), (&ours, &[("t", &[0])])]), of_t(&[(0, 0)]));
        assert_eq!((ask(&[(&ours, &[("t", &[])])]), ask(&[])), (vec![], vec![]));
    }
}

#[test]
fn resources_and_the_quorum_are_listed() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let mut list = |kinds: &[i8]| {
        let response = client.call(1, &ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec()));
        let all = response.config_resources.iter().map(|r| (r.resource_type, r.resource_name.to_string()));
        (response.error_code, all.collect::<Vec<_>>())
    };
    assert_eq!(list(&[]), (0, vec![(2, "t".into()), (4, "1".into())]));
    assert_eq!(list(&[4, 16]), (0, vec![(4, "1".into())]));
    assert_eq!(list(&[77]).0, 35);
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(name("__cluster_metadata"))
        .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    let response = client.call(2, &DescribeQuorumRequest::default().with_topics(vec![topic]));
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id.0, partition.current_voters[0].replica_id.0), (0, 1, 1));
    assert_eq!(response.nodes[0].listeners[0].port, server.address.port());
}

#[test]
fn a_transaction_that_hangs_is_aborted_where_it_hangs() {
    let server = Server::new();
    let (t, _u) = (create(server.storage(), "t", &[]), create(server.storage(), "u", &[]));
    let mut client = server.client();
    let producer = init(&mut client, 4, 60_000).unwrap();
    begin(&mut client, 3, producer, &["t", "u"]);
    assert_eq!((produce(&mut client, "t", producer, 0, "a"), produce(&mut client, "u", producer, 0, "b")), (0, 0));
    let now = server.storage().leader_epoch();
    let coordinator = |client: &mut Client| {
        let topic =
            describe_producers_request::TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0]);
        let mut response = client.call(0, &DescribeProducersRequest::default().with_topics(vec![topic]));
        response.topics.remove(0).partitions.remove(0).active_producers.remove(0).coordinator_epoch
    };
    assert_eq!(coordinator(&mut client), -1, "none has written a marker yet");
    assert_eq!(end(&mut client, 3, producer, true), 0);
    assert_eq!(coordinator(&mut client), now);
    begin(&mut client, 3, producer, &["t", "u"]);
    assert_eq!((produce(&mut client, "t", producer, 1, "a"), produce(&mut client, "u", producer, 1, "b")), (0, 0));
    assert_eq!(coordinator(&mut client), now);
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    assert_eq!(coordinator(&mut client), now, "that of the last marker, which a start changes nothing about");
    assert!(server.storage().leader_epoch() > now);
    let mut abort = |id: i64, epoch: i16, coordinator_epoch: i32, commit: bool, index: i32| {
        let topic = WritableTxnMarkerTopic::default().with_name(name("t")).with_partition_indexes(vec![index]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_coordinator_epoch(coordinator_epoch)
            .with_transaction_result(commit)
            .with_topics(vec![topic]);
        let response = client.call(1, &WriteTxnMarkersRequest::default().with_markers(vec![marker]));
        response.markers[0].topics[0].partitions[0].error_code
    };
    assert_eq!(abort(producer.0, producer.1, now, true, 0), 42, "commits are whole");
    assert_eq!(
        (abort(producer.0, producer.1, now - 1, false, 0), abort(producer.0, producer.1, -1, false, 0)),
        (52, 52)
    );
    assert_eq!(abort(producer.0, producer.1 - 1, now, false, 0), 47);
    assert_eq!(abort(producer.0, producer.1, now, false, 3), 3);
    assert_eq!(abort(producer.0 + 5, 0, now, false, 0), 0, "nothing is open there");
    assert_eq!(server.storage().partition_offsets(t).unwrap().stable_end, 2);
    assert_eq!(abort(producer.0, producer.1, now, false, 0), 0, "with the epoch that the tool is told");
    let offsets = server.storage().partition_offsets(t).unwrap();
    assert_eq!((offsets.stable_end, offsets.end, read_all(server.storage(), t, 0).len()), (4, 4, 1));
    // Who has no marker there yet is known of no coordinator.
    let begun =
        TransactionWrite { producer_id: 4242, producer_epoch: 3, added: vec![t], ..TransactionWrite::default() };
    block_on(server.storage().transaction_write(begun)).unwrap();
    assert_eq!((abort(4242, 3, -2, false, 0), abort(4242, 3, -1, false, 0)), (52, 0));
    assert_eq!(server.storage().partition_offsets(t).unwrap().end, 5);
    assert_eq!(produce_in(&mut client, 11, "t", producer, 2, "late"), ABORTABLE);
}

#[test]
fn transactional_ids_are_found_by_a_pattern() {
    let server = Server::new();
    let mut client = server.client();
    init(&mut client, 4, 60_000).unwrap();
    let mut ask = |pattern: &str| {
        let request = ListTransactionsRequest::default().with_duration_filter(-1);
        let response = client.call(2, &request.with_transactional_id_pattern(Some(pattern.to_owned().into())));
        (response.error_code, response.transaction_states.len())
    };
    assert_eq!((ask("x"), ask("[w-z]"), ask(""), ask(".*")), ((0, 1), (0, 1), (0, 1), (0, 1)));
    assert_eq!((ask("xx"), ask("y|"), ask("x)|(?:y")), ((0, 0), (0, 0), (128, 0)));
    assert_eq!((ask("("), ask("(?:a{1000}){1000}")), ((128, 0), (128, 0)));
}

type Described = (String, i8, Vec<(String, i8)>);

fn described(client: &mut Client, kind: i8, resource: &str, key: &str) -> Option<Described> {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(resource.to_owned().into())
        .with_configuration_keys(Some(vec![key.to_owned().into()]));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let result = client.call(4, &request).results.remove(0);
    assert_eq!(result.error_code, 0);
    let entry = result.configs.first()?;
    assert!(entry.documentation.as_ref().is_some_and(|text| !text.is_empty()));
    let synonyms = entry.synonyms.iter().map(|s| (s.value.as_ref().unwrap().to_string(), s.source)).collect();
    Some((entry.value.as_ref().map_or_else(|| "null".into(), ToString::to_string), entry.config_source, synonyms))
}

fn change(client: &mut Client, resource: (i8, &str), operation: i8, key: &str, value: Option<&str>) -> i16 {
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(key.to_owned().into())
        .with_config_operation(operation)
        .with_value(value.map(|v| v.to_owned().into()));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(resource.0)
        .with_resource_name(resource.1.to_owned().into())
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).responses[0].error_code
}

#[test]
fn the_brokers_settings_change_while_it_runs_and_stay() {
    let server = Server::with(Fixture::with(|o| o.retention_grace = Duration::from_secs(90)), |_, _| {});
    create(server.storage(), "t", &[]);
    create(server.storage(), "own", &[("retention.ms", "9")]);
    let mut client = server.client();
    let (node, cluster) = ((4, "1"), (4, ""));
    let started = || ("604800000".to_owned(), 5);
    // Where milliseconds are set, the hours that they come before are told too.
    let hours = || ("168".to_owned(), 5);
    let retention = |client: &mut Client, kind, name| {
        described(client, kind, name, if kind == 2 { "retention.ms" } else { "log.retention.ms" }).unwrap()
    };
    assert_eq!(retention(&mut client, 2, "t"), (started().0, 5, vec![]));
    assert_eq!(change(&mut client, cluster, 0, "log.retention.ms", Some("5000")), 0);
    assert_eq!(retention(&mut client, 2, "t"), ("5000".into(), 3, vec![("5000".into(), 3), hours()]));
    assert_eq!(change(&mut client, node, 0, "log.retention.ms", Some("7000")), 0);
    let all = vec![("7000".to_owned(), 2), ("5000".to_owned(), 3), hours()];
    assert_eq!(retention(&mut client, 4, "1"), ("7000".into(), 2, all.clone()));
    assert_eq!(retention(&mut client, 2, "t"), ("7000".into(), 2, all));
    let own = retention(&mut client, 2, "own");
    assert_eq!((own.0.as_str(), own.1, own.2.len()), ("9", 1, 4));
    assert_eq!(described(&mut client, 4, "", "log.retention.ms").unwrap().0, "5000");
    let settings = |server: &Server, topic: &str| server.storage().find_topic(topic).unwrap().settings.clone();
    assert_eq!((settings(&server, "t").retention_ms, settings(&server, "own").retention_ms), (Some(7000), Some(9)));
    // Lists are added to; how many partitions a topic gets follows; a batch that is too large is refused at once.
    assert_eq!(change(&mut client, node, 2, "log.cleanup.policy", Some("compact")), 0);
    assert!(settings(&server, "t").compacted && settings(&server, "t").deleted);
    assert_eq!(change(&mut client, node, 3, "log.cleanup.policy", Some("compact")), 0);
    assert_eq!(change(&mut client, node, 0, "num.partitions", Some("3")), 0);
    assert_eq!(change(&mut client, node, 0, "message.max.bytes", Some("100")), 0);
    let large = super::answers::produce_request("t", -1, crate::fixture::batch(&[(&"x".repeat(200), 1)], Codec::None));
    assert_eq!(client.call(9, &large).responses[0].partition_responses[0].error_code, 10);
    // What slows copies of replicas down is there while it is set: tools do that around their work.
    let throttle = "leader.replication.throttled.rate";
    assert_eq!(described(&mut client, 4, "1", throttle), None);
    assert_eq!(change(&mut client, node, 0, throttle, Some("1000")), 0);
    assert_eq!(described(&mut client, 4, "1", throttle), Some(("1000".into(), 2, vec![("1000".into(), 2)])));
    assert_eq!(
        (change(&mut client, node, 0, throttle, Some("-1")), change(&mut client, node, 1, throttle, None)),
        (42, 0)
    );
    assert_eq!(described(&mut client, 4, "1", throttle), None);
    // What cannot be changed, or cannot be, is refused, and nothing of it happens.
    let interval = "log.retention.check.interval.ms";
    assert_eq!(described(&mut client, 4, "1", interval), Some(("90000".into(), 5, vec![("90000".into(), 5)])));
    for (key, value) in [
        ("broker.id", "7"),
        ("auto.create.topics.enable", "true"),
        ("nonsense", "1"),
        ("log.retention.ms", "-5"),
        (interval, "5"),
    ] {
        assert_eq!(change(&mut client, node, 0, key, Some(value)), 42, "{key}");
    }
    assert_eq!(change(&mut client, (4, "9"), 0, "log.retention.ms", Some("1")), 42);
    assert_eq!(change(&mut client, node, 2, "log.retention.ms", Some("1")), 42, "not a list");
    assert_eq!(change(&mut client, (8, "1"), 0, "kafka", Some("DEBUG")), 42);

    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    assert_eq!(retention(&mut client, 4, "1").0, "7000");
    assert_eq!(block_on(server.storage().create_topic(spec("new", -1, &[]))).unwrap().partition_count(), 3);
    assert_eq!(settings(&server, "new").batch_bytes_max, 100);
    assert_eq!(change(&mut client, node, 1, "log.retention.ms", None), 0);
    assert_eq!(settings(&server, "t").retention_ms, Some(5000));
    // The older request replaces all.
    let resource = alter_configs_request::AlterConfigsResource::default().with_resource_type(4);
    let resources = vec![resource.clone().with_resource_name("1".into()), resource.with_resource_name("".into())];
    let response = client.call(2, &AlterConfigsRequest::default().with_resources(resources));
    assert!(response.responses.iter().all(|r| r.error_code == 0));
    assert_eq!(retention(&mut client, 2, "t"), (started().0, 5, vec![]));
    assert_eq!(described(&mut client, 4, "", "log.retention.ms"), None);
}

#[test]
fn only_what_was_given_is_told_as_such() {
    const GIVEN: [&str; 3] = ["transaction.max.timeout.ms", "advertised.listeners", "num.partitions"];
    let fixture = Fixture::with(|o| o.partitions_default = 2);
    let server = Server::with(fixture, |settings, _| {
        settings.transactions.timeout_max_ms = 3_600_000;
        settings.named.extend(GIVEN);
    });
    let mut client = server.client();
    let mut told = |key: &str| described(&mut client, 4, "1", key).unwrap();
    let pairs = |pairs: &[(&str, i8)]| pairs.iter().map(|(value, source)| ((*value).to_owned(), *source)).collect();
    assert_eq!(told(GIVEN[0]), ("3600000".into(), 4, pairs(&[("3600000", 4), ("900000", 5)])));
    assert_eq!(told("num.partitions"), ("2".into(), 4, pairs(&[("2", 4), ("1", 5)])));
    assert_eq!(told("group.max.session.timeout.ms"), ("1800000".into(), 5, pairs(&[("1800000", 5)])));
    assert_eq!(told("listeners").1, 5);
    let resource = describe_configs_request::DescribeConfigsResource::default();
    let resource = resource.with_resource_type(4).with_resource_name("1".into()).with_configuration_keys(None);
    let all = client.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource])).results.remove(0);
    let given = all.configs.iter().filter(|c| c.config_source == 4).map(|c| c.name.as_str()).collect::<Vec<_>>();
    assert_eq!(given, [GIVEN[1], GIVEN[2], GIVEN[0]]);
    // The limit that is told is the one that holds.
    assert!(init(&mut client, 4, 3_600_000).is_ok());
    assert_eq!(init(&mut client, 4, 3_600_001), Err(50));

    let server = Server::new();
    let mut client = server.client();
    assert_eq!(described(&mut client, 4, "1", GIVEN[1]), Some(("null".into(), 5, vec![])));
    assert_eq!(described(&mut client, 4, "1", "num.partitions"), Some(("1".into(), 5, pairs(&[("1", 5)]))));
}

#[test]
fn idle_producers_are_forgotten_when_that_is_changed() {
    const KEY: &str = "producer.id.expiration.ms";
    let fixture = Fixture::with(|o| {
        o.producer_expiration = Duration::from_secs(50);
        o.retention_interval = Duration::from_secs(3600);
    });
    let clock = fixture.clock.clone();
    let server = Server::with(fixture, |settings, _| settings.named.extend([KEY]));
    let place = create(server.storage(), "t", &[]);
    let sent = |sequence| with_producer(&batch(&[("v", 1)], Codec::None), 7, 0, sequence);
    append(server.storage(), place, &sent(0)).unwrap();
    let mut client = server.client();
    let remembered_after = |ms: i64| {
        clock.set(clock.now_ms() + ms);
        server.storage().retain().unwrap();
        server.storage().active_producers(place).unwrap().len()
    };
    assert_eq!(remembered_after(50_000), 1);
    assert_eq!(change(&mut client, (4, ""), 0, KEY, Some("0")), 42);
    assert_eq!(change(&mut client, (4, ""), 0, KEY, Some("90000")), 0);
    let started = [("50000".to_owned(), 4), ("86400000".to_owned(), 5)];
    let all = [&[("90000".to_owned(), 3)][..], &started].concat();
    assert_eq!(described(&mut client, 4, "1", KEY), Some(("90000".into(), 3, all)));
    assert_eq!(remembered_after(40_000), 1);
    assert_eq!(change(&mut client, (4, ""), 1, KEY, None), 0);
    assert_eq!(described(&mut client, 4, "1", KEY), Some(("50000".into(), 4, started.to_vec())));
    // Who is known goes on where it was; who is forgotten may begin anywhere, also after a restart.
    assert!(append(server.storage(), place, &sent(9)).is_err());
    assert_eq!(remembered_after(0), 0);
    let server = Server::with(server.stop().reopen(false), |_, _| {});
    assert_eq!(server.storage().active_producers(place).unwrap(), []);
    append(server.storage(), place, &sent(9)).unwrap();
}

#[test]
fn settings_are_kept_without_blanks() {
    let server = Server::new();
    let mut client = server.client();
    let create = |client: &mut Client, validate_only| {
        let config = |name: &str, value: &str| {
            let config = create_topics_request::CreatableTopicConfig::default().with_name(name.to_owned().into());
            config.with_value(Some(value.to_owned().into()))
        };
        let configs = vec![config("retention.ms", " 7 "), config("compression.type", "gzip ")];
        let topic = create_topics_request::CreatableTopic::default().with_name(name("t")).with_num_partitions(1);
        let topic = topic.with_replication_factor(1).with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_validate_only(validate_only);
        let result = client.call(7, &request).topics.remove(0);
        assert_eq!(result.error_code, 0);
        let configs = result.configs.unwrap();
        configs.into_iter().find(|c| &*c.name == "retention.ms").unwrap().value.unwrap().to_string()
    };
    assert_eq!(
        (create(&mut client, true), create(&mut client, false)),
        (" 7 ".into(), " 7 ".into()),
        "as it was asked"
    );
    let value = |client: &mut Client, kind, name: &str, key: &str| described(client, kind, name, key).unwrap().0;
    assert_eq!(value(&mut client, 2, "t", "retention.ms"), "7");
    assert_eq!(value(&mut client, 2, "t", "compression.type"), "gzip");
    assert_eq!(change(&mut client, (2, "t"), 0, "cleanup.policy", Some(" compact , delete ")), 0);
    assert_eq!(value(&mut client, 2, "t", "cleanup.policy"), "compact,delete");
    assert_eq!(change(&mut client, (4, "1"), 0, "log.retention.ms", Some("\t5000 ")), 0);
    assert_eq!(value(&mut client, 4, "1", "log.retention.ms"), "5000");
    let config = alter_configs_request::AlterableConfig::default().with_name("retention.ms".into());
    let resource = alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
    let resource = resource.with_resource_name("t".into()).with_configs(vec![config.with_value(Some(" 9".into()))]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(2, &request).responses[0].error_code, 0);
    assert_eq!(value(&mut client, 2, "t", "retention.ms"), "9");
}

#[test]
fn more_replicas_than_brokers_are_refused_unless_they_are_allowed() {
    let server = Server::new();
    let ask = |server: &Server| {
        let topic = create_topics_request::CreatableTopic::default().with_name(name("t")).with_num_partitions(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic.with_replication_factor(3)]);
        server.client().call(7, &request).topics[0].error_code
    };
    assert_eq!(ask(&server), 38);
    let server = Server::with(crate::fixture::Fixture::with(|o| o.any_replication_factor = true), |_, _| {});
    assert_eq!(ask(&server), 0);
}

#[test]
fn what_a_topics_settings_forbid_is_refused() {
    let server = Server::new();
    create(server.storage(), "two", &[("min.insync.replicas", "2")]);
    let compacted = create(server.storage(), "compacted", &[("cleanup.policy", "compact")]);
    crate::fixture::send(server.storage(), compacted, &["a"]);
    let mut client = server.client();
    let one = || crate::fixture::batch(&[("x", 1)], Codec::None);
    let mut produce = |acks| {
        let response = client.call(9, &super::answers::produce_request("two", acks, one()));
        response.responses[0].partition_responses[0].error_code
    };
    assert_eq!((produce(-1), produce(1)), (0, 0), "all replicas that there are have it");
    let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(1);
    let topic = delete_records_request::DeleteRecordsTopic::default().with_name(name("compacted"));
    let request = DeleteRecordsRequest::default().with_topics(vec![topic.with_partitions(vec![partition])]);
    assert_eq!(client.call(2, &request).topics[0].partitions[0].error_code, 44);
}

#[test]
fn groups_have_settings_of_their_own_that_stay() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let interval = "consumer.heartbeat.interval.ms";
    let told = |server: &Server, member: &str| {
        let join = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId("g".into()))
            .with_member_id(StrBytes::from_string(member.into()))
            .with_rebalance_timeout_ms(1000)
            .with_subscribed_topic_names(Some(vec![name("t")]))
            .with_topic_partitions(Some(vec![]));
        let answer = server.client().call(1, &join);
        (answer.error_code, answer.heartbeat_interval_ms)
    };
    let mut client = server.client();
    let group = (32, "g");
    assert_eq!(described(&mut client, 32, "g", interval).unwrap(), ("5000".into(), 5, vec![("5000".into(), 5)]));
    assert_eq!(told(&server, "a"), (0, 5000));
    assert_eq!(change(&mut client, group, 0, interval, Some("6000")), 0);
    assert_eq!(told(&server, "b"), (0, 6000));
    for (key, value) in [(interval, "1"), (interval, "x"), ("share.session.timeout.ms", "45000"), ("retention.ms", "1")]
    {
        assert_eq!(change(&mut client, group, 0, key, Some(value)), 40, "{key}={value}");
    }
    assert_eq!(change(&mut client, (32, ""), 0, interval, Some("6000")), 42);
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    assert_eq!(described(&mut client, 32, "g", interval).unwrap(), ("6000".into(), 8, vec![("6000".into(), 8)]));
    let list = ListConfigResourcesRequest::default().with_resource_types(vec![32]);
    let listed = client.call(1, &list).config_resources;
    assert_eq!(listed.iter().map(|r| r.resource_name.to_string()).collect::<Vec<_>>(), ["g"]);
    assert_eq!(told(&server, "c"), (0, 6000));
    assert_eq!(change(&mut client, group, 1, interval, None), 0);
    assert_eq!((told(&server, "d"), client.call(1, &list).config_resources.len()), ((0, 5000), 0));
}

#[test]
fn features_go_down_and_up_and_stay() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let update = |server: &Server, name: &str, level: i16, kind: i8, validate: bool| {
        let update = update_features_request::FeatureUpdateKey::default()
            .with_feature(StrBytes::from_string(name.into()))
            .with_max_version_level(level)
            .with_upgrade_type(kind);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]).with_validate_only(validate);
        server.client().call(2, &request).error_code
    };
    let told = |server: &Server| {
        let ask = ApiVersionsRequest::default()
            .with_client_software_name("x".into())
            .with_client_software_version("1".into());
        let answer = server.client().call(4, &ask);
        let level = |f: &api_versions_response::FinalizedFeatureKey| (f.name.to_string(), f.max_version_level);
        let levels: std::collections::BTreeMap<_, _> = answer.finalized_features.iter().map(level).collect();
        let supported: Vec<_> = answer.supported_features.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(supported, ["group.version", "metadata.version", "transaction.version"]);
        assert!(levels.keys().all(|name| supported.contains(&name.as_str())), "{levels:?}");
        (
            levels.get("group.version").copied(),
            levels.get("transaction.version").copied(),
            answer.finalized_features_epoch,
        )
    };
    let joins = |server: &Server| {
        let join = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId("g".into()))
            .with_member_id("m".into())
            .with_rebalance_timeout_ms(1000)
            .with_subscribed_topic_names(Some(vec![name("t")]))
            .with_topic_partitions(Some(vec![]));
        server.client().call(1, &join).error_code
    };
    let (up, safe) = (1, 2);
    let (group, transaction, epoch) = told(&server);
    assert_eq!((group, transaction, joins(&server)), (Some(1), Some(2), 0));
    for (name, level, kind) in [
        ("no.such", 1, up),
        ("group.version", 9, up),
        ("group.version", 0, up),
        ("group.version", 0, 0),
        ("kraft.version", 2, up),
    ] {
        assert_eq!(update(&server, name, level, kind, false), 95, "{name} {level} {kind}");
    }
    // What a release brings and is not here is taken.
    for name in ["kraft.version", "eligible.leader.replicas.version"] {
        assert_eq!((update(&server, name, 1, up, false), told(&server)), (0, (group, transaction, epoch)), "{name}");
    }
    assert_eq!(update(&server, "group.version", 0, safe, true), 0);
    assert_eq!(told(&server), (group, transaction, epoch), "it was only looked at");
    assert_eq!(update(&server, "group.version", 0, safe, false), 0);
    let (lowered, _, later) = told(&server);
    assert_eq!((lowered, later > epoch, joins(&server)), (None, true, 35));
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let (lowered, _, latest) = told(&server);
    assert_eq!((lowered, latest > later), (None, true));
    assert_eq!(update(&server, "group.version", 1, up, false), 0);
    assert_eq!((told(&server).0, joins(&server)), (Some(1), 0));
}

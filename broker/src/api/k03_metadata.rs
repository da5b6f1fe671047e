//! Metadata (3), versions 0 to 13.
//!
//! One broker, which leads everything, at the address that the request came in on unless another is set. Topics named
//! that do not exist are created where both the request and the settings allow it. Topics can be named by id (v10 on).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use millpond_types::TopicId;
use millpond_types::ports::TopicSpec;
use uuid::Uuid;

use super::topics::{CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS, advertised};
use super::{Refusal, Request, Shared};
use crate::storage::{StorageError, Topic};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: MetadataRequest = request.decode()?;
    let operations = if asked.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NOT_ASKED };
    let mut topics = Vec::new();
    match &asked.topics {
        Some(named) if !(named.is_empty() && request.head.version == 0) => {
            for topic in named {
                topics.push(match &topic.name {
                    Some(name) => by_name(shared, name, asked.allow_auto_topic_creation, operations).await,
                    None => by_id(shared, topic.topic_id, operations, request.head.version),
                });
            }
        }
        _ => topics.extend(shared.storage.all_topics().iter().map(|topic| describe(shared, topic, operations))),
    }
    let node = BrokerId(shared.storage.node_id());
    let (host, port) = advertised(&request.caller);
    let broker = MetadataResponseBroker::default().with_node_id(node).with_host(text(&host)).with_port(port);
    let cluster = match request.head.version {
        8..=10 if asked.include_cluster_authorized_operations => CLUSTER_OPERATIONS,
        _ => NOT_ASKED,
    };
    let response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(shared.storage.cluster_id())))
        .with_controller_id(node)
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster);
    request.respond(&response)
}

async fn by_name(shared: &Shared, name: &str, create: bool, operations: i32) -> MetadataResponseTopic {
    if let Some(topic) = shared.storage.find_topic(name) {
        return describe(shared, &topic, operations);
    }
    let spec = TopicSpec { name: name.to_owned(), partitions: -1, replicas: -1, configs: BTreeMap::new() };
    let refusal = if create && shared.settings.auto_create_topics {
        match shared.storage.create_topic(spec).await {
            Ok(topic) => return describe(shared, &topic, operations),
            Err(StorageError::TopicExists(_)) => match shared.storage.find_topic(name) {
                Some(topic) => return describe(shared, &topic, operations),
                None => Refusal::new(ResponseError::LeaderNotAvailable, "the topic is being created"),
            },
            Err(error) => error.into(),
        }
    } else {
        match shared.storage.check_topic(&spec) {
            Err(error @ StorageError::InvalidTopic(_)) => error.into(),
            _ => Refusal::new(ResponseError::UnknownTopicOrPartition, "there is no such topic"),
        }
    };
    MetadataResponseTopic::default()
        .with_error_code(refusal.code())
        .with_name(Some(text(name)))
        .with_topic_authorized_operations(operations)
}

fn by_id(shared: &Shared, id: Uuid, operations: i32, version: i16) -> MetadataResponseTopic {
    match shared.storage.find_topic_by_id(TopicId(*id.as_bytes())) {
        Some(topic) => describe(shared, &topic, operations),
        None => MetadataResponseTopic::default()
            .with_error_code(ResponseError::UnknownTopicId.code())
            .with_name((version < 12).then(|| text("")))
            .with_topic_id(id)
            .with_topic_authorized_operations(operations),
    }
}

fn describe(shared: &Shared, topic: &Topic, operations: i32) -> MetadataResponseTopic {
    let node = BrokerId(shared.storage.node_id());
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(node)
            .with_leader_epoch(shared.storage.leader_epoch())
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    MetadataResponseTopic::default()
        .with_name(Some(text(&topic.name)))
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_partitions((0..topic.partition_count()).map(partition).collect())
        .with_topic_authorized_operations(operations)
}

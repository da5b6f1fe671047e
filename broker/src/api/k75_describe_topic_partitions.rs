//! DescribeTopicPartitions (75), version 0: topics by name, a page of partitions at a time.
//!
//! Topics come in the order of their names; without any named, all of them. A page ends at the partition that the limit
//! falls on, and its cursor says where the next one begins. Topics are never created, but for `__consumer_offsets` where
//! there are groups.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use millpond_types::ports::is_internal;
use uuid::Uuid;

use super::access::NOT_ASKED;
use super::topics::missing_topic;
use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::storage::{StorageError, Topic};
use crate::wire::{Error, Reply, text};

/// Partitions of one page, whatever is asked.
const PARTITIONS_MAX: usize = 2000;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeTopicPartitionsRequest = request.decode()?;
    let may = |name: &str| shared.check_topic(&request.caller, Operation::Describe, name);
    let (from, mut first) = match &asked.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    let names: BTreeSet<String> = if asked.topics.is_empty() {
        let all = shared.storage.all_topics().into_iter().filter(|topic| may(&topic.name).is_ok());
        all.map(|topic| topic.name.clone()).collect()
    } else {
        asked.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    let mut left = usize::try_from(asked.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default().with_next_cursor(None);
    for name in names.range(from.to_owned()..) {
        if name != from {
            first = 0;
        }
        let cursor = |index| Cursor::default().with_topic_name(text(name)).with_partition_index(index);
        if left == 0 {
            response.next_cursor = Some(cursor(0));
            break;
        }
        let found = match (may(name), shared.storage.find_topic(name)) {
            (Err(refusal), _) => Err(refusal.error),
            _ if first < 0 => Err(ResponseError::InvalidRequest),
            (_, Some(topic)) => Ok(topic),
            (_, None) => match missing_topic(shared, name).await {
                Some(made) => made.map_err(|refusal| refusal.error),
                None => Err(why_missing(shared, name)),
            },
        };
        let topic = match found {
            Ok(topic) => topic,
            Err(error) => {
                let missing = DescribeTopicPartitionsResponseTopic::default().with_name(Some(text(name)));
                let operations = match may(name) {
                    Ok(()) if error != ResponseError::InvalidRequest => shared.topic_operations(&request.caller, name),
                    _ => NOT_ASKED,
                };
                let missing = missing
                    .with_error_code(error.code())
                    .with_is_internal(is_internal(name))
                    .with_topic_authorized_operations(operations);
                response.topics.push(missing);
                continue;
            }
        };
        let count = topic.partition_count();
        let end = count.min(first.saturating_add(left as i32));
        response.topics.push(describe(shared, request, &topic, first..end));
        left = left.saturating_sub(usize::try_from(end.saturating_sub(first)).unwrap_or(0));
        if end < count {
            response.next_cursor = Some(cursor(end));
            break;
        }
    }
    request.respond(&response)
}

fn why_missing(shared: &Shared, name: &str) -> ResponseError {
    if is_internal(name) {
        return ResponseError::UnknownTopicOrPartition;
    }
    let spec = millpond_types::ports::TopicSpec {
        name: name.to_owned(),
        partitions: 1,
        replicas: 1,
        configs: Default::default(),
    };
    match shared.storage.check_topic(&spec) {
        Err(StorageError::InvalidTopic(_)) => ResponseError::InvalidTopicException,
        _ => ResponseError::UnknownTopicOrPartition,
    }
}

fn describe(
    shared: &Shared,
    request: &Request,
    topic: &Topic,
    indexes: std::ops::Range<i32>,
) -> DescribeTopicPartitionsResponseTopic {
    let node = BrokerId(shared.storage.node_id());
    let partition = |index| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(node)
            .with_leader_epoch(shared.storage.leader_epoch())
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
            // Empty, never null: the administration client of Java counts on it.
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(text(&topic.name)))
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(indexes.map(partition).collect())
        .with_topic_authorized_operations(shared.topic_operations(&request.caller, &topic.name))
}

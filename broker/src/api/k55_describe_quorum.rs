//! DescribeQuorum (55), versions 0 to 2: a quorum of one, which leads itself and is never behind.
//!
//! The log of metadata is that of all commits, whose sequence stands for its offsets.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, describe_quorum_request};

use super::topics::advertised;
use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

const METADATA: &str = "__cluster_metadata";

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeQuorumRequest = request.decode()?;
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Describe) {
        return request.respond(&DescribeQuorumResponse::default().with_error_code(refusal.code()));
    }
    let node = BrokerId(shared.storage.node_id());
    let end = i64::try_from(*shared.storage.sequences().borrow()).unwrap_or(i64::MAX);
    let now = shared.groups.time();
    let asks = |topic: &describe_quorum_request::TopicData| {
        topic.topic_name.as_str() == METADATA && topic.partitions.iter().all(|p| p.partition_index == 0)
    };
    let all_known = asked.topics.iter().all(asks);
    let topics = asked.topics.into_iter().map(|topic| {
        let known = topic.topic_name.as_str() == METADATA;
        let partitions = topic.partitions.iter().map(|p| {
            let response = PartitionData::default().with_partition_index(p.partition_index).with_error_message(None);
            if !known || p.partition_index != 0 {
                let message = "the only quorum is that of partition 0 of \"__cluster_metadata\"";
                return response
                    .with_error_code(ResponseError::UnknownTopicOrPartition.code())
                    .with_error_message(Some(text(message)));
            }
            let state = ReplicaState::default().with_replica_id(node).with_log_end_offset(end);
            let state = match request.head.version {
                0 => state,
                _ => state.with_last_fetch_timestamp(now).with_last_caught_up_timestamp(now),
            };
            response
                .with_leader_id(node)
                .with_leader_epoch(shared.storage.leader_epoch())
                .with_high_watermark(end)
                .with_current_voters(vec![state])
        });
        let partitions = partitions.collect();
        TopicData::default().with_topic_name(topic.topic_name).with_partitions(partitions)
    });
    let response = DescribeQuorumResponse::default().with_topics(topics.collect()).with_error_message(None);
    if request.head.version < 2 || !all_known {
        return request.respond(&response);
    }
    let (host, port) = advertised(&request.caller);
    let listener = Listener::default()
        .with_name(text(&request.caller.listener.name))
        .with_host(text(&host))
        .with_port(u16::try_from(port).unwrap_or_default());
    request.respond(&response.with_nodes(vec![Node::default().with_node_id(node).with_listeners(vec![listener])]))
}

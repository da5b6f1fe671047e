//! ConsumerGroupHeartbeat (68), versions 0 and 1: a member of the consumer protocol joins, stays, says what it has, is told
//! what to have, and leaves. Answered once what it says is durable.
//!
//! Version 0 may leave the member id to the server and knows no regular expressions. Racks are kept and shown; they
//! decide nothing, as all partitions are here. Topics that are named must be ones that the caller may describe; a regular
//! expression does not match others.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use millpond_types::TopicId;
use uuid::Uuid;

use super::{Request, Shared, code_of_group};
use crate::features::GROUP_VERSION;
use crate::groups::consumer::HeartbeatRequest;
use crate::groups::consumer::assign::Partitions;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ConsumerGroupHeartbeatRequest = request.decode()?;
    let owned = |topics: Vec<_>| {
        let mut owned = Partitions::new();
        for topic in topics {
            let kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions {
                topic_id,
                partitions,
                ..
            } = topic;
            if !partitions.is_empty() {
                owned.entry(TopicId(topic_id.into_bytes())).or_default().extend(partitions);
            }
        }
        owned
    };
    if shared.features.level(GROUP_VERSION) < 1 {
        let refused = ConsumerGroupHeartbeatResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code())
            .with_error_message(Some(text("the feature \"group.version\" is at 0, without the consumer protocol")));
        return request.respond(&refused);
    }
    let leaves = asked.member_epoch < 0;
    let string = |text: Option<StrBytes>| text.map(|text| text.to_string());
    let heartbeat = HeartbeatRequest {
        group: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        epoch: asked.member_epoch,
        instance_id: string(asked.instance_id),
        rack_id: string(asked.rack_id),
        rebalance_timeout_ms: asked.rebalance_timeout_ms,
        topics: asked.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        pattern: string(asked.subscribed_topic_regex),
        assignor: string(asked.server_assignor),
        owned: asked.topic_partitions.map(owned),
        client_id: request.client_id().to_owned(),
        client_host: format!("/{}", request.caller.host()),
        id_required: request.head.version >= 1,
        new_id: Uuid::new_v4().to_string(),
    };
    let visible = |topic: &str| shared.may_topic(&request.caller, Operation::Describe, topic);
    let named = heartbeat.topics.iter().flatten();
    let hidden = named.into_iter().find(|topic| !visible(topic));
    let refusal = match shared.check_group(&request.caller, Operation::Read, &heartbeat.group) {
        Ok(()) => hidden.and_then(|topic| shared.check_topic(&request.caller, Operation::Describe, topic).err()),
        Err(refusal) => Some(refusal),
    };
    if let Some(refusal) = refusal {
        let refused = ConsumerGroupHeartbeatResponse::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message)));
        return request.respond(&refused);
    }
    let response = match shared.groups.consumer_heartbeat(heartbeat, &visible).await {
        Ok((answer, times)) => {
            let assignment = answer.assignment.map(|partitions| {
                let topics = partitions.into_iter().map(|(topic, indexes)| {
                    TopicPartitions::default()
                        .with_topic_id(Uuid::from_bytes(topic.0))
                        .with_partitions(indexes.into_iter().collect())
                });
                Assignment::default().with_topic_partitions(topics.collect())
            });
            ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text(&answer.member_id)))
                .with_member_epoch(answer.epoch)
                .with_heartbeat_interval_ms(if leaves { 0 } else { times.heartbeat_interval_ms })
                .with_assignment(assignment)
        }
        Err(refused) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(code_of_group(refused.error).code())
            .with_error_message(Some(text(&refused.message))),
    };
    request.respond(&response)
}

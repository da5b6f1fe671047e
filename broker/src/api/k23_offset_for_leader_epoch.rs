//! OffsetForLeaderEpoch (23), versions 2 to 4: where the records of an epoch end. Ignored: replica_id.

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::topics::{check_epoch, partition};
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: OffsetForLeaderEpochRequest = request.decode()?;
    let all = shared.may_cluster(&request.caller, Operation::ClusterAction);
    let topics = asked.topics.into_iter().map(|topic| {
        let may = match all {
            true => Ok(()),
            false => shared.check_topic(&request.caller, Operation::Describe, &topic.topic),
        };
        let partitions = topic.partitions.iter().map(|p| {
            let response = EpochEndOffset::default().with_partition(p.partition);
            match may.clone().and_then(|()| look(shared, &topic.topic, p)) {
                Ok((epoch, end)) => response.with_leader_epoch(epoch).with_end_offset(end),
                Err(refusal) => response.with_error_code(refusal.code()).with_leader_epoch(-1).with_end_offset(-1),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    request.respond(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
}

fn look(shared: &Shared, name: &str, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), Refusal> {
    let (_, id) = partition(&shared.storage, name, asked.partition)?;
    check_epoch(&shared.storage, asked.current_leader_epoch)?;
    Ok(shared.storage.epoch_end(id, asked.leader_epoch)?)
}

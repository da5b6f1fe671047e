//! ElectLeaders (43), versions 0 to 2: every partition is led by its only replica, so that none needs an election.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::topics::partition;
use super::{Refusal, Request, Shared};
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ElectLeadersRequest = request.decode()?;
    // Asked for all partitions, those that need none are left out.
    let results = asked.topic_partitions.into_iter().flatten().map(|topic| {
        let partitions = topic.partitions.iter().map(|&index| {
            let refusal = match partition(&shared.storage, &topic.topic, index) {
                Ok(_) => Refusal::new(ResponseError::ElectionNotNeeded, "the partition is led by its only replica"),
                Err(refusal) => refusal,
            };
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(refusal.code())
                .with_error_message(Some(text(&refusal.message)))
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default().with_topic(topic.topic).with_partition_result(partitions)
    });
    request.respond(&ElectLeadersResponse::default().with_replica_election_results(results.collect()))
}

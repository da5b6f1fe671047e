//! ElectLeaders (43), versions 0 to 2: every partition is led by its only replica, so that none needs an election.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::topics::partition;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ElectLeadersRequest = request.decode()?;
    let kind = asked.election_type;
    let may = shared.check_cluster(&request.caller, Operation::Alter).and_then(|()| match kind {
        PREFERRED | UNCLEAN => Ok(()),
        other => Err(Refusal::new(ResponseError::InvalidRequest, format!("there is no election of type {other}"))),
    });
    // Asked for all partitions, those that need none are left out.
    let results = asked.topic_partitions.into_iter().flatten().map(|topic| {
        let partitions = topic.partitions.iter().map(|&index| {
            let found = may.clone().and_then(|()| partition(&shared.storage, &topic.topic, index));
            let refusal = match found {
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
    let response = ElectLeadersResponse::default().with_replica_election_results(results.collect());
    let code = may.err().filter(|_| request.head.version >= 1).map_or(0, |refusal| refusal.code());
    request.respond(&response.with_error_code(code))
}

//! AlterPartitionReassignments (45), versions 0 and 1: every partition is where it can be, on this broker alone.
//!
//! Moving one there changes nothing; anywhere else there is no broker; and nothing is ever under way that could be
//! cancelled. Ignored: timeout_ms.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId};

use super::topics::partition;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AlterPartitionReassignmentsRequest = request.decode()?;
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Alter) {
        let response = AlterPartitionReassignmentsResponse::default().with_error_code(refusal.code());
        return request.respond(&response.with_error_message(Some(text(&refusal.message))));
    }
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let response = ReassignablePartitionResponse::default().with_partition_index(p.partition_index);
            match move_to(shared, &topic.name, p) {
                Ok(()) => response.with_error_message(None),
                Err(refusal) => {
                    response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message)))
                }
            }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    let response = AlterPartitionReassignmentsResponse::default().with_responses(topics.collect());
    request.respond(&response.with_error_message(None).with_allow_replication_factor_change(
        match request.head.version {
            0 => true,
            _ => asked.allow_replication_factor_change,
        },
    ))
}

fn move_to(shared: &Shared, name: &str, asked: &ReassignablePartition) -> Result<(), Refusal> {
    partition(&shared.storage, name, asked.partition_index)?;
    let node = BrokerId(shared.storage.node_id());
    match &asked.replicas {
        None => {
            Err(Refusal::new(ResponseError::NoReassignmentInProgress, "no partition is on its way to another broker"))
        }
        Some(replicas) if *replicas == [node] => Ok(()),
        Some(_) => {
            let message = format!("a partition can be on broker {} alone, which is the only one", node.0);
            Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message))
        }
    }
}

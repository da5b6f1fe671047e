//! ListPartitionReassignments (46), version 0: there are never any.

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let _asked: ListPartitionReassignmentsRequest = request.decode()?;
    let response = ListPartitionReassignmentsResponse::default();
    request.respond(&match shared.check_cluster(&request.caller, Operation::Describe) {
        Ok(()) => response,
        Err(refusal) => response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
    })
}

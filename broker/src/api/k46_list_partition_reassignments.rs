//! ListPartitionReassignments (46), version 0: there are never any.

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::Request;
use crate::wire::{Error, Reply};

pub(super) fn handle(request: &Request) -> Result<Reply, Error> {
    let _asked: ListPartitionReassignmentsRequest = request.decode()?;
    request.respond(&ListPartitionReassignmentsResponse::default())
}

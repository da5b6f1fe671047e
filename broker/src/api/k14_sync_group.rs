//! SyncGroup (14), versions 0 to 5. The answer waits until the leader's assignment has been persisted.

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Request, Shared, code_of_group};
use crate::groups::SyncRequest;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: SyncGroupRequest = request.decode()?;
    if let Err(refusal) = shared.check_group(&request.caller, Operation::Read, &asked.group_id) {
        return request.respond(&SyncGroupResponse::default().with_error_code(refusal.code()));
    }
    let owned = |s: &kafka_protocol::protocol::StrBytes| s.to_string();
    let assignments = asked.assignments.iter();
    let sync = SyncRequest {
        group: asked.group_id.to_string(),
        generation: asked.generation_id,
        member_id: asked.member_id.to_string(),
        instance_id: asked.group_instance_id.as_ref().map(owned),
        protocol_type: asked.protocol_type.as_ref().map(owned),
        protocol: asked.protocol_name.as_ref().map(owned),
        assignments: assignments.map(|a| (a.member_id.to_string(), Bytes::copy_from_slice(&a.assignment))).collect(),
    };
    let response = match shared.groups.sync(sync).await {
        Ok(answer) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(&answer.protocol_type)))
            .with_protocol_name(Some(text(&answer.protocol)))
            .with_assignment(answer.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(code_of_group(error).code()),
    };
    request.respond(&response)
}

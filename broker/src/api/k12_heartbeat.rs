//! Heartbeat (12), versions 0 to 4.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Request, Shared, code_of_group, group_code};
use crate::groups::GroupError;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: HeartbeatRequest = request.decode()?;
    if let Err(refusal) = shared.check_group(&request.caller, Operation::Read, &asked.group_id) {
        return request.respond(&HeartbeatResponse::default().with_error_code(refusal.code()));
    }
    if asked.group_id.is_empty() {
        let code = code_of_group(GroupError::InvalidGroupId).code();
        return request.respond(&HeartbeatResponse::default().with_error_code(code));
    }
    let instance = asked.group_instance_id.as_deref();
    let visible = |topic: &str| shared.may_topic(&request.caller, Operation::Describe, topic);
    let result = shared.groups.heartbeat(&asked.group_id, &asked.member_id, instance, asked.generation_id, &visible);
    request.respond(&HeartbeatResponse::default().with_error_code(group_code(result)))
}

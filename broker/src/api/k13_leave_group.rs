//! LeaveGroup (13), versions 0 to 5. From v3 on several members at once, by instance id too.

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Request, Shared, code_of_group, group_code};
use crate::groups::{GroupError, LeaveRequest};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: LeaveGroupRequest = request.decode()?;
    if let Err(refusal) = shared.check_group(&request.caller, Operation::Read, &asked.group_id) {
        return request.respond(&LeaveGroupResponse::default().with_error_code(refusal.code()));
    }
    if asked.group_id.is_empty() {
        let code = code_of_group(GroupError::InvalidGroupId).code();
        return request.respond(&LeaveGroupResponse::default().with_error_code(code));
    }
    if request.head.version < 3 {
        let member = LeaveRequest { member_id: asked.member_id.to_string(), instance_id: None };
        let mut results = shared.groups.leave(&asked.group_id, &[member]);
        let code = results.pop().map_or(0, |result| group_code(result.map(drop)));
        return request.respond(&LeaveGroupResponse::default().with_error_code(code));
    }
    let members: Vec<_> = asked
        .members
        .iter()
        .map(|m| LeaveRequest {
            member_id: m.member_id.to_string(),
            instance_id: m.group_instance_id.as_ref().map(ToString::to_string),
        })
        .collect();
    let results = shared.groups.leave(&asked.group_id, &members);
    let answers = members.into_iter().zip(results).map(|(member, result)| {
        MemberResponse::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.map(|i| text(&i)))
            .with_error_code(group_code(result.map(drop)))
    });
    request.respond(&LeaveGroupResponse::default().with_members(answers.collect()))
}

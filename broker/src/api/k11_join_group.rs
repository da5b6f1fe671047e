//! JoinGroup (11), versions 0 to 9. The answer waits until the generation begins.
//!
//! From v4 on a member without an id is told one first; from v9 on a static leader may be told to leave the assignment
//! as it is. Without a rebalance timeout (v0 has none, -1 is the default) the session's counts. Ignored: reason.

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use uuid::Uuid;

use super::{Request, Shared, brief, code_of_group};
use crate::groups::JoinRequest;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let version = request.head.version;
    let asked: JoinGroupRequest = request.decode()?;
    let instance_id = asked.group_instance_id.as_ref().map(ToString::to_string);
    // Not all of a long one: the id would be longer than a text may be.
    let prefix = brief(instance_id.as_deref().unwrap_or(request.client_id()));
    // What is kept is copied: it would keep the whole frame otherwise.
    let protocols = asked.protocols.iter().map(|p| (p.name.to_string(), Bytes::copy_from_slice(&p.metadata)));
    let rebalance_timeout_ms = match asked.rebalance_timeout_ms {
        unset if version == 0 || unset < 0 => asked.session_timeout_ms,
        ms => ms,
    };
    let join = JoinRequest {
        group: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        client_id: request.client_id().to_owned(),
        client_host: format!("/{}", request.caller.host()),
        session_timeout_ms: asked.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: asked.protocol_type.to_string(),
        protocols: protocols.collect(),
        id_required: version >= 4,
        can_skip_assignment: version >= 9,
        new_id: format!("{prefix}-{}", Uuid::new_v4()),
        instance_id,
    };
    if let Err(refusal) = shared.check_group(&request.caller, Operation::Read, &join.group) {
        return request.respond(&failure(refusal.code(), &join.member_id, version));
    }
    let visible = |topic: &str| shared.may_topic(&request.caller, Operation::Describe, topic);
    let response = match shared.groups.join(join, &visible).await {
        Ok(answer) => {
            let members = answer.members.into_iter().map(|m| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(&m.id))
                    .with_group_instance_id(m.instance_id.filter(|_| version >= 5).map(|i| text(&i)))
                    .with_metadata(m.metadata)
            });
            JoinGroupResponse::default()
                .with_generation_id(answer.generation)
                .with_protocol_type(Some(text(&answer.protocol_type)))
                .with_protocol_name(Some(text(&answer.protocol)))
                .with_leader(text(&answer.leader))
                .with_skip_assignment(answer.skip_assignment)
                .with_member_id(text(&answer.member_id))
                .with_members(members.collect())
        }
        Err(refused) => failure(code_of_group(refused.error).code(), &refused.member_id, version),
    };
    request.respond(&response)
}

fn failure(code: i16, member: &str, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code)
        .with_generation_id(-1)
        .with_protocol_name((version < 7).then(|| text("")))
        .with_member_id(text(member))
}

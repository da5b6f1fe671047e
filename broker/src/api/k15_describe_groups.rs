//! DescribeGroups (15), versions 0 to 6. A group that is not there is "Dead"; from v6 on with an error. So is a group of
//! the consumer protocol, which ConsumerGroupDescribe describes.

use std::collections::HashSet;

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::access::NOT_ASKED;
use super::{Request, Shared, code_of_group};
use crate::groups::GroupError;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeGroupsRequest = request.decode()?;
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let mut seen = HashSet::new();
    let once = asked.groups.into_iter().filter(|id| seen.insert(id.clone()));
    let groups = once.map(|id| {
        if let Err(refusal) = shared.check_group(&request.caller, Operation::Describe, &id) {
            let group = DescribedGroup::default().with_group_id(id).with_error_code(refusal.code());
            return group.with_authorized_operations(NOT_ASKED);
        }
        let operations = match asked.include_authorized_operations {
            true => shared.group_operations(&request.caller, &id),
            false => NOT_ASKED,
        };
        let found = shared.groups.describe(&id);
        let group = DescribedGroup::default().with_group_id(id).with_authorized_operations(operations);
        let Some(found) = found else {
            let group = group.with_group_state(text("Dead"));
            return match request.head.version {
                0..6 => group,
                _ => group
                    .with_error_code(code_of_group(GroupError::GroupNotFound).code())
                    .with_error_message(Some(text("there is no such group"))),
            };
        };
        let members = found.members.into_iter().map(|m| {
            DescribedGroupMember::default()
                .with_member_id(text(&m.id))
                .with_group_instance_id(m.instance_id.map(|i| text(&i)))
                .with_client_id(text(&m.client_id))
                .with_client_host(text(&m.client_host))
                .with_member_metadata(m.metadata)
                .with_member_assignment(m.assignment)
        });
        group
            .with_group_state(text(found.state.name()))
            .with_protocol_type(text(&found.protocol_type))
            .with_protocol_data(text(&found.protocol))
            .with_members(members.collect())
    });
    let (mut ids, mut described) = (Vec::new(), Vec::new());
    for group in groups {
        ids.push(group.group_id.clone());
        described.push(group);
    }
    request.respond_within(shared, DescribeGroupsResponse::default().with_groups(described), |refusal| {
        let refused = |id| {
            let group = DescribedGroup::default().with_group_id(id).with_error_code(refusal.code());
            group.with_authorized_operations(NOT_ASKED)
        };
        DescribeGroupsResponse::default().with_groups(ids.into_iter().map(refused).collect())
    })
}

//! ListGroups (16), versions 0 to 5. Filters by state (v4) and type (v5) regardless of case. Who may not describe the
//! cluster sees the groups that they may describe.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::{Request, Shared};
use crate::groups::Listed;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

fn type_of(group: &Listed) -> &'static str {
    if group.is_classic { "classic" } else { "consumer" }
}

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ListGroupsRequest = request.decode()?;
    let passes = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
    };
    let all = shared.may_cluster(&request.caller, Operation::Describe);
    let groups = shared
        .groups
        .list()
        .into_iter()
        .filter(|g| all || shared.may_group(&request.caller, Operation::Describe, &g.group))
        .filter(|g| passes(&asked.states_filter, g.state) && passes(&asked.types_filter, type_of(g)));
    let version = request.head.version;
    let groups = groups.map(|g| {
        let listed = ListedGroup::default().with_group_id(text(&g.group)).with_protocol_type(text(&g.protocol_type));
        let listed = if version >= 4 { listed.with_group_state(text(g.state)) } else { listed };
        if version >= 5 { listed.with_group_type(text(type_of(&g))) } else { listed }
    });
    request.respond(&ListGroupsResponse::default().with_groups(groups.collect()))
}

//! ListGroups (16), versions 0 to 5. Filters by state (v4) and type (v5) regardless of case. Who may not describe the
//! cluster sees the groups that they may describe.

use std::collections::HashSet;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Request, Shared};
use crate::groups::Listed;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

fn type_of(group: &Listed) -> &'static str {
    if group.is_classic { "classic" } else { "consumer" }
}

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ListGroupsRequest = request.decode()?;
    // Looked up and not searched through, since every group is held against them.
    let lower = |filter: &[StrBytes]| filter.iter().map(|f| f.to_ascii_lowercase()).collect::<HashSet<String>>();
    let (states, types) = (lower(&asked.states_filter), lower(&asked.types_filter));
    let passes =
        |filter: &HashSet<String>, value: &str| filter.is_empty() || filter.contains(&value.to_ascii_lowercase());
    let all = shared.may_cluster(&request.caller, Operation::Describe);
    let groups = shared.groups.list();
    let groups = groups
        .into_iter()
        .filter(|g| all || shared.may_group(&request.caller, Operation::Describe, &g.group))
        .filter(|g| passes(&states, g.state) && passes(&types, type_of(g)));
    let version = request.head.version;
    let groups = groups.map(|g| {
        let listed = ListedGroup::default().with_group_id(text(&g.group)).with_protocol_type(text(&g.protocol_type));
        let listed = if version >= 4 { listed.with_group_state(text(g.state)) } else { listed };
        if version >= 5 { listed.with_group_type(text(type_of(&g))) } else { listed }
    });
    let response = ListGroupsResponse::default().with_groups(groups.collect());
    request.respond_within(shared, response, |refusal| ListGroupsResponse::default().with_error_code(refusal.code()))
}

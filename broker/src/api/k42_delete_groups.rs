//! DeleteGroups (42), versions 0 to 2: groups without members, with their offsets, those in open transactions too. A
//! group that is named twice is answered once.

use std::collections::HashSet;

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::{Request, Shared, group_code};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DeleteGroupsRequest = request.decode()?;
    let mut results = Vec::with_capacity(asked.groups_names.len());
    let mut seen = HashSet::new();
    for group in asked.groups_names {
        if !seen.insert(group.clone()) {
            continue;
        }
        let code = match shared.check_group(&request.caller, Operation::Delete, &group) {
            Ok(()) => group_code(shared.transactions.delete_group(&group).await),
            Err(refusal) => refusal.code(),
        };
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
    }
    request.respond(&DeleteGroupsResponse::default().with_results(results))
}

//! DeleteAcls (31), versions 1 to 3: removes what each filter finds, all at once, and tells what that was.

use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::acls::{authorizer, filter};
use super::{Refusal, Request, Shared};
use crate::security::acl::{Binding, Operation, RawFilter};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DeleteAclsRequest = request.decode()?;
    let results = delete(shared, request, &asked).await;
    let results = results.into_iter().map(|result| match result {
        Ok(found) => DeleteAclsFilterResult::default().with_matching_acls(found.iter().map(matching).collect()),
        Err(refusal) => DeleteAclsFilterResult::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message))),
    });
    request.respond(&DeleteAclsResponse::default().with_filter_results(results.collect()))
}

async fn delete(shared: &Shared, request: &Request, asked: &DeleteAclsRequest) -> Vec<Result<Vec<Binding>, Refusal>> {
    let for_all = |refusal: Refusal| asked.filters.iter().map(|_| Err(refusal.clone())).collect();
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Alter) {
        return for_all(refusal);
    }
    let authorizer = match authorizer(shared) {
        Ok(authorizer) => authorizer,
        Err(refusal) => return for_all(refusal),
    };
    let checked: Vec<_> = asked
        .filters
        .iter()
        .map(|asked| {
            filter(RawFilter {
                resource: asked.resource_type_filter,
                name: asked.resource_name_filter.as_deref(),
                pattern: asked.pattern_type_filter,
                principal: asked.principal_filter.as_deref(),
                host: asked.host_filter.as_deref(),
                operation: asked.operation,
                permission: asked.permission_type,
            })
        })
        .collect();
    let filters: Vec<_> = checked.iter().filter_map(|checked| checked.as_ref().ok().cloned()).collect();
    let mut found = match authorizer.delete(&filters).await {
        Ok(found) => found.into_iter(),
        Err(error) => return for_all(error.into()),
    };
    checked.into_iter().map(|checked| checked.map(|_| found.next().unwrap_or_default())).collect()
}

fn matching(binding: &Binding) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_resource_type(binding.resource.code())
        .with_resource_name(text(&binding.name))
        .with_pattern_type(binding.pattern.code())
        .with_principal(text(&binding.principal))
        .with_host(text(&binding.host))
        .with_operation(binding.operation.code())
        .with_permission_type(binding.permission.code())
}

//! DescribeAcls (29), versions 1 to 3. Without an authorizer tools are told SECURITY_DISABLED.

use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::acls::authorizer;
use super::{Refusal, Request, Shared};
use crate::security::acl::{Binding, Filter, Operation, RawFilter};
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeAclsRequest = request.decode()?;
    let response = match find(shared, request, &asked) {
        Ok(found) => DescribeAclsResponse::default().with_resources(by_resource(found)),
        Err(refusal) => DescribeAclsResponse::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message))),
    };
    request.respond_within(shared, response, |refusal| {
        let response = DescribeAclsResponse::default().with_error_code(refusal.code());
        response.with_error_message(Some(text(&refusal.message)))
    })
}

fn find(shared: &Shared, request: &Request, asked: &DescribeAclsRequest) -> Result<Vec<Binding>, Refusal> {
    shared.check_cluster(&request.caller, Operation::Describe)?;
    let authorizer = authorizer(shared)?;
    let filter = Filter::check(RawFilter {
        resource: asked.resource_type_filter,
        name: asked.resource_name_filter.as_deref(),
        pattern: asked.pattern_type_filter,
        principal: asked.principal_filter.as_deref(),
        host: asked.host_filter.as_deref(),
        operation: asked.operation,
        permission: asked.permission_type,
    });
    // A filter about what is not known finds nothing.
    Ok(filter.map_or_else(|_| Vec::new(), |filter| authorizer.find(&filter)))
}

/// Entries in order have those about the same resource next to each other.
fn by_resource(found: Vec<Binding>) -> Vec<DescribeAclsResource> {
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    for binding in found {
        let (kind, pattern) = (binding.resource.code(), binding.pattern.code());
        let description = AclDescription::default()
            .with_principal(text(&binding.principal))
            .with_host(text(&binding.host))
            .with_operation(binding.operation.code())
            .with_permission_type(binding.permission.code());
        match resources.last_mut() {
            Some(last)
                if last.resource_type == kind
                    && last.pattern_type == pattern
                    && *last.resource_name == *binding.name =>
            {
                last.acls.push(description);
            }
            _ => resources.push(
                DescribeAclsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(text(&binding.name))
                    .with_pattern_type(pattern)
                    .with_acls(vec![description]),
            ),
        }
    }
    resources
}

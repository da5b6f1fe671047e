//! CreateAcls (30), versions 1 to 3. Each entry is checked by itself; those that pass are added together, and adding
//! what is there is no error.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::acls::authorizer;
use super::{Refusal, Request, Shared};
use crate::security::acl::{Binding, Operation, RawBinding};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: CreateAclsRequest = request.decode()?;
    let results = create(shared, request, &asked).await;
    let results = results.into_iter().map(|result| match result {
        Ok(()) => AclCreationResult::default(),
        Err(refusal) => AclCreationResult::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message))),
    });
    request.respond(&CreateAclsResponse::default().with_results(results.collect()))
}

async fn create(shared: &Shared, request: &Request, asked: &CreateAclsRequest) -> Vec<Result<(), Refusal>> {
    let for_all = |refusal: Refusal| asked.creations.iter().map(|_| Err(refusal.clone())).collect();
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Alter) {
        return for_all(refusal);
    }
    let authorizer = match authorizer(shared) {
        Ok(authorizer) => authorizer,
        Err(refusal) => return for_all(refusal),
    };
    let mut new = Vec::new();
    let mut results: Vec<Result<(), Refusal>> = Vec::with_capacity(asked.creations.len());
    for creation in &asked.creations {
        let raw = RawBinding {
            resource: creation.resource_type,
            name: &creation.resource_name,
            pattern: creation.resource_pattern_type,
            principal: &creation.principal,
            host: &creation.host,
            operation: creation.operation,
            permission: creation.permission_type,
        };
        results.push(match Binding::check(raw) {
            Ok(binding) => {
                new.push(binding);
                Ok(())
            }
            Err(message) => Err(Refusal::new(ResponseError::InvalidRequest, message)),
        });
    }
    if let Err(error) = authorizer.create(new).await {
        let refusal = Refusal::from(error);
        results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(refusal.clone()));
    }
    results
}

//! DescribeDelegationToken (41), versions 1 to 3: tokens of some owners, or of all, that the caller has to do with or may
//! describe. They are told with what they are used by.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::describe_delegation_token_response::{
    DescribedDelegationToken, DescribedDelegationTokenRenewer,
};
use kafka_protocol::messages::{DescribeDelegationTokenRequest, DescribeDelegationTokenResponse};
use millpond_types::Principal;

use super::k38_create_delegation_token::{USER, check_channel};
use super::{Request, Shared};
use crate::security::acl::{Operation, ResourceType};
use crate::security::delegation::DelegationToken;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeDelegationTokenRequest = request.decode()?;
    let response = DescribeDelegationTokenResponse::default();
    if let Err(refusal) = check_channel(request) {
        return request.respond(&response.with_error_code(refusal.code()));
    }
    let caller = &request.caller;
    let owners: Option<HashSet<Principal>> = asked.owners.as_ref().map(|owners| {
        let users = owners.iter().filter(|owner| owner.principal_type.as_str() == USER);
        users.map(|owner| Principal::user(&owner.principal_name)).collect()
    });
    let wanted = |token: &DelegationToken| {
        let mut of = [&token.owner, &token.requester].into_iter().chain(&token.renewers);
        owners.as_ref().is_none_or(|all| of.any(|who| all.contains(who)))
    };
    let may = |token: &DelegationToken| {
        token.concerns(&caller.principal)
            || shared.authorizer.is_some()
                && (shared.may(caller, Operation::Describe, ResourceType::DelegationToken, &token.id)
                    || shared.may(caller, Operation::DescribeTokens, ResourceType::User, &token.owner.to_string()))
    };
    let tokens = shared.authenticator.delegation();
    let found = tokens.all().into_iter().filter(|token| wanted(token) && may(token)).map(|token| {
        let described = DescribedDelegationToken::default()
            .with_principal_type(text(token.owner.kind()))
            .with_principal_name(text(token.owner.name()))
            .with_issue_timestamp(token.issued_ms)
            .with_expiry_timestamp(token.expires_ms)
            .with_max_timestamp(token.ends_ms)
            .with_token_id(text(&token.id))
            .with_hmac(Bytes::from(tokens.signature(&token.id)))
            .with_renewers(token.renewers.iter().map(renewer).collect());
        match request.head.version {
            3.. => described
                .with_token_requester_principal_type(text(token.requester.kind()))
                .with_token_requester_principal_name(text(token.requester.name())),
            _ => described,
        }
    });
    request.respond_within(shared, response.with_tokens(found.collect()), |refusal| {
        DescribeDelegationTokenResponse::default().with_error_code(refusal.code())
    })
}

fn renewer(who: &Principal) -> DescribedDelegationTokenRenewer {
    DescribedDelegationTokenRenewer::default()
        .with_principal_type(text(who.kind()))
        .with_principal_name(text(who.name()))
}

//! CreateDelegationToken (38), versions 1 to 3: a token for the caller, or (v3) for a user for whom the caller may create
//! tokens. What tokens are is said in `security::delegation`.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{CreateDelegationTokenRequest, CreateDelegationTokenResponse};
use millpond_types::Principal;

use super::{Refusal, Request, Shared};
use crate::security::acl::{Operation, ResourceType};
use crate::security::delegation::DelegationError;
use crate::wire::{Error, Reply, text};

/// The only kind of principals that there is.
pub(super) const USER: &str = "User";

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: CreateDelegationTokenRequest = request.decode()?;
    let requester = &request.caller.principal;
    let owner = match (&asked.owner_principal_type, &asked.owner_principal_name) {
        (_, None) => requester.clone(),
        (_, Some(name)) if name.is_empty() => requester.clone(),
        (_, Some(name)) => Principal::user(name),
    };
    let response = CreateDelegationTokenResponse::default()
        .with_principal_type(text(owner.kind()))
        .with_principal_name(text(owner.name()))
        .with_token_requester_principal_type(text(requester.kind()))
        .with_token_requester_principal_name(text(requester.name()));
    let response = match create(shared, request, &asked, &owner).await {
        Err(refusal) => response
            .with_error_code(refusal.code())
            .with_issue_timestamp_ms(-1)
            .with_expiry_timestamp_ms(-1)
            .with_max_timestamp_ms(-1),
        Ok((token, signature)) => response
            .with_issue_timestamp_ms(token.issued_ms)
            .with_expiry_timestamp_ms(token.expires_ms)
            .with_max_timestamp_ms(token.ends_ms)
            .with_token_id(text(&token.id))
            .with_hmac(Bytes::from(signature)),
    };
    let response = match request.head.version {
        3.. => response,
        _ => response
            .with_token_requester_principal_type(Default::default())
            .with_token_requester_principal_name(Default::default()),
    };
    request.respond(&response)
}

type Created = (std::sync::Arc<crate::security::delegation::DelegationToken>, Vec<u8>);

async fn create(
    shared: &Shared,
    request: &Request,
    asked: &CreateDelegationTokenRequest,
    owner: &Principal,
) -> Result<Created, Refusal> {
    check_channel(request)?;
    let caller = &request.caller;
    let kind = asked.owner_principal_type.as_deref().filter(|kind| !kind.is_empty());
    let kinds = kind.into_iter().chain(asked.renewers.iter().map(|renewer| renewer.principal_type.as_str()));
    if kinds.into_iter().any(|kind| kind != USER) {
        return Err(Refusal::new(ResponseError::InvalidPrincipalType, "owners and renewers are users"));
    }
    // Where nobody is held against anything nobody may become somebody else by that.
    let may = || {
        shared.authorizer.is_some()
            && shared.may(caller, Operation::CreateTokens, ResourceType::User, &owner.to_string())
    };
    if *owner != caller.principal && !may() {
        let message = "tokens of others need the right to create them";
        return Err(Refusal::new(ResponseError::DelegationTokenAuthorizationFailed, message));
    }
    let renewers = asked.renewers.iter().map(|renewer| Principal::user(&renewer.principal_name)).collect();
    let tokens = shared.authenticator.delegation();
    let made = tokens.create(owner.clone(), caller.principal.clone(), renewers, asked.max_lifetime_ms).await;
    made.map_err(refusal)
}

/// Who did not say who they are, or did so by a token, has nothing to do with tokens.
pub(super) fn check_channel(request: &Request) -> Result<(), Refusal> {
    let caller = &request.caller;
    if caller.principal.is_anonymous() || caller.sasl.as_ref().is_some_and(|sasl| sasl.is_by_token()) {
        let message = "tokens are for those who have authenticated otherwise";
        return Err(Refusal::new(ResponseError::DelegationTokenRequestNotAllowed, message));
    }
    Ok(())
}

pub(super) fn refusal(error: DelegationError) -> Refusal {
    let (error, message) = match error {
        DelegationError::NotFound => (ResponseError::DelegationTokenNotFound, "there is no such token".to_owned()),
        DelegationError::NotOwner => {
            (ResponseError::DelegationTokenOwnerMismatch, "neither owner nor renewer of the token".to_owned())
        }
        DelegationError::Expired => (ResponseError::DelegationTokenExpired, "the token has expired".to_owned()),
        DelegationError::TooMany(message) => (ResponseError::PolicyViolation, message),
        DelegationError::Storage(error) => return error.into(),
    };
    Refusal::new(error, message)
}

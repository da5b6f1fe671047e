//! RenewDelegationToken (39), versions 1 and 2: makes a token good for longer, up to its end. For its owner and its renewers.

use kafka_protocol::messages::{RenewDelegationTokenRequest, RenewDelegationTokenResponse};

use super::k38_create_delegation_token::{check_channel, refusal};
use super::{Request, Shared};
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: RenewDelegationTokenRequest = request.decode()?;
    let (tokens, who) = (shared.authenticator.delegation(), &request.caller.principal);
    let done = match check_channel(request) {
        Ok(()) => tokens.renew(&asked.hmac, who, asked.renew_period_ms).await.map_err(refusal),
        Err(refusal) => Err(refusal),
    };
    let response = RenewDelegationTokenResponse::default();
    request.respond(&match done {
        Ok(expires_ms) => response.with_expiry_timestamp_ms(expires_ms),
        Err(refusal) => response.with_error_code(refusal.code()).with_expiry_timestamp_ms(-1),
    })
}

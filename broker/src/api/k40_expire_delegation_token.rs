//! ExpireDelegationToken (40), versions 1 and 2: ends a token, at once or after some time. For its owner and its renewers.

use kafka_protocol::messages::{ExpireDelegationTokenRequest, ExpireDelegationTokenResponse};

use super::k38_create_delegation_token::{check_channel, refusal};
use super::{Request, Shared};
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ExpireDelegationTokenRequest = request.decode()?;
    let (tokens, who) = (shared.authenticator.delegation(), &request.caller.principal);
    let done = match check_channel(request) {
        Ok(()) => tokens.expire(&asked.hmac, who, asked.expiry_time_period_ms).await.map_err(refusal),
        Err(refusal) => Err(refusal),
    };
    let response = ExpireDelegationTokenResponse::default();
    request.respond(&match done {
        Ok(expires_ms) => response.with_expiry_timestamp_ms(expires_ms),
        Err(refusal) => response.with_error_code(refusal.code()).with_expiry_timestamp_ms(-1),
    })
}

//! SaslAuthenticate (36), versions 0 to 2: a message of the exchange that SaslHandshake began. From version 1 on the
//! last answer says after how long the client has to begin another one. A failure ends the connection.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::Request;
use crate::security::Caller;
use crate::security::sasl::Answer;
use crate::wire::{Error, Reply, Response, text};

const NO_SASL: &str = "this listener does not authenticate with SASL";

pub(super) async fn handle(request: &Request) -> Result<Reply, Error> {
    let asked: SaslAuthenticateRequest = request.decode()?;
    let response = SaslAuthenticateResponse::default();
    let Some(sasl) = &request.caller.sasl else {
        let response = response.with_error_code(ResponseError::IllegalSaslState.code());
        return request.respond(&response.with_error_message(Some(text(NO_SASL))));
    };
    let (error, message) = match sasl.message(&asked.auth_bytes).await {
        Answer::More(bytes) => return request.respond(&response.with_auth_bytes(Bytes::from(bytes))),
        Answer::Done(bytes, lifetime) => {
            let lifetime_ms = match request.head.version {
                0 => 0,
                _ => lifetime.map_or(0, milliseconds),
            };
            return request
                .respond(&response.with_auth_bytes(Bytes::from(bytes)).with_session_lifetime_ms(lifetime_ms));
        }
        Answer::Denied(message) => (ResponseError::SaslAuthenticationFailed, message),
        Answer::OutOfOrder(message) => (ResponseError::IllegalSaslState, message.to_owned()),
    };
    request.respond_last(&response.with_error_code(error.code()).with_error_message(Some(text(&message))))
}

/// 0 would mean that it never ends.
fn milliseconds(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// A message of the exchange that came with nothing around it.
pub(crate) async fn bare(caller: &Caller, message: &[u8]) -> Result<Reply, Error> {
    let answer = match &caller.sasl {
        Some(sasl) => sasl.message(message).await,
        None => Answer::OutOfOrder(NO_SASL),
    };
    match answer {
        Answer::More(bytes) | Answer::Done(bytes, _) => Response::bare(&bytes).map(Reply::Response),
        Answer::Denied(message) => Ok(Reply::Close(message)),
        Answer::OutOfOrder(message) => Ok(Reply::Close(message.to_owned())),
    }
}

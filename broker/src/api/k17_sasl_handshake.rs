//! SaslHandshake (17), versions 0 and 1: the client chooses a mechanism. After version 0 the messages of the exchange
//! come without requests around them.
//!
//! An unknown mechanism is answered with those that there are, and ends the connection, as does a handshake in the middle
//! of an exchange. On a listener without SASL it is an error and no more.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::Request;
use crate::security::sasl::HandshakeRefusal;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(request: &Request) -> Result<Reply, Error> {
    let asked: SaslHandshakeRequest = request.decode()?;
    let response = SaslHandshakeResponse::default();
    let Some(sasl) = &request.caller.sasl else {
        return request.respond(&response.with_error_code(ResponseError::IllegalSaslState.code()));
    };
    let response = response.with_mechanisms(sasl.mechanisms().iter().map(|m| text(m.name())).collect());
    let code = match sasl.handshake(&asked.mechanism, request.head.version == 0) {
        Ok(()) => return request.respond(&response),
        Err(HandshakeRefusal::Unsupported) => ResponseError::UnsupportedSaslMechanism,
        Err(HandshakeRefusal::OutOfOrder) => ResponseError::IllegalSaslState,
    };
    request.respond_last(&response.with_error_code(code.code()))
}

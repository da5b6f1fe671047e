//! InitProducerId (22), versions 0 to 5, for idempotent producers: always a new id, with epoch 0.
//!
//! With a transactional id it is refused for good: there are no transactions yet.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Refusal, Request, Shared};
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: InitProducerIdRequest = request.decode()?;
    let result = match &asked.transactional_id {
        None => shared.storage.allocate_producer_id().await.map_err(Refusal::from),
        Some(id) if id.is_empty() => Err(Refusal::new(ResponseError::InvalidRequest, "the transactional id is empty")),
        Some(_) => Err(Refusal::new(
            ResponseError::TransactionalIdAuthorizationFailed,
            "transactions are not supported by this version",
        )),
    };
    let response = InitProducerIdResponse::default();
    let response = match result {
        Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(refusal) => {
            response.with_error_code(refusal.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
        }
    };
    request.respond(&response)
}

//! UnregisterBroker (64), version 0: this is the only broker, and stays registered while it runs.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: UnregisterBrokerRequest = request.decode()?;
    let id = *asked.broker_id;
    let refusal = match shared.check_cluster(&request.caller, Operation::Alter) {
        Err(refusal) => refusal,
        Ok(()) if id == shared.storage.node_id() => {
            Refusal::new(ResponseError::InvalidRequest, format!("broker {id} is the one that answers"))
        }
        Ok(()) => Refusal::new(ResponseError::BrokerIdNotRegistered, format!("broker {id} is not registered")),
    };
    let response = UnregisterBrokerResponse::default();
    request.respond(&response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))))
}

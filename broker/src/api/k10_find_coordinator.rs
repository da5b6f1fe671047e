//! FindCoordinator (10), versions 0 to 6: it is always this node, for groups and for transactions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::topics::advertised;
use super::{Refusal, Request, Shared};
use crate::wire::{Error, Reply, text};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: FindCoordinatorRequest = request.decode()?;
    let node = BrokerId(shared.storage.node_id());
    let (host, port) = advertised(&request.caller);
    let refusal = match asked.key_type {
        GROUP | TRANSACTION => None,
        other => Some(Refusal::new(ResponseError::InvalidRequest, format!("there is no coordinator of type {other}"))),
    };
    let (code, message) = (refusal.as_ref().map_or(0, Refusal::code), refusal.as_ref().map(|r| text(&r.message)));
    let (node, host, port) = match refusal {
        None => (node, host, port),
        Some(_) => (BrokerId(-1), String::new(), -1),
    };
    if request.head.version < 4 {
        let response = FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_node_id(node)
            .with_host(text(&host))
            .with_port(port);
        return request.respond(&response);
    }
    let coordinators = asked.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(node)
            .with_host(text(&host))
            .with_port(port)
            .with_error_code(code)
            .with_error_message(message.clone())
    });
    request.respond(&FindCoordinatorResponse::default().with_coordinators(coordinators.collect()))
}

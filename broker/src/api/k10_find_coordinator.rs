//! FindCoordinator (10), versions 0 to 6: it is always this node, for groups and for transactions that the caller may
//! describe.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::topics::advertised;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
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
    let of = |key: &str| {
        let checked = match (&refusal, asked.key_type) {
            (Some(refusal), _) => Err(refusal.clone()),
            (None, GROUP) => shared.check_group(&request.caller, Operation::Describe, key),
            (None, _) => shared.check_transact(&request.caller, Operation::Describe, key),
        };
        match checked {
            Ok(()) => Coordinator::default()
                .with_node_id(node)
                .with_host(text(&host))
                .with_port(port)
                .with_error_message(None),
            Err(refusal) => Coordinator::default()
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(refusal.code())
                .with_error_message(Some(text(&refusal.message))),
        }
    };
    if request.head.version < 4 {
        let found = of(&asked.key);
        // These versions name the error even where there is none.
        let message = found.error_message.unwrap_or(text("NONE"));
        let response = FindCoordinatorResponse::default()
            .with_error_code(found.error_code)
            .with_error_message(Some(message))
            .with_node_id(found.node_id)
            .with_host(found.host)
            .with_port(found.port);
        return request.respond(&response);
    }
    let coordinators = asked.coordinator_keys.iter().map(|key| of(key).with_key(key.clone()));
    request.respond(&FindCoordinatorResponse::default().with_coordinators(coordinators.collect()))
}

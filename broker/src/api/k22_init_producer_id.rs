//! InitProducerId (22), versions 0 to 5.
//!
//! Without a transactional id, for idempotent producers: always a new id, with epoch 0. With one, the producer takes it
//! over: what was open under it is aborted and its predecessor is fenced, all before the answer, so that nobody is asked
//! to try again. Who may write to any topic may be an idempotent producer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Request, Shared, code_of, code_of_transaction};
use crate::security::acl::{Operation, ResourceType};
use crate::transactions::InitRequest;
use crate::wire::{Error, Reply};

/// First version whose clients know of producers that are fenced.
const FENCED_SINCE: i16 = 4;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: InitProducerIdRequest = request.decode()?;
    let caller = &request.caller;
    let result = match &asked.transactional_id {
        None if !shared.may_cluster(caller, Operation::IdempotentWrite)
            && !shared.may_any(caller, Operation::Write, ResourceType::Topic) =>
        {
            Err(ResponseError::ClusterAuthorizationFailed)
        }
        Some(id) if !shared.may_transact(caller, Operation::Write, id) => {
            Err(ResponseError::TransactionalIdAuthorizationFailed)
        }
        _ if (asked.producer_id.0 == -1) != (asked.producer_epoch == -1) => Err(ResponseError::InvalidRequest),
        None => shared.storage.allocate_producer_id().await.map(|id| (id, 0)).map_err(|e| code_of(&e)),
        Some(id) => {
            let init = InitRequest {
                id: id.to_string(),
                timeout_ms: asked.transaction_timeout_ms,
                expected: (asked.producer_id.0 >= 0).then_some((asked.producer_id.0, asked.producer_epoch)),
            };
            let done = shared.transactions.init(init).await;
            done.map_err(|e| code_of_transaction(e, request.head.version, FENCED_SINCE))
        }
    };
    let response = InitProducerIdResponse::default();
    let response = match result {
        Ok((id, epoch)) => response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
        Err(error) => response.with_error_code(error.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1),
    };
    request.respond(&response)
}

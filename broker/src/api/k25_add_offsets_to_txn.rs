//! AddOffsetsToTxn (25), versions 0 to 4: offsets of a group will be part of the transaction.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::k24_add_partitions_to_txn::FENCED_SINCE;
use super::{Request, Shared, code_of_transaction};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AddOffsetsToTxnRequest = request.decode()?;
    let caller = &request.caller;
    let result = if !shared.may_transact(caller, Operation::Write, &asked.transactional_id) {
        Err(ResponseError::TransactionalIdAuthorizationFailed)
    } else if !shared.may_group(caller, Operation::Read, &asked.group_id) {
        Err(ResponseError::GroupAuthorizationFailed)
    } else if asked.group_id.is_empty() {
        Err(ResponseError::InvalidGroupId)
    } else {
        let producer = (asked.producer_id.0, asked.producer_epoch);
        let added = shared.transactions.add_group(&asked.transactional_id, producer, asked.group_id.to_string()).await;
        added.map_err(|e| code_of_transaction(e, request.head.version, FENCED_SINCE))
    };
    request.respond(&AddOffsetsToTxnResponse::default().with_error_code(result.err().map_or(0, |e| e.code())))
}

//! EndTxn (26), versions 0 to 4: commits or aborts, whole and at once; the answer comes when everybody can see it.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::k24_add_partitions_to_txn::FENCED_SINCE;
use super::{Request, Shared, code_of_transaction};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: EndTxnRequest = request.decode()?;
    if let Err(refusal) = shared.check_transact(&request.caller, Operation::Write, &asked.transactional_id) {
        return request.respond(&EndTxnResponse::default().with_error_code(refusal.code()));
    }
    let producer = (asked.producer_id.0, asked.producer_epoch);
    let result = shared.transactions.end(&asked.transactional_id, producer, asked.committed).await;
    let code = result.err().map_or(0, |e| code_of_transaction(e, request.head.version, FENCED_SINCE).code());
    request.respond(&EndTxnResponse::default().with_error_code(code))
}

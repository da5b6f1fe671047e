//! EndTxn (26), versions 0 to 5: commits or aborts, whole and at once; the answer comes when everybody can see it. From
//! version 5 on the producer gets another epoch with it, and is told.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::k24_add_partitions_to_txn::FENCED_SINCE;
use super::{Request, Shared, code_of_transaction};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

/// First version of producers that change their epoch with each transaction.
const RAISES_EPOCH: i16 = 5;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: EndTxnRequest = request.decode()?;
    if let Err(refusal) = shared.check_transact(&request.caller, Operation::Write, &asked.transactional_id) {
        return request.respond(&EndTxnResponse::default().with_error_code(refusal.code()));
    }
    let producer = (asked.producer_id.0, asked.producer_epoch);
    let (id, commit) = (&asked.transactional_id, asked.committed);
    let response = EndTxnResponse::default();
    let result = if request.head.version >= RAISES_EPOCH {
        let ended = shared.transactions.end_and_raise(id, producer, commit).await;
        ended.map(|(id, epoch)| response.clone().with_producer_id(ProducerId(id)).with_producer_epoch(epoch))
    } else {
        shared.transactions.end(id, producer, commit).await.map(|()| response.clone())
    };
    let refused = |e| response.with_error_code(code_of_transaction(e, request.head.version, FENCED_SINCE).code());
    request.respond(&result.unwrap_or_else(refused))
}

//! AddPartitionsToTxn (24), versions 0 to 3; later ones are spoken between brokers.
//!
//! All partitions join the transaction or none does: where some are unknown or may not be written, the others are said
//! not to have been attempted.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use millpond_types::ports::is_internal;

use super::topics::partition;
use super::{Request, Shared, code_of_transaction};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

/// First version whose clients know of producers that are fenced.
pub(super) const FENCED_SINCE: i16 = 2;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AddPartitionsToTxnRequest = request.decode()?;
    let mut places = Vec::new();
    let mut failures = Vec::new();
    for topic in &asked.v3_and_below_topics {
        let guarded = is_internal(&topic.name)
            || !shared.may_topic(&request.caller, Operation::Write, &topic.name)
            || shared.guard.refuse_write(&topic.name).is_some();
        for index in &topic.partitions {
            failures.push(match partition(&shared.storage, &topic.name, *index) {
                _ if guarded => Some(ResponseError::TopicAuthorizationFailed),
                Err(refusal) => Some(refusal.error),
                Ok((_, place)) => {
                    places.push(place);
                    None
                }
            });
        }
    }
    let id = &asked.v3_and_below_transactional_id;
    let for_all = if !shared.may_transact(&request.caller, Operation::Write, id) {
        failures.iter_mut().for_each(|failure| *failure = None);
        Some(ResponseError::TransactionalIdAuthorizationFailed)
    } else if failures.iter().any(Option::is_some) {
        Some(ResponseError::OperationNotAttempted)
    } else {
        let producer = (asked.v3_and_below_producer_id.0, asked.v3_and_below_producer_epoch);
        let added = shared.transactions.add_partitions(id, producer, places, false).await;
        added.err().map(|e| code_of_transaction(e, request.head.version, FENCED_SINCE))
    };
    let mut failures = failures.into_iter();
    let topics = asked.v3_and_below_topics.into_iter().map(|topic| {
        let result = |(index, failure): (i32, Option<ResponseError>)| {
            let code = failure.or(for_all).map_or(0, |e| e.code());
            AddPartitionsToTxnPartitionResult::default().with_partition_index(index).with_partition_error_code(code)
        };
        let partitions = topic.partitions.into_iter().zip(&mut failures).map(result).collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name).with_results_by_partition(partitions)
    });
    let response = AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect());
    request.respond(&response)
}

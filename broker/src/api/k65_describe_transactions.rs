//! DescribeTransactions (65), version 0. Topics that the caller may not describe are left out.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId};

use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::transactions::State;
use crate::wire::{Error, Reply, text};

/// Kafka's names. The states of being about to end do not occur here.
pub(super) fn name_of(state: State) -> &'static str {
    match state {
        State::Empty => "Empty",
        State::Ongoing => "Ongoing",
        State::Committed => "CompleteCommit",
        State::Aborted => "CompleteAbort",
    }
}

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeTransactionsRequest = request.decode()?;
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let mut seen = HashSet::new();
    let once = asked.transactional_ids.into_iter().filter(|id| seen.insert(id.clone()));
    let states = once.map(|id| {
        if let Err(refusal) = shared.check_transact(&request.caller, Operation::Describe, &id) {
            return TransactionState::default().with_transactional_id(id).with_error_code(refusal.code());
        }
        if id.is_empty() {
            let code = ResponseError::InvalidRequest.code();
            return TransactionState::default().with_transactional_id(id).with_error_code(code);
        }
        let found = shared.transactions.look(|machine| machine.get(&id).cloned());
        let response = TransactionState::default().with_transactional_id(id);
        let Some(found) = found else {
            return response.with_error_code(ResponseError::TransactionalIdNotFound.code());
        };
        let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for place in &found.partitions {
            if let Some(topic) = shared.storage.find_topic_by_id(place.topic)
                && shared.may_topic(&request.caller, Operation::Describe, &topic.name)
            {
                topics.entry(topic.name.clone()).or_default().push(place.partition);
            }
        }
        let topic =
            |(name, partitions): (String, _)| TopicData::default().with_topic(text(&name)).with_partitions(partitions);
        let began = if found.state == State::Ongoing { found.stamp } else { -1 };
        response
            .with_transaction_state(text(name_of(found.state)))
            .with_transaction_timeout_ms(found.timeout_ms)
            .with_transaction_start_time_ms(began)
            .with_producer_id(ProducerId(found.producer_id))
            .with_producer_epoch(found.epoch)
            .with_topics(topics.into_iter().map(topic).collect())
    });
    let (mut ids, mut described) = (Vec::new(), Vec::new());
    for state in states {
        ids.push(state.transactional_id.clone());
        described.push(state);
    }
    let response = DescribeTransactionsResponse::default().with_transaction_states(described);
    request.respond_within(shared, response, |refusal| {
        let refused = |id| TransactionState::default().with_transactional_id(id).with_error_code(refusal.code());
        DescribeTransactionsResponse::default().with_transaction_states(ids.into_iter().map(refused).collect())
    })
}

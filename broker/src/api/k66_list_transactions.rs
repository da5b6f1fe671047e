//! ListTransactions (66), versions 0 and 1: filtered by state, producer id, how long they have been open, and
//! the caller's right to describe them.

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId};

use super::k65_describe_transactions::name_of;
use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::transactions::{State, Transaction};
use crate::wire::{Error, Reply, text};

/// All that Kafka knows; a filter may name those that do not occur here.
const STATES: [&str; 7] =
    ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "PrepareEpochFence"];

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ListTransactionsRequest = request.decode()?;
    let now = shared.groups.time();
    let may = |id: &str| shared.may_transact(&request.caller, Operation::Describe, id);
    let wanted = |found: &Transaction| {
        let state = name_of(found.state);
        (asked.state_filters.is_empty() || asked.state_filters.iter().any(|s| **s == *state))
            && (asked.producer_id_filters.is_empty()
                || asked.producer_id_filters.contains(&ProducerId(found.producer_id)))
            && (asked.duration_filter < 0
                || (found.state == State::Ongoing && now.saturating_sub(found.since) > asked.duration_filter))
    };
    let mut states: Vec<TransactionState> = shared.transactions.look(|machine| {
        let listed = machine.all().filter(|(id, found)| wanted(found) && may(id)).map(|(id, found)| {
            TransactionState::default()
                .with_transactional_id(text(id))
                .with_producer_id(ProducerId(found.producer_id))
                .with_transaction_state(text(name_of(found.state)))
        });
        listed.collect()
    });
    states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    let unknown = asked.state_filters.iter().filter(|s| !STATES.contains(&&***s)).cloned().collect();
    let response =
        ListTransactionsResponse::default().with_unknown_state_filters(unknown).with_transaction_states(states);
    request.respond(&response)
}

//! ListTransactions (66), versions 0 to 2: filtered by state, producer id, how long they have been open, (v2) a regular
//! expression for the whole transactional id, in RE2's dialect, and the caller's right to describe them.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId};

use regex::{Regex, RegexBuilder};

use super::k65_describe_transactions::name_of;
use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::transactions::{State, Transaction};
use crate::wire::{Error, Reply, text};

/// A compiled expression takes no more memory than this.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// All that Kafka knows; a filter may name those that do not occur here.
const STATES: [&str; 7] =
    ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "PrepareEpochFence"];

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ListTransactionsRequest = request.decode()?;
    let pattern = match asked.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
        None => None,
        Some(pattern) => match whole(pattern) {
            Some(pattern) => Some(pattern),
            None => {
                let code = ResponseError::InvalidRegularExpression.code();
                return request.respond(&ListTransactionsResponse::default().with_error_code(code));
            }
        },
    };
    let now = shared.transactions.time();
    // As Kafka counts it, one that has not begun has been open for ever.
    let began = |found: &Transaction| if found.state == State::Ongoing { found.since } else { -1 };
    let may = |id: &str| shared.may_transact(&request.caller, Operation::Describe, id);
    // Looked up and not searched through, since every transaction is held against them.
    let wanted_states: HashSet<&str> = asked.state_filters.iter().map(|s| s.as_str()).collect();
    let producers: HashSet<ProducerId> = asked.producer_id_filters.iter().copied().collect();
    let wanted = |found: &Transaction| {
        let state = name_of(found.state);
        (asked.state_filters.is_empty() || wanted_states.contains(state))
            && (producers.is_empty() || producers.contains(&ProducerId(found.producer_id)))
            && (asked.duration_filter < 0 || now.saturating_sub(began(found)) > asked.duration_filter)
    };
    // Rights and expressions take their time, in which transactions go on.
    let mut found: Vec<(String, i64, State)> = shared.transactions.look(|machine| {
        let wanted = machine.all().filter(|(_, found)| wanted(found));
        wanted.map(|(id, found)| (id.to_owned(), found.producer_id, found.state)).collect()
    });
    let named = |id: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(id));
    found.retain(|(id, ..)| may(id) && named(id));
    let listed = found.into_iter().map(|(id, producer_id, state)| {
        TransactionState::default()
            .with_transactional_id(text(&id))
            .with_producer_id(ProducerId(producer_id))
            .with_transaction_state(text(name_of(state)))
    });
    let mut states: Vec<TransactionState> = listed.collect();
    states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    let unknown = asked.state_filters.iter().filter(|s| !STATES.contains(&&***s)).cloned().collect();
    let response =
        ListTransactionsResponse::default().with_unknown_state_filters(unknown).with_transaction_states(states);
    request
        .respond_within(shared, response, |refusal| ListTransactionsResponse::default().with_error_code(refusal.code()))
}

/// An expression that matches all of a text or nothing.
fn whole(pattern: &str) -> Option<Regex> {
    // By itself first, so that it cannot close the group that it is put into.
    let compiled = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok();
    compiled(pattern)?;
    compiled(&format!("^(?:{pattern})$"))
}

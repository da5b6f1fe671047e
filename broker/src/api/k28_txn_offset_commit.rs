//! TxnOffsetCommit (28), versions 0 to 5: offsets that count when the transaction is committed.
//!
//! Until then they are kept with the transaction, and the group's offsets stay what they were. From version 3 on the
//! member is held against its group as with any commit. A fenced producer is told that its epoch is invalid, in all
//! versions. From version 5 on the group joins the transaction by itself, which may begin with it. Version 4 knows of
//! transactions that can only be aborted, which one that does not include the group is.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::topics::partition;
use super::{Refusal, Request, Shared, code_of_group, code_of_transaction};
use crate::groups::{Committed, GroupError, OffsetKey};
use crate::security::acl::Operation;
use crate::transactions::TransactionError;
use crate::wire::{Error, Reply};

/// First version whose group joins the transaction by itself.
const JOINS: i16 = 5;
/// First version whose clients know that a transaction can only be aborted.
const ABORTABLE: i16 = 4;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: TxnOffsetCommitRequest = request.decode()?;
    let mut offsets = Vec::new();
    let mut failures = Vec::new();
    for topic in &asked.topics {
        let may = shared.check_topic(&request.caller, Operation::Read, &topic.name);
        for p in &topic.partitions {
            let metadata = p.committed_metadata.as_deref().unwrap_or_default();
            let found = may.clone().and_then(|()| partition(&shared.storage, &topic.name, p.partition_index));
            let found = match found {
                Err(refusal) => Err(refusal.error),
                Ok(_) if !shared.settings.groups.allows_metadata(metadata) => {
                    Err(code_of_group(GroupError::OffsetMetadataTooLarge))
                }
                Ok((found, _)) => Ok(found.id),
            };
            if let Ok(topic_id) = found {
                let key = OffsetKey { topic: topic.name.to_string(), partition: p.partition_index };
                let committed = Committed {
                    topic_id,
                    offset: p.committed_offset,
                    leader_epoch: p.committed_leader_epoch,
                    metadata: metadata.to_owned(),
                    committed_at: shared.groups.time(),
                    expires_at: -1,
                };
                offsets.push((key, committed));
            }
            failures.push(found.err());
        }
    }
    let for_all = match may(shared, request, &asked) {
        Ok(()) => add(shared, &asked, offsets, request.head.version).await.err(),
        Err(refusal) => {
            failures.iter_mut().for_each(|failure| *failure = None);
            Some(refusal.error)
        }
    };
    let mut failures = failures.into_iter();
    let topics = asked.topics.into_iter().map(|topic| {
        let answer = |(index, failure): (i32, Option<ResponseError>)| {
            let code = failure.or(for_all).map_or(0, |e| e.code());
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        };
        let partitions = topic.partitions.iter().map(|p| p.partition_index).zip(&mut failures).map(answer).collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    request.respond(&TxnOffsetCommitResponse::default().with_topics(topics.collect()))
}

fn may(shared: &Shared, request: &Request, asked: &TxnOffsetCommitRequest) -> Result<(), Refusal> {
    shared.check_transact(&request.caller, Operation::Write, &asked.transactional_id)?;
    shared.check_group(&request.caller, Operation::Read, &asked.group_id)
}

async fn add(
    shared: &Shared,
    asked: &TxnOffsetCommitRequest,
    offsets: Vec<(OffsetKey, Committed)>,
    version: i16,
) -> Result<(), ResponseError> {
    let (group, member, instance) = (&asked.group_id, &asked.member_id, asked.group_instance_id.as_deref());
    shared
        .groups
        .may_commit_in_transaction(group, member, instance, asked.generation_id, &offsets)
        .map_err(code_of_group)?;
    let producer = (asked.producer_id.0, asked.producer_epoch);
    let (id, joins) = (&asked.transactional_id, version >= JOINS);
    let added = shared.transactions.add_offsets(id, producer, group.to_string(), joins, offsets).await;
    added.map_err(|e| match e {
        TransactionError::InvalidState if version >= ABORTABLE => ResponseError::TransactionAbortable,
        e => code_of_transaction(e, 0, i16::MAX),
    })
}

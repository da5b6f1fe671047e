//! Produce (0), versions 3 to 12 (advertised from 0, see the table).
//!
//! Each partition's batch is checked, queued and answered by itself. acks=0 gets no response, and an error then ends the
//! connection; acks=1 and acks=all are answered after the commit, as durable as storage is set. Topics that a table
//! writes refuse other writers. Ignored: timeout_ms (a commit is not given up half way), transactional_id (the batches say
//! whose transaction they are of, and the partition knows whether it is open).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};

use super::topics::partition;
use super::{Refusal, Request, Shared, Stage};
use crate::batch::{BatchHeader, Codec};
use crate::security::acl::Operation;
use crate::storage::{Appended, PendingAppend, StorageError};
use crate::wire::{Reply, text};

/// A partition's batch, queued or refused.
struct Queued {
    index: i32,
    pending: Result<PendingAppend, Failed>,
}

struct Failed {
    refusal: Refusal,
    records: Vec<(i32, String)>,
}

impl From<StorageError> for Failed {
    fn from(mut error: StorageError) -> Self {
        let records = match &mut error {
            StorageError::InvalidRecord { records, .. } | StorageError::InvalidTimestamp { records, .. } => {
                std::mem::take(records)
            }
            _ => Vec::new(),
        };
        Self { refusal: error.into(), records }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, records: Vec::new() }
    }
}

pub(super) async fn handle(shared: &Shared, request: Request) -> Stage {
    let asked: ProduceRequest = match request.decode() {
        Ok(asked) => asked,
        Err(error) => return Stage::Done(Reply::Close(error.to_string())),
    };
    let acks = asked.acks;
    let refusal = refuse_all(shared, &request, &asked);
    let mut topics = Vec::with_capacity(asked.topic_data.len());
    for topic in asked.topic_data {
        let guarded = match shared.check_topic(&request.caller, Operation::Write, &topic.name) {
            Err(refusal) => Some(refusal),
            Ok(()) => {
                let why = shared.guard.refuse_write(&topic.name);
                why.map(|why| Refusal::new(ResponseError::TopicAuthorizationFailed, why))
            }
        };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let pending = match (&refusal, &guarded) {
                (Some(refusal), _) => Err(refusal.clone().into()),
                (None, Some(refusal)) => Err(refusal.clone().into()),
                (None, None) => {
                    let records = data.records.unwrap_or_default();
                    queue(shared, &topic.name, data.index, records, request.head.version).await
                }
            };
            if pending.is_err() {
                shared.metrics.batch_refused();
            }
            partitions.push(Queued { index: data.index, pending });
        }
        topics.push((topic.name, partitions));
    }
    Stage::Later(Box::pin(finish(request, acks, topics)))
}

/// What every partition is refused for. Batches of a transaction need the right to its id.
fn refuse_all(shared: &Shared, request: &Request, asked: &ProduceRequest) -> Option<Refusal> {
    if !(-1..=1).contains(&asked.acks) {
        let message = format!("acks is {}, not -1, 0 or 1", asked.acks);
        return Some(Refusal::new(ResponseError::InvalidRequiredAcks, message));
    }
    let id = asked.transactional_id.as_deref();
    let may = || id.is_some_and(|id| shared.may_transact(&request.caller, Operation::Write, id));
    if shared.authorizer.is_some() && has_transactional(asked) && !may() {
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        return Some(Refusal::new(error, "the transactional id may not be written with"));
    }
    None
}

fn has_transactional(asked: &ProduceRequest) -> bool {
    let mut records = asked.topic_data.iter().flat_map(|t| &t.partition_data).filter_map(|p| p.records.as_deref());
    records.any(|bytes| BatchHeader::parse(bytes).is_some_and(|header| header.is_transactional()))
}

async fn queue(
    shared: &Shared,
    name: &str,
    index: i32,
    records: bytes::Bytes,
    version: i16,
) -> Result<PendingAppend, Failed> {
    let (_, id) = partition(&shared.storage, name, index)?;
    let batch = shared.storage.prepare(id, &records)?;
    if version < 7 && batch.codec() == Codec::Zstd {
        let message = "zstd needs version 7 of produce requests";
        return Err(Refusal::new(ResponseError::UnsupportedCompressionType, message).into());
    }
    Ok(shared.storage.append(id, batch).await?)
}

async fn finish(request: Request, acks: i16, topics: Vec<(TopicName, Vec<Queued>)>) -> Reply {
    let mut responses = Vec::with_capacity(topics.len());
    let mut failed = None;
    for (name, partitions) in topics {
        let mut answers = Vec::with_capacity(partitions.len());
        for queued in partitions {
            let outcome = match queued.pending {
                Ok(pending) => pending.await.map_err(Failed::from),
                Err(failed) => Err(failed),
            };
            if let (Err(failure), None) = (&outcome, &failed) {
                failed = Some(failure.refusal.message.clone());
            }
            answers.push(answer(queued.index, outcome));
        }
        responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(answers));
    }
    match (acks, failed) {
        (0, None) => Reply::Silent,
        (0, Some(message)) => Reply::Close(format!("a produce request with acks=0 failed: {message}")),
        _ => request
            .respond(&ProduceResponse::default().with_responses(responses))
            .unwrap_or_else(|error| Reply::Close(error.to_string())),
    }
}

fn answer(index: i32, outcome: Result<Appended, Failed>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(appended) => response
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.log_append_time_ms)
            .with_log_start_offset(appended.log_start_offset),
        Err(failed) => {
            let record = |(index, message): (i32, String)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(index)
                    .with_batch_index_error_message(Some(text(&message)))
            };
            response
                .with_error_code(failed.refusal.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
                .with_record_errors(failed.records.into_iter().map(record).collect())
                .with_error_message(Some(text(&failed.refusal.message)))
        }
    }
}

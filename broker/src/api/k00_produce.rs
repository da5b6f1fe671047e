//! Produce (0), versions 3 to 13 (advertised from 0, see the table).
//!
//! Each partition's batch is checked, queued and answered by itself. acks=0 gets no response, and an error then ends the
//! connection; acks=1 and acks=all are answered after the commit, as durable as storage is set. Topics that a table
//! writes refuse other writers, internal topics all. From version 12 on partitions join the transaction that is written to them by
//! themselves; from version 13 on topics are named by their ids alone. Ignored: timeout_ms (a commit is not given up half
//! way), before version 12 transactional_id (the batches say whose transaction they are of, and the partition knows
//! whether it is open).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName, TransactionalId};
use millpond_types::ports::is_internal;
use millpond_types::{TopicId, TopicPartition};
use uuid::Uuid;

use super::{Refusal, Request, Shared, Stage, code_of_transaction};
use crate::batch::{BatchHeader, Codec};
use crate::security::acl::Operation;
use crate::storage::{Appended, PendingAppend, Storage, StorageError, Topic};
use crate::transactions::TransactionError;
use crate::wire::{Reply, text};

/// First version whose clients know that a transaction can only be aborted.
const ABORTABLE: i16 = 11;
/// First version whose partitions join the transaction by themselves.
const JOINS: i16 = 12;
/// First version that names topics by their ids.
const BY_ID: i16 = 13;

/// A partition's batch, queued or refused.
struct Queued {
    index: i32,
    place: Option<TopicPartition>,
    pending: Result<PendingAppend, Failed>,
}

/// Partitions that could not join their transaction.
type Refused = HashMap<TopicPartition, Refusal>;

struct Failed {
    refusal: Refusal,
    records: Vec<(i32, String)>,
    /// The log looked at it, so that its start is told.
    in_log: bool,
}

impl From<StorageError> for Failed {
    fn from(mut error: StorageError) -> Self {
        let records = match &mut error {
            StorageError::InvalidRecord { records, .. } | StorageError::InvalidTimestamp { records, .. } => {
                std::mem::take(records)
            }
            _ => Vec::new(),
        };
        let in_log = matches!(
            error,
            StorageError::InvalidRecord { .. }
                | StorageError::InvalidTimestamp { .. }
                | StorageError::InvalidProducerEpoch(_)
                | StorageError::OutOfOrderSequence(_)
        );
        Self { refusal: error.into(), records, in_log }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, records: Vec::new(), in_log: false }
    }
}

pub(super) async fn handle(shared: &Shared, mut request: Request) -> Stage {
    let asked: ProduceRequest = match request.decode() {
        Ok(asked) => asked,
        Err(error) => return Stage::Done(Reply::Close(error.to_string())),
    };
    // The batches are copied one after the other; the frame's memory is not to be held until they are written.
    request.body = Bytes::new();
    let (acks, version) = (asked.acks, request.head.version);
    let refusal = refuse_all(shared, &request, &asked);
    let refused = match (&refusal, &asked.transactional_id) {
        (None, Some(id)) if version >= JOINS => join(shared, &request, id, &asked.topic_data).await,
        _ => Refused::new(),
    };
    let abortable = version >= ABORTABLE && asked.transactional_id.is_some();
    let mut topics = Vec::with_capacity(asked.topic_data.len());
    for topic in asked.topic_data {
        let found = find(shared, &request, &topic);
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let index = data.index;
            let pending = match (&refusal, &found) {
                (Some(refusal), _) | (None, Err(refusal)) => Err(refusal.clone().into()),
                (None, Ok(found)) => queue(shared, found, data, version, &refused).await,
            };
            if pending.is_err() {
                shared.metrics.batch_refused();
            }
            let place = found.as_ref().ok().and_then(|topic| place(topic, index).ok());
            partitions.push(Queued { index, place, pending });
        }
        let name = TopicName(text(topic.name.as_str()));
        topics.push((name, topic.topic_id, partitions));
    }
    Stage::Later(Box::pin(finish(shared.storage.clone(), request, acks, abortable, topics)))
}

/// What every partition is refused for. Batches of a transaction need its id and the right to it.
fn refuse_all(shared: &Shared, request: &Request, asked: &ProduceRequest) -> Option<Refusal> {
    if !(-1..=1).contains(&asked.acks) {
        let message = format!("acks is {}, not -1, 0 or 1", asked.acks);
        return Some(Refusal::new(ResponseError::InvalidRequiredAcks, message));
    }
    let id = asked.transactional_id.as_deref();
    let may = || id.is_some_and(|id| shared.may_transact(&request.caller, Operation::Write, id));
    if (id.is_none() || shared.authorizer.is_some()) && has_transactional(asked) && !may() {
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        return Some(Refusal::new(error, "the transactional id may not be written with"));
    }
    None
}

fn has_transactional(asked: &ProduceRequest) -> bool {
    let mut records = asked.topic_data.iter().flat_map(|t| &t.partition_data).filter_map(|p| p.records.as_deref());
    records.any(|bytes| BatchHeader::parse(bytes).is_some_and(|header| header.is_transactional()))
}

/// The topic, if it may be written to.
fn find(shared: &Shared, request: &Request, asked: &TopicProduceData) -> Result<Arc<Topic>, Refusal> {
    let may = |name: &str| shared.check_topic(&request.caller, Operation::Write, name);
    let topic = if request.head.version >= BY_ID {
        let unknown = || Refusal::new(ResponseError::UnknownTopicId, "there is no topic with this id");
        let topic = shared.storage.find_topic_by_id(TopicId(*asked.topic_id.as_bytes())).ok_or_else(unknown)?;
        may(&topic.name)?;
        refuse_internal(&topic.name)?;
        topic
    } else {
        may(&asked.name)?;
        refuse_internal(&asked.name)?;
        let unknown = || {
            let message = format!("there is no topic \"{}\"", asked.name.as_str());
            Refusal::new(ResponseError::UnknownTopicOrPartition, message)
        };
        shared.storage.find_topic(&asked.name).ok_or_else(unknown)?
    };
    match shared.guard.refuse_write(&topic.name) {
        None => Ok(topic),
        Some(why) => Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why)),
    }
}

/// Whether there is such a topic or not.
fn refuse_internal(name: &str) -> Result<(), Refusal> {
    match is_internal(name) {
        false => Ok(()),
        true => {
            let message = format!("cannot append to internal topic \"{name}\"");
            Err(Refusal::new(ResponseError::InvalidTopicException, message))
        }
    }
}

fn place(topic: &Topic, index: i32) -> Result<TopicPartition, Refusal> {
    if index < 0 || index >= topic.partition_count() {
        let message = format!("there is no partition {index} of topic \"{}\"", topic.name);
        return Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message));
    }
    Ok(TopicPartition { topic: topic.id, partition: index })
}

/// Lets partitions join the transactions that are written to them, with one change for each producer; says which could
/// not.
async fn join(shared: &Shared, request: &Request, id: &TransactionalId, topics: &[TopicProduceData]) -> Refused {
    let mut joining: BTreeMap<(i64, i16), Vec<TopicPartition>> = BTreeMap::new();
    for asked in topics {
        // What is not found is refused when its turn comes.
        let Ok(topic) = find(shared, request, asked) else { continue };
        for data in &asked.partition_data {
            let Ok(place) = place(&topic, data.index) else { continue };
            let header = data.records.as_ref().and_then(|records| BatchHeader::parse(records));
            let Some(header) = header.filter(BatchHeader::is_transactional) else { continue };
            let producer = (header.producer_id, header.producer_epoch);
            if !shared.storage.in_transaction(place, producer).unwrap_or(true) {
                joining.entry(producer).or_default().push(place);
            }
        }
    }
    let mut refused = Refused::new();
    for (producer, places) in joining {
        if let Err(error) = shared.transactions.add_partitions(id, producer, places.clone(), true).await {
            let code = match error {
                // The only code for it that producers know.
                TransactionError::Fenced => ResponseError::InvalidProducerEpoch,
                // One that they try again after.
                TransactionError::NotPersisted => ResponseError::NotEnoughReplicas,
                other => code_of_transaction(other, request.head.version, 0),
            };
            let refusal = Refusal::new(code, format!("the partition cannot join the transaction: {error}"));
            refused.extend(places.into_iter().map(|place| (place, refusal.clone())));
        }
    }
    refused
}

async fn queue(
    shared: &Shared,
    topic: &Topic,
    data: PartitionProduceData,
    version: i16,
    refused: &Refused,
) -> Result<PendingAppend, Failed> {
    let id = place(topic, data.index)?;
    if let Some(refusal) = refused.get(&id) {
        return Err(refusal.clone().into());
    }
    let records = data.records.unwrap_or_default();
    if records.is_empty() {
        let message = "a produce request holds a batch for each partition, and here is none";
        return Err(Refusal::new(ResponseError::InvalidRecord, message).into());
    }
    // As it was sent: the topic may have it kept otherwise.
    if version < 7 && BatchHeader::parse(&records).is_some_and(|header| header.codec() == Some(Codec::Zstd)) {
        let message = "zstd needs version 7 of produce requests";
        return Err(Refusal::new(ResponseError::UnsupportedCompressionType, message).into());
    }
    let batch = shared.storage.prepare(id, &records).await?;
    Ok(shared.storage.append(id, batch).await?)
}

async fn finish(
    storage: Storage,
    request: Request,
    acks: i16,
    abortable: bool,
    topics: Vec<(TopicName, Uuid, Vec<Queued>)>,
) -> Reply {
    let mut responses = Vec::with_capacity(topics.len());
    let mut failed = None;
    for (name, id, partitions) in topics {
        let mut answers = Vec::with_capacity(partitions.len());
        for queued in partitions {
            let mut outcome = match queued.pending {
                Ok(pending) => pending.await.map_err(Failed::from),
                Err(failed) => Err(failed),
            };
            if let Err(Failed { refusal, .. }) = &mut outcome
                && abortable
                && refusal.error == ResponseError::InvalidTxnState
            {
                refusal.error = ResponseError::TransactionAbortable;
            }
            if let (Err(failure), None) = (&outcome, &failed) {
                failed = Some(failure.refusal.message.clone());
            }
            let start = match &outcome {
                Err(Failed { in_log: true, .. }) => {
                    queued.place.and_then(|place| storage.partition_offsets(place).ok())
                }
                _ => None,
            };
            answers.push(answer(queued.index, outcome, start.map_or(-1, |offsets| offsets.start)));
        }
        let response = TopicProduceResponse::default().with_partition_responses(answers);
        responses.push(if request.head.version >= BY_ID {
            response.with_topic_id(id)
        } else {
            response.with_name(name)
        });
    }
    match (acks, failed) {
        (0, None) => Reply::Silent,
        (0, Some(message)) => Reply::Close(format!("a produce request with acks=0 failed: {message}")),
        _ => request
            .respond(&ProduceResponse::default().with_responses(responses))
            .unwrap_or_else(|error| Reply::Close(error.to_string())),
    }
}

fn answer(index: i32, outcome: Result<Appended, Failed>, start: i64) -> PartitionProduceResponse {
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
                .with_log_start_offset(start)
                .with_record_errors(failed.records.into_iter().map(record).collect())
                .with_error_message(Some(text(&failed.refusal.message)))
        }
    }
}

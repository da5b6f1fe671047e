//! DeleteRecords (21), versions 0 to 2: moves the start of a log forward, where the topic's policy has `delete`. Ignored:
//! timeout_ms.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use millpond_types::ports::is_internal;

use super::topics::partition;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DeleteRecordsRequest = request.decode()?;
    let mut topics = Vec::with_capacity(asked.topics.len());
    for topic in asked.topics {
        let may = shared.check_topic(&request.caller, Operation::Delete, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for p in &topic.partitions {
            let response = DeleteRecordsPartitionResult::default().with_partition_index(p.partition_index);
            let deleted = match &may {
                Ok(()) => delete(shared, &topic.name, p.partition_index, p.offset).await,
                Err(refusal) => Err(refusal.clone()),
            };
            partitions.push(match deleted {
                Ok(low) => response.with_low_watermark(low),
                Err(refusal) => response.with_low_watermark(-1).with_error_code(refusal.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    request.respond(&DeleteRecordsResponse::default().with_topics(topics))
}

async fn delete(shared: &Shared, name: &str, index: i32, before: i64) -> Result<i64, Refusal> {
    if is_internal(name) {
        let message = format!("records of internal topic \"{name}\" are not deleted");
        return Err(Refusal::new(ResponseError::InvalidTopicException, message));
    }
    let (topic, id) = partition(&shared.storage, name, index)?;
    if !topic.settings.deleted {
        let message = format!("topic \"{name}\" is compacted, and its records are not deleted");
        return Err(Refusal::new(ResponseError::PolicyViolation, message));
    }
    Ok(shared.storage.delete_records(id, before).await?)
}

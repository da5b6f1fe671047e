//! CreatePartitions (37), versions 0 to 3. Ignored: timeout_ms.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{BrokerId, CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Refusal, Request, Shared};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: CreatePartitionsRequest = request.decode()?;
    let mut results = Vec::with_capacity(asked.topics.len());
    for topic in asked.topics {
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match create(shared, &topic, asked.validate_only).await {
            Ok(()) => result,
            Err(refusal) => result.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
        });
    }
    request.respond(&CreatePartitionsResponse::default().with_results(results))
}

async fn create(shared: &Shared, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    let name = asked.name.as_str();
    let topic = shared
        .storage
        .find_topic(name)
        .ok_or_else(|| Refusal::new(ResponseError::UnknownTopicOrPartition, format!("there is no topic \"{name}\"")))?;
    let current = topic.partition_count();
    if asked.count <= current {
        let message = format!("topic \"{name}\" has {current} partitions, which {} would not increase", asked.count);
        return Err(Refusal::new(ResponseError::InvalidPartitions, message));
    }
    if let Some(assignments) = &asked.assignments {
        let node = BrokerId(shared.storage.node_id());
        let added = i64::from(asked.count) - i64::from(current);
        if assignments.len() as i64 != added || assignments.iter().any(|a| a.broker_ids != [node]) {
            let message = format!("each of the {added} new partitions must be assigned to broker {} alone", node.0);
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        }
    }
    if !validate_only {
        shared.storage.add_partitions(topic.id, asked.count).await?;
    }
    Ok(())
}

//! CreatePartitions (37), versions 0 to 3. Who names a topic twice is refused for it. Ignored: timeout_ms.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{BrokerId, CreatePartitionsRequest, CreatePartitionsResponse};

use super::topics::{count_changes, over_limit};
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

/// First version whose clients know of a quota that is used up.
const QUOTA_STRICT_SINCE: i16 = 3;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: CreatePartitionsRequest = request.decode()?;
    let mut results = Vec::with_capacity(asked.topics.len());
    let mut seen = BTreeSet::new();
    let names = asked.topics.iter().map(|t| &t.name);
    let twice: BTreeSet<_> = names.filter(|name| !seen.insert(name.as_str())).cloned().collect();
    let mut answered = BTreeSet::new();
    for topic in asked.topics {
        if !answered.insert(topic.name.clone()) {
            continue;
        }
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        let created = match shared.check_topic(&request.caller, Operation::Alter, &topic.name) {
            Ok(()) if twice.contains(&topic.name) => {
                Err(Refusal::new(ResponseError::InvalidRequest, "the request names this topic more than once"))
            }
            Ok(()) => create(shared, request, &topic, asked.validate_only).await,
            Err(refusal) => Err(refusal),
        };
        results.push(match created {
            Ok(()) => result,
            Err(refusal) => result.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
        });
    }
    request.respond(&CreatePartitionsResponse::default().with_results(results))
}

async fn create(
    shared: &Shared,
    request: &Request,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
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
    shared.storage.check_more_partitions(&topic, asked.count).map_err(over_limit)?;
    if !validate_only {
        count_changes(shared, request, asked.count - current, QUOTA_STRICT_SINCE)?;
        shared.storage.add_partitions(topic.id, asked.count).await?;
    }
    Ok(())
}

//! CreateTopics (19), versions 2 to 7. Every topic succeeds or fails by itself.
//!
//! Assignments are accepted where they name this broker alone for each partition. More replicas than one are
//! refused unless the settings allow it. Who may not describe the topic's settings is not told any. Ignored: timeout_ms.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, CreateTopicsResponse};
use millpond_types::ports::TopicSpec;
use uuid::Uuid;

use super::config_entries::value_of;
use super::topics::{count_changes, over_limit};
use super::{Refusal, Request, Shared};
use crate::configs::{TOPIC_CONFIGS, TopicConfig};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

/// What a setting takes in the answer, about.
const SETTING_BYTES: usize = 64;
/// First version whose clients know of a quota that is used up.
const QUOTA_STRICT_SINCE: i16 = 6;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: CreateTopicsRequest = request.decode()?;
    let all = shared.may_cluster(&request.caller, Operation::Create);
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> =
        asked.topics.iter().filter(|t| !seen.insert(t.name.as_str())).map(|t| t.name.to_string()).collect();
    let mut results: Vec<CreatableTopicResult> = Vec::with_capacity(asked.topics.len());
    let mut refused = BTreeSet::new();
    let mut left = shared.settings.answer_bytes_max;
    for topic in &asked.topics {
        if twice.contains(topic.name.as_str()) {
            if refused.insert(topic.name.as_str()) {
                let message = "the request names this topic more than once";
                results.push(failure(topic, &Refusal::new(ResponseError::InvalidRequest, message)));
            }
            continue;
        }
        let created = match all || shared.may_topic(&request.caller, Operation::Create, &topic.name) {
            true => create(shared, request, topic, asked.validate_only).await,
            false => Err(Refusal::new(ResponseError::TopicAuthorizationFailed, "authorization failed")),
        };
        results.push(match created {
            Ok(mut result) => {
                if !shared.may_topic(&request.caller, Operation::DescribeConfigs, &topic.name) {
                    result = secretive(result);
                }
                if request.head.version < 5 {
                    result.configs = None;
                }
                // The topic is there; what does not fit into the answer is its settings.
                let bytes = SETTING_BYTES * result.configs.as_ref().map_or(0, Vec::len);
                match left.checked_sub(bytes) {
                    Some(rest) => left = rest,
                    None => result = withheld(result, ResponseError::InvalidRequest),
                }
                result.with_name(topic.name.clone())
            }
            Err(refusal) => failure(topic, &refusal),
        });
    }
    request.respond(&CreateTopicsResponse::default().with_topics(results))
}

/// As for somebody who may create topics and not know their settings.
fn secretive(result: CreatableTopicResult) -> CreatableTopicResult {
    withheld(result, ResponseError::TopicAuthorizationFailed)
}

fn withheld(result: CreatableTopicResult, why: ResponseError) -> CreatableTopicResult {
    result
        .with_topic_config_error_code(why.code())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

fn failure(topic: &CreatableTopic, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(refusal.code())
        .with_error_message(Some(text(&refusal.message)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

async fn create(
    shared: &Shared,
    request: &Request,
    asked: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refusal> {
    let mut configs = BTreeMap::new();
    for config in &asked.configs {
        let value = config.value.as_ref().ok_or_else(|| {
            let message = format!("topic setting \"{}\" has no value", config.name.as_str());
            Refusal::new(ResponseError::InvalidConfig, message)
        })?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    let (partitions, replicas) = if asked.assignments.is_empty() {
        (asked.num_partitions, asked.replication_factor)
    } else {
        assigned(shared, asked)?
    };
    let why = |error| if partitions > 0 { over_limit(error) } else { error.into() };
    let spec = TopicSpec { name: asked.name.to_string(), partitions, replicas, configs };
    if validate_only {
        shared.storage.check_topic(&spec).map_err(why)?;
        let count = if partitions < 0 { shared.storage.default_partitions() } else { partitions };
        // An id that it might get; Kafka tells one too.
        return Ok(result(Uuid::new_v4(), count, replicas.max(1), entries(shared, &spec.configs)));
    }
    let count = if partitions < 0 { shared.storage.default_partitions() } else { partitions };
    count_changes(shared, request, count, QUOTA_STRICT_SINCE)?;
    // Told as they were asked for, as Kafka does, and not as they are kept.
    let asked_for = spec.configs.clone();
    let topic = shared.storage.create_topic(spec).await.map_err(why)?;
    let configs = entries(shared, &asked_for);
    Ok(result(Uuid::from_bytes(topic.id.0), topic.partition_count(), topic.replicas, configs))
}

/// Partitions and replicas by explicit assignments.
fn assigned(shared: &Shared, asked: &CreatableTopic) -> Result<(i32, i16), Refusal> {
    let node = BrokerId(shared.storage.node_id());
    let mut indexes: Vec<i32> = asked.assignments.iter().map(|a| a.partition_index).collect();
    indexes.sort_unstable();
    let in_order = indexes.iter().zip(0..).all(|(index, expected)| *index == expected);
    if !in_order || asked.assignments.iter().any(|a| a.broker_ids != [node]) {
        let message = format!("partitions 0 and up must each be assigned to broker {} alone", node.0);
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    }
    if asked.num_partitions != -1 || asked.replication_factor != -1 {
        let message = "with assignments, the partition count and the replication factor must be -1";
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    Ok((indexes.len() as i32, 1))
}

/// All settings of a topic that has these itself.
fn entries(shared: &Shared, own: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    let changed = shared.storage.broker_configs();
    let entry = |config: &TopicConfig| {
        let (value, source) = value_of(own.get(config.name), config, &changed);
        let entry = CreatableTopicConfigs::default().with_name(text(config.name)).with_value(Some(text(value)));
        entry.with_config_source(source)
    };
    TOPIC_CONFIGS.iter().map(entry).collect()
}

fn result(id: Uuid, partitions: i32, replicas: i16, configs: Vec<CreatableTopicConfigs>) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_topic_id(id)
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
        .with_configs(Some(configs))
}

//! DescribeConfigs (32), versions 1 to 4: topics, groups and this broker, all settings with their defaults, and what was
//! changed for all brokers. A group that is not there has the settings that it would have.
//!
//! Other kinds of resources, among them the broker's loggers, are refused.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::config_entries::{
    RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, of_broker, of_cluster, of_group, of_topic,
};
use super::topics::advertised;
use super::{Refusal, Request, Shared, too_much};
use crate::security::Caller;
use crate::security::acl::Operation;
use crate::storage::check_topic_name;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeConfigsRequest = request.decode()?;
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let mut seen = HashSet::new();
    let once = asked.resources.iter().filter(|r| seen.insert((r.resource_type, r.resource_name.clone())));
    let mut left = shared.settings.answer_bytes_max;
    let results = once.map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let may = shared.check_settings(&request.caller, Operation::DescribeConfigs, kind, name);
        let found = may.and_then(|()| entries(shared, &request.caller, resource, &asked)).and_then(|found| {
            // Before there are more of them, as they take much more than what they are asked for by.
            let bytes: usize = found.iter().map(bytes_of).sum();
            left = left.checked_sub(bytes).ok_or_else(|| too_much(shared.settings.answer_bytes_max))?;
            Ok(found)
        });
        match found {
            Ok(configs) => result.with_configs(configs),
            Err(refusal) => result.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
        }
    });
    request.respond(&DescribeConfigsResponse::default().with_results(results.collect()))
}

/// What a setting takes in the answer, about.
fn bytes_of(entry: &DescribeConfigsResourceResult) -> usize {
    let texts = entry.value.as_ref().map_or(0, |v| v.len()) + entry.documentation.as_ref().map_or(0, |d| d.len());
    let synonyms: usize =
        entry.synonyms.iter().map(|s| 16 + s.name.len() + s.value.as_ref().map_or(0, |v| v.len())).sum();
    32 + entry.name.len() + texts + synonyms
}

fn entries(
    shared: &Shared,
    caller: &Caller,
    resource: &DescribeConfigsResource,
    asked: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let name = resource.resource_name.as_str();
    let only: Option<Vec<&str>> =
        resource.configuration_keys.as_ref().map(|keys| keys.iter().map(|key| key.as_str()).collect());
    // None named are all.
    let only = only.filter(|keys: &Vec<&str>| !keys.is_empty());
    match resource.resource_type {
        RESOURCE_TOPIC => {
            check_topic_name(name)?;
            let topic = shared.storage.find_topic(name).ok_or_else(|| {
                Refusal::new(ResponseError::UnknownTopicOrPartition, format!("there is no topic \"{name}\""))
            })?;
            let changed = shared.storage.broker_configs();
            let (synonyms, docs) = (asked.include_synonyms, asked.include_documentation);
            Ok(of_topic(&topic, &changed, only.as_deref(), synonyms, docs))
        }
        RESOURCE_BROKER => {
            let node = shared.storage.node_id().to_string();
            if name.is_empty() {
                return Ok(of_cluster(shared, only.as_deref(), asked.include_synonyms, asked.include_documentation));
            }
            if name != node {
                let message = format!("there is no broker \"{name}\", only \"{node}\"");
                return Err(Refusal::new(ResponseError::InvalidRequest, message));
            }
            let (host, port) = advertised(caller);
            let listener = format!("{}://{host}:{port}", caller.listener.name);
            let (synonyms, docs) = (asked.include_synonyms, asked.include_documentation);
            Ok(of_broker(shared, &listener, only.as_deref(), synonyms, docs))
        }
        RESOURCE_GROUP if name.is_empty() => Err(Refusal::new(ResponseError::InvalidRequest, "the group id is empty")),
        RESOURCE_GROUP => {
            let (synonyms, docs) = (asked.include_synonyms, asked.include_documentation);
            Ok(of_group(shared, name, only.as_deref(), synonyms, docs))
        }
        other => {
            let message = format!("resources of type {other} have no settings here");
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
    }
}

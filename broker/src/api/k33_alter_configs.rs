//! AlterConfigs (33), versions 0 to 2: replaces all settings of a topic. Those of the broker cannot be changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::config_entries::RESOURCE_TOPIC;
use super::{Refusal, Request, Shared};
use crate::configs::check_topic_configs;
use crate::security::acl::Operation;
use crate::storage::Topic;
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AlterConfigsRequest = request.decode()?;
    let mut responses = Vec::with_capacity(asked.resources.len());
    for resource in &asked.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match alter(shared, request, resource, asked.validate_only).await {
            Ok(()) => response,
            Err(refusal) => response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
        });
    }
    request.respond(&AlterConfigsResponse::default().with_responses(responses))
}

async fn alter(
    shared: &Shared,
    request: &Request,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let topic = topic_of(shared, request, resource.resource_type, &resource.resource_name)?;
    let mut configs = BTreeMap::new();
    for config in &resource.configs {
        let value = config.value.as_ref().ok_or_else(|| {
            let message = format!("topic setting \"{}\" has no value", config.name.as_str());
            Refusal::new(ResponseError::InvalidConfig, message)
        })?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    replace(shared, &topic, configs, validate_only).await
}

/// The topic whose settings are to be changed, where the caller may.
pub(super) fn topic_of(
    shared: &Shared,
    request: &Request,
    resource_type: i8,
    name: &str,
) -> Result<Arc<Topic>, Refusal> {
    shared.check_settings(&request.caller, Operation::AlterConfigs, resource_type, name)?;
    if resource_type != RESOURCE_TOPIC {
        let message = format!("settings of \"{name}\" (resource type {resource_type}) cannot be changed while running");
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    shared
        .storage
        .find_topic(name)
        .ok_or_else(|| Refusal::new(ResponseError::UnknownTopicOrPartition, format!("there is no topic \"{name}\"")))
}

/// Checks a topic's settings and sets them.
pub(super) async fn replace(
    shared: &Shared,
    topic: &Topic,
    configs: BTreeMap<String, String>,
    validate_only: bool,
) -> Result<(), Refusal> {
    check_topic_configs(&configs).map_err(|message| Refusal::new(ResponseError::InvalidConfig, message))?;
    if !validate_only {
        shared.storage.set_topic_configs(topic.id, configs).await?;
    }
    Ok(())
}

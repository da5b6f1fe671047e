//! AlterConfigs (33), versions 0 to 2: replaces all settings of a topic, or all that were changed of the broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::config_entries::{RESOURCE_BROKER, RESOURCE_TOPIC};
use super::{Refusal, Request, Shared};
use crate::configs::{ChangedConfigs, ChangedFor, TopicConfig, changeable, check_topic_configs, topic_config};
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
    let target = target_of(shared, request, resource.resource_type, &resource.resource_name)?;
    let mut configs = BTreeMap::new();
    for config in &resource.configs {
        let value = config.value.as_ref().ok_or_else(|| target.invalid(config.name.as_str(), "has no value"))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    replace(shared, &target, configs, validate_only).await
}

/// Whose settings are to be changed.
pub(super) enum Target {
    Topic(Arc<Topic>),
    Broker(ChangedFor),
}

impl Target {
    /// The rules of a setting that can be changed here.
    pub fn config(&self, name: &str) -> Result<&'static TopicConfig, Refusal> {
        let found = match self {
            Self::Topic(_) => topic_config(name),
            Self::Broker(_) => changeable(name),
        };
        found.ok_or_else(|| match self {
            Self::Topic(_) => {
                Refusal::new(ResponseError::InvalidConfig, format!("there is no topic setting \"{name}\""))
            }
            Self::Broker(_) => {
                let message = format!("the broker's setting \"{name}\" cannot be changed while it runs");
                Refusal::new(ResponseError::InvalidRequest, message)
            }
        })
    }

    /// What was set here, without what it falls back on.
    pub fn configs(&self, shared: &Shared) -> BTreeMap<String, String> {
        match self {
            Self::Topic(topic) => topic.configs.clone(),
            Self::Broker(ChangedFor::Node) => shared.storage.broker_configs().node.clone(),
            Self::Broker(ChangedFor::Cluster) => shared.storage.broker_configs().cluster.clone(),
        }
    }

    /// What holds where nothing is set here.
    pub fn fallback(&self, shared: &Shared, name: &str, config: &TopicConfig) -> String {
        let changed = shared.storage.broker_configs();
        match self {
            Self::Topic(_) => changed.default_of(config).to_owned(),
            Self::Broker(ChangedFor::Node) => {
                changed.cluster.get(name).map_or(config.default, String::as_str).to_owned()
            }
            Self::Broker(ChangedFor::Cluster) => config.default.to_owned(),
        }
    }

    pub fn invalid(&self, name: &str, what: &str) -> Refusal {
        match self {
            Self::Topic(_) => Refusal::new(ResponseError::InvalidConfig, format!("topic setting \"{name}\" {what}")),
            Self::Broker(_) => {
                Refusal::new(ResponseError::InvalidRequest, format!("the broker's setting \"{name}\" {what}"))
            }
        }
    }
}

/// Where the caller may change them.
pub(super) fn target_of(shared: &Shared, request: &Request, resource_type: i8, name: &str) -> Result<Target, Refusal> {
    shared.check_settings(&request.caller, Operation::AlterConfigs, resource_type, name)?;
    let node = shared.storage.node_id().to_string();
    match resource_type {
        RESOURCE_TOPIC => shared.storage.find_topic(name).map(Target::Topic).ok_or_else(|| {
            Refusal::new(ResponseError::UnknownTopicOrPartition, format!("there is no topic \"{name}\""))
        }),
        RESOURCE_BROKER if name.is_empty() => Ok(Target::Broker(ChangedFor::Cluster)),
        RESOURCE_BROKER if name == node => Ok(Target::Broker(ChangedFor::Node)),
        RESOURCE_BROKER => {
            let message = format!("there is no broker \"{name}\", only \"{node}\", and \"\" for all of them");
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
        _ => {
            let message = format!("settings of \"{name}\" (resource type {resource_type}) cannot be changed");
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
    }
}

/// Checks settings and sets them in place of all that were set before.
pub(super) async fn replace(
    shared: &Shared,
    target: &Target,
    configs: BTreeMap<String, String>,
    validate_only: bool,
) -> Result<(), Refusal> {
    match target {
        Target::Topic(topic) => {
            check_topic_configs(&configs).map_err(|message| Refusal::new(ResponseError::InvalidConfig, message))?;
            if !validate_only {
                shared.storage.set_topic_configs(topic.id, configs).await?;
            }
        }
        Target::Broker(by) => {
            let mut changed = ChangedConfigs::clone(&shared.storage.broker_configs());
            match by {
                ChangedFor::Node => changed.node = configs,
                ChangedFor::Cluster => changed.cluster = configs,
            }
            changed.check().map_err(|message| Refusal::new(ResponseError::InvalidRequest, message))?;
            if !validate_only {
                shared.storage.set_broker_configs(changed).await?;
            }
        }
    }
    Ok(())
}

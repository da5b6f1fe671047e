//! AlterConfigs (33), versions 0 to 2: replaces all settings of a topic or a group, or all that were changed of the broker.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::config_entries::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, without_settings};
use super::{Refusal, Request, Shared};
use crate::configs::{
    ChangedConfigs, ChangedFor, TopicConfig, changeable, check_group_configs, check_topic_configs, group_config,
    topic_config,
};
use crate::security::acl::Operation;
use crate::storage::{Topic, check_topic_name};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AlterConfigsRequest = request.decode()?;
    let twice = named_twice(asked.resources.iter().map(|r| (r.resource_type, r.resource_name.clone())));
    let mut responses = Vec::with_capacity(asked.resources.len());
    for resource in &asked.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let altered = match twice.contains(&(resource.resource_type, resource.resource_name.clone())) {
            true => Err(Refusal::new(ResponseError::InvalidRequest, NAMED_TWICE)),
            false => alter(shared, request, resource, asked.validate_only).await,
        };
        responses.push(match altered {
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
        let value = config.value.as_ref().ok_or_else(|| no_value(config.name.as_str()))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    replace(shared, &target, configs, validate_only).await
}

pub(super) const NAMED_TWICE: &str = "the request names this resource more than once";

/// Type and name of the resources that a request has more than once.
pub(super) fn named_twice(named: impl Iterator<Item = (i8, StrBytes)>) -> HashSet<(i8, StrBytes)> {
    let mut seen = HashSet::new();
    named.filter(|resource| !seen.insert(resource.clone())).collect()
}

pub(super) fn no_value(name: &str) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, format!("setting \"{name}\" has no value"))
}

/// Whose settings are to be changed.
pub(super) enum Target {
    Topic(Arc<Topic>),
    Broker(ChangedFor),
    Group(String),
}

impl Target {
    /// The rules of a setting that can be changed here.
    pub fn config(&self, name: &str) -> Result<&'static TopicConfig, Refusal> {
        let found = match self {
            Self::Topic(_) => topic_config(name),
            Self::Broker(_) => changeable(name),
            Self::Group(_) => group_config(name),
        };
        found.ok_or_else(|| match self {
            Self::Topic(_) => {
                Refusal::new(ResponseError::InvalidConfig, format!("there is no topic setting \"{name}\""))
            }
            Self::Group(_) => {
                Refusal::new(ResponseError::InvalidConfig, format!("there is no group setting \"{name}\""))
            }
            Self::Broker(_) => {
                let message = format!("the broker's setting \"{name}\" cannot be changed while it runs");
                Refusal::new(ResponseError::InvalidRequest, message)
            }
        })
    }

    /// Whether a setting can be taken back, which is no news where it was never set.
    pub fn forgets(&self, name: &str) -> bool {
        !matches!(self, Self::Broker(_)) || self.config(name).is_ok()
    }

    /// What was set here, without what it falls back on.
    pub fn configs(&self, shared: &Shared) -> BTreeMap<String, String> {
        match self {
            Self::Topic(topic) => topic.configs.clone(),
            Self::Broker(ChangedFor::Node) => shared.storage.broker_configs().node.clone(),
            Self::Broker(ChangedFor::Cluster) => shared.storage.broker_configs().cluster.clone(),
            Self::Group(group) => shared.groups.configs(group),
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
            Self::Broker(ChangedFor::Cluster) | Self::Group(_) => config.default.to_owned(),
        }
    }

    pub fn invalid(&self, name: &str, what: &str) -> Refusal {
        match self {
            Self::Topic(_) => Refusal::new(ResponseError::InvalidConfig, format!("topic setting \"{name}\" {what}")),
            Self::Broker(_) => {
                Refusal::new(ResponseError::InvalidRequest, format!("the broker's setting \"{name}\" {what}"))
            }
            Self::Group(_) => Refusal::new(ResponseError::InvalidConfig, format!("group setting \"{name}\" {what}")),
        }
    }
}

/// Where the caller may change them.
pub(super) fn target_of(shared: &Shared, request: &Request, resource_type: i8, name: &str) -> Result<Target, Refusal> {
    shared.check_settings(&request.caller, Operation::AlterConfigs, resource_type, name)?;
    let node = shared.storage.node_id().to_string();
    match resource_type {
        RESOURCE_TOPIC if name.is_empty() => Err(Refusal::new(
            ResponseError::InvalidRequest,
            "topics have no settings in common; those of the broker are",
        )),
        RESOURCE_TOPIC => {
            check_topic_name(name)?;
            shared.storage.find_topic(name).map(Target::Topic).ok_or_else(|| {
                Refusal::new(ResponseError::UnknownTopicOrPartition, format!("there is no topic \"{name}\""))
            })
        }
        RESOURCE_BROKER if name.is_empty() => Ok(Target::Broker(ChangedFor::Cluster)),
        RESOURCE_BROKER if name == node => Ok(Target::Broker(ChangedFor::Node)),
        RESOURCE_BROKER => {
            let message = format!("there is no broker \"{name}\", only \"{node}\", and \"\" for all of them");
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
        RESOURCE_GROUP if name.is_empty() => Err(Refusal::new(
            ResponseError::InvalidRequest,
            "groups have no settings in common; those of the broker are",
        )),
        RESOURCE_GROUP => Ok(Target::Group(name.to_owned())),
        other => Err(without_settings(other)),
    }
}

/// Checks settings and sets them in place of all that were set before.
pub(super) async fn replace(
    shared: &Shared,
    target: &Target,
    mut configs: BTreeMap<String, String>,
    validate_only: bool,
) -> Result<(), Refusal> {
    for (name, value) in &mut configs {
        // What there is not is refused below.
        if let Ok(config) = target.config(name) {
            *value = config.plain(value);
        }
    }
    match target {
        Target::Topic(topic) => {
            check_topic_configs(&configs).map_err(|message| Refusal::new(ResponseError::InvalidConfig, message))?;
            if !validate_only {
                shared.storage.set_topic_configs(topic.id, configs).await?;
            }
        }
        Target::Group(group) => {
            let settings = &shared.settings.groups;
            check_group_configs(&configs, settings)
                .map_err(|message| Refusal::new(ResponseError::InvalidConfig, message))?;
            if !validate_only {
                shared.groups.set_configs(group, configs).await?;
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

//! DescribeConfigs (32), versions 1 to 4: topics, groups and this broker, all settings with their defaults, and what was
//! changed for all brokers. A group that is not there has the settings that it would have.
//!
//! Other kinds of resources, among them the broker's loggers, are refused.

use std::collections::HashSet;

use bytes::BufMut;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::protocol::Encodable;

use super::config_entries::{
    RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC, of_broker, of_cluster, of_group, of_topic, without_settings,
};
use super::k01_fetch::put_count;
use super::topics::advertised;
use super::{Refusal, Request, Shared, too_much};
use crate::security::Caller;
use crate::security::acl::Operation;
use crate::storage::check_topic_name;
use crate::wire::{Builder, Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeConfigsRequest = request.decode()?;
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let mut seen = HashSet::new();
    let once = asked.resources.iter().filter(|r| seen.insert((r.resource_type, r.resource_name.clone())));
    let once: Vec<&DescribeConfigsResource> = once.collect();
    let (version, max) = (request.head.version, shared.settings.answer_bytes_max);
    let unencoded = |e| Error::malformed(format!("response of api 32 v{version} not encoded: {e}"));
    // One after the other into the answer, which takes a small part of what they take: somebody may ask for all topics.
    let mut out = Builder::new(&request.head, request.flexible_head(), 64);
    out.head().put_i32(0);
    put_count(out.head(), once.len(), request.flexible_head());
    let mut left = max;
    for resource in once {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let may = shared.check_settings(&request.caller, Operation::DescribeConfigs, kind, name);
        let refused = |refusal: &Refusal| {
            result.clone().with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message)))
        };
        let mut told = match may.and_then(|()| entries(shared, &request.caller, resource, &asked)) {
            Ok(configs) => result.clone().with_configs(configs),
            Err(refusal) => refused(&refusal),
        };
        match left.checked_sub(told.compute_size(version).map_err(unencoded)?) {
            Some(rest) => left = rest,
            None => told = refused(&too_much(max)),
        }
        told.encode(out.head(), version).map_err(unencoded)?;
    }
    if request.flexible_head() {
        out.head().put_u8(0);
    }
    Ok(Reply::Response(out.finish()?))
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
        other => Err(without_settings(other)),
    }
}

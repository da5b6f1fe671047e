//! ListConfigResources (74), versions 0 and 1: what has settings, by kind. Version 0 asks for clients' metrics alone, of
//! which there are none. Groups are listed that have settings of their own.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::config_entries::{
    RESOURCE_BROKER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP, RESOURCE_LOGGER, RESOURCE_TOPIC,
};
use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

/// Kinds that Kafka lists and that have no settings here.
const OTHERS: [i8; 2] = [RESOURCE_LOGGER, RESOURCE_CLIENT_METRICS];

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ListConfigResourcesRequest = request.decode()?;
    let response = ListConfigResourcesResponse::default();
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::DescribeConfigs) {
        return request.respond(&response.with_error_code(refusal.code()));
    }
    if request.head.version == 0 {
        return request.respond(&response);
    }
    let known = |kind: &i8| matches!(*kind, RESOURCE_TOPIC | RESOURCE_BROKER | RESOURCE_GROUP) || OTHERS.contains(kind);
    if !asked.resource_types.iter().all(known) {
        return request.respond(&response.with_error_code(ResponseError::UnsupportedVersion.code()));
    }
    let wanted = |kind| asked.resource_types.is_empty() || asked.resource_types.contains(&kind);
    let resource = |kind, name: &str| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    let mut resources = Vec::new();
    if wanted(RESOURCE_TOPIC) {
        resources.extend(shared.storage.all_topics().iter().map(|topic| resource(RESOURCE_TOPIC, &topic.name)));
    }
    if wanted(RESOURCE_BROKER) {
        resources.push(resource(RESOURCE_BROKER, &shared.storage.node_id().to_string()));
    }
    if wanted(RESOURCE_GROUP) {
        resources.extend(shared.groups.configured().iter().map(|group| resource(RESOURCE_GROUP, group)));
    }
    request.respond_within(shared, response.with_config_resources(resources), |refusal| {
        ListConfigResourcesResponse::default().with_error_code(refusal.code())
    })
}

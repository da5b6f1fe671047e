//! IncrementalAlterConfigs (44), versions 0 and 1: sets, deletes, and appends to or takes from settings that are lists.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::k33_alter_configs::{NAMED_TWICE, named_twice, no_value, replace, target_of};
use super::{Refusal, Request, Shared};
use crate::configs::ConfigKind;
use crate::wire::{Error, Reply, text};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: IncrementalAlterConfigsRequest = request.decode()?;
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
    request.respond(&IncrementalAlterConfigsResponse::default().with_responses(responses))
}

async fn alter(
    shared: &Shared,
    request: &Request,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let target = target_of(shared, request, resource.resource_type, &resource.resource_name)?;
    let mut configs = target.configs(shared);
    let mut seen = BTreeSet::new();
    for change in &resource.configs {
        let name = change.name.as_str();
        if !seen.insert(name) {
            let message = format!("the request changes \"{name}\" more than once");
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        if change.config_operation == DELETE && target.forgets(name) {
            configs.remove(name);
            continue;
        }
        let config = target.config(name)?;
        let value = change.value.as_ref().ok_or_else(|| no_value(name))?;
        let is_list = config.kind == ConfigKind::List;
        let value = match change.config_operation {
            SET => value.to_string(),
            APPEND | SUBTRACT if !is_list => {
                return Err(target.invalid(name, "is not a list to append to or to take from"));
            }
            operation @ (APPEND | SUBTRACT) => {
                let current = configs.get(name).cloned().unwrap_or_else(|| target.fallback(shared, name, config));
                let mut items: Vec<&str> = split(&current).collect();
                for item in split(value) {
                    match (operation, items.contains(&item)) {
                        (APPEND, false) => items.push(item),
                        (SUBTRACT, true) => items.retain(|i| *i != item),
                        _ => {}
                    }
                }
                items.join(",")
            }
            other => {
                let message = format!("{other} is not an operation on a setting");
                return Err(Refusal::new(ResponseError::InvalidRequest, message));
            }
        };
        configs.insert(name.to_owned(), value);
    }
    replace(shared, &target, configs, validate_only).await
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

//! AlterClientQuotas (49), versions 0 and 1. Each entry is checked by itself; those that pass are changed together.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::EntryData;
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData as EntryResult};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::security::quota::{check, check_key, entity};
use crate::security::quotas::{Change, QuotaError};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AlterClientQuotasRequest = request.decode()?;
    let may = shared.check_cluster(&request.caller, Operation::AlterConfigs);
    let mut changes = Vec::new();
    let mut results: Vec<Result<(), Refusal>> = Vec::with_capacity(asked.entries.len());
    for entry in &asked.entries {
        let read = || change(entry).map_err(|message| Refusal::new(ResponseError::InvalidRequest, message));
        results.push(may.clone().and_then(|()| read()).map(|change| changes.push(change)));
    }
    if !asked.validate_only
        && !changes.is_empty()
        && let Err(error) = shared.quotas.change(changes).await
    {
        let refusal = match error {
            QuotaError::TooMany(message) => Refusal::new(ResponseError::PolicyViolation, message),
            QuotaError::Storage(error) => error.into(),
        };
        results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(refusal.clone()));
    }
    let entries = asked.entries.iter().zip(results).map(|(entry, result)| {
        let parts = entry.entity.iter().map(|part| {
            EntityData::default().with_entity_type(part.entity_type.clone()).with_entity_name(part.entity_name.clone())
        });
        let response = EntryResult::default().with_entity(parts.collect());
        match result {
            Ok(()) => response.with_error_message(None),
            Err(refusal) => response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
        }
    });
    request.respond(&AlterClientQuotasResponse::default().with_entries(entries.collect()))
}

fn change(entry: &EntryData) -> Result<Change, String> {
    let parts = entry.entity.iter().map(|part| (part.entity_type.as_str(), part.entity_name.as_deref()));
    let entity = entity(parts)?;
    let mut values: Vec<(String, Option<f64>)> = Vec::with_capacity(entry.ops.len());
    for op in &entry.ops {
        if values.iter().any(|(key, _)| *key == *op.key) {
            return Err(format!("the request changes the quota \"{}\" more than once", op.key.as_str()));
        }
        match op.remove {
            true => check_key(&entity, &op.key)?,
            false => check(&entity, &op.key, op.value)?,
        }
        values.push((op.key.to_string(), (!op.remove).then_some(op.value)));
    }
    Ok((entity, values))
}

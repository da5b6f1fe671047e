//! DescribeClientQuotas (48), versions 0 and 1.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::security::quota::{Entity, Filter, Limits, Match, PartKind};
use crate::wire::{Error, Reply, text};

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeClientQuotasRequest = request.decode()?;
    let found = shared
        .check_cluster(&request.caller, Operation::DescribeConfigs)
        .and_then(|()| filter(&asked))
        .map(|filter| shared.quotas.find(&filter));
    let response = match found {
        Ok(found) => DescribeClientQuotasResponse::default()
            .with_error_message(None)
            .with_entries(Some(found.iter().map(entry).collect())),
        Err(refusal) => DescribeClientQuotasResponse::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message)))
            .with_entries(None),
    };
    request.respond_within(shared, response, |refusal| {
        DescribeClientQuotasResponse::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message)))
            .with_entries(None)
    })
}

fn filter(asked: &DescribeClientQuotasRequest) -> Result<Filter, Refusal> {
    let invalid = |message: String| Refusal::new(ResponseError::InvalidRequest, message);
    let mut parts = BTreeMap::new();
    for component in &asked.components {
        let name = component.entity_type.as_str();
        if name.is_empty() {
            return Err(invalid("a part of the filter has no type".to_owned()));
        }
        let kind = PartKind::of_name(name).ok_or_else(|| {
            let message = format!("quotas are of \"user\", \"client-id\" and \"ip\", not of \"{name}\"");
            Refusal::new(ResponseError::UnsupportedVersion, message)
        })?;
        if parts.insert(kind, wanted(component).map_err(invalid)?).is_some() {
            return Err(invalid(format!("the filter names \"{name}\" twice")));
        }
    }
    if parts.len() > 1 && parts.contains_key(&PartKind::Address) {
        return Err(invalid("a quota of an ip cannot be of a user or client-id too".to_owned()));
    }
    Ok(Filter { parts, strict: asked.strict })
}

fn wanted(component: &ComponentData) -> Result<Match, String> {
    match (component.match_type, &component._match) {
        (EXACT, Some(name)) => Ok(Match::Name(name.to_string())),
        (EXACT, None) => Err("a filter for an exact name has none".to_owned()),
        (DEFAULT, None) => Ok(Match::Default),
        (ANY, None) => Ok(Match::Any),
        (DEFAULT | ANY, Some(_)) => Err("only a filter for an exact name has a name".to_owned()),
        (other, _) => Err(format!("a filter's match is exact (0), default (1) or any (2), not {other}")),
    }
}

fn entry((entity, limits): &(Entity, Limits)) -> EntryData {
    let part = |(kind, name): (&PartKind, &Option<String>)| {
        EntityData::default().with_entity_type(text(kind.name())).with_entity_name(name.as_deref().map(text))
    };
    let value = |(key, value): (&String, &f64)| ValueData::default().with_key(text(key)).with_value(*value);
    EntryData::default().with_entity(entity.iter().map(part).collect()).with_values(limits.iter().map(value).collect())
}

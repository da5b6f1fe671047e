//! DeleteTopics (20), versions 1 to 6: by name, from v6 on by id too. Who may not describe a topic
//! is not told whether it is there, nor how it is called. A topic that is named more than once, in either way, is refused
//! and stays. Ignored: timeout_ms.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use millpond_types::TopicId;
use uuid::Uuid;

use super::topics::count_changes;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::storage::Topic;
use crate::wire::{Error, Reply, text};

/// First version whose clients know of a quota that is used up.
const QUOTA_STRICT_SINCE: i16 = 5;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DeleteTopicsRequest = request.decode()?;
    let named = asked.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let states = asked.topics.into_iter().map(|state| (state.name, state.topic_id));
    let all: Vec<(Option<TopicName>, Uuid)> = named.chain(states).collect();
    let mut seen = HashSet::new();
    let twice: HashSet<_> = all.iter().filter(|target| !seen.insert(*target)).collect();
    // What is named by its name and by its id is one topic, told under its name.
    let may_know = |name: &TopicName| shared.may_topic(&request.caller, Operation::Describe, name);
    let ids = |name: &TopicName| {
        let topic = shared.storage.find_topic(name).filter(|_| may_know(name))?;
        Some(Uuid::from_bytes(topic.id.0))
    };
    let named: HashMap<Uuid, &TopicName> =
        all.iter().filter_map(|(name, _)| Some((ids(name.as_ref()?)?, name.as_ref()?))).collect();
    let doubled: HashSet<Uuid> =
        all.iter().filter(|(name, id)| name.is_none() && named.contains_key(id)).map(|(_, id)| *id).collect();
    let mut answered = HashSet::new();
    let mut responses = Vec::new();
    for target in &all {
        if !answered.insert(target) || target.0.is_none() && doubled.contains(&target.1) {
            continue;
        }
        let (name, id) = target;
        let refused = |name: Option<TopicName>, id: Uuid, refusal: Refusal| {
            DeletableTopicResult::default()
                .with_name(name)
                .with_topic_id(id)
                .with_error_code(refusal.code())
                .with_error_message(Some(text(&refusal.message)))
        };
        let invalid = |message: &str| Refusal::new(ResponseError::InvalidRequest, message);
        let response = match (name, id.is_nil()) {
            _ if twice.contains(target) => {
                refused(name.clone(), *id, invalid("the request names this topic more than once"))
            }
            (None, true) => refused(None, *id, invalid("neither a name nor an id says which topic")),
            (Some(_), false) => {
                refused(name.clone(), *id, invalid("a topic is named by its name or by its id, not both"))
            }
            (Some(name), true) if ids(name).is_some_and(|id| doubled.contains(&id)) => refused(
                Some(name.clone()),
                ids(name).unwrap_or_default(),
                invalid("the request has this topic's id too"),
            ),
            _ => match delete(shared, request, name.as_ref(), *id).await {
                Ok(topic) => DeletableTopicResult::default()
                    .with_name(Some(text(&topic.name)))
                    .with_topic_id(Uuid::from_bytes(topic.id.0)),
                Err(refusal) => refused(name.clone(), *id, refusal),
            },
        };
        responses.push(response);
    }
    if request.head.version < 6 {
        responses.iter_mut().for_each(|r| r.topic_id = Uuid::nil());
    }
    request.respond(&DeleteTopicsResponse::default().with_responses(responses))
}

async fn delete(shared: &Shared, request: &Request, name: Option<&TopicName>, id: Uuid) -> Result<Arc<Topic>, Refusal> {
    let all = shared.may_cluster(&request.caller, Operation::Delete);
    let may = |name: &str| match all {
        true => Ok(()),
        false => [Operation::Describe, Operation::Delete]
            .into_iter()
            .try_for_each(|operation| shared.check_topic(&request.caller, operation, name)),
    };
    name.map_or(Ok(()), |name| may(name))?;
    let topic = match name {
        Some(name) => shared.storage.find_topic(name).ok_or_else(|| {
            let message = format!("there is no topic \"{}\"", name.as_str());
            Refusal::new(ResponseError::UnknownTopicOrPartition, message)
        })?,
        None => shared
            .storage
            .find_topic_by_id(TopicId(*id.as_bytes()))
            .ok_or_else(|| Refusal::new(ResponseError::UnknownTopicId, "there is no topic with this id"))?,
    };
    may(&topic.name)?;
    if let Some(why) = shared.guard.refuse_delete(&topic.name) {
        return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why));
    }
    count_changes(shared, request, topic.partition_count(), QUOTA_STRICT_SINCE)?;
    shared.storage.delete_topic(topic.id).await?;
    Ok(topic)
}

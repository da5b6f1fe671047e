//! DeleteTopics (20), versions 1 to 6: by name, from v6 on by id too. Who may not describe a topic
//! is not told whether it is there, nor how it is called. Ignored: timeout_ms.

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
    let mut responses = Vec::new();
    for (name, id) in named.chain(states) {
        let response = DeletableTopicResult::default();
        responses.push(match delete(shared, request, name.as_ref(), id).await {
            Ok(topic) => response.with_name(Some(text(&topic.name))).with_topic_id(Uuid::from_bytes(topic.id.0)),
            Err(refusal) => response
                .with_name(name)
                .with_topic_id(id)
                .with_error_code(refusal.code())
                .with_error_message(Some(text(&refusal.message))),
        });
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

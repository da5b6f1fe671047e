//! Metadata (3), versions 0 to 13.
//!
//! One broker, which leads everything, at the address that the request came in on unless another is set. Topics named
//! that do not exist are created where the request, the settings, the caller's rights and quota allow it; of internal ones
//! `__consumer_offsets` alone, and where there are groups always. Topics can be named by id (v10 on). Topics that the caller
//! may not describe are left out of all, and refused where they are named, whether they exist or not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use millpond_types::TopicId;
use millpond_types::ports::{TopicSpec, is_internal};
use uuid::Uuid;

use super::access::NOT_ASKED;
use super::topics::{advertised, count_changes, missing_topic};
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::storage::{OFFSETS_TOPIC, OFFSETS_TOPIC_PARTITIONS, StorageError, Topic};
use crate::wire::{Error, Reply, text};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: MetadataRequest = request.decode()?;
    let look = Look { shared, request, operations: asked.include_topic_authorized_operations };
    let mut topics = Vec::new();
    match &asked.topics {
        Some(named) if !(named.is_empty() && request.head.version == 0) => {
            // Each once, so that the answer grows with what there is and not with how often it is asked for.
            let mut seen = HashSet::new();
            for topic in named.iter().filter(|topic| seen.insert((topic.name.as_ref(), topic.topic_id))) {
                topics.push(match &topic.name {
                    // Java's administration asks by an id with an empty name beside it.
                    Some(name) if topic.topic_id.is_nil() => look.by_name(name, asked.allow_auto_topic_creation).await,
                    _ => look.by_id(topic.topic_id),
                });
            }
        }
        _ => {
            let all = shared.storage.all_topics();
            topics.extend(all.iter().filter(|topic| look.may_see(&topic.name)).map(|topic| look.describe(topic)));
        }
    }
    let node = BrokerId(shared.storage.node_id());
    let (host, port) = advertised(&request.caller);
    let broker = MetadataResponseBroker::default().with_node_id(node).with_host(text(&host)).with_port(port);
    let cluster = match request.head.version {
        8..=10 if asked.include_cluster_authorized_operations => shared.cluster_operations(&request.caller),
        _ => NOT_ASKED,
    };
    let response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(shared.storage.cluster_id())))
        .with_controller_id(node)
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster);
    request.respond(&response)
}

/// Somebody's look at topics.
struct Look<'a> {
    shared: &'a Shared,
    request: &'a Request,
    /// Whether to tell which operations are allowed.
    operations: bool,
}

impl Look<'_> {
    fn may_see(&self, name: &str) -> bool {
        self.shared.may_topic(&self.request.caller, Operation::Describe, name)
    }

    async fn by_name(&self, name: &str, create: bool) -> MetadataResponseTopic {
        let shared = self.shared;
        if let Err(refusal) = shared.check_topic(&self.request.caller, Operation::Describe, name) {
            return failure(&refusal).with_name(Some(text(name))).with_is_internal(is_internal(name));
        }
        if let Some(topic) = shared.storage.find_topic(name) {
            return self.describe(&topic);
        }
        match missing_topic(shared, name).await {
            Some(Ok(topic)) => return self.describe(&topic),
            Some(Err(refusal)) => return failure(&refusal).with_name(Some(text(name))).with_is_internal(true),
            None => {}
        }
        let spec = TopicSpec { name: name.to_owned(), partitions: -1, replicas: -1, configs: BTreeMap::new() };
        let may_be_made = !is_internal(name) || name == OFFSETS_TOPIC;
        let refusal = if create && shared.settings.auto_create_topics && may_be_made {
            match self.create(spec).await {
                Ok(topic) => return self.describe(&topic),
                Err(refusal) => refusal,
            }
        } else if is_internal(name) {
            Refusal::new(ResponseError::UnknownTopicOrPartition, "there is no such topic")
        } else {
            match shared.storage.check_topic(&spec) {
                Err(error @ StorageError::InvalidTopic(_)) => error.into(),
                _ => Refusal::new(ResponseError::UnknownTopicOrPartition, "there is no such topic"),
            }
        };
        failure(&refusal).with_name(Some(text(name))).with_is_internal(is_internal(name))
    }

    async fn create(&self, spec: TopicSpec) -> Result<Arc<Topic>, Refusal> {
        let (shared, caller) = (self.shared, &self.request.caller);
        if !shared.may_cluster(caller, Operation::Create) {
            shared.check_topic(caller, Operation::Create, &spec.name)?;
        }
        let name = spec.name.clone();
        let for_offsets = name == OFFSETS_TOPIC;
        let partitions = if for_offsets { OFFSETS_TOPIC_PARTITIONS } else { shared.storage.default_partitions() };
        // Clients take this for a topic that is on its way, and ask again; older ones know no code for quotas.
        if count_changes(shared, self.request, partitions, 0).is_err() {
            let message = "the quota of partitions created and deleted is used up";
            return Err(Refusal::new(ResponseError::LeaderNotAvailable, message));
        }
        if for_offsets {
            return Ok(shared.storage.make_offsets_topic().await?);
        }
        match shared.storage.create_topic(spec).await {
            Ok(topic) => Ok(topic),
            Err(StorageError::TopicExists(_)) => {
                let again = || Refusal::new(ResponseError::LeaderNotAvailable, "the topic is being created");
                shared.storage.find_topic(&name).ok_or_else(again)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        let nameless = (self.request.head.version < 12).then(|| text(""));
        match self.shared.storage.find_topic_by_id(TopicId(*id.as_bytes())) {
            Some(topic) => match self.shared.check_topic(&self.request.caller, Operation::Describe, &topic.name) {
                Ok(()) => self.describe(&topic),
                Err(refusal) => failure(&refusal).with_name(nameless).with_topic_id(id),
            },
            None => {
                let refusal = Refusal::new(ResponseError::UnknownTopicId, "there is no topic with this id");
                failure(&refusal).with_name(nameless).with_topic_id(id)
            }
        }
    }

    fn describe(&self, topic: &Topic) -> MetadataResponseTopic {
        let storage = &self.shared.storage;
        let node = BrokerId(storage.node_id());
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(node)
                .with_leader_epoch(storage.leader_epoch())
                .with_replica_nodes(vec![node])
                .with_isr_nodes(vec![node])
        };
        let operations = match self.operations {
            true => self.shared.topic_operations(&self.request.caller, &topic.name),
            false => NOT_ASKED,
        };
        MetadataResponseTopic::default()
            .with_name(Some(text(&topic.name)))
            .with_topic_id(Uuid::from_bytes(topic.id.0))
            .with_is_internal(is_internal(&topic.name))
            .with_partitions((0..topic.partition_count()).map(partition).collect())
            .with_topic_authorized_operations(operations)
    }
}

fn failure(refusal: &Refusal) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(refusal.code()).with_topic_authorized_operations(NOT_ASKED)
}

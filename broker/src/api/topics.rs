//! Finding topics, checking epochs and counting changes of topics, as several APIs do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use millpond_types::TopicPartition;
use tokio::time::Instant;

use super::{Refusal, Request, Shared, brief};
use crate::security::Caller;
use crate::security::quotas::{Client, Measure};
use crate::storage::{OFFSETS_TOPIC, Storage, StorageError, Topic};

/// The partition of a topic, if there is one.
pub(super) fn partition(storage: &Storage, name: &str, index: i32) -> Result<(Arc<Topic>, TopicPartition), Refusal> {
    let unknown = || {
        let message = format!("there is no partition {index} of a topic \"{}\"", brief(name));
        Refusal::new(ResponseError::UnknownTopicOrPartition, message)
    };
    let topic = storage.find_topic(name).ok_or_else(unknown)?;
    if index < 0 || index >= topic.partition_count() {
        return Err(unknown());
    }
    let id = TopicPartition { topic: topic.id, partition: index };
    Ok((topic, id))
}

/// Topics and partitions that a request names, each once, in the order that it first names them in.
pub(super) fn merged(asked: impl Iterator<Item = (TopicName, Vec<i32>)>) -> Vec<(TopicName, Vec<i32>)> {
    let mut places: HashMap<TopicName, usize> = HashMap::new();
    let mut merged: Vec<(TopicName, Vec<i32>)> = Vec::new();
    for (name, indexes) in asked {
        let place = *places.entry(name.clone()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some((_, known)) => known.extend(indexes),
            None => merged.push((name, indexes)),
        }
    }
    for (_, indexes) in &mut merged {
        let mut seen = HashSet::with_capacity(indexes.len());
        indexes.retain(|index| seen.insert(*index));
    }
    merged
}

/// Holds the epoch that a client believes in against ours; -1 is not checked.
pub(super) fn check_epoch(storage: &Storage, epoch: i32) -> Result<(), Refusal> {
    let current = storage.leader_epoch();
    if epoch < 0 || epoch == current {
        Ok(())
    } else if epoch < current {
        Err(Refusal::new(ResponseError::FencedLeaderEpoch, format!("the leader epoch is {current}, not {epoch}")))
    } else {
        Err(Refusal::new(ResponseError::UnknownLeaderEpoch, format!("the leader epoch is {current}, not {epoch}")))
    }
}

/// The topic that a request names and that is not there, where it is the one of groups' offsets and there are groups: then
/// Kafka has it, whoever may create topics. It costs nothing until somebody looks for it, and is made then.
pub(super) async fn missing_topic(shared: &Shared, name: &str) -> Option<Result<Arc<Topic>, Refusal>> {
    if name != OFFSETS_TOPIC || !shared.groups.any() {
        return None;
    }
    Some(shared.storage.make_offsets_topic().await.map_err(Refusal::from))
}

/// A number of partitions that could be, and that a limit forbids.
pub(super) fn over_limit(error: StorageError) -> Refusal {
    match error {
        StorageError::InvalidPartitions(message) => Refusal::new(ResponseError::PolicyViolation, message),
        other => other.into(),
    }
}

/// Host and port that clients are told to connect to.
pub(super) fn advertised(caller: &Caller) -> (String, i32) {
    match &caller.listener.advertised {
        Some((host, port)) => (host.clone(), i32::from(*port)),
        None => (caller.local.ip().to_canonical().to_string(), i32::from(caller.local.port())),
    }
}

/// Bytes that the sender of a request may fetch at once by its quota.
pub(super) fn at_once(shared: &Shared, request: &Request) -> usize {
    let client = Client { user: request.caller.principal.name(), client_id: request.client_id() };
    // Only a number that is too large for any answer is cut.
    shared.quotas.at_once(client, Measure::Fetched).map_or(usize::MAX, |bytes| bytes as usize)
}

/// Counts partitions that a request creates or deletes against its sender's quota. From `strict_since` on a request that
/// comes before what was done earlier has drained is refused; older clients only wait.
pub(super) fn count_changes(
    shared: &Shared,
    request: &Request,
    partitions: i32,
    strict_since: i16,
) -> Result<(), Refusal> {
    if !shared.quotas.any() {
        return Ok(());
    }
    let client = Client { user: request.caller.principal.name(), client_id: request.client_id() };
    let now = Instant::now();
    let strict = request.head.version >= strict_since;
    if strict && !shared.quotas.owed(client, Measure::Mutations, now).is_zero() {
        let message = "the quota of partitions created and deleted is used up";
        return Err(Refusal::new(ResponseError::ThrottlingQuotaExceeded, message));
    }
    shared.quotas.used(client, Measure::Mutations, f64::from(partitions.max(1)), now);
    Ok(())
}

//! Finding topics and checking epochs, as several APIs do.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use millpond_types::TopicPartition;

use super::Refusal;
use crate::security::Caller;
use crate::storage::{Storage, Topic};

/// What "authorized operations" says when nobody asked.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// The partition of a topic, if there is one.
pub(super) fn partition(storage: &Storage, name: &str, index: i32) -> Result<(Arc<Topic>, TopicPartition), Refusal> {
    let unknown = || {
        let message = format!("there is no partition {index} of a topic \"{name}\"");
        Refusal::new(ResponseError::UnknownTopicOrPartition, message)
    };
    let topic = storage.find_topic(name).ok_or_else(unknown)?;
    if index < 0 || index >= topic.partition_count() {
        return Err(unknown());
    }
    let id = TopicPartition { topic: topic.id, partition: index };
    Ok((topic, id))
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

/// Host and port that clients are told to connect to.
pub(super) fn advertised(caller: &Caller) -> (String, i32) {
    match &caller.listener.advertised {
        Some((host, port)) => (host.clone(), i32::from(*port)),
        None => (caller.local.ip().to_canonical().to_string(), i32::from(caller.local.port())),
    }
}

/// All bits of operations that make sense, since there is no authorizer.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
pub(super) const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8]);

const fn bits(operations: &[u8]) -> i32 {
    let mut out = 0;
    let mut i = 0;
    while i < operations.len() {
        out |= 1 << operations[i];
        i += 1;
    }
    out
}

//! ListOffsets (2), versions 1 to 10.
//!
//! -1 the end (the last stable offset for read_committed), -2 the start, -3 (v7) the record with the greatest timestamp,
//! -4 (v8) the start again as nothing is tiered, -5 (v9) nothing for the same reason; otherwise the first record at or past
//! a time; markers of transactions are records too. A partition that is named twice is refused.
//! For read_committed a record that is not decided yet is not found by its time.
//! Ignored: replica_id, timeout_ms.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use super::topics::{check_epoch, partition};
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::storage::{ListedOffset, OffsetQuery, Storage};
use crate::wire::{Error, Reply};

const NOTHING: ListedOffset = ListedOffset { offset: -1, timestamp: -1, leader_epoch: -1 };

pub(super) async fn handle(shared: &Arc<Shared>, request: &Request) -> Result<Reply, Error> {
    let asked: ListOffsetsRequest = request.decode()?;
    let version = request.head.version;
    let denied: HashSet<TopicName> = asked
        .topics
        .iter()
        .filter(|t| !shared.may_topic(&request.caller, Operation::Describe, &t.name))
        .map(|t| t.name.clone())
        .collect();
    let on_disk = |p: &ListOffsetsPartition| p.timestamp >= 0 || p.timestamp == -3;
    if !asked.topics.iter().flat_map(|t| &t.partitions).any(on_disk) {
        return request.respond(&answer(&shared.storage, &asked, &denied, version));
    }
    let gone = || Error::malformed("the server is shutting down");
    let _lane = shared.disk_reads_by_address.enter(request.caller.host()).await;
    let _permit = shared.disk_reads.acquire().await.map_err(|_| gone())?;
    let storage = shared.storage.clone();
    let task = tokio::task::spawn_blocking(move || answer(&storage, &asked, &denied, version));
    request.respond(&task.await.map_err(|_| gone())?)
}

fn answer(
    storage: &Storage,
    asked: &ListOffsetsRequest,
    denied: &HashSet<TopicName>,
    version: i16,
) -> ListOffsetsResponse {
    let committed = asked.isolation_level == 1;
    let mut seen = HashSet::new();
    let places = asked.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (&t.name, p.partition_index)));
    let twice: HashSet<(&TopicName, i32)> = places.filter(|place| !seen.insert(*place)).collect();
    let mut answered = HashSet::new();
    let topics = asked.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().filter_map(|p| {
            let place = (&topic.name, p.partition_index);
            if !answered.insert(place) {
                return None;
            }
            let response = ListOffsetsPartitionResponse::default().with_partition_index(p.partition_index);
            let found = match denied.contains(&topic.name) {
                true => Err(Refusal::new(ResponseError::TopicAuthorizationFailed, "authorization failed")),
                false if twice.contains(&place) => {
                    Err(Refusal::new(ResponseError::InvalidRequest, "the request names the partition more than once"))
                }
                false => look(storage, &topic.name, p, committed, version),
            };
            Some(match found {
                Ok(found) => {
                    let epoch = if version >= 4 { found.leader_epoch } else { -1 };
                    response.with_offset(found.offset).with_timestamp(found.timestamp).with_leader_epoch(epoch)
                }
                Err(refusal) => {
                    response.with_error_code(refusal.code()).with_offset(-1).with_timestamp(-1).with_leader_epoch(-1)
                }
            })
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn look(
    storage: &Storage,
    name: &str,
    asked: &ListOffsetsPartition,
    committed: bool,
    version: i16,
) -> Result<ListedOffset, Refusal> {
    let (_, id) = partition(storage, name, asked.partition_index)?;
    check_epoch(storage, asked.current_leader_epoch)?;
    let query = match asked.timestamp {
        -1 if committed => OffsetQuery::LatestStable,
        -1 => OffsetQuery::Latest,
        -2 => OffsetQuery::Earliest,
        -3 if version >= 7 => OffsetQuery::MaxTimestamp,
        -4 if version >= 8 => OffsetQuery::Earliest,
        -5 if version >= 9 => return Ok(NOTHING),
        time if time >= 0 => OffsetQuery::Timestamp(time),
        other => {
            let message = format!("{other} is not a time, nor one of what version {version} can ask for");
            return Err(Refusal::new(ResponseError::UnsupportedVersion, message));
        }
    };
    let found = storage.list_offset(id, query)?;
    let by_time = matches!(query, OffsetQuery::Timestamp(_) | OffsetQuery::MaxTimestamp);
    if committed && by_time && found.offset >= storage.partition_offsets(id)?.stable_end {
        return Ok(NOTHING);
    }
    Ok(found)
}

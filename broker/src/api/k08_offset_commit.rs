//! OffsetCommit (8), versions 2 to 9.
//!
//! All offsets of a request are written at once. Partitions that do not exist and texts that are too long fail by
//! themselves. Groups of queries are read-only. retention_time_ms (v2 to v4) is honoured. Members of the consumer protocol
//! commit by v9 and their epoch.

use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::topics::partition;
use super::{Request, Shared, code_of_group};
use crate::groups::{Commit, Committed, GroupError, OffsetKey};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

/// Why a partition's offset cannot be committed, whatever its group says.
enum Failure {
    /// Told before what the group says.
    Place(i16),
    /// Told after it.
    Metadata,
}

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: OffsetCommitRequest = request.decode()?;
    let now = shared.groups.time();
    let expires_at = match asked.retention_time_ms {
        ms if ms >= 0 => now.saturating_add(ms),
        _ => -1,
    };
    let mut offsets = Vec::new();
    let mut codes = Vec::new();
    for topic in &asked.topics {
        let may = shared.check_topic(&request.caller, Operation::Read, &topic.name);
        for p in &topic.partitions {
            let metadata = p.committed_metadata.as_deref().unwrap_or_default();
            let found = may.clone().and_then(|()| partition(&shared.storage, &topic.name, p.partition_index));
            let checked = match found {
                Err(refusal) => Err(Failure::Place(refusal.code())),
                Ok(_) if !shared.settings.groups.allows_metadata(metadata) => Err(Failure::Metadata),
                Ok((found, _)) => Ok(found.id),
            };
            if let Ok(topic_id) = checked {
                let key = OffsetKey { topic: topic.name.to_string(), partition: p.partition_index };
                let committed = Committed {
                    topic_id,
                    offset: p.committed_offset,
                    leader_epoch: p.committed_leader_epoch,
                    metadata: metadata.to_owned(),
                    committed_at: now,
                    expires_at,
                };
                offsets.push((key, committed));
            }
            codes.push(checked.err());
        }
    }
    let mut for_all = false;
    let group_code = if let Err(refusal) = shared.check_group(&request.caller, Operation::Read, &asked.group_id) {
        for_all = true;
        refusal.code()
    } else if asked.group_id.is_empty() {
        code_of_group(GroupError::InvalidGroupId).code()
    } else {
        let (member, instance) = (&asked.member_id, asked.group_instance_id.as_deref());
        let way = if request.head.version >= 9 { Commit::ByEpoch } else { Commit::Classic };
        let generation = asked.generation_id_or_member_epoch;
        super::group_code(shared.groups.commit(&asked.group_id, member, instance, generation, way, offsets).await)
    };
    let mut codes = codes.into_iter();
    let topics = asked.topics.into_iter().map(|topic| {
        let answer = |(index, failure): (i32, Option<Failure>)| {
            let code = match failure {
                _ if for_all => group_code,
                Some(Failure::Place(code)) => code,
                _ if group_code != 0 => group_code,
                Some(Failure::Metadata) => code_of_group(GroupError::OffsetMetadataTooLarge).code(),
                None => 0,
            };
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        };
        let partitions = topic.partitions.iter().map(|p| p.partition_index).zip(&mut codes).map(answer).collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    request.respond(&OffsetCommitResponse::default().with_topics(topics.collect()))
}

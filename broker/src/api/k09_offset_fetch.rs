//! OffsetFetch (9), versions 1 to 9.
//!
//! An unknown group, and a partition without an offset, is no error: offset -1 and an empty text. Groups of queries
//! answer with their queries' cursors. With require_stable, an offset that an open transaction may yet change is
//! UNSTABLE_OFFSET_COMMIT. Who names a member of the consumer protocol (v9) is held against its epoch.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::topics::merged;
use super::{Refusal, Request, Shared, code_of_group, too_much};
use crate::groups::{Committed, OffsetKey};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

/// What is known of a partition's offset.
enum Offset {
    None,
    At(Committed),
    /// A transaction may yet change it.
    Unstable,
    /// The caller may not know of the topic.
    Denied,
}

type Found = Vec<(TopicName, Vec<(i32, Offset)>)>;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: OffsetFetchRequest = request.decode()?;
    let stable = asked.require_stable;
    // What was committed last may be in doubt: whoever begins anew asks again when that is known.
    let sure = shared.storage.check_sure();
    let sure = sure.map_err(|e| Refusal::new(ResponseError::CoordinatorLoadInProgress, e.to_string()));
    if request.head.version < 8 {
        if let Err(refusal) = &sure {
            return request.respond(&refuse(&asked, refusal, request.head.version));
        }
        if let Err(refusal) = shared.check_group(&request.caller, Operation::Describe, &asked.group_id) {
            return request.respond(&refuse(&asked, &refusal, request.head.version));
        }
        // Before version 2 a refusal names what was asked for.
        let again = OffsetFetchRequest::default().with_topics(asked.topics.clone());
        let named = asked.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let mut left = shared.settings.answer_bytes_max;
        let Some(found) = find(shared, request, &asked.group_id, named, stable, &mut left) else {
            return request.respond(&refuse(&again, &too_much(shared.settings.answer_bytes_max), request.head.version));
        };
        let topics = found.into_iter().map(|(name, partitions)| {
            let partition = |(index, offset): (i32, Offset)| {
                let response = OffsetFetchResponsePartition::default().with_partition_index(index);
                match &offset {
                    Offset::None => response.with_committed_offset(-1).with_metadata(Some(text(""))),
                    Offset::Unstable | Offset::Denied => response
                        .with_committed_offset(-1)
                        .with_metadata(Some(text("")))
                        .with_error_code(code_of_offset(&offset)),
                    Offset::At(c) => response
                        .with_committed_offset(c.offset)
                        .with_committed_leader_epoch(c.leader_epoch)
                        .with_metadata(Some(text(&c.metadata))),
                }
            };
            OffsetFetchResponseTopic::default()
                .with_name(name)
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        return request.respond(&OffsetFetchResponse::default().with_topics(topics.collect()));
    }
    let (mut seen, mut left) = (HashSet::new(), shared.settings.answer_bytes_max);
    let once = asked.groups.into_iter().filter(|group| seen.insert(group.group_id.clone()));
    let groups = once.map(|group| {
        let allowed = shared.check_group(&request.caller, Operation::Describe, &group.group_id).map_err(|r| r.code());
        let allowed = allowed.and(sure.as_ref().copied().map_err(Refusal::code)).and_then(|()| {
            let (member, epoch) = (group.member_id.as_deref(), group.member_epoch);
            shared.groups.may_fetch(&group.group_id, member, epoch).map_err(|error| code_of_group(error).code())
        });
        if let Err(code) = allowed {
            return OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(code);
        }
        let named = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let Some(found) = find(shared, request, &group.group_id, named, stable, &mut left) else {
            let code = too_much(shared.settings.answer_bytes_max).code();
            return OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(code);
        };
        let topics = found.into_iter().map(|(name, partitions)| {
            let partition = |(index, offset): (i32, Offset)| {
                let response = OffsetFetchResponsePartitions::default().with_partition_index(index);
                match &offset {
                    Offset::None => response.with_committed_offset(-1).with_metadata(Some(text(""))),
                    Offset::Unstable | Offset::Denied => response
                        .with_committed_offset(-1)
                        .with_metadata(Some(text("")))
                        .with_error_code(code_of_offset(&offset)),
                    Offset::At(c) => response
                        .with_committed_offset(c.offset)
                        .with_committed_leader_epoch(c.leader_epoch)
                        .with_metadata(Some(text(&c.metadata))),
                }
            };
            OffsetFetchResponseTopics::default()
                .with_name(name)
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics.collect())
    });
    request.respond(&OffsetFetchResponse::default().with_groups(groups.collect()))
}

fn code_of_offset(offset: &Offset) -> i16 {
    match offset {
        Offset::None | Offset::At(_) => 0,
        Offset::Unstable => ResponseError::UnstableOffsetCommit.code(),
        Offset::Denied => ResponseError::TopicAuthorizationFailed.code(),
    }
}

/// The refusal of a group as versions before 8 tell it: before 2 there is no code but those of partitions.
fn refuse(asked: &OffsetFetchRequest, refusal: &Refusal, version: i16) -> OffsetFetchResponse {
    if version >= 2 {
        return OffsetFetchResponse::default().with_error_code(refusal.code());
    }
    let topics = asked.topics.iter().flatten().map(|topic| {
        let partition = |index: &i32| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(*index)
                .with_committed_offset(-1)
                .with_metadata(Some(text("")))
                .with_error_code(refusal.code())
        };
        let partitions = topic.partition_indexes.iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// What an offset takes in the answer and while it is made, beside its texts, about.
const OFFSET_BYTES: usize = 64;

/// `None`: it is more than there is room `left` for in the answer.
fn find(
    shared: &Shared,
    request: &Request,
    group: &str,
    named: Option<Vec<(TopicName, Vec<i32>)>>,
    stable: bool,
    left: &mut usize,
) -> Option<Found> {
    let may_see = |topic: &str| shared.may_topic(&request.caller, Operation::Describe, topic);
    // Before the offsets themselves: what ends in between is then taken as not stable, and not as what it was before.
    let unstable: HashSet<OffsetKey> = match stable {
        true => shared.transactions.look(|machine| machine.pending_of(group).cloned().collect()),
        false => HashSet::new(),
    };
    let mut offset = |key: &OffsetKey, committed: Option<Committed>| {
        *left = left.checked_sub(OFFSET_BYTES + committed.as_ref().map_or(0, |c| c.metadata.len()))?;
        Some(match committed {
            _ if unstable.contains(key) => Offset::Unstable,
            None => Offset::None,
            Some(committed) => Offset::At(committed),
        })
    };
    let Some(named) = named else {
        // Those that transactions alone have committed are not among them before that counts, as in Kafka.
        let mut all: BTreeMap<OffsetKey, Option<Committed>> =
            shared.groups.offsets(group).into_iter().map(|(key, committed)| (key, Some(committed))).collect();
        all.retain(|key, _| may_see(&key.topic));
        let mut found: Found = Vec::new();
        for (key, committed) in all {
            let at = (key.partition, offset(&key, committed)?);
            match found.last_mut() {
                Some((name, partitions)) if ***name == *key.topic => partitions.push(at),
                _ => found.push((text(&key.topic), vec![at])),
            }
        }
        return Some(found);
    };
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let named = merged(named.into_iter());
    let mut found: Found = Vec::with_capacity(named.len());
    for (name, indexes) in named {
        let may = may_see(&name);
        let mut key = OffsetKey { topic: name.to_string(), partition: 0 };
        let mut partitions = Vec::with_capacity(indexes.len());
        for partition in indexes {
            key.partition = partition;
            let at = match may {
                true => offset(&key, shared.groups.offset(group, &key))?,
                false => Offset::Denied,
            };
            partitions.push((partition, at));
        }
        found.push((name, partitions));
    }
    Some(found)
}

//! OffsetFetch (9), versions 1 to 9.
//!
//! An unknown group, and a partition without an offset, is no error: offset -1 and an empty text. Groups of queries
//! answer with their queries' cursors. Ignored: require_stable (nothing is ever unstable without transactions), the
//! member fields of v9 (they belong to another group protocol).

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::{Request, Shared};
use crate::groups::{Committed, OffsetKey};
use crate::wire::{Error, Reply, text};

/// Offsets by topic; one that is not there is `None`.
type Found = Vec<(TopicName, Vec<(i32, Option<Committed>)>)>;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: OffsetFetchRequest = request.decode()?;
    if request.head.version < 8 {
        let named = asked.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let topics = find(shared, &asked.group_id, named).into_iter().map(|(name, partitions)| {
            let partition = |(index, committed): (i32, Option<Committed>)| {
                let response = OffsetFetchResponsePartition::default().with_partition_index(index);
                match committed {
                    None => response.with_committed_offset(-1).with_metadata(Some(text(""))),
                    Some(c) => response
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
    let groups = asked.groups.into_iter().map(|group| {
        let named = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let topics = find(shared, &group.group_id, named).into_iter().map(|(name, partitions)| {
            let partition = |(index, committed): (i32, Option<Committed>)| {
                let response = OffsetFetchResponsePartitions::default().with_partition_index(index);
                match committed {
                    None => response.with_committed_offset(-1).with_metadata(Some(text(""))),
                    Some(c) => response
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

fn find(shared: &Shared, group: &str, named: Option<Vec<(TopicName, Vec<i32>)>>) -> Found {
    let Some(named) = named else {
        let mut all = shared.groups.offsets(group);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut found: Found = Vec::new();
        for (key, committed) in all {
            match found.last_mut() {
                Some((name, partitions)) if ***name == *key.topic => partitions.push((key.partition, Some(committed))),
                _ => found.push((text(&key.topic), vec![(key.partition, Some(committed))])),
            }
        }
        return found;
    };
    let offset = |name: &TopicName, partition| {
        let key = OffsetKey { topic: name.to_string(), partition };
        (partition, shared.groups.offset(group, &key))
    };
    named
        .into_iter()
        .map(|(name, indexes)| {
            let partitions = indexes.into_iter().map(|index| offset(&name, index)).collect();
            (name, partitions)
        })
        .collect()
}

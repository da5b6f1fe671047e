//! A member of a consumer group by the classic protocol: joins, is given partitions, says that it lives, commits, leaves.
//!
//! Partitions are shared out by range, as the Java consumer does by default, so that both may be in one group.
//! Not here: reading. Invariant: after `Beat::Rejoin` nothing is committed for the old assignment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use millpond_broker::shape::{BLOB, I32, NEVER, Shape, TEXT, field, list, list_of, shape};
use tokio::time::Instant;

use super::client::{Client, Lane, Place, To};
use super::error::Error;
use super::{group_id, text, topic_name};

const SESSION: Duration = Duration::from_secs(45);
const REBALANCE: Duration = Duration::from_secs(60);
pub const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Attempts to join that end because another member moved.
const JOINS_MAX: usize = 100;
/// After an attempt that failed.
const JOIN_PAUSE: Duration = Duration::from_millis(200);
const ELEMENTS_MAX: usize = 1_000_000;
const CONSUMER: &str = "consumer";

/// What a member tells of itself, after its version.
const SUBSCRIPTION: Shape = shape(NEVER, &[list_of("topics", &TEXT), field("user_data", BLOB)]);
/// What a member is given, after its version.
const ASSIGNMENT: Shape = shape(
    NEVER,
    &[list("assigned_partitions", &[field("topic", TEXT), list_of("partitions", &I32)]), field("user_data", BLOB)],
);

pub struct Member {
    client: Arc<Client>,
    group: String,
    topics: Vec<String>,
    id: String,
    generation: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    Alive,
    /// Others came or went, or the group forgot this member.
    Rejoin,
}

impl Member {
    pub fn new(client: Arc<Client>, group: String, topics: Vec<String>) -> Self {
        Self { client, group, topics, id: String::new(), generation: -1 }
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    fn to(&self) -> To {
        To::Group(self.group.clone())
    }

    /// Joins, and returns what is to be read. Others may be waited for for long; what fails is tried again for as long as
    /// any request is.
    pub async fn join(&mut self) -> Result<Vec<Place>, Error> {
        let (mut joins, mut until) = (0, None);
        loop {
            match self.join_once().await {
                Ok(Some(places)) => return Ok(places),
                Ok(None) if joins < JOINS_MAX => joins += 1,
                Ok(None) => {
                    let why = format!("group \"{}\" does not come to rest; its members come and go", self.group);
                    return Err(Error::Missing(why));
                }
                Err(error) => {
                    let now = Instant::now() + JOIN_PAUSE;
                    if !error.passes() || now >= *until.get_or_insert(now + self.client.timeout()) {
                        return Err(error);
                    }
                    tokio::time::sleep(JOIN_PAUSE).await;
                }
            }
        }
    }

    /// `None`: once more.
    async fn join_once(&mut self) -> Result<Option<Vec<Place>>, Error> {
        let topics = self.topics.iter().map(|t| text(t)).collect();
        let metadata = versioned(&ConsumerProtocolSubscription::default().with_topics(topics));
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata);
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_session_timeout_ms(SESSION.as_millis() as i32)
            .with_rebalance_timeout_ms(REBALANCE.as_millis() as i32)
            .with_member_id(text(&self.id))
            .with_protocol_type(text(CONSUMER))
            .with_protocols(vec![protocol]);
        let joined = self.client.call_once(&self.to(), Lane::Group, &request, REBALANCE).await?;
        match ResponseError::try_from_code(joined.error_code) {
            None => {}
            Some(ResponseError::MemberIdRequired) => {
                self.id = joined.member_id.to_string();
                return Ok(None);
            }
            Some(ResponseError::UnknownMemberId) => {
                self.id.clear();
                return Ok(None);
            }
            Some(error) => return Err(self.refused("cannot join", error.code())),
        }
        self.id = joined.member_id.to_string();
        self.generation = joined.generation_id;
        let assignments = if joined.leader == joined.member_id { self.share_out(&joined).await? } else { Vec::new() };
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_assignments(assignments);
        let synced = self.client.call_once(&self.to(), Lane::Group, &request, REBALANCE).await?;
        match ResponseError::try_from_code(synced.error_code) {
            None => {}
            Some(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => return Ok(None),
            Some(ResponseError::UnknownMemberId) => {
                self.id.clear();
                return Ok(None);
            }
            Some(error) => return Err(self.refused("cannot join", error.code())),
        }
        assigned(&synced.assignment)
            .map(Some)
            .ok_or_else(|| Error::Missing(format!("what group \"{}\" assigns cannot be understood", self.group)))
    }

    fn refused(&self, what: &str, code: i16) -> Error {
        Error::refused(code, format!("{what} group \"{}\"", self.group), None)
    }

    /// As the group's leader: who reads what.
    async fn share_out(&self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
        let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for member in &joined.members {
            for topic in subscribed(&member.metadata).unwrap_or_default() {
                readers.entry(topic).or_default().push(member.member_id.to_string());
            }
        }
        let names: Vec<&str> = readers.keys().map(String::as_str).collect();
        let metadata = self.client.refresh(Some(&names)).await?;
        let mut shares: BTreeMap<&str, Vec<TopicPartition>> = BTreeMap::new();
        for (topic, members) in &mut readers {
            members.sort_unstable();
            let Some(found) = metadata.topics.get(topic) else { continue };
            let partitions: Vec<i32> = found.partitions.keys().copied().collect();
            for (member, part) in members.iter().zip(ranges(&partitions, members.len())) {
                let one = TopicPartition::default().with_topic(topic_name(topic)).with_partitions(part.to_vec());
                shares.entry(member).or_default().push(one);
            }
        }
        let assignments = joined.members.iter().map(|member| {
            let partitions = shares.remove(member.member_id.as_str()).unwrap_or_default();
            let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(partitions);
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(versioned(&assignment))
        });
        Ok(assignments.collect())
    }

    pub async fn beat(&self) -> Result<Beat, Error> {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        let answer = self.client.call_once(&self.to(), Lane::Group, &request, Duration::ZERO).await;
        match answer {
            Err(error) if error.passes() => Ok(Beat::Alive),
            Err(error) => Err(error),
            Ok(answer) => match ResponseError::try_from_code(answer.error_code) {
                None => Ok(Beat::Alive),
                Some(error) if moved(error) => Ok(Beat::Rejoin),
                Some(error) if error.is_retriable() => Ok(Beat::Alive),
                Some(error) => Err(self.refused("cannot stay in", error.code())),
            },
        }
    }

    /// Commits where the next read goes on. False: the group has moved on, and takes nothing from here.
    pub async fn commit(&self, offsets: &BTreeMap<Place, i64>) -> Result<bool, Error> {
        match commit(&self.client, &self.group, self.generation, &self.id, offsets).await {
            Ok(()) => Ok(true),
            Err(error) if error.code().is_some_and(moved) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn leave(&self) {
        let request = LeaveGroupRequest::default().with_group_id(group_id(&self.group)).with_member_id(text(&self.id));
        // Without it the group finds out by itself when the session ends.
        let _ = self.client.call_once(&self.to(), Lane::Group, &request, Duration::ZERO).await;
    }
}

fn moved(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration | ResponseError::UnknownMemberId
    )
}

/// Consecutive shares, the first ones larger by one where it does not come out even.
fn ranges(all: &[i32], members: usize) -> impl Iterator<Item = &[i32]> {
    let each = all.len() / members.max(1);
    let more = all.len() % members.max(1);
    let mut rest = all;
    (0..members).map(move |i| {
        let (head, tail) = rest.split_at_checked(each + usize::from(i < more)).unwrap_or((rest, &[]));
        rest = tail;
        head
    })
}

fn versioned<T: Encodable>(message: &T) -> Bytes {
    let mut bytes = BytesMut::from(&[0, 0][..]);
    // Fails only for fields that version 0 does not have, and none of those is ever set.
    let _ = message.encode(&mut bytes, 0);
    bytes.freeze()
}

/// The topics that a member wants. All versions begin alike.
fn subscribed(metadata: &Bytes) -> Option<Vec<String>> {
    let mut body = metadata.slice(2.min(metadata.len())..);
    SUBSCRIPTION.check(0, &body, ELEMENTS_MAX).ok()?;
    let subscription = ConsumerProtocolSubscription::decode(&mut body, 0).ok()?;
    Some(subscription.topics.iter().map(ToString::to_string).collect())
}

/// The partitions that a member was given; none where it was given nothing.
pub fn assigned(assignment: &Bytes) -> Option<Vec<Place>> {
    if assignment.is_empty() {
        return Some(Vec::new());
    }
    let mut body = assignment.slice(2.min(assignment.len())..);
    ASSIGNMENT.check(0, &body, ELEMENTS_MAX).ok()?;
    let assignment = ConsumerProtocolAssignment::decode(&mut body, 0).ok()?;
    let topics = assignment.assigned_partitions.iter();
    Some(topics.flat_map(|t| t.partitions.iter().map(|p| (t.topic.to_string(), *p))).collect())
}

/// Commits for a group: as its member, or from outside with generation -1 and no member.
pub async fn commit(
    client: &Client,
    group: &str,
    generation: i32,
    member: &str,
    offsets: &BTreeMap<Place, i64>,
) -> Result<(), Error> {
    let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
    for ((topic, partition), offset) in offsets {
        let one = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text("")));
        match topics.last_mut().filter(|t| t.name.0.as_str() == topic) {
            Some(topic) => topic.partitions.push(one),
            None => {
                topics.push(OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![one]))
            }
        }
    }
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(topics);
    client
        .call(&To::Group(group.to_string()), &request, |answer| {
            answer.topics.iter().try_for_each(|t| {
                t.partitions.iter().try_for_each(|p| {
                    let (topic, partition) = (t.name.as_str(), p.partition_index);
                    let what =
                        || format!("cannot commit for group \"{group}\" in partition {partition} of topic \"{topic}\"");
                    Error::check(p.error_code, what, None)
                })
            })
        })
        .await
        .map(drop)
}

/// What a group has committed: for these partitions, or for all that it knows. Partitions without a commit are left out.
pub async fn committed(client: &Client, group: &str, of: Option<&[Place]>) -> Result<BTreeMap<Place, i64>, Error> {
    let topics = of.map(|places| {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in places {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(partitions)
        });
        topics.collect()
    });
    let request = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(topics);
    let what = || format!("cannot read the offsets of group \"{group}\"");
    let answer = client
        .call(&To::Group(group.to_string()), &request, |answer| {
            Error::check(answer.error_code, what, None)?;
            let mut partitions = answer.topics.iter().flat_map(|t| &t.partitions);
            partitions.try_for_each(|p| Error::check(p.error_code, what, None))
        })
        .await?;
    let partitions = answer.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
    let known = partitions.filter(|(_, p)| p.committed_offset >= 0);
    Ok(known.map(|(t, p)| ((t.name.to_string(), p.partition_index), p.committed_offset)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_javas() {
        let shares = |count: i32, members: usize| {
            let all: Vec<i32> = (0..count).collect();
            ranges(&all, members).map(<[i32]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(shares(7, 3), [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
        assert_eq!(shares(1, 2), [vec![0], vec![]]);
    }

    #[test]
    fn what_members_say_is_not_trusted() {
        let given = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![
            TopicPartition::default().with_topic(topic_name("t")).with_partitions(vec![3]),
        ]);
        assert_eq!(assigned(&versioned(&given)), Some(vec![("t".to_string(), 3)]));
        assert_eq!(assigned(&Bytes::from_static(b"\0\0\x7f\xff\xff\xff\0\x01a")), None);
        assert_eq!(assigned(&Bytes::from_static(b"\0")), None);
        assert_eq!(assigned(&Bytes::new()), Some(vec![]));
        assert_eq!(subscribed(&Bytes::from_static(b"\0\x01\x7f\xff\xff\xff\0\x01a")), None);
    }
}

//! ConsumerGroupDescribe (69), versions 0 and 1: groups of the consumer protocol and their members. Other groups, and
//! those that are not there, are GROUP_ID_NOT_FOUND; clients then ask DescribeGroups. A group that has to do with topics
//! that the caller may not describe is not described.

use std::collections::{BTreeSet, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use uuid::Uuid;

use super::access::NOT_ASKED;
use super::{Refusal, Request, Shared, code_of_group};
use crate::features::GROUP_VERSION;
use crate::groups::consumer::assign::Partitions;
use crate::groups::{self, GroupError};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

/// How the protocol that a member speaks is told in version 1.
const MEMBER_CLASSIC: i8 = 0;
const MEMBER_CONSUMER: i8 = 1;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ConsumerGroupDescribeRequest = request.decode()?;
    let version = request.head.version;
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let mut seen = HashSet::new();
    let once = asked.group_ids.into_iter().filter(|id| seen.insert(id.clone()));
    let groups = once.map(|id| {
        let refused = |refusal: Refusal| {
            let group = DescribedGroup::default().with_group_id(id.clone()).with_error_code(refusal.code());
            group.with_error_message(Some(text(&refusal.message))).with_authorized_operations(NOT_ASKED)
        };
        if let Err(refusal) = shared.check_group(&request.caller, Operation::Describe, &id) {
            return refused(refusal);
        }
        if shared.features.level(GROUP_VERSION) < 1 {
            let message = "the feature \"group.version\" is at 0, without the consumer protocol";
            return refused(Refusal::new(ResponseError::UnsupportedVersion, message));
        }
        if id.is_empty() {
            let error = GroupError::InvalidGroupId;
            return refused(Refusal { error: code_of_group(error), message: error.to_string() });
        }
        let operations = match asked.include_authorized_operations {
            true => shared.group_operations(&request.caller, &id),
            false => NOT_ASKED,
        };
        let found = shared.groups.describe_consumer(&id);
        let topics = found.iter().flat_map(|found| &found.members).flat_map(|m| names(shared, m));
        let hidden = topics.map(|topic| shared.check_topic(&request.caller, Operation::Describe, &topic));
        if let Some(refusal) = hidden.filter_map(Result::err).next() {
            return refused(refusal);
        }
        let Some(found) = found else {
            let what = match shared.groups.describe(&id) {
                Some(_) => "is not one of the consumer protocol",
                None => "does not exist",
            };
            let message = format!("group \"{}\" {what}", id.as_str());
            return refused(Refusal { error: code_of_group(GroupError::GroupNotFound), message });
        };
        let group = DescribedGroup::default().with_group_id(id).with_authorized_operations(operations);
        let members = found.members.into_iter().map(|m| {
            let topics = m.topics.iter().map(|topic| text(topic)).collect();
            let member = Member::default()
                .with_member_id(text(&m.id))
                .with_instance_id(m.instance_id.as_ref().map(|id| text(id)))
                .with_rack_id(m.rack_id.as_ref().map(|id| text(id)))
                .with_member_epoch(m.epoch)
                .with_client_id(text(&m.client_id))
                .with_client_host(text(&m.client_host))
                .with_subscribed_topic_names(topics)
                .with_subscribed_topic_regex(Some(text(m.pattern.as_deref().unwrap_or_default())))
                .with_assignment(assignment(shared, &m.assigned))
                .with_target_assignment(assignment(shared, &m.target));
            let speaks = if m.classic.is_some() { MEMBER_CLASSIC } else { MEMBER_CONSUMER };
            if version >= 1 { member.with_member_type(speaks) } else { member }
        });
        group
            .with_group_state(text(found.state))
            .with_group_epoch(found.epoch)
            .with_assignment_epoch(found.assignment_epoch)
            .with_assignor_name(text(found.assignor))
            .with_members(members.collect())
    });
    let (mut ids, mut described) = (Vec::new(), Vec::new());
    for group in groups {
        ids.push(group.group_id.clone());
        described.push(group);
    }
    request.respond_within(shared, ConsumerGroupDescribeResponse::default().with_groups(described), |refusal| {
        let refused = |id| {
            let group = DescribedGroup::default().with_group_id(id).with_error_code(refusal.code());
            group.with_error_message(Some(text(&refusal.message))).with_authorized_operations(NOT_ASKED)
        };
        ConsumerGroupDescribeResponse::default().with_groups(ids.into_iter().map(refused).collect())
    })
}

/// The topics that a member subscribes to, has, or is meant to have.
fn names(shared: &Shared, member: &groups::ConsumerMember) -> BTreeSet<String> {
    let ids = member.assigned.keys().chain(member.target.keys());
    let assigned = ids.filter_map(|id| shared.storage.find_topic_by_id(*id).map(|topic| topic.name.clone()));
    assigned.chain(member.topics.iter().cloned()).collect()
}

/// Partitions with the names of their topics; those that were deleted are left out.
fn assignment(shared: &Shared, partitions: &Partitions) -> Assignment {
    let topics = partitions.iter().filter_map(|(id, indexes)| {
        let topic = shared.storage.find_topic_by_id(*id)?;
        let entry = TopicPartitions::default()
            .with_topic_id(Uuid::from_bytes(id.0))
            .with_topic_name(text(&topic.name))
            .with_partitions(indexes.iter().copied().collect());
        Some(entry)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

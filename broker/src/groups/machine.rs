//! All groups as one state machine: requests and the passing of time in, [`Effect`]s out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::consumer::member::Member as ConsumerMember;
use super::consumer::record::Head;
use super::consumer::{self, Consumer, HeartbeatAnswer, HeartbeatRequest, Refused, Times, Topics};
use super::group::{Commit, GROUP_BYTES, Group};
use super::member::{self, JoinAnswer, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest};
use super::offsets::{self, Committed, OffsetKey};
use super::record::GroupRecord;
use super::{GroupError, GroupSettings, State};
use crate::configs::{GroupConfigs, HEARTBEAT_INTERVAL, SESSION_TIMEOUT, group_number};

/// A group without members and offsets is kept for so long, as it may be about to begin anew.
const EMPTY_KEPT_MS: i64 = 10 * 60 * 1000;

/// The caller's name for an answer that it waits for.
pub type Ticket = u64;

/// What is to be done after a call. In order.
#[derive(Debug)]
pub enum Effect {
    Joined(Ticket, Result<JoinAnswer, JoinError>),
    Synced(Ticket, Result<SyncAnswer, GroupError>),
    /// To be written; then [`Machine::persisted`] is called with the record.
    Persist(GroupRecord),
    /// As [`Effect::Joined`], once all was written that was to be.
    JoinedOnceWritten(Ticket, JoinAnswer),
    /// Entries to be written in their order, before any later answer about the group goes out.
    Write(Vec<(Vec<u8>, Option<Vec<u8>>)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinError {
    pub error: GroupError,
    /// With [`GroupError::MemberIdRequired`] the id to join with.
    pub member_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub group: String,
    pub protocol_type: String,
    /// As it is named on the wire.
    pub state: &'static str,
    pub is_classic: bool,
}

/// A group of the consumer protocol and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConsumer {
    pub state: &'static str,
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: &'static str,
    pub members: Vec<ConsumerMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub state: State,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Of the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Debug, Default)]
pub struct Machine {
    settings: GroupSettings,
    groups: HashMap<String, Group>,
    /// Settings of groups that have some of their own, whether the groups are there or not.
    configs: BTreeMap<String, GroupConfigs>,
    /// When each group has something due.
    timers: BTreeSet<(i64, String)>,
    /// About what groups, members and settings take in memory.
    members_bytes: usize,
    /// About what offsets take in memory.
    offsets_bytes: usize,
}

/// About what a group's settings take in memory.
fn bytes_of_configs(group: &str, configs: &GroupConfigs) -> usize {
    const EACH: usize = 96;
    EACH + group.len() + configs.iter().map(|(name, value)| EACH + name.len() + value.len()).sum::<usize>()
}

impl Machine {
    pub fn new(settings: GroupSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Takes in what storage knows of a group, at start.
    pub fn load_group(&mut self, record: GroupRecord, now: i64) {
        let group = Group::load(record, now);
        let id = group.id.clone();
        self.groups.insert(id.clone(), group);
        self.reschedule(&id);
    }

    /// The same of a group of the consumer protocol.
    pub fn load_consumer(&mut self, id: String, head: Head, members: Vec<ConsumerMember>, now: i64) {
        let times = self.times(&id);
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(id.clone(), now));
        group.consumer = Some(Box::new(Consumer::load(head, members, times, now)));
        self.reschedule(&id);
    }

    /// How long members of a group may be silent and how often they should speak.
    pub fn times(&self, group: &str) -> Times {
        let own = self.configs.get(group);
        let (session, heartbeat) = (group_number(own, SESSION_TIMEOUT), group_number(own, HEARTBEAT_INTERVAL));
        Times {
            session_timeout_ms: session.unwrap_or(self.settings.consumer_session_timeout_ms),
            heartbeat_interval_ms: heartbeat.unwrap_or(self.settings.consumer_heartbeat_interval_ms),
        }
    }

    /// Settings that a group has of its own.
    pub fn configs(&self, group: &str) -> GroupConfigs {
        self.configs.get(group).cloned().unwrap_or_default()
    }

    /// Whether a group may have these in place of its own.
    pub fn may_configure(&self, group: &str, configs: &GroupConfigs) -> Result<(), String> {
        if configs.is_empty() {
            return Ok(());
        }
        let (count, max) = (self.configs.len(), self.settings.groups_max);
        let before = self.configs.get(group);
        if count >= max && before.is_none() {
            return Err(format!("{count} groups have settings, no more than {max} may"));
        }
        let more =
            bytes_of_configs(group, configs).saturating_sub(before.map_or(0, |own| bytes_of_configs(group, own)));
        if self.members_bytes + more > self.settings.members_bytes_max {
            return Err(format!("groups, members and their settings take {} bytes already", self.members_bytes));
        }
        Ok(())
    }

    /// Names of the groups that have settings of their own.
    pub fn configured(&self) -> Vec<String> {
        self.configs.keys().cloned().collect()
    }

    /// They count from the members' next heartbeats on.
    pub fn set_configs(&mut self, group: &str, configs: GroupConfigs) {
        if let Some(before) = self.configs.remove(group) {
            self.members_bytes -= bytes_of_configs(group, &before);
        }
        if !configs.is_empty() {
            self.members_bytes += bytes_of_configs(group, &configs);
            self.configs.insert(group.to_owned(), configs);
        }
    }

    /// A member of the consumer protocol joins, stays or leaves. The answer counts once all that was to be written before
    /// it was written.
    pub fn consumer_heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        topics: &dyn Topics,
        now: i64,
    ) -> (Result<HeartbeatAnswer, Refused>, Vec<Effect>) {
        let mut fx = Vec::new();
        let result = self.try_consumer_heartbeat(request, topics, now, &mut fx);
        self.after_change(&request.group, &mut fx);
        if result.is_err() {
            self.forget_void(&request.group);
        }
        (result, fx)
    }

    fn try_consumer_heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        topics: &dyn Topics,
        now: i64,
        fx: &mut Vec<Effect>,
    ) -> Result<HeartbeatAnswer, Refused> {
        let (id, joins) = (&request.group, request.epoch == 0);
        if id.is_empty() {
            return Err(Refused { error: GroupError::InvalidRequest, message: "the group id is empty".into() });
        }
        consumer::check(request)?;
        if request.bytes() + self.members_bytes > self.settings.members_bytes_max {
            return Err(GroupError::TooMany.into());
        }
        let times = self.times(id);
        if !self.groups.contains_key(id) {
            if !joins {
                return Err(GroupError::GroupNotFound.into());
            }
            if self.groups.len() >= self.settings.groups_max {
                return Err(GroupError::TooMany.into());
            }
        }
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(id.clone(), now));
        if !joins && group.consumer.is_none() || joins && !group.become_consumer(topics, now, fx) {
            let message = format!("group \"{id}\" is not one of the consumer protocol");
            return Err(Refused { error: GroupError::GroupNotFound, message });
        }
        let Some(consumer) = &mut group.consumer else { return Err(GroupError::GroupNotFound.into()) };
        if request.epoch < 0 {
            consumer.leave(request, now)
        } else {
            consumer.heartbeat(request, topics, &self.settings, times, now)
        }
    }

    /// Hands out what a group of the consumer protocol wants written.
    fn after_change(&mut self, id: &str, fx: &mut Vec<Effect>) {
        if let Some(consumer) = self.groups.get_mut(id).and_then(|group| group.consumer.as_mut()) {
            let entries = consumer.take_changes(id);
            if !entries.is_empty() {
                fx.push(Effect::Write(entries));
            }
        }
        self.reschedule(id);
    }

    /// Takes in what storage knows of an offset, at start or after it was written.
    pub fn set_offset(&mut self, group: &str, key: OffsetKey, committed: Committed, now: i64) {
        self.offsets_bytes += offsets::bytes_of(&key, &committed);
        if let Some(before) = self.hold(group, now).offsets.insert(key.clone(), committed) {
            self.offsets_bytes -= offsets::bytes_of(&key, &before);
        }
    }

    /// A group is there whose offsets somebody has committed, if only in a transaction that is open.
    pub(super) fn hold(&mut self, group: &str, now: i64) -> &mut Group {
        let group = self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(group.to_owned(), now));
        group.had_offsets = true;
        // A group that an offset has made is counted with its name.
        if group.counted == 0 {
            group.counted = group.bytes();
            self.members_bytes += group.counted;
        }
        group
    }

    /// Has a group written that is there for the offsets that it had, and of which storage has nothing.
    pub(super) fn keep(&mut self, group: &str) -> Vec<Effect> {
        let found = self.groups.get_mut(group).filter(|found| found.is_bare());
        found.map(|found| Effect::Persist(found.record())).into_iter().collect()
    }

    pub fn join(&mut self, request: &JoinRequest, ticket: Ticket, now: i64) -> Vec<Effect> {
        let refuse =
            |error| vec![Effect::Joined(ticket, Err(JoinError { error, member_id: request.member_id.clone() }))];
        if request.group.is_empty() {
            return refuse(GroupError::InvalidGroupId);
        }
        let session = self.settings.session_timeout_min_ms..=self.settings.session_timeout_max_ms;
        if !session.contains(&request.session_timeout_ms) || request.rebalance_timeout_ms < 0 {
            return refuse(GroupError::InvalidSessionTimeout);
        }
        if self.members_bytes + request.bytes() > self.settings.members_bytes_max {
            return refuse(GroupError::TooMany);
        }
        let bytes = self.groups.get(&request.group).map_or(request.bytes(), |group| group.bytes_with(request));
        if bytes > self.settings.group_bytes_max {
            return refuse(GroupError::GroupFull);
        }
        if !self.groups.contains_key(&request.group) {
            if !request.member_id.is_empty() {
                return refuse(GroupError::UnknownMember);
            }
            if self.groups.len() >= self.settings.groups_max {
                return refuse(GroupError::TooMany);
            }
        }
        let id = &request.group;
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(id.clone(), now));
        let mut fx = Vec::new();
        group.join(request, ticket, &self.settings, now, &mut fx);
        self.reschedule(id);
        self.forget_void(id);
        fx
    }

    /// Whether a join to this group is one for [`Machine::join_mixed`]: it has members of the consumer protocol.
    pub fn is_mixed(&self, group: &str) -> bool {
        self.consumer(group).is_some_and(|consumer| !consumer.is_empty())
    }

    fn consumer(&self, group: &str) -> Option<&Consumer> {
        self.groups.get(group)?.consumer.as_deref()
    }

    /// A member of the classic protocol joins a group of the consumer protocol.
    pub fn join_mixed(&mut self, request: &JoinRequest, topics: &dyn Topics, ticket: Ticket, now: i64) -> Vec<Effect> {
        let session = self.settings.session_timeout_min_ms..=self.settings.session_timeout_max_ms;
        let refused = if !session.contains(&request.session_timeout_ms) || request.rebalance_timeout_ms < 0 {
            Some(GroupError::InvalidSessionTimeout)
        } else if self.members_bytes + request.bytes() > self.settings.members_bytes_max {
            Some(GroupError::TooMany)
        } else {
            None
        };
        let found = self.groups.get_mut(&request.group).and_then(|group| group.consumer.as_mut());
        let result = match (refused, found) {
            (Some(error), _) => Err(JoinError { error, member_id: request.member_id.clone() }),
            (None, None) => Err(JoinError { error: GroupError::UnknownMember, member_id: request.member_id.clone() }),
            (None, Some(consumer)) => consumer.join_classic(request, topics, &self.settings, now),
        };
        let mut fx = Vec::new();
        self.after_change(&request.group, &mut fx);
        fx.push(match result {
            Ok(answer) => Effect::JoinedOnceWritten(ticket, answer),
            Err(error) => Effect::Joined(ticket, Err(error)),
        });
        fx
    }

    /// Lets a group look at topics that have changed, which members of the classic protocol do not ask for.
    pub fn refresh(&mut self, group: &str, topics: &dyn Topics) -> Vec<Effect> {
        let mut fx = Vec::new();
        if let Some(consumer) = self.groups.get_mut(group).and_then(|group| group.consumer.as_mut()) {
            consumer.refresh(topics);
            self.after_change(group, &mut fx);
        }
        fx
    }

    pub fn sync(&mut self, request: &SyncRequest, ticket: Ticket, now: i64) -> Vec<Effect> {
        let mut fx = Vec::new();
        let too_much = self.members_bytes + member::bytes_of(&request.assignments) > self.settings.members_bytes_max;
        match self.groups.get_mut(&request.group) {
            None => fx.push(Effect::Synced(ticket, Err(GroupError::UnknownMember))),
            Some(_) if too_much => fx.push(Effect::Synced(ticket, Err(GroupError::TooMany))),
            Some(group) => group.sync(request, ticket, now, &mut fx),
        }
        self.reschedule(&request.group);
        fx
    }

    pub fn heartbeat(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), GroupError> {
        let Some(found) = self.groups.get_mut(group) else { return Err(GroupError::UnknownMember) };
        let result = found.heartbeat(member_id, instance_id, generation, now);
        self.heard(group);
        result
    }

    /// One answer per member, in order.
    pub fn leave(
        &mut self,
        group: &str,
        members: &[LeaveRequest],
        now: i64,
    ) -> (Vec<Result<String, GroupError>>, Vec<Effect>) {
        let mut fx = Vec::new();
        let Some(found) = self.groups.get_mut(group) else {
            return (members.iter().map(|_| Err(GroupError::UnknownMember)).collect(), fx);
        };
        let before = found.members.len();
        let results: Vec<_> =
            members.iter().map(|m| found.leave(&m.member_id, m.instance_id.as_deref(), now, &mut fx)).collect();
        found.after_leaving(found.members.len() != before, &self.settings, now, &mut fx);
        self.after_change(group, &mut fx);
        (results, fx)
    }

    pub fn persisted(&mut self, record: &GroupRecord, ok: bool, now: i64) -> Vec<Effect> {
        let mut fx = Vec::new();
        if let Some(found) = self.groups.get_mut(&record.group) {
            found.persisted(record, ok, &self.settings, now, &mut fx);
        }
        self.reschedule(&record.group);
        fx
    }

    /// Whether offsets may be committed; what was allowed is written and then told by [`Machine::set_offset`]. For a member
    /// of the consumer protocol the generation is its epoch.
    #[allow(clippy::too_many_arguments, reason = "what a commit says about who commits, as it comes")]
    pub fn may_commit(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        way: Commit,
        offsets: &[(OffsetKey, Committed)],
        now: i64,
    ) -> Result<(), GroupError> {
        let bytes: usize = offsets.iter().map(|(key, committed)| offsets::bytes_of(key, committed)).sum();
        if self.offsets_bytes + bytes > self.settings.offsets_bytes_max {
            return Err(GroupError::TooMany);
        }
        let count = self.groups.len();
        let Some(found) = self.groups.get_mut(group) else {
            return match generation {
                g if g >= 0 && way == Commit::ByEpoch => Err(GroupError::GroupNotFound),
                g if g >= 0 => Err(GroupError::IllegalGeneration),
                _ if count >= self.settings.groups_max => Err(GroupError::TooMany),
                _ if self.members_bytes + GROUP_BYTES + 3 * group.len() > self.settings.members_bytes_max => {
                    Err(GroupError::TooMany)
                }
                _ => Ok(()),
            };
        };
        found.may_commit(member_id, instance_id, generation, way, now)?;
        self.heard(group);
        Ok(())
    }

    /// Whether somebody who names a member of the consumer protocol may see its group's offsets.
    pub fn may_fetch(&self, group: &str, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        if epoch < 0 && member_id.is_none_or(str::is_empty) {
            return Ok(());
        }
        match self.groups.get(group) {
            None => Err(GroupError::GroupNotFound),
            Some(found) => match &found.consumer {
                None => Ok(()),
                Some(consumer) => consumer.may_fetch(member_id.unwrap_or_default(), epoch),
            },
        }
    }

    /// Whether offsets may become part of a transaction. Who names no member is not held against the group's state.
    pub fn may_commit_in_transaction(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        offsets: &[(OffsetKey, Committed)],
        now: i64,
    ) -> Result<(), GroupError> {
        let nobody = generation < 0 && member_id.is_empty() && instance_id.is_none();
        if !nobody || !self.groups.contains_key(group) {
            // Of transactions the client is told in the words of the classic protocol.
            let allowed =
                self.may_commit(group, member_id, instance_id, generation, Commit::InTransaction, offsets, now);
            return allowed.map_err(|error| match error {
                GroupError::StaleEpoch => GroupError::IllegalGeneration,
                other => other,
            });
        }
        let bytes: usize = offsets.iter().map(|(key, committed)| offsets::bytes_of(key, committed)).sum();
        if self.offsets_bytes + bytes > self.settings.offsets_bytes_max {
            return Err(GroupError::TooMany);
        }
        Ok(())
    }

    pub fn offset(&self, group: &str, key: &OffsetKey) -> Option<&Committed> {
        self.groups.get(group)?.offsets.get(key)
    }

    /// All offsets of a group; empty where there is none.
    pub fn offsets(&self, group: &str) -> impl Iterator<Item = (&OffsetKey, &Committed)> {
        self.groups.get(group).into_iter().flat_map(|g| &g.offsets)
    }

    /// How many offsets each group has.
    pub fn offset_counts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), group.offsets.len()))
    }

    /// Whether any offsets may be deleted by hand. What those read who are not consumers cannot be told.
    pub fn may_delete_offsets(&self, group: &str) -> Result<(), GroupError> {
        match self.groups.get(group) {
            None => Err(GroupError::GroupNotFound),
            Some(found) if found.is_used_by_others() => Err(GroupError::NonEmptyGroup),
            Some(_) => Ok(()),
        }
    }

    /// Whether the offset of a topic may be deleted by hand.
    pub fn may_delete_offset(&self, group: &str, topic: &str) -> Result<(), GroupError> {
        match self.groups.get(group) {
            None => Err(GroupError::GroupNotFound),
            Some(found) if found.reads(topic) => Err(GroupError::SubscribedToTopic),
            Some(_) => Ok(()),
        }
    }

    pub fn exists(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn remove_offset(&mut self, group: &str, key: &OffsetKey) {
        if let Some(found) = self.groups.get_mut(group)
            && let Some(committed) = found.offsets.remove(key)
        {
            self.offsets_bytes -= offsets::bytes_of(key, &committed);
        }
    }

    /// Whether a group may be deleted by hand; gives the offsets that go with it.
    pub fn may_delete(&self, group: &str) -> Result<Vec<OffsetKey>, GroupError> {
        match self.groups.get(group) {
            None => Err(GroupError::GroupNotFound),
            Some(found) if !found.is_empty() => Err(GroupError::NonEmptyGroup),
            Some(found) => Ok(found.offsets.keys().cloned().collect()),
        }
    }

    /// Forgets a group, unless somebody has joined since.
    pub fn delete(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(Group::is_empty) {
            self.forget(group);
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(group) = self.groups.remove(id) else { return };
        if let Some(at) = group.scheduled {
            self.timers.remove(&(at, id.to_owned()));
        }
        self.members_bytes -= group.counted;
        self.offsets_bytes -= group.offsets.iter().map(|(key, c)| offsets::bytes_of(key, c)).sum::<usize>();
    }

    pub fn any(&self) -> bool {
        self.groups.values().any(|group| !group.is_void())
    }

    pub fn list(&self) -> Vec<Listed> {
        let mut all: Vec<_> = self
            .groups
            .values()
            .filter(|g| !g.is_void())
            .map(|g| Listed {
                group: g.id.clone(),
                protocol_type: if g.consumer.is_some() { "consumer".into() } else { g.protocol_type.clone() },
                state: g.state_name(),
                is_classic: g.consumer.is_none(),
            })
            .collect();
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all
    }

    pub fn describe(&self, group: &str) -> Option<Described> {
        let found = self.groups.get(group).filter(|g| !g.is_void() && g.consumer.is_none())?;
        let stable = found.state == State::Stable;
        let mut members: Vec<_> = found.members.values().collect();
        members.sort_by_key(|m| m.order);
        Some(Described {
            state: found.state,
            protocol_type: found.protocol_type.clone(),
            protocol: if stable { found.protocol.clone() } else { String::new() },
            members: members
                .into_iter()
                .map(|m| DescribedMember {
                    id: m.id.clone(),
                    instance_id: m.instance_id.clone(),
                    client_id: m.client_id.clone(),
                    client_host: m.client_host.clone(),
                    metadata: if stable { m.metadata(&found.protocol) } else { Bytes::new() },
                    assignment: if stable { m.assignment.clone() } else { Bytes::new() },
                })
                .collect(),
        })
    }

    pub fn describe_consumer(&self, group: &str) -> Option<DescribedConsumer> {
        let consumer = self.consumer(group)?;
        Some(DescribedConsumer {
            state: consumer.state(),
            epoch: consumer.epoch,
            assignment_epoch: consumer.assignment_epoch,
            assignor: consumer.assignor.name(),
            members: consumer.members.values().cloned().collect(),
        })
    }

    /// Groups with offsets whose time is over; and groups with nothing left.
    pub fn expired(&self, now: i64) -> (Vec<String>, Vec<String>) {
        let mut offsets = Vec::new();
        let mut groups = Vec::new();
        for group in self.groups.values() {
            if !group.expired_offsets(&self.settings, now).is_empty() {
                offsets.push(group.id.clone());
            }
            if self.is_over(&group.id, now) {
                groups.push(group.id.clone());
            }
        }
        (offsets, groups)
    }

    /// Offsets of a group whose time is over.
    pub fn expired_offsets(&self, group: &str, now: i64) -> Vec<OffsetKey> {
        self.groups.get(group).map(|group| group.expired_offsets(&self.settings, now)).unwrap_or_default()
    }

    /// Whether a group has nothing left.
    pub fn is_over(&self, group: &str, now: i64) -> bool {
        self.groups.get(group).is_some_and(|group| {
            group.is_idle()
                && group.since().saturating_add(EMPTY_KEPT_MS) <= now
                && group.expired_offsets(&self.settings, now).len() == group.offsets.len()
        })
    }

    /// Whether what its leader assigned counts.
    pub fn is_stable(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.state == State::Stable)
    }

    /// When [`Machine::tick`] has something to do.
    pub fn deadline(&self) -> Option<i64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: i64) -> Vec<Effect> {
        let mut fx = Vec::new();
        while let Some((at, id)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id.clone()));
            if let Some(group) = self.groups.get_mut(&id) {
                group.scheduled = None;
                group.expire(&self.settings, now, &mut fx);
            }
            self.after_change(&id, &mut fx);
            if self.groups.get(&id).is_some_and(Group::is_void) {
                self.forget(&id);
            }
        }
        fx
    }

    /// A member was heard, which puts off its end and nothing else: the timer that is set comes no later than it must, and
    /// is set anew when it comes. So what members do most often does not cost a look at all others.
    fn heard(&mut self, id: &str) {
        let Some(group) = self.groups.get(id) else { return };
        if group.scheduled.is_none() || group.consumer.is_some() {
            self.reschedule(id);
        }
    }

    /// Forgets a group that a request made and that nothing came of.
    fn forget_void(&mut self, id: &str) {
        if self.groups.get(id).is_some_and(Group::is_void) {
            self.forget(id);
        }
    }

    /// Brings timers and sums in line with what a group has become.
    fn reschedule(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let bytes = group.bytes();
        self.members_bytes = self.members_bytes - group.counted + bytes;
        group.counted = bytes;
        let deadline = group.deadline();
        if group.scheduled != deadline {
            if let Some(at) = group.scheduled {
                self.timers.remove(&(at, id.to_owned()));
            }
            if let Some(at) = deadline {
                self.timers.insert((at, id.to_owned()));
            }
            group.scheduled = deadline;
        }
    }
}

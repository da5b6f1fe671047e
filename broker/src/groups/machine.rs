//! All groups as one state machine: requests and the passing of time in, [`Effect`]s out.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::group::Group;
use super::member::{self, JoinAnswer, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest};
use super::offsets::{self, Committed, OffsetKey};
use super::record::GroupRecord;
use super::{GroupError, GroupSettings, State};

/// The caller's name for an answer that it waits for.
pub type Ticket = u64;

/// What is to be done after a call. In order.
#[derive(Debug)]
pub enum Effect {
    Joined(Ticket, Result<JoinAnswer, JoinError>),
    Synced(Ticket, Result<SyncAnswer, GroupError>),
    /// To be written; then [`Machine::persisted`] is called with the record's group and generation.
    Persist(GroupRecord),
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
    pub state: State,
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
    /// When each group has something due.
    timers: BTreeSet<(i64, String)>,
    /// About what members take in memory.
    members_bytes: usize,
    /// About what offsets take in memory.
    offsets_bytes: usize,
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

    /// Takes in what storage knows of an offset, at start or after it was written.
    pub fn set_offset(&mut self, group: &str, key: OffsetKey, committed: Committed, now: i64) {
        let group = self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(group.to_owned(), now));
        self.offsets_bytes += offsets::bytes_of(&key, &committed);
        if let Some(before) = group.offsets.insert(key.clone(), committed) {
            self.offsets_bytes -= offsets::bytes_of(&key, &before);
        }
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
        if self.members_bytes + member::bytes_of(&request.protocols) > self.settings.members_bytes_max {
            return refuse(GroupError::TooMany);
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
        self.reschedule(group);
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
            members.iter().map(|m| found.leave(&m.member_id, m.instance_id.as_deref(), &mut fx)).collect();
        found.after_leaving(found.members.len() != before, &self.settings, now, &mut fx);
        self.reschedule(group);
        (results, fx)
    }

    pub fn persisted(&mut self, group: &str, generation: i32, ok: bool, now: i64) -> Vec<Effect> {
        let mut fx = Vec::new();
        if let Some(found) = self.groups.get_mut(group) {
            found.persisted(generation, ok, &self.settings, now, &mut fx);
        }
        self.reschedule(group);
        fx
    }

    /// Whether offsets may be committed; what was allowed is written and then told by [`Machine::set_offset`].
    pub fn may_commit(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
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
                g if g >= 0 => Err(GroupError::IllegalGeneration),
                _ if count >= self.settings.groups_max => Err(GroupError::TooMany),
                _ => Ok(()),
            };
        };
        found.may_commit(member_id, instance_id, generation, now)?;
        self.reschedule(group);
        Ok(())
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
            return self.may_commit(group, member_id, instance_id, generation, offsets, now);
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
            Some(found) if found.state != State::Empty => Err(GroupError::NonEmptyGroup),
            Some(found) => Ok(found.offsets.keys().cloned().collect()),
        }
    }

    /// Forgets a group, unless somebody has joined since.
    pub fn delete(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(|g| g.state == State::Empty) {
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

    pub fn list(&self) -> Vec<Listed> {
        let mut all: Vec<_> = self
            .groups
            .values()
            .filter(|g| !g.is_void())
            .map(|g| Listed { group: g.id.clone(), protocol_type: g.protocol_type.clone(), state: g.state })
            .collect();
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all
    }

    pub fn describe(&self, group: &str) -> Option<Described> {
        let found = self.groups.get(group).filter(|g| !g.is_void())?;
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

    /// Offsets whose time is over, by group; and groups with nothing left.
    pub fn expired(&self, now: i64) -> (Vec<(String, OffsetKey)>, Vec<String>) {
        let mut offsets = Vec::new();
        let mut groups = Vec::new();
        for group in self.groups.values() {
            let over = group.expired_offsets(&self.settings, now);
            let nothing_left = over.len() == group.offsets.len();
            offsets.extend(over.into_iter().map(|key| (group.id.clone(), key)));
            let idle = group.state == State::Empty && group.deadline().is_none();
            if idle && nothing_left && group.since.saturating_add(self.settings.offsets_retention_ms) <= now {
                groups.push(group.id.clone());
            }
        }
        (offsets, groups)
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
            self.reschedule(&id);
            if self.groups.get(&id).is_some_and(Group::is_void) {
                self.forget(&id);
            }
        }
        fx
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

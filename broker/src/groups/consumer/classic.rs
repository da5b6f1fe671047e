//! Members that speak the classic protocol in a group of the consumer protocol: what they ask is turned into what
//! members of the consumer protocol say by heartbeats, so that a live group changes over one member at a time.
//!
//! A join says what is subscribed to and what is still owned, and is answered at once; the generation is the member's
//! epoch. No member leads. A heartbeat tells that there is a reason to join again. Whoever is told so and does not is out
//! after its rebalance timeout.
//!
//! Invariant: between a join and its sync the member owns what it said with the join and nothing else, so once none of
//! that must go it comes to its target at once; what it need not have given up it is given again.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use millpond_types::TopicId;

use super::super::machine::JoinError;
use super::super::member::{self as plain, JoinAnswer, JoinRequest, SyncAnswer, SyncRequest};
use super::super::subscription::{self, Subscription};
use super::assign::{self, Partitions};
use super::member::{Member, Progress};
use super::{Consumer, Topics};
use crate::groups::{GroupError, GroupSettings};

pub const PROTOCOL_TYPE: &str = "consumer";

/// What a member of the classic protocol has beside the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classic {
    pub session_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
    /// It was told to join again, and has until then.
    pub rejoin_ends: Option<i64>,
}

impl Classic {
    /// The way of assignment that the member is told to go by; it goes by what it is given.
    fn protocol(&self) -> &str {
        self.protocols.first().map_or("", |(name, _)| name)
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        plain::bytes_of(&self.protocols)
    }
}

type Result<T> = std::result::Result<T, GroupError>;

fn subscribed(protocols: &[(String, Bytes)]) -> Option<Subscription<'_>> {
    protocols.first().and_then(|(_, metadata)| subscription::parse(metadata))
}

fn ids(named: &[(&str, Vec<i32>)], topics: &dyn Topics) -> Partitions {
    let mut out = Partitions::new();
    for (name, indexes) in named {
        let Some((id, partitions)) = topics.find(name) else { continue };
        for index in indexes.iter().filter(|index| (0..partitions).contains(*index)) {
            assign::add(&mut out, id, *index);
        }
    }
    out
}

impl Consumer {
    /// A group whose members all speak the classic protocol so far. `None`: what they said cannot be read, or two of them
    /// have the same partition.
    pub(in crate::groups) fn from_classic<'a>(
        generation: i32,
        members: impl Iterator<Item = &'a plain::Member>,
        topics: &dyn Topics,
        now: i64,
    ) -> Option<Self> {
        let mut group = Self::new(generation, now);
        let mut held: HashSet<(TopicId, i32)> = HashSet::new();
        for plain in members {
            let says = subscribed(&plain.protocols)?;
            let mut member = Member::new(plain.id.clone());
            member.topics = says.topics.iter().map(|topic| (*topic).to_owned()).collect();
            member.rack_id = says.rack.map(str::to_owned);
            member.instance_id.clone_from(&plain.instance_id);
            member.client_id.clone_from(&plain.client_id);
            member.client_host.clone_from(&plain.client_host);
            member.rebalance_timeout_ms = plain.rebalance_timeout_ms;
            (member.epoch, member.previous_epoch) = (generation, generation);
            if !plain.assignment.is_empty() {
                member.assigned = ids(&subscription::assignment(&plain.assignment)?, topics);
            }
            if !assign::each(&member.assigned).all(|place| held.insert(place)) {
                return None;
            }
            member.target.clone_from(&member.assigned);
            member.session_ends = now.saturating_add(i64::from(plain.session_timeout_ms));
            let (session_timeout_ms, protocols) = (plain.session_timeout_ms, plain.protocols.clone());
            member.classic = Some(Box::new(Classic { session_timeout_ms, protocols, rejoin_ends: None }));
            group.held.extend(assign::each(&member.assigned));
            group.put(member);
        }
        group.changes.head = true;
        Some(group)
    }

    pub fn join_classic(
        &mut self,
        request: &JoinRequest,
        topics: &dyn Topics,
        settings: &GroupSettings,
        now: i64,
    ) -> std::result::Result<JoinAnswer, JoinError> {
        let refuse = |error| JoinError { error, member_id: request.member_id.clone() };
        let says = subscribed(&request.protocols).filter(|_| request.protocol_type == PROTOCOL_TYPE);
        let says = says.ok_or_else(|| refuse(GroupError::InconsistentProtocol))?;
        let mut member = if request.member_id.is_empty() {
            let known =
                request.instance_id.as_ref().and_then(|i| self.statics.get(i)).and_then(|id| self.members.get(id));
            if known.is_none() && self.members.len() + self.pending.len() >= settings.members_max {
                return Err(refuse(GroupError::GroupFull));
            }
            if request.id_required && request.instance_id.is_none() {
                let until = now.saturating_add(i64::from(request.session_timeout_ms));
                self.pending.insert(request.new_id.clone(), until);
                self.due = self.due.min(until);
                return Err(JoinError { error: GroupError::MemberIdRequired, member_id: request.new_id.clone() });
            }
            match known.cloned() {
                None => Member::new(request.new_id.clone()),
                // A static member takes its old place; it owns nothing yet.
                Some(mut member) => {
                    self.remove(&member.id);
                    member.let_all_go(&mut self.held);
                    member.id.clone_from(&request.new_id);
                    member.owned = None;
                    member
                }
            }
        } else if request.instance_id.is_none() && self.pending.remove(&request.member_id).is_some() {
            Member::new(request.member_id.clone())
        } else {
            self.check_classic(&request.member_id, request.instance_id.as_deref()).map_err(refuse)?.clone()
        };
        let topics_now = says.topics.iter().map(|topic| (*topic).to_owned()).collect();
        let bump = !self.members.contains_key(&member.id) && request.instance_id.is_none()
            || member.topics != topics_now
            || member.pattern.is_some();
        (member.topics, member.pattern, member.assignor) = (topics_now, None, None);
        member.instance_id.clone_from(&request.instance_id);
        member.rack_id = says.rack.map(str::to_owned);
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_ends = now.saturating_add(i64::from(request.session_timeout_ms));
        let (session_timeout_ms, protocols) = (request.session_timeout_ms, request.protocols.clone());
        member.classic = Some(Box::new(Classic { session_timeout_ms, protocols, rejoin_ends: None }));
        member.owned = Some(ids(&says.owned, topics));
        let member = self.settle(member, bump, topics, now).map_err(refuse)?;
        Ok(JoinAnswer {
            generation: member.epoch,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: member.classic.as_ref().map_or("", |classic| classic.protocol()).to_owned(),
            leader: String::new(),
            member_id: member.id,
            members: Vec::new(),
            skip_assignment: false,
        })
    }

    pub fn sync_classic(&mut self, request: &SyncRequest, now: i64) -> Result<SyncAnswer> {
        let member = self.check_classic(&request.member_id, request.instance_id.as_deref())?;
        let Some(classic) = &member.classic else { return Err(GroupError::UnknownMember) };
        if request.generation != member.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |theirs: &Option<String>, ours: &str| theirs.as_deref().is_some_and(|theirs| theirs != ours);
        if differs(&request.protocol_type, PROTOCOL_TYPE) || differs(&request.protocol, classic.protocol()) {
            return Err(GroupError::InconsistentProtocol);
        }
        if member.epoch < self.epoch && member.progress != Progress::Revoking {
            return Err(GroupError::RebalanceInProgress);
        }
        let names: BTreeMap<TopicId, &str> = self.topics.iter().map(|(name, (id, _))| (*id, &**name)).collect();
        let assigned = member.assigned.iter().filter_map(|(id, indexes)| names.get(id).map(|name| (*name, indexes)));
        let answer = SyncAnswer {
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: classic.protocol().to_owned(),
            assignment: subscription::encode_assignment(assigned),
        };
        let id = member.id.clone();
        self.heard(&id, now);
        Ok(answer)
    }

    pub fn heartbeat_classic(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<()> {
        let member = self.check_classic(member_id, instance_id)?;
        if generation != member.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let is_free = |place: &(TopicId, i32)| !self.held.contains(place);
        let joins_again = member.epoch < self.epoch
            || member.progress == Progress::Revoking
            || (member.progress == Progress::Waiting && assign::each(&member.target).any(|place| is_free(&place)));
        self.heard(member_id, now);
        if !joins_again {
            return Ok(());
        }
        if let Some(member) = self.members.get_mut(member_id) {
            let until = now.saturating_add(i64::from(member.rebalance_timeout_ms));
            if let Some(classic) = &mut member.classic {
                self.due = self.due.min(*classic.rejoin_ends.get_or_insert(until));
            }
        }
        Err(GroupError::RebalanceInProgress)
    }

    fn heard(&mut self, id: &str, now: i64) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(classic) = &member.classic
        {
            member.session_ends = now.saturating_add(i64::from(classic.session_timeout_ms));
        }
    }

    /// The member of the classic protocol that speaks.
    fn check_classic(&self, member_id: &str, instance_id: Option<&str>) -> Result<&Member> {
        if let Some(instance) = instance_id {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(id) if id != member_id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        self.members.get(member_id).filter(|m| m.classic.is_some()).ok_or(GroupError::UnknownMember)
    }
}

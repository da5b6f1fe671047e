//! One group by the consumer protocol (KIP-848): members say by heartbeats what they want and what they have, the
//! group decides who is to read what, and brings one member after the other there without ever stopping the rest.
//!
//! Here: the group's and its members' epochs, fencing, time. Not here: members of the classic protocol in such a group
//! (`classic`), how a member gets to its target (`member`), who
//! gets what (`assign`), regular expressions (`pattern`), the form on disk (`record`), committed offsets (`Group`).
//!
//! Invariants: a partition is held by one member at most, see `member`; targets are those of `assignment_epoch`, and
//! that never is beyond `epoch`; `held` is what members hold; every change is among `changes` until it is taken to be
//! written, before which no answer goes out.

pub mod assign;
pub mod classic;
#[cfg(test)]
mod histories;
pub mod member;
pub mod pattern;
pub mod record;
#[cfg(test)]
mod script;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use millpond_types::TopicId;

use self::assign::{Assignor, Partitions, Subscriber};
use self::member::{EPOCH_AWAY, Held, Member, Progress};
use self::record::Head;
use super::{GroupError, GroupSettings};

/// Different regular expressions in one group. All names of topics are held against each when topics change.
const PATTERNS_MAX: usize = 32;

/// The topics that there are, as the group looks at them.
pub trait Topics {
    /// Another number whenever something about topics has changed.
    fn version(&self) -> u64;
    /// Id and number of partitions.
    fn find(&self, name: &str) -> Option<(TopicId, i32)>;
    /// All that whoever asks may know of.
    fn each(&self, look: &mut dyn FnMut(&str));
}

#[derive(Debug, Clone, Default)]
pub struct HeartbeatRequest {
    pub group: String,
    /// Empty: the member asks for an id (v0).
    pub member_id: String,
    /// 0 joins, -1 leaves, -2 leaves for a while (static members).
    pub epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    /// -1: as before.
    pub rebalance_timeout_ms: i32,
    /// `None` here and below: as before.
    pub topics: Option<Vec<String>>,
    pub pattern: Option<String>,
    pub assignor: Option<String>,
    pub owned: Option<Partitions>,
    pub client_id: String,
    pub client_host: String,
    /// The client must name a member id of its own (v1 on).
    pub id_required: bool,
    /// The id it gets if it has none.
    pub new_id: String,
}

impl HeartbeatRequest {
    /// About what it adds to memory at most.
    pub fn bytes(&self) -> usize {
        let names: usize = self.topics.iter().flatten().map(|name| 48 + name.len()).sum();
        let optional = [&self.pattern, &self.instance_id, &self.rack_id];
        let optional: usize = optional.into_iter().flatten().map(|text| 2 * text.len()).sum();
        let ids = 3 * (self.group.len() + self.member_id.len().max(self.new_id.len())) + self.client_id.len();
        names + optional + ids + self.owned.as_ref().map_or(0, |owned| 16 * assign::count(owned))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    pub member_id: String,
    pub epoch: i32,
    /// What the member shall own; `None`: what it was told last.
    pub assignment: Option<Partitions>,
}

/// Why a heartbeat is refused, in a sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub error: GroupError,
    pub message: String,
}

impl Refused {
    fn new(error: GroupError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        Self { error, message: error.to_string() }
    }
}

type Result<T> = std::result::Result<T, Refused>;

/// Times that may be set for each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub session_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
}

#[derive(Debug)]
pub struct Consumer {
    pub epoch: i32,
    pub assignment_epoch: i32,
    /// When its last member went, or it came to be.
    pub since: i64,
    pub assignor: Assignor,
    pub members: BTreeMap<String, Member>,
    /// Member id of each static member.
    statics: BTreeMap<String, String>,
    /// Ids handed out to members of the classic protocol, until when they are good.
    pending: BTreeMap<String, i64>,
    held: Held,
    /// Topics that members subscribe to, by name, with id and number of partitions.
    topics: BTreeMap<Arc<str>, (TopicId, i32)>,
    topics_hash: u64,
    /// What each regular expression matches.
    matched: HashMap<String, BTreeSet<Arc<str>>>,
    /// The version of [`Topics`] that the two above are of.
    topics_version: Option<u64>,
    /// Nothing is due before.
    due: i64,
    /// Of its members in memory, about.
    pub bytes: usize,
    changes: Changes,
}

/// What is to be written: the group's entry, members' entries. A member that is gone is written as such.
#[derive(Debug, Default)]
struct Changes {
    head: bool,
    members: BTreeSet<String>,
}

impl Consumer {
    /// A group that goes on counting after `epoch`.
    pub fn new(epoch: i32, now: i64) -> Self {
        Self {
            epoch,
            assignment_epoch: epoch,
            since: now,
            assignor: Assignor::default(),
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            held: Held::new(),
            topics: BTreeMap::new(),
            topics_hash: 0,
            matched: HashMap::new(),
            topics_version: None,
            due: i64::MAX,
            bytes: 0,
            changes: Changes::default(),
        }
    }

    /// A group as it was written; its members have a session's time to be heard again.
    pub fn load(head: Head, members: Vec<Member>, times: Times, now: i64) -> Self {
        let mut group = Self::new(head.epoch, head.since);
        group.assignment_epoch = head.assignment_epoch;
        group.assignor = head.assignor;
        group.topics_hash = head.topics_hash;
        for mut member in members {
            let session =
                member.classic.as_ref().map_or(times.session_timeout_ms, |classic| classic.session_timeout_ms);
            member.session_ends = now.saturating_add(i64::from(session));
            member.revoking_ends = (member.progress == Progress::Revoking)
                .then(|| now.saturating_add(i64::from(member.rebalance_timeout_ms)));
            if let Some(instance) = &member.instance_id {
                group.statics.insert(instance.clone(), member.id.clone());
            }
            group.held.extend(member.holds());
            group.bytes += member.bytes();
            group.due = group.due.min(member.deadline());
            group.members.insert(member.id.clone(), member);
        }
        group
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().any(|m| !m.is_at(self.assignment_epoch)) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    /// The changes since this was last asked, as entries of storage.
    pub fn take_changes(&mut self, group: &str) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let changes = std::mem::take(&mut self.changes);
        let mut entries = Vec::new();
        if changes.head {
            let head = Head {
                epoch: self.epoch,
                assignment_epoch: self.assignment_epoch,
                since: self.since,
                topics_hash: self.topics_hash,
                assignor: self.assignor,
            };
            entries.push((record::group_key(group), Some(head.encode())));
        }
        for id in changes.members {
            let value = self.members.get(&id).map(Member::encode);
            entries.push((record::member_key(group, &id), value));
        }
        entries
    }

    // --- heartbeats ---

    /// A member joins, or says that it is there; after [`check`]. Changes nothing where it is refused.
    pub fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        topics: &dyn Topics,
        settings: &GroupSettings,
        times: Times,
        now: i64,
    ) -> Result<HeartbeatAnswer> {
        self.check_room(request.pattern.as_deref())?;
        let mut member = self.find_member(request, settings)?;
        let before = self.members.get(&member.id).cloned();
        let (epoch_before, assigned_before) = (member.epoch, member.assigned.clone());
        update(&mut member, request);
        member.session_ends = now.saturating_add(i64::from(times.session_timeout_ms));
        let subscribes_anew = before.as_ref().is_none_or(|b| {
            (&b.topics, &b.pattern, &b.assignor) != (&member.topics, &member.pattern, &member.assignor)
        });
        // A static member that comes back in its own place is no news to the others.
        let replaced = member.instance_id.as_ref().and_then(|i| self.statics.get(i)).filter(|old| **old != member.id);
        let bump = match replaced.cloned().and_then(|old| self.remove(&old)) {
            Some(old) => {
                (&old.topics, &old.pattern, &old.assignor) != (&member.topics, &member.pattern, &member.assignor)
            }
            None => subscribes_anew,
        };
        if request.epoch == 0 {
            // It owns nothing now. What it is meant to have it is given again, before anybody else asks.
            member.let_all_go(&mut self.held);
        }
        let member = self.settle(member, bump, topics, now)?;
        let complete = request.rebalance_timeout_ms != -1
            && (request.topics.is_some() || request.pattern.is_some())
            && request.owned.is_some();
        let tell =
            request.epoch == 0 || complete || request.epoch != epoch_before || member.assigned != assigned_before;
        let assignment = tell.then(|| member.assigned.clone());
        Ok(HeartbeatAnswer { member_id: member.id, epoch: member.epoch, assignment })
    }

    /// Takes in what a member has become, `bump` if that is news to the others, and brings it as far as it can come.
    fn settle(
        &mut self,
        member: Member,
        bump: bool,
        topics: &dyn Topics,
        now: i64,
    ) -> std::result::Result<Member, GroupError> {
        let id = member.id.clone();
        self.put(member);
        if bump || self.topics_version != Some(topics.version()) {
            self.look_at_topics(topics, bump);
        }
        if self.epoch > self.assignment_epoch {
            self.assign();
        }
        let mut member = self.members.get(&id).cloned().ok_or(GroupError::UnknownMember)?;
        member.reconcile(self.assignment_epoch, &mut self.held, now);
        self.put(member.clone());
        Ok(member)
    }

    /// The member that speaks, as it was, or as a new one or one in the place of another would be.
    fn find_member(&self, request: &HeartbeatRequest, settings: &GroupSettings) -> Result<Member> {
        let joins = request.epoch == 0;
        let id = if request.member_id.is_empty() { &request.new_id } else { &request.member_id };
        let found = match &request.instance_id {
            None => self.members.get(id),
            Some(instance) => match self.statics.get(instance).and_then(|id| self.members.get(id)) {
                Some(holder) if holder.id != *id && joins && holder.epoch == EPOCH_AWAY => {
                    if self.members.contains_key(id) {
                        return Err(Refused::new(
                            GroupError::UnreleasedInstance,
                            format!("member id \"{id}\" is in use"),
                        ));
                    }
                    let mut member = holder.clone();
                    member.id.clone_from(id);
                    (member.epoch, member.previous_epoch, member.owned) = (0, 0, None);
                    return Ok(member);
                }
                Some(holder) if holder.id != *id && joins => {
                    let message = format!("instance id \"{instance}\" is in use by member \"{}\"", holder.id);
                    return Err(Refused::new(GroupError::UnreleasedInstance, message));
                }
                Some(holder) if holder.id != *id => return Err(GroupError::FencedInstance.into()),
                Some(holder) => Some(holder),
                None if joins => self.members.get(id),
                None => None,
            },
        };
        match found {
            None if !joins => Err(GroupError::UnknownMember.into()),
            None if self.members.len() >= settings.members_max => Err(GroupError::GroupFull.into()),
            None => Ok(Member::new(id.clone())),
            Some(member) => {
                if !joins {
                    check_epoch(member, request.epoch, request.owned.as_ref())?;
                }
                Ok(member.clone())
            }
        }
    }

    fn check_room(&self, pattern: Option<&str>) -> Result<()> {
        let is_new = pattern.is_some_and(|pattern| !pattern.is_empty() && !self.matched.contains_key(pattern));
        if is_new && self.matched.len() >= PATTERNS_MAX {
            let message = format!("the group has {PATTERNS_MAX} different regular expressions already");
            return Err(Refused::new(GroupError::InvalidPattern, message));
        }
        Ok(())
    }

    /// Takes a member in, in the place of what it was before.
    fn put(&mut self, member: Member) {
        let id = member.id.clone();
        if let Some(before) = self.members.get(&id) {
            self.bytes -= before.bytes();
            if before.instance_id != member.instance_id
                && let Some(instance) = &before.instance_id
            {
                self.statics.remove(instance);
            }
        }
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.bytes += member.bytes();
        self.due = self.due.min(member.deadline());
        let before = self.members.insert(id.clone(), member);
        let stays = |(before, after): (&Member, &Member)| before.is_written_as(after);
        if !before.as_ref().zip(self.members.get(&id)).is_some_and(stays) {
            self.changes.members.insert(id);
        }
    }

    /// Takes a member out; what it held is free.
    fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.bytes -= member.bytes();
        if let Some(instance) = &member.instance_id {
            self.statics.remove(instance);
        }
        for place in member.holds() {
            self.held.remove(&place);
        }
        self.changes.members.insert(id.to_owned());
        Some(member)
    }

    // --- epochs and assignments ---

    fn bump(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.changes.head = true;
    }

    /// Finds out what members subscribe to is made of now; a difference is news to the group, as is `bump`.
    fn look_at_topics(&mut self, topics: &dyn Topics, bump: bool) {
        let patterns: BTreeSet<&str> = self.members.values().filter_map(|m| m.pattern.as_deref()).collect();
        let stale = self.topics_version != Some(topics.version());
        self.matched.retain(|pattern, _| patterns.contains(pattern.as_str()));
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        for pattern in patterns {
            if stale || !self.matched.contains_key(pattern) {
                // It was tried when the member came with it.
                let Ok(expression) = pattern::compile(pattern) else { continue };
                let mut found = BTreeSet::new();
                topics.each(&mut |name| {
                    if expression.is_match(name) {
                        let name = names.get(name).cloned().unwrap_or_else(|| Arc::from(name));
                        names.insert(Arc::clone(&name));
                        found.insert(name);
                    }
                });
                self.matched.insert(pattern.to_owned(), found);
            } else if let Some(found) = self.matched.get(pattern) {
                names.extend(found.iter().cloned());
            }
        }
        for name in self.members.values().flat_map(|m| &m.topics) {
            if !names.contains(name.as_str()) {
                names.insert(Arc::from(name.as_str()));
            }
        }
        self.topics = names.into_iter().filter_map(|name| topics.find(&name).map(|found| (name, found))).collect();
        self.topics_version = Some(topics.version());
        let mut hasher = DefaultHasher::new();
        for (name, (id, partitions)) in &self.topics {
            (&**name, id.0, partitions).hash(&mut hasher);
        }
        let hash = hasher.finish();
        if bump || hash != self.topics_hash {
            self.topics_hash = hash;
            self.bump();
        }
    }

    /// Looks whether topics have changed, in the place of members who do not ask for that.
    pub fn refresh(&mut self, topics: &dyn Topics) {
        if !self.members.is_empty() && self.topics_version != Some(topics.version()) {
            self.look_at_topics(topics, false);
        }
    }

    /// Ids of the topics that a member subscribes to, as far as they exist.
    fn wanted(&self, member: &Member) -> BTreeSet<TopicId> {
        let matched = member.pattern.as_ref().and_then(|pattern| self.matched.get(pattern));
        let names = member.topics.iter().map(String::as_str).chain(matched.into_iter().flatten().map(|name| &**name));
        names.filter_map(|name| self.topics.get(name)).map(|(id, _)| *id).collect()
    }

    /// The assignor that most members ask for.
    fn preferred(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|m| Assignor::named(m.assignor.as_deref()?)) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.values().max().copied();
        votes.into_iter().find(|(_, count)| Some(*count) == most).map_or(Assignor::default(), |(assignor, _)| assignor)
    }

    /// New targets for all members, of the group's epoch.
    fn assign(&mut self) {
        self.assignor = self.preferred();
        let counts: BTreeMap<TopicId, i32> = self.topics.values().copied().collect();
        // Static members come first and by their instance, so that they get the same again under another id.
        let mut order: Vec<(bool, &str, &Member)> = self
            .members
            .values()
            .map(|m| (m.instance_id.is_none(), m.instance_id.as_deref().unwrap_or(&m.id), m))
            .collect();
        order.sort_by_key(|(dynamic, name, _)| (*dynamic, *name));
        let subscribers: Vec<Subscriber<'_>> =
            order.iter().map(|(_, _, m)| Subscriber { topics: self.wanted(m), had: &m.target }).collect();
        let targets = self.assignor.assign(&subscribers, &counts);
        let changed: Vec<(String, Partitions)> = order
            .iter()
            .zip(targets)
            .filter(|((_, _, m), target)| m.target != *target)
            .map(|((_, _, m), target)| (m.id.clone(), target))
            .collect();
        for (id, target) in changed {
            if let Some(member) = self.members.get_mut(&id) {
                self.bytes -= member.bytes();
                member.target = target;
                self.bytes += member.bytes();
                self.changes.members.insert(id);
            }
        }
        self.assignment_epoch = self.epoch;
        self.changes.head = true;
    }

    // --- leaving and time ---

    /// A member leaves, for good or for a while.
    pub fn leave(&mut self, request: &HeartbeatRequest, now: i64) -> Result<HeartbeatAnswer> {
        let id = match &request.instance_id {
            Some(instance) => match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMember.into()),
                Some(id) if *id != request.member_id => return Err(GroupError::FencedInstance.into()),
                Some(id) => id.clone(),
            },
            None if self.members.contains_key(&request.member_id) => request.member_id.clone(),
            None => return Err(GroupError::UnknownMember.into()),
        };
        if request.epoch == EPOCH_AWAY {
            if let Some(mut member) = self.members.get(&id).cloned() {
                member.let_go(&mut self.held);
                member.epoch = EPOCH_AWAY;
                self.put(member);
            }
        } else {
            self.take_out([id.as_str()], now);
        }
        Ok(HeartbeatAnswer { member_id: id, epoch: request.epoch, assignment: None })
    }

    /// Takes out whom an administrator names, by id or by instance.
    pub fn expel(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: i64,
    ) -> std::result::Result<String, GroupError> {
        let id = match instance_id {
            Some(instance) => match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(id) if !member_id.is_empty() && id != member_id => return Err(GroupError::FencedInstance),
                Some(id) => id.clone(),
            },
            None if self.pending.remove(member_id).is_some() => return Ok(member_id.to_owned()),
            None if self.members.contains_key(member_id) => member_id.to_owned(),
            None => return Err(GroupError::UnknownMember),
        };
        self.take_out([id.as_str()], now);
        Ok(id)
    }

    fn take_out<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>, now: i64) {
        let mut went = false;
        for id in ids {
            went |= self.remove(id).is_some();
        }
        if went {
            self.bump();
            // What is subscribed to may be less now.
            self.topics_version = None;
        }
        if self.members.is_empty() {
            self.since = now;
            self.assignment_epoch = self.epoch;
            self.topics.clear();
            self.matched.clear();
        }
    }

    /// When [`Consumer::expire`] should be called; that it finds nothing to do is possible.
    pub fn deadline(&self) -> Option<i64> {
        (!self.members.is_empty() && self.due != i64::MAX).then_some(self.due)
    }

    /// Members that were silent for too long, or took too long to let go, are out.
    pub fn expire(&mut self, now: i64) {
        if now < self.due {
            return;
        }
        self.pending.retain(|_, until| *until > now);
        let over: Vec<String> = self.members.values().filter(|m| m.deadline() <= now).map(|m| m.id.clone()).collect();
        self.take_out(over.iter().map(String::as_str), now);
        let members = self.members.values().map(Member::deadline);
        self.due = members.chain(self.pending.values().copied()).min().unwrap_or(i64::MAX);
    }

    // --- offsets ---

    /// Whether somebody who names this member and epoch may commit.
    pub fn may_commit(&self, member_id: &str, epoch: i32, knows_epochs: bool) -> std::result::Result<(), GroupError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMember)?;
        if member.classic.is_some() {
            return if member.epoch == epoch { Ok(()) } else { Err(GroupError::IllegalGeneration) };
        }
        if !knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        if epoch >= 0 && member.epoch == epoch { Ok(()) } else { Err(GroupError::StaleEpoch) }
    }

    pub fn may_fetch(&self, member_id: &str, epoch: i32) -> std::result::Result<(), GroupError> {
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMember)?;
        if epoch >= 0 && member.epoch == epoch { Ok(()) } else { Err(GroupError::StaleEpoch) }
    }

    /// Whether a member subscribes to this topic now.
    pub fn reads(&self, topic: &str) -> bool {
        self.members.values().any(|m| m.topics.contains(topic))
            || self.matched.values().any(|names| names.contains(topic))
    }
}

/// Refuses what is wrong by itself, whatever the group is like.
pub fn check(request: &HeartbeatRequest) -> Result<()> {
    check_fields(request)?;
    match request.pattern.as_deref() {
        None | Some("") => Ok(()),
        Some(pattern) => match pattern::compile(pattern) {
            Ok(_) => Ok(()),
            Err(message) => Err(Refused::new(GroupError::InvalidPattern, message)),
        },
    }
}

fn check_fields(request: &HeartbeatRequest) -> Result<()> {
    let wrong = |message: &str| Err(Refused::new(GroupError::InvalidRequest, message));
    let is_empty = |text: &Option<String>| text.as_deref() == Some("");
    if request.member_id.is_empty() && (request.id_required || request.epoch != 0) {
        return wrong("the member id is empty");
    }
    if !request.member_id.is_empty() && request.member_id.trim().is_empty() {
        return wrong("the member id is blank");
    }
    if is_empty(&request.instance_id) {
        return wrong("the instance id is empty; without one it is null");
    }
    if is_empty(&request.rack_id) {
        return wrong("the rack id is empty; without one it is null");
    }
    match request.epoch {
        0 => {
            if request.rebalance_timeout_ms < 0 {
                return wrong("who joins must say its rebalance timeout");
            }
            if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return wrong("who joins owns no partitions, and says so");
            }
            if request.topics.is_none() && request.pattern.is_none() {
                return wrong("who joins must name topics or a regular expression");
            }
        }
        EPOCH_AWAY if request.instance_id.is_none() => {
            return wrong("only a member with an instance id leaves for a while");
        }
        epoch if epoch < EPOCH_AWAY => return wrong("a member epoch is -2 or more"),
        _ => {}
    }
    if request.rebalance_timeout_ms < -1 {
        return wrong("the rebalance timeout is negative");
    }
    match &request.assignor {
        Some(name) if Assignor::named(name).is_none() => {
            let known = Assignor::ALL.map(|assignor| format!("\"{}\"", assignor.name())).join(", ");
            let message = format!("there is no assignor \"{name}\" on this server, only {known}");
            Err(Refused::new(GroupError::UnsupportedAssignor, message))
        }
        _ => Ok(()),
    }
}

fn check_epoch(member: &Member, epoch: i32, owned: Option<&Partitions>) -> Result<()> {
    if epoch == member.epoch {
        return Ok(());
    }
    // The answer that told the present epoch may have been lost.
    if epoch < member.epoch && epoch == member.previous_epoch && owned.is_some_and(|owned| member.was_given(owned)) {
        return Ok(());
    }
    let message = format!("the member's epoch is {}, not {epoch}; it must give up all and join again", member.epoch);
    Err(Refused::new(GroupError::FencedEpoch, message))
}

/// Takes over what a member says about itself.
fn update(member: &mut Member, request: &HeartbeatRequest) {
    let joins = request.epoch == 0;
    member.classic = None;
    member.client_id.clone_from(&request.client_id);
    member.client_host.clone_from(&request.client_host);
    if let Some(instance) = &request.instance_id {
        member.instance_id = Some(instance.clone());
    }
    if let Some(rack) = &request.rack_id {
        member.rack_id = Some(rack.clone());
    }
    if request.rebalance_timeout_ms >= 0 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topics) = &request.topics {
        member.topics = topics.iter().cloned().collect();
    }
    if let Some(pattern) = &request.pattern {
        member.pattern = Some(pattern.clone()).filter(|pattern| !pattern.is_empty());
    }
    if let Some(assignor) = &request.assignor {
        member.assignor = Some(assignor.clone());
    }
    if let Some(owned) = &request.owned {
        member.owned = Some(owned.clone());
    }
    if joins {
        (member.epoch, member.previous_epoch) = (0, 0);
    }
}

//! One group: its members, its generation, and how it gets from one to the next.
//!
//! ```text
//!            first member                 all have joined              leader's assignment persisted
//!   Empty ───────────────▶ PreparingRebalance ────────▶ CompletingRebalance ────────▶ Stable
//!     ▲                      │      ▲                         │ join, leave, expiry     │
//!     └── last member gone ──┘      └─────────────────────────┴─────────────────────────┘
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;

use super::consumer::{Consumer, Topics};
use super::machine::{Effect, JoinError, Ticket};
use super::member::{JoinAnswer, JoinRequest, JoinedMember, Member, SyncAnswer, SyncRequest, bytes_of};
use super::offsets::{Committed, OffsetKey};
use super::record::GroupRecord;
use super::{GroupError, GroupSettings, State, consumer, record, subscription};

/// A member that joined without having been told its id, and is parked, is given up after this long.
const UNCONFIRMED_MS: i64 = 5 * 60 * 1000;

#[derive(Debug)]
pub(super) struct Group {
    pub id: String,
    pub state: State,
    /// When it came into this state.
    pub since: i64,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    pub offsets: BTreeMap<OffsetKey, Committed>,
    /// It has had offsets, or an open transaction has some of it. So it is there until it is deleted, or found to have
    /// nothing left.
    pub had_offsets: bool,
    /// The group is one of the consumer protocol; the other fields about members are then as in an empty group.
    pub consumer: Option<Box<Consumer>>,
    /// Member id of each static member.
    statics: BTreeMap<String, String>,
    /// Ids handed out with MEMBER_ID_REQUIRED, until when they are good.
    pending: BTreeMap<String, i64>,
    next_order: u64,
    join_ends: Option<i64>,
    /// Set while an empty group waits for its first members.
    initial: Option<InitialDelay>,
    sync_ends: Option<i64>,
    /// The leader's assignment on its way to storage.
    persisting: Option<Vec<(String, Bytes)>>,
    /// How many records were asked to be written.
    records: u64,
    /// Key of this group among the machine's timers.
    pub scheduled: Option<i64>,
    /// Bytes of this group within the machine's sum.
    pub counted: usize,
}

/// How somebody wants to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// In a version that knows nothing of the consumer protocol.
    Classic,
    /// The generation may be a member's epoch.
    ByEpoch,
    InTransaction,
}

#[derive(Debug)]
struct InitialDelay {
    remaining_ms: i64,
    joined_since: bool,
}

/// What a group takes in memory beside its members and texts, about; and an id that was given and not come back with.
pub(super) const GROUP_BYTES: usize = 640;
const PENDING_BYTES: usize = 80;

impl Group {
    pub fn new(id: String, now: i64) -> Self {
        Self {
            id,
            state: State::Empty,
            since: now,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            offsets: BTreeMap::new(),
            had_offsets: false,
            consumer: None,
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_order: 0,
            join_ends: None,
            initial: None,
            sync_ends: None,
            persisting: None,
            records: 0,
            scheduled: None,
            counted: 0,
        }
    }

    /// A group as it was persisted; its members have a session's time to be heard again.
    pub fn load(record: GroupRecord, now: i64) -> Self {
        let mut group = Self::new(record.group, now);
        // The clock may have been set back since.
        group.since = record.since.min(now);
        group.generation = record.generation;
        group.protocol_type = record.protocol_type;
        group.next_order = record.members.len() as u64;
        for mut member in record.members {
            member.heard(now);
            if let Some(instance) = &member.instance_id {
                group.statics.insert(instance.clone(), member.id.clone());
            }
            group.members.insert(member.id.clone(), member);
        }
        // Without a generation it was written for nothing else.
        if group.generation == 0 {
            (group.had_offsets, group.records) = (true, 1);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
            group.protocol = record.protocol;
            group.leader = Some(record.leader);
        }
        group
    }

    pub fn record(&mut self) -> GroupRecord {
        self.records += 1;
        GroupRecord {
            number: self.records,
            group: self.id.clone(),
            generation: self.generation,
            since: self.since,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            members: self.members.values().cloned().collect(),
        }
    }

    /// About what it takes in memory, but for its offsets.
    pub fn bytes(&self) -> usize {
        let persisting = self.persisting.as_deref().map_or(0, bytes_of);
        let consumer = self.consumer.as_ref().map_or(0, |consumer| consumer.bytes);
        let pending: usize = self.pending.keys().map(|id| PENDING_BYTES + id.len()).sum();
        let leader = self.leader.as_ref().map_or(0, String::len);
        // Its name is here, among all groups and with its timer.
        let own = GROUP_BYTES + 3 * self.id.len() + self.protocol_type.len() + self.protocol.len() + leader;
        self.members.values().map(Member::bytes).sum::<usize>() + persisting + consumer + pending + own
    }

    /// What it would take if somebody joined, or joined again.
    pub fn bytes_with(&self, request: &JoinRequest) -> usize {
        let of_instance = request.instance_id.as_ref().and_then(|instance| self.statics.get(instance));
        let before = self.members.get(of_instance.unwrap_or(&request.member_id));
        self.counted.saturating_sub(before.map_or(0, Member::bytes)) + request.bytes()
    }

    /// Nothing would be lost by forgetting it.
    pub fn is_void(&self) -> bool {
        self.is_empty()
            && self.consumer.is_none()
            && self.generation == 0
            && self.pending.is_empty()
            && !self.had_offsets
    }

    /// It is there for the offsets that it had, and was not written since the start.
    pub fn is_bare(&self) -> bool {
        self.had_offsets
            && self.offsets.is_empty()
            && self.is_empty()
            && self.consumer.is_none()
            && self.generation == 0
            && self.records == 0
    }

    /// Nobody is a member.
    pub fn is_empty(&self) -> bool {
        self.state == State::Empty && self.consumer.as_ref().is_none_or(|consumer| consumer.is_empty())
    }

    /// Nobody is a member or about to be one.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    pub fn state_name(&self) -> &'static str {
        self.consumer.as_ref().map_or(self.state.name(), |consumer| consumer.state())
    }

    /// When it came into its state, as far as that matters to what it leaves behind.
    pub fn since(&self) -> i64 {
        self.consumer.as_ref().map_or(self.since, |consumer| consumer.since)
    }

    /// A member of the consumer protocol is about to come. Members of the classic one go on as such beside it; where they
    /// cannot, this is false.
    pub fn become_consumer(&mut self, topics: &dyn Topics, now: i64, fx: &mut Vec<Effect>) -> bool {
        if self.consumer.is_some() {
            return true;
        }
        let consumer = if self.state == State::Empty {
            Consumer::new(self.generation, now)
        } else if self.protocol_type == consumer::classic::PROTOCOL_TYPE {
            match Consumer::from_classic(self.generation, self.members.values(), topics, now) {
                Some(consumer) => consumer,
                None => return false,
            }
        } else {
            return false;
        };
        // Whoever is parked shall join again, which the group now answers at once.
        self.refuse_syncs(GroupError::RebalanceInProgress, now, fx);
        for member in std::mem::take(&mut self.members).into_values() {
            for ticket in member.join.into_iter().chain(member.replaced.map(|(ticket, _)| ticket)) {
                let error = GroupError::RebalanceInProgress;
                fx.push(Effect::Joined(ticket, Err(JoinError { error, member_id: member.id.clone() })));
            }
        }
        self.statics.clear();
        self.pending.clear();
        (self.leader, self.initial, self.persisting) = (None, None, None);
        (self.join_ends, self.sync_ends) = (None, None);
        self.enter(State::Empty, now);
        self.consumer = Some(Box::new(consumer));
        fx.push(Effect::Write(vec![(record::group_key(&self.id), None)]));
        true
    }

    /// Members of the classic protocol shall come. False: there are members of the consumer protocol.
    fn become_classic(&mut self, now: i64, fx: &mut Vec<Effect>) -> bool {
        match &self.consumer {
            None => return true,
            Some(consumer) if !consumer.is_empty() => return false,
            // Epochs and generations go on from each other, so that none is ever given twice.
            Some(consumer) => self.generation = consumer.epoch,
        }
        self.consumer = None;
        self.enter(State::Empty, now);
        fx.push(Effect::Write(vec![(consumer::record::group_key(&self.id), None)]));
        true
    }

    // --- joining ---

    pub fn join(
        &mut self,
        request: &JoinRequest,
        ticket: Ticket,
        settings: &GroupSettings,
        now: i64,
        fx: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.try_join(request, ticket, settings, now, fx) {
            fx.push(Effect::Joined(ticket, Err(error)));
        }
    }

    fn try_join(
        &mut self,
        request: &JoinRequest,
        ticket: Ticket,
        settings: &GroupSettings,
        now: i64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), JoinError> {
        let refuse = |error| Err(JoinError { error, member_id: request.member_id.clone() });
        if !self.accepts_protocols(request) || !self.become_classic(now, fx) {
            return refuse(GroupError::InconsistentProtocol);
        }
        if !request.member_id.is_empty() {
            return match self.join_again(request, ticket, settings, now, fx) {
                Ok(()) => Ok(()),
                Err(error) => refuse(error),
            };
        }
        if let Some(instance) = &request.instance_id
            && let Some(old) = self.statics.get(instance).cloned()
        {
            self.replace_static(&old, request, ticket, settings, now, fx);
            return Ok(());
        }
        if self.members.len() + self.pending.len() >= settings.members_max {
            return refuse(GroupError::GroupFull);
        }
        if request.id_required && request.instance_id.is_none() {
            self.pending.insert(request.new_id.clone(), now + i64::from(request.session_timeout_ms));
            return Err(JoinError { error: GroupError::MemberIdRequired, member_id: request.new_id.clone() });
        }
        self.add_member(request, request.new_id.clone(), ticket, settings, now, fx);
        Ok(())
    }

    /// A join of somebody who names an id.
    fn join_again(
        &mut self,
        request: &JoinRequest,
        ticket: Ticket,
        settings: &GroupSettings,
        now: i64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        if request.instance_id.is_none() && self.pending.remove(&request.member_id).is_some() {
            self.add_member(request, request.member_id.clone(), ticket, settings, now, fx);
            return Ok(());
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        let leads = self.leader.as_deref() == Some(&request.member_id);
        let Some(member) = self.members.get_mut(&request.member_id) else { return Err(GroupError::UnknownMember) };
        let unchanged = member.protocols == request.protocols;
        match self.state {
            State::Empty => return Err(GroupError::UnknownMember),
            State::CompletingRebalance if unchanged => {
                member.update(request);
                member.heard(now);
                let answer = self.answer_to(&request.member_id, leads);
                fx.push(Effect::Joined(ticket, Ok(answer)));
            }
            State::Stable if unchanged && !leads => {
                member.update(request);
                member.heard(now);
                let answer = self.answer_to(&request.member_id, false);
                fx.push(Effect::Joined(ticket, Ok(answer)));
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                member.update(request);
                Self::park_join(member, ticket, fx);
                self.rebalance(settings, now, fx);
            }
        }
        Ok(())
    }

    fn park_join(member: &mut Member, ticket: Ticket, fx: &mut Vec<Effect>) {
        if let Some(earlier) = member.join.replace(ticket) {
            let error = GroupError::RebalanceInProgress;
            fx.push(Effect::Joined(earlier, Err(JoinError { error, member_id: member.id.clone() })));
        }
    }

    fn add_member(
        &mut self,
        request: &JoinRequest,
        id: String,
        ticket: Ticket,
        settings: &GroupSettings,
        now: i64,
        fx: &mut Vec<Effect>,
    ) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        let mut member = Member::new(request, id.clone(), self.next_order);
        self.next_order += 1;
        member.join = Some(ticket);
        member.unconfirmed = request.member_id.is_empty() && request.instance_id.is_none();
        member.session_ends = now + UNCONFIRMED_MS;
        if let Some(instance) = &request.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(initial) = &mut self.initial {
            initial.joined_since = true;
        }
        self.members.insert(id, member);
        self.rebalance(settings, now, fx);
    }

    /// A static member came back without its id: the new id takes the old one's place.
    fn replace_static(
        &mut self,
        old: &str,
        request: &JoinRequest,
        ticket: Ticket,
        settings: &GroupSettings,
        now: i64,
        fx: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(old) else { return };
        if let Some(parked) = member.join.take() {
            let error = GroupError::FencedInstance;
            fx.push(Effect::Joined(parked, Err(JoinError { error, member_id: old.to_owned() })));
        }
        if let Some((parked, _)) = member.replaced.take() {
            let error = GroupError::FencedInstance;
            fx.push(Effect::Joined(parked, Err(JoinError { error, member_id: old.to_owned() })));
        }
        if let Some(parked) = member.sync.take() {
            fx.push(Effect::Synced(parked, Err(GroupError::FencedInstance)));
        }
        let id = request.new_id.clone();
        member.id.clone_from(&id);
        member.update(request);
        member.heard(now);
        if let Some(instance) = &request.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.clone());
        }
        self.members.insert(id.clone(), member);
        if self.state == State::Stable && self.choose_protocol() == self.protocol {
            let mut answer = self.answer_to(&id, led && request.can_skip_assignment);
            if led && request.can_skip_assignment {
                answer.skip_assignment = true;
            } else if led {
                // An older client that finds itself the leader would assign anew: it is told of the leader that was.
                answer.leader = old.to_owned();
            }
            if let Some(member) = self.members.get_mut(&id) {
                // Told only once it is written: after a crash the id would be that of a stranger, fenced by the old one.
                member.replaced = Some((ticket, Box::new(answer)));
            }
            fx.push(Effect::Persist(self.record()));
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.join = Some(ticket);
        }
        self.rebalance(settings, now, fx);
    }

    fn answer_to(&self, id: &str, with_members: bool) -> JoinAnswer {
        let members = if with_members {
            let mut members: Vec<_> = self.members.values().collect();
            members.sort_by_key(|m| m.order);
            let joined = |m: &&Member| JoinedMember {
                id: m.id.clone(),
                instance_id: m.instance_id.clone(),
                metadata: m.metadata(&self.protocol),
            };
            members.iter().map(joined).collect()
        } else {
            Vec::new()
        };
        JoinAnswer {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members,
            skip_assignment: false,
        }
    }

    fn accepts_protocols(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        self.members.is_empty()
            || (self.protocol_type == request.protocol_type
                && request.protocols.iter().any(|(p, _)| self.members.values().all(|m| m.supports(p))))
    }

    /// The protocol that all can do and most prefer; on a tie the one the leader likes better.
    fn choose_protocol(&self) -> String {
        let Some(leader) = self.leader.as_ref().and_then(|l| self.members.get(l)) else { return String::new() };
        let common: Vec<&str> = leader
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| self.members.values().all(|m| m.supports(name)))
            .collect();
        let votes = |candidate: &str| {
            let first = |m: &&Member| {
                m.protocols
                    .iter()
                    .find(|(name, _)| common.contains(&name.as_str()))
                    .is_some_and(|(n, _)| n == candidate)
            };
            self.members.values().filter(first).count()
        };
        let best = common.iter().rev().max_by_key(|candidate| votes(candidate));
        best.map(|name| (*name).to_owned()).unwrap_or_default()
    }

    // --- rebalancing ---

    /// Begins to gather the next generation, or goes on with it.
    fn rebalance(&mut self, settings: &GroupSettings, now: i64, fx: &mut Vec<Effect>) {
        if self.state != State::PreparingRebalance {
            if self.state == State::CompletingRebalance {
                self.refuse_syncs(GroupError::RebalanceInProgress, now, fx);
            }
            let wait = self.rebalance_timeout();
            let delay = settings.initial_rebalance_delay_ms.min(wait);
            if self.state == State::Empty && delay > 0 {
                self.initial = Some(InitialDelay { remaining_ms: wait - delay, joined_since: false });
                self.join_ends = Some(now + delay);
            } else {
                self.join_ends = Some(now + wait);
            }
            self.sync_ends = None;
            self.persisting = None;
            for member in self.members.values_mut() {
                if let Some((ticket, _)) = member.replaced.take() {
                    member.join = Some(ticket);
                }
            }
            self.enter(State::PreparingRebalance, now);
        }
        self.try_begin_generation(now, fx);
    }

    fn rebalance_timeout(&self) -> i64 {
        self.members.values().map(|m| i64::from(m.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    fn enter(&mut self, state: State, now: i64) {
        self.state = state;
        self.since = now;
    }

    fn try_begin_generation(&mut self, now: i64, fx: &mut Vec<Effect>) {
        let all_here = self.pending.is_empty() && self.members.values().all(|m| m.join.is_some());
        if self.state == State::PreparingRebalance && self.initial.is_none() && all_here {
            self.begin_generation(now, fx);
        }
    }

    /// Ends the joining: who has not joined is out, but for static members, who have their session's time.
    fn begin_generation(&mut self, now: i64, fx: &mut Vec<Effect>) {
        let absent: Vec<String> = self
            .members
            .values()
            .filter(|m| m.join.is_none() && m.instance_id.is_none())
            .map(|m| m.id.clone())
            .collect();
        for id in absent {
            self.remove(&id, fx);
        }
        self.initial = None;
        self.join_ends = None;
        if self.members.is_empty() {
            self.generation = self.generation.wrapping_add(1).max(1);
            self.protocol.clear();
            self.leader = None;
            self.enter(State::Empty, now);
            fx.push(Effect::Persist(self.record()));
            return;
        }
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            match self.members.values().filter(|m| m.join.is_some()).min_by_key(|m| m.order) {
                Some(member) => self.leader = Some(member.id.clone()),
                None => {
                    // Only static members are left and none has joined: their sessions decide.
                    self.join_ends = Some(now + self.rebalance_timeout().max(1));
                    return;
                }
            }
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.protocol = self.choose_protocol();
        self.enter(State::CompletingRebalance, now);
        self.sync_ends = Some(now + self.rebalance_timeout());
        let parked: Vec<(String, Ticket)> =
            self.members.values_mut().filter_map(|m| m.join.take().map(|t| (m.id.clone(), t))).collect();
        for (id, ticket) in parked {
            let leads = self.leader.as_deref() == Some(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.must_sync = true;
                member.unconfirmed = false;
                member.heard(now);
            }
            let answer = self.answer_to(&id, leads);
            fx.push(Effect::Joined(ticket, Ok(answer)));
        }
    }

    // --- assignment ---

    pub fn sync(&mut self, request: &SyncRequest, ticket: Ticket, now: i64, fx: &mut Vec<Effect>) {
        if let Some(consumer) = &mut self.consumer {
            fx.push(Effect::Synced(ticket, consumer.sync_classic(request, now)));
            return;
        }
        if let Err(error) = self.try_sync(request, ticket, now, fx) {
            fx.push(Effect::Synced(ticket, Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        request: &SyncRequest,
        ticket: Ticket,
        now: i64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |theirs: &Option<String>, ours: &str| theirs.as_deref().is_some_and(|t| t != ours);
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        let leads = self.leader.as_deref() == Some(&request.member_id);
        let Some(member) = self.members.get_mut(&request.member_id) else { return Err(GroupError::UnknownMember) };
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance => {
                member.must_sync = false;
                if let Some(earlier) = member.sync.replace(ticket) {
                    fx.push(Effect::Synced(earlier, Err(GroupError::RebalanceInProgress)));
                }
                if leads && self.persisting.is_none() {
                    let mut record = self.record();
                    for member in &mut record.members {
                        member.assignment = assigned(&request.assignments, &member.id);
                    }
                    self.persisting = Some(request.assignments.clone());
                    fx.push(Effect::Persist(record));
                }
                Ok(())
            }
            State::Stable => {
                member.must_sync = false;
                member.heard(now);
                let assignment = member.assignment.clone();
                fx.push(Effect::Synced(ticket, Ok(self.sync_answer(assignment))));
                self.settle_sync_end();
                Ok(())
            }
        }
    }

    /// What [`Effect::Persist`] asked for has been written, or could not be.
    pub fn persisted(
        &mut self,
        written: &GroupRecord,
        ok: bool,
        settings: &GroupSettings,
        now: i64,
        fx: &mut Vec<Effect>,
    ) {
        let (generation, is_newest) = (written.generation, written.number == self.records);
        for member in self.members.values_mut().filter(|_| is_newest) {
            if let Some((ticket, answer)) = member.replaced.take() {
                member.heard(now);
                let refused = JoinError { error: GroupError::NotPersisted, member_id: String::new() };
                fx.push(Effect::Joined(ticket, if ok { Ok(*answer) } else { Err(refused) }));
            }
        }
        if self.state != State::CompletingRebalance || generation != self.generation {
            return;
        }
        let Some(assignments) = self.persisting.take() else { return };
        if !ok {
            self.refuse_syncs(GroupError::NotPersisted, now, fx);
            self.rebalance(settings, now, fx);
            return;
        }
        self.enter(State::Stable, now);
        let mut answers = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = assigned(&assignments, &member.id);
            if let Some(ticket) = member.sync.take() {
                member.heard(now);
                answers.push((ticket, member.assignment.clone()));
            }
        }
        for (ticket, assignment) in answers {
            fx.push(Effect::Synced(ticket, Ok(self.sync_answer(assignment))));
        }
        self.settle_sync_end();
    }

    fn sync_answer(&self, assignment: Bytes) -> SyncAnswer {
        SyncAnswer { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    fn settle_sync_end(&mut self) {
        if self.members.values().all(|m| !m.must_sync) {
            self.sync_ends = None;
        }
    }

    fn refuse_syncs(&mut self, error: GroupError, now: i64, fx: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            member.must_sync = false;
            if let Some(ticket) = member.sync.take() {
                member.heard(now);
                fx.push(Effect::Synced(ticket, Err(error)));
            }
        }
    }

    // --- staying and leaving ---

    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), GroupError> {
        if let Some(consumer) = &mut self.consumer {
            return consumer.heartbeat_classic(member_id, instance_id, generation, now);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(id) if id != member_id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    /// Takes a member out of the group without yet rebalancing. Gives its id.
    pub fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: i64,
        fx: &mut Vec<Effect>,
    ) -> Result<String, GroupError> {
        if let Some(consumer) = &mut self.consumer {
            return consumer.expel(member_id, instance_id, now);
        }
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
        self.remove(&id, fx);
        Ok(id)
    }

    /// To be called after members or pending ids went: rebalances where that changes anything.
    pub fn after_leaving(&mut self, members_went: bool, settings: &GroupSettings, now: i64, fx: &mut Vec<Effect>) {
        if members_went && self.state != State::Empty {
            self.rebalance(settings, now, fx);
        } else {
            self.try_begin_generation(now, fx);
        }
    }

    fn remove(&mut self, id: &str, fx: &mut Vec<Effect>) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(ticket) = member.join {
            let error = GroupError::UnknownMember;
            fx.push(Effect::Joined(ticket, Err(JoinError { error, member_id: id.to_owned() })));
        }
        if let Some((ticket, _)) = member.replaced {
            let error = GroupError::UnknownMember;
            fx.push(Effect::Joined(ticket, Err(JoinError { error, member_id: id.to_owned() })));
        }
        if let Some(ticket) = member.sync {
            fx.push(Effect::Synced(ticket, Err(GroupError::UnknownMember)));
        }
        if let Some(instance) = &member.instance_id {
            self.statics.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.values().min_by_key(|m| (m.join.is_none(), m.order)).map(|m| m.id.clone());
        }
    }

    // --- time ---

    /// When something will be due.
    pub fn deadline(&self) -> Option<i64> {
        if let Some(consumer) = &self.consumer {
            return consumer.deadline();
        }
        let sessions = self.members.values().map(Member::session_deadline).filter(|at| *at != i64::MAX);
        self.pending.values().copied().chain(sessions).chain(self.join_ends).chain(self.sync_ends).min()
    }

    pub fn expire(&mut self, settings: &GroupSettings, now: i64, fx: &mut Vec<Effect>) {
        if let Some(consumer) = &mut self.consumer {
            consumer.expire(now);
            return;
        }
        self.pending.retain(|_, until| *until > now);
        let sync_over = self.sync_ends.is_some_and(|at| at <= now);
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|m| m.session_deadline() <= now || (sync_over && m.must_sync))
            .map(|m| m.id.clone())
            .collect();
        if sync_over {
            self.sync_ends = None;
        }
        for id in &gone {
            self.remove(id, fx);
        }
        self.after_leaving(!gone.is_empty(), settings, now, fx);
        if self.state == State::PreparingRebalance && self.join_ends.is_some_and(|at| at <= now) {
            match &mut self.initial {
                Some(initial) if initial.joined_since && initial.remaining_ms > 0 => {
                    let delay = settings.initial_rebalance_delay_ms.min(initial.remaining_ms);
                    initial.remaining_ms -= delay;
                    initial.joined_since = false;
                    self.join_ends = Some(now + delay);
                }
                _ => self.begin_generation(now, fx),
            }
        }
    }

    // --- offsets ---

    /// Whether somebody may commit offsets; a member that does is heard.
    pub fn may_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        way: Commit,
        now: i64,
    ) -> Result<(), GroupError> {
        if let Some(consumer) = &self.consumer {
            return consumer.may_commit(member_id, generation, way != Commit::Classic);
        }
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        // What a transaction has read it must be able to finish, or its producer is stuck with it.
        if self.state == State::CompletingRebalance && way != Commit::InTransaction {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now);
        }
        Ok(())
    }

    /// Whether it has members, and they are not consumers.
    pub fn is_used_by_others(&self) -> bool {
        self.consumer.is_none() && !self.members.is_empty() && self.protocol_type != "consumer"
    }

    /// Whether a member reads this topic now, as far as its metadata can be read.
    pub fn reads(&self, topic: &str) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.reads(topic);
        }
        if self.is_used_by_others() {
            return true;
        }
        self.members.values().any(|m| {
            m.protocols
                .iter()
                .any(|(_, bytes)| subscription::topics(bytes).is_none_or(|topics| topics.contains(&topic)))
        })
    }

    /// Offsets that have outlived their retention.
    pub fn expired_offsets(&self, settings: &GroupSettings, now: i64) -> Vec<OffsetKey> {
        let is_over = |key: &OffsetKey, committed: &Committed| {
            if committed.expires_at >= 0 {
                return committed.expires_at <= now && !self.reads(&key.topic);
            }
            let from = match &self.consumer {
                Some(consumer) if consumer.is_empty() => consumer.since.max(committed.committed_at),
                None if self.state == State::Empty && self.generation > 0 => self.since.max(committed.committed_at),
                _ => committed.committed_at,
            };
            from.saturating_add(settings.offsets_retention_ms) <= now && !self.reads(&key.topic)
        };
        self.offsets.iter().filter(|(key, committed)| is_over(key, committed)).map(|(key, _)| key.clone()).collect()
    }
}

fn assigned(assignments: &[(String, Bytes)], id: &str) -> Bytes {
    assignments.iter().find(|(member, _)| member == id).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
}

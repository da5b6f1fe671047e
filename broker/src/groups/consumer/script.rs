//! The consumer protocol by scripts: what each member says, the time going by, and what it is told.

use std::collections::{BTreeMap, BTreeSet};

use millpond_types::TopicId;

use super::assign::{self, Partitions};
use super::member::Member;
use super::record::{self, Head};
use super::{HeartbeatAnswer, HeartbeatRequest, Refused, Topics};
use crate::groups::machine::{Effect, Machine};
use crate::groups::member::{JoinRequest, SyncRequest};
use crate::groups::subscription;
use crate::groups::{Commit, GroupError, GroupSettings, LeaveRequest};

#[derive(Default)]
pub(super) struct Log {
    version: u64,
    pub(super) topics: BTreeMap<String, (TopicId, i32)>,
    /// Names of all topics that there ever were.
    names: BTreeMap<TopicId, String>,
}

impl Topics for Log {
    fn version(&self) -> u64 {
        self.version
    }
    fn find(&self, name: &str) -> Option<(TopicId, i32)> {
        self.topics.get(name).copied()
    }
    fn each(&self, look: &mut dyn FnMut(&str)) {
        self.topics.keys().for_each(|name| look(name));
    }
}

impl Log {
    pub(super) fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        let id = self.topics.get(name).map_or_else(|| TopicId([self.version as u8; 16]), |(id, _)| *id);
        self.topics.insert(name.into(), (id, partitions));
        self.names.insert(id, name.into());
    }
    pub(super) fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }
    pub(super) fn name(&self, id: TopicId) -> Option<&str> {
        let name = self.was(id);
        self.find(name).is_some_and(|(other, _)| other == id).then_some(name)
    }
    pub(super) fn was(&self, id: TopicId) -> &str {
        &self.names[&id]
    }
}

pub(super) struct Script {
    pub(super) machine: Machine,
    pub(super) log: Log,
    pub(super) now: i64,
    pub(super) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Changes that are not on disk yet.
    pub(super) open: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Script {
    pub(super) fn new(topics: &[(&str, i32)]) -> Self {
        let mut log = Log::default();
        topics.iter().for_each(|(name, partitions)| log.set(name, *partitions));
        let machine = Machine::new(GroupSettings::default());
        Self { machine, log, now: 1_000_000, disk: BTreeMap::new(), open: Vec::new() }
    }

    pub(super) fn take(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Write(entries) => self.open.extend(entries),
                // Of members of the classic protocol who were there before.
                Effect::Synced(..) | Effect::Joined(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn write(&mut self) {
        for (key, value) in self.open.drain(..) {
            match value {
                Some(value) => self.disk.insert(key, value),
                None => self.disk.remove(&key),
            };
        }
    }

    /// Ends the process; what was not written is gone.
    pub(super) fn crash(&mut self) {
        self.open.clear();
        let offsets: Vec<_> = self.machine.offsets("g").map(|(k, c)| (k.clone(), c.clone())).collect();
        self.machine = Machine::new(GroupSettings::default());
        let mut groups: BTreeMap<String, (Head, Vec<Member>)> = BTreeMap::new();
        for (key, value) in &self.disk {
            if let Some(group) = record::group_of_key(key) {
                groups.insert(group, (Head::decode(value).unwrap(), Vec::new()));
            } else if let Some((group, id)) = record::member_of_key(key) {
                groups.get_mut(&group).unwrap().1.push(Member::decode(id, value).unwrap());
            }
        }
        for (id, (head, members)) in groups {
            self.machine.load_consumer(id, head, members, self.now);
        }
        for (key, committed) in offsets {
            self.machine.set_offset("g", key, committed, self.now);
        }
    }

    pub(super) fn beat(&mut self, request: &HeartbeatRequest) -> Result<HeartbeatAnswer, Refused> {
        let (result, fx) = self.machine.consumer_heartbeat(request, &self.log, self.now);
        self.take(fx);
        result
    }

    pub(super) fn wait(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let fx = self.machine.tick(self.now);
            self.take(fx);
        }
        self.now = until;
    }

    pub(super) fn state(&self) -> &'static str {
        self.machine.list().first().map_or("Dead", |listed| listed.state)
    }

    /// As "t0 t1 u0".
    fn text(&self, partitions: &Partitions) -> String {
        let one = |(topic, index)| format!("{}{index}", self.log.name(topic).unwrap_or("?"));
        assign::each(partitions).map(one).collect::<Vec<_>>().join(" ")
    }

    /// Epoch and assignment, or the error.
    fn says(&mut self, request: &HeartbeatRequest) -> String {
        match self.beat(request) {
            Ok(HeartbeatAnswer { epoch, assignment: None, .. }) => epoch.to_string(),
            Ok(HeartbeatAnswer { epoch, assignment: Some(p), .. }) => format!("{epoch}: {}", self.text(&p)),
            Err(refused) => format!("{:?}", refused.error),
        }
    }

    fn owned(&self, text: &str) -> Option<Partitions> {
        let mut out = Partitions::new();
        for place in text.split_whitespace() {
            let (topic, index) = place.split_at(1);
            assign::add(&mut out, self.log.find(topic).unwrap().0, index.parse().unwrap());
        }
        Some(out)
    }
}

pub(super) fn join(id: &str, topics: &[&str]) -> HeartbeatRequest {
    HeartbeatRequest {
        group: "g".into(),
        member_id: id.into(),
        rebalance_timeout_ms: 60_000,
        topics: Some(topics.iter().map(|t| (*t).to_owned()).collect()),
        owned: Some(Partitions::new()),
        client_id: "c".into(),
        client_host: "/h".into(),
        id_required: true,
        ..HeartbeatRequest::default()
    }
}

pub(super) fn stay(id: &str, epoch: i32) -> HeartbeatRequest {
    let (topics, owned) = (None, None);
    HeartbeatRequest { epoch, rebalance_timeout_ms: -1, topics, owned, ..join(id, &[]) }
}

#[test]
fn what_one_must_give_another_gets_once_it_let_go() {
    let mut s = Script::new(&[("t", 4)]);
    assert_eq!(s.says(&join("a", &["t"])), "1: t0 t1 t2 t3");
    assert_eq!(s.state(), "Stable");
    let all = s.owned("t0 t1 t2 t3");
    assert_eq!(s.says(&HeartbeatRequest { owned: all, ..stay("a", 1) }), "1");
    assert_eq!(s.says(&join("b", &["t"])), "2: ", "nothing is free yet");
    assert_eq!(s.says(&stay("b", 2)), "2");
    assert_eq!(s.says(&stay("a", 1)), "1: t0 t1");
    assert_eq!(s.says(&stay("a", 1)), "1", "it has not said that it let go");
    assert_eq!(s.says(&stay("b", 2)), "2");
    assert_eq!(s.state(), "Reconciling");
    let half = s.owned("t0 t1");
    assert_eq!(s.says(&HeartbeatRequest { owned: half, ..stay("a", 1) }), "2", "which it was told before");
    assert_eq!(s.says(&stay("b", 2)), "2: t2 t3");
    assert_eq!(s.state(), "Stable");
    // b goes, and a has all again.
    assert_eq!(s.says(&stay("b", -1)), "-1");
    assert_eq!(s.says(&stay("a", 2)), "3: t0 t1 t2 t3");
    assert_eq!(s.says(&stay("a", -1)), "-1");
    assert_eq!(s.state(), "Empty");
    assert_eq!(s.says(&stay("a", 3)), "UnknownMember");
}

#[test]
fn epochs_fence() {
    let mut s = Script::new(&[("t", 2)]);
    assert_eq!(s.says(&stay("a", 1)), "GroupNotFound");
    assert_eq!(s.says(&join("a", &["t"])), "1: t0 t1");
    assert_eq!(s.says(&stay("a", 2)), "FencedEpoch");
    assert_eq!(s.says(&join("b", &["t"])), "2: ");
    let one = s.owned("t0");
    s.says(&stay("a", 1));
    assert_eq!(s.says(&HeartbeatRequest { owned: one.clone(), ..stay("a", 1) }), "2");
    // The answer was lost: the epoch before is good with what was given, and the present one is told again.
    assert_eq!(s.says(&HeartbeatRequest { owned: one, ..stay("a", 1) }), "2: t0");
    let other = s.owned("t1");
    assert_eq!(s.says(&HeartbeatRequest { owned: other, ..stay("a", 1) }), "FencedEpoch");
    assert_eq!(s.says(&stay("a", 1)), "FencedEpoch");
    let commit = |s: &mut Script, member: &str, epoch, way| {
        s.machine.may_commit("g", member, None, epoch, way, &[], s.now).map_err(|e| format!("{e:?}"))
    };
    assert_eq!(commit(&mut s, "a", 2, Commit::ByEpoch), Ok(()));
    assert_eq!(commit(&mut s, "a", 1, Commit::ByEpoch), Err("StaleEpoch".into()));
    assert_eq!(commit(&mut s, "a", 2, Commit::Classic), Err("UnsupportedVersion".into()));
    assert_eq!(commit(&mut s, "z", 2, Commit::ByEpoch), Err("UnknownMember".into()));
    assert_eq!(commit(&mut s, "", -1, Commit::ByEpoch), Err("UnknownMember".into()));
    assert_eq!(s.machine.may_fetch("g", Some("a"), 1), Err(GroupError::StaleEpoch));
    assert_eq!(s.machine.may_fetch("g", None, -1), Ok(()));
    let in_transaction = |s: &mut Script, epoch| s.machine.may_commit_in_transaction("g", "a", None, epoch, &[], s.now);
    assert_eq!(in_transaction(&mut s, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(in_transaction(&mut s, 2), Ok(()));
    // Joining again gives up what was had, and gets it back.
    assert_eq!(s.says(&join("a", &["t"])), "2: t0");
}

#[test]
fn silence_and_slowness_end_a_membership() {
    let mut s = Script::new(&[("t", 2)]);
    s.says(&join("a", &["t"]));
    let both = s.owned("t0 t1");
    s.says(&HeartbeatRequest { owned: both, ..stay("a", 1) });
    s.says(&join("b", &["t"]));
    s.says(&stay("a", 1));
    for _ in 0..7 {
        s.wait(8_000);
        assert_eq!(s.says(&stay("a", 1)), "1");
        assert_eq!(s.says(&stay("b", 2)), "2");
    }
    // a has not let go within its rebalance timeout of 60 s.
    s.wait(8_000);
    assert_eq!(s.says(&stay("a", 1)), "UnknownMember");
    assert_eq!(s.says(&stay("b", 2)), "3: t0 t1");
    s.wait(46_000);
    assert_eq!(s.says(&stay("b", 3)), "UnknownMember");
    assert_eq!(s.state(), "Empty");
}

#[test]
fn static_members_come_back_to_what_they_had() {
    let mut s = Script::new(&[("t", 2)]);
    let fixed = |id: &str| HeartbeatRequest { instance_id: Some("i".into()), ..join(id, &["t"]) };
    let fixed_stay = |id: &str, epoch| HeartbeatRequest { instance_id: Some("i".into()), ..stay(id, epoch) };
    assert_eq!(s.says(&fixed("a")), "1: t0 t1");
    s.says(&join("b", &["t"]));
    s.says(&fixed_stay("a", 1));
    let one = s.owned("t0");
    assert_eq!(s.says(&HeartbeatRequest { owned: one, ..fixed_stay("a", 1) }), "2");
    assert_eq!(s.says(&stay("b", 2)), "2: t1");
    assert_eq!(s.says(&fixed("a2")), "UnreleasedInstance");
    assert_eq!(s.says(&fixed_stay("a2", 2)), "FencedInstance");
    assert_eq!(s.says(&fixed_stay("a", -2)), "-2");
    assert_eq!(s.says(&stay("b", 2)), "2", "its place is kept");
    s.write();
    s.crash();
    assert_eq!(s.says(&fixed("a2")), "2: t0", "and nobody else is disturbed");
    assert_eq!(s.says(&stay("b", 2)), "2");
    assert_eq!(s.says(&fixed_stay("a", 2)), "FencedInstance");
    assert_eq!(s.says(&fixed_stay("a2", -2)), "-2");
    s.wait(40_000);
    s.says(&stay("b", 2));
    s.wait(10_000);
    assert_eq!(s.says(&stay("b", 2)), "3: t0 t1", "but not for ever");
}

#[test]
fn topics_that_come_go_and_grow_are_assigned() {
    let mut s = Script::new(&[("t", 1)]);
    assert_eq!(s.says(&join("a", &["t", "u"])), "1: t0");
    assert_eq!(s.says(&stay("a", 1)), "1");
    s.log.set("x", 9);
    assert_eq!(s.says(&stay("a", 1)), "1", "a topic that nobody asked for");
    s.log.set("u", 2);
    s.log.set("t", 2);
    assert_eq!(s.says(&stay("a", 1)), "2: t0 t1 u0 u1");
    assert_eq!(s.machine.may_delete_offset("g", "u"), Err(GroupError::SubscribedToTopic));
    assert_eq!(s.machine.may_delete_offset("g", "x"), Ok(()));
    s.log.delete("t");
    assert_eq!(s.says(&stay("a", 2)), "2: u0 u1");
    let pattern =
        |pattern: &str| HeartbeatRequest { pattern: Some(pattern.into()), topics: Some(vec![]), ..stay("a", 2) };
    let owned = s.owned("u0 u1");
    assert_eq!(s.says(&HeartbeatRequest { owned, ..stay("a", 2) }), "3");
    assert_eq!(s.says(&HeartbeatRequest { epoch: 3, ..pattern("y+") }), "3: ");
    let owned = s.owned("");
    assert_eq!(s.says(&HeartbeatRequest { owned, ..stay("a", 3) }), "4");
    s.log.set("y", 1);
    assert_eq!(s.says(&stay("a", 4)), "5: y0");
    assert_eq!(s.machine.may_delete_offset("g", "y"), Err(GroupError::SubscribedToTopic));
    assert_eq!(s.says(&HeartbeatRequest { epoch: 5, ..pattern("(") }), "InvalidPattern");
}

#[test]
fn what_members_say_is_checked() {
    let mut s = Script::new(&[("t", 2)]);
    let mut says = |change: fn(&mut HeartbeatRequest)| {
        let mut request = join("a", &["t"]);
        change(&mut request);
        s.says(&request)
    };
    assert_eq!(says(|r| r.member_id.clear()), "InvalidRequest");
    assert_eq!(says(|r| r.group.clear()), "InvalidRequest");
    assert_eq!(says(|r| r.instance_id = Some(String::new())), "InvalidRequest");
    assert_eq!(says(|r| r.rebalance_timeout_ms = -1), "InvalidRequest");
    assert_eq!(says(|r| r.owned = None), "InvalidRequest");
    assert_eq!(says(|r| r.topics = None), "InvalidRequest");
    assert_eq!(says(|r| r.epoch = -2), "InvalidRequest");
    assert_eq!(says(|r| r.epoch = -3), "InvalidRequest");
    assert_eq!(says(|r| r.assignor = Some("own".into())), "UnsupportedAssignor");
    assert_eq!(says(|r| r.pattern = Some("a{99999}{99999}".into())), "InvalidPattern");
    assert_eq!(says(|r| r.assignor = Some("range".into())), "1: t0 t1");
    assert_eq!(s.machine.describe_consumer("g").unwrap().assignor, "range");
    // An id of the server's, in version 0.
    let nameless = HeartbeatRequest { id_required: false, new_id: "n".into(), ..join("", &["t"]) };
    assert_eq!(s.beat(&nameless).unwrap().member_id, "n");
    let mut full = Script::new(&[]);
    full.machine = Machine::new(GroupSettings { members_max: 1, groups_max: 1, ..GroupSettings::default() });
    assert_eq!(full.says(&join("a", &["t"])), "1: ");
    assert_eq!(full.says(&join("b", &["t"])), "GroupFull");
    assert_eq!(full.says(&HeartbeatRequest { group: "h".into(), ..join("b", &["t"]) }), "TooMany");
}

#[test]
fn an_empty_group_changes_its_protocol() {
    let mut s = Script::new(&[("t", 1)]);
    s.says(&join("a", &["t"]));
    let protocols = vec![("range".into(), bytes::Bytes::new())];
    let classic = JoinRequest { protocols, member_id: String::new(), ..classic("m", &[]) };
    let fx = s.machine.join(&classic, 1, s.now);
    assert!(matches!(&fx[..], [Effect::Joined(1, Err(e))] if e.error == GroupError::InconsistentProtocol), "{fx:?}");
    assert_eq!(s.machine.heartbeat("g", "a", None, 1, s.now), Err(GroupError::UnknownMember));
    s.says(&stay("a", -1));
    let mut fx = s.machine.join(&classic, 2, s.now);
    assert!(matches!(fx.pop(), Some(Effect::Joined(2, Ok(answer))) if answer.generation == 3), "on from epoch 2");
    assert_eq!(s.says(&join("a", &["t"])), "GroupNotFound");
    s.machine.leave("g", &[LeaveRequest { member_id: "m".into(), instance_id: None }], s.now);
    assert_eq!(s.says(&join("a", &["t"])), "5: t0", "generation 4 was the empty one");
    assert_eq!(s.state(), "Stable");
    assert!(!s.machine.list()[0].is_classic && s.machine.describe("g").is_none());
}

/// A subscription as version 1 has it, with what is owned.
pub(super) fn subscription(topics: &[&str], owned: &[(&str, i32)]) -> bytes::Bytes {
    use bytes::BufMut;
    let mut out = bytes::BytesMut::new();
    let text = |out: &mut bytes::BytesMut, text: &str| {
        out.put_i16(text.len() as i16);
        out.put_slice(text.as_bytes());
    };
    out.put_i16(1);
    out.put_i32(topics.len() as i32);
    topics.iter().for_each(|topic| text(&mut out, topic));
    out.put_i32(-1);
    out.put_i32(owned.len() as i32);
    for (topic, index) in owned {
        text(&mut out, topic);
        out.put_i32(1);
        out.put_i32(*index);
    }
    out.freeze()
}

pub(super) fn classic(id: &str, owned: &[(&str, i32)]) -> JoinRequest {
    JoinRequest {
        group: "g".into(),
        member_id: id.into(),
        instance_id: None,
        client_id: String::new(),
        client_host: String::new(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"], owned))],
        id_required: false,
        can_skip_assignment: false,
        new_id: id.to_owned(),
    }
}

impl Script {
    /// Generation and assignment of a member of the classic protocol in a group of both, or the error.
    fn joins(&mut self, request: &JoinRequest) -> String {
        let mut fx = self.machine.join_mixed(request, &self.log, 9, self.now);
        let answer = match fx.pop() {
            Some(Effect::JoinedOnceWritten(9, answer)) => answer,
            Some(Effect::Joined(9, Err(refused))) => return format!("{:?}", refused.error),
            other => panic!("{other:?}"),
        };
        self.take(fx);
        let generation = answer.generation;
        match &self.machine.sync(&syncs(&answer.member_id, generation, vec![]), 9, self.now)[..] {
            [Effect::Synced(9, Ok(answer))] => {
                let assigned = subscription::assignment(&answer.assignment).unwrap();
                let place = |(topic, indexes): &(&str, Vec<i32>)| {
                    indexes.iter().map(|i| format!("{topic}{i}")).collect::<Vec<_>>().join(" ")
                };
                format!("{generation}: {}", assigned.iter().map(place).collect::<Vec<_>>().join(" "))
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn syncs(id: &str, generation: i32, assignments: Vec<(String, bytes::Bytes)>) -> SyncRequest {
    let (group, member_id, instance_id) = ("g".into(), id.into(), None);
    SyncRequest { group, generation, member_id, instance_id, protocol_type: None, protocol: None, assignments }
}

#[test]
fn a_live_group_changes_over() {
    let mut s = Script::new(&[("t", 4)]);
    let new = |id: &str| JoinRequest { member_id: String::new(), ..classic(id, &[]) };
    s.machine.join(&new("m1"), 1, s.now);
    s.machine.join(&new("m2"), 2, s.now);
    s.machine.join(&classic("m1", &[]), 3, s.now);
    let generation = 2;
    let half = |from: i32| {
        let indexes: BTreeSet<i32> = (from..from + 2).collect();
        subscription::encode_assignment([("t", &indexes)].into_iter())
    };
    let assignments = vec![("m1".to_owned(), half(0)), ("m2".to_owned(), half(2))];
    for effect in s.machine.sync(&syncs("m1", generation, assignments), 4, s.now) {
        let Effect::Persist(record) = effect else { panic!("{effect:?}") };
        s.machine.persisted(&record, true, s.now);
    }
    assert_eq!(s.machine.heartbeat("g", "m2", None, generation, s.now), Ok(()));

    // One of the other protocol comes: nobody loses anything before it lets go.
    assert_eq!(s.says(&join("c", &["t"])), "3: ");
    let told = |s: &mut Script, id: &str, generation| s.machine.heartbeat("g", id, None, generation, s.now);
    assert_eq!(told(&mut s, "m1", 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(s.says(&stay("c", 3)), "3");
    // m1 gives up all before it joins again, m2 only what it is told to.
    assert_eq!(s.joins(&classic("m1", &[])), "3: t0 t1");
    assert_eq!(told(&mut s, "m1", 3), Ok(()));
    assert_eq!(s.joins(&classic("m2", &[("t", 2), ("t", 3)])), "2: t2");
    assert_eq!(s.says(&stay("c", 3)), "3");
    assert_eq!(told(&mut s, "m2", 2), Err(GroupError::RebalanceInProgress));
    s.write();
    s.crash();
    assert_eq!(s.joins(&classic("m2", &[("t", 2)])), "3: t2");
    assert_eq!(s.says(&stay("c", 3)), "3: t3");
    assert_eq!(s.state(), "Stable");
    let commit = |s: &mut Script, id: &str, generation| {
        s.machine.may_commit("g", id, None, generation, Commit::Classic, &[], s.now)
    };
    assert_eq!(commit(&mut s, "m2", 3), Ok(()));
    assert_eq!(commit(&mut s, "m2", 2), Err(GroupError::IllegalGeneration));
    assert_eq!(commit(&mut s, "c", 3), Err(GroupError::UnsupportedVersion));
    // A topic grows, one leaves, one is silent.
    s.log.set("t", 5);
    let fx = s.machine.refresh("g", &s.log);
    s.take(fx);
    assert_eq!(told(&mut s, "m1", 3), Err(GroupError::RebalanceInProgress));
    assert_eq!(s.joins(&classic("m1", &[("t", 0), ("t", 1)])), "4: t0 t1");
    let leave = LeaveRequest { member_id: "m1".into(), instance_id: None };
    let (left, fx) = s.machine.leave("g", &[leave], s.now);
    s.take(fx);
    assert_eq!(left, [Ok("m1".to_owned())]);
    assert_eq!(told(&mut s, "m2", 3), Err(GroupError::RebalanceInProgress));
    s.wait(11_000);
    assert_eq!(s.says(&stay("c", 3)), "6: t0 t1 t2 t3 t4");
    assert_eq!(s.joins(&classic("m2", &[])), "UnknownMember");
}

/// A member of the classic protocol that subscribes to this.
fn subscribes(id: &str, topics: &[&str], owned: &[(&str, i32)]) -> JoinRequest {
    JoinRequest { protocols: vec![("range".into(), subscription(topics, owned))], ..classic(id, &[]) }
}

#[test]
fn what_is_given_up_is_free_once_its_owner_has_another_epoch() {
    let mut s = Script::new(&[("t", 2), ("u", 1)]);
    assert_eq!(s.says(&join("a", &["u"])), "1: u0");
    assert_eq!(s.joins(&JoinRequest { member_id: String::new(), ..classic("m", &[]) }), "2: t0 t1");
    let may_commit = |s: &mut Script| {
        s.machine.may_commit("g", "m", None, 2, Commit::Classic, &[], s.now).map_err(|e| e.to_string())
    };
    // It shall have neither, and has given up one so far.
    assert_eq!(s.joins(&subscribes("m", &["u"], &[("t", 0)])), "2: ");
    assert_eq!(s.says(&join("b", &["t"])), "4: ", "not t1, for which m still may commit");
    assert_eq!(may_commit(&mut s), Ok(()));
    assert_eq!(s.joins(&subscribes("m", &["u"], &[])), "4: ");
    assert!(may_commit(&mut s).is_err());
    assert_eq!(s.says(&stay("b", 4)), "4: t0 t1");
    // All of what must go is gone when it joins: one step.
    assert_eq!(s.says(&join("c", &["t"])), "5: ");
    assert_eq!(s.joins(&subscribes("m", &["t"], &[])), "6: ");
    assert_eq!(s.state(), "Reconciling");
}

#[test]
fn who_joins_again_within_an_epoch_is_the_owner_all_the_time() {
    let mut s = Script::new(&[("t", 2)]);
    assert_eq!(s.says(&join("a", &["u"])), "1: ");
    assert_eq!(s.joins(&JoinRequest { member_id: String::new(), ..classic("m", &[]) }), "2: t0 t1");
    assert_eq!(s.joins(&classic("m", &[])), "2: t0 t1", "it gave up both and has them again");
    let commit = s.machine.may_commit("g", "m", None, 2, Commit::Classic, &[], s.now);
    assert_eq!(commit, Ok(()), "though it be from before it joined again");
    assert_eq!(s.says(&join("b", &["t"])), "3: ");
    assert_eq!(s.joins(&classic("m", &[("t", 0), ("t", 1)])), "2: t0");
}

#[test]
fn a_topic_under_the_name_of_another_is_nobody_s_yet() {
    let mut s = Script::new(&[("t", 1)]);
    assert_eq!(s.says(&join("a", &["t"])), "1: t0");
    let old = s.owned("t0");
    s.log.delete("t");
    s.log.set("t", 1);
    // The new one needs not wait for a, which may have a place in the old one only.
    assert_eq!(s.says(&HeartbeatRequest { instance_id: Some("i".into()), ..join("b", &["t"]) }), "2: t0");
    assert_eq!(s.says(&HeartbeatRequest { owned: old, ..stay("a", 1) }), "1: ");
    assert_eq!(s.says(&HeartbeatRequest { owned: Some(Partitions::new()), ..stay("a", 1) }), "2");
    assert_eq!(s.state(), "Stable");
}

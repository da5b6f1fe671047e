//! The consumer protocol by scripts, and by random histories against what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use millpond_types::TopicId;
use proptest::prelude::*;

use super::assign::{self, Partitions};
use super::member::Member;
use super::record::{self, Head};
use super::{HeartbeatAnswer, HeartbeatRequest, Refused, Topics};
use crate::groups::machine::{Effect, Machine};
use crate::groups::member::{JoinRequest, SyncRequest};
use crate::groups::subscription;
use crate::groups::{Commit, Committed, GroupError, GroupSettings, LeaveRequest, OffsetKey};

#[derive(Default)]
struct Log {
    version: u64,
    topics: BTreeMap<String, (TopicId, i32)>,
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
    fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        let id = self.topics.get(name).map_or_else(|| TopicId([self.version as u8; 16]), |(id, _)| *id);
        self.topics.insert(name.into(), (id, partitions));
        self.names.insert(id, name.into());
    }
    fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }
    fn name(&self, id: TopicId) -> Option<&str> {
        let name = self.was(id);
        self.find(name).is_some_and(|(other, _)| other == id).then_some(name)
    }
    fn was(&self, id: TopicId) -> &str {
        &self.names[&id]
    }
}

struct Script {
    machine: Machine,
    log: Log,
    now: i64,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Changes that are not on disk yet.
    open: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Script {
    fn new(topics: &[(&str, i32)]) -> Self {
        let mut log = Log::default();
        topics.iter().for_each(|(name, partitions)| log.set(name, *partitions));
        let machine = Machine::new(GroupSettings::default());
        Self { machine, log, now: 1_000_000, disk: BTreeMap::new(), open: Vec::new() }
    }

    fn take(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Write(entries) => self.open.extend(entries),
                // Of members of the classic protocol who were there before.
                Effect::Synced(..) | Effect::Joined(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn write(&mut self) {
        for (key, value) in self.open.drain(..) {
            match value {
                Some(value) => self.disk.insert(key, value),
                None => self.disk.remove(&key),
            };
        }
    }

    /// Ends the process; what was not written is gone.
    fn crash(&mut self) {
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

    fn beat(&mut self, request: &HeartbeatRequest) -> Result<HeartbeatAnswer, Refused> {
        let (result, fx) = self.machine.consumer_heartbeat(request, &self.log, self.now);
        self.take(fx);
        result
    }

    fn wait(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let fx = self.machine.tick(self.now);
            self.take(fx);
        }
        self.now = until;
    }

    fn state(&self) -> &'static str {
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

fn join(id: &str, topics: &[&str]) -> HeartbeatRequest {
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

fn stay(id: &str, epoch: i32) -> HeartbeatRequest {
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
fn subscription(topics: &[&str], owned: &[(&str, i32)]) -> bytes::Bytes {
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

fn classic(id: &str, owned: &[(&str, i32)]) -> JoinRequest {
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

fn syncs(id: &str, generation: i32, assignments: Vec<(String, bytes::Bytes)>) -> SyncRequest {
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

/// A partition of one topic: of another one that has the name after it, it is another.
type Place = (TopicId, i32);

/// A client as its protocol wants it: it tells what it owns when that changes, and takes over what it is told.
#[derive(Default, Debug)]
struct Client {
    id: String,
    instance: Option<String>,
    topics: Vec<String>,
    /// A regular expression besides.
    pattern: Option<&'static str>,
    assignor: Option<&'static str>,
    epoch: Option<i32>,
    owned: BTreeSet<Place>,
    /// Positions that it would commit, of what it owns.
    at: BTreeMap<Place, i64>,
    target: BTreeSet<Place>,
    told: Option<BTreeSet<Place>>,
    complete: bool,
    /// It speaks the classic protocol, and while it rebalances gives up all or only what it must.
    classic: Option<Giving>,
    /// Of those: it is to join again.
    again: bool,
    /// A commit on its way.
    late: Option<(String, i32, Place, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giving {
    All,
    WhatItMust,
}

struct World {
    s: Script,
    clients: Vec<Client>,
    ids: usize,
    /// Committed positions, never to go back.
    committed: BTreeMap<Place, i64>,
}

const PATTERNS: [&str; 3] = ["[tu]", "t|v", ".*"];
const WANTS: [&[&str]; 4] = [&["t"], &["t", "u"], &["u"], &["t", "u", "v"]];

impl World {
    fn new(clients: usize) -> Self {
        let clients = (0..clients).map(|i| Client {
            instance: (i % 3 == 2).then(|| format!("i{i}")),
            classic: match i {
                1 => Some(Giving::All),
                4 => Some(Giving::WhatItMust),
                _ => None,
            },
            topics: WANTS[i % WANTS.len()].iter().map(|t| (*t).to_owned()).collect(),
            pattern: (i == 3).then_some(PATTERNS[0]),
            assignor: [Some("range"), Some("uniform"), None][i % 3],
            ..Client::default()
        });
        let s = Script::new(&[("t", 3), ("u", 2)]);
        Self { s, clients: clients.collect(), ids: 0, committed: BTreeMap::new() }
    }

    fn lose_all(client: &mut Client) {
        client.owned.clear();
        client.at.clear();
        client.target.clear();
        client.told = None;
        client.epoch = None;
        client.complete = false;
        client.again = false;
    }

    /// What a client of the classic protocol does, once there is one of the other to join.
    fn beat_classic(&mut self, i: usize, giving: Giving, answered: bool) {
        let client = &mut self.clients[i];
        if let Some(generation) = client.epoch {
            match self.s.machine.heartbeat("g", &client.id, None, generation, self.s.now) {
                Ok(()) if !client.again => return,
                Ok(()) | Err(GroupError::RebalanceInProgress) => {}
                Err(GroupError::IllegalGeneration) => {
                    client.owned.clear();
                    client.at.clear();
                }
                Err(GroupError::UnknownMember) => return Self::lose_all(client),
                Err(other) => panic!("{other:?}"),
            }
        } else if !self.s.machine.is_mixed("g") {
            return;
        } else {
            client.id.clear();
            self.ids += 1;
        }
        if giving == Giving::All {
            client.owned.clear();
            client.at.clear();
        }
        // It knows names only, and those of deleted topics too.
        let owned: Vec<(&str, i32)> = client.owned.iter().map(|(id, index)| (self.s.log.was(*id), *index)).collect();
        let topics: Vec<&str> = client.topics.iter().map(String::as_str).collect();
        let protocols = vec![("p".into(), subscription(&topics, &owned))];
        let request = JoinRequest { protocols, new_id: format!("m{}", self.ids), ..classic(&client.id, &[]) };
        let mut fx = self.s.machine.join_mixed(&request, &self.s.log, 9, self.s.now);
        let result = fx.pop();
        self.s.take(fx);
        if !answered {
            let client = &mut self.clients[i];
            client.again = true;
            client.target.clone_from(&client.owned);
            return;
        }
        self.s.write();
        let client = &mut self.clients[i];
        match result {
            Some(Effect::JoinedOnceWritten(9, answer)) => {
                client.id = answer.member_id;
                client.epoch = Some(answer.generation);
                client.again = false;
            }
            Some(Effect::Joined(9, Err(refused))) if refused.error == GroupError::UnknownMember => {
                return Self::lose_all(client);
            }
            other => panic!("{other:?}"),
        }
        let sync = syncs(&client.id, client.epoch.unwrap_or(0), vec![]);
        match &self.s.machine.sync(&sync, 9, self.s.now)[..] {
            [Effect::Synced(9, Ok(answer))] => {
                let assigned = subscription::assignment(&answer.assignment).unwrap();
                let id = |name: &str| self.s.log.find(name).unwrap().0;
                let places = assigned.iter().flat_map(|(name, indexes)| indexes.iter().map(move |i| (id(name), *i)));
                client.target = places.collect();
                client.again = client.owned.iter().any(|place| !client.target.contains(place));
            }
            [Effect::Synced(9, Err(GroupError::RebalanceInProgress))] => client.again = true,
            other => panic!("{other:?}"),
        }
    }

    /// A heartbeat of which the client gets the answer, or does not.
    fn beat(&mut self, i: usize, answered: bool) {
        if let Some(giving) = self.clients[i].classic {
            return self.beat_classic(i, giving, answered);
        }
        if self.clients[i].epoch.is_none() && self.clients[i].id.is_empty() {
            self.ids += 1;
            self.clients[i].id = format!("m{}", self.ids);
        }
        let client = &self.clients[i];
        let joins = client.epoch.is_none();
        let complete = joins || client.complete;
        let mut owned = Partitions::new();
        client.owned.iter().for_each(|(topic, index)| assign::add(&mut owned, *topic, *index));
        let request = HeartbeatRequest {
            epoch: client.epoch.unwrap_or(0),
            instance_id: client.instance.clone(),
            rebalance_timeout_ms: if complete { 20_000 } else { -1 },
            topics: complete.then(|| client.topics.clone()),
            pattern: complete.then(|| client.pattern.unwrap_or_default().to_owned()),
            assignor: if complete { client.assignor.map(str::to_owned) } else { None },
            owned: (complete || client.told.as_ref() != Some(&client.owned)).then_some(owned),
            ..join(&client.id, &[])
        };
        let sent = client.owned.clone();
        let result = self.s.beat(&request);
        if answered {
            self.s.write();
        }
        let client = &mut self.clients[i];
        if !answered {
            client.complete = true;
            // What it has just said that it does not own may be another's by now.
            if request.owned.is_some() {
                client.target.retain(|place| sent.contains(place));
            }
            return;
        }
        match result {
            Ok(answer) => {
                let before = client.epoch.unwrap_or(0);
                assert!(before <= answer.epoch, "{} goes back from {before} to {}", client.id, answer.epoch);
                client.epoch = Some(answer.epoch);
                client.told = Some(sent);
                client.complete = false;
                if let Some(assignment) = answer.assignment {
                    // Each is acknowledged, though it may be what the client has.
                    client.told = None;
                    client.target = assign::each(&assignment).collect();
                }
            }
            Err(refused) => match refused.error {
                GroupError::FencedEpoch | GroupError::UnknownMember | GroupError::GroupNotFound => {
                    Self::lose_all(client)
                }
                GroupError::FencedInstance => {
                    Self::lose_all(client);
                    client.id.clear();
                }
                GroupError::UnreleasedInstance => {}
                other => panic!("{other:?}"),
            },
        }
    }

    /// The client lets go of what it shall not have, then takes what it shall.
    fn follow(&mut self, i: usize, take: bool) {
        let client = &mut self.clients[i];
        if client.epoch.is_none() {
            return;
        }
        let target = client.target.clone();
        client.owned.retain(|place| target.contains(place));
        client.at.retain(|place, _| target.contains(place));
        let taken: Vec<Place> = target.difference(&client.owned).copied().filter(|_| take).collect();
        if client.late.as_ref().is_some_and(|(_, _, place, _)| taken.contains(place)) {
            // What was committed it asks after its own commits, by the same connection. Without an epoch in between, they
            // count: who gave up something and was given it again is the one owner all the time.
            self.deliver_late(i);
        }
        let client = &mut self.clients[i];
        client.owned.extend(&taken);
        client.at.extend(taken.into_iter().map(|place| (place, self.committed.get(&place).copied().unwrap_or(0))));
    }

    /// A commit names its topic's id, or is refused for a topic that is not there before the group is asked.
    fn deliver(&mut self, member: &str, epoch: i32, place: &Place, position: i64) {
        let Some(name) = self.s.log.name(place.0).map(str::to_owned) else { return };
        let way = match self.clients.iter().any(|c| c.id == member && c.classic.is_some()) {
            true => Commit::Classic,
            false => Commit::ByEpoch,
        };
        if self.s.machine.may_commit("g", member, None, epoch, way, &[], self.s.now).is_err() {
            return;
        }
        let before = self.committed.insert(*place, position).unwrap_or(0);
        assert!(before <= position, "{member} in {epoch} commits {name}{} at {position} after {before}", place.1);
        let key = OffsetKey { topic: name, partition: place.1 };
        let committed = Committed {
            topic_id: place.0,
            offset: position,
            leader_epoch: -1,
            metadata: String::new(),
            committed_at: 0,
            expires_at: -1,
        };
        self.s.machine.set_offset("g", key, committed, self.s.now);
    }

    /// A client's commits arrive in their order.
    fn deliver_late(&mut self, i: usize) {
        if let Some((member, epoch, place, position)) = self.clients[i].late.take() {
            self.deliver(&member, epoch, &place, position);
        }
    }

    fn step(&mut self, kind: u8, i: usize, n: u8) {
        match kind {
            0..=5 => self.beat(i, true),
            6..=10 => self.follow(i, !n.is_multiple_of(4)),
            11 => self.beat(i, false),
            12 => self.s.wait(i64::from(n) * 300),
            13..=15 => {
                self.deliver_late(i);
                let client = &mut self.clients[i];
                let Some(epoch) = client.epoch else { return };
                let Some((place, at)) = client.at.iter_mut().nth(usize::from(n) % 5) else { return };
                *at += 1 + i64::from(n);
                let commit = (client.id.clone(), epoch, *place, *at);
                if n.is_multiple_of(2) {
                    self.deliver(&commit.0, commit.1, &commit.2, commit.3);
                } else {
                    client.late = Some(commit);
                }
            }
            16 => self.deliver_late(i),
            17 if self.clients[i].classic.is_some() => {
                let leave = LeaveRequest { member_id: self.clients[i].id.clone(), instance_id: None };
                let (_, fx) = self.s.machine.leave("g", &[leave], self.s.now);
                self.s.take(fx);
                Self::lose_all(&mut self.clients[i]);
            }
            17 => {
                let fixed = self.clients[i].instance.is_some();
                let epoch = if fixed && n.is_multiple_of(2) { -2 } else { -1 };
                let (id, instance_id) = (self.clients[i].id.clone(), self.clients[i].instance.clone());
                if self.clients[i].epoch.is_some() {
                    let _gone = self.s.beat(&HeartbeatRequest { instance_id, ..stay(&id, epoch) });
                    self.s.write();
                    Self::lose_all(&mut self.clients[i]);
                    self.clients[i].id.clear();
                }
            }
            18 => match n % 4 {
                0 => self.s.log.delete("v"),
                1 => self.s.log.set("v", 2),
                2 => {
                    let (_, partitions) = self.s.log.find("t").unwrap();
                    self.s.log.set("t", (partitions + 1).min(9));
                }
                _ => {
                    let client = &mut self.clients[i];
                    client.topics = WANTS[usize::from(n) / 4 % WANTS.len()].iter().map(|t| (*t).to_owned()).collect();
                    client.pattern =
                        PATTERNS.get(usize::from(n) / 16 % 5).copied().filter(|_| client.classic.is_none());
                    client.assignor = [Some("range"), Some("uniform"), None][usize::from(n) / 80 % 3];
                    // A member of the consumer protocol says it with its next heartbeat, a classic one by joining again.
                    self.clients[i].complete = true;
                    self.clients[i].again = true;
                }
            },
            19 => self.of_another_epoch(i),
            _ => {
                self.s.crash();
                self.clients.iter_mut().for_each(|client| client.complete = true);
            }
        }
    }

    /// Nobody who is still a member owns what another one owns.
    fn check(&self) {
        let members: BTreeSet<String> =
            self.s.machine.describe_consumer("g").into_iter().flat_map(|d| d.members).map(|m| m.id).collect();
        let mut owners: BTreeMap<&Place, &str> = BTreeMap::new();
        for client in self.clients.iter().filter(|c| c.epoch.is_some() && members.contains(&c.id)) {
            for place in &client.owned {
                assert_eq!(owners.insert(place, &client.id), None, "{place:?} is owned by {} too", client.id);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..30 {
            for i in 0..self.clients.len() {
                self.beat(i, true);
                self.follow(i, true);
            }
            self.check();
            self.s.wait(3_000);
        }
        assert_eq!(self.s.state(), "Stable", "{:#?}", self.clients);
        let owned: BTreeSet<&Place> = self.clients.iter().flat_map(|c| &c.owned).collect();
        let wants = |c: &Client, name: &String| {
            let fits = |pattern| super::pattern::compile(pattern).unwrap().is_match(name);
            c.topics.contains(name) || c.pattern.is_some_and(fits)
        };
        let there = self.s.log.topics.iter().filter(|(name, _)| self.clients.iter().any(|c| wants(c, name)));
        assert_eq!(
            owned.len() as i32,
            there.map(|(_, (_, partitions))| partitions).sum::<i32>(),
            "{:#?}",
            self.clients
        );
        for i in 0..self.clients.len() {
            let client = &self.clients[i];
            let (id, epoch) = (client.id.clone(), client.epoch.unwrap());
            for (place, at) in client.at.clone() {
                self.deliver(&id, epoch, &place, at + 1);
                assert_eq!(self.committed.get(&place), Some(&(at + 1)), "its owner may commit");
            }
        }
        self.offsets_are_there();
    }

    fn offsets_are_there(&self) {
        for (place, position) in &self.committed {
            let Some(name) = self.s.log.name(place.0) else { continue };
            let key = OffsetKey { topic: name.to_owned(), partition: place.1 };
            let committed = self.s.machine.offset("g", &key).map(|c| (c.topic_id, c.offset));
            assert_eq!(committed, Some((place.0, *position)), "{name}{}", place.1);
        }
    }

    fn leave(&mut self, i: usize) {
        let (id, instance_id) = (self.clients[i].id.clone(), self.clients[i].instance.clone());
        if self.clients[i].classic.is_some() {
            let (_, fx) = self.s.machine.leave("g", &[LeaveRequest { member_id: id, instance_id: None }], self.s.now);
            self.s.take(fx);
        } else {
            self.s.beat(&HeartbeatRequest { instance_id, ..stay(&id, -1) }).unwrap();
        }
        self.s.write();
        Self::lose_all(&mut self.clients[i]);
    }

    /// Who speaks of an epoch that its member does not have is fenced, and changes nothing.
    fn of_another_epoch(&mut self, i: usize) {
        let client = &self.clients[i];
        let Some(epoch) = client.epoch.filter(|_| client.classic.is_none()) else { return };
        for other in [epoch + 1000, epoch - 1].into_iter().filter(|other| *other > 0) {
            let request = HeartbeatRequest { instance_id: client.instance.clone(), ..stay(&client.id, other) };
            let (result, fx) = self.s.machine.consumer_heartbeat(&request, &self.s.log, self.s.now);
            let gone = [GroupError::UnknownMember, GroupError::GroupNotFound, GroupError::FencedInstance];
            match result {
                Err(refused) if refused.error == GroupError::FencedEpoch || gone.contains(&refused.error) => {}
                answer => panic!("{} in {epoch} says {other}: {answer:?}", client.id),
            }
            // Topics may have changed meanwhile, which any heartbeat finds out.
            self.s.take(fx);
            let may = self.s.machine.may_commit("g", &client.id, None, other, Commit::ByEpoch, &[], self.s.now);
            assert!(may.is_err(), "{} in {epoch} commits in {other}", client.id);
        }
    }

    /// Members of the consumer protocol leave, then all; the classic protocol takes over and goes, and the consumer protocol comes back: offsets stay, and
    /// generations and epochs go on from each other.
    fn change_back_and_forth(&mut self) {
        let mut newest = 0;
        let (stay, go): (Vec<usize>, Vec<usize>) =
            (0..self.clients.len()).partition(|i| self.clients[*i].classic.is_some());
        for i in go {
            newest = newest.max(self.clients[i].epoch.unwrap());
            self.leave(i);
        }
        // Those of the classic protocol have the group to themselves, and what they subscribe to.
        for _ in 0..30 {
            for i in stay.iter().copied() {
                self.beat(i, true);
                self.follow(i, true);
            }
            self.check();
            self.s.wait(3_000);
        }
        self.offsets_are_there();
        let owned: usize = stay.iter().map(|i| self.clients[*i].owned.len()).sum();
        let wants = |name: &String| stay.iter().any(|i| self.clients[*i].topics.contains(name));
        let there = self.s.log.topics.iter().filter(|(name, _)| wants(name)).map(|(_, (_, partitions))| partitions);
        assert_eq!(owned as i32, there.sum::<i32>(), "{:#?}", self.clients);
        for i in stay {
            newest = newest.max(self.clients[i].epoch.unwrap());
            self.leave(i);
        }
        self.s.write();
        assert_eq!(self.s.state(), "Empty");
        self.s.crash();
        self.offsets_are_there();

        let request = JoinRequest { member_id: String::new(), ..classic("back", &[]) };
        let mut fx = self.s.machine.join(&request, 1, self.s.now);
        let generation = match fx.pop() {
            Some(Effect::Joined(1, Ok(answer))) => answer.generation,
            other => panic!("{other:?}"),
        };
        self.s.take(fx);
        self.s.write();
        assert!(newest < generation, "{generation} after {newest}");
        let sync = syncs("back", generation, vec![("back".into(), "t".into())]);
        let record = match self.s.machine.sync(&sync, 2, self.s.now).pop() {
            Some(Effect::Persist(record)) => record,
            other => panic!("{other:?}"),
        };
        let fx = self.s.machine.persisted(&record, true, self.s.now);
        assert!(matches!(&fx[..], [Effect::Synced(2, Ok(_))]), "{fx:?}");
        assert!(self.s.disk.is_empty(), "of the other protocol nothing is left: {:?}", self.s.disk);
        self.offsets_are_there();
        for (commit, way) in [("back", Commit::Classic), (self.clients[0].id.as_str(), Commit::ByEpoch)] {
            let may = self.s.machine.may_commit("g", commit, None, generation, way, &[], self.s.now);
            assert_eq!(may.is_ok(), commit == "back", "{commit}: {may:?}");
        }
        // From storage, as after a restart.
        let offsets: Vec<_> = self.s.machine.offsets("g").map(|(k, c)| (k.clone(), c.clone())).collect();
        self.s.machine = Machine::new(GroupSettings::default());
        self.s.machine.load_group(record, self.s.now);
        offsets.into_iter().for_each(|(key, committed)| self.s.machine.set_offset("g", key, committed, self.s.now));
        assert_eq!(self.s.machine.heartbeat("g", "back", None, generation, self.s.now), Ok(()));

        // A live change, there and back.
        let answer = self.s.beat(&join("new", &["t"]));
        self.offsets_are_there();
        if let Err(refused) = answer {
            // What its members said cannot be read here, so that they have to leave first.
            assert_eq!(refused.error, GroupError::GroupNotFound, "{refused:?}");
        }
        let (_, fx) =
            self.s.machine.leave("g", &[LeaveRequest { member_id: "back".into(), instance_id: None }], self.s.now);
        self.s.open.extend(
            fx.into_iter().filter_map(|e| if let Effect::Write(entries) = e { Some(entries) } else { None }).flatten(),
        );
        self.s.write();
        let answer = self.s.beat(&join("new", &["t"])).unwrap();
        assert!(answer.epoch > generation, "{}", answer.epoch);
        self.offsets_are_there();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_a_partition_has_one_owner_and_commits_do_not_go_back(
        clients in 1usize..6,
        steps in prop::collection::vec((0u8..21, 0usize..6, any::<u8>()), 0..120),
    ) {
        let mut world = World::new(clients);
        for (kind, i, n) in steps {
            world.step(kind, i % clients, n);
            world.check();
        }
        world.settle();
        world.change_back_and_forth();
    }
}

//! Groups by scripts of events: what each member asks, the time going by, and what comes out.

use bytes::Bytes;
use millpond_types::TopicId;

use super::machine::{Effect, Machine};
use super::member::{JoinRequest, LeaveRequest, SyncRequest};
use super::offsets::{Committed, OffsetKey};
use super::record::GroupRecord;
use super::{Commit, GroupError, GroupSettings, State};

/// A group "g" under a clock that the test moves. Everything that comes out is written down as a line.
struct Script {
    machine: Machine,
    now: i64,
    ids: u64,
    log: Vec<String>,
    /// Writes are confirmed at once unless the test wants otherwise.
    confirm: bool,
    /// What is to be written where it does.
    records: Vec<GroupRecord>,
}

struct Join<'a> {
    id: &'a str,
    instance: Option<&'a str>,
    protocols: &'a [(&'a str, &'a str)],
    known_first: bool,
    version9: bool,
}

const RANGE: &[(&str, &str)] = &[("range", "a")];

fn member(id: &str) -> Join<'_> {
    Join { id, instance: None, protocols: RANGE, known_first: false, version9: false }
}

fn fixed<'a>(instance: &'a str, id: &'a str) -> Join<'a> {
    Join { id, instance: Some(instance), protocols: RANGE, known_first: true, version9: false }
}

impl Script {
    fn new(settings: GroupSettings) -> Self {
        Self {
            machine: Machine::new(settings),
            now: 1_000_000,
            ids: 0,
            log: Vec::new(),
            confirm: true,
            records: Vec::new(),
        }
    }

    /// Joins under `ticket`; a member without an id gets `m<number>`.
    fn join(&mut self, ticket: u64, join: Join<'_>) -> Vec<String> {
        self.ids += 1;
        let request = JoinRequest {
            group: "g".into(),
            member_id: join.id.into(),
            instance_id: join.instance.map(Into::into),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: join
                .protocols
                .iter()
                .map(|(n, m)| ((*n).into(), Bytes::copy_from_slice(m.as_bytes())))
                .collect(),
            id_required: join.known_first,
            can_skip_assignment: join.version9,
            new_id: format!("m{}", self.ids),
        };
        let fx = self.machine.join(&request, ticket, self.now);
        self.take(fx)
    }

    fn sync(&mut self, ticket: u64, id: &str, generation: i32, assignments: &[(&str, &str)]) -> Vec<String> {
        let request = SyncRequest {
            group: "g".into(),
            generation,
            member_id: id.into(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: assignments.iter().map(|(m, a)| ((*m).into(), Bytes::copy_from_slice(a.as_bytes()))).collect(),
        };
        let fx = self.machine.sync(&request, ticket, self.now);
        self.take(fx)
    }

    fn leave(&mut self, id: &str, instance: Option<&str>) -> Vec<String> {
        let leaving = LeaveRequest { member_id: id.into(), instance_id: instance.map(Into::into) };
        let (results, fx) = self.machine.leave("g", &[leaving], self.now);
        let mut lines: Vec<_> = results.iter().filter_map(|r| r.as_ref().err().map(|e| format!("{e:?}"))).collect();
        lines.extend(self.take(fx));
        lines
    }

    fn beat(&mut self, id: &str, generation: i32) -> Result<(), GroupError> {
        self.machine.heartbeat("g", id, None, generation, self.now)
    }

    /// Lets time go by, doing what falls due on the way.
    fn wait(&mut self, ms: i64) -> Vec<String> {
        let until = self.now + ms;
        let mut lines = Vec::new();
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let fx = self.machine.tick(self.now);
            lines.extend(self.take(fx));
        }
        self.now = until;
        lines
    }

    fn take(&mut self, effects: Vec<Effect>) -> Vec<String> {
        let mut lines = Vec::new();
        for effect in effects {
            match effect {
                Effect::Joined(ticket, Ok(a)) => {
                    let members: Vec<_> = a.members.iter().map(|m| m.id.as_str()).collect();
                    let skip = if a.skip_assignment { " skip" } else { "" };
                    lines.push(format!(
                        "{ticket}: {} in {} by {} led by {} [{}]{skip}",
                        a.member_id,
                        a.generation,
                        a.protocol,
                        a.leader,
                        members.join(" ")
                    ));
                }
                Effect::Joined(ticket, Err(e)) => lines.push(format!("{ticket}: {:?} {}", e.error, e.member_id)),
                Effect::Synced(ticket, Ok(a)) => {
                    lines.push(format!("{ticket}: reads {}", String::from_utf8_lossy(&a.assignment)));
                }
                Effect::Synced(ticket, Err(e)) => lines.push(format!("{ticket}: {e:?}")),
                Effect::Persist(record) if self.confirm => {
                    let fx = self.machine.persisted(&record, true, self.now);
                    lines.extend(self.take(fx));
                }
                Effect::Persist(record) => {
                    lines.push(format!("write {}", record.generation));
                    self.records.push(record);
                }
                Effect::Write(_) | Effect::JoinedOnceWritten(..) => {}
            }
        }
        self.log.extend(lines.clone());
        lines
    }

    fn state(&self) -> State {
        self.machine.describe("g").map_or(State::Empty, |d| d.state)
    }

    /// Members `m1` and `m2` in generation 2, `m1` leading.
    fn two() -> Self {
        let mut s = Self::new(GroupSettings::default());
        assert_eq!(s.join(1, member("")), ["1: m1 in 1 by range led by m1 [m1]"]);
        assert_eq!(s.sync(2, "m1", 1, &[("m1", "all")]), ["2: reads all"]);
        assert!(s.join(3, member("")).is_empty());
        assert_eq!(s.beat("m1", 1), Err(GroupError::RebalanceInProgress));
        let joined = s.join(4, member("m1"));
        assert_eq!(joined, ["4: m1 in 2 by range led by m1 [m1 m2]", "3: m2 in 2 by range led by m1 []"]);
        assert!(s.sync(5, "m2", 2, &[]).is_empty());
        assert_eq!(s.sync(6, "m1", 2, &[("m1", "x"), ("m2", "y")]), ["6: reads x", "5: reads y"]);
        assert_eq!(s.state(), State::Stable);
        s
    }
}

#[test]
fn members_come_and_share() {
    Script::two();
}

#[test]
fn a_new_member_is_told_its_id_first() {
    let mut s = Script::new(GroupSettings::default());
    let first = Join { known_first: true, ..member("") };
    assert_eq!(s.join(1, first), ["1: MemberIdRequired m1"]);
    assert_eq!(s.join(2, Join { known_first: true, ..member("m1") }), ["2: m1 in 1 by range led by m1 [m1]"]);
    assert_eq!(s.join(3, member("stranger")), ["3: UnknownMember stranger"]);
}

#[test]
fn an_id_that_is_never_used_is_forgotten() {
    let mut s = Script::two();
    s.join(7, Join { known_first: true, ..member("") });
    for _ in 0..3 {
        s.wait(4_000);
        assert_eq!((s.beat("m1", 2), s.beat("m2", 2)), (Ok(()), Ok(())));
    }
    assert_eq!(s.join(8, member("m4")), ["8: UnknownMember m4"]);
    assert_eq!(s.state(), State::Stable);
}

#[test]
fn silence_ends_a_membership() {
    let mut s = Script::two();
    s.wait(9_000);
    assert_eq!(s.beat("m1", 2), Ok(()));
    assert!(s.wait(2_000).is_empty());
    assert_eq!(s.state(), State::PreparingRebalance);
    assert_eq!(s.beat("m2", 2), Err(GroupError::UnknownMember));
    assert_eq!(s.beat("m1", 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(s.join(9, member("m1")), ["9: m1 in 3 by range led by m1 [m1]"]);
    s.wait(60_000);
    assert_eq!(s.state(), State::Empty);
}

#[test]
fn who_does_not_join_again_in_time_is_out_and_a_parked_member_stays() {
    let mut s = Script::two();
    assert!(s.join(7, member("")).is_empty());
    assert!(s.join(8, member("m2")).is_empty());
    // m1 only beats its heart, for longer than the rebalance timeout of 30 s.
    let mut lines = Vec::new();
    for _ in 0..8 {
        lines.extend(s.wait(4_000));
        let _in_progress = s.beat("m1", 2);
    }
    assert_eq!(lines, ["8: m2 in 3 by range led by m2 [m2 m4]", "7: m4 in 3 by range led by m2 []"]);
}

#[test]
fn who_does_not_ask_for_its_assignment_is_out() {
    let mut s = Script::two();
    s.join(7, member("m1"));
    s.join(8, member("m2"));
    assert_eq!(s.sync(9, "m1", 3, &[("m1", "x"), ("m2", "y")]), ["9: reads x"]);
    for _ in 0..8 {
        s.wait(4_000);
        let _either = (s.beat("m1", 3), s.beat("m2", 3));
    }
    assert_eq!(s.beat("m2", 3), Err(GroupError::UnknownMember));
    assert_eq!(s.state(), State::PreparingRebalance);
}

#[test]
fn leaving_passes_the_lead_on() {
    let mut s = Script::two();
    assert!(s.leave("m1", None).is_empty());
    assert_eq!(s.leave("m1", None), ["UnknownMember"]);
    assert_eq!(s.join(7, member("m2")), ["7: m2 in 3 by range led by m2 [m2]"]);
    assert!(s.leave("m2", None).is_empty());
    assert_eq!(s.state(), State::Empty);
    assert_eq!(s.machine.may_delete("g"), Ok(vec![]));
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody() {
    let mut s = Script::two();
    assert_eq!(s.join(7, member("m2")), ["7: m2 in 2 by range led by m1 []"]);
    assert_eq!(s.state(), State::Stable);
    let changed = Join { protocols: &[("range", "b")], ..member("m2") };
    assert!(s.join(8, changed).is_empty());
    assert_eq!(s.state(), State::PreparingRebalance);
    // The leader that joins again wants a new assignment.
    assert_eq!(s.join(9, member("m1")).len(), 2);
    s.sync(10, "m1", 3, &[]);
    s.join(11, member("m1"));
    assert_eq!(s.state(), State::PreparingRebalance);
}

#[test]
fn the_protocol_is_what_all_can_and_most_prefer() {
    let mut s = Script::new(GroupSettings { initial_rebalance_delay_ms: 100, ..GroupSettings::default() });
    s.join(1, Join { protocols: &[("range", ""), ("sticky", "")], ..member("") });
    s.join(2, Join { protocols: &[("sticky", ""), ("range", "")], ..member("") });
    s.join(3, Join { protocols: &[("sticky", ""), ("own", ""), ("range", "")], ..member("") });
    assert_eq!(s.join(4, Join { protocols: &[("other", "")], ..member("") }), ["4: InconsistentProtocol "]);
    let lines = s.wait(1_000);
    assert_eq!(lines[0], "1: m1 in 1 by sticky led by m1 [m1 m2 m3]");
}

#[test]
fn the_first_members_wait_for_each_other() {
    let mut s = Script::new(GroupSettings { initial_rebalance_delay_ms: 3_000, ..GroupSettings::default() });
    s.join(1, member(""));
    assert!(s.wait(2_000).is_empty());
    s.join(2, member(""));
    assert!(s.wait(2_000).is_empty(), "somebody came, so that the delay is extended");
    assert_eq!(s.wait(3_000).len(), 2);
}

#[test]
fn a_rebalance_refuses_those_who_wait_for_an_assignment() {
    let mut s = Script::two();
    s.join(7, member("m1"));
    s.join(8, member("m2"));
    assert!(s.sync(9, "m2", 3, &[]).is_empty());
    assert_eq!(s.join(10, member("")), ["9: RebalanceInProgress"]);
    assert_eq!(s.sync(11, "m1", 3, &[]), ["11: RebalanceInProgress"]);
    assert_eq!(s.sync(12, "m1", 2, &[]), ["12: IllegalGeneration"]);
}

#[test]
fn an_assignment_is_handed_out_once_it_is_written() {
    let mut s = Script::new(GroupSettings::default());
    s.confirm = false;
    s.join(1, member(""));
    assert_eq!(s.sync(2, "m1", 1, &[("m1", "x")]), ["write 1"]);
    assert_eq!(s.state(), State::CompletingRebalance);
    assert_eq!(s.beat("m1", 1), Ok(()));
    let first = s.records.remove(0);
    let fx = s.machine.persisted(&first, false, s.now);
    assert_eq!(s.take(fx), ["2: NotPersisted"]);
    assert_eq!(s.join(3, member("m1")), ["3: m1 in 2 by range led by m1 [m1]"]);
    assert_eq!(s.sync(4, "m1", 2, &[("m1", "x")]), ["write 2"]);
    let late = s.machine.persisted(&first, true, s.now);
    assert!(s.take(late).is_empty(), "an earlier generation's write says nothing about this one");
    let second = s.records.remove(0);
    let fx = s.machine.persisted(&second, true, s.now);
    assert_eq!(s.take(fx), ["4: reads x"]);
}

#[test]
fn a_static_member_comes_back_in_its_place() {
    let mut s = Script::new(GroupSettings::default());
    assert_eq!(s.join(1, fixed("i", "")), ["1: m1 in 1 by range led by m1 [m1]"]);
    s.sync(2, "m1", 1, &[("m1", "x")]);
    // An older client is told of the leader that was; one of v9 leads without assigning.
    assert_eq!(s.join(3, fixed("i", "")), ["3: m2 in 1 by range led by m1 []"]);
    assert_eq!(s.sync(4, "m2", 1, &[]), ["4: reads x"]);
    let fenced = s.machine.heartbeat("g", "m1", Some("i"), 1, s.now);
    assert_eq!(fenced, Err(GroupError::FencedInstance));
    assert_eq!(s.join(5, Join { version9: true, ..fixed("i", "") }), ["5: m3 in 1 by range led by m3 [m3] skip"]);
    assert_eq!(s.leave("", Some("nobody")), ["UnknownMember"]);
    assert!(s.leave("", Some("i")).is_empty());
    assert_eq!(s.state(), State::Empty);
}

#[test]
fn a_static_member_is_told_its_new_id_once_it_is_written() {
    let mut s = Script::new(GroupSettings::default());
    s.join(1, fixed("i", ""));
    s.sync(2, "m1", 1, &[("m1", "x")]);
    s.confirm = false;
    assert_eq!(s.join(3, fixed("i", "")), ["write 1"]);
    assert_eq!(s.join(4, fixed("i", "")), ["3: FencedInstance m2", "write 1"]);
    let records = std::mem::take(&mut s.records);
    let fx = s.machine.persisted(&records[0], true, s.now);
    assert!(s.take(fx).is_empty(), "that was the id before");
    let fx = s.machine.persisted(&records[1], true, s.now);
    assert_eq!(s.take(fx), ["4: m3 in 1 by range led by m2 []"]);
    // A rebalance in between: it takes part in the next generation.
    assert_eq!(s.join(5, fixed("i", "")), ["write 1"]);
    assert_eq!(s.join(6, member("")).len(), 2);
}

#[test]
fn a_static_member_outlives_a_rebalance_it_misses() {
    let mut s = Script::new(GroupSettings::default());
    s.join(1, fixed("i", ""));
    s.sync(2, "m1", 1, &[]);
    s.join(3, member(""));
    for _ in 0..8 {
        s.wait(4_000);
        let _in_progress = s.machine.heartbeat("g", "m1", Some("i"), 1, s.now);
    }
    assert_eq!(s.log.last().map(String::as_str), Some("3: m2 in 2 by range led by m2 [m1 m2]"));
}

#[test]
fn a_group_is_as_it_was_after_a_restart() {
    let mut s = Script::two();
    s.join(7, member("m1"));
    s.join(8, member("m2"));
    s.confirm = false;
    let request = SyncRequest {
        group: "g".into(),
        generation: 3,
        member_id: "m1".into(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: vec![("m2".into(), Bytes::from("y"))],
    };
    let fx = s.machine.sync(&request, 9, s.now);
    let Some(Effect::Persist(record)) = fx.into_iter().next() else { panic!("nothing to write") };
    let read = super::record::GroupRecord::decode("g".into(), &record.encode()).unwrap();
    let mut later = Script::new(GroupSettings::default());
    later.machine.load_group(read, later.now);
    assert_eq!(later.state(), State::Stable);
    assert_eq!(later.beat("m2", 3), Ok(()));
    assert_eq!(later.sync(1, "m2", 3, &[]), ["1: reads y"]);
    later.wait(9_000);
    assert_eq!(later.beat("m1", 3), Ok(()));
    later.wait(9_000);
    assert_eq!(later.state(), State::PreparingRebalance);
    later.wait(60_000);
    assert_eq!(later.state(), State::Empty);
}

#[test]
fn who_may_commit() {
    let mut s = Script::new(GroupSettings::default());
    let commit = |s: &mut Script, member: &str, generation| {
        s.machine.may_commit("g", member, None, generation, Commit::Classic, &[], s.now)
    };
    assert_eq!(commit(&mut s, "", -1), Ok(()), "without a group nobody is in the way");
    assert_eq!(commit(&mut s, "m1", 3), Err(GroupError::IllegalGeneration));
    let mut s = Script::two();
    assert_eq!(commit(&mut s, "", -1), Err(GroupError::UnknownMember));
    assert_eq!(commit(&mut s, "m1", 1), Err(GroupError::IllegalGeneration));
    assert_eq!(commit(&mut s, "m9", 2), Err(GroupError::UnknownMember));
    assert_eq!(commit(&mut s, "m1", 2), Ok(()));
    s.join(7, member("m1"));
    assert_eq!(commit(&mut s, "m2", 2), Ok(()), "while the next generation gathers");
    s.join(8, member("m2"));
    assert_eq!(commit(&mut s, "m2", 3), Err(GroupError::RebalanceInProgress));
    let in_transaction =
        |s: &mut Script, generation| s.machine.may_commit_in_transaction("g", "m2", None, generation, &[], s.now);
    assert_eq!(in_transaction(&mut s, 3), Ok(()), "a transaction can be finished");
    assert_eq!(in_transaction(&mut s, 2), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_member_that_joins_again_in_its_generation_commits_what_it_had_read_and_its_predecessor_does_not() {
    let mut s = Script::new(GroupSettings { initial_rebalance_delay_ms: 100, ..GroupSettings::default() });
    s.join(1, member(""));
    s.join(2, fixed("i", ""));
    s.wait(1_000);
    s.sync(3, "m2", 1, &[]);
    assert_eq!(s.sync(4, "m1", 1, &[("m1", "x"), ("m2", "y")]), ["4: reads x", "3: reads y"]);
    let commit = |s: &mut Script, id: &str| s.machine.may_commit("g", id, Some("i"), 1, Commit::Classic, &[], s.now);
    // A commit that left before the join and comes after it is still one of the partition's owner.
    assert_eq!(s.join(5, fixed("i", "m2")), ["5: m2 in 1 by range led by m1 []"]);
    assert_eq!(commit(&mut s, "m2"), Ok(()));
    assert_eq!(s.sync(6, "m2", 1, &[]), ["6: reads y"]);
    assert_eq!(commit(&mut s, "m2"), Ok(()));
    // Another process in the same place: what the one before it sent does not count any more.
    assert_eq!(s.join(7, fixed("i", "")), ["7: m4 in 1 by range led by m1 []"]);
    assert_eq!(commit(&mut s, "m2"), Err(GroupError::FencedInstance));
    assert_eq!(s.sync(8, "m4", 1, &[]), ["8: reads y"]);
    assert_eq!(commit(&mut s, "m4"), Ok(()));
    assert_eq!((s.state(), s.beat("m1", 1)), (State::Stable, Ok(())));
}

#[test]
fn a_group_without_anything_does_not_stay() {
    let mut s = Script::two();
    let nothing = (Vec::<String>::new(), Vec::<String>::new());
    s.leave("m1", None);
    s.leave("m2", None);
    assert_eq!(s.machine.expired(s.now), nothing);
    s.wait(5 * 60_000);
    assert_eq!(s.machine.expired(s.now), nothing);
    s.wait(6 * 60_000);
    assert_eq!(s.machine.expired(s.now), (vec![], vec!["g".to_owned()]));
}

#[test]
fn limits_hold() {
    let mut s = Script::new(GroupSettings { members_max: 1, groups_max: 1, ..GroupSettings::default() });
    s.join(1, member(""));
    assert_eq!(s.join(2, member("")), ["2: GroupFull "]);
    let request = JoinRequest {
        group: "h".into(),
        member_id: String::new(),
        instance_id: None,
        client_id: String::new(),
        client_host: String::new(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::new())],
        id_required: false,
        can_skip_assignment: false,
        new_id: "x".into(),
    };
    let refused = |s: &mut Script, request: &JoinRequest| {
        let fx = s.machine.join(request, 3, s.now);
        s.take(fx)
    };
    assert_eq!(refused(&mut s, &request), ["3: TooMany "]);
    let hasty = JoinRequest { session_timeout_ms: 1, ..request.clone() };
    assert_eq!(refused(&mut s, &hasty), ["3: InvalidSessionTimeout "]);
    assert_eq!(refused(&mut s, &JoinRequest { group: String::new(), ..request.clone() }), ["3: InvalidGroupId "]);

    // Memory is given back by those who leave.
    let mut s = Script::new(GroupSettings { members_bytes_max: 10_000, ..GroupSettings::default() });
    let large = |group: &str| JoinRequest {
        group: group.into(),
        protocols: vec![("range".into(), Bytes::from(vec![0; 6_000]))],
        ..request.clone()
    };
    assert_eq!(refused(&mut s, &large("g")), ["3: x in 1 by range led by x [x]"]);
    assert_eq!(refused(&mut s, &large("h")), ["3: TooMany "]);
    s.leave("x", None);
    assert_eq!(refused(&mut s, &large("h")), ["3: x in 1 by range led by x [x]"]);

    // One group has its part of it: who joins again counts once.
    let mut s = Script::new(GroupSettings { group_bytes_max: 10_000, ..GroupSettings::default() });
    assert_eq!(refused(&mut s, &large("g")), ["3: x in 1 by range led by x [x]"]);
    let again = JoinRequest { member_id: "x".into(), ..large("g") };
    assert_eq!(refused(&mut s, &again), ["3: x in 1 by range led by x [x]"]);
    let second = JoinRequest { new_id: "y".into(), ..large("g") };
    assert_eq!(refused(&mut s, &second), ["3: GroupFull "]);

    let mut s = Script::new(GroupSettings { offsets_bytes_max: 1_000, ..GroupSettings::default() });
    let offset = |metadata: usize| {
        let key = OffsetKey { topic: "t".into(), partition: 0 };
        let committed = Committed {
            topic_id: TopicId([0; 16]),
            offset: 1,
            leader_epoch: -1,
            metadata: "x".repeat(metadata),
            committed_at: 0,
            expires_at: -1,
        };
        (key, committed)
    };
    let commit = |s: &mut Script, metadata| {
        let offsets = [offset(metadata)];
        s.machine.may_commit("k", "", None, -1, Commit::Classic, &offsets, s.now)?;
        let [(key, committed)] = offsets;
        s.machine.set_offset("k", key, committed, s.now);
        Ok(())
    };
    assert_eq!(commit(&mut s, 500), Ok(()));
    assert_eq!(commit(&mut s, 500), Err(GroupError::TooMany));
    assert_eq!(commit(&mut s, 10), Ok(()), "which takes the place of the one before");
    assert_eq!(commit(&mut s, 500), Ok(()));
    s.machine.delete("k");
    assert_eq!(commit(&mut s, 500), Ok(()));
}

#[test]
fn offsets_go_once_nobody_has_needed_them_for_their_retention() {
    let mut s = Script::two();
    let kept = s.machine.settings().offsets_retention_ms;
    let commit = |s: &mut Script, group: &str, topic: &str, expires_at: i64| {
        let committed = Committed {
            topic_id: TopicId([0; 16]),
            offset: 1,
            leader_epoch: -1,
            metadata: String::new(),
            committed_at: s.now,
            expires_at,
        };
        s.machine.set_offset(group, OffsetKey { topic: topic.into(), partition: 0 }, committed, s.now);
    };
    let over = |s: &Script, now: i64| -> Vec<String> {
        let (groups, _) = s.machine.expired(now);
        let of = |group: &String| -> Vec<String> {
            let keys = s.machine.expired_offsets(group, now);
            keys.into_iter().map(|key| format!("{group} {}", key.topic)).collect()
        };
        let mut lines: Vec<_> = groups.iter().flat_map(of).collect();
        lines.sort_unstable();
        lines
    };
    let begin = s.now;
    commit(&mut s, "g", "t", -1);
    commit(&mut s, "alone", "t", -1);
    commit(&mut s, "short", "t", begin + 10);
    assert_eq!(over(&s, begin + 9), [""; 0]);
    assert_eq!(over(&s, begin + 10), ["short t"], "its client said so");
    assert_eq!(over(&s, begin + kept - 1), ["short t"]);
    assert_eq!(over(&s, begin + kept), ["alone t", "short t"], "who reads \"g\" is still there");

    // From the end of the last member on, not from the commit.
    s.now = begin + 2 * kept;
    s.leave("m1", None);
    s.leave("m2", None);
    assert_eq!(s.state(), State::Empty);
    assert!(!over(&s, s.now + kept - 1).contains(&"g t".to_owned()));
    assert!(over(&s, s.now + kept).contains(&"g t".to_owned()));

    // Members that read something else keep nothing.
    let mut s = Script::new(GroupSettings::default());
    let reads_u = [("range", "\0\0\0\0\0\x01\0\x01u\0\0\0\0")];
    s.join(1, Join { protocols: &reads_u, ..member("") });
    s.sync(2, "m1", 1, &[("m1", "all")]);
    assert_eq!(s.state(), State::Stable);
    commit(&mut s, "g", "t", -1);
    commit(&mut s, "g", "u", -1);
    assert_eq!(over(&s, s.now + kept - 1), [""; 0]);
    assert_eq!(over(&s, s.now + kept), ["g t"]);
}

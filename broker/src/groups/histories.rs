//! Groups of the classic protocol by random histories, against what must always hold: every request is answered once;
//! in a generation a partition has one owner; who is not of the generation commits nothing, so that commits never go
//! back; what was written is there after a crash; and a group that is left in peace becomes stable.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::machine::{Effect, Machine, Ticket};
use super::member::{JoinAnswer, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest};
use super::record::{GroupRecord, group_of_key};
use super::{Commit, GroupError, GroupSettings, State};

const PARTITIONS: u8 = 5;
const SESSION_MS: i32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Out,
    Joining(Ticket),
    /// Has a generation; the leader knows who is in it.
    Joined(Vec<String>),
    Syncing(Ticket),
    Member,
}

#[derive(Debug)]
struct Client {
    id: String,
    instance: Option<String>,
    generation: i32,
    phase: Phase,
    /// Where it is in what it reads.
    at: BTreeMap<u8, i64>,
    /// A commit on its way: member, generation, partition, position. Whatever else happens may overtake it, but not that
    /// the same member asks where it is in the same generation: what it sent comes in its order.
    late: Option<(String, i32, u8, i64)>,
}

struct World {
    machine: Machine,
    now: i64,
    clients: Vec<Client>,
    next: Ticket,
    open: BTreeSet<Ticket>,
    /// Records on their way to storage, oldest first, and what is there.
    writes: Vec<GroupRecord>,
    disk: Option<Vec<u8>>,
    owners: BTreeMap<(i32, u8), String>,
    /// Under which id each of them was last given something to read.
    ids: BTreeMap<String, String>,
    committed: BTreeMap<u8, i64>,
}

impl World {
    fn new(clients: usize) -> Self {
        let client = |i: usize| Client {
            id: String::new(),
            instance: (i % 3 == 1).then(|| format!("i{i}")),
            generation: -1,
            phase: Phase::Out,
            at: BTreeMap::new(),
            late: None,
        };
        Self {
            machine: Machine::new(GroupSettings::default()),
            now: 1_000_000,
            clients: (0..clients).map(client).collect(),
            next: 0,
            open: BTreeSet::new(),
            writes: Vec::new(),
            disk: None,
            owners: BTreeMap::new(),
            ids: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.open.insert(self.next);
        self.next
    }

    fn take(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Joined(ticket, result) => {
                    assert!(self.open.remove(&ticket), "{ticket} is answered twice");
                    let Some(i) = self.clients.iter().position(|c| c.phase == Phase::Joining(ticket)) else { continue };
                    match result {
                        Ok(answer) => self.joined(i, answer),
                        Err(e) => {
                            let client = &mut self.clients[i];
                            client.phase = Phase::Out;
                            match e.error {
                                GroupError::MemberIdRequired => client.id = e.member_id,
                                GroupError::UnknownMember | GroupError::FencedInstance => client.id.clear(),
                                GroupError::RebalanceInProgress | GroupError::NotPersisted => {}
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                }
                Effect::Synced(ticket, result) => {
                    assert!(self.open.remove(&ticket), "{ticket} is answered twice");
                    let Some(i) = self.clients.iter().position(|c| c.phase == Phase::Syncing(ticket)) else { continue };
                    match result {
                        Ok(answer) => self.synced(i, &answer),
                        Err(error) => self.lost(i, error),
                    }
                }
                Effect::JoinedOnceWritten(..) => panic!("nobody speaks the consumer protocol"),
                Effect::Persist(record) => self.writes.push(record),
                Effect::Write(entries) => {
                    // Of an empty group of the other protocol, which there never is here.
                    assert!(entries.iter().all(|(key, _)| group_of_key(key).is_none()), "{entries:?}");
                }
            }
        }
    }

    fn joined(&mut self, i: usize, answer: JoinAnswer) {
        let client = &mut self.clients[i];
        client.id.clone_from(&answer.member_id);
        client.generation = answer.generation;
        client.phase =
            Phase::Joined(answer.members.into_iter().map(|m| m.id).filter(|_| !answer.skip_assignment).collect());
    }

    fn synced(&mut self, i: usize, answer: &SyncAnswer) {
        // A follower that joins again unchanged is still in its generation, and what it committed there still counts.
        let client = &self.clients[i];
        if client.late.as_ref().is_some_and(|late| late.0 == client.id && late.1 == client.generation) {
            self.deliver_late(i);
        }
        let client = &mut self.clients[i];
        client.phase = Phase::Member;
        client.at.clear();
        for partition in answer.assignment.iter().copied() {
            client.at.insert(partition, self.committed.get(&partition).copied().unwrap_or(0));
            let name = client.instance.clone().unwrap_or_else(|| client.id.clone());
            let owner = self.owners.entry((client.generation, partition)).or_insert_with(|| name.clone());
            assert_eq!(*owner, name, "partition {partition} in generation {}", client.generation);
            self.ids.insert(name, client.id.clone());
        }
    }

    /// What a client does about an error.
    fn lost(&mut self, i: usize, error: GroupError) {
        let client = &mut self.clients[i];
        client.phase = Phase::Out;
        client.at.clear();
        match error {
            GroupError::UnknownMember | GroupError::FencedInstance => client.id.clear(),
            GroupError::IllegalGeneration | GroupError::RebalanceInProgress | GroupError::NotPersisted => {}
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, i: usize) {
        let ticket = self.ticket();
        let client = &mut self.clients[i];
        client.phase = Phase::Joining(ticket);
        client.at.clear();
        let request = JoinRequest {
            group: "g".into(),
            member_id: client.id.clone(),
            instance_id: client.instance.clone(),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: 20_000,
            protocol_type: "test".into(),
            protocols: vec![("p".into(), Bytes::new())],
            id_required: true,
            can_skip_assignment: i.is_multiple_of(2),
            new_id: format!("m{ticket}"),
        };
        let fx = self.machine.join(&request, ticket, self.now);
        self.take(fx);
    }

    fn sync(&mut self, i: usize, members: &[String]) {
        let ticket = self.ticket();
        let client = &mut self.clients[i];
        client.phase = Phase::Syncing(ticket);
        let of = |m: usize| (0..PARTITIONS).filter(|p| usize::from(*p) % members.len() == m).collect::<Vec<u8>>();
        let request = SyncRequest {
            group: "g".into(),
            generation: client.generation,
            member_id: client.id.clone(),
            instance_id: client.instance.clone(),
            protocol_type: None,
            protocol: None,
            assignments: members.iter().enumerate().map(|(m, id)| (id.clone(), Bytes::from(of(m)))).collect(),
        };
        let fx = self.machine.sync(&request, ticket, self.now);
        self.take(fx);
    }

    /// What a client would do next.
    fn go_on(&mut self, i: usize) {
        match self.clients[i].phase.clone() {
            Phase::Out => self.join(i),
            Phase::Joined(members) => self.sync(i, &members),
            Phase::Member => {
                let client = &self.clients[i];
                let instance = client.instance.as_deref();
                if let Err(error) = self.machine.heartbeat("g", &client.id, instance, client.generation, self.now) {
                    self.lost(i, error);
                }
            }
            Phase::Joining(_) | Phase::Syncing(_) => {}
        }
    }

    fn deliver(&mut self, i: usize, (member, generation, partition, position): (String, i32, u8, i64)) {
        let instance = self.clients[i].instance.clone();
        let allowed =
            self.machine.may_commit("g", &member, instance.as_deref(), generation, Commit::Classic, &[], self.now);
        if allowed.is_ok() {
            // Not left to positions alone, which would seldom tell.
            let newest = self.owners.keys().map(|(generation, _)| *generation).max();
            assert_eq!(Some(generation), newest, "{member} commits {partition} in a generation that is not the newest");
            let name = instance.unwrap_or_else(|| member.clone());
            assert_eq!(self.owners.get(&(generation, partition)), Some(&name), "{member} commits {partition}");
            assert_eq!(self.ids.get(&name), Some(&member), "{name} is another by now");
            let before = self.committed.insert(partition, position).unwrap_or(0);
            assert!(before <= position, "{member} in {generation} commits {partition} at {position} after {before}");
        }
    }

    /// A client's commits arrive in their order.
    fn deliver_late(&mut self, i: usize) {
        if let Some(commit) = self.clients[i].late.take() {
            self.deliver(i, commit);
        }
    }

    fn write(&mut self, ok: bool) {
        if self.writes.is_empty() {
            return;
        }
        // As the coordinator does: of several records of a group only the last is written.
        let record = self.writes.pop().unwrap();
        self.writes.clear();
        if ok {
            self.disk = Some(record.encode());
        }
        let fx = self.machine.persisted(&record, ok, self.now);
        self.take(fx);
    }

    fn crash(&mut self) {
        self.machine = Machine::new(GroupSettings::default());
        self.writes.clear();
        self.open.clear();
        if let Some(bytes) = &self.disk {
            self.machine.load_group(GroupRecord::decode("g".into(), bytes).unwrap(), self.now);
        }
        for client in &mut self.clients {
            match client.phase {
                Phase::Joining(_) => client.phase = Phase::Out,
                Phase::Syncing(_) => client.phase = Phase::Joined(Vec::new()),
                _ => {}
            }
        }
        // Generations that were never written begin again.
        let written = self.machine.describe("g").map_or(0, |_| self.generation());
        self.owners.retain(|(generation, _), _| *generation <= written);
    }

    fn generation(&self) -> i32 {
        self.disk.as_ref().map_or(0, |bytes| GroupRecord::decode("g".into(), bytes).unwrap().generation)
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

    fn step(&mut self, kind: u8, i: usize, n: u8) {
        match kind {
            0..=9 => self.go_on(i),
            10 => self.join(i),
            11..=13 => {
                self.deliver_late(i);
                let client = &mut self.clients[i];
                let generation = client.generation;
                let Some((partition, at)) = client.at.iter_mut().nth(usize::from(n) % 3) else { return };
                *at += 1 + i64::from(n);
                let commit = (client.id.clone(), generation, *partition, *at);
                if n.is_multiple_of(2) { self.deliver(i, commit) } else { client.late = Some(commit) }
            }
            14 => self.deliver_late(i),
            15 => self.wait(i64::from(n) * 60),
            16 => {
                let client = &mut self.clients[i];
                let leave = LeaveRequest { member_id: client.id.clone(), instance_id: client.instance.clone() };
                let (_, fx) = self.machine.leave("g", &[leave], self.now);
                self.take(fx);
                let client = &mut self.clients[i];
                client.phase = Phase::Out;
                client.at.clear();
                client.id.clear();
            }
            17 => {
                // A process that is killed comes back as another, or as the same static member.
                let client = &mut self.clients[i];
                client.phase = Phase::Out;
                client.at.clear();
                client.id.clear();
            }
            18 => self.write(!n.is_multiple_of(4)),
            19 if n.is_multiple_of(3) => self.crash(),
            _ => self.write(true),
        }
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            for i in 0..self.clients.len() {
                self.go_on(i);
                self.write(true);
            }
            self.wait(2_000);
        }
        assert_eq!(self.machine.describe("g").map(|d| d.state), Some(State::Stable), "{:#?}", self.clients);
        let read: BTreeSet<u8> = self.clients.iter().flat_map(|c| c.at.keys().copied()).collect();
        assert_eq!(read, (0..PARTITIONS).collect(), "{:#?}", self.clients);
        assert_eq!(self.clients.iter().map(|c| c.at.len()).sum::<usize>(), usize::from(PARTITIONS));
        assert!(self.open.is_empty(), "not answered: {:?}", self.open);
        for i in 0..self.clients.len() {
            // What is still on its way from earlier comes last: its own of this generation, or refused.
            self.deliver_late(i);
            for (partition, at) in self.clients[i].at.clone() {
                self.deliver(i, (self.clients[i].id.clone(), self.clients[i].generation, partition, at + 1));
                assert_eq!(self.committed.get(&partition), Some(&(at + 1)), "its owner may commit");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_a_partition_has_one_owner_in_a_generation(
        clients in 1usize..6,
        steps in prop::collection::vec((0u8..22, 0usize..6, any::<u8>()), 0..150),
    ) {
        let mut world = World::new(clients);
        for (kind, i, n) in steps {
            world.step(kind, i % clients, n);
        }
        world.settle();
    }
}

//! Groups of the consumer protocol, and of both, by random histories, against what must always hold: a partition has one
//! owner; who is not of an epoch commits nothing in it, so that commits never go back; what was written is there after a
//! crash; a group that is left in peace becomes stable and reads everything; and a group goes from one protocol to the
//! other and back.

use std::collections::{BTreeMap, BTreeSet};

use millpond_types::TopicId;
use proptest::prelude::*;

use super::assign::{self, Partitions};
use super::script::{Script, classic, join, stay, subscription, syncs};
use super::{HeartbeatRequest, Topics};
use crate::groups::machine::{Effect, Machine};
use crate::groups::member::JoinRequest;
use crate::groups::subscription;
use crate::groups::{Commit, Committed, GroupError, GroupSettings, LeaveRequest, OffsetKey};

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

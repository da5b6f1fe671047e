//! Commits, deletions, expiry, members and transactions at the same time, above storage that is slow, fails and answers in
//! any order, with clients that go before they are answered: when all is over, memory is what a restart reads from disk.
//!
//! The seed of a failure is in its message; with `MILLPOND_SEED=N` histories begin with that one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_types::ports::TopicSpec;
use millpond_types::{SystemClock, TopicId};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};

use super::consumer::HeartbeatRequest;
use super::coordinator::Visible;
use super::writes::Writer;
use super::{Commit, Committed, Coordinator, GroupSettings, JoinRequest, LeaveRequest, OffsetKey, SyncRequest};
use crate::storage::{Durability, Pending, ProtocolWrite, Room, Storage, StorageError, StorageOptions};
use crate::transactions::{self, InitRequest, TransactionSettings};

const HISTORIES: u64 = 150;
const STEPS: usize = 60;
const GROUPS: u64 = 3;
const PARTITIONS: u64 = 2;
const ALL: Visible<'static> = &|_| true;

type Answer = oneshot::Sender<Result<i64, StorageError>>;

/// What was queued and is not written yet.
struct Slow(Mutex<VecDeque<(Room, ProtocolWrite, Answer)>>);

impl Writer for Slow {
    fn queue(&self, room: Room, write: ProtocolWrite) -> Result<Pending<i64>, StorageError> {
        let (answer, pending) = oneshot::channel();
        self.0.lock().push_back((room, write, answer));
        Ok(Pending(pending))
    }
}

/// Numbers that look random and are the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

struct World {
    seed: u64,
    random: Random,
    storage: Storage,
    topic: TopicId,
    slow: Arc<Slow>,
    groups: Coordinator,
    transactions: transactions::Coordinator,
    tasks: Vec<JoinHandle<()>>,
    /// Those that wait for storage alone.
    must: Vec<JoinHandle<()>>,
    /// Who is a member of which group, by the consumer protocol and by the classic one.
    members: Arc<Mutex<BTreeMap<(String, String), i32>>>,
    classic: Arc<Mutex<Vec<(String, String)>>>,
    next: i64,
}

/// What groups are, but for those that are between two generations and those that nothing is known of.
type Shown = BTreeMap<String, (String, BTreeMap<OffsetKey, Committed>)>;

impl World {
    fn new(seed: u64, storage: Storage, topic: TopicId) -> Self {
        let slow = Arc::new(Slow(Mutex::default()));
        let settings = settings();
        let clock = Arc::new(SystemClock);
        let groups = Coordinator::load_with(storage.clone(), slow.clone(), settings, clock.clone(), None).unwrap();
        let of_transactions = TransactionSettings::default();
        let transactions =
            transactions::Coordinator::load(storage.clone(), groups.clone(), of_transactions, clock).unwrap();
        Self {
            seed,
            random: Random(seed),
            storage,
            topic,
            slow,
            groups,
            transactions,
            tasks: Vec::new(),
            must: Vec::new(),
            members: Arc::default(),
            classic: Arc::default(),
            next: seed as i64 * 1000,
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the handle is kept, and the world's runtime ends with it")]
    fn go(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Somebody asks for something; sometimes the connection is gone before there is an answer.
    #[allow(clippy::disallowed_methods, reason = "the handle is kept, and the world's runtime ends with it")]
    fn ask(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task);
        if self.random.below(3) == 0 { self.tasks.push(task) } else { self.must.push(task) }
    }

    fn offset(&mut self) -> (OffsetKey, Committed) {
        self.next += 1;
        let key = OffsetKey { topic: "t".into(), partition: self.random.below(PARTITIONS) as i32 };
        let committed = Committed {
            topic_id: self.topic,
            offset: self.next,
            leader_epoch: -1,
            metadata: String::new(),
            committed_at: self.groups.time(),
            expires_at: -1,
        };
        (key, committed)
    }

    fn step(&mut self) {
        let group = format!("g{} of {}", self.random.below(GROUPS), self.seed);
        let (groups, transactions) = (self.groups.clone(), self.transactions.clone());
        match self.random.below(20) {
            0..6 => {
                let offset = self.offset();
                self.ask(async move {
                    let _answer = groups.commit(&group, "", None, -1, Commit::Classic, vec![offset]).await;
                });
            }
            6..8 => self.ask(async move {
                let _answer = transactions.delete_group(&group).await;
            }),
            8 => {
                let (key, _) = self.offset();
                self.ask(async move { drop(transactions.delete_offsets(&group, vec![key]).await) });
            }
            9 => self.ask(async move { groups.expire_offsets(&BTreeSet::new()).await }),
            10..12 => self.heartbeat(group),
            12 => self.leave(),
            13 => self.join(group),
            14 => self.leave_classic(),
            15..17 => self.transact(group),
            _ => self.go(async move { while !groups.write_dirty().await {} }),
        }
    }

    fn heartbeat(&mut self, group: String) {
        self.next += 1;
        let id = format!("m{}", self.next);
        let (groups, members) = (self.groups.clone(), self.members.clone());
        self.go(async move {
            let request = HeartbeatRequest {
                group: group.clone(),
                member_id: id.clone(),
                rebalance_timeout_ms: 60_000,
                topics: Some(vec!["t".into()]),
                owned: Some(BTreeMap::new()),
                id_required: true,
                ..HeartbeatRequest::default()
            };
            if let Ok((answer, _)) = groups.consumer_heartbeat(request, ALL).await {
                members.lock().insert((group, id), answer.epoch);
            }
        });
    }

    fn leave(&mut self) {
        let Some(((group, id), _)) = self.members.lock().pop_first() else { return };
        let groups = self.groups.clone();
        self.go(async move {
            let request = HeartbeatRequest {
                group,
                member_id: id,
                epoch: -1,
                rebalance_timeout_ms: -1,
                id_required: true,
                ..HeartbeatRequest::default()
            };
            let _answer = groups.consumer_heartbeat(request, ALL).await;
        });
    }

    fn join(&mut self, group: String) {
        self.next += 1;
        let id = format!("c{}", self.next);
        let (groups, classic) = (self.groups.clone(), self.classic.clone());
        self.go(async move {
            let request = JoinRequest {
                group: group.clone(),
                member_id: String::new(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                session_timeout_ms: 30_000,
                rebalance_timeout_ms: 30_000,
                protocol_type: "consumer".into(),
                protocols: vec![("range".into(), Bytes::new())],
                id_required: false,
                can_skip_assignment: true,
                new_id: id.clone(),
            };
            let Ok(joined) = groups.join(request, ALL).await else { return };
            classic.lock().push((group.clone(), id.clone()));
            let request = SyncRequest {
                group,
                generation: joined.generation,
                member_id: id,
                instance_id: None,
                protocol_type: None,
                protocol: None,
                assignments: joined.members.iter().map(|m| (m.id.clone(), Bytes::from_static(b"some"))).collect(),
            };
            let _answer = groups.sync(request).await;
        });
    }

    fn leave_classic(&mut self) {
        if let Some((group, member_id)) = self.classic.lock().pop() {
            let _left = self.groups.leave(&group, &[LeaveRequest { member_id, instance_id: None }]);
        }
    }

    fn transact(&mut self, group: String) {
        let (id, offset) = (format!("x{}", self.random.below(2)), self.offset());
        let commit = self.random.below(4) > 0;
        let transactions = self.transactions.clone();
        self.ask(async move {
            let request = InitRequest { id: id.clone(), timeout_ms: 60_000, expected: None };
            let Ok(producer) = transactions.init(request).await else { return };
            if transactions.add_offsets(&id, producer, group, true, vec![offset]).await.is_ok() {
                let _ended = transactions.end(&id, producer, commit).await;
            }
        });
    }

    /// Some of what is queued is written, in its order, or fails; answers go out in any order.
    async fn release(&mut self, fails: bool) {
        let queued = self.slow.0.lock().len() as u64;
        let mut answers = Vec::new();
        for _ in 0..self.random.below(queued + 1).max(queued.min(1)) {
            let Some((room, write, answer)) = self.slow.0.lock().pop_front() else { break };
            let written = if fails && self.random.below(3) == 0 {
                Err(StorageError::Unavailable("it fails".into()))
            } else {
                self.storage.queue(room, write).unwrap().await
            };
            answers.push((answer, written));
        }
        while !answers.is_empty() {
            let (answer, written) = answers.swap_remove(self.random.below(answers.len() as u64) as usize);
            let _gone = answer.send(written);
            // Whoever was answered may go on before the next hears.
            for _ in 0..self.random.below(4) {
                yield_now().await;
            }
        }
    }

    /// Whether all was written that is to be, but for what storage's own thread does.
    fn is_written(&self) -> bool {
        let held = self.groups.inner.held.lock();
        let nothing_open = held.order.open().next().is_none() && self.slow.0.lock().is_empty();
        nothing_open && held.dirty.is_empty() && held.entries.is_empty()
    }

    /// All is written, and nobody waits but for other members.
    async fn settle(&mut self) {
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < 10_000, "it does not come to an end");
            self.release(false).await;
            for _ in 0..20 {
                yield_now().await;
            }
            if !self.is_written() {
                let groups = self.groups.clone();
                self.go(async move {
                    let _written = groups.write_dirty().await;
                });
            } else if self.must.iter().all(JoinHandle::is_finished) && self.transactions.is_idle() {
                quiet += 1;
                if quiet == 3 {
                    return;
                }
                continue;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            quiet = 0;
        }
    }
}

fn settings() -> GroupSettings {
    // Whatever is not read by members expires when it is looked for.
    GroupSettings { offsets_retention_ms: 0, ..GroupSettings::default() }
}

fn shown(groups: &Coordinator) -> Shown {
    let mut shown = Shown::new();
    for listed in groups.list() {
        let what = match groups.describe_consumer(&listed.group) {
            Some(found) => {
                let of = |m: super::ConsumerMember| (m.id.clone(), m.epoch, m.assigned.clone(), m.target.clone());
                let members: Vec<_> = found.members.into_iter().map(of).collect();
                format!("{} {} {} {members:?}", found.state, found.epoch, found.assignment_epoch)
            }
            None => {
                let found = groups.describe(&listed.group).unwrap();
                let is_known = !found.protocol_type.is_empty() || !groups.offsets(&listed.group).is_empty();
                if !is_known {
                    // It had offsets, which disk no longer knows.
                    continue;
                }
                if !matches!(found.state, super::State::Empty | super::State::Stable) {
                    "between generations".into()
                } else {
                    format!("{found:?}")
                }
            }
        };
        let offsets: BTreeMap<_, _> = groups.offsets(&listed.group).into_iter().collect();
        shown.insert(listed.group, (what, offsets));
    }
    shown
}

async fn check(seed: u64, storage: &Storage, topic: TopicId) {
    let mut world = World::new(seed, storage.clone(), topic);
    for _ in 0..STEPS {
        world.step();
        match world.random.below(4) {
            0 => world.release(true).await,
            1 if !world.tasks.is_empty() => {
                let at = world.random.below(world.tasks.len() as u64) as usize;
                world.tasks.swap_remove(at).abort();
            }
            _ => {
                for _ in 0..world.random.below(6) {
                    yield_now().await;
                }
            }
        }
    }
    world.settle().await;
    world.tasks.iter().for_each(JoinHandle::abort);
    let again = Coordinator::load(storage.clone(), settings(), Arc::new(SystemClock), None).unwrap();
    let (mut memory, mut disk) = (shown(&world.groups), shown(&again));
    // A generation that was not there yet when it ended begins anew after a restart: only its offsets are compared.
    for (group, (what, _)) in &mut memory {
        if what == "between generations" {
            what.clear();
            disk.entry(group.clone()).or_default().0.clear();
        }
    }
    disk.retain(|_, (what, offsets)| !what.is_empty() || !offsets.is_empty());
    memory.retain(|_, (what, offsets)| !what.is_empty() || !offsets.is_empty());
    let groups: BTreeSet<_> = memory.keys().chain(disk.keys()).collect();
    for group in groups {
        assert_eq!(memory.get(group), disk.get(group), "group \"{group}\" in memory and on disk, seed {seed}");
    }
}

#[test]
fn memory_is_what_a_restart_reads_whatever_comes_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = StorageOptions::new(directory.path());
    options.durability = Durability::None;
    options.disk_free_bytes_min = 0;
    options.disk_reserve_bytes = 0;
    let storage = Storage::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    runtime.block_on(async {
        let spec = TopicSpec { name: "t".into(), partitions: 2, replicas: 1, configs: BTreeMap::new() };
        let topic = storage.create_topic(spec).await.unwrap().id;
        for seed in first..first + HISTORIES {
            check(seed, &storage, topic).await;
        }
    });
    storage.close().unwrap();
}

//! The async edge of groups: parks answers, runs timers, has written what the machine says is to be written (`writes`).
//!
//! A change of a group is written by one task that takes all that changed since its last write in one atomic write; of
//! several changes of one entry only the last is written. Under the classic protocol the machine is told of the write
//! and goes on; under the consumer protocol it has gone on, and answers wait for all writes that were open before them.
//! Offsets are written by who commits them.
//! Lock order: only `held`, and never across an await.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use millpond_types::{Clock, TopicId, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::consumer::member::Member as ConsumerMember;
use super::consumer::{self, HeartbeatAnswer, HeartbeatRequest, Refused, Times, Topics};
use super::group::Commit;
use super::machine::{Described, DescribedConsumer, Effect, JoinError, Listed, Machine, Ticket};
use super::member::{JoinAnswer, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest};
use super::offsets::{Committed, OffsetKey};
use super::order::Order;
use super::record::{self, GroupRecord};
use super::writes::{Queued, Writer};
use super::{GroupError, GroupSettings, State};
use crate::configs::{GroupConfigs, decode_group_configs};
use crate::storage::{Storage, StorageError};

/// How long an answer waits for what it says to be written.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(5);

/// An entry of storage, to be put or deleted.
pub(super) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// How far a query has read, shown as an offset of a group that nobody can join or change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Where the cursors of queries come from.
pub trait QueryGroups: Send + Sync {
    /// All cursors of all queries, each query under a group id of its own.
    fn offsets(&self) -> Vec<GroupOffset>;

    /// Whether a group belongs to a query. Asked on every join and commit, so worth a faster answer.
    fn owns(&self, group: &str) -> bool {
        self.offsets().iter().any(|o| o.group == group)
    }
}

#[derive(Clone)]
pub struct Coordinator {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub held: Mutex<Held>,
    pub storage: Storage,
    /// Where changes are queued: the same, but for tests.
    pub queue: Arc<dyn Writer>,
    queries: Option<Arc<dyn QueryGroups>>,
    clock: Arc<dyn Clock>,
    /// Wall clock at `started`; group time goes on from there with the monotonic clock, so that no member's time is over
    /// because somebody has set the clock.
    started_ms: i64,
    started: Instant,
    timer: Notify,
    pub writer: Notify,
    /// What was to be written last could not be, for a reason that passes.
    pub failing: AtomicBool,
    /// The number of the last of `Held::changes` that was written with all before it.
    pub written: watch::Sender<u64>,
    /// Changes of groups' settings go one after the other.
    pub configuring: tokio::sync::Mutex<()>,
}

pub(super) struct Held {
    pub machine: Machine,
    parked: HashMap<Ticket, Parked>,
    next_ticket: Ticket,
    /// Groups to be written, the last change of each.
    pub dirty: HashMap<String, GroupRecord>,
    /// Other entries to be written, the last change of each, and how many changes there ever were.
    pub entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub changes: u64,
    /// What is on its way to storage.
    pub order: Order<Queued>,
    /// Groups that are being deleted and of which nothing else is to be written since, with the deletions' numbers.
    pub deleting: BTreeSet<(String, u64)>,
    /// Joins that are answered once so many changes were written.
    unwritten: Vec<(u64, Ticket, JoinAnswer)>,
    /// When the timer task will look next.
    timer_at: i64,
}

enum Parked {
    Join(oneshot::Sender<Result<JoinAnswer, JoinError>>),
    Sync(oneshot::Sender<Result<SyncAnswer, GroupError>>),
}

impl Coordinator {
    /// Reads what storage has of groups and offsets. Blocks on disk.
    pub fn load(
        storage: Storage,
        settings: GroupSettings,
        clock: Arc<dyn Clock>,
        queries: Option<Arc<dyn QueryGroups>>,
    ) -> Result<Self, StorageError> {
        let queue = Arc::new(storage.clone());
        Self::load_with(storage, queue, settings, clock, queries)
    }

    pub(super) fn load_with(
        storage: Storage,
        queue: Arc<dyn Writer>,
        settings: GroupSettings,
        clock: Arc<dyn Clock>,
        queries: Option<Arc<dyn QueryGroups>>,
    ) -> Result<Self, StorageError> {
        let now = clock.now_ms();
        let mut machine = Machine::new(settings);
        for (key, value) in storage.group_scan(record::CONFIGS_PREFIX)? {
            let found = record::group_of_configs_key(&key).zip(decode_group_configs(&value));
            let damaged = || StorageError::Corrupt("settings of a consumer group cannot be read".into());
            let (group, configs) = found.ok_or_else(damaged)?;
            machine.set_configs(&group, configs);
        }
        for (key, value) in storage.group_scan(record::GROUP_PREFIX)? {
            let group = record::group_of_key(&key).and_then(|group| GroupRecord::decode(group, &value));
            machine
                .load_group(group.ok_or_else(|| StorageError::Corrupt("a consumer group cannot be read".into()))?, now);
        }
        for (id, (head, members)) in scan_consumers(&storage)? {
            machine.load_consumer(id, head, members, now);
        }
        for (key, value) in storage.group_scan(record::OFFSET_PREFIX)? {
            let offset = record::offset_of_key(&key).zip(Committed::decode(&value));
            let ((group, key), committed) =
                offset.ok_or_else(|| StorageError::Corrupt("a committed offset cannot be read".into()))?;
            machine.set_offset(&group, key, committed, now);
        }
        let held = Held {
            machine,
            parked: HashMap::new(),
            next_ticket: 0,
            dirty: HashMap::new(),
            entries: BTreeMap::new(),
            changes: 0,
            order: Order::default(),
            deleting: BTreeSet::new(),
            unwritten: Vec::new(),
            timer_at: i64::MAX,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                held: Mutex::new(held),
                storage,
                queue,
                queries,
                clock,
                started_ms: now,
                started: Instant::now(),
                timer: Notify::new(),
                writer: Notify::new(),
                failing: AtomicBool::new(false),
                written: watch::Sender::new(0),
                configuring: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// Runs timers and writes until `shutdown` says so; then writes what is left.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut over = shutdown.clone();
        let timers = async {
            tokio::select! {
                () = self.run_timers() => {}
                _over = over.wait_for(|over| *over) => {}
            }
        };
        let writes = async {
            tokio::select! {
                () = self.run_writes() => {}
                _over = shutdown.wait_for(|over| *over) => {}
            }
        };
        tokio::join!(timers, writes);
        self.write_dirty().await;
    }

    pub(super) fn now(&self) -> i64 {
        self.inner.started_ms + self.inner.started.elapsed().as_millis() as i64
    }

    // --- members ---

    /// `visible` says which topics the caller may know of.
    pub async fn join(&self, request: JoinRequest, visible: Visible<'_>) -> Result<JoinAnswer, JoinError> {
        if self.is_query(&request.group) {
            return Err(JoinError { error: GroupError::QueryGroup, member_id: request.member_id });
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut held = self.inner.held.lock();
            let ticket = held.park(Parked::Join(sender));
            let fx = if held.machine.is_mixed(&request.group) {
                let topics = StoredTopics(&self.inner.storage, visible);
                held.machine.join_mixed(&request, &topics, ticket, self.now())
            } else {
                held.machine.join(&request, ticket, self.now())
            };
            self.apply(&mut held, fx);
        }
        let gone = || JoinError { error: GroupError::NotPersisted, member_id: request.member_id };
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    pub async fn sync(&self, request: SyncRequest) -> Result<SyncAnswer, GroupError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut held = self.inner.held.lock();
            let ticket = held.park(Parked::Sync(sender));
            let fx = held.machine.sync(&request, ticket, self.now());
            self.apply(&mut held, fx);
        }
        receiver.await.unwrap_or(Err(GroupError::NotPersisted))
    }

    pub fn heartbeat(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        visible: Visible<'_>,
    ) -> Result<(), GroupError> {
        let mut held = self.inner.held.lock();
        let fx = held.machine.refresh(group, &StoredTopics(&self.inner.storage, visible));
        self.apply(&mut held, fx);
        let result = held.machine.heartbeat(group, member_id, instance_id, generation, self.now());
        self.wind(&mut held);
        result
    }

    pub fn leave(&self, group: &str, members: &[LeaveRequest]) -> Vec<Result<String, GroupError>> {
        let mut held = self.inner.held.lock();
        let (results, fx) = held.machine.leave(group, members, self.now());
        self.apply(&mut held, fx);
        results
    }

    /// A member of the consumer protocol joins, stays or leaves. Waits until what the answer says is durable.
    pub async fn consumer_heartbeat(
        &self,
        request: HeartbeatRequest,
        visible: Visible<'_>,
    ) -> Result<(HeartbeatAnswer, Times), Refused> {
        if self.is_query(&request.group) {
            return Err(GroupError::QueryGroup.into());
        }
        let (result, times, changes) = {
            let mut held = self.inner.held.lock();
            let topics = StoredTopics(&self.inner.storage, visible);
            let (result, fx) = held.machine.consumer_heartbeat(&request, &topics, self.now());
            self.apply(&mut held, fx);
            (result, held.machine.times(&request.group), held.changes)
        };
        let answer = result?;
        let mut written = self.inner.written.subscribe();
        match tokio::time::timeout(WRITE_WAIT, written.wait_for(|written| *written >= changes)).await {
            Ok(Ok(_)) => Ok((answer, times)),
            Ok(Err(_)) | Err(_) => Err(GroupError::NotPersisted.into()),
        }
    }

    // --- settings of groups ---

    pub fn configs(&self, group: &str) -> GroupConfigs {
        self.inner.held.lock().machine.configs(group)
    }

    /// Names of the groups that have settings of their own.
    pub fn configured(&self) -> Vec<String> {
        self.inner.held.lock().machine.configured()
    }

    // --- looking ---

    pub fn list(&self) -> Vec<Listed> {
        let mut all = self.inner.held.lock().machine.list();
        let mut queries: Vec<String> = self.query_offsets().into_iter().map(|o| o.group).collect();
        queries.sort();
        queries.dedup();
        queries.retain(|group| self.is_query(group));
        let state = State::Stable.name();
        let listed = |group| Listed { group, protocol_type: "consumer".into(), state, is_classic: true };
        all.extend(queries.into_iter().map(listed));
        all
    }

    /// Whether there are groups, those of queries apart.
    pub fn any(&self) -> bool {
        self.inner.held.lock().machine.any()
    }

    pub fn describe(&self, group: &str) -> Option<Described> {
        if self.is_query(group) {
            return Some(Described {
                state: State::Stable,
                protocol_type: "consumer".into(),
                protocol: "query".into(),
                members: Vec::new(),
            });
        }
        self.inner.held.lock().machine.describe(group)
    }

    pub fn describe_consumer(&self, group: &str) -> Option<DescribedConsumer> {
        self.inner.held.lock().machine.describe_consumer(group)
    }

    // --- offsets ---

    pub fn settings(&self) -> GroupSettings {
        self.inner.held.lock().machine.settings().clone()
    }

    /// Writes offsets of one group, all or none, if the member may.
    pub async fn commit(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        way: Commit,
        offsets: Vec<(OffsetKey, Committed)>,
    ) -> Result<(), GroupError> {
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        let may = |held: &mut Held, offsets: &[(OffsetKey, Committed)]| {
            held.machine.may_commit(group, member_id, instance_id, generation, way, offsets, self.now())?;
            self.wind(held);
            Ok(())
        };
        self.write_offsets(group, offsets, may).await
    }

    /// Whether somebody who names a member of the consumer protocol may see its group's offsets.
    pub fn may_fetch(&self, group: &str, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        if self.is_query(group) { Ok(()) } else { self.inner.held.lock().machine.may_fetch(group, member_id, epoch) }
    }

    /// Whether offsets may become part of a transaction.
    pub fn may_commit_in_transaction(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        offsets: &[(OffsetKey, Committed)],
    ) -> Result<(), GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        let mut held = self.inner.held.lock();
        let now = self.now();
        let allowed = held.machine.may_commit_in_transaction(group, member_id, instance_id, generation, offsets, now);
        self.wind(&mut held);
        allowed
    }

    /// Wall-clock time to stamp commits with, which another start holds against its own.
    pub fn time(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    /// The committed offset of a partition, if it was committed for the topic that has that name now.
    pub fn offset(&self, group: &str, key: &OffsetKey) -> Option<Committed> {
        let found = self.inner.held.lock().machine.offset(group, key).cloned();
        match found {
            Some(committed) => self.is_current(key, &committed).then_some(committed),
            None => self.query_offset(group).into_iter().find(|(k, _)| k == key).map(|(_, committed)| committed),
        }
    }

    pub fn offsets(&self, group: &str) -> Vec<(OffsetKey, Committed)> {
        let mut all: Vec<_> =
            self.inner.held.lock().machine.offsets(group).map(|(k, c)| (k.clone(), c.clone())).collect();
        all.retain(|(key, committed)| self.is_current(key, committed));
        all.extend(self.query_offset(group));
        all
    }

    /// Groups with offsets, by name, as many as may be shown; that many; and how many offsets all of them have.
    pub(super) fn names_with_offsets(&self) -> (Vec<String>, usize, usize) {
        let held = self.inner.held.lock();
        let rows_max = held.machine.settings().lag_rows_max;
        let mut groups: Vec<(&str, usize)> = held.machine.offset_counts().filter(|(_, count)| *count > 0).collect();
        let total = groups.iter().map(|(_, count)| count).sum();
        if groups.len() > rows_max {
            groups.select_nth_unstable(rows_max);
            groups.truncate(rows_max);
        }
        let mut names: Vec<String> = groups.into_iter().map(|(group, _)| group.to_owned()).collect();
        drop(held);
        names.sort_unstable();
        (names, rows_max, total)
    }

    pub(super) fn some_offsets(&self, group: &str, count_max: usize) -> Vec<(OffsetKey, Committed)> {
        let held = self.inner.held.lock();
        held.machine.offsets(group).take(count_max).map(|(k, c)| (k.clone(), c.clone())).collect()
    }

    /// The end of the log that an offset was committed for, where that is still there.
    pub(super) fn log_end(&self, key: &OffsetKey, committed: &Committed) -> Option<i64> {
        let topic = self.inner.storage.find_topic(&key.topic).filter(|topic| topic.id == committed.topic_id)?;
        let place = TopicPartition { topic: topic.id, partition: key.partition };
        self.inner.storage.partition_offsets(place).ok().map(|offsets| offsets.end)
    }

    pub(super) fn topic_name(&self, topic: TopicId) -> Option<String> {
        self.inner.storage.find_topic_by_id(topic).map(|topic| topic.name.clone())
    }

    fn is_current(&self, key: &OffsetKey, committed: &Committed) -> bool {
        self.inner.storage.find_topic(&key.topic).is_some_and(|topic| topic.id == committed.topic_id)
    }

    /// An open transaction has offsets of a group, which is there from then on.
    pub(crate) fn hold(&self, group: &str) {
        let now = self.now();
        let mut held = self.inner.held.lock();
        held.machine.hold(group, now);
        self.keep(&mut held, group);
    }

    /// What lies nowhere but in memory is written, so that a start finds the group too.
    pub(super) fn keep(&self, held: &mut Held, group: &str) {
        let fx = held.machine.keep(group);
        self.apply(held, fx);
    }

    /// Whether offsets may be deleted by hand, each by itself; fails as a whole where the group cannot be changed.
    pub(crate) fn may_delete_offsets(
        &self,
        group: &str,
        keys: &[OffsetKey],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        let held = self.inner.held.lock();
        held.machine.may_delete_offsets(group)?;
        Ok(keys.iter().map(|key| held.machine.may_delete_offset(group, &key.topic)).collect())
    }

    // --- queries ---

    fn query_offsets(&self) -> Vec<GroupOffset> {
        self.inner.queries.as_ref().map(|q| q.offsets()).unwrap_or_default()
    }

    /// A group that clients made keeps its name, should a query come to have the same.
    pub(super) fn is_query(&self, group: &str) -> bool {
        if self.inner.held.lock().machine.exists(group) {
            return false;
        }
        self.inner.queries.as_ref().is_some_and(|q| q.owns(group))
    }

    fn query_offset(&self, group: &str) -> Vec<(OffsetKey, Committed)> {
        if !self.is_query(group) {
            return Vec::new();
        }
        let of_group = self.query_offsets().into_iter().filter(|o| o.group == group);
        of_group.filter_map(|o| self.as_committed(o)).collect()
    }

    /// The cursors of all queries, each with its group.
    pub(super) fn all_query_offsets(&self) -> Vec<(String, OffsetKey, Committed)> {
        let offsets = self.query_offsets().into_iter().filter_map(|o| {
            let group = o.group.clone();
            self.as_committed(o).map(|(key, committed)| (group, key, committed))
        });
        let mut offsets: Vec<_> = offsets.collect();
        let mut owned: HashMap<String, bool> = HashMap::new();
        offsets.retain(|(group, ..)| match owned.get(group) {
            Some(is) => *is,
            None => *owned.entry(group.clone()).or_insert_with(|| self.is_query(group)),
        });
        offsets
    }

    fn as_committed(&self, o: GroupOffset) -> Option<(OffsetKey, Committed)> {
        let topic_id = self.inner.storage.find_topic(&o.topic)?.id;
        let (offset, metadata) = (o.offset, String::new());
        let committed = Committed { topic_id, offset, leader_epoch: -1, metadata, committed_at: 0, expires_at: -1 };
        Some((OffsetKey { topic: o.topic, partition: o.partition }, committed))
    }

    // --- effects, timers, writes ---

    pub(super) fn apply(&self, held: &mut Held, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Joined(ticket, result) => held.joined(ticket, result),
                Effect::JoinedOnceWritten(ticket, answer) => {
                    if *self.inner.written.borrow() >= held.changes {
                        held.joined(ticket, Ok(answer));
                    } else {
                        held.unwritten.push((held.changes, ticket, answer));
                    }
                }
                Effect::Synced(ticket, result) => {
                    if let Some(Parked::Sync(sender)) = held.parked.remove(&ticket) {
                        let _gone = sender.send(result);
                    }
                }
                Effect::Write(entries) => {
                    for (key, value) in entries {
                        if let Some(group) = record::group_of_key(&key) {
                            held.dirty.remove(&group);
                            held.goes_on(&group);
                        } else if let Some(group) = consumer::record::group_of_key(&key) {
                            held.goes_on(&group);
                        }
                        held.entries.insert(key, value);
                    }
                    held.changes += 1;
                    self.inner.writer.notify_one();
                }
                Effect::Persist(record) => {
                    held.entries.remove(&record::group_key(&record.group));
                    held.goes_on(&record.group);
                    held.dirty.insert(record.group.clone(), record);
                    self.inner.writer.notify_one();
                }
            }
        }
        self.wind(held);
    }

    /// Wakes the timer task if something is due before it would look.
    fn wind(&self, held: &mut Held) {
        if let Some(at) = held.machine.deadline()
            && at < held.timer_at
        {
            held.timer_at = at;
            self.inner.timer.notify_one();
        }
    }

    async fn run_timers(&self) {
        loop {
            let due = {
                let mut held = self.inner.held.lock();
                let fx = held.machine.tick(self.now());
                held.timer_at = held.machine.deadline().unwrap_or(i64::MAX);
                let due = held.timer_at;
                self.apply(&mut held, fx);
                due.min(held.timer_at)
            };
            let wait = u64::try_from(due.saturating_sub(self.now())).unwrap_or(0);
            tokio::select! {
                () = self.inner.timer.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(wait.min(86_400_000))) => {}
            }
        }
    }
}

/// Groups of the consumer protocol with their members, by id.
type Consumers = BTreeMap<String, (consumer::record::Head, Vec<ConsumerMember>)>;

fn scan_consumers(storage: &Storage) -> Result<Consumers, StorageError> {
    let damaged = || StorageError::Corrupt("a consumer group or a member of it cannot be read".into());
    let mut groups = Consumers::new();
    for (key, value) in storage.group_scan(consumer::record::GROUP_PREFIX)? {
        let id = consumer::record::group_of_key(&key).ok_or_else(damaged)?;
        groups.insert(id, (consumer::record::Head::decode(&value).ok_or_else(damaged)?, Vec::new()));
    }
    for (key, value) in storage.group_scan(consumer::record::MEMBER_PREFIX)? {
        let (group, id) = consumer::record::member_of_key(&key).ok_or_else(damaged)?;
        let (_, members) = groups.get_mut(&group).ok_or_else(damaged)?;
        members.push(ConsumerMember::decode(id, &value).ok_or_else(damaged)?);
    }
    Ok(groups)
}

/// Which topics somebody may know of.
pub type Visible<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// The topics of storage as groups look at them.
struct StoredTopics<'a>(&'a Storage, Visible<'a>);

impl Topics for StoredTopics<'_> {
    fn version(&self) -> u64 {
        self.0.topics_version()
    }

    fn find(&self, name: &str) -> Option<(TopicId, i32)> {
        self.0.find_topic(name).map(|topic| (topic.id, topic.partition_count()))
    }

    fn each(&self, look: &mut dyn FnMut(&str)) {
        for topic in self.0.all_topics().iter().filter(|topic| (self.1)(&topic.name)) {
            look(&topic.name);
        }
    }
}

impl Held {
    fn joined(&mut self, ticket: Ticket, result: Result<JoinAnswer, JoinError>) {
        if let Some(Parked::Join(sender)) = self.parked.remove(&ticket) {
            let _gone = sender.send(result);
        }
    }

    /// So many changes are written: answers that waited for them.
    pub(super) fn written(&mut self, changes: u64) {
        let (ready, waiting) = std::mem::take(&mut self.unwritten).into_iter().partition(|(n, ..)| *n <= changes);
        self.unwritten = waiting;
        let ready: Vec<_> = ready;
        for (_, ticket, answer) in ready {
            self.joined(ticket, Ok(answer));
        }
    }

    /// What became of a group is written after all deletions of it that are under way.
    fn goes_on(&mut self, group: &str) {
        let all = (group.to_owned(), 0)..=(group.to_owned(), u64::MAX);
        let under_way: Vec<_> = self.deleting.range(all).cloned().collect();
        for deletion in under_way {
            self.deleting.remove(&deletion);
        }
    }

    fn park(&mut self, parked: Parked) -> Ticket {
        self.next_ticket += 1;
        self.parked.insert(self.next_ticket, parked);
        self.next_ticket
    }
}

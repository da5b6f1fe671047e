//! The async edge of groups: parks answers, runs timers, writes what the machine says is to be written.
//!
//! A change of a group is written by one task that takes all groups that changed since its last write in one atomic
//! write; of several changes of one group only the last is written. Offsets are written by who commits them.
//! Lock order: only `held`, and never across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_types::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::machine::{Described, Effect, JoinError, Listed, Machine, Ticket};
use super::member::{JoinAnswer, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest};
use super::offsets::{Committed, OffsetKey};
use super::record::{self, GroupRecord};
use super::{GroupError, GroupSettings, State};
use crate::storage::{Storage, StorageError};

/// How often offsets are looked through for those that outlived their retention.
const OFFSETS_CHECK: Duration = Duration::from_secs(10 * 60);
/// How long a write that failed waits before it is tried again.
const WRITE_RETRY: Duration = Duration::from_millis(500);

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
    inner: Arc<Inner>,
}

struct Inner {
    held: Mutex<Held>,
    storage: Storage,
    queries: Option<Arc<dyn QueryGroups>>,
    /// Wall clock at `started`; group time goes on from there with the monotonic clock.
    started_ms: i64,
    started: Instant,
    timer: Notify,
    writer: Notify,
}

struct Held {
    machine: Machine,
    parked: HashMap<Ticket, Parked>,
    next_ticket: Ticket,
    /// Groups to be written, the last change of each.
    dirty: HashMap<String, GroupRecord>,
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
        clock: &dyn Clock,
        queries: Option<Arc<dyn QueryGroups>>,
    ) -> Result<Self, StorageError> {
        let now = clock.now_ms();
        let mut machine = Machine::new(settings);
        for (key, value) in storage.group_scan(record::GROUP_PREFIX)? {
            let group = record::group_of_key(&key).and_then(|group| GroupRecord::decode(group, &value));
            machine
                .load_group(group.ok_or_else(|| StorageError::Corrupt("a consumer group cannot be read".into()))?, now);
        }
        for (key, value) in storage.group_scan(record::OFFSET_PREFIX)? {
            let offset = record::offset_of_key(&key).zip(Committed::decode(&value));
            let ((group, key), committed) =
                offset.ok_or_else(|| StorageError::Corrupt("a committed offset cannot be read".into()))?;
            machine.set_offset(&group, key, committed, now);
        }
        let held = Held { machine, parked: HashMap::new(), next_ticket: 0, dirty: HashMap::new(), timer_at: i64::MAX };
        Ok(Self {
            inner: Arc::new(Inner {
                held: Mutex::new(held),
                storage,
                queries,
                started_ms: now,
                started: Instant::now(),
                timer: Notify::new(),
                writer: Notify::new(),
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

    fn now(&self) -> i64 {
        self.inner.started_ms + self.inner.started.elapsed().as_millis() as i64
    }

    // --- members ---

    pub async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
        if self.is_query(&request.group) {
            return Err(JoinError { error: GroupError::QueryGroup, member_id: request.member_id });
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut held = self.inner.held.lock();
            let ticket = held.park(Parked::Join(sender));
            let fx = held.machine.join(&request, ticket, self.now());
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
    ) -> Result<(), GroupError> {
        let mut held = self.inner.held.lock();
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

    // --- looking ---

    pub fn list(&self) -> Vec<Listed> {
        let mut all = self.inner.held.lock().machine.list();
        let mut queries: Vec<String> = self.query_offsets().into_iter().map(|o| o.group).collect();
        queries.sort();
        queries.dedup();
        queries.retain(|group| self.is_query(group));
        let listed = |group| Listed { group, protocol_type: "consumer".into(), state: State::Stable };
        all.extend(queries.into_iter().map(listed));
        all
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
        offsets: Vec<(OffsetKey, Committed)>,
    ) -> Result<(), GroupError> {
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        {
            let mut held = self.inner.held.lock();
            held.machine.may_commit(group, member_id, instance_id, generation, &offsets, self.now())?;
            self.wind(&mut held);
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let entries =
            offsets.iter().map(|(key, c)| (record::offset_key(group, key), Some(c.encode()))).collect::<Vec<_>>();
        if let Err(error) = self.inner.storage.group_write(entries).await {
            warn!(group, %error, "offsets not written");
            return Err(GroupError::NotPersisted);
        }
        let now = self.now();
        let mut held = self.inner.held.lock();
        for (key, committed) in offsets {
            held.machine.set_offset(group, key, committed, now);
        }
        Ok(())
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

    /// Takes in offsets that a transaction wrote when it was committed.
    pub(crate) fn offsets_written(&self, offsets: Vec<(String, OffsetKey, Committed)>) {
        if offsets.is_empty() {
            return;
        }
        let now = self.now();
        let mut held = self.inner.held.lock();
        for (group, key, committed) in offsets {
            held.machine.set_offset(&group, key, committed, now);
        }
    }

    /// Wall-clock time to stamp commits with.
    pub fn time(&self) -> i64 {
        self.now()
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

    fn is_current(&self, key: &OffsetKey, committed: &Committed) -> bool {
        self.inner.storage.find_topic(&key.topic).is_some_and(|topic| topic.id == committed.topic_id)
    }

    /// One answer per key; fails as a whole where the group cannot be changed.
    pub async fn delete_offsets(
        &self,
        group: &str,
        keys: &[OffsetKey],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        let checks: Vec<Result<(), GroupError>> = {
            let held = self.inner.held.lock();
            if !held.machine.exists(group) {
                return Err(GroupError::GroupNotFound);
            }
            keys.iter().map(|key| held.machine.may_delete_offset(group, &key.topic)).collect()
        };
        let allowed: Vec<_> = keys.iter().zip(&checks).filter(|(_, c)| c.is_ok()).map(|(k, _)| k.clone()).collect();
        self.remove_offsets(group, allowed).await?;
        Ok(checks)
    }

    async fn remove_offsets(&self, group: &str, keys: Vec<OffsetKey>) -> Result<(), GroupError> {
        if keys.is_empty() {
            return Ok(());
        }
        let entries = keys.iter().map(|key| (record::offset_key(group, key), None)).collect();
        if let Err(error) = self.inner.storage.group_write(entries).await {
            warn!(group, %error, "offsets not deleted");
            return Err(GroupError::NotPersisted);
        }
        let mut held = self.inner.held.lock();
        for key in &keys {
            held.machine.remove_offset(group, key);
        }
        Ok(())
    }

    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        let offsets = {
            let mut held = self.inner.held.lock();
            let offsets = held.machine.may_delete(group)?;
            held.dirty.remove(group);
            offsets
        };
        let mut entries: Vec<_> = offsets.iter().map(|key| (record::offset_key(group, key), None)).collect();
        entries.push((record::group_key(group), None));
        if let Err(error) = self.inner.storage.group_write(entries).await {
            warn!(group, %error, "group not deleted");
            return Err(GroupError::NotPersisted);
        }
        let mut held = self.inner.held.lock();
        for key in &offsets {
            held.machine.remove_offset(group, key);
        }
        held.machine.delete(group);
        Ok(())
    }

    // --- queries ---

    fn query_offsets(&self) -> Vec<GroupOffset> {
        self.inner.queries.as_ref().map(|q| q.offsets()).unwrap_or_default()
    }

    /// A group that clients made keeps its name, should a query come to have the same.
    fn is_query(&self, group: &str) -> bool {
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
        of_group
            .filter_map(|o| {
                let topic_id = self.inner.storage.find_topic(&o.topic)?.id;
                let committed = Committed {
                    topic_id,
                    offset: o.offset,
                    leader_epoch: -1,
                    metadata: String::new(),
                    committed_at: 0,
                    expires_at: -1,
                };
                Some((OffsetKey { topic: o.topic, partition: o.partition }, committed))
            })
            .collect()
    }

    // --- effects, timers, writes ---

    fn apply(&self, held: &mut Held, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Joined(ticket, result) => {
                    if let Some(Parked::Join(sender)) = held.parked.remove(&ticket) {
                        let _gone = sender.send(result);
                    }
                }
                Effect::Synced(ticket, result) => {
                    if let Some(Parked::Sync(sender)) = held.parked.remove(&ticket) {
                        let _gone = sender.send(result);
                    }
                }
                Effect::Persist(record) => {
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
        let mut offsets_check = Instant::now() + OFFSETS_CHECK;
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
            let until = offsets_check.min(Instant::now() + Duration::from_millis(wait.min(86_400_000)));
            tokio::select! {
                () = self.inner.timer.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            if Instant::now() >= offsets_check {
                self.expire_offsets().await;
                offsets_check = Instant::now() + OFFSETS_CHECK;
            }
        }
    }

    async fn expire_offsets(&self) {
        let (offsets, groups) = self.inner.held.lock().machine.expired(self.now());
        let mut by_group: HashMap<String, Vec<OffsetKey>> = HashMap::new();
        for (group, key) in offsets {
            by_group.entry(group).or_default().push(key);
        }
        for (group, keys) in by_group {
            debug!(group, offsets = keys.len(), "offsets expired");
            // Logged where it failed; the next check tries again.
            let _failed = self.remove_offsets(&group, keys).await;
        }
        for group in groups {
            let _failed = self.delete(&group).await;
        }
    }

    async fn run_writes(&self) {
        loop {
            self.inner.writer.notified().await;
            while !self.write_dirty().await {
                tokio::time::sleep(WRITE_RETRY).await;
            }
        }
    }

    /// Writes all groups that changed. False: it failed, and those that still want it are to be written again.
    async fn write_dirty(&self) -> bool {
        let records: Vec<GroupRecord> = self.inner.held.lock().dirty.drain().map(|(_, record)| record).collect();
        if records.is_empty() {
            return true;
        }
        let entries = records.iter().map(|r| (record::group_key(&r.group), Some(r.encode()))).collect();
        let written = self.inner.storage.group_write(entries).await;
        if let Err(error) = &written {
            warn!(groups = records.len(), %error, "groups not written");
        }
        let now = self.now();
        let mut held = self.inner.held.lock();
        for record in records {
            let fx = held.machine.persisted(&record.group, record.generation, written.is_ok(), now);
            self.apply(&mut held, fx);
            if written.is_err() && record.members.is_empty() {
                held.dirty.entry(record.group.clone()).or_insert(record);
            }
        }
        written.is_ok()
    }
}

impl Held {
    fn park(&mut self, parked: Parked) -> Ticket {
        self.next_ticket += 1;
        self.parked.insert(self.next_ticket, parked);
        self.next_ticket
    }
}

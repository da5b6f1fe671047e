//! The async edge of transactions: writes changes, one after the other for each transactional id, and runs timers.
//!
//! A change that was begun is brought to its end even where the connection that asked for it is gone, so that memory
//! and storage say the same. Lock order: ids' turns by their numbers, then `machine`, the latter never across an await.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use millpond_types::{Clock, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Notify, watch};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::machine::{Change, End, Init, InitRequest, Machine, Transaction};
use super::{TransactionError, TransactionSettings, record};
use crate::groups::{self, Committed, GroupError, OffsetKey};
use crate::storage::{Storage, StorageError};

/// Ids share so many turns.
const TURNS: usize = 256;
/// How long what is due waits after it could not be written.
const WRITE_RETRY: Duration = Duration::from_millis(500);
/// The timers look at least so often.
const TIMERS_MAX: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, TransactionError>;
type GroupResult<T> = std::result::Result<T, GroupError>;

#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Mutex<Machine>,
    turns: Vec<Arc<Turn<()>>>,
    hasher: RandomState,
    storage: Storage,
    groups: groups::Coordinator,
    clock: Arc<dyn Clock>,
    /// Wall clock at `started`; the coordinator's time goes on from there with the monotonic clock.
    started_ms: i64,
    started: Instant,
    timer: Notify,
}

impl Coordinator {
    /// Reads what storage has of transactional ids; transactions that were under way go on. Blocks on disk.
    pub fn load(
        storage: Storage,
        groups: groups::Coordinator,
        settings: TransactionSettings,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, StorageError> {
        let mut machine = Machine::new(settings);
        let started_ms = clock.now_ms();
        for (key, value) in storage.group_scan(record::PREFIX)? {
            let (id, mut transaction) = record::id_of_key(&key)
                .zip(Transaction::decode(&value))
                .ok_or_else(|| StorageError::Corrupt("a transactional id cannot be read".into()))?;
            // The clock may have been set back since, and then it would be open until it is there again.
            transaction.since = transaction.stamp.min(started_ms);
            transaction.holds().iter().for_each(|group| groups.hold(group));
            machine.apply(&id, Some(transaction));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                machine: Mutex::new(machine),
                turns: (0..TURNS).map(|_| Arc::default()).collect(),
                hasher: RandomState::new(),
                storage,
                groups,
                clock,
                started_ms,
                started: Instant::now(),
                timer: Notify::new(),
            }),
        })
    }

    /// Runs timers until `shutdown` says so; then waits for the changes that have begun.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = self.run_timers() => {}
            () = self.run_offsets_check() => {}
            _over = shutdown.wait_for(|over| *over) => {}
        }
        for turn in &self.inner.turns {
            drop(turn.lock().await);
        }
    }

    /// Whether no change is under way.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.inner.turns.iter().all(|turn| turn.try_lock().is_ok())
    }

    fn now(&self) -> i64 {
        self.inner.started_ms + self.inner.started.elapsed().as_millis() as i64
    }

    /// What the times of transactions are held against.
    pub fn time(&self) -> i64 {
        self.now()
    }

    /// How far the wall clock is ahead of that: somebody may have set it since.
    fn ahead_ms(&self) -> i64 {
        self.wall().saturating_sub(self.now())
    }

    fn wall(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    /// Looks at all of the machine.
    pub fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.inner.machine.lock())
    }

    /// Producer id and epoch for a producer that begins.
    pub async fn init(&self, request: InitRequest) -> Result<(i64, i16)> {
        let (id, this) = (request.id.clone(), self.clone());
        self.in_turn(&id, async move {
            let begun = this.look(|machine| machine.init(&request, None, this.now()))?;
            let ready = match begun {
                Init::NeedsProducerId => {
                    let fresh = this.producer_id().await?;
                    this.look(|machine| machine.init(&request, Some(fresh), this.now()))?
                }
                ready => ready,
            };
            let Init::Ready { producer_id, epoch, change } = ready else { return Err(TransactionError::NotPersisted) };
            this.write(change.map(|change| *change)).await?;
            Ok((producer_id, epoch))
        })
        .await
    }

    /// `by_produce`: they join by what is produced to them.
    pub async fn add_partitions(
        &self,
        id: &str,
        producer: (i64, i16),
        partitions: Vec<TopicPartition>,
        by_produce: bool,
    ) -> Result<()> {
        self.change(id, move |id, machine, now| machine.add_partitions(id, producer, &partitions, by_produce, now))
            .await
    }

    pub async fn add_group(&self, id: &str, producer: (i64, i16), group: String) -> Result<()> {
        self.change(id, move |id, machine, now| machine.add_group(id, producer, &group, now)).await
    }

    pub async fn add_offsets(
        &self,
        id: &str,
        producer: (i64, i16),
        group: String,
        joins: bool,
        offsets: Vec<(OffsetKey, Committed)>,
    ) -> Result<()> {
        self.change(id, move |id, machine, now| machine.add_offsets(id, producer, &group, joins, offsets, now)).await
    }

    /// Done when the markers are visible and the offsets count.
    pub async fn end(&self, id: &str, producer: (i64, i16), commit: bool) -> Result<()> {
        self.change(id, move |id, machine, now| machine.end(id, producer, commit, now)).await
    }

    /// As [`Coordinator::end`]; says who the producer is in its next transaction.
    pub async fn end_and_raise(&self, id: &str, producer: (i64, i16), commit: bool) -> Result<(i64, i16)> {
        let (name, this) = (id.to_owned(), self.clone());
        self.in_turn(id, async move {
            let mut ready = this.look(|machine| machine.end_and_raise(&name, producer, commit, None, this.now()))?;
            if ready == End::NeedsProducerId {
                let fresh = this.producer_id().await?;
                ready = this.look(|machine| machine.end_and_raise(&name, producer, commit, Some(fresh), this.now()))?;
            }
            let End::Ready { producer, change } = ready else { return Err(TransactionError::NotPersisted) };
            this.write(change.map(|change| *change)).await?;
            Ok(producer)
        })
        .await
    }

    /// Deletes a group with all its offsets, also those that open transactions hold, so that no commit brings it back.
    pub async fn delete_group(&self, group: &str) -> GroupResult<()> {
        let (name, this) = (group.to_owned(), self.clone());
        self.with_holders(group, async move |holders| {
            let mut forgotten = this.forget(&holders, &name, None);
            this.inner.groups.delete_with(&name, this.entries_of(&mut forgotten)).await?;
            this.forgotten(forgotten);
            // By another transaction meanwhile.
            if this.look(|machine| machine.pending_of(&name).next().is_some()) {
                this.inner.groups.hold(&name);
            }
            Ok(())
        })
        .await
    }

    /// Deletes offsets of a group, also those that open transactions hold. One answer per key; fails as a whole where the
    /// group cannot be changed.
    pub async fn delete_offsets(&self, group: &str, keys: Vec<OffsetKey>) -> GroupResult<Vec<GroupResult<()>>> {
        let (name, this) = (group.to_owned(), self.clone());
        self.with_holders(group, async move |holders| {
            let groups = &this.inner.groups;
            let checks = groups.may_delete_offsets(&name, &keys)?;
            let allowed = keys.into_iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(key, _)| key);
            let allowed: Vec<OffsetKey> = allowed.collect();
            let mut forgotten = this.forget(&holders, &name, Some(&allowed.iter().collect()));
            groups.remove_offsets(&name, allowed, this.entries_of(&mut forgotten)).await?;
            this.forgotten(forgotten);
            Ok(checks)
        })
        .await
    }

    /// Does the work while those transactions do not change that hold offsets of the group when it is asked for. What
    /// others add meanwhile comes after it.
    async fn with_holders<T: Send + 'static, F>(
        &self,
        group: &str,
        work: impl FnOnce(Vec<String>) -> F,
    ) -> GroupResult<T>
    where
        F: Future<Output = GroupResult<T>> + Send + 'static,
    {
        let holders = self.look(|machine| machine.holders(group));
        let turns: BTreeSet<usize> = holders.iter().map(|id| self.turn_of(id)).collect();
        let work = work(holders);
        self.in_turns(turns, async move { Ok(work.await) }).await.unwrap_or(Err(GroupError::NotPersisted))
    }

    fn forget(&self, holders: &[String], group: &str, keys: Option<&HashSet<&OffsetKey>>) -> Vec<Change> {
        self.look(|machine| holders.iter().filter_map(|id| machine.forget_offsets(id, group, keys)).collect())
    }

    /// What is written for them beside what made them.
    fn entries_of(&self, changes: &mut [Change]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        changes.iter_mut().map(|change| change.stamped(self.ahead_ms())).collect()
    }

    fn forgotten(&self, changes: Vec<Change>) {
        let mut machine = self.inner.machine.lock();
        for Change { id, after, .. } in changes {
            machine.apply(&id, after);
        }
    }

    async fn change(
        &self,
        id: &str,
        decide: impl FnOnce(&str, &Machine, i64) -> Result<Option<Change>> + Send + 'static,
    ) -> Result<()> {
        let (name, this) = (id.to_owned(), self.clone());
        self.in_turn(id, async move {
            let change = this.look(|machine| decide(&name, machine, this.now()))?;
            this.write(change).await
        })
        .await
    }

    /// Does the work when no other change of the id is under way, and to its end.
    async fn in_turn<T: Send + 'static>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.in_turns([self.turn_of(id)], work).await
    }

    fn turn_of(&self, id: &str) -> usize {
        // By a secret of this process, so that nobody can choose whom to queue up in front of.
        self.inner.hasher.hash_one(id) as usize % TURNS
    }

    /// The same for several turns, which are taken in the order given: everybody's is that of the numbers.
    #[allow(clippy::disallowed_methods, reason = "holds its turns, which `run` waits for when the server shuts down")]
    async fn in_turns<T: Send + 'static>(
        &self,
        turns: impl IntoIterator<Item = usize>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let mut held = Vec::new();
        for turn in turns.into_iter().filter_map(|at| self.inner.turns.get(at)) {
            held.push(Arc::clone(turn).lock_owned().await);
        }
        let task = tokio::spawn(async move {
            let _held = held;
            work.await
        });
        task.await.unwrap_or_else(|defect| {
            error!(%defect, "a change of a transaction ended by a defect");
            Err(TransactionError::NotPersisted)
        })
    }

    async fn producer_id(&self) -> Result<i64> {
        let allocated = self.inner.storage.allocate_producer_id().await;
        self.inner.groups.tell(allocated).map_err(|_told| TransactionError::NotPersisted)
    }

    /// Writes a change, then makes it true.
    async fn write(&self, change: Option<Change>) -> Result<()> {
        let Some(mut change) = change else { return Ok(()) };
        let entry = change.stamped(self.ahead_ms());
        let Change { id, after, mut write, offsets } = change;
        write.entries.push(entry);
        // The groups' offsets are true before it is: who sees that one is no longer held back then sees the new one.
        self.inner.groups.write_transaction(write, offsets).await.map_err(|e| match e {
            StorageError::UnknownTopicOrPartition(_) | StorageError::UnknownTopicId(_) => {
                TransactionError::UnknownPartition
            }
            // Told already, once for as long as nothing can be written.
            StorageError::Unavailable(_) | StorageError::Closed => TransactionError::NotPersisted,
            other => {
                warn!(id, error = %other, "transaction not written");
                TransactionError::NotPersisted
            }
        })?;
        after.iter().flat_map(Transaction::holds).for_each(|group| self.inner.groups.hold(group));
        let earlier = {
            let mut machine = self.inner.machine.lock();
            let before = machine.deadline();
            machine.apply(&id, after);
            machine.deadline().is_some_and(|at| before.is_none_or(|before| at < before))
        };
        if earlier {
            self.inner.timer.notify_one();
        }
        Ok(())
    }

    /// Offsets of groups expire, but for those that open transactions may yet change.
    async fn run_offsets_check(&self) {
        let every = self.inner.groups.settings().offsets_check;
        loop {
            tokio::time::sleep(every).await;
            let pending = self.look(Machine::pending);
            self.inner.groups.expire_offsets(&pending).await;
        }
    }

    async fn run_timers(&self) {
        loop {
            let due = self.look(|machine| machine.due(self.now(), self.wall()));
            let mut failed = false;
            for id in due {
                let (name, this) = (id.clone(), self.clone());
                let expired = self.in_turn(&id, async move {
                    let change = this.look(|machine| machine.expire(&name, this.now(), this.wall()));
                    if let Some(after) = change.as_ref().and_then(|c| c.after.as_ref()) {
                        debug!(id = name, producer = after.producer_id, epoch = after.epoch, "transaction timed out");
                    }
                    this.write(change).await
                });
                failed |= expired.await.is_err();
            }
            let next = self.look(|machine| machine.next_look(self.now())).unwrap_or(i64::MAX);
            let wait = Duration::from_millis(u64::try_from(next.saturating_sub(self.now())).unwrap_or(0));
            let wait = if failed { WRITE_RETRY } else { wait.min(TIMERS_MAX) };
            tokio::select! {
                () = self.inner.timer.notified(), if !failed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

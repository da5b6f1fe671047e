//! What groups write, and what of it is true in memory when.
//!
//! A change is decided and queued under one hold of the lock. Storage writes in the order of queueing, and in that order
//! memory follows (`order`), also where whoever asked for it is gone. So memory is what storage says but for what is on its
//! way, whatever comes at the same time; a write that fails leaves both as they were. What members do is true in memory
//! first and is written until it is there.
//!
//! Not here: which changes are allowed (`machine`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::coordinator::{Coordinator, Entry, Held, WRITE_WAIT};
use super::offsets::{Committed, OffsetKey};
use super::record::{self, GroupRecord};
use super::{GroupError, consumer};
use crate::configs::{GroupConfigs, encode_group_configs};
use crate::storage::{Pending, ProtocolWrite, Room, Storage, StorageError, TransactionWrite};

/// How long a write that failed waits before it is tried again.
const WRITE_RETRY: Duration = Duration::from_millis(500);

/// Where changes are queued.
pub(super) trait Writer: Send + Sync {
    fn queue(&self, room: Room, write: ProtocolWrite) -> Result<Pending<i64>, StorageError>;
}

impl Writer for Storage {
    fn queue(&self, room: Room, write: ProtocolWrite) -> Result<Pending<i64>, StorageError> {
        Storage::queue(self, room, write)
    }
}

/// What a write changes in memory.
#[derive(Debug)]
pub(super) enum Change {
    /// Offsets, committed or deleted.
    Offsets(Vec<(String, OffsetKey, Option<Committed>)>),
    /// A group is deleted with these offsets of it.
    Delete {
        group: String,
        offsets: Vec<OffsetKey>,
    },
    /// What became of groups with so many changes; memory has it already.
    Groups {
        records: Vec<GroupRecord>,
        entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
        changes: u64,
    },
    Configs(String, GroupConfigs),
}

impl Change {
    /// Offsets of a group that it will have changed.
    fn offsets_of<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a OffsetKey> {
        let (changed, deleted) = match self {
            Self::Offsets(offsets) => (offsets.as_slice(), [].as_slice()),
            Self::Delete { group: of, offsets } if of == group => ([].as_slice(), offsets.as_slice()),
            Self::Delete { .. } | Self::Groups { .. } | Self::Configs(..) => ([].as_slice(), [].as_slice()),
        };
        changed.iter().filter(move |(of, ..)| of == group).map(|(_, key, _)| key).chain(deleted)
    }

    fn has_group(&self, group: &str) -> bool {
        match self {
            Self::Groups { records, entries, .. } => {
                records.iter().any(|record| record.group == group) || has_entries(entries, group)
            }
            Self::Offsets(_) | Self::Delete { .. } | Self::Configs(..) => false,
        }
    }
}

/// Of groups: records, other entries of the database, and how many changes they are of.
type GroupWrites = (Vec<GroupRecord>, BTreeMap<Vec<u8>, Option<Vec<u8>>>, u64);

/// Whether there are entries of a group or of its members among them.
fn has_entries(entries: &BTreeMap<Vec<u8>, Option<Vec<u8>>>, group: &str) -> bool {
    let members = consumer::record::member_key(group, "");
    entries.contains_key(&record::group_key(group))
        || entries.contains_key(&consumer::record::group_key(group))
        || entries.range(members.clone()..).next().is_some_and(|(key, _)| key.starts_with(&members))
}

/// A change on its way, and who is to hear when it is true.
#[derive(Debug)]
pub(super) struct Queued {
    change: Change,
    done: oneshot::Sender<()>,
}

/// Why something was not written.
enum Refused {
    Group(GroupError),
    Storage(StorageError),
    /// What became of the group is to be written before.
    Unwritten,
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        Self::Group(error)
    }
}

/// Whether nothing can be written now, which is told once ([`Coordinator::tell`]), or any more, at the end.
fn passes(error: &StorageError) -> bool {
    matches!(error, StorageError::Unavailable(_) | StorageError::Closed)
}

impl Refused {
    fn told(self, group: &str, what: &'static str) -> GroupError {
        match self {
            Self::Group(error) => error,
            Self::Storage(error) => {
                if !passes(&error) {
                    warn!(group, %error, "{what}");
                }
                GroupError::NotPersisted
            }
            Self::Unwritten => GroupError::NotPersisted,
        }
    }
}

impl Held {
    /// Offsets of a group that are about to change.
    fn queued_offsets(&self, group: &str) -> BTreeSet<OffsetKey> {
        self.order.open().flat_map(|queued| queued.change.offsets_of(group)).cloned().collect()
    }

    /// When the offsets that are about to change were committed.
    fn queued_commits(&self) -> HashMap<(&str, &OffsetKey), i64> {
        let offsets = self.order.open().filter_map(|queued| match &queued.change {
            Change::Offsets(offsets) => Some(offsets),
            Change::Delete { .. } | Change::Groups { .. } | Change::Configs(..) => None,
        });
        let commits = offsets.flatten().filter_map(|(group, key, committed)| {
            committed.as_ref().map(|committed| ((group.as_str(), key), committed.committed_at))
        });
        commits.collect()
    }

    /// Whether what an entry is now is yet to be written, or was queued later than a write.
    fn is_written_anew(&self, key: &[u8], number: u64) -> bool {
        let record = record::group_of_key(key);
        let later = self.order.after(number).any(|queued| match &queued.change {
            Change::Groups { records, entries, .. } => {
                entries.contains_key(key) || records.iter().any(|of| Some(&of.group) == record.as_ref())
            }
            Change::Delete { group, .. } => Some(group) == record.as_ref(),
            Change::Offsets(_) | Change::Configs(..) => false,
        });
        later || self.entries.contains_key(key) || record.is_some_and(|group| self.dirty.contains_key(&group))
    }

    /// Whether storage does not have what became of a group yet, its offsets apart.
    fn is_unwritten(&self, group: &str) -> bool {
        self.dirty.contains_key(group)
            || has_entries(&self.entries, group)
            || self.order.open().any(|queued| queued.change.has_group(group))
    }
}

fn tombstones(group: &str, keys: &[OffsetKey]) -> Vec<Entry> {
    keys.iter().map(|key| (record::offset_key(group, key), None)).collect()
}

fn size_of(entries: &[Entry]) -> usize {
    entries.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

impl Coordinator {
    /// Says when writes begin to fail, and when they go well again, however many do.
    pub(crate) fn tell<T>(&self, written: Result<T, StorageError>) -> Result<T, StorageError> {
        match &written {
            Ok(_) if self.inner.failing.swap(false, Relaxed) => info!("groups and transactions are written again"),
            Err(error @ StorageError::Unavailable(_)) if !self.inner.failing.swap(true, Relaxed) => {
                warn!(%error, "groups and transactions cannot be written; whoever joins or commits tries again until they can");
            }
            _ => {}
        }
        written
    }

    /// Decides, queues, and makes true when it is written. Brought to its end also where nobody waits for it.
    async fn write(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut Held) -> Result<Option<(ProtocolWrite, Change)>, Refused>,
    ) -> Result<(), Refused> {
        let room = self.inner.storage.room(bytes).await;
        // That there is room says nothing of the disk.
        let room = room.or_else(|error| self.tell(Err(error))).map_err(Refused::Storage)?;
        let (pending, number, done) = {
            let mut held = self.inner.held.lock();
            let Some((write, change)) = decide(&mut held)? else { return Ok(()) };
            let pending = match self.inner.queue.queue(room, write) {
                Ok(pending) => pending,
                Err(error) => {
                    self.take(&mut held, u64::MAX, change, false);
                    return self.tell(Err(error)).map_err(Refused::Storage);
                }
            };
            let group = if let Change::Delete { group, .. } = &change { Some(group.clone()) } else { None };
            let (sender, done) = oneshot::channel();
            let number = held.order.push(Queued { change, done: sender });
            if let Some(group) = group {
                held.deleting.insert((group, number));
            }
            (pending, number, done)
        };
        self.tell(self.settled(pending, number, done).await).map_err(Refused::Storage)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "ends with its write, of which there are as many as the queue has room for"
    )]
    async fn settled(
        &self,
        pending: Pending<i64>,
        number: u64,
        done: oneshot::Receiver<()>,
    ) -> Result<(), StorageError> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let written = pending.await;
            this.settle(number, written.is_ok());
            if written.is_ok() {
                let _is_true = done.await;
            }
            written.map(drop)
        });
        task.await.unwrap_or_else(|defect| {
            error!(%defect, "a write of groups ended by a defect");
            Err(StorageError::Closed)
        })
    }

    fn settle(&self, number: u64, written: bool) {
        let mut held = self.inner.held.lock();
        if let Some(Queued { change, .. }) = held.order.settle(number, written) {
            self.take(&mut held, number, change, false);
        }
        while let Some((number, Queued { change, done })) = held.order.next() {
            self.take(&mut held, number, change, true);
            let _gone = done.send(());
        }
    }

    /// Makes a change true that was written, or lets go of one that was not.
    fn take(&self, held: &mut Held, number: u64, change: Change, written: bool) {
        let now = self.now();
        match change {
            Change::Offsets(offsets) if written => {
                for (group, key, committed) in offsets {
                    match committed {
                        Some(committed) => held.machine.set_offset(&group, key, committed, now),
                        None => held.machine.remove_offset(&group, &key),
                    }
                }
            }
            Change::Delete { group, offsets } => {
                // Not of one that somebody has joined since: what became of it is written after this.
                let alone = held.deleting.remove(&(group.clone(), number));
                if written {
                    offsets.iter().for_each(|key| held.machine.remove_offset(&group, key));
                }
                if written && alone {
                    held.machine.delete(&group);
                }
            }
            Change::Groups { records, entries, changes } => {
                self.take_groups(held, number, (records, entries, changes), written);
            }
            Change::Configs(group, configs) if written => held.machine.set_configs(&group, configs),
            Change::Offsets(_) | Change::Configs(..) => {}
        }
    }

    fn take_groups(&self, held: &mut Held, number: u64, (records, entries, changes): GroupWrites, written: bool) {
        let now = self.now();
        for record in records {
            let fx = held.machine.persisted(&record, written, now);
            self.apply(held, fx);
            // A generation that begins is not begun then, and the next one is written.
            let is_wanted = record.members.is_empty() || held.machine.is_stable(&record.group);
            if !written && is_wanted && !held.is_written_anew(&record::group_key(&record.group), number) {
                held.dirty.insert(record.group.clone(), record);
            }
        }
        if written {
            return self.wrote(held, changes);
        }
        for (key, value) in entries {
            if !held.is_written_anew(&key, number) {
                held.entries.insert(key, value);
            }
        }
    }

    /// So many changes of groups are written.
    fn wrote(&self, held: &mut Held, changes: u64) {
        // Whoever waits looks again, also where it is no news.
        self.inner.written.send_modify(|written| *written = changes.max(*written));
        held.written(changes);
    }

    /// Offsets of one group that were allowed, all or none.
    pub(super) async fn write_offsets(
        &self,
        group: &str,
        offsets: Vec<(OffsetKey, Committed)>,
        may: impl FnOnce(&mut Held, &[(OffsetKey, Committed)]) -> Result<(), GroupError>,
    ) -> Result<(), GroupError> {
        let entries: Vec<Entry> =
            offsets.iter().map(|(key, c)| (record::offset_key(group, key), Some(c.encode()))).collect();
        let written = self.write(size_of(&entries), |held| {
            may(held, &offsets)?;
            if offsets.is_empty() {
                return Ok(None);
            }
            let of_group = |(key, committed)| (group.to_owned(), key, Some(committed));
            Ok(Some((ProtocolWrite::Entries(entries), Change::Offsets(offsets.into_iter().map(of_group).collect()))))
        });
        written.await.map_err(|refused| refused.told(group, "offsets not written"))
    }

    /// What a transaction writes when it ends, with the offsets that count from then on; but for those after which another
    /// was committed without a transaction, as the last commit counts and not the end of its transaction.
    pub(crate) async fn write_transaction(
        &self,
        mut write: TransactionWrite,
        offsets: Vec<(String, OffsetKey, Committed)>,
    ) -> Result<(), StorageError> {
        if offsets.is_empty() {
            return self.tell(self.inner.storage.transaction_write(write).await);
        }
        let entry =
            |(group, key, c): &(String, OffsetKey, Committed)| (record::offset_key(group, key), Some(c.encode()));
        let entries: Vec<Entry> = offsets.iter().map(entry).collect();
        let bytes = size_of(&write.entries) + size_of(&entries);
        let written = self.write(bytes, |held| {
            let queued = held.queued_commits();
            let is_last = |(group, key, committed): &(String, OffsetKey, Committed)| {
                let true_now = held.machine.offset(group, key).map(|c| c.committed_at);
                let queued = queued.get(&(group.as_str(), key)).copied();
                true_now.max(queued).is_none_or(|at| at <= committed.committed_at)
            };
            let mut counted = Vec::with_capacity(offsets.len());
            for (offset, entry) in offsets.into_iter().zip(entries).filter(|(offset, _)| is_last(offset)) {
                let (group, key, committed) = offset;
                counted.push((group, key, Some(committed)));
                write.entries.push(entry);
            }
            drop(queued);
            Ok(Some((ProtocolWrite::Transaction(Box::new(write)), Change::Offsets(counted))))
        });
        written.await.map_err(|refused| match refused {
            Refused::Storage(error) => error,
            Refused::Group(_) | Refused::Unwritten => StorageError::Closed,
        })
    }

    /// `also` is written with it.
    pub(crate) async fn remove_offsets(
        &self,
        group: &str,
        keys: Vec<OffsetKey>,
        also: Vec<Entry>,
    ) -> Result<(), GroupError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut entries = tombstones(group, &keys);
        entries.extend(also);
        let written = self.write(size_of(&entries), |_| {
            let removed = keys.into_iter().map(|key| (group.to_owned(), key, None)).collect();
            Ok(Some((ProtocolWrite::Entries(entries), Change::Offsets(removed))))
        });
        written.await.map_err(|refused| refused.told(group, "offsets not deleted"))?;
        self.keep(&mut self.inner.held.lock(), group);
        Ok(())
    }

    /// Deletes a group without members and its offsets. `also` is written with it: what open transactions are without
    /// the offsets that they held of it.
    pub(crate) async fn delete_with(&self, group: &str, also: Vec<Entry>) -> Result<(), GroupError> {
        if self.is_query(group) {
            return Err(GroupError::QueryGroup);
        }
        self.delete_if(group, also, |_| true).await
    }

    /// The same where that still holds when it is queued.
    async fn delete_if(&self, group: &str, also: Vec<Entry>, still: impl Fn(&Held) -> bool) -> Result<(), GroupError> {
        let until = Instant::now() + WRITE_WAIT;
        loop {
            let mut written_since = self.inner.written.subscribe();
            let bytes = {
                let held = self.inner.held.lock();
                let offsets = held.machine.offsets(group);
                let bytes: usize = offsets.map(|(key, _)| record::offset_key(group, key).len()).sum();
                bytes + size_of(&also) + 3 * group.len()
            };
            let written = self.write(bytes, |held| {
                let mut keys: BTreeSet<OffsetKey> = held.machine.may_delete(group)?.into_iter().collect();
                if !still(held) {
                    return Ok(None);
                }
                if held.is_unwritten(group) {
                    return Err(Refused::Unwritten);
                }
                keys.extend(held.queued_offsets(group));
                let offsets: Vec<OffsetKey> = keys.into_iter().collect();
                let mut entries = tombstones(group, &offsets);
                entries.extend([(record::group_key(group), None), (consumer::record::group_key(group), None)]);
                entries.extend(also.iter().cloned());
                Ok(Some((ProtocolWrite::Entries(entries), Change::Delete { group: group.to_owned(), offsets })))
            });
            match written.await {
                Err(Refused::Unwritten) => {
                    if !matches!(tokio::time::timeout_at(until, written_since.changed()).await, Ok(Ok(()))) {
                        return Err(GroupError::NotPersisted);
                    }
                }
                other => return other.map_err(|refused| refused.told(group, "group not deleted")),
            }
        }
    }

    /// Sets a group's settings in place of those it had; durable when it returns.
    pub async fn set_configs(&self, group: &str, configs: GroupConfigs) -> Result<(), StorageError> {
        let _one_by_one = self.inner.configuring.lock().await;
        let value = (!configs.is_empty()).then(|| encode_group_configs(&configs));
        let entries = vec![(record::configs_key(group), value)];
        let mut refusal = None;
        let written = self.write(size_of(&entries), |held| {
            if let Err(why) = held.machine.may_configure(group, &configs) {
                refusal = Some(why);
                return Ok(None);
            }
            Ok(Some((ProtocolWrite::Entries(entries), Change::Configs(group.to_owned(), configs))))
        });
        let written = written.await;
        match (refusal, written) {
            (Some(why), _) => Err(StorageError::InvalidRequest(why)),
            (None, Ok(())) => Ok(()),
            (None, Err(Refused::Storage(error))) => Err(error),
            (None, Err(Refused::Group(_) | Refused::Unwritten)) => Err(StorageError::Closed),
        }
    }

    /// Deletes offsets that have outlived their retention, and groups with nothing left. `pending`: offsets that open
    /// transactions may yet change, which stay.
    pub(crate) async fn expire_offsets(&self, pending: &BTreeSet<(String, OffsetKey)>) {
        // What has expired has by both clocks: a clock that is set forward takes nothing at once.
        let now = self.now().min(self.time());
        let is_pending = |group: &str, key: &OffsetKey| pending.contains(&(group.to_owned(), key.clone()));
        let groups: BTreeSet<&String> = pending.iter().map(|(group, _)| group).collect();
        let (offsets, over) = self.inner.held.lock().machine.expired(now);
        for group in offsets {
            let written = self.write(0, |held| {
                let queued = held.queued_offsets(&group);
                let mut keys = held.machine.expired_offsets(&group, now);
                keys.retain(|key| !queued.contains(key) && !is_pending(&group, key));
                if keys.is_empty() {
                    return Ok(None);
                }
                debug!(group, offsets = keys.len(), "offsets expired");
                let entries = tombstones(&group, &keys);
                let removed = keys.into_iter().map(|key| (group.clone(), key, None)).collect();
                Ok(Some((ProtocolWrite::Entries(entries), Change::Offsets(removed))))
            });
            // Logged where it failed; the next check tries again.
            let _failed = written.await.map_err(|refused| refused.told(&group, "offsets not deleted"));
        }
        for group in over.into_iter().filter(|group| !groups.contains(group)) {
            let still = |held: &Held| held.machine.is_over(&group, now) && held.queued_offsets(&group).is_empty();
            let _failed = self.delete_if(&group, Vec::new(), still).await;
        }
    }

    pub(super) async fn run_writes(&self) {
        loop {
            self.inner.writer.notified().await;
            while !self.write_dirty().await {
                tokio::time::sleep(WRITE_RETRY).await;
            }
        }
    }

    /// Writes what became of groups. False: it failed, and what is still wanted is to be written again.
    pub(super) async fn write_dirty(&self) -> bool {
        let bytes = {
            let held = self.inner.held.lock();
            let records: usize = held.dirty.values().map(GroupRecord::bytes).sum();
            let entries = held.entries.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
            records + entries.sum::<usize>()
        };
        let mut count = (0, 0);
        let written = self.write(bytes, |held| {
            let records: Vec<GroupRecord> = held.dirty.drain().map(|(_, record)| record).collect();
            let (others, changes) = (std::mem::take(&mut held.entries), held.changes);
            count = (records.len(), others.len());
            if records.is_empty() && others.is_empty() {
                if !held.order.open().any(|queued| matches!(queued.change, Change::Groups { .. })) {
                    self.wrote(held, changes);
                }
                return Ok(None);
            }
            let mut entries: Vec<Entry> =
                records.iter().map(|r| (record::group_key(&r.group), Some(r.encode()))).collect();
            entries.extend(others.iter().map(|(key, value)| (key.clone(), value.clone())));
            Ok(Some((ProtocolWrite::Entries(entries), Change::Groups { records, entries: others, changes })))
        });
        match written.await {
            Ok(()) => true,
            Err(refused) => {
                if let Refused::Storage(error) = refused
                    && !passes(&error)
                {
                    warn!(groups = count.0, entries = count.1, %error, "groups not written");
                }
                false
            }
        }
    }
}

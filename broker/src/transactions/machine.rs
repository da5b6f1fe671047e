//! All transactional ids as one state machine: requests and the time in, changes out. A change counts when it was
//! written and given back to [`Machine::apply`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use millpond_types::TopicPartition;

use super::{TransactionError, TransactionSettings, record};
use crate::groups::{Committed, OffsetKey};
use crate::storage::{Ending, TransactionWrite};

/// The last epoch that a producer gets; one more is left to fence it.
const EPOCH_MAX: i16 = i16::MAX - 1;
/// What a transactional id takes in memory beside what its transaction touches, about.
const ENTRY_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Empty,
    Ongoing,
    Committed,
    Aborted,
}

/// A transactional id and its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub producer_id: i64,
    pub epoch: i16,
    /// The epoch that the producer had before it was given this one, so that it may repeat its request; -1: none.
    pub last_epoch: i16,
    /// The producer id that ran out of epochs when this one was given, so that its last request may be repeated; -1: none.
    pub last_producer_id: i64,
    pub timeout_ms: i32,
    pub state: State,
    /// When it came into this state.
    pub since: i64,
    /// When that was by the wall clock, as it went when this was written: another start holds it against its own.
    pub stamp: i64,
    pub partitions: BTreeSet<TopicPartition>,
    /// Groups whose offsets it may commit.
    pub groups: BTreeSet<String>,
    /// Offsets that count when it is committed.
    pub offsets: BTreeMap<(String, OffsetKey), Committed>,
}

impl Transaction {
    fn new(producer_id: i64, timeout_ms: i32, now: i64) -> Self {
        Self {
            producer_id,
            epoch: 0,
            last_epoch: -1,
            last_producer_id: -1,
            timeout_ms,
            state: State::Empty,
            since: now,
            stamp: now,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            offsets: BTreeMap::new(),
        }
    }

    /// The same id, about to take part in something more.
    fn begun(&self, now: i64) -> Self {
        let mut next = self.clone();
        if next.state != State::Ongoing {
            next.state = State::Ongoing;
            next.since = now;
        }
        next
    }

    /// The same id with nothing under way.
    fn over(&self, state: State, now: i64) -> Self {
        Self {
            epoch: self.epoch,
            last_epoch: self.last_epoch,
            last_producer_id: self.last_producer_id,
            state,
            since: now,
            ..Self::new(self.producer_id, self.timeout_ms, now)
        }
    }

    /// Whether its producer had this id and epoch right before those that it has now.
    fn had(&self, (producer_id, epoch): (i64, i16)) -> bool {
        let id = producer_id == self.producer_id || producer_id == self.last_producer_id;
        producer_id >= 0 && id && epoch >= 0 && epoch == self.last_epoch
    }

    /// Groups that it has offsets of.
    pub(super) fn holds(&self) -> BTreeSet<&String> {
        self.offsets.keys().map(|(group, _)| group).collect()
    }

    fn deadline(&self, settings: &TransactionSettings) -> i64 {
        match self.state {
            State::Ongoing => self.since.saturating_add(i64::from(self.timeout_ms)),
            State::Empty | State::Committed | State::Aborted => self.since.saturating_add(settings.expiration_ms),
        }
    }

    fn ending(&self, commit: bool) -> Option<Ending> {
        Some(Ending { commit, partitions: self.partitions.iter().copied().collect() })
    }

    fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|g| g.len() + 64).sum();
        let offset = |((group, key), committed): (&(String, OffsetKey), &Committed)| {
            // The key once more, among those that are held back.
            group.len() + 2 * key.topic.len() + committed.metadata.len() + 320
        };
        ENTRY_BYTES + 64 * self.partitions.len() + groups + self.offsets.iter().map(offset).sum::<usize>()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    pub id: String,
    pub timeout_ms: i32,
    /// Producer id and epoch that the producer goes on from.
    pub expected: Option<(i64, i16)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// To be asked again with a producer id that nobody had.
    NeedsProducerId,
    Ready {
        producer_id: i64,
        epoch: i16,
        change: Option<Box<Change>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// To be asked again with a producer id that nobody had.
    NeedsProducerId,
    Ready {
        /// Who the producer is in its next transaction.
        producer: (i64, i16),
        change: Option<Box<Change>>,
    },
}

/// What a transactional id becomes, once `write` was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub id: String,
    /// `None`: it is forgotten.
    pub after: Option<Transaction>,
    /// Without the state, which [`Change::stamped`] gives, and the offsets that count from now on.
    pub write: TransactionWrite,
    pub offsets: Vec<(String, OffsetKey, Committed)>,
}

impl Change {
    fn new(id: &str, after: Option<Transaction>) -> Self {
        let (producer_id, producer_epoch) = after.as_ref().map_or((-1, -1), |t| (t.producer_id, t.epoch));
        let write = TransactionWrite { producer_id, producer_epoch, ..TransactionWrite::default() };
        Self { id: id.to_owned(), after, write, offsets: Vec::new() }
    }

    /// The state as it is to be written, by a wall clock that is so far ahead of the time that the machine is told.
    pub fn stamped(&mut self, ahead_ms: i64) -> (Vec<u8>, Option<Vec<u8>>) {
        if let Some(after) = &mut self.after {
            after.stamp = after.since.saturating_add(ahead_ms);
        }
        (record::key(&self.id), self.after.as_ref().map(Transaction::encode))
    }
}

/// About what a transactional id takes in memory; its name lies in two places.
fn bytes_of(id: &str, transaction: &Transaction) -> usize {
    2 * id.len() + transaction.bytes()
}

fn ended_as(commit: bool) -> State {
    if commit { State::Committed } else { State::Aborted }
}

#[derive(Debug, Default)]
pub struct Machine {
    settings: TransactionSettings,
    ids: HashMap<String, Transaction>,
    /// When transactions time out.
    timers: BTreeSet<(i64, String)>,
    /// When ids without a transaction are forgotten.
    idle: BTreeSet<(i64, String)>,
    /// How many transactions hold an offset back, by group.
    pending: HashMap<String, BTreeMap<OffsetKey, u32>>,
    bytes: usize,
}

impl Machine {
    pub fn new(settings: TransactionSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub fn get(&self, id: &str) -> Option<&Transaction> {
        self.ids.get(id)
    }

    /// All ids, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Transaction)> {
        self.ids.iter()
    }

    /// Takes in what was written, or what storage knows at start.
    pub fn apply(&mut self, id: &str, after: Option<Transaction>) {
        if let Some(before) = self.ids.remove(id) {
            self.bytes -= bytes_of(id, &before);
            let deadline = before.deadline(&self.settings);
            self.timers_of(before.state).remove(&(deadline, id.to_owned()));
            for (group, key) in before.offsets.keys() {
                let Some(keys) = self.pending.get_mut(group) else { continue };
                if let Some(count) = keys.get_mut(key) {
                    *count -= 1;
                    if *count == 0 {
                        keys.remove(key);
                    }
                }
                if keys.is_empty() {
                    self.pending.remove(group);
                }
            }
        }
        let Some(after) = after else { return };
        self.bytes += bytes_of(id, &after);
        let deadline = after.deadline(&self.settings);
        self.timers_of(after.state).insert((deadline, id.to_owned()));
        for (group, key) in after.offsets.keys() {
            *self.pending.entry(group.clone()).or_default().entry(key.clone()).or_default() += 1;
        }
        self.ids.insert(id.to_owned(), after);
    }

    fn timers_of(&mut self, state: State) -> &mut BTreeSet<(i64, String)> {
        if state == State::Ongoing { &mut self.timers } else { &mut self.idle }
    }

    /// Whether an open transaction may yet change a group's offset.
    pub fn is_pending(&self, group: &str, key: &OffsetKey) -> bool {
        self.pending.get(group).is_some_and(|keys| keys.contains_key(key))
    }

    /// Offsets of a group that open transactions may yet change.
    pub fn pending_of(&self, group: &str) -> impl Iterator<Item = &OffsetKey> {
        self.pending.get(group).into_iter().flat_map(BTreeMap::keys)
    }

    /// All offsets that open transactions may yet change, each with its group.
    pub fn pending(&self) -> BTreeSet<(String, OffsetKey)> {
        let of = |(group, keys): (&String, &BTreeMap<OffsetKey, u32>)| {
            keys.keys().map(|key| (group.clone(), key.clone())).collect::<Vec<_>>()
        };
        self.pending.iter().flat_map(of).collect()
    }

    /// Transactional ids whose open transactions hold offsets of a group back.
    pub fn holders(&self, group: &str) -> Vec<String> {
        if !self.pending.contains_key(group) {
            return Vec::new();
        }
        let holds = |t: &Transaction| t.groups.contains(group) && t.offsets.keys().any(|(of, _)| of == group);
        self.ids.iter().filter(|(_, transaction)| holds(transaction)).map(|(id, _)| id.clone()).collect()
    }

    /// The transaction holds a group's offsets no longer that were deleted: those of the keys, or all. It goes on.
    pub fn forget_offsets(&self, id: &str, group: &str, keys: Option<&HashSet<&OffsetKey>>) -> Option<Change> {
        let found = self.ids.get(id)?;
        let goes = |(of, key): &(String, OffsetKey)| of == group && keys.is_none_or(|keys| keys.contains(key));
        if !found.offsets.keys().any(goes) {
            return None;
        }
        let mut next = found.clone();
        next.offsets.retain(|place, _| !goes(place));
        Some(Change::new(id, Some(next)))
    }

    /// A producer begins, or begins anew: what its predecessor left open is aborted, and it is fenced by a new epoch.
    pub fn init(&self, request: &InitRequest, fresh_id: Option<i64>, now: i64) -> Result<Init, TransactionError> {
        if request.id.is_empty() {
            return Err(TransactionError::EmptyId);
        }
        if request.timeout_ms <= 0 || request.timeout_ms > self.settings.timeout_max_ms {
            return Err(TransactionError::InvalidTimeout);
        }
        let Some(found) = self.ids.get(&request.id) else {
            let next = Transaction::new(fresh_id.unwrap_or(-1), request.timeout_ms, now);
            let bytes = self.bytes.saturating_add(bytes_of(&request.id, &next));
            if self.ids.len() >= self.settings.ids_max || bytes > self.settings.bytes_max {
                return Err(TransactionError::TooMany);
            }
            if fresh_id.is_none() {
                return Ok(Init::NeedsProducerId);
            }
            return Ok(self.begin(&request.id, next));
        };
        let expected = request.expected.filter(|producer| *producer != (found.producer_id, found.epoch));
        if let Some(known) = expected {
            if found.state == State::Ongoing || !found.had(known) {
                return Err(TransactionError::Fenced);
            }
            // It was given its epoch already, by a request whose answer was lost, or when its transaction ended or timed
            // out; nothing has begun since.
            if found.epoch <= EPOCH_MAX {
                return Ok(self.go_on(&request.id, found, request.timeout_ms, now));
            }
        }
        let mut next = Transaction::new(found.producer_id, request.timeout_ms, now);
        // Kafka aborts what is open with one epoch and has the successor ask again, which gives it another. Who goes on from
        // its own epoch gets the first.
        let fenced = match found.state == State::Ongoing && request.expected.is_none() {
            true => found.epoch.saturating_add(1),
            false => found.epoch,
        };
        if fenced >= EPOCH_MAX {
            let Some(producer_id) = fresh_id else { return Ok(Init::NeedsProducerId) };
            next.producer_id = producer_id;
            next.last_producer_id = if request.expected.is_some() { found.producer_id } else { -1 };
        } else {
            next.epoch = fenced + 1;
        }
        next.last_epoch = request.expected.map_or(-1, |(_, epoch)| epoch);
        let mut ready = self.begin(&request.id, next);
        if let Init::Ready { change: Some(change), .. } = &mut ready
            && found.state == State::Ongoing
        {
            // Of the old producer, whose epoch is raised in the partitions even where its id has no more to give.
            change.write.producer_id = found.producer_id;
            change.write.producer_epoch = found.epoch.saturating_add(1);
            change.write.ending = found.ending(false);
        }
        Ok(ready)
    }

    fn begin(&self, id: &str, next: Transaction) -> Init {
        let (producer_id, epoch) = (next.producer_id, next.epoch);
        Init::Ready { producer_id, epoch, change: Some(Box::new(Change::new(id, Some(next)))) }
    }

    /// The producer has its epoch already and only begins with it.
    fn go_on(&self, id: &str, found: &Transaction, timeout_ms: i32, now: i64) -> Init {
        if found.state == State::Empty && found.timeout_ms == timeout_ms {
            return Init::Ready { producer_id: found.producer_id, epoch: found.epoch, change: None };
        }
        self.begin(id, Transaction { timeout_ms, ..found.over(State::Empty, now) })
    }

    /// The id's transaction, if it is this producer's.
    fn of(&self, id: &str, (producer_id, epoch): (i64, i16)) -> Result<&Transaction, TransactionError> {
        if id.is_empty() {
            return Err(TransactionError::EmptyId);
        }
        let found = self.ids.get(id).ok_or(TransactionError::InvalidProducerId)?;
        if producer_id != found.producer_id {
            return Err(TransactionError::InvalidProducerId);
        }
        if epoch != found.epoch {
            return Err(TransactionError::Fenced);
        }
        Ok(found)
    }

    /// `next` as a change, within the limits.
    fn grow(&self, id: &str, found: &Transaction, next: Transaction) -> Result<Change, TransactionError> {
        // Whatever changes it copies and writes the whole transaction, so that a single one has a limit too.
        let (before, bytes) = (found.bytes(), next.bytes());
        let all = self.bytes.saturating_sub(before).saturating_add(bytes);
        if all > self.settings.bytes_max || (bytes > before && bytes > self.settings.transaction_bytes_max) {
            return Err(TransactionError::TooMany);
        }
        Ok(Change::new(id, Some(next)))
    }

    /// Partitions join the transaction, beginning one where none is under way. `by_produce`: by what is produced to them.
    pub fn add_partitions(
        &self,
        id: &str,
        producer: (i64, i16),
        partitions: &[TopicPartition],
        by_produce: bool,
        now: i64,
    ) -> Result<Option<Change>, TransactionError> {
        let found = self.of(id, producer)?;
        let known = |p: &&TopicPartition| found.state == State::Ongoing && found.partitions.contains(p);
        let added: BTreeSet<_> = partitions.iter().filter(|p| !known(p)).copied().collect();
        if added.is_empty() {
            return Ok(None);
        }
        let mut next = found.begun(now);
        next.partitions.extend(&added);
        let mut change = self.grow(id, found, next)?;
        change.write.added = added.into_iter().collect();
        change.write.by_produce = by_produce;
        Ok(Some(change))
    }

    /// A group joins the transaction: offsets of it may follow.
    pub fn add_group(
        &self,
        id: &str,
        producer: (i64, i16),
        group: &str,
        now: i64,
    ) -> Result<Option<Change>, TransactionError> {
        let found = self.of(id, producer)?;
        if found.state == State::Ongoing && found.groups.contains(group) {
            return Ok(None);
        }
        let mut next = found.begun(now);
        next.groups.insert(group.to_owned());
        self.grow(id, found, next).map(Some)
    }

    /// Offsets that count when the transaction is committed. `joins`: the group need not be part of it yet.
    pub fn add_offsets(
        &self,
        id: &str,
        producer: (i64, i16),
        group: &str,
        joins: bool,
        offsets: Vec<(OffsetKey, Committed)>,
        now: i64,
    ) -> Result<Option<Change>, TransactionError> {
        let found = self.of(id, producer)?;
        if !joins && (found.state != State::Ongoing || !found.groups.contains(group)) {
            return Err(TransactionError::InvalidState);
        }
        if offsets.is_empty() {
            return Ok(None);
        }
        let mut next = found.begun(now);
        next.groups.insert(group.to_owned());
        next.offsets.extend(offsets.into_iter().map(|(key, committed)| ((group.to_owned(), key), committed)));
        self.grow(id, found, next).map(Some)
    }

    /// Ends the transaction; doing so twice the same way is no error.
    pub fn end(
        &self,
        id: &str,
        producer: (i64, i16),
        commit: bool,
        now: i64,
    ) -> Result<Option<Change>, TransactionError> {
        let found = self.of(id, producer)?;
        match (found.state, commit) {
            (State::Ongoing, _) => Ok(Some(self.ended(id, found, found.over(ended_as(commit), now), commit))),
            (State::Committed, true) | (State::Aborted, false) => Ok(None),
            (State::Committed | State::Aborted | State::Empty, _) => Err(TransactionError::InvalidState),
        }
    }

    fn ended(&self, id: &str, found: &Transaction, next: Transaction, commit: bool) -> Change {
        let mut change = Change::new(id, Some(next));
        change.write.ending = found.ending(commit);
        if commit {
            let offset = |((group, key), committed): (&(String, OffsetKey), &Committed)| {
                (group.clone(), key.clone(), committed.clone())
            };
            change.offsets = found.offsets.iter().map(offset).collect();
        }
        change
    }

    /// Ends the transaction of a producer that gets another epoch with each (KIP-890), so that what is late of this one
    /// cannot join the next. Who asks again is known by the epoch before. What never began may be aborted, which only
    /// raises the epoch.
    pub fn end_and_raise(
        &self,
        id: &str,
        (producer_id, epoch): (i64, i16),
        commit: bool,
        fresh_id: Option<i64>,
        now: i64,
    ) -> Result<End, TransactionError> {
        if id.is_empty() {
            return Err(TransactionError::EmptyId);
        }
        let found = self.ids.get(id).ok_or(TransactionError::InvalidProducerId)?;
        let over = matches!(found.state, State::Committed | State::Aborted);
        let raised = producer_id == found.producer_id && epoch.checked_add(1) == Some(found.epoch);
        let ran_out = producer_id >= 0 && producer_id == found.last_producer_id && found.epoch == 0;
        if over && epoch == found.last_epoch && (raised || ran_out) {
            return match (found.state, commit) {
                (State::Committed, true) | (State::Aborted, false) => {
                    Ok(End::Ready { producer: (found.producer_id, found.epoch), change: None })
                }
                _ => Err(TransactionError::InvalidState),
            };
        }
        let found = self.of(id, (producer_id, epoch))?;
        if found.state != State::Ongoing && commit {
            return Err(TransactionError::InvalidState);
        }
        let mut next = found.over(ended_as(commit), now);
        next.last_epoch = found.epoch;
        next.last_producer_id = -1;
        if found.epoch >= EPOCH_MAX {
            let Some(fresh_id) = fresh_id else { return Ok(End::NeedsProducerId) };
            (next.producer_id, next.epoch, next.last_producer_id) = (fresh_id, 0, found.producer_id);
        } else {
            next.epoch = found.epoch + 1;
        }
        let producer = (next.producer_id, next.epoch);
        let mut change = self.ended(id, found, next, commit);
        // The epoch is raised in the partitions too, even where the id has no more to give.
        change.write.producer_id = found.producer_id;
        change.write.producer_epoch = found.epoch.saturating_add(1);
        Ok(End::Ready { producer, change: Some(Box::new(change)) })
    }

    /// When the next transaction times out.
    pub fn deadline(&self) -> Option<i64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// When to look again, where all that is due was done: what is due but for the wall clock may wait for long.
    pub fn next_look(&self, now: i64) -> Option<i64> {
        let idle = self.idle.first().map(|(at, _)| *at).filter(|at| *at > now);
        self.deadline().into_iter().chain(idle).min()
    }

    /// Ids with something due.
    pub fn due(&self, now: i64, wall: i64) -> Vec<String> {
        let over = |timers| BTreeSet::iter(timers).take_while(|(at, _): &&(i64, String)| *at <= now).map(|(_, id)| id);
        let is_due = |id: &&String| self.ids.get(*id).is_some_and(|found| self.is_due(found, now, wall));
        over(&self.timers).chain(over(&self.idle)).filter(is_due).cloned().collect()
    }

    /// An id is forgotten when its time is over by both clocks: one that is set forward takes nothing at once.
    fn is_due(&self, found: &Transaction, now: i64, wall: i64) -> bool {
        let by_wall = || found.stamp.saturating_add(self.settings.expiration_ms) <= wall;
        found.deadline(&self.settings) <= now && (found.state == State::Ongoing || by_wall())
    }

    /// What time asks of an id: its transaction is aborted and its producer fenced, or it is forgotten.
    pub fn expire(&self, id: &str, now: i64, wall: i64) -> Option<Change> {
        let found = self.ids.get(id).filter(|found| self.is_due(found, now, wall))?;
        if found.state != State::Ongoing {
            return Some(Change::new(id, None));
        }
        let mut next = found.over(State::Aborted, now);
        next.epoch = found.epoch.saturating_add(1);
        (next.last_epoch, next.last_producer_id) = (found.epoch, -1);
        let mut change = Change::new(id, Some(next));
        change.write.ending = found.ending(false);
        Some(change)
    }
}

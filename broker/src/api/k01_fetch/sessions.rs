//! Fetch sessions (KIP-227): what a client reads, kept from one request to the next, so that both sides say only what
//! changed.
//!
//! Plain but for a lock: requests and the time go in, parts to read come out. A session belongs to no connection. It is
//! evicted when its place is wanted and nobody used it for a while, or a larger one came; whoever goes on with it then is
//! told that it is not known and begins anew.
//!
//! Invariant: a part that is not queued has nothing new for its reader. It is queued again by a request that names it,
//! or by its partition's change, which its waiter marks. So a fetch costs what changed, not what is watched.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use millpond_types::{Principal, TopicPartition};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::storage::{Storage, Waiter, Wakeups};

/// A topic as the client names it; a copy, which does not keep the request's memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Named {
    Name(Box<str>),
    Id(Uuid),
}

/// What is read of one partition.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub topic: Arc<Named>,
    pub index: i32,
    pub from: i64,
    pub bytes_max: usize,
    /// The leader epoch that the client believes in.
    pub epoch: i32,
    /// Where to read; or why not.
    pub id: Result<TopicPartition, i16>,
    /// The name of the topic that was found by its id. Once its session knows it, it asks for the topic of that name, as
    /// Kafka does: where there is none, or another one, it is told so.
    pub name: Option<Arc<str>>,
}

impl Part {
    fn locate(&mut self, storage: &Storage, id: Result<TopicPartition, i16>, name: Option<Arc<str>>) {
        self.name = name.or(self.name.take());
        self.id = id.map_err(|code| match (code, &self.name) {
            (UNKNOWN_ID, Some(name)) => match storage.find_topic(name) {
                Some(another) if (0..another.partition_count()).contains(&self.index) => {
                    ResponseError::InconsistentTopicId.code()
                }
                _ => ResponseError::UnknownTopicOrPartition.code(),
            },
            _ => code,
        });
    }
}

/// The offsets that a client was told last; it is told again when they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
}

impl Seen {
    /// What differs from all offsets there are.
    pub const NOTHING: Self = Self { high_watermark: -1, last_stable_offset: -1, log_start_offset: -1 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub sessions_max: usize,
    /// Partitions of one session.
    pub session_partitions_max: usize,
    /// Partitions of all sessions.
    pub partitions_max: usize,
    /// About what all sessions take in memory.
    pub bytes_max: usize,
    /// A session that was used more recently, or is younger, is not evicted.
    pub eviction_ms: u64,
}

/// What all requests of a session have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// Nobody else goes on with it.
    pub owner: Principal,
    pub by_id: bool,
    pub committed: bool,
}

const UNKNOWN_ID: i16 = ResponseError::UnknownTopicId.code();

/// What a part takes in memory beside its topic's name, about: its slot, its place, its waiter.
const PART_BYTES: usize = 384;

/// How large a session is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    partitions: usize,
    bytes: usize,
}

impl Size {
    fn of(part: &Part) -> Self {
        // Partitions of one topic may share its name, or not.
        let name = match &*part.topic {
            Named::Name(name) => name.len(),
            Named::Id(_) => part.name.as_ref().map_or(0, |name| name.len()),
        };
        Self { partitions: 1, bytes: PART_BYTES + name }
    }

    fn plus(self, other: Self) -> Self {
        let partitions = self.partitions.saturating_add(other.partitions);
        Self { partitions, bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        let partitions = self.partitions.saturating_sub(other.partitions);
        Self { partitions, bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

struct Slot {
    part: Part,
    seen: Seen,
    queued: bool,
    waiter: Option<Arc<Waiter>>,
}

pub(super) struct Session {
    epoch: i32,
    kind: Kind,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    places: HashMap<(Arc<Named>, i32), u32>,
    /// Those that may have something, who was served last at the end.
    queue: VecDeque<u32>,
    wakeups: Arc<Wakeups>,
    size: Size,
}

impl Session {
    fn new(kind: Kind) -> Self {
        Self {
            epoch: 1,
            kind,
            slots: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            queue: VecDeque::new(),
            wakeups: Arc::default(),
            size: Size::default(),
        }
    }

    pub fn wakeups(&self) -> Arc<Wakeups> {
        Arc::clone(&self.wakeups)
    }

    fn slot(&mut self, token: u32) -> Option<&mut Slot> {
        self.slots.get_mut(token as usize)?.as_mut()
    }

    fn enqueue(&mut self, token: u32) {
        if let Some(slot) = self.slot(token)
            && !slot.queued
        {
            slot.queued = true;
            self.queue.push_back(token);
        }
    }

    /// Adds a part, or takes its new place to read from.
    fn set(&mut self, storage: &Storage, part: Part, seen: Seen) {
        let place = (Arc::clone(&part.topic), part.index);
        let token = match self.places.get(&place) {
            Some(token) => *token,
            None => {
                let token = self.free.pop().unwrap_or(self.slots.len() as u32);
                if token as usize == self.slots.len() {
                    self.slots.push(None);
                }
                self.places.insert(place, token);
                token
            }
        };
        let wakeups = Arc::clone(&self.wakeups);
        let Some(entry) = self.slots.get_mut(token as usize) else { return };
        match entry {
            Some(slot) => {
                self.size = self.size.minus(Size::of(&slot.part));
                let (before, id, name) = (slot.part.id, part.id, part.name.clone());
                let known = slot.part.name.take();
                slot.part = Part { topic: Arc::clone(&slot.part.topic), name: known, ..part };
                slot.part.locate(storage, id, name);
                self.size = self.size.plus(Size::of(&slot.part));
                if slot.part.id != before {
                    slot.waiter = None;
                }
            }
            None => {
                self.size = self.size.plus(Size::of(&part));
                *entry = Some(Slot { part, seen, queued: false, waiter: None });
            }
        }
        if let Some(slot) = entry
            && slot.waiter.is_none()
            && let Ok(id) = slot.part.id
        {
            slot.waiter = storage.watch_one(id, &wakeups, token);
        }
        self.enqueue(token);
    }

    fn forget(&mut self, topics: &[(Arc<Named>, Vec<i32>)]) {
        let mut freed = Vec::new();
        for (topic, indexes) in topics {
            for index in indexes {
                let Some(token) = self.places.remove(&(Arc::clone(topic), *index)) else { continue };
                if let Some(slot) = self.slots.get_mut(token as usize).and_then(Option::take) {
                    self.size = self.size.minus(Size::of(&slot.part));
                }
                freed.push(token);
            }
        }
        if !freed.is_empty() {
            self.keep_queued();
            self.free.extend(freed);
        }
    }

    /// Takes out of the queue who is no longer there, or no longer queued.
    fn keep_queued(&mut self) {
        let slots = &self.slots;
        self.queue.retain(|t| slots.get(*t as usize).and_then(Option::as_ref).is_some_and(|s| s.queued));
    }

    /// Parts that may have something, in the order in which they are served.
    pub fn due(&mut self) -> Vec<(u32, Part)> {
        for token in self.wakeups.take() {
            // Before the part is read: what changes after this marks it again.
            if let Some(waiter) = self.slot(token).and_then(|slot| slot.waiter.as_ref()) {
                waiter.unmark();
            }
            self.enqueue(token);
        }
        let part = |token: &u32| {
            let slot = self.slots.get(*token as usize)?.as_ref()?;
            Some((*token, slot.part.clone()))
        };
        self.queue.iter().filter_map(part).collect()
    }

    /// What the client was told of a part.
    pub fn seen(&self, token: u32) -> Seen {
        self.slots.get(token as usize).and_then(Option::as_ref).map_or(Seen::NOTHING, |slot| slot.seen)
    }

    /// The part has nothing until it changes.
    pub fn rest(&mut self, tokens: &[u32]) {
        let mut rested = false;
        for token in tokens {
            if let Some(slot) = self.slot(*token) {
                rested |= std::mem::take(&mut slot.queued);
            }
        }
        if rested {
            self.keep_queued();
        }
    }

    /// The client is told of a part.
    pub fn told(&mut self, token: u32, seen: Seen) {
        if let Some(slot) = self.slot(token) {
            slot.seen = seen;
        }
    }

    /// Who got records goes behind all others.
    pub fn put_behind(&mut self, tokens: &[u32]) {
        let served: HashSet<u32> = tokens.iter().copied().collect();
        if served.len() < self.queue.len() {
            self.queue.retain(|queued| !served.contains(queued));
            self.queue.extend(tokens);
        }
    }

    /// Parts whose place in storage was not found, or is gone, are looked for again.
    pub fn locate_again(
        &mut self,
        storage: &Storage,
        token: u32,
        id: Result<TopicPartition, i16>,
        name: Option<Arc<str>>,
    ) -> Option<&Part> {
        let wakeups = Arc::clone(&self.wakeups);
        let slot = self.slots.get_mut(token as usize)?.as_mut()?;
        self.size = self.size.minus(Size::of(&slot.part));
        let before = slot.part.id;
        slot.part.locate(storage, id, name);
        self.size = self.size.plus(Size::of(&slot.part));
        if slot.part.id != before {
            slot.waiter = id.ok().and_then(|id| storage.watch_one(id, &wakeups, token));
        }
        Some(&slot.part)
    }

    /// Whether the answer to the request that followed `epoch` is still the one that is due.
    pub fn follows(&self, epoch: i32) -> bool {
        self.epoch == next_epoch(epoch)
    }
}

/// Epochs run from 1 to the greatest and from there to 1 again.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).filter(|next| *next > 0).unwrap_or(1)
}

/// What a request changes in its session.
pub(super) struct Changes {
    pub kind: Kind,
    pub set: Vec<Part>,
    pub forget: Vec<(Arc<Named>, Vec<i32>)>,
}

pub(super) enum Resumed {
    Session(Arc<Mutex<Session>>),
    /// Nothing was left in it, so that it is over.
    Empty,
}

struct Entry {
    session: Arc<Mutex<Session>>,
    size: Size,
    created_ms: u64,
    used_ms: u64,
}

#[derive(Default)]
struct Table {
    entries: HashMap<i32, Entry>,
    size: Size,
}

impl Table {
    fn remove(&mut self, id: i32) {
        if let Some(entry) = self.entries.remove(&id) {
            self.size = self.size.minus(entry.size);
        }
    }

    fn has_room(&self, size: Size, limits: &Limits) -> bool {
        let all = self.size.plus(size);
        self.entries.len() < limits.sessions_max
            && all.partitions <= limits.partitions_max
            && all.bytes <= limits.bytes_max
    }

    /// Makes room for a session of a size, as Kafka does: who was not used for long goes first; then who is smaller and
    /// not new.
    fn make_room(&mut self, size: Size, limits: &Limits, now_ms: u64) -> bool {
        while !self.has_room(size, limits) {
            let past = |then: u64| now_ms.saturating_sub(then) > limits.eviction_ms;
            let unused = self.entries.iter().min_by_key(|(id, e)| (e.used_ms, **id)).filter(|(_, e)| past(e.used_ms));
            let smaller = || {
                let old = self.entries.iter().filter(|(_, e)| past(e.created_ms));
                old.min_by_key(|(id, e)| (e.size.bytes, **id)).filter(|(_, e)| e.size.bytes < size.bytes)
            };
            let Some(id) = unused.or_else(smaller).map(|(id, _)| *id) else { return false };
            self.remove(id);
        }
        true
    }
}

/// All sessions.
pub(crate) struct FetchSessions {
    table: Mutex<Table>,
    limits: Limits,
    started: Instant,
}

impl FetchSessions {
    pub fn new(limits: Limits) -> Self {
        Self { table: Mutex::default(), limits, started: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Makes a session of what a full request read. 0: there is no room for it.
    pub(super) fn open(
        &self,
        storage: &Storage,
        kind: Kind,
        parts: impl ExactSizeIterator<Item = (Part, Seen)>,
    ) -> i32 {
        let now_ms = self.now_ms();
        if parts.len() == 0 || parts.len() > self.limits.session_partitions_max {
            return 0;
        }
        let parts: Vec<(Part, Seen)> = parts.collect();
        let size = parts.iter().fold(Size::default(), |size, (part, _)| size.plus(Size::of(part)));
        if !self.table.lock().make_room(size, &self.limits, now_ms) {
            return 0;
        }
        let mut session = Session::new(kind);
        for (part, seen) in parts {
            session.set(storage, part, seen);
        }
        self.insert(session, now_ms)
    }

    fn insert(&self, session: Session, now_ms: u64) -> i32 {
        let size = session.size;
        let mut table = self.table.lock();
        if !table.make_room(size, &self.limits, now_ms) {
            return 0;
        }
        let id = loop {
            let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
            let id = i32::from_be_bytes([a, b, c, d]) & i32::MAX;
            if id != 0 && !table.entries.contains_key(&id) {
                break id;
            }
        };
        let session = Arc::new(Mutex::new(session));
        table.entries.insert(id, Entry { session, size, created_ms: now_ms, used_ms: now_ms });
        table.size = table.size.plus(size);
        id
    }

    pub(super) fn close(&self, id: i32) {
        if id != 0 {
            self.table.lock().remove(id);
        }
    }

    /// The session that a request goes on with, after what the request changes in it.
    pub(super) fn resume(
        &self,
        storage: &Storage,
        id: i32,
        epoch: i32,
        changes: Changes,
    ) -> Result<Resumed, ResponseError> {
        let now_ms = self.now_ms();
        let session = {
            let mut table = self.table.lock();
            let entry = table.entries.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
            entry.used_ms = now_ms;
            Arc::clone(&entry.session)
        };
        let size = {
            let mut session = session.lock();
            if session.kind.owner != changes.kind.owner {
                return Err(ResponseError::FetchSessionIdNotFound);
            }
            if session.epoch != epoch {
                return Err(ResponseError::InvalidFetchSessionEpoch);
            }
            if session.kind.by_id != changes.kind.by_id {
                return Err(ResponseError::FetchSessionTopicIdError);
            }
            session.epoch = next_epoch(epoch);
            for part in changes.set {
                session.set(storage, part, Seen::NOTHING);
            }
            session.forget(&changes.forget);
            if session.kind != changes.kind {
                session.kind = changes.kind;
                (0..session.slots.len() as u32).for_each(|token| session.enqueue(token));
            }
            session.size
        };
        self.resize(id, size, now_ms)?;
        Ok(if size.partitions == 0 { Resumed::Empty } else { Resumed::Session(session) })
    }

    /// Accounts for what a session holds now; without room for it, or without anything in it, it is over.
    fn resize(&self, id: i32, size: Size, now_ms: u64) -> Result<(), ResponseError> {
        let mut table = self.table.lock();
        let Some(before) = table.entries.get(&id).map(|entry| entry.size) else { return Ok(()) };
        if size == before {
            return Ok(());
        }
        if size.partitions == 0 {
            table.remove(id);
            return Ok(());
        }
        // Its own place is free while room is made for the larger one.
        let Some(entry) = table.entries.remove(&id) else { return Ok(()) };
        table.size = table.size.minus(before);
        let too_many = size.partitions > before.partitions && size.partitions > self.limits.session_partitions_max;
        if too_many || (size.bytes > before.bytes && !table.make_room(size, &self.limits, now_ms)) {
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        table.size = table.size.plus(size);
        table.entries.insert(id, Entry { size, ..entry });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        Kind { owner: Principal::anonymous(), by_id: false, committed: false }
    }

    fn table(sessions: &[(i32, usize, u64, u64)]) -> Table {
        let mut table = Table::default();
        for &(id, partitions, created_ms, used_ms) in sessions {
            let size = of(partitions);
            let session = Arc::new(Mutex::new(Session::new(kind())));
            table.entries.insert(id, Entry { session, size, created_ms, used_ms });
            table.size = table.size.plus(size);
        }
        table
    }

    fn of(partitions: usize) -> Size {
        Size { partitions, bytes: 10 * partitions }
    }

    fn left(table: &Table) -> Vec<i32> {
        let mut ids: Vec<i32> = table.entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    const LIMITS: Limits = Limits {
        sessions_max: 3,
        session_partitions_max: 100,
        partitions_max: 100,
        bytes_max: 1000,
        eviction_ms: 1000,
    };

    #[test]
    fn who_is_unused_goes_first_and_then_who_is_smaller() {
        let mut t = table(&[(1, 5, 0, 1999), (2, 50, 0, 0), (3, 10, 0, 2000)]);
        assert!(t.make_room(of(1), &LIMITS, 2000));
        assert_eq!(left(&t), [1, 3], "2 was used last at 0");
        let mut t = table(&[(1, 5, 0, 1999), (2, 50, 0, 1500), (3, 4, 1500, 2000)]);
        assert!(!t.make_room(of(5), &LIMITS, 2000), "1 is as large, 3 is new");
        assert!(t.make_room(of(6), &LIMITS, 2000));
        assert_eq!(left(&t), [2, 3]);
        let mut t = table(&[(1, 30, 0, 2000), (2, 40, 0, 2000)]);
        assert!(t.make_room(of(60), &LIMITS, 2000), "partitions are what there is too little of");
        assert_eq!((left(&t), t.size.partitions), (vec![2], 40));
        assert!(!t.make_room(of(101), &LIMITS, 2000));
        assert!(!t.make_room(Size { partitions: 1, bytes: 1001 }, &LIMITS, 2000), "names count too");
    }

    #[test]
    fn epochs_come_round() {
        assert_eq!((next_epoch(1), next_epoch(i32::MAX)), (2, 1));
    }
}

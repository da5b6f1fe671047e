//! The threads that move queries.
//!
//! Workers take queries from one ready list, a step at a time, so that none starves another; a watcher waits for the log
//! and makes idle queries ready. Not here: what a step is (`query`).
//!
//! Invariants: a query is moved by one worker at a time; it is RUNNING, PAUSED, STALLED, ERROR or gone, and says why;
//! without new records in its topics and without a client that is behind, a query is not looked at; what comes while it
//! is moved is not missed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millpond_types::ports::Storage;
use millpond_types::{Error, Result, Sequence, TopicId};
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use crate::crew::Crew;
use crate::memory::EngineMemory;
use crate::query::{Metrics, Query, StepOutcome};

/// Between looks at the log when nothing moves.
const WATCH: Duration = Duration::from_secs(1);
/// Between looks at a client that is behind.
const BLOCKED: Duration = Duration::from_millis(10);
/// Between attempts of a query that could not commit.
const STALLED: Duration = Duration::from_millis(500);
/// How long a push query's client may take nothing before the query is ended.
const SLOW_CLIENT_MAX: Duration = Duration::from_secs(120);

/// For waiting only: nothing that a query computes depends on it.
#[allow(clippy::disallowed_methods, reason = "how long to wait, not what time it is")]
fn moment() -> Instant {
    Instant::now()
}

/// A query's id, state and counts.
pub type QueryMetrics = (String, QueryState, Vec<(&'static str, u64)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryState {
    Running,
    Paused,
    /// It will be tried again.
    Stalled(String),
    /// It will not, before somebody acts; the second part names topic, partition and offset where known.
    Error(String, String),
    /// A push query that has given its last row.
    Ended,
}

struct Slot {
    id: String,
    query: Mutex<Option<Query>>,
    state: Mutex<QueryState>,
    metrics: Arc<Metrics>,
    paused: AtomicBool,
    /// The query's own: a step under way ends at once.
    stopped: Arc<AtomicBool>,
    /// In the ready list, or being moved.
    scheduled: AtomicBool,
    /// Something came to one of its topics since its last step began.
    moved: AtomicBool,
    topics: Vec<TopicId>,
    /// A push query: its client is told why it ended.
    transient: bool,
    /// When to look again although the log does not move.
    retry: Mutex<Option<Instant>>,
    /// Since when the client has taken nothing.
    blocked_since: Mutex<Option<Instant>>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Where there were no queries, there are some.
    filled: Condvar,
    /// Who reads a topic.
    readers: Mutex<HashMap<TopicId, Vec<Arc<Slot>>>>,
    /// Slots with a time to look again, about.
    waiting: AtomicU64,
    memory: EngineMemory,
    crew: Arc<Crew>,
    ready: Mutex<VecDeque<Arc<Slot>>>,
    work: Condvar,
    shutdown: AtomicBool,
    steps: AtomicU64,
}

pub struct Runner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Runner {
    /// `workers` threads, and one that watches the log; none at all where `workers` is 0. Fails where one of them cannot
    /// be started; the others have ended by then.
    pub fn new(storage: Arc<dyn Storage>, memory: EngineMemory, workers: usize) -> Result<Self> {
        Self::with(storage, memory, workers, |name, run| std::thread::Builder::new().name(name).spawn(run))
    }

    fn with(
        storage: Arc<dyn Storage>,
        memory: EngineMemory,
        workers: usize,
        start: impl Fn(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            storage,
            slots: Mutex::new(BTreeMap::new()),
            filled: Condvar::new(),
            readers: Mutex::new(HashMap::new()),
            waiting: AtomicU64::new(0),
            memory,
            crew: Arc::new(Crew::new(workers)),
            ready: Mutex::new(VecDeque::new()),
            work: Condvar::new(),
            shutdown: AtomicBool::new(false),
            steps: AtomicU64::new(0),
        });
        // Dropped with an error, it ends those that run.
        let runner = Self { shared, threads: Mutex::new(Vec::new()) };
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let thread = start(name, run).map_err(|e| {
                let started = runner.threads.lock().len();
                Error::retry(format!("of {workers} \"workers\" for queries, {started} could be started: {e}"))
            })?;
            runner.threads.lock().push(thread);
            Ok::<_, Error>(())
        };
        for i in 0..workers {
            let shared = runner.shared.clone();
            spawn(format!("query-{i}"), Box::new(move || shared.run_worker()))?;
        }
        if workers > 0 {
            let shared = runner.shared.clone();
            // From here on, and not from when the thread comes to run: what comes in between would be missed.
            let sequence = shared.storage.sequence();
            spawn("query-watch".into(), Box::new(move || shared.watch(sequence)))?;
        }
        Ok(runner)
    }

    /// The workers, as those whose steps are large know them.
    pub fn crew(&self) -> &Arc<Crew> {
        &self.shared.crew
    }

    /// Takes over a query; it moves from now on unless it is paused.
    pub fn start(&self, query: Query, paused: bool) -> Result<()> {
        let mut topics: Vec<TopicId> = query.positions().iter().map(|(at, _)| at.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        let slot = Arc::new(Slot {
            id: query.id().to_string(),
            moved: AtomicBool::new(false),
            topics,
            transient: query.is_transient(),
            metrics: query.metrics(),
            stopped: query.stop_flag(),
            query: Mutex::new(Some(query)),
            state: Mutex::new(if paused { QueryState::Paused } else { QueryState::Running }),
            paused: AtomicBool::new(paused),
            scheduled: AtomicBool::new(false),
            retry: Mutex::new(None),
            blocked_since: Mutex::new(None),
        });
        {
            let mut slots = self.shared.slots.lock();
            if slots.contains_key(&slot.id) {
                return Err(Error::conflict(format!("query \"{}\" is running already", slot.id)));
            }
            slots.insert(slot.id.clone(), slot.clone());
            self.shared.filled.notify_all();
        }
        {
            let mut readers = self.shared.readers.lock();
            for topic in &slot.topics {
                readers.entry(*topic).or_default().push(slot.clone());
            }
        }
        self.shared.schedule(&slot);
        Ok(())
    }

    /// Ends a query and forgets it. A step under way is given up, or, if it is being committed, waited for.
    pub fn stop(&self, id: &str) {
        let Some(slot) = self.shared.slots.lock().remove(id) else { return };
        slot.stopped.store(true, Ordering::SeqCst);
        self.shared.forget_reader(&slot);
        if let Some(mut query) = slot.query.lock().take() {
            query.end();
        }
        info!(query_id = id, "query stopped");
    }

    /// Ends a query and forgets it, without waiting for a step under way: for push queries, whose steps leave nothing.
    pub fn abandon(&self, id: &str) {
        let Some(slot) = self.shared.slots.lock().remove(id) else { return };
        slot.stopped.store(true, Ordering::SeqCst);
        self.shared.forget_reader(&slot);
        // If a step is under way, the query goes with the worker's hold on it.
        if let Some(mut query) = slot.query.try_lock().and_then(|mut query| query.take()) {
            query.end();
        }
    }

    /// Returns when the step that is under way is over.
    pub fn pause(&self, id: &str) {
        if let Some(slot) = self.slot(id) {
            slot.paused.store(true, Ordering::SeqCst);
            let _step = slot.query.lock();
            let mut state = slot.state.lock();
            if !matches!(*state, QueryState::Error(..)) {
                *state = QueryState::Paused;
            }
        }
    }

    /// A query in ERROR is tried again.
    pub fn resume(&self, id: &str) {
        if let Some(slot) = self.slot(id) {
            slot.paused.store(false, Ordering::SeqCst);
            *slot.state.lock() = QueryState::Running;
            self.shared.schedule(&slot);
        }
    }

    pub fn state(&self, id: &str) -> Option<QueryState> {
        self.slot(id).map(|slot| slot.state.lock().clone())
    }

    /// Names and values; empty where there is no such query.
    pub fn metrics(&self, id: &str) -> Vec<(&'static str, u64)> {
        self.slot(id).map_or_else(Vec::new, |slot| slot.metrics.list())
    }

    /// All queries with their metrics, by id.
    pub fn all_metrics(&self) -> Vec<QueryMetrics> {
        let slots: Vec<Arc<Slot>> = self.shared.slots.lock().values().cloned().collect();
        slots.iter().map(|s| (s.id.clone(), s.state.lock().clone(), s.metrics.list())).collect()
    }

    /// Ends all steps and the threads. Queries stay where they are committed.
    pub fn shutdown(&self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        {
            let _ready = self.shared.ready.lock();
            self.shared.work.notify_all();
        }
        {
            let _slots = self.shared.slots.lock();
            self.shared.filled.notify_all();
        }
        let threads: Vec<JoinHandle<()>> = self.threads.lock().drain(..).collect();
        for thread in threads {
            if thread.join().is_err() {
                error!("a thread for queries ended by a panic");
            }
        }
        let slots = std::mem::take(&mut *self.shared.slots.lock());
        self.shared.readers.lock().clear();
        for slot in slots.values() {
            if let Some(mut query) = slot.query.lock().take() {
                query.end();
            }
        }
    }

    fn slot(&self, id: &str) -> Option<Arc<Slot>> {
        self.shared.slots.lock().get(id).cloned()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    fn schedule(&self, slot: &Arc<Slot>) {
        if slot.paused.load(Ordering::SeqCst) || slot.stopped.load(Ordering::SeqCst) {
            return;
        }
        if !slot.scheduled.swap(true, Ordering::SeqCst) {
            self.push(slot.clone());
        }
    }

    fn push(&self, slot: Arc<Slot>) {
        self.ready.lock().push_back(slot);
        self.work.notify_one();
    }

    fn run_worker(&self) {
        loop {
            let slot = {
                let mut ready = self.ready.lock();
                loop {
                    if self.stopping() {
                        return;
                    }
                    match ready.pop_front() {
                        Some(slot) => break slot,
                        None => self.work.wait(&mut ready),
                    }
                }
            };
            self.turn(slot);
        }
    }

    /// One step of a query.
    fn turn(&self, slot: Arc<Slot>) {
        slot.moved.store(false, Ordering::SeqCst);
        let outcome = {
            let mut query = slot.query.lock();
            match query.as_mut() {
                Some(query) if !slot.paused.load(Ordering::SeqCst) && !slot.stopped.load(Ordering::SeqCst) => {
                    let _busy = self.crew.work();
                    query.step()
                }
                _ => {
                    slot.scheduled.store(false, Ordering::SeqCst);
                    drop(query);
                    // It may have been resumed just now, when it still counted as scheduled.
                    self.schedule(&slot);
                    return;
                }
            }
        };
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.look_again(&slot, None);
        match outcome {
            StepOutcome::Progress { .. } => {
                *slot.blocked_since.lock() = None;
                self.set_running(&slot);
                self.push(slot);
            }
            StepOutcome::Idle => {
                *slot.blocked_since.lock() = None;
                self.set_running(&slot);
                slot.scheduled.store(false, Ordering::SeqCst);
                if slot.moved.load(Ordering::SeqCst) {
                    self.schedule(&slot);
                }
            }
            StepOutcome::Blocked => {
                let since = *slot.blocked_since.lock().get_or_insert_with(moment);
                if since.elapsed() > SLOW_CLIENT_MAX {
                    warn!(query_id = slot.id, "push query ended: its client took no rows");
                    self.finish(&slot);
                    return;
                }
                self.look_again(&slot, Some(moment() + BLOCKED));
                slot.scheduled.store(false, Ordering::SeqCst);
            }
            StepOutcome::Stalled(why) => {
                let mut state = slot.state.lock();
                if *state == QueryState::Paused {
                    slot.scheduled.store(false, Ordering::SeqCst);
                    return;
                }
                if *state != QueryState::Stalled(why.clone()) {
                    warn!(query_id = slot.id, reason = why, "query stalled; it will be tried again");
                }
                *state = QueryState::Stalled(why);
                self.look_again(&slot, Some(moment() + STALLED));
                slot.scheduled.store(false, Ordering::SeqCst);
            }
            StepOutcome::Failed { why, place } => {
                if slot.transient {
                    info!(query_id = slot.id, reason = why, place, "push query ended at an error");
                } else {
                    error!(query_id = slot.id, reason = why, place, "query stopped at an error");
                }
                *slot.state.lock() = QueryState::Error(why, place);
                slot.paused.store(true, Ordering::SeqCst);
                slot.scheduled.store(false, Ordering::SeqCst);
            }
            StepOutcome::Ended => self.finish(&slot),
        }
    }

    fn set_running(&self, slot: &Slot) {
        let mut state = slot.state.lock();
        if matches!(*state, QueryState::Stalled(_)) {
            info!(query_id = slot.id, "query goes on");
            *state = QueryState::Running;
        }
    }

    /// A push query is over.
    fn finish(&self, slot: &Slot) {
        *slot.state.lock() = QueryState::Ended;
        slot.stopped.store(true, Ordering::SeqCst);
        slot.scheduled.store(false, Ordering::SeqCst);
        if let Some(mut query) = slot.query.lock().take() {
            query.end();
        }
        self.slots.lock().remove(&slot.id);
        self.forget_reader(slot);
    }

    fn forget_reader(&self, slot: &Slot) {
        self.look_again(slot, None);
        let mut readers = self.readers.lock();
        for topic in &slot.topics {
            if let Some(of_topic) = readers.get_mut(topic) {
                of_topic.retain(|s| !std::ptr::eq(s.as_ref(), slot));
                if of_topic.is_empty() {
                    readers.remove(topic);
                }
            }
        }
    }

    fn look_again(&self, slot: &Slot, at: Option<Instant>) {
        let mut retry = slot.retry.lock();
        match (retry.is_some(), at.is_some()) {
            (false, true) => self.waiting.fetch_add(1, Ordering::SeqCst),
            (true, false) => self.waiting.fetch_sub(1, Ordering::SeqCst),
            _ => 0,
        };
        *retry = at;
    }

    /// Makes queries ready when their topics move, and others when their time has come.
    fn watch(&self, mut sequence: Sequence) {
        let mut last_room = moment();
        while !self.stopping() {
            // Without queries, a log that is busy is not to wake anybody.
            let mut slots = self.slots.lock();
            if slots.is_empty() {
                self.filled.wait_for(&mut slots, WATCH);
                continue;
            }
            drop(slots);
            let next = if self.waiting.load(Ordering::SeqCst) > 0 { self.next_retry() } else { None };
            let timeout = next.map_or(WATCH, |at| at.saturating_duration_since(moment()).min(WATCH));
            let now = self.storage.wait_past(sequence, timeout.max(Duration::from_millis(1)));
            if now > sequence {
                self.wake_readers(sequence);
                sequence = now;
            }
            if self.waiting.load(Ordering::SeqCst) > 0 {
                let instant = moment();
                for slot in self.all_slots() {
                    if slot.retry.lock().is_some_and(|at| at <= instant) {
                        self.schedule(&slot);
                    }
                }
            }
            if last_room.elapsed() >= WATCH && self.memory.read_caches.crowded() {
                last_room = moment();
                self.make_room();
            }
        }
    }

    fn all_slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().values().cloned().collect()
    }

    fn next_retry(&self) -> Option<Instant> {
        let rests = |s: &Arc<Slot>| !s.paused.load(Ordering::SeqCst) && !s.scheduled.load(Ordering::SeqCst);
        self.slots.lock().values().filter(|s| rests(s)).filter_map(|s| *s.retry.lock()).min()
    }

    /// Makes those ready in whose topics something came past `sequence`.
    fn wake_readers(&self, sequence: Sequence) {
        let slots: Vec<Arc<Slot>> = match self.storage.moved_since(sequence) {
            Some(topics) => {
                let readers = self.readers.lock();
                topics.iter().filter_map(|topic| readers.get(topic)).flatten().cloned().collect()
            }
            None => self.all_slots(),
        };
        for slot in slots {
            // First this: whoever moves it now sees it, or has let go of it already.
            slot.moved.store(true, Ordering::SeqCst);
            if slot.retry.lock().is_none() {
                self.schedule(&slot);
            }
        }
    }

    /// Lets resting queries give back cache that others need more.
    fn make_room(&self) {
        for slot in self.all_slots() {
            if let Some(mut query) = slot.query.try_lock()
                && let Some(query) = query.as_mut()
            {
                query.make_room();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_types::memory::MemoryStorage;

    use super::*;

    #[test]
    fn threads_that_cannot_be_started_are_one_error_and_leave_none() {
        let (running, tried) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let start = |name: String, run: Box<dyn FnOnce() + Send>| {
            if tried.fetch_add(1, Ordering::SeqCst) == 3 {
                return Err(io::Error::other("no more"));
            }
            running.fetch_add(1, Ordering::SeqCst);
            let running = running.clone();
            std::thread::Builder::new().name(name).spawn(move || {
                run();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let storage = Arc::new(MemoryStorage::new());
        let error = Runner::with(storage, EngineMemory::default(), 100_000, start).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("of 100000 \"workers\" for queries, 3 could be started: no more"));
        assert_eq!((tried.into_inner(), running.load(Ordering::SeqCst)), (4, 0));
    }
}

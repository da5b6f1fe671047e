//! A query on its way through the log: one step after the other, each committed as a whole.
//!
//! Owns the loop of a step (read, run, halve on failure, commit) and what a query needs to go on after a restart: its
//! cursors in storage, its state, a half-done row. Not here: threads (`runner`), the plan's operators (`step`, `ops`).
//!
//! Invariants: results, state and cursors of a step are one commit; a step that failed leaves nothing behind; a query
//! computes no step before the one before it is committed.

mod begin;
mod client;
mod commit;
mod half_done;
mod row_sink;
mod settings;
mod transient;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_formats::Schemas;
use millpond_sql::plan::{QueryPlan, Relation, SourceInfo, TimestampColumn};
use millpond_types::budget::Reservation;
use millpond_types::ports::{StateReader, Storage};
use millpond_types::record::RecordBuffer;
use millpond_types::{Clock, Error, ErrorKind, Offset, Result, TopicPartition};

use self::begin::{Shape, starts};
pub use self::client::{ClientEvent, ClientReceiver, ClientSender, EndReason, client_channel};
use self::half_done::HalfDone;
use self::row_sink::RowSink;
pub use self::settings::QuerySettings;
use self::transient::TransientState;
use crate::crew::{Crew, Share};
use crate::expr::{EvalContext, hashed};
use crate::functions::FunctionLibrary;
use crate::memory::EngineMemory;
use crate::ops::{Context, Failure, Notes, OpResult};
use crate::processing_log::ProcessingLog;
use crate::sink::{ResultRows, ResultSink, TopicSink};
use crate::source::{Greatest, Input, LogReader};
use crate::state::key::{KeySpace, Kind};
use crate::state::points::Points;
use crate::state::shards::SHARDS_MAX;
use crate::state::view::{Changes, View};
use crate::step::tasks::{Feed, Pass};
use crate::step::{Pending, Pipeline};

/// Rows of a query's first step.
const FIRST_STEP_ROWS: usize = 1_024;

/// What a byte of input takes on its way: the record, its columns, the result.
const STEP_BYTES_PER_INPUT: usize = 3;

/// Where a part of a step turned out to depend on what is before it, the steps that follow are likely to have such parts too:
/// so many are made on one thread, for what was tried on several is made anew.
const IN_ORDER_STEPS: u32 = 100;

/// A step takes so many bytes of input even where no memory is left for it.
const STEP_BYTES_MIN: usize = 256 << 10;

/// Where the result goes.
pub enum Output {
    /// Records of the target's topic; `materialise`: a table's rows are also kept for pull queries; `timestamp`: the
    /// column of the result that gives the records their time.
    Sink {
        target: SourceInfo,
        materialise: bool,
        timestamp: Option<TimestampColumn>,
    },
    /// Only kept for pull queries.
    State {
        target: SourceInfo,
    },
    Client(ClientSender),
}

pub struct QuerySpec {
    pub id: String,
    pub plan: QueryPlan,
    pub output: Output,
    pub settings: QuerySettings,
    /// Where a partition starts if storage has no cursor for it; 0 where not listed.
    pub start: Vec<(TopicPartition, Offset)>,
    /// Ends of the partitions when the query was created.
    pub backlog: Vec<(TopicPartition, Offset)>,
    /// A push query: its cursors are not committed and its state is in memory.
    pub transient: bool,
    /// What it may hold, with all others.
    pub memory: EngineMemory,
    /// Schemas of records by id.
    pub schemas: Arc<dyn Schemas>,
}

/// What one call of [`Query::step`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// There is nothing to do before the log moves.
    Idle,
    /// The client has not yet taken what it was sent.
    Blocked,
    Progress {
        rows: u64,
    },
    /// Nothing was written; the same may succeed later.
    Stalled(String),
    /// The query cannot go on; `where` names topic, partition and offset where known.
    Failed {
        why: String,
        place: String,
    },
    /// A push query has given all it will, or its client is gone.
    Ended,
}

/// Counts of a query since it was started.
#[derive(Debug, Default)]
pub struct Metrics {
    pub rows_in: AtomicU64,
    pub rows_out: AtomicU64,
    pub rows_late: AtomicU64,
    pub rows_skipped: AtomicU64,
    pub row_errors: AtomicU64,
    pub steps: AtomicU64,
    /// Steps for which idle workers were lent.
    pub steps_helped: AtomicU64,
}

impl Metrics {
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        vec![
            ("rows_in", get(&self.rows_in)),
            ("rows_out", get(&self.rows_out)),
            ("rows_late", get(&self.rows_late)),
            ("rows_skipped", get(&self.rows_skipped)),
            ("row_errors", get(&self.row_errors)),
            ("steps", get(&self.steps)),
            ("steps_helped", get(&self.steps_helped)),
        ]
    }
}

enum Sinks {
    Topic { topic: TopicSink, result: Option<ResultSink> },
    State(ResultSink, TopicSink),
    Client { sender: ClientSender, left: Option<u64> },
}

pub struct Query {
    id: String,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    log: Arc<ProcessingLog>,
    settings: QuerySettings,
    pipeline: Pipeline,
    relation: Relation,
    keys: usize,
    coalesce: bool,
    sinks: Sinks,
    reader: LogReader,
    /// One for each task that works on its state at the same time.
    points: Vec<Points>,
    transient: Option<TransientState>,
    half_done: Option<HalfDone>,
    half_done_key: Vec<u8>,
    /// Threads that large steps may be spread over.
    in_order_left: u32,
    crew: Option<Arc<Crew>>,
    metrics: Arc<Metrics>,
    /// Where guests are called: what their random numbers follow from, besides the row.
    names_seed: Option<u64>,
    /// Ends a step from outside; nothing of it is left.
    stop: Arc<AtomicBool>,
    memory: EngineMemory,
    /// Counts the records read and not yet worked on.
    read_ahead: Reservation,
    /// Whether there was room for them after the last step.
    reads_ahead: bool,
    /// Input rows of the next step.
    rows_target: usize,
}

/// What a run over some input rows would write.
struct Attempt {
    changes: Changes,
    appends: Vec<(TopicPartition, RecordBuffer)>,
    client: Option<ResultRows>,
    notes: Notes,
    rows_out: u64,
    pending: Vec<Pending>,
    bytes: usize,
    /// Bytes of state that it read.
    read: usize,
}

impl Query {
    /// Builds the operators and takes up the cursors, and what was left half done, from storage.
    pub fn new(
        spec: QuerySpec,
        storage: Arc<dyn Storage>,
        library: Arc<FunctionLibrary>,
        clock: Arc<dyn Clock>,
        log: Arc<ProcessingLog>,
    ) -> Result<Self> {
        let QuerySpec { id, plan, output, settings, start, backlog, transient, memory, schemas } = spec;
        let root = &plan.root;
        let shape = Shape::of(root);
        let coalesce_rows = settings.coalesce && root.relation == Relation::Table && !shape.emits_all;
        let pipeline = Pipeline::new(&id, &plan, &library, storage.as_ref(), &schemas, coalesce_rows)?;
        let most_rows = (settings.step_rows_max / pipeline.fan_out).max(1);
        let topic_of = |target: &SourceInfo| {
            storage
                .topic(&target.topic)
                .ok_or_else(|| Error::not_found(format!("topic \"{}\" does not exist", target.topic)))
        };
        let windowed = root.window.is_some();
        let result_sink = || ResultSink::new(&id, &root.schema, windowed, shape.retention_ms);
        let sinks = match output {
            Output::Sink { target, materialise, timestamp } => Sinks::Topic {
                topic: TopicSink::new(
                    &target,
                    topic_of(&target)?,
                    &root.schema,
                    timestamp.as_ref(),
                    shape.whole_keys,
                    schemas.as_ref(),
                )?,
                result: (materialise && root.relation == Relation::Table).then(result_sink),
            },
            Output::State { target } => Sinks::State(
                result_sink(),
                TopicSink::new(&target, topic_of(&target)?, &root.schema, None, false, schemas.as_ref())?,
            ),
            Output::Client(sender) => Sinks::Client { sender, left: plan.limit },
        };
        let cursors = if transient { Vec::new() } else { storage.cursors(&id)? };
        let reader = LogReader::new(starts(&plan, storage.as_ref(), &cursors, &start, &backlog, &id)?);
        let half_done_key = KeySpace::new(Kind::HalfDone, &id, "").partition_prefix(0);
        let half_done = match if transient { None } else { storage.get(&half_done_key)? } {
            Some(bytes) => Some(HalfDone::decode(&bytes)?),
            None => None,
        };
        // A push query has no name that would be the same next time.
        let named = if transient { plan.sources.join(",") } else { id.clone() };
        let names_seed = (!plan.modules.is_empty()).then(|| hashed(named.as_bytes()));
        Ok(Self {
            relation: root.relation,
            keys: root.schema.keys().count(),
            coalesce: coalesce_rows && !shape.grouped,
            points: vec![Points::new(settings.cache_bytes_max, &memory.read_caches)],
            crew: None,
            in_order_left: 0,
            transient: transient.then(|| TransientState::new(&memory)),
            read_ahead: memory.read_ahead.reservation(),
            reads_ahead: true,
            memory,
            metrics: Arc::new(Metrics::default()),
            id,
            storage,
            clock,
            log,
            settings,
            pipeline,
            sinks,
            reader,
            half_done,
            half_done_key,
            names_seed,
            stop: Arc::new(AtomicBool::new(false)),
            rows_target: most_rows.min(FIRST_STEP_ROWS),
        })
    }

    /// Lets the crew's idle workers help with large steps. Before the first step.
    pub fn helped_by(self, crew: &Arc<Crew>) -> Self {
        let partitions = usize::try_from(self.pipeline.partitions).unwrap_or(1);
        let tasks = crew.workers().min(partitions).clamp(1, SHARDS_MAX);
        let (bytes_max, pool) = (self.settings.cache_bytes_max / tasks, &self.memory.read_caches);
        let points = (0..tasks).map(|_| Points::new(bytes_max, pool)).collect();
        Self { points, crew: (crew.workers() > 1).then(|| crew.clone()), ..self }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn is_transient(&self) -> bool {
        self.transient.is_some()
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Set, it ends the step under way as if it had never begun, and every later one.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Offsets not worked on yet, by partition.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        self.reader.positions()
    }

    /// Steps until there is nothing left to do.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            match self.step() {
                StepOutcome::Idle | StepOutcome::Ended | StepOutcome::Blocked => return Ok(()),
                StepOutcome::Progress { .. } => {}
                StepOutcome::Stalled(why) => return Err(Error::retry(why)),
                StepOutcome::Failed { why, place } if place.is_empty() => return Err(Error::bad_request(why)),
                StepOutcome::Failed { why, place } => return Err(Error::bad_request(format!("{why} ({place})"))),
            }
        }
    }

    /// Takes what has come, up to the limits of a step, through the plan, and commits it.
    pub fn step(&mut self) -> StepOutcome {
        if let Some(outcome) = self.client_outcome() {
            return outcome;
        }
        let least = STEP_BYTES_MIN.min(self.settings.step_bytes_max);
        let most = self.settings.step_bytes_max.saturating_mul(STEP_BYTES_PER_INPUT);
        let room = self.memory.steps.reserve_between(least * STEP_BYTES_PER_INPUT, most);
        let outcome = self.step_within(room.bytes() / STEP_BYTES_PER_INPUT);
        drop(room);
        self.reads_ahead = self.read_ahead.try_set(self.reader.held_bytes());
        if !self.reads_ahead {
            self.reader.reset();
            self.read_ahead.set(0);
        }
        outcome
    }

    /// Lets go of memory that others need more. Between steps.
    pub fn make_room(&mut self) {
        self.points.iter_mut().for_each(Points::fit);
    }

    fn step_within(&mut self, bytes_max: usize) -> StepOutcome {
        if let Some(half) = self.half_done.clone() {
            return self.go_on(&half);
        }
        let started = started();
        let rows_max = self.rows_target;
        let storage = self.storage.clone();
        let input = match self.reader.peek(storage.as_ref(), rows_max, bytes_max, self.settings.reset_latest) {
            Ok(input) if input.is_empty() => return StepOutcome::Idle,
            Ok(input) => input,
            Err((e, origin)) => return self.fail(Failure::from(e), Some(origin)),
        };
        let mut rows = input.len();
        loop {
            let attempt = match self.attempt(&input, rows, bytes_max) {
                Ok(attempt) => attempt,
                Err(failure) if failure.error.kind() == ErrorKind::Retry => {
                    return StepOutcome::Stalled(failure.error.to_string());
                }
                // The rows before the failing one are committed first.
                Err(Failure { pos: Some(pos), .. }) if pos > 0 && (pos as usize) < rows => {
                    rows = pos as usize;
                    continue;
                }
                Err(Failure { pos: None, .. }) if rows > 1 => {
                    rows /= 2;
                    continue;
                }
                Err(failure) => {
                    let origin = self.reader.origin(&input, failure.pos.unwrap_or(0) as usize);
                    return self.fail(failure, origin);
                }
            };
            if let Some(pos) = attempt.pending.iter().map(|p| p.more.pos as usize).min()
                && pos + 1 < rows
            {
                rows = pos + 1;
                continue;
            }
            // A little too much is written as it is, and less is taken next time.
            if attempt.bytes > self.settings.step_write_bytes_max.saturating_mul(2) && rows > 1 {
                rows = (rows / 2).max(1);
                continue;
            }
            let cut = rows < input.len() && attempt.pending.is_empty();
            self.adapt(rows, cut, attempt.bytes, attempt.read, bytes_max, started.elapsed());
            return self.commit(&input, rows, attempt);
        }
    }

    /// Sets the rows of the next step by whether more was too much, what this one wrote and read, and how long it took.
    fn adapt(&mut self, rows: usize, cut: bool, bytes: usize, read: usize, read_max: usize, took: Duration) {
        let most = (self.settings.step_rows_max / self.pipeline.fan_out).max(1);
        let small = bytes <= self.settings.step_write_bytes_max / 2 && read <= read_max / 2;
        if bytes > self.settings.step_write_bytes_max || took > self.settings.step_time_max {
            self.rows_target = (rows / 2).max(1);
        } else if cut {
            self.rows_target = rows.max(1);
        } else if rows >= self.rows_target && small && took < self.settings.step_time_max / 2 {
            self.rows_target = self.rows_target.saturating_mul(2).min(most);
        }
    }

    fn client_outcome(&self) -> Option<StepOutcome> {
        let Sinks::Client { sender, left } = &self.sinks else { return None };
        if *left == Some(0) {
            // It is told twice where a row was the last one: nobody listens any more.
            let _ = sender.sender.try_send(ClientEvent::End(EndReason::LimitReached));
        }
        if sender.sender.is_closed() || *left == Some(0) {
            return Some(StepOutcome::Ended);
        }
        // One place is kept for the end.
        let waiting = sender.sender.max_capacity() - sender.sender.capacity();
        let full = waiting > 0 && self.memory.push_queries.left() < self.settings.step_write_bytes_max;
        (full || sender.sender.capacity() <= 1).then_some(StepOutcome::Blocked)
    }

    /// `bytes_max`: of state that it may read, unless it is of one row.
    fn attempt(&mut self, input: &Input, rows: usize, bytes_max: usize) -> OpResult<Attempt> {
        self.in_order_left = self.in_order_left.saturating_sub(1);
        if let Some(crew) = self.crew.clone().filter(|_| self.in_order_left == 0) {
            let helpers = crew.helpers((rows / self.settings.task_rows_min).min(crew.workers()).saturating_sub(1));
            if helpers.threads() > 0 {
                match self.attempt_with(input, rows, bytes_max, Some(&helpers)) {
                    // One thread needs less, as of guests' memory, and has the rows in order.
                    Err((_, true)) => self.in_order_left = IN_ORDER_STEPS,
                    Err((failure, false)) if failure.error.kind() == ErrorKind::Retry => {}
                    other => {
                        self.metrics.steps_helped.fetch_add(u64::from(other.is_ok()), Ordering::Relaxed);
                        return other.map_err(|(failure, _)| failure);
                    }
                }
            }
        }
        self.attempt_with(input, rows, bytes_max, None).map_err(|(failure, _)| failure)
    }

    /// On this thread and the helpers. A failure comes with whether it was for want of what is before a part.
    fn attempt_with(
        &mut self,
        input: &Input,
        rows: usize,
        bytes_max: usize,
        helpers: Option<&Share<'_>>,
    ) -> std::result::Result<Attempt, (Failure, bool)> {
        let Self { storage, transient, points, pipeline, reader, settings, sinks, .. } = self;
        let sink = RowSink { sinks, relation: self.relation, keys: self.keys, coalesce: self.coalesce };
        let (now, seed) = (self.clock.now_ms(), seed());
        let names_seed = self.names_seed;
        let stop = self.stop.clone();
        let alone = rows <= 1;
        let read_max = if alone { usize::MAX } else { bytes_max };
        for points in points.iter_mut() {
            // What attempts before this one read is let go where it is too much.
            points.rollback();
            points.fit();
        }
        let feed = Feed { reader, input, rows, in_order: AtomicBool::new(false) };
        let run = || {
            let store: &dyn StateReader = match transient.as_ref() {
                Some(state) => state,
                None => storage.as_ref(),
            };
            let mut view = View::new(store, points, read_max);
            let mut eval = EvalContext::new(now, seed).stopped_by(stop);
            if let Some(seed) = names_seed {
                eval.name_inputs(seed, reader.names(input, rows));
            }
            let mut notes = Notes::default();
            let headers = |pos: u32| input.headers(pos as usize);
            if let Some(share) = helpers {
                let cx = &mut Context { view: &mut view, eval: &mut eval, notes: &mut notes, config: settings, alone };
                let mut pass = Pass { pipeline, feed: &feed, share, cx, pending: Vec::new() };
                let flow = pass.run(&|rows, _| sink.part(rows))?;
                let pending = pass.pending;
                return sink.write_parts(flow, &headers, pending, view, notes);
            }
            let mut sources = Vec::with_capacity(pipeline.sources.len());
            for source in &pipeline.sources {
                let mut kept = Greatest::Kept(&mut view);
                sources.push(source.rows(reader, input, 0..rows, &mut kept, &mut notes, settings)?);
            }
            let mut cx = Context { view: &mut view, eval: &mut eval, notes: &mut notes, config: settings, alone };
            let (out, pending) = pipeline.run(sources, &mut cx)?;
            sink.write(out, &headers, pending, view, notes)
        };
        caught(run).map_err(|failure| (failure, feed.in_order.load(Ordering::Relaxed)))
    }

    /// Goes on with a half-done row: that alone is the step.
    fn go_on(&mut self, half: &HalfDone) -> StepOutcome {
        // What is furthest down the plan came first.
        let Some(next) = half.pending.last().cloned() else {
            return StepOutcome::Stalled("a half-done row has nothing left to do".into());
        };
        let Self { storage, transient, points, pipeline, settings, sinks, .. } = self;
        let sink = RowSink { sinks, relation: self.relation, keys: self.keys, coalesce: self.coalesce };
        let (now, seed) = (self.clock.now_ms(), seed());
        let names_seed = self.names_seed;
        let stop = self.stop.clone();
        let run = || {
            let store: &dyn StateReader = match transient.as_ref() {
                Some(state) => state,
                None => storage.as_ref(),
            };
            let mut view = View::new(store, points, usize::MAX);
            let mut eval = EvalContext::new(now, seed).stopped_by(stop);
            if let Some(seed) = names_seed {
                eval.name_inputs(seed, vec![half.name]);
            }
            let mut notes = Notes::default();
            let mut cx = Context { view: &mut view, eval: &mut eval, notes: &mut notes, config: settings, alone: true };
            let (out, pending) = pipeline.resume(&next, &mut cx)?;
            sink.write(out, &|_| half.headers.as_slice(), pending, view, notes)
        };
        match caught(run) {
            Ok(mut attempt) => {
                let mut pending = half.pending.clone();
                pending.pop();
                pending.append(&mut attempt.pending);
                attempt.pending = Vec::new();
                let rest = HalfDone { pending, ..half.clone() };
                self.write(attempt, 0, Vec::new(), Some(rest), &|_| None)
            }
            Err(failure) if failure.error.kind() == ErrorKind::Retry => StepOutcome::Stalled(failure.error.to_string()),
            Err(failure) => self.fail(failure, None),
        }
    }
}

/// Runs a step's computation; a panic in it is a failure like any other.
pub(crate) fn caught<T>(run: impl FnOnce() -> OpResult<T>) -> OpResult<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_string())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".into());
            Err(Error::bug(format!("panic in a step: {text}")).into())
        }
    }
}

/// When a step began: where the next one is cut may depend on it, what they compute does not.
#[allow(clippy::disallowed_methods, reason = "how long a step takes, not what time it is")]
fn started() -> Instant {
    Instant::now()
}

/// A seed for RANDOM and UUID: new for every step.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

impl Attempt {
    fn new(
        view: View<'_>,
        appends: Vec<(TopicPartition, RecordBuffer)>,
        client: Option<ResultRows>,
        notes: Notes,
        rows_out: u64,
        pending: Vec<Pending>,
    ) -> Self {
        let read = view.read_bytes();
        let changes = view.into_changes();
        let bytes = changes.bytes + appends.iter().map(|(_, b)| b.size()).sum::<usize>();
        Self { changes, appends, client, notes, rows_out, pending, bytes, read }
    }
}

#[cfg(test)]
mod tests;

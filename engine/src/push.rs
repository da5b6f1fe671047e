//! Statements that give rows to a client: push queries, pull queries, PRINT.
//!
//! Owns the list of open push queries. A push query ends with its handle, when its client is gone, or by TERMINATE.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_formats::print::Guesser;
use millpond_formats::text::write_timestamp;
use millpond_sql::analyse::analyse;
use millpond_sql::plan::{Analysed, QueryPlan, Relation};
use millpond_sql::syntax::{self, Ident, Parsed, Print, Statement};
use millpond_types::access::Right;
use millpond_types::ports::ReadLimits;
use millpond_types::{Error, Offset, Result, Schema, TopicPartition};
use parking_lot::Mutex;

use crate::access;
use crate::engine::Engine;
use crate::error::{Problem, StatementError};
use crate::pull::{self, PullResult};
use crate::query::{ClientEvent, ClientReceiver, EndReason, Output, QuerySpec, StepOutcome, client_channel};
use crate::session::Session;
use crate::statements::not_found;

/// What a row-giving statement turned out to be.
pub enum Selected {
    Push(PushQuery),
    Pull(PullResult),
    Print(PrintQuery),
}

/// Open push queries by id, and how often PRINT is at it.
pub(crate) struct PushQueries {
    open: Mutex<BTreeMap<String, Open>>,
    /// PRINTs have no ids and are not shown.
    prints: Mutex<usize>,
    /// Of both together.
    max: usize,
    opened: AtomicU64,
}

struct Open {
    statement: String,
    owner: Option<String>,
    engine: std::sync::Weak<crate::engine::Inner>,
}

impl PushQueries {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Mutex::new(BTreeMap::new()), prints: Mutex::new(0), max, opened: AtomicU64::new(0) }
    }

    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    /// Those that may be shown: one's own, and all to those who may describe the cluster.
    pub(crate) fn list(&self, session: &Session) -> Vec<(String, String)> {
        let owner = session.owner();
        let all = session.check_cluster(Right::Describe).is_ok();
        let open = self.open.lock();
        let shown = open.iter().filter(|(_, open)| all || open.owner == owner);
        shown.map(|(id, open)| (id.clone(), open.statement.clone())).collect()
    }

    /// Whose an open query is; `None` where there is none of this id.
    pub(crate) fn owner(&self, id: &str) -> Option<Option<String>> {
        let open = self.open.lock();
        open.iter().find(|(k, _)| k.eq_ignore_ascii_case(id)).map(|(_, open)| open.owner.clone())
    }

    /// Ends a push query; its client sees the end of its rows. False where there is none of this id.
    pub(crate) fn close(&self, id: &str) -> bool {
        let removed = {
            let mut open = self.open.lock();
            let key = open.keys().find(|k| k.eq_ignore_ascii_case(id)).cloned();
            key.and_then(|k| open.remove_entry(&k))
        };
        match removed {
            Some((id, open)) => {
                if let Some(inner) = open.engine.upgrade() {
                    Engine(inner).abandon_query(&id);
                }
                true
            }
            None => false,
        }
    }

    pub(crate) fn close_all(&self) {
        let ids: Vec<String> = self.open.lock().keys().cloned().collect();
        for id in ids {
            self.close(&id);
        }
    }

    fn add(
        &self,
        id: &str,
        statement: &str,
        owner: Option<String>,
        engine: &Engine,
    ) -> std::result::Result<(), Problem> {
        let mut open = self.open.lock();
        self.check_room(open.len() + *self.prints.lock())?;
        let entry = Open { statement: statement.to_string(), owner, engine: Arc::downgrade(&engine.0) };
        open.insert(id.to_string(), entry);
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn add_print(&self) -> std::result::Result<(), Problem> {
        let open = self.open.lock();
        let mut prints = self.prints.lock();
        self.check_room(open.len() + *prints)?;
        *prints += 1;
        Ok(())
    }

    fn check_room(&self, there: usize) -> std::result::Result<(), Problem> {
        if there < self.max {
            return Ok(());
        }
        Err(Problem::TooManyPushQueries(format!(
            "there are {there} push queries open, with PRINT, and no more than {} are allowed; close one, or raise push_queries_max",
            self.max
        )))
    }
}

/// A running push query. Dropping it ends it.
pub struct PushQuery {
    pub id: String,
    /// Result columns in select order.
    pub schema: Schema,
    pub relation: Relation,
    pub rows: ClientReceiver,
    engine: Engine,
}

impl Drop for PushQuery {
    fn drop(&mut self) {
        self.engine.0.push.close(&self.id);
    }
}

/// PRINT: the records of a topic as text. It counts as a push query until it is dropped.
pub struct PrintQuery {
    pub topic: String,
    engine: Engine,
    next: Vec<(TopicPartition, Offset)>,
    /// Which of them is read first.
    turn: usize,
    left: Option<u64>,
    interval: u64,
    seen: u64,
    keys: Guesser,
    values: Guesser,
    /// What was told of keys and values: nothing, that they are NULL so far, or their format.
    header: [Told; 2],
}

impl Drop for PrintQuery {
    fn drop(&mut self) {
        let mut prints = self.engine.0.push.prints.lock();
        *prints = prints.saturating_sub(1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Null,
    Format,
}

/// Records read from a partition at a time for PRINT, and bytes from all of them.
const PRINT_RECORDS: usize = 500;
const PRINT_BYTES: usize = 1 << 20;

impl Engine {
    /// Runs one SELECT or PRINT. Pull queries block until they are done.
    pub fn select(&self, text: &str, session: &Session) -> std::result::Result<Selected, StatementError> {
        let parsed = self.parse(text, session)?;
        let [one] = parsed.as_slice() else {
            let message = format!("expected exactly one statement, found {}", parsed.len());
            let problem = Problem::Failed(Error::bad_request(message));
            return Err(StatementError { problem, statement: text.to_string(), done: Vec::new() });
        };
        self.select_one(one, session).map_err(|problem| StatementError {
            problem,
            statement: one.text.clone(),
            done: Vec::new(),
        })
    }

    fn select_one(&self, one: &Parsed, session: &Session) -> std::result::Result<Selected, Problem> {
        match &one.statement {
            Statement::Query(query) => {
                let catalog = self.catalog();
                let environment = self.environment(&catalog, session);
                let analysed = analyse(&one.statement, &one.text, &environment)?;
                access::check(self, &catalog, session, &analysed)?;
                match analysed {
                    Analysed::Push(plan) => {
                        let shared = self.is_scalable(query, &plan, session);
                        Ok(Selected::Push(self.push(plan, &one.text, shared, session)?))
                    }
                    Analysed::Pull(plan) => Ok(Selected::Pull(pull::run(self, &plan)?)),
                    Analysed::PullStream(plan) => Ok(Selected::Pull(self.pull_stream(plan, session)?)),
                    _ => Err(Problem::Failed(Error::bug("a SELECT that is neither push nor pull"))),
                }
            }
            Statement::Print(print) => {
                session.check_topic(Right::Read, &print.topic.node)?;
                Ok(Selected::Print(self.print(print, session)?))
            }
            _ => Err(Problem::Failed(Error::bad_request(
                "only SELECT and PRINT give rows: send other statements to /ksql",
            ))),
        }
    }

    /// Whether a push query is what ksqlDB calls a scalable one: it shows, from now on, what one persistent query
    /// writes, row by row. Clients know such a query by its id; nothing else is different here.
    fn is_scalable(&self, query: &syntax::Query, plan: &QueryPlan, session: &Session) -> bool {
        let is =
            |name: &str, value: &str| self.property(session, name).is_some_and(|set| set.eq_ignore_ascii_case(value));
        let plain = query.from.joins.is_empty()
            && query.window.is_none()
            && query.group_by.is_empty()
            && query.partition_by.is_empty()
            && query.having.is_none()
            && query.emit.as_ref().is_some_and(|emit| emit.node == syntax::Emit::Changes);
        let catalog = self.catalog();
        let of_one_query = matches!(plan.sources.as_slice(), [one] if catalog.writers(one).count() == 1);
        plain && of_one_query && is("ksql.query.push.v2.enabled", "true") && is("auto.offset.reset", "latest")
    }

    fn push(
        &self,
        plan: QueryPlan,
        text: &str,
        scalable: bool,
        session: &Session,
    ) -> std::result::Result<PushQuery, Problem> {
        let first = plan.sources.first().map_or("", String::as_str);
        let kind = if scalable { "SCALABLE_PUSH_QUERY" } else { "transient" };
        let id = format!("{kind}_{first}_{:016x}", self.next_transient());
        let starts = self.start_offsets(&plan, session)?;
        let (sender, rows) = client_channel(self.0.options.push_buffer_batches);
        let (schema, relation) = (plan.root.schema.clone(), plan.root.relation);
        let spec = QuerySpec {
            id: id.clone(),
            plan,
            output: Output::Client(sender),
            settings: self.query_settings(session),
            start: starts.iter().map(|(at, start, _)| (*at, *start)).collect(),
            backlog: starts.iter().map(|(at, _, end)| (*at, *end)).collect(),
            transient: true,
            memory: self.0.options.memory.clone(),
            schemas: self.0.schemas.clone(),
        };
        let query = self.build_query(spec)?;
        self.0.push.add(&id, text, session.owner(), self)?;
        let handle = PushQuery { id, schema, relation, rows, engine: self.clone() };
        self.hand_over(query, false)?;
        Ok(handle)
    }

    /// Reads a stream from its start to where it ends now. Blocks.
    fn pull_stream(&self, plan: QueryPlan, session: &Session) -> Result<PullResult> {
        let mut all = session.clone();
        all.set("auto.offset.reset", "earliest");
        let starts = self.start_offsets(&plan, &all)?;
        let (sender, mut rows) = client_channel(self.0.options.push_buffer_batches);
        let (schema, limit) = (plan.root.schema.clone(), plan.limit);
        let spec = QuerySpec {
            id: format!("pull_{:016x}", self.next_transient()),
            plan,
            output: Output::Client(sender),
            settings: self.query_settings(&all),
            start: starts.iter().map(|(at, start, _)| (*at, *start)).collect(),
            backlog: starts.iter().map(|(at, _, end)| (*at, *end)).collect(),
            transient: true,
            memory: self.0.options.memory.clone(),
            schemas: self.0.schemas.clone(),
        };
        let mut query = self.build_query(spec)?;
        let arrow = schema.to_arrow();
        let mut room = self.0.options.memory.pull_queries.reservation();
        let mut batches = Vec::new();
        if limit == Some(0) {
            return Ok(PullResult::of_stream(schema, batches, EndReason::LimitReached, room));
        }
        let (mut count, rows_max) = (0, self.0.options.pull_rows_max);
        loop {
            let reached = |at: &TopicPartition, offset: Offset| {
                starts.iter().find(|(p, ..)| p == at).is_none_or(|(_, _, end)| offset >= *end)
            };
            let done = query.positions().iter().all(|(at, offset)| reached(at, *offset));
            let outcome = if done { StepOutcome::Ended } else { query.step() };
            while let Some(event) = rows.try_recv() {
                match event {
                    ClientEvent::Rows(rows) if rows.is_empty() => {}
                    ClientEvent::Rows(rows) => {
                        count += rows.len();
                        if count > rows_max {
                            return Err(Error::bad_request(format!(
                                "the stream has more than {rows_max} rows; add a LIMIT, or raise pull_rows_max"
                            )));
                        }
                        let batch = rows.to_batch(&arrow)?;
                        pull::hold(&mut room, &batch)?;
                        batches.push(batch);
                    }
                    ClientEvent::End(EndReason::Failed(why)) => return Err(Error::bad_request(why)),
                    ClientEvent::End(end) => return Ok(PullResult::of_stream(schema, batches, end, room)),
                }
            }
            match outcome {
                StepOutcome::Progress { .. } | StepOutcome::Blocked => {}
                StepOutcome::Idle | StepOutcome::Ended => {
                    return Ok(PullResult::of_stream(schema, batches, EndReason::Completed, room));
                }
                StepOutcome::Stalled(why) => return Err(Error::retry(why)),
                StepOutcome::Failed { why, place } => return Err(Error::bad_request(format!("{why} ({place})"))),
            }
        }
    }

    fn print(&self, print: &Print, session: &Session) -> std::result::Result<PrintQuery, Problem> {
        let topic = self.storage().topic(&print.topic.node).ok_or_else(|| {
            let name = Ident { value: print.topic.node.clone(), quoted: true, span: print.topic.span };
            let others = self.storage().topics().into_iter().map(|topic| topic.name);
            not_found("topic", &name, others.filter(|topic| session.may_see(topic)))
        })?;
        let next = (0..topic.partitions)
            .map(|partition| {
                let at = TopicPartition { topic: topic.id, partition };
                let offsets = self.storage().offsets(at)?;
                Ok((at, if print.from_beginning { offsets.start } else { offsets.stable_end }))
            })
            .collect::<Result<Vec<_>>>()?;
        self.0.push.add_print()?;
        Ok(PrintQuery {
            topic: topic.name,
            engine: self.clone(),
            next,
            turn: 0,
            left: print.limit,
            interval: print.interval.unwrap_or(1).max(1),
            seen: 0,
            keys: Guesser::with_schemas(self.schemas().clone()),
            values: Guesser::with_schemas(self.schemas().clone()),
            header: [Told::Nothing; 2],
        })
    }
}

impl PrintQuery {
    /// The next lines, if any came within the time; `None` when the limit is reached or the topic is gone. Blocks.
    pub fn next_lines(&mut self, timeout: Duration) -> Result<Option<Vec<String>>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let storage = self.engine.storage().clone();
        let up_to = storage.sequence();
        let mut lines = Vec::new();
        let (partitions, first) = (self.next.len(), self.turn);
        let mut bytes = 0;
        for i in (first..partitions).chain(0..first.min(partitions)) {
            if bytes >= PRINT_BYTES {
                self.turn = i;
                return Ok(Some(lines));
            }
            let (at, from) = self.next[i];
            let limits = ReadLimits { records_max: PRINT_RECORDS, bytes_max: PRINT_BYTES, up_to };
            let records = match storage.read(at, from, limits) {
                Ok(records) => records,
                Err(e) if e.kind() == millpond_types::ErrorKind::NotFound => match storage.offsets(at) {
                    // Retention has removed what was next.
                    Ok(offsets) if offsets.start > from => {
                        self.next[i].1 = offsets.start;
                        continue;
                    }
                    _ => return Ok(None),
                },
                Err(e) => return Err(e),
            };
            for row in 0..records.views.len() {
                self.seen += 1;
                if !(self.seen - 1).is_multiple_of(self.interval) {
                    continue;
                }
                let (key, value) = (records.key(row), records.value(row));
                bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
                let (key, value) = (self.keys.show(key), self.values.show(value));
                if self.header[0] == Told::Nothing {
                    // NULLs say nothing: the first that is not counts, as far as records have been read.
                    let ahead = row + 1..records.views.len();
                    if !self.keys.knows()
                        && let Some(key) = ahead.clone().find_map(|row| records.key(row))
                    {
                        self.keys.show(Some(key));
                    }
                    if !self.values.knows()
                        && let Some(value) = ahead.clone().find_map(|row| records.value(row))
                    {
                        self.values.show(Some(value));
                    }
                }
                let sides = [("Key", &self.keys), ("Value", &self.values)];
                for ((side, guess), told) in sides.into_iter().zip(&mut self.header) {
                    if *told == Told::Nothing || (*told == Told::Null && guess.knows()) {
                        *told = if guess.knows() { Told::Format } else { Told::Null };
                        lines.push(format!("{side} format: {}", guess.formats()));
                    }
                }
                let mut time = Vec::new();
                write_timestamp(&mut time, records.views[row].timestamp);
                lines.push(format!(
                    "rowtime: {}Z, key: {key}, value: {value}, partition: {}",
                    String::from_utf8_lossy(&time),
                    at.partition
                ));
                if let Some(left) = &mut self.left {
                    *left -= 1;
                    if *left == 0 {
                        return Ok(Some(lines));
                    }
                }
            }
            self.next[i].1 = records.next_offset;
        }
        if lines.is_empty() {
            storage.wait_past(up_to, timeout);
        }
        Ok(Some(lines))
    }
}

//! The engine as its users hold it: statements in, answers and row streams out; persistent queries kept running.
//!
//! Owns the catalog snapshot and the lock under which it changes. Not here: how a query moves (`query`, `runner`), what
//! single statements do (`statements`), reading tables (`pull`).
//! Invariant: a change of the catalog is one commit; the snapshot in memory follows it, never leads it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use millpond_sql::plan::QueryPlan;
use millpond_sql::syntax::{Parsed, Statement};
use millpond_types::ports::{Consumers, Outcome, Step, Storage, TopicInfo};
use millpond_types::{Clock, Error, Offset, Result, TopicPartition};
use parking_lot::{Mutex, RwLock};
use tracing::{error, info};

use crate::catalog::{self, Catalog, QueryEntry};
use crate::entity::Answer;
use crate::environment::CatalogEnvironment;
use crate::error::{Problem, StatementError};
use crate::functions::{FunctionLibrary, FunctionSettings};
use crate::memory::EngineMemory;
use crate::modules::Modules;
use crate::processing_log::ProcessingLog;
use crate::query::{Output, Query, QuerySettings, QuerySpec};
use crate::runner::{QueryState, Runner};
use crate::session::{Session, default_property};

/// Settings of an engine. All have a default that suits one process on one machine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that move persistent and push queries.
    pub workers: usize,
    /// Server-wide values of session properties (`SET` overrides them).
    pub properties: BTreeMap<String, String>,
    /// Rows that a pull query may return.
    pub pull_rows_max: usize,
    /// Push queries open at once.
    pub push_queries_max: usize,
    /// Batches that wait for a slow reader of a push query before its steps pause.
    pub push_buffer_batches: usize,
    /// Persistent queries at once.
    pub queries_max: usize,
    /// What queries may hold, all together.
    pub memory: EngineMemory,
    /// Queries move only when they are told to, and every topic has one partition in storage, whatever was declared.
    /// For test cases, which prescribe who moves when.
    pub stepped: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            properties: BTreeMap::new(),
            pull_rows_max: 1_000_000,
            push_queries_max: 100,
            push_buffer_batches: 16,
            queries_max: 1_000,
            memory: EngineMemory::default(),
            stepped: false,
        }
    }
}

/// Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: EngineOptions,
    pub(crate) library: Arc<FunctionLibrary>,
    pub(crate) modules: Modules,
    pub(crate) schemas: Arc<crate::schemas::SchemaStore>,
    pub(crate) log: Arc<ProcessingLog>,
    pub(crate) runner: Runner,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    /// Held while a statement changes the catalog.
    pub(crate) change: Mutex<()>,
    /// Partitions and replicas as declared, where storage has only one partition (`stepped`).
    pub(crate) declared: Mutex<BTreeMap<String, (i32, i16)>>,
    pub(crate) push: crate::push::PushQueries,
    pub(crate) transient: AtomicU64,
    /// Changes of the catalog since this engine was opened; clients may wait for one by its number.
    pub(crate) changes: AtomicU64,
    /// ASSERT statements that wait.
    pub(crate) asserts: AtomicUsize,
    /// Why a query that is in the catalog could not be started.
    pub(crate) broken: Mutex<BTreeMap<String, String>>,
    /// Who reads topics beside queries, once somebody knows.
    pub(crate) consumers: OnceLock<Arc<dyn Consumers>>,
    /// Queries as they were built, when nobody else moves them (`stepped`).
    pub(crate) stepped: Mutex<BTreeMap<String, Query>>,
}

impl Engine {
    /// Loads the catalog and starts its queries where they were.
    pub fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        host: millpond_udfs::Host,
        options: EngineOptions,
    ) -> Result<Self> {
        let library = Arc::new(FunctionLibrary::new(function_settings(&options)));
        let log = Arc::new(ProcessingLog::default());
        let modules = Modules::open(storage.clone(), host, library.clone())?;
        let catalog = Catalog::load(storage.as_ref())?;
        let schemas = Arc::new(crate::schemas::SchemaStore::load(storage.as_ref())?);
        let runner =
            Runner::new(storage.clone(), options.memory.clone(), if options.stepped { 0 } else { options.workers })?;
        let engine = Self(Arc::new(Inner {
            storage,
            clock,
            library,
            modules,
            schemas,
            log,
            runner,
            catalog: RwLock::new(Arc::new(catalog)),
            change: Mutex::new(()),
            declared: Mutex::new(BTreeMap::new()),
            push: crate::push::PushQueries::new(options.push_queries_max),
            asserts: AtomicUsize::new(0),
            transient: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            broken: Mutex::new(BTreeMap::new()),
            consumers: OnceLock::new(),
            stepped: Mutex::new(BTreeMap::new()),
            options,
        }));
        for query in engine.catalog().queries_in_order() {
            engine.resume_or_tell(&query);
        }
        Ok(engine)
    }

    /// Has SHOW TOPICS EXTENDED count these beside queries. The first call counts.
    pub fn count_consumers(&self, consumers: Arc<dyn Consumers>) {
        self.0.consumers.get_or_init(|| consumers);
    }

    /// Stops all queries at the end of their step. What was committed stays; nothing else is lost, as nothing else counts.
    pub fn close(&self) {
        self.0.push.close_all();
        self.0.runner.shutdown();
    }

    /// Runs statements in order; the first failure stops. Bare SELECT and PRINT are refused here (see [`Engine::select`]).
    pub fn execute(&self, text: &str, session: &mut Session) -> std::result::Result<Vec<Answer>, StatementError> {
        let parsed = self.parse(text, session)?;
        let mut done = Vec::with_capacity(parsed.len());
        for one in parsed {
            match crate::statements::run(self, &one, session) {
                Ok(answer) => done.push(answer),
                Err(problem) => return Err(StatementError { problem, statement: one.text, done }),
            }
        }
        Ok(done)
    }

    /// Whether a text writes rows, which waits until they are durable.
    pub fn writes_rows(&self, text: &str, session: &Session) -> bool {
        let writes = |one: &Parsed| matches!(one.statement, Statement::InsertValues(_));
        self.parse(text, session).is_ok_and(|parsed| parsed.iter().any(writes))
    }

    pub(crate) fn parse(&self, text: &str, session: &Session) -> std::result::Result<Vec<Parsed>, StatementError> {
        let failed = |problem| StatementError { problem, statement: String::new(), done: Vec::new() };
        for (name, value) in session.overrides() {
            crate::session::check_value(name, value).map_err(|e| failed(Problem::Failed(e)))?;
        }
        let substitute = self.property(session, "ksql.variable.substitution.enable").as_deref() != Some("false");
        let parsed = if substitute {
            millpond_sql::parse_with_variables(text, &session.variables)
        } else {
            millpond_sql::parse(text)
        };
        parsed.map_err(|d| failed(d.into()))
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.read().clone()
    }

    pub fn functions(&self) -> &Arc<FunctionLibrary> {
        &self.0.library
    }

    pub fn modules(&self) -> &Modules {
        &self.0.modules
    }

    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.0.storage
    }

    pub fn processing_log(&self) -> &Arc<ProcessingLog> {
        &self.0.log
    }

    /// A property as this session sees it: its own value, the server's, the default.
    pub fn property(&self, session: &Session, name: &str) -> Option<String> {
        session
            .get(name)
            .or_else(|| self.0.options.properties.get(name).map(String::as_str))
            .or_else(|| default_property(name))
            .map(str::to_string)
    }

    pub(crate) fn environment<'a>(&'a self, catalog: &'a Catalog, session: &'a Session) -> CatalogEnvironment<'a> {
        CatalogEnvironment { engine: self, catalog, session, hidden: None, planned: None, warnings: None }
    }

    /// Tells what a topic was declared with, where storage keeps one partition only (see [`EngineOptions::stepped`]).
    pub fn declare_topic(&self, name: &str, partitions: i32, replicas: i16) {
        self.0.declared.lock().insert(name.to_string(), (partitions, replicas));
    }

    /// Partitions and replicas of a topic as statements see them.
    pub(crate) fn topic_shape(&self, name: &str) -> Option<(i32, i16)> {
        if self.0.options.stepped
            && let Some(shape) = self.0.declared.lock().get(name)
        {
            return Some(*shape);
        }
        self.0.storage.topic(name).map(|info| (info.partitions, info.replicas))
    }

    /// Commits a change of the catalog and then shows it; returns the change's number. The caller holds `change`.
    pub(crate) fn commit(&self, mut step: Step, change: impl FnOnce(&mut Catalog)) -> Result<(u64, Vec<TopicInfo>)> {
        step.generation = self.0.storage.assignment().generation;
        if self.0.options.stepped {
            for spec in &mut step.create_topics {
                self.declare_topic(&spec.name, spec.partitions, spec.replicas);
                spec.partitions = 1;
            }
        }
        match self.0.storage.commit(step).wait() {
            Outcome::Committed { created, .. } => {
                let mut catalog = Catalog::clone(&self.catalog());
                change(&mut catalog);
                *self.0.catalog.write() = Arc::new(catalog);
                Ok((self.0.changes.fetch_add(1, Ordering::Relaxed) + 1, created))
            }
            Outcome::Fenced => Err(Error::conflict("another process has taken over this data directory")),
            Outcome::Retry(why) => Err(Error::retry(why)),
            Outcome::Fatal(why) => Err(Error::bad_request(why)),
        }
    }

    /// Where a new query starts and where its backlog ends, for each partition it reads.
    pub(crate) fn start_offsets(
        &self,
        plan: &QueryPlan,
        session: &Session,
    ) -> Result<Vec<(TopicPartition, Offset, Offset)>> {
        let latest = self.property(session, "auto.offset.reset").as_deref() != Some("earliest");
        let catalog = self.catalog();
        let mut starts: Vec<(TopicPartition, Offset, Offset)> = Vec::new();
        for name in &plan.sources {
            let source = catalog
                .sources
                .get(name)
                .ok_or_else(|| Error::not_found(format!("source \"{name}\" does not exist")))?;
            let topic = self.topic_of(&source.topic)?;
            for partition in 0..topic.partitions {
                let at = TopicPartition { topic: topic.id, partition };
                if starts.iter().any(|(seen, ..)| *seen == at) {
                    continue;
                }
                let offsets = self.0.storage.offsets(at)?;
                starts.push((at, if latest { offsets.stable_end } else { offsets.start }, offsets.stable_end));
            }
        }
        Ok(starts)
    }

    pub(crate) fn topic_of(&self, name: &str) -> Result<TopicInfo> {
        self.0.storage.topic(name).ok_or_else(|| Error::not_found(format!("topic \"{name}\" does not exist")))
    }

    pub(crate) fn query_settings(&self, session: &Session) -> QuerySettings {
        QuerySettings::from_properties(&|name| self.property(session, name))
    }

    pub(crate) fn build_query(&self, spec: QuerySpec) -> Result<Query> {
        let inner = &self.0;
        let (library, clock, log) = (inner.library.clone(), inner.clock.clone(), inner.log.clone());
        let query = Query::new(spec, inner.storage.clone(), library, clock, log)?;
        Ok(query.helped_by(inner.runner.crew()))
    }

    /// Lets a query move: by itself, or when it is told to (`stepped`).
    pub(crate) fn hand_over(&self, query: Query, paused: bool) -> Result<()> {
        if self.0.options.stepped {
            self.0.stepped.lock().insert(query.id().to_string(), query);
            return Ok(());
        }
        self.0.runner.start(query, paused)
    }

    /// Stops a query at the end of its step; it has no part in anything when this returns. Blocks for that long.
    pub(crate) fn stop_query(&self, id: &str) {
        self.0.runner.stop(id);
        self.0.stepped.lock().remove(id);
        self.0.broken.lock().remove(id);
    }

    /// Ends a push query without waiting for it.
    pub(crate) fn abandon_query(&self, id: &str) {
        self.0.runner.abandon(id);
        self.0.stepped.lock().remove(id);
    }

    /// Lets a query of the catalog rest or go on. One that could not be started, or ended in an error, is built anew.
    pub(crate) fn pause_query(&self, entry: &QueryEntry) {
        if entry.paused {
            return self.0.runner.pause(&entry.id);
        }
        let failed = matches!(self.0.runner.state(&entry.id), Some(QueryState::Error(..)));
        if failed || self.0.broken.lock().contains_key(&entry.id) {
            self.stop_query(&entry.id);
            self.resume_or_tell(entry);
        } else {
            self.0.runner.resume(&entry.id);
        }
    }

    /// Starts a query of the catalog where it was; if that is not possible, it is in ERROR and says why.
    pub(crate) fn resume_or_tell(&self, entry: &QueryEntry) {
        if let Err(problem) = self.resume_query(entry) {
            error!(query_id = entry.id, reason = %problem, "query could not be started");
            self.0.broken.lock().insert(entry.id.clone(), problem.to_string());
        }
    }

    /// State of a persistent query, and why where it is not simply running.
    pub fn query_state(&self, id: &str) -> (String, Option<String>) {
        if let Some(why) = self.0.broken.lock().get(id) {
            return ("ERROR".into(), Some(why.clone()));
        }
        match self.0.runner.state(id) {
            Some(QueryState::Running) | None => ("RUNNING".into(), None),
            Some(QueryState::Paused) => ("PAUSED".into(), None),
            Some(QueryState::Stalled(why)) => ("STALLED".into(), Some(why)),
            Some(QueryState::Error(why, place)) if place.is_empty() => ("ERROR".into(), Some(why)),
            Some(QueryState::Error(why, place)) => ("ERROR".into(), Some(format!("{why} ({place})"))),
            Some(QueryState::Ended) => ("TERMINATED".into(), None),
        }
    }

    /// Counters of a query since it was started, by name.
    pub fn query_metrics(&self, id: &str) -> Vec<(&'static str, u64)> {
        self.0.runner.metrics(id)
    }

    /// Ends a push query. False where there is none of this id.
    pub fn close_push(&self, id: &str, session: &Session) -> Result<bool> {
        let Some(owner) = self.0.push.owner(id) else { return Ok(false) };
        session.check_owner("query", id, owner.as_deref())?;
        Ok(self.0.push.close(id))
    }

    /// Queries that use a WebAssembly module, by id.
    pub fn module_users(&self, digest: &str) -> Vec<String> {
        let catalog = self.catalog();
        let uses = |q: &&Arc<QueryEntry>| q.modules.iter().any(|(_, d)| d == digest);
        catalog.queries.values().filter(uses).map(|q| q.id.clone()).collect()
    }

    /// Takes a WebAssembly module in; its exports are SQL functions when this returns. Blocks while it compiles.
    pub fn put_module(&self, name: &str, upload: &[u8]) -> Result<millpond_udfs::Put> {
        self.0.modules.put(name, upload, &|digest| self.module_users(digest))
    }

    /// Removes a module that no query uses.
    pub fn delete_module(&self, name: &str) -> Result<()> {
        // No query may come to use it meanwhile.
        let _guard = self.0.change.lock();
        self.0.modules.delete(name, &|digest| self.module_users(digest)).map(|_| ())
    }

    /// How many push queries have been opened since the engine was.
    pub fn push_queries_opened(&self) -> u64 {
        self.0.push.opened()
    }

    /// A number for the id of a push query.
    pub(crate) fn next_transient(&self) -> u64 {
        self.0.transient.fetch_add(1, Ordering::Relaxed)
    }

    /// Plans a query of the catalog again and hands it to the runner.
    fn resume_query(&self, entry: &QueryEntry) -> std::result::Result<(), Problem> {
        let session = Session::with_properties(&entry.properties);
        let catalog = self.catalog();
        let (plan, output) = crate::statements::plan_entry(self, &catalog, &session, entry)?;
        self.start_query(entry, plan, output, &session)?;
        Ok(())
    }

    /// Builds the query of an entry whose cursors are in storage, and lets it move.
    pub(crate) fn start_query(
        &self,
        entry: &QueryEntry,
        plan: QueryPlan,
        output: Output,
        session: &Session,
    ) -> Result<()> {
        let spec = QuerySpec {
            id: entry.id.clone(),
            plan,
            output,
            settings: self.query_settings(session),
            start: Vec::new(),
            backlog: entry.backlog.clone(),
            transient: false,
            memory: self.0.options.memory.clone(),
            schemas: self.0.schemas.clone(),
        };
        if let Err(e) = self.build_query(spec).and_then(|query| self.hand_over(query, entry.paused)) {
            // The entry is committed: it stays, and says what is wrong.
            self.0.broken.lock().insert(entry.id.clone(), e.to_string());
            return Err(e);
        }
        info!(query_id = entry.id, "query started");
        Ok(())
    }

    /// Moves one query until it has nothing left to do (see [`EngineOptions::stepped`]).
    pub fn drain(&self, id: &str) -> Result<()> {
        let Some(mut query) = self.0.stepped.lock().remove(id) else {
            return Err(Error::not_found(format!("query \"{id}\" does not exist")));
        };
        let result = query.drain();
        self.0.stepped.lock().insert(id.to_string(), query);
        result.map(|_| ())
    }

    /// Forgets a persistent query: stops it, then drops its cursors, state and entry in one commit, together with `step`.
    /// The caller holds `change`.
    pub(crate) fn drop_queries(
        &self,
        ids: &[String],
        mut step: Step,
        change: impl FnOnce(&mut Catalog),
    ) -> Result<u64> {
        for id in ids {
            self.stop_query(id);
            step.drop_cursors.push(id.clone());
            step.drop_state.extend([crate::state::key::query_range(id)]);
            step.catalog.push(catalog::delete_query(id));
        }
        let committed = self.commit(step, |catalog| {
            for id in ids {
                catalog.queries.remove(id);
            }
            change(catalog);
        });
        if committed.is_err() {
            // They are still there, and so they go on.
            for entry in ids.iter().filter_map(|id| self.catalog().queries.get(id).cloned()) {
                self.resume_or_tell(&entry);
            }
        }
        Ok(committed?.0)
    }
}

/// `ksql.functions.*` are settings of the server.
fn function_settings(options: &EngineOptions) -> FunctionSettings {
    let property = |name: &str| options.properties.get(name).map(String::as_str);
    let limit = |name: &str| property(name).and_then(|v| v.parse().ok()).unwrap_or(usize::MAX);
    FunctionSettings {
        collect_list_max: limit("ksql.functions.collect_list.limit"),
        collect_set_max: limit("ksql.functions.collect_set.limit"),
        substring_legacy: property("ksql.functions.substring.legacy.args") == Some("true"),
    }
}

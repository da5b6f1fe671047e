//! One open data directory.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use futures::Stream;
use millpond_broker::storage::{Storage, StorageOptions};
use millpond_engine::entity::Answer;
use millpond_engine::memory::EngineMemory;
use millpond_engine::push::{PushQuery, Selected};
use millpond_engine::query::{ClientEvent, EndReason};
use millpond_engine::session::Session;
use millpond_engine::{Engine, EngineOptions, ModuleEntry};
use millpond_types::ports::{Outcome, Step, TopicLog, TopicSpec, is_internal, partition_of};
use millpond_types::record::{OwnedRecord, RecordBuffer, encode_headers};
use millpond_types::{Error, Result, Schema, TopicPartition};
use millpond_udfs::{CompileCommand, Host, HostOptions};

use crate::memory::{self, Memory};

/// How a database is opened. Only the path has no default.
#[derive(Clone)]
pub struct DatabaseOptions {
    pub storage: StorageOptions,
    pub engine: EngineOptions,
    /// Limits of WebAssembly guests.
    pub guests: millpond_udfs::Limits,
    /// Bytes that this database may take; `None`: half of the machine's memory, at least 1 GiB.
    pub memory_budget: Option<usize>,
    /// Parts of the budget that somebody else uses, such as listeners, by name.
    pub memory_set_aside: Vec<(&'static str, usize)>,
    /// The command that compiles WebAssembly in a process of its own; `None` compiles in this process.
    pub compiler: Option<CompileCommand>,
}

impl DatabaseOptions {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            storage: StorageOptions::new(path),
            engine: EngineOptions::default(),
            guests: millpond_udfs::Limits::default(),
            memory_budget: None,
            memory_set_aside: Vec::new(),
            compiler: None,
        }
    }
}

/// A log with its engine. Cheap to clone; all clones are the same database.
#[derive(Clone)]
pub struct Database {
    storage: Storage,
    engine: Engine,
    memory: Arc<Memory>,
}

/// The answer to a pull query.
pub struct Rows {
    pub schema: Schema,
    pub batches: Vec<RecordBatch>,
}

impl Database {
    /// Opens or creates the database in a directory. Fails where another process holds it, and where the directory is
    /// not one of Millpond's. Queries go on where they were.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(DatabaseOptions::new(path))
    }

    pub fn open_with(options: DatabaseOptions) -> Result<Self> {
        let path = &options.storage.path;
        if path.is_file() {
            return Err(Error::conflict(format!("\"{}\" is a file; the data are kept in a directory", path.display())));
        }
        let cache = path.join("compiled");
        let clock = options.storage.clock.clone();
        let mut fixed = options.storage.memory_limits().to_vec();
        fixed.extend(options.memory_set_aside);
        let memory = Memory::new(options.memory_budget.unwrap_or_else(memory::default_budget), &fixed)?;
        let storage = Storage::open(options.storage)?;
        let host = Host::new(HostOptions {
            limits: options.guests,
            compiler: options.compiler,
            cache_dir: Some(cache),
            log: None,
            memory: Some(memory.shared().clone()),
        });
        let engine = EngineOptions { memory: EngineMemory::within(memory.shared()), ..options.engine };
        let engine = Engine::open(Arc::new(storage.clone()), clock, host, engine)?;
        Ok(Self { storage, engine, memory })
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Runs statements in order, each to its end; the first failure stops. Blocks.
    pub fn execute(&self, statements: &str) -> Result<Vec<Answer>> {
        self.execute_in(statements, &mut Session::new())
    }

    /// The same with properties and variables that last.
    pub fn execute_in(&self, statements: &str, session: &mut Session) -> Result<Vec<Answer>> {
        self.engine.execute(statements, session).map_err(|e| Error::new(e.problem.kind(), e.to_string()))
    }

    /// Runs a pull query: a SELECT without EMIT CHANGES. Blocks until all rows are there.
    pub fn query(&self, select: &str) -> Result<Rows> {
        match self.select(select, &Session::new())? {
            Selected::Pull(result) => Ok(Rows { schema: result.schema, batches: result.batches }),
            _ => Err(Error::bad_request("this SELECT never ends; use subscribe for EMIT CHANGES")),
        }
    }

    /// Starts a push query (`SELECT ... EMIT CHANGES`): a stream of Arrow batches that ends when it is dropped.
    pub fn subscribe(&self, select: &str) -> Result<Subscription> {
        self.subscribe_in(select, &Session::new())
    }

    pub fn subscribe_in(&self, select: &str, session: &Session) -> Result<Subscription> {
        match self.select(select, session)? {
            Selected::Push(query) => Ok(Subscription { schema: query.schema.clone(), query, ended: false }),
            _ => Err(Error::bad_request("only SELECT ... EMIT CHANGES can be subscribed to; use query for this one")),
        }
    }

    fn select(&self, text: &str, session: &Session) -> Result<Selected> {
        self.engine.select(text, session).map_err(|e| Error::new(e.problem.kind(), e.to_string()))
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let spec = TopicSpec { name: name.into(), partitions, replicas: 1, configs: Default::default() };
        self.commit(Step { create_topics: vec![spec], ..Step::default() })
    }

    /// Appends records to a topic, each to the partition of its key (without a key: to the first), all or none. They are
    /// durable when this returns.
    pub fn produce(&self, topic: &str, records: &[OwnedRecord]) -> Result<()> {
        let info = self.storage.topic(topic);
        let info = info.ok_or_else(|| Error::not_found(format!("topic \"{topic}\" does not exist")))?;
        if is_internal(topic) {
            return Err(Error::bad_request(format!("cannot append to internal topic \"{topic}\"")));
        }
        let mut buffers = vec![RecordBuffer::default(); usize::try_from(info.partitions).unwrap_or(0)];
        for record in records {
            let partition = record.key.as_deref().map_or(0, |key| partition_of(key, info.partitions));
            let headers = if record.headers.is_empty() { Vec::new() } else { encode_headers(&record.headers) };
            if let Some(buffer) = buffers.get_mut(partition as usize) {
                buffer.push(record.key.as_deref(), record.value.as_deref(), record.timestamp, &headers);
            }
        }
        let appends = (0..)
            .zip(buffers)
            .filter(|(_, buffer)| !buffer.is_empty())
            .map(|(partition, buffer)| (TopicPartition { topic: info.id, partition }, buffer))
            .collect();
        self.commit(Step { appends, ..Step::default() })
    }

    fn commit(&self, mut step: Step) -> Result<()> {
        step.generation = self.storage.assignment().generation;
        match self.storage.commit(step).wait() {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Fenced => Err(Error::conflict("another process has taken over this data directory")),
            Outcome::Retry(why) => Err(Error::retry(why)),
            Outcome::Fatal(why) => Err(Error::bad_request(why)),
        }
    }

    /// Takes a WebAssembly component in; its exports are SQL functions when this returns. Blocks while it compiles.
    pub fn register_module(&self, name: &str, component: &[u8]) -> Result<ModuleEntry> {
        Ok(self.engine.put_module(name, component)?.entry().clone())
    }

    /// Stops all queries at the end of their step, writes everything out, and lets the directory go.
    pub fn close(&self) -> Result<()> {
        self.engine.close();
        self.storage.close().map_err(Error::from)
    }
}

/// The rows of a push query, as they come. Dropping it ends the query.
pub struct Subscription {
    pub schema: Schema,
    query: PushQuery,
    ended: bool,
}

impl Subscription {
    /// The next rows; `None` when the query has ended. Blocks.
    pub fn next_blocking(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if self.ended {
                return None;
            }
            let event = self.query.rows.blocking_recv();
            if let Some(item) = self.item(event) {
                return item;
            }
        }
    }

    /// What an event means to the reader: an item, the end, or nothing yet.
    fn item(&mut self, event: Option<ClientEvent>) -> Option<Option<Result<RecordBatch>>> {
        match event {
            Some(ClientEvent::Rows(rows)) if rows.is_empty() => None,
            Some(ClientEvent::Rows(rows)) => Some(Some(rows.to_batch(&self.schema.to_arrow()))),
            Some(ClientEvent::End(EndReason::Failed(why))) => {
                self.ended = true;
                Some(Some(Err(Error::new(millpond_types::ErrorKind::Conflict, why))))
            }
            Some(ClientEvent::End(_)) | None => {
                self.ended = true;
                Some(None)
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            let event = std::task::ready!(self.query.rows.poll_recv(cx));
            if let Some(item) = self.item(event) {
                return Poll::Ready(item);
            }
        }
        Poll::Ready(None)
    }
}

//! How many events a second does one query take, on one worker or with the help of others, storage in memory? Run:
//! `cargo run -p millpond-engine --example engine_speed [EVENTS [QUERY [WORKERS]]]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use millpond_engine::crew::Crew;
use millpond_engine::functions::FunctionLibrary;
use millpond_engine::processing_log::ProcessingLog;
use millpond_engine::query::{Output, Query, QuerySettings, QuerySpec};
use millpond_sql::analyse::analyse;
use millpond_sql::functions::FunctionCatalog;
use millpond_sql::plan::{Analysed, Environment, FormatError, FormatSpec, Side, SourceInfo};
use millpond_types::memory::MemoryStorage;
use millpond_types::ports::{Step, TopicLog, TopicSpec};
use millpond_types::record::RecordBuffer;
use millpond_types::{Error, Field, ManualClock, Result, SqlType, TopicPartition};

const STATEMENTS: &str = "\
CREATE STREAM hits (ip STRING KEY, url STRING, status INT, bytes BIGINT, agent STRING) \
  WITH (KAFKA_TOPIC='hits', VALUE_FORMAT='JSON', PARTITIONS=4);\
CREATE STREAM passed AS SELECT * FROM hits;\
CREATE STREAM filtered AS SELECT ip, url, bytes * 2 AS twice FROM hits WHERE status >= 500;\
CREATE TABLE per_url AS SELECT url, COUNT(*) AS n FROM hits GROUP BY url;\
CREATE TABLE per_minute AS SELECT url, COUNT(*) AS n, SUM(bytes) AS total FROM hits \
  WINDOW TUMBLING (SIZE 1 MINUTE) GROUP BY url;\
CREATE TABLE agents (agent STRING PRIMARY KEY, name STRING) \
  WITH (KAFKA_TOPIC='agents', VALUE_FORMAT='JSON', PARTITIONS=4);\
CREATE STREAM enriched AS SELECT hits.agent AS agent, ip, name FROM hits JOIN agents ON hits.agent = agents.agent;";

struct World {
    sources: BTreeMap<String, Arc<SourceInfo>>,
    library: Arc<FunctionLibrary>,
    storage: Arc<MemoryStorage>,
}

impl Environment for World {
    fn source(&self, name: &str) -> Option<Arc<SourceInfo>> {
        self.sources.get(name).cloned()
    }

    fn source_names(&self) -> Vec<String> {
        self.sources.keys().cloned().collect()
    }

    fn custom_type(&self, _name: &str) -> Option<SqlType> {
        None
    }

    fn functions(&self) -> &dyn FunctionCatalog {
        self.library.as_ref()
    }

    fn topic(&self, name: &str) -> Option<(i32, i16)> {
        self.storage.topic(name).map(|t| (t.partitions, t.replicas))
    }

    fn property(&self, name: &str) -> Option<String> {
        (name == "ksql.persistence.default.format.key").then(|| "KAFKA".to_string())
    }

    fn check_format(&self, _: &FormatSpec, _: Side, _: &[(String, SqlType)]) -> std::result::Result<(), FormatError> {
        Ok(())
    }

    fn key_format_supports(&self, name: &str, columns: &[(String, SqlType)]) -> bool {
        let fields: Vec<Field> = columns.iter().map(|(n, t)| Field::new(n.as_str(), t.clone())).collect();
        millpond_formats::Format::parse(name)
            .is_ok_and(|f| f.check_columns(millpond_formats::Side::Key, &fields).is_ok())
    }
}

fn create_topic(storage: &MemoryStorage, name: &str, partitions: i32) -> Result<()> {
    if storage.topic(name).is_none() {
        let spec = TopicSpec { name: name.into(), partitions, replicas: 1, configs: BTreeMap::new() };
        storage.create_topic(spec)?;
    }
    Ok(())
}

/// Events in batches of 500, spread over the partitions, a minute of event time in 20,000 events.
fn produce(storage: &MemoryStorage, events: usize) -> Result<usize> {
    let topic = storage.topic("hits").ok_or_else(|| Error::bug("no topic"))?;
    let agents = storage.topic("agents").ok_or_else(|| Error::bug("no topic"))?;
    let mut bytes = 0;
    for agent in 0..16 {
        let mut buffer = RecordBuffer::default();
        let key = format!("Mozilla/5.0 ({agent})");
        buffer.push(Some(key.as_bytes()), Some(format!("{{\"NAME\":\"agent {agent}\"}}").as_bytes()), 0, &[]);
        let partition = millpond_types::ports::partition_of(key.as_bytes(), agents.partitions);
        let at = TopicPartition { topic: agents.id, partition };
        storage.commit(Step { appends: vec![(at, buffer)], ..Step::default() }).wait();
    }
    for batch in 0..events.div_ceil(500) {
        let mut buffer = RecordBuffer::default();
        for i in batch * 500..((batch + 1) * 500).min(events) {
            let key = format!("10.0.{}.{}", i % 7, i % 251);
            let status = if i % 20 == 0 { 500 } else { 200 };
            let value = format!(
                "{{\"URL\":\"/articles/{}/index.html\",\"STATUS\":{status},\"BYTES\":{},\"AGENT\":\"Mozilla/5.0 ({})\"}}",
                (i * 7919) % 10_007,
                i % 5000,
                i % 16
            );
            bytes += key.len() + value.len();
            buffer.push(Some(key.as_bytes()), Some(value.as_bytes()), i as i64 * 3, &[]);
        }
        let at = TopicPartition { topic: topic.id, partition: batch as i32 % topic.partitions };
        storage.commit(Step { appends: vec![(at, buffer)], ..Step::default() }).wait();
    }
    Ok(bytes)
}

/// Seconds of processor time that this process has used, where the system tells it in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a measurement for a person")]
fn main() -> Result<()> {
    let events: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(400_000);
    let only = std::env::args().nth(2).filter(|name| name != "all");
    let workers: usize = std::env::args().nth(3).and_then(|n| n.parse().ok()).unwrap_or(1);
    let storage = Arc::new(MemoryStorage::new());
    let library = Arc::new(FunctionLibrary::default());
    let mut world = World { sources: BTreeMap::new(), library: library.clone(), storage: storage.clone() };
    let mut queries = Vec::new();
    for one in millpond_sql::parse(STATEMENTS).map_err(|e| Error::bad_request(e.to_string()))? {
        match analyse(&one.statement, &one.text, &world).map_err(|e| Error::bad_request(e.to_string()))? {
            Analysed::CreateSource { source, create_topic: shape, .. } => {
                create_topic(&storage, &source.topic, shape.map_or(1, |(p, _)| p))?;
                world.sources.insert(source.name.clone(), Arc::new(source));
            }
            Analysed::CreateAs { query, sink, .. } => {
                create_topic(&storage, &sink.source.topic, sink.source.partitions)?;
                world.sources.insert(sink.source.name.clone(), Arc::new(sink.source.clone()));
                queries.push((query, sink.source));
            }
            _ => return Err(Error::bug("not a statement for here")),
        }
    }
    let bytes = produce(&storage, events)?;
    println!("{events} events, {} MB of keys and values", bytes >> 20);
    for (plan, target) in queries {
        let name = target.name.clone();
        if only.as_ref().is_some_and(|o| !name.eq_ignore_ascii_case(o)) {
            continue;
        }
        let spec = QuerySpec {
            id: name.clone(),
            plan,
            output: Output::Sink { target, materialise: true, timestamp: None },
            settings: QuerySettings::default(),
            start: Vec::new(),
            backlog: Vec::new(),
            transient: false,
            memory: Default::default(),
            schemas: Arc::new(millpond_formats::NoSchemas),
        };
        let clock = Arc::new(ManualClock::at(0));
        let mut query = Query::new(spec, storage.clone(), library.clone(), clock, Arc::new(ProcessingLog::default()))?;
        let crew = Arc::new(Crew::new(workers));
        query = query.helped_by(&crew);
        let _busy = crew.work();
        let (started, cpu) = (Instant::now(), cpu_seconds());
        query.drain()?;
        let cpu = (cpu_seconds() - cpu) * 1e6 / events as f64;
        let seconds = started.elapsed().as_secs_f64();
        let out = query.metrics().list().iter().find(|(n, _)| *n == "rows_out").map_or(0, |(_, v)| *v);
        let rate = events as f64 / seconds;
        println!("{name:12} {rate:>12.0} events/s   {cpu:.2} CPU s per million   {out:>9} rows out");
    }
    Ok(())
}

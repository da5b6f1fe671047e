//! One case of ksqlDB's REST tests: statements, rows and errors as a client gets them from the HTTP server.
//!
//! Each case has an engine with threads of its own, storage in memory and a server on a free port of the loopback
//! interface. Here queries move by themselves, so a case waits until they have read all that was written.
//!
//! As in ksqlDB's own runner: expected objects may leave members out, rows of an answer come in any order, what is not a
//! SELECT goes to `/ksql` in one request, each SELECT to `/query`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millpond_engine::{Engine, EngineOptions};
use millpond_formats::json::{Comments, Json};
use millpond_formats::{Schema, SchemaKind, Schemas, framed_to_json};
use millpond_server::{HttpOptions, HttpSecurity};
use millpond_types::memory::MemoryStorage;
use millpond_types::ports::{TopicLog, TopicSpec, partition_of};
use millpond_types::{ManualClock, TopicPartition};
use millpond_udfs::{Host, HostOptions};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::compare::{difference, show};
use super::file::{Case, ExpectedError, Rest};
use super::run::{NOW_MS, compare_outputs, encode, topics_of};
use crate::http_client::{self, Trust};

/// Longest time until queries have read what was written, and that one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks at queries that have not read everything.
const POLL: Duration = Duration::from_millis(2);
/// Stack of threads that run statements: deep expressions recurse.
const STACK_BYTES: usize = 16 << 20;
/// What every server of the cases is set to, as ksqlDB's runner does it.
const SETTINGS: [(&str, &str); 4] = [
    ("auto.offset.reset", "earliest"),
    ("cache.max.bytes.buffering", "0"),
    ("ksql.compat.quirks", "true"),
    ("ksql.query.push.v2.enabled", "true"),
];

/// Threads and a client for all cases.
struct Loopback {
    runtime: Runtime,
    client: reqwest::Client,
}

fn loopback() -> Result<&'static Loopback, String> {
    static SHARED: OnceLock<Result<Loopback, String>> = OnceLock::new();
    let make = || -> anyhow::Result<Loopback> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).thread_stack_size(STACK_BYTES).thread_name("case-io").enable_all();
        let runtime = runtime.build().context("no runtime for HTTP")?;
        let client = http_client::builder(Trust::Nobody)?.timeout(PATIENCE).build()?;
        Ok(Loopback { runtime, client })
    };
    SHARED.get_or_init(|| make().map_err(|e| format!("{e:#}"))).as_ref().map_err(Clone::clone)
}

pub(super) fn run(case: &Case, rest: &Rest) -> Result<(), String> {
    let shared = loopback()?;
    let storage = Arc::new(MemoryStorage::new());
    let properties = SETTINGS.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    let options = EngineOptions { workers: 2, properties, ..EngineOptions::default() };
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let engine =
        Engine::open(storage.clone(), clock, Host::new(HostOptions::default()), options).map_err(|e| e.to_string())?;
    super::functions::register(engine.functions()).map_err(|e| e.to_string())?;
    create_topics(case, &storage);
    super::schemas::register(case, &engine)?;
    let served = shared.runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
        let (options, security) = (HttpOptions::default(), HttpSecurity::default());
        let server = millpond_server::serve(listener, engine.clone(), "cases".into(), Vec::new(), options, security)
            .map_err(|e| e.to_string())?;
        let session = Session { case, base: format!("http://{}", server.address), client: &shared.client };
        let result = session.play(rest, &engine, &storage).await;
        server.shutdown().await;
        result
    });
    let result = served.and_then(|()| compare_outputs(case, &engine, &storage));
    close(engine, &storage);
    result
}

/// Stops the engine's threads. The one that watches the log looks up when something comes.
fn close(engine: Engine, storage: &MemoryStorage) {
    let spec = TopicSpec { name: "wake".into(), partitions: 1, replicas: 1, configs: Default::default() };
    let wake = storage.create_topic(spec).map(|info| TopicPartition { topic: info.id, partition: 0 });
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| engine.close());
        while let (Ok(wake), false) = (&wake, closing.is_finished()) {
            let _gone = storage.produce(*wake, Default::default());
            wait(POLL);
        }
    });
}

#[allow(clippy::disallowed_methods, reason = "for threads whose end nothing announces")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

fn create_topics(case: &Case, storage: &MemoryStorage) {
    for (name, partitions, replicas) in topics_of(case) {
        let spec = TopicSpec { name, partitions, replicas, configs: Default::default() };
        // A name that no topic can have is the statement's problem, not the runner's.
        let _refused = storage.create_topic(spec);
    }
}

/// Writes the inputs as a producer would: to the partition of each key, whose window does not count.
fn produce(case: &Case, engine: &Engine, storage: &MemoryStorage) -> Result<(), String> {
    for input in &case.inputs {
        let topic = storage.topic(&input.topic).ok_or_else(|| format!("there is no topic \"{}\"", input.topic))?;
        let (record, inner_key) = encode(input, engine)?;
        let partition = inner_key.map_or(0, |key| partition_of(&key, topic.partitions));
        storage.produce(TopicPartition { topic: topic.id, partition }, record).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Waits until every persistent query has read all that its topics hold.
async fn settle(engine: &Engine, storage: &MemoryStorage) -> Result<(), String> {
    let looks = PATIENCE.as_millis() / POLL.as_millis();
    for _ in 0..looks {
        let mut behind = false;
        for query in engine.catalog().queries_in_order() {
            if let (state, Some(why)) = engine.query_state(&query.id) {
                return Err(format!("query {} is {state}: {why}", query.id));
            }
            for cursor in storage.cursors(&query.id).map_err(|e| e.to_string())? {
                behind |= storage.offsets(cursor.source).is_ok_and(|o| o.stable_end > cursor.offset);
            }
        }
        if !behind {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err("queries did not read everything in time".into())
}

/// Kind of responses whose rows are Protobuf messages, expected in Protobuf's text form.
const MESSAGES: &str = "queryProto";

/// The one schema that an answer's header gives.
#[derive(Debug)]
struct OneSchema(Arc<Schema>);

impl Schemas for OneSchema {
    fn schema(&self, _id: u32) -> millpond_types::Result<Option<Arc<Schema>>> {
        Ok(Some(self.0.clone()))
    }
}

/// Rows of messages as rows whose columns are the fields of the messages' text.
fn message_rows(items: &[Json]) -> Result<Json, String> {
    let header = items.first().and_then(|i| i.get("header")).and_then(|h| h.get("protoSchema")).and_then(Json::as_str);
    let text = header.ok_or("the answer has no schema")?;
    let schema = Arc::new(Schema::parse(SchemaKind::Protobuf, text, &[]).map_err(|e| e.to_string())?);
    let schemas: Arc<dyn Schemas> = Arc::new(OneSchema(schema));
    let read = |item: &Json| {
        let Some(bytes) = item.get("row").and_then(|r| r.get("protobufBytes")) else { return Ok(item.clone()) };
        // As in a topic: a schema's id, and the first of its messages.
        let mut framed = vec![0; 6];
        framed.extend(STANDARD.decode(bytes.as_str().unwrap_or_default()).map_err(|e| e.to_string())?);
        let mut fields = String::new();
        write_message(&framed_to_json(&framed, &schemas).map_err(|e| e.to_string())?, text, 0, &mut fields);
        Ok(row_of_fields(&fields))
    };
    Ok(Json::Array(items.iter().map(read).collect::<Result<_, String>>()?))
}

/// Expected rows in text form, likewise.
fn text_rows(items: &Json) -> Json {
    let row = |item: &Json| match item.get("row") {
        Some(Json::String(text)) => row_of_fields(text),
        _ => item.clone(),
    };
    Json::Array(items.as_array().unwrap_or(&[]).iter().map(row).collect())
}

/// A message's fields, sorted: those of a map come in any order.
fn row_of_fields(text: &str) -> Json {
    let mut fields: Vec<String> = Vec::new();
    for line in text.lines() {
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '}']) => field.push_str(line),
            _ => fields.push(line.to_string()),
        }
    }
    fields.sort();
    let columns = Json::Array(fields.into_iter().map(Json::String).collect());
    Json::Object(vec![("row".into(), Json::Object(vec![("columns".into(), columns)]))])
}

/// Protobuf's text form of a message; fields with their default are left out, as they are in its bytes.
fn write_message(message: &Json, schema: &str, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let mut field = |name: &str, value: &Json| {
        if matches!(value, Json::Object(_)) {
            out.push_str(&format!("{indent}{name} {{\n"));
            write_message(value, schema, depth + 1, out);
            out.push_str(&format!("{indent}}}\n"));
        } else {
            out.push_str(&format!("{indent}{name}: {}\n", show(value)));
        }
    };
    for (name, value) in message.as_object().unwrap_or(&[]) {
        match value {
            Json::Null | Json::Bool(false) => {}
            Json::String(text) if text.is_empty() => {}
            Json::Number(digits) if digits.parse() == Ok(0.0) => {}
            Json::Array(items) => items.iter().for_each(|item| field(name, item)),
            Json::Object(entries) if [">", "Entry"].iter().any(|end| schema.contains(&format!("{end} {name} = "))) => {
                for (key, value) in entries {
                    let entry = vec![("key".into(), Json::String(key.clone())), ("value".into(), value.clone())];
                    field(name, &Json::Object(entry));
                }
            }
            other => field(name, other),
        }
    }
}

/// What a request came to.
enum Answer {
    Good(Vec<Json>),
    Refused { status: u16, error: Json },
}

/// A case as a client plays it.
struct Session<'a> {
    case: &'a Case,
    base: String,
    client: &'a reqwest::Client,
}

impl Session<'_> {
    async fn play(&self, rest: &Rest, engine: &Engine, storage: &MemoryStorage) -> Result<(), String> {
        let is_query = |s: &&String| s.trim_start().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("SELECT "));
        let queries: Vec<&String> = self.case.statements.iter().filter(is_query).collect();
        let admin: Vec<&str> = self.case.statements.iter().filter(|s| !is_query(s)).map(String::as_str).collect();
        let mut answers: Vec<(&str, Json)> = Vec::new();
        match self.post("/ksql", &admin.join("\n")).await? {
            Answer::Refused { status, error } => return expected_error(rest.error.as_ref(), status, &error),
            Answer::Good(entities) => answers.extend(entities.into_iter().map(|e| ("admin", e))),
        }
        let asked = queries.iter().map(|q| self.post("/query", q));
        let results = if rest.waits_for_push {
            let (results, written) = futures::join!(futures::future::join_all(asked), async {
                self.opened(engine, queries.len()).await?;
                produce(self.case, engine, storage)
            });
            written?;
            results
        } else {
            produce(self.case, engine, storage)?;
            settle(engine, storage).await?;
            let mut results = Vec::new();
            for one in asked {
                results.push(one.await);
            }
            results
        };
        for result in results {
            match result? {
                Answer::Refused { status, error } => return expected_error(rest.error.as_ref(), status, &error),
                Answer::Good(rows) => answers.push(("query", Json::Array(rows))),
            }
        }
        if rest.responses.iter().any(|(kind, _)| kind == MESSAGES) {
            for query in &queries {
                match self.post_for("/query-stream", query, "application/vnd.ksql.v1+protobuf").await? {
                    Answer::Refused { status, error } => return expected_error(rest.error.as_ref(), status, &error),
                    Answer::Good(rows) => answers.push((MESSAGES, message_rows(&rows)?)),
                }
            }
        }
        settle(engine, storage).await?;
        if rest.error.is_some() {
            return Err("was accepted, but should have been refused".into());
        }
        if rest.responses.len() > answers.len() {
            return Err(format!("expected {} responses, there are {}", rest.responses.len(), answers.len()));
        }
        for (i, ((kind, expected), (actual_kind, actual))) in rest.responses.iter().zip(&answers).enumerate() {
            if kind != actual_kind {
                return Err(format!("response {i}: expected \"{kind}\", is \"{actual_kind}\": {}", show(actual)));
            }
            let statement = self.case.statements.get(i).map_or("", String::as_str);
            let why = match kind.as_str() {
                "query" => rows_differ(expected, actual),
                MESSAGES => rows_differ(&text_rows(expected), actual),
                _ => differs(expected, actual, statement),
            };
            if let Some(why) = why {
                return Err(format!("response {i}: {why}"));
            }
        }
        Ok(())
    }

    /// Waits until so many push queries are open.
    async fn opened(&self, engine: &Engine, count: usize) -> Result<(), String> {
        for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
            if engine.push_queries_opened() >= count as u64 {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err("push queries were not opened in time".into())
    }

    async fn post(&self, path: &str, text: &str) -> Result<Answer, String> {
        self.post_for(path, text, "application/json").await
    }

    async fn post_for(&self, path: &str, text: &str, accept: &str) -> Result<Answer, String> {
        let properties: serde_json::Map<_, _> =
            self.case.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let body = json!({ "ksql": text, "streamsProperties": properties });
        let request = self.client.post(format!("{}{path}", self.base)).header("Accept", accept);
        let response = request.body(body.to_string()).send().await.map_err(|e| format!("{path}: {e}"))?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|_| format!("{path}: no end within {} s", PATIENCE.as_secs()))?;
        let json = Json::parse(&text, Comments::Refused).map_err(|e| format!("{path}: {e}: {text}"))?;
        match json {
            Json::Array(items) if status == 200 => {
                let error = items.last().and_then(|last| last.get("errorMessage")).cloned();
                Ok(error.map_or(Answer::Good(items), |error| Answer::Refused { status, error }))
            }
            error => Ok(Answer::Refused { status, error }),
        }
    }
}

/// Whether a refusal is the one that the case waits for.
fn expected_error(expected: Option<&ExpectedError>, status: u16, error: &Json) -> Result<(), String> {
    let member = |name: &str| error.get(name).and_then(Json::as_str).unwrap_or_default();
    let message = member("message");
    let Some(expected) = expected else { return Err(format!("refused with {status}: {message}")) };
    if let Some(wanted) = expected.status.filter(|s| *s != i64::from(status)) {
        return Err(format!("expected status {wanted}, is {status}: {message}"));
    }
    // A KsqlStatementErrorMessage is a KsqlErrorMessage too.
    let of_statement = expected.ty.as_deref().is_some_and(|ty| ty.ends_with("KsqlStatementErrorMessage"));
    if of_statement && member("@type") != "statement_error" {
        return Err(format!("expected a statement_error, is {}: {message}", member("@type")));
    }
    if !message.contains(&expected.message) {
        return Err(format!("expected the message \"{}\", is \"{message}\"", expected.message));
    }
    Ok(())
}

/// Holds an answer's items against those expected: one by one, but the columns of rows in any order.
fn rows_differ(expected: &Json, actual: &Json) -> Option<String> {
    let (Some(expected), Some(actual)) = (expected.as_array(), actual.as_array()) else {
        return Some("not a list".into());
    };
    let columns = |items: &[Json]| -> Vec<Json> {
        items.iter().filter_map(|i| i.get("row").and_then(|r| r.get("columns"))).cloned().collect()
    };
    let (wanted, mut left) = (columns(expected), columns(actual));
    for row in &wanted {
        match left.iter().position(|other| difference(row, other, true).is_none()) {
            Some(at) => drop(left.swap_remove(at)),
            None => {
                let left: Vec<String> = left.iter().map(show).collect();
                return Some(format!("there is no row {}; left are {}", show(row), left.join(" ")));
            }
        }
    }
    if let Some(row) = left.first() {
        return Some(format!("row {} is not expected, nor are {} more", show(row), left.len() - 1));
    }
    if expected.len() != actual.len() {
        let last = actual.last().map_or_else(String::new, show);
        return Some(format!("expected {} items, there are {}; the last is {last}", expected.len(), actual.len()));
    }
    expected.iter().zip(actual).find_map(|(e, a)| differs(&without_columns(e), a, ""))
}

fn without_columns(item: &Json) -> Json {
    match (item.get("row").and_then(Json::as_object), item) {
        (Some(row), _) => {
            let row = row.iter().filter(|(name, _)| name != "columns").cloned().collect();
            Json::Object(vec![("row".into(), Json::Object(row))])
        }
        (None, other) => other.clone(),
    }
}

/// Where an answer lacks what is expected of it. `{STATEMENT}` stands for the statement that was sent.
fn differs(expected: &Json, actual: &Json, statement: &str) -> Option<String> {
    match (expected, actual) {
        (Json::Object(members), Json::Object(_)) => members.iter().find_map(|(name, wanted)| {
            if let Some(name) = name.strip_suffix("|starts_with") {
                let start = wanted.as_str().unwrap_or_default().replace("{STATEMENT}", statement);
                let have = actual.get(name).and_then(Json::as_str).unwrap_or_default();
                return (!have.starts_with(&start)).then(|| format!("{name}: expected {start}..., is {have}"));
            }
            let Some(have) = actual.get(name) else { return Some(format!("{name}: missing in {}", show(actual))) };
            differs(wanted, have, statement).map(|why| format!("{name}: {why}"))
        }),
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(a, b)| differs(a, b, statement))
        }
        (Json::String(text), _) if text.contains("{STATEMENT}") => {
            difference(&Json::String(text.replace("{STATEMENT}", statement)), actual, true)
        }
        _ => difference(expected, actual, true),
    }
}

//! One case: topics, statements, inputs, queries one after the other, and the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millpond_engine::serdes;
use millpond_engine::session::Session;
use millpond_engine::{Engine, EngineOptions};
use millpond_formats::json::{Comments, Json};
use millpond_formats::{Encoded, NoSchemas, Schemas, Side, value_from_json, value_to_json, windowed};
use millpond_sql::analyse::resolve_type_with;
use millpond_sql::plan::{FormatSpec, SourceInfo, WindowKind};
use millpond_sql::syntax::Statement;
use millpond_types::memory::MemoryStorage;
use millpond_types::ports::{TopicLog, TopicSpec};
use millpond_types::record::{Header, OwnedRecord};
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{Column, ErrorKind, ManualClock, TopicPartition};
use millpond_udfs::{Host, HostOptions};

use super::compare::{difference, show};
use super::file::{Case, Record, Window};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed(String),
}

/// 2024-01-01T00:00:00Z
pub(super) const NOW_MS: i64 = 1_704_067_200_000;
/// Partitions of a topic that only a CREATE statement names.
const PARTITIONS_DEFAULT: i32 = 4;

pub fn run_case(case: &Case) -> Verdict {
    // A defect in one case must not hide the others.
    let played = || match &case.rest {
        Some(rest) => super::rest::run(case, rest),
        None => run(case),
    };
    match catch_unwind(AssertUnwindSafe(played)) {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(why)) => Verdict::Failed(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string())).unwrap_or_default();
            Verdict::Failed(format!("panicked: {text}"))
        }
    }
}

/// Where a case was refused, and how.
struct Refusal {
    message: String,
    kind: ErrorKind,
    /// Index of the statement; `None` where the text could not be read, or a query failed while it ran.
    statement: Option<usize>,
}

fn run(case: &Case) -> Result<(), String> {
    let storage = Arc::new(MemoryStorage::new());
    // Settings of functions are the server's, those of statements the session's; a case names both in one place.
    let properties = case.properties.iter().cloned().collect();
    let options = EngineOptions { stepped: true, properties, ..EngineOptions::default() };
    // It stands still, in our days: UNIX_DATE and the like are compared with the past.
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let engine =
        Engine::open(storage.clone(), clock, Host::new(HostOptions::default()), options).map_err(|e| e.to_string())?;
    super::functions::register(engine.functions()).map_err(|e| e.to_string())?;

    let mut session = Session::with_properties([("auto.offset.reset", "earliest"), ("cache.max.bytes.buffering", "0")]);
    session.set("ksql.compat.quirks", "true");
    for (name, value) in &case.properties {
        session.set(name, value.as_str());
    }
    create_topics(case, &engine, &storage);
    super::schemas::register(case, &engine)?;

    let refused = execute(case, &engine, &mut session);
    match (&case.refusal, refused) {
        (None, Some(r)) => return Err(format!("refused: {}", r.message)),
        (Some(_), Some(r)) => return check_refusal(case, &r),
        (_, None) => {}
    }
    for input in &case.inputs {
        produce(input, &engine, &storage)?;
    }
    for query in engine.catalog().queries_in_order() {
        if let Err(e) = engine.drain(&query.id) {
            // A panic or a missing feature is never what a case waits for.
            let ours = matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Bug) || e.message().contains("panic");
            return if case.dies_at_work && !ours { Ok(()) } else { Err(format!("query {} failed: {e}", query.id)) };
        }
    }
    if case.refusal.is_some() {
        return Err("was accepted, but should have been refused".into());
    }
    compare_outputs(case, &engine, &storage)?;
    compare_post(case, &engine)
}

fn create_topics(case: &Case, engine: &Engine, storage: &MemoryStorage) {
    for (name, partitions, replicas) in topics_of(case) {
        engine.declare_topic(&name, partitions, replicas);
        let spec = TopicSpec { name, partitions: 1, replicas, configs: Default::default() };
        // A name that no topic can have is the statement's problem, not the harness's.
        let _ = storage.create_topic(spec);
    }
}

/// The topics that a case begins with: their names, partitions and replicas.
pub(super) fn topics_of(case: &Case) -> Vec<(String, i32, i16)> {
    let (mut seen, mut topics) = (BTreeSet::new(), Vec::new());
    let mut create = |name: &str, partitions: i32, replicas: i16| {
        if seen.insert(name.to_string()) {
            topics.push((name.to_string(), partitions, replicas));
        }
    };
    let mut stated = BTreeMap::new();
    for text in &case.statements {
        for parsed in millpond_sql::parse(text).unwrap_or_default() {
            if let Statement::CreateSource(source) = &parsed.statement {
                let text = |name: &str| source.properties.get(name).map(|v| v.node.to_string());
                let Some(topic) = text("KAFKA_TOPIC") else { continue };
                let topic = topic.trim_matches('\'').to_string();
                let number = |name: &str| text(name).and_then(|n| n.trim_matches('\'').parse::<i32>().ok());
                let replicas = number("REPLICAS").and_then(|n| i16::try_from(n).ok());
                stated.entry(topic).or_insert((number("PARTITIONS"), replicas));
            }
        }
    }
    for topic in &case.topics {
        let partitions = topic.partitions.or_else(|| stated.get(&topic.name).and_then(|(partitions, _)| *partitions));
        create(&topic.name, partitions.unwrap_or(1), topic.replicas);
    }
    for (topic, (partitions, replicas)) in &stated {
        create(topic, partitions.unwrap_or(PARTITIONS_DEFAULT), replicas.unwrap_or(1));
    }
    for record in &case.inputs {
        create(&record.topic, PARTITIONS_DEFAULT, 1);
    }
    topics
}

/// Runs the statements one by one; stops at the first refusal.
fn execute(case: &Case, engine: &Engine, session: &mut Session) -> Option<Refusal> {
    // All statements are read before any runs.
    let mut statements = Vec::new();
    for text in &case.statements {
        match millpond_sql::parse(text) {
            Ok(parsed) => statements.extend(parsed.into_iter().map(|p| format!("{};", p.text))),
            Err(d) => {
                let kind = millpond_engine::error::Problem::from(d.clone()).kind();
                return Some(Refusal { message: d.to_string(), kind, statement: None });
            }
        }
    }
    for (i, text) in statements.iter().enumerate() {
        if let Err(e) = engine.execute(text, session) {
            let last = i + 1 == statements.len();
            return Some(Refusal {
                message: e.to_string(),
                kind: e.problem.kind(),
                statement: Some(if last { usize::MAX } else { i }),
            });
        }
    }
    None
}

/// A refusal counts if it is the user's fault, not ours, and comes from the last statement (or from the text as a whole).
fn check_refusal(case: &Case, refusal: &Refusal) -> Result<(), String> {
    if matches!(refusal.kind, ErrorKind::Unsupported | ErrorKind::Bug) {
        return Err(format!("refused for the wrong reason ({:?}): {}", refusal.kind, refusal.message));
    }
    match refusal.statement {
        None | Some(usize::MAX) => Ok(()),
        Some(i) => Err(format!(
            "statement {} of {} was refused, but it should have been the last: {}",
            i + 1,
            case.statements.len(),
            refusal.message
        )),
    }
}

pub(super) fn side_of(is_key: bool) -> Side {
    if is_key { Side::Key } else { Side::Value }
}

fn source_of(engine: &Engine, topic: &str) -> Option<Arc<SourceInfo>> {
    engine.catalog().sources.values().find(|s| s.topic == topic).cloned()
}

fn produce(record: &Record, engine: &Engine, storage: &MemoryStorage) -> Result<(), String> {
    let topic = storage.topic(&record.topic).ok_or_else(|| format!("there is no topic \"{}\"", record.topic))?;
    let (record, _) = encode(record, engine)?;
    storage.produce(TopicPartition { topic: topic.id, partition: 0 }, record).map_err(|e| e.to_string())?;
    Ok(())
}

/// An input as a producer sends it, and its key without window.
pub(super) fn encode(record: &Record, engine: &Engine) -> Result<(OwnedRecord, Option<Vec<u8>>), String> {
    let source = source_of(engine, &record.topic);
    let side = |is_key: bool, json: &Json| -> Result<Option<Vec<u8>>, String> {
        match &source {
            None => Ok(plain_bytes(json)),
            Some(s) => {
                let spec = if is_key { &s.key_format } else { &s.value_format };
                let columns: Vec<Column> = s
                    .schema
                    .columns
                    .iter()
                    .filter(|c| if is_key { c.is_key() } else { c.is_value() })
                    .cloned()
                    .collect();
                if let Some(bytes) = super::schemas::to_bytes(engine, s, side_of(is_key), json)? {
                    return Ok(bytes);
                }
                to_bytes(spec, &columns, is_key, json)
            }
        }
    };
    let mut key = side(true, &record.key).map_err(|e| format!("input key {}: {e}", show(&record.key)))?;
    let inner = key.clone();
    if let (Some(key), Some(w)) = (&mut key, record.window) {
        let mut whole = Vec::new();
        if w.session {
            windowed::write_session_key(&mut whole, key, w.start, w.end);
        } else {
            windowed::write_time_key(&mut whole, key, w.start);
        }
        *key = whole;
    }
    let value = side(false, &record.value).map_err(|e| format!("input value {}: {e}", show(&record.value)))?;
    let headers = record
        .headers
        .iter()
        .map(|(key, value)| Ok(Header { key: key.clone(), value: value.as_deref().map(decode64).transpose()? }))
        .collect::<Result<_, String>>()?;
    Ok((OwnedRecord { key, value, timestamp: record.timestamp.unwrap_or(0), headers }, inner))
}

fn decode64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|e| format!("\"{text}\" is not base64: {e}"))
}

/// Without a schema: text as it is, anything else as JSON.
fn plain_bytes(json: &Json) -> Option<Vec<u8>> {
    match json {
        Json::Null => None,
        Json::String(s) => Some(s.clone().into_bytes()),
        other => Some(json_bytes(other)),
    }
}

fn json_bytes(json: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    json.write(&mut out);
    out
}

fn to_bytes(spec: &FormatSpec, columns: &[Column], is_key: bool, json: &Json) -> Result<Option<Vec<u8>>, String> {
    if json.is_null() {
        return Ok(None);
    }
    match spec.name.as_str() {
        "JSON" => Ok(Some(json_bytes(json))),
        "DELIMITED" | "NONE" => Ok(plain_bytes(json)),
        _ if columns.is_empty() => Ok(plain_bytes(json)),
        _ => {
            let single = unwrapped(spec, columns, is_key)?;
            let arrays = columns
                .iter()
                .map(|column| {
                    let json = match json {
                        // The column's own JSON, which some cases write as a member all the same.
                        Json::Object(members) if single && members.len() == 1 && column.ty.is_primitive() => {
                            &members[0].1
                        }
                        Json::Object(members) if !single => member(members, &column.name),
                        other if single => other,
                        other => return Err(format!("{} is not a record", show(other))),
                    };
                    let value = value_from_json(json, &column.ty).map_err(|e| e.to_string())?;
                    array_from_values(&column.ty, &[value]).map_err(|e| e.to_string())
                })
                .collect::<Result<Vec<_>, _>>()?;
            let encoder =
                serdes::plain_encoder(spec, side_of(is_key), &serdes::fields(columns)).map_err(|e| e.to_string())?;
            let mut encoded = Encoded::default();
            encoder.encode(1, &arrays, None, &mut encoded).map_err(|e| e.to_string())?;
            Ok(encoded.get(0).map(<[u8]>::to_vec))
        }
    }
}

/// Whether a side of a format with a schema is its only column, not a record.
fn unwrapped(spec: &FormatSpec, columns: &[Column], is_key: bool) -> Result<bool, String> {
    let format = serdes::format_of(spec).map_err(|e| e.to_string())?;
    let fields = serdes::fields(columns);
    format.unwraps(side_of(is_key), &fields, None, spec.wrap_single).map_err(|e| e.to_string())
}

/// A column's member: exactly its name, or in any case.
pub(super) fn member<'a>(members: &'a [(String, Json)], name: &str) -> &'a Json {
    let exact = members.iter().find(|(n, _)| n == name);
    exact.or_else(|| members.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))).map_or(&Json::Null, |(_, json)| json)
}

/// Whether numbers have types of their own in the bytes, so that a case's text of one need not come back.
fn is_binary(spec: &FormatSpec) -> bool {
    !matches!(spec.name.as_str(), "JSON" | "DELIMITED" | "NONE" | "KAFKA")
}

/// Bytes of one side as the JSON that a case would write.
fn to_json(spec: &FormatSpec, columns: &[Column], is_key: bool, bytes: Option<&[u8]>) -> Result<Json, String> {
    let Some(bytes) = bytes else { return Ok(Json::Null) };
    let text = || std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_string());
    match spec.name.as_str() {
        "JSON" => Json::parse(text()?, Comments::Refused).map_err(|e| e.to_string()),
        "DELIMITED" | "NONE" => Ok(Json::String(text()?.to_string())),
        _ if columns.is_empty() => Ok(Json::String(text()?.to_string())),
        _ => {
            let wanted: Vec<usize> = (0..columns.len()).collect();
            let fields = serdes::fields(columns);
            let none: Arc<dyn Schemas> = Arc::new(NoSchemas);
            let decoder = serdes::decoder(spec, side_of(is_key), &fields, &wanted, &none).map_err(|e| e.to_string())?;
            let decoded = decoder.decode([Some(bytes)]).map_err(|e| e.to_string())?;
            if let Some(error) = decoded.errors.first() {
                return Err(error.message.clone());
            }
            let cells = columns.iter().zip(&decoded.columns);
            let mut cells = cells.map(|(c, array)| (c.name.to_string(), value_to_json(&value_at(array, &c.ty, 0))));
            if unwrapped(spec, columns, is_key)? {
                return Ok(cells.next().map_or(Json::Null, |(_, json)| json));
            }
            Ok(Json::Object(cells.collect()))
        }
    }
}

pub(super) fn compare_outputs(case: &Case, engine: &Engine, storage: &MemoryStorage) -> Result<(), String> {
    let exact = !case.properties.iter().any(|(k, v)| k == "use.exact.numeric.comparison" && v == "false");
    let topics: BTreeSet<&str> = case.outputs.iter().map(|r| r.topic.as_str()).collect();
    for topic in topics {
        let expected: Vec<&Record> = case.outputs.iter().filter(|r| r.topic == topic).collect();
        let info = storage.topic(topic).ok_or_else(|| format!("there is no topic \"{topic}\""))?;
        let actual = storage.records_of(&info);
        let source = source_of(engine, topic);
        let context = |i: usize| format!("{topic} record {i}");
        for (i, (want, have)) in expected.iter().zip(&actual).enumerate() {
            compare_record(engine, case, want, have, source.as_deref(), exact)
                .map_err(|e| format!("{}: {e}", context(i)))?;
        }
        if expected.len() != actual.len() {
            let extra = actual.get(expected.len()).map(|r| {
                let text =
                    |b: &Option<Vec<u8>>| b.as_ref().map_or("null".into(), |b| String::from_utf8_lossy(b).into_owned());
                format!("; the first further one is {} = {}", text(&r.key), text(&r.value))
            });
            return Err(format!(
                "{topic}: expected {} records, there are {}{}",
                expected.len(),
                actual.len(),
                extra.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

fn compare_record(
    engine: &Engine,
    case: &Case,
    want: &Record,
    have: &OwnedRecord,
    source: Option<&SourceInfo>,
    exact: bool,
) -> Result<(), String> {
    let none = FormatSpec { name: "NONE".into(), delimiter: None, wrap_single: None, properties: Default::default() };
    let columns = |is_key: bool| -> Vec<Column> {
        let all = source.map_or(&[][..], |s| s.schema.columns.as_slice());
        all.iter().filter(|c| if is_key { c.is_key() } else { c.is_value() }).cloned().collect()
    };
    let mut key_bytes = have.key.as_deref();
    if let Some(w) = source.and_then(|s| s.window) {
        if let Some(bytes) = key_bytes {
            let session = w.kind == WindowKind::Session;
            let damaged = || "the key has no window".to_string();
            let (inner, start, end) = if session {
                windowed::read_session_key(bytes).ok_or_else(damaged)?
            } else {
                let (inner, start) = windowed::read_time_key(bytes).ok_or_else(damaged)?;
                (inner, start, start.saturating_add(w.size_ms.unwrap_or(0)))
            };
            let actual = Window { start, end, session };
            if let Some(expected) = want.window
                && expected != actual
            {
                return Err(format!("expected {expected:?}, is {actual:?}"));
            }
            key_bytes = Some(inner);
        }
    } else if want.window.is_some() {
        return Err("expected a windowed key, but the sink is not windowed".into());
    }
    let read = |spec: &FormatSpec, is_key: bool, bytes: Option<&[u8]>| match bytes {
        Some(bytes) if super::schemas::has_schema(spec) => super::schemas::to_json(engine, bytes),
        _ => to_json(spec, &columns(is_key), is_key, bytes),
    };
    let key = read(source.map_or(&none, |s| &s.key_format), true, key_bytes)?;
    let value = read(source.map_or(&none, |s| &s.value_format), false, have.value.as_deref())?;
    let exact_key = exact && !source.is_some_and(|s| is_binary(&s.key_format));
    if let Some(why) = different(&want.key, &key, exact_key) {
        return Err(format!("key: {why}"));
    }
    let exact = exact && !source.is_some_and(|s| is_binary(&s.value_format));
    if let Some(why) = different(&want.value, &value, exact) {
        return Err(format!("value: {why}"));
    }
    let default_time = case.inputs.is_empty() && want.timestamp == Some(0);
    if let Some(expected) = want.timestamp
        && expected != have.timestamp
        && !default_time
    {
        return Err(format!("timestamp: expected {expected}, is {}", have.timestamp));
    }
    let expected: Vec<Header> = want
        .headers
        .iter()
        .map(|(key, value)| Ok(Header { key: key.clone(), value: value.as_deref().map(decode64).transpose()? }))
        .collect::<Result<_, String>>()?;
    if expected != have.headers {
        return Err(format!("headers: expected {expected:?}, are {:?}", have.headers));
    }
    Ok(())
}

/// A case may write a delimited or keyless side as a number.
fn different(expected: &Json, actual: &Json, exact: bool) -> Option<String> {
    if let (Json::Number(n), Json::String(text)) = (expected, actual)
        && n == text
    {
        return None;
    }
    difference(expected, actual, exact)
}

fn compare_post(case: &Case, engine: &Engine) -> Result<(), String> {
    let Some(post) = &case.post else { return Ok(()) };
    let catalog = engine.catalog();
    for expected in post.get("sources").and_then(Json::as_array).unwrap_or(&[]) {
        let name = expected.get("name").and_then(Json::as_str).unwrap_or_default();
        let source = catalog.sources.get(name).ok_or_else(|| format!("there is no source \"{name}\""))?;
        let kind = expected.get("type").and_then(Json::as_str).unwrap_or_default();
        if !kind.eq_ignore_ascii_case(&source.relation.to_string()) {
            return Err(format!("\"{name}\" is a {}, not a {kind}", source.relation));
        }
        if let Some(schema) = expected.get("schema").and_then(Json::as_str) {
            compare_schema(engine, name, schema, source)?;
        }
        for (member, spec) in [("keyFormat", &source.key_format), ("valueFormat", &source.value_format)] {
            let expected = match expected.get(member) {
                Some(Json::String(s)) => Some(s.as_str()),
                Some(other) => other.get("format").and_then(Json::as_str),
                None => None,
            };
            if let Some(expected) = expected
                && !expected.eq_ignore_ascii_case(&spec.name)
            {
                return Err(format!("\"{name}\": {member} is {}, not {expected}", spec.name));
            }
        }
        if let Some(window) = expected.get("keyFormat").and_then(|k| k.get("windowType")).and_then(Json::as_str) {
            let actual = source.window.map_or("NONE".to_string(), |w| format!("{:?}", w.kind).to_uppercase());
            if !window.eq_ignore_ascii_case(&actual) {
                return Err(format!("\"{name}\": window is {actual}, not {window}"));
            }
        }
        if let Some(read_only) = expected.get("isSource").and_then(Json::as_bool)
            && read_only != source.read_only
        {
            return Err(format!("\"{name}\": isSource is {}, not {read_only}", source.read_only));
        }
    }
    let topics = post.get("topics").and_then(|t| t.get("topics")).and_then(Json::as_array).unwrap_or(&[]);
    for expected in topics {
        let name = expected.get("name").and_then(Json::as_str).unwrap_or_default();
        // Internal topics of Kafka Streams: there are none here.
        if name.contains("-KSTREAM-")
            || name.contains("_confluent-ksql-")
            || name.ends_with("-changelog")
            || name.ends_with("-repartition")
        {
            continue;
        }
        let Some(source) = source_of(engine, name) else { return Err(format!("nothing uses topic \"{name}\"")) };
        super::schemas::compare(engine, expected, name)?;
        if let Some(partitions) = expected.get("partitions").and_then(Json::as_i64)
            && partitions != i64::from(source.partitions)
        {
            return Err(format!("topic \"{name}\" has {} partitions, not {partitions}", source.partitions));
        }
    }
    Ok(())
}

/// Compares column by column, as ksqlDB writes them.
fn compare_schema(engine: &Engine, name: &str, expected: &str, source: &SourceInfo) -> Result<(), String> {
    let actual = source.schema.to_string();
    // Read the expected text through our own grammar, so that spelling of types does not matter.
    let text = expected.replace(" PRIMARY KEY", " KEY");
    let text = format!("CREATE STREAM X ({text}) WITH (KAFKA_TOPIC='x', VALUE_FORMAT='JSON');");
    let parsed = millpond_sql::parse(&text).map_err(|e| format!("expected schema of \"{name}\": {e}"))?;
    let Some(Statement::CreateSource(create)) = parsed.first().map(|p| &p.statement) else {
        return Err("expected schema is not a schema".into());
    };
    let catalog = engine.catalog();
    let columns = create
        .columns
        .iter()
        .map(|c| {
            use millpond_sql::syntax::ColumnRole as Syntax;
            use millpond_types::ColumnRole;
            let ty = resolve_type_with(&c.ty, &|n| catalog.types.get(n).cloned()).map_err(|e| e.to_string())?;
            let role = match &c.role.node {
                Syntax::Value => ColumnRole::Value,
                Syntax::Key | Syntax::PrimaryKey => ColumnRole::Key,
                Syntax::Headers => ColumnRole::Headers,
                Syntax::Header(key) => ColumnRole::Header(key.clone()),
            };
            Ok(Column::new(c.name.as_str(), ty, role))
        })
        .collect::<Result<Vec<_>, String>>()?;
    if columns == source.schema.columns {
        return Ok(());
    }
    Err(format!("schema of \"{name}\": expected {expected}, is {actual}"))
}

//! INSERT INTO ... VALUES, and the rows of `/inserts-stream`: one record each, written like a producer's.

use millpond_formats::{Encoded, Encoder, Side};
use millpond_sql::expr::TypedExpr;
use millpond_sql::plan::SourceInfo;
use millpond_types::ports::{Outcome, Step, partition_of};
use millpond_types::record::RecordBuffer;
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{Column, ColumnRole, Error, Result, TopicPartition, Value};

use crate::engine::Engine;
use crate::entity::Entity;
use crate::error::Problem;
use crate::expr::{self, EvalContext, EvalInput, Names, Origin};
use crate::serdes;

/// Encoders of a target, built once for many rows.
pub(crate) struct InsertTarget {
    pub source: std::sync::Arc<SourceInfo>,
    keys: Vec<Column>,
    values: Vec<Column>,
    key_encoder: Encoder,
    value_encoder: Encoder,
}

impl InsertTarget {
    pub(crate) fn new(engine: &Engine, source: std::sync::Arc<SourceInfo>) -> Result<Self> {
        let source = crate::schemas::with_latest(engine, with_schemas(engine, source)?)?;
        let schemas = engine.schemas().as_ref();
        let keys: Vec<Column> = source.schema.columns.iter().filter(|c| c.role == ColumnRole::Key).cloned().collect();
        let values: Vec<Column> =
            source.schema.columns.iter().filter(|c| c.role == ColumnRole::Value).cloned().collect();
        let key_encoder = serdes::encoder(&source.key_format, Side::Key, &serdes::fields(&keys), schemas)?;
        let value_encoder = serdes::encoder(&source.value_format, Side::Value, &serdes::fields(&values), schemas)?;
        Ok(Self { source, keys, values, key_encoder, value_encoder })
    }
}

/// The source with the schemas that its rows are written with.
fn with_schemas(engine: &Engine, source: std::sync::Arc<SourceInfo>) -> Result<std::sync::Arc<SourceInfo>> {
    let lacks = |spec: &millpond_sql::plan::FormatSpec, columns: bool| {
        columns
            && serdes::format_of(spec).is_ok_and(|f| f.uses_schema_registry())
            && !spec.properties.contains_key(crate::schemas::WRITER_ID)
    };
    let (keys, values) = (source.schema.keys().next().is_some(), source.schema.values().next().is_some());
    if !lacks(&source.key_format, keys) && !lacks(&source.value_format, values) {
        return Ok(source);
    }
    let _guard = engine.0.change.lock();
    // It may have been dropped or altered meanwhile.
    let now = engine.catalog().sources.get(&source.name).cloned();
    let now = now.ok_or_else(|| Error::not_found(format!("source \"{}\" does not exist", source.name)))?;
    engine.writable(&now)
}

/// Writes one row; columns not named are NULL.
pub(crate) fn insert_row(
    engine: &Engine,
    target: &InsertTarget,
    row: &[(String, Value)],
    row_time: Option<i64>,
) -> Result<()> {
    let find = |column: &Column| {
        row.iter().find(|(name, _)| *name == column.name).map_or(Value::Null, |(_, value)| value.clone())
    };
    let arrays =
        |columns: &[Column]| columns.iter().map(|c| array_from_values(&c.ty, &[find(c)])).collect::<Result<Vec<_>>>();
    let encode = |encoder: &Encoder, columns: &[Column]| -> Result<Option<Vec<u8>>> {
        let mut encoded = Encoded::default();
        encoder.encode(1, &arrays(columns)?, None, &mut encoded)?;
        Ok(encoded.get(0).map(<[u8]>::to_vec))
    };
    let key_is_null = target.keys.iter().all(|c| find(c).is_null());
    if target.source.relation == millpond_sql::plan::Relation::Table && target.keys.iter().any(|c| find(c).is_null()) {
        let names: Vec<&str> = target.keys.iter().map(|c| c.name.as_str()).collect();
        return Err(Error::bad_request(format!(
            "failed to insert values into \"{}\": a table's row needs a value for primary key column(s) [{}]",
            target.source.name,
            names.join(", ")
        )));
    }
    let key = if key_is_null { None } else { encode(&target.key_encoder, &target.keys)? };
    let value = encode(&target.value_encoder, &target.values)?;
    let topic = engine.topic_of(&target.source.topic)?;
    let partition = match &key {
        Some(key) => partition_of(key, topic.partitions),
        // Rows without a key are spread as they come.
        None => (engine.storage().sequence() % topic.partitions.max(1) as u64) as i32,
    };
    let timestamp = row_time.unwrap_or_else(|| engine.0.clock.now_ms());
    let mut records = RecordBuffer::default();
    records.push(key.as_deref(), value.as_deref(), timestamp, &[]);
    let step = Step {
        generation: engine.storage().assignment().generation,
        appends: vec![(TopicPartition { topic: topic.id, partition }, records)],
        ..Step::default()
    };
    match engine.storage().commit(step).wait() {
        Outcome::Committed { .. } => Ok(()),
        Outcome::Fenced => Err(Error::conflict("another process has taken over this data directory")),
        Outcome::Retry(why) => Err(Error::retry(why)),
        Outcome::Fatal(why) => Err(Error::bad_request(why)),
    }
}

/// The value of an expression without columns.
fn constant(engine: &Engine, expr: &TypedExpr, time: i64) -> Result<Value> {
    let compiled = expr::compile(expr, engine.functions())?;
    let now_ms = engine.0.clock.now_ms();
    let mut cx = EvalContext::new(now_ms, engine.storage().sequence());
    // For guests: the row is at `time`, and where it will stand in the log is as good as unknown.
    cx.name_inputs(engine.storage().sequence(), vec![0]);
    let origin = Origin { time: &[time], names: Names::Input(&[0]) };
    let array = compiled.column_of(&EvalInput::new(&[], 1).of(origin), &mut cx)?;
    if let (errors, 1..) = cx.take_errors() {
        let why = errors.first().map_or("it could not be evaluated", |e| e.message.as_str());
        return Err(Error::bad_request(format!("value cannot be inserted: {why}")));
    }
    Ok(value_at(&array, &expr.ty, 0))
}

pub(super) fn insert(
    engine: &Engine,
    target: &std::sync::Arc<SourceInfo>,
    columns: &[String],
    values: &[TypedExpr],
    row_time: Option<&TypedExpr>,
) -> Result<Entity, Problem> {
    engine.check_not_computed(target)?;
    let now_ms = engine.0.clock.now_ms();
    let time = match row_time {
        None => now_ms,
        Some(expr) => match constant(engine, expr, now_ms)?.as_i64() {
            Some(ms) if ms >= 0 => ms,
            _ => return Err(Error::bad_request("ROWTIME must be milliseconds since the epoch, 0 or more").into()),
        },
    };
    let row = columns
        .iter()
        .zip(values)
        .map(|(name, expr)| Ok((name.clone(), constant(engine, expr, time)?)))
        .collect::<Result<Vec<_>>>()?;
    insert_row(engine, &InsertTarget::new(engine, target.clone())?, &row, Some(time))?;
    Ok(Entity::Done)
}

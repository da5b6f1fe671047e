//! Where a query's result goes: records of a topic, the state that pull queries read, or a client.
//!
//! Not here: the commit (`query`). Invariants: results come in the order of (`pos`, emission); what is coalesced is
//! updates of one row of a table within a step, never a stream's rows, sessions' or EMIT FINAL.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMillisecondType};
use datafusion::common::HashMap;
use millpond_formats::{Encoded, Encoder, Schemas, Side, windowed};
use millpond_sql::plan::{Relation, SourceInfo, TimestampColumn, WindowKind};
use millpond_types::budget::{Pool, Reservation};
use millpond_types::ports::{TopicInfo, Writes, partition_of};
use millpond_types::record::RecordBuffer;
use millpond_types::{Error, Field, PartitionId, Result, Schema, TopicPartition};

use crate::java_time;
use crate::ops::{Failure, Notes, OpResult};
use crate::processing_log::LineKind;
use crate::rows::Rows;
use crate::serdes::{encoder, fields, key_encoder};
use crate::state::cells::Cells;
use crate::state::row::put_row;
use crate::state::table::{TableLayout, stored};
use crate::state::view::View;

/// Writes rows as records.
pub struct TopicSink {
    topic: TopicInfo,
    keys: usize,
    values: usize,
    key: Option<Encoder>,
    value: Encoder,
    window: Option<WindowKind>,
    /// Column that overrides the records' time, with its pattern.
    time: Option<(usize, Option<java_time::Pattern>)>,
}

/// Keeps the rows of a table for pull queries.
pub struct ResultSink {
    layout: TableLayout,
    keys: usize,
    values: usize,
    /// How long windows are kept behind the newest one.
    pub retention_ms: Option<i64>,
}

/// The keys of rows as the sink's topic would hold them, and their partitions.
pub struct Placed {
    keys: Encoded,
    pub partition: Vec<PartitionId>,
}

impl TopicSink {
    /// `schema` is the result's: its key columns, then its value columns, are those of the target in their order.
    /// `whole_keys`: keys of several columns are records even where all of them are NULL.
    pub fn new(
        target: &SourceInfo,
        topic: TopicInfo,
        schema: &Schema,
        timestamp: Option<&TimestampColumn>,
        whole_keys: bool,
        schemas: &dyn Schemas,
    ) -> Result<Self> {
        let key_fields: Vec<Field> = fields(target.schema.keys());
        let value_fields: Vec<Field> = fields(target.schema.values());
        let same = |fields: &[Field], columns: Vec<&millpond_types::Column>| {
            fields.len() == columns.len() && fields.iter().zip(columns).all(|(f, c)| f.ty == c.ty)
        };
        if !same(&key_fields, schema.keys().collect()) || !same(&value_fields, schema.values().collect()) {
            return Err(Error::bad_request(format!(
                "the result has columns {schema}, but \"{}\" has {}",
                target.name, target.schema
            )));
        }
        let time = match timestamp {
            Some(t) => {
                let index =
                    key_fields.iter().chain(&value_fields).position(|f| f.name == t.column).ok_or_else(|| {
                        Error::bad_request(format!("timestamp column \"{}\" is not in the result", t.column))
                    })?;
                let pattern = match &t.format {
                    Some(format) => Some(java_time::Pattern::compile(format).map_err(Error::bad_request)?),
                    None => None,
                };
                Some((index, pattern))
            }
            None => None,
        };
        Ok(Self {
            topic,
            keys: key_fields.len(),
            values: value_fields.len(),
            key: if key_fields.is_empty() {
                None
            } else {
                Some(key_encoder(&target.key_format, &key_fields, whole_keys, Some(schemas))?)
            },
            value: encoder(&target.value_format, Side::Value, &value_fields, schemas)?,
            window: target.window.map(|w| w.kind),
            time,
        })
    }

    /// Serialises the keys and finds the partitions: by the (inner) key; rows without one stay where they are.
    pub fn place(&self, rows: &Rows) -> OpResult<Placed> {
        let mut keys = Encoded::default();
        if let Some(encoder) = &self.key {
            encoder.encode(rows.len(), &rows.columns()[..self.keys], None, &mut keys)?;
        }
        let partitions = self.topic.partitions.max(1);
        let partition = (0..rows.len())
            .map(|row| match keys.get(row) {
                Some(key) if partitions > 1 => partition_of(key, partitions),
                Some(_) => 0,
                None => rows.partition[row].rem_euclid(partitions),
            })
            .collect();
        Ok(Placed { keys, partition })
    }

    /// Serialises the values.
    pub fn values(&self, rows: &Rows) -> OpResult<Encoded> {
        let mut values = Encoded::default();
        let columns = &rows.columns()[self.keys..self.keys + self.values];
        self.value.encode(rows.len(), columns, rows.null.as_ref(), &mut values)?;
        Ok(values)
    }

    /// The records of the rows, by partition. `headers` gives those of an input row.
    pub fn write<'h>(
        &self,
        rows: &Rows,
        placed: &Placed,
        headers: &dyn Fn(u32) -> &'h [u8],
        notes: &mut Notes,
    ) -> OpResult<Vec<(TopicPartition, RecordBuffer)>> {
        let values = self.values(rows)?;
        let mut records = self.records();
        for row in 0..rows.len() {
            records.push(rows, placed, &values, row, headers, notes)?;
        }
        Ok(records.finish())
    }

    /// No records yet.
    pub fn records(&self) -> SinkRecords<'_> {
        let buffers = vec![None; self.topic.partitions.max(1) as usize];
        SinkRecords { sink: self, buffers, windowed_key: Vec::new() }
    }

    fn time_of(&self, rows: &Rows, row: usize) -> std::result::Result<i64, String> {
        let Some((column, pattern)) = &self.time else { return Ok(rows.time[row]) };
        if rows.is_null(row) {
            return Ok(rows.time[row]);
        }
        let column = &rows.columns()[*column];
        if column.is_null(row) {
            return Err("the timestamp column of the result is NULL".to_string());
        }
        let time = if let Some(longs) = column.as_primitive_opt::<Int64Type>() {
            longs.value(row)
        } else if let Some(times) = column.as_primitive_opt::<TimestampMillisecondType>() {
            times.value(row)
        } else if let Some(texts) = column.as_string_opt::<i32>() {
            match pattern {
                Some(pattern) => pattern.parse_timestamp_ms(texts.value(row), &java_time::Zone::UTC)?,
                None => java_time::parse_iso_timestamp(texts.value(row))?,
            }
        } else {
            return Err(format!("a timestamp cannot be taken from a column of type {}", column.data_type()));
        };
        if time < 0 { Err(format!("the result's timestamp {time} is negative")) } else { Ok(time) }
    }
}

/// Records on their way to the partitions of a topic.
pub struct SinkRecords<'a> {
    sink: &'a TopicSink,
    buffers: Vec<Option<RecordBuffer>>,
    windowed_key: Vec<u8>,
}

impl SinkRecords<'_> {
    pub fn push<'h>(
        &mut self,
        rows: &Rows,
        placed: &Placed,
        values: &Encoded,
        row: usize,
        headers: &dyn Fn(u32) -> &'h [u8],
        notes: &mut Notes,
    ) -> OpResult<()> {
        let time = match self.sink.time_of(rows, row) {
            Ok(time) => time,
            Err(message) => {
                notes.push(rows.pos[row], LineKind::Timestamp, || message);
                return Ok(());
            }
        };
        let inner = placed.keys.get(row);
        let key = match (self.sink.window, rows.window_of(row), inner) {
            (Some(kind), Some((start, end)), inner) => {
                let key = &mut self.windowed_key;
                key.clear();
                let inner = inner.unwrap_or_default();
                if kind == WindowKind::Session {
                    windowed::write_session_key(key, inner, start, end);
                } else {
                    windowed::write_time_key(key, inner, start);
                }
                Some(key.as_slice())
            }
            (_, _, inner) => inner,
        };
        let Some(buffer) = self.buffers.get_mut(placed.partition[row] as usize) else {
            return Err(Failure::at(rows.pos[row], Error::bug("a row's partition is outside of the sink's topic")));
        };
        buffer.get_or_insert_with(RecordBuffer::default).push(key, values.get(row), time, headers(rows.pos[row]));
        Ok(())
    }

    pub fn finish(self) -> Vec<(TopicPartition, RecordBuffer)> {
        let topic = self.sink.topic.id;
        let of = |(partition, buffer): (usize, Option<RecordBuffer>)| {
            Some((TopicPartition { topic, partition: partition as PartitionId }, buffer?))
        };
        self.buffers.into_iter().enumerate().filter_map(of).collect()
    }
}

/// Rows of a table for pull queries, not yet in a view.
#[derive(Default)]
pub struct ResultWrites {
    pub writes: Writes,
    /// The newest window of each partition.
    newest: HashMap<PartitionId, i64>,
}

impl ResultSink {
    pub fn new(query: &str, schema: &Schema, windowed: bool, retention_ms: Option<i64>) -> Self {
        Self {
            layout: TableLayout::new(query, schema, windowed),
            keys: schema.keys().count(),
            values: stored(schema).count() - schema.keys().count(),
            retention_ms,
        }
    }

    /// Writes the rows to state; `partition` are those of the sink's topic.
    pub fn write(&self, rows: &Rows, partition: &[PartitionId], view: &mut View<'_>) -> OpResult<()> {
        let mut result = ResultWrites::default();
        self.put(rows, partition, &mut result)?;
        self.keep(&[result], view)
    }

    /// What the rows write to state.
    pub fn put(&self, rows: &Rows, partition: &[PartitionId], out: &mut ResultWrites) -> OpResult<()> {
        let keys = Cells::of(&rows.columns()[..self.keys])?;
        let values = Cells::of(&rows.columns()[self.keys..self.keys + self.values])?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (row, &partition) in partition.iter().enumerate().take(rows.len()) {
            self.layout.key(partition, &keys, row, rows.window_of(row), &mut key);
            if rows.is_null(row) {
                out.writes.push(&key, None);
            } else {
                value.clear();
                put_row(&values, row, rows.time[row], &mut value);
                out.writes.push(&key, Some(&value));
            }
            if let Some((start, _)) = rows.window_of(row) {
                let newest = out.newest.entry(partition).or_insert(start);
                *newest = start.max(*newest);
            }
        }
        Ok(())
    }

    /// Writes to state what `put` gave, in this order, and drops windows that are over.
    pub fn keep(&self, results: &[ResultWrites], view: &mut View<'_>) -> OpResult<()> {
        let mut newest: BTreeMap<PartitionId, i64> = BTreeMap::new();
        for result in results {
            view.write_all(&result.writes);
            for (partition, start) in &result.newest {
                let newest = newest.entry(*partition).or_insert(*start);
                *newest = (*start).max(*newest);
            }
        }
        if let (true, Some(retention)) = (self.layout.is_windowed(), self.retention_ms) {
            for (partition, newest) in newest {
                self.layout.expire(partition, newest.saturating_sub(retention), view)?;
            }
        }
        Ok(())
    }
}

/// Of several updates of one key keeps the last, with the oldest replaced row. Rows of other keys keep their order.
pub fn coalesce(rows: &Rows, keys: usize) -> Result<Rows> {
    let cells = crate::ops::key::key_cells(rows, &rows.columns()[..keys])?;
    let mut last: HashMap<&[u8], u32> = HashMap::with_capacity(rows.len());
    for row in 0..rows.len() {
        last.insert(cells.get(row), row as u32);
    }
    if last.len() == rows.len() {
        return Ok(rows.clone());
    }
    let mut kept: Vec<u32> = last.into_values().collect();
    kept.sort_unstable();
    rows.take(&UInt32Array::from(kept))
}

/// Rows for a client: all columns of the result.
#[derive(Clone, Debug)]
pub struct ResultRows {
    columns: Vec<ArrayRef>,
    tombstones: Option<arrow::buffer::BooleanBuffer>,
    len: usize,
    /// Counts the rows while they wait for the client.
    room: Option<Arc<Reservation>>,
}

impl ResultRows {
    pub fn of(rows: &Rows, relation: Relation) -> Self {
        let tombstones = if relation == Relation::Table { rows.null.clone() } else { None };
        Self { columns: rows.columns().to_vec(), tombstones, len: rows.len(), room: None }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }

    /// Whether the row is a delete: its key columns say of what.
    pub fn is_tombstone(&self, row: usize) -> bool {
        self.tombstones.as_ref().is_some_and(|t| row < t.len() && t.value(row))
    }

    /// As a batch; the columns of a delete beyond its key are NULL.
    pub fn to_batch(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.len));
        RecordBatch::try_new_with_options(schema.clone(), self.columns.clone(), &options)
            .map_err(|e| Error::bug(format!("rows for a client: {e}")))
    }

    /// The first `rows` rows.
    pub fn truncated(&self, rows: usize) -> Self {
        let len = rows.min(self.len);
        Self {
            columns: self.columns.iter().map(|c| c.slice(0, len)).collect(),
            tombstones: self.tombstones.as_ref().map(|t| t.slice(0, len)),
            len,
            room: self.room.clone(),
        }
    }

    /// The same, counted for as long as anybody holds them.
    pub(crate) fn counted(self, pool: &Pool) -> Self {
        let mut room = pool.reservation();
        room.set(self.columns.iter().map(|c| c.get_array_memory_size()).sum());
        Self { room: Some(Arc::new(room)), ..self }
    }
}

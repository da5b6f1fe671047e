//! Reading a query's topics in the order of the log, and turning records into rows.
//!
//! Order: what was there when the query was created comes first, merged by the timestamps of the partitions' heads; then
//! by commit sequence; ties by topic name and partition. A step is a prefix of that order: nothing is given out before every
//! partition has been read as far as it could matter.
//!
//! Not here: what rows become (`ops`), when a step ends (`step`).
//! Invariants: reading moves nothing; only `advance`, after the commit, does.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, UInt32Array};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMillisecondType};
use millpond_formats::{Decoder, Schemas, Side, windowed};
use millpond_sql::plan::{Relation, SourceInfo, WindowKind};
use millpond_types::ports::{Cursor, ReadLimits, Storage};
use millpond_types::record::{Header, Records};
use millpond_types::value::array_from_values;
use millpond_types::{
    ColumnRole, Error, ErrorKind, Field, Offset, PartitionId, Result, Schema, Sequence, SqlType, TopicPartition, Value,
};

use crate::expr::{hashed, mixed};
use crate::java_time;
use crate::ops::times::{NO_TIME, Times};
use crate::ops::{Failure, Notes, OpResult};
use crate::processing_log::LineKind;
use crate::query::QuerySettings;
use crate::rows::{Rows, int64_column};
use crate::serdes::{decoder, fields};
use crate::state::key::KeySpace;
use crate::state::view::View;

/// However many partitions there are, so much of each is read at once.
const READ_ROWS_MIN: usize = 256;
const READ_BYTES_MIN: usize = 64 << 10;

/// Records of one partition that a query has not yet worked on.
struct Partition {
    at: TopicPartition,
    topic: Arc<str>,
    /// Its place where nothing else decides: by the topic's name and the partition. Topics' ids are random.
    rank: usize,
    /// First offset not worked on; what is committed.
    next: Offset,
    /// First offset not read.
    read_to: Offset,
    backlog_end: Offset,
    chunks: VecDeque<(Arc<Records>, usize)>,
    /// Everything up to this sequence has been read; 0 where not known.
    read_through: Option<Sequence>,
}

/// The partitions of all topics of a query.
pub struct LogReader {
    partitions: Vec<Partition>,
}

/// A prefix of the log's order, not yet worked on.
#[derive(Clone, Default)]
pub struct Input {
    chunks: Vec<(u32, Arc<Records>)>,
    rows: Vec<(u32, u32)>,
    bytes: usize,
}

/// Where a row came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub topic: Arc<str>,
    pub partition: PartitionId,
    pub offset: Offset,
}

impl Input {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn record(&self, pos: usize) -> (usize, &Records, usize) {
        let (chunk, row) = self.rows[pos];
        let (partition, records) = &self.chunks[chunk as usize];
        (*partition as usize, records, row as usize)
    }

    /// The headers of a row in wire form.
    pub fn headers(&self, pos: usize) -> &[u8] {
        let (_, records, row) = self.record(pos);
        let slice = records.views[row].headers;
        if slice.len == 0 { &[] } else { records.bytes(slice) }
    }
}

/// What a partition starts from.
#[derive(Clone, Debug)]
pub struct Start {
    pub at: TopicPartition,
    pub topic: Arc<str>,
    pub offset: Offset,
    pub backlog_end: Offset,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// 0 in the backlog, 1 after it.
    phase: u8,
    /// Timestamp in the backlog (ordered as unsigned), then the sequence.
    order: u64,
    rank: usize,
}

impl LogReader {
    pub fn new(starts: Vec<Start>) -> Self {
        let mut partitions: Vec<Partition> = starts
            .into_iter()
            .map(|s| Partition {
                at: s.at,
                topic: s.topic,
                rank: 0,
                next: s.offset,
                read_to: s.offset,
                backlog_end: s.backlog_end,
                chunks: VecDeque::new(),
                read_through: None,
            })
            .collect();
        partitions.sort_by(|a, b| (&a.topic, a.at.partition).cmp(&(&b.topic, b.at.partition)));
        for (rank, partition) in partitions.iter_mut().enumerate() {
            partition.rank = rank;
        }
        Self { partitions }
    }

    /// Up to so many rows in the order of the log, without moving past them. They end before what cannot be read; it is an
    /// error, with its place, only when it is next.
    pub fn peek(
        &mut self,
        storage: &dyn Storage,
        rows_max: usize,
        bytes_max: usize,
        reset_latest: bool,
    ) -> Result<Input, (Error, Origin)> {
        let up_to = storage.sequence();
        let mut input = Input::default();
        // Place of each partition: chunk, row, and number of the chunk in the input.
        let mut at: Vec<(usize, usize)> =
            self.partitions.iter().map(|p| (0, p.chunks.front().map_or(0, |c| c.1))).collect();
        let mut numbers: Vec<Vec<u32>> = vec![Vec::new(); self.partitions.len()];
        let limits = self.limits(rows_max, bytes_max, up_to);
        let mut places: Vec<Option<Place>> = Vec::with_capacity(at.len());
        for (partition, at) in self.partitions.iter_mut().zip(&mut at) {
            let place = partition.place(at, storage, limits, reset_latest);
            places.push(place.map_err(|e| (e, partition.unread()))?);
        }
        while input.rows.len() < rows_max && input.bytes < bytes_max {
            let Some((p, first)) =
                places.iter().enumerate().filter_map(|(p, place)| Some((p, (*place)?))).min_by_key(|(_, place)| *place)
            else {
                break;
            };
            let second = places.iter().enumerate().filter(|(q, _)| *q != p).filter_map(|(_, place)| *place).min();
            let mut place = Some(first);
            while let Some(now) = place
                && second.is_none_or(|s| now < s)
                && input.rows.len() < rows_max
                && input.bytes < bytes_max
            {
                let (chunk, row) = at[p];
                let records = &self.partitions[p].chunks[chunk].0;
                while numbers[p].len() <= chunk {
                    numbers[p].push(input.chunks.len() as u32);
                    input.chunks.push((p as u32, self.partitions[p].chunks[numbers[p].len() - 1].0.clone()));
                }
                let view = &records.views[row];
                input.bytes += view.key.map_or(0, |s| s.len as usize) + view.value.map_or(0, |s| s.len as usize) + 16;
                input.rows.push((numbers[p][chunk], row as u32));
                at[p].1 += 1;
                place = match self.partitions[p].place(&mut at[p], storage, limits, reset_latest) {
                    Ok(place) => place,
                    // It has no place, so that nothing is known to come before it but what is here.
                    Err(_) => return Ok(input),
                };
            }
            places[p] = place;
        }
        Ok(input)
    }

    /// What is read at once of each partition: of all of them together about a step.
    fn limits(&self, rows_max: usize, bytes_max: usize, up_to: Sequence) -> ReadLimits {
        let share = self.partitions.len().max(1);
        ReadLimits {
            records_max: (rows_max / share).max(READ_ROWS_MIN.min(rows_max)).max(1),
            bytes_max: (bytes_max / share).max(READ_BYTES_MIN.min(bytes_max)),
            up_to,
        }
    }

    /// Reads what the next step will want while what is before the cursors is still being committed. What cannot be read
    /// now is left to `peek`, which says why.
    pub fn read_ahead(&mut self, storage: &dyn Storage, rows_max: usize, bytes_max: usize, cursors: &[Cursor]) {
        let limits = self.limits(rows_max, bytes_max, storage.sequence());
        for partition in &mut self.partitions {
            let done = cursors.iter().find(|c| c.source == partition.at).map_or(partition.next, |c| c.offset);
            let left = partition.chunks.iter().map(|(records, row)| {
                records.views[*row..].len() - records.views[*row..].partition_point(|view| view.offset < done)
            });
            if left.sum::<usize>() >= limits.records_max {
                continue;
            }
            if let Ok(records) = storage.read(partition.at, partition.read_to, limits)
                && !records.views.is_empty()
            {
                partition.read_to = records.next_offset.max(partition.read_to);
                partition.chunks.push_back((Arc::new(records), 0));
            }
        }
    }

    /// Offsets behind the first `rows` rows of an input: where the cursors go when they are worked on.
    pub fn cursors_after(&self, query: &str, input: &Input, rows: usize) -> Vec<Cursor> {
        let mut next: Vec<Option<Offset>> = vec![None; self.partitions.len()];
        for pos in 0..rows.min(input.len()) {
            let (partition, records, row) = input.record(pos);
            next[partition] = Some(records.views[row].offset + 1);
        }
        next.iter()
            .zip(&self.partitions)
            .filter_map(|(next, p)| Some(Cursor { query: query.to_string(), source: p.at, offset: (*next)? }))
            .collect()
    }

    /// Moves past what has been worked on and committed.
    pub fn advance(&mut self, cursors: &[Cursor]) {
        for cursor in cursors {
            let Some(partition) = self.partitions.iter_mut().find(|p| p.at == cursor.source) else { continue };
            partition.next = cursor.offset;
            while let Some((records, row)) = partition.chunks.front_mut() {
                let passed = records.views[*row..].iter().take_while(|v| v.offset < cursor.offset).count();
                *row += passed;
                if *row < records.views.len() {
                    break;
                }
                partition.chunks.pop_front();
            }
        }
    }

    /// Bytes of the records that were read and are not worked on.
    pub fn held_bytes(&self) -> usize {
        self.partitions.iter().flat_map(|p| &p.chunks).map(|(records, _)| records.held_bytes()).sum()
    }

    /// Moves to what another run committed, forgetting what was read ahead.
    pub fn reset(&mut self) {
        for partition in &mut self.partitions {
            partition.chunks.clear();
            partition.read_to = partition.next;
            partition.read_through = None;
        }
    }

    pub fn origin(&self, input: &Input, pos: usize) -> Option<Origin> {
        if pos >= input.len() {
            return None;
        }
        let (partition, records, row) = input.record(pos);
        let partition = &self.partitions[partition];
        Some(Origin {
            topic: partition.topic.clone(),
            partition: partition.at.partition,
            offset: records.views[row].offset,
        })
    }

    /// A number for each of the first rows of an input, by its topic's name, partition and offset.
    pub fn names(&self, input: &Input, rows: usize) -> Vec<u64> {
        let places: Vec<u64> =
            self.partitions.iter().map(|p| mixed(hashed(p.topic.as_bytes()), p.at.partition as u64)).collect();
        (0..rows.min(input.len()))
            .map(|pos| {
                let (partition, records, row) = input.record(pos);
                mixed(places[partition], records.views[row].offset as u64)
            })
            .collect()
    }

    /// The number of one row.
    pub fn name(&self, input: &Input, pos: usize) -> u64 {
        let (partition, records, row) = input.record(pos);
        let partition = &self.partitions[partition];
        let place = mixed(hashed(partition.topic.as_bytes()), partition.at.partition as u64);
        mixed(place, records.views[row].offset as u64)
    }

    /// Offsets not worked on yet, by partition.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        self.partitions.iter().map(|p| (p.at, p.next)).collect()
    }
}

impl Partition {
    /// The first record that was not read.
    fn unread(&self) -> Origin {
        Origin { topic: self.topic.clone(), partition: self.at.partition, offset: self.read_to }
    }

    /// Where the record at `at` stands in the order, reading on as needed. `None`: nothing up to the limit's sequence.
    fn place(
        &mut self,
        at: &mut (usize, usize),
        storage: &dyn Storage,
        limits: ReadLimits,
        reset_latest: bool,
    ) -> Result<Option<Place>> {
        loop {
            if let Some((records, _)) = self.chunks.get(at.0) {
                match records.views.get(at.1) {
                    Some(view) if view.offset < self.backlog_end => {
                        let order = (view.timestamp as u64) ^ (1 << 63);
                        return Ok(Some(Place { phase: 0, order, rank: self.rank }));
                    }
                    Some(view) => return Ok(Some(Place { phase: 1, order: view.sequence, rank: self.rank })),
                    None => *at = (at.0 + 1, 0),
                }
                continue;
            }
            if self.read_through.is_some_and(|through| through >= limits.up_to) {
                return Ok(None);
            }
            let records = match storage.read(self.at, self.read_to, limits) {
                Ok(records) => records,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.skip_lost(storage, reset_latest, e)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            if records.views.is_empty() && records.next_offset <= self.read_to {
                self.read_through = Some(limits.up_to);
                return Ok(None);
            }
            self.read_to = records.next_offset.max(self.read_to);
            if !records.views.is_empty() {
                self.chunks.push_back((Arc::new(records), 0));
            }
        }
    }

    /// Goes on behind records that retention took before they were read.
    fn skip_lost(&mut self, storage: &dyn Storage, reset_latest: bool, error: Error) -> Result<()> {
        let offsets = storage.offsets(self.at)?;
        if offsets.start <= self.read_to {
            return Err(error);
        }
        let to = if reset_latest { offsets.stable_end } else { offsets.start };
        tracing::warn!(
            topic = &*self.topic,
            partition = self.at.partition,
            lost = to - self.read_to,
            from = self.read_to,
            to,
            "records were gone before they were read"
        );
        self.read_to = to;
        Ok(())
    }
}

/// One source of a plan: how its records become rows.
pub struct SourceStage {
    info: Arc<SourceInfo>,
    schema: SchemaRef,
    /// Indexes of the partitions in the reader that belong to the source's topic.
    topic: millpond_types::TopicId,
    columns: Vec<ColumnFrom>,
    key: Decoder,
    value: Decoder,
    time: Option<TimeColumn>,
    /// Greatest time seen, for records whose time cannot be extracted because there is no value.
    times: KeySpace,
}

/// The greatest time of each partition so far, which records without a value take.
pub enum Greatest<'a, 'v> {
    /// In state, of all rows before.
    Kept(&'a mut View<'v>),
    /// Of this part of the input alone, for [`SourceStage::keep_greatest`]; `before` is set where that does not do.
    OfPart { greatest: BTreeMap<PartitionId, i64>, before: &'a AtomicBool },
}

/// Where a column comes from.
#[derive(Clone, Debug)]
enum ColumnFrom {
    Key(usize),
    Value(usize),
    Headers(SqlType),
    Header(String),
    RowTime,
    RowPartition,
    RowOffset,
    WindowStart,
    WindowEnd,
}

struct TimeColumn {
    from: ColumnFrom,
    pattern: Option<java_time::Pattern>,
}

impl SourceStage {
    /// `schema` is that of the plan's node: the columns that are used.
    pub fn new(
        info: Arc<SourceInfo>,
        schema: &Schema,
        topic: millpond_types::TopicId,
        times: KeySpace,
        schemas: &Arc<dyn Schemas>,
    ) -> Result<Self> {
        let keys: Vec<Field> = fields(info.schema.keys());
        let values: Vec<Field> = fields(info.schema.values());
        let (mut want_keys, mut want_values) = (Vec::new(), Vec::new());
        let want = |wanted: &mut Vec<usize>, all: &[Field], name: &str| -> Result<usize> {
            let index = all
                .iter()
                .position(|f| f.name == name)
                .ok_or_else(|| Error::bug(format!("source \"{}\" has no column \"{name}\"", info.name)))?;
            Ok(wanted.iter().position(|w| *w == index).unwrap_or_else(|| {
                wanted.push(index);
                wanted.len() - 1
            }))
        };
        let mut columns = Vec::with_capacity(schema.columns.len());
        for column in &schema.columns {
            columns.push(match &column.role {
                ColumnRole::Key => ColumnFrom::Key(want(&mut want_keys, &keys, &column.name)?),
                ColumnRole::Value => ColumnFrom::Value(want(&mut want_values, &values, &column.name)?),
                ColumnRole::Headers => ColumnFrom::Headers(column.ty.clone()),
                ColumnRole::Header(key) => ColumnFrom::Header(key.clone()),
                ColumnRole::Pseudo => match column.name.as_str() {
                    "ROWTIME" => ColumnFrom::RowTime,
                    "ROWPARTITION" => ColumnFrom::RowPartition,
                    "ROWOFFSET" => ColumnFrom::RowOffset,
                    "WINDOWSTART" => ColumnFrom::WindowStart,
                    "WINDOWEND" => ColumnFrom::WindowEnd,
                    other => return Err(Error::bug(format!("a source has no pseudo column \"{other}\""))),
                },
            });
        }
        let time = match &info.timestamp {
            Some(t) => {
                let column = info.schema.columns.iter().find(|c| c.name == t.column).ok_or_else(|| {
                    Error::bad_request(format!("timestamp column \"{}\" is not in \"{}\"", t.column, info.name))
                })?;
                let from = match &column.role {
                    ColumnRole::Key => ColumnFrom::Key(want(&mut want_keys, &keys, &column.name)?),
                    ColumnRole::Header(key) => ColumnFrom::Header(key.clone()),
                    _ => ColumnFrom::Value(want(&mut want_values, &values, &column.name)?),
                };
                let pattern = match &t.format {
                    Some(format) => Some(java_time::Pattern::compile(format).map_err(Error::bad_request)?),
                    None => None,
                };
                Some(TimeColumn { from, pattern })
            }
            None => None,
        };
        let key = decoder(&info.key_format, Side::Key, &keys, &want_keys, schemas)?;
        let value = decoder(&info.value_format, Side::Value, &values, &want_values, schemas)?;
        Ok(Self { schema: schema.to_arrow(), info, topic, columns, key, value, time, times })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether its rows have their time from a column.
    pub fn has_times(&self) -> bool {
        self.time.is_some()
    }

    /// Takes over the greatest times of parts of the input.
    pub fn keep_greatest(&self, parts: &[BTreeMap<PartitionId, i64>], view: &mut View<'_>) -> Result<()> {
        let mut seen = Times::<1>::new(&self.times);
        for (partition, time) in parts.iter().flatten() {
            seen.advance(*partition, *time, view)?;
        }
        seen.store(view)
    }

    /// The rows of this source in a part of the input.
    pub fn rows(
        &self,
        reader: &LogReader,
        input: &Input,
        part: Range<usize>,
        greatest: &mut Greatest<'_, '_>,
        notes: &mut Notes,
        config: &QuerySettings,
    ) -> OpResult<Rows> {
        let mine: Vec<bool> = reader.partitions.iter().map(|p| p.at.topic == self.topic).collect();
        let all_mine = mine.iter().all(|m| *m);
        let pos: Vec<u32> = (part.start..part.end.min(input.len()))
            .filter(|i| all_mine || mine[input.chunks[input.rows[*i].0 as usize].0 as usize])
            .map(|i| i as u32)
            .collect();
        if pos.is_empty() {
            return Ok(Rows::empty(self.schema.clone()));
        }
        let n = pos.len();
        let mut bad = vec![false; n];
        let mut times: Vec<i64> = Vec::with_capacity(n);
        let mut partitions = Vec::with_capacity(n);
        for p in &pos {
            let (partition, records, row) = input.record(*p as usize);
            times.push(records.views[row].timestamp);
            partitions.push(reader.partitions[partition].at.partition);
        }

        // Keys, without the window where there is one.
        let mut bounds: Vec<(i64, i64)> = Vec::new();
        let mut windowed_keys: Vec<Option<&[u8]>> = Vec::new();
        if let Some(window) = &self.info.window {
            for (i, p) in pos.iter().enumerate() {
                let (_, records, row) = input.record(*p as usize);
                let parts = match records.key(row) {
                    None => None,
                    Some(key) if window.kind == WindowKind::Session => windowed::read_session_key(key),
                    Some(key) => windowed::read_time_key(key)
                        .map(|(inner, start)| (inner, start, start.saturating_add(window.size_ms.unwrap_or(0)))),
                };
                if parts.is_none() && records.key(row).is_some() {
                    bad[i] = true;
                    notes.push(*p, LineKind::Deserialization, || {
                        "the record's key is too short to hold a window".to_string()
                    });
                }
                bounds.push(parts.map_or((0, 0), |(_, start, end)| (start, end)));
                windowed_keys.push(parts.map(|(inner, ..)| inner));
            }
        }
        let keys = if self.info.window.is_some() {
            self.key.decode(windowed_keys.iter().copied())?
        } else {
            self.key.decode(pos.iter().map(|p| {
                let (_, records, row) = input.record(*p as usize);
                records.key(row)
            }))?
        };
        let values = self.value.decode(pos.iter().map(|p| {
            let (_, records, row) = input.record(*p as usize);
            records.value(row)
        }))?;
        for (side, decoded) in [("key", &keys), ("value", &values)] {
            for error in &decoded.errors {
                bad[error.row] = true;
                notes.push(pos[error.row], LineKind::Deserialization, || {
                    format!("the record's {side} could not be read: {}", error.message)
                });
            }
        }
        if self.info.relation == Relation::Table {
            for (i, p) in pos.iter().enumerate() {
                let (_, records, row) = input.record(*p as usize);
                if !bad[i] && records.key(row).is_none() {
                    bad[i] = true;
                    notes.push(*p, LineKind::Skipped, || "a table's record has no key".to_string());
                }
            }
        }
        let null = values.null_rows.clone();
        let headers = |pos: u32| -> Vec<Header> {
            let (_, records, row) = input.record(pos as usize);
            records.headers(row)
        };
        let decoded = |from: &ColumnFrom| -> Option<ArrayRef> {
            match from {
                ColumnFrom::Key(i) => keys.columns.get(*i).cloned(),
                ColumnFrom::Value(i) => values.columns.get(*i).cloned(),
                ColumnFrom::Header(name) => Some(header_column(name, &pos, &headers)),
                _ => None,
            }
        };
        if let Some(time) = &self.time {
            let column = decoded(&time.from).ok_or_else(|| Error::bug("the timestamp column was not decoded"))?;
            let is_null = |i: usize| null.as_ref().is_some_and(|n| n.value(i));
            let mut seen = Times::<1>::new(&self.times);
            for i in 0..n {
                if bad[i] {
                    continue;
                }
                let (greatest, before) = match greatest {
                    Greatest::Kept(view) => (&mut seen.get(partitions[i], view)?[0], None),
                    Greatest::OfPart { greatest, before } => {
                        (greatest.entry(partitions[i]).or_insert(NO_TIME), Some(*before))
                    }
                };
                let extracted = if is_null(i) && !matches!(time.from, ColumnFrom::Key(_)) {
                    if let Some(before) = before {
                        before.store(true, Ordering::Relaxed);
                        return Err(Error::bug("a part of the input depends on what is before it").into());
                    }
                    Ok(if *greatest == NO_TIME { times[i] } else { *greatest })
                } else {
                    extract(&column, i, time.pattern.as_ref())
                };
                match extracted {
                    Ok(extracted) => {
                        times[i] = extracted;
                        *greatest = extracted.max(*greatest);
                    }
                    Err(message) if config.throw_on_invalid_timestamp => {
                        return Err(Failure::at(pos[i], Error::bad_request(message)));
                    }
                    Err(message) => {
                        bad[i] = true;
                        notes.push(pos[i], LineKind::Timestamp, || message);
                    }
                }
            }
            if let Greatest::Kept(view) = greatest {
                seen.store(view)?;
            }
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for from in &self.columns {
            columns.push(match from {
                ColumnFrom::Key(_) | ColumnFrom::Value(_) | ColumnFrom::Header(_) => {
                    decoded(from).ok_or_else(|| Error::bug("a column was not decoded"))?
                }
                ColumnFrom::Headers(ty) => headers_column(ty, &pos, &headers)?,
                ColumnFrom::RowTime => int64_column(times.clone().into()),
                ColumnFrom::RowPartition => Arc::new(Int32Array::from(partitions.clone())),
                ColumnFrom::RowOffset => int64_column(
                    pos.iter()
                        .map(|p| {
                            let (_, records, row) = input.record(*p as usize);
                            records.views[row].offset
                        })
                        .collect::<Vec<i64>>()
                        .into(),
                ),
                ColumnFrom::WindowStart => int64_column(bounds.iter().map(|b| b.0).collect::<Vec<i64>>().into()),
                ColumnFrom::WindowEnd => int64_column(bounds.iter().map(|b| b.1).collect::<Vec<i64>>().into()),
            });
        }
        let mut rows = Rows::new(self.schema.clone(), columns, pos, partitions, times)?;
        rows.null = null;
        if self.info.window.is_some() {
            let part = |f: &dyn Fn(&(i64, i64)) -> i64| bounds.iter().map(f).collect::<Vec<i64>>().into();
            rows.window = Some((part(&|b| b.0), part(&|b| b.1)));
        }
        if bad.contains(&true) {
            let kept = (0..n as u32).filter(|i| !bad[*i as usize]);
            rows = rows.take(&UInt32Array::from_iter_values(kept))?;
        }
        Ok(rows)
    }
}

/// A record's time from its column.
fn extract(column: &ArrayRef, row: usize, pattern: Option<&java_time::Pattern>) -> std::result::Result<i64, String> {
    let time = if column.is_null(row) {
        return Err("the timestamp column is NULL".to_string());
    } else if let Some(longs) = column.as_primitive_opt::<Int64Type>() {
        longs.value(row)
    } else if let Some(times) = column.as_primitive_opt::<TimestampMillisecondType>() {
        times.value(row)
    } else if let (Some(texts), Some(pattern)) = (column.as_string_opt::<i32>(), pattern) {
        pattern.parse_timestamp_ms(texts.value(row), &java_time::Zone::UTC)?
    } else if let Some(texts) = column.as_string_opt::<i32>() {
        java_time::parse_iso_timestamp(texts.value(row))?
    } else {
        return Err(format!("a timestamp cannot be taken from a column of type {}", column.data_type()));
    };
    if time < 0 {
        return Err(format!("the extracted timestamp {time} is negative"));
    }
    Ok(time)
}

/// The value of the last header with this name.
fn header_column(name: &str, pos: &[u32], headers: &dyn Fn(u32) -> Vec<Header>) -> ArrayRef {
    let values: Vec<Option<Vec<u8>>> =
        pos.iter().map(|p| headers(*p).into_iter().rev().find(|h| h.key == name).and_then(|h| h.value)).collect();
    Arc::new(BinaryArray::from_iter(values))
}

fn headers_column(ty: &SqlType, pos: &[u32], headers: &dyn Fn(u32) -> Vec<Header>) -> Result<ArrayRef> {
    let names: Vec<String> = match ty {
        SqlType::Array(item) => match item.as_ref() {
            SqlType::Struct(fields) => fields.iter().map(|f| f.name.clone()).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let [key, value] = names.as_slice() else {
        return Err(Error::bug(format!("a HEADERS column is of type {ty}")));
    };
    let values: Vec<Value> = pos
        .iter()
        .map(|p| {
            let items = headers(*p).into_iter().map(|h| {
                Value::Struct(vec![
                    (key.clone(), Value::String(h.key)),
                    (value.clone(), h.value.map_or(Value::Null, Value::Bytes)),
                ])
            });
            Value::Array(items.collect())
        })
        .collect();
    array_from_values(ty, &values).map_err(|e| Error::bug(e.to_string()))
}

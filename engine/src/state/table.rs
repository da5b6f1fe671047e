//! Results of table queries, kept so that pull queries can read them.
//!
//! Key: see `state::key` (kinds 38 and 39); partition is the one of the sink topic. Value: a row (`state::row`) of the
//! value columns with the row's time. Readers take one snapshot of storage and give it to all tables of a statement.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use bytes::Bytes;
use millpond_types::ports::{ScanLimits, StateReader};
use millpond_types::{ColumnRole, PartitionId, Result, Schema, SqlType};

use super::cells::{Cells, put_key_i64, take_key_i64};
use super::key::{KeySpace, Kind, end_of};
use super::row::{RowsBuilder, take_time};
use super::view::View;

/// Operator under which results are kept.
const RESULT: &str = "result";

/// Where and how the result of one query is kept.
#[derive(Clone, Debug)]
pub struct TableLayout {
    space: KeySpace,
    keys: Vec<SqlType>,
    values: Vec<SqlType>,
    windowed: bool,
    segment_ms: i64,
}

/// Windows whose start is in the same segment are kept together. Part of the layout on disk.
pub const SEGMENT_MS: i64 = 60 * 60 * 1000;

/// Rows of a table as a pull query sees them: key columns, value columns, each in schema order.
#[derive(Clone, Debug)]
pub struct TableRows {
    pub keys: Vec<ArrayRef>,
    /// Start and end, for windowed tables.
    pub window: Option<(Int64Array, Int64Array)>,
    pub values: Vec<ArrayRef>,
    pub row_time: Int64Array,
    pub len: usize,
}

/// Which rows a scan gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBounds {
    /// Window starts, both inclusive.
    pub start_min: i64,
    pub start_max: i64,
}

impl Default for WindowBounds {
    fn default() -> Self {
        Self { start_min: i64::MIN, start_max: i64::MAX }
    }
}

/// The columns that are kept of a table, by their place in its schema: keys, values, headers.
pub fn stored(schema: &Schema) -> impl Iterator<Item = usize> {
    let of = |is: fn(&ColumnRole) -> bool| {
        schema.columns.iter().enumerate().filter(move |(_, c)| is(&c.role)).map(|(i, _)| i)
    };
    of(|r| *r == ColumnRole::Key)
        .chain(of(|r| *r == ColumnRole::Value))
        .chain(of(|r| matches!(r, ColumnRole::Headers | ColumnRole::Header(_))))
}

impl TableLayout {
    /// `schema`: that of the query's result; its key, value and header columns count.
    pub fn new(query: &str, schema: &Schema, windowed: bool) -> Self {
        let kind = if windowed { Kind::WindowedResult } else { Kind::Result };
        Self {
            space: KeySpace::new(kind, query, RESULT),
            keys: schema.keys().map(|c| c.ty.clone()).collect(),
            values: stored(schema).skip(schema.keys().count()).map(|i| schema.columns[i].ty.clone()).collect(),
            windowed,
            segment_ms: SEGMENT_MS,
        }
    }

    pub fn is_windowed(&self) -> bool {
        self.windowed
    }

    /// The key of a row; `window` is start and end.
    pub fn key(
        &self,
        partition: PartitionId,
        keys: &[Cells<'_>],
        row: usize,
        window: Option<(i64, i64)>,
        out: &mut Vec<u8>,
    ) {
        self.space.start(partition, out);
        if let Some((start, _)) = window {
            put_key_i64(start.div_euclid(self.segment_ms), out);
        }
        keys.iter().for_each(|c| c.put_key(row, out));
        if let Some((start, end)) = window {
            put_key_i64(start, out);
            put_key_i64(end, out);
        }
    }

    /// Drops all windows in segments that lie before `horizon` as a whole. Cheap where there are none.
    pub fn expire(&self, partition: PartitionId, horizon: i64, view: &mut View<'_>) -> Result<()> {
        let from = self.space.partition_prefix(partition);
        let mut to = from.clone();
        put_key_i64(horizon.div_euclid(self.segment_ms), &mut to);
        if view.is_stored(&from, &to)? {
            view.drop_range(from, to);
        }
        Ok(())
    }

    /// The rows with this key: one, or one per live window; and whether a limit ended them. `key` has one array per key
    /// column, read at `row`.
    pub fn get(
        &self,
        reader: &dyn StateReader,
        partition: PartitionId,
        key: &[ArrayRef],
        row: usize,
        bounds: WindowBounds,
        limits: ScanLimits,
    ) -> Result<(TableRows, bool)> {
        let mut encoded = Vec::new();
        Cells::of(key)?.iter().for_each(|c| c.put_key(row, &mut encoded));
        let prefix = self.space.partition_prefix(partition);
        let mut entries = Vec::new();
        if !self.windowed {
            let whole = [prefix.as_slice(), encoded.as_slice()].concat();
            entries.extend(reader.get(&whole)?.map(|value| (Bytes::from(whole), value)));
            return Ok((self.decode(&entries, bounds)?, false));
        }
        let (mut bytes, mut more) = (0, false);
        let end = end_of(&prefix);
        let mut from = prefix.clone();
        put_key_i64(bounds.start_min.div_euclid(self.segment_ms), &mut from);
        while let Some((first, _)) = reader.range(&from, &end, false, 1)?.first() {
            let segment = take_key_i64(&mut self.space.rest(first))?;
            if segment > bounds.start_max.div_euclid(self.segment_ms) {
                break;
            }
            if limits.reached(entries.len(), bytes) {
                more = true;
                break;
            }
            let mut start = prefix.clone();
            put_key_i64(segment, &mut start);
            let segment_start = start.clone();
            start.extend_from_slice(&encoded);
            let left =
                ScanLimits { entries_max: limits.entries_max - entries.len(), bytes_max: limits.bytes_max - bytes };
            let scan = reader.scan(&start, &end_of(&start), false, left)?;
            bytes += scan.entries.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
            entries.extend(scan.entries);
            if scan.more {
                more = true;
                break;
            }
            from = end_of(&segment_start);
        }
        Ok((self.decode(&entries, bounds)?, more))
    }

    /// Rows of a partition, in key order, after `after` (a key that an earlier call returned). The second part is where to go on, `None` at the end.
    pub fn scan(
        &self,
        reader: &dyn StateReader,
        partition: PartitionId,
        after: Option<&[u8]>,
        bounds: WindowBounds,
        limits: ScanLimits,
    ) -> Result<(TableRows, Option<Bytes>)> {
        let prefix = self.space.partition_prefix(partition);
        let end = end_of(&prefix);
        let from = match after {
            Some(key) => [key, &[0]].concat(),
            None => prefix,
        };
        let scan = reader.scan(&from, &end, false, limits)?;
        let next = scan.entries.last().filter(|_| scan.more).map(|(k, _)| k.clone());
        Ok((self.decode(&scan.entries, bounds)?, next))
    }

    fn decode(&self, entries: &[(Bytes, Bytes)], bounds: WindowBounds) -> Result<TableRows> {
        let mut keys = RowsBuilder::new(&self.keys);
        let mut values = RowsBuilder::new(&self.values);
        let (mut starts, mut ends, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in entries {
            let mut rest = self.space.rest(key);
            if self.windowed {
                take_key_i64(&mut rest)?;
                let bounds_at = rest.len().saturating_sub(16);
                let mut window = &rest[bounds_at..];
                let start = take_key_i64(&mut window)?;
                if start < bounds.start_min || start > bounds.start_max {
                    continue;
                }
                starts.push(start);
                ends.push(take_key_i64(&mut window)?);
            }
            keys.append_key(&mut rest)?;
            let mut value = &value[..];
            times.push(take_time(&mut value)?);
            values.append_cells(value)?;
        }
        Ok(TableRows {
            len: times.len(),
            keys: keys.finish()?,
            window: self.windowed.then(|| (starts.into(), ends.into())),
            values: values.finish()?,
            row_time: times.into(),
        })
    }
}

impl TableRows {
    /// Columns in the order of a pull plan's table: those of its schema, then WINDOWSTART and WINDOWEND where windowed,
    /// then ROWTIME, all BIGINT.
    pub fn columns(&self, schema: &Schema) -> Vec<ArrayRef> {
        let mut placed: Vec<(usize, &ArrayRef)> = stored(schema).zip(self.keys.iter().chain(&self.values)).collect();
        placed.sort_by_key(|(place, _)| *place);
        let mut columns: Vec<ArrayRef> = placed.into_iter().map(|(_, column)| column.clone()).collect();
        if let Some((start, end)) = &self.window {
            columns.push(Arc::new(start.clone()));
            columns.push(Arc::new(end.clone()));
        }
        columns.push(Arc::new(self.row_time.clone()));
        columns
    }

    /// Time of each row.
    pub fn times(&self) -> &[i64] {
        self.row_time.values()
    }
}

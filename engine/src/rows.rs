//! Rows on their way through a plan: Arrow columns with an envelope.
//!
//! Owns the envelope and how it is cut and joined with the columns. Not here: what operators do with rows (`ops`).
//!
//! A row of a stream is an insert. A row of a table is a change of one key: an upsert, or, where its value is NULL, a
//! delete. Headers are not carried: they belong to the input row that `pos` names, and the step holds them.
//!
//! Invariants: all parts have as many entries as the batch has rows; `pos` never falls; rows with the same `pos` are in
//! the order in which they were emitted; keys come before values in the columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::{filter, take};
use arrow::datatypes::SchemaRef;
use millpond_types::{Error, PartitionId, Result};

use crate::expr::{EvalInput, Names, Origin};

/// What is known of the row that a change replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OldState {
    #[default]
    Unknown = 0,
    /// There was none.
    Absent = 1,
    Known = 2,
}

/// The replaced rows of a table's changes.
#[derive(Clone, Debug)]
pub struct OldRows {
    pub state: Vec<OldState>,
    /// When each was written; 0 where not known.
    pub time: ScalarBuffer<i64>,
    /// Columns as those of the new rows; NULL where not known.
    pub columns: Vec<ArrayRef>,
}

#[derive(Clone, Debug)]
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    len: usize,
    /// Step-local index of the input row that caused each row.
    pub pos: ScalarBuffer<u32>,
    /// Partition whose state the row belongs to.
    pub partition: ScalarBuffer<PartitionId>,
    /// Milliseconds since the epoch.
    pub time: ScalarBuffer<i64>,
    /// Set bit: the row's value is NULL as a whole, which is not the same as all its columns being NULL.
    pub null: Option<BooleanBuffer>,
    pub old: Option<OldRows>,
    /// Start and end of the window that is part of the key.
    pub window: Option<(ScalarBuffer<i64>, ScalarBuffer<i64>)>,
}

pub fn defect(e: arrow::error::ArrowError) -> Error {
    Error::bug(format!("rows: {e}"))
}

impl Rows {
    pub fn new(
        schema: SchemaRef,
        columns: Vec<ArrayRef>,
        pos: Vec<u32>,
        partition: Vec<PartitionId>,
        time: Vec<i64>,
    ) -> Result<Self> {
        let rows = Self {
            schema,
            columns,
            len: pos.len(),
            pos: pos.into(),
            partition: partition.into(),
            time: time.into(),
            null: None,
            old: None,
            window: None,
        };
        rows.check()?;
        Ok(rows)
    }

    pub fn empty(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|f| new_null_array(f.data_type(), 0)).collect();
        let none = || Vec::new();
        Self {
            schema,
            columns,
            len: 0,
            pos: none().into(),
            partition: Vec::new().into(),
            time: Vec::new().into(),
            null: None,
            old: None,
            window: None,
        }
    }

    fn check(&self) -> Result<()> {
        let right = self.columns.len() == self.schema.fields().len()
            && self.columns.iter().all(|c| c.len() == self.len)
            && self.partition.len() == self.len
            && self.time.len() == self.len;
        if right {
            return Ok(());
        }
        Err(Error::bug(format!(
            "rows of {} columns and {} rows do not fit their schema or envelope",
            self.columns.len(),
            self.len
        )))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }

    pub fn batch(&self) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.len));
        RecordBatch::try_new_with_options(self.schema.clone(), self.columns.clone(), &options).map_err(defect)
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.null.as_ref().is_some_and(|n| n.value(row))
    }

    pub fn old_state(&self, row: usize) -> OldState {
        self.old.as_ref().map_or(OldState::Unknown, |o| o.state[row])
    }

    /// The rows as an expression is evaluated for them. Those of a stream are known by the input rows that caused them;
    /// a table's by what they hold, as the same row is looked at again when it is replaced.
    pub fn input(&self) -> EvalInput<'_> {
        let names = if self.old.is_some() { Names::Values } else { Names::Input(&self.pos) };
        EvalInput::new(&self.columns, self.len).of(Origin { time: &self.time, names })
    }

    /// The replaced rows, likewise.
    pub fn old_input(&self) -> Option<EvalInput<'_>> {
        let old = self.old.as_ref()?;
        Some(EvalInput::new(&old.columns, self.len).of(Origin { time: &old.time, names: Names::Values }))
    }

    pub fn window_of(&self, row: usize) -> Option<(i64, i64)> {
        self.window.as_ref().map(|(start, end)| (start[row], end[row]))
    }

    /// The same envelope around other columns; old columns go with them.
    pub fn with_columns(&self, schema: SchemaRef, columns: Vec<ArrayRef>, old: Option<Vec<ArrayRef>>) -> Result<Self> {
        let old = match (old, &self.old) {
            (Some(columns), Some(o)) => Some(OldRows { state: o.state.clone(), time: o.time.clone(), columns }),
            _ => None,
        };
        let rows = Self { schema, columns, old, ..self.clone() };
        rows.check()?;
        Ok(rows)
    }

    /// The rows at `indices`, which ascend where order matters; they may repeat.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let pick = |columns: &[ArrayRef]| {
            columns.iter().map(|c| take(c, indices, None)).collect::<Result<Vec<_>, _>>().map_err(defect)
        };
        let at = indices.values();
        Ok(Self {
            schema: self.schema.clone(),
            columns: pick(&self.columns)?,
            len: indices.len(),
            pos: gather(&self.pos, at),
            partition: gather(&self.partition, at),
            time: gather(&self.time, at),
            null: self.null.as_ref().map(|n| BooleanBuffer::collect_bool(at.len(), |i| n.value(at[i] as usize))),
            old: match &self.old {
                Some(o) => Some(OldRows {
                    state: at.iter().map(|&i| o.state[i as usize]).collect(),
                    time: gather(&o.time, at),
                    columns: pick(&o.columns)?,
                }),
                None => None,
            },
            window: self.window.as_ref().map(|(start, end)| (gather(start, at), gather(end, at))),
        })
    }

    /// Rows of several batches of the same columns, none of them empty, by batch and row.
    pub fn interleave(parts: &[&Rows], at: &[(usize, usize)]) -> Result<Self> {
        let Some(first) = parts.first() else { return Err(Error::bug("rows of no batch")) };
        if parts.len() == 1 {
            if at.len() == first.len && at.iter().enumerate().all(|(i, (_, row))| i == *row) {
                return Ok((*first).clone());
            }
            return first.take(&UInt32Array::from_iter_values(at.iter().map(|(_, row)| *row as u32)));
        }
        let pick = |columns: &dyn Fn(&Rows) -> &[ArrayRef]| {
            let sources: Vec<&[ArrayRef]> = parts.iter().map(|part| columns(part)).collect();
            interleave_columns(&sources, at)
        };
        let times = |f: &dyn Fn(&Rows, usize) -> i64| -> ScalarBuffer<i64> {
            at.iter().map(|(part, row)| f(parts[*part], *row)).collect::<Vec<i64>>().into()
        };
        let empty: &[ArrayRef] = &[];
        let old = if parts.iter().any(|part| part.old.is_some()) {
            if parts.iter().any(|part| part.old.is_none()) {
                return Err(Error::bug("old rows are known of some batches only"));
            }
            Some(OldRows {
                state: at.iter().map(|(part, row)| parts[*part].old_state(*row)).collect(),
                time: times(&|rows, row| rows.old.as_ref().map_or(0, |o| o.time[row])),
                columns: pick(&|rows| rows.old.as_ref().map_or(empty, |o| &o.columns))?,
            })
        } else {
            None
        };
        Ok(Self {
            schema: first.schema.clone(),
            columns: pick(&|rows| &rows.columns)?,
            len: at.len(),
            pos: at.iter().map(|(part, row)| parts[*part].pos[*row]).collect::<Vec<_>>().into(),
            partition: at.iter().map(|(part, row)| parts[*part].partition[*row]).collect::<Vec<_>>().into(),
            time: times(&|rows, row| rows.time[row]),
            null: parts
                .iter()
                .any(|part| part.null.is_some())
                .then(|| BooleanBuffer::collect_bool(at.len(), |i| parts[at[i].0].is_null(at[i].1))),
            old,
            window: parts.iter().any(|part| part.window.is_some()).then(|| {
                let bound = |rows: &Rows, row: usize| rows.window_of(row).unwrap_or((0, 0));
                (times(&|rows, row| bound(rows, row).0), times(&|rows, row| bound(rows, row).1))
            }),
        })
    }

    /// The rows whose bit is set.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let count = keep.true_count();
        if count == self.len {
            return Ok(self.clone());
        }
        if self.old.is_none() && self.null.is_none() && self.window.is_none() {
            let columns =
                self.columns.iter().map(|c| filter(c, keep)).collect::<Result<Vec<_>, _>>().map_err(defect)?;
            let kept: Vec<u32> = keep.values().set_indices_u32().collect();
            return Ok(Self {
                schema: self.schema.clone(),
                columns,
                len: count,
                pos: gather(&self.pos, &kept),
                partition: gather(&self.partition, &kept),
                time: gather(&self.time, &kept),
                null: None,
                old: None,
                window: None,
            });
        }
        self.take(&UInt32Array::from_iter_values(keep.values().set_indices_u32()))
    }

    /// The first `rows` rows.
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        let cut = |columns: &[ArrayRef]| columns.iter().map(|c| c.slice(offset, len)).collect::<Vec<_>>();
        Self {
            schema: self.schema.clone(),
            columns: cut(&self.columns),
            len,
            pos: self.pos.slice(offset, len),
            partition: self.partition.slice(offset, len),
            time: self.time.slice(offset, len),
            null: self.null.as_ref().map(|n| n.slice(offset, len)),
            old: self.old.as_ref().map(|o| OldRows {
                state: o.state[offset..offset + len].to_vec(),
                time: o.time.slice(offset, len),
                columns: cut(&o.columns),
            }),
            window: self.window.as_ref().map(|(start, end)| (start.slice(offset, len), end.slice(offset, len))),
        }
    }
}

fn gather<T: arrow::datatypes::ArrowNativeType>(values: &[T], at: &[u32]) -> ScalarBuffer<T> {
    at.iter().map(|&i| values[i as usize]).collect::<Vec<T>>().into()
}

/// Columns taken row by row from one of several batches of the same columns.
pub fn interleave_columns(sources: &[&[ArrayRef]], at: &[(usize, usize)]) -> Result<Vec<ArrayRef>> {
    let width = sources.first().map_or(0, |s| s.len());
    (0..width)
        .map(|i| {
            let arrays: Vec<&dyn Array> = sources.iter().map(|s| s[i].as_ref()).collect();
            arrow::compute::interleave(&arrays, at).map_err(defect)
        })
        .collect()
}

/// A column of one BIGINT per row.
pub fn int64_column(values: ScalarBuffer<i64>) -> ArrayRef {
    Arc::new(arrow::array::Int64Array::new(values, None))
}

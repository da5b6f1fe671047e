//! Table functions in a SELECT: each input row becomes as many rows as its longest call gives items.
//!
//! A row that gives more than fits into a step is emitted in parts.
//!
//! ```text
//! half-done rows: items emitted of the first | count | per row: partition, time, row (value cells)
//! ```
//! Numbers are zigzag varints.

use arrow::array::{Array, ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use millpond_types::record::put_varint;
use millpond_types::{Error, SqlType};

use super::{Context, Emitted, Evaluation, Failure, More, OpResult, Operator, Prepared, note_errors};
use crate::functions::TableCall;
use crate::rows::{Rows, defect};
use crate::state::cells::{Cells, put_bytes, take_bytes, take_int};
use crate::state::row::RowsBuilder;

pub struct FlatMap {
    pub id: String,
    pub calls: Vec<TableCall>,
    pub input: SchemaRef,
    pub input_types: Vec<SqlType>,
    pub schema: SchemaRef,
}

impl Operator for FlatMap {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let rows = super::only(&mut inputs)?;
        Ok(Prepared { wants: Default::default(), work: Box::new(move |cx, _| self.expand(&rows, 0, cx)) })
    }

    fn resume(&self, mut resume: &[u8], pos: u32, cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let bytes = &mut resume;
        let skip = take_int(bytes)?;
        let mut builder = RowsBuilder::new(&self.input_types);
        let (mut partitions, mut times) = (Vec::new(), Vec::new());
        for _ in 0..take_int(bytes)? {
            partitions.push(take_int(bytes)? as i32);
            times.push(take_int(bytes)?);
            builder.append_cells(take_bytes(bytes)?)?;
        }
        let all = vec![pos; times.len()];
        let rows = Rows::new(self.input.clone(), builder.finish()?, all, partitions, times)?;
        self.expand(&rows, usize::try_from(skip).unwrap_or(0), cx)
    }
}

impl FlatMap {
    /// The rows of the items; of the first row only those behind the first `skip`.
    fn expand(&self, rows: &Rows, skip: usize, cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let input = rows.input();
        let mut expanded = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            expanded.push(call.expand(&input, cx.eval)?);
        }
        note_errors(cx.eval, cx.notes, &rows.pos);
        // Calls may have stopped before the end, where they had too much for one batch.
        let covered = expanded.iter().map(|e| e.offsets.len() - 1).min().unwrap_or(0);
        let cells = Cells::of(rows.columns())?;
        let mut parents = Vec::new();
        let mut items: Vec<Vec<Option<u64>>> = vec![Vec::new(); expanded.len()];
        let (mut bytes, mut encoded) = (0, Vec::new());
        let mut more = None;
        for row in (0..rows.len()).filter(|row| !rows.is_null(*row)) {
            if row >= covered {
                if rows.pos[row] > 0 {
                    return Err(Failure::cut(rows.pos[row]));
                }
                more = Some(More { pos: rows.pos[row], resume: rest_of(rows, &cells, row, 0)? });
                break;
            }
            let spans: Vec<(u64, u64)> =
                expanded.iter().map(|e| (e.offsets[row] as u64, e.offsets[row + 1] as u64)).collect();
            let longest = spans.iter().map(|(from, to)| to - from).max().unwrap_or(0);
            let first = if row == 0 { skip as u64 } else { 0 };
            // What it costs to repeat the row for each of its items.
            encoded.clear();
            if longest > 1 {
                cells.iter().for_each(|c| c.put_value(row, &mut encoded));
            }
            let by_rows = cx.config.emit_rows_max.saturating_sub(parents.len());
            let by_bytes = (cx.config.step_write_bytes_max.saturating_sub(bytes) / encoded.len().max(1))
                .max(usize::from(parents.is_empty()));
            let room = by_rows.min(by_bytes) as u64;
            let until = longest.min(first.saturating_add(room));
            if until < longest && rows.pos[row] > 0 {
                return Err(Failure::cut(rows.pos[row]));
            }
            bytes += encoded.len().saturating_mul((until.saturating_sub(first)) as usize);
            parents.extend(std::iter::repeat_n(row as u32, until.saturating_sub(first) as usize));
            for (column, (from, to)) in items.iter_mut().zip(&spans) {
                column.extend((first..until).map(|i| (from + i < *to).then_some(from + i)));
            }
            if until < longest {
                more = Some(More { pos: rows.pos[row], resume: rest_of(rows, &cells, row, until)? });
                break;
            }
        }
        let out = rows.take(&UInt32Array::from(parents))?;
        let mut columns: Vec<ArrayRef> = out.columns().to_vec();
        for (expanded, at) in expanded.iter().zip(items) {
            columns.push(take(&expanded.items, &UInt64Array::from(at), None).map_err(defect)?);
        }
        if columns.iter().any(|c| c.len() != out.len()) {
            return Err(Error::bug("a table function gave columns of another length").into());
        }
        let mut out = out.with_columns(self.schema.clone(), columns, None)?;
        out.null = None;
        Ok(Emitted { rows: out, more })
    }
}

/// The rows from `row` on that the same input row caused, for later.
fn rest_of(rows: &Rows, cells: &[Cells<'_>], row: usize, emitted: u64) -> OpResult<Vec<u8>> {
    let same = (row..rows.len()).filter(|r| rows.pos[*r] == rows.pos[row] && !rows.is_null(*r));
    let mut out = Vec::new();
    put_varint(&mut out, emitted as i64);
    put_varint(&mut out, same.clone().count() as i64);
    let mut bytes = Vec::new();
    for row in same {
        put_varint(&mut out, i64::from(rows.partition[row]));
        put_varint(&mut out, rows.time[row]);
        bytes.clear();
        cells.iter().for_each(|c| c.put_value(row, &mut bytes));
        put_bytes(&bytes, &mut out);
    }
    Ok(out)
}

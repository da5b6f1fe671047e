//! A stream enriched from a table. Only stream rows give output; each sees the table as of its place in the log.

use super::joined::{Joined, NONE, with_stored};
use super::key::{key_cells, state_keys};
use super::{Evaluation, Failure, LineKind, OpResult, Operator, Prepared, any_null, merge_inputs};
use crate::rows::Rows;
use crate::state::cells::Cells;
use crate::state::key::KeySpace;
use crate::state::points::EntryId;
use crate::state::row::{RowsBuilder, put_row};
use crate::state::view::Wants;

pub struct StreamTableJoin {
    pub id: String,
    pub left_outer: bool,
    /// Key columns of each side, at the front.
    pub keys: usize,
    pub joined: Joined,
    /// The table's rows.
    pub space: KeySpace,
}

impl Operator for StreamTableJoin {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_partitioned(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let (left, right) = super::both(inputs)?;
        let left_keys = state_keys(&self.space, &left, &key_cells(&left, &left.columns()[..self.keys])?);
        let right_keys = state_keys(&self.space, &right, &key_cells(&right, &right.columns()[..self.keys])?);
        let wants = Wants { keys: left_keys };
        let work = move |cx: &mut super::Context<'_, '_>, ids: &[EntryId]| {
            let cells = Cells::of(right.columns())?;
            let mut stored = RowsBuilder::new(&self.joined.right);
            let (mut rows, mut pairs) = (Vec::new(), Vec::new());
            let (mut joined, most) = (0, cx.emit_bytes_max());
            merge_inputs(&left.pos, &right.pos, |input, row| {
                if input == 1 {
                    // What was there before does not matter, so it is not read.
                    let id = cx.view.points.locate(right_keys.get(row));
                    if right.is_null(row) {
                        cx.view.points.delete(id);
                    } else {
                        let mut value = Vec::new();
                        put_row(&cells, row, right.time[row], &mut value);
                        cx.view.points.put(id, value);
                    }
                    return Ok(());
                }
                if left.is_null(row) {
                    cx.notes.push(left.pos[row], LineKind::Skipped, || "a row to join has no value".to_string());
                    return Ok(());
                }
                let found = if any_null(&left.columns()[..self.keys], row) {
                    if !self.left_outer {
                        cx.notes.push(left.pos[row], LineKind::Skipped, || "a row to join has no key".to_string());
                        return Ok(());
                    }
                    None
                } else {
                    cx.view.points.value(ids[row])
                };
                match found {
                    Some(bytes) => {
                        // The same large row may be met by all.
                        if joined > most && left.pos[row] > 0 {
                            return Err(Failure::cut(left.pos[row]));
                        }
                        joined += bytes.len();
                        stored.append(bytes)?;
                        rows.push(row as u32);
                        pairs.push((row as u32, stored.len() as u32 - 1));
                    }
                    None if self.left_outer => {
                        rows.push(row as u32);
                        pairs.push((row as u32, NONE));
                    }
                    None => {}
                }
                Ok(())
            })?;
            let out = left.take(&rows.into())?;
            let stored = stored.finish()?;
            let none: Vec<_> = right.columns().iter().map(|c| c.slice(0, 0)).collect();
            let columns = self.joined.build(left.columns(), &with_stored(&none, &stored)?, &pairs, &out.time)?;
            let mut out = out.with_columns(self.joined.schema.clone(), columns, None)?;
            out.null = None;
            Ok(out.into())
        };
        Ok(Prepared { wants, work: Box::new(work) })
    }
}

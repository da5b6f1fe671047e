//! Keeps the last row of each key of a table, so that changes know what they replace.

use arrow::array::ArrayRef;
use millpond_types::SqlType;

use super::key::{key_cells, state_keys};
use super::{Evaluation, OpResult, Operator, Prepared};
use crate::rows::{OldRows, OldState, Rows};
use crate::state::cells::Cells;
use crate::state::key::KeySpace;
use crate::state::points::EntryId;
use crate::state::row::{RowsBuilder, put_row};
use crate::state::view::Wants;

pub struct Materialise {
    pub id: String,
    pub space: KeySpace,
    /// Key columns, at the front.
    pub keys: usize,
    /// Types of the columns behind them.
    pub values: Vec<SqlType>,
}

impl Operator for Materialise {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_partitioned(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let mut rows = super::only(&mut inputs)?;
        let keys = state_keys(&self.space, &rows, &key_cells(&rows, &rows.columns()[..self.keys])?);
        let wants = Wants { keys };
        let work = move |cx: &mut super::Context<'_, '_>, ids: &[EntryId]| {
            let mut old = RowsBuilder::new(&self.values);
            let mut states = Vec::with_capacity(rows.len());
            let mut times = Vec::with_capacity(rows.len());
            let cells = Cells::of(&rows.columns()[self.keys..])?;
            for (row, &id) in ids.iter().enumerate() {
                match cx.view.points.value(id) {
                    Some(bytes) => {
                        times.push(old.append(bytes)?);
                        states.push(OldState::Known);
                    }
                    None => {
                        old.append_null();
                        times.push(0);
                        states.push(OldState::Absent);
                    }
                }
                if rows.is_null(row) {
                    if states.last() == Some(&OldState::Known) {
                        cx.view.points.delete(id);
                    }
                } else {
                    let mut value = Vec::new();
                    put_row(&cells, row, rows.time[row], &mut value);
                    cx.view.points.put(id, value);
                }
            }
            drop(cells);
            let mut columns: Vec<ArrayRef> = rows.columns()[..self.keys].to_vec();
            columns.extend(old.finish()?);
            rows.old = Some(OldRows { state: states, time: times.into(), columns });
            Ok(rows.into())
        };
        Ok(Prepared { wants, work: Box::new(work) })
    }
}

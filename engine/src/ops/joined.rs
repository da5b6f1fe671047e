//! The rows that joins put together.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use millpond_sql::plan::JoinColumn;
use millpond_types::{Result, SqlType};

use crate::rows::{defect, int64_column, interleave_columns};

/// No row on this side.
pub const NONE: u32 = u32::MAX;

/// Where the columns of a join's output come from.
#[derive(Clone, Debug)]
pub struct Joined {
    pub schema: SchemaRef,
    pub columns: Vec<JoinColumn>,
    pub left: Vec<SqlType>,
    pub right: Vec<SqlType>,
}

/// One output row: rows of the left and the right columns, [`NONE`] where there is none.
pub type Pair = (u32, u32);

fn indices(pairs: &[Pair], side: impl Fn(&Pair) -> u32) -> UInt32Array {
    pairs.iter().map(|p| Some(side(p)).filter(|i| *i != NONE)).collect()
}

impl Joined {
    /// The output columns; `times` are those of the output rows.
    pub fn build(&self, left: &[ArrayRef], right: &[ArrayRef], pairs: &[Pair], times: &[i64]) -> Result<Vec<ArrayRef>> {
        let of_left = indices(pairs, |p| p.0);
        let of_right = indices(pairs, |p| p.1);
        let mut out = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            out.push(match column {
                JoinColumn::Left(i) => take(&left[*i], &of_left, None).map_err(defect)?,
                JoinColumn::Right(i) => take(&right[*i], &of_right, None).map_err(defect)?,
                JoinColumn::Key(i) if of_left.null_count() == 0 => take(&left[*i], &of_left, None).map_err(defect)?,
                JoinColumn::Key(i) => {
                    let at: Vec<(usize, usize)> = pairs
                        .iter()
                        .map(|(l, r)| if *l == NONE { (1, *r as usize) } else { (0, *l as usize) })
                        .collect();
                    let sources = [std::slice::from_ref(&left[*i]), std::slice::from_ref(&right[*i])];
                    interleave_columns(&sources, &at)?.remove(0)
                }
                JoinColumn::RowTime => int64_column(times.to_vec().into()),
            });
        }
        Ok(out)
    }
}

/// Live columns with stored ones behind them.
pub fn with_stored(live: &[ArrayRef], stored: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    live.iter()
        .zip(stored)
        .map(|(a, b)| if b.is_empty() { Ok(a.clone()) } else { concat(&[a.as_ref(), b.as_ref()]).map_err(defect) })
        .collect()
}

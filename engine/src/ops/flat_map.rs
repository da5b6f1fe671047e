//! Table functions in a SELECT: each input row becomes as many rows as its longest call gives items.

use std::sync::Arc;

use arrow::array::{UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use super::{Evaluation, OpResult, Operator, Prepared};
use crate::expr::EvalInput;
use crate::functions::TableCall;
use crate::rows::{Rows, defect};

pub struct FlatMap {
    pub id: String,
    pub calls: Vec<TableCall>,
    pub schema: SchemaRef,
}

impl Operator for FlatMap {
    fn id(&self) -> &str {
        &self.id
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let rows = super::only(&mut inputs)?;
        let input = EvalInput::new(rows.columns(), rows.len());
        let mut expanded = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            expanded.push(call.expand(&input, cx.eval)?);
        }
        cx.note_errors(&rows);
        let mut parents = Vec::new();
        let mut items: Vec<Vec<Option<u64>>> = vec![Vec::new(); expanded.len()];
        for row in (0..rows.len()).filter(|row| !rows.is_null(*row)) {
            let spans = expanded.iter().map(|e| (e.offsets[row] as u64, e.offsets[row + 1] as u64));
            let longest = spans.clone().map(|(from, to)| to - from).max().unwrap_or(0);
            parents.extend(std::iter::repeat_n(row as u32, longest as usize));
            for (column, (from, to)) in items.iter_mut().zip(spans) {
                column.extend((0..longest).map(|i| (from + i < to).then_some(from + i)));
            }
        }
        let mut out = rows.take(&UInt32Array::from(parents))?;
        let mut columns = out.columns().to_vec();
        for (expanded, at) in expanded.iter().zip(items) {
            columns.push(take(&expanded.items, &UInt64Array::from(at), None).map_err(defect)?);
        }
        out = out.with_columns(Arc::clone(&self.schema), columns, None)?;
        Ok(Prepared::done(out))
    }
}

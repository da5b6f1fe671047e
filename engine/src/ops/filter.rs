//! WHERE and HAVING.
//!
//! On a stream, rows for which the predicate is true stay; a row whose value is NULL goes. On a table, a row that stops
//! matching becomes a delete, and one that never matched gives nothing.

use arrow::array::{Array, BooleanArray, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use millpond_sql::plan::Relation;

use super::{Evaluation, OpResult, Operator, Prepared};
use crate::expr::Expr;
use crate::rows::{OldRows, OldState, Rows, interleave_columns};

pub struct Filter {
    pub id: String,
    pub predicate: Expr,
    pub relation: Relation,
    /// Key columns, which a delete keeps.
    pub keys: usize,
}

impl Operator for Filter {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let rows = super::only(&mut inputs)?;
        let matches = self.predicate.matches(&rows.input(), cx.eval)?;
        if self.relation == Relation::Stream {
            let matches = match &rows.null {
                Some(null) => BooleanArray::new(matches.values() & &!null, None),
                None => matches,
            };
            cx.note_errors(&rows);
            return Ok(Prepared::done(rows.filter(&matches)?));
        }
        cx.note_errors(&rows);
        Ok(Prepared::done(self.filter_table(&rows, &matches, cx)?))
    }
}

impl Filter {
    fn filter_table(&self, rows: &Rows, matches: &BooleanArray, cx: &mut Evaluation<'_>) -> OpResult<Rows> {
        let old_matches = match rows.old_input() {
            Some(old) => {
                let matches = self.predicate.matches(&old, cx.eval)?;
                // The old row was reported when it was new.
                cx.eval.take_errors();
                Some(matches)
            }
            None => None,
        };
        let (mut kept, mut deletes, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows.len() {
            let now = !rows.is_null(row) && matches.value(row);
            let before = match rows.old_state(row) {
                OldState::Known if old_matches.as_ref().is_some_and(|m| m.value(row)) => OldState::Known,
                OldState::Known | OldState::Absent => OldState::Absent,
                OldState::Unknown => OldState::Unknown,
            };
            if now || before != OldState::Absent {
                kept.push(row as u32);
                deletes.push(!now);
                states.push(before);
            }
        }
        let mut out = rows.take(&UInt32Array::from(kept))?;
        out.old = out.old.map(|old| OldRows { state: states, ..old });
        if deletes.contains(&true) {
            let nulls: Vec<_> = out.columns()[self.keys.min(out.columns().len())..]
                .iter()
                .map(|c| new_null_array(c.data_type(), 1))
                .collect();
            let at: Vec<(usize, usize)> =
                deletes.iter().enumerate().map(|(i, gone)| if *gone { (1, 0) } else { (0, i) }).collect();
            let values = interleave_columns(&[&out.columns()[self.keys..], &nulls], &at)?;
            let mut columns = out.columns()[..self.keys].to_vec();
            columns.extend(values);
            let old = out.old.take();
            out = out.with_columns(out.schema().clone(), columns, None)?;
            out.old = old;
        }
        out.null = Some(BooleanBuffer::from(deletes));
        Ok(out)
    }
}

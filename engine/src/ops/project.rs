//! One expression per output column. Keys stay what they are.

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;

use super::{Evaluation, OpResult, Operator, Prepared};
use crate::expr::{EvalInput, Expr};
use crate::rows::Rows;

pub struct Project {
    pub id: String,
    pub exprs: Vec<Expr>,
    pub schema: SchemaRef,
    /// Whether somebody above looks at old values.
    pub old: bool,
}

impl Project {
    fn columns(&self, input: &EvalInput<'_>, cx: &mut Evaluation<'_>) -> OpResult<Vec<ArrayRef>> {
        let mut out = Vec::with_capacity(self.exprs.len());
        for expr in &self.exprs {
            out.push(match expr.as_column().and_then(|i| input.columns().get(i)) {
                Some(column) => column.clone(),
                None => expr.column_of(input, cx.eval)?,
            });
        }
        Ok(out)
    }
}

impl Operator for Project {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let rows = super::only(&mut inputs)?;
        let columns = self.columns(&rows.input(), cx)?;
        cx.note_errors(&rows);
        let old = match rows.old_input() {
            Some(old) if self.old => {
                let columns = self.columns(&old, cx)?;
                // The old row was reported when it was new.
                cx.eval.take_errors();
                Some(columns)
            }
            _ => None,
        };
        Ok(Prepared::done(rows.with_columns(self.schema.clone(), columns, old)?))
    }
}

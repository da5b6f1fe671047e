//! PARTITION BY and the re-keying of a join side: new keys, and with them another partition.
//!
//! The exchange is in memory, within the step: a row is handed to the partition that its new key, serialised in the
//! stage's format, has in a topic of so many partitions; by its cells where the bytes would name a schema. A row without a key stays where it is.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::SchemaRef;
use millpond_types::Error;

use super::key::KeyWriter;
use super::{Evaluation, OpResult, Operator, Prepared};
use crate::expr::Expr;
use crate::rows::Rows;

pub struct Rekey {
    pub id: String,
    pub keys: Vec<Expr>,
    pub keep: Vec<usize>,
    pub schema: SchemaRef,
    pub writer: KeyWriter,
    pub partitions: i32,
    /// By key: whether it is computed from more than the old key. Of a row without a value such a key is NULL.
    pub of_value: Vec<bool>,
}

impl Operator for Rekey {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let rows = super::only(&mut inputs)?;
        let input = rows.input();
        let mut keys = self.keys.iter().map(|e| e.column_of(&input, cx.eval)).collect::<Result<Vec<ArrayRef>, _>>()?;
        if let Some(null) = &rows.null {
            let null = BooleanArray::new(null.clone(), None);
            for (key, _) in keys.iter_mut().zip(&self.of_value).filter(|(_, of_value)| **of_value) {
                *key = nullif(key, &null).map_err(|e| Error::bug(format!("key of rows without a value: {e}")))?;
            }
        }
        cx.note_errors(&rows);
        let partition = self.writer.place(&keys, &rows, self.partitions)?;
        let mut columns = keys;
        columns.extend(self.keep.iter().filter_map(|i| rows.columns().get(*i).cloned()));
        let mut out = rows.with_columns(self.schema.clone(), columns, None)?;
        out.partition = partition.into();
        out.window = None;
        Ok(Prepared::done(out))
    }
}

/// Rows handed to the partition of the key that they have. Topics whose keys name a schema hold one key in several
/// partitions; what keeps state by partition needs it in one.
pub struct Exchange {
    pub id: String,
    pub keys: usize,
    pub writer: KeyWriter,
    pub partitions: i32,
}

impl Operator for Exchange {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let mut rows = super::only(&mut inputs)?;
        rows.partition = self.writer.place(&rows.columns()[..self.keys], &rows, self.partitions)?.into();
        Ok(Prepared::done(rows))
    }
}

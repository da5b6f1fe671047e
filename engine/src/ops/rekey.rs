//! PARTITION BY and the re-keying of a join side: new keys, and with them another partition.
//!
//! The exchange is in memory, within the step: a row is handed to the partition that its new key, serialised in the
//! stage's format, has in a topic of so many partitions. A row without a key stays where it is.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::SchemaRef;
use millpond_types::ports::partition_of;
use millpond_types::{Error, PartitionId};

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
        let partition = exchange(&self.writer, &keys, &rows, self.partitions)?;
        let mut columns = keys;
        columns.extend(self.keep.iter().filter_map(|i| rows.columns().get(*i).cloned()));
        let mut out = rows.with_columns(self.schema.clone(), columns, None)?;
        out.partition = partition.into();
        out.window = None;
        Ok(Prepared::done(out))
    }
}

/// The partition of each row by its key.
pub fn exchange(writer: &KeyWriter, keys: &[ArrayRef], rows: &Rows, partitions: i32) -> OpResult<Vec<PartitionId>> {
    let stay = |row: usize| rows.partition[row].rem_euclid(partitions.max(1));
    if partitions == 1 || keys.is_empty() {
        return Ok((0..rows.len()).map(stay).collect());
    }
    let written = writer.write(keys, rows.len())?;
    Ok((0..rows.len())
        .map(|row| written.get(row).map_or_else(|| stay(row), |key| partition_of(key, partitions)))
        .collect())
}

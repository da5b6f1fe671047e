//! Keys of state for the rows of a batch, and the partitions that their keys belong to.

use arrow::array::{Array, ArrayRef};
use millpond_formats::{Encoded, Encoder};
use millpond_sql::plan::FormatSpec;
use millpond_types::ports::partition_of;
use millpond_types::{Field, PartitionId, Result};

use crate::rows::Rows;
use crate::state::cells::{Cells, put_key_i64};
use crate::state::key::KeySpace;

/// Byte strings in one buffer.
#[derive(Debug, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(rows) }
    }

    /// Adds what `f` appends.
    pub fn push(&mut self, f: impl FnOnce(&mut Vec<u8>)) {
        f(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// Adds all of another's.
    pub fn append(&mut self, other: &Strings) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// The key cells of each row, in key form, with the window's bounds behind them where the key is windowed.
pub fn key_cells(rows: &Rows, keys: &[ArrayRef]) -> Result<Strings> {
    let cells = Cells::of(keys)?;
    let mut out = Strings::with_capacity(rows.len(), rows.len() * 16);
    for row in 0..rows.len() {
        out.push(|bytes| {
            cells.iter().for_each(|c| c.put_key(row, bytes));
            if let Some((start, end)) = rows.window_of(row) {
                put_key_i64(start, bytes);
                put_key_i64(end, bytes);
            }
        });
    }
    Ok(out)
}

/// Whole state keys of the rows: space, partition, key cells.
pub fn state_keys(space: &KeySpace, rows: &Rows, cells: &Strings) -> Strings {
    let mut out = Strings::with_capacity(rows.len(), rows.len() * 48);
    let mut prefix: (PartitionId, Vec<u8>) = (-1, Vec::new());
    for row in 0..rows.len() {
        if prefix.0 != rows.partition[row] {
            prefix = (rows.partition[row], space.partition_prefix(rows.partition[row]));
        }
        out.push(|bytes| {
            bytes.extend_from_slice(&prefix.1);
            bytes.extend_from_slice(cells.get(row));
        });
    }
    out
}

/// Finds the partition of a key.
pub struct KeyWriter {
    form: Form,
    /// A key of several columns is one even where all of them are NULL.
    whole: bool,
}

/// What of a key decides its partition.
enum Form {
    /// There are no key columns.
    None,
    /// The bytes that a topic has for it.
    Topic(Box<Encoder>),
    /// Its cells. Where the bytes name a schema, one key has as many forms as its topics have schemas.
    Cells,
}

/// Whether the bytes of keys in this format name a schema, so that one key can be in several partitions of its topic.
pub fn names_schemas(spec: &FormatSpec) -> bool {
    crate::serdes::format_of(spec).is_ok_and(|format| format.uses_schema_registry())
}

impl KeyWriter {
    /// `whole`: a key of several columns is a record even where all of them are NULL.
    pub fn new(spec: &FormatSpec, columns: &[Field], whole: bool) -> Result<Self> {
        let form = if columns.is_empty() {
            Form::None
        } else if names_schemas(spec) {
            Form::Cells
        } else {
            Form::Topic(Box::new(crate::serdes::key_encoder(spec, columns, whole, None)?))
        };
        Ok(Self { form, whole: whole && columns.len() > 1 })
    }

    /// By the keys' cells, whatever their format.
    pub fn of_cells() -> Self {
        Self { form: Form::Cells, whole: false }
    }

    /// The partition of each row by its key; rows without one stay where they are.
    pub fn place(&self, keys: &[ArrayRef], rows: &Rows, partitions: i32) -> Result<Vec<PartitionId>> {
        let stay = |row: usize| rows.partition[row].rem_euclid(partitions.max(1));
        if partitions == 1 || keys.is_empty() {
            return Ok((0..rows.len()).map(stay).collect());
        }
        match &self.form {
            Form::None => Ok((0..rows.len()).map(stay).collect()),
            Form::Topic(encoder) => {
                let mut written = Encoded::default();
                encoder.encode(rows.len(), keys, None, &mut written)?;
                let placed = |row| written.get(row).map_or_else(|| stay(row), |key| partition_of(key, partitions));
                Ok((0..rows.len()).map(placed).collect())
            }
            Form::Cells => {
                let cells = Cells::of(keys)?;
                let mut key = Vec::new();
                let placed = |row| {
                    if !self.whole && keys.iter().all(|k| k.is_null(row)) {
                        return stay(row);
                    }
                    key.clear();
                    cells.iter().for_each(|c| c.put_key(row, &mut key));
                    partition_of(&key, partitions)
                };
                Ok((0..rows.len()).map(placed).collect())
            }
        }
    }
}

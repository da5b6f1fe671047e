//! Keys of state for the rows of a batch, and the bytes of their keys as the log would hold them.

use arrow::array::ArrayRef;
use millpond_formats::{Encoded, Encoder};
use millpond_sql::plan::FormatSpec;
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

/// Serialises keys to find their partition.
pub struct KeyWriter {
    /// `None` where there are no key columns.
    encoder: Option<Encoder>,
}

impl KeyWriter {
    /// `whole`: a key of several columns is a record even where all of them are NULL.
    pub fn new(spec: &FormatSpec, columns: &[Field], whole: bool) -> Result<Self> {
        let encoder =
            if columns.is_empty() { None } else { Some(crate::serdes::key_encoder(spec, columns, whole, None)?) };
        Ok(Self { encoder })
    }

    /// The key bytes of each row; rows without a key have none.
    pub fn write(&self, keys: &[ArrayRef], rows: usize) -> Result<Encoded> {
        let mut out = Encoded::default();
        if let Some(encoder) = &self.encoder {
            encoder.encode(rows, keys, None, &mut out)?;
        }
        Ok(out)
    }
}

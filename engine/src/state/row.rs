//! Rows as values of state.
//!
//! ```text
//! version (1) = 01 | time (zigzag varint) | cells in value form
//! ```

use arrow::array::ArrayRef;
use millpond_types::record::put_varint;
use millpond_types::{Error, Result, SqlType};

use super::cells::{Cells, CellsBuilder, take_int, take_u8};

pub const ROW_VERSION: u8 = 1;

/// Appends a row with its time.
pub fn put_row(cells: &[Cells<'_>], row: usize, time: i64, out: &mut Vec<u8>) {
    out.push(ROW_VERSION);
    put_varint(out, time);
    cells.iter().for_each(|c| c.put_value(row, out));
}

/// Takes version and time from the front; the cells follow.
pub fn take_time(bytes: &mut &[u8]) -> Result<i64> {
    match take_u8(bytes)? {
        ROW_VERSION => take_int(bytes),
        other => Err(Error::corrupt(format!("an entry of state has version {other}, which this version cannot read"))),
    }
}

/// Columns that grow by rows of state.
pub struct RowsBuilder {
    columns: Vec<CellsBuilder>,
    len: usize,
}

impl RowsBuilder {
    pub fn new<'a>(types: impl IntoIterator<Item = &'a SqlType>) -> Self {
        Self { columns: types.into_iter().map(CellsBuilder::new).collect(), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a stored row; returns its time.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<i64> {
        let time = take_time(&mut bytes)?;
        self.append_cells(bytes)?;
        Ok(time)
    }

    /// Appends cells in value form. Columns that the row does not have yet, as they were added later, are NULL.
    pub fn append_cells(&mut self, mut bytes: &[u8]) -> Result<()> {
        for column in &mut self.columns {
            if bytes.is_empty() {
                column.append_null();
            } else {
                column.take_value(&mut bytes)?;
            }
        }
        self.len += 1;
        Ok(())
    }

    /// Appends cells in key form, taking them from the front.
    pub fn append_key(&mut self, bytes: &mut &[u8]) -> Result<()> {
        for column in &mut self.columns {
            column.take_key(bytes)?;
        }
        self.len += 1;
        Ok(())
    }

    pub fn append_null(&mut self) {
        self.columns.iter_mut().for_each(CellsBuilder::append_null);
        self.len += 1;
    }

    pub fn finish(self) -> Result<Vec<ArrayRef>> {
        self.columns.into_iter().map(CellsBuilder::finish).collect()
    }
}

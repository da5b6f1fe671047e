//! Record bytes into Arrow columns.
//!
//! Not here: what each format's bytes mean (`json`, `delimited`, `kafka`, `protobuf`). Invariants: every column has one row for
//! every record, in order; a record that cannot be read is all NULL and listed with its error; nothing of it stays.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use millpond_types::{Error, Field, Result};

use crate::Format;
use crate::columns::{BYTES_MAX, Column, Data};
use crate::json::members::Members;
use crate::json::scan::{Scan, fail};
use crate::{delimited, json, kafka, protobuf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The single column is the whole of the bytes, not a member of a record; see [`Format::unwraps`].
    pub unwrap_single: bool,
    /// Also reads the columns that are not wanted, so that a record is refused for any of its columns. Else only its
    /// syntax and the wanted columns can get it refused.
    pub check_all: bool,
}

/// What batches have learned of the order of members, kept for the batches to come; one for each that ran at a time.
const LEARNED_MAX: usize = 16;

/// Reads one side of records. Threads can share it: what it learns makes it faster, and changes no result.
#[derive(Clone, Debug)]
pub struct Decoder {
    format: Format,
    fields: Vec<Field>,
    options: DecodeOptions,
    /// Indexes into `fields` of the columns that are built, ascending.
    built: Vec<usize>,
    /// For every wanted column its place in `built`.
    wanted: Vec<usize>,
    /// For every field its place in `built`.
    targets: Vec<Option<usize>>,
    learned: Arc<Mutex<Vec<Members>>>,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The wanted columns, in the order in which they were asked for.
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
    /// Rows whose bytes were NULL or, for a record, JSON `null`: tombstones. `None`: no such rows.
    pub null_rows: Option<BooleanBuffer>,
    /// Records that could not be read, by row, ascending; their rows are to be left out.
    pub errors: Vec<DecodeError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub row: usize,
    pub message: String,
}

impl Decoder {
    /// `wanted` holds indexes into `columns`.
    pub fn new(format: Format, columns: &[Field], options: DecodeOptions, wanted: &[usize]) -> Result<Self> {
        format.require_implemented()?;
        if let Some(objection) = format.objection(crate::Side::Value, columns) {
            return Err(Error::bad_request(objection));
        }
        if options.unwrap_single && columns.len() > 1 {
            return Err(Error::bad_request(format!("{} columns cannot be unwrapped", columns.len())));
        }
        if let Some(index) = wanted.iter().find(|&&i| i >= columns.len()) {
            return Err(Error::bug(format!("column {index} is wanted of {}", columns.len())));
        }
        let mut built: Vec<usize> = if options.check_all { (0..columns.len()).collect() } else { wanted.to_vec() };
        built.sort_unstable();
        built.dedup();
        let targets: Vec<Option<usize>> = (0..columns.len()).map(|i| built.binary_search(&i).ok()).collect();
        Ok(Self {
            format,
            fields: columns.to_vec(),
            options,
            wanted: wanted.iter().filter_map(|&i| targets[i]).collect(),
            built,
            targets,
            learned: Arc::default(),
        })
    }

    /// A decoder of all columns.
    pub fn all(format: Format, columns: &[Field], options: DecodeOptions) -> Result<Self> {
        Self::new(format, columns, options, &(0..columns.len()).collect::<Vec<_>>())
    }

    /// Reads records; `None` is NULL bytes.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = Option<&'a [u8]>>) -> Result<Decoded> {
        let rows = rows.into_iter();
        let mut decoding = self.start(rows.size_hint().0)?;
        for row in rows {
            decoding.push(row);
        }
        decoding.finish()
    }

    /// Begins a batch to which records are pushed one by one; `capacity` is a guess at their number.
    pub fn start(&self, capacity: usize) -> Result<Decoding<'_>> {
        // A guess only: never more room at once than a large batch needs.
        let capacity = capacity.min(1 << 16);
        let columns = self.built.iter().map(|&i| Column::new(&self.fields[i].ty, capacity)).collect::<Result<_>>()?;
        let learned = self.learned.try_lock().ok().and_then(|mut kept| kept.pop());
        Ok(Decoding {
            decoder: self,
            members: learned.unwrap_or_else(|| Members::new(self.built.iter().map(|&i| self.fields[i].name.as_str()))),
            columns,
            rows: 0,
            bytes: 0,
            null_rows: None,
            errors: Vec::new(),
            scratch: Vec::new(),
        })
    }
}

/// A batch that is being read.
#[derive(Debug)]
pub struct Decoding<'a> {
    decoder: &'a Decoder,
    members: Members,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    null_rows: Option<BooleanBufferBuilder>,
    errors: Vec<DecodeError>,
    scratch: Vec<u8>,
}

impl Decoding<'_> {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn push(&mut self, bytes: Option<&[u8]>) {
        let row = self.rows;
        self.rows += 1;
        let result = match bytes {
            None => Ok(true),
            Some(bytes) => self.read(bytes, row),
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                self.null_row(row);
                self.columns.iter_mut().for_each(Column::push_null);
            }
            Err(failure) => {
                self.errors.push(DecodeError { row, message: failure.text() });
                for column in &mut self.columns {
                    column.truncate(row);
                    column.push_null();
                }
            }
        }
    }

    /// Reads one record; true where it is NULL as a whole, when nothing has been appended.
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], row: usize) -> Scan<bool> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > BYTES_MAX {
            return fail(0, format!("the batch has more than {BYTES_MAX} bytes"));
        }
        let decoder = self.decoder;
        match decoder.format {
            Format::Json if !decoder.options.unwrap_single => {
                return json::decode::record(bytes, &mut self.members, &mut self.columns, row);
            }
            Format::Json => match self.columns.first_mut() {
                Some(column) => {
                    json::decode::single(bytes, Some(column)).map_err(|mut failure| {
                        failure.path.extend(decoder.built.first().map(|&i| decoder.fields[i].name.clone()));
                        failure
                    })?;
                }
                None if decoder.fields.is_empty() => {}
                None => json::decode::single(bytes, None)?,
            },
            Format::Delimited { delimiter } if !decoder.fields.is_empty() => {
                delimited::decode(bytes, delimiter, &decoder.targets, &mut self.columns, &mut self.scratch)?;
            }
            Format::Kafka => {
                if let Some(column) = self.columns.first_mut() {
                    kafka::decode(bytes, column)?;
                }
            }
            Format::ProtobufNosr { nullable } if !decoder.fields.is_empty() => match self.columns.as_mut_slice() {
                [column] if decoder.options.unwrap_single && matches!(column.data, Data::Struct { .. }) => {
                    protobuf::decode::single_struct(bytes, column, nullable)?;
                }
                columns => {
                    let scope = protobuf::decode::Scope::Record { fields: &decoder.fields, targets: &decoder.targets };
                    protobuf::decode::record(bytes, &scope, columns, row, nullable)?;
                }
            },
            // `Decoder::new` lets no other format in.
            _ => {}
        }
        Ok(false)
    }

    #[inline(never)]
    fn null_row(&mut self, row: usize) {
        let nulls = self.null_rows.get_or_insert_with(|| BooleanBufferBuilder::new(row.max(1024)));
        nulls.append_n(row - nulls.len(), false);
        nulls.append(true);
    }

    /// The columns. Fails only by a defect of this crate.
    pub fn finish(self) -> Result<Decoded> {
        if !self.members.is_full()
            && let Ok(mut kept) = self.decoder.learned.try_lock()
            && kept.len() < LEARNED_MAX
        {
            kept.push(self.members);
        }
        let arrays = self.columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        let null_rows = self.null_rows.map(|mut nulls| {
            nulls.append_n(self.rows - nulls.len(), false);
            nulls.finish()
        });
        let columns = self.decoder.wanted.iter().filter_map(|&i| arrays.get(i).cloned()).collect();
        Ok(Decoded { columns, rows: self.rows, null_rows, errors: self.errors })
    }
}

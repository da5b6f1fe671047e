//! Arrow columns into record bytes.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use millpond_types::{Error, Field, Result};

use crate::arrays::Cells;
use crate::inference::{Naming, schema_for};
use crate::json::encode::member_prefix;
use crate::registered::{Parsed, WriterSchema, write_frame};
use crate::{Format, Side};
use crate::{avro, delimited, json, kafka, protobuf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// A key whose columns are all NULL is NULL bytes; a value is so only where the row says it.
    pub side: Side,
    /// The single column is the whole of the bytes, not a member of a record; see [`Format::unwraps`].
    pub unwrap_single: bool,
}

/// Writes one side of records; immutable, so that threads can share it.
#[derive(Clone, Debug)]
pub struct Encoder {
    format: Format,
    fields: Vec<Field>,
    options: EncodeOptions,
    /// For every column what stands before its value in a JSON record.
    prefixes: Vec<Box<[u8]>>,
    /// What stands in front of every row: the frame with the schema's id.
    frame: Vec<u8>,
    plan: Plan,
}

/// How rows are written after a schema.
#[derive(Clone, Debug)]
enum Plan {
    None,
    Avro(avro::encode::Plan),
    Protobuf(protobuf::write::Plan),
}

/// The bytes of rows, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Where each row ends, and whether it is NULL.
    ends: Vec<(usize, bool)>,
}

impl Encoded {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all rows together.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps the room, forgets the rows.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The bytes of a row; `None` where they are NULL and where there is no such row.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let &(end, null) = self.ends.get(row)?;
        let start = if row == 0 { 0 } else { self.ends[row - 1].0 };
        if null { None } else { self.bytes.get(start..end) }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|row| self.get(row))
    }
}

impl Encoder {
    pub fn new(format: Format, columns: &[Field], options: EncodeOptions) -> Result<Self> {
        if let Some(objection) = format.objection(options.side, columns) {
            return Err(Error::bad_request(objection));
        }
        if options.unwrap_single && columns.len() > 1 {
            return Err(Error::bad_request(format!("{} columns cannot be unwrapped", columns.len())));
        }
        let prefixes = columns.iter().enumerate().map(|(i, c)| member_prefix(i == 0, &c.name)).collect();
        let mut encoder =
            Self { format, fields: columns.to_vec(), options, prefixes, frame: Vec::new(), plan: Plan::None };
        if format.uses_schema_registry() {
            // Without another: the schema that the columns themselves have, under an id that no registry gives.
            let naming = Naming { unwrap: options.unwrap_single, ..Naming::default() };
            let schema = schema_for(format, columns, &naming)?;
            encoder = encoder.with_schema(&WriterSchema { id: 0, schema: schema.into(), full_name: None })?;
        }
        Ok(encoder)
    }

    /// Rows are written after this schema, which fields without a column, their defaults and the order are taken from.
    pub fn with_schema(mut self, writer: &WriterSchema) -> Result<Self> {
        let mut frame = Vec::new();
        write_frame(&mut frame, writer.id);
        self.plan = match (&writer.schema.parsed, self.format) {
            (Parsed::Avro(schema), Format::Avro) => {
                Plan::Avro(avro::encode::Plan::new(schema, &self.fields, self.options.unwrap_single)?)
            }
            (Parsed::Protobuf(schema), Format::Protobuf) => {
                let message = crate::inference::message_of(schema, writer.full_name.as_deref())?;
                let path = schema.path_of(message).unwrap_or_default();
                if path == [0] {
                    frame.push(0);
                } else {
                    avro::encode::write_long(&mut frame, path.len() as i64);
                    path.iter().for_each(|&i| avro::encode::write_long(&mut frame, i64::from(i)));
                }
                Plan::Protobuf(protobuf::write::Plan::new(schema, message, &self.fields)?)
            }
            (Parsed::Json(_), Format::JsonSr) => Plan::None,
            (_, format) => {
                let kind = writer.schema.kind().name();
                return Err(Error::bad_request(format!("{} cannot be written after a {kind} schema", format.name())));
            }
        };
        self.frame = frame;
        Ok(self)
    }

    /// Appends `rows` rows to `out`. `columns` are those of the constructor, in their order and Arrow types; rows that
    /// `null_rows` names become NULL bytes.
    pub fn encode(
        &self,
        rows: usize,
        columns: &[ArrayRef],
        null_rows: Option<&BooleanBuffer>,
        out: &mut Encoded,
    ) -> Result<()> {
        if columns.len() != self.fields.len() || columns.iter().any(|c| c.len() != rows) {
            return Err(Error::bug(format!("{} columns to encode, expected {}", columns.len(), self.fields.len())));
        }
        if let Some((field, column)) = self.fields.iter().zip(columns).find(|(f, c)| *c.data_type() != f.ty.to_arrow())
        {
            return Err(Error::bug(format!("column \"{}\" to encode is a {}", field.name, column.data_type())));
        }
        if null_rows.is_some_and(|n| n.len() != rows) {
            return Err(Error::bug("the NULL rows to encode are not as many as the rows"));
        }
        let cells = Cells::all(columns)?;
        out.ends.reserve(rows);
        for row in 0..rows {
            let null = null_rows.is_some_and(|n| n.value(row)) || !self.write(&mut out.bytes, &cells, row)?;
            out.ends.push((out.bytes.len(), null));
        }
        Ok(())
    }

    /// Appends a row; false where it is NULL, when nothing has been appended.
    #[inline]
    fn write(&self, out: &mut Vec<u8>, cells: &[Cells<'_>], row: usize) -> Result<bool> {
        let all_null = || cells.iter().all(|c| c.is_null(row));
        match (self.format, cells) {
            (Format::None, _) => return Ok(false),
            (_, []) if self.options.side == Side::Key => return Ok(false),
            (Format::Avro | Format::Protobuf, _) => {
                if (self.options.side == Side::Key || self.options.unwrap_single) && all_null() {
                    return Ok(false);
                }
                out.extend_from_slice(&self.frame);
                match &self.plan {
                    Plan::Avro(plan) => return plan.write(out, cells, row),
                    Plan::Protobuf(plan) => plan.write(out, cells, row)?,
                    Plan::None => {}
                }
            }
            (Format::Json | Format::JsonSr, [cell]) if self.options.unwrap_single => {
                if cell.is_null(row) {
                    return Ok(false);
                }
                out.extend_from_slice(&self.frame);
                json::encode::write_cell(out, cell, row);
            }
            (Format::Json | Format::JsonSr, []) => {
                out.extend_from_slice(&self.frame);
                out.extend_from_slice(b"{}");
            }
            (Format::Json | Format::JsonSr, _) => {
                if self.options.side == Side::Key && all_null() {
                    return Ok(false);
                }
                out.extend_from_slice(&self.frame);
                for (prefix, cell) in self.prefixes.iter().zip(cells) {
                    out.extend_from_slice(prefix);
                    json::encode::write_cell(out, cell, row);
                }
                out.push(b'}');
            }
            (Format::Delimited { delimiter }, _) => {
                if (self.options.side == Side::Key || cells.len() <= 1) && all_null() {
                    return Ok(false);
                }
                delimited::write_row(out, cells, row, delimiter);
            }
            (Format::ProtobufNosr { nullable }, [cell]) if self.options.unwrap_single => {
                if cell.is_null(row) {
                    return Ok(false);
                }
                protobuf::encode::write_single(out, cell, row, nullable);
            }
            (Format::ProtobufNosr { nullable }, _) => {
                if self.options.side == Side::Key && all_null() {
                    return Ok(false);
                }
                protobuf::encode::write_record(out, cells, row, nullable);
            }
            (Format::Kafka, [cell]) if !cell.is_null(row) => kafka::write_cell(out, cell, row),
            // NULL; `Encoder::new` lets no other format in.
            _ => return Ok(false),
        }
        Ok(true)
    }
}

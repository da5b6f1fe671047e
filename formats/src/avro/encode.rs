//! Columns into Avro records, after the schema that they are written with.
//!
//! A plan is made once: columns are found by the schema's names, exactly or else in any case. A field without a column, and
//! NULL where the schema has no null, become the field's default; where it has none, the row cannot be written.

use std::cell::Cell;
use std::collections::HashMap;

use millpond_types::{Error, Field, Result, SqlType};

use super::columns::{entry_of, member_name};
use super::schema::{AvroField, AvroSchema, Logical, Shape};
use crate::arrays::Cells;
use crate::json::Json;
use crate::number::{decimal_text, pow10};

/// The number of a union's branch, and how it is written; `None` for what is none.
type Branch = Option<(i64, Write)>;

/// How a row is written.
#[derive(Clone, Debug)]
pub enum Plan {
    Record {
        prefix: Vec<u8>,
        fields: Vec<FieldWrite>,
    },
    /// The one column is all.
    Single(Write),
}

#[derive(Clone, Debug)]
pub struct FieldWrite {
    name: String,
    /// The column or the STRUCT's field.
    from: Option<usize>,
    write: Write,
    /// The bytes of its default.
    default: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub enum Write {
    Scalar(Scalar),
    /// The number of the branch in front; that of null, where there is one.
    Branch {
        branch: i64,
        null: Option<i64>,
        write: Box<Write>,
    },
    List(Box<Write>),
    Map(Box<Write>),
    Entries {
        key: Box<Write>,
        value: Box<Write>,
        key_first: bool,
    },
    Record(Vec<FieldWrite>),
    /// A STRUCT of the branches: the first field that is not NULL is written. Per field of the STRUCT.
    OneOf {
        null: Option<i64>,
        fields: Vec<Branch>,
    },
    /// The schema's only value here.
    Null,
}

#[derive(Clone, Debug)]
pub enum Scalar {
    Boolean,
    Int,
    Long,
    Micros,
    Float,
    Double,
    Bytes,
    Fixed(usize),
    /// Symbols and their places.
    Enum(HashMap<String, i64>),
    Decimal {
        size: Option<usize>,
        precision: u32,
        scale: u32,
    },
}

fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message)
}

impl Plan {
    pub fn new(schema: &AvroSchema, columns: &[Field], unwrap_single: bool) -> Result<Self> {
        let left = &Cell::new(DEFAULTS_MAX);
        if let ([column], true) = (columns, unwrap_single) {
            return Ok(Self::Single(compile(schema, left, schema.root, &column.ty)?));
        }
        let (node, _) = schema.nullable(schema.root);
        let Shape::Record(record) = &schema.node(node).shape else {
            return Err(bad("the schema is not a record, so that it cannot hold columns"));
        };
        let mut prefix = Vec::new();
        if let Shape::Union(branches) = &schema.node(schema.root).shape {
            let branch = branches.iter().position(|b| *b == node).unwrap_or(0);
            write_long(&mut prefix, branch as i64);
        }
        Ok(Self::Record { prefix, fields: compile_fields(schema, left, &record.fields, columns)? })
    }

    /// Appends a row; false where the one column is NULL and the schema has no null, when nothing has been appended.
    pub fn write(&self, out: &mut Vec<u8>, cells: &[Cells<'_>], row: usize) -> Result<bool> {
        match self {
            Self::Single(write) => {
                let Some(cell) = cells.first() else { return Ok(false) };
                if cell.is_null(row) {
                    return Ok(false);
                }
                value(out, write, cell, row)?;
            }
            Self::Record { prefix, fields } => {
                out.extend_from_slice(prefix);
                record(out, fields, row, &|i| cells.get(i))?;
            }
        }
        Ok(true)
    }
}

fn compile_fields(
    schema: &AvroSchema,
    left: &Cell<usize>,
    fields: &[AvroField],
    columns: &[Field],
) -> Result<Vec<FieldWrite>> {
    let wanted: Vec<(usize, &Field)> = columns.iter().enumerate().collect();
    let (places, missing) = crate::names::places(fields.iter().map(|f| f.name.as_str()), &wanted);
    if let Some((_, column)) = missing.first() {
        return Err(bad(format!("the schema has no field for column \"{}\"", column.name)));
    }
    let mut from: Vec<Option<usize>> = vec![None; fields.len()];
    places.into_iter().for_each(|(at, (column, _))| from[at] = Some(column));
    let write = |(field, from): (&AvroField, Option<usize>)| {
        let default = match &field.default {
            Some(json) => {
                let mut bytes = Vec::new();
                write_json(&mut bytes, schema, left, field.node, json, 0)
                    .map_err(|e| bad(format!("default of field \"{}\": {}", field.name, e.message())))?;
                Some(bytes)
            }
            // What may be null is null.
            None => null_branch(schema, field.node).map(|branch| {
                let mut bytes = Vec::new();
                if let Some(branch) = branch {
                    write_long(&mut bytes, branch);
                }
                bytes
            }),
        };
        let write = match from {
            Some(at) => compile(schema, left, field.node, &columns[at].ty)
                .map_err(|e| bad(format!("field \"{}\": {}", field.name, e.message())))?,
            None => Write::Null,
        };
        Ok(FieldWrite { name: field.name.clone(), from, write, default })
    };
    fields.iter().zip(from).map(write).collect()
}

/// Where null stands: `Some(None)` for the type null itself.
fn null_branch(schema: &AvroSchema, node: usize) -> Option<Option<i64>> {
    match &schema.node(node).shape {
        Shape::Null => Some(None),
        Shape::Union(branches) => {
            branches.iter().position(|b| matches!(schema.node(*b).shape, Shape::Null)).map(|at| Some(at as i64))
        }
        _ => None,
    }
}

fn compile(schema: &AvroSchema, left: &Cell<usize>, node: usize, ty: &SqlType) -> Result<Write> {
    let written = schema.node(node);
    let mismatch = || {
        let shape = super::schema::branch_name(&written.shape);
        Err(bad(format!("{ty} cannot be written as {shape}")))
    };
    Ok(match (&written.shape, ty) {
        (Shape::Null, _) => Write::Null,
        (Shape::Union(branches), _) => {
            let null = null_branch(schema, node).flatten();
            if let ((one, _), SqlType::Struct(fields)) = (schema.nullable(node), ty)
                && one == node
                && let Some(one_of) = compile_one_of(schema, left, branches, fields)?
            {
                return Ok(Write::OneOf { null, fields: one_of });
            }
            let fitting = branches.iter().enumerate().filter(|(_, b)| !matches!(schema.node(**b).shape, Shape::Null));
            let mut fitting = fitting.filter_map(|(i, b)| Some((i, compile(schema, left, *b, ty).ok()?)));
            match fitting.next() {
                Some((branch, write)) => Write::Branch { branch: branch as i64, null, write: Box::new(write) },
                None => return mismatch(),
            }
        }
        (Shape::Array(items), SqlType::Array(item)) => Write::List(Box::new(compile(schema, left, *items, item)?)),
        (Shape::Array(items), SqlType::Map(key, value)) => match entry_of(schema, *items) {
            Some((key_node, value_node)) if matches!(schema.node(*items).shape, Shape::Record(_)) => {
                let key_first = match &schema.node(*items).shape {
                    Shape::Record(record) => record.fields.first().is_some_and(|f| f.name == "key"),
                    _ => false,
                };
                Write::Entries {
                    key: Box::new(compile(schema, left, key_node, key)?),
                    value: Box::new(compile(schema, left, value_node, value)?),
                    key_first,
                }
            }
            _ => return mismatch(),
        },
        (Shape::Map(values), SqlType::Map(_, value)) => Write::Map(Box::new(compile(schema, left, *values, value)?)),
        (Shape::Record(record), SqlType::Struct(fields)) => {
            Write::Record(compile_fields(schema, left, &record.fields, fields)?)
        }
        (shape, _) => Write::Scalar(match (shape, written.logical, ty) {
            (Shape::Bytes, Logical::Decimal { precision, scale }, SqlType::Decimal { .. }) => {
                Scalar::Decimal { size: None, precision, scale }
            }
            (Shape::Fixed { size, .. }, Logical::Decimal { precision, scale }, SqlType::Decimal { .. }) => {
                Scalar::Decimal { size: Some(*size), precision, scale }
            }
            (Shape::Boolean, _, SqlType::Boolean) => Scalar::Boolean,
            (Shape::Int, _, SqlType::Integer | SqlType::Date | SqlType::Time) => Scalar::Int,
            (Shape::Long, Logical::TimestampMicros | Logical::TimeMicros, SqlType::Timestamp | SqlType::Time) => {
                Scalar::Micros
            }
            (Shape::Long, _, SqlType::Integer | SqlType::BigInt | SqlType::Timestamp) => Scalar::Long,
            (Shape::Float, _, SqlType::Integer | SqlType::BigInt | SqlType::Double) => Scalar::Float,
            (Shape::Double, _, SqlType::Integer | SqlType::BigInt | SqlType::Double) => Scalar::Double,
            (Shape::String, _, SqlType::String) | (Shape::Bytes, _, SqlType::Bytes) => Scalar::Bytes,
            (Shape::Fixed { size, .. }, _, SqlType::Bytes) => Scalar::Fixed(*size),
            (Shape::Enum { symbols, .. }, _, SqlType::String) => {
                Scalar::Enum(symbols.iter().cloned().zip(0..).collect())
            }
            _ => return mismatch(),
        }),
    })
}

/// The branch for each field of a STRUCT that stands for a union; `None` where its fields are not branches.
fn compile_one_of(
    schema: &AvroSchema,
    left: &Cell<usize>,
    branches: &[usize],
    fields: &[Field],
) -> Result<Option<Vec<Branch>>> {
    let mut all = Vec::with_capacity(fields.len());
    for field in fields {
        let at = branches.iter().position(|b| member_name(schema, *b).eq_ignore_ascii_case(&field.name));
        match at {
            Some(at) => all.push(Some((at as i64, compile(schema, left, branches[at], &field.ty)?))),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

pub fn write_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn record<'a, 'c: 'a>(
    out: &mut Vec<u8>,
    fields: &[FieldWrite],
    row: usize,
    cells: &dyn Fn(usize) -> Option<&'a Cells<'c>>,
) -> Result<()> {
    for field in fields {
        let cell = field.from.and_then(cells).filter(|c| !c.is_null(row) || has_null(&field.write));
        match (cell, &field.default) {
            (Some(cell), _) => value(out, &field.write, cell, row)
                .map_err(|e| bad(format!("field \"{}\": {}", field.name, e.message())))?,
            (None, Some(default)) => out.extend_from_slice(default),
            (None, None) => {
                return Err(bad(format!(
                    "unable to serialize record: field \"{}\" of the schema needs a value, as it has no default and cannot be \
                     null",
                    field.name
                )));
            }
        }
    }
    Ok(())
}

fn has_null(write: &Write) -> bool {
    matches!(write, Write::Null | Write::Branch { null: Some(_), .. } | Write::OneOf { null: Some(_), .. })
}

fn no_null() -> Error {
    bad("unable to serialize record: the schema has no null where the value is NULL")
}

fn value(out: &mut Vec<u8>, write: &Write, cells: &Cells<'_>, row: usize) -> Result<()> {
    let is_null = cells.is_null(row);
    match (write, cells) {
        (Write::Null, _) => {}
        (Write::Branch { null, .. }, _) if is_null => write_long(out, null.ok_or_else(no_null)?),
        (Write::Branch { branch, write, .. }, _) => {
            write_long(out, *branch);
            value(out, write, cells, row)?;
        }
        (Write::OneOf { null, .. }, _) if is_null => write_long(out, null.ok_or_else(no_null)?),
        (Write::OneOf { null, fields }, Cells::Struct(_, parts)) => {
            let set = parts.iter().zip(fields).find(|(part, field)| field.is_some() && !part.cells.is_null(row));
            match set {
                Some((part, Some((branch, write)))) => {
                    write_long(out, *branch);
                    value(out, write, &part.cells, row)?;
                }
                _ => write_long(out, null.ok_or_else(no_null)?),
            }
        }
        _ if is_null => return Err(no_null()),
        (Write::List(write), Cells::List(offsets, _, items)) => {
            block(out, offsets, row, |out, i| value(out, write, items, i))?;
        }
        (Write::Map(write), Cells::Map(offsets, _, keys, values)) => {
            let Cells::String(keys) = &**keys else { return Err(bad("a map's keys are not text")) };
            block(out, offsets, row, |out, i| {
                write_bytes(out, keys.value(i).as_bytes());
                value(out, write, values, i)
            })?;
        }
        (Write::Entries { key, value: item, key_first }, Cells::Map(offsets, _, keys, values)) => {
            block(out, offsets, row, |out, i| {
                if !key_first {
                    value(out, item, values, i)?;
                }
                value(out, key, keys, i)?;
                if *key_first {
                    value(out, item, values, i)?;
                }
                Ok(())
            })?;
        }
        (Write::Record(fields), Cells::Struct(_, parts)) => {
            record(out, fields, row, &|i| parts.get(i).map(|p| &p.cells))?;
        }
        (Write::Scalar(to), _) => scalar(out, to, cells, row)?,
        _ => return Err(Error::bug("a column does not have the type that its plan was made for")),
    }
    Ok(())
}

/// One block with all items, and the end.
fn block(
    out: &mut Vec<u8>,
    offsets: &[i32],
    row: usize,
    mut item: impl FnMut(&mut Vec<u8>, usize) -> Result<()>,
) -> Result<()> {
    let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
    if start < end {
        write_long(out, (end - start) as i64);
        for i in start..end {
            item(out, i)?;
        }
    }
    out.push(0);
    Ok(())
}

fn scalar(out: &mut Vec<u8>, to: &Scalar, cells: &Cells<'_>, row: usize) -> Result<()> {
    match (to, cells) {
        (Scalar::Boolean, Cells::Boolean(array)) => out.push(u8::from(array.value(row))),
        (Scalar::Int | Scalar::Long, Cells::Integer(array)) => write_long(out, i64::from(array.value(row))),
        (Scalar::Int | Scalar::Long, Cells::Date(array)) => write_long(out, i64::from(array.value(row))),
        (Scalar::Int | Scalar::Long, Cells::Time(array)) => write_long(out, i64::from(array.value(row))),
        (Scalar::Long, Cells::BigInt(array)) => write_long(out, array.value(row)),
        (Scalar::Long, Cells::Timestamp(array)) => write_long(out, array.value(row)),
        (Scalar::Micros, Cells::Timestamp(array)) => {
            let micros = array.value(row).checked_mul(1000);
            write_long(out, micros.ok_or_else(|| bad("the time is out of the range of microseconds"))?);
        }
        (Scalar::Micros, Cells::Time(array)) => write_long(out, i64::from(array.value(row)) * 1000),
        (Scalar::Float | Scalar::Double, _) => {
            let number = match cells {
                Cells::Integer(array) => f64::from(array.value(row)),
                Cells::BigInt(array) => array.value(row) as f64,
                Cells::Double(array) => array.value(row),
                _ => return Err(Error::bug("a number was expected")),
            };
            match to {
                Scalar::Float => out.extend_from_slice(&(number as f32).to_le_bytes()),
                _ => out.extend_from_slice(&number.to_le_bytes()),
            }
        }
        (Scalar::Bytes, Cells::String(array)) => write_bytes(out, array.value(row).as_bytes()),
        (Scalar::Bytes, Cells::Bytes(array)) => write_bytes(out, array.value(row)),
        (Scalar::Fixed(size), Cells::Bytes(array)) => {
            let bytes = array.value(row);
            if bytes.len() != *size {
                return Err(bad(format!("{} bytes cannot be written as a fixed of {size}", bytes.len())));
            }
            out.extend_from_slice(bytes);
        }
        (Scalar::Enum(symbols), Cells::String(array)) => {
            let text = array.value(row);
            match symbols.get(text) {
                Some(at) => write_long(out, *at),
                None => return Err(bad(format!("\"{text}\" is not one of the enum's symbols"))),
            }
        }
        (Scalar::Decimal { size, precision, scale }, Cells::Decimal(array, from)) => {
            write_decimal(out, array.value(row), *from, *size, *precision, *scale)?;
        }
        _ => return Err(Error::bug("a column does not have the type that its plan was made for")),
    }
    Ok(())
}

fn write_decimal(
    out: &mut Vec<u8>,
    unscaled: i128,
    from: u8,
    size: Option<usize>,
    precision: u32,
    scale: u32,
) -> Result<()> {
    let refused = || {
        let text = decimal_text(unscaled, from);
        bad(format!("{text} cannot be written as a decimal of {precision} digits, {scale} of them behind the point"))
    };
    let shift = i64::from(scale) - i64::from(from);
    let power = u32::try_from(shift.unsigned_abs()).ok().and_then(pow10);
    let value = match power {
        _ if unscaled == 0 => 0,
        Some(power) if shift >= 0 => unscaled.checked_mul(power).ok_or_else(refused)?,
        Some(power) if unscaled % power == 0 => unscaled / power,
        _ => return Err(refused()),
    };
    if pow10(precision).is_some_and(|limit| value.unsigned_abs() >= limit.unsigned_abs()) {
        return Err(refused());
    }
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    match size {
        None => {
            // The shortest two's complement.
            let redundant = |pair: &&[u8]| pair[0] == sign && (pair[1] >= 0x80) == (value < 0);
            let skip = bytes.windows(2).take_while(redundant).count();
            write_bytes(out, &bytes[skip..]);
        }
        Some(size) if size >= bytes.len() => {
            out.resize(out.len() + size - bytes.len(), sign);
            out.extend_from_slice(&bytes);
        }
        Some(size) => {
            let (cut, kept) = bytes.split_at(bytes.len() - size);
            let fits = cut.iter().all(|b| *b == sign) && kept.first().is_some_and(|b| (*b >= 0x80) == (value < 0));
            if !fits {
                return Err(refused());
            }
            out.extend_from_slice(kept);
        }
    }
    Ok(())
}

/// Most values and bytes of text that the defaults of one plan are made of: records that are filled up by their fields' own
/// defaults could double at each level.
const DEFAULTS_MAX: usize = 1 << 20;
/// Deepest default.
const DEFAULT_DEPTH_MAX: usize = 64;

/// Appends a default value from its JSON.
fn write_json(
    out: &mut Vec<u8>,
    schema: &AvroSchema,
    left: &Cell<usize>,
    node: usize,
    json: &Json,
    depth: usize,
) -> Result<()> {
    let wrong = || {
        let shape = super::schema::branch_name(&schema.node(node).shape);
        bad(match json {
            Json::Array(_) => format!("a list is not a {shape}"),
            Json::Object(_) => format!("an object is not a {shape}"),
            _ => format!("{json} is not a {shape}"),
        })
    };
    let text = match json {
        Json::String(text) | Json::Number(text) => text.len(),
        Json::Object(members) => members.iter().map(|(name, _)| name.len()).sum(),
        _ => 0,
    };
    match left.get().checked_sub(text.saturating_add(1)) {
        Some(rest) => left.set(rest),
        None => {
            left.set(0);
            return Err(bad(format!("the defaults have more than {DEFAULTS_MAX} values and bytes")));
        }
    }
    if depth > DEFAULT_DEPTH_MAX {
        return Err(bad("it is nested too deeply"));
    }
    let number = || match json {
        Json::Number(text) => text.parse::<f64>().map_err(|_| wrong()),
        Json::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" | "INF" => Ok(f64::INFINITY),
            "-Infinity" | "-INF" => Ok(f64::NEG_INFINITY),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    };
    // Every character is a byte.
    let bytes = || -> Result<Vec<u8>> {
        json.as_str().ok_or_else(wrong)?.chars().map(|c| u8::try_from(u32::from(c)).map_err(|_| wrong())).collect()
    };
    match &schema.node(node).shape {
        Shape::Null => {
            if !json.is_null() {
                return Err(wrong());
            }
        }
        Shape::Boolean => out.push(u8::from(json.as_bool().ok_or_else(wrong)?)),
        Shape::Int => write_long(out, json.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(wrong)?),
        Shape::Long => write_long(out, json.as_i64().ok_or_else(wrong)?),
        Shape::Float => out.extend_from_slice(&(number()? as f32).to_le_bytes()),
        Shape::Double => out.extend_from_slice(&number()?.to_le_bytes()),
        Shape::String => write_bytes(out, json.as_str().ok_or_else(wrong)?.as_bytes()),
        Shape::Bytes => write_bytes(out, &bytes()?),
        Shape::Fixed { size, .. } => {
            let bytes = bytes()?;
            if bytes.len() != *size {
                return Err(wrong());
            }
            out.extend_from_slice(&bytes);
        }
        Shape::Enum { symbols, .. } => {
            let at = symbols.iter().position(|s| Some(s.as_str()) == json.as_str()).ok_or_else(wrong)?;
            write_long(out, at as i64);
        }
        Shape::Array(items) => {
            let list = json.as_array().ok_or_else(wrong)?;
            if !list.is_empty() {
                write_long(out, list.len() as i64);
                for item in list {
                    write_json(out, schema, left, *items, item, depth + 1)?;
                }
            }
            out.push(0);
        }
        Shape::Map(values) => {
            let members = json.as_object().ok_or_else(wrong)?;
            if !members.is_empty() {
                write_long(out, members.len() as i64);
                for (key, value) in members {
                    write_bytes(out, key.as_bytes());
                    write_json(out, schema, left, *values, value, depth + 1)?;
                }
            }
            out.push(0);
        }
        Shape::Record(record) => {
            for field in &record.fields {
                let value = json.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                write_json(out, schema, left, field.node, value, depth + 1)?;
            }
        }
        Shape::Union(branches) => {
            // The first branch, by the book; but of some writers any that fits.
            for (i, branch) in branches.iter().enumerate() {
                let start = out.len();
                write_long(out, i as i64);
                if write_json(out, schema, left, *branch, json, depth + 1).is_ok() {
                    return Ok(());
                }
                out.truncate(start);
            }
            return Err(wrong());
        }
    }
    Ok(())
}

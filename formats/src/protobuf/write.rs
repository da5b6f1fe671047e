//! Columns into Protobuf messages of a known schema: columns are found by the names of the message's fields, exactly or else in
//! any case.

use std::collections::HashMap;

use millpond_types::{Error, Field, Result, SqlType};

use super::columns::oneof_name;
use super::encode::{write_bytes, write_message};
use super::schema::{FieldType, ProtoField, ProtoSchema, WellKnown};
use super::wire::{Kind as WireKind, write_len, write_tag, write_varint};
use crate::arrays::Cells;
use crate::format::Nullable;

/// How a message is written.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    fields: Vec<FieldWrite>,
}

#[derive(Clone, Debug)]
struct FieldWrite {
    number: usize,
    from: usize,
    /// The field of the STRUCT that a oneof is.
    part: Option<usize>,
    /// Whether a default is written too.
    optional: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Scalar(FieldType),
    Enum(HashMap<String, i32>),
    Value,
    Wrapper(FieldType),
    Struct(Plan),
    Around(Box<Plan>),
    List {
        item: Box<Kind>,
        /// In one piece, where the items are numbers.
        packed: bool,
    },
    Map(Box<Kind>),
}

fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message)
}

impl Plan {
    pub fn new(schema: &ProtoSchema, message: usize, columns: &[Field]) -> Result<Self> {
        let declared = &schema.messages[message];
        let mut fields = Vec::new();
        let wanted: Vec<(usize, &Field)> = columns.iter().enumerate().collect();
        let plain: Vec<&ProtoField> = declared.fields.iter().filter(|f| f.oneof.is_none()).collect();
        let (found, rest) = crate::names::places(plain.iter().map(|f| f.name.as_str()), &wanted);
        for (at, (from, column)) in found {
            let field = plain[at];
            let kind = kind_of(schema, field, &column.ty)
                .map_err(|e| bad(format!("field \"{}\": {}", field.name, e.message())))?;
            let number = field.number as usize;
            fields.push(FieldWrite { number, from, part: None, optional: field.optional, kind });
        }
        let labels: Vec<String> = declared.oneofs.iter().enumerate().map(|(i, label)| oneof_name(label, i)).collect();
        let (found, missing) = crate::names::places(labels.iter().map(String::as_str), &rest);
        if let Some((_, column)) = missing.first() {
            return Err(bad(format!("the schema has no field for column \"{}\"", column.name)));
        }
        for (oneof, (from, column)) in found {
            let SqlType::Struct(parts) = &column.ty else {
                return Err(bad(format!("the schema has no field for column \"{}\"", column.name)));
            };
            let members: Vec<&ProtoField> = declared.fields.iter().filter(|f| f.oneof == Some(oneof)).collect();
            let parts: Vec<(usize, &Field)> = parts.iter().enumerate().collect();
            for (at, (part, to)) in crate::names::places(members.iter().map(|f| f.name.as_str()), &parts).0 {
                let kind = kind_of(schema, members[at], &to.ty)?;
                let number = members[at].number as usize;
                fields.push(FieldWrite { number, from, part: Some(part), optional: true, kind });
            }
        }
        fields.sort_by_key(|f| f.number);
        Ok(Self { fields })
    }

    pub fn write(&self, out: &mut Vec<u8>, cells: &[Cells<'_>], row: usize) -> Result<()> {
        self.message(out, &|i| cells.get(i), row)
    }

    fn message<'a, 'c: 'a>(
        &self,
        out: &mut Vec<u8>,
        cells: &dyn Fn(usize) -> Option<&'a Cells<'c>>,
        row: usize,
    ) -> Result<()> {
        for field in &self.fields {
            let Some(mut cell) = cells(field.from) else { continue };
            if let Some(part) = field.part {
                let Cells::Struct(_, parts) = cell else { continue };
                if cell.is_null(row) {
                    continue;
                }
                match parts.get(part) {
                    Some(part) => cell = &part.cells,
                    None => continue,
                }
            }
            if !cell.is_null(row) {
                write_field(out, field.number, &field.kind, field.optional, cell, row)?;
            }
        }
        Ok(())
    }
}

fn kind_of(schema: &ProtoSchema, field: &ProtoField, ty: &SqlType) -> Result<Kind> {
    match (&field.ty, ty, field.repeated) {
        (FieldType::Map(key, value), SqlType::Map(_, from), _) if **key == FieldType::String => {
            Ok(Kind::Map(Box::new(single(schema, value, from)?)))
        }
        (_, SqlType::Array(item), true) => {
            Ok(Kind::List { item: Box::new(single(schema, &field.ty, item)?), packed: field.packed })
        }
        (FieldType::Message(message), SqlType::Map(_, from), true) if schema.messages[*message].is_entry() => {
            Ok(Kind::Map(Box::new(kind_of(schema, &schema.messages[*message].fields[1], from)?)))
        }
        (FieldType::Map(..), ..) | (_, _, true) => Err(bad(format!("{ty} cannot be written as a repeated field"))),
        _ => single(schema, &field.ty, ty),
    }
}

fn single(schema: &ProtoSchema, written: &FieldType, ty: &SqlType) -> Result<Kind> {
    let mismatch = || Err(bad(format!("{ty} cannot be written as the field's type")));
    use FieldType as F;
    Ok(match (written, ty) {
        (F::Message(message), _) => match (schema.well_known(*message), ty) {
            (Some(WellKnown::Timestamp), SqlType::Timestamp)
            | (Some(WellKnown::Date), SqlType::Date)
            | (Some(WellKnown::Time), SqlType::Time)
            | (Some(WellKnown::Decimal), SqlType::Decimal { .. }) => Kind::Value,
            (Some(WellKnown::Wrapper), _) if !matches!(ty, SqlType::Struct(_)) => {
                let value = schema.messages[*message].fields.first();
                match value.map(|v| single(schema, &v.ty, ty)) {
                    Some(Ok(Kind::Scalar(scalar))) => Kind::Wrapper(scalar),
                    _ => return mismatch(),
                }
            }
            (_, SqlType::Struct(fields)) => Kind::Struct(Plan::new(schema, *message, fields)?),
            (_, SqlType::Array(_) | SqlType::Map(..)) => match schema.messages[*message].fields.as_slice() {
                // Only a list or a map: a message around itself would have no end.
                [one] if one.repeated || matches!(one.ty, FieldType::Map(..)) => {
                    let field = Field::new(one.name.as_str(), ty.clone());
                    Kind::Around(Box::new(Plan::new(schema, *message, &[field])?))
                }
                _ => return mismatch(),
            },
            _ => return mismatch(),
        },
        (F::Enum(at), SqlType::String) => {
            // Of a name that is there twice the first counts.
            Kind::Enum(schema.enums[*at].values.iter().rev().cloned().collect())
        }
        (F::Double | F::Float, SqlType::Integer | SqlType::BigInt | SqlType::Double)
        | (
            F::Int32
            | F::Sint32
            | F::Sfixed32
            | F::Uint32
            | F::Fixed32
            | F::Int64
            | F::Uint64
            | F::Sint64
            | F::Fixed64
            | F::Sfixed64,
            SqlType::Integer | SqlType::BigInt,
        )
        | (F::Bool, SqlType::Boolean)
        | (F::String, SqlType::String)
        | (F::Bytes, SqlType::Bytes) => Kind::Scalar(written.clone()),
        _ => return mismatch(),
    })
}

/// A field whose value is not NULL.
fn write_field(
    out: &mut Vec<u8>,
    number: usize,
    kind: &Kind,
    optional: bool,
    cells: &Cells<'_>,
    row: usize,
) -> Result<()> {
    match (kind, cells) {
        (Kind::List { item, packed }, Cells::List(offsets, _, items)) => {
            let rows = offsets[row] as usize..offsets[row + 1] as usize;
            match &**item {
                Kind::Scalar(ty) if *packed && !matches!(ty, FieldType::String | FieldType::Bytes) => {
                    if rows.is_empty() {
                        return Ok(());
                    }
                    let mut packed = Vec::new();
                    for i in rows {
                        write_number(&mut packed, ty, items, i)?;
                    }
                    write_bytes(out, number, &packed);
                    Ok(())
                }
                Kind::Enum(symbols) if *packed => {
                    let Cells::String(array) = &**items else { return Err(Error::bug("text was expected")) };
                    if rows.is_empty() {
                        return Ok(());
                    }
                    let mut packed = Vec::new();
                    for i in rows {
                        let value = if items.is_null(i) { 0 } else { symbol(symbols, array.value(i))? };
                        write_varint(&mut packed, i64::from(value) as u64);
                    }
                    write_bytes(out, number, &packed);
                    Ok(())
                }
                item => rows.into_iter().try_for_each(|i| write_item(out, number, item, items, i)),
            }
        }
        (Kind::Map(value), Cells::Map(offsets, _, keys, values)) => {
            let Cells::String(keys) = &**keys else { return Err(bad("a map's keys are not text")) };
            for i in offsets[row] as usize..offsets[row + 1] as usize {
                let mut entry = Vec::new();
                write_bytes(&mut entry, 1, keys.value(i).as_bytes());
                if !values.is_null(i) {
                    write_field(&mut entry, 2, value, true, values, i)?;
                }
                write_bytes(out, number, &entry);
            }
            Ok(())
        }
        (Kind::Scalar(ty), _) if !optional && is_default(ty, cells, row)? => Ok(()),
        (Kind::Enum(symbols), Cells::String(array)) => {
            let value = symbol(symbols, array.value(row))?;
            if value != 0 || optional {
                write_tag(out, number, WireKind::Varint);
                write_varint(out, i64::from(value) as u64);
            }
            Ok(())
        }
        _ => write_item(out, number, kind, cells, row),
    }
}

fn symbol(symbols: &HashMap<String, i32>, text: &str) -> Result<i32> {
    symbols.get(text).copied().ok_or_else(|| bad(format!("\"{text}\" is not one of the enum's values")))
}

/// A field whatever its value; NULL is what the type has for a default.
fn write_item(out: &mut Vec<u8>, number: usize, kind: &Kind, cells: &Cells<'_>, row: usize) -> Result<()> {
    let is_null = cells.is_null(row);
    match kind {
        Kind::Scalar(FieldType::String) => match cells {
            Cells::String(array) => write_bytes(out, number, if is_null { &[] } else { array.value(row).as_bytes() }),
            _ => return Err(Error::bug("text was expected")),
        },
        Kind::Scalar(FieldType::Bytes) => match cells {
            Cells::Bytes(array) => write_bytes(out, number, if is_null { &[] } else { array.value(row) }),
            _ => return Err(Error::bug("bytes were expected")),
        },
        Kind::Scalar(ty) => {
            write_tag(out, number, wire_kind(ty));
            write_number(out, ty, cells, row)?;
        }
        Kind::Enum(symbols) => match cells {
            Cells::String(array) => {
                let value = if is_null { 0 } else { symbol(symbols, array.value(row))? };
                write_tag(out, number, WireKind::Varint);
                write_varint(out, i64::from(value) as u64);
            }
            _ => return Err(Error::bug("text was expected")),
        },
        Kind::Wrapper(ty) => {
            let mut inner = Vec::new();
            if !is_null {
                write_field(&mut inner, 1, &Kind::Scalar(ty.clone()), false, cells, row)?;
            }
            write_bytes(out, number, &inner);
        }
        Kind::Value => write_len(out, number, |out| write_message(out, cells, row, Nullable::Unset)),
        Kind::Struct(plan) => {
            let mut inner = Vec::new();
            if let (Cells::Struct(_, parts), false) = (cells, is_null) {
                plan.message(&mut inner, &|i| parts.get(i).map(|p| &p.cells), row)?;
            }
            write_bytes(out, number, &inner);
        }
        Kind::Around(plan) => {
            let mut inner = Vec::new();
            if !is_null {
                plan.message(&mut inner, &|_| Some(cells), row)?;
            }
            write_bytes(out, number, &inner);
        }
        Kind::List { .. } | Kind::Map(_) => return write_field(out, number, kind, true, cells, row),
    }
    Ok(())
}

fn wire_kind(ty: &FieldType) -> WireKind {
    match ty {
        FieldType::Double | FieldType::Fixed64 | FieldType::Sfixed64 => WireKind::Fixed64,
        FieldType::Float | FieldType::Fixed32 | FieldType::Sfixed32 => WireKind::Fixed32,
        FieldType::String | FieldType::Bytes | FieldType::Message(_) | FieldType::Map(..) => WireKind::Len,
        _ => WireKind::Varint,
    }
}

fn is_default(ty: &FieldType, cells: &Cells<'_>, row: usize) -> Result<bool> {
    Ok(match (ty, cells) {
        (_, Cells::String(array)) => array.value(row).is_empty(),
        (_, Cells::Bytes(array)) => array.value(row).is_empty(),
        (_, Cells::Boolean(array)) => !array.value(row),
        (_, Cells::Integer(array)) => array.value(row) == 0,
        (_, Cells::BigInt(array)) => array.value(row) == 0,
        // The bits: -0.0 is not the default.
        (_, Cells::Double(array)) => array.value(row).to_bits() == 0,
        _ => return Err(Error::bug("a scalar was expected")),
    })
}

/// Appends a number without its tag; 0 for NULL.
fn write_number(out: &mut Vec<u8>, ty: &FieldType, cells: &Cells<'_>, row: usize) -> Result<()> {
    use FieldType as F;
    let null = cells.is_null(row);
    if let F::Double | F::Float = ty {
        let value = match cells {
            _ if null => 0.0,
            Cells::Integer(array) => f64::from(array.value(row)),
            Cells::BigInt(array) => array.value(row) as f64,
            Cells::Double(array) => array.value(row),
            _ => return Err(Error::bug("a number was expected")),
        };
        match ty {
            F::Float => out.extend_from_slice(&(value as f32).to_le_bytes()),
            _ => out.extend_from_slice(&value.to_le_bytes()),
        }
        return Ok(());
    }
    let value = match cells {
        _ if null => 0,
        Cells::Boolean(array) => i64::from(array.value(row)),
        Cells::Integer(array) => i64::from(array.value(row)),
        Cells::BigInt(array) => array.value(row),
        _ => return Err(Error::bug("a number was expected")),
    };
    let out_of_range = || bad(format!("{value} is out of the range of the field's type"));
    match ty {
        F::Int32 => write_varint(out, i64::from(i32::try_from(value).map_err(|_| out_of_range())?) as u64),
        F::Uint32 => write_varint(out, u64::from(u32::try_from(value).map_err(|_| out_of_range())?)),
        F::Sint32 => {
            let value = i64::from(i32::try_from(value).map_err(|_| out_of_range())?);
            write_varint(out, ((value << 1) ^ (value >> 63)) as u64);
        }
        F::Sint64 => write_varint(out, ((value << 1) ^ (value >> 63)) as u64),
        F::Fixed32 => out.extend_from_slice(&u32::try_from(value).map_err(|_| out_of_range())?.to_le_bytes()),
        F::Sfixed32 => out.extend_from_slice(&i32::try_from(value).map_err(|_| out_of_range())?.to_le_bytes()),
        F::Fixed64 | F::Sfixed64 => out.extend_from_slice(&value.to_le_bytes()),
        _ => write_varint(out, value as u64),
    }
    Ok(())
}

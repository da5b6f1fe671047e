//! Protobuf messages of a known schema into columns.
//!
//! As `decode`, but fields are found by the names of the schema that the record was written with: a plan is made once for a
//! message and the columns that are wanted, and each record runs through it. A STRUCT is open until its record ends, since
//! its message may come in pieces: `message` puts in what is there, `finish` what is not.
//!
//! Invariant: how deep reading recurses is bounded by the columns' types.

use std::collections::HashMap;

use millpond_types::{Field, SqlType};

use super::columns::oneof_name;
use super::decode;
use super::schema::{FieldType, ProtoField, ProtoSchema, WellKnown};
use super::wire::{Payload, Reader};
use crate::columns::{Column, Data};
use crate::json::encode::write_i64;
use crate::json::scan::{Scan, fail};
use crate::number::write_double;

/// How a message's fields become columns or the fields of a STRUCT.
#[derive(Debug, Default)]
pub struct Plan {
    by_number: HashMap<u32, FieldRead>,
    /// What each target is, for ending the message.
    targets: Vec<(usize, End)>,
    /// Targets that the message does not have.
    absent: Vec<usize>,
}

#[derive(Debug)]
struct FieldRead {
    target: usize,
    /// The field of the STRUCT that a oneof is.
    part: Option<usize>,
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(FieldType),
    Enum(Symbols),
    /// A message that stands for one value.
    Value,
    /// A message around a scalar.
    Wrapper(FieldType),
    Struct(Plan),
    /// The one field of a message is the value: a list in a list.
    Around(Box<Plan>),
    List(Box<Kind>),
    /// Keys are text.
    Map {
        value: Box<Kind>,
    },
    Mismatch(String),
}

/// The values of an enum.
#[derive(Debug)]
struct Symbols {
    names: HashMap<i32, String>,
    closed: bool,
}

impl Kind {
    /// Whether a payload counts as not there: a closed enum does not have its value.
    fn is_unknown(&self, payload: &Payload<'_>) -> bool {
        match (self, payload) {
            (Self::Enum(symbols), Payload::Varint(value)) => {
                symbols.closed && !symbols.names.contains_key(&(*value as i32))
            }
            _ => false,
        }
    }
}

/// What a target becomes at its message's end.
#[derive(Debug)]
enum End {
    /// NULL where it was not there.
    Null,
    /// Its default where it was not there.
    Default(String),
    List,
    Map,
    Struct(u32),
    /// The parts that are there, and the numbers of their fields.
    OneOf(Vec<(usize, u32)>),
}

impl Plan {
    /// `wanted`: targets and what they are called and hold.
    pub fn new(schema: &ProtoSchema, message: usize, wanted: &[(usize, &Field)]) -> Self {
        let declared = &schema.messages[message];
        let mut plan = Self::default();
        let plain: Vec<&ProtoField> = declared.fields.iter().filter(|f| f.oneof.is_none()).collect();
        let (found, open) = crate::names::places(plain.iter().map(|f| f.name.as_str()), wanted);
        for (at, (target, field)) in found {
            plan.add(schema, plain[at], target, &field.name, &field.ty, None);
        }
        let of_struct = |w: &(usize, &Field)| matches!(w.1.ty, SqlType::Struct(_));
        let (structs, mut open): (Vec<_>, Vec<_>) = open.into_iter().partition(of_struct);
        let labels: Vec<String> = declared.oneofs.iter().enumerate().map(|(i, label)| oneof_name(label, i)).collect();
        let (found, rest) = crate::names::places(labels.iter().map(String::as_str), &structs);
        open.extend(rest);
        for (oneof, (target, field)) in found {
            let SqlType::Struct(parts) = &field.ty else { continue };
            let members: Vec<&ProtoField> = declared.fields.iter().filter(|f| f.oneof == Some(oneof)).collect();
            let parts: Vec<(usize, &Field)> = parts.iter().enumerate().collect();
            let (found, _) = crate::names::places(members.iter().map(|f| f.name.as_str()), &parts);
            let mut present = Vec::with_capacity(found.len());
            for (at, (part, to)) in found {
                present.push((part, members[at].number));
                plan.add(schema, members[at], target, &field.name, &to.ty, Some(part));
            }
            plan.targets.push((target, End::OneOf(present)));
        }
        plan.absent = open.into_iter().map(|(target, _)| target).collect();
        plan
    }

    fn add(
        &mut self,
        schema: &ProtoSchema,
        written: &ProtoField,
        target: usize,
        name: &str,
        ty: &SqlType,
        part: Option<usize>,
    ) {
        let kind = kind_of(schema, written, ty);
        if part.is_none() {
            let end = match &kind {
                Kind::List(_) => End::List,
                Kind::Map { .. } => End::Map,
                Kind::Struct(_) => End::Struct(written.number),
                Kind::Scalar(_) if !written.optional => End::Default(String::new()),
                Kind::Enum(symbols) if !written.optional => {
                    End::Default(symbols.names.get(&0).cloned().unwrap_or_default())
                }
                _ => End::Null,
            };
            self.targets.push((target, end));
        }
        self.by_number.insert(written.number, FieldRead { target, part, name: name.to_owned(), kind });
    }
}

fn kind_of(schema: &ProtoSchema, field: &ProtoField, ty: &SqlType) -> Kind {
    match (&field.ty, ty, field.repeated) {
        (FieldType::Map(key, _), SqlType::Map(..), _) if **key != FieldType::String => keys_mismatch(ty),
        (FieldType::Map(_, value), SqlType::Map(_, to), _) => Kind::Map { value: Box::new(single(schema, value, to)) },
        (_, SqlType::Array(item), true) => Kind::List(Box::new(single(schema, &field.ty, item))),
        // A map may be written as the list of its entries.
        (FieldType::Message(message), SqlType::Map(_, to), true) => {
            let entry = &schema.messages[*message].fields;
            let numbered = |n: u32| entry.iter().find(|f| f.number == n);
            match (numbered(1), numbered(2)) {
                (Some(key), Some(_)) if key.repeated || key.ty != FieldType::String => keys_mismatch(ty),
                (Some(_), Some(value)) => Kind::Map {
                    value: Box::new(if value.repeated {
                        kind_of(schema, value, to)
                    } else {
                        single(schema, &value.ty, to)
                    }),
                },
                _ => Kind::Mismatch(format!("a repeated field cannot be read as {ty}")),
            }
        }
        (_, _, true) | (FieldType::Map(..), ..) => Kind::Mismatch(format!("a repeated field cannot be read as {ty}")),
        _ => single(schema, &field.ty, ty),
    }
}

fn keys_mismatch(ty: &SqlType) -> Kind {
    Kind::Mismatch(format!("the keys are not strings, and cannot be read as {ty}"))
}

fn single(schema: &ProtoSchema, written: &FieldType, ty: &SqlType) -> Kind {
    let mismatch = || Kind::Mismatch(format!("the field's type cannot be read as {ty}"));
    match (written, ty) {
        (FieldType::Message(message), _) => match (schema.well_known(*message), ty) {
            (Some(WellKnown::Timestamp), SqlType::Timestamp)
            | (Some(WellKnown::Date), SqlType::Date)
            | (Some(WellKnown::Time), SqlType::Time)
            | (Some(WellKnown::Decimal), SqlType::Decimal { .. }) => Kind::Value,
            (Some(WellKnown::Wrapper), _) if !matches!(ty, SqlType::Struct(_)) => {
                match schema.messages[*message].fields.first() {
                    Some(value) if reads(&value.ty, ty) => Kind::Wrapper(value.ty.clone()),
                    _ => mismatch(),
                }
            }
            (_, SqlType::Struct(fields)) => {
                let wanted: Vec<(usize, &Field)> = fields.iter().enumerate().collect();
                Kind::Struct(Plan::new(schema, *message, &wanted))
            }
            (_, SqlType::Array(_) | SqlType::Map(..)) => match schema.messages[*message].fields.as_slice() {
                // Only a list or a map: a message around itself would have no end.
                [one] if one.repeated || matches!(one.ty, FieldType::Map(..)) => {
                    let field = Field::new(one.name.as_str(), ty.clone());
                    Kind::Around(Box::new(Plan::new(schema, *message, &[(0, &field)])))
                }
                _ => mismatch(),
            },
            _ => mismatch(),
        },
        (FieldType::Enum(at), SqlType::String) => {
            let declared = &schema.enums[*at];
            let names = declared.values.iter().rev().map(|(name, n)| (*n, name.clone())).collect();
            Kind::Enum(Symbols { names, closed: declared.closed })
        }
        (FieldType::Enum(_), SqlType::Integer | SqlType::BigInt) => Kind::Scalar(FieldType::Int32),
        (scalar, ty) if reads(scalar, ty) => Kind::Scalar(scalar.clone()),
        _ => mismatch(),
    }
}

fn reads(written: &FieldType, ty: &SqlType) -> bool {
    use FieldType as F;
    match written {
        F::Double | F::Float => matches!(ty, SqlType::Double | SqlType::String),
        F::Int32 | F::Sint32 | F::Sfixed32 => {
            matches!(ty, SqlType::Integer | SqlType::BigInt | SqlType::Double | SqlType::String)
        }
        F::Uint32 | F::Fixed32 | F::Int64 | F::Uint64 | F::Sint64 | F::Fixed64 | F::Sfixed64 => {
            matches!(ty, SqlType::BigInt | SqlType::Double | SqlType::String)
        }
        F::Bool => matches!(ty, SqlType::Boolean | SqlType::String),
        F::String => matches!(ty, SqlType::String),
        F::Bytes => matches!(ty, SqlType::Bytes),
        F::Enum(_) | F::Message(_) | F::Map(..) => false,
    }
}

/// A record into columns that have `base` rows before and one more after.
pub fn record(reader: Reader<'_>, plan: &Plan, columns: &mut [Column], base: usize) -> Scan<()> {
    message(reader, plan, columns, base)?;
    finish(plan, columns, base);
    Ok(())
}

fn message(mut reader: Reader<'_>, plan: &Plan, columns: &mut [Column], base: usize) -> Scan<()> {
    while !reader.is_at_end() {
        let at = reader.pos;
        let (number, payload) = reader.field()?;
        let Some(read) = u32::try_from(number).ok().and_then(|n| plan.by_number.get(&n)) else { continue };
        let Some(column) = columns.get_mut(read.target) else { continue };
        let result = match read.part {
            None => field(column, &read.kind, payload, at, base),
            Some(part) => one_of(column, part, &read.kind, payload, at, base),
        };
        if let Err(mut failure) = result {
            failure.path.push(read.name.clone());
            return Err(failure);
        }
    }
    Ok(())
}

/// One of a oneof: those that came before it are gone.
fn one_of(column: &mut Column, part: usize, kind: &Kind, payload: Payload<'_>, at: usize, base: usize) -> Scan<()> {
    if kind.is_unknown(&payload) {
        return Ok(());
    }
    if column.len() == base {
        column.valid.push(true);
    }
    let Data::Struct { fields, .. } = &mut column.data else { return Ok(()) };
    for (i, field) in fields.iter_mut().enumerate() {
        if i != part && field.len() > base {
            field.truncate(base);
        }
    }
    match fields.get_mut(part) {
        Some(to) => {
            // Not ended yet: another occurrence would be merged into it.
            field(to, kind, payload, at, base)
        }
        None => Ok(()),
    }
}

/// One occurrence of a field.
fn field(column: &mut Column, kind: &Kind, payload: Payload<'_>, at: usize, base: usize) -> Scan<()> {
    if kind.is_unknown(&payload) {
        return Ok(());
    }
    match (kind, payload) {
        (Kind::Mismatch(why), _) => fail(at, why.clone()),
        (Kind::Scalar(ty), _) => scalar(column, ty, payload, at, base),
        (Kind::Enum(symbols), Payload::Varint(value)) => {
            column.truncate(base);
            // Of an open one: a value that a newer writer has is no error.
            let Some(symbol) = symbols.names.get(&(value as i32)) else {
                column.push_null();
                return Ok(());
            };
            let Data::String(text) = &mut column.data else { return Ok(()) };
            text.data.extend_from_slice(symbol.as_bytes());
            text.end();
            column.valid.push(true);
            Ok(())
        }
        (Kind::Value, Payload::Len(_)) => decode::scalar(column, payload, at, base),
        (Kind::Wrapper(ty), Payload::Len(mut reader)) => {
            if column.len() == base {
                decode::push_default(column);
            }
            while !reader.is_at_end() {
                let at = reader.pos;
                if let (1, payload) = reader.field()? {
                    scalar(column, ty, payload, at, base)?;
                }
            }
            Ok(())
        }
        (Kind::Struct(plan), Payload::Len(reader)) => {
            if column.len() == base {
                column.valid.push(true);
            }
            let Data::Struct { fields, .. } = &mut column.data else { return Ok(()) };
            message(reader, plan, fields, base)
        }
        (Kind::Around(plan), Payload::Len(reader)) => {
            column.truncate(base);
            record(reader, plan, std::slice::from_mut(column), base)
        }
        (Kind::List(item), _) => {
            let Data::List { items, .. } = &mut column.data else { return Ok(()) };
            list_item(items, item, payload, at)
        }
        (Kind::Map { value }, Payload::Len(mut reader)) => {
            let Data::Map { keys, values, .. } = &mut column.data else { return Ok(()) };
            reader.spend(values.width())?;
            let (key_base, value_base) = (keys.len(), values.len());
            let mut unknown = false;
            while !reader.is_at_end() {
                let at = reader.pos;
                match reader.field()? {
                    (1, Payload::Len(text)) => {
                        keys.truncate(key_base);
                        keys.data.extend_from_slice(decode::utf8(text)?);
                        keys.end();
                    }
                    (2, payload) => {
                        unknown |= value.is_unknown(&payload);
                        field(values, value, payload, at, value_base)?;
                    }
                    _ => {}
                }
            }
            if unknown && values.len() == value_base {
                keys.truncate(key_base);
                return Ok(());
            }
            if keys.len() == key_base {
                keys.end();
            }
            end(values, value, value_base);
            Ok(())
        }
        // Another wire type than the schema's: as if unknown.
        _ => Ok(()),
    }
}

fn list_item(items: &mut Column, kind: &Kind, payload: Payload<'_>, at: usize) -> Scan<()> {
    if let (Kind::Scalar(ty), Payload::Len(mut reader)) = (kind, payload)
        && !matches!(ty, FieldType::String | FieldType::Bytes)
    {
        while !reader.is_at_end() {
            let at = reader.pos;
            let one = match ty {
                FieldType::Double | FieldType::Fixed64 | FieldType::Sfixed64 => Payload::Fixed64(reader.fixed64()?),
                FieldType::Float | FieldType::Fixed32 | FieldType::Sfixed32 => Payload::Fixed32(reader.fixed32()?),
                _ => Payload::Varint(reader.varint()?),
            };
            scalar(items, ty, one, at, items.len())?;
        }
        return Ok(());
    }
    if let (Kind::Enum(_), Payload::Len(mut reader)) = (kind, payload) {
        while !reader.is_at_end() {
            let at = reader.pos;
            let one = Payload::Varint(reader.varint()?);
            field(items, kind, one, at, items.len())?;
        }
        return Ok(());
    }
    if let Payload::Len(reader) = payload {
        reader.spend(items.width())?;
    }
    let base = items.len();
    field(items, kind, payload, at, base)?;
    if items.len() > base && matches!(kind, Kind::Struct(_)) {
        end(items, kind, base);
    }
    Ok(())
}

/// Ends an item of a list or the value of an entry.
fn end(column: &mut Column, kind: &Kind, base: usize) {
    let filled = column.len() > base;
    match (&mut column.data, kind) {
        (Data::Struct { fields, .. }, Kind::Struct(plan)) if filled => finish(plan, fields, base),
        _ if filled => {}
        (_, Kind::List(_) | Kind::Map { .. }) => decode::end_items(column),
        (_, Kind::Scalar(_)) => decode::push_default(column),
        (Data::String(text), Kind::Enum(symbols)) => {
            text.data.extend_from_slice(symbols.names.get(&0).map_or("", |s| s).as_bytes());
            text.end();
            column.valid.push(true);
        }
        _ => column.push_null(),
    }
}

/// Ends a message: what was not there becomes its default or NULL, a list or map empty.
fn finish(plan: &Plan, columns: &mut [Column], base: usize) {
    for &target in &plan.absent {
        if let Some(column) = columns.get_mut(target) {
            column.push_null();
        }
    }
    for (target, end) in &plan.targets {
        let Some(column) = columns.get_mut(*target) else { continue };
        let filled = column.len() > base;
        match (end, &mut column.data) {
            (End::List, Data::List { .. }) | (End::Map, Data::Map { .. }) => decode::end_items(column),
            (End::Struct(number), Data::Struct { fields, .. }) if filled => {
                if let Some(FieldRead { kind: Kind::Struct(plan), .. }) = plan.by_number.get(number) {
                    finish(plan, fields, base);
                }
            }
            (End::OneOf(parts), Data::Struct { fields, .. }) if filled => {
                for (part, number) in parts {
                    if let Some(FieldRead { kind: Kind::Struct(plan), .. }) = plan.by_number.get(number)
                        && let Some(part) = fields.get_mut(*part).filter(|f| f.len() > base)
                        && let Data::Struct { fields, .. } = &mut part.data
                    {
                        finish(plan, fields, base);
                    }
                }
                fields.iter_mut().filter(|f| f.len() == base).for_each(Column::push_null);
            }
            _ if filled => {}
            (End::Default(symbol), Data::String(text)) => {
                text.data.extend_from_slice(symbol.as_bytes());
                text.end();
                column.valid.push(true);
            }
            (End::Default(_), _) => decode::push_default(column),
            _ => column.push_null(),
        }
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A scalar in place of any before it in this row; nothing changes where the wire type is another.
#[inline]
fn scalar(column: &mut Column, ty: &FieldType, payload: Payload<'_>, at: usize, base: usize) -> Scan<()> {
    use FieldType as F;
    let number = match (ty, payload) {
        (F::String | F::Bytes, Payload::Len(_)) => return decode::scalar(column, payload, at, base),
        (F::Double, Payload::Fixed64(bits)) => return double(column, f64::from_bits(bits), base),
        (F::Float, Payload::Fixed32(bits)) => return double(column, f64::from(f32::from_bits(bits)), base),
        (F::Int32, Payload::Varint(v)) => i64::from(v as i32),
        (F::Uint32, Payload::Varint(v)) => i64::from(v as u32),
        (F::Int64 | F::Uint64, Payload::Varint(v)) => v as i64,
        (F::Sint32, Payload::Varint(v)) => i64::from(zigzag(v & 0xffff_ffff) as i32),
        (F::Sint64, Payload::Varint(v)) => zigzag(v),
        (F::Bool, Payload::Varint(v)) => i64::from(v != 0),
        (F::Fixed32, Payload::Fixed32(v)) => i64::from(v),
        (F::Sfixed32, Payload::Fixed32(v)) => i64::from(v as i32),
        (F::Fixed64 | F::Sfixed64, Payload::Fixed64(v)) => v as i64,
        _ => return Ok(()),
    };
    column.truncate(base);
    match &mut column.data {
        Data::Boolean(values) => values.append(number != 0),
        Data::Integer(values) => values.push(number as i32),
        Data::BigInt(values) => values.push(number),
        Data::Double(values) => values.push(number as f64),
        Data::String(text) => {
            if *ty == F::Bool {
                text.data.extend_from_slice(if number != 0 { b"true" } else { b"false" });
            } else {
                write_i64(&mut text.data, number);
            }
            text.end();
        }
        _ => return Ok(()),
    }
    column.valid.push(true);
    Ok(())
}

fn double(column: &mut Column, number: f64, base: usize) -> Scan<()> {
    column.truncate(base);
    match &mut column.data {
        Data::Double(values) => values.push(number),
        Data::String(text) => {
            write_double(&mut text.data, number);
            text.end();
        }
        _ => return Ok(()),
    }
    column.valid.push(true);
    Ok(())
}

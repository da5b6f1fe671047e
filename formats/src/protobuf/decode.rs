//! Protobuf messages into columns, directed by their types, in one pass.
//!
//! A message may name a field more than once: the last scalar counts, items add up, STRUCTs merge; of DECIMALs, dates
//! and times the last counts as a whole. A field of another wire type than the column's is an unknown one. So a STRUCT
//! is open until its record ends: `fields` puts in what is there, `finish` what is not.

use arrow::datatypes::Fields;
use millpond_types::Field;

use super::wire::{Payload, Reader};
use crate::columns::{Column, Data};
use crate::format::Nullable;
use crate::json::scan::{Scan, fail};
use crate::number::{DecimalError, decimal_error, decimal_text, pow10};
use crate::text::days_of_civil_date;

const DAY_MS: i64 = 86_400_000;

/// The columns that the fields of a message go to.
pub enum Scope<'a> {
    /// A record's fields, with their places among the columns that are built.
    Record {
        fields: &'a [Field],
        targets: &'a [Option<usize>],
    },
    Struct(&'a Fields),
    /// The message around a list in a list.
    Single,
}

impl Scope<'_> {
    #[inline(always)]
    fn column(&self, index: usize) -> Option<usize> {
        match self {
            Self::Record { targets, .. } => targets.get(index).copied().flatten(),
            Self::Struct(_) | Self::Single => Some(index),
        }
    }

    fn name(&self, index: usize) -> Option<&str> {
        match self {
            Self::Record { fields, .. } => fields.get(index).map(|f| f.name.as_str()),
            Self::Struct(fields) => fields.get(index).map(|f| f.name().as_str()),
            Self::Single => None,
        }
    }
}

/// A record into columns that have `base` rows before and one more after.
pub fn record(
    reader: Reader<'_>,
    scope: &Scope<'_>,
    columns: &mut [Column],
    base: usize,
    nullable: Nullable,
) -> Scan<()> {
    fields(reader, scope, columns, base, nullable)?;
    finish(columns, base, nullable);
    Ok(())
}

/// A record that is the STRUCT of its one column.
pub fn single_struct(reader: Reader<'_>, column: &mut Column, nullable: Nullable) -> Scan<()> {
    let base = column.len();
    field(column, Payload::Len(reader), 0, base, nullable)?;
    finish(std::slice::from_mut(column), base, nullable);
    Ok(())
}

fn fields(
    mut reader: Reader<'_>,
    scope: &Scope<'_>,
    columns: &mut [Column],
    base: usize,
    nullable: Nullable,
) -> Scan<()> {
    while !reader.is_at_end() {
        let at = reader.pos;
        let (number, payload) = reader.field()?;
        if let Some(column) = scope.column(number - 1).and_then(|i| columns.get_mut(i))
            && let Err(mut failure) = field(column, payload, at, base, nullable)
        {
            failure.path.extend(scope.name(number - 1).map(str::to_owned));
            return Err(failure);
        }
    }
    Ok(())
}

/// Ends a message: absent scalars become defaults or NULL, absent messages NULL, absent lists empty.
fn finish(columns: &mut [Column], base: usize, nullable: Nullable) {
    for column in columns {
        let filled = column.len() > base;
        match &mut column.data {
            Data::List { .. } | Data::Map { .. } => end_items(column),
            Data::Struct { fields, .. } if filled => finish(fields, base, nullable),
            _ if filled => {}
            _ if nullable == Nullable::Unset => push_default(column),
            _ => column.push_null(),
        }
    }
}

/// Ends a list or a map: what has come since the last one is its own. Of a map's entries with one key the last counts.
pub(super) fn end_items(column: &mut Column) {
    match &mut column.data {
        Data::List { offsets, items } => offsets.push(items.len() as i32),
        Data::Map { offsets, keys, values } => {
            let first = offsets.last().map_or(0, |&o| o as usize);
            if let Some(keep) = keys.last_of_repeated(first) {
                keys.retain_from(first, &keep);
                values.retain_from(first, &keep);
            }
            offsets.push(keys.len() as i32);
        }
        _ => return column.push_null(),
    }
    column.valid.push(true);
}

/// The default of a scalar; NULL for messages.
pub(super) fn push_default(column: &mut Column) {
    match &mut column.data {
        Data::Boolean(values) => values.append(false),
        Data::Integer(values) => values.push(0),
        Data::BigInt(values) => values.push(0),
        Data::Double(values) => values.push(0.0),
        Data::String(bytes) | Data::Bytes(bytes) => bytes.end(),
        _ => return column.push_null(),
    }
    column.valid.push(true);
}

/// One occurrence of a field of a message.
#[inline]
fn field(column: &mut Column, payload: Payload<'_>, at: usize, base: usize, nullable: Nullable) -> Scan<()> {
    let wrapped = nullable == Nullable::Wrapper && is_scalar(&column.data);
    match (&mut column.data, payload) {
        (Data::List { items, .. }, _) => item(items, payload, at, nullable),
        (Data::Map { keys, values, .. }, Payload::Len(mut reader)) => {
            reader.spend(values.width())?;
            let (key, value) = (keys.len(), values.len());
            while !reader.is_at_end() {
                let at = reader.pos;
                match reader.field()? {
                    (1, Payload::Len(text)) => {
                        keys.truncate(key);
                        keys.data.extend_from_slice(utf8(text)?);
                        keys.end();
                    }
                    (2, payload) => field(values, payload, at, value, nullable)?,
                    _ => {}
                }
            }
            if keys.len() == key {
                keys.end();
            }
            finish(std::slice::from_mut(&mut **values), value, nullable);
            Ok(())
        }
        (Data::Struct { names, fields: parts, .. }, Payload::Len(reader)) => {
            if column.valid.len() == base {
                column.valid.push(true);
            }
            fields(reader, &Scope::Struct(names), parts, base, nullable)
        }
        (Data::Map { .. } | Data::Struct { .. }, _) => Ok(()),
        (_, Payload::Len(mut reader)) if wrapped => {
            if column.len() == base {
                push_default(column);
            }
            while !reader.is_at_end() {
                let at = reader.pos;
                if let (1, payload) = reader.field()? {
                    scalar(column, payload, at, base)?;
                }
            }
            Ok(())
        }
        _ if wrapped => Ok(()),
        _ => scalar(column, payload, at, base),
    }
}

fn is_scalar(data: &Data) -> bool {
    use Data::{BigInt, Boolean, Bytes, Double, Integer, String};
    matches!(data, Boolean(_) | Integer(_) | BigInt(_) | Double(_) | String(_) | Bytes(_))
}

/// One item of an array, or some packed ones.
fn item(items: &mut Column, payload: Payload<'_>, at: usize, nullable: Nullable) -> Scan<()> {
    let base = items.len();
    if let (Data::Struct { .. }, Payload::Len(reader)) = (&items.data, payload) {
        reader.spend(items.width())?;
    }
    match (&items.data, payload) {
        (Data::Boolean(_) | Data::Integer(_) | Data::BigInt(_), Payload::Len(mut reader))
            if nullable != Nullable::Wrapper =>
        {
            while !reader.is_at_end() {
                let at = reader.pos;
                let number = Payload::Varint(reader.varint()?);
                scalar(items, number, at, items.len())?;
            }
        }
        (Data::Double(_), Payload::Len(mut reader)) if nullable != Nullable::Wrapper => {
            while !reader.is_at_end() {
                let at = reader.pos;
                let number = Payload::Fixed64(reader.fixed64()?);
                scalar(items, number, at, items.len())?;
            }
        }
        (Data::List { .. } | Data::Map { .. }, Payload::Len(reader)) => {
            let items = std::slice::from_mut(items);
            fields(reader, &Scope::Single, items, base, nullable)?;
            finish(items, base, nullable);
        }
        (Data::List { .. } | Data::Map { .. }, _) => {}
        (Data::Struct { .. }, Payload::Len(_)) => {
            field(items, payload, at, base, nullable)?;
            finish(std::slice::from_mut(items), base, nullable);
        }
        _ => field(items, payload, at, base, nullable)?,
    }
    Ok(())
}

/// A value in place of any before it in this row; nothing changes where the wire type is another.
#[inline]
pub(super) fn scalar(column: &mut Column, payload: Payload<'_>, at: usize, base: usize) -> Scan<()> {
    if !fits(&column.data, payload) {
        return Ok(());
    }
    if column.len() > base {
        column.truncate(base);
    }
    match (&mut column.data, payload) {
        (Data::Boolean(values), Payload::Varint(value)) => values.append(value != 0),
        (Data::Integer(values), Payload::Varint(value)) => values.push(value as i32),
        (Data::BigInt(values), Payload::Varint(value)) => values.push(value as i64),
        (Data::Double(values), Payload::Fixed64(value)) => values.push(f64::from_bits(value)),
        (Data::String(bytes), Payload::Len(reader)) => {
            bytes.data.extend_from_slice(utf8(reader)?);
            bytes.end();
        }
        (Data::Bytes(bytes), Payload::Len(reader)) => {
            bytes.data.extend_from_slice(reader.rest());
            bytes.end();
        }
        (_, Payload::Len(reader)) => match message(&column.data, reader, at)? {
            Some(value) => match &mut column.data {
                Data::Date(values) | Data::Time(values) => values.push(value as i32),
                Data::Timestamp(values) => values.push(value as i64),
                Data::Decimal { values, .. } => values.push(value),
                _ => return Ok(()),
            },
            None => {
                column.push_null();
                return Ok(());
            }
        },
        _ => return Ok(()),
    }
    column.valid.push(true);
    Ok(())
}

fn fits(data: &Data, payload: Payload<'_>) -> bool {
    match data {
        Data::Boolean(_) | Data::Integer(_) | Data::BigInt(_) => matches!(payload, Payload::Varint(_)),
        Data::Double(_) => matches!(payload, Payload::Fixed64(_)),
        _ => matches!(payload, Payload::Len(_)),
    }
}

pub(super) fn utf8(reader: Reader<'_>) -> Scan<&[u8]> {
    match simdutf8::basic::from_utf8(reader.rest()) {
        Ok(_) => Ok(reader.rest()),
        Err(_) => fail(reader.pos, "the text is not UTF-8"),
    }
}

/// The value of a DATE, TIME, TIMESTAMP or DECIMAL message as its column stores it; `None` for NULL, which a date
/// without any part and a DECIMAL without a value are.
fn message(data: &Data, mut reader: Reader<'_>, at: usize) -> Scan<Option<i128>> {
    let mut parts = [0i64; 4];
    let mut digits: &[u8] = &[];
    while !reader.is_at_end() {
        match reader.field()? {
            (number @ 1..=4, Payload::Varint(value)) => parts[number - 1] = value as i64,
            (1, Payload::Len(value)) => digits = value.rest(),
            _ => {}
        }
    }
    let [first, second, third, fourth] = parts;
    let value = match data {
        // All parts but a Timestamp's first are 32 bits wide.
        Data::Timestamp(_) => {
            let ms = i128::from(first) * 1000 + i128::from(second as i32).div_euclid(1_000_000);
            if i64::try_from(ms).is_err() {
                return fail(at, format!("the time of {first} seconds is out of range"));
            }
            ms
        }
        Data::Date(_) => {
            let (year, month, day) = (i64::from(first as i32), i64::from(second as i32), i64::from(third as i32));
            if (year, month, day) == (0, 0, 0) {
                return Ok(None);
            }
            match days_of_civil_date(year, month, day).filter(|&days| i32::try_from(days).is_ok()) {
                Some(days) => i128::from(days),
                None => return fail(at, format!("there is no date of year {year}, month {month}, day {day}")),
            }
        }
        Data::Time(_) => {
            let (hours, minutes) = (i64::from(first as i32), i64::from(second as i32));
            let (seconds, nanos) = (i64::from(third as i32), i64::from(fourth as i32));
            let ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + nanos.div_euclid(1_000_000);
            if !(0..DAY_MS).contains(&ms) {
                return fail(at, format!("there is no time of {hours}:{minutes}:{seconds} and {nanos} ns"));
            }
            i128::from(ms)
        }
        Data::Decimal { precision, scale, .. } => {
            if digits.is_empty() {
                return Ok(None);
            }
            decimal(digits, third as i32, *precision, *scale, at)?
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// Big-endian two's complement digits of another scale as DECIMAL(precision, scale), exactly.
pub(crate) fn decimal(digits: &[u8], from: i32, precision: u8, scale: u8, at: usize) -> Scan<i128> {
    let negative = digits.first().is_some_and(|&b| b >= 0x80);
    let sign = if negative { 0xff } else { 0 };
    let significant = digits.iter().position(|&b| b != sign).map_or(&[][..], |i| &digits[i..]);
    let refused = |error, shown: &str| fail(at, decimal_error(error, shown, precision, scale));
    let unscaled = if significant.len() > 16 {
        None
    } else {
        let mut bytes = [sign; 16];
        bytes[16 - significant.len()..].copy_from_slice(significant);
        // Where 16 bytes are full, the sign must still be theirs.
        Some(i128::from_be_bytes(bytes)).filter(|value| (*value < 0) == negative)
    };
    let Some(unscaled) = unscaled else {
        return refused(DecimalError::Overflow, &format!("a number of {} bytes", digits.len()));
    };
    let shown = || match u8::try_from(from) {
        Ok(from) => decimal_text(unscaled, from),
        Err(_) => format!("{unscaled} with scale {from}"),
    };
    let shift = i64::from(scale) - i64::from(from);
    let power = pow10(shift.unsigned_abs().min(100) as u32);
    let value = match power {
        _ if unscaled == 0 => 0,
        Some(power) if shift >= 0 => match unscaled.checked_mul(power) {
            Some(value) => value,
            None => return refused(DecimalError::Overflow, &shown()),
        },
        None if shift >= 0 => return refused(DecimalError::Overflow, &shown()),
        Some(power) if unscaled % power == 0 => unscaled / power,
        _ => return refused(DecimalError::Inexact, &shown()),
    };
    match pow10(u32::from(precision)) {
        Some(limit) if value.unsigned_abs() >= limit.unsigned_abs() => refused(DecimalError::Overflow, &shown()),
        _ => Ok(value),
    }
}

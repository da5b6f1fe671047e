//! Columns into protobuf messages.
//!
//! Fields come in the order of their numbers. A NULL field is not written, and without a representation for NULL neither
//! is a default value; items of arrays are always written, NULL ones as what their type has for a default.

use super::wire::{Kind, write_len, write_tag, write_varint};
use crate::arrays::Cells;
use crate::format::Nullable;
use crate::text::civil_date;

/// Appends a row's message.
pub fn write_record(out: &mut Vec<u8>, columns: &[Cells<'_>], row: usize, nullable: Nullable) {
    for (i, cells) in columns.iter().enumerate() {
        write_field(out, i + 1, cells, row, nullable);
    }
}

/// Appends the message that a single column is.
pub fn write_single(out: &mut Vec<u8>, cells: &Cells<'_>, row: usize, nullable: Nullable) {
    match cells {
        Cells::Struct(_, parts) => {
            for (i, part) in parts.iter().enumerate() {
                write_field(out, i + 1, &part.cells, row, nullable);
            }
        }
        _ => write_field(out, 1, cells, row, nullable),
    }
}

/// Whether NULL needs a representation: fields of these types have a default else.
fn is_scalar(cells: &Cells<'_>) -> bool {
    use Cells::{BigInt, Boolean, Bytes, Double, Integer, String};
    matches!(cells, Boolean(_) | Integer(_) | BigInt(_) | Double(_) | String(_) | Bytes(_))
}

fn is_default(cells: &Cells<'_>, row: usize) -> bool {
    match cells {
        Cells::Boolean(array) => !array.value(row),
        Cells::Integer(array) => array.value(row) == 0,
        Cells::BigInt(array) => array.value(row) == 0,
        // The bits: -0.0 is not the default.
        Cells::Double(array) => array.value(row).to_bits() == 0,
        Cells::String(array) => array.value(row).is_empty(),
        Cells::Bytes(array) => array.value(row).is_empty(),
        _ => false,
    }
}

fn write_field(out: &mut Vec<u8>, number: usize, cells: &Cells<'_>, row: usize, nullable: Nullable) {
    if cells.is_null(row) {
        return;
    }
    match cells {
        Cells::List(offsets, _, items) => {
            let rows = offsets[row] as usize..offsets[row + 1] as usize;
            let packed = matches!(**items, Cells::Boolean(_) | Cells::Integer(_) | Cells::BigInt(_) | Cells::Double(_))
                && nullable != Nullable::Wrapper;
            if !packed {
                rows.for_each(|item| write_item(out, number, items, item, nullable));
            } else if !rows.is_empty() {
                write_len(out, number, |out| rows.for_each(|item| write_number(out, items, item)));
            }
        }
        Cells::Map(offsets, _, keys, values) => {
            for entry in offsets[row] as usize..offsets[row + 1] as usize {
                write_len(out, number, |out| {
                    write_field(out, 1, keys, entry, Nullable::Unset);
                    write_field(out, 2, values, entry, nullable);
                });
            }
        }
        _ if nullable == Nullable::Unset && is_default(cells, row) => {}
        _ => write_item(out, number, cells, row, nullable),
    }
}

/// Appends a field whatever its value.
fn write_item(out: &mut Vec<u8>, number: usize, cells: &Cells<'_>, row: usize, nullable: Nullable) {
    if nullable == Nullable::Wrapper && is_scalar(cells) {
        return write_len(out, number, |out| write_field(out, 1, cells, row, Nullable::Unset));
    }
    match cells {
        Cells::Boolean(_) | Cells::Integer(_) | Cells::BigInt(_) => {
            write_tag(out, number, Kind::Varint);
            write_number(out, cells, row);
        }
        Cells::Double(_) => {
            write_tag(out, number, Kind::Fixed64);
            write_number(out, cells, row);
        }
        Cells::String(array) => {
            let text = if cells.is_null(row) { "" } else { array.value(row) };
            write_bytes(out, number, text.as_bytes());
        }
        Cells::Bytes(array) => write_bytes(out, number, if cells.is_null(row) { &[] } else { array.value(row) }),
        _ => write_len(out, number, |out| write_message(out, cells, row, nullable)),
    }
}

pub(super) fn write_bytes(out: &mut Vec<u8>, number: usize, bytes: &[u8]) {
    write_tag(out, number, Kind::Len);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number without its tag.
fn write_number(out: &mut Vec<u8>, cells: &Cells<'_>, row: usize) {
    let null = cells.is_null(row);
    match cells {
        Cells::Boolean(array) => out.push(u8::from(!null && array.value(row))),
        Cells::Integer(array) => write_varint(out, if null { 0 } else { i64::from(array.value(row)) as u64 }),
        Cells::BigInt(array) => write_varint(out, if null { 0 } else { array.value(row) as u64 }),
        Cells::Double(array) => out.extend_from_slice(&(if null { 0.0 } else { array.value(row) }).to_le_bytes()),
        _ => {}
    }
}

/// Appends what stands inside a message; nothing for NULL.
pub(super) fn write_message(out: &mut Vec<u8>, cells: &Cells<'_>, row: usize, nullable: Nullable) {
    if cells.is_null(row) {
        return;
    }
    let part = |out: &mut Vec<u8>, number, value: i64| {
        if value != 0 {
            write_tag(out, number, Kind::Varint);
            write_varint(out, value as u64);
        }
    };
    match cells {
        Cells::Decimal(array, scale) => {
            let bytes = array.value(row).to_be_bytes();
            // The shortest two's complement: a leading byte goes where the next one's sign bit says the same.
            let redundant = |pair: &&[u8]| {
                matches!(pair, [0, next, ..] if *next < 0x80) || matches!(pair, [0xff, next, ..] if *next >= 0x80)
            };
            let skip = bytes.windows(2).take_while(redundant).count();
            write_bytes(out, 1, &bytes[skip..]);
            part(out, 2, i64::from(array.precision()));
            part(out, 3, i64::from(*scale));
        }
        Cells::Date(array) => {
            let (year, month, day) = civil_date(i64::from(array.value(row)));
            part(out, 1, year);
            part(out, 2, month);
            part(out, 3, day);
        }
        Cells::Time(array) => {
            let ms = i64::from(array.value(row));
            part(out, 1, ms / 3_600_000);
            part(out, 2, ms / 60_000 % 60);
            part(out, 3, ms / 1000 % 60);
            part(out, 4, ms % 1000 * 1_000_000);
        }
        Cells::Timestamp(array) => {
            let ms = array.value(row);
            part(out, 1, ms.div_euclid(1000));
            part(out, 2, ms.rem_euclid(1000) * 1_000_000);
        }
        // STRUCTs, and arrays and maps that stand in an array.
        _ => write_single(out, cells, row, nullable),
    }
}

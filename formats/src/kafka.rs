//! The KAFKA format: one column as Kafka's own serializers write it. Numbers big-endian with an exact length, text as
//! UTF-8, bytes as they are.

use crate::arrays::Cells;
use crate::columns::{Column, Data};
use crate::json::scan::{Scan, fail};

pub fn decode(bytes: &[u8], column: &mut Column) -> Scan<()> {
    fn fixed<const N: usize>(bytes: &[u8], ty: &str) -> Scan<[u8; N]> {
        match bytes.try_into() {
            Ok(array) => Ok(array),
            Err(_) => fail(0, format!("Size of data received by {ty} is not {N}, it is {}", bytes.len())),
        }
    }
    match &mut column.data {
        Data::Integer(values) => values.push(i32::from_be_bytes(fixed(bytes, "INTEGER")?)),
        Data::BigInt(values) => values.push(i64::from_be_bytes(fixed(bytes, "BIGINT")?)),
        Data::Double(values) => values.push(f64::from_be_bytes(fixed(bytes, "DOUBLE")?)),
        Data::String(text) => {
            push_lossy(&mut text.data, bytes);
            text.end();
        }
        Data::Bytes(data) => {
            data.data.extend_from_slice(bytes);
            data.end();
        }
        _ => return fail(0, "the KAFKA format cannot hold this type"),
    }
    column.valid.push(true);
    Ok(())
}

/// Appends text; what is not UTF-8 becomes U+FFFD, as Java reads it.
pub fn push_lossy(out: &mut Vec<u8>, bytes: &[u8]) {
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        out.extend_from_slice(bytes);
    } else {
        out.extend_from_slice(String::from_utf8_lossy(bytes).as_bytes());
    }
}

/// Appends a cell that is not NULL.
pub fn write_cell(out: &mut Vec<u8>, cells: &Cells<'_>, row: usize) {
    match cells {
        Cells::Integer(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
        Cells::BigInt(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
        Cells::Double(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
        Cells::String(array) => out.extend_from_slice(array.value(row).as_bytes()),
        Cells::Bytes(array) => out.extend_from_slice(array.value(row)),
        // The constructor of the encoder lets no other type in.
        _ => {}
    }
}

//! Equality, order and hashing of single values of any type, nested ones included.
//!
//! Equality is Java's: NULL elements are equal, NaN equals NaN, 0.0 differs from -0.0, a MAP's order does not matter.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit,
    TimestampMillisecondType,
};

/// Whether two values of one type are equal; two NULLs are.
pub fn equal(a: &dyn Array, i: usize, b: &dyn Array, j: usize) -> bool {
    match (a.is_null(i), b.is_null(j)) {
        (true, true) => return true,
        (false, false) => {}
        _ => return false,
    }
    match a.data_type() {
        DataType::List(_) => {
            let (Some(a), Some(b)) = (a.as_list_opt::<i32>(), b.as_list_opt::<i32>()) else { return false };
            let (x, y) = (a.value_length(i) as usize, b.value_length(j) as usize);
            let (p, q) = (a.value_offsets()[i] as usize, b.value_offsets()[j] as usize);
            x == y && (0..x).all(|k| equal(a.values(), p + k, b.values(), q + k))
        }
        DataType::Struct(_) => {
            let (Some(a), Some(b)) = (a.as_struct_opt(), b.as_struct_opt()) else { return false };
            a.num_columns() == b.num_columns() && a.columns().iter().zip(b.columns()).all(|(x, y)| equal(x, i, y, j))
        }
        DataType::Null => true,
        _ => {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            encode(a, i, &mut x);
            encode(b, j, &mut y);
            x == y
        }
    }
}

/// Appends bytes that are equal exactly for equal values of one type.
pub fn encode(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    if array.is_null(row) {
        out.push(0);
        return;
    }
    out.push(1);
    macro_rules! fixed {
        ($t:ty) => {
            if let Some(a) = array.as_primitive_opt::<$t>() {
                out.extend_from_slice(&a.value(row).to_le_bytes());
            }
        };
    }
    match array.data_type() {
        DataType::Boolean => out.push(u8::from(array.as_boolean_opt().is_some_and(|a| a.value(row)))),
        DataType::Int32 => fixed!(Int32Type),
        DataType::Int64 => fixed!(Int64Type),
        DataType::Float64 => {
            if let Some(a) = array.as_primitive_opt::<Float64Type>() {
                let v = a.value(row);
                let bits = if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        DataType::Decimal128(..) => fixed!(Decimal128Type),
        DataType::Date32 => fixed!(Date32Type),
        DataType::Time32(TimeUnit::Millisecond) => fixed!(Time32MillisecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => fixed!(TimestampMillisecondType),
        DataType::Utf8 => {
            if let Some(a) = array.as_string_opt::<i32>() {
                bytes(a.value(row).as_bytes(), out);
            }
        }
        DataType::Binary => {
            if let Some(a) = array.as_binary_opt::<i32>() {
                bytes(a.value(row), out);
            }
        }
        DataType::List(_) => {
            if let Some(a) = array.as_list_opt::<i32>() {
                let (start, length) = (a.value_offsets()[row] as usize, a.value_length(row) as usize);
                out.extend_from_slice(&(length as u32).to_le_bytes());
                for k in start..start + length {
                    encode(a.values(), k, out);
                }
            }
        }
        DataType::Map(..) => {
            if let Some(a) = array.as_map_opt() {
                let (start, length) = (a.value_offsets()[row] as usize, a.value_length(row) as usize);
                let mut entries: Vec<Vec<u8>> = (start..start + length)
                    .map(|k| {
                        let mut entry = Vec::new();
                        encode(a.keys(), k, &mut entry);
                        encode(a.values(), k, &mut entry);
                        entry
                    })
                    .collect();
                entries.sort_unstable();
                out.extend_from_slice(&(length as u32).to_le_bytes());
                entries.iter().for_each(|e| out.extend_from_slice(e));
            }
        }
        DataType::Struct(_) => {
            if let Some(a) = array.as_struct_opt() {
                a.columns().iter().for_each(|c| encode(c, row, out));
            }
        }
        _ => {}
    }
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// Java's natural order of two non-NULL values of a primitive type (text by UTF-16 units); other types are equal.
pub fn compare(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> Ordering {
    macro_rules! ordered {
        ($t:ty) => {
            match (a.as_primitive_opt::<$t>(), b.as_primitive_opt::<$t>()) {
                (Some(a), Some(b)) => a.value(i).cmp(&b.value(j)),
                _ => Ordering::Equal,
            }
        };
    }
    match a.data_type() {
        DataType::Boolean => match (a.as_boolean_opt(), b.as_boolean_opt()) {
            (Some(a), Some(b)) => a.value(i).cmp(&b.value(j)),
            _ => Ordering::Equal,
        },
        DataType::Int32 => ordered!(Int32Type),
        DataType::Int64 => ordered!(Int64Type),
        DataType::Float64 => match (a.as_primitive_opt::<Float64Type>(), b.as_primitive_opt::<Float64Type>()) {
            (Some(a), Some(b)) => a.value(i).total_cmp(&b.value(j)),
            _ => Ordering::Equal,
        },
        DataType::Decimal128(..) => ordered!(Decimal128Type),
        DataType::Date32 => ordered!(Date32Type),
        DataType::Time32(TimeUnit::Millisecond) => ordered!(Time32MillisecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => ordered!(TimestampMillisecondType),
        DataType::Utf8 => match (a.as_string_opt::<i32>(), b.as_string_opt::<i32>()) {
            (Some(a), Some(b)) => compare_text(a.value(i), b.value(j)),
            _ => Ordering::Equal,
        },
        DataType::Binary => match (a.as_binary_opt::<i32>(), b.as_binary_opt::<i32>()) {
            (Some(a), Some(b)) => a.value(i).cmp(b.value(j)),
            _ => Ordering::Equal,
        },
        _ => Ordering::Equal,
    }
}

/// Order by UTF-16 units, which differs from that of UTF-8 bytes only beyond the basic plane.
#[inline]
pub fn compare_text(a: &str, b: &str) -> Ordering {
    let differs = a.as_bytes().iter().zip(b.as_bytes()).position(|(x, y)| x != y);
    let Some(at) = differs else { return a.len().cmp(&b.len()) };
    // Only where one side is a surrogate pair (four bytes) can the orders differ.
    if a.as_bytes()[at] >= 0xee || b.as_bytes()[at] >= 0xee {
        return a.encode_utf16().cmp(b.encode_utf16());
    }
    a.as_bytes()[at].cmp(&b.as_bytes()[at])
}

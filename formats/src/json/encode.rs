//! Columns into JSON bytes.
//!
//! All columns are written, NULLs too, in the order of the schema; numbers in Java's shapes, DECIMAL plain with its
//! scale, times as numbers, BYTES as base64, text escaped as Jackson does.

use crate::arrays::Cells;
use crate::number::{write_decimal, write_double};

/// What a byte becomes inside a string: 0 itself, `u` a hexadecimal escape, else a backslash and this byte.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[8] = b'b';
    table[9] = b't';
    table[10] = b'n';
    table[12] = b'f';
    table[13] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends text as a JSON string in quotes, escaped as Jackson does it: only quotes, backslashes and control characters.
#[inline]
pub fn write_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut plain = 0;
    for (at, &b) in text.iter().enumerate() {
        let escape = ESCAPES[b as usize];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&text[plain..]);
    out.push(b'"');
}

#[inline]
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `{"name":` or `,"name":`, as the member stands first or later.
pub(crate) fn member_prefix(first: bool, name: &str) -> Box<[u8]> {
    let mut out = vec![if first { b'{' } else { b',' }];
    write_json_string(&mut out, name.as_bytes());
    out.push(b':');
    out.into()
}

/// Appends one cell.
#[inline]
pub(crate) fn write_cell(out: &mut Vec<u8>, cells: &Cells<'_>, row: usize) {
    if cells.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match cells {
        Cells::String(array) => write_json_string(out, array.value(row).as_bytes()),
        Cells::BigInt(array) => write_i64(out, array.value(row)),
        Cells::Integer(array) => write_i64(out, i64::from(array.value(row))),
        Cells::Double(array) => {
            let value = array.value(row);
            if value.is_finite() {
                write_double(out, value);
            } else {
                out.push(b'"');
                write_double(out, value);
                out.push(b'"');
            }
        }
        Cells::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
        Cells::Decimal(array, scale) => write_decimal(out, array.value(row), *scale),
        Cells::Bytes(array) => {
            out.push(b'"');
            crate::encode_base64(out, array.value(row));
            out.push(b'"');
        }
        Cells::Date(array) => write_i64(out, i64::from(array.value(row))),
        Cells::Time(array) => write_i64(out, i64::from(array.value(row))),
        Cells::Timestamp(array) => write_i64(out, array.value(row)),
        Cells::List(offsets, _, items) => {
            out.push(b'[');
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            for i in start..end {
                if i > start {
                    out.push(b',');
                }
                write_cell(out, items, i);
            }
            out.push(b']');
        }
        Cells::Map(offsets, _, keys, values) => {
            out.push(b'{');
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            for i in start..end {
                if i > start {
                    out.push(b',');
                }
                match &**keys {
                    Cells::String(text) => write_json_string(out, text.value(i).as_bytes()),
                    other => {
                        let mut text = Vec::new();
                        crate::text::write_cell(&mut text, other, i);
                        write_json_string(out, &text);
                    }
                }
                out.push(b':');
                write_cell(out, values, i);
            }
            out.push(b'}');
        }
        Cells::Struct(_, fields) => {
            if fields.is_empty() {
                out.push(b'{');
            }
            for field in fields {
                out.extend_from_slice(&field.prefix);
                write_cell(out, &field.cells, row);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_jackson_does() {
        let mut out = Vec::new();
        write_json_string(&mut out, "a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}é\u{2028}".as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001F\u{7f}é\u{2028}\"");
    }
}

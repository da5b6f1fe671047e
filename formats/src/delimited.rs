//! The DELIMITED format: one line of comma-separated values, read and quoted as Apache Commons CSV does by default.
//!
//! Reading takes the first line that is not empty. A field that begins with a quote ends at the next single quote; two
//! quotes stand for one. An empty field is NULL, quoted or not. Writing quotes only where it must; a first field that
//! does not begin with a letter or digit is quoted too, a negative number for instance.

use crate::arrays::Cells;
use crate::columns::{Column, Data};
use crate::json::encode::write_i64;
use crate::json::scan::{Scan, fail};
use crate::kafka::push_lossy;
use crate::number::{decimal_error, parse_decimal, parse_double, write_decimal, write_double};

/// For every field of the line the column it goes to, if any.
pub fn decode(
    bytes: &[u8],
    delimiter: u8,
    targets: &[Option<usize>],
    columns: &mut [Column],
    unquoted: &mut Vec<u8>,
) -> Scan<()> {
    let mut pos = bytes.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
    if pos == bytes.len() {
        return fail(0, "No fields in record");
    }
    let mut count = 0;
    loop {
        let (field, next) = field(bytes, pos, delimiter, unquoted)?;
        let content = match field {
            Some(range) => bytes.get(range).unwrap_or_default(),
            None => unquoted.as_slice(),
        };
        if let Some(Some(target)) = targets.get(count)
            && let Some(column) = columns.get_mut(*target)
        {
            cell(content, column, pos)?;
        }
        count += 1;
        match bytes.get(next) {
            Some(&b) if b == delimiter => pos = next + 1,
            _ => break,
        }
    }
    if count != targets.len() {
        return fail(bytes.len(), format!("Unexpected field count, csvFields:{count} schemaFields:{}", targets.len()));
    }
    Ok(())
}

/// A field that begins at `pos`: where it lies, or `None` where its text is in `unquoted`; and where it ends.
fn field(
    bytes: &[u8],
    pos: usize,
    delimiter: u8,
    unquoted: &mut Vec<u8>,
) -> Scan<(Option<std::ops::Range<usize>>, usize)> {
    let rest = bytes.get(pos..).unwrap_or_default();
    if rest.first() != Some(&b'"') {
        let len = rest.iter().position(|&b| b == delimiter || b == b'\n' || b == b'\r').unwrap_or(rest.len());
        return Ok((Some(pos..pos + len), pos + len));
    }
    unquoted.clear();
    let mut doubled = false;
    let (start, mut at) = (pos + 1, pos + 1);
    let end = loop {
        let Some(quote) = memchr::memchr(b'"', bytes.get(at..).unwrap_or_default()) else {
            return fail(pos, "a quoted field that does not end");
        };
        unquoted.extend_from_slice(&bytes[at..at + quote]);
        at += quote + 1;
        if bytes.get(at) == Some(&b'"') {
            unquoted.push(b'"');
            doubled = true;
            at += 1;
        } else {
            break at - 1;
        }
    };
    // White space may stand between the closing quote and what ends the field.
    while bytes.get(at).is_some_and(|&b| b != delimiter && (b == b' ' || b == b'\t')) {
        at += 1;
    }
    match bytes.get(at) {
        Some(&b) if b != delimiter && b != b'\n' && b != b'\r' => {
            fail(at, "invalid char between encapsulated token and delimiter")
        }
        _ => Ok(((!doubled).then_some(start..end), at)),
    }
}

fn cell(content: &[u8], column: &mut Column, at: usize) -> Scan<()> {
    if content.is_empty() {
        column.push_null();
        return Ok(());
    }
    fn parse<T: std::str::FromStr>(content: &[u8], at: usize, what: &str) -> Scan<T> {
        match std::str::from_utf8(content).ok().and_then(|text| text.parse().ok()) {
            Some(value) => Ok(value),
            None => fail(at, format!("expected {what}, found {:?}", shown(content))),
        }
    }
    match &mut column.data {
        Data::Boolean(values) => values.append(content.eq_ignore_ascii_case(b"true")),
        Data::Integer(values) => values.push(parse(content, at, "an INTEGER")?),
        Data::Date(values) => values.push(parse(content, at, "a DATE's days")?),
        Data::BigInt(values) => values.push(parse(content, at, "a BIGINT")?),
        Data::Timestamp(values) => values.push(parse(content, at, "a TIMESTAMP's milliseconds")?),
        Data::Time(values) => match parse(content, at, "a TIME's milliseconds")? {
            ms @ 0..86_400_000i32 => values.push(ms),
            _ => {
                return fail(at, "Time values must use number of milliseconds greater than 0 and less than 86400000.");
            }
        },
        Data::Double(values) => match std::str::from_utf8(content).ok().and_then(parse_double) {
            Some(value) => values.push(value),
            None => return fail(at, format!("expected a DOUBLE, found {:?}", shown(content))),
        },
        Data::Decimal { values, precision, scale } => match parse_decimal(content, *precision, *scale) {
            Ok(value) => values.push(value),
            Err(error) => return fail(at, decimal_error(error, &shown(content), *precision, *scale)),
        },
        Data::String(text) => {
            push_lossy(&mut text.data, content);
            text.end();
        }
        Data::Bytes(data) => {
            if !crate::decode_base64(&mut data.data, content) {
                return fail(at, "expected base64 text");
            }
            data.end();
        }
        _ => return fail(at, "the DELIMITED format cannot hold this type"),
    }
    column.valid.push(true);
    Ok(())
}

fn shown(content: &[u8]) -> String {
    String::from_utf8_lossy(content).chars().take(64).collect()
}

/// Appends a line without its end. A NULL is an empty field.
pub fn write_row(out: &mut Vec<u8>, columns: &[Cells<'_>], row: usize, delimiter: u8) {
    for (i, cells) in columns.iter().enumerate() {
        if i > 0 {
            out.push(delimiter);
        }
        if cells.is_null(row) {
            continue;
        }
        let start = out.len();
        match cells {
            Cells::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Cells::Integer(array) => write_i64(out, i64::from(array.value(row))),
            Cells::BigInt(array) => write_i64(out, array.value(row)),
            Cells::Double(array) => write_double(out, array.value(row)),
            Cells::Decimal(array, scale) => write_decimal(out, array.value(row), *scale),
            Cells::String(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Cells::Bytes(array) => crate::encode_base64(out, array.value(row)),
            Cells::Date(array) => write_i64(out, i64::from(array.value(row))),
            Cells::Time(array) => write_i64(out, i64::from(array.value(row))),
            Cells::Timestamp(array) => write_i64(out, array.value(row)),
            // The constructor of the encoder lets no other type in.
            Cells::List(..) | Cells::Map(..) | Cells::Struct(..) => {}
        }
        if must_quote(&out[start..], i == 0, delimiter) {
            quote(out, start);
        }
    }
}

fn must_quote(field: &[u8], first: bool, delimiter: u8) -> bool {
    match (field.first(), field.last()) {
        (Some(&begin), Some(&end)) => {
            (first && !begin.is_ascii_alphanumeric())
                || begin <= b'#'
                || end <= b' '
                || field.iter().any(|&b| b == delimiter || b == b'"' || b == b'\n' || b == b'\r')
        }
        // The only field of a line would leave an empty line.
        _ => first,
    }
}

fn quote(out: &mut Vec<u8>, start: usize) {
    if !out[start..].contains(&b'"') {
        out.insert(start, b'"');
        return out.push(b'"');
    }
    let field = out.split_off(start);
    out.push(b'"');
    for part in field.split_inclusive(|&b| b == b'"') {
        out.extend_from_slice(part);
        if part.last() == Some(&b'"') {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

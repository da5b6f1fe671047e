//! JSON bytes into columns, directed by their types, in one pass.
//!
//! Coercions are ksqlDB's: numbers and numeric text for every numeric type, anything for STRING, only booleans for
//! BOOLEAN, exact DECIMALs, base64 for BYTES. Of members with the same name the last wins, and a column's exact name
//! wins over one that only matches in upper case. Whatever follows the value is ignored, as Jackson does.

use super::encode::write_json_string;
use super::members::{Members, Target};
use super::scan::{Cursor, Scan, fail, unescape};
use super::tree::{Comments, Json};
use crate::columns::{Column, Data};
use crate::number::{decimal_error, parse_decimal, parse_double, wrapping_i64, write_literal_as_java};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// A record of named columns; `Ok(true)` for JSON `null`, when nothing is appended.
#[inline(always)]
pub fn record(bytes: &[u8], members: &mut Members, columns: &mut [Column], row: usize) -> Scan<bool> {
    let mut cursor = start(bytes)?;
    match cursor.next() {
        Some(b'{') => object(&mut cursor, members, columns, row).map(|()| false),
        Some(b'n') => cursor.word(b"null").map(|()| true),
        _ => cursor.unexpected("a JSON object"),
    }
}

/// A record that is the value of its one column; with no column wanted only its syntax is checked.
pub fn single(bytes: &[u8], column: Option<&mut Column>) -> Scan<()> {
    let mut cursor = start(bytes)?;
    match column {
        Some(column) => value(&mut cursor, column),
        None => cursor.skip_value().map(|_| ()),
    }
}

#[inline(always)]
fn start(bytes: &[u8]) -> Scan<Cursor<'_>> {
    if simdutf8::basic::from_utf8(bytes).is_err() {
        let at = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
        return fail(at, "the text is not UTF-8");
    }
    let mut cursor = Cursor::new(bytes);
    if bytes.starts_with(b"\xef\xbb\xbf") {
        cursor.pos = 3;
    }
    Ok(cursor)
}

/// The members of an object into columns that have `base` rows before and one more after.
#[inline(always)]
fn object(cursor: &mut Cursor<'_>, members: &mut Members, columns: &mut [Column], base: usize) -> Scan<()> {
    cursor.pos += 1;
    let (mut place, mut filled) = (0, 0);
    if cursor.next() == Some(b'}') {
        cursor.pos += 1;
    } else {
        loop {
            let target = members.take(cursor, &mut place)?;
            if cursor.peek() == Some(b':') {
                cursor.pos += 1;
            } else {
                cursor.expect(b':', "':'")?;
            }
            match target {
                Target::Column(index, exact) if begin(members, columns, index as usize, exact, base, &mut filled) => {
                    let index = index as usize;
                    if let Err(mut failure) = value(cursor, &mut columns[index]) {
                        failure.path.push(members.column_name(index).to_owned());
                        return Err(failure);
                    }
                }
                _ => {
                    cursor.skip_value()?;
                }
            }
            match cursor.next() {
                Some(b',') => {
                    cursor.pos += 1;
                    cursor.next();
                }
                Some(b'}') => {
                    cursor.pos += 1;
                    break;
                }
                _ => return cursor.unexpected("',' or '}'"),
            }
        }
    }
    if filled < columns.len() {
        for column in columns.iter_mut().filter(|c| c.len() == base) {
            column.push_null();
        }
    }
    Ok(())
}

/// Makes a column ready for its value in this object; false where a value under its exact name is there already.
#[inline(always)]
fn begin(
    members: &mut Members,
    columns: &mut [Column],
    index: usize,
    exact: bool,
    base: usize,
    filled: &mut usize,
) -> bool {
    if columns[index].len() == base {
        *filled += 1;
    } else if members.exact[index] && !exact {
        return false;
    } else {
        columns[index].truncate(base);
    }
    members.exact[index] = exact;
    true
}

/// A value after white space into its column.
#[inline(always)]
fn value(cursor: &mut Cursor<'_>, column: &mut Column) -> Scan<()> {
    let Some(next) = cursor.next() else { return cursor.unexpected("a JSON value") };
    if next == b'n' {
        cursor.word(b"null")?;
        column.push_null();
        return Ok(());
    }
    match &mut column.data {
        Data::String(text) => {
            if next == b'"' {
                let (raw, escaped) = cursor.raw_string()?;
                if escaped {
                    unescape(&mut text.data, raw);
                } else {
                    text.data.extend_from_slice(raw);
                }
            } else {
                as_text(cursor, &mut text.data, next)?;
            }
            text.end();
        }
        Data::BigInt(values) | Data::Timestamp(values) => values.push(long(cursor, next)?),
        Data::Integer(values) => values.push(integer(cursor, next)?),
        Data::Double(values) => values.push(double(cursor, next)?),
        Data::Boolean(values) => match next {
            b't' => {
                cursor.word(b"true")?;
                values.append(true);
            }
            b'f' => {
                cursor.word(b"false")?;
                values.append(false);
            }
            _ => return cursor.unexpected("a BOOLEAN"),
        },
        _ => return rare(cursor, column, next),
    }
    column.valid.push(true);
    Ok(())
}

/// The rest of [`value`]: types that are larger or seldom.
#[inline(never)]
fn rare(cursor: &mut Cursor<'_>, column: &mut Column, next: u8) -> Scan<()> {
    let at = cursor.pos;
    match &mut column.data {
        Data::Date(values) => match i32::try_from(long(cursor, next)?) {
            Ok(days) => values.push(days),
            Err(_) => return fail(at, "a DATE's days do not fit 32 bits"),
        },
        Data::Time(values) => match long(cursor, next)? {
            ms @ 0..DAY_MS => values.push(ms as i32),
            _ => {
                return fail(at, "Time values must use number of milliseconds greater than 0 and less than 86400000.");
            }
        },
        Data::Decimal { values, precision, scale } => values.push(decimal(cursor, next, *precision, *scale)?),
        Data::Bytes(bytes) => {
            base64_text(cursor, next, &mut bytes.data)?;
            bytes.end();
        }
        Data::List { offsets, items } => {
            if next != b'[' {
                return cursor.unexpected("an array");
            }
            cursor.pos += 1;
            if cursor.next() == Some(b']') {
                cursor.pos += 1;
            } else {
                loop {
                    value(cursor, items)?;
                    match cursor.next() {
                        Some(b',') => cursor.pos += 1,
                        Some(b']') => break cursor.pos += 1,
                        _ => return cursor.unexpected("',' or ']'"),
                    }
                }
            }
            offsets.push(items.len() as i32);
        }
        Data::Map { .. } => return map(cursor, column, next),
        Data::Struct { members, fields, .. } => {
            if next != b'{' {
                return cursor.unexpected("an object");
            }
            let base = column.valid.len();
            object(cursor, members, fields, base)?;
        }
        _ => return cursor.unexpected("a value"),
    }
    column.valid.push(true);
    Ok(())
}

/// Where keys are few, every key is compared with all before it.
const KEYS_COMPARED_MAX: usize = 16;

#[inline(never)]
fn map(cursor: &mut Cursor<'_>, column: &mut Column, next: u8) -> Scan<()> {
    let base = column.len();
    let Data::Map { offsets, keys, values } = &mut column.data else { return cursor.unexpected("a MAP") };
    if next != b'{' {
        return cursor.unexpected("an object");
    }
    let (start, first) = (cursor.pos, keys.len());
    cursor.pos += 1;
    if cursor.next() == Some(b'}') {
        cursor.pos += 1;
    } else {
        loop {
            if cursor.next() != Some(b'"') {
                return cursor.unexpected("a member name");
            }
            let (raw, escaped) = cursor.raw_string()?;
            if escaped {
                unescape(&mut keys.data, raw);
            } else {
                keys.data.extend_from_slice(raw);
            }
            keys.end();
            cursor.expect(b':', "':'")?;
            value(cursor, values)?;
            match cursor.next() {
                Some(b',') => cursor.pos += 1,
                Some(b'}') => break cursor.pos += 1,
                _ => return cursor.unexpected("',' or '}'"),
            }
        }
    }
    let count = keys.len() - first;
    let repeated = if count <= KEYS_COMPARED_MAX {
        (first + 1..keys.len()).any(|i| (first..i).any(|j| keys.get(i) == keys.get(j)))
    } else {
        let mut seen = std::collections::HashSet::with_capacity(count);
        (first..keys.len()).any(|i| !seen.insert(keys.get(i)))
    };
    if repeated {
        // Seldom: read again from a text in which every key stands once, with its last value.
        let text = std::str::from_utf8(&cursor.bytes[start..cursor.pos]).unwrap_or_default();
        let once = match Json::parse(text, Comments::Refused) {
            Ok(json) => json.to_string(),
            Err(error) => return fail(start, error.message()),
        };
        column.truncate(base);
        return map(&mut Cursor::new(once.as_bytes()), column, b'{');
    }
    offsets.push(keys.len() as i32);
    column.valid.push(true);
    Ok(())
}

/// The low 64 bits of any number; text must be a whole number that fits.
#[inline(always)]
fn long(cursor: &mut Cursor<'_>, next: u8) -> Scan<i64> {
    let negative = next == b'-';
    let rest = cursor.bytes.get(cursor.pos + usize::from(negative)..).unwrap_or_default();
    let (mut value, mut count) = (0u64, 0);
    for &b in rest {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    let simple = matches!(count, 1..=18)
        && (count == 1 || rest[0] != b'0')
        && !matches!(rest.get(count), Some(b'.' | b'e' | b'E'));
    if simple {
        cursor.pos += count + usize::from(negative);
        return Ok(if negative { -(value as i64) } else { value as i64 });
    }
    long_slow(cursor, next)
}

#[inline(never)]
fn long_slow(cursor: &mut Cursor<'_>, next: u8) -> Scan<i64> {
    let at = cursor.pos;
    match next {
        b'-' | b'0'..=b'9' => {
            let number = cursor.number()?;
            match wrapping_i64(number.text) {
                Some(value) => Ok(value),
                None => fail(at, "a number's exponent is too large"),
            }
        }
        b'"' => match text(cursor)?.parse() {
            Ok(value) => Ok(value),
            Err(_) => fail(at, "expected a whole number of 64 bits, found other text"),
        },
        _ => cursor.unexpected("a number"),
    }
}

#[inline(always)]
fn integer(cursor: &mut Cursor<'_>, next: u8) -> Scan<i32> {
    if next != b'"' {
        return long(cursor, next).map(|value| value as i32);
    }
    let at = cursor.pos;
    match text(cursor)?.parse() {
        Ok(value) => Ok(value),
        Err(_) => fail(at, "expected a whole number of 32 bits, found other text"),
    }
}

/// A string's text; the cursor is on its opening quote.
fn text<'a>(cursor: &mut Cursor<'a>) -> Scan<std::borrow::Cow<'a, str>> {
    let (raw, escaped) = cursor.raw_string()?;
    if !escaped {
        return Ok(String::from_utf8_lossy(raw));
    }
    let mut plain = Vec::new();
    unescape(&mut plain, raw);
    Ok(crate::number::into_string(plain).into())
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

#[inline(always)]
fn double(cursor: &mut Cursor<'_>, next: u8) -> Scan<f64> {
    let at = cursor.pos;
    match next {
        b'-' | b'0'..=b'9' => {
            let number = cursor.number()?;
            // Up to 15 digits and a power of ten that a DOUBLE holds exactly: one division rounds right.
            if number.text.len() <= 16 {
                let (mut mantissa, mut fraction, mut simple) = (0u64, 0usize, true);
                let mut after_point = false;
                for &b in number.text {
                    match b {
                        b'0'..=b'9' => {
                            mantissa = mantissa * 10 + u64::from(b - b'0');
                            fraction += usize::from(after_point);
                        }
                        b'.' => after_point = true,
                        b'-' => {}
                        _ => simple = false,
                    }
                }
                if simple && mantissa < 1 << 53 {
                    let magnitude = mantissa as f64 / POWERS[fraction.min(22)];
                    return Ok(if next == b'-' { -magnitude } else { magnitude });
                }
            }
            match fast_float2::parse(number.text) {
                Ok(value) => Ok(value),
                Err(_) => fail(at, "expected a number"),
            }
        }
        b'"' => match parse_double(&text(cursor)?) {
            Some(value) => Ok(value),
            None => fail(at, "expected a number, found other text"),
        },
        _ => cursor.unexpected("a number"),
    }
}

fn decimal(cursor: &mut Cursor<'_>, next: u8, precision: u8, scale: u8) -> Scan<i128> {
    let at = cursor.pos;
    let parse = |text: &[u8]| {
        parse_decimal(text, precision, scale).or_else(|error| {
            let shown: String = String::from_utf8_lossy(text).chars().take(64).collect();
            fail(at, decimal_error(error, &shown, precision, scale))
        })
    };
    match next {
        b'-' | b'0'..=b'9' => parse(cursor.number()?.text),
        b'"' => parse(text(cursor)?.as_bytes()),
        _ => cursor.unexpected("a number"),
    }
}

fn base64_text(cursor: &mut Cursor<'_>, next: u8, out: &mut Vec<u8>) -> Scan<()> {
    let at = cursor.pos;
    if next != b'"' {
        return cursor.unexpected("base64 text");
    }
    let text = text(cursor)?;
    match crate::decode_base64(out, text.as_bytes()) {
        true => Ok(()),
        false => fail(at, "expected base64 text"),
    }
}

/// Anything but a string as text: objects as compact JSON, arrays as `[a, b]`, numbers and words as written.
#[inline(never)]
fn as_text(cursor: &mut Cursor<'_>, out: &mut Vec<u8>, next: u8) -> Scan<()> {
    match next {
        b'{' | b'[' => {
            let range = cursor.skip_value()?;
            let bytes = &cursor.bytes[range.clone()];
            let start = out.len();
            let mut copy = Copy { cursor: Cursor::new(bytes), keys: Vec::new() };
            if !copy.element(out) {
                // A key stands twice: only the tree knows which value counts.
                out.truncate(start);
                match Json::parse(std::str::from_utf8(bytes).unwrap_or_default(), Comments::Refused) {
                    Ok(json) => write_element(out, &json),
                    Err(error) => return fail(range.start, error.message()),
                }
            }
        }
        b'-' | b'0'..=b'9' => write_literal_as_java(out, cursor.number()?.text),
        b't' => {
            cursor.word(b"true")?;
            out.extend_from_slice(b"true");
        }
        b'f' => {
            cursor.word(b"false")?;
            out.extend_from_slice(b"false");
        }
        _ => return cursor.unexpected("a JSON value"),
    }
    Ok(())
}

/// Copies a value whose syntax has been checked. Every function returns false where it has to give up.
struct Copy<'a> {
    cursor: Cursor<'a>,
    /// The names of the objects that are open, one object after the other.
    keys: Vec<&'a [u8]>,
}

impl Copy<'_> {
    /// A value as an element of an array shown as text, or as the whole.
    fn element(&mut self, out: &mut Vec<u8>) -> bool {
        match self.cursor.next() {
            Some(b'[') => self.array(out, b", ", Self::element),
            Some(b'"') => match self.cursor.raw_string() {
                Ok((raw, true)) => {
                    unescape(out, raw);
                    true
                }
                Ok((raw, false)) => {
                    out.extend_from_slice(raw);
                    true
                }
                Err(_) => false,
            },
            _ => self.json(out),
        }
    }

    /// A value as compact JSON.
    fn json(&mut self, out: &mut Vec<u8>) -> bool {
        match self.cursor.next() {
            Some(b'{') => self.object(out),
            Some(b'[') => self.array(out, b",", Self::json),
            Some(b'"') => match self.cursor.raw_string() {
                Ok((raw, escaped)) => {
                    write_raw(out, raw, escaped);
                    true
                }
                Err(_) => false,
            },
            Some(b'-' | b'0'..=b'9') => match self.cursor.number() {
                Ok(number) => {
                    write_literal_as_java(out, number.text);
                    true
                }
                Err(_) => false,
            },
            _ => match self.cursor.skip_value() {
                Ok(range) => {
                    out.extend_from_slice(&self.cursor.bytes[range]);
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn array(&mut self, out: &mut Vec<u8>, comma: &[u8], item: fn(&mut Self, &mut Vec<u8>) -> bool) -> bool {
        self.cursor.pos += 1;
        out.push(b'[');
        if self.cursor.next() != Some(b']') {
            loop {
                if !item(self, out) {
                    return false;
                }
                if self.cursor.next() != Some(b',') {
                    break;
                }
                self.cursor.pos += 1;
                out.extend_from_slice(comma);
            }
        }
        self.cursor.pos += 1;
        out.push(b']');
        true
    }

    fn object(&mut self, out: &mut Vec<u8>) -> bool {
        self.cursor.pos += 1;
        out.push(b'{');
        let first = self.keys.len();
        if self.cursor.next() != Some(b'}') {
            loop {
                self.cursor.next();
                let Ok((raw, escaped)) = self.cursor.raw_string() else { return false };
                if escaped || self.keys.len() - first > 64 || self.keys[first..].contains(&raw) {
                    return false;
                }
                self.keys.push(raw);
                write_raw(out, raw, false);
                if self.cursor.expect(b':', "':'").is_err() {
                    return false;
                }
                out.push(b':');
                if !self.json(out) {
                    return false;
                }
                if self.cursor.next() != Some(b',') {
                    break;
                }
                self.cursor.pos += 1;
                out.push(b',');
            }
        }
        self.keys.truncate(first);
        self.cursor.pos += 1;
        out.push(b'}');
        true
    }
}

fn write_raw(out: &mut Vec<u8>, raw: &[u8], escaped: bool) {
    if escaped {
        let mut plain = Vec::new();
        unescape(&mut plain, raw);
        write_json_string(out, &plain);
    } else {
        out.push(b'"');
        out.extend_from_slice(raw);
        out.push(b'"');
    }
}

/// [`Copy::element`] from a tree.
fn write_element(out: &mut Vec<u8>, json: &Json) {
    match json {
        Json::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                write_element(out, item);
            }
            out.push(b']');
        }
        Json::String(text) => out.extend_from_slice(text.as_bytes()),
        other => other.write_as_java(out),
    }
}

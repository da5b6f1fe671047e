//! STRING functions (masking: `mask`; encodings and BYTES: `bytes`; patterns: `regex`).
//!
//! Lengths and positions count UTF-16 units, as Java does; a position inside a surrogate pair takes the whole pair.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Builder, StringArray, StringBuilder};
use millpond_sql::functions::ResultType;
use millpond_types::{Error, Result, SqlType};

use super::typed::{
    Bind, BindVolatile, Builtin, Byt, Def, Int, Kind as _, List, Opt, Read as _, Str, VALUE_BYTES_MAX, exact, param,
    same, scalar,
};
use super::{Args, CallSite, Failures, Returned, ScalarImpl};
use crate::expr::EvalContext;

const CATEGORY: &str = "STRING";
/// Lengths that LPAD and RPAD may ask for.
const LENGTH_MAX: usize = VALUE_BYTES_MAX;

pub fn register(b: &mut Builtin) {
    b.add("UCASE", CATEGORY, "the text in upper case", vec![scalar!((text: Str) -> Str => text.to_uppercase())]);
    b.add("LCASE", CATEGORY, "the text in lower case", vec![scalar!((text: Str) -> Str => text.to_lowercase())]);
    b.add(
        "TRIM",
        CATEGORY,
        "the text without blanks at its ends",
        vec![scalar!((text: Str) -> Str => text.trim_matches(|c: char| c <= ' '))],
    );
    b.add(
        "INITCAP",
        CATEGORY,
        "each word with a capital and the rest in lower case",
        vec![scalar!((text: Str) -> Str => init_cap(text))],
    );
    b.add(
        "LEN",
        CATEGORY,
        "the length of a text or of bytes",
        vec![scalar!((text: Str) -> Int => utf16_len(text)), scalar!((bytes: Byt) -> Int => bytes.len() as i32)],
    );
    b.add(
        "REPLACE",
        CATEGORY,
        "the text with every occurrence of one text replaced by another",
        vec![scalar!((text: Str, old: Str, new: Str) -> Str => replaced(text, old, new))],
    );
    b.add(
        "SUBSTRING",
        CATEGORY,
        "a part of a text or of bytes",
        vec![
            Def::scalar(
                vec![param("text", Str::param()), param("pos", Int::param())],
                of(SqlType::String),
                substring(),
            ),
            Def::scalar(
                vec![param("text", Str::param()), param("pos", Int::param()), param("length", Int::param())],
                of(SqlType::String),
                substring(),
            ),
            scalar!((bytes: Byt, pos: Int) -> Byt => sub_bytes(bytes, pos, None)),
            scalar!((bytes: Byt, pos: Int, length: Int) -> Byt => sub_bytes(bytes, pos, Some(length))),
        ],
    );
    b.add(
        "INSTR",
        CATEGORY,
        "the 1-based position of a text within another, 0 if there is none",
        vec![
            scalar!((text: Opt<Str>, part: Opt<Str>) -> Int => instr(text, part, 1, 1)),
            scalar!((text: Opt<Str>, part: Opt<Str>, pos: Int) -> Int => instr(text, part, pos, 1)),
            scalar!((text: Opt<Str>, part: Opt<Str>, pos: Int, occurrence: Int) -> Int =>
                instr(text, part, pos, occurrence)),
        ],
    );
    b.add(
        "LPAD",
        CATEGORY,
        "filled from the left, or cut, to a length",
        vec![
            scalar!((text: Str, length: Int, padding: Str) -> Str => pad(text, length, padding, true)),
            scalar!((bytes: Byt, length: Int, padding: Byt) -> Byt => pad_bytes(bytes, length, padding, true)),
        ],
    );
    b.add(
        "RPAD",
        CATEGORY,
        "filled from the right, or cut, to a length",
        vec![
            scalar!((text: Str, length: Int, padding: Str) -> Str => pad(text, length, padding, false)),
            scalar!((bytes: Byt, length: Int, padding: Byt) -> Byt => pad_bytes(bytes, length, padding, false)),
        ],
    );
    b.add(
        "SPLIT",
        CATEGORY,
        "the parts between delimiters",
        vec![
            scalar!((text: Str, delimiter: Str) -> List<Str> => split(text, delimiter)),
            scalar!((bytes: Byt, delimiter: Byt) -> List<Byt> => split_bytes(bytes, delimiter)),
        ],
    );
    b.add(
        "SPLIT_TO_MAP",
        CATEGORY,
        "entries and their keys and values, split by two delimiters",
        vec![Def::scalar(
            vec![
                param("text", Str::param()),
                param("entryDelimiter", Str::param()),
                param("kvDelimiter", Str::param()),
            ],
            of(SqlType::map(SqlType::String, SqlType::String)),
            same(split_to_map),
        )],
    );
    b.add(
        "CHR",
        CATEGORY,
        "the character of a code point, as a number or as \\uXXXX",
        vec![
            scalar!((code: Int) -> Str => u32::try_from(code).ok().and_then(char::from_u32).map(String::from)),
            scalar!((code: Str) -> Str => unescape(code)),
        ],
    );
    b.add(
        "CONCAT",
        CATEGORY,
        "texts or bytes after each other, NULLs left out",
        vec![
            Def::scalar(vec![param("text", Str::param())], of(SqlType::String), same(concat_text)).variadic(0),
            Def::scalar(vec![param("bytes", Byt::param())], of(SqlType::Bytes), same(concat_bytes)).variadic(0),
        ],
    );
    b.add(
        "CONCAT_WS",
        CATEGORY,
        "texts or bytes with a separator between them, NULLs left out",
        vec![
            Def::scalar(
                vec![param("separator", Str::param()), param("text", Str::param())],
                of(SqlType::String),
                same(concat_ws_text),
            )
            .variadic(1),
            Def::scalar(
                vec![param("separator", Byt::param()), param("bytes", Byt::param())],
                of(SqlType::Bytes),
                same(concat_ws_bytes),
            )
            .variadic(1),
        ],
    );
    b.add(
        "ELT",
        CATEGORY,
        "the text at a 1-based position among the arguments",
        vec![
            Def::scalar(vec![param("pos", Int::param()), param("text", Str::param())], of(SqlType::String), same(elt))
                .variadic(1),
        ],
    );
    b.add(
        "FIELD",
        CATEGORY,
        "the 1-based position of a text among the others, 0 if there is none",
        vec![
            Def::scalar(
                vec![param("text", Str::param()), param("others", Str::param())],
                of(SqlType::Integer),
                same(field),
            )
            .variadic(1),
        ],
    );
    b.add(
        "UUID",
        CATEGORY,
        "a random UUID, or the one of 16 bytes",
        vec![
            Def::scalar(
                vec![],
                of(SqlType::String),
                BindVolatile(|_: &CallSite<'_>| {
                    let code: Arc<dyn ScalarImpl> = Arc::new(random_uuid);
                    Ok(code)
                }),
            ),
            scalar!((bytes: Byt) -> Str => <[u8; 16]>::try_from(bytes).ok().map(uuid_text)),
        ],
    );
}

fn of(ty: SqlType) -> ResultType {
    ResultType::Of(exact(ty))
}

fn utf16_len(text: &str) -> i32 {
    if text.is_ascii() { text.len() as i32 } else { text.encode_utf16().count() as i32 }
}

/// Byte index of a UTF-16 position; inside a pair, the pair's start (`up`: its end).
fn byte_index(text: &str, units: usize, up: bool) -> usize {
    if text.is_ascii() {
        return units.min(text.len());
    }
    let mut seen = 0;
    for (at, c) in text.char_indices() {
        if seen >= units {
            return at;
        }
        seen += c.len_utf16();
        if seen > units {
            return if up { at + c.len_utf8() } else { at };
        }
    }
    text.len()
}

fn part(text: &str, start: usize, end: usize) -> &str {
    let (from, to) = (byte_index(text, start, false), byte_index(text, end, true));
    text.get(from..to.max(from)).unwrap_or("")
}

/// White space in front of the first word is dropped.
fn init_cap(text: &str) -> String {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.trim_start_matches(blank).chars() {
        if blank(c) {
            start = true;
            out.push(c);
        } else if start {
            start = false;
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

/// An empty `old` is found before, between and after all characters.
fn replaced(text: &str, old: &str, new: &str) -> Result<String, String> {
    let count = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    if count.saturating_mul(new.len()) > VALUE_BYTES_MAX {
        return Err("the text with its replacements is too large".into());
    }
    Ok(text.replace(old, new))
}

/// First and end position (0-based) of SUBSTRING.
fn sub_range(length: usize, pos: i32, count: Option<i32>) -> (usize, usize) {
    let length = length as i64;
    let pos = i64::from(pos);
    let start = match pos {
        p if p < 0 => (length + p).max(0),
        0 => 0,
        p => (p - 1).min(length),
    };
    let end = count.map_or(length, |n| (start + i64::from(n)).clamp(start, length));
    (start as usize, end as usize)
}

fn substring() -> impl super::ScalarFunction {
    Bind(|site: &CallSite<'_>| {
        let legacy = site.settings.substring_legacy;
        let code: Arc<dyn ScalarImpl> = Arc::new(move |args: &Args<'_>, _: &mut EvalContext| {
            let text = args.values(0)?;
            let text = Str::reader(text.array(), text.is_scalar())?;
            let pos = args.values(1)?;
            let pos = Int::reader(pos.array(), pos.is_scalar())?;
            let count = if args.args.len() > 2 {
                let count = args.values(2)?;
                Some(Int::reader(count.array(), count.is_scalar())?)
            } else {
                None
            };
            let mut out = StringBuilder::new();
            for row in 0..args.rows {
                let count = match &count {
                    None => None,
                    Some(count) => match Int::get(count, row) {
                        None => {
                            out.append_null();
                            continue;
                        }
                        some => some,
                    },
                };
                let (Some(text), Some(pos)) = (Str::get(&text, row), Int::get(&pos, row)) else {
                    out.append_null();
                    continue;
                };
                let length = utf16_len(text) as usize;
                let (start, end) = if legacy {
                    let start = usize::try_from(pos).unwrap_or(0).min(length);
                    let end = count.map_or(length, |e| usize::try_from(e).unwrap_or(0).min(length));
                    (start, end.max(start))
                } else {
                    sub_range(length, pos, count)
                };
                out.append_value(part(text, start, end));
            }
            Ok(Returned::ok(Arc::new(out.finish())))
        });
        Ok(code)
    })
}

fn sub_bytes(bytes: &[u8], pos: i32, count: Option<i32>) -> &[u8] {
    let (start, end) = sub_range(bytes.len(), pos, count);
    bytes.get(start..end).unwrap_or(&[])
}

/// Position of the n-th occurrence from `pos` on; a negative `pos` counts from the end and searches backwards. In a NULL,
/// or of one, there is none.
fn instr(text: Option<&str>, part: Option<&str>, pos: i32, occurrence: i32) -> i32 {
    let (Some(text), Some(part)) = (text, part) else { return 0 };
    if text.is_empty() || part.is_empty() || occurrence < 1 || pos == 0 {
        return 0;
    }
    let length = i64::from(utf16_len(text));
    // Overlapping occurrences count.
    let starts = |from: usize| {
        let mut at = from;
        std::iter::from_fn(move || {
            let found = at + text.get(at..)?.find(part)?;
            at = found + text[found..].chars().next().map_or(1, char::len_utf8);
            Some(found)
        })
    };
    let nth = occurrence as usize - 1;
    let found = if pos > 0 {
        if i64::from(pos) > length {
            return 0;
        }
        starts(byte_index(text, pos as usize - 1, false)).nth(nth)
    } else {
        let last = length + i64::from(pos);
        if last < 0 {
            return 0;
        }
        let last = byte_index(text, last as usize, false);
        let all: Vec<usize> = starts(0).take_while(|at| *at <= last).collect();
        all.into_iter().rev().nth(nth)
    };
    found.map_or(0, |at| utf16_len(&text[..at]) + 1)
}

fn pad(text: &str, length: i32, padding: &str, left: bool) -> Option<String> {
    let length = usize::try_from(length).ok().filter(|n| *n <= LENGTH_MAX)?;
    if padding.is_empty() {
        return None;
    }
    let have = utf16_len(text) as usize;
    let text = part(text, 0, have.min(length));
    let missing = length.saturating_sub(have);
    let unit = utf16_len(padding) as usize;
    let mut fill = padding.repeat(missing / unit);
    fill.push_str(part(padding, 0, missing % unit));
    Some(if left { fill + text } else { text.to_owned() + &fill })
}

fn pad_bytes(bytes: &[u8], length: i32, padding: &[u8], left: bool) -> Option<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|n| *n <= LENGTH_MAX)?;
    if padding.is_empty() {
        return None;
    }
    let kept = &bytes[..bytes.len().min(length)];
    let fill = padding.iter().copied().cycle().take(length - kept.len());
    Some(if left { fill.chain(kept.iter().copied()).collect() } else { kept.iter().copied().chain(fill).collect() })
}

fn split(text: &str, delimiter: &str) -> Vec<String> {
    if text.is_empty() {
        return vec![String::new()];
    }
    if delimiter.is_empty() {
        return text.chars().map(String::from).collect();
    }
    text.split(delimiter).map(str::to_owned).collect()
}

fn split_bytes(bytes: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return vec![Vec::new()];
    }
    if delimiter.is_empty() {
        return bytes.iter().map(|b| vec![*b]).collect();
    }
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(delimiter.len()).position(|w| w == delimiter) {
        parts.push(rest[..at].to_vec());
        rest = &rest[at + delimiter.len()..];
    }
    parts.push(rest.to_vec());
    parts
}

fn unescape(code: &str) -> Option<String> {
    if !code.starts_with("\\u") {
        return None;
    }
    let units: Option<Vec<u16>> = code
        .split("\\u")
        .skip(1)
        .map(|hex| if hex.len() == 4 { u16::from_str_radix(hex, 16).ok() } else { None })
        .collect();
    String::from_utf16(&units?).ok()
}

/// All arguments as texts; scalars stand for every row.
fn texts<'a>(args: &'a Args<'_>) -> Result<Vec<(&'a StringArray, bool)>> {
    (0..args.args.len())
        .map(|i| {
            let values = args.values(i)?;
            let array = values.array().as_string_opt::<i32>();
            Ok((array.ok_or_else(|| Error::bug("a text argument is not STRING"))?, values.is_scalar()))
        })
        .collect()
}

fn text_at<'a>(column: &(&'a StringArray, bool), row: usize) -> Option<&'a str> {
    let at = if column.1 { 0 } else { row };
    column.0.is_valid(at).then(|| column.0.value(at))
}

fn bytes_at<'a>(args: &'a Args<'_>, arg: usize, row: usize) -> Result<Option<&'a [u8]>> {
    let values = args.values(arg)?;
    let array = values.array().as_binary_opt::<i32>().ok_or_else(|| Error::bug("an argument is not BYTES"))?;
    let at = values.index(row);
    Ok(array.is_valid(at).then(|| array.value(at)))
}

fn concat_text(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let columns = texts(args)?;
    let mut out = StringBuilder::new();
    let mut joined = String::new();
    for row in 0..args.rows {
        joined.clear();
        columns.iter().filter_map(|c| text_at(c, row)).for_each(|t| joined.push_str(t));
        out.append_value(&joined);
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn concat_bytes(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let mut out = BinaryBuilder::new();
    for row in 0..args.rows {
        let mut joined: Vec<u8> = Vec::new();
        for arg in 0..args.args.len() {
            joined.extend_from_slice(bytes_at(args, arg, row)?.unwrap_or(&[]));
        }
        out.append_value(joined);
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

/// As many NULLs as there are, each of them a failure.
fn nothing_to_join(nulls: ArrayRef) -> Returned {
    let mut failures = Failures::default();
    for row in 0..nulls.len() {
        failures.push(row, || "CONCAT_WS needs something to join behind its separator".to_owned());
    }
    Returned { array: nulls, failures }
}

fn concat_ws_text(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let columns = texts(args)?;
    let mut out = StringBuilder::new();
    if columns.len() < 2 {
        return Ok(nothing_to_join(Arc::new(StringArray::new_null(args.rows))));
    }
    for row in 0..args.rows {
        let Some(separator) = columns.first().and_then(|c| text_at(c, row)) else {
            out.append_null();
            continue;
        };
        let parts: Vec<&str> = columns.iter().skip(1).filter_map(|c| text_at(c, row)).collect();
        out.append_value(parts.join(separator));
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn concat_ws_bytes(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let mut out = BinaryBuilder::new();
    if args.args.len() < 2 {
        return Ok(nothing_to_join(Arc::new(BinaryArray::new_null(args.rows))));
    }
    for row in 0..args.rows {
        let Some(separator) = bytes_at(args, 0, row)? else {
            out.append_null();
            continue;
        };
        let mut parts = Vec::new();
        for arg in 1..args.args.len() {
            parts.extend(bytes_at(args, arg, row)?);
        }
        out.append_value(parts.join(separator));
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn elt(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let pos = args.values(0)?;
    let pos = Int::reader(pos.array(), pos.is_scalar())?;
    let mut out = StringBuilder::new();
    for row in 0..args.rows {
        let at = Int::get(&pos, row).and_then(|p| usize::try_from(p).ok()).filter(|p| (1..args.args.len()).contains(p));
        let picked = match at {
            Some(at) => {
                let values = args.values(at)?;
                Str::get(&Str::reader(values.array(), values.is_scalar())?, row)
            }
            None => None,
        };
        out.append_option(picked);
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn field(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let columns = texts(args)?;
    let mut out = Int32Builder::with_capacity(args.rows);
    for row in 0..args.rows {
        let wanted = columns.first().and_then(|c| text_at(c, row));
        let found = wanted.and_then(|w| columns.iter().skip(1).position(|c| text_at(c, row) == Some(w)));
        out.append_value(found.map_or(0, |i| i as i32 + 1));
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn split_to_map(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let columns = texts(args)?;
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let picked: Option<Vec<&str>> = columns.iter().map(|c| text_at(c, row)).collect();
        let Some([text, entry, kv]) = picked.as_deref() else {
            values.push(millpond_types::Value::Null);
            continue;
        };
        if entry.is_empty() || kv.is_empty() || entry == kv {
            values.push(millpond_types::Value::Null);
            continue;
        }
        let mut map: indexmap::IndexMap<&str, &str> = indexmap::IndexMap::new();
        for part in text.split(entry) {
            // A part with the delimiter twice keeps what lies between the first two, as Java's split does.
            let mut pieces = part.split(kv);
            if let (Some(key), Some(value)) = (pieces.next(), pieces.next()) {
                map.insert(key, value);
            }
        }
        let text = |t: &str| millpond_types::Value::String(t.to_owned());
        values.push(millpond_types::Value::Map(map.into_iter().map(|(k, v)| (text(k), text(v))).collect()));
    }
    let ty = SqlType::map(SqlType::String, SqlType::String);
    Ok(Returned::ok(millpond_types::value::array_from_values(&ty, &values)?))
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn random_uuid(args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
    let mut out = StringBuilder::new();
    for _ in 0..args.rows {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&cx.next_random().to_be_bytes());
        bytes[8..].copy_from_slice(&cx.next_random().to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        out.append_value(uuid_text(bytes));
    }
    let array: ArrayRef = Arc::new(out.finish());
    Ok(Returned::ok(array))
}

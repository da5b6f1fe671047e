//! Values as text: what CAST to STRING gives, collections in Java's form.
//!
//! `[1, null]`, `{a=1, b=2}`, `Struct{F0=1,f1=3}` (NULL fields left out). At the top a DECIMAL is plain and times are
//! ISO; inside a collection they are as Java's `toString` has them.

use arrow::array::Array;
use millpond_types::{Result, Value};

use crate::arrays::Cells;
use crate::json::encode::write_i64;
use crate::number::{into_string, write_decimal, write_decimal_as_java, write_double};

const DAY_MS: i64 = 86_400_000;

/// A column prepared for [`TextColumn::write`].
pub struct TextColumn<'a>(Cells<'a>);

impl<'a> TextColumn<'a> {
    /// The column must have the Arrow form of a SQL type.
    pub fn new(array: &'a dyn Array) -> Result<Self> {
        Cells::new(array).map(Self)
    }

    /// Appends the text of a row; false where it is NULL, when nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>, row: usize) -> bool {
        if self.0.is_null(row) {
            return false;
        }
        match &self.0 {
            Cells::Decimal(array, scale) => write_decimal(out, array.value(row), *scale),
            Cells::Date(array) => write_date(out, i64::from(array.value(row))),
            Cells::Time(array) => write_time(out, i64::from(array.value(row))),
            Cells::Timestamp(array) => write_timestamp(out, array.value(row)),
            cells => write_cell(out, cells, row),
        }
        true
    }
}

/// The text of one cell; `None` for NULL.
pub fn java_text(array: &dyn Array, row: usize) -> Result<Option<String>> {
    let mut out = Vec::new();
    let written = row < array.len() && TextColumn::new(array)?.write(&mut out, row);
    Ok(written.then(|| into_string(out)))
}

/// The text of one value; `None` for NULL.
pub fn value_text(value: &Value) -> Option<String> {
    let mut out = Vec::new();
    match value {
        Value::Null => return None,
        Value::Decimal { unscaled, scale, .. } => write_decimal(&mut out, *unscaled, *scale),
        Value::Date(days) => write_date(&mut out, i64::from(*days)),
        Value::Time(ms) => write_time(&mut out, i64::from(*ms)),
        Value::Timestamp(ms) => write_timestamp(&mut out, *ms),
        other => write_value(&mut out, other),
    }
    Some(into_string(out))
}

/// Appends a cell as it stands inside a collection.
pub(crate) fn write_cell(out: &mut Vec<u8>, cells: &Cells<'_>, row: usize) {
    if cells.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match cells {
        Cells::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
        Cells::Integer(array) => write_i64(out, i64::from(array.value(row))),
        Cells::BigInt(array) => write_i64(out, array.value(row)),
        Cells::Double(array) => write_double(out, array.value(row)),
        Cells::Decimal(array, scale) => write_decimal_as_java(out, array.value(row), *scale),
        Cells::String(array) => out.extend_from_slice(array.value(row).as_bytes()),
        Cells::Bytes(array) => crate::encode_base64(out, array.value(row)),
        Cells::Date(array) => write_date(out, i64::from(array.value(row))),
        Cells::Time(array) => write_clock(out, i64::from(array.value(row))),
        Cells::Timestamp(array) => write_sql_timestamp(out, array.value(row)),
        Cells::List(offsets, _, items) => {
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            separated(out, b"[", b", ", b"]", start..end, |out, i| write_cell(out, items, i));
        }
        Cells::Map(offsets, _, keys, values) => {
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            separated(out, b"{", b", ", b"}", start..end, |out, i| {
                write_cell(out, keys, i);
                out.push(b'=');
                write_cell(out, values, i);
            });
        }
        Cells::Struct(_, fields) => {
            let present = fields.iter().filter(|f| !f.cells.is_null(row));
            separated(out, b"Struct{", b",", b"}", present, |out, field| {
                out.extend_from_slice(field.name.as_bytes());
                out.push(b'=');
                write_cell(out, &field.cells, row);
            });
        }
    }
}

/// [`write_cell`] for a value.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Integer(i) => write_i64(out, i64::from(*i)),
        Value::BigInt(i) => write_i64(out, *i),
        Value::Double(d) => write_double(out, *d),
        Value::Decimal { unscaled, scale, .. } => write_decimal_as_java(out, *unscaled, *scale),
        Value::String(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bytes(bytes) => crate::encode_base64(out, bytes),
        Value::Date(days) => write_date(out, i64::from(*days)),
        Value::Time(ms) => write_clock(out, i64::from(*ms)),
        Value::Timestamp(ms) => write_sql_timestamp(out, *ms),
        Value::Array(items) => separated(out, b"[", b", ", b"]", items, write_value),
        Value::Map(entries) => separated(out, b"{", b", ", b"}", entries, |out, (key, value)| {
            write_value(out, key);
            out.push(b'=');
            write_value(out, value);
        }),
        Value::Struct(fields) => {
            let present = fields.iter().filter(|(_, v)| !v.is_null());
            separated(out, b"Struct{", b",", b"}", present, |out, (name, value)| {
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                write_value(out, value);
            });
        }
    }
}

fn separated<T>(
    out: &mut Vec<u8>,
    open: &[u8],
    comma: &[u8],
    close: &[u8],
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.extend_from_slice(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(comma);
        }
        write(out, item);
    }
    out.extend_from_slice(close);
}

/// Appends a number with zeros in front up to `width` digits.
fn padded(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs());
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

/// Appends days since the epoch as `yyyy-MM-dd`.
pub fn write_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil_date(days);
    if year < 0 {
        out.push(b'-');
    } else if year > 9999 {
        out.push(b'+');
    }
    padded(out, year, 4);
    out.push(b'-');
    padded(out, month, 2);
    out.push(b'-');
    padded(out, day, 2);
}

/// Year, month and day of a day counted from 1970-01-01.
pub(crate) fn civil_date(days: i64) -> (i64, i64, i64) {
    // Counted in 400-year eras that begin on 1 March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_date`] for years of 32 bits; `None` where there is no such day.
pub(crate) fn days_of_civil_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if i32::try_from(year).is_err() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (march_year, month_index) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    // 31 April would be 1 May.
    (civil_date(days) == (year, month, day)).then_some(days)
}

/// Appends milliseconds of the day as `HH:mm:ss`.
fn write_clock(out: &mut Vec<u8>, ms: i64) {
    padded(out, ms / 3_600_000, 2);
    out.push(b':');
    padded(out, ms / 60_000 % 60, 2);
    out.push(b':');
    padded(out, ms / 1000 % 60, 2);
}

/// Appends milliseconds of the day as `HH:mm`, with `:ss` unless the seconds are zero.
pub fn write_time(out: &mut Vec<u8>, ms: i64) {
    let start = out.len();
    write_clock(out, ms);
    if ms / 1000 % 60 == 0 {
        out.truncate(start + 5);
    }
}

/// Appends milliseconds since the epoch as `yyyy-MM-dd'T'HH:mm:ss.SSS`.
pub fn write_timestamp(out: &mut Vec<u8>, ms: i64) {
    write_date(out, ms.div_euclid(DAY_MS));
    out.push(b'T');
    let of_day = ms.rem_euclid(DAY_MS);
    write_clock(out, of_day);
    out.push(b'.');
    padded(out, of_day % 1000, 3);
}

/// Appends milliseconds since the epoch as `java.sql.Timestamp` has it: a space, and no more decimals than needed.
fn write_sql_timestamp(out: &mut Vec<u8>, ms: i64) {
    let start = out.len();
    write_timestamp(out, ms);
    if let Some(t) = out[start..].iter().position(|&b| b == b'T') {
        out[start + t] = b' ';
    }
    for _ in 0..2 {
        if out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_types::value::array_from_values;
    use millpond_types::{Field, SqlType};

    use super::*;

    #[test]
    fn values_and_columns_have_the_same_text() {
        let text = |s: &str| Value::String(s.into());
        let decimal = Value::Decimal { unscaled: 1, precision: 9, scale: 8 };
        let shape = SqlType::Struct(vec![Field::new("F0", SqlType::Integer), Field::new("f1", SqlType::BigInt)]);
        for (ty, value, expected) in [
            (SqlType::array(SqlType::Integer), Value::Array(vec![Value::Integer(1), Value::Null]), "[1, null]"),
            (
                SqlType::map(SqlType::String, SqlType::Double),
                Value::Map(vec![(text("this"), Value::Double(1.0)), (text("b"), Value::Null)]),
                "{this=1.0, b=null}",
            ),
            (
                shape.clone(),
                Value::Struct(vec![("F0".into(), Value::Integer(1)), ("f1".into(), Value::BigInt(3))]),
                "Struct{F0=1,f1=3}",
            ),
            (shape, Value::Struct(vec![("F0".into(), Value::Null), ("f1".into(), Value::BigInt(3))]), "Struct{f1=3}"),
            (SqlType::decimal(9, 8), decimal.clone(), "0.00000001"),
            (SqlType::array(SqlType::decimal(9, 8)), Value::Array(vec![decimal]), "[1E-8]"),
            (SqlType::Timestamp, Value::Timestamp(-1), "1969-12-31T23:59:59.999"),
            (SqlType::Timestamp, Value::Timestamp(1_609_459_200_010), "2021-01-01T00:00:00.010"),
            (SqlType::array(SqlType::Timestamp), Value::Array(vec![Value::Timestamp(10)]), "[1970-01-01 00:00:00.01]"),
            (SqlType::Date, Value::Date(11_016), "2000-02-29"),
            (SqlType::Time, Value::Time(3_661_999), "01:01:01"),
            (SqlType::Time, Value::Time(60_000), "00:01"),
        ] {
            let array = array_from_values(&ty, std::slice::from_ref(&value)).unwrap();
            assert_eq!(value_text(&value).as_deref(), Some(expected));
            assert_eq!(java_text(array.as_ref(), 0).unwrap().as_deref(), Some(expected));
        }
        assert_eq!(value_text(&Value::Null), None);
    }
}

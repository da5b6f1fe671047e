//! CAST and every implicit conversion (reference: the CAST table).
//!
//! An error of the operand is NULL here, except under a mere widening of a number, which is as transparent as ksqlDB's
//! own promotion. A value that the target cannot hold is a row error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanBuilder, ListArray, MapArray, PrimitiveArray,
    StringBuilder, StructArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType,
    TimestampMillisecondType,
};
use millpond_formats::number;
use millpond_formats::text::TextColumn;
use millpond_sql::diagnostic::Span;
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{Error, Result, SqlType, Value};

use super::arithmetic::error_rows;
use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, Values, decimal, defect, union_errors};
use crate::functions::{Failures, lenient_base64};
use crate::java_time;

const DAY_MS: i64 = 86_400_000;

struct Cast {
    operand: NodeRef,
    from: SqlType,
    to: SqlType,
    widening: bool,
    span: Span,
}

pub fn cast(operand: NodeRef, from: &SqlType, to: &SqlType, span: Span) -> Result<NodeRef> {
    use SqlType::{BigInt, Decimal, Double, Integer};
    if !castable(from, to) {
        return Err(Error::bug(format!("cast of {from} to {to}")));
    }
    let widening = matches!(
        (from, to),
        (Integer, BigInt | Decimal { .. } | Double) | (BigInt, Decimal { .. } | Double) | (Decimal { .. }, Double)
    );
    Ok(Arc::new(Cast { operand, from: from.clone(), to: to.clone(), widening, span }))
}

/// Whether the CAST table has this pair.
fn castable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::{Array, Boolean, Bytes, Date, Map, String, Struct, Time, Timestamp};
    match (from, to) {
        (a, b) if a == b => true,
        (Bytes, _) => false,
        (_, String) => true,
        (a, b) if a.is_numeric() && b.is_numeric() => true,
        (String, b) => b.is_numeric() || matches!(b, Boolean | Timestamp | Date | Time | Bytes),
        (Timestamp, Date | Time) | (Date, Timestamp) => true,
        (Array(a), Array(b)) => castable(a, b),
        (Map(k, v), Map(l, w)) => castable(k, l) && castable(v, w),
        (Struct(a), Struct(b)) => {
            b.iter().all(|to| a.iter().find(|from| from.name == to.name).is_none_or(|from| castable(&from.ty, &to.ty)))
        }
        _ => false,
    }
}

impl Node for Cast {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let operand = self.operand.eval(input, cx)?;
        let known = operand.errors.filter(|_| self.widening);
        let (array, failures) = cast_array(operand.values.array(), &self.from, &self.to)?;
        let scalar = operand.values.is_scalar();
        for (i, &row) in failures.rows.iter().enumerate() {
            let row = if scalar { 0 } else { row as usize };
            if input.rows() > 0 {
                cx.log(input.row(row), self.span, || failures.messages.get(i).cloned().unwrap_or_default());
            }
        }
        let failed = if failures.is_empty() {
            None
        } else if scalar {
            Some(BooleanBuffer::new_set(input.rows()))
        } else {
            let rows: Vec<usize> = failures.rows.iter().map(|&r| r as usize).collect();
            error_rows(input.rows(), &rows)
        };
        let values = if scalar { Values::Scalar(array) } else { Values::Array(array) };
        Ok(Evaluated { values, errors: union_errors(known, failed) })
    }

    fn infallible(&self) -> bool {
        use SqlType::{BigInt, Double, Integer, String};
        self.operand.infallible()
            && matches!(
                (&self.from, &self.to),
                (Integer, BigInt | Double) | (BigInt, Integer | Double) | (Double, Integer | BigInt) | (_, String)
            )
    }
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<&PrimitiveArray<T>> {
    array.as_primitive_opt::<T>().ok_or_else(|| Error::bug(format!("cast of a column of type {}", array.data_type())))
}

/// Converts each value; `None` is a failure.
fn try_each<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    what: &dyn Fn() -> String,
    convert: impl Fn(A::Native) -> Option<B::Native>,
) -> Result<(ArrayRef, Failures)> {
    let array = primitive::<A>(array)?;
    let mut failures = Failures::default();
    let mut values = Vec::with_capacity(array.len());
    for (row, value) in array.iter().enumerate() {
        let converted = value.map(&convert);
        if converted == Some(None) {
            failures.push(row, what);
        }
        values.push(converted.flatten().unwrap_or_default());
    }
    let nulls = with_failures(array.nulls(), array.len(), &failures);
    let made = PrimitiveArray::<B>::try_new(ScalarBuffer::from(values), nulls).map_err(defect)?;
    Ok((Arc::new(made.with_data_type(to.clone())), failures))
}

fn with_failures(nulls: Option<&NullBuffer>, rows: usize, failures: &Failures) -> Option<NullBuffer> {
    let rows_failed: Vec<usize> = failures.rows.iter().map(|&r| r as usize).collect();
    let failed = error_rows(rows, &rows_failed).map(|e| NullBuffer::new(!&e));
    NullBuffer::union(nulls, failed.as_ref())
}

fn map_each<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    array: &ArrayRef,
    convert: impl Fn(A::Native) -> B::Native,
) -> Result<(ArrayRef, Failures)> {
    Ok((Arc::new(primitive::<A>(array)?.unary::<_, B>(convert)), Failures::default()))
}

/// Casts a column. Failed rows are NULL.
pub fn cast_array(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<(ArrayRef, Failures)> {
    use SqlType::{BigInt, Date, Decimal, Double, Integer, String, Time, Timestamp};
    if from == to {
        return Ok((array.clone(), Failures::default()));
    }
    let arrow = to.to_arrow();
    let misfit = || format!("the value does not fit {to}");
    match (from, to) {
        (_, String) => to_text(array),
        (String, _) => from_text(array, to),
        (Integer, BigInt) => map_each::<Int32Type, Int64Type>(array, i64::from),
        (Integer, Double) => map_each::<Int32Type, Float64Type>(array, f64::from),
        (BigInt, Integer) => map_each::<Int64Type, Int32Type>(array, |v| v as i32),
        (BigInt, Double) => map_each::<Int64Type, Float64Type>(array, |v| v as f64),
        (Double, Integer) => map_each::<Float64Type, Int32Type>(array, |v| v as i32),
        (Double, BigInt) => map_each::<Float64Type, Int64Type>(array, |v| v as i64),
        (Integer, Decimal { precision, scale }) => {
            try_each::<Int32Type, Decimal128Type>(array, &arrow, &misfit, |v| scaled(i128::from(v), *precision, *scale))
        }
        (BigInt, Decimal { precision, scale }) => {
            try_each::<Int64Type, Decimal128Type>(array, &arrow, &misfit, |v| scaled(i128::from(v), *precision, *scale))
        }
        (Double, Decimal { precision, scale }) => {
            try_each::<Float64Type, Decimal128Type>(array, &arrow, &misfit, |v| {
                decimal::from_f64(v, *precision, *scale)
            })
        }
        (Decimal { scale: s, .. }, Decimal { precision, scale }) => {
            try_each::<Decimal128Type, Decimal128Type>(array, &arrow, &misfit, |v| {
                decimal::rescale_half_up(v, *s, *scale).filter(|v| decimal::fits(*v, *precision))
            })
        }
        (Decimal { scale, .. }, Integer | BigInt | Double) => {
            let scale = *scale;
            let whole = move |v: i128| v / decimal::pow10(u32::from(scale)).unwrap_or(1);
            match to {
                Integer => map_each::<Decimal128Type, Int32Type>(array, move |v| whole(v) as i32),
                BigInt => map_each::<Decimal128Type, Int64Type>(array, move |v| whole(v) as i64),
                _ => map_each::<Decimal128Type, Float64Type>(array, move |v| decimal::to_f64(v, scale)),
            }
        }
        (Timestamp, Date) => map_each::<TimestampMillisecondType, Date32Type>(array, |v| v.div_euclid(DAY_MS) as i32),
        (Timestamp, Time) => {
            map_each::<TimestampMillisecondType, Time32MillisecondType>(array, |v| v.rem_euclid(DAY_MS) as i32)
        }
        (Date, Timestamp) => map_each::<Date32Type, TimestampMillisecondType>(array, |v| i64::from(v) * DAY_MS),
        (SqlType::Array(a), SqlType::Array(b)) => cast_list(array, a, b, &arrow),
        (SqlType::Map(k, v), SqlType::Map(l, w)) => cast_map(array, (k, v), (l, w), &arrow),
        (SqlType::Struct(a), SqlType::Struct(b)) => cast_struct(array, a, b, &arrow),
        _ => Err(Error::bug(format!("cast of {from} to {to}"))),
    }
}

fn scaled(value: i128, precision: u8, scale: u8) -> Option<i128> {
    decimal::rescale_exact(value, 0, scale).filter(|v| decimal::fits(*v, precision))
}

fn to_text(array: &ArrayRef) -> Result<(ArrayRef, Failures)> {
    let column = TextColumn::new(array)?;
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = Vec::new();
    for row in 0..array.len() {
        text.clear();
        match column.write(&mut text, row).then(|| std::str::from_utf8(&text)) {
            Some(Ok(text)) => out.append_value(text),
            Some(Err(_)) | None => out.append_null(),
        }
    }
    Ok((Arc::new(out.finish()), Failures::default()))
}

fn from_text(array: &ArrayRef, to: &SqlType) -> Result<(ArrayRef, Failures)> {
    let texts = array.as_string_opt::<i32>().ok_or_else(|| Error::bug("cast of a column that is not STRING"))?;
    let mut failures = Failures::default();
    macro_rules! parse {
        ($builder:expr, $parse:expr) => {{
            let mut out = $builder;
            for (row, text) in texts.iter().enumerate() {
                match text.map(|t| $parse(t.trim_matches(|c: char| c <= ' '))) {
                    None => out.append_null(),
                    Some(Ok(value)) => out.append_value(value),
                    Some(Err(message)) => {
                        let message: String = message;
                        failures.push(row, || message);
                        out.append_null();
                    }
                }
            }
            Arc::new(out.finish()) as ArrayRef
        }};
    }
    let no = |text: &str| format!("\"{}\" is not a value of type {to}", shorten(text));
    let made = match to {
        SqlType::Boolean => parse!(BooleanBuilder::with_capacity(texts.len()), |t: &str| Ok(parse_boolean(t))),
        SqlType::Integer => {
            parse!(PrimitiveArray::<Int32Type>::builder(texts.len()), |t: &str| t.parse::<i32>().map_err(|_| no(t)))
        }
        SqlType::BigInt => {
            parse!(PrimitiveArray::<Int64Type>::builder(texts.len()), |t: &str| t.parse::<i64>().map_err(|_| no(t)))
        }
        SqlType::Double => {
            parse!(PrimitiveArray::<Float64Type>::builder(texts.len()), |t: &str| number::parse_double(t)
                .ok_or_else(|| no(t)))
        }
        SqlType::Decimal { precision, scale } => {
            parse!(PrimitiveArray::<Decimal128Type>::builder(texts.len()).with_data_type(to.to_arrow()), |t: &str| {
                decimal_of_text(t, *precision, *scale).ok_or_else(|| no(t))
            })
        }
        SqlType::Timestamp => {
            parse!(PrimitiveArray::<TimestampMillisecondType>::builder(texts.len()), java_time::parse_iso_timestamp)
        }
        SqlType::Date => parse!(PrimitiveArray::<Date32Type>::builder(texts.len()), java_time::parse_iso_date),
        SqlType::Time => {
            parse!(PrimitiveArray::<Time32MillisecondType>::builder(texts.len()), java_time::parse_iso_time)
        }
        SqlType::Bytes => parse!(BinaryBuilder::new(), |t: &str| lenient_base64(t).ok_or_else(|| no(t))),
        _ => return Err(Error::bug(format!("cast of STRING to {to}"))),
    };
    Ok((made, failures))
}

fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// True for a prefix of "true" or "yes", of any case.
fn parse_boolean(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    !lower.is_empty() && ("true".starts_with(&lower) || "yes".starts_with(&lower))
}

/// Rounded half up.
fn decimal_of_text(text: &str, precision: u8, scale: u8) -> Option<i128> {
    match number::parse_decimal(text.as_bytes(), precision, scale) {
        Ok(value) => Some(value),
        Err(number::DecimalError::Inexact) => {
            // With all the digits that a DECIMAL can have, then rounded; digits beyond those cannot turn the rounding.
            let room = precision - scale;
            let most = millpond_types::sql_type::DECIMAL_PRECISION_MAX;
            let exact = most.saturating_sub(room);
            let cut = cut_fraction(text, usize::from(exact));
            let value = number::parse_decimal(cut.as_bytes(), most, exact).ok()?;
            decimal::rescale_half_up(value, exact, scale).filter(|v| decimal::fits(*v, precision))
        }
        Err(_) => None,
    }
}

/// The number's text with at most so many digits after the point (texts with an exponent as they are).
fn cut_fraction(text: &str, digits: usize) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{whole}.{}", &fraction[..fraction.len().min(digits)])
        }
        _ => text.to_owned(),
    }
}

/// Rows whose range of children holds a failed child.
fn parents_failed(child: &Failures, offsets: &[i32], nulls: Option<&NullBuffer>) -> Failures {
    let mut failures = Failures::default();
    let mut next = 0;
    for row in 0..offsets.len().saturating_sub(1) {
        let end = offsets[row + 1] as u32;
        let start = offsets[row] as u32;
        while child.rows.get(next).is_some_and(|r| *r < start) {
            next += 1;
        }
        if child.rows.get(next).is_some_and(|r| *r < end) && nulls.is_none_or(|n| n.is_valid(row)) {
            failures.push(row, || child.messages.get(next).cloned().unwrap_or_default());
        }
    }
    failures
}

fn cast_list(array: &ArrayRef, from: &SqlType, to: &SqlType, arrow: &DataType) -> Result<(ArrayRef, Failures)> {
    let (Some(list), DataType::List(field)) = (array.as_list_opt::<i32>(), arrow) else {
        return Err(Error::bug("cast of a column that is not ARRAY"));
    };
    let (offsets, start, length) = compact(list.offsets());
    let (items, failed) = cast_array(&list.values().slice(start, length), from, to)?;
    let failures = parents_failed(&failed, &offsets, list.nulls());
    let nulls = with_failures(list.nulls(), list.len(), &failures);
    let made = ListArray::try_new(field.clone(), offsets, items, nulls).map_err(defect)?;
    Ok((Arc::new(made), failures))
}

fn cast_map(
    array: &ArrayRef,
    from: (&SqlType, &SqlType),
    to: (&SqlType, &SqlType),
    arrow: &DataType,
) -> Result<(ArrayRef, Failures)> {
    let (Some(map), DataType::Map(field, sorted)) = (array.as_map_opt(), arrow) else {
        return Err(Error::bug("cast of a column that is not MAP"));
    };
    let DataType::Struct(fields) = field.data_type() else { return Err(Error::bug("a map's entries are no struct")) };
    let (offsets, start, length) = compact(map.offsets());
    let (keys, keys_failed) = cast_array(&map.keys().slice(start, length), from.0, to.0)?;
    let (values, values_failed) = cast_array(&map.values().slice(start, length), from.1, to.1)?;
    if !keys_failed.is_empty() {
        // A map cannot have a NULL key, not even in a failed row.
        return cast_map_by_row(map.nulls(), &offsets, to, (&keys, &keys_failed), (&values, &values_failed));
    }
    let failures = parents_failed(&values_failed, &offsets, map.nulls());
    let nulls = with_failures(map.nulls(), map.len(), &failures);
    let entries = StructArray::try_new(fields.clone(), vec![keys, values], None).map_err(defect)?;
    let made = MapArray::try_new(field.clone(), offsets, entries, nulls, *sorted).map_err(defect)?;
    Ok((Arc::new(made), failures))
}

fn cast_map_by_row(
    nulls: Option<&NullBuffer>,
    offsets: &OffsetBuffer<i32>,
    to: (&SqlType, &SqlType),
    (keys, keys_failed): (&ArrayRef, &Failures),
    (values, values_failed): (&ArrayRef, &Failures),
) -> Result<(ArrayRef, Failures)> {
    let mut failures = Failures::default();
    let by_key = parents_failed(keys_failed, offsets, nulls);
    let by_value = parents_failed(values_failed, offsets, nulls);
    let failed = |f: &Failures, row: usize| f.rows.binary_search(&(row as u32)).is_ok();
    let mut rows = Vec::with_capacity(offsets.len());
    for (row, range) in offsets.windows(2).enumerate() {
        if nulls.is_some_and(|n| n.is_null(row)) {
            rows.push(Value::Null);
        } else if failed(&by_key, row) || failed(&by_value, row) {
            failures.push(row, || keys_failed.messages.first().cloned().unwrap_or_default());
            rows.push(Value::Null);
        } else {
            let entry = |i: i32| (value_at(keys, to.0, i as usize), value_at(values, to.1, i as usize));
            rows.push(Value::Map((range[0]..range[1]).map(entry).collect()));
        }
    }
    Ok((array_from_values(&SqlType::map(to.0.clone(), to.1.clone()), &rows)?, failures))
}

/// Offsets from 0 on, and the part of the children that they mean: a slice of a large batch casts its own children only.
fn compact(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, usize, usize) {
    let (start, end) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let rebased = OffsetBuffer::from_lengths(offsets.lengths());
    (rebased, start as usize, (end - start) as usize)
}

fn cast_struct(
    array: &ArrayRef,
    from: &[millpond_types::Field],
    to: &[millpond_types::Field],
    arrow: &DataType,
) -> Result<(ArrayRef, Failures)> {
    let (Some(parts), DataType::Struct(fields)) = (array.as_struct_opt(), arrow) else {
        return Err(Error::bug("cast of a column that is not STRUCT"));
    };
    let mut failed: Vec<(u32, String)> = Vec::new();
    let mut columns = Vec::with_capacity(to.len());
    for field in to {
        let source = from.iter().position(|f| f.name == field.name).and_then(|i| Some((i, parts.columns().get(i)?)));
        let Some((index, column)) = source else {
            columns.push(new_null_array(&field.ty.to_arrow(), parts.len()));
            continue;
        };
        let (column, failures) = cast_array(column, &from[index].ty, &field.ty)?;
        let messages = failures.messages.into_iter().chain(std::iter::repeat(String::new()));
        failed.extend(failures.rows.into_iter().zip(messages));
        columns.push(column);
    }
    failed.sort_by_key(|(row, _)| *row);
    let mut failures = Failures::default();
    for (row, message) in failed {
        if parts.is_valid(row as usize) {
            failures.push(row as usize, || message);
        }
    }
    let nulls = with_failures(parts.nulls(), parts.len(), &failures);
    let made = StructArray::try_new_with_length(fields.clone(), columns, nulls, parts.len()).map_err(defect)?;
    Ok((Arc::new(made), failures))
}

//! One SQL value by itself, for literals, INSERT VALUES, REST rows and tests. The data path works on Arrow columns.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
    Int32Builder, Int64Builder, ListArray, MapArray, StringBuilder, StructArray, Time32MillisecondBuilder,
    TimestampMillisecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType,
    TimestampMillisecondType,
};

use crate::{Error, Result, SqlType};

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i32),
    BigInt(i64),
    Double(f64),
    Decimal {
        unscaled: i128,
        precision: u8,
        scale: u8,
    },
    String(String),
    Bytes(Vec<u8>),
    /// Days since the epoch.
    Date(i32),
    /// Milliseconds of the day.
    Time(i32),
    /// Milliseconds since the epoch.
    Timestamp(i64),
    Array(Vec<Value>),
    /// Entries in their order; keys are not NULL.
    Map(Vec<(Value, Value)>),
    /// Fields in the type's order.
    Struct(Vec<(String, Value)>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(i) => Some(i64::from(*i)),
            Self::BigInt(i) | Self::Timestamp(i) => Some(*i),
            _ => None,
        }
    }

    /// Order within one type; `None` across types and where a part has no order. NULL is first.
    pub fn partial_compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => Some(Ordering::Equal),
            (Self::Null, _) => Some(Ordering::Less),
            (_, Self::Null) => Some(Ordering::Greater),
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) | (Self::Date(a), Self::Date(b)) | (Self::Time(a), Self::Time(b)) => {
                Some(a.cmp(b))
            }
            (Self::BigInt(a), Self::BigInt(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => Some(a.total_cmp(b)),
            (Self::Decimal { unscaled: a, scale: s, .. }, Self::Decimal { unscaled: b, scale: t, .. }) if s == t => {
                Some(a.cmp(b))
            }
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Array(a), Self::Array(b)) => {
                for (x, y) in a.iter().zip(b) {
                    match x.partial_compare(y)? {
                        Ordering::Equal => {}
                        other => return Some(other),
                    }
                }
                Some(a.len().cmp(&b.len()))
            }
            _ => None,
        }
    }
}

/// One column of these values. A value of another type than `ty` is a `BadRequest`.
pub fn array_from_values(ty: &SqlType, values: &[Value]) -> Result<ArrayRef> {
    let wrong = |value: &Value| Error::bad_request(format!("{value:?} is not a value of type {ty}"));
    macro_rules! build {
        ($builder:expr, $($pattern:pat $(if $guard:expr)? => $item:expr),+) => {{
            let mut builder = $builder;
            for value in values {
                match value {
                    Value::Null => builder.append_null(),
                    $($pattern $(if $guard)? => builder.append_value($item),)+
                    other => return Err(wrong(other)),
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    let validity = || NullBuffer::from(values.iter().map(|v| !v.is_null()).collect::<Vec<bool>>());
    Ok(match ty {
        SqlType::Boolean => build!(BooleanBuilder::new(), Value::Boolean(b) => *b),
        SqlType::Integer => build!(Int32Builder::new(), Value::Integer(i) => *i),
        SqlType::BigInt => build!(Int64Builder::new(), Value::BigInt(i) => *i, Value::Integer(i) => i64::from(*i)),
        SqlType::Double => build!(Float64Builder::new(), Value::Double(d) => *d),
        SqlType::Decimal { scale, .. } => build!(
            Decimal128Builder::new().with_data_type(ty.to_arrow()),
            Value::Decimal { unscaled, scale: s, .. } if s == scale => *unscaled
        ),
        SqlType::String => build!(StringBuilder::new(), Value::String(s) => s),
        SqlType::Bytes => build!(BinaryBuilder::new(), Value::Bytes(b) => b),
        SqlType::Date => build!(Date32Builder::new(), Value::Date(d) => *d),
        SqlType::Time => build!(Time32MillisecondBuilder::new(), Value::Time(t) => *t),
        SqlType::Timestamp => build!(TimestampMillisecondBuilder::new(), Value::Timestamp(t) => *t),
        SqlType::Array(item) => {
            let mut items = Vec::new();
            let mut lengths = Vec::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Null => lengths.push(0),
                    Value::Array(these) => {
                        items.extend(these.iter().cloned());
                        lengths.push(these.len());
                    }
                    other => return Err(wrong(other)),
                }
            }
            let DataType::List(field) = ty.to_arrow() else { return Err(Error::bug("ARRAY is not a list")) };
            let items = array_from_values(item, &items)?;
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), items, Some(validity())))
        }
        SqlType::Map(key, item) => {
            let (mut keys, mut items) = (Vec::new(), Vec::new());
            let mut lengths = Vec::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Null => lengths.push(0),
                    Value::Map(entries) => {
                        for (k, v) in entries {
                            if k.is_null() {
                                return Err(Error::bad_request("a MAP has no NULL keys"));
                            }
                            keys.push(k.clone());
                            items.push(v.clone());
                        }
                        lengths.push(entries.len());
                    }
                    other => return Err(wrong(other)),
                }
            }
            let DataType::Map(field, sorted) = ty.to_arrow() else { return Err(Error::bug("MAP is not a map")) };
            let DataType::Struct(fields) = field.data_type().clone() else {
                return Err(Error::bug("a map's entries are not a struct"));
            };
            let columns = vec![array_from_values(key, &keys)?, array_from_values(item, &items)?];
            let entries = StructArray::new(fields, columns, None);
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(MapArray::new(field, offsets, entries, Some(validity()), sorted))
        }
        SqlType::Struct(fields) => {
            let mut columns = vec![Vec::with_capacity(values.len()); fields.len()];
            for value in values {
                match value {
                    Value::Null => columns.iter_mut().for_each(|c| c.push(Value::Null)),
                    Value::Struct(parts) => {
                        for (field, column) in fields.iter().zip(&mut columns) {
                            let part = parts.iter().find(|(name, _)| *name == field.name);
                            column.push(part.map_or(Value::Null, |(_, v)| v.clone()));
                        }
                    }
                    other => return Err(wrong(other)),
                }
            }
            let DataType::Struct(arrow_fields) = ty.to_arrow() else { return Err(Error::bug("STRUCT is no struct")) };
            let arrays = fields
                .iter()
                .zip(&columns)
                .map(|(field, column)| array_from_values(&field.ty, column))
                .collect::<Result<Vec<_>>>()?;
            Arc::new(
                StructArray::try_new_with_length(arrow_fields, arrays, Some(validity()), values.len())
                    .map_err(|e| Error::bug(format!("struct column: {e}")))?,
            )
        }
    })
}

/// The value in a row of a column that has the Arrow form of `ty`. Rows past the end and columns of another type
/// give NULL.
pub fn value_at(array: &dyn Array, ty: &SqlType, row: usize) -> Value {
    if row >= array.len() || array.is_null(row) || array.data_type() == &DataType::Null {
        return Value::Null;
    }
    macro_rules! primitive {
        ($t:ty, $make:expr) => {
            array.as_primitive_opt::<$t>().map_or(Value::Null, |a| $make(a.value(row)))
        };
    }
    match ty {
        SqlType::Boolean => array.as_boolean_opt().map_or(Value::Null, |a| Value::Boolean(a.value(row))),
        SqlType::Integer => primitive!(Int32Type, Value::Integer),
        SqlType::BigInt => primitive!(Int64Type, Value::BigInt),
        SqlType::Double => primitive!(Float64Type, Value::Double),
        SqlType::Decimal { precision, scale } => {
            primitive!(Decimal128Type, |unscaled| Value::Decimal { unscaled, precision: *precision, scale: *scale })
        }
        SqlType::String => array.as_string_opt::<i32>().map_or(Value::Null, |a| Value::String(a.value(row).into())),
        SqlType::Bytes => array.as_binary_opt::<i32>().map_or(Value::Null, |a| Value::Bytes(a.value(row).into())),
        SqlType::Date => primitive!(Date32Type, Value::Date),
        SqlType::Time => primitive!(Time32MillisecondType, Value::Time),
        SqlType::Timestamp => primitive!(TimestampMillisecondType, Value::Timestamp),
        SqlType::Array(item) => array.as_list_opt::<i32>().map_or(Value::Null, |list| {
            let items = list.value(row);
            Value::Array((0..items.len()).map(|i| value_at(&items, item, i)).collect())
        }),
        SqlType::Map(key, item) => array.as_map_opt().map_or(Value::Null, |map| {
            let entries = map.value(row);
            let (keys, items) = (entries.column(0), entries.column(1));
            Value::Map((0..entries.len()).map(|i| (value_at(keys, key, i), value_at(items, item, i))).collect())
        }),
        SqlType::Struct(fields) => array.as_struct_opt().map_or(Value::Null, |parts| {
            Value::Struct(
                fields
                    .iter()
                    .zip(parts.columns())
                    .map(|(field, column)| (field.name.clone(), value_at(column, &field.ty, row)))
                    .collect(),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;

    #[test]
    fn nested_values_survive_arrow() {
        let ty = SqlType::Struct(vec![
            Field::new("A", SqlType::array(SqlType::Integer)),
            Field::new("M", SqlType::map(SqlType::String, SqlType::decimal(5, 2))),
        ]);
        let decimal = Value::Decimal { unscaled: 1230, precision: 5, scale: 2 };
        let values = vec![
            Value::Struct(vec![
                ("A".into(), Value::Array(vec![Value::Integer(1), Value::Null])),
                (
                    "M".into(),
                    Value::Map(vec![(Value::String("k".into()), decimal), (Value::String("n".into()), Value::Null)]),
                ),
            ]),
            Value::Null,
            Value::Struct(vec![("A".into(), Value::Null), ("M".into(), Value::Map(vec![]))]),
        ];
        let array = array_from_values(&ty, &values).unwrap();
        let back: Vec<Value> = (0..3).map(|row| value_at(&array, &ty, row)).collect();
        assert_eq!(back, values);
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        assert!(array_from_values(&SqlType::Integer, &[Value::String("1".into())]).is_err());
    }
}

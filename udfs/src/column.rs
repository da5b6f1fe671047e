//! Result columns under construction: component values in, Arrow out.
//!
//! Invariant: a value that is refused leaves no trace, however deep the refused part lies.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray,
    StringArray, StructArray, Time32MillisecondArray, TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use wasmtime::component::Val;

use millpond_types::{Error, Result};

use crate::WitType;

const DAY_MS: i32 = 86_400_000;

pub(crate) struct Column {
    ty: WitType,
    valid: Vec<bool>,
    data: Data,
}

pub(crate) enum Data {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Date(Vec<i32>),
    Time(Vec<i32>),
    Timestamp(Vec<i64>),
    Text(Bytes),
    Binary(Bytes),
    List(Vec<i32>, Box<Column>),
    /// Keys are never NULL.
    Map(Vec<i32>, Bytes, Box<Column>),
    Struct(Vec<Column>),
}

/// Values of any length, end to end.
pub(crate) struct Bytes {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn with_capacity(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { ends, bytes: Vec::new() }
    }

    pub(crate) fn push(&mut self, value: &[u8]) -> Result<(), String> {
        let end = self.bytes.len() + value.len();
        let end = i32::try_from(end).map_err(|_| "the batch's results are larger than 2 GiB".to_string())?;
        self.bytes.extend_from_slice(value);
        self.ends.push(end);
        Ok(())
    }

    fn push_empty(&mut self) {
        self.ends.push(self.ends.last().copied().unwrap_or(0));
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0) as usize);
    }

    fn finish(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes))
    }
}

impl Column {
    pub(crate) fn new(ty: &WitType, rows: usize) -> Self {
        let data = match ty {
            WitType::Option(inner) => {
                let inner = Self::new(inner, rows);
                return Self { ty: ty.clone(), valid: inner.valid, data: inner.data };
            }
            WitType::Bool => Data::Bool(Vec::with_capacity(rows)),
            WitType::U8 | WitType::U16 | WitType::S8 | WitType::S16 | WitType::S32 => {
                Data::Int32(Vec::with_capacity(rows))
            }
            WitType::U32 | WitType::U64 | WitType::S64 => Data::Int64(Vec::with_capacity(rows)),
            WitType::F32 | WitType::F64 => Data::Float64(Vec::with_capacity(rows)),
            WitType::Date => Data::Date(Vec::with_capacity(rows)),
            WitType::Time => Data::Time(Vec::with_capacity(rows)),
            WitType::Timestamp => Data::Timestamp(Vec::with_capacity(rows)),
            WitType::Char | WitType::String | WitType::Enum(_) | WitType::Decimal => {
                Data::Text(Bytes::with_capacity(rows))
            }
            WitType::Bytes => Data::Binary(Bytes::with_capacity(rows)),
            WitType::List(item) => Data::List(first_offset(rows), Box::new(Self::new(item, rows))),
            WitType::Pairs(value) | WitType::Map(value) => {
                Data::Map(first_offset(rows), Bytes::with_capacity(rows), Box::new(Self::new(value, rows)))
            }
            WitType::Record(fields) => Data::Struct(fields.iter().map(|(_, ty)| Self::new(ty, rows)).collect()),
            WitType::Tuple(types) => Data::Struct(types.iter().map(|ty| Self::new(ty, rows)).collect()),
        };
        Self { ty: ty.clone(), valid: Vec::with_capacity(rows), data }
    }

    pub(crate) fn len(&self) -> usize {
        self.valid.len()
    }

    /// For values of a type that the caller knows statically.
    pub(crate) fn push_with(&mut self, push: impl FnOnce(&mut Data) -> Result<(), String>) -> Result<(), String> {
        push(&mut self.data)?;
        self.valid.push(true);
        Ok(())
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.data {
            Data::Bool(values) => values.push(false),
            Data::Int32(values) | Data::Date(values) | Data::Time(values) => values.push(0),
            Data::Int64(values) | Data::Timestamp(values) => values.push(0),
            Data::Float64(values) => values.push(0.0),
            Data::Text(values) | Data::Binary(values) => values.push_empty(),
            Data::List(ends, _) | Data::Map(ends, ..) => ends.push(ends.last().copied().unwrap_or(0)),
            Data::Struct(fields) => fields.iter_mut().for_each(Column::push_null),
        }
        self.valid.push(false);
    }

    /// The error is for the row; nothing was pushed then.
    pub(crate) fn push(&mut self, value: &Val) -> Result<(), String> {
        let rows = self.len();
        let pushed = self.push_value(value);
        if pushed.is_err() {
            self.truncate(rows);
        }
        pushed
    }

    fn push_value(&mut self, value: &Val) -> Result<(), String> {
        let value = match value {
            Val::Option(None) => {
                self.push_null();
                return Ok(());
            }
            Val::Option(Some(value)) => value,
            value => value,
        };
        match (&mut self.data, value) {
            (Data::Bool(values), Val::Bool(v)) => values.push(*v),
            (Data::Int32(values), Val::S32(v)) => values.push(*v),
            (Data::Int32(values), Val::S16(v)) => values.push(i32::from(*v)),
            (Data::Int32(values), Val::S8(v)) => values.push(i32::from(*v)),
            (Data::Int32(values), Val::U16(v)) => values.push(i32::from(*v)),
            (Data::Int32(values), Val::U8(v)) => values.push(i32::from(*v)),
            (Data::Int64(values), Val::S64(v)) => values.push(*v),
            (Data::Int64(values), Val::U32(v)) => values.push(i64::from(*v)),
            (Data::Int64(values), Val::U64(v)) => {
                values.push(i64::try_from(*v).map_err(|_| format!("{v} is out of range for BIGINT"))?);
            }
            (Data::Float64(values), Val::Float64(v)) => values.push(*v),
            (Data::Float64(values), Val::Float32(v)) => values.push(f64::from(*v)),
            (Data::Date(values), Val::S32(v)) => values.push(*v),
            (Data::Time(values), Val::S32(v)) if (0..DAY_MS).contains(v) => values.push(*v),
            (Data::Time(_), Val::S32(v)) => return Err(format!("{v} ms is out of range for TIME")),
            (Data::Timestamp(values), Val::S64(v)) => values.push(*v),
            (Data::Text(values), Val::String(v) | Val::Enum(v)) => values.push(v.as_bytes())?,
            (Data::Text(values), Val::Char(v)) => values.push(v.encode_utf8(&mut [0; 4]).as_bytes())?,
            (Data::Binary(values), Val::List(bytes)) => {
                let bytes: Option<Vec<u8>> =
                    bytes.iter().map(|b| if let Val::U8(b) = b { Some(*b) } else { None }).collect();
                values.push(&bytes.ok_or_else(wrong_type)?)?;
            }
            (Data::List(ends, items), Val::List(values)) => {
                for value in values {
                    items.push_value(value)?;
                }
                ends.push(end_of(items.len())?);
            }
            (Data::Map(ends, keys, values), Val::List(pairs)) => {
                let pairs = pairs.iter().map(|pair| match pair {
                    Val::Tuple(parts) => match parts.as_slice() {
                        [Val::String(key), value] => Some((key.as_str(), value)),
                        _ => None,
                    },
                    _ => None,
                });
                push_entries(ends, keys, values, pairs)?;
            }
            (Data::Map(ends, keys, values), Val::Map(pairs)) => {
                let pairs = pairs.iter().map(|(key, value)| match key {
                    Val::String(key) => Some((key.as_str(), value)),
                    _ => None,
                });
                push_entries(ends, keys, values, pairs)?;
            }
            (Data::Struct(columns), Val::Record(fields)) if columns.len() == fields.len() => {
                for (column, (_, value)) in columns.iter_mut().zip(fields) {
                    column.push_value(value)?;
                }
            }
            (Data::Struct(columns), Val::Tuple(values)) if columns.len() == values.len() => {
                for (column, value) in columns.iter_mut().zip(values) {
                    column.push_value(value)?;
                }
            }
            _ => return Err(wrong_type()),
        }
        self.valid.push(true);
        Ok(())
    }

    /// Also mends a column of which parts were pushed and others not.
    fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.data {
            Data::Bool(values) => values.truncate(rows),
            Data::Int32(values) | Data::Date(values) | Data::Time(values) => values.truncate(rows),
            Data::Int64(values) | Data::Timestamp(values) => values.truncate(rows),
            Data::Float64(values) => values.truncate(rows),
            Data::Text(values) | Data::Binary(values) => values.truncate(rows),
            Data::List(ends, items) => {
                ends.truncate(rows + 1);
                items.truncate(ends.last().copied().unwrap_or(0) as usize);
            }
            Data::Map(ends, keys, values) => {
                ends.truncate(rows + 1);
                let entries = ends.last().copied().unwrap_or(0) as usize;
                keys.truncate(entries);
                values.truncate(entries);
            }
            Data::Struct(columns) => columns.iter_mut().for_each(|column| column.truncate(rows)),
        }
    }

    /// The column as the engine's batches have it.
    pub(crate) fn finish(self) -> Result<ArrayRef> {
        let ty = self.ty.sql_type().ok_or_else(|| Error::bug("a result without a SQL type was called for"))?;
        self.finish_as(&ty.to_arrow())
    }

    fn finish_as(self, ty: &DataType) -> Result<ArrayRef> {
        let nulls =
            if self.valid.iter().all(|valid| *valid) { None } else { Some(NullBuffer::from(self.valid.as_slice())) };
        let rows = self.valid.len();
        Ok(match self.data {
            Data::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Data::Int32(values) => Arc::new(Int32Array::new(values.into(), nulls)),
            Data::Int64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Data::Float64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Data::Date(values) => Arc::new(Date32Array::new(values.into(), nulls)),
            Data::Time(values) => Arc::new(Time32MillisecondArray::new(values.into(), nulls)),
            Data::Timestamp(values) => Arc::new(TimestampMillisecondArray::new(values.into(), nulls)),
            Data::Text(values) => Arc::new(text(values, nulls)?),
            Data::Binary(values) => {
                let (offsets, bytes) = values.finish();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls).map_err(arrow)?)
            }
            Data::List(ends, items) => {
                let DataType::List(item) = ty else { return Err(mismatch(ty)) };
                let items = items.finish_as(item.data_type())?;
                Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::new(ends.into()), items, nulls).map_err(arrow)?)
            }
            Data::Map(ends, keys, values) => {
                let DataType::Map(entries, _) = ty else { return Err(mismatch(ty)) };
                let DataType::Struct(fields) = entries.data_type() else { return Err(mismatch(ty)) };
                let value_type = fields.get(1).map(|f| f.data_type().clone()).ok_or_else(|| mismatch(ty))?;
                let columns: Vec<ArrayRef> = vec![Arc::new(text(keys, None)?), values.finish_as(&value_type)?];
                let pairs = StructArray::try_new(fields.clone(), columns, None).map_err(arrow)?;
                let map = MapArray::try_new(entries.clone(), OffsetBuffer::new(ends.into()), pairs, nulls, false);
                Arc::new(map.map_err(arrow)?)
            }
            Data::Struct(columns) => {
                let DataType::Struct(fields) = ty else { return Err(mismatch(ty)) };
                let arrays = columns
                    .into_iter()
                    .zip(fields.iter())
                    .map(|(column, field)| column.finish_as(field.data_type()))
                    .collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, rows).map_err(arrow)?)
            }
        })
    }
}

fn first_offset(rows: usize) -> Vec<i32> {
    let mut ends = Vec::with_capacity(rows + 1);
    ends.push(0);
    ends
}

fn end_of(len: usize) -> Result<i32, String> {
    i32::try_from(len).map_err(|_| "the batch's results have more than 2^31 items".to_string())
}

/// Of several entries with one key the last counts, in the place of the first, as SQL's maps have it.
fn push_entries<'a>(
    ends: &mut Vec<i32>,
    keys: &mut Bytes,
    values: &mut Column,
    pairs: impl Iterator<Item = Option<(&'a str, &'a Val)>>,
) -> Result<(), String> {
    let mut entries: indexmap::IndexMap<&str, &Val> = indexmap::IndexMap::new();
    for pair in pairs {
        let (key, value) = pair.ok_or_else(wrong_type)?;
        entries.insert(key, value);
    }
    for (key, value) in entries {
        keys.push(key.as_bytes())?;
        values.push_value(value)?;
    }
    ends.push(end_of(values.len())?);
    Ok(())
}

fn text(values: Bytes, nulls: Option<NullBuffer>) -> Result<StringArray> {
    let (offsets, bytes) = values.finish();
    StringArray::try_new(offsets, bytes, nulls).map_err(arrow)
}

fn wrong_type() -> String {
    "the function answered with another type than it declares".to_string()
}

fn mismatch(ty: &DataType) -> Error {
    Error::bug(format!("a result column does not fit its type {ty}"))
}

fn arrow(error: arrow::error::ArrowError) -> Error {
    Error::bug(format!("a result column cannot be built: {error}"))
}

//! Cells of Arrow columns as bytes of state, and back.
//!
//! Two encodings, both our own and both part of the on-disk format, so that they change only with a new version byte
//! (see `state::key` and `state::row`):
//!
//! ```text
//! key form (compares as the values do)      value form (short)
//! NULL            00                         00
//! not NULL        01 payload                 01 payload
//! BOOLEAN         00 | 01                    00 | 01
//! INTEGER         4 bytes, big endian,       zigzag varint
//!  DATE, TIME     sign bit flipped
//! BIGINT          8 bytes, likewise          zigzag varint
//!  TIMESTAMP
//! DOUBLE          8 bytes, big endian;       8 bytes, little endian
//!                 not negative: sign bit
//!                 flipped, else all bits
//! DECIMAL         16 bytes, big endian,      16 bytes, little endian
//!                 sign bit flipped
//! STRING, BYTES   bytes, 00 as 00 FF;        varint length, bytes
//!                 end 00 01
//! ARRAY           per item 01 cell; end 00   varint count, cells
//! MAP             per entry 01 key value;    varint count, per entry key, value
//!                 end 00
//! STRUCT          fields in order            fields in order
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, ListArray, MapArray,
    PrimitiveArray, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit,
    TimestampMillisecondType,
};
use millpond_types::record::{put_varint, take_varint};
use millpond_types::{Error, Result, SqlType};

/// A column with its type found once.
pub enum Cells<'a> {
    Boolean(&'a BooleanArray),
    I32(&'a [i32], Option<&'a NullBuffer>),
    I64(&'a [i64], Option<&'a NullBuffer>),
    F64(&'a [f64], Option<&'a NullBuffer>),
    I128(&'a [i128], Option<&'a NullBuffer>),
    String(&'a StringArray),
    Bytes(&'a BinaryArray),
    List(&'a ListArray, Box<Cells<'a>>),
    Map(&'a MapArray, Box<(Cells<'a>, Cells<'a>)>),
    Struct(&'a StructArray, Vec<Cells<'a>>),
}

fn valid(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_none_or(|n| n.is_valid(row))
}

impl<'a> Cells<'a> {
    pub fn new(array: &'a dyn Array) -> Result<Self> {
        let nulls = array.nulls();
        Ok(match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int32 => Self::I32(array.as_primitive::<Int32Type>().values(), nulls),
            DataType::Date32 => Self::I32(array.as_primitive::<Date32Type>().values(), nulls),
            DataType::Time32(TimeUnit::Millisecond) => {
                Self::I32(array.as_primitive::<Time32MillisecondType>().values(), nulls)
            }
            DataType::Int64 => Self::I64(array.as_primitive::<Int64Type>().values(), nulls),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::I64(array.as_primitive::<TimestampMillisecondType>().values(), nulls)
            }
            DataType::Float64 => Self::F64(array.as_primitive::<Float64Type>().values(), nulls),
            DataType::Decimal128(..) => Self::I128(array.as_primitive::<Decimal128Type>().values(), nulls),
            DataType::Utf8 => Self::String(array.as_string::<i32>()),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Self::List(list, Box::new(Self::new(list.values().as_ref())?))
            }
            DataType::Map(..) => {
                let map = array.as_map();
                Self::Map(map, Box::new((Self::new(map.keys().as_ref())?, Self::new(map.values().as_ref())?)))
            }
            DataType::Struct(_) => {
                let parts = array.as_struct();
                let fields = parts.columns().iter().map(|c| Self::new(c.as_ref())).collect::<Result<_>>()?;
                Self::Struct(parts, fields)
            }
            other => return Err(Error::bug(format!("a column of Arrow type {other} cannot be kept in state"))),
        })
    }

    pub fn of(columns: &'a [ArrayRef]) -> Result<Vec<Self>> {
        columns.iter().map(|c| Self::new(c.as_ref())).collect()
    }

    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(a) => a.is_null(row),
            Self::I32(_, n) | Self::I64(_, n) | Self::F64(_, n) | Self::I128(_, n) => !valid(*n, row),
            Self::String(a) => a.is_null(row),
            Self::Bytes(a) => a.is_null(row),
            Self::List(a, _) => a.is_null(row),
            Self::Map(a, _) => a.is_null(row),
            Self::Struct(a, _) => a.is_null(row),
        }
    }

    /// Appends the key form.
    pub fn put_key(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        match self {
            Self::Boolean(a) => out.push(u8::from(a.value(row))),
            Self::I32(v, _) => out.extend_from_slice(&(v[row] as u32 ^ 1 << 31).to_be_bytes()),
            Self::I64(v, _) => put_key_i64(v[row], out),
            Self::F64(v, _) => {
                let bits = v[row].to_bits();
                let ordered = if bits >> 63 == 0 { bits ^ 1 << 63 } else { !bits };
                out.extend_from_slice(&ordered.to_be_bytes());
            }
            Self::I128(v, _) => out.extend_from_slice(&(v[row] as u128 ^ 1 << 127).to_be_bytes()),
            Self::String(a) => put_key_bytes(a.value(row).as_bytes(), out),
            Self::Bytes(a) => put_key_bytes(a.value(row), out),
            Self::List(a, items) => {
                let offsets = a.value_offsets();
                for i in offsets[row]..offsets[row + 1] {
                    out.push(1);
                    items.put_key(i as usize, out);
                }
                out.push(0);
            }
            Self::Map(a, entries) => {
                let offsets = a.value_offsets();
                for i in offsets[row]..offsets[row + 1] {
                    out.push(1);
                    entries.0.put_key(i as usize, out);
                    entries.1.put_key(i as usize, out);
                }
                out.push(0);
            }
            Self::Struct(_, fields) => fields.iter().for_each(|f| f.put_key(row, out)),
        }
    }

    /// Appends the value form.
    pub fn put_value(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        match self {
            Self::Boolean(a) => out.push(u8::from(a.value(row))),
            Self::I32(v, _) => put_varint(out, i64::from(v[row])),
            Self::I64(v, _) => put_varint(out, v[row]),
            Self::F64(v, _) => out.extend_from_slice(&v[row].to_bits().to_le_bytes()),
            Self::I128(v, _) => out.extend_from_slice(&v[row].to_le_bytes()),
            Self::String(a) => put_bytes(a.value(row).as_bytes(), out),
            Self::Bytes(a) => put_bytes(a.value(row), out),
            Self::List(a, items) => {
                let offsets = a.value_offsets();
                put_varint(out, i64::from(offsets[row + 1] - offsets[row]));
                (offsets[row]..offsets[row + 1]).for_each(|i| items.put_value(i as usize, out));
            }
            Self::Map(a, entries) => {
                let offsets = a.value_offsets();
                put_varint(out, i64::from(offsets[row + 1] - offsets[row]));
                for i in offsets[row]..offsets[row + 1] {
                    entries.0.put_value(i as usize, out);
                    entries.1.put_value(i as usize, out);
                }
            }
            Self::Struct(_, fields) => fields.iter().for_each(|f| f.put_value(row, out)),
        }
    }
}

pub fn put_key_i64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value as u64 ^ 1 << 63).to_be_bytes());
}

pub fn take_key_i64(bytes: &mut &[u8]) -> Result<i64> {
    Ok((u64::from_be_bytes(take_array(bytes)?) ^ 1 << 63) as i64)
}

/// Bytes of any length so that they compare as themselves and nothing is a prefix of another.
pub fn put_key_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for &b in bytes {
        out.push(b);
        if b == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

pub fn take_key_bytes(bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    loop {
        match take_u8(bytes)? {
            0 => match take_u8(bytes)? {
                0xff => value.push(0),
                1 => return Ok(value),
                _ => return Err(cut()),
            },
            b => value.push(b),
        }
    }
}

pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn cut() -> Error {
    Error::corrupt("an entry of state is damaged")
}

pub fn take_u8(bytes: &mut &[u8]) -> Result<u8> {
    let (&b, rest) = bytes.split_first().ok_or_else(cut)?;
    *bytes = rest;
    Ok(b)
}

pub fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(cut)?;
    *bytes = rest;
    Ok(*head)
}

pub fn take_int(bytes: &mut &[u8]) -> Result<i64> {
    take_varint(bytes).ok_or_else(cut)
}

pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let len = usize::try_from(take_int(bytes)?).map_err(|_| cut())?;
    let (head, rest) = bytes.split_at_checked(len).ok_or_else(cut)?;
    *bytes = rest;
    Ok(head)
}

/// A column that grows by cells in either form.
pub struct CellsBuilder {
    ty: SqlType,
    kind: BuilderKind,
}

enum BuilderKind {
    Boolean(BooleanBuilder),
    I32(Vec<i32>, Validity),
    I64(Vec<i64>, Validity),
    F64(Vec<f64>, Validity),
    I128(Vec<i128>, Validity),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    List(Vec<i32>, Box<CellsBuilder>, Validity),
    Map(Vec<i32>, Box<(CellsBuilder, CellsBuilder)>, Validity),
    Struct(Vec<CellsBuilder>, Validity),
}

#[derive(Default)]
struct Validity {
    bits: Vec<bool>,
    nulls: bool,
}

impl Validity {
    fn push(&mut self, valid: bool) {
        self.bits.push(valid);
        self.nulls |= !valid;
    }

    fn finish(self) -> Option<NullBuffer> {
        self.nulls.then(|| NullBuffer::from(self.bits))
    }
}

impl CellsBuilder {
    pub fn new(ty: &SqlType) -> Self {
        let validity = Validity::default;
        let kind = match ty {
            SqlType::Boolean => BuilderKind::Boolean(BooleanBuilder::new()),
            SqlType::Integer | SqlType::Date | SqlType::Time => BuilderKind::I32(Vec::new(), validity()),
            SqlType::BigInt | SqlType::Timestamp => BuilderKind::I64(Vec::new(), validity()),
            SqlType::Double => BuilderKind::F64(Vec::new(), validity()),
            SqlType::Decimal { .. } => BuilderKind::I128(Vec::new(), validity()),
            SqlType::String => BuilderKind::String(StringBuilder::new()),
            SqlType::Bytes => BuilderKind::Bytes(BinaryBuilder::new()),
            SqlType::Array(item) => BuilderKind::List(vec![0], Box::new(Self::new(item)), validity()),
            SqlType::Map(key, value) => {
                BuilderKind::Map(vec![0], Box::new((Self::new(key), Self::new(value))), validity())
            }
            SqlType::Struct(fields) => {
                BuilderKind::Struct(fields.iter().map(|f| Self::new(&f.ty)).collect(), validity())
            }
        };
        Self { ty: ty.clone(), kind }
    }

    pub fn len(&self) -> usize {
        match &self.kind {
            BuilderKind::Boolean(b) => arrow::array::ArrayBuilder::len(b),
            BuilderKind::I32(v, _) => v.len(),
            BuilderKind::I64(v, _) => v.len(),
            BuilderKind::F64(v, _) => v.len(),
            BuilderKind::I128(v, _) => v.len(),
            BuilderKind::String(b) => arrow::array::ArrayBuilder::len(b),
            BuilderKind::Bytes(b) => arrow::array::ArrayBuilder::len(b),
            BuilderKind::List(offsets, ..) | BuilderKind::Map(offsets, ..) => offsets.len() - 1,
            BuilderKind::Struct(_, validity) => validity.bits.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn append_null(&mut self) {
        match &mut self.kind {
            BuilderKind::Boolean(b) => b.append_null(),
            BuilderKind::I32(v, n) => (v.push(0), n.push(false)).1,
            BuilderKind::I64(v, n) => (v.push(0), n.push(false)).1,
            BuilderKind::F64(v, n) => (v.push(0.0), n.push(false)).1,
            BuilderKind::I128(v, n) => (v.push(0), n.push(false)).1,
            BuilderKind::String(b) => b.append_null(),
            BuilderKind::Bytes(b) => b.append_null(),
            BuilderKind::List(offsets, _, n) | BuilderKind::Map(offsets, _, n) => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                n.push(false);
            }
            BuilderKind::Struct(fields, n) => {
                fields.iter_mut().for_each(Self::append_null);
                n.push(false);
            }
        }
    }

    /// Takes a cell in key form from the front.
    pub fn take_key(&mut self, bytes: &mut &[u8]) -> Result<()> {
        if take_u8(bytes)? == 0 {
            self.append_null();
            return Ok(());
        }
        match &mut self.kind {
            BuilderKind::Boolean(b) => b.append_value(take_u8(bytes)? != 0),
            BuilderKind::I32(v, n) => {
                v.push((u32::from_be_bytes(take_array(bytes)?) ^ 1 << 31) as i32);
                n.push(true);
            }
            BuilderKind::I64(v, n) => {
                v.push(take_key_i64(bytes)?);
                n.push(true);
            }
            BuilderKind::F64(v, n) => {
                let ordered = u64::from_be_bytes(take_array(bytes)?);
                let bits = if ordered >> 63 == 1 { ordered ^ 1 << 63 } else { !ordered };
                v.push(f64::from_bits(bits));
                n.push(true);
            }
            BuilderKind::I128(v, n) => {
                v.push((u128::from_be_bytes(take_array(bytes)?) ^ 1 << 127) as i128);
                n.push(true);
            }
            BuilderKind::String(b) => {
                b.append_value(String::from_utf8(take_key_bytes(bytes)?).map_err(|_| cut())?);
            }
            BuilderKind::Bytes(b) => b.append_value(take_key_bytes(bytes)?),
            BuilderKind::List(offsets, items, n) => {
                while take_u8(bytes)? == 1 {
                    items.take_key(bytes)?;
                }
                offsets.push(i32::try_from(items.len()).map_err(|_| cut())?);
                n.push(true);
            }
            BuilderKind::Map(offsets, entries, n) => {
                while take_u8(bytes)? == 1 {
                    entries.0.take_key(bytes)?;
                    entries.1.take_key(bytes)?;
                }
                offsets.push(i32::try_from(entries.0.len()).map_err(|_| cut())?);
                n.push(true);
            }
            BuilderKind::Struct(fields, n) => {
                for field in fields {
                    field.take_key(bytes)?;
                }
                n.push(true);
            }
        }
        Ok(())
    }

    /// Takes a cell in value form from the front.
    pub fn take_value(&mut self, bytes: &mut &[u8]) -> Result<()> {
        if take_u8(bytes)? == 0 {
            self.append_null();
            return Ok(());
        }
        match &mut self.kind {
            BuilderKind::Boolean(b) => b.append_value(take_u8(bytes)? != 0),
            BuilderKind::I32(v, n) => {
                v.push(take_int(bytes)? as i32);
                n.push(true);
            }
            BuilderKind::I64(v, n) => {
                v.push(take_int(bytes)?);
                n.push(true);
            }
            BuilderKind::F64(v, n) => {
                v.push(f64::from_bits(u64::from_le_bytes(take_array(bytes)?)));
                n.push(true);
            }
            BuilderKind::I128(v, n) => {
                v.push(i128::from_le_bytes(take_array(bytes)?));
                n.push(true);
            }
            BuilderKind::String(b) => b.append_value(std::str::from_utf8(take_bytes(bytes)?).map_err(|_| cut())?),
            BuilderKind::Bytes(b) => b.append_value(take_bytes(bytes)?),
            BuilderKind::List(offsets, items, n) => {
                for _ in 0..take_int(bytes)? {
                    items.take_value(bytes)?;
                }
                offsets.push(i32::try_from(items.len()).map_err(|_| cut())?);
                n.push(true);
            }
            BuilderKind::Map(offsets, entries, n) => {
                for _ in 0..take_int(bytes)? {
                    entries.0.take_value(bytes)?;
                    entries.1.take_value(bytes)?;
                }
                offsets.push(i32::try_from(entries.0.len()).map_err(|_| cut())?);
                n.push(true);
            }
            BuilderKind::Struct(fields, n) => {
                for field in fields {
                    field.take_value(bytes)?;
                }
                n.push(true);
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<ArrayRef> {
        macro_rules! primitive {
            ($t:ty, $values:expr, $validity:expr) => {
                Arc::new(PrimitiveArray::<$t>::new($values.into(), $validity.finish())) as ArrayRef
            };
        }
        let built = |e: arrow::error::ArrowError| Error::bug(format!("a column from state: {e}"));
        let arrow_type = self.ty.to_arrow();
        Ok(match (self.kind, &self.ty) {
            (BuilderKind::Boolean(mut b), _) => Arc::new(b.finish()),
            (BuilderKind::I32(v, n), SqlType::Date) => primitive!(Date32Type, v, n),
            (BuilderKind::I32(v, n), SqlType::Time) => primitive!(Time32MillisecondType, v, n),
            (BuilderKind::I32(v, n), _) => primitive!(Int32Type, v, n),
            (BuilderKind::I64(v, n), SqlType::Timestamp) => primitive!(TimestampMillisecondType, v, n),
            (BuilderKind::I64(v, n), _) => primitive!(Int64Type, v, n),
            (BuilderKind::F64(v, n), _) => primitive!(Float64Type, v, n),
            (BuilderKind::I128(v, n), _) => {
                Arc::new(PrimitiveArray::<Decimal128Type>::new(v.into(), n.finish()).with_data_type(arrow_type))
            }
            (BuilderKind::String(mut b), _) => Arc::new(b.finish()),
            (BuilderKind::Bytes(mut b), _) => Arc::new(b.finish()),
            (BuilderKind::List(offsets, items, n), _) => {
                let DataType::List(field) = arrow_type else { return Err(Error::bug("ARRAY is not a list")) };
                let offsets = OffsetBuffer::new(offsets.into());
                Arc::new(ListArray::try_new(field, offsets, items.finish()?, n.finish()).map_err(built)?)
            }
            (BuilderKind::Map(offsets, entries, n), _) => {
                let DataType::Map(field, sorted) = arrow_type else { return Err(Error::bug("MAP is not a map")) };
                let DataType::Struct(fields) = field.data_type().clone() else {
                    return Err(Error::bug("a map's entries are not a struct"));
                };
                let columns = vec![entries.0.finish()?, entries.1.finish()?];
                let entries = StructArray::try_new(fields, columns, None).map_err(built)?;
                let offsets = OffsetBuffer::new(offsets.into());
                Arc::new(MapArray::try_new(field, offsets, entries, n.finish(), sorted).map_err(built)?)
            }
            (BuilderKind::Struct(fields, n), _) => {
                let DataType::Struct(arrow_fields) = arrow_type else {
                    return Err(Error::bug("STRUCT is not a struct"));
                };
                let len = n.bits.len();
                let columns = fields.into_iter().map(Self::finish).collect::<Result<_>>()?;
                Arc::new(StructArray::try_new_with_length(arrow_fields, columns, n.finish(), len).map_err(built)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use millpond_types::Value;
    use millpond_types::value::{array_from_values, value_at};

    use super::*;

    fn round_trip(ty: &SqlType, values: &[Value]) -> Vec<Vec<u8>> {
        let array = array_from_values(ty, values).unwrap();
        let cells = Cells::new(array.as_ref()).unwrap();
        let (mut keys, mut by_key, mut by_value) = (Vec::new(), CellsBuilder::new(ty), CellsBuilder::new(ty));
        for row in 0..values.len() {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            cells.put_key(row, &mut key);
            cells.put_value(row, &mut value);
            let (mut k, mut v) = (key.as_slice(), value.as_slice());
            by_key.take_key(&mut k).unwrap();
            by_value.take_value(&mut v).unwrap();
            assert!(k.is_empty() && v.is_empty());
            keys.push(key);
        }
        for array in [by_key.finish().unwrap(), by_value.finish().unwrap()] {
            let back: Vec<Value> = (0..values.len()).map(|row| value_at(&array, ty, row)).collect();
            assert_eq!(back, values);
        }
        keys
    }

    #[test]
    fn keys_compare_as_values_do() {
        let string = |s: &str| Value::String(s.into());
        let cases: Vec<(SqlType, Vec<Value>)> = vec![
            (SqlType::Boolean, vec![Value::Null, Value::Boolean(false), Value::Boolean(true)]),
            (SqlType::Integer, vec![Value::Null, Value::Integer(i32::MIN), Value::Integer(-1), Value::Integer(7)]),
            (SqlType::BigInt, vec![Value::BigInt(i64::MIN), Value::BigInt(0), Value::BigInt(i64::MAX)]),
            (
                SqlType::Double,
                vec![
                    Value::Double(f64::NEG_INFINITY),
                    Value::Double(-1.5),
                    Value::Double(0.0),
                    Value::Double(1e-300),
                    Value::Double(f64::INFINITY),
                ],
            ),
            (
                SqlType::String,
                vec![Value::Null, string(""), string("\0"), string("\0a"), string("a"), string("a\0"), string("ab")],
            ),
            (
                SqlType::array(SqlType::Integer),
                vec![
                    Value::Array(vec![]),
                    Value::Array(vec![Value::Null]),
                    Value::Array(vec![Value::Integer(1)]),
                    Value::Array(vec![Value::Integer(1), Value::Integer(0)]),
                    Value::Array(vec![Value::Integer(2)]),
                ],
            ),
            (SqlType::Timestamp, vec![Value::Timestamp(-1), Value::Timestamp(1)]),
        ];
        for (ty, values) in cases {
            let keys = round_trip(&ty, &values);
            assert!(keys.windows(2).all(|w| w[0] < w[1] && !w[1].starts_with(&w[0])), "{ty}: {keys:?}");
        }
    }

    #[test]
    fn nested_cells_survive() {
        let ty = SqlType::Struct(vec![
            millpond_types::Field::new("A", SqlType::map(SqlType::String, SqlType::decimal(5, 2))),
            millpond_types::Field::new("B", SqlType::Bytes),
        ]);
        let decimal = Value::Decimal { unscaled: -1230, precision: 5, scale: 2 };
        round_trip(
            &ty,
            &[
                Value::Struct(vec![
                    ("A".into(), Value::Map(vec![(Value::String("k".into()), decimal)])),
                    ("B".into(), Value::Bytes(vec![0, 1, 0])),
                ]),
                Value::Null,
                Value::Struct(vec![("A".into(), Value::Null), ("B".into(), Value::Null)]),
            ],
        );
    }

    #[test]
    fn damaged_cells_are_refused() {
        for bytes in [&[1u8][..], &[1, 0xff], &[1, 0x80, 0x80], &[]] {
            assert!(CellsBuilder::new(&SqlType::String).take_value(&mut &*bytes).is_err());
            assert!(CellsBuilder::new(&SqlType::String).take_key(&mut &*bytes).is_err());
        }
        assert!(CellsBuilder::new(&SqlType::array(SqlType::Integer)).take_value(&mut &[1, 0x7e][..]).is_err());
    }
}

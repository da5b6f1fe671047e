//! Arrow columns seen through their SQL type, for writers that go row by row without asking for types again.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, StringArray, Time32MillisecondArray, TimestampMillisecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit,
    TimestampMillisecondType,
};
use millpond_types::{Error, Result};

use crate::json::encode::member_prefix;

/// A column; nested ones with their parts. Offsets are absolute, so slices of arrays work.
pub enum Cells<'a> {
    Boolean(&'a BooleanArray),
    Integer(&'a Int32Array),
    BigInt(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    String(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time32MillisecondArray),
    Timestamp(&'a TimestampMillisecondArray),
    List(&'a [i32], Option<&'a NullBuffer>, Box<Cells<'a>>),
    Map(&'a [i32], Option<&'a NullBuffer>, Box<Cells<'a>>, Box<Cells<'a>>),
    Struct(Option<&'a NullBuffer>, Vec<Part<'a>>),
}

/// A field of a STRUCT.
pub struct Part<'a> {
    pub name: &'a str,
    /// The name as it stands in JSON, with what comes before it.
    pub prefix: Box<[u8]>,
    pub cells: Cells<'a>,
}

impl<'a> Cells<'a> {
    /// The column by its Arrow type, which must be one of `SqlType::to_arrow`.
    pub fn new(array: &'a dyn Array) -> Result<Self> {
        let unknown = || Error::bug(format!("a column of Arrow type {} has no SQL type", array.data_type()));
        let cells = match array.data_type() {
            DataType::Boolean => array.as_boolean_opt().map(Self::Boolean),
            DataType::Int32 => array.as_primitive_opt::<Int32Type>().map(Self::Integer),
            DataType::Int64 => array.as_primitive_opt::<Int64Type>().map(Self::BigInt),
            DataType::Float64 => array.as_primitive_opt::<Float64Type>().map(Self::Double),
            DataType::Decimal128(_, scale) => {
                let scale = u8::try_from(*scale).map_err(|_| unknown())?;
                array.as_primitive_opt::<Decimal128Type>().map(|a| Self::Decimal(a, scale))
            }
            DataType::Utf8 => array.as_string_opt::<i32>().map(Self::String),
            DataType::Binary => array.as_binary_opt::<i32>().map(Self::Bytes),
            DataType::Date32 => array.as_primitive_opt::<Date32Type>().map(Self::Date),
            DataType::Time32(TimeUnit::Millisecond) => {
                array.as_primitive_opt::<Time32MillisecondType>().map(Self::Time)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                array.as_primitive_opt::<TimestampMillisecondType>().map(Self::Timestamp)
            }
            DataType::List(_) => match array.as_list_opt::<i32>() {
                Some(list) => {
                    let items = Self::new(list.values().as_ref())?;
                    Some(Self::List(list.value_offsets(), list.nulls(), Box::new(items)))
                }
                None => None,
            },
            DataType::Map(..) => match array.as_map_opt() {
                Some(map) => {
                    let (keys, values) = (Self::new(map.keys().as_ref())?, Self::new(map.values().as_ref())?);
                    Some(Self::Map(map.value_offsets(), map.nulls(), Box::new(keys), Box::new(values)))
                }
                None => None,
            },
            DataType::Struct(_) => match array.as_struct_opt() {
                Some(parts) => {
                    let fields = parts.fields().iter().zip(parts.columns()).enumerate();
                    let fields = fields.map(|(i, (field, column))| {
                        Ok(Part {
                            name: field.name(),
                            prefix: member_prefix(i == 0, field.name()),
                            cells: Self::new(column.as_ref())?,
                        })
                    });
                    Some(Self::Struct(parts.nulls(), fields.collect::<Result<_>>()?))
                }
                None => None,
            },
            _ => None,
        };
        cells.ok_or_else(unknown)
    }

    pub fn all(columns: &'a [ArrayRef]) -> Result<Vec<Self>> {
        columns.iter().map(|c| Self::new(c.as_ref())).collect()
    }

    #[inline(always)]
    pub fn is_null(&self, row: usize) -> bool {
        let nulls = match self {
            Self::Boolean(a) => a.nulls(),
            Self::Integer(a) => a.nulls(),
            Self::BigInt(a) => a.nulls(),
            Self::Double(a) => a.nulls(),
            Self::Decimal(a, _) => a.nulls(),
            Self::String(a) => a.nulls(),
            Self::Bytes(a) => a.nulls(),
            Self::Date(a) => a.nulls(),
            Self::Time(a) => a.nulls(),
            Self::Timestamp(a) => a.nulls(),
            Self::List(_, nulls, _) | Self::Map(_, nulls, ..) | Self::Struct(nulls, _) => *nulls,
        };
        nulls.is_some_and(|n| n.is_null(row))
    }
}

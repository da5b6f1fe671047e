//! SQL types of the ksqlDB dialect and their Arrow form.
//!
//! | SQL | Arrow | | SQL | Arrow |
//! |---|---|---|---|---|
//! | BOOLEAN | Boolean | | BYTES | Binary |
//! | INTEGER | Int32 | | DATE | Date32 (days) |
//! | BIGINT | Int64 | | TIME | Time32(ms) |
//! | DOUBLE | Float64 | | TIMESTAMP | Timestamp(ms), no zone |
//! | DECIMAL(p,s) | Decimal128(p,s) | | ARRAY | List of "item" |
//! | STRING | Utf8 | | MAP | Map of "entries"{"key","value"}, unsorted |
//! | STRUCT | Struct | | | |
//!
//! Every Arrow field is nullable but map keys and the map's entries struct. DECIMAL has at most 38 digits.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, TimeUnit};

/// Most digits a DECIMAL can have.
pub const DECIMAL_PRECISION_MAX: u8 = 38;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    Boolean,
    Integer,
    BigInt,
    Double,
    Decimal { precision: u8, scale: u8 },
    String,
    Bytes,
    Date,
    Time,
    Timestamp,
    Array(Box<SqlType>),
    Map(Box<SqlType>, Box<SqlType>),
    Struct(Vec<Field>),
}

/// A named part of a STRUCT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    pub name: String,
    pub ty: SqlType,
}

impl Field {
    pub fn new(name: impl Into<String>, ty: SqlType) -> Self {
        Self { name: name.into(), ty }
    }
}

impl SqlType {
    pub fn array(item: SqlType) -> Self {
        Self::Array(Box::new(item))
    }

    pub fn map(key: SqlType, value: SqlType) -> Self {
        Self::Map(Box::new(key), Box::new(value))
    }

    pub fn decimal(precision: u8, scale: u8) -> Self {
        Self::Decimal { precision, scale }
    }

    pub fn is_numeric(&self) -> bool {
        matches!(self, Self::Integer | Self::BigInt | Self::Double | Self::Decimal { .. })
    }

    pub fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Map(..) | Self::Struct(_))
    }

    /// The Arrow type that carries this type in every batch of the engine.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale as i8),
            Self::String => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time32(TimeUnit::Millisecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
            Self::Array(item) => DataType::List(Arc::new(ArrowField::new("item", item.to_arrow(), true))),
            Self::Map(key, value) => {
                let entries = DataType::Struct(
                    vec![
                        ArrowField::new("key", key.to_arrow(), false),
                        ArrowField::new("value", value.to_arrow(), true),
                    ]
                    .into(),
                );
                DataType::Map(Arc::new(ArrowField::new("entries", entries, false)), false)
            }
            Self::Struct(fields) => DataType::Struct(
                fields.iter().map(|f| ArrowField::new(f.name.as_str(), f.ty.to_arrow(), true)).collect(),
            ),
        }
    }
}

/// Whether an identifier can be written without quotes (and means itself when it is).
pub fn is_plain_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_uppercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The type as ksqlDB writes it: `ARRAY<STRUCT<A INTEGER, `b` STRING>>`.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Integer => f.write_str("INTEGER"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision}, {scale})"),
            Self::String => f.write_str("STRING"),
            Self::Bytes => f.write_str("BYTES"),
            Self::Date => f.write_str("DATE"),
            Self::Time => f.write_str("TIME"),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::Array(item) => write!(f, "ARRAY<{item}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}`{}` {}", field.name, field.ty)?;
                }
                f.write_str(">")
            }
        }
    }
}

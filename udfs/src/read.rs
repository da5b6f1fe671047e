//! Arguments: Arrow columns in, component values out, one row at a time.
//!
//! The columns' types are looked at once per batch. A NULL where the guest's type has no option stops the row: its
//! result is NULL. A value that the guest's type cannot hold stops it with an error.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, ListArray, MapArray, StringArray, StructArray, Time32MillisecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit,
    TimestampMillisecondType,
};
use wasmtime::component::Val;

use millpond_types::{Error, Result};

use crate::WitType;
use crate::wit_type::sql_name;

/// Why a row is not called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Null,
    Error(String),
}

/// One argument column, ready to give values of a guest's type.
pub(crate) struct Reader<'a> {
    optional: bool,
    source: Source<'a>,
}

enum Source<'a> {
    /// A field that the STRUCT at hand does not have.
    Missing,
    Bool(&'a BooleanArray),
    Int32(&'a Int32Array, Int),
    Int64(&'a Int64Array, Int),
    Float64(&'a Float64Array),
    Float32(&'a Float64Array),
    Date(&'a Date32Array),
    Time(&'a Time32MillisecondArray),
    Timestamp(&'a TimestampMillisecondArray),
    Decimal(&'a Decimal128Array),
    String(&'a StringArray),
    Char(&'a StringArray),
    Enum(&'a StringArray, &'a [String]),
    Bytes(&'a BinaryArray),
    List(&'a ListArray, Box<Reader<'a>>),
    /// Whether the guest wants pairs in a list, or its own map.
    Map(&'a MapArray, &'a StringArray, Box<Reader<'a>>, bool),
    Record(&'a StructArray, Vec<(&'a str, Reader<'a>)>),
    Tuple(&'a StructArray, Vec<Reader<'a>>),
}

#[derive(Clone, Copy)]
enum Int {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
}

impl Int {
    fn of(self, v: i64) -> Option<Val> {
        Some(match self {
            Self::U8 => Val::U8(u8::try_from(v).ok()?),
            Self::U16 => Val::U16(u16::try_from(v).ok()?),
            Self::U32 => Val::U32(u32::try_from(v).ok()?),
            Self::U64 => Val::U64(u64::try_from(v).ok()?),
            Self::S8 => Val::S8(i8::try_from(v).ok()?),
            Self::S16 => Val::S16(i16::try_from(v).ok()?),
            Self::S32 => Val::S32(i32::try_from(v).ok()?),
            Self::S64 => Val::S64(v),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::S8 => "s8",
            Self::S16 => "s16",
            Self::S32 => "s32",
            Self::S64 => "s64",
        }
    }
}

/// Widens numbers to what the type wants, as SQL does silently.
pub(crate) fn widened(ty: &WitType, array: &ArrayRef) -> Result<ArrayRef> {
    let wanted = match ty {
        WitType::Option(inner) => return widened(inner, array),
        WitType::U32 | WitType::U64 | WitType::S64 => DataType::Int64,
        WitType::F32 | WitType::F64 => DataType::Float64,
        _ => return Ok(array.clone()),
    };
    match (array.data_type(), &wanted) {
        (DataType::Int32, _) | (DataType::Int64 | DataType::Decimal128(..), DataType::Float64) => {
            arrow::compute::cast(array, &wanted).map_err(|e| Error::bug(format!("an argument cannot be widened: {e}")))
        }
        _ => Ok(array.clone()),
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(ty: &'a WitType, array: &'a dyn Array) -> Result<Self> {
        let (optional, ty) = match ty {
            WitType::Option(inner) => (true, inner.as_ref()),
            ty => (false, ty),
        };
        let source = match (ty, array.data_type()) {
            (WitType::Bool, DataType::Boolean) => Source::Bool(array.as_boolean()),
            (WitType::U8 | WitType::U16 | WitType::S8 | WitType::S16 | WitType::S32, DataType::Int32) => {
                Source::Int32(array.as_primitive::<Int32Type>(), int(ty))
            }
            (WitType::U32 | WitType::U64 | WitType::S64, DataType::Int64) => {
                Source::Int64(array.as_primitive::<Int64Type>(), int(ty))
            }
            (WitType::F64, DataType::Float64) => Source::Float64(array.as_primitive::<Float64Type>()),
            (WitType::F32, DataType::Float64) => Source::Float32(array.as_primitive::<Float64Type>()),
            (WitType::Date, DataType::Date32) => Source::Date(array.as_primitive::<Date32Type>()),
            (WitType::Time, DataType::Time32(TimeUnit::Millisecond)) => {
                Source::Time(array.as_primitive::<Time32MillisecondType>())
            }
            (WitType::Timestamp, DataType::Timestamp(TimeUnit::Millisecond, _)) => {
                Source::Timestamp(array.as_primitive::<TimestampMillisecondType>())
            }
            (WitType::Decimal, DataType::Decimal128(..)) => Source::Decimal(array.as_primitive::<Decimal128Type>()),
            (WitType::String, DataType::Utf8) => Source::String(array.as_string()),
            (WitType::Char, DataType::Utf8) => Source::Char(array.as_string()),
            (WitType::Enum(cases), DataType::Utf8) => Source::Enum(array.as_string(), cases),
            (WitType::Bytes, DataType::Binary) => Source::Bytes(array.as_binary()),
            (WitType::List(item), DataType::List(_)) => {
                let list: &ListArray = array.as_list();
                Source::List(list, Box::new(Self::new(item, list.values().as_ref())?))
            }
            (WitType::Pairs(value) | WitType::Map(value), DataType::Map(..)) => {
                let map = array.as_map();
                let keys = map.keys().as_string_opt::<i32>().ok_or_else(|| mismatch(ty, array))?;
                let values = Box::new(Self::new(value, map.values().as_ref())?);
                Source::Map(map, keys, values, matches!(ty, WitType::Pairs(_)))
            }
            (WitType::Record(fields), DataType::Struct(_)) => {
                let row = array.as_struct();
                let readers =
                    fields.iter().map(|(name, ty)| Ok((name.as_str(), Self::field(ty, row, &sql_name(name))?)));
                Source::Record(row, readers.collect::<Result<_>>()?)
            }
            (WitType::Tuple(types), DataType::Struct(_)) => {
                let row = array.as_struct();
                let readers = types.iter().enumerate().map(|(i, ty)| Self::field(ty, row, &format!("F{i}")));
                Source::Tuple(row, readers.collect::<Result<_>>()?)
            }
            _ => return Err(mismatch(ty, array)),
        };
        Ok(Self { optional, source })
    }

    fn field(ty: &'a WitType, row: &'a StructArray, name: &str) -> Result<Self> {
        match row.column_by_name(name) {
            Some(column) => Self::new(ty, column.as_ref()),
            None if ty.is_option() => Ok(Self { optional: true, source: Source::Missing }),
            None => Err(Error::bad_request(format!("the STRUCT has no field \"{name}\", which the function needs"))),
        }
    }

    pub(crate) fn read(&self, row: usize) -> Result<Val, Stop> {
        if self.source.is_null(row) {
            return if self.optional { Ok(Val::Option(None)) } else { Err(Stop::Null) };
        }
        let value = self.source.value(row)?;
        Ok(if self.optional { Val::Option(Some(Box::new(value))) } else { value })
    }
}

impl Source<'_> {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Missing => true,
            Self::Bool(array) => array.is_null(row),
            Self::Int32(array, _) => array.is_null(row),
            Self::Int64(array, _) => array.is_null(row),
            Self::Float64(array) | Self::Float32(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
            Self::String(array) | Self::Char(array) | Self::Enum(array, _) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Map(array, ..) => array.is_null(row),
            Self::Record(array, _) | Self::Tuple(array, _) => array.is_null(row),
        }
    }

    fn value(&self, row: usize) -> Result<Val, Stop> {
        Ok(match self {
            Self::Missing => return Err(Stop::Null),
            Self::Bool(array) => Val::Bool(array.value(row)),
            Self::Int32(array, int) => whole(*int, i64::from(array.value(row)))?,
            Self::Int64(array, int) => whole(*int, array.value(row))?,
            Self::Float64(array) => Val::Float64(array.value(row)),
            Self::Float32(array) => {
                let value = array.value(row);
                let narrow = value as f32;
                if narrow.is_infinite() && value.is_finite() {
                    return Err(Stop::Error(format!("{value} is out of range for f32")));
                }
                Val::Float32(narrow)
            }
            Self::Date(array) => Val::S32(array.value(row)),
            Self::Time(array) => Val::S32(array.value(row)),
            Self::Timestamp(array) => Val::S64(array.value(row)),
            Self::Decimal(array) => Val::String(digits(array.value(row), array.scale())),
            Self::String(array) => Val::String(array.value(row).to_string()),
            Self::Char(array) => {
                let text = array.value(row);
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(only), None) => Val::Char(only),
                    _ => return Err(Stop::Error(format!("a single character is wanted, not \"{}\"", excerpt(text)))),
                }
            }
            Self::Enum(array, cases) => {
                let text = array.value(row);
                if !cases.iter().any(|case| case == text) {
                    return Err(Stop::Error(format!(
                        "\"{}\" is none of {}",
                        excerpt(text),
                        excerpt(&cases.join(", "))
                    )));
                }
                Val::Enum(text.to_string())
            }
            Self::Bytes(array) => Val::List(array.value(row).iter().map(|byte| Val::U8(*byte)).collect()),
            Self::List(array, items) => {
                Val::List(range(array.value_offsets(), row).map(|i| items.read(i)).collect::<Result<_, _>>()?)
            }
            Self::Map(array, keys, values, as_pairs) => {
                let entries = range(array.value_offsets(), row);
                if *as_pairs {
                    let pair = |i| Ok(Val::Tuple(vec![Val::String(keys.value(i).to_string()), values.read(i)?]));
                    Val::List(entries.map(pair).collect::<Result<_, _>>()?)
                } else {
                    let pair = |i| Ok((Val::String(keys.value(i).to_string()), values.read(i)?));
                    Val::Map(entries.map(pair).collect::<Result<_, _>>()?)
                }
            }
            Self::Record(_, fields) => {
                let field = |(name, reader): &(&str, Reader<'_>)| Ok((name.to_string(), reader.read(row)?));
                Val::Record(fields.iter().map(field).collect::<Result<_, _>>()?)
            }
            Self::Tuple(_, parts) => Val::Tuple(parts.iter().map(|part| part.read(row)).collect::<Result<_, _>>()?),
        })
    }
}

fn int(ty: &WitType) -> Int {
    match ty {
        WitType::U8 => Int::U8,
        WitType::U16 => Int::U16,
        WitType::U32 => Int::U32,
        WitType::U64 => Int::U64,
        WitType::S8 => Int::S8,
        WitType::S16 => Int::S16,
        WitType::S32 => Int::S32,
        _ => Int::S64,
    }
}

fn whole(int: Int, value: i64) -> Result<Val, Stop> {
    int.of(value).ok_or_else(|| Stop::Error(format!("{value} is out of range for {}", int.name())))
}

/// Positions of a row's items among the child column's.
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    match (offsets.get(row), offsets.get(row + 1)) {
        (Some(from), Some(to)) => *from as usize..*to as usize,
        _ => 0..0,
    }
}

/// `-12.50` for -1250 with scale 2.
fn digits(unscaled: i128, scale: i8) -> String {
    let Ok(scale) = usize::try_from(scale) else {
        return format!("{unscaled}{}", "0".repeat(usize::from(scale.unsigned_abs())));
    };
    if scale == 0 {
        return unscaled.to_string();
    }
    let sign = if unscaled < 0 { "-" } else { "" };
    let padded = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// The beginning of a text, for messages.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    if text.chars().nth(CHARS_MAX).is_none() {
        return text.to_string();
    }
    text.chars().take(CHARS_MAX).chain(['…']).collect()
}

fn mismatch(ty: &WitType, array: &dyn Array) -> Error {
    let wanted = ty.param_type().map_or_else(|| "a SQL type".to_string(), |ty| ty.to_string());
    Error::bad_request(format!("the function wants {wanted}, not a column of {}", array.data_type()))
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn decimals_in_digits() {
        for (unscaled, scale, text) in
            [(-1250, 2, "-12.50"), (5, 3, "0.005"), (-5, 3, "-0.005"), (42, 0, "42"), (0, 2, "0.00"), (7, -2, "700")]
        {
            assert_eq!(digits(unscaled, scale), text);
        }
    }
}

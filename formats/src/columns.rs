//! Growing columns that rows are decoded into, and that can be cut back when a row turns out to be wrong.
//!
//! Not here: reading any format. Invariants: after every row all top columns have the same length; string columns hold
//! UTF-8 only; offsets fit 32 bits as [`BYTES_MAX`] bounds what one decoding takes in.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, ListArray, MapArray, StringArray, StructArray, Time32MillisecondArray, TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field as ArrowField, Fields};
use millpond_types::{Error, Result, SqlType};

use crate::json::members::Members;

/// Most bytes that one decoding takes in: a third of what 32-bit offsets reach, since text can grow when it is made
/// from other JSON (a point, a comma and a space, a replacement character).
pub const BYTES_MAX: usize = i32::MAX as usize / 3;

/// Most cells of lists and maps that one decoding makes beyond the bytes that it takes in: an item may have none.
pub const SPARE_CELLS_MAX: usize = 1 << 24;

/// Takes from the spare cells what an item of so many bytes needs; false where they do not suffice.
pub fn spend(spare: &std::cell::Cell<usize>, width: usize, bytes: usize) -> bool {
    let left = spare.get().checked_sub(width.saturating_sub(bytes));
    left.map(|left| spare.set(left)).is_some()
}

/// Which rows are not NULL; nothing is stored until there is a NULL.
#[derive(Debug, Default)]
pub struct Validity {
    bits: Option<BooleanBufferBuilder>,
    len: usize,
}

impl Validity {
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub fn push(&mut self, valid: bool) {
        if let Some(bits) = &mut self.bits {
            bits.append(valid);
        } else if !valid {
            self.materialise().append(false);
        }
        self.len += 1;
    }

    #[cold]
    fn materialise(&mut self) -> &mut BooleanBufferBuilder {
        let len = self.len;
        self.bits.get_or_insert_with(|| {
            let mut bits = BooleanBufferBuilder::new(len.max(1024));
            bits.append_n(len, true);
            bits
        })
    }

    fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            if let Some(bits) = &mut self.bits {
                bits.truncate(len);
            }
        }
    }

    fn finish(self) -> Option<NullBuffer> {
        self.bits.map(|mut bits| NullBuffer::new(bits.finish()))
    }
}

/// Text or bytes one after the other.
#[derive(Debug)]
pub struct Bytes {
    pub data: Vec<u8>,
    offsets: Vec<i32>,
}

impl Bytes {
    fn new(capacity: usize) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        Self { data: Vec::with_capacity(capacity * 16), offsets }
    }

    /// Ends a value; its bytes are what was added to `data` since the last end.
    #[inline(always)]
    pub fn end(&mut self) {
        self.offsets.push(self.data.len() as i32);
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn truncate(&mut self, len: usize) {
        if len < self.offsets.len() {
            self.offsets.truncate(len + 1);
            // Also what was added without an end.
            self.data.truncate(self.offsets[len] as usize);
        }
    }

    pub fn get(&self, index: usize) -> &[u8] {
        &self.data[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    /// From `first` on which values are the last of their kind, if any comes more than once.
    pub fn last_of_repeated(&self, first: usize) -> Option<Vec<bool>> {
        let rows = first..self.len();
        if rows.len() <= REPEATS_COMPARED_MAX {
            let end = rows.end;
            let repeats = |i: usize| (i + 1..end).any(|j| self.get(i) == self.get(j));
            return rows.clone().any(repeats).then(|| rows.map(|i| !repeats(i)).collect());
        }
        let mut seen = std::collections::HashSet::with_capacity(rows.len());
        let mut keep: Vec<bool> = rows.clone().rev().map(|i| seen.insert(self.get(i))).collect();
        keep.reverse();
        (seen.len() < rows.len()).then_some(keep)
    }

    /// Of the values from `first` on, keeps those that `keep` says.
    pub fn retain_from(&mut self, first: usize, keep: &[bool]) {
        let kept: Vec<Vec<u8>> = kept(first, keep).map(|i| self.get(i).to_vec()).collect();
        self.truncate(first);
        for value in kept {
            self.data.extend_from_slice(&value);
            self.end();
        }
    }
}

/// Where values are few, every one is compared with all the others.
const REPEATS_COMPARED_MAX: usize = 16;

/// The indexes that are kept.
fn kept(first: usize, keep: &[bool]) -> impl Iterator<Item = usize> {
    keep.iter().enumerate().filter(|(_, keep)| **keep).map(move |(i, _)| first + i)
}

/// See [`Bytes::retain_from`].
fn retain_from<T: Copy>(values: &mut Vec<T>, first: usize, keep: &[bool]) {
    let mut end = first;
    for i in kept(first, keep) {
        values[end] = values[i];
        end += 1;
    }
    values.truncate(end);
}

/// The same for lists: cuts their offsets, and says which of the items from the first list's on are kept.
fn retain_lists(offsets: &mut Vec<i32>, first: usize, keep: &[bool]) -> (usize, Vec<bool>) {
    let lens: Vec<usize> = offsets[first..].windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect();
    let start = offsets[first] as usize;
    let items = lens.iter().zip(keep).flat_map(|(&len, &keep)| std::iter::repeat_n(keep, len)).collect();
    offsets.truncate(first + 1);
    let mut end = start;
    for (len, _) in lens.iter().zip(keep).filter(|(_, keep)| **keep) {
        end += len;
        offsets.push(end as i32);
    }
    (start, items)
}

/// One column, with its parts.
#[derive(Debug)]
pub struct Column {
    pub valid: Validity,
    pub data: Data,
}

#[derive(Debug)]
pub enum Data {
    Boolean(BooleanBufferBuilder),
    Integer(Vec<i32>),
    Date(Vec<i32>),
    Time(Vec<i32>),
    BigInt(Vec<i64>),
    Timestamp(Vec<i64>),
    Double(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: u8 },
    String(Bytes),
    Bytes(Bytes),
    List { offsets: Vec<i32>, items: Box<Column> },
    Map { offsets: Vec<i32>, keys: Box<Bytes>, values: Box<Column> },
    Struct { names: Fields, members: Members, fields: Vec<Column> },
}

impl Column {
    /// An empty column; `capacity` rows are made room for. MAP keys must be STRING.
    pub fn new(ty: &SqlType, capacity: usize) -> Result<Self> {
        let offsets = || {
            let mut offsets = Vec::with_capacity(capacity + 1);
            offsets.push(0);
            offsets
        };
        let data = match ty {
            SqlType::Boolean => Data::Boolean(BooleanBufferBuilder::new(capacity)),
            SqlType::Integer => Data::Integer(Vec::with_capacity(capacity)),
            SqlType::Date => Data::Date(Vec::with_capacity(capacity)),
            SqlType::Time => Data::Time(Vec::with_capacity(capacity)),
            SqlType::BigInt => Data::BigInt(Vec::with_capacity(capacity)),
            SqlType::Timestamp => Data::Timestamp(Vec::with_capacity(capacity)),
            SqlType::Double => Data::Double(Vec::with_capacity(capacity)),
            SqlType::Decimal { precision, scale } => {
                Data::Decimal { values: Vec::with_capacity(capacity), precision: *precision, scale: *scale }
            }
            SqlType::String => Data::String(Bytes::new(capacity)),
            SqlType::Bytes => Data::Bytes(Bytes::new(capacity)),
            SqlType::Array(item) => Data::List { offsets: offsets(), items: Box::new(Self::new(item, capacity)?) },
            SqlType::Map(key, value) if **key == SqlType::String => Data::Map {
                offsets: offsets(),
                keys: Box::new(Bytes::new(capacity)),
                values: Box::new(Self::new(value, capacity)?),
            },
            SqlType::Map(..) => return Err(Error::bad_request("only MAP types with STRING keys can be decoded")),
            SqlType::Struct(fields) => Data::Struct {
                names: fields.iter().map(|f| ArrowField::new(f.name.as_str(), f.ty.to_arrow(), true)).collect(),
                members: Members::new(fields.iter().map(|f| f.name.as_str())),
                fields: fields.iter().map(|f| Self::new(&f.ty, capacity)).collect::<Result<_>>()?,
            },
        };
        Ok(Self { valid: Validity::default(), data })
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.valid.len
    }

    /// How many cells an item of this column is, those of lists inside it aside.
    pub fn width(&self) -> usize {
        match &self.data {
            Data::Struct { fields, .. } => fields.iter().map(Self::width).sum::<usize>().max(1),
            _ => 1,
        }
    }

    pub fn push_null(&mut self) {
        match &mut self.data {
            Data::Boolean(values) => values.append(false),
            Data::Integer(values) | Data::Date(values) | Data::Time(values) => values.push(0),
            Data::BigInt(values) | Data::Timestamp(values) => values.push(0),
            Data::Double(values) => values.push(0.0),
            Data::Decimal { values, .. } => values.push(0),
            Data::String(bytes) | Data::Bytes(bytes) => bytes.end(),
            Data::List { offsets, items } => offsets.push(items.len() as i32),
            Data::Map { offsets, keys, .. } => offsets.push(keys.len() as i32),
            Data::Struct { fields, .. } => fields.iter_mut().for_each(Self::push_null),
        }
        self.valid.push(false);
    }

    /// Forgets everything from row `len` on, a value begun and not ended included.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.data {
            Data::Boolean(values) => {
                if len < values.len() {
                    values.truncate(len);
                }
            }
            Data::Integer(values) | Data::Date(values) | Data::Time(values) => values.truncate(len),
            Data::BigInt(values) | Data::Timestamp(values) => values.truncate(len),
            Data::Double(values) => values.truncate(len),
            Data::Decimal { values, .. } => values.truncate(len),
            Data::String(bytes) | Data::Bytes(bytes) => bytes.truncate(len),
            Data::List { offsets, items } => {
                if len < offsets.len() {
                    offsets.truncate(len + 1);
                    items.truncate(offsets[len] as usize);
                }
            }
            Data::Map { offsets, keys, values } => {
                if len < offsets.len() {
                    offsets.truncate(len + 1);
                    keys.truncate(offsets[len] as usize);
                    values.truncate(offsets[len] as usize);
                }
            }
            Data::Struct { fields, .. } => fields.iter_mut().for_each(|f| f.truncate(len)),
        }
        self.valid.truncate(len);
    }

    /// Of the rows from `first` on, keeps those that `keep` says; it names all of them.
    pub fn retain_from(&mut self, first: usize, keep: &[bool]) {
        match &mut self.data {
            Data::Boolean(values) => {
                let bits: Vec<bool> = kept(first, keep).map(|i| values.get_bit(i)).collect();
                values.truncate(first);
                bits.into_iter().for_each(|bit| values.append(bit));
            }
            Data::Integer(values) | Data::Date(values) | Data::Time(values) => retain_from(values, first, keep),
            Data::BigInt(values) | Data::Timestamp(values) => retain_from(values, first, keep),
            Data::Double(values) => retain_from(values, first, keep),
            Data::Decimal { values, .. } => retain_from(values, first, keep),
            Data::String(bytes) | Data::Bytes(bytes) => bytes.retain_from(first, keep),
            Data::List { offsets, items } => {
                let (first, keep) = retain_lists(offsets, first, keep);
                items.retain_from(first, &keep);
            }
            Data::Map { offsets, keys, values } => {
                let (first, keep) = retain_lists(offsets, first, keep);
                keys.retain_from(first, &keep);
                values.retain_from(first, &keep);
            }
            Data::Struct { fields, .. } => fields.iter_mut().for_each(|f| f.retain_from(first, keep)),
        }
        let valid: Vec<bool> =
            kept(first, keep).map(|i| self.valid.bits.as_ref().is_none_or(|bits| bits.get_bit(i))).collect();
        self.valid.truncate(first);
        valid.into_iter().for_each(|valid| self.valid.push(valid));
    }

    pub fn finish(self) -> Result<ArrayRef> {
        let bug = |e| Error::bug(format!("decoded column: {e}"));
        let len = self.valid.len;
        let nulls = self.valid.finish();
        Ok(match self.data {
            Data::Boolean(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Integer(values) => Arc::new(Int32Array::try_new(values.into(), nulls).map_err(bug)?),
            Data::Date(values) => Arc::new(Date32Array::try_new(values.into(), nulls).map_err(bug)?),
            Data::Time(values) => Arc::new(Time32MillisecondArray::try_new(values.into(), nulls).map_err(bug)?),
            Data::BigInt(values) => Arc::new(Int64Array::try_new(values.into(), nulls).map_err(bug)?),
            Data::Timestamp(values) => Arc::new(TimestampMillisecondArray::try_new(values.into(), nulls).map_err(bug)?),
            Data::Double(values) => Arc::new(Float64Array::try_new(values.into(), nulls).map_err(bug)?),
            Data::Decimal { values, precision, scale } => Arc::new(
                Decimal128Array::try_new(values.into(), nulls)
                    .and_then(|array| array.with_precision_and_scale(precision, scale as i8))
                    .map_err(bug)?,
            ),
            Data::String(bytes) => Arc::new(string_array(bytes, nulls)?),
            Data::Bytes(bytes) => Arc::new(
                BinaryArray::try_new(buffer(bytes.offsets)?, Buffer::from_vec(bytes.data), nulls).map_err(bug)?,
            ),
            Data::List { offsets, items } => {
                let items = items.finish()?;
                let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
                Arc::new(ListArray::try_new(field, buffer(offsets)?, items, nulls).map_err(bug)?)
            }
            Data::Map { offsets, keys, values } => {
                let (keys, values) = (string_array(*keys, None)?, values.finish()?);
                let fields: Fields = vec![
                    ArrowField::new("key", DataType::Utf8, false),
                    ArrowField::new("value", values.data_type().clone(), true),
                ]
                .into();
                let entries = StructArray::try_new(fields.clone(), vec![Arc::new(keys), values], None).map_err(bug)?;
                let field = Arc::new(ArrowField::new("entries", DataType::Struct(fields), false));
                Arc::new(MapArray::try_new(field, buffer(offsets)?, entries, nulls, false).map_err(bug)?)
            }
            Data::Struct { names, fields, .. } => {
                let arrays = fields.into_iter().map(Self::finish).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(names, arrays, nulls, len).map_err(bug)?)
            }
        })
    }
}

/// Refuses offsets that no longer fit 32 bits.
fn buffer(offsets: Vec<i32>) -> Result<OffsetBuffer<i32>> {
    if !offsets.is_sorted() {
        return Err(Error::bad_request(
            "a batch has more values or text than a column holds: read fewer records at a time",
        ));
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

fn string_array(bytes: Bytes, nulls: Option<NullBuffer>) -> Result<StringArray> {
    StringArray::try_new(buffer(bytes.offsets)?, Buffer::from_vec(bytes.data), nulls)
        .map_err(|e| Error::bug(format!("decoded text: {e}")))
}

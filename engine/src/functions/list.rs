//! What the functions over ARRAY and MAP share: reading ranges of children, and building results by picking children.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use millpond_types::{Error, Result};

use super::typed::ITEMS_MAX;
use super::{Args, Failures, Returned};
use crate::expr::collection::make_map;
use crate::expr::{Values, defect};

/// An ARRAY argument.
pub struct Lists<'a> {
    values: &'a Values,
    pub list: &'a ListArray,
}

impl<'a> Lists<'a> {
    pub fn new(args: &'a Args<'_>, index: usize) -> Result<Self> {
        let values = args.values(index)?;
        let list = values.array().as_list_opt::<i32>();
        Ok(Self { values, list: list.ok_or_else(|| Error::bug("an argument is not ARRAY"))? })
    }

    pub fn items(&self) -> &'a ArrayRef {
        self.list.values()
    }

    /// Places of a row's items; `None` where the array is NULL.
    pub fn range(&self, row: usize) -> Option<Range<usize>> {
        let at = self.values.index(row);
        let offsets = self.list.value_offsets();
        self.list.is_valid(at).then(|| offsets[at] as usize..offsets[at + 1] as usize)
    }
}

/// A MAP argument.
pub struct Maps<'a> {
    values: &'a Values,
    pub map: &'a MapArray,
}

impl<'a> Maps<'a> {
    pub fn new(args: &'a Args<'_>, index: usize) -> Result<Self> {
        let values = args.values(index)?;
        let map = values.array().as_map_opt();
        Ok(Self { values, map: map.ok_or_else(|| Error::bug("an argument is not MAP"))? })
    }

    pub fn keys(&self) -> &'a ArrayRef {
        self.map.keys()
    }

    pub fn items(&self) -> &'a ArrayRef {
        self.map.values()
    }

    /// Places of a row's entries; `None` where the map is NULL.
    pub fn range(&self, row: usize) -> Option<Range<usize>> {
        let at = self.values.index(row);
        let offsets = self.map.value_offsets();
        self.map.is_valid(at).then(|| offsets[at] as usize..offsets[at + 1] as usize)
    }
}

/// Rows laid out from children that are picked from several arrays. A row that would make the whole too large fails.
#[derive(Default)]
pub struct Picks {
    picks: Vec<(usize, usize)>,
    lengths: Vec<usize>,
    valid: Vec<bool>,
    failures: Failures,
}

impl Picks {
    /// A row of the children (array, place).
    pub fn push(&mut self, row: impl IntoIterator<Item = (usize, usize)>) {
        let before = self.picks.len();
        let room = ITEMS_MAX - before;
        self.picks.extend(row.into_iter().take(room + 1));
        if self.picks.len() > ITEMS_MAX {
            self.picks.truncate(before);
            return self.fail(|| format!("the batch has more than {ITEMS_MAX} elements"));
        }
        self.lengths.push(self.picks.len() - before);
        self.valid.push(true);
    }

    pub fn push_null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    pub fn push_option(&mut self, row: Option<impl IntoIterator<Item = (usize, usize)>>) {
        match row {
            Some(row) => self.push(row),
            None => self.push_null(),
        }
    }

    /// A row that failed, so that it is NULL.
    pub fn fail(&mut self, message: impl FnOnce() -> String) {
        self.failures.push(self.lengths.len(), message);
        self.push_null();
    }

    pub fn gather(&self, sources: &[&ArrayRef]) -> Result<ArrayRef> {
        let sources: Vec<&dyn Array> = sources.iter().map(|a| a.as_ref()).collect();
        interleave(&sources, &self.picks).map_err(defect)
    }

    pub fn offsets(&self) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths(self.lengths.iter().copied())
    }

    pub fn nulls(&self) -> Option<NullBuffer> {
        self.valid.contains(&false).then(|| NullBuffer::from(self.valid.clone()))
    }

    pub fn into_failures(self) -> Failures {
        self.failures
    }

    /// An ARRAY column of Arrow type `ty`.
    pub fn into_list(self, ty: &DataType, sources: &[&ArrayRef]) -> Result<Returned> {
        let DataType::List(field) = ty else { return Err(Error::bug("the result is not ARRAY")) };
        let items = self.gather(sources)?;
        let made = ListArray::try_new(field.clone(), self.offsets(), items, self.nulls()).map_err(defect)?;
        Ok(Returned { array: Arc::new(made), failures: self.failures })
    }

    /// A MAP column of Arrow type `ty`, keys and values picked alike.
    pub fn into_map(self, ty: &DataType, keys: &[&ArrayRef], values: &[&ArrayRef]) -> Result<Returned> {
        let (keys, values) = (self.gather(keys)?, self.gather(values)?);
        let array = make_map(ty, self.offsets(), keys, values, self.nulls())?;
        Ok(Returned { array, failures: self.failures })
    }
}

//! ARRAY, MAP and STRUCT: constructors, subscripts, fields. An error of an element is a NULL element.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StringArray, StructArray, UInt32Array, UInt64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Fields, Int32Type};
use millpond_sql::diagnostic::Span;
use millpond_types::{Error, Result, SqlType};

use super::arithmetic::error_rows;
use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, Values, deep, defect, null_where, union_errors};

/// The elements' values, and for how many rows they have to be laid out (1 where all are scalars).
fn evaluate_all(nodes: &[NodeRef], input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<(Vec<Values>, bool)> {
    let values = nodes.iter().map(|n| Ok(n.eval(input, cx)?.values)).collect::<Result<Vec<_>>>()?;
    let scalar = values.iter().all(Values::is_scalar);
    Ok((values, scalar))
}

fn finish(array: ArrayRef, scalar: bool) -> Values {
    if scalar { Values::Scalar(array) } else { Values::Array(array) }
}

/// Row after row, each row's elements in their order.
fn row_major(values: &[Values], rows: usize) -> Result<ArrayRef> {
    let sources: Vec<&dyn Array> = values.iter().map(|v| v.array().as_ref()).collect();
    let mut picks = Vec::with_capacity(rows * values.len());
    for row in 0..rows {
        picks.extend(values.iter().enumerate().map(|(source, v)| (source, v.index(row))));
    }
    interleave(&sources, &picks).map_err(defect)
}

struct MakeArray {
    items: Vec<NodeRef>,
    ty: DataType,
}

pub fn array(items: Vec<NodeRef>, ty: &SqlType) -> Result<NodeRef> {
    if !matches!(ty, SqlType::Array(_)) || items.is_empty() {
        return Err(Error::bug(format!("ARRAY[..] of {} items to {ty}", items.len())));
    }
    Ok(Arc::new(MakeArray { items, ty: ty.to_arrow() }))
}

impl Node for MakeArray {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let (values, scalar) = evaluate_all(&self.items, input, cx)?;
        let rows = if scalar { 1 } else { input.rows() };
        let DataType::List(field) = &self.ty else { return Err(Error::bug("ARRAY is not a list")) };
        let offsets = OffsetBuffer::from_repeated_length(values.len(), rows);
        let list = ListArray::try_new(field.clone(), offsets, row_major(&values, rows)?, None).map_err(defect)?;
        Ok(Evaluated { values: finish(Arc::new(list), scalar), errors: None })
    }
}

struct MakeMap {
    keys: Vec<NodeRef>,
    values: Vec<NodeRef>,
    ty: DataType,
    span: Span,
}

pub fn map(keys: Vec<NodeRef>, values: Vec<NodeRef>, ty: &SqlType, span: Span) -> Result<NodeRef> {
    if !matches!(ty, SqlType::Map(..)) || keys.is_empty() || keys.len() != values.len() {
        return Err(Error::bug(format!("MAP(..) of {} entries to {ty}", keys.len())));
    }
    Ok(Arc::new(MakeMap { keys, values, ty: ty.to_arrow(), span }))
}

fn entry_fields(ty: &DataType) -> Result<(Arc<arrow::datatypes::Field>, Fields)> {
    if let DataType::Map(field, _) = ty
        && let DataType::Struct(fields) = field.data_type()
    {
        return Ok((field.clone(), fields.clone()));
    }
    Err(Error::bug("MAP is not a map"))
}

/// A MAP column from keys (none NULL) and values laid out by `offsets`.
pub(crate) fn make_map(
    ty: &DataType,
    offsets: OffsetBuffer<i32>,
    keys: ArrayRef,
    values: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let (field, fields) = entry_fields(ty)?;
    let entries = StructArray::try_new(fields, vec![keys, values], None).map_err(defect)?;
    Ok(Arc::new(MapArray::try_new(field, offsets, entries, nulls, false).map_err(defect)?))
}

/// A NULL key of type STRING is the text "null", which is how ksqlDB's formats write it.
fn null_as_text(values: Values) -> Values {
    let Some(texts) = values.array().as_string_opt::<i32>().filter(|t| t.null_count() > 0) else { return values };
    let named: StringArray = texts.iter().map(|t| Some(t.unwrap_or("null"))).collect();
    finish(Arc::new(named), values.is_scalar())
}

impl Node for MakeMap {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let (keys, constant_keys) = evaluate_all(&self.keys, input, cx)?;
        let keys: Vec<Values> = keys.into_iter().map(null_as_text).collect();
        let (values, constant_values) = evaluate_all(&self.values, input, cx)?;
        let scalar = constant_keys && constant_values;
        let rows = if scalar { 1 } else { input.rows() };
        // Of equal keys the last one's value counts, in the place of the first.
        let mut picks: Vec<usize> = Vec::with_capacity(rows * keys.len());
        let mut key_picks: Vec<(usize, usize)> = Vec::with_capacity(rows * keys.len());
        let mut value_picks: Vec<(usize, usize)> = Vec::with_capacity(rows * keys.len());
        let mut lengths = Vec::with_capacity(rows);
        let mut failed = Vec::new();
        let equal = |a: usize, b: usize, row: usize| {
            let (x, y) = (&keys[a], &keys[b]);
            deep::equal(x.array(), x.index(row), y.array(), y.index(row))
        };
        let mut layout_known = false;
        for row in 0..rows {
            if keys.iter().any(|k| k.array().is_null(k.index(row))) {
                failed.push(row);
                cx.log(input.row(row), self.span, || "a MAP cannot have a NULL key".to_owned());
                lengths.push(0);
                continue;
            }
            if !(constant_keys && layout_known) {
                picks.clear();
                for entry in 0..keys.len() {
                    if !(0..entry).any(|earlier| equal(earlier, entry, row)) {
                        picks.push(entry);
                    }
                }
                layout_known = true;
            }
            for &entry in &picks {
                let last = if picks.len() == keys.len() {
                    entry
                } else {
                    (entry..keys.len()).rev().find(|&later| equal(entry, later, row)).unwrap_or(entry)
                };
                key_picks.push((entry, keys[entry].index(row)));
                value_picks.push((last, values[last].index(row)));
            }
            lengths.push(picks.len());
        }
        let gather = |values: &[Values], picks: &[(usize, usize)]| {
            let sources: Vec<&dyn Array> = values.iter().map(|v| v.array().as_ref()).collect();
            interleave(&sources, picks).map_err(defect)
        };
        let errors = error_rows(rows, &failed);
        let nulls = errors.as_ref().map(|e| NullBuffer::new(!e));
        let array = make_map(
            &self.ty,
            OffsetBuffer::from_lengths(lengths),
            gather(&keys, &key_picks)?,
            gather(&values, &value_picks)?,
            nulls,
        )?;
        let errors = if scalar { errors.map(|_| BooleanBuffer::new_set(input.rows())) } else { errors };
        Ok(Evaluated { values: finish(array, scalar), errors })
    }
}

struct MakeStruct {
    fields: Vec<NodeRef>,
    ty: Fields,
}

pub fn structure(fields: Vec<NodeRef>, ty: &SqlType) -> Result<NodeRef> {
    match ty.to_arrow() {
        DataType::Struct(ty) if ty.len() == fields.len() => Ok(Arc::new(MakeStruct { fields, ty })),
        _ => Err(Error::bug(format!("STRUCT(..) of {} fields to {ty}", fields.len()))),
    }
}

impl Node for MakeStruct {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let (values, scalar) = evaluate_all(&self.fields, input, cx)?;
        let rows = if scalar { 1 } else { input.rows() };
        let columns = values.into_iter().map(|v| v.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let made = StructArray::try_new_with_length(self.ty.clone(), columns, None, rows).map_err(defect)?;
        Ok(Evaluated { values: finish(Arc::new(made), scalar), errors: None })
    }
}

struct Subscript {
    base: NodeRef,
    index: NodeRef,
}

pub fn subscript(base: NodeRef, index: NodeRef, base_ty: &SqlType, _span: Span) -> Result<NodeRef> {
    if !matches!(base_ty, SqlType::Array(_) | SqlType::Map(..)) {
        return Err(Error::bug(format!("subscript of {base_ty}")));
    }
    Ok(Arc::new(Subscript { base, index }))
}

/// Place of the 1-based (negative: from the end) index in an array of this length.
pub(crate) fn place(index: i32, length: usize) -> Option<usize> {
    let place = match index {
        0 => return None,
        i if i > 0 => i64::from(i) - 1,
        i => length as i64 + i64::from(i),
    };
    usize::try_from(place).ok().filter(|p| *p < length)
}

impl Node for Subscript {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let base = self.base.eval(input, cx)?;
        let index = self.index.eval(input, cx)?;
        let scalar = base.values.is_scalar() && index.values.is_scalar();
        let rows = if scalar { 1 } else { input.rows() };
        let (b, i) = (&base.values, &index.values);
        let array = if let Some(list) = b.array().as_list_opt::<i32>() {
            let index = i.array().as_primitive_opt::<Int32Type>();
            let index = index.ok_or_else(|| Error::bug("an array's index is not INTEGER"))?;
            let picks = UInt32Array::from_iter((0..rows).map(|row| {
                let (at, by) = (b.index(row), i.index(row));
                if list.is_null(at) || index.is_null(by) {
                    return None;
                }
                let place = place(index.value(by), list.value_length(at) as usize)?;
                Some(list.value_offsets()[at] as u32 + place as u32)
            }));
            take(list.values(), &picks, None).map_err(defect)?
        } else if let Some(map) = b.array().as_map_opt() {
            let keys = i.array();
            let picks = UInt64Array::from_iter((0..rows).map(|row| {
                let (at, by) = (b.index(row), i.index(row));
                if map.is_null(at) || keys.is_null(by) {
                    return None;
                }
                let range = map.value_offsets()[at] as usize..map.value_offsets()[at + 1] as usize;
                range.rev().find(|&k| deep::equal(map.keys(), k, keys, by)).map(|k| k as u64)
            }));
            take(map.values(), &picks, None).map_err(defect)?
        } else {
            return Err(Error::bug("subscript of a column that is neither ARRAY nor MAP"));
        };
        let errors = union_errors(base.errors, index.errors);
        let array = if scalar { array } else { null_where(array, errors.as_ref())? };
        Ok(Evaluated { values: finish(array, scalar), errors })
    }
}

struct Field {
    base: NodeRef,
    index: usize,
}

pub fn field(base: NodeRef, index: usize) -> NodeRef {
    Arc::new(Field { base, index })
}

impl Node for Field {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let base = self.base.eval(input, cx)?;
        let scalar = base.values.is_scalar();
        let parts = base.values.array().as_struct_opt();
        let parts = parts.ok_or_else(|| Error::bug("-> on a column that is not STRUCT"))?;
        let column = parts.columns().get(self.index);
        let column = column.ok_or_else(|| Error::bug(format!("a STRUCT has no field {}", self.index)))?.clone();
        let array = match parts.nulls() {
            None => column,
            Some(nulls) => null_where(column, Some(&!nulls.inner()))?,
        };
        Ok(Evaluated { values: finish(array, scalar), errors: base.errors })
    }

    fn infallible(&self) -> bool {
        self.base.infallible()
    }
}

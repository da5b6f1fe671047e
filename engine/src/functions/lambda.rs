//! TRANSFORM, FILTER and REDUCE. A body is evaluated over all elements of the batch at once; if it fails for an element,
//! the call fails for the element's row.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::DataType;
use millpond_sql::functions::{ParamType, ResultType};
use millpond_types::{Error, Result, SqlType};

use super::list::{Lists, Maps, Picks};
use super::typed::{Bind, Builtin, Def, ITEMS_MAX, T, exact, list_of, map_of, param, same};
use super::{Args, CallSite, Failures, Returned, ScalarImpl};
use crate::expr::lambda::eval_body;
use crate::expr::{EvalContext, Evaluated, deep, defect};

const CATEGORY: &str = "LAMBDA";
const K: ParamType = ParamType::Generic("K");
const V: ParamType = ParamType::Generic("V");
const R: ParamType = ParamType::Generic("R");
const S: ParamType = ParamType::Generic("S");

pub fn register(b: &mut Builtin) {
    let lambda = |params: Vec<ParamType>, result: ParamType| ParamType::Lambda(params, Box::new(result));
    let boolean = || exact(SqlType::Boolean);
    b.add(
        "TRANSFORM",
        CATEGORY,
        "each element, or each key and value, put through a lambda",
        vec![
            Def::scalar(
                vec![param("array", list_of(T)), param("lambda", lambda(vec![T], R))],
                ResultType::Of(list_of(R)),
                typed(transform_list),
            ),
            Def::scalar(
                vec![
                    param("map", map_of(K, V)),
                    param("keyLambda", lambda(vec![K, V], R)),
                    param("valueLambda", lambda(vec![K, V], T)),
                ],
                ResultType::Of(map_of(R, T)),
                typed(transform_map),
            ),
        ],
    );
    b.add(
        "FILTER",
        CATEGORY,
        "the elements or entries for which a lambda is true",
        vec![
            Def::scalar(
                vec![param("array", list_of(T)), param("lambda", lambda(vec![T], boolean()))],
                ResultType::Of(list_of(T)),
                typed(filter_list),
            ),
            Def::scalar(
                vec![param("map", map_of(K, V)), param("lambda", lambda(vec![K, V], boolean()))],
                ResultType::Of(map_of(K, V)),
                typed(filter_map),
            ),
        ],
    );
    b.add(
        "REDUCE",
        CATEGORY,
        "one value out of all elements or entries, taken in one after the other",
        vec![
            Def::scalar(
                vec![param("array", list_of(T)), param("state", S), param("lambda", lambda(vec![S, T], S))],
                ResultType::Of(S),
                same(reduce),
            ),
            Def::scalar(
                vec![param("map", map_of(K, V)), param("state", S), param("lambda", lambda(vec![S, K, V], S))],
                ResultType::Of(S),
                same(reduce),
            ),
        ],
    );
}

type Code = fn(&Args<'_>, &DataType, &mut EvalContext) -> Result<Returned>;

/// Code that needs the result's type.
fn typed(code: Code) -> Bind<impl Fn(&CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> + Send + Sync> {
    Bind(move |site: &CallSite<'_>| {
        let ty = site.result.to_arrow();
        let bound: Arc<dyn ScalarImpl> = Arc::new(move |args: &Args<'_>, cx: &mut EvalContext| code(args, &ty, cx));
        Ok(bound)
    })
}

/// The elements of all rows after each other, with the row of each.
struct Flat {
    /// Of each row, NULL or not: where its elements begin among all.
    starts: Vec<Option<usize>>,
    lengths: Vec<usize>,
    places: UInt32Array,
    parents: UInt32Array,
    /// From this row on, rows do not fit into one evaluation; they count as NULL and fail.
    too_large: usize,
}

impl Flat {
    fn new(rows: usize, range: impl Fn(usize) -> Option<std::ops::Range<usize>>) -> Self {
        let (mut starts, mut lengths) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let (mut places, mut parents) = (Vec::new(), Vec::new());
        let mut too_large = rows;
        for row in 0..rows {
            let mut found = range(row);
            if row > too_large || found.as_ref().is_some_and(|r| places.len() + r.len() > ITEMS_MAX) {
                too_large = too_large.min(row);
                found = None;
            }
            starts.push(found.as_ref().map(|_| places.len()));
            let found = found.unwrap_or(0..0);
            lengths.push(found.len());
            parents.extend(std::iter::repeat_n(row as u32, found.len()));
            places.extend(found.map(|i| i as u32));
        }
        let (places, parents) = (UInt32Array::from(places), UInt32Array::from(parents));
        Self { starts, lengths, places, parents, too_large }
    }

    /// A row that has no elements to look at: NULL, or a failure.
    fn absent(&self, row: usize, picks: &mut Picks) {
        if row >= self.too_large {
            picks.fail(|| format!("the batch has more than {ITEMS_MAX} elements"));
        } else {
            picks.push_null();
        }
    }

    fn gather(&self, child: &ArrayRef) -> Result<ArrayRef> {
        take(child, &self.places, None).map_err(defect)
    }

    /// Elements of a row among all; `None` where it is NULL.
    fn range(&self, row: usize) -> Option<std::ops::Range<usize>> {
        self.starts[row].map(|start| start..start + self.lengths[row])
    }

    fn body(&self, args: &Args<'_>, lambda: usize, bindings: Vec<ArrayRef>, cx: &mut EvalContext) -> Result<Body> {
        let (params, body) = args.lambda(lambda)?;
        let Evaluated { values, errors } = eval_body(args.input, self.parents.clone(), params, bindings, body, cx)?;
        Ok(Body { array: values.into_array(self.places.len())?, errors })
    }
}

/// What a body gave for all elements.
struct Body {
    array: ArrayRef,
    errors: Option<BooleanBuffer>,
}

impl Body {
    fn failed(&self, range: &std::ops::Range<usize>) -> bool {
        self.errors.as_ref().is_some_and(|e| range.clone().any(|i| e.value(i)))
    }
}

fn lambda_failed() -> String {
    "the lambda failed for an element".to_owned()
}

fn transform_list(args: &Args<'_>, ty: &DataType, cx: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let flat = Flat::new(args.rows, |row| lists.range(row));
    let body = flat.body(args, 1, vec![flat.gather(lists.items())?], cx)?;
    let mut picks = Picks::default();
    for row in 0..args.rows {
        match flat.range(row) {
            None => flat.absent(row, &mut picks),
            Some(range) if body.failed(&range) => picks.fail(lambda_failed),
            Some(range) => picks.push(range.map(|i| (0, i))),
        }
    }
    picks.into_list(ty, &[&body.array])
}

fn transform_map(args: &Args<'_>, ty: &DataType, cx: &mut EvalContext) -> Result<Returned> {
    let maps = Maps::new(args, 0)?;
    let flat = Flat::new(args.rows, |row| maps.range(row));
    let bindings = vec![flat.gather(maps.keys())?, flat.gather(maps.items())?];
    let keys = flat.body(args, 1, bindings.clone(), cx)?;
    let values = flat.body(args, 2, bindings, cx)?;
    let mut picks = Picks::default();
    let mut key = Vec::new();
    for row in 0..args.rows {
        let Some(range) = flat.range(row) else {
            flat.absent(row, &mut picks);
            continue;
        };
        let mut seen = HashSet::with_capacity(range.len());
        // Two keys that become one are an error, as in ksqlDB; so is a NULL key.
        let distinct = range.clone().all(|i| {
            key.clear();
            deep::encode(&keys.array, i, &mut key);
            keys.array.is_valid(i) && seen.insert(key.clone())
        });
        if keys.failed(&range) || values.failed(&range) || !distinct {
            picks.fail(lambda_failed);
        } else {
            picks.push(range.map(|i| (0, i)));
        }
    }
    picks.into_map(ty, &[&keys.array], &[&values.array])
}

/// The elements to keep of each row.
fn filtered(flat: &Flat, body: &Body, rows: usize) -> Result<Picks> {
    let keep = body.array.as_boolean_opt().ok_or_else(|| Error::bug("a FILTER's lambda is not BOOLEAN"))?;
    let mut picks = Picks::default();
    for row in 0..rows {
        match flat.range(row) {
            None => flat.absent(row, &mut picks),
            // A NULL condition is a failure too: it cannot be unboxed.
            Some(range) if body.failed(&range) || range.clone().any(|i| keep.is_null(i)) => picks.fail(lambda_failed),
            Some(range) => {
                picks.push(range.filter(|&i| keep.value(i)).map(|i| (0, flat.places.value(i) as usize)));
            }
        }
    }
    Ok(picks)
}

fn filter_list(args: &Args<'_>, ty: &DataType, cx: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let flat = Flat::new(args.rows, |row| lists.range(row));
    let body = flat.body(args, 1, vec![flat.gather(lists.items())?], cx)?;
    filtered(&flat, &body, args.rows)?.into_list(ty, &[lists.items()])
}

fn filter_map(args: &Args<'_>, ty: &DataType, cx: &mut EvalContext) -> Result<Returned> {
    let maps = Maps::new(args, 0)?;
    let flat = Flat::new(args.rows, |row| maps.range(row));
    let bindings = vec![flat.gather(maps.keys())?, flat.gather(maps.items())?];
    let body = flat.body(args, 1, bindings, cx)?;
    filtered(&flat, &body, args.rows)?.into_map(ty, &[maps.keys()], &[maps.items()])
}

/// Round `k` takes the `k`-th element of every row that has one. A NULL array leaves the state as it is; a NULL state
/// is the result at once.
fn reduce(args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
    let values = args.values(0)?;
    let is_list = values.array().as_list_opt::<i32>().is_some();
    let (flat, children) = if is_list {
        let lists = Lists::new(args, 0)?;
        (Flat::new(args.rows, |row| lists.range(row)), vec![lists.items()])
    } else {
        let maps = Maps::new(args, 0)?;
        (Flat::new(args.rows, |row| maps.range(row)), vec![maps.keys(), maps.items()])
    };
    let (params, body) = args.lambda(2)?;
    let mut state = args.values(1)?.clone().into_array(args.rows)?;
    // Rows that do not fit are errors, whose state is NULL.
    let mut failed: Vec<bool> = (0..args.rows).map(|row| row >= flat.too_large).collect();
    if flat.too_large < args.rows {
        let kept = (0..args.rows).map(|row| (row < flat.too_large).then_some(row as u32));
        state = take(&state, &UInt32Array::from_iter(kept), None).map_err(defect)?;
    }
    let mut active: Vec<u32> = (0..args.rows as u32).filter(|&r| state.is_valid(r as usize)).collect();
    let mut round = 0;
    loop {
        active.retain(|&row| !failed[row as usize] && flat.lengths[row as usize] > round);
        if active.is_empty() {
            break;
        }
        let rows = UInt32Array::from(active.clone());
        let places: UInt32Array =
            active.iter().map(|&row| flat.starts[row as usize].map(|start| flat.places.value(start + round))).collect();
        let mut bindings = vec![take(&state, &rows, None).map_err(defect)?];
        for child in &children {
            bindings.push(take(child, &places, None).map_err(defect)?);
        }
        let result = eval_body(args.input, rows, params, bindings, body, cx)?;
        let array = result.values.into_array(active.len())?;
        let mut picks: Vec<(usize, usize)> = (0..args.rows).map(|row| (0, row)).collect();
        for (i, &row) in active.iter().enumerate() {
            picks[row as usize] = (1, i);
            if result.errors.as_ref().is_some_and(|e| e.value(i)) {
                failed[row as usize] = true;
            }
        }
        state = interleave(&[state.as_ref(), array.as_ref()], &picks).map_err(defect)?;
        round += 1;
    }
    let mut failures = Failures::default();
    (0..args.rows).filter(|&row| failed[row]).for_each(|row| failures.push(row, lambda_failed));
    Ok(Returned { array: state, failures })
}

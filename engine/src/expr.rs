//! Expressions over columns: typed expressions compiled to nodes that evaluate a batch at a time with ksqlDB's rules.
//!
//! Owns the node interface, the error mask, selection, and what a batch's evaluation may use (time, random numbers,
//! guests' instances, the list of row errors). Not here: what the functions do (`functions`), which rows exist (`ops`).
//!
//! Invariants: a row in error is NULL in the values; a node never fails a batch because of its data; AND, OR and CASE
//! evaluate a branch for exactly those rows that need it; an evaluation depends on the rows, the expression and the
//! context's time and seed alone, not on how rows are cut into batches (RANDOM and UUID excepted).

mod arithmetic;
pub(crate) mod call;
mod cast;
pub(crate) mod collection;
mod compare;
mod compile;
pub mod decimal;
pub mod deep;
pub(crate) mod lambda;
mod like;
mod logic;
mod physical;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, UInt32Array, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use millpond_sql::diagnostic::Span;
use millpond_sql::expr::TypedExpr;
use millpond_types::{Error, Result, SqlType};

use crate::functions::FunctionLibrary;
use crate::state::cells::Cells;

pub use cast::cast_array;
pub use compile::compile_node;
pub use physical::{PhysicalNode, RowClock};

/// Row errors that are kept with their text for one context; further ones are only counted.
pub const ROW_ERRORS_MAX: usize = 100;

/// A column of values, or one value that stands for every row.
#[derive(Clone, Debug)]
pub enum Values {
    Array(ArrayRef),
    /// An array of length 1.
    Scalar(ArrayRef),
}

impl Values {
    pub fn array(&self) -> &ArrayRef {
        match self {
            Self::Array(a) | Self::Scalar(a) => a,
        }
    }

    pub fn is_scalar(&self) -> bool {
        matches!(self, Self::Scalar(_))
    }

    /// One value per row.
    pub fn into_array(self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::Array(a) => Ok(a),
            Self::Scalar(a) if rows == 1 => Ok(a),
            Self::Scalar(a) if a.is_null(0) => Ok(new_null_array(a.data_type(), rows)),
            Self::Scalar(a) => take(&a, &UInt32Array::from(vec![0; rows]), None).map_err(defect),
        }
    }

    /// Where a row's value lies in `array()`.
    #[inline]
    pub fn index(&self, row: usize) -> usize {
        if self.is_scalar() { 0 } else { row }
    }
}

impl Datum for Values {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array().as_ref(), self.is_scalar())
    }
}

/// What an expression gives for a batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    pub values: Values,
    /// Set for the rows whose evaluation failed; their values are NULL. One bit per row, also beside a scalar.
    pub errors: Option<BooleanBuffer>,
}

impl Evaluated {
    pub fn array(array: ArrayRef) -> Self {
        Self { values: Values::Array(array), errors: None }
    }

    pub fn scalar(array: ArrayRef) -> Self {
        Self { values: Values::Scalar(array), errors: None }
    }

    /// The values with errors as NULL, which is what a column shows.
    pub fn into_array(self, rows: usize) -> Result<ArrayRef> {
        self.values.into_array(rows)
    }
}

/// Rows that are in error in either.
pub fn union_errors(a: Option<BooleanBuffer>, b: Option<BooleanBuffer>) -> Option<BooleanBuffer> {
    match (a, b) {
        (Some(a), Some(b)) => Some(&a | &b),
        (a, None) => a,
        (None, b) => b,
    }
}

/// The array with NULL wherever `errors` is set.
pub(crate) fn null_where(array: ArrayRef, errors: Option<&BooleanBuffer>) -> Result<ArrayRef> {
    let Some(errors) = errors else { return Ok(array) };
    if !errors.has_true() {
        return Ok(array);
    }
    let nulls = NullBuffer::union(array.nulls(), Some(&NullBuffer::new(!errors)));
    let data = array.to_data().into_builder().nulls(nulls).build().map_err(defect)?;
    Ok(arrow::array::make_array(data))
}

/// An Arrow kernel refused what a compiled expression may not give it.
pub(crate) fn defect(e: impl fmt::Display) -> Error {
    Error::bug(format!("expression: {e}"))
}

/// The rows that an expression is evaluated for: a batch's columns, all of its rows or a selection of them.
#[derive(Clone, Debug)]
pub struct EvalInput<'a> {
    columns: &'a [ArrayRef],
    rows: usize,
    /// The batch's row behind each evaluated row. Rows may repeat (lambda bodies) and be left out (lazy branches).
    selection: Option<UInt32Array>,
    /// Lambda parameters in scope, one value per evaluated row.
    params: Vec<(u32, ArrayRef)>,
    origin: Option<Origin<'a>>,
}

/// What a guest's clock and random numbers follow from: what the batch's rows are by themselves, wherever steps are cut.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Time of each row, or one time for all.
    pub time: &'a [i64],
    pub names: Names<'a>,
}

/// What tells rows apart.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// The input row that caused each, by its place in the step (see [`EvalContext::name_inputs`]).
    Input(&'a [u32]),
    /// Their time and the values of their columns.
    Values,
}

impl<'a> EvalInput<'a> {
    /// All rows of a batch.
    pub fn new(columns: &'a [ArrayRef], rows: usize) -> Self {
        Self { columns, rows, selection: None, params: Vec::new(), origin: None }
    }

    /// Some rows of a batch, by index.
    pub fn selected(columns: &'a [ArrayRef], selection: UInt32Array) -> Self {
        Self { columns, rows: selection.len(), selection: Some(selection), params: Vec::new(), origin: None }
    }

    /// The same rows with what guests may know of them.
    pub fn of(self, origin: Origin<'a>) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// The batch's columns.
    pub fn columns(&self) -> &'a [ArrayRef] {
        self.columns
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The batch's row behind an evaluated row.
    #[inline]
    pub fn row(&self, evaluated: usize) -> usize {
        self.selection.as_ref().map_or(evaluated, |s| s.value(evaluated) as usize)
    }

    pub(crate) fn column(&self, index: usize) -> Result<ArrayRef> {
        let column = self.columns.get(index).ok_or_else(|| {
            Error::bug(format!("expression reads column {index} of a batch of {} columns", self.columns.len()))
        })?;
        match &self.selection {
            None => Ok(column.clone()),
            Some(selection) => take(column, selection, None).map_err(defect),
        }
    }

    pub(crate) fn param(&self, id: u32) -> Result<ArrayRef> {
        let found = self.params.iter().rev().find(|(p, _)| *p == id);
        found.map(|(_, a)| a.clone()).ok_or_else(|| Error::bug(format!("lambda parameter {id} is not bound")))
    }

    /// The evaluated rows at `indices`, which may repeat.
    pub fn select(&self, indices: UInt32Array) -> Result<Self> {
        let params = self
            .params
            .iter()
            .map(|(id, array)| Ok((*id, take(array, &indices, None).map_err(defect)?)))
            .collect::<Result<Vec<_>>>()?;
        let rows = indices.len();
        let selection = match &self.selection {
            None => indices,
            Some(selection) => {
                UInt32Array::from_iter_values(indices.values().iter().map(|&i| selection.value(i as usize)))
            }
        };
        Ok(Self { columns: self.columns, rows, selection: Some(selection), params, origin: self.origin })
    }

    pub(crate) fn bind(&mut self, id: u32, array: ArrayRef) {
        self.params.push((id, array));
    }
}

/// A line for the processing log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Row of the batch.
    pub row: u32,
    /// The expression's place in the statement.
    pub span: Span,
    pub message: String,
}

/// What evaluation may use besides the rows. One per step (or shorter); not shared between threads.
pub struct EvalContext {
    now_ms: i64,
    random: u64,
    errors: Vec<RowError>,
    errors_count: u64,
    instances: HashMap<u64, Box<dyn Any + Send>>,
    /// What the random numbers of all rows have in common.
    names_seed: u64,
    /// By place in the step; empty where no guest asks.
    input_names: Arc<[u64]>,
    /// Set from outside when nobody wants the result any more.
    stop: Option<Arc<AtomicBool>>,
}

impl EvalContext {
    /// `seed` drives RANDOM and UUID.
    pub fn new(now_ms: i64, seed: u64) -> Self {
        Self {
            now_ms,
            random: seed,
            errors: Vec::new(),
            errors_count: 0,
            instances: HashMap::new(),
            names_seed: 0,
            input_names: Arc::new([]),
            stop: None,
        }
    }

    /// Milliseconds since the epoch, the same for the whole step.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The next random number (SplitMix64).
    pub fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The same, to be ended from outside by this flag.
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    pub fn stop(&self) -> Option<&Arc<AtomicBool>> {
        self.stop.as_ref()
    }

    /// Fails where the result is not wanted any more. For loops that may go on for long.
    pub fn check_stop(&self) -> Result<()> {
        match &self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::retry("the query was stopped within a step")),
            _ => Ok(()),
        }
    }

    /// Tells what the input rows are called, and whose they are: from both follow guests' random numbers.
    pub fn name_inputs(&mut self, seed: u64, names: Vec<u64>) {
        self.names_seed = seed;
        self.input_names = names.into();
    }

    /// What contexts of other threads are made from, for work on the same rows.
    pub fn seed(&mut self) -> EvalSeed {
        EvalSeed {
            now_ms: self.now_ms,
            random: self.next_random(),
            names_seed: self.names_seed,
            input_names: self.input_names.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Time and seed of each evaluated row, as guests see them. Rows of unknown origin have none of their own.
    pub fn times_and_seeds(&self, input: &EvalInput<'_>) -> Result<(Vec<i64>, Vec<u64>)> {
        let rows = input.rows();
        let Some(origin) = &input.origin else { return Ok((vec![0; rows], vec![self.names_seed; rows])) };
        let all = origin.time.first().copied().filter(|_| origin.time.len() == 1);
        let times: Vec<i64> =
            (0..rows).map(|i| all.or_else(|| origin.time.get(input.row(i)).copied()).unwrap_or_default()).collect();
        let seeds = match origin.names {
            Names::Input(pos) => (0..rows)
                .map(|i| {
                    let name = pos.get(input.row(i)).and_then(|pos| self.input_names.get(*pos as usize));
                    mixed(self.names_seed, name.copied().unwrap_or_default())
                })
                .collect(),
            Names::Values => {
                let cells = Cells::of(input.columns)?;
                let mut bytes = Vec::new();
                (0..rows)
                    .map(|i| {
                        bytes.clear();
                        cells.iter().for_each(|c| c.put_value(input.row(i), &mut bytes));
                        mixed(mixed(self.names_seed, times[i] as u64), hashed(&bytes))
                    })
                    .collect()
            }
        };
        Ok((times, seeds))
    }

    /// Notes a row error. Only the first `ROW_ERRORS_MAX` since the last `take_errors` keep their text.
    pub fn log(&mut self, row: usize, span: Span, message: impl FnOnce() -> String) {
        self.errors_count += 1;
        if self.errors.len() < ROW_ERRORS_MAX {
            self.errors.push(RowError { row: row as u32, span, message: message() });
        }
    }

    /// The errors noted since the last call, and how many there were in truth.
    pub fn take_errors(&mut self) -> (Vec<RowError>, u64) {
        (std::mem::take(&mut self.errors), std::mem::take(&mut self.errors_count))
    }

    /// The state that an implementation keeps for the life of this context (a guest's instance), made on first use.
    /// `key` comes from [`instance_key`].
    pub fn instance<T: Any + Send>(&mut self, key: u64, make: impl FnOnce() -> Result<T>) -> Result<&mut T> {
        if !self.instances.get(&key).is_some_and(|i| i.is::<T>()) {
            self.instances.insert(key, Box::new(make()?));
        }
        let found = self.instances.get_mut(&key).and_then(|i| i.downcast_mut::<T>());
        found.ok_or_else(|| Error::bug("the instance that was just made is missing"))
    }

    /// Throws an instance away (after a trap).
    pub fn drop_instance(&mut self, key: u64) {
        self.instances.remove(&key);
    }
}

/// What the contexts of a step's threads have in common. Each has its own random numbers and guests' instances.
#[derive(Clone, Debug)]
pub struct EvalSeed {
    now_ms: i64,
    random: u64,
    names_seed: u64,
    input_names: Arc<[u64]>,
    stop: Option<Arc<AtomicBool>>,
}

impl EvalSeed {
    pub fn context(&self, thread: usize) -> EvalContext {
        EvalContext {
            names_seed: self.names_seed,
            input_names: self.input_names.clone(),
            stop: self.stop.clone(),
            ..EvalContext::new(self.now_ms, mixed(self.random, thread as u64))
        }
    }
}

/// A hash that is the same on every machine and in every version (FNV-1a, then mixed).
pub fn hashed(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    mixed(hash, bytes.len() as u64)
}

/// Two numbers as one (SplitMix64's finish); the same on every machine and in every version.
pub fn mixed(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(32) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A process-wide unique key for [`EvalContext::instance`].
pub fn instance_key() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A compiled expression node. An `Err` is never about the data: a defect, or a guest that has to be retried.
pub trait Node: Send + Sync {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated>;

    /// Whether it cannot give row errors, so that it may be evaluated for rows that do not need it.
    fn infallible(&self) -> bool {
        false
    }

    /// Whether it is infallible and never NULL.
    fn total(&self) -> bool {
        false
    }
}

pub type NodeRef = Arc<dyn Node>;

/// A compiled expression with its type: what operators hold.
#[derive(Clone)]
pub struct Expr {
    node: NodeRef,
    ty: SqlType,
    /// Set where the expression is a column as it is.
    column: Option<usize>,
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({})", self.ty)
    }
}

/// Compiles an expression. Errors are defects of the plan (wrong operand types, unknown functions).
pub fn compile(expr: &TypedExpr, library: &FunctionLibrary) -> Result<Expr> {
    let column = match expr.kind {
        millpond_sql::expr::ExprKind::Column(i) => Some(i),
        _ => None,
    };
    Ok(Expr { node: compile_node(expr, library)?, ty: expr.ty.clone(), column })
}

impl Expr {
    pub fn ty(&self) -> &SqlType {
        &self.ty
    }

    pub fn node(&self) -> &NodeRef {
        &self.node
    }

    /// The input column that this expression is, if it is nothing more.
    pub fn as_column(&self) -> Option<usize> {
        self.column
    }

    pub fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        self.node.eval(input, cx)
    }

    /// One value per row, errors as NULL: a projected column.
    pub fn column_of(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<ArrayRef> {
        self.node.eval(input, cx)?.into_array(input.rows())
    }

    /// The rows for which a predicate is true (not NULL, not in error). The array has no NULLs.
    pub fn matches(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<BooleanArray> {
        let array = self.column_of(input, cx)?;
        let array = array.as_boolean_opt().ok_or_else(|| Error::bug("a predicate is not BOOLEAN"))?;
        Ok(match array.nulls() {
            None => array.clone(),
            Some(nulls) => BooleanArray::new(array.values() & nulls.inner(), None),
        })
    }
}

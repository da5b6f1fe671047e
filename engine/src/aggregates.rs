//! Aggregate functions: how a group's state is made, moved forward and back, merged, shown and stored.
//!
//! Owns the built-in aggregates and the form of their states. Not here: which rows belong to which group, where states
//! are kept (`ops`, `state`).
//!
//! Invariants: a state depends on the rows given to it and their order alone; equal states encode to equal bytes;
//! `decode(encode(s))` behaves as `s`; `undo` of a row that was given takes its effect back.

mod basic;
mod codec;
mod collect;
mod distinct;
mod extremes;
mod offset;
mod statistics;
#[cfg(test)]
mod tests;
mod top;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder};
use millpond_sql::plan::AggregateCall;
use millpond_types::value::array_from_values;
use millpond_types::{Error, Result, SqlType, Value};

use crate::expr::EvalContext;
use crate::functions::{FunctionLibrary, FunctionSettings};

pub use codec::{decode_value, encode_value};

/// The state of one group for one aggregate. Which variant an aggregate uses is its own affair.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// COUNT, and sums of INTEGER and BIGINT.
    I64(i64),
    F64(f64),
    /// Unscaled sum of DECIMALs.
    I128(i128),
    /// Exact sum and count of AVG over whole numbers.
    Sum {
        sum: i128,
        count: i64,
    },
    /// Counts and sums of AVG, STDDEV, CORRELATION.
    Moments(Moments),
    /// MIN, MAX, LATEST ...; NULL where nothing was seen.
    Value(Value),
    /// As `Value`, but knows whether anything was seen (NULLs count for BY_OFFSET with NULLs kept, ATTR).
    Seen(Option<Value>),
    /// COLLECT_*, TOPK*, N-form of BY_OFFSET.
    Values(Vec<Value>),
    /// HISTOGRAM, ATTR: values with counts, in order of first appearance.
    Counts(Vec<(Value, i64)>),
    Distinct(Box<distinct::Sketch>),
    /// A guest's state.
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    pub count: i64,
    pub sum_x: f64,
    pub sum_y: f64,
    pub sum_xx: f64,
    pub sum_yy: f64,
    pub sum_xy: f64,
}

impl State {
    /// About how many bytes it holds, and so does what it shows.
    pub fn weight(&self) -> usize {
        match self {
            Self::Value(value) | Self::Seen(Some(value)) => value_weight(value),
            Self::Values(values) => values.iter().map(value_weight).sum(),
            Self::Counts(counts) => counts.iter().map(|(value, _)| 8 + value_weight(value)).sum(),
            Self::Bytes(bytes) => bytes.len(),
            Self::I64(_) | Self::F64(_) | Self::I128(_) | Self::Sum { .. } | Self::Moments(_) | Self::Seen(None) => 16,
            // What is shown of it is a number.
            Self::Distinct(_) => 16,
        }
    }
}

fn value_weight(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(items) => items.iter().map(value_weight).sum(),
        Value::Map(entries) => entries.iter().map(|(k, v)| value_weight(k) + value_weight(v)).sum(),
        Value::Struct(fields) => fields.iter().map(|(_, v)| value_weight(v)).sum(),
        _ => 0,
    }
}

/// Why a row could not be taken into a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// The row is skipped for this aggregate, with a line in the processing log.
    Row(String),
    /// The step, and with it the query, fails (SUM of DECIMAL that does not fit).
    Fatal(String),
}

pub type UpdateResult = std::result::Result<(), UpdateError>;

/// An aggregate bound to one batch of argument columns.
pub trait Updater {
    /// Takes a row into its group's state.
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult;

    /// Takes a row's effect back. Only where `Aggregate::has_undo`.
    fn undo(&mut self, _state: &mut State, _row: usize) -> UpdateResult {
        Err(UpdateError::Fatal("the aggregate cannot undo".into()))
    }

    /// Row `i` goes to `states[groups[i]]`, in order. The first fatal error stops; row errors go to `failed`.
    fn update_groups(
        &mut self,
        states: &mut [State],
        groups: &[u32],
        failed: &mut dyn FnMut(usize, String),
    ) -> UpdateResult {
        for (row, &group) in groups.iter().enumerate() {
            let Some(state) = states.get_mut(group as usize) else {
                return Err(UpdateError::Fatal(format!("group {group} has no state")));
            };
            match self.update(state, row) {
                Ok(()) => {}
                Err(UpdateError::Row(message)) => failed(row, message),
                Err(fatal) => return Err(fatal),
            }
        }
        Ok(())
    }
}

/// Collects results of states into a column.
pub trait ResultColumn {
    fn append(&mut self, state: &State) -> Result<()>;
    fn append_null(&mut self);
    fn finish(self: Box<Self>) -> Result<ArrayRef>;
}

/// The code of one call of an aggregate function.
pub trait Aggregate: Send + Sync {
    fn create(&self) -> State;

    /// Binds to the argument columns of a batch (in the order of the call's arguments; all of equal length).
    fn bind<'a>(&'a self, args: &'a [ArrayRef], cx: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>>;

    fn has_undo(&self) -> bool {
        false
    }

    /// Takes `other` into `state` (session windows). `other` holds the rows of the later session.
    fn merge(&self, state: &mut State, other: &State) -> UpdateResult;

    /// A column for results, of the call's result type.
    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_>;

    /// Appends the state's bytes: deterministic, starting with a version byte.
    fn encode(&self, state: &State, out: &mut Vec<u8>) {
        codec::encode_state(state, out);
    }

    /// The state of `encode`d bytes, or `Corrupt`.
    fn decode(&self, bytes: &[u8]) -> Result<State> {
        codec::decode_state(bytes)
    }
}

/// What a call of an aggregate knows when it is bound to code.
#[derive(Clone, Debug)]
pub struct AggregateSite<'a> {
    /// Upper case.
    pub name: &'a str,
    pub args: Vec<SqlType>,
    pub init: &'a [Value],
    pub result: &'a SqlType,
    pub settings: FunctionSettings,
}

/// The code of one overload of an aggregate function.
pub trait AggregateFunction: Send + Sync {
    fn bind(&self, site: &AggregateSite<'_>) -> Result<Arc<dyn Aggregate>>;
}

impl<F: Fn(&AggregateSite<'_>) -> Result<Arc<dyn Aggregate>> + Send + Sync> AggregateFunction for F {
    fn bind(&self, site: &AggregateSite<'_>) -> Result<Arc<dyn Aggregate>> {
        self(site)
    }
}

/// The code for a call of a plan. Its argument expressions (`call.call.args`) are compiled and evaluated by the caller.
pub fn compile_aggregate(call: &AggregateCall, library: &FunctionLibrary) -> Result<Arc<dyn Aggregate>> {
    library.aggregate(&call.call.name, call.call.overload)?.bind(&AggregateSite {
        name: &call.call.name,
        args: call.call.args.iter().map(|a| a.ty.clone()).collect(),
        init: &call.init,
        result: &call.ty,
        settings: library.settings().clone(),
    })
}

pub(crate) fn register(builtin: &mut crate::functions::Builtin) {
    basic::register(builtin);
    collect::register(builtin);
    distinct::register_functions(builtin);
    extremes::register(builtin);
    offset::register(builtin);
    statistics::register(builtin);
    top::register(builtin);
}

/// Results by way of single values, for types without a column of their own.
pub(crate) struct ValueResults<'a, F> {
    ty: &'a SqlType,
    values: Vec<Value>,
    result: F,
}

impl<'a, F: Fn(&State) -> Value> ValueResults<'a, F> {
    pub(crate) fn boxed(ty: &'a SqlType, capacity: usize, result: F) -> Box<dyn ResultColumn + 'a>
    where
        F: 'a,
    {
        Box::new(Self { ty, values: Vec::with_capacity(capacity), result })
    }
}

impl<F: Fn(&State) -> Value> ResultColumn for ValueResults<'_, F> {
    fn append(&mut self, state: &State) -> Result<()> {
        self.values.push((self.result)(state));
        Ok(())
    }

    fn append_null(&mut self) {
        self.values.push(Value::Null);
    }

    fn finish(self: Box<Self>) -> Result<ArrayRef> {
        array_from_values(self.ty, &self.values)
    }
}

/// Results that are BIGINT.
pub(crate) struct BigIntResults(pub Int64Builder);

impl ResultColumn for BigIntResults {
    fn append(&mut self, state: &State) -> Result<()> {
        match state {
            State::I64(v) => self.0.append_value(*v),
            _ => return Err(foreign_state()),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

/// Results that are DOUBLE.
pub(crate) struct DoubleResults<F>(pub Float64Builder, pub F);

impl<F: Fn(&State) -> Option<f64>> ResultColumn for DoubleResults<F> {
    fn append(&mut self, state: &State) -> Result<()> {
        self.0.append_option((self.1)(state));
        Ok(())
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

pub(crate) fn foreign_state() -> Error {
    Error::bug("an aggregate was given the state of another")
}

pub(crate) fn fatal_state() -> UpdateError {
    UpdateError::Fatal("an aggregate was given the state of another".into())
}

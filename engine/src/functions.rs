//! The function library: every function a statement may name, its signature beside its code.
//!
//! Owns the catalog the analyser asks and the binding of calls to code, for built-in functions and, at run time, for
//! those of WebAssembly modules. One file per family declares signatures and implementations together.
//!
//! Invariants: an overload's id is unique within its function and never reused while the process lives; a function that
//! was removed stays usable by the expressions that were compiled with it.

mod array;
mod bytes;
mod conditional;
mod date_time;
mod json;
mod lambda;
mod list;
mod map;
mod mask;
mod math;
mod regex;
mod string;
mod table;
mod typed;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::OffsetBuffer;
use millpond_sql::functions::{Function, FunctionCatalog, FunctionKind, Overload};
use millpond_types::{Error, Result, SqlType, Value};
use parking_lot::RwLock;

use crate::aggregates::AggregateFunction;
use crate::expr::{EvalContext, EvalInput, NodeRef, Values};

/// Row failures of one call that keep their text; the rest are marked without.
const FAILURE_MESSAGES_MAX: usize = 100;

/// What a call site knows when it is bound to an overload's code.
#[derive(Clone, Debug)]
pub struct CallSite<'a> {
    /// Upper case.
    pub name: &'a str,
    pub args: Vec<ArgInfo>,
    pub result: &'a SqlType,
    pub settings: FunctionSettings,
}

#[derive(Clone, Debug)]
pub struct ArgInfo {
    pub ty: SqlType,
    /// The value of a literal argument.
    pub literal: Option<Value>,
}

/// One argument of a call under evaluation.
#[derive(Clone)]
pub enum Arg {
    /// Errors are NULL here already.
    Values(Values),
    /// Ids of the parameters, and the body.
    Lambda(Arc<[u32]>, NodeRef),
}

/// The arguments of a call under evaluation.
pub struct Args<'a> {
    pub args: &'a [Arg],
    /// Rows to give. Where every argument is a scalar and the function is deterministic, this is 1.
    pub rows: usize,
    /// For lambda bodies: the rows the call is evaluated for.
    pub input: &'a EvalInput<'a>,
}

impl Args<'_> {
    pub fn values(&self, index: usize) -> Result<&Values> {
        match self.args.get(index) {
            Some(Arg::Values(values)) => Ok(values),
            _ => Err(Error::bug(format!("argument {index} of a call is missing or a lambda"))),
        }
    }

    pub fn lambda(&self, index: usize) -> Result<(&[u32], &NodeRef)> {
        match self.args.get(index) {
            Some(Arg::Lambda(params, body)) => Ok((params, body)),
            _ => Err(Error::bug(format!("argument {index} of a call is missing or no lambda"))),
        }
    }
}

/// Rows that failed, with bounded texts.
#[derive(Debug, Default)]
pub struct Failures {
    pub(crate) rows: Vec<u32>,
    pub(crate) messages: Vec<String>,
}

impl Failures {
    /// Marks a row as failed; its value must be NULL. Rows come in ascending order.
    pub fn push(&mut self, row: usize, message: impl FnOnce() -> String) {
        if self.rows.last() == Some(&(row as u32)) {
            return;
        }
        self.rows.push(row as u32);
        if self.messages.len() < FAILURE_MESSAGES_MAX {
            self.messages.push(message());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// What a call gives: one value per row, and the rows that failed.
pub struct Returned {
    pub array: ArrayRef,
    pub failures: Failures,
}

impl Returned {
    pub fn ok(array: ArrayRef) -> Self {
        Self { array, failures: Failures::default() }
    }
}

/// The code of one call site of a scalar function.
pub trait ScalarImpl: Send + Sync {
    /// Gives `args.rows` values of the call's result type. An `Err` is never about the data.
    fn eval(&self, args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned>;
}

impl<F: Fn(&Args<'_>, &mut EvalContext) -> Result<Returned> + Send + Sync> ScalarImpl for F {
    fn eval(&self, args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
        self(args, cx)
    }
}

/// The code of one overload of a scalar function.
pub trait ScalarFunction: Send + Sync {
    /// Called once per call site when an expression is compiled.
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn ScalarImpl>>;

    /// Equal arguments give equal results; such calls over literals are evaluated once per batch.
    fn deterministic(&self) -> bool {
        true
    }
}

/// The items that a table function gives: those of row `i` are `items[offsets[i]..offsets[i + 1]]`.
pub struct Expanded {
    pub offsets: OffsetBuffer<i32>,
    pub items: ArrayRef,
    /// Failed rows have no items.
    pub failures: Failures,
}

/// The code of one call site of a table function.
pub trait TableImpl: Send + Sync {
    fn expand(&self, args: &Args<'_>, cx: &mut EvalContext) -> Result<Expanded>;
}

/// The code of one overload of a table function.
pub trait TableFunction: Send + Sync {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn TableImpl>>;
}

#[derive(Clone)]
pub enum Implementation {
    Scalar(Arc<dyn ScalarFunction>),
    Table(Arc<dyn TableFunction>),
    Aggregate(Arc<dyn AggregateFunction>),
}

impl Implementation {
    pub fn kind(&self) -> FunctionKind {
        match self {
            Self::Scalar(_) => FunctionKind::Scalar,
            Self::Table(_) => FunctionKind::Table,
            Self::Aggregate(_) => FunctionKind::Aggregate,
        }
    }
}

/// Settings that change what functions do; those of ksqlDB's `ksql.functions.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSettings {
    /// `ksql.functions.collect_list.limit`
    pub collect_list_max: usize,
    /// `ksql.functions.collect_set.limit`
    pub collect_set_max: usize,
    /// `ksql.functions.substring.legacy.args`: 0-based positions and an end instead of a length.
    pub substring_legacy: bool,
}

impl Default for FunctionSettings {
    fn default() -> Self {
        Self { collect_list_max: usize::MAX, collect_set_max: usize::MAX, substring_legacy: false }
    }
}

#[derive(Clone)]
struct Entry {
    function: Arc<Function>,
    /// In the order of the function's overloads.
    code: Vec<Implementation>,
}

/// All functions. Cheap to share; changes take effect for expressions compiled afterwards.
pub struct FunctionLibrary {
    entries: RwLock<BTreeMap<String, Entry>>,
    settings: FunctionSettings,
}

impl Default for FunctionLibrary {
    fn default() -> Self {
        Self::new(FunctionSettings::default())
    }
}

impl FunctionLibrary {
    /// With the built-in functions.
    pub fn new(settings: FunctionSettings) -> Self {
        let mut builtin = typed::Builtin::default();
        array::register(&mut builtin);
        bytes::register(&mut builtin);
        conditional::register(&mut builtin);
        date_time::register(&mut builtin);
        json::register(&mut builtin);
        lambda::register(&mut builtin);
        map::register(&mut builtin);
        mask::register(&mut builtin);
        math::register(&mut builtin);
        regex::register(&mut builtin);
        string::register(&mut builtin);
        table::register(&mut builtin);
        url::register(&mut builtin);
        crate::aggregates::register(&mut builtin);
        let entries = builtin
            .into_functions()
            .into_iter()
            .map(|(function, code)| (function.name.clone(), Entry { function: Arc::new(function), code }))
            .collect();
        Self { entries: RwLock::new(entries), settings }
    }

    pub fn settings(&self) -> &FunctionSettings {
        &self.settings
    }

    /// Adds a function, or overloads to one of the same kind. The overloads' ids are chosen here; the name is folded to
    /// upper case. Refused with `Conflict` where an overload has the parameters of one that is there.
    pub fn register(&self, function: Function, code: Vec<Implementation>) -> Result<Vec<u32>> {
        let mut function = function;
        function.name = function.name.to_uppercase();
        if code.len() != function.overloads.len() || code.iter().any(|c| c.kind() != function.kind) {
            return Err(Error::bug(format!("function \"{}\" needs code of its kind per overload", function.name)));
        }
        let mut entries = self.entries.write();
        let Some(there) = entries.get(&function.name) else {
            for (id, overload) in (0..).zip(&mut function.overloads) {
                overload.id = id;
            }
            let ids = function.overloads.iter().map(|o| o.id).collect();
            entries.insert(function.name.clone(), Entry { function: Arc::new(function), code });
            return Ok(ids);
        };
        if there.function.kind != function.kind {
            return Err(Error::conflict(format!("function \"{}\" exists already as another kind", function.name)));
        }
        let same = |a: &Overload, b: &Overload| {
            a.variadic == b.variadic
                && a.params.len() == b.params.len()
                && a.params.iter().zip(&b.params).all(|(x, y)| x.ty == y.ty)
        };
        if let Some(new) = function.overloads.iter().find(|n| there.function.overloads.iter().any(|o| same(n, o))) {
            let params: Vec<String> = new.params.iter().map(|p| p.ty.to_string()).collect();
            return Err(Error::conflict(format!(
                "function \"{}\" with parameters ({}) exists already",
                function.name,
                params.join(", ")
            )));
        }
        let mut merged = (*there.function).clone();
        let mut all_code = there.code.clone();
        let next = merged.overloads.iter().map(|o| o.id + 1).max().unwrap_or(0);
        let mut ids = Vec::new();
        for ((id, mut overload), code) in (next..).zip(function.overloads).zip(code) {
            overload.id = id;
            ids.push(id);
            merged.overloads.push(overload);
            all_code.push(code);
        }
        entries.insert(merged.name.clone(), Entry { function: Arc::new(merged), code: all_code });
        Ok(ids)
    }

    /// Removes a function with all its overloads.
    pub fn unregister(&self, name: &str) -> Result<()> {
        let removed = self.entries.write().remove(&name.to_uppercase());
        removed.map(|_| ()).ok_or_else(|| Error::not_found(format!("there is no function \"{name}\"")))
    }

    /// Removes some overloads of a function, and the function with the last one.
    pub fn remove_overloads(&self, name: &str, ids: &[u32]) {
        let mut entries = self.entries.write();
        let Some(entry) = entries.get_mut(name) else { return };
        let mut left = (*entry.function).clone();
        let keep: Vec<bool> = left.overloads.iter().map(|o| !ids.contains(&o.id)).collect();
        let mut kept = keep.iter();
        left.overloads.retain(|_| *kept.next().unwrap_or(&true));
        let mut kept = keep.iter();
        entry.code.retain(|_| *kept.next().unwrap_or(&true));
        if left.overloads.is_empty() {
            entries.remove(name);
        } else {
            entry.function = Arc::new(left);
        }
    }

    fn code(&self, name: &str, overload: u32) -> Result<Implementation> {
        let entries = self.entries.read();
        let entry = entries.get(name).ok_or_else(|| Error::not_found(format!("there is no function \"{name}\"")))?;
        let at = entry.function.overloads.iter().position(|o| o.id == overload);
        let code = at.and_then(|i| entry.code.get(i));
        code.cloned().ok_or_else(|| Error::not_found(format!("function \"{name}\" has no overload {overload}")))
    }

    /// The code of a scalar overload.
    pub fn scalar(&self, name: &str, overload: u32) -> Result<Arc<dyn ScalarFunction>> {
        match self.code(name, overload)? {
            Implementation::Scalar(f) => Ok(f),
            _ => Err(Error::bug(format!("function \"{name}\" is not a scalar function"))),
        }
    }

    /// The code of a table function's overload.
    pub fn table(&self, name: &str, overload: u32) -> Result<Arc<dyn TableFunction>> {
        match self.code(name, overload)? {
            Implementation::Table(f) => Ok(f),
            _ => Err(Error::bug(format!("function \"{name}\" is not a table function"))),
        }
    }

    /// The code of an aggregate's overload.
    pub fn aggregate(&self, name: &str, overload: u32) -> Result<Arc<dyn AggregateFunction>> {
        match self.code(name, overload)? {
            Implementation::Aggregate(f) => Ok(f),
            _ => Err(Error::bug(format!("function \"{name}\" is not an aggregate"))),
        }
    }
}

impl FunctionCatalog for FunctionLibrary {
    fn function(&self, name: &str) -> Option<Arc<Function>> {
        self.entries.read().get(name).map(|e| e.function.clone())
    }

    fn functions(&self) -> Vec<Arc<Function>> {
        self.entries.read().values().map(|e| e.function.clone()).collect()
    }
}

pub(crate) use bytes::lenient_base64;
pub use table::{TableCall, compile_table};
pub(crate) use typed::{Builtin, Def, T, computed, exact, list_of, map_of, param};

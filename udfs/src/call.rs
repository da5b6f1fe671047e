//! Calls of SQL functions over batches, row by row.
//!
//! A row's verdict falls on a fresh instance: where a call fails in an instance that others were called in before, it
//! is made once more in a new one. So results depend neither on where batches are cut nor on how long instances live,
//! and a guest that leaks memory is only slower. Out of wall time, or out of the process's memory for guests, is never
//! a verdict: the whole call ends with an error that says where.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::ArrayRef;
use wasmtime::Store;
use wasmtime::component::{Func, Val};

use millpond_types::{Error, Result};

use crate::column::Column;
use crate::engine::ticks;
use crate::host::Module;
use crate::instance::{Failure, Instance};
use crate::read::{Reader, Stop, widened};
use crate::wasi::GuestState;
use crate::{FunctionSignature, InstanceScope, fast};

/// Bytes of one row's error message that are kept.
const MESSAGE_BYTES_MAX: usize = 512;

/// Stack of a thread that guests are called in.
const ASIDE_STACK_BYTES: usize = 4 << 20;

/// What a call may depend on but its arguments.
#[derive(Clone, Copy, Default)]
pub struct CallContext<'a> {
    /// What the guest's clock shows, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The same for each row by itself.
    pub row_times: Option<&'a [i64]>,
    /// Where the guest's random numbers come from.
    pub seed: u64,
    /// One number for each row (such as its offset) that its random numbers also depend on. Without it every row has
    /// the same ones.
    pub row_seeds: Option<&'a [u64]>,
    /// Set from outside to end the call between two rows.
    pub cancelled: Option<&'a AtomicBool>,
}

/// One result for each row.
#[derive(Debug)]
pub struct Called {
    pub result: ArrayRef,
    /// Rows that failed, in order; their result is NULL.
    pub errors: Vec<RowError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub row: usize,
    pub message: String,
}

/// A call that ended without results. `Retry`: the same call may succeed later (out of wall time, out of memory for
/// guests, cancelled).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// Where it ended, if at a row.
    pub row: Option<usize>,
    pub error: Error,
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self { row: None, error }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        error.error
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for CallError {}

/// A SQL function over batches. The row form is the first kind of it; the batch form will be the second.
pub trait Callable: Send + Sync {
    fn signature(&self) -> &FunctionSignature;

    /// Calls the function for each of `rows` rows of the argument columns. `instance` is of the function's module.
    ///
    /// Blocks while guest code runs. Needs a thread with about 1 MiB of free stack.
    fn call_batch(
        &self,
        instance: &mut Instance,
        context: &CallContext<'_>,
        args: &[ArrayRef],
        rows: usize,
    ) -> Result<Called, CallError>;
}

/// An exported function of any component, called once for each row.
#[derive(Clone)]
pub struct ScalarFunction {
    module: Arc<Module>,
    index: usize,
}

impl ScalarFunction {
    pub(crate) fn new(module: Arc<Module>, index: usize) -> Self {
        Self { module, index }
    }

    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// A place for an instance that this function, and others of its module, can be called in.
    pub fn instance(&self, scope: InstanceScope) -> Instance {
        Instance::new(self.module.clone(), scope)
    }
}

impl Callable for ScalarFunction {
    fn signature(&self) -> &FunctionSignature {
        // The index was checked when this was made.
        &self.module.report().functions[self.index]
    }

    fn call_batch(
        &self,
        instance: &mut Instance,
        context: &CallContext<'_>,
        args: &[ArrayRef],
        rows: usize,
    ) -> Result<Called, CallError> {
        let signature = self.signature();
        if !Arc::ptr_eq(instance.module(), &self.module) {
            return Err(Error::bug(format!("\"{}\" was called in another module's instance", signature.name)).into());
        }
        if args.len() != signature.params.len() || args.iter().any(|arg| arg.len() != rows) {
            return Err(Error::bad_request(format!(
                "\"{}\" takes {} arguments of {rows} rows each",
                signature.name,
                signature.params.len()
            ))
            .into());
        }
        let args = signature.params.iter().zip(args).map(|(p, arg)| widened(&p.ty, arg)).collect::<Result<Vec<_>>>()?;
        let mut caller: Box<dyn RowCall + Send + '_> = match fast::caller(signature, &args) {
            Some(caller) => caller,
            None => Box::new(DynamicCall::new(signature, &args)?),
        };
        let mut column = Column::new(&signature.result, rows);
        let errors = if self.module.uses_wasi() && tokio::runtime::Handle::try_current().is_ok() {
            self.call_rows_aside(instance, context, caller.as_mut(), &mut column, rows)?
        } else {
            self.call_rows(instance, context, caller.as_mut(), &mut column, rows)?
        };
        Ok(Called { result: column.finish()?, errors })
    }
}

impl ScalarFunction {
    fn call_rows(
        &self,
        instance: &mut Instance,
        context: &CallContext<'_>,
        caller: &mut (dyn RowCall + Send),
        column: &mut Column,
        rows: usize,
    ) -> Result<Vec<RowError>, CallError> {
        let limits = self.module.limits();
        let ticks = ticks(limits.call_wall_max);
        let uses_wasi = self.module.uses_wasi();
        let mut errors = Vec::new();
        // The start of the instance that `caller` is bound to.
        let mut bound = None;
        for row in 0..rows {
            if context.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(CallError { row: Some(row), error: Error::retry("the call was cancelled") });
            }
            let outcome = match caller.arguments(row) {
                Ok(()) => loop {
                    let live = match instance.live() {
                        Ok(Ok(live)) => live,
                        Ok(Err(why)) => break Err(Stop::Error(why)),
                        Err(trouble) => return Err(self.at_row(trouble, row)),
                    };
                    let fresh = !live.used;
                    if bound != Some(live.start) {
                        let func = live.func(&self.module, self.index).map_err(|trouble| self.at_row(trouble, row))?;
                        caller.bind(&live.store, func)?;
                        bound = Some(live.start);
                    }
                    live.begin_call(limits, ticks, context, row);
                    let called = caller.call(&mut live.store, column);
                    let said = if uses_wasi { live.store.data_mut().take_log() } else { None };
                    if let Some(text) = &said {
                        self.module.log(text);
                    }
                    match called {
                        Ok(outcome) => {
                            live.used = true;
                            break outcome.map_err(Stop::Error);
                        }
                        Err(e) => {
                            let failure = Failure::of(&e, &live.store);
                            instance.discard();
                            match failure {
                                Failure::Host(error) => return Err(CallError { row: Some(row), error }),
                                Failure::Late if fresh => return Err(self.at_row(Trouble::Late, row)),
                                Failure::Guest(why) if fresh => {
                                    break Err(Stop::Error(with_last_words(why, said.as_deref())));
                                }
                                Failure::Late | Failure::Guest(_) => {}
                            }
                        }
                    }
                },
                Err(stop) => Err(stop),
            };
            match outcome {
                Ok(()) => {}
                Err(Stop::Null) => column.push_null(),
                Err(Stop::Error(message)) => {
                    column.push_null();
                    errors.push(RowError { row, message: shortened(message) });
                }
            }
        }
        Ok(errors)
    }

    /// In a thread of its own: WASI's blocking calls enter an async runtime, which cannot be done from within another.
    fn call_rows_aside(
        &self,
        instance: &mut Instance,
        context: &CallContext<'_>,
        caller: &mut (dyn RowCall + Send),
        column: &mut Column,
        rows: usize,
    ) -> Result<Vec<RowError>, CallError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("guest".to_string()).stack_size(ASIDE_STACK_BYTES);
            let called = thread
                .spawn_scoped(scope, || self.call_rows(instance, context, caller, column, rows))
                .map_err(|e| Error::retry(format!("no thread for a guest: {e}")))?;
            called.join().unwrap_or_else(|_| Err(Error::bug("the host of a guest panicked").into()))
        })
    }

    fn at_row(&self, trouble: Trouble, row: usize) -> CallError {
        let error = match trouble {
            Trouble::Host(error) => error,
            Trouble::Late => Error::retry(format!(
                "function \"{}\" did not end within {} s at row {row} of the batch",
                self.signature().name,
                self.module.limits().call_wall_max.as_secs()
            )),
        };
        CallError { row: Some(row), error }
    }
}

/// What a guest writes before it gives up is mostly why.
fn with_last_words(why: String, said: Option<&str>) -> String {
    match said.and_then(|said| said.lines().map(str::trim).find(|line| !line.is_empty())) {
        Some(line) => format!("{why}: {line}"),
        None => why,
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Why a call says nothing about a row.
pub(crate) enum Trouble {
    Late,
    Host(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

/// How one shape of function is called: dynamically, or with types known to the compiler.
pub(crate) trait RowCall {
    /// Takes the arguments of a row.
    fn arguments(&mut self, row: usize) -> Result<(), Stop>;

    /// Looks the function up in a new instance.
    fn bind(&mut self, store: &Store<GuestState>, func: Func) -> Result<()>;

    /// Calls with the arguments taken last; may be called again with the same. Pushes the result onto the column. The
    /// inner error is the row's, with nothing pushed; the outer one ends the instance.
    fn call(&mut self, store: &mut Store<GuestState>, column: &mut Column) -> wasmtime::Result<Result<(), String>>;
}

/// Through values that carry their types: any function.
struct DynamicCall<'a> {
    readers: Vec<Reader<'a>>,
    fallible: bool,
    func: Option<Func>,
    params: Vec<Val>,
    results: [Val; 1],
}

impl<'a> DynamicCall<'a> {
    fn new(signature: &'a FunctionSignature, args: &'a [ArrayRef]) -> Result<Self> {
        let readers =
            signature.params.iter().zip(args).map(|(param, arg)| Reader::new(&param.ty, arg)).collect::<Result<_>>()?;
        Ok(Self {
            readers,
            fallible: signature.fallible,
            func: None,
            params: Vec::with_capacity(args.len()),
            results: [Val::Bool(false)],
        })
    }
}

impl RowCall for DynamicCall<'_> {
    fn arguments(&mut self, row: usize) -> Result<(), Stop> {
        self.params.clear();
        // An error in any argument counts before a NULL in another, whatever their order.
        let mut null = false;
        for reader in &self.readers {
            match reader.read(row) {
                Ok(value) => self.params.push(value),
                Err(Stop::Null) => null = true,
                Err(error) => return Err(error),
            }
        }
        if null { Err(Stop::Null) } else { Ok(()) }
    }

    fn bind(&mut self, _: &Store<GuestState>, func: Func) -> Result<()> {
        self.func = Some(func);
        Ok(())
    }

    fn call(&mut self, store: &mut Store<GuestState>, column: &mut Column) -> wasmtime::Result<Result<(), String>> {
        let Some(func) = self.func else { return Err(wasmtime::Error::msg("the function is not bound")) };
        func.call(store, &self.params, &mut self.results)?;
        let [result] = &self.results;
        Ok(match result {
            Val::Result(Ok(Some(value))) if self.fallible => column.push(value),
            Val::Result(Err(Some(error))) if self.fallible => Err(match error.as_ref() {
                Val::String(message) => message.clone(),
                _ => "the function answered with an error".to_string(),
            }),
            Val::Result(_) => Err("the function answered with an error".to_string()),
            value => column.push(value),
        })
    }
}

//! A running instance of a module: its store, its limits, its life.
//!
//! One store per instance. Any error out of a call ends both; the next call starts anew. Memory counts against the
//! instance's own limit, by which a guest is judged, and against the process's budget, by which nobody is judged: who
//! is refused there has the whole call refused.

use std::sync::Arc;

use wasmtime::component::Func;
use wasmtime::{ResourceLimiter, Store, Trap};

use millpond_types::{Error, Pool};

use crate::call::Trouble;
use crate::engine::ticks;
use crate::host::Module;
use crate::wasi::GuestState;
use crate::{CallContext, Limits};

/// How long an instance lives. Results are the same; what differs is the cost of starting (17 µs for Rust, a
/// millisecond for languages with a runtime) against memory that guests forget to free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InstanceScope {
    /// A fresh instance for each row.
    Call,
    /// Until [`Instance::end_step`].
    #[default]
    Step,
    /// As long as the query runs.
    Query,
}

/// A place for one instance of one module, used by one caller at a time. Empty until the first call.
pub struct Instance {
    module: Arc<Module>,
    scope: InstanceScope,
    live: Option<Live>,
    /// Starts so far.
    starts: u64,
    /// Why it does not start; so it is for all rows until the step ends.
    start_failure: Option<String>,
}

pub(crate) struct Live {
    pub(crate) store: Store<GuestState>,
    instance: wasmtime::component::Instance,
    /// Which start of its [`Instance`] this is; functions looked up in another are stale.
    pub(crate) start: u64,
    /// A call ended well; from then on a failure may be due to what was called before.
    pub(crate) used: bool,
}

impl Instance {
    pub fn new(module: Arc<Module>, scope: InstanceScope) -> Self {
        Self { module, scope, live: None, starts: 0, start_failure: None }
    }

    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    pub fn scope(&self) -> InstanceScope {
        self.scope
    }

    /// Lets go of what must not outlive a step.
    pub fn end_step(&mut self) {
        self.start_failure = None;
        if self.scope != InstanceScope::Query {
            self.live = None;
        }
    }

    pub(crate) fn discard(&mut self) {
        self.live = None;
    }

    /// The instance that the next row is called in. The inner error is the row's: the guest does not start.
    pub(crate) fn live(&mut self) -> Result<Result<&mut Live, String>, Trouble> {
        if self.scope == InstanceScope::Call && self.live.as_ref().is_some_and(|live| live.used) {
            self.live = None;
        }
        if let Some(why) = &self.start_failure {
            return Ok(Err(why.clone()));
        }
        if self.live.is_none() {
            self.starts += 1;
            match Live::start(&self.module, self.starts)? {
                Ok(live) => self.live = Some(live),
                Err(why) => {
                    self.start_failure = Some(why.clone());
                    return Ok(Err(why));
                }
            }
        }
        match &mut self.live {
            Some(live) => Ok(Ok(live)),
            None => Err(Error::bug("an instance that was started is not there").into()),
        }
    }
}

impl Live {
    fn start(module: &Module, start: u64) -> Result<Result<Self, String>, Trouble> {
        let limits = module.limits();
        module.start_epoch()?;
        let limiter = GuestLimiter::new(limits, module.budget().clone());
        let state = GuestState::new(limiter, limits.random_bytes_max, limits.log_bytes_max);
        let mut store = Store::try_new(module.engine(), state)
            .map_err(|e| Error::retry(format!("no instance of a guest can be made: {e:#}")))?;
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.epoch_deadline_trap();
        store.set_epoch_deadline(ticks(limits.call_wall_max));
        store.set_fuel(limits.start_fuel_max).map_err(|e| Error::bug(format!("fuel is off: {e:#}")))?;
        match module.pre().instantiate(&mut store) {
            Ok(instance) => Ok(Ok(Self { store, instance, start, used: false })),
            Err(e) => match Failure::of(&e, &store) {
                Failure::Guest(why) => Ok(Err(format!("the module does not start: {why}"))),
                Failure::Host(error) => Err(error.into()),
                Failure::Late => Err(Trouble::Late),
            },
        }
    }

    pub(crate) fn func(&mut self, module: &Module, function: usize) -> Result<Func, Trouble> {
        let export = module.export(function)?;
        self.instance
            .get_func(&mut self.store, export)
            .ok_or_else(|| Error::bug("a function that was inspected is not exported").into())
    }

    /// Fuel and time for one row's call.
    pub(crate) fn begin_call(&mut self, limits: &Limits, ticks: u64, context: &CallContext<'_>, row: usize) {
        // Fuel is on in our engine, so this cannot fail; with no fuel set, the call would only fail.
        let _ = self.store.set_fuel(limits.row_fuel_max);
        self.store.set_epoch_deadline(ticks);
        let seed = context.row_seeds.and_then(|seeds| seeds.get(row).copied());
        let time = context.row_times.and_then(|times| times.get(row).copied()).unwrap_or(context.time_ms);
        self.store.data_mut().begin_call(time, seed.map_or(context.seed, |row| mix(context.seed, row)));
    }
}

fn mix(seed: u64, row: u64) -> u64 {
    (seed ^ row.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whose doing a failed call is.
pub(crate) enum Failure {
    /// The guest's: the row fails.
    Guest(String),
    /// The host's: nothing is said about the row.
    Host(Error),
    /// Out of wall time: nothing is said about the row.
    Late,
}

impl Failure {
    pub(crate) fn of(error: &wasmtime::Error, store: &Store<GuestState>) -> Self {
        if store.data().limiter.budget_refused {
            return Self::Host(Error::retry("the memory budget of WebAssembly guests is used up"));
        }
        Self::Guest(match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => return Self::Late,
            Some(Trap::OutOfFuel) => "it ran too long (out of fuel)".to_string(),
            Some(Trap::UnreachableCodeReached) => "it trapped (unreachable; a panic or abort)".to_string(),
            Some(trap) => format!("it trapped ({trap})"),
            None => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
                Some(exit) => format!("it exited with status {}", exit.0),
                None => format!("{error:#}"),
            },
        })
    }
}

/// Sums the linear memories and tables of one instance; wasmtime's own limits bound each by itself.
pub(crate) struct GuestLimiter {
    /// Linear memory of all instances of the host.
    budget: Pool,
    memory_max: usize,
    memory: usize,
    tables_max: usize,
    table_elements: usize,
    count_max: usize,
    /// The process's budget, not the guest's limit, said no.
    budget_refused: bool,
}

impl GuestLimiter {
    fn new(limits: &Limits, budget: Pool) -> Self {
        Self {
            budget,
            memory_max: limits.instance_memory_bytes_max,
            memory: 0,
            tables_max: limits.table_elements_max,
            table_elements: 0,
            count_max: limits.core_instances_max,
            budget_refused: false,
        }
    }
}

impl ResourceLimiter for GuestLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let sum = self.memory.saturating_add(more);
        if sum > self.memory_max || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if !self.budget.try_take(more) {
            self.budget_refused = true;
            return Err(wasmtime::Error::msg("the memory budget of guests is used up"));
        }
        self.memory = sum;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add(desired.saturating_sub(current));
        if sum > self.tables_max || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.count_max
    }

    fn tables(&self) -> usize {
        self.count_max
    }

    fn memories(&self) -> usize {
        self.count_max
    }
}

impl Drop for GuestLimiter {
    fn drop(&mut self) {
        self.budget.give(self.memory);
    }
}

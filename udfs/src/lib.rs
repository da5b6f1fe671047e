//! The WebAssembly host: takes components in, finds the SQL functions among their exports, compiles them away from the
//! server, and calls them row by row within limits.
//!
//! Not here: which function a statement means (`sql`), what becomes of a row's error (`engine`), where modules are
//! stored ([`ModuleStore`] is the engine's).
//!
//! Invariants:
//! - Nothing that a guest does reaches further than the row it does it in, but for time and memory that the limits name.
//! - A row's result depends on its arguments and its [`CallContext`] alone: a row fails if and only if it fails on a
//!   fresh instance, wherever batches are cut and however long instances live.
//! - A [`Host`] costs nothing until the first module is compiled or called: no engine, no threads.
//!
//! The only crate that names wasmtime. One function of it is unsafe: `cache::deserialize`.

#![deny(unsafe_code)]

pub mod check;
pub mod compile_child;
pub mod limits;

mod cache;
mod call;
mod column;
mod compile;
mod component;
mod engine;
mod fast;
mod host;
mod inspect;
mod instance;
mod read;
mod registry;
mod wasi;
mod wit_type;

pub use call::{CallContext, CallError, Callable, Called, RowError, ScalarFunction};
pub use compile::CompileCommand;
pub use host::{GuestLog, Host, HostOptions, Module};
pub use inspect::{FunctionSignature, LeftOut, ModuleReport, Parameter, inspect};
pub use instance::{Instance, InstanceScope};
pub use limits::Limits;
pub use registry::{ModuleEntry, ModuleStore, Put, Registry};
pub use wit_type::{ParamType, WitType};

/// Modules are shared between threads; instances move between them.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn moved<T: Send>() {}
    shared::<Host>();
    shared::<Module>();
    shared::<Registry>();
    shared::<ScalarFunction>();
    moved::<Instance>();
};

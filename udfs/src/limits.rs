//! Every limit that holds a guest, by name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What guests, uploads and their compilation may take. [`Limits::default`] is what the server runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of an upload.
    pub module_bytes_max: usize,
    /// Bytes of one function's body; compiling takes time that grows faster than the body.
    pub function_bytes_max: usize,
    /// Loops within loops of one function.
    pub loop_depth_max: usize,
    /// Local variables of one function.
    pub locals_max: u64,
    /// Exports of one component.
    pub exports_max: u64,
    /// Exports of one core module: languages with a runtime export all of it, for linking within the component.
    pub core_exports_max: u64,
    /// Nodes of all types in one function's signature.
    pub type_nodes_max: usize,
    /// Types within types in one function's signature; conversions recurse so deep.
    pub type_depth_max: usize,
    /// Modules and components nested in an upload.
    pub nested_modules_max: usize,

    /// Address space of the compiling process.
    pub compile_memory_bytes_max: u64,
    /// Processor seconds of the compiling process.
    pub compile_cpu_seconds_max: u64,
    /// After so long the compiling process is killed.
    pub compile_wall_max: Duration,

    /// Linear memory of one instance.
    pub instance_memory_bytes_max: usize,
    /// Linear memory of all instances together; who gets past it is told to come back later.
    pub guest_memory_bytes_max: usize,
    pub table_elements_max: usize,
    /// Core instances, memories and tables of one component instance.
    pub core_instances_max: usize,
    /// Fuel (about one unit per instruction) for one row's call. Out of it, the row fails.
    pub row_fuel_max: u64,
    /// Fuel to start an instance.
    pub start_fuel_max: u64,
    /// Wall time after which a call or a start is given up. Never a verdict over data: the caller gets an error.
    pub call_wall_max: Duration,
    /// Bytes that one call may hand over to the host.
    pub output_bytes_max: usize,
    /// Stack of guest code.
    pub guest_stack_bytes: usize,
    /// Bytes of stdout and stderr kept of one call.
    pub log_bytes_max: usize,
    /// Bytes of randomness in one request.
    pub random_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            module_bytes_max: 64 << 20,
            function_bytes_max: 1 << 20,
            loop_depth_max: 64,
            locals_max: 1_000,
            exports_max: 1_000,
            core_exports_max: 50_000,
            type_nodes_max: 1_000,
            type_depth_max: 64,
            nested_modules_max: 1_000,
            compile_memory_bytes_max: 2 << 30,
            compile_cpu_seconds_max: 60,
            compile_wall_max: Duration::from_secs(120),
            instance_memory_bytes_max: 64 << 20,
            guest_memory_bytes_max: 512 << 20,
            table_elements_max: 20_000,
            core_instances_max: 64,
            row_fuel_max: 100_000_000,
            start_fuel_max: 2_000_000_000,
            call_wall_max: Duration::from_secs(30),
            output_bytes_max: 128 << 20,
            guest_stack_bytes: 512 << 10,
            log_bytes_max: 8 << 10,
            random_bytes_max: 1 << 20,
        }
    }
}

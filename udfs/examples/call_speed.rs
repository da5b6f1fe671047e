//! What a call of a WebAssembly function costs: nanoseconds per row over batches of 4,096 rows.
//!
//! `cargo run --release -p millpond-udfs --example call_speed`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use millpond_udfs::{CallContext, Callable, Host, HostOptions, InstanceScope, Module};

const ROWS: usize = 4096;
const ROUNDS: usize = 200;

fn main() {
    let dir = std::env::var("MILLPOND_GUESTS")
        .unwrap_or_else(|_| format!("{}/.cache/millpond/guests", std::env::var("HOME").unwrap_or_default()));
    let host = Host::new(HostOptions::default());
    let load = |name: &str| -> Arc<Module> {
        let bytes = std::fs::read(format!("{dir}/{name}.wasm")).expect("run examples/guests/build.sh first");
        let report = host.prepare(&bytes).expect("the guest compiles");
        host.load(&report, || unreachable!("it is kept in memory")).expect("the guest loads")
    };
    let (probes, classify) = (load("probes"), load("classify"));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| format!("/section-{}/page-{i:016}", i % 7))));
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";
    let agents: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|_| agent)));

    println!("{:<34} {:>9}", "function", "ns/row");
    measure(&probes, "ADD_ONE", "s64 -> s64", &one(&numbers), InstanceScope::Step);
    measure(&probes, "HUGE", "s64 -> u64 (dynamic)", &one(&numbers), InstanceScope::Step);
    measure(&probes, "ECHO", "string -> string, 33 bytes", &one(&texts), InstanceScope::Step);
    measure(&classify, "URL_SECTION", "string -> string, 33 bytes", &one(&texts), InstanceScope::Step);
    measure(&classify, "CLASSIFY_AGENT", "string -> string, 70 bytes", &[agents], InstanceScope::Step);
    measure(&probes, "JOIN_TWO", "(string, string) -> string", &[texts.clone(), texts], InstanceScope::Step);
    measure(&probes, "ADD_ONE", "s64 -> s64, instance = call", &[numbers], InstanceScope::Call);
}

fn one(column: &ArrayRef) -> [ArrayRef; 1] {
    [column.clone()]
}

#[allow(clippy::disallowed_methods, reason = "only how long something took is told")]
fn measure(module: &Arc<Module>, name: &str, shape: &str, args: &[ArrayRef], scope: InstanceScope) {
    let function = module.functions_named(name).next().expect("the guest has the function");
    let mut instance = function.instance(scope);
    let rounds = if scope == InstanceScope::Call { 3 } else { ROUNDS };
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let started = Instant::now();
        let called = function.call_batch(&mut instance, &CallContext::default(), args, ROWS).expect("the call ends");
        best = best.min(started.elapsed().as_nanos() as f64 / ROWS as f64);
        assert!(called.errors.is_empty());
        black_box(called.result);
        instance.end_step();
    }
    println!("{:<34} {best:>9.0}", format!("{name}: {shape}"));
}

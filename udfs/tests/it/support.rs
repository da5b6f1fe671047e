//! What the tests share: the built guests, a host, and calls whose arguments and results are SQL values.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use arrow::array::{Array, ArrayRef};
use millpond_types::{SqlType, Value};
use millpond_udfs::{
    CallContext, CallError, Callable, GuestLog, Host, HostOptions, Instance, InstanceScope, Limits, Module,
    ScalarFunction,
};

pub fn guest(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        // Does nothing where the guests are there and their sources unchanged.
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/guests/build.sh");
        let built = Command::new(script).output().expect("build.sh runs");
        assert!(built.status.success(), "build.sh failed: {}", String::from_utf8_lossy(&built.stderr));
        PathBuf::from(String::from_utf8(built.stdout).unwrap().lines().last().unwrap())
    });
    std::fs::read(dir.join(format!("{name}.wasm"))).unwrap()
}

pub fn small_limits() -> Limits {
    // Little fuel, so that endless loops end soon.
    Limits { row_fuel_max: 5_000_000, ..Limits::default() }
}

/// Everything that guests of [`host`]s wrote.
pub fn said() -> String {
    SAID.lock().unwrap().clone()
}

static SAID: Mutex<String> = Mutex::new(String::new());

pub fn host() -> Host {
    let log: GuestLog = Arc::new(|_, text| SAID.lock().unwrap().push_str(text));
    Host::new(HostOptions { limits: small_limits(), log: Some(log), ..HostOptions::default() })
}

pub fn module_on(host: &Host, bytes: &[u8]) -> Arc<Module> {
    let report = host.prepare(bytes).unwrap();
    host.load(&report, || panic!("it was just prepared")).unwrap()
}

pub fn module(bytes: &[u8]) -> Arc<Module> {
    module_on(&host(), bytes)
}

/// A guest compiled once for all tests.
pub fn shared(name: &'static str) -> Arc<Module> {
    static PROBES: OnceLock<Arc<Module>> = OnceLock::new();
    static WORDS: OnceLock<Arc<Module>> = OnceLock::new();
    let place = if name == "probes" { &PROBES } else { &WORDS };
    place.get_or_init(|| module(&guest(name))).clone()
}

pub fn function(module: &Arc<Module>, name: &str) -> ScalarFunction {
    module.functions_named(name).next().unwrap_or_else(|| panic!("no function {name}"))
}

pub fn column(ty: &SqlType, values: &[Value]) -> ArrayRef {
    millpond_types::value::array_from_values(ty, values).unwrap()
}

pub type Rows = (Vec<Value>, Vec<(usize, String)>);

/// Calls in batches of `batch` rows, ending the step after each.
pub fn call_in(
    function: &ScalarFunction,
    instance: &mut Instance,
    batch: usize,
    args: &[(SqlType, Vec<Value>)],
    rows: usize,
) -> Result<Rows, CallError> {
    let mut results = Vec::new();
    let mut errors = Vec::new();
    let mut from = 0;
    while from < rows {
        let to = rows.min(from + batch);
        let columns: Vec<ArrayRef> = args.iter().map(|(ty, values)| column(ty, &values[from..to])).collect();
        let seeds: Vec<u64> = (from as u64..to as u64).collect();
        let times: Vec<i64> = (from..to).map(|row| 1_700_000_000_123 + row as i64).collect();
        let context =
            CallContext { seed: 7, row_times: Some(&times), row_seeds: Some(&seeds), ..CallContext::default() };
        let called = function.call_batch(instance, &context, &columns, to - from)?;
        let ty = function.signature().result_type().unwrap();
        assert_eq!(called.result.data_type(), &ty.to_arrow());
        results.extend((0..to - from).map(|row| millpond_types::value::value_at(called.result.as_ref(), &ty, row)));
        errors.extend(called.errors.into_iter().map(|e| (from + e.row, e.message)));
        instance.end_step();
        from = to;
    }
    Ok((results, errors))
}

/// Calls a function over rows, in each scope and in several batch sizes, and expects one answer from all.
pub fn call(module: &Arc<Module>, name: &str, args: &[(SqlType, Vec<Value>)]) -> Rows {
    let rows = args.first().map_or(3, |(_, values)| values.len());
    let function = function(module, name);
    let mut first: Option<Rows> = None;
    for scope in [InstanceScope::Step, InstanceScope::Call, InstanceScope::Query] {
        for batch in [4096, 1, 7] {
            let answer = call_in(&function, &mut function.instance(scope), batch, args, rows).unwrap();
            match &first {
                None => first = Some(answer),
                Some(first) => assert_eq!(first, &answer, "{name} in scope {scope:?}, batches of {batch}"),
            }
        }
    }
    first.unwrap()
}

/// Results alone; no row may fail.
pub fn results(module: &Arc<Module>, name: &str, args: &[(SqlType, Vec<Value>)]) -> Vec<Value> {
    let (results, errors) = call(module, name, args);
    assert_eq!(errors, [], "{name}");
    results
}

pub fn longs(values: &[i64]) -> (SqlType, Vec<Value>) {
    (SqlType::BigInt, values.iter().map(|v| Value::BigInt(*v)).collect())
}

pub fn ints(values: &[i32]) -> (SqlType, Vec<Value>) {
    (SqlType::Integer, values.iter().map(|v| Value::Integer(*v)).collect())
}

pub fn strings(values: &[&str]) -> (SqlType, Vec<Value>) {
    (SqlType::String, values.iter().map(|v| text(v)).collect())
}

pub fn text(value: &str) -> Value {
    Value::String(value.to_string())
}

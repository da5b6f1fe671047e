//! Components that no compiler writes: bombs, liars, hoarders.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use millpond_types::{ErrorKind, Value};
use millpond_udfs::{CallContext, Callable, Host, HostOptions, InstanceScope, Limits, inspect};

use crate::support::*;

/// A component around one core module whose functions `name` go from s64 to `result`.
fn component(core: &str, functions: &[(&str, &str)]) -> Vec<u8> {
    let lifts: String = functions
        .iter()
        .map(|(name, result)| {
            let options = if *result == "string" { "(memory (core memory $i \"memory\"))" } else { "" };
            format!(
                "(func (export \"{name}\") (param \"n\" s64) (result {result})
                   (canon lift (core func $i \"{name}\") {options}))\n"
            )
        })
        .collect();
    wat::parse_str(format!("(component (core module $m {core}) (core instance $i (instantiate $m)) {lifts})")).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    let error = inspect(bytes, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    error.message().to_string()
}

#[test]
fn bombs_are_refused_before_compiling() {
    let loops = component(
        &format!(
            "(memory (export \"memory\") 1) (func (export \"f\") (param i64) (result i64) {} {} local.get 0)",
            "loop ".repeat(65),
            "end ".repeat(65)
        ),
        &[("f", "s64")],
    );
    assert!(refusal(&loops).contains("loops nested more than 64 deep"));
    let locals = component(
        &format!("(func (export \"f\") (param i64) (result i64) (local {}) local.get 0)", "i64 ".repeat(1001)),
        &[("f", "s64")],
    );
    assert!(refusal(&locals).contains("more than 1000 local variables"));
    let body = component(
        &format!(
            "(func (export \"f\") (param i64) (result i64) {} local.get 0)",
            "(drop (i64.const 1234567890123))".repeat(140_000)
        ),
        &[("f", "s64")],
    );
    assert!(refusal(&body).contains("at most 1048576 are accepted"));
    let many: String = (0..1001)
        .map(|i| format!("(func (export \"f{i}\") (param \"n\" s64) (result s64) (canon lift (core func $i \"f\")))"))
        .collect();
    let exports = wat::parse_str(format!(
        "(component (core module $m (func (export \"f\") (param i64) (result i64) local.get 0))
           (core instance $i (instantiate $m)) {many})"
    ))
    .unwrap();
    assert!(refusal(&exports).contains("more than 1000 exports"));
    let small = Limits { module_bytes_max: 100, ..Limits::default() };
    assert!(inspect(&loops, &small).unwrap_err().message().contains("at most 100 are accepted"));
}

#[test]
fn what_is_no_component_is_refused() {
    assert!(refusal(b"").contains("not a WebAssembly"));
    assert!(refusal(b"hello, world").contains("not a WebAssembly"));
    assert!(refusal(b"\0asm\x0d\0\x01\0\xff\xff").contains("not a WebAssembly"));
    assert!(refusal(&wat::parse_str("(module)").unwrap()).contains("without a component type"));
    let import = wat::parse_str("(component (import \"host:thing/api\" (instance (export \"f\" (func)))))").unwrap();
    assert!(refusal(&import).contains("imports \"host:thing/api\""), "{}", refusal(&import));
    let mut cut = guest("classify");
    cut.truncate(cut.len() / 2);
    refusal(&cut);
}

#[test]
fn too_many_types_are_left_out() {
    let big = "(tuple s32 s32 s32 s32 s32 s32 s32 s32 s32 s32)";
    let types: String = std::iter::once(format!("(type $t0 {big})"))
        .chain((1..=3).map(|i| format!("(type $t{i} (tuple {}))", format!("$t{} ", i - 1).repeat(10))))
        .collect();
    let bytes = wat::parse_str(format!(
        "(component {types}
           (core module $m (memory (export \"memory\") 1)
             (func (export \"f\") (param i32) (result i64) i64.const 0)
             (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           (func (export \"f\") (param \"x\" $t3) (result s64)
             (canon lift (core func $i \"f\") (memory (core memory $i \"memory\")) (realloc (core func $i \"cabi_realloc\")))))"
    ))
    .unwrap();
    let report = inspect(&bytes, &Limits::default()).unwrap();
    assert!(report.functions.is_empty());
    assert!(report.left_out[0].reason.contains("more than 1000 types"), "{:?}", report.left_out);
}

#[test]
fn traps_loops_and_lies_fail_their_rows() {
    let bytes = component(
        "(memory (export \"memory\") 1)
         (func (export \"trap\") (param i64) (result i64)
           (if (i64.eqz (local.get 0)) (then unreachable)) local.get 0)
         (func (export \"divide\") (param i64) (result i64) (i64.div_s (i64.const 100) (local.get 0)))
         (func (export \"spin\") (param i64) (result i64)
           (if (i64.eqz (local.get 0)) (then (loop br 0))) local.get 0)
         (func $deep (export \"recurse\") (param i64) (result i64)
           (if (i64.eqz (local.get 0)) (then (drop (call $deep (local.get 0))))) local.get 0)
         (func (export \"pointer\") (param i64) (result i32)
           (i32.store (i32.const 8) (select (i32.const 16) (i32.const 0xffff0) (i64.ne (local.get 0) (i64.const 0))))
           (i32.store (i32.const 12) (i32.const 1)) (i32.store8 (i32.const 16) (i32.const 65)) i32.const 8)
         (func (export \"length\") (param i64) (result i32)
           (i32.store (i32.const 8) (i32.const 16))
           (i32.store (i32.const 12) (select (i32.const 1) (i32.const -1) (i64.ne (local.get 0) (i64.const 0))))
           (i32.store8 (i32.const 16) (i32.const 65)) i32.const 8)
         (func (export \"utf8\") (param i64) (result i32)
           (i32.store (i32.const 8) (i32.const 16)) (i32.store (i32.const 12) (i32.const 1))
           (i32.store8 (i32.const 16) (select (i32.const 65) (i32.const 255) (i64.ne (local.get 0) (i64.const 0))))
           i32.const 8)",
        &[
            ("trap", "s64"),
            ("divide", "s64"),
            ("spin", "s64"),
            ("recurse", "s64"),
            ("pointer", "string"),
            ("length", "string"),
            ("utf8", "string"),
        ],
    );
    let module = module(&bytes);
    for (name, good, why) in [
        ("TRAP", Value::BigInt(1), "trapped (unreachable"),
        ("DIVIDE", Value::BigInt(100), "divide by zero"),
        ("SPIN", Value::BigInt(1), "out of fuel"),
        ("RECURSE", Value::BigInt(1), "stack"),
        ("POINTER", text("A"), "pointer"),
        ("LENGTH", text("A"), "pointer"),
        ("UTF8", text("A"), "utf-8"),
    ] {
        let (values, errors) = call(&module, name, &[longs(&[1, 0, 1])]);
        assert_eq!(values, [good.clone(), Value::Null, good], "{name}");
        let [(1, message)] = errors.as_slice() else { panic!("{name}: {errors:?}") };
        assert!(message.contains(why), "{name}: {message}");
    }
}

#[test]
fn memory_and_tables_are_bounded() {
    let bytes = component(
        "(memory (export \"memory\") 1) (table $t 1 funcref)
         (func (export \"grow\") (param i64) (result i64)
           (i64.extend_i32_s (memory.grow (i32.wrap_i64 (local.get 0)))))
         (func (export \"widen\") (param i64) (result i64)
           (i64.extend_i32_s (table.grow $t (ref.null func) (i32.wrap_i64 (local.get 0)))))",
        &[("grow", "s64"), ("widen", "s64")],
    );
    let host = host();
    let module = module_on(&host, &bytes);
    // 64 MiB are 1,024 pages, one of which is there; an instance for each row.
    let grow = function(&module, "GROW");
    let grown = call_in(&grow, &mut grow.instance(InstanceScope::Call), 9, &[longs(&[1023, 1024, 1])], 3).unwrap();
    assert_eq!(grown.0, [1, -1, 1].map(Value::BigInt));
    let widen = function(&module, "WIDEN");
    let widened = call_in(&widen, &mut widen.instance(InstanceScope::Call), 9, &[longs(&[19_999, 20_000])], 2).unwrap();
    assert_eq!(widened.0, [1, -1].map(Value::BigInt));
    assert_eq!(host.guest_memory_bytes(), 0, "given back");

    let big = component(
        "(memory (export \"memory\") 1025) (func (export \"f\") (param i64) (result i64) local.get 0)",
        &[("f", "s64")],
    );
    let (values, errors) = call(&module_on(&host, &big), "F", &[longs(&[1, 2])]);
    assert_eq!(values, [Value::Null, Value::Null]);
    assert!(errors[0].1.contains("does not start"), "{errors:?}");
}

#[test]
fn the_budget_of_the_process_is_no_verdict() {
    let bytes = component(
        "(memory (export \"memory\") 16) (func (export \"f\") (param i64) (result i64) local.get 0)",
        &[("f", "s64")],
    );
    let limits = Limits { guest_memory_bytes_max: 3 << 20, ..small_limits() };
    let host = Host::new(HostOptions { limits, ..HostOptions::default() });
    let module = module_on(&host, &bytes);
    let f = function(&module, "F");
    let mut held: Vec<_> = (0..3).map(|_| f.instance(InstanceScope::Query)).collect();
    for instance in &mut held {
        call_in(&f, instance, 1, &[longs(&[1])], 1).unwrap();
    }
    assert_eq!(host.guest_memory_bytes(), 3 << 20);
    let mut one_more = f.instance(InstanceScope::Step);
    let error = call_in(&f, &mut one_more, 1, &[longs(&[1])], 1).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (Some(0), ErrorKind::Retry), "{error}");
    held.pop();
    assert_eq!(call_in(&f, &mut one_more, 1, &[longs(&[1])], 1).unwrap().0, [Value::BigInt(1)]);
}

#[test]
fn wall_time_is_no_verdict() {
    let bytes = component(
        "(func (export \"spin\") (param i64) (result i64)
           (if (i64.eqz (local.get 0)) (then (loop br 0))) local.get 0)",
        &[("spin", "s64")],
    );
    let limits = Limits { row_fuel_max: u64::MAX, call_wall_max: Duration::from_secs(2), ..Limits::default() };
    let host = Host::new(HostOptions { limits, ..HostOptions::default() });
    let spin = function(&module_on(&host, &bytes), "SPIN");
    let mut instance = spin.instance(InstanceScope::Step);
    let error = call_in(&spin, &mut instance, 10, &[longs(&[1, 2, 0, 3])], 4).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (Some(2), ErrorKind::Retry), "{error}");

    let cancelled = AtomicBool::new(true);
    let context = CallContext { cancelled: Some(&cancelled), ..CallContext::default() };
    let (ty, values) = longs(&[1]);
    let error = spin.call_batch(&mut instance, &context, &[column(&ty, &values)], 1).unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Retry);
}

#[test]
fn a_leaking_guest_is_only_slower() {
    // Takes a page for every call and traps when it gets none.
    let bytes = component(
        "(memory (export \"memory\") 1)
         (func (export \"leak\") (param i64) (result i64)
           (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable)) local.get 0)",
        &[("leak", "s64")],
    );
    let numbers: Vec<i64> = (0..100).collect();
    let (values, errors) = call(&module(&bytes), "LEAK", &[longs(&numbers)]);
    assert_eq!(errors, []);
    assert_eq!(values, numbers.iter().map(|n| Value::BigInt(*n)).collect::<Vec<_>>());
}

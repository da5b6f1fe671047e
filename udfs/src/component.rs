//! Makes a component of an upload: a component is taken as it is, a core module that carries its component type (as
//! `wit-bindgen` leaves it) is wrapped, with the adapter for wasip1 where it is imported.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};

use millpond_types::{Error, Result};

pub(crate) fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    if !Parser::is_core_wasm(bytes) {
        return Err(Error::bad_request("this is not a WebAssembly component or module"));
    }
    let mut typed = false;
    let mut wasip1 = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(refused)? {
            Payload::CustomSection(section) => typed |= section.name().starts_with("component-type"),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    wasip1 |= import.map_err(refused)?.module == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
                }
            }
            _ => {}
        }
    }
    if !typed {
        return Err(Error::bad_request(
            "this is a core WebAssembly module without a component type; build it with bindings generated from WIT, \
             or make a component of it",
        ));
    }
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(bytes).map_err(refused)?;
    if wasip1 {
        encoder = encoder
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
            .map_err(refused)?;
    }
    encoder.encode().map(Cow::Owned).map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("no component can be made of this module: {error:#}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use wit_component::StringEncoding;
    use wit_parser::Resolve;

    use crate::{CallContext, Callable, Host, HostOptions, InstanceScope};

    /// A core module as a compiler for wasip1 makes it: its clock is the call's, through the adapter.
    #[test]
    fn a_wasip1_module_is_adapted() {
        let mut core = wat::parse_str(
            r#"(module
                (import "wasi_snapshot_preview1" "clock_time_get"
                    (func $clock (param i32 i64 i32) (result i32)))
                (memory (export "memory") 4)
                (global $free (mut i32) (i32.const 65536))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (global.get $free)
                    (global.set $free (i32.add (global.get $free) (local.get 3))))
                (func (export "clock-plus") (param i64) (result i64)
                    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 64)))
                    (i64.add (i64.load (i32.const 64)) (local.get 0))))"#,
        )
        .unwrap();
        let mut resolve = Resolve::default();
        let wit = "package a:b; world w { export clock-plus: func(n: s64) -> s64; }";
        let package = resolve.push_str("w.wit", wit).unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).unwrap();

        let host = Host::new(HostOptions::default());
        let report = host.prepare(&core).unwrap();
        let module = host.load(&report, || unreachable!()).unwrap();
        let function = module.function(0).unwrap();
        let context = CallContext { time_ms: 5, ..CallContext::default() };
        let args: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![Some(1), None]))];
        let called = function.call_batch(&mut function.instance(InstanceScope::Step), &context, &args, 2).unwrap();
        assert_eq!(called.errors, []);
        let result = called.result.as_primitive::<Int64Type>();
        assert_eq!((result.value(0), result.is_null(1)), (5_000_001, true));
    }
}

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

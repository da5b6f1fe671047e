//! What an upload is refused for before anything is compiled: shapes that make a compiler run for minutes or take
//! gigabytes.
//!
//! Reads bytes only; whether the module is valid is the validator's business, later. Time is linear in the upload.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use millpond_types::{Error, Result};

use crate::Limits;

/// Refuses what would take too long or too much to compile.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<()> {
    if bytes.len() > limits.module_bytes_max {
        return Err(Error::bad_request(format!(
            "the module has {} bytes; at most {} are accepted",
            bytes.len(),
            limits.module_bytes_max
        )));
    }
    let mut function = 0u64;
    let mut nested = 0;
    // Exports so far of each component that is open; they may come in any number of sections.
    let mut exports_of = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_wasm)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                nested += 1;
                if nested > limits.nested_modules_max {
                    return Err(too_many("nested modules", limits.nested_modules_max as u64));
                }
            }
            Payload::ExportSection(exports) if u64::from(exports.count()) > limits.core_exports_max => {
                return Err(too_many("exports", limits.core_exports_max));
            }
            Payload::ComponentExportSection(exports) => {
                if let Some(count) = exports_of.last_mut() {
                    *count += u64::from(exports.count());
                    if *count > limits.exports_max {
                        return Err(too_many("exports", limits.exports_max));
                    }
                }
            }
            Payload::Version { .. } => exports_of.push(0u64),
            Payload::End(_) => {
                exports_of.pop();
            }
            Payload::CodeSectionEntry(body) => {
                check_function(function, &body, limits)?;
                function += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_function(index: u64, body: &FunctionBody<'_>, limits: &Limits) -> Result<()> {
    let size = body.range().len();
    if size > limits.function_bytes_max {
        return Err(Error::bad_request(format!(
            "function {index} of the module has {size} bytes; at most {} are accepted",
            limits.function_bytes_max
        )));
    }
    let mut locals = 0u64;
    for group in body.get_locals_reader().map_err(not_wasm)? {
        locals = locals.saturating_add(u64::from(group.map_err(not_wasm)?.0));
        if locals > limits.locals_max {
            return Err(Error::bad_request(format!(
                "function {index} of the module has more than {} local variables",
                limits.locals_max
            )));
        }
    }
    // One entry for each open block: whether it is a loop.
    let mut open = Vec::new();
    let mut loops = 0;
    for operator in body.get_operators_reader().map_err(not_wasm)? {
        match operator.map_err(not_wasm)? {
            Operator::Loop { .. } => {
                open.push(true);
                loops += 1;
                if loops > limits.loop_depth_max {
                    return Err(Error::bad_request(format!(
                        "function {index} of the module has loops nested more than {} deep",
                        limits.loop_depth_max
                    )));
                }
            }
            Operator::Block { .. } | Operator::If { .. } | Operator::Try { .. } | Operator::TryTable { .. } => {
                open.push(false);
            }
            Operator::End | Operator::Delegate { .. } if open.pop() == Some(true) => loops -= 1,
            _ => {}
        }
    }
    Ok(())
}

fn too_many(what: &str, most: u64) -> Error {
    Error::bad_request(format!("the module has more than {most} {what}"))
}

fn not_wasm(error: wasmparser::BinaryReaderError) -> Error {
    // Some messages go on with dumps of bytes.
    let why = error.message().split(" - ").next().unwrap_or_default().trim().replace('\n', " ");
    Error::bad_request(format!("this is not a WebAssembly component or module: {why} at byte {}", error.offset()))
}

//! Finds the SQL functions in an upload, and says of each other export why it is none.
//!
//! Nothing is compiled here. Types come from the component's own encoding, names included, which a compiled component
//! no longer has.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wit_parser::decoding::DecodedWasm;
use wit_parser::{Function, FunctionKind, InterfaceId, Resolve, WorldId, WorldItem};

use millpond_types::{Error, Result, SqlType};

use crate::wit_type::{TypeMapper, sql_name};
use crate::{Limits, ParamType, WitType, check, component};

/// What an upload offers. Kept in the catalog as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// SHA-256 of the upload, in hexadecimal.
    pub digest: String,
    pub bytes: u64,
    pub functions: Vec<FunctionSignature>,
    pub left_out: Vec<LeftOut>,
}

/// An export that is a SQL function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionSignature {
    /// The export's name in upper case, `-` to `_`.
    pub name: String,
    /// Where the export is: the interface, if it is in one, and the function.
    pub export: Vec<String>,
    /// The text above the function in its WIT, if the component carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
    pub params: Vec<Parameter>,
    pub result: WitType,
    /// The guest answers `result<T, E>`; an error is the row's.
    pub fallible: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    pub ty: WitType,
}

/// An export that is no SQL function, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub export: String,
    pub reason: String,
}

impl Parameter {
    /// Takes NULL. Where it does not, NULL anywhere in the argument makes the result NULL without a call.
    pub fn nullable(&self) -> bool {
        self.ty.is_option()
    }

    pub fn param_type(&self) -> Option<ParamType> {
        self.ty.param_type()
    }
}

impl FunctionSignature {
    /// Always there: exports whose result has no SQL type are left out.
    pub fn result_type(&self) -> Option<SqlType> {
        self.result.sql_type()
    }

    pub fn param_types(&self) -> Vec<ParamType> {
        self.params.iter().filter_map(Parameter::param_type).collect()
    }
}

/// `SHOUT(S STRING) -> STRING`, as users are told.
impl std::fmt::Display for FunctionSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}(", self.name)?;
        for (i, (param, ty)) in self.params.iter().zip(self.param_types()).enumerate() {
            write!(f, "{}{} {ty}", if i == 0 { "" } else { ", " }, sql_name(&param.name))?;
        }
        f.write_str(")")?;
        match self.result_type() {
            Some(ty) => write!(f, " -> {ty}"),
            None => Ok(()),
        }
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks an upload and lists its SQL functions. Takes time and memory by the upload's size; for uploads from outside
/// [`crate::Host::prepare`] does the same in a process of its own where there is one.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<ModuleReport> {
    check::check(bytes, limits)?;
    let component = component::componentize(bytes)?;
    inspect_component(bytes, &component, limits)
}

pub(crate) fn inspect_component(upload: &[u8], component: &[u8], limits: &Limits) -> Result<ModuleReport> {
    let (resolve, world) = match wit_parser::decoding::decode(component) {
        Ok(DecodedWasm::Component(resolve, world)) => (resolve, world),
        Ok(DecodedWasm::WitPackage(..)) => {
            return Err(Error::bad_request("this is a WIT package without code; upload a component"));
        }
        Err(e) => return Err(Error::bad_request(format!("the component's types cannot be read: {e:#}"))),
    };
    let mut report = ModuleReport {
        digest: digest_of(upload),
        bytes: upload.len() as u64,
        functions: Vec::new(),
        left_out: Vec::new(),
    };
    refuse_imports(&resolve, world)?;
    let world = resolve.worlds.get(world).ok_or_else(|| Error::bad_request("the component has no world"))?;
    for (key, item) in &world.exports {
        match item {
            WorldItem::Function(function) => take(&resolve, limits, vec![function.name.clone()], function, &mut report),
            WorldItem::Interface { id, .. } => {
                let path = resolve.name_world_key(key);
                take_interface(&resolve, limits, &path, *id, &mut report);
            }
            WorldItem::Type { .. } => {}
        }
    }
    refuse_twins(&mut report);
    Ok(report)
}

/// WASI is always there; an interface of types alone needs nothing; all else cannot be given.
fn refuse_imports(resolve: &Resolve, world: WorldId) -> Result<()> {
    let world = resolve.worlds.get(world).ok_or_else(|| Error::bad_request("the component has no world"))?;
    for (key, item) in &world.imports {
        let name = resolve.name_world_key(key);
        let refused = match item {
            WorldItem::Function(_) => true,
            WorldItem::Interface { id, .. } => {
                let empty = resolve.interfaces.get(*id).is_none_or(|interface| interface.functions.is_empty());
                !empty && !name.starts_with("wasi:")
            }
            WorldItem::Type { .. } => false,
        };
        if refused {
            return Err(Error::bad_request(format!(
                "the component imports \"{name}\", which Millpond does not offer; it offers WASI 0.2"
            )));
        }
    }
    Ok(())
}

fn take_interface(resolve: &Resolve, limits: &Limits, path: &str, id: InterfaceId, report: &mut ModuleReport) {
    let Some(interface) = resolve.interfaces.get(id) else { return };
    let batch_form = path.starts_with("millpond:udf/");
    for function in interface.functions.values() {
        if batch_form {
            report.left_out.push(LeftOut {
                export: format!("{path}#{}", function.name),
                reason: "the batch form is not supported by this version".to_string(),
            });
        } else {
            take(resolve, limits, vec![path.to_string(), function.name.clone()], function, report);
        }
    }
}

fn take(resolve: &Resolve, limits: &Limits, export: Vec<String>, function: &Function, report: &mut ModuleReport) {
    let path = export.join("#");
    match signature(resolve, limits, export, function) {
        Ok(signature) => report.functions.push(signature),
        Err(reason) => report.left_out.push(LeftOut { export: path, reason }),
    }
}

fn signature(
    resolve: &Resolve,
    limits: &Limits,
    export: Vec<String>,
    function: &Function,
) -> Result<FunctionSignature, String> {
    if function.kind.is_async() {
        return Err("async functions are not supported".to_string());
    }
    if !matches!(function.kind, FunctionKind::Freestanding) {
        return Err("functions of a resource are not supported outside an aggregate".to_string());
    }
    let Some(result) = &function.result else {
        return Err("it has no result".to_string());
    };
    let mut mapper = TypeMapper::new(resolve, limits);
    let mut params = Vec::with_capacity(function.params.len());
    for param in &function.params {
        let ty = mapper.map(&param.ty).map_err(|reason| format!("parameter \"{}\": {reason}", param.name))?;
        if ty.param_type().is_none() {
            return Err(format!("parameter \"{}\": a DECIMAL within a STRUCT has no precision", param.name));
        }
        params.push(Parameter { name: param.name.clone(), ty });
    }
    let (result, fallible) = mapper.map_result(result).map_err(|reason| format!("result: {reason}"))?;
    if result.sql_type().is_none() {
        return Err("result: WIT cannot say the precision and scale of a DECIMAL".to_string());
    }
    Ok(FunctionSignature {
        name: sql_name(&function.name),
        export,
        docs: function.docs.contents.clone(),
        params,
        result,
        fallible,
    })
}

/// Of several exports with one name and the same parameter types the first counts.
fn refuse_twins(report: &mut ModuleReport) {
    let mut kept: Vec<FunctionSignature> = Vec::with_capacity(report.functions.len());
    for function in report.functions.drain(..) {
        match kept.iter().find(|k| k.name == function.name && k.param_types() == function.param_types()) {
            Some(first) => report.left_out.push(LeftOut {
                reason: format!("\"{}\" has the same SQL signature", first.export.join("#")),
                export: function.export.join("#"),
            }),
            None => kept.push(function),
        }
    }
    report.functions = kept;
}

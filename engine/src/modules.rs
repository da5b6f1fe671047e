//! WebAssembly modules as SQL functions: uploads kept in the catalog, their exports in the function library.
//!
//! Not here: what a component may do and how it is called (`millpond-udfs`). A query holds its modules by digest, so a
//! module that a query uses can be neither replaced nor deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::Bytes;
use millpond_sql::functions::{Function, FunctionCatalog, FunctionKind, Overload, Param, ParamType, ResultType};
use millpond_types::ports::{Outcome, Step, Storage};
use millpond_types::{Error, Result};
use millpond_udfs::{
    CallContext, Callable, FunctionSignature, Host, Instance, InstanceScope, ModuleEntry, ModuleStore, Put, Registry,
};
use parking_lot::Mutex;

use crate::catalog;
use crate::expr::{EvalContext, instance_key};
use crate::functions::{
    Args, CallSite, Failures, FunctionLibrary, Implementation, Returned, ScalarFunction, ScalarImpl,
};

/// Uploaded modules and the functions that they gave.
pub struct Modules {
    registry: Arc<Registry>,
    library: Arc<FunctionLibrary>,
    /// By module.
    registered: Mutex<BTreeMap<String, Vec<Registered>>>,
}

/// A function's name, and the ids of a module's overloads of it.
type Registered = (String, Vec<u32>);

/// Modules in the engine's catalog, under the catalog's prefix for them.
struct CatalogStore(Arc<dyn Storage>);

impl ModuleStore for CatalogStore {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let own = catalog::module_prefix();
        let found = self.0.catalog(&[own.as_slice(), prefix].concat())?;
        Ok(found.into_iter().map(|(key, value)| (key[own.len()..].to_vec(), value)).collect())
    }

    fn commit(&self, writes: Vec<(Vec<u8>, Option<Bytes>)>) -> Result<()> {
        let own = catalog::module_prefix();
        let catalog = writes
            .into_iter()
            .map(|(key, value)| ([own.as_slice(), &key].concat(), value.map(|v| v.to_vec())))
            .collect();
        let step = Step { generation: self.0.assignment().generation, catalog, ..Step::default() };
        match self.0.commit(step).wait() {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Fenced => Err(Error::conflict("another process has taken over this data directory")),
            Outcome::Retry(why) => Err(Error::retry(why)),
            Outcome::Fatal(why) => Err(Error::bad_request(why)),
        }
    }
}

impl Modules {
    /// Reads what is there and registers its functions; compiles and loads nothing.
    pub(crate) fn open(storage: Arc<dyn Storage>, host: Host, library: Arc<FunctionLibrary>) -> Result<Self> {
        let registry = Arc::new(Registry::open(host, Arc::new(CatalogStore(storage)))?);
        let modules = Self { registry, library, registered: Mutex::new(BTreeMap::new()) };
        for entry in modules.registry.entries() {
            modules.register(&entry)?;
        }
        Ok(modules)
    }

    /// All modules, by name.
    pub fn entries(&self) -> Vec<ModuleEntry> {
        self.registry.entries()
    }

    pub fn get(&self, name: &str) -> Option<ModuleEntry> {
        self.registry.get(name)
    }

    /// Takes a module in; its functions can be used when this returns. Blocks while it compiles. `users` names the
    /// queries that use a digest.
    pub fn put(&self, name: &str, upload: &[u8], users: &dyn Fn(&str) -> Vec<String>) -> Result<Put> {
        let is_built_in = |name: &str, params: &[millpond_udfs::ParamType]| self.is_built_in(name, params);
        let put = self.registry.put(name, upload, &is_built_in, &|entry| users(&entry.report.digest))?;
        if let Put::Created(entry) = &put {
            self.register(entry)?;
        }
        Ok(put)
    }

    /// Removes a module and its functions.
    pub fn delete(&self, name: &str, users: &dyn Fn(&str) -> Vec<String>) -> Result<ModuleEntry> {
        let entry = self.registry.delete(name, &|entry| users(&entry.report.digest))?;
        for (function, overloads) in self.registered.lock().remove(name).unwrap_or_default() {
            self.library.remove_overloads(&function, &overloads);
        }
        Ok(entry)
    }

    fn is_built_in(&self, name: &str, params: &[millpond_udfs::ParamType]) -> bool {
        let Some(function) = self.library.function(name) else { return false };
        let registered = self.registered.lock();
        let from_module = |id: u32| registered.values().flatten().any(|(n, ids)| n == name && ids.contains(&id));
        function.overloads.iter().any(|o| {
            !from_module(o.id)
                && o.params.len() == params.len()
                && o.params.iter().zip(params).all(|(have, new)| have.ty == param_type(new))
        })
    }

    fn register(&self, entry: &ModuleEntry) -> Result<()> {
        let mut names = Vec::new();
        for (index, signature) in entry.report.functions.iter().enumerate() {
            let Some(result) = signature.result_type() else { continue };
            let function = Function {
                name: signature.name.clone(),
                kind: FunctionKind::Scalar,
                description: signature.docs.clone().unwrap_or_else(|| format!("from module {}", entry.name)),
                category: "WEBASSEMBLY".into(),
                author: entry.name.clone(),
                module: Some(entry.report.digest.clone()),
                overloads: vec![Overload {
                    id: 0,
                    params: parameters(signature),
                    variadic: None,
                    init_params: 0,
                    result: ResultType::Of(ParamType::Exact(result)),
                    undo: false,
                    description: signature.docs.clone().unwrap_or_default(),
                }],
            };
            let code = GuestFunction { registry: self.registry.clone(), entry: entry.clone(), index };
            let ids = self.library.register(function, vec![Implementation::Scalar(Arc::new(code))])?;
            names.push((signature.name.clone(), ids));
        }
        self.registered.lock().insert(entry.name.clone(), names);
        Ok(())
    }
}

fn parameters(signature: &FunctionSignature) -> Vec<Param> {
    signature
        .params
        .iter()
        .zip(signature.param_types())
        .map(|(p, ty)| Param { name: p.name.clone(), ty: param_type(&ty), check: None })
        .collect()
}

fn param_type(ty: &millpond_udfs::ParamType) -> ParamType {
    match ty {
        millpond_udfs::ParamType::Exact(ty) => ParamType::Exact(ty.clone()),
        millpond_udfs::ParamType::Decimal => ParamType::Decimal,
        millpond_udfs::ParamType::Array(item) => ParamType::Array(Box::new(param_type(item))),
        millpond_udfs::ParamType::Map(value) => {
            ParamType::Map(Box::new(ParamType::Exact(millpond_types::SqlType::String)), Box::new(param_type(value)))
        }
    }
}

/// One exported function; its module is loaded when a statement that uses it is compiled.
struct GuestFunction {
    registry: Arc<Registry>,
    entry: ModuleEntry,
    index: usize,
}

impl ScalarFunction for GuestFunction {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> {
        let module = self.registry.load(&self.entry)?;
        let function = module
            .function(self.index)
            .ok_or_else(|| Error::bug(format!("module \"{}\" has no function {}", self.entry.name, site.name)))?;
        Ok(Arc::new(GuestCall { function, key: instance_key() }))
    }

    fn deterministic(&self) -> bool {
        // Its memory may live on between rows; equal arguments could give different results.
        false
    }
}

struct GuestCall {
    function: millpond_udfs::ScalarFunction,
    key: u64,
}

impl ScalarImpl for GuestCall {
    fn eval(&self, args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
        let arrays: Vec<ArrayRef> =
            (0..args.args.len()).map(|i| args.values(i)?.clone().into_array(args.rows)).collect::<Result<_>>()?;
        // What a row gives must not depend on when, or in which step, it is computed: clock and random numbers are its own.
        let (times, seeds) = cx.times_and_seeds(args.input)?;
        let stop = cx.stop().cloned();
        let context = CallContext {
            row_times: Some(&times),
            row_seeds: Some(&seeds),
            cancelled: stop.as_deref(),
            ..CallContext::default()
        };
        let instance: &mut Instance = cx.instance(self.key, || Ok(self.function.instance(InstanceScope::Step)))?;
        let called = self.function.call_batch(instance, &context, &arrays, args.rows).map_err(|e| {
            let at = e.row.map_or_else(String::new, |row| format!(" at row {row}"));
            let name = &self.function.signature().name;
            Error::new(e.error.kind(), format!("function \"{name}\"{at}: {}", e.error.message()))
        })?;
        let mut failures = Failures::default();
        for error in called.errors {
            failures.push(error.row, || error.message);
        }
        Ok(Returned { array: called.result, failures })
    }
}

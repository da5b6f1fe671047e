//! The host: takes uploads to compiled code, and compiled code to modules that can be called.
//!
//! Costs nothing until the first upload or call. Modules are shared while anybody holds them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use millpond_types::{Error, Pool, Result};

use crate::cache::{self, CodeCache, TrustedCode};
use crate::compile::{self, CompileCommand};
use crate::engine::EpochTicker;
use crate::wasi::{self, GuestState};
use crate::{Limits, ModuleReport, ScalarFunction, engine};

/// Takes what guests write to stdout and stderr: the module's digest and the text of one call. Must not block.
pub type GuestLog = Arc<dyn Fn(&str, &str) + Send + Sync>;

#[derive(Clone, Default)]
pub struct HostOptions {
    pub limits: Limits,
    /// The command that compiles, in a process of its own. `None`: compiling happens in this process, where only the
    /// checks before it hold, not the limits on memory and time.
    pub compiler: Option<CompileCommand>,
    /// Where compiled code is kept. `None`: in memory, as long as the host lives.
    pub cache_dir: Option<PathBuf>,
    /// `None`: guests' words go to the process's log.
    pub log: Option<GuestLog>,
    /// What the memory of all instances is taken from, besides its own limit.
    pub memory: Option<Pool>,
}

/// Cheap to make and to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    options: HostOptions,
    cache: Option<CodeCache>,
    budget: Pool,
    runtime: OnceLock<Arc<Runtime>>,
    /// Held while the runtime is made, so that it is made once.
    making: Mutex<()>,
    loaded: Mutex<HashMap<String, Weak<Module>>>,
    /// Without a cache directory: all modules, for they could not be had again without compiling.
    kept: Mutex<Vec<Arc<Module>>>,
}

/// What modules need of their host; it holds no modules, so that it goes when they do.
struct Runtime {
    engine: Engine,
    mark: String,
    limits: Limits,
    budget: Pool,
    log: Option<GuestLog>,
    ticker: Mutex<Option<EpochTicker>>,
}

impl Host {
    pub fn new(options: HostOptions) -> Self {
        let cache = options.cache_dir.clone().map(CodeCache::new);
        let max = options.limits.guest_memory_bytes_max;
        let budget = options.memory.as_ref().map_or_else(|| Pool::root("guests", max), |m| m.child("guests", max));
        Self {
            inner: Arc::new(Inner {
                options,
                cache,
                budget,
                runtime: OnceLock::new(),
                making: Mutex::new(()),
                loaded: Mutex::new(HashMap::new()),
                kept: Mutex::new(Vec::new()),
            }),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.options.limits
    }

    /// Bytes of linear memory that guests hold now.
    pub fn guest_memory_bytes(&self) -> usize {
        self.inner.budget.used()
    }

    /// Checks an upload, lists its functions, compiles it and keeps the code. Blocks for as long as that takes, and
    /// until others' uploads are through. `BadRequest` says what is wrong with the upload.
    pub fn prepare(&self, upload: &[u8]) -> Result<ModuleReport> {
        let (report, code) = self.inner.compile(upload)?;
        self.inner.keep(report.clone(), code)?;
        Ok(report)
    }

    /// The module of a report, from memory, from the cache, or compiled anew from the upload's bytes (after an
    /// upgrade, or where the cache was lost). Blocks accordingly.
    pub fn load(&self, report: &ModuleReport, upload: impl FnOnce() -> Result<Bytes>) -> Result<Arc<Module>> {
        if let Some(module) = self.inner.loaded.lock().get(&report.digest).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let runtime = self.inner.runtime()?;
        if let Some(cache) = &self.inner.cache
            && let Some(code) = cache.load(&report.digest, &runtime.mark)?
        {
            return self.inner.module(report.clone(), code);
        }
        let upload = upload()?;
        let digest = crate::inspect::digest_of(&upload);
        if digest != report.digest {
            return Err(Error::corrupt(format!("module \"{}\" is stored with other bytes ({digest})", report.digest)));
        }
        let (_, code) = self.inner.compile(&upload)?;
        match &self.inner.cache {
            Some(cache) => {
                cache.store(&report.digest, &runtime.mark, &code)?;
                self.inner.module(report.clone(), code)
            }
            None => self.inner.keep_in_memory(report.clone(), code),
        }
    }

    /// Forgets the compiled code of a module that is deleted. Whoever still holds the module can go on calling it.
    pub fn forget(&self, digest: &str) {
        if let Some(cache) = &self.inner.cache {
            cache.remove(digest);
        }
        self.inner.kept.lock().retain(|module| module.report.digest != digest);
        self.inner.loaded.lock().remove(digest);
    }
}

impl Inner {
    fn runtime(&self) -> Result<&Arc<Runtime>> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let _making = self.making.lock();
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let engine = engine::new(&self.options.limits)?;
        let mark = engine::mark(&engine);
        let runtime = Runtime {
            engine,
            mark,
            limits: self.options.limits.clone(),
            budget: self.budget.clone(),
            log: self.options.log.clone(),
            ticker: Mutex::new(None),
        };
        Ok(self.runtime.get_or_init(|| Arc::new(runtime)))
    }

    fn compile(&self, upload: &[u8]) -> Result<(ModuleReport, TrustedCode)> {
        let limits = &self.options.limits;
        match &self.options.compiler {
            Some(command) => {
                let work_dir = match &self.cache {
                    Some(cache) => cache.dir().to_path_buf(),
                    None => std::env::temp_dir(),
                };
                compile::in_child(command, &work_dir, upload, limits)
            }
            None => {
                let (report, code) = compile::in_process(&self.runtime()?.engine, upload, limits)?;
                Ok((report, TrustedCode::from_compiler(code)))
            }
        }
    }

    fn keep(&self, report: ModuleReport, code: TrustedCode) -> Result<()> {
        match &self.cache {
            Some(cache) => cache.store(&report.digest, &self.runtime()?.mark, &code),
            None => self.keep_in_memory(report, code).map(drop),
        }
    }

    fn keep_in_memory(&self, report: ModuleReport, code: TrustedCode) -> Result<Arc<Module>> {
        let module = self.module(report, code)?;
        let mut kept = self.kept.lock();
        if !kept.iter().any(|known| known.report.digest == module.report.digest) {
            kept.push(module.clone());
        }
        Ok(module)
    }

    fn module(&self, report: ModuleReport, code: TrustedCode) -> Result<Arc<Module>> {
        let runtime = self.runtime()?;
        let component = cache::deserialize(&runtime.engine, code)?;
        let module = Arc::new(Module::new(runtime.clone(), report, component)?);
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, module| module.strong_count() > 0);
        match loaded.get(&module.report.digest).and_then(Weak::upgrade) {
            // Somebody else loaded it meanwhile.
            Some(first) => Ok(first),
            None => {
                loaded.insert(module.report.digest.clone(), Arc::downgrade(&module));
                Ok(module)
            }
        }
    }
}

/// A module ready to be called, shared by all who call it.
pub struct Module {
    runtime: Arc<Runtime>,
    report: ModuleReport,
    pre: InstancePre<GuestState>,
    /// By function of the report.
    exports: Vec<ComponentExportIndex>,
    uses_wasi: bool,
}

impl Module {
    fn new(runtime: Arc<Runtime>, report: ModuleReport, component: Component) -> Result<Self> {
        let pre = wasi::linker(&component)?
            .instantiate_pre(&component)
            .map_err(|e| Error::bad_request(format!("the component's imports cannot be linked: {e:#}")))?;
        let mut exports = Vec::with_capacity(report.functions.len());
        for function in &report.functions {
            let mut at = None;
            for name in &function.export {
                at = component.get_export_index(at.as_ref(), name.as_str());
                if at.is_none() {
                    break;
                }
            }
            exports.push(at.ok_or_else(|| {
                Error::corrupt(format!("the compiled module has no export \"{}\"", function.export.join("#")))
            })?);
        }
        let uses_wasi = wasi::imports_wasi(&component);
        Ok(Self { runtime, report, pre, exports, uses_wasi })
    }

    pub fn report(&self) -> &ModuleReport {
        &self.report
    }

    pub fn digest(&self) -> &str {
        &self.report.digest
    }

    /// By index into the report's functions.
    pub fn function(self: &Arc<Self>, index: usize) -> Option<ScalarFunction> {
        self.report.functions.get(index).map(|_| ScalarFunction::new(self.clone(), index))
    }

    /// By SQL name, all overloads in the report's order.
    pub fn functions_named<'a>(self: &'a Arc<Self>, name: &'a str) -> impl Iterator<Item = ScalarFunction> + 'a {
        let named = self.report.functions.iter().enumerate().filter(move |(_, function)| function.name == name);
        named.map(|(index, _)| ScalarFunction::new(self.clone(), index))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.runtime.limits
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.runtime.engine
    }

    pub(crate) fn pre(&self) -> &InstancePre<GuestState> {
        &self.pre
    }

    pub(crate) fn budget(&self) -> &Pool {
        &self.runtime.budget
    }

    pub(crate) fn export(&self, function: usize) -> Result<&ComponentExportIndex> {
        self.exports.get(function).ok_or_else(|| Error::bug("a function of another module was called"))
    }

    pub(crate) fn uses_wasi(&self) -> bool {
        self.uses_wasi
    }

    /// Starts the thread that moves the epoch, with the first instance.
    pub(crate) fn start_epoch(&self) -> Result<()> {
        let mut ticker = self.runtime.ticker.lock();
        if ticker.is_none() {
            *ticker = Some(EpochTicker::start(&self.runtime.engine)?);
        }
        Ok(())
    }

    pub(crate) fn log(&self, text: &str) {
        match &self.runtime.log {
            Some(log) => log(&self.report.digest, text),
            None => tracing::info!(module = %self.report.digest, "{}", text.trim_end()),
        }
    }
}

//! What a guest finds when it asks for the world: answers that are harmless and the same every time.
//!
//! The clock stands still at the call's time and moves only as far as the guest sleeps; random numbers follow from the
//! call's seed; there are no arguments, no environment, no folders, and sockets are refused; stdout and stderr are
//! kept, up to a bound, for the processing log. Nothing here waits.
//!
//! Files, sockets, streams and polling are wasmtime-wasi's, which without grants touch nothing. Their blocking forms
//! enter an async runtime for a moment, so a guest with WASI is never called on a thread that is in one (`call` sees to it).

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable, ResourceType};
use wasmtime::error::format_err;
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use millpond_types::{Error, Result};

use crate::instance::GuestLimiter;

/// Host resources (streams, pollables) that one instance may hold.
const RESOURCES_MAX: usize = 10_000;

/// What a store carries for its guest.
pub(crate) struct GuestState {
    pub(crate) limiter: GuestLimiter,
    /// Made when first asked for: most guests never are.
    wasi: Option<Box<WasiCtx>>,
    table: ResourceTable,
    random: Random,
    random_bytes_max: u64,
    time_ms: i64,
    slept_ns: u64,
    log: Arc<Mutex<LogBuffer>>,
}

impl GuestState {
    pub(crate) fn new(limiter: GuestLimiter, random_bytes_max: u64, log_bytes_max: usize) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            limiter,
            wasi: None,
            table,
            random: Random(0),
            random_bytes_max,
            time_ms: 0,
            slept_ns: 0,
            log: Arc::new(Mutex::new(LogBuffer { text: Vec::new(), bytes_max: log_bytes_max })),
        }
    }

    /// Before each call: what the guest sees depends on the call alone.
    pub(crate) fn begin_call(&mut self, time_ms: i64, seed: u64) {
        self.random = Random(seed);
        self.time_ms = time_ms;
        self.slept_ns = 0;
    }

    /// What the guest wrote since the last time, if anything.
    pub(crate) fn take_log(&mut self) -> Option<String> {
        let mut log = self.log.lock();
        if log.text.is_empty() {
            return None;
        }
        Some(String::from_utf8_lossy(&std::mem::take(&mut log.text)).into_owned())
    }

    fn now_ns(&self) -> u64 {
        (self.time_ms.max(0) as u64).saturating_mul(1_000_000).saturating_add(self.slept_ns)
    }

    fn random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > self.random_bytes_max {
            return Err(format_err!(
                "{len} random bytes asked for at once; at most {} are given",
                self.random_bytes_max
            ));
        }
        let mut bytes = Vec::with_capacity(len as usize + 8);
        while (bytes.len() as u64) < len {
            bytes.extend_from_slice(&self.random.next().to_le_bytes());
        }
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    fn log_stream(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(LogStream(self.log.clone()));
        Ok(self.table.push(stream)?)
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| Box::new(WasiCtxBuilder::new().build()));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// The packages of WASI 0.2 that guests get answers from.
const LINKED: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Links what a component imports: WASI 0.2 where it imports any (of whatever patch version), and traps for the rest of
/// `wasi:`, which many toolchains name but never call. Other imports were refused at the upload.
pub(crate) fn linker(component: &Component) -> Result<Linker<GuestState>> {
    let mut linker = Linker::new(component.engine());
    let link = |linker: &mut Linker<GuestState>| -> wasmtime::Result<()> {
        if imports_wasi(component) {
            link_wasi(linker)?;
        }
        for (name, import) in component.component_type().imports(component.engine()) {
            if LINKED.iter().any(|package| name.starts_with(package)) {
                continue;
            }
            if let ComponentItem::ComponentInstance(interface) = import.ty {
                link_traps(linker, component, name, &interface)?;
            }
        }
        Ok(())
    };
    link(&mut linker).map_err(|e| Error::bad_request(format!("the component's imports cannot be linked: {e:#}")))?;
    Ok(linker)
}

fn link_traps(
    linker: &mut Linker<GuestState>,
    component: &Component,
    interface_name: &str,
    interface: &ComponentInstance,
) -> wasmtime::Result<()> {
    let mut instance = linker.instance(interface_name)?;
    for (name, export) in interface.exports(component.engine()) {
        match export.ty {
            ComponentItem::ComponentFunc(_) => {
                let called = format!("it called \"{interface_name}#{name}\", which Millpond does not offer");
                instance.func_new(name, move |_, _, _, _| Err(wasmtime::Error::msg(called.clone())))?;
            }
            ComponentItem::Resource(_) => {
                // Interfaces that use those of `wasi:io` mean the very same resources.
                let resource = match name {
                    "input-stream" => ResourceType::host::<DynInputStream>(),
                    "output-stream" => ResourceType::host::<DynOutputStream>(),
                    "pollable" => ResourceType::host::<DynPollable>(),
                    "io-error" => ResourceType::host::<IoError>(),
                    _ => ResourceType::host::<NotOffered>(),
                };
                instance.resource(name, resource, |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The resources of interfaces that are only named.
struct NotOffered;

pub(crate) fn imports_wasi(component: &Component) -> bool {
    component.component_type().imports(component.engine()).any(|(name, _)| name.starts_with("wasi:"))
}

fn link_wasi(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    // Ours in place of those that would touch the real world or wait.
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    monotonic_clock::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    random::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    insecure::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    insecure_seed::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    stdout::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    stderr::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl wall_clock::Host for GuestState {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = self.now_ns();
        Ok(wall_clock::Datetime { seconds: now / 1_000_000_000, nanoseconds: (now % 1_000_000_000) as u32 })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for GuestState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let ahead = when.saturating_sub(self.now_ns());
        self.subscribe_duration(ahead)
    }

    /// Sleep returns at once, and time has passed.
    fn subscribe_duration(&mut self, ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.slept_ns = self.slept_ns.saturating_add(ns);
        monotonic_clock::Host::subscribe_duration(&mut self.clocks(), 0)
    }
}

impl random::Host for GuestState {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next())
    }
}

impl insecure::Host for GuestState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next())
    }
}

impl insecure_seed::Host for GuestState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random.next(), self.random.next()))
    }
}

impl stdout::Host for GuestState {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.log_stream()
    }
}

impl stderr::Host for GuestState {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.log_stream()
    }
}

/// SplitMix64: enough for numbers that must only look random and be the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What a guest writes past the bound is dropped: writing never fails, so that a guest's results do not depend on how
/// much it says.
struct LogBuffer {
    text: Vec<u8>,
    bytes_max: usize,
}

struct LogStream(Arc<Mutex<LogBuffer>>);

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut log = self.0.lock();
        let room = log.bytes_max.saturating_sub(log.text.len());
        log.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

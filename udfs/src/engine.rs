//! One configuration of wasmtime for compiling and running, and the thread that moves the epoch on.
//!
//! Everything that could differ between machines or runs is fixed here: NaNs are canonical, relaxed SIMD is
//! deterministic, there are no threads and no shared memory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wasmtime::{Config, Engine};

use millpond_types::{Error, Result};

use crate::Limits;

/// How often the epoch moves; how exactly a call's wall time is held.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(100);

pub(crate) fn new(limits: &Limits) -> Result<Engine> {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_component_model_map(true)
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        .max_wasm_stack(limits.guest_stack_bytes)
        .generate_address_map(false);
    Engine::new(&config).map_err(|e| Error::bug(format!("the WebAssembly engine cannot be set up: {e:#}")))
}

/// Names compiled code that this engine can run: equal versions and settings give equal marks.
pub(crate) fn mark(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Epochs until `wall` is over, at least two: the first may end at once.
pub(crate) fn ticks(wall: Duration) -> u64 {
    (wall.as_millis() / EPOCH_TICK.as_millis()) as u64 + 2
}

/// The thread that moves an engine's epoch on. Ends, and is waited for, when this is dropped.
pub(crate) struct EpochTicker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl EpochTicker {
    pub(crate) fn start(engine: &Engine) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (engine, stopped) = (engine.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("guest-epoch".to_string())
            .stack_size(64 << 10)
            .spawn(move || {
                let (flag, signal) = &*stopped;
                let mut flag = flag.lock();
                while !*flag {
                    if signal.wait_for(&mut flag, EPOCH_TICK).timed_out() {
                        engine.increment_epoch();
                    }
                }
            })
            .map_err(|e| Error::retry(format!("no thread for the epoch of guests: {e}")))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

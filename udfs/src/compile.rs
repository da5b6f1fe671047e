//! Turns an upload into a report and compiled code, one upload at a time: in a child process under limits where the
//! host has a command for one, else here, where only the checks before compiling hold.

use std::ffi::OsString;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::Engine;

use millpond_types::{Error, ErrorKind, Result};

use crate::cache::TrustedCode;
use crate::{Limits, ModuleReport, check, component, inspect};

/// Compiling takes up to 2 GiB: one at a time in the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How often the parent looks after the child.
const CHILD_POLL: Duration = Duration::from_millis(5);

pub(crate) const UPLOAD_FILE: &str = "upload.wasm";
pub(crate) const LIMITS_FILE: &str = "limits.json";
pub(crate) const CODE_FILE: &str = "code";
pub(crate) const REPORT_FILE: &str = "report.json";
pub(crate) const REFUSAL_FILE: &str = "refusal";
/// Status of a child that refused an upload and said why in [`REFUSAL_FILE`].
pub(crate) const REFUSED_STATUS: u8 = 3;

/// The command that runs [`crate::compile_child::main`] with one argument more.
#[derive(Clone, Debug)]
pub struct CompileCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

pub(crate) fn in_process(engine: &Engine, upload: &[u8], limits: &Limits) -> Result<(ModuleReport, Vec<u8>)> {
    let _turn = ONE_AT_A_TIME.lock();
    guarded(engine, upload, limits)
}

/// The tools that read and compile components are large and not ours: a panic in them is the upload's fault.
pub(crate) fn guarded(engine: &Engine, upload: &[u8], limits: &Limits) -> Result<(ModuleReport, Vec<u8>)> {
    std::panic::catch_unwind(AssertUnwindSafe(|| {
        check::check(upload, limits)?;
        let component = component::componentize(upload)?;
        let report = inspect::inspect_component(upload, &component, limits)?;
        let code = engine
            .precompile_component(&component)
            .map_err(|e| Error::bad_request(format!("the component cannot be compiled: {e:#}")))?;
        Ok((report, code))
    }))
    .unwrap_or_else(|_| Err(Error::bad_request("the component cannot be read: the compiler failed on it")))
}

/// Runs the child in a folder of its own under `work_dir`.
pub(crate) fn in_child(
    command: &CompileCommand,
    work_dir: &Path,
    upload: &[u8],
    limits: &Limits,
) -> Result<(ModuleReport, TrustedCode)> {
    // The cheap checks come first, so that a bomb does not even cost a process.
    check::check(upload, limits)?;
    let _turn = ONE_AT_A_TIME.lock();
    let folder = WorkFolder::create(work_dir).map_err(|e| Error::retry(format!("no folder to compile in: {e}")))?;
    let limits_json =
        serde_json::to_vec(limits).map_err(|e| Error::bug(format!("the limits cannot be written: {e}")))?;
    fs::write(folder.0.join(UPLOAD_FILE), upload)
        .and_then(|()| fs::write(folder.0.join(LIMITS_FILE), limits_json))
        .map_err(|e| Error::retry(format!("the upload cannot be written to disk: {e}")))?;

    let mut child = Command::new(&command.program)
        .args(&command.args)
        .arg(&folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| {
            Error::retry(format!("the compiling process \"{}\" does not start: {e}", command.program.display()))
        })?;
    let status = wait_at_most(&mut child, limits.compile_wall_max)
        .map_err(|e| Error::retry(format!("the compiling process is lost: {e}")))?;
    match status.and_then(|status| status.code()) {
        Some(0) => {}
        Some(status) if status == i32::from(REFUSED_STATUS) => {
            let refusal = fs::read_to_string(folder.0.join(REFUSAL_FILE)).unwrap_or_default();
            return Err(Error::bad_request(refusal));
        }
        _ => {
            return Err(Error::bad_request(format!(
                "compiling the module took more than {} MiB of memory, {} s of processor or {} s of time",
                limits.compile_memory_bytes_max >> 20,
                limits.compile_cpu_seconds_max,
                limits.compile_wall_max.as_secs()
            )));
        }
    }
    let read = |name: &str| {
        fs::read(folder.0.join(name)).map_err(|e| Error::retry(format!("what was compiled cannot be read: {e}")))
    };
    let report = serde_json::from_slice(&read(REPORT_FILE)?)
        .map_err(|e| Error::bug(format!("the compiling process wrote a wrong report: {e}")))?;
    Ok((report, TrustedCode::from_compiler(read(CODE_FILE)?)))
}

/// `None` where the time is over; the child is killed then.
#[allow(clippy::disallowed_methods, reason = "the standard library cannot wait for a process with a deadline")]
fn wait_at_most(child: &mut Child, wall: Duration) -> std::io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > wall {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(CHILD_POLL);
    }
}

/// A folder that is gone, with everything in it, when this is dropped.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn create(parent: &Path) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(parent)?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("compile-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left by a process of the same number that was killed.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The same error in the child's words: kind and message in one file.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::BadRequest | ErrorKind::Unsupported)
}

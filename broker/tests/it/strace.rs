//! System calls of another process that fail, or take long, by strace.
//!
//! Where it is not there, or may not attach itself to a process beside it, a test that needs it says so and does nothing,
//! unless everything is to be run (`SLOW`, `CI`).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

pub const FSYNCS: &str = "fdatasync,fsync";

/// What is done to system calls of a process, all or those about one file, for as long as it is kept.
pub struct Fault(Child);

impl Fault {
    #[track_caller]
    pub fn on(process: u32, file: Option<&Path>, calls: &str, what: &str) -> Self {
        Self::attach(process, file, calls, what).unwrap_or_else(|why| panic!("{why}"))
    }

    fn attach(process: u32, file: Option<&Path>, calls: &str, what: &str) -> Result<Self, String> {
        let mut strace = Command::new("strace");
        if let Some(file) = file {
            strace.arg("-P").arg(file);
        }
        let mut strace = strace
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")])
            .args(["-p", &process.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("strace cannot be run: {e}"))?;
        let mut said = String::new();
        BufReader::new(strace.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        if said.contains("attached") {
            return Ok(Self(strace));
        }
        let _ended = strace.wait();
        Err(format!("strace says {:?}", said.trim()))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of the process before it ends.
        let _told = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ended = self.0.wait();
    }
}

/// Whether the system calls of a process beside this one can be changed. `what` nothing is known of where they cannot.
pub fn is_possible(what: &str) -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| {
        let mut idle = Command::new("sleep").arg("60").spawn().unwrap();
        let tried = Fault::attach(idle.id(), None, FSYNCS, "error=EIO");
        let why_not = tried.err();
        idle.kill().unwrap();
        idle.wait().unwrap();
        why_not
    });
    let Some(why_not) = why_not else { return true };
    let why = format!(
        "nothing is known of {what}: {why_not}. Wanted are strace and, where /proc/sys/kernel/yama/ptrace_scope is not \
         0, root"
    );
    let asked = ["SLOW", "CI"].into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    assert!(asked.is_none(), "{why}");
    // Past what keeps the output of tests that succeed.
    let _said = writeln!(std::io::stderr(), "NOT RUN: {why}");
    false
}

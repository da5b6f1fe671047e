//! The compiling process: reads an upload, writes its report and its code, under limits that it sets for itself.
//!
//! Called by the binary as a hidden subcommand; the parent's side is `compile`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::compile::{
    CODE_FILE, LIMITS_FILE, REFUSAL_FILE, REFUSED_STATUS, REPORT_FILE, UPLOAD_FILE, guarded, is_refusal,
};
use crate::{Limits, engine};

/// What the hidden subcommand `compile-udf` does. `args` are those after the subcommand: the folder that the parent made,
/// with the upload and the limits in it. Sets the limits of the whole process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(run(args))
}

/// As [`main`], for callers that need the status as a number.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let Some(folder) = args.into_iter().next() else {
        eprintln!("compile-udf is for the server itself: compile-udf FOLDER");
        return 2;
    };
    compile(Path::new(&folder)).unwrap_or_else(|e| {
        eprintln!("{e}");
        1
    })
}

fn compile(folder: &Path) -> std::io::Result<u8> {
    let limits: Limits = serde_json::from_slice(&fs::read(folder.join(LIMITS_FILE))?)?;
    let most = [
        (Resource::As, limits.compile_memory_bytes_max),
        (Resource::Cpu, limits.compile_cpu_seconds_max),
        (Resource::Core, 0),
    ];
    for (resource, most) in most {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    let upload = fs::read(folder.join(UPLOAD_FILE))?;
    match engine::new(&limits).and_then(|engine| guarded(&engine, &upload, &limits)) {
        Ok((report, code)) => {
            fs::write(folder.join(CODE_FILE), code)?;
            fs::write(folder.join(REPORT_FILE), serde_json::to_vec(&report)?)?;
            Ok(0)
        }
        Err(e) if is_refusal(&e) => {
            fs::write(folder.join(REFUSAL_FILE), e.message())?;
            Ok(REFUSED_STATUS)
        }
        Err(e) => Err(std::io::Error::other(e)),
    }
}

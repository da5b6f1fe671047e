//! The compiling process: reads an upload, writes its report and its code, under limits that it sets for itself.
//!
//! Called by the binary as a hidden subcommand; the parent's side is `compile`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::compile::{CODE_FILE, REFUSAL_FILE, REFUSED_STATUS, REPORT_FILE, UPLOAD_FILE, guarded, is_refusal};
use crate::{Limits, engine};

/// What the hidden subcommand `compile-udf` does. `args` are those after the subcommand: a folder with the upload in
/// it, bytes of address space, seconds of processor time. Sets the limits of the whole process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(folder), Some(memory), Some(seconds)) = (args.next(), number(args.next()), number(args.next())) else {
        eprintln!("compile-udf is for the server itself: FOLDER MEMORY-BYTES CPU-SECONDS");
        return ExitCode::from(2);
    };
    for (resource, most) in [(Resource::As, memory), (Resource::Cpu, seconds), (Resource::Core, 0)] {
        if let Err(e) = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }) {
            eprintln!("the limits of the compiling process cannot be set: {e}");
            return ExitCode::FAILURE;
        }
    }
    match compile(Path::new(&folder)) {
        Ok(status) => status,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn compile(folder: &Path) -> std::io::Result<ExitCode> {
    let upload = fs::read(folder.join(UPLOAD_FILE))?;
    let limits = Limits::default();
    let compiled = engine::new(&limits).and_then(|engine| guarded(&engine, &upload, &limits));
    match compiled {
        Ok((report, code)) => {
            fs::write(folder.join(CODE_FILE), code)?;
            fs::write(folder.join(REPORT_FILE), serde_json::to_vec(&report)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(e) if is_refusal(&e) => {
            fs::write(folder.join(REFUSAL_FILE), e.message())?;
            Ok(ExitCode::from(REFUSED_STATUS))
        }
        Err(e) => Err(std::io::Error::other(e)),
    }
}

fn number(arg: Option<OsString>) -> Option<u64> {
    arg?.to_str()?.parse().ok()
}

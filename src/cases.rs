//! Runs query cases in ksqlDB's JSON form: statements, input records, expected output records or an expected refusal.
//!
//! Each case gets its own engine in memory with a clock that stands still. Queries move one after the other, in the
//! order of their creation, each to its end, as ksqlDB's own runner does it; outputs are compared record by record.
//! A refusal for want of a feature never counts as the refusal that a case expects. Cases about the HTTP server are run
//! through it (`rest`).

mod compare;
mod file;
mod functions;
mod rest;
mod run;
mod schemas;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub use file::{Case, read_file};
pub use run::{Verdict, run_case};

/// How the cases of one file ended.
#[derive(Debug, Default)]
pub struct FileReport {
    pub name: String,
    pub passed: usize,
    /// Case and reason.
    pub failed: Vec<(String, String)>,
    /// Cases that say of themselves that they are switched off.
    pub disabled: usize,
    pub time: Duration,
}

/// The JSON files of a folder (not of its subfolders), or the file itself.
pub fn find_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs every case of a file whose id contains `filter`.
pub fn run_file(path: &Path, filter: Option<&str>) -> Result<FileReport> {
    let name = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let mut report = FileReport { name: name.clone(), ..FileReport::default() };
    #[allow(clippy::disallowed_methods, reason = "how long the run took, for its reader")]
    let start = std::time::Instant::now();
    for case in read_file(path, &name)? {
        if filter.is_some_and(|f| !case.id.contains(f)) {
            continue;
        }
        if !case.enabled {
            report.disabled += 1;
            continue;
        }
        match run_case(&case) {
            Verdict::Passed => report.passed += 1,
            Verdict::Failed(why) => report.failed.push((case.id, why)),
        }
    }
    report.time = start.elapsed();
    Ok(report)
}

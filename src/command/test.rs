//! `millpond test`: query cases, per file and in all.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use millpond::cases::{FileReport, find_files, run_file};

use crate::TestArgs;

/// Stack of the threads that run cases: deep expressions recurse.
const STACK_BYTES: usize = 16 << 20;

pub fn run(args: &TestArgs) -> Result<ExitCode> {
    let mut files = Vec::new();
    for path in &args.paths {
        files.extend(find_files(path)?);
    }
    let reports: Mutex<Vec<(usize, Result<FileReport>)>> = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(i) else { return };
                    let report = run_file(file, args.filter.as_deref());
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, report));
                }
            })?;
        }
        Ok(())
    })?;
    let mut reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.sort_by_key(|(i, _)| *i);
    let (mut passed, mut failed, mut disabled) = (0, 0, 0);
    for (_, report) in reports {
        let report = report?;
        passed += report.passed;
        failed += report.failed.len();
        disabled += report.disabled;
        print_report(&report, args.full);
    }
    if disabled > 0 {
        say(&format!("{disabled} switched off by their files"));
    }
    say(&format!("{passed} passed, {failed} failed"));
    let good = match args.at_least {
        Some(n) => passed >= n,
        None => failed == 0,
    };
    if !good && let Some(n) = args.at_least {
        say(&format!("expected at least {n} to pass"));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Longest reason that is printed unless all is asked for.
const REASON_CHARS: usize = 200;

fn print_report(report: &FileReport, full: bool) {
    if report.passed + report.failed.len() == 0 {
        return;
    }
    say(&format!(
        "{}: {} passed, {} failed ({} ms)",
        report.name,
        report.passed,
        report.failed.len(),
        report.time.as_millis()
    ));
    for (case, why) in &report.failed {
        let line = why.replace('\n', " ");
        let shown: String = if full { why.clone() } else { line.chars().take(REASON_CHARS).collect() };
        say(&format!("  FAILED {case}: {shown}"));
    }
}

fn say(line: &str) {
    use std::io::Write;
    // Whoever reads has gone: there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}

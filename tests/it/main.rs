//! Black-box tests of the whole: one binary, one module per subject.
//!
//! Those that take minutes run in full with SLOW=1 only, and say so where they are cut short.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "these tests wait for other processes by real time, and say what they do"
)]

mod access;
mod arrows;
mod cli;
mod command;
mod compaction;
mod crash;
mod determinism;
#[path = "../../broker/tests/it/disk.rs"]
mod disk;
mod forced;
mod http;
mod jwks;
mod kafka;
mod library;
mod limits;
mod memory;
mod metrics;
mod process;
mod pull;
mod schemas;
mod security;
mod soak;
mod space;
mod sql;
#[path = "../../broker/tests/it/strace.rs"]
mod strace;
mod terminal;

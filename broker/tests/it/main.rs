//! The embedded storage as its callers see it, and the protocol server over real sockets.
#![allow(clippy::disallowed_methods, reason = "how long something takes is what is told here")]

mod actor;
mod compaction;
mod crash;
mod damage;
mod directory;
mod disk;
mod fixture;
mod forced;
mod histories;
mod log_files;
mod model;
mod recovery;
mod space;
mod storage;
mod strace;
mod tables;
mod transactions;
mod wal;
mod wire;

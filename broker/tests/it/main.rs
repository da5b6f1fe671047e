//! The embedded storage as its callers see it, and the protocol server over real sockets.
#![allow(clippy::disallowed_methods, reason = "how long something takes is what is told here")]

mod compaction;
mod crash;
mod damage;
mod directory;
mod fixture;
mod forced;
mod histories;
mod model;
mod space;
mod storage;
mod transactions;
mod wal;
mod wire;

//! The embedded storage as its callers see it, and the protocol server over real sockets.
#![allow(clippy::disallowed_methods, reason = "how long something takes is what is told here")]

mod crash;
mod directory;
mod fixture;
mod model;
mod storage;
mod transactions;
mod wire;

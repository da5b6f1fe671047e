//! The embedded log: storage on RocksDB, and the Kafka protocol above it.
//!
//! Not here: SQL and operators (`engine`), formats of keys and values (`formats`), HTTP (`server`). This is the only
//! crate that names `rocksdb`.
#![forbid(unsafe_code)]

mod api;
pub mod batch;
pub mod configs;
mod features;
pub mod groups;
pub mod inspect;
mod keys;
mod lanes;
pub mod metrics;
pub mod security;
pub mod server;
pub mod storage;
pub mod transactions;
mod wire;

pub use wire::shape;

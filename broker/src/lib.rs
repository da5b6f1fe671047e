//! The embedded log: storage on RocksDB, and the Kafka protocol above it.
//!
//! Not here: SQL and operators (`engine`), formats of keys and values (`formats`), HTTP (`server`). This is the only
//! crate that names `rocksdb`.
#![forbid(unsafe_code)]

pub mod batch;
pub mod configs;
mod keys;
pub mod storage;

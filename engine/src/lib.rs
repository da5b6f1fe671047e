//! The streaming engine: plans become steps over batches of Arrow columns, and every step one commit.
//!
//! Reading order: `engine` (the face), `statements` and `catalog` (what statements do and leave), `query` and `runner`
//! (how a query moves), `source`, `ops`, `state`, `sink` (what a step is made of), `expr`, `functions`, `aggregates`
//! (what is computed), `pull` and `push` (rows for clients), `schemas` (the schema registry). Storage is reached through the ports of `types` alone; this
//! is the only crate that names datafusion.
#![forbid(unsafe_code)]

mod access;
pub mod catalog;
pub mod crew;
pub mod engine;
pub mod entity;
mod environment;
pub mod error;
pub mod inserts;
pub mod memory;
pub mod modules;
pub mod pull;
pub mod push;
pub mod schemas;
pub mod session;
mod statements;
mod upgrade;

pub mod ops;
pub mod processing_log;
pub mod query;
pub mod rows;
pub mod runner;
pub mod serdes;
pub mod sink;
pub mod source;
pub mod state;
pub mod step;

pub mod aggregates;
pub mod expr;
pub mod functions;
pub mod java_time;

pub use engine::{Engine, EngineOptions};
pub use millpond_udfs::{ModuleEntry, Put};

//! Millpond as a library: a log, a streaming SQL engine and a host for WebAssembly in one directory, with no listener.
//!
//! ```no_run
//! # fn main() -> Result<(), millpond::Error> {
//! let db = millpond::Database::open("data")?;
//! db.execute("CREATE STREAM S (ID STRING KEY, V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
//!             CREATE TABLE T AS SELECT ID, SUM(V) AS TOTAL FROM S GROUP BY ID;")?;
//! db.execute("INSERT INTO S VALUES ('a', 1);")?;
//! let rows = db.query("SELECT * FROM T;")?;
//! # db.close() }
//! ```
//!
//! Limits of library mode: WebAssembly modules are compiled in this process, so the checks before compilation hold, but
//! not the limits on its memory and time that a server puts on the process that compiles.
#![forbid(unsafe_code)]

pub mod cases;
pub mod config;
mod database;
pub mod http_client;
pub mod memory;

pub use database::{Database, DatabaseOptions, Rows, Subscription};
pub use millpond_engine::entity::{Answer, Entity};
pub use millpond_engine::session::Session;
pub use millpond_types::record::OwnedRecord;
pub use millpond_types::{Error, ErrorKind, Schema};

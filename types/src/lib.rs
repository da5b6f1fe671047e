//! What every other crate of Millpond speaks in: SQL types and values, schemas, records, ids, time, and the ports to
//! storage with their in-memory form.
//!
//! Not here: reading or writing bytes of any format (`formats`), the wire (`broker`), any I/O.

pub mod access;
pub mod budget;
pub mod clock;
pub mod error;
pub mod ids;
pub mod memory;
pub mod network;
pub mod ports;
pub mod principal;
pub mod record;
pub mod schema;
pub mod seldom;
pub mod sql_type;
pub mod value;

pub use budget::{Pool, Reservation};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use ids::{Offset, PartitionId, Sequence, TopicId, TopicPartition};
pub use network::network;
pub use principal::Principal;
pub use schema::{Column, ColumnRole, Schema};
pub use seldom::Seldom;
pub use sql_type::{Field, SqlType};
pub use value::Value;

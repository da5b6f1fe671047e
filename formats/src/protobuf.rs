//! PROTOBUF_NOSR: the bare proto3 wire format, with messages derived from the columns. The fields of a message are
//! numbered by position from 1; no schema is looked up anywhere (`decode`, `encode`).
//!
//! PROTOBUF: behind the frame with a schema's id, the message by the schema that it was written with (`schema`, `read`, `write`).
//! What types columns and schemas have in common is Connect's convention (`columns`).
//!
//! Times, dates and DECIMALs are the messages that are usual for them (`google.protobuf.Timestamp`, `google.type.Date`,
//! `google.type.TimeOfDay`, `confluent.type.Decimal`). The outermost is always a message: a STRUCT that stands alone is
//! it itself, anything else that stands alone is field 1 of it. An array or map directly inside an array is field 1 of a
//! message too, as proto3 knows no repeated field of repeated ones.
//!
//! Not here: which rows are NULL as a whole (`decoder`, `encoder`). Invariant: how deep reading recurses is bounded by
//! the columns' type, and for unknown groups by a constant, never by the bytes.

pub mod columns;
pub mod decode;
pub mod descriptor;
pub mod encode;
mod features;
pub mod read;
pub mod schema;
pub mod wire;
pub mod write;

pub use schema::ProtoSchema;

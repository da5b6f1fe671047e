//! AVRO: binary records in front of which stands the id of the schema that they were written with.
//!
//! Rows never become trees: a writer's schema and the columns that are wanted make a plan once (`decode`), and each record runs
//! through it into the columns; the other way round in `encode`. What types columns and schemas have in common is the
//! convention of Kafka Connect's converter, as ksqlDB uses it (`columns`).
//!
//! Not here: where schemas are kept (`registry`), the frame with the id (`registered`).

pub mod columns;
pub mod decode;
pub mod encode;
pub mod resolve;
pub mod schema;

pub use schema::AvroSchema;

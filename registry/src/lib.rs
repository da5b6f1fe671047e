//! The schema registry: subjects with their versions, schemas by id, compatibility and modes, with the rules of Confluent's.
//!
//! Pure: a [`Registry`] is a snapshot that never changes. What changes it gives the next snapshot together with the entries of the
//! catalog that make it durable; whoever holds it commits the entries, then shows the snapshot.
//!
//! Not here: the languages of schemas (`formats`), HTTP (`server`), who may do what, which statement registers what (`engine`).
//! Invariants: an id never changes its schema; one schema has one id, in whatever subject; what everything together may take is
//! bounded.

#![forbid(unsafe_code)]

mod compatibility;
mod json_schema;
mod problem;
mod protobuf;
mod registry;
mod sorted;
mod store;

pub use compatibility::{Compatibility, incompatibilities};
pub use problem::Problem;
pub use registry::{Change, Checked, Limits, Mode, NewSchema, Reference, Registered, Registry, SubjectVersion};

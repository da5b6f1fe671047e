//! The ksqlDB dialect: text to syntax, syntax to checked, typed plans, or diagnostics that point at the place. Pure: no
//! I/O, no clock; what it must know of the world comes through [`plan::Environment`].
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod parse;
pub mod substitute;
pub mod syntax;
pub mod token;

pub mod expr;
pub mod functions;
pub mod plan;

pub mod analyse;

pub use parse::{parse, parse_type, parse_with_variables};

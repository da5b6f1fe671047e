//! The subcommands.

pub mod demo;
pub mod serve;
pub mod sql;
pub mod test;

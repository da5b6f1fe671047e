//! The subcommands.

pub mod acl;
pub mod config;
mod connect;
pub mod consume;
pub mod demo;
pub mod group;
pub mod produce;
mod progress;
mod report;
mod secret;
pub mod serve;
pub mod sql;
pub mod test;
mod time;
pub mod topic;
pub mod usage;
pub mod user;

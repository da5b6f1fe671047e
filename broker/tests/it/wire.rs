//! The protocol server over real sockets.

mod abuse;
mod access;
mod administration;
mod amplification;
pub mod answers;
mod captured;
pub mod client;
mod fetch_sessions;
mod groups;
mod offsets_topic;
mod produce;
mod quotas;
mod responses;
mod security;
mod transactions;

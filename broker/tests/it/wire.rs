//! The protocol server over real sockets.

mod abuse;
mod access;
mod administration;
mod answers;
mod captured;
mod client;
mod fetch_sessions;
mod groups;
mod quotas;
mod security;
mod transactions;

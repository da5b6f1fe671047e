//! The protocol server over real sockets.

mod abuse;
mod administration;
mod answers;
mod client;
mod fetch_sessions;
mod groups;
mod transactions;

//! The protocol server over real sockets.

mod abuse;
mod access;
mod answers;
mod captured;
mod client;
mod groups;
mod quotas;
mod security;
mod transactions;

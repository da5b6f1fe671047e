//! The protocol server over real sockets.

mod abuse;
mod access;
mod answers;
mod client;
mod groups;
mod quotas;
mod security;
mod transactions;

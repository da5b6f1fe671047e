//! The protocol server over real sockets.

mod abuse;
mod answers;
mod client;
mod groups;
mod transactions;

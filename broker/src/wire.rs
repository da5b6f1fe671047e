//! Kafka's frames and headers as bytes: what is taken from a socket and what goes back, before and after any meaning.
//!
//! Here: frame lengths, request headers, the check of a body against its shape, response heads. Not here: sockets and
//! time (`server`), what a request means (`api`).
//! Invariant: nothing here allocates by a number that a peer sent before the bytes it speaks of have come.

mod frame;
mod response;
mod sample;
pub mod shape;
mod shapes;
mod text;

use std::fmt;

pub use frame::{Frames, RequestHead};
pub use response::{Builder, Reply, Response};
pub use shape::Shape;
pub use text::text;

pub mod shape_of {
    //! The shape of every request that is answered.
    pub use super::shapes::*;
}

/// Why a connection cannot go on: its bytes are not a request that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    is_tls: bool,
}

impl Error {
    pub fn malformed(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_tls: false }
    }

    /// The first bytes of TLS came where it is not spoken.
    pub fn tls() -> Self {
        Self { message: "this is a TLS handshake, and the listener speaks plain text".into(), is_tls: true }
    }

    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

//! Who somebody is: the listeners that they come in on, and how they prove it.
//!
//! Not here: what somebody may do, reading frames (`server`), what requests do (`api`).

pub(crate) mod caller;

pub use millpond_types::Principal;

pub(crate) use caller::Caller;
pub use caller::{Endpoint, SecurityProtocol};

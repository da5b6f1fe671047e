//! Who somebody is: the listeners that they come in on, and how they prove it. And what they may do.
//!
//! Not here: which right an API asks for (`api`), reading frames (`server`), what requests do (`api`).

pub mod acl;
pub mod authorizer;
pub(crate) mod caller;
pub(crate) mod quota;
pub(crate) mod quotas;

pub use millpond_types::Principal;

pub use authorizer::{AuthorizationSettings, Authorizer};
pub(crate) use caller::Caller;
pub use caller::{Endpoint, SecurityProtocol};
pub use quotas::QuotaSettings;

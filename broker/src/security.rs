//! Who somebody is: how they prove it, and what is known of whoever sent a request. And what they may do.
//!
//! Not here: which right an API asks for (`api`), reading frames (`server`), what requests do (`api`).

pub mod acl;
mod authentication;
pub mod authorizer;
pub(crate) mod caller;
mod certificate_name;
pub mod delegation;
pub(crate) mod quota;
pub(crate) mod quotas;
pub(crate) mod sasl;
pub mod scram;
pub mod tls;
pub mod tokens;
pub mod turns;
pub mod users;

pub use authentication::{AuthenticationSettings, Authenticator, Denied};
pub use authorizer::{AuthorizationSettings, Authorizer};
pub(crate) use caller::Caller;
pub use caller::{Endpoint, SecurityProtocol};
pub use certificate_name::{MappingError, NameError, PrincipalMapping};
pub use millpond_types::Principal;
pub use quotas::QuotaSettings;
pub use sasl::Mechanism;

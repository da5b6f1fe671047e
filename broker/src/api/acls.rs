//! What the APIs about access control entries share: refusals, filters, and entries as they are shown.

use kafka_protocol::ResponseError;

use super::{Refusal, Shared};
use crate::security::acl::{Filter, RawFilter};
use crate::security::authorizer::{AclError, Authorizer};

/// The authorizer, where there is one.
pub(super) fn authorizer(shared: &Shared) -> Result<&Authorizer, Refusal> {
    let message = "no authorizer is configured";
    shared.authorizer.as_ref().ok_or_else(|| Refusal::new(ResponseError::SecurityDisabled, message))
}

pub(super) fn filter(raw: RawFilter<'_>) -> Result<Filter, Refusal> {
    Filter::check(raw).map_err(|message| Refusal::new(ResponseError::InvalidRequest, message))
}

impl From<AclError> for Refusal {
    fn from(error: AclError) -> Self {
        match error {
            AclError::TooMany(message) => Self::new(ResponseError::PolicyViolation, message),
            AclError::Storage(error) => error.into(),
        }
    }
}

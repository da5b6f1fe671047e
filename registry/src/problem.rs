//! Why a request is refused, with Confluent's codes: their first three digits are the HTTP status.

use std::fmt;

use millpond_types::{Error, ErrorKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: u32,
    pub message: String,
}

impl Problem {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn subject_not_found(subject: &str) -> Self {
        Self::new(40401, format!("Subject '{subject}' not found."))
    }

    pub(crate) fn version_not_found(version: impl fmt::Display) -> Self {
        Self::new(40402, format!("Version {version} not found."))
    }

    pub(crate) fn schema_not_found() -> Self {
        Self::new(40403, "Schema not found")
    }

    pub(crate) fn invalid_schema(why: impl fmt::Display) -> Self {
        Self::new(42201, format!("Invalid schema: {why}"))
    }

    pub(crate) fn incompatible(subject: &str, details: &[String]) -> Self {
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{}]",
            details.join(", ")
        );
        Self::new(409, message)
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        let status = if self.code >= 1000 { self.code / 100 } else { self.code };
        u16::try_from(status).unwrap_or(500)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let kind = match problem.status() {
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            500.. => ErrorKind::Retry,
            _ => ErrorKind::BadRequest,
        };
        Self::new(kind, problem.message)
    }
}

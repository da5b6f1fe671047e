//! What can go wrong between the command line and a broker, in words for whoever typed the command.

use std::fmt;
use std::time::Duration;

use kafka_protocol::error::ResponseError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No connection came about.
    Unreachable { address: String, why: String },
    /// A connection ended, or said what cannot be understood.
    Lost { address: String, why: String },
    /// No answer in time.
    Late { address: String, what: &'static str, after: Duration },
    /// The broker does not speak this API in a version that is known here.
    Unsupported { address: String, what: &'static str },
    /// The broker does not know who this is.
    Login(String),
    /// The broker said no.
    Refused { code: ResponseError, what: String, message: Option<String> },
    /// What is asked for is not there.
    Missing(String),
}

impl Error {
    pub fn refused(code: i16, what: impl Into<String>, message: Option<&str>) -> Self {
        let code = ResponseError::try_from_code(code).unwrap_or(ResponseError::UnknownServerError);
        Self::Refused { code, what: what.into(), message: message.filter(|m| !m.is_empty()).map(str::to_string) }
    }

    /// `Ok` for code 0.
    pub fn check(code: i16, what: impl FnOnce() -> String, message: Option<&str>) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self::refused(code, what(), message)) }
    }

    /// Whether the same request may go well a little later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Late { .. } => true,
            Self::Unreachable { .. } | Self::Unsupported { .. } | Self::Login(_) | Self::Missing(_) => false,
            Self::Refused { code, .. } => code.is_retriable() && *code != ResponseError::UnknownTopicOrPartition,
        }
    }

    pub fn code(&self) -> Option<ResponseError> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What would be right, for the codes whose name does not say it.
fn advice(code: ResponseError) -> Option<&'static str> {
    use ResponseError as E;
    Some(match code {
        E::GroupAuthorizationFailed => {
            "this user has no right to it (\"millpond acl add\" gives rights), or it is a query's, which alone moves it"
        }
        E::TopicAuthorizationFailed | E::TransactionalIdAuthorizationFailed => {
            "this user has no right to it; \"millpond acl add\" gives rights"
        }
        E::ClusterAuthorizationFailed => {
            "this user has no right to it on the cluster; \"millpond acl add\" gives rights"
        }
        E::UnknownTopicOrPartition => "there is no such topic or partition",
        E::TopicAlreadyExists => "a topic of this name is there already",
        E::InvalidTopicException => "a topic's name has letters, digits, \".\", \"_\" and \"-\", at most 249 of them",
        E::InvalidReplicationFactor => "there are not so many brokers; see --replication-factor",
        E::GroupIdNotFound => "there is no such group",
        E::NonEmptyGroup => "the group has members; stop them first",
        E::UnknownMemberId => "the group has members, which alone may commit for it; stop them first",
        E::SecurityDisabled => "the broker keeps no rights: it was started without an authorizer",
        E::MessageTooLarge => "a record is larger than the broker takes; see \"max.message.bytes\" of the topic",
        E::OffsetOutOfRange => "the log does not have this offset, or not any more",
        E::UnsupportedCompressionType => "the broker does not know this compression",
        E::InvalidRecord => "the topic does not take such records; a compacted one wants a key for each",
        E::KafkaStorageError => "the broker cannot write to its disk: it is full, or failed; its log says more",
        E::CoordinatorNotAvailable => "the broker cannot keep what becomes of groups now; its log says why",
        E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => "too few replicas are in sync",
        _ => return None,
    })
}

/// A code in Kafka's own spelling, as its documentation has it.
pub fn code_name(code: ResponseError) -> String {
    let text = match code {
        ResponseError::Unknown(number) => return format!("ERROR_{number}"),
        ResponseError::InvalidTopicException => "InvalidTopic".to_string(),
        other => format!("{other:?}"),
    };
    let mut name = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(c.to_uppercase());
    }
    name
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { address, why } => write!(f, "cannot connect to \"{address}\": {why}"),
            Self::Lost { address, why } => write!(f, "the connection to \"{address}\" is lost: {why}"),
            Self::Late { address, what, after } => {
                write!(f, "\"{address}\" gave no answer to {what} within {} s; see --timeout", after.as_secs_f32())
            }
            Self::Unsupported { address, what } => {
                write!(f, "the broker at \"{address}\" does not support {what} in a version that is known here")
            }
            Self::Login(why) => f.write_str(why),
            Self::Missing(what) => f.write_str(what),
            Self::Refused { code, what, message } => {
                write!(f, "{what}: {}", code_name(*code))?;
                match (message, advice(*code)) {
                    (Some(message), _) => write!(f, ": {}", message.trim_end_matches('.')),
                    (None, Some(advice)) => write!(f, ": {advice}"),
                    (None, None) => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelt_as_kafka_spells_them() {
        assert_eq!(code_name(ResponseError::UnknownTopicOrPartition), "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(code_name(ResponseError::Unknown(999)), "ERROR_999");
        let error = Error::refused(29, "cannot write to topic \"t\"", None).to_string();
        assert!(error.starts_with("cannot write to topic \"t\": TOPIC_AUTHORIZATION_FAILED: "), "{error}");
    }
}

//! Who somebody is, as Kafka writes it: `User:alice`.
//!
//! Not here: how somebody proves it (`broker::security`), and what they may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The kind of all principals that authentication gives.
const USER: &str = "User";
const ANONYMOUS: &str = "ANONYMOUS";

/// A kind and a name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    kind: Arc<str>,
    name: Arc<str>,
}

impl Principal {
    pub fn user(name: &str) -> Self {
        Self { kind: USER.into(), name: name.into() }
    }

    /// Whoever did not have to say who they are.
    pub fn anonymous() -> Self {
        Self::user(ANONYMOUS)
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_anonymous(&self) -> bool {
        *self.kind == *USER && *self.name == *ANONYMOUS
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What is not a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAPrincipal(String);

impl fmt::Display for NotAPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a principal; it is a kind, a colon and a name, as in \"User:alice\"", self.0)
    }
}

impl std::error::Error for NotAPrincipal {}

impl FromStr for Principal {
    type Err = NotAPrincipal;

    fn from_str(text: &str) -> Result<Self, NotAPrincipal> {
        match text.split_once(':') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
                Ok(Self { kind: kind.into(), name: name.into() })
            }
            _ => Err(NotAPrincipal(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_reads_back() {
        let alice: Principal = "User:alice".parse().unwrap();
        assert_eq!((alice.kind(), alice.name()), ("User", "alice"));
        assert_eq!(alice, Principal::user("alice"));
        assert_eq!("User:CN=a:b,O=c".parse::<Principal>().unwrap().name(), "CN=a:b,O=c");
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
        assert!(Principal::anonymous().is_anonymous() && !alice.is_anonymous());
        for bad in ["", "alice", ":alice", "User:"] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }
}

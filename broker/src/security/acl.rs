//! Access control entries as Kafka has them: what one says, which a filter finds, and how one lies in storage.
//!
//! ```text
//! key    u8 resource │ u8 pattern │ u8 operation │ u8 permission │ str name │ str principal │ str host
//! value  version 1
//! str    u32 length │ bytes
//! ```
//! The numbers are those of Kafka's protocol. Not here: what follows from all entries together (`authorizer`).
//! Invariant: a [`Binding`] that passed [`Binding::check`] is one that Kafka would take, but for delegation tokens, of
//! which there are none.

use std::net::IpAddr;

use millpond_types::Principal;

use crate::keys::{Fields, put_text};

/// The one resource of type cluster.
pub const CLUSTER_NAME: &str = "kafka-cluster";
/// A literal name that stands for all names; a host that stands for all hosts.
pub const WILDCARD: &str = "*";
/// The principal that stands for all users.
pub const ANY_USER: &str = "User:*";

/// Bytes of a resource's name; Kafka's texts are no longer.
pub const NAME_BYTES_MAX: usize = 32_767;
pub const PRINCIPAL_BYTES_MAX: usize = 1_024;
pub const HOST_BYTES_MAX: usize = 255;

const VERSION: u8 = 1;
const ANY: i8 = 1;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i8)]
        pub enum $name { $($variant = $code),* }

        impl $name {
            pub fn of_code(code: i8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            pub fn code(self) -> i8 {
                self as i8
            }
        }
    };
}

numbered! {
    /// What may be protected.
    ResourceType { Topic = 2, Group = 3, Cluster = 4, TransactionalId = 5, DelegationToken = 6, User = 7 }
}
numbered! { PatternType { Literal = 3, Prefixed = 4 } }
numbered! {
    Operation {
        All = 2, Read = 3, Write = 4, Create = 5, Delete = 6, Alter = 7, Describe = 8, ClusterAction = 9,
        DescribeConfigs = 10, AlterConfigs = 11, IdempotentWrite = 12, CreateTokens = 13, DescribeTokens = 14,
    }
}
numbered! { Permission { Deny = 2, Allow = 3 } }

impl Operation {
    /// Whether being allowed this is being allowed `wanted`.
    pub fn allows(self, wanted: Self) -> bool {
        self == wanted
            || match wanted {
                Self::Describe => matches!(self, Self::All | Self::Read | Self::Write | Self::Delete | Self::Alter),
                Self::DescribeConfigs => matches!(self, Self::All | Self::AlterConfigs),
                _ => self == Self::All,
            }
    }

    /// Whether being denied this is being denied `wanted`. Nothing is implied.
    pub fn denies(self, wanted: Self) -> bool {
        self == wanted || self == Self::All
    }
}

/// Somebody at some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    pub principal: &'a Principal,
    /// An IPv4 address is one, and not written as IPv6.
    pub host: IpAddr,
}

/// One entry: who may or may not do what, from where, on which resources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    pub resource: ResourceType,
    pub name: String,
    pub pattern: PatternType,
    pub principal: String,
    pub host: String,
    pub operation: Operation,
    pub permission: Permission,
}

/// An entry as it came over the wire.
#[derive(Debug, Clone, Copy)]
pub struct RawBinding<'a> {
    pub resource: i8,
    pub name: &'a str,
    pub pattern: i8,
    pub principal: &'a str,
    pub host: &'a str,
    pub operation: i8,
    pub permission: i8,
}

impl Binding {
    /// Reads what a client wants to create. The error says what is wrong with it.
    pub fn check(raw: RawBinding<'_>) -> Result<Self, String> {
        let resource = ResourceType::of_code(raw.resource)
            .ok_or_else(|| format!("an acl cannot be about resources of type {}", raw.resource))?;
        let pattern = PatternType::of_code(raw.pattern)
            .ok_or_else(|| format!("an acl's pattern is literal (3) or prefixed (4), not {}", raw.pattern))?;
        let operation = Operation::of_code(raw.operation)
            .ok_or_else(|| format!("an acl cannot be about operation {}", raw.operation))?;
        let permission = Permission::of_code(raw.permission)
            .ok_or_else(|| format!("an acl's permission is deny (2) or allow (3), not {}", raw.permission))?;
        if raw.name.is_empty() {
            return Err("the name of an acl's resource must not be empty".to_owned());
        }
        if resource == ResourceType::Cluster && raw.name != CLUSTER_NAME {
            return Err(format!("the only cluster is \"{CLUSTER_NAME}\", not \"{}\"", raw.name));
        }
        match raw.principal.split_once(':') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {}
            _ => return Err(format!("a principal is TYPE:NAME, as in \"User:alice\", not \"{}\"", raw.principal)),
        }
        if raw.host.is_empty() {
            return Err("the host of an acl must be an address or \"*\"".to_owned());
        }
        let lengths = [
            ("name", raw.name.len(), NAME_BYTES_MAX),
            ("principal", raw.principal.len(), PRINCIPAL_BYTES_MAX),
            ("host", raw.host.len(), HOST_BYTES_MAX),
        ];
        if let Some((what, len, max)) = lengths.into_iter().find(|(_, len, max)| len > max) {
            return Err(format!("the {what} of an acl has {len} bytes, more than {max}"));
        }
        Ok(Self {
            resource,
            name: raw.name.to_owned(),
            pattern,
            principal: raw.principal.to_owned(),
            host: raw.host.to_owned(),
            operation,
            permission,
        })
    }

    /// Whether it is about somebody.
    pub fn is_about(&self, who: Who<'_>) -> bool {
        let named = || {
            let rest = self.principal.strip_prefix(who.principal.kind()).and_then(|rest| rest.strip_prefix(':'));
            rest == Some(who.principal.name())
        };
        let here = || self.host.parse::<IpAddr>().is_ok_and(|host| host.to_canonical() == who.host);
        (self.principal == ANY_USER || named()) && (self.host == WILDCARD || here())
    }

    pub fn key(&self) -> Vec<u8> {
        let codes = [self.resource.code(), self.pattern.code(), self.operation.code(), self.permission.code()];
        let mut out: Vec<u8> = codes.into_iter().map(|code| code as u8).collect();
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.principal);
        put_text(&mut out, &self.host);
        out
    }

    pub fn value() -> Vec<u8> {
        vec![VERSION]
    }

    /// Reads an entry back; `None` where it is damaged or of another version.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut fields = Fields(key);
        let mut code = || fields.u8().and_then(|code| i8::try_from(code).ok());
        let resource = ResourceType::of_code(code()?)?;
        let pattern = PatternType::of_code(code()?)?;
        let operation = Operation::of_code(code()?)?;
        let permission = Permission::of_code(code()?)?;
        let mut text = || fields.text().map(str::to_owned);
        let binding =
            Self { resource, pattern, operation, permission, name: text()?, principal: text()?, host: text()? };
        (fields.0.is_empty() && value == [VERSION]).then_some(binding)
    }
}

/// What a request looks for among the entries. `None`: anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    resource: Option<ResourceType>,
    name: Option<String>,
    pattern: PatternFilter,
    principal: Option<String>,
    host: Option<String>,
    operation: Option<Operation>,
    permission: Option<Permission>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatternFilter {
    Any,
    /// All entries that are about the resource of the filter's name.
    Match,
    Only(PatternType),
}

/// A filter as it came over the wire.
#[derive(Debug, Clone, Copy)]
pub struct RawFilter<'a> {
    pub resource: i8,
    pub name: Option<&'a str>,
    pub pattern: i8,
    pub principal: Option<&'a str>,
    pub host: Option<&'a str>,
    pub operation: i8,
    pub permission: i8,
}

impl Filter {
    /// Everything.
    pub fn any() -> Self {
        Self {
            resource: None,
            name: None,
            pattern: PatternFilter::Any,
            principal: None,
            host: None,
            operation: None,
            permission: None,
        }
    }

    pub fn check(raw: RawFilter<'_>) -> Result<Self, String> {
        let unknown = |what: &str, code: i8| format!("a filter's {what} cannot be {code}");
        let pattern = match raw.pattern {
            ANY => PatternFilter::Any,
            2 => PatternFilter::Match,
            code => PatternFilter::Only(PatternType::of_code(code).ok_or_else(|| unknown("pattern type", code))?),
        };
        fn or_any<T>(code: i8, of_code: fn(i8) -> Option<T>) -> Option<Option<T>> {
            if code == ANY { Some(None) } else { of_code(code).map(Some) }
        }
        Ok(Self {
            resource: or_any(raw.resource, ResourceType::of_code).ok_or_else(|| unknown("resource", raw.resource))?,
            name: raw.name.map(str::to_owned),
            pattern,
            principal: raw.principal.map(str::to_owned),
            host: raw.host.map(str::to_owned),
            operation: or_any(raw.operation, Operation::of_code).ok_or_else(|| unknown("operation", raw.operation))?,
            permission: or_any(raw.permission, Permission::of_code)
                .ok_or_else(|| unknown("permission", raw.permission))?,
        })
    }

    pub fn finds(&self, binding: &Binding) -> bool {
        let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        self.resource.is_none_or(|resource| resource == binding.resource)
            && self.finds_pattern(binding)
            && same(&self.principal, &binding.principal)
            && same(&self.host, &binding.host)
            && self.operation.is_none_or(|operation| operation == binding.operation)
            && self.permission.is_none_or(|permission| permission == binding.permission)
    }

    fn finds_pattern(&self, binding: &Binding) -> bool {
        let named = |found: &str| self.name.as_deref().is_none_or(|name| name == found);
        match self.pattern {
            PatternFilter::Any => named(&binding.name),
            PatternFilter::Only(pattern) => pattern == binding.pattern && named(&binding.name),
            PatternFilter::Match => match (&self.name, binding.pattern) {
                (None, _) => true,
                (Some(name), PatternType::Literal) => *name == binding.name || binding.name == WILDCARD,
                (Some(name), PatternType::Prefixed) => name.starts_with(&binding.name),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw() -> RawBinding<'static> {
        let (resource, pattern, operation, permission) = (2, 3, 3, 3);
        RawBinding { resource, name: "t", pattern, principal: "User:a", host: "*", operation, permission }
    }

    #[test]
    fn what_kafka_would_not_take_is_refused() {
        assert!(Binding::check(raw()).is_ok());
        for (wrong, word) in [
            (RawBinding { resource: 1, ..raw() }, "type 1"),
            (RawBinding { resource: 9, ..raw() }, "type 9"),
            (RawBinding { resource: 4, ..raw() }, "kafka-cluster"),
            (RawBinding { pattern: 2, ..raw() }, "literal"),
            (RawBinding { operation: 1, ..raw() }, "operation 1"),
            (RawBinding { permission: 1, ..raw() }, "permission"),
            (RawBinding { name: "", ..raw() }, "empty"),
            (RawBinding { principal: "alice", ..raw() }, "TYPE:NAME"),
            (RawBinding { host: "", ..raw() }, "host"),
        ] {
            let error = Binding::check(wrong).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let long = "x".repeat(HOST_BYTES_MAX + 1);
        assert!(Binding::check(RawBinding { host: &long, ..raw() }).unwrap_err().contains("255"));
    }

    #[test]
    fn filters_find_what_kafkas_find() {
        let make = |name, pattern| Binding::check(RawBinding { name, pattern, ..raw() }).unwrap();
        let all = [make("orders", 3), make("ord", 4), make("*", 3), make("other", 3), make("orders-2", 4)];
        let find = |name: Option<&str>, pattern| {
            let filter = RawFilter {
                resource: ANY,
                name,
                pattern,
                principal: None,
                host: None,
                operation: ANY,
                permission: ANY,
            };
            let filter = Filter::check(filter).unwrap();
            all.iter().filter(|b| filter.finds(b)).map(|b| b.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(find(Some("orders"), ANY), ["orders"]);
        assert_eq!(find(Some("orders"), 2), ["orders", "ord", "*"]);
        assert_eq!(find(Some("ord"), 3), Vec::<&str>::new());
        assert_eq!(find(Some("ord"), 4), ["ord"]);
        assert_eq!(find(None, 4), ["ord", "orders-2"]);
        assert_eq!(find(None, 2).len(), 5);
        let filter = RawFilter {
            resource: 2,
            name: None,
            pattern: 0,
            principal: None,
            host: None,
            operation: ANY,
            permission: ANY,
        };
        assert!(Filter::check(filter).is_err());
        assert!(Filter::check(RawFilter { pattern: ANY, operation: 99, ..filter }).is_err());
    }

    proptest! {
        #[test]
        fn entries_read_back(name in ".{1,20}", principal in "[A-Z]{1,4}:.{1,9}", host in ".{1,9}", codes in 0usize..5) {
            let resource = [2, 3, 5, 7, 2][codes];
            let raw = RawBinding { resource, name: &name, principal: &principal, host: &host, ..raw() };
            let binding = Binding::check(raw).unwrap();
            prop_assert_eq!(Binding::decode(&binding.key(), &Binding::value()), Some(binding));
        }

        #[test]
        fn any_bytes_may_be_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Binding::decode(&bytes, &[VERSION]);
        }
    }
}

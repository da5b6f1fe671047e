//! What a quota is: of whom, of what, how much; which of them a request finds; and how they lie in storage.
//!
//! ```text
//! key     u8 n │ n × part
//! part    u8 kind (1 user, 2 client id, 3 address) │ u8 named (0: the default) │ str name
//! value   version 1 │ u8 n │ n × (str key │ f64 bits)
//! str     u32 length │ bytes
//! ```
//! Not here: which quota counts for somebody and what follows from it (`quotas`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::keys::{Fields, put_text};

const VERSION: u8 = 1;
/// Bytes of a user's name or a client id that has a quota of its own.
pub const NAME_BYTES_MAX: usize = 1_024;
/// How far a number may be from a whole one where it has to be one.
const WHOLE: f64 = 1e-6;

/// What a quota is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartKind {
    User = 1,
    ClientId = 2,
    Address = 3,
}

impl PartKind {
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "user" => Some(Self::User),
            "client-id" => Some(Self::ClientId),
            "ip" => Some(Self::Address),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ClientId => "client-id",
            Self::Address => "ip",
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        [Self::User, Self::ClientId, Self::Address].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// Whom a quota is for: a user, a client id, both, or an address. `None`: all that have none of their own.
pub type Entity = BTreeMap<PartKind, Option<String>>;

/// How much of what, by Kafka's names.
pub type Limits = BTreeMap<String, f64>;

pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
pub const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

/// Reads whom a request speaks of.
pub fn entity<'a>(parts: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Result<Entity, String> {
    let mut entity = Entity::new();
    for (kind, name) in parts {
        let kind = PartKind::of_name(kind)
            .ok_or_else(|| format!("quotas are of \"user\", \"client-id\" and \"ip\", not of \"{kind}\""))?;
        if name.is_some_and(str::is_empty) {
            return Err(format!("the {} of a quota has an empty name", kind.name()));
        }
        if let Some(name) = name.filter(|name| name.len() > NAME_BYTES_MAX) {
            return Err(format!("the {} of a quota has {} bytes, more than {NAME_BYTES_MAX}", kind.name(), name.len()));
        }
        if let (PartKind::Address, Some(name)) = (kind, name) {
            name.parse::<IpAddr>().map_err(|_| format!("\"{name}\" is not an ip address"))?;
        }
        if entity.insert(kind, name.map(str::to_owned)).is_some() {
            return Err(format!("a quota names its {} twice", kind.name()));
        }
    }
    match (entity.len(), entity.contains_key(&PartKind::Address)) {
        (0, _) => Err("a quota must be of somebody".to_owned()),
        (2.., true) => Err("a quota of an ip cannot be of a user or client-id too".to_owned()),
        _ => Ok(entity),
    }
}

/// Checks a value for somebody.
pub fn check(entity: &Entity, key: &str, value: f64) -> Result<(), String> {
    let of_address = entity.contains_key(&PartKind::Address);
    let (whole, max) = match key {
        PRODUCER_BYTE_RATE | CONSUMER_BYTE_RATE if !of_address => (true, i64::MAX as f64),
        REQUEST_PERCENTAGE | CONTROLLER_MUTATION_RATE if !of_address => (false, f64::MAX),
        CONNECTION_CREATION_RATE if of_address => (true, f64::from(i32::MAX)),
        _ => {
            let of = if of_address { "an ip" } else { "a user or client-id" };
            return Err(format!("there is no quota \"{key}\" of {of}"));
        }
    };
    if !value.is_finite() || value <= 0.0 || value > max {
        return Err(format!("the quota \"{key}\" must be more than 0 and not so large, not {value}"));
    }
    if whole && (value - value.round()).abs() > WHOLE {
        return Err(format!("the quota \"{key}\" must be a whole number, not {value}"));
    }
    Ok(())
}

/// Whether there is such a quota for somebody, so that it may be removed.
pub fn check_key(entity: &Entity, key: &str) -> Result<(), String> {
    check(entity, key, 1.0)
}

pub fn encode_entity(entity: &Entity) -> Vec<u8> {
    let mut out = vec![entity.len() as u8];
    for (kind, name) in entity {
        out.extend([*kind as u8, u8::from(name.is_some())]);
        put_text(&mut out, name.as_deref().unwrap_or_default());
    }
    out
}

pub fn encode_limits(limits: &Limits) -> Vec<u8> {
    let mut out = vec![VERSION, limits.len() as u8];
    for (key, value) in limits {
        put_text(&mut out, key);
        out.extend(value.to_bits().to_be_bytes());
    }
    out
}

/// Reads a stored quota; `None` where it is damaged or of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Option<(Entity, Limits)> {
    let mut fields = Fields(key);
    let mut parts = Entity::new();
    for _ in 0..fields.u8()? {
        let kind = PartKind::of_code(fields.u8()?)?;
        let named = fields.u8()? != 0;
        let name = fields.text()?;
        parts.insert(kind, named.then(|| name.to_owned()));
    }
    if !fields.0.is_empty() {
        return None;
    }
    let named = parts.iter().map(|(kind, name)| (kind.name(), name.as_deref()));
    let parts = entity(named).ok()?;
    let mut fields = Fields(value);
    if fields.u8()? != VERSION {
        return None;
    }
    let mut limits = Limits::new();
    for _ in 0..fields.u8()? {
        let key = fields.text()?.to_owned();
        let value = f64::from_bits(fields.u64()?);
        check(&parts, &key, value).ok()?;
        limits.insert(key, value);
    }
    fields.0.is_empty().then_some((parts, limits))
}

/// What a request for quotas looks for in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Name(String),
    Default,
    /// Any name, and the default.
    Any,
}

/// Which quotas a request looks for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub parts: BTreeMap<PartKind, Match>,
    /// Those that have other parts too are not meant.
    pub strict: bool,
}

impl Filter {
    pub fn finds(&self, entity: &Entity) -> bool {
        let found = |(kind, wanted): (&PartKind, &Match)| match (entity.get(kind), wanted) {
            (None, _) => false,
            (Some(Some(name)), Match::Name(wanted)) => name == wanted,
            (Some(None), Match::Default) | (Some(_), Match::Any) => true,
            (Some(_), Match::Name(_) | Match::Default) => false,
        };
        self.parts.iter().all(found) && (!self.strict || self.parts.len() == entity.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(parts: &[(&str, Option<&str>)]) -> Entity {
        entity(parts.iter().copied()).unwrap()
    }

    #[test]
    fn entities_and_values_are_checked() {
        for wrong in [
            &[][..],
            &[("user", Some(""))],
            &[("broker", Some("1"))],
            &[("user", Some("a")), ("user", None)],
            &[("ip", Some("127.0.0.1")), ("user", None)],
            &[("ip", Some("localhost"))],
        ] {
            assert!(entity(wrong.iter().copied()).is_err(), "{wrong:?}");
        }
        let (user, ip) = (of(&[("user", None)]), of(&[("ip", Some("::1"))]));
        assert!(check(&user, PRODUCER_BYTE_RATE, 1024.0).is_ok() && check(&user, REQUEST_PERCENTAGE, 0.5).is_ok());
        assert!(check(&user, PRODUCER_BYTE_RATE, 1.5).is_err() && check(&user, PRODUCER_BYTE_RATE, 0.0).is_err());
        assert!(check(&user, PRODUCER_BYTE_RATE, f64::NAN).is_err() && check(&user, "retention.ms", 1.0).is_err());
        assert!(check(&ip, CONNECTION_CREATION_RATE, 5.0).is_ok() && check(&ip, PRODUCER_BYTE_RATE, 5.0).is_err());
        assert!(check(&user, CONNECTION_CREATION_RATE, 5.0).is_err());
    }

    #[test]
    fn filters_find_parts() {
        let all = [
            of(&[("user", Some("a"))]),
            of(&[("user", None)]),
            of(&[("user", Some("a")), ("client-id", Some("c"))]),
            of(&[("client-id", None)]),
        ];
        let find = |parts: &[(PartKind, Match)], strict| {
            let filter = Filter { parts: parts.iter().cloned().collect(), strict };
            all.iter().enumerate().filter(|(_, e)| filter.finds(e)).map(|(i, _)| i).collect::<Vec<_>>()
        };
        assert_eq!(find(&[(PartKind::User, Match::Any)], false), [0, 1, 2]);
        assert_eq!(find(&[(PartKind::User, Match::Any)], true), [0, 1]);
        assert_eq!(find(&[(PartKind::User, Match::Name("a".into()))], true), [0]);
        assert_eq!(find(&[(PartKind::ClientId, Match::Default)], false), [3]);
        assert_eq!(find(&[], false), [0, 1, 2, 3]);
        assert_eq!(find(&[], true), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn quotas_read_back(user in ".{1,9}", client in proptest::option::of(".{1,9}"), rate in 1u32..9_000_000) {
            let entity = of(&[("user", Some(&user)), ("client-id", client.as_deref())]);
            let limits: Limits = [(CONSUMER_BYTE_RATE.to_owned(), f64::from(rate))].into();
            let read = decode(&encode_entity(&entity), &encode_limits(&limits));
            prop_assert_eq!(read, Some((entity, limits)));
        }

        #[test]
        fn any_bytes_may_be_decoded(key in proptest::collection::vec(any::<u8>(), 0..40), value: Vec<u8>) {
            let _ = decode(&key, &value);
        }
    }
}

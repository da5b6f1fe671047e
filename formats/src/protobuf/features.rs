//! What a schema's syntax, or its edition and the features that it sets, say about fields and enums.
//!
//! Features that change neither what is read nor what is written mean nothing here: checks of UTF-8, names and limits, JSON,
//! visibility, those of single languages.

use millpond_types::{Error, Result};

/// Editions with the numbers that descriptors have for them. In what is told apart here they have the same defaults.
const EDITIONS: [(&str, u64); 3] = [("2023", 1000), ("2024", 1001), ("2026", 1002)];

/// Features with the numbers that descriptors have for them, and their values, which are numbered from 1.
const FEATURES: [(&str, usize, &[&str]); 4] = [
    ("field_presence", 1, &["EXPLICIT", "IMPLICIT", "LEGACY_REQUIRED"]),
    ("enum_type", 2, &["OPEN", "CLOSED"]),
    ("repeated_field_encoding", 3, &["PACKED", "EXPANDED"]),
    ("message_encoding", 5, &["LENGTH_PREFIXED", "DELIMITED"]),
];
const OF_NO_EFFECT: [&str; 5] =
    ["utf8_validation", "json_format", "enforce_naming_style", "default_symbol_visibility", "enforce_proto_limits"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Proto2,
    Proto3,
    Edition(Edition),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    pub name: &'static str,
    pub number: u64,
}

impl Syntax {
    /// By the word behind `syntax =`.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "proto2" => Ok(Self::Proto2),
            "proto3" => Ok(Self::Proto3),
            other => Err(bad(format!("syntax \"{other}\" is not known; there are \"proto2\" and \"proto3\""))),
        }
    }

    /// By the word behind `edition =`.
    pub fn edition(name: &str) -> Result<Self> {
        Self::find(|edition| edition.name == name, name)
    }

    /// By the number in a descriptor.
    pub fn edition_numbered(number: u64) -> Result<Self> {
        Self::find(|edition| edition.number == number, &number.to_string())
    }

    fn find(is_it: impl Fn(&Edition) -> bool, asked: &str) -> Result<Self> {
        let mut editions = EDITIONS.iter().map(|&(name, number)| Edition { name, number });
        let known = EDITIONS.map(|(name, _)| name).join(", ");
        let found =
            editions.find(is_it).ok_or_else(|| bad(format!("edition \"{asked}\" is not known; there are {known}")));
        found.map(Self::Edition)
    }

    pub fn is_edition(self) -> bool {
        matches!(self, Self::Edition(_))
    }
}

/// What features are set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    File,
    Message,
    Field,
    Enum,
}

impl Target {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Message => "message",
            Self::Field => "field",
            Self::Enum => "enum",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A scalar tells not being there from its default.
    pub presence: bool,
    /// Enums do not have other values than those that are declared.
    pub closed: bool,
    /// Lists of numbers are written in one piece.
    pub packed: bool,
}

impl Features {
    pub fn of(syntax: Syntax) -> Self {
        match syntax {
            Syntax::Proto2 => Self { presence: true, closed: true, packed: false },
            Syntax::Proto3 => Self { presence: false, closed: false, packed: true },
            Syntax::Edition(_) => Self { presence: true, closed: false, packed: true },
        }
    }

    /// Sets a feature by the words of the schema.
    pub fn set(&mut self, name: &str, value: &str, target: Target) -> Result<()> {
        // One language's, as `(pb.cpp).string_type`.
        if name.starts_with('(') || OF_NO_EFFECT.contains(&name) {
            return Ok(());
        }
        let Some((_, _, values)) = FEATURES.iter().find(|(known, ..)| *known == name) else {
            return Err(bad(format!("there is no feature \"{name}\"")));
        };
        if !values.contains(&value) {
            return Err(bad(format!("feature \"{name}\" cannot be \"{value}\"; it can be {}", values.join(" or "))));
        }
        let of = if name == "enum_type" { Target::Enum } else { Target::Field };
        if target != Target::File && target != of {
            return Err(bad(format!("feature \"{name}\" is set on what is no file and no {}", of.word())));
        }
        match (name, value) {
            ("field_presence", value) => self.presence = value != "IMPLICIT",
            ("enum_type", value) => self.closed = value == "CLOSED",
            ("repeated_field_encoding", value) => self.packed = value == "PACKED",
            ("message_encoding", "DELIMITED") => {
                return Err(bad("feature \"message_encoding\" is \"DELIMITED\", and groups are not supported"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The words for a feature that a descriptor has by numbers; `None` where it means nothing here.
pub fn words(feature: usize, value: u64) -> Option<Result<(&'static str, &'static str)>> {
    let (name, _, values) = FEATURES.iter().find(|(_, number, _)| *number == feature)?;
    let value = usize::try_from(value).ok().and_then(|value| values.get(value.checked_sub(1)?));
    Some(match value {
        Some(value) => Ok((*name, *value)),
        None => Err(bad(format!("feature \"{name}\" of the compiled schema has no value that is known"))),
    })
}

/// The numbers that a descriptor has for a feature.
pub fn numbers(name: &str, value: &str) -> Option<(usize, u64)> {
    let (_, feature, values) = FEATURES.iter().find(|(known, ..)| *known == name)?;
    Some((*feature, values.iter().position(|known| *known == value)? as u64 + 1))
}

fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message)
}

//! When a schema may follow others in a subject.

use millpond_formats::avro::resolve;
use millpond_formats::{Parsed, Schema};

use crate::{json_schema, protobuf};

/// Which of a subject's versions a new one is held against, and which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compatibility {
    None,
    /// Who has the new schema reads data of the old one.
    #[default]
    Backward,
    BackwardTransitive,
    /// Who has the old schema reads data of the new one.
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

impl Compatibility {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "NONE" => Self::None,
            "BACKWARD" => Self::Backward,
            "BACKWARD_TRANSITIVE" => Self::BackwardTransitive,
            "FORWARD" => Self::Forward,
            "FORWARD_TRANSITIVE" => Self::ForwardTransitive,
            "FULL" => Self::Full,
            "FULL_TRANSITIVE" => Self::FullTransitive,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether all versions count, not only the latest.
    pub fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

/// What stands in the way of `new` after `old`; empty where nothing does.
pub fn incompatibilities(new: &Schema, old: &Schema, level: Compatibility) -> Vec<String> {
    let mut found = Vec::new();
    if level.is_backward() {
        found.extend(faults(new, old));
    }
    if level.is_forward() {
        found.extend(faults(old, new));
    }
    found
}

/// What stands in the way of reading data of `writer` with `reader`.
fn faults(reader: &Schema, writer: &Schema) -> Vec<String> {
    match (&reader.parsed, &writer.parsed) {
        (Parsed::Avro(reader), Parsed::Avro(writer)) => resolve::faults(reader, writer),
        (Parsed::Json(reader), Parsed::Json(writer)) => json_schema::faults(reader, writer),
        (Parsed::Protobuf(reader), Parsed::Protobuf(writer)) => protobuf::faults(reader, writer),
        _ => {
            let (a, b) = (reader.kind().name(), writer.kind().name());
            vec![format!("the schema types differ: {a} and {b}")]
        }
    }
}

//! WITH clauses: which properties a statement takes, their values, and the formats they describe.
//!
//! Not here: whether a format can hold a schema; that is the environment's to say.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, suggest};
use crate::plan::{AnalysisResult, Environment, FormatSpec, KeyWindow, Side, WindowKind};
use crate::syntax::{IntervalUnit, Literal, Properties, Span, Spanned};

const TOPIC: [&str; 5] = ["KAFKA_TOPIC", "PARTITIONS", "REPLICAS", "RETENTION_MS", "CLEANUP_POLICY"];
const FORMATS: [&str; 15] = [
    "KEY_FORMAT",
    "VALUE_FORMAT",
    "FORMAT",
    "KEY_DELIMITER",
    "VALUE_DELIMITER",
    "WRAP_SINGLE_VALUE",
    "TIMESTAMP",
    "TIMESTAMP_FORMAT",
    "KEY_SCHEMA_ID",
    "VALUE_SCHEMA_ID",
    "KEY_SCHEMA_FULL_NAME",
    "VALUE_SCHEMA_FULL_NAME",
    "VALUE_AVRO_SCHEMA_FULL_NAME",
    "KEY_PROTOBUF_NULLABLE_REPRESENTATION",
    "VALUE_PROTOBUF_NULLABLE_REPRESENTATION",
];
const SOURCE_ONLY: [&str; 4] = ["WINDOW_TYPE", "WINDOW_SIZE", "SOURCE_CONNECTOR", "SOURCED_BY_CONNECTOR"];

/// Which statement the clause belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithOf {
    CreateSource,
    CreateAs,
    InsertInto,
}

/// A checked WITH clause.
pub(super) struct With<'a> {
    items: &'a Properties,
}

impl<'a> With<'a> {
    pub fn new(items: &'a Properties, of: WithOf) -> AnalysisResult<Self> {
        let known: Vec<&str> = match of {
            WithOf::CreateSource => TOPIC.iter().chain(&FORMATS).chain(&SOURCE_ONLY).copied().collect(),
            WithOf::CreateAs => TOPIC.iter().chain(&FORMATS).copied().collect(),
            WithOf::InsertInto => vec!["QUERY_ID"],
        };
        for (i, property) in items.items.iter().enumerate() {
            let name = property.name.value.to_ascii_uppercase();
            let span = property.name.span;
            if !known.contains(&name.as_str()) {
                let diagnostic = Diagnostic::at(
                    Code::Property,
                    span,
                    format!("invalid config variable(s) in the WITH clause: {name}"),
                );
                return Err(match suggest(&name, known.iter().copied()) {
                    Some(other) => diagnostic.with_hint(format!("did you mean {other}?")),
                    None => diagnostic,
                });
            }
            let before = items.items.get(..i).unwrap_or(&[]);
            if before.iter().any(|p| p.name.value.eq_ignore_ascii_case(&name)) {
                return Err(Diagnostic::at(
                    Code::Property,
                    span,
                    format!("the property {name} is given more than once in the WITH clause"),
                ));
            }
            if name == "CLEANUP_POLICY" {
                return Err(Diagnostic::at(
                    Code::Property,
                    span,
                    "invalid config variable in the WITH clause: CLEANUP_POLICY",
                )
                .with_detail(
                    "it is set automatically: delete for streams, compact for tables, both for windowed tables",
                ));
            }
        }
        let with = Self { items };
        if let Some(format) = items.get("FORMAT") {
            for other in ["KEY_FORMAT", "VALUE_FORMAT"] {
                if items.get(other).is_some() {
                    return Err(Diagnostic::at(
                        Code::Property,
                        format.span,
                        format!(
                            "cannot supply both '{other}' and 'FORMAT' properties, as 'FORMAT' sets both key and value \
                             formats. Either use just 'FORMAT', or use 'KEY_FORMAT' and 'VALUE_FORMAT'"
                        ),
                    ));
                }
            }
        }
        Ok(with)
    }

    pub fn span(&self, name: &str) -> Span {
        self.items.get(name).map(|v| v.span).unwrap_or_default()
    }

    pub fn has(&self, name: &str) -> bool {
        self.items.get(name).is_some()
    }

    fn invalid(name: &str, value: &Spanned<Literal>, why: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::at(Code::Property, value.span, format!("configuration {name} is invalid: {why}"))
    }

    pub fn string(&self, name: &str) -> AnalysisResult<Option<String>> {
        let Some(value) = self.items.get(name) else { return Ok(None) };
        match &value.node {
            Literal::String(text) => Ok(Some(text.clone())),
            other => Err(Self::invalid(name, value, format!("expected a STRING, got {other}"))),
        }
    }

    pub fn integer(&self, name: &str) -> AnalysisResult<Option<i64>> {
        let Some(value) = self.items.get(name) else { return Ok(None) };
        let number = match &value.node {
            Literal::Integer(i) => Some(i64::from(*i)),
            Literal::BigInt(i) => Some(*i),
            Literal::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(Self::invalid(name, value, format!("expected an INTEGER, got {}", value.node))),
        }
    }

    /// An integer of at least 1 that fits the type.
    pub fn positive<T: TryFrom<i64>>(&self, name: &str) -> AnalysisResult<Option<T>> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        match T::try_from(number) {
            Ok(fitting) if number > 0 => Ok(Some(fitting)),
            _ => Err(Diagnostic::at(
                Code::Property,
                self.span(name),
                format!("configuration {name} is invalid: {number} is not a positive number in range"),
            )),
        }
    }

    pub fn boolean(&self, name: &str) -> AnalysisResult<Option<bool>> {
        let Some(value) = self.items.get(name) else { return Ok(None) };
        match &value.node {
            Literal::Boolean(b) => Ok(Some(*b)),
            Literal::String(text) if text.trim().eq_ignore_ascii_case("true") => Ok(Some(true)),
            Literal::String(text) if text.trim().eq_ignore_ascii_case("false") => Ok(Some(false)),
            other => Err(Self::invalid(name, value, format!("expected a BOOLEAN, got {other}"))),
        }
    }

    /// The name of the key or value format that the clause names, in upper case.
    pub fn format_name(&self, side: Side) -> AnalysisResult<Option<String>> {
        let own = match side {
            Side::Key => "KEY_FORMAT",
            Side::Value => "VALUE_FORMAT",
        };
        let name = match self.string(own)? {
            Some(name) => Some(name),
            None => self.string("FORMAT")?,
        };
        Ok(name.map(|n| n.trim().to_ascii_uppercase()))
    }

    pub fn format_span(&self, side: Side) -> Span {
        let own = match side {
            Side::Key => "KEY_FORMAT",
            Side::Value => "VALUE_FORMAT",
        };
        if self.has(own) { self.span(own) } else { self.span("FORMAT") }
    }

    /// The format of a side with everything the clause says about it. `inherited` is what holds where it says nothing.
    pub fn format(&self, side: Side, name: String, inherited: Option<&FormatSpec>) -> AnalysisResult<FormatSpec> {
        let inherited = inherited.filter(|i| i.name == name);
        let prefix = match side {
            Side::Key => "KEY_",
            Side::Value => "VALUE_",
        };
        let delimiter_name = format!("{prefix}DELIMITER");
        let delimiter = match self.string(&delimiter_name)? {
            Some(text) => Some(delimiter(&text).ok_or_else(|| {
                Diagnostic::at(
                    Code::Property,
                    self.span(&delimiter_name),
                    format!(
                        "configuration {delimiter_name} is invalid: Invalid delimiter value: '{text}'. Delimiter must \
                         be a single character or TAB,SPACE"
                    ),
                )
                .with_hint("example valid value: ';'")
            })?),
            None => inherited.and_then(|i| i.delimiter),
        };
        if delimiter.is_some() && name != "DELIMITED" {
            return Err(Diagnostic::at(
                Code::Property,
                self.span(&delimiter_name),
                format!("{name} does not support the following configs: [delimiter]"),
            ));
        }
        let mut properties: BTreeMap<String, String> = BTreeMap::new();
        let id_name = format!("{prefix}SCHEMA_ID");
        if let Some(id) = self.positive::<i32>(&id_name)? {
            if !uses_registry(&name) {
                return Err(Diagnostic::at(
                    Code::Property,
                    self.span(&id_name),
                    format!(
                        "{prefix}FORMAT should support schema inference when {id_name} is provided. Current format is \
                         {name}"
                    ),
                ));
            }
            properties.insert(id_name, id.to_string());
        }
        let mut text_properties =
            vec![format!("{prefix}SCHEMA_FULL_NAME"), format!("{prefix}PROTOBUF_NULLABLE_REPRESENTATION")];
        if side == Side::Value {
            text_properties.push("VALUE_AVRO_SCHEMA_FULL_NAME".to_owned());
        }
        for property in text_properties {
            let Some(text) = self.string(&property)? else { continue };
            let invalid = |message: String| Diagnostic::at(Code::Property, self.span(&property), message);
            if property.ends_with("FULL_NAME") {
                if text.trim().is_empty() {
                    return Err(invalid(format!(
                        "fullSchemaName cannot be empty. Format configuration: {{fullSchemaName={text}}}"
                    )));
                }
                if !uses_registry(&name) {
                    return Err(invalid(format!("{name} does not support the following configs: [fullSchemaName]")));
                }
            } else if !matches!(text.to_ascii_uppercase().as_str(), "OPTIONAL" | "WRAPPER") {
                return Err(invalid(format!("configuration {property} is invalid: expected OPTIONAL or WRAPPER")));
            } else if !name.starts_with("PROTOBUF") {
                return Err(invalid(format!(
                    "{name} does not support the following configs: [nullableRepresentation]"
                )));
            }
            properties.insert(property, text);
        }
        Ok(FormatSpec { name, delimiter, wrap_single: None, properties })
    }

    /// WRAP_SINGLE_VALUE for a value of so many columns, or what the session says where it applies.
    pub fn wrap_single(&self, env: &dyn Environment, format: &str, columns: usize) -> AnalysisResult<Option<bool>> {
        let (wraps, unwraps) = match format {
            "DELIMITED" | "KAFKA" | "NONE" => (false, true),
            "PROTOBUF" => (true, false),
            _ => (true, true),
        };
        let Some(wrap) = self.boolean("WRAP_SINGLE_VALUE")? else {
            let default = env.property("ksql.persistence.wrap.single.values").and_then(|v| v.parse::<bool>().ok());
            return Ok(default.filter(|_| columns == 1 && wraps && unwraps));
        };
        let span = self.span("WRAP_SINGLE_VALUE");
        if !(if wrap { wraps } else { unwraps }) {
            return Err(Diagnostic::at(
                Code::Format,
                span,
                format!("format '{format}' does not support 'WRAP_SINGLE_VALUE' set to '{wrap}'"),
            ));
        }
        if columns != 1 {
            return Err(Diagnostic::at(
                Code::Format,
                span,
                "'WRAP_SINGLE_VALUE' is only valid for single-field value schemas",
            ));
        }
        // Where the format has no choice, saying so changes nothing.
        Ok(Some(wrap).filter(|_| wraps && unwraps))
    }

    pub fn window(&self) -> AnalysisResult<Option<KeyWindow>> {
        let size = self.string("WINDOW_SIZE")?;
        let size_span = self.span("WINDOW_SIZE");
        let Some(kind) = self.string("WINDOW_TYPE")? else {
            return match size {
                Some(_) => Err(Diagnostic::at(
                    Code::Property,
                    size_span,
                    "'WINDOW_SIZE' should not be set for non-windowed sources, 'WINDOW_TYPE' is missing",
                )),
                None => Ok(None),
            };
        };
        let span = self.span("WINDOW_TYPE");
        let kind = match kind.trim().to_ascii_uppercase().as_str() {
            "SESSION" => WindowKind::Session,
            "HOPPING" => WindowKind::Hopping,
            "TUMBLING" => WindowKind::Tumbling,
            other => {
                return Err(Diagnostic::at(
                    Code::Property,
                    span,
                    format!("configuration WINDOW_TYPE is invalid: unknown window type: {other}"),
                )
                .with_hint("one of SESSION, HOPPING, TUMBLING"));
            }
        };
        let size_ms = match (kind, size) {
            (WindowKind::Session, Some(_)) => {
                return Err(Diagnostic::at(
                    Code::Property,
                    size_span,
                    "'WINDOW_SIZE' should not be set for SESSION windows",
                ));
            }
            (WindowKind::Session, None) => None,
            (_, None) => {
                return Err(Diagnostic::at(
                    Code::Property,
                    span,
                    "tumbling and hopping window types should set 'WINDOW_SIZE' in the WITH clause",
                ));
            }
            (_, Some(text)) => Some(duration(&text).map_err(|why| {
                Diagnostic::at(
                    Code::Property,
                    size_span,
                    format!("configuration WINDOW_SIZE is invalid: Invalid duration: '{text}'. {why}"),
                )
                .with_hint("example valid value: '10 SECONDS'")
            })?),
        };
        Ok(Some(KeyWindow { kind, size_ms }))
    }
}

/// Whether schemas of this format live in a schema registry.
pub(super) fn uses_registry(format: &str) -> bool {
    matches!(format, "AVRO" | "PROTOBUF" | "JSON_SR")
}

fn delimiter(text: &str) -> Option<char> {
    match text {
        "TAB" => return Some('\t'),
        "SPACE" => return Some(' '),
        _ => {}
    }
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Some(c),
        _ => None,
    }
}

/// `30 SECONDS` in milliseconds.
fn duration(text: &str) -> Result<i64, String> {
    let mut words = text.split_whitespace();
    let (Some(amount), Some(unit), None) = (words.next(), words.next(), words.next()) else {
        return Err("expected a number and a time unit".to_owned());
    };
    let amount: i64 = amount.parse().map_err(|_| format!("not a number: '{amount}'"))?;
    let upper = unit.to_ascii_uppercase();
    let unit = IntervalUnit::from_word(&upper).ok_or_else(|| format!("Unknown time unit: '{upper}'"))?;
    amount.checked_mul(unit.millis()).filter(|ms| *ms > 0).ok_or_else(|| "it must be positive".to_owned())
}

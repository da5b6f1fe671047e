//! What PRINT shows of a topic whose formats nobody told: every record as text, and the formats that all records so far
//! could have.

use std::sync::Arc;

use crate::framed::{FramedReader, schema_id};
use crate::json::{Comments, Json};
use crate::number::java_double;
use crate::registered::{SchemaKind, Schemas};
use crate::windowed;

/// A window that comes before 1990 or after 2100 is taken for something else.
const WINDOW_MS: std::ops::Range<i64> = 631_152_000_000..4_102_444_800_000;

/// One guess about bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    Avro,
    JsonSr,
    Protobuf,
    Json,
    Int,
    BigInt,
    Double,
    String,
    Session,
    Window,
    Bytes,
}

impl Candidate {
    /// The order in which they are tried; the first that fits all records is shown.
    const KEY: [Self; 8] =
        [Self::Json, Self::Int, Self::BigInt, Self::Double, Self::Session, Self::Window, Self::String, Self::Bytes];

    fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::JsonSr => "JSON_SR",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
            Self::Int => "KAFKA_INT",
            Self::BigInt => "KAFKA_BIGINT",
            Self::Double => "KAFKA_DOUBLE",
            Self::String => "KAFKA_STRING",
            Self::Session => "SESSION(KAFKA_STRING)",
            Self::Window => "HOPPING(KAFKA_STRING) or TUMBLING(KAFKA_STRING)",
            Self::Bytes => "UNRECOGNISED_BYTES",
        }
    }

    /// The bytes as text, if they can be that.
    fn show(self, bytes: &[u8]) -> Option<String> {
        match self {
            // Only with schemas, in `Guesser::framed`.
            Self::Avro | Self::JsonSr | Self::Protobuf => None,
            Self::Json => {
                let text = std::str::from_utf8(bytes).ok()?;
                // Bare numbers and words are more likely text.
                let json = Json::parse(text, Comments::Refused).ok()?;
                matches!(json, Json::Object(_) | Json::Array(_)).then(|| json.to_string())
            }
            Self::Int => Some(i32::from_be_bytes(bytes.try_into().ok()?).to_string()),
            Self::BigInt => Some(i64::from_be_bytes(bytes.try_into().ok()?).to_string()),
            Self::Double => Some(java_double(f64::from_be_bytes(bytes.try_into().ok()?))),
            Self::String => plain_text(bytes).map(str::to_owned),
            Self::Session => {
                let (inner, start, end) = windowed::read_session_key(bytes)?;
                let fits = !inner.is_empty() && WINDOW_MS.contains(&start) && WINDOW_MS.contains(&end) && start <= end;
                let inner = plain_text(inner)?;
                fits.then(|| format!("[{inner}@{start}/{end}]"))
            }
            Self::Window => {
                let (inner, start) = windowed::read_time_key(bytes)?;
                let inner = plain_text(inner)?;
                (!inner.is_empty() && WINDOW_MS.contains(&start)).then(|| format!("[{inner}@{start}/-]"))
            }
            Self::Bytes => Some(bytes.iter().fold(String::from("0x"), |mut text, b| {
                use std::fmt::Write as _;
                let _ = write!(text, "{b:02x}");
                text
            })),
        }
    }
}

fn plain_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).then_some(text)
}

/// Guesses the format of one side of a topic from its records.
#[derive(Clone, Debug, Default)]
pub struct Guesser {
    /// What fits all records so far; `None` before the first.
    fitting: Option<Vec<Candidate>>,
    mixed: bool,
    framed: Option<Box<FramedReader>>,
}

impl Guesser {
    /// One that knows records with a schema's id in front.
    pub fn with_schemas(schemas: Arc<dyn Schemas>) -> Self {
        Self { framed: Some(Box::new(FramedReader::new(schemas))), ..Self::default() }
    }

    /// A record by the schema that it names, if there is such a schema and it fits.
    fn framed(&mut self, bytes: &[u8]) -> Option<(Candidate, String)> {
        let reader = self.framed.as_mut()?;
        let schema = reader.schemas().schema(schema_id(bytes)?).ok()??;
        let json = reader.read(bytes).ok()?;
        let candidate = match schema.kind() {
            SchemaKind::Avro => Candidate::Avro,
            SchemaKind::Json => Candidate::JsonSr,
            SchemaKind::Protobuf => Candidate::Protobuf,
        };
        Some((candidate, json.to_string()))
    }

    /// The text of a record's key or value, which also narrows the guess.
    pub fn show(&mut self, bytes: Option<&[u8]>) -> String {
        let Some(bytes) = bytes else { return "<null>".to_owned() };
        let framed = self.framed(bytes);
        let is_framed = framed.is_some();
        let plain = Candidate::KEY.iter().filter_map(|&c| Some((c, c.show(bytes)?)));
        let fits: Vec<(Candidate, String)> = framed.into_iter().chain(plain).collect();
        let mut now: Vec<Candidate> = fits.iter().map(|(c, _)| *c).collect();
        if is_framed {
            now.truncate(1);
        } else if now.contains(&Candidate::String) {
            // A number's bytes are hardly ever all letters.
            now.retain(|c| matches!(c, Candidate::Json | Candidate::String));
        } else if now.len() > 1 {
            // Bytes fit everything, so they count only where nothing else does.
            now.retain(|c| *c != Candidate::Bytes);
        }
        let kept = match &self.fitting {
            Some(before) => before.iter().copied().filter(|c| now.contains(c)).collect(),
            None => now.clone(),
        };
        let shown_as = kept.first().or(now.first()).copied();
        if kept.is_empty() {
            self.mixed = true;
        } else {
            self.fitting = Some(kept);
        }
        fits.into_iter().find(|(c, _)| Some(*c) == shown_as).map(|(_, text)| text).unwrap_or_default()
    }

    /// Whether there was anything but NULL.
    pub fn knows(&self) -> bool {
        self.fitting.is_some() || self.mixed
    }

    /// The formats that fit, as `JSON or KAFKA_STRING`.
    pub fn formats(&self) -> String {
        match &self.fitting {
            _ if self.mixed => "MIXED".to_owned(),
            None => "¯\\_(ツ)_/¯ - no data processed".to_owned(),
            Some(fitting) => fitting.iter().map(|c| c.name()).collect::<Vec<_>>().join(" or "),
        }
    }
}

/// One piece of bytes by itself as text.
pub fn show(bytes: Option<&[u8]>) -> String {
    Guesser::default().show(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses() {
        let guess = |records: &[&[u8]]| {
            let mut guesser = Guesser::default();
            let shown: Vec<String> = records.iter().map(|r| guesser.show(Some(r))).collect();
            (guesser.formats(), shown.join("|"))
        };
        let pair = |formats: &str, shown: &str| (formats.to_owned(), shown.to_owned());
        assert_eq!(guess(&[b"{\"a\": 1}", b"[2]"]), pair("JSON or KAFKA_STRING", "{\"a\":1}|[2]"));
        assert_eq!(guess(&[b"{\"a\": 1}", b"x"]), pair("KAFKA_STRING", "{\"a\":1}|x"));
        assert_eq!(guess(&[b"\0\0\0\x07"]), pair("KAFKA_INT", "7"));
        assert_eq!(guess(&[&12345i64.to_be_bytes()]), pair("KAFKA_BIGINT or KAFKA_DOUBLE", "12345"));
        assert_eq!(guess(&[b"\xff\xfe\x00"]), pair("UNRECOGNISED_BYTES", "0xfffe00"));
        assert_eq!(guess(&[b"\0\0\0\x07", b"hi"]).0, "MIXED");
        let mut key = Vec::new();
        windowed::write_time_key(&mut key, b"k", 1_600_000_000_000);
        assert_eq!(guess(&[&key]).1, "[k@1600000000000/-]");
        assert_eq!(show(None), "<null>");
    }
}

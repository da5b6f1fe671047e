//! Schemas as a registry hands them out: parsed once, shared by all who read or write with them; and the frame in front
//! of a record's bytes that names the schema.
//!
//! ```text
//! 00 | id, 4 bytes big-endian | payload
//! ```
//!
//! Not here: subjects, versions, compatibility settings (`registry`). Invariant: a schema's text is bounded, and so is all that is
//! made from it.

use std::fmt::Debug;
use std::sync::Arc;

use millpond_types::{Error, Result};

use crate::avro::AvroSchema;
use crate::json::scan::{Scan, fail};
use crate::json::{Comments, Json};
use crate::protobuf::ProtoSchema;
use crate::protobuf::descriptor::{descriptor_of, text_of};

/// Longest text of a schema, the texts that it refers to included.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// What language a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaKind {
    Avro,
    Json,
    Protobuf,
}

impl SchemaKind {
    /// By the registry's name of it.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name.to_ascii_uppercase().as_str() {
            "AVRO" => Self::Avro,
            "JSON" => Self::Json,
            "PROTOBUF" => Self::Protobuf,
            _ => return Err(Error::bad_request(format!("schema type \"{name}\" is not AVRO, JSON or PROTOBUF"))),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Json => "JSON",
            Self::Protobuf => "PROTOBUF",
        }
    }
}

#[derive(Clone, Debug)]
pub enum Parsed {
    Avro(AvroSchema),
    Json(Json),
    Protobuf(ProtoSchema),
}

/// A schema that has been read.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Its text without what means nothing: two schemas with one text are the same.
    pub text: String,
    pub parsed: Parsed,
}

impl Schema {
    /// Reads a schema. `references` are the names and texts it refers to, each after those that it refers to itself.
    pub fn parse(kind: SchemaKind, text: &str, references: &[(String, String)]) -> Result<Self> {
        let bytes = text.len() + references.iter().map(|(_, text)| text.len()).sum::<usize>();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(Error::bad_request(format!("the schema has {bytes} bytes, more than {SCHEMA_BYTES_MAX}")));
        }
        match kind {
            SchemaKind::Avro => {
                // A primitive may stand without quotes.
                let json = match Json::parse(text, Comments::Refused) {
                    Ok(json) => json,
                    Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase()) => {
                        Json::String(text.to_owned())
                    }
                    Err(e) => return Err(e),
                };
                let parsed = AvroSchema::parse(&json, references)?;
                Ok(Self { text: json.to_string(), parsed: Parsed::Avro(parsed) })
            }
            SchemaKind::Json => {
                let json = Json::parse(text, Comments::Refused)?;
                if !matches!(json, Json::Object(_) | Json::Bool(_)) {
                    return Err(Error::bad_request("a JSON schema is an object, true or false"));
                }
                Ok(Self { text: json.to_string(), parsed: Parsed::Json(json) })
            }
            SchemaKind::Protobuf => {
                // Some clients send it compiled.
                let mut compiled = Vec::new();
                let is_base64 = !text.is_empty()
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                let made;
                let text = if is_base64 && crate::decode_base64(&mut compiled, text.as_bytes()) {
                    made = text_of(&compiled)?;
                    &made
                } else {
                    text
                };
                let parsed = ProtoSchema::parse(text, references)?;
                Ok(Self { text: text.trim().to_owned(), parsed: Parsed::Protobuf(parsed) })
            }
        }
    }

    /// A PROTOBUF schema compiled, as base64 of a file descriptor; `None` for the others.
    pub fn compiled(&self, file: &str) -> Option<String> {
        let Parsed::Protobuf(schema) = &self.parsed else { return None };
        let mut text = Vec::new();
        crate::encode_base64(&mut text, &descriptor_of(schema, file));
        String::from_utf8(text).ok()
    }

    pub fn kind(&self) -> SchemaKind {
        match self.parsed {
            Parsed::Avro(_) => SchemaKind::Avro,
            Parsed::Json(_) => SchemaKind::Json,
            Parsed::Protobuf(_) => SchemaKind::Protobuf,
        }
    }
}

/// Where schemas are found by their id.
pub trait Schemas: Debug + Send + Sync {
    /// `None` where there is no such id.
    fn schema(&self, id: u32) -> Result<Option<Arc<Schema>>>;
}

/// No schemas at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSchemas;

impl Schemas for NoSchemas {
    fn schema(&self, _id: u32) -> Result<Option<Arc<Schema>>> {
        Ok(None)
    }
}

/// The schema that a side is written with, and its id.
#[derive(Clone, Debug)]
pub struct WriterSchema {
    pub id: u32,
    pub schema: Arc<Schema>,
    /// PROTOBUF: the message, by its full name; the first of the schema where none is named.
    pub full_name: Option<String>,
}

/// Bytes of the frame without Protobuf's message indexes.
pub(crate) const FRAME_LEN: usize = 5;

pub(crate) fn write_frame(out: &mut Vec<u8>, id: u32) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

/// The schema's id; the payload begins behind [`FRAME_LEN`] bytes.
#[inline]
pub(crate) fn read_frame(bytes: &[u8]) -> Scan<u32> {
    match (bytes.first_chunk::<FRAME_LEN>(), bytes.first()) {
        (Some([0, id @ ..]), _) => Ok(u32::from_be_bytes(*id)),
        (_, Some(1..)) => fail(0, format!("the first byte is {}, not the 0 in front of a schema's id", bytes[0])),
        _ => fail(0, format!("{} bytes are too few for a schema's id", bytes.len())),
    }
}

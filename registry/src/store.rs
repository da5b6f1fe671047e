//! The registry's entries in the catalog.
//!
//! ```text
//! 01 'r' 's' id:4            schema: type, text, references
//! 01 'r' 'v' subject 00 version:4    id, and whether it is deleted
//! 01 'r' 'c' subject         compatibility; the empty subject is everything
//! 01 'r' 'm' subject         mode
//! 01 'r' 'n'                 next id:4
//! ```
//!
//! Numbers are big-endian; documents are JSON.

use std::sync::Arc;

use millpond_formats::{Json as Text, Parsed, Schema, SchemaKind};
use millpond_types::{Error, Result};
use serde_json::{Value as Json, json};

use crate::compatibility::Compatibility;
use crate::registry::{Mode, Place, Reference, Registered, Registry};

/// A put or delete of one entry.
pub type CatalogWrite = (Vec<u8>, Option<Vec<u8>>);

pub const PREFIX: [u8; 2] = [1, b'r'];

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = PREFIX.to_vec();
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

fn version_key(subject: &str, version: u32) -> Vec<u8> {
    let mut key = key(b'v', subject.as_bytes());
    key.push(0);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

pub fn put_schema(registered: &Registered) -> CatalogWrite {
    let references: Vec<Json> = registered
        .references
        .iter()
        .map(|r| json!({ "name": r.name, "subject": r.subject, "version": r.version }))
        .collect();
    let document = json!({ "type": registered.kind.name(), "schema": registered.text, "references": references });
    (key(b's', &registered.id.to_be_bytes()), Some(document.to_string().into_bytes()))
}

pub fn delete_schema(id: u32) -> CatalogWrite {
    (key(b's', &id.to_be_bytes()), None)
}

pub fn put_version(subject: &str, version: u32, place: Place) -> CatalogWrite {
    let document = json!({ "id": place.id, "deleted": place.deleted });
    (version_key(subject, version), Some(document.to_string().into_bytes()))
}

pub fn delete_version(subject: &str, version: u32) -> CatalogWrite {
    (version_key(subject, version), None)
}

pub fn put_compatibility(subject: &str, level: Compatibility) -> CatalogWrite {
    (key(b'c', subject.as_bytes()), Some(level.name().as_bytes().to_vec()))
}

pub fn delete_compatibility(subject: &str) -> CatalogWrite {
    (key(b'c', subject.as_bytes()), None)
}

pub fn put_mode(subject: &str, mode: Mode) -> CatalogWrite {
    (key(b'm', subject.as_bytes()), Some(mode.name().as_bytes().to_vec()))
}

pub fn delete_mode(subject: &str) -> CatalogWrite {
    (key(b'm', subject.as_bytes()), None)
}

pub fn put_next_id(next: u32) -> CatalogWrite {
    (key(b'n', b""), Some(next.to_be_bytes().to_vec()))
}

/// A schema that cannot be read is kept as it was written: one of them is no reason for everything else to stand still.
fn loaded(id: u32, kind: SchemaKind, text: String, references: Vec<Reference>, parsed: Result<Schema>) -> Registered {
    let (schema, broken) = match parsed {
        Ok(schema) => (schema, None),
        Err(e) => (Schema { text: text.clone(), parsed: Parsed::Json(Text::Bool(true)) }, Some(e.message().to_owned())),
    };
    Registered { id, kind, text, references, schema: Arc::new(schema), broken }
}

pub fn load<'a>(registry: &mut Registry, entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<()> {
    let mut raw: Vec<(u32, SchemaKind, String, Vec<Reference>)> = Vec::new();
    for (key, bytes) in entries {
        let damaged = || Error::corrupt(format!("entry {key:?} of the schema registry is damaged"));
        let Some(rest) = key.strip_prefix(&PREFIX) else { continue };
        let Some((kind, rest)) = rest.split_first() else { continue };
        let document = || serde_json::from_slice::<Json>(bytes).map_err(|_| damaged());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| damaged());
        match kind {
            b's' => {
                let id = u32::from_be_bytes(rest.try_into().map_err(|_| damaged())?);
                let document = document()?;
                let reference = |r: &Json| {
                    Some(Reference {
                        name: r["name"].as_str()?.to_owned(),
                        subject: r["subject"].as_str()?.to_owned(),
                        version: u32::try_from(r["version"].as_u64()?).ok()?,
                    })
                };
                let list = document["references"].as_array().ok_or_else(damaged)?;
                let references = list.iter().map(reference).collect::<Option<Vec<_>>>().ok_or_else(damaged)?;
                let kind = SchemaKind::parse(document["type"].as_str().ok_or_else(damaged)?)?;
                raw.push((id, kind, document["schema"].as_str().ok_or_else(damaged)?.to_owned(), references));
            }
            b'v' => {
                let at = rest.len().checked_sub(5).ok_or_else(damaged)?;
                let (subject, version) = rest.split_at(at);
                let version = u32::from_be_bytes(version[1..].try_into().map_err(|_| damaged())?);
                let document = document()?;
                let id = document["id"].as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(damaged)?;
                let place = Place { id, deleted: document["deleted"].as_bool().ok_or_else(damaged)? };
                registry.put_place(&text(subject)?, version, place);
            }
            b'c' => {
                let level = Compatibility::parse(&text(bytes)?).ok_or_else(damaged)?;
                registry.compatibility.insert(text(rest)?.into(), level);
            }
            b'm' => {
                let mode = Mode::parse(&text(bytes)?).ok_or_else(damaged)?;
                registry.modes.insert(text(rest)?.into(), mode);
            }
            b'n' => registry.next_id = u32::from_be_bytes(bytes.try_into().map_err(|_| damaged())?),
            _ => {}
        }
    }
    // A schema is read after those that it refers to: mostly, but not always, they have lower ids.
    while !raw.is_empty() {
        let before = raw.len();
        let mut open = Vec::new();
        for (id, kind, schema_text, references) in raw {
            match registry.texts(&references) {
                Ok(texts) => {
                    let parsed = Schema::parse(kind, &schema_text, &texts);
                    registry.insert(loaded(id, kind, schema_text, references, parsed));
                }
                Err(_) => open.push((id, kind, schema_text, references)),
            }
        }
        if open.len() == before {
            for (id, kind, text, references) in open {
                let missing = Error::corrupt("it refers to schemas that are not there");
                registry.insert(loaded(id, kind, text, references, Err(missing)));
            }
            break;
        }
        raw = open;
    }
    Ok(())
}

//! The schema registry's part of a case: what is registered before the statements, and records by their schemas.
//!
//! As ksqlDB's runner does it, nothing is held against the compatibility of subjects, and topics of CREATE statements come
//! first, so that ids are those that cases expect.

use std::collections::BTreeSet;
use std::sync::Arc;

use millpond_engine::Engine;
use millpond_engine::schemas::subject_of;
use millpond_engine::serdes;
use millpond_formats::json::Json;
use millpond_formats::{
    EncodeOptions, Encoded, Encoder, Format, Naming, Nullable, Schema, SchemaKind, Schemas, Side, WriterSchema,
    columns_of, framed_to_json, key_record_name, schema_for, value_from_json,
};
use millpond_registry::{Compatibility, Mode, NewSchema, Reference};
use millpond_sql::analyse::resolve_type_with;
use millpond_sql::plan::{FormatSpec, SourceInfo};
use millpond_sql::syntax::{ColumnRole, CreateSource, Literal, Statement};
use millpond_types::Field;
use millpond_types::value::array_from_values;

use super::compare::show;
use super::file::{Case, Topic, TopicSchema};

/// Ids of schemas that only others refer to, out of the way of all others.
const REFERENCE_ID_MIN: u32 = 1_000_000;

fn add(engine: &Engine, subject: &str, new: &NewSchema) -> Result<(), String> {
    engine
        .change_schemas(|registry| registry.register(subject, new).map(|(change, ..)| (change, ())))
        .map_err(|e| format!("schema of subject \"{subject}\": {e:?}"))
}

pub fn register(case: &Case, engine: &Engine) -> Result<(), String> {
    engine
        .change_schemas(|r| Ok((Some(r.set_compatibility("", Some(Compatibility::None))?), ())))
        .map_err(|e| format!("{e:?}"))?;
    let mut statements = Vec::new();
    for text in &case.statements {
        for parsed in millpond_sql::parse(text).unwrap_or_default() {
            if let Statement::CreateSource(create) = parsed.statement {
                statements.push(create);
            }
        }
    }
    let mut done = BTreeSet::new();
    for create in &statements {
        let Some(topic) = property(create, "KAFKA_TOPIC") else { continue };
        if !done.insert(topic.clone()) {
            continue;
        }
        let given = case.topics.iter().find(|t| t.name == topic);
        for side in [Side::Key, Side::Value] {
            match given.and_then(|t| schema_of(t, side)) {
                Some(schema) => put(engine, &subject_of(&topic, side), schema)?,
                None => {
                    if let Some(new) = declared(create, side) {
                        add(engine, &subject_of(&topic, side), &new)?;
                    }
                }
            }
        }
    }
    for topic in case.topics.iter().filter(|t| !done.contains(&t.name)) {
        for side in [Side::Key, Side::Value] {
            if let Some(schema) = schema_of(topic, side) {
                put(engine, &subject_of(&topic.name, side), schema)?;
            }
        }
    }
    Ok(())
}

fn schema_of(topic: &Topic, side: Side) -> Option<&TopicSchema> {
    match side {
        Side::Key => topic.key_schema.as_ref(),
        Side::Value => topic.value_schema.as_ref(),
    }
}

fn put(engine: &Engine, subject: &str, schema: &TopicSchema) -> Result<(), String> {
    let mut references = Vec::new();
    for (i, (name, text)) in schema.references.iter().enumerate() {
        let id = Some(REFERENCE_ID_MIN + i as u32);
        set_mode(engine, name, Some(Mode::Import))?;
        add(engine, name, &NewSchema { id, ..NewSchema::new(schema.kind, text.clone()) })?;
        references.push(Reference { name: name.clone(), subject: name.clone(), version: 1 });
    }
    if schema.id.is_some() {
        set_mode(engine, subject, Some(Mode::Import))?;
    } else if !references.is_empty() {
        // The ids go on where they were.
        set_mode(engine, subject, Some(Mode::Import))?;
        let next = engine.schemas().now().size().0 as u32 - references.len() as u32 + 1;
        let new = NewSchema { id: Some(next), references, ..NewSchema::new(schema.kind, schema.text.clone()) };
        add(engine, subject, &new)?;
        return set_mode(engine, subject, None);
    }
    let new = NewSchema { id: schema.id, references, ..NewSchema::new(schema.kind, schema.text.clone()) };
    add(engine, subject, &new)?;
    if schema.id.is_some() {
        set_mode(engine, subject, None)?;
    }
    Ok(())
}

fn set_mode(engine: &Engine, subject: &str, mode: Option<Mode>) -> Result<(), String> {
    engine
        .change_schemas(|r| r.set_mode(subject, mode, true).map(|change| (Some(change), ())))
        .map_err(|e| format!("{e:?}"))
}

fn property(create: &CreateSource, name: &str) -> Option<String> {
    match &create.properties.get(name)?.node {
        Literal::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The schema of the columns that a statement declares for a side.
fn declared(create: &CreateSource, side: Side) -> Option<NewSchema> {
    let prefix = if side == Side::Key { "KEY_" } else { "VALUE_" };
    let of = |name: &str| property(create, &format!("{prefix}{name}"));
    let format = of("FORMAT").or_else(|| property(create, "FORMAT"))?;
    let format = Format::parse(&format).ok().filter(Format::uses_schema_registry)?;
    let columns = create.columns.iter().filter(|c| match c.role.node {
        ColumnRole::Key | ColumnRole::PrimaryKey => side == Side::Key,
        ColumnRole::Value => side == Side::Value,
        _ => false,
    });
    let columns: Vec<Field> = columns
        .map(|c| Some(Field::new(c.name.as_str(), resolve_type_with(&c.ty, &|_| None).ok()?)))
        .collect::<Option<_>>()?;
    if columns.is_empty() {
        return None;
    }
    let wrap = property(create, "WRAP_SINGLE_VALUE").map(|w| w.eq_ignore_ascii_case("true"));
    let nullable = match of("PROTOBUF_NULLABLE_REPRESENTATION").as_deref() {
        Some("OPTIONAL") => Nullable::Optional,
        Some("WRAPPER") => Nullable::Wrapper,
        _ => Nullable::Unset,
    };
    let is_avro_key = side == Side::Key && format == Format::Avro;
    let naming = Naming {
        full_name: of("SCHEMA_FULL_NAME").or_else(|| is_avro_key.then(|| key_record_name(create.name.as_str()))),
        unwrap: format.unwraps(side, &columns, wrap.filter(|_| side == Side::Value), None).ok()?,
        nullable,
    };
    let schema = schema_for(format, &columns, &naming).ok()?;
    Some(NewSchema::new(schema.kind(), schema.text))
}

pub fn has_schema(spec: &FormatSpec) -> bool {
    serdes::format_of(spec).is_ok_and(|f| f.uses_schema_registry())
}

/// A case's JSON as the bytes that a producer with the topic's schema would write; `None` where the side has no schema.
pub fn to_bytes(
    engine: &Engine,
    source: &SourceInfo,
    side: Side,
    json: &Json,
) -> Result<Option<Option<Vec<u8>>>, String> {
    let spec = if side == Side::Key { &source.key_format } else { &source.value_format };
    if !has_schema(spec) {
        return Ok(None);
    }
    if json.is_null() {
        return Ok(Some(None));
    }
    let registry = engine.schemas().now();
    let given = spec.properties.iter().find(|(name, _)| name.ends_with("_SCHEMA_ID") && !name.starts_with("WRITER"));
    let registered = match given.and_then(|(_, id)| id.parse().ok()) {
        Some(id) => registry.by_id(id).map_err(|e| e.to_string())?.clone(),
        None => {
            registry.version(&subject_of(&source.topic, side), "latest", false).map_err(|e| e.to_string())?.registered
        }
    };
    let format = serdes::format_of(spec).map_err(|e| e.to_string())?;
    let full_name = spec.properties.iter().find(|(name, _)| name.ends_with("SCHEMA_FULL_NAME")).map(|(_, v)| v.clone());
    let writer = WriterSchema { id: registered.id, schema: registered.schema.clone(), full_name };
    encode(format, &writer, json).map(Some)
}

fn encode(format: Format, writer: &WriterSchema, json: &Json) -> Result<Option<Vec<u8>>, String> {
    if format == Format::JsonSr {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&writer.id.to_be_bytes());
        json.write(&mut bytes);
        return Ok(Some(bytes));
    }
    let text = |e: millpond_types::Error| e.to_string();
    let record = columns_of(&writer.schema, Side::Value, false, true, writer.full_name.as_deref());
    let (columns, unwrap) = match record {
        Ok(columns) => (columns, false),
        Err(_) => (columns_of(&writer.schema, Side::Value, true, true, None).map_err(text)?, true),
    };
    let mut arrays = Vec::new();
    for column in &columns {
        let json = match json {
            // The column's own JSON, which some cases write as a member all the same.
            Json::Object(members) if unwrap && members.len() == 1 && column.ty.is_primitive() => &members[0].1,
            other if unwrap => other,
            Json::Object(members) => super::run::member(members, &column.name),
            other => return Err(format!("{} is not a record", show(other))),
        };
        let value = value_from_json(json, &column.ty).map_err(text)?;
        arrays.push(array_from_values(&column.ty, &[value]).map_err(text)?);
    }
    let options = EncodeOptions { side: Side::Value, unwrap_single: unwrap };
    let encoder = Encoder::new(format, &columns, options).and_then(|e| e.with_schema(writer)).map_err(text)?;
    let mut encoded = Encoded::default();
    encoder.encode(1, &arrays, None, &mut encoded).map_err(text)?;
    Ok(encoded.get(0).map(<[u8]>::to_vec))
}

/// A record as its schema has it.
pub fn to_json(engine: &Engine, bytes: &[u8]) -> Result<Json, String> {
    let schemas: Arc<dyn Schemas> = engine.schemas().clone();
    framed_to_json(bytes, &schemas).map_err(|e| e.to_string())
}

/// Holds a topic's registered schemas against those that a case expects.
pub fn compare(engine: &Engine, expected: &Json, topic: &str) -> Result<(), String> {
    let registry = engine.schemas().now();
    for (member, side) in [("keySchema", Side::Key), ("valueSchema", Side::Value)] {
        let Some(wanted) = expected.get(member).filter(|s| !s.is_null()) else { continue };
        let subject = subject_of(topic, side);
        let found = registry.version(&subject, "latest", false).map_err(|e| e.to_string())?.registered;
        let same = match (found.kind, wanted) {
            (SchemaKind::Protobuf, Json::String(text)) => {
                let bare = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                bare(text) == bare(&found.text)
            }
            (kind, wanted) => {
                let read = |text: &str| Schema::parse(kind, text, &[]).map(|s| sorted(&s.text));
                match (read(&wanted.to_string()), read(&found.text)) {
                    (Ok(a), Ok(b)) => a == b,
                    _ => false,
                }
            }
        };
        if !same {
            return Err(format!("schema of subject \"{subject}\": expected {}, is {}", show(wanted), found.text));
        }
    }
    Ok(())
}

/// A JSON text with its members in the order of their names.
fn sorted(text: &str) -> String {
    fn sort(json: &mut Json) {
        match json {
            Json::Array(items) => items.iter_mut().for_each(sort),
            Json::Object(members) => {
                members.sort_by(|a, b| a.0.cmp(&b.0));
                members.iter_mut().for_each(|(_, value)| sort(value));
            }
            _ => {}
        }
    }
    let parsed = Json::parse(text, millpond_formats::json::Comments::Refused);
    parsed.map_or_else(
        |_| text.to_owned(),
        |mut json| {
            sort(&mut json);
            json.to_string()
        },
    )
}

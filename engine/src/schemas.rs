//! The schema registry as statements and queries use it: which schema a topic's columns come from, which one records are
//! written with, and that both are there when a statement has succeeded.
//!
//! Not here: the registry's rules (`registry`), reading and writing by schemas (`formats`).
//! Invariants: the snapshot is replaced only after the commit that wrote the same change; a schema that a statement
//! registers is committed together with what the statement makes.

use std::sync::Arc;

use millpond_formats::{
    Encoder, Format, Naming, Nullable, Schema, SchemaKind, Schemas, Side, WriterSchema, columns_of, key_record_name,
    schema_for,
};
use millpond_registry::{Change, Checked, Limits, NewSchema, Problem as Refusal, Registered, Registry};
use millpond_sql::plan::{FormatSpec, SourceInfo};
use millpond_types::access::Right;
use millpond_types::ports::{Step, TopicLog};
use millpond_types::{Error, Field, Result};
use parking_lot::RwLock;

use crate::catalog;
use crate::engine::Engine;
use crate::serdes;
use crate::session::Session;

/// The property of a format that holds the id of the schema that records are written with.
pub(crate) const WRITER_ID: &str = "WRITER_SCHEMA_ID";

/// How often a schema is compared with a subject that changes meanwhile; then the subject is held still.
const REGISTER_TRIES: usize = 8;

/// The registry's snapshot of now.
#[derive(Debug, Default)]
pub struct SchemaStore {
    now: RwLock<Arc<Registry>>,
}

impl SchemaStore {
    pub(crate) fn load(storage: &dyn TopicLog) -> Result<Self> {
        let entries = storage.catalog(&catalog::registry_prefix())?;
        let entries = entries.iter().map(|(key, value)| (key.as_slice(), value.as_ref()));
        let registry = Registry::load(Limits::default(), entries)?;
        for (id, why) in registry.broken() {
            tracing::error!(id, why, "a schema of the registry cannot be read");
        }
        Ok(Self { now: RwLock::new(Arc::new(registry)) })
    }

    pub fn now(&self) -> Arc<Registry> {
        self.now.read().clone()
    }

    pub(crate) fn install(&self, registry: Registry) {
        *self.now.write() = Arc::new(registry);
    }
}

impl Schemas for SchemaStore {
    fn schema(&self, id: u32) -> Result<Option<Arc<Schema>>> {
        self.now.read().schema(id)
    }
}

/// A side's subject.
pub fn subject_of(topic: &str, side: Side) -> String {
    match side {
        Side::Key => format!("{topic}-key"),
        Side::Value => format!("{topic}-value"),
    }
}

fn prefixed(side: Side, name: &str) -> String {
    match side {
        Side::Key => format!("KEY_{name}"),
        Side::Value => format!("VALUE_{name}"),
    }
}

/// The name of the record or message that the WITH clause gives.
pub(crate) fn full_name(spec: &FormatSpec, side: Side) -> Option<&str> {
    let own = spec.properties.get(&prefixed(side, "SCHEMA_FULL_NAME"));
    own.or_else(|| spec.properties.get("VALUE_AVRO_SCHEMA_FULL_NAME").filter(|_| side == Side::Value))
        .map(String::as_str)
}

/// The id that the WITH clause gives.
fn given_id(spec: &FormatSpec, side: Side) -> Option<u32> {
    spec.properties.get(&prefixed(side, "SCHEMA_ID"))?.parse().ok()
}

/// The id that an earlier statement has found or made.
fn kept_id(spec: &FormatSpec) -> Option<u32> {
    spec.properties.get(WRITER_ID)?.parse().ok()
}

/// The schema that a side is written with, where one is known.
pub(crate) fn writer_of(spec: &FormatSpec, side: Side, schemas: &dyn Schemas) -> Result<Option<WriterSchema>> {
    let Some(id) = kept_id(spec).or_else(|| given_id(spec, side)) else { return Ok(None) };
    let schema = schemas.schema(id)?.ok_or_else(|| Error::not_found(format!("there is no schema with id {id}")))?;
    Ok(Some(WriterSchema { id, schema, full_name: full_name(spec, side).map(str::to_owned) }))
}

/// Columns of a side that a statement leaves out, as the registry has them.
#[derive(Debug)]
pub(crate) enum Inferred {
    Columns(Vec<Field>, u32),
    /// There is no such schema.
    Missing,
}

/// The columns of a topic's side after its schema: that of the WITH clause, else the latest of the subject.
pub(crate) fn infer(registry: &Registry, topic: &str, side: Side, spec: &FormatSpec, unwrap: bool) -> Result<Inferred> {
    let format = Format::parse(&spec.name)?;
    let given = given_id(spec, side);
    let registered: Arc<Registered> = match given {
        Some(id) => match registry.by_id(id) {
            Ok(found) => found.clone(),
            Err(_) => return Ok(Inferred::Missing),
        },
        None => match registry.version(&subject_of(topic, side), "latest", false) {
            Ok(found) => found.registered,
            Err(_) => return Ok(Inferred::Missing),
        },
    };
    if let Some(why) = &registered.broken {
        return Err(Error::corrupt(format!("the schema with id {} cannot be read: {why}", registered.id)));
    }
    if SchemaKind::of(format) != Some(registered.kind) {
        let what = if side == Side::Key { "key" } else { "value" };
        return Err(Error::bad_request(format!(
            "{what} schema is not in the expected format. You may want to set {what}_format to match: expected {}, but the \
             schema with id {} is {}",
            spec.name,
            registered.id,
            registered.kind.name()
        )));
    }
    let unwrap = unwrap && format.can_unwrap();
    match columns_of(&registered.schema, side, unwrap, given.is_some(), full_name(spec, side)) {
        Ok(columns) => Ok(Inferred::Columns(columns, registered.id)),
        Err(e) if e.kind() == millpond_types::ErrorKind::NotFound => Ok(Inferred::Missing),
        Err(e) => Err(e),
    }
}

/// The topic that a subject is of.
pub fn topic_of(subject: &str) -> &str {
    subject.strip_suffix("-key").or_else(|| subject.strip_suffix("-value")).unwrap_or(subject)
}

/// Refused where a session may not see the schema that a side's columns would come from.
pub(crate) fn check_seen(engine: &Engine, session: &Session, topic: &str, side: Side, spec: &FormatSpec) -> Result<()> {
    match given_id(spec, side) {
        None => session.check_topic(Right::Describe, topic),
        Some(id) => {
            let places = engine.schemas().now().versions_of(id, true);
            let seen = places.iter().any(|(subject, _)| session.may_see(topic_of(subject)));
            if seen { Ok(()) } else { session.check_cluster(Right::Describe) }
        }
    }
}

/// What a statement wants of the schemas of a source's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Columns were declared for a topic: they get a schema where its subject has none.
    Declared,
    /// A query writes: its columns' schema must be, or become, a version of the subject.
    Sink,
    /// Rows are to be written into what was declared: after the latest schema if they fit, else after their own.
    Insert,
}

/// Schemas that were read and held against their subjects before the catalog is held still for a statement.
pub(crate) type Ahead = Vec<(String, NewSchema, Checked)>;

/// What a source's side needs.
enum Need {
    Nothing,
    /// The schema that its rows are written with is there; `None`: any is good.
    There(Option<u32>),
    Register(String, NewSchema),
}

fn need(registry: &Registry, source: &SourceInfo, side: Side, purpose: Purpose) -> Result<Need> {
    let fields = match side {
        Side::Key => serdes::fields(source.schema.keys()),
        Side::Value => serdes::fields(source.schema.values()),
    };
    let spec = if side == Side::Key { &source.key_format } else { &source.value_format };
    let kept = kept_id(spec).is_some_and(|id| registry.by_id(id).is_ok());
    if !serdes::format_of(spec)?.uses_schema_registry() || fields.is_empty() || kept {
        return Ok(Need::Nothing);
    }
    if let Some(id) = given_id(spec, side) {
        registry.by_id(id)?;
        return Ok(Need::There(Some(id)));
    }
    let subject = subject_of(&source.topic, side);
    let latest = registry.version(&subject, "latest", false).ok();
    match (purpose, latest) {
        (Purpose::Declared, Some(_)) => Ok(Need::There(None)),
        (Purpose::Insert, Some(latest)) if fits(spec, side, &fields, &latest.registered) => {
            Ok(Need::There(Some(latest.registered.id)))
        }
        _ => Ok(Need::Register(subject, schema_of(spec, side, &source.name, &fields)?)),
    }
}

/// The work of `prepare` that takes long, while others go on. What is wrong is told by `prepare`.
pub(crate) fn check_ahead(engine: &Engine, source: &SourceInfo, purpose: Purpose) -> Ahead {
    let registry = engine.schemas().now();
    let check = |side| match need(&registry, source, side, purpose) {
        Ok(Need::Register(subject, new)) => {
            let checked = registry.check(&subject, &new).ok()?;
            Some((subject, new, checked))
        }
        _ => None,
    };
    [Side::Key, Side::Value].into_iter().filter_map(check).collect()
}

/// The schemas that a source needs, registered: their ids become part of its formats. Returns what is to be committed.
pub(crate) fn prepare(
    engine: &Engine,
    source: &mut SourceInfo,
    purpose: Purpose,
    ahead: &Ahead,
) -> Result<Option<Change>> {
    let mut change: Option<Change> = None;
    let now = engine.schemas().now();
    for side in [Side::Key, Side::Value] {
        let registry = change.as_ref().map_or(&*now, |c| &c.registry);
        let id = match need(registry, source, side, purpose)? {
            Need::Nothing => continue,
            Need::There(id) => id,
            Need::Register(subject, new) => {
                let same = |(s, n, checked): &&(String, NewSchema, Checked)| {
                    (s, n.kind, &n.text) == (&subject, new.kind, &new.text) && registry.is_checked(s, n, checked)
                };
                let registered = match ahead.iter().find(same) {
                    Some((_, _, checked)) => registry.register_checked(&subject, &new, checked),
                    None => registry.register(&subject, &new),
                };
                let (next, id, _) = registered.map_err(|e| refused(&source.topic, e))?;
                if let Some(next) = next {
                    change = Some(match change {
                        Some(before) => before.then(next),
                        None => next,
                    });
                }
                Some(id)
            }
        };
        let spec = if side == Side::Key { &mut source.key_format } else { &mut source.value_format };
        match id {
            Some(id) => spec.properties.insert(WRITER_ID.to_owned(), id.to_string()),
            None => spec.properties.remove(WRITER_ID),
        };
    }
    Ok(change)
}

fn refused(topic: &str, problem: Refusal) -> Error {
    let kind = Error::from(problem.clone()).kind();
    Error::new(kind, format!("Could not register schema for topic '{topic}': {problem}"))
}

fn fits(spec: &FormatSpec, side: Side, fields: &[Field], registered: &Registered) -> bool {
    if registered.broken.is_some() {
        return false;
    }
    let full_name = full_name(spec, side).map(str::to_owned);
    let writer = WriterSchema { id: registered.id, schema: registered.schema.clone(), full_name };
    serdes::plain_encoder(spec, side, fields).and_then(|e: Encoder| e.with_schema(&writer)).is_ok()
}

/// The schema of columns, as ksqlDB makes it.
pub(crate) fn schema_of(spec: &FormatSpec, side: Side, source: &str, fields: &[Field]) -> Result<NewSchema> {
    let format = serdes::format_of(spec)?;
    let nullable = spec.properties.get(&prefixed(side, "PROTOBUF_NULLABLE_REPRESENTATION"));
    let nullable = match nullable.map(|n| n.to_uppercase()).as_deref() {
        Some("OPTIONAL") => Nullable::Optional,
        Some("WRAPPER") => Nullable::Wrapper,
        _ => Nullable::Unset,
    };
    let named = full_name(spec, side).map(str::to_owned);
    let naming = Naming {
        full_name: named.or_else(|| (side == Side::Key && format == Format::Avro).then(|| key_record_name(source))),
        unwrap: format.unwraps(side, fields, None, spec.wrap_single)?,
        nullable,
    };
    let schema = schema_for(format, fields, &naming)?;
    Ok(NewSchema::new(schema.kind(), schema.text))
}

/// The source as a row is inserted into it: values are written after the topic's latest schema where they fit it. Keys keep
/// theirs, as its id decides their partition.
pub(crate) fn with_latest(engine: &Engine, source: Arc<SourceInfo>) -> Result<Arc<SourceInfo>> {
    let spec = &source.value_format;
    let fields = serdes::fields(source.schema.values());
    let follows = serdes::format_of(spec)?.uses_schema_registry() && !fields.is_empty();
    if !follows || given_id(spec, Side::Value).is_some() {
        return Ok(source);
    }
    let Ok(latest) = engine.schemas().now().version(&subject_of(&source.topic, Side::Value), "latest", false) else {
        return Ok(source);
    };
    let latest = latest.registered;
    if kept_id(spec) == Some(latest.id) || !fits(spec, Side::Value, &fields, &latest) {
        return Ok(source);
    }
    let mut source = source.as_ref().clone();
    source.value_format.properties.insert(WRITER_ID.to_owned(), latest.id.to_string());
    Ok(Arc::new(source))
}

impl Engine {
    pub fn schemas(&self) -> &Arc<SchemaStore> {
        &self.0.schemas
    }

    /// Changes the registry: `change` sees the snapshot of now, and what it gives is durable when this returns. Blocks.
    pub fn change_schemas<T>(
        &self,
        change: impl FnOnce(&Registry) -> std::result::Result<(Option<Change>, T), Refusal>,
    ) -> std::result::Result<T, SchemaError> {
        let _guard = self.0.change.lock();
        let now = self.schemas().now();
        let (change, answer) = change(&now).map_err(SchemaError::Refused)?;
        if let Some(change) = change {
            self.check_unused(&now, &change.registry).map_err(SchemaError::Refused)?;
            self.commit_schemas(change).map_err(SchemaError::Failed)?;
        }
        Ok(answer)
    }

    /// Registers a schema in a subject and returns its id. It is read and compared while others go on: what was found holds
    /// as long as the subject is as it was. Blocks.
    pub fn register_schema(&self, subject: &str, new: &NewSchema) -> std::result::Result<u32, SchemaError> {
        for _ in 0..REGISTER_TRIES {
            let checked = self.schemas().now().check(subject, new).map_err(SchemaError::Refused)?;
            let registered = self.change_schemas(|registry| {
                if !registry.is_checked(subject, new, &checked) {
                    return Ok((None, None));
                }
                let (change, id, _) = registry.register_checked(subject, new, &checked)?;
                Ok((change, Some(id)))
            })?;
            if let Some(id) = registered {
                return Ok(id);
            }
        }
        self.change_schemas(|registry| registry.register(subject, new).map(|(change, id, _)| (change, id)))
    }

    /// Refused where a schema goes that rows of a source are written with: nobody could read them.
    fn check_unused(&self, before: &Registry, after: &Registry) -> std::result::Result<(), Refusal> {
        for source in self.catalog().sources.values() {
            for id in [&source.key_format, &source.value_format].into_iter().filter_map(kept_id) {
                if before.by_id(id).is_ok() && after.by_id(id).is_err() {
                    let message = format!("Schema {id} is what rows of \"{}\" are written with.", source.name);
                    return Err(Refusal { code: 42206, message });
                }
            }
        }
        Ok(())
    }

    /// The caller holds `change`.
    fn commit_schemas(&self, change: Change) -> Result<()> {
        let step = Step { catalog: change.writes, ..Step::default() };
        self.commit(step, |_| self.0.schemas.install(change.registry))?;
        Ok(())
    }

    /// A source that rows can be written into: the schemas for it are there. The caller holds `change`.
    pub(crate) fn writable(&self, source: &Arc<SourceInfo>) -> Result<Arc<SourceInfo>> {
        let mut wanted = source.as_ref().clone();
        let change = prepare(self, &mut wanted, Purpose::Insert, &Ahead::new())?;
        if wanted == **source {
            return Ok(source.clone());
        }
        let mut step = Step { catalog: vec![catalog::put_source(&wanted)], ..Step::default() };
        let registry = change.map(|change| {
            step.catalog.extend(change.writes);
            change.registry
        });
        let wanted = Arc::new(wanted);
        self.commit(step, |catalog| {
            catalog.sources.insert(wanted.name.clone(), wanted.clone());
            if let Some(registry) = registry {
                self.0.schemas.install(registry);
            }
        })?;
        Ok(wanted)
    }
}

/// Why the registry was not changed.
#[derive(Debug)]
pub enum SchemaError {
    Refused(Refusal),
    Failed(Error),
}

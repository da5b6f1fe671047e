//! Subjects, versions, ids.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use millpond_formats::json::{Comments, Json};
use millpond_formats::{Schema, SchemaKind, Schemas};
use millpond_types::{Error, Result as TypesResult};

use crate::compatibility::{Compatibility, incompatibilities};
use crate::problem::Problem;
use crate::sorted::Sorted;
use crate::store::{self, CatalogWrite};

/// What everything together may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub schemas_max: usize,
    pub subjects_max: usize,
    /// Versions of one subject, deleted ones included.
    pub versions_max: usize,
    /// Texts of all schemas.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { schemas_max: 50_000, subjects_max: 50_000, versions_max: 10_000, bytes_max: 64 << 20 }
    }
}

const SUBJECT_LEN_MAX: usize = 1024;
/// Most clients have ids and versions in 32 bits with a sign.
const NUMBER_MAX: u32 = i32::MAX as u32;
const REFERENCES_MAX: usize = 100;
/// Texts that a schema refers to, those that they refer to included.
const REFERENCES_ALL_MAX: usize = 1000;

/// A schema that another one refers to by a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    pub name: String,
    pub subject: String,
    pub version: u32,
}

/// A schema to be registered or looked for.
#[derive(Clone, Debug)]
pub struct NewSchema {
    pub kind: SchemaKind,
    pub text: String,
    pub references: Vec<Reference>,
    /// Only in mode IMPORT.
    pub id: Option<u32>,
    pub version: Option<u32>,
}

impl NewSchema {
    pub fn new(kind: SchemaKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), references: Vec::new(), id: None, version: None }
    }

    /// The same schema in a form that does not tell how it was written: members by name, types that need no braces without.
    pub fn normalised(self) -> Self {
        let text = match (self.kind, Json::parse(&self.text, Comments::Refused)) {
            (SchemaKind::Avro, Ok(mut json)) => {
                normalise_avro(&mut json);
                json.to_string()
            }
            (SchemaKind::Json, Ok(mut json)) => {
                normalise_json(&mut json);
                json.to_string()
            }
            _ => self.text,
        };
        Self { text, ..self }
    }
}

/// Only what the language gives a meaning to: defaults and the like stay as they are.
fn normalise_avro(json: &mut Json) {
    match json {
        Json::Array(branches) => branches.iter_mut().for_each(normalise_avro),
        Json::Object(members) => {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            for (name, value) in members.iter_mut() {
                match (name.as_str(), value) {
                    ("type" | "items" | "values", ty) => normalise_avro(ty),
                    ("fields", Json::Array(fields)) => fields.iter_mut().for_each(|field| {
                        let Json::Object(members) = field else { return };
                        members.sort_by(|a, b| a.0.cmp(&b.0));
                        members.iter_mut().filter(|(name, _)| name == "type").for_each(|(_, ty)| normalise_avro(ty));
                    }),
                    _ => {}
                }
            }
            if let [(name, ty @ Json::String(_))] = members.as_slice()
                && name == "type"
            {
                *json = ty.clone();
            }
        }
        _ => {}
    }
}

/// As `normalise_avro`. Properties stay in their order, which is that of columns.
fn normalise_json(json: &mut Json) {
    let Json::Object(members) = json else { return };
    members.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in members.iter_mut() {
        match (name.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                Json::Object(schemas),
            ) => schemas.iter_mut().for_each(|(_, schema)| normalise_json(schema)),
            ("allOf" | "anyOf" | "oneOf" | "items" | "prefixItems", Json::Array(schemas)) => {
                schemas.iter_mut().for_each(normalise_json);
            }
            (
                "items"
                | "additionalItems"
                | "additionalProperties"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contains"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties",
                schema,
            ) => normalise_json(schema),
            _ => {}
        }
    }
}

/// A schema with its id.
#[derive(Clone, Debug)]
pub struct Registered {
    pub id: u32,
    pub kind: SchemaKind,
    pub text: String,
    pub references: Vec<Reference>,
    /// What allows anything where the text cannot be read.
    pub schema: Arc<Schema>,
    /// Why the text cannot be read: it is kept, but nothing is read or written with it.
    pub broken: Option<String>,
}

/// One version of a subject.
#[derive(Clone, Debug)]
pub struct SubjectVersion {
    pub subject: String,
    pub version: u32,
    pub deleted: bool,
    pub registered: Arc<Registered>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    ReadWrite,
    ReadOnly,
    ReadOnlyOverride,
    Import,
}

impl Mode {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "READWRITE" => Self::ReadWrite,
            "READONLY" => Self::ReadOnly,
            "READONLY_OVERRIDE" => Self::ReadOnlyOverride,
            "IMPORT" => Self::Import,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "READWRITE",
            Self::ReadOnly => "READONLY",
            Self::ReadOnlyOverride => "READONLY_OVERRIDE",
            Self::Import => "IMPORT",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub id: u32,
    pub deleted: bool,
}

/// The versions of a subject.
pub(crate) type Places = Sorted<u32, Place>;

/// Everything at one moment. A copy shares what does not change.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    limits: Limits,
    pub(crate) schemas: Sorted<u32, Arc<Registered>>,
    /// Schemas by the hash of what tells them apart, then by id: texts are kept once.
    ids: Sorted<(u64, u32), ()>,
    hasher: RandomState,
    bytes: usize,
    pub(crate) subjects: Sorted<Arc<str>, Places>,
    /// Where a schema is.
    uses: Sorted<(u32, Arc<str>, u32), ()>,
    /// The empty name is everything's.
    pub(crate) compatibility: Sorted<Arc<str>, Compatibility>,
    pub(crate) modes: Sorted<Arc<str>, Mode>,
    pub(crate) next_id: u32,
}

/// A schema that has been read and held against a subject's versions as they were in some snapshot.
#[derive(Debug)]
pub struct Checked {
    schema: Arc<Schema>,
    references: Vec<(String, Arc<Registered>)>,
    places: Option<Places>,
    level: Compatibility,
    mode: Mode,
}

/// The next snapshot, and what makes it durable.
#[derive(Debug)]
pub struct Change {
    pub registry: Registry,
    pub writes: Vec<CatalogWrite>,
}

type Answer<T> = std::result::Result<T, Problem>;

impl Schemas for Registry {
    fn schema(&self, id: u32) -> TypesResult<Option<Arc<Schema>>> {
        let Some(found) = self.schemas.get(&id) else { return Ok(None) };
        match &found.broken {
            None => Ok(Some(found.schema.clone())),
            Some(why) => Err(Error::corrupt(format!("the schema with id {id} cannot be read: {why}"))),
        }
    }
}

impl Registry {
    pub fn new(limits: Limits) -> Self {
        Self { limits, next_id: 1, ..Self::default() }
    }

    /// From the entries of the catalog.
    pub fn load<'a>(limits: Limits, entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> TypesResult<Self> {
        let mut registry = Self::new(limits);
        store::load(&mut registry, entries)?;
        Ok(registry)
    }

    fn hash(&self, kind: SchemaKind, text: &str, references: &[Reference]) -> u64 {
        self.hasher.hash_one((kind, text, references))
    }

    pub(crate) fn insert(&mut self, registered: Registered) {
        self.bytes += registered.text.len() + registered.schema.text.len();
        if registered.broken.is_none() {
            let hash = self.hash(registered.kind, &registered.schema.text, &registered.references);
            self.ids.insert((hash, registered.id), ());
        }
        self.next_id = self.next_id.max(registered.id.saturating_add(1));
        self.schemas.insert(registered.id, Arc::new(registered));
    }

    fn remove(&mut self, id: u32) {
        if let Some(old) = self.schemas.remove(&id) {
            self.bytes = self.bytes.saturating_sub(old.text.len() + old.schema.text.len());
            self.ids.remove(&(self.hash(old.kind, &old.schema.text, &old.references), id));
        }
    }

    /// Puts a version where none is, or the same schema's.
    pub(crate) fn put_place(&mut self, subject: &str, version: u32, place: Place) {
        let name: Arc<str> = Arc::from(subject);
        if self.subjects.get(subject).is_none() {
            self.subjects.insert(name.clone(), Places::default());
        }
        if let Some(places) = self.subjects.get_mut(subject) {
            places.insert(version, place);
        }
        self.uses.insert((place.id, name, version), ());
    }

    /// The names and schemas that references stand for, each after those that it refers to itself.
    fn resolve(&self, references: &[Reference]) -> Answer<Vec<(String, Arc<Registered>)>> {
        let (mut all, mut names) = (Vec::new(), HashSet::new());
        self.resolve_into(references, &mut all, &mut names, 0)?;
        Ok(all)
    }

    fn resolve_into<'a>(
        &'a self,
        references: &'a [Reference],
        all: &mut Vec<(String, Arc<Registered>)>,
        names: &mut HashSet<&'a str>,
        depth: usize,
    ) -> Answer<()> {
        if depth > 32 || references.len() > REFERENCES_MAX {
            return Err(Problem::invalid_schema("it has too many references"));
        }
        for reference in references {
            if names.contains(reference.name.as_str()) {
                continue;
            }
            let found = self.subjects.get(reference.subject.as_str()).and_then(|places| places.get(&reference.version));
            let found = found.and_then(|place| self.schemas.get(&place.id)).ok_or_else(|| {
                let Reference { name, subject, version } = reference;
                Problem::invalid_schema(format!(
                    "no schema reference found for subject \"{subject}\" and version {version}, named \"{name}\""
                ))
            })?;
            self.resolve_into(&found.references, all, names, depth + 1)?;
            if all.len() >= REFERENCES_ALL_MAX {
                return Err(Problem::invalid_schema("it has too many references"));
            }
            names.insert(&reference.name);
            all.push((reference.name.clone(), found.clone()));
        }
        Ok(())
    }

    /// The names and texts that references stand for.
    pub(crate) fn texts(&self, references: &[Reference]) -> Answer<Vec<(String, String)>> {
        Ok(self.resolve(references)?.into_iter().map(|(name, schema)| (name, schema.text.clone())).collect())
    }

    fn parse(&self, new: &NewSchema) -> Answer<Schema> {
        Schema::parse(new.kind, &new.text, &self.texts(&new.references)?)
            .map_err(|e| Problem::invalid_schema(e.message()))
    }

    fn identity(&self, new: &NewSchema, schema: &Schema) -> Option<u32> {
        let hash = self.hash(new.kind, &schema.text, &new.references);
        let same =
            |r: &Registered| (r.kind, &r.schema.text, &r.references) == (new.kind, &schema.text, &new.references);
        let first = (hash, 0);
        let listed = self.ids.from(&first).take_while(|((h, _), ())| *h == hash);
        listed.map(|((_, id), ())| *id).find(|id| self.schemas.get(id).is_some_and(|r| same(r)))
    }

    /// Registers a schema in a subject, where it is not there yet. Returns its id and version.
    pub fn register(&self, subject: &str, new: &NewSchema) -> Answer<(Option<Change>, u32, u32)> {
        self.register_checked(subject, new, &self.check(subject, new)?)
    }

    /// The work of [`Registry::register`] that takes long: reads a schema and holds it against the subject's versions.
    pub fn check(&self, subject: &str, new: &NewSchema) -> Answer<Checked> {
        check_name(subject)?;
        let mode = self.mode(subject);
        if matches!(mode, Mode::ReadOnly | Mode::ReadOnlyOverride) {
            return Err(Problem::new(42205, format!("Subject {subject} is in read-only mode")));
        }
        for (what, number) in [("id", new.id), ("version", new.version)] {
            if number.is_some_and(|n| !(1..=NUMBER_MAX).contains(&n)) {
                return Err(Problem::invalid_schema(format!("the {what} is not between 1 and {NUMBER_MAX}")));
            }
        }
        let schema = self.parse(new)?;
        if mode != Mode::Import && new.id.is_none() && self.live_version(subject, new, &schema).is_none() {
            let faults = self.faults(subject, &schema);
            if !faults.is_empty() {
                return Err(Problem::incompatible(subject, &faults));
            }
        }
        Ok(Checked {
            schema: Arc::new(schema),
            references: self.resolve(&new.references)?,
            places: self.subjects.get(subject).cloned(),
            level: self.compatibility(subject),
            mode,
        })
    }

    /// Whether what was checked in another snapshot has been checked in this one.
    pub fn is_checked(&self, subject: &str, new: &NewSchema, checked: &Checked) -> bool {
        let same_places = match (self.subjects.get(subject), &checked.places) {
            (Some(now), Some(then)) => now.is(then),
            (None, None) => true,
            _ => false,
        };
        let same = |now: &(String, Arc<Registered>), then: &(String, Arc<Registered>)| Arc::ptr_eq(&now.1, &then.1);
        let same_references = self.resolve(&new.references).is_ok_and(|now| {
            now.len() == checked.references.len() && now.iter().zip(&checked.references).all(|(a, b)| same(a, b))
        });
        same_places
            && same_references
            && (self.compatibility(subject), self.mode(subject)) == (checked.level, checked.mode)
    }

    /// The id and live version that a schema has in a subject.
    fn live_version(&self, subject: &str, new: &NewSchema, schema: &Schema) -> Option<(u32, u32)> {
        let id = self.identity(new, schema)?;
        let (version, _) = self.subjects.get(subject)?.iter().rev().find(|(_, p)| p.id == id && !p.deleted)?;
        new.id.is_none_or(|wanted| wanted == id).then_some((id, *version))
    }

    /// As [`Registry::register`], for what [`Registry::is_checked`] in this snapshot.
    pub fn register_checked(
        &self,
        subject: &str,
        new: &NewSchema,
        checked: &Checked,
    ) -> Answer<(Option<Change>, u32, u32)> {
        let Checked { schema, mode, .. } = checked;
        let mode = *mode;
        if let Some((id, version)) = self.live_version(subject, new, schema) {
            return Ok((None, id, version));
        }
        if new.id.is_some() && mode != Mode::Import {
            return Err(Problem::new(42205, format!("Subject {subject} is not in import mode")));
        }
        let known = self.identity(new, schema);
        let places = self.subjects.get(subject);
        let id = match (new.id, known) {
            (Some(wanted), _) => {
                let other = |r: &Registered| {
                    (r.kind, &r.schema.text, &r.references) != (new.kind, &schema.text, &new.references)
                };
                if self.schemas.get(&wanted).is_some_and(|r| other(r)) {
                    return Err(Problem::new(
                        42207,
                        format!("Overwrite new schema with id {wanted} is not permitted."),
                    ));
                }
                wanted
            }
            (None, Some(id)) => id,
            (None, None) if self.next_id > NUMBER_MAX || self.schemas.contains_key(&self.next_id) => {
                return Err(Problem::new(50001, "the registry is full: there are no ids left"));
            }
            (None, None) => self.next_id,
        };
        // An import may give a text that is known another id: it is there twice then, and counts twice.
        let is_new = !self.schemas.contains_key(&id);
        self.check_room(subject, is_new.then(|| schema.text.len() + new.text.len()))?;
        let last = places.and_then(|p| p.last_key().copied()).unwrap_or(0);
        let version = match new.version {
            Some(wanted) if mode == Mode::Import && wanted > 0 => wanted,
            _ => last.saturating_add(1),
        };
        if version > NUMBER_MAX {
            return Err(Problem::new(50001, format!("the registry is full: the subject has version {last}")));
        }
        if places.and_then(|p| p.get(&version)).is_some_and(|p| p.id != id) {
            let message = format!("Overwrite version {version} of subject {subject} is not permitted.");
            return Err(Problem::new(42207, message));
        }
        let mut next = self.clone();
        let mut writes = Vec::new();
        if !next.schemas.contains_key(&id) {
            let registered = Registered {
                id,
                kind: new.kind,
                // A compiled schema is kept as text, too.
                text: if new.kind == SchemaKind::Protobuf { schema.text.clone() } else { new.text.clone() },
                references: new.references.clone(),
                schema: schema.clone(),
                broken: None,
            };
            writes.push(store::put_schema(&registered));
            next.insert(registered);
        }
        let place = Place { id, deleted: false };
        next.put_place(subject, version, place);
        writes.push(store::put_version(subject, version, place));
        writes.push(store::put_next_id(next.next_id));
        Ok((Some(Change { registry: next, writes }), id, version))
    }

    /// For a schema of so many bytes, or one that is there already.
    fn check_room(&self, subject: &str, len: Option<usize>) -> Answer<()> {
        let full = |what: String| Err(Problem::new(50001, format!("the registry is full: {what}")));
        let Limits { schemas_max, subjects_max, versions_max, bytes_max } = self.limits;
        if len.is_some() && self.schemas.len() >= schemas_max {
            return full(format!("there are {schemas_max} schemas"));
        }
        if len.is_some_and(|len| self.bytes + len > bytes_max) {
            return full(format!("its schemas have {} bytes of {bytes_max}", self.bytes));
        }
        match self.subjects.get(subject) {
            None if self.subjects.len() >= subjects_max => full(format!("there are {subjects_max} subjects")),
            Some(places) if places.len() >= versions_max => full(format!("the subject has {versions_max} versions")),
            _ => Ok(()),
        }
    }

    /// What stands in the way of a schema in a subject.
    fn faults(&self, subject: &str, schema: &Schema) -> Vec<String> {
        let level = self.compatibility(subject);
        let Some(places) = self.subjects.get(subject) else { return Vec::new() };
        let live = places.iter().rev().filter(|(_, p)| !p.deleted);
        let count = if level.is_transitive() { usize::MAX } else { 1 };
        let mut found = Vec::new();
        for (version, place) in live.take(count) {
            if let Some(old) = self.schemas.get(&place.id) {
                found.extend(Self::between(schema, old, level));
                if !found.is_empty() {
                    found.push(format!("{{oldSchemaVersion: {version}}}"));
                    found.push(format!("{{compatibility: '{}'}}", level.name()));
                    break;
                }
            }
        }
        found
    }

    fn between(new: &Schema, old: &Registered, level: Compatibility) -> Vec<String> {
        match &old.broken {
            Some(why) if level != Compatibility::None => vec![format!("the older schema cannot be read: {why}")],
            _ => incompatibilities(new, &old.schema, level),
        }
    }

    /// Schemas that cannot be read, with the reasons.
    pub fn broken(&self) -> impl Iterator<Item = (u32, &str)> {
        self.schemas.iter().filter_map(|(id, r)| Some((*id, r.broken.as_deref()?)))
    }

    /// Whether a schema could follow a version, or all that count; with the reasons why not.
    pub fn test(&self, subject: &str, version: Option<&str>, new: &NewSchema) -> Answer<Vec<String>> {
        let schema = self.parse(new)?;
        match version {
            None => Ok(self.faults(subject, &schema)),
            Some(version) => {
                let places = self.subjects.get(subject).filter(|p| is_live(p));
                if places.is_none() && version == "latest" {
                    return Ok(Vec::new());
                }
                let old = self.version(subject, version, false)?;
                Ok(Self::between(&schema, &old.registered, self.compatibility(subject)))
            }
        }
    }

    pub fn by_id(&self, id: u32) -> Answer<&Arc<Registered>> {
        self.schemas.get(&id).ok_or_else(|| Problem::new(40403, format!("Schema {id} not found")))
    }

    /// Names of the subjects that have a version, or with `deleted` ever had one.
    pub fn subjects(&self, deleted: bool) -> impl Iterator<Item = &str> {
        let shown = move |places: &Places| deleted || is_live(places);
        self.subjects.iter().filter(move |(_, places)| shown(places)).map(|(name, _)| name.as_ref())
    }

    /// Where a schema is, by its id.
    pub fn versions_of(&self, id: u32, deleted: bool) -> Vec<(String, u32)> {
        let first = (id, Arc::from(""), 0);
        let uses = self.uses.from(&first).take_while(|((of, ..), ())| *of == id);
        let uses = uses.map(|((_, subject, version), ())| (subject.as_ref().to_owned(), *version));
        uses.filter(|(subject, version)| deleted || self.is_live_version(subject, *version)).collect()
    }

    fn is_live_version(&self, subject: &str, version: u32) -> bool {
        self.subjects.get(subject).and_then(|places| places.get(&version)).is_some_and(|p| !p.deleted)
    }

    pub fn versions(&self, subject: &str, deleted: bool) -> Answer<Vec<u32>> {
        let places = self.subjects.get(subject).ok_or_else(|| Problem::subject_not_found(subject))?;
        let versions: Vec<u32> = places.iter().filter(|(_, p)| deleted || !p.deleted).map(|(v, _)| *v).collect();
        if versions.is_empty() { Err(Problem::subject_not_found(subject)) } else { Ok(versions) }
    }

    /// A version by its number, or `latest` or `-1`.
    pub fn version(&self, subject: &str, version: &str, deleted: bool) -> Answer<SubjectVersion> {
        let places = self.subjects.get(subject).ok_or_else(|| Problem::subject_not_found(subject))?;
        let latest = matches!(version, "latest" | "-1");
        let wanted = if latest {
            None
        } else {
            let invalid = || {
                let message = format!(
                    "The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] and \
                     the string \"latest\""
                );
                Problem::new(42202, message)
            };
            Some(version.parse::<u32>().ok().filter(|v| (1..=i32::MAX as u32).contains(v)).ok_or_else(invalid)?)
        };
        let found = match wanted {
            None => places.iter().rev().find(|(_, p)| deleted || !p.deleted),
            Some(wanted) => places.from(&wanted).next().filter(|(v, p)| **v == wanted && (deleted || !p.deleted)),
        };
        let missing = || match wanted {
            Some(wanted) if !places.is_empty() && (deleted || is_live(places)) => Problem::version_not_found(wanted),
            _ => Problem::subject_not_found(subject),
        };
        let (version, place) = found.ok_or_else(missing)?;
        let registered = self.schemas.get(&place.id).ok_or_else(Problem::schema_not_found)?.clone();
        Ok(SubjectVersion { subject: subject.to_owned(), version: *version, deleted: place.deleted, registered })
    }

    /// The version that is this very schema.
    pub fn look_up(&self, subject: &str, new: &NewSchema, deleted: bool) -> Answer<SubjectVersion> {
        let places = self.subjects.get(subject).filter(|places| deleted || is_live(places));
        let places = places.ok_or_else(|| Problem::subject_not_found(subject))?;
        let schema = self.parse(new)?;
        let id = self.identity(new, &schema).ok_or_else(Problem::schema_not_found)?;
        let found = places.iter().rev().find(|(_, p)| p.id == id && (deleted || !p.deleted));
        let (version, place) = found.ok_or_else(Problem::schema_not_found)?;
        let registered = self.schemas.get(&id).ok_or_else(Problem::schema_not_found)?.clone();
        Ok(SubjectVersion { subject: subject.to_owned(), version: *version, deleted: place.deleted, registered })
    }

    /// Ids of the schemas that refer to a version.
    pub fn referenced_by(&self, subject: &str, version: u32) -> Vec<u32> {
        let refers = |r: &Reference| r.subject == subject && r.version == version;
        self.schemas.iter().filter(|(_, s)| s.references.iter().any(refers)).map(|(id, _)| *id).collect()
    }

    /// What is deleted softly can still be read, and what is read next to it is not missed: only what is live elsewhere counts.
    /// What is deleted for good is missed by whatever remains.
    fn check_unreferenced(&self, subject: &str, versions: &[u32], permanent: bool) -> Answer<()> {
        let gone: HashSet<u32> = versions.iter().copied().collect();
        let remains = |s: &str, v: &u32| s != subject || (permanent && !gone.contains(v));
        for (id, schema) in self.schemas.iter() {
            let refers = schema.references.iter().find(|r| r.subject == subject && gone.contains(&r.version));
            if let Some(Reference { version, .. }) = refers
                && self.versions_of(*id, permanent).iter().any(|(s, v)| remains(s, v))
            {
                let message =
                    format!("One or more references exist to the schema {{subject={subject},version={version}}}.");
                return Err(Problem::new(42206, message));
            }
        }
        Ok(())
    }

    /// Deletes a subject: softly, or what has been deleted softly for good. Returns the versions.
    pub fn delete_subject(&self, subject: &str, permanent: bool) -> Answer<(Change, Vec<u32>)> {
        self.check_writable(subject)?;
        let places = self.subjects.get(subject).ok_or_else(|| Problem::subject_not_found(subject))?;
        let live: Vec<u32> = places.iter().filter(|(_, p)| !p.deleted).map(|(v, _)| *v).collect();
        if permanent && !live.is_empty() {
            let message = format!("Subject '{subject}' was not deleted first before being permanently deleted");
            return Err(Problem::new(40405, message));
        }
        if !permanent && live.is_empty() {
            let message = format!("Subject '{subject}' was soft deleted.Set permanent=true to delete permanently");
            return Err(Problem::new(40404, message));
        }
        let versions = if permanent { places.iter().map(|(v, _)| *v).collect() } else { live };
        self.check_unreferenced(subject, &versions, permanent)?;
        let mut change = Change { registry: self.clone(), writes: Vec::new() };
        for &version in &versions {
            change.delete(subject, version, permanent);
        }
        if permanent {
            change.registry.compatibility.remove(subject);
            change.registry.modes.remove(subject);
            change.writes.push(store::delete_compatibility(subject));
            change.writes.push(store::delete_mode(subject));
        }
        Ok((change, versions))
    }

    /// Deletes one version.
    pub fn delete_version(&self, subject: &str, version: &str, permanent: bool) -> Answer<(Change, u32)> {
        self.check_writable(subject)?;
        let found = self.version(subject, version, true)?;
        let label = found.version;
        if permanent && !found.deleted {
            let message =
                format!("Subject '{subject}' Version {label} was not deleted first before being permanently deleted");
            return Err(Problem::new(40407, message));
        }
        if !permanent && found.deleted {
            let message = format!(
                "Subject '{subject}' Version {label} was soft deleted.Set permanent=true to delete permanently"
            );
            return Err(Problem::new(40406, message));
        }
        self.check_unreferenced(subject, &[label], permanent)?;
        let mut change = Change { registry: self.clone(), writes: Vec::new() };
        change.delete(subject, label, permanent);
        Ok((change, label))
    }

    fn check_writable(&self, subject: &str) -> Answer<()> {
        match self.mode(subject) {
            Mode::ReadOnly | Mode::ReadOnlyOverride => {
                Err(Problem::new(42205, format!("Subject {subject} is in read-only mode")))
            }
            _ => Ok(()),
        }
    }

    /// That of the subject, or that of everything.
    pub fn compatibility(&self, subject: &str) -> Compatibility {
        self.compatibility.get(subject).or_else(|| self.compatibility.get("")).copied().unwrap_or_default()
    }

    /// That of the subject itself, if it has one. The empty name is everything.
    pub fn own_compatibility(&self, subject: &str) -> Option<Compatibility> {
        let own = self.compatibility.get(subject).copied();
        if subject.is_empty() { Some(own.unwrap_or_default()) } else { own }
    }

    /// A subject may be set up before it has a version: so many of them, and only names that it could have.
    fn check_setting(&self, subject: &str, set: usize) -> Answer<()> {
        if !subject.is_empty() {
            check_name(subject)?;
        }
        match self.limits.subjects_max {
            most if set > most => Err(Problem::new(50001, format!("the registry is full: {most} subjects are set up"))),
            _ => Ok(()),
        }
    }

    pub fn set_compatibility(&self, subject: &str, level: Option<Compatibility>) -> Answer<Change> {
        if level.is_some() && !self.compatibility.contains_key(subject) {
            self.check_setting(subject, self.compatibility.len())?;
        }
        let mut registry = self.clone();
        let write = match level {
            Some(level) => {
                registry.compatibility.insert(Arc::from(subject), level);
                store::put_compatibility(subject, level)
            }
            None => {
                registry.compatibility.remove(subject);
                store::delete_compatibility(subject)
            }
        };
        Ok(Change { registry, writes: vec![write] })
    }

    pub fn mode(&self, subject: &str) -> Mode {
        match self.modes.get("") {
            Some(Mode::ReadOnlyOverride) => Mode::ReadOnlyOverride,
            all => self.modes.get(subject).or(all).copied().unwrap_or_default(),
        }
    }

    pub fn own_mode(&self, subject: &str) -> Option<Mode> {
        let own = self.modes.get(subject).copied();
        if subject.is_empty() { Some(own.unwrap_or_default()) } else { own }
    }

    pub fn set_mode(&self, subject: &str, mode: Option<Mode>, force: bool) -> Answer<Change> {
        if mode == Some(Mode::Import) && !force {
            let taken = match subject {
                "" => self.subjects(false).next().is_some(),
                one => self.versions(one, false).is_ok(),
            };
            if taken && self.mode(subject) != Mode::Import {
                return Err(Problem::new(
                    42205,
                    format!("Cannot import since found existing subjects; use force=true ({subject})"),
                ));
            }
        }
        if mode.is_some() && !self.modes.contains_key(subject) {
            self.check_setting(subject, self.modes.len())?;
        }
        let mut registry = self.clone();
        let write = match mode {
            Some(mode) => {
                registry.modes.insert(Arc::from(subject), mode);
                store::put_mode(subject, mode)
            }
            None => {
                registry.modes.remove(subject);
                store::delete_mode(subject)
            }
        };
        Ok(Change { registry, writes: vec![write] })
    }

    /// How many schemas there are, and the bytes of their texts.
    pub fn size(&self) -> (usize, usize) {
        (self.schemas.len(), self.bytes)
    }
}

fn check_name(subject: &str) -> Answer<()> {
    if subject.is_empty() || subject.len() > SUBJECT_LEN_MAX || subject.chars().any(char::is_control) {
        return Err(Problem::new(42208, format!("The specified subject '{subject}' is not a valid.")));
    }
    Ok(())
}

fn is_live(places: &Places) -> bool {
    places.iter().rev().any(|(_, p)| !p.deleted)
}

impl Change {
    fn delete(&mut self, subject: &str, version: u32, permanent: bool) {
        let registry = &mut self.registry;
        let Some(places) = registry.subjects.get_mut(subject) else { return };
        if !permanent {
            let Some(place) = places.get_mut(&version) else { return };
            place.deleted = true;
            let place = *place;
            self.writes.push(store::put_version(subject, version, place));
            return;
        }
        let Some(Place { id, .. }) = places.remove(&version) else { return };
        let empty = places.is_empty();
        self.writes.push(store::delete_version(subject, version));
        if empty {
            registry.subjects.remove(subject);
        }
        registry.uses.remove(&(id, Arc::from(subject), version));
        if registry.versions_of(id, true).is_empty() {
            registry.remove(id);
            self.writes.push(store::delete_schema(id));
        }
    }

    /// Goes on from this change with another made of its snapshot.
    pub fn then(mut self, next: Change) -> Self {
        self.writes.extend(next.writes);
        Self { registry: next.registry, writes: self.writes }
    }
}

//! The schema registry's API, as Confluent's serializers and tools speak it.
//!
//! Rights: a subject is its topic's (`orders-value` that of `orders`). Who may describe the topic may read, who may write it may
//! register, who may delete it may delete; what is everybody's needs the same right to the cluster. A schema by its id may be
//! read by whoever may read one of its subjects.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use millpond_engine::Engine;
use millpond_engine::schemas::{SchemaError, topic_of};
use millpond_formats::SchemaKind;
use millpond_registry::{
    Change, Compatibility, Mode, NewSchema, Problem, Reference, Registered, Registry, SubjectVersion,
};
use millpond_types::access::Right;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::errors::{ApiError, WholeBody};
use crate::rights::Speaker;
use crate::{App, Shared};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// An error in the registry's shape.
struct Refused {
    status: u16,
    code: u32,
    message: String,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { status: problem.status(), code: problem.code, message: problem.message }
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let message = error.body()["message"].as_str().unwrap_or_default().to_owned();
        let status = u16::try_from(error.code / 100).unwrap_or(500);
        Self { status, code: error.code, message }
    }
}

impl From<SchemaError> for Refused {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Refused(problem) => problem.into(),
            SchemaError::Failed(e) => Self { status: 500, code: 50001, message: e.message().to_owned() },
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({ "error_code": self.code, "message": self.message });
        (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body.to_string()).into_response()
    }
}

struct Answer(Json);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.0.to_string()).into_response()
    }
}

type Answered = Result<Answer, Refused>;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_schema))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
        .route("/schemas", get(all))
        .route("/schemas/types", get(types))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(by_id_schema))
        .route("/schemas/ids/{id}/subjects", get(id_subjects))
        .route("/schemas/ids/{id}/versions", get(id_versions))
        .route("/config", get(config).put(set_config).delete(delete_config))
        .route("/config/{subject}", get(config).put(set_config).delete(delete_config))
        .route("/mode", get(mode).put(set_mode))
        .route("/mode/{subject}", get(mode).put(set_mode).delete(delete_mode))
        .route("/compatibility/subjects/{subject}/versions", post(compatible))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatible))
        .route("/contexts", get(contexts))
        .route("/v1/metadata/version", get(metadata_version))
}

/// What the query part of a request may say.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    #[serde(deserialize_with = "flag")]
    deleted: bool,
    #[serde(deserialize_with = "flag")]
    deleted_only: bool,
    #[serde(deserialize_with = "flag")]
    permanent: bool,
    #[serde(deserialize_with = "flag")]
    normalize: bool,
    #[serde(deserialize_with = "flag")]
    verbose: bool,
    #[serde(deserialize_with = "flag")]
    force: bool,
    #[serde(deserialize_with = "flag")]
    latest_only: bool,
    #[serde(deserialize_with = "flag")]
    default_to_global: bool,
    subject_prefix: Option<String>,
    subject: Option<String>,
    format: Option<String>,
}

/// Clients write `true` in their own languages' ways.
fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)?.eq_ignore_ascii_case("true"))
}

fn check(speaker: &Speaker, right: Right, subject: &str) -> Result<(), Refused> {
    Ok(speaker.check_topic(right, topic_of(subject))?)
}

/// A schema is read with those that it refers to, and what is wrong with it tells of them.
fn check_references(speaker: &Speaker, new: &NewSchema) -> Result<(), Refused> {
    new.references.iter().try_for_each(|r| check(speaker, Right::Describe, &r.subject))
}

/// Whether a schema may be seen: with one of its subjects, or by whoever may describe the cluster.
fn check_id(speaker: &Speaker, registry: &Registry, id: u32) -> Result<(), Refused> {
    let seen = registry.versions_of(id, true).iter().any(|(s, _)| speaker.may_see(topic_of(s)));
    if seen { Ok(()) } else { Ok(speaker.check_cluster(Right::Describe)?) }
}

fn parse_id(id: &str) -> Result<u32, Refused> {
    id.parse().map_err(|_| Refused { status: 404, code: 40403, message: format!("Schema {id} not found") })
}

fn read(body: &[u8]) -> Result<Json, Refused> {
    serde_json::from_slice(body).map_err(|e| Refused {
        status: 400,
        code: 400,
        message: format!("the body is not JSON: {e}"),
    })
}

fn schema_of(body: &[u8], asked: &Asked) -> Result<NewSchema, Refused> {
    let body = read(body)?;
    let invalid = |message: String| Refused { status: 422, code: 42201, message };
    let text = body["schema"].as_str().ok_or_else(|| invalid("Empty schema".to_owned()))?;
    let kind = match &body["schemaType"] {
        Json::Null => SchemaKind::Avro,
        Json::String(name) => SchemaKind::parse(name).map_err(|e| invalid(format!("Invalid schema type: {e}")))?,
        other => return Err(invalid(format!("Invalid schema type {other}"))),
    };
    let reference = |r: &Json| {
        Some(Reference {
            name: r["name"].as_str()?.to_owned(),
            subject: r["subject"].as_str()?.to_owned(),
            version: u32::try_from(r["version"].as_u64()?).ok()?,
        })
    };
    let references = match &body["references"] {
        Json::Null => Vec::new(),
        Json::Array(list) => list
            .iter()
            .map(reference)
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("a reference has a name, a subject and a version".to_owned()))?,
        _ => return Err(invalid("the references are not a list".to_owned())),
    };
    // Negative numbers are those of clients that have none.
    let number = |name: &str| match body[name].as_i64().filter(|n| *n > 0) {
        None => Ok(None),
        Some(n) => i32::try_from(n)
            .map(|n| Some(n.unsigned_abs()))
            .map_err(|_| invalid(format!("the {name} {n} is above {}", i32::MAX))),
    };
    let (id, version) = (number("id")?, number("version")?);
    let new = NewSchema { references, id, version, ..NewSchema::new(kind, text) };
    Ok(if asked.normalize { new.normalised() } else { new })
}

/// Type and references only where they say something, as Confluent's answers have it.
fn details(body: &mut Map<String, Json>, registered: &Registered, asked: &Asked) {
    if registered.kind != SchemaKind::Avro {
        body.insert("schemaType".into(), json!(registered.kind.name()));
    }
    if !registered.references.is_empty() {
        let list = registered.references.iter();
        let list: Vec<Json> =
            list.map(|r| json!({ "name": r.name, "subject": r.subject, "version": r.version })).collect();
        body.insert("references".into(), Json::Array(list));
    }
    // A client may want a PROTOBUF schema compiled.
    let compiled =
        asked.format.as_deref().filter(|f| *f == "serialized").and_then(|_| registered.schema.compiled("default"));
    body.insert("schema".into(), json!(compiled.as_ref().unwrap_or(&registered.text)));
}

fn describe(found: &SubjectVersion, asked: &Asked) -> Json {
    let mut body = Map::new();
    body.insert("subject".into(), json!(found.subject));
    body.insert("version".into(), json!(found.version));
    body.insert("id".into(), json!(found.registered.id));
    details(&mut body, &found.registered, asked);
    Json::Object(body)
}

async fn change<T: Send + 'static>(
    app: &Shared,
    f: impl FnOnce(&Registry) -> Result<(Option<Change>, T), Problem> + Send + 'static,
) -> Result<T, Refused> {
    let engine: Engine = app.engine.clone();
    Ok(app.threads.run(move || engine.change_schemas(f)).await??)
}

/// Runs what may take long with a snapshot, off the threads that serve connections.
async fn with_registry<T: Send + 'static>(
    app: &Shared,
    f: impl FnOnce(&Registry) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let registry = app.engine.schemas().now();
    app.threads.run(move || f(&registry)).await?
}

async fn subjects(State(app): State<Shared>, speaker: Speaker, Query(asked): Query<Asked>) -> Answered {
    let found = with_registry(&app, move |registry| {
        let prefix = asked.subject_prefix.as_deref().unwrap_or_default();
        let list = registry.subjects(asked.deleted || asked.deleted_only);
        let list = list.filter(|s| s.starts_with(prefix) && speaker.may_see(topic_of(s)));
        let list: Vec<&str> = list.filter(|s| !asked.deleted_only || registry.versions(s, false).is_err()).collect();
        Ok(json!(list))
    });
    Ok(Answer(found.await?))
}

async fn versions(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(subject): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    check(&speaker, Right::Describe, &subject)?;
    Ok(Answer(json!(app.engine.schemas().now().versions(&subject, asked.deleted)?)))
}

async fn register(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(subject): Path<String>,
    Query(asked): Query<Asked>,
    WholeBody(body): WholeBody,
) -> Answered {
    check(&speaker, Right::Write, &subject)?;
    let engine = app.engine.clone();
    let registered = app.threads.run(move || -> Result<u32, Refused> {
        let new = schema_of(&body, &asked)?;
        check_references(&speaker, &new)?;
        if new.id.is_some() {
            speaker.check_cluster(Right::Alter)?;
        }
        Ok(engine.register_schema(&subject, &new)?)
    });
    Ok(Answer(json!({ "id": registered.await?? })))
}

async fn look_up(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(subject): Path<String>,
    Query(asked): Query<Asked>,
    WholeBody(body): WholeBody,
) -> Answered {
    check(&speaker, Right::Describe, &subject)?;
    let found = with_registry(&app, move |registry| {
        let new = schema_of(&body, &asked)?;
        check_references(&speaker, &new)?;
        Ok(describe(&registry.look_up(&subject, &new, asked.deleted)?, &asked))
    });
    Ok(Answer(found.await?))
}

async fn version(
    State(app): State<Shared>,
    speaker: Speaker,
    Path((subject, version)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Answered {
    check(&speaker, Right::Describe, &subject)?;
    let found = with_registry(&app, move |registry| {
        Ok(describe(&registry.version(&subject, &version, asked.deleted)?, &asked))
    });
    Ok(Answer(found.await?))
}

async fn version_schema(
    State(app): State<Shared>,
    speaker: Speaker,
    Path((subject, version)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Refused> {
    check(&speaker, Right::Describe, &subject)?;
    let found = app.engine.schemas().now().version(&subject, &version, asked.deleted)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], found.registered.text.clone()).into_response())
}

async fn referenced_by(
    State(app): State<Shared>,
    speaker: Speaker,
    Path((subject, version)): Path<(String, String)>,
) -> Answered {
    check(&speaker, Right::Describe, &subject)?;
    let found = with_registry(&app, move |registry| {
        let found = registry.version(&subject, &version, false)?;
        Ok(registry.referenced_by(&subject, found.version))
    });
    Ok(Answer(json!(found.await?)))
}

async fn delete_subject(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(subject): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    check(&speaker, Right::Delete, &subject)?;
    let versions = change(&app, move |registry| {
        let (change, versions) = registry.delete_subject(&subject, asked.permanent)?;
        Ok((Some(change), versions))
    });
    Ok(Answer(json!(versions.await?)))
}

async fn delete_version(
    State(app): State<Shared>,
    speaker: Speaker,
    Path((subject, version)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Answered {
    check(&speaker, Right::Delete, &subject)?;
    let version = change(&app, move |registry| {
        let (change, version) = registry.delete_version(&subject, &version, asked.permanent)?;
        Ok((Some(change), version))
    });
    Ok(Answer(json!(version.await?)))
}

async fn all(State(app): State<Shared>, speaker: Speaker, Query(asked): Query<Asked>) -> Answered {
    let found = with_registry(&app, move |registry| {
        let prefix = asked.subject_prefix.as_deref().unwrap_or_default();
        let mut list = Vec::new();
        let shown = |s: &&str| s.starts_with(prefix) && speaker.may_see(topic_of(s));
        for subject in registry.subjects(asked.deleted).filter(shown) {
            let versions = registry.versions(subject, asked.deleted)?;
            let skipped = if asked.latest_only { versions.len().saturating_sub(1) } else { 0 };
            for version in versions.iter().skip(skipped) {
                list.push(describe(&registry.version(subject, &version.to_string(), asked.deleted)?, &asked));
            }
        }
        Ok(Json::Array(list))
    });
    Ok(Answer(found.await?))
}

async fn types() -> Answer {
    Answer(json!(["JSON", "PROTOBUF", "AVRO"]))
}

async fn by_id(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let id = parse_id(&id)?;
    let found = with_registry(&app, move |registry| {
        check_id(&speaker, registry, id)?;
        let mut body = Map::new();
        details(&mut body, registry.by_id(id)?, &asked);
        Ok(Json::Object(body))
    });
    Ok(Answer(found.await?))
}

async fn by_id_schema(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let (registry, id) = (app.engine.schemas().now(), parse_id(&id)?);
    check_id(&speaker, &registry, id)?;
    let text = registry.by_id(id)?.text.clone();
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Subjects and versions of an id, as far as they may be seen.
fn places(app: &Shared, speaker: &Speaker, id: &str, asked: &Asked) -> Result<Vec<(String, u32)>, Refused> {
    let (registry, id) = (app.engine.schemas().now(), parse_id(id)?);
    check_id(speaker, &registry, id)?;
    registry.by_id(id)?;
    let mut places = registry.versions_of(id, asked.deleted);
    let wanted = |s: &str| asked.subject.as_ref().is_none_or(|wanted| wanted == s);
    places.retain(|(subject, _)| wanted(subject) && speaker.may_see(topic_of(subject)));
    Ok(places)
}

async fn id_subjects(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let mut subjects: Vec<String> = places(&app, &speaker, &id, &asked)?.into_iter().map(|(s, _)| s).collect();
    subjects.dedup();
    Ok(Answer(json!(subjects)))
}

async fn id_versions(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let places = places(&app, &speaker, &id, &asked)?;
    let list: Vec<Json> = places.iter().map(|(s, v)| json!({ "subject": s, "version": v })).collect();
    Ok(Answer(Json::Array(list)))
}

/// Everything's, or a subject's where it is named.
fn check_setting(speaker: &Speaker, right: Right, subject: &str) -> Result<(), Refused> {
    if subject.is_empty() { Ok(speaker.check_cluster(right)?) } else { check(speaker, right, subject) }
}

/// The subject that a path names; the empty name, everything's, where it names none.
type OfSubject = Option<Path<String>>;

fn name_of(subject: OfSubject) -> String {
    subject.map(|Path(name)| name).unwrap_or_default()
}

fn not_configured(code: u32, subject: &str, what: &str) -> Refused {
    let message = format!("Subject '{subject}' does not have subject-level {what} configured");
    Refused { status: 404, code, message }
}

async fn config(
    State(app): State<Shared>,
    speaker: Speaker,
    subject: OfSubject,
    Query(asked): Query<Asked>,
) -> Answered {
    let subject = name_of(subject);
    check_setting(&speaker, Right::Describe, &subject)?;
    let registry = app.engine.schemas().now();
    let level = registry.own_compatibility(&subject);
    let level = level.or_else(|| asked.default_to_global.then(|| registry.compatibility(&subject)));
    let level = level.ok_or_else(|| not_configured(40408, &subject, "compatibility"))?;
    Ok(Answer(json!({ "compatibilityLevel": level.name() })))
}

async fn set_config(
    State(app): State<Shared>,
    speaker: Speaker,
    subject: OfSubject,
    WholeBody(body): WholeBody,
) -> Answered {
    let subject = name_of(subject);
    check_setting(&speaker, Right::Alter, &subject)?;
    let body = read(&body)?;
    let name = body["compatibility"].as_str().unwrap_or_default();
    let level = Compatibility::parse(name).ok_or_else(|| Refused {
        status: 422,
        code: 42203,
        message: "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, \
                  forward_transitive, and full_transitive"
            .to_owned(),
    })?;
    change(&app, move |registry| Ok((Some(registry.set_compatibility(&subject, Some(level))?), ()))).await?;
    Ok(Answer(json!({ "compatibility": level.name() })))
}

async fn delete_config(State(app): State<Shared>, speaker: Speaker, subject: OfSubject) -> Answered {
    let subject = name_of(subject);
    check_setting(&speaker, Right::Alter, &subject)?;
    let before = change(&app, move |registry| {
        let before = registry.own_compatibility(&subject);
        Ok((Some(registry.set_compatibility(&subject, None)?), before.unwrap_or_default()))
    });
    Ok(Answer(json!({ "compatibilityLevel": before.await?.name() })))
}

async fn mode(State(app): State<Shared>, speaker: Speaker, subject: OfSubject, Query(asked): Query<Asked>) -> Answered {
    let subject = name_of(subject);
    check_setting(&speaker, Right::Describe, &subject)?;
    let registry = app.engine.schemas().now();
    let mode = registry.own_mode(&subject).or_else(|| asked.default_to_global.then(|| registry.mode(&subject)));
    let mode = mode.ok_or_else(|| not_configured(40409, &subject, "mode"))?;
    Ok(Answer(json!({ "mode": mode.name() })))
}

async fn set_mode(
    State(app): State<Shared>,
    speaker: Speaker,
    subject: OfSubject,
    Query(asked): Query<Asked>,
    WholeBody(body): WholeBody,
) -> Answered {
    let subject = name_of(subject);
    check_setting(&speaker, Right::Alter, &subject)?;
    let body = read(&body)?;
    let mode = Mode::parse(body["mode"].as_str().unwrap_or_default()).ok_or_else(|| Refused {
        status: 422,
        code: 42204,
        message: "Invalid mode. Valid values are READWRITE, READONLY, READONLY_OVERRIDE, IMPORT".to_owned(),
    })?;
    // Who imports says which id is which schema, for everybody.
    if mode == Mode::Import {
        speaker.check_cluster(Right::Alter)?;
    }
    let changed = move |registry: &Registry| Ok((Some(registry.set_mode(&subject, Some(mode), asked.force)?), ()));
    change(&app, changed).await?;
    Ok(Answer(json!({ "mode": mode.name() })))
}

async fn delete_mode(State(app): State<Shared>, speaker: Speaker, subject: OfSubject) -> Answered {
    let subject = name_of(subject);
    check_setting(&speaker, Right::Alter, &subject)?;
    let before = change(&app, move |registry| {
        let before = registry.own_mode(&subject).unwrap_or_default();
        Ok((Some(registry.set_mode(&subject, None, true)?), before))
    });
    Ok(Answer(json!({ "mode": before.await?.name() })))
}

/// Whether a schema could follow a version of a subject, or where none is named all that count.
async fn compatible(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(path): Path<HashMap<String, String>>,
    Query(asked): Query<Asked>,
    WholeBody(body): WholeBody,
) -> Answered {
    let subject = path.get("subject").cloned().unwrap_or_default();
    check(&speaker, Right::Describe, &subject)?;
    let found = with_registry(&app, move |registry| {
        let new = schema_of(&body, &asked)?;
        check_references(&speaker, &new)?;
        let faults = registry.test(&subject, path.get("version").map(String::as_str), &new)?;
        let mut answer = json!({ "is_compatible": faults.is_empty() });
        if asked.verbose {
            answer["messages"] = json!(faults);
        }
        Ok(answer)
    });
    Ok(Answer(found.await?))
}

async fn contexts() -> Answer {
    Answer(json!(["."]))
}

async fn metadata_version() -> Answer {
    Answer(json!({ "version": env!("CARGO_PKG_VERSION"), "commitId": "" }))
}

//! The small endpoints that tell what this server is and how it does.

use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use millpond_engine::session;
use millpond_types::access::Right;
use serde_json::{Value as Json, json};

use crate::Shared;
use crate::errors::{ApiError, BAD_REQUEST};
use crate::rights::Speaker;

/// What clients take for the version of ksqlDB; they compare it with their own.
pub(crate) const KSQL_VERSION: &str = "8.5.0";
const SERVICE_ID: &str = "default_";

pub(crate) async fn root() -> Redirect {
    Redirect::temporary("/info")
}

pub(crate) async fn info(State(app): State<Shared>) -> Body<Json> {
    Body(json!({
        "KsqlServerInfo": {
            "version": KSQL_VERSION,
            "kafkaClusterId": app.cluster_id,
            "ksqlServiceId": SERVICE_ID,
            "serverStatus": "RUNNING",
            "millpondVersion": env!("CARGO_PKG_VERSION"),
        }
    }))
}

pub(crate) async fn healthcheck(State(app): State<Shared>) -> Response {
    let stopping = *app.stop.borrow();
    let log = !stopping && (app.is_writable)();
    let status = if log { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let part = |healthy: bool| json!({ "isHealthy": healthy });
    let state = if stopping { "TERMINATING" } else { "READY" };
    let body = json!({
        "isHealthy": log,
        "details": { "metastore": part(!stopping), "kafka": part(log), "commandRunner": part(!stopping) },
        "serverState": state,
    });
    (status, Body(body)).into_response()
}

pub(crate) async fn cluster_status(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Body<Json> {
    let now = millpond_types::Clock::now_ms(&millpond_types::SystemClock);
    // A server that listens on all addresses is at the one by which it was reached.
    let asked = uri.authority().map(Authority::as_str).or_else(|| headers.get(HOST)?.to_str().ok());
    let host = match asked {
        Some(asked) if app.address.ip().is_unspecified() => asked.to_string(),
        _ => app.address.to_string(),
    };
    Body(json!({
        "clusterStatus": {
            host: {
                "hostAlive": true,
                "lastStatusUpdateMs": now,
                "activeStandbyPerQuery": {},
                "hostStoreLags": { "stateStoreLags": {}, "updateTimeMs": now },
            }
        }
    }))
}

pub(crate) async fn ready() -> Body<Json> {
    Body(json!({}))
}

pub(crate) async fn metadata(State(app): State<Shared>) -> Body<Json> {
    Body(json!({ "version": KSQL_VERSION, "clusterId": cluster(&app.cluster_id) }))
}

pub(crate) async fn metadata_id(State(app): State<Shared>) -> Body<Json> {
    Body(cluster(&app.cluster_id))
}

fn cluster(id: &str) -> Json {
    json!({
        "id": "",
        "scope": { "path": [], "clusters": { "kafka-cluster": id, "ksql-cluster": SERVICE_ID } },
    })
}

pub(crate) async fn is_valid_property(Path(name): Path<String>) -> Result<Body<Json>, ApiError> {
    if session::is_known_property(&name) {
        Ok(Body(Json::Bool(true)))
    } else {
        Err(ApiError::new(
            BAD_REQUEST,
            format!(
                "One or more properties overrides set locally are prohibited by the KSQL server: unknown property \"{name}\""
            ),
        ))
    }
}

/// What went wrong with single records, newest last: the lines that are still in memory, and how many there were.
pub(crate) async fn processing_log(State(app): State<Shared>, speaker: Speaker) -> Result<Body<Json>, ApiError> {
    // It quotes records of any topic.
    speaker.check_cluster(Right::Describe)?;
    let log = app.engine.processing_log();
    let lines: Vec<Json> = log
        .lines()
        .into_iter()
        .map(|line| {
            json!({
                "query": line.query,
                "kind": format!("{:?}", line.kind),
                "message": line.message,
                "topic": line.topic,
                "partition": line.partition,
                "offset": line.offset,
            })
        })
        .collect();
    Ok(Body(json!({ "total": log.total(), "lines": lines })))
}

//! /udfs: upload, listing and removal of WebAssembly modules.

use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millpond_engine::{ModuleEntry, Put};
use millpond_types::access::Right;
use serde_json::{Value as Json, json};

use crate::Shared;
use crate::errors::{ApiError, CONFLICT, NOT_FOUND, WholeBody, code_of_kind};
use crate::rights::Speaker;

fn describe(entry: &ModuleEntry) -> Json {
    let report = &entry.report;
    json!({
        "name": entry.name,
        "digest": report.digest,
        "bytes": report.bytes,
        "functions": report.functions.iter().map(|f| json!({ "name": f.name, "signature": f.to_string() })).collect::<Vec<_>>(),
        "leftOut": report.left_out.iter().map(|l| json!({ "export": l.export, "reason": l.reason })).collect::<Vec<_>>(),
    })
}

pub(crate) async fn list(State(app): State<Shared>, speaker: Speaker) -> Result<Body<Json>, ApiError> {
    speaker.check_cluster(Right::Describe)?;
    Ok(Body(app.engine.modules().entries().iter().map(describe).collect()))
}

pub(crate) async fn show(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(name): Path<String>,
) -> Result<Body<Json>, ApiError> {
    speaker.check_cluster(Right::Describe)?;
    let entry = app.engine.modules().get(&name).ok_or_else(|| unknown(&name))?;
    let users = app.engine.module_users(&entry.report.digest);
    let mut body = describe(&entry);
    body["usedBy"] = json!(users);
    Ok(Body(body))
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(NOT_FOUND, format!("there is no module \"{name}\""))
}

/// A refusal for the sake of queries names them.
fn refused(app: &Shared, name: &str, e: &millpond_types::Error) -> ApiError {
    let error = ApiError::new(code_of_kind(e.kind()), e.message());
    if error.code == CONFLICT {
        let users = app.engine.modules().get(name).map(|entry| app.engine.module_users(&entry.report.digest));
        return error.with("users", json!(users.unwrap_or_default()));
    }
    error
}

pub(crate) async fn upload(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(name): Path<String>,
    WholeBody(body): WholeBody,
) -> Result<Response, ApiError> {
    speaker.check_cluster(Right::Alter)?;
    let (engine, module) = (app.engine.clone(), name.clone());
    let put =
        app.threads.run(move || engine.put_module(&module, &body)).await?.map_err(|e| refused(&app, &name, &e))?;
    let status = match put {
        Put::Created(_) => StatusCode::CREATED,
        Put::Unchanged(_) => StatusCode::OK,
    };
    Ok((status, Body(describe(put.entry()))).into_response())
}

pub(crate) async fn delete(
    State(app): State<Shared>,
    speaker: Speaker,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    speaker.check_cluster(Right::Alter)?;
    let (engine, module) = (app.engine.clone(), name.clone());
    app.threads.run(move || engine.delete_module(&module)).await?.map_err(|e| refused(&app, &name, &e))?;
    Ok(StatusCode::NO_CONTENT)
}

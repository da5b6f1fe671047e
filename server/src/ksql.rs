//! POST /ksql: statements in, entities out. And what all statement requests share.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use millpond_engine::session::Session;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::Semaphore;

use crate::errors::{ApiError, BAD_REQUEST, INTERNAL, WholeBody};
use crate::rights::Speaker;
use crate::{Shared, entities};

/// Body of `/ksql` and `/query`. `sql` and `properties` are the names that `/query-stream` uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatementRequest {
    #[serde(alias = "sql")]
    pub ksql: String,
    #[serde(default, alias = "properties")]
    pub streams_properties: Option<BTreeMap<String, Json>>,
    #[serde(default)]
    pub session_variables: Option<BTreeMap<String, Json>>,
}

impl StatementRequest {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|e| {
            ApiError::new(
                BAD_REQUEST,
                format!("the body is not a request: {e}; expected {{\"ksql\": \"statements\", ...}}"),
            )
        })
    }

    pub fn session(&self) -> Session {
        let properties = self.streams_properties.iter().flatten().map(|(k, v)| (k.clone(), text_of(v)));
        let mut session = Session::with_properties(properties);
        for (name, value) in self.session_variables.iter().flatten() {
            session.variables.define(name, text_of(value));
        }
        session
    }
}

fn text_of(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_string)
}

pub(crate) const V1_JSON: &str = "application/vnd.ksql.v1+json";
pub(crate) const V1_PROTOBUF: &str = "application/vnd.ksql.v1+protobuf";
pub(crate) const JSON: &str = "application/json";
pub(crate) const DELIMITED: &str = "application/vnd.ksqlapi.delimited.v1";

/// The first of `offered` that the client accepts; the first one where it says nothing.
pub(crate) fn accepted(headers: &HeaderMap, offered: &[&'static str]) -> &'static str {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    for part in accept.split(',') {
        let wanted = part.split(';').next().unwrap_or_default().trim();
        if let Some(found) = offered.iter().find(|o| o.eq_ignore_ascii_case(wanted)) {
            return found;
        }
    }
    offered[0]
}

/// What may block runs on threads that may, so many at a time; the rest of the program has others of them.
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Runs a blocking call of the engine. Whoever goes away while it waits for its turn takes it along; once it runs
    /// its place is taken until it has ended.
    pub async fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let failed = || ApiError::new(INTERNAL, "the request failed inside the server");
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(|_| failed())?;
        let run = move || {
            let result = f();
            drop(place);
            result
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| failed())
    }
}

pub(crate) async fn ksql(
    State(app): State<Shared>,
    speaker: Speaker,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Result<Response, ApiError> {
    let request = StatementRequest::parse(&body)?;
    let mut session = request.session();
    speaker.restrict(&mut session);
    let engine = app.engine.clone();
    let text = request.ksql.clone();
    let result = app.threads.run(move || engine.execute(&text, &mut session)).await?;
    match result {
        Ok(answers) => {
            let list: Vec<Json> = answers.iter().filter_map(entities::to_json).collect();
            let content = accepted(&headers, &[V1_JSON, JSON]);
            Ok(([(header::CONTENT_TYPE, content)], Json::Array(list).to_string()).into_response())
        }
        Err(e) => Err(ApiError::statement(&e, &request.ksql)),
    }
}

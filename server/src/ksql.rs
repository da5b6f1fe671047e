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
pub(crate) struct Threads {
    all: Arc<Semaphore>,
    /// Those that queries may take; a quarter is left for statements that show and end things.
    queries: Arc<Semaphore>,
}

impl Threads {
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let queries = max.saturating_sub(max.div_ceil(4)).max(1);
        Self { all: Arc::new(Semaphore::new(max)), queries: Arc::new(Semaphore::new(queries)) }
    }

    /// Runs a blocking call of the engine. Whoever goes away while it waits for its turn takes it along; once it runs
    /// its place is taken until it has ended.
    pub async fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let place = Arc::clone(&self.all).acquire_owned().await.map_err(|_| failed())?;
        let run = move || {
            let result = f();
            drop(place);
            result
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| failed())
    }

    /// As [`Threads::run`], for what reads rows and may take long: all of them together leave places to others.
    pub async fn run_query<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let place = Arc::clone(&self.queries).acquire_owned().await.map_err(|_| failed())?;
        let run = move || {
            let result = f();
            drop(place);
            result
        };
        self.run(run).await
    }
}

fn failed() -> ApiError {
    ApiError::new(INTERNAL, "the request failed inside the server")
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
    let run = move || {
        if engine.writes_rows(&text, &session) {
            return Err(Box::new((engine, text, session)));
        }
        Ok(engine.execute(&text, &mut session))
    };
    let result = match app.threads.run(run).await? {
        Ok(result) => result,
        // What waits for the disk keeps no place from what shows and ends things.
        Err(later) => {
            let (engine, text, mut session) = *later;
            app.inserts.run(move || engine.execute(&text, &mut session)).await?
        }
    };
    match result {
        Ok(answers) => {
            let list: Vec<Json> = answers.iter().filter_map(entities::to_json).collect();
            let content = accepted(&headers, &[V1_JSON, JSON]);
            Ok(([(header::CONTENT_TYPE, content)], Json::Array(list).to_string()).into_response())
        }
        Err(e) => Err(ApiError::statement(&e, &request.ksql)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn queries_leave_places_to_statements() {
        let threads = Arc::new(Threads::new(4));
        let (begun, begins) = sync_channel(16);
        let (end, ends) = sync_channel::<()>(16);
        let ends = Arc::new(parking_lot::Mutex::new(ends));
        let mut queries = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (threads, begun, ends) = (Arc::clone(&threads), begun.clone(), Arc::clone(&ends));
            queries.spawn(async move {
                let query = move || {
                    begun.send(()).unwrap();
                    let _ended = ends.lock().recv_timeout(Duration::from_secs(120));
                };
                threads.run_query(query).await.unwrap();
            });
        }
        let waits = tokio::task::spawn_blocking(move || {
            for _ in 0..3 {
                begins.recv_timeout(Duration::from_secs(60)).unwrap();
            }
            begins
        });
        let begins = waits.await.unwrap();
        let statement = tokio::time::timeout(Duration::from_secs(60), threads.run(|| 1)).await;
        assert_eq!(statement.expect("it has a place").unwrap(), 1);
        assert!(begins.try_recv().is_err(), "a fourth query waits");
        for _ in 0..8 {
            end.send(()).unwrap();
        }
        while let Some(ended) = queries.join_next().await {
            ended.unwrap();
        }
    }
}

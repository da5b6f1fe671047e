//! POST /query and /query-stream: rows of push and pull queries and of PRINT, in the forms that clients ask for.
//!
//! A stream ends when its query does, when the client goes away (which ends the query), or when the server stops.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Version, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::channel::mpsc;
use millpond_engine::pull::PullResult;
use millpond_engine::push::{PrintQuery, PushQuery, Selected};
use millpond_engine::query::{ClientEvent, EndReason};
use millpond_types::Schema;
use serde::Deserialize;
use serde_json::json;

use crate::errors::{ApiError, BAD_REQUEST, BAD_STATEMENT, WholeBody};
use crate::ksql::{DELIMITED, JSON, StatementRequest, V1_JSON, V1_PROTOBUF, accepted};
use crate::protobuf::Messages;
use crate::rights::Speaker;
use crate::rows::{schema_text, type_text, write_batch_row};
use crate::{Shared, rows};

/// Chunks of a response that wait for a slow client; the query pauses behind them.
const CHUNKS_MAX: usize = 4;
/// A chunk is sent once it is this long.
const CHUNK_BYTES: usize = 64 << 10;
/// How long PRINT rests where there were no records. It rests here, so that it keeps no thread from others.
const PRINT_REST: Duration = Duration::from_millis(100);

/// Final messages, as clients know them.
const LIMIT_REACHED: &str = "Limit Reached";
const COMPLETED: &str = "Query Completed";

/// The ways to write a row stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A header object and one array per row, each on its line.
    Delimited,
    /// The same in one JSON array.
    Array,
    /// `StreamedRow` objects in one JSON array.
    Rows,
    /// The same, but each row is a Protobuf message.
    Messages,
}

impl Form {
    fn content_type(self, v1: &'static str) -> &'static str {
        match self {
            Self::Delimited => DELIMITED,
            Self::Array => JSON,
            Self::Rows => v1,
            Self::Messages => V1_PROTOBUF,
        }
    }

    /// `live`: rows come one by one, for an unknown time. Clients read lines, so each line is sent whole, and what
    /// follows it is there for sure: a live stream of `Rows` ends with a message.
    fn header(self, id: &str, schema: &Schema, live: bool, messages: Option<&Messages>) -> String {
        match self {
            Self::Delimited | Self::Array => {
                let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
                let types: Vec<String> = schema.columns.iter().map(|c| type_text(&c.ty)).collect();
                // Clients recognise the header by its first member.
                let body = format!(
                    "{{\"queryId\":{},\"columnNames\":{},\"columnTypes\":{}}}",
                    json!(id),
                    json!(names),
                    json!(types)
                );
                if self == Self::Array { format!("[{body}") } else { format!("{body}\n") }
            }
            Self::Rows | Self::Messages => {
                let header = match messages {
                    Some(messages) => json!({ "header": { "queryId": id, "protoSchema": messages.schema } }),
                    None => json!({ "header": { "queryId": id, "schema": schema_text(schema, !live) } }),
                };
                format!("[{header}{}", if live { ",\n" } else { "" })
            }
        }
    }

    fn row(self, out: &mut String, live: bool, tombstone: bool, write: impl FnOnce(&mut String)) {
        match self {
            Self::Delimited => {
                write(out);
                out.push('\n');
            }
            Self::Array => {
                out.push_str(",\n");
                write(out);
            }
            Self::Rows | Self::Messages => {
                out.push_str(if live { "{\"row\":{\"" } else { ",\n{\"row\":{\"" });
                out.push_str(if self == Self::Rows { "columns\":" } else { "protobufBytes\":" });
                write(out);
                out.push_str(if tombstone { ",\"tombstone\":true}}" } else { "}}" });
                if live {
                    out.push_str(",\n");
                }
            }
        }
    }

    /// What rows are written with where they are messages.
    fn messages(self, schema: &Schema) -> Result<Option<Messages>, ApiError> {
        if self != Self::Messages {
            return Ok(None);
        }
        Messages::new(schema).map(Some).map_err(|e| ApiError::new(BAD_REQUEST, e.message()))
    }

    fn end(self, message: Option<&str>) -> String {
        match (self, message) {
            (Self::Delimited, _) => String::new(),
            (Self::Array, _) | (Self::Rows | Self::Messages, None) => "]\n".to_string(),
            (Self::Rows | Self::Messages, Some(message)) => format!("{}]\n", json!({ "finalMessage": message })),
        }
    }

    fn error(self, message: &str) -> String {
        let body = format!(
            "{{\"@type\":\"generic_error\",\"error_code\":50000,\"message\":{}}}",
            serde_json::Value::from(message)
        );
        match self {
            Self::Delimited => format!("{body}\n"),
            Self::Array => format!(",\n{body}]\n"),
            Self::Rows | Self::Messages => format!("{{\"errorMessage\":{body}}}]\n"),
        }
    }
}

pub(crate) async fn query(
    State(app): State<Shared>,
    speaker: Speaker,
    version: Version,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Response {
    let v1 = accepted(&headers, &[V1_JSON, JSON]);
    let form = match accepted(&headers, &[V1_JSON, JSON, DELIMITED, V1_PROTOBUF]) {
        DELIMITED => Form::Delimited,
        V1_PROTOBUF => Form::Messages,
        _ => Form::Rows,
    };
    select(app, speaker, form, v1, version, &body).await.unwrap_or_else(IntoResponse::into_response)
}

pub(crate) async fn query_stream(
    State(app): State<Shared>,
    speaker: Speaker,
    version: Version,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Response {
    let form = match accepted(&headers, &[DELIMITED, JSON, V1_JSON, V1_PROTOBUF]) {
        JSON => Form::Array,
        V1_PROTOBUF => Form::Messages,
        V1_JSON => Form::Rows,
        _ => Form::Delimited,
    };
    select(app, speaker, form, V1_JSON, version, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn select(
    app: Shared,
    speaker: Speaker,
    form: Form,
    v1: &'static str,
    version: Version,
    body: &[u8],
) -> Result<Response, ApiError> {
    let request = StatementRequest::parse(body)?;
    let mut session = request.session();
    speaker.restrict(&mut session);
    let (engine, text) = (app.engine.clone(), request.ksql.clone());
    let selected = app.threads.run_query(move || engine.select(&text, &session)).await?;
    let selected = selected.map_err(|e| ApiError::statement(&e, &request.ksql))?;
    let (sender, receiver) = mpsc::channel::<String>(CHUNKS_MAX);
    let content = match selected {
        Selected::Pull(result) => {
            let messages = form.messages(&result.schema)?;
            spawn(pull(result, form, messages, sender));
            form.content_type(v1)
        }
        Selected::Push(query) => {
            let messages = form.messages(&query.schema)?;
            spawn(push(app, query, form, messages, sender));
            form.content_type(v1)
        }
        Selected::Print(print) => {
            if version == Version::HTTP_2 {
                return Err(ApiError::new(BAD_STATEMENT, "PRINT needs HTTP/1.1"));
            }
            spawn(print_lines(app, print, sender));
            "text/plain; charset=utf-8"
        }
    };
    let body = Body::from_stream(receiver.map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, content)], body).into_response())
}

/// The task ends with its receiver (the response body), which hyper drops when the connection closes.
#[allow(clippy::disallowed_methods, reason = "bounded by the response body it feeds")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn send(sender: &mut mpsc::Sender<String>, text: String) -> bool {
    use futures::SinkExt;
    text.is_empty() || sender.send(text).await.is_ok()
}

async fn pull(result: PullResult, form: Form, messages: Option<Messages>, mut sender: mpsc::Sender<String>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("query_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // Of a stream's rows the client is told why there are no more, as it is of a push query's.
    let of_stream = result.end.is_some();
    if !send(&mut sender, form.header(&id, &result.schema, of_stream, messages.as_ref())).await {
        return;
    }
    for batch in &result.batches {
        let ready = match messages.as_ref().map(|m| m.rows(batch.columns(), batch.num_rows())).transpose() {
            Ok(ready) => ready,
            Err(e) => {
                let comma = if of_stream { "" } else { ",\n" };
                send(&mut sender, format!("{comma}{}", form.error(e.message()))).await;
                return;
            }
        };
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            form.row(&mut text, of_stream, false, |out| match ready.as_ref().and_then(|r| r.get(row)) {
                Some(message) => out.push_str(message),
                None => write_batch_row(&result.schema, batch, row, out),
            });
            if text.len() >= CHUNK_BYTES && !send(&mut sender, std::mem::take(&mut text)).await {
                return;
            }
        }
        if !send(&mut sender, text).await {
            return;
        }
    }
    let end = result.end.map(|end| if end == EndReason::LimitReached { LIMIT_REACHED } else { COMPLETED });
    send(&mut sender, form.end(end)).await;
}

async fn push(
    app: Shared,
    mut query: PushQuery,
    form: Form,
    messages: Option<Messages>,
    mut sender: mpsc::Sender<String>,
) {
    let mut stop = app.stop.clone();
    if !send(&mut sender, form.header(&query.id, &query.schema, true, messages.as_ref())).await {
        return;
    }
    loop {
        let event = tokio::select! {
            event = query.rows.recv() => event,
            // The connection is gone: nobody will read another row.
            () = closed(&sender) => return,
            _ = stop.wait_for(|s| *s) => Some(ClientEvent::End(EndReason::Completed)),
        };
        let text = match event {
            Some(ClientEvent::Rows(rows)) => {
                let ready = match messages.as_ref().map(|m| m.rows(rows.columns(), rows.len())).transpose() {
                    Ok(ready) => ready,
                    Err(e) => {
                        send(&mut sender, form.error(e.message())).await;
                        return;
                    }
                };
                let mut text = String::new();
                for row in 0..rows.len() {
                    let tombstone = rows.is_tombstone(row);
                    if tombstone && !matches!(form, Form::Rows | Form::Messages) {
                        continue;
                    }
                    form.row(&mut text, true, tombstone, |out| match ready.as_ref().and_then(|r| r.get(row)) {
                        Some(message) => out.push_str(message),
                        None => rows::write_row(&query.schema, rows.columns(), row, out),
                    });
                    // Published clients take each chunk of this form for one line.
                    let is_full = form == Form::Delimited || text.len() >= CHUNK_BYTES;
                    if is_full && !send(&mut sender, std::mem::take(&mut text)).await {
                        return;
                    }
                }
                text
            }
            Some(ClientEvent::End(EndReason::LimitReached)) => {
                send(&mut sender, form.end(Some(LIMIT_REACHED))).await;
                return;
            }
            Some(ClientEvent::End(EndReason::Failed(why))) => {
                send(&mut sender, form.error(&why)).await;
                return;
            }
            Some(ClientEvent::End(EndReason::Completed)) | None => {
                send(&mut sender, form.end(Some(COMPLETED))).await;
                return;
            }
        };
        if !send(&mut sender, text).await {
            return;
        }
    }
}

/// Resolves when the receiver is gone.
async fn closed(sender: &mpsc::Sender<String>) {
    while !sender.is_closed() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn print_lines(app: Shared, mut print: PrintQuery, mut sender: mpsc::Sender<String>) {
    loop {
        if sender.is_closed() || *app.stop.borrow() {
            return;
        }
        let read = app.threads.run_query(move || {
            let lines = print.next_lines(Duration::ZERO);
            (print, lines)
        });
        let Ok((back, lines)) = read.await else { return };
        print = back;
        match lines {
            Ok(Some(lines)) if lines.is_empty() => tokio::time::sleep(PRINT_REST).await,
            Ok(Some(lines)) => {
                let mut text = String::new();
                for line in lines {
                    text.push_str(&line);
                    text.push('\n');
                    if text.len() >= CHUNK_BYTES && !send(&mut sender, std::mem::take(&mut text)).await {
                        return;
                    }
                }
                if !send(&mut sender, text).await {
                    return;
                }
            }
            Ok(None) => return,
            Err(e) => {
                send(&mut sender, format!("{e}\n")).await;
                return;
            }
        }
    }
}

#[derive(Deserialize)]
struct CloseRequest {
    #[serde(rename = "queryId")]
    query_id: String,
}

pub(crate) async fn close_query(
    State(app): State<Shared>,
    speaker: Speaker,
    WholeBody(body): WholeBody,
) -> Result<(), ApiError> {
    let request: CloseRequest = serde_json::from_slice(&body)
        .map_err(|e| ApiError::new(BAD_REQUEST, format!("expected {{\"queryId\": \"...\"}}: {e}")))?;
    if app.engine.close_push(&request.query_id, &speaker.session())? {
        Ok(())
    } else {
        Err(ApiError::new(BAD_STATEMENT, format!("No query with id {}", request.query_id)))
    }
}

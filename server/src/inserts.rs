//! POST /inserts-stream: one JSON object per line in, one acknowledgement per line out, while both go on (HTTP/2 only).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Version, header};
use axum::response::{IntoResponse, Response};
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use millpond_engine::inserts::Inserter;
use millpond_types::{ErrorKind, Reservation};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::errors::{ApiError, BAD_REQUEST, BAD_STATEMENT, HTTP2_ONLY, TIMEOUT, TOO_LARGE};
use crate::ksql::{DELIMITED, JSON, accepted};
use crate::pace::is_too_slow;
use crate::rights::Speaker;
use crate::{Shared, no_room};

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Acknowledgements that wait for a slow client; reading pauses behind them.
const ACKS_MAX: usize = 64;

#[derive(Deserialize)]
struct Target {
    target: String,
}

/// Splits a body into lines without holding more than one.
struct Lines {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
    ended: bool,
    /// Counts `rest`.
    room: Reservation,
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Vec<u8>, ApiError>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.rest.drain(..=end).collect();
                line.pop();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(Ok(line));
            }
            if self.ended {
                let line = std::mem::take(&mut self.rest);
                return (!line.iter().all(u8::is_ascii_whitespace)).then_some(Ok(line));
            }
            if self.rest.len() > LINE_BYTES_MAX {
                self.ended = true;
                self.rest.clear();
                let why = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                return Some(Err(ApiError::new(TOO_LARGE, why)));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => {
                    self.rest.extend_from_slice(&bytes);
                    if !self.room.try_set(self.rest.len()) {
                        self.ended = true;
                        self.rest = Vec::new();
                        self.room.set(0);
                        return Some(Err(no_room(self.room.pool())));
                    }
                }
                Some(Err(error)) if is_too_slow(&error) => {
                    // A part of a line is no row.
                    self.ended = true;
                    self.rest = Vec::new();
                    self.room.set(0);
                    let why = "nothing has come for as long as \"http_inserts_silence_max_ms\" allows";
                    return Some(Err(ApiError::new(TIMEOUT, why)));
                }
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}

/// Whether a request asks for an upgrade to HTTP/2. No server must accept that, and who asks reads both: the Python
/// client does so, and is answered in HTTP/1.1.
fn offers_http2(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    upgrade.is_some_and(|v| v.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("h2c")))
}

pub(crate) async fn inserts_stream(
    State(app): State<Shared>,
    speaker: Speaker,
    request: Request,
) -> Result<Response, ApiError> {
    if request.version() != Version::HTTP_2 && !offers_http2(request.headers()) {
        return Err(ApiError::new(HTTP2_ONLY, "The /inserts-stream endpoint is only available when using HTTP2"));
    }
    let form = accepted(request.headers(), &[DELIMITED, JSON]);
    let mut lines = Lines {
        body: request.into_body().into_data_stream(),
        rest: Vec::new(),
        ended: false,
        room: app.bodies.reservation(),
    };
    let first = lines.next().await.unwrap_or_else(|| Err(ApiError::new(BAD_REQUEST, "the body is empty")))?;
    let target: Target = serde_json::from_slice(&first).map_err(|e| {
        ApiError::new(
            BAD_REQUEST,
            format!("the first line must be {{\"target\": \"NAME\", \"properties\": {{}}}}: {e}"),
        )
    })?;
    let engine = app.engine.clone();
    let inserter = app.threads.run(move || engine.inserter(&target.target, &speaker.session())).await?;
    let inserter = Arc::new(inserter.map_err(|e| match e.kind() {
        ErrorKind::Forbidden => e.into(),
        _ => ApiError::new(BAD_STATEMENT, e.message()),
    })?);
    let (mut acks, receiver) = mpsc::channel::<String>(ACKS_MAX);
    #[allow(clippy::disallowed_methods, reason = "bounded by the response body it feeds")]
    tokio::spawn(async move {
        let array = form == JSON;
        let mut seq = 0_u64;
        if array && acks.send("[".into()).await.is_err() {
            return;
        }
        while let Some(line) = lines.next().await {
            let ack = match line {
                Err(e) => refused(&e, seq),
                Ok(line) => insert(&app, inserter.clone(), line, seq).await,
            };
            let text = match (array, seq) {
                (false, _) => format!("{ack}\n"),
                (true, 0) => ack.to_string(),
                (true, _) => format!(",\n{ack}"),
            };
            seq += 1;
            if acks.send(text).await.is_err() {
                return;
            }
        }
        if array {
            let _ = acks.send("]".into()).await;
        }
    });
    let body = Body::from_stream(receiver.map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, form)], body).into_response())
}

async fn insert(app: &Shared, inserter: Arc<Inserter>, line: Vec<u8>, seq: u64) -> Json {
    let done = app.inserts.run(move || inserter.insert_json(&line)).await;
    match done {
        Ok(Ok(())) => json!({ "status": "ok", "seq": seq }),
        Ok(Err(e)) => json!({ "status": "error", "seq": seq, "error_code": BAD_REQUEST, "message": e.message() }),
        Err(e) => refused(&e, seq),
    }
}

fn refused(error: &ApiError, seq: u64) -> Json {
    json!({ "status": "error", "seq": seq, "error_code": error.code, "message": error.body()["message"] })
}

//! Error bodies in ksqlDB's shape, and the one place where kinds become HTTP statuses.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use millpond_engine::error::{Problem, StatementError};
use millpond_types::ErrorKind;
use serde_json::{Value as Json, json};

use crate::entities;
use crate::pace::is_too_slow;

/// An answer that is an error. `code / 100` is the HTTP status.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub code: u32,
    body: Json,
}

pub(crate) const BAD_REQUEST: u32 = 40000;
pub(crate) const BAD_STATEMENT: u32 = 40001;
pub(crate) const QUERY_ENDPOINT: u32 = 40002;
pub(crate) const TOO_MANY_QUERIES: u32 = 40003;
pub(crate) const HTTP2_ONLY: u32 = 40004;
pub(crate) const UNAUTHORIZED: u32 = 40100;
/// What the rules of the log do not allow.
pub(crate) const FORBIDDEN: u32 = 40301;
pub(crate) const NOT_FOUND: u32 = 40400;
pub(crate) const METHOD: u32 = 40500;
/// The body came too slowly.
pub(crate) const TIMEOUT: u32 = 40800;
pub(crate) const CONFLICT: u32 = 40900;
pub(crate) const ASSERTION: u32 = 41700;
pub(crate) const TOO_LARGE: u32 = 41300;
pub(crate) const INTERNAL: u32 = 50000;
pub(crate) const UNAVAILABLE: u32 = 50300;

impl ApiError {
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, body: json!({ "@type": "generic_error", "error_code": code, "message": message.into() }) }
    }

    /// Adds a member to the body.
    pub fn with(mut self, name: &str, value: Json) -> Self {
        self.body[name] = value;
        self
    }

    pub fn body(&self) -> &Json {
        &self.body
    }

    /// A failed statement, as `/ksql` and the query endpoints tell it.
    pub fn statement(error: &StatementError, text: &str) -> Self {
        let code = code_of(&error.problem);
        if code == FORBIDDEN {
            return Self::new(code, error.problem.message());
        }
        let statement = if error.statement.is_empty() { text } else { &error.statement };
        let entities: Vec<Json> = error.done.iter().filter_map(entities::to_json).collect();
        let mut body = json!({
            "@type": "statement_error",
            "error_code": code,
            "message": message_of(&error.problem, text),
            "statementText": statement,
            "entities": entities,
        });
        if let Problem::Sql(d) = &error.problem {
            body["sqlCode"] = json!(d.code.as_str());
            body["hint"] = json!(d.hint);
            if let Some(span) = d.span {
                body["position"] = json!({ "start": span.start, "end": span.end });
            }
        }
        Self { code, body }
    }
}

/// Sentences, with line and column first, as ksqlDB's clients show them.
fn message_of(problem: &Problem, text: &str) -> String {
    match problem {
        Problem::Sql(d) => {
            let mut message = String::new();
            if let Some(span) = d.span {
                let before = text.get(..span.start.min(text.len())).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                message = format!("line {line}:{column}: ");
            }
            // What ksqlDB's clients look for where the text could not be read.
            if d.code.is_syntax() {
                message.push_str("Syntax Error\n");
            }
            message.push_str(&sentence(&d.message));
            if let Some(detail) = &d.detail {
                message.push(' ');
                message.push_str(&sentence(detail));
            }
            if let Some(hint) = &d.hint {
                message.push('\n');
                message.push_str(&sentence(hint));
            }
            message
        }
        other => sentence(&other.to_string()),
    }
}

/// With a capital letter and a full stop. What begins with a name in quotes or back-ticks keeps its beginning.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    // A property or a file keeps its name.
    let word = text.split_whitespace().next().unwrap_or_default();
    let first = if word.contains(['.', '_', '=', '/']) { first } else { first.to_ascii_uppercase() };
    let end = if text.ends_with(['.', '!', '?', ':']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

fn code_of(problem: &Problem) -> u32 {
    match problem {
        Problem::Assertion(_) => ASSERTION,
        Problem::GivesRows => QUERY_ENDPOINT,
        Problem::TooManyPushQueries(_) => TOO_MANY_QUERIES,
        Problem::Sql(d) if d.code == millpond_sql::diagnostic::Code::Bug => INTERNAL,
        Problem::Sql(_) => BAD_STATEMENT,
        Problem::Failed(e) => match e.kind() {
            // Also what a statement names and is not there: ksqlDB calls all of these bad statements.
            ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Unsupported => BAD_STATEMENT,
            ErrorKind::Forbidden => FORBIDDEN,
            ErrorKind::Retry => UNAVAILABLE,
            ErrorKind::Corrupt | ErrorKind::Bug => INTERNAL,
        },
    }
}

/// The code of an error outside of statements.
pub(crate) fn code_of_kind(kind: ErrorKind) -> u32 {
    match kind {
        ErrorKind::BadRequest | ErrorKind::Unsupported => BAD_REQUEST,
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::Conflict => CONFLICT,
        ErrorKind::Forbidden => FORBIDDEN,
        ErrorKind::Retry => UNAVAILABLE,
        ErrorKind::Corrupt | ErrorKind::Bug => INTERNAL,
    }
}

impl From<millpond_types::Error> for ApiError {
    fn from(e: millpond_types::Error) -> Self {
        Self::new(code_of_kind(e.kind()), e.message())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = u16::try_from(self.code / 100).ok().and_then(|s| StatusCode::from_u16(s).ok());
        let headers = [(header::CONTENT_TYPE, "application/json")];
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), headers, self.body.to_string()).into_response()
    }
}

/// A request's body, with ksqlDB's error where it is too large or breaks off.
pub(crate) struct WholeBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::new(TOO_LARGE, "the request is larger than the server's limit for it"))
            }
            Err(e) if is_too_slow(&e) => {
                Err(ApiError::new(TIMEOUT, "the request's body came too slowly, and its connection is closed"))
            }
            Err(e) => Err(ApiError::new(BAD_REQUEST, format!("the request's body could not be read: {e}"))),
        }
    }
}

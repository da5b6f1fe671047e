//! Talks to a server through its HTTP interface, the same that ksqlDB's clients use.
//!
//! Not here: what answers look like on a screen. A dropped [`Rows`] closes its connection, which ends the query.

use std::net::IpAddr;
use std::time::Duration;

use millpond::http_client::{self, Trust};
use reqwest::{RequestBuilder, Response, Url, header};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::rows::{Decoder, StreamedRow};
use super::session::Session;
use crate::kafka::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For requests that do no work on the server.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
const V1_JSON: &str = "application/vnd.ksql.v1+json";
/// What is shown of an answer that is no JSON.
const BODY_CHARS_MAX: usize = 200;

/// Why a request gave nothing.
#[derive(Debug)]
pub enum Failure {
    /// No server, or the connection was lost.
    Connection(String),
    /// The server refused the statement.
    Refused(Refusal),
}

/// The server's error body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    pub error_code: u32,
    pub message: String,
    /// What was done before the statement that failed.
    pub entities: Vec<Json>,
    #[serde(rename = "sqlCode")]
    pub sql_code: Option<String>,
    pub hint: Option<String>,
    /// Bytes of the text that was sent.
    pub position: Option<Position>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Position {
    pub start: usize,
    pub end: usize,
}

pub struct Client {
    http: reqwest::Client,
    base: Url,
    login: Login,
    authorities: Option<Vec<u8>>,
}

/// How a client says who it is.
#[derive(Clone)]
pub enum Login {
    Nobody,
    Password { user: String, password: String },
    Token(String),
}

/// The answer to a query: rows, or lines of text from PRINT.
pub enum Answer {
    Rows(Rows),
    Lines(Lines),
}

pub struct Rows {
    response: Response,
    decoder: Decoder,
}

pub struct Lines {
    response: Response,
    buffer: Vec<u8>,
}

/// Most bytes of one line of PRINT.
const LINE_BYTES_MAX: usize = 64 << 20;

impl Client {
    /// `authorities`: whose certificates are believed instead of those of the system, in PEM.
    pub fn new(server: &str, login: Login, authorities: Option<Vec<u8>>) -> Result<Self, String> {
        let base = server_url(server)?;
        let trust = match (base.scheme(), &authorities) {
            ("http", _) => Trust::Nobody,
            (_, None) => Trust::System,
            (_, Some(pem)) => Trust::Only(pem),
        };
        let builder = http_client::builder(trust).map_err(|e| format!("the file of --cacert: {e:#}"))?;
        let mut builder = builder.connect_timeout(CONNECT_TIMEOUT).http1_only();
        if is_here(&base) {
            // A proxy of the environment cannot reach this machine's own addresses.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| format!("cannot start an HTTP client: {}", reason(&e)))?;
        Ok(Self { http, base, login, authorities })
    }

    /// A client of another server, who gets to see who this one is only at the same host.
    pub fn of(&self, server: &str) -> Result<Self, String> {
        let same = server_url(server)?.origin() == self.base.origin();
        let login = if same { self.login.clone() } else { Login::Nobody };
        Self::new(server, login, self.authorities.clone())
    }

    /// What of a login everybody on the way to the server can read.
    pub fn in_the_open(&self) -> Option<&'static str> {
        match &self.login {
            _ if self.base.scheme() == "https" || is_here(&self.base) => None,
            Login::Nobody => None,
            Login::Password { .. } => Some("the password"),
            Login::Token(_) => Some("the token"),
        }
    }

    fn get(&self, url: Url) -> RequestBuilder {
        self.with_login(self.http.get(url))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.with_login(self.http.post(self.url(path)))
    }

    fn with_login(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Login::Nobody => request,
            Login::Password { user, password } => request.basic_auth(user, Some(password)),
            Login::Token(token) => request.bearer_auth(token),
        }
    }

    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// What the server says about itself.
    pub async fn info(&self) -> Result<Json, Failure> {
        let response = self.get(self.url("/info")).timeout(SHORT_TIMEOUT).send().await;
        let mut body: Json = self.json(response).await?;
        Ok(body["KsqlServerInfo"].take())
    }

    /// Runs statements other than queries.
    pub async fn execute(&self, text: &str, session: &Session) -> Result<Vec<Json>, Failure> {
        let response = self.post("/ksql").json(&request(text, session)).send().await;
        self.json(response).await
    }

    /// As [`Self::execute`], given up after a short time.
    pub async fn execute_shortly(&self, text: &str, session: &Session) -> Result<Vec<Json>, Failure> {
        let body = request(text, session);
        let response = self.post("/ksql").json(&body).timeout(SHORT_TIMEOUT).send().await;
        self.json(response).await
    }

    /// Starts a SELECT or PRINT.
    pub async fn query(&self, text: &str, session: &Session) -> Result<Answer, Failure> {
        let request = self.post("/query").header(header::ACCEPT, V1_JSON).json(&request(text, session));
        let response = self.checked(request.send().await).await?;
        let content = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(if content.starts_with("text/plain") {
            Answer::Lines(Lines { response, buffer: Vec::new() })
        } else {
            Answer::Rows(Rows { response, decoder: Decoder::default() })
        })
    }

    /// Ends a push query. That it has ended by itself is no error.
    pub async fn close(&self, query_id: &str) {
        let body = json!({ "queryId": query_id });
        // The connection is dropped as well, which ends the query too.
        let _ = self.post("/close-query").json(&body).timeout(SHORT_TIMEOUT).send().await;
    }

    /// Whether the server takes a property.
    pub async fn check_property(&self, name: &str) -> Result<(), Failure> {
        let mut url = self.url("/is_valid_property");
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(name);
        }
        self.checked(self.get(url).timeout(SHORT_TIMEOUT).send().await).await.map(|_| ())
    }

    async fn json<T: for<'a> Deserialize<'a>>(&self, response: reqwest::Result<Response>) -> Result<T, Failure> {
        let body = self.checked(response).await?.bytes().await.map_err(|e| self.lost(&e))?;
        serde_json::from_slice(&body)
            .map_err(|e| Failure::Connection(format!("{} does not answer like a server of ours: {e}", self.server())))
    }

    /// The response if it is a good one.
    async fn checked(&self, response: reqwest::Result<Response>) -> Result<Response, Failure> {
        let response = response.map_err(|e| self.lost(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|e| self.lost(&e))?;
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if !refusal.message.is_empty() => Err(Failure::Refused(refusal)),
            _ => {
                let shown: String = String::from_utf8_lossy(&body).chars().take(BODY_CHARS_MAX).collect();
                let message = format!("the server answered {status}: {}", shown.trim());
                Err(Failure::Refused(Refusal { message, ..Refusal::default() }))
            }
        }
    }

    fn lost(&self, error: &reqwest::Error) -> Failure {
        let server = self.server();
        let reason = reason(error);
        Failure::Connection(if error.is_connect() {
            format!("cannot reach the server at {server}: {reason}")
        } else if error.is_timeout() {
            format!("the server at {server} does not answer")
        } else if reason == NO_HTTP && self.base.scheme() == "http" {
            format!(
                "the server at {server} does not answer in HTTP; if it speaks TLS, its address begins with https://"
            )
        } else if reason == NO_ANSWER {
            format!(
                "the server at {server} closed the connection without an answer; is that its address for HTTP, and not \
                 the one for Kafka's clients?"
            )
        } else {
            format!("the connection to {server} was lost: {reason}")
        })
    }
}

impl Rows {
    /// The next member of the stream; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<StreamedRow>, String> {
        loop {
            if let Some(row) = self.decoder.next()? {
                return Ok(Some(row));
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.decoder.feed(&bytes)?,
                Ok(None) if self.decoder.is_empty() => return Ok(None),
                Ok(None) => return Err("the connection was lost in the middle of a row".to_string()),
                Err(e) => return Err(format!("the connection was lost: {}", reason(&e))),
            }
        }
    }
}

impl Lines {
    /// The next whole lines; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, String> {
        loop {
            if let Some(end) = self.buffer.iter().rposition(|b| *b == b'\n') {
                let text: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&text).lines().map(str::to_string).collect()));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(format!("the server sent a line of more than {LINE_BYTES_MAX} bytes"));
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => self.buffer.push(b'\n'),
                Err(e) => return Err(format!("the connection was lost: {}", reason(&e))),
            }
        }
    }
}

fn request(text: &str, session: &Session) -> Json {
    json!({
        "ksql": text,
        "streamsProperties": session.properties_json(),
        "sessionVariables": session.variables_json(),
    })
}

/// `host:port` means HTTP.
fn server_url(server: &str) -> Result<Url, String> {
    let server = server.trim();
    let text = if server.contains("://") { server.to_string() } else { format!("http://{server}") };
    let wrong = |why: &str| format!("\"{server}\" is not the address of a server: {why}; expected http://host:port");
    let url = Url::parse(&text).map_err(|e| wrong(&e.to_string()))?;
    match url.scheme() {
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
            // Not with the address, which would show the password.
            Err("a server's address with a user in it is not taken; give the user with --user".to_string())
        }
        "http" | "https" if url.has_host() => Ok(url),
        other => Err(wrong(&format!("unknown scheme \"{other}\""))),
    }
}

/// What hyper says of an answer that is not HTTP.
const NO_HTTP: &str = "invalid HTTP version parsed";
/// What hyper says where none came.
const NO_ANSWER: &str = "connection closed before message completed";

/// Whether a server is on this machine, by its address alone.
fn is_here(server: &Url) -> bool {
    let Some(host) = server.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// The innermost cause: the outer ones only say that a request failed.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        if let Some(problem) = cause.downcast_ref::<rustls::Error>().and_then(tls::problem) {
            return problem.to_string();
        }
        // Such an error's source is that of what it holds.
        let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match held.map(|held| held as _).or_else(|| cause.source()) {
            Some(inner) => cause = inner,
            None => return cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        let text = |server: &str| server_url(server).map(|url| url.to_string());
        assert_eq!(text("127.0.0.1:8088"), Ok("http://127.0.0.1:8088/".into()));
        assert_eq!(text("http://h:1/"), Ok("http://h:1/".into()));
        assert_eq!(text("https://h:1"), Ok("https://h:1/".into()));
        assert!(text("https://u:secret@h:1").is_err_and(|e| e.contains("--user") && !e.contains("secret")));
        assert!(text("ftp://h").is_err());
        assert!(text("http://").is_err());
    }

    #[test]
    fn secrets_cross_the_network_in_the_open_only_without_tls() {
        let password = || Login::Password { user: "u".into(), password: "p".into() };
        let open = |server: &str, login| Client::new(server, login, None).map(|client| client.in_the_open());
        assert_eq!(open("http://pond.example:1", password()), Ok(Some("the password")));
        assert_eq!(open("0.0.0.0:1", Login::Token("t".into())), Ok(Some("the token")));
        assert_eq!(open("http://pond.example:1", Login::Nobody), Ok(None));
        for here in ["localhost:1", "http://127.0.0.2:1", "http://[::1]:1", "https://pond.example"] {
            assert_eq!(open(here, password()), Ok(None), "{here}");
        }
    }
}

//! HTTP: ksqlDB's REST API, the schema registry's, upload of WebAssembly, metrics. The only crate that names axum.
//!
//! Handlers translate; what statements mean is the engine's business. Calls that may block run on blocking threads.
#![forbid(unsafe_code)]

mod access;
mod activity;
mod connection;
mod entities;
mod errors;
mod incoming;
mod info;
mod inserts;
mod ksql;
mod metrics;
mod pace;
mod places;
mod protobuf;
mod rights;
mod rows;
mod schemas;
mod stream;
mod streams;
mod udfs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post, put};
use millpond_engine::Engine;
use millpond_types::access::Authority;
use millpond_types::{Pool, Seldom};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use access::{Access, Checked, Shown};
pub use connection::ConnectionLimits;
use errors::{ApiError, METHOD, UNAVAILABLE};
pub use incoming::{Accepting, TlsSource};
use ksql::Threads;
pub use metrics::{MetricsSource, Sample, Value};
use pace::{Pace, Paced};

/// So much of a body that was refused for its size is taken and let go.
const REFUSED_BYTES_MAX: u64 = 64 << 20;
/// Scrapes of metrics at a time; more wait.
const SCRAPES_MAX: usize = 2;

/// Settings of the HTTP server, with their defaults.
#[derive(Clone)]
pub struct HttpOptions {
    /// Largest body of a statement request, in bytes.
    pub request_bytes_max: usize,
    /// Largest WebAssembly upload, in bytes.
    pub upload_bytes_max: usize,
    /// Bodies of all requests under way; who finds no room is told to come back.
    pub memory: Pool,
    /// How long open row streams may go on after shutdown began.
    pub shutdown_grace: Duration,
    /// What principals may do; everything where nobody says.
    pub authority: Option<Arc<dyn Authority>>,
    /// Whether the log takes records now; `/healthcheck` says so.
    pub is_writable: Arc<dyn Fn() -> bool + Send + Sync>,
    pub connections: ConnectionLimits,
    /// Statements that are run at a time, also those whose client has gone; more wait. Queries have three quarters of
    /// them; those that write rows are not among them.
    pub statements_max: usize,
    /// Statements and lines of streams that write rows at a time; more wait.
    pub inserts_max: usize,
    /// What a body must bring per second at least, but for the first `stall_timeout`.
    pub body_bytes_per_second_min: u64,
    /// Longest silence of a stream of inserts.
    pub inserts_silence_max: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            request_bytes_max: 4 << 20,
            upload_bytes_max: 64 << 20,
            memory: Pool::root("http_bodies", 256 << 20),
            shutdown_grace: Duration::from_secs(5),
            authority: None,
            is_writable: Arc::new(|| true),
            connections: ConnectionLimits::default(),
            statements_max: 64,
            inserts_max: 64,
            body_bytes_per_second_min: 8 << 10,
            inserts_silence_max: Duration::from_secs(600),
        }
    }
}

/// Who may come in, and how. By default everybody, without TLS.
#[derive(Clone, Default)]
pub struct HttpSecurity {
    /// Asked about whoever sends a request; where absent everybody is let in.
    pub access: Option<Arc<dyn Access>>,
    /// `/healthcheck` answers everybody all the same.
    pub healthcheck_open: bool,
    pub tls: Option<Arc<dyn TlsSource>>,
}

/// What handlers share.
pub(crate) struct App {
    pub engine: Engine,
    pub cluster_id: String,
    pub address: SocketAddr,
    pub metrics: Vec<Arc<dyn MetricsSource>>,
    pub authority: Option<Arc<dyn Authority>>,
    pub is_writable: Arc<dyn Fn() -> bool + Send + Sync>,
    pub stop: watch::Receiver<bool>,
    pub bodies: Pool,
    pub threads: Threads,
    /// Of statements and lines of streams that write rows, each of which waits until it is durable.
    pub inserts: Threads,
    /// Of scrapes, which do not wait for statements.
    pub scrapes: Threads,
}

pub(crate) type Shared = Arc<App>;

/// A running HTTP server. It ends when [`HttpServer::shutdown`] is called.
pub struct HttpServer {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    grace: Duration,
}

impl HttpServer {
    /// Ends row streams with a clean end, answers what is under way, closes.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(self.grace, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Serves the API on a listener that is bound already.
pub fn serve(
    listener: TcpListener,
    engine: Engine,
    cluster_id: String,
    metrics: Vec<Arc<dyn MetricsSource>>,
    options: HttpOptions,
    security: HttpSecurity,
) -> std::io::Result<HttpServer> {
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let authority = options.authority.clone();
    let is_writable = Arc::clone(&options.is_writable);
    let bodies = options.memory.clone();
    let threads = Threads::new(options.statements_max);
    let inserts = Threads::new(options.inserts_max);
    let scrapes = Threads::new(SCRAPES_MAX);
    let stop_app = stopped.clone();
    let app = Arc::new(App {
        engine,
        cluster_id,
        address,
        metrics,
        authority,
        is_writable,
        stop: stop_app,
        bodies,
        threads,
        inserts,
        scrapes,
    });
    let gate = access::Gate { access: security.access, healthcheck_open: security.healthcheck_open };
    let router = router(app, &options, gate);
    let service = incoming::Service {
        tls: security.tls,
        limits: options.connections,
        router,
        stopped,
        failures: Seldom::default(),
    };
    #[allow(clippy::disallowed_methods, reason = "awaited in HttpServer::shutdown")]
    let task = tokio::spawn(incoming::accept_all(listener, service));
    Ok(HttpServer { address, stop, task, grace: options.shutdown_grace })
}

fn router(app: Shared, options: &HttpOptions, gate: access::Gate) -> Router {
    let whole =
        Pace { silence_max: options.connections.stall_timeout, rate_min: Some(options.body_bytes_per_second_min) };
    let endless = Pace { silence_max: options.inserts_silence_max, rate_min: None };
    let uploads = Router::new()
        .route("/udfs", get(udfs::list))
        .route("/udfs/{name}", put(udfs::upload).get(udfs::show).delete(udfs::delete))
        .layer(DefaultBodyLimit::max(options.upload_bytes_max))
        .layer(from_fn_with_state(whole, paced))
        .layer(from_fn_with_state(Bodies::of(options, options.upload_bytes_max), counted));
    let rest = Router::new()
        .route("/", get(info::root))
        .route("/info", get(info::info))
        .route("/healthcheck", get(info::healthcheck))
        .route("/clusterStatus", get(info::cluster_status))
        .route("/chc/ready", get(info::ready))
        .route("/chc/live", get(info::ready))
        .route("/v1/metadata", get(info::metadata))
        .route("/v1/metadata/id", get(info::metadata_id))
        .route("/is_valid_property/{name}", get(info::is_valid_property))
        .route("/metrics", get(metrics::metrics))
        .route("/processing-log", get(info::processing_log))
        .route("/ksql", post(ksql::ksql))
        .route("/query", post(stream::query))
        .route("/query-stream", post(stream::query_stream))
        .route("/close-query", post(stream::close_query))
        .merge(schemas::routes())
        .layer(DefaultBodyLimit::max(options.request_bytes_max))
        .layer(from_fn_with_state(whole, paced))
        .layer(from_fn_with_state(Bodies::of(options, options.request_bytes_max), counted));
    // Its body is a stream without an end; lines are limited one by one.
    let inserts =
        Router::new().route("/inserts-stream", post(inserts::inserts_stream)).layer(DefaultBodyLimit::disable());
    let inserts = inserts.layer(from_fn_with_state(endless, paced));
    uploads
        .merge(rest)
        .merge(inserts)
        .fallback(|| async { (StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::new(METHOD, "this path does not take this method") })
        .layer(axum::middleware::from_fn_with_state(gate, access::check))
        .with_state(app)
}

/// What bodies of some routes are counted against.
#[derive(Clone)]
struct Bodies {
    pool: Pool,
    /// Longest of them; what a body without a length counts as.
    bytes_max: usize,
}

impl Bodies {
    fn of(options: &HttpOptions, bytes_max: usize) -> Self {
        Self { pool: options.memory.clone(), bytes_max }
    }
}

/// Counts a request's body until the request is answered.
async fn counted(State(bodies): State<Bodies>, request: Request, next: Next) -> Result<Response, ApiError> {
    if matches!(*request.method(), Method::GET | Method::DELETE) {
        return Ok(next.run(request).await);
    }
    let told = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let told = told.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    // What is longer is refused by its own limit.
    let bytes = told.unwrap_or(bodies.bytes_max).min(bodies.bytes_max);
    let Some(room) = bodies.pool.try_reserve(bytes) else { return Err(no_room(&bodies.pool)) };
    let response = next.run(request).await;
    drop(room);
    Ok(response)
}

/// Has a request's body come at a pace. Of one that is too large the rest is taken before the answer: a connection that is
/// closed while its client still writes may lose the answer.
async fn paced(State(pace): State<Pace>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = pace::Shared::new(Paced::new(body, pace));
    let response = next.run(Request::from_parts(parts, Body::new(body.clone()))).await;
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        body.take_rest(REFUSED_BYTES_MAX).await;
    }
    response
}

pub(crate) fn no_room(pool: &Pool) -> ApiError {
    let (left, limit) = (pool.left(), pool.limit());
    ApiError::new(
        UNAVAILABLE,
        format!("the memory for request bodies is used up: {left} bytes are left of {limit}; try again later"),
    )
}

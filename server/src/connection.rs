//! One connection: HTTP spoken on it, requests handed on, and its end when its client makes no progress.
//!
//! Not here: taking connections (`incoming`), what requests do (the router). Invariant: a connection is closed once its
//! client has been idle, slow to ask or slow to take its answers for as long as [`ConnectionLimits`] say; of HTTP/2 only
//! the streams that are not taken end, while there are others.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{Request, Version};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::debug;

use crate::activity::{Activity, Answering};
use crate::errors::{ApiError, UNAVAILABLE};
use crate::incoming::{Io, Peer, stopping};
use crate::places::{Full, Places};
use crate::streams::Streams;

/// An answer whose length is known, and all of HTTP/2, is handed over in pieces of this many bytes.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;
/// Least that hyper takes as a limit of its buffers.
const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// Most that HTTP/2 has as a window.
const BUFFER_BYTES_MAX: usize = (u32::MAX >> 1) as usize;
/// How long a connection that is closed has for its last words.
const CLOSING: Duration = Duration::from_secs(1);
/// Streams that a client may reset before they were looked at, and that were reset for its errors, before it has to go.
const RESETS_MAX: usize = 20;
const ERROR_RESETS_MAX: usize = 256;

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// At a time; more are turned away.
    pub connections_max: usize,
    /// Of one address (of IPv6: of one /64).
    pub connections_per_address_max: usize,
    /// Requests under way, of all connections; more are answered with 503. One address has at most half of them.
    pub requests_max: usize,
    /// From the connection to its first byte, and for agreeing on TLS.
    pub handshake_timeout: Duration,
    /// That have sent nothing yet or agree on TLS, at a time; more are turned away. One address has at most half of them.
    pub handshakes_max: usize,
    /// From a request's first byte to the end of its headers.
    pub headers_timeout: Duration,
    /// Headers of one request; also what a connection buffers in each direction.
    pub headers_bytes_max: usize,
    /// A connection without any request is closed after this.
    pub idle_timeout: Duration,
    /// Longest silence in the middle of a body, and longest time for taking 16 KiB of an answer.
    pub stall_timeout: Duration,
    /// Whether a client is still there is asked this often.
    pub ping_interval: Duration,
    /// Requests at a time on one connection of HTTP/2.
    pub streams_max: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 2000,
            connections_per_address_max: 1000,
            requests_max: 4000,
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 1000,
            headers_timeout: Duration::from_secs(15),
            headers_bytes_max: 64 << 10,
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(120),
            ping_interval: Duration::from_secs(30),
            streams_max: 100,
        }
    }
}

impl ConnectionLimits {
    /// How often it is looked whether a connection makes progress.
    fn look(&self) -> Duration {
        let least = self.headers_timeout.min(self.idle_timeout).min(self.stall_timeout);
        (least / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    fn builder(&self) -> Builder<Streams> {
        let buffer = self.headers_bytes_max.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        let window = u32::try_from(buffer).unwrap_or(u32::MAX >> 1);
        let mut builder = Builder::new(Streams);
        // Headers that come slowly are looked for here, as HTTP/2's are.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(buffer);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(window)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .max_send_buf_size(buffer)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(ERROR_RESETS_MAX)
            .keep_alive_interval(self.ping_interval)
            .keep_alive_timeout(self.ping_interval);
        builder
    }
}

/// Serves a connection until its end, or that of the server.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    requests: Arc<Places>,
    limits: &ConnectionLimits,
    mut stopped: watch::Receiver<bool>,
) {
    let activity = Activity::new();
    let io = TokioIo::new(Io::new(stream, Arc::clone(&activity)));
    let remote = peer.address;
    let router = TowerToHyperService::new(router);
    let of_service = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let is_http2 = request.version() == Version::HTTP_2;
        let answering = of_service.begin(is_http2);
        let place = requests.take(peer.address.ip());
        let answered = place.map(|place| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            (router.call(request), place)
        });
        async move {
            let (response, place) = match answered {
                Ok((answer, place)) => (answer.await?, Some(place)),
                Err(full) => (too_many(full), None),
            };
            let head = is_http2 || response.body().size_hint().exact().is_some();
            let piece_bytes = if head { PIECE_BYTES } else { usize::MAX };
            let answer = |body| Answer { body, rest: Bytes::new(), piece_bytes, answering, _place: place };
            Ok::<_, Infallible>(response.map(answer))
        }
    });
    let builder = limits.builder();
    let mut connection = pin!(builder.serve_connection(io, service));
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%remote, error, "connection ended by an error");
                }
                return;
            }
            () = stopping(&mut stopped) => {
                // The server waits for it, and cuts it off when that takes too long.
                connection.as_mut().graceful_shutdown();
                let _ended = connection.await;
                return;
            }
            () = tokio::time::sleep(limits.look()) => {
                if let Some(limit) = activity.overdue(limits) {
                    debug!(%remote, limit, "connection closed: its client makes no progress");
                    connection.as_mut().graceful_shutdown();
                    let _ended = tokio::time::timeout(CLOSING, connection).await;
                    return;
                }
            }
        }
    }
}

fn too_many(full: Full) -> axum::response::Response {
    let of = if full == Full::All { "" } else { " of one address, which has at most half of them," };
    let message = format!("too many requests{of} are under way; try again later, or raise \"http_requests_max\"");
    ApiError::new(UNAVAILABLE, message).into_response()
}

/// The body of an answer, which knows whether its client takes it.
struct Answer {
    body: Body,
    /// Given by the body and not handed on.
    rest: Bytes,
    piece_bytes: usize,
    answering: Answering,
    _place: Option<crate::places::Place>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.answering.taken();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end_or_error => return Poll::Ready(end_or_error),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(this.piece_bytes));
        this.answering.given();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact.saturating_add(rest)),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_length_of_headers_is_too_large_for_windows_and_buffers() {
        for headers_bytes_max in [0, 4 << 30, usize::MAX] {
            // It panics where one of them does not fit.
            let _builder = ConnectionLimits { headers_bytes_max, ..ConnectionLimits::default() }.builder();
        }
    }
}

//! Connections as they come in, with TLS agreed on where the server speaks it; each is then served in a task of its own.
//!
//! Invariant: no client that is slow or silent keeps others from coming in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use millpond_types::{Principal, Seldom};
use rustls::ServerConnection;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, info};

use crate::activity::Activity;
use crate::connection::{self, ConnectionLimits};
use crate::places::{Full, Place, Places};

/// How long the listener rests when a connection cannot be accepted, as when files have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How a connection of TLS begins; no request does.
const TLS_HANDSHAKE: u8 = 0x16;

pub type Accepting<'a> = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send + 'a>>;

/// TLS as it is now.
pub trait TlsSource: Send + Sync {
    /// Agrees on TLS with a client that has connected from there.
    fn accept(&self, socket: TcpStream, from: IpAddr) -> Accepting<'_>;

    /// Whom the client's certificate is about, where it showed one; why it is about nobody.
    fn principal(&self, connection: &ServerConnection) -> Result<Option<Principal>, String>;
}

/// Whom a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub principal: Option<Principal>,
}

/// What every connection is served with.
pub(crate) struct Service {
    pub tls: Option<Arc<dyn TlsSource>>,
    pub limits: ConnectionLimits,
    pub router: Router,
    pub stopped: watch::Receiver<bool>,
    /// Connections on which TLS does not come about.
    pub failures: Seldom,
}

/// Takes connections and serves them, until the server stops and they have ended.
pub(crate) async fn accept_all(listener: TcpListener, service: Service) {
    let mut stopped = service.stopped.clone();
    let limits = &service.limits;
    let places = Places::new(limits.connections_max, limits.connections_per_address_max);
    // Of an odd number one address has the greater part, so that there is one.
    let requests = Places::new(limits.requests_max, limits.requests_max.div_ceil(2));
    let handshakes = Places::new(limits.handshakes_max, limits.handshakes_max.div_ceil(2));
    let service = Arc::new(service);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping(&mut stopped) => break,
            Some(ended) = connections.join_next() => reap(ended),
            accepted = listener.accept() => {
                let (socket, remote) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_REST).await;
                        continue;
                    }
                };
                let Ok(handshake) = handshakes.take(remote.ip()) else {
                    debug!(%remote, "connection refused: \"handshakes_max\" have not begun to speak");
                    continue;
                };
                let place = match places.take(remote.ip()) {
                    Ok(place) => place,
                    Err(Full::All) => {
                        debug!(%remote, "connection refused: there are \"http_connections_max\"");
                        continue;
                    }
                    Err(Full::Address) => {
                        debug!(%remote, "connection refused: its address has \"http_connections_per_address_max\"");
                        continue;
                    }
                };
                hints(&socket, service.limits.ping_interval);
                let (service, requests) = (Arc::clone(&service), Arc::clone(&requests));
                connections.spawn(async move {
                    serve(socket, remote, &service, requests, handshake).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        reap(ended);
    }
}

/// Hints to the system: answers at once; whoever has vanished is noticed, also where nothing is to be sent.
fn hints(socket: &TcpStream, ping_interval: Duration) {
    let keepalive = TcpKeepalive::new().with_time(ping_interval).with_interval(ping_interval);
    let _hint = socket.set_nodelay(true);
    let _hint = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

fn reap(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "an HTTP connection ended by a defect");
    }
}

pub(crate) async fn stopping(stopped: &mut watch::Receiver<bool>) {
    // An error says that whoever stops it is gone, which is the same.
    let _gone = stopped.wait_for(|stop| *stop).await.is_err();
}

async fn serve(socket: TcpStream, remote: SocketAddr, service: &Service, requests: Arc<Places>, handshake: Place) {
    let (limits, mut stopped) = (&service.limits, service.stopped.clone());
    let begun = tokio::select! {
        begun = begin(socket, remote.ip(), service.tls.as_deref(), limits.handshake_timeout) => begun,
        () = stopping(&mut stopped) => return,
    };
    drop(handshake);
    let router = service.router.clone();
    match begun {
        Ok((Stream::Plain(stream), principal)) => {
            connection::serve(stream, Peer { address: remote, principal }, router, requests, limits, stopped).await;
        }
        Ok((Stream::Tls(stream), principal)) => {
            connection::serve(stream, Peer { address: remote, principal }, router, requests, limits, stopped).await;
        }
        Err(Ended::Silent(reason)) => debug!(%remote, reason, "connection closed before its first request"),
        // At the level, and in the words, of Kafka's listeners.
        Err(Ended::Tls) => {
            if let Some(left_out) = service.failures.due() {
                info!(%remote, listener = "HTTP", left_out, "connection closed: TLS on a listener of plain text");
            }
        }
        Err(Ended::NoTls(reason)) => {
            if let Some(left_out) = service.failures.due() {
                info!(%remote, listener = "HTTP", reason, left_out, "connection closed: no TLS");
            }
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why a connection ended before its first request.
enum Ended {
    /// It said nothing, to a listener of plain text.
    Silent(String),
    /// It spoke TLS to a listener of plain text.
    Tls,
    NoTls(String),
}

/// Waits for the first byte, and agrees on TLS where it is spoken.
async fn begin(
    socket: TcpStream,
    from: IpAddr,
    tls: Option<&dyn TlsSource>,
    timeout: Duration,
) -> Result<(Stream, Option<Principal>), Ended> {
    let late = |_| "it took too long".to_owned();
    let Some(tls) = tls else {
        // The system may call a socket readable on which nothing came.
        let mut first = [0];
        let read = tokio::time::timeout(timeout, socket.peek(&mut first)).await;
        read.map_err(late).and_then(|read| read.map_err(|e| e.to_string())).map_err(Ended::Silent)?;
        if first == [TLS_HANDSHAKE] {
            return Err(Ended::Tls);
        }
        return Ok((Stream::Plain(socket), None));
    };
    let agreed = tokio::time::timeout(timeout, tls.accept(socket, from)).await;
    let stream = agreed.map_err(late).and_then(|agreed| agreed.map_err(|e| e.to_string())).map_err(Ended::NoTls)?;
    let principal = tls.principal(stream.get_ref().1).map_err(Ended::NoTls)?;
    Ok((Stream::Tls(Box::new(stream)), principal))
}

/// A connection's bytes; each that comes and goes is told.
pub(crate) struct Io<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Io<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn told(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.activity.wrote(*bytes);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Io<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Connections as they come in, with TLS agreed on where the server speaks it.
//!
//! Invariant: no client that is slow or silent keeps others from coming in.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use millpond_types::Principal;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// Connections that agreed and wait to be served.
const READY_MAX: usize = 64;
/// How long the listener rests when a connection cannot be accepted, as when files have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// TLS as it is now.
pub trait TlsSource: Send + Sync {
    /// For the next connection.
    fn config(&self) -> Arc<ServerConfig>;

    /// Whom the client's certificate is about, where it showed one; why it is about nobody.
    fn principal(&self, connection: &ServerConnection) -> Result<Option<Principal>, String>;
}

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeLimits {
    /// From the connection to its first byte, and for agreeing on TLS.
    pub timeout: Duration,
    /// That have sent nothing yet or agree on TLS, at a time; more are turned away.
    pub handshakes_max: usize,
    /// In all, at a time; more are turned away.
    pub connections_max: usize,
}

/// Whom a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub principal: Option<Principal>,
}

/// A connection in the one way or the other, with its place among all.
pub(crate) enum Io {
    Plain(TcpStream, #[expect(dead_code, reason = "given back at the end")] OwnedSemaphorePermit),
    Tls(
        Box<TlsStream<TcpStream>>,
        Option<Principal>,
        #[expect(dead_code, reason = "given back at the end")] OwnedSemaphorePermit,
    ),
}

/// All that come in.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<(Io, SocketAddr)>,
    address: SocketAddr,
}

impl Incoming {
    /// What comes in, and the work that has to be done for it until the server stops.
    pub fn new(
        listener: TcpListener,
        tls: Option<Arc<dyn TlsSource>>,
        limits: HandshakeLimits,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send)> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        Ok((Self { ready, address }, accept_all(listener, tls, limits, stopped, sender)))
    }
}

async fn accept_all(
    listener: TcpListener,
    tls: Option<Arc<dyn TlsSource>>,
    limits: HandshakeLimits,
    mut stopped: watch::Receiver<bool>,
    ready: mpsc::Sender<(Io, SocketAddr)>,
) {
    let mut handshakes = JoinSet::new();
    let places = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    loop {
        tokio::select! {
            () = stopping(&mut stopped) => break,
            Some(_ended) = handshakes.join_next() => {}
            accepted = listener.accept() => {
                let (socket, remote) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_REST).await;
                        continue;
                    }
                };
                // Only a hint to the system.
                let _hint = socket.set_nodelay(true);
                if handshakes.len() >= limits.handshakes_max {
                    debug!(%remote, "connection refused: \"handshakes_max\" have not begun to speak");
                    continue;
                }
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    debug!(%remote, "connection refused: there are \"http_connections_max\"");
                    continue;
                };
                let (tls, ready) = (tls.clone(), ready.clone());
                handshakes.spawn(async move {
                    match begin(socket, tls.as_deref(), place, limits.timeout).await {
                        // Whoever would serve it may be gone.
                        Ok(io) => drop(ready.send((io, remote)).await),
                        Err(reason) => debug!(%remote, reason, "connection closed before its first request"),
                    }
                });
            }
        }
    }
    handshakes.shutdown().await;
}

async fn stopping(stopped: &mut watch::Receiver<bool>) {
    // An error says that whoever stops it is gone, which is the same.
    let _gone = stopped.wait_for(|stop| *stop).await.is_err();
}

/// Waits for the first byte, and agrees on TLS where it is spoken.
async fn begin(
    socket: TcpStream,
    tls: Option<&dyn TlsSource>,
    place: OwnedSemaphorePermit,
    timeout: Duration,
) -> Result<Io, String> {
    let late = |_| "it took too long".to_owned();
    let Some(tls) = tls else {
        tokio::time::timeout(timeout, socket.readable()).await.map_err(late)?.map_err(|e| e.to_string())?;
        return Ok(Io::Plain(socket, place));
    };
    let agreed = tokio::time::timeout(timeout, TlsAcceptor::from(tls.config()).accept(socket)).await;
    let stream = agreed.map_err(late)?.map_err(|e| e.to_string())?;
    let principal = tls.principal(stream.get_ref().1)?;
    Ok(Io::Tls(Box::new(stream), principal, place))
}

impl Listener for Incoming {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The server stops: nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        let principal = match stream.io() {
            Io::Plain(..) => None,
            Io::Tls(_, principal, _) => principal.clone(),
        };
        Self { address: *stream.remote_addr(), principal }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream, ..) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream, ..) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream, ..) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, ..) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, ..) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

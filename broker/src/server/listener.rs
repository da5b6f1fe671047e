//! Where connections come in: a bound socket with what is spoken on it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::{TcpListener, TcpStream};

use millpond_types::Seldom;

use crate::metrics::ListenerCount;
use crate::security::sasl::Sasl;
use crate::security::scram::ScramMechanism;
use crate::security::tls::Tls;
use crate::security::{Authenticator, Caller, Endpoint, Mechanism, Principal};
use crate::storage::StorageError;

/// A listener to be served.
pub struct Listener {
    pub socket: TcpListener,
    pub endpoint: Endpoint,
    /// For a protocol with TLS.
    pub tls: Option<Arc<Tls>>,
    /// What is offered where the protocol has SASL.
    pub mechanisms: Vec<Mechanism>,
}

impl Listener {
    /// Mechanisms that are offered where nobody chose: passwords in plain text only within TLS.
    pub fn default_mechanisms(tls: bool, tokens: bool) -> Vec<Mechanism> {
        let mut all = ScramMechanism::ALL.map(Mechanism::Scram).to_vec();
        if tls {
            all.push(Mechanism::Plain);
        }
        if tls && tokens {
            all.push(Mechanism::OAuthBearer);
        }
        all
    }
}

impl From<TcpListener> for Listener {
    /// Plain text for everybody.
    fn from(socket: TcpListener) -> Self {
        Self { socket, endpoint: Endpoint::default(), tls: None, mechanisms: Vec::new() }
    }
}

/// A listener that is served.
pub(super) struct Listening {
    socket: TcpListener,
    pub address: SocketAddr,
    pub endpoint: Arc<Endpoint>,
    pub tls: Option<Arc<Tls>>,
    mechanisms: Arc<[Mechanism]>,
    /// Lines about connections that failed before they said anything.
    pub failures: Seldom,
    pub count: Arc<ListenerCount>,
}

impl Listening {
    pub fn of(listener: Listener) -> Result<Self, StorageError> {
        let Listener { socket, endpoint, tls, mechanisms } = listener;
        let (name, protocol) = (&endpoint.name, endpoint.protocol);
        let gone = |e: io::Error| StorageError::Unavailable(format!("the listener \"{name}\" is gone: {e}"));
        let address = socket.local_addr().map_err(gone)?;
        if protocol.is_tls() != tls.is_some() {
            let problem = if tls.is_some() { "cannot have" } else { "needs" };
            let message = format!("listener \"{name}\" speaks {protocol} and {problem} a certificate");
            return Err(StorageError::InvalidRequest(message));
        }
        if protocol.is_sasl() == mechanisms.is_empty() {
            let problem = if mechanisms.is_empty() { "needs" } else { "cannot have" };
            let message = format!("listener \"{name}\" speaks {protocol} and {problem} mechanisms");
            return Err(StorageError::InvalidRequest(message));
        }
        Ok(Self {
            socket,
            address,
            endpoint: Arc::new(endpoint),
            tls,
            mechanisms: mechanisms.into(),
            failures: Seldom::default(),
            count: Arc::default(),
        })
    }

    /// What is known of somebody who has just come.
    pub fn caller(&self, remote: SocketAddr, local: SocketAddr, authenticator: &Arc<Authenticator>) -> Caller {
        let sasl = self.endpoint.protocol.is_sasl().then(|| {
            let from = remote.ip().to_canonical();
            Arc::new(Sasl::new(Arc::clone(authenticator), Arc::clone(&self.mechanisms), from))
        });
        Caller {
            principal: Principal::anonymous(),
            remote,
            local,
            listener: Arc::clone(&self.endpoint),
            decisions: Arc::default(),
            sasl,
        }
    }
}

/// The next connection of any of these; `first` goes around, so that a busy one does not starve the others.
pub(super) async fn accept(
    listeners: &[Arc<Listening>],
    first: &mut usize,
) -> (Arc<Listening>, io::Result<(TcpStream, SocketAddr)>) {
    poll_fn(|cx| {
        let (before, from) = listeners.split_at((*first).min(listeners.len()));
        for listener in from.iter().chain(before) {
            if let Poll::Ready(accepted) = listener.socket.poll_accept(cx) {
                *first = if listeners.is_empty() { 0 } else { (*first + 1) % listeners.len() };
                return Poll::Ready((Arc::clone(listener), accepted));
            }
        }
        Poll::Pending
    })
    .await
}

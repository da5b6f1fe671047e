//! What is known of whoever sent a request: the principal, the ends of the connection, the listener.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use millpond_types::Principal;

use super::authorizer::Decisions;
use super::sasl::Sasl;

/// What is spoken on a listener before requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityProtocol {
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SecurityProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];
        all.into_iter().find(|p| p.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            format!("\"{text}\" is not a security protocol; there are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL")
        })
    }
}

/// A listener as clients know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub protocol: SecurityProtocol,
    /// Host and port that clients are told; without it the address that they came in on.
    pub advertised: Option<(String, u16)>,
}

impl Default for Endpoint {
    fn default() -> Self {
        let protocol = SecurityProtocol::default();
        Self { name: protocol.name().to_owned(), protocol, advertised: None }
    }
}

/// Whoever sent a request, and over which connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub principal: Principal,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub listener: Arc<Endpoint>,
    /// What this connection was told that it may do.
    pub decisions: Arc<Decisions>,
    /// How the connection authenticates, where its listener has it do so.
    pub sasl: Option<Arc<Sasl>>,
}

impl Caller {
    /// Somebody on this machine.
    pub fn local() -> Self {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        Self {
            principal: Principal::anonymous(),
            remote: here,
            local: here,
            listener: Arc::default(),
            decisions: Arc::default(),
            sasl: None,
        }
    }

    /// Where the connection comes from; an IPv4 address that came as one of IPv6 is one of IPv4.
    pub fn host(&self) -> IpAddr {
        self.remote.ip().to_canonical()
    }
}

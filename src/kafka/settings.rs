//! How a cluster is reached: addresses, TLS, who one is, how long one waits.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

/// The answer to one request.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Array elements in one answer.
pub const RESPONSE_ELEMENTS_MAX: usize = 2_000_000;
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
pub const PORT_DEFAULT: u16 = 9092;

#[derive(Clone, Debug)]
pub struct Settings {
    pub bootstrap: Vec<Address>,
    pub tls: Option<Tls>,
    pub login: Option<Login>,
    pub client_id: String,
    /// For one request, and for all attempts at it together.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        // Kafka's own form of a listener's address.
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') && host.ends_with(']') => {
                (host, Some(port))
            }
            _ => (rest, None),
        };
        let host = host.trim_matches(['[', ']']);
        let port = match port {
            None => Some(PORT_DEFAULT),
            Some(port) => port.parse().ok().filter(|port| *port != 0),
        };
        match port {
            Some(port) if !host.is_empty() => Ok(Self { host: host.to_string(), port }),
            _ => bail!("\"{text}\" is not an address; expected HOST:PORT"),
        }
    }

    /// Whether what is sent there does not leave this machine.
    pub fn is_here(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().map_or(self.host == "localhost", |address| address.is_loopback())
    }

    pub fn list(text: &str) -> Result<Vec<Self>> {
        let addresses: Vec<_> =
            text.split(',').filter(|part| !part.trim().is_empty()).map(Self::parse).collect::<Result<_>>()?;
        if addresses.is_empty() {
            bail!("no address is given; expected HOST:PORT, with commas between several");
        }
        Ok(addresses)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Certificates and keys, each in a file or as text, in PEM form.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who may sign the broker's certificate; the system's authorities where absent.
    pub authorities: Option<Pem>,
    pub certificate: Option<Pem>,
    pub key: Option<Pem>,
    /// The certificate need not name the host.
    pub any_name: bool,
}

#[derive(Clone, Debug)]
pub enum Pem {
    File(PathBuf),
    Text(Secret),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OauthBearer,
}

impl Mechanism {
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_uppercase().as_str() {
            "PLAIN" => Self::Plain,
            "SCRAM-SHA-256" => Self::ScramSha256,
            "SCRAM-SHA-512" => Self::ScramSha512,
            "OAUTHBEARER" => Self::OauthBearer,
            _ => bail!(
                "SASL mechanism \"{text}\" is not supported; there are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER"
            ),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// Who one is.
#[derive(Clone, Debug)]
pub struct Login {
    pub mechanism: Mechanism,
    /// Empty for OAUTHBEARER.
    pub user: String,
    /// The password; for OAUTHBEARER the token.
    pub secret: Secret,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let shown = |text| Address::list(text).map(|a| a.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        assert_eq!(shown("a:1, b ,[::1]:7,::1").unwrap(), "a:1 b:9092 [::1]:7 [::1]:9092");
        assert_eq!(shown("SASL_SSL://a:1").unwrap(), "a:1");
        for wrong in ["", ",", ":9092", "a:b", "a:0", "a:70000"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        let login = Login { mechanism: Mechanism::Plain, user: "u".into(), secret: Secret("hush".into()) };
        assert!(!format!("{login:?}").contains("hush"));
    }
}

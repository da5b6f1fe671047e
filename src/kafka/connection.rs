//! One connection to one broker: TLS, versions, login, then requests and their answers, one after the other.
//!
//! Invariant: after an error it must not be used any more; what was read of an answer is gone.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::apis::Api;
use super::error::Error;
use super::sasl::Exchange;
use super::settings::{Address, Login, RESPONSE_BYTES_MAX, RESPONSE_ELEMENTS_MAX};
use super::{text, tls};

/// Room that is made before the bytes of an answer come.
const READ_AHEAD: usize = 1 << 20;
const SASL_ROUNDS_MAX: usize = 8;
const CLOSED: &str = "the broker closed it";
/// What ends a connection that has just begun looks the same.
const FULL: &str = "else it may have as many connections as its limits allow";
const CONNECT_MAX: Duration = Duration::from_secs(10);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What all connections of one client share.
pub struct Greeting {
    pub tls: Option<Arc<ClientConfig>>,
    pub login: Option<Login>,
    pub client_id: String,
    pub timeout: Duration,
}

pub struct Connection {
    stream: Box<dyn Stream>,
    address: String,
    client_id: String,
    shows_certificate: bool,
    /// Versions of each API that the broker told.
    versions: HashMap<i16, (i16, i16)>,
    correlation: i32,
}

impl Connection {
    pub async fn open(address: &Address, greeting: &Greeting) -> Result<Self, Error> {
        let within = greeting.timeout.min(CONNECT_MAX);
        let unreachable = |why: String| Error::Unreachable { address: address.to_string(), why };
        let connected = timeout(within, TcpStream::connect((address.host.as_str(), address.port))).await;
        let socket = match connected {
            Err(_) => return Err(unreachable(format!("no answer within {} s", within.as_secs_f32()))),
            Ok(Err(e)) => return Err(unreachable(connect_error(&e))),
            Ok(Ok(socket)) => socket,
        };
        // A setting for speed alone.
        let _ = socket.set_nodelay(true);
        let shows_certificate = greeting.tls.as_ref().is_some_and(|tls| tls.client_auth_cert_resolver.has_certs());
        let stream: Box<dyn Stream> = match &greeting.tls {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::try_from(address.host.clone())
                    .map_err(|_| unreachable("its name cannot be in a certificate".to_string()))?;
                let shaken =
                    timeout(within, tokio_rustls::TlsConnector::from(config.clone()).connect(name, socket)).await;
                match shaken {
                    Err(_) => {
                        return Err(unreachable(format!(
                            "no TLS within {} s; does it speak TLS?",
                            within.as_secs_f32()
                        )));
                    }
                    Ok(Err(e)) => return Err(unreachable(tls_error(&e, shows_certificate))),
                    Ok(Ok(stream)) => Box::new(stream),
                }
            }
        };
        let mut connection = Self {
            stream,
            address: address.to_string(),
            client_id: greeting.client_id.clone(),
            shows_certificate,
            versions: HashMap::new(),
            correlation: 0,
        };
        connection.learn_versions(greeting).await?;
        if let Some(login) = &greeting.login {
            connection.log_in(login, greeting.timeout).await?;
        }
        Ok(connection)
    }

    async fn learn_versions(&mut self, greeting: &Greeting) -> Result<(), Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("millpond"))
            .with_client_software_version(text(env!("CARGO_PKG_VERSION")));
        let mut version = ApiVersionsRequest::MAX;
        let answer = loop {
            let exchanged = self.exchange(&request, version, greeting.timeout).await;
            let body = exchanged.map_err(|e| self.explain(e, greeting))?;
            // A broker that is older than the question answers in the oldest form, with what it knows.
            let refused = body.get(..2) == Some(&[0, ResponseError::UnsupportedVersion.code() as u8]);
            if refused && version > 0 {
                version = 0;
                continue;
            }
            break self.decode::<ApiVersionsRequest>(body, version)?;
        };
        let answer: ApiVersionsResponse = answer;
        Error::check(answer.error_code, || format!("\"{}\" does not tell its versions", self.address), None)?;
        self.versions = answer.api_keys.iter().map(|v| (v.api_key, (v.min_version, v.max_version))).collect();
        Ok(())
    }

    /// The first answer did not come: most often because the two ends do not speak the same language.
    fn explain(&self, error: Error, greeting: &Greeting) -> Error {
        let Error::Lost { address, why } = error else { return error };
        let hint = match (why.as_str(), &greeting.tls) {
            (CLOSED, None) => "if it wants TLS, give --tls",
            (CLOSED, Some(_)) => "if it wants a certificate, give --cert and --key",
            _ => return Error::Unreachable { address, why },
        };
        let why = format!("{why} before it said anything; {hint}; {FULL}");
        Error::Unreachable { address, why }
    }

    async fn log_in(&mut self, login: &Login, within: Duration) -> Result<(), Error> {
        let name = login.mechanism.name();
        let address = self.address.clone();
        let refused = |why: String| Error::Login(format!("\"{address}\" refuses the login by {name}: {why}"));
        if !self.versions.contains_key(&<SaslHandshakeRequest as kafka_protocol::protocol::Request>::KEY) {
            return Err(refused("it asks for no login".to_string()));
        }
        let shake = SaslHandshakeRequest::default().with_mechanism(text(name));
        let body = self.exchange(&shake, 1, within).await.map_err(|e| refused(e.to_string()))?;
        let shaken = self.decode::<SaslHandshakeRequest>(body, 1)?;
        if shaken.error_code != 0 {
            let offered: Vec<&str> = shaken.mechanisms.iter().map(|m| m.as_str()).collect();
            return Err(refused(match offered.as_slice() {
                [] => "it asks for no login".to_string(),
                some => format!("it takes {}", some.join(", ")),
            }));
        }
        let mut exchange = Exchange::new(login).map_err(&refused)?;
        let mut say = exchange.begin();
        for _ in 0..SASL_ROUNDS_MAX {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(say));
            let body = self.exchange(&request, 0, within).await.map_err(|e| refused(e.to_string()))?;
            let answer = self.decode::<SaslAuthenticateRequest>(body, 0)?;
            if answer.error_code != 0 {
                let why = answer.error_message.as_ref().map_or("", |m| m.as_str());
                let why = if why.is_empty() { "wrong user or password" } else { why };
                return Err(refused(why.trim_end_matches('.').to_string()));
            }
            match exchange.answer(&answer.auth_bytes).map_err(&refused)? {
                None => return Ok(()),
                Some(next) => say = next,
            }
        }
        Err(refused("the exchange does not end".to_string()))
    }

    /// The version in which a request would be sent.
    pub fn version_of<Q: Api>(&self) -> Result<i16, Error> {
        let unsupported = || Error::Unsupported { address: self.address.clone(), what: Q::NAME };
        let (min, max) = *self.versions.get(&Q::KEY).ok_or_else(unsupported)?;
        let version = max.min(Q::MAX);
        if version < min || version < Q::MIN { Err(unsupported()) } else { Ok(version) }
    }

    pub async fn call<Q: Api>(&mut self, request: &Q, within: Duration) -> Result<Q::Response, Error> {
        let version = self.version_of::<Q>()?;
        let body = self.exchange(request, version, within).await?;
        self.decode::<Q>(body, version)
    }

    /// Sends what is not answered: produce requests with acks=0.
    pub async fn tell<Q: Api>(&mut self, request: &Q, within: Duration) -> Result<(), Error> {
        let version = self.version_of::<Q>()?;
        let frame = self.frame(request, version)?;
        match timeout(within, self.write(&frame)).await {
            Err(_) => Err(Error::Late { address: self.address.clone(), what: Q::NAME, after: within }),
            Ok(written) => written.map_err(|e| self.lost(&e)),
        }
    }

    async fn exchange<Q: Api>(&mut self, request: &Q, version: i16, within: Duration) -> Result<Bytes, Error> {
        let frame = self.frame(request, version)?;
        let correlation = self.correlation;
        let work = async {
            self.write(&frame).await?;
            drop(frame);
            self.read().await
        };
        let mut answer = match timeout(within, work).await {
            Err(_) => return Err(Error::Late { address: self.address.clone(), what: Q::NAME, after: within }),
            Ok(read) => read.map_err(|e| self.lost(&e))?,
        };
        let header_version = <Q::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header_version).map_err(|_| self.confused::<Q>("its head"))?;
        if header.correlation_id != correlation {
            return Err(self.confused::<Q>("its number"));
        }
        Ok(answer)
    }

    fn frame<Q: Api>(&mut self, request: &Q, version: i16) -> Result<BytesMut, Error> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(text(&self.client_id)));
        let cannot = |e: anyhow::Error| Error::Lost {
            address: self.address.clone(),
            why: format!("a {} request cannot be written: {e}", Q::NAME),
        };
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, Q::header_version(version)).map_err(cannot)?;
        request.encode(&mut frame, version).map_err(cannot)?;
        let length = i32::try_from(frame.len() - 4).map_err(|_| cannot(anyhow::anyhow!("it is larger than 2 GiB")))?;
        if let Some(place) = frame.first_chunk_mut::<4>() {
            *place = length.to_be_bytes();
        }
        Ok(frame)
    }

    async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_string()));
        match length {
            [b'H', b'T', b'T', b'P'] => return wrong("it speaks HTTP, not Kafka"),
            [0x15, 3, ..] => return wrong("it speaks TLS; give --tls"),
            _ => {}
        }
        let Some(length) = usize::try_from(i32::from_be_bytes(length)).ok().filter(|l| *l <= RESPONSE_BYTES_MAX) else {
            return wrong("it does not speak Kafka's protocol, or answers with more than 256 MiB");
        };
        let mut body = BytesMut::with_capacity(length.min(READ_AHEAD));
        while body.len() < length {
            let left = (length - body.len()) as u64;
            if body.capacity() == body.len() {
                body.reserve((length - body.len()).min(READ_AHEAD));
            }
            if (&mut self.stream).take(left).read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body.freeze())
    }

    fn decode<Q: Api>(&self, mut body: Bytes, version: i16) -> Result<Q::Response, Error> {
        Q::SHAPE.check(version, &body, RESPONSE_ELEMENTS_MAX).map_err(|e| self.confused::<Q>(&e.to_string()))?;
        Q::Response::decode(&mut body, version).map_err(|e| self.confused::<Q>(&e.to_string()))
    }

    fn confused<Q: Api>(&self, why: &str) -> Error {
        Error::Lost {
            address: self.address.clone(),
            why: format!("its answer to {} cannot be understood: {why}", Q::NAME),
        }
    }

    fn lost(&self, error: &io::Error) -> Error {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                CLOSED.to_string()
            }
            io::ErrorKind::InvalidData => tls_error(error, self.shows_certificate),
            _ => error.to_string(),
        };
        Error::Lost { address: self.address.clone(), why }
    }
}

fn connect_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; is a broker running there? \"millpond serve\" starts one, --bootstrap HOST:PORT names another".to_string()
        }
        _ => error.to_string(),
    }
}

fn tls_error(error: &io::Error, shows_certificate: bool) -> String {
    let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("it ended TLS at once; does it speak TLS? {FULL}"),
            _ => error.to_string(),
        };
    };
    match (inner, tls::problem(inner)) {
        (rustls::Error::InvalidMessage(_), _) => "it does not speak TLS; leave --tls out".to_string(),
        (rustls::Error::AlertReceived(alert), _) => alert_error(*alert, shows_certificate),
        (_, Some(problem)) => problem.to_string(),
        (other, None) => format!("TLS: {other}"),
    }
}

/// The broker ended TLS with a word. Whether it wants a certificate is only asked where it may have missed one; Java's
/// brokers call one that is not there bad.
fn alert_error(alert: AlertDescription, shows_certificate: bool) -> String {
    use AlertDescription as A;
    let is_about_one = matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
    );
    if is_about_one && shows_certificate {
        format!("it refuses the certificate that is shown to it ({alert:?})")
    } else if is_about_one || matches!(alert, A::CertificateRequired | A::HandshakeFailure) {
        format!("it refuses the TLS connection ({alert:?}); does it want a certificate? see --cert and --key")
    } else {
        format!("it refuses the TLS connection ({alert:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(alert: AlertDescription, shows_certificate: bool) -> String {
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
        tls_error(&error, shows_certificate)
    }

    #[test]
    fn a_certificate_that_is_refused_is_not_missing() {
        use AlertDescription as A;
        let refused = "it refuses the certificate that is shown to it";
        assert_eq!(told(A::CertificateRevoked, true), format!("{refused} (CertificateRevoked)"));
        assert_eq!(told(A::BadCertificate, true), format!("{refused} (BadCertificate)"));
        assert_eq!(told(A::ProtocolVersion, true), "it refuses the TLS connection (ProtocolVersion)");
        for (alert, shows) in [
            (A::CertificateRequired, false),
            (A::HandshakeFailure, false),
            (A::HandshakeFailure, true),
            (A::BadCertificate, false),
        ] {
            assert!(told(alert, shows).ends_with("does it want a certificate? see --cert and --key"), "{alert:?}");
        }
    }
}

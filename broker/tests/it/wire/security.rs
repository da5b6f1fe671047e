//! Listeners of all kinds over real sockets: who is let in, as whom, for how long, and that nobody else is.

mod certificates;
mod passwords;
mod tokens;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use millpond_broker::security::scram::ScramMechanism;
use millpond_broker::security::tls::{ClientAuth, Tls};
use millpond_broker::security::{Authenticator, Endpoint, Mechanism, SecurityProtocol};
use millpond_broker::server::{Listener, ServerSettings};
use ring::{digest, hmac, pbkdf2};

use self::certificates::{Authority, connect_tls};
use super::client::{READ_TIMEOUT, Server, frame, read};
use crate::fixture::Fixture;

const PASSWORD: &str = "correct horse, battery=staple";

const SCRAM: [Mechanism; 2] = [Mechanism::Scram(ScramMechanism::Sha256), Mechanism::Scram(ScramMechanism::Sha512)];

/// One end of a connection with or without TLS.
struct Session<S> {
    stream: S,
    next: i32,
}

impl<S: Read + Write> Session<S> {
    fn over(stream: S) -> Self {
        Self { stream, next: 0 }
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request).unwrap_or_else(|| panic!("api {} v{version}: closed", R::KEY))
    }

    /// `None` when the server closes the connection instead of answering.
    fn try_call<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.next += 1;
        self.stream.write_all(&frame(self.next, version, request)).ok()?;
        Some(read::<R>(self.frame()?, version, self.next))
    }

    fn frame(&mut self) -> Option<bytes::Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; i32::from_be_bytes(length).try_into().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        Some(body.into())
    }

    fn metadata(&mut self) -> Option<MetadataResponse> {
        self.try_call(12, &MetadataRequest::default().with_topics(None))
    }

    fn handshake(&mut self, mechanism: &str) -> SaslHandshakeResponse {
        self.call(1, &SaslHandshakeRequest::default().with_mechanism(StrBytes::from_string(mechanism.into())))
    }

    fn authenticate(&mut self, bytes: &[u8]) -> SaslAuthenticateResponse {
        self.call(2, &SaslAuthenticateRequest::default().with_auth_bytes(bytes.to_vec().into()))
    }

    fn plain(&mut self, user: &str, password: &str) -> SaslAuthenticateResponse {
        assert_eq!(self.handshake("PLAIN").error_code, 0);
        self.authenticate(format!("\0{user}\0{password}").as_bytes())
    }

    /// A whole SCRAM exchange as a client does it, written anew here so that the server's code is not held against
    /// itself.
    fn scram(&mut self, mechanism: ScramMechanism, user: &str, password: &str) -> SaslAuthenticateResponse {
        self.scram_with(mechanism, user, password, "")
    }

    /// The same as the holder of a delegation token.
    fn scram_by_token(&mut self, mechanism: ScramMechanism, id: &str, hmac: &[u8]) -> SaslAuthenticateResponse {
        self.scram_with(mechanism, id, &BASE64.encode(hmac), ",tokenauth=true")
    }

    fn scram_with(
        &mut self,
        mechanism: ScramMechanism,
        user: &str,
        password: &str,
        extensions: &str,
    ) -> SaslAuthenticateResponse {
        assert_eq!(self.handshake(mechanism.name()).error_code, 0);
        let bare = format!("n={user},r=client-nonce{extensions}");
        let first = self.authenticate(format!("n,,{bare}").as_bytes());
        assert_eq!(first.error_code, 0, "{:?}", first.error_message);
        let first = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
        let field = |name: &str| first.split(',').find_map(|f| f.strip_prefix(name)).unwrap().to_owned();
        let (nonce, salt, iterations) = (field("r="), BASE64.decode(field("s=")).unwrap(), field("i="));
        assert!(nonce.starts_with("client-nonce") && nonce.len() > 30);
        let (hash, mac, derive) = match mechanism {
            ScramMechanism::Sha256 => (&digest::SHA256, hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
            ScramMechanism::Sha512 => (&digest::SHA512, hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
        };
        let mut salted = vec![0; hash.output_len()];
        pbkdf2::derive(derive, iterations.parse().unwrap(), &salt, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(mac, key), data).as_ref().to_vec();
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(hash, &client_key);
        let signed = format!("{bare},{first},c=biws,r={nonce}");
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let last = self.authenticate(format!("c=biws,r={nonce},p={}", BASE64.encode(proof)).as_bytes());
        if last.error_code == 0 {
            let expected = sign(&sign(&salted, b"Server Key"), signed.as_bytes());
            assert_eq!(last.auth_bytes, format!("v={}", BASE64.encode(expected)), "the server does not know the user");
        }
        last
    }
}

fn connect(address: SocketAddr) -> Session<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    Session::over(stream)
}

fn sasl(tls: Option<Arc<Tls>>, mechanisms: &[Mechanism]) -> impl FnOnce(Listener) -> Listener {
    let mechanisms = mechanisms.to_vec();
    move |listener| {
        let protocol = if tls.is_some() { SecurityProtocol::SaslSsl } else { SecurityProtocol::SaslPlaintext };
        let endpoint = Endpoint { name: protocol.name().into(), protocol, advertised: None };
        Listener { endpoint, tls, mechanisms, ..listener }
    }
}

/// A server with one user, "alice".
fn server(
    change: impl FnOnce(&mut ServerSettings),
    listener: impl FnOnce(Listener) -> Listener + Send + 'static,
) -> (Server, Arc<Authenticator>) {
    let server = Server::listening(Fixture::new(), |settings, _| change(settings), |l| vec![listener(l)]);
    let authenticator = server.authenticator();
    server.block_on(authenticator.users().set_password("alice", PASSWORD, 4096)).unwrap();
    (server, authenticator)
}

#[test]
fn nothing_is_answered_before_authentication() {
    let (server, _) = server(|_| {}, sasl(None, &SCRAM));
    assert!(connect(server.address).metadata().is_none());
    let mut session = connect(server.address);
    assert_eq!(session.call(0, &ApiVersionsRequest::default()).error_code, 0);
    let refused = session.handshake("GSSAPI");
    assert_eq!((refused.error_code, refused.mechanisms.len()), (33, 2));
    assert!(session.metadata().is_none(), "closed after the refusal");
    let mut session = connect(server.address);
    assert_eq!(session.authenticate(b"\0alice\0x").error_code, 34, "no mechanism was chosen");
    // A large request is not even received.
    let mut session = connect(server.address);
    session.stream.write_all(&(64 * 1024 + 1i32).to_be_bytes()).unwrap();
    assert!(session.frame().is_none());
    // On a listener without SASL there is nothing to authenticate.
    let plain = Server::new();
    let mut session = connect(plain.address);
    let code = session.handshake("PLAIN").error_code;
    assert_eq!(code, 34);
}

#[test]
fn each_listener_tells_its_own_address() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let tls = authority.tls(directory.path(), ClientAuth::None);
    let second = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    second.set_nonblocking(true).unwrap();
    let address = second.local_addr().unwrap();
    let server = Server::listening(
        Fixture::new(),
        |_, _| {},
        |mut first| {
            first.endpoint.advertised = Some(("inside.example".into(), 1));
            let socket = tokio::net::TcpListener::from_std(second).unwrap();
            let endpoint = Endpoint {
                name: "OUTSIDE".into(),
                protocol: SecurityProtocol::Ssl,
                advertised: Some(("outside.example".into(), 2)),
            };
            vec![first, Listener { socket, endpoint, tls: Some(tls), mechanisms: Vec::new() }]
        },
    );
    let host = |metadata: MetadataResponse| metadata.brokers[0].host.to_string();
    assert_eq!(host(connect(server.address).metadata().unwrap()), "inside.example");
    let mut outside = connect_tls(address, &authority, None);
    assert_eq!(host(outside.metadata().unwrap()), "outside.example");
    let coordinator = outside.call(3, &FindCoordinatorRequest::default().with_key("g".into()));
    assert_eq!((coordinator.host.as_str(), coordinator.port), ("outside.example", 2));
    let cluster = outside.call(0, &DescribeClusterRequest::default());
    assert_eq!(cluster.brokers[0].port, 2);
    // TLS where it is not spoken ends at once.
    let begun = Instant::now();
    assert!(connect_tls(server.address, &authority, None).metadata().is_none());
    assert!(begun.elapsed() < READ_TIMEOUT / 2);
}

#[test]
fn silence_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let tls = Authority::new("authority").tls(directory.path(), ClientAuth::None);
    let short = |ms| {
        move |settings: &mut ServerSettings| {
            settings.authentication_timeout = Duration::from_millis(ms);
            settings.handshake_timeout = Duration::from_millis(ms);
        }
    };
    for listener in [Some(tls), None] {
        let (server, _) = server(short(200), sasl(listener, &SCRAM));
        let mut session = connect(server.address);
        assert!(session.frame().is_none());
    }
    // Who has authenticated may be silent.
    let (server, _) = server(short(3000), sasl(None, &SCRAM));
    let mut session = connect(server.address);
    assert_eq!(session.scram(ScramMechanism::Sha256, "alice", PASSWORD).error_code, 0);
    wait(Duration::from_millis(3500));
    assert!(session.metadata().is_some());
}

#[test]
fn sessions_end_and_are_renewed() {
    let (server, authenticator) =
        server(|s| s.authentication.session_max = Some(Duration::from_secs(3)), sasl(None, &SCRAM));
    server.block_on(authenticator.users().set_password("bob", PASSWORD, 4096)).unwrap();
    let mechanism = ScramMechanism::Sha256;
    let mut session = connect(server.address);
    assert_eq!(session.scram(mechanism, "alice", PASSWORD).session_lifetime_ms, 3000);
    wait(Duration::from_millis(1800));
    assert_eq!(session.scram(mechanism, "alice", PASSWORD).error_code, 0);
    wait(Duration::from_millis(1300));
    assert!(session.metadata().is_some(), "renewed");
    wait(Duration::from_millis(1800));
    // Even when it is over it can be renewed, and nothing else.
    assert_eq!(session.scram(mechanism, "alice", PASSWORD).error_code, 0);
    assert!(session.metadata().is_some());
    wait(Duration::from_millis(3100));
    assert!(session.metadata().is_none(), "over");

    let mut session = connect(server.address);
    session.scram(mechanism, "alice", PASSWORD);
    let other = session.scram(mechanism, "bob", PASSWORD);
    assert_eq!(other.error_code, 58, "a connection stays with its user");
    assert!(session.metadata().is_none());
}

#[test]
fn a_listener_lacks_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let tls = Authority::new("authority").tls(directory.path(), ClientAuth::None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = Fixture::new();
    let refused = |protocol: SecurityProtocol, tls: Option<Arc<Tls>>, mechanisms: Vec<Mechanism>| {
        let storage = fixture.storage.clone();
        runtime.block_on(async {
            let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = Endpoint { name: "X".into(), protocol, advertised: None };
            let listener = Listener { socket, endpoint, tls, mechanisms };
            let (settings, hooks) = (ServerSettings::default(), millpond_broker::server::Hooks::default());
            let served = millpond_broker::server::serve(vec![listener], storage, settings, hooks, async {}).await;
            served.map(drop).unwrap_err().to_string()
        })
    };
    assert!(refused(SecurityProtocol::Ssl, None, vec![]).contains("needs a certificate"));
    assert!(refused(SecurityProtocol::Plaintext, Some(tls), vec![]).contains("cannot have a certificate"));
    assert!(refused(SecurityProtocol::SaslPlaintext, None, vec![]).contains("needs mechanisms"));
    assert!(refused(SecurityProtocol::Plaintext, None, vec![Mechanism::Plain]).contains("cannot have mechanisms"));
}

/// Time is what is waited for here.
fn wait(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::sync_channel::<()>(0);
    let _timeout = receiver.recv_timeout(time);
}

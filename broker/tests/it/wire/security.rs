//! Listeners of all kinds over real sockets: who is let in, as whom, for how long, and that nobody else is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use millpond_broker::security::scram::ScramMechanism;
use millpond_broker::security::tls::{ClientAuth, Tls, TlsError, TlsSettings};
use millpond_broker::security::tokens::TokenSettings;
use millpond_broker::security::{Authenticator, Endpoint, Mechanism, PrincipalMapping, SecurityProtocol};
use millpond_broker::server::{Listener, ServerSettings};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

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

type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn connect_tls(address: SocketAddr, authority: &Authority, shown: Option<&(String, String)>) -> Session<TlsStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    Session::over(rustls::StreamOwned::new(connection, socket))
}

/// Who vouches for certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, common_name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, "Millpond");
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// What it has revoked, in PEM.
    fn revokes(&self, certificates: &[&str], expires: i32) -> String {
        let revoked = certificates.iter().map(|certificate| {
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(parsed.raw_serial()),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(expires, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    fn tls(&self, directory: &std::path::Path, client_auth: ClientAuth) -> Arc<Tls> {
        self.tls_with(directory, client_auth, &[]).unwrap()
    }

    fn tls_with(
        &self,
        directory: &std::path::Path,
        client_auth: ClientAuth,
        client_crls: &[&str],
    ) -> Result<Arc<Tls>, TlsError> {
        let path = |name: &str| directory.join(name);
        let (certificate, key) = self.issue("server");
        std::fs::write(path("server.pem"), certificate).unwrap();
        std::fs::write(path("server.key"), key).unwrap();
        std::fs::write(path("ca.pem"), self.0.pem()).unwrap();
        Tls::load(TlsSettings {
            certificate: path("server.pem"),
            key: path("server.key"),
            client_ca: Some(path("ca.pem")),
            client_crls: client_crls.iter().map(|name| path(name)).collect(),
            client_auth,
            principal_mapping: PrincipalMapping::default(),
            alpn: Vec::new(),
        })
    }
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
fn scram_lets_in_whoever_knows_the_password() {
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    for mechanism in ScramMechanism::ALL {
        let mut session = connect(server.address);
        let done = session.scram(mechanism, "alice", PASSWORD);
        assert_eq!((done.error_code, done.session_lifetime_ms), (0, 0));
        assert_eq!(session.metadata().unwrap().brokers.len(), 1);
        // Larger than what strangers may send.
        let topics = ["t", "u", "v"].map(|name| {
            let name = TopicName(StrBytes::from_string(name.repeat(30_000)));
            metadata_request::MetadataRequestTopic::default().with_name(Some(name))
        });
        let large = MetadataRequest::default().with_topics(Some(topics.to_vec()));
        assert_eq!(session.call(4, &large).topics.len(), 3);
    }
    assert_eq!(authenticator.counts(), (2, 0));
}

#[test]
fn whoever_is_refused_learns_nothing_and_waits() {
    let tried = |user: &str, password: &str| {
        let (server, authenticator) = server(
            |settings| settings.authentication.failure_delay = Duration::from_millis(150),
            sasl(None, &[SCRAM[0], Mechanism::Plain]),
        );
        let mut session = connect(server.address);
        let begun = Instant::now();
        let scram = session.scram(ScramMechanism::Sha256, user, password);
        assert!(begun.elapsed() >= Duration::from_millis(150));
        assert!(session.metadata().is_none(), "closed");
        let mut session = connect(server.address);
        let begun = Instant::now();
        let plain = session.plain(user, password);
        assert!(begun.elapsed() >= Duration::from_millis(150));
        assert!(session.metadata().is_none(), "closed");
        assert_eq!(authenticator.counts(), (0, 2));
        (scram.error_code, scram.error_message, plain.error_code, plain.error_message)
    };
    let wrong = tried("alice", "wrong");
    assert_eq!((wrong.0, wrong.2), (58, 58));
    assert_eq!(wrong, tried("nobody", PASSWORD));
}

#[test]
fn a_stranger_is_shown_the_same_salt_each_time() {
    let (server, _) = server(|_| {}, sasl(None, &SCRAM));
    let salt = |server: &Server| {
        let mut session = connect(server.address);
        session.handshake("SCRAM-SHA-512");
        let first = session.authenticate(b"n,,n=nobody,r=x");
        let text = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
        text.split_once(",s=").unwrap().1.to_owned()
    };
    let before = salt(&server);
    assert_eq!(before, salt(&server));
    let fixture = server.stop().reopen(true);
    let (again, _) = {
        let server = Server::listening(fixture, |_, _| {}, |l| vec![sasl(None, &SCRAM)(l)]);
        let authenticator = server.authenticator();
        (server, authenticator)
    };
    assert_eq!(before, salt(&again), "after a restart too");
    assert_eq!(connect(again.address).scram(ScramMechanism::Sha256, "alice", PASSWORD).error_code, 0);
}

/// As Kafka's broker and clients do it, without the mapping that RFC 5802 asks for.
#[test]
fn names_and_passwords_count_as_their_bytes() {
    let (server, authenticator) = server(|_| {}, sasl(None, &[SCRAM[0], Mechanism::Plain]));
    // What SASLprep would make "IX" of, and "aX".
    let (name, password) = ("\u{2168}", "\u{aa}\u{ad}X");
    server.block_on(authenticator.users().set_password(name, password, 4096)).unwrap();
    let scram =
        |name: &str, password: &str| connect(server.address).scram(ScramMechanism::Sha256, name, password).error_code;
    assert_eq!((scram(name, password), scram(name, "aX"), scram("IX", password)), (0, 58, 58));
    assert_eq!(connect(server.address).plain(name, password).error_code, 0);
    assert_eq!(connect(server.address).plain(name, "aX").error_code, 58);
}

/// Iterations and salts are told before anybody is known.
#[test]
fn who_does_not_exist_looks_like_who_does() {
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    for name in ["alice", "bob"] {
        server.block_on(authenticator.users().set_password(name, PASSWORD, 4321)).unwrap();
    }
    let shown = |name: &str| {
        let mut session = connect(server.address);
        session.handshake("SCRAM-SHA-512");
        let first = session.authenticate(format!("n,,n={name},r=x").as_bytes());
        let text = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
        let (_, rest) = text.split_once(",s=").unwrap();
        let (salt, iterations) = rest.split_once(",i=").unwrap();
        (salt.len(), iterations.to_owned())
    };
    let expected = shown("alice");
    assert_eq!(expected.1, "4321");
    assert!((0..20).all(|i| shown(&format!("nobody{i}")) == expected));
}

#[test]
fn plain_in_both_framings_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let tls = authority.tls(directory.path(), ClientAuth::None);
    let (server, _) = server(|_| {}, sasl(Some(tls), &[Mechanism::Plain]));
    let mut session = connect_tls(server.address, &authority, None);
    assert_eq!(session.plain("alice", PASSWORD).error_code, 0);
    assert!(session.metadata().is_some());
    // After version 0 of the handshake messages have nothing around them but their length.
    let bare = |password: &str| {
        let mut session = connect_tls(server.address, &authority, None);
        let chosen = SaslHandshakeRequest::default().with_mechanism("PLAIN".into());
        assert_eq!(session.call(0, &chosen).error_code, 0);
        let message = format!("\0alice\0{password}");
        let mut bytes = (message.len() as i32).to_be_bytes().to_vec();
        bytes.extend_from_slice(message.as_bytes());
        session.stream.write_all(&bytes).unwrap();
        let answer = session.frame()?;
        assert!(answer.is_empty());
        session.metadata()
    };
    assert!(bare(PASSWORD).is_some());
    assert!(bare("wrong").is_none());
    // Somebody who speaks plain text here is not answered.
    let mut plain = connect(server.address).stream;
    plain.write_all(&frame(1, 0, &ApiVersionsRequest::default())).unwrap();
    let mut said = Vec::new();
    plain.read_to_end(&mut said).unwrap();
    assert_eq!(said.first(), Some(&0x15), "an alert of TLS and no more: {said:?}");
    // Counted once the connection is put away.
    let until = Instant::now() + Duration::from_secs(30);
    while server.metrics.snapshot().handshakes_failed_total == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.metrics.snapshot().handshakes_failed_total, 1);
}

#[test]
fn certificates_of_clients() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    for auth in [ClientAuth::None, ClientAuth::Requested, ClientAuth::Required] {
        let tls = authority.tls(directory.path(), auth);
        let endpoint = Endpoint { name: "MUTUAL".into(), protocol: SecurityProtocol::Ssl, advertised: None };
        let (server, _) = server(|_| {}, |l| Listener { endpoint, tls: Some(tls), ..l });
        let answered =
            |shown: Option<&(String, String)>| connect_tls(server.address, &authority, shown).metadata().is_some();
        assert_eq!(answered(None), auth != ClientAuth::Required, "{auth:?}");
        assert!(answered(Some(&authority.issue("client"))), "{auth:?}");
        // A client that is not asked shows nothing.
        assert_eq!(answered(Some(&stranger.issue("client"))), auth == ClientAuth::None, "{auth:?}");
    }
}

#[test]
fn revoked_certificates_of_clients() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let refused =
        |lists: &[&str], auth| authority.tls_with(directory.path(), auth, lists).map(drop).unwrap_err().to_string();
    let (good, bad) = (authority.issue("good"), authority.issue("bad"));
    file("list.pem", &authority.revokes(&[&bad.0], 2096));

    let tls = authority.tls_with(directory.path(), ClientAuth::Required, &["list.pem"]).unwrap();
    let endpoint = Endpoint { name: "MUTUAL".into(), protocol: SecurityProtocol::Ssl, advertised: None };
    let served = Arc::clone(&tls);
    let (server, _) = server(|_| {}, |l| Listener { endpoint, tls: Some(served), ..l });
    let answered = |shown: &(String, String)| connect_tls(server.address, &authority, Some(shown)).metadata().is_some();
    assert!(answered(&good));
    assert!(!answered(&bad));
    // A newer list counts from the next connection on; one that is bad is not taken over.
    file("list.pem", &authority.revokes(&[&good.0], 2096));
    tls.reload().unwrap();
    assert!(!answered(&good));
    assert!(answered(&bad));
    file("list.pem", "");
    tls.reload().unwrap_err();
    assert!(answered(&bad));
    // Nobody knows what an authority has revoked that gives no list, or whose list somebody else has signed.
    file("list.pem", &stranger.revokes(&[], 2096));
    tls.reload().unwrap();
    assert!(!answered(&good));
    let impostor = Authority::new("ours");
    file("list.pem", &impostor.revokes(&[], 2096));
    tls.reload().unwrap();
    assert!(!answered(&good));

    file("list.pem", &authority.revokes(&[], 2021));
    let expired = refused(&["list.pem"], ClientAuth::Required);
    assert!(expired.contains("list.pem") && expired.contains("has expired") && expired.contains("2021"), "{expired}");
    file("list.pem", &authority.0.pem());
    let other = refused(&["list.pem"], ClientAuth::Required);
    assert!(other.contains("BEGIN X509 CRL"), "{other}");
    file("list.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert!(refused(&["list.pem"], ClientAuth::Required).contains("that can be read"));
    file("list.pem", &authority.revokes(&[], 2096));
    assert!(refused(&["list.pem"], ClientAuth::None).contains("client_auth"));
    assert!(refused(&["list.pem", "nowhere.pem"], ClientAuth::Required).contains("nowhere.pem"));
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
fn credentials_are_changed_over_the_network() {
    let server = Server::new();
    let mut session = connect(server.address);
    let name = |name: &str| StrBytes::from_string(name.into());
    let put = |user: &str, mechanism: i8, iterations: i32, len: usize| {
        ScramCredentialUpsertion::default()
            .with_name(name(user))
            .with_mechanism(mechanism)
            .with_iterations(iterations)
            .with_salt(vec![1; 16].into())
            .with_salted_password(vec![2; len].into())
    };
    let request = AlterUserScramCredentialsRequest::default()
        .with_upsertions(vec![
            put("a", 1, 4096, 32),
            put("a", 2, 8192, 64),
            put("few", 1, 4095, 32),
            put("many", 1, 1_000_000, 32),
            put("short", 2, 4096, 32),
            put("odd", 3, 4096, 32),
            put("", 1, 4096, 32),
            put("twice", 1, 4096, 32),
            put("twice", 1, 4096, 32),
        ])
        .with_deletions(vec![ScramCredentialDeletion::default().with_name(name("gone")).with_mechanism(1)]);
    let response = session.call(0, &request);
    let mut codes: Vec<_> = response.results.iter().map(|r| (r.user.as_str(), r.error_code)).collect();
    codes.sort_unstable();
    let expected =
        [("", 93), ("a", 0), ("few", 93), ("gone", 91), ("many", 93), ("odd", 33), ("short", 93), ("twice", 92)];
    assert_eq!(codes, expected);

    let describe = |session: &mut Session<TcpStream>, users: Option<&[&str]>| {
        let users = users.map(|users| users.iter().map(|user| UserName::default().with_name(name(user))).collect());
        let response = session.call(0, &DescribeUserScramCredentialsRequest::default().with_users(users));
        let of = |r: &describe_user_scram_credentials_response::DescribeUserScramCredentialsResult| {
            let infos: Vec<_> = r.credential_infos.iter().map(|i| (i.mechanism, i.iterations)).collect();
            (r.user.to_string(), r.error_code, infos)
        };
        response.results.iter().map(of).collect::<Vec<_>>()
    };
    let a = ("a".to_string(), 0, vec![(1, 4096), (2, 8192)]);
    assert_eq!(describe(&mut session, None), std::slice::from_ref(&a));
    let named = describe(&mut session, Some(&["a", "b", "c", "c"]));
    assert_eq!(named, [a, ("b".into(), 91, vec![]), ("c".into(), 92, vec![])]);

    let removal = ScramCredentialDeletion::default().with_name(name("a")).with_mechanism(2);
    let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![removal]);
    assert_eq!(session.call(0, &request).results[0].error_code, 0);
    assert_eq!(describe(&mut session, None), [("a".to_string(), 0, vec![(1, 4096)])]);
    let fixture = server.stop().reopen(true);
    let server = Server::with(fixture, |_, _| {});
    assert_eq!(describe(&mut connect(server.address), None), [("a".to_string(), 0, vec![(1, 4096)])]);
}

/// Signs tokens as an issuer does.
#[test]
fn delegation_tokens_are_made_used_renewed_and_ended() {
    use create_delegation_token_request::CreatableRenewers;
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    for user in ["bob", "carol"] {
        server.block_on(authenticator.users().set_password(user, PASSWORD, 4096)).unwrap();
    }
    drop(authenticator);
    let login = |server: &Server, user: &str| {
        let mut session = connect(server.address);
        assert_eq!(session.scram(ScramMechanism::Sha512, user, PASSWORD).error_code, 0);
        session
    };
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let renewer = |kind: &str| {
        let renewer = CreatableRenewers::default().with_principal_type(text(kind)).with_principal_name(text("bob"));
        CreateDelegationTokenRequest::default().with_renewers(vec![renewer]).with_max_lifetime_ms(3_600_000)
    };
    // Who is nobody in particular gets none.
    let plain = Server::new();
    assert_eq!(plain.client().call(3, &CreateDelegationTokenRequest::default()).error_code, 64);
    assert_eq!(plain.client().call(3, &DescribeDelegationTokenRequest::default()).error_code, 64);
    let mut alice = login(&server, "alice");
    assert_eq!(alice.call(3, &renewer("Group")).error_code, 67);
    let for_carol =
        renewer("User").with_owner_principal_type(Some(text("User"))).with_owner_principal_name(Some(text("carol")));
    assert_eq!(alice.call(3, &for_carol).error_code, 65, "nobody becomes another");
    for version in 1..=2 {
        assert_eq!(alice.call(version, &renewer("User")).error_code, 0);
    }
    let made = alice.call(3, &renewer("User"));
    assert_eq!(
        (made.error_code, made.principal_name.as_str(), made.token_requester_principal_name.as_str()),
        (0, "alice", "alice")
    );
    assert_eq!(made.max_timestamp_ms - made.issue_timestamp_ms, 3_600_000);
    assert_eq!(made.expiry_timestamp_ms, made.max_timestamp_ms);
    // Its holder is alice, and makes no tokens.
    let (id, hmac) = (made.token_id.to_string(), made.hmac.clone());
    for mechanism in ScramMechanism::ALL {
        let mut holder = connect(server.address);
        let done = holder.scram_by_token(mechanism, &id, &hmac);
        assert_eq!(done.error_code, 0, "{:?}", done.error_message);
        assert!(done.session_lifetime_ms > 0 && done.session_lifetime_ms <= 3_600_000);
        assert!(holder.metadata().is_some());
        assert_eq!(holder.call(3, &renewer("User")).error_code, 64);
    }
    for (id, hmac) in [(id.as_str(), &b"wrong"[..]), ("nothing", &hmac[..]), ("alice", &hmac[..])] {
        assert_eq!(connect(server.address).scram_by_token(ScramMechanism::Sha256, id, hmac).error_code, 58);
    }
    assert_eq!(connect(server.address).scram(ScramMechanism::Sha256, &id, &BASE64.encode(&hmac)).error_code, 58);
    // Whose it is and who renews it see it, and nobody else.
    let mine = DescribeDelegationTokenRequest::default().with_owners(None);
    let seen = |server: &Server, user: &str| login(server, user).call(3, &mine).tokens.len();
    assert_eq!((seen(&server, "alice"), seen(&server, "bob"), seen(&server, "carol")), (3, 3, 0));
    let nobodys = DescribeDelegationTokenRequest::default().with_owners(Some(vec![]));
    assert_eq!(alice.call(3, &nobodys).tokens.len(), 0);
    let renew = RenewDelegationTokenRequest::default().with_hmac(hmac.clone()).with_renew_period_ms(60_000);
    assert_eq!(login(&server, "carol").call(2, &renew).error_code, 63);
    assert_eq!(alice.call(2, &renew.clone().with_hmac(vec![1; 64].into())).error_code, 62);
    let renewed = login(&server, "bob").call(2, &renew);
    assert_eq!((renewed.error_code, renewed.expiry_timestamp_ms < made.expiry_timestamp_ms), (0, true));

    // They outlive a restart, but not their time.
    let fixture = server.stop();
    let server = Server::listening(fixture, |_, _| {}, |l| vec![sasl(None, &SCRAM)(l)]);
    let tokens = login(&server, "alice").call(3, &mine).tokens;
    let again = tokens.iter().find(|token| token.token_id.as_str() == id).unwrap();
    assert_eq!((again.expiry_timestamp, &again.hmac, again.renewers.len()), (renewed.expiry_timestamp_ms, &hmac, 1));
    assert_eq!(connect(server.address).scram_by_token(ScramMechanism::Sha256, &id, &hmac).error_code, 0);
    let expire =
        |period| ExpireDelegationTokenRequest::default().with_hmac(hmac.clone()).with_expiry_time_period_ms(period);
    let mut bob = login(&server, "bob");
    assert_eq!(bob.call(2, &expire(0)).error_code, 0);
    assert_eq!(connect(server.address).scram_by_token(ScramMechanism::Sha256, &id, &hmac).error_code, 58);
    assert_eq!(bob.call(2, &renew).error_code, 66);
    assert_eq!(bob.call(2, &expire(-1)).error_code, 0);
    assert_eq!(bob.call(2, &renew).error_code, 62);
    assert_eq!(seen(&server, "alice"), 2);
}

#[test]
fn delegation_tokens_count_with_their_names() {
    use millpond_broker::security::delegation::DelegationError;
    use millpond_types::Principal;
    let (server, authenticator) = server(
        |s| {
            s.authentication.delegation.bytes_max = 1_000_000;
            s.authentication.delegation.tokens_max = 7;
        },
        sasl(None, &SCRAM),
    );
    let tokens = authenticator.delegation();
    let made = |requester: &str, name: usize| {
        let user = Principal::user(requester);
        let renewers = (0..10).map(|i| Principal::user(&format!("{i}{}", "x".repeat(name)))).collect();
        server.block_on(tokens.create(user.clone(), user, renewers, -1)).map(|(token, _)| token)
    };
    let refused = |result, what: &str| match result {
        Err(DelegationError::TooMany(why)) => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    made("alice", 30_000).unwrap();
    refused(made("alice", 30_000), "of the same requester with their names");
    made("bob", 30_000).unwrap();
    made("carol", 30_000).unwrap();
    refused(made("dave", 30_000), "delegation tokens with their names");
    assert!((900_000..1_000_000).contains(&tokens.bytes()), "{}", tokens.bytes());
    // And by their number.
    (0..3).for_each(|_| drop(made("alice", 1).unwrap()));
    refused(made("alice", 1), "4 delegation tokens of the same requester");
    made("bob", 1).unwrap();
    refused(made("bob", 1), "7 delegation tokens already");
}

#[test]
fn whoever_asked_for_a_token_of_another_does_not_renew_it() {
    use millpond_broker::security::delegation::{DelegationError, DelegationSettings};
    use millpond_types::Principal;
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    let (tokens, usual) = (authenticator.delegation(), DelegationSettings::default());
    let [owner, requester, renewer] = ["owner", "requester", "renewer"].map(Principal::user);
    // Nothing asked for is what is usual.
    let asked = tokens.create(owner.clone(), requester.clone(), vec![renewer.clone()], 0);
    let (token, signature) = server.block_on(asked).unwrap();
    assert_eq!(token.ends_ms - token.issued_ms, usual.lifetime_max_ms);
    assert_eq!(token.expires_ms - token.issued_ms, usual.renewal_ms);
    assert!(token.concerns(&requester), "it is told of it");
    let renew = |who, period| server.block_on(tokens.renew(&signature, who, period));
    assert!(matches!(renew(&requester, 0), Err(DelegationError::NotOwner)));
    let expired = server.block_on(tokens.expire(&signature, &requester, -1));
    assert!(matches!(expired, Err(DelegationError::NotOwner)));
    for who in [&owner, &renewer] {
        assert!(renew(who, 0).unwrap() >= token.expires_ms);
        assert!(renew(who, 1000).unwrap() < token.expires_ms);
    }
}

#[test]
fn wrong_passwords_by_scram_take_their_turn() {
    let delay = Duration::from_millis(200);
    let (server, _authenticator) = server(
        |s| {
            s.authentication.failure_delay = delay;
            s.authentication.tries_per_address_max = 2;
        },
        sasl(None, &SCRAM),
    );
    let (address, begun) = (server.address, Instant::now());
    let wrong = || connect(address).scram(ScramMechanism::Sha256, "alice", "wrong").error_code;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(wrong)).collect();
        assert!(all.into_iter().all(|one| one.join().unwrap() == 58));
    });
    // The last two come when three pairs before them have rested; their own refusal may be due at once then, as it comes a
    // whole number of delays after they began.
    assert!(begun.elapsed() >= 3 * delay, "{:?}", begun.elapsed());
}

struct Issuer {
    key: KeyPair,
    keys: String,
}

impl Issuer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let public = key.public_key_raw();
        let (x, y) = (BASE64_URL.encode(&public[1..33]), BASE64_URL.encode(&public[33..]));
        let keys = format!(
            r#"{{"keys":[{{"kty":"oct","kid":"secret","k":"c2VjcmV0"}},
                        {{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"k1","x":"{x}","y":"{y}"}}]}}"#
        );
        Self { key, keys }
    }

    fn token(&self, claims: &serde_json::Value) -> String {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some("k1".into());
        let key = jsonwebtoken::EncodingKey::from_ec_der(&self.key.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

fn now() -> i64 {
    millpond_types::Clock::now_ms(&millpond_types::SystemClock) / 1000
}

#[test]
fn tokens_are_believed_only_if_all_is_right() {
    let issuer = Issuer::new();
    let settings = TokenSettings {
        issuer: "https://issuer.example".into(),
        audiences: vec!["millpond".into()],
        clock_skew: Duration::from_secs(5),
        principal_claim: "sub".into(),
    };
    let (server, authenticator) = server(
        |s| {
            s.authentication.tokens = Some(settings);
            s.authentication.failure_delay = Duration::from_millis(10);
        },
        sasl(None, &[Mechanism::OAuthBearer]),
    );
    let tried = |token: &str, authzid: &str| {
        let mut session = connect(server.address);
        assert_eq!(session.handshake("OAUTHBEARER").error_code, 0);
        let message = format!("n,{authzid},\u{1}auth=Bearer {token}\u{1}\u{1}");
        let answer = session.authenticate(message.as_bytes());
        assert_eq!(answer.error_code, 0);
        if answer.auth_bytes.is_empty() {
            assert!(session.metadata().is_some());
            return Some(answer.session_lifetime_ms);
        }
        // The client says that it has understood, and is told the end.
        assert!(answer.auth_bytes.starts_with(b"{\"status\":\"invalid_token\""));
        assert_eq!(session.authenticate(b"\x01").error_code, 58);
        assert!(session.metadata().is_none());
        None
    };
    let claims = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = serde_json::json!({
            "iss": "https://issuer.example", "aud": ["other", "millpond"], "sub": "alice", "exp": now() + 600,
        });
        change(&mut claims);
        claims
    };
    let good = issuer.token(&claims(&|_| {}));
    assert_eq!(tried(&good, ""), None, "no keys yet");
    assert_eq!(authenticator.tokens().unwrap().set_keys(&issuer.keys), Ok(1));
    let lifetime = tried(&good, "").unwrap();
    assert!((590_000..=606_000).contains(&lifetime), "{lifetime}");
    assert!(tried(&good, "a=alice").is_some());
    assert!(tried(&good, "a=root").is_none());

    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let bad: [(&str, Change<'_>); 8] = [
        ("expired", &|c| c["exp"] = (now() - 60).into()),
        ("without an end", &|c| drop(c.as_object_mut().unwrap().remove("exp"))),
        ("not yet", &|c| c["nbf"] = (now() + 60).into()),
        ("another issuer", &|c| c["iss"] = "https://other.example".into()),
        ("no issuer", &|c| drop(c.as_object_mut().unwrap().remove("iss"))),
        ("for others", &|c| c["aud"] = "other".into()),
        ("about nobody", &|c| c["sub"] = "".into()),
        ("about a number", &|c| c["sub"] = 7.into()),
    ];
    for (what, change) in bad {
        assert!(tried(&issuer.token(&claims(change)), "").is_none(), "{what}");
    }
    assert!(tried(&Issuer::new().token(&claims(&|_| {})), "").is_none(), "signed by somebody else");
    let body = BASE64_URL.encode(claims(&|_| {}).to_string());
    let unsigned = format!("{}.{body}.", BASE64_URL.encode(r#"{"alg":"none"}"#));
    assert!(tried(&unsigned, "").is_none(), "unsigned");
    let secret = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("secret".into());
    let shared = jsonwebtoken::encode(&header, &claims(&|_| {}), &secret).unwrap();
    assert!(tried(&shared, "").is_none(), "signed with what everybody may know");
    assert!(tried("x.y.z", "").is_none() && tried("", "").is_none());
    let keys = authenticator.tokens().unwrap();
    assert!(keys.set_keys("{}").is_err() && keys.set_keys(r#"{"keys":[]}"#).is_err());
    assert!(tried(&good, "").is_some(), "the old keys are still there");
    assert_eq!(server.metrics.snapshot().panics_total, 0);
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

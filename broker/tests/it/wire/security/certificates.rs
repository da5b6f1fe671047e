//! TLS: certificates of the server and of clients, and those that were revoked.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use millpond_broker::security::tls::{ClientAuth, Tls, TlsError, TlsSettings};
use millpond_broker::security::{Endpoint, PrincipalMapping, SecurityProtocol};
use millpond_broker::server::Listener;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::super::client::READ_TIMEOUT;
use super::{Session, server};

pub(super) type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

pub(super) fn connect_tls(
    address: SocketAddr,
    authority: &Authority,
    shown: Option<&(String, String)>,
) -> Session<TlsStream> {
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
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, in PEM.
    pub(super) fn issue(&self, common_name: &str) -> (String, String) {
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

    pub(super) fn tls(&self, directory: &std::path::Path, client_auth: ClientAuth) -> Arc<Tls> {
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

//! TLS of a listener: certificate, key and client authorities from PEM files, read again when the files change.
//!
//! Invariant: a listener always has a configuration that works; files that turn bad are reported and the last good ones
//! stay in use.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond_types::{Clock, Principal, SystemClock};
use parking_lot::RwLock;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate_name::{NameError, PrincipalMapping, subject};

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Larger files are not PEM files of certificates.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    #[default]
    None,
    /// Those that do are known by them; a bad certificate is refused.
    Requested,
    Required,
}

/// Where TLS comes from.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of those.
    pub client_crls: Vec<PathBuf>,
    pub client_auth: ClientAuth,
    pub principal_mapping: PrincipalMapping,
    /// Protocols to agree on, for HTTP; Kafka has none.
    pub alpn: Vec<Vec<u8>>,
}

/// What is wrong with TLS files.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    #[error("the {what} file \"{path}\" cannot be read: {problem}")]
    Unreadable { what: &'static str, path: String, problem: String },
    #[error("the {what} file \"{path}\" is not right: {problem}")]
    Wrong { what: &'static str, path: String, problem: String },
    #[error(
        "client certificates are asked for, but no client_ca says whose are believed; give a PEM file of authorities"
    )]
    NoAuthorities,
    #[error("client_crls says which certificates of clients are revoked, but client_auth does not ask for any")]
    NobodyAsked,
    #[error(
        "the key \"{key}\" does not belong to the first certificate of \"{certificate}\"; that file begins with the server's own certificate"
    )]
    Mismatch { key: String, certificate: String },
    #[error("TLS cannot be set up with \"{certificate}\" and \"{key}\": {problem}")]
    Setup { certificate: String, key: String, problem: String },
}

/// What tells that a file is another than before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// When a revocation list expires, in milliseconds, and which.
type Expiry = (i64, PathBuf);

struct Loaded {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<Stamp>>,
    /// Of the list that expires first, until that was told.
    expires: Option<Expiry>,
}

/// A listener's TLS as it is now.
pub struct Tls {
    settings: TlsSettings,
    loaded: RwLock<Loaded>,
}

impl Tls {
    pub fn load(settings: TlsSettings) -> Result<Arc<Self>, TlsError> {
        let stamps = stamps(&settings);
        let (config, expires) = configure(&settings)?;
        Ok(Arc::new(Self { settings, loaded: RwLock::new(Loaded { config, stamps, expires }) }))
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.read().config)
    }

    /// Reads the files again; connections that are open stay as they are.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.settings);
        let config = configure(&self.settings);
        let mut loaded = self.loaded.write();
        // Bad files are reported once, and looked at again when they change again.
        loaded.stamps = stamps;
        (loaded.config, loaded.expires) = config?;
        Ok(())
    }

    /// Whether clients may or must show certificates.
    pub fn asks_clients(&self) -> bool {
        self.settings.client_auth != ClientAuth::None
    }

    fn look(&self) {
        if self.has_changed() {
            self.reload_logged();
        }
        self.tell_expired();
    }

    fn has_changed(&self) -> bool {
        stamps(&self.settings) != self.loaded.read().stamps
    }

    /// Says once that a revocation list has expired.
    fn tell_expired(&self) {
        let now = now_ms();
        if self.loaded.read().expires.as_ref().is_none_or(|(at, _)| *at >= now) {
            return;
        }
        if let Some((_, path)) = self.loaded.write().expires.take() {
            warn!(list = %path.display(), "a revocation list has expired: certificates of its authority are refused until there is a newer one");
        }
    }

    /// Reads the files again and says so in the log.
    pub fn reload_logged(&self) {
        let path = self.settings.certificate.display();
        match self.reload() {
            Ok(()) => info!(certificate = %path, "certificates read again"),
            Err(error) => warn!(%error, "certificates not read again: the old ones stay in use"),
        }
    }

    /// Who the client's certificate is about; anonymous where it showed none.
    pub fn principal(&self, connection: &ServerConnection) -> Result<Principal, NameError> {
        match connection.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => self.settings.principal_mapping.principal(&subject(certificate)?),
            None => Ok(Principal::anonymous()),
        }
    }
}

/// Looks at the files of all of these until the server stops.
pub async fn keep_current(all: Vec<Arc<Tls>>, mut stopping: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(LOOK_INTERVAL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {
                let all = all.clone();
                let look = move || all.iter().for_each(|tls| tls.look());
                // It only fails where the runtime ends.
                let _ended = tokio::task::spawn_blocking(look).await;
            }
            () = stopped(&mut stopping) => return,
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that whoever stops it is gone, which is the same.
    let _gone = stopping.wait_for(|stop| *stop).await.is_err();
}

fn files(settings: &TlsSettings) -> impl Iterator<Item = &PathBuf> {
    [&settings.certificate, &settings.key].into_iter().chain(&settings.client_ca).chain(&settings.client_crls)
}

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some(Stamp { inode: meta.ino(), size: meta.size(), modified: (meta.mtime(), meta.mtime_nsec()) })
    };
    files(settings).map(stamp).collect()
}

/// The configuration, and which revocation list expires first, and when.
fn configure(settings: &TlsSettings) -> Result<(Arc<ServerConfig>, Option<Expiry>), TlsError> {
    let chain = certificates("certificate", &settings.certificate)?;
    let key = private_key(&settings.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let setup = |problem: String| TlsError::Setup {
        certificate: settings.certificate.display().to_string(),
        key: settings.key.display().to_string(),
        problem,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| setup(e.to_string()))?;
    let lists = lists(&settings.client_crls)?;
    let builder = match (settings.client_auth, &settings.client_ca) {
        (ClientAuth::None, _) if !settings.client_crls.is_empty() => return Err(TlsError::NobodyAsked),
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err(TlsError::NoAuthorities),
        (auth, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client_ca", path)? {
                roots.add(certificate).map_err(|e| wrong("client_ca", path, e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match lists.is_empty() {
                true => verifier,
                false => verifier.with_crls(lists.iter().map(|list| list.der.clone())).enforce_revocation_expiration(),
            };
            let verifier = if auth == ClientAuth::Requested { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| {
                match (e, settings.client_crls.first()) {
                    (VerifierBuilderError::InvalidCrl(e), Some(list)) => {
                        wrong("client_crls", list, format!("one of the lists cannot be used: {e:?}"))
                    }
                    (e, _) => wrong("client_ca", path, e.to_string()),
                }
            })?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            key: settings.key.display().to_string(),
            certificate: settings.certificate.display().to_string(),
        },
        other if is_of_version_1(&other) => wrong("certificate", &settings.certificate, VERSION_1),
        other => setup(other.to_string()),
    })?;
    config.alpn_protocols = settings.alpn.clone();
    let first = lists.into_iter().filter_map(|list| Some((list.expires?, list.path))).min();
    Ok((Arc::new(config), first))
}

/// A revocation list.
struct List {
    der: CertificateRevocationListDer<'static>,
    /// In milliseconds.
    expires: Option<i64>,
    path: PathBuf,
}

fn lists(files: &[PathBuf]) -> Result<Vec<List>, TlsError> {
    const WHAT: &str = "client_crls";
    let mut all = Vec::new();
    for path in files {
        let bytes = read(WHAT, path)?;
        let found: Vec<CertificateRevocationListDer<'static>> = match CertificateRevocationList::from_der(&bytes) {
            Ok(_) => vec![bytes.clone().into()],
            Err(_) => CertificateRevocationListDer::pem_slice_iter(&bytes)
                .collect::<Result<_, _>>()
                .map_err(|e| wrong(WHAT, path, not_pem(&bytes, &e)))?,
        };
        if found.is_empty() {
            let problem = "it has no revocation list; PEM with \"-----BEGIN X509 CRL-----\" is expected, or DER";
            return Err(wrong(WHAT, path, other_form(&bytes).unwrap_or(problem)));
        }
        for der in found {
            let (_, list) = CertificateRevocationList::from_der(&der)
                .map_err(|e| wrong(WHAT, path, format!("it has no revocation list that can be read: {e}")))?;
            let expires = list.next_update().map(|at| at.timestamp().saturating_mul(1000));
            if let Some(at) = list.next_update().filter(|_| expires.is_some_and(|at| at <= now_ms())) {
                let problem = format!(
                    "the list of {} has expired: its next one was due at {at}; until that is there, no certificate of that authority can be accepted",
                    list.issuer()
                );
                return Err(wrong(WHAT, path, problem));
            }
            all.push(List { expires, path: path.clone(), der });
        }
    }
    Ok(all)
}

fn now_ms() -> i64 {
    SystemClock.now_ms()
}

/// What to do about a certificate of version 1, as "openssl x509 -req" makes it where nothing else is said.
pub const VERSION_1: &str = "it is of X.509's version 1, and 3 is needed; \"openssl x509 -req ... -extfile FILE\" makes that, \
    with \"extendedKeyUsage=clientAuth\" or \"subjectAltName=DNS:NAME\" in the file";

/// Whether that is what is wrong. The library has no name for it.
pub fn is_of_version_1(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            format!("{other:?}").contains("UnsupportedCertVersion")
        }
        _ => false,
    }
}

/// Why a client and this end did not agree on TLS.
pub fn disagreement(error: &io::Error) -> String {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(inner) if is_of_version_1(inner) => format!("the client's certificate cannot be used: {VERSION_1}"),
        _ => error.to_string(),
    }
}

/// What a file is that is not PEM, and how to make PEM of it.
pub fn other_form(bytes: &[u8]) -> Option<&'static str> {
    const JKS: [&[u8]; 2] = [&[0xfe, 0xed, 0xfe, 0xed], &[0xce, 0xce, 0xce, 0xce]];
    if JKS.iter().any(|magic| bytes.starts_with(magic)) {
        return Some(
            "it is a Java key store, and PEM is expected; \"keytool -importkeystore -srckeystore FILE -destkeystore NEW.p12 -deststoretype PKCS12\" makes PKCS#12 of it, and \"openssl pkcs12 -in NEW.p12 -nodes -out NEW.pem\" makes PEM of that",
        );
    }
    // DER: a sequence that begins with version 3, where a certificate has a sequence and a key version 0 or 1.
    let length = match bytes {
        [0x30, short, ..] if *short < 0x80 => 2,
        [0x30, long, ..] => 2 + usize::from(long & 0x7f),
        _ => return None,
    };
    match bytes.get(length..)? {
        [2, 1, 3, ..] => Some(
            "it is a PKCS#12 key store, and PEM is expected; \"openssl pkcs12 -in FILE -nodes -out NEW.pem\" makes PEM of it, with certificates and key",
        ),
        [2, 1, 0 | 1, ..] => Some(
            "it is a key in DER, and PEM is expected; \"openssl pkey -inform der -in FILE -out NEW.pem\" makes PEM of it",
        ),
        [0x30, ..] => Some(
            "it is DER, and PEM is expected; \"openssl x509 -inform der -in FILE -out NEW.pem\" makes PEM of a certificate",
        ),
        _ => None,
    }
}

fn not_pem(bytes: &[u8], error: &pem::Error) -> String {
    other_form(bytes).map_or_else(|| format!("it is not PEM: {error}"), str::to_owned)
}

fn wrong(what: &'static str, path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Wrong { what, path: path.display().to_string(), problem: problem.into() }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |e: io::Error| {
        let problem = e.to_string();
        TlsError::Unreadable { what, path: path.display().to_string(), problem }
    };
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(wrong(what, path, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    fs::read(path).map_err(unreadable)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(what, path)?;
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|e| wrong(what, path, not_pem(&bytes, &e)))?;
    if all.is_empty() {
        let problem = "it has no certificate; PEM with \"-----BEGIN CERTIFICATE-----\" is expected";
        return Err(wrong(what, path, other_form(&bytes).unwrap_or(problem)));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read("key", path)?;
    if fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
        warn!(key = %path.display(), "the private key can be read by others than its owner; chmod 600 changes that");
    }
    if bytes.windows(21).any(|w| w == b"ENCRYPTED PRIVATE KEY") || bytes.windows(17).any(|w| w == b"Proc-Type: 4,ENCR")
    {
        let problem = "the key is encrypted; \"openssl pkey -in FILE -out NEW\" writes it without a password";
        return Err(wrong("key", path, problem));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| {
        let problem = match e {
            pem::Error::NoItemsFound if other_form(&bytes).is_none() => {
                "it has no private key; PEM with \"-----BEGIN PRIVATE KEY-----\" is expected".to_owned()
            }
            other => not_pem(&bytes, &other),
        };
        wrong("key", path, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path, name: &str) -> TlsSettings {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        fs::write(directory.join("server.pem"), made.cert.pem()).unwrap();
        fs::write(directory.join("server.key"), made.signing_key.serialize_pem()).unwrap();
        TlsSettings {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
            client_ca: None,
            client_crls: Vec::new(),
            client_auth: ClientAuth::None,
            principal_mapping: PrincipalMapping::default(),
            alpn: Vec::new(),
        }
    }

    #[test]
    fn bad_files_are_told_with_what_would_be_right() {
        let directory = tempfile::tempdir().unwrap();
        let good = settings(directory.path(), "a.example");
        Tls::load(good.clone()).map(drop).unwrap();
        let message = |settings: TlsSettings| Tls::load(settings).map(drop).unwrap_err().to_string();

        let missing = message(TlsSettings { key: directory.path().join("nowhere"), ..good.clone() });
        assert!(missing.contains("nowhere") && missing.contains("cannot be read"), "{missing}");
        let swapped =
            message(TlsSettings { certificate: good.key.clone(), key: good.certificate.clone(), ..good.clone() });
        assert!(swapped.contains("BEGIN CERTIFICATE"), "{swapped}");
        let no_key = message(TlsSettings { key: good.certificate.clone(), ..good.clone() });
        assert!(no_key.contains("BEGIN PRIVATE KEY"), "{no_key}");
        let no_ca = message(TlsSettings { client_auth: ClientAuth::Required, ..good.clone() });
        assert!(no_ca.contains("client_ca"), "{no_ca}");

        let store = |bytes: &[u8]| {
            let path = directory.path().join("store");
            fs::write(&path, bytes).unwrap();
            let certificate = message(TlsSettings { certificate: path.clone(), ..good.clone() });
            assert_eq!(
                message(TlsSettings { key: path, ..good.clone() }).split("PEM is").last(),
                certificate.split("PEM is").last()
            );
            certificate
        };
        // As keytool and openssl begin them.
        assert!(store(&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2]).contains("keytool -importkeystore"));
        assert!(store(&[0x30, 0x82, 0x0a, 0x3d, 2, 1, 3, 0x30, 0x82]).contains("openssl pkcs12 -in"));
        assert!(store(&[0x30, 0x81, 0x87, 2, 1, 0, 0x30]).contains("openssl pkey -inform der"));
        assert!(store(&[0x30, 0x82, 1, 1, 0x30, 0x82]).contains("openssl x509 -inform der"));

        let other = directory.path().join("other.key");
        fs::write(&other, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let mismatch = message(TlsSettings { key: other, ..good.clone() });
        assert!(mismatch.contains("does not belong"), "{mismatch}");
        let locked = directory.path().join("locked.key");
        fs::write(&locked, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
            .unwrap();
        let locked = message(TlsSettings { key: locked, ..good });
        assert!(locked.contains("encrypted") && locked.contains("openssl pkey"), "{locked}");
    }

    #[test]
    fn files_that_turn_bad_leave_the_last_good_ones_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let tls = Tls::load(settings(directory.path(), "a.example")).unwrap();
        assert!(!tls.has_changed());
        let first = tls.config();
        settings(directory.path(), "b.example");
        assert!(tls.has_changed());
        tls.reload().unwrap();
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second) && !tls.has_changed());
        fs::write(directory.path().join("server.pem"), "nothing").unwrap();
        assert!(tls.has_changed() && tls.reload().is_err());
        assert!(Arc::ptr_eq(&second, &tls.config()) && !tls.has_changed());
    }
}

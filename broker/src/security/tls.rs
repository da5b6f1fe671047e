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

use millpond_types::Principal;
use parking_lot::RwLock;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

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

struct Loaded {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<Stamp>>,
}

/// A listener's TLS as it is now.
pub struct Tls {
    settings: TlsSettings,
    loaded: RwLock<Loaded>,
}

impl Tls {
    pub fn load(settings: TlsSettings) -> Result<Arc<Self>, TlsError> {
        let stamps = stamps(&settings);
        let config = configure(&settings)?;
        Ok(Arc::new(Self { settings, loaded: RwLock::new(Loaded { config, stamps }) }))
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
        loaded.config = config?;
        Ok(())
    }

    /// Whether clients may or must show certificates.
    pub fn asks_clients(&self) -> bool {
        self.settings.client_auth != ClientAuth::None
    }

    fn has_changed(&self) -> bool {
        stamps(&self.settings) != self.loaded.read().stamps
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
                let look = move || all.iter().filter(|tls| tls.has_changed()).for_each(|tls| tls.reload_logged());
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
    [&settings.certificate, &settings.key].into_iter().chain(&settings.client_ca)
}

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some(Stamp { inode: meta.ino(), size: meta.size(), modified: (meta.mtime(), meta.mtime_nsec()) })
    };
    files(settings).map(stamp).collect()
}

fn configure(settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
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
    let builder = match (settings.client_auth, &settings.client_ca) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err(TlsError::NoAuthorities),
        (auth, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client_ca", path)? {
                roots.add(certificate).map_err(|e| wrong("client_ca", path, e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if auth == ClientAuth::Requested { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| wrong("client_ca", path, e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            key: settings.key.display().to_string(),
            certificate: settings.certificate.display().to_string(),
        },
        other => setup(other.to_string()),
    })?;
    config.alpn_protocols = settings.alpn.clone();
    Ok(Arc::new(config))
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
    let all = all.map_err(|e| wrong(what, path, format!("it is not PEM: {e}")))?;
    if all.is_empty() {
        let problem = "it has no certificate; PEM with \"-----BEGIN CERTIFICATE-----\" is expected";
        return Err(wrong(what, path, problem));
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
            pem::Error::NoItemsFound => {
                "it has no private key; PEM with \"-----BEGIN PRIVATE KEY-----\" is expected".to_owned()
            }
            other => format!("it is not PEM: {other}"),
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

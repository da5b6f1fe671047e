//! TLS towards a broker: who may sign its certificate, and the certificate that is shown to it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use millpond_broker::security::tls::{VERSION_1, is_of_version_1, other_form};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::{Pem, Tls};

/// Where Linux and the BSDs keep the authorities that all programs trust.
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in authorities(tls)? {
        // The system's list may have old ones that cannot be used; whoever names a file means all of it.
        let added = roots.add(certificate);
        if tls.authorities.is_some() {
            added.context("a certificate of the authorities cannot be used")?;
        }
    }
    let roots = Arc::new(roots);
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if tls.any_name {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { inner, provider }))
    } else {
        builder.with_root_certificates(roots)
    };
    let config = match (&tls.certificate, &tls.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate).context("the client's certificate cannot be read")?;
            let key = private_key(key)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| match is_of_version_1(&error) {
                true => anyhow::anyhow!("the client's certificate cannot be used: {VERSION_1}"),
                false => anyhow::Error::new(error).context("the client's certificate and key do not fit"),
            })?
        }
        (Some(_), None) => bail!("a certificate needs its key: --key FILE"),
        (None, Some(_)) => bail!("a key needs its certificate: --cert FILE"),
    };
    Ok(Arc::new(config))
}

/// What is wrong with a server's certificate, where it is something that one can do something about.
pub fn problem(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError as C;
    Some(match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "its certificate is signed by nobody who is trusted here; name the authority with --cacert FILE"
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "its certificate is for another name; connect by that name"
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "its certificate has expired",
        error if is_of_version_1(error) => {
            "its certificate is of X.509's version 1, which nobody checks any more; it needs one with a subjectAltName"
        }
        _ => return None,
    })
}

fn authorities(tls: &Tls) -> Result<Vec<CertificateDer<'static>>> {
    if let Some(pem) = &tls.authorities {
        return certificates(pem).context("the authorities' certificates cannot be read");
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let found = named.or_else(|| SYSTEM_AUTHORITIES.iter().map(Path::new).find(|p| p.exists()).map(Path::to_path_buf));
    match found {
        Some(path) => certificates(&Pem::File(path)).context("the system's authorities cannot be read"),
        None => bail!("this system has no list of certificate authorities; name one with --cacert FILE"),
    }
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = match pem {
        Pem::File(path) => CertificateDer::pem_file_iter(path)
            .with_context(|| format!("cannot read \"{}\"", path.display()))?
            .collect(),
        Pem::Text(text) => CertificateDer::pem_slice_iter(text.0.as_bytes()).collect(),
    };
    let found = found.with_context(|| format!("{} is not in PEM form", name(pem)))?;
    if found.is_empty() {
        let form = file_form(pem).map(|form| format!(": {form}")).unwrap_or_default();
        bail!("{} has no certificate in PEM form{form}", name(pem));
    }
    Ok(found)
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>> {
    let bytes = match pem {
        Pem::File(path) => std::fs::read(path).with_context(|| format!("cannot read \"{}\"", path.display()))?,
        Pem::Text(text) => text.0.clone().into_bytes(),
    };
    let encrypted = bytes.windows(9).any(|w| w == b"ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| match encrypted {
        true => anyhow::anyhow!("the key in {} is encrypted; \"openssl pkey -in FILE -out PLAIN\" opens it", name(pem)),
        false => {
            let form = file_form(pem).map(|form| format!(": {form}")).unwrap_or_default();
            anyhow::anyhow!("{} has no private key in PEM form{form}", name(pem))
        }
    })
}

/// What it is instead of PEM, and how to convert it.
fn file_form(pem: &Pem) -> Option<&'static str> {
    match pem {
        Pem::File(path) => other_form(&std::fs::read(path).ok()?),
        Pem::Text(_) => None,
    }
}

fn name(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => format!("\"{}\"", path.display()),
        Pem::Text(_) => "the text in the configuration".to_string(),
    }
}

/// Checks who signed a certificate, and not whom it names.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! HTTP clients of this program: whom they believe.

use anyhow::{Context, Result};

/// Whose certificates a client believes.
pub enum Trust<'a> {
    /// Nobody's: it speaks to servers without TLS.
    Nobody,
    /// Those of the system.
    System,
    /// Those of these authorities alone, in PEM.
    Only(&'a [u8]),
}

/// A client that believes no others. The first call chooses who computes for TLS in this process.
pub fn builder(trust: Trust<'_>) -> Result<reqwest::ClientBuilder> {
    // Whoever chose before is as good.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder();
    Ok(match trust {
        Trust::Nobody => builder.tls_certs_only([]),
        Trust::System => builder,
        Trust::Only(pem) => {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).context("not PEM certificates")?;
            anyhow::ensure!(!authorities.is_empty(), "there is no certificate; PEM with BEGIN CERTIFICATE is expected");
            builder.tls_certs_only(authorities)
        }
    })
}

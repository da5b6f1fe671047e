//! The keys that tokens are checked with: read from a file or fetched from a URL, again and again.
//!
//! Invariant: a set that cannot be had or used leaves the last good one in place, if it is of a URL for as long as
//! `jwks_stale_max_ms`; after that all tokens are refused until there is one again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millpond::config::OAuth;
use millpond::http_client::{Trust, builder};
use millpond_broker::security::tokens::Tokens;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Larger sets are not taken.
const SET_BYTES_MAX: usize = 1 << 20;
const FETCH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const FILE_REFRESH_DEFAULT: Duration = Duration::from_secs(30);
const URL_REFRESH_DEFAULT: Duration = Duration::from_secs(900);
const STALE_MAX_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// A token with an unknown key makes for an early look, but not more often than this.
const EARLY_REST: Duration = Duration::from_secs(10);

/// Where a set is.
enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

/// A set that is kept current.
pub struct KeySet {
    source: Source,
    refresh: Duration,
    /// How long a set of a URL counts that could not be fetched again.
    stale_max: Duration,
    tokens: Arc<Tokens>,
}

impl KeySet {
    pub fn new(config: &OAuth, tokens: Arc<Tokens>) -> Result<Self> {
        let (source, refresh) = if config.jwks.contains("://") {
            ensure!(
                config.jwks.starts_with("https://"),
                "jwks is a file or a URL with https, not \"{}\": whoever could change the keys on their way could be anybody",
                config.jwks
            );
            let pem = match &config.jwks_ca {
                Some(path) => Some(std::fs::read(path).with_context(|| format!("cannot read \"{}\"", path.display()))?),
                None => None,
            };
            let timeout = config.jwks_timeout_ms.map_or(FETCH_TIMEOUT_DEFAULT, Duration::from_millis);
            let trust = pem.as_deref().map_or(Trust::System, Trust::Only);
            let client = builder(trust)?.timeout(timeout).https_only(true).build()?;
            (Source::Url(config.jwks.clone(), client), URL_REFRESH_DEFAULT)
        } else {
            (Source::File(PathBuf::from(&config.jwks)), FILE_REFRESH_DEFAULT)
        };
        let refresh = config.jwks_refresh_ms.map_or(refresh, Duration::from_millis).max(Duration::from_secs(1));
        let stale_max = config.jwks_stale_max_ms.map_or(STALE_MAX_DEFAULT, Duration::from_millis);
        Ok(Self { source, refresh, stale_max, tokens })
    }

    /// Reads the set the first time. A file must be right; a URL may be out of reach for now.
    pub async fn begin(&self) -> Result<()> {
        match (self.load().await, &self.source) {
            (Err(error), Source::File(_)) => Err(error),
            (Err(error), Source::Url(..)) => {
                warn!(error = format!("{error:#}"), "no keys for tokens yet: all tokens are refused");
                Ok(())
            }
            (Ok(()), _) => Ok(()),
        }
    }

    /// Reads it again until the server stops.
    pub async fn keep_current(self, mut stopping: watch::Receiver<bool>) {
        let mut good = Instant::now();
        let mut dropped = false;
        loop {
            let last = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(self.refresh) => {}
                () = tokio::time::sleep_until(good + self.stale_max), if self.may_be_stale() && !dropped => {
                    dropped = true;
                    self.tokens.forget_keys();
                    let seconds = self.stale_max.as_secs();
                    warn!(seconds, "keys for tokens could not be read again for too long: all tokens are refused");
                    continue;
                }
                () = self.key_missing(last) => {}
                () = stopped(&mut stopping) => return,
            }
            let loaded = tokio::select! {
                loaded = self.load() => loaded,
                () = stopped(&mut stopping) => return,
            };
            match loaded {
                Ok(()) => {
                    (good, dropped) = (Instant::now(), false);
                    debug!("keys for tokens read again");
                }
                Err(error) => {
                    let left = if dropped { "there are none" } else { "the old ones stay in use for now" };
                    warn!(error = format!("{error:#}"), left, "keys for tokens not read again");
                }
            }
        }
    }

    async fn key_missing(&self, last: Instant) {
        self.tokens.key_missing().await;
        tokio::time::sleep_until(last + EARLY_REST.min(self.refresh)).await;
    }

    /// A file that cannot be read says nothing about its keys.
    fn may_be_stale(&self) -> bool {
        matches!(self.source, Source::Url(..))
    }

    async fn load(&self) -> Result<()> {
        let text = match &self.source {
            Source::File(path) => {
                let read = tokio::fs::read(path).await;
                read.with_context(|| format!("cannot read the key set \"{}\"", path.display()))?
            }
            Source::Url(url, client) => {
                fetch(url, client).await.with_context(|| format!("cannot fetch the key set \"{url}\""))?
            }
        };
        if text.len() > SET_BYTES_MAX {
            bail!("the key set is larger than {SET_BYTES_MAX} bytes");
        }
        let text = std::str::from_utf8(&text).context("the key set is not UTF-8")?;
        let place = match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Url(url, _) => url.clone(),
        };
        self.tokens.set_keys(text).with_context(|| format!("the key set \"{place}\""))?;
        Ok(())
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that whoever stops it is gone, which is the same.
    let _gone = stopping.wait_for(|stop| *stop).await.is_err();
}

async fn fetch(url: &str, client: &reqwest::Client) -> Result<Vec<u8>> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= SET_BYTES_MAX, "it is larger than {SET_BYTES_MAX} bytes");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

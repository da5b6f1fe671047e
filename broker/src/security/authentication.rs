//! Finding out whether somebody is who they say: by password or by token, for Kafka's listeners and for HTTP alike.
//!
//! Whoever is refused is told nothing but that, after a time that does not depend on why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use millpond_types::Principal;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info};

use super::tokens::{TokenSettings, Tokens, Verified};
use super::users::{UserError, Users};
use crate::seldom::Seldom;
use crate::storage::Storage;

/// Limits and times of authentication.
#[derive(Debug, Clone)]
pub struct AuthenticationSettings {
    pub users_max: usize,
    /// How long whoever is refused waits for it.
    pub failure_delay: Duration,
    /// After this a connection must authenticate again; never where absent. A token's end counts in any case.
    pub session_max: Option<Duration>,
    /// Passwords that are checked the slow way at a time; others wait.
    pub derivations_max: usize,
    /// Whose tokens are believed; nobody's where absent.
    pub tokens: Option<TokenSettings>,
}

impl Default for AuthenticationSettings {
    fn default() -> Self {
        Self {
            users_max: 100_000,
            failure_delay: Duration::from_millis(250),
            session_max: None,
            derivations_max: 4,
            tokens: None,
        }
    }
}

/// Credentials that are not right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("authentication failed: the credentials are not right")]
pub struct Denied;

/// All that is needed to know somebody.
pub struct Authenticator {
    users: Arc<Users>,
    tokens: Option<Arc<Tokens>>,
    settings: AuthenticationSettings,
    derivations: Semaphore,
    accepted: AtomicU64,
    denied: AtomicU64,
    refusals: Seldom,
}

impl Authenticator {
    /// Reads all users. Keys for tokens are set later.
    pub async fn open(storage: &Storage, settings: AuthenticationSettings) -> Result<Arc<Self>, UserError> {
        Ok(Arc::new(Self {
            users: Arc::new(Users::open(storage, settings.users_max).await?),
            tokens: settings.tokens.clone().map(|settings| Arc::new(Tokens::new(settings))),
            derivations: Semaphore::new(settings.derivations_max.max(1)),
            settings,
            accepted: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            refusals: Seldom::default(),
        }))
    }

    pub fn users(&self) -> &Users {
        &self.users
    }

    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// How many were accepted and how many refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.accepted.load(Relaxed), self.denied.load(Relaxed))
    }

    pub(super) fn session_max(&self) -> Option<Duration> {
        self.settings.session_max
    }

    /// Checks a password. `from` says in the log who tried.
    pub async fn password(&self, user: &str, password: &str, from: &str) -> Result<Principal, Denied> {
        let begun = Instant::now();
        let users = Arc::clone(&self.users);
        let (name, secret) = (user.to_owned(), password.to_owned());
        let is_right = {
            let _permit = self.derivations.acquire().await.map_err(|_| Denied)?;
            tokio::task::spawn_blocking(move || users.is_password(&name, &secret)).await.unwrap_or(false)
        };
        if is_right {
            self.accept();
            return Ok(Principal::user(user));
        }
        Err(self.deny(begun, from, "password").await)
    }

    /// Checks a token. Refuses all where tokens are not set up.
    pub async fn token(&self, token: &str, from: &str) -> Result<Verified, Denied> {
        let begun = Instant::now();
        let result = match self.tokens.clone() {
            Some(tokens) => {
                let token = token.to_owned();
                let _permit = self.derivations.acquire().await.map_err(|_| Denied)?;
                tokio::task::spawn_blocking(move || tokens.check(&token)).await.ok()
            }
            None => None,
        };
        match result {
            Some(Ok(verified)) => {
                self.accept();
                Ok(verified)
            }
            refused => {
                if let Some(Err(error)) = refused {
                    debug!(from, %error, "token refused");
                }
                Err(self.deny(begun, from, "token").await)
            }
        }
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Counts a refusal and waits until it may be told.
    pub(super) async fn deny(&self, begun: Instant, from: &str, by: &str) -> Denied {
        self.denied.fetch_add(1, Relaxed);
        // Neither names nor secrets: people type one where the other belongs.
        if let Some(left_out) = self.refusals.due() {
            info!(from, by, left_out, "authentication failed");
        }
        tokio::time::sleep_until(begun + self.settings.failure_delay).await;
        Denied
    }
}

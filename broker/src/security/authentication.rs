//! Finding out whether somebody is who they say: by password or by token, for Kafka's listeners and for HTTP alike.
//!
//! Whoever is refused is told nothing but that, after a time that does not depend on why. Invariant: who tries wrong
//! passwords keeps only others of the same address waiting, and among those nobody whose password was right lately or who
//! shows a token.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use millpond_types::{Principal, Seldom};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info};

use super::delegation::{DelegationSettings, DelegationTokens};
use super::tokens::{TokenSettings, Tokens, Verified};
use super::users::{UserError, Users};
use crate::lanes::{Lane, Lanes};
use crate::storage::Storage;

/// Limits and times of authentication.
#[derive(Debug, Clone)]
pub struct AuthenticationSettings {
    pub users_max: usize,
    /// How long whoever is refused waits for it.
    pub failure_delay: Duration,
    /// After this a connection must authenticate again; never where absent. A token's end counts in any case.
    pub session_max: Option<Duration>,
    /// Passwords that are checked the slow way at a time, and tokens; others wait.
    pub derivations_max: usize,
    /// Of one address, and who was wrong counts for as long as a refusal takes.
    pub tries_per_address_max: usize,
    /// Whose tokens are believed; nobody's where absent.
    pub tokens: Option<TokenSettings>,
    pub delegation: DelegationSettings,
}

impl Default for AuthenticationSettings {
    fn default() -> Self {
        Self {
            users_max: 100_000,
            failure_delay: Duration::from_millis(250),
            session_max: None,
            derivations_max: 4,
            tries_per_address_max: 8,
            tokens: None,
            delegation: DelegationSettings::default(),
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
    delegation: DelegationTokens,
    settings: AuthenticationSettings,
    derivations: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    tries: Arc<Lanes>,
    /// Apart from those of passwords, in which whoever was wrong rests: a token is checked soon and cannot be guessed.
    token_tries: Arc<Lanes>,
    accepted: AtomicU64,
    denied: AtomicU64,
    refusals: Seldom,
}

impl Authenticator {
    /// Reads all users. Keys for tokens are set later.
    pub async fn open(storage: &Storage, settings: AuthenticationSettings) -> Result<Arc<Self>, UserError> {
        Ok(Arc::new(Self {
            users: Arc::new(Users::open(storage, settings.users_max).await?),
            delegation: DelegationTokens::open(storage, settings.delegation.clone()).await?,
            tokens: settings.tokens.clone().map(|settings| Arc::new(Tokens::new(settings))),
            derivations: Arc::new(Semaphore::new(settings.derivations_max.clamp(1, Semaphore::MAX_PERMITS))),
            verifications: Arc::new(Semaphore::new(settings.derivations_max.clamp(1, Semaphore::MAX_PERMITS))),
            tries: Lanes::new(settings.tries_per_address_max),
            token_tries: Lanes::new(settings.tries_per_address_max),
            settings,
            accepted: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            refusals: Seldom::default(),
        }))
    }

    pub fn users(&self) -> &Users {
        &self.users
    }

    pub fn delegation(&self) -> &DelegationTokens {
        &self.delegation
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

    /// Checks a password that somebody at this address showed.
    pub async fn password(&self, user: &str, password: &str, from: IpAddr) -> Result<Principal, Denied> {
        let begun = Instant::now();
        if self.users.was_right(user, password) {
            self.accept();
            return Ok(Principal::user(user));
        }
        let lane = self.tries.enter(from).await;
        // Others may have found it right in the meantime: clients connect several times at once.
        let is_right = self.users.was_right(user, password) || {
            let permit = Arc::clone(&self.derivations).acquire_owned().await.map_err(|_| Denied)?;
            let (users, name, secret) = (Arc::clone(&self.users), user.to_owned(), password.to_owned());
            let rest = self.settings.failure_delay;
            // It goes on when whoever asked goes away: the permit and the lane are its own.
            let check = move || {
                let rested = Instant::now() + rest;
                let is_right = users.is_password(&name, &secret);
                drop(permit);
                if !is_right {
                    lane.rest(rested);
                }
                is_right
            };
            tokio::task::spawn_blocking(check).await.unwrap_or(false)
        };
        if is_right {
            self.accept();
            return Ok(Principal::user(user));
        }
        Err(self.deny(begun, from, "password", None).await)
    }

    /// Checks a token. Refuses all where tokens are not set up.
    pub async fn token(&self, token: &str, from: IpAddr) -> Result<Verified, Denied> {
        let begun = Instant::now();
        let result = match self.tokens.clone() {
            Some(tokens) => {
                let token = token.to_owned();
                let _lane = self.token_tries.enter(from).await;
                let permit = Arc::clone(&self.verifications).acquire_owned().await.map_err(|_| Denied)?;
                let check = move || {
                    let checked = tokens.check(&token);
                    drop(permit);
                    checked
                };
                tokio::task::spawn_blocking(check).await.ok()
            }
            None => None,
        };
        match result {
            Some(Ok(verified)) => {
                self.accept();
                Ok(verified)
            }
            Some(Err(error)) => {
                debug!(%from, %error, "token refused");
                Err(self.deny(begun, from, "token", Some(error.reason)).await)
            }
            None => Err(self.deny(begun, from, "token", None).await),
        }
    }

    /// Enters a lane for somebody at this address who proves a password in another way.
    pub(super) async fn enter(&self, from: IpAddr) -> Lane {
        self.tries.enter(from).await
    }

    /// Somebody was wrong in a lane, which counts for as long as the refusal is delayed.
    pub(super) fn wrong_in(&self, lane: Lane) {
        lane.rest(Instant::now() + self.settings.failure_delay);
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Counts a refusal and waits until it may be told: a whole number of delays after the beginning, so that what took
    /// longer does not show by how much. The reason is for the log alone.
    pub(super) async fn deny(&self, begun: Instant, from: IpAddr, by: &str, reason: Option<&'static str>) -> Denied {
        self.denied.fetch_add(1, Relaxed);
        // Neither names nor secrets: people type one where the other belongs.
        if let Some(left_out) = self.refusals.due() {
            info!(%from, by, reason, left_out, "authentication failed");
        }
        tokio::time::sleep_until(begun + whole(self.settings.failure_delay, begun.elapsed())).await;
        Denied
    }
}

/// The least multiple of a delay that is not less than what has passed.
fn whole(delay: Duration, passed: Duration) -> Duration {
    let (delay_ms, passed_ms) = (delay.as_millis().max(1), passed.as_millis());
    let times = u32::try_from(passed_ms / delay_ms + 1).unwrap_or(u32::MAX);
    delay.saturating_mul(times)
}

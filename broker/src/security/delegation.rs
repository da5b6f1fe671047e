//! Delegation tokens (KIP-48): secrets that somebody who has authenticated hands to others, who then log in by SCRAM as that
//! owner for a limited time.
//!
//! ```text
//! key    empty                     the secret that tokens are signed with
//! key    token id                  version u8 │ issued i64 │ expires i64 │ ends i64 │ text owner │ text requester
//!                                  │ u32 n │ n × text renewer │ credential (SHA-256) │ credential (SHA-512), each as
//!                                  u32 iterations and three times a length, u32, and bytes
//! ```
//! A token's password is the signature of its id, which is not kept, and neither is the token of anybody else's making.
//! Not here: who may ask for what (`api`), the exchange (`scram`, `sasl`).
//! Invariant: memory shows what storage holds; a change is seen when it is durable; a token that has expired is none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use millpond_types::Principal;
use parking_lot::RwLock;
use ring::hmac;

use super::scram::{Credential, Found, ITERATIONS_DEFAULT, SALT_BYTES, ScramMechanism};
use super::users::{UserError, random};
use crate::keys::{Fields, put_text};
use crate::storage::{SecurityKind, Storage, StorageError};

const VERSION: u8 = 1;
const SECRET_BYTES: usize = 64;
const SECRET_KEY: &[u8] = &[];
/// Renewers of one token.
const RENEWERS_MAX: usize = 100;
/// About what a token takes in memory besides names.
const TOKEN_BYTES: usize = 1200;
/// The same of one name.
const NAME_BYTES: usize = 48;

/// Limits and times of delegation tokens.
#[derive(Debug, Clone)]
pub struct DelegationSettings {
    /// Whoever asks for tokens may have half of these, and half of their bytes.
    pub tokens_max: usize,
    /// About what all of them take in memory.
    pub bytes_max: usize,
    /// A token ends after this, however often it is renewed.
    pub lifetime_max_ms: i64,
    /// Until when a token is good, from its issue or its last renewal.
    pub renewal_ms: i64,
}

impl Default for DelegationSettings {
    fn default() -> Self {
        Self {
            tokens_max: 10_000,
            bytes_max: 32 << 20,
            lifetime_max_ms: 7 * 24 * 3_600_000,
            renewal_ms: 24 * 3_600_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationToken {
    pub id: String,
    /// Who somebody with the token is.
    pub owner: Principal,
    /// Who asked for it.
    pub requester: Principal,
    pub renewers: Vec<Principal>,
    pub issued_ms: i64,
    pub expires_ms: i64,
    pub ends_ms: i64,
    credentials: [Credential; 2],
}

impl DelegationToken {
    /// Whether somebody knows of it in any case.
    pub fn concerns(&self, who: &Principal) -> bool {
        self.requester == *who || self.may_renew(who)
    }

    /// Whether somebody may renew it and end it.
    fn may_renew(&self, who: &Principal) -> bool {
        self.owner == *who || self.renewers.contains(who)
    }

    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        bytes_of([&self.owner, &self.requester].into_iter().chain(&self.renewers))
    }
}

fn bytes_of<'a>(names: impl Iterator<Item = &'a Principal>) -> usize {
    TOKEN_BYTES + names.map(|who| NAME_BYTES + who.name().len()).sum::<usize>()
}

/// Why a token was not made or changed.
#[derive(Debug, Clone)]
pub enum DelegationError {
    NotFound,
    /// Whoever asks is neither its owner nor one of its renewers.
    NotOwner,
    Expired,
    TooMany(String),
    Storage(StorageError),
}

impl From<UserError> for DelegationError {
    fn from(error: UserError) -> Self {
        Self::Storage(StorageError::Unavailable(error.to_string()))
    }
}

#[derive(Default)]
struct Table {
    by_id: BTreeMap<String, Arc<DelegationToken>>,
    /// Ids by signature.
    signed: HashMap<Vec<u8>, String>,
}

pub struct DelegationTokens {
    storage: Storage,
    settings: DelegationSettings,
    secret: hmac::Key,
    table: RwLock<Table>,
    /// Held over a change, so that memory and storage change in the same order.
    changing: tokio::sync::Mutex<()>,
}

impl DelegationTokens {
    /// Reads all tokens. The first time in a storage it writes a secret.
    pub async fn open(storage: &Storage, settings: DelegationSettings) -> Result<Self, UserError> {
        let (mut by_id, mut secret) = (BTreeMap::new(), None);
        for (key, value) in storage.security_scan(SecurityKind::Token)? {
            if key == SECRET_KEY {
                secret = Some(value.to_vec());
                continue;
            }
            let id = String::from_utf8(key).ok();
            let token = id.and_then(|id| decode(id, &value));
            let token = token.ok_or_else(|| StorageError::Corrupt("a delegation token is damaged".into()))?;
            by_id.insert(token.id.clone(), Arc::new(token));
        }
        let secret = match secret {
            Some(secret) => secret,
            None => {
                let secret = random::<SECRET_BYTES>()?.to_vec();
                storage.security_write(SecurityKind::Token, vec![(SECRET_KEY.to_vec(), Some(secret.clone()))]).await?;
                secret
            }
        };
        let secret = hmac::Key::new(hmac::HMAC_SHA512, &secret);
        let signed = by_id.keys().map(|id| (signature(&secret, id), id.clone())).collect();
        Ok(Self {
            storage: storage.clone(),
            settings,
            secret,
            table: RwLock::new(Table { by_id, signed }),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    fn now(&self) -> i64 {
        self.storage.wall_ms()
    }

    /// What a token's holder proves it by; in base64 it is the password.
    pub fn signature(&self, id: &str) -> Vec<u8> {
        signature(&self.secret, id)
    }

    /// The token, as long as it is good.
    pub fn get(&self, id: &str) -> Option<Arc<DelegationToken>> {
        let now = self.now();
        self.table.read().by_id.get(id).filter(|token| token.expires_ms > now).cloned()
    }

    /// How long a token is still good.
    pub fn remaining(&self, token: &DelegationToken) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(token.expires_ms - self.now()).unwrap_or(0))
    }

    /// All that are good, by id.
    pub fn all(&self) -> Vec<Arc<DelegationToken>> {
        let now = self.now();
        self.table.read().by_id.values().filter(|token| token.expires_ms > now).cloned().collect()
    }

    /// The credential of a token, for an exchange; `None` where there is no such token.
    pub fn find(&self, mechanism: ScramMechanism, id: &str) -> Option<Found> {
        let token = self.get(id)?;
        let credential = token.credentials.iter().find(|credential| credential.mechanism == mechanism)?;
        Some(Found { credential: credential.clone(), is_real: true })
    }

    /// About what all tokens take in memory.
    pub fn bytes(&self) -> usize {
        self.table.read().by_id.values().map(|token| token.bytes()).sum()
    }

    /// Whether one more fits. Whoever asks has at most half of everything.
    fn check_room(
        &self,
        owner: &Principal,
        requester: &Principal,
        renewers: &[Principal],
    ) -> Result<(), DelegationError> {
        let table = self.table.read();
        let new = bytes_of([owner, requester].into_iter().chain(renewers));
        let check = |of: &dyn Fn(&DelegationToken) -> bool, whose: &str, part: usize| {
            let (tokens_max, bytes_max) =
                (self.settings.tokens_max.div_ceil(part), self.settings.bytes_max.div_ceil(part));
            let (mut count, mut bytes) = (0, new);
            for token in table.by_id.values().filter(|token| of(token)) {
                (count, bytes) = (count + 1, bytes + token.bytes());
            }
            if count >= tokens_max {
                return Err(DelegationError::TooMany(format!("there are {count} delegation tokens{whose} already")));
            }
            if bytes > bytes_max {
                let message =
                    format!("delegation tokens{whose} with their names would take more than {bytes_max} bytes");
                return Err(DelegationError::TooMany(message));
            }
            Ok(())
        };
        check(&|_| true, "", 1)?;
        check(&|token| token.requester == *requester, " of the same requester", 2)
    }

    /// A new token, good for as long as is asked and allowed; not above 0: for as long as is allowed. Some milliseconds of a processor: call it where that is no harm.
    pub async fn create(
        &self,
        owner: Principal,
        requester: Principal,
        renewers: Vec<Principal>,
        lifetime_ms: i64,
    ) -> Result<(Arc<DelegationToken>, Vec<u8>), DelegationError> {
        if renewers.len() > RENEWERS_MAX {
            return Err(DelegationError::TooMany(format!("a token has no more than {RENEWERS_MAX} renewers")));
        }
        let _one_by_one = self.changing.lock().await;
        self.forget_expired().await?;
        self.check_room(&owner, &requester, &renewers)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let signature = self.signature(&id);
        let password = BASE64.encode(&signature);
        let salts = (random::<SALT_BYTES>()?, random::<SALT_BYTES>()?);
        let derived = tokio::task::spawn_blocking(move || {
            let of = |mechanism, salt: [u8; SALT_BYTES]| {
                Credential::of_password(mechanism, &password, salt.to_vec(), ITERATIONS_DEFAULT)
            };
            [of(ScramMechanism::Sha256, salts.0), of(ScramMechanism::Sha512, salts.1)]
        });
        let credentials = derived.await.map_err(|_| DelegationError::Storage(StorageError::Closed))?;
        let now = self.now();
        let lifetime = no_more(lifetime_ms, self.settings.lifetime_max_ms);
        let ends_ms = now.saturating_add(lifetime);
        let expires_ms = ends_ms.min(now.saturating_add(self.settings.renewal_ms));
        let token =
            DelegationToken { id, owner, requester, renewers, issued_ms: now, expires_ms, ends_ms, credentials };
        Ok((self.put(token).await?, signature))
    }

    /// Makes a token good for longer, up to its end; says until when. Not above 0: for as long as is
    /// usual.
    pub async fn renew(&self, signature: &[u8], who: &Principal, period_ms: i64) -> Result<i64, DelegationError> {
        let _one_by_one = self.changing.lock().await;
        let token = self.signed(signature, who)?;
        let now = self.now();
        if token.expires_ms <= now {
            return Err(DelegationError::Expired);
        }
        let period = no_more(period_ms, self.settings.renewal_ms);
        let expires_ms = token.ends_ms.min(now.saturating_add(period));
        Ok(self.put(DelegationToken { expires_ms, ..DelegationToken::clone(&token) }).await?.expires_ms)
    }

    /// Ends a token after some time, at once if that is negative; says when.
    pub async fn expire(&self, signature: &[u8], who: &Principal, period_ms: i64) -> Result<i64, DelegationError> {
        let _one_by_one = self.changing.lock().await;
        let token = self.signed(signature, who)?;
        let now = self.now();
        if period_ms < 0 {
            self.remove(vec![token.id.clone()]).await?;
            return Ok(now);
        }
        if token.expires_ms <= now {
            return Err(DelegationError::Expired);
        }
        let expires_ms = token.ends_ms.min(now.saturating_add(period_ms));
        Ok(self.put(DelegationToken { expires_ms, ..DelegationToken::clone(&token) }).await?.expires_ms)
    }

    /// The token with this signature, if it is somebody's to change.
    fn signed(&self, signature: &[u8], who: &Principal) -> Result<Arc<DelegationToken>, DelegationError> {
        let table = self.table.read();
        let token = table.signed.get(signature).and_then(|id| table.by_id.get(id)).ok_or(DelegationError::NotFound)?;
        if token.may_renew(who) { Ok(Arc::clone(token)) } else { Err(DelegationError::NotOwner) }
    }

    async fn put(&self, token: DelegationToken) -> Result<Arc<DelegationToken>, DelegationError> {
        let entry = (token.id.clone().into_bytes(), Some(encode(&token)));
        self.storage.security_write(SecurityKind::Token, vec![entry]).await.map_err(DelegationError::Storage)?;
        let token = Arc::new(token);
        let signature = self.signature(&token.id);
        let mut table = self.table.write();
        table.signed.insert(signature, token.id.clone());
        table.by_id.insert(token.id.clone(), Arc::clone(&token));
        Ok(token)
    }

    async fn remove(&self, ids: Vec<String>) -> Result<(), DelegationError> {
        let entries = ids.iter().map(|id| (id.clone().into_bytes(), None)).collect();
        self.storage.security_write(SecurityKind::Token, entries).await.map_err(DelegationError::Storage)?;
        let signatures: Vec<_> = ids.iter().map(|id| self.signature(id)).collect();
        let mut table = self.table.write();
        ids.iter().for_each(|id| drop(table.by_id.remove(id)));
        signatures.iter().for_each(|signature| drop(table.signed.remove(signature)));
        Ok(())
    }

    async fn forget_expired(&self) -> Result<(), DelegationError> {
        let now = self.now();
        let expired: Vec<String> = {
            let table = self.table.read();
            table.by_id.values().filter(|token| token.expires_ms <= now).map(|token| token.id.clone()).collect()
        };
        if expired.is_empty() { Ok(()) } else { self.remove(expired).await }
    }
}

fn signature(secret: &hmac::Key, id: &str) -> Vec<u8> {
    hmac::sign(secret, id.as_bytes()).as_ref().to_vec()
}

/// What is asked for, but no more than is usual; that where nothing is asked for.
fn no_more(asked_ms: i64, usual_ms: i64) -> i64 {
    if asked_ms > 0 { asked_ms.min(usual_ms) } else { usual_ms }
}

fn encode(token: &DelegationToken) -> Vec<u8> {
    let mut out = vec![VERSION];
    for time in [token.issued_ms, token.expires_ms, token.ends_ms] {
        out.extend_from_slice(&time.to_be_bytes());
    }
    put_text(&mut out, token.owner.name());
    put_text(&mut out, token.requester.name());
    out.extend_from_slice(&(token.renewers.len() as u32).to_be_bytes());
    token.renewers.iter().for_each(|renewer| put_text(&mut out, renewer.name()));
    for credential in &token.credentials {
        out.extend_from_slice(&credential.iterations.to_be_bytes());
        for part in [&credential.salt, &credential.stored_key, &credential.server_key] {
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn decode(id: String, value: &[u8]) -> Option<DelegationToken> {
    let mut fields = Fields(value);
    if fields.u8()? != VERSION {
        return None;
    }
    let (issued_ms, expires_ms, ends_ms) = (fields.i64()?, fields.i64()?, fields.i64()?);
    let (owner, requester) = (Principal::user(fields.text()?), Principal::user(fields.text()?));
    let mut renewers = Vec::new();
    for _ in 0..fields.u32()? {
        renewers.push(Principal::user(fields.text()?));
    }
    let mut credential = |mechanism: ScramMechanism| {
        let iterations = fields.u32()?;
        let mut part = || {
            // The length first: what follows it is what is split.
            let len = fields.u32()? as usize;
            let (part, rest) = fields.0.split_at_checked(len)?;
            fields.0 = rest;
            Some(part.to_vec())
        };
        let (salt, stored_key, server_key) = (part()?, part()?, part()?);
        let whole = stored_key.len() == mechanism.hash_len() && server_key.len() == mechanism.hash_len();
        whole.then_some(Credential { mechanism, salt, iterations, stored_key, server_key })
    };
    let credentials = [credential(ScramMechanism::Sha256)?, credential(ScramMechanism::Sha512)?];
    fields.0.is_empty().then_some(DelegationToken {
        id,
        owner,
        requester,
        renewers,
        issued_ms,
        expires_ms,
        ends_ms,
        credentials,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_damaged_ones_do_not() {
        let of = |mechanism| Credential::of_password(mechanism, "pencil", b"0123456789abcdef".to_vec(), 4096);
        let token = DelegationToken {
            id: "id".into(),
            owner: Principal::user("alice"),
            requester: Principal::user("admin"),
            renewers: vec![Principal::user("bob")],
            issued_ms: 1,
            expires_ms: 2,
            ends_ms: 3,
            credentials: ScramMechanism::ALL.map(of),
        };
        let bytes = encode(&token);
        assert_eq!(decode("id".into(), &bytes), Some(token));
        for len in 0..bytes.len() {
            assert_eq!(decode("id".into(), &bytes[..len]), None, "{len}");
        }
    }
}

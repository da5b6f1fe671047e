//! Users: what is kept of their passwords, in storage and in memory.
//!
//! ```text
//! key    mechanism u8 │ name                                       0: the secret that made-up salts come from
//! value  version u8 │ iterations u32 │ salt │ stored key │ server key      each with its length, u32, before it
//! ```
//! Invariant: memory shows what storage holds; a change is seen when it is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parking_lot::{Mutex, RwLock};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use super::scram::{
    Credential, Found, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES, ScramMechanism, is_same,
};
use crate::keys::Fields;
use crate::storage::{SecurityKind, Storage, StorageError};

/// Bytes of a user's name.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a password.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Bytes of a salt that a client chose.
const SALT_BYTES_MAX: usize = 1024;
/// Passwords found right lately that are known again without the slow way.
const REMEMBERED_MAX: usize = 10_000;
const SECRET_BYTES: usize = 32;
const SECRET_KEY: u8 = 0;
const VERSION: u8 = 1;

/// Why a user cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    #[error("a user's name has 1 to {NAME_BYTES_MAX} bytes, none of which is a control character")]
    Name,
    #[error("a password has 1 to {PASSWORD_BYTES_MAX} bytes")]
    Password,
    #[error("a salt has 1 to {SALT_BYTES_MAX} bytes")]
    Salt,
    #[error("{0} iterations are not {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations(u32),
    #[error("a salted password of {0} bytes is not what this mechanism makes")]
    SaltedPassword(usize),
    #[error("there are \"users_max\" = {0} users already")]
    TooMany(usize),
    #[error("there is no credential of user \"{0}\" for this mechanism")]
    Unknown(String),
    #[error("random bytes cannot be had of the operating system")]
    Random,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A change of one credential.
#[derive(Debug, Clone)]
pub enum UserChange {
    Put(String, Credential),
    Remove(String, ScramMechanism),
}

impl UserChange {
    pub fn user(&self) -> &str {
        match self {
            Self::Put(user, _) | Self::Remove(user, _) => user,
        }
    }

    pub fn mechanism(&self) -> ScramMechanism {
        match self {
            Self::Put(_, credential) => credential.mechanism,
            Self::Remove(_, mechanism) => *mechanism,
        }
    }
}

/// By mechanism the numbers of iterations and the lengths of salts that occur, which a stranger is shown.
type Looks = BTreeMap<ScramMechanism, Vec<(u32, usize)>>;

fn looks_of(table: &Table) -> Looks {
    let mut looks: BTreeMap<ScramMechanism, BTreeSet<(u32, usize)>> = BTreeMap::new();
    for credential in table.values().flat_map(BTreeMap::values) {
        looks.entry(credential.mechanism).or_default().insert((credential.iterations, credential.salt.len()));
    }
    looks.into_iter().map(|(mechanism, looks)| (mechanism, looks.into_iter().collect())).collect()
}

type Table = BTreeMap<String, BTreeMap<ScramMechanism, Credential>>;

/// All users of a storage.
pub struct Users {
    storage: Storage,
    users_max: usize,
    table: RwLock<Table>,
    /// Held over a change, so that memory and storage change in the same order.
    changing: tokio::sync::Mutex<()>,
    secret: hmac::Key,
    /// What credentials there are look like, so that made-up ones look like them.
    looks: RwLock<Looks>,
    /// By user, what `remembered` says of the password that was right last.
    right: Mutex<HashMap<String, hmac::Tag>>,
    /// Of this process alone.
    memory: hmac::Key,
}

impl Users {
    /// Reads all users. The first time in a storage it writes a secret.
    pub async fn open(storage: &Storage, users_max: usize) -> Result<Self, UserError> {
        let mut table = Table::new();
        let mut secret = None;
        for (key, value) in storage.security_scan(SecurityKind::Credential)? {
            if key == [SECRET_KEY] {
                secret = Some(value.to_vec());
                continue;
            }
            let damaged = || StorageError::Corrupt(format!("the credential stored at {key:02x?} is damaged"));
            let (mechanism, name) = parse_key(&key).ok_or_else(damaged)?;
            let credential = decode(mechanism, &value).ok_or_else(damaged)?;
            table.entry(name).or_default().insert(mechanism, credential);
        }
        let secret = match secret {
            Some(secret) => secret,
            None => {
                let secret = random::<SECRET_BYTES>()?.to_vec();
                let entry = (vec![SECRET_KEY], Some(secret.clone()));
                storage.security_write(SecurityKind::Credential, vec![entry]).await?;
                secret
            }
        };
        Ok(Self {
            storage: storage.clone(),
            users_max,
            looks: RwLock::new(looks_of(&table)),
            table: RwLock::new(table),
            changing: tokio::sync::Mutex::new(()),
            secret: hmac::Key::new(hmac::HMAC_SHA512, &secret),
            right: Mutex::default(),
            memory: hmac::Key::new(hmac::HMAC_SHA256, &random::<SECRET_BYTES>()?),
        })
    }

    /// Names with mechanisms and iterations, by name.
    pub fn list(&self) -> Vec<(String, Vec<(ScramMechanism, u32)>)> {
        let of = |of_user: &BTreeMap<_, Credential>| of_user.values().map(|c| (c.mechanism, c.iterations)).collect();
        self.table.read().iter().map(|(name, of_user)| (name.clone(), of(of_user))).collect()
    }

    /// Mechanisms and iterations of one user.
    pub fn describe(&self, name: &str) -> Option<Vec<(ScramMechanism, u32)>> {
        let table = self.table.read();
        Some(table.get(name)?.values().map(|c| (c.mechanism, c.iterations)).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.table.read().is_empty()
    }

    /// Makes a user, or gives one another password, for all mechanisms. As slow as the iterations say.
    pub async fn set_password(&self, name: &str, password: &str, iterations: u32) -> Result<(), UserError> {
        check_password(password)?;
        check(name, iterations)?;
        let mut changes = Vec::new();
        for mechanism in ScramMechanism::ALL {
            let salt = random::<SALT_BYTES>()?.to_vec();
            let credential = Credential::of_password(mechanism, password, salt, iterations);
            changes.push(UserChange::Put(name.to_owned(), credential));
        }
        self.change(changes).await
    }

    /// Removes a user; false where there was none.
    pub async fn remove(&self, name: &str) -> Result<bool, UserError> {
        let Some(of_user) = self.describe(name) else { return Ok(false) };
        let removals = of_user.into_iter().map(|(mechanism, _)| UserChange::Remove(name.to_owned(), mechanism));
        match self.change(removals.collect()).await {
            Ok(()) => Ok(true),
            Err(UserError::Unknown(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes all of these changes or none.
    pub async fn change(&self, changes: Vec<UserChange>) -> Result<(), UserError> {
        let _alone = self.changing.lock().await;
        let mut entries = Vec::with_capacity(changes.len());
        {
            let table = self.table.read();
            let mut users = table.len();
            for change in &changes {
                match change {
                    UserChange::Put(name, credential) => {
                        check(name, credential.iterations)?;
                        users += usize::from(!table.contains_key(name));
                        entries.push((key_of(change), Some(encode(credential))));
                    }
                    UserChange::Remove(name, mechanism) => {
                        if !table.get(name).is_some_and(|of_user| of_user.contains_key(mechanism)) {
                            return Err(UserError::Unknown(name.clone()));
                        }
                        entries.push((key_of(change), None));
                    }
                }
            }
            if users > self.users_max.max(table.len()) {
                return Err(UserError::TooMany(self.users_max));
            }
        }
        self.storage.security_write(SecurityKind::Credential, entries).await?;
        let mut table = self.table.write();
        for change in changes {
            self.right.lock().remove(change.user());
            match change {
                UserChange::Put(name, credential) => {
                    table.entry(name).or_default().insert(credential.mechanism, credential);
                }
                UserChange::Remove(name, mechanism) => {
                    if let Some(of_user) = table.get_mut(&name) {
                        of_user.remove(&mechanism);
                        if of_user.is_empty() {
                            table.remove(&name);
                        }
                    }
                }
            }
        }
        *self.looks.write() = looks_of(&table);
        Ok(())
    }

    /// The credential of a user, or one made up, the same one for the same name while users' own look the same.
    pub fn find(&self, mechanism: ScramMechanism, name: &str) -> Found {
        let table = self.table.read();
        match table.get(name).and_then(|of_user| of_user.get(&mechanism)) {
            Some(credential) => Found { credential: credential.clone(), is_real: true },
            None => Found { credential: self.made_up(mechanism, name), is_real: false },
        }
    }

    fn made_up(&self, mechanism: ScramMechanism, name: &str) -> Credential {
        let part = |what: &str, len: usize| {
            let tag = hmac::sign(&self.secret, format!("{what} {} {name}", mechanism.name()).as_bytes());
            tag.as_ref().iter().copied().take(len).collect::<Vec<u8>>()
        };
        let place = part("look", 4).iter().fold(0_usize, |place, byte| place << 8 | usize::from(*byte));
        let looks = self.looks.read();
        let looks = looks.get(&mechanism).map_or(&[][..], Vec::as_slice);
        let look = looks.get(place.checked_rem(looks.len()).unwrap_or(0)).copied();
        let (iterations, salt_len) = look.unwrap_or((ITERATIONS_DEFAULT, SALT_BYTES));
        Credential {
            mechanism,
            salt: part("salt", salt_len),
            iterations,
            stored_key: part("stored", mechanism.hash_len()),
            server_key: part("server", mechanism.hash_len()),
        }
    }

    /// Whether this is the user's password as it was found right lately. Quick; says nothing of others.
    pub fn was_right(&self, name: &str, password: &str) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let (credential, is_real) = self.any(name);
        let tag = self.remembered(&credential, password);
        is_real & self.right.lock().get(name).is_some_and(|right| is_same(right.as_ref(), tag.as_ref()))
    }

    /// Whether this is the user's password. Slow, and as slow where there is no such user.
    pub fn is_password(&self, name: &str, password: &str) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let (credential, is_real) = self.any(name);
        let is_right = credential.is_of(password) & is_real;
        if is_right {
            let tag = self.remembered(&credential, password);
            let mut right = self.right.lock();
            if right.len() >= REMEMBERED_MAX {
                right.clear();
            }
            right.insert(name.to_owned(), tag);
        }
        is_right
    }

    /// The credential that a user's password is held against, or one made up.
    fn any(&self, name: &str) -> (Credential, bool) {
        let found = self.table.read().get(name).and_then(|of_user| of_user.values().next().cloned());
        let is_real = found.is_some();
        (found.unwrap_or_else(|| self.made_up(ScramMechanism::Sha256, name)), is_real)
    }

    fn remembered(&self, credential: &Credential, password: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.memory);
        context.update(&credential.stored_key);
        context.update(password.as_bytes());
        context.sign()
    }
}

fn check_password(password: &str) -> Result<(), UserError> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX { Err(UserError::Password) } else { Ok(()) }
}

fn check(name: &str, iterations: u32) -> Result<(), UserError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(UserError::Name);
    }
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(UserError::Iterations(iterations));
    }
    Ok(())
}

/// What a client sends instead of a new password: a salt, and the password salted with it. As slow as the iterations say.
pub fn for_broker(
    mechanism: ScramMechanism,
    password: &str,
    iterations: u32,
) -> Result<([u8; SALT_BYTES], Vec<u8>), UserError> {
    check_password(password)?;
    let salt = random::<SALT_BYTES>()?;
    let salted = mechanism.salted(password.as_bytes(), &salt, iterations);
    Ok((salt, salted))
}

/// A credential that a client computed; its numbers are checked before anything is made of them.
pub fn of_client(
    mechanism: ScramMechanism,
    iterations: i32,
    salt: &[u8],
    salted_password: &[u8],
) -> Result<Credential, UserError> {
    let iterations = u32::try_from(iterations).unwrap_or(0);
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(UserError::Iterations(iterations));
    }
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(UserError::Salt);
    }
    if salted_password.len() != mechanism.hash_len() {
        return Err(UserError::SaltedPassword(salted_password.len()));
    }
    Ok(Credential::of_salted(mechanism, salted_password, salt.to_vec(), iterations))
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], UserError> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| UserError::Random)?;
    Ok(out)
}

fn key_of(change: &UserChange) -> Vec<u8> {
    let mut key = vec![change.mechanism().number() as u8];
    key.extend_from_slice(change.user().as_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(ScramMechanism, String)> {
    let (number, name) = key.split_first()?;
    let mechanism = ScramMechanism::numbered(i8::try_from(*number).ok()?)?;
    Some((mechanism, std::str::from_utf8(name).ok()?.to_owned()))
}

fn encode(credential: &Credential) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&credential.iterations.to_be_bytes());
    for part in [&credential.salt, &credential.stored_key, &credential.server_key] {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn decode(mechanism: ScramMechanism, value: &[u8]) -> Option<Credential> {
    let mut fields = Fields(value);
    if fields.u8()? != VERSION {
        return None;
    }
    let iterations = fields.u32().filter(|i| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(i))?;
    let (salt, stored_key, server_key) = (part(&mut fields)?, part(&mut fields)?, part(&mut fields)?);
    let whole = stored_key.len() == mechanism.hash_len() && server_key.len() == mechanism.hash_len();
    (whole && fields.0.is_empty()).then_some(Credential { mechanism, salt, iterations, stored_key, server_key })
}

fn part(fields: &mut Fields<'_>) -> Option<Vec<u8>> {
    let len = fields.u32()? as usize;
    let (part, rest) = fields.0.split_at_checked(len)?;
    fields.0 = rest;
    Some(part.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_read_back_and_damaged_ones_do_not() {
        for mechanism in ScramMechanism::ALL {
            let credential = Credential::of_password(mechanism, "pencil", b"0123456789abcdef".to_vec(), 4096);
            let bytes = encode(&credential);
            assert_eq!(decode(mechanism, &bytes), Some(credential));
            for len in 0..bytes.len() {
                assert_eq!(decode(mechanism, &bytes[..len]), None, "{len}");
            }
            assert!(!bytes.windows(6).any(|w| w == b"pencil"));
        }
        let change = UserChange::Remove("a\0b".into(), ScramMechanism::Sha512);
        assert_eq!(parse_key(&key_of(&change)), Some((ScramMechanism::Sha512, "a\0b".into())));
        assert_eq!(parse_key(&[3, b'a']), None);
    }
}

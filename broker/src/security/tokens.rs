//! Bearer tokens: JSON web tokens checked against the keys of those who issue them.
//!
//! Keys are handed in, and again whenever they change; where they come from is the caller's business. Only signatures
//! by asymmetric keys count. Invariant: who a token is about is believed only after its signature, issuer, audience and
//! times were found right.

use std::time::Duration;

use jsonwebtoken::errors::{Error as JwtError, ErrorKind as Jwt};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use millpond_types::{Clock, Principal, SystemClock};
use parking_lot::RwLock;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::Notify;

/// Larger tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Keys of a set.
const KEYS_MAX: usize = 100;

/// What a token must be.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// Who issues it.
    pub issuer: String,
    /// For whom it is; one of these is enough.
    pub audiences: Vec<String>,
    /// How far clocks may differ.
    pub clock_skew: Duration,
    /// The claim that names the user.
    pub principal_claim: String,
}

/// A set of keys that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "not a usable set of keys: {0}; it is JSON as in {{\"keys\": [{{\"kty\": \"RSA\", \"kid\": ..., \"n\": ..., \"e\": ...}}]}}"
)]
pub struct KeysError(String);

/// Why a token is refused; for the log, not for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct TokenError {
    /// Its kind alone: nothing that the token says.
    pub reason: &'static str,
    message: String,
}

/// Whom a token is about, and until when it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub principal: Principal,
    /// How long from now.
    pub remaining: Duration,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Checks tokens.
pub struct Tokens {
    settings: TokenSettings,
    keys: RwLock<Vec<Key>>,
    /// Told when a token names a key that is not there.
    missing: Notify,
}

impl Tokens {
    /// Refuses all tokens until keys are set.
    pub fn new(settings: TokenSettings) -> Self {
        Self { settings, keys: RwLock::default(), missing: Notify::new() }
    }

    /// Replaces all keys by those of a JSON web key set. Where it cannot be used the old ones stay.
    pub fn set_keys(&self, json: &str) -> Result<usize, KeysError> {
        let set: JwkSet = serde_json::from_str(json).map_err(|e| KeysError(e.to_string()))?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeysError(format!("it has {} keys, and at most {KEYS_MAX} are taken", set.keys.len())));
        }
        let keys: Vec<Key> = set.keys.iter().filter_map(key_of).collect();
        if keys.is_empty() {
            let message = "none of its keys is an asymmetric one for signatures (RSA, P-256, P-384, Ed25519)";
            return Err(KeysError(message.into()));
        }
        let count = keys.len();
        *self.keys.write() = keys;
        Ok(count)
    }

    /// Refuses all tokens until keys are set again.
    pub fn forget_keys(&self) {
        self.keys.write().clear();
    }

    /// Ready when a token came whose key is not known: the set may have changed.
    pub async fn key_missing(&self) {
        self.missing.notified().await;
    }

    pub fn check(&self, token: &str) -> Result<Verified, TokenError> {
        let refused = |reason, message: String| TokenError { reason, message };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refused("too large", format!("a token of {} bytes is too large", token.len())));
        }
        let unreadable = |e| refused(reason_of(&e), format!("the token's header cannot be read: {e}"));
        let header = decode_header(token).map_err(unreadable)?;
        let keys = self.keys.read();
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg) && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let mut error = None;
        for key in keys.iter().filter(fits) {
            match decode::<Map<String, Value>>(token, &key.key, &self.validation(header.alg)) {
                Ok(token) => return self.verified(&token.claims),
                Err(e) => error = Some(refused(reason_of(&e), format!("the token is not right: {e}"))),
            }
        }
        Err(error.unwrap_or_else(|| {
            self.missing.notify_one();
            let message = "the token is signed by a key, or in a way, that is not known here";
            refused("signed by no known key", message.into())
        }))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(std::slice::from_ref(&self.settings.issuer));
        validation.set_audience(&self.settings.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = self.settings.clock_skew.as_secs();
        validation
    }

    fn verified(&self, claims: &Map<String, Value>) -> Result<Verified, TokenError> {
        let claim = &self.settings.principal_claim;
        let name = claims.get(claim).and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| TokenError {
            reason: "names no user",
            message: format!("the token has no text \"{claim}\", which names the user"),
        })?;
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0);
        let skew = self.settings.clock_skew.as_secs_f64();
        let remaining = (expires + skew - SystemClock.now_ms() as f64 / 1000.0).clamp(0.0, f64::from(u32::MAX));
        Ok(Verified { principal: Principal::user(name), remaining: Duration::from_secs_f64(remaining) })
    }
}

/// The kind of what is wrong with a token. Its header is read first, then its signature is checked, then what it says.
fn reason_of(error: &JwtError) -> &'static str {
    match error.kind() {
        Jwt::InvalidToken | Jwt::Base64(_) | Jwt::Utf8(_) => "not a JSON web token",
        // `none` is no name of a way to sign.
        Jwt::Json(_) | Jwt::InvalidAlgorithm | Jwt::InvalidAlgorithmName | Jwt::UnsupportedAlgorithm => {
            "not signed, or not in a known way"
        }
        Jwt::InvalidSignature => "wrong signature",
        Jwt::ExpiredSignature => "expired",
        Jwt::ImmatureSignature => "not valid yet",
        Jwt::InvalidIssuer => "wrong issuer",
        Jwt::InvalidAudience => "wrong audience",
        Jwt::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "without exp",
            "iss" => "without iss",
            "aud" => "without aud",
            _ => "incomplete",
        },
        _ => "not right",
    }
}

/// A key of a set, if it is one to check signatures with.
fn key_of(jwk: &Jwk) -> Option<Key> {
    use Algorithm::*;
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            jsonwebtoken::jwk::EllipticCurve::P256 => &[ES256],
            jsonwebtoken::jwk::EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[EdDSA],
        // A secret that both sides know would let whoever checks tokens make them.
        _ => return None,
    };
    let named = match jwk.common.key_algorithm {
        Some(named) => Some(Algorithm::try_from(named).ok()?),
        None => None,
    };
    let algorithms: Vec<Algorithm> = possible.iter().copied().filter(|a| named.is_none_or(|n| n == *a)).collect();
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id.clone(), algorithms, key })
}

//! SASL over one connection: which mechanism was chosen, how far its exchange has come, and how long its outcome counts.
//!
//! Not here: the requests that carry the messages (`api`), and reading them (`server`). Invariants: nothing but
//! ApiVersions, SaslHandshake and SaslAuthenticate is let through before an exchange has succeeded or after its outcome
//! has ended; who a connection belongs to never changes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use millpond_types::Principal;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::authentication::Authenticator;
use super::scram::{Exchange, ScramError, ScramMechanism};
use super::users::random;

/// Bytes of our part of a nonce, before they are written as text.
const NONCE_BYTES: usize = 24;
/// What a client whose token is refused is told before the end, as RFC 7628 has it.
const TOKEN_REFUSED: &[u8] = b"{\"status\":\"invalid_token\"}";

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;

/// A way to say who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Scram(ScramMechanism),
    OAuthBearer,
}

impl Mechanism {
    const ALL: [Self; 4] =
        [Self::Plain, Self::Scram(ScramMechanism::Sha256), Self::Scram(ScramMechanism::Sha512), Self::OAuthBearer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(scram) => scram.name(),
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| {
            format!("\"{text}\" is not a mechanism; there are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER")
        })
    }
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The exchange goes on with this.
    More(Vec<u8>),
    /// It succeeded; how long that counts.
    Done(Vec<u8>, Option<Duration>),
    /// It failed, and the connection is to be closed.
    Denied(String),
    /// Nothing was to be authenticated now, and the connection is to be closed.
    OutOfOrder(&'static str),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandshakeRefusal {
    Unsupported,
    OutOfOrder,
}

/// What a frame that has come is, or that it is not to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Request,
    /// A message of the exchange with nothing around it.
    Message,
    Refused(&'static str),
}

enum Stage {
    /// Nothing has come, or an exchange is done.
    Rest,
    Chosen(Mechanism),
    Scram(Box<Exchange>, ScramMechanism),
    TokenRefused,
    /// Nothing more is taken.
    Over,
}

struct Session {
    principal: Principal,
    mechanism: Mechanism,
    by_token: bool,
    ends: Option<Instant>,
}

struct State {
    stage: Stage,
    /// Messages come without a request around them.
    bare: bool,
    session: Option<Session>,
}

/// One connection's authentication.
pub(crate) struct Sasl {
    authenticator: Arc<Authenticator>,
    mechanisms: Arc<[Mechanism]>,
    /// Who tries, for the log.
    from: IpAddr,
    state: Mutex<State>,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sasl({})", self.from)
    }
}

impl Sasl {
    pub fn new(authenticator: Arc<Authenticator>, mechanisms: Arc<[Mechanism]>, from: IpAddr) -> Self {
        let state = State { stage: Stage::Rest, bare: false, session: None };
        Self { authenticator, mechanisms, from, state: Mutex::new(state) }
    }

    pub fn mechanisms(&self) -> &[Mechanism] {
        &self.mechanisms
    }

    /// Who the connection belongs to, once that is known.
    pub fn principal(&self) -> Option<Principal> {
        self.state.lock().session.as_ref().map(|session| session.principal.clone())
    }

    /// Whether it was a delegation token that said who it is.
    pub fn is_by_token(&self) -> bool {
        self.state.lock().session.as_ref().is_some_and(|session| session.by_token)
    }

    /// What the next frame is; `key` is what its first bytes say if it is a request.
    pub fn admit(&self, key: i16) -> Admission {
        let state = self.state.lock();
        if state.bare && matches!(state.stage, Stage::Chosen(_) | Stage::Scram(..) | Stage::TokenRefused) {
            return Admission::Message;
        }
        if matches!(key, API_VERSIONS | SASL_HANDSHAKE | SASL_AUTHENTICATE) {
            return Admission::Request;
        }
        match &state.session {
            None => Admission::Refused("a request came before authentication"),
            Some(session) if session.ends.is_some_and(|ends| Instant::now() >= ends) => {
                Admission::Refused("the session has ended and was not renewed")
            }
            Some(_) => Admission::Request,
        }
    }

    /// Chooses a mechanism. `bare`: its messages come without requests around them.
    pub fn handshake(&self, name: &str, bare: bool) -> Result<(), HandshakeRefusal> {
        let mut state = self.state.lock();
        // Who renews a session does so with requests.
        let is_in_order = matches!(state.stage, Stage::Rest) && !(bare && state.session.is_some());
        let chosen = self.mechanisms.iter().find(|m| m.name() == name);
        state.stage = Stage::Over;
        let chosen = *chosen.ok_or(HandshakeRefusal::Unsupported)?;
        if !is_in_order {
            return Err(HandshakeRefusal::OutOfOrder);
        }
        state.stage = Stage::Chosen(chosen);
        state.bare = bare;
        Ok(())
    }

    /// Takes a message of the exchange.
    pub async fn message(&self, message: &[u8]) -> Answer {
        let begun = Instant::now();
        let stage = std::mem::replace(&mut self.state.lock().stage, Stage::Over);
        match stage {
            Stage::Chosen(Mechanism::Plain) => self.plain(message).await,
            Stage::Chosen(Mechanism::Scram(mechanism)) => self.scram_begin(mechanism, message, begun).await,
            Stage::Scram(exchange, mechanism) => self.scram_finish(exchange, mechanism, message, begun).await,
            Stage::Chosen(Mechanism::OAuthBearer) => self.token(message, begun).await,
            Stage::TokenRefused => denied(Mechanism::OAuthBearer),
            Stage::Rest => Answer::OutOfOrder("no mechanism was chosen"),
            Stage::Over => Answer::OutOfOrder("authentication has failed"),
        }
    }

    async fn plain(&self, message: &[u8]) -> Answer {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let mut parts = text.split('\0');
        let (user, password) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(authzid), Some(user), Some(password), None) if authzid.is_empty() || authzid == user => {
                (user, password)
            }
            // Taken for a wrong password, with the time that takes.
            _ => ("", ""),
        };
        match self.authenticator.password(user, password, self.from).await {
            Ok(principal) => self.succeed(principal, Mechanism::Plain, Vec::new(), None),
            Err(_) => denied(Mechanism::Plain),
        }
    }

    async fn scram_begin(&self, mechanism: ScramMechanism, message: &[u8], begun: Instant) -> Answer {
        use base64::Engine;
        let Ok(nonce) = random::<NONCE_BYTES>() else { return denied(Mechanism::Scram(mechanism)) };
        let nonce = base64::engine::general_purpose::STANDARD_NO_PAD.encode(nonce);
        let find = |name: &str, by_token: bool| {
            let users = self.authenticator.users();
            match by_token {
                // Of a token that is not there as little is told as of a user: no user has such a name.
                true => self.authenticator.delegation().find(mechanism, name),
                false => Some(users.find(mechanism, name)),
            }
            .unwrap_or_else(|| users.find(mechanism, &format!("\0{name}")))
        };
        match Exchange::begin(message, &nonce, find) {
            Ok((exchange, answer)) => {
                self.state.lock().stage = Stage::Scram(Box::new(exchange), mechanism);
                Answer::More(answer.into_bytes())
            }
            Err(error) => self.scram_failed(error, mechanism, begun).await,
        }
    }

    async fn scram_finish(
        &self,
        exchange: Box<Exchange>,
        mechanism: ScramMechanism,
        message: &[u8],
        begun: Instant,
    ) -> Answer {
        let lane = self.authenticator.enter(self.from).await;
        let user = exchange.user().to_owned();
        let by_token = exchange.is_by_token();
        let delegation = self.authenticator.delegation();
        let token = if by_token { delegation.get(&user) } else { None };
        let finished = exchange.finish(message);
        // It may have ended since the exchange began.
        let finished = if by_token && token.is_none() { Err(ScramError::Credentials) } else { finished };
        match finished {
            Ok(answer) => {
                drop(lane);
                self.authenticator.accept();
                let (principal, remaining) = match &token {
                    Some(token) => (token.owner.clone(), Some(delegation.remaining(token))),
                    None => (Principal::user(&user), None),
                };
                let done = self.succeed(principal, Mechanism::Scram(mechanism), answer.into_bytes(), remaining);
                if let (Answer::Done(..), Some(session)) = (&done, &mut self.state.lock().session) {
                    session.by_token = by_token;
                }
                done
            }
            Err(error) => {
                self.authenticator.wrong_in(lane);
                self.scram_failed(error, mechanism, begun).await
            }
        }
    }

    async fn scram_failed(&self, error: ScramError, mechanism: ScramMechanism, begun: Instant) -> Answer {
        let _denied = self.authenticator.deny(begun, self.from, mechanism.name(), None).await;
        match error {
            ScramError::Credentials => denied(Mechanism::Scram(mechanism)),
            ScramError::Malformed(problem) => Answer::Denied(format!("authentication failed: {problem}")),
        }
    }

    async fn token(&self, message: &[u8], begun: Instant) -> Answer {
        let (authzid, token) = token_of(message).unwrap_or_default();
        match self.authenticator.token(token, self.from).await {
            Ok(verified) if authzid.is_empty() || authzid == verified.principal.name() => {
                return self.succeed(verified.principal, Mechanism::OAuthBearer, Vec::new(), Some(verified.remaining));
            }
            Ok(_other) => {
                let _denied = self.authenticator.deny(begun, self.from, "token", Some("of somebody else")).await;
            }
            Err(_) => {}
        }
        self.state.lock().stage = Stage::TokenRefused;
        Answer::More(TOKEN_REFUSED.to_vec())
    }

    fn succeed(
        &self,
        principal: Principal,
        mechanism: Mechanism,
        answer: Vec<u8>,
        remaining: Option<Duration>,
    ) -> Answer {
        let lifetime = match (remaining, self.authenticator.session_max()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let mut state = self.state.lock();
        if let Some(session) = &state.session
            && (session.principal != principal || session.mechanism != mechanism)
        {
            return Answer::Denied("authentication failed: a connection stays with its user and mechanism".into());
        }
        let ends = lifetime.map(|lifetime| Instant::now() + lifetime);
        state.session = Some(Session { principal, mechanism, by_token: false, ends });
        state.stage = Stage::Rest;
        Answer::Done(answer, lifetime)
    }
}

fn denied(mechanism: Mechanism) -> Answer {
    Answer::Denied(format!("authentication failed: the credentials are not right (mechanism {mechanism})"))
}

/// Whom to act as, which may be empty, and the token.
fn token_of(message: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(message).ok()?;
    let (header, fields) = text.split_once('\u{1}')?;
    let authzid = header.strip_prefix("n,")?.strip_suffix(',')?;
    let authzid = if authzid.is_empty() { "" } else { authzid.strip_prefix("a=")? };
    let value = fields.split('\u{1}').find_map(|field| field.strip_prefix("auth="))?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| (authzid, token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_their_wrapping() {
        assert_eq!(token_of(b"n,,\x01auth=Bearer abc\x01\x01"), Some(("", "abc")));
        assert_eq!(token_of(b"n,a=u,\x01x=y\x01auth=bearer abc\x01\x01"), Some(("u", "abc")));
        for bad in [&b"n,,"[..], b"\x01", b"y,,\x01auth=Bearer abc\x01\x01", b"n,,\x01auth=Basic abc\x01\x01", b"\xff"]
        {
            assert_eq!(token_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn mechanisms_have_names() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse(), Ok(mechanism));
        }
        assert!("GSSAPI".parse::<Mechanism>().unwrap_err().contains("SCRAM-SHA-512"));
    }
}

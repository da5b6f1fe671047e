//! SCRAM (RFC 5802, 7677) as a server speaks it, and the credentials that it leaves behind of a password.
//!
//! Pure: who the users are and where randomness comes from is the caller's business. Invariants: a password is never
//! kept; for a user that does not exist the exchange goes its whole way with credentials made up, so that neither its
//! messages nor its time tell.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// Fewer iterations are refused.
pub const ITERATIONS_MIN: u32 = 4096;
/// More would let one user's login take the processor from others.
pub const ITERATIONS_MAX: u32 = 16_384;
pub const ITERATIONS_DEFAULT: u32 = 8192;
/// Bytes of a salt that we make.
pub const SALT_BYTES: usize = 16;
/// Largest message of a client.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The hash of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    Sha256,
    Sha512,
}

impl ScramMechanism {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// As the protocol numbers it.
    pub fn number(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    pub fn numbered(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.number() == number)
    }

    /// Bytes of its hash.
    pub fn hash_len(self) -> usize {
        self.digest().output_len()
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data)
    }

    /// What the password becomes; as slow as the iterations say.
    pub fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut out = vec![0; self.hash_len()];
        pbkdf2::derive(algorithm, NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN), salt, password, &mut out);
        out
    }
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub mechanism: ScramMechanism,
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} iterations", self.mechanism.name(), self.iterations)
    }
}

impl Credential {
    pub fn of_password(mechanism: ScramMechanism, password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted = mechanism.salted(password.as_bytes(), &salt, iterations);
        Self::of_salted(mechanism, &salted, salt, iterations)
    }

    /// From what a client made of the password with the same salt and iterations.
    pub fn of_salted(mechanism: ScramMechanism, salted: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        let client_key = mechanism.hmac(salted, b"Client Key");
        let stored_key = digest::digest(mechanism.digest(), client_key.as_ref()).as_ref().to_vec();
        let server_key = mechanism.hmac(salted, b"Server Key").as_ref().to_vec();
        Self { mechanism, salt, iterations, stored_key, server_key }
    }

    /// Whether this is the password; as slow as the iterations say.
    pub fn is_of(&self, password: &str) -> bool {
        let tried = Self::of_password(self.mechanism, password, self.salt.clone(), self.iterations);
        is_same(&tried.stored_key, &self.stored_key)
    }
}

/// Compares in a time that does not depend on where the difference is.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b))) == 0
}

/// Why an exchange ended. The client is told no more than that its credentials are not right, or that its message is no
/// SCRAM at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScramError {
    Malformed(&'static str),
    Credentials,
}

/// The user's credential, or one made up that nobody has the password of.
#[derive(Debug, Clone)]
pub struct Found {
    pub credential: Credential,
    pub is_real: bool,
}

/// An exchange between its two steps.
#[derive(Debug)]
pub struct Exchange {
    found: Found,
    user: String,
    /// `user` is a delegation token.
    by_token: bool,
    /// The channel-binding value that the last message must repeat.
    binding: String,
    /// The client's part of the nonce, and ours.
    client_nonce: String,
    server_nonce: String,
    /// What both sides sign, up to the client's last message.
    signed: String,
}

impl Exchange {
    /// Reads the client's first message; gives the exchange and the server's first message. `nonce` is fresh and
    /// printable, without a comma. `find` is told whether the name is that of a delegation token.
    pub fn begin(
        message: &[u8],
        nonce: &str,
        find: impl FnOnce(&str, bool) -> Found,
    ) -> Result<(Self, String), ScramError> {
        let message = text_of(message)?;
        let malformed = ScramError::Malformed;
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("the first message has no header"));
        };
        match binding {
            "n" | "y" => {}
            _ => return Err(malformed("channel binding is not offered here")),
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|f| f.strip_prefix("n=")).and_then(unescape);
        let user = user.filter(|u| !u.is_empty()).ok_or(malformed("the first message names no user"))?;
        let client_nonce = fields.next().and_then(|f| f.strip_prefix("r=")).filter(|n| !n.is_empty());
        let client_nonce = client_nonce.ok_or(malformed("the first message has no nonce"))?;
        let by_token = fields.any(|f| f == "tokenauth=true");
        let authzid = match authzid {
            "" => None,
            other => Some(other.strip_prefix("a=").and_then(unescape).ok_or(malformed("the authzid cannot be read"))?),
        };
        let found = find(&user, by_token);
        // Nobody may act as another; said at the end, where all other refusals are.
        let found = Found { is_real: found.is_real && authzid.is_none_or(|a| a == user), ..found };
        let (client_nonce, server_nonce) = (client_nonce.to_owned(), nonce.to_owned());
        let answer = format!(
            "r={client_nonce}{nonce},s={},i={}",
            BASE64.encode(&found.credential.salt),
            found.credential.iterations
        );
        let header_len = message.len() - bare.len();
        let binding = BASE64.encode(message.get(..header_len).unwrap_or_default());
        let signed = format!("{bare},{answer}");
        Ok((Self { found, user, by_token, binding, client_nonce, server_nonce, signed }, answer))
    }

    pub fn is_by_token(&self) -> bool {
        self.by_token
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// Reads the client's last message; gives the server's, which proves that it knows the credential too.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let message = text_of(message)?;
        let malformed = ScramError::Malformed;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(malformed("the last message has no proof"))?;
        let proof = BASE64.decode(proof).map_err(|_| malformed("the proof is not base64"))?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|f| f.strip_prefix("c="));
        if binding != Some(self.binding.as_str()) {
            return Err(malformed("the last message repeats another header than the first had"));
        }
        let nonce = fields.next().and_then(|f| f.strip_prefix("r="));
        // Clients of librdkafka before 2.6 repeat their own part once more. What counts is that ours, which nobody has
        // seen before, is there: it is signed.
        let is_ours = |nonce: &str| {
            nonce
                .strip_suffix(&self.server_nonce)
                .is_some_and(|theirs| theirs == self.client_nonce || theirs == format!("{0}{0}", self.client_nonce))
        };
        if !nonce.is_some_and(is_ours) {
            return Err(malformed("the last message has another nonce"));
        }
        let Credential { mechanism, stored_key, server_key, .. } = &self.found.credential;
        let signed = format!("{},{without_proof}", self.signed);
        let signature = mechanism.hmac(stored_key, signed.as_bytes());
        let is_whole = proof.len() == signature.as_ref().len();
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let tried = digest::digest(mechanism.digest(), &client_key);
        let is_right = is_same(tried.as_ref(), stored_key);
        let answer = format!("v={}", BASE64.encode(mechanism.hmac(server_key, signed.as_bytes())));
        if is_whole & is_right & self.found.is_real { Ok(answer) } else { Err(ScramError::Credentials) }
    }
}

fn text_of(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed("the message is too long"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("the message is not UTF-8"))
}

/// A name in which comma and equals sign are written `=2C` and `=3D`.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        let (c, after) = match after.strip_prefix("2C") {
            Some(after) => (',', after),
            None => ('=', after.strip_prefix("3D")?),
        };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mechanism: ScramMechanism, password: &str, salt: &str, is_real: bool) -> impl Fn(&str, bool) -> Found {
        let salt = BASE64.decode(salt).unwrap();
        let credential = Credential::of_password(mechanism, password, salt, 4096);
        move |_, _| Found { credential: credential.clone(), is_real }
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_published_exchange() {
        let find = found(ScramMechanism::Sha256, "pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", true);
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let (exchange, answer) = Exchange::begin(first, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", find).unwrap();
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(answer, format!("{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        assert_eq!(exchange.user(), "user");
        let last = format!("c=biws,{nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let answer = exchange.finish(last.as_bytes()).unwrap();
        assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn what_is_not_right_is_refused() {
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let finish = |password: &str, is_real: bool, last: &str| {
            let find = found(ScramMechanism::Sha256, password, "W22ZaJ0SNY7soEsUEjb6gQ==", is_real);
            let (exchange, _) = Exchange::begin(first, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", find).unwrap();
            exchange.finish(last.as_bytes())
        };
        let right = format!("c=biws,{nonce},{proof}");
        assert!(finish("pencil", true, &right).is_ok());
        assert_eq!(finish("crayon", true, &right), Err(ScramError::Credentials));
        assert_eq!(finish("pencil", false, &right), Err(ScramError::Credentials));
        let short = format!("c=biws,{nonce},p=dHzb");
        assert_eq!(finish("pencil", true, &short), Err(ScramError::Credentials));
        let bad = [format!("c=biws,r=x,{proof}"), format!("c=eSws,{nonce},{proof}"), format!("c=biws,{nonce}")];
        for last in bad {
            assert!(matches!(finish("pencil", true, &last), Err(ScramError::Malformed(_))), "{last}");
        }
        for first in ["", "n,,", "n,,r=x,n=u", "p=tls-unique,,n=u,r=x", "n,,n=a=2,r=x", "n,,n=,r=x", "n,b,n=u,r=x"] {
            let find = found(ScramMechanism::Sha512, "p", "AAAA", true);
            assert!(Exchange::begin(first.as_bytes(), "n", find).is_err(), "{first}");
        }
        let other = Exchange::begin(b"n,a=root,n=u,r=x", "n", found(ScramMechanism::Sha512, "p", "AAAA", true));
        assert!(!other.unwrap().0.found.is_real, "acting as somebody else");
    }

    #[test]
    fn a_client_that_repeats_its_nonce_gets_in() {
        let mechanism = ScramMechanism::Sha256;
        let finish = |nonce: &str| {
            let find = found(mechanism, "pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", true);
            let (exchange, answer) = Exchange::begin(b"n,,n=user,r=mine", "yours", find).unwrap();
            let salted = mechanism.salted(b"pencil", &BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
            let client_key = mechanism.hmac(&salted, b"Client Key");
            let stored_key = digest::digest(mechanism.digest(), client_key.as_ref());
            let last = format!("c=biws,r={nonce}");
            let signature = mechanism.hmac(stored_key.as_ref(), format!("n=user,r=mine,{answer},{last}").as_bytes());
            let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
            exchange.finish(format!("{last},p={}", BASE64.encode(proof)).as_bytes())
        };
        assert!(finish("mineyours").is_ok() && finish("minemineyours").is_ok());
        for other in ["yours", "mine", "minemine", "otheryours", "mineyoursyours"] {
            assert!(matches!(finish(other), Err(ScramError::Malformed(_))), "{other}");
        }
    }

    #[test]
    fn a_password_is_checked_against_what_is_kept() {
        for mechanism in ScramMechanism::ALL {
            let credential = Credential::of_password(mechanism, "päss", b"salt".to_vec(), 4096);
            assert!(credential.is_of("päss") && !credential.is_of("pass") && !credential.is_of(""));
            assert_eq!(credential.stored_key.len(), mechanism.hash_len());
            assert!(!format!("{credential:?}").contains("salt"));
        }
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        assert_eq!(unescape("a=2c"), None);
    }
}

//! The client's half of SASL: what is said to prove who one is. Pure; the connection carries it.
//!
//! SCRAM proves in both directions: a broker that does not know the password is refused. Users and passwords outside
//! ASCII are taken as they are, without SASLprep, as Kafka takes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2};

use super::settings::{Login, Mechanism};

/// More rounds than any broker asks for; each costs time here.
const ITERATIONS_MAX: u32 = 1_000_000;
const ITERATIONS_MIN: u32 = 4096;

/// One exchange. `begin`, then `answer` for each challenge until it gives `None`.
pub enum Exchange<'a> {
    Once { first: Vec<u8>, bearer: bool },
    Scram(Box<Scram<'a>>),
}

pub struct Scram<'a> {
    login: &'a Login,
    nonce: String,
    /// What the broker must say at the end to prove that it knows the password.
    expected: Option<Vec<u8>>,
    done: bool,
}

impl<'a> Exchange<'a> {
    pub fn new(login: &'a Login) -> Result<Self, String> {
        Ok(match login.mechanism {
            Mechanism::Plain => {
                let first = [b"\0", login.user.as_bytes(), b"\0", login.secret.0.as_bytes()].concat();
                Self::Once { first, bearer: false }
            }
            Mechanism::OauthBearer => {
                let first = format!("n,,\x01auth=Bearer {}\x01\x01", login.secret.0.trim()).into_bytes();
                Self::Once { first, bearer: true }
            }
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                let mut random = [0; 24];
                ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random numbers")?;
                let nonce = BASE64.encode(random);
                Self::Scram(Box::new(Scram { login, nonce, expected: None, done: false }))
            }
        })
    }

    pub fn begin(&self) -> Vec<u8> {
        match self {
            Self::Once { first, .. } => first.clone(),
            Self::Scram(scram) => format!("n,,{}", scram.first_bare()).into_bytes(),
        }
    }

    /// What to say next; `None` at the end.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Once { bearer: true, .. } if !challenge.is_empty() => {
                Err(format!("the broker refuses the token: {}", String::from_utf8_lossy(challenge)))
            }
            Self::Once { .. } => Ok(None),
            Self::Scram(scram) => scram.answer(challenge),
        }
    }
}

impl Scram<'_> {
    fn first_bare(&self) -> String {
        let user = self.login.user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={}", self.nonce)
    }

    fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let text = std::str::from_utf8(challenge).map_err(|_| "the broker's SCRAM message is not text")?;
        if let Some(error) = part(text, "e=") {
            return Err(format!("the broker refuses the user or the password: {error}"));
        }
        match (&self.expected, self.done) {
            (None, _) => self.prove(text).map(Some),
            (Some(expected), false) => {
                let signature = part(text, "v=").and_then(|v| BASE64.decode(v).ok());
                if signature.as_ref() != Some(expected) {
                    return Err("the broker does not prove that it knows the password".to_string());
                }
                self.done = true;
                Ok(None)
            }
            (Some(_), true) => Err("the broker goes on after the end of SCRAM".to_string()),
        }
    }

    fn prove(&mut self, server_first: &str) -> Result<Vec<u8>, String> {
        let (hash, mac, derive) = match self.login.mechanism {
            Mechanism::ScramSha512 => (&digest::SHA512, hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
            _ => (&digest::SHA256, hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        };
        let wrong = || format!("the broker's SCRAM message \"{server_first}\" cannot be understood");
        let nonce = part(server_first, "r=").ok_or_else(wrong)?;
        let salt = part(server_first, "s=").and_then(|s| BASE64.decode(s).ok()).ok_or_else(wrong)?;
        let rounds: u32 = part(server_first, "i=").and_then(|i| i.parse().ok()).ok_or_else(wrong)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's SCRAM nonce does not continue ours".to_string());
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&rounds) {
            return Err(format!(
                "the broker asks for {rounds} SCRAM iterations; {ITERATIONS_MIN} to {ITERATIONS_MAX} are accepted"
            ));
        }
        let rounds = std::num::NonZeroU32::new(rounds).ok_or_else(wrong)?;
        let mut salted = vec![0; hash.output_len()];
        pbkdf2::derive(derive, rounds, &salt, self.login.secret.0.as_bytes(), &mut salted);
        let salted = hmac::Key::new(mac, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let server_key = hmac::sign(&salted, b"Server Key");
        let stored = digest::digest(hash, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare());
        let signature = hmac::sign(&hmac::Key::new(mac, stored.as_ref()), message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server = hmac::sign(&hmac::Key::new(mac, server_key.as_ref()), message.as_bytes());
        self.expected = Some(server.as_ref().to_vec());
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes())
    }
}

fn part<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::settings::Secret;

    /// The example of RFC 7677.
    #[test]
    fn scram_as_its_document_has_it() {
        let login = Login { mechanism: Mechanism::ScramSha256, user: "user".into(), secret: Secret("pencil".into()) };
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_string();
        let mut scram = Scram { login: &login, nonce, expected: None, done: false };
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let said = scram.answer(first.as_bytes()).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(said).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let wrong = b"v=AAAATRpl3sLIbVvbyyhpfIsvcgMdXIBUtsSJkkTTeKg=";
        assert!(scram.answer(wrong).is_err());
        assert_eq!(scram.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap(), None);
        assert!(scram.answer(b"v=x").is_err());
    }

    #[test]
    fn a_broker_cannot_ask_for_what_is_weak_or_endless() {
        let login = Login { mechanism: Mechanism::ScramSha512, user: "a=b,c".into(), secret: Secret("p".into()) };
        for message in [
            "r=mine-theirs,s=AAAA,i=1",
            "r=mine-theirs,s=AAAA,i=4000000000",
            "r=other,s=AAAA,i=4096",
            "r=mine,s=AAAA,i=4096",
            "nonsense",
            "",
        ] {
            let mut scram = Scram { login: &login, nonce: "mine".into(), expected: None, done: false };
            assert!(scram.answer(message.as_bytes()).is_err(), "{message}");
            assert_eq!(scram.first_bare(), "n=a=3Db=2Cc,r=mine");
        }
    }
}

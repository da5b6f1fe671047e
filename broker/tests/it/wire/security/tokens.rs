//! Tokens: delegation tokens of Kafka, and those of an issuer that OAUTHBEARER believes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use millpond_broker::security::Mechanism;
use millpond_broker::security::scram::ScramMechanism;
use millpond_broker::security::tokens::TokenSettings;
use rcgen::KeyPair;

use super::super::client::Server;
use super::{PASSWORD, SCRAM, connect, sasl, server};

#[test]
fn delegation_tokens_are_made_used_renewed_and_ended() {
    use create_delegation_token_request::CreatableRenewers;
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    for user in ["bob", "carol"] {
        server.block_on(authenticator.users().set_password(user, PASSWORD, 4096)).unwrap();
    }
    drop(authenticator);
    let login = |server: &Server, user: &str| {
        let mut session = connect(server.address);
        assert_eq!(session.scram(ScramMechanism::Sha512, user, PASSWORD).error_code, 0);
        session
    };
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let renewer = |kind: &str| {
        let renewer = CreatableRenewers::default().with_principal_type(text(kind)).with_principal_name(text("bob"));
        CreateDelegationTokenRequest::default().with_renewers(vec![renewer]).with_max_lifetime_ms(3_600_000)
    };
    // Who is nobody in particular gets none.
    let plain = Server::new();
    assert_eq!(plain.client().call(3, &CreateDelegationTokenRequest::default()).error_code, 64);
    assert_eq!(plain.client().call(3, &DescribeDelegationTokenRequest::default()).error_code, 64);
    let mut alice = login(&server, "alice");
    assert_eq!(alice.call(3, &renewer("Group")).error_code, 67);
    let for_carol =
        renewer("User").with_owner_principal_type(Some(text("User"))).with_owner_principal_name(Some(text("carol")));
    assert_eq!(alice.call(3, &for_carol).error_code, 65, "nobody becomes another");
    for version in 1..=2 {
        assert_eq!(alice.call(version, &renewer("User")).error_code, 0);
    }
    let made = alice.call(3, &renewer("User"));
    assert_eq!(
        (made.error_code, made.principal_name.as_str(), made.token_requester_principal_name.as_str()),
        (0, "alice", "alice")
    );
    assert_eq!(made.max_timestamp_ms - made.issue_timestamp_ms, 3_600_000);
    assert_eq!(made.expiry_timestamp_ms, made.max_timestamp_ms);
    // Its holder is alice, and makes no tokens.
    let (id, hmac) = (made.token_id.to_string(), made.hmac.clone());
    for mechanism in ScramMechanism::ALL {
        let mut holder = connect(server.address);
        let done = holder.scram_by_token(mechanism, &id, &hmac);
        assert_eq!(done.error_code, 0, "{:?}", done.error_message);
        assert!(done.session_lifetime_ms > 0 && done.session_lifetime_ms <= 3_600_000);
        assert!(holder.metadata().is_some());
        assert_eq!(holder.call(3, &renewer("User")).error_code, 64);
    }
    for (id, hmac) in [(id.as_str(), &b"wrong"[..]), ("nothing", &hmac[..]), ("alice", &hmac[..])] {
        assert_eq!(connect(server.address).scram_by_token(ScramMechanism::Sha256, id, hmac).error_code, 58);
    }
    assert_eq!(connect(server.address).scram(ScramMechanism::Sha256, &id, &BASE64.encode(&hmac)).error_code, 58);
    // Whose it is and who renews it see it, and nobody else.
    let mine = DescribeDelegationTokenRequest::default().with_owners(None);
    let seen = |server: &Server, user: &str| login(server, user).call(3, &mine).tokens.len();
    assert_eq!((seen(&server, "alice"), seen(&server, "bob"), seen(&server, "carol")), (3, 3, 0));
    let nobodys = DescribeDelegationTokenRequest::default().with_owners(Some(vec![]));
    assert_eq!(alice.call(3, &nobodys).tokens.len(), 0);
    let renew = RenewDelegationTokenRequest::default().with_hmac(hmac.clone()).with_renew_period_ms(60_000);
    assert_eq!(login(&server, "carol").call(2, &renew).error_code, 63);
    assert_eq!(alice.call(2, &renew.clone().with_hmac(vec![1; 64].into())).error_code, 62);
    let renewed = login(&server, "bob").call(2, &renew);
    assert_eq!((renewed.error_code, renewed.expiry_timestamp_ms < made.expiry_timestamp_ms), (0, true));

    // They outlive a restart, but not their time.
    let fixture = server.stop();
    let server = Server::listening(fixture, |_, _| {}, |l| vec![sasl(None, &SCRAM)(l)]);
    let tokens = login(&server, "alice").call(3, &mine).tokens;
    let again = tokens.iter().find(|token| token.token_id.as_str() == id).unwrap();
    assert_eq!((again.expiry_timestamp, &again.hmac, again.renewers.len()), (renewed.expiry_timestamp_ms, &hmac, 1));
    assert_eq!(connect(server.address).scram_by_token(ScramMechanism::Sha256, &id, &hmac).error_code, 0);
    let expire =
        |period| ExpireDelegationTokenRequest::default().with_hmac(hmac.clone()).with_expiry_time_period_ms(period);
    let mut bob = login(&server, "bob");
    assert_eq!(bob.call(2, &expire(0)).error_code, 0);
    assert_eq!(connect(server.address).scram_by_token(ScramMechanism::Sha256, &id, &hmac).error_code, 58);
    assert_eq!(bob.call(2, &renew).error_code, 66);
    assert_eq!(bob.call(2, &expire(-1)).error_code, 0);
    assert_eq!(bob.call(2, &renew).error_code, 62);
    assert_eq!(seen(&server, "alice"), 2);
}

#[test]
fn delegation_tokens_count_with_their_names() {
    use millpond_broker::security::delegation::DelegationError;
    use millpond_types::Principal;
    let (server, authenticator) = server(
        |s| {
            s.authentication.delegation.bytes_max = 1_000_000;
            s.authentication.delegation.tokens_max = 7;
        },
        sasl(None, &SCRAM),
    );
    let tokens = authenticator.delegation();
    let made = |requester: &str, name: usize| {
        let user = Principal::user(requester);
        let renewers = (0..10).map(|i| Principal::user(&format!("{i}{}", "x".repeat(name)))).collect();
        server.block_on(tokens.create(user.clone(), user, renewers, -1)).map(|(token, _)| token)
    };
    let refused = |result, what: &str| match result {
        Err(DelegationError::TooMany(why)) => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    made("alice", 30_000).unwrap();
    refused(made("alice", 30_000), "of the same requester with their names");
    made("bob", 30_000).unwrap();
    made("carol", 30_000).unwrap();
    refused(made("dave", 30_000), "delegation tokens with their names");
    assert!((900_000..1_000_000).contains(&tokens.bytes()), "{}", tokens.bytes());
    // And by their number.
    (0..3).for_each(|_| drop(made("alice", 1).unwrap()));
    refused(made("alice", 1), "4 delegation tokens of the same requester");
    made("bob", 1).unwrap();
    refused(made("bob", 1), "7 delegation tokens already");
}

#[test]
fn whoever_asked_for_a_token_of_another_does_not_renew_it() {
    use millpond_broker::security::delegation::{DelegationError, DelegationSettings};
    use millpond_types::Principal;
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    let (tokens, usual) = (authenticator.delegation(), DelegationSettings::default());
    let [owner, requester, renewer] = ["owner", "requester", "renewer"].map(Principal::user);
    // Nothing asked for is what is usual.
    let asked = tokens.create(owner.clone(), requester.clone(), vec![renewer.clone()], 0);
    let (token, signature) = server.block_on(asked).unwrap();
    assert_eq!(token.ends_ms - token.issued_ms, usual.lifetime_max_ms);
    assert_eq!(token.expires_ms - token.issued_ms, usual.renewal_ms);
    assert!(token.concerns(&requester), "it is told of it");
    let renew = |who, period| server.block_on(tokens.renew(&signature, who, period));
    assert!(matches!(renew(&requester, 0), Err(DelegationError::NotOwner)));
    let expired = server.block_on(tokens.expire(&signature, &requester, -1));
    assert!(matches!(expired, Err(DelegationError::NotOwner)));
    for who in [&owner, &renewer] {
        assert!(renew(who, 0).unwrap() >= token.expires_ms);
        assert!(renew(who, 1000).unwrap() < token.expires_ms);
    }
}

/// Signs tokens as an issuer does.
struct Issuer {
    key: KeyPair,
    keys: String,
}

impl Issuer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let public = key.public_key_raw();
        let (x, y) = (BASE64_URL.encode(&public[1..33]), BASE64_URL.encode(&public[33..]));
        let keys = format!(
            r#"{{"keys":[{{"kty":"oct","kid":"secret","k":"c2VjcmV0"}},
                        {{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"k1","x":"{x}","y":"{y}"}}]}}"#
        );
        Self { key, keys }
    }

    fn token(&self, claims: &serde_json::Value) -> String {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some("k1".into());
        let key = jsonwebtoken::EncodingKey::from_ec_der(&self.key.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

fn now() -> i64 {
    millpond_types::Clock::now_ms(&millpond_types::SystemClock) / 1000
}

#[test]
fn tokens_are_believed_only_if_all_is_right() {
    let issuer = Issuer::new();
    let settings = TokenSettings {
        issuer: "https://issuer.example".into(),
        audiences: vec!["millpond".into()],
        clock_skew: Duration::from_secs(5),
        principal_claim: "sub".into(),
    };
    let (server, authenticator) = server(
        |s| {
            s.authentication.tokens = Some(settings);
            s.authentication.failure_delay = Duration::from_millis(10);
        },
        sasl(None, &[Mechanism::OAuthBearer]),
    );
    let tried = |token: &str, authzid: &str| {
        let mut session = connect(server.address);
        assert_eq!(session.handshake("OAUTHBEARER").error_code, 0);
        let message = format!("n,{authzid},\u{1}auth=Bearer {token}\u{1}\u{1}");
        let answer = session.authenticate(message.as_bytes());
        assert_eq!(answer.error_code, 0);
        if answer.auth_bytes.is_empty() {
            assert!(session.metadata().is_some());
            return Some(answer.session_lifetime_ms);
        }
        // The client says that it has understood, and is told the end.
        assert!(answer.auth_bytes.starts_with(b"{\"status\":\"invalid_token\""));
        assert_eq!(session.authenticate(b"\x01").error_code, 58);
        assert!(session.metadata().is_none());
        None
    };
    let claims = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = serde_json::json!({
            "iss": "https://issuer.example", "aud": ["other", "millpond"], "sub": "alice", "exp": now() + 600,
        });
        change(&mut claims);
        claims
    };
    let good = issuer.token(&claims(&|_| {}));
    assert_eq!(tried(&good, ""), None, "no keys yet");
    assert_eq!(authenticator.tokens().unwrap().set_keys(&issuer.keys), Ok(1));
    let lifetime = tried(&good, "").unwrap();
    assert!((590_000..=606_000).contains(&lifetime), "{lifetime}");
    assert!(tried(&good, "a=alice").is_some());
    assert!(tried(&good, "a=root").is_none());

    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let bad: [(&str, Change<'_>); 8] = [
        ("expired", &|c| c["exp"] = (now() - 60).into()),
        ("without an end", &|c| drop(c.as_object_mut().unwrap().remove("exp"))),
        ("not yet", &|c| c["nbf"] = (now() + 60).into()),
        ("another issuer", &|c| c["iss"] = "https://other.example".into()),
        ("no issuer", &|c| drop(c.as_object_mut().unwrap().remove("iss"))),
        ("for others", &|c| c["aud"] = "other".into()),
        ("about nobody", &|c| c["sub"] = "".into()),
        ("about a number", &|c| c["sub"] = 7.into()),
    ];
    for (what, change) in bad {
        assert!(tried(&issuer.token(&claims(change)), "").is_none(), "{what}");
    }
    assert!(tried(&Issuer::new().token(&claims(&|_| {})), "").is_none(), "signed by somebody else");
    let body = BASE64_URL.encode(claims(&|_| {}).to_string());
    let unsigned = format!("{}.{body}.", BASE64_URL.encode(r#"{"alg":"none"}"#));
    assert!(tried(&unsigned, "").is_none(), "unsigned");
    let secret = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("secret".into());
    let shared = jsonwebtoken::encode(&header, &claims(&|_| {}), &secret).unwrap();
    assert!(tried(&shared, "").is_none(), "signed with what everybody may know");
    assert!(tried("x.y.z", "").is_none() && tried("", "").is_none());
    let keys = authenticator.tokens().unwrap();
    assert!(keys.set_keys("{}").is_err() && keys.set_keys(r#"{"keys":[]}"#).is_err());
    assert!(tried(&good, "").is_some(), "the old keys are still there");
    assert_eq!(server.metrics.snapshot().panics_total, 0);
}

//! Users and their passwords: SCRAM and PLAIN, what whoever is refused learns, changes over the network.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use millpond_broker::security::Mechanism;
use millpond_broker::security::scram::ScramMechanism;
use millpond_broker::security::tls::ClientAuth;

use super::super::client::{Server, frame};
use super::certificates::{Authority, connect_tls};
use super::{PASSWORD, SCRAM, Session, connect, sasl, server};

#[test]
fn scram_lets_in_whoever_knows_the_password() {
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    for mechanism in ScramMechanism::ALL {
        let mut session = connect(server.address);
        let done = session.scram(mechanism, "alice", PASSWORD);
        assert_eq!((done.error_code, done.session_lifetime_ms), (0, 0));
        assert_eq!(session.metadata().unwrap().brokers.len(), 1);
        // Larger than what strangers may send.
        let topics = ["t", "u", "v"].map(|name| {
            let name = TopicName(StrBytes::from_string(name.repeat(30_000)));
            metadata_request::MetadataRequestTopic::default().with_name(Some(name))
        });
        let large = MetadataRequest::default().with_topics(Some(topics.to_vec()));
        assert_eq!(session.call(4, &large).topics.len(), 3);
    }
    assert_eq!(authenticator.counts(), (2, 0));
}

#[test]
fn whoever_is_refused_learns_nothing_and_waits() {
    let tried = |user: &str, password: &str| {
        let (server, authenticator) = server(
            |settings| settings.authentication.failure_delay = Duration::from_millis(150),
            sasl(None, &[SCRAM[0], Mechanism::Plain]),
        );
        let mut session = connect(server.address);
        let begun = Instant::now();
        let scram = session.scram(ScramMechanism::Sha256, user, password);
        assert!(begun.elapsed() >= Duration::from_millis(150));
        assert!(session.metadata().is_none(), "closed");
        let mut session = connect(server.address);
        let begun = Instant::now();
        let plain = session.plain(user, password);
        assert!(begun.elapsed() >= Duration::from_millis(150));
        assert!(session.metadata().is_none(), "closed");
        assert_eq!(authenticator.counts(), (0, 2));
        (scram.error_code, scram.error_message, plain.error_code, plain.error_message)
    };
    let wrong = tried("alice", "wrong");
    assert_eq!((wrong.0, wrong.2), (58, 58));
    assert_eq!(wrong, tried("nobody", PASSWORD));
}

#[test]
fn a_stranger_is_shown_the_same_salt_each_time() {
    let (server, _) = server(|_| {}, sasl(None, &SCRAM));
    let salt = |server: &Server| {
        let mut session = connect(server.address);
        session.handshake("SCRAM-SHA-512");
        let first = session.authenticate(b"n,,n=nobody,r=x");
        let text = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
        text.split_once(",s=").unwrap().1.to_owned()
    };
    let before = salt(&server);
    assert_eq!(before, salt(&server));
    let fixture = server.stop().reopen(true);
    let (again, _) = {
        let server = Server::listening(fixture, |_, _| {}, |l| vec![sasl(None, &SCRAM)(l)]);
        let authenticator = server.authenticator();
        (server, authenticator)
    };
    assert_eq!(before, salt(&again), "after a restart too");
    assert_eq!(connect(again.address).scram(ScramMechanism::Sha256, "alice", PASSWORD).error_code, 0);
}

/// As Kafka's broker and clients do it, without the mapping that RFC 5802 asks for.
#[test]
fn names_and_passwords_count_as_their_bytes() {
    let (server, authenticator) = server(|_| {}, sasl(None, &[SCRAM[0], Mechanism::Plain]));
    // What SASLprep would make "IX" of, and "aX".
    let (name, password) = ("\u{2168}", "\u{aa}\u{ad}X");
    server.block_on(authenticator.users().set_password(name, password, 4096)).unwrap();
    let scram =
        |name: &str, password: &str| connect(server.address).scram(ScramMechanism::Sha256, name, password).error_code;
    assert_eq!((scram(name, password), scram(name, "aX"), scram("IX", password)), (0, 58, 58));
    assert_eq!(connect(server.address).plain(name, password).error_code, 0);
    assert_eq!(connect(server.address).plain(name, "aX").error_code, 58);
}

/// Iterations and salts are told before anybody is known.
#[test]
fn who_does_not_exist_looks_like_who_does() {
    let (server, authenticator) = server(|_| {}, sasl(None, &SCRAM));
    for name in ["alice", "bob"] {
        server.block_on(authenticator.users().set_password(name, PASSWORD, 4321)).unwrap();
    }
    let shown = |name: &str| {
        let mut session = connect(server.address);
        session.handshake("SCRAM-SHA-512");
        let first = session.authenticate(format!("n,,n={name},r=x").as_bytes());
        let text = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
        let (_, rest) = text.split_once(",s=").unwrap();
        let (salt, iterations) = rest.split_once(",i=").unwrap();
        (salt.len(), iterations.to_owned())
    };
    let expected = shown("alice");
    assert_eq!(expected.1, "4321");
    assert!((0..20).all(|i| shown(&format!("nobody{i}")) == expected));
}

#[test]
fn plain_in_both_framings_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let tls = authority.tls(directory.path(), ClientAuth::None);
    let (server, _) = server(|_| {}, sasl(Some(tls), &[Mechanism::Plain]));
    let mut session = connect_tls(server.address, &authority, None);
    assert_eq!(session.plain("alice", PASSWORD).error_code, 0);
    assert!(session.metadata().is_some());
    // After version 0 of the handshake messages have nothing around them but their length.
    let bare = |password: &str| {
        let mut session = connect_tls(server.address, &authority, None);
        let chosen = SaslHandshakeRequest::default().with_mechanism("PLAIN".into());
        assert_eq!(session.call(0, &chosen).error_code, 0);
        let message = format!("\0alice\0{password}");
        let mut bytes = (message.len() as i32).to_be_bytes().to_vec();
        bytes.extend_from_slice(message.as_bytes());
        session.stream.write_all(&bytes).unwrap();
        let answer = session.frame()?;
        assert!(answer.is_empty());
        session.metadata()
    };
    assert!(bare(PASSWORD).is_some());
    assert!(bare("wrong").is_none());
    // Somebody who speaks plain text here is not answered.
    let mut plain = connect(server.address).stream;
    plain.write_all(&frame(1, 0, &ApiVersionsRequest::default())).unwrap();
    let mut said = Vec::new();
    plain.read_to_end(&mut said).unwrap();
    assert_eq!(said.first(), Some(&0x15), "an alert of TLS and no more: {said:?}");
    // Counted once the connection is put away.
    let until = Instant::now() + Duration::from_secs(30);
    while server.metrics.snapshot().handshakes_failed_total == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.metrics.snapshot().handshakes_failed_total, 1);
}

#[test]
fn credentials_are_changed_over_the_network() {
    let server = Server::new();
    let mut session = connect(server.address);
    let name = |name: &str| StrBytes::from_string(name.into());
    let put = |user: &str, mechanism: i8, iterations: i32, len: usize| {
        ScramCredentialUpsertion::default()
            .with_name(name(user))
            .with_mechanism(mechanism)
            .with_iterations(iterations)
            .with_salt(vec![1; 16].into())
            .with_salted_password(vec![2; len].into())
    };
    let request = AlterUserScramCredentialsRequest::default()
        .with_upsertions(vec![
            put("a", 1, 4096, 32),
            put("a", 2, 8192, 64),
            put("few", 1, 4095, 32),
            put("many", 1, 1_000_000, 32),
            put("short", 2, 4096, 32),
            put("odd", 3, 4096, 32),
            put("", 1, 4096, 32),
            put("twice", 1, 4096, 32),
            put("twice", 1, 4096, 32),
        ])
        .with_deletions(vec![ScramCredentialDeletion::default().with_name(name("gone")).with_mechanism(1)]);
    let response = session.call(0, &request);
    let mut codes: Vec<_> = response.results.iter().map(|r| (r.user.as_str(), r.error_code)).collect();
    codes.sort_unstable();
    let expected =
        [("", 93), ("a", 0), ("few", 93), ("gone", 91), ("many", 93), ("odd", 33), ("short", 93), ("twice", 92)];
    assert_eq!(codes, expected);

    let describe = |session: &mut Session<TcpStream>, users: Option<&[&str]>| {
        let users = users.map(|users| users.iter().map(|user| UserName::default().with_name(name(user))).collect());
        let response = session.call(0, &DescribeUserScramCredentialsRequest::default().with_users(users));
        let of = |r: &describe_user_scram_credentials_response::DescribeUserScramCredentialsResult| {
            let infos: Vec<_> = r.credential_infos.iter().map(|i| (i.mechanism, i.iterations)).collect();
            (r.user.to_string(), r.error_code, infos)
        };
        response.results.iter().map(of).collect::<Vec<_>>()
    };
    let a = ("a".to_string(), 0, vec![(1, 4096), (2, 8192)]);
    assert_eq!(describe(&mut session, None), std::slice::from_ref(&a));
    let named = describe(&mut session, Some(&["a", "b", "c", "c"]));
    assert_eq!(named, [a, ("b".into(), 91, vec![]), ("c".into(), 92, vec![])]);

    let removal = ScramCredentialDeletion::default().with_name(name("a")).with_mechanism(2);
    let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![removal]);
    assert_eq!(session.call(0, &request).results[0].error_code, 0);
    assert_eq!(describe(&mut session, None), [("a".to_string(), 0, vec![(1, 4096)])]);
    let fixture = server.stop().reopen(true);
    let server = Server::with(fixture, |_, _| {});
    assert_eq!(describe(&mut connect(server.address), None), [("a".to_string(), 0, vec![(1, 4096)])]);
}

#[test]
fn limits_without_end_are_taken() {
    let (server, _authenticator) = server(
        |s| {
            s.authentication.derivations_max = usize::MAX;
            s.authentication.tries_per_address_max = usize::MAX;
            s.handshakes_max = usize::MAX;
        },
        sasl(None, &SCRAM),
    );
    assert_eq!(connect(server.address).scram(ScramMechanism::Sha256, "alice", PASSWORD).error_code, 0);
}

#[test]
fn wrong_passwords_by_scram_take_their_turn() {
    let delay = Duration::from_millis(200);
    let (server, _authenticator) = server(
        |s| {
            s.authentication.failure_delay = delay;
            s.authentication.tries_per_address_max = 2;
        },
        sasl(None, &SCRAM),
    );
    let (address, begun) = (server.address, Instant::now());
    let wrong = || connect(address).scram(ScramMechanism::Sha256, "alice", "wrong").error_code;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(wrong)).collect();
        assert!(all.into_iter().all(|one| one.join().unwrap() == 58));
    });
    // The last two come when three pairs before them have rested; their own refusal may be due at once then, as it comes a
    // whole number of delays after they began.
    assert!(begun.elapsed() >= 3 * delay, "{:?}", begun.elapsed());
}

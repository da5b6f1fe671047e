//! Keys for tokens that are fetched over https: they change, and the server that has them is slow, mad or gone.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::process::{Process, client, serve};
use crate::security::{authority, write_certificate};

/// What the server with the keys does.
#[derive(Clone)]
enum Mode {
    Set(String),
    /// Says nothing.
    Slow,
    /// Never stops.
    Huge,
    /// A page instead of a set.
    Page,
    /// Closes.
    Gone,
}

struct KeyServer {
    port: u16,
    mode: Arc<Mutex<Mode>>,
    seen: Arc<Seen>,
}

/// How often.
#[derive(Default)]
struct Seen {
    /// A set was sent whole.
    sets: AtomicUsize,
    /// A client ended the handshake.
    distrusted: AtomicUsize,
}

impl KeyServer {
    async fn start(directory: &Path, mode: Mode) -> Self {
        let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(Mutex::new(mode));
        let (modes, seen) = (mode.clone(), Arc::new(Seen::default()));
        let counts = seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mode = modes.lock().unwrap().clone();
                if matches!(mode, Mode::Gone) {
                    continue;
                }
                let (acceptor, seen) = (acceptor.clone(), counts.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else {
                        seen.distrusted.fetch_add(1, Ordering::SeqCst);
                        return;
                    };
                    let _request = stream.read(&mut [0; 8192]).await;
                    let answer = |body: &str| {
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    };
                    match mode {
                        Mode::Set(set) => {
                            if stream.write_all(answer(&set).as_bytes()).await.is_ok() {
                                seen.sets.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        Mode::Page => drop(stream.write_all(answer("<html>sign in</html>").as_bytes()).await),
                        Mode::Slow => tokio::time::sleep(Duration::from_secs(60)).await,
                        Mode::Huge => {
                            let _begun = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
                            let spaces = vec![b' '; 1 << 16];
                            while stream.write_all(&spaces).await.is_ok() {}
                        }
                        Mode::Gone => {}
                    }
                    let _closed = stream.shutdown().await;
                });
            }
        });
        Self { port, mode, seen }
    }

    /// Waits until that has happened twice more: what came of the first of them was seen to when the second began.
    async fn twice(&self, what: fn(&Seen) -> &AtomicUsize) {
        let enough = what(&self.seen).load(Ordering::SeqCst) + 2;
        let until = Instant::now() + Duration::from_secs(40);
        while what(&self.seen).load(Ordering::SeqCst) < enough {
            assert!(Instant::now() < until, "nobody fetches keys");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn be(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

fn set(id: &str, key: &KeyPair) -> Mode {
    let public = key.public_key_raw();
    let (x, y) = (BASE64.encode(&public[1..33]), BASE64.encode(&public[33..]));
    let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": id, "x": x, "y": y });
    Mode::Set(json!({ "keys": [key] }).to_string())
}

fn token(id: &str, key: &KeyPair) -> String {
    let now = millpond_types::Clock::now_ms(&millpond_types::SystemClock) / 1000;
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some(id.into());
    let claims = json!({ "iss": "https://issuer.example", "aud": "millpond", "sub": "carol", "exp": now + 600 });
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der())).unwrap()
}

fn start(directory: &Path, name: &str, port: u16, ca: &str) -> Process {
    let config = directory.join(format!("{name}.toml"));
    let directory = directory.display();
    let text = format!(
        "[http_security]\nauthentication = true\n[security]\nfailed_authentication_delay_ms = 10\n\
         [security.oauth]\njwks = 'https://localhost:{port}/keys'\njwks_ca = '{directory}/{ca}'\n\
         issuer = 'https://issuer.example'\naudience = ['millpond']\n\
         jwks_refresh_ms = 1000\njwks_timeout_ms = 6000\njwks_stale_max_ms = 12000\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = serve(&config.with_extension("data"));
    command.arg("--config").arg(&config);
    Process::spawn(command)
}

/// Longer than any answer takes, and shorter than a fetch of keys from a server that says nothing.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn status(server: &Process, token: &str) -> u16 {
    let request = client().get(format!("{}/info", server.http)).bearer_auth(token);
    let begun = Instant::now();
    let status = request.send().await.unwrap().status().as_u16();
    assert!(begun.elapsed() < AT_ONCE, "whoever asks does not wait for keys: {:?}", begun.elapsed());
    status
}

async fn eventually(server: &Process, token: &str, expected: u16, what: &str) {
    let until = Instant::now() + Duration::from_secs(40);
    while status(server, token).await != expected {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The token counts all the time, and one of a key that nobody knows does not.
async fn for_a_while(server: &Process, token: &str, unknown: &str, what: &str) {
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(status(server, token).await, 200, "{what}");
        assert_eq!(status(server, unknown).await, 401, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_over_https() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let ca = authority();
    write_certificate(path, &ca);
    let (first, second) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let keys = KeyServer::start(path, set("k1", &first)).await;
    let server = start(path, "server", keys.port, "ca.pem");
    let (old, new, unknown) = (token("k1", &first), token("k2", &second), token("k3", &second));
    eventually(&server, &old, 200, "the first key").await;
    assert_eq!(status(&server, &token("k1", &second)).await, 401, "another's signature");
    assert_eq!(status(&server, &new).await, 401, "a key that is not there yet");
    // The set changes: the new key counts and the old one does not.
    keys.be(set("k2", &second));
    eventually(&server, &new, 200, "the new key").await;
    eventually(&server, &old, 401, "the old key is taken back").await;
    // What is no set, or does not come, changes nothing for a while.
    for (mode, what) in [(Mode::Slow, "slow"), (Mode::Huge, "huge"), (Mode::Page, "a page")] {
        keys.be(mode);
        for_a_while(&server, &new, &unknown, what).await;
        keys.be(set("k2", &second));
        keys.twice(|seen| &seen.sets).await;
    }
    keys.be(Mode::Gone);
    for_a_while(&server, &new, &unknown, "gone").await;
    eventually(&server, &new, 401, "keys that could not be fetched for too long").await;
    keys.be(set("k2", &second));
    eventually(&server, &new, 200, "the keys are back").await;

    // A server that is not who it says gets nobody in.
    std::fs::write(path.join("other.pem"), authority().pem()).unwrap();
    let deceived = start(path, "deceived", keys.port, "other.pem");
    keys.twice(|seen| &seen.distrusted).await;
    assert_eq!(status(&deceived, &new).await, 401);
    let log = deceived.kill();
    assert!(log.contains("no keys for tokens yet"), "{log}");
    let log = server.kill();
    for said in ["larger than", "the old ones stay in use for now", "all tokens are refused"] {
        assert!(log.contains(said), "no {said:?} in {log}");
    }
    assert!(!log.contains(&new));
}

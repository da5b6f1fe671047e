//! A server that asks who somebody is: users from the command line, TLS and credentials on HTTP, `millpond sql` and the
//! commands of Kafka's side against it, and a log without secrets.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use millpond::http_client::{Trust, builder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::cli::{command, feed};
use crate::process::{Process, binary, serve};

const PASSWORD: &str = "Tr0ub4dor-and-3";
const WRONG: &str = "hunter2-is-not-it";

fn user(arguments: &[&str], data: &Path, password: &str) -> Output {
    let mut command = Command::new(binary());
    command.arg("user").args(arguments).arg("--data").arg(data).env_remove("MILLPOND_PASSWORD");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a server's certificate and key, and the authority's certificate.
pub fn write_certificate(directory: &Path, authority: &CertifiedIssuer<'static, KeyPair>) {
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(directory.join("server.pem"), certificate.pem()).unwrap();
    let path = directory.join("server.key");
    std::fs::write(&path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
}

/// A key, and a set with its public half.
fn issuer(directory: &Path) -> KeyPair {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = KeyPair::generate().unwrap();
    let public = key.public_key_raw();
    let set = json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1",
        "x": base64.encode(&public[1..33]), "y": base64.encode(&public[33..]),
    }]});
    std::fs::write(directory.join("jwks.json"), set.to_string()).unwrap();
    key
}

fn token(key: &KeyPair, seconds: i64) -> String {
    signed(key, &claims(seconds))
}

fn claims(seconds: i64) -> Json {
    let now = millpond_types::Clock::now_ms(&millpond_types::SystemClock) / 1000;
    json!({ "iss": "https://issuer.example", "aud": "millpond", "sub": "carol", "exp": now + seconds })
}

fn signed(key: &KeyPair, claims: &Json) -> String {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some("k1".into());
    let key = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn client(directory: &Path) -> reqwest::Client {
    let authority = std::fs::read(directory.join("ca.pem")).unwrap();
    builder(Trust::Only(&authority)).unwrap().timeout(Duration::from_secs(20)).build().unwrap()
}

fn config(directory: &Path, more: &str) -> String {
    let directory = directory.display();
    format!(
        "[[listener]]\naddress = '127.0.0.1:0'\nprotocol = 'SASL_SSL'\n\
         certificate = '{directory}/server.pem'\nkey = '{directory}/server.key'\n\
         [http_security]\nhealthcheck_open = true\n\
         certificate = '{directory}/server.pem'\nkey = '{directory}/server.key'\n\
         [security]\nfailed_authentication_delay_ms = 50\n\
         [security.oauth]\njwks = '{directory}/jwks.json'\nissuer = 'https://issuer.example'\n\
         audience = ['millpond']\n{more}"
    )
}

fn start(directory: &Path) -> Process {
    std::fs::write(directory.join("c.toml"), config(directory, "")).unwrap();
    let mut command = serve(&directory.join("data"));
    command.arg("--config").arg(directory.join("c.toml"));
    Process::spawn(command)
}

#[test]
fn users_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let added = user(&["add", "alice"], &data, &format!("{PASSWORD}\n"));
    let told = format!("added user \"alice\"\nmaking the data directory \"{}\"\n", data.display());
    assert!(added.status.success() && text(&added) == told, "{}", text(&added));
    let again = user(&["add", "alice", "--iterations", "4096"], &data, PASSWORD);
    assert!(text(&again).contains("changed the password"), "{}", text(&again));
    assert_eq!(text(&user(&["list"], &data, "")), "alice\tSCRAM-SHA-256 (4096), SCRAM-SHA-512 (4096)\n");
    let nothing = user(&["add", "bob"], &data, "\n");
    assert!(!nothing.status.success() && text(&nothing).contains("empty"), "{}", text(&nothing));
    assert!(!user(&["add", "bob", PASSWORD], &data, "").status.success(), "a password in the arguments");
    assert!(!user(&["add", "bob", "--iterations", "100"], &data, PASSWORD).status.success());
    let unknown = user(&["remove", "bob", "--yes"], &data, "");
    assert!(!unknown.status.success() && text(&unknown).contains("\"bob\""), "{}", text(&unknown));
    let asked = user(&["remove", "alice"], &data, "y\n");
    assert!(!asked.status.success() && text(&asked).contains("remove user \"alice\": "), "{}", text(&asked));
    assert!(text(&user(&["list"], &data, "")).starts_with("alice\t"));
    assert!(user(&["remove", "alice", "--yes"], &data, "").status.success());
    assert_eq!(text(&user(&["list"], &data, "")), "there are no users\n");
    assert!(user(&["add", "anna", "--iterations", "4096"], &data, PASSWORD).status.success());
    let server = Process::start(&data);
    let address = server.kafka.to_string();
    let told = Command::new(binary()).args(["user", "list", "--bootstrap", &address]).output().unwrap();
    assert_eq!(text(&told), "anna\tSCRAM-SHA-256 (4096), SCRAM-SHA-512 (4096)\n");
    let held = user(&["list"], &data, "");
    assert!(!held.status.success() && text(&held).contains("user list --bootstrap"), "{}", text(&held));
    let ambiguous = user(&["list", "--bootstrap", &address], &data, "");
    assert!(!ambiguous.status.success() && text(&ambiguous).contains("--data"), "{}", text(&ambiguous));
    server.stop();
}

#[test]
fn whose_users_are_meant_is_never_guessed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    assert!(user(&["add", "anna", "--iterations", "4096"], &data, PASSWORD).status.success());
    let server = Process::start(&data);
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let run = |bootstrap: &str, args: &[&str]| {
        let mut command = command(bootstrap, args);
        command.current_dir(&elsewhere);
        feed(command, format!("{PASSWORD}\n").as_bytes())
    };
    // The variable names the server, as for all other commands.
    let address = server.kafka.to_string();
    assert_eq!(run(&address, &["user", "add", "bob", "--iterations", "4096"]).ok(), "added user \"bob\"\n");
    assert_eq!(run(&address, &["user", "list"]).ok().lines().count(), 2);
    assert_eq!(run(&address, &["user", "remove", "anna", "--yes"]).ok(), "removed user \"anna\"\n");
    // Nothing names anything: nothing is made.
    for args in [&["user", "add", "bob"][..], &["user", "list"], &["user", "remove", "bob", "--yes"]] {
        run("", args).fails_as_wrong_use(&["--data DIR", "--bootstrap HOST:PORT", "no \"./millpond-data\""]);
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "a directory was made");
    server.stop();
    // A directory that is named wins over the variable.
    let named = run(&address, &["user", "list", "--data", data.to_str().unwrap()]).ok();
    assert!(named.starts_with("bob\t"), "{named}");
    // The usual one is taken where it is there.
    std::fs::rename(&data, elsewhere.join("millpond-data")).unwrap();
    assert_eq!(run("", &["user", "list"]).ok(), named);
    // Only where a server holds it, a server is spoken of.
    let usual = elsewhere.join("millpond-data");
    std::fs::write(usual.join("millpond"), "something else\n").unwrap();
    let damaged = text(&user(&["list"], &usual, ""));
    assert!(damaged.contains("damaged") && !damaged.contains("running server"), "{damaged}");
}

#[test]
fn users_of_a_running_server_are_changed_over_the_network() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_certificate(path, &authority());
    issuer(path);
    assert!(user(&["add", "alice"], &path.join("data"), PASSWORD).status.success());
    std::fs::write(path.join("c.toml"), config(path, "")).unwrap();
    let mut serve = serve(&path.join("data"));
    serve.arg("--config").arg(path.join("c.toml")).env("RUST_LOG", "trace");
    let mut server = Process::spawn(serve);
    let logins = server.lines().iter().find_map(|l| l.strip_prefix("kafka SASL_SSL listening on ")).unwrap().to_owned();
    let ca = path.join("ca.pem").display().to_string();
    let (first, second) = ("the first of bob's", "bob's second");
    let logs_in = |name: &str, password: &str| {
        let one = |mechanism: &str| {
            let args = ["topic", "list", "--cacert", &ca, "--user", name, "--sasl-mechanism", mechanism];
            let mut list = command(&logins, &args);
            feed(
                {
                    list.env("MILLPOND_PASSWORD", password);
                    list
                },
                b"",
            )
            .status
                == Some(0)
        };
        let all = ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"].map(one);
        assert!(all.iter().all(|one| *one == all[0]), "{name}: {all:?}");
        all[0]
    };
    let as_alice = |args: &[&str], input: &str| {
        let connection = ["--bootstrap", &logins, "--cacert", &ca, "--user", "alice"];
        let mut command = command("", &[&["user"], args, &connection[..]].concat());
        command.env("MILLPOND_PASSWORD", PASSWORD);
        feed(command, input.as_bytes())
    };
    // The variable has alice's password, and never the new one.
    as_alice(&["add", "bob"], "").fails(&["is to be the password"]);
    assert_eq!(as_alice(&["add", "bob", "--iterations", "4096"], &format!("{first}\n")).ok(), "added user \"bob\"\n");
    assert!(logs_in("bob", first) && !logs_in("bob", PASSWORD));
    let plain = server.kafka.to_string();
    let file = path.join("new").display().to_string();
    std::fs::write(&file, format!("{second}\n")).unwrap();
    let args = ["user", "add", "bob", "--bootstrap", &plain, "--new-password-file", &file];
    assert_eq!(feed(command("", &args), b"").ok(), "changed the password of user \"bob\"\n");
    assert!(logs_in("bob", second) && !logs_in("bob", first));
    let listed = as_alice(&["list"], "").ok();
    assert_eq!(listed.lines().nth(1), Some("bob\tSCRAM-SHA-256 (8192), SCRAM-SHA-512 (8192)"));
    as_alice(&["add", "a\u{1}b"], "x").fails(&["UNACCEPTABLE_CREDENTIAL", "control character"]);
    as_alice(&["add", "bob", "--data", "."], "x").fails_as_wrong_use(&["--data"]);
    assert_eq!(as_alice(&["add", "bob", "a password"], "").status, Some(2), "a password in the arguments");
    as_alice(&["remove", "bob"], "y\n").fails(&["remove user \"bob\": ", "--yes"]);
    assert!(logs_in("bob", second));
    assert_eq!(as_alice(&["remove", "bob", "--yes"], "").ok(), "removed user \"bob\"\n");
    assert!(!logs_in("bob", second));
    as_alice(&["remove", "bob", "--yes"], "").fails(&["no user \"bob\""]);
    let log = server.kill();
    for secret in [first, second, PASSWORD] {
        assert!(!log.contains(secret), "a secret is in the log: {secret}");
    }
}

#[tokio::test]
async fn http_asks_who_somebody_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_certificate(path, &authority());
    let key = issuer(path);
    assert!(user(&["add", "alice"], &path.join("data"), PASSWORD).status.success());
    let server = start(path);
    assert!(server.http.starts_with("https://127.0.0.1:"), "{}", server.http);
    let client = client(path);
    let get = |path: &str| client.get(format!("{}{path}", server.http));

    let refused = get("/info").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let schemes: Vec<_> = refused.headers().get_all("www-authenticate").iter().map(|v| v.to_str().unwrap()).collect();
    assert!(schemes[0].starts_with("Basic realm=") && schemes[1].starts_with("Bearer"), "{schemes:?}");
    let body: Json = refused.json().await.unwrap();
    assert_eq!((&body["@type"], &body["error_code"]), (&json!("generic_error"), &json!(40100)));
    for path in ["/", "/ksql", "/query", "/metrics", "/udfs", "/nowhere", "/chc/ready"] {
        assert_eq!(get(path).send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(get("/healthcheck").send().await.unwrap().status(), StatusCode::OK);

    let asked = |request: reqwest::RequestBuilder| async move { request.send().await.unwrap().status() };
    assert_eq!(asked(get("/info").basic_auth("alice", Some(PASSWORD))).await, StatusCode::OK);
    assert_eq!(asked(get("/info").basic_auth("alice", Some(WRONG))).await, StatusCode::UNAUTHORIZED);
    assert_eq!(asked(get("/info").basic_auth("nobody", Some(PASSWORD))).await, StatusCode::UNAUTHORIZED);
    assert_eq!(asked(get("/info").bearer_auth(token(&key, 60))).await, StatusCode::OK);
    assert_eq!(asked(get("/info").bearer_auth(token(&key, -60))).await, StatusCode::UNAUTHORIZED);
    let metrics = get("/metrics").basic_auth("alice", Some(PASSWORD)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("authentications_failed_total 3"), "{metrics}");

    // Whoever speaks without TLS, or believes others, gets nothing.
    let plain = builder(Trust::Nobody).unwrap().timeout(Duration::from_secs(20)).build().unwrap();
    assert!(plain.get(server.http.replace("https", "http")).send().await.is_err());
    assert!(plain.get(&server.http).send().await.is_err());
    server.stop();
}

#[tokio::test]
async fn the_log_tells_why_a_token_is_refused_and_nothing_that_it_says() {
    use base64::Engine;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_certificate(path, &authority());
    let key = issuer(path);
    let server = start(path);
    let client = client(path);
    let with = |name: &str, value: Json| {
        let mut claims = claims(600);
        claims[name] = value;
        signed(&key, &claims)
    };
    let mut endless = claims(600);
    endless.as_object_mut().unwrap().remove("exp");
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let unsigned = [json!({ "alg": "none" }), claims(600)].map(|part| base64.encode(part.to_string())).join(".");
    let (good, other) = (token(&key, 600), token(&key, 601));
    let (said, signature) = (good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    let cases = [
        (token(&key, -600), "expired"),
        (with("aud", json!("somebody-else")), "wrong audience"),
        (with("iss", json!("https://elsewhere.example")), "wrong issuer"),
        (with("nbf", json!(4_000_000_000_u64)), "not valid yet"),
        (with("sub", json!(7)), "names no user"),
        (signed(&key, &endless), "without exp"),
        (format!("{unsigned}."), "not signed, or not in a known way"),
        (format!("{said}.{signature}"), "wrong signature"),
        ("nonsense".into(), "not a JSON web token"),
    ];
    for (token, _) in &cases {
        let asked = client.get(format!("{}/info", server.http)).bearer_auth(token).send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::UNAUTHORIZED);
        // More than a line a second are left out.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let log = server.stop();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("authentication failed")).collect();
    assert_eq!(lines.len(), cases.len(), "{log}");
    for (line, (_, reason)) in lines.iter().zip(&cases) {
        assert!(
            line.contains(" INFO ") && line.contains(&format!("by=\"token\" reason={reason:?}")),
            "{reason}: {line}"
        );
    }
    assert!(!log.contains("carol") && !log.contains("elsewhere") && !log.contains("somebody-else"), "{log}");
}

#[test]
fn an_authorizer_that_nobody_can_add_an_entry_to_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let log_with = |config: &str| {
        std::fs::write(directory.path().join("c.toml"), config).unwrap();
        let mut command = serve(&directory.path().join("data"));
        command.arg("--config").arg(directory.path().join("c.toml"));
        Process::spawn(command).kill()
    };
    let log = log_with("[security]\nauthorizer = true\n");
    let line = log.lines().find(|line| line.contains("access control")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(" WARN ") && line.contains("super_users in [security]"), "{line}");
    let log = log_with("[security]\nauthorizer = true\nsuper_users = ['User:admin']\n");
    assert!(!log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_do_not_keep_others_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in ["alice", "bob"] {
        assert!(user(&["add", name], &path.join("data"), PASSWORD).status.success());
    }
    let config = "[http_security]\nauthentication = true\n[security]\ntries_per_address_max = 2\n";
    std::fs::write(path.join("c.toml"), config).unwrap();
    let mut command = serve(&path.join("data"));
    command.arg("--config").arg(path.join("c.toml"));
    let server = Process::spawn(command);
    let from = |address: [u8; 4]| {
        let builder = builder(Trust::Nobody).unwrap().local_address(Some(std::net::IpAddr::from(address)));
        builder.timeout(Duration::from_secs(60)).build().unwrap()
    };
    let url = format!("{}/info", server.http);
    let (here, elsewhere) = (from([127, 0, 0, 1]), from([127, 0, 0, 2]));
    let asked = |client: &reqwest::Client, user: &str, password: &str| {
        let request = client.get(&url).basic_auth(user, Some(password));
        async move { request.send().await.unwrap().status() }
    };
    assert_eq!(asked(&here, "alice", PASSWORD).await, StatusCode::OK);
    // A crowd at one address, half of it with names that nobody has.
    let wrong = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let begun = Instant::now();
    let crowd: Vec<_> = (0..150)
        .map(|i| {
            let request = here.get(&url).basic_auth(["alice", "nobody"][i % 2], Some(format!("{WRONG}{i}")));
            let wrong = wrong.clone();
            tokio::spawn(async move {
                let answer = request.send().await;
                if answer.is_ok_and(|answer| answer.status() == StatusCode::UNAUTHORIZED) {
                    wrong.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for (client, name, what) in [(&here, "alice", "right lately"), (&elsewhere, "bob", "from another address")] {
        assert_eq!(asked(client, name, PASSWORD).await, StatusCode::OK);
        // Two at a time, each for a quarter of a second: the crowd needs at least 18 seconds.
        let (tried, seconds) = (wrong.load(std::sync::atomic::Ordering::Relaxed), begun.elapsed().as_secs_f64());
        assert!(tried < 150, "{what}: it waited for the crowd, {seconds} s");
        assert!(tried as f64 <= 2.0 + 8.0 * seconds, "{tried} in {seconds} s");
    }
    crowd.into_iter().for_each(|one| one.abort());
    server.stop();
}

#[test]
fn sql_over_tls_and_a_log_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_certificate(path, &authority());
    let key = issuer(path);
    assert!(user(&["add", "alice"], &path.join("data"), PASSWORD).status.success());
    std::fs::write(path.join("c.toml"), config(path, "")).unwrap();
    let mut command = serve(&path.join("data"));
    command.arg("--config").arg(path.join("c.toml")).env("RUST_LOG", "trace");
    let mut server = Process::spawn(command);

    let bearer = token(&key, 60);
    let sql = |user: Option<&str>, secret: (&str, &str), authority: bool| {
        let mut command = Command::new(binary());
        command.args(["sql", "--server", &server.http, "-e", "SHOW STREAMS;"]).stdin(Stdio::null());
        command.env_remove("MILLPOND_PASSWORD").env_remove("MILLPOND_TOKEN").env(secret.0, secret.1);
        command.args(user.map(|user| format!("--user={user}")));
        if authority {
            command.arg("--cacert").arg(path.join("ca.pem"));
        }
        command.output().unwrap()
    };
    let good = sql(Some("alice"), ("MILLPOND_PASSWORD", PASSWORD), true);
    assert!(good.status.success(), "{}", text(&good));
    let good = sql(None, ("MILLPOND_TOKEN", &bearer), true);
    assert!(good.status.success(), "{}", text(&good));
    let wrong = sql(Some("alice"), ("MILLPOND_PASSWORD", WRONG), true);
    assert!(!wrong.status.success() && text(&wrong).contains("Unauthorized"), "{}", text(&wrong));
    assert!(!text(&wrong).contains(WRONG));
    let nobody = sql(Some("alice"), ("NOTHING", ""), true);
    assert!(!nobody.status.success() && text(&nobody).contains("MILLPOND_PASSWORD"), "{}", text(&nobody));
    let disbelieved = sql(Some("alice"), ("MILLPOND_PASSWORD", PASSWORD), false);
    assert!(!disbelieved.status.success() && text(&disbelieved).contains("--cacert"), "{}", text(&disbelieved));

    // TLS on the listener of plain text.
    let mut stream = TcpStream::connect(server.kafka).unwrap();
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let closed = match std::io::Read::read(&mut stream, &mut [0; 10]) {
        Ok(read) => read == 0,
        Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(closed, "neither waited for nor answered");

    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("TLS on a listener of plain text"), "{log}");
    assert!(log.contains("authentication failed"), "{log}");
    let (basic, secret) = {
        use base64::Engine;
        let base64 = base64::engine::general_purpose::STANDARD;
        (base64.encode(format!("alice:{PASSWORD}")), base64.encode(format!("alice:{WRONG}")))
    };
    for secret in [PASSWORD, WRONG, &bearer, &basic, &secret, "PRIVATE KEY"] {
        assert!(!log.contains(secret), "a secret is in the log: {secret}");
    }
}

#[tokio::test]
async fn a_server_on_all_addresses_says_what_is_in_the_open_and_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(user(&["add", "alice"], &path.join("data"), PASSWORD).status.success());
    std::fs::write(path.join("c.toml"), "[http_security]\nauthentication = true\n").unwrap();
    let mut command = Command::new(binary());
    command.args(["serve", "--kafka", "127.0.0.1:0", "--http", "0.0.0.0:0", "--data"]).arg(path.join("data"));
    command.arg("--config").arg(path.join("c.toml")).env_remove("RUST_LOG");
    let mut server = Process::spawn(command);
    let port = server.http.rsplit(':').next().unwrap().to_owned();
    let sql = |host: &str| {
        let mut command = Command::new(binary());
        command.args(["sql", "--user", "alice", "-e", "SHOW STREAMS;", "--server", &format!("http://{host}:{port}")]);
        let output = command.env("MILLPOND_PASSWORD", PASSWORD).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = sql("0.0.0.0");
    assert!(warned.contains("the password crosses the network in plain text"), "{warned}");
    assert_eq!(sql("127.0.0.1"), "", "what does not leave the machine");

    let plain = builder(Trust::Nobody).unwrap().timeout(Duration::from_secs(20)).build().unwrap();
    let status = plain.get(format!("http://localhost:{port}/clusterStatus")).basic_auth("alice", Some(PASSWORD));
    let status: Json = status.send().await.unwrap().json().await.unwrap();
    let hosts: Vec<_> = status["clusterStatus"].as_object().unwrap().keys().collect();
    assert_eq!(hosts, [&format!("localhost:{port}")], "an address that the client can use");

    let mut tls = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    tls.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    tls.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(std::io::Read::read(&mut tls, &mut [0; 10]).unwrap_or(0), 0);

    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("TLS on a listener of plain text") && log.contains("listener=\"HTTP\""), "{log}");
    assert!(log.contains("passwords and tokens cross the network in plain text over HTTP"), "{log}");
}

/// Shows a certificate without a look at it.
#[derive(Debug)]
struct Shows(std::sync::Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn who_speaks_another_language_is_told_which() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let ca = authority();
    write_certificate(path, &ca);
    issuer(path);
    // A certificate of version 1: no more than its number is looked at.
    let key = KeyPair::generate().unwrap();
    let mut der = CertificateParams::new(vec!["alice".into()]).unwrap().signed_by(&key, &ca).unwrap().der().to_vec();
    let version = der.windows(5).position(|w| w == [0xa0, 3, 2, 1, 2]).unwrap();
    der[version + 4] = 0;
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    std::fs::write(path.join("old.pem"), pem).unwrap();
    std::fs::write(path.join("old.key"), key.serialize_pem()).unwrap();
    let file = |name: &str| path.join(name).display().to_string();
    let mutual = format!(
        "[[listener]]\nname = 'MUTUAL'\naddress = '127.0.0.1:0'\nprotocol = 'SSL'\nclient_auth = 'required'\n\
         certificate = '{}'\nkey = '{}'\nclient_ca = '{}'\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    std::fs::write(path.join("c.toml"), config(path, &mutual)).unwrap();
    let mut command = serve(&path.join("data"));
    command.arg("--config").arg(path.join("c.toml"));
    let mut server = Process::spawn(command);
    let mutual = server.lines().iter().find_map(|l| l.strip_prefix("kafka MUTUAL listening on ")).unwrap().to_owned();
    let https = server.http.clone();
    let http_port = https.trim_start_matches("https://").to_owned();

    // Whoever shows a certificate of version 1 is in the log; of several refused soon after another, only the first is.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let signer = provider.key_provider.load_private_key(key.serialize_der().try_into().unwrap()).unwrap();
    let shown = Shows(std::sync::Arc::new(rustls::sign::CertifiedKey::new(vec![der.into()], signer)));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_client_cert_resolver(std::sync::Arc::new(shown));
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(&mutual).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let refused = std::io::Read::read(&mut rustls::Stream::new(&mut tls, &mut socket), &mut [0; 8]);
    assert!(refused.is_err(), "{refused:?}");
    let said = |args: &[&str]| {
        let output = Command::new(binary()).args(args).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        text(&output)
    };
    let ends = |args: &[&str], end: &str| {
        let said = said(args);
        assert!(said.ends_with(&format!("{end}\n")), "{args:?} said {said}");
    };
    let (ca, old, old_key) = (file("ca.pem"), file("old.pem"), file("old.key"));
    ends(&["topic", "list", "-b", &mutual], "\": it speaks TLS; give --tls");
    ends(&["topic", "list", "-b", &http_port], "\": it speaks TLS; give --tls");
    ends(&["topic", "list", "-b", &mutual, "--cacert", &ca], "); does it want a certificate? see --cert and --key");
    let old = said(&["topic", "list", "-b", &mutual, "--cacert", &ca, "--cert", &old, "--key", &old_key]);
    assert!(old.contains("version 1") && old.contains("-extfile"), "{old}");
    let sql = |server: &str| said(&["sql", "--server", server, "-e", "SHOW STREAMS;"]);
    let plain = sql(&https.replace("https", "http"));
    assert!(plain.contains("its address begins with https://"), "{plain}");
    let strange = sql(&https);
    assert!(strange.contains("--cacert"), "{strange}");
    let kafka = sql(&format!("http://{}", server.kafka));
    assert!(kafka.contains("not the one for Kafka's clients"), "{kafka}");

    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("the client's certificate cannot be used: it is of X.509's version 1"), "{log}");
    let of_http = |l: &str| l.contains("connection closed: no TLS") && l.contains("listener=\"HTTP\"");
    let line = log.lines().find(|l| of_http(l)).expect("HTTP's side is in the log too");
    assert!(line.contains(" INFO ") && line.contains("remote=127.0.0.1:") && line.contains("reason=\""), "{line}");
}

#[tokio::test]
async fn certificates_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_certificate(path, &authority());
    issuer(path);
    let server = start(path);
    let url = format!("{}/healthcheck", server.http);
    let old = client(path);
    assert!(old.get(&url).send().await.unwrap().status().is_success());
    // Another authority's, so that it is seen which one is in use.
    write_certificate(path, &authority());
    server.signal(Signal::HUP);
    let until = Instant::now() + Duration::from_secs(60);
    // A client of its own each time: one that knows the server goes on with the old connection.
    while client(path).get(&url).send().await.is_err() {
        assert!(Instant::now() < until, "the old certificate stays in use");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop();
}

#[test]
fn bad_settings_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_certificate(path, &authority());
    issuer(path);
    let refused = |config: &str| {
        std::fs::write(path.join("c.toml"), config).unwrap();
        let mut command = serve(&path.join("data"));
        let output = command.arg("--config").arg(path.join("c.toml")).output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let listener = |rest: &str| refused(&format!("[[listener]]\naddress = '127.0.0.1:0'\n{rest}"));
    let cases = [
        (listener("protocol = 'TLS'"), "SASL_SSL"),
        (listener("protocol = 'SSL'"), "certificate and key"),
        (listener("protocol = 'SSL'\ncertificate = '/nowhere.pem'\nkey = '/nowhere.key'"), "/nowhere.pem"),
        (listener("protocol = 'PLAINTEXT'"), "same name"),
        (listener("protocol = 'SASL_PLAINTEXT'\nmechanisms = ['GSSAPI']"), "GSSAPI"),
        (listener("protocol = 'SASL_PLAINTEXT'\nmechanisms = ['OAUTHBEARER']"), "security.oauth"),
        (listener("protocol = 'SASL_PLAINTEXT'\nadvertised = 'nowhere'"), "HOST:PORT"),
        (listener("protocol = 'SASL_PLAINTEXT'\nadvertized = 'x:1'"), "advertized"),
        (refused("[security]\nsuper_users = ['admin']"), "User:alice"),
        (refused("[http_security]\ncertificate = 'x'"), "certificate and key"),
        (refused(&config(path, "").replace("jwks.json", "nothing.json")), "nothing.json"),
        (refused(&config(path, "").replace(&format!("{}/jwks.json", path.display()), "http://x/jwks")), "https"),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "no {expected:?} in: {said}");
    }
}

/// TLS in front of a server, as a proxy has it: decrypts, and passes on. Ends with its runtime.
struct TlsProxy {
    address: String,
    runtime: tokio::runtime::Runtime,
    to: std::sync::Arc<std::sync::OnceLock<std::net::SocketAddr>>,
}

impl TlsProxy {
    fn start(config: rustls::ServerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let to = std::sync::Arc::new(std::sync::OnceLock::<std::net::SocketAddr>::new());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let target = to.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to) = (acceptor.clone(), target.get().copied());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut server = tokio::net::TcpStream::connect(to.unwrap()).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
                });
            }
        });
        Self { address, runtime, to }
    }
}

/// A certificate for some names, in PEM form, and its key.
fn certificate(names: &[&str]) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn tls_and_a_clients_own_properties() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let ((server_cert, server_key), (client_cert, client_key)) =
        (certificate(&["127.0.0.1"]), certificate(&["client"]));
    let (ca, cert, key) = (file("ca.pem", &server_cert), file("cert.pem", &client_cert), file("key.pem", &client_key));
    let other = file("other.pem", &certificate(&["127.0.0.1"]).0);

    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut clients = rustls::RootCertStore::empty();
    clients.add(CertificateDer::from_pem_slice(client_cert.as_bytes()).unwrap()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(clients.into(), provider.clone()).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(server_cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(server_key.as_bytes()).unwrap(),
        )
        .unwrap();
    let proxy = TlsProxy::start(config);
    let settings = file("server.toml", &format!("kafka_advertised = \"{}\"\n", proxy.address));
    let mut serve = serve(&directory.path().join("data"));
    serve.args(["--config", &settings]);
    let server = Process::spawn(serve);
    proxy.to.set(server.kafka).unwrap();
    let run = |args: &[&str]| feed(command(&proxy.address, args), b"x\n");

    let flags = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    run(&[&["produce", "t"][..], &flags].concat()).ok();
    assert_eq!(run(&[&["consume", "t", "-e"][..], &flags].concat()).ok(), "x\n");
    run(&["topic", "list"]).fails(&["--tls"]);
    run(&["topic", "list", "--cacert", &other]).fails(&["--cacert"]);
    run(&["topic", "list", "--cacert", &ca]).fails(&["--cert"]);
    run(&["topic", "list", "--cacert", &ca, "--cert", &key, "--key", &key]).fails(&["key.pem", "no certificate"]);

    // As Kafka's own tools have them.
    let properties = format!(
        "bootstrap.servers={}\nsecurity.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={ca}\n\
         ssl.keystore.type=PEM\nssl.keystore.certificate.chain={}\nssl.keystore.key={}\nacks=all\n",
        proxy.address,
        client_cert.replace('\n', "\\n"),
        client_key.trim().replace('\n', " ")
    );
    let properties = file("client.properties", &properties);
    let list =
        feed(command("127.0.0.1:1", &["topic", "list", "--config", &properties, "--output", "json"]), b"").json();
    assert_eq!(list[0]["topic"], "t");

    // A certificate for another name is refused, unless the names are not to be checked.
    let by_name = proxy.address.replace("127.0.0.1", "localhost");
    feed(command(&by_name, &[&["topic", "list"][..], &flags].concat()), b"").fails(&["another name"]);
    server.stop();
    proxy.runtime.shutdown_background();
}

#[test]
fn users_log_in_to_a_server_that_asks() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_string()
    };
    let secret = "it's \\ a=\"secret\"";
    let added = feed(command("", &["user", "add", "anna", "--data", data.to_str().unwrap()]), secret.as_bytes());
    added.ok();
    let (cert, key) = certificate(&["127.0.0.1"]);
    let (cert, key) = (file("server.pem", &cert), file("server.key", &key));
    let settings = format!(
        "[[listener]]\naddress = '127.0.0.1:0'\nprotocol = 'SASL_SSL'\ncertificate = '{cert}'\nkey = '{key}'\n\
         [http_security]\nauthentication = false\n[security]\nfailed_authentication_delay_ms = 50\n"
    );
    let mut serve = serve(&data);
    serve.args(["--config", &file("server.toml", &settings)]);
    let mut server = Process::spawn(serve);
    let lines = server.lines().to_vec();
    let address = lines.iter().find_map(|l| l.strip_prefix("kafka SASL_SSL listening on ")).unwrap().to_string();
    let run = |mechanism: &str, password: &str, args: &[&str]| {
        let mut command = command(&address, args);
        command.args(["--cacert", &cert, "--user", "anna", "--sasl-mechanism", mechanism]);
        command.env("MILLPOND_PASSWORD", password);
        feed(command, b"x\n")
    };
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512", "plain"] {
        run(mechanism, secret, &["produce", "t"]).ok();
        run(mechanism, "wrong", &["topic", "list"]).fails(&["refuses the login", &mechanism.to_uppercase()]);
    }
    assert_eq!(run("SCRAM-SHA-512", secret, &["consume", "t", "-e"]).ok(), "x\nx\nx\n");
    run("OAUTHBEARER", secret, &["topic", "list"]).fails(&["MILLPOND_TOKEN"]);
    run("GSSAPI", secret, &["topic", "list"]).fails_as_wrong_use(&["GSSAPI", "SCRAM-SHA-512"]);
    let password = file("password", &format!("{secret}\n"));
    let args = ["topic", "list", "--cacert", &cert, "--user", "anna", "--password-file", &password];
    feed(command(&address, &args), b"").ok();
    let escaped = secret.replace('\\', "\\\\").replace('"', "\\\"");
    let jaas = format!(
        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"anna\" password=\"{escaped}\";"
    );
    let properties = format!(
        "bootstrap.servers={address}\nsecurity.protocol=SASL_SSL\nssl.truststore.type=PEM\nssl.truststore.location={cert}\n\
         sasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config={}\n",
        jaas.replace('\\', "\\\\")
    );
    let properties = file("client.properties", &properties);
    feed(command("127.0.0.1:1", &["topic", "describe", "t", "--config", &properties]), b"").ok();
    // Without a login, or without TLS, it says what is missing.
    feed(command(&address, &["topic", "list", "--cacert", &cert]), b"").fails(&["--user"]);
    feed(command(&address, &["topic", "list"]), b"").fails(&["--tls"]);
    // Failed logins are worth a warning in the server's log, which ends what it is asked to end.
    server.kill();
}

//! Clients of HTTP that are slow, silent or greedy, over raw sockets: each loses its place, and nobody else does.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::{command, feed};
use crate::process::{Answer, Process, client, serve};

/// Limits that a test can wait for.
const LIMITS: &str = "\
[limits]
http_connections_max = 8
http_connections_per_address_max = 6
http_headers_timeout_ms = 400
http_idle_timeout_ms = 6000
http_stall_timeout_ms = 700
http_inserts_silence_max_ms = 800
http_body_bytes_per_second_min = 1000
http_ping_interval_ms = 60000
http2_streams_max = 10
push_queries_max = 3
";

/// The same, but that nobody is let go for having nothing to do.
fn patient() -> String {
    LIMITS.replace("http_idle_timeout_ms = 6000", "http_idle_timeout_ms = 600000")
}

struct Fixture {
    server: Process,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        std::fs::write(&config, limits).unwrap();
        let mut command = serve(&directory.path().join("data"));
        command.arg("--config").arg(&config);
        let server = Process::spawn(command);
        let address = server.http.strip_prefix("http://").unwrap().parse().unwrap();
        Self { server, address, _directory: directory }
    }

    fn connect(&self, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.write_all(first).unwrap();
        stream
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

/// Sends these again and again until the server has closed; what it said, and how long that took.
fn until_closed(stream: &mut TcpStream, trickle: &[u8]) -> (String, Duration) {
    let begun = Instant::now();
    let mut said = Vec::new();
    while begun.elapsed() < Duration::from_secs(20) {
        // The server may be gone already.
        let _sent = stream.write(trickle);
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => return (String::from_utf8_lossy(&said).into_owned(), begun.elapsed()),
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return (String::from_utf8_lossy(&said).into_owned(), begun.elapsed()),
        }
    }
    panic!("the connection is still open; the server said {}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_loses_his_place() {
    let f = Fixture::with(&patient());
    // The head of a first request, byte by byte; that of a second one; the beginning of HTTP/2's.
    for first in [&b"GET /info HTTP/1.1\r\nx: "[..], &[get("/info").as_slice(), b"GET /"].concat()] {
        until_closed(&mut f.connect(first), b"a");
    }
    until_closed(&mut f.connect(b"PRI * HTT"), b"");
    // A body that stops, and one that trickles.
    for trickle in ["", " "] {
        let (said, after) = until_closed(&mut f.connect(&post("/ksql", 100_000)), trickle.as_bytes());
        assert!(said.starts_with("HTTP/1.1 408") && said.contains("40800"), "{said}");
        assert!(after >= Duration::from_millis(600), "{after:?}");
    }
    f.server.stop();
    // Nothing after an answer.
    let f = Fixture::new();
    let (said, after) = until_closed(&mut f.connect(&get("/info")), b"");
    assert!(said.starts_with("HTTP/1.1 200") && after >= Duration::from_secs(5), "{after:?} {said}");
    f.server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_rows_stays_and_who_takes_none_goes() {
    let f = Fixture::new();
    f.server
        .sql("CREATE STREAM S (K STRING KEY, V STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');")
        .await;
    let sql = json!({ "sql": "SELECT V FROM S EMIT CHANGES;" }).to_string();
    let request = [post("/query-stream", sql.len()), sql.into_bytes()].concat();
    let mut waiting = f.connect(&request);
    // Longer than everything that is limited.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let reading = std::thread::spawn(move || {
        let (mut said, until) = (0, Instant::now() + Duration::from_secs(90));
        while said < 1_000_000 {
            assert!(Instant::now() < until, "rows come to whoever waited for them");
            if let Ok(n) = waiting.read(&mut [0; 65536]) {
                assert!(n > 0, "closed after {said} bytes");
                said += n;
            }
        }
    });
    let inserts = format!("INSERT INTO S (K, V) VALUES ('k', '{}');", "x".repeat(100_000)).repeat(20);
    for _ in 0..10 {
        f.server.sql(&inserts).await;
    }
    reading.join().unwrap();

    // 20 MB that nobody takes, in HTTP/1.1.
    let sql = json!({ "sql": "SELECT V FROM S;" }).to_string();
    let request = [post("/query-stream", sql.len()), sql.into_bytes()].concat();
    let greedy = f.connect(&request);
    closed_without_reading(&f, greedy).await;

    // And in HTTP/2, whose client reads what comes but never opens its window.
    let mut greedy = f.connect(&http2_preface(0));
    let sql = json!({ "sql": "SELECT V FROM S;" }).to_string();
    greedy.write_all(&http2_post("/query-stream", 1, sql.as_bytes())).unwrap();
    until_closed(&mut greedy, b"");

    // While another stream waits for rows, only the one that is not taken ends.
    let mut both = f.connect(&http2_preface(0));
    both.write_all(&http2_post("/query-stream", 1, sql.as_bytes())).unwrap();
    let push = json!({ "sql": "SELECT V FROM S EMIT CHANGES;" }).to_string();
    let window = http2_frame(8, 0, 3, &1_000_000_u32.to_be_bytes());
    both.write_all(&[http2_post("/query-stream", 3, push.as_bytes()), window].concat()).unwrap();
    assert_eq!(until_frame(&mut both, 3), 1, "the stream that is not taken is reset");
    let window = http2_frame(8, 0, 5, &1_000_000_u32.to_be_bytes());
    both.write_all(&[http2_get("/info", 5), window].concat()).unwrap();
    assert_eq!(until_frame(&mut both, 0), 5, "the others go on");
    f.server.stop();
}

/// The stream of the next frame of a kind; panics where the connection ends before.
fn until_frame(stream: &mut TcpStream, kind: u8) -> u32 {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for _ in 0..1000 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let [a, b, c, of, _, number @ ..] = head;
        stream.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize]).unwrap();
        // What a query says before its first row comes in data of its own.
        let number = u32::from_be_bytes(number);
        if of == kind && !(kind == 0 && number == 3) {
            return number;
        }
    }
    panic!("no frame of kind {kind}");
}

/// Waits until the server has only the connection that asks it.
async fn closed_without_reading(f: &Fixture, stream: TcpStream) {
    let until = Instant::now() + Duration::from_secs(60);
    // What is there to be read is not read: whether it is closed shows in that writing fails.
    while (&stream).write_all(b"x").is_ok() {
        assert!(Instant::now() < until, "it is closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(f.server.get("/info").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_places() {
    // Nobody is let go for another reason.
    let f = Fixture::with(
        "[limits]\nhttp_connections_max = 8\nhttp_connections_per_address_max = 6\nhttp_headers_timeout_ms = 600000\n\
         [security]\nhandshake_timeout_ms = 600000\n",
    );
    let mut mine: Vec<TcpStream> = (0..6).map(|_| f.connect(&get("/info"))).collect();
    let (said, _) = until_closed(&mut f.connect(b""), b"");
    assert!(said.is_empty(), "{said}");
    // Somebody else, from another address of this machine.
    let other = reqwest_from([127, 0, 0, 2]);
    assert_eq!(Answer::of(other.get(format!("{}/info", f.server.http))).await.status, 200);
    mine.clear();
    let until = Instant::now() + Duration::from_secs(60);
    while client().get(format!("{}/info", f.server.http)).send().await.is_err() {
        assert!(Instant::now() < until, "places are given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    f.server.stop();
}

fn reqwest_from(address: [u8; 4]) -> reqwest::Client {
    millpond::http_client::builder(millpond::http_client::Trust::Nobody)
        .unwrap()
        .local_address(Some(address.into()))
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_streams_end_their_connection_alone() {
    let f = Fixture::new();
    // Opened and reset at once, without end.
    let mut flood = f.connect(&http2_preface(65_535));
    let mut frames = Vec::new();
    for stream in (1..2000_u32).step_by(2) {
        frames.extend(http2_get("/info", stream));
        frames.extend(http2_frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    // It may be closed in the middle.
    let _sent = flood.write_all(&frames);
    until_closed(&mut flood, &frames);
    // Headers without an end.
    let mut endless = f.connect(&http2_preface(65_535));
    endless.write_all(&http2_frame(1, 0, 1, &[0x82, 0x86, 0x84])).unwrap();
    let literal = [&[0x00, 0x01, b'a', 0x7f, 0x99, 0x74][..], &[b'x'; 15_000]].concat();
    until_closed(&mut endless, &http2_frame(9, 0, 1, &literal));
    // Pings keep nobody.
    let mut pinging = f.connect(&http2_preface(65_535));
    until_closed(&mut pinging, &http2_frame(6, 0, 0, b"12345678"));
    assert_eq!(f.server.get("/info").await.status, 200);
    f.server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn prints_count_as_push_queries() {
    let f = Fixture::new();
    f.server.sql("CREATE STREAM S (V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');").await;
    let print = || {
        let body = json!({ "ksql": "PRINT s;" }).to_string();
        client().post(format!("{}/query", f.server.http)).body(body)
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(print().send().await.unwrap().error_for_status().unwrap());
    }
    Answer::of(print()).await.error("statement_error", 40003);
    open.clear();
    let until = Instant::now() + Duration::from_secs(60);
    while !print().send().await.unwrap().status().is_success() {
        assert!(Instant::now() < until, "places are given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    f.server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_inserts_are_told_why_they_end() {
    let f = Fixture::new();
    f.server.sql("CREATE STREAM S (V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');").await;
    let lines = "{\"target\":\"S\"}\n{\"V\":1}\n{\"V\":";
    let mut stream = f.connect(
        format!("POST /inserts-stream HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\ncontent-length: 1000\r\n\r\n{lines}")
            .as_bytes(),
    );
    let (said, _) = until_closed(&mut stream, b"");
    assert!(said.contains("{\"status\":\"ok\",\"seq\":0}"), "{said}");
    assert!(said.contains("\"seq\":1") && said.contains("40800") && !said.contains("\"seq\":2"), "{said}");
    f.server.stop();
}

/// What a client of HTTP/2 begins with; `window` is what each stream may send.
fn http2_preface(window: u32) -> Vec<u8> {
    let settings = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), http2_frame(4, 0, 0, &settings)].concat()
}

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields without compression: method and scheme by their index, the path and the authority written out.
fn http2_head(method: u8, path: &str) -> Vec<u8> {
    let path = [&[0x04, path.len() as u8], path.as_bytes()].concat();
    [&[method, 0x86][..], &path, &[0x01, 1, b'x']].concat()
}

fn http2_get(path: &str, stream: u32) -> Vec<u8> {
    http2_frame(1, 0x5, stream, &http2_head(0x82, path))
}

fn http2_post(path: &str, stream: u32, body: &[u8]) -> Vec<u8> {
    [http2_frame(1, 0x4, stream, &http2_head(0x83, path)), http2_frame(0, 0x1, stream, body)].concat()
}

#[test]
fn idle_connections_do_not_take_the_files_that_storage_needs() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[limits]\nlog_file_bytes = 65536\nlog_files_open_max = 16\n").unwrap();
    let own = serve(&directory.path().join("data"));
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 300; exec \"$0\" \"$@\""]).arg(own.get_program()).args(own.get_args());
    limited.arg("--config").arg(&config).env_remove("RUST_LOG");
    let server = Process::spawn(limited);
    let mut produce = std::process::Command::new(crate::process::binary());
    produce.args(["produce", "t"]).env("MILLPOND_BOOTSTRAP", server.kafka.to_string());
    let mut produce = produce.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = produce.stdin.take().unwrap();
    // It is connected before the others.
    lines.write_all(b"connects\n").unwrap();
    let (mut client, until) =
        (crate::kafka::Client::connect(server.kafka).unwrap(), Instant::now() + Duration::from_secs(60));
    while !client.end_offset("t", 0).is_ok_and(|end| end == 1) {
        assert!(Instant::now() < until, "nothing is produced");
        std::thread::sleep(Duration::from_millis(20));
    }
    let idle: Vec<_> = (0..400).filter_map(|_| TcpStream::connect(server.kafka).ok()).collect();
    assert!(idle.len() > 100);
    std::thread::sleep(Duration::from_secs(1));
    // Each a batch of its own, which begins a log file.
    for i in 0..20 {
        writeln!(lines, "{i} {}", "x".repeat(200_000)).unwrap();
    }
    drop(lines);
    assert!(produce.wait().unwrap().success());
    drop(idle);
    let log = server.kill();
    assert!(log.contains("this process may open 300 files") && !log.contains("Too many open files"), "{log}");
}

#[test]
fn fewer_connections_than_were_asked_for_are_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[limits]\nhttp_connections_max = 1000000\n").unwrap();
    let own = serve(&directory.path().join("data"));
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 2000; exec \"$0\" \"$@\""]).arg(own.get_program()).args(own.get_args());
    limited.arg("--config").arg(&config).env_remove("RUST_LOG");
    let log = Process::spawn(limited).kill();
    let line = log.lines().find(|line| line.contains("may open 2000 files")).unwrap_or_else(|| panic!("{log}"));
    for part in [" WARN ", "LimitNOFILE", "\"http_connections_max\" = 1000000", "\"connections_max\" = 10000"] {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
}

/// The least of each setting with less of which nothing would work, and the most of those that were too large once.
const LEAST: &str = "\
[limits]
workers = 1
request_elements_max = 100
request_bytes_max = 1024
requests_bytes_max = 65536
answers_bytes_max = 65536
answer_bytes_max = 16384
fetch_answers_bytes_max = 0
group_members_bytes_max = 4096
group_offsets_bytes_max = 4096
transactions_bytes_max = 4096
pipelined_requests_max = 1
http_request_bytes_max = 1024
http_bodies_bytes_max = 65536
http_headers_bytes_max = 1024
http_ping_interval_ms = 1000
http_statements_max = 1
http_inserts_max = 1
http2_streams_max = 1
[broker]
group_consumer_session_timeout_ms = 100
group_consumer_heartbeat_interval_ms = 10
group_offsets_retention_ms = 60000
[security]
password_checks_max = 1
handshakes_max = 1
unauthenticated_request_bytes_max = 1024
";
const MOST: &str = "\
[limits]
workers = 1024
request_bytes_max = 2147483647
requests_bytes_max = 2147483647
http_headers_bytes_max = 16777216
http_ping_interval_ms = 32767000
http_idle_timeout_ms = 128849018820000
http_stall_timeout_ms = 128849018820000
http_requests_max = 1000000000
http2_streams_max = 1000000000
[broker]
log_retention_check_interval_ms = 128849018820000
group_offsets_retention_ms = 128849018820000
[security]
password_checks_max = 1000000000
tries_per_address_max = 1000000000
handshakes_max = 1000000000
session_max_ms = 128849018820000
[memory]
budget = 1125899906842624
";

#[test]
fn a_server_works_with_the_least_and_with_the_most_of_its_settings() {
    for settings in [LEAST, MOST] {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        std::fs::write(&config, settings).unwrap();
        let mut server = serve(&directory.path().join("data"));
        server.arg("--config").arg(&config);
        let server = Process::spawn(server);
        let bootstrap = server.kafka.to_string();
        let run = |args: &[&str], input: &str| feed(command(&bootstrap, args), input.as_bytes()).ok();
        run(&["topic", "create", "t", "-p", "2"], "");
        run(&["produce", "t"], "one\ntwo\n");
        for group in ["1", "2"] {
            let read = run(&["consume", "t", "-e", "-g", group], "");
            assert_eq!(read.lines().count(), 2, "{read}");
        }
        let create = "CREATE STREAM s (v STRING) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='DELIMITED'); \
                      SET 'auto.offset.reset'='earliest'; CREATE TABLE c AS SELECT v, COUNT(*) AS n FROM s GROUP BY v;";
        for statements in [create, "SHOW QUERIES;"] {
            let mut sql = std::process::Command::new(crate::process::binary());
            sql.args(["sql", "--server", &server.http, "-e", statements]);
            let ran = sql.output().unwrap();
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        }
        server.stop();
    }
}

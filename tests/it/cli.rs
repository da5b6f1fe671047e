//! `millpond topic|produce|consume|group|config` as commands against a running server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::process::{Process, binary};

/// A server, and its address for the commands.
pub struct Pond {
    pub server: Process,
    _directory: tempfile::TempDir,
}

/// Changes a byte in the midst of the only log file.
fn damage(data: &Path) {
    let [file] = &std::fs::read_dir(data.join("log")).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>()[..]
    else {
        panic!("not one log file")
    };
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn damage_is_told_with_the_way_on_behind_it() {
    let pond = Pond::start();
    pond.topic("t", 1);
    for part in 0..3 {
        let lines: String = (part * 20..part * 20 + 20).map(|i| format!("{i} {}\n", "x".repeat(2000))).collect();
        pond.feed(&["produce", "t", "--compression", "none"], lines.as_bytes()).ok();
    }
    let Pond { server, _directory } = pond;
    server.stop();
    damage(_directory.path());
    let pond = Pond { server: Process::start(_directory.path()), _directory };
    let told = "offsets 20 to 39 of partition 0 of topic \"t\" are damaged";
    for more in [&["-e"][..], &["--idle", "60"]] {
        let ran = pond.run(&[&["consume", "t", "-f", "%o\\n"], more].concat());
        assert_eq!(ran.out.lines().count(), 20, "what lies before it is printed");
        ran.fails(&[told, "--partition 0 --from 40"]);
    }
    let behind = pond.run(&["consume", "t", "-e", "--partition", "0", "--from", "40", "-f", "%o\\n"]).ok();
    assert_eq!(behind.lines().count(), 20);
    let way_on = "group reset-offsets g --topic t:0 --to-offset 40 --execute";
    pond.run(&["consume", "t", "-g", "g", "-e"]).fails(&[told, way_on]);
    pond.run(&way_on.split(' ').collect::<Vec<_>>()).ok();
    assert_eq!(pond.run(&["consume", "t", "-g", "g", "-e", "-f", "%o\\n"]).ok().lines().count(), 20);
    // A query that meets it says so in one line.
    let sql = |statements: &str| pond.run(&["sql", "--server", &pond.server.http, "-e", statements]).ok();
    sql("SET 'auto.offset.reset'='earliest'; \
         CREATE STREAM S (V STRING) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='KAFKA'); CREATE STREAM C AS SELECT * FROM S;");
    until("the query stops", || sql("SHOW QUERIES;").contains("ERROR").then_some(()));
    let log = pond.server.kill();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("query_id=") && line.contains("damaged")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("query stopped at an error") && lines[0].contains("partition 0, offset 20"),
        "{lines:#?}"
    );
}

pub struct Ran {
    pub status: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let ran = Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        ran
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    pub fn json(self) -> Json {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// It failed, with these words.
    #[track_caller]
    pub fn fails(self, parts: &[&str]) {
        self.ends(1, parts);
    }

    /// It cannot be done as it was typed.
    #[track_caller]
    pub fn fails_as_wrong_use(self, parts: &[&str]) {
        self.ends(2, parts);
    }

    #[track_caller]
    fn ends(self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in: {}", self.err);
        }
    }
}

pub fn command(bootstrap: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("MILLPOND_BOOTSTRAP", bootstrap).env_remove("MILLPOND_PASSWORD");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
pub fn feed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // The command may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran::of(output)
}

impl Pond {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { server: Process::start(directory.path()), _directory: directory }
    }

    /// With a file of settings.
    pub fn with(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("millpond.toml");
        std::fs::write(&file, settings).unwrap();
        let mut serve = crate::process::serve(&directory.path().join("data"));
        serve.arg("--config").arg(file);
        Self { server: Process::spawn(serve), _directory: directory }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        command(&self.server.kafka.to_string(), args)
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        feed(self.command(args), b"")
    }

    #[track_caller]
    fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        feed(self.command(args), input)
    }

    pub fn topic(&self, name: &str, partitions: i32) {
        self.run(&["topic", "create", name, "--partitions", &partitions.to_string()]).ok();
    }

    /// Sorted lines of a topic.
    #[track_caller]
    fn lines(&self, topic: &str, format: &str) -> Vec<String> {
        let out = self.run(&["consume", topic, "--until-end", "--format", format]).ok();
        let mut lines: Vec<String> = out.lines().map(str::to_string).collect();
        lines.sort();
        lines
    }

    pub fn stop(self) {
        self.server.stop();
    }
}

/// A child that is killed with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    #[track_caller]
    pub fn ended(&mut self) -> std::process::ExitStatus {
        until("the command ends", || self.0.try_wait().unwrap())
    }
}

#[track_caller]
fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: it does not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn topics_are_made_shown_changed_and_deleted() {
    let pond = Pond::start();
    pond.run(&["topic", "create", "a", "-p", "2", "--set", "retention.ms=5000"]).ok();
    pond.run(&["topic", "create", "a"]).fails(&["\"a\"", "TOPIC_ALREADY_EXISTS"]);
    pond.run(&["topic", "create", "a", "--if-not-exists"]).ok();
    pond.run(&["topic", "create", "b", "--set", "no.such=1"]).fails(&["INVALID_CONFIG", "no.such"]);
    pond.run(&["topic", "create", "a/b"]).fails(&["INVALID_TOPIC"]);
    let list = pond.run(&["topic", "list", "--output", "json"]).json();
    assert_eq!(list, json!([{"topic": "a", "partitions": 2, "replicas": 1}]));
    pond.feed(&["produce", "a", "--partition", "1"], b"x\ny\n").ok();
    pond.run(&[
        "topic",
        "alter",
        "a",
        "--partitions",
        "3",
        "--set",
        "cleanup.policy=compact,delete",
        "--unset",
        "retention.ms",
    ])
    .ok();
    pond.run(&["topic", "alter", "a", "--partitions", "1"]).fails(&["INVALID_PARTITIONS"]);
    pond.run(&["topic", "alter", "a"]).fails_as_wrong_use(&["--partitions", "--set"]);
    let shown = pond.run(&["topic", "describe", "a", "--output", "json"]).json();
    assert_eq!(shown["settings"], json!({"cleanup.policy": "compact,delete"}));
    assert_eq!(shown["partitions"][1]["end_offset"], 2);
    assert!(shown["partitions"][1]["bytes"].as_u64().unwrap() > 0, "{shown}");
    assert_eq!(shown["partitions"].as_array().unwrap().len(), 3);
    // Compaction may leave fewer records than offsets, which is what is known.
    let table = pond.run(&["topic", "describe", "a"]).ok();
    assert!(table.contains("3 partitions, 2 offsets") && table.contains("| OFFSETS |"), "{table}");
    assert!(!table.contains("record") && !table.contains("RECORD"), "{table}");
    pond.run(&["topic", "alter", "a", "--set", "cleanup.policy=delete"]).ok();
    let table = pond.run(&["topic", "describe", "a"]).ok();
    assert!(table.contains("3 partitions, 2 records") && table.contains("| RECORDS |"), "{table}");
    let all = pond.run(&["config", "describe", "topic", "a", "--all", "--output", "json"]).json();
    assert!(all.as_array().unwrap().iter().any(|s| s["name"] == "retention.ms" && s["source"] == "default"), "{all}");
    pond.run(&["config", "describe", "broker", "99"]).fails(&["no broker 99"]);

    pond.run(&["topic", "delete-records", "a", "--before", "1", "-p", "1", "--yes"]).ok();
    assert_eq!(pond.lines("a", "%p %o %s\\n"), ["1 1 y"]);
    for wrong in ["soon", "-1", ""] {
        let ran = pond.run(&["topic", "delete-records", "a", "--before", wrong, "--yes"]);
        ran.fails_as_wrong_use(&[wrong, "--before", "\"end\""]);
    }
    pond.run(&["topic", "delete-records", "a", "--before", "0", "-p", "7", "--yes"])
        .fails(&["no partition 7", "0 to 2"]);
    pond.run(&["topic", "delete", "a"]).fails(&["--yes"]);
    pond.run(&["topic", "delete", "A", "--yes"]).fails(&["no topic \"A\"", "did you mean \"a\""]);
    pond.run(&["topic", "delete", "a", "--yes"]).ok();
    pond.run(&["topic", "describe", "a"]).fails(&["no topic \"a\""]);
    pond.run(&["topic", "delete", "a", "--yes", "--if-exists"]).ok();
    pond.stop();
}

#[test]
fn what_is_produced_is_consumed() {
    let pond = Pond::start();
    pond.topic("t", 4);
    let input: String = (0..5000).map(|i| format!("k{}\tvalue {i}\n", i % 97)).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let ran = pond.feed(&["produce", "t", "-K", "\\t", "-z", codec, "-H", "codec=x"], input.as_bytes());
        assert!(ran.err.contains("5000 records"), "{codec}: {}", ran.err);
        ran.ok();
    }
    let expected: Vec<String> = {
        let mut lines: Vec<String> = input.lines().map(|l| format!("{l}\tcodec=x")).collect();
        lines.extend(std::iter::repeat_n(lines.clone(), 4).flatten().collect::<Vec<_>>());
        lines.sort();
        lines
    };
    assert_eq!(pond.lines("t", "%k\\t%s\\t%h\\n"), expected);
    // As Java's producer places them, in order within a partition.
    let mut at = std::collections::HashMap::new();
    let out = pond.run(&["consume", "t", "-e", "--format", "%p %k %s\\n"]).ok();
    for line in out.lines() {
        let mut words = line.split(' ');
        let (partition, key) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(*at.entry(key.to_string()).or_insert(partition.to_string()), partition, "{line}");
    }
    assert_eq!(at["k0"], "1", "where Java's producer puts \"k0\" among 4");
    let count = pond.run(&["consume", "t", "--count", "7", "--from", "-5"]).ok().lines().count();
    assert_eq!(count, 7);
    pond.stop();
}

#[test]
fn json_goes_both_ways() {
    let pond = Pond::start();
    pond.topic("j", 2);
    let input = concat!(
        r#"{"key": "a", "value": {"v": [1, null]}, "headers": {"h": "1", "n": null}, "timestamp": 1500, "partition": 1}"#,
        "\n",
        r#"{"key": null, "value": null, "partition": 1, "timestamp": 1600}"#,
        "\n",
        r#"{"key_base64": "/w==", "value": "line\nbreak", "headers": [{"key": "h", "value_base64": "/g=="}, {"key": "h"}], "partition": 1, "timestamp": 1700}"#,
        "\n"
    );
    pond.feed(&["produce", "j", "--format", "json"], input.as_bytes()).ok();
    let first = pond.run(&["consume", "j", "-e", "--format", "json"]).ok();
    pond.topic("k", 2);
    pond.feed(&["produce", "k", "--format", "json"], first.as_bytes()).ok();
    let second = pond.run(&["consume", "k", "-e", "--format", "json"]).ok();
    assert_eq!(second.replace("\"topic\":\"k\"", "\"topic\":\"j\""), first);
    let lines: Vec<Json> = first.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["value"], r#"{"v":[1,null]}"#);
    assert_eq!(lines[0]["headers"], json!([{"key": "h", "value": "1"}, {"key": "n", "value": null}]));
    assert_eq!((&lines[1]["key"], &lines[1]["value"]), (&Json::Null, &Json::Null));
    assert_eq!((&lines[2]["key_base64"], &lines[2]["value"]), (&json!("/w=="), &json!("line\nbreak")));
    assert_eq!(lines[2]["timestamp"], 1700);
    assert_eq!(
        pond.run(&["consume", "j", "-e", "--format", "hex", "--from", "2", "-p", "1"]).ok(),
        "ff 6c696e650a627265616b\n"
    );
    assert_eq!(pond.run(&["consume", "j", "-e", "--from", "1970-01-01T00:00:01.550Z", "-f", "%o\\n"]).ok(), "1\n2\n");

    for (wrong, parts) in [
        ("{", ["line 2 of standard input", "not JSON"]),
        ("[]", ["line 2", "not an object"]),
        (r#"{"valeu": 1}"#, ["line 2", "\"valeu\""]),
        (r#"{"value": "a", "value_base64": "YQ=="}"#, ["line 2", "both"]),
        (r#"{"key_base64": "?"}"#, ["line 2", "not base64"]),
        (r#"{"value": 1, "partition": 9}"#, ["line 2", "no partition 9"]),
        (r#"{"value": 1, "timestamp": "noon"}"#, ["line 2", "milliseconds"]),
    ] {
        let input = format!("{{\"value\": 1, \"partition\": 0}}\n{wrong}\n{{\"value\": 3}}\n");
        pond.feed(&["produce", "j", "--format", "json"], input.as_bytes()).fails(&parts);
    }
    pond.stop();
}

#[test]
fn failures_name_the_line_and_the_limit() {
    let pond = Pond::start();
    pond.topic("t", 1);
    pond.run(&["topic", "create", "small", "--set", "max.message.bytes=1000"]).ok();
    pond.run(&["topic", "create", "compact", "--set", "cleanup.policy=compact"]).ok();
    pond.feed(&["produce", "t", "-K", ":"], b"a:1\nb:2\nc\n").fails(&["line 3 of standard input", "\":\""]);
    let mut long = b"short\n".to_vec();
    long.extend(vec![b'x'; 5000]);
    pond.feed(&["produce", "t", "--record-bytes-max", "4096"], &long).fails(&["line 2", "4096", "--record-bytes-max"]);
    long.push(b'\n');
    pond.feed(&["produce", "small"], &long).fails(&["line 2", "MESSAGE_TOO_LARGE"]);
    assert_eq!(pond.lines("small", "%s\\n"), ["short"], "what came before the line is there");
    pond.feed(&["produce", "compact", "-K", ":", "--null", "-"], b"a:-\n-:b\n").fails(&["line 2", "INVALID_RECORD"]);
    // As large as a record may be, by default.
    let huge = vec![b'y'; 900_000];
    pond.feed(&["produce", "t"], &huge).ok();
    let out = pond.run(&["consume", "t", "--from", "-1", "-n", "1", "-f", "%S"]).ok();
    assert_eq!(out, "900000");

    pond.feed(&["produce", "t", "--partition", "5"], b"x\n").fails(&["no partition 5"]);
    pond.feed(&["produce", "t", "--compression", "rar"], b"x\n").fails_as_wrong_use(&["rar", "zstd"]);
    pond.feed(&["produce", "t", "/no/such/file"], b"").fails(&["/no/such/file"]);
    pond.run(&["consume", "tt"]).fails(&["no topic \"tt\"", "did you mean \"t\""]);
    pond.run(&["consume", "t", "--from", "100"]).fails(&["no offset 100", "0 to"]);
    pond.run(&["consume", "t", "--format", "xml"]).fails_as_wrong_use(&["xml", "hex"]);
    pond.run(&["consume", "t", "-p", "3"]).fails(&["no partition 3"]);
    pond.stop();
}

/// Before any broker is asked: there is none.
#[test]
fn wrong_use_has_a_status_of_its_own() {
    for (args, part) in [
        (&["consume", "t", "--no-such"][..], "--no-such"),
        (&["topic", "crate"], "create"),
        (&["consume", "t", "--from", "noon"], "beginning"),
        (&["produce", "t", "-z", "foo"], "zstd"),
        (&["produce", "t", "-K", ""], "--key-separator is empty"),
        (&["produce", "t", "-K", "\\q"], "--key-separator"),
        (&["produce", "t", "-K", ":", "-f", "json"], "--format text"),
        (&["produce", "t", "-f", "whole"], "names of files"),
        (&["consume", "t", "-f", "%q"], "%q"),
        (&["consume", "t", "-f", ""], "text, json, hex"),
        (&["consume", "t", "-K", ":", "-f", "%k"], "a pattern has %k"),
        (&["consume", "t", "-K", "\\q"], "--key-separator"),
        (&["acl", "add", "--principal", "bob", "--operation", "Read"], "--topic"),
        (&["acl", "add", "--topic", "t"], "--principal"),
        (&["acl", "add", "--principal", "bob", "--consumer", "--topic", "t"], "--group"),
        (&["acl", "list", "--consumer", "--cluster"], "a cluster"),
        (&["topic", "list", "-b", "localhost:"], "HOST:PORT"),
        (&["topic", "list", "-b", ","], "no address"),
        (&["topic", "alter", "t"], "--unset"),
        (&["topic", "delete-records", "t", "--before", "foo"], "foo"),
        (&["config", "alter", "topic", "t"], "--unset"),
        (&["config", "describe", "broker", "one"], "\"one\""),
        (&["topic", "list", "--sasl-mechanism", "GSSAPI"], "SCRAM-SHA-512"),
        (&["topic", "list", "--sasl-mechanism", "plain"], "--user NAME"),
        (&["user", "list", "--data", "X", "--bootstrap", "localhost:1"], "one or the other"),
    ] {
        feed(command("127.0.0.1:1", args), b"").fails_as_wrong_use(&[part]);
    }
    feed(command("nowhere:", &["topic", "list"]), b"").fails_as_wrong_use(&["MILLPOND_BOOTSTRAP", "HOST:PORT"]);
    // What is right but cannot be done is something else.
    feed(command("127.0.0.1:1", &["produce", "t", "-z", "zstd"]), b"").fails(&["connection refused"]);
}

#[test]
fn rights_that_nothing_asks_for_are_refused() {
    let pond = Pond::with("[security]\nauthorizer = true\nsuper_users = ['User:ANONYMOUS']\n");
    let acl = |words: &str| pond.run(&[&["acl"], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    for (wrong, there) in [
        ("-o ClusterAction --topic t", "ClusterAction means nothing on a topic; there are All, Read, Write"),
        ("-o Read -o Write --topic t --group g", "Write means nothing on a group; there are All, Read, Delete"),
        ("-o Read --cluster", "Read means nothing on a cluster"),
        ("-o Read --transactional-id x", "Read means nothing on a transactional-id; there are All, Write, Describe\n"),
    ] {
        acl(&format!("add --principal bob {wrong}")).fails_as_wrong_use(&[there]);
    }
    assert_eq!(acl("list --output json").json(), json!([]), "some of them were added");
    assert_eq!(acl("add --principal bob -o Read --topic t").ok(), "1 right is added\n");
    assert_eq!(acl("add --principal bob -o ClusterAction -o All --cluster").ok(), "2 rights are added\n");
    acl("remove --topic t").fails(&["take away this right: "]);
    acl("remove --principal bob").fails(&["take away these 3 rights: "]);
    assert_eq!(acl("remove --topic t --yes").ok().lines().last(), Some("1 right is taken away"));
    pond.stop();
}

#[test]
fn what_cannot_be_printed_is_said_to_be_standard_output() {
    let pond = Pond::start();
    pond.topic("t", 1);
    pond.feed(&["produce", "t"], b"one\n").ok();
    for args in [&["consume", "t", "-e"][..], &["consume", "t", "-e", "-f", "json"], &["topic", "list"]] {
        let mut command = pond.command(args);
        command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        feed(command, b"").fails(&["cannot write to standard output: No space left on device"]);
    }
    pond.stop();
}

#[test]
fn who_does_not_answer_as_a_broker_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = feed(command(&free, &["topic", "list"]), b"");
    refused.fails(&[&free, "connection refused", "millpond serve"]);
    feed(command("nowhere", &["topic", "list", "--bootstrap", "a:b"]), b"").fails_as_wrong_use(&[
        "--bootstrap",
        "a:b",
        "HOST:PORT",
    ]);
    let pond = Pond::start();
    let http = pond.server.http.trim_start_matches("http://").to_string();
    feed(command(&http, &["topic", "list"]), b"").fails(&[&http]);
    pond.run(&["topic", "list", "--tls"]).fails(&["TLS"]);
    pond.run(&["topic", "list", "--cacert", "/no/such.pem"]).fails(&["/no/such.pem"]);
    pond.run(&["topic", "list", "--user", "u"]).fails(&["MILLPOND_PASSWORD"]);
    let config = pond._directory.path().join("client.properties");
    std::fs::write(&config, "security.protocol=SSL\nssl.truststore.location=/t.jks\n").unwrap();
    pond.run(&["topic", "list", "--config", config.to_str().unwrap()]).fails(&["ssl.truststore", "PEM"]);
    pond.stop();

    // Answers that lie: a length, a count, silence, an end in the middle.
    let versions = |body: &[u8]| {
        let mut answer = ((body.len() + 4) as u32).to_be_bytes().to_vec();
        answer.extend(1u32.to_be_bytes());
        answer.extend(body);
        answer
    };
    let mut cut = versions(b"\0\0\x02\0\0");
    cut.truncate(6);
    for (answer, part) in [
        (b"\x7f\xff\xff\xff".to_vec(), "256 MiB"),
        (b"\x15\x03\x03\0\x02\x02\x28".to_vec(), "--tls"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "HTTP"),
        (versions(b"\0\0\xff\xff\xff\xff\x0f"), "ApiVersions"),
        (versions(b""), "ApiVersions"),
        (cut, "closed"),
        (
            Vec::new(),
            "closed it before it said anything; if it wants TLS, give --tls; else it may have as many connections",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            let mut body = vec![0; u32::from_be_bytes(request) as usize];
            stream.read_exact(&mut body).unwrap();
            let _ = stream.write_all(&answer);
        });
        feed(command(&address, &["topic", "list"]), b"").fails(&[&address, part]);
        server.join().unwrap();
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let ran = feed(command(&address, &["topic", "list", "--timeout", "0.3"]), b"");
    ran.fails(&[&address, "0.3 s"]);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let pond = Pond::start();
    pond.topic("t", 1);
    let input: String = (0..200_000).map(|i| format!("line number {i}\n")).collect();
    pond.feed(&["produce", "t", "--quiet"], input.as_bytes()).ok();
    for more in [&[][..], &["--until-end"]] {
        let mut child = Running(pond.command(&[&["consume", "t"], more].concat()).spawn().unwrap());
        let mut some = [0; 100];
        child.0.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
        drop(child.0.stdout.take());
        assert!(child.ended().success());
        let mut err = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(err, "");
    }
    pond.stop();
}

/// Reads what a child prints, line by line.
fn printed(child: &mut Running) -> std::sync::mpsc::Receiver<String> {
    let (sender, lines) = std::sync::mpsc::sync_channel(1000);
    let out = std::io::BufReader::new(child.0.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(out).map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

const WAIT: Duration = Duration::from_secs(90);

#[test]
fn groups_share_commit_and_are_reset() {
    let pond = Pond::start();
    pond.topic("t", 2);
    pond.run(&["group", "describe", "g"]).fails(&["no group \"g\"; there are no groups at all"]);
    let mut one = Running(pond.command(&["consume", "t", "--group", "g", "-f", "%p %s\\n"]).spawn().unwrap());
    let first = printed(&mut one);
    pond.feed(&["produce", "t", "-p", "0"], b"a\n").ok();
    pond.feed(&["produce", "t", "-p", "1"], b"b\n").ok();
    let mut got = [first.recv_timeout(WAIT).unwrap(), first.recv_timeout(WAIT).unwrap()];
    got.sort();
    assert_eq!(got, ["0 a", "1 b"]);

    // A second member takes one of the partitions.
    let mut two = Running(pond.command(&["consume", "t", "--group", "g", "-f", "%p %s\\n"]).spawn().unwrap());
    let second = printed(&mut two);
    let described = until("both have a partition", || {
        let shown = pond.run(&["group", "describe", "g", "--output", "json"]).json();
        let group = shown[0].clone();
        let shares: Vec<usize> =
            group["members"].as_array().unwrap().iter().map(|m| m["partitions"].as_array().unwrap().len()).collect();
        (group["state"] == "Stable" && shares == [1, 1]).then_some(group)
    });
    assert_eq!(described["type"], "classic");
    assert!(described["partitions"][0]["consumer_id"].is_string(), "{described}");
    pond.run(&["group", "reset-offsets", "g", "--topic", "t", "--to-earliest", "--execute"])
        .fails(&["Stable", "2 members"]);
    pond.run(&["group", "delete", "g", "--yes"]).fails(&["NON_EMPTY_GROUP"]);
    pond.feed(&["produce", "t", "-p", "0"], b"c\n").ok();
    pond.feed(&["produce", "t", "-p", "1"], b"d\n").ok();
    let (x, y) = (first.recv_timeout(WAIT).unwrap(), second.recv_timeout(WAIT).unwrap());
    let mut got = [x, y];
    got.sort();
    assert_eq!(got, ["0 c", "1 d"]);

    // Ctrl-C commits what was printed, and leaves.
    for child in [&mut one, &mut two] {
        child.signal(Signal::INT);
        assert!(child.ended().success());
    }
    let shown = pond.run(&["group", "describe", "g", "--output", "json"]).json();
    assert_eq!(shown[0]["state"], "Empty");
    let places: Vec<_> = shown[0]["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["current_offset"].clone(), p["lag"].clone()))
        .collect();
    assert_eq!(places, [(json!(2), json!(0)), (json!(2), json!(0))]);
    assert_eq!(pond.run(&["consume", "t", "--group", "g", "--until-end"]).ok(), "", "everything is read");

    let new = |args: &[&str]| {
        let all = [&["group", "reset-offsets", "g", "--output", "json"], args].concat();
        let rows = pond.run(&all).json();
        rows.as_array().unwrap().iter().map(|r| r["new_offset"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(new(&["--topic", "t", "--to-earliest"]), [0, 0]);
    let table = pond.run(&["group", "reset-offsets", "g", "--topic", "t", "--to-earliest"]);
    assert!(table.err.contains("nothing was changed"), "{}", table.err);
    let shown = pond.run(&["group", "describe", "g"]).ok();
    assert!(
        shown.contains("LOG-END-OFFSET") && shown.contains("| g     | t     |         0 |              2 |"),
        "{shown}"
    );
    assert_eq!(new(&["--topic", "t:1", "--shift-by", "-1", "--execute"]), [1]);
    assert_eq!(pond.run(&["consume", "t", "--group", "g", "--until-end"]).ok(), "d\n");
    assert_eq!(new(&["--all-topics", "--to-datetime", "1970-01-01", "--execute"]), [0, 0]);
    assert_eq!(new(&["--topic", "t:0", "--to-offset", "1", "--execute"]), [1]);
    assert_eq!(new(&["--topic", "t", "--by-duration", "PT1H"]), [0, 0]);
    assert_eq!(new(&["--topic", "t", "--to-latest"]), [2, 2]);
    assert_eq!(new(&["--topic", "t:0", "--to-offset", "99"]), [2], "as far as it goes");
    let out = pond.run(&["consume", "t", "--group", "g", "--until-end", "-f", "%p %s\\n"]).ok();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0 c", "1 b", "1 d"]);
    let list = pond.run(&["group", "list", "--output", "json"]).json();
    assert_eq!(list[0]["group"], "g");
    pond.run(&["group", "delete-offsets", "g", "--topic", "t", "--yes"]).ok();
    pond.run(&["group", "delete", "other", "--yes"]).fails(&["no group \"other\"", "shows the one there is"]);
    pond.run(&["group", "delete", "gg", "--yes"]).fails(&["no group \"gg\"", "did you mean \"g\""]);
    pond.run(&["group", "delete", "g", "--yes"]).ok();
    assert_eq!(pond.run(&["group", "list", "--output", "json"]).json(), json!([]));
    pond.stop();
}

#[test]
fn typed_lines_are_sent_and_shown_at_once() {
    let pond = Pond::start();
    pond.topic("t", 1);
    let mut consumer = Running(pond.command(&["consume", "t"]).spawn().unwrap());
    let lines = printed(&mut consumer);
    let mut producer = Running(pond.command(&["produce", "t"]).spawn().unwrap());
    let mut stdin = producer.0.stdin.take().unwrap();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        assert_eq!(lines.recv_timeout(WAIT).unwrap(), word);
    }
    drop(stdin);
    assert!(producer.ended().success());
    consumer.signal(Signal::TERM);
    assert!(consumer.ended().success());
    let idle = pond.run(&["consume", "t", "--from", "end", "--idle", "0.2"]).ok();
    assert_eq!(idle, "");
    pond.stop();
}

#[test]
fn a_broker_that_comes_back_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let address = server.kafka.to_string();
    feed(command(&address, &["topic", "create", "t"]), b"").ok();
    let mut producer = Running(command(&address, &["produce", "t"]).spawn().unwrap());
    let mut stdin = producer.0.stdin.take().unwrap();
    let lines = |from: u32| (from..from + 1000).map(|i| format!("{i}\n")).collect::<String>();
    stdin.write_all(lines(0).as_bytes()).unwrap();
    until("the first lines are there", || {
        let shown = feed(command(&address, &["topic", "describe", "t", "--output", "json"]), b"").json();
        (shown["partitions"][0]["end_offset"] == 1000).then_some(())
    });
    server.kill();
    stdin.write_all(lines(1000).as_bytes()).unwrap();
    let mut again = Command::new(binary());
    again.args(["serve", "--kafka", &address, "--http", "127.0.0.1:0", "--data"]).arg(directory.path());
    let server = Process::spawn(again);
    stdin.write_all(lines(2000).as_bytes()).unwrap();
    drop(stdin);
    assert!(producer.ended().success());
    let out = feed(command(&address, &["consume", "t", "--until-end"]), b"").ok();
    assert_eq!(out, lines(0) + &lines(1000) + &lines(2000), "each once, in order");
    server.stop();
}

/// Everything that docs/cli.md shows is run; what it prints is what stands there. UPDATE_EXPECT=1 writes it down.
#[test]
fn the_documents_examples_are_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let pond = Pond::start();
    let folder = Path::new(binary()).parent().unwrap().to_str().unwrap();
    let search = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let mut written = String::new();
    let mut inside = false;
    let mut count = 0;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        if let Some(example) = line.strip_prefix("$ ").filter(|_| inside) {
            let output = Command::new("sh")
                .args(["-c", &format!("({example}) 2>&1")])
                .env("MILLPOND_BOOTSTRAP", pond.server.kafka.to_string())
                .env("PATH", &search)
                .output()
                .unwrap();
            count += 1;
            assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stdout));
            written.push_str(&format!("{line}\n{}", crate::cli::constant(&String::from_utf8(output.stdout).unwrap())));
        } else if !inside || line.starts_with("```") {
            written.push_str(line);
            written.push('\n');
        }
    }
    pond.stop();
    assert!(count > 10, "{count} examples");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap();
    for (shown, found) in is.lines().zip(written.lines()) {
        assert_eq!(shown, found, "docs/cli.md is not true any more; UPDATE_EXPECT=1 writes it anew");
    }
    assert_eq!(is.lines().count(), written.lines().count());
}

/// What differs from run to run has a name instead.
fn constant(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        match line.split_once(", id ") {
            Some((before, _)) => out.push_str(&format!("{before}, id 7b6f...\n")),
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

#[test]
fn aborted_transactions_are_not_read() {
    let pond = Pond::start();
    pond.topic("t", 1);
    for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        crate::kafka::transaction(pond.server.kafka, "t", value, commit);
    }
    assert_eq!(pond.run(&["consume", "t", "-e", "--read-committed"]).ok(), "a\nc\n");
    assert_eq!(pond.run(&["consume", "t", "-e"]).ok(), "a\nb\nc\nd\n");
    pond.stop();
}

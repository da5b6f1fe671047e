//! `millpond serve` as a process of its own: started on free ports, asked over HTTP, stopped by signals.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

pub const DELIMITED: &str = "application/vnd.ksqlapi.delimited.v1";
pub const V1_JSON: &str = "application/vnd.ksql.v1+json";

/// A server of a test. Killed when it is dropped.
pub struct Process {
    child: Child,
    pub kafka: SocketAddr,
    pub http: String,
    /// From the start of the process to its last listener's line.
    pub ready_after: Duration,
    /// What it printed, listener lines included.
    lines: Vec<String>,
    rest: Receiver<String>,
    log: Option<JoinHandle<String>>,
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_millpond")
}

/// The command, with free ports and a data directory.
pub fn serve(data: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(data);
    command.env_remove("RUST_LOG");
    command
}

impl Process {
    pub fn start(data: &Path) -> Self {
        Self::spawn(serve(data))
    }

    pub fn spawn(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(stderr).read_to_string(&mut text);
            text
        });
        // Read on, so that the process is never stopped by a full pipe.
        let stdout = child.stdout.take().unwrap();
        let (sender, rest) = sync_channel(1000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let (mut kafka, mut http, mut lines) = (None, None, Vec::new());
        while kafka.is_none() || http.is_none() {
            let Ok(line) = rest.recv_timeout(Duration::from_secs(120)) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server did not get ready; it said {lines:?} and {}", log.join().unwrap());
            };
            if let Some(address) = line.strip_prefix("kafka listening on ") {
                kafka = Some(address.parse().unwrap());
            } else if let Some(url) = line.strip_prefix("http listening on ") {
                http = Some(url.to_string());
            }
            lines.push(line);
        }
        let ready_after = started.elapsed();
        Self { child, kafka: kafka.unwrap(), http: http.unwrap(), ready_after, lines, rest, log: Some(log) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the server did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; status 0, and nothing logged that somebody should act on. Returns the log.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        // Lines about rows are the processing log's: what a test feeds.
        let alarming = |l: &&str| (l.contains(" WARN ") && !l.contains("millpond::processing")) || l.contains("ERROR");
        let alarming: Vec<&str> = log.lines().filter(alarming).collect();
        assert!(alarming.is_empty(), "unexpected in the log: {alarming:#?}");
        log
    }

    /// SIGKILL, as a crash.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log()
    }

    /// All that was printed on stderr. Only after the end of the process.
    pub fn log(&mut self) -> String {
        self.log.take().map(|log| log.join().unwrap()).unwrap_or_default()
    }

    /// All lines on stdout so far. Complete only after the end of the process.
    pub fn lines(&mut self) -> &[String] {
        while let Ok(line) = self.rest.recv_timeout(Duration::from_millis(50)) {
            self.lines.push(line);
        }
        &self.lines
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Processor time that the process has taken, all threads together.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The command in parentheses may have blanks; of what follows the 12th and 13th are user and system, in hundredths.
        let (_, numbers) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = numbers.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub async fn post(&self, path: &str, body: &Json) -> Answer {
        Answer::of(client().post(format!("{}{path}", self.http)).body(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(client().get(format!("{}{path}", self.http))).await
    }

    /// Runs statements; they must succeed.
    pub async fn sql(&self, statements: &str) -> Json {
        self.sql_with(statements, &json!({ "auto.offset.reset": "earliest" })).await
    }

    pub async fn sql_with(&self, statements: &str, properties: &Json) -> Json {
        let answer = self.post("/ksql", &json!({ "ksql": statements, "streamsProperties": properties })).await;
        assert_eq!(answer.status, 200, "{statements}: {}", answer.text);
        answer.json()
    }

    /// The rows of a pull query.
    pub async fn pull(&self, select: &str) -> Vec<Json> {
        let request = client().post(format!("{}/query-stream", self.http)).header("accept", DELIMITED);
        let answer = Answer::of(request.body(json!({ "sql": select }).to_string())).await;
        assert_eq!(answer.status, 200, "{select}: {}", answer.text);
        let mut lines = answer.text.lines().map(|l| serde_json::from_str::<Json>(l).unwrap());
        let header = lines.next().unwrap();
        assert!(header["columnNames"].is_array(), "{header}");
        lines.inspect(|row| assert!(row.is_array(), "{select}: {row}")).collect()
    }

    /// Asks again until the rows, sorted, are these.
    pub async fn eventually(&self, select: &str, expected: &[Json]) {
        let mut expected = expected.to_vec();
        let by_text = |a: &Json, b: &Json| a.to_string().cmp(&b.to_string());
        expected.sort_by(by_text);
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let mut rows = self.pull(select).await;
            rows.sort_by(by_text);
            if rows == expected {
                return;
            }
            assert!(Instant::now() < until, "{select}\n  expected {expected:?}\n  have     {rows:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn plain() -> reqwest::ClientBuilder {
    millpond::http_client::builder(millpond::http_client::Trust::Nobody).unwrap()
}

pub fn client() -> reqwest::Client {
    plain().timeout(Duration::from_secs(300)).build().unwrap()
}

/// HTTP/2 from the first byte, without TLS.
pub fn client_http2() -> reqwest::Client {
    plain().timeout(Duration::from_secs(300)).http2_prior_knowledge().build().unwrap()
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").map_or("", |v| v.to_str().unwrap()).to_string();
        Self { status, content_type, text: response.text().await.unwrap() }
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Holds the shape of an error, and returns its message.
    #[track_caller]
    pub fn error(&self, kind: &str, code: u32) -> String {
        let body = self.json();
        assert_eq!(
            (body["@type"].as_str(), body["error_code"].as_u64()),
            (Some(kind), Some(u64::from(code))),
            "{body}"
        );
        assert_eq!(u32::from(self.status), code / 100, "{body}");
        body["message"].as_str().unwrap().to_string()
    }
}

/// A component built from source, which does nothing where it was built before.
pub fn guest(name: &str) -> Vec<u8> {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/guests/build.sh");
        let built = Command::new(script).arg("rust").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        PathBuf::from(String::from_utf8(built.stdout).unwrap().lines().last().unwrap())
    });
    std::fs::read(folder.join(format!("{name}.wasm"))).unwrap()
}

/// Random numbers that a seed repeats.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From MILLPOND_SEED, else from the clock; says which.
    pub fn seeded(what: &str) -> Self {
        let given = std::env::var("MILLPOND_SEED").ok().map(|s| s.parse().expect("MILLPOND_SEED is a number"));
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_000;
        let seed = given.unwrap_or_else(clock);
        println!("{what}: repeat with MILLPOND_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Numbers of their own for somebody else.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

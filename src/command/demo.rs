//! `millpond demo`: an access log to a live windowed table, with the statements shown, in one process.
//!
//! The lines come through the Kafka listener from whoever produces to the topic, or from a log file that is followed.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use millpond::config::Config;
use millpond::{Database, OwnedRecord};
use millpond_types::value::value_at;
use millpond_types::{SqlType, Value};
use tokio::signal::unix::{SignalKind, signal};

use super::serve::{Server, runtime};

const TOPIC: &str = "access-log";
const MODULE: &str = "classify";

/// What the demo types; it is shown as it is run.
const STATEMENTS: [&str; 3] = [
    "CREATE STREAM access_log (line STRING)
  WITH (KAFKA_TOPIC='access-log', VALUE_FORMAT='KAFKA', PARTITIONS=2);",
    r#"CREATE STREAM requests WITH (VALUE_FORMAT='JSON', TIMESTAMP='at') AS
  SELECT PARSE_TIMESTAMP(REGEXP_EXTRACT('\[([^\]]+)\]', line, 1), 'dd/MMM/yyyy:HH:mm:ss Z') AS at,
         CAST(REGEXP_EXTRACT('" (\d{3}) ', line, 1) AS INT)                  AS status,
         CAST(REGEXP_EXTRACT('" \d{3} (\d+)', line, 1) AS BIGINT)            AS bytes,
         URL_SECTION(REGEXP_EXTRACT('"[A-Z]+ (\S+)', line, 1))               AS section,
         CLASSIFY_AGENT(REGEXP_EXTRACT('"([^"]*)"$', line, 1))               AS client
  FROM access_log
  EMIT CHANGES;"#,
    "CREATE TABLE requests_per_client AS
  SELECT client, COUNT(*) AS requests, SUM(bytes) AS bytes,
         SUM(CASE WHEN status >= 400 THEN 1 ELSE 0 END) AS errors
  FROM requests
  WINDOW TUMBLING (SIZE 10 SECONDS)
  GROUP BY client
  EMIT CHANGES;",
];

const TABLE_QUERY: &str = "SELECT client, requests, bytes, errors, WINDOWSTART FROM requests_per_client;";

#[derive(Args)]
pub struct DemoArgs {
    /// Data directory [default: a new one in the system's folder for temporary files, removed at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where Kafka clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Where ksqlDB clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8088")]
    http: String,
    /// The WebAssembly component that sorts user agents; examples/guests/build.sh builds it
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// Follow this access log; without it the lines come from Kafka clients that produce to the topic "access-log"
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Draw the table for so many seconds, then leave the server up
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
    /// End after drawing instead of leaving the server up
    #[arg(long)]
    exit: bool,
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    // Whoever started this may not read what it says.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    super::serve::start_log_quietly();
    let temporary = match &args.data {
        Some(_) => None,
        None => Some(Temporary::new()?),
    };
    let data = args.data.clone().or_else(|| temporary.as_ref().map(|t| t.0.clone())).context("no data directory")?;
    let guest = match &args.guest {
        Some(path) => path.clone(),
        None => guest_default()
            .context("where is the component? give it with --guest; examples/guests/build.sh builds it")?,
    };
    let component = std::fs::read(&guest)
        .with_context(|| format!("cannot read \"{}\"; examples/guests/build.sh builds it", guest.display()))?;
    let config = Config {
        data: Some(data),
        kafka: Some(args.kafka.clone()),
        http: Some(args.http.clone()),
        ..Config::default()
    };
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::start(&config).await?;
        say(&format!(
            "Millpond is up: Kafka on {}, HTTP on http://{}\n",
            server.kafka_address(),
            server.http_address()
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let work = {
            let (database, args_log, stop) = (server.database.clone(), args.log.clone(), stop.clone());
            let seconds = Duration::from_secs(args.seconds);
            tokio::task::spawn_blocking(move || story(&database, &component, args_log.as_deref(), seconds, &stop))
        };
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(told);
        tokio::pin!(work);
        let interrupted = tokio::select! {
            () = &mut told => true,
            done = &mut work => {
                done??;
                false
            }
        };
        if interrupted {
            stop.store(true, Ordering::Relaxed);
            work.await??;
        } else if !args.exit {
            say(&format!(
                "\nThe server stays up until Ctrl-C. In another terminal:\n\
                 \x20 millpond sql --server http://{http}\n\
                 \x20   SELECT client, requests FROM requests_per_client EMIT CHANGES;\n\
                 \x20   SELECT client, SUM(requests) FROM requests_per_client GROUP BY client;\n\
                 \x20 kcat -b {kafka} -C -t REQUESTS -o end\n\
                 \x20 curl -T your-component.wasm http://{http}/udfs/yours",
                http = server.http_address(),
                kafka = server.kafka_address()
            ));
            told.await;
        }
        stop.store(true, Ordering::Relaxed);
        server.stop().await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn guest_default() -> Option<PathBuf> {
    let folder = std::env::var_os("MILLPOND_GUESTS")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/millpond/guests")))?;
    Some(folder.join("classify.wasm"))
}

fn story(
    database: &Database,
    component: &[u8],
    log: Option<&Path>,
    seconds: Duration,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    say(&format!("PUT /udfs/{MODULE}   ({} bytes of WebAssembly)", component.len()));
    let entry = database.register_module(MODULE, component)?;
    for function in &entry.report.functions {
        say(&format!("  {function}"));
    }
    let known = database.engine().catalog();
    for statement in STATEMENTS {
        say(&format!("\n{statement}"));
        // A second demo in the same directory goes on with what is there.
        let name = statement.split_whitespace().nth(2).unwrap_or_default().to_uppercase();
        if !known.sources.contains_key(&name) {
            let mut session = millpond::Session::new();
            session.set("auto.offset.reset", "earliest");
            database.execute_in(statement, &mut session)?;
        }
    }
    let feeder = log.map(|path| follow(database.clone(), path.to_path_buf(), stop.clone())).transpose()?;
    draw(database, seconds, stop)?;
    if let Some(feeder) = feeder {
        stop.store(true, Ordering::Relaxed);
        match feeder.join() {
            Ok(result) => result?,
            Err(_) => bail!("the reader of the log failed"),
        }
    }
    Ok(())
}

/// Lines sent in one commit at most.
const LINES_MAX: usize = 500;

/// Sends a growing file's lines to the topic, as `tail -f` would give them.
fn follow(database: Database, path: PathBuf, stop: Arc<AtomicBool>) -> Result<std::thread::JoinHandle<Result<()>>> {
    let file = File::open(&path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let thread = std::thread::Builder::new().name("demo-log".into()).spawn(move || {
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        let mut records = Vec::new();
        loop {
            let read = reader.read_line(&mut line)?;
            if line.ends_with('\n') {
                let value = Some(line.trim_end().as_bytes().to_vec());
                records.push(OwnedRecord { value, timestamp: now_ms(), ..OwnedRecord::default() });
                line.clear();
            }
            if !records.is_empty() && (read == 0 || records.len() >= LINES_MAX) {
                database.produce(TOPIC, &records)?;
                records.clear();
            }
            if read == 0 {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                pause(Duration::from_millis(100));
            }
        }
    })?;
    Ok(thread)
}

fn now_ms() -> i64 {
    millpond_types::Clock::now_ms(&millpond_types::SystemClock)
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own that paces itself")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Draws the table a few times a second while it grows.
fn draw(database: &Database, seconds: Duration, stop: &AtomicBool) -> Result<()> {
    let live = std::io::stdout().is_terminal();
    let end = now_ms().saturating_add(seconds.as_millis() as i64);
    let mut lines = 0;
    let mut last = String::new();
    say("");
    while now_ms() < end && !stop.load(Ordering::Relaxed) {
        pause(Duration::from_millis(250));
        let text = table(database)?;
        if text == last {
            continue;
        }
        if live {
            if lines > 0 {
                say(&format!("\x1b[{lines}A\x1b[J\x1b[1A"));
            }
            say(&text);
            lines = text.lines().count();
        }
        last = text;
    }
    if !live {
        say(&last);
    }
    Ok(())
}

/// Windows that are shown.
const WINDOWS_SHOWN: usize = 3;

fn table(database: &Database) -> Result<String> {
    let rows = database.query(TABLE_QUERY)?;
    let mut found: Vec<(i64, Vec<String>)> = Vec::new();
    for batch in &rows.batches {
        for row in 0..batch.num_rows() {
            let cell = |i: usize| {
                let ty = rows.schema.columns.get(i).map_or(&SqlType::String, |c| &c.ty);
                value_at(batch.column(i), ty, row)
            };
            let text = |v: Value| millpond_formats::value_text(&v).unwrap_or_else(|| "null".into());
            let start = cell(4).as_i64().unwrap_or(0);
            found.push((start, (0..4).map(|i| text(cell(i))).collect()));
        }
    }
    found.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    let mut windows: Vec<i64> = found.iter().map(|(start, _)| *start).collect();
    windows.dedup();
    let oldest = windows.get(WINDOWS_SHOWN - 1).copied().unwrap_or(i64::MIN);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["window (UTC)", "client", "requests", "bytes", "errors"]);
    for (start, cells) in found.iter().filter(|(start, _)| *start >= oldest) {
        let mut time = Vec::new();
        millpond_formats::text::write_timestamp(&mut time, *start);
        let time = String::from_utf8_lossy(&time).into_owned();
        let clock = time.get(11..19).unwrap_or(&time).to_string();
        table.add_row(std::iter::once(clock).chain(cells.iter().cloned()));
    }
    Ok(table.to_string())
}

/// A folder that goes with the demo.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("millpond-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create \"{}\"", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is in the folder for temporary files: if it cannot be removed now, it will be.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! `millpond produce`: lines, JSON or whole files become records of a topic.

mod input;

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use millpond_broker::batch::Codec;
use tokio::sync::mpsc;

use super::connect::{Connect, seconds};
use super::progress::{At, INTERRUPTED, Progress, wipe};
use super::report::{counted, note, size};
use super::usage::usage;
use crate::kafka::producer::{Counts, Line, Plan, Producer};
use input::{Done, Reader};

/// Chunks that were read and wait to be sent; each is small (`input::CHUNK_BYTES`) or one large record.
const CHUNKS_WAITING_MAX: usize = 16;

const EXAMPLES: &str = "Examples:
  echo 'hello' | millpond produce greetings
  millpond produce orders --key-separator : --compression zstd orders.txt
  echo '{\"key\": \"a\", \"value\": {\"v\": 1}, \"headers\": {\"h\": \"x\"}}' | millpond produce s --format json
  millpond produce images --format whole *.jpg

Exit status: 0 everything is acknowledged, 1 something failed (the message names the line), 2 wrong use, 130 interrupted.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ProduceArgs {
    /// The topic; created where the broker does so
    topic: String,
    /// Where records come from [default: standard input]
    files: Vec<PathBuf>,
    /// How the input is cut into records
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Format::Text)]
    format: Format,
    /// What stands between key and value in each line; \t and \n are understood
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Keys and values that are this text are NULL
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// A header for all records; can be repeated
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = super::config::set_pair)]
    header: Vec<(String, String)>,
    /// The partition of all records [default: by the key as Java's producer does, else by turns]
    #[arg(short, long, value_name = "N")]
    partition: Option<i32>,
    /// The time of all records, in milliseconds [default: now]
    #[arg(long, value_name = "MS")]
    timestamp: Option<i64>,
    /// Who must have a record before it counts: 0 nobody, 1 the leader, all [default: all]
    #[arg(long, value_name = "0|1|all", value_parser = ["0", "1", "all", "-1"], allow_hyphen_values = true)]
    acks: Option<String>,
    /// none, gzip, snappy, lz4 or zstd [default: none]
    #[arg(short = 'z', long, value_name = "CODEC", value_parser = codec_of)]
    compression: Option<Codec>,
    /// Do not let the broker recognise batches that are sent twice
    #[arg(long)]
    no_idempotence: bool,
    /// How long records wait for more of them, in milliseconds [default: 5]
    #[arg(long, value_name = "MS")]
    linger_ms: Option<u64>,
    /// How long one batch is tried
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "120")]
    delivery_timeout: Duration,
    /// The longest line, or the largest file
    #[arg(long, value_name = "BYTES", default_value_t = input::RECORD_BYTES_MAX)]
    record_bytes_max: usize,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Each line is a value, or key and value
    Text,
    /// Each line is an object with value, key, headers, timestamp, partition; value_base64 and key_base64 hold bytes
    Json,
    /// Each file is a value
    Whole,
}

fn codec_of(name: &str) -> Result<Codec, String> {
    Codec::by_name(name)
        .ok_or_else(|| format!("compression \"{name}\" is not known; there are none, gzip, snappy, lz4 and zstd"))
}

pub async fn run(args: ProduceArgs) -> Result<ExitCode> {
    let properties = args.connect.properties()?;
    let acks = match args.acks.as_deref().or(properties.get("acks")).unwrap_or("all") {
        "0" => 0,
        "1" => 1,
        "all" | "-1" => -1,
        other => bail!("acks \"{other}\" is not known; there are 0, 1 and all"),
    };
    let codec = match (args.compression, properties.get("compression.type")) {
        (Some(codec), _) => codec,
        (None, Some(name)) => codec_of(name).map_err(|why| anyhow::anyhow!("compression.type: {why}"))?,
        (None, None) => Codec::None,
    };
    let linger = match (args.linger_ms, properties.get("linger.ms")) {
        (Some(ms), _) => ms,
        (None, Some(text)) => text.parse().context("linger.ms is not a number")?,
        (None, None) => 5,
    };
    if args.key_separator.is_some() && args.format != Format::Text {
        return Err(usage("--key-separator is for --format text; JSON has a \"key\""));
    }
    if args.format == Format::Whole && args.files.is_empty() {
        return Err(usage("--format whole needs the names of files"));
    }
    let reader = Reader::new(&args)?;
    let typed = args.files.is_empty() && std::io::stdin().is_terminal();
    if typed && !args.quiet {
        note("each line that you type becomes a record; Ctrl-D ends");
    }
    let client = args.connect.client_of(&properties)?;
    let plan = Plan {
        topic: args.topic.clone(),
        acks,
        idempotent: acks == -1 && !args.no_idempotence && properties.get("enable.idempotence") != Some("false"),
        codec,
        linger: Duration::from_millis(linger),
        delivery: args.delivery_timeout,
        partition: args.partition,
        now_ms,
        tell: note,
    };
    let mut producer = Producer::new(client, plan).await.map_err(|f| anyhow::anyhow!("{f}"))?;
    let (names, done) = (reader.names(), reader.done());

    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let reading = {
        let stop = stop.clone();
        std::thread::Builder::new().name("produce-input".into()).spawn(move || reader.read(&stop, &sender))?
    };
    // Who types knows how far it is.
    let progress = Progress::new(!args.quiet && !typed, "records");
    let latest = Cell::new(Counts::default());
    let show = || progress.show(&at(&latest.get(), &done));
    let outcome = {
        let work = producer.run(receiver, |counts| {
            latest.set(*counts);
            show();
        });
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => break Some(outcome),
                // Also while the broker does not answer.
                () = progress.tick() => show(),
                _ = tokio::signal::ctrl_c() => break None,
            }
        }
    };
    stop.store(true, Ordering::Relaxed);
    wipe();
    let counts = producer.counts;
    let summary = format!(
        "{}, {} in {:.1} s{}",
        counted(counts.records, "record"),
        size(counts.bytes),
        progress.seconds(),
        if counts.retries == 0 { String::new() } else { format!(", {} batches sent again", counts.retries) }
    );
    let are = if counts.records == 1 { "is" } else { "are" };
    match outcome {
        None => {
            note(&format!("millpond: interrupted; {summary} {are} acknowledged"));
            Ok(ExitCode::from(INTERRUPTED))
        }
        Some(Err(failure)) => {
            let place = failure.lines.map(|lines| format!("{}: ", place(&names, lines))).unwrap_or_default();
            if counts.records > 0 {
                note(&format!("millpond: {summary} {are} acknowledged"));
            }
            bail!("{place}{failure}")
        }
        Some(Ok(())) => {
            // The input has ended, since everything was sent.
            if let Ok(Err(error)) = reading.join() {
                if counts.records > 0 {
                    note(&format!("millpond: {summary} {are} acknowledged"));
                }
                return Err(error);
            }
            if !args.quiet {
                note(&summary);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// How much of the input is acknowledged: of what was read, the same share in bytes as in records.
fn at(counts: &Counts, done: &Done) -> At {
    let (records, bytes) = (done.records.load(Ordering::Relaxed), done.bytes.load(Ordering::Relaxed));
    let share = done.whole.filter(|_| records > 0).map(|whole| {
        let acknowledged = bytes as f64 * (counts.records as f64 / records as f64);
        (acknowledged as u64, whole)
    });
    At { count: counts.records, bytes: Some(counts.bytes), share }
}

fn now_ms() -> i64 {
    millpond_types::Clock::now_ms(&millpond_types::SystemClock)
}

/// Lines as an editor finds them.
fn place(names: &[String], (first, last): (Line, Line)) -> String {
    let name = |line: Line| names.get(line.source as usize).map_or("standard input", String::as_str);
    if first == last {
        format!("line {} of {}", first.number, name(first))
    } else if first.source == last.source {
        format!("lines {} to {} of {}", first.number, last.number, name(first))
    } else {
        format!("line {} of {} to line {} of {}", first.number, name(first), last.number, name(last))
    }
}

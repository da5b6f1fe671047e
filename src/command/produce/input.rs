//! Reads the input on a thread of its own and cuts it into records.
//!
//! Invariants: no more than one record beyond `CHUNK_BYTES` is held here; what is already there is passed on without
//! waiting for more, so that a line that is typed is sent.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use millpond_types::record::{Header, encode_headers};
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc::Sender;

use super::{Format, ProduceArgs};
use crate::command::consume::format::unescape;
use crate::command::usage::usage;
use crate::kafka::producer::{Item, Line};

pub const RECORD_BYTES_MAX: usize = 64 << 20;
pub const CHUNK_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 256 << 10;
/// What else the JSON of `millpond consume` says, so that it can be produced again.
const IGNORED: [&str; 2] = ["topic", "offset"];

/// What was read, and what there is where that is known.
#[derive(Default)]
pub struct Done {
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub whole: Option<u64>,
}

impl Done {
    fn add(&self, records: usize, bytes: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What is left of standard input, where it is a file.
fn rest_of_input() -> Option<u64> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(found.len().saturating_sub(file.stream_position().ok()?))
}

pub struct Reader {
    /// None: standard input.
    files: Vec<PathBuf>,
    format: Format,
    key_separator: Option<Vec<u8>>,
    null: Option<String>,
    headers: Vec<Header>,
    timestamp: Option<i64>,
    record_bytes_max: usize,
    done: Arc<Done>,
}

type Chunks = Sender<Vec<(Item, Line)>>;

impl Reader {
    pub fn new(args: &ProduceArgs) -> Result<Self> {
        let key_separator = args.key_separator.as_deref().map(unescape).transpose();
        let key_separator = key_separator.map_err(|e| usage(format!("--key-separator: {e:#}")))?;
        if key_separator.as_ref().is_some_and(Vec::is_empty) {
            return Err(usage("--key-separator is empty"));
        }
        let header =
            |(name, value): &(String, String)| Header { key: name.clone(), value: Some(value.clone().into_bytes()) };
        let mut whole = if args.files.is_empty() { rest_of_input() } else { Some(0) };
        for file in &args.files {
            // Before anything is sent.
            let found = std::fs::metadata(file).with_context(|| format!("cannot read \"{}\"", file.display()))?;
            if found.is_dir() {
                bail!("\"{}\" is a folder", file.display());
            }
            // Nobody knows how much comes from a pipe.
            whole = whole.filter(|_| found.is_file()).map(|whole| whole + found.len());
        }
        Ok(Self {
            files: args.files.clone(),
            format: args.format,
            key_separator,
            null: args.null.clone(),
            headers: args.header.iter().map(header).collect(),
            timestamp: args.timestamp,
            record_bytes_max: args.record_bytes_max,
            done: Arc::new(Done { whole, ..Done::default() }),
        })
    }

    pub fn done(&self) -> Arc<Done> {
        self.done.clone()
    }

    /// How each source is called in messages.
    pub fn names(&self) -> Vec<String> {
        match self.files.as_slice() {
            [] => vec!["standard input".to_string()],
            files => files.iter().map(|f| format!("\"{}\"", f.display())).collect(),
        }
    }

    /// Reads everything. Ends early where nobody takes it any more.
    pub fn read(&self, stop: &AtomicBool, chunks: &Chunks) -> Result<()> {
        let names = self.names();
        if self.files.is_empty() {
            return self.lines(io::stdin().lock(), 0, "standard input", stop, chunks);
        }
        for ((source, path), name) in (0..).zip(&self.files).zip(&names) {
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            if self.format != Format::Whole {
                self.lines(file, source, name, stop, chunks)?;
                continue;
            }
            let mut bytes = Vec::new();
            let limit = self.record_bytes_max;
            file.take(limit as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
            if bytes.len() > limit {
                bail!("{name} is larger than {limit} bytes; see --record-bytes-max");
            }
            self.done.add(1, bytes.len());
            let item = Item { value: Some(bytes), ..self.common() };
            if stop.load(Ordering::Relaxed) || chunks.blocking_send(vec![(item, Line { source, number: 1 })]).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn lines(&self, from: impl Read, source: u32, name: &str, stop: &AtomicBool, chunks: &Chunks) -> Result<()> {
        let mut reader = BufReader::with_capacity(READ_BYTES, from);
        let mut chunk = Vec::new();
        let mut held = 0;
        let mut line = Vec::new();
        for number in 1.. {
            let more = self.line(&mut reader, &mut line).with_context(|| format!("line {number} of {name}"));
            let parsed = more.and_then(|more| {
                let place = || format!("line {number} of {name}");
                if more { self.item(&line).map(Some).with_context(place) } else { Ok(None) }
            });
            // What came before a wrong line is sent all the same.
            let (item, wrong) = match parsed {
                Ok(item) => (item, None),
                Err(error) => (None, Some(error)),
            };
            let ended = item.is_none();
            if let Some(item) = item {
                held += line.len() + 1;
                chunk.push((item, Line { source, number }));
            }
            let full = held >= CHUNK_BYTES || !reader.buffer().contains(&b'\n');
            if (ended || full) && !chunk.is_empty() {
                self.done.add(chunk.len(), std::mem::take(&mut held));
                if stop.load(Ordering::Relaxed) || chunks.blocking_send(std::mem::take(&mut chunk)).is_err() {
                    return Ok(());
                }
            }
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
            if ended {
                break;
            }
        }
        Ok(())
    }

    /// The next line without its end; false where there is none.
    fn line(&self, reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        let limit = self.record_bytes_max;
        let read = reader.take(limit as u64 + 1).read_until(b'\n', line)?;
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() > limit {
            bail!("it is longer than {limit} bytes; see --record-bytes-max");
        }
        Ok(read > 0)
    }

    fn common(&self) -> Item {
        let headers = if self.headers.is_empty() { Vec::new() } else { encode_headers(&self.headers) };
        Item { headers, timestamp: self.timestamp, ..Item::default() }
    }

    fn item(&self, line: &[u8]) -> Result<Item> {
        if self.format == Format::Json {
            return self.json(line);
        }
        let (key, value) = match &self.key_separator {
            None => (None, line),
            Some(separator) => {
                let at = line.windows(separator.len()).position(|w| w == separator);
                let Some((key, rest)) = at.and_then(|at| line.split_at_checked(at)) else {
                    bail!("there is no \"{}\" between key and value", String::from_utf8_lossy(separator));
                };
                (Some(key), rest.get(separator.len()..).unwrap_or_default())
            }
        };
        let null = |bytes: &[u8]| self.null.as_ref().is_some_and(|null| null.as_bytes() == bytes);
        let owned = |bytes: &[u8]| (!null(bytes)).then(|| bytes.to_vec());
        Ok(Item { key: key.and_then(owned), value: owned(value), ..self.common() })
    }

    fn json(&self, line: &[u8]) -> Result<Item> {
        let parsed: Json = serde_json::from_slice(line).context("it is not JSON")?;
        let Json::Object(mut fields) = parsed else {
            bail!("it is not an object; expected {{\"value\": ..., \"key\": ...}}");
        };
        let key = bytes(&mut fields, "key")?;
        let value = bytes(&mut fields, "value")?;
        let mut headers = self.headers.clone();
        match fields.remove("headers") {
            None | Some(Json::Null) => {}
            Some(Json::Object(named)) => {
                headers.extend(named.into_iter().map(|(key, value)| Header { key, value: raw(value) }));
            }
            Some(Json::Array(all)) => {
                for one in all {
                    let Json::Object(mut one) = one else { bail!("a header is an object with key and value") };
                    let Some(Json::String(key)) = one.remove("key") else { bail!("a header has no \"key\"") };
                    headers.push(Header { key, value: bytes(&mut one, "value")? });
                }
            }
            Some(_) => bail!("\"headers\" is an object, or an array of objects with key and value"),
        }
        let timestamp = match fields.remove("timestamp") {
            None | Some(Json::Null) => self.timestamp,
            Some(number) => Some(number.as_i64().context("\"timestamp\" is a number of milliseconds")?),
        };
        let partition = match fields.remove("partition") {
            None | Some(Json::Null) => None,
            Some(number) => {
                let number = number.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
                Some(number.context("\"partition\" is a number from 0 on")?)
            }
        };
        if let Some(unknown) = fields.keys().find(|name| !IGNORED.contains(&name.as_str())) {
            bail!("\"{unknown}\" is not known; a record has key, value, headers, timestamp and partition");
        }
        let headers = if headers.is_empty() { Vec::new() } else { encode_headers(&headers) };
        Ok(Item { key, value, headers, timestamp, partition })
    }
}

/// A field, or the same in base64.
fn bytes(fields: &mut Map<String, Json>, name: &str) -> Result<Option<Vec<u8>>> {
    let encoded = format!("{name}_base64");
    match (fields.remove(name), fields.remove(&encoded)) {
        (Some(_), Some(_)) => bail!("\"{name}\" and \"{encoded}\" cannot both be there"),
        (_, Some(Json::String(text))) => {
            Ok(Some(BASE64.decode(text).with_context(|| format!("\"{encoded}\" is not base64"))?))
        }
        (_, Some(_)) => bail!("\"{encoded}\" is not a string"),
        (value, None) => Ok(value.and_then(raw)),
    }
}

/// Strings as they are, anything else as JSON.
fn raw(value: Json) -> Option<Vec<u8>> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

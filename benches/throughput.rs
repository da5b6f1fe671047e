//! Benchmarks of the whole, as a table: `scripts/bench.sh [--short]`.
//!
//! What each line answers is its name. The engine runs in this process through the library; what goes over the Kafka wire
//! is asked of `millpond serve` in a process of its own, so that its CPU time is its own.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark reads the clock and prints")]

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/it/kafka.rs"]
mod kafka;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/it/process.rs"]
mod process;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use bytes::Bytes;
use comfy_table::{CellAlignment, Table};
use millpond::{Database, DatabaseOptions, OwnedRecord, Session};
use millpond_types::ports::TopicLog;
use millpond_udfs::{CallContext, Callable, Host, HostOptions, InstanceScope};
use std::sync::Arc;

use kafka::{Client, Sent, encode};
use process::{Process, guest};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PARTITIONS: usize = 4;
const START_MS: i64 = 1_700_000_000_000;
/// Records of one append when the log is filled.
const FILL_ROWS: u64 = 5_000;
/// Bytes of a value of the wire benchmarks.
const WIRE_VALUE_BYTES: usize = 1_000;

struct Line {
    what: &'static str,
    result: String,
    cpu: String,
}

fn line(what: &'static str, result: String, cpu: String) -> Line {
    println!("{what}: {result}{}{cpu}", if cpu.is_empty() { "" } else { ", " });
    Line { what, result, cpu }
}

/// Seconds of processor time that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

fn own_cpu() -> f64 {
    cpu_seconds(std::process::id())
}

/// An event of about 220 bytes.
fn event(i: u64) -> (String, String, i64) {
    let user = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let value = format!(
        r#"{{"user":"user-{:05}","url":"/shop/category-{}/item-{}","agent":"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0","status":{},"bytes":{},"seconds":0.{:03},"country":"DE","n":{i}}}"#,
        user % 10_000,
        user % 37,
        user % 4_999,
        if i.is_multiple_of(4) { 404 } else { 200 },
        user % 90_000,
        user % 1_000
    );
    (format!("id-{i}"), value, START_MS + i as i64)
}

fn filled(directory: &Path, events: u64, workers: Option<usize>) -> Result<Database> {
    let mut options = DatabaseOptions::new(directory);
    options.engine.workers = workers.unwrap_or(options.engine.workers);
    let db = Database::open_with(options)?;
    db.execute(&format!(
        "CREATE STREAM EVENTS (ID STRING KEY, USER STRING, URL STRING, AGENT STRING, STATUS INT, BYTES BIGINT, N BIGINT)
           WITH (KAFKA_TOPIC='events', PARTITIONS={PARTITIONS}, VALUE_FORMAT='JSON');"
    ))?;
    for first in (0..events).step_by(FILL_ROWS as usize) {
        let records: Vec<OwnedRecord> = (first..events.min(first + FILL_ROWS))
            .map(|i| {
                let (key, value, timestamp) = event(i);
                OwnedRecord {
                    key: Some(key.into_bytes()),
                    value: Some(value.into_bytes()),
                    timestamp,
                    headers: Vec::new(),
                }
            })
            .collect();
        db.produce("events", &records)?;
    }
    Ok(db)
}

/// Runs a statement over the whole backlog; seconds of wall clock and of processor until all of it is committed.
fn drain(db: &Database, statement: &str) -> Result<(f64, f64)> {
    let mut session = Session::new();
    session.set("auto.offset.reset", "earliest");
    let (started, cpu) = (Instant::now(), own_cpu());
    db.execute_in(statement, &mut session)?;
    let catalog = db.engine().catalog();
    let id = catalog.queries_in_order().last().map(|q| q.id.clone()).unwrap_or_default();
    let storage = db.storage();
    loop {
        let cursors = storage.cursors(&id)?;
        let mut lag = 0;
        for cursor in &cursors {
            lag += storage.offsets(cursor.source)?.stable_end - cursor.offset;
        }
        if !cursors.is_empty() && lag == 0 {
            break;
        }
        anyhow::ensure!(started.elapsed() < Duration::from_secs(300), "{id} is {lag} records behind after 300 s");
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = (started.elapsed().as_secs_f64(), own_cpu() - cpu);
    db.execute(&format!("TERMINATE {id};"))?;
    Ok(took)
}

fn per_second(events: u64, (wall, cpu): (f64, f64)) -> (String, String) {
    let million = events as f64 / 1e6;
    (format!("{:>9.0} events/s", events as f64 / wall), format!("{:.2} CPU s per million events", cpu / million))
}

fn queries(events: u64, workers: Option<usize>, lines: &mut Vec<Line>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let db = filled(directory.path(), events, workers)?;
    let (key, value, _) = event(events / 2);
    println!("{events} events of {} bytes, {PARTITIONS} partitions", key.len() + value.len());
    let passed =
        drain(&db, "CREATE STREAM PASSED AS SELECT ID, USER, URL, BYTES FROM EVENTS WHERE STATUS < 400 EMIT CHANGES;")?;
    let (result, cpu) = per_second(events, passed);
    lines.push(line("JSON filter and projection, topic to topic", result, cpu));
    let counted = drain(
        &db,
        "CREATE TABLE COUNTED AS SELECT USER, COUNT(*) AS N FROM EVENTS WINDOW TUMBLING (SIZE 1 MINUTE) GROUP BY USER EMIT CHANGES;",
    )?;
    let (result, cpu) = per_second(events, counted);
    lines.push(line("tumbling count by key (10,000 keys)", result, cpu));

    let counted = drain(
        &db,
        "CREATE TABLE COUNTED_FEW AS SELECT N % 100 AS K, COUNT(*) AS N FROM EVENTS WINDOW TUMBLING (SIZE 1 MINUTE)
           GROUP BY N % 100 EMIT CHANGES;",
    )?;
    let (result, cpu) = per_second(events, counted);
    lines.push(line("tumbling count by key (100 keys)", result, cpu));

    // The same query with and without a call: what the call adds, encode and commit left out of account.
    db.register_module("probes", &guest("probes"))?;
    let mut best = [f64::MAX; 2];
    for round in 0..2 {
        for (i, expr) in ["N + 1", "ADD_ONE(N)"].iter().enumerate() {
            let statement =
                format!("CREATE STREAM CALLED_{i}_{round} AS SELECT ID, {expr} AS N FROM EVENTS EMIT CHANGES;");
            best[i] = best[i].min(drain(&db, &statement)?.1);
        }
    }
    let difference = (best[1] - best[0]) * 1e9 / events as f64;
    lines.push(line(
        "  the same call within a query, over N + 1",
        format!("{difference:>9.0} ns of CPU/row"),
        String::new(),
    ));
    db.close()?;
    Ok(())
}

/// Calls of a guest alone, without what is around them in a query.
fn calls(rounds: usize, lines: &mut Vec<Line>) -> Result<()> {
    const ROWS: usize = 8_192;
    let host = Host::new(HostOptions::default());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let urls: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| format!("/category-{}/item-{i}?q=pond", i % 37))));
    for (what, module, function, column) in [
        ("WebAssembly call, BIGINT to BIGINT", "probes", "ADD_ONE", &numbers),
        ("WebAssembly call, STRING to STRING", "probes", "ECHO", &urls),
        ("WebAssembly call, URL_SECTION(STRING)", "classify", "URL_SECTION", &urls),
    ] {
        let bytes = guest(module);
        let report = host.prepare(&bytes)?;
        let module = host.load(&report, || Ok(Bytes::from(bytes)))?;
        let Some(function) = module.functions_named(function).next() else { anyhow::bail!("no function {function}") };
        let mut instance = function.instance(InstanceScope::Step);
        let context = CallContext { time_ms: START_MS, seed: 7, row_seeds: None, row_times: None, cancelled: None };
        let mut best = f64::MAX;
        for _ in 0..rounds {
            let started = Instant::now();
            let called = function.call_batch(&mut instance, &context, std::slice::from_ref(column), ROWS);
            let called = called.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            anyhow::ensure!(called.errors.is_empty(), "rows failed");
            best = best.min(started.elapsed().as_secs_f64());
            instance.end_step();
        }
        lines.push(line(what, format!("{:>9.0} ns/row", best * 1e9 / ROWS as f64), String::new()));
    }
    Ok(())
}

/// A batch of about 1 MB.
fn megabyte() -> Result<(Bytes, usize)> {
    let records: Vec<Sent> = (0..(1 << 20) / (WIRE_VALUE_BYTES + 20))
        .map(|i| {
            let mut value = format!("{{\"n\":{i},\"text\":\"");
            value.extend(
                (0..WIRE_VALUE_BYTES - value.len() - 2).map(|j| char::from(b'a' + ((i * 31 + j * 7) % 26) as u8)),
            );
            value.push_str("\"}");
            Sent { key: None, value, timestamp: START_MS }
        })
        .collect();
    Ok((encode(&records, None)?, records.len()))
}

fn wire(runtime: &tokio::runtime::Runtime, megabytes: usize, lines: &mut Vec<Line>) -> Result<()> {
    /// Requests of a connection that wait for their answer.
    const IN_FLIGHT: usize = 4;
    let directory = tempfile::tempdir()?;
    let server = Process::start(directory.path());
    runtime.block_on(server.sql(&format!(
        "CREATE STREAM WIRE (V STRING) WITH (KAFKA_TOPIC='wire', PARTITIONS={PARTITIONS}, VALUE_FORMAT='KAFKA');"
    )));
    let (batch, records) = megabyte()?;
    let total = megabytes as f64 * batch.len() as f64 / 1e6;
    let measure = |work: &(dyn Fn(usize) -> Result<()> + Sync)| -> Result<(f64, f64)> {
        let (started, cpu) = (Instant::now(), cpu_seconds(server.pid()));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|i| scope.spawn(move || work(i))).collect();
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a client failed")))
        })?;
        Ok((started.elapsed().as_secs_f64(), cpu_seconds(server.pid()) - cpu))
    };
    let text = |(wall, cpu): (f64, f64)| {
        (format!("{:>9.0} MB/s", total / wall), format!("{:.2} CPU s of the server per GB", cpu / total * 1e3))
    };

    let (result, cpu) = text(measure(&|worker| {
        let mut client = Client::connect(server.kafka)?;
        for i in 0..megabytes / 2 {
            client.send_batches("wire", &[((worker + 2 * i) % PARTITIONS, batch.clone())])?;
            if i >= IN_FLIGHT {
                client.acknowledged()?;
            }
        }
        (0..IN_FLIGHT.min(megabytes / 2)).try_for_each(|_| client.acknowledged().map(drop))
    })?);
    lines.push(line("produce, 1 MB requests, acks=all, 2 connections", result, cpu));

    let (result, cpu) = text(measure(&|worker| {
        let mut client = Client::connect(server.kafka)?;
        for partition in [worker, worker + 2] {
            let end = client.end_offset("wire", partition)?;
            let mut next = 0;
            while next < end {
                let bytes = client.fetch("wire", partition, next, 1 << 20)?;
                anyhow::ensure!(bytes.len() >= batch.len(), "a short answer at {next} of {end}");
                // Each batch is the one that was sent.
                next += (bytes.len() / batch.len() * records) as i64;
            }
        }
        Ok(())
    })?);
    lines.push(line("consume, 1 MB requests, 2 connections", result, cpu));
    server.stop();
    Ok(())
}

/// Milliseconds of single-record produce requests, sorted.
fn latencies(client: &mut Client, seconds: f64) -> Result<Vec<f64>> {
    let batch = encode(&[Sent { key: Some("k".into()), value: "v".repeat(200), timestamp: START_MS }], None)?;
    let mut found = Vec::new();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < seconds {
        let sent = Instant::now();
        client.send_batches("small", &[(0, batch.clone())])?;
        client.acknowledged()?;
        found.push(sent.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(1));
    }
    found.sort_by(f64::total_cmp);
    Ok(found)
}

fn latency(runtime: &tokio::runtime::Runtime, seconds: f64, lines: &mut Vec<Line>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Process::start(directory.path());
    runtime.block_on(server.sql(&format!(
        "CREATE STREAM SMALL (V STRING) WITH (KAFKA_TOPIC='small', PARTITIONS=1, VALUE_FORMAT='KAFKA');
         CREATE STREAM EVENTS (ID STRING KEY, USER STRING, URL STRING, STATUS INT, BYTES BIGINT)
           WITH (KAFKA_TOPIC='events', PARTITIONS={PARTITIONS}, VALUE_FORMAT='JSON');
         CREATE TABLE HEAVY AS SELECT USER, COUNT(*) AS N, SUM(BYTES) AS B, MAX(URL) AS U, COLLECT_LIST(STATUS) AS L FROM EVENTS
           WINDOW TUMBLING (SIZE 1 SECOND) GROUP BY USER EMIT CHANGES;"
    )));
    let mut client = Client::connect(server.kafka)?;
    let quantiles = |all: &[f64]| {
        let at = |q: f64| all.get(((all.len() as f64 - 1.0) * q) as usize).copied().unwrap_or(f64::NAN);
        format!("p50 {:.2}, p99 {:.2}, max {:.2} ms", at(0.5), at(0.99), at(1.0))
    };
    latencies(&mut client, 0.5)?;
    lines.push(line("produce latency, idle server", quantiles(&latencies(&mut client, seconds)?), String::new()));

    let batches = (0..64_u64)
        .map(|b| {
            let records: Vec<Sent> = (0..1_000)
                .map(|i| {
                    let (key, value, timestamp) = event(b * 1_000 + i);
                    Sent { key: Some(key), value, timestamp }
                })
                .collect();
            encode(&records, None)
        })
        .collect::<Result<Vec<_>>>()?;
    let stop = AtomicBool::new(false);
    let (found, cpu) = std::thread::scope(|scope| -> Result<_> {
        let feeder = scope.spawn(|| -> Result<usize> {
            let mut client = Client::connect(server.kafka)?;
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                client.send_batches("events", &[(sent % PARTITIONS, batches[sent % batches.len()].clone())])?;
                client.acknowledged()?;
                sent += 1;
            }
            Ok(sent)
        });
        std::thread::sleep(Duration::from_secs(1));
        let cpu = cpu_seconds(server.pid());
        let found = latencies(&mut client, seconds);
        let cpu = (cpu_seconds(server.pid()) - cpu) / seconds;
        stop.store(true, Ordering::Relaxed);
        let sent = feeder.join().unwrap_or_else(|_| anyhow::bail!("the feeder failed"))?;
        println!("fed {sent} batches of 1,000 events beside it");
        Ok((found?, cpu))
    })?;
    lines.push(line(
        "produce latency beside a heavy aggregation",
        quantiles(&found),
        format!("server at {cpu:.1} cores"),
    ));
    // It has a backlog that nobody needs.
    server.kill();
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--test" || a == "--list") {
        // A test run asks benchmarks whether they start.
        return Ok(());
    }
    let short = arguments.iter().any(|a| a == "--short");
    let only = arguments.iter().find_map(|a| a.strip_prefix("--only="));
    let wanted = |part: &str| only.is_none_or(|o| o == part);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut lines = Vec::new();
    if wanted("calls") {
        calls(if short { 50 } else { 200 }, &mut lines)?;
    }
    if wanted("queries") {
        let workers = arguments.iter().find_map(|a| a.strip_prefix("--workers=")?.parse().ok());
        queries(if short { 200_000 } else { 2_000_000 }, workers, &mut lines)?;
    }
    if wanted("wire") {
        wire(&runtime, if short { 400 } else { 4_000 }, &mut lines)?;
    }
    if wanted("latency") {
        latency(&runtime, if short { 3.0 } else { 15.0 }, &mut lines)?;
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN).set_header(["", "result", "processor"]);
    for line in &lines {
        table.add_row([line.what, &line.result, &line.cpu]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}");
    Ok(())
}

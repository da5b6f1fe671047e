//! With durability "group" nobody sees what is not forced to disk yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::kafka::{Client, Sent, encode};
use crate::process::{Process, serve};
use crate::strace::{self, FSYNCS, Fault};

/// How long each fsync takes: as long as the test looks.
const SLOW: Duration = Duration::from_secs(600);
const LOOKS: usize = 5;

fn sent(value: &str) -> bytes::Bytes {
    let value = format!(r#"{{"V": "{value}"}}"#);
    // Of now, so that retention keeps it.
    let timestamp = millpond_types::Clock::now_ms(&millpond_types::SystemClock);
    encode(&[Sent { key: Some("a".into()), value, timestamp }], None).unwrap()
}

/// Whether the text is in the write-ahead log.
fn is_logged(data: &std::path::Path, text: &str) -> bool {
    let files = std::fs::read_dir(data.join("db")).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .any(|path| std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|w| w == text.as_bytes())))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_seen_before_it_is_forced_to_disk() {
    if !strace::is_possible("what is seen while an fsync is under way") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    server
        .sql(
            "CREATE STREAM S (K STRING KEY, V STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
             CREATE TABLE T AS SELECT K, COUNT(*) AS N, MAX(V) AS V FROM S GROUP BY K EMIT CHANGES;",
        )
        .await;
    let mut producer = Client::connect(server.kafka).unwrap();
    producer.send_batches("s", &[(0, sent("first"))]).unwrap();
    producer.acknowledged().unwrap();
    let table = "SELECT K, N, V FROM T;";
    server.eventually(table, &[json!(["a", 1, "first"])]).await;

    let slow = Fault::on(server.pid(), None, FSYNCS, &format!("delay_enter={}", SLOW.as_micros()));
    let begun = Instant::now();
    producer.send_batches("s", &[(0, sent("second"))]).unwrap();
    let acknowledged = Arc::new(AtomicBool::new(false));
    let waiting = std::thread::spawn({
        let acknowledged = acknowledged.clone();
        move || {
            producer.acknowledged().unwrap();
            acknowledged.store(true, Ordering::SeqCst);
        }
    });
    while !is_logged(directory.path(), "second") {
        assert!(begun.elapsed() < Duration::from_secs(90), "it is not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..LOOKS {
        let address = server.kafka;
        let seen = tokio::task::spawn_blocking(move || {
            let mut other = Client::connect(address).unwrap();
            let mut seen = Vec::new();
            for committed in [false, true] {
                other.committed = committed;
                seen.push((other.end_offset("s", 0).unwrap(), other.read_all("s", 0).unwrap().len()));
                // Waiting at the end, as consumers do.
                assert!(other.fetch("s", 0, 1, 1 << 20).unwrap().is_empty(), "committed: {committed}");
            }
            seen
        });
        assert_eq!(seen.await.unwrap(), [(1, 1), (1, 1)]);
        assert_eq!(server.pull(table).await, [json!(["a", 1, "first"])]);
        assert_eq!(server.pull("SELECT V FROM S;").await, [json!(["first"])]);
    }
    assert!(!acknowledged.load(Ordering::SeqCst), "it is acknowledged before it is on disk");
    drop(slow);
    waiting.join().unwrap();
    server.eventually(table, &[json!(["a", 2, "second"])]).await;
    assert_eq!(Client::connect(server.kafka).unwrap().read_all("s", 0).unwrap().len(), 2);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_for_the_disk_keep_no_statement_from_its_place() {
    if !strace::is_possible("statements while an fsync is under way") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[limits]\nhttp_statements_max = 4\n").unwrap();
    let mut command = serve(&directory.path().join("data"));
    command.arg("--config").arg(&config);
    let server = Process::spawn(command);
    server.sql("CREATE STREAM S (V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');").await;
    let slow = Fault::on(server.pid(), None, FSYNCS, &format!("delay_enter={}", SLOW.as_micros()));
    let answered = AtomicUsize::new(0);
    let insert = json!({ "ksql": "INSERT INTO S VALUES (1);" });
    let inserts = futures::future::join_all((0..12).map(|_| async {
        let answer = server.post("/ksql", &insert).await;
        answered.fetch_add(1, Ordering::SeqCst);
        answer.status
    }));
    let show = async {
        // So that they are there before it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.sql("SHOW STREAMS;").await;
        assert_eq!(answered.load(Ordering::SeqCst), 0, "a row is answered before it is on disk");
        drop(slow);
    };
    let (inserted, ()) = tokio::join!(inserts, show);
    assert_eq!(inserted, [200; 12]);
    server.stop();
}

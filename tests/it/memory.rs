//! The memory budget holds a whole process: many queries with more state than there is room for.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::process::{Answer, DELIMITED, Process, client, serve};

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 192 * MIB;
/// What no pool counts: the program, stacks, indexes, what the allocator keeps.
const OVERHEAD: u64 = 128 * MIB;
const TABLES: usize = 24;
const PUSH_QUERIES: usize = 6;
const KEYS: usize = 10_000;
const ROUNDS: usize = 3;

fn used(metrics: &str, name: &str, pool: &str) -> u64 {
    let start = format!("millpond_{name}{{pool=\"{pool}\"}} ");
    let line = metrics.lines().find_map(|l| l.strip_prefix(&start)).unwrap_or_else(|| panic!("{start}: {metrics}"));
    line.parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_stay_within_the_budget() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, format!("durability = \"none\"\n[memory]\nbudget = {BUDGET}\n")).unwrap();
    let mut command = serve(&directory.path().join("data"));
    command.arg("--config").arg(&config);
    let server = Process::spawn(command);
    server
        .sql(&format!(
            "CREATE STREAM S (K STRING KEY, V STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
             CREATE STREAM BIG AS SELECT K, V, EXPLODE(GENERATE_SERIES(1, {KEYS})) AS I FROM S EMIT CHANGES;"
        ))
        .await;
    for i in 0..TABLES {
        server.sql(&format!("CREATE TABLE T{i} AS SELECT I, COUNT(*) AS N, LATEST_BY_OFFSET(V) AS V FROM BIG GROUP BY I EMIT CHANGES;")).await;
    }
    let value = "v".repeat(250);
    for round in 0..ROUNDS {
        server.sql(&format!("INSERT INTO S VALUES ('{round}', '{value}');")).await;
    }
    let rows = KEYS * ROUNDS;
    let body = json!({
        "sql": format!("SELECT I, COUNT(*) AS N, LATEST_BY_OFFSET(V) AS V FROM BIG GROUP BY I EMIT CHANGES LIMIT {rows};"),
        "properties": { "auto.offset.reset": "earliest", "cache.max.bytes.buffering": "0" },
    });
    let push = || {
        let request = client().post(format!("{}/query-stream", server.http)).header("accept", DELIMITED);
        tokio::spawn(Answer::of(request.body(body.to_string())))
    };
    let counted = |answer: &Answer| answer.text.lines().skip(1).filter(|line| line.starts_with('[')).count();
    let pushes: Vec<_> = (0..PUSH_QUERIES).map(|_| push()).collect();
    let mut most = 0;
    let (mut refused, mut caches) = (0, 0);
    for table in 0..TABLES {
        let expected = vec![json!([KEYS, rows])];
        for attempt in 0.. {
            most = most.max(server.resident());
            let metrics = server.get("/metrics").await.text;
            refused = used(&metrics, "memory_refused_total", "shared.read_caches");
            caches = caches.max(used(&metrics, "memory_used_bytes", "shared.read_caches"));
            let limit = used(&metrics, "memory_limit_bytes", "shared.read_caches");
            // A step's last entries are counted when it ends.
            assert!(caches <= limit + 8 * MIB, "{caches} of {limit}");
            // Where the memory for pull queries is used up the answer says so, and the next one may be another.
            let found = pull(&server, &format!("SELECT COUNT(*), SUM(N) FROM T{table};")).await;
            if found.as_ref() == Ok(&expected) {
                break;
            }
            assert!(attempt < 600, "T{table}: {found:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for push in pushes {
        let answer = push.await.unwrap();
        assert!(
            counted(&answer) == rows || answer.text.contains("memory for push queries is used up"),
            "{} rows: {}",
            counted(&answer),
            tail(&answer.text)
        );
    }
    // Together they may all be too many; what they held is free again for one alone, once they have ended.
    let ended = Instant::now() + Duration::from_secs(90);
    while used(&server.get("/metrics").await.text, "memory_used_bytes", "shared.push_queries") > 0 {
        assert!(Instant::now() < ended, "what push queries held is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let alone = push().await.unwrap();
    assert_eq!(counted(&alone), rows, "{}", tail(&alone.text));
    most = most.max(server.resident());
    println!(
        "{} MiB resident at most, budget {} MiB, caches {} KiB, {refused} times too full",
        most / MIB,
        BUDGET / MIB,
        caches >> 10
    );
    assert!(refused > 0, "there was no need to share");
    assert!(most < BUDGET + OVERHEAD, "{} MiB are resident", most / MIB);
    server.stop();
}

fn tail(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

async fn pull(server: &Process, select: &str) -> Result<Vec<Json>, String> {
    let request = client().post(format!("{}/query-stream", server.http)).header("accept", DELIMITED);
    let answer = Answer::of(request.body(json!({ "sql": select }).to_string())).await;
    if answer.status == 503 {
        assert!(answer.text.contains("memory for pull queries is used up"), "{}", answer.text);
        return Err(answer.text);
    }
    assert_eq!(answer.status, 200, "{}", answer.text);
    Ok(answer.text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_budget_that_is_too_small_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[memory]\nbudget = 134217728\n[limits]\nblock_cache_bytes = 100000000\n").unwrap();
    let output = serve(&directory.path().join("data")).arg("--config").arg(&config).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("block_cache_bytes 96 MiB"), "{error}");
}

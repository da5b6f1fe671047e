//! Results depend on the input as logged and on the statement alone: not on where steps are cut, how many workers there
//! are, or how often the database was closed or its process killed on the way. On real storage, by random inputs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use millpond::{Database, OwnedRecord};

use crate::library::{lag, open_with, options, records, settle};
use crate::process::{Random, guest};
use crate::pull::rows;

const SOURCES: &str = "
CREATE STREAM A (ID STRING KEY, G STRING, V BIGINT) WITH (KAFKA_TOPIC='a', PARTITIONS=3, VALUE_FORMAT='JSON');
CREATE STREAM B (ID STRING KEY, W BIGINT) WITH (KAFKA_TOPIC='b', PARTITIONS=3, VALUE_FORMAT='JSON');
CREATE TABLE BT (ID STRING PRIMARY KEY, W BIGINT) WITH (KAFKA_TOPIC='b', PARTITIONS=3, VALUE_FORMAT='JSON');";

/// Sinks of streams, whose records are compared one by one.
const STREAMS: [(&str, &str); 5] = [
    ("FILTERED", "CREATE STREAM FILTERED AS SELECT ID, V * 2 AS V2, G FROM A WHERE V % 3 <> 0 EMIT CHANGES;"),
    ("MOVED", "CREATE STREAM MOVED AS SELECT G, V, ID FROM A PARTITION BY G EMIT CHANGES;"),
    (
        "LOOKED_UP",
        "CREATE STREAM LOOKED_UP AS SELECT A.ID AS ID, A.V AS V, BT.W AS W FROM A LEFT JOIN BT ON A.ID = BT.ID EMIT CHANGES;",
    ),
    (
        "LOOKED_UP_BY_G",
        "CREATE STREAM LOOKED_UP_BY_G AS SELECT A.G AS G, A.ID AS ID, A.V AS V, BT.W AS W FROM A JOIN BT ON A.G = BT.ID EMIT CHANGES;",
    ),
    (
        "MET",
        "CREATE STREAM MET AS SELECT A.ID AS ID, A.V AS V, B.W AS W FROM A
           JOIN B WITHIN 3 SECONDS GRACE PERIOD 0 SECONDS ON A.ID = B.ID EMIT CHANGES;",
    ),
];

/// Sinks of tables: with caching, of several changes of a row in a step only the last is sent on.
const TABLES: [(&str, &str); 4] = [
    (
        "PER_WINDOW",
        "CREATE TABLE PER_WINDOW AS SELECT G, COUNT(*) AS N, SUM(V) AS S, COLLECT_LIST(V) AS L, LATEST_BY_OFFSET(ID) AS I
           FROM A WINDOW TUMBLING (SIZE 5 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY G EMIT CHANGES;",
    ),
    ("PER_G", "CREATE TABLE PER_G AS SELECT G, COUNT(*) AS N, AVG(V) AS M, MIN(V) AS LO, MAX(ID) AS HI FROM A GROUP BY G EMIT CHANGES;"),
    ("PER_W", "CREATE TABLE PER_W AS SELECT W, COUNT(*) AS N, COLLECT_LIST(ID) AS L FROM BT GROUP BY W EMIT CHANGES;"),
    ("SOME", "CREATE TABLE SOME AS SELECT G, SUM(V) AS S FROM A GROUP BY G HAVING SUM(V) > 40 EMIT CHANGES;"),
];

/// One append: topic and records.
type Chunk = (&'static str, Vec<OwnedRecord>);

/// How a run differs from others.
#[derive(Clone, Debug)]
struct Run {
    workers: usize,
    step_rows: usize,
    caching: bool,
    /// Times that the database is closed and opened again on the way.
    restarts: u64,
    /// Times that a process that moves the queries is killed.
    kills: u64,
}

const REFERENCE: Run = Run { workers: 1, step_rows: 4096, caching: false, restarts: 0, kills: 0 };

fn open(path: &Path, run: &Run) -> Database {
    let mut options = options(path);
    options.engine.workers = run.workers;
    let properties = &mut options.engine.properties;
    properties.insert("millpond.step.rows.max".into(), run.step_rows.to_string());
    // Workers that have nothing to do help with every step, however small.
    let task_rows = if run.workers > 1 { "1" } else { "1000000" };
    properties.insert("millpond.task.rows.min".into(), task_rows.into());
    properties.insert("cache.max.bytes.buffering".into(), if run.caching { "10000000" } else { "0" }.into());
    open_with(options)
}

fn chunks(random: &mut Random, count: u64) -> Vec<Chunk> {
    let mut time = 1_700_000_000_000_i64;
    (0..count)
        .map(|_| {
            let topic = if random.below(3) == 0 { "b" } else { "a" };
            let records = (0..1 + random.below(12))
                .map(|_| {
                    time += random.below(120) as i64;
                    let key = format!("k{}", random.below(9));
                    let value = match (topic, random.below(30)) {
                        ("a", 0) | ("b", 0..6) => None,
                        (_, 1) => Some("{\"G\": \"k1\", not json".to_string()),
                        ("a", 2) => Some(format!(r#"{{"G":null,"V":{}}}"#, random.below(10))),
                        ("a", _) => Some(format!(r#"{{"G":"k{}","V":{}}}"#, random.below(6), random.below(20))),
                        _ => Some(format!(r#"{{"W":{}}}"#, random.below(4))),
                    };
                    OwnedRecord {
                        key: (random.below(40) > 0).then(|| key.into_bytes()),
                        value: value.map(String::into_bytes),
                        // Out of order by up to four seconds, so that some are late for their window.
                        timestamp: time - random.below(2) as i64 * random.below(4_000) as i64,
                        headers: Vec::new(),
                    }
                })
                .collect();
            (topic, records)
        })
        .collect()
}

/// Key, value and time of each record.
type Partition = Vec<(String, String, i64)>;

/// All that is compared.
#[derive(Debug, PartialEq)]
struct Results {
    topics: BTreeMap<&'static str, Vec<Partition>>,
    /// The last value of each key of a table's topic.
    last: BTreeMap<&'static str, BTreeMap<String, (String, i64)>>,
    pulled: BTreeMap<&'static str, Vec<String>>,
}

fn results(db: &Database) -> Results {
    let names = STREAMS.iter().chain(&TABLES).map(|(name, _)| *name);
    let topics: BTreeMap<_, _> = names.map(|name| (name, records(db, name))).collect();
    let tables = || TABLES.iter().map(|(name, _)| *name);
    let last = tables()
        .map(|name| {
            let changes = topics[name].iter().flatten().cloned();
            let mut last: BTreeMap<String, (String, i64)> =
                changes.map(|(k, value, time)| (k, (value, time))).collect();
            // What came and went within a step need not be told at all.
            last.retain(|_, (value, _)| value != "null");
            (name, last)
        })
        .collect();
    let pulled = tables()
        .map(|name| {
            let mut found = rows(db, &format!("SELECT * FROM {name};"));
            found.sort();
            (name, found)
        })
        .collect();
    Results { topics, last, pulled }
}

const DIRECTORY: &str = "MILLPOND_TEST_DETERMINISM_DIRECTORY";
const STEP_ROWS: &str = "MILLPOND_TEST_DETERMINISM_STEP_ROWS";

/// Moves the queries of a directory until it is killed; without the variable it has nothing to do.
#[test]
fn database_to_be_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let step_rows = std::env::var(STEP_ROWS).unwrap().parse().unwrap();
    let db = open(Path::new(&directory), &Run { workers: 2, step_rows, ..REFERENCE });
    println!("\nopen {}", lag(&db));
    // Whoever is the first lets the queries go.
    db.execute("RESUME ALL;").unwrap();
    settle(&db);
    println!("settled");
    std::thread::sleep(Duration::from_secs(60));
}

/// Lets another process move the queries and kills it after a moment. Returns how far behind they were when it opened.
fn kill_on_the_way(path: &Path, step_rows: usize, random: &mut Random) -> i64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "determinism::database_to_be_killed", "--nocapture"])
        .env(DIRECTORY, path)
        .env(STEP_ROWS, step_rows.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let behind = lines.find_map(|line| line.strip_prefix("open ").map(|lag| lag.parse().unwrap())).unwrap();
    std::thread::sleep(Duration::from_millis(random.below(40)));
    child.kill().unwrap();
    child.wait().unwrap();
    behind
}

/// The results; and of a run with kills how many of them were known to have left work undone.
fn run(chunks: &[Chunk], run: &Run, random: &mut Random) -> (Results, usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut db = open(path, run);
    db.execute(SOURCES).unwrap();
    // Half of it is there before the queries are, and is merged by time; from then on the log's order rules.
    let (before, after) = chunks.split_at(chunks.len() / 2);
    for (topic, records) in before {
        db.produce(topic, records).unwrap();
    }
    for (_, statement) in STREAMS.iter().chain(&TABLES) {
        db.execute(statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    if run.kills > 0 {
        // All of it waits for who is to be killed.
        db.execute("PAUSE ALL;").unwrap();
    }
    let reopen = |db: Database| {
        db.close().unwrap();
        drop(db);
        open(path, run)
    };
    let mut restarts = run.restarts;
    if restarts > 0 {
        // In the middle of the backlog.
        std::thread::sleep(Duration::from_millis(random.below(20)));
        db = reopen(db);
        restarts -= 1;
    }
    for (i, (topic, records)) in after.iter().enumerate() {
        db.produce(topic, records).unwrap();
        if restarts > 0 && random.below((after.len() - i) as u64) < restarts {
            db = reopen(db);
            restarts -= 1;
        }
    }
    let mut undone = 0;
    if run.kills > 0 {
        db.close().unwrap();
        drop(db);
        for kill in 0..run.kills {
            let behind = kill_on_the_way(path, run.step_rows, random);
            // The first finds what was produced, the others what the one before left.
            undone += usize::from(kill > 0 && behind > 0);
        }
        db = open(path, run);
        undone += usize::from(lag(&db) > 0);
        db.execute("RESUME ALL;").unwrap();
    }
    settle(&db);
    let found = results(&db);
    db.close().unwrap();
    (found, undone)
}

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(how: &Run, what: &str, left: &[T], right: &[T]) {
    if left == right {
        return;
    }
    let at = left.iter().zip(right).position(|(l, r)| l != r).unwrap_or(left.len().min(right.len()));
    let near = |all: &[T]| format!("{:?}", all.iter().skip(at.saturating_sub(2)).take(5).collect::<Vec<_>>());
    panic!(
        "{how:?}: {what} differs at {at}, of {} and {}:\n  reference {}\n  this run  {}",
        left.len(),
        right.len(),
        near(left),
        near(right)
    );
}

#[test]
fn results_do_not_depend_on_how_the_work_is_cut() {
    let slow = std::env::var("SLOW").is_ok_and(|v| !v.is_empty() && v != "0");
    let (inputs, length) = if slow { (10, 160) } else { (2, 80) };
    if !slow {
        println!("only {inputs} inputs; SLOW=1 runs 10 longer ones");
    }
    let mut random = Random::seeded("determinism");
    let runs = [
        Run { workers: 4, step_rows: 1, ..REFERENCE },
        Run { workers: 3, step_rows: 7, ..REFERENCE },
        Run { workers: 2, step_rows: 4096, restarts: 4, ..REFERENCE },
        Run { workers: 2, step_rows: 7, restarts: 6, ..REFERENCE },
        Run { workers: 2, step_rows: 1, kills: 3, ..REFERENCE },
        Run { workers: 2, step_rows: 3, kills: 3, ..REFERENCE },
        Run { workers: 2, step_rows: 4096, kills: 2, ..REFERENCE },
        Run { workers: 2, step_rows: 4096, caching: true, ..REFERENCE },
        Run { workers: 4, step_rows: 7, caching: true, restarts: 4, ..REFERENCE },
    ];
    for input in 0..inputs {
        let chunks = chunks(&mut random, length);
        let (reference, _) = run(&chunks, &REFERENCE, &mut random);
        let mut undone = 0;
        for (name, partitions) in &reference.topics {
            assert!(partitions.iter().map(Vec::len).sum::<usize>() > 5, "input {input}: {name} has hardly a result");
        }
        for how in &runs {
            let (found, left) = run(&chunks, how, &mut random);
            undone += left;
            let streams = STREAMS.iter().map(|(name, _)| *name);
            let exact = streams.chain(TABLES.iter().map(|(name, _)| *name).filter(|_| !how.caching));
            for name in exact {
                for (partition, (left, right)) in reference.topics[name].iter().zip(&found.topics[name]).enumerate() {
                    same(how, &format!("input {input}, {name}, partition {partition}"), left, right);
                }
            }
            for (name, _) in TABLES {
                let (left, right): (Vec<_>, Vec<_>) =
                    (reference.last[name].iter().collect(), found.last[name].iter().collect());
                same(how, &format!("input {input}, last values of {name}"), &left, &right);
                same(how, &format!("input {input}, {name} as a table"), &reference.pulled[name], &found.pulled[name]);
            }
        }
        println!("input {input}: {undone} kills left work undone");
        assert!(undone > 0, "input {input}: no kill came in the middle of the backlog");
    }
}

/// Queries that call a guest which tells its clock and draws lots.
const SEERS: [(&str, &str); 6] = [
    ("OMENS", "CREATE STREAM OMENS AS SELECT ID, SEEN(G) AS S, LOT() AS L, SHADOW() AS T, ROWTIME AS R FROM A EMIT CHANGES;"),
    ("CHOSEN", "CREATE STREAM CHOSEN AS SELECT ID, V, LOT() AS L FROM A WHERE LOT() > 0 EMIT CHANGES;"),
    (
        "MET_OMENS",
        "CREATE STREAM MET_OMENS AS SELECT A.ID AS ID, LOT() AS L, SHADOW() AS T, A.ROWTIME AS AR, B.ROWTIME AS BR FROM A
           JOIN B WITHIN 3 SECONDS GRACE PERIOD 0 SECONDS ON A.ID = B.ID EMIT CHANGES;",
    ),
    (
        "DRAWN",
        "CREATE TABLE DRAWN AS SELECT G, COUNT(*) AS N, SUM(LOT() % 1000) AS S, MAX(SHADOW()) AS T FROM A
           WINDOW TUMBLING (SIZE 5 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY G EMIT CHANGES;",
    ),
    // A table's change takes back what the replaced row gave: the guest has to see what it saw then.
    (
        "TAKEN_BACK",
        "CREATE TABLE TAKEN_BACK AS SELECT W, COUNT(*) AS N, SUM(SHADOW()) AS T, SUM(LOT() % 1000) AS S FROM BT GROUP BY W EMIT CHANGES;",
    ),
    ("DATED", "CREATE TABLE DATED AS SELECT ID, W, ROWTIME AS T FROM BT EMIT CHANGES;"),
];

/// The records of the sinks, and what of it pull queries give.
fn seen(chunks: &[Chunk], run: &Run, sundial: &[u8]) -> (Vec<Vec<Partition>>, [Vec<String>; 3]) {
    let directory = tempfile::tempdir().unwrap();
    let mut db = open(directory.path(), run);
    db.register_module("sundial", sundial).unwrap();
    db.execute(SOURCES).unwrap();
    for (_, statement) in SEERS {
        db.execute(statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    for (i, (topic, records)) in chunks.iter().enumerate() {
        db.produce(topic, records).unwrap();
        if run.restarts > 0 && (i + 1) % chunks.len().div_ceil(run.restarts as usize + 1) == 0 {
            db.close().unwrap();
            drop(db);
            db = open(directory.path(), run);
        }
    }
    settle(&db);
    let sinks = SEERS.iter().map(|(name, _)| records(&db, name)).collect();
    let sorted = |select: &str| {
        let mut found = rows(&db, select);
        found.sort();
        found
    };
    let pulled = [
        sorted("SELECT W, N, T FROM TAKEN_BACK WHERE N > 0;"),
        sorted("SELECT W, COUNT(*), SUM(T) FROM DATED WHERE W IS NOT NULL GROUP BY W;"),
        sorted("SELECT ID, SHADOW() = ROWTIME, LOT() FROM DATED;"),
    ];
    db.close().unwrap();
    (sinks, pulled)
}

#[test]
fn what_guests_see_does_not_depend_on_how_the_work_is_cut() {
    let sundial = guest("sundial");
    let chunks = chunks(&mut Random::seeded("sundial"), 60);
    let reference = seen(&chunks, &REFERENCE, &sundial);
    let (sinks, [taken_back, dated, pulled]) = &reference;
    for ((name, _), partitions) in SEERS.iter().zip(sinks) {
        assert!(partitions.iter().map(Vec::len).sum::<usize>() > 5, "{name} has hardly a result");
    }
    let field = |value: &str, name: &str| serde_json::from_str::<serde_json::Value>(value).unwrap()[name].as_i64();
    let omens: Vec<&(String, String, i64)> = sinks[0].iter().flatten().collect();
    for (_, value, time) in omens.iter().filter(|(_, value, _)| value != "null") {
        assert_eq!((field(value, "T"), field(value, "R")), (Some(*time), Some(*time)), "{value}");
    }
    for (_, value, time) in sinks[2].iter().flatten().filter(|(_, value, _)| value != "null") {
        assert_eq!(field(value, "T"), Some(*time), "{value}");
    }
    // Each row, in each partition, draws its own; and so does each query.
    let lots = |sink: &[Partition]| -> Vec<i64> {
        sink.iter().flatten().filter_map(|(_, value, _)| field(value, "L")).collect()
    };
    let (omens, chosen) = (lots(&sinks[0]), lots(&sinks[1]));
    let distinct: std::collections::BTreeSet<i64> = omens.iter().chain(&chosen).copied().collect();
    assert_eq!(distinct.len(), omens.len() + chosen.len());
    assert!(
        chosen.len() * 4 > omens.len() && chosen.len() * 4 < omens.len() * 3,
        "{} of {}",
        chosen.len(),
        omens.len()
    );
    assert_eq!(taken_back, dated);
    assert!(!pulled.is_empty() && pulled.iter().all(|row| row.contains("true")), "{pulled:?}");
    for how in [
        Run { workers: 4, step_rows: 1, ..REFERENCE },
        Run { workers: 3, step_rows: 7, restarts: 3, ..REFERENCE },
        Run { workers: 2, step_rows: 4096, restarts: 5, ..REFERENCE },
    ] {
        let found = seen(&chunks, &how, &sundial);
        for (((name, _), left), right) in SEERS.iter().zip(sinks).zip(&found.0) {
            for (partition, (left, right)) in left.iter().zip(right).enumerate() {
                same(&how, &format!("{name}, partition {partition}"), left, right);
            }
        }
        assert_eq!(reference.1, found.1, "{how:?}");
    }
}

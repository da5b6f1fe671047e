//! Queries from statements to records, on storage in memory.

mod properties;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};
use millpond_sql::analyse::analyse;
use millpond_sql::functions::FunctionCatalog;
use millpond_sql::plan::{Analysed, Environment, FormatError, FormatSpec, Side, SourceInfo};
use millpond_types::memory::MemoryStorage;
use millpond_types::ports::{ScanLimits, TopicLog, TopicSpec};
use millpond_types::record::OwnedRecord;
use millpond_types::{Field, ManualClock, SqlType, TopicPartition};

use super::*;
use crate::state::table::{TableLayout, WindowBounds};

/// Sources, queries and storage; queries can be thrown away and taken up again.
pub struct Bench {
    storage: Arc<MemoryStorage>,
    library: Arc<FunctionLibrary>,
    log: Arc<ProcessingLog>,
    sources: BTreeMap<String, Arc<SourceInfo>>,
    plans: Vec<(String, QueryPlan, SourceInfo, Option<TimestampColumn>)>,
    queries: Vec<Query>,
    settings: QuerySettings,
    backlog: Vec<(TopicPartition, Offset)>,
}

/// A registry with two schemas, 1 and 2, of one meaning.
#[derive(Debug)]
struct TwoSchemas;

impl millpond_formats::Schemas for TwoSchemas {
    fn schema(&self, id: u32) -> Result<Option<Arc<millpond_formats::Schema>>> {
        let text = match id {
            1 => "\"string\"",
            2 => "{\"type\":\"string\",\"doc\":\"another\"}",
            _ => return Ok(None),
        };
        millpond_formats::Schema::parse(millpond_formats::SchemaKind::Avro, text, &[]).map(Arc::new).map(Some)
    }
}

struct World<'a>(&'a Bench);

impl Environment for World<'_> {
    fn source(&self, name: &str) -> Option<Arc<SourceInfo>> {
        self.0.sources.get(name).cloned()
    }

    fn source_names(&self) -> Vec<String> {
        self.0.sources.keys().cloned().collect()
    }

    fn custom_type(&self, _name: &str) -> Option<SqlType> {
        None
    }

    fn functions(&self) -> &dyn FunctionCatalog {
        self.0.library.as_ref()
    }

    fn topic(&self, name: &str) -> Option<(i32, i16)> {
        self.0.storage.topic(name).map(|t| (t.partitions, t.replicas))
    }

    fn property(&self, name: &str) -> Option<String> {
        match name {
            "ksql.persistence.default.format.key" => Some("KAFKA".into()),
            _ => None,
        }
    }

    fn check_format(&self, _: &FormatSpec, _: Side, _: &[(String, SqlType)]) -> Result<(), FormatError> {
        Ok(())
    }

    fn key_format_supports(&self, name: &str, columns: &[(String, SqlType)]) -> bool {
        let fields: Vec<Field> = columns.iter().map(|(n, t)| Field::new(n.as_str(), t.clone())).collect();
        millpond_formats::Format::parse(name)
            .is_ok_and(|f| f.check_columns(millpond_formats::Side::Key, &fields).is_ok())
    }
}

impl Bench {
    pub fn new(statements: &str, settings: QuerySettings) -> Self {
        let mut bench = Self {
            storage: Arc::new(MemoryStorage::new()),
            library: Arc::new(FunctionLibrary::default()),
            log: Arc::new(ProcessingLog::default()),
            sources: BTreeMap::new(),
            plans: Vec::new(),
            queries: Vec::new(),
            settings,
            backlog: Vec::new(),
        };
        for one in millpond_sql::parse(statements).unwrap_or_else(|e| panic!("{e}")) {
            let analysed = analyse(&one.statement, &one.text, &World(&bench));
            match analysed.unwrap_or_else(|e| panic!("{}: {e}", one.text)) {
                Analysed::CreateSource { source, create_topic, .. } => {
                    bench.create_topic(&source.topic, create_topic.map_or(1, |(p, _)| p));
                    bench.sources.insert(source.name.clone(), Arc::new(source));
                }
                Analysed::CreateAs { query, sink, .. } => {
                    bench.create_topic(&sink.source.topic, sink.source.partitions);
                    bench.sources.insert(sink.source.name.clone(), Arc::new(sink.source.clone()));
                    bench.plans.push((format!("Q{}", bench.plans.len()), query, sink.source, sink.timestamp));
                }
                Analysed::InsertInto { query, target, .. } => {
                    bench.plans.push((format!("Q{}", bench.plans.len()), query, target, None));
                }
                _ => panic!("{} is not for here", one.text),
            }
        }
        bench.restart();
        bench
    }

    fn create_topic(&self, name: &str, partitions: i32) {
        if self.storage.topic(name).is_none() {
            let spec = TopicSpec { name: name.into(), partitions, replicas: 1, configs: BTreeMap::new() };
            self.storage.create_topic(spec).unwrap();
        }
    }

    /// Forgets all queries and takes them up from storage.
    pub fn restart(&mut self) {
        self.queries = self
            .plans
            .iter()
            .map(|(id, plan, target, timestamp)| {
                let spec = QuerySpec {
                    id: id.clone(),
                    plan: plan.clone(),
                    output: Output::Sink { target: target.clone(), materialise: true, timestamp: timestamp.clone() },
                    settings: self.settings.clone(),
                    start: Vec::new(),
                    backlog: self.backlog.clone(),
                    transient: false,
                    memory: Default::default(),
                    schemas: Arc::new(TwoSchemas),
                };
                let clock = Arc::new(ManualClock::at(0));
                let query = Query::new(spec, self.storage.clone(), self.library.clone(), clock, self.log.clone())
                    .unwrap_or_else(|e| panic!("{e}"));
                if self.settings.task_rows_min == 1 { query.helped_by(&Arc::new(Crew::new(4))) } else { query }
            })
            .collect();
    }

    /// What is in the topics now is there from before the queries.
    pub fn pin_backlog(&mut self) {
        for topic in self.storage.topics() {
            for partition in 0..topic.partitions {
                let at = TopicPartition { topic: topic.id, partition };
                self.backlog.push((at, self.storage.offsets(at).unwrap().end));
            }
        }
        self.restart();
    }

    pub fn produce(&self, topic: &str, partition: i32, timestamp: i64, key: Option<&str>, value: Option<&str>) {
        let bytes = |text: Option<&str>| text.map(|t| t.as_bytes().to_vec());
        let record = OwnedRecord { key: bytes(key), value: bytes(value), timestamp, headers: vec![] };
        let id = self.storage.topic(topic).unwrap_or_else(|| panic!("no topic {topic}")).id;
        self.storage.produce(TopicPartition { topic: id, partition }, record).unwrap();
    }

    /// A record with an AVRO key, where producers put it.
    fn produce_framed(&self, topic: &str, time: i64, id: u8, key: char, value: &str) {
        let bytes = format!("\0\0\0\0{}\u{2}{key}", char::from(id));
        let partitions = self.storage.topic(topic).unwrap().partitions;
        let partition = millpond_types::ports::partition_of(bytes.as_bytes(), partitions);
        self.produce(topic, partition, time, Some(&bytes), Some(value));
    }

    /// Steps all queries, in order, until none has anything to do.
    pub fn drain(&mut self) -> Result<()> {
        self.queries.iter_mut().try_for_each(Query::drain)
    }

    /// One step of each query.
    pub fn step(&mut self) {
        for query in &mut self.queries {
            match query.step() {
                StepOutcome::Idle | StepOutcome::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The records of a topic as lines, by partition.
    pub fn topic(&self, name: &str) -> String {
        let info = self.storage.topic(name).unwrap();
        let source = self.sources.values().find(|s| s.topic == name).unwrap();
        let mut out = String::new();
        for partition in 0..info.partitions {
            for record in self.storage.records(TopicPartition { topic: info.id, partition }) {
                if info.partitions > 1 {
                    write!(out, "{partition}: ").unwrap();
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                match (&record.key, source.window) {
                    (None, _) => out.push_str("null"),
                    (Some(key), None) => out.push_str(&text(key)),
                    (Some(key), Some(window)) if window.size_ms.is_some() => {
                        let (inner, start) = millpond_formats::windowed::read_time_key(key).unwrap();
                        write!(out, "{}@{start}", text(inner)).unwrap();
                    }
                    (Some(key), Some(_)) => {
                        let (inner, start, end) = millpond_formats::windowed::read_session_key(key).unwrap();
                        write!(out, "{}@{start}..{end}", text(inner)).unwrap();
                    }
                }
                let value = record.value.as_deref().map_or("null".into(), text);
                writeln!(out, " {value} {}", record.timestamp).unwrap();
            }
        }
        out
    }

    fn log_lines(&self) -> String {
        let mut out = String::new();
        for line in self.log.lines() {
            writeln!(out, "{:?} {} {}/{}: {}", line.kind, line.topic, line.partition, line.offset, line.message)
                .unwrap();
        }
        out
    }
}

/// Every change is sent.
fn each() -> QuerySettings {
    QuerySettings { coalesce: false, ..QuerySettings::default() }
}

/// Runs a script: `topic[/partition] time key value` lines (`null` is NULL), and `restart`; then shows a topic. The
/// result must be the same for steps of one row, of a few, and of all, and with restarts between all steps.
#[track_caller]
fn check_with(settings: &QuerySettings, statements: &str, script: &str, topic: &str, expected: Expect) {
    let mut shown = Vec::new();
    let alone = QuerySettings::default().task_rows_min;
    for (rows, restarts, task_rows_min) in
        [(4096, false, alone), (1, false, alone), (3, true, alone), (4096, false, 1), (3, true, 1)]
    {
        let settings = QuerySettings { step_rows_max: rows, task_rows_min, ..settings.clone() };
        let mut bench = Bench::new(statements, settings);
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if line == "restart" {
                bench.drain().unwrap_or_else(|e| panic!("{e}"));
                bench.restart();
                continue;
            }
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let [to, time, key, value] = parts[..] else { panic!("{line}") };
            let (name, partition) = to.split_once('/').unwrap_or((to, "0"));
            let null = |text: &'static str| move |t: &str| t == text;
            let given = |t| if null("null")(t) { None } else { Some(t) };
            bench.produce(name, partition.parse().unwrap(), time.parse().unwrap(), given(key), given(value));
        }
        if restarts {
            for _ in 0..1000 {
                bench.step();
                bench.restart();
            }
        }
        bench.drain().unwrap_or_else(|e| panic!("{e}"));
        shown.push(bench.topic(topic) + &bench.log_lines());
    }
    expected.assert_eq(&shown[0]);
    assert_eq!(shown[0], shown[1], "steps of one row");
    assert_eq!(shown[0], shown[2], "steps of three rows, restarts between them");
    assert_eq!(shown[0], shown[3], "on four threads");
    assert_eq!(shown[0], shown[4], "on four threads, steps of three rows, restarts between them");
}

#[track_caller]
fn check(statements: &str, script: &str, topic: &str, expected: Expect) {
    check_with(&each(), statements, script, topic, expected);
}

const STREAM: &str = "CREATE STREAM S (K STRING KEY, V INT, T STRING) \
                      WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1);";

fn over(statements: &str) -> String {
    format!("{STREAM} {statements}")
}

#[test]
fn filter_and_project() {
    check(
        &over("CREATE STREAM O AS SELECT K, V + 1 AS W FROM S WHERE V > 1;"),
        r#"
        s 10 a {"V": 1}
        s 20 b {"V": 2, "T": "x"}
        s 15 null {"V": 3}
        s 30 c null
        s 40 d {"V": "no"}
        s 50 e {"V": 5}
        "#,
        "O",
        expect![[r#"
            b {"W":3} 20
            null {"W":4} 15
            e {"W":6} 50
            Deserialization s 0/4: the record's value could not be read: column "V": expected a whole number of 32 bits, found other text at byte 6
        "#]],
    );
}

/// However rows are passed from one operator to the next.
#[test]
fn lines_of_the_log_are_in_the_order_of_rows() {
    check(
        &over("CREATE STREAM O AS SELECT K, 10 / V AS W FROM S WHERE 6 / V > 0;"),
        r#"
        s 10 a {"V": 0}
        s 20 b {"V": "no"}
        s 30 c {"V": 0}
        s 40 d {"V": 2}
        s 50 e {"V": "no"}
        "#,
        "O",
        expect![[r#"
            d {"W":5} 40
            Expression s 0/0: division by zero
            Deserialization s 0/1: the record's value could not be read: column "V": expected a whole number of 32 bits, found other text at byte 6
            Expression s 0/2: division by zero
            Deserialization s 0/4: the record's value could not be read: column "V": expected a whole number of 32 bits, found other text at byte 6
        "#]],
    );
}

#[test]
fn null_values_pass_a_projection() {
    check(
        &over("CREATE STREAM O AS SELECT K, T FROM S;"),
        r#"
        s 10 a null
        s 20 b {"T": "x"}
        "#,
        "O",
        expect![[r#"
            a null 10
            b {"T":"x"} 20
        "#]],
    );
}

#[test]
fn partition_by() {
    check(
        "CREATE STREAM S (K STRING KEY, V STRING) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=3);
         CREATE STREAM O AS SELECT * FROM S PARTITION BY V;",
        r#"
        s/0 10 a {"V": "x"}
        s/1 20 b {"V": "x"}
        s/2 15 c {"V": "y"}
        s/2 16 d null
        s/0 17 e {"V": "z"}
        "#,
        "O",
        expect![[r#"
            0: y {"K":"c"} 15
            1: x {"K":"a"} 10
            1: x {"K":"b"} 20
            2: null null 16
            2: z {"K":"e"} 17
        "#]],
    );
}

#[test]
fn a_table_filter_takes_back() {
    check(
        "CREATE TABLE T (K STRING PRIMARY KEY, V INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE TABLE O AS SELECT K, V FROM T WHERE V > 1;",
        r#"
        t 10 a {"V": 1}
        t 20 a {"V": 2}
        t 30 a {"V": 1}
        t 40 a {"V": 0}
        t 50 b null
        t 60 c {"V": 7}
        t 70 c null
        t 80 null {"V": 7}
        "#,
        "O",
        expect![[r#"
            a {"V":2} 20
            a null 30
            c {"V":7} 60
            c null 70
            Skipped t 0/7: a table's record has no key
        "#]],
    );
}

#[test]
fn a_backlog_is_merged_by_time_and_what_follows_by_commit() {
    let mut bench = Bench::new(
        "CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=2);
         CREATE STREAM O WITH (PARTITIONS=1) AS SELECT K, V FROM S;",
        QuerySettings { step_rows_max: 2, ..each() },
    );
    for (partition, time) in [(0, 30), (0, 10), (1, 20), (1, 40)] {
        bench.produce("s", partition, time, Some("a"), Some("{}"));
    }
    bench.pin_backlog();
    for (partition, time) in [(1, 9), (0, 8), (1, 7)] {
        bench.produce("s", partition, time, Some("a"), Some("{}"));
    }
    bench.drain().unwrap();
    let times: Vec<String> =
        bench.topic("O").lines().map(|l| l.rsplit(' ').next().unwrap_or_default().to_string()).collect();
    assert_eq!(times.join(" "), "20 30 10 40 9 8 7");
}

#[test]
fn results_can_be_read() {
    let mut bench = Bench::new(
        "CREATE TABLE T (K STRING PRIMARY KEY, V INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=2);
         CREATE TABLE O AS SELECT K, V * 2 AS W FROM T;",
        QuerySettings::default(),
    );
    bench.produce("t", 0, 10, Some("a"), Some(r#"{"V": 1}"#));
    bench.produce("t", 0, 20, Some("b"), Some(r#"{"V": 2}"#));
    bench.produce("t", 0, 30, Some("a"), None);
    bench.drain().unwrap();
    let (id, plan, target, _) = &bench.plans[0];
    let layout = TableLayout::new(id, &plan.root.schema, false);
    let mut rows = 0;
    for partition in 0..target.partitions {
        let limits = ScanLimits { entries_max: 100, bytes_max: 1 << 20 };
        let (found, next) =
            layout.scan(bench.storage.as_ref(), partition, None, WindowBounds::default(), limits).unwrap();
        assert_eq!(next, None);
        if found.len == 1 {
            use arrow::array::AsArray;
            assert_eq!(found.keys[0].as_string::<i32>().value(0), "b");
            assert_eq!(found.values[0].as_primitive::<arrow::datatypes::Int32Type>().value(0), 4);
            assert_eq!(found.times(), [20]);
            let (again, more) =
                layout.get(bench.storage.as_ref(), partition, &found.keys, 0, WindowBounds::default(), limits).unwrap();
            assert_eq!((again.len, more), (1, false));
        }
        rows += found.len;
    }
    assert_eq!(rows, 1);
}

const JOINED: &str = "CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE STREAM R (K STRING KEY, W INT) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE TABLE T (K STRING PRIMARY KEY, N STRING) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE TABLE U (K STRING PRIMARY KEY, M STRING) WITH (KAFKA_TOPIC='u', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE TABLE F (K STRING PRIMARY KEY, REF STRING, X INT) WITH (KAFKA_TOPIC='f', VALUE_FORMAT='JSON', PARTITIONS=1);";

fn joined(statement: &str) -> String {
    format!("{JOINED} {statement}")
}

const STREAM_AND_TABLE: &str = r#"
    s 10 a {"V": 1}
    t 5 a {"N": "one"}
    s 20 a {"V": 2}
    t 30 a {"N": "two"}
    s 25 a {"V": 3}
    t 40 a null
    s 50 a {"V": 4}
    s 60 null {"V": 5}
    s 70 b null
"#;

#[test]
fn a_stream_sees_the_table_as_of_its_row() {
    check(
        &joined("CREATE STREAM O AS SELECT S.K, V, N FROM S JOIN T ON S.K = T.K;"),
        STREAM_AND_TABLE,
        "O",
        expect![[r#"
            a {"V":2,"N":"one"} 20
            a {"V":3,"N":"two"} 25
            Skipped s 0/4: a row to join has no key
            Skipped s 0/5: a row to join has no value
        "#]],
    );
}

#[test]
fn a_left_join_keeps_rows_without_a_match() {
    check(
        &joined("CREATE STREAM O AS SELECT S.K, V, N FROM S LEFT JOIN T ON S.K = T.K;"),
        STREAM_AND_TABLE,
        "O",
        expect![[r#"
            a {"V":1,"N":null} 10
            a {"V":2,"N":"one"} 20
            a {"V":3,"N":"two"} 25
            a {"V":4,"N":null} 50
            null {"V":5,"N":null} 60
            Skipped s 0/5: a row to join has no value
        "#]],
    );
}

/// A key's bytes name the schema that it is written with, and bytes say in which partition a producer puts it: one key is in
/// several partitions of its topic, and in others of another topic.
#[test]
fn keys_that_name_schemas_meet_whatever_schema_they_name() {
    let topics = "CREATE STREAM L (K STRING KEY, X STRING) \
           WITH (KAFKA_TOPIC='l', KEY_FORMAT='AVRO', VALUE_FORMAT='JSON', PARTITIONS=4); \
         CREATE STREAM R (K STRING KEY, X STRING) \
           WITH (KAFKA_TOPIC='r', KEY_FORMAT='AVRO', VALUE_FORMAT='JSON', PARTITIONS=4); \
         CREATE TABLE T (K STRING PRIMARY KEY, X STRING) \
           WITH (KAFKA_TOPIC='r', KEY_FORMAT='AVRO', VALUE_FORMAT='JSON', PARTITIONS=4); \
         CREATE TABLE U (K STRING PRIMARY KEY, X STRING) \
           WITH (KAFKA_TOPIC='l', KEY_FORMAT='AVRO', VALUE_FORMAT='JSON', PARTITIONS=4);";
    for (query, expected) in [
        ("CREATE STREAM O AS SELECT L.K AS K, T.X AS Y FROM L JOIN T ON L.K = T.K;", 8),
        // Only one side is keyed anew.
        ("CREATE STREAM O AS SELECT T.K AS K, T.X AS Y FROM L JOIN T ON L.X = T.K;", 8),
        ("CREATE STREAM O AS SELECT L.K AS K, R.X AS Y FROM L JOIN R WITHIN 1 HOUR ON L.K = R.K;", 8),
        ("CREATE STREAM O AS SELECT R.K AS K, R.X AS Y FROM L JOIN R WITHIN 1 HOUR ON L.X = R.K;", 8),
        ("CREATE TABLE O AS SELECT U.K AS K, T.X AS Y FROM U JOIN T ON U.K = T.K;", 8),
        ("CREATE TABLE O AS SELECT K, COUNT(*) AS Y FROM L GROUP BY K;", 8),
        ("CREATE TABLE O AS SELECT X, COUNT(*) AS Y FROM U GROUP BY X;", 8),
    ] {
        for task_rows_min in [1, QuerySettings::default().task_rows_min] {
            let settings = QuerySettings { task_rows_min, ..QuerySettings::default() };
            let mut bench = Bench::new(&format!("{topics} {query}"), settings);
            // Each key is written with one schema on one side; on the other with both, the second counts.
            for (time, topic, id) in [(1, "r", 1), (2, "r", 2), (3, "l", 1)] {
                for key in 'a'..='h' {
                    let x = if topic == "l" { key.to_string() } else { format!("x{id}") };
                    bench.produce_framed(topic, time, id, key, &format!("{{\"X\": \"{x}\"}}"));
                }
                bench.drain().unwrap();
            }
            let mut last = BTreeMap::new();
            for line in bench.topic("O").lines() {
                let (key, value) = line.rsplit_once(" {").unwrap();
                let key = key.chars().last().unwrap();
                last.insert(key, value.rsplit_once(' ').unwrap().0.to_owned());
            }
            assert_eq!(last.len(), expected, "{query}: {last:?}");
            if query.contains("T.X AS Y") {
                assert!(last.values().all(|v| v.contains("x2")), "{query}: {last:?}");
            }
        }
    }
    // One key, two schemas: one group.
    for (query, expected) in [
        ("CREATE TABLE O AS SELECT K, COUNT(*) AS N FROM L GROUP BY K;", "2"),
        ("CREATE TABLE O AS SELECT X, COUNT(*) AS N FROM U GROUP BY X;", "8"),
    ] {
        let mut bench = Bench::new(&format!("{topics} {query}"), QuerySettings::default());
        for id in [1, 2] {
            for key in 'a'..='h' {
                bench.produce_framed("l", 1, id, key, "{\"X\": \"x\"}");
            }
            bench.drain().unwrap();
        }
        let shown = bench.topic("O");
        assert!(shown.lines().last().unwrap().contains(&format!("{{\"N\":{expected}}}")), "{query}: {shown}");
    }
}

#[test]
fn a_stream_is_rekeyed_for_a_join() {
    check(
        "CREATE STREAM S (K STRING KEY, REF STRING) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=2);
         CREATE TABLE T (K STRING PRIMARY KEY, N STRING) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=3);
         CREATE STREAM O AS SELECT T.K, S.K AS SK, N FROM S JOIN T ON S.REF = T.K;",
        r#"
        t/1 1 x {"N": "one"}
        t/0 1 y {"N": "two"}
        t/2 1 z {"N": "three"}
        s/0 10 a {"REF": "x"}
        s/1 11 b {"REF": "y"}
        s/0 12 c {"REF": "z"}
        s/1 13 d {"REF": "none"}
        "#,
        "O",
        expect![[r#"
            0: x {"SK":"a","N":"one"} 10
            0: y {"SK":"b","N":"two"} 11
            0: z {"SK":"c","N":"three"} 12
        "#]],
    );
}

const TWO_STREAMS: &str = r#"
    s 1000 a {"V": 1}
    r 1500 a {"W": 1}
    r 500 a {"W": 2}
    r 3000 a {"W": 3}
    s 2500 a {"V": 2}
    s 2600 null {"V": 9}
    r 2600 a null
    s 9000 b {"V": 3}
    r 9000 a {"W": 4}
    s 8500 a {"V": 4}
    r 30000 c {"W": 5}
    s 1000 a {"V": 6}
    s 30000 c {"V": 7}
"#;

#[test]
fn streams_meet_within_their_window() {
    check(
        &joined(
            "CREATE STREAM O AS SELECT S.K, V, W FROM S JOIN R WITHIN 1 SECOND GRACE PERIOD 2 SECONDS ON S.K = R.K;",
        ),
        TWO_STREAMS,
        "O",
        expect![[r#"
            a {"V":1,"W":1} 1500
            a {"V":1,"W":2} 1000
            a {"V":2,"W":1} 2500
            a {"V":2,"W":3} 3000
            a {"V":4,"W":4} 9000
            c {"V":7,"W":5} 30000
            Skipped s 0/2: a row to join has no key
            Skipped r 0/3: a row to join has no value
        "#]],
    );
}

#[test]
fn a_left_stream_row_waits_for_its_window_to_pass() {
    check(
        &joined(
            "CREATE STREAM O AS SELECT S.K, V, W FROM S LEFT JOIN R WITHIN 1 SECOND GRACE PERIOD 2 SECONDS ON S.K = R.K;",
        ),
        TWO_STREAMS,
        "O",
        expect![[r#"
            a {"V":1,"W":1} 1500
            a {"V":1,"W":2} 1000
            a {"V":2,"W":1} 2500
            a {"V":2,"W":3} 3000
            null {"V":9,"W":null} 2600
            a {"V":4,"W":4} 9000
            b {"V":3,"W":null} 9000
            a {"V":6,"W":null} 1000
            c {"V":7,"W":5} 30000
            Skipped r 0/3: a row to join has no value
        "#]],
    );
}

#[test]
fn a_full_stream_join_without_grace_is_eager() {
    check(
        &joined(
            "CREATE STREAM O AS SELECT ROWKEY, V, W FROM S FULL OUTER JOIN R WITHIN (1 SECOND, 0 SECONDS) ON S.K = R.K;",
        ),
        TWO_STREAMS,
        "O",
        expect![[r#"
            a {"V":1,"W":null} 1000
            a {"V":null,"W":1} 1500
            a {"V":1,"W":2} 1000
            a {"V":null,"W":3} 3000
            a {"V":2,"W":1} 2500
            null {"V":9,"W":null} 2600
            b {"V":3,"W":null} 9000
            a {"V":null,"W":4} 9000
            a {"V":4,"W":null} 8500
            c {"V":null,"W":5} 30000
            a {"V":6,"W":2} 1000
            c {"V":7,"W":5} 30000
            Skipped r 0/3: a row to join has no value
        "#]],
    );
}

const TWO_TABLES: &str = r#"
    t 10 a {"N": "n1"}
    u 15 a {"M": "m1"}
    t 12 a {"N": "n2"}
    u 20 b {"M": "m2"}
    u 22 b null
    t 30 a null
    u 31 a null
    u 32 a null
"#;

#[test]
fn tables_join_by_key() {
    for (kind, expected) in [
        (
            "JOIN",
            expect![[r#"
            a {"N":"n1","M":"m1"} 15
            a {"N":"n2","M":"m1"} 15
            a null 30
        "#]],
        ),
        (
            "LEFT JOIN",
            expect![[r#"
            a {"N":"n1","M":null} 10
            a {"N":"n1","M":"m1"} 15
            a {"N":"n2","M":"m1"} 15
            a null 30
        "#]],
        ),
        (
            "FULL OUTER JOIN",
            expect![[r#"
            a {"N":"n1","M":null} 10
            a {"N":"n1","M":"m1"} 15
            a {"N":"n2","M":"m1"} 15
            b {"N":null,"M":"m2"} 20
            b null 22
            a {"N":null,"M":"m1"} 30
            a null 31
        "#]],
        ),
    ] {
        let key = if kind == "FULL OUTER JOIN" { "ROWKEY" } else { "T.K" };
        check(
            &joined(&format!("CREATE TABLE O AS SELECT {key}, N, M FROM T {kind} U ON T.K = U.K;")),
            TWO_TABLES,
            "O",
            expected,
        );
    }
}

#[test]
fn a_filter_above_a_table_join_takes_back() {
    check(
        &joined("CREATE TABLE O AS SELECT T.K, N, M FROM T JOIN U ON T.K = U.K WHERE M = 'm1';"),
        r#"
        t 10 a {"N": "n1"}
        u 15 a {"M": "m0"}
        u 16 a {"M": "m1"}
        u 17 a {"M": "m2"}
        u 18 a {"M": "m3"}
        u 19 a {"M": "m1"}
        t 20 a null
        "#,
        "O",
        expect![[r#"
            a {"N":"n1","M":"m1"} 16
            a null 17
            a {"N":"n1","M":"m1"} 19
            a null 20
        "#]],
    );
}

const FOREIGN: &str = r#"
    f 10 1 {"REF": "a", "X": 1}
    t 15 a {"N": "n1"}
    f 12 2 {"REF": "a", "X": 2}
    f 13 3 {"X": 3}
    t 20 b {"N": "n2"}
    f 21 1 {"REF": "b", "X": 4}
    t 22 a {"N": "n3"}
    f 23 2 {"REF": "c", "X": 5}
    t 24 b null
    f 25 1 null
    f 26 9 null
"#;

#[test]
fn a_foreign_key_joins_tables() {
    for (kind, expected) in [
        (
            "JOIN",
            expect![[r#"
        1 {"X":1,"N":"n1"} 15
        2 {"X":2,"N":"n1"} 15
        1 {"X":4,"N":"n2"} 21
        2 {"X":2,"N":"n3"} 22
        2 null 23
        1 null 24
        1 null 25
    "#]],
        ),
        (
            "LEFT JOIN",
            expect![[r#"
        1 {"X":1,"N":null} 10
        1 {"X":1,"N":"n1"} 15
        2 {"X":2,"N":"n1"} 15
        3 {"X":3,"N":null} 13
        1 {"X":4,"N":"n2"} 21
        2 {"X":2,"N":"n3"} 22
        2 {"X":5,"N":null} 23
        1 {"X":4,"N":null} 24
        1 null 25
    "#]],
        ),
    ] {
        check(
            &joined(&format!("CREATE TABLE O AS SELECT F.K, X, N FROM F {kind} T ON F.REF = T.K;")),
            FOREIGN,
            "O",
            expected,
        );
    }
}

#[test]
fn a_right_row_with_many_left_rows_takes_several_steps() {
    let settings = QuerySettings { emit_rows_max: 2, ..each() };
    let mut script = String::new();
    for i in 0..7 {
        writeln!(script, "f {i} {i} {{\"REF\": \"a\", \"X\": {i}}}").unwrap();
    }
    script += "t 10 a {\"N\": \"n1\"}\nf 11 9 {\"REF\": \"a\", \"X\": 9}";
    check_with(
        &settings,
        &joined("CREATE TABLE O AS SELECT F.K, X, N FROM F JOIN T ON F.REF = T.K;"),
        &script,
        "O",
        expect![[r#"
            0 {"X":0,"N":"n1"} 10
            1 {"X":1,"N":"n1"} 10
            2 {"X":2,"N":"n1"} 10
            3 {"X":3,"N":"n1"} 10
            4 {"X":4,"N":"n1"} 10
            5 {"X":5,"N":"n1"} 10
            6 {"X":6,"N":"n1"} 10
            9 {"X":9,"N":"n1"} 11
        "#]],
    );
}

#[test]
fn subscriptions_without_a_left_row_hide_no_others() {
    let settings = QuerySettings { emit_rows_max: 2, ..each() };
    let mut bench = Bench::new(&joined("CREATE TABLE O AS SELECT F.K, X, N FROM F JOIN T ON F.REF = T.K;"), settings);
    for i in 0..9 {
        let key = i.to_string();
        bench.produce("f", 0, i, Some(&key), Some(&format!("{{\"REF\": \"a\", \"X\": {i}}}")));
    }
    bench.drain().unwrap();
    // Subscriptions have no value; rows have one.
    let stored = StateReader::range(&*bench.storage, &[0], &[0xff], false, 1000).unwrap();
    let lost: Vec<_> = stored.into_iter().filter(|(_, value)| !value.is_empty()).take(5).collect();
    let state: Vec<_> = lost.into_iter().map(|(key, _)| (key.to_vec(), None)).collect();
    assert_eq!(state.len(), 5);
    bench.storage.commit(Step { state: state.into(), ..Step::default() }).wait();
    bench.restart();
    bench.produce("t", 0, 10, Some("a"), Some("{\"N\": \"n1\"}"));
    bench.drain().unwrap();
    assert_eq!(bench.topic("O").lines().count(), 4, "{}", bench.topic("O"));
}

#[test]
fn a_row_with_many_matches_takes_several_steps() {
    let streams = "CREATE STREAM L (K STRING KEY, X INT) WITH (KAFKA_TOPIC='l', VALUE_FORMAT='JSON', PARTITIONS=1);
                   CREATE STREAM R (K STRING KEY, Y INT) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=1);";
    for settings in [each(), QuerySettings { emit_rows_max: 3, ..each() }] {
        let mut script = String::new();
        for i in 0..8 {
            writeln!(script, "r {} a {{\"Y\": {i}}}", 1_000 + i * 200).unwrap();
        }
        script += "l 2000 a {\"X\": 1}\nl 2001 b {\"X\": 2}\nrestart\nr 2100 b {\"Y\": 9}\n\
                   r 9000 c {\"Y\": 9}\nl 9000 d {\"X\": 3}\nl 9100 e {\"X\": 4}\nl 30000 f {\"X\": 5}";
        check_with(
            &settings,
            &format!(
                "{streams} CREATE STREAM O AS SELECT ROWKEY, X, Y FROM L FULL OUTER JOIN R
                 WITHIN 1 SECONDS GRACE PERIOD 1 SECONDS ON L.K = R.K;"
            ),
            &script,
            "O",
            expect![[r#"
                a {"X":1,"Y":0} 2000
                a {"X":1,"Y":1} 2000
                a {"X":1,"Y":2} 2000
                a {"X":1,"Y":3} 2000
                a {"X":1,"Y":4} 2000
                a {"X":1,"Y":5} 2000
                a {"X":1,"Y":6} 2200
                a {"X":1,"Y":7} 2400
                b {"X":2,"Y":9} 2100
                d {"X":3,"Y":null} 9000
                c {"X":null,"Y":9} 9000
                e {"X":4,"Y":null} 9100
            "#]],
        );
    }
}

/// Two streams over one topic: each record is a row of both sides.
#[test]
fn a_topic_meets_itself_in_several_steps() {
    let settings = QuerySettings { emit_rows_max: 3, ..each() };
    let mut script = String::new();
    for i in 0..5 {
        writeln!(script, "l {} a {{\"X\": {i}}}", 1_000 + i).unwrap();
    }
    check_with(
        &settings,
        "CREATE STREAM A (K STRING KEY, X INT) WITH (KAFKA_TOPIC='l', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE STREAM B (K STRING KEY, X INT) WITH (KAFKA_TOPIC='l', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE STREAM O AS SELECT A.K AS K, A.X AS X, B.X AS Y FROM A JOIN B WITHIN 1 SECONDS ON A.K = B.K;",
        &script,
        "O",
        expect![[r#"
            a {"X":0,"Y":0} 1000
            a {"X":1,"Y":0} 1001
            a {"X":0,"Y":1} 1001
            a {"X":1,"Y":1} 1001
            a {"X":2,"Y":0} 1002
            a {"X":2,"Y":1} 1002
            a {"X":0,"Y":2} 1002
            a {"X":1,"Y":2} 1002
            a {"X":2,"Y":2} 1002
            a {"X":3,"Y":0} 1003
            a {"X":3,"Y":1} 1003
            a {"X":3,"Y":2} 1003
            a {"X":0,"Y":3} 1003
            a {"X":1,"Y":3} 1003
            a {"X":2,"Y":3} 1003
            a {"X":3,"Y":3} 1003
            a {"X":4,"Y":0} 1004
            a {"X":4,"Y":1} 1004
            a {"X":4,"Y":2} 1004
            a {"X":4,"Y":3} 1004
            a {"X":0,"Y":4} 1004
            a {"X":1,"Y":4} 1004
            a {"X":2,"Y":4} 1004
            a {"X":3,"Y":4} 1004
            a {"X":4,"Y":4} 1004
        "#]],
    );
}

#[test]
fn a_large_step_is_spread_over_idle_workers() {
    let statements = "CREATE STREAM S (K STRING KEY, V INT, AT BIGINT)
           WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=4, TIMESTAMP='AT');
         CREATE TABLE T (K STRING PRIMARY KEY, G INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=4);
         CREATE TABLE O AS SELECT V, COUNT(*) AS N, COLLECT_LIST(S.K) AS L FROM S LEFT JOIN T ON S.K = T.K WHERE V <> 3
           GROUP BY V;";
    let run = |tasks: bool, value_less: bool| {
        let settings = QuerySettings { task_rows_min: if tasks { 1 } else { usize::MAX }, ..each() };
        let mut bench = Bench::new(statements, settings);
        for i in 0..800_i32 {
            let key = format!("k{}", i % 50);
            let partition = millpond_types::ports::partition_of(key.as_bytes(), 4);
            if i % 7 == 0 {
                bench.produce("t", partition, i64::from(i), Some(&key), Some(&format!("{{\"G\": {}}}", i % 3)));
            }
            let value = format!("{{\"V\": {}, \"AT\": {}}}", i % 13, i * 10 - i % 5 * 40);
            let gone = value_less && i == 777;
            bench.produce("s", partition, 5, Some(&key), (!gone).then_some(&value));
        }
        bench.drain().unwrap_or_else(|e| panic!("{e}"));
        let metrics: BTreeMap<_, _> = bench.queries[0].metrics().list().into_iter().collect();
        (bench.topic("O"), metrics["steps_helped"])
    };
    for value_less in [false, true] {
        let ((one, none), (four, helped)) = (run(false, value_less), run(true, value_less));
        assert!(one.lines().count() > 500, "{}", one.lines().count());
        assert_eq!(one, four);
        // A record without a value has the greatest time before it, wherever that was.
        assert_eq!((none, helped > 0), (0, !value_less));
    }
}

/// Large rows, of each of which many meet one: what is read of state at once is bounded by size, whatever their number.
#[test]
fn large_rows_are_read_and_joined_a_few_at_a_time() {
    const ROWS: usize = 80;
    const LARGE: usize = 100_000;
    let statements = "CREATE STREAM L (K STRING KEY, X INT) WITH (KAFKA_TOPIC='l', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE STREAM R (K STRING KEY, T STRING) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE TABLE P (K STRING PRIMARY KEY, F STRING) WITH (KAFKA_TOPIC='p', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE TABLE F (K STRING PRIMARY KEY, T STRING) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE STREAM O AS SELECT L.K, X, LEN(T) + X AS N FROM L JOIN R WITHIN 1 SECONDS GRACE PERIOD 1 SECONDS ON L.K = R.K;
         CREATE STREAM Q AS SELECT L.K, X, LEN(T) AS N FROM L JOIN F ON L.K = F.K;
         CREATE TABLE V AS SELECT P.K, LEN(F.T) AS N FROM P JOIN F ON P.F = F.K;";
    let run = |settings: QuerySettings| {
        let mut bench = Bench::new(statements, settings);
        for i in 0..20 {
            bench.produce("p", 0, 1, Some(&i.to_string()), Some(r#"{"F": "a"}"#));
        }
        for i in 0..ROWS {
            let text = format!("{{\"T\": \"{}\"}}", "x".repeat(LARGE + i));
            bench.produce("r", 0, 1_000 + i as i64, Some("a"), Some(&text));
        }
        // Nothing of it is in memory.
        bench.drain().unwrap_or_else(|e| panic!("{e}"));
        bench.restart();
        for i in 0..4 {
            bench.produce("l", 0, 1_050, Some("a"), Some(&format!("{{\"X\": {i}}}")));
        }
        bench.drain().unwrap_or_else(|e| panic!("{e}"));
        (["O", "Q", "V"].map(|name| bench.topic(name)), bench.storage.largest_read())
    };
    let small = QuerySettings { step_bytes_max: 1 << 20, step_write_bytes_max: 1 << 20, ..each() };
    let ([joined, looked_up, foreign], read) = run(small);
    assert_eq!(joined.lines().count(), 4 * ROWS);
    assert!(joined.starts_with("a {\"X\":0,\"N\":100000} 1050\na {\"X\":0,\"N\":100001} 1050\n"), "{}", &joined[..99]);
    assert!(read < 2 << 20, "{read} bytes were read at once");
    let ([all, all_looked_up, all_foreign], read) = run(QuerySettings { step_write_bytes_max: 1 << 30, ..each() });
    assert!(read > 6 << 20, "{read}: the other run was bounded by something else");
    assert_eq!((joined, looked_up, foreign), (all, all_looked_up, all_foreign));
}

/// Groups whose states are large, all of them touched by small rows.
#[test]
fn large_groups_are_read_and_shown_a_few_at_a_time() {
    let statements =
        "CREATE STREAM S (K STRING KEY, T STRING) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE TABLE O AS SELECT K, LEN(ARRAY_JOIN(COLLECT_LIST(T), '')) AS N FROM S GROUP BY K;
         CREATE TABLE H AS SELECT K, LEN(ARRAY_JOIN(COLLECT_LIST(T), '')) AS N FROM S
           WINDOW HOPPING (SIZE 40 MILLISECONDS, ADVANCE BY 10 MILLISECONDS) GROUP BY K;
         CREATE TABLE E AS SELECT K, LEN(ARRAY_JOIN(COLLECT_LIST(T), '')) AS N FROM S
           WINDOW TUMBLING (SIZE 10 MILLISECONDS, GRACE PERIOD 5 MILLISECONDS) GROUP BY K EMIT FINAL;
         CREATE TABLE Z AS SELECT K, LEN(ARRAY_JOIN(COLLECT_LIST(T), '')) AS N FROM S
           WINDOW SESSION (3 MILLISECONDS, GRACE PERIOD 5 MILLISECONDS) GROUP BY K EMIT FINAL;";
    let run = |settings: QuerySettings| {
        let mut bench = Bench::new(statements, settings);
        for (time, length) in [(0, 50_000), (1, 10), (2, 20), (3, 5), (100, 1)] {
            for key in 0..60 {
                let text = format!("{{\"T\": \"{}\"}}", "x".repeat(length));
                bench.produce("s", 0, time, Some(&key.to_string()), Some(&text));
            }
            // Nothing of it is in memory.
            bench.drain().unwrap_or_else(|e| panic!("{e}"));
            bench.restart();
        }
        (["O", "H", "E", "Z"].map(|name| bench.topic(name)), bench.storage.largest_read())
    };
    let limits = |bytes| QuerySettings { step_bytes_max: bytes, step_write_bytes_max: bytes, ..each() };
    let (few, read) = run(limits(300_000));
    assert!(read < 2_000_000, "{read} bytes were read at once");
    let (all, read) = run(limits(1 << 30));
    assert!(read > 2_500_000, "{read}: the other run was bounded by something else");
    for (few, all) in few.iter().zip(&all) {
        assert_eq!(few, all);
    }
    assert!(few[0].ends_with("59 {\"N\":50036} 100\n"), "{}", few[0].lines().last().unwrap_or_default());
}

const COUNTED: &str = "CREATE STREAM S (K STRING KEY, G STRING, V INT) \
                       WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1); \
                       CREATE TABLE T (K STRING PRIMARY KEY, G STRING, V INT) \
                       WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);";

fn counted(statement: &str) -> String {
    format!("{COUNTED} {statement}")
}

#[test]
fn groups_of_a_stream() {
    check(
        &counted("CREATE TABLE O AS SELECT G, COUNT(*) AS N, SUM(V) AS X FROM S GROUP BY G;"),
        r#"
        s 10 a {"G": "x", "V": 1}
        s 20 b {"G": "y", "V": 2}
        restart
        s 15 c {"G": "x", "V": 3}
        s 30 d {"G": null, "V": 3}
        s 30 d null
        s 40 null {"G": "y", "V": null}
        "#,
        "O",
        expect![[r#"
            x {"N":1,"X":1} 10
            y {"N":1,"X":2} 20
            x {"N":2,"X":4} 15
            y {"N":2,"X":2} 40
        "#]],
    );
}

#[test]
fn groups_of_a_table_take_back_what_was_replaced() {
    check(
        &counted("CREATE TABLE O AS SELECT G, COUNT(*) AS N, SUM(V) AS X FROM T GROUP BY G;"),
        r#"
        t 10 a {"G": "x", "V": 1}
        t 20 b {"G": "y", "V": 2}
        restart
        t 30 a {"G": "x", "V": 5}
        t 40 a {"G": "y", "V": 6}
        t 50 b null
        t 55 b null
        t 60 a {"G": null, "V": 6}
        "#,
        "O",
        expect![[r#"
            x {"N":1,"X":1} 10
            y {"N":1,"X":2} 20
            x {"N":1,"X":5} 30
            x {"N":0,"X":0} 40
            y {"N":2,"X":8} 40
            y {"N":1,"X":6} 50
            y {"N":0,"X":0} 60
        "#]],
    );
}

#[test]
fn having_takes_back_what_no_longer_holds() {
    check(
        &counted("CREATE TABLE O AS SELECT G, COUNT(*) AS N FROM T GROUP BY G HAVING COUNT(*) > 1;"),
        r#"
        t 10 a {"G": "x"}
        t 20 b {"G": "x"}
        t 30 c {"G": "x"}
        t 40 b {"G": "y"}
        t 50 c {"G": "y"}
        t 60 a null
        "#,
        "O",
        expect![[r#"
            x {"N":2} 20
            x {"N":3} 30
            x {"N":2} 40
            x null 50
            y {"N":2} 50
        "#]],
    );
}

const WINDOWED: &str = r#"
    s 1000 a {"V": 1}
    s 9000 a {"V": 2}
    s 5000 b {"V": 3}
    s 12000 a {"V": 4}
    s 8000 a {"V": 5}
    restart
    s 16000 b {"V": 6}
    s 9999 a {"V": 7}
    s 11000 a {"V": 8}
    s 45000 c {"V": 9}
    s 14000 c {"V": 9}
"#;

#[test]
fn tumbling_windows_close_after_their_grace() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, SUM(V) AS X FROM S \
             WINDOW TUMBLING (SIZE 10 SECONDS, GRACE PERIOD 5 SECONDS) GROUP BY K;",
        ),
        WINDOWED,
        "O",
        expect![[r#"
            a@0 {"N":1,"X":1} 1000
            a@0 {"N":2,"X":3} 9000
            b@0 {"N":1,"X":3} 5000
            a@10000 {"N":1,"X":4} 12000
            a@0 {"N":3,"X":8} 9000
            b@10000 {"N":1,"X":6} 16000
            a@10000 {"N":2,"X":12} 12000
            c@40000 {"N":1,"X":9} 45000
            Late s 0/6: late row at 9999 for window [0, 10000), closed at 11000
            Late s 0/9: late row at 14000 for window [10000, 20000), closed at 40000
        "#]],
    );
}

#[test]
fn a_late_row_after_a_restart() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N FROM S \
             WINDOW TUMBLING (SIZE 10 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY K;",
        ),
        r#"
        s 5000 a {"V": 1}
        s 10000 b {"V": 1}
        restart
        s 9999 a {"V": 1}
        "#,
        "O",
        expect![[r#"
            a@0 {"N":1} 5000
            b@10000 {"N":1} 10000
            Late s 0/2: late row at 9999 for window [0, 10000), closed at 10000
        "#]],
    );
}

#[test]
fn hopping_windows_overlap() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, WINDOWSTART AS WS, WINDOWEND AS WE FROM S \
             WINDOW HOPPING (SIZE 10 SECONDS, ADVANCE BY 5 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY K;",
        ),
        WINDOWED,
        "O",
        expect![[r#"
            a@0 {"N":1,"WS":0,"WE":10000} 1000
            a@0 {"N":2,"WS":0,"WE":10000} 9000
            a@5000 {"N":1,"WS":5000,"WE":15000} 9000
            b@0 {"N":1,"WS":0,"WE":10000} 5000
            b@5000 {"N":1,"WS":5000,"WE":15000} 5000
            a@5000 {"N":2,"WS":5000,"WE":15000} 12000
            a@10000 {"N":1,"WS":10000,"WE":20000} 12000
            a@5000 {"N":3,"WS":5000,"WE":15000} 12000
            b@10000 {"N":1,"WS":10000,"WE":20000} 16000
            b@15000 {"N":1,"WS":15000,"WE":25000} 16000
            a@10000 {"N":2,"WS":10000,"WE":20000} 12000
            c@40000 {"N":1,"WS":40000,"WE":50000} 45000
            c@45000 {"N":1,"WS":45000,"WE":55000} 45000
            Late s 0/4: late row at 8000 for window [0, 10000), closed at 12000
            Late s 0/6: late row at 9999 for window [0, 10000), closed at 16000
            Late s 0/6: late row at 9999 for window [5000, 15000), closed at 16000
            Late s 0/7: late row at 11000 for window [5000, 15000), closed at 16000
            Late s 0/9: late row at 14000 for window [5000, 15000), closed at 45000
            Late s 0/9: late row at 14000 for window [10000, 20000), closed at 45000
        "#]],
    );
}

#[test]
fn sessions_merge() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, SUM(V) AS X FROM S \
             WINDOW SESSION (2 SECONDS, GRACE PERIOD 5 SECONDS) GROUP BY K;",
        ),
        r#"
        s 1000 a {"V": 1}
        s 1000 a {"V": 2}
        s 4500 a {"V": 4}
        s 3000 a {"V": 8}
        s 2000 b {"V": 16}
        restart
        s 3500 a {"V": 32}
        s 20000 b {"V": 64}
        s 6000 a {"V": 128}
        s 13000 a {"V": 256}
        "#,
        "O",
        expect![[r#"
            a@1000..1000 {"N":1,"X":1} 1000
            a@1000..1000 {"N":2,"X":3} 1000
            a@4500..4500 {"N":1,"X":4} 4500
            a@1000..1000 null 1000
            a@4500..4500 null 4500
            a@1000..4500 {"N":4,"X":15} 4500
            b@2000..2000 {"N":1,"X":16} 2000
            a@1000..4500 null 4500
            a@1000..4500 {"N":5,"X":47} 4500
            b@20000..20000 {"N":1,"X":64} 20000
            a@13000..13000 {"N":1,"X":256} 13000
            Late s 0/7: late row at 6000: sessions that end before 13000 are closed
        "#]],
    );
}

#[test]
fn final_windows_are_emitted_once() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, SUM(V) AS X FROM S \
             WINDOW TUMBLING (SIZE 10 SECONDS, GRACE PERIOD 5 SECONDS) GROUP BY K EMIT FINAL;",
        ),
        WINDOWED,
        "O",
        expect![[r#"
            a@0 {"N":3,"X":8} 9000
            b@0 {"N":1,"X":3} 5000
            a@10000 {"N":2,"X":12} 12000
            b@10000 {"N":1,"X":6} 16000
            Late s 0/6: late row at 9999 for window [0, 10000), closed at 11000
            Late s 0/9: late row at 14000 for window [10000, 20000), closed at 40000
        "#]],
    );
}

#[test]
fn final_windows_of_many_groups_take_several_steps() {
    let settings = QuerySettings { emit_rows_max: 2, ..each() };
    let mut script = String::new();
    for i in 0..7 {
        writeln!(script, "s {} {} {{\"V\": {i}}}", i * 3000, i % 3).unwrap();
    }
    script += "s 90000 z {\"V\": 1}\ns 90001 z {\"V\": 1}\ns 200000 z {\"V\": 1}";
    check_with(
        &settings,
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N FROM S \
             WINDOW TUMBLING (SIZE 5 SECONDS, GRACE PERIOD 60 SECONDS) GROUP BY K EMIT FINAL;",
        ),
        &script,
        "O",
        expect![[r#"
            0@0 {"N":1} 0
            1@0 {"N":1} 3000
            0@5000 {"N":1} 9000
            2@5000 {"N":1} 6000
            1@10000 {"N":1} 12000
            0@15000 {"N":1} 18000
            2@15000 {"N":1} 15000
            z@90000 {"N":2} 90001
        "#]],
    );
}

#[test]
fn final_sessions_are_emitted_once() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N FROM S \
             WINDOW SESSION (2 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY K EMIT FINAL;",
        ),
        r#"
        s 1000 a {"V": 1}
        s 2000 a {"V": 2}
        s 2500 b {"V": 2}
        s 4500 a {"V": 4}
        restart
        s 8000 c {"V": 8}
        s 30000 c {"V": 16}
        "#,
        "O",
        expect![[r#"
            a@1000..2000 {"N":2} 2000
            b@2500..2500 {"N":1} 2500
            a@4500..4500 {"N":1} 4500
            c@8000..8000 {"N":1} 8000
        "#]],
    );
}

#[test]
fn a_step_that_fails_commits_the_rows_before_it() {
    let mut bench = Bench::new(
        "CREATE STREAM S (K STRING KEY, V DECIMAL(2,1)) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1);
         CREATE TABLE O AS SELECT K, SUM(V) AS X FROM S GROUP BY K;",
        each(),
    );
    for (time, value) in [(1, "5.0"), (2, "4.9"), (3, "0.1"), (4, "1.0")] {
        bench.produce("s", 0, time, Some("a"), Some(&format!("{{\"V\": {value}}}")));
    }
    let error = bench.drain().unwrap_err();
    assert!(error.message().contains("topic \"s\", partition 0, offset 2"), "{error}");
    expect![[r#"
        a {"X":5.0} 1
        a {"X":9.9} 2
    "#]]
    .assert_eq(&bench.topic("O"));
    bench.restart();
    assert!(bench.drain().is_err());
}

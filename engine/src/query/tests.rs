//! Queries from statements to records, on storage in memory.

mod groups;
mod joins;
mod properties;
mod steps;

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

const COUNTED: &str = "CREATE STREAM S (K STRING KEY, G STRING, V INT) \
                       WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1); \
                       CREATE TABLE T (K STRING PRIMARY KEY, G STRING, V INT) \
                       WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);";

fn counted(statement: &str) -> String {
    format!("{COUNTED} {statement}")
}

const JOINED: &str = "CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1);

     CREATE STREAM R (K STRING KEY, W INT) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE TABLE T (K STRING PRIMARY KEY, N STRING) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE TABLE U (K STRING PRIMARY KEY, M STRING) WITH (KAFKA_TOPIC='u', VALUE_FORMAT='JSON', PARTITIONS=1);
     CREATE TABLE F (K STRING PRIMARY KEY, REF STRING, X INT) WITH (KAFKA_TOPIC='f', VALUE_FORMAT='JSON', PARTITIONS=1);";

fn joined(statement: &str) -> String {
    format!("{JOINED} {statement}")
}

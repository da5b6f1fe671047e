//! What statements mean: `data/analyse.sql`, each with its plan or its problem in `data/analyse.expected.txt`.

use std::fmt::Write;
use std::sync::Arc;

use expect_test::expect_file;
use millpond_sql::plan::{Analysed, SourceInfo, describe, describe_pull};

use crate::world::World;

const SOURCES: &str = "
CREATE STREAM orders (id BIGINT KEY, name STRING, qty INT, big BIGINT, amount DECIMAL(8, 2), tags ARRAY<STRING>,
    addr STRUCT<city STRING, zip INT>, at TIMESTAMP, unused MAP<STRING, INT>)
    WITH (KAFKA_TOPIC='orders', VALUE_FORMAT='JSON', PARTITIONS=4);
CREATE STREAM payments (pid STRING KEY, order_id BIGINT, paid INT)
    WITH (KAFKA_TOPIC='payments', VALUE_FORMAT='JSON', PARTITIONS=3);
CREATE STREAM sink (id BIGINT KEY, v BIGINT) WITH (KAFKA_TOPIC='sink', VALUE_FORMAT='JSON', PARTITIONS=1);
CREATE TABLE users (id STRING PRIMARY KEY, city STRING) WITH (KAFKA_TOPIC='users', VALUE_FORMAT='JSON', PARTITIONS=4);
CREATE TABLE scores (id STRING PRIMARY KEY, owner STRING, score INT)
    WITH (KAFKA_TOPIC='scores', VALUE_FORMAT='JSON', PARTITIONS=4);
CREATE TABLE ranks (id STRING PRIMARY KEY, score INT)
    WITH (KAFKA_TOPIC='ranks', FORMAT='JSON', PARTITIONS=4);
CREATE TABLE by_city AS SELECT * FROM users;
CREATE TABLE totals AS SELECT name AS id, count(*) AS n FROM orders GROUP BY name;
";

fn source(info: &SourceInfo) -> String {
    let formats = format!("key {} value {}", info.key_format.name, info.value_format.name);
    format!("{} {} ({}) topic {}/{} {formats}", info.relation, info.name, info.schema, info.topic, info.partitions)
}

fn show(analysed: &Analysed) -> String {
    match analysed {
        Analysed::CreateSource { source: info, .. } => format!("{}\n", source(info)),
        Analysed::CreateAs { query, sink, .. } => {
            let configs: Vec<String> = sink.topic_configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("into {} [{}]\n{}", source(&sink.source), configs.join(" "), describe(query))
        }
        Analysed::InsertInto { query, target, .. } => format!("into {}\n{}", target.name, describe(query)),
        Analysed::InsertValues { target, columns, values, row_time } => {
            let values: Vec<String> =
                columns.iter().zip(values).map(|(c, v)| format!("{c} {} = {:?}", v.ty, v.kind)).collect();
            let time = row_time.as_ref().map(|t| format!(" at {:?}", t.kind)).unwrap_or_default();
            format!("values into {}{time}\n  {}\n", target.name, values.join("\n  "))
        }
        Analysed::Push(query) => format!("push\n{}", describe(query)),
        Analysed::Pull(plan) => format!("pull\n{}", describe_pull(plan)),
        Analysed::PullStream(query) => format!("pull on a stream\n{}", describe(query)),
    }
}

#[test]
fn plans_and_problems() {
    let mut out = String::new();
    let text = include_str!("../data/analyse.sql");
    for section in text.split("-- ").filter(|s| !s.trim().is_empty()) {
        let (title, sql) = section.split_once('\n').unwrap();
        let mut world = World::default();
        world.run(SOURCES).map_err(|(d, _)| d.render(SOURCES)).unwrap();
        let shown = match world.run(sql) {
            Ok(analysed) => analysed.iter().map(show).collect(),
            Err((d, _)) => d.render(sql),
        };
        writeln!(out, "-- {title}\n{}\n{shown}", sql.trim()).unwrap();
    }
    expect_file!["../data/analyse.expected.txt"].assert_eq(&out);
}

/// A stream over one may be there from before this was refused.
#[test]
fn internal_topics_are_not_written() {
    let mut world = World::default();
    world.run(SOURCES).map_err(|(d, _)| d.render(SOURCES)).unwrap();
    let mut sink = (*world.sources["SINK"]).clone();
    sink.topic = "__consumer_offsets".into();
    world.sources.insert("SINK".into(), Arc::new(sink));
    for (sql, wanted) in [
        (
            "INSERT INTO sink SELECT id, qty AS v FROM orders;",
            "cannot insert into SINK: its topic __consumer_offsets is internal",
        ),
        ("INSERT INTO sink VALUES (1, 2);", "cannot insert values into SINK: its topic __consumer_offsets is internal"),
    ] {
        assert_eq!(world.run(sql).unwrap_err().0.message, wanted, "{sql}");
    }
}

/// The deepest trees that the parser lets through are analysed on an ordinary thread's stack.
#[test]
fn deep_expressions() {
    let nest = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    let shapes = [
        ("abs(", "qty", ")"),
        ("coalesce(1, ", "qty", ")"),
        ("CASE WHEN true THEN ", "qty", " END"),
        ("CASE 1 WHEN 2 THEN 3 ELSE ", "qty", " END"),
        ("ARRAY[", "qty", "][1]"),
        ("STRUCT(a := ", "qty", ")->a"),
        ("CAST(", "qty", " AS INT)"),
        ("(1 + ", "qty", " * 2)"),
        ("reduce(ARRAY[1], ", "qty", ", (s, x) => s + x)"),
    ];
    for (open, inner, close) in shapes {
        let mut world = World::default();
        world.run(SOURCES).map_err(|(d, _)| d.render(SOURCES)).unwrap();
        // The deepest that the parser takes.
        let accepted = (1..=400).rev().find_map(|levels| {
            let sql = format!("CREATE STREAM o AS SELECT id, {} AS x FROM orders;", nest(open, inner, close, levels));
            millpond_sql::parse::parse(&sql).is_ok().then_some(sql)
        });
        let result = world.run(&accepted.unwrap());
        assert!(result.is_ok(), "{open}{inner}{close}: {:?}", result.map_err(|(d, _)| d.sentence()));
    }
}

/// A simple CASE repeats its operand for each branch, and so on inwards.
#[test]
fn growing_expressions_are_refused() {
    let mut world = World::default();
    world.run(SOURCES).map_err(|(d, _)| d.render(SOURCES)).unwrap();
    let nested = format!("{}qty{}", "CASE ".repeat(40), " WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 3 THEN 3 END".repeat(40));
    let sql = format!("CREATE STREAM o AS SELECT id, {nested} AS x FROM orders;");
    let problem = world.run(&sql).unwrap_err().0;
    assert_eq!(problem.code, millpond_sql::diagnostic::Code::TooLarge, "{}", problem.sentence());
}

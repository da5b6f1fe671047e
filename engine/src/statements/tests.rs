//! Statements through the engine over storage in memory: what stays true over restarts and changes.

use std::sync::Arc;

use millpond_types::ManualClock;
use millpond_types::memory::MemoryStorage;
use millpond_types::ports::Step;
use millpond_udfs::{Host, HostOptions};

use crate::catalog::{self, QueryEntry};
use crate::engine::{Engine, EngineOptions};
use crate::error::Problem;
use crate::session::Session;

fn open(storage: &Arc<MemoryStorage>) -> Engine {
    let options = EngineOptions { stepped: true, ..EngineOptions::default() };
    let clock = Arc::new(ManualClock::at(1_000));
    Engine::open(storage.clone(), clock, Host::new(HostOptions::default()), options).unwrap()
}

fn session() -> Session {
    Session::with_properties([("auto.offset.reset", "earliest")])
}

fn run(engine: &Engine, text: &str) -> Result<(), String> {
    engine.execute(text, &mut session()).map(|_| ()).map_err(|e| e.to_string())
}

fn topic_len(storage: &MemoryStorage, name: &str) -> usize {
    use millpond_types::ports::TopicLog;
    let id = storage.topic(name).unwrap().id;
    storage.records(millpond_types::TopicPartition { topic: id, partition: 0 }).len()
}

#[test]
fn queries_go_on_after_a_restart_whatever_became_of_what_they_were_made_from() {
    let storage = Arc::new(MemoryStorage::new());
    let engine = open(&storage);
    for statement in [
        "CREATE TYPE pair AS STRUCT<x INT, y INT>;",
        "CREATE STREAM a (id INT KEY, v INT) WITH (KAFKA_TOPIC='a', VALUE_FORMAT='JSON', PARTITIONS=1);",
        "CREATE STREAM every AS SELECT * FROM a;",
        "CREATE STREAM typed AS SELECT id, CAST(NULL AS pair) AS p FROM a;",
        "CREATE STREAM target (id INT KEY, v INT) WITH (KAFKA_TOPIC='target', VALUE_FORMAT='JSON', PARTITIONS=1);",
        "INSERT INTO target WITH (QUERY_ID='ins') SELECT * FROM a;",
        "CREATE TABLE declared (id INT PRIMARY KEY, p pair) WITH (KAFKA_TOPIC='d', VALUE_FORMAT='JSON', PARTITIONS=1);",
        "CREATE SOURCE TABLE kept (id INT PRIMARY KEY, p pair) WITH (KAFKA_TOPIC='d', VALUE_FORMAT='JSON');",
        "ALTER STREAM a ADD COLUMN w STRING;",
        "ALTER STREAM target ADD COLUMN z STRING;",
        "DROP TYPE pair;",
    ] {
        run(&engine, statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    drop(engine);

    let engine = open(&storage);
    run(&engine, "INSERT INTO a (id, v, w) VALUES (1, 2, 'x');").unwrap();
    let queries = engine.catalog().queries_in_order();
    assert_eq!(queries.len(), 4);
    for query in queries {
        assert_eq!(engine.query_state(&query.id), ("RUNNING".to_string(), None), "{}", query.id);
        engine.drain(&query.id).unwrap();
    }
    for topic in ["EVERY", "TYPED", "target"] {
        assert_eq!(topic_len(&storage, topic), 1, "{topic}");
    }
}

#[test]
fn a_join_is_not_replaced_by_one_that_would_read_its_rows_as_other_columns() {
    let engine = open(&Arc::new(MemoryStorage::new()));
    let join = |column: &str| {
        format!(
            "CREATE OR REPLACE STREAM j AS SELECT a.id, a.{column} AS l, b.v AS r FROM a JOIN b WITHIN 1 HOUR ON a.id = b.id;"
        )
    };
    for name in ["a", "b"] {
        run(
            &engine,
            &format!(
                "CREATE STREAM {name} (id INT KEY, v INT, w INT) WITH (KAFKA_TOPIC='{name}', VALUE_FORMAT='JSON', PARTITIONS=1);"
            ),
        )
        .unwrap();
    }
    run(&engine, &join("v")).unwrap();
    let why = run(&engine, &join("w")).unwrap_err();
    assert!(why.contains("cannot upgrade"), "{why}");
    run(&engine, &join("v")).unwrap();
}

#[test]
fn what_cannot_work_is_refused_as_the_users_mistake() {
    let engine = open(&Arc::new(MemoryStorage::new()));
    run(&engine, "CREATE STREAM a (id INT KEY) WITH (KAFKA_TOPIC='a', VALUE_FORMAT='JSON', PARTITIONS=1);").unwrap();
    for (statement, what) in [
        (
            "CREATE TABLE w AS SELECT id, COUNT(*) AS n FROM a WINDOW HOPPING (SIZE 1000 DAYS, ADVANCE BY 1 MILLISECOND) \
             GROUP BY id;",
            "every row would be in 86400000000 windows",
        ),
        ("EXPLAIN SHOW STREAMS;", "only CREATE, INSERT and SELECT"),
        ("SET 'auto.offset.reset' = 'bogus';", "earliest"),
        ("SET 'ksql.timestamp.throw.on.invalid' = 'maybe';", "true or false"),
    ] {
        let e = engine.execute(statement, &mut session()).unwrap_err();
        assert!(e.to_string().contains(what), "{e}");
        assert_ne!(e.problem.kind(), millpond_types::ErrorKind::Bug, "{e}");
    }
}

#[test]
fn a_property_that_cannot_be_is_told_wherever_it_comes_from() {
    let engine = open(&Arc::new(MemoryStorage::new()));
    let mut wrong = Session::with_properties([("ksql.streams.auto.offset.reset", "sometimes")]);
    let e = engine.execute("SHOW STREAMS;", &mut wrong).unwrap_err();
    assert!(e.to_string().contains("earliest or latest"), "{e}");
}

#[test]
fn a_topic_is_not_deleted_under_a_query_that_knows_it_by_another_name() {
    let storage = Arc::new(MemoryStorage::new());
    let engine = open(&storage);
    for statement in [
        "CREATE STREAM a (id INT KEY, v INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);",
        "CREATE STREAM b (id INT KEY, v INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON');",
        "CREATE STREAM c AS SELECT * FROM a;",
    ] {
        run(&engine, statement).unwrap();
    }
    let why = run(&engine, "DROP STREAM b DELETE TOPIC;").unwrap_err();
    assert!(why.contains("CSAS_C_2"), "{why}");
    run(&engine, "DROP STREAM b;").unwrap();
    assert_eq!(topic_len(&storage, "t"), 0);
}

#[test]
fn a_query_that_reads_what_it_writes_is_warned_of_whatever_its_names() {
    let engine = open(&Arc::new(MemoryStorage::new()));
    for name in ["a", "b"] {
        let statement = format!(
            "CREATE STREAM {name} (id INT KEY, v INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=1);"
        );
        run(&engine, &statement).unwrap();
    }
    let done = engine.execute("INSERT INTO b SELECT * FROM a;", &mut session()).unwrap();
    assert!(done[0].warnings.iter().any(|w| w.contains("\"t\"")), "{:?}", done[0].warnings);
}

#[test]
fn asserts_that_wait_are_limited_for_each_engine() {
    let (one, other) = (open(&Arc::new(MemoryStorage::new())), open(&Arc::new(MemoryStorage::new())));
    one.0.asserts.store(16, std::sync::atomic::Ordering::Relaxed);
    let kind = |engine: &Engine| {
        let e = engine.execute("ASSERT TOPIC nope TIMEOUT 1 SECOND;", &mut session()).unwrap_err();
        (e.problem.kind(), e.to_string())
    };
    let (refused, why) = kind(&one);
    assert_eq!(refused, millpond_types::ErrorKind::Retry, "{why}");
    assert!(why.contains("wait already"), "{why}");
    assert!(kind(&other).1.contains("does not exist"));
}

#[test]
fn names_that_are_not_there_are_told_with_their_place_and_what_may_be_meant() {
    let engine = open(&Arc::new(MemoryStorage::new()));
    run(&engine, "CREATE STREAM orders (id INT KEY, v INT) WITH (KAFKA_TOPIC='o', VALUE_FORMAT='JSON', PARTITIONS=1);")
        .unwrap();
    run(&engine, "CREATE STREAM large WITH (KAFKA_TOPIC='Large') AS SELECT * FROM orders WHERE v > 5;").unwrap();
    let query = engine.catalog().queries.keys().next().unwrap().clone();
    let near = format!("{}9", &query[..query.len() - 1]);
    for (statement, wrong, meant) in [
        ("DROP STREAM order;", "order", "ORDERS"),
        ("DESCRIBE `Orders`;", "`Orders`", "ORDERS"),
        ("ALTER STREAM oders ADD COLUMN w INT;", "oders", "ORDERS"),
        ("DESCRIBE FUNCTION lenn;", "lenn", "LEN"),
        ("PRINT large;", "large", "Large"),
        (&format!("TERMINATE {near};"), &near, &query),
        (&format!("PAUSE {near};"), &near, &query),
        (&format!("EXPLAIN {near};"), &near, &query),
    ] {
        let problem = match statement.starts_with("PRINT") {
            true => engine.select(statement, &session()).err().unwrap().problem,
            false => engine.execute(statement, &mut session()).unwrap_err().problem,
        };
        let Problem::Sql(told) = problem else { panic!("{statement}: {problem}") };
        assert_eq!(told.span.unwrap().slice(statement), wrong, "{statement}");
        assert_eq!(told.hint, Some(format!("did you mean `{meant}`?")), "{statement}");
    }
}

#[test]
fn constants_with_which_a_call_gives_nothing_are_told_of() {
    let storage = Arc::new(MemoryStorage::new());
    let engine = open(&storage);
    run(&engine, "CREATE STREAM s (id INT KEY, t STRING) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=1);")
        .unwrap();
    for (call, wrong, said) in [
        ("REGEXP_EXTRACT('(?=x)', t)", "'(?=x)'", "look-around"),
        ("t LIKE 'a!' ESCAPE '!'", "'a!'", "escape character"),
        ("REGEXP_EXTRACT_ALL('(', t, 1)", "'('", "unclosed group"),
        ("REGEXP_REPLACE(t, '[', '')", "'['", "unclosed"),
        ("REGEXP_SPLIT_TO_ARRAY(t, '*')", "'*'", "repetition"),
        ("PARSE_DATE(t, 'yyyy-bb')", "'yyyy-bb'", "\"yyyy-bb\""),
        ("FORMAT_TIMESTAMP(FROM_UNIXTIME(1), 'HH', 'Nowhere/City')", "'Nowhere/City'", "time zone"),
    ] {
        let select = format!("SELECT id, {call} AS c FROM s EMIT CHANGES;");
        let problem = engine.select(&select, &session()).err().unwrap().problem;
        let Problem::Sql(told) = problem else { panic!("{select}: {problem}") };
        assert_eq!(told.span.unwrap().slice(&select), wrong, "{select}");
        assert!(told.message.contains(said) && !told.message.contains('\n'), "{select}: {}", told.message);
        assert!(told.message.matches("not supported").count() <= 1, "{select}: {}", told.message);
        // ksqlDB takes it.
        let create = format!("CREATE STREAM r{} AS SELECT id, {call} AS c FROM s;", engine.catalog().queries.len());
        for statement in [format!("EXPLAIN {create}"), create] {
            let answers = engine.execute(&statement, &mut session()).unwrap();
            let warning = format!("{}: it gives NULL in each row", told.message);
            assert_eq!(answers[0].warnings, [warning], "{statement}");
        }
    }
    let create = "CREATE STREAM f (a INT) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', TIMESTAMP_FORMAT='yyyy');";
    let answers = engine.execute(create, &mut session()).unwrap();
    assert_eq!(answers[0].warnings, ["TIMESTAMP_FORMAT has no effect without TIMESTAMP"]);
    // What a column says is only known in each row.
    run(&engine, "CREATE STREAM of_rows AS SELECT id, REGEXP_EXTRACT(t, t) AS c FROM s;").unwrap();
    run(&engine, "CREATE STREAM kept AS SELECT id, REGEXP_EXTRACT('x', t) AS c FROM s;").unwrap();
    let catalog = engine.catalog();
    let query = catalog.queries.values().find(|query| query.sink == "KEPT").unwrap();
    // As one of a version that took it.
    let statement = query.statement.replace("'x'", "'(?=x)'");
    let old = QueryEntry { statement, ..query.as_ref().clone() };
    let step = Step { catalog: vec![catalog::put_query(&old)], ..Step::default() };
    engine.commit(step, |_| {}).unwrap();
    drop(engine);
    let engine = open(&storage);
    run(&engine, "INSERT INTO s (id, t) VALUES (1, 'xx');").unwrap();
    assert_eq!(engine.query_state(&old.id), ("RUNNING".to_string(), None));
    engine.drain(&old.id).unwrap();
    assert_eq!(topic_len(&storage, "KEPT"), 1);
}

//! Where a step is cut, and where the query is taken up again, changes nothing.

use proptest::prelude::*;

use super::*;

const STATEMENTS: &str = "CREATE STREAM S (K STRING KEY, G STRING, V INT) \
       WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON', PARTITIONS=3); \
     CREATE STREAM R (K STRING KEY, V INT) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=3); \
     CREATE TABLE T (K STRING PRIMARY KEY, G STRING, V INT) \
       WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON', PARTITIONS=3); \
     CREATE TABLE A AS SELECT G, COUNT(*) AS N, SUM(V) AS X FROM S \
       WINDOW TUMBLING (SIZE 10 MILLISECONDS, GRACE PERIOD 0 SECONDS) GROUP BY G; \
     CREATE TABLE B AS SELECT G, COUNT(*) AS N FROM S \
       WINDOW SESSION (3 MILLISECONDS, GRACE PERIOD 5 MILLISECONDS) GROUP BY G; \
     CREATE TABLE C AS SELECT G, COUNT(*) AS N FROM S \
       WINDOW HOPPING (SIZE 10 MILLISECONDS, ADVANCE BY 4 MILLISECONDS, GRACE PERIOD 3 MILLISECONDS) \
       GROUP BY G EMIT FINAL; \
     CREATE TABLE D AS SELECT G, COUNT(*) AS N, SUM(V) AS X FROM T GROUP BY G HAVING COUNT(*) > 1; \
     CREATE STREAM E AS SELECT T.K, S.V AS V, T.G AS G FROM S LEFT JOIN T ON S.G = T.K; \
     CREATE STREAM F AS SELECT S.K, S.V AS V, R.V AS W FROM S LEFT JOIN R \
       WITHIN 5 MILLISECONDS GRACE PERIOD 2 MILLISECONDS ON S.K = R.K; \
     CREATE TABLE U (K STRING PRIMARY KEY, V INT) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=3); \
     CREATE TABLE H AS SELECT T.K, T.V AS V, U.V AS N FROM T JOIN U ON T.G = U.K WHERE T.V > 3; \
     CREATE TABLE I AS SELECT T.K, T.V AS V, U.V AS N FROM T LEFT JOIN U ON T.K = U.K WHERE U.V > 3;";

const SINKS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "H", "I"];

/// Topic, partition, time, key, group, value (`None`: NULL value).
type Row = (usize, i32, i64, u8, u8, Option<i32>);

fn row() -> impl Strategy<Value = Row> {
    (0..3usize, 0..3i32, 0..60i64, 0..4u8, 0..3u8, prop::option::weighted(0.9, 0..9i32))
}

fn results(rows: &[Row], backlog: usize, step_rows: usize, restarts: bool, tasks: bool) -> Vec<String> {
    let task_rows_min = if tasks { 1 } else { each().task_rows_min };
    let settings = QuerySettings { step_rows_max: step_rows, emit_rows_max: 3, task_rows_min, ..each() };
    let mut bench = Bench::new(STATEMENTS, settings);
    for (i, (topic, partition, time, key, group, value)) in rows.iter().enumerate() {
        if i == backlog {
            bench.pin_backlog();
        }
        let name = ["s", "r", "t"][*topic];
        let key = format!("{key}");
        // Keys of tables and joined streams are where they belong.
        let partition = if *topic == 0 && value.is_some_and(|v| v > 6) {
            *partition
        } else {
            millpond_types::ports::partition_of(key.as_bytes(), 3)
        };
        let value = value.map(|v| format!("{{\"G\": \"{group}\", \"V\": {v}}}"));
        bench.produce(name, partition, *time, Some(&key), value.as_deref());
    }
    // One query after the other, so that what one writes is there as a whole for the next.
    for query in 0..bench.queries.len() {
        loop {
            match bench.queries[query].step() {
                StepOutcome::Idle => break,
                StepOutcome::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
            if restarts {
                bench.restart();
            }
        }
    }
    SINKS.iter().map(|name| format!("{name}\n{}", bench.topic(name))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn results_do_not_depend_on_steps(rows in prop::collection::vec(row(), 1..60), backlog in 0..40usize) {
        let expected = results(&rows, backlog, 1, false, false);
        let runs = [(7, false, false), (4096, false, false), (3, true, false), (4096, false, true), (7, true, true)];
        for (step_rows, restarts, tasks) in runs {
            let got = results(&rows, backlog, step_rows, restarts, tasks);
            for (a, b) in expected.iter().zip(&got) {
                prop_assert_eq!(a, b, "steps of {} rows, restarts: {}, tasks: {}", step_rows, restarts, tasks);
            }
        }
    }
}

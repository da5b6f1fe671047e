//! Joins of streams and tables: by key, within windows, by foreign keys.

use millpond_types::ports::Step;

use super::*;

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

//! Where a step ends: with more than fits, and at a failure.

use super::*;

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

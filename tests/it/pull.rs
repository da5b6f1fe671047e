//! Pull queries over materialised tables: order, groups, joins, limits, and one snapshot for all tables of a statement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond::{Database, OwnedRecord};
use millpond_types::value::value_at;

use crate::library::{open, settle};

/// The rows of a pull query as text, in the order they came.
pub fn rows(db: &Database, select: &str) -> Vec<String> {
    let answer = db.query(select).unwrap_or_else(|e| panic!("{select}: {e}"));
    let mut lines = Vec::new();
    for batch in &answer.batches {
        for row in 0..batch.num_rows() {
            let values: Vec<String> = answer
                .schema
                .columns
                .iter()
                .zip(batch.columns())
                .map(|(column, array)| {
                    let value = value_at(array, &column.ty, row);
                    millpond_formats::value_text(&value).unwrap_or_else(|| "null".into())
                })
                .collect();
            lines.push(values.join(" "));
        }
    }
    lines
}

fn record(key: &str, value: &str) -> OwnedRecord {
    OwnedRecord { key: Some(key.into()), value: Some(value.into()), timestamp: 1_000, headers: Vec::new() }
}

#[test]
fn order_groups_limits_and_joins() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    db.execute(
        "CREATE STREAM ORDERS (ID STRING KEY, CUSTOMER STRING, ITEM STRING, PRICE INT)
           WITH (KAFKA_TOPIC='orders', PARTITIONS=3, VALUE_FORMAT='JSON');
         CREATE STREAM CUSTOMERS (ID STRING KEY, CITY STRING)
           WITH (KAFKA_TOPIC='customers', PARTITIONS=2, VALUE_FORMAT='JSON');
         CREATE TABLE SPENT AS SELECT CUSTOMER, SUM(PRICE) AS TOTAL, COUNT(*) AS N FROM ORDERS GROUP BY CUSTOMER EMIT CHANGES;
         CREATE TABLE HOMES AS SELECT ID, LATEST_BY_OFFSET(CITY) AS CITY FROM CUSTOMERS GROUP BY ID EMIT CHANGES;",
    )
    .unwrap();
    let orders = [
        ("1", "ann", "pen", 3),
        ("2", "bob", "ink", 10),
        ("3", "ann", "ink", 10),
        ("4", "cid", "pen", 3),
        ("5", "dan", "cap", 7),
        ("6", "bob", "cap", 7),
        ("7", "eve", "pad", 40),
    ];
    let orders: Vec<OwnedRecord> = orders
        .iter()
        .map(|(id, c, i, p)| record(id, &format!(r#"{{"customer":"{c}","item":"{i}","price":{p}}}"#)))
        .collect();
    db.produce("orders", &orders).unwrap();
    let homes = [("ann", "Bonn"), ("bob", "Ulm"), ("cid", "Ulm"), ("dan", "Bonn"), ("fay", "Kiel")];
    let homes: Vec<OwnedRecord> =
        homes.iter().map(|(id, city)| record(id, &format!(r#"{{"city":"{city}"}}"#))).collect();
    db.produce("customers", &homes).unwrap();
    settle(&db);

    for (select, expected) in [
        ("SELECT CUSTOMER, TOTAL FROM SPENT ORDER BY TOTAL DESC, CUSTOMER;", "eve 40|bob 17|ann 13|dan 7|cid 3"),
        ("SELECT CUSTOMER, TOTAL FROM SPENT ORDER BY CUSTOMER LIMIT 2;", "ann 13|bob 17"),
        ("SELECT CUSTOMER, TOTAL FROM SPENT WHERE TOTAL > 10 AND N = 2 ORDER BY CUSTOMER;", "ann 13|bob 17"),
        ("SELECT TOTAL FROM SPENT WHERE CUSTOMER = 'dan';", "7"),
        ("SELECT CUSTOMER FROM SPENT WHERE CUSTOMER IN ('cid', 'zoe', 'ann') ORDER BY CUSTOMER;", "ann|cid"),
        ("SELECT TOTAL FROM SPENT WHERE CUSTOMER = 'zoe';", ""),
        ("SELECT N, COUNT(*) AS C, SUM(TOTAL) AS T FROM SPENT GROUP BY N ORDER BY N;", "1 3 50|2 2 30"),
        ("SELECT N, MAX(TOTAL) AS T FROM SPENT GROUP BY N HAVING COUNT(*) > 2;", "1 40"),
        ("SELECT SUM(TOTAL) AS T, COUNT(*) AS C FROM SPENT;", "80 5"),
        (
            "SELECT S.CUSTOMER, H.CITY, S.TOTAL FROM SPENT S JOIN HOMES H ON S.CUSTOMER = H.ID ORDER BY S.CUSTOMER;",
            "ann Bonn 13|bob Ulm 17|cid Ulm 3|dan Bonn 7",
        ),
        (
            "SELECT S.CUSTOMER, H.CITY FROM SPENT S LEFT JOIN HOMES H ON S.CUSTOMER = H.ID
             WHERE H.CITY IS NULL;",
            "eve null",
        ),
        (
            "SELECT H.CITY, SUM(S.TOTAL) AS T FROM SPENT S JOIN HOMES H ON S.CUSTOMER = H.ID
             GROUP BY H.CITY ORDER BY T DESC LIMIT 1;",
            "Bonn 20",
        ),
        ("SELECT CUSTOMER FROM SPENT LIMIT 0;", ""),
    ] {
        assert_eq!(rows(&db, select).join("|"), expected, "{select}");
    }

    let error = db.query("SELECT * FROM ORDERZ;").err().unwrap().to_string();
    assert!(error.contains("ORDERZ"), "{error}");
    let error = db.query("SELECT * FROM SPENT EMIT CHANGES;").err().unwrap().to_string();
    assert!(error.contains("subscribe"), "{error}");
    db.close().unwrap();
}

/// COPY is made from BALANCE's changes, so in one commit it is never ahead of it. Two tables read one after the other
/// while both grow would show it ahead.
#[test]
fn a_pull_query_reads_one_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    db.execute(
        "CREATE STREAM MOVES (ID STRING KEY, ACCOUNT STRING, AMOUNT BIGINT)
           WITH (KAFKA_TOPIC='moves', PARTITIONS=3, VALUE_FORMAT='JSON');
         CREATE TABLE BALANCE AS SELECT ACCOUNT, SUM(AMOUNT) AS B, COUNT(*) AS N FROM MOVES GROUP BY ACCOUNT EMIT CHANGES;
         CREATE TABLE COPY AS SELECT ACCOUNT, B, N FROM BALANCE EMIT CHANGES;",
    )
    .unwrap();
    let stop = AtomicBool::new(false);
    let (produced, checked) = std::thread::scope(|scope| {
        let (db, stop) = (&db, &stop);
        let producer = scope.spawn(move || {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let account = n % 8;
                let records: Vec<OwnedRecord> = (0..20)
                    .map(|i| record(&i.to_string(), &format!(r#"{{"account":"a{account}","amount":1}}"#)))
                    .collect();
                db.produce("moves", &records).unwrap();
                n += 20;
                std::thread::sleep(Duration::from_millis(1));
            }
            n
        });
        let since = std::time::Instant::now();
        let mut checked = 0;
        while since.elapsed() < Duration::from_secs(3) || (checked <= 3 && since.elapsed() < Duration::from_secs(120)) {
            let ahead = rows(
                db,
                "SELECT X.ACCOUNT, X.N, Y.N FROM BALANCE X JOIN COPY Y ON X.ACCOUNT = Y.ACCOUNT
                 WHERE Y.N > X.N OR X.N <> X.B;",
            );
            assert_eq!(ahead, Vec::<String>::new());
            checked += 1;
        }
        stop.store(true, Ordering::Relaxed);
        (producer.join().unwrap(), checked)
    });
    assert!(checked > 3 && produced > 100, "{checked} reads beside {produced} records");
    settle(&db);
    for table in ["BALANCE", "COPY"] {
        assert_eq!(rows(&db, &format!("SELECT SUM(N) AS S FROM {table};")), [produced.to_string()], "{table}");
    }
    db.close().unwrap();
}

#[test]
fn headers_are_kept_and_records_without_a_value_are_no_rows() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    db.execute(
        "CREATE SOURCE TABLE T (H BYTES HEADER('h'), V STRING, ID STRING PRIMARY KEY)
           WITH (KAFKA_TOPIC='t', PARTITIONS=1, VALUE_FORMAT='JSON');
         CREATE STREAM S (ID STRING KEY, V STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');",
    )
    .unwrap();
    let header = millpond_types::record::Header { key: "h".into(), value: Some(b"!".to_vec()) };
    let with_header = OwnedRecord { headers: vec![header], ..record("a", r#"{"V":"x"}"#) };
    db.produce("t", &[with_header, record("b", r#"{"V":"y"}"#)]).unwrap();
    db.produce("s", &[OwnedRecord { value: None, ..record("a", "") }, record("b", "{}")]).unwrap();
    settle(&db);
    assert_eq!(rows(&db, "SELECT ID, V, H, ROWTIME FROM T;"), ["a x IQ== 1000", "b y null 1000"]);
    assert_eq!(rows(&db, "SELECT H FROM T WHERE ID = 'a';"), ["IQ=="]);
    assert_eq!(rows(&db, "SELECT * FROM S;"), ["b null"]);
    assert_eq!(rows(&db, "SELECT * FROM S LIMIT 0;"), Vec::<String>::new());
}

#[test]
fn keys_that_no_row_can_have_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    db.execute(
        "CREATE SOURCE TABLE T (ID INT PRIMARY KEY, V STRING) WITH (KAFKA_TOPIC='t', PARTITIONS=1, VALUE_FORMAT='JSON');",
    )
    .unwrap();
    let refused = |condition: &str| match db.query(&format!("SELECT * FROM T WHERE {condition};")) {
        Err(e) => e.message().to_owned(),
        Ok(_) => panic!("{condition} was accepted"),
    };
    assert!(refused("ID IN (1, NULL)").contains("primary key columns can not be NULL: (ID = null)"));
    assert!(refused("ID IN ('1', 2) AND V = 'x'").contains("'1' can not be converted"));
}

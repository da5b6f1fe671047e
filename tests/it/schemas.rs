//! The schema registry as a part of the server: statements and HTTP see one registry, which outlives restarts.

use serde_json::{Value as Json, json};

use crate::process::{Answer, Process, client};

async fn register(server: &Process, subject: &str, schema: &str) -> Answer {
    server.post(&format!("/subjects/{subject}/versions"), &json!({ "schema": schema })).await
}

async fn latest(server: &Process, subject: &str) -> Json {
    let answer = server.get(&format!("/subjects/{subject}/versions/latest")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// Runs a statement that must be refused; its message.
async fn refused(server: &Process, statement: &str) -> String {
    let answer = server.post("/ksql", &json!({ "ksql": statement })).await;
    assert_eq!(answer.status, 400, "{statement}: {}", answer.text);
    answer.json()["message"].as_str().unwrap().to_lowercase()
}

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},
    {"name":"note","type":["null","string"],"default":null}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_http_share_one_registry_that_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    assert_eq!(register(&server, "orders-value", ORDER).await.json(), json!({ "id": 1 }));
    let missing = refused(&server, "CREATE STREAM X WITH (KAFKA_TOPIC='x', PARTITIONS=1, VALUE_FORMAT='AVRO');").await;
    assert!(missing.contains("schema for message values on topic 'x' does not exist"), "{missing}");
    server
        .sql(
            "CREATE STREAM orders (k STRING KEY) WITH (KAFKA_TOPIC='orders', PARTITIONS=1, VALUE_FORMAT='AVRO');
             CREATE TABLE counts WITH (KEY_FORMAT='AVRO') AS SELECT id, COUNT(*) AS n FROM orders GROUP BY id;
             CREATE STREAM json WITH (VALUE_FORMAT='JSON_SR') AS SELECT * FROM orders;
             CREATE STREAM proto WITH (VALUE_FORMAT='PROTOBUF') AS SELECT * FROM orders;
             INSERT INTO orders (k, id, note) VALUES ('a', 7, 'first');
             INSERT INTO orders (k, id) VALUES ('b', 7);",
        )
        .await;
    // Rows were written after the schema of the topic, not after one of the statement's own.
    assert_eq!(server.get("/subjects/orders-value/versions").await.json(), json!([1]));
    server.eventually("SELECT ID, N FROM COUNTS;", &[json!([7, 2])]).await;
    server.eventually("SELECT ID, NOTE FROM JSON;", &[json!([7, "first"]), json!([7, null])]).await;
    server.eventually("SELECT ID, NOTE FROM PROTO;", &[json!([7, "first"]), json!([7, ""])]).await;
    let made = latest(&server, "JSON-value").await;
    assert_eq!((&made["schemaType"], &made["version"]), (&json!("JSON"), &json!(1)));
    assert_eq!(latest(&server, "COUNTS-key").await["schema"], "\"long\"");
    let printed = server.post("/query", &json!({ "ksql": "PRINT orders FROM BEGINNING LIMIT 1;" })).await.text;
    assert!(printed.contains("AVRO") && printed.contains(r#"{"id":7,"note":"first"}"#), "{printed}");

    // A statement whose schema may not follow is refused whole.
    let clash =
        "CREATE STREAM clash WITH (KAFKA_TOPIC='orders', VALUE_FORMAT='AVRO') AS SELECT k, note AS id FROM orders;";
    let message = refused(&server, clash).await;
    assert!(
        message.contains("could not register schema for topic 'orders'") && message.contains("incompatible"),
        "{message}"
    );
    let answer = register(&server, "orders-value", &ORDER.replace("long", "string")).await;
    assert_eq!((answer.status, &answer.json()["error_code"]), (409, &json!(409)));
    assert_eq!(answer.content_type, "application/vnd.schemaregistry.v1+json");

    server.kill();
    let server = Process::start(directory.path());
    assert_eq!(latest(&server, "orders-value").await["id"], 1);
    // The next schema of the topic is read beside the old one, and queries go on with theirs.
    let wider =
        ORDER.replace("{\"name\":\"note\"", "{\"name\":\"extra\",\"type\":\"int\",\"default\":4},{\"name\":\"note\"");
    assert_eq!(register(&server, "orders-value", &wider).await.status, 200);
    server.sql("INSERT INTO orders (k, id, note) VALUES ('c', 8, 'third');").await;
    server.eventually("SELECT ID, N FROM COUNTS;", &[json!([7, 2]), json!([8, 1])]).await;
    // What is inserted now names the latest schema.
    let printed = server.post("/query", &json!({ "ksql": "PRINT orders FROM BEGINNING LIMIT 3;" })).await.text;
    assert!(printed.contains(r#"{"id":8,"extra":4,"note":"third"}"#), "{printed}");
    server.sql("ASSERT SCHEMA SUBJECT 'orders-value'; ASSERT NOT EXISTS SCHEMA SUBJECT 'nope-value';").await;
    server.sql("DROP STREAM json DELETE TOPIC;").await;
    let gone = server.get("/subjects/JSON-value/versions").await;
    assert_eq!((gone.status, &gone.json()["error_code"]), (404, &json!(40401)));
    // A schema that rows are written with stays for whoever reads them.
    for (query, expected) in [("", 200), ("?permanent=true", 422)] {
        let deleted = client().delete(format!("{}/subjects/PROTO-value{query}", server.http)).send().await.unwrap();
        assert_eq!(deleted.status().as_u16(), expected);
    }
    // What is not there says so in the registry's own way.
    let unknown = client().delete(format!("{}/subjects/nope", server.http)).send().await.unwrap();
    assert_eq!(unknown.status().as_u16(), 404);
    server.stop();
}

/// A pull query tells what whoever reads the table's topic is told: whether PROTOBUF has NULL depends on the schema.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_shown_as_its_topic_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let schema =
        "syntax = \"proto3\"; message M { optional int32 V = 1; P P = 2; message P { optional int32 X = 1; } }";
    let registered = json!({ "schemaType": "PROTOBUF", "schema": schema });
    let id = server.post("/subjects/OPT-value/versions", &registered).await.json()["id"].clone();
    server
        .sql(&format!(
            "CREATE STREAM s (k STRING KEY, v INT, t STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
             CREATE TABLE bare WITH (VALUE_FORMAT='PROTOBUF') AS SELECT k, LATEST_BY_OFFSET(v, false) AS v,
               STRUCT(x := LATEST_BY_OFFSET(v, false)) AS p, SPLIT(LATEST_BY_OFFSET(t, false), ',') AS l FROM s GROUP BY k;
             CREATE TABLE opt WITH (VALUE_FORMAT='PROTOBUF', VALUE_SCHEMA_ID={id}) AS SELECT k,
               LATEST_BY_OFFSET(v, false) AS v, STRUCT(x := LATEST_BY_OFFSET(v, false)) AS p FROM s GROUP BY k;
             CREATE STREAM bare_read (k STRING KEY) WITH (KAFKA_TOPIC='BARE', VALUE_FORMAT='PROTOBUF');
             CREATE STREAM opt_read (k STRING KEY) WITH (KAFKA_TOPIC='OPT', VALUE_FORMAT='PROTOBUF');
             INSERT INTO s (k) VALUES ('a');"
        ))
        .await;
    let bare = [json!([0, { "X": 0 }, []])];
    let optional = [json!([null, { "X": null }])];
    for (query, expected) in [
        ("SELECT V, P, L FROM BARE_READ;", &bare),
        ("SELECT V, P, L FROM BARE;", &bare),
        ("SELECT V, P, L FROM BARE WHERE K = 'a';", &bare),
        ("SELECT V, P FROM OPT_READ;", &optional),
        ("SELECT V, P FROM OPT;", &optional),
    ] {
        server.eventually(query, expected).await;
    }
    server.stop();
}

//! The HTTP API as ksqlDB's clients see it: shapes, content types, codes, and when row streams end.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::{Client, RequestBuilder, Response, Version};
use serde_json::{Value as Json, json};

use crate::process::{Answer, DELIMITED, Process, V1_JSON, client, client_http2, guest};

const STREAM: &str =
    "CREATE STREAM S (K STRING KEY, V INT, NOTE STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=2, VALUE_FORMAT='JSON');";
const TABLE: &str = "CREATE TABLE T AS SELECT K, COUNT(*) AS N, SUM(V) AS TOTAL FROM S GROUP BY K EMIT CHANGES;";

struct Fixture {
    server: Process,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new(statements: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Process::start(directory.path());
        if !statements.is_empty() {
            server.sql(statements).await;
        }
        Self { server, _directory: directory }
    }
}

/// A row stream that is read line by line while it goes on.
struct Lines {
    chunks: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    rest: String,
}

impl Lines {
    fn of(response: Response) -> Self {
        assert_eq!(response.status().as_u16(), 200);
        Self { chunks: Box::pin(response.bytes_stream()), rest: String::new() }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.find('\n') {
                let line = self.rest[..end].to_string();
                self.rest.drain(..=end);
                return Some(line);
            }
            let chunk =
                tokio::time::timeout(Duration::from_secs(90), self.chunks.next()).await.expect("a line in 90 s");
            match chunk {
                Some(chunk) => self.rest.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap()),
                None if self.rest.is_empty() => return None,
                None => return Some(std::mem::take(&mut self.rest)),
            }
        }
    }

    async fn json(&mut self) -> Json {
        let line = self.next().await.expect("the stream has ended");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }
}

fn query_stream(client: &Client, server: &Process, sql: &str, accept: &str) -> RequestBuilder {
    let request = client.post(format!("{}/query-stream", server.http));
    let request = if accept.is_empty() { request } else { request.header("accept", accept) };
    request.body(json!({ "sql": sql, "properties": { "auto.offset.reset": "earliest" } }).to_string())
}

#[tokio::test]
async fn statements_answer_entities() {
    let f = Fixture::new("").await;
    let answer = f.server.post("/ksql", &json!({ "ksql": format!("{STREAM}{TABLE}"), "unknown": 1 })).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, V1_JSON));
    let body = answer.json();
    let [stream, table] = body.as_array().unwrap().as_slice() else { panic!("{body}") };
    assert_eq!(stream["@type"], "currentStatus");
    assert_eq!(stream["commandId"], "stream/`S`/create");
    assert_eq!(stream["commandStatus"]["status"], "SUCCESS");
    assert_eq!(stream["commandStatus"]["message"], "Stream created");
    assert_eq!(stream["statementText"], STREAM);
    assert!(stream["warnings"].is_array() && stream["commandSequenceNumber"].is_number(), "{stream}");
    let id = table["commandStatus"]["queryId"].as_str().unwrap();
    assert!(id.starts_with("CTAS_T_"), "{table}");

    let request = client().post(format!("{}/ksql", f.server.http)).header("accept", "application/json");
    let shown =
        Answer::of(request.body(json!({ "ksql": "SHOW STREAMS; LIST TABLES; SHOW QUERIES;" }).to_string())).await;
    assert_eq!(shown.content_type, "application/json");
    let shown = shown.json();
    assert_eq!(shown[0]["@type"], "streams");
    let s = json!({ "type": "STREAM", "name": "S", "topic": "s", "keyFormat": "KAFKA", "valueFormat": "JSON", "isWindowed": false });
    assert!(shown[0]["streams"].as_array().unwrap().contains(&s), "{}", shown[0]);
    assert_eq!(shown[1]["tables"][0]["topic"], "T");
    let query = &shown[2]["queries"][0];
    assert_eq!(
        (&query["id"], &query["state"], &query["queryType"]),
        (&json!(id), &json!("RUNNING"), &json!("PERSISTENT"))
    );
    assert_eq!((&query["sinks"], &query["sinkKafkaTopics"]), (&json!(["T"]), &json!(["T"])));

    let described = &f.server.sql("DESCRIBE T;").await[0];
    assert_eq!(described["@type"], "sourceDescription");
    let described = &described["sourceDescription"];
    assert_eq!(
        (&described["name"], &described["type"], &described["partitions"]),
        (&json!("T"), &json!("TABLE"), &json!(2))
    );
    let key =
        json!({ "name": "K", "schema": { "type": "STRING", "fields": null, "memberSchema": null }, "type": "KEY" });
    assert_eq!(described["fields"][0], key);
    assert_eq!(described["writeQueries"][0]["id"], id);

    let explained = &f.server.sql(&format!("EXPLAIN {id};")).await[0];
    assert_eq!(explained["@type"], "queryDescription");
    assert_eq!(f.server.sql("EXPLAIN SELECT K FROM S EMIT CHANGES;").await[0]["@type"], "executionPlan");
    let topics = f.server.sql("SHOW TOPICS;").await;
    assert!(
        topics[0]["topics"].as_array().unwrap().contains(&json!({ "name": "s", "replicaInfo": [1, 1] })),
        "{topics}"
    );
    let functions = f.server.sql("SHOW FUNCTIONS;").await;
    assert!(functions[0]["functions"].as_array().unwrap().len() > 100, "{functions}");
    assert_eq!(f.server.sql("DESCRIBE FUNCTION UCASE;").await[0]["@type"], "describe_function");
    assert_eq!(f.server.sql("SHOW PROPERTIES;").await[0]["@type"], "properties");

    // What is used is not dropped; what is dropped is gone.
    let refused = f.server.post("/ksql", &json!({ "ksql": "DROP STREAM S;" })).await;
    assert!(refused.error("statement_error", 40001).contains(id), "{}", refused.text);
    let dropped = f.server.sql(&format!("TERMINATE {id}; DROP TABLE T DELETE TOPIC; DROP STREAM S;")).await;
    assert_eq!(dropped.as_array().unwrap().len(), 3, "{dropped}");
    assert_eq!(f.server.sql("SHOW TABLES;").await[0]["tables"], json!([]));
    let topics = f.server.sql("SHOW TOPICS;").await.to_string();
    assert!(topics.contains("\"s\"") && !topics.contains("\"T\""), "{topics}");
    f.server.stop();
}

#[tokio::test]
async fn errors_have_ksqldbs_shapes_and_codes() {
    let f = Fixture::new(STREAM).await;
    let server = &f.server;
    let ksql = async |text: &str| server.post("/ksql", &json!({ "ksql": text })).await;

    let answer = ksql("SELCT 1;").await;
    let message = answer.error("statement_error", 40001);
    assert!(message.starts_with("line 1:1: Syntax Error\n"), "{message}");
    assert_eq!(answer.content_type.split(';').next(), Some("application/json"));

    let answer = ksql("SHOW STREAMS;\nCREATE STREAM X AS SELECT NOWHERE FROM S EMIT CHANGES; SHOW TABLES;").await;
    let message = answer.error("statement_error", 40001);
    assert!(message.starts_with("line 2:") && message.contains("NOWHERE"), "{message}");
    let body = answer.json();
    assert_eq!(body["entities"].as_array().unwrap().len(), 1, "the first statement was done: {body}");
    assert!(body["statementText"].as_str().unwrap().starts_with("CREATE STREAM X"), "{body}");

    ksql("SELECT * FROM S EMIT CHANGES;").await.error("statement_error", 40002);
    ksql("PRINT 's';").await.error("statement_error", 40002);
    ksql("DROP STREAM NOPE;").await.error("statement_error", 40001);
    ksql("ASSERT TOPIC 'nope' TIMEOUT 1 SECONDS;").await.error("statement_error", 41700);

    let raw = async |path: &str, body: &'static str| {
        Answer::of(client().post(format!("{}{path}", server.http)).body(body)).await
    };
    raw("/ksql", "nonsense").await.error("generic_error", 40000);
    raw("/ksql", "{}").await.error("generic_error", 40000);
    raw("/query-stream", "[]").await.error("generic_error", 40000);
    raw("/close-query", "{}").await.error("generic_error", 40000);

    let select = async |text: &str| server.post("/query-stream", &json!({ "sql": text })).await;
    select("SELECT * FROM NOPE EMIT CHANGES;").await.error("statement_error", 40001);
    select("SELECT * FROM S EMIT CHANGES; SELECT 1;").await.error("statement_error", 40001);
    select("SHOW STREAMS;").await.error("statement_error", 40001);
    let message =
        server.post("/query", &json!({ "ksql": "SELECT * FROM NOPE;" })).await.error("statement_error", 40001);
    assert!(message.contains("NOPE"), "{message}");
    // Sentences, in the words that ksqlDB's clients know.
    let message = server.post("/query", &json!({ "ksql": "SELECT * FROM S GROUP BY K;" })).await;
    let message = message.error("statement_error", 40001);
    let known = "Pull queries don't support GROUP BY clauses. See https://cnfl.io/queries for more info.\n\
                 Add EMIT CHANGES if you intended to issue a push query.";
    assert!(message.contains(known), "{message}");
    let message = server.post("/query", &json!({ "ksql": "SELECT V + NULL FROM S EMIT CHANGES;" })).await;
    let message = message.error("statement_error", 40001);
    assert!(
        message.contains("Error processing expression: (V + null). Arithmetic on types INTEGER and null"),
        "{message}"
    );

    assert_eq!((server.get("/nope").await.status, server.get("/nope").await.text.as_str()), (404, "Not Found"));
    assert_eq!(server.get("/ksql").await.status, 405);
    server.post("/close-query", &json!({ "queryId": "nope" })).await.error("generic_error", 40001);

    // Nothing that a client sends makes the server do much or fall over.
    let deep = format!("SELECT {}1{} FROM S EMIT CHANGES;", "(".repeat(20_000), ")".repeat(20_000));
    select(&deep).await.error("statement_error", 40001);
    let long = server.post("/ksql", &json!({ "ksql": "x".repeat(5 << 20) })).await;
    assert_eq!(long.status, 413, "{}", long.text);
    assert!(server.get("/healthcheck").await.json()["isHealthy"].as_bool().unwrap());
    f.server.stop();
}

#[tokio::test]
async fn small_endpoints() {
    let f = Fixture::new(&format!("{STREAM}{TABLE}")).await;
    let server = &f.server;
    let info = server.get("/info").await.json();
    let info = &info["KsqlServerInfo"];
    assert_eq!((&info["serverStatus"], &info["ksqlServiceId"]), (&json!("RUNNING"), &json!("default_")));
    assert!(!info["kafkaClusterId"].as_str().unwrap().is_empty() && info["version"].is_string(), "{info}");
    // Followed from 307.
    assert_eq!(server.get("/").await.json()["KsqlServerInfo"], *info);
    let health = server.get("/healthcheck").await.json();
    assert_eq!((&health["isHealthy"], &health["details"]["kafka"]["isHealthy"]), (&json!(true), &json!(true)));
    let cluster = server.get("/clusterStatus").await.json();
    let hosts = cluster["clusterStatus"].as_object().unwrap();
    assert!(hosts.values().all(|host| host["hostAlive"] == json!(true)) && hosts.len() == 1, "{cluster}");
    assert_eq!(server.get("/is_valid_property/auto.offset.reset").await.json(), json!(true));
    assert_eq!(server.get("/is_valid_property/no.such.thing").await.status, 400);

    server.sql("INSERT INTO S (K, V) VALUES ('a', 1);").await;
    server.eventually("SELECT N FROM T;", &[json!([1])]).await;
    let metrics = server.get("/metrics").await;
    assert_eq!((metrics.status, metrics.content_type.split(';').next()), (200, Some("text/plain")));
    let families = crate::metrics::parse(&metrics.text).unwrap_or_else(|e| panic!("{e}"));
    assert!(families.contains_key("millpond_process_resident_memory_bytes"), "{families:?}");
    for line in ["millpond_storage_writable 1", "millpond_storage_in_doubt 0"] {
        assert!(metrics.text.lines().any(|l| l == line), "no {line}");
    }
    assert!(metrics.text.lines().any(|l| l.contains("query=\"CTAS_T_") && !l.ends_with(" 0")), "{}", metrics.text);
    // The query has read its source to the end, as a group that is named after it.
    let lag = metrics.text.lines().find(|l| l.starts_with("millpond_consumergroup_lag{")).unwrap_or_default();
    assert!(
        lag.contains("query_CTAS_T_") && lag.contains("topic=\"s\",partition=\"0\"") && lag.ends_with(" 0"),
        "{lag}"
    );
    f.server.stop();
}

#[tokio::test]
async fn inserted_values_come_out_of_push_and_pull_queries() {
    let f = Fixture::new(&format!("{STREAM}{TABLE}")).await;
    let server = &f.server;
    let done = server
        .sql("INSERT INTO S (K, V, NOTE) VALUES ('a', 1, 'it''s \"so\"'); INSERT INTO S (K, V) VALUES ('b', 2);")
        .await;
    assert_eq!(done, json!([]), "INSERT VALUES has no entity");
    server.sql("INSERT INTO S (K, V) VALUES ('a', 40 + 1);").await;
    server.eventually("SELECT K, N, TOTAL FROM T;", &[json!(["a", 2, 42]), json!(["b", 1, 2])]).await;

    // Both protocols, all forms, push with LIMIT.
    let sql = "SELECT K, V, NOTE FROM S EMIT CHANGES LIMIT 3;";
    let sorted = |rows: &[Json]| {
        let mut rows: Vec<String> = rows.iter().map(Json::to_string).collect();
        rows.sort();
        rows
    };
    let expected = sorted(&[json!(["a", 1, "it's \"so\""]), json!(["a", 41, null]), json!(["b", 2, null])]);
    for (http, version) in [(client(), Version::HTTP_11), (client_http2(), Version::HTTP_2)] {
        assert_eq!(http.get(format!("{}/info", server.http)).send().await.unwrap().version(), version);
        for accept in ["", DELIMITED] {
            let answer = Answer::of(query_stream(&http, server, sql, accept)).await;
            assert_eq!((answer.status, answer.content_type.as_str()), (200, DELIMITED), "{}", answer.text);
            assert!(answer.text.starts_with("{\"queryId\":\""), "{}", answer.text);
            let lines: Vec<Json> = answer.text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            assert_eq!(lines[0]["columnNames"], json!(["K", "V", "NOTE"]));
            assert_eq!(lines[0]["columnTypes"], json!(["STRING", "INTEGER", "STRING"]));
            assert_eq!(sorted(&lines[1..]), expected);
        }
        let answer = Answer::of(query_stream(&http, server, sql, "application/json")).await;
        assert_eq!(answer.content_type, "application/json");
        let items = answer.json();
        assert_eq!(items[0]["columnNames"], json!(["K", "V", "NOTE"]));
        assert_eq!(sorted(&items.as_array().unwrap()[1..]), expected);

        let answer = Answer::of(query_stream(&http, server, sql, V1_JSON)).await;
        assert_eq!(answer.content_type, V1_JSON);
        check_rows(&answer, "`K` STRING, `V` INTEGER, `NOTE` STRING", Some("Limit Reached"), &expected);
        let pulled = Answer::of(query_stream(&http, server, "SELECT K, N FROM T;", V1_JSON)).await;
        check_rows(&pulled, "`K` STRING KEY, `N` BIGINT", None, &sorted(&[json!(["a", 2]), json!(["b", 1])]));

        // /query: the older endpoint, rows by default.
        let body =
            json!({ "ksql": sql, "streamsProperties": { "ksql.streams.auto.offset.reset": "earliest" } }).to_string();
        let answer = Answer::of(http.post(format!("{}/query", server.http)).body(body)).await;
        check_rows(&answer, "`K` STRING, `V` INTEGER, `NOTE` STRING", Some("Limit Reached"), &expected);
    }
    // Variables and properties of the session.
    let body = json!({ "ksql": "SHOW VARIABLES;", "sessionVariables": { "x": "1" } });
    assert_eq!(server.post("/ksql", &body).await.json()[0]["variables"][0]["value"], "1");
    let body = json!({ "sql": "SELECT V FROM S WHERE V = ${wanted} EMIT CHANGES LIMIT 1;", "sessionVariables": { "wanted": "41" },
        "properties": { "auto.offset.reset": "earliest" } });
    let answer = server.post("/query-stream", &body).await;
    assert_eq!(answer.text.lines().nth(1), Some("[41]"), "{}", answer.text);
    f.server.stop();
}

#[track_caller]
fn check_rows(answer: &Answer, schema: &str, end: Option<&str>, expected: &[String]) {
    let items = answer.json();
    let items = items.as_array().unwrap();
    assert!(items[0]["header"]["queryId"].is_string(), "{}", items[0]);
    assert_eq!(items[0]["header"]["schema"], schema);
    let rows = if let Some(end) = end {
        assert_eq!(items.last().unwrap()["finalMessage"], end, "{}", answer.text);
        &items[1..items.len() - 1]
    } else {
        &items[1..]
    };
    let mut rows: Vec<String> = rows.iter().map(|r| r["row"]["columns"].to_string()).collect();
    rows.sort();
    assert_eq!(rows, expected);
    // One item per line.
    assert_eq!(answer.text.trim_end().lines().filter(|l| l.trim() != "]").count(), items.len(), "{}", answer.text);
}

async fn open_queries(server: &Process) -> Vec<String> {
    let queries = server.sql("SHOW QUERIES;").await;
    let list = queries[0]["queries"].as_array().unwrap();
    list.iter().filter(|q| q["queryType"] == "PUSH").map(|q| q["id"].as_str().unwrap().to_string()).collect()
}

async fn until_no_query(server: &Process, what: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while !open_queries(server).await.is_empty() {
        assert!(Instant::now() < until, "{what}: the query goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_push_query_ends_with_its_client() {
    let f = Fixture::new(STREAM).await;
    let server = &f.server;
    for http in [client(), client_http2()] {
        let response = query_stream(&http, server, "SELECT V FROM S EMIT CHANGES;", "").send().await.unwrap();
        let mut lines = Lines::of(response);
        let header = lines.json().await;
        server.sql("INSERT INTO S (K, V) VALUES ('a', 7);").await;
        assert_eq!(lines.json().await, json!([7]));
        assert_eq!(open_queries(server).await, [header["queryId"].as_str().unwrap()]);
        // The client goes without a word.
        drop(lines);
        drop(http);
        until_no_query(server, "its client is gone").await;
        server.sql("DROP STREAM S DELETE TOPIC;").await;
        server.sql(STREAM).await;
    }

    // /close-query ends it cleanly, and TERMINATE does.
    let response = query_stream(&client(), server, "SELECT V FROM S EMIT CHANGES;", V1_JSON).send().await.unwrap();
    let mut lines = Lines::of(response);
    let first = lines.next().await.unwrap();
    let header: Json = serde_json::from_str(first.trim_start_matches('[').trim_end_matches(',')).unwrap();
    let id = &header["header"]["queryId"];
    let closed = server.post("/close-query", &json!({ "queryId": id })).await;
    assert_eq!((closed.status, closed.text.as_str()), (200, ""));
    let mut rest = String::new();
    while let Some(line) = lines.next().await {
        rest.push_str(&line);
    }
    assert!(rest.contains("Query Completed") && rest.trim_end().ends_with(']'), "{rest}");
    server.post("/close-query", &json!({ "queryId": id })).await.error("generic_error", 40001);
    until_no_query(server, "it was closed").await;

    // A shutdown ends it cleanly as well.
    let response = query_stream(&client(), server, "SELECT V FROM S EMIT CHANGES;", "").send().await.unwrap();
    let mut lines = Lines::of(response);
    lines.json().await;
    f.server.stop();
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn push_queries_over_tables_tell_deletions() {
    let f = Fixture::new(
        "CREATE TABLE U (K STRING PRIMARY KEY, V INT) WITH (KAFKA_TOPIC='u', PARTITIONS=1, VALUE_FORMAT='JSON');",
    )
    .await;
    let response =
        query_stream(&client(), &f.server, "SELECT K, V FROM U EMIT CHANGES;", V1_JSON).send().await.unwrap();
    let mut lines = Lines::of(response);
    lines.next().await.unwrap();
    f.server.sql("INSERT INTO U (K, V) VALUES ('a', 1); INSERT INTO U (K) VALUES ('b');").await;
    let mut kafka = crate::kafka::Client::connect(f.server.kafka).unwrap();
    assert_eq!(kafka.read_all("u", 0).unwrap().len(), 2);
    let mut rows = Vec::new();
    while rows.len() < 2 {
        let line = lines.next().await.unwrap();
        rows.extend(serde_json::from_str::<Json>(line.trim_matches([',', '[', ']'])).ok().map(|r| r["row"].clone()));
    }
    assert_eq!(rows[0]["columns"], json!(["a", 1]));
    assert_eq!(rows[1]["columns"], json!(["b", null]));
    drop(lines);
    f.server.stop();
}

#[tokio::test]
async fn print_shows_records_as_text() {
    let f = Fixture::new(STREAM).await;
    f.server.sql("INSERT INTO S (K, V) VALUES ('a', 1); INSERT INTO S (K, V) VALUES ('a', 2);").await;
    let answer = f.server.post("/query", &json!({ "ksql": "PRINT 's' FROM BEGINNING LIMIT 2;" })).await;
    assert_eq!((answer.status, answer.content_type.split(';').next()), (200, Some("text/plain")));
    let lines: Vec<&str> = answer.text.lines().filter(|l| l.starts_with("rowtime: ")).collect();
    assert_eq!(lines.len(), 2, "{}", answer.text);
    assert!(lines[0].contains(", key: a, value: {\"V\":1") && lines[0].contains("partition: "), "{}", lines[0]);
    let request = client_http2().post(format!("{}/query", f.server.http));
    let refused = Answer::of(request.body(json!({ "ksql": "PRINT 's' FROM BEGINNING LIMIT 2;" }).to_string())).await;
    assert!((400..500).contains(&refused.status), "{}", refused.text);
    f.server.stop();
}

#[tokio::test]
async fn inserts_stream_acknowledges_each_row() {
    let f = Fixture::new(STREAM).await;
    let url = format!("{}/inserts-stream", f.server.http);
    let refused = Answer::of(client().post(&url).body("{\"target\":\"S\"}\n")).await;
    refused.error("generic_error", 40004);

    // Both directions at once: each acknowledgement comes before the next row is sent.
    let (mut send, body) = futures::channel::mpsc::channel::<Result<String, std::convert::Infallible>>(4);
    let send_line = async |send: &mut futures::channel::mpsc::Sender<_>, line: Json| {
        futures::SinkExt::send(send, Ok(format!("{line}\n"))).await.unwrap();
    };
    send_line(&mut send, json!({ "target": "s", "properties": {} })).await;
    let request = client_http2().post(&url).header("accept", DELIMITED).body(reqwest::Body::wrap_stream(body));
    let mut acks = Lines::of(request.send().await.unwrap());
    for (seq, row) in [json!({ "K": "a", "v": 1 }), json!({ "k": "b", "V": 2, "note": null })].into_iter().enumerate() {
        send_line(&mut send, row).await;
        assert_eq!(acks.json().await, json!({ "status": "ok", "seq": seq }));
    }
    for row in [json!({ "K": "c", "V": "no number" }), json!({ "K": "c", "NOPE": 1 }), json!([1])] {
        send_line(&mut send, row).await;
        let ack = acks.json().await;
        assert_eq!((&ack["status"], ack["error_code"].as_u64()), (&json!("error"), Some(40000)), "{ack}");
        assert!(ack["message"].is_string(), "{ack}");
    }
    send_line(&mut send, json!({ "K": "d", "V": 4 })).await;
    assert_eq!(acks.json().await, json!({ "status": "ok", "seq": 5 }));
    drop(send);
    assert_eq!(acks.next().await, None);

    let whole = "{\"target\":\"S\"}\n{\"K\":\"e\",\"V\":5}\n{\"K\":\"e\",\"V\":6}";
    let answer = Answer::of(client_http2().post(&url).header("accept", "application/json").body(whole)).await;
    assert_eq!(answer.json(), json!([{ "status": "ok", "seq": 0 }, { "status": "ok", "seq": 1 }]));
    let missing = Answer::of(client_http2().post(&url).body("{\"target\":\"NOPE\"}\n")).await;
    missing.error("generic_error", 40001);
    Answer::of(client_http2().post(&url).body("")).await.error("generic_error", 40000);

    let answer = Answer::of(query_stream(&client(), &f.server, "SELECT V FROM S EMIT CHANGES LIMIT 5;", "")).await;
    let mut values: Vec<&str> = answer.text.lines().skip(1).collect();
    values.sort_unstable();
    assert_eq!(values, ["[1]", "[2]", "[4]", "[5]", "[6]"]);
    f.server.stop();
}

#[tokio::test]
async fn uploaded_modules_are_functions_at_once_and_after_a_restart() {
    let Fixture { server, _directory } = Fixture::new(STREAM).await;
    let put = async |server: &Process, name: &str, bytes: Vec<u8>| {
        Answer::of(client().put(format!("{}/udfs/{name}", server.http)).body(bytes)).await
    };
    let created = put(&server, "classify", guest("classify")).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let created = created.json();
    let signatures: Vec<&str> =
        created["functions"].as_array().unwrap().iter().map(|f| f["signature"].as_str().unwrap()).collect();
    assert!(signatures.iter().any(|s| s.starts_with("CLASSIFY_AGENT(") && s.contains("STRING")), "{created}");
    assert_eq!(created["leftOut"], json!([]));
    assert_eq!(put(&server, "classify", guest("classify")).await.status, 200, "the same bytes again");
    let probes = put(&server, "probes", guest("probes")).await.json();
    assert!(!probes["leftOut"].as_array().unwrap().is_empty(), "{probes}");
    assert!(probes["leftOut"][0]["reason"].is_string() && probes["leftOut"][0]["export"].is_string());
    let listed = server.get("/udfs").await.json();
    assert_eq!(listed.as_array().unwrap().iter().map(|m| &m["name"]).collect::<Vec<_>>(), ["classify", "probes"]);
    put(&server, "bad", b"no wasm".to_vec()).await.error("generic_error", 40000);
    assert_eq!(server.get("/udfs/bad").await.status, 404);

    let functions = server.sql("SHOW FUNCTIONS;").await.to_string();
    assert!(functions.contains("\"URL_SECTION\""), "SHOW FUNCTIONS");
    let described = &server.sql("DESCRIBE FUNCTION URL_SECTION;").await[0];
    assert_eq!(described["functions"][0]["returnType"], "STRING", "{described}");
    server.sql("CREATE STREAM SECTIONS AS SELECT K, URL_SECTION(NOTE) AS SECTION FROM S EMIT CHANGES;").await;
    server.sql("INSERT INTO S (K, NOTE) VALUES ('a', '/shop/cart');").await;

    // In use: neither replaced nor deleted, and the users are named.
    for refused in [
        put(&server, "classify", guest("probes")).await,
        Answer::of(client().delete(format!("{}/udfs/classify", server.http))).await,
    ] {
        refused.error("generic_error", 40900);
        assert!(refused.json()["users"][0].as_str().unwrap().starts_with("CSAS_SECTIONS_"), "{}", refused.text);
    }
    let shown = server.get("/udfs/classify").await.json();
    assert!(shown["usedBy"][0].as_str().unwrap().starts_with("CSAS_SECTIONS_"), "{shown}");
    let deleted = Answer::of(client().delete(format!("{}/udfs/probes", server.http))).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    assert_eq!(server.get("/udfs/probes").await.status, 404);
    server
        .post("/query-stream", &json!({ "sql": "SELECT ADD_ONE(V) FROM S EMIT CHANGES;" }))
        .await
        .error("statement_error", 40001);
    server.stop();

    let server = Process::start(_directory.path());
    assert_eq!(server.get("/udfs").await.json().as_array().unwrap().len(), 1);
    server.sql("INSERT INTO S (K, NOTE) VALUES ('b', 'https://pond.example/docs/start');").await;
    let answer =
        Answer::of(query_stream(&client(), &server, "SELECT SECTION FROM SECTIONS EMIT CHANGES LIMIT 2;", "")).await;
    let mut rows: Vec<&str> = answer.text.lines().skip(1).collect();
    rows.sort_unstable();
    assert_eq!(rows, ["[\"docs\"]", "[\"shop\"]"]);

    let id = server.sql("SHOW QUERIES;").await[0]["queries"][0]["id"].as_str().unwrap().to_string();
    server.sql(&format!("TERMINATE {id};")).await;
    let deleted = Answer::of(client().delete(format!("{}/udfs/classify", server.http))).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    server.stop();
}

/// A guest that traps, loops or lies costs its row, and nothing else.
#[tokio::test]
async fn a_guest_that_misbehaves_costs_its_row() {
    let f = Fixture::new(STREAM).await;
    let put = client().put(format!("{}/udfs/probes", f.server.http)).body(guest("probes"));
    assert_eq!(Answer::of(put).await.status, 201);
    f.server
        .sql(
            "CREATE STREAM TRIED AS SELECT K, V, UNLUCKY(V) AS U, SPIN(V) AS L, WILD(V) AS W, PARSE_INT(NOTE) AS N
               FROM S EMIT CHANGES;",
        )
        .await;
    for (v, note) in [(1, "12"), (13, "xy"), (-1, "7"), (2, "8")] {
        f.server.sql(&format!("INSERT INTO S (K, V, NOTE) VALUES ('a', {v}, '{note}');")).await;
    }
    let answer =
        Answer::of(query_stream(&client(), &f.server, "SELECT V, U, L, W, N FROM TRIED EMIT CHANGES LIMIT 4;", ""))
            .await;
    let rows: Vec<Json> = answer.text.lines().skip(1).map(|l| serde_json::from_str(l).unwrap()).collect();
    // 13 is unlucky and wild, -1 spins, "xy" is no number; nothing else of the row is lost.
    let failed: Vec<Vec<bool>> =
        rows.iter().map(|r| r.as_array().unwrap().iter().map(Json::is_null).collect()).collect();
    let expected = [[false; 5], [false, true, false, true, true], [false, false, true, false, false], [false; 5]];
    assert_eq!(failed, expected, "{}", answer.text);
    assert_eq!(rows.iter().map(|r| &r[4]).collect::<Vec<_>>(), [&json!(12), &Json::Null, &json!(7), &json!(8)]);
    let log = f.server.stop();
    for (function, why) in
        [("UNLUCKY", "trapped"), ("WILD", "out of bounds"), ("PARSE_INT", "no number"), ("SPIN", "fuel")]
    {
        let named = |l: &&str| l.contains("millpond::processing") && l.contains(function) && l.contains(why);
        assert_eq!(log.lines().filter(named).count(), 1, "one line for {function}: {log}");
    }
}

#[tokio::test]
async fn push_queries_have_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[limits]\npush_queries_max = 1\n").unwrap();
    let mut command = crate::process::serve(&directory.path().join("data"));
    command.arg("--config").arg(&config);
    let server = Process::spawn(command);
    server.sql(STREAM).await;
    let sql = "SELECT V FROM S EMIT CHANGES;";
    let first = query_stream(&client(), &server, sql, "").send().await.unwrap();
    Answer::of(query_stream(&client(), &server, sql, "")).await.error("statement_error", 40003);
    drop(first);
    until_no_query(&server, "its client is gone").await;
    drop(query_stream(&client(), &server, sql, "").send().await.unwrap().error_for_status().unwrap());
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[limits]\nhttp_connections_max = 2\nhttp_connections_per_address_max = 2\n[security]\nhandshake_timeout_ms = 3000\n").unwrap();
    let mut command = crate::process::serve(&directory.path().join("data"));
    command.arg("--config").arg(&config);
    let server = Process::spawn(command);
    let address = server.http.strip_prefix("http://").unwrap();
    // Two that have begun a request and say no more, and one too many.
    let begun = || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _turned_away = stream.write_all(b"GET /info HTTP/1.1\r\n");
        stream
    };
    let ends = |stream: &mut std::net::TcpStream| match stream.read(&mut [0; 1000]) {
        Ok(n) => n == 0,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => true,
        Err(e) => panic!("neither an answer nor the end: {e}"),
    };
    let (first, second) = (begun(), begun());
    assert!(ends(&mut begun()), "the third is turned away");
    drop((first, second));
    let until = Instant::now() + Duration::from_secs(60);
    while crate::process::client().get(format!("{}/info", server.http)).send().await.is_err() {
        assert!(Instant::now() < until, "places are given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whoever says nothing at all is let go.
    let mut silent = std::net::TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(ends(&mut silent));
    server.stop();
}

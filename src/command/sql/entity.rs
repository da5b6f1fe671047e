//! The text of each kind of answer that a server gives to a statement.
//!
//! What has a kind that this version does not know is shown as JSON: better than nothing.

use serde_json::Value as Json;

use super::table::{Column, draw, printable};

/// What a person reads; ends with its line. Empty where there is nothing to tell.
pub fn text(entity: &Json, width: Option<usize>) -> String {
    let mut out = String::new();
    for warning in items(entity, "warnings") {
        out.push_str(&format!("WARNING: {}\n", field(warning, "message")));
    }
    let body = match field(entity, "@type").as_str() {
        "currentStatus" => status(entity),
        "streams" => sources(items(entity, "streams"), width, "There are no streams"),
        "tables" => sources(items(entity, "tables"), width, "There are no tables"),
        "kafka_topics" => topics(entity, false, width),
        "kafka_topics_extended" => topics(entity, true, width),
        "queries" => queries(items(entity, "queries"), width),
        "sourceDescription" => source(&entity["sourceDescription"], width),
        "source_descriptions" => {
            items(entity, "sourceDescriptions").iter().map(|s| source(s, width)).collect::<Vec<_>>().join("\n")
        }
        "queryDescription" => query(&entity["queryDescription"], width),
        "query_descriptions" => {
            items(entity, "queryDescriptions").iter().map(|q| query(q, width)).collect::<Vec<_>>().join("\n")
        }
        "executionPlan" => format!("{}\n", paragraph(&field(entity, "executionPlan"))),
        "function_names" => functions(entity, width),
        "describe_function" => function(entity, width),
        "properties" => properties(entity, width),
        "type_list" => types(entity, width),
        "variables" => {
            variables(items(entity, "variables").iter().map(|v| (field(v, "name"), field(v, "value"))), width)
        }
        "assert_topic" => asserted("Topic", &field(entity, "topicName"), entity),
        "assert_schema" => asserted("Schema", &field(entity, "subject"), entity),
        "warning_entity" => format!("WARNING: {}\n", field(entity, "message")),
        "terminate_query" => format!("Query {} terminated.\n", field(entity, "queryId")),
        _ => format!("{entity}\n"),
    };
    out + &body
}

/// Names and values, as SHOW VARIABLES gives them.
pub fn variables(pairs: impl Iterator<Item = (String, String)>, width: Option<usize>) -> String {
    let rows = pairs.map(|(name, value)| vec![name, value]).collect();
    list(&[Column::text("Variable"), Column::text("Value")], rows, width, "No variables are defined")
}

fn items<'a>(json: &'a Json, name: &str) -> &'a [Json] {
    json.get(name).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// A member as text; empty if it is not there.
fn field(json: &Json, name: &str) -> String {
    match json.get(name) {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn strings(json: &Json, name: &str) -> String {
    items(json, name).iter().map(|item| item.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Several lines without control characters.
fn paragraph(text: &str) -> String {
    text.trim_end().lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn list(columns: &[Column], rows: Vec<Vec<String>>, width: Option<usize>, none: &str) -> String {
    if rows.is_empty() { format!("{none}\n") } else { draw(columns, &rows, width) }
}

fn headed(title: &str, table: &str) -> String {
    format!("\n{title}\n{table}")
}

fn status(entity: &Json) -> String {
    let status = &entity["commandStatus"];
    let message = match field(status, "message") {
        message if message.is_empty() => field(status, "status"),
        message => message,
    };
    let id = field(status, "queryId");
    // The message of a query that was started names it already.
    let query = if id.is_empty() || message.contains(&id) { String::new() } else { format!(" (query {id})") };
    format!("{}{query}\n", paragraph(&message))
}

fn asserted(what: &str, name: &str, entity: &Json) -> String {
    let there = entity["exists"].as_bool().unwrap_or(true);
    format!("{what} {name} {}.\n", if there { "exists" } else { "does not exist" })
}

fn sources(sources: &[Json], width: Option<usize>, none: &str) -> String {
    let columns = ["Name", "Topic", "Key format", "Value format", "Windowed"].map(Column::text);
    let rows = sources
        .iter()
        .map(|s| {
            let windowed = s["isWindowed"].as_bool().unwrap_or(false);
            vec![
                field(s, "name"),
                field(s, "topic"),
                field(s, "keyFormat"),
                field(s, "valueFormat"),
                if windowed { "yes" } else { "no" }.to_string(),
            ]
        })
        .collect();
    list(&columns, rows, width, none)
}

fn topics(entity: &Json, extended: bool, width: Option<usize>) -> String {
    let mut columns = vec![Column::text("Topic"), Column::number("Partitions"), Column::number("Replicas")];
    if extended {
        columns.extend([Column::number("Consumers"), Column::number("Groups")]);
    }
    let rows = items(entity, "topics")
        .iter()
        .map(|t| {
            let replicas = items(t, "replicaInfo");
            let mut row = vec![
                field(t, "name"),
                replicas.len().to_string(),
                replicas.first().map(Json::to_string).unwrap_or_default(),
            ];
            if extended {
                row.extend([field(t, "consumerCount"), field(t, "consumerGroupCount")]);
            }
            row
        })
        .collect();
    list(&columns, rows, width, "There are no topics")
}

fn queries(queries: &[Json], width: Option<usize>) -> String {
    let columns = ["Query", "Type", "State", "Sink", "Sink topic", "Statement"].map(Column::text);
    let row = |q: &Json| {
        let state = match field(q, "state") {
            state if state.is_empty() => counts(&q["statusCount"]),
            state => state,
        };
        vec![
            field(q, "id"),
            field(q, "queryType"),
            state,
            strings(q, "sinks"),
            strings(q, "sinkKafkaTopics"),
            one_line(&field(q, "queryString")),
        ]
    };
    let reasons: String = queries
        .iter()
        .map(|q| (field(q, "id"), field(q, "reason")))
        .filter(|(_, reason)| !reason.is_empty())
        .map(|(id, reason)| format!("{id}: {}\n", paragraph(&reason)))
        .collect();
    list(&columns, queries.iter().map(row).collect(), width, "There are no queries") + &reasons
}

/// `RUNNING:1`
fn counts(json: &Json) -> String {
    let counts = json.as_object().into_iter().flatten().map(|(state, n)| format!("{state}:{n}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn source(d: &Json, width: Option<usize>) -> String {
    let extended = d["extended"].as_bool().unwrap_or(false);
    let window = field(d, "windowType");
    let mut out = format!("Name     : {}\n", printable(&field(d, "name")));
    if extended {
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                out.push_str(&format!("{name:<9}: {}\n", printable(&value)));
            }
        };
        line("Type", field(d, "type"));
        line("Window", window.clone());
        line("Time", field(d, "timestamp"));
        line("Key", field(d, "keyFormat"));
        line("Value", field(d, "valueFormat"));
        let (partitions, replicas) = (field(d, "partitions"), field(d, "replication"));
        line("Topic", format!("{} (partitions: {partitions}, replication: {replicas})", field(d, "topic")));
        line("Statement", one_line(&field(d, "statement")));
    }
    out.push_str(&fields(d, &field(d, "type"), &window, width));
    for (title, name) in [("Queries that read it", "readQueries"), ("Queries that write it", "writeQueries")] {
        if extended && !items(d, name).is_empty() {
            out.push_str(&headed(title, &queries(items(d, name), width)));
        }
    }
    let constraints = strings(d, "sourceConstraints");
    if extended && !constraints.is_empty() {
        out.push_str(&format!("\nSources built on it: {}\n", printable(&constraints)));
    }
    for (title, name) in [("Statistics", "statistics"), ("Errors", "errorStats")] {
        let text = field(d, name);
        if extended && !text.is_empty() {
            out.push_str(&format!("\n{title}: {}\n", paragraph(&text)));
        }
    }
    for group in items(d, "queryOffsetSummaries") {
        out.push_str(&offsets(group, width));
    }
    if !extended {
        out.push_str("DESCRIBE ... EXTENDED tells its topic, queries and statistics.\n");
    }
    out
}

fn offsets(group: &Json, width: Option<usize>) -> String {
    let columns = ["Partition", "Start", "End", "Consumed", "Lag"].map(Column::number);
    let mut out = String::new();
    for topic in items(group, "topicSummaries") {
        let rows = items(topic, "offsets")
            .iter()
            .map(|o| {
                let (end, at) = (o["logEndOffset"].as_i64(), o["consumerOffset"].as_i64());
                let lag = end.zip(at).map_or(String::new(), |(end, at)| end.saturating_sub(at).to_string());
                vec![
                    field(o, "partition"),
                    field(o, "logStartOffset"),
                    field(o, "logEndOffset"),
                    field(o, "consumerOffset"),
                    lag,
                ]
            })
            .collect();
        let title = format!(
            "Group {} in topic {}",
            printable(&field(group, "groupId")),
            printable(&field(topic, "kafkaTopic"))
        );
        out.push_str(&headed(&title, &list(&columns, rows, width, "No partitions")));
    }
    out
}

fn fields(d: &Json, kind: &str, window: &str, width: Option<usize>) -> String {
    let table = kind.eq_ignore_ascii_case("TABLE");
    let rows = items(d, "fields")
        .iter()
        .map(|f| {
            let role = match f["type"].as_str() {
                Some("KEY") if table => " (primary key)".to_string(),
                Some("KEY") => " (key)".to_string(),
                Some("HEADER") => match f["headerKey"].as_str() {
                    Some(key) => format!(" (header('{key}'))"),
                    None => " (headers)".to_string(),
                },
                Some("SYSTEM") => " (system)".to_string(),
                _ => String::new(),
            };
            let windowed = if f["type"] == "KEY" && !window.is_empty() {
                format!(" (Window type: {window})")
            } else {
                String::new()
            };
            vec![field(f, "name"), format!("{}{role}{windowed}", schema(&f["schema"]))]
        })
        .collect();
    list(&[Column::text("Field"), Column::text("Type")], rows, width, "It has no columns")
}

/// A type as SQL writes it.
fn schema(json: &Json) -> String {
    let member = || schema(&json["memberSchema"]);
    match json["type"].as_str().unwrap_or_default() {
        "ARRAY" => format!("ARRAY<{}>", member()),
        "MAP" => format!("MAP<STRING, {}>", member()),
        "STRUCT" => {
            let fields: Vec<String> = items(json, "fields")
                .iter()
                .map(|f| format!("{} {}", field(f, "name"), schema(&f["schema"])))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        "DECIMAL" => {
            let p = &json["parameters"];
            format!("DECIMAL({}, {})", field(p, "precision"), field(p, "scale"))
        }
        other => other.to_string(),
    }
}

fn query(q: &Json, width: Option<usize>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<9}: {}\n", printable(&value)));
        }
    };
    line("ID", field(q, "id"));
    line("Type", field(q, "queryType"));
    let state = match field(q, "state") {
        state if state.is_empty() => counts(&q["ksqlHostQueryStatus"]),
        state => state,
    };
    line("State", state);
    line("Reads", strings(q, "sources"));
    line("Writes", strings(q, "sinks"));
    line("Statement", one_line(&field(q, "statementText")));
    out.push_str(&fields(q, "", &field(q, "windowType"), width));
    let plan = match field(q, "executionPlan") {
        plan if plan.is_empty() => field(q, "topology"),
        plan => plan,
    };
    if !plan.is_empty() {
        out.push_str(&format!("\nPlan\n{}\n", paragraph(&plan)));
    }
    for (title, name) in [("Overridden properties", "overriddenProperties"), ("Counters", "metrics")] {
        let pairs = q[name].as_object().into_iter().flatten();
        let rows: Vec<Vec<String>> = pairs.map(|(key, _)| vec![key.clone(), field(&q[name], key)]).collect();
        if !rows.is_empty() {
            let value = if name == "metrics" { Column::number("Value") } else { Column::text("Value") };
            out.push_str(&headed(title, &draw(&[Column::text("Name"), value], &rows, width)));
        }
    }
    for error in items(q, "queryErrors") {
        out.push_str(&format!("\nError: {}\n", paragraph(&field(error, "errorMessage"))));
    }
    out
}

fn functions(entity: &Json, width: Option<usize>) -> String {
    let mut rows: Vec<Vec<String>> = items(entity, "functions")
        .iter()
        .map(|f| vec![field(f, "name"), field(f, "type"), field(f, "category")])
        .collect();
    rows.sort();
    list(&["Function", "Type", "Category"].map(Column::text), rows, width, "There are no functions")
}

fn function(f: &Json, width: Option<usize>) -> String {
    let mut out = String::new();
    for (name, key) in [
        ("Name", "name"),
        ("Type", "type"),
        ("Author", "author"),
        ("Version", "version"),
        ("Overview", "description"),
        ("Module", "path"),
    ] {
        let value = field(f, key);
        if !value.is_empty() {
            out.push_str(&format!("{name:<9}: {}\n", paragraph(&value)));
        }
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for variant in items(f, "functions") {
        let arguments: Vec<String> = items(variant, "argumentInfos")
            .iter()
            .map(|a| {
                let dots = if a["isVariadic"].as_bool().unwrap_or(false) { "..." } else { "" };
                format!("{} {}{dots}", field(a, "name"), field(a, "type")).trim().to_string()
            })
            .collect();
        rows.push(vec![
            format!("{}({})", field(f, "name"), arguments.join(", ")),
            field(variant, "returnType"),
            field(variant, "description"),
        ]);
    }
    let columns = ["Variation", "Returns", "Description"].map(Column::text);
    let described = rows.iter().any(|row| row.last().is_some_and(|text| !text.is_empty()));
    let columns = if described { columns.as_slice() } else { columns.split_at(2).0 };
    out + &list(columns, rows, width, "It has no variations")
}

fn properties(entity: &Json, width: Option<usize>) -> String {
    let overridden: Vec<&str> = items(entity, "overwrittenProperties").iter().filter_map(Json::as_str).collect();
    let rows = items(entity, "properties")
        .iter()
        .map(|p| {
            let name = field(p, "name");
            let from = if overridden.contains(&name.as_str()) { "SESSION" } else { "" };
            vec![name, field(p, "scope"), from.to_string(), field(p, "value")]
        })
        .collect();
    list(&["Property", "Scope", "Set by", "Value"].map(Column::text), rows, width, "There are no properties")
}

fn types(entity: &Json, width: Option<usize>) -> String {
    let types = entity["types"].as_object().into_iter().flatten();
    let rows = types.map(|(name, ty)| vec![name.clone(), schema(ty)]).collect();
    list(&["Type", "Meaning"].map(Column::text), rows, width, "There are no types")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(entity: &Json, expected: &Expect) {
        expected.assert_eq(&text(entity, None));
    }

    #[test]
    fn status_and_warnings() {
        let created = json!({
            "@type": "currentStatus",
            "commandStatus": { "status": "SUCCESS", "message": "Created query with ID CSAS_X_1", "queryId": "CSAS_X_1" },
            "warnings": [{ "message": "the topic is there already" }],
        });
        check(
            &created,
            &expect![[r#"
            WARNING: the topic is there already
            Created query with ID CSAS_X_1
        "#]],
        );
    }

    #[test]
    fn lists() {
        let streams = json!({ "@type": "streams", "streams": [
            { "type": "STREAM", "name": "S", "topic": "s", "keyFormat": "KAFKA", "valueFormat": "JSON", "isWindowed": false },
        ]});
        check(
            &streams,
            &expect![[r#"
            +------+-------+------------+--------------+----------+
            | Name | Topic | Key format | Value format | Windowed |
            +------+-------+------------+--------------+----------+
            | S    | s     | KAFKA      | JSON         | no       |
            +------+-------+------------+--------------+----------+
        "#]],
        );
        check(
            &json!({ "@type": "tables", "tables": [] }),
            &expect![[r#"
                There are no tables
            "#]],
        );
        let topics = json!({ "@type": "kafka_topics", "topics": [{ "name": "t", "replicaInfo": [1, 1, 1] }] });
        check(
            &topics,
            &expect![[r#"
            +-------+------------+----------+
            | Topic | Partitions | Replicas |
            +-------+------------+----------+
            | t     |          3 |        1 |
            +-------+------------+----------+
        "#]],
        );
        let queries = json!({ "@type": "queries", "queries": [{
            "id": "CSAS_X_1", "queryType": "PERSISTENT", "state": "ERROR", "reason": "the topic is gone",
            "sinks": ["X"], "sinkKafkaTopics": ["X"], "queryString": "CREATE STREAM X AS\n  SELECT *\n  FROM S;",
        }]});
        check(
            &queries,
            &expect![[r#"
            +----------+------------+-------+------+------------+-------------------------------------+
            | Query    | Type       | State | Sink | Sink topic | Statement                           |
            +----------+------------+-------+------+------------+-------------------------------------+
            | CSAS_X_1 | PERSISTENT | ERROR | X    | X          | CREATE STREAM X AS SELECT * FROM S; |
            +----------+------------+-------+------+------------+-------------------------------------+
            CSAS_X_1: the topic is gone
        "#]],
        );
        let types = json!({ "@type": "type_list", "types": { "ADDRESS": { "type": "STRUCT", "fields": [
            { "name": "CITY", "schema": { "type": "STRING" } },
            { "name": "AT", "schema": { "type": "ARRAY", "memberSchema": { "type": "DOUBLE" } } },
        ]}}});
        check(
            &types,
            &expect![[r#"
            +---------+---------------------------------------+
            | Type    | Meaning                               |
            +---------+---------------------------------------+
            | ADDRESS | STRUCT<CITY STRING, AT ARRAY<DOUBLE>> |
            +---------+---------------------------------------+
        "#]],
        );
        let properties = json!({ "@type": "properties", "overwrittenProperties": ["auto.offset.reset"], "properties": [
            { "name": "auto.offset.reset", "scope": "KSQL", "value": "earliest" },
            { "name": "ksql.service.id", "scope": "KSQL", "value": "default_" },
        ]});
        check(
            &properties,
            &expect![[r#"
            +-------------------+-------+---------+----------+
            | Property          | Scope | Set by  | Value    |
            +-------------------+-------+---------+----------+
            | auto.offset.reset | KSQL  | SESSION | earliest |
            | ksql.service.id   | KSQL  |         | default_ |
            +-------------------+-------+---------+----------+
        "#]],
        );
    }

    #[test]
    fn descriptions() {
        let source = json!({ "@type": "sourceDescription", "sourceDescription": {
            "name": "T", "type": "TABLE", "windowType": "TUMBLING", "extended": true, "keyFormat": "KAFKA",
            "valueFormat": "JSON", "topic": "T", "partitions": 2, "replication": 1, "timestamp": "",
            "statement": "CREATE TABLE T AS SELECT ID, COUNT(*) AS N FROM S GROUP BY ID;",
            "fields": [
                { "name": "ID", "type": "KEY", "schema": { "type": "STRING" } },
                { "name": "N", "schema": { "type": "DECIMAL", "parameters": { "precision": 4, "scale": 2 } } },
            ],
            "readQueries": [], "writeQueries": [], "sourceConstraints": ["U"],
            "queryOffsetSummaries": [{ "groupId": "g", "topicSummaries": [{ "kafkaTopic": "s", "offsets": [
                { "partition": 0, "logStartOffset": 0, "logEndOffset": 10, "consumerOffset": 7 },
            ]}]}],
        }});
        check(
            &source,
            &expect![[r#"
            Name     : T
            Type     : TABLE
            Window   : TUMBLING
            Key      : KAFKA
            Value    : JSON
            Topic    : T (partitions: 2, replication: 1)
            Statement: CREATE TABLE T AS SELECT ID, COUNT(*) AS N FROM S GROUP BY ID;
            +-------+----------------------------------------------+
            | Field | Type                                         |
            +-------+----------------------------------------------+
            | ID    | STRING (primary key) (Window type: TUMBLING) |
            | N     | DECIMAL(4, 2)                                |
            +-------+----------------------------------------------+

            Sources built on it: U

            Group g in topic s
            +-----------+-------+-----+----------+-----+
            | Partition | Start | End | Consumed | Lag |
            +-----------+-------+-----+----------+-----+
            |         0 |     0 |  10 |        7 |   3 |
            +-----------+-------+-----+----------+-----+
        "#]],
        );
        let function = json!({ "@type": "describe_function", "name": "CONCAT", "type": "SCALAR", "author": "Millpond",
            "description": "joins texts", "path": "internal", "functions": [
                { "argumentInfos": [{ "name": "text", "type": "STRING", "isVariadic": true }], "returnType": "STRING", "description": "" },
        ]});
        check(
            &function,
            &expect![[r#"
            Name     : CONCAT
            Type     : SCALAR
            Author   : Millpond
            Overview : joins texts
            Module   : internal
            +------------------------+---------+
            | Variation              | Returns |
            +------------------------+---------+
            | CONCAT(text STRING...) | STRING  |
            +------------------------+---------+
        "#]],
        );
        let query = json!({ "@type": "queryDescription", "queryDescription": {
            "id": "CTAS_T_1", "queryType": "PERSISTENT", "state": "RUNNING", "sources": ["S"], "sinks": ["T"],
            "statementText": "CREATE TABLE T AS ...;", "executionPlan": "sink T\n  source S\n",
            "fields": [{ "name": "ID", "type": "KEY", "schema": { "type": "STRING" } }],
            "overriddenProperties": { "auto.offset.reset": "earliest" }, "metrics": { "rows_in": 12 },
        }});
        check(
            &query,
            &expect![[r#"
            ID       : CTAS_T_1
            Type     : PERSISTENT
            State    : RUNNING
            Reads    : S
            Writes   : T
            Statement: CREATE TABLE T AS ...;
            +-------+--------------+
            | Field | Type         |
            +-------+--------------+
            | ID    | STRING (key) |
            +-------+--------------+

            Plan
            sink T
              source S

            Overridden properties
            +-------------------+----------+
            | Name              | Value    |
            +-------------------+----------+
            | auto.offset.reset | earliest |
            +-------------------+----------+

            Counters
            +---------+-------+
            | Name    | Value |
            +---------+-------+
            | rows_in |    12 |
            +---------+-------+
        "#]],
        );
    }

    #[test]
    fn what_is_unknown_is_shown_as_it_is() {
        assert_eq!(text(&json!({ "@type": "novel", "x": 1 }), None), "{\"@type\":\"novel\",\"x\":1}\n");
    }
}

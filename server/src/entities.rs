//! Answers of statements as the JSON entities of ksqlDB's API.

use millpond_engine::entity::{
    Answer, CommandStatus, Entity, FunctionDescription, QueryDescription, QuerySummary, QueryType, SourceDescription,
};
use millpond_sql::plan::{Relation, WindowKind};
use millpond_types::{Column, ColumnRole, Schema, SqlType};
use serde_json::{Map, Value as Json, json};

/// A statement as ksqlDB shows it, with its semicolon.
fn ended(statement: &str) -> String {
    format!("{};", statement.trim_end().trim_end_matches(';'))
}

/// The entity of an answer; `None` for statements that have none (SET, DEFINE, INSERT VALUES).
pub(crate) fn to_json(answer: &Answer) -> Option<Json> {
    let mut body = match &answer.entity {
        Entity::Done => return None,
        Entity::Status(status) => command_status(status),
        Entity::Sources { relation, sources } => {
            let list: Vec<Json> = sources
                .iter()
                .map(|s| {
                    json!({
                        "type": s.relation.to_string(),
                        "name": s.name,
                        "topic": s.topic,
                        "keyFormat": s.key_format.name,
                        "valueFormat": s.value_format.name,
                        "isWindowed": s.window.is_some(),
                    })
                })
                .collect();
            match relation {
                Relation::Stream => json!({ "@type": "streams", "streams": list }),
                Relation::Table => json!({ "@type": "tables", "tables": list }),
            }
        }
        Entity::Topics { topics, extended } => {
            let list: Vec<Json> = topics
                .iter()
                .map(|t| {
                    let mut topic = json!({
                        "name": t.name,
                        "replicaInfo": vec![t.replicas; usize::try_from(t.partitions).unwrap_or(0)],
                    });
                    if *extended {
                        topic["consumerCount"] = json!(t.consumers);
                        topic["consumerGroupCount"] = json!(t.consumer_groups);
                    }
                    topic
                })
                .collect();
            json!({ "@type": if *extended { "kafka_topics_extended" } else { "kafka_topics" }, "topics": list })
        }
        Entity::Queries { queries, .. } => {
            json!({ "@type": "queries", "queries": queries.iter().map(query_summary).collect::<Vec<_>>() })
        }
        Entity::Source(source) => {
            json!({ "@type": "sourceDescription", "sourceDescription": source_description(source) })
        }
        Entity::SourceList(sources) => json!({
            "@type": "source_descriptions",
            "sourceDescriptions": sources.iter().map(source_description).collect::<Vec<_>>(),
        }),
        Entity::Query(query) => json!({ "@type": "queryDescription", "queryDescription": query_description(query) }),
        Entity::Plan(text) => json!({ "@type": "executionPlan", "executionPlan": text }),
        Entity::Functions(functions) => {
            let list: Vec<Json> =
                functions.iter().map(|f| json!({ "name": f.name, "type": f.kind, "category": f.category })).collect();
            json!({ "@type": "function_names", "functions": list })
        }
        Entity::Function(function) => function_description(function),
        Entity::Properties(properties) => {
            let list: Vec<Json> = properties
                .iter()
                .map(|p| {
                    json!({ "name": p.name, "scope": p.scope, "value": p.value, "editable": p.editable, "level": "Server" })
                })
                .collect();
            let named = |pick: fn(&millpond_engine::entity::PropertyEntry) -> bool| -> Vec<&str> {
                properties.iter().filter(|p| pick(p)).map(|p| p.name.as_str()).collect()
            };
            json!({
                "@type": "properties",
                "properties": list,
                "overwrittenProperties": named(|p| p.overridden),
                "defaultProperties": named(|p| !p.overridden),
            })
        }
        Entity::Types(types) => {
            let types: Map<String, Json> = types.iter().map(|(name, ty)| (name.clone(), schema_info(ty))).collect();
            json!({ "@type": "type_list", "types": types })
        }
        Entity::Variables(variables) => {
            let list: Vec<Json> =
                variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            json!({ "@type": "variables", "variables": list })
        }
        Entity::AssertSchema { subject, id, exists } => {
            json!({ "@type": "assert_schema", "subject": subject, "id": id, "exists": exists })
        }
        Entity::AssertTopic { topic, exists } => {
            json!({ "@type": "assert_topic", "topicName": topic, "exists": exists })
        }
        Entity::Warning(message) => json!({ "@type": "warning_entity", "message": message }),
    };
    body["statementText"] = json!(answer.statement);
    body["warnings"] = answer.warnings.iter().map(|w| json!({ "message": w })).collect();
    Some(body)
}

fn command_status(status: &CommandStatus) -> Json {
    let name = match status.kind {
        "stream" | "table" => format!("`{}`", status.name),
        _ => status.name.clone(),
    };
    json!({
        "@type": "currentStatus",
        "commandId": format!("{}/{name}/{}", status.kind, status.action),
        "commandStatus": {
            "status": "SUCCESS",
            "message": status.message,
            "queryId": status.query_id,
        },
        "commandSequenceNumber": status.sequence,
    })
}

fn query_summary(query: &QuerySummary) -> Json {
    let state = &query.state;
    json!({
        "queryString": ended(&query.statement),
        "sinks": query.sink.iter().collect::<Vec<_>>(),
        "sinkKafkaTopics": query.sink_topic.iter().collect::<Vec<_>>(),
        "id": query.id,
        "statusCount": { state: 1 },
        "queryType": match query.query_type {
            QueryType::Persistent => "PERSISTENT",
            QueryType::Push => "PUSH",
        },
        "state": state,
        "reason": query.reason,
    })
}

fn window_type(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Tumbling => "TUMBLING",
        WindowKind::Hopping => "HOPPING",
        WindowKind::Session => "SESSION",
    }
}

fn source_description(d: &SourceDescription) -> Json {
    let s = &d.source;
    let offsets: Vec<Json> = d
        .offsets
        .iter()
        .map(|o| {
            json!({
                "groupId": o.group,
                "kafkaTopic": o.topic,
                "topicSummaries": [{
                    "kafkaTopic": o.topic,
                    "offsets": o.partitions.iter().map(|(partition, start, end, at)| json!({
                        "partition": partition,
                        "logStartOffset": start,
                        "logEndOffset": end,
                        "consumerOffset": at,
                    })).collect::<Vec<_>>(),
                }],
            })
        })
        .collect();
    json!({
        "name": s.name,
        "windowType": s.window.map(|w| window_type(w.kind)),
        "readQueries": d.read_queries.iter().map(query_summary).collect::<Vec<_>>(),
        "writeQueries": d.write_queries.iter().map(query_summary).collect::<Vec<_>>(),
        "fields": fields(&s.schema),
        "type": s.relation.to_string(),
        "timestamp": s.timestamp.as_ref().map_or("", |t| &t.column),
        "statistics": "",
        "errorStats": "",
        "extended": d.extended,
        "keyFormat": s.key_format.name,
        "valueFormat": s.value_format.name,
        "topic": s.topic,
        "partitions": s.partitions,
        "replication": s.replicas,
        "statement": s.statement,
        "queryOffsetSummaries": offsets,
        "sourceConstraints": d.constraints,
        "clusterStatistics": [],
        "clusterErrorStats": [],
    })
}

fn query_description(q: &QueryDescription) -> Json {
    let state = &q.summary.state;
    json!({
        "id": q.summary.id,
        "statementText": ended(&q.summary.statement),
        "windowType": q.window.map(|w| window_type(w.kind)),
        "fields": fields(&q.schema),
        "sources": q.sources,
        "sinks": q.summary.sink.iter().collect::<Vec<_>>(),
        "topology": q.plan,
        "executionPlan": q.plan,
        "overriddenProperties": q.properties,
        "ksqlHostQueryStatus": { "localhost:8088": state },
        "queryType": "PERSISTENT",
        "queryErrors": q.summary.reason.iter().map(|r| json!({ "errorMessage": r, "type": "SYSTEM" })).collect::<Vec<_>>(),
        "tasksMetadata": [],
        "consumerGroupId": format!("_confluent-ksql-default_query_{}", q.summary.id),
        "state": state,
        "metrics": q.metrics.iter().map(|(name, n)| ((*name).to_string(), json!(n))).collect::<Map<_, _>>(),
    })
}

/// `FieldInfo` of each column.
pub(crate) fn fields(schema: &Schema) -> Vec<Json> {
    schema.columns.iter().map(field).collect()
}

fn field(column: &Column) -> Json {
    let mut field = json!({ "name": column.name, "schema": schema_info(&column.ty) });
    match &column.role {
        ColumnRole::Key => field["type"] = json!("KEY"),
        ColumnRole::Headers => field["type"] = json!("HEADER"),
        ColumnRole::Header(key) => {
            field["type"] = json!("HEADER");
            field["headerKey"] = json!(key);
        }
        ColumnRole::Pseudo => field["type"] = json!("SYSTEM"),
        ColumnRole::Value => {}
    }
    field
}

fn schema_info(ty: &SqlType) -> Json {
    let (name, fields, member, parameters) = match ty {
        SqlType::Decimal { precision, scale } => {
            ("DECIMAL", Json::Null, Json::Null, json!({ "precision": precision, "scale": scale }))
        }
        SqlType::Array(item) => ("ARRAY", Json::Null, schema_info(item), Json::Null),
        SqlType::Map(_, value) => ("MAP", Json::Null, schema_info(value), Json::Null),
        SqlType::Struct(fields) => {
            let fields = fields.iter().map(|f| json!({ "name": f.name, "schema": schema_info(&f.ty) })).collect();
            ("STRUCT", fields, Json::Null, Json::Null)
        }
        SqlType::Boolean => ("BOOLEAN", Json::Null, Json::Null, Json::Null),
        SqlType::Integer => ("INTEGER", Json::Null, Json::Null, Json::Null),
        SqlType::BigInt => ("BIGINT", Json::Null, Json::Null, Json::Null),
        SqlType::Double => ("DOUBLE", Json::Null, Json::Null, Json::Null),
        SqlType::String => ("STRING", Json::Null, Json::Null, Json::Null),
        SqlType::Bytes => ("BYTES", Json::Null, Json::Null, Json::Null),
        SqlType::Date => ("DATE", Json::Null, Json::Null, Json::Null),
        SqlType::Time => ("TIME", Json::Null, Json::Null, Json::Null),
        SqlType::Timestamp => ("TIMESTAMP", Json::Null, Json::Null, Json::Null),
    };
    let mut schema = json!({ "type": name, "fields": fields, "memberSchema": member });
    if !parameters.is_null() {
        schema["parameters"] = parameters;
    }
    schema
}

fn function_description(f: &FunctionDescription) -> Json {
    let overloads: Vec<Json> = f
        .overloads
        .iter()
        .map(|o| {
            let arguments: Vec<Json> = o
                .params
                .iter()
                .map(|(name, ty, variadic)| json!({ "name": name, "type": ty, "description": "", "isVariadic": variadic }))
                .collect();
            json!({ "argumentInfos": arguments, "returnType": o.result, "description": o.description })
        })
        .collect();
    json!({
        "@type": "describe_function",
        "name": f.name,
        "description": f.description,
        "author": f.author,
        "version": "",
        "path": f.path,
        "functions": overloads,
        "type": f.kind,
    })
}

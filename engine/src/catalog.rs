//! Sources, persistent queries and type aliases: one immutable snapshot in memory, one JSON document each in storage.
//!
//! Keys (kind byte registry, format version 1; a retired kind's byte is never used again):
//!
//! ```text
//! 01 's' name            source
//! 01 'q' id              persistent query
//! 01 't' name            CREATE TYPE alias
//! 01 'n'                 number of the next query, 8 bytes big-endian
//! 01 'm' ...             WebAssembly modules (see `modules`)
//! 01 'r' ...             schema registry (see crate `registry`)
//! ```
//!
//! Invariant: the snapshot is replaced only after the commit that wrote the same change.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_sql::analyse::resolve_type_with;
use millpond_sql::plan::{FormatSpec, KeyWindow, Relation, SourceInfo, TimestampColumn, WindowKind};
use millpond_types::ports::TopicLog;
use millpond_types::{Column, ColumnRole, Error, Offset, Result, Schema, SqlType, TopicId, TopicPartition};
use serde_json::{Map, Value as Json, json};

const VERSION: u8 = 1;

/// A persistent query as it was created.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryEntry {
    pub id: String,
    /// Order of creation.
    pub number: u64,
    /// The whole statement: CREATE ... AS or INSERT INTO, or CREATE SOURCE TABLE where it only materialises.
    pub statement: String,
    /// Where it writes; the table itself for a query that materialises a SOURCE TABLE.
    pub sink: String,
    /// Whether the sink was created by this query (and goes with it).
    pub creates_sink: bool,
    pub sources: Vec<String>,
    /// Session overrides at creation; analysis at restart sees the same.
    pub properties: BTreeMap<String, String>,
    /// Functions from WebAssembly with the digest of the module each is pinned to.
    pub modules: Vec<(String, String)>,
    pub paused: bool,
    /// End of what was there when the query was created: below it, records are ordered by time.
    pub backlog: Vec<(TopicPartition, Offset)>,
    /// What the statement meant when it was planned.
    pub planned: Planned,
    /// The principal that created it, where principals are held against rights.
    pub owner: Option<String>,
}

/// Sources and type aliases as they were when a query was planned. They may be altered, replaced or dropped later; the
/// query goes on as it was, also after a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    pub sources: BTreeMap<String, Arc<SourceInfo>>,
    pub types: BTreeMap<String, SqlType>,
}

impl Planned {
    /// Of the named sources, and of the aliases that the statement may mention.
    pub fn of(catalog: &Catalog, sources: &[String], statement: &str) -> Self {
        let text = statement.to_uppercase();
        let named = |name: &String| Some((name.clone(), catalog.sources.get(name)?.clone()));
        let mentioned = catalog.types.iter().filter(|(name, _)| text.contains(&name.to_uppercase()));
        Self {
            sources: sources.iter().filter_map(named).collect(),
            types: mentioned.map(|(name, ty)| (name.clone(), ty.clone())).collect(),
        }
    }
}

/// Everything that statements create, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub sources: BTreeMap<String, Arc<SourceInfo>>,
    pub queries: BTreeMap<String, Arc<QueryEntry>>,
    pub types: BTreeMap<String, SqlType>,
    pub next_query: u64,
}

impl Catalog {
    /// Queries that write a source, by id.
    pub fn writers<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a Arc<QueryEntry>> {
        self.queries.values().filter(move |q| q.sink == source)
    }

    /// Queries that read a source, by id.
    pub fn readers<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a Arc<QueryEntry>> {
        self.queries.values().filter(move |q| q.sources.iter().any(|s| s == source))
    }

    /// Queries in the order of their creation.
    pub fn queries_in_order(&self) -> Vec<Arc<QueryEntry>> {
        let mut queries: Vec<_> = self.queries.values().cloned().collect();
        queries.sort_by_key(|q| q.number);
        queries
    }

    pub fn load(storage: &dyn TopicLog) -> Result<Self> {
        let mut catalog = Self::default();
        for (key, bytes) in storage.catalog(&[VERSION])? {
            let damaged = |what: &str| Error::corrupt(format!("catalog entry {key:?}: {what}"));
            let name = || String::from_utf8(key[2..].to_vec()).map_err(|_| damaged("the name is not UTF-8"));
            let json = || serde_json::from_slice::<Json>(&bytes).map_err(|e| damaged(&e.to_string()));
            match key.get(1) {
                Some(b's') => {
                    let source = source_from_json(&json()?).ok_or_else(|| damaged("not a source"))?;
                    catalog.sources.insert(name()?, Arc::new(source));
                }
                Some(b'q') => {
                    let query = query_from_json(&json()?).ok_or_else(|| damaged("not a query"))?;
                    catalog.queries.insert(name()?, Arc::new(query));
                }
                Some(b't') => {
                    let ty = json()?.as_str().and_then(parse_type).ok_or_else(|| damaged("not a type"))?;
                    catalog.types.insert(name()?, ty);
                }
                Some(b'n') => {
                    let number: [u8; 8] = bytes[..].try_into().map_err(|_| damaged("not a number"))?;
                    catalog.next_query = u64::from_be_bytes(number);
                }
                // Written by somebody else (modules), or by a later version that this one would not open.
                _ => {}
            }
        }
        Ok(catalog)
    }
}

/// A put or delete of one entry, ready for a step's `catalog`.
pub type CatalogWrite = (Vec<u8>, Option<Vec<u8>>);

fn key(kind: u8, name: &str) -> Vec<u8> {
    let mut key = vec![VERSION, kind];
    key.extend_from_slice(name.as_bytes());
    key
}

pub fn put_source(source: &SourceInfo) -> CatalogWrite {
    (key(b's', &source.name), Some(source_to_json(source).to_string().into_bytes()))
}

pub fn delete_source(name: &str) -> CatalogWrite {
    (key(b's', name), None)
}

pub fn put_query(query: &QueryEntry) -> CatalogWrite {
    (key(b'q', &query.id), Some(query_to_json(query).to_string().into_bytes()))
}

pub fn delete_query(id: &str) -> CatalogWrite {
    (key(b'q', id), None)
}

pub fn put_type(name: &str, ty: &SqlType) -> CatalogWrite {
    (key(b't', name), Some(json!(ty.to_string()).to_string().into_bytes()))
}

pub fn delete_type(name: &str) -> CatalogWrite {
    (key(b't', name), None)
}

pub fn put_next_query(number: u64) -> CatalogWrite {
    (key(b'n', ""), Some(number.to_be_bytes().to_vec()))
}

/// Prefix of the keys under which the schema registry is kept.
pub fn registry_prefix() -> Vec<u8> {
    key(b'r', "")
}

/// Prefix of the keys under which WebAssembly modules are kept.
pub fn module_prefix() -> Vec<u8> {
    key(b'm', "")
}

fn parse_type(text: &str) -> Option<SqlType> {
    let syntax = millpond_sql::parse_type(text).ok()?;
    resolve_type_with(&syntax, &|_| None).ok()
}

fn format_to_json(format: &FormatSpec) -> Json {
    json!({
        "name": format.name,
        "delimiter": format.delimiter.map(String::from),
        "wrap": format.wrap_single,
        "properties": format.properties,
    })
}

fn format_from_json(json: &Json) -> Option<FormatSpec> {
    Some(FormatSpec {
        name: json["name"].as_str()?.to_string(),
        delimiter: json["delimiter"].as_str().and_then(|d| d.chars().next()),
        wrap_single: json["wrap"].as_bool(),
        properties: strings(&json["properties"])?,
    })
}

fn strings(json: &Json) -> Option<BTreeMap<String, String>> {
    json.as_object()?.iter().map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect()
}

fn window_name(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Tumbling => "TUMBLING",
        WindowKind::Hopping => "HOPPING",
        WindowKind::Session => "SESSION",
    }
}

fn source_to_json(source: &SourceInfo) -> Json {
    let columns: Vec<Json> = source
        .schema
        .columns
        .iter()
        .map(|c| {
            let (role, header) = match &c.role {
                ColumnRole::Key => ("key", None),
                ColumnRole::Value => ("value", None),
                ColumnRole::Headers => ("headers", None),
                ColumnRole::Header(key) => ("header", Some(key)),
                ColumnRole::Pseudo => ("pseudo", None),
            };
            json!({ "name": c.name, "type": c.ty.to_string(), "role": role, "header": header })
        })
        .collect();
    json!({
        "name": source.name,
        "relation": source.relation.to_string(),
        "columns": columns,
        "topic": source.topic,
        "partitions": source.partitions,
        "replicas": source.replicas,
        "key_format": format_to_json(&source.key_format),
        "value_format": format_to_json(&source.value_format),
        "window": source.window.map(|w| json!({ "kind": window_name(w.kind), "size_ms": w.size_ms })),
        "timestamp": source.timestamp.as_ref().map(|t| json!({ "column": t.column, "format": t.format })),
        "read_only": source.read_only,
        "materialised": source.materialised,
        "statement": source.statement,
        "owner": source.owner,
    })
}

fn source_from_json(json: &Json) -> Option<SourceInfo> {
    let column = |c: &Json| {
        let role = match c["role"].as_str()? {
            "key" => ColumnRole::Key,
            "value" => ColumnRole::Value,
            "headers" => ColumnRole::Headers,
            "header" => ColumnRole::Header(c["header"].as_str()?.to_string()),
            "pseudo" => ColumnRole::Pseudo,
            _ => return None,
        };
        Some(Column::new(c["name"].as_str()?, parse_type(c["type"].as_str()?)?, role))
    };
    let window = match &json["window"] {
        Json::Null => None,
        w => Some(KeyWindow {
            kind: match w["kind"].as_str()? {
                "TUMBLING" => WindowKind::Tumbling,
                "HOPPING" => WindowKind::Hopping,
                "SESSION" => WindowKind::Session,
                _ => return None,
            },
            size_ms: w["size_ms"].as_i64(),
        }),
    };
    let timestamp = match &json["timestamp"] {
        Json::Null => None,
        t => Some(TimestampColumn {
            column: t["column"].as_str()?.to_string(),
            format: t["format"].as_str().map(str::to_string),
        }),
    };
    Some(SourceInfo {
        name: json["name"].as_str()?.to_string(),
        relation: match json["relation"].as_str()? {
            "STREAM" => Relation::Stream,
            "TABLE" => Relation::Table,
            _ => return None,
        },
        schema: Schema::new(json["columns"].as_array()?.iter().map(column).collect::<Option<_>>()?),
        topic: json["topic"].as_str()?.to_string(),
        partitions: i32::try_from(json["partitions"].as_i64()?).ok()?,
        replicas: i16::try_from(json["replicas"].as_i64()?).ok()?,
        key_format: format_from_json(&json["key_format"])?,
        value_format: format_from_json(&json["value_format"])?,
        window,
        timestamp,
        read_only: json["read_only"].as_bool()?,
        materialised: json["materialised"].as_bool()?,
        statement: json["statement"].as_str()?.to_string(),
        owner: json["owner"].as_str().map(str::to_string),
    })
}

fn query_to_json(query: &QueryEntry) -> Json {
    let backlog: Vec<Json> = query
        .backlog
        .iter()
        .map(|(p, end)| json!({ "topic": format!("{:?}", p.topic), "partition": p.partition, "end": end }))
        .collect();
    let modules: Map<String, Json> = query.modules.iter().map(|(f, digest)| (f.clone(), json!(digest))).collect();
    json!({
        "id": query.id,
        "number": query.number,
        "statement": query.statement,
        "sink": query.sink,
        "creates_sink": query.creates_sink,
        "sources": query.sources,
        "properties": query.properties,
        "modules": modules,
        "paused": query.paused,
        "owner": query.owner,
        "backlog": backlog,
        "planned": {
            "sources": query.planned.sources.values().map(|s| source_to_json(s)).collect::<Vec<_>>(),
            "types": query.planned.types.iter().map(|(n, ty)| (n.clone(), json!(ty.to_string()))).collect::<Map<_, _>>(),
        },
    })
}

fn planned_from_json(json: &Json) -> Option<Planned> {
    if json.is_null() {
        return Some(Planned::default());
    }
    let source = |s: &Json| source_from_json(s).map(|s| (s.name.clone(), Arc::new(s)));
    let types = strings(&json["types"])?;
    Some(Planned {
        sources: json["sources"].as_array()?.iter().map(source).collect::<Option<_>>()?,
        types: types.into_iter().map(|(name, ty)| Some((name, parse_type(&ty)?))).collect::<Option<_>>()?,
    })
}

fn query_from_json(json: &Json) -> Option<QueryEntry> {
    let partition = |b: &Json| {
        let hex = b["topic"].as_str()?;
        let mut id = [0; 16];
        if hex.len() != 32 || !hex.is_ascii() {
            return None;
        }
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
        }
        let partition = i32::try_from(b["partition"].as_i64()?).ok()?;
        Some((TopicPartition { topic: TopicId(id), partition }, b["end"].as_i64()?))
    };
    Some(QueryEntry {
        id: json["id"].as_str()?.to_string(),
        number: json["number"].as_u64()?,
        statement: json["statement"].as_str()?.to_string(),
        sink: json["sink"].as_str()?.to_string(),
        creates_sink: json["creates_sink"].as_bool()?,
        sources: json["sources"].as_array()?.iter().map(|s| s.as_str().map(str::to_string)).collect::<Option<_>>()?,
        properties: strings(&json["properties"])?,
        modules: strings(&json["modules"])?.into_iter().collect(),
        paused: json["paused"].as_bool()?,
        backlog: json["backlog"].as_array()?.iter().map(partition).collect::<Option<_>>()?,
        planned: planned_from_json(&json["planned"])?,
        owner: json["owner"].as_str().map(str::to_string),
    })
}

#[cfg(test)]
mod tests {
    use millpond_types::Field;
    use millpond_types::memory::MemoryStorage;
    use millpond_types::ports::Step;

    use super::*;

    fn format(name: &str) -> FormatSpec {
        FormatSpec { name: name.into(), delimiter: Some('|'), wrap_single: Some(false), properties: BTreeMap::new() }
    }

    #[test]
    fn a_catalog_is_the_same_after_a_restart() {
        let source = SourceInfo {
            name: "a\"b".into(),
            relation: Relation::Table,
            schema: Schema::new(vec![
                Column::key("K", SqlType::decimal(4, 2)),
                Column::value("s", SqlType::Struct(vec![Field::new("x y", SqlType::array(SqlType::Date))])),
                Column::new("H", SqlType::Bytes, ColumnRole::Header("h'".into())),
            ]),
            topic: "t".into(),
            partitions: 3,
            replicas: 1,
            key_format: format("KAFKA"),
            value_format: format("JSON"),
            window: Some(KeyWindow { kind: WindowKind::Tumbling, size_ms: Some(5) }),
            timestamp: Some(TimestampColumn { column: "s".into(), format: None }),
            read_only: true,
            materialised: false,
            statement: "CREATE ...".into(),
            owner: Some("User:a".into()),
        };
        let query = QueryEntry {
            id: "CTAS_A_7".into(),
            number: 7,
            statement: "CREATE ...".into(),
            sink: "A".into(),
            creates_sink: true,
            sources: vec!["B".into()],
            properties: BTreeMap::from([("auto.offset.reset".into(), "earliest".into())]),
            modules: vec![("F".into(), "00ff".into())],
            paused: true,
            backlog: vec![(TopicPartition { topic: TopicId([0xab; 16]), partition: 2 }, 99)],
            planned: Planned {
                sources: BTreeMap::from([("a\"b".into(), Arc::new(source.clone()))]),
                types: BTreeMap::from([("T".into(), SqlType::array(SqlType::BigInt))]),
            },
            owner: Some("User:b".into()),
        };
        let storage = MemoryStorage::new();
        let catalog = vec![
            put_source(&source),
            put_query(&query),
            put_type("T", &SqlType::map(SqlType::String, SqlType::BigInt)),
            put_next_query(8),
        ];
        storage.commit(Step { catalog, ..Step::default() }).wait();

        let loaded = Catalog::load(&storage).unwrap();
        assert_eq!(*loaded.sources["a\"b"], source);
        assert_eq!(*loaded.queries["CTAS_A_7"], query);
        assert_eq!(loaded.types["T"], SqlType::map(SqlType::String, SqlType::BigInt));
        assert_eq!(loaded.next_query, 8);
    }
}

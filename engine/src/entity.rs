//! What statements answer, as values. How they look on the wire is the server's business, on a screen the REPL's.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_sql::plan::{KeyWindow, Relation, SourceInfo};
use millpond_types::{Offset, PartitionId, Schema, SqlType};

/// The answer to one statement of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub statement: String,
    pub warnings: Vec<String>,
    pub entity: Entity,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Entity {
    /// A statement that changed the catalog.
    Status(CommandStatus),
    /// A statement that only did something and has nothing to tell (SET, DEFINE, INSERT VALUES).
    Done,
    Sources {
        relation: Relation,
        sources: Vec<Arc<SourceInfo>>,
    },
    Topics {
        topics: Vec<TopicSummary>,
        extended: bool,
    },
    Queries {
        queries: Vec<QuerySummary>,
        extended: bool,
    },
    Source(Box<SourceDescription>),
    SourceList(Vec<SourceDescription>),
    Query(Box<QueryDescription>),
    /// EXPLAIN of a statement.
    Plan(String),
    Functions(Vec<FunctionSummary>),
    Function(FunctionDescription),
    Properties(Vec<PropertyEntry>),
    Types(BTreeMap<String, SqlType>),
    Variables(BTreeMap<String, String>),
    AssertSchema {
        subject: Option<String>,
        id: Option<i32>,
        exists: bool,
    },
    AssertTopic {
        topic: String,
        exists: bool,
    },
    Warning(String),
}

/// `stream/FOO/create` and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandStatus {
    /// `stream`, `table`, `terminate`, `pause`, `resume`, `type`.
    pub kind: &'static str,
    pub name: String,
    /// `create`, `drop`, `execute`, `alter`.
    pub action: &'static str,
    pub message: String,
    pub query_id: Option<String>,
    /// Place among all changes of the catalog.
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    pub name: String,
    pub partitions: i32,
    pub replicas: i16,
    pub consumer_groups: usize,
    pub consumers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryType {
    Persistent,
    Push,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySummary {
    pub id: String,
    pub statement: String,
    pub query_type: QueryType,
    /// RUNNING, PAUSED, STALLED, ERROR.
    pub state: String,
    /// Why, where the state needs a reason.
    pub reason: Option<String>,
    pub sink: Option<String>,
    pub sink_topic: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SourceDescription {
    pub source: Arc<SourceInfo>,
    pub extended: bool,
    pub read_queries: Vec<QuerySummary>,
    pub write_queries: Vec<QuerySummary>,
    /// Sources built on this one.
    pub constraints: Vec<String>,
    /// Extended: offsets of each query that writes it.
    pub offsets: Vec<QueryOffsets>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryOffsets {
    pub group: String,
    pub topic: String,
    /// partition, start, end, consumed.
    pub partitions: Vec<(PartitionId, Offset, Offset, Offset)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueryDescription {
    pub summary: QuerySummary,
    pub schema: Schema,
    pub window: Option<KeyWindow>,
    pub sources: Vec<String>,
    pub plan: String,
    pub properties: BTreeMap<String, String>,
    /// Counters of the running query, by name.
    pub metrics: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSummary {
    pub name: String,
    /// `SCALAR`, `AGGREGATE`, `TABLE`.
    pub kind: &'static str,
    pub category: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDescription {
    pub name: String,
    pub kind: &'static str,
    pub description: String,
    pub author: String,
    /// Digest of the WebAssembly module, or `internal`.
    pub path: String,
    pub overloads: Vec<OverloadDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverloadDescription {
    /// name, type, variadic
    pub params: Vec<(String, String, bool)>,
    pub result: String,
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyEntry {
    pub name: String,
    pub value: String,
    /// `KSQL` or `EMBEDDED CONNECT WORKER`-style scope.
    pub scope: &'static str,
    pub overridden: bool,
    pub editable: bool,
}

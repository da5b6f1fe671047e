//! Typed plans: what a statement means, ready for the engine. No text is looked at again below this point.
//!
//! A query is a tree of nodes; each node's rows have the node's schema: columns in order, among them the pseudo columns
//! that somebody above uses. Which rows are inserts and which are changes of a table follows from `Node::relation`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millpond_types::{Schema, SqlType, Value};

mod describe;

pub use describe::{describe, describe_expr, describe_pull};

use crate::diagnostic::Diagnostic;
use crate::expr::{FunctionCall, TypedExpr};
use crate::functions::FunctionCatalog;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    Stream,
    Table,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "STREAM",
            Self::Table => "TABLE",
        })
    }
}

/// How the bytes of one side of a record are read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatSpec {
    /// Upper case: JSON, DELIMITED, KAFKA, NONE, AVRO ...
    pub name: String,
    /// DELIMITED only, else `None`.
    pub delimiter: Option<char>,
    /// WRAP_SINGLE_VALUE where given or configured; `None` is the format's default. Keys: `None`.
    pub wrap_single: Option<bool>,
    /// Further properties by their WITH name (schema ids, full names ...).
    pub properties: BTreeMap<String, String>,
}

impl FormatSpec {
    /// Whether keys in both formats can be compared where they are. Which schemas they are written with makes no difference:
    /// what their bytes say of those is no part of the key.
    pub fn keys_like(&self, other: &Self) -> bool {
        let of_key = |spec: &Self| {
            let named = spec.properties.iter().filter(|(name, _)| !name.contains("SCHEMA_"));
            named.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        (&self.name, self.delimiter, self.wrap_single) == (&other.name, other.delimiter, other.wrap_single)
            && of_key(self) == of_key(other)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Tumbling,
    Hopping,
    Session,
}

/// The window of a windowed source's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWindow {
    pub kind: WindowKind,
    /// Milliseconds; `None` for sessions.
    pub size_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampColumn {
    pub column: String,
    /// Java pattern, for STRING columns.
    pub format: Option<String>,
}

/// A stream or table over a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    pub name: String,
    pub relation: Relation,
    /// Key, value and header columns as declared; no pseudo columns.
    pub schema: Schema,
    pub topic: String,
    pub partitions: i32,
    pub replicas: i16,
    pub key_format: FormatSpec,
    pub value_format: FormatSpec,
    pub window: Option<KeyWindow>,
    pub timestamp: Option<TimestampColumn>,
    /// SOURCE STREAM / SOURCE TABLE: read only.
    pub read_only: bool,
    /// A table that can be pull-queried: made by a query, or a SOURCE TABLE.
    pub materialised: bool,
    /// The statement that made it.
    pub statement: String,
    /// The principal that made it, where principals are held against rights.
    pub owner: Option<String>,
}

/// The window of an aggregation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    pub kind: WindowKind,
    /// Size of a tumbling or hopping window, gap of a session. Milliseconds, as all below.
    pub size_ms: i64,
    /// Hopping: distance of the starts. Tumbling: equal to the size.
    pub advance_ms: i64,
    /// As written; `None` where not (see reference 7.4 for the default under CHANGES and FINAL).
    pub grace_ms: Option<i64>,
    pub retention_ms: Option<i64>,
    pub emit_final: bool,
}

impl WindowSpec {
    /// Default grace: 24 hours less the size under EMIT CHANGES, none under EMIT FINAL.
    pub fn grace_ms(&self) -> i64 {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        self.grace_ms.unwrap_or(if self.emit_final { 0 } else { (DAY_MS - self.size_ms).max(0) })
    }
}

/// One aggregate of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// Name, overload and the column arguments.
    pub call: FunctionCall,
    /// The literal arguments behind them.
    pub init: Vec<Value>,
    pub ty: SqlType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: NodeKind,
    /// What the node's rows look like. Key columns come first, then value columns, then header and pseudo columns.
    pub schema: Schema,
    pub relation: Relation,
    /// Set where the rows' keys are windowed.
    pub window: Option<KeyWindow>,
}

impl Node {
    /// The nodes it reads, from left to right.
    pub fn inputs(&self) -> Vec<&Node> {
        match &self.kind {
            NodeKind::Source(_) => vec![],
            NodeKind::Filter { input, .. }
            | NodeKind::Project { input, .. }
            | NodeKind::FlatMap { input, .. }
            | NodeKind::Rekey { input, .. }
            | NodeKind::Aggregate { input, .. } => vec![input],
            NodeKind::StreamStreamJoin { left, right, .. }
            | NodeKind::StreamTableJoin { left, right, .. }
            | NodeKind::TableTableJoin { left, right, .. }
            | NodeKind::ForeignKeyJoin { left, right, .. } => vec![left, right],
        }
    }

    /// The expressions it computes over its input (a foreign-key join: over its left input).
    pub fn exprs(&self) -> Vec<&TypedExpr> {
        match &self.kind {
            NodeKind::Source(_)
            | NodeKind::StreamStreamJoin { .. }
            | NodeKind::StreamTableJoin { .. }
            | NodeKind::TableTableJoin { .. } => vec![],
            NodeKind::Filter { predicate, .. } => vec![predicate],
            NodeKind::Project { exprs, .. } => exprs.iter().collect(),
            NodeKind::FlatMap { calls, .. } => calls.iter().collect(),
            NodeKind::Rekey { keys, .. } => keys.iter().collect(),
            NodeKind::Aggregate { group_by, calls, .. } => {
                group_by.iter().chain(calls.iter().flat_map(|c| &c.call.args)).collect()
            }
            NodeKind::ForeignKeyJoin { left_key, .. } => vec![left_key],
        }
    }
}

/// Calls `f` on the node and every node below it, parents first.
pub fn walk<'a>(node: &'a Node, f: &mut dyn FnMut(&'a Node)) {
    f(node);
    for input in node.inputs() {
        walk(input, f);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// Reads a source's topic. The schema has the key, value and header columns the plan uses and, as pseudo columns,
    /// those of ROWTIME, ROWPARTITION, ROWOFFSET, WINDOWSTART, WINDOWEND that it uses, all under their plain names.
    Source(Arc<SourceInfo>),
    /// Keeps rows for which the predicate is true. On a table, a row that stops matching becomes a delete.
    Filter {
        input: Box<Node>,
        predicate: TypedExpr,
    },
    /// One expression per output column. Keys stay what they are on the input (the same bytes, renamed at most):
    /// a node that changes the key is `Rekey`.
    Project {
        input: Box<Node>,
        exprs: Vec<TypedExpr>,
    },
    /// Table functions: the input's columns, then one column per call; calls are zipped and padded with NULL.
    FlatMap {
        input: Box<Node>,
        calls: Vec<TypedExpr>,
    },
    /// PARTITION BY and the re-keying of a join side: new key columns (none for PARTITION BY NULL), then the columns of
    /// `keep` in order. The rows go to the partition of the new key, serialised in `key_format`. A row whose value is
    /// NULL goes on with a NULL value.
    Rekey {
        input: Box<Node>,
        keys: Vec<TypedExpr>,
        keep: Vec<usize>,
        key_format: FormatSpec,
    },
    /// GROUP BY. Output: the group columns (key), then one column per call (value), and where windowed WINDOWSTART and
    /// WINDOWEND as pseudo columns, and ROWTIME if used. `key_format` serialises the group for the exchange;
    /// `exchange` is false where the input is partitioned by exactly this already.
    Aggregate {
        input: Box<Node>,
        group_by: Vec<TypedExpr>,
        calls: Vec<AggregateCall>,
        window: Option<WindowSpec>,
        key_format: FormatSpec,
        exchange: bool,
    },
    /// Both sides are keyed by the join key (through `Rekey` where needed). Output: key columns, then the left's other
    /// columns, then the right's; names are prefixed already.
    StreamStreamJoin {
        left: Box<Node>,
        right: Box<Node>,
        kind: JoinKind,
        /// A right row matches from so long before the left row's time ...
        before_ms: i64,
        /// ... to so long after it.
        after_ms: i64,
        grace_ms: Option<i64>,
        output: JoinOutput,
    },
    StreamTableJoin {
        left: Box<Node>,
        right: Box<Node>,
        kind: JoinKind,
        output: JoinOutput,
    },
    TableTableJoin {
        left: Box<Node>,
        right: Box<Node>,
        kind: JoinKind,
        output: JoinOutput,
    },
    /// `left_key` of a left row is the primary key of a right row; the output is keyed as the left is.
    ForeignKeyJoin {
        left: Box<Node>,
        right: Box<Node>,
        kind: JoinKind,
        left_key: TypedExpr,
        output: JoinOutput,
    },
}

/// Where each output column of a join comes from, in schema order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOutput {
    pub columns: Vec<JoinColumn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinColumn {
    /// The join key: the left's where it is there, else the right's. Index among the key columns.
    Key(usize),
    Left(usize),
    Right(usize),
    /// Time of the joined row.
    RowTime,
}

/// What a query writes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// What is created; for INSERT INTO, the existing target.
    pub source: SourceInfo,
    /// Configuration of the topic to create, by Kafka's names.
    pub topic_configs: BTreeMap<String, String>,
    /// Column of the result that gives the written records their time; not part of the sink's definition.
    pub timestamp: Option<TimestampColumn>,
}

/// A query that feeds a sink (persistent) or a client (push).
#[derive(Clone, Debug, PartialEq)]
pub struct QueryPlan {
    /// Its schema is the result's: key columns, value columns; push queries: all columns in select order as values.
    pub root: Node,
    /// Names of the sources read, in order of appearance.
    pub sources: Vec<String>,
    /// Push queries only.
    pub limit: Option<u64>,
    /// WebAssembly modules used: function name and module digest.
    pub modules: Vec<(String, String)>,
}

/// A bare SELECT without EMIT: reads the state of materialised tables (or a stream up to its end) once.
#[derive(Clone, Debug, PartialEq)]
pub struct PullPlan {
    /// Tables in FROM order; each one's columns (all of its schema, then WINDOWSTART and WINDOWEND where windowed, then
    /// ROWTIME) follow those of the one before, and expressions index the concatenation.
    pub tables: Vec<Arc<SourceInfo>>,
    /// One fewer than tables: how each further one is joined.
    pub joins: Vec<PullJoin>,
    pub filter: Option<TypedExpr>,
    /// `Some` (possibly empty) where the query groups.
    pub group_by: Option<Vec<TypedExpr>>,
    /// Aggregates; `select`, `having` and `order_by` of a grouped query index the group columns, then these.
    pub aggregates: Vec<AggregateCall>,
    pub having: Option<TypedExpr>,
    pub select: Vec<(String, TypedExpr)>,
    /// Result schema: key columns of a plain table keep their role.
    pub schema: Schema,
    pub order_by: Vec<OrderBy>,
    pub limit: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PullJoin {
    pub kind: JoinKind,
    pub left: TypedExpr,
    pub right: TypedExpr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderBy {
    pub expr: TypedExpr,
    pub descending: bool,
}

/// A statement that was checked against the catalog. Statements that only look (SHOW, DESCRIBE ...) and session
/// commands stay syntax; the engine answers them directly.
#[derive(Clone, Debug, PartialEq)]
pub enum Analysed {
    /// CREATE STREAM / TABLE over a topic. `create_topic`: with these PARTITIONS and REPLICAS if it is missing, and
    /// with these settings by Kafka's names.
    CreateSource {
        source: SourceInfo,
        create_topic: Option<(i32, i16)>,
        topic_configs: BTreeMap<String, String>,
        or_replace: bool,
        if_not_exists: bool,
    },
    /// CREATE ... AS SELECT.
    CreateAs {
        query: QueryPlan,
        sink: Sink,
        or_replace: bool,
        if_not_exists: bool,
    },
    /// INSERT INTO ... SELECT.
    InsertInto {
        query: QueryPlan,
        target: SourceInfo,
        query_id: Option<String>,
    },
    /// INSERT INTO ... VALUES: one value per column of the target's schema that is written; ROWTIME where given.
    InsertValues {
        target: Arc<SourceInfo>,
        columns: Vec<String>,
        values: Vec<TypedExpr>,
        row_time: Option<TypedExpr>,
    },
    Push(QueryPlan),
    Pull(PullPlan),
    /// A pull query on a stream: a push query that ends where the source's topic ends now.
    PullStream(QueryPlan),
}

/// Which half of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Key,
    Value,
}

/// What the analyser must know of the world. Pure: a snapshot that does not change while a statement is analysed.
pub trait Environment {
    fn source(&self, name: &str) -> Option<Arc<SourceInfo>>;

    /// All sources, for suggestions and `SHOW`.
    fn source_names(&self) -> Vec<String>;

    /// CREATE TYPE aliases.
    fn custom_type(&self, name: &str) -> Option<SqlType>;

    fn functions(&self) -> &dyn FunctionCatalog;

    /// Partitions and replicas of an existing topic.
    fn topic(&self, name: &str) -> Option<(i32, i16)>;

    /// A property of the session or server, such as `ksql.persistence.default.format.value`.
    fn property(&self, name: &str) -> Option<String>;

    /// Whether the format exists and can hold these columns on this side under these settings; the error is ksqlDB's
    /// message. Unknown names and formats not built in are errors too.
    fn check_format(&self, spec: &FormatSpec, side: Side, columns: &[(String, SqlType)]) -> Result<(), FormatError>;

    /// The columns of a topic's side after its schema in the registry: that of the `SCHEMA_ID` property of `spec`, else the
    /// latest of the topic's subject. `unwrap`: the schema is the type of one column. `Ok(None)`: there is no such schema.
    fn inferred_columns(
        &self,
        topic: &str,
        side: Side,
        spec: &FormatSpec,
        unwrap: bool,
    ) -> Result<Option<InferredColumns>, String> {
        let _ = (topic, side, spec, unwrap);
        Ok(None)
    }

    /// Whether a pattern of Java's `DateTimeFormatter` can be read and written; the error says why not.
    fn check_time_pattern(&self, pattern: &str) -> Result<(), String> {
        let _ = pattern;
        Ok(())
    }

    /// Whether the statement is refused for a constant with which a call gives NULL whatever else it is given; `why` says
    /// which and why.
    fn refuses_constant(&self, why: &str) -> bool {
        let _ = why;
        true
    }

    /// Tells of what is taken, if to no purpose.
    fn warn(&self, warning: &str) {
        let _ = warning;
    }

    /// Whether this format, with several or one columns, can be a key.
    fn key_format_supports(&self, name: &str, columns: &[(String, SqlType)]) -> bool;
}

/// Columns that come from a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferredColumns {
    pub columns: Vec<(String, SqlType)>,
    /// Properties of the side's format that say which schema it was.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// ksqlDB would refuse it too.
    Invalid(String),
    /// ksqlDB has it, this version does not.
    Unsupported(String),
}

pub type AnalysisResult<T> = Result<T, Diagnostic>;

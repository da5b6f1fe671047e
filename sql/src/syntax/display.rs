//! Writes trees back as SQL: on one line, with quotes and parentheses only where they are needed.
//!
//! Invariant: what is written parses to an equal tree.

use std::fmt::{Display, Formatter, Result};

use millpond_types::sql_type::is_plain_identifier;

use super::*;
use crate::token::{is_constructor, is_keyword, is_reserved};

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if is_plain_identifier(self.0) && !is_reserved(self.0) && !is_constructor(self.0) {
            f.write_str(self.0)
        } else {
            write_in_quotes(f, self.0)
        }
    }
}

fn write_in_quotes(f: &mut Formatter<'_>, name: &str) -> Result {
    write!(f, "`{}`", name.replace('`', "``"))
}

/// A name in a place where a keyword could stand instead of it.
struct Cautious<'a>(&'a Ident);

impl Display for Cautious<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if is_keyword(&self.0.value) { write_in_quotes(f, &self.0.value) } else { self.0.fmt(f) }
    }
}

/// A string literal.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

/// Items with `, ` between them.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (i, item) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

fn when(condition: bool, text: &'static str) -> &'static str {
    if condition { text } else { "" }
}

/// How tightly an expression holds together; a part that is looser than its place is written in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Lambda,
    Or,
    And,
    Not,
    Predicate,
    Concat,
    Sum,
    Product,
    Zone,
    Sign,
    Primary,
}

fn level(expr: &Expr) -> Level {
    match &expr.kind {
        ExprKind::Unary { op: UnaryOp::Not, .. } => Level::Not,
        ExprKind::Unary { op: UnaryOp::Minus | UnaryOp::Plus, .. } => Level::Sign,
        ExprKind::Binary { op, .. } => match op {
            BinaryOp::Or => Level::Or,
            BinaryOp::And => Level::And,
            BinaryOp::Concat => Level::Concat,
            BinaryOp::Add | BinaryOp::Subtract => Level::Sum,
            BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo => Level::Product,
            _ => Level::Predicate,
        },
        ExprKind::IsNull { .. } | ExprKind::Between { .. } | ExprKind::In { .. } | ExprKind::Like { .. } => {
            Level::Predicate
        }
        ExprKind::AtTimeZone { .. } => Level::Zone,
        ExprKind::Lambda { .. } => Level::Lambda,
        _ => Level::Primary,
    }
}

/// An expression in a place that takes expressions of at least this level.
struct At<'a>(&'a Expr, Level);

impl Display for At<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if level(self.0) < self.1 { write!(f, "({})", self.0) } else { self.0.fmt(f) }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let not = |negated: &bool| when(*negated, "NOT ");
        match &self.kind {
            ExprKind::Literal(literal) => literal.fmt(f),
            ExprKind::Column(column) => column.fmt(f),
            ExprKind::Unary { op: UnaryOp::Not, operand } => write!(f, "NOT {}", At(operand, Level::Not)),
            ExprKind::Unary { op, operand } => {
                f.write_str(if *op == UnaryOp::Plus { "+" } else { "-" })?;
                // A sign in front of a number would become part of it, and two signs could begin a comment.
                let bare = level(operand) == Level::Primary && operand.literal().is_none();
                if bare { operand.fmt(f) } else { write!(f, "({operand})") }
            }
            ExprKind::Binary { op, left, right } => {
                let level = level(self);
                // AND and OR are balanced again when read; the others hold to the left, comparisons to neither side.
                let (left_level, right_level) = match level {
                    Level::Or | Level::And => (level, level),
                    Level::Predicate => (Level::Concat, Level::Concat),
                    Level::Concat => (level, Level::Sum),
                    Level::Sum => (level, Level::Product),
                    _ => (level, Level::Zone),
                };
                write!(f, "{} {op} {}", At(left, left_level), At(right, right_level))
            }
            ExprKind::IsNull { operand, negated } => {
                write!(f, "{} IS {}NULL", At(operand, Level::Concat), not(negated))
            }
            ExprKind::Between { operand, low, high, negated } => {
                let [operand, low, high] = [operand, low, high].map(|e| At(e, Level::Concat));
                write!(f, "{operand} {}BETWEEN {low} AND {high}", not(negated))
            }
            ExprKind::In { operand, list, negated } => {
                write!(f, "{} {}IN ({})", At(operand, Level::Concat), not(negated), List(list))
            }
            ExprKind::Like { operand, pattern, escape, negated } => {
                let [operand, pattern] = [operand, pattern].map(|e| At(e, Level::Concat));
                write!(f, "{operand} {}LIKE {pattern}", not(negated))?;
                match escape {
                    Some(c) => write!(f, " ESCAPE {}", Text(c.encode_utf8(&mut [0; 4]))),
                    None => Ok(()),
                }
            }
            ExprKind::AtTimeZone { operand, zone } => {
                write!(f, "{} AT TIME ZONE {}", At(operand, Level::Zone), At(zone, Level::Primary))
            }
            ExprKind::Case { operand, branches, otherwise } => {
                f.write_str("CASE")?;
                if let Some(operand) = operand {
                    write!(f, " {operand}")?;
                }
                for CaseBranch { when, then } in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            ExprKind::Cast { operand, ty } => write!(f, "CAST({operand} AS {ty})"),
            ExprKind::Array(items) => write!(f, "ARRAY[{}]", List(items)),
            ExprKind::Map(entries) => write!(f, "MAP({})", List(entries)),
            ExprKind::Struct(fields) => write!(f, "STRUCT({})", List(fields)),
            ExprKind::Subscript { base, index } => write!(f, "{}[{index}]", At(base, Level::Primary)),
            ExprKind::Field { base, field } => write!(f, "{}->{field}", At(base, Level::Primary)),
            ExprKind::Call(Call { name, star: true, .. }) => write!(f, "{name}(*)"),
            ExprKind::Call(Call { name, arguments, .. }) => write!(f, "{name}({})", List(arguments)),
            ExprKind::Lambda { parameters, body } => match parameters.as_slice() {
                [parameter] => write!(f, "{parameter} => {body}"),
                _ => write!(f, "({}) => {body}", List(parameters)),
            },
        }
    }
}

impl Display for ColumnRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.qualifier {
            Some(qualifier) => write!(f, "{qualifier}.{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl Display for MapEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} := {}", self.key, self.value)
    }
}

impl Display for StructField {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} := {}", self.name, self.value)
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(true) => f.write_str("TRUE"),
            Self::Boolean(false) => f.write_str("FALSE"),
            Self::Integer(number) => number.fmt(f),
            Self::BigInt(number) => number.fmt(f),
            Self::Decimal(number) => f.write_str(&number.text),
            Self::Double(number) => f.write_str(&number.text),
            Self::String(text) => Text(text).fmt(f),
        }
    }
}

impl Display for TypeName {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            TypeNameKind::Named { name, parameters } if parameters.is_empty() => name.fmt(f),
            TypeNameKind::Named { name, parameters } => write!(f, "{name}({})", List(parameters)),
            TypeNameKind::Array(item) => write!(f, "ARRAY<{item}>"),
            TypeNameKind::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            TypeNameKind::Struct(fields) => write!(f, "STRUCT<{}>", List(fields)),
        }
    }
}

impl Display for FieldDef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", self.name, self.ty)
    }
}

impl Display for TypeParameter {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::String => f.write_str("STRING"),
        }
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "SELECT {} FROM {}", List(&self.select), self.from)?;
        if let Some(window) = &self.window {
            write!(f, " WINDOW {window}")?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        write_group(f, "GROUP BY", &self.group_by)?;
        write_group(f, "PARTITION BY", &self.partition_by)?;
        if let Some(having) = &self.having {
            write!(f, " HAVING {having}")?;
        }
        if !self.order_by.is_empty() {
            write!(f, " ORDER BY {}", List(&self.order_by))?;
        }
        if let Some(emit) = &self.emit {
            write!(f, " EMIT {}", emit.node)?;
        }
        match &self.limit {
            Some(limit) => write!(f, " LIMIT {}", limit.node),
            None => Ok(()),
        }
    }
}

fn write_group(f: &mut Formatter<'_>, clause: &str, exprs: &[Expr]) -> Result {
    if exprs.is_empty() {
        return Ok(());
    }
    let values: Vec<_> = exprs.iter().map(|e| At(e, Level::Concat)).collect();
    write!(f, " {clause} {}", List(&values))
}

impl Display for SelectItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::All { .. } => f.write_str("*"),
            Self::AllOf { source, .. } => write!(f, "{source}.*"),
            Self::AllFields { base, .. } => write!(f, "{}->*", At(base, Level::Primary)),
            Self::Expr { expr, alias: Some(alias) } => write!(f, "{expr} AS {alias}"),
            Self::Expr { expr, alias: None } => expr.fmt(f),
        }
    }
}

impl Display for From {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.first.fmt(f)?;
        self.joins.iter().try_for_each(|join| write!(f, " {join}"))
    }
}

impl Display for SourceRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.alias {
            Some(alias) => write!(f, "{} AS {alias}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl Display for Join {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", self.kind.node, self.source)?;
        if let Some(within) = &self.within {
            write!(f, " {}", within.node)?;
        }
        write!(f, " ON {}", self.on)
    }
}

impl Display for JoinKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Inner => "INNER JOIN",
            Self::Left => "LEFT JOIN",
            Self::Right => "RIGHT JOIN",
            Self::Full => "FULL OUTER JOIN",
        })
    }
}

impl Display for Within {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.before == self.after {
            write!(f, "WITHIN {}", self.before)?;
        } else {
            write!(f, "WITHIN ({}, {})", self.before, self.after)?;
        }
        match &self.grace {
            Some(grace) => write!(f, " GRACE PERIOD {grace}"),
            None => Ok(()),
        }
    }
}

impl Display for Interval {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", self.amount.node, self.unit.node)
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        match &self.kind.node {
            WindowKind::Tumbling { size } => write!(f, "TUMBLING (SIZE {size}")?,
            WindowKind::Hopping { size, advance } => write!(f, "HOPPING (SIZE {size}, ADVANCE BY {advance}")?,
            WindowKind::Session { gap } => write!(f, "SESSION ({gap}")?,
        }
        if let Some(retention) = &self.retention {
            write!(f, ", RETENTION {retention}")?;
        }
        if let Some(grace) = &self.grace {
            write!(f, ", GRACE PERIOD {grace}")?;
        }
        f.write_str(")")
    }
}

impl Display for Emit {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Changes => "CHANGES",
            Self::Final => "FINAL",
        })
    }
}

impl Display for OrderItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}{}", self.expr, when(self.descending, " DESC"))
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let exists = |flag: &bool| when(*flag, "IF EXISTS ");
        let not_exists = |flag: &bool| when(*flag, "IF NOT EXISTS ");
        let extended = |flag: &bool| when(*flag, " EXTENDED");
        match self {
            Self::Query(query) => query.fmt(f),
            Self::CreateSource(create) => create.fmt(f),
            Self::CreateAs(create) => create.fmt(f),
            Self::InsertInto(insert) => insert.fmt(f),
            Self::InsertValues(insert) => insert.fmt(f),
            Self::DropSource(DropSource { kind, if_exists, name, delete_topic }) => {
                write!(f, "DROP {kind} {}{name}{}", exists(if_exists), when(*delete_topic, " DELETE TOPIC"))
            }
            Self::AlterSource(AlterSource { kind, name, add }) => write!(f, "ALTER {kind} {name} {}", List(add)),
            Self::AlterSystem(pair) => write!(f, "ALTER SYSTEM {pair}"),
            Self::CreateType { name, if_not_exists, ty } => {
                write!(f, "CREATE TYPE {}{name} AS {ty}", not_exists(if_not_exists))
            }
            Self::DropType { name, if_exists } => write!(f, "DROP TYPE {}{name}", exists(if_exists)),
            Self::Terminate(target) => write!(f, "TERMINATE {target}"),
            Self::Pause(target) => write!(f, "PAUSE {target}"),
            Self::Resume(target) => write!(f, "RESUME {target}"),
            Self::Explain(Explain::Query(id)) => write!(f, "EXPLAIN {}", Cautious(id)),
            Self::Explain(Explain::Statement(statement)) => write!(f, "EXPLAIN {}", statement.node),
            Self::ListTopics { all, extended: flag } => {
                write!(f, "LIST {}TOPICS{}", when(*all, "ALL "), extended(flag))
            }
            Self::ListSources { kind, extended: flag } => write!(f, "LIST {kind}S{}", extended(flag)),
            Self::ListQueries { extended: flag } => write!(f, "LIST QUERIES{}", extended(flag)),
            Self::ListFunctions => f.write_str("LIST FUNCTIONS"),
            Self::ListProperties => f.write_str("LIST PROPERTIES"),
            Self::ListTypes => f.write_str("LIST TYPES"),
            Self::ListVariables => f.write_str("LIST VARIABLES"),
            Self::ListConnectors { kind: None } => f.write_str("LIST CONNECTORS"),
            Self::ListConnectors { kind: Some(kind) } => write!(f, "LIST {kind} CONNECTORS"),
            Self::ListConnectorPlugins => f.write_str("LIST CONNECTOR PLUGINS"),
            Self::DescribeSource { name, extended: flag } => {
                write!(f, "DESCRIBE {}{}", Cautious(name), extended(flag))
            }
            Self::DescribeSources { kind, extended: flag } => write!(f, "DESCRIBE {kind}S{}", extended(flag)),
            Self::DescribeFunction { name } => write!(f, "DESCRIBE FUNCTION {name}"),
            Self::DescribeConnector { name } => write!(f, "DESCRIBE CONNECTOR {name}"),
            Self::Print(print) => print.fmt(f),
            Self::Set(pair) => write!(f, "SET {pair}"),
            Self::Unset { key } => write!(f, "UNSET {}", Text(&key.node)),
            Self::Define(Define { name, value }) => write!(f, "DEFINE {name} = {}", Text(&value.node)),
            Self::Undefine { name } => write!(f, "UNDEFINE {name}"),
            Self::CreateConnector(CreateConnector { kind, if_not_exists, name, properties }) => {
                write!(f, "CREATE {kind} CONNECTOR {}{name}{properties}", not_exists(if_not_exists))
            }
            Self::DropConnector { name, if_exists } => write!(f, "DROP CONNECTOR {}{name}", exists(if_exists)),
            Self::AssertTopic(assert) => assert.fmt(f),
            Self::AssertSchema(assert) => assert.fmt(f),
        }
    }
}

impl Display for SourceKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Stream => "STREAM",
            Self::Table => "TABLE",
        })
    }
}

impl Display for CreateSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { kind, or_replace, read_only, if_not_exists, name, columns, properties } = self;
        let (replace, source) = (when(*or_replace, "OR REPLACE "), when(*read_only, "SOURCE "));
        write!(f, "CREATE {replace}{source}{kind} {}{name}", when(*if_not_exists, "IF NOT EXISTS "))?;
        if !columns.is_empty() {
            write!(f, " ({})", List(columns))?;
        }
        properties.fmt(f)
    }
}

impl Display for ColumnDef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", self.name, self.ty)?;
        match &self.role.node {
            ColumnRole::Value => Ok(()),
            ColumnRole::Key => f.write_str(" KEY"),
            ColumnRole::PrimaryKey => f.write_str(" PRIMARY KEY"),
            ColumnRole::Headers => f.write_str(" HEADERS"),
            ColumnRole::Header(key) => write!(f, " HEADER({})", Text(key)),
        }
    }
}

impl Display for CreateAs {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { kind, or_replace, if_not_exists, name, properties, query } = self;
        let (replace, not_exists) = (when(*or_replace, "OR REPLACE "), when(*if_not_exists, "IF NOT EXISTS "));
        write!(f, "CREATE {replace}{kind} {not_exists}{name}{properties} AS {query}")
    }
}

impl Display for InsertInto {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "INSERT INTO {}{} {}", self.target, self.properties, self.query)
    }
}

impl Display for InsertValues {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "INSERT INTO {}", self.target)?;
        if !self.columns.is_empty() {
            write!(f, " ({})", List(&self.columns))?;
        }
        write!(f, " VALUES ({})", List(&self.values))
    }
}

impl Display for AddColumn {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "ADD COLUMN {} {}", self.name, self.ty)
    }
}

impl Display for QueryTarget {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::Query(id) => id.fmt(f),
        }
    }
}

impl Display for Print {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "PRINT {}{}", Text(&self.topic.node), when(self.from_beginning, " FROM BEGINNING"))?;
        if let Some(interval) = self.interval {
            write!(f, " INTERVAL {interval}")?;
        }
        match self.limit {
            Some(limit) => write!(f, " LIMIT {limit}"),
            None => Ok(()),
        }
    }
}

impl Display for KeyValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} = {}", Text(&self.key.node), Text(&self.value.node))
    }
}

impl Display for ConnectorKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Source => "SOURCE",
            Self::Sink => "SINK",
        })
    }
}

impl Display for AssertTopic {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let exists = when(!self.exists, "NOT EXISTS ");
        write!(f, "ASSERT {exists}TOPIC {}{}", Text(&self.topic.node), self.properties)?;
        write_timeout(f, self.timeout.as_ref())
    }
}

impl Display for AssertSchema {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "ASSERT {}SCHEMA", when(!self.exists, "NOT EXISTS "))?;
        if let Some(subject) = &self.subject {
            write!(f, " SUBJECT {}", Text(&subject.node))?;
        }
        if let Some(id) = &self.id {
            write!(f, " ID {}", id.node)?;
        }
        write_timeout(f, self.timeout.as_ref())
    }
}

fn write_timeout(f: &mut Formatter<'_>, timeout: Option<&Interval>) -> Result {
    match timeout {
        Some(timeout) => write!(f, " TIMEOUT {timeout}"),
        None => Ok(()),
    }
}

/// With a space in front, nothing at all if there are none.
impl Display for Properties {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.items.is_empty() { Ok(()) } else { write!(f, " WITH ({})", List(&self.items)) }
    }
}

impl Display for Property {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}={}", self.name, self.value.node)
    }
}

impl Display for ClientCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::RunScript { path } => write!(f, "RUN SCRIPT {}", Text(&path.node)),
        }
    }
}

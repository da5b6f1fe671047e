//! Statements, one variant per kind.

use super::{Expr, Ident, Interval, Literal, Query, Span, Spanned, TypeName};

/// One statement with its text (without the semicolon) and the text's place in what was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub statement: Statement,
    /// After substitution of variables.
    pub text: String,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// A bare SELECT: pull without EMIT, push with it.
    Query(Box<Query>),
    CreateSource(CreateSource),
    CreateAs(CreateAs),
    InsertInto(InsertInto),
    InsertValues(InsertValues),
    DropSource(DropSource),
    AlterSource(AlterSource),
    /// `ALTER SYSTEM 'key' = 'value'`
    AlterSystem(KeyValue),
    CreateType {
        name: Ident,
        if_not_exists: bool,
        ty: TypeName,
    },
    DropType {
        name: Ident,
        if_exists: bool,
    },
    Terminate(QueryTarget),
    Pause(QueryTarget),
    Resume(QueryTarget),
    Explain(Explain),
    ListTopics {
        all: bool,
        extended: bool,
    },
    /// `LIST STREAMS`, `LIST TABLES`
    ListSources {
        kind: SourceKind,
        extended: bool,
    },
    ListQueries {
        extended: bool,
    },
    ListFunctions,
    ListProperties,
    ListTypes,
    ListVariables,
    ListConnectors {
        kind: Option<ConnectorKind>,
    },
    ListConnectorPlugins,
    DescribeSource {
        name: Ident,
        extended: bool,
    },
    /// `DESCRIBE STREAMS`, `DESCRIBE TABLES`
    DescribeSources {
        kind: SourceKind,
        extended: bool,
    },
    DescribeFunction {
        name: Ident,
    },
    DescribeConnector {
        name: Ident,
    },
    Print(Print),
    Set(KeyValue),
    Unset {
        key: Spanned<String>,
    },
    Define(Define),
    Undefine {
        name: Ident,
    },
    CreateConnector(CreateConnector),
    DropConnector {
        name: Ident,
        if_exists: bool,
    },
    AssertTopic(AssertTopic),
    AssertSchema(AssertSchema),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    Stream,
    Table,
}

/// `CREATE [OR REPLACE] [SOURCE] STREAM|TABLE [IF NOT EXISTS] name [(elements)] WITH (…)`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreateSource {
    pub kind: SourceKind,
    pub or_replace: bool,
    /// `CREATE SOURCE …`: cannot be written to.
    pub read_only: bool,
    pub if_not_exists: bool,
    pub name: Ident,
    /// Empty: to be inferred.
    pub columns: Vec<ColumnDef>,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnDef {
    pub name: Ident,
    pub ty: TypeName,
    pub role: Spanned<ColumnRole>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnRole {
    Value,
    /// `KEY`
    Key,
    /// `PRIMARY KEY`
    PrimaryKey,
    /// `HEADERS`
    Headers,
    /// `HEADER('k')`
    Header(String),
}

/// `CREATE [OR REPLACE] STREAM|TABLE [IF NOT EXISTS] name [WITH (…)] AS query`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreateAs {
    pub kind: SourceKind,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: Ident,
    pub properties: Properties,
    pub query: Box<Query>,
}

/// `INSERT INTO name [WITH (…)] query`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InsertInto {
    pub target: Ident,
    pub properties: Properties,
    pub query: Box<Query>,
}

/// `INSERT INTO name [(columns)] VALUES (values)`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InsertValues {
    pub target: Ident,
    /// Empty: all columns, in order.
    pub columns: Vec<Ident>,
    pub values: Vec<Expr>,
    /// The list of values with its parentheses.
    pub list: Spanned<()>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DropSource {
    pub kind: SourceKind,
    pub if_exists: bool,
    pub name: Ident,
    pub delete_topic: bool,
}

/// `ALTER STREAM|TABLE name ADD [COLUMN] column type, …`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlterSource {
    pub kind: SourceKind,
    pub name: Ident,
    pub add: Vec<AddColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddColumn {
    pub name: Ident,
    pub ty: TypeName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QueryTarget {
    All,
    /// Query ids are compared as written in upper case; a quoted one as it is.
    Query(Ident),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Explain {
    Query(Ident),
    /// With the place of the inner statement's text.
    Statement(Box<Spanned<Statement>>),
}

/// `PRINT topic [FROM BEGINNING] [INTERVAL n] [LIMIT n]`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Print {
    /// In the case in which it was written.
    pub topic: Spanned<String>,
    pub from_beginning: bool,
    pub interval: Option<u64>,
    pub limit: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyValue {
    pub key: Spanned<String>,
    pub value: Spanned<String>,
}

/// `DEFINE name = 'value'`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Define {
    pub name: Ident,
    pub value: Spanned<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectorKind {
    Source,
    Sink,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreateConnector {
    pub kind: ConnectorKind,
    pub if_not_exists: bool,
    pub name: Ident,
    pub properties: Properties,
}

/// `ASSERT [NOT EXISTS] TOPIC name [WITH (…)] [TIMEOUT n unit]`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssertTopic {
    pub exists: bool,
    /// In the case in which it was written.
    pub topic: Spanned<String>,
    pub properties: Properties,
    pub timeout: Option<Interval>,
}

/// `ASSERT [NOT EXISTS] SCHEMA [SUBJECT name] [ID n] [TIMEOUT n unit]`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssertSchema {
    pub exists: bool,
    /// In the case in which it was written.
    pub subject: Option<Spanned<String>>,
    pub id: Option<Spanned<i32>>,
    pub timeout: Option<Interval>,
}

/// `WITH (name = literal, …)`
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Properties {
    pub items: Vec<Property>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Property {
    /// In upper case unless it was quoted.
    pub name: Ident,
    pub value: Spanned<Literal>,
}

impl Properties {
    /// The value of a property; the name is compared without regard to case.
    pub fn get(&self, name: &str) -> Option<&Spanned<Literal>> {
        self.items.iter().find(|p| p.name.value.eq_ignore_ascii_case(name)).map(|p| &p.value)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Statements for the client alone; a server's parser refuses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCommand {
    /// `RUN SCRIPT 'file'`
    RunScript { path: Spanned<String> },
}

//! Statements, by their first words.

use super::cursor::Cursor;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::syntax::*;
use crate::token::TokenKind;

/// What does here what a statement of other dialects does there.
fn of_another_dialect(word: &str) -> Option<&'static str> {
    match word.to_ascii_uppercase().as_str() {
        "UPDATE" | "MERGE" | "UPSERT" | "REPLACE" => {
            Some("rows are not changed in place: INSERT INTO a table's topic a row of the same key, which replaces it")
        }
        "DELETE" | "TRUNCATE" => Some(
            "rows are not deleted by statements: a record with the row's key and without a value, sent to the table's \
             topic, deletes it",
        ),
        _ => None,
    }
}

impl Cursor<'_> {
    pub(super) fn statement(&mut self) -> Result<Statement> {
        if self.is_word("SELECT") {
            return Ok(Statement::Query(Box::new(self.query()?)));
        }
        if self.eat("CREATE").is_some() {
            return self.create();
        }
        if self.eat("INSERT").is_some() {
            return self.insert();
        }
        if self.eat("DROP").is_some() {
            return self.drop();
        }
        if self.eat("ALTER").is_some() {
            return self.alter();
        }
        if self.eat("TERMINATE").is_some() {
            return self.query_target().map(Statement::Terminate);
        }
        if self.eat("PAUSE").is_some() {
            return self.query_target().map(Statement::Pause);
        }
        if self.eat("RESUME").is_some() {
            return self.query_target().map(Statement::Resume);
        }
        if self.eat("EXPLAIN").is_some() {
            return self.explain();
        }
        if self.eat("LIST").is_some() || self.eat("SHOW").is_some() {
            return self.list_statement();
        }
        if self.eat("DESCRIBE").is_some() {
            return self.describe();
        }
        if self.eat("PRINT").is_some() {
            return self.print();
        }
        if self.eat("SET").is_some() {
            return self.key_value().map(Statement::Set);
        }
        if self.eat("UNSET").is_some() {
            return Ok(Statement::Unset { key: self.text()? });
        }
        if self.eat("DEFINE").is_some() {
            let name = self.name("the name of a variable")?;
            self.expect_symbol("=")?;
            return Ok(Statement::Define(Define { name, value: self.text()? }));
        }
        if self.eat("UNDEFINE").is_some() {
            return Ok(Statement::Undefine { name: self.name("the name of a variable")? });
        }
        if self.eat("ASSERT").is_some() {
            return self.assert();
        }
        if self.is_word_at(0, "RUN") && self.is_word_at(1, "SCRIPT") {
            let diagnostic = Diagnostic::at(Code::Syntax, self.span(), "RUN SCRIPT is a command of the client");
            return Err(diagnostic.with_hint("send the statements of the script"));
        }
        let diagnostic = self.unexpected_instead_of(Some("a statement"));
        Err(match self.kind(0) {
            Some(TokenKind::Word(word)) => match of_another_dialect(word) {
                Some(hint) => Diagnostic { hint: Some(hint.to_owned()), ..diagnostic },
                None => diagnostic,
            },
            _ => diagnostic,
        })
    }

    fn if_not_exists(&mut self) -> bool {
        self.eat_all(&["IF", "NOT", "EXISTS"]).is_some()
    }

    fn if_exists(&mut self) -> bool {
        self.eat_all(&["IF", "EXISTS"]).is_some()
    }

    fn create(&mut self) -> Result<Statement> {
        if self.eat("TYPE").is_some() {
            let if_not_exists = self.if_not_exists();
            let name = self.name("the name of a type")?;
            self.expect("AS")?;
            return Ok(Statement::CreateType { name, if_not_exists, ty: self.type_name()? });
        }
        if self.eat("SINK").is_some() {
            self.expect("CONNECTOR")?;
            return self.create_connector(ConnectorKind::Sink);
        }
        if self.eat_all(&["SOURCE", "CONNECTOR"]).is_some() {
            return self.create_connector(ConnectorKind::Source);
        }
        let or_replace = self.eat("OR").is_some();
        if or_replace {
            self.expect("REPLACE")?;
        }
        let read_only = self.eat("SOURCE");
        let kind = self.source_kind()?;
        let if_not_exists = self.if_not_exists();
        let name = self.name("the name of a source")?;
        let columns = if self.is_symbol("(") { self.columns()? } else { vec![] };
        let properties = self.properties()?;
        if !self.is_word("AS") {
            let read_only = read_only.is_some();
            let create = CreateSource { kind, or_replace, read_only, if_not_exists, name, columns, properties };
            return Ok(Statement::CreateSource(create));
        }
        if !columns.is_empty() {
            let hint = "columns are declared or come from a query, not both";
            return Err(self.unexpected().with_hint(hint));
        }
        if let Some(span) = read_only {
            let diagnostic = Diagnostic::at(Code::Syntax, span, "unexpected \"SOURCE\"");
            return Err(diagnostic.with_hint("what a query writes to cannot be a read-only source"));
        }
        self.expect("AS")?;
        let query = Box::new(self.query()?);
        Ok(Statement::CreateAs(CreateAs { kind, or_replace, if_not_exists, name, properties, query }))
    }

    fn source_kind(&mut self) -> Result<SourceKind> {
        if self.eat("STREAM").is_some() {
            return Ok(SourceKind::Stream);
        }
        self.expect("TABLE").map(|_| SourceKind::Table)
    }

    fn columns(&mut self) -> Result<Vec<ColumnDef>> {
        self.expect_symbol("(")?;
        let mut columns = vec![self.column()?];
        while self.eat_symbol(",").is_some() {
            columns.push(self.column()?);
        }
        self.expect_symbol(")")?;
        Ok(columns)
    }

    fn column(&mut self) -> Result<ColumnDef> {
        let name = self.name("the name of a column")?;
        let ty = self.type_name()?;
        let start = self.span();
        let role = if self.eat("KEY").is_some() {
            Spanned::new(ColumnRole::Key, start)
        } else if self.eat("PRIMARY").is_some() {
            Spanned::new(ColumnRole::PrimaryKey, start.to(self.expect("KEY")?))
        } else if self.eat("HEADERS").is_some() {
            Spanned::new(ColumnRole::Headers, start)
        } else if self.eat("HEADER").is_some() {
            self.expect_symbol("(")?;
            let key = self.text()?;
            Spanned::new(ColumnRole::Header(key.node), start.to(self.expect_symbol(")")?))
        } else {
            Spanned::new(ColumnRole::Value, ty.span)
        };
        Ok(ColumnDef { name, ty, role })
    }

    /// `[WITH (…)]`
    fn properties(&mut self) -> Result<Properties> {
        let mut items: Vec<Property> = Vec::new();
        if self.eat("WITH").is_none() {
            return Ok(Properties { items });
        }
        self.expect_symbol("(")?;
        loop {
            let name = match self.eat_text() {
                Some(text) => Ident { value: text.node, quoted: true, span: text.span },
                None => self.name("the name of a property")?,
            };
            self.expect_symbol("=")?;
            items.push(Property { name, value: self.literal()? });
            if self.eat_symbol(",").is_none() {
                break;
            }
        }
        self.expect_symbol(")")?;
        Ok(Properties { items })
    }

    fn create_connector(&mut self, kind: ConnectorKind) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name("the name of a connector")?;
        if !self.is_word("WITH") {
            return Err(self.unexpected());
        }
        let properties = self.properties()?;
        Ok(Statement::CreateConnector(CreateConnector { kind, if_not_exists, name, properties }))
    }

    fn insert(&mut self) -> Result<Statement> {
        self.expect("INTO")?;
        let target = self.name("the name of a stream or table")?;
        let columns = if self.is_symbol("(") { self.names("the name of a column")? } else { vec![] };
        if self.eat("VALUES").is_some() {
            let (values, span) = self.values()?;
            let list = Spanned::new((), span);
            return Ok(Statement::InsertValues(InsertValues { target, columns, values, list }));
        }
        if !columns.is_empty() {
            return Err(self.unexpected());
        }
        let properties = self.properties()?;
        let query = Box::new(self.query()?);
        Ok(Statement::InsertInto(InsertInto { target, properties, query }))
    }

    fn drop(&mut self) -> Result<Statement> {
        if self.eat("TYPE").is_some() {
            let if_exists = self.if_exists();
            return Ok(Statement::DropType { name: self.name("the name of a type")?, if_exists });
        }
        if self.eat("CONNECTOR").is_some() {
            let if_exists = self.if_exists();
            return Ok(Statement::DropConnector { name: self.name("the name of a connector")?, if_exists });
        }
        let kind = self.source_kind()?;
        let if_exists = self.if_exists();
        let name = self.name("the name of a source")?;
        let delete_topic = self.eat("DELETE").is_some();
        if delete_topic {
            self.expect("TOPIC")?;
        }
        Ok(Statement::DropSource(DropSource { kind, if_exists, name, delete_topic }))
    }

    fn alter(&mut self) -> Result<Statement> {
        if self.eat("SYSTEM").is_some() {
            return self.key_value().map(Statement::AlterSystem);
        }
        let kind = self.source_kind()?;
        let name = self.name("the name of a source")?;
        let mut add = Vec::new();
        loop {
            self.expect("ADD")?;
            // COLUMN may be left out, and may itself be the name of a column.
            if matches!(self.kind(2), Some(TokenKind::Word(_) | TokenKind::Quoted(_))) {
                self.eat("COLUMN");
            }
            let name = self.name("the name of a column")?;
            add.push(AddColumn { name, ty: self.type_name()? });
            if self.eat_symbol(",").is_none() {
                break;
            }
        }
        Ok(Statement::AlterSource(AlterSource { kind, name, add }))
    }

    fn query_target(&mut self) -> Result<QueryTarget> {
        if self.eat("ALL").is_some() {
            return Ok(QueryTarget::All);
        }
        self.name("the id of a query").map(QueryTarget::Query)
    }

    fn explain(&mut self) -> Result<Statement> {
        let is_name = matches!(self.kind(0), Some(TokenKind::Word(_) | TokenKind::Quoted(_))) && self.kind(1).is_none();
        if is_name && let Some(id) = self.eat_name() {
            return Ok(Statement::Explain(Explain::Query(id)));
        }
        if self.is_word_at(0, "EXPLAIN") {
            return Err(self.expected("a statement to explain"));
        }
        let start = self.span();
        let statement = self.statement()?;
        let span = start.to(self.last_span());
        Ok(Statement::Explain(Explain::Statement(Box::new(Spanned::new(statement, span)))))
    }

    fn list_statement(&mut self) -> Result<Statement> {
        let all = self.eat("ALL").is_some();
        if self.eat("TOPICS").is_some() {
            return Ok(Statement::ListTopics { all, extended: self.eat("EXTENDED").is_some() });
        }
        if all {
            return Err(self.unexpected());
        }
        if self.eat("STREAMS").is_some() {
            let extended = self.eat("EXTENDED").is_some();
            return Ok(Statement::ListSources { kind: SourceKind::Stream, extended });
        }
        if self.eat("TABLES").is_some() {
            let extended = self.eat("EXTENDED").is_some();
            return Ok(Statement::ListSources { kind: SourceKind::Table, extended });
        }
        if self.eat("QUERIES").is_some() {
            return Ok(Statement::ListQueries { extended: self.eat("EXTENDED").is_some() });
        }
        if self.eat("FUNCTIONS").is_some() {
            return Ok(Statement::ListFunctions);
        }
        if self.eat("PROPERTIES").is_some() {
            return Ok(Statement::ListProperties);
        }
        if self.eat("TYPES").is_some() {
            return Ok(Statement::ListTypes);
        }
        if self.eat("VARIABLES").is_some() {
            return Ok(Statement::ListVariables);
        }
        if self.eat("CONNECTOR").is_some() {
            self.expect("PLUGINS")?;
            return Ok(Statement::ListConnectorPlugins);
        }
        let kind = if self.eat("SOURCE").is_some() {
            Some(ConnectorKind::Source)
        } else {
            self.eat("SINK").map(|_| ConnectorKind::Sink)
        };
        self.expect("CONNECTORS")?;
        Ok(Statement::ListConnectors { kind })
    }

    fn describe(&mut self) -> Result<Statement> {
        // All of these words may also name a source, if nothing or EXTENDED stands behind them.
        let described = matches!(self.kind(1), Some(TokenKind::Word(_) | TokenKind::Quoted(_)));
        let described = described && !(self.is_word_at(1, "EXTENDED") && self.kind(2).is_none());
        if described && self.eat("FUNCTION").is_some() {
            return Ok(Statement::DescribeFunction { name: self.name("the name of a function")? });
        }
        if described && self.eat("CONNECTOR").is_some() {
            return Ok(Statement::DescribeConnector { name: self.name("the name of a connector")? });
        }
        for (word, kind) in [("STREAMS", SourceKind::Stream), ("TABLES", SourceKind::Table)] {
            if self.eat(word).is_some() {
                return Ok(Statement::DescribeSources { kind, extended: self.eat("EXTENDED").is_some() });
            }
        }
        let name = self.name("the name of a source")?;
        Ok(Statement::DescribeSource { name, extended: self.eat("EXTENDED").is_some() })
    }

    fn print(&mut self) -> Result<Statement> {
        let topic = self.outside_name("the name of a topic")?;
        let from_beginning = self.eat("FROM").is_some();
        if from_beginning {
            self.expect("BEGINNING")?;
        }
        let interval = match self.eat("INTERVAL").or_else(|| self.eat("SAMPLE")) {
            Some(_) => Some(self.count()?.node),
            None => None,
        };
        let limit = match self.eat("LIMIT") {
            Some(_) => Some(self.count()?.node),
            None => None,
        };
        Ok(Statement::Print(Print { topic, from_beginning, interval, limit }))
    }

    /// `'key' = 'value'`
    fn key_value(&mut self) -> Result<KeyValue> {
        let key = self.text()?;
        self.expect_symbol("=")?;
        Ok(KeyValue { key, value: self.text()? })
    }

    fn assert(&mut self) -> Result<Statement> {
        let start = self.last_span();
        let exists = self.eat("NOT").is_none();
        if !exists {
            self.expect("EXISTS")?;
        }
        if self.eat("TOPIC").is_some() {
            let topic = self.outside_name("the name of a topic")?;
            let properties = self.properties()?;
            let timeout = self.timeout()?;
            return Ok(Statement::AssertTopic(AssertTopic { exists, topic, properties, timeout }));
        }
        if self.eat("SCHEMA").is_some() {
            return self.assert_schema(exists);
        }
        if exists && ["VALUES", "NULL", "STREAM", "TABLE"].iter().any(|word| self.is_word_at(0, word)) {
            let span = start.to(self.span());
            let message = "this kind of ASSERT belongs to tests of statements, a server does not execute it";
            return Err(
                Diagnostic::at(Code::Syntax, span, message).with_hint("ASSERT TOPIC and ASSERT SCHEMA can be executed")
            );
        }
        Err(self.unexpected())
    }

    fn assert_schema(&mut self, exists: bool) -> Result<Statement> {
        let subject = match self.eat("SUBJECT") {
            Some(_) => Some(self.outside_name("the name of a subject")?),
            None => None,
        };
        let id = match self.eat("ID") {
            Some(_) => Some(self.schema_id()?),
            None => None,
        };
        if subject.is_none() && id.is_none() {
            return Err(self.unexpected());
        }
        let timeout = self.timeout()?;
        Ok(Statement::AssertSchema(AssertSchema { exists, subject, id, timeout }))
    }

    fn schema_id(&mut self) -> Result<Spanned<i32>> {
        let number = self.count()?;
        match i32::try_from(number.node) {
            Ok(id) => Ok(Spanned::new(id, number.span)),
            Err(_) => {
                let message = format!("the schema id {} is larger than {}", number.node, i32::MAX);
                Err(Diagnostic::at(Code::Literal, number.span, message))
            }
        }
    }

    fn timeout(&mut self) -> Result<Option<Interval>> {
        match self.eat("TIMEOUT") {
            Some(_) => self.interval().map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn client_command(&mut self) -> Result<ClientCommand> {
        self.expect("RUN")?;
        self.expect("SCRIPT")?;
        Ok(ClientCommand::RunScript { path: self.text()? })
    }
}

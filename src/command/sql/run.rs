//! Runs what was typed or read from a script, piece by piece, in order.
//!
//! A script ends at its first failure; the one who reads lines goes on (`repl`). Statements are sent one at a time, so that
//! what the server says about places is about this statement. SET and DEFINE never leave this program on their own.

use std::io;
use std::path::Path;

use millpond_engine::session::{check_property, check_value};
use millpond_sql::parse::parse_with_variables;
use millpond_sql::syntax::{Span, Statement};
use serde_json::json;

use super::args::{OutputForm, Script};
use super::client::{Answer, Client, Failure, Refusal};
use super::complete::{NAMES_STATEMENTS, Names};
use super::input::{Command, Piece, pieces};
use super::output::Output;
use super::problem::Source;
use super::session::Session;
use super::{entity, help, stream};

/// Scripts that run scripts.
const SCRIPT_DEPTH_MAX: usize = 16;
/// Largest script.
const SCRIPT_BYTES_MAX: u64 = 64 << 20;

/// Why the pieces behind this one are not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// EXIT.
    Exit,
    /// A statement failed; it was said why.
    Failed,
    /// No server; it was said.
    Lost,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads standard output any more.
    Closed,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

pub struct Runner {
    pub client: Client,
    pub session: Session,
    pub output: Output,
    /// What HISTORY shows.
    pub history: Vec<String>,
    /// A statement may have changed the names that completion knows.
    pub names_changed: bool,
    /// The server gave its names at some time.
    names_known: bool,
    depth: usize,
}

impl Runner {
    pub fn new(client: Client, session: Session) -> Self {
        Self {
            client,
            session,
            output: Output::new(),
            history: Vec::new(),
            names_changed: true,
            names_known: false,
            depth: 0,
        }
    }

    pub fn is_tabular(&self) -> bool {
        self.session.form == OutputForm::Tabular
    }

    /// Runs a script that was given with the command.
    pub async fn script(&mut self, script: &Script) -> Result<(), Stop> {
        match script {
            Script::Statements(text) => self.text(Source::typed(text)).await,
            Script::File(path) => match read_script(path) {
                Ok(text) => self.text(Source { name: Some(&path.display().to_string()), text: &text }).await,
                Err(e) => {
                    self.output.problem(&format!("error: {e}"));
                    // It never came to a statement.
                    Err(Stop::Lost)
                }
            },
        }
    }

    /// Runs all pieces of a text up to the first that fails.
    pub async fn text(&mut self, source: Source<'_>) -> Result<(), Stop> {
        for (span, piece) in pieces(source.text) {
            match piece {
                Piece::Statement => self.statement(source, span).await?,
                Piece::Command(Ok(command)) => self.command(command).await?,
                Piece::Command(Err(why)) => {
                    self.output.problem(&format!("error: {why}"));
                    return Err(Stop::Failed);
                }
            }
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Exit => return Err(Stop::Exit),
            Command::Help(topic) => self.output.show(&help::help(topic.as_deref()))?,
            Command::History => {
                let mut text = String::new();
                for (i, line) in self.history.iter().enumerate() {
                    text.push_str(&format!("{:>5}  {line}\n", i + 1));
                }
                self.output.show(&text)?;
            }
            Command::Version => {
                self.output.line(&format!("millpond {}", env!("CARGO_PKG_VERSION")))?;
                self.greet().await?;
            }
            Command::Clear => {
                if self.output.is_terminal() {
                    self.output.show("\x1b[H\x1b[2J")?;
                }
            }
            Command::Server(None) => self.output.line(self.client.server())?,
            Command::Server(Some(url)) => {
                let other = self.or_problem(self.client.of(&url))?;
                let before = std::mem::replace(&mut self.client, other);
                if let Err(stop) = self.greet().await {
                    self.client = before;
                    self.output.problem(&format!("still talking to {}", self.client.server()));
                    return Err(stop);
                }
                self.names_changed = true;
            }
            Command::Output(form) => {
                self.session.form = form.unwrap_or(self.session.form);
                let name = if self.is_tabular() { "TABULAR" } else { "JSON" };
                self.notice(&format!("output is {name}"))?;
            }
            Command::RunScript(path) => {
                if self.depth >= SCRIPT_DEPTH_MAX {
                    self.output.problem(&format!("error: scripts run scripts more than {SCRIPT_DEPTH_MAX} deep"));
                    return Err(Stop::Failed);
                }
                let text = self.or_problem(read_script(&path))?;
                let name = path.display().to_string();
                self.depth += 1;
                let result = Box::pin(self.text(Source { name: Some(&name), text: &text })).await;
                self.depth -= 1;
                result?;
            }
            Command::Spool(Some(path)) => {
                let opened = self.output.spool_to(&path);
                self.or_problem(opened.map_err(|e| format!("cannot write \"{}\": {e}", path.display())))?;
                self.notice(&format!("what is shown goes to \"{}\" too", path.display()))?;
            }
            Command::Spool(None) => {
                let text = if self.output.spool_off() { "the spool file is closed" } else { "there is no spool file" };
                self.notice(text)?;
            }
        }
        Ok(())
    }

    fn or_problem<T>(&mut self, result: Result<T, String>) -> Result<T, Stop> {
        result.map_err(|why| {
            self.output.problem(&format!("error: {why}"));
            Stop::Failed
        })
    }

    /// For people only.
    pub fn notice(&mut self, text: &str) -> io::Result<()> {
        if self.is_tabular() { self.output.line(text) } else { Ok(()) }
    }

    /// Says which server this is.
    pub async fn greet(&mut self) -> Result<(), Stop> {
        match self.client.info().await {
            Ok(info) => {
                let version = |name: &str| info[name].as_str().unwrap_or("unknown").to_string();
                let text = format!(
                    "server {}: millpond {}, the interface of ksqlDB {}",
                    self.client.server(),
                    version("millpondVersion"),
                    version("version")
                );
                Ok(self.output.line(&text)?)
            }
            Err(failure) => Err(self.failed(Source::typed(""), Span::default(), failure)),
        }
    }

    /// Asks the server for the names that can be completed.
    pub async fn names(&mut self) -> Option<Names> {
        self.names_changed = false;
        let entities = match self.client.execute_shortly(NAMES_STATEMENTS, &self.session).await {
            Ok(entities) => entities,
            // A server that knows some of the statements only.
            Err(Failure::Refused(refusal)) => refusal.entities,
            // The next statement that works asks again.
            Err(Failure::Connection(_)) => {
                self.names_known = false;
                return None;
            }
        };
        self.names_known = true;
        let mut names = Names::from_entities(&entities);
        names.variables = self.session.variables.iter().map(|(name, _)| name.to_string()).collect();
        Some(names)
    }

    async fn statement(&mut self, source: Source<'_>, span: Span) -> Result<(), Stop> {
        let text = span.slice(source.text);
        let parsed = match parse_with_variables(text, &self.session.variables) {
            Ok(parsed) => parsed,
            Err(diagnostic) => {
                self.output.problem(&source.render(diagnostic, span.start));
                return Err(Stop::Failed);
            }
        };
        let sent = format!("{text};");
        match parsed.as_slice() {
            [] => Ok(()),
            [only] => match &only.statement {
                Statement::Set(set) => self.set(source, span, &set.key.node, &set.value.node).await,
                Statement::Unset { key } => {
                    let text = match self.session.unset(&key.node) {
                        Some(old) => format!("property \"{}\" is no longer set, it was \"{old}\"", key.node),
                        None => format!("property \"{}\" was not set", key.node),
                    };
                    Ok(self.notice(&text)?)
                }
                Statement::Define(define) => {
                    self.session.variables.define(&define.name.value, define.value.node.as_str());
                    self.names_changed = true;
                    Ok(())
                }
                Statement::Undefine { name } => {
                    self.names_changed = true;
                    match self.session.variables.undefine(&name.value) {
                        Some(_) => Ok(()),
                        None => Ok(self.notice(&format!("variable \"{}\" was not defined", name.value))?),
                    }
                }
                Statement::ListVariables => Ok(self.variables()?),
                Statement::Query(query) => self.query(source, span, &sent, query.emit.is_some()).await,
                Statement::Print(_) => self.query(source, span, &sent, true).await,
                other => {
                    self.execute(source, span, &sent).await?;
                    self.names_changed |= changes_names(other);
                    Ok(())
                }
            },
            // The value of a variable held more than one.
            _ => {
                self.execute(source, span, &sent).await?;
                self.names_changed = true;
                Ok(())
            }
        }
    }

    async fn set(&mut self, source: Source<'_>, span: Span, name: &str, value: &str) -> Result<(), Stop> {
        let checked = match self.client.check_property(name).await {
            Ok(()) => check_value(name, value).map_err(|e| {
                let message = e.message().to_string();
                Failure::Refused(Refusal { message, ..Refusal::default() })
            }),
            Err(failure) => Err(failure),
        };
        match checked {
            Ok(()) => {
                let text = match self.session.set(name, value) {
                    Some(old) => format!("property \"{name}\" is now \"{value}\", it was \"{old}\""),
                    None => format!("property \"{name}\" is now \"{value}\""),
                };
                self.notice(&text)?;
                if name.to_ascii_lowercase().contains("ksql.functions.") {
                    self.notice("it has no effect in a session; it is set in [ksql] of the server's configuration")?;
                }
                Ok(())
            }
            Err(failure) => Err(self.failed(source, span, failure)),
        }
    }

    /// Sets properties before anything is run.
    pub fn set_first(&mut self, pairs: &[(String, String)]) -> Result<(), Stop> {
        for (name, value) in pairs {
            if let Err(e) = check_property(name).and_then(|()| check_value(name, value)) {
                self.output.problem(&format!("error: --set {name}: {}", e.message()));
                return Err(Stop::Lost);
            }
            self.session.set(name, value);
        }
        Ok(())
    }

    fn variables(&mut self) -> io::Result<()> {
        let pairs: Vec<(String, String)> =
            self.session.variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        if self.is_tabular() {
            let width = self.output.width();
            self.output.show(&entity::variables(pairs.into_iter(), width))
        } else {
            let list: Vec<_> = pairs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            self.output.line(&json!({ "@type": "variables", "variables": list }).to_string())
        }
    }

    async fn execute(&mut self, source: Source<'_>, span: Span, text: &str) -> Result<(), Stop> {
        let answer = tokio::select! {
            answer = self.client.execute(text, &self.session) => answer,
            _ = tokio::signal::ctrl_c() => {
                self.output.problem("interrupted; the server may have run the statement nevertheless");
                return Err(Stop::Interrupted);
            }
        };
        match answer {
            Ok(entities) => {
                self.names_changed |= !self.names_known;
                Ok(self.entities(&entities)?)
            }
            Err(failure) => {
                if let Failure::Refused(refusal) = &failure {
                    self.entities(&refusal.entities)?;
                }
                Err(self.failed(source, span, failure))
            }
        }
    }

    fn entities(&mut self, entities: &[serde_json::Value]) -> io::Result<()> {
        let width = self.output.width();
        for entity in entities {
            if self.is_tabular() {
                self.output.show(&entity::text(entity, width))?;
            } else {
                self.output.line(&entity.to_string())?;
            }
        }
        Ok(())
    }

    async fn query(&mut self, source: Source<'_>, span: Span, text: &str, push: bool) -> Result<(), Stop> {
        let answer = tokio::select! {
            answer = self.client.query(text, &self.session) => answer,
            _ = tokio::signal::ctrl_c() => {
                self.output.problem("interrupted");
                return Err(Stop::Interrupted);
            }
        };
        match answer {
            Ok(Answer::Rows(rows)) => stream::rows(self, rows, push).await,
            Ok(Answer::Lines(lines)) => stream::lines(self, lines).await,
            Err(failure) => Err(self.failed(source, span, failure)),
        }
    }

    /// Says what went wrong.
    fn failed(&mut self, source: Source<'_>, span: Span, failure: Failure) -> Stop {
        match failure {
            Failure::Connection(why) => {
                self.output.problem(&format!("error: {why}"));
                Stop::Lost
            }
            Failure::Refused(refusal) => {
                self.output.problem(&source.refusal(&refusal, span));
                Stop::Failed
            }
        }
    }
}

/// Whether completion may know other names behind a statement.
fn changes_names(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::CreateSource(_)
            | Statement::CreateAs(_)
            | Statement::InsertInto(_)
            | Statement::DropSource(_)
            | Statement::AlterSource(_)
            | Statement::CreateType { .. }
            | Statement::DropType { .. }
            | Statement::Terminate(_)
    )
}

fn read_script(path: &Path) -> Result<String, String> {
    let wrong = |e: io::Error| format!("cannot read \"{}\": {e}", path.display());
    if path == Path::new("-") {
        return io::read_to_string(io::stdin()).map_err(wrong);
    }
    let bytes = std::fs::metadata(path).map_err(wrong)?.len();
    if bytes > SCRIPT_BYTES_MAX {
        return Err(format!("\"{}\" has {bytes} bytes, a script at most {SCRIPT_BYTES_MAX}", path.display()));
    }
    std::fs::read_to_string(path).map_err(wrong)
}

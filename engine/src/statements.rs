//! What each statement does. One function per statement; those that change the catalog hold the engine's `change` lock.

use std::cell::RefCell;
use std::collections::BTreeMap;

use millpond_sql::analyse::analyse;
use millpond_sql::diagnostic::{Code, Diagnostic, suggest};
use millpond_sql::plan::{Analysed, QueryPlan};
use millpond_sql::syntax::{Explain, Ident, Parsed, Statement};
use millpond_types::Error;

use crate::access;
use crate::catalog::{Catalog, QueryEntry};
use crate::engine::Engine;
use crate::entity::{Answer, Entity, PropertyEntry};
use crate::environment::CatalogEnvironment;
use crate::error::Problem;
use crate::query::Output;
use crate::session::{self, Session};

mod assert;
mod control;
mod create;
mod describe;
mod drop;
mod insert_values;
#[cfg(test)]
mod tests;

pub(crate) use insert_values::{InsertTarget, insert_row};

/// Runs one statement that is not a SELECT or PRINT.
pub(crate) fn run(engine: &Engine, parsed: &Parsed, session: &mut Session) -> Result<Answer, Problem> {
    let mut warnings = Vec::new();
    let entity = dispatch(engine, parsed, session, &mut warnings)?;
    Ok(Answer { statement: format!("{};", parsed.text), warnings, entity })
}

fn dispatch(
    engine: &Engine,
    parsed: &Parsed,
    session: &mut Session,
    warnings: &mut Vec<String>,
) -> Result<Entity, Problem> {
    match &parsed.statement {
        Statement::CreateSource(_) | Statement::CreateAs(_) | Statement::InsertInto(_) | Statement::InsertValues(_) => {
            // Values change nothing here: many may be written at once.
            let changes = !matches!(parsed.statement, Statement::InsertValues(_));
            let creates = matches!(parsed.statement, Statement::CreateSource(_) | Statement::CreateAs(_));
            let ahead = if creates { create::check_ahead(engine, parsed, session) } else { Vec::new() };
            let _guard = changes.then(|| engine.0.change.lock());
            let catalog = engine.catalog();
            let warned = RefCell::default();
            let environment = CatalogEnvironment { warnings: Some(&warned), ..engine.environment(&catalog, session) };
            let analysed = analyse(&parsed.statement, &parsed.text, &environment)?;
            warnings.append(&mut warned.take());
            access::check(engine, &catalog, session, &analysed)?;
            match analysed {
                Analysed::InsertValues { target, columns, values, row_time } => {
                    insert_values::insert(engine, &target, &columns, &values, row_time.as_ref())
                }
                other => create::create(engine, other, parsed, session, &ahead, warnings),
            }
        }
        Statement::Query(_) | Statement::Print(_) => Err(Problem::GivesRows),
        Statement::DropSource(drop) => drop::source(engine, drop, session),
        Statement::AlterSource(alter) => create::alter(engine, alter, session),
        Statement::CreateType { name, if_not_exists, ty } => {
            create::create_type(engine, name, *if_not_exists, ty, session)
        }
        Statement::DropType { name, if_exists } => drop::drop_type(engine, name, *if_exists, session),
        Statement::Terminate(target) => control::terminate(engine, target, session),
        Statement::Pause(target) => control::pause(engine, target, true, session),
        Statement::Resume(target) => control::pause(engine, target, false, session),
        Statement::Explain(Explain::Query(id)) => describe::explain_query(engine, id, session),
        Statement::Explain(Explain::Statement(inner)) => {
            let catalog = engine.catalog();
            let warned = RefCell::default();
            let environment = CatalogEnvironment { warnings: Some(&warned), ..engine.environment(&catalog, session) };
            let analysed = analyse(&inner.node, &parsed.text, &environment)?;
            warnings.append(&mut warned.take());
            access::check(engine, &catalog, session, &analysed)?;
            Ok(Entity::Plan(describe::plan_text(&analysed)))
        }
        Statement::ListTopics { all, extended } => describe::topics(engine, *all, *extended, session),
        Statement::ListSources { kind, extended } | Statement::DescribeSources { kind, extended } => {
            let described = matches!(parsed.statement, Statement::DescribeSources { .. }) || *extended;
            describe::sources(engine, *kind, *extended, described, session)
        }
        Statement::ListQueries { extended } => describe::queries(engine, *extended, session),
        Statement::ListFunctions => describe::functions(engine),
        Statement::ListProperties => Ok(Entity::Properties(properties(engine, session))),
        Statement::ListTypes => Ok(Entity::Types(engine.catalog().types.clone())),
        Statement::ListVariables => Ok(Entity::Variables(
            session.variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        )),
        Statement::DescribeSource { name, extended } => describe::source(engine, name, *extended, session),
        Statement::DescribeFunction { name } => describe::function(engine, name),
        Statement::Set(pair) => {
            session::check_property(&pair.key.node)?;
            session::check_value(&pair.key.node, &pair.value.node)?;
            session.set(&pair.key.node, pair.value.node.clone());
            match session::is_of_server(&pair.key.node) {
                true => Ok(Entity::Warning(format!(
                    "property \"{}\" has no effect in a session; it is set in [ksql] of the server's configuration",
                    pair.key.node
                ))),
                false => Ok(Entity::Done),
            }
        }
        Statement::Unset { key } => {
            session::check_property(&key.node)?;
            session.unset(&key.node);
            Ok(Entity::Done)
        }
        Statement::Define(define) => {
            session.variables.define(define.name.as_str(), define.value.node.clone());
            Ok(Entity::Done)
        }
        Statement::Undefine { name } => match session.variables.undefine(name.as_str()) {
            Some(_) => Ok(Entity::Done),
            None => Ok(Entity::Warning(format!("there is no variable \"{}\"", name.as_str()))),
        },
        Statement::AssertTopic(assert) => assert::topic(engine, assert, session),
        Statement::AlterSystem(_) => Err(unsupported("ALTER SYSTEM", "set the property in the server's configuration")),
        Statement::AssertSchema(assert) => assert::schema(engine, assert, session),
        Statement::ListConnectors { .. }
        | Statement::ListConnectorPlugins
        | Statement::DescribeConnector { .. }
        | Statement::CreateConnector(_)
        | Statement::DropConnector { .. } => Err(unsupported("a connector statement", "there are no connectors yet")),
    }
}

fn unsupported(what: &str, hint: &str) -> Problem {
    Diagnostic::unsupported(format!("{what} is not supported")).with_hint(hint).into()
}

fn properties(engine: &Engine, session: &Session) -> Vec<PropertyEntry> {
    let mut names: BTreeMap<&str, ()> = session::PROPERTIES.iter().map(|(name, _)| (*name, ())).collect();
    names.extend(engine.0.options.properties.keys().map(|name| (name.as_str(), ())));
    names.extend(session.overrides().keys().map(|name| (name.as_str(), ())));
    names
        .into_keys()
        .map(|name| PropertyEntry {
            name: name.to_string(),
            value: engine.property(session, name).unwrap_or_default(),
            scope: "KSQL",
            overridden: session.get(name).is_some(),
            editable: true,
        })
        .collect()
}

/// The plan and output of a query in the catalog, from its statement.
pub(crate) fn plan_entry(
    engine: &Engine,
    catalog: &Catalog,
    session: &Session,
    entry: &QueryEntry,
) -> Result<(QueryPlan, Output), Problem> {
    let hidden = entry.creates_sink.then_some(entry.sink.as_str());
    let environment =
        CatalogEnvironment { engine, catalog, session, hidden, planned: Some(&entry.planned), warnings: None };
    let parsed = millpond_sql::parse(&entry.statement)?;
    let [one] = parsed.as_slice() else {
        return Err(Problem::Failed(Error::corrupt(format!("query \"{}\" is not one statement", entry.id))));
    };
    if let Statement::CreateSource(_) = &one.statement {
        // As it was made: its columns may have come from a schema that has moved on.
        let Some(source) = catalog.sources.get(&entry.sink) else {
            return Err(Problem::Failed(Error::corrupt(format!("query \"{}\" has no source", entry.id))));
        };
        return Ok((create::materialising_plan(source), Output::State { target: source.as_ref().clone() }));
    }
    let analysed = analyse(&one.statement, &one.text, &environment)?;
    match analysed {
        Analysed::CreateAs { query, sink, .. } => {
            // The sink may have been altered since; what it is now is in the catalog.
            let source = environment.catalog.sources.get(&entry.sink).map_or(sink.source, |s| s.as_ref().clone());
            Ok((query, Output::Sink { target: source, materialise: true, timestamp: sink.timestamp }))
        }
        Analysed::InsertInto { query, target, .. } => {
            Ok((query, Output::Sink { target, materialise: false, timestamp: None }))
        }
        _ => Err(Problem::Failed(Error::corrupt(format!("query \"{}\" is not a persistent query", entry.id)))),
    }
}

/// What a statement names is not there. `others`: the names that there are, of which one may be meant.
pub(crate) fn not_found(what: &str, name: &Ident, others: impl Iterator<Item = String>) -> Problem {
    let message = format!("{what} \"{}\" does not exist", name.value);
    let diagnostic = Diagnostic::at(Code::UnknownName, name.span, message);
    let others: Vec<String> = others.collect();
    let same = others.iter().find(|other| other.eq_ignore_ascii_case(&name.value)).map(String::as_str);
    match same.or_else(|| suggest(&name.value, others.iter().map(String::as_str))) {
        Some(other) => diagnostic.with_hint(format!("did you mean `{other}`?")),
        None => diagnostic,
    }
    .into()
}

/// The sources that a session may know of.
fn source_names<'a>(catalog: &'a Catalog, session: &'a Session) -> impl Iterator<Item = String> + 'a {
    catalog.sources.values().filter(|source| session.may_see(&source.topic)).map(|source| source.name.clone())
}

/// The queries that a session may know of.
fn query_names<'a>(catalog: &'a Catalog, session: &'a Session) -> impl Iterator<Item = String> + 'a {
    catalog.queries.values().filter(|query| describe::may_see(catalog, session, query)).map(|query| query.id.clone())
}

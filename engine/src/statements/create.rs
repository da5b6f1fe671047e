//! CREATE STREAM / TABLE, CREATE ... AS SELECT, INSERT INTO ... SELECT, ALTER and CREATE TYPE.
//!
//! Creating a query is one commit: its sink's topic, its source, its entry, its first cursors.

use std::sync::Arc;

use millpond_registry::Registry;
use millpond_sql::analyse::{alter_columns, analyse, resolve_type};
use millpond_sql::diagnostic::{Code, Diagnostic};
use millpond_sql::plan::{Analysed, FormatSpec, Node, NodeKind, QueryPlan, Relation, Sink, SourceInfo};
use millpond_sql::syntax::{AlterSource, Ident, Parsed, TypeName};
use millpond_types::access::Right;
use millpond_types::ports::{Cursor, Step, TopicSpec};
use millpond_types::{Error, Schema, SqlType};

use super::{not_found, source_names};
use crate::access;
use crate::catalog::{self, Planned, QueryEntry};
use crate::engine::Engine;
use crate::entity::{CommandStatus, Entity};
use crate::error::Problem;
use crate::query::Output;
use crate::schemas;
use crate::session::Session;
use crate::state::table::stored;

pub(super) fn create(
    engine: &Engine,
    analysed: Analysed,
    parsed: &Parsed,
    session: &Session,
    ahead: &schemas::Ahead,
    warnings: &mut Vec<String>,
) -> Result<Entity, Problem> {
    match analysed {
        Analysed::CreateSource { source, create_topic, topic_configs, if_not_exists, .. } => {
            if let Some(done) = existing(engine, &source, if_not_exists) {
                return Ok(done);
            }
            let topic = create_topic.map(|(partitions, replicas)| TopicSpec {
                name: source.topic.clone(),
                partitions,
                replicas,
                configs: topic_configs,
            });
            create_source(engine, source, topic, parsed, session, ahead, warnings)
        }
        Analysed::CreateAs { query, sink, if_not_exists, .. } => {
            if let Some(done) = existing(engine, &sink.source, if_not_exists) {
                return Ok(done);
            }
            create_as(engine, query, sink, parsed, session, ahead, warnings)
        }
        Analysed::InsertInto { query, target, query_id } => {
            insert_into(engine, query, target, query_id, parsed, session, warnings)
        }
        _ => Err(Problem::Failed(Error::bug("not a statement that creates something"))),
    }
}

/// What of a statement's schemas can be looked at before the catalog is held still. Nothing comes of a statement that is wrong:
/// it is told then.
pub(super) fn check_ahead(engine: &Engine, parsed: &Parsed, session: &Session) -> schemas::Ahead {
    let catalog = engine.catalog();
    let analysed = analyse(&parsed.statement, &parsed.text, &engine.environment(&catalog, session));
    let Some(analysed) = analysed.ok().filter(|a| access::check(engine, &catalog, session, a).is_ok()) else {
        return schemas::Ahead::new();
    };
    match &analysed {
        Analysed::CreateSource { source, .. } if session.check_topic(Right::Write, &source.topic).is_ok() => {
            schemas::check_ahead(engine, source, schemas::Purpose::Declared)
        }
        Analysed::CreateAs { sink, .. } => schemas::check_ahead(engine, &sink.source, schemas::Purpose::Sink),
        _ => schemas::Ahead::new(),
    }
}

fn kind_of(relation: Relation) -> &'static str {
    match relation {
        Relation::Stream => "stream",
        Relation::Table => "table",
    }
}

fn created(source: &SourceInfo, message: String, query_id: Option<String>, sequence: u64) -> Entity {
    Entity::Status(CommandStatus {
        kind: kind_of(source.relation),
        name: source.name.clone(),
        action: "create",
        message,
        query_id,
        sequence,
    })
}

/// IF NOT EXISTS of something that exists: done, with a warning. Whether it may be replaced was checked with the statement.
fn existing(engine: &Engine, source: &SourceInfo, if_not_exists: bool) -> Option<Entity> {
    let catalog = engine.catalog();
    let old = catalog.sources.get(&source.name).filter(|_| if_not_exists)?;
    let (name, kind) = (&source.name, kind_of(old.relation));
    Some(Entity::Warning(format!(
        "Cannot add {} `{name}`: A {kind} with the same name already exists.",
        kind_of(source.relation)
    )))
}

fn create_source(
    engine: &Engine,
    mut source: SourceInfo,
    create_topic: Option<TopicSpec>,
    parsed: &Parsed,
    session: &Session,
    ahead: &schemas::Ahead,
    warnings: &mut Vec<String>,
) -> Result<Entity, Problem> {
    source.statement = format!("{};", parsed.text);
    source.owner = session.owner();
    let mut step = Step::default();
    let topic = engine.storage().topic(&source.topic);
    match (&topic, create_topic) {
        (None, Some(mut spec)) => {
            spec.replicas = kept(engine, &spec.name, spec.replicas, warnings);
            source.replicas = spec.replicas;
            step.create_topics.push(spec);
        }
        (None, None) => {
            return Err(Problem::from(
                Diagnostic::new(Code::UnknownName, format!("Kafka topic does not exist: {}", source.topic))
                    .with_hint("give PARTITIONS in the WITH clause to create it"),
            ));
        }
        (Some(_), _) => {}
    }
    // Who may only read the topic says nothing about its schema.
    let writes = session.check_topic(Right::Write, &source.topic).is_ok();
    let schemas = if writes { schemas::prepare(engine, &mut source, schemas::Purpose::Declared, ahead)? } else { None };
    let registry = schemas.map(|change| {
        step.catalog.extend(change.writes);
        change.registry
    });
    let number = engine.catalog().next_query;
    step.catalog.push(catalog::put_next_query(number + 1));
    let materialise = source.read_only && source.relation == Relation::Table;
    source.materialised = materialise;
    step.catalog.push(catalog::put_source(&source));
    if materialise {
        return materialise_source(engine, source, step, registry, number, session);
    }
    let message = match source.relation {
        Relation::Stream => "Stream created",
        Relation::Table => "Table created",
    };
    let shown = Arc::new(source);
    let (sequence, _) = engine.commit(step, |catalog| {
        catalog.sources.insert(shown.name.clone(), shown.clone());
        catalog.next_query = number + 1;
        if let Some(registry) = registry {
            engine.schemas().install(registry);
        }
    })?;
    Ok(created(&shown, message.to_string(), None, sequence))
}

/// A SOURCE TABLE can be pulled at once, so it has a query that keeps its state.
fn materialise_source(
    engine: &Engine,
    source: SourceInfo,
    mut step: Step,
    registry: Option<Registry>,
    number: u64,
    session: &Session,
) -> Result<Entity, Problem> {
    if !step.create_topics.is_empty() {
        // The topic must be there before cursors can point into it.
        let topics = Step { create_topics: std::mem::take(&mut step.create_topics), ..Step::default() };
        engine.commit(topics, |_| {})?;
    }
    let plan = materialising_plan(&source);
    // The whole table, whatever the session says about new queries.
    let mut all = session.clone();
    all.set("auto.offset.reset", "earliest");
    let source = Arc::new(source);
    let mut with_source = catalog::Catalog::clone(&engine.catalog());
    with_source.sources.insert(source.name.clone(), source.clone());
    let starts = {
        let topic = engine.topic_of(&source.topic)?;
        let mut starts = Vec::new();
        for partition in 0..topic.partitions {
            let at = millpond_types::TopicPartition { topic: topic.id, partition };
            let offsets = engine.storage().offsets(at)?;
            starts.push((at, offsets.start, offsets.stable_end));
        }
        starts
    };
    let entry = QueryEntry {
        id: format!("CST_{}_{number}", source.name),
        number,
        statement: source.statement.trim_end_matches(';').to_string(),
        sink: source.name.clone(),
        creates_sink: true,
        sources: vec![],
        properties: all.overrides().clone(),
        modules: vec![],
        paused: false,
        backlog: starts.iter().map(|(at, _, end)| (*at, *end)).collect(),
        planned: Planned::of(&with_source, &[], &source.statement),
        owner: source.owner.clone(),
    };
    step.catalog.push(catalog::put_query(&entry));
    step.cursors = cursors(&entry.id, &starts);
    let shown = Arc::new(entry);
    let (sequence, _) = engine.commit(step, |catalog| {
        catalog.sources.insert(source.name.clone(), source.clone());
        catalog.queries.insert(shown.id.clone(), shown.clone());
        catalog.next_query = number + 1;
        if let Some(registry) = registry {
            engine.schemas().install(registry);
        }
    })?;
    engine.start_query(&shown, plan, Output::State { target: source.as_ref().clone() }, &all)?;
    Ok(created(&source, "Table created".to_string(), None, sequence))
}

/// Reads a table as it is.
pub(super) fn materialising_plan(source: &SourceInfo) -> QueryPlan {
    let schema = Schema::new(stored(&source.schema).map(|i| source.schema.columns[i].clone()).collect());
    let root = Node {
        schema,
        relation: source.relation,
        window: source.window,
        kind: NodeKind::Source(Arc::new(source.clone())),
    };
    QueryPlan { root, sources: vec![source.name.clone()], limit: None, modules: Vec::new() }
}

fn cursors(id: &str, starts: &[(millpond_types::TopicPartition, i64, i64)]) -> Vec<Cursor> {
    starts.iter().map(|(at, start, _)| Cursor { query: id.to_string(), source: *at, offset: *start }).collect()
}

/// How often a topic is kept; says so where that is not what the statement asks for.
fn kept(engine: &Engine, topic: &str, wanted: i16, warnings: &mut Vec<String>) -> i16 {
    let kept = engine.storage().replicas(wanted);
    if kept != wanted {
        let times = if kept == 1 { "once".to_string() } else { format!("{kept} times") };
        warnings.push(format!(
            "REPLICAS={wanted}: topic \"{topic}\" is kept {times}, as there is one server; its records are as durable as \
             that server's disk"
        ));
    }
    kept
}

fn check_room(engine: &Engine) -> Result<(), Problem> {
    let (have, max) = (engine.catalog().queries.len(), engine.0.options.queries_max);
    if have >= max {
        return Err(Problem::Failed(Error::conflict(format!(
            "there are {have} persistent queries, and no more than {max} are allowed; terminate one, or raise \
             queries_max"
        ))));
    }
    Ok(())
}

fn create_as(
    engine: &Engine,
    plan: QueryPlan,
    sink: Sink,
    parsed: &Parsed,
    session: &Session,
    ahead: &schemas::Ahead,
    warnings: &mut Vec<String>,
) -> Result<Entity, Problem> {
    let mut source = sink.source;
    source.statement = format!("{};", parsed.text);
    source.materialised = source.relation == Relation::Table;
    source.owner = session.owner();
    let catalog = engine.catalog();
    let replaced = catalog.writers(&source.name).find(|q| q.creates_sink).cloned();
    if replaced.is_none() {
        if catalog.sources.contains_key(&source.name) {
            return Err(Problem::from(Diagnostic::new(
                Code::Conflict,
                format!("cannot replace `{}`: it was not created by a query", source.name),
            )));
        }
        check_room(engine)?;
    }
    let mut step = Step::default();
    match engine.topic_shape(&source.topic) {
        None => {
            source.replicas = kept(engine, &source.topic, source.replicas, warnings);
            step.create_topics.push(TopicSpec {
                name: source.topic.clone(),
                partitions: source.partitions,
                replicas: source.replicas,
                configs: sink.topic_configs,
            });
        }
        Some((partitions, _)) if partitions != source.partitions => {
            return Err(Problem::from(
                Diagnostic::new(
                    Code::Conflict,
                    format!(
                        "a Kafka topic with the name \"{}\" already exists, with different partition configuration than \
                         required: it has {partitions} partitions, and the query needs {}",
                        source.topic, source.partitions
                    ),
                )
                .with_hint(format!("set PARTITIONS={partitions} in the WITH clause, or another KAFKA_TOPIC")),
            ));
        }
        Some(_) => {}
    }
    let schemas = schemas::prepare(engine, &mut source, schemas::Purpose::Sink, ahead)?;
    let registry = schemas.map(|change| {
        step.catalog.extend(change.writes);
        change.registry
    });
    let number = catalog.next_query;
    let prefix = if source.relation == Relation::Stream { "CSAS" } else { "CTAS" };
    let sources = plan.sources.clone();
    warn_about_cycle(&catalog, &source, &sources, warnings);
    let output = Output::Sink { target: source.clone(), materialise: true, timestamp: sink.timestamp.clone() };

    let entry = if let Some(old) = &replaced {
        let before = {
            let session = Session::with_properties(&old.properties);
            super::plan_entry(engine, &catalog, &session, old)?.0
        };
        if let Some(why) = crate::upgrade::incompatible(&before, &plan) {
            return Err(Problem::from(
                Diagnostic::new(Code::Conflict, format!("cannot upgrade `{}`: {why}", source.name))
                    .with_hint("drop it and create it anew"),
            ));
        }
        engine.stop_query(&old.id);
        QueryEntry {
            statement: parsed.text.clone(),
            sources,
            properties: session.overrides().clone(),
            modules: plan.modules.clone(),
            planned: Planned::of(&catalog, &plan.sources, &parsed.text),
            owner: session.owner(),
            ..old.as_ref().clone()
        }
    } else {
        let starts = engine.start_offsets(&plan, session)?;
        let id = format!("{prefix}_{}_{number}", source.name);
        step.cursors = cursors(&id, &starts);
        step.catalog.push(catalog::put_next_query(number + 1));
        QueryEntry {
            id,
            number,
            statement: parsed.text.clone(),
            sink: source.name.clone(),
            creates_sink: true,
            sources,
            properties: session.overrides().clone(),
            modules: plan.modules.clone(),
            paused: false,
            backlog: starts.iter().map(|(at, _, end)| (*at, *end)).collect(),
            planned: Planned::of(&catalog, &plan.sources, &parsed.text),
            owner: session.owner(),
        }
    };
    step.catalog.push(catalog::put_source(&source));
    step.catalog.push(catalog::put_query(&entry));
    let (source, entry) = (Arc::new(source), Arc::new(entry));
    let committed = engine.commit(step, |catalog| {
        catalog.sources.insert(source.name.clone(), source.clone());
        catalog.queries.insert(entry.id.clone(), entry.clone());
        catalog.next_query = catalog.next_query.max(number + 1);
        if let Some(registry) = registry {
            engine.schemas().install(registry);
        }
    });
    if committed.is_err()
        && let Some(old) = &replaced
    {
        engine.resume_or_tell(old);
    }
    let (sequence, _) = committed?;
    engine.start_query(&entry, plan, output, session)?;
    Ok(created(&source, format!("Created query with ID {}", entry.id), Some(entry.id.clone()), sequence))
}

fn warn_about_cycle(catalog: &catalog::Catalog, sink: &SourceInfo, sources: &[String], warnings: &mut Vec<String>) {
    if sources.iter().filter_map(|s| catalog.sources.get(s)).any(|s| s.topic == sink.topic) {
        warnings.push(format!(
            "topic \"{}\" is read by the query that writes it: what it writes comes back to it, without an end unless a \
             filter ends it",
            sink.topic
        ));
    }
}

fn insert_into(
    engine: &Engine,
    plan: QueryPlan,
    target: SourceInfo,
    query_id: Option<String>,
    parsed: &Parsed,
    session: &Session,
    warnings: &mut Vec<String>,
) -> Result<Entity, Problem> {
    check_room(engine)?;
    let target = engine.writable(&Arc::new(target))?.as_ref().clone();
    let catalog = engine.catalog();
    let number = catalog.next_query;
    let id = query_id.map_or_else(|| format!("INSERTQUERY_{number}"), |id| id.to_ascii_uppercase());
    if catalog.queries.contains_key(&id) {
        return Err(Problem::from(Diagnostic::new(Code::Conflict, format!("query id \"{id}\" is taken"))));
    }
    warn_about_cycle(&catalog, &target, &plan.sources, warnings);
    let starts = engine.start_offsets(&plan, session)?;
    let mut with_target = plan.sources.clone();
    with_target.push(target.name.clone());
    let entry = QueryEntry {
        id: id.clone(),
        number,
        statement: parsed.text.clone(),
        sink: target.name.clone(),
        creates_sink: false,
        sources: plan.sources.clone(),
        properties: session.overrides().clone(),
        modules: plan.modules.clone(),
        paused: false,
        backlog: starts.iter().map(|(at, _, end)| (*at, *end)).collect(),
        planned: Planned::of(&catalog, &with_target, &parsed.text),
        owner: session.owner(),
    };
    let step = Step {
        catalog: vec![catalog::put_query(&entry), catalog::put_next_query(number + 1)],
        cursors: cursors(&id, &starts),
        ..Step::default()
    };
    let entry = Arc::new(entry);
    let (sequence, _) = engine.commit(step, |catalog| {
        catalog.queries.insert(id.clone(), entry.clone());
        catalog.next_query = number + 1;
    })?;
    let output = Output::Sink { target: target.clone(), materialise: false, timestamp: None };
    engine.start_query(&entry, plan, output, session)?;
    Ok(created(&target, format!("Created query with ID {id}"), Some(id.clone()), sequence))
}

fn resolve(engine: &Engine, ty: &TypeName, session: &Session) -> Result<SqlType, Problem> {
    let catalog = engine.catalog();
    Ok(resolve_type(ty, &engine.environment(&catalog, session))?)
}

pub(super) fn alter(engine: &Engine, alter: &AlterSource, session: &Session) -> Result<Entity, Problem> {
    let _guard = engine.0.change.lock();
    let catalog = engine.catalog();
    let name = alter.name.as_str();
    let Some(old) = catalog.sources.get(name) else {
        return Err(not_found("source", &alter.name, source_names(&catalog, session)));
    };
    session.check_owner("source", name, old.owner.as_deref())?;
    let relation = old.relation;
    let mut source = old.as_ref().clone();
    source.schema.columns.extend(alter_columns(alter, &engine.environment(&catalog, session))?);
    // What rows are written with from now on has the new columns too.
    source.value_format.properties.remove(schemas::WRITER_ID);
    check_value_format(engine, &catalog, session, &source.value_format, &source)?;
    let step = Step { catalog: vec![catalog::put_source(&source)], ..Step::default() };
    let source = Arc::new(source);
    let (sequence, _) = engine.commit(step, |catalog| {
        catalog.sources.insert(source.name.clone(), source.clone());
    })?;
    Ok(Entity::Status(CommandStatus {
        kind: kind_of(relation),
        name: name.to_string(),
        action: "alter",
        message: format!("{} altered", if relation == Relation::Stream { "Stream" } else { "Table" }),
        query_id: None,
        sequence,
    }))
}

fn check_value_format(
    engine: &Engine,
    catalog: &catalog::Catalog,
    session: &Session,
    format: &FormatSpec,
    source: &SourceInfo,
) -> Result<(), Problem> {
    use millpond_sql::plan::{Environment, FormatError, Side};
    let columns: Vec<_> = source.schema.values().map(|c| (c.name.clone(), c.ty.clone())).collect();
    engine.environment(catalog, session).check_format(format, Side::Value, &columns).map_err(|e| match e {
        FormatError::Invalid(m) => Diagnostic::new(Code::Format, m).into(),
        FormatError::Unsupported(m) => Diagnostic::unsupported(m).into(),
    })
}

pub(super) fn create_type(
    engine: &Engine,
    name: &Ident,
    if_not_exists: bool,
    ty: &TypeName,
    session: &Session,
) -> Result<Entity, Problem> {
    let _guard = engine.0.change.lock();
    let label = name.as_str();
    if engine.catalog().types.contains_key(label) {
        return if if_not_exists {
            Ok(Entity::Warning(format!("{label} is already registered with type {}", engine.catalog().types[label])))
        } else {
            Err(Diagnostic::at(
                Code::DuplicateName,
                name.span,
                format!(
                    "cannot register custom type \"{label}\": it is already registered with type {}",
                    engine.catalog().types[label]
                ),
            )
            .into())
        };
    }
    let ty = resolve(engine, ty, session)?;
    let step = Step { catalog: vec![catalog::put_type(label, &ty)], ..Step::default() };
    let message = format!("Registered custom type with name '{label}' and SQL type {ty}");
    let (sequence, _) = engine.commit(step, |catalog| {
        catalog.types.insert(label.to_string(), ty);
    })?;
    Ok(Entity::Status(CommandStatus {
        kind: "type",
        name: label.to_string(),
        action: "create",
        message,
        query_id: None,
        sequence,
    }))
}

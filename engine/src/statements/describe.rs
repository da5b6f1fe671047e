//! SHOW / LIST, DESCRIBE and EXPLAIN.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millpond_sql::functions::{Function, FunctionKind, ResultType};
use millpond_sql::plan::{Analysed, Relation, SourceInfo, describe as describe_query, describe_pull};
use millpond_sql::syntax::{Ident, SourceKind};
use millpond_types::access::Right;
use millpond_types::ports::Readers;

use super::{not_found, query_names, source_names};
use crate::catalog::{Catalog, QueryEntry};
use crate::engine::Engine;
use crate::entity::{
    Entity, FunctionDescription, FunctionSummary, OverloadDescription, QueryDescription, QueryOffsets, QuerySummary,
    QueryType, SourceDescription, TopicSummary,
};
use crate::error::Problem;
use crate::session::Session;

pub(super) fn topics(engine: &Engine, all: bool, extended: bool, session: &Session) -> Result<Entity, Problem> {
    let readers = if extended { readers(engine, session) } else { BTreeMap::new() };
    let topics = engine
        .storage()
        .topics()
        .into_iter()
        .filter(|t| (all || !t.name.starts_with('_')) && session.may_see(&t.name))
        .map(|t| {
            let (partitions, replicas) = engine.topic_shape(&t.name).unwrap_or((t.partitions, t.replicas));
            let Readers { groups, members } = readers.get(&t.name).copied().unwrap_or_default();
            TopicSummary { name: t.name, partitions, replicas, consumer_groups: groups, consumers: members }
        })
        .collect();
    Ok(Entity::Topics { topics, extended })
}

/// Who reads each topic, as far as the session may see them: consumer groups, and queries, each a group of one member.
fn readers(engine: &Engine, session: &Session) -> BTreeMap<String, Readers> {
    let counts = |group: &str| session.may_see_group(group);
    let mut readers = engine.0.consumers.get().map(|consumers| consumers.readers(&counts)).unwrap_or_default();
    let catalog = engine.catalog();
    for query in catalog.queries.values().filter(|query| may_see(&catalog, session, query)) {
        let sources = query.sources.iter().filter_map(|name| catalog.sources.get(name));
        for topic in sources.map(|source| &source.topic).collect::<BTreeSet<_>>() {
            let of_topic = readers.entry(topic.clone()).or_default();
            of_topic.groups += 1;
            of_topic.members += 1;
        }
    }
    readers
}

fn relation_of(kind: SourceKind) -> Relation {
    match kind {
        SourceKind::Stream => Relation::Stream,
        SourceKind::Table => Relation::Table,
    }
}

pub(super) fn sources(
    engine: &Engine,
    kind: SourceKind,
    extended: bool,
    described: bool,
    session: &Session,
) -> Result<Entity, Problem> {
    let relation = relation_of(kind);
    let catalog = engine.catalog();
    let shown = |s: &&Arc<SourceInfo>| s.relation == relation && session.may_see(&s.topic);
    let sources: Vec<Arc<SourceInfo>> = catalog.sources.values().filter(shown).cloned().collect();
    if described {
        return Ok(Entity::SourceList(
            sources.iter().map(|s| description(engine, &catalog, s, extended, session)).collect(),
        ));
    }
    Ok(Entity::Sources { relation, sources })
}

pub(super) fn source(engine: &Engine, name: &Ident, extended: bool, session: &Session) -> Result<Entity, Problem> {
    let catalog = engine.catalog();
    match catalog.sources.get(name.as_str()) {
        Some(source) => {
            session.check_topic(Right::Describe, &source.topic)?;
            Ok(Entity::Source(Box::new(description(engine, &catalog, source, extended, session))))
        }
        None => Err(not_found("source", name, source_names(&catalog, session))),
    }
}

fn description(
    engine: &Engine,
    catalog: &Catalog,
    source: &Arc<SourceInfo>,
    extended: bool,
    session: &Session,
) -> SourceDescription {
    let seen = |query: &&Arc<QueryEntry>| may_see(catalog, session, query);
    let summaries = |queries: Vec<Arc<QueryEntry>>| queries.iter().map(|q| summary(engine, catalog, q)).collect();
    let readers: Vec<_> = catalog.readers(&source.name).filter(seen).cloned().collect();
    let writers: Vec<_> = catalog.writers(&source.name).filter(seen).cloned().collect();
    let constraints = readers.iter().filter(|q| q.creates_sink).map(|q| q.sink.clone()).collect();
    let offsets = if extended { writers.iter().flat_map(|q| query_offsets(engine, q)).collect() } else { Vec::new() };
    SourceDescription {
        source: source.clone(),
        extended,
        read_queries: summaries(readers),
        write_queries: summaries(writers),
        constraints,
        offsets,
    }
}

fn query_offsets(engine: &Engine, query: &QueryEntry) -> Vec<QueryOffsets> {
    let mut by_topic: Vec<QueryOffsets> = Vec::new();
    for cursor in engine.storage().cursors(&query.id).unwrap_or_default() {
        let Some(topic) = engine.storage().topic_by_id(cursor.source.topic) else { continue };
        let Ok(offsets) = engine.storage().offsets(cursor.source) else { continue };
        let row = (cursor.source.partition, offsets.start, offsets.end, cursor.offset);
        match by_topic.iter_mut().find(|o| o.topic == topic.name) {
            Some(found) => found.partitions.push(row),
            None => by_topic.push(QueryOffsets {
                group: format!("_confluent-ksql-default_query_{}", query.id),
                topic: topic.name,
                partitions: vec![row],
            }),
        }
    }
    by_topic
}

pub(super) fn summary(engine: &Engine, catalog: &Catalog, query: &QueryEntry) -> QuerySummary {
    let (state, reason) = engine.query_state(&query.id);
    let sink = catalog.sources.get(&query.sink);
    QuerySummary {
        id: query.id.clone(),
        statement: query.statement.clone(),
        query_type: QueryType::Persistent,
        state,
        reason,
        sink: Some(query.sink.clone()),
        sink_topic: sink.map(|s| s.topic.clone()),
    }
}

/// Whether a query may be shown: by what it writes, since its statement says what it reads.
pub(super) fn may_see(catalog: &Catalog, session: &Session, query: &QueryEntry) -> bool {
    catalog.sources.get(&query.sink).is_none_or(|sink| session.may_see(&sink.topic))
}

pub(super) fn queries(engine: &Engine, extended: bool, session: &Session) -> Result<Entity, Problem> {
    let catalog = engine.catalog();
    let shown = catalog.queries_in_order().into_iter().filter(|q| may_see(&catalog, session, q));
    let mut queries: Vec<QuerySummary> = shown.map(|q| summary(engine, &catalog, &q)).collect();
    queries.extend(engine.0.push.list(session).into_iter().map(|(id, statement)| QuerySummary {
        id,
        statement,
        query_type: QueryType::Push,
        state: "RUNNING".into(),
        reason: None,
        sink: None,
        sink_topic: None,
    }));
    Ok(Entity::Queries { queries, extended })
}

pub(super) fn explain_query(engine: &Engine, id: &Ident, session: &Session) -> Result<Entity, Problem> {
    let catalog = engine.catalog();
    let Some(query) = catalog.queries.get(id.as_str()) else {
        return Err(not_found("query", id, query_names(&catalog, session)));
    };
    if let Some(sink) = catalog.sources.get(&query.sink) {
        session.check_topic(Right::Describe, &sink.topic)?;
    }
    let session = Session::with_properties(&query.properties);
    let (plan, _) = super::plan_entry(engine, &catalog, &session, query)?;
    Ok(Entity::Query(Box::new(QueryDescription {
        summary: summary(engine, &catalog, query),
        schema: plan.root.schema.clone(),
        window: plan.root.window,
        sources: plan.sources.clone(),
        plan: describe_query(&plan),
        properties: query.properties.clone(),
        metrics: engine.query_metrics(id.as_str()),
    })))
}

pub(super) fn plan_text(analysed: &Analysed) -> String {
    match analysed {
        Analysed::CreateAs { query, .. }
        | Analysed::InsertInto { query, .. }
        | Analysed::Push(query)
        | Analysed::PullStream(query) => describe_query(query),
        Analysed::Pull(pull) => describe_pull(pull),
        Analysed::CreateSource { source, .. } => format!("source {} over topic {}", source.name, source.topic),
        Analysed::InsertValues { target, .. } => format!("one record into topic {}", target.topic),
    }
}

fn kind_name(kind: FunctionKind) -> &'static str {
    match kind {
        FunctionKind::Scalar => "SCALAR",
        FunctionKind::Aggregate => "AGGREGATE",
        FunctionKind::Table => "TABLE",
    }
}

pub(super) fn functions(engine: &Engine) -> Result<Entity, Problem> {
    use millpond_sql::functions::FunctionCatalog;
    let functions = engine
        .functions()
        .functions()
        .iter()
        .map(|f| FunctionSummary { name: f.name.clone(), kind: kind_name(f.kind), category: f.category.clone() })
        .collect();
    Ok(Entity::Functions(functions))
}

pub(super) fn function(engine: &Engine, name: &Ident) -> Result<Entity, Problem> {
    use millpond_sql::functions::FunctionCatalog;
    let upper = name.value.to_ascii_uppercase();
    match engine.functions().function(&upper) {
        Some(function) => Ok(Entity::Function(describe_function(&function))),
        None => Err(not_found("function", name, engine.functions().functions().iter().map(|f| f.name.clone()))),
    }
}

fn describe_function(function: &Function) -> FunctionDescription {
    let overloads = function
        .overloads
        .iter()
        .map(|o| OverloadDescription {
            params: o
                .params
                .iter()
                .enumerate()
                .map(|(i, p)| (p.name.clone(), p.ty.to_string(), o.variadic == Some(i)))
                .collect(),
            result: match &o.result {
                ResultType::Of(ty) => ty.to_string(),
                ResultType::Computed(_) => "follows from the arguments".to_string(),
            },
            description: o.description.clone(),
        })
        .collect();
    FunctionDescription {
        name: function.name.clone(),
        kind: kind_name(function.kind),
        description: function.description.clone(),
        author: function.author.clone(),
        path: function.module.clone().unwrap_or_else(|| "internal".to_string()),
        overloads,
    }
}

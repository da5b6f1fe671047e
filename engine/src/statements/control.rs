//! TERMINATE, PAUSE and RESUME.

use std::sync::Arc;

use millpond_sql::syntax::QueryTarget;
use millpond_types::ports::Step;

use super::{not_found, query_names};
use crate::catalog::{self, QueryEntry};
use crate::engine::Engine;
use crate::entity::{CommandStatus, Entity};
use crate::error::Problem;
use crate::session::Session;

/// The persistent queries that a target means.
fn targets(engine: &Engine, target: &QueryTarget, session: &Session) -> Result<Vec<Arc<QueryEntry>>, Problem> {
    let catalog = engine.catalog();
    match target {
        QueryTarget::All => Ok(catalog.queries_in_order()),
        QueryTarget::Query(id) => match catalog.queries.get(id.as_str()) {
            Some(query) => Ok(vec![query.clone()]),
            None => Err(not_found("query", id, query_names(&catalog, session))),
        },
    }
}

fn status(kind: &'static str, target: &QueryTarget, message: &str, sequence: u64) -> Entity {
    let name = match target {
        QueryTarget::All => "ALL".to_string(),
        QueryTarget::Query(id) => id.as_str().to_string(),
    };
    Entity::Status(CommandStatus {
        kind,
        name,
        action: "execute",
        message: message.to_string(),
        query_id: None,
        sequence,
    })
}

pub(super) fn terminate(engine: &Engine, target: &QueryTarget, session: &Session) -> Result<Entity, Problem> {
    if let QueryTarget::Query(id) = target
        && engine.close_push(id.as_str(), session)?
    {
        return Ok(status(
            "terminate",
            target,
            "Query terminated.",
            engine.0.changes.load(std::sync::atomic::Ordering::Relaxed),
        ));
    }
    let _guard = engine.0.change.lock();
    let queries = targets(engine, target, session)?;
    check_owners(&queries, session)?;
    let ids: Vec<String> = queries.iter().map(|q| q.id.clone()).collect();
    // The tables of these queries stay, but their state goes: they can no longer be pulled.
    let catalog = engine.catalog();
    let tables: Vec<_> = queries
        .iter()
        .filter(|q| q.creates_sink)
        .filter_map(|q| catalog.sources.get(&q.sink))
        .filter(|s| s.materialised)
        .map(|s| {
            let mut source = s.as_ref().clone();
            source.materialised = false;
            source
        })
        .collect();
    let step = Step { catalog: tables.iter().map(catalog::put_source).collect(), ..Step::default() };
    let sequence = engine.drop_queries(&ids, step, |catalog| {
        for source in tables {
            catalog.sources.insert(source.name.clone(), Arc::new(source));
        }
    })?;
    Ok(status("terminate", target, "Query terminated.", sequence))
}

/// All or none: ALL is for those who may stop all.
fn check_owners(queries: &[Arc<QueryEntry>], session: &Session) -> Result<(), Problem> {
    Ok(queries.iter().try_for_each(|q| session.check_owner("query", &q.id, q.owner.as_deref()))?)
}

pub(super) fn pause(engine: &Engine, target: &QueryTarget, paused: bool, session: &Session) -> Result<Entity, Problem> {
    let _guard = engine.0.change.lock();
    let queries = targets(engine, target, session)?;
    check_owners(&queries, session)?;
    let changed: Vec<QueryEntry> =
        queries.into_iter().map(|query| QueryEntry { paused, ..query.as_ref().clone() }).collect();
    let step = Step { catalog: changed.iter().map(catalog::put_query).collect(), ..Step::default() };
    let (sequence, _) = engine.commit(step, |catalog| {
        for query in &changed {
            catalog.queries.insert(query.id.clone(), Arc::new(query.clone()));
        }
    })?;
    for query in &changed {
        engine.pause_query(query);
    }
    Ok(if paused {
        status("pause", target, "Query paused.", sequence)
    } else {
        status("resume", target, "Query resumed.", sequence)
    })
}

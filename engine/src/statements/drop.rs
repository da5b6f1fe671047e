//! DROP STREAM / TABLE and DROP TYPE.

use millpond_formats::Side;
use millpond_sql::diagnostic::{Code, Diagnostic};
use millpond_sql::plan::Relation;
use millpond_sql::syntax::{DropSource, Ident, SourceKind};
use millpond_types::access::Right;
use millpond_types::ports::Step;

use super::{not_found, source_names};
use crate::catalog;
use crate::engine::Engine;
use crate::entity::{CommandStatus, Entity};
use crate::error::Problem;
use crate::schemas::subject_of;
use crate::session::Session;

pub(super) fn source(engine: &Engine, drop: &DropSource, session: &Session) -> Result<Entity, Problem> {
    let _guard = engine.0.change.lock();
    let catalog = engine.catalog();
    let name = drop.name.as_str();
    let relation = match drop.kind {
        SourceKind::Stream => Relation::Stream,
        SourceKind::Table => Relation::Table,
    };
    let kind = relation.to_string().to_lowercase();
    let Some(source) = catalog.sources.get(name) else {
        return if drop.if_exists {
            Ok(Entity::Warning(format!("Source `{name}` does not exist.")))
        } else {
            Err(not_found(&kind, &drop.name, source_names(&catalog, session)))
        };
    };
    session.check_owner(&kind, name, source.owner.as_deref())?;
    if drop.delete_topic {
        session.check_topic(Right::Delete, &source.topic)?;
    }
    let conflict = |message: String| Problem::from(Diagnostic::at(Code::Conflict, drop.name.span, message));
    if source.relation != relation {
        let found = source.relation;
        return Err(conflict(format!("incompatible data source type is {found}, but statement was DROP {relation}")));
    }
    if drop.delete_topic && source.read_only {
        return Err(conflict(format!("cannot delete topic for read-only source: {name}")));
    }
    let own: Vec<String> = catalog.writers(name).filter(|q| q.creates_sink).map(|q| q.id.clone()).collect();
    let readers: Vec<String> = catalog.readers(name).filter(|q| !own.contains(&q.id)).map(|q| q.id.clone()).collect();
    let writers: Vec<String> = catalog.writers(name).filter(|q| !own.contains(&q.id)).map(|q| q.id.clone()).collect();
    if !readers.is_empty() || !writers.is_empty() {
        let mut users = Vec::new();
        if !readers.is_empty() {
            users.push(format!("the following queries read from this source: [{}]", readers.join(", ")));
        }
        if !writers.is_empty() {
            users.push(format!("the following queries write into this source: [{}]", writers.join(", ")));
        }
        return Err(conflict(format!("cannot drop \"{name}\": {}; terminate them first", users.join("; "))));
    }
    if drop.delete_topic {
        // Other sources may be over the same topic; their queries would lose what they read or write.
        let others = |name: &str| catalog.sources.get(name).is_some_and(|s| s.topic == source.topic);
        let users: Vec<String> = catalog
            .queries
            .values()
            .filter(|q| !own.contains(&q.id) && (others(&q.sink) || q.sources.iter().any(|s| others(s))))
            .map(|q| q.id.clone())
            .collect();
        if !users.is_empty() {
            return Err(conflict(format!(
                "cannot delete topic \"{}\": it is used by [{}]; terminate them first, or drop \"{name}\" without its topic",
                source.topic,
                users.join(", ")
            )));
        }
    }
    let topic = engine.storage().topic(&source.topic);
    let delete_topics = if drop.delete_topic { topic.iter().map(|t| t.id).collect() } else { Vec::new() };
    let mut step = Step { delete_topics, catalog: vec![catalog::delete_source(name)], ..Step::default() };
    // The topic's schemas go with it, as far as they may.
    let mut registry = None;
    if drop.delete_topic {
        for side in [Side::Key, Side::Value] {
            let now = registry.clone().unwrap_or_else(|| engine.schemas().now().as_ref().clone());
            if let Ok((change, _)) = now.delete_subject(&subject_of(&source.topic, side), false) {
                step.catalog.extend(change.writes);
                registry = Some(change.registry);
            }
        }
    }
    let sequence = engine.drop_queries(&own, step, |catalog| {
        catalog.sources.remove(name);
        if let Some(registry) = registry {
            engine.schemas().install(registry);
        }
    })?;
    Ok(Entity::Status(CommandStatus {
        kind: if relation == Relation::Stream { "stream" } else { "table" },
        name: name.to_string(),
        action: "drop",
        message: format!("Source `{name}` (topic: {}) was dropped.", source.topic),
        query_id: None,
        sequence,
    }))
}

pub(super) fn drop_type(engine: &Engine, name: &Ident, if_exists: bool, session: &Session) -> Result<Entity, Problem> {
    // Types are everybody's.
    session.check_cluster(Right::Alter)?;
    let _guard = engine.0.change.lock();
    let catalog = engine.catalog();
    if !catalog.types.contains_key(name.as_str()) {
        return if if_exists {
            Ok(Entity::Warning(format!("Type `{}` does not exist.", name.value)))
        } else {
            Err(not_found("type", name, catalog.types.keys().cloned()))
        };
    }
    let name = name.as_str();
    let step = Step { catalog: vec![catalog::delete_type(name)], ..Step::default() };
    let (sequence, _) = engine.commit(step, |catalog| {
        catalog.types.remove(name);
    })?;
    Ok(Entity::Status(CommandStatus {
        kind: "type",
        name: name.to_string(),
        action: "drop",
        message: format!("Dropped type '{name}'"),
        query_id: None,
        sequence,
    }))
}

//! The rights that statements ask for. Short calls; without rights in the session everything is allowed.
//!
//! What a statement reads needs READ, what it writes WRITE, a topic that it makes CREATE, what it shows DESCRIBE, all to
//! topics. What somebody else made is changed, stopped or dropped only by those who may alter the cluster. Rights are
//! asked for once, when the statement comes: a persistent query goes on with what its creator was allowed then.

use millpond_sql::plan::{Analysed, QueryPlan};
use millpond_types::access::{Protected, Right, Rights};
use millpond_types::{Error, ErrorKind, Result};

use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::session::Session;

impl Session {
    /// Who made something in this session, as it is kept; nobody where there are no rights.
    pub(crate) fn owner(&self) -> Option<String> {
        self.rights().map(|rights| rights.principal().to_string())
    }

    /// Whether a topic may be shown.
    pub(crate) fn may_see(&self, topic: &str) -> bool {
        self.rights().is_none_or(|rights| rights.allow(Right::Describe, Protected::Topic(topic)))
    }

    /// Whether a consumer group may be shown: whoever may describe the cluster sees all.
    pub(crate) fn may_see_group(&self, group: &str) -> bool {
        self.rights().is_none_or(|rights| {
            rights.allow(Right::Describe, Protected::Cluster) || rights.allow(Right::Describe, Protected::Group(group))
        })
    }

    pub(crate) fn check_topic(&self, right: Right, topic: &str) -> Result<()> {
        self.rights().map_or(Ok(()), |rights| rights.check_topics(right, [topic]))
    }

    pub(crate) fn check_cluster(&self, right: Right) -> Result<()> {
        self.rights().map_or(Ok(()), |rights| rights.check_cluster(right))
    }

    /// Refused where something is another's, or nobody's, and the cluster may not be altered.
    pub(crate) fn check_owner(&self, what: &str, name: &str, owner: Option<&str>) -> Result<()> {
        let Some(rights) = self.rights() else { return Ok(()) };
        if owner == Some(rights.principal().to_string().as_str()) || rights.allow(Right::Alter, Protected::Cluster) {
            return Ok(());
        }
        let message = format!("Authorization denied: {what} `{name}` was made by somebody else");
        Err(Error::new(ErrorKind::Forbidden, message))
    }
}

/// Holds a statement that makes, writes or reads something against the session's rights.
pub(crate) fn check(engine: &Engine, catalog: &Catalog, session: &Session, analysed: &Analysed) -> Result<()> {
    let Some(rights) = session.rights() else { return Ok(()) };
    match analysed {
        Analysed::CreateSource { source, create_topic, or_replace, .. } => {
            // First what does not tell whether the topic is there.
            rights.check_topics(Right::Read, [source.topic.as_str()])?;
            if create_topic.is_some() {
                may_create(engine, rights, &source.topic)?;
            }
            replaced(catalog, session, &source.name, *or_replace)
        }
        Analysed::CreateAs { query, sink, or_replace, .. } => {
            read(catalog, rights, query)?;
            rights.check_topics(Right::Write, [sink.source.topic.as_str()])?;
            may_create(engine, rights, &sink.source.topic)?;
            replaced(catalog, session, &sink.source.name, *or_replace)
        }
        Analysed::InsertInto { query, target, .. } => {
            read(catalog, rights, query)?;
            rights.check_topics(Right::Write, [target.topic.as_str()])
        }
        Analysed::InsertValues { target, .. } => rights.check_topics(Right::Write, [target.topic.as_str()]),
        Analysed::Push(query) | Analysed::PullStream(query) => read(catalog, rights, query),
        Analysed::Pull(pull) => rights.check_topics(Right::Read, pull.tables.iter().map(|t| t.topic.as_str())),
    }
}

fn read(catalog: &Catalog, rights: &Rights, query: &QueryPlan) -> Result<()> {
    let topics = query.sources.iter().filter_map(|name| catalog.sources.get(name)).map(|source| source.topic.as_str());
    rights.check_topics(Right::Read, topics)
}

fn may_create(engine: &Engine, rights: &Rights, topic: &str) -> Result<()> {
    if engine.storage().topic(topic).is_some() { Ok(()) } else { rights.check_create(topic) }
}

fn replaced(catalog: &Catalog, session: &Session, name: &str, or_replace: bool) -> Result<()> {
    match catalog.sources.get(name).filter(|_| or_replace) {
        Some(old) => session.check_owner("source", name, old.owner.as_deref()),
        None => Ok(()),
    }
}

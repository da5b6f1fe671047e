//! What of a plan a query must know before its first step: what matters to its sink, and where it starts to read.

use std::sync::Arc;

use millpond_sql::plan::{Node, NodeKind as K, QueryPlan, WindowKind};
use millpond_types::ports::{Cursor, Storage};
use millpond_types::{Error, Offset, Result, TopicPartition};

use crate::source::Start;

/// What of a plan matters to its sink.
pub(super) struct Shape {
    /// Sessions and EMIT FINAL send everything.
    pub emits_all: bool,
    /// How long windows are kept.
    pub retention_ms: Option<i64>,
    /// The result is that of a GROUP BY, which coalesces by itself.
    pub grouped: bool,
    /// Keys of several columns are never NULL as a whole, as a PARTITION BY made them.
    pub whole_keys: bool,
}

impl Shape {
    pub fn of(node: &Node) -> Self {
        match &node.kind {
            K::Filter { input, .. } | K::Project { input, .. } | K::FlatMap { input, .. } => Self::of(input),
            K::Aggregate { window: Some(window), .. } => Self {
                emits_all: window.emit_final || window.kind == WindowKind::Session,
                retention_ms: Some(
                    window.retention_ms.unwrap_or(0).max(window.size_ms.saturating_add(window.grace_ms())),
                ),
                grouped: true,
                whole_keys: false,
            },
            K::Aggregate { .. } => Self { emits_all: false, retention_ms: None, grouped: true, whole_keys: false },
            K::Rekey { keys, .. } => {
                Self { emits_all: false, retention_ms: None, grouped: false, whole_keys: keys.len() > 1 }
            }
            _ => Self { emits_all: false, retention_ms: None, grouped: false, whole_keys: false },
        }
    }
}

/// Where each partition of each source starts.
pub(super) fn starts(
    plan: &QueryPlan,
    storage: &dyn Storage,
    cursors: &[Cursor],
    start: &[(TopicPartition, Offset)],
    backlog: &[(TopicPartition, Offset)],
    id: &str,
) -> Result<Vec<Start>> {
    let mut topics: Vec<(String, String)> = Vec::new();
    topics_of(&plan.root, &mut topics);
    let mut starts: Vec<Start> = Vec::new();
    for (topic, source) in topics {
        let info = storage
            .topic(&topic)
            .ok_or_else(|| Error::not_found(format!("topic \"{topic}\" of \"{source}\" does not exist")))?;
        if starts.iter().any(|s| s.at.topic == info.id) {
            continue;
        }
        let name: Arc<str> = topic.into();
        for partition in 0..info.partitions {
            let at = TopicPartition { topic: info.id, partition };
            let find = |list: &[(TopicPartition, Offset)]| list.iter().find(|(p, _)| *p == at).map(|(_, o)| *o);
            let cursor = cursors.iter().find(|c| c.source == at).map(|c| c.offset);
            starts.push(Start {
                at,
                topic: name.clone(),
                offset: cursor.or_else(|| find(start)).unwrap_or(0),
                backlog_end: find(backlog).unwrap_or(0),
            });
        }
    }
    if let Some(lost) = cursors.iter().find(|c| storage.topic_by_id(c.source.topic).is_none()) {
        return Err(Error::conflict(format!(
            "query \"{id}\" was reading topic {:?}, which was deleted; a topic of the same name is another one",
            lost.source.topic
        )));
    }
    Ok(starts)
}

fn topics_of(node: &Node, topics: &mut Vec<(String, String)>) {
    match &node.kind {
        K::Source(info) => topics.push((info.topic.clone(), info.name.clone())),
        K::Filter { input, .. }
        | K::Project { input, .. }
        | K::FlatMap { input, .. }
        | K::Rekey { input, .. }
        | K::Aggregate { input, .. } => topics_of(input, topics),
        K::StreamStreamJoin { left, right, .. }
        | K::StreamTableJoin { left, right, .. }
        | K::TableTableJoin { left, right, .. }
        | K::ForeignKeyJoin { left, right, .. } => {
            topics_of(left, topics);
            topics_of(right, topics);
        }
    }
}

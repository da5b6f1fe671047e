//! ASSERT TOPIC and ASSERT SCHEMA: wait until a topic or a schema is there (or gone), as it should be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millpond_sql::syntax::{AssertSchema, AssertTopic, Interval, Literal};
use millpond_types::Error;
use millpond_types::access::Right;

use crate::engine::Engine;
use crate::entity::Entity;
use crate::error::Problem;
use crate::schemas::topic_of;
use crate::session::Session;

const TIMEOUT_DEFAULT: Duration = Duration::from_millis(1000);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);
/// Statements that wait at a time; each holds a thread.
const WAITING_MAX: usize = 16;

/// The place of a statement that waits.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, Problem> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            waiting.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{WAITING_MAX} ASSERT statements wait already; try again when one of them has ended");
            return Err(Problem::Failed(Error::retry(message)));
        }
        Ok(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn topic(engine: &Engine, assert: &AssertTopic, session: &Session) -> Result<Entity, Problem> {
    session.check_topic(Right::Describe, &assert.topic.node)?;
    let mut expected = Vec::new();
    for property in &assert.properties.items {
        let name = property.name.value.to_ascii_uppercase();
        let Literal::Integer(count) = &property.value.node else {
            return Err(Problem::Failed(Error::bad_request(format!("property \"{name}\" takes a whole number"))));
        };
        if !["PARTITIONS", "REPLICAS"].contains(&name.as_str()) {
            return Err(Problem::Failed(Error::bad_request(format!(
                "cannot assert unknown topic property: \"{name}\"; PARTITIONS and REPLICAS can be asserted"
            ))));
        }
        expected.push((name, i64::from(*count)));
    }
    let name = &assert.topic.node;
    wait(engine, assert.timeout.as_ref(), &|| check(engine, name, assert.exists, &expected))?;
    Ok(Entity::AssertTopic { topic: name.clone(), exists: assert.exists })
}

pub(super) fn schema(engine: &Engine, assert: &AssertSchema, session: &Session) -> Result<Entity, Problem> {
    let subject = assert.subject.as_ref().map(|s| s.node.as_str());
    match subject {
        Some(subject) => session.check_topic(Right::Describe, topic_of(subject))?,
        None => session.check_cluster(Right::Describe)?,
    }
    let id = assert.id.as_ref().map(|id| id.node);
    wait(engine, assert.timeout.as_ref(), &|| {
        let registry = engine.schemas().now();
        let wanted = id.and_then(|id| u32::try_from(id).ok());
        let there = match (subject, wanted) {
            (Some(subject), Some(id)) => registry.versions_of(id, false).iter().any(|(s, _)| s == subject),
            (Some(subject), None) => registry.versions(subject, false).is_ok(),
            (None, Some(id)) => registry.by_id(id).is_ok(),
            (None, None) => false,
        };
        let named: Vec<String> = subject
            .map(|s| format!("subject name \"{s}\""))
            .into_iter()
            .chain(id.map(|id| format!("id \"{id}\"")))
            .collect();
        let verb = if assert.exists { "does not exist" } else { "exists" };
        (there != assert.exists).then(|| format!("schema with {} {verb}", named.join(" and ")))
    })?;
    Ok(Entity::AssertSchema { subject: subject.map(str::to_owned), id, exists: assert.exists })
}

/// Looks again and again until nothing is wrong, or the time is over.
fn wait(engine: &Engine, timeout: Option<&Interval>, wrong: &dyn Fn() -> Option<String>) -> Result<(), Problem> {
    let timeout = timeout
        .and_then(Interval::millis)
        .map_or(TIMEOUT_DEFAULT, |ms| Duration::from_millis(ms.max(0) as u64))
        .min(TIMEOUT_MAX);
    let _place = Place::take(&engine.0.asserts)?;
    let deadline = engine.0.clock.now_ms().saturating_add(timeout.as_millis() as i64);
    loop {
        match wrong() {
            None => return Ok(()),
            Some(message) if engine.0.options.stepped || engine.0.clock.now_ms() >= deadline => {
                return Err(Problem::Assertion(message));
            }
            Some(_) => {
                // Nothing announces a new topic; the log's own movement does for everything else.
                engine.storage().wait_past(engine.storage().sequence(), POLL);
            }
        }
    }
}

fn check(engine: &Engine, name: &str, exists: bool, expected: &[(String, i64)]) -> Option<String> {
    match (engine.topic_shape(name), exists) {
        (None, true) => Some(format!("topic \"{name}\" does not exist")),
        (Some(_), false) => Some(format!("topic \"{name}\" exists")),
        (None, false) => None,
        (Some((partitions, replicas)), true) => expected.iter().find_map(|(property, want)| {
            let have = if property == "PARTITIONS" { i64::from(partitions) } else { i64::from(replicas) };
            (have != *want).then(|| {
                format!(
                    "mismatched configuration for topic \"{name}\": for config {}, expected {want} got {have}",
                    property.to_lowercase()
                )
            })
        }),
    }
}

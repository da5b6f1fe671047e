//! What a client's statements share: property overrides and variables. Lives with the client, never in the catalog.

use std::collections::BTreeMap;

use millpond_formats::Format;
use millpond_sql::diagnostic::suggest;
use millpond_sql::substitute::Variables;
use millpond_types::access::Rights;
use millpond_types::{Error, Result};

/// Properties (`SET`, `streamsProperties`) and variables (`DEFINE`, `sessionVariables`) of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// By lower-case name, without the optional `ksql.streams.` prefix.
    properties: BTreeMap<String, String>,
    pub variables: Variables,
    /// Of whoever speaks; without any everything is allowed.
    rights: Option<Rights>,
}

/// Properties that change something here, with their defaults. Others of ksqlDB's are accepted without effect.
pub const PROPERTIES: &[(&str, &str)] = &[
    ("auto.offset.reset", "latest"),
    ("cache.max.bytes.buffering", "10000000"),
    ("ksql.compat.quirks", "false"),
    ("ksql.create.or.replace.enabled", "true"),
    ("ksql.functions.collect_list.limit", "2147483647"),
    ("ksql.functions.collect_set.limit", "2147483647"),
    ("ksql.functions.substring.legacy.args", "false"),
    ("ksql.headers.columns.enabled", "true"),
    ("ksql.new.query.planner.enabled", "false"),
    ("ksql.output.topic.name.prefix", ""),
    ("ksql.persistence.default.format.key", "KAFKA"),
    ("ksql.persistence.default.format.value", ""),
    ("ksql.persistence.wrap.single.values", ""),
    ("ksql.query.pull.limit.clause.enabled", "true"),
    ("ksql.query.pull.range.scan.enabled", "true"),
    ("ksql.query.pull.stream.enabled", "true"),
    ("ksql.query.pull.table.scan.enabled", "true"),
    ("ksql.query.push.v2.enabled", "false"),
    ("ksql.service.id", "default_"),
    ("ksql.timestamp.throw.on.invalid", "false"),
    ("ksql.variable.substitution.enable", "true"),
    ("millpond.step.rows.max", "8192"),
    ("millpond.task.rows.min", "1024"),
];

/// Lower case, without the prefix under which Kafka Streams properties may be given.
fn normal(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    name.strip_prefix("ksql.streams.").map(str::to_string).unwrap_or(name)
}

/// Whether a name is one that ksqlDB's server knows: its own, or one of Kafka's clients and Streams, which are accepted
/// and without effect where Millpond has no such thing.
pub fn is_known_property(name: &str) -> bool {
    let name = normal(name);
    PROPERTIES.iter().any(|(known, _)| *known == name)
        || name.starts_with("ksql.")
        || ["consumer.", "producer.", "topic.", "admin.", "main.consumer."].iter().any(|p| name.starts_with(p))
        || KAFKA_PROPERTIES.contains(&name.as_str())
}

/// Refuses names that [`is_known_property`] does not know.
pub fn check_property(name: &str) -> Result<()> {
    if is_known_property(name) {
        return Ok(());
    }
    let asked = normal(name);
    let known = || PROPERTIES.iter().map(|(known, _)| *known);
    let near = known().find(|known| known.ends_with(&asked)).or_else(|| suggest(&asked, known()));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
    Err(Error::bad_request(format!("unknown property: \"{name}\"{hint}")))
}

/// Whether a property works for the server as a whole, so that a session cannot change it.
pub fn is_of_server(name: &str) -> bool {
    normal(name).starts_with("ksql.functions.")
}

/// Whether a property can have a value: one that would be read as something else is a mistake that should be told.
pub fn check_value(name: &str, value: &str) -> Result<()> {
    let wrong = |right: &str| {
        Err(Error::bad_request(format!("invalid value \"{value}\" for property \"{name}\": it must be {right}")))
    };
    let value = value.trim();
    let is_one_of = |of: &[&str]| of.iter().any(|v| v.eq_ignore_ascii_case(value));
    match (normal(name).as_str(), default_property(name)) {
        ("auto.offset.reset", _) if !is_one_of(&["earliest", "latest"]) => wrong("earliest or latest"),
        ("ksql.persistence.default.format.key" | "ksql.persistence.default.format.value", _)
            if !value.is_empty() && Format::parse(value).is_err() =>
        {
            wrong("a format, such as JSON or AVRO")
        }
        (_, Some("true" | "false")) if !is_one_of(&["true", "false"]) => wrong("true or false"),
        (_, Some(number)) if number.parse::<i64>().is_ok() && value.parse::<i64>().is_err() => wrong("a number"),
        _ => Ok(()),
    }
}

/// Settings of Kafka Streams and its clients that statements in the field carry; accepted without effect.
const KAFKA_PROPERTIES: &[&str] = &[
    "acks",
    "application.id",
    "application.server",
    "batch.size",
    "bootstrap.servers",
    "buffered.records.per.partition",
    "commit.interval.ms",
    "compression.type",
    "default.deserialization.exception.handler",
    "default.timestamp.extractor",
    "enable.idempotence",
    "fetch.max.wait.ms",
    "fetch.min.bytes",
    "group.id",
    "isolation.level",
    "linger.ms",
    "max.poll.interval.ms",
    "max.poll.records",
    "max.request.size",
    "metadata.max.age.ms",
    "num.standby.replicas",
    "num.stream.threads",
    "poll.ms",
    "processing.guarantee",
    "request.timeout.ms",
    "retries",
    "retry.backoff.ms",
    "rocksdb.config.setter",
    "session.timeout.ms",
    "state.cleanup.delay.ms",
    "state.dir",
    "task.timeout.ms",
    "topology.optimization",
    "statestore.cache.max.bytes",
    "max.task.idle.ms",
    "heartbeat.interval.ms",
    "receive.buffer.bytes",
    "send.buffer.bytes",
];

impl Session {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_properties<K: AsRef<str>, V: Into<String>>(properties: impl IntoIterator<Item = (K, V)>) -> Self {
        let properties = properties.into_iter().map(|(k, v)| (normal(k.as_ref()), v.into())).collect();
        Self { properties, ..Self::default() }
    }

    /// Holds the session's statements against somebody's rights.
    pub fn restrict(&mut self, rights: Rights) {
        self.rights = Some(rights);
    }

    pub fn rights(&self) -> Option<&Rights> {
        self.rights.as_ref()
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.properties.insert(normal(name), value.into());
    }

    pub fn unset(&mut self, name: &str) {
        self.properties.remove(&normal(name));
    }

    /// What the session itself has set.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(&normal(name)).map(String::as_str)
    }
}

/// The default of a property; `None` where it is empty or unknown.
pub fn default_property(name: &str) -> Option<&'static str> {
    let name = normal(name);
    PROPERTIES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_found_under_both_its_names() {
        let mut session = Session::new();
        session.set("ksql.streams.auto.offset.reset", "earliest");
        assert_eq!(session.get("auto.offset.reset"), Some("earliest"));
        session.unset("AUTO.OFFSET.RESET");
        assert_eq!(session.get("auto.offset.reset"), None);
        assert!(is_known_property("ksql.streams.num.stream.threads"));
        assert!(!is_known_property("no.such.thing"));
    }
}

//! Settings of topics and of the broker as the APIs about configs show them.

use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};

use super::Shared;
use crate::configs::{ConfigKind, TOPIC_CONFIGS, TopicConfig};
use crate::storage::Topic;
use crate::wire::text;

pub(super) const RESOURCE_TOPIC: i8 = 2;
pub(super) const RESOURCE_BROKER: i8 = 4;

/// Where a value comes from, as the protocol numbers it.
pub(super) const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC: i8 = 4;
pub(super) const SOURCE_DEFAULT: i8 = 5;

/// A topic's value of a setting and where it comes from.
pub(super) fn value_of<'a>(topic: &'a Topic, config: &'a TopicConfig) -> (&'a str, i8) {
    match topic.configs.get(config.name) {
        Some(value) => (value, SOURCE_TOPIC),
        None => (config.default, SOURCE_DEFAULT),
    }
}

/// All settings of a topic, or those of the given names.
pub(super) fn of_topic(
    topic: &Topic,
    only: Option<&[&str]>,
    synonyms: bool,
    docs: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let wanted = |config: &&TopicConfig| only.is_none_or(|only| only.contains(&config.name));
    let entry = |config: &TopicConfig| {
        let (value, source) = value_of(topic, config);
        let mut others = Vec::new();
        if synonyms && source == SOURCE_TOPIC {
            others.push(synonym(config.name, value, SOURCE_TOPIC));
        }
        if synonyms {
            others.push(synonym(config.synonym.unwrap_or(config.name), config.default, SOURCE_DEFAULT));
        }
        DescribeConfigsResourceResult::default()
            .with_name(text(config.name))
            .with_value(Some(text(value)))
            .with_config_source(source)
            .with_synonyms(others)
            .with_config_type(config.kind as i8)
            .with_documentation(docs.then(|| text(config.documentation)))
    };
    TOPIC_CONFIGS.iter().filter(wanted).map(entry).collect()
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default().with_name(text(name)).with_value(Some(text(value))).with_source(source)
}

/// The broker's settings that tools look at. None can be changed while it runs.
pub(super) fn of_broker(shared: &Shared, listener: &str, only: Option<&[&str]>) -> Vec<DescribeConfigsResourceResult> {
    let settings = &shared.settings;
    let groups = &settings.groups;
    let fixed: Vec<(&str, String, ConfigKind, i8)> = vec![
        ("advertised.listeners", listener.to_owned(), ConfigKind::List, SOURCE_STATIC),
        ("auto.create.topics.enable", settings.auto_create_topics.to_string(), ConfigKind::Boolean, SOURCE_STATIC),
        ("broker.id", shared.storage.node_id().to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("connections.max.idle.ms", settings.idle_timeout.as_millis().to_string(), ConfigKind::Long, SOURCE_STATIC),
        ("default.replication.factor", "1".into(), ConfigKind::Int, SOURCE_DEFAULT),
        ("delete.topic.enable", "true".into(), ConfigKind::Boolean, SOURCE_DEFAULT),
        ("fetch.max.bytes", settings.fetch_bytes_max.to_string(), ConfigKind::Int, SOURCE_STATIC),
        (
            "group.initial.rebalance.delay.ms",
            groups.initial_rebalance_delay_ms.to_string(),
            ConfigKind::Int,
            SOURCE_STATIC,
        ),
        ("group.max.session.timeout.ms", groups.session_timeout_max_ms.to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("group.max.size", groups.members_max.to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("group.min.session.timeout.ms", groups.session_timeout_min_ms.to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("listeners", listener.to_owned(), ConfigKind::List, SOURCE_STATIC),
        ("max.connections", settings.connections_max.to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("node.id", shared.storage.node_id().to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("num.partitions", shared.storage.default_partitions().to_string(), ConfigKind::Int, SOURCE_STATIC),
        ("offset.metadata.max.bytes", groups.offset_metadata_bytes_max.to_string(), ConfigKind::Int, SOURCE_STATIC),
        (
            "offsets.retention.minutes",
            (groups.offsets_retention_ms / 60_000).to_string(),
            ConfigKind::Int,
            SOURCE_STATIC,
        ),
        ("offsets.topic.num.partitions", "1".into(), ConfigKind::Int, SOURCE_DEFAULT),
        ("offsets.topic.replication.factor", "1".into(), ConfigKind::Short, SOURCE_DEFAULT),
        ("socket.request.max.bytes", settings.request_bytes_max.to_string(), ConfigKind::Int, SOURCE_STATIC),
    ];
    // Every topic setting has its default under the broker's name for it; min.insync.replicas and the like.
    let defaults =
        TOPIC_CONFIGS.iter().filter_map(|c| c.synonym.map(|name| (name, c.default.to_owned(), c.kind, SOURCE_DEFAULT)));
    let mut all: Vec<_> = fixed.into_iter().chain(defaults).collect();
    all.retain(|(name, ..)| only.is_none_or(|only| only.contains(name)));
    all.sort_by_key(|(name, ..)| *name);
    all.dedup_by_key(|(name, ..)| *name);
    let entry = |(name, value, kind, source): (&str, String, ConfigKind, i8)| {
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(&value)))
            .with_read_only(true)
            .with_config_source(source)
            .with_config_type(kind as i8)
    };
    all.into_iter().map(entry).collect()
}

//! Settings of topics and of the broker as the APIs about configs show them.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};

use super::k35_describe_log_dirs::DIRECTORY;
use super::{Refusal, Shared};
use crate::configs::{
    ChangedConfigs, ChangedFor, ConfigKind, NUM_PARTITIONS, PRODUCER_ID_EXPIRATION, TOPIC_CONFIGS, TopicConfig,
    changeable, changeable_names, group_configs, throttle_names,
};
use crate::server::ServerSettings;
use crate::storage::{OFFSETS_TOPIC_PARTITIONS, StorageOptions, Topic};
use crate::wire::text;

pub(super) const RESOURCE_TOPIC: i8 = 2;
pub(super) const RESOURCE_BROKER: i8 = 4;
pub(super) const RESOURCE_LOGGER: i8 = 8;
pub(super) const RESOURCE_CLIENT_METRICS: i8 = 16;
pub(super) const RESOURCE_GROUP: i8 = 32;

/// What whoever asks for settings of something else is told.
pub(super) fn without_settings(kind: i8) -> Refusal {
    let why = match kind {
        RESOURCE_LOGGER => {
            "levels of the broker's log are not set by clients; RUST_LOG does it at the start".to_owned()
        }
        RESOURCE_CLIENT_METRICS => "metrics of clients are not collected".to_owned(),
        other => format!("resources of type {other} have no settings"),
    };
    Refusal::new(ResponseError::InvalidRequest, why)
}

/// Where a value comes from, as the protocol numbers it.
pub(super) const SOURCE_TOPIC: i8 = 1;
const SOURCE_NODE: i8 = 2;
const SOURCE_CLUSTER: i8 = 3;
const SOURCE_STATIC: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;
const SOURCE_GROUP: i8 = 8;

fn source_of(changed: ChangedFor) -> i8 {
    match changed {
        ChangedFor::Node => SOURCE_NODE,
        ChangedFor::Cluster => SOURCE_CLUSTER,
    }
}

/// A topic's value of a setting and where it comes from, given what the topic itself says.
pub(super) fn value_of<'a>(
    own: Option<&'a String>,
    config: &'a TopicConfig,
    changed: &'a ChangedConfigs,
) -> (&'a str, i8) {
    if let Some(value) = own {
        return (value, SOURCE_TOPIC);
    }
    let fallback = config.synonym.and_then(|name| changed.values(name).next());
    fallback.map_or((config.default, SOURCE_DEFAULT), |(value, by)| (value, source_of(by)))
}

/// All settings of a topic, or those of the given names.
pub(super) fn of_topic(
    topic: &Topic,
    changed: &ChangedConfigs,
    only: Option<&[&str]>,
    synonyms: bool,
    docs: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let wanted = |config: &&TopicConfig| only.is_none_or(|only| only.contains(&config.name));
    let entry = |config: &TopicConfig| {
        let own = topic.configs.get(config.name);
        let (value, source) = value_of(own, config, changed);
        let mut others = Vec::new();
        if synonyms {
            others.extend(own.map(|value| synonym(config.name, value, SOURCE_TOPIC)));
            let name = config.synonym.unwrap_or(config.name);
            let broad: Vec<_> = changed.values(name).map(|(value, by)| synonym(name, value, source_of(by))).collect();
            let default = by_default(config, !broad.is_empty());
            others.extend(broad);
            others.extend(default.map(|(name, value)| synonym(name, value, SOURCE_DEFAULT)));
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

/// Settings of a broker that are not there unless they are set, and the coarser ones that hold then.
static COARSER: &[(&str, Option<(&str, &str)>)] = &[
    ("log.flush.interval.ms", None),
    ("log.retention.ms", Some(("log.retention.hours", "168"))),
    ("log.roll.jitter.ms", Some(("log.roll.jitter.hours", "0"))),
    ("log.roll.ms", Some(("log.roll.hours", "168"))),
];

fn coarser(name: &str) -> Option<Option<(&'static str, &'static str)>> {
    COARSER.iter().find(|(fine, _)| *fine == name).map(|(_, coarse)| *coarse)
}

/// The broker's setting that a topic's falls back on at last, and its value, as far as Kafka shows them.
fn by_default(config: &TopicConfig, is_set: bool) -> Option<(&'static str, &'static str)> {
    let name = config.synonym?;
    match coarser(name) {
        None => Some((name, config.default)),
        Some(coarse) => coarse.filter(|_| is_set),
    }
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default().with_name(text(name)).with_value(Some(text(value))).with_source(source)
}

/// A setting of the broker as it was at start.
struct Fixed {
    name: &'static str,
    value: Option<String>,
    /// What it would be if nobody had given it; `None` where nobody can.
    default: Option<String>,
    kind: ConfigKind,
    documentation: &'static str,
}

/// What the broker was started with, as far as tools and clients look at it.
fn fixed(shared: &Shared, listener: &str) -> Vec<Fixed> {
    let settings = &shared.settings;
    let (groups, transactions) = (&settings.groups, &settings.transactions);
    let of = ServerSettings::default();
    let (of_groups, of_transactions) = (&of.groups, &of.transactions);
    let of_storage = StorageOptions::new("");
    let set = |name, value: &dyn ToString, default: &dyn ToString, kind, documentation| Fixed {
        name,
        value: Some(value.to_string()),
        default: Some(default.to_string()),
        kind,
        documentation,
    };
    let always = |name, value: &dyn ToString, kind, documentation| Fixed {
        name,
        value: Some(value.to_string()),
        default: None,
        kind,
        documentation,
    };
    let advertised = settings.named.contains(ADVERTISED).then(|| listener.to_owned());
    let int = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    use ConfigKind::{Boolean, Int, List, Long, Short, Str};
    vec![
        Fixed {
            name: ADVERTISED,
            value: advertised,
            default: None,
            kind: Str,
            documentation: "where clients are told to connect; not set, where the server listens",
        },
        set(
            "auto.create.topics.enable",
            &settings.auto_create_topics,
            &of.auto_create_topics,
            Boolean,
            "metadata requests create topics",
        ),
        always("broker.id", &shared.storage.node_id(), Int, "the id of this broker"),
        always(
            "connections.max.idle.ms",
            &settings.idle_timeout.as_millis(),
            Long,
            "idle connections are closed after this",
        ),
        always("controlled.shutdown.enable", &true, Boolean, "the server ends what it is at before it stops"),
        always("default.replication.factor", &1, Int, "replicas of a topic; there is one broker"),
        always("delete.topic.enable", &true, Boolean, "topics can be deleted"),
        set("fetch.max.bytes", &settings.fetch_bytes_max, &of.fetch_bytes_max, Int, "the largest answer to a fetch"),
        set(
            "group.consumer.heartbeat.interval.ms",
            &groups.consumer_heartbeat_interval_ms,
            &of_groups.consumer_heartbeat_interval_ms,
            Int,
            "how often members under the consumer protocol are told to speak",
        ),
        set(
            "group.consumer.max.size",
            &groups.members_max,
            &of_groups.members_max,
            Int,
            "the most members of a group under the consumer protocol",
        ),
        set(
            "group.consumer.session.timeout.ms",
            &groups.consumer_session_timeout_ms,
            &of_groups.consumer_session_timeout_ms,
            Int,
            "how long a member under the consumer protocol may be silent",
        ),
        set(
            "group.initial.rebalance.delay.ms",
            &groups.initial_rebalance_delay_ms,
            &of_groups.initial_rebalance_delay_ms,
            Int,
            "how long the first member of a group waits for others",
        ),
        set(
            "group.max.session.timeout.ms",
            &groups.session_timeout_max_ms,
            &of_groups.session_timeout_max_ms,
            Int,
            "the longest session of a member",
        ),
        set("group.max.size", &groups.members_max, &of_groups.members_max, Int, "the most members of a group"),
        set(
            "group.min.session.timeout.ms",
            &groups.session_timeout_min_ms,
            &of_groups.session_timeout_min_ms,
            Int,
            "the shortest session of a member",
        ),
        set("listeners", &listener, &LISTENERS_DEFAULT, Str, "where the server listens"),
        always("log.dirs", &DIRECTORY, Str, "the one directory of all data, whatever its path is"),
        set(
            "log.retention.check.interval.ms",
            &shared.storage.retention_grace().as_millis(),
            &of_storage.retention_grace.as_millis(),
            Long,
            "nothing is deleted for its age within so long of its append; by size it is looked at more often",
        ),
        always("log.retention.hours", &168, Int, "see log.retention.ms, which holds"),
        set("max.connections", &int(settings.connections_max), &of.connections_max, Int, "the most connections"),
        set(
            "max.connections.per.ip",
            &int(settings.connections_per_address_max),
            &settings.connections_max.div_ceil(2),
            Int,
            "the most connections of one address",
        ),
        set(
            "max.incremental.fetch.session.cache.slots",
            &int(settings.fetch_sessions_max),
            &of.fetch_sessions_max,
            Int,
            "the most fetch sessions that are kept",
        ),
        always("node.id", &shared.storage.node_id(), Int, "the id of this broker"),
        set(
            "offset.metadata.max.bytes",
            &groups.offset_metadata_max,
            &of_groups.offset_metadata_max,
            Int,
            "the longest text with an offset",
        ),
        set(
            "offsets.retention.minutes",
            &(groups.offsets_retention_ms / 60_000),
            &(of_groups.offsets_retention_ms / 60_000),
            Int,
            "how long offsets of a group without members are kept",
        ),
        always(
            "offsets.topic.num.partitions",
            &OFFSETS_TOPIC_PARTITIONS,
            Int,
            "partitions of \"__consumer_offsets\", which is there once somebody asked for it",
        ),
        always("offsets.topic.replication.factor", &1, Short, "replicas of \"__consumer_offsets\""),
        always("process.roles", &"broker,controller", List, "what this server is"),
        set(
            "socket.request.max.bytes",
            &int(settings.request_bytes_max),
            &of.request_bytes_max,
            Int,
            "the largest request",
        ),
        set(
            "transaction.max.timeout.ms",
            &transactions.timeout_max_ms,
            &of_transactions.timeout_max_ms,
            Int,
            "the longest timeout of a transaction",
        ),
        always("transaction.state.log.num.partitions", &1, Int, "no effect here; transactions are not in a topic"),
        always(
            "transaction.state.log.replication.factor",
            &1,
            Short,
            "no effect here; transactions are not in a topic",
        ),
        set(
            "transactional.id.expiration.ms",
            &transactions.expiration_ms,
            &of_transactions.expiration_ms,
            Int,
            "a transactional id that nobody used for so long is forgotten",
        ),
    ]
}

const ADVERTISED: &str = "advertised.listeners";
const LISTENERS_DEFAULT: &str = "PLAINTEXT://127.0.0.1:9092";

/// What can be changed while the broker runs and was given at start, where no topic falls back on it.
fn started(shared: &Shared, name: &str) -> Option<String> {
    match name {
        NUM_PARTITIONS => Some(shared.storage.started_partitions().to_string()),
        PRODUCER_ID_EXPIRATION => Some(shared.storage.started_producer_expiration().as_millis().to_string()),
        _ => None,
    }
}

/// The broker's settings: those that can be changed while it runs, which are what topics fall back on, and others that
/// tools and clients look at. What nobody has given is told as a default.
pub(super) fn of_broker(
    shared: &Shared,
    listener: &str,
    only: Option<&[&str]>,
    synonyms: bool,
    docs: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let changed = shared.storage.broker_configs();
    let given = |name: &str| shared.settings.named.contains(name);
    let fixed = fixed(shared, listener).into_iter().map(|fixed| {
        let mut values = Vec::new();
        let source = if given(fixed.name) { SOURCE_STATIC } else { SOURCE_DEFAULT };
        values.extend(fixed.value.as_ref().map(|value| synonym(fixed.name, value, source)));
        if source == SOURCE_STATIC {
            values.extend(fixed.default.as_ref().map(|value| synonym(fixed.name, value, SOURCE_DEFAULT)));
        }
        DescribeConfigsResourceResult::default()
            .with_name(text(fixed.name))
            .with_value(fixed.value.as_deref().map(text))
            .with_read_only(true)
            .with_config_source(source)
            .with_synonyms(if synonyms { values } else { Vec::new() })
            .with_config_type(fixed.kind as i8)
            .with_documentation(docs.then(|| text(fixed.documentation)))
    });
    let throttles = throttle_names().filter(|name| changed.values(name).next().is_some());
    let changeable =
        changeable_names().chain(throttles).filter_map(|name| Some((name, changeable(name)?))).map(|(name, config)| {
            let started = started(shared, name);
            let changes = changed.values(name).map(|(value, by)| (name, value, source_of(by)));
            let mut values: Vec<(&str, &str, i8)> = changes.collect();
            let is_set = !values.is_empty();
            match &started {
                Some(value) if given(name) => {
                    values.extend([(name, value.as_str(), SOURCE_STATIC), (name, config.default, SOURCE_DEFAULT)]);
                }
                Some(value) => values.push((name, value, SOURCE_DEFAULT)),
                None => values.extend(by_default(config, is_set).map(|(name, value)| (name, value, SOURCE_DEFAULT))),
            }
            let value = values.first().map(|(_, value, _)| text(value));
            let source = values.first().map_or(SOURCE_DEFAULT, |(.., source)| *source);
            let others = values.iter().map(|(name, value, source)| synonym(name, value, *source));
            DescribeConfigsResourceResult::default()
                .with_name(text(name))
                .with_value(value)
                .with_config_source(source)
                .with_synonyms(if synonyms { others.collect() } else { Vec::new() })
                .with_config_type(config.kind as i8)
                .with_documentation(docs.then(|| text(config.documentation)))
        });
    let mut all: Vec<_> = fixed.chain(changeable).collect();
    all.retain(|entry| only.is_none_or(|only| only.contains(&entry.name.as_str())));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
}

/// What was changed for all brokers.
pub(super) fn of_cluster(
    shared: &Shared,
    only: Option<&[&str]>,
    synonyms: bool,
    docs: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let changed = shared.storage.broker_configs();
    let wanted = changed.cluster.iter().filter(|(name, _)| only.is_none_or(|only| only.contains(&name.as_str())));
    let entries = wanted.filter_map(|(name, value)| Some((name, value, changeable(name)?)));
    let entries = entries.map(|(name, value, config)| {
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_config_source(SOURCE_CLUSTER)
            .with_synonyms(if synonyms { vec![synonym(name, value, SOURCE_CLUSTER)] } else { Vec::new() })
            .with_config_type(config.kind as i8)
            .with_documentation(docs.then(|| text(config.documentation)))
    });
    entries.collect()
}

/// Settings of a group, which need not be there.
pub(super) fn of_group(
    shared: &Shared,
    group: &str,
    only: Option<&[&str]>,
    synonyms: bool,
    docs: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let own = shared.groups.configs(group);
    let all = group_configs(&shared.settings.groups);
    let entries =
        all.filter(|(config, _)| only.is_none_or(|only| only.contains(&config.name))).map(|(config, broad)| {
            let set = own.get(config.name);
            let values = match set {
                Some(value) => vec![synonym(config.name, value, SOURCE_GROUP)],
                None => vec![synonym(config.name, &broad, SOURCE_DEFAULT)],
            };
            DescribeConfigsResourceResult::default()
                .with_name(text(config.name))
                .with_value(Some(text(set.unwrap_or(&broad))))
                .with_config_source(if set.is_some() { SOURCE_GROUP } else { SOURCE_DEFAULT })
                .with_synonyms(if synonyms { values } else { Vec::new() })
                .with_config_type(config.kind as i8)
                .with_documentation(docs.then(|| text(config.documentation)))
        });
    entries.collect()
}

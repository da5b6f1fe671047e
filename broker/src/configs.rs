//! Topic settings by Kafka's names: the table that answers DescribeConfigs, the checks, and their typed form.
//!
//! Not here: where they are kept (`storage`), settings of the broker that are as they were at start. Every setting that Kafka knows is accepted
//! and reported; those that have no meaning for this log say so in their text.

mod changed;
mod group;

use std::collections::BTreeMap;

pub use self::changed::{
    ChangedConfigs, ChangedFor, NUM_PARTITIONS, PRODUCER_ID_EXPIRATION, changeable, changeable_names, throttle_names,
};
pub use self::group::{
    GroupConfigs, HEARTBEAT_INTERVAL, SESSION_TIMEOUT, check_group_configs, decode_group_configs, encode_group_configs,
    group_config, group_configs, group_number,
};
use crate::batch::{Codec, Compression, TimestampType};

/// Types as DescribeConfigs numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigKind {
    Boolean = 1,
    Str = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
}

/// What values are allowed beyond the type.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Allowed {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    Fraction,
    OneOf(&'static [&'static str]),
    /// Several of these, separated by commas.
    SomeOf(&'static [&'static str]),
    /// Pairs `partition:broker`, or `*`.
    Replicas,
    /// 1 to 9, or -1 for the codec's own.
    Level,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicConfig {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: ConfigKind,
    /// The broker setting whose value is the default in Kafka.
    pub synonym: Option<&'static str>,
    pub documentation: &'static str,
    allowed: Allowed,
}

const fn config(
    name: &'static str,
    default: &'static str,
    kind: ConfigKind,
    synonym: Option<&'static str>,
    allowed: Allowed,
    documentation: &'static str,
) -> TopicConfig {
    TopicConfig { name, default, kind, synonym, documentation, allowed }
}

use Allowed::{Any, AtLeast, Between, Fraction, Level, OneOf, Replicas, SomeOf};
use ConfigKind::{Boolean, Double, Int, List, Long, Str};

const I32: i64 = i32::MAX as i64;

/// By name.
pub static TOPIC_CONFIGS: &[TopicConfig] = &[
    config(
        "cleanup.policy",
        "delete",
        List,
        Some("log.cleanup.policy"),
        SomeOf(&["compact", "delete"]),
        "what happens to old records: deleted, kept only as the latest of each key, or both",
    ),
    config(
        "compression.gzip.level",
        "-1",
        Int,
        Some("compression.gzip.level"),
        Level,
        "how hard gzip tries where it is the topic's codec and not the producer's; -1 is its default",
    ),
    config(
        "compression.lz4.level",
        "9",
        Int,
        Some("compression.lz4.level"),
        Between(1, 17),
        "how hard lz4 tries where it is the topic's codec and not the producer's; 9, the default, is its fast way",
    ),
    config(
        "compression.type",
        "producer",
        Str,
        Some("compression.type"),
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "the codec that batches are kept in; \"producer\" keeps each as it was sent",
    ),
    config(
        "compression.zstd.level",
        "3",
        Int,
        Some("compression.zstd.level"),
        Between(-131_072, 22),
        "how hard zstd tries where it is the topic's codec and not the producer's",
    ),
    config(
        "delete.retention.ms",
        "86400000",
        Long,
        Some("log.cleaner.delete.retention.ms"),
        AtLeast(0),
        "how long deletion markers of a compacted topic are kept after they were first compacted",
    ),
    config("file.delete.delay.ms", "60000", Long, Some("log.segment.delete.delay.ms"), AtLeast(0), "no effect here"),
    config(
        "flush.messages",
        "9223372036854775807",
        Long,
        Some("log.flush.interval.messages"),
        AtLeast(1),
        "no effect here; durability is a setting of the whole log",
    ),
    config(
        "flush.ms",
        "9223372036854775807",
        Long,
        Some("log.flush.interval.ms"),
        AtLeast(0),
        "no effect here; durability is a setting of the whole log",
    ),
    config(
        "follower.replication.throttled.replicas",
        "",
        List,
        None,
        Replicas,
        "no effect here; there are no followers",
    ),
    config("index.interval.bytes", "4096", Int, Some("log.index.interval.bytes"), AtLeast(0), "no effect here"),
    config("leader.replication.throttled.replicas", "", List, None, Replicas, "no effect here; there are no followers"),
    config("local.retention.bytes", "-2", Long, Some("log.local.retention.bytes"), AtLeast(-2), "no effect here"),
    config("local.retention.ms", "-2", Long, Some("log.local.retention.ms"), AtLeast(-2), "no effect here"),
    config(
        "max.compaction.lag.ms",
        "9223372036854775807",
        Long,
        Some("log.cleaner.max.compaction.lag.ms"),
        AtLeast(1),
        "the longest time that a record stays uncompacted",
    ),
    config(
        "max.message.bytes",
        "1048588",
        Int,
        Some("message.max.bytes"),
        AtLeast(0),
        "the largest record batch that is accepted",
    ),
    config("message.downconversion.enable", "true", Boolean, None, Any, "no effect here; version 2 is always served"),
    config(
        "message.format.version",
        "3.0-IV1",
        Str,
        Some("log.message.format.version"),
        Any,
        "no effect here; batches are of version 2",
    ),
    config(
        "message.timestamp.after.max.ms",
        "3600000",
        Long,
        Some("log.message.timestamp.after.max.ms"),
        AtLeast(0),
        "how far a record's timestamp may lie in the future",
    ),
    config(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        Long,
        Some("log.message.timestamp.before.max.ms"),
        AtLeast(0),
        "how far a record's timestamp may lie in the past",
    ),
    config(
        "message.timestamp.difference.max.ms",
        "9223372036854775807",
        Long,
        Some("log.message.timestamp.difference.max.ms"),
        AtLeast(0),
        "older form of the two settings before and after; used where they are not set",
    ),
    config(
        "message.timestamp.type",
        "CreateTime",
        Str,
        Some("log.message.timestamp.type"),
        OneOf(&["CreateTime", "LogAppendTime"]),
        "whether a record's timestamp is the producer's or the log's",
    ),
    config(
        "min.cleanable.dirty.ratio",
        "0.5",
        Double,
        Some("log.cleaner.min.cleanable.ratio"),
        Fraction,
        "how much of a log must be uncompacted before it is compacted",
    ),
    config(
        "min.compaction.lag.ms",
        "0",
        Long,
        Some("log.cleaner.min.compaction.lag.ms"),
        AtLeast(0),
        "the shortest time that a record stays uncompacted",
    ),
    config(
        "min.insync.replicas",
        "1",
        Int,
        Some("min.insync.replicas"),
        AtLeast(1),
        "how many replicas must have a record, of those that there are; there is one here",
    ),
    config("preallocate", "false", Boolean, Some("log.preallocate"), Any, "no effect here"),
    config("remote.log.copy.disable", "false", Boolean, None, Any, "no effect here; there is no remote storage"),
    config("remote.log.delete.on.disable", "false", Boolean, None, Any, "no effect here; there is no remote storage"),
    config("remote.storage.enable", "false", Boolean, None, OneOf(&["false"]), "there is no remote storage"),
    config(
        "retention.bytes",
        "-1",
        Long,
        Some("log.retention.bytes"),
        AtLeast(-1),
        "how much of a partition is kept; -1 is all",
    ),
    config(
        "retention.ms",
        "604800000",
        Long,
        Some("log.retention.ms"),
        AtLeast(-1),
        "how long records are kept; -1 is for ever",
    ),
    config(
        "segment.bytes",
        "1073741824",
        Int,
        Some("log.segment.bytes"),
        Between(14, I32),
        "the largest batch that is accepted, and about how much of the newest is neither compacted nor deleted",
    ),
    config("segment.index.bytes", "10485760", Int, Some("log.index.size.max.bytes"), AtLeast(4), "no effect here"),
    config("segment.jitter.ms", "0", Long, Some("log.roll.jitter.ms"), AtLeast(0), "no effect here"),
    config(
        "segment.ms",
        "604800000",
        Long,
        Some("log.roll.ms"),
        AtLeast(1),
        "after how long what was appended may be compacted or deleted apart from what comes later",
    ),
    config(
        "unclean.leader.election.enable",
        "false",
        Boolean,
        Some("unclean.leader.election.enable"),
        Any,
        "no effect here; there is one replica",
    ),
];

pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|c| c.name == name)
}

/// As Java's `Double.toString` writes it: at least one digit behind the point, and an exponent below a thousandth and from ten
/// millions on.
fn plain_double(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) || !value.is_finite() {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

impl TopicConfig {
    /// A value as it is kept and shown: without blanks around it or its parts, numbers as they are read.
    pub fn plain(&self, value: &str) -> String {
        let value = value.trim();
        match self.kind {
            Boolean => value.to_ascii_lowercase(),
            Int | ConfigKind::Short | Long => {
                value.parse::<i64>().map_or_else(|_| value.to_owned(), |number| number.to_string())
            }
            List => value.split(',').map(str::trim).collect::<Vec<_>>().join(","),
            Double => value.parse().map_or_else(|_| value.to_owned(), plain_double),
            Str => value.to_owned(),
        }
    }

    /// Says what is wrong with a value.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let wrong = |right: String| Err(format!("\"{}\" cannot be \"{value}\": it must be {right}", self.name));
        let listed = |all: &[&str]| all.iter().map(|v| format!("\"{v}\"")).collect::<Vec<_>>().join(", ");
        match self.kind {
            Boolean if !["true", "false"].iter().any(|right| right.eq_ignore_ascii_case(value.trim())) => {
                return wrong("\"true\" or \"false\"".into());
            }
            Int if value.trim().parse::<i32>().is_err() => return wrong("a whole number of 32 bits".into()),
            Long if value.trim().parse::<i64>().is_err() => return wrong("a whole number of 64 bits".into()),
            Double if value.trim().parse::<f64>().is_err() => return wrong("a number".into()),
            _ => {}
        }
        let number = value.trim().parse::<i64>().unwrap_or_default();
        match self.allowed {
            Any => Ok(()),
            AtLeast(low) if number < low => wrong(format!("{low} or more")),
            Between(low, high) if !(low..=high).contains(&number) => wrong(format!("between {low} and {high}")),
            Fraction if !value.trim().parse::<f64>().is_ok_and(|f| (0.0..=1.0).contains(&f)) => {
                wrong("between 0 and 1".into())
            }
            OneOf(all) if !all.contains(&value) => wrong(format!("one of {}", listed(all))),
            SomeOf(all) if list_of(value).iter().any(|v| !all.contains(v)) => {
                wrong(format!("some of {}, separated by commas", listed(all)))
            }
            Replicas if value != "*" && !list_of(value).iter().all(|pair| is_replica(pair)) => {
                wrong("\"*\" or pairs of partition and broker such as \"0:1\"".into())
            }
            Level if number != -1 && !(1..=9).contains(&number) => wrong("between 1 and 9, or -1".into()),
            AtLeast(_) | Between(..) | Fraction | OneOf(_) | SomeOf(_) | Replicas | Level => Ok(()),
        }
    }
}

fn list_of(value: &str) -> Vec<&str> {
    value.split(',').map(str::trim).filter(|v| !v.is_empty()).collect()
}

fn is_replica(pair: &str) -> bool {
    pair.split_once(':').is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok())
}

/// Brings a topic's settings into the form in which they are kept; those that there are not stay as they are.
pub fn plain_topic_configs(configs: &mut BTreeMap<String, String>) {
    for (name, value) in configs {
        if let Some(config) = topic_config(name) {
            *value = config.plain(value);
        }
    }
}

/// The settings of a topic that the log acts on.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSettings {
    pub compacted: bool,
    pub deleted: bool,
    /// `None`: as the producer chose.
    pub compression: Option<Compression>,
    pub batch_bytes_max: usize,
    pub segment_bytes: usize,
    pub segment_ms: i64,
    pub delete_retention_ms: i64,
    pub compaction_lag_min_ms: i64,
    pub compaction_lag_max_ms: i64,
    /// How much of a log must be uncompacted, 0 to 1.
    pub dirty_ratio_min: f64,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// `None`: for ever.
    pub retention_ms: Option<i64>,
    /// `None`: all.
    pub retention_bytes: Option<u64>,
}

/// As [`topic_settings`] where nothing was changed; also checks settings against each other.
pub fn check_topic_configs(configs: &BTreeMap<String, String>) -> Result<TopicSettings, String> {
    let settings = topic_settings(configs, &ChangedConfigs::default())?;
    let (low, high) = (settings.compaction_lag_min_ms, settings.compaction_lag_max_ms);
    if low > high {
        return Err(format!(
            "\"min.compaction.lag.ms\" is {low}, more than \"max.compaction.lag.ms\", which is {high}"
        ));
    }
    Ok(settings)
}

/// Checks settings by name and value, and reads those that the log acts on.
pub fn topic_settings(configs: &BTreeMap<String, String>, changed: &ChangedConfigs) -> Result<TopicSettings, String> {
    for (name, value) in configs {
        topic_config(name).ok_or_else(|| format!("there is no topic setting \"{name}\""))?.check(value)?;
    }
    let text = |name: &str| match configs.get(name) {
        Some(value) => value.as_str(),
        None => topic_config(name).map_or("", |c| changed.default_of(c)),
    };
    let number = |name: &str| text(name).trim().parse::<i64>().unwrap_or_default();
    let timestamp_max = |name: &str| match configs.get("message.timestamp.difference.max.ms") {
        Some(both) if !configs.contains_key(name) => both.trim().parse().unwrap_or(i64::MAX),
        _ => number(name),
    };
    let policy = list_of(text("cleanup.policy"));
    Ok(TopicSettings {
        compacted: policy.contains(&"compact"),
        deleted: policy.contains(&"delete"),
        compression: Codec::by_name(text("compression.type")).map(|codec| {
            let level = match codec {
                Codec::Gzip => Some("compression.gzip.level"),
                Codec::Lz4 => Some("compression.lz4.level"),
                Codec::Zstd => Some("compression.zstd.level"),
                Codec::None | Codec::Snappy => None,
            };
            Compression { codec, level: level.and_then(|name| i32::try_from(number(name)).ok()) }
        }),
        batch_bytes_max: number("max.message.bytes").max(0) as usize,
        segment_bytes: number("segment.bytes").max(0) as usize,
        segment_ms: number("segment.ms"),
        delete_retention_ms: number("delete.retention.ms"),
        compaction_lag_min_ms: number("min.compaction.lag.ms"),
        compaction_lag_max_ms: number("max.compaction.lag.ms"),
        dirty_ratio_min: text("min.cleanable.dirty.ratio").trim().parse().unwrap_or(0.5),
        timestamp_type: match text("message.timestamp.type") {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: timestamp_max("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: timestamp_max("message.timestamp.after.max.ms"),
        retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
        retention_bytes: u64::try_from(number("retention.bytes")).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_their_own_checks_and_names_are_sorted() {
        for config in TOPIC_CONFIGS {
            assert_eq!(config.check(config.default), Ok(()), "{}", config.name);
        }
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|c| c.name));
    }

    #[test]
    fn values_are_kept_without_blanks() {
        for (name, value, plain) in PLAIN {
            let mut configs = BTreeMap::from([((*name).to_owned(), (*value).to_owned())]);
            plain_topic_configs(&mut configs);
            assert_eq!(configs[*name], *plain, "{name}");
        }
    }

    const PLAIN: &[(&str, &str, &str)] = &[
        ("retention.ms", " 7 ", "7"),
        ("retention.bytes", "\t-1", "-1"),
        ("segment.bytes", "+0500", "500"),
        ("segment.ms", " soon ", "soon"),
        ("preallocate", " TRUE", "true"),
        ("cleanup.policy", " compact , delete ", "compact,delete"),
        ("compression.type", " zstd ", "zstd"),
        ("min.cleanable.dirty.ratio", " 0.50 ", "0.5"),
        ("min.cleanable.dirty.ratio", "1e-1", "0.1"),
        ("min.cleanable.dirty.ratio", "1", "1.0"),
        ("min.cleanable.dirty.ratio", "0", "0.0"),
        ("min.cleanable.dirty.ratio", "0.00012", "1.2E-4"),
        ("min.cleanable.dirty.ratio", "0.0001", "1.0E-4"),
        ("min.cleanable.dirty.ratio", "half", "half"),
        ("no.such.setting", " 1 ", " 1 "),
    ];

    #[test]
    fn settings_are_read_and_refused() {
        let check = |pairs: &[(&str, &str)]| {
            check_topic_configs(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let defaults = check(&[]).unwrap();
        assert_eq!((defaults.compacted, defaults.deleted, defaults.compression), (false, true, None));
        assert_eq!((defaults.batch_bytes_max, defaults.retention_bytes), (1_048_588, None));
        let both = check(&[("cleanup.policy", "compact, delete"), ("retention.ms", "-1")]).unwrap();
        assert_eq!((both.compacted, both.deleted, both.retention_ms), (true, true, None));
        let level = |pairs: &[(&str, &str)]| check(pairs).unwrap().compression.map(|c| (c.codec, c.level));
        let gzip = ("compression.gzip.level", "7");
        assert_eq!(level(&[gzip, ("compression.type", "gzip")]), Some((Codec::Gzip, Some(7))));
        assert_eq!(level(&[gzip, ("compression.type", "zstd")]), Some((Codec::Zstd, Some(3))));
        assert_eq!((level(&[gzip]), level(&[("compression.type", "snappy")])), (None, Some((Codec::Snappy, None))));
        let older = check(&[("message.timestamp.difference.max.ms", "5")]).unwrap();
        assert_eq!((older.timestamp_before_max_ms, older.timestamp_after_max_ms), (5, 5));
        let neither =
            check(&[("cleanup.policy", ""), ("preallocate", "TRUE"), ("compression.gzip.level", "-1")]).unwrap();
        assert_eq!((neither.compacted, neither.deleted), (false, false));
        assert!(check(&[("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")]).is_err());
        for (name, value) in [
            ("no.such.setting", "1"),
            ("cleanup.policy", "shred"),
            ("compression.gzip.level", "0"),
            ("compression.type", "none"),
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("preallocate", "yes"),
            ("remote.storage.enable", "true"),
        ] {
            assert!(check(&[(name, value)]).is_err(), "{name}={value}");
        }
    }
}

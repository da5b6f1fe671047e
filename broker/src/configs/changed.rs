//! Settings of the broker that were changed while it runs, for this broker or for all there are.
//!
//! What can be changed is what a topic's setting falls back on, how many partitions a topic gets, when idle producers
//! are forgotten, and how fast replicas are copied, which tools set around their work; the rest is as it was at start. Who asks for a value gets this broker's before that of all brokers.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::{Allowed, ConfigKind, TOPIC_CONFIGS, TopicConfig};
use crate::keys::{Fields, put_text};
use crate::storage::TOPIC_PARTITIONS_MAX;

const VERSION: u8 = 1;
pub const NUM_PARTITIONS: &str = "num.partitions";

static PARTITIONS: TopicConfig = TopicConfig {
    name: NUM_PARTITIONS,
    default: "1",
    kind: ConfigKind::Int,
    synonym: None,
    documentation: "partitions of a topic whose creator does not say",
    allowed: Allowed::Between(1, TOPIC_PARTITIONS_MAX as i64),
};

pub const PRODUCER_ID_EXPIRATION: &str = "producer.id.expiration.ms";

static PRODUCER_EXPIRATION: TopicConfig = TopicConfig {
    name: PRODUCER_ID_EXPIRATION,
    default: "86400000",
    kind: ConfigKind::Int,
    synonym: None,
    documentation: "an idempotent producer that appended nothing to a partition for so long is forgotten there",
    allowed: Allowed::AtLeast(1),
};

const fn throttle(name: &'static str) -> TopicConfig {
    TopicConfig {
        name,
        default: "9223372036854775807",
        kind: ConfigKind::Long,
        synonym: None,
        documentation: "no effect here; there are no replicas to copy",
        allowed: Allowed::AtLeast(0),
    }
}

static LEADER_THROTTLE: TopicConfig = throttle("leader.replication.throttled.rate");
static FOLLOWER_THROTTLE: TopicConfig = throttle("follower.replication.throttled.rate");
static LOG_DIRS_THROTTLE: TopicConfig = throttle("replica.alter.log.dirs.io.max.bytes.per.second");

/// What `kafka-reassign-partitions --throttle` sets, and takes back when it is done. Nobody is told of it but where it is set.
static THROTTLES: [&TopicConfig; 3] = [&LEADER_THROTTLE, &FOLLOWER_THROTTLE, &LOG_DIRS_THROTTLE];

/// What can be changed though no topic falls back on it.
static OF_BROKER: [&TopicConfig; 2] = [&PARTITIONS, &PRODUCER_EXPIRATION];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedConfigs {
    /// For every broker.
    pub cluster: BTreeMap<String, String>,
    /// For this one.
    pub node: BTreeMap<String, String>,
}

/// For whom a setting was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedFor {
    Node,
    Cluster,
}

/// The rules of a broker's setting that can be changed while it runs.
pub fn changeable(name: &str) -> Option<&'static TopicConfig> {
    let of_broker = OF_BROKER.into_iter().chain(THROTTLES).find(|config| config.name == name);
    of_broker.or_else(|| TOPIC_CONFIGS.iter().find(|config| config.synonym == Some(name)))
}

/// The names of all that can be changed while the broker runs and has a value before.
pub fn changeable_names() -> impl Iterator<Item = &'static str> {
    TOPIC_CONFIGS.iter().filter_map(|config| config.synonym).chain(OF_BROKER.into_iter().map(|config| config.name))
}

/// The names of those that have no value until one is set.
pub fn throttle_names() -> impl Iterator<Item = &'static str> {
    THROTTLES.into_iter().map(|config| config.name)
}

impl ChangedConfigs {
    /// All values of a setting, the one that holds first.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, ChangedFor)> + use<'a> {
        let node = self.node.get(name).map(|value| (value.as_str(), ChangedFor::Node));
        let cluster = self.cluster.get(name).map(|value| (value.as_str(), ChangedFor::Cluster));
        node.into_iter().chain(cluster)
    }

    /// What a topic falls back on that does not have the setting itself.
    pub fn default_of<'a>(&'a self, config: &'a TopicConfig) -> &'a str {
        let changed = config.synonym.and_then(|name| self.values(name).next());
        changed.map_or(config.default, |(value, _)| value)
    }

    pub fn partitions(&self) -> Option<i32> {
        self.number(NUM_PARTITIONS)
    }

    pub fn producer_expiration(&self) -> Option<Duration> {
        self.number(PRODUCER_ID_EXPIRATION).map(Duration::from_millis)
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.values(name).next().and_then(|(value, _)| value.trim().parse().ok())
    }

    /// Says what cannot be.
    pub fn check(&self) -> Result<(), String> {
        for (name, value) in self.cluster.iter().chain(&self.node) {
            let config = changeable(name)
                .ok_or_else(|| format!("the broker's setting \"{name}\" cannot be changed while it runs"))?;
            config.check(value).map_err(|e| e.replacen(config.name, name, 1))?;
        }
        Ok(())
    }

    /// Version u8, then for all brokers and for this one: u32 and pairs of texts.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for configs in [&self.cluster, &self.node] {
            out.extend_from_slice(&(configs.len() as u32).to_be_bytes());
            for (name, value) in configs {
                put_text(&mut out, name);
                put_text(&mut out, value);
            }
        }
        out
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != VERSION {
            return None;
        }
        let mut read = || {
            let mut configs = BTreeMap::new();
            for _ in 0..fields.u32()? {
                configs.insert(fields.text()?.to_owned(), fields.text()?.to_owned());
            }
            Some(configs)
        };
        Some(Self { cluster: read()?, node: read()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_brokers_come_before_all_brokers() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let changed = ChangedConfigs {
            cluster: of(&[("log.retention.ms", "5"), ("num.partitions", "3")]),
            node: of(&[("log.retention.ms", "7")]),
        };
        let retention = super::super::topic_config("retention.ms").unwrap();
        assert_eq!((changed.default_of(retention), changed.partitions()), ("7", Some(3)));
        assert_eq!(changed.check(), Ok(()));
        let stored = changed.encode();
        assert_eq!(ChangedConfigs::decode(&stored), Some(changed));
        for cut in 0..stored.len() {
            assert_eq!(ChangedConfigs::decode(&stored[..cut]), None);
        }
        for (name, value) in [
            ("log.retention.ms", "-2"),
            ("num.partitions", "0"),
            ("producer.id.expiration.ms", "0"),
            ("broker.id", "7"),
            ("nonsense", "1"),
        ] {
            assert!(ChangedConfigs { node: of(&[(name, value)]), ..Default::default() }.check().is_err(), "{name}");
        }
    }
}

//! Topics in memory and how they are stored; the checks of new ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millpond_types::ports::{TopicInfo, TopicSpec, is_internal};
use millpond_types::{PartitionId, TopicId};

use super::error::StorageError;
use super::partition::Partition;
use crate::configs::{TopicSettings, check_topic_configs, plain_topic_configs};
use crate::keys::{Fields, put_text};

const VERSION: u8 = 1;
const NAME_LEN_MAX: usize = 249;

/// One incarnation of a topic. Changing its settings or partitions makes another value with the same partitions.
#[derive(Debug)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub replicas: i16,
    /// Settings that were given; the others have their defaults.
    pub configs: BTreeMap<String, String>,
    pub settings: TopicSettings,
    pub(super) partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }

    pub fn info(&self) -> TopicInfo {
        TopicInfo {
            id: self.id,
            name: self.name.clone(),
            partitions: self.partition_count(),
            replicas: self.replicas,
            configs: self.configs.clone(),
        }
    }

    pub(super) fn partition(&self, partition: PartitionId) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    pub(super) fn stored(&self) -> StoredTopic {
        StoredTopic {
            name: self.name.clone(),
            replicas: self.replicas,
            configs: self.configs.clone(),
            uids: self.partitions.iter().map(|p| p.uid).collect(),
        }
    }
}

#[derive(Debug, Default)]
pub struct TopicTable {
    pub by_name: BTreeMap<String, Arc<Topic>>,
    pub by_id: HashMap<TopicId, Arc<Topic>>,
    /// Counts changes since the start.
    pub version: u64,
}

impl TopicTable {
    pub fn insert(&mut self, topic: Arc<Topic>) {
        self.version += 1;
        for partition in &topic.partitions {
            partition.obey(&topic.settings);
        }
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    pub fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.version += 1;
        self.by_name.remove(&topic.name);
        Some(topic)
    }

    pub fn partition_count(&self) -> usize {
        self.by_id.values().map(|t| t.partitions.len()).sum()
    }

    /// Checks a new topic against those that are there.
    pub fn check_new(&self, name: &str) -> Result<(), StorageError> {
        check_name(name)?;
        if self.by_name.contains_key(name) {
            return Err(StorageError::TopicExists(name.to_owned()));
        }
        // Kafka's metrics cannot tell these apart, so its clients expect them to be refused.
        let folded = name.replace('.', "_");
        if name.contains(['.', '_'])
            && let Some(other) = self.by_name.keys().find(|n| n.replace('.', "_") == folded)
        {
            return Err(StorageError::InvalidTopic(format!("topic \"{name}\" collides with topic \"{other}\"")));
        }
        Ok(())
    }
}

pub fn check_name(name: &str) -> Result<(), StorageError> {
    let right = "a topic's name has 1 to 249 letters, digits, dots, underscores and hyphens";
    let legal = !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if legal { Ok(()) } else { Err(StorageError::InvalidTopic(format!("topic \"{name}\" is not possible: {right}"))) }
}

/// A checked specification with its defaults filled in.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub spec: TopicSpec,
}

impl NewTopic {
    /// All checks that do not depend on other topics.
    pub fn check(mut spec: TopicSpec, partitions_default: i32, partitions_max: i32) -> Result<Self, StorageError> {
        check_name(&spec.name)?;
        if is_internal(&spec.name) {
            let message = format!("topic \"{}\" is internal: it is not for clients to create", spec.name);
            return Err(StorageError::InvalidTopic(message));
        }
        if spec.partitions == -1 {
            spec.partitions = partitions_default;
        }
        if spec.replicas == -1 {
            spec.replicas = 1;
        }
        if spec.partitions < 1 || spec.partitions > partitions_max {
            return Err(StorageError::InvalidPartitions(format!(
                "topic \"{}\" cannot have {} partitions: it must be between 1 and {partitions_max}",
                spec.name, spec.partitions
            )));
        }
        if spec.replicas < 1 {
            return Err(StorageError::InvalidReplicationFactor(format!(
                "topic \"{}\" cannot have {} replicas",
                spec.name, spec.replicas
            )));
        }
        plain_topic_configs(&mut spec.configs);
        check_topic_configs(&spec.configs).map_err(StorageError::InvalidConfig)?;
        Ok(Self { spec })
    }
}

/// A topic's value: version u8, name, replicas i16, settings (u32 and pairs of texts), partition uids u64 to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTopic {
    pub name: String,
    pub replicas: i16,
    pub configs: BTreeMap<String, String>,
    pub uids: Vec<u64>,
}

impl StoredTopic {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_text(&mut out, &self.name);
        out.extend_from_slice(&self.replicas.to_be_bytes());
        out.extend_from_slice(&(self.configs.len() as u32).to_be_bytes());
        for (name, value) in &self.configs {
            put_text(&mut out, name);
            put_text(&mut out, value);
        }
        for uid in &self.uids {
            out.extend_from_slice(&uid.to_be_bytes());
        }
        out
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != VERSION {
            return None;
        }
        let name = fields.text()?.to_owned();
        let replicas = fields.i16()?;
        let mut configs = BTreeMap::new();
        for _ in 0..fields.u32()? {
            configs.insert(fields.text()?.to_owned(), fields.text()?.to_owned());
        }
        let mut uids = Vec::new();
        while !fields.0.is_empty() {
            uids.push(fields.u64()?);
        }
        Some(Self { name, replicas, configs, uids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_survives_the_round_trip() {
        let topic = StoredTopic {
            name: "t".into(),
            replicas: 3,
            configs: [("a".to_owned(), "b".to_owned())].into(),
            uids: vec![1, u64::MAX],
        };
        let value = topic.encode();
        assert_eq!(StoredTopic::decode(&value), Some(topic));
        for cut in 0..value.len() {
            let _ = StoredTopic::decode(&value[..cut]);
        }
    }

    #[test]
    fn names_are_kafkas() {
        for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

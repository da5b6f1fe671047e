//! What a cluster has: brokers, topics, and who leads which partition.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use uuid::Uuid;

use super::settings::Address;

#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub cluster: Option<String>,
    pub controller: Option<i32>,
    pub brokers: HashMap<i32, Address>,
    pub topics: BTreeMap<String, Topic>,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub id: Option<Uuid>,
    pub error: Option<ResponseError>,
    pub internal: bool,
    pub partitions: BTreeMap<i32, Partition>,
}

#[derive(Clone, Debug)]
pub struct Partition {
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

impl Metadata {
    pub fn of(answer: &MetadataResponse) -> Self {
        let some = |id: i32| (id >= 0).then_some(id);
        let brokers = answer.brokers.iter().filter_map(|b| {
            let port = u16::try_from(b.port).ok()?;
            Some((b.node_id.0, Address { host: b.host.to_string(), port }))
        });
        let topics = answer.topics.iter().filter_map(|t| {
            let partitions = t.partitions.iter().map(|p| {
                let partition = Partition {
                    leader: some(p.leader_id.0),
                    replicas: p.replica_nodes.iter().map(|id| id.0).collect(),
                    in_sync: p.isr_nodes.iter().map(|id| id.0).collect(),
                };
                (p.partition_index, partition)
            });
            let topic = Topic {
                id: Some(t.topic_id).filter(|id| !id.is_nil()),
                error: ResponseError::try_from_code(t.error_code),
                internal: t.is_internal,
                partitions: partitions.collect(),
            };
            Some((t.name.as_ref()?.to_string(), topic))
        });
        Self {
            cluster: answer.cluster_id.as_ref().map(ToString::to_string),
            controller: some(answer.controller_id.0),
            brokers: brokers.collect(),
            topics: topics.collect(),
        }
    }

    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.topics.get(topic)?.partitions.get(&partition)?.leader
    }
}

/// What to say to whoever named a topic or a group that is not there, where none looks like it.
pub fn what_there_is(noun: &str, count: usize) -> String {
    match count {
        0 => format!("there are no {noun}s at all, or none that this user may see"),
        1 => format!("\"millpond {noun} list\" shows the one there is"),
        _ => format!("\"millpond {noun} list\" shows the {count} there are"),
    }
}

/// Up to three of the names that look most like one, for whoever mistyped it.
pub fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let allowed = (lower.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let other = name.to_lowercase();
            let contained = lower.len() > 2 && (other.contains(&lower) || lower.contains(&other) && other.len() > 2);
            let edits = if contained { 1 } else { edits(&lower, &other) };
            (edits <= allowed).then_some((edits, name))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// How many characters differ, are missing or too many.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let best = (above + 1).min(left + 1).min(diagonal + usize::from(x != *y));
            (diagonal, left, *cell) = (above, best, best);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
        let names = ["orders", "order_items", "users", "clicks"];
        assert_eq!(near("ordesr", names.into_iter()), ["orders"]);
        assert_eq!(near("order", names.into_iter()), ["order_items", "orders"]);
        assert_eq!(near("Users", names.into_iter()), ["users"]);
        assert!(near("zebra", names.into_iter()).is_empty());
    }
}

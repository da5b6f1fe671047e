//! How many groups and members read each topic.
//!
//! Queries, which are listed like groups, have no members here: the engine counts them. The groups' lock is held for one
//! look over their names and then for one group at a time.

use std::collections::{BTreeMap, BTreeSet};

use millpond_types::ports::{Consumers, Readers};

use super::coordinator::Coordinator;
use super::subscription;

impl Consumers for Coordinator {
    fn readers(&self, counts: &dyn Fn(&str) -> bool) -> BTreeMap<String, Readers> {
        let mut readers = BTreeMap::<String, Readers>::new();
        for group in self.list().into_iter().filter(|group| counts(&group.group)) {
            let members = if group.is_classic { self.of_classic(&group.group) } else { self.of_consumer(&group.group) };
            for topic in members.iter().flatten().collect::<BTreeSet<_>>() {
                readers.entry(topic.clone()).or_default().groups += 1;
            }
            for topic in members.into_iter().flatten() {
                readers.entry(topic).or_default().members += 1;
            }
        }
        readers
    }
}

impl Coordinator {
    /// The topics of each member.
    fn of_classic(&self, group: &str) -> Vec<BTreeSet<String>> {
        let Some(found) = self.describe(group) else { return Vec::new() };
        let topics = |assignment: &[u8]| {
            // Only members of type "consumer" say it in these bytes.
            let topics = subscription::assignment(assignment).unwrap_or_default();
            let topics = topics.into_iter().filter(|(_, partitions)| !partitions.is_empty());
            topics.map(|(topic, _)| topic.to_owned()).collect()
        };
        found.members.iter().map(|member| topics(&member.assignment)).collect()
    }

    fn of_consumer(&self, group: &str) -> Vec<BTreeSet<String>> {
        let Some(found) = self.describe_consumer(group) else { return Vec::new() };
        let members = found.members.iter();
        members.map(|member| member.assigned.keys().filter_map(|topic| self.topic_name(*topic)).collect()).collect()
    }
}

//! Who reads what, decided here and not by a client: the assignors "uniform" and "range".
//!
//! Pure: equal input gives equal output. Invariants of every result: each partition of a topic that somebody subscribes
//! to has exactly one owner, who subscribes to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use millpond_types::TopicId;

/// Partitions by topic; no topic is there without one.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

pub fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

pub fn each(partitions: &Partitions) -> impl Iterator<Item = (TopicId, i32)> {
    partitions.iter().flat_map(|(topic, indexes)| indexes.iter().map(|index| (*topic, *index)))
}

pub fn has(partitions: &Partitions, topic: TopicId, index: i32) -> bool {
    partitions.get(&topic).is_some_and(|indexes| indexes.contains(&index))
}

pub fn add(partitions: &mut Partitions, topic: TopicId, index: i32) {
    partitions.entry(topic).or_default().insert(index);
}

/// A way to assign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Assignor {
    /// As even as possible, moving as little as possible.
    #[default]
    Uniform,
    /// Of each topic a run of partitions, so that equal numbers of different topics come to the same member.
    Range,
}

/// What a member wants and what it was meant to have before.
#[derive(Debug)]
pub struct Subscriber<'a> {
    pub topics: BTreeSet<TopicId>,
    pub had: &'a Partitions,
}

/// Looks over all topics this many times for a better balance, where members subscribe to different topics.
const BALANCE_PASSES_MAX: usize = 32;

impl Assignor {
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// One result per member, in order. `topics` holds the number of partitions of each.
    pub fn assign(self, members: &[Subscriber<'_>], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
        match self {
            Self::Range => range(members, topics),
            Self::Uniform if members.windows(2).all(|pair| matches!(pair, [a, b] if a.topics == b.topics)) => {
                even(members, topics)
            }
            Self::Uniform => mixed(members, topics),
        }
    }
}

fn range(members: &[Subscriber<'_>], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut out = vec![Partitions::new(); members.len()];
    for (topic, partitions) in topics {
        let subscribed: Vec<usize> =
            (0..).zip(members).filter(|(_, m)| m.topics.contains(topic)).map(|(i, _)| i).collect();
        let (total, sharers) = (usize::try_from(*partitions).unwrap_or(0), subscribed.len().max(1));
        let (each, more) = (total / sharers, total % sharers);
        let mut next = 0;
        for (rank, member) in subscribed.into_iter().enumerate() {
            let end = next + each + usize::from(rank < more);
            if next < end
                && let Some(own) = out.get_mut(member)
            {
                own.insert(*topic, (next as i32..end as i32).collect());
            }
            next = end;
        }
    }
    out
}

/// Partitions of one member, each index before its topic, so that in order all topics take turns.
type Own = Vec<(i32, TopicId)>;

/// What members had and may still have, each partition once, in an order that goes through all topics by turns.
fn kept(members: &[Subscriber<'_>], topics: &BTreeMap<TopicId, i32>) -> (Vec<Own>, HashSet<(TopicId, i32)>) {
    let mut taken = HashSet::new();
    let of_member = |member: &Subscriber<'_>| {
        let mut own: Own = each(member.had)
            .filter(|(topic, index)| {
                let exists = topics.get(topic).is_some_and(|partitions| index < partitions);
                exists && member.topics.contains(topic) && taken.insert((*topic, *index))
            })
            .map(|(topic, index)| (index, topic))
            .collect();
        own.sort_unstable();
        own
    };
    let kept = members.iter().map(of_member).collect();
    (kept, taken)
}

/// All members subscribe to the same: everybody gets the same number, or one more.
fn even(members: &[Subscriber<'_>], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let Some(first) = members.first() else { return Vec::new() };
    let mut all: Vec<(i32, TopicId)> = Vec::new();
    for (topic, partitions) in topics.iter().filter(|(topic, _)| first.topics.contains(topic)) {
        all.extend((0..*partitions).map(|index| (index, *topic)));
    }
    all.sort_unstable();
    let (each, more) = (all.len() / members.len(), all.len() % members.len());
    let (mut owned, mut taken) = kept(members, topics);
    // Those who have most keep the one more.
    let mut by_size: Vec<(Reverse<usize>, usize)> = owned.iter().map(|own| Reverse(own.len())).zip(0..).collect();
    by_size.sort_unstable();
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut quotas = vec![each; members.len()];
    for (rank, (_, member)) in by_size.into_iter().enumerate() {
        let (Some(own), Some(quota)) = (owned.get_mut(member), quotas.get_mut(member)) else { continue };
        *quota += usize::from(rank < more);
        for (index, topic) in own.drain((*quota).min(own.len())..) {
            taken.remove(&(topic, index));
        }
        if own.len() < *quota {
            room.insert((own.len(), member));
        }
    }
    for (index, topic) in all {
        if taken.contains(&(topic, index)) {
            continue;
        }
        let Some((_, member)) = room.pop_first() else { break };
        let (Some(own), Some(quota)) = (owned.get_mut(member), quotas.get(member)) else { continue };
        own.push((index, topic));
        if own.len() < *quota {
            room.insert((own.len(), member));
        }
    }
    owned.into_iter().map(collect).collect()
}

fn collect(own: Own) -> Partitions {
    let mut out = Partitions::new();
    for (index, topic) in own {
        add(&mut out, topic, index);
    }
    out
}

/// Members subscribe to different topics: the hardest to place come first, then single partitions move from who has
/// more to who has at least two fewer, for as long as there are such.
fn mixed(members: &[Subscriber<'_>], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let (owned, taken) = kept(members, topics);
    let mut out: Vec<Partitions> = owned.into_iter().map(collect).collect();
    let mut loads: Vec<usize> = out.iter().map(count).collect();
    let mut subscribed: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (i, member) in members.iter().enumerate() {
        for topic in &member.topics {
            subscribed.entry(*topic).or_default().push(i);
        }
    }
    let mut order: Vec<(usize, TopicId, i32)> = topics
        .iter()
        .filter_map(|(topic, partitions)| subscribed.get(topic).map(|s| (s.len(), *topic, *partitions)))
        .collect();
    order.sort_unstable();
    for (_, topic, partitions) in &order {
        let sharers = subscribed.get(topic).map(Vec::as_slice).unwrap_or_default();
        let mut by_load: BTreeSet<(usize, usize)> =
            sharers.iter().filter_map(|i| loads.get(*i).map(|load| (*load, *i))).collect();
        for index in (0..*partitions).filter(|index| !taken.contains(&(*topic, *index))) {
            let Some((load, member)) = by_load.pop_first() else { break };
            if let (Some(own), Some(sum)) = (out.get_mut(member), loads.get_mut(member)) {
                add(own, *topic, index);
                *sum = load + 1;
                by_load.insert((*sum, member));
            }
        }
    }
    for _ in 0..BALANCE_PASSES_MAX {
        let mut moved = false;
        for (_, topic, _) in &order {
            let sharers = subscribed.get(topic).map(Vec::as_slice).unwrap_or_default();
            moved |= balance(*topic, sharers, &mut out, &mut loads);
        }
        if !moved {
            break;
        }
    }
    out
}

/// Moves partitions of one topic among those who subscribe to it.
fn balance(topic: TopicId, sharers: &[usize], out: &mut [Partitions], loads: &mut [usize]) -> bool {
    let mut by_load: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut givers: BTreeSet<(usize, usize)> = BTreeSet::new();
    for i in sharers {
        let (Some(load), Some(own)) = (loads.get(*i), out.get(*i)) else { continue };
        by_load.insert((*load, *i));
        if own.contains_key(&topic) {
            givers.insert((*load, *i));
        }
    }
    let mut moved = false;
    while let (Some((most, from)), Some((least, to))) = (givers.last().copied(), by_load.first().copied()) {
        if most < least + 2 {
            break;
        }
        let Some(indexes) = out.get_mut(from).and_then(|own| own.get_mut(&topic)) else { break };
        let Some(index) = indexes.pop_last() else { break };
        let none_left = indexes.is_empty();
        if none_left && let Some(own) = out.get_mut(from) {
            own.remove(&topic);
        }
        if let Some(own) = out.get_mut(to) {
            add(own, topic, index);
        }
        by_load.remove(&(most, from));
        by_load.remove(&(least, to));
        givers.remove(&(most, from));
        givers.remove(&(least, to));
        by_load.extend([(most - 1, from), (least + 1, to)]);
        if !none_left {
            givers.insert((most - 1, from));
        }
        givers.insert((least + 1, to));
        for (member, load) in [(from, most - 1), (to, least + 1)] {
            if let Some(sum) = loads.get_mut(member) {
                *sum = load;
            }
        }
        moved = true;
    }
    moved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    fn run(
        assignor: Assignor,
        wants: &[Vec<u8>],
        had: &[Partitions],
        topics: &BTreeMap<TopicId, i32>,
    ) -> Vec<Partitions> {
        let none = Partitions::new();
        let members: Vec<Subscriber<'_>> = wants
            .iter()
            .enumerate()
            .map(|(i, w)| Subscriber {
                topics: w.iter().map(|t| topic(*t)).collect(),
                had: had.get(i).unwrap_or(&none),
            })
            .collect();
        assignor.assign(&members, topics)
    }

    fn sizes(out: &[Partitions]) -> Vec<usize> {
        out.iter().map(count).collect()
    }

    fn moves(before: &[Partitions], after: &[Partitions]) -> usize {
        let lost = |(a, b): (&Partitions, &Partitions)| each(a).filter(|(t, i)| !has(b, *t, *i)).count();
        before.iter().zip(after).map(lost).sum()
    }

    #[test]
    fn range_gives_equal_numbers_of_all_topics_to_the_same_member() {
        let topics = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
        let out = run(Assignor::Range, &[vec![1, 2], vec![1, 2]], &[], &topics);
        let own =
            |from: i32, to: i32| Partitions::from([(topic(1), (from..to).collect()), (topic(2), (from..to).collect())]);
        assert_eq!(out, [own(0, 3), own(3, 5)]);
        let out = run(Assignor::Range, &[vec![1], vec![1, 2], vec![2]], &[], &topics);
        assert_eq!(sizes(&out), [3, 5, 2]);
    }

    #[test]
    fn uniform_moves_no_more_than_balance_asks_for() {
        let topics = BTreeMap::from([(topic(1), 6), (topic(2), 7)]);
        let wants = vec![vec![1, 2]; 4];
        let one = run(Assignor::Uniform, &wants[..1], &[], &topics);
        assert_eq!(sizes(&one), [13]);
        let three = run(Assignor::Uniform, &wants[..3], &one, &topics);
        assert_eq!((sizes(&three), moves(&one, &three)), (vec![5, 4, 4], 8));
        let four = run(Assignor::Uniform, &wants, &three, &topics);
        assert_eq!((sizes(&four), moves(&three, &four)), (vec![4, 3, 3, 3], 3));
        // The first one goes: nothing else moves.
        let rest = run(Assignor::Uniform, &wants[1..], &four[1..], &topics);
        assert_eq!((count(&rest[0]), moves(&four[1..], &rest)), (5, 0));
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_who_wants_it(
            wants in prop::collection::vec(prop::collection::vec(0u8..5, 0..5), 1..8),
            later in prop::collection::vec(prop::collection::vec(0u8..5, 0..5), 1..8),
            partitions in prop::collection::vec(0i32..9, 5),
            uniform: bool,
        ) {
            let topics: BTreeMap<TopicId, i32> =
                (0u8..).zip(&partitions).filter(|(_, n)| **n > 0).map(|(t, n)| (topic(t), *n)).collect();
            let assignor = if uniform { Assignor::Uniform } else { Assignor::Range };
            let before = run(assignor, &wants, &[], &topics);
            let after = run(assignor, &later, &before, &topics);
            prop_assert_eq!(&run(assignor, &later, &before, &topics), &after, "equal input");
            if uniform {
                prop_assert_eq!(moves(&after, &run(assignor, &later, &after, &topics)), 0, "nothing changed");
            }
            for (wants, out) in [(&wants, before), (&later, after)] {
                let mut owners: BTreeMap<(TopicId, i32), usize> = BTreeMap::new();
                for (i, own) in out.iter().enumerate() {
                    prop_assert!(own.values().all(|indexes| !indexes.is_empty()));
                    for (t, index) in each(own) {
                        prop_assert!(wants[i].iter().any(|w| topic(*w) == t));
                        prop_assert!(index < topics[&t]);
                        prop_assert_eq!(owners.insert((t, index), i), None);
                    }
                }
                let wanted = topics.iter().filter(|(t, _)| wants.iter().flatten().any(|w| topic(*w) == **t));
                prop_assert_eq!(owners.len() as i32, wanted.map(|(_, n)| *n).sum::<i32>());
                if uniform && wants.iter().all(|w| BTreeSet::from_iter(w) == BTreeSet::from_iter(&wants[0])) {
                    let sizes = sizes(&out);
                    prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
                }
            }
        }
    }
}

//! How much of the newest batches stays in memory, over all partitions.
//!
//! A tail is for those who read what is appended while it is appended. Whoever comes later reads what the operating system
//! keeps of the log files, so that a tail goes when nothing is appended any more.
//!
//! Whoever holds a partition's log and this took this first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::partition::{LogState, Partition, StoredBatch};

/// Tails that go before the writer may have its turn.
const DROPPED_AT_ONCE: usize = 256;

/// The hot tails of all partitions, within one budget: who appended longest ago loses its tail first.
#[derive(Default)]
pub struct Tails {
    cost: usize,
    turn: u64,
    turn_of: HashMap<u64, u64>,
    by_turn: BTreeMap<u64, Arc<Partition>>,
    /// The last turn at the last look for those at rest.
    looked: u64,
}

impl Tails {
    /// `max` and `unread_max`: what the partition may keep, and what where nobody reads.
    pub fn add(
        &mut self,
        partition: &Arc<Partition>,
        log: &mut LogState,
        batches: Vec<StoredBatch>,
        max: usize,
        unread_max: usize,
    ) {
        if batches.is_empty() {
            return;
        }
        let mut came = 0;
        for batch in batches {
            came += batch.cost();
            log.tail.push_back(batch);
        }
        log.tail_cost += came;
        self.cost += came;
        let max = if partition.appended(came) > max { max.min(unread_max) } else { max };
        while log.tail_cost > max {
            self.cost -= log.shorten_tail();
        }
        if let Some(old) = self.turn_of.remove(&partition.uid) {
            self.by_turn.remove(&old);
        }
        if !log.tail.is_empty() {
            self.turn += 1;
            self.turn_of.insert(partition.uid, self.turn);
            self.by_turn.insert(self.turn, partition.clone());
        }
    }

    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Forgets what ends at `last` or before, because it is something else on disk now.
    pub fn cut(&mut self, log: &mut LogState, last: i64) {
        while log.tail.front().is_some_and(|batch| batch.last <= last) {
            self.cost -= log.shorten_tail();
        }
    }

    pub fn drop_tail(&mut self, partition: &Partition) {
        if let Some(turn) = self.turn_of.remove(&partition.uid) {
            self.by_turn.remove(&turn);
        }
        let mut log = partition.log.lock();
        while !log.tail.is_empty() {
            self.cost -= log.shorten_tail();
        }
        // With the room that it had.
        log.tail = VecDeque::new();
    }

    /// Up to which turn nothing was appended since this was called last.
    pub fn look(&mut self) -> u64 {
        std::mem::replace(&mut self.looked, self.turn)
    }

    /// Drops some tails whose turn is not after this one; false when none is left.
    pub fn drop_some(&mut self, turn: u64) -> bool {
        for _ in 0..DROPPED_AT_ONCE {
            let Some(first) = self.by_turn.first_entry().filter(|first| *first.key() <= turn) else { return false };
            let partition = first.remove();
            self.drop_tail(&partition);
        }
        true
    }

    pub fn shrink_to(&mut self, max: usize) {
        while self.cost > max {
            let Some((_, partition)) = self.by_turn.pop_first() else { return };
            self.turn_of.remove(&partition.uid);
            let mut log = partition.log.lock();
            while self.cost > max && !log.tail.is_empty() {
                self.cost -= log.shorten_tail();
            }
            if !log.tail.is_empty() {
                drop(log);
                self.turn += 1;
                self.turn_of.insert(partition.uid, self.turn);
                self.by_turn.insert(self.turn, partition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond_types::{TopicId, TopicPartition};

    use super::*;

    fn append(tails: &mut Tails, partition: &Arc<Partition>, sequence: u64) {
        let mut log = partition.log.lock();
        log.end += 1;
        let batch = StoredBatch::new(log.end - 1, sequence, Bytes::from_static(&[0; 100]));
        tails.add(partition, &mut log, vec![batch], 1 << 10, 0);
    }

    #[test]
    fn a_tail_goes_when_nothing_is_appended() {
        let place = |partition| TopicPartition { topic: TopicId([0; 16]), partition };
        let [busy, resting] = [0, 1].map(|i| Arc::new(Partition::new(i as u64, place(i), LogState::default())));
        let mut tails = Tails::default();
        for sequence in 1..4 {
            for partition in [&busy, &resting] {
                partition.was_read();
                append(&mut tails, partition, sequence);
            }
        }
        let full = tails.cost();
        let turn = tails.look();
        assert!(!tails.drop_some(turn) && tails.cost() == full, "all was appended since the last look");
        append(&mut tails, &busy, 9);
        let turn = tails.look();
        assert!(!tails.drop_some(turn));
        let of = |partition: &Partition| partition.log.lock().tail.len();
        assert_eq!((of(&busy), of(&resting)), (4, 0));
        assert_eq!(tails.cost(), busy.log.lock().tail_cost);

        // What is surely on disk is told all the same.
        let ends = |partition: &Partition| [2, 3, 8, 9].map(|limit| partition.log.lock().end_at(limit));
        assert_eq!(ends(&resting), [None, Some(3), Some(3), Some(3)]);
        assert_eq!(ends(&busy), [Some(2), Some(3), Some(3), Some(4)]);
        busy.log.lock().shorten_tail();
        assert_eq!(busy.log.lock().end_at(1), Some(1));
        append(&mut tails, &resting, 10);
        assert_eq!(ends(&resting), [None, Some(3), Some(3), Some(3)]);
    }
}

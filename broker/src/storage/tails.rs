//! How much of the newest batches stays in memory, over all partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::partition::{LogState, Partition, StoredBatch};

/// The hot tails of all partitions, within one budget: who appended longest ago loses its tail first.
#[derive(Default)]
pub struct Tails {
    cost: usize,
    turn: u64,
    turn_of: HashMap<u64, u64>,
    by_turn: BTreeMap<u64, Arc<Partition>>,
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
        self.turn += 1;
        if let Some(old) = self.turn_of.insert(partition.uid, self.turn) {
            self.by_turn.remove(&old);
        }
        self.by_turn.insert(self.turn, partition.clone());
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

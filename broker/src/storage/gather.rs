//! How long the writer waits, before it forces a write to disk, for those whom it has just answered.
//!
//! A producer keeps so many requests under way and no more: when some are answered, as many come soon. Without waiting, the
//! first of them is forced to disk alone while the others come, and most requests wait for two forces instead of one. So
//! as many are awaited as were answered last, for no longer than half a force takes: where they take longer to come,
//! two forces, of which one passes while they come, are no slower than one that waits for all. Whether that is worth it is
//! what the last tries tell: those who came are spared a force, those who were there have waited.
//!
//! Only where each write is forced: else there is nothing to save.

use std::time::Duration;

use super::queue::Queue;

/// A write of so many bytes is not made larger: what comes with each force no longer counts.
const ENOUGH_BYTES: usize = 512 << 10;
/// So many writes pass until it is tried again, while less than half of the last eight tries were worth it.
const PAUSE: u32 = 16;

/// How many batches were there, how many were awaited and came, and how long that took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gathered {
    pub had: usize,
    pub expected: usize,
    pub came: usize,
    pub waited: Duration,
}

pub struct Gather {
    wait_max: Duration,
    /// About how long a write takes with its force.
    force: Duration,
    /// Batches of the last write.
    answered: usize,
    /// What came of the last tries, a bit each: it was worth it.
    tries: u8,
    /// Writes until it is tried again.
    pause: u32,
}

impl Gather {
    /// `wait_max` of zero: never waits.
    pub fn new(wait_max: Duration) -> Self {
        Self { wait_max, force: Duration::ZERO, answered: 0, tries: 0, pause: 0 }
    }

    /// A write of so many batches took so long.
    pub fn wrote(&mut self, batches: usize, took: Duration) {
        self.answered = batches;
        self.force = if self.force.is_zero() { took } else { (self.force * 7 + took) / 8 };
    }

    /// Returns when about as many are queued as can be expected, or it has waited for long enough.
    pub fn wait(&mut self, queue: &Queue) {
        if let Some((expected, limit)) = self.next_try()
            && let Some(gathered) = queue.gather(expected, ENOUGH_BYTES, limit)
        {
            self.learn(gathered);
        }
    }

    /// How many to await, and for how long.
    fn next_try(&mut self) -> Option<(usize, Duration)> {
        let limit = (self.force / 2).min(self.wait_max);
        if self.answered == 0 || limit.is_zero() {
            return None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        Some((self.answered, limit))
    }

    fn learn(&mut self, Gathered { had, expected, came, waited }: Gathered) {
        // Twice, as not all of a force is spared: part of it had passed when they came.
        let lost = waited.as_nanos() * had.max(1) as u128 * 2;
        let worth = came * 4 >= expected * 3 && self.force.as_nanos() * came as u128 > lost;
        self.tries = self.tries << 1 | u8::from(worth);
        self.pause = if self.tries.count_ones() * 2 < u8::BITS { PAUSE } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORCE: Duration = Duration::from_micros(800);

    /// How often it waits in `writes` of five batches, of which so many come back within `waited`.
    fn tries(gather: &mut Gather, writes: usize, came: usize, waited: Duration) -> usize {
        let mut tries = 0;
        for _ in 0..writes {
            gather.wrote(5, FORCE);
            if let Some((expected, limit)) = gather.next_try() {
                assert_eq!((expected, limit), (5, FORCE / 2));
                gather.learn(Gathered { had: 1, expected, came, waited });
                tries += 1;
            }
        }
        tries
    }

    #[test]
    fn it_waits_for_those_who_come_back_and_seldom_for_others() {
        let mut gather = Gather::new(Duration::from_millis(1));
        assert!(tries(&mut gather, 1000, 5, FORCE / 4) > 900);
        assert!(tries(&mut gather, 1000, 0, FORCE / 2) < 70);
        // They are slower than a disk as fast as this: what is there is forced while they come.
        assert!(tries(&mut gather, 1000, 2, FORCE / 2) < 70);
        assert!(tries(&mut gather, 1000, 4, FORCE / 4) > 900);
    }

    #[test]
    fn it_never_waits_longer_than_allowed() {
        let mut gather = Gather::new(Duration::from_micros(100));
        gather.wrote(3, FORCE);
        assert_eq!(gather.next_try(), Some((3, Duration::from_micros(100))));
        gather.wrote(0, FORCE);
        assert_eq!(gather.next_try(), None);
        let mut never = Gather::new(Duration::ZERO);
        never.wrote(3, FORCE);
        assert_eq!(never.next_try(), None);
    }
}

//! Batches read from disk for a read that is still to come: what lies after the last one of a consumer that is behind, so
//! that it is read while the consumer works.
//!
//! Invariant: what is kept is what lies in the log, for as long as the log was not rewritten since; whoever asks says how
//! often it was when they looked.

use std::collections::VecDeque;

use millpond_types::Offset;
use parking_lot::Mutex;

use super::partition::StoredBatch;

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub uid: u64,
    /// Rewrites of the log before the read began.
    pub rewrites: u64,
    pub next: Offset,
}

/// Batches that follow each other.
pub type Run = VecDeque<StoredBatch>;

/// Runs that are kept; each fetch from disk looks through them.
const RUNS_MAX: usize = 256;

pub struct ReadAhead {
    max: usize,
    kept: Mutex<Kept>,
}

/// Oldest first.
#[derive(Default)]
struct Kept {
    runs: VecDeque<(Place, Run)>,
    bytes: usize,
}

impl ReadAhead {
    pub fn new(max: usize) -> Self {
        Self { max, kept: Mutex::default() }
    }

    /// So much may be read for one consumer.
    pub fn bytes_at_once(&self) -> usize {
        self.max / 2
    }

    /// Keeps a run in the place of the oldest ones; not at all where it would be most of what there is.
    pub fn keep(&self, place: Place, run: Run) {
        let bytes = cost(&run);
        if run.is_empty() || bytes > self.max {
            return;
        }
        let mut kept = self.kept.lock();
        kept.remove(|(other, _)| *other == place);
        kept.bytes += bytes;
        kept.runs.push_back((place, run));
        while (kept.bytes > self.max || kept.runs.len() > RUNS_MAX)
            && let Some((_, oldest)) = kept.runs.pop_front()
        {
            kept.bytes -= cost(&oldest);
        }
    }

    pub fn has(&self, place: Place) -> bool {
        self.kept.lock().runs.iter().any(|(other, _)| *other == place)
    }

    /// What is kept for a place; it stays, as the read may come to nothing.
    pub fn at(&self, place: Place) -> Option<Run> {
        self.kept.lock().runs.iter().find(|(other, _)| *other == place).map(|(_, run)| run.clone())
    }

    /// What a consumer that goes on at an offset is past.
    pub fn forget(&self, uid: u64, next: Offset) {
        self.kept.lock().remove(|(place, run)| place.uid == uid && run.back().is_none_or(|last| last.last < next));
    }

    /// Another handle of the database may hold something else.
    pub fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }

    pub fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }
}

impl Kept {
    fn remove(&mut self, which: impl Fn(&(Place, Run)) -> bool) {
        let bytes = &mut self.bytes;
        self.runs.retain(|entry| {
            let stays = !which(entry);
            if !stays {
                *bytes -= cost(&entry.1);
            }
            stays
        });
    }
}

fn cost(run: &Run) -> usize {
    run.iter().map(StoredBatch::cost).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_oldest_makes_room_and_what_was_read_is_forgotten() {
        let ahead = ReadAhead::new(300 << 10);
        let place = |next| Place { uid: 1, rewrites: 0, next };
        let run = |next| Run::from([StoredBatch::new(next + 4, 1, Bytes::from(vec![0; 120 << 10]))]);
        for next in [0, 5, 10] {
            ahead.keep(place(next), run(next));
        }
        ahead.keep(place(15), std::iter::repeat_n(run(15), 3).flatten().collect());
        assert!(!ahead.has(place(0)) && ahead.has(place(5)) && !ahead.has(place(15)));
        assert!(ahead.at(Place { rewrites: 1, ..place(5) }).is_none());
        assert!(ahead.at(Place { uid: 2, ..place(5) }).is_none());
        assert_eq!(ahead.at(place(5)).and_then(|run| run.back().map(|b| b.last)), Some(9));
        ahead.forget(2, 100);
        ahead.forget(1, 10);
        assert!(!ahead.has(place(5)) && ahead.has(place(10)));
        ahead.keep(place(10), run(10));
        ahead.forget(1, 15);
        assert_eq!(ahead.bytes(), 0);
        // Small ones are limited by their number.
        let small = |next| Run::from([StoredBatch::new(next, 1, Bytes::from_static(b"small"))]);
        (0..=RUNS_MAX as i64).for_each(|next| ahead.keep(place(next), small(next)));
        assert!(!ahead.has(place(0)) && ahead.has(place(1)));
    }
}

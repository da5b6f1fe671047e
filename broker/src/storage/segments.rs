//! The closed segments of a partition, with sums of their bytes, so that whoever asks for a sum does not walk.
//!
//! Invariant: oldest first, by their offsets.

use std::collections::VecDeque;
use std::ops::{Deref, Range};

use super::partition::Segment;

#[derive(Debug, Default)]
pub struct Segments {
    list: VecDeque<Segment>,
    /// Of each, the bytes of all that ever were before it. Sums wrap around, as only their differences are looked at.
    before: VecDeque<u64>,
    /// Bytes of all that ever were.
    end: u64,
}

impl Deref for Segments {
    type Target = VecDeque<Segment>;

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}

impl Segments {
    pub fn push(&mut self, segment: Segment) {
        self.before.push_back(self.end);
        self.end = self.end.wrapping_add(segment.bytes);
        self.list.push_back(segment);
    }

    pub fn pop_oldest(&mut self) {
        self.list.pop_front();
        self.before.pop_front();
    }

    /// Puts one in the place of some.
    pub fn replace(&mut self, range: Range<usize>, segment: Segment) {
        if range.start >= range.end || range.end > self.list.len() {
            return;
        }
        let at = range.start;
        self.list.drain(range);
        self.list.insert(at, segment);
        let begin = self.bytes_before(at);
        self.before.truncate(at);
        self.end = begin;
        for later in self.list.range(at..) {
            self.before.push_back(self.end);
            self.end = self.end.wrapping_add(later.bytes);
        }
    }

    fn bytes_before(&self, at: usize) -> u64 {
        self.before.get(at).copied().unwrap_or(self.end)
    }

    /// Bytes of some of them.
    pub fn bytes(&self, range: Range<usize>) -> u64 {
        if range.start < range.end {
            self.bytes_before(range.end).wrapping_sub(self.bytes_before(range.start))
        } else {
            0
        }
    }

    pub fn bytes_of_all(&self) -> u64 {
        self.bytes(0..self.list.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_those_of_a_walk(actions in prop::collection::vec((0u8..4, 0u64..1000, any::<prop::sample::Index>(), 1usize..4), 0..40)) {
            let mut segments = Segments::default();
            let mut next = 0;
            for (action, bytes, at, count) in actions {
                match action {
                    0 => segments.pop_oldest(),
                    1 if !segments.is_empty() => {
                        let from = at.index(segments.len());
                        let to = (from + count).min(segments.len());
                        let (base, last) = (segments[from].base, segments[to - 1].last);
                        let mut made = Segment::starting_with(base, last, 1, 1, 0);
                        made.bytes = bytes;
                        segments.replace(from..to, made);
                    }
                    _ => {
                        segments.push(Segment::starting_with(next, next + 9, 1, 1, bytes as usize));
                        next += 10;
                    }
                }
                let walked = |range: Range<usize>| segments.range(range).map(|s| s.bytes).sum::<u64>();
                let len = segments.len();
                prop_assert_eq!(segments.bytes_of_all(), walked(0..len));
                let (a, b) = (at.index(len + 1), len.min(at.index(len + 1) + count));
                prop_assert_eq!(segments.bytes(a..b), walked(a..b));
            }
        }
    }
}

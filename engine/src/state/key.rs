//! The registry of state keys.
//!
//! ```text
//! 30 | query, escaped, ends 00 01 | kind (1) | operator, escaped, ends 00 01 | partition (4, big endian) | rest
//!
//! kind  what                                 rest
//! 01    stream time and the like             none: one entry per operator and partition
//! 02    rows by key                          key cells
//! 03    rows by window                       window start (8, ordered) | key cells
//! 04    sessions by key                      key cells
//! 05    sessions by their end                end (8) | key cells
//! 06    rows of a stream join                side (1) | time segment (8) | key cells | time (8) | number (8)
//! 07    waiting rows of a stream join        time (8) | side (1) | key cells | number (8)
//! 08    subscriptions of a foreign-key join  foreign key cells | left key bytes
//! 09    result of a table query              key cells
//! 0A    result of a windowed table query     time segment (8) | key cells | start (8) | end (8)
//! 0B    half-done row                        none; operator is empty
//! ```
//!
//! Cells are in the key form of `state::cells`; values start with a version byte (see `state::row`). A retired kind is
//! never used again. First byte 30 is the engine's: nothing else in storage's state starts with it.

use millpond_types::PartitionId;

use super::cells::put_key_bytes;

/// First byte of every key of engine state.
const ENGINE: u8 = 0x30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Times = 0x01,
    Keyed = 0x02,
    Windowed = 0x03,
    Sessions = 0x04,
    SessionEnds = 0x05,
    Joined = 0x06,
    Waiting = 0x07,
    Subscription = 0x08,
    Result = 0x09,
    WindowedResult = 0x0a,
    HalfDone = 0x0b,
}

fn query_prefix(query: &str) -> Vec<u8> {
    let mut prefix = vec![ENGINE];
    put_key_bytes(query.as_bytes(), &mut prefix);
    prefix
}

/// Everything of one kind that one operator keeps, in all partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    prefix: Vec<u8>,
}

impl KeySpace {
    pub fn new(kind: Kind, query: &str, operator: &str) -> Self {
        let mut prefix = query_prefix(query);
        prefix.push(kind as u8);
        put_key_bytes(operator.as_bytes(), &mut prefix);
        Self { prefix }
    }

    /// Starts a key in `out`, replacing what is there.
    pub fn start(&self, partition: PartitionId, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&partition.to_be_bytes());
    }

    pub fn partition_prefix(&self, partition: PartitionId) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 4);
        self.start(partition, &mut key);
        key
    }

    /// What follows the partition in a key of this space.
    pub fn rest<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.get(self.prefix.len() + 4..).unwrap_or_default()
    }
}

/// The partition in a key of engine state; 0 where it has none.
pub fn partition_of(key: &[u8]) -> PartitionId {
    // Behind an escaped name that starts at `at`.
    let behind = |mut at: usize| loop {
        at += key.get(at..)?.iter().position(|b| *b == 0)? + 2;
        if key.get(at - 1) == Some(&1) {
            return Some(at);
        }
    };
    let found = behind(1).and_then(|kind| behind(kind + 1)).and_then(|at| key.get(at..at + 4)?.try_into().ok());
    found.map_or(0, PartitionId::from_be_bytes)
}

/// First key that does not start with `prefix`.
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// The range `[from, to)` of everything a query keeps, for `Step::drop_state` when it is dropped.
pub fn query_range(query: &str) -> (Vec<u8>, Vec<u8>) {
    let prefix = query_prefix(query);
    let end = end_of(&prefix);
    (prefix, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout is on disk: a change here needs a new kind.
    #[test]
    fn keys_are_laid_out_as_drawn() {
        let space = KeySpace::new(Kind::Keyed, "Q1", "agg");
        let key = space.partition_prefix(2);
        assert_eq!(key, b"\x30Q1\0\x01\x02agg\0\x01\0\0\0\x02");
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!(partition_of(&key), 2);
        let odd = KeySpace::new(Kind::Keyed, "Q\0\u{1}1", "a\0g\0");
        assert_eq!(partition_of(&[odd.partition_prefix(77), b"\0\x01".to_vec()].concat()), 77);
        assert_eq!(partition_of(b"\x30Q1"), 0);
        let holds = |query: &str| (query_range(query).0 <= key) && (key < query_range(query).1);
        assert!(holds("Q1") && !holds("Q") && !holds("Q11"));
    }
}

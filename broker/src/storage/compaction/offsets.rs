//! The newest offset of each key, in bounded memory: keys are known by 128 bits of a hash whose seed nobody knows, so that
//! nobody can choose keys that are taken for each other.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use millpond_types::Offset;

/// What a key takes: two halves of its hash, its offset, and a share of room that the table keeps free, also while it
/// grows.
const ENTRY_BYTES: usize = 64;

pub struct NewestOffsets {
    seeds: (RandomState, RandomState),
    offsets: HashMap<(u64, u64), Offset, FirstHalf>,
    keys_max: usize,
}

impl NewestOffsets {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            seeds: (RandomState::new(), RandomState::new()),
            offsets: HashMap::default(),
            keys_max: (bytes_max / ENTRY_BYTES).max(1),
        }
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.seeds.0.hash_one(key), self.seeds.1.hash_one(key))
    }

    /// Notes a key's offset, in the order of offsets; false where there is no room for another key.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let full = self.offsets.len() >= self.keys_max;
        match self.offsets.get_mut(&hash) {
            Some(newest) => *newest = offset,
            None if full => return false,
            None => drop(self.offsets.insert(hash, offset)),
        }
        true
    }

    /// Whether a later record has the key.
    pub fn supersedes(&self, key: &[u8], offset: Offset) -> bool {
        !self.offsets.is_empty() && self.offsets.get(&self.hash(key)).is_some_and(|newest| *newest > offset)
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Default)]
struct FirstHalf;

#[derive(Default)]
struct Taken(u64);

impl BuildHasher for FirstHalf {
    type Hasher = Taken;

    fn build_hasher(&self) -> Taken {
        Taken(0)
    }
}

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }
}

//! Whether the disk has room: nothing bulky is written when less is free than the setting asks for, so that what deletes
//! and what RocksDB has to write can go on.
//!
//! Looked at by the keeper at intervals, and by the writer each time it has written so much.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::error::StorageError;

/// So much is written between two looks.
const LOOK_EACH_BYTES: u64 = 8 << 20;
const ENOUGH: u8 = 0;
/// Only what is small, and deletions.
const LOW: u8 = 1;
/// Only deletions.
const OUT: u8 = 2;

pub struct Space {
    path: PathBuf,
    min: u64,
    free: AtomicU64,
    level: AtomicU8,
    written: AtomicU64,
}

/// How much something that is to be written takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It gives space back.
    Deletion,
    Small,
    Bulk,
}

impl Space {
    pub fn new(path: PathBuf, min: u64) -> Self {
        let new = Self {
            path,
            min,
            free: AtomicU64::new(u64::MAX),
            level: AtomicU8::new(ENOUGH),
            written: AtomicU64::new(0),
        };
        new.look();
        new
    }

    /// Asks the file system, and says when things changed.
    pub fn look(&self) {
        let Ok(found) = rustix::fs::statvfs(&self.path) else { return };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        self.free.store(free, Relaxed);
        let level = match free {
            out if out < self.min / 4 => OUT,
            low if low < self.min => LOW,
            _ => ENOUGH,
        };
        let before = self.level.swap(level, Relaxed);
        if before == ENOUGH && level != ENOUGH {
            tracing::error!("{}", self.why());
        } else if before != ENOUGH && level == ENOUGH {
            tracing::info!("the disk has {} MiB free again: writing goes on", free >> 20);
        }
    }

    pub fn wrote(&self, bytes: usize) {
        if self.written.fetch_add(bytes as u64, Relaxed) + bytes as u64 >= LOOK_EACH_BYTES {
            self.written.store(0, Relaxed);
            self.look();
        }
    }

    /// Bytes of the volume, and how many of them can be written.
    pub fn volume(&self) -> Option<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some((bytes(found.f_blocks), bytes(found.f_bavail)))
    }

    /// RocksDB does not tell why a flush failed: with less room than it `needs`, for want of that.
    pub fn explained(&self, e: &StorageError, needs: u64) -> StorageError {
        match (e, self.volume()) {
            (StorageError::Unavailable(why), Some((_, free))) if free < needs => {
                StorageError::Unavailable(format!("No space left: {} KiB of the disk are free, so {why}", free >> 10))
            }
            _ => e.clone(),
        }
    }

    fn why(&self) -> String {
        format!(
            "the disk of \"{}\" has {} MiB free, less than \"disk_free_bytes_min\", {} MiB: nothing is written until there \
             is space, everything can be read",
            self.path.display(),
            self.free.load(Relaxed) >> 20,
            self.min >> 20
        )
    }

    /// Bytes, when it was looked last.
    pub fn free(&self) -> u64 {
        self.free.load(Relaxed)
    }

    pub fn is_low(&self) -> bool {
        self.level.load(Relaxed) != ENOUGH
    }

    /// Why something cannot be written now.
    pub fn refusal(&self, weight: Weight) -> Option<StorageError> {
        let refused = match self.level.load(Relaxed) {
            ENOUGH => false,
            LOW => weight == Weight::Bulk,
            _ => weight > Weight::Deletion,
        };
        refused.then(|| StorageError::Unavailable(self.why()))
    }
}

//! A file that only takes space, so that a directory can be opened on a disk that somebody else has filled, and records can be
//! deleted: RocksDB writes when it is opened, and so does what gives space back.
//!
//! It is given up by a start, and for a deletion, that finds less free than it takes, and made again when there is room.
//! Where the file system allocates nothing beforehand there is none.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{FallocateFlags, fallocate};

use super::StorageOptions;

const NAME: &str = "reserve";

pub struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// So much must be free to make it.
    room: u64,
    /// It is there, or there will be none.
    is_settled: AtomicBool,
}

impl Reserve {
    /// Looks whether it is there, and gives it up where it is needed, or not wanted.
    pub fn begin(options: &StorageOptions) -> Self {
        let (path, bytes) = (options.path.join(NAME), options.disk_reserve_bytes);
        let room = options.disk_free_bytes_min.max(bytes).saturating_add(bytes);
        let found = fs::symlink_metadata(&path).map_or(0, |found| found.len().min(found.blocks().saturating_mul(512)));
        let reserve = Self { path, bytes, room, is_settled: AtomicBool::new(found >= bytes) };
        let free = rustix::fs::statvfs(&options.path).map_or(u64::MAX, |v| v.f_bavail.saturating_mul(v.f_frsize));
        if found > 0 {
            reserve.give_up(free);
        }
        reserve
    }

    /// Gives it up, if it is there and less is free than it takes, or nobody wants it.
    pub fn give_up(&self, free: u64) {
        if self.bytes > 0 && free >= self.bytes {
            return;
        }
        match fs::remove_file(&self.path) {
            Ok(()) if self.bytes > 0 => {
                self.is_settled.store(false, Relaxed);
                tracing::warn!(
                    "the disk has {} KiB free: \"{}\", {} MiB, was given up",
                    free >> 10,
                    self.path.display(),
                    self.bytes >> 20
                );
            }
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("\"{}\" cannot be given up: {e}", self.path.display()),
        }
    }

    /// Makes it where it is not there and so much is free that there is room. Blocks on disk.
    pub fn make(&self, free: u64) {
        if self.is_settled.load(Relaxed) || free < self.room {
            return;
        }
        if let Err(e) = self.allocate() {
            let _none = fs::remove_file(&self.path);
            tracing::debug!("there is no \"{}\": {e}", self.path.display());
        }
        self.is_settled.store(true, Relaxed);
    }

    /// Nothing of it need survive a power cut: it is looked at anew then.
    fn allocate(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?)
    }
}

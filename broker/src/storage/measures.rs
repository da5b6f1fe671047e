//! What the storage counts of itself, and what it finds out when it is asked. Counting is relaxed additions.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::compaction;
use super::directory::DATABASE;
use super::shared::{Shared, family};
use crate::keys::cf;
use crate::metrics::{Counted, Histogram};

#[derive(Debug, Default)]
pub struct Measures {
    /// Writes of groups of changes, with the fsync where there is one.
    pub commits: Histogram,
    pub commit_bytes: AtomicU64,
    pub compaction_passes: AtomicU64,
    pub compaction_bytes_read: AtomicU64,
    pub compaction_bytes_written: AtomicU64,
    pub compaction_bytes_freed: AtomicU64,
    pub compaction_failures: AtomicU64,
    /// Wall-clock time; 0: never.
    pub compaction_failed_ms: AtomicI64,
    pub retention_bytes_freed: AtomicU64,
}

/// All of it at about one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StorageSnapshot {
    pub commits: Counted,
    pub commit_bytes_total: u64,
    pub compaction_passes_total: u64,
    pub compaction_bytes_read_total: u64,
    pub compaction_bytes_written_total: u64,
    pub compaction_bytes_freed_total: u64,
    pub compaction_failures_total: u64,
    /// Seconds since 1970; 0: never.
    pub compaction_failed_seconds: f64,
    /// Of compacted topics, what could be compacted now and was not yet.
    pub compaction_backlog_bytes: u64,
    /// Partitions that are left alone because of damage.
    pub compaction_damaged_partitions: u64,
    pub retention_bytes_freed_total: u64,
    pub topics: usize,
    pub partitions: usize,
    pub log_bytes: u64,
    pub log_files: usize,
    pub log_file_bytes: u64,
    /// Of log files, as far as it is counted: what no batch lies in any more.
    pub log_file_dead_bytes: u64,
    /// Of the volume; `None` where the system does not say.
    pub volume: Option<(u64, u64)>,
    /// Less is free than it has to be.
    pub disk_full: bool,
    /// Of RocksDB's write-ahead log, as far as it is not in its files yet.
    pub wal_bytes: u64,
    pub write_stopped: bool,
    /// Bytes per second that RocksDB slows writes down to; 0: it does not.
    pub write_delayed_bytes_per_second: u64,
    /// How long steps of queries are held back each, for producers' sake.
    pub step_delay_ms: u64,
}

impl Shared {
    /// Blocks for a moment; looks at every partition, and at sums and few of its segments alone.
    pub fn measure(&self) -> StorageSnapshot {
        let m = &self.measures;
        let mut snapshot = StorageSnapshot {
            commits: m.commits.read(),
            commit_bytes_total: m.commit_bytes.load(Relaxed),
            compaction_passes_total: m.compaction_passes.load(Relaxed),
            compaction_bytes_read_total: m.compaction_bytes_read.load(Relaxed),
            compaction_bytes_written_total: m.compaction_bytes_written.load(Relaxed),
            compaction_bytes_freed_total: m.compaction_bytes_freed.load(Relaxed),
            compaction_failures_total: m.compaction_failures.load(Relaxed),
            compaction_failed_seconds: m.compaction_failed_ms.load(Relaxed) as f64 / 1000.0,
            retention_bytes_freed_total: m.retention_bytes_freed.load(Relaxed),
            volume: self.space.volume(),
            disk_full: self.space.is_low(),
            step_delay_ms: self.step_delay_ms.load(Relaxed),
            ..StorageSnapshot::default()
        };
        let topics: Vec<_> = self.topics.read().by_id.values().cloned().collect();
        snapshot.topics = topics.len();
        let now_ms = self.options.clock.now_ms();
        for topic in topics {
            for partition in &topic.partitions {
                let log = partition.log.lock();
                snapshot.partitions += 1;
                snapshot.log_bytes = snapshot.log_bytes.saturating_add(log.bytes());
                snapshot.compaction_damaged_partitions += u64::from(log.uncleanable);
                let backlog = compaction::backlog_bytes(&log, &topic.settings, self.options.active_bytes_max, now_ms);
                snapshot.compaction_backlog_bytes = snapshot.compaction_backlog_bytes.saturating_add(backlog);
            }
        }
        for file in self.files.uses() {
            snapshot.log_files += 1;
            snapshot.log_file_bytes = snapshot.log_file_bytes.saturating_add(file.size);
            snapshot.log_file_dead_bytes = snapshot.log_file_dead_bytes.saturating_add(file.dead());
        }
        if let Ok(db) = self.db() {
            let property = |name: &str| db.property_int_value(name).ok().flatten().unwrap_or(0);
            let of_log = |name: &str| {
                let family = family(&db, cf::LOG).ok()?;
                db.property_int_value_cf(family, name).ok().flatten()
            };
            snapshot.write_stopped =
                property("rocksdb.is-write-stopped") > 0 || of_log("rocksdb.is-write-stopped") > Some(0);
            snapshot.write_delayed_bytes_per_second = property("rocksdb.actual-delayed-write-rate");
            snapshot.wal_bytes = wal_bytes(&self.options.path.join(DATABASE));
        }
        snapshot
    }
}

/// Sizes of the files of the write-ahead log.
fn wal_bytes(folder: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

//! The storage's threads: the writer, one that watches over the disk (`disk_watch`), the compactor, and one that does what time
//! asks for: retention, forgetting producers, giving deleted space back.
//!
//! Invariant: all but the watch may wait for a write, for a flush or for a compaction; what ends such waits when the disk
//! fails comes from the watch and the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millpond_types::Offset;
use parking_lot::{Condvar, Mutex};

use super::Result;
use super::compaction;
use super::disk_watch;
use super::error::{OpenError, StorageError};
use super::flush::now;
use super::log_space;
use super::offsets_topic;
use super::partition::{LogState, Partition};
use super::shared::{Shared, family};
use super::topics::Topic;
use super::writer::{self, Change};
use crate::configs::TopicSettings;
use crate::keys::{self, Kind, cf};

/// Live batches are moved out of log files when what is dead beside them would fill so many files, and is a third of all.
/// Where all is deleted in the order in which it came, it is less, and files die by themselves.
const GARBAGE_FILES_MIN: u64 = 2;
/// How often it is looked whether there is space to give back.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// After a start that left batches to be counted, so many are, each time after so long, until all are.
const COUNTED_AT_ONCE: usize = 20_000;
const COUNT_INTERVAL: Duration = Duration::from_millis(20);
/// How often it is looked whether the threads have ended, and how many times before what RocksDB does for them is cut off.
const END_POLL: Duration = Duration::from_millis(10);
const END_POLLS_MAX: usize = 500;
/// A tail is dropped when nothing was appended for so long, or for up to twice that.
const TAIL_REST: Duration = Duration::from_secs(5);
/// As long as less than this was deleted of what lies in the database itself, it is left to RocksDB when the disk gets it back.
const RECLAIM_BYTES_MIN: u64 = 32 << 20;

pub struct Threads {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    /// Of the watch, which ends after all others: they may wait for what it finds out.
    stop_watch: Arc<Stop>,
    /// The writer is the first and the watch the last.
    running: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
pub struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    /// True when it is time to end.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        self.changed.wait_while_for(&mut stopped, |stopped| !*stopped, at_most);
        *stopped
    }
}

pub fn start(shared: &Arc<Shared>) -> Result<Threads, OpenError> {
    let threads =
        Threads { shared: shared.clone(), stop: Arc::default(), stop_watch: Arc::default(), running: Mutex::default() };
    threads.spawn("storage-writer", &threads.stop, |shared, stop| writer::run(&shared, &stop))?;
    threads.spawn("storage-keeper", &threads.stop, |shared, stop| keep(&shared, &stop))?;
    threads.spawn("storage-compactor", &threads.stop, |shared, stop| compaction::run(&shared, &stop))?;
    threads.spawn("storage-watch", &threads.stop_watch, |shared, stop| disk_watch::run(&shared, &stop))?;
    Ok(threads)
}

impl Threads {
    fn spawn(
        &self,
        name: &str,
        stop: &Arc<Stop>,
        work: impl FnOnce(Arc<Shared>, Arc<Stop>) + Send + 'static,
    ) -> Result<(), OpenError> {
        let (shared, stop) = (self.shared.clone(), stop.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(shared, stop)).map_err(|e| {
            OpenError::Io {
                path: self.shared.options.path.display().to_string(),
                detail: format!("thread \"{name}\" cannot be started: {e}"),
            }
        })?;
        self.running.lock().push(thread);
        Ok(())
    }

    /// Ends the threads after the queue was written.
    pub fn stop(&self) {
        self.stop.set();
        self.shared.queue.close();
        let mut threads = std::mem::take(&mut *self.running.lock());
        let watch = threads.pop();
        let mut polls = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            thread::park_timeout(END_POLL);
            // What the writer writes was promised; a flush or a compaction that somebody waits for was not.
            polls += usize::from(threads.first().is_some_and(JoinHandle::is_finished));
            if polls == END_POLLS_MAX
                && let Ok(db) = self.shared.db()
            {
                db.cancel_all_background_work(false);
            }
        }
        self.stop_watch.set();
        for thread in threads.into_iter().chain(watch) {
            if thread.join().is_err() {
                tracing::error!("a thread of the storage ended by a panic");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(shared: &Shared, stop: &Stop) {
    let retention = shared.options.retention_interval.max(Duration::from_millis(1));
    // A clock that somebody sets back must not stop retention.
    let (mut retained, mut reclaimed, mut tails_looked) = (now(), now(), now());
    let mut counts = true;
    loop {
        let turn = retention.min(if counts { COUNT_INTERVAL } else { RECLAIM_INTERVAL });
        if stop.wait(turn) {
            return;
        }
        shared.space.look();
        if shared.broken.load(Ordering::Relaxed) {
            // Tails tell what is surely on disk.
            continue;
        }
        if tails_looked.elapsed() >= TAIL_REST {
            tails_looked = now();
            drop_resting_tails(shared);
        }
        shared.reserve.make(shared.space.free());
        if shared.space.is_low() {
            shared.files.give_up_ahead();
        }
        let mut retain_in_time = || {
            if retained.elapsed() >= retention {
                retained = now();
                let done = retain(shared, Some(stop)).and_then(|()| log_space::remove_dead(shared, Some(stop)));
                tell("retention failed", done);
            }
        };
        retain_in_time();
        tell("what groups hold is not all in the topic of their offsets", offsets_topic::fill(shared, stop));
        counts = log_space::go_on_counting(shared, COUNTED_AT_ONCE);
        let looked = log_space::look_at_distrusted(shared, stop);
        tell("what lies in log files that could not be forced to disk is not looked at", looked);
        // While it counts it turns often, and what there is to give back is mostly known when all is counted.
        if !counts || reclaimed.elapsed() >= RECLAIM_INTERVAL {
            reclaimed = now();
            tell("deleted space is not given back", reclaim(shared, stop, &mut retain_in_time));
        }
    }
}

/// Says that something failed. That the storage is closed is none: it ends, or is opened again and this comes with the next turn.
fn tell(what: &str, done: Result<()>) {
    match done {
        Ok(()) | Err(StorageError::Closed) => {}
        Err(e) => tracing::error!("{what}: {e}"),
    }
}

fn drop_resting_tails(shared: &Shared) {
    let turn = shared.tails.lock().look();
    while shared.tails.lock().drop_some(turn) {}
}

/// Retention of all partitions; without an end to wait for, somebody asked for it.
pub fn retain(shared: &Shared, stop: Option<&Stop>) -> Result<()> {
    let now_ms = shared.options.clock.now_ms();
    let expiration = shared.configs().producer_expiration().unwrap_or(shared.options.producer_expiration);
    let expiration_ms = i64::try_from(expiration.as_millis()).unwrap_or(i64::MAX);
    let unused_since_ms = now_ms.saturating_sub(expiration_ms);
    let topics: Vec<Arc<Topic>> = shared.topics.read().by_id.values().cloned().collect();
    for topic in topics {
        for partition in &topic.partitions {
            if stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
                return Ok(());
            }
            retain_partition(shared, &topic, partition, now_ms)?;
            if partition.producers.lock().values().any(|p| p.used_ms < unused_since_ms) {
                shared.change_blocking(Change::ForgetProducers { partition: partition.clone(), unused_since_ms })?;
            }
        }
    }
    Ok(())
}

fn retain_partition(shared: &Shared, topic: &Topic, partition: &Arc<Partition>, now_ms: i64) -> Result<()> {
    let settings = &topic.settings;
    let start = {
        let log = partition.log.lock();
        if log.gone || !settings.deleted {
            return Ok(());
        }
        expired(&log, settings, now_ms, shared.options.retention_grace)
    };
    if let Some(before) = start {
        let bytes = partition.log.lock().bytes();
        shared.change_blocking(Change::MoveStart { partition: partition.clone(), before, strict: false })?;
        log_space::count(shared);
        let freed = bytes.saturating_sub(partition.log.lock().bytes());
        shared.measures.retention_bytes_freed.fetch_add(freed, Ordering::Relaxed);
        tracing::info!(topic = topic.name, partition = partition.place.partition, "log starts at {before} now");
    }
    Ok(())
}

/// Where the log should start by its retention settings, if not where it does. The oldest segments go, as long as each is
/// too old and was not appended to just now, or what stays is enough.
fn expired(log: &LogState, settings: &TopicSettings, now_ms: i64, grace: Duration) -> Option<Offset> {
    let oldest_ms = settings.retention_ms.map(|ms| now_ms.saturating_sub(ms));
    let mut left = log.bytes();
    let mut start = None;
    for segment in log.segments.iter().chain(&log.open) {
        let too_old = oldest_ms.is_some_and(|oldest| segment.age_from() < oldest) && !segment.is_young(now_ms, grace);
        let too_much = settings.retention_bytes.is_some_and(|max| left.saturating_sub(segment.bytes) >= max);
        if !too_old && !too_much {
            break;
        }
        left = left.saturating_sub(segment.bytes);
        start = Some(segment.last + 1);
    }
    start
}

/// Compacts partitions with much deleted; log files without live batches go at once. What is to be done in time meanwhile is
/// done `between`.
fn reclaim(shared: &Shared, stop: &Stop, between: &mut dyn FnMut()) -> Result<()> {
    let removed = log_space::remove_dead(shared, Some(stop));
    let uids: Vec<u64> = {
        let mut reclaim = shared.reclaim.lock();
        if reclaim.values().fold(0, |sum, bytes| u64::saturating_add(sum, *bytes)) < RECLAIM_BYTES_MIN {
            Vec::new()
        } else {
            reclaim.drain().map(|(uid, _)| uid).collect()
        }
    };
    compact_keys(shared, Some(stop), &uids)?;
    let bytes_min = shared.options.log_file_bytes.saturating_mul(GARBAGE_FILES_MIN);
    log_space::collect(shared, Some(stop), bytes_min, between)?;
    removed
}

pub fn reclaim_all(shared: &Shared) -> Result<()> {
    while log_space::go_on_counting(shared, COUNTED_AT_ONCE) {}
    log_space::count(shared);
    let uids: Vec<u64> = shared.reclaim.lock().drain().map(|(uid, _)| uid).collect();
    compact_keys(shared, None, &uids)?;
    log_space::collect(shared, None, 1, &mut || {})?;
    write_memtables(shared)?;
    log_space::remove_dead(shared, None)
}

/// What is left in memtables keeps all that was written since in the write-ahead log. Where it fails, RocksDB waits for ever,
/// here and in a compaction, which begins with it; that ends when the database is opened again (`recovery`).
fn write_memtables(shared: &Shared) -> Result<()> {
    for name in cf::ALL {
        let db = shared.db()?;
        db.flush_cf(family(&db, name)?)?;
    }
    Ok(())
}

/// Has RocksDB drop what was deleted of partitions.
fn compact_keys(shared: &Shared, stop: Option<&Stop>, uids: &[u64]) -> Result<()> {
    if uids.is_empty() {
        return Ok(());
    }
    write_memtables(shared)?;
    for uid in uids {
        if stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
            return Ok(());
        }
        let db = shared.db()?;
        let (from, to) = keys::partition_range(Kind::Batch, *uid);
        db.compact_range_cf(family(&db, cf::LOG)?, Some(from), Some(to));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::partition::Segment;
    use super::*;
    use crate::configs::check_topic_configs;

    fn log() -> LogState {
        let mut log = LogState { end: 40, ..LogState::default() };
        for (i, time) in [10, 50, 20].into_iter().enumerate() {
            let base = i as i64 * 10;
            log.segments.push(Segment::starting_with(base, base + 9, time, 60, 100));
        }
        // No record here has a time, so that the append's counts.
        log.open = Some(Segment::starting_with(30, 39, -1, 60, 50));
        log
    }

    fn check(configs: &[(&str, &str)], now_ms: i64, grace: Duration) -> Option<Offset> {
        let configs: BTreeMap<String, String> =
            configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        expired(&log(), &check_topic_configs(&configs).unwrap(), now_ms, grace)
    }

    #[test]
    fn old_segments_go_in_order() {
        assert_eq!(check(&[("retention.ms", "100")], 100, Duration::ZERO), None);
        assert_eq!(check(&[("retention.ms", "100")], 111, Duration::ZERO), Some(10));
        assert_eq!(check(&[("retention.ms", "100")], 151, Duration::ZERO), Some(30));
        assert_eq!(check(&[("retention.ms", "100")], 161, Duration::ZERO), Some(40));
        assert_eq!(check(&[("retention.ms", "-1")], i64::MAX, Duration::ZERO), None);
    }

    #[test]
    fn what_stays_is_at_least_the_size_asked_for() {
        assert_eq!(check(&[("retention.bytes", "350")], 0, Duration::ZERO), None);
        assert_eq!(check(&[("retention.bytes", "250")], 0, Duration::ZERO), Some(10));
        assert_eq!(check(&[("retention.bytes", "249")], 0, Duration::ZERO), Some(10));
        assert_eq!(check(&[("retention.bytes", "0")], 0, Duration::ZERO), Some(40));
    }

    #[test]
    fn what_was_just_appended_goes_by_size_alone() {
        let (all, grace) = ([("retention.ms", "0")], Duration::from_millis(40));
        assert_eq!(check(&all, 99, grace), None, "they were appended at 60");
        assert_eq!(check(&all, 100, grace), Some(40));
        assert_eq!(check(&[("retention.bytes", "250")], 61, grace), Some(10));
        // A clock that was set back by more than that does not keep them for longer.
        assert_eq!(check(&[("retention.ms", "5")], 21, grace), None);
        assert_eq!(check(&[("retention.ms", "5")], 20, grace), Some(10));
    }
}

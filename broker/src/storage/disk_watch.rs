//! The thread that watches over the disk: it forces writes to disk at intervals, looks whether RocksDB could write its
//! memtables, and asks the writer to open the database again after something failed.
//!
//! Invariant: it never waits for the writer, for a flush or for a compaction, because all of these may be waiting for what
//! it does; only for an fsync of its own.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millpond_types::Sequence;

use super::error::StorageError;
use super::flush::{Attempt, now};
use super::housekeeping::Stop;
use super::shared::Shared;
use super::{Durability, Result};

/// How often it is looked whether something failed, and how long after one try to mend it the next begins.
const INTERVAL: Duration = Duration::from_secs(1);

/// Until all who may wait for something of this have ended.
pub fn run(shared: &Shared, stop: &Stop) {
    let sync = match shared.options.durability {
        Durability::Interval(interval) => Some(interval.max(Duration::from_millis(1))),
        Durability::None | Durability::Group => None,
    };
    let turn = sync.map_or(INTERVAL, |sync| sync.min(INTERVAL));
    let (mut forced, mut mended) = (now(), None::<Instant>);
    let mut unsure = None;
    while !stop.wait(turn) {
        if shared.broken.load(Ordering::Relaxed) {
            unsure = None;
            if shared.mend_due.load(Ordering::Relaxed) {
                mended = Some(now());
            } else if mended.is_none_or(|at| at.elapsed() >= INTERVAL) {
                ask_to_mend(shared);
                mended = Some(now());
            }
            continue;
        }
        if let Some(why) = shared.files.failure() {
            // A flush has forced them too.
            shared.force_failed("a log file", &why);
            continue;
        }
        if let Err(e) = shared.db().and_then(|db| shared.flush_failures.look(&db)) {
            shared.flush_failed(&e);
            continue;
        }
        if sync.is_some_and(|sync| turn < INTERVAL || forced.elapsed() >= sync) {
            forced = now();
            // Of a failure everybody was told already.
            let _failed = force(shared, &mut unsure);
        } else if let Err(e) = settle(shared, &mut unsure) {
            tracing::debug!("{e}");
        }
        if shared.files.has_unforced_full() {
            // So that little has to be looked at after a power cut, and little is written at once when it must be.
            let written = shared.written.load(Ordering::Acquire);
            if shared.files.force().is_ok() {
                shared.notes.kept(written);
            }
        }
    }
}

fn ask_to_mend(shared: &Shared) {
    shared.mend_due.store(true, Ordering::Relaxed);
    shared.wake_writer();
}

/// What was forced to disk, as far as no flush failed meanwhile: one forces logs too, and whoever comes second is not told
/// that the first has failed.
pub struct Unsure {
    attempt: Attempt,
    written: u64,
    shown: Sequence,
}

/// Forces to disk what was acknowledged, unless it is there. What is not sure for a flush that ran is kept until that is
/// known.
pub fn force(shared: &Shared, unsure: &mut Option<Unsure>) -> Result<()> {
    let (written, shown) = (shared.written.load(Ordering::Acquire), shared.sequence());
    if unsure.is_none() && shared.forced.is_good(shown) && shared.notes.is_forced(written) {
        return Ok(());
    }
    let Ok(db) = shared.db() else { return Ok(()) };
    let attempt = shared.flush_failures.attempt(&db)?;
    // Before the log that names what lies in them.
    if let Err(why) = shared.files.force() {
        shared.force_failed("a log file", &why);
        return Err(StorageError::Unavailable(why));
    }
    shared.notes.kept(written);
    db.flush_wal(true).inspect_err(|e| shared.force_failed("the write-ahead log", e))?;
    if unsure.is_none() {
        *unsure = attempt.map(|attempt| Unsure { attempt, written, shown });
    }
    settle(shared, unsure)
}

fn settle(shared: &Shared, unsure: &mut Option<Unsure>) -> Result<()> {
    let Some(kept) = unsure else { return Ok(()) };
    if let Some(good) = shared.flush_failures.none_since(&*shared.db()?, &kept.attempt)? {
        if good {
            shared.forced.good(kept.shown);
            shared.notes.forced(kept.written);
        }
        *unsure = None;
    }
    Ok(())
}

//! Flushes that fail. As RocksDB has to be opened here (`directory`), it does not try again what failed, and waits for ever
//! for it. Nor does a write end that waits for such a flush.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rocksdb::{DB, FlushOptions};

use super::Result;
use super::error::StorageError;
use super::shared::family;
use crate::keys::cf;

const IMMUTABLE: &str = "rocksdb.num-immutable-mem-table";
const MEMTABLES_BYTES: &str = "rocksdb.cur-size-all-mem-tables";
const ACTIVE_BYTES: &str = "rocksdb.cur-size-active-mem-table";
const RUNNING: &str = "rocksdb.num-running-flushes";
const ERRORS: &str = "rocksdb.background-errors";
/// Memtables of a column family that wait, from which RocksDB would keep a flush waiting.
const WAITING_MAX: u64 = 2;
const POLL: Duration = Duration::from_millis(5);
/// Nothing runs for so long while something waits: then it has failed, or has been forgotten.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// For how long something takes; nothing that is stored hangs on it.
#[expect(clippy::disallowed_methods, reason = "what a disk does takes real time, whatever the clock says")]
pub fn now() -> Instant {
    Instant::now()
}

/// Flushes and compactions of RocksDB that failed.
fn errors(db: &DB) -> Result<u64> {
    Ok(db.property_int_value(ERRORS)?.unwrap_or(0))
}

/// Most memtables of a column family that are to be written.
fn waiting(db: &DB) -> Result<u64> {
    let mut most = 0;
    for name in cf::ALL {
        most = most.max(db.property_int_value_cf(family(db, name)?, IMMUTABLE)?.unwrap_or(0));
    }
    Ok(most)
}

/// What is to be written, of all column families.
pub fn waiting_bytes(db: &DB) -> Result<u64> {
    let mut bytes = 0;
    for name in cf::ALL {
        let size =
            |property| Ok::<_, StorageError>(db.property_int_value_cf(family(db, name)?, property)?.unwrap_or(0));
        bytes += size(MEMTABLES_BYTES)?.saturating_sub(size(ACTIVE_BYTES)?);
    }
    Ok(bytes)
}

fn is_running(db: &DB) -> Result<bool> {
    Ok(db.property_int_value(RUNNING)?.unwrap_or(0) > 0)
}

fn failed() -> StorageError {
    StorageError::Unavailable("what is in memory could not be written to tables".into())
}

/// Writes all that is in memory to tables, and waits for it. An error where that fails. Nothing else is written meanwhile.
pub fn flush(db: &DB) -> Result<()> {
    let mut options = FlushOptions::default();
    options.set_wait(false);
    for name in cf::ALL {
        if waiting(db)? >= WAITING_MAX {
            wait(db)?;
        }
        db.flush_cf_opt(family(db, name)?, &options)?;
    }
    wait(db)
}

fn wait(db: &DB) -> Result<()> {
    let mut busy = now();
    loop {
        // It runs until what the tables replace is deleted.
        if is_running(db)? {
            busy = now();
        } else if waiting(db)? == 0 {
            return Ok(());
        } else if busy.elapsed() >= IDLE_MAX {
            return Err(failed());
        }
        std::thread::park_timeout(POLL);
    }
}

/// How long after a flush it is known for sure that it did not fail: RocksDB counts that at once.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// How long memtables wait, after something failed, until it is said that it was their flush.
const SUSPECTED_FOR: Duration = Duration::from_secs(1);

/// Flushes that failed, as far as they were looked at.
#[derive(Default)]
pub struct Failures {
    /// Errors that were accounted for, and of which handle: another one begins anew.
    seen: Mutex<(usize, u64)>,
    /// Since when memtables wait for no flush after an error.
    suspected: Mutex<Option<Instant>>,
}

/// A force during which a flush may have been running.
pub struct Attempt {
    errors: u64,
    begun: Instant,
}

impl Failures {
    fn seen(&self, db: &Arc<DB>) -> u64 {
        let seen = self.seen.lock();
        if seen.0 == Arc::as_ptr(db).addr() { seen.1 } else { 0 }
    }

    /// To be called before a force. `None` where something failed that was not looked at yet.
    pub fn attempt(&self, db: &Arc<DB>) -> Result<Option<Attempt>> {
        let errors = errors(db)?;
        Ok((errors == self.seen(db)).then(|| Attempt { errors, begun: now() }))
    }

    /// Whether no flush that ran during the force can have failed; `None` as long as that is not known.
    pub fn none_since(&self, db: &DB, attempt: &Attempt) -> Result<Option<bool>> {
        // In this order: one that fails is counted before it ends.
        let ended = !is_running(db)? || attempt.begun.elapsed() >= TOLD_AFTER;
        if errors(db)? != attempt.errors {
            return Ok(Some(false));
        }
        Ok(ended.then_some(true))
    }

    /// An error where a flush has failed, and is not tried again. A compaction that fails, at a damaged block, is counted
    /// too, but leaves no memtable waiting for long.
    pub fn look(&self, db: &Arc<DB>) -> Result<()> {
        let errors = errors(db)?;
        let mut suspected = self.suspected.lock();
        if errors == self.seen(db) || is_running(db)? {
            *suspected = None;
            return Ok(());
        }
        let waits = waiting(db)? > 0;
        if waits && suspected.get_or_insert_with(now).elapsed() < SUSPECTED_FOR {
            return Ok(());
        }
        *suspected = None;
        *self.seen.lock() = (Arc::as_ptr(db).addr(), errors);
        if waits { Err(failed()) } else { Ok(()) }
    }
}

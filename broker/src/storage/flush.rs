//! Writing memtables to tables, without RocksDB's own waiting: as it has to be opened here (`directory`), it does not try
//! again what failed, and waits for ever for it. Nor does a write end that waits for such a flush.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rocksdb::{DB, FlushOptions};

use super::Result;
use super::error::StorageError;
use super::shared::family;
use crate::keys::cf;

const IMMUTABLE: &str = "rocksdb.num-immutable-mem-table";
const RUNNING: &str = "rocksdb.num-running-flushes";
const ERRORS: &str = "rocksdb.background-errors";
/// Memtables of a column family that wait, from which RocksDB would keep a flush waiting.
const WAITING_MAX: u64 = 2;
const POLL: Duration = Duration::from_millis(5);

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

fn is_running(db: &DB) -> Result<bool> {
    Ok(db.property_int_value(RUNNING)?.unwrap_or(0) > 0)
}

fn failed() -> StorageError {
    StorageError::Unavailable(
        "what is in memory could not be written to tables; the database's file LOG says why".into(),
    )
}

/// Writes all that is in memory to tables, and waits for it. An error where that fails.
pub fn flush(db: &DB) -> Result<()> {
    let before = errors(db)?;
    let mut options = FlushOptions::default();
    options.set_wait(false);
    for name in cf::ALL {
        if waiting(db)? >= WAITING_MAX {
            wait(db, before)?;
        }
        db.flush_cf_opt(family(db, name)?, &options)?;
    }
    wait(db, before)
}

fn wait(db: &DB, errors_before: u64) -> Result<()> {
    // It runs until what the tables replace is deleted.
    while waiting(db)? > 0 || is_running(db)? {
        if errors(db)? > errors_before && !is_running(db)? && waiting(db)? > 0 {
            return Err(failed());
        }
        std::thread::park_timeout(POLL);
    }
    Ok(())
}

/// Flushes that failed, as far as they were looked at.
#[derive(Default)]
pub struct Failures {
    /// Errors that were accounted for, and of which handle: another one begins anew.
    seen: Mutex<(usize, u64)>,
}

impl Failures {
    fn seen(&self, db: &Arc<DB>) -> u64 {
        let seen = self.seen.lock();
        if seen.0 == Arc::as_ptr(db).addr() { seen.1 } else { 0 }
    }

    /// Whether no flush can have failed that was not looked at.
    pub fn none(&self, db: &Arc<DB>) -> Result<bool> {
        Ok(!is_running(db)? && errors(db)? == self.seen(db))
    }

    /// An error where a flush has failed, and is not tried again. A compaction that fails, at a damaged block, leaves no
    /// memtable waiting.
    pub fn look(&self, db: &Arc<DB>) -> Result<()> {
        let now = errors(db)?;
        if now == self.seen(db) || is_running(db)? {
            return Ok(());
        }
        *self.seen.lock() = (Arc::as_ptr(db).addr(), now);
        if waiting(db)? > 0 && !is_running(db)? { Err(failed()) } else { Ok(()) }
    }
}

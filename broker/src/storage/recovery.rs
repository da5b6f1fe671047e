//! Going on after a write has failed. RocksDB then refuses every write and has no way back but to be opened again, which
//! is done under the feet of those who read: they get a handle that only reads in between.

use std::sync::Arc;
use std::time::Duration;

use rocksdb::DB;

use super::commits;
use super::directory::{open_database, open_read_only};
use super::error::{OpenError, StorageError};
use super::housekeeping::Stop;
use super::log_space;
use super::salvage;
use super::shared::{Shared, family};
use super::verify::verify;
use super::{Result, StorageOptions};
use crate::keys::{self, Counter, Fields, cf};

/// How often, and how many times, it is looked whether somebody still reads from the old handle.
const WAIT: Duration = Duration::from_millis(10);
const WAITS_MAX: usize = 1000;

/// Number of the last write that the database holds, as one who opened it now would find it.
pub fn last_write(options: &StorageOptions) -> Result<u64> {
    number_in(&open_read_only(options).map_err(unavailable)?)
}

/// Number of the last write.
pub fn number_in(db: &DB) -> Result<u64> {
    let value = db.get_cf(family(db, cf::META)?, keys::counter(Counter::Writes));
    let value = value.map_err(|e| salvage::failed(cf::META, e))?;
    Ok(value.and_then(|value| Fields(&value).u64()).unwrap_or(0))
}

fn unavailable(e: OpenError) -> StorageError {
    StorageError::Unavailable(e.to_string())
}

/// Opens the database again and says which write it ends with; `shown` is the last that was shown. Where that fails,
/// everything can still be read, but for state and offsets of queries where these may have more than that.
pub fn reopen(shared: &Shared, stop: &Stop, shown: u64) -> Result<u64> {
    let reader = Arc::new(open_read_only(&shared.options).map_err(unavailable)?);
    let before = shared.forced.may_show_more();
    // Before it is there for others. It ends when what is in doubt is on disk, or is known not to be.
    shared.forced.shows_more(number_in(&reader)? != shown);
    let mut old = shared.replace_db(reader)?;
    log_space::count(shared);
    // The writer begins anew when what it knows is what is there.
    log_space::stop_counting(shared);
    // Somebody may be waiting in it for a flush that failed, or for a long compaction.
    old.cancel_all_background_work(false);
    // The old handle holds the lock of the directory.
    for _ in 0..WAITS_MAX {
        match Arc::try_unwrap(old) {
            Ok(last) => {
                drop(last);
                let options = &shared.options;
                let distrusted = shared.files.write_again()?;
                log_space::distrust(shared, distrusted);
                let open = || open_database(options, &shared.files);
                let db = verify(options).and_then(|_| open()).map_err(unavailable)?;
                commits::replay(&db, options).map_err(unavailable)?;
                let last = number_in(&db)?;
                shared.forced.shows_more(last != shown);
                shared.replace_db(Arc::new(db))?;
                return Ok(last);
            }
            Err(held) => old = held,
        }
        if stop.wait(WAIT) {
            break;
        }
    }
    shared.replace_db(old)?;
    shared.forced.shows_more(before);
    Err(StorageError::Unavailable("somebody still reads what was open before".into()))
}

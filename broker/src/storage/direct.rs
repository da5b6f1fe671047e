//! Writing past the operating system's cache, and what of it belongs into that cache after all.
//!
//! Off unless asked for. Batches are written twice, into the write-ahead log and into a blob file; through the cache, the
//! second write too fills pages and turns others out. But who reads a little later then reads from disk; docs/benchmarks.md
//! has what both cost. RocksDB knows one switch for the files of all column families, but the state of queries is read at
//! random, so the keeper has the operating system read new files of state while there is memory for them.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rocksdb::DB;
use rustix::fs::{Advice, OFlags, fadvise};

use super::Result;
use super::directory::DATABASE;
use super::shared::{Shared, family};
use crate::keys::cf;

const PROBE: &str = "direct-io";
/// What such writes have to be a multiple of, in memory too.
const ALIGNMENT: usize = 4096;

/// Whether the file system of this directory takes direct writes. Some, as those in memory, do not.
pub fn is_possible(directory: &Path) -> bool {
    let path = directory.join(PROBE);
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(&path)?;
        let buffer = vec![0; 2 * ALIGNMENT];
        let skip = buffer.as_ptr().align_offset(ALIGNMENT);
        file.write_all(buffer.get(skip..skip.saturating_add(ALIGNMENT)).unwrap_or_default())
    };
    let written = write();
    let _absent = fs::remove_file(&path);
    if let Err(e) = &written {
        tracing::info!("files are written through the operating system's cache: {e}");
    }
    written.is_ok()
}

/// Files of state that the operating system was asked to read.
#[derive(Default)]
pub struct Warmth {
    version: Option<u64>,
    known: HashSet<String>,
}

impl Warmth {
    /// Has new files of state read into the cache, while all of them take no more than half of what it may have.
    pub fn look(&mut self, shared: &Shared) -> Result<()> {
        if !shared.direct_io {
            return Ok(());
        }
        let db = shared.db()?;
        let state = family(&db, cf::STATE)?;
        // It changes with the files.
        let version = db.property_int_value_cf(state, "rocksdb.current-super-version-number")?;
        if version == self.version {
            return Ok(());
        }
        let first = self.version.is_none();
        self.version = version;
        let files = state_files(&db)?;
        let size = files.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        // What was there at the start is read as it is needed.
        if !first && size <= available() / 2 {
            for (name, _) in files.iter().filter(|(name, _)| !self.known.contains(name)) {
                let path = shared.options.path.join(DATABASE).join(name);
                // A compaction may have removed it meanwhile.
                if let Ok(file) = File::open(path) {
                    let _refused = fadvise(&file, 0, None, Advice::WillNeed);
                }
            }
        }
        self.known = files.into_iter().map(|(name, _)| name).collect();
        Ok(())
    }
}

fn state_files(db: &DB) -> Result<Vec<(String, u64)>> {
    let of_state = db.live_files()?.into_iter().filter(|file| file.column_family_name == cf::STATE);
    Ok(of_state.map(|file| (file.name.trim_start_matches('/').to_owned(), file.size as u64)).collect())
}

/// Memory that the operating system could use for its cache.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

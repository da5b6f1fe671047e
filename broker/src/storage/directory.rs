//! The data directory: whose it is, which format it has, and the RocksDB inside.
//!
//! ```text
//! millpond   text: "millpond data directory", "format N", "ready" once the database was made; locked while in use
//! db/        RocksDB
//! log/       batches: `log_files`
//! written    how far was written: `note`
//! reserve    takes space: `reserve`
//! trial/     while it is looked what tables alone hold: `verify`
//! mended/    a database in the making, without what is damaged: `salvage`
//! lost-*     what was put aside because something before it was lost: `verify`
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, InfoLogger, LogLevel, LruCacheOptions,
    Options,
};

use super::StorageOptions;
use super::error::OpenError;
use super::flush::now;
use super::log_files::LogFiles;
use crate::keys::{FORMAT_VERSION, LAST_FILE_FORMAT, cf};

const MARKER: &str = "millpond";
pub const DATABASE: &str = "db";
pub const MENDED: &str = "mended";
const FIRST_LINE: &str = "millpond data directory";
const MARKER_BYTES_MAX: u64 = 4096;

const WAL_BYTES_MAX: u64 = 128 << 20;
/// Half of what a process may open where nobody raised the limit; the rest is for connections.
pub const OPEN_FILES_MAX: i32 = 512;
/// Memtables grow by so much at a time, so that idle ones are small.
const ARENA_BYTES: usize = 128 << 10;
const SMALL_MEMTABLE_BYTES: usize = 4 << 20;
/// Said by RocksDB before it begins to write a memtable to a table.
const FLUSH_BEGINS: &str = "flush_started";
/// What RocksDB says over and over is told anew when it was silent for so long.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// So much of it is compared.
const TOLD_CHARS: usize = 400;

/// Holds the directory for this process until it is dropped.
#[derive(Debug)]
pub struct Claim {
    marker: File,
    format: u32,
    ready: bool,
}

/// A new directory is its owner's alone: it holds records, keys of users and the secret of delegation tokens. One that
/// exists keeps the mode that somebody gave it.
fn create(path: &Path) -> std::io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Checks that the directory is ours or empty, creates what is missing, and locks it.
pub fn claim(path: &Path) -> Result<Claim, OpenError> {
    let name = || path.display().to_string();
    let io = |e: std::io::Error| OpenError::Io { path: name(), detail: e.to_string() };
    create(path).map_err(io)?;
    let marker_path = path.join(MARKER);
    if !marker_path.try_exists().map_err(io)? && count_files(path).map_err(io)? > 0 {
        return Err(OpenError::Foreign(name()));
    }
    let mut marker =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&marker_path).map_err(io)?;
    match marker.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(name())),
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    let mut bytes = Vec::new();
    (&mut marker).take(MARKER_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    if bytes.is_empty() {
        // New, or a crash came between creating the marker and writing it.
        if count_files(path).map_err(io)? > 1 {
            return Err(OpenError::Damaged {
                path: name(),
                detail: format!("the marker file \"{MARKER}\" is empty, but there are other files"),
            });
        }
        write_marker(&mut marker, false).map_err(io)?;
        sync_directory(path).map_err(io)?;
        return Ok(Claim { marker, format: FORMAT_VERSION, ready: false });
    }
    let damaged = |detail: &str| OpenError::Damaged { path: name(), detail: detail.to_owned() };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("the marker file is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(damaged("the marker file does not begin as it should"));
    }
    let format = lines
        .next()
        .and_then(|l| l.strip_prefix("format "))
        .and_then(|n| n.parse::<u32>().ok())
        .ok_or_else(|| damaged("the marker file names no format"))?;
    if format > FORMAT_VERSION {
        return Err(OpenError::Newer { path: name(), found: format, known: FORMAT_VERSION });
    }
    if format == 0 {
        return Err(damaged("the marker file names format 0"));
    }
    let ready = lines.next() == Some("ready");
    if ready && !path.join(DATABASE).exists() && path.join(MENDED).join("CURRENT").is_file() {
        // It was whole before the old one was put aside.
        fs::rename(path.join(MENDED), path.join(DATABASE)).and_then(|()| sync_directory(path)).map_err(io)?;
    }
    if ready && !path.join(DATABASE).join("CURRENT").is_file() {
        return Err(damaged("the database in \"db\" is missing"));
    }
    Ok(Claim { marker, format, ready })
}

impl Claim {
    /// Each write, and what a start writes, says which the last log file was.
    pub fn says_last_file(&self) -> bool {
        self.format >= LAST_FILE_FORMAT
    }

    /// Notes that the database was made, so that a missing one is damage, and that it is of this version's format: to be
    /// called before anything is written that an older one cannot read, and when a start has written what it does.
    pub fn set_ready(&mut self, path: &Path) -> Result<(), OpenError> {
        if !self.ready || self.format < FORMAT_VERSION {
            write_marker(&mut self.marker, true)
                .map_err(|e| OpenError::Io { path: path.display().to_string(), detail: e.to_string() })?;
            (self.ready, self.format) = (true, FORMAT_VERSION);
        }
        Ok(())
    }
}

fn write_marker(marker: &mut File, ready: bool) -> std::io::Result<()> {
    let ready = if ready { "ready\n" } else { "" };
    marker.seek(SeekFrom::Start(0))?;
    marker.write_all(format!("{FIRST_LINE}\nformat {FORMAT_VERSION}\n{ready}").as_bytes())?;
    marker.sync_all()
}

/// Without what a file system keeps at the top of a disk of its own.
fn count_files(path: &Path) -> std::io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(path)? {
        files += usize::from(entry?.file_name() != "lost+found");
    }
    Ok(files)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens the database of a claimed directory, making it where it is missing. Whether its log is whole was looked at
/// before (`verify`).
pub fn open_database(options: &StorageOptions, files: &Arc<LogFiles>) -> Result<DB, OpenError> {
    open_database_at(options, files, &options.path.join(DATABASE))
}

/// The same in another folder.
pub fn open_database_at(options: &StorageOptions, files: &Arc<LogFiles>, path: &Path) -> Result<DB, OpenError> {
    let families = families(options);
    let mut database = database_options(options);
    if options.accept_data_loss {
        // It forgets those that were lost. Never where it only reads, because it crashes then.
        database.set_track_and_verify_wals_in_manifest(false);
    }
    database.set_info_logger(logger(files.clone()));
    let db = DB::open_cf_descriptors(&database, path, families).map_err(|e| open_error(options, &e))?;
    let live = || db.live_files().map_err(|e| open_error(options, &e));
    for file in live()? {
        let name = file.name.trim_start_matches('/');
        let found = fs::metadata(path.join(name)).map(|found| found.len()).unwrap_or(0);
        // A compaction that began with the opening may have replaced it meanwhile.
        if found != file.size as u64 && live()?.iter().any(|still| still.name == file.name) {
            let detail = format!("the file \"{DATABASE}/{name}\" has {found} bytes, not {}", file.size);
            return Err(OpenError::Damaged { path: options.path.display().to_string(), detail });
        }
    }
    Ok(db)
}

/// RocksDB says that a flush begins before it writes the table, in the thread that does: there log files are forced to disk
/// first, so that no table names what is not there after a power cut. Of the rest little is passed on.
fn logger(files: Arc<LogFiles>) -> InfoLogger {
    let told = Mutex::new(Told::default());
    InfoLogger::new_callback_logger(LogLevel::Info, move |level, message| {
        if message.contains(FLUSH_BEGINS) {
            // The watch looks whether it has failed.
            let _failed = files.force();
        }
        match level {
            LogLevel::Error | LogLevel::Fatal if told.lock().is_news(message, now()) => {
                tracing::warn!("RocksDB: {message}");
            }
            LogLevel::Error | LogLevel::Fatal | LogLevel::Warn => tracing::debug!("RocksDB: {message}"),
            _ => {}
        }
    })
}

/// What RocksDB said last. It tries again each second what failed, and says so each time, with other numbers.
#[derive(Default)]
struct Told {
    text: String,
    at: Option<Instant>,
}

impl Told {
    /// Whether it is something else than before, or was not said for long.
    fn is_news(&mut self, message: &str, now: Instant) -> bool {
        let text = message.chars().filter(|c| !c.is_ascii_digit()).take(TOLD_CHARS).collect();
        let before = self.at.replace(now);
        let same = self.text == text && before.is_some_and(|at| now.duration_since(at) < TOLD_AGAIN_AFTER);
        self.text = text;
        !same
    }
}

/// The database as it is now, for reading alone; it may be open besides.
pub fn open_read_only(options: &StorageOptions) -> Result<DB, OpenError> {
    open_to_read(options, database_options(options))
}

/// The same with the write-ahead log of another folder.
pub fn open_read_only_with_log(options: &StorageOptions, log: &Path) -> Result<DB, OpenError> {
    let mut database = database_options(options);
    database.set_wal_dir(log);
    open_to_read(options, database)
}

fn open_to_read(options: &StorageOptions, mut database: Options) -> Result<DB, OpenError> {
    database.create_if_missing(false);
    database.create_missing_column_families(false);
    DB::open_cf_descriptors_read_only(&database, options.path.join(DATABASE), families(options), false)
        .map_err(|e| open_error(options, &e))
}

fn cache(options: &StorageOptions) -> Cache {
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(options.block_cache_bytes);
    cache.set_num_shard_bits(2);
    Cache::new_lru_cache_opts(&cache)
}

/// Of a family that is made in a database that is open.
pub fn family_to_make(name: &str, options: &StorageOptions) -> Options {
    family_options(name, options, &cache(options))
}

fn families(options: &StorageOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = cache(options);
    let descriptor = |name: &&str| ColumnFamilyDescriptor::new(*name, family_options(name, options, &cache));
    cf::ALL.iter().map(descriptor).collect()
}

fn open_error(options: &StorageOptions, e: &rocksdb::Error) -> OpenError {
    let path = options.path.display().to_string();
    let detail = e.to_string();
    match e.kind() {
        rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument | rocksdb::ErrorKind::NotFound => {
            OpenError::Damaged { path, detail }
        }
        _ if detail.contains("No such file") => OpenError::Damaged { path, detail },
        _ if detail.contains("lock") => OpenError::Locked(path),
        _ => OpenError::Io { path, detail },
    }
}

fn database_options(options: &StorageOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    // A block that is damaged fails those who read it, RocksDB's own compactions too, but must not end all writing, as it
    // would with paranoid checks; they cannot be changed later. What else hangs on them is done here: that tables are there,
    // when the database was opened; that its log is whole, before (`verify`), because RocksDB would
    // go on behind what it cannot read; that nothing is written after a write that failed (`writer`).
    db.set_paranoid_checks(false);
    // RocksDB knows which of its closed logs must be there, and how large.
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_max_open_files(OPEN_FILES_MAX);
    db.set_max_background_jobs(options.background_jobs);
    db.set_db_write_buffer_size(options.write_buffer_bytes);
    db.set_max_total_wal_size(WAL_BYTES_MAX);
    db.set_bytes_per_sync(1 << 20);
    db.set_wal_bytes_per_sync(512 << 10);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_skip_stats_update_on_db_open(true);
    db.set_avoid_unnecessary_blocking_io(true);
    // One thread writes.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    db
}

fn family_options(name: &str, options: &StorageOptions, cache: &Cache) -> Options {
    let mut family = Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    family.set_arena_block_size(ARENA_BYTES);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_max_write_buffer_number(3);
    match name {
        cf::STATE => {
            table.set_bloom_filter(10.0, false);
            family.set_write_buffer_size(options.write_buffer_bytes / 3);
        }
        cf::LOG => {
            family.set_write_buffer_size(SMALL_MEMTABLE_BYTES.min(options.write_buffer_bytes / 8));
            // Batches come compressed, or were meant not to be. Mostly it is where they lie; in directories of format 1
            // they lie in RocksDB's blob files, which stay readable.
            family.set_compression_type(DBCompressionType::None);
        }
        _ => family.set_write_buffer_size(SMALL_MEMTABLE_BYTES),
    }
    family.set_block_based_table_factory(&table);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_each_second_is_told_once() {
        let (mut told, begun) = (Told::default(), now());
        let mut is_news = |message: &str, seconds| told.is_news(message, begun + Duration::from_secs(seconds));
        assert!(is_news("no space: 000031.sst, 7 errors", 0));
        assert!((1..200).all(|n| !is_news(&format!("no space: 0000{n}.sst, {n} errors"), n)));
        assert!(is_news("another", 200));
        assert!(is_news("no space: 000031.sst, 7 errors", 201));
        assert!(is_news("no space: 000031.sst, 7 errors", 261), "after a while of silence");
    }
}

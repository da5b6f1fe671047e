//! Whether the database still holds what was acknowledged, looked at before RocksDB opens it for writing, which deletes
//! the files that would tell.
//!
//! A write that was under way when the process or the machine ended may be there in part: that is no damage. Neither is a
//! hole in what a power cut may take by the durability setting, or what lies in commit records too (`commits`); what lies
//! behind it is put aside then, with the log files that it may name, once it is known that nothing is lacking after that.
//! Everything else is refused, with the file and the place, unless somebody accepts the loss. So is what cannot be looked at just now: that is an error of the system, and
//! nobody knows what is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rocksdb::DB;

use super::StorageOptions;
use super::commits::{self, Commits};
use super::directory::{DATABASE, open_read_only, open_read_only_with_log};
use super::error::OpenError;
use super::log_files;
use super::note::Note;
use super::recheck::Recheck;
use super::recovery::number_in;
use super::wal::{self, Found, Log, Place};
use crate::keys::Placed;

/// In the folder of what is put aside: log files.
const ASIDE_FILES: &str = "log";
/// A write-ahead log of zeros, for as long as it is looked what tables hold.
const TRIAL: &str = "trial";
const OLDEST_NEEDED: &str = "rocksdb.min-log-number-to-keep";
/// What RocksDB says before the number.
const MISSING: &str = "Missing WAL with log number: ";
pub const WAY_OUT: &str =
    "bring back a copy, or start once with --accept-data-loss: it opens with what lies before and puts the rest aside";

/// The write that must be there, by what was noted.
pub fn least_write(options: &StorageOptions) -> Result<u64, OpenError> {
    Ok(Note::read(&options.path)?.map_or(0, |note| note.least()))
}

fn damaged(options: &StorageOptions, detail: String) -> OpenError {
    OpenError::Damaged { path: options.path.display().to_string(), detail }
}

fn io_error(options: &StorageOptions, file: &Path, e: &io::Error) -> OpenError {
    let detail = format!("\"{}\" cannot be read: {e}", file.display());
    OpenError::Io { path: options.path.display().to_string(), detail }
}

/// A log file cannot be looked at.
fn not_now(options: &StorageOptions, file: &Path, e: &io::Error) -> OpenError {
    let detail = format!(
        "log file \"{}\" cannot be looked at, and the end of the write-ahead log names batches in it: {e}; if it is gone \
         for good: {WAY_OUT}",
        file.display()
    );
    OpenError::Io { path: options.path.display().to_string(), detail }
}

/// The database ends before the write that must be there.
pub fn ends_early(options: &StorageOptions, last: u64, least: u64, torn: Option<&Place>) -> OpenError {
    let place = torn.map_or_else(
        || "a file of the write-ahead log is missing or cut short".into(),
        |place| format!("the write-ahead log cannot be read from {place} on"),
    );
    damaged(options, format!("it ends with write {last}, but write {least} was acknowledged: {place}; {WAY_OUT}"))
}

fn read_logs(options: &StorageOptions, oldest: u64) -> Result<(Vec<Log>, wal::Scan), OpenError> {
    let database = options.path.join(DATABASE);
    let mut logs = wal::logs(&database).map_err(|e| io_error(options, &database, &e))?;
    logs.retain(|log| log.number >= oldest);
    // Where nothing was noted, files may have been removed since.
    let kept = Note::read(&options.path)?.map_or(u64::MAX, |note| note.kept());
    let mut recheck = Recheck::new(options);
    let mut is_there = |number: u64, placed: &Placed| Ok(number <= kept || recheck.is_there(placed)?);
    let scan = wal::scan(&logs, &mut is_there);
    let scan = scan.map_err(|(log, e)| match recheck.failed() {
        Some(file) => not_now(options, file, &e),
        None => io_error(options, &log.path, &e),
    })?;
    recheck.force().map_err(|e| io_error(options, &options.path.join("log"), &e))?;
    Ok((logs, scan))
}

/// The files of the log that are needed, and what they hold.
fn look(options: &StorageOptions) -> Result<(Vec<Log>, wal::Scan), OpenError> {
    let (logs, scan) = read_logs(options, 0)?;
    if let Found::Damaged { .. } = scan.found
        // What is in tables already need not be in the log; RocksDB may have been deleting that just then.
        && let Ok(db) = open_read_only(options)
        && let Ok(Some(oldest)) = db.property_int_value(OLDEST_NEEDED)
    {
        return read_logs(options, oldest);
    }
    Ok((logs, scan))
}

/// A database that has lost nothing of what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its log ends with a whole record.
    pub whole: bool,
    /// Something is missing that nothing makes up for, and what lay behind it was put aside.
    pub cut: bool,
    /// RocksDB's sequence from which on that was, where it is known.
    pub cut_at: Option<u64>,
}

impl Verified {
    fn of(whole: bool) -> Self {
        Self { whole, cut: false, cut_at: None }
    }

    /// Whether tables hold what was written after the end of the log, when its counters were others.
    pub fn tables_are_ahead(&self, db: &DB) -> bool {
        self.cut && self.cut_at.is_none_or(|at| db.latest_sequence_number() >= at)
    }
}

/// Refuses a database that has lost something. Blocks on disk.
pub fn verify(options: &StorageOptions) -> Result<Verified, OpenError> {
    let note = Note::read(&options.path)?;
    let least = note.as_ref().map_or(0, Note::least);
    let (logs, scan) = look(options)?;
    let (torn, verified) = match &scan.found {
        Found::Whole if scan.records == 0 || scan.last_write >= Some(least) => {
            return Ok(Verified::of(true));
        }
        Found::Whole => (None, Verified::of(true)),
        Found::Torn(at) => (Some(at), Verified::of(false)),
        Found::Damaged { at, resumes } => {
            let Some(without) = without_rest(options, note.as_ref(), &scan, at == resumes)? else {
                let detail = if at == resumes {
                    format!("what the write at {at} put into a log file is not there; {WAY_OUT}")
                } else {
                    format!(
                        "the write-ahead log is damaged at {at}, and goes on at {resumes}: what was acknowledged from there on would be lost; {WAY_OUT}"
                    )
                };
                return Err(damaged(options, detail));
            };
            // What is written again from the log files stays named there.
            let file = if without == Without::MadeUp { Some(u32::MAX) } else { scan.file };
            let aside = put_aside(options, &logs, at.log.number, Some(at), (Left::Zeros, file))?;
            tracing::warn!("a power cut took what was not forced to disk: the log ends at {at}; {aside}");
            // What commit records make up for is written again with its counters.
            (Some(at), Verified { whole: false, cut: without == Without::Allowed, cut_at: scan.next })
        }
    };
    let db = open_read_only(options).map_err(with_way_out)?;
    let last = number_in(&db).map_err(|e| damaged(options, e.to_string()))?;
    let last = if last < least { Commits::after(options, last)?.reach(last) } else { last };
    if last < least { Err(ends_early(options, last, least, torn)) } else { Ok(verified) }
}

/// Why the database may do without what lies behind a hole in the write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// It was not forced to disk.
    Allowed,
    /// Commit records have it.
    MadeUp,
}

/// Whether it may, where batches in log files are what is missing or the log itself cannot be read.
fn without_rest(
    options: &StorageOptions,
    note: Option<&Note>,
    scan: &wal::Scan,
    batches_are_missing: bool,
) -> Result<Option<Without>, OpenError> {
    let Some(note) = note else { return Ok(None) };
    // With `group`, what the log names was forced before it: that is damage, whatever records say.
    if batches_are_missing && !note.allows_holes() {
        return Ok(None);
    }
    // Where no write is before the hole, tables say how far was written.
    let last = match scan.last_write {
        Some(last) => last,
        None => match in_tables(options) {
            Err(OpenError::Damaged { .. }) => return Ok(None),
            last => last?,
        },
    };
    if note.allows_holes() && last >= note.least() {
        return Ok(Some(Without::Allowed));
    }
    if batches_are_missing {
        return Ok(None);
    }
    let made_up = commits::make_up(options, (last, note.least()), scan.behind.as_ref())?;
    Ok(made_up.map(|_| Without::MadeUp))
}

/// Number of the last write that tables hold: what the database would end with if its log were zeros.
fn in_tables(options: &StorageOptions) -> Result<u64, OpenError> {
    let (database, trial) = (options.path.join(DATABASE), options.path.join(TRIAL));
    let zeros = || -> io::Result<()> {
        clear(&trial)?;
        fs::create_dir(&trial)?;
        for log in wal::logs(&database)? {
            let size = fs::metadata(&log.path)?.len();
            File::create_new(trial.join(log.path.file_name().unwrap_or_default()))?.set_len(size)?;
        }
        Ok(())
    };
    zeros().map_err(|e| io_error(options, &trial, &e))?;
    let opened = open_read_only_with_log(options, &trial);
    let last = opened.and_then(|db| number_in(&db).map_err(|e| damaged(options, e.to_string())));
    clear(&trial).map_err(|e| io_error(options, &trial, &e))?;
    last
}

pub fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes the log end where something is missing, if it is. Somebody has accepted the loss.
pub fn accept_loss(options: &StorageOptions) -> Result<(), OpenError> {
    let (logs, scan) = look(options)?;
    let (aside, end) = match &scan.found {
        Found::Damaged { at, .. } | Found::Torn(at) => {
            (put_aside(options, &logs, at.log.number, Some(at), (Left::Nothing, scan.file))?, at.to_string())
        }
        Found::Whole => {
            let Some(missing) = missing_log(options) else { return Ok(()) };
            // What lies before it may name any.
            (
                put_aside(options, &logs, missing, None, (Left::Nothing, None))?,
                format!("the missing file {missing:06}.log"),
            )
        }
    };
    tracing::warn!("data loss was accepted: the log ends at {end} now; {aside}");
    Ok(())
}

/// A file that RocksDB knows must be there, and is not.
fn missing_log(options: &StorageOptions) -> Option<u64> {
    let said = open_read_only(options).err()?.to_string();
    let (_, number) = said.split_once(MISSING)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number.get(..digits)?.parse().ok()
}

/// Says what to do about an error of RocksDB that the database is not what it should be.
pub fn with_way_out(e: OpenError) -> OpenError {
    match e {
        OpenError::Damaged { path, detail } => {
            // Where it is not the log, no part can be left out.
            let way_out = if detail.contains("WAL") { WAY_OUT } else { "bring back a copy" };
            OpenError::Damaged { path, detail: format!("{detail}; {way_out}") }
        }
        other => other,
    }
}

/// What is where something was put aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// RocksDB may know how large the files were, and refuse them; it must be told to open them all the same.
    Nothing,
    /// As much as there was of zeros, which RocksDB passes over: the sizes that it knows are right.
    Zeros,
}

/// Moves what lies behind a place, and files of the write-ahead log after one, out of the database; says where to. Log files
/// from a number on, which that may name, get a second name there, so that they are not lost when nothing else names them.
fn put_aside(
    options: &StorageOptions,
    logs: &[Log],
    after: u64,
    from: Option<&Place>,
    (left, file): (Left, Option<u32>),
) -> Result<String, OpenError> {
    let folder = folder_aside(options);
    let moved = || -> io::Result<usize> {
        fs::create_dir_all(&folder)?;
        let named = log_files::files_from(options, file.unwrap_or(0))?;
        if !named.is_empty() {
            let aside = folder.join(ASIDE_FILES);
            fs::create_dir(&aside)?;
            for (_, path) in &named {
                keep(path, &aside.join(path.file_name().unwrap_or_default()))?;
            }
            File::open(&aside)?.sync_all()?;
        }
        // From the end on, so that at every moment what is left is damaged where it was, or whole.
        for log in logs.iter().rev().filter(|log| log.number > after) {
            let name = log.path.file_name().unwrap_or_default();
            if left == Left::Nothing {
                fs::rename(&log.path, folder.join(name))?;
                continue;
            }
            // At every moment there is a file of this name and size.
            fs::hard_link(&log.path, folder.join(name))?;
            let zeros = folder.join("zeros");
            let file = File::create(&zeros)?;
            file.set_len(fs::metadata(&log.path)?.len())?;
            file.sync_all()?;
            fs::rename(&zeros, &log.path)?;
        }
        if let Some(from) = from {
            let mut file = OpenOptions::new().read(true).write(true).open(&from.log.path)?;
            file.seek(SeekFrom::Start(from.at))?;
            let name = format!("{:06}.log.from-{}", from.log.number, from.at);
            let mut rest = File::create(folder.join(name))?;
            io::copy(&mut file, &mut rest)?;
            rest.sync_all()?;
            File::open(&folder)?.sync_all()?;
            File::open(&options.path)?.sync_all()?;
            match left {
                Left::Nothing => file.set_len(from.at)?,
                Left::Zeros => {
                    let len = file.metadata()?.len().saturating_sub(from.at);
                    file.seek(SeekFrom::Start(from.at))?;
                    // From the front: at every moment it cannot be read from there on.
                    io::copy(&mut io::repeat(0).take(len), &mut file)?;
                }
            }
            file.sync_all()?;
        }
        File::open(&folder)?.sync_all()?;
        File::open(&options.path)?.sync_all()?;
        File::open(options.path.join(DATABASE))?.sync_all()?;
        Ok(named.len())
    };
    let files = moved().map_err(|e| OpenError::Io {
        path: options.path.display().to_string(),
        detail: format!("what is damaged cannot be put into \"{}\": {e}", folder.display()),
    })?;
    let kept = match files {
        0 => String::new(),
        _ => format!(", and the {files} log files that it may name, which take space until they are deleted there too"),
    };
    Ok(format!("what lies behind is in \"{}\"{kept}", folder.display()))
}

/// Where something is put that is not there yet.
pub fn folder_aside(options: &StorageOptions) -> PathBuf {
    let seconds = options.clock.now_ms() / 1000;
    let folder = (0..).map(|n| options.path.join(format!("lost-{seconds}-{n}"))).find(|path| !path.exists());
    folder.unwrap_or_else(|| options.path.join("lost"))
}

/// A second name for a file, or a copy where it lies on another disk.
fn keep(path: &Path, to: &Path) -> io::Result<()> {
    if fs::hard_link(path, to).is_err() {
        fs::copy(path, to)?;
        File::open(to)?.sync_all()?;
    }
    Ok(())
}

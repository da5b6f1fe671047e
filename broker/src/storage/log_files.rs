//! The files that batches lie in: appending, forcing to disk, reading, and how much of each is live.
//!
//! ```text
//! log/NNNNNN.log   batches one after the other, each as it is served; behind those of a write its commit record (`commits`)
//! ```
//!
//! What no committed key names does not exist: RocksDB's write is the one commit, and batches are written before it. A
//! file is appended to by the writer alone; after anything failed, after an end that was not clean, and after one that is
//! shorter than it was, a new one is begun. What was appended and is not committed is cut off again. What else lies in the
//! folder is not touched.
//!
//! Of a file's bytes those of commit records are kept as long as it is: they are no deleted space, and are gained only where
//! a file is written anew for what was deleted in it. How many there are is known of files that this process began and of
//! those that a clean end left; of others it is found out when it matters (`log_space`).
//!
//! Invariants: bytes that a committed key names do not change; a file whose bytes may not be on disk is in `unforced`
//! before the commit that names them; a new file has a number above all that there were, and is none that was there; an
//! error of the system is not taken for bytes that are missing.
//!
//! Not here: which batches are live, and when a file goes (`log_space`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::error::{OpenError, StorageError};
use super::{Result, StorageOptions};
use crate::batch::{BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, head_crc, is_intact};
use crate::keys::{BatchPlace, Placed};

pub const FOLDER: &str = "log";
/// Positions are 32 bits, and a file has at most this and one write more.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// What the system takes in one vectored write.
const SLICES_MAX: usize = 1024;
/// Read at once where a file is written again.
const REWRITE_BYTES: usize = 1 << 20;
/// More would not be files of this log: they would be 128 PiB of the default size.
const NUMBER_MAX: u32 = 1 << 31;
/// Files that are looked at before the table is let go of, so that the writer does not wait for many.
const LOOKED_AT_ONCE: usize = 1024;
/// Names of what else lies in the folder that are told.
const STRANGERS_TOLD: usize = 5;
/// What file systems keep at the top of a disk of its own.
const LOST_AND_FOUND: &str = "lost+found";
/// Handles that are open whatever the setting says: one to append to, one to read.
const OPEN_LEAST: usize = 2;

pub struct LogFiles {
    folder: PathBuf,
    file_bytes: u64,
    open_max: usize,
    table: Mutex<Table>,
    unforced: Mutex<BTreeMap<u32, Arc<File>>>,
    /// Files that were cut, maybe not on disk: nothing more is written until that is.
    cut: Mutex<BTreeMap<u32, Arc<File>>>,
    /// Held while files are forced, so that whoever comes second is not told that all is well because the first has taken
    /// the error.
    distrusted: Mutex<Option<Distrusted>>,
    /// Why files could not be forced, for those who may not wait until somebody else has forced some.
    failure: Mutex<Option<String>>,
    /// Whoever reads holds a clone from before their snapshot on.
    readers: Mutex<Arc<()>>,
}

#[derive(Default)]
struct Table {
    files: BTreeMap<u32, LogFile>,
    /// The one that is appended to.
    current: Option<u32>,
    /// The greatest number that there was.
    last: u32,
    /// What was placed in it is neither counted nor given up yet.
    pending: Option<u32>,
    /// Counts reads, so that the handle unused for longest is closed.
    turn: u64,
    /// Files that are open, by when they were used last.
    open: BTreeMap<u64, u32>,
    /// What was live at some moment is not counted yet: what is live of each file is only what it became more or less since
    /// then.
    uncounted: bool,
    /// What became less since a count was begun is not all known, so that another is to follow.
    doubted: bool,
    /// Counts that were begun: what was deleted before the last of them is not to be counted again.
    counts: u64,
    /// Files up to this number are named, maybe, by what cannot be read of the database, and stay.
    unsure_to: u32,
}

/// Files that could not be forced: the system may have dropped what was not on disk, and calls the next attempt good.
struct Distrusted {
    why: String,
    files: BTreeMap<u32, Arc<File>>,
}

#[derive(Default)]
struct LogFile {
    /// Bytes that can be read.
    size: u64,
    /// Bytes that there must be: where what was committed ends.
    end: u64,
    live: i64,
    /// Of commit records, where that is known.
    records: Option<u64>,
    handle: Option<Arc<File>>,
    /// The handle can write. Others only read, so that a file system that lets nobody write can be read.
    writable: bool,
    used: u64,
}

impl Table {
    /// Keeps a file open, or notes that it was used, and closes those unused for longest.
    fn used(&mut self, number: u32, handle: &Arc<File>, write: bool, open_max: usize) {
        self.turn += 1;
        let Some(file) = self.files.get_mut(&number) else { return };
        if file.handle.is_some() {
            self.open.remove(&file.used);
        }
        if file.handle.is_none() || (write && !file.writable) {
            (file.handle, file.writable) = (Some(handle.clone()), write);
        }
        file.used = self.turn;
        self.open.insert(self.turn, number);
        while self.open.len() > open_max
            && let Some((_, oldest)) = self.open.pop_first()
        {
            if let Some(file) = self.files.get_mut(&oldest) {
                file.handle = None;
            }
        }
    }

    /// It is known how much of a file is live.
    fn is_sure(&self, number: u32) -> bool {
        !self.uncounted && number > self.unsure_to
    }

    /// No key names a file, and none will.
    fn is_dead(&self, number: u32) -> bool {
        self.is_sure(number)
            && self.pending != Some(number)
            && self.files.get(&number).is_none_or(|file| file.live == 0)
    }
}

/// Why bytes of a file cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// They are not there, or are others.
    Damaged(String),
    /// The system does not give them now.
    Failed(String),
}

impl Unread {
    fn of(e: &io::Error, path: &Path) -> Self {
        let why = format!("log file \"{}\": {e}", path.display());
        if e.kind() == io::ErrorKind::NotFound { Self::Damaged(why) } else { Self::Failed(why) }
    }
}

/// Sizes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileUse {
    pub number: u32,
    pub size: u64,
    /// Of a file of which it is not known, all.
    pub live: u64,
    /// Of commit records, where that is known.
    pub records: Option<u64>,
    pub is_sure: bool,
}

/// What is noted of a file at a clean end: bytes that are live, bytes that there must be, and those of commit records where
/// that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    pub live: u64,
    pub end: u64,
    pub records: Option<u64>,
}

impl FileUse {
    /// Bytes of batches that were deleted; of commit records too, where it is not known how many those have.
    pub fn dead(&self) -> u64 {
        self.size.saturating_sub(self.live.saturating_add(self.records.unwrap_or(0)))
    }
}

/// Batches of one write on their way to a file, whose places are known already.
pub struct Placing {
    file: u32,
    is_new: bool,
    from: u32,
    len: u32,
    crc: u32,
    parts: Vec<Bytes>,
}

impl Placing {
    /// Says where the next batch comes to lie.
    pub fn add(&mut self, batch: &Bytes, sequence: u64, last_offset_delta: i32, max_timestamp: i64) -> BatchPlace {
        let (crc, len) = (head_crc(0, batch), u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let at = self.from.saturating_add(self.len);
        self.crc = head_crc(self.crc, batch);
        self.len = self.len.saturating_add(len);
        self.parts.push(batch.clone());
        BatchPlace { sequence, file: self.file, at, len, crc, last_offset_delta, max_timestamp }
    }

    pub fn placed(&self) -> Placed {
        Placed { file: self.file, from: self.from, len: self.len, crc: self.crc }
    }
}

fn name_of(number: u32) -> String {
    format!("{number:06}.log")
}

fn number_of(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let number = name.strip_suffix(".log")?.parse().ok()?;
    ((1..=NUMBER_MAX).contains(&number) && name_of(number) == name).then_some(number)
}

/// What lies in the folder: files of the log with their sizes, and names of what is something else. Nothing where there is
/// no folder.
fn list(folder: &Path) -> io::Result<(BTreeMap<u32, u64>, Vec<String>)> {
    let (mut found, mut strangers) = (BTreeMap::new(), Vec::new());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((found, strangers)),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name == LOST_AND_FOUND {
            continue;
        }
        let file = match number_of(&name) {
            Some(number) => Some((number, fs::metadata(entry.path())?)).filter(|(_, metadata)| metadata.is_file()),
            None => None,
        };
        match file {
            Some((number, metadata)) => drop(found.insert(number, metadata.len())),
            None => strangers.push(name.to_string_lossy().into_owned()),
        }
    }
    strangers.sort_unstable();
    Ok((found, strangers))
}

/// Files of the log from a number on, with their names.
pub fn files_from(options: &StorageOptions, number: u32) -> io::Result<Vec<(u32, PathBuf)>> {
    let folder = options.path.join(FOLDER);
    let (found, _) = list(&folder)?;
    Ok(found.range(number..).map(|(number, _)| (*number, folder.join(name_of(*number)))).collect())
}

/// Where a file lies, or would.
pub fn path_in(options: &StorageOptions, number: u32) -> PathBuf {
    options.path.join(FOLDER).join(name_of(number))
}

fn failed(e: &io::Error, path: &Path) -> StorageError {
    StorageError::Unavailable(format!("storage failed: log file \"{}\": {e}", path.display()))
}

impl LogFiles {
    /// Looks which files there are; how much of them is live is said later.
    pub fn open(options: &StorageOptions) -> Result<Self, OpenError> {
        let folder = options.path.join(FOLDER);
        let (found, strangers) = list(&folder).map_err(|e| OpenError::Io {
            path: options.path.display().to_string(),
            detail: format!("folder \"{FOLDER}\": {e}"),
        })?;
        if !strangers.is_empty() {
            let told = strangers.iter().take(STRANGERS_TOLD).map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
            let more = strangers.len() - told.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            tracing::warn!(
                "in \"{}\" lies what is no log file, and is left alone: {}{more}",
                folder.display(),
                told.join(", ")
            );
        }
        // A number is not taken where something else has its name.
        let last = strangers.iter().filter_map(|name| number_of(name.as_ref())).max().unwrap_or(0);
        let mut table = Table { last, ..Table::default() };
        for (number, size) in found {
            table.files.insert(number, LogFile { size, end: size, ..LogFile::default() });
            table.last = table.last.max(number);
        }
        Ok(Self {
            folder,
            file_bytes: options.log_file_bytes.clamp(1, FILE_BYTES_MAX),
            open_max: options.log_files_open_max.max(OPEN_LEAST),
            table: Mutex::new(table),
            unforced: Mutex::default(),
            cut: Mutex::default(),
            distrusted: Mutex::default(),
            failure: Mutex::default(),
            readers: Mutex::default(),
        })
    }

    /// Makes the folder, where it is known that it need not be there.
    pub fn make_folder(&self) -> Result<(), OpenError> {
        let parent = self.folder.parent().unwrap_or(&self.folder);
        let make = || -> io::Result<()> {
            if !self.folder.is_dir() {
                fs::create_dir(&self.folder)?;
                File::open(parent)?.sync_all()?;
            }
            Ok(())
        };
        make().map_err(|e| OpenError::Io {
            path: parent.display().to_string(),
            detail: format!("folder \"{FOLDER}\": {e}"),
        })
    }

    /// There is no log file.
    pub fn is_empty(&self) -> bool {
        self.table.lock().files.is_empty()
    }

    pub fn path_of(&self, number: u32) -> PathBuf {
        self.folder.join(name_of(number))
    }

    /// Of those that are noted, those that are not there.
    pub fn missing(&self, noted: &BTreeMap<u32, Noted>) -> Vec<u32> {
        let table = self.table.lock();
        noted.keys().filter(|number| !table.files.contains_key(number)).copied().collect()
    }

    /// How many bytes of each file are live is counted from now on, and said by [`LogFiles::counted`].
    pub fn begin_count(&self) {
        let mut table = self.table.lock();
        (table.uncounted, table.doubted) = (true, false);
        table.counts += 1;
        table.files.values_mut().for_each(|file| file.live = 0);
    }

    /// Says how many bytes of each file were live when the count began; and whether all was read that may name one.
    pub fn counted(&self, live: &HashMap<u32, u64>, is_whole: bool) {
        let mut table = self.table.lock();
        table.uncounted = table.doubted;
        table.unsure_to = if is_whole { 0 } else { table.last };
        for (number, bytes) in live {
            match table.files.get_mut(number) {
                Some(file) => file.live = file.live.saturating_add_unsigned(*bytes),
                None => {
                    table.last = table.last.max(*number).min(NUMBER_MAX);
                    let path = self.folder.join(name_of(*number));
                    tracing::error!(
                        "log file \"{}\" is missing; it held {} KiB of batches",
                        path.display(),
                        bytes >> 10
                    );
                }
            }
        }
        if table.files.iter().any(|(number, file)| table.is_sure(*number) && file.live < 0) {
            table.uncounted = true;
        }
    }

    /// Says what was noted at the clean end that came before.
    pub fn noted(&self, noted: &BTreeMap<u32, Noted>) {
        let mut table = self.table.lock();
        for (number, noted) in noted {
            let Some(file) = table.files.get_mut(number) else { continue };
            file.live = i64::try_from(noted.live).unwrap_or(i64::MAX);
            (file.end, file.records) = (noted.end, noted.records);
            if file.size < file.end {
                let path = self.folder.join(name_of(*number));
                tracing::error!(
                    "log file \"{}\" is cut short: it has {} bytes, and had {}",
                    path.display(),
                    file.size,
                    file.end
                );
            }
        }
    }

    /// What is to be noted at a clean end; `None` where it is not known.
    pub fn to_note(&self) -> Option<BTreeMap<u32, Noted>> {
        let table = self.table.lock();
        let live =
            |file: &LogFile| Noted { live: file.live.max(0).unsigned_abs(), end: file.end, records: file.records };
        let noted = table.files.iter().filter(|(_, file)| file.live > 0).map(|(number, file)| (*number, live(file)));
        (!table.uncounted && table.unsure_to == 0).then(|| noted.collect())
    }

    /// Whether it is known how much of each file is live, as far as the database could be read.
    pub fn is_counted(&self) -> bool {
        !self.table.lock().uncounted
    }

    /// Whether some files stay because a part of the database cannot be read.
    pub fn is_unsure(&self) -> bool {
        self.table.lock().unsure_to > 0
    }

    /// What is known of how much is live is wrong, or incomplete: it is to be counted anew.
    pub fn doubt_count(&self) {
        let mut table = self.table.lock();
        (table.uncounted, table.doubted) = (true, true);
    }

    /// Counts that were begun.
    pub fn counts(&self) -> u64 {
        self.table.lock().counts
    }

    /// A file of this number there was, whether it is found or not.
    pub fn there_was(&self, number: u32) {
        let mut table = self.table.lock();
        table.last = table.last.max(number).min(NUMBER_MAX);
    }

    /// The greatest number that there was.
    pub fn last(&self) -> u32 {
        self.table.lock().last
    }

    /// After a clean end the last file is gone on with, where it is what it was.
    pub fn go_on(&self) {
        let mut table = self.table.lock();
        let last = table.files.last_key_value().filter(|(_, f)| f.size < self.file_bytes && f.size >= f.end);
        let last = last.map(|(number, _)| *number).filter(|number| *number == table.last);
        table.current = last;
    }

    /// Where the batches of the next write will lie. To be followed by [`LogFiles::wrote`] or [`LogFiles::gave_up`].
    pub fn place(&self) -> Placing {
        let mut table = self.table.lock();
        let current = table.current.and_then(|number| Some((number, table.files.get(&number)?.size)));
        let (file, is_new, from) = match current.filter(|(_, size)| *size < self.file_bytes) {
            Some((number, size)) => (number, false, u32::try_from(size).unwrap_or(u32::MAX)),
            None => (table.last.saturating_add(1), true, 0),
        };
        table.pending = Some(file);
        Placing { file, is_new, from, len: 0, crc: 0, parts: Vec::new() }
    }

    /// Appends what was placed, with the write's commit record behind it, and forces it to disk if asked. Called by the
    /// writer alone.
    pub fn append(&self, placing: &Placing, record: Option<Bytes>, force: bool) -> Result<()> {
        let number = placing.file;
        let path = self.folder.join(name_of(number));
        let end = u64::from(placing.from) + u64::from(placing.len) + record.as_ref().map_or(0, |r| r.len() as u64);
        let done = self.to_append(placing, &path).and_then(|file| {
            write_all(&file, placing.parts.iter().chain(&record), u64::from(placing.from))?;
            if force {
                file.sync_data()?;
                if placing.is_new {
                    File::open(&self.folder)?.sync_all()?;
                }
            } else {
                self.unforced.lock().insert(number, file);
            }
            Ok(())
        });
        let mut table = self.table.lock();
        table.last = table.last.max(number).min(NUMBER_MAX);
        if let Some(file) = table.files.get_mut(&number) {
            file.size = file.size.max(end);
        }
        match done {
            Ok(()) => Ok(()),
            Err(e) => {
                table.current = None;
                drop(table);
                if let Err(e) = self.take_back(placing.placed()) {
                    tracing::warn!("{}", failed(&e, &path));
                }
                Err(failed(&e, &path))
            }
        }
    }

    /// Cuts off what was appended last, which no key names and none will, so that on a full disk there is room again. With
    /// it goes its commit record; a power cut may bring that back until files were written again ([`LogFiles::write_again`]).
    pub fn take_back(&self, placed: Placed) -> io::Result<()> {
        let from = u64::from(placed.from);
        if placed.len == 0 || self.table.lock().files.get(&placed.file).is_none_or(|file| file.size <= from) {
            return Ok(());
        }
        let file = self.handle_for(placed.file, true)?;
        file.set_len(from)?;
        if let Some(file) = self.table.lock().files.get_mut(&placed.file) {
            file.size = from;
        }
        if let Err(e) = file.sync_all() {
            tracing::debug!("log file {} is not shorter on disk yet: {e}", name_of(placed.file));
            self.cut.lock().insert(placed.file, file);
        }
        Ok(())
    }

    /// The file to append to. A new one was not there before, whoever made it.
    fn to_append(&self, placing: &Placing, path: &Path) -> io::Result<Arc<File>> {
        let number = placing.file;
        if number > NUMBER_MAX {
            return Err(io::Error::other("no number is left for another"));
        }
        if !placing.is_new {
            return self.handle_for(number, true);
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?);
        let mut table = self.table.lock();
        table.last = table.last.max(number);
        table.current = Some(number);
        table.files.insert(number, LogFile { records: Some(0), ..LogFile::default() });
        table.used(number, &file, true, self.open_max);
        Ok(file)
    }

    /// What was appended last is committed.
    pub fn wrote(&self, placed: Placed) {
        let mut table = self.table.lock();
        table.pending = None;
        if placed.len > 0
            && let Some(file) = table.files.get_mut(&placed.file)
        {
            file.live = file.live.saturating_add(i64::from(placed.len));
            let end = u64::from(placed.from) + u64::from(placed.len);
            file.end = file.end.max(end);
            // Nothing was appended since, and behind the batches lies their record alone.
            file.records = file.records.map(|records| records + file.size.saturating_sub(end));
        }
    }

    /// So many bytes of a file that nothing is appended to any more are commit records.
    pub fn records_counted(&self, number: u32, bytes: u64) {
        if let Some(file) = self.table.lock().files.get_mut(&number) {
            file.records = Some(bytes);
        }
    }

    /// What was placed last is not committed and will not be.
    pub fn gave_up(&self) {
        self.table.lock().pending = None;
    }

    /// The next write begins a new file.
    pub fn begin_another(&self) {
        self.table.lock().current = None;
    }

    /// So much of a file was deleted.
    pub fn deleted(&self, number: u32, bytes: u64) {
        let mut table = self.table.lock();
        let is_sure = table.is_sure(number);
        if let Some(file) = table.files.get_mut(&number) {
            file.live = file.live.saturating_sub_unsigned(bytes);
            if is_sure && file.live < 0 {
                tracing::error!("what is live in log files was counted wrongly: it is counted anew");
                table.uncounted = true;
            }
        }
    }

    /// The same of many files, counted in a snapshot from when so many counts were begun: later ones know of it.
    pub fn deleted_by(&self, counts: u64, bytes: HashMap<u32, u64>) {
        if self.counts() == counts {
            bytes.into_iter().for_each(|(number, bytes)| self.deleted(number, bytes));
        }
    }

    /// Of all files that nothing is under way to. As long as it is not known what is live, everything is.
    pub fn uses(&self) -> Vec<FileUse> {
        let (mut uses, mut from) = (Vec::new(), 0);
        loop {
            let table = self.table.lock();
            let mut looked = 0;
            for (number, file) in table.files.range(from..).take(LOOKED_AT_ONCE) {
                (from, looked) = (number + 1, looked + 1);
                let is_sure = table.is_sure(*number);
                let live = if is_sure { file.live.max(0).unsigned_abs() } else { file.size.max(1) };
                if table.pending != Some(*number) {
                    let (size, records) = (file.size, file.records);
                    uses.push(FileUse { number: *number, size, live, records, is_sure });
                }
            }
            if looked < LOOKED_AT_ONCE {
                return uses;
            }
        }
    }

    /// Nothing more is appended to a file; false where something is under way.
    pub fn retire(&self, number: u32) -> bool {
        let mut table = self.table.lock();
        if table.pending == Some(number) {
            return false;
        }
        if table.current == Some(number) {
            table.current = None;
        }
        true
    }

    /// The same of a file that no key names, so that none ever will; false where one may.
    pub fn retire_dead(&self, number: u32) -> bool {
        let mut table = self.table.lock();
        if !table.is_dead(number) {
            return false;
        }
        if table.current == Some(number) {
            table.current = None;
        }
        true
    }

    /// Removes a file that no key names and nobody reads; false where a key may name it after all.
    pub fn remove(&self, number: u32) -> io::Result<bool> {
        {
            let table = self.table.lock();
            if !table.is_dead(number) || table.current == Some(number) {
                return Ok(false);
            }
        }
        match fs::remove_file(self.folder.join(name_of(number))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.unforced.lock().remove(&number);
        let mut table = self.table.lock();
        if let Some(file) = table.files.remove(&number)
            && file.handle.is_some()
        {
            table.open.remove(&file.used);
        }
        Ok(true)
    }

    /// To be taken before a snapshot, and kept as long as it: files that it names stay until then.
    pub fn reader(&self) -> Arc<()> {
        self.readers.lock().clone()
    }

    /// Those who read now; it cannot be upgraded when they have ended.
    pub fn readers_so_far(&self) -> Weak<()> {
        let before = std::mem::take(&mut *self.readers.lock());
        Arc::downgrade(&before)
    }

    /// Forces to disk what was not. An error stays until that was written again ([`LogFiles::write_again`]).
    pub fn force(&self) -> Result<(), String> {
        let mut distrusted = self.distrusted.lock();
        if let Some(Distrusted { why, .. }) = &*distrusted {
            return Err(why.clone());
        }
        let files = std::mem::take(&mut *self.unforced.lock());
        if files.is_empty() {
            return Ok(());
        }
        let forced = files.iter().try_for_each(|(number, file)| {
            file.sync_data().map_err(|e| format!("log file \"{}\": {e}", self.folder.join(name_of(*number)).display()))
        });
        // New ones may be among them.
        let forced = forced.and_then(|()| sync(&self.folder));
        forced.inspect_err(|why| self.distrust(&mut distrusted, why.clone(), files))
    }

    fn distrust(&self, distrusted: &mut Option<Distrusted>, why: String, files: BTreeMap<u32, Arc<File>>) {
        *self.failure.lock() = Some(why.clone());
        *distrusted = Some(Distrusted { why, files });
    }

    /// Why forcing has failed, also where nobody was told. Does not wait for whoever forces files.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Reads back what could not be forced, as long as the system has it, writes it again and forces that; the next write
    /// begins a new file. Whether it is what was written is looked at elsewhere: by [`Recheck`] what the write-ahead log names;
    /// the rest of the files that are returned, which could not be forced, by `log_space`.
    pub fn write_again(&self) -> Result<Vec<u32>> {
        self.begin_another();
        let mut cut = self.cut.lock();
        while let Some(first) = cut.first_entry() {
            first.get().sync_all().map_err(|e| failed(&e, &self.folder.join(name_of(*first.key()))))?;
            first.remove();
        }
        drop(cut);
        let mut distrusted = self.distrusted.lock();
        let mut files = std::mem::take(&mut *self.unforced.lock());
        let mut failed_before = Vec::new();
        if let Some(before) = &mut *distrusted {
            failed_before.extend(before.files.keys().copied());
            files.append(&mut before.files);
        }
        for (number, file) in &files {
            if let Err(e) = rewrite(file) {
                let e = failed(&e, &self.folder.join(name_of(*number)));
                self.distrust(&mut distrusted, e.to_string(), files);
                return Err(e);
            }
        }
        if !files.is_empty()
            && let Err(why) = sync(&self.folder)
        {
            self.distrust(&mut distrusted, why.clone(), files);
            return Err(StorageError::Unavailable(why));
        }
        *distrusted = None;
        *self.failure.lock() = None;
        Ok(failed_before)
    }

    /// Whether a file was filled since files were forced.
    pub fn has_unforced_full(&self) -> bool {
        self.unforced.lock().len() > 1
    }

    fn handle(&self, number: u32) -> io::Result<Arc<File>> {
        self.handle_for(number, false)
    }

    fn handle_for(&self, number: u32, write: bool) -> io::Result<Arc<File>> {
        let mut table = self.table.lock();
        let gone = || io::Error::new(io::ErrorKind::NotFound, "it is missing");
        let file = table.files.get(&number).ok_or_else(gone)?;
        if let Some(handle) = file.handle.as_ref().filter(|_| file.writable || !write).cloned() {
            table.used(number, &handle, write, self.open_max);
            return Ok(handle);
        }
        drop(table);
        let path = self.folder.join(name_of(number));
        let handle = Arc::new(OpenOptions::new().read(true).write(write).open(path)?);
        self.table.lock().used(number, &handle, write, self.open_max);
        Ok(handle)
    }

    /// Bytes of a file. An error says what is wrong with it.
    pub fn read(&self, number: u32, at: u32, len: usize) -> Result<Bytes, Unread> {
        let damaged =
            |what: String| Unread::Damaged(format!("log file \"{}\": {what}", self.path_of(number).display()));
        let failed = |e: &io::Error| Unread::of(e, &self.path_of(number));
        let file = self.handle(number).map_err(|e| failed(&e))?;
        let size = self.table.lock().files.get(&number).map_or(0, |file| file.size);
        let end = u64::from(at) + len as u64;
        if end > size {
            return Err(damaged(format!("it has {size} bytes, and there should be {end}")));
        }
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let missing = len - bytes.len();
            let from = u64::from(at) + bytes.len() as u64;
            // Room beyond `len` is not filled: the allocator may have given more.
            let read = if bytes.capacity() - bytes.len() == missing {
                rustix::io::pread(&*file, rustix::buffer::spare_capacity(&mut bytes), from)
            } else {
                let start = bytes.len();
                bytes.resize(len, 0);
                let read = rustix::io::pread(&*file, bytes.get_mut(start..).unwrap_or_default(), from);
                bytes.truncate(start + read.unwrap_or(0));
                read
            };
            match read {
                Ok(0) => return Err(damaged(format!("it ends at byte {from}, before {end}"))),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed(&e.into())),
            }
        }
        Ok(bytes.into())
    }

    /// What is wrong where something else lies than what was written there.
    pub fn is_other(&self, place: &BatchPlace) -> Unread {
        let path = self.path_of(place.file);
        let end = u64::from(place.at) + u64::from(place.len);
        Unread::Damaged(format!(
            "log file \"{}\": bytes {} to {end} are not what was written there, by their checksum",
            path.display(),
            place.at
        ))
    }
}

fn sync(folder: &Path) -> Result<(), String> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| format!("folder \"{}\": {e}", folder.display()))
}

fn rewrite(file: &File) -> io::Result<()> {
    let mut bytes = vec![0; REWRITE_BYTES];
    let mut at = 0;
    loop {
        match file.read_at(&mut bytes, at) {
            Ok(0) => return file.sync_all(),
            Ok(read) => {
                file.write_all_at(bytes.get(..read).unwrap_or_default(), at)?;
                at += read as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn write_all<'b>(file: &File, parts: impl Iterator<Item = &'b Bytes>, mut at: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    while let Some(now) = rest.get(..rest.len().min(SLICES_MAX)).filter(|now| !now.is_empty()) {
        match rustix::io::pwritev(file, now, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Whether a batch is the one that was put at a place.
pub fn is_at(batch: &[u8], place: &BatchPlace) -> bool {
    head_crc(0, batch) == place.crc && is_intact(batch)
}

/// Looks whether what writes put into files is there, before the database is opened, and writes it once more: what came
/// before a failed fsync, or before the end of a process, may be in the operating system's memory alone.
pub struct Recheck {
    folder: PathBuf,
    files: BTreeMap<u32, File>,
    /// What cannot be read is lost too.
    accept_loss: bool,
    /// The file that an error is of.
    failed: Option<PathBuf>,
}

impl Recheck {
    pub fn new(options: &StorageOptions) -> Self {
        Self {
            folder: options.path.join(FOLDER),
            files: BTreeMap::new(),
            accept_loss: options.accept_data_loss,
            failed: None,
        }
    }

    /// Whether all that a write put there is there: not where a file is missing among others, is too short, or holds
    /// something else. Whatever else keeps it from being looked at is an error. Blocks on disk.
    pub fn is_there(&mut self, placed: &Placed) -> io::Result<bool> {
        let path = self.folder.join(name_of(placed.file));
        match self.look(placed) {
            Err(e) if self.is_lost(&e) => {
                tracing::warn!("log file \"{}\": {e}", path.display());
                Ok(false)
            }
            done => done.inspect_err(|_| self.failed = Some(path)),
        }
    }

    /// The file that the last error is of.
    pub fn failed(&self) -> Option<&Path> {
        self.failed.as_deref()
    }

    fn is_lost(&self, e: &io::Error) -> bool {
        let bad_sector = rustix::io::Errno::from_io_error(e) == Some(rustix::io::Errno::IO);
        match e.kind() {
            // Where there is none at all, somebody forgot a disk.
            io::ErrorKind::NotFound => self.accept_loss || list(&self.folder).is_ok_and(|(files, _)| !files.is_empty()),
            io::ErrorKind::UnexpectedEof => true,
            _ => self.accept_loss && bad_sector,
        }
    }

    fn look(&mut self, placed: &Placed) -> io::Result<bool> {
        if !self.files.contains_key(&placed.file) {
            let path = self.folder.join(name_of(placed.file));
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            self.files.insert(placed.file, file);
        }
        let Some(file) = self.files.get(&placed.file) else { return Ok(false) };
        let (mut at, mut left, mut crc) = (u64::from(placed.from), placed.len as usize, 0);
        if at + left as u64 > file.metadata()?.len() {
            return Ok(false);
        }
        let mut batch = Vec::new();
        while left > 0 {
            let mut head = [0; HEADER_LEN];
            if left < HEADER_LEN {
                return Ok(false);
            }
            file.read_exact_at(&mut head, at)?;
            let len = BatchHeader::parse(&head).and_then(|h| usize::try_from(h.length).ok()).unwrap_or(0);
            let len = len.saturating_add(LENGTH_OVERHEAD);
            if len < HEADER_LEN || len > left {
                return Ok(false);
            }
            batch.resize(len, 0);
            file.read_exact_at(&mut batch, at)?;
            if !is_intact(&batch) {
                return Ok(false);
            }
            crc = head_crc(crc, &batch);
            file.write_all_at(&batch, at)?;
            at += len as u64;
            left -= len;
        }
        Ok(crc == placed.crc)
    }

    /// Forces to disk what was looked at.
    pub fn force(self) -> io::Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        for file in self.files.values() {
            file.sync_all()?;
        }
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use millpond_types::record::RecordBuffer;

    use super::*;
    use crate::batch::{Codec, EncodeOptions, encode};

    fn batch(text: &str) -> Bytes {
        let mut records = RecordBuffer::default();
        records.push(None, Some(text.as_bytes()), 1, &[]);
        let options =
            EncodeOptions { codec: Codec::None, batch_bytes_max: 1 << 20, log_append_time: None, room_before: 0 };
        encode(&records, options).unwrap().remove(0).bytes.into()
    }

    fn files(directory: &Path) -> LogFiles {
        let mut options = StorageOptions::new(directory);
        options.log_file_bytes = 300;
        options.log_files_open_max = 2;
        let files = LogFiles::open(&options).unwrap();
        files.make_folder().unwrap();
        files
    }

    fn append(files: &LogFiles, texts: &[&str]) -> Vec<(BatchPlace, Bytes)> {
        let mut placing = files.place();
        let batches: Vec<Bytes> = texts.iter().map(|text| batch(text)).collect();
        let places = batches.into_iter().map(|b| (placing.add(&b, 7, 0, 1), b)).collect();
        files.append(&placing, None, false).unwrap();
        files.wrote(placing.placed());
        places
    }

    #[test]
    fn what_was_appended_is_read_from_few_handles_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let mut all = Vec::new();
        for i in 0..20 {
            all.extend(append(&files, &[&format!("a {i}"), &"b".repeat(i * 9)]));
        }
        let last = all.last().unwrap().0.file;
        assert!(last >= 6, "{last}");
        for (place, batch) in &all {
            assert_eq!(files.read(place.file, place.at, place.len as usize).unwrap(), *batch);
            assert!(is_at(batch, place) && !is_at(&batch[1..], place));
        }
        assert!(files.table.lock().open.len() <= 2);
        let live: u64 = files.uses().iter().map(|f| f.live).sum();
        assert_eq!(live, all.iter().map(|(place, _)| u64::from(place.len)).sum::<u64>());
        assert!(files.uses().iter().all(|f| f.dead() == 0));
        let first = all[0].0;
        files.deleted(first.file, u64::from(first.len));
        assert_eq!(files.uses()[0].dead(), u64::from(first.len));
        for wrong in [(last, 0, 1 << 30), (last, 5000, 1), (last + 1, 0, 1)] {
            assert!(files.read(wrong.0, wrong.1, wrong.2).is_err());
        }
        let reading = files.reader();
        let before = files.readers_so_far();
        let _after = files.reader();
        assert!(before.upgrade().is_some());
        drop(reading);
        assert!(before.upgrade().is_none());
        assert!(!files.retire_dead(first.file) && !files.remove(first.file).unwrap(), "the other batch is live");
        let rest = files.uses()[0].live;
        files.deleted(first.file, rest);
        assert!(files.retire_dead(first.file) && files.remove(first.file).unwrap());
        assert!(files.read(first.file, first.at, 1).is_err());
    }

    #[test]
    fn a_file_that_died_and_was_appended_to_stays() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let (place, _) = append(&files, &["a"])[0];
        files.deleted(place.file, u64::from(place.len));
        assert_eq!(files.uses()[0].live, 0, "whoever removes what is dead sees it");
        let (again, batch) = append(&files, &["b"])[0].clone();
        assert_eq!(again.file, place.file);
        assert!(!files.retire_dead(place.file) && !files.remove(place.file).unwrap());
        assert_eq!(files.read(again.file, again.at, again.len as usize).unwrap(), batch);
        // Under way, and retired before.
        files.deleted(again.file, u64::from(again.len));
        let placing = files.place();
        assert!(placing.file == place.file && !files.retire_dead(place.file));
        files.gave_up();
        assert!(files.retire_dead(place.file));
        assert_ne!(append(&files, &["c"])[0].0.file, place.file, "nothing is appended to it any more");
        assert!(files.remove(place.file).unwrap());
    }

    #[test]
    fn more_deleted_than_there_was_is_counted_anew() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let (place, _) = append(&files, &["a"])[0];
        let before = files.counts();
        files.deleted(place.file, u64::from(place.len) + 1);
        assert!(!files.is_counted() && files.to_note().is_none() && !files.retire_dead(place.file));
        files.begin_count();
        files.deleted_by(before, HashMap::from([(place.file, 5)]));
        files.counted(&HashMap::from([(place.file, u64::from(place.len))]), false);
        assert!(files.is_counted() && files.uses()[0].dead() == 0 && files.to_note().is_none());
        assert_eq!(files.table.lock().files[&place.file].live, i64::from(place.len));
    }

    #[test]
    fn a_file_is_gone_on_with_only_after_a_clean_end() {
        let directory = tempfile::tempdir().unwrap();
        let place = append(&files(directory.path()), &["a"])[0].0;
        let live = HashMap::from([(1, u64::from(place.len))]);
        let again = files(directory.path());
        again.noted(&BTreeMap::from([(
            1,
            Noted { live: u64::from(place.len), end: u64::from(place.len), records: None },
        )]));
        again.go_on();
        assert_eq!(append(&again, &["b"])[0].0.at, place.len);
        let again = files(directory.path());
        again.begin_count();
        let (place, _) = append(&again, &["c"])[0];
        assert_eq!((place.file, place.at), (2, 0));
        assert_eq!(again.uses().iter().map(FileUse::dead).sum::<u64>(), 0, "it is not known yet");
        again.counted(&live, true);
        let dead: Vec<u64> = again.uses().iter().map(FileUse::dead).collect();
        assert_eq!(dead, [u64::from(place.len), 0]);
        again.begin_another();
        assert_eq!(append(&again, &["d"])[0].0.file, 3);
    }

    #[test]
    fn a_flush_of_the_database_forces_files_first() {
        let directory = tempfile::tempdir().unwrap();
        let files = Arc::new(files(directory.path()));
        let db = super::super::directory::open_database(&StorageOptions::new(directory.path()), &files).unwrap();
        for _ in 0..2 {
            append(&files, &["a"]);
            assert_eq!(files.unforced.lock().len(), 1);
            db.put(b"k", b"v").unwrap();
            db.flush().unwrap();
            assert_eq!(files.unforced.lock().len(), 0);
        }
        assert_eq!(files.failure(), None);
    }

    #[test]
    fn a_power_cut_takes_files_that_are_to_be_forced_before_a_table_is_written() {
        use super::super::directory::open_database;
        use super::super::recovery::number_in;
        use super::super::verify::verify;
        use crate::keys::{self, Counter, cf};
        let directory = tempfile::tempdir().unwrap();
        let options = StorageOptions::new(directory.path().join("data"));
        fs::create_dir(&options.path).unwrap();
        let files = Arc::new(LogFiles::open(&options).unwrap());
        files.make_folder().unwrap();
        let db = open_database(&options, &files).unwrap();
        let write = |number: u64| {
            let mut placing = files.place();
            placing.add(&batch("text"), 1, 0, 1);
            files.append(&placing, None, false).unwrap();
            files.wrote(placing.placed());
            let (mut writes, meta) = (rocksdb::WriteBatch::default(), db.cf_handle(cf::META).unwrap());
            writes.put_cf(meta, keys::counter(Counter::Placed), placing.placed().encode());
            writes.put_cf(meta, keys::counter(Counter::Writes), number.to_be_bytes());
            db.write(writes).unwrap();
        };
        (1..=9).for_each(write);
        let database = options.path.join("db");
        let manifest = || {
            let mut entries = fs::read_dir(&database).unwrap().map(|e| e.unwrap());
            let of = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with("MANIFEST");
            entries.find(of).map_or(0, |e| e.metadata().unwrap().len())
        };
        let before = manifest();
        let copy = directory.path().join("copy");
        std::thread::scope(|scope| {
            let _held = files.distrusted.lock();
            scope.spawn(|| db.flush_cf(db.cf_handle(cf::META).unwrap()));
            // RocksDB notes how large the log is that it has closed, and then says that the flush begins.
            let noted = (0..2000).any(|_| {
                std::thread::park_timeout(std::time::Duration::from_millis(10));
                manifest() > before
            });
            assert!(noted);
            write(10);
            for folder in ["db", FOLDER] {
                fs::create_dir_all(copy.join(folder)).unwrap();
                for entry in fs::read_dir(options.path.join(folder)).unwrap() {
                    let entry = entry.unwrap();
                    fs::copy(entry.path(), copy.join(folder).join(entry.file_name())).unwrap();
                }
            }
        });
        let body = format!("millpond wrote {0:020} forced {0:020} durability none kept {0:020} boot another", 0);
        let note = format!("{body} crc {:08x}\n", crc32c::crc32c(body.as_bytes()));
        fs::write(copy.join("written"), note).unwrap();
        let file = OpenOptions::new().write(true).open(copy.join(FOLDER).join(name_of(1))).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let options = StorageOptions::new(&copy);
        let verified = verify(&options).unwrap();
        assert!(verified.cut && verified.cut_at.is_some(), "{verified:?}");
        // Also where the process ends before it has opened the database.
        assert!(!verify(&options).unwrap().cut);
        let files = Arc::new(LogFiles::open(&options).unwrap());
        files.make_folder().unwrap();
        assert_eq!(number_in(&open_database(&options, &files).unwrap()).unwrap(), 5);
    }

    #[test]
    fn whoever_asks_for_a_failure_does_not_wait_for_an_fsync() {
        let directory = tempfile::tempdir().unwrap();
        let files = Arc::new(files(directory.path()));
        let _forcing = files.distrusted.lock();
        let (answer, asked) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn({
            let files = files.clone();
            move || answer.send(files.failure())
        });
        assert_eq!(asked.recv_timeout(std::time::Duration::from_secs(20)), Ok(None));
    }

    #[test]
    fn nothing_goes_on_until_a_file_that_was_cut_is_shorter_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        append(&files, &["a"]);
        let mut placing = files.place();
        placing.add(&batch("b"), 1, 0, 1);
        files.append(&placing, None, false).unwrap();
        // The file can be cut, and not forced.
        let file = files.handle_for(placing.file, true).unwrap();
        files.table.lock().files.get_mut(&placing.file).unwrap().handle =
            Some(Arc::new(File::open("/dev/null").unwrap()));
        assert!(files.take_back(placing.placed()).is_err(), "it is not cut");
        files.cut.lock().insert(placing.file, Arc::new(File::open("/dev/null").unwrap()));
        for _ in 0..2 {
            assert!(files.write_again().is_err_and(|e| e.to_string().contains("000001.log")));
        }
        files.cut.lock().insert(placing.file, file);
        files.write_again().unwrap();
        assert!(files.cut.lock().is_empty());
    }

    #[test]
    fn what_a_write_put_there_is_found_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let mut placing = files.place();
        for text in ["a", "b", "c"] {
            placing.add(&batch(text), 1, 0, 1);
        }
        files.append(&placing, None, true).unwrap();
        let placed = placing.placed();
        let mut options = StorageOptions::new(directory.path());
        options.log_file_bytes = 300;
        let look = |placed: Placed| {
            let mut recheck = Recheck::new(&options);
            let found = recheck.is_there(&placed).unwrap();
            recheck.force().unwrap();
            found
        };
        assert!(look(placed));
        for wrong in [
            Placed { file: 9, ..placed },
            Placed { from: 1, ..placed },
            Placed { len: placed.len + 1, ..placed },
            Placed { len: placed.len - 1, ..placed },
            Placed { len: u32::MAX, ..placed },
            Placed { crc: placed.crc ^ 1, ..placed },
        ] {
            assert!(!look(wrong), "{wrong:?}");
        }
        let (folder, away) = (directory.path().join("log"), directory.path().join("away"));
        fs::rename(&folder, &away).unwrap();
        for what in ["no folder", "an empty one"] {
            let mut recheck = Recheck::new(&options);
            assert!(recheck.is_there(&placed).is_err() && recheck.failed().is_some(), "{what}");
            let mut accepting = Recheck { accept_loss: true, ..Recheck::new(&options) };
            assert!(!accepting.is_there(&placed).unwrap(), "{what}");
            let _made = fs::create_dir(&folder);
        }
        fs::create_dir(folder.join(name_of(1))).unwrap();
        assert!(Recheck::new(&options).is_there(&placed).is_err(), "not a file");
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&away, &folder).unwrap();
        let path = directory.path().join("log/000001.log");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            fs::write(&path, bytes).unwrap();
            assert!(!look(placed), "a change at {at}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(!look(placed));
    }
}

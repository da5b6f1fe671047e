//! The files that batches lie in: appending and reading.
//!
//! ```text
//! log/NNNNNN.log   batches one after the other, each as it is served; behind those of a write its commit record (`commits`)
//! ```
//!
//! What no committed key names does not exist: RocksDB's write is the one commit, and batches are written before it. A
//! file is appended to by the writer alone, or by whoever moves batches (`survivors`); after anything failed, after an end
//! that was not clean, and after one that is shorter than it was, a new one is begun. What was appended and is not committed
//! is cut off again. What else lies in the folder is not touched.
//!
//! Invariants: bytes that a committed key names do not change; a file whose bytes may not be on disk is in `unforced`
//! before the commit that names them; a new file has a number above all that there were, and is none that was there, so
//! that files of the writer are in the order in which it wrote them; an error of the system is not taken for bytes that are
//! missing.
//!
//! Not here: forcing them to disk (`forcing`); how much of each is live (`live`), and what follows from that (`log_space`);
//! what of them is looked at before the database is opened (`recheck`, `commits`).

mod ahead;
mod forcing;
mod live;
mod survivors;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use self::ahead::Ahead;
use self::forcing::Distrusted;
pub use self::live::{FileUse, Noted};
use self::survivors::Target;
pub use self::survivors::{HEAD as SURVIVORS_HEAD, Survivors, generation_in};
use super::error::{OpenError, StorageError};
use super::{Result, StorageOptions};
use crate::batch::{head_crc, is_intact};
use crate::keys::{BatchPlace, Placed};

pub const FOLDER: &str = "log";
/// Positions are 32 bits, and a file has at most this and one write more.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// What the system takes in one vectored write.
const SLICES_MAX: usize = 1024;
/// More would not be files of this log: they would be 128 PiB of the default size.
const NUMBER_MAX: u32 = 1 << 31;
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
    ahead: Ahead,
}

#[derive(Default)]
struct Table {
    files: BTreeMap<u32, LogFile>,
    /// The one that the writer appends to.
    current: Option<u32>,
    /// The writer's last one, where zeros may lie behind what was appended.
    filled: Option<u32>,
    /// Those that batches are moved to, by generation.
    survivors: BTreeMap<u32, Target>,
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

    /// Something is under way to a file.
    fn is_under_way(&self, number: u32) -> bool {
        self.pending == Some(number) || self.survivors.values().any(|target| target.under_way && target.file == number)
    }

    /// More may be appended to a file.
    fn is_open(&self, number: u32) -> bool {
        self.current == Some(number) || self.survivors.values().any(|target| target.file == number)
    }

    /// Nothing more is appended to a file.
    fn close(&mut self, number: u32) {
        self.current = self.current.filter(|current| *current != number);
        self.survivors.retain(|_, target| target.file != number);
    }

    /// It is known how much of a file is live.
    fn is_sure(&self, number: u32) -> bool {
        !self.uncounted && number > self.unsure_to
    }

    /// No key names a file, and none will.
    fn is_dead(&self, number: u32) -> bool {
        self.is_sure(number) && !self.is_under_way(number) && self.files.get(&number).is_none_or(|file| file.live == 0)
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

/// Batches of one write on their way to a file, whose places are known already.
pub struct Placing {
    file: u32,
    /// 0: they were never moved.
    generation: u32,
    is_new: bool,
    from: u32,
    len: u32,
    crc: u32,
    parts: Vec<Bytes>,
}

impl Placing {
    fn new(file: u32, is_new: bool, from: u32) -> Self {
        Self { file, generation: 0, is_new, from, len: 0, crc: 0, parts: Vec::new() }
    }

    fn put(&mut self, part: Bytes) {
        self.len = self.len.saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
        self.parts.push(part);
    }

    /// Says where the next batch comes to lie.
    pub fn add(&mut self, batch: &Bytes, sequence: u64, last_offset_delta: i32, max_timestamp: i64) -> BatchPlace {
        let (crc, len) = (head_crc(0, batch), u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let at = self.from.saturating_add(self.len);
        self.crc = head_crc(self.crc, batch);
        self.put(batch.clone());
        BatchPlace { sequence, file: self.file, at, len, crc, last_offset_delta, max_timestamp }
    }

    pub fn placed(&self) -> Placed {
        Placed { file: self.file, from: self.from, len: self.len, crc: self.crc }
    }
}

pub fn name_of(number: u32) -> String {
    format!("{number:06}.log")
}

fn number_of(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let number = name.strip_suffix(".log")?.parse().ok()?;
    ((1..=NUMBER_MAX).contains(&number) && name_of(number) == name).then_some(number)
}

/// What lies in the folder: files of the log with their sizes, and names of what is something else. Nothing where there is
/// no folder.
pub fn list(folder: &Path) -> io::Result<(BTreeMap<u32, u64>, Vec<String>)> {
    let (mut found, mut strangers) = (BTreeMap::new(), Vec::new());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((found, strangers)),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name == LOST_AND_FOUND || name == ahead::NAME {
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
        let (mut found, strangers) = list(&folder).map_err(|e| OpenError::Io {
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
        ahead::clean(&folder, &mut found);
        // A number is not taken where something else has its name.
        let last = strangers.iter().filter_map(|name| number_of(name.as_ref())).max().unwrap_or(0);
        let mut table = Table { last, ..Table::default() };
        for (number, size) in found {
            table.files.insert(number, LogFile { size, end: size, ..LogFile::default() });
            table.last = table.last.max(number);
        }
        let file_bytes = options.log_file_bytes.clamp(1, FILE_BYTES_MAX);
        Ok(Self {
            ahead: Ahead::new(options, &folder, file_bytes),
            folder,
            file_bytes,
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

    /// A file of this number there was, whether it is found or not.
    pub fn there_was(&self, number: u32) {
        let mut table = self.table.lock();
        table.last = table.last.max(number).min(NUMBER_MAX);
    }

    /// What the writer puts anywhere from now on lies in this file, or in one with a greater number.
    pub fn writes_from(&self) -> u32 {
        let table = self.table.lock();
        table.current.unwrap_or(table.last)
    }

    /// After a clean end the writer's last file is gone on with, where it is what it was and none is missing behind it.
    pub fn go_on(&self, number: u32) {
        let mut table = self.table.lock();
        let none_is_missing = table.files.last_key_value().is_some_and(|(last, _)| *last == table.last);
        let is_as_it_was = |file: &LogFile| file.size < self.file_bytes && file.size >= file.end;
        if none_is_missing && table.files.get(&number).is_some_and(is_as_it_was) {
            table.current = Some(number);
        }
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
        Placing::new(file, is_new, from)
    }

    /// Appends what was placed, with the write's commit record behind it, and forces it to disk if asked.
    pub fn append(&self, placing: &Placing, record: Option<Bytes>, force: bool) -> Result<()> {
        let number = placing.file;
        let end = u64::from(placing.from) + u64::from(placing.len) + record.as_ref().map_or(0, |r| r.len() as u64);
        let done = self.to_append(placing).and_then(|file| {
            write_all(&file, placing.parts.iter().chain(&record), u64::from(placing.from))?;
            if force {
                file.sync_data()?;
                if placing.is_new {
                    File::open(&self.folder)?.sync_all()?;
                }
                if placing.generation == 0 {
                    self.ahead.forced(placing.is_new, end - u64::from(placing.from));
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
                table.close(number);
                drop(table);
                let cut = match placing.generation {
                    0 => self.take_back(placing.placed()),
                    // Whether a power cut brings it back does not matter: there is no record, and no key names it.
                    _ => self.shorten(placing.placed()).map(drop),
                };
                let path = self.path_of(number);
                if let Err(e) = cut {
                    tracing::warn!("{}", failed(&e, &path));
                }
                Err(failed(&e, &path))
            }
        }
    }

    /// Cuts off what was appended last, which no key names and none will, so that on a full disk there is room again. With
    /// it goes its commit record; a power cut may bring that back until files were written again ([`LogFiles::write_again`]).
    pub fn take_back(&self, placed: Placed) -> io::Result<()> {
        if let Some(file) = self.shorten(placed)?
            && let Err(e) = file.sync_all()
        {
            tracing::debug!("log file {} is not shorter on disk yet: {e}", name_of(placed.file));
            self.cut.lock().insert(placed.file, file);
        }
        Ok(())
    }

    /// The file, where it has become shorter.
    fn shorten(&self, placed: Placed) -> io::Result<Option<Arc<File>>> {
        let from = u64::from(placed.from);
        if placed.len == 0 || self.table.lock().files.get(&placed.file).is_none_or(|file| file.size <= from) {
            return Ok(None);
        }
        let file = self.handle_for(placed.file, true)?;
        file.set_len(from)?;
        if let Some(file) = self.table.lock().files.get_mut(&placed.file) {
            file.size = from;
        }
        Ok(Some(file))
    }

    /// The file to append to. A new one was not there before, whoever made it.
    fn to_append(&self, placing: &Placing) -> io::Result<Arc<File>> {
        let number = placing.file;
        if number > NUMBER_MAX {
            return Err(io::Error::other("no number is left for another"));
        }
        if !placing.is_new {
            return self.handle_for(number, true);
        }
        let path = self.path_of(number);
        let taken = match placing.generation {
            0 => {
                self.cut_filled();
                self.ahead.take(&path)
            }
            _ => None,
        };
        let filled = taken.as_ref().map(|_| number);
        let file = match taken {
            Some(file) => file,
            None => Arc::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?),
        };
        let mut table = self.table.lock();
        table.filled = filled.or(table.filled);
        table.last = table.last.max(number);
        if placing.generation == 0 {
            table.current = Some(number);
        }
        table.files.insert(number, LogFile { records: Some(0), ..LogFile::default() });
        table.used(number, &file, true, self.open_max);
        Ok(file)
    }

    /// Cuts off the zeros behind what was appended to the writer's file. They do no harm where that fails, or is not on disk.
    fn cut_filled(&self) {
        let mut table = self.table.lock();
        let Some(number) = table.filled.take() else { return };
        let Some(size) = table.files.get(&number).map(|file| file.size) else { return };
        drop(table);
        let cut = || {
            let file = self.handle_for(number, true)?;
            if file.metadata()?.len() > size { file.set_len(size) } else { Ok(()) }
        };
        if let Err(e) = cut() {
            tracing::debug!("zeros at the end of log file {} stay: {e}", name_of(number));
        }
    }

    /// Gives back what was set aside for the next file.
    pub fn give_up_ahead(&self) {
        self.ahead.give_up();
    }

    /// After the last write.
    pub fn close(&self) {
        self.ahead.close();
        self.cut_filled();
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

    /// What was placed last is not committed and will not be.
    pub fn gave_up(&self) {
        self.table.lock().pending = None;
    }

    /// The next write begins a new file.
    pub fn begin_another(&self) {
        self.table.lock().current = None;
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

#[cfg(test)]
pub mod tests {
    use std::collections::HashMap;

    use millpond_types::record::RecordBuffer;

    use super::*;
    use crate::batch::{Codec, EncodeOptions, encode};

    pub fn batch(text: &str) -> Bytes {
        let mut records = RecordBuffer::default();
        records.push(None, Some(text.as_bytes()), 1, &[]);
        let options = EncodeOptions {
            compression: Codec::None.into(),
            batch_bytes_max: 1 << 20,
            log_append_time: None,
            room_before: 0,
        };
        encode(&records, options).unwrap().remove(0).bytes.into()
    }

    pub fn files(directory: &Path) -> LogFiles {
        let mut options = StorageOptions::new(directory);
        options.log_file_bytes = 300;
        options.log_files_open_max = 2;
        let files = LogFiles::open(&options).unwrap();
        files.make_folder().unwrap();
        files
    }

    pub fn append(files: &LogFiles, texts: &[&str]) -> Vec<(BatchPlace, Bytes)> {
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
    fn a_file_is_gone_on_with_only_after_a_clean_end() {
        let directory = tempfile::tempdir().unwrap();
        let place = append(&files(directory.path()), &["a"])[0].0;
        let live = HashMap::from([(1, u64::from(place.len))]);
        let again = files(directory.path());
        again.noted(&BTreeMap::from([(
            1,
            Noted { live: u64::from(place.len), end: u64::from(place.len), records: None },
        )]));
        again.go_on(1);
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
}

//! Commit records: what a write says to RocksDB, behind its batches in the log file, so that one fsync is enough for both.
//! RocksDB's own log is forced to disk later, and what a power cut takes of it is written again from here.
//!
//! ```text
//! record   magic [8] | number of the write u64 | length u32 | crc32c of number and data u32 | data: a WriteBatch of RocksDB
//! magic    begins with 0xff, where a batch's base offset never does; so that a walk over a file tells both apart
//! ```
//!
//! Invariants: RocksDB's log is forced together with the first record that a process puts into a file (`writer`), so that
//! records of what it lacks are in the last file, or in the one before it too if that one was just begun; files of survivors
//! lie between, and have none. A record without
//! what its batches should be is the last one and was not acknowledged, or something is damaged. A write that RocksDB's log
//! has behind a hole gets a record in a file of its own, of any size, before that log is cut there.
//!
//! Not here: when a record is written (`writer`), and that what RocksDB lacks may lie here (`verify`).

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use rocksdb::{DB, WriteBatch};

use super::StorageOptions;
use super::error::OpenError;
use super::load::not_opened;
use super::log_files::{self, FOLDER, SURVIVORS_HEAD, generation_in};
use super::recheck::Recheck;
use super::recovery::number_in;
use super::wal::{self, Behind};
use crate::batch::{BatchHeader, HEADER_LEN, LENGTH_OVERHEAD};

const MAGIC: [u8; 8] = *b"\xffcommit1";
/// Magic, number, length and checksum.
const HEAD: usize = 24;
/// A write that says more to RocksDB is forced to disk there.
pub const RECORD_BYTES_MAX: usize = 64 << 10;
/// So much in log files, and RocksDB's log is forced too: what is looked at after an end without warning.
pub const UNFORCED_BYTES_MAX: u64 = 16 << 20;
/// Read at once where a file is gone through; most of large batches is skipped.
const PARTS_BYTES: usize = 16 << 10;
/// So many files, and records, are looked through where the last two do not reach back to what the database has, because
/// it lost more than a power cut takes.
const FILES_MAX: usize = 256;
const RECORDS_MAX: usize = 1 << 20;

pub fn encode(number: u64, data: &[u8]) -> Bytes {
    let mut record = Vec::with_capacity(HEAD + data.len());
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&number.to_be_bytes());
    record.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    record.extend_from_slice(&crc_of(number, data).to_be_bytes());
    record.extend_from_slice(data);
    record.into()
}

fn crc_of(number: u64, data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), data)
}

/// Where a whole record lies.
#[derive(Debug)]
struct Found {
    number: u64,
    file: u32,
    at: u64,
}

/// Records that the database may lack, in the order of writing.
#[derive(Debug)]
pub struct Commits {
    found: Vec<Found>,
    /// The last file, where it ends with a whole batch or record.
    whole: Option<u32>,
}

impl Commits {
    /// Of a database that ends with the write `last`. Blocks on disk.
    pub fn after(options: &StorageOptions, last: u64) -> Result<Self, OpenError> {
        Self::read(options, last).map_err(|e| failed(options, &e))
    }

    fn read(options: &StorageOptions, last: u64) -> io::Result<Self> {
        // Nothing where there is no folder: from before there were log files, or new, or its disk is not there.
        let files = log_files::files_from(options, 0)?;
        let (mut all, mut records, mut whole_last) = (Vec::new(), 0, None);
        for (file, path) in files.into_iter().rev() {
            let Some(Walked { first, found, whole }) = walk(file, &path, last)? else { continue };
            // The last one may have been begun by a write that is not there.
            if all.is_empty() {
                whole_last = whole.then_some(file);
            } else if first.is_none() {
                break;
            }
            records += found.len();
            all.push(found);
            if first.is_some_and(|first| first <= last) || all.len() >= FILES_MAX || records >= RECORDS_MAX {
                break;
            }
        }
        Ok(Self { found: all.into_iter().rev().flatten().collect(), whole: whole_last })
    }

    /// The write up to which they go on from `last`, each the next.
    pub fn reach(&self, last: u64) -> u64 {
        self.found.iter().fold(last, |last, found| if found.number == last + 1 { found.number } else { last })
    }

    /// The same with batches that are there, all of them, and on disk.
    fn proven(&self, options: &StorageOptions, last: u64) -> io::Result<u64> {
        let (mut recheck, mut done) = (Recheck::new(options), last);
        for found in &self.found {
            if found.number != done + 1 {
                continue;
            }
            if !is_there(&mut recheck, &found.data(options)?)? {
                break;
            }
            done = found.number;
        }
        recheck.force()?;
        Ok(done)
    }

    /// The greatest number that there is.
    pub fn end(&self) -> u64 {
        self.found.iter().map(|found| found.number).max().unwrap_or(0)
    }
}

/// Whether there is what a write that says this to RocksDB put into a log file, if it did.
fn is_there(recheck: &mut Recheck, data: &[u8]) -> io::Result<bool> {
    match wal::placed_of(data) {
        Some(placed) if placed.len > 0 => recheck.is_there(&placed),
        placed => Ok(placed.is_some()),
    }
}

/// The write that records make up for, with what the write-ahead log has behind a hole, where it can be read up to the
/// write `last` before that: then nothing is lacking up to the last write that either of them names. `None` where
/// something would be, or it would end before `least`. What only that log has is kept in a record then. Blocks on disk.
pub fn make_up(
    options: &StorageOptions,
    (last, least): (u64, u64),
    behind: Option<&Behind>,
) -> Result<Option<u64>, OpenError> {
    let commits = Commits::after(options, last)?;
    let done = commits.proven(options, last).map_err(|e| failed(options, &e))?;
    if done == last || commits.end() > done + 1 {
        return Ok(None);
    }
    // It is forced to disk with all before it before there is a next: a power cut leaves no more than one.
    let next = behind.filter(|behind| behind.number > done);
    if next.is_some_and(|next| next.number > done + 1) || next.map_or(done, |next| next.number) < least {
        return Ok(None);
    }
    let Some(next) = next else { return Ok(Some(done)) };
    let kept = keep(options, next).map_err(|e| failed(options, &e))?;
    Ok(kept.then_some(next.number))
}

/// Puts a write into a file of its own. False where what it put into another is not there.
fn keep(options: &StorageOptions, write: &Behind) -> io::Result<bool> {
    let mut recheck = Recheck::new(options);
    if !is_there(&mut recheck, &write.data)? {
        return Ok(false);
    }
    recheck.force()?;
    let last = log_files::files_from(options, 0)?.last().map_or(0, |(number, _)| *number);
    let path = log_files::path_in(options, last.saturating_add(1));
    let mut file = File::create_new(&path)?;
    file.write_all(&encode(write.number, &write.data))?;
    file.sync_all()?;
    File::open(options.path.join(FOLDER))?.sync_all()?;
    Ok(true)
}

/// What lies in a file.
struct Walked {
    /// Number of the first record.
    first: Option<u64>,
    /// Records of writes that are asked for.
    found: Vec<Found>,
    /// Nothing in part lies behind the last.
    whole: bool,
}

/// Looks for records of writes after `last`. `None` of a file of survivors, and of one that has nothing.
fn walk(number: u32, path: &Path, last: u64) -> io::Result<Option<Walked>> {
    let mut parts = Parts::open(path)?;
    if !parts.is_of_writer {
        return Ok(None);
    }
    let (mut walked, mut data) = (Walked { first: None, found: Vec::new(), whole: false }, Vec::new());
    while let Some(part) = parts.next_part()? {
        let Some((write, crc)) = part.record else { continue };
        parts.data(&part, &mut data)?;
        if crc_of(write, &data) != crc {
            return Ok(Some(walked));
        }
        walked.first.get_or_insert(write);
        if write > last {
            walked.found.push(Found { number: write, file: number, at: part.at });
        }
    }
    walked.whole = parts.is_end();
    Ok(Some(walked))
}

/// What a file that nothing is appended to is made of, from its start on: batches, and records behind those of a write. Only
/// heads are read, and the data of records where somebody asks for it.
pub struct Parts {
    reader: BufReader<File>,
    size: u64,
    /// It begins with something, and that is no head of survivors.
    is_of_writer: bool,
    /// Where the reader is.
    here: u64,
    /// Where the next one begins.
    at: u64,
}

/// One that has as many bytes as its head says. What they are was not looked at.
pub struct Part {
    at: u64,
    pub len: u64,
    /// Number of its write, and checksum.
    record: Option<(u64, u32)>,
}

impl Part {
    pub fn is_record(&self) -> bool {
        self.record.is_some()
    }
}

impl Parts {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let reader = BufReader::with_capacity(PARTS_BYTES, file);
        let mut parts = Self { reader, size, is_of_writer: false, here: 0, at: 0 };
        let mut head = [0; SURVIVORS_HEAD];
        if size >= head.len() as u64 {
            parts.read(0, &mut head)?;
            match generation_in(&head) {
                Some(_) => parts.at = head.len() as u64,
                // Where a power cut has left so many zeros there is no batch.
                None => parts.is_of_writer = head != [0; SURVIVORS_HEAD],
            }
        }
        Ok(parts)
    }

    /// `None` at the end, and before what is neither or is there in part.
    pub fn next_part(&mut self) -> io::Result<Option<Part>> {
        let mut head = [0; HEADER_LEN];
        let len = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(HEADER_LEN);
        let head = head.get_mut(..len).unwrap_or_default();
        self.read(self.at, head)?;
        let (len, record) = if head.starts_with(&MAGIC) {
            let Some((number, len, crc)) = parse(head) else { return Ok(None) };
            (HEAD + len, Some((number, crc)))
        } else {
            let length = BatchHeader::parse(head).and_then(|head| usize::try_from(head.length).ok()).unwrap_or(0);
            let len = length.saturating_add(LENGTH_OVERHEAD);
            if len < HEADER_LEN {
                return Ok(None);
            }
            (len, None)
        };
        let part = Part { at: self.at, len: len as u64, record };
        if part.len > self.size - self.at {
            return Ok(None);
        }
        self.at += part.len;
        Ok(Some(part))
    }

    /// What the record says to RocksDB that came last.
    fn data(&mut self, part: &Part, data: &mut Vec<u8>) -> io::Result<()> {
        data.resize(usize::try_from(part.len).unwrap_or(usize::MAX).saturating_sub(HEAD), 0);
        self.read(part.at + HEAD as u64, data)
    }

    fn read(&mut self, from: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.seek_relative(from as i64 - self.here as i64)?;
        self.reader.read_exact(bytes)?;
        self.here = from + bytes.len() as u64;
        Ok(())
    }

    /// Where what was gone through ends.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Nothing lies behind the last one.
    fn is_end(&self) -> bool {
        self.at == self.size
    }
}

/// Number, length of the data, and checksum.
fn parse(head: &[u8]) -> Option<(u64, usize, u32)> {
    let fields = head.get(MAGIC.len()..HEAD)?;
    let (number, rest) = fields.split_first_chunk::<8>()?;
    let (len, crc) = rest.split_first_chunk::<4>()?;
    let len = u32::from_be_bytes(*len) as usize;
    let crc = u32::from_be_bytes(*crc.first_chunk::<4>()?);
    Some((u64::from_be_bytes(*number), len, crc))
}

impl Found {
    fn data(&self, options: &StorageOptions) -> io::Result<Vec<u8>> {
        let file = File::open(log_files::path_in(options, self.file))?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, self.at)?;
        let (_, len, _) = parse(&head).ok_or(io::ErrorKind::InvalidData)?;
        if self.at + (HEAD + len) as u64 > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut data = vec![0; len];
        file.read_exact_at(&mut data, self.at + HEAD as u64)?;
        Ok(data)
    }
}

/// What [`replay`] came upon.
pub struct Replayed {
    /// The greatest number of a write that a record names.
    pub end: u64,
    /// The writer's last file, where nothing was lacking and it can be gone on with.
    pub goes_on: Option<u32>,
}

/// Writes to the database what it lacks and what lies here. An error where more is lost than a write that was under way,
/// unless that was accepted. Blocks on disk.
pub fn replay(db: &DB, options: &StorageOptions) -> Result<Replayed, OpenError> {
    let last = number_in(db).map_err(|e| not_opened(options, e))?;
    let commits = Commits::after(options, last)?;
    // All of it is on disk before the database names it.
    let done = commits.proven(options, last).map_err(|e| failed(options, &e))?;
    let end = commits.end();
    if end > done + 1 && !options.accept_data_loss {
        let detail = format!(
            "it ends with write {done}, and log files name later ones up to write {end}: what lies between is lost or damaged; {}",
            super::verify::WAY_OUT
        );
        return Err(OpenError::Damaged { path: options.path.display().to_string(), detail });
    }
    let mut at = last;
    for found in &commits.found {
        if found.number == at + 1 && found.number <= done {
            let data = found.data(options).map_err(|e| failed(options, &e))?;
            db.write(WriteBatch::from_data(&data)).map_err(|e| not_opened(options, e.into()))?;
            at = found.number;
        }
    }
    if at > last {
        db.flush_wal(true).map_err(|e| not_opened(options, e.into()))?;
        tracing::debug!("writes that the database lacked and log files had: {}", at - last);
    }
    Ok(Replayed { end, goes_on: commits.whole.filter(|_| at == last && end <= last) })
}

fn failed(options: &StorageOptions, e: &io::Error) -> OpenError {
    OpenError::Io { path: options.path.display().to_string(), detail: format!("folder \"{FOLDER}\": {e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_gone_through_as_far_as_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let batch = |len: usize| {
            let mut batch = vec![0; len];
            batch[8..12].copy_from_slice(&u32::try_from(len - LENGTH_OVERHEAD).unwrap().to_be_bytes());
            batch
        };
        let record = |number: u64, data: &[u8]| encode(number, data).to_vec();
        let all = [batch(61), record(7, b""), batch(40_000), record(8, &[9; 20_000]), record(9, b"a")];
        let len = |count: usize| all.iter().take(count).map(Vec::len).sum::<usize>();
        // How many there are, how many of these are whole records, and whether nothing else is there.
        let check = |bytes: &[u8], parts: usize, records: &[u64], is_end: bool| {
            std::fs::write(&path, bytes).unwrap();
            let (mut found, mut gone_through) = (Vec::new(), Parts::open(&path).unwrap());
            while let Some(part) = gone_through.next_part().unwrap() {
                found.push((part.at as usize, part.is_record()));
            }
            let expected = [(0, false), (len(1), true), (len(2), false), (len(3), true), (len(4), true)];
            assert_eq!((&found[..], gone_through.is_end()), (&expected[..parts], is_end));
            let walked = walk(1, &path, 0).unwrap().unwrap();
            assert_eq!(walked.found.iter().map(|found| found.number).collect::<Vec<_>>(), records);
            assert_eq!((walked.first, walked.whole), (Some(7), is_end && records.len() == 3));
        };
        let bytes = all.concat();
        check(&bytes, 5, &[7, 8, 9], true);
        check(&bytes[..bytes.len() - 1], 4, &[7, 8], false);
        check(&bytes[..len(4) + HEAD - 1], 4, &[7, 8], false);
        check(&bytes[..len(4) + 1], 4, &[7, 8], false);
        check(&bytes[..len(3) - 1], 2, &[7], false);
        check(&[&bytes[..], &[0; 100]].concat(), 5, &[7, 8, 9], false);
        // Only the heads of what nobody asks for are looked at.
        let mut other = bytes.clone();
        other[len(3) + HEAD + 5] ^= 1;
        check(&other, 5, &[7], true);
    }

    #[test]
    fn few_files_are_looked_through() {
        let directory = tempfile::tempdir().unwrap();
        let options = StorageOptions::new(directory.path());
        std::fs::create_dir(directory.path().join(FOLDER)).unwrap();
        for number in 1..=FILES_MAX as u64 + 20 {
            let records = [encode(number * 2, b"a"), encode(number * 2 + 1, b"b")].concat();
            std::fs::write(log_files::path_in(&options, number as u32), records).unwrap();
        }
        let numbers = |last: u64| {
            let commits = Commits::after(&options, last).unwrap();
            assert!(commits.whole.is_some());
            commits.found.iter().map(|found| found.number).collect::<Vec<_>>()
        };
        let end = FILES_MAX as u64 * 2 + 41;
        assert_eq!(numbers(0), (42..=end).collect::<Vec<_>>());
        assert_eq!(numbers(end - 3), [end - 2, end - 1, end]);
        assert!(numbers(end).is_empty());
        let commits = Commits::after(&options, end - 2).unwrap();
        assert_eq!((commits.reach(end - 2), commits.reach(end - 3), commits.end()), (end, end - 3, end));
    }
}

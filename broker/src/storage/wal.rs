//! RocksDB's write-ahead log, read to find out whether it is whole. RocksDB itself goes on behind a damaged place, as it
//! has to be opened here (`directory`), and what was lost would be lost without a word.
//!
//! ```text
//! db/NNNNNN.log   blocks of 32 KiB; what does not fit into the rest of a block goes on in the next
//! fragment        crc32c u32 le, masked | length u16 le | kind u8 | payload
//! kind            1 whole record, 2 first, 3 middle, 4 last part of one; 9, 10, 130 and more: not a write
//! record          sequence u64 le | count u32 le | entries: a WriteBatch of RocksDB
//! ```
//!
//! Each write has the sequence that follows the one before it, over all files, so that a place that cannot be read has
//! cost something exactly if what comes next does not go on where it should. Our writes end with their number
//! (`Counter::Writes`), and before it what they put into a log file (`Counter::Placed`): a write whose batches are not
//! there is missing as one that cannot be read.
//!
//! Not here: what is done about it (`verify`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::keys::{self, Counter, PLACED_LEN, Placed};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Kinds that are no writes.
const OTHERS: [u8; 3] = [9, 10, 130];
/// Sequence and count.
const BATCH_HEADER: usize = 12;
/// The number of a write: the key with its length, the value with its.
const NUMBER: usize = 12;
/// The same of what was placed, with the entry's kind after it.
const PLACED: usize = 4 + PLACED_LEN + 1;
const CRC_MASK: u32 = 0xa282_ead8;

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub number: u64,
    pub path: PathBuf,
}

/// Where something begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub log: Log,
    pub at: u64,
}

impl Place {
    fn is_in_block_of(&self, other: &Place) -> bool {
        self.log == other.log && self.at / BLOCK as u64 == other.at / BLOCK as u64
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" byte {}", self.log.path.display(), self.at)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Whole,
    /// What lies from there on cannot be read, and nothing that can follows.
    Torn(Place),
    /// Between the two something is missing.
    Damaged {
        at: Place,
        resumes: Place,
    },
}

/// What the files hold up to the first place at which something is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub found: Found,
    pub records: u64,
    /// Number of the last write, where one has a number.
    pub last_write: Option<u64>,
    /// RocksDB's sequence behind what they hold, where something says it.
    pub next: Option<u64>,
    /// The log file that batches of what comes after it lie in, or one before that.
    pub file: Option<u32>,
    /// Of the writes that can be read behind that place, the one with the greatest number.
    pub behind: Option<Behind>,
}

/// A whole write behind a place at which something is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub number: u64,
    /// A WriteBatch of RocksDB.
    pub data: Vec<u8>,
}

/// Files of the log, oldest first.
pub fn logs(database: &Path) -> io::Result<Vec<Log>> {
    let mut logs = Vec::new();
    let entries = match fs::read_dir(database) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(logs),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|e| e.to_str())) {
            logs.push(Log { number, path });
        }
    }
    logs.sort_unstable_by_key(|log| log.number);
    Ok(logs)
}

/// Whether what a write placed is there, by its number.
pub type IsThere<'a> = dyn FnMut(u64, &Placed) -> io::Result<bool> + 'a;

/// Reads files of the log, oldest first, and asks of each write, by its number, whether what it placed is there. Blocks
/// on disk.
pub fn scan(logs: &[Log], is_there: &mut IsThere<'_>) -> Result<Scan, (Log, io::Error)> {
    let mut scanner = Scanner {
        is_there,
        expected: None,
        bad: None,
        damaged: None,
        records: 0,
        last_write: None,
        file: None,
        behind: None,
    };
    for (i, log) in logs.iter().enumerate() {
        let bytes = scanner.file(log).map_err(|e| (log.clone(), e))?;
        // Nobody knows what it should begin with: if it is needed, a power cut took all of it and left what follows.
        if bytes == 0 && scanner.expected.is_none() && i + 1 < logs.len() {
            scanner.cannot_read(log, 0);
        }
    }
    let found = match (scanner.damaged, scanner.bad) {
        (Some((at, resumes)), _) => Found::Damaged { at, resumes },
        (None, Some(at)) => Found::Torn(at),
        (None, None) => Found::Whole,
    };
    let Scanner { records, last_write, expected: next, file, behind, .. } = scanner;
    Ok(Scan { found, records, last_write, next, file, behind })
}

struct Scanner<'a> {
    is_there: &'a mut IsThere<'a>,
    /// Sequence of the next record.
    expected: Option<u64>,
    /// What cannot be read; whether it has cost something is known when something follows.
    bad: Option<Place>,
    /// Nothing else changes any more when that is known, but for what is seen behind it.
    damaged: Option<(Place, Place)>,
    records: u64,
    last_write: Option<u64>,
    file: Option<u32>,
    behind: Option<Behind>,
}

/// A record of which some fragments were read.
struct Begun {
    at: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// All of it, as long as it is not known to be before what is missing.
    all: Vec<u8>,
    goes_on: bool,
}

impl Begun {
    fn new(at: u64) -> Self {
        Self { at, head: Vec::with_capacity(BATCH_HEADER), tail: Vec::new(), all: Vec::new(), goes_on: false }
    }

    fn add(&mut self, payload: &[u8]) {
        if !self.goes_on {
            self.all.extend_from_slice(payload);
        }
        let missing = BATCH_HEADER.saturating_sub(self.head.len()).min(payload.len());
        self.head.extend_from_slice(payload.get(..missing).unwrap_or_default());
        self.tail.extend_from_slice(payload.get(payload.len().saturating_sub(PLACED + NUMBER)..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(PLACED + NUMBER));
    }

    fn sequence(&self) -> Option<(u64, u32)> {
        let (sequence, count) = self.head.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*sequence), u32::from_le_bytes(*count.first_chunk()?)))
    }

    fn number(&self) -> Option<u64> {
        let key = keys::counter(Counter::Writes);
        let tail = self.tail.get(self.tail.len().checked_sub(NUMBER)?..)?;
        let number = tail.strip_prefix(&[key.len() as u8])?.strip_prefix(&key[..])?.strip_prefix(&[8])?;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }
}

/// What a write with a number, of which this is the end, put into a log file; also where it put nothing there.
pub fn placed_of(data: &[u8]) -> Option<Placed> {
    let key = keys::counter(Counter::Placed);
    let data = data.get(..data.len().checked_sub(NUMBER + 1)?)?;
    let tail = data.get(data.len().checked_sub(PLACED - 1)?..)?;
    let value = tail.strip_prefix(&[key.len() as u8])?.strip_prefix(&key[..])?.strip_prefix(&[PLACED_LEN as u8])?;
    Placed::decode(value.try_into().ok()?)
}

impl Scanner<'_> {
    /// Returns how many bytes there were.
    fn file(&mut self, log: &Log) -> io::Result<u64> {
        let mut file = File::open(&log.path)?;
        let mut buffer = vec![0; BLOCK];
        let mut begun = None;
        let mut start = 0;
        loop {
            let len = fill(&mut file, &mut buffer)?;
            let block = buffer.get(..len).unwrap_or_default();
            if block.is_empty() {
                break;
            }
            let mut at = 0;
            // Less than a header at the end of a block is filling.
            while let Some(rest) = block.get(at..).filter(|rest| rest.len() >= HEADER) {
                let place = start + at as u64;
                if let Some((kind, payload)) = fragment(rest) {
                    self.add(log, place, kind, payload, &mut begun)?;
                    at += HEADER + payload.len();
                } else {
                    let from = begun.take().map_or(place, |begun: Begun| begun.at);
                    self.cannot_read(log, from);
                    at = (at + 1..block.len()).find(|at| begins(block, *at)).unwrap_or(block.len());
                }
            }
            if at < len && len < BLOCK {
                let from = begun.take().map_or(start + at as u64, |begun| begun.at);
                self.cannot_read(log, from);
            }
            start += len as u64;
        }
        if let Some(begun) = begun {
            self.cannot_read(log, begun.at);
        }
        Ok(start)
    }

    fn cannot_read(&mut self, log: &Log, at: u64) {
        if self.bad.is_none() {
            self.bad = Some(Place { log: log.clone(), at });
        }
    }

    fn add(&mut self, log: &Log, at: u64, kind: u8, payload: &[u8], begun: &mut Option<Begun>) -> io::Result<()> {
        match kind {
            FULL | FIRST => {
                if let Some(before) = begun.take() {
                    self.cannot_read(log, before.at);
                }
                *begun = Some(Begun::new(at));
            }
            MIDDLE | LAST if begun.is_none() => {
                self.cannot_read(log, at);
                return Ok(());
            }
            MIDDLE | LAST => {}
            _ => return Ok(()),
        }
        let Some(record) = begun else { return Ok(()) };
        let known = record.sequence().is_some();
        record.add(payload);
        let Some((sequence, count)) = record.sequence() else {
            // Too short for a write.
            if matches!(kind, FULL | LAST) {
                let from = record.at;
                *begun = None;
                self.cannot_read(log, from);
            }
            return Ok(());
        };
        if !known && self.damaged.is_none() && self.goes_on(log, record.at, sequence) {
            record.goes_on = true;
            record.all = Vec::new();
        }
        if !record.goes_on && (self.damaged.is_none() || self.expected.is_some_and(|expected| sequence < expected)) {
            *begun = None;
            return Ok(());
        }
        if matches!(kind, FULL | LAST) {
            if !record.goes_on {
                if let Some(number) = record.number()
                    && self.behind.as_ref().is_none_or(|behind| behind.number < number)
                {
                    self.behind = Some(Behind { number, data: std::mem::take(&mut record.all) });
                }
                *begun = None;
                return Ok(());
            }
            if let (Some(number), Some(placed)) = (record.number(), placed_of(&record.tail)) {
                if placed.len > 0 && !(self.is_there)(number, &placed)? {
                    let here = Place { log: log.clone(), at: record.at };
                    self.damaged = Some((here.clone(), here));
                    self.expected = Some(sequence);
                    self.file = self.file.or(Some(placed.file));
                    *begun = None;
                    return Ok(());
                }
                if placed.len > 0 || self.file.is_none() {
                    self.file = Some(placed.file);
                }
            }
            self.expected = Some(sequence.saturating_add(u64::from(count)));
            self.records += 1;
            self.last_write = record.number().or(self.last_write);
            *begun = None;
        }
        Ok(())
    }

    /// Whether a record that begins has the sequence that it should.
    fn goes_on(&mut self, log: &Log, at: u64, sequence: u64) -> bool {
        let here = Place { log: log.clone(), at };
        match (self.expected, self.bad.take()) {
            (None, None) => true,
            // RocksDB passes over what is left of a block in which it cannot read something.
            (Some(expected), Some(bad)) if sequence == expected && bad.is_in_block_of(&here) => {
                self.damaged = Some((bad, here));
                false
            }
            (Some(expected), _) if sequence == expected => true,
            // Not the log's own record, but something within what cannot be read that looks like one.
            (Some(expected), Some(bad)) if sequence < expected => {
                self.bad = Some(bad);
                false
            }
            (_, bad) => {
                self.damaged = Some((bad.unwrap_or_else(|| here.clone()), here));
                false
            }
        }
    }
}

/// The fragment that `bytes` begin with, if it is one and whole.
fn fragment(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let ([c0, c1, c2, c3, l0, l1, kind], rest) = bytes.split_first_chunk::<HEADER>()?;
    let payload = rest.get(..usize::from(u16::from_le_bytes([*l0, *l1])))?;
    if !(FULL..=LAST).contains(kind) && !OTHERS.contains(kind) {
        return None;
    }
    let crc = u32::from_le_bytes([*c0, *c1, *c2, *c3]).wrapping_sub(CRC_MASK).rotate_left(15);
    (crc32c::crc32c_append(crc32c::crc32c(&[*kind]), payload) == crc).then_some((*kind, payload))
}

/// Whether a record begins there.
fn begins(block: &[u8], at: usize) -> bool {
    match block.get(at..).and_then(fragment) {
        Some((FULL, payload)) => payload.len() >= BATCH_HEADER,
        // It goes on in the next block.
        Some((FIRST, payload)) => at + HEADER + payload.len() == BLOCK,
        _ => false,
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a log of writes from one on with these sizes, and where each begins and ends.
    fn log_of(first: u64, sizes: &[usize]) -> (Vec<u8>, Vec<(usize, usize)>) {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (number, size) in (first..).zip(sizes) {
            let mut record = [&(number * 3).to_le_bytes()[..], &3u32.to_le_bytes(), &vec![b'x'; *size]].concat();
            record.extend_from_slice(&[2]);
            record.extend_from_slice(&keys::counter(Counter::Writes));
            record.extend_from_slice(&[8]);
            record.extend_from_slice(&number.to_be_bytes());
            let (mut rest, mut begun) = (&record[..], None);
            while begun.is_none() || !rest.is_empty() {
                let room = BLOCK - bytes.len() % BLOCK;
                if room < HEADER {
                    bytes.resize(bytes.len() + room, 0);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(room - HEADER));
                let kind = match (begun.is_none(), later.is_empty()) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, false) => MIDDLE,
                    (false, true) => LAST,
                };
                begun.get_or_insert(bytes.len());
                let crc = crc32c::crc32c(&[&[kind], now].concat()).rotate_right(15).wrapping_add(CRC_MASK);
                bytes.extend_from_slice(&crc.to_le_bytes());
                bytes.extend_from_slice(&(now.len() as u16).to_le_bytes());
                bytes.push(kind);
                bytes.extend_from_slice(now);
                rest = later;
            }
            places.push((begun.unwrap(), bytes.len()));
        }
        (bytes, places)
    }

    fn scan_files(files: &[&[u8]]) -> Scan {
        let directory = tempfile::tempdir().unwrap();
        for (number, bytes) in (7..).zip(files) {
            fs::write(directory.path().join(format!("{number:06}.log")), bytes).unwrap();
        }
        fs::write(directory.path().join("CURRENT"), "MANIFEST-1").unwrap();
        scan(&logs(directory.path()).unwrap(), &mut |number, placed| Ok(number != 6 || placed.len != 5)).unwrap()
    }

    /// Files and places without the directory.
    fn told(found: &Found) -> Option<(u64, u64, bool)> {
        match found {
            Found::Whole => None,
            Found::Torn(at) => Some((at.log.number, at.at, false)),
            Found::Damaged { at, .. } => Some((at.log.number, at.at, true)),
        }
    }

    // The fourth leaves a header's room in its block, the seventh less.
    const SIZES: [usize; 9] = [20, 300, 5000, 27_317, 40_000, 10, 25_423, 70_000, 60];

    #[test]
    fn every_changed_byte_is_found_in_its_write() {
        let (bytes, places) = log_of(1, &SIZES);
        assert_eq!((places[3].1 % BLOCK, places[6].1 % BLOCK), (BLOCK - HEADER, BLOCK - 3));
        let whole = scan_files(&[&bytes]);
        assert_eq!((told(&whole.found), whole.records, whole.last_write), (None, 9, Some(9)));
        let begins = |at: usize| places.iter().any(|p| (p.0..p.0 + 20).contains(&at));
        let near = |at: usize| at % BLOCK < 20 || at % BLOCK > BLOCK - 20 || begins(at);
        for at in (0..bytes.len()).filter(|at| at % 211 == 0 || near(*at)) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            let scan = scan_files(&[&changed]);
            let Some(which) = places.iter().position(|(from, to)| (*from..*to).contains(&at)) else {
                assert_eq!(scan, Scan { found: Found::Whole, ..whole.clone() }, "{at} is filling");
                continue;
            };
            // Filling in the midst of a write.
            if scan.found == Found::Whole {
                assert!(at % BLOCK > BLOCK - HEADER, "the change at {at} is not noticed");
                continue;
            }
            let last = which + 1 == places.len();
            assert_eq!(told(&scan.found), Some((7, places[which].0 as u64, !last)), "the change at {at}");
            assert_eq!(scan.last_write, (which > 0).then_some(which as u64), "the change at {at}");
        }
    }

    #[test]
    fn what_is_cut_is_torn_and_what_is_missing_between_files_is_damage() {
        let (bytes, places) = log_of(1, &SIZES);
        for (which, at) in [(0, 3), (0, 20), (4, places[4].0 + 33_000), (8, bytes.len() - 1)] {
            assert_eq!(
                told(&scan_files(&[&bytes[..at]]).found),
                Some((7, places[which].0 as u64, false)),
                "cut at {at}"
            );
        }
        let next = log_of(10, &SIZES).0;
        assert_eq!(told(&scan_files(&[&bytes, b"", &next]).found), None);
        assert_eq!(told(&scan_files(&[b"", &next]).found), Some((7, 0, true)), "what was in the first is unknown");
        assert_eq!(told(&scan_files(&[&bytes, b""]).found), None);
        assert_eq!(told(&scan_files(&[b""]).found), None);
        let last = places[8].0;
        assert_eq!(told(&scan_files(&[&bytes[..bytes.len() - 1], &next]).found), Some((7, last as u64, true)));
        assert_eq!(told(&scan_files(&[&bytes[..last], &next]).found), Some((8, 0, true)), "a whole write is missing");
        assert_eq!(told(&scan_files(&[&bytes, &log_of(19, &SIZES).0]).found), Some((8, 0, true)), "a file is missing");
        // What is left of a write that nobody was told of, before the next file goes on.
        assert_eq!(told(&scan_files(&[&[&bytes[..], &next[..40]].concat(), &next]).found), None);
    }
}

//! How far was written, noted beside the database, so that it is noticed when the database ends before that.
//!
//! ```text
//! written   one line: "millpond wrote N forced N durability group|interval|none kept N boot TEXT crc XXXXXXXX"
//! ```
//!
//! `forced` is on disk with all that belongs to it; up to `kept` the log files are, where the write-ahead log may not be.
//! The numbers are those of writes (`Counter::Writes`). They are noted after the write, and not forced to disk: after the
//! end of the process the line is exact, after a power cut it may be old, which makes it a lower bound. Which of the two it
//! was is told by the kernel's boot id.

use std::fmt::Write;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;

use super::Durability;
use super::error::OpenError;

const NAME: &str = "written";
/// Less than what a disk writes in one piece.
const LINE_BYTES_MAX: u64 = 512;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What an earlier run has noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    wrote: u64,
    forced: u64,
    durability: String,
    kept: u64,
    boot: String,
}

impl Note {
    /// `None` where there is none: nothing is known then.
    pub fn read(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = directory.join(NAME);
        let mut text = String::new();
        let read = match File::open(&path) {
            Ok(file) => file.take(LINE_BYTES_MAX).read_to_string(&mut text),
            Err(e) => Err(e),
        };
        match read {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => text.clear(),
            Err(e) => return Err(failed(directory, &e)),
        }
        let note = Self::parse(&text);
        if note.is_none() {
            tracing::warn!("\"{}\" is damaged: it is not known how far was written", path.display());
        }
        Ok(note)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?;
        let (body, crc) = line.rsplit_once(" crc ")?;
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let rest = body.strip_prefix("millpond wrote ")?;
        let (wrote, rest) = rest.split_once(" forced ")?;
        let (forced, rest) = rest.split_once(" durability ")?;
        let (durability, boot) = rest.split_once(" boot ")?;
        let forced = forced.parse().ok()?;
        let (durability, kept) = match durability.split_once(" kept ") {
            Some((durability, kept)) => (durability, kept.parse().ok()?),
            // From before there were log files.
            None => (durability, forced),
        };
        Some(Self {
            wrote: wrote.parse().ok()?,
            forced,
            durability: durability.to_owned(),
            kept,
            boot: boot.to_owned(),
        })
    }

    /// Of fixed length, so that it is written over the one before.
    fn line(&self) -> String {
        let Self { wrote, forced, durability, kept, boot } = self;
        let mut line = String::with_capacity(LINE_BYTES_MAX as usize);
        // One is put with each write. A string takes all that is written to it.
        let _never = write!(
            line,
            "millpond wrote {wrote:020} forced {forced:020} durability {durability} kept {kept:020} boot {boot}"
        );
        let crc = crc32c::crc32c(line.as_bytes());
        let _never = writeln!(line, " crc {crc:08x}");
        line
    }

    /// Whether the machine runs still that ran when this was noted, so that nothing can have been lost with it.
    pub fn is_of_this_boot(&self) -> bool {
        !self.boot.is_empty() && boot_id() == self.boot
    }

    /// The write that must be there.
    pub fn least(&self) -> u64 {
        if self.is_of_this_boot() { self.wrote } else { self.forced }
    }

    /// The write up to which log files are surely on disk.
    pub fn kept(&self) -> u64 {
        self.kept.max(self.forced)
    }

    /// Whether a power cut may have taken something and left what came after it.
    pub fn allows_holes(&self) -> bool {
        self.durability != name_of(Durability::Group) && !self.is_of_this_boot()
    }
}

fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn name_of(durability: Durability) -> &'static str {
    match durability {
        Durability::None => "none",
        Durability::Interval(_) => "interval",
        Durability::Group => "group",
    }
}

fn failed(directory: &Path, e: &io::Error) -> OpenError {
    OpenError::Io { path: directory.display().to_string(), detail: format!("file \"{NAME}\": {e}") }
}

/// Notes how far is written.
pub struct Notes {
    file: File,
    note: Mutex<Note>,
}

impl Notes {
    /// Begins with a write that is there and forced.
    pub fn begin(directory: &Path, writes: u64, durability: Durability) -> Result<Self, OpenError> {
        let durability = name_of(durability).to_owned();
        let note = Note { wrote: writes, forced: writes, durability, kept: writes, boot: boot_id() };
        let begun = || -> io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(NAME))?;
            file.write_all_at(note.line().as_bytes(), 0)?;
            file.sync_all()?;
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        match begun() {
            Ok(file) => Ok(Self { file, note: Mutex::new(note) }),
            Err(e) => Err(failed(directory, &e)),
        }
    }

    /// Up to this write all is there, and maybe forced to disk.
    pub fn wrote(&self, writes: u64, forced: bool) {
        let mut note = self.note.lock();
        note.wrote = writes;
        if forced {
            note.forced = writes;
        }
        self.put(&note);
    }

    /// Up to this write all is on disk.
    pub fn forced(&self, writes: u64) {
        let mut note = self.note.lock();
        if note.forced < writes {
            note.forced = writes;
            self.put(&note);
        }
    }

    /// Whether up to this write all is on disk.
    pub fn is_forced(&self, writes: u64) -> bool {
        self.note.lock().forced >= writes
    }

    /// Up to this write all log files are on disk.
    pub fn kept(&self, writes: u64) {
        let mut note = self.note.lock();
        if note.kept < writes {
            note.kept = writes;
            self.put(&note);
        }
    }

    /// The write up to which all is on disk.
    pub fn forced_to(&self) -> u64 {
        self.note.lock().forced
    }

    /// Has the note itself on disk, before something is done that is right only after what it says.
    pub fn force(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// An older line is right too, it only says less.
    fn put(&self, note: &Note) {
        if let Err(e) = self.file.write_all_at(note.line().as_bytes(), 0) {
            tracing::debug!("how far is written cannot be noted: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let read = || Note::read(directory.path()).unwrap();
        assert_eq!(read(), None);
        let notes = Notes::begin(directory.path(), 7, Durability::Interval(std::time::Duration::ZERO)).unwrap();
        notes.wrote(12, false);
        let note = read().unwrap();
        assert_eq!((note.least(), note.allows_holes()), (12, false), "the process ended, the machine did not");
        notes.kept(9);
        assert_eq!(read().unwrap().kept(), 9);
        notes.forced(10);
        assert_eq!(read().unwrap().kept(), 10);
        let elsewhere = Note { boot: "another".into(), ..read().unwrap() };
        assert_eq!((elsewhere.least(), elsewhere.allows_holes()), (10, true));
        let group = Note { durability: "group".into(), ..elsewhere };
        assert!(!group.allows_holes());
        let path = directory.path().join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(), None);
    }
}

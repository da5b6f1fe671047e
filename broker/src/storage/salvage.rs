//! Damaged tables: what is said of them, and what is done about them where somebody accepts the loss.
//!
//! The log of topics and the state of queries are passed over where they are read (`walk`, queries in ERROR). Everything
//! else is needed to start. What can be left out of it is ([`Loss`]): a copy of the database is made, which shares all
//! tables with it, the damaged families are made anew there with what can be read of them, and the copy takes the
//! database's place. So no damaged table stays that compactions or a later start would come across, a crash on the way
//! loses nothing, and what was there is kept beside, in `lost-*`.
//!
//! Invariant: nothing is left out of topics, users and rights, by anybody's word.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, ErrorKind, ReadOptions, WriteBatch, WriteOptions};

use super::directory::{DATABASE, MENDED, family_to_make, open_database, open_database_at};
use super::error::{OpenError, StorageError};
use super::load::not_opened;
use super::log_files::LogFiles;
use super::shared::family;
use super::verify::{clear, folder_aside};
use super::{Result, StorageOptions};
use crate::groups::consumer::record as consumer;
use crate::keys::{self, Kind, cf};

/// What is written at once into a family that is made anew.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a key that are looked through for where reading goes on; keys that begin alike for longer go together.
const KEY_BYTES_MAX: usize = 512;
/// Above all keys.
const LAST_KEY: u8 = 0xff;

/// What becomes of a family of which something cannot be read, if somebody accepts the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Nothing may be missing.
    Never,
    /// What can be read is kept.
    Rest,
    /// Segments of the log are found again from the log; of the rest what can be read is kept.
    Segments,
    /// A part alone would be worse than nothing: a query without its cursors would count twice, and a schema's number would
    /// be given to another. State of queries goes with it.
    All,
}

/// A family that is needed to start.
struct Part {
    family: &'static str,
    what: &'static str,
    loss: Loss,
    /// What is lost where that is accepted; what else there is to do where it cannot be.
    then: &'static str,
}

static PARTS: [Part; 5] = [
    Part {
        family: cf::META,
        what: "what is known of topics, settings, users and rights (ACLs)",
        loss: Loss::Never,
        then: "bring back a copy: --accept-data-loss does not help, because nobody could tell which topics, users or rights would be missing",
    },
    Part {
        family: cf::INDEX,
        what: "the index of topics' segments and transactions",
        loss: Loss::Segments,
        then: "segments are found again, but what transactions aborted may be read where the index cannot be",
    },
    Part {
        family: cf::PRODUCER,
        what: "what is known of producers",
        loss: Loss::Rest,
        then: "of producers that cannot be read, batches that are sent again come twice, and what their open transactions wrote is read",
    },
    Part {
        family: cf::GROUP,
        what: "groups, their committed offsets and transactional ids",
        loss: Loss::Rest,
        then: "groups begin where their clients say (auto.offset.reset) for offsets that cannot be read, and transactions that cannot be read stay open until they are aborted (kafka-transactions)",
    },
    Part {
        family: cf::CATALOG,
        what: "SQL's catalog",
        loss: Loss::All,
        then: "all streams, tables, types, queries with their state, schemas and functions are given up; topics and groups stay",
    },
];

fn part_of(family: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.family == family)
}

/// What an error of RocksDB says of a family: whose damage it is, and the way out.
pub fn failed(family: &str, e: rocksdb::Error) -> StorageError {
    match part_of(family) {
        Some(part) if e.kind() == ErrorKind::Corruption => StorageError::Corrupt(part.detail(e.as_ref())),
        _ => e.into(),
    }
}

/// The same for those who do not say which directory it is.
pub fn failed_in(options: &StorageOptions, family: &str, e: rocksdb::Error) -> StorageError {
    match failed(family, e) {
        e @ StorageError::Corrupt(_) => StorageError::Corrupt(not_opened(options, e).to_string()),
        other => other,
    }
}

impl Part {
    /// RocksDB names the file.
    fn detail(&self, why: &str) -> String {
        let way_out = match self.loss {
            Loss::Never => self.then.to_owned(),
            _ => format!("bring back a copy, or start once with --accept-data-loss: {}", self.then),
        };
        format!("{} cannot be read ({why}); {way_out}", self.what)
    }
}

/// Makes all that a start needs readable, where something is not and may be left out. Somebody has accepted the loss.
pub fn accept_loss(db: DB, options: &StorageOptions, files: &Arc<LogFiles>) -> std::result::Result<DB, OpenError> {
    let mut damaged = Vec::new();
    for part in &PARTS {
        let read = read(&db, part.family, |_, _| Ok(())).map_err(|e| not_opened(options, e))?;
        match read.why {
            Some(why) if part.loss == Loss::Never => {
                return Err(not_opened(options, StorageError::Corrupt(part.detail(&why))));
            }
            Some(_) => damaged.push((part, read.places)),
            None => {}
        }
    }
    if damaged.is_empty() {
        return Ok(db);
    }
    let mended = options.path.join(MENDED);
    let io_error = |what: &str, e: &dyn std::fmt::Display| OpenError::Io {
        path: options.path.display().to_string(),
        detail: format!("what can be read cannot be {what}: {e}"),
    };
    let mend = || -> Result<Vec<usize>> {
        clear(&mended).map_err(|e| StorageError::Unavailable(e.to_string()))?;
        Checkpoint::new(&db)?.create_checkpoint(&mended)?;
        let mut new =
            open_database_at(options, files, &mended).map_err(|e| StorageError::Unavailable(e.to_string()))?;
        damaged.iter().map(|(part, _)| make_anew(&db, &mut new, part, options)).collect()
    };
    let kept = mend().map_err(|e| io_error("written anew", &e))?;
    drop(db);
    let aside = folder_aside(options);
    take_place(options, &mended, &aside).map_err(|e| io_error("put in place", &e))?;
    for ((part, places), kept) in damaged.iter().zip(kept) {
        tracing::warn!(
            places,
            kept,
            "data loss was accepted: {} could not be read in some places, and how many entries were there is not known; {}",
            part.what,
            part.then
        );
    }
    tracing::warn!("the database as it was is in \"{}\"; it takes space until it is deleted", aside.display());
    open_database(options, files)
}

/// The new database in the place of the old one. Where this ends half way, the next start goes on (`directory::claim`).
fn take_place(options: &StorageOptions, mended: &Path, aside: &Path) -> io::Result<()> {
    let database = options.path.join(DATABASE);
    File::open(mended)?.sync_all()?;
    fs::create_dir_all(aside)?;
    fs::rename(&database, aside.join(DATABASE))?;
    File::open(aside)?.sync_all()?;
    fs::rename(mended, &database)?;
    File::open(&options.path)?.sync_all()
}

/// Fills a family of `new` with what is kept of it in `db`; says how many entries that are.
fn make_anew(db: &DB, new: &mut DB, part: &Part, options: &StorageOptions) -> Result<usize> {
    let more: &[&str] = if part.loss == Loss::All { &[cf::STATE] } else { &[] };
    for name in std::iter::once(&part.family).chain(more) {
        new.drop_cf(name)?;
        new.create_cf(name, &family_to_make(name, options))?;
    }
    if part.loss == Loss::All {
        return Ok(0);
    }
    let to = family(new, part.family)?;
    // All of it is forced to disk below.
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    let (mut batch, mut kept, mut heads) = (WriteBatch::default(), 0, BTreeSet::new());
    read(db, part.family, |key, value| {
        if is_left_out(part, key, &mut heads) {
            return Ok(());
        }
        batch.put_cf(to, key, value);
        kept += 1;
        if batch.size_in_bytes() >= PIECE_BYTES {
            new.write_opt(std::mem::take(&mut batch), &unlogged)?;
        }
        Ok(())
    })?;
    new.write_opt(batch, &unlogged)?;
    new.flush_cf(to)?;
    Ok(kept)
}

/// Whether an entry that can be read means nothing without others. `heads`: groups that were seen, which come before their
/// members.
fn is_left_out(part: &Part, key: &[u8], heads: &mut BTreeSet<String>) -> bool {
    let Some((&kind, rest)) = key.split_first() else { return false };
    if part.loss == Loss::Segments && kind == Kind::Segment as u8 {
        return true;
    }
    if part.family != cf::GROUP {
        return false;
    }
    if let Some(group) = consumer::group_of_key(rest) {
        heads.insert(group);
    }
    consumer::member_of_key(rest).is_some_and(|(group, _)| !heads.contains(&group))
}

/// What came of reading a family to its end.
#[derive(Debug, Default)]
struct Read {
    /// Places that could not be read.
    places: usize,
    /// What is said of the first of them.
    why: Option<String>,
}

/// Shows all that can be read of a family.
fn read(db: &DB, name: &str, mut show: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<Read> {
    let family = family(db, name)?;
    let begin = |from: &[u8]| {
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        let mut at = db.raw_iterator_cf_opt(family, read);
        at.seek(from);
        at
    };
    let can_read = |from: &[u8]| -> Result<bool> {
        match begin(from).status() {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::Corruption => Ok(false),
            Err(e) => Err(e.into()),
        }
    };
    let mut found = Read::default();
    let (mut at, mut last) = (begin(&[]), Vec::new());
    loop {
        while let Some((key, value)) = at.item() {
            show(key, value)?;
            last.clear();
            last.extend_from_slice(key);
            at.next();
        }
        match at.status() {
            Ok(()) => return Ok(found),
            Err(e) if e.kind() == ErrorKind::Corruption => {
                found.places += 1;
                found.why.get_or_insert_with(|| e.to_string());
            }
            Err(e) => return Err(e.into()),
        }
        let Some(next) = behind(&last, can_read)? else { return Ok(found) };
        at = begin(&next);
        last = next;
    }
}

/// The least key from which can be read behind what cannot, which comes after a key; `None` where nothing can.
fn behind(after: &[u8], can_read: impl Fn(&[u8]) -> Result<bool>) -> Result<Option<Vec<u8>>> {
    // Where it can be read again: behind all that begins as the key does, with ever less of it.
    let (mut bad, mut good) = (after.to_vec(), None);
    let wider =
        (1..=after.len().min(KEY_BYTES_MAX)).rev().map(|len| keys::after_prefix(after.get(..len).unwrap_or(after)));
    for next in wider.chain([vec![LAST_KEY]]).filter(|next| !next.is_empty()) {
        if can_read(&next)? {
            good = Some(next);
            break;
        }
        bad = next;
    }
    let Some(good) = good else { return Ok(None) };
    // Byte by byte the least one with which a key begins that can be read from, and is behind what cannot.
    let goes_on = |key: &[u8]| if key > bad.as_slice() { can_read(key) } else { Ok(false) };
    let mut least: Vec<u8> =
        bad.iter().zip(&good).take_while(|(bad, good)| bad == good).map(|(byte, _)| *byte).collect();
    while least.len() < KEY_BYTES_MAX {
        let (mut low, mut high) = (0, u8::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut greatest = least.clone();
            greatest.push(middle);
            greatest.resize(KEY_BYTES_MAX, u8::MAX);
            if goes_on(&greatest)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        least.push(low);
        if goes_on(&least)? {
            return Ok(Some(least));
        }
    }
    Ok(Some(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading begins at what lies at a key or behind it; blocks end with their last key.
    fn found(after: &[u8], block_ends_with: &[u8]) -> Option<Vec<u8>> {
        behind(after, |key| Ok(key > block_ends_with)).unwrap()
    }

    #[test]
    fn reading_goes_on_right_behind_what_cannot_be_read() {
        let long = [b"g".as_slice(), &[7; 300]].concat();
        for (after, end) in [
            (b"\x30\x02one".as_slice(), b"\x30\x02other".as_slice()),
            (b"\x30\x02one", b"\x30\x02one\0"),
            (b"\x30\xff\xff", b"\x30\xff\xff\xff\xff"),
            (b"", b"\x30\x01"),
            (b"g\x07", &long),
        ] {
            let next = found(after, end).unwrap();
            assert_eq!(next, [end, &[0]].concat(), "the least key that is greater");
        }
        assert_eq!(found(b"\x30", &[0xff; 9]), None);
    }

    #[test]
    fn members_of_a_group_that_cannot_be_read_are_left_out() {
        let part = part_of(cf::GROUP).unwrap();
        let mut heads = BTreeSet::new();
        let of = |key: Vec<u8>| keys::prefixed(Kind::Group, &key);
        let left_out = [
            of(consumer::group_key("b")),
            of(consumer::member_key("a", "m")),
            of(consumer::member_key("b", "m")),
            of(b"\x02\0\x01a".to_vec()),
        ]
        .map(|key| is_left_out(part, &key, &mut heads));
        assert_eq!(left_out, [false, true, false, false]);
    }
}

//! Giving back the space of log files: counting what is dead in them, removing those that are dead, and moving live batches
//! out of those that are mostly dead.
//!
//! What is deleted by ranges of keys is counted afterwards, in a snapshot from before the deletion, so that the writer does
//! not wait for it. So is, after an end without warning, what is live: beside the work, from a snapshot of the start, to which
//! is added what changes meanwhile. A file goes when no key names it, that is on disk, and nobody reads who may know such a
//! key.
//!
//! Invariant: a batch is moved only while nobody compacts, and the writer leaves out what was deleted meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use millpond_types::Offset;
use parking_lot::Mutex;
use rocksdb::{DB, ReadOptions};

use super::compaction::{Edit, Rewrite};
use super::disk_watch::{Unsure, force};
use super::error::StorageError;
use super::housekeeping::Stop;
use super::log_files::{FileUse, Unread, is_at};
use super::partition::Partition;
use super::read::{View, damaged_range};
use super::shared::{Shared, family};
use super::state::OwnedSnapshot;
use super::writer::Change;
use super::{Durability, Result};
use crate::keys::{self, BATCH_PREFIX_LEN, BatchPlace, Kind, PLACE_LEN, cf};

/// What is put at once, so that those who wait for the writer wait little.
const PIECE_BYTES: usize = 256 << 10;
/// Deletions that wait to be counted; where there are more, the writer counts.
const WAITING_MAX: usize = 1000;
/// Files smaller than a quarter of what they may have, as every end that was not clean leaves one, are joined from so many
/// on.
const SMALL_FILES_MAX: usize = 64;

/// A round of moving takes at most this part of what the disk has free: small batches lie in the database for a while, and
/// in its log too.
const FREE_PART: u64 = 3;
/// On a disk that is too full to be written, files are worth it from this part of them on.
const LOW_PART: u64 = 16;

/// A deletion whose batches are not counted yet.
pub struct Dead {
    pub snapshot: OwnedSnapshot,
    pub ranges: Vec<([u8; 17], [u8; 17])>,
}

impl Dead {
    /// Bytes by file, and bytes that were in the database by partition.
    pub fn count(&self) -> Result<(HashMap<u32, u64>, HashMap<u64, u64>)> {
        let db: &DB = self.snapshot.borrow_owner();
        let (mut files, mut inline) = (HashMap::new(), HashMap::new());
        for (from, to) in &self.ranges {
            let mut read = ReadOptions::default();
            read.set_snapshot(self.snapshot.borrow_dependent());
            read.set_iterate_upper_bound(to.to_vec());
            read.fill_cache(false);
            let mut at = db.raw_iterator_cf_opt(family(db, cf::LOG)?, read);
            at.seek(from);
            while let (Some(key), Some(value)) = (at.key(), at.value()) {
                match BatchPlace::decode(value) {
                    Some(place) => *files.entry(place.file).or_default() += u64::from(place.len),
                    None => {
                        let uid = keys::parse_numbered(Kind::Batch, key).map_or(0, |(uid, _)| uid);
                        *inline.entry(uid).or_default() += value.len() as u64;
                    }
                }
                at.next();
            }
            at.status()?;
        }
        Ok((files, inline))
    }
}

/// A count of what is live, as of a moment at which the writer wrote nothing, as far as it has come.
struct Counting {
    snapshot: OwnedSnapshot,
    from: Vec<u8>,
    live: HashMap<u32, u64>,
}

impl Counting {
    /// Looks at so many batches; true when all were.
    fn go_on(&mut self, keys_max: usize) -> Result<bool> {
        let db: &DB = self.snapshot.borrow_owner();
        let mut read = ReadOptions::default();
        read.set_snapshot(self.snapshot.borrow_dependent());
        read.fill_cache(false);
        let mut at = db.raw_iterator_cf_opt(family(db, cf::LOG)?, read);
        at.seek(&self.from);
        for _ in 0..keys_max {
            let Some(value) = at.value() else {
                at.status()?;
                return Ok(true);
            };
            if let Some(place) = BatchPlace::decode(value) {
                *self.live.entry(place.file).or_default() += u64::from(place.len);
            }
            at.next();
        }
        at.status()?;
        self.from = at.key().unwrap_or_default().to_vec();
        Ok(at.key().is_none())
    }
}

/// Deletions that wait, and files that do.
#[derive(Default)]
pub struct LogSpace {
    counting: Mutex<Option<Counting>>,
    waiting: Mutex<Vec<Dead>>,
    doomed: Mutex<Vec<Doomed>>,
    /// Files with a batch that cannot be read, which stay.
    stuck: Mutex<HashSet<u32>>,
    unsure: Mutex<Option<Unsure>>,
    /// Files that could not be forced and were written again, in which batches are to be looked at; from which key on.
    distrusted: Mutex<(HashSet<u32>, Vec<u8>)>,
}

/// A file that no key names.
struct Doomed {
    file: u32,
    /// The write by which the last key had gone.
    since: u64,
    /// Those who read then.
    readers: Weak<()>,
}

/// Notes a deletion. Called by the writer when it is committed.
pub fn deleted(shared: &Shared, dead: Dead) {
    shared.log_space.waiting.lock().push(dead);
    if shared.log_space.waiting.lock().len() > WAITING_MAX {
        count(shared);
    }
}

/// Counts what was deleted, so that nobody holds a snapshot for it any more.
pub fn count(shared: &Shared) {
    let waiting = std::mem::take(&mut *shared.log_space.waiting.lock());
    for dead in waiting {
        match dead.count() {
            Ok((files, inline)) => {
                files.into_iter().for_each(|(file, bytes)| shared.files.deleted(file, bytes));
                inline.into_iter().for_each(|(uid, bytes)| shared.deleted(uid, bytes));
            }
            Err(e) => tracing::error!("what was deleted is not counted until the next start: {e}"),
        }
    }
}

/// Begins to count what is live of each log file, unless that is known. Nothing is written meanwhile, all that was written
/// is shown, and all that was deleted is counted.
pub fn begin_counting(shared: &Shared) -> Result<()> {
    if !shared.files.is_counted() {
        shared.files.begin_count();
        let snapshot = OwnedSnapshot::new(shared.db()?, |db| db.snapshot());
        *shared.log_space.counting.lock() = Some(Counting { snapshot, from: Vec::new(), live: HashMap::new() });
    }
    Ok(())
}

/// Lets go of the database; what was counted is forgotten.
pub fn stop_counting(shared: &Shared) {
    shared.log_space.counting.lock().take();
}

/// Counts on, by so many batches; false when there is nothing left to count.
pub fn go_on_counting(shared: &Shared, keys_max: usize) -> bool {
    let mut counting = shared.log_space.counting.lock();
    let Some(begun) = &mut *counting else { return false };
    match begun.go_on(keys_max) {
        Ok(false) => return true,
        Ok(true) => shared.files.counted(&begun.live),
        Err(e) => tracing::error!("deleted space of log files is not given back until the next start: {e}"),
    }
    *counting = None;
    false
}

/// Removes files that nothing is live in.
pub fn remove_dead(shared: &Shared) -> Result<()> {
    count(shared);
    let mut doomed = shared.log_space.doomed.lock();
    let written = shared.written.load(std::sync::atomic::Ordering::Acquire);
    let mut dead: Vec<FileUse> = shared.files.uses();
    dead.retain(|file| file.live == 0 && doomed.iter().all(|d| d.file != file.number));
    dead.retain(|file| shared.files.retire(file.number));
    if !dead.is_empty() {
        let readers = shared.files.readers_so_far();
        doomed.extend(dead.iter().map(|f| Doomed { file: f.number, since: written, readers: readers.clone() }));
    }
    if doomed.is_empty() {
        return Ok(());
    }
    if shared.options.durability == Durability::None && doomed.iter().any(|d| d.since > shared.notes.forced_to()) {
        force(shared, &mut shared.log_space.unsure.lock())?;
    }
    let forced = shared.notes.forced_to();
    let goes = |d: &Doomed| d.since <= forced && d.readers.strong_count() == 0;
    if doomed.iter().any(goes) {
        // What is said to be on disk of writes that named these files is not looked for any more.
        shared.notes.force().map_err(|e| StorageError::Unavailable(format!("the note of what is written: {e}")))?;
    }
    let mut failed = None;
    doomed.retain(|d| {
        if !goes(d) {
            return true;
        }
        if let Err(e) = shared.files.remove(d.file) {
            failed = Some(StorageError::Unavailable(format!("a dead log file cannot be removed: {e}")));
        }
        false
    });
    failed.map_or(Ok(()), Err)
}

/// Whether deleted space in files with live batches is to be given back: so many bytes, and a third of all.
fn is_due(uses: &[FileUse], bytes_min: u64) -> bool {
    let dead = uses.iter().fold(0u64, |sum, file| sum.saturating_add(file.dead()));
    let all = uses.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
    dead >= bytes_min.max(1) && dead >= all / 3
}

/// Moves live batches out of files that are dead for a third and more, if that is worth it: when much is dead, or the disk
/// is nearly full. When it is too full to be written, out of all that are dead for a [`LOW_PART`] and more, until there is
/// twice the room that must be.
///
/// Those that are most dead go first, in rounds: what a round takes is a part of what is free, and the next begins when the
/// files of the last one are gone. So it gets by with little room, and never takes more. As it may take long, what else
/// there is to do in time is done `between` pieces.
pub fn collect(shared: &Shared, stop: Option<&Stop>, bytes_min: u64, between: &mut dyn FnMut()) -> Result<()> {
    let enough = shared.options.disk_free_bytes_min.saturating_mul(2);
    let low = shared.space.is_low();
    while shared.files.is_counted() && shared.log_space.doomed.lock().is_empty() {
        shared.space.look();
        let free = shared.space.free();
        let mut uses: Vec<FileUse> = shared.files.uses();
        let stuck = shared.log_space.stuck.lock().clone();
        uses.retain(|file| file.live > 0 && !stuck.contains(&file.number));
        let part = if low && free < enough { LOW_PART } else { 3 };
        let due = free < enough || is_due(&uses, bytes_min);
        let is_small = |file: &FileUse| file.size < shared.options.log_file_bytes / 4;
        let join = uses.iter().filter(|file| is_small(file)).count() > SMALL_FILES_MAX;
        uses.retain(|file| due && file.dead() >= (file.size / part).max(1) || join && is_small(file));
        uses.sort_unstable_by_key(|file| file.live.saturating_mul(1000) / file.size.max(1));
        let mut room = free / FREE_PART;
        uses.retain(|file| {
            let goes = file.live <= room && shared.files.retire(file.number);
            room -= if goes { file.live } else { 0 };
            goes
        });
        if uses.is_empty() {
            return Ok(());
        }
        // A compaction that runs may take long, and what it leaves is another matter.
        let Some(held) = shared.compacting.try_lock() else { return Ok(()) };
        let bytes = uses.iter().fold(0, |sum, file| sum + file.live);
        tracing::info!("moving {} KiB of batches out of {} log files, to give back the rest", bytes >> 10, uses.len());
        let victims: HashSet<u32> = uses.iter().map(|file| file.number).collect();
        move_out(shared, stop, &victims, between)?;
        drop(held);
        remove_dead(shared)?;
        let left = shared.files.uses().iter().any(|file| file.live > 0 && victims.contains(&file.number));
        if left || stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
            return Ok(());
        }
    }
    Ok(())
}

/// What lies in these files is to be looked at.
pub fn distrust(shared: &Shared, files: Vec<u32>) {
    if !files.is_empty() {
        let mut distrusted = shared.log_space.distrusted.lock();
        distrusted.0.extend(files);
        distrusted.1 = keys::batch(0, 0).to_vec();
    }
}

/// Looks whether what lies in files that could not be forced is what was written, and tells what is not: nobody else does
/// where RocksDB has written a table already, before somebody reads it.
pub fn look_at_distrusted(shared: &Shared, stop: &Stop) -> Result<()> {
    while !stop.wait(Duration::ZERO) {
        let (files, mut from) = shared.log_space.distrusted.lock().clone();
        if files.is_empty() {
            return Ok(());
        }
        let db = shared.db()?;
        let view = View::of(shared, &db);
        let piece = next_piece(&view, &files, &mut from)?;
        for found in &piece {
            let place = &found.place;
            let why = match shared.files.read(place.file, place.at, place.len as usize) {
                Ok(batch) if is_at(&batch, place) => continue,
                Ok(_) => shared.files.is_other(place),
                Err(why) => why,
            };
            let topics = shared.topics.read();
            let mut partitions = topics.by_id.values().flat_map(|t| &t.partitions);
            let partition = partitions.find(|p| p.uid == found.uid).cloned();
            drop(topics);
            if let (Some(partition), Unread::Damaged(why)) = (partition, why) {
                let first = found.last.saturating_sub(i64::from(place.last_offset_delta)).max(0);
                let _told = damaged_range(shared, &partition, (first, found.last), &why);
            }
        }
        let mut distrusted = shared.log_space.distrusted.lock();
        // More may have come meanwhile, and then all is looked at again.
        if distrusted.0 == files {
            if piece.is_empty() {
                distrusted.0.clear();
                tracing::info!("all that lies in log files that could not be forced to disk was looked at");
            }
            distrusted.1 = from;
        }
    }
    Ok(())
}

/// A batch to be moved.
struct Found {
    uid: u64,
    last: Offset,
    place: BatchPlace,
}

fn move_out(shared: &Shared, stop: Option<&Stop>, victims: &HashSet<u32>, between: &mut dyn FnMut()) -> Result<()> {
    let partitions: HashMap<u64, Arc<Partition>> = {
        let topics = shared.topics.read();
        topics.by_id.values().flat_map(|t| &t.partitions).map(|p| (p.uid, p.clone())).collect()
    };
    let mut from = keys::batch(0, 0).to_vec();
    loop {
        if stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
            return Ok(());
        }
        let piece = {
            let db = shared.db()?;
            next_piece(&View::of(shared, &db), victims, &mut from)?
        };
        if piece.is_empty() {
            return Ok(());
        }
        between();
        let mut rewrites: Vec<Rewrite> = Vec::new();
        for found in piece {
            let Some(partition) = partitions.get(&found.uid) else { continue };
            let (file, len) = (found.place.file, found.place.len);
            let batch = match shared.files.read(file, found.place.at, len as usize) {
                Ok(batch) if is_at(&batch, &found.place) => batch,
                Err(Unread::Failed(why)) => return Err(StorageError::Unavailable(why)),
                Ok(_) | Err(Unread::Damaged(_)) => {
                    // Whoever reads it is told. It may have been deleted meanwhile, and the file be gone.
                    shared.log_space.stuck.lock().insert(file);
                    continue;
                }
            };
            let mut value = vec![0; BATCH_PREFIX_LEN];
            value.extend_from_slice(&batch);
            let was = Some((file, u64::from(len)));
            let edit = Edit::Replace { last: found.last, sequence: found.place.sequence, value, was };
            match rewrites.last_mut().filter(|rewrite| rewrite.partition.uid == found.uid) {
                Some(rewrite) => rewrite.add(edit),
                None => rewrites.push(Rewrite::of(partition.clone(), edit)),
            }
        }
        for rewrite in rewrites {
            match shared.change_blocking(Change::Rewrite(Box::new(rewrite))) {
                // A topic that was deleted meanwhile.
                Ok(_) | Err(StorageError::UnknownTopicOrPartition(_) | StorageError::UnknownTopicId(_)) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// The next batches in these files, from a key on, which becomes the one to go on with.
fn next_piece(view: &View<'_>, victims: &HashSet<u32>, from: &mut Vec<u8>) -> Result<Vec<Found>> {
    let mut read = view.options();
    read.fill_cache(false);
    let mut at = view.db.raw_iterator_cf_opt(family(view.db, cf::LOG)?, read);
    at.seek(&*from);
    let (mut piece, mut bytes) = (Vec::new(), 0);
    while let (Some(key), Some(value)) = (at.key(), at.value()) {
        let place = if value.len() == PLACE_LEN { BatchPlace::decode(value) } else { None };
        if let Some(place) = place.filter(|place| victims.contains(&place.file))
            && let Some((uid, last)) = keys::parse_numbered(Kind::Batch, key)
            && let Ok(last) = Offset::try_from(last)
        {
            if bytes >= PIECE_BYTES {
                *from = key.to_vec();
                return Ok(piece);
            }
            bytes += place.len as usize;
            piece.push(Found { uid, last, place });
        }
        at.next();
    }
    at.status()?;
    // Behind all of them.
    *from = keys::batch(u64::MAX, Offset::MAX).to_vec();
    Ok(piece)
}

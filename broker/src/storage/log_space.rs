//! Giving back the space of log files: counting what is dead in them, removing those that are dead, and moving live batches
//! out of those that are mostly dead.
//!
//! What is deleted by ranges of keys is counted afterwards, in a snapshot from before the deletion, so that the writer does
//! not wait for it. So is, after an end without warning, what is live: beside the work, from a snapshot of the start, to which
//! is added what changes meanwhile. Where the count turns out to be wrong, it is begun anew between two writes.
//!
//! Invariants: a file goes when nothing is live in it, nothing is appended to it any more, the write that emptied it is on
//! disk, nobody reads who may know a key that names it, and all keys were looked at and none does. Where a part of the
//! database cannot be read, the files that there were stay. A batch is moved only while nobody compacts, into a file of
//! survivors (`log_files`), and the writer leaves out what was deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millpond_types::Offset;
use parking_lot::Mutex;
use rocksdb::{DB, ReadOptions};

use super::commits::Parts;
use super::compaction::{Edit, Rewrite};
use super::disk_watch::{Unsure, force};
use super::error::StorageError;
use super::flush::now;
use super::housekeeping::Stop;
use super::log_files::{FileUse, Survivors, Unread, is_at};
use super::partition::Partition;
use super::read::{View, damaged_range};
use super::shared::{Shared, family};
use super::state::OwnedSnapshot;
use super::walk::walk;
use super::writer::Change;
use super::{Durability, Result};
use crate::batch::HEADER_LEN;
use crate::keys::{self, BatchPlace, Kind, cf};

/// What is moved at once; so many keys that those who wait for the writer wait little.
const PIECE_BYTES: usize = 2 << 20;
const PIECE_BATCHES: usize = 1024;
/// Deletions that wait to be counted; where there are more, the writer counts.
const WAITING_MAX: usize = 1000;
/// Files smaller than a quarter of what they may have, as every end that was not clean leaves one, are joined from so many
/// on.
const SMALL_FILES_MAX: usize = 64;
/// Before dead files go all keys are looked at, so many before somebody who wants to end or to open the database anew gets
/// his way.
const LOOKED_AT_ONCE: usize = 20_000;
/// They are looked at whatever part of the time that takes where dead files that could go are as much as so many full ones,
/// and as half of what is live.
const DEAD_FILES_MAX: u64 = 4;
/// Files that stay because a part of the database cannot be read are counted again after so long: what is damaged may be
/// deleted by then.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(3600);

/// A round of moving takes at most this part of what the disk has free: the database takes some too, and so do others.
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
    /// Places that could not be read.
    damaged: usize,
    is_told: bool,
}

impl Counting {
    /// Looks at so many batches; true when all were.
    fn go_on(&mut self, keys_max: usize) -> Result<bool> {
        let db: &DB = self.snapshot.borrow_owner();
        let snapshot = self.snapshot.borrow_dependent();
        let read = || {
            let mut read = ReadOptions::default();
            read.set_snapshot(snapshot);
            read
        };
        let (live, mut left) = (&mut self.live, keys_max);
        let walked = walk(db, read, &mut self.from, |_, value| {
            let goes_on = left > 0;
            if goes_on && let Some(place) = BatchPlace::decode(value) {
                *live.entry(place.file).or_default() += u64::from(place.len);
            }
            left = left.saturating_sub(1);
            goes_on
        })?;
        self.damaged += walked.damaged;
        if let Some(why) = walked.why.filter(|_| !self.is_told) {
            self.is_told = true;
            tracing::error!("a part of what says where batches lie cannot be read; log files of now stay: {why}");
        }
        Ok(walked.is_end)
    }
}

/// Deletions that wait, and files that do.
#[derive(Default)]
pub struct LogSpace {
    counting: Mutex<Option<Counting>>,
    /// The writer is to begin a count.
    recount: AtomicBool,
    /// When the last count ended; and places that it could not read.
    counted_at: Mutex<Option<Instant>>,
    damaged: AtomicUsize,
    /// With the number of counts that were begun before.
    waiting: Mutex<Vec<(u64, Dead)>>,
    doomed: Mutex<BTreeMap<u32, Doomed>>,
    /// Until then dead files wait for all keys to be looked at.
    look_after: Mutex<Option<Instant>>,
    /// Files with a batch that cannot be read, which stay.
    stuck: Mutex<HashSet<u32>>,
    unsure: Mutex<Option<Unsure>>,
    /// Files that could not be forced and were written again, in which batches are to be looked at; from which key on.
    distrusted: Mutex<(HashSet<u32>, Vec<u8>)>,
}

/// A file in which nothing is live, and that nothing is appended to.
struct Doomed {
    /// A write after which nothing was live.
    since: u64,
    /// Those who read then.
    readers: Weak<()>,
    /// All keys were looked at, and none names it.
    is_sure: bool,
    /// It cannot be removed, and that was said.
    is_told: bool,
}

/// Notes a deletion. Called by the writer when it is committed.
pub fn deleted(shared: &Shared, dead: Dead) {
    let counts = shared.files.counts();
    shared.log_space.waiting.lock().push((counts, dead));
    if shared.log_space.waiting.lock().len() > WAITING_MAX {
        count(shared);
    }
}

/// Counts what was deleted, so that nobody holds a snapshot for it any more.
pub fn count(shared: &Shared) {
    let waiting = std::mem::take(&mut *shared.log_space.waiting.lock());
    for (counts, dead) in waiting {
        match dead.count() {
            Ok((files, inline)) => {
                shared.files.deleted_by(counts, files);
                inline.into_iter().for_each(|(uid, bytes)| shared.deleted(uid, bytes));
            }
            Err(e) => {
                tracing::error!("what was deleted cannot be counted, all that is live is counted anew: {e}");
                shared.files.doubt_count();
            }
        }
    }
}

/// Begins to count what is live of each log file, unless that is known. Called where nothing is written meanwhile: by the
/// writer, and before there is one. All that was written is shown.
pub fn begin_counting(shared: &Shared) -> Result<()> {
    if !shared.files.is_counted() {
        // What waits to be counted of deletions before is not in the snapshot.
        shared.files.begin_count();
        let snapshot = OwnedSnapshot::new(shared.db()?, |db| db.snapshot());
        let (from, live) = (Vec::new(), HashMap::new());
        let begun = Counting { snapshot, from, live, damaged: 0, is_told: false };
        *shared.log_space.counting.lock() = Some(begun);
    }
    Ok(())
}

/// Begins to count where somebody asked for it. Called by the writer between two writes.
pub fn begin_counting_if_asked(shared: &Shared) {
    let asked = &shared.log_space.recount;
    if asked.load(Ordering::Relaxed)
        && asked.swap(false, Ordering::Relaxed)
        && let Err(e) = begin_counting(shared)
    {
        tracing::error!("what is live in log files cannot be counted yet: {e}");
    }
}

/// Lets go of the database; what was counted is forgotten.
pub fn stop_counting(shared: &Shared) {
    shared.log_space.counting.lock().take();
}

/// Counts on, by so many batches; false when there is nothing left to count now.
pub fn go_on_counting(shared: &Shared, keys_max: usize) -> bool {
    let space = &shared.log_space;
    let mut counting = space.counting.lock();
    let Some(begun) = &mut *counting else {
        drop(counting);
        let is_old = || space.counted_at.lock().is_some_and(|at| at.elapsed() >= RECOUNT_INTERVAL);
        if shared.files.is_unsure() && is_old() {
            shared.files.doubt_count();
        }
        if !shared.files.is_counted() && !space.recount.swap(true, Ordering::Relaxed) {
            shared.wake_writer();
        }
        return false;
    };
    match begun.go_on(keys_max) {
        Ok(false) => return true,
        Ok(true) => {
            space.damaged.store(begun.damaged, Ordering::Relaxed);
            shared.files.counted(&begun.live, begun.damaged == 0);
            *space.counted_at.lock() = Some(now());
            *counting = None;
        }
        Err(e) => {
            if !begun.is_told {
                tracing::error!("what is live in log files cannot be counted yet, and no space is given back: {e}");
            }
            // From the start on, as it may have been counted in part.
            (begun.from, begun.live, begun.damaged, begun.is_told) = (Vec::new(), HashMap::new(), 0, true);
        }
    }
    false
}

/// Removes files that nothing is live in. Without an end to wait for, somebody asked for it, and it is done at once.
pub fn remove_dead(shared: &Shared, stop: Option<&Stop>) -> Result<()> {
    count(shared);
    let mut doomed = shared.log_space.doomed.lock();
    let mut dead: Vec<FileUse> = shared.files.uses();
    dead.retain(|file| file.is_sure && file.live == 0 && !doomed.contains_key(&file.number));
    // From here on nothing makes them live again.
    dead.retain(|file| shared.files.retire_dead(file.number));
    if !dead.is_empty() {
        let readers = shared.files.readers_so_far();
        let since = shared.written.load(Ordering::Acquire);
        let one = || Doomed { since, readers: readers.clone(), is_sure: false, is_told: false };
        doomed.extend(dead.iter().map(|file| (file.number, one())));
    }
    if doomed.is_empty() {
        return Ok(());
    }
    if shared.options.durability == Durability::None && doomed.values().any(|d| d.since > shared.notes.forced_to()) {
        force(shared, &mut shared.log_space.unsure.lock())?;
    }
    let forced = shared.notes.forced_to();
    let goes = |d: &Doomed| d.since <= forced && d.readers.strong_count() == 0;
    let unsure: BTreeSet<u32> =
        doomed.iter().filter(|(_, d)| goes(d) && !d.is_sure).map(|(number, _)| *number).collect();
    if !unsure.is_empty() {
        look(shared, stop, &unsure, &mut doomed)?;
    }
    if !doomed.values().any(|d| goes(d) && d.is_sure) {
        return Ok(());
    }
    // What is said to be on disk of writes that named these files is not looked for any more.
    shared.notes.force().map_err(|e| StorageError::Unavailable(format!("the note of what is written: {e}")))?;
    let mut removed = Vec::new();
    doomed.retain(|number, d| {
        if !goes(d) || !d.is_sure {
            return true;
        }
        match shared.files.remove(*number) {
            Ok(gone) => removed.extend(gone.then_some(*number)),
            Err(e) => {
                // The others go all the same, and this one when it can.
                if !d.is_told {
                    tracing::error!(
                        "dead log file \"{}\" cannot be removed: {e}",
                        shared.files.path_of(*number).display()
                    );
                }
                d.is_told = true;
                return true;
            }
        }
        false
    });
    if let (Some(first), Some(last)) = (removed.first(), removed.last()) {
        tracing::info!("removed {} log files that no key names, {first:06} to {last:06}", removed.len());
    }
    Ok(())
}

/// Goes through all keys, and notes of which of these files none is named. They are retired: later keys name others, and
/// what a key names does not change but to others.
fn look(shared: &Shared, stop: Option<&Stop>, files: &BTreeSet<u32>, doomed: &mut BTreeMap<u32, Doomed>) -> Result<()> {
    let space = &shared.log_space;
    let begun = now();
    let waits = space.look_after.lock().is_some_and(|after| begun < after);
    if stop.is_some() && waits && shared.space.free() >= room_enough(shared) && !is_much(shared, files) {
        return Ok(());
    }
    let (mut from, mut named, mut damaged, mut is_end) = (Vec::new(), BTreeSet::new(), 0, false);
    while !is_end {
        if stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
            return Ok(());
        }
        let db = shared.db()?;
        let mut left = LOOKED_AT_ONCE;
        let walked = walk(&db, ReadOptions::default, &mut from, |_, value| {
            let goes_on = left > 0;
            left = left.saturating_sub(1);
            if let Some(place) = BatchPlace::decode(value).filter(|place| files.contains(&place.file)) {
                named.insert(place.file);
            }
            goes_on
        })?;
        damaged += walked.damaged;
        is_end = walked.is_end;
    }
    *space.look_after.lock() = Some(now() + begun.elapsed().saturating_mul(shared.options.look_part));
    if !named.is_empty() {
        tracing::error!("keys name log files that were taken for dead, {named:?}: what is live is counted anew");
    }
    if !named.is_empty() || damaged > space.damaged.load(Ordering::Relaxed) {
        shared.files.doubt_count();
        doomed.clear();
    }
    for number in files {
        if let Some(file) = doomed.get_mut(number) {
            file.is_sure = true;
        }
    }
    Ok(())
}

/// With less than so much free, space is given back as fast as it can be.
fn room_enough(shared: &Shared) -> u64 {
    shared.options.disk_free_bytes_min.saturating_mul(2)
}

/// Whether so much is dead in these files that what it costs to look at all keys is little beside it: under full load dead
/// files would come faster than they go, the more keys there are.
fn is_much(shared: &Shared, files: &BTreeSet<u32>) -> bool {
    let (mut dead, mut live) = (0u64, 0u64);
    for file in shared.files.uses() {
        live = live.saturating_add(file.live);
        dead = dead.saturating_add(if files.contains(&file.number) { file.size } else { 0 });
    }
    dead >= shared.options.log_file_bytes.saturating_mul(DEAD_FILES_MAX).max(live / 2)
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
/// files of the last one are gone, and gave back what they should. So it gets by with little room, and never takes more. As
/// it may take long, what else there is to do in time is done `between` pieces.
pub fn collect(shared: &Shared, stop: Option<&Stop>, bytes_min: u64, between: &mut dyn FnMut()) -> Result<()> {
    let enough = room_enough(shared);
    let low = shared.space.is_low();
    let waits = || {
        // What cannot be removed may never go.
        let doomed = shared.log_space.doomed.lock();
        let going: BTreeSet<u32> = doomed.iter().filter(|(_, d)| !d.is_told).map(|(number, _)| *number).collect();
        drop(doomed);
        // Where there is room, not for files that wait for a look at all keys: some do at any moment under load.
        let all = shared.space.free() < enough;
        all && !going.is_empty() || !all && is_much(shared, &going)
    };
    while shared.files.is_counted() && !waits() {
        shared.space.look();
        let free = shared.space.free();
        let mut uses: Vec<FileUse> = shared.files.uses();
        let stuck = shared.log_space.stuck.lock().clone();
        uses.retain(|file| file.is_sure && file.live > 0 && !stuck.contains(&file.number));
        let part = if low && free < enough { LOW_PART } else { 3 };
        let due = free < enough || is_due(&uses, bytes_min);
        let is_small = |file: &FileUse| file.size < shared.options.log_file_bytes / 4;
        let join = uses.iter().filter(|file| is_small(file)).count() > SMALL_FILES_MAX;
        uses.retain(|file| due && file.dead() >= (file.size / part).max(HEADER_LEN as u64) || join && is_small(file));
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
        if count_records(shared, stop, &uses) {
            // Less of them may be dead than it seemed.
            continue;
        }
        // A compaction that runs may take long, and what it leaves is another matter.
        let Some(held) = shared.compacting.try_lock() else { return Ok(()) };
        let bytes = uses.iter().fold(0, |sum, file| sum + file.live);
        let dead = uses.iter().fold(0, |sum, file| sum + file.dead());
        let (count, before) = in_all(shared);
        tracing::info!("moving {} KiB of batches out of {} log files, to give back the rest", bytes >> 10, uses.len());
        let generation = |file: &FileUse| (file.number, shared.files.generation(file.number) + 1);
        let victims: HashMap<u32, u32> = uses.iter().map(generation).collect();
        move_out(shared, stop, &victims, between)?;
        drop(held);
        remove_dead(shared, stop)?;
        let left = shared.files.uses().iter().any(|file| file.live > 0 && victims.contains_key(&file.number));
        // What is appended meanwhile may end it too: there is a next time.
        let after = in_all(shared);
        let gained = after.1.saturating_add(dead / 2) <= before && (dead > 0 || after.0 < count);
        if left || !gained || stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Log files, and their bytes.
fn in_all(shared: &Shared) -> (usize, u64) {
    let uses = shared.files.uses();
    (uses.len(), uses.iter().fold(0, |sum, file| sum.saturating_add(file.size)))
}

/// Finds out how much of files are commit records, where that is not known; false where of all of them it is, or cannot be.
fn count_records(shared: &Shared, stop: Option<&Stop>, uses: &[FileUse]) -> bool {
    let mut counted = false;
    for file in uses.iter().filter(|file| file.records.is_none()) {
        let path = shared.files.path_of(file.number);
        match records_in(&path) {
            Ok(bytes) => {
                shared.files.records_counted(file.number, bytes);
                counted = true;
            }
            // Its batches are looked at one by one.
            Err(e) => tracing::warn!("log file \"{}\": {e}", path.display()),
        }
        if stop.is_some_and(|stop| stop.wait(Duration::ZERO)) {
            break;
        }
    }
    counted
}

/// Bytes of commit records in a file that nothing is appended to, up to what is neither a record nor a batch.
fn records_in(path: &Path) -> io::Result<u64> {
    let (mut parts, mut records) = (Parts::open(path)?, 0);
    while let Some(part) = parts.next_part()? {
        records += if part.is_record() { part.len } else { 0 };
    }
    Ok(records)
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
        let piece = next_piece(shared, &view, |file| files.contains(&file), &mut from)?;
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

/// Has survivors on disk, so that keys may name them.
pub fn write_survivors(shared: &Shared, survivors: &Survivors<'_>) -> Result<()> {
    let bytes = survivors.write()?;
    shared.measures.commit_bytes.fetch_add(bytes, Ordering::Relaxed);
    shared.space.wrote(usize::try_from(bytes).unwrap_or(usize::MAX));
    Ok(())
}

/// Moves what is live in files to the generation that is said of each.
fn move_out(
    shared: &Shared,
    stop: Option<&Stop>,
    victims: &HashMap<u32, u32>,
    between: &mut dyn FnMut(),
) -> Result<()> {
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
            next_piece(shared, &View::of(shared, &db), |file| victims.contains_key(&file), &mut from)?
        };
        if piece.is_empty() {
            return Ok(());
        }
        between();
        let (mut rewrites, mut survivors) = (Vec::<Rewrite>::new(), Survivors::new(&shared.files));
        for found in piece {
            let (file, len) = (found.place.file, found.place.len);
            let (Some(partition), Some(generation)) = (partitions.get(&found.uid), victims.get(&file)) else {
                continue;
            };
            let batch = match shared.files.read(file, found.place.at, len as usize) {
                Ok(batch) if is_at(&batch, &found.place) => batch,
                Err(Unread::Failed(why)) => return Err(StorageError::Unavailable(why)),
                Ok(_) | Err(Unread::Damaged(_)) => {
                    // Whoever reads it is told. It may have been deleted meanwhile, and the file be gone.
                    shared.log_space.stuck.lock().insert(file);
                    continue;
                }
            };
            let place = survivors.add(*generation, &batch, &found.place);
            let edit = Edit::Replace { last: found.last, place, was: Some((file, u64::from(len))) };
            match rewrites.last_mut().filter(|rewrite| rewrite.partition.uid == found.uid) {
                Some(rewrite) => rewrite.edits.push(edit),
                None => rewrites.push(Rewrite::of(partition.clone(), edit)),
            }
        }
        write_survivors(shared, &survivors)?;
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
fn next_piece(
    shared: &Shared,
    view: &View<'_>,
    wanted: impl Fn(u32) -> bool,
    from: &mut Vec<u8>,
) -> Result<Vec<Found>> {
    // As a file has at most a piece more than it should.
    let bytes_max = PIECE_BYTES.min(usize::try_from(shared.options.log_file_bytes).unwrap_or(usize::MAX));
    let (mut piece, mut bytes) = (Vec::new(), 0);
    let walked = walk(
        view.db,
        || view.options(),
        from,
        |key, value| {
            if let Some(place) = BatchPlace::decode(value).filter(|place| wanted(place.file))
                && let Some((uid, last)) = keys::parse_numbered(Kind::Batch, key)
                && let Ok(last) = Offset::try_from(last)
            {
                if bytes >= bytes_max || piece.len() >= PIECE_BATCHES {
                    return false;
                }
                bytes += place.len as usize;
                piece.push(Found { uid, last, place });
            }
            true
        },
    )?;
    if walked.damaged > shared.log_space.damaged.load(Ordering::Relaxed) {
        // Which files it names is not known: they stay.
        shared.files.doubt_count();
    }
    Ok(piece)
}

//! The next log file, filled with zeros while little at a time is forced to disk in the one before.
//!
//! What makes a file longer is on disk when the file system's journal says so too, which is a second write and a wait for
//! another thread; where there were bytes before, the bytes are enough. 80 KB took 0.19 instead of 0.34 ms on ext4 (a
//! virtual disk, 1,500 forces each), and 0.20 beside the filling. What it costs is that each byte is written twice to the
//! disk, so nothing is filled where as much is forced at a time that the journal does not count, or where it takes long
//! until the next file is begun; nor where a file system writes each byte to a new place anyway.
//!
//! ```text
//! log/next   zeros, as far as there are; nothing in it is ever read, and what is left of it goes at the next start
//! ```
//!
//! Invariants: zeros are written to what is no log file yet, so never over a batch; behind what the writer appended to a file
//! lie zeros or nothing, and where files are gone through zeros end them (`commits`). They are cut off when the next file is
//! begun, at a clean end, and at the start after another one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{StorageOptions, name_of};
use crate::storage::commits::Parts;
use crate::storage::flush::now;

/// Its name among the log files.
pub const NAME: &str = "next";
/// Filling begins when so much of a file was forced, and not for more at a time on average.
const LOOKED_AFTER: u64 = 4 << 20;
const LITTLE: u64 = 256 << 10;
/// Nor where the file before would last for longer.
const FILE_LASTS_MAX: Duration = Duration::from_secs(120);
/// So many zeros are forced at once, and so long is waited then: those who force something meanwhile wait for the same disk.
const PIECE: usize = 256 << 10;
const PAUSE: Duration = Duration::from_millis(2);
/// Files at the end that zeros are looked for in: the writer's last one, and survivors' that were begun after it.
const LOOKED_AT: usize = 8;
/// `f_type` of file systems that write in place: ext4's and XFS's (`statfs(2)`).
const IN_PLACE: [u64; 2] = [0xef53, 0x5846_5342];

pub struct Ahead {
    folder: PathBuf,
    /// How many zeros.
    bytes: u64,
    /// So much of the disk stays free.
    free_min: u64,
    wanted: bool,
    seen: Mutex<Seen>,
    next: Arc<Mutex<Next>>,
    filling: Mutex<Option<JoinHandle<()>>>,
}

/// What was forced in the writer's file.
#[derive(Default)]
struct Seen {
    since: Option<Instant>,
    bytes: u64,
    forces: u64,
    looked: bool,
}

#[derive(Default)]
struct Next {
    /// There is one, as far as it is filled.
    file: Option<Arc<File>>,
    /// There will be none any more.
    closed: bool,
}

impl Ahead {
    pub fn new(options: &StorageOptions, folder: &Path, bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            bytes,
            free_min: options.disk_free_bytes_min.saturating_add(bytes.saturating_mul(2)),
            wanted: options.log_prewrite,
            seen: Mutex::default(),
            next: Arc::default(),
            filling: Mutex::default(),
        }
    }

    /// The writer forced so much in its file.
    pub fn forced(&self, is_new: bool, bytes: u64) {
        if !self.wanted {
            return;
        }
        let mut seen = self.seen.lock();
        if is_new {
            *seen = Seen::default();
        }
        let since = *seen.since.get_or_insert_with(now);
        (seen.bytes, seen.forces) = (seen.bytes + bytes, seen.forces + 1);
        if seen.looked || seen.bytes < LOOKED_AFTER.min(self.bytes) {
            return;
        }
        seen.looked = true;
        let lasts = since.elapsed().mul_f64(self.bytes as f64 / seen.bytes as f64);
        if seen.bytes < seen.forces.saturating_mul(LITTLE) && lasts < FILE_LASTS_MAX {
            self.begin();
        }
    }

    /// Has it filled beside the work, where there is none.
    fn begin(&self) {
        let mut filling = self.filling.lock();
        if filling.as_ref().is_some_and(|thread| !thread.is_finished()) || self.next.lock().file.is_some() {
            return;
        }
        let (path, next, bytes, free_min) = (self.folder.join(NAME), self.next.clone(), self.bytes, self.free_min);
        let fill = move || {
            let filled =
                is_worth_it(&path, free_min).and_then(|yes| if yes { fill(&path, &next, bytes) } else { Ok(()) });
            if let Err(e) = filled {
                tracing::debug!("\"{}\" is not filled: {e}", path.display());
                give_up(&path, &mut next.lock());
            }
        };
        match thread::Builder::new().name("storage-ahead".into()).spawn(fill) {
            Ok(thread) => *filling = Some(thread),
            Err(e) => tracing::debug!("no thread to fill the next log file: {e}"),
        }
    }

    /// Makes it the log file of a name that there is none of, if there is one to make it of.
    pub fn take(&self, path: &Path) -> Option<Arc<File>> {
        let mut next = self.next.lock();
        next.file.as_ref()?;
        let from = self.folder.join(NAME);
        // A handle of the writer's own: an error of its bytes is told once to each, and not to who forces zeros alone.
        let file = OpenOptions::new().read(true).write(true).open(&from);
        let renamed = || Ok(renameat_with(CWD, &from, CWD, path, RenameFlags::NOREPLACE)?);
        match file.and_then(|file| renamed().map(|()| file)) {
            Ok(file) => {
                next.file = None;
                Some(Arc::new(file))
            }
            Err(e) => {
                tracing::debug!("\"{NAME}\" does not become \"{}\": {e}", path.display());
                give_up(&from, &mut next);
                None
            }
        }
    }

    /// Gives its space back.
    pub fn give_up(&self) {
        let mut next = self.next.lock();
        if next.file.is_some() {
            give_up(&self.folder.join(NAME), &mut next);
        }
    }

    /// The same, and there will be none any more.
    pub fn close(&self) {
        self.next.lock().closed = true;
        self.give_up();
        if let Some(thread) = self.filling.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that fills the next log file ended by a panic");
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.close();
    }
}

fn give_up(path: &Path, next: &mut Next) {
    next.file = None;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => tracing::debug!("\"{}\" stays: {e}", path.display()),
        _ => {}
    }
}

/// Whether the file system writes in place, and there is room.
fn is_worth_it(path: &Path, free_min: u64) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(path);
    let (kind, space) = (rustix::fs::statfs(folder)?.f_type, rustix::fs::statvfs(folder)?);
    let is_in_place = u64::try_from(kind).is_ok_and(|kind| IN_PLACE.contains(&kind));
    Ok(is_in_place && space.f_bavail.saturating_mul(space.f_frsize) >= free_min)
}

/// Fills it until it is full, is taken, or is given up.
fn fill(path: &Path, next: &Mutex<Next>, bytes: u64) -> io::Result<()> {
    let file = {
        let mut next = next.lock();
        if next.closed {
            return Ok(());
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?);
        next.file = Some(file.clone());
        file
    };
    let (zeros, mut at) = (vec![0; PIECE], 0);
    while at < bytes {
        let piece = zeros.get(..usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE)).unwrap_or_default();
        {
            // Whoever takes it waits for this one, and there is no other.
            let next = next.lock();
            if next.file.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &file)) {
                return Ok(());
            }
            file.write_all_at(piece, at)?;
        }
        at += piece.len() as u64;
        file.sync_data()?;
        thread::park_timeout(PAUSE);
    }
    Ok(())
}

/// After any end: there is no next file, and the writer's last one ends with what is in it. Sizes of the files are corrected.
pub fn clean(folder: &Path, found: &mut BTreeMap<u32, u64>) {
    match fs::remove_file(folder.join(NAME)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("\"{}\" stays: {e}", folder.join(NAME).display())
        }
        _ => {}
    }
    for (number, size) in found.iter_mut().rev().take(LOOKED_AT) {
        let path = folder.join(name_of(*number));
        match cut_zeros(&path, *size) {
            Ok(left) => *size = left,
            // It takes more space then, until it is deleted.
            Err(e) => tracing::warn!("zeros at the end of log file \"{}\" stay: {e}", path.display()),
        }
    }
}

/// Cuts off what is nothing but zeros behind the last batch or record; returns the size.
fn cut_zeros(path: &Path, size: u64) -> io::Result<u64> {
    let mut bytes = vec![0; PIECE];
    let end = File::open(path)?;
    // Most end with something.
    let tail = size.min(16);
    let last = bytes.get_mut(..tail as usize).unwrap_or_default();
    end.read_exact_at(last, size - tail)?;
    if last.iter().any(|byte| *byte != 0) {
        return Ok(size);
    }
    let mut parts = Parts::open(path)?;
    while parts.next_part()?.is_some() {}
    let from = parts.at();
    let mut at = from;
    while at < size {
        let piece = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let piece = bytes.get_mut(..piece).unwrap_or_default();
        end.read_exact_at(piece, at)?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(size);
        }
        at += piece.len() as u64;
    }
    if from < size {
        OpenOptions::new().write(true).open(path)?.set_len(from)?;
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::LogFiles;
    use super::super::tests::{append, batch};
    use super::*;
    use crate::storage::log_files::FOLDER;

    fn files(directory: &Path) -> LogFiles {
        let mut options = StorageOptions::new(directory);
        options.log_file_bytes = 1000;
        let files = LogFiles::open(&options).unwrap();
        files.make_folder().unwrap();
        files
    }

    fn len(files: &LogFiles, number: u32) -> u64 {
        fs::metadata(files.path_of(number)).unwrap().len()
    }

    fn fill_next(files: &LogFiles) {
        fill(&files.folder.join(NAME), &files.ahead.next, files.ahead.bytes).unwrap();
    }

    #[test]
    fn batches_are_put_over_zeros_and_what_is_left_of_these_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let first = files(directory.path());
        fill_next(&first);
        let place = append(&first, &["a"])[0].0;
        assert_eq!((place.file, place.at, len(&first, 1)), (1, 0, 1000));
        let (more, bytes) = append(&first, &["b"]).remove(0);
        assert_eq!((more.file, more.at), (1, place.len));
        assert_eq!(first.read(1, more.at, more.len as usize).unwrap(), bytes);
        assert!(first.read(1, more.at, more.len as usize + 1).is_err(), "zeros are not read");
        // The next is as long as it is filled, too, and the one before as what was appended.
        fill_next(&first);
        first.begin_another();
        append(&first, &["c"]);
        assert_eq!((len(&first, 1), len(&first, 2)), (u64::from(place.len + more.len), 1000));
        // A clean end leaves no zeros, and nothing to go on with them.
        fill_next(&first);
        first.close();
        assert!(len(&first, 2) < 1000 && !first.folder.join(NAME).exists());
        fill_next(&first);
        assert!(!first.folder.join(NAME).exists());
    }

    #[test]
    fn a_start_after_any_end_finds_no_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let first = files(directory.path());
        fill_next(&first);
        let place = append(&first, &["a"])[0].0;
        fill_next(&first);
        // As if it had been killed.
        std::mem::forget(first);
        let again = files(directory.path());
        assert_eq!(len(&again, 1), u64::from(place.len));
        assert!(!again.folder.join(NAME).exists());
        again.go_on(1);
        assert_eq!(append(&again, &["b"])[0].0.at, place.len);
        drop(again);
        // Of what is there in part, and of zeros within something, nothing is cut off.
        let path = directory.path().join(FOLDER).join(name_of(1));
        let whole = fs::read(&path).unwrap();
        let size = |tail: &[u8]| {
            File::create(&path).unwrap().write_all(&[&whole[..], tail].concat()).unwrap();
            let mut found = BTreeMap::from([(1, (whole.len() + tail.len()) as u64)]);
            clean(&directory.path().join(FOLDER), &mut found);
            assert_eq!(found[&1], fs::metadata(&path).unwrap().len());
            found[&1] as usize - whole.len()
        };
        assert_eq!(size(&[0; PIECE + 100]), 0);
        assert_eq!(size(&[&[0; 100][..], b"x", &[0; 100]].concat()), 201);
        let torn = &batch("torn")[..30];
        assert_eq!(size(&[torn, &[0; 20][..]].concat()), 50);
        assert_eq!(size(b""), 0);
    }

    #[test]
    fn no_file_is_replaced_and_space_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fill_next(&files);
        fs::write(files.path_of(1), b"somebody's").unwrap();
        assert!(files.ahead.take(&files.path_of(1)).is_none());
        assert_eq!(fs::read(files.path_of(1)).unwrap(), b"somebody's");
        assert!(!files.folder.join(NAME).exists());
        fill_next(&files);
        assert!(files.folder.join(NAME).exists());
        files.give_up_ahead();
        assert!(!files.folder.join(NAME).exists() && files.ahead.take(&files.path_of(2)).is_none());
        // Nor is a file held open that was filled and is gone.
        fs::remove_file(files.path_of(1)).unwrap();
        fill_next(&files);
        let place = append(&files, &["a"])[0].0;
        files.deleted(place.file, u64::from(place.len));
        assert!(files.retire_dead(place.file) && files.remove(place.file).unwrap());
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        assert_eq!(open.filter(|to| to.starts_with(directory.path())).count(), 0);
        files.close();
    }

    #[test]
    fn it_is_filled_where_little_is_forced_at_a_time() {
        let begun = |bytes: u64, each: u64, wanted: bool| {
            let directory = tempfile::tempdir().unwrap();
            let mut options = StorageOptions::new(directory.path());
            options.log_prewrite = wanted;
            let ahead = Ahead::new(&options, directory.path(), 64 << 20);
            for i in 0..bytes / each {
                ahead.forced(i == 0, each);
            }
            let begun = ahead.filling.lock().is_some();
            ahead.close();
            assert!(!directory.path().join(NAME).exists());
            begun
        };
        assert!(begun(LOOKED_AFTER, 64 << 10, true));
        assert!(!begun(LOOKED_AFTER, 64 << 10, false));
        assert!(!begun(LOOKED_AFTER / 2, 64 << 10, true));
        assert!(!begun(LOOKED_AFTER, LITTLE, true));
    }
}

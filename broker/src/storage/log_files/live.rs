//! How much of each log file is live, and letting go of those of which nothing is.
//!
//! Of a file's bytes those of commit records are kept as long as it is: they are no deleted space, and are gained only where
//! a file is written anew for what was deleted in it. How many there are is known of files that this process began and of
//! those that a clean end left; of others it is found out when it matters (`log_space`). The head of a file of survivors
//! counts as deleted, and is less than any batch.
//!
//! Not here: which batches are live, and when a file goes (`log_space`).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::sync::{Arc, Weak};

use super::{LogFile, LogFiles, NUMBER_MAX, name_of};

/// Files that are looked at before the table is let go of, so that the writer does not wait for many.
const LOOKED_AT_ONCE: usize = 1024;

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

impl LogFiles {
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

    /// So many bytes of a file that nothing is appended to any more are commit records.
    pub fn records_counted(&self, number: u32, bytes: u64) {
        if let Some(file) = self.table.lock().files.get_mut(&number) {
            file.records = Some(bytes);
        }
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
                if !table.is_under_way(*number) {
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
        let under_way = table.is_under_way(number);
        if !under_way {
            table.close(number);
        }
        !under_way
    }

    /// The same of a file that no key names, so that none ever will; false where one may.
    pub fn retire_dead(&self, number: u32) -> bool {
        let mut table = self.table.lock();
        let dead = table.is_dead(number);
        if dead {
            table.close(number);
        }
        dead
    }

    /// Removes a file that no key names and nobody reads; false where a key may name it after all.
    pub fn remove(&self, number: u32) -> io::Result<bool> {
        {
            let table = self.table.lock();
            if !table.is_dead(number) || table.is_open(number) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log_files::tests::{append, files};

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
}

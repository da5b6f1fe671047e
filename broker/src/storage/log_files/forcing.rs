//! Forcing log files to disk, and writing again what could not be forced.
//!
//! Invariant: where a file could not be forced, none counts as forced until all that was not on disk was written again, as
//! the system calls the next attempt good.
//!
//! Not here: what is in doubt then (`storage::forced`), and when it is written again (`recovery`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{LogFiles, failed, name_of};
use crate::storage::Result;
use crate::storage::error::StorageError;

/// Read at once where a file is written again.
const REWRITE_BYTES: usize = 1 << 20;

/// Files that could not be forced: the system may have dropped what was not on disk, and calls the next attempt good.
pub struct Distrusted {
    why: String,
    files: BTreeMap<u32, Arc<File>>,
}

impl LogFiles {
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
    /// begins a new file. Whether it is what was written is looked at elsewhere: by `recheck` what the write-ahead log names;
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

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;
    use crate::keys::{self, Counter, cf};
    use crate::storage::StorageOptions;
    use crate::storage::directory::open_database;
    use crate::storage::log_files::FOLDER;
    use crate::storage::log_files::tests::{append, batch, files};
    use crate::storage::recovery::number_in;
    use crate::storage::verify::verify;

    #[test]
    fn a_flush_of_the_database_forces_files_first() {
        let directory = tempfile::tempdir().unwrap();
        let files = Arc::new(files(directory.path()));
        let db = open_database(&StorageOptions::new(directory.path()), &files).unwrap();
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
}

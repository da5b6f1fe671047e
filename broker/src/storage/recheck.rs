//! Looking whether what writes put into log files is there, before the database is opened.
//!
//! Not here: which writes are asked about, and what is done where it is not (`verify`, `commits`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StorageOptions;
use super::log_files::{FOLDER, list, name_of};
use crate::batch::{BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, head_crc, is_intact};
use crate::keys::Placed;

/// Looks whether what writes put into files is there, before the database is opened, and writes it once more: what came
/// before a failed fsync, or before the end of a process, may be in the operating system's memory alone.
pub struct Recheck {
    folder: PathBuf,
    files: BTreeMap<u32, File>,
    /// What cannot be read is lost too.
    accept_loss: bool,
    /// The file that an error is of.
    failed: Option<PathBuf>,
}

impl Recheck {
    pub fn new(options: &StorageOptions) -> Self {
        Self {
            folder: options.path.join(FOLDER),
            files: BTreeMap::new(),
            accept_loss: options.accept_data_loss,
            failed: None,
        }
    }

    /// Whether all that a write put there is there: not where a file is missing among others, is too short, or holds
    /// something else. Whatever else keeps it from being looked at is an error. Blocks on disk.
    pub fn is_there(&mut self, placed: &Placed) -> io::Result<bool> {
        let path = self.folder.join(name_of(placed.file));
        match self.look(placed) {
            Err(e) if self.is_lost(&e) => {
                tracing::warn!("log file \"{}\": {e}", path.display());
                Ok(false)
            }
            done => done.inspect_err(|_| self.failed = Some(path)),
        }
    }

    /// The file that the last error is of.
    pub fn failed(&self) -> Option<&Path> {
        self.failed.as_deref()
    }

    fn is_lost(&self, e: &io::Error) -> bool {
        let bad_sector = rustix::io::Errno::from_io_error(e) == Some(rustix::io::Errno::IO);
        match e.kind() {
            // Where there is none at all, somebody forgot a disk.
            io::ErrorKind::NotFound => self.accept_loss || list(&self.folder).is_ok_and(|(files, _)| !files.is_empty()),
            io::ErrorKind::UnexpectedEof => true,
            _ => self.accept_loss && bad_sector,
        }
    }

    fn look(&mut self, placed: &Placed) -> io::Result<bool> {
        if !self.files.contains_key(&placed.file) {
            let path = self.folder.join(name_of(placed.file));
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            self.files.insert(placed.file, file);
        }
        let Some(file) = self.files.get(&placed.file) else { return Ok(false) };
        let (mut at, mut left, mut crc) = (u64::from(placed.from), placed.len as usize, 0);
        if at + left as u64 > file.metadata()?.len() {
            return Ok(false);
        }
        let mut batch = Vec::new();
        while left > 0 {
            let mut head = [0; HEADER_LEN];
            if left < HEADER_LEN {
                return Ok(false);
            }
            file.read_exact_at(&mut head, at)?;
            let len = BatchHeader::parse(&head).and_then(|h| usize::try_from(h.length).ok()).unwrap_or(0);
            let len = len.saturating_add(LENGTH_OVERHEAD);
            if len < HEADER_LEN || len > left {
                return Ok(false);
            }
            batch.resize(len, 0);
            file.read_exact_at(&mut batch, at)?;
            if !is_intact(&batch) {
                return Ok(false);
            }
            crc = head_crc(crc, &batch);
            file.write_all_at(&batch, at)?;
            at += len as u64;
            left -= len;
        }
        Ok(crc == placed.crc)
    }

    /// Forces to disk what was looked at.
    pub fn force(self) -> io::Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        for file in self.files.values() {
            file.sync_all()?;
        }
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::log_files::tests::{batch, files};

    #[test]
    fn what_a_write_put_there_is_found_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let mut placing = files.place();
        for text in ["a", "b", "c"] {
            placing.add(&batch(text), 1, 0, 1);
        }
        files.append(&placing, None, true).unwrap();
        let placed = placing.placed();
        let mut options = StorageOptions::new(directory.path());
        options.log_file_bytes = 300;
        let look = |placed: Placed| {
            let mut recheck = Recheck::new(&options);
            let found = recheck.is_there(&placed).unwrap();
            recheck.force().unwrap();
            found
        };
        assert!(look(placed));
        for wrong in [
            Placed { file: 9, ..placed },
            Placed { from: 1, ..placed },
            Placed { len: placed.len + 1, ..placed },
            Placed { len: placed.len - 1, ..placed },
            Placed { len: u32::MAX, ..placed },
            Placed { crc: placed.crc ^ 1, ..placed },
        ] {
            assert!(!look(wrong), "{wrong:?}");
        }
        let (folder, away) = (directory.path().join("log"), directory.path().join("away"));
        fs::rename(&folder, &away).unwrap();
        for what in ["no folder", "an empty one"] {
            let mut recheck = Recheck::new(&options);
            assert!(recheck.is_there(&placed).is_err() && recheck.failed().is_some(), "{what}");
            let mut accepting = Recheck { accept_loss: true, ..Recheck::new(&options) };
            assert!(!accepting.is_there(&placed).unwrap(), "{what}");
            let _made = fs::create_dir(&folder);
        }
        fs::create_dir(folder.join(name_of(1))).unwrap();
        assert!(Recheck::new(&options).is_there(&placed).is_err(), "not a file");
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&away, &folder).unwrap();
        let path = directory.path().join("log/000001.log");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            fs::write(&path, bytes).unwrap();
            assert!(!look(placed), "a change at {at}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(!look(placed));
    }
}

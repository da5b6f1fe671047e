//! The write-ahead log on the disk is not what was written: nothing acknowledged is lost without a word, and what a crash
//! leaves behind is no damage.

use std::fs;
use std::path::{Path, PathBuf};

use millpond_broker::batch::Codec;
use millpond_broker::storage::{Durability, OpenError, Storage, StorageOptions};
use millpond_types::TopicPartition;
use millpond_types::ports::TopicLog;

use crate::actor::wait_until;
use crate::damage::copy;
use crate::fixture::{START_MS, batch, block_on, crc32c_of, create, open, options, produce, read_all, send, topic};

/// A directory whose process ended in the midst.
struct Crashed {
    storage: Option<Storage>,
    options: StorageOptions,
    place: TopicPartition,
    rows: usize,
    directory: tempfile::TempDir,
}

impl Crashed {
    /// After `rows` records, each a write of its own, of different sizes.
    fn after(rows: usize, change: impl FnOnce(&mut StorageOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(&directory.path().join("data"));
        options.durability = Durability::Group;
        // Nothing becomes too old, however long it takes.
        options.clock = std::sync::Arc::new(millpond_types::ManualClock::at(START_MS));
        // All batches lie in the database.
        options.inline_bytes_max = 1 << 30;
        change(&mut options);
        let storage = open(options.clone()).unwrap();
        let place = create(&storage, "t", &[]);
        let mut crashed = Self { storage: Some(storage), options, place, rows: 0, directory };
        (0..rows).for_each(|_| crashed.send());
        crashed
    }

    fn send(&mut self) {
        self.send_of([10, 200, 3000, 40_000][self.rows % 4]);
    }

    fn send_of(&mut self, size: usize) {
        let value = format!("{} {}", self.rows, "x".repeat(size));
        produce(self.storage.as_ref().unwrap(), self.place, &batch(&[(&value, START_MS)], Codec::None)).unwrap();
        self.rows += 1;
    }

    /// The directory as the process would leave it now.
    fn left(&self) -> PathBuf {
        let path = self.directory.path().join("copy");
        let _gone = fs::remove_dir_all(&path);
        copy(&self.options.path, &path);
        path
    }

    fn open(&self, path: &Path, accept_data_loss: bool) -> Result<Storage, OpenError> {
        open(StorageOptions { path: path.to_owned(), accept_data_loss, ..self.options.clone() })
    }

    /// How many rows there are, all of which must be the first ones.
    fn rows(&self, storage: &Storage) -> usize {
        if storage.find_topic("t").is_none() {
            return 0;
        }
        let place = TopicPartition { topic: topic(storage, "t").id, partition: 0 };
        let rows = read_all(storage, place, 0);
        for (i, (offset, value)) in rows.iter().enumerate() {
            assert!(*offset == i as i64 && value.starts_with(&format!("{i} ")), "{i}: {offset} {value:.20}");
        }
        rows.len()
    }

    fn check_whole(&self, path: &Path, what: &str) {
        match self.open(path, false) {
            Ok(storage) => assert_eq!(self.rows(&storage), self.rows, "{what}"),
            Err(e) => panic!("{what}: {e}"),
        }
        assert!(lost(path).is_empty(), "{what}: something was put aside");
    }

    /// It is refused, with the way out, which leads to a log that can be written.
    fn check_refused(&self, path: &Path, named: &str, what: &str) {
        for _ in 0..2 {
            match self.open(path, false).err() {
                Some(OpenError::Damaged { detail, .. }) => {
                    assert!(detail.contains(named) && detail.contains("--accept-data-loss"), "{what}: {detail}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        let storage = self.open(path, true).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(self.rows(&storage) <= self.rows, "{what}");
        let after = create(&storage, "after", &[]);
        send(&storage, after, &["goes on"]);
        assert_eq!(read_all(&storage, after, 0).len(), 1);
        storage.close().unwrap();
        drop(storage);
        let storage = self.open(path, false).unwrap_or_else(|e| panic!("{what}, opened again: {e}"));
        assert_eq!(read_all(&storage, after, 0).len(), 1);
    }
}

fn logs(path: &Path) -> Vec<PathBuf> {
    let mut logs: Vec<PathBuf> = fs::read_dir(path.join("db")).unwrap().map(|e| e.unwrap().path()).collect();
    logs.retain(|p| p.extension().is_some_and(|e| e == "log"));
    logs.sort();
    logs
}

fn lost(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("lost-")).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn only_log(path: &Path) -> PathBuf {
    let [log] = &logs(path)[..] else { panic!("{:?}", logs(path)) };
    log.clone()
}

/// Says that another machine, or this one before it was started again, has noted how far was written.
fn noted_before_a_power_cut(path: &Path) {
    let file = path.join("written");
    let text = fs::read_to_string(&file).unwrap();
    let (body, _) = text.split_once(" boot ").unwrap();
    let body = format!("{body} boot {}", "0".repeat(36));
    fs::write(file, format!("{body} crc {:08x}\n", crc32c_of(body.as_bytes()))).unwrap();
}

#[test]
fn a_changed_byte_in_the_log_is_named() {
    let crashed = Crashed::after(24, |_| {});
    let len = fs::metadata(only_log(&crashed.left())).unwrap().len() as usize;
    assert!(len > 6 * 32768, "{len}");
    let steps = if std::env::var_os("SLOW").is_some() { 1500 } else { 20 };
    // The first records, the borders of blocks, the last record, and some in between.
    let mut places: Vec<usize> = (0..60).step_by(12).chain((0..steps).map(|i| len * i / steps)).collect();
    places.extend([32767 - 3, 32768, 32768 + 4, 32768 + 6, len - 1, len - 30_000]);
    for at in places {
        let path = crashed.left();
        let log = only_log(&path);
        flip(&log, at);
        // Filling between blocks says nothing.
        if at % 32768 > 32768 - 7 && crashed.open(&path, false).is_ok() {
            continue;
        }
        crashed.check_refused(&path, ".log", &format!("byte {at} of {len}"));
        assert_eq!(lost(&path).len(), 1, "what lies behind byte {at} is kept");
    }
}

#[test]
fn what_a_crash_leaves_of_a_last_write_is_no_damage() {
    let mut crashed = Crashed::after(10, |_| {});
    let path = crashed.left();
    let log = only_log(&path);
    let (before, noted) = (fs::read(&log).unwrap(), fs::read(path.join("written")).unwrap());
    // Something behind the last write, of which nobody was told.
    for rest in [&b"x"[..], &before[..5], &before[..40], &[0; 9], &[0; 70_000]] {
        let path = crashed.left();
        fs::write(only_log(&path), [&before[..], rest].concat()).unwrap();
        crashed.check_whole(&path, &format!("{} bytes more", rest.len()));
    }
    // The largest, which lies in several blocks.
    crashed.send();
    crashed.send();
    let after = fs::read(only_log(&crashed.left())).unwrap();
    let begins = after.len() - 40_200;
    assert!(begins > before.len());
    crashed.rows -= 1;
    for at in [begins + 200, begins + 5000, begins + 20_000, after.len() - 32_768, after.len() - 1] {
        // Cut, and there in part: the disk wrote pages in any order.
        let mut holed = after.clone();
        holed[at..(at + 4096).min(after.len())].fill(0);
        for (torn, what) in [(&after[..at], "cut"), (&holed[..], "a hole")] {
            let path = crashed.left();
            fs::write(only_log(&path), torn).unwrap();
            let acknowledged = fs::read(path.join("written")).unwrap();
            assert_ne!(acknowledged, noted);
            crashed.check_refused(&path, ".log", &format!("{what} at {at}, acknowledged"));
            // As noted before that write: it was never acknowledged.
            let path = crashed.left();
            fs::write(only_log(&path), torn).unwrap();
            fs::write(path.join("written"), &noted).unwrap();
            crashed.check_whole(&path, &format!("{what} at {at}"));
        }
    }
}

#[test]
fn a_log_that_is_cut_short_or_missing_is_named() {
    let crashed = Crashed::after(12, |_| {});
    let len = fs::metadata(only_log(&crashed.left())).unwrap().len();
    for to in [0, 1, 500, len / 2, len - 1] {
        let path = crashed.left();
        fs::OpenOptions::new().write(true).open(only_log(&path)).unwrap().set_len(to).unwrap();
        crashed.check_refused(&path, "write-ahead log", &format!("cut to {to}"));
    }
    let path = crashed.left();
    fs::remove_file(only_log(&path)).unwrap();
    crashed.check_refused(&path, "missing", "no log");

    // Several, because others than the log's own tables still need what is in old ones.
    let mut crashed = Crashed::after(160, |o| o.write_buffer_bytes = 3 << 19);
    drop(crashed.storage.take());
    let files = logs(&crashed.left()).len();
    assert!(files >= 3, "{files}");
    crashed.check_whole(&crashed.left(), "untouched");
    for which in 0..files {
        let path = crashed.left();
        fs::remove_file(&logs(&path)[which]).unwrap();
        crashed.check_refused(&path, "", &format!("without file {which} of {files}"));
        let path = crashed.left();
        let log = &logs(&path)[which];
        let len = fs::metadata(log).unwrap().len();
        fs::OpenOptions::new().write(true).open(log).unwrap().set_len(len / 2).unwrap();
        crashed.check_refused(&path, "", &format!("file {which} of {files} cut"));
        let path = crashed.left();
        flip(&logs(&path)[which], len as usize / 3);
        crashed.check_refused(&path, ".log", &format!("file {which} of {files} changed"));
    }
}

#[test]
fn a_power_cut_may_take_what_was_not_forced() {
    let crashed = Crashed::after(24, |o| o.durability = Durability::None);
    let len = fs::metadata(only_log(&crashed.left())).unwrap().len() as usize;
    for at in [20, len / 4, len / 2, len - 10] {
        let path = crashed.left();
        flip(&only_log(&path), at);
        crashed.check_refused(&path, ".log", "the machine ran on, so that it is damage");
        let path = crashed.left();
        flip(&only_log(&path), at);
        noted_before_a_power_cut(&path);
        let storage = crashed.open(&path, false).unwrap();
        let rows = crashed.rows(&storage);
        // At the first write all is lost, and there is nothing in tables.
        assert!((usize::from(at > 20)..24).contains(&rows), "{rows}");
        assert_eq!(lost(&path).len(), usize::from(at < len - 10), "what follows is kept");
    }
    let crashed = Crashed::after(24, |_| {});
    let path = crashed.left();
    let log = only_log(&path);
    flip(&log, fs::metadata(&log).unwrap().len() as usize / 2);
    noted_before_a_power_cut(&path);
    crashed.check_refused(&path, ".log", "all was forced, so that no power cut can have taken it");
}

/// Changes what lies in the log file from the batch with this text on.
fn take_from_log_file(path: &Path, text: &str, len: Option<usize>) {
    let file = path.join("log/000001.log");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
    match len {
        Some(len) => bytes[at..at + len].fill(0),
        None => bytes.truncate(at),
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_power_cut_may_take_batches_that_the_log_names() {
    for durability in [Durability::None, Durability::Interval(std::time::Duration::from_secs(3600))] {
        let crashed = Crashed::after(24, |o| {
            o.durability = durability;
            o.inline_bytes_max = 0;
        });
        for (row, len) in [(0, Some(2)), (9, Some(7)), (9, None), (23, Some(1)), (23, None)] {
            let text = format!("{row} xxxxx");
            let path = crashed.left();
            take_from_log_file(&path, &text, len);
            crashed.check_refused(&path, "log file", "the machine ran on, so that it is damage");
            let path = crashed.left();
            take_from_log_file(&path, &text, len);
            noted_before_a_power_cut(&path);
            for _ in 0..2 {
                // Log and counters are of one moment, and so they are after another end without warning.
                let storage = crashed.open(&path, false).unwrap();
                assert_eq!((crashed.rows(&storage), storage.sequence()), (row, row as u64));
            }
            assert_eq!(lost(&path).len(), 1, "what follows is kept");
            let storage = crashed.open(&path, false).unwrap();
            let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
            assert_eq!(send(&storage, place, &[&format!("{row} again")]).base_offset, row as i64);
            drop(storage);
            assert_eq!(crashed.rows(&crashed.open(&path, false).unwrap()), row + 1);
        }
    }
}

#[test]
fn log_files_that_cannot_be_looked_at_are_not_taken_for_lost() {
    let crashed = Crashed::after(24, |o| {
        o.durability = Durability::None;
        o.inline_bytes_max = 0;
    });
    let path = crashed.left();
    noted_before_a_power_cut(&path);
    let (folder, away) = (path.join("log"), path.join("away"));
    let refused = |what: &str| match crashed.open(&path, false).err() {
        Some(OpenError::Io { detail, .. }) => assert!(detail.contains("000001.log"), "{what}: {detail}"),
        other => panic!("{what}: {other:?}"),
    };
    fs::rename(&folder, &away).unwrap();
    refused("the folder is not there");
    fs::create_dir(&folder).unwrap();
    refused("another folder is");
    fs::create_dir(folder.join("000001.log")).unwrap();
    refused("the system has an error for it");
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    crashed.check_whole(&path, "all is back");
}

#[test]
fn log_files_of_what_is_put_aside_are_kept_with_it() {
    for accept in [true, false] {
        let crashed = Crashed::after(24, |o| {
            o.durability = Durability::None;
            o.inline_bytes_max = 0;
            o.log_file_bytes = 50_000;
        });
        let path = crashed.left();
        let log = only_log(&path);
        let len = fs::metadata(&log).unwrap().len() as usize;
        flip(&log, len / 2);
        if !accept {
            noted_before_a_power_cut(&path);
        }
        let before = fs::read_dir(path.join("log")).unwrap().count();
        let storage = crashed.open(&path, accept).unwrap();
        let rows = crashed.rows(&storage);
        assert!((5..20).contains(&rows), "{rows}");
        crate::actor::wait_until("what nothing names any more stays in the log", || {
            storage.reclaim().unwrap();
            fs::read_dir(path.join("log")).unwrap().count() < before
        });
        let [lost] = &lost(&path)[..] else { panic!("{:?}", lost(&path)) };
        let files = fs::read_dir(lost.join("log")).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
        let kept: Vec<u8> = files.flatten().collect();
        for row in rows..24 {
            let text = format!("{row} xxxxx");
            assert!(kept.windows(text.len()).any(|w| w == text.as_bytes()), "row {row} of {rows} is gone");
        }
    }
}

#[test]
fn batches_that_were_forced_are_named_when_they_are_gone() {
    let crashed = Crashed::after(24, |o| o.inline_bytes_max = 0);
    for cut in [false, true] {
        let path = crashed.left();
        take_from_log_file(&path, "9 xxxxx", Some(3));
        if cut {
            noted_before_a_power_cut(&path);
        }
        let storage = crashed.open(&path, false).unwrap();
        let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
        assert_eq!(storage.partition_offsets(place).unwrap().end, 24, "nothing is cut off");
        let why = storage.read(place, 9, crate::fixture::ALL).unwrap_err();
        assert!(why.message().contains("topic \"t\" partition 0 is damaged at offset 9"), "{why}");
        assert_eq!(storage.read(place, 0, crate::fixture::ALL).unwrap().views.len(), 9);
        assert_eq!(read_all(&storage, place, 10).len(), 14, "what comes after it is served");
    }
}

/// Writes of which the disk got the commit records alone.
#[test]
fn what_a_power_cut_takes_of_the_log_lies_in_log_files() {
    let mut crashed = Crashed::after(0, |o| {
        o.inline_bytes_max = 0;
        o.log_file_bytes = 40_000;
    });
    let is_log = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|of| of == "log");
    let in_files = |path: &Path| fs::read_dir(path.join("log")).unwrap().map(Result::unwrap).filter(is_log).count();
    // How long the log was, and how many log files there were, after each row.
    let mut after = Vec::new();
    for _ in 0..23 {
        crashed.send();
        let log = only_log(&crashed.options.path);
        after.push((fs::metadata(log).unwrap().len() as usize, in_files(&crashed.options.path)));
    }
    let (whole, files) = *after.last().unwrap();
    assert!(files >= 4 && after[20].1 == files, "{after:?}");
    let bytes = fs::read(only_log(&crashed.options.path)).unwrap();
    let begun = after.iter().position(|(_, count)| *count == files).unwrap();
    for (row, (len, _)) in after.iter().enumerate() {
        for torn in [0, 5] {
            let path = crashed.left();
            fs::write(only_log(&path), &bytes[..whole.min(len + torn)]).unwrap();
            noted_before_a_power_cut(&path);
            crashed.check_whole(&path, &format!("cut after row {row}, {torn}"));
            // It lies in the database as well now.
            fs::remove_dir_all(path.join("log")).unwrap();
            copy(&crashed.options.path.join("log"), &path.join("log"));
            crashed.check_whole(&path, "once more");
        }
    }
    // What is missing before the first record lies nowhere else.
    let path = crashed.left();
    fs::write(only_log(&path), &bytes[..20]).unwrap();
    noted_before_a_power_cut(&path);
    crashed.check_refused(&path, "", "the topic's creation");
    // The disk wrote what came later.
    let path = crashed.left();
    let mut holed = bytes.clone();
    holed[after[begun].0 + 10..after[begun].0 + 100].fill(0);
    fs::write(only_log(&path), holed).unwrap();
    let storage = crashed.open(&path, false).unwrap();
    assert_eq!((crashed.rows(&storage), lost(&path).len()), (23, 1));
    let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
    assert_eq!(send(&storage, place, &["23 again"]).base_offset, 23);
    drop(storage);
    assert_eq!(crashed.rows(&crashed.open(&path, false).unwrap()), 24);
}

#[test]
fn records_are_found_before_files_that_batches_were_moved_to() {
    let mut crashed = Crashed::after(0, |o| {
        o.inline_bytes_max = 0;
        o.log_file_bytes = 40_000;
    });
    let storage = crashed.storage.clone().unwrap();
    let goes = create(&storage, "goes", &[]);
    for _ in 0..12 {
        send(&storage, goes, &[&"x".repeat(12_000)]);
        crashed.send_of(12_000);
    }
    // Into a file that stays.
    crashed.send();
    let files = |path: &Path| {
        let entries = fs::read_dir(path.join("log")).unwrap().map(|e| e.unwrap().path());
        let entries = entries.filter(|path| path.extension().is_some_and(|of| of == "log"));
        // Those that go meanwhile have gone.
        let mut files: Vec<_> =
            entries.filter_map(|p| Some((fs::read(&p).ok()?.starts_with(b"\xffmoved01"), p))).collect();
        files.sort_by(|a, b| a.1.cmp(&b.1));
        files.into_iter().map(|(moved, _)| moved).collect::<Vec<_>>()
    };
    block_on(storage.delete_topic(goes.topic)).unwrap();
    wait_until("live batches are not moved", || {
        storage.reclaim().unwrap();
        files(&crashed.options.path).ends_with(&[false, true, true, true])
    });
    let log = || logs(&crashed.options.path).pop().unwrap();
    let mut after = vec![fs::metadata(log()).unwrap().len()];
    for _ in 0..3 {
        crashed.send();
        after.push(fs::metadata(logs(&crashed.options.path).pop().unwrap()).unwrap().len());
    }
    assert!(files(&crashed.options.path).ends_with(&[true]), "what came then lies before");
    for len in after {
        let path = crashed.left();
        fs::OpenOptions::new().write(true).open(logs(&path).pop().unwrap()).unwrap().set_len(len).unwrap();
        noted_before_a_power_cut(&path);
        crashed.check_whole(&path, &format!("cut at {len}"));
    }
}

#[test]
fn a_commit_record_is_taken_with_all_of_its_batches_or_not_at_all() {
    let mut crashed = Crashed::after(12, |o| o.inline_bytes_max = 0);
    let before = crashed.left();
    let (noted, log) = (fs::read(before.join("written")).unwrap(), fs::read(only_log(&before)).unwrap());
    let begins = fs::metadata(before.join("log/000001.log")).unwrap().len() as usize;
    crashed.send();
    let file = fs::read(crashed.options.path.join("log/000001.log")).unwrap();
    assert!(begins + 100 < file.len());
    // What the disk has of the last write, of which nobody was told: its batch lies first.
    for (from, len) in [(0, 0), (0, 4), (30, 9), (75, 1), (file.len() - begins - 9, 9), (file.len() - begins - 200, 4)]
    {
        let path = crashed.left();
        let mut torn = file.clone();
        torn[begins + from..][..len].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(path.join("log/000001.log"), torn).unwrap();
        fs::write(only_log(&path), &log).unwrap();
        fs::write(path.join("written"), &noted).unwrap();
        for again in 0..2 {
            let storage = crashed.open(&path, false).unwrap();
            let rows = if len == 0 { 13 } else { 12 };
            assert_eq!(crashed.rows(&storage), rows + again, "{len} bytes at {from}");
            let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
            send(&storage, place, &[&format!("{} again", rows + again)]);
        }
    }
    // An earlier one is damaged, and the log lacks it too.
    let path = crashed.left();
    take_from_log_file(&path, "9 xxxxx", Some(3));
    fs::write(only_log(&path), &log[..600]).unwrap();
    noted_before_a_power_cut(&path);
    crashed.check_refused(&path, "", "a record before the last");
}

/// Rows of which some are recorded in log files, and the last ones are in the database alone. With how long its log was
/// after each row, and what was noted after the first.
fn recorded_and_not(recorded: usize, behind: &[usize]) -> (Crashed, Vec<usize>, Vec<u8>) {
    let mut crashed = Crashed::after(0, |o| o.inline_bytes_max = 1 << 20);
    let (mut after, mut noted) = (Vec::new(), Vec::new());
    for size in std::iter::repeat_n(&200_000, recorded).chain(behind) {
        crashed.send_of(*size);
        after.push(fs::metadata(only_log(&crashed.options.path)).unwrap().len() as usize);
        if noted.is_empty() {
            noted = fs::read(crashed.options.path.join("written")).unwrap();
        }
    }
    (crashed, after, noted)
}

#[test]
fn records_make_up_for_a_hole_only_with_what_the_log_has_behind_it() {
    let (crashed, after, noted) = recorded_and_not(5, &[10; 4]);
    let path = crashed.left();
    fs::write(path.join("written"), &noted).unwrap();
    noted_before_a_power_cut(&path);
    flip(&only_log(&path), after[1] + 30);
    crashed.check_refused(&path, ".log", "four that were forced lie behind the hole");
    // One may have been under way; it is there, and so it stays.
    for (size, is_old) in [(10, true), (100_000, true), (100_000, false)] {
        let (mut crashed, after, noted) = recorded_and_not(5, &[size]);
        let path = crashed.left();
        if is_old {
            fs::write(path.join("written"), &noted).unwrap();
        }
        noted_before_a_power_cut(&path);
        flip(&only_log(&path), after[1] + 30);
        drop(crashed.open(&path, false).unwrap());
        for _ in 0..2 {
            let storage = crashed.open(&path, false).unwrap();
            assert_eq!((crashed.rows(&storage), lost(&path).len()), (crashed.rows, 1), "{size}");
            let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
            send(&storage, place, &[&format!("{} again", crashed.rows)]);
            crashed.rows += 1;
        }
    }
}

#[test]
fn batches_that_the_log_names_are_not_made_up_for() {
    for behind in [0, 4] {
        let (crashed, _, noted) = recorded_and_not(5, &[10; 4][..behind]);
        let path = crashed.left();
        fs::write(path.join("written"), &noted).unwrap();
        noted_before_a_power_cut(&path);
        take_from_log_file(&path, "4 xxxxx", Some(3));
        crashed.check_refused(&path, "log file", &format!("the last batch, with {behind} writes behind it"));
    }
}

#[test]
fn nothing_is_put_aside_where_records_do_not_make_up_for_it() {
    let (crashed, after, noted) = recorded_and_not(5, &[]);
    let path = crashed.left();
    fs::write(path.join("written"), &noted).unwrap();
    noted_before_a_power_cut(&path);
    flip(&only_log(&path), after[1] + 30);
    let log = fs::read(only_log(&path)).unwrap();
    let file = fs::read(path.join("log/000001.log")).unwrap();
    take_from_log_file(&path, "3 xxxxx", Some(3));
    for _ in 0..2 {
        let why = crashed.open(&path, false).err().unwrap();
        assert!(matches!(&why, OpenError::Damaged { detail, .. } if detail.contains("goes on at")), "{why:?}");
        assert!(lost(&path).is_empty() && fs::read(only_log(&path)).unwrap() == log);
    }
    // A copy of what was damaged is enough.
    fs::write(path.join("log/000001.log"), file).unwrap();
    assert_eq!(crashed.rows(&crashed.open(&path, false).unwrap()), 5);
}

#[test]
fn records_go_on_where_tables_end() {
    let mut crashed = Crashed::after(4, |o| o.inline_bytes_max = 0);
    crashed.storage.take().unwrap().close().unwrap();
    crashed.storage = Some(open(crashed.options.clone()).unwrap());
    (0..6).for_each(|_| crashed.send());
    for cut in [false, true] {
        let path = crashed.left();
        // The kernel has dropped the first page, or the disk did not get it.
        let log = logs(&path).pop().unwrap();
        let mut bytes = fs::read(&log).unwrap();
        bytes[..20].fill(0);
        fs::write(&log, bytes).unwrap();
        if cut {
            noted_before_a_power_cut(&path);
        }
        let storage = crashed.open(&path, false).unwrap();
        assert_eq!((crashed.rows(&storage), lost(&path).len()), (10, 1));
        assert!(!path.join("trial").exists());
    }
}

#[test]
fn a_table_names_only_batches_that_are_on_disk() {
    // A flush under way to a table forces log files first, and notes survive: nothing before it is looked at again.
    let mut crashed = Crashed::after(20, |o| {
        o.durability = Durability::None;
        o.inline_bytes_max = 0;
    });
    crashed.storage.take().unwrap().close().unwrap();
    let path = crashed.left();
    crashed.check_whole(&path, "after a clean end");
    crashed.storage = Some(Storage::open(crashed.options.clone()).unwrap());
    crashed.send();
    let path = crashed.left();
    noted_before_a_power_cut(&path);
    take_from_log_file(&path, "20 xxxxx", None);
    let storage = crashed.open(&path, false).unwrap();
    assert_eq!(crashed.rows(&storage), 20);
}

#[test]
fn after_a_clean_end_nothing_hangs_on_the_log() {
    let mut crashed = Crashed::after(24, |_| {});
    crashed.storage.take().unwrap().close().unwrap();
    for log in logs(&crashed.left()) {
        for change in 0..3 {
            let path = crashed.left();
            let log = path.join("db").join(log.file_name().unwrap());
            match change {
                0 => fs::remove_file(&log).unwrap(),
                1 => fs::write(&log, "").unwrap(),
                _ => fs::write(&log, [&fs::read(&log).unwrap()[..], b"something"].concat()).unwrap(),
            }
            crashed.check_whole(&path, &format!("change {change}"));
        }
    }
    crashed.check_whole(&crashed.left(), "untouched");
}

#[test]
fn a_loss_after_a_clean_end_does_not_hide_what_is_in_tables() {
    let mut crashed = Crashed::after(12, |o| o.write_buffer_bytes = 3 << 19);
    crashed.storage.take().unwrap().close().unwrap();
    crashed.storage = Some(open(crashed.options.clone()).unwrap());
    // The batches are written to tables by and by, what is said of topics is not.
    (0..100).for_each(|_| crashed.send());
    crashed.storage.take();
    let path = crashed.left();
    flip(&logs(&path)[0], 20);
    let storage = crashed.open(&path, true).unwrap();
    let rows = crashed.rows(&storage);
    assert!((13..112).contains(&rows), "{rows}");
    let place = TopicPartition { topic: topic(&storage, "t").id, partition: 0 };
    assert_eq!(send(&storage, place, &[&format!("{rows} new")]).base_offset, rows as i64);
    // Without a clean end in between: what was counted before may not count again.
    drop(storage);
    let storage = crashed.open(&path, false).unwrap();
    assert_eq!(crashed.rows(&storage), rows + 1);
    storage.close().unwrap();
}

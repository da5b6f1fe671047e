//! A disk that is full: everything can be read, what comes is refused so that it is tried again, and it goes on by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_broker::batch::Codec;
use millpond_broker::storage::{Durability, Storage, StorageError, StorageOptions};
use millpond_types::ports::{Cursor, Outcome, Step};
use millpond_types::record::RecordBuffer;
use millpond_types::{ManualClock, TopicPartition};

use crate::actor::wait_until;
use crate::disk::Disk;
use crate::fixture::{START_MS, batch, block_on, create, open, options, produce, read_all, spec, step};

const MB: usize = 1 << 20;

fn small(path: &Path) -> StorageOptions {
    let mut options = options(path);
    options.durability = Durability::Group;
    options.tail_bytes = 0;
    options.write_buffer_bytes = 6 * MB;
    // Nothing is so old that retention takes it.
    options.clock = Arc::new(ManualClock::at(START_MS));
    options
}

fn value(i: usize) -> String {
    format!("{i} {}", "x".repeat(MB / 2))
}

fn try_send(storage: &Storage, place: TopicPartition, i: usize) -> Result<(), StorageError> {
    produce(storage, place, &batch(&[(&value(i), START_MS)], Codec::None)).map(drop)
}

#[test]
fn below_the_setting_only_reading_and_deleting_goes_on() {
    let Some(disk) = Disk::new(160, "a full disk") else { return };
    let mut options = small(&disk.data());
    options.disk_free_bytes_min = 40 * MB as u64;
    let storage = open(options).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..5 {
        try_send(&storage, place, i).unwrap();
    }
    disk.fill(30);
    let tiny = batch(&[("tiny", START_MS)], Codec::None);
    wait_until("nothing is refused", || produce(&storage, place, &tiny).is_err());
    let end = storage.partition_offsets(place).unwrap().end;
    match try_send(&storage, place, 0).unwrap_err() {
        StorageError::Unavailable(why) => {
            assert!(why.contains("MiB free, less than \"disk_free_bytes_min\", 40 MiB"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(block_on(storage.create_topic(spec("u", 1, &[]))).is_err());
    let mut records = RecordBuffer::default();
    records.push(None, Some(b"v"), 1, &[]);
    let bulky = Step { appends: vec![(place, records)], ..Step::default() };
    assert!(matches!(step(&storage, bulky), Outcome::Retry(why) if why.contains("disk_free_bytes_min")));
    let progress = Step { cursors: vec![Cursor { query: "q".into(), source: place, offset: 1 }], ..Step::default() };
    assert!(matches!(step(&storage, progress), Outcome::Committed { .. }), "what is small goes on");
    block_on(storage.group_write(vec![(b"k".to_vec(), Some(b"v".to_vec()))])).unwrap();
    assert_eq!(read_all(&storage, place, 0).len() as i64, end);
    assert_eq!(block_on(storage.delete_records(place, 1)), Ok(1));

    disk.free();
    disk.fill(8);
    wait_until("a group's offsets are still taken", || {
        block_on(storage.group_write(vec![(b"k".to_vec(), Some(b"w".to_vec()))])).is_err()
    });
    assert_eq!(block_on(storage.delete_records(place, 2)), Ok(2), "deleting always works");
    assert!(storage.group_get(b"k").unwrap().is_some());

    disk.free();
    wait_until("it does not go on", || try_send(&storage, place, 5).is_ok());
    assert_eq!(storage.partition_offsets(place).unwrap().end, end + 1);
    storage.close().unwrap();
}

#[test]
fn after_a_write_that_failed_it_goes_on_by_itself() {
    let Some(disk) = Disk::new(120, "a full disk") else { return };
    let mut options = small(&disk.data());
    options.disk_free_bytes_min = 0;
    // So that retention does not take what is looked for, however long this takes.
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..10 {
        try_send(&storage, place, i).unwrap();
    }
    let snapshot_of = |storage: &Storage| read_all(storage, place, 0).len();
    let nothing_dead = |storage: &Storage| storage.measure().log_file_dead_bytes == 0;
    disk.fill(3);
    let mut sent = 10;
    while try_send(&storage, place, sent).is_ok() {
        sent += 1;
        assert!(sent < 500, "the disk does not become full");
    }
    assert!(nothing_dead(&storage), "a part of what failed stays on a full disk");
    for _ in 0..3 {
        // Opened again it may find some room still.
        match try_send(&storage, place, sent) {
            Ok(()) => sent += 1,
            Err(e) => assert!(matches!(e, StorageError::Unavailable(_)), "{e}"),
        }
        assert_eq!(snapshot_of(&storage), sent, "all can be read");
        assert!(nothing_dead(&storage), "a part of what failed stays on a full disk");
        // Long enough for attempts to open it again on the full disk.
        std::thread::sleep(Duration::from_millis(700));
    }
    let held = millpond_types::ports::StateStore::snapshot(&storage);
    disk.free();
    std::thread::sleep(Duration::from_millis(1500));
    drop(held);
    wait_until("it does not go on", || try_send(&storage, place, sent).is_ok());
    let rows = read_all(&storage, place, 0);
    assert_eq!(rows.len(), sent + 1);
    assert!(rows.iter().enumerate().all(|(i, (offset, v))| *offset == i as i64 && v.starts_with(&format!("{i} "))));
    storage.close().unwrap();
    let storage = open(options).unwrap();
    assert_eq!(read_all(&storage, place, 0).len(), sent + 1);
    storage.close().unwrap();
}

#[test]
fn a_directory_can_be_opened_on_a_disk_that_others_have_filled() {
    let Some(disk) = Disk::new(120, "a full disk") else { return };
    let mut options = small(&disk.data());
    options.disk_free_bytes_min = 20 * MB as u64;
    options.disk_reserve_bytes = 8 * MB as u64;
    let reserve = disk.data().join("reserve");
    let is_there = || {
        let found = std::fs::metadata(&reserve).ok();
        found.is_some_and(|found| std::os::unix::fs::MetadataExt::blocks(&found) * 512 >= 8 * MB as u64)
    };
    let storage = open(options.clone()).unwrap();
    let place = create(&storage, "t", &[]);
    for i in 0..5 {
        try_send(&storage, place, i).unwrap();
    }
    wait_until("there is no reserve", is_there);
    drop(storage);
    disk.fill(0);

    // There is nothing else that it could be opened with.
    let aside = disk.data().join("aside");
    std::fs::rename(&reserve, &aside).unwrap();
    let refused = open(options.clone()).err().unwrap().to_string();
    assert!(refused.contains("No space left"), "{refused}");
    std::fs::rename(&aside, &reserve).unwrap();
    let storage = open(options.clone()).unwrap();
    assert!(!reserve.exists());
    assert_eq!(read_all(&storage, place, 0).len(), 5);
    assert_eq!(block_on(storage.delete_records(place, 1)), Ok(1));
    assert!(try_send(&storage, place, 5).is_err());

    disk.free();
    wait_until("the reserve is not made again", is_there);
    try_send(&storage, place, 5).unwrap();
    storage.close().unwrap();
    // Who wants none has none.
    options.disk_reserve_bytes = 0;
    let storage = open(options).unwrap();
    assert!(!reserve.exists());
    assert_eq!(read_all(&storage, place, 1).len(), 5);
    storage.close().unwrap();
}

/// With a reserve, and a disk that others have filled to the last byte.
fn full_to_the_last_byte(durability: Durability, after_a_write_that_failed: bool) {
    let Some(disk) = Disk::new(160, "deleting on a full disk") else { return };
    let mut options = small(&disk.data());
    options.durability = durability;
    options.disk_free_bytes_min = 20 * MB as u64;
    options.disk_reserve_bytes = 8 * MB as u64;
    options.log_file_bytes = 4 * MB as u64;
    options.clock = Arc::new(ManualClock::at(START_MS));
    let storage = open(options.clone()).unwrap();
    let [stays, trimmed, goes] = ["stays", "trimmed", "goes"].map(|name| create(&storage, name, &[]));
    for i in 0..20 {
        [stays, trimmed, goes].iter().for_each(|place| try_send(&storage, *place, i).unwrap());
    }
    let reserve = disk.data().join("reserve");
    wait_until("there is no reserve", || reserve.exists());
    disk.fill(0);
    let failed = || try_send(&storage, stays, 20).is_err_and(|e| !e.to_string().contains("disk_free_bytes_min"));
    for _ in 0..50 {
        if !after_a_write_that_failed || failed() {
            break;
        }
        // It was looked how much is free before something was written.
        disk.free();
        wait_until("it does not go on", || try_send(&storage, goes, 20).is_ok());
        disk.fill(0);
    }
    wait_until("something is taken", || try_send(&storage, stays, 20).is_err());
    assert!(reserve.exists());
    assert_eq!(block_on(storage.delete_records(trimmed, 10)), Ok(10), "{durability:?}");
    block_on(storage.delete_topic(goes.topic)).unwrap();
    let rows = |storage: &Storage| (read_all(storage, stays, 0).len(), read_all(storage, trimmed, 10).len());
    assert_eq!(rows(&storage), (20, 10));
    wait_until("nothing is given back", || try_send(&storage, stays, 20).is_ok());
    storage.close().unwrap();
    let storage = open(options).unwrap();
    assert_eq!(rows(&storage), (21, 10));
    assert!(storage.find_topic("goes").is_none());
    storage.close().unwrap();
}

#[test]
fn what_is_deleted_on_a_disk_that_is_full_to_the_last_byte_is_a_way_out() {
    for durability in [Durability::Group, Durability::None] {
        full_to_the_last_byte(durability, false);
        full_to_the_last_byte(durability, true);
    }
}

/// Sends to several topics in turn, as often each as its number says, until nothing is taken any more.
fn fill_up(storage: &Storage, places: &[(TopicPartition, usize)]) {
    let value = value(0);
    for _ in 0..1000 {
        for (place, times) in places {
            for _ in 0..*times {
                if produce(storage, *place, &batch(&[(&value[..100_000], START_MS)], Codec::None)).is_err() {
                    return;
                }
            }
        }
    }
    panic!("the disk does not become full");
}

/// A topic in each log file beside one that stays is deleted, when the disk is too full to be written.
fn deleted_on_a_full_disk(durability: Durability, goes: usize, stays: usize) {
    let Some(disk) = Disk::new(120, "a full disk") else { return };
    let mut options = small(&disk.data());
    options.durability = durability;
    options.disk_free_bytes_min = 24 * MB as u64;
    options.log_file_bytes = 4 * MB as u64;
    let storage = open(options.clone()).unwrap();
    let places = ["goes", "stays"].map(|name| create(&storage, name, &[]));
    fill_up(&storage, &[(places[0], goes), (places[1], stays)]);
    let rows = read_all(&storage, places[1], 0);
    block_on(storage.delete_topic(places[0].topic)).unwrap();
    let tiny = batch(&[("tiny", START_MS)], Codec::None);
    wait_until("nothing is given back", || {
        let room = rustix::fs::statvfs(disk.data()).unwrap();
        assert!(room.f_bavail * room.f_frsize > 6 * MB as u64, "giving back fills the disk");
        produce(&storage, places[1], &tiny).is_ok()
    });
    assert_eq!(read_all(&storage, places[1], 0)[..rows.len()], rows);
    storage.close().unwrap();
    let storage = open(options).unwrap();
    assert_eq!(read_all(&storage, places[1], 0)[..rows.len()], rows);
    storage.close().unwrap();
}

#[test]
fn what_is_deleted_on_a_full_disk_comes_back_also_where_it_is_the_lesser_part() {
    deleted_on_a_full_disk(Durability::Group, 1, 3);
    deleted_on_a_full_disk(Durability::Interval(Duration::from_millis(20)), 1, 5);
}

#[test]
fn giving_back_much_takes_little_room() {
    deleted_on_a_full_disk(Durability::Group, 2, 3);
}

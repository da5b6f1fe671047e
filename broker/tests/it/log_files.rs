//! Log files: space that comes back, and what they are when they are many.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use millpond_broker::batch::Codec;
use millpond_broker::storage::{Durability, FetchLimits, OpenError, Storage, StorageOptions};
use millpond_types::TopicPartition;
use rocksdb::{DB, Options};

use crate::fixture::{
    Fixture, START_MS, batch, block_on, create, live_in_files, open, options, produce, read_all, send, spec,
    with_producer,
};

fn in_files(path: &Path) -> (usize, u64) {
    // Those that go meanwhile have gone.
    let found = fs::read_dir(path.join("log")).unwrap().filter_map(|e| e.unwrap().metadata().ok());
    found.filter(|m| m.is_file()).fold((0, 0), |(count, bytes), m| (count + 1, bytes + m.len()))
}

fn small_files(o: &mut StorageOptions) {
    o.log_file_bytes = 20_000;
    // What lies on the disk is held against what was appended, to the byte.
    o.log_prewrite = false;
    o.log_files_open_max = 3;
    o.tail_bytes = 0;
}

/// Two topics with so many batches each, one after the other, in small files.
fn in_small_files(count: usize, change: impl FnOnce(&mut StorageOptions)) -> (Fixture, [TopicPartition; 2]) {
    let fixture = Fixture::with(|o| {
        small_files(o);
        change(o);
    });
    let places = ["stays", "goes"].map(|name| create(&fixture.storage, name, &[]));
    fill(&fixture.storage, places, count);
    (fixture, places)
}

fn value(i: usize) -> String {
    format!("{i} {}", "x".repeat(1000))
}

/// Both partitions get so many, one after the other.
fn fill(storage: &Storage, places: [TopicPartition; 2], count: usize) {
    for i in 0..count {
        for place in places {
            produce(storage, place, &batch(&[(&value(i), START_MS)], Codec::None)).unwrap();
        }
    }
}

fn check(storage: &Storage, place: TopicPartition, from: usize, to: usize) {
    let rows = read_all(storage, place, from as i64);
    assert_eq!(rows.len(), to - from);
    assert!(rows.iter().zip(from..).all(|((offset, v), i)| *offset == i as i64 && *v == value(i)));
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_space_of_what_is_deleted_comes_back_and_what_is_not_stays() {
    for durability in [Durability::None, Durability::Interval(Duration::from_millis(20)), Durability::Group] {
        let (fixture, places) = in_small_files(100, |o| {
            o.durability = durability;
            o.segment_bytes = 3000;
        });
        let storage = &fixture.storage;
        let (count, before) = in_files(&fixture.options.path);
        let live = live_in_files(storage);
        assert!(count >= 10 && live == before, "{count} {before} {live}");
        // Whole files, which nobody has to ask for.
        for place in places {
            block_on(storage.delete_records(place, 50)).unwrap();
        }
        wait_until("dead files stay", || in_files(&fixture.options.path).1 < before * 6 / 10);
        check(storage, places[0], 50, 100);
        // Every other batch.
        block_on(storage.delete_topic(places[1].topic)).unwrap();
        wait_until("live batches are not moved together", || {
            storage.reclaim().unwrap();
            in_files(&fixture.options.path).1 < before * 3 / 10
        });
        check(storage, places[0], 50, 100);
        let live = live_in_files(storage);
        let fixture = fixture.reopen(false);
        assert_eq!(live_in_files(&fixture.storage), live);
        check(&fixture.storage, places[0], 50, 100);
        block_on(fixture.storage.delete_topic(places[0].topic)).unwrap();
        let again = create(&fixture.storage, "again", &[]);
        wait_until("the last files stay", || in_files(&fixture.options.path) == (0, 0));
        send(&fixture.storage, again, &["a"]);
        let fixture = fixture.reopen(true);
        assert_eq!(read_all(&fixture.storage, again, 0).len(), 1);
        assert_eq!(in_files(&fixture.options.path).0, 1);
    }
}

#[test]
fn commit_records_are_no_deleted_space() {
    let (fixture, places) = in_small_files(0, |o| o.durability = Durability::Group);
    let small = batch(&[(&"x".repeat(200), START_MS)], Codec::None);
    for i in 0..300 {
        for place in places {
            produce(&fixture.storage, place, &with_producer(&small, 7, 0, i)).unwrap();
        }
    }
    let folder = fixture.options.path.join("log");
    // All but the last one, which may be gone on with.
    let full_files = || {
        let files = fs::read_dir(&folder).unwrap().map(|e| e.unwrap());
        let mut files: Vec<_> = files.map(|e| (e.file_name(), e.metadata().unwrap().len())).collect();
        files.sort();
        files.truncate(8);
        files
    };
    let (before, all) = (full_files(), in_files(&fixture.options.path).1);
    let batches = 600 * small.len() as u64;
    assert!(before.len() == 8 && batches + all / 10 < all, "records are no small part: {batches} of {all}");
    fixture.storage.reclaim().unwrap();
    assert_eq!((full_files(), live_in_files(&fixture.storage)), (before.clone(), all));
    // Also with less room than there must be, whatever the end before was.
    let mut fixture = fixture;
    fixture.options.disk_free_bytes_min = u64::MAX / 4;
    for (clean, reclaims) in [(false, false), (true, true), (true, true)] {
        fixture = fixture.reopen(clean);
        if reclaims {
            fixture.storage.reclaim().unwrap();
        }
        assert_eq!((full_files(), in_files(&fixture.options.path).1), (before.clone(), all), "clean: {clean}");
    }
    assert_eq!(fixture.storage.measure().log_file_dead_bytes, 0);
    // What is deleted is given back, once.
    block_on(fixture.storage.delete_topic(places[1].topic)).unwrap();
    wait_until("live batches are not moved together", || {
        fixture.storage.reclaim().unwrap();
        in_files(&fixture.options.path).1 < all * 6 / 10
    });
    let written = fixture.storage.measure().commit_bytes_total;
    (0..3).for_each(|_| fixture.storage.reclaim().unwrap());
    assert_eq!(fixture.storage.measure().commit_bytes_total, written);
    assert_eq!(read_all(&fixture.storage, places[0], 0).len(), 300);
}

#[test]
fn live_batches_are_moved_together_while_retention_goes_on() {
    let (fixture, places) = in_small_files(600, |o| {
        o.segment_bytes = 3000;
        // Between each two pieces.
        o.retention_interval = Duration::from_millis(1);
    });
    let storage = &fixture.storage;
    let short = create(storage, "short", &[("retention.bytes", "3000")]);
    let before = in_files(&fixture.options.path).1;
    block_on(storage.delete_topic(places[1].topic)).unwrap();
    wait_until("live batches are not moved together", || {
        send(storage, short, &[&value(0)]);
        in_files(&fixture.options.path).1 < before * 6 / 10
    });
    check(storage, places[0], 0, 600);
    wait_until("retention does not go on", || storage.partition_bytes(short).unwrap() < 8000);
}

/// Log files by name: whether batches were moved there, and what lies there.
fn contents(path: &Path) -> BTreeMap<String, (bool, Vec<u8>)> {
    let files = fs::read_dir(path.join("log")).unwrap().map(|e| e.unwrap());
    let content = |bytes: Vec<u8>| (bytes.starts_with(b"\xffmoved01"), bytes);
    files.map(|e| (e.file_name().into_string().unwrap(), content(fs::read(e.path()).unwrap()))).collect()
}

#[test]
fn what_stays_is_moved_out_of_the_way_of_what_comes_and_goes() {
    for durability in [Durability::None, Durability::Group] {
        let (mut fixture, [stays, mut goes]) = in_small_files(0, |o| o.durability = durability);
        let (mut sent, mut settled) = (0, BTreeMap::<String, Vec<u8>>::new());
        for round in 0..6 {
            let storage = &fixture.storage;
            for i in sent..sent + 15 {
                produce(storage, stays, &batch(&[(&value(i), START_MS)], Codec::None)).unwrap();
                for _ in 0..10 {
                    send(storage, goes, &["goes", &value(i)]);
                }
            }
            sent += 15;
            block_on(storage.delete_topic(goes.topic)).unwrap();
            let left = || in_files(&fixture.options.path).1;
            wait_until("live batches are not moved together", || {
                storage.reclaim().unwrap();
                left() < sent as u64 * 1200 + 3000
            });
            let files = contents(&fixture.options.path);
            for (name, (moved, bytes)) in &files {
                let has_other = bytes.windows(4).any(|w| w == b"goes");
                assert!(!(*moved && has_other), "round {round}: {name} has what was never moved");
            }
            // Where nothing was deleted, nothing is written anew.
            for (name, bytes) in std::mem::take(&mut settled) {
                let now = files.get(&name);
                assert!(now.is_some_and(|(_, now)| now.starts_with(&bytes)), "round {round}: {name} was moved again");
            }
            settled.extend(files.into_iter().filter(|(_, (moved, _))| *moved).map(|(name, (_, bytes))| (name, bytes)));
            assert!(!settled.is_empty(), "round {round}");
            check(storage, stays, 0, sent);
            let live = live_in_files(storage);
            if round % 2 == 1 {
                fixture = fixture.reopen(round % 4 == 1);
                assert_eq!(live_in_files(&fixture.storage), live, "round {round}");
                check(&fixture.storage, stays, 0, sent);
            }
            goes = create(&fixture.storage, "goes", &[]);
        }
    }
}

#[test]
fn dead_files_go_before_they_are_many_however_long_the_keys_take() {
    let (fixture, _) = in_small_files(1, |o| {
        o.segment_bytes = 3000;
        o.retention_interval = Duration::from_millis(1);
        // After the first look never again, as long as little is dead.
        o.look_part = u32::MAX;
    });
    let storage = &fixture.storage;
    let short = create(storage, "short", &[("retention.bytes", "3000")]);
    for _ in 0..5 {
        for i in 0..200 {
            send(storage, short, &[&value(i)]);
        }
        wait_until("dead files stay", || in_files(&fixture.options.path).1 < 7 * fixture.options.log_file_bytes);
    }
}

#[test]
fn what_a_start_left_uncounted_is_counted_beside_the_work() {
    let (fixture, places) = in_small_files(100, |o| {
        o.segment_bytes = 3000;
        o.start_keys_max = 10;
    });
    block_on(fixture.storage.delete_records(places[0], 20)).unwrap();
    let fixture = fixture.reopen(false);
    let storage = &fixture.storage;
    // What changes before all is counted.
    block_on(storage.delete_records(places[0], 50)).unwrap();
    block_on(storage.delete_topic(places[1].topic)).unwrap();
    let again = create(storage, "again", &[]);
    fill(storage, [places[0], again], 10);
    storage.reclaim().unwrap();
    wait_until("dead files stay", || in_files(&fixture.options.path).1 < 200_000);
    assert_eq!(read_all(storage, places[0], 50).len(), 60);
    check(storage, again, 0, 10);
    let counted = live_in_files(storage);
    assert!((70_000..90_000).contains(&counted), "{counted}");
    let mut fixture = fixture;
    fixture.options.start_keys_max = usize::MAX;
    let fixture = fixture.reopen(false);
    assert_eq!(live_in_files(&fixture.storage), counted, "as counted all at once");
}

#[test]
fn what_is_read_while_it_is_deleted_and_moved_is_right() {
    let (fixture, places) = in_small_files(60, |o| o.inline_bytes_max = 500);
    let storage = &fixture.storage;
    let reader = std::thread::spawn({
        let storage = storage.clone();
        move || (0..40).for_each(|_| check(&storage, places[0], 0, 60))
    });
    let mut topics = vec![places[1].topic];
    while !reader.is_finished() {
        block_on(storage.delete_topic(topics.remove(0))).unwrap();
        storage.reclaim().unwrap();
        let topic = block_on(storage.create_topic(spec("goes", 1, &[]))).unwrap();
        topics.push(topic.id);
        let place = TopicPartition { topic: topic.id, partition: 0 };
        for i in 0..30 {
            produce(storage, place, &batch(&[(&value(i), START_MS)], Codec::None)).unwrap();
        }
    }
    reader.join().unwrap();
    check(storage, places[0], 0, 60);
}

#[test]
fn compaction_counts_what_it_replaces() {
    let fixture = Fixture::with(|o| {
        small_files(o);
        o.segment_bytes = 2000;
        o.active_bytes_max = 0;
    });
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("cleanup.policy", "compact")]);
    // All have one key.
    for i in 0..200 {
        send(storage, place, &[&value(i)]);
    }
    storage.compact(place).unwrap();
    let left = storage.partition_bytes(place).unwrap();
    assert_eq!(live_in_files(storage), left);
    assert!(left < 10_000, "{left}");
    wait_until("dead files stay", || in_files(&fixture.options.path).1 < 50_000);
    assert_eq!(read_all(storage, place, 0).last().map(|row| row.0), Some(199));
    let fixture = fixture.reopen(false);
    assert_eq!(live_in_files(&fixture.storage), left);
}

#[test]
fn a_consumer_from_the_start_gets_as_much_as_it_asks_for() {
    let (fixture, places) = in_small_files(50, |_| {});
    let storage = &fixture.storage;
    for bytes_max in [1, 1500, 9000, 1 << 20] {
        let mut from = 0;
        while from < 50 {
            let limits = FetchLimits { bytes_max, at_least_one: true, committed: true };
            let got = storage.fetch(places[0], from, limits).unwrap();
            assert!(got.batches.len() == 1 || got.bytes <= bytes_max);
            let fit = (bytes_max / got.batches[0].len()).clamp(1, 50 - from as usize);
            assert_eq!(got.batches.len(), fit);
            from += fit as i64;
        }
    }
}

#[test]
fn what_has_other_names_is_left_alone_and_nothing_is_written_over() {
    let (fixture, places) = in_small_files(5, |_| {});
    fixture.storage.close().unwrap();
    let folder = fixture.options.path.join("log");
    let strangers = ["1.log", "+1.log", "0000001.log", "000001.LOG", "4294967295.log", "2147483649.log", "notes"];
    strangers.iter().for_each(|name| fs::write(folder.join(name), "").unwrap());
    fs::create_dir(folder.join("000003.log")).unwrap();
    let fixture = fixture.reopen(false);
    let storage = &fixture.storage;
    for _ in 0..3 {
        places.iter().for_each(|place| check(storage, *place, 0, 5));
        storage.reclaim().unwrap();
    }
    let more = create(storage, "more", &[]);
    fill(storage, [more, create(storage, "most", &[])], 50);
    let fixture = fixture.reopen(true);
    places.iter().for_each(|place| check(&fixture.storage, *place, 0, 5));
    check(&fixture.storage, more, 0, 50);
    assert!(strangers.iter().all(|name| fs::read(folder.join(name)).unwrap().is_empty()));
    assert!(folder.join("000003.log").is_dir());
}

#[test]
fn a_file_that_was_cut_short_is_not_gone_on_with() {
    let fixture = Fixture::with(|_| {});
    let places = ["t", "u"].map(|name| create(&fixture.storage, name, &[]));
    fill(&fixture.storage, places, 10);
    fixture.storage.close().unwrap();
    let path = fixture.options.path.join("log/000001.log");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let fixture = fixture.reopen(false);
    let again = create(&fixture.storage, "again", &[]);
    for i in 0..10 {
        send(&fixture.storage, again, &[&value(i)]);
    }
    let fixture = fixture.reopen(true);
    check(&fixture.storage, again, 0, 10);
    fixture.storage.close().unwrap();
    fs::write(&path, good).unwrap();
    let fixture = fixture.reopen(false);
    [places[0], places[1], again].iter().for_each(|place| check(&fixture.storage, *place, 0, 10));
}

#[test]
fn a_file_that_cannot_be_removed_does_not_keep_the_others() {
    let (fixture, places) = in_small_files(60, |o| o.inline_bytes_max = 500);
    let storage = &fixture.storage;
    let folder = fixture.options.path.join("log");
    let before = in_files(&fixture.options.path);
    // One is gone already, and instead of another there is something that cannot be removed as a file.
    for number in [1, 2] {
        fs::remove_file(folder.join(format!("{number:06}.log"))).unwrap();
    }
    fs::create_dir(folder.join("000002.log")).unwrap();
    block_on(storage.delete_records(places[0], 30)).unwrap();
    block_on(storage.delete_records(places[1], 30)).unwrap();
    wait_until("dead files stay", || in_files(&fixture.options.path).1 < before.1 * 6 / 10);
    block_on(storage.delete_topic(places[1].topic)).unwrap();
    wait_until("live batches are not moved together", || {
        storage.reclaim().unwrap();
        in_files(&fixture.options.path).1 < before.1 * 4 / 10
    });
    check(storage, places[0], 30, 60);
    storage.close().unwrap();
    assert!(folder.join("000002.log").is_dir());
}

#[test]
fn files_that_cannot_be_removed_are_not_waited_for_for_ever() {
    let (fixture, [stays, goes]) = in_small_files(120, |o| {
        o.segment_bytes = 3000;
        o.retention_interval = Duration::from_millis(1);
        // After the first look never again, as long as little is dead.
        o.look_part = u32::MAX;
        o.disk_free_bytes_min = 0;
    });
    let (storage, folder) = (&fixture.storage, fixture.options.path.join("log"));
    let path = |number: u32| folder.join(format!("{number:06}.log"));
    for number in 1..=5 {
        fs::remove_file(path(number)).unwrap();
        fs::create_dir(path(number)).unwrap();
    }
    let delete = |before| [stays, goes].map(|place| block_on(storage.delete_records(place, before)).unwrap());
    delete(60);
    wait_until("a dead file stays", || !path(6).exists());
    assert!((1..=5).all(|number| path(number).is_dir()));
    // Two more are little, beside five that stay whatever is looked at.
    delete(78);
    let short = create(storage, "short", &[("retention.bytes", "3000")]);
    for _ in 0..2 {
        send(storage, short, &[&value(0).repeat(5)]);
        send(storage, short, &[&value(0).repeat(5)]);
        // What is dead is looked at behind it.
        wait_until("nothing is retained", || storage.partition_bytes(short).unwrap() < 6000);
    }
    assert!(path(7).exists() && path(8).exists(), "all keys are looked at for what cannot be removed");
    block_on(storage.delete_topic(goes.topic)).unwrap();
    wait_until("live batches are not moved together", || {
        storage.reclaim().unwrap();
        in_files(&fixture.options.path).1 * 2 < live_in_files(storage) * 3
    });
    check(storage, stays, 78, 120);
}

/// Changes what the database of a directory says that nobody has open.
fn change(path: &Path, what: impl FnOnce(&DB)) {
    let database = path.join("db");
    let names = DB::list_cf(&Options::default(), &database).unwrap();
    what(&DB::open_cf(&Options::default(), &database, &names).unwrap());
}

/// As versions left it that did not say with each write which the last log file was.
fn make_old(path: &Path) {
    change(path, |db| db.put([2, 7], [0; 16]).unwrap());
    fs::write(path.join("millpond"), "millpond data directory\nformat 2\nready\n").unwrap();
}

#[test]
fn without_its_log_files_nothing_is_begun() {
    for (clean, is_old) in [(true, false), (false, false), (false, true)] {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(&directory.path().join("data"));
        small_files(&mut options);
        options.durability = Durability::Group;
        let storage = open(options.clone()).unwrap();
        let places = ["a", "b"].map(|name| create(&storage, name, &[]));
        fill(&storage, places, 30);
        if clean {
            storage.close().unwrap();
        }
        drop(storage);
        if is_old {
            make_old(&options.path);
        }
        let (log, away) = (options.path.join("log"), options.path.join("away"));
        let refused = |what: &str| match open(options.clone()).err() {
            Some(OpenError::Damaged { detail, .. }) => {
                let named = ["000001.log", "topic \"a\" partition 0", "--accept-data-loss"];
                assert!(named.iter().all(|name| detail.contains(name)), "{what}: {detail}");
            }
            other => panic!("{what}: {other:?}"),
        };
        fs::rename(&log, &away).unwrap();
        refused("the folder is missing");
        assert!(!log.exists(), "nor is another made");
        fs::create_dir(&log).unwrap();
        refused("the folder is empty");
        fs::remove_dir(&log).unwrap();
        fs::rename(&away, &log).unwrap();
        // Nothing is written, and nothing closed.
        drop(open(options.clone()).unwrap());
        fs::rename(&log, &away).unwrap();
        refused("the folder is missing again");
        fs::rename(&away, &log).unwrap();
        let storage = open(options.clone()).unwrap();
        places.iter().for_each(|place| check(&storage, *place, 0, 30));
        storage.close().unwrap();
    }
}

#[test]
fn where_there_never_was_a_log_file_batches_are_not_looked_through_for_one() {
    for clean in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(&directory.path().join("data"));
        options.durability = Durability::Group;
        options.inline_bytes_max = 1 << 30;
        let storage = open(options.clone()).unwrap();
        let place = create(&storage, "t", &[]);
        send(&storage, place, &["a"]);
        if clean {
            storage.close().unwrap();
        }
        drop(storage);
        // A place in file 9, which whoever looks comes upon.
        let key = [&[0x10][..], &999u64.to_be_bytes(), &0u64.to_be_bytes()].concat();
        let value = [&[2, 0][..], &1u64.to_be_bytes(), &9u32.to_be_bytes(), &[0; 24]].concat();
        change(&options.path, |db| db.put_cf(db.cf_handle("log").unwrap(), key, value).unwrap());
        let storage = open(options.clone()).unwrap();
        assert_eq!(read_all(&storage, place, 0).len(), 1);
        drop(storage);
        make_old(&options.path);
        // What a clean end has noted is all there is, whatever the version.
        for _ in 0..if clean { 0 } else { 2 } {
            let refused = open(options.clone()).err();
            assert!(matches!(&refused, Some(e) if e.to_string().contains("000009.log")), "{refused:?}");
        }
    }
}

//! Bytes that changed in tables that a start needs: they are named, and left out if somebody says so.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millpond_broker::batch::Codec;
use millpond_broker::storage::{OpenError, SecurityKind, Storage, StorageError, StorageOptions};
use millpond_types::TopicPartition;
use millpond_types::ports::{ScanLimits, StateReader, Step, TopicLog, Writes};
use rocksdb::{DB, Options};

use crate::damage::copy;
use crate::fixture::{Fixture, START_MS, batch, block_on, create, open, produce, read_all, send, step, with_producer};
use crate::transactions::{add, end, transactional};

/// As `keys::cf` names them.
const FAMILIES: [&str; 7] = ["default", "log", "index", "producer", "group", "catalog", "state"];
/// Entries of each family.
const ALL: usize = 2000;
const OWN: &[u8] = b"\x70own ";

/// So that blocks are full, also compressed ones.
fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..100).map(|_| next()).collect()
}

fn entries() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    (0..ALL).map(|i| ([OWN, format!("{i:05}").as_bytes()].concat(), Some(noise(i)))).collect()
}

/// Something in every family, in tables.
fn filled() -> (Fixture, [TopicPartition; 2]) {
    let fixture = Fixture::with(|o| {
        o.segment_bytes = 1;
        o.active_bytes_max = 0;
    });
    let storage = &fixture.storage;
    let places = ["t", "in-transactions"].map(|name| create(storage, name, &[]));
    for id in 0..ALL as i64 {
        let plain = batch(&[(&id.to_string(), START_MS)], Codec::None);
        produce(storage, places[0], &with_producer(&plain, id, 0, 0)).unwrap();
    }
    for (sequence, commit) in [(0, true), (1, false)] {
        add(storage, &[places[1]], 5, 0);
        produce(storage, places[1], &transactional(&[&format!("committed: {commit}")], 5, 0, sequence)).unwrap();
        end(storage, &[places[1]], 5, 0, commit);
    }
    block_on(storage.group_write(entries())).unwrap();
    block_on(storage.security_write(SecurityKind::Acl, entries())).unwrap();
    let mut state = Writes::default();
    entries().iter().for_each(|(key, value)| state.push(key, value.as_deref()));
    step(storage, Step { catalog: entries(), state, ..Step::default() });
    storage.close().unwrap();
    (fixture, places)
}

/// The greatest table of a family.
fn table_of(path: &Path, family: &str) -> PathBuf {
    let database = path.join("db");
    let db = DB::open_cf_for_read_only(&Options::default(), &database, FAMILIES, false).unwrap();
    let files = db.live_files().unwrap();
    let file = files.iter().filter(|f| f.column_family_name == family).max_by_key(|f| f.size).unwrap();
    database.join(file.name.trim_start_matches('/'))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Where {
    Block,
    Footer,
}

fn flip(table: &Path, place: Where) {
    let mut bytes = fs::read(table).unwrap();
    let at = match place {
        Where::Block => bytes.len() / 3,
        Where::Footer => bytes.len() - 4,
    };
    bytes[at] ^= 1;
    // Whoever has the file by another name keeps it as it was.
    fs::remove_file(table).unwrap();
    fs::write(table, bytes).unwrap();
}

/// What is there of each family: how much of the log can be read, producers, entries of groups, the catalog and state.
fn there(storage: &Storage, places: [TopicPartition; 2]) -> Result<[usize; 6], StorageError> {
    let groups = storage.group_scan(OWN)?;
    let as_written = |(key, value): &(Vec<u8>, Bytes)| {
        let number = std::str::from_utf8(key.strip_prefix(OWN).unwrap()).unwrap();
        **value == noise(number.parse().unwrap())
    };
    assert!(groups.iter().all(as_written));
    let catalog = storage.catalog(OWN).map_err(|e| StorageError::Corrupt(e.message().to_owned()))?;
    let limits = ScanLimits { entries_max: usize::MAX, bytes_max: usize::MAX };
    let state = StateReader::scan(storage, OWN, b"\x71", false, limits).unwrap();
    Ok([
        places.map(|place| read_all(storage, place, 0).len()).iter().sum(),
        storage.active_producers(places[0])?.len(),
        groups.len(),
        storage.security_scan(SecurityKind::Acl)?.len(),
        catalog.len(),
        state.entries.len(),
    ])
}

fn aside(path: &Path) -> Option<PathBuf> {
    let mut all = fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    all.find(|p| p.file_name().unwrap().to_string_lossy().starts_with("lost-"))
}

/// What is said by whoever cannot open it, or cannot read what is needed then.
fn refusal(options: StorageOptions, places: [TopicPartition; 2]) -> String {
    match open(options) {
        Err(e @ OpenError::Damaged { .. }) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(storage) => match there(&storage, places) {
            Err(StorageError::Corrupt(detail)) => detail,
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn what_cannot_be_read_is_named_and_left_out_if_somebody_says_so() {
    let (fixture, places) = filled();
    let whole = [ALL + 1, ALL, ALL, ALL, ALL, ALL];
    for (family, what, damaged) in [
        ("group", "committed offsets", 2),
        ("producer", "known of producers", 1),
        ("index", "segments and transactions", 0),
        ("catalog", "SQL's catalog", 4),
    ] {
        for place in [Where::Block, Where::Footer] {
            let path = fixture.options.path.with_extension("copy");
            let _gone = fs::remove_dir_all(&path);
            copy(&fixture.options.path, &path);
            let mut options = StorageOptions { path: path.clone(), ..fixture.options.clone() };
            let table = table_of(&path, family);
            flip(&table, place);
            let said = refusal(options.clone(), places);
            let name = table.file_name().unwrap().to_string_lossy();
            for part in [path.to_str().unwrap(), what, &name, "--accept-data-loss: "] {
                assert!(said.contains(part), "{family} {place:?}: {said}");
            }
            assert!(aside(&path).is_none());

            options.accept_data_loss = true;
            let storage = open(options.clone()).unwrap();
            let left = there(&storage, places).unwrap();
            let expected = |left: usize| match (family, place) {
                ("group" | "producer", Where::Block) => left > ALL / 2 && left < ALL,
                ("index", Where::Block) => left == ALL + 1,
                // What transactions aborted is read as well.
                ("index", Where::Footer) => left == ALL + 2,
                _ => left == 0,
            };
            assert!(expected(left[damaged]), "{family} {place:?}: {left:?}");
            for (i, (left, all)) in left.iter().zip(whole).enumerate() {
                let goes_along = family == "catalog" && i == 5;
                assert_eq!(
                    *left,
                    if goes_along {
                        0
                    } else if i == damaged {
                        *left
                    } else {
                        all
                    },
                    "{family} {i}"
                );
            }
            let kept = aside(&path).unwrap().join("db").join(&*name);
            assert!(kept.is_file() && !table.exists(), "what was damaged lies beside");
            // It is a database like others: it is written, compacted and opened.
            options.accept_data_loss = false;
            let mut storage = storage;
            for round in 0..6 {
                block_on(storage.group_write(vec![(b"\x71x".to_vec(), Some(vec![round]))])).unwrap();
                produce(
                    &storage,
                    places[0],
                    &with_producer(&batch(&[("x", START_MS)], Codec::None), 0, 0, 1 + i32::from(round)),
                )
                .unwrap();
                let catalog = vec![(b"\x71x".to_vec(), Some(vec![round]))];
                step(&storage, Step { catalog, ..Step::default() });
                storage.close().unwrap();
                drop(storage);
                storage = open(options.clone()).unwrap();
            }
            let mut now = there(&storage, places).unwrap();
            now[0] -= 6;
            // The one that sent is known again.
            now[1] -= usize::from(left[1] == 0);
            assert_eq!(now, left, "{family} {place:?}");
            let end = send(&storage, places[0], &["goes on"]).base_offset;
            assert_eq!(read_all(&storage, places[0], end).len(), 1);
            storage.close().unwrap();
            drop(storage);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

#[test]
fn nothing_is_left_out_of_topics_and_rights() {
    let (fixture, places) = filled();
    for place in [Where::Block, Where::Footer] {
        for accept_data_loss in [false, true] {
            let path = fixture.options.path.with_extension("copy");
            let _gone = fs::remove_dir_all(&path);
            copy(&fixture.options.path, &path);
            let options = StorageOptions { path: path.clone(), accept_data_loss, ..fixture.options.clone() };
            let table = table_of(&path, "default");
            flip(&table, place);
            let said = match accept_data_loss {
                false => refusal(options, places),
                true => open(options).err().unwrap().to_string(),
            };
            let name = table.file_name().unwrap().to_string_lossy();
            for part in [path.to_str().unwrap(), "topics, settings, users and rights", &name, "bring back a copy"] {
                assert!(said.contains(part), "{said}");
            }
            assert!(aside(&path).is_none() && table.is_file(), "nothing was touched");
            fs::remove_dir_all(&path).unwrap();
        }
    }
    let fixture = fixture.reopen(false);
    assert_eq!(there(&fixture.storage, places).unwrap()[3], ALL);
}

#[test]
fn a_crash_between_two_databases_leaves_the_new_one() {
    let (fixture, places) = filled();
    let path = &fixture.options.path;
    fs::rename(path.join("db"), path.join("mended")).unwrap();
    let fixture = fixture.reopen(false);
    assert_eq!(there(&fixture.storage, places).unwrap()[2], ALL);
    assert!(!fixture.options.path.join("mended").exists());
}

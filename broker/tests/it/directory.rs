//! Whose directory it is, and what else may be wrong with it.

use std::fs;

use millpond_broker::storage::{OpenError, Storage, StorageOptions};

use crate::fixture::{Fixture, create, options, read_all, send};

#[test]
fn each_wrong_directory_has_its_own_error() {
    let open = |path: &std::path::Path| Storage::open(options(path)).err();

    let held = tempfile::tempdir().unwrap();
    let storage = Storage::open(options(held.path())).unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Locked(_))));
    storage.close().unwrap();
    assert!(open(held.path()).is_none());

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(open(foreign.path()), Some(OpenError::Foreign(_))));
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "a foreign directory was written to");

    let marker = held.path().join("millpond");
    let ours = fs::read(&marker).unwrap();
    fs::write(&marker, "millpond data directory\nformat 99\nready\n").unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Newer { found: 99, .. })));
    fs::write(&marker, "something else").unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Damaged { .. })));
    fs::write(&marker, ours).unwrap();
    assert!(open(held.path()).is_none());

    let database = held.path().join("db");
    let manifest = fs::read_dir(&database)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"))
        .unwrap();
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, &good[..good.len() / 2]).unwrap();
    match open(held.path()) {
        Some(OpenError::Damaged { .. }) => {}
        other => panic!("a torn manifest gives {other:?}"),
    }
    fs::remove_dir_all(&database).unwrap();
    assert!(matches!(open(held.path()), Some(OpenError::Damaged { .. })), "the database is missing");

    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(open(file.path()), Some(OpenError::Io { .. })));
}

#[test]
fn identity_stays_and_the_epoch_grows() {
    let fixture = Fixture::with(|o| o.node_id = 7);
    let (cluster, epoch) = (fixture.storage.cluster_id().to_owned(), fixture.storage.leader_epoch());
    let fixture = fixture.reopen(true).reopen(false);
    assert_eq!((fixture.storage.cluster_id(), fixture.storage.node_id()), (&cluster[..], 7));
    assert_eq!(fixture.storage.leader_epoch(), epoch + 2);
}

#[test]
fn a_closed_storage_says_so_and_frees_its_directory() {
    let fixture = Fixture::new();
    let place = create(&fixture.storage, "t", &[]);
    send(&fixture.storage, place, &["a"]);
    let kept = fixture.storage.clone();
    fixture.storage.close().unwrap();
    fixture.storage.close().unwrap();
    let again = Storage::open(StorageOptions { ..fixture.options.clone() }).unwrap();
    assert_eq!(read_all(&again, place, 0).len(), 1);
    let closed = crate::fixture::block_on(kept.delete_topic(place.topic));
    assert_eq!(closed, Err(millpond_broker::storage::StorageError::Closed));
}

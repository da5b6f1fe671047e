//! Reads of the engine's state, from the newest commit or from a snapshot.

use std::sync::Arc;

use bytes::Bytes;
use millpond_types::ports::{StateReader, StateStore};
use millpond_types::{Error, Result};
use rocksdb::{DB, ReadOptions};
use self_cell::self_cell;

use super::Storage;
use super::error::StorageError;
use super::shared::family;
use crate::keys::cf;

type DbSnapshot<'a> = rocksdb::Snapshot<'a>;

self_cell!(
    /// A snapshot with the database that it is of.
    struct OwnedSnapshot {
        owner: Arc<DB>,
        #[covariant]
        dependent: DbSnapshot,
    }
);

/// A view of all state as of one commit. It keeps the database open until it is dropped.
struct Snapshot(OwnedSnapshot);

/// What is left of a closed storage.
struct Closed;

fn failed(e: rocksdb::Error) -> Error {
    StorageError::from(e).into()
}

/// State of `db`, as `options` say.
fn get(db: &DB, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>> {
    Ok(db.get_cf_opt(family(db, cf::STATE)?, key, options).map_err(failed)?.map(Bytes::from))
}

fn multi_get(db: &DB, keys: &[&[u8]], options: &ReadOptions) -> Result<Vec<Option<Bytes>>> {
    let family = family(db, cf::STATE)?;
    let sorted = keys.is_sorted();
    db.batched_multi_get_cf_opt(family, keys, sorted, options)
        .into_iter()
        .map(|value| Ok(value.map_err(failed)?.map(|value| Bytes::copy_from_slice(&value))))
        .collect()
}

fn range(
    db: &DB,
    from: &[u8],
    to: &[u8],
    reverse: bool,
    entries_max: usize,
    mut options: ReadOptions,
) -> Result<Vec<(Bytes, Bytes)>> {
    let mut entries = Vec::new();
    if from >= to || entries_max == 0 {
        return Ok(entries);
    }
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    let mut at = db.raw_iterator_cf_opt(family(db, cf::STATE)?, options);
    if reverse {
        at.seek_to_last()
    } else {
        at.seek_to_first()
    }
    while entries.len() < entries_max
        && let Some((key, value)) = at.item()
    {
        entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if reverse { at.prev() } else { at.next() }
    }
    at.status().map_err(failed)?;
    Ok(entries)
}

impl StateReader for Storage {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&*self.shared.db()?, key, &ReadOptions::default())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        multi_get(&*self.shared.db()?, keys, &ReadOptions::default())
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, entries_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        range(&*self.shared.db()?, from, to, reverse, entries_max, ReadOptions::default())
    }
}

impl StateStore for Storage {
    fn snapshot(&self) -> Box<dyn StateReader> {
        match self.shared.db() {
            Ok(db) => Box::new(Snapshot(OwnedSnapshot::new(db, |db| db.snapshot()))),
            Err(_) => Box::new(Closed),
        }
    }
}

impl Snapshot {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.0.borrow_dependent());
        options
    }
}

impl StateReader for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(self.0.borrow_owner(), key, &self.options())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        multi_get(self.0.borrow_owner(), keys, &self.options())
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, entries_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        range(self.0.borrow_owner(), from, to, reverse, entries_max, self.options())
    }
}

impl StateReader for Closed {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>> {
        Err(StorageError::Closed.into())
    }

    fn multi_get(&self, _: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        Err(StorageError::Closed.into())
    }

    fn range(&self, _: &[u8], _: &[u8], _: bool, _: usize) -> Result<Vec<(Bytes, Bytes)>> {
        Err(StorageError::Closed.into())
    }
}

//! Reads of the engine's state, from the newest commit or from a snapshot.

use std::sync::Arc;

use bytes::Bytes;
use millpond_types::ports::{Scan, ScanLimits, StateReader, StateStore};
use millpond_types::{Error, Result};
use rocksdb::{DB, ReadOptions};
use self_cell::self_cell;

use super::Storage;
use super::error::StorageError;
use super::shared::family;
use crate::keys::cf;

pub type DbSnapshot<'a> = rocksdb::Snapshot<'a>;

self_cell!(
    /// A snapshot with the database that it is of.
    pub struct OwnedSnapshot {
        owner: Arc<DB>,
        #[covariant]
        dependent: DbSnapshot,
    }
);

/// A view of all state as of one commit. It keeps the database open until it is dropped.
struct Snapshot(OwnedSnapshot);

/// Why there is nothing to be read.
struct Refused(StorageError);

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

fn scan(db: &DB, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits, mut options: ReadOptions) -> Result<Scan> {
    let mut entries = Vec::new();
    if from >= to {
        return Ok(Scan::default());
    }
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    let mut at = db.raw_iterator_cf_opt(family(db, cf::STATE)?, options);
    if reverse {
        at.seek_to_last()
    } else {
        at.seek_to_first()
    }
    let (mut bytes, mut more) = (0, false);
    while let Some((key, value)) = at.item() {
        if limits.reached(entries.len(), bytes) {
            more = true;
            break;
        }
        bytes += key.len() + value.len();
        entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if reverse { at.prev() } else { at.next() }
    }
    at.status().map_err(failed)?;
    Ok(Scan { entries, more })
}

impl StateReader for Storage {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&*self.shared.state_db()?, key, &ReadOptions::default())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        multi_get(&*self.shared.state_db()?, keys, &ReadOptions::default())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan> {
        scan(&*self.shared.state_db()?, from, to, reverse, limits, ReadOptions::default())
    }
}

impl StateStore for Storage {
    fn snapshot(&self) -> Box<dyn StateReader> {
        match self.shared.state_db() {
            Ok(db) => Box::new(Snapshot(OwnedSnapshot::new(db, |db| db.snapshot()))),
            Err(e) => Box::new(Refused(e)),
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

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limits: ScanLimits) -> Result<Scan> {
        scan(self.0.borrow_owner(), from, to, reverse, limits, self.options())
    }
}

impl StateReader for Refused {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>> {
        Err(self.0.clone().into())
    }

    fn multi_get(&self, _: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        Err(self.0.clone().into())
    }

    fn scan(&self, _: &[u8], _: &[u8], _: bool, _: ScanLimits) -> Result<Scan> {
        Err(self.0.clone().into())
    }
}

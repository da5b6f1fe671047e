//! What is surely on disk, where writes are acknowledged before they are forced there.
//!
//! After a failed fsync the system may have dropped what was not on disk yet, and calls the next fsync good. So nothing
//! written since the last good one counts as kept: it is in doubt, and not shown to anybody, until the database could be
//! opened again (`recovery`), which reads back all that is there and writes it to new files.
//!
//! A write that is forced before it is acknowledged and fails (`writer`) nobody has seen. Logs do not show it, as they end
//! before it; state, which has no end, is not read from a handle that may hold it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millpond_types::Sequence;
use parking_lot::Mutex;

use super::Result;
use super::error::StorageError;

pub struct Forced {
    /// Everything up to this one is on disk, by the last force that was good.
    sequence: AtomicU64,
    /// What came after it is in doubt.
    doubt: AtomicBool,
    /// The database holds a write that nobody was told of, and that may not be on disk.
    more: AtomicBool,
    /// Why, until the writer has taken notice.
    why: Mutex<Option<StorageError>>,
    failures: AtomicU64,
}

impl Forced {
    pub fn new(sequence: Sequence) -> Self {
        Self {
            sequence: AtomicU64::new(sequence),
            doubt: AtomicBool::new(false),
            more: AtomicBool::new(false),
            why: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// Everything up to `sequence` is on disk.
    pub fn good(&self, sequence: Sequence) {
        self.sequence.fetch_max(sequence, Ordering::AcqRel);
        self.doubt.store(false, Ordering::Release);
    }

    /// Said before a handle is given to others, and when what was in doubt is shown.
    pub fn shows_more(&self, more: bool) {
        self.more.store(more, Ordering::Release);
    }

    pub fn may_show_more(&self) -> bool {
        self.more.load(Ordering::Acquire)
    }

    /// Whether everything up to `sequence` is on disk, and nothing is in doubt.
    pub fn is_good(&self, sequence: Sequence) -> bool {
        self.limit().is_none() && self.sequence.load(Ordering::Acquire) >= sequence
    }

    /// Forcing failed. The caller sees to it that nothing more is written.
    pub fn failed(&self, what: &str, e: &dyn std::fmt::Display) {
        let why = format!(
            "{what} could not be forced to disk, so that what was acknowledged since the last time is in doubt: {e}"
        );
        tracing::error!(
            "{why}; nothing is written, and nothing of that is read, until the database could be opened again"
        );
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.doubt.store(true, Ordering::Release);
        *self.why.lock() = Some(StorageError::Unavailable(why));
    }

    /// Something else failed so that nothing can be written, and nothing is in doubt.
    pub fn stopped(&self, e: &StorageError) {
        tracing::error!("{e}; nothing is written until the database could be opened again");
        *self.why.lock() = Some(e.clone());
    }

    pub fn take_failure(&self) -> Option<StorageError> {
        self.why.lock().take()
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last sequence that may be shown, if there is something in doubt.
    pub fn limit(&self) -> Option<Sequence> {
        self.doubt.load(Ordering::Acquire).then(|| self.sequence.load(Ordering::Acquire))
    }

    /// An error where `sequence` is in doubt.
    pub fn check(&self, sequence: Sequence) -> Result<()> {
        match self.limit() {
            Some(limit) if sequence > limit => Err(in_doubt()),
            _ => Ok(()),
        }
    }
}

pub fn in_doubt() -> StorageError {
    StorageError::Unavailable(
        "what was written since the last good fsync is in doubt: it can be read when the database could be opened again"
            .into(),
    )
}

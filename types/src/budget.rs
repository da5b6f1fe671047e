//! The memory of the process as named pools with limits: one accountant for all that grows with use.
//!
//! A pool has a limit, may lie within another, and counts what is reserved in it. Reserving is an atomic addition in the
//! pool and in those around it; nothing is reserved for single rows. Not here: who gets how much (`src/budget.rs` of the
//! root), and what happens where nothing is left: each user says that of its pool.
//!
//! Invariants: what is counted is given back when the [`Reservation`] goes, by whatever way; a pool counts at least what
//! the pools within it count together; only [`Reservation::set`] may pass a limit.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

struct Inner {
    name: String,
    limit: usize,
    used: AtomicUsize,
    /// Most that was used at a time.
    peak: AtomicUsize,
    refused: AtomicU64,
    /// Open reservations.
    holders: AtomicUsize,
    parent: Option<Pool>,
    children: Mutex<Vec<Pool>>,
}

/// A named part of the memory budget. Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// One pool at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// With the names of the pools around it, such as `shared.read_caches`.
    pub name: String,
    pub limit: usize,
    pub used: usize,
    pub peak: usize,
    /// How often it, or one around it, was too full.
    pub refused: u64,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, {} of {})", self.0.name, self.used(), self.0.limit)
    }
}

impl Pool {
    /// A pool around which there is no other.
    pub fn root(name: impl Into<String>, limit: usize) -> Self {
        Self::make(name.into(), limit, None)
    }

    /// For tests and tools: counts, and refuses nothing.
    pub fn unlimited(name: impl Into<String>) -> Self {
        Self::root(name, usize::MAX)
    }

    fn make(name: String, limit: usize, parent: Option<Pool>) -> Self {
        Self(Arc::new(Inner {
            name,
            limit,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            holders: AtomicUsize::new(0),
            parent,
            children: Mutex::new(Vec::new()),
        }))
    }

    /// A pool within this one, shown in its list for as long as this one lives.
    pub fn child(&self, name: impl Into<String>, limit: usize) -> Self {
        let child = self.passing(name, limit);
        self.0.children.lock().unwrap_or_else(PoisonError::into_inner).push(child.clone());
        child
    }

    /// A pool within this one that comes and goes, as for one query: nobody lists it.
    pub fn passing(&self, name: impl Into<String>, limit: usize) -> Self {
        Self::make(name.into(), limit.min(self.0.limit), Some(self.clone()))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn limit(&self) -> usize {
        self.0.limit
    }

    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// What could be reserved now.
    pub fn left(&self) -> usize {
        let own = self.0.limit.saturating_sub(self.used());
        self.0.parent.as_ref().map_or(own, |parent| own.min(parent.left()))
    }

    /// What each of those who hold something may have, if all had the same.
    pub fn share(&self) -> usize {
        self.0.limit / self.0.holders.load(Ordering::Relaxed).max(1)
    }

    /// Takes bytes if there are so many left. A pool around this one may be the one that is full.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let mut reservation = self.reservation();
        reservation.try_grow(bytes).then_some(reservation)
    }

    /// As much as there is up to `most`, halved until it fits; less than `least` is never asked for, but taken in any case.
    pub fn reserve_between(&self, least: usize, most: usize) -> Reservation {
        let mut reservation = self.reservation();
        let mut bytes = most;
        while bytes > least {
            if reservation.try_grow(bytes) {
                return reservation;
            }
            bytes /= 2;
        }
        reservation.set(least);
        reservation
    }

    /// Nothing yet.
    pub fn reservation(&self) -> Reservation {
        self.0.holders.fetch_add(1, Ordering::Relaxed);
        Reservation { pool: self.clone(), bytes: 0 }
    }

    fn try_add(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.0.limit);
        let Ok(before) = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if let Some(parent) = &self.0.parent
            && !parent.try_add(bytes)
        {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.0.peak.fetch_max(before + bytes, Ordering::Relaxed);
        true
    }

    fn add(&self, bytes: usize) {
        let before = self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.0.peak.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.add(bytes);
        }
    }

    fn take_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.take_back(bytes);
        }
    }

    /// Bytes that are counted without a [`Reservation`] of their own: who takes them gives them back with [`Pool::give`].
    pub fn try_take(&self, bytes: usize) -> bool {
        self.try_add(bytes)
    }

    /// The same, whatever the limits say.
    pub fn take(&self, bytes: usize) {
        self.add(bytes);
    }

    pub fn give(&self, bytes: usize) {
        self.take_back(bytes);
    }

    /// Whether hardly anything is left, so that who has much should let go of some.
    pub fn crowded(&self) -> bool {
        self.left() < self.0.limit / 16
    }

    /// This pool and all within it that are listed.
    pub fn uses(&self) -> Vec<PoolUse> {
        let mut found = Vec::new();
        self.list("", &mut found);
        found
    }

    fn list(&self, around: &str, found: &mut Vec<PoolUse>) {
        let name = if around.is_empty() { self.0.name.clone() } else { format!("{around}.{}", self.0.name) };
        found.push(PoolUse {
            name: name.clone(),
            limit: self.0.limit,
            used: self.used(),
            peak: self.0.peak.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        });
        for child in self.0.children.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            child.list(&name, found);
        }
    }
}

/// Bytes that are reserved until this goes.
#[derive(Debug)]
pub struct Reservation {
    pool: Pool,
    bytes: usize,
}

impl Reservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// More of it, if there is so much left.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let grown = self.pool.try_add(bytes);
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// So many bytes, if growing to them does not pass a limit; less is always granted.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            return self.try_grow(bytes - self.bytes);
        }
        self.set(bytes);
        true
    }

    /// So many bytes, whatever the limits say: for what is there already and cannot be undone.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.pool.add(bytes - self.bytes);
        } else {
            self.pool.take_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.take_back(self.bytes);
        self.pool.0.holders.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_within_pools() {
        let root = Pool::root("process", 100);
        let (a, b) = (root.child("a", 80), root.child("b", 80));
        let mut first = a.try_reserve(60).unwrap();
        assert!(a.try_reserve(30).is_none(), "past its own limit");
        assert!(b.try_reserve(50).is_none(), "past that of the pool around it");
        assert_eq!((root.used(), a.used(), b.used(), b.left()), (60, 60, 0, 40));
        let second = b.reserve_between(10, 80);
        assert_eq!(second.bytes(), 40);
        assert!(!first.try_grow(1) && first.try_set(20));
        first.set(90);
        assert_eq!((root.used(), a.used(), root.left(), a.left()), (130, 90, 0, 0));
        assert_eq!(b.reserve_between(5, 64).bytes(), 5);
        drop(first);
        drop(second);
        assert_eq!((root.used(), a.used(), b.used()), (0, 0, 0));
        let names: Vec<String> = root.uses().into_iter().map(|u| u.name).collect();
        assert_eq!(names, ["process", "process.a", "process.b"]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let root = Pool::root("process", 1_000);
        let pool = root.child("a", 900);
        std::thread::scope(|scope| {
            for i in 1..=4 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let mut held = pool.reserve_between(1, 300 + n % 7 * i);
                        held.set(n % 50);
                        let _more = held.try_grow(n % 100);
                    }
                });
            }
        });
        assert_eq!((root.used(), pool.used()), (0, 0));
    }
}

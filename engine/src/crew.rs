//! Several threads for one step: the workers that have nothing else to do.
//!
//! A step that is large enough is cut into items, and threads that work for it take one after the other; the one that
//! moves the query is among them. There are no more of them than workers are idle, and they go when those have work: a
//! heavy query uses what others leave, and no more.
//!
//! Not here: what the items are, and in which order results are put together (`step`). Invariants: results come in the
//! order of the items, whoever worked on them; nobody works on an item when [`spread`] has returned.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// How many threads may work for queries at a time, and how many do.
#[derive(Debug)]
pub struct Crew {
    workers: usize,
    busy: AtomicUsize,
}

impl Crew {
    pub fn new(workers: usize) -> Self {
        Self { workers, busy: AtomicUsize::new(0) }
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A worker moves a query until this is dropped.
    pub fn work(&self) -> Share<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Share { crew: self, threads: 1 }
    }

    /// Up to `most` threads of those that are idle, until this is dropped.
    pub fn helpers(&self, most: usize) -> Share<'_> {
        let mut threads = 0;
        // Whether it changed is in `threads`.
        let _ = self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |busy| {
            threads = most.min(self.workers.saturating_sub(busy));
            (threads > 0).then_some(busy + threads)
        });
        Share { crew: self, threads }
    }

    /// Whether workers have come back to work since helpers were lent.
    fn crowded(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > self.workers
    }
}

/// Threads that count as busy.
#[derive(Debug)]
pub struct Share<'a> {
    crew: &'a Crew,
    threads: usize,
}

impl Share<'_> {
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Does the job for each item, on this thread with `own` and on the helpers with what `make` gives each of them.
    pub fn spread<W, I: Send, T: Send>(
        &self,
        items: Vec<I>,
        own: &mut W,
        make: impl Fn(usize) -> W + Sync,
        job: impl Fn(&mut W, I) -> T + Sync,
    ) -> Vec<Option<T>> {
        let items: Vec<Mutex<(Option<I>, Option<T>)>> =
            items.into_iter().map(|i| Mutex::new((Some(i), None))).collect();
        let next = AtomicUsize::new(0);
        // False where there are no more.
        let one = |space: &mut W| {
            let Some(place) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return false };
            let mut place = place.lock();
            if let Some(item) = place.0.take() {
                place.1 = Some(job(space, item));
            }
            true
        };
        let helpers = self.threads.min(items.len().saturating_sub(1));
        std::thread::scope(|scope| {
            let (one, make) = (&one, &make);
            for n in 0..helpers {
                let help = move || {
                    let mut space = make(n);
                    while !self.crew.crowded() && one(&mut space) {}
                };
                // What no helper does this thread does.
                if std::thread::Builder::new().name(format!("query-task-{n}")).spawn_scoped(scope, help).is_err() {
                    break;
                }
            }
            while one(own) {}
        });
        items.into_iter().map(|place| place.into_inner().1).collect()
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.crew.busy.fetch_sub(self.threads, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_items_and_helpers_are_lent_once() {
        let crew = Crew::new(4);
        let _worker = crew.work();
        let helpers = crew.helpers(9);
        assert_eq!((helpers.threads(), crew.helpers(9).threads()), (3, 0));
        let done = helpers.spread(
            (0..100).collect(),
            &mut 0,
            |_| 0,
            |sum, i: i32| {
                *sum += i;
                i * i
            },
        );
        assert!(done.iter().enumerate().all(|(i, square)| *square == Some((i * i) as i32)));
        drop(helpers);
        let returned: Vec<Share<'_>> = (0..4).map(|_| crew.work()).collect();
        assert_eq!(crew.helpers(1).threads(), 0);
        drop(returned);
        assert_eq!(crew.helpers(1).threads(), 1);
    }
}

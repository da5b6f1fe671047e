//! What waits to be written, and who writes it.
//!
//! There is a thread for it. Where no write is forced to disk (`direct`), a few produced batches take less time than it
//! takes to wake that thread and be woken by it, so they are written by whoever waits for them first, on their own thread.
//! Only one writes at a time; what came meanwhile the thread takes.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Result;
use super::error::StorageError;
use super::gather::Gathered;
use super::writer::{ChangeJob, Job, ProduceJob, StepJob, Work};

/// More bytes of batches are the thread's, so that nobody else is kept for long by a write.
const DIRECT_BYTES_MAX: usize = 128 << 10;

/// What waits for the writer: produced batches, bounded by the permits they hold, and steps and changes in the order
/// they came, steps bounded by their bytes.
pub struct Queue {
    state: Mutex<QueueState>,
    came: Condvar,
    room: Condvar,
    step_bytes_max: usize,
    direct: bool,
}

#[derive(Default)]
struct QueueState {
    produces: VecDeque<ProduceJob>,
    produced_bytes: usize,
    awaited: Awaited,
    jobs: VecDeque<Job>,
    step_bytes: usize,
    /// Somebody has taken work and is not done.
    writing: bool,
    closing: bool,
}

/// While there are fewer batches and less bytes, the writer is not woken for another batch.
#[derive(Default)]
struct Awaited {
    batches: usize,
    bytes: usize,
}

impl QueueState {
    fn is_idle(&mut self) -> bool {
        self.produces.is_empty() && self.jobs.is_empty() && !self.closing
    }

    fn is_much(&self) -> bool {
        self.produced_bytes > DIRECT_BYTES_MAX
    }

    fn has_awaited(&self) -> bool {
        self.produces.len() >= self.awaited.batches || self.produced_bytes >= self.awaited.bytes
    }
}

impl Queue {
    /// `direct`: whoever waits for a few batches writes them.
    pub fn new(step_bytes_max: usize, direct: bool) -> Self {
        Self { state: Mutex::default(), came: Condvar::new(), room: Condvar::new(), step_bytes_max, direct }
    }

    pub fn is_direct(&self) -> bool {
        self.direct
    }

    pub fn step_bytes(&self) -> usize {
        self.state.lock().step_bytes
    }

    /// Where writes are direct, the caller sees to it that somebody writes it: by [`Self::take_few`] or [`Self::wake`].
    pub fn push_produce(&self, job: ProduceJob) -> Result<()> {
        let mut state = self.state.lock();
        if state.closing {
            return Err(StorageError::Closed);
        }
        state.produced_bytes += job.batch.bytes.len();
        state.produces.push_back(job);
        let due = if self.direct { state.is_much() } else { state.has_awaited() };
        if due {
            self.came.notify_one();
        }
        Ok(())
    }

    /// The thread is to take what is there.
    pub fn wake(&self) {
        self.came.notify_one();
    }

    pub fn push_change(&self, job: ChangeJob) -> Result<()> {
        let mut state = self.state.lock();
        if state.closing {
            return Err(StorageError::Closed);
        }
        state.jobs.push_back(Job::Change(job));
        self.came.notify_one();
        Ok(())
    }

    /// Blocks for `delay`, and while the steps queued are over their limit.
    pub fn push_step(&self, job: StepJob, delay: Duration) -> Result<()> {
        let mut state = self.state.lock();
        if !delay.is_zero() {
            self.room.wait_while_for(&mut state, |s| !s.closing, delay);
        }
        self.room.wait_while(&mut state, |s| {
            !s.closing && s.step_bytes > 0 && s.step_bytes.saturating_add(job.bytes) > self.step_bytes_max
        });
        if state.closing {
            return Err(StorageError::Closed);
        }
        state.step_bytes += job.bytes;
        state.jobs.push_back(Job::Step(Box::new(job)));
        self.came.notify_one();
        Ok(())
    }

    /// No more is taken; what is queued is still written.
    pub fn close(&self) {
        self.state.lock().closing = true;
        self.came.notify_all();
        self.room.notify_all();
    }

    /// Forgets everything; those who wait are told that the storage is closed.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        (state.closing, state.writing) = (true, false);
        let produces = std::mem::take(&mut state.produces);
        state.produced_bytes = 0;
        let jobs = std::mem::take(&mut state.jobs);
        state.step_bytes = 0;
        drop(state);
        self.room.notify_all();
        drop((produces, jobs));
    }

    /// Waits until `expected` batches came besides those that are there, or `bytes_max` bytes are there, or `limit` has
    /// passed since the first. `None` if there was nothing to wait for: they came before, or the first came so late that
    /// it is not one of those who are awaited.
    pub fn gather(&self, expected: usize, bytes_max: usize, limit: Duration) -> Option<Gathered> {
        let mut state = self.state.lock();
        let had = state.produces.len();
        if had == 0 {
            self.came.wait_while_for(&mut state, QueueState::is_idle, limit * 2);
            if state.produces.is_empty() {
                return None;
            }
        }
        state.awaited = Awaited { batches: had + expected, bytes: bytes_max };
        let missing = !state.closing && !state.has_awaited();
        #[allow(clippy::disallowed_methods, reason = "only how long to wait for others")]
        let begun = std::time::Instant::now();
        if missing {
            self.came.wait_while_for(&mut state, |s| !s.closing && !s.has_awaited(), limit);
        }
        state.awaited = Awaited::default();
        missing.then(|| Gathered { had, expected, came: state.produces.len() - had, waited: begun.elapsed() })
    }

    /// A few batches, if nothing else waits and nobody writes; else the thread takes them, which has been woken or is at it.
    pub fn take_few(&self) -> Option<Work> {
        let mut state = self.state.lock();
        if state.writing || state.closing || state.produces.is_empty() || !state.jobs.is_empty() || state.is_much() {
            return None;
        }
        state.writing = true;
        let bytes = std::mem::take(&mut state.produced_bytes);
        Some(Work { produces: state.produces.drain(..).collect(), jobs: Vec::new(), bytes })
    }

    /// What was taken is written. The thread takes what came meanwhile.
    pub fn done(&self) {
        let mut state = self.state.lock();
        state.writing = false;
        if !state.is_idle() {
            self.came.notify_one();
        }
    }

    /// For the thread: what one write takes: about `bytes_max` of produced batches and as much of steps. A job that changes topics
    /// goes alone, or that reads what was written. Blocks until there is something; `None` when closed and empty.
    pub fn take(&self, bytes_max: usize) -> Option<Work> {
        let mut state = self.state.lock();
        self.came.wait_while(&mut state, |state| state.writing || state.is_idle());
        if state.produces.is_empty() && state.jobs.is_empty() {
            return None;
        }
        state.writing = true;
        let mut work = Work::default();
        if state.jobs.front().is_some_and(Job::goes_alone) {
            work.jobs.extend(state.jobs.pop_front());
        } else {
            let mut bytes = 0;
            while bytes < bytes_max
                && let Some(job) = state.produces.pop_front()
            {
                bytes += job.batch.bytes.len();
                work.produces.push(job);
            }
            state.produced_bytes -= bytes;
            work.bytes = bytes;
            bytes = 0;
            while bytes < bytes_max
                && state.jobs.front().is_some_and(|job| !job.goes_alone() && (work.jobs.is_empty() || !job.rewrites()))
                && let Some(job) = state.jobs.pop_front()
            {
                bytes += job.size();
                // What is counted of batches that are replaced is not what is counted of deletions.
                let alone = job.rewrites();
                work.jobs.push(job);
                if alone {
                    break;
                }
            }
            work.bytes += bytes;
        }
        for job in &work.jobs {
            if let Job::Step(step) = job {
                state.step_bytes = state.step_bytes.saturating_sub(step.bytes);
            }
        }
        self.room.notify_all();
        Some(work)
    }
}

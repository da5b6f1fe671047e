//! What a connection is at, so that somebody can tell whether it makes progress.
//!
//! Not here: what is done about one that makes none (`connection`), and bodies of requests that come too slowly (`pace`).
//! Invariant: what waits for the server is never held against a client, as a push query for its next row.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::connection::ConnectionLimits;

/// One connection's.
pub(crate) struct Activity(Mutex<State>);

struct State {
    /// A request has come.
    served: bool,
    http2: bool,
    /// Since when no request is under way.
    idle_since: Instant,
    /// When the first byte came since then.
    heard: Option<Instant>,
    /// Requests under way; when each was given a part of its answer that the client has not taken.
    answers: HashMap<u64, Option<Instant>>,
    next: u64,
}

/// A request under way, until the end of its answer.
pub(crate) struct Answering {
    activity: Arc<Activity>,
    id: u64,
}

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            served: false,
            http2: false,
            idle_since: Instant::now(),
            heard: None,
            answers: HashMap::new(),
            next: 0,
        })))
    }

    /// Bytes have come.
    pub fn heard(&self) {
        let mut state = self.0.lock();
        if state.answers.is_empty() && state.heard.is_none() {
            state.heard = Some(Instant::now());
        }
    }

    /// A request has come.
    pub fn begin(self: &Arc<Self>, http2: bool) -> Answering {
        let mut state = self.0.lock();
        (state.served, state.http2, state.heard) = (true, http2, None);
        let id = state.next;
        state.next += 1;
        state.answers.insert(id, None);
        Answering { activity: Arc::clone(self), id }
    }

    /// The limit that the client has run into, if it has.
    pub fn overdue(&self, limits: &ConnectionLimits) -> Option<&'static str> {
        let state = self.0.lock();
        let now = Instant::now();
        let past = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        if state.answers.values().flatten().any(|given| past(*given, limits.stall_timeout)) {
            return Some("http_stall_timeout_ms");
        }
        if !state.answers.is_empty() {
            return None;
        }
        if past(state.idle_since, limits.idle_timeout) {
            return Some("http_idle_timeout_ms");
        }
        // Between requests HTTP/2 has frames of its own.
        let head = if state.served { state.heard.filter(|_| !state.http2) } else { Some(state.idle_since) };
        head.is_some_and(|since| past(since, limits.headers_timeout)).then_some("http_headers_timeout_ms")
    }
}

impl Answering {
    /// A part of the answer is on its way to the client.
    pub fn given(&self) {
        self.mark(Some(Instant::now()));
    }

    /// It has been taken: the next one is asked for.
    pub fn taken(&self) {
        self.mark(None);
    }

    fn mark(&self, given: Option<Instant>) {
        if let Some(at) = self.activity.0.lock().answers.get_mut(&self.id) {
            *at = given;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.activity.0.lock();
        state.answers.remove(&self.id);
        if state.answers.is_empty() {
            state.idle_since = Instant::now();
            state.heard = None;
        }
    }
}

//! What a connection is at, so that somebody can tell whether it makes progress.
//!
//! Not here: what is done about one that makes none (`connection`), and bodies of requests that come too slowly (`pace`).
//! Invariants: what waits for the server is never held against a client, as a push query for its next row; one stream of
//! HTTP/2 whose client does not take it costs no other one anything.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::connection::{ConnectionLimits, PIECE_BYTES};
use crate::streams::Stream;

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
    answers: HashMap<u64, Option<Given>>,
    next: u64,
    /// Bytes of HTTP/1.1 that the client has taken since its progress was noted.
    wrote: usize,
}

/// A part of an answer that is on its way.
struct Given {
    at: Instant,
    /// What ends this answer alone, in HTTP/2.
    stream: Option<Stream>,
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
            wrote: 0,
        })))
    }

    /// Bytes have come.
    pub fn heard(&self) {
        let mut state = self.0.lock();
        if state.answers.is_empty() && state.heard.is_none() {
            state.heard = Some(Instant::now());
        }
    }

    /// Bytes have gone. In HTTP/1.1 they are those of the one answer under way, of which a part may be long.
    pub fn wrote(&self, bytes: usize) {
        let mut state = self.0.lock();
        if state.http2 {
            return;
        }
        state.wrote = state.wrote.saturating_add(bytes);
        if state.wrote >= PIECE_BYTES {
            state.wrote = 0;
            let now = Instant::now();
            state.answers.values_mut().flatten().for_each(|given| given.at = now);
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

    /// The limit that the client has run into, if it has. Streams that are not taken while others are end here.
    pub fn overdue(&self, limits: &ConnectionLimits) -> Option<&'static str> {
        let mut state = self.0.lock();
        let now = Instant::now();
        let past = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        let stalls = |given: &Option<Given>| given.as_ref().is_some_and(|g| past(g.at, limits.stall_timeout));
        if !state.answers.is_empty() {
            if state.answers.values().all(stalls) {
                return Some("http_stall_timeout_ms");
            }
            let mut outside = false;
            for given in state.answers.values_mut().filter(|given| stalls(given)).flatten() {
                match &given.stream {
                    Some(stream) => stream.end(),
                    None => outside = true,
                }
            }
            return outside.then_some("http_stall_timeout_ms");
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
        self.mark(Some(Given { at: Instant::now(), stream: Stream::current() }));
    }

    /// It has been taken: the next one is asked for.
    pub fn taken(&self) {
        self.mark(None);
    }

    fn mark(&self, given: Option<Given>) {
        let mut state = self.activity.0.lock();
        state.wrote = 0;
        if let Some(mark) = state.answers.get_mut(&self.id) {
            *mark = given;
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

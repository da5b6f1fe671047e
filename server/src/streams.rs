//! Streams of HTTP/2, each in a task of its own, which may be ended without the others.
//!
//! An answer that waits for its client's window is not asked for more, so that it cannot end by itself: its task is
//! dropped instead, which resets the stream. Invariant: a stream's task ends with its stream or its connection.

use std::future::Future;
use std::sync::Arc;

use hyper::rt::Executor;
use tokio::sync::Notify;

tokio::task_local! {
    static CURRENT: Stream;
}

/// Runs hyper's streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams;

/// One of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream(Arc<Notify>);

impl Stream {
    /// The one whose task this is, if it is one's.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Resets it.
    pub fn end(&self) {
        self.0.notify_one();
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let stream = Stream::default();
        let ended = stream.clone();
        #[allow(clippy::disallowed_methods, reason = "ends with its stream, and that with its connection")]
        tokio::spawn(CURRENT.scope(stream, async move {
            tokio::select! {
                _ended = task => {}
                () = ended.0.notified() => {}
            }
        }));
    }
}

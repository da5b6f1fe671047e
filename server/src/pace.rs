//! Bodies of requests that have to keep up a pace, so that nobody holds a request open by sending it byte by byte.
//!
//! Invariant: only the time in which the server waits for the client counts.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// How fast a body has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Longest silence. Where a rate is asked for, also what a body has on top of it.
    pub silence_max: Duration,
    /// Bytes per second; none are asked of a body that has no end.
    pub rate_min: Option<u64>,
}

/// Such a body. It ends with an error of the kind `TimedOut` when it comes too slowly.
pub(crate) struct Paced {
    body: Body,
    pace: Pace,
    bytes: u64,
    /// How long it was waited for, but for this time.
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub fn new(body: Body, pace: Pace) -> Self {
        Self { body, pace, bytes: 0, waited: Duration::ZERO, waiting: None }
    }

    /// How long it may be waited for from now on.
    fn patience(&self) -> Duration {
        let Some(rate) = self.pace.rate_min else { return self.pace.silence_max };
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000) / rate.max(1));
        self.pace.silence_max.saturating_add(earned).saturating_sub(self.waited).min(self.pace.silence_max)
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((since, _)) = this.waiting.take() {
                this.waited = this.waited.saturating_add(since.elapsed());
            }
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.bytes = this.bytes.saturating_add(bytes as u64);
            }
            return Poll::Ready(frame);
        }
        let patience = this.patience();
        let (_, timer) = this.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + patience)))
        });
        ready!(timer.as_mut().poll(cx));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly");
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One of which somebody else takes the rest where its reader gave up.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Paced>>);

impl Shared {
    pub fn new(body: Paced) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Takes what still comes and lets it go, up to `bytes_max`.
    pub async fn take_rest(self, bytes_max: u64) {
        let until = self.0.lock().bytes.saturating_add(bytes_max);
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut *self.0.lock()).poll_frame(cx)).await {
            if self.0.lock().bytes > until {
                return;
            }
        }
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// Whether an error is that of a body which came too slowly.
pub(crate) fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = error.source();
    }
    false
}

//! Counters of the protocol server. Counting is one relaxed addition; reading takes a [`Snapshot`].

mod histogram;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;

pub use self::histogram::{Counted, Histogram};

/// API keys that are counted one by one; requests of others end their connection and count as errors.
const KEYS: usize = 96;

#[derive(Debug)]
pub struct Metrics {
    requests: [AtomicU64; KEYS],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicI64,
    connections_total: AtomicU64,
    connections_refused: AtomicU64,
    malformed: AtomicU64,
    handshakes_failed: AtomicU64,
    panics: AtomicU64,
    batches_refused: AtomicU64,
    latencies: Vec<Histogram>,
    throttled: AtomicU64,
    throttled_us: AtomicU64,
    listeners: RwLock<Vec<(String, Arc<ListenerCount>)>>,
}

/// Connections of one listener.
#[derive(Debug, Default)]
pub struct ListenerCount {
    open: AtomicI64,
    total: AtomicU64,
}

/// A connection as its listener counts it.
pub(crate) struct OpenConnection(Arc<ListenerCount>);

impl OpenConnection {
    pub fn of(count: &Arc<ListenerCount>) -> Self {
        count.open.fetch_add(1, Relaxed);
        count.total.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// All counters at about one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Requests by API name, those that came at least once.
    pub requests_total: Vec<(&'static str, u64)>,
    pub bytes_in_total: u64,
    pub bytes_out_total: u64,
    pub connections: i64,
    pub connections_total: u64,
    /// Turned away because "connections_max" were open.
    pub connections_refused_total: u64,
    /// Connections ended because of what came over them.
    pub malformed_total: u64,
    /// Connections that ended before TLS was agreed on.
    pub handshakes_failed_total: u64,
    /// Connections ended by a defect of ours.
    pub panics_total: u64,
    /// Batches of produce requests that were refused.
    pub batches_refused_total: u64,
    /// From a request's last byte to its response's, by API name; of those that came at least once.
    pub latencies: Vec<(&'static str, Counted)>,
    /// Answers that told their client to wait, for its quota, and how long all together.
    pub throttled_total: u64,
    pub throttled_seconds_total: f64,
    /// By name: connections that are open, and all there were.
    pub listeners: Vec<(String, i64, u64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            connections: AtomicI64::default(),
            connections_total: AtomicU64::default(),
            connections_refused: AtomicU64::default(),
            malformed: AtomicU64::default(),
            handshakes_failed: AtomicU64::default(),
            panics: AtomicU64::default(),
            batches_refused: AtomicU64::default(),
            latencies: std::iter::repeat_with(Histogram::default).take(KEYS).collect(),
            throttled: AtomicU64::default(),
            throttled_us: AtomicU64::default(),
            listeners: RwLock::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn request(&self, key: i16, bytes: usize) {
        if let Some(counter) = usize::try_from(key).ok().and_then(|key| self.requests.get(key)) {
            counter.fetch_add(1, Relaxed);
        }
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn response(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub(crate) fn batch_refused(&self) {
        self.batches_refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn answered(&self, key: i16, took: Duration) {
        if let Some(histogram) = usize::try_from(key).ok().and_then(|key| self.latencies.get(key)) {
            histogram.count(took);
        }
    }

    pub(crate) fn throttled(&self, wait: Duration) {
        self.throttled.fetch_add(1, Relaxed);
        self.throttled_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The listeners that there are, each with its counters.
    pub(crate) fn watch_listeners(&self, listeners: Vec<(String, Arc<ListenerCount>)>) {
        *self.listeners.write() = listeners;
    }

    pub fn snapshot(&self) -> Snapshot {
        let count = |(key, counter): (usize, &AtomicU64)| {
            let count = counter.load(Relaxed);
            (count > 0).then(|| (crate::api::name_of(key as i16), count))
        };
        Snapshot {
            requests_total: self.requests.iter().enumerate().filter_map(count).collect(),
            bytes_in_total: self.bytes_in.load(Relaxed),
            bytes_out_total: self.bytes_out.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_total: self.connections_total.load(Relaxed),
            connections_refused_total: self.connections_refused.load(Relaxed),
            handshakes_failed_total: self.handshakes_failed.load(Relaxed),
            malformed_total: self.malformed.load(Relaxed),
            panics_total: self.panics.load(Relaxed),
            batches_refused_total: self.batches_refused.load(Relaxed),
            latencies: self
                .latencies
                .iter()
                .enumerate()
                .map(|(key, histogram)| (crate::api::name_of(key as i16), histogram.read()))
                .filter(|(_, counted)| counted.count > 0)
                .collect(),
            throttled_total: self.throttled.load(Relaxed),
            throttled_seconds_total: self.throttled_us.load(Relaxed) as f64 / 1e6,
            listeners: self
                .listeners
                .read()
                .iter()
                .map(|(name, count)| (name.clone(), count.open.load(Relaxed), count.total.load(Relaxed)))
                .collect(),
        }
    }
}

//! How long things take, counted in buckets. Counting is three relaxed additions at most.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds. What took longer is in one more bucket.
const BOUNDS_US: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram at about one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// Upper bound in seconds, and how many took no longer, shorter bounds included.
    pub buckets: Vec<(f64, u64)>,
    pub sum_seconds: f64,
    pub count: u64,
}

impl Histogram {
    pub fn count(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    pub fn read(&self) -> Counted {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS_US.len());
        for (i, counter) in self.buckets.iter().enumerate() {
            count += counter.load(Relaxed);
            buckets.extend(BOUNDS_US.get(i).map(|bound| (*bound as f64 / 1e6, count)));
        }
        Counted { buckets, sum_seconds: self.sum_us.load(Relaxed) as f64 / 1e6, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_within_it() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 5_000_000, 5_000_001, u64::MAX >> 20] {
            histogram.count(Duration::from_micros(us));
        }
        let counted = histogram.read();
        assert_eq!(
            (counted.buckets[0], counted.buckets[1], counted.buckets[13]),
            ((0.0001, 2), (0.00025, 3), (5.0, 4))
        );
        assert_eq!(counted.count, 6);
    }
}

//! Assigns times to windows and decides when a window is closed.
//!
//! Invariant: windows are aligned to the epoch and none starts before it.

use millpond_sql::plan::{WindowKind, WindowSpec};

/// Tumbling and hopping windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindows {
    pub size_ms: i64,
    pub advance_ms: i64,
    pub grace_ms: i64,
}

impl TimeWindows {
    pub fn new(spec: &WindowSpec) -> Self {
        let advance_ms = if spec.kind == WindowKind::Tumbling { spec.size_ms } else { spec.advance_ms };
        Self { size_ms: spec.size_ms.max(1), advance_ms: advance_ms.max(1), grace_ms: spec.grace_ms() }
    }

    /// Starts of the windows that hold `time`, ascending.
    pub fn starts(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let (size, advance) = (self.size_ms, self.advance_ms);
        let time = time.max(0);
        let last = time.div_euclid(advance) * advance;
        // The first start behind `time - size`.
        let first = (time - size).div_euclid(advance).saturating_add(1).max(0).saturating_mul(advance);
        let next = move |start: &i64| start.checked_add(advance).filter(|next| *next <= last);
        std::iter::successors((first <= last).then_some(first), next)
    }

    /// Most windows that hold one time.
    pub fn per_row(&self) -> usize {
        usize::try_from(self.size_ms.div_euclid(self.advance_ms).saturating_add(1)).unwrap_or(usize::MAX)
    }

    pub fn end(&self, start: i64) -> i64 {
        start.saturating_add(self.size_ms)
    }

    /// Windows that end at or before this are closed.
    pub fn close(&self, stream_time: i64) -> i64 {
        stream_time.saturating_sub(self.grace_ms)
    }

    /// Start of the last window that is closed; negative where none is.
    pub fn closed_start(&self, stream_time: i64) -> i64 {
        let last = self.close(stream_time).saturating_sub(self.size_ms);
        last.div_euclid(self.advance_ms).saturating_mul(self.advance_ms)
    }

    /// Whether a row may still change the window.
    pub fn accepts(&self, start: i64, stream_time: i64) -> bool {
        self.end(start) > self.close(stream_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_every_window_that_holds_it() {
        let hopping = TimeWindows { size_ms: 30, advance_ms: 10, grace_ms: 0 };
        let starts = |w: &TimeWindows, t| w.starts(t).collect::<Vec<_>>();
        assert_eq!(starts(&hopping, 35), [10, 20, 30]);
        assert_eq!(starts(&hopping, 5), [0]);
        assert_eq!(starts(&hopping, 30), [10, 20, 30]);
        let tumbling = TimeWindows { size_ms: 30, advance_ms: 30, grace_ms: 0 };
        assert_eq!(starts(&tumbling, 59), [30]);
        let uneven = TimeWindows { size_ms: 25, advance_ms: 10, grace_ms: 0 };
        for time in 0..100 {
            let expected: Vec<i64> = (0..=time / 10).map(|i| i * 10).filter(|s| s + 25 > time).collect();
            assert_eq!(starts(&uneven, time), expected, "{time}");
        }
        let sparse = TimeWindows { size_ms: 10, advance_ms: 30, grace_ms: 0 };
        assert_eq!(starts(&sparse, 15), Vec::<i64>::new());
        for windows in [hopping, tumbling, uneven] {
            let latest = starts(&windows, i64::MAX);
            assert!(!latest.is_empty() && latest.iter().all(|s| i64::MAX - s < windows.size_ms));
            assert!(windows.end(latest[0]) > latest[0]);
        }
    }

    #[test]
    fn a_window_closes_when_grace_is_over() {
        let w = TimeWindows { size_ms: 10, advance_ms: 10, grace_ms: 5 };
        assert!(w.accepts(0, 14));
        assert!(!w.accepts(0, 15));
    }
}

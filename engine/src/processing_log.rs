//! What happened to single rows: skipped records, failed expressions, late rows.
//!
//! Keeps the last lines in memory and passes each to `tracing`, but for what stops a query: of that the runner tells. A
//! line is written once, when the step that met the row has committed (or has failed for good). Not here: a topic of these
//! lines.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_types::{Offset, PartitionId};
use parking_lot::Mutex;
use tracing::warn;

/// Lines kept in memory.
pub const LINES_MAX: usize = 1_000;
/// Lines that one step writes in full; the rest is counted.
pub const LINES_PER_STEP_MAX: usize = 100;
/// Characters of a message that are kept.
const MESSAGE_CHARS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A record's bytes could not be read; it was skipped.
    Deserialization,
    /// A record's time could not be extracted; it was skipped.
    Timestamp,
    /// An expression failed in a row.
    Expression,
    /// A row came after its window had closed.
    Late,
    /// A row could not take part (NULL key where there must be one).
    Skipped,
    /// The query stopped at this row.
    Fatal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub query: String,
    pub kind: LineKind,
    pub message: String,
    /// The input record behind the row, where it is known.
    pub topic: String,
    pub partition: PartitionId,
    pub offset: Offset,
}

pub struct ProcessingLog {
    lines: Mutex<VecDeque<Line>>,
    lines_max: usize,
    total: AtomicU64,
}

impl Default for ProcessingLog {
    fn default() -> Self {
        Self::new(LINES_MAX)
    }
}

impl ProcessingLog {
    pub fn new(lines_max: usize) -> Self {
        Self { lines: Mutex::new(VecDeque::new()), lines_max, total: AtomicU64::new(0) }
    }

    pub fn write(&self, mut line: Line) {
        if let Some((end, _)) = line.message.char_indices().nth(MESSAGE_CHARS_MAX) {
            line.message.truncate(end);
        }
        if line.kind != LineKind::Fatal {
            warn!(
                target: "millpond::processing",
                query_id = line.query,
                kind = ?line.kind,
                topic = line.topic,
                partition = line.partition,
                offset = line.offset,
                reason = line.message,
                "row not processed as usual"
            );
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut lines = self.lines.lock();
        if lines.len() >= self.lines_max {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Lines that were not kept in full.
    pub fn count_more(&self, query: &str, count: u64) {
        if count > 0 {
            self.total.fetch_add(count, Ordering::Relaxed);
            warn!(target: "millpond::processing", query_id = query, count, "more rows not processed as usual");
        }
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().iter().cloned().collect()
    }

    /// Lines since the start, those not kept included.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

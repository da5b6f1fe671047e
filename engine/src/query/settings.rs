//! What a query may take, and how it behaves where that can be chosen.

use std::time::Duration;

/// Most input rows that `millpond.step.rows.max` may give a step.
const STEP_ROWS_MAX: usize = 1 << 16;

/// What a query may take and how it behaves where that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// Input rows of a step.
    pub step_rows_max: usize,
    /// Input bytes of a step.
    pub step_bytes_max: usize,
    /// Bytes that a step writes, about; a single row may write more.
    pub step_write_bytes_max: usize,
    /// A step that takes longer makes the next one smaller.
    pub step_time_max: Duration,
    /// Rows that one input row may give at once; what is more goes on in the next step.
    pub emit_rows_max: usize,
    /// Bytes of state that are kept in memory for reading.
    pub cache_bytes_max: usize,
    /// Bytes of state of a push query, which has it in memory only.
    pub transient_bytes_max: usize,
    /// Of several updates of a table's row in a step, send only the last.
    pub coalesce: bool,
    /// Where ksqlDB loses data by accident, lose them too.
    pub quirks: bool,
    /// A record whose timestamp cannot be extracted stops the query.
    pub throw_on_invalid_timestamp: bool,
    /// Where records are gone before they were read, go on at the end instead of at the first that is left.
    pub reset_latest: bool,
    /// A step is cut for several threads into parts of at least so many rows.
    pub task_rows_min: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            step_rows_max: 32_768,
            step_bytes_max: 16 << 20,
            step_write_bytes_max: 4 << 20,
            step_time_max: Duration::from_millis(250),
            emit_rows_max: 50_000,
            cache_bytes_max: 32 << 20,
            transient_bytes_max: 64 << 20,
            coalesce: true,
            quirks: false,
            throw_on_invalid_timestamp: false,
            reset_latest: false,
            task_rows_min: 1_024,
        }
    }
}

impl QuerySettings {
    /// From properties by ksqlDB's names.
    pub fn from_properties(property: &dyn Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str| property(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let cache = property("cache.max.bytes.buffering");
        let number = |name: &str| property(name).and_then(|v| v.trim().parse::<usize>().ok());
        let (step_rows, task_rows) = (number("millpond.step.rows.max"), number("millpond.task.rows.min"));
        Self {
            step_rows_max: step_rows.unwrap_or(Self::default().step_rows_max).clamp(1, STEP_ROWS_MAX),
            task_rows_min: task_rows.unwrap_or(Self::default().task_rows_min).max(1),
            coalesce: cache.is_none_or(|v| v.trim() != "0"),
            quirks: is("ksql.compat.quirks"),
            throw_on_invalid_timestamp: is("ksql.timestamp.throw.on.invalid"),
            reset_latest: property("auto.offset.reset").is_some_and(|v| v.eq_ignore_ascii_case("latest")),
            ..Self::default()
        }
    }
}

//! The pools of the process's memory budget that the engine draws from, and what happens where one is exhausted.
//!
//! | Pool | Holds | Where nothing is left |
//! |---|---|---|
//! | `read_caches` | state that queries keep for reading | who has more than its share forgets the older half |
//! | `push_queries` | state of push queries, rows that wait for their clients | a query without state waits for its client; one with state ends |
//! | `pull_queries` | rows read, operators, answers | the query fails, and says so |
//! | `steps` | input, columns and output of steps under way | steps get smaller |
//! | `read_ahead` | records read and not yet worked on | they are read again |

use std::fmt;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use millpond_types::budget::Pool;

/// Pools of queries.
#[derive(Clone, Debug)]
pub struct EngineMemory {
    pub read_caches: Pool,
    pub push_queries: Pool,
    pub pull_queries: Pool,
    pub steps: Pool,
    pub read_ahead: Pool,
}

impl EngineMemory {
    /// All of them within one pool, each up to a part of it that leaves room for the others.
    pub fn within(pool: &Pool) -> Self {
        let part = |name, of| pool.child(name, pool.limit() / 16 * of);
        Self {
            read_caches: part("read_caches", 10),
            push_queries: part("push_queries", 8),
            pull_queries: part("pull_queries", 10),
            steps: part("steps", 8),
            read_ahead: part("read_ahead", 6),
        }
    }
}

impl Default for EngineMemory {
    /// Counts and refuses nothing.
    fn default() -> Self {
        Self::within(&Pool::unlimited("engine"))
    }
}

/// A pull query's operators, in our accountant.
#[derive(Debug)]
pub struct OperatorMemory(pub Pool);

impl fmt::Display for OperatorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl MemoryPool for OperatorMemory {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.0.take(additional);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.0.give(shrink);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> DataFusionResult<()> {
        if self.0.try_take(additional) {
            return Ok(());
        }
        let left = self.0.left();
        Err(DataFusionError::ResourcesExhausted(format!("{additional} bytes more, of which {left} are left")))
    }

    fn reserved(&self) -> usize {
        self.0.used()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.0.limit())
    }
}

impl OperatorMemory {
    pub fn shared(pool: Pool) -> Arc<dyn MemoryPool> {
        Arc::new(Self(pool))
    }
}

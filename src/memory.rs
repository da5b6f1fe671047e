//! Who may take how much of the process's memory.
//!
//! The budget is cut in two: parts of fixed size, for which the whole of their limit is set aside, and what is left,
//! which queries and guests share. So the limits add up to the budget. Not here: counting (`millpond_types::budget`),
//! and what happens where a pool is used up (each pool's user; the table is in `docs/settings.md`).
//!
//! What no pool counts (code, stacks, catalog, indexes of partitions, what the allocator keeps) comes on top.

use std::sync::Arc;

use millpond_types::budget::PoolUse;
use millpond_types::{Error, Pool, Reservation, Result};

const MIB: usize = 1 << 20;

/// The least that is taken where nothing is said.
const BUDGET_MIN: usize = 1024 * MIB;

/// The least that queries and guests must have to share.
const SHARED_MIN: usize = 16 * MIB;

/// The parts of fixed size, as they are where no setting says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedParts {
    pub write_buffer: usize,
    pub block_cache: usize,
    pub tails: usize,
    /// Large batches read from disk in advance.
    pub read_ahead: usize,
    pub produce_queue: usize,
    /// Decoders of produced batches that need more than is usual.
    pub decoders: usize,
    pub step_queue: usize,
    /// One write of the storage; four times that is set aside.
    pub write: usize,
    /// Keys known while a partition is compacted.
    pub compaction_map: usize,
    /// Kafka requests under way.
    pub requests: usize,
    pub fetch_answers: usize,
    /// Other answers of the Kafka listeners.
    pub answers: usize,
    pub fetch_sessions: usize,
    pub http_bodies: usize,
    pub group_members: usize,
    pub group_offsets: usize,
    pub transactions: usize,
    pub delegation_tokens: usize,
}

impl FixedParts {
    /// What suits a budget: what is best, or less where that would leave too little for queries.
    pub fn of(budget: usize) -> Self {
        let part = |best: usize, of: usize| best.min(budget / of);
        Self {
            write_buffer: part(96 * MIB, 10),
            block_cache: part(64 * MIB, 16),
            tails: part(64 * MIB, 24),
            read_ahead: part(8 * MIB, 128),
            produce_queue: part(64 * MIB, 24),
            decoders: part(48 * MIB, 32),
            step_queue: part(64 * MIB, 24),
            write: part(4 * MIB, 256),
            compaction_map: part(32 * MIB, 32),
            requests: part(512 * MIB, 8),
            fetch_answers: part(512 * MIB, 12),
            // One of them is to hold the settings of thousands of topics, but for budgets that somebody has made small.
            answers: part(128 * MIB, if budget < BUDGET_MIN { 64 } else { 32 }),
            fetch_sessions: part(256 * MIB, 64),
            http_bodies: part(256 * MIB, 16),
            group_members: part(256 * MIB, 32),
            group_offsets: part(256 * MIB, 32),
            transactions: part(128 * MIB, 32),
            delegation_tokens: part(16 * MIB, 512),
        }
    }
}

/// Tells what of a part of fixed size is used now.
pub type Gauge = Box<dyn Fn() -> usize + Send + Sync>;

/// The budget of one process.
pub struct Memory {
    root: Pool,
    shared: Pool,
    fixed: Vec<(&'static str, Reservation)>,
}

impl Memory {
    /// Sets the fixed parts aside. Fails where they leave too little.
    pub fn new(budget: usize, fixed: &[(&'static str, usize)]) -> Result<Arc<Self>> {
        let root = Pool::root("memory", budget);
        let sum = fixed.iter().fold(0_usize, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let left = budget.saturating_sub(sum);
        if left < SHARED_MIN {
            let shown = |settable: bool| {
                let parts = fixed.iter().filter(|(name, _)| is_setting(name) == settable);
                parts.map(|(name, bytes)| format!("{name} {}", mebibytes(*bytes))).collect::<Vec<_>>().join(", ")
            };
            let others = match shown(false) {
                none if none.is_empty() => none,
                some => format!("; {some} cannot be set"),
            };
            return Err(Error::bad_request(format!(
                "the memory budget is too small: of {} the fixed parts take {} ({}{others}), and at least {} must be \
                 left; raise \"budget\" in [memory], or lower those in [limits]",
                mebibytes(budget),
                mebibytes(sum),
                shown(true),
                mebibytes(SHARED_MIN)
            )));
        }
        let set_aside = |(name, bytes): &(&'static str, usize)| {
            let mut reservation = root.reservation();
            reservation.set(*bytes);
            (*name, reservation)
        };
        let fixed = fixed.iter().map(set_aside).collect();
        let shared = root.child("shared", left);
        Ok(Arc::new(Self { root, shared, fixed }))
    }

    pub fn budget(&self) -> usize {
        self.root.limit()
    }

    /// What queries and guests draw from.
    pub fn shared(&self) -> &Pool {
        &self.shared
    }

    /// All pools: the whole budget, the fixed parts, what is shared and its parts. `used` knows what fixed parts use.
    pub fn uses(&self, used: &dyn Fn(&str) -> Option<usize>) -> Vec<PoolUse> {
        let mut shared = self.shared.uses();
        let fixed: Vec<PoolUse> = self
            .fixed
            .iter()
            .map(|(name, reservation)| PoolUse {
                name: (*name).to_string(),
                limit: reservation.bytes(),
                used: used(name).unwrap_or(0),
                peak: 0,
                refused: 0,
            })
            .collect();
        let mut all = vec![PoolUse {
            name: "memory".into(),
            limit: self.budget(),
            used: fixed.iter().map(|f| f.used).sum::<usize>() + self.shared.used(),
            peak: 0,
            refused: 0,
        }];
        all.extend(fixed);
        all.append(&mut shared);
        all
    }
}

/// Whether a part of fixed size has the name of its setting.
fn is_setting(part: &str) -> bool {
    part.contains("_bytes")
}

fn mebibytes(bytes: usize) -> String {
    match bytes {
        0..MIB => format!("{bytes} bytes"),
        _ => format!("{} MiB", bytes.div_ceil(MIB)),
    }
}

/// Half of what the machine, or the group of processes that this one is in, may use; but at least 1 GiB.
pub fn default_budget() -> usize {
    (memory_there().unwrap_or(0) / 2).max(BUDGET_MIN)
}

fn memory_there() -> Option<usize> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1024)
    });
    [machine, group_limit()].into_iter().flatten().min()
}

/// The smallest limit of the control groups around this process.
fn group_limit() -> Option<usize> {
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path =
        groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_end_matches('/').to_string();
    let above = std::iter::successors(Some(path.as_str()), |path| path.rfind('/').map(|at| &path[..at]));
    let unified = above.filter_map(|path| read(format!("/sys/fs/cgroup{path}/memory.max"))).min();
    unified.or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_add_up_to_the_budget() {
        for budget in [192 * MIB, 512 * MIB, 1024 * MIB, 64 << 30] {
            let parts = FixedParts::of(budget);
            let fixed =
                [("write_buffer_bytes", parts.write_buffer), ("writes", 4 * parts.write), ("requests", parts.requests)];
            let memory = Memory::new(budget, &fixed).unwrap();
            let uses = memory.uses(&|_| None);
            let of = |name: &str| uses.iter().find(|u| u.name == name).unwrap().limit;
            assert_eq!(fixed.iter().map(|(_, b)| b).sum::<usize>() + of("shared"), of("memory"));
        }
        let refused = |budget, fixed: &[_]| Memory::new(budget, fixed).err().unwrap().to_string();
        let error = refused(100 * MIB, &[("block_cache_bytes", 90 * MIB), ("writes", MIB)]);
        assert!(
            error.contains("100 MiB") && error.contains("(block_cache_bytes 90 MiB; writes 1 MiB cannot be set)"),
            "{error}"
        );
        assert!(refused(1000, &[]).contains("of 1000 bytes the fixed parts take 0 bytes"), "not in MiB");
        assert!(default_budget() >= BUDGET_MIN);
    }
}

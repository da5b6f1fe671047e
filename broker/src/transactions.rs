//! Transactions: who may write under a transactional id, what its transaction has touched, and how it ends.
//!
//! [`Machine`] is plain: a request and the time go in, and out comes the answer with a [`Change`], everything that has to
//! be written for it. It knows no clock, no socket and no storage. [`Coordinator`] is the async edge: one change of an id
//! after the other, written first and only then true in memory; timers.
//!
//! ```text
//!   (new) ──init──▶ Empty ──add──▶ Ongoing ──end──▶ Committed | Aborted ──add──▶ Ongoing ...
//!                     ▲               │ init by anybody, or timeout: aborted, and the epoch raised
//!                     └─────init──────┘
//! ```
//!
//! There is one node, so a transaction ends in a single atomic write: its state, the markers in all partitions, the
//! offsets of groups, what became stable and what was aborted. Kafka's states of being about to end never show, and a
//! transaction is over whole or not at all, whenever the process dies.
//!
//! There are two ways to take part. In the older one a producer says first which partitions and groups belong to its
//! transaction, and keeps its epoch over many. In the newer one (KIP-890) what it writes joins by itself, and each end
//! raises the epoch. Both go on side by side; each request says by its version which way it takes.
//!
//! Who a producer is depends on (transactional id, producer id, epoch) alone, never on its connection. Partitions keep
//! their own account of open transactions (`storage`), so that what an older epoch sends late is refused there.

mod coordinator;
mod machine;
mod record;
#[cfg(test)]
mod script;

pub use coordinator::Coordinator;
pub use machine::{Change, End, Init, InitRequest, Machine, State, Transaction};

/// Limits and times of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSettings {
    /// Longest time a producer may ask for until its transaction is aborted.
    pub timeout_max_ms: i32,
    /// A transactional id that nobody used for so long is forgotten.
    pub expiration_ms: i64,
    /// Transactional ids.
    pub ids_max: usize,
    /// Memory for all transactional ids and what their transactions touch: partitions, groups and offsets.
    pub bytes_max: usize,
    /// The same for a single one.
    pub transaction_bytes_max: usize,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            timeout_max_ms: 15 * 60 * 1000,
            expiration_ms: 7 * 24 * 60 * 60 * 1000,
            ids_max: 100_000,
            bytes_max: 128 * 1024 * 1024,
            transaction_bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// Why a transaction said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionError {
    EmptyId,
    InvalidTimeout,
    /// The transactional id is not known, or belongs to another producer id.
    InvalidProducerId,
    /// Another producer has taken over, or the transaction timed out.
    Fenced,
    /// There is no transaction, it ended the other way, or it does not include the group.
    InvalidState,
    UnknownPartition,
    /// A limit on transactional ids or on what they touch is reached.
    TooMany,
    /// What had to be written was not; asking again may help.
    NotPersisted,
}

impl std::fmt::Display for TransactionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::EmptyId => "the transactional id is empty",
            Self::InvalidTimeout => "the transaction's timeout is not between 1 ms and the longest allowed",
            Self::InvalidProducerId => "the transactional id does not belong to this producer id",
            Self::Fenced => "a producer with a later epoch has taken the transactional id",
            Self::InvalidState => "there is no transaction that this could belong to",
            Self::UnknownPartition => "a partition is gone",
            Self::TooMany => "there are as many transactional ids, or as much in transactions, as there may be",
            Self::NotPersisted => "the change could not be written",
        })
    }
}

//! Consumer groups by Kafka's classic protocol and by the consumer protocol (KIP-848, `consumer`): who is in, which
//! generation it is, who reads what, and how far.
//!
//! [`machine`] is a plain state machine: a request and the time go in, answers and things to persist come out. It knows
//! no clock, no socket and no storage; answers that must wait are parked under the caller's ticket. [`Coordinator`] is
//! the async edge: it holds the machine behind a lock, runs its timers and writes what it says.
//!
//! Invariants: a member is answered exactly once per ticket; within a generation a partition has the owner that the
//! leader gave it; an assignment is handed out only after it was persisted; a session does not end while its member
//! is parked.

pub(crate) mod consumer;
mod coordinator;
mod group;
#[cfg(test)]
mod histories;
mod in_topic;
mod lag;
mod machine;
mod member;
mod offsets;
mod order;
#[cfg(test)]
mod races;
mod readers;
mod record;
#[cfg(test)]
mod script;
mod state;
mod subscription;
mod writes;

use std::time::Duration;

pub(crate) use consumer::member::Member as ConsumerMember;
pub use coordinator::{Coordinator, GroupOffset, QueryGroups};
pub use group::Commit;
pub(crate) use in_topic::{partition_of, record_of};
pub use lag::{GroupLag, GroupLags};
pub use machine::{Described, DescribedConsumer, DescribedMember, Effect, Listed, Machine, Ticket};
pub use member::{JoinAnswer, JoinRequest, JoinedMember, LeaveRequest, SyncAnswer, SyncRequest};
pub use offsets::{Committed, OffsetKey};
#[cfg(test)]
pub(crate) use record::offset_entry;
pub use state::State;

/// Limits and times of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long the first member of an empty group waits for others; 0 suits one process and tests.
    pub initial_rebalance_delay_ms: i64,
    pub session_timeout_min_ms: i32,
    pub session_timeout_max_ms: i32,
    /// Members of one group.
    pub members_max: usize,
    /// Groups, and groups that have settings of their own.
    pub groups_max: usize,
    /// Length of the text committed beside an offset, in UTF-16 units, as Kafka counts; so at most 3 times as many bytes.
    pub offset_metadata_max: usize,
    /// Memory for what members say and are told (metadata and assignments), over all groups.
    pub members_bytes_max: usize,
    /// Of them, those of one group: its leader is told of all members in one answer.
    pub group_bytes_max: usize,
    /// Memory for committed offsets, over all groups.
    pub offsets_bytes_max: usize,
    /// How long offsets of a group without members are kept.
    pub offsets_retention_ms: i64,
    /// How often offsets are looked through for those that outlived their retention.
    pub offsets_check: Duration,
    /// Of members under the consumer protocol: how long they may be silent, and how often they should speak; where the
    /// group has no settings of its own.
    pub consumer_session_timeout_ms: i32,
    pub consumer_heartbeat_interval_ms: i32,
    /// Committed offsets whose lag is shown in the metrics.
    pub lag_rows_max: usize,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 0,
            session_timeout_min_ms: 100,
            session_timeout_max_ms: 30 * 60 * 1000,
            members_max: 10_000,
            groups_max: 100_000,
            offset_metadata_max: 4096,
            members_bytes_max: 256 * 1024 * 1024,
            group_bytes_max: 64 * 1024 * 1024,
            offsets_bytes_max: 256 * 1024 * 1024,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_check: Duration::from_secs(10 * 60),
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            lag_rows_max: 10_000,
        }
    }
}

impl GroupSettings {
    /// Whether an offset may be committed with this text.
    pub fn allows_metadata(&self, text: &str) -> bool {
        text.len() <= self.offset_metadata_max
            || text.encode_utf16().take(self.offset_metadata_max + 1).count() <= self.offset_metadata_max
    }
}

/// Why a group said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupError {
    InvalidGroupId,
    InvalidSessionTimeout,
    UnknownMember,
    MemberIdRequired,
    FencedInstance,
    IllegalGeneration,
    InconsistentProtocol,
    RebalanceInProgress,
    GroupFull,
    NonEmptyGroup,
    GroupNotFound,
    /// Belongs to a query; read-only.
    QueryGroup,
    SubscribedToTopic,
    OffsetMetadataTooLarge,
    /// A limit on groups or offsets is reached.
    TooMany,
    /// What had to be persisted was not; asking again may help.
    NotPersisted,
    /// Of the consumer protocol, as the next ones: a request that contradicts itself.
    InvalidRequest,
    UnsupportedAssignor,
    InvalidPattern,
    FencedEpoch,
    StaleEpoch,
    UnreleasedInstance,
    /// The request is of a version that knows nothing of the group's protocol.
    UnsupportedVersion,
}

impl std::fmt::Display for GroupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InvalidGroupId => "the group id is empty",
            Self::InvalidSessionTimeout => "the session timeout is outside what is allowed",
            Self::UnknownMember => "the group has no such member",
            Self::MemberIdRequired => "join again with the member id that is given",
            Self::FencedInstance => "another member has taken this instance id",
            Self::IllegalGeneration => "the group is in another generation",
            Self::InconsistentProtocol => "the members have no such protocol in common",
            Self::RebalanceInProgress => "the group is rebalancing",
            Self::GroupFull => "the group has as many members as it may have",
            Self::NonEmptyGroup => "the group has members",
            Self::GroupNotFound => "there is no such group",
            Self::QueryGroup => "the group belongs to a query and is read-only",
            Self::SubscribedToTopic => "a member of the group reads this topic",
            Self::OffsetMetadataTooLarge => "the text beside the offset is too long",
            Self::TooMany => "there are as many groups or offsets as there may be",
            Self::NotPersisted => "the change could not be written",
            Self::InvalidRequest => "the request contradicts itself",
            Self::UnsupportedAssignor => "there is no such assignor",
            Self::InvalidPattern => "the regular expression cannot be used",
            Self::FencedEpoch => "the member has another epoch; it must give up all and join again",
            Self::StaleEpoch => "the member has another epoch by now",
            Self::UnreleasedInstance => "another member has this instance id and has not left",
            Self::UnsupportedVersion => "the group's protocol needs a later version of this request",
        })
    }
}

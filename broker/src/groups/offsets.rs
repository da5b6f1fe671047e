//! Committed offsets of a group.

use millpond_types::TopicId;

/// A partition by the topic's name, as groups speak of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetKey {
    pub topic: String,
    pub partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The incarnation of the topic that was read; the offset says nothing about a later one of that name.
    pub topic_id: TopicId,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    pub committed_at: i64,
    /// Time after which the client wants it forgotten; -1 leaves that to the server.
    pub expires_at: i64,
}

/// What an offset takes in memory beyond its texts, about.
const OFFSET_BYTES: usize = 160;

/// About what an offset takes in memory.
pub(super) fn bytes_of(key: &OffsetKey, committed: &Committed) -> usize {
    OFFSET_BYTES + key.topic.len() + committed.metadata.len()
}

//! Names for places in the log.

use std::fmt;

/// Position of a record within its partition; the first is 0.
pub type Offset = i64;
/// Index of a partition within its topic; the first is 0.
pub type PartitionId = i32;
/// Place of a commit in the one total order of the embedded log. Every append gets a new, higher one.
pub type Sequence = u64;

/// One incarnation of a topic: a topic that is deleted and created again has another id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionId,
}

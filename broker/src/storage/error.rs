//! What can go wrong in storage, fine enough for the protocol's error codes.

use millpond_types::{Error, ErrorKind, Offset, TopicId, TopicPartition};

use crate::batch::BatchError;

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory \"{0}\" is held by another process")]
    Locked(String),
    #[error("\"{0}\" is not empty and is no data directory of millpond; give an empty or a new directory")]
    Foreign(String),
    #[error("data directory \"{path}\" is damaged: {detail}")]
    Damaged { path: String, detail: String },
    #[error("data directory \"{path}\" has format {found}, and this version reads up to {known}; use a newer version")]
    Newer { path: String, found: u32, known: u32 },
    #[error("data directory \"{path}\" cannot be used: {detail}")]
    Io { path: String, detail: String },
}

impl From<OpenError> for Error {
    fn from(e: OpenError) -> Self {
        let kind = match e {
            OpenError::Locked(_) | OpenError::Foreign(_) => ErrorKind::Conflict,
            OpenError::Damaged { .. } => ErrorKind::Corrupt,
            OpenError::Newer { .. } => ErrorKind::Unsupported,
            OpenError::Io { .. } => ErrorKind::Retry,
        };
        Error::new(kind, e.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    #[error("{0}")]
    UnknownTopicOrPartition(String),
    #[error("there is no topic with the id {0:?}")]
    UnknownTopicId(TopicId),
    #[error("offset {offset} is outside the log, which starts at {start} and ends before {end}")]
    OffsetOutOfRange { offset: Offset, start: Offset, end: Offset },
    #[error("{0}")]
    CorruptMessage(String),
    #[error("a batch of {size} bytes is larger than the {max} that the topic allows")]
    MessageTooLarge { size: usize, max: usize },
    #[error("the batch takes more than \"decompressed_bytes_max\", {max} bytes, when decompressed")]
    ExpandsTooMuch { max: usize },
    #[error("a batch of {size} bytes is larger than the topic's \"segment.bytes\", {max}")]
    RecordListTooLarge { size: usize, max: usize },
    #[error("{message}")]
    InvalidRecord { message: String, records: Vec<(i32, String)> },
    #[error("{message}")]
    InvalidTimestamp { message: String, records: Vec<(i32, String)> },
    #[error("{0}")]
    UnsupportedCompression(String),
    #[error("{0}")]
    InvalidProducerEpoch(String),
    #[error("{0}")]
    OutOfOrderSequence(String),
    #[error("{0}")]
    InvalidTxnState(String),
    #[error("{0}")]
    InvalidTopic(String),
    #[error("topic \"{0}\" already exists")]
    TopicExists(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidReplicationFactor(String),
    #[error("{0}")]
    InvalidConfig(String),
    #[error("{0}")]
    InvalidRequest(String),
    /// Disk full or another I/O error; the same request may succeed later. Nothing was written.
    #[error("{0}")]
    Unavailable(String),
    #[error("the storage is closed")]
    Closed,
    #[error("{0}")]
    Corrupt(String),
}

impl StorageError {
    pub(super) fn unknown_partition(place: TopicPartition) -> Self {
        Self::UnknownTopicOrPartition(format!("there is no partition {} of topic {:?}", place.partition, place.topic))
    }
}

impl From<rocksdb::Error> for StorageError {
    fn from(e: rocksdb::Error) -> Self {
        match e.kind() {
            rocksdb::ErrorKind::Corruption => Self::Corrupt(format!("stored data are damaged: {e}")),
            _ => Self::Unavailable(format!("storage failed: {e}")),
        }
    }
}

impl From<BatchError> for StorageError {
    fn from(e: BatchError) -> Self {
        match e {
            BatchError::Corrupt(message) => Self::CorruptMessage(message),
            BatchError::TooLarge { size, max } => Self::MessageTooLarge { size, max },
            BatchError::ExpandsTooMuch { max } => Self::ExpandsTooMuch { max },
            BatchError::InvalidRecord { message, records } => Self::InvalidRecord { message, records },
            BatchError::InvalidTimestamp { message, records } => Self::InvalidTimestamp { message, records },
            BatchError::UnsupportedCompression(message) => Self::UnsupportedCompression(message),
        }
    }
}

impl From<StorageError> for Error {
    fn from(e: StorageError) -> Self {
        use StorageError as S;
        let kind = match e {
            S::UnknownTopicOrPartition(_) | S::UnknownTopicId(_) | S::OffsetOutOfRange { .. } => ErrorKind::NotFound,
            S::TopicExists(_) | S::InvalidProducerEpoch(_) | S::OutOfOrderSequence(_) | S::InvalidTxnState(_) => {
                ErrorKind::Conflict
            }
            S::Unavailable(_) | S::Closed => ErrorKind::Retry,
            S::Corrupt(_) => ErrorKind::Corrupt,
            S::CorruptMessage(_)
            | S::MessageTooLarge { .. }
            | S::ExpandsTooMuch { .. }
            | S::RecordListTooLarge { .. }
            | S::InvalidRecord { .. }
            | S::InvalidTimestamp { .. }
            | S::UnsupportedCompression(_)
            | S::InvalidTopic(_)
            | S::InvalidPartitions(_)
            | S::InvalidReplicationFactor(_)
            | S::InvalidConfig(_)
            | S::InvalidRequest(_) => ErrorKind::BadRequest,
        };
        Error::new(kind, e.to_string())
    }
}

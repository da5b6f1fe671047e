//! The engine's port on the log: reads as views, and steps, checked and encoded before they are queued.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use millpond_types::ports::{
    Assignment, Cursor, Done, Outcome, PartitionOffsets, ReadLimits, Step, Ticket, TopicInfo, TopicLog,
};
use millpond_types::record::{RecordBuffer, Records};
use millpond_types::{Error, Offset, Result, Sequence, TopicId, TopicPartition};

use super::Storage;
use super::error::StorageError;
use super::read;
use super::writer::StepJob;
use crate::batch::{Codec, EncodeOptions, TimestampType, ValidBatch, encode};
use crate::configs::TopicSettings;
use crate::keys::{self, BATCH_PREFIX_LEN, Kind, cf};

/// The embedded log has one owner, and so one generation.
const GENERATION: u64 = 0;
/// Steps write batches of at most this, even where the topic allows larger ones.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How batches that are made here are encoded for a topic.
pub(super) fn encode_options(settings: &TopicSettings, now_ms: i64) -> EncodeOptions {
    EncodeOptions {
        compression: settings.compression.unwrap_or(Codec::None.into()),
        batch_bytes_max: settings.batch_bytes_max.min(settings.segment_bytes).min(BATCH_BYTES_MAX),
        log_append_time: match settings.timestamp_type {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(now_ms),
        },
        room_before: BATCH_PREFIX_LEN,
    }
}

struct Queued(Receiver<Outcome>);

impl Ticket for Queued {
    fn wait(self: Box<Self>) -> Outcome {
        self.0.recv().unwrap_or_else(|_| Outcome::Retry(StorageError::Closed.to_string()))
    }
}

impl TopicLog for Storage {
    fn assignment(&self) -> Assignment {
        Assignment { generation: GENERATION, tasks: None }
    }

    fn replicas(&self, wanted: i16) -> i16 {
        if self.any_replication_factor() { wanted } else { wanted.min(1) }
    }

    fn topics(&self) -> Vec<TopicInfo> {
        self.shared.topics.read().by_name.values().map(|t| t.info()).collect()
    }

    fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.find_topic(name).map(|t| t.info())
    }

    fn topic_by_id(&self, id: TopicId) -> Option<TopicInfo> {
        self.find_topic_by_id(id).map(|t| t.info())
    }

    fn offsets(&self, partition: TopicPartition) -> Result<PartitionOffsets> {
        Ok(self.partition_offsets(partition)?)
    }

    fn read(&self, partition: TopicPartition, from: Offset, limits: ReadLimits) -> Result<Records> {
        let partition = self.shared.partition(partition)?;
        read::records(&self.shared, &partition, from, limits).map_err(|e| match e {
            StorageError::OffsetOutOfRange { offset, start, .. } => {
                Error::not_found(format!("offset {offset} is gone: the log starts at {start}"))
            }
            other => other.into(),
        })
    }

    fn commit(&self, step: Step) -> Box<dyn Ticket> {
        let (answer, ticket) = sync_channel(1);
        let refused = |e: StorageError| -> Box<dyn Ticket> {
            Box::new(Done(match e {
                StorageError::Unavailable(_) | StorageError::Closed => Outcome::Retry(e.to_string()),
                _ => Outcome::Fatal(e.to_string()),
            }))
        };
        if step.generation != GENERATION {
            return Box::new(Done(Outcome::Fenced));
        }
        let job = match self.encode_step(step, answer) {
            Ok(job) => job,
            Err(e) => return refused(e),
        };
        let delay = Duration::from_millis(self.shared.step_delay_ms.load(Ordering::Relaxed));
        match self.shared.queue.push_step(job, delay) {
            Ok(()) => Box::new(Queued(ticket)),
            Err(e) => refused(e),
        }
    }

    fn sequence(&self) -> Sequence {
        self.shared.sequence()
    }

    fn wait_past(&self, sequence: Sequence, timeout: Duration) -> Sequence {
        self.shared.wait_past(sequence, timeout)
    }

    fn moved_since(&self, sequence: Sequence) -> Option<Vec<TopicId>> {
        self.shared.moved_since(sequence)
    }

    fn cursors(&self, query: &str) -> Result<Vec<Cursor>> {
        Ok(self.shared.cursors(&keys::cursors_of(query))?)
    }

    fn catalog(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>> {
        Ok(self.shared.scan_prefixed(cf::CATALOG, Kind::Catalog, prefix)?)
    }
}

impl Storage {
    /// All checks of a step that can be made now, and all its encoding.
    fn encode_step(&self, step: Step, answer: SyncSender<Outcome>) -> Result<StepJob, StorageError> {
        let create_topics = step
            .create_topics
            .into_iter()
            .map(|spec| self.shared.check_new_topic(spec))
            .collect::<Result<Vec<_>, _>>()?;
        self.shared.check_new_topics(&create_topics)?;
        let mut bytes = 0;
        let mut appends = Vec::with_capacity(step.appends.len());
        for (place, records) in &step.appends {
            let batches = self.encode_append(*place, records)?;
            bytes += batches.iter().map(|b| b.bytes.len()).sum::<usize>();
            appends.push((self.shared.partition(*place)?, batches));
        }
        let pairs = |pairs: &[(Vec<u8>, Option<Vec<u8>>)]| -> usize {
            pairs.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum()
        };
        let ranges = |ranges: &[(Vec<u8>, Vec<u8>)]| -> usize { ranges.iter().map(|(a, b)| a.len() + b.len()).sum() };
        bytes += step.state.bytes() + pairs(&step.catalog) + ranges(&step.drop_state);
        let drop_cursors: Vec<_> = step
            .drop_cursors
            .iter()
            .map(|query| {
                let from = keys::cursors_of(query);
                let to = keys::after_prefix(&from);
                (from, to)
            })
            .collect();
        let cursors: Vec<_> = step.cursors.iter().map(|c| (keys::cursor(&c.query, c.source), c.offset)).collect();
        bytes += ranges(&drop_cursors) + cursors.iter().map(|(key, _)| key.len() + 8).sum::<usize>();
        let max = self.shared.options.step_bytes_max;
        if bytes > max {
            return Err(StorageError::InvalidRequest(format!(
                "the step writes {bytes} bytes, more than the limit \"step_bytes_max\", {max}"
            )));
        }
        let catalog = step.catalog.into_iter().map(|(key, value)| (keys::prefixed(Kind::Catalog, &key), value));
        Ok(StepJob {
            create_topics,
            delete_topics: step.delete_topics,
            appends,
            cursors,
            drop_cursors,
            state: step.state,
            drop_state: step.drop_state,
            catalog: catalog.collect(),
            bytes,
            answer,
        })
    }

    fn encode_append(&self, place: TopicPartition, records: &RecordBuffer) -> Result<Vec<ValidBatch>, StorageError> {
        let topic = self.shared.topic(place.topic)?;
        let settings = &topic.settings;
        let options = encode_options(settings, self.shared.options.clock.now_ms());
        let batches = encode(records, options).map_err(|e| {
            StorageError::InvalidRequest(format!(
                "record {} for topic \"{}\" needs a batch of {} bytes, more than the {} allowed",
                e.row, topic.name, e.size, e.max
            ))
        })?;
        if settings.compacted && batches.iter().any(|b| b.keyless) {
            return Err(StorageError::InvalidRequest(format!(
                "a record for the compacted topic \"{}\" has no key",
                topic.name
            )));
        }
        Ok(batches)
    }
}

//! Asks a broker for batches, and walks the records in them.
//!
//! Control batches are never shown; those of aborted transactions only where everything is read.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use millpond_broker::batch::{BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, RecordIter, decompress, is_intact};

use super::client::{Client, Isolation, Lane, Place, To};
use super::error::Error;
use super::topic_name;

pub const FETCH_BYTES_MAX: i32 = 32 << 20;
pub const PARTITION_BYTES_MAX: i32 = 4 << 20;
/// One batch when decompressed.
const BATCH_BYTES_MAX: usize = 256 << 20;
const MAGIC: i8 = 2;

/// A record where it lies.
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds; -1 where there is none.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// In wire form; empty: none.
    pub headers: &'a [u8],
}

/// One request to one broker. All partitions belong to one topic.
pub async fn fetch(
    client: &Client,
    broker: i32,
    wanted: &[(Place, i64)],
    isolation: Isolation,
    wait: Duration,
) -> Result<FetchResponse, Error> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic, partition), offset) in wanted {
        let one = FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(PARTITION_BYTES_MAX);
        match topics.iter_mut().find(|t| t.topic.0.as_str() == topic) {
            Some(topic) => topic.partitions.push(one),
            None => topics.push(FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![one])),
        }
    }
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(FETCH_BYTES_MAX)
        .with_isolation_level(isolation.number())
        .with_session_epoch(-1)
        .with_topics(topics);
    client.call_once(&To::Broker(broker), Lane::Fetch, &request, wait).await
}

/// Gives each record from an offset on to `each`, and returns where the next read goes on.
/// The error says which batch is damaged.
pub fn walk(
    topic: &str,
    answer: &PartitionData,
    from: i64,
    isolation: Isolation,
    mut each: impl FnMut(&Record<'_>) -> ControlFlow<()>,
) -> Result<i64, String> {
    let partition = answer.partition_index;
    let mut rest = answer.records.clone().unwrap_or_default();
    let mut next = from;
    let mut aborted = Aborted::new(answer.aborted_transactions.as_deref().unwrap_or_default());
    while let Some(header) = BatchHeader::parse(&rest) {
        let damaged = |why: &str| {
            format!("the batch at offset {} of partition {partition} of topic \"{topic}\" {why}", header.base_offset)
        };
        if header.magic != MAGIC {
            return Err(damaged("is in a form of before Kafka 0.11, which is not read"));
        }
        let size = usize::try_from(header.length).ok().map(|l| l + LENGTH_OVERHEAD);
        let Some(size) = size.filter(|size| *size >= HEADER_LEN) else {
            return Err(damaged("has an impossible length"));
        };
        // Brokers may cut the last one.
        if size > rest.len() {
            break;
        }
        let batch = rest.split_to(size);
        if !is_intact(&batch) {
            return Err(damaged("is damaged: its checksum is wrong"));
        }
        let end = header.last_offset().saturating_add(1);
        let skip = end <= next || header.is_control() || isolation == Isolation::Committed && aborted.holds(&header);
        if isolation == Isolation::Committed && header.is_control() {
            aborted.marker(&header, &batch);
        }
        if !skip {
            let codec = header.codec().ok_or_else(|| damaged("is compressed by an unknown codec"))?;
            let records = decompress(codec, &batch.slice(HEADER_LEN..), BATCH_BYTES_MAX)
                .map_err(|e| damaged(&format!("cannot be decompressed: {e}")))?;
            for raw in RecordIter::new(&records, header.count) {
                let raw = raw.map_err(&damaged)?;
                let offset = header.base_offset.saturating_add(i64::from(raw.offset_delta));
                if offset < next {
                    continue;
                }
                let record = Record {
                    topic,
                    partition,
                    offset,
                    timestamp: header.timestamp_of(raw.timestamp_delta),
                    key: raw.key.map(|k| k.of(&records)),
                    value: raw.value.map(|v| v.of(&records)),
                    headers: raw.headers.of(&records),
                };
                let flow = each(&record);
                next = offset.saturating_add(1);
                if flow.is_break() {
                    return Ok(next);
                }
            }
        }
        next = next.max(end);
    }
    Ok(next)
}

/// Which producers' open transactions end aborted, at the place that the walk has come to.
struct Aborted<'a> {
    ahead: Vec<&'a AbortedTransaction>,
    open: HashSet<i64>,
}

impl<'a> Aborted<'a> {
    fn new(told: &'a [AbortedTransaction]) -> Self {
        let mut ahead: Vec<_> = told.iter().collect();
        ahead.sort_by_key(|t| std::cmp::Reverse(t.first_offset));
        Self { ahead, open: HashSet::new() }
    }

    fn holds(&mut self, batch: &BatchHeader) -> bool {
        while let Some(transaction) = self.ahead.pop_if(|t| t.first_offset <= batch.last_offset()) {
            self.open.insert(transaction.producer_id.0);
        }
        batch.is_transactional() && self.open.contains(&batch.producer_id)
    }

    fn marker(&mut self, header: &BatchHeader, batch: &Bytes) {
        // Key of the one record: version i16, then type i16, 0 for abort.
        let records = batch.slice(HEADER_LEN.min(batch.len())..);
        let key = RecordIter::new(&records, header.count).next().and_then(Result::ok).and_then(|r| r.key);
        if key.map(|k| k.of(&records)).and_then(|k| k.get(2..4)) == Some(&[0, 0]) {
            self.open.remove(&header.producer_id);
        }
    }
}

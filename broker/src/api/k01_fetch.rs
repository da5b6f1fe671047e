//! Fetch (1), versions 4 to 12.
//!
//! Batches go from storage to the socket as they lie. The first partition that has something gives at least one whole
//! batch whatever the limits; later ones stay within them. Where less than min_bytes is there the answer waits for
//! appends, moves of the log's start or the topic's end, and for max_wait_ms at most. Sessions are never made: the
//! answer always has session 0 and every partition that was asked for; whoever goes on with a session is told that it is
//! not known.
//!
//! Ignored: replica_id, log_start_offset and last_fetched_epoch (followers' fields), forgotten topics (sessions'), rack.
//! Who asks for committed data gets what lies below the last stable offset, aborted batches and markers included, and
//! the list of the aborted transactions among it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use millpond_types::TopicPartition;
use tokio::time::Instant;

use super::topics::{at_once, check_epoch, partition};
use super::{Refusal, Request, Shared};
use crate::batch::Codec;
use crate::security::acl::Operation;
use crate::storage::{FetchLimits, Fetched, Storage, StorageError};
use crate::wire::{Builder, Error, Reply};

const READ_COMMITTED: i8 = 1;

/// An answer may have so many bytes, however short memory is.
const ANSWER_BYTES_MIN: usize = 64 << 10;

/// What is read of one partition.
#[derive(Clone)]
struct Part {
    index: i32,
    from: i64,
    bytes_max: usize,
    /// Where to read; or why not.
    id: Result<TopicPartition, i16>,
}

#[derive(Clone)]
struct Plan {
    topics: Vec<(Bytes, Vec<Part>)>,
    bytes_max: usize,
    /// Codecs that the client would not understand are errors.
    without_zstd: bool,
    /// Only what is decided, with the list of what was aborted.
    committed: bool,
}

/// What came of a partition.
enum Read {
    Data(Fetched),
    Failed { code: i16, start: i64, end: i64 },
}

struct Round {
    parts: Vec<Read>,
    bytes: usize,
    failed: bool,
}

pub(super) async fn handle(shared: &Arc<Shared>, request: &Request) -> Result<Reply, Error> {
    let asked: FetchRequest = request.decode()?;
    if asked.session_epoch > 0 {
        return refuse_session(request, &asked);
    }
    let plan = plan(shared, request, &asked);
    let watched: Vec<TopicPartition> =
        plan.topics.iter().flat_map(|(_, parts)| parts).filter_map(|part| part.id.ok()).collect();
    let min_bytes = usize::try_from(asked.min_bytes).unwrap_or(0).min(plan.bytes_max.max(1));
    let wait = Duration::from_millis(u64::try_from(asked.max_wait_ms).unwrap_or(0)).min(shared.settings.fetch_wait_max);
    let until = Instant::now() + wait;
    let mut watch = (!wait.is_zero() && !watched.is_empty()).then(|| shared.storage.watch(&watched));
    let (round, room) = loop {
        // Counted while it is read and sent, not while nothing is there: where memory is short the answer is smaller.
        let asked = plan.bytes_max;
        let mut room = shared.settings.fetch_memory.reserve_between(asked.min(ANSWER_BYTES_MIN), asked);
        let round = read(shared, &Plan { bytes_max: room.bytes(), ..plan.clone() }).await;
        let enough = round.bytes >= min_bytes.min(room.bytes().max(1));
        room.set(round.bytes);
        if round.failed || enough || Instant::now() >= until {
            break (round, room);
        }
        let Some(watch) = &mut watch else { break (round, room) };
        if tokio::time::timeout_at(until, watch.changed()).await.is_err() {
            break (round, room);
        }
    };
    Ok(match respond(request, &plan, round)? {
        Reply::Response(response) => Reply::Response(response.holding(room)),
        other => other,
    })
}

fn refuse_session(request: &Request, asked: &FetchRequest) -> Result<Reply, Error> {
    let error = match asked.session_id {
        0 => ResponseError::InvalidFetchSessionEpoch,
        _ => ResponseError::FetchSessionIdNotFound,
    };
    request.respond(&FetchResponse::default().with_error_code(error.code()))
}

fn plan(shared: &Shared, request: &Request, asked: &FetchRequest) -> Plan {
    let limit = |bytes: i32| usize::try_from(bytes).unwrap_or(0).min(shared.settings.fetch_bytes_max);
    let part = |name: &str, may: &Result<(), Refusal>, p: &FetchPartition| {
        let id = may
            .clone()
            .and_then(|()| partition(&shared.storage, name, p.partition))
            .and_then(|(_, id)| check_epoch(&shared.storage, p.current_leader_epoch).map(|()| id))
            .map_err(|refusal: Refusal| refusal.code());
        Part { index: p.partition, from: p.fetch_offset, bytes_max: limit(p.partition_max_bytes), id }
    };
    let topics = asked
        .topics
        .iter()
        .map(|t| {
            let may = shared.check_topic(&request.caller, Operation::Read, &t.topic);
            (t.topic.0.clone().into_bytes(), t.partitions.iter().map(|p| part(&t.topic, &may, p)).collect())
        })
        .collect();
    let committed = asked.isolation_level == READ_COMMITTED;
    Plan {
        topics,
        bytes_max: limit(asked.max_bytes).min(at_once(shared, request)),
        without_zstd: request.head.version < 10,
        committed,
    }
}

/// Reads what is there, from memory if all of it is; otherwise on a thread that may block.
async fn read(shared: &Arc<Shared>, plan: &Plan) -> Round {
    let hot = |id, from, limits| shared.storage.fetch_hot(id, from, limits);
    if let Some(round) = read_with(&shared.storage, plan, hot) {
        return round;
    }
    let Ok(_permit) = shared.disk_reads.acquire().await else { return failed(plan) };
    let (storage, plan) = (shared.storage.clone(), plan.clone());
    let whole = plan.clone();
    let task = tokio::task::spawn_blocking(move || {
        read_with(&storage, &plan, |id, from, limits| storage.fetch(id, from, limits).map(Some))
    });
    task.await.ok().flatten().unwrap_or_else(|| failed(&whole))
}

fn failed(plan: &Plan) -> Round {
    let code = ResponseError::KafkaStorageError.code();
    let parts = plan.topics.iter().flat_map(|(_, parts)| parts).map(|_| Read::Failed { code, start: -1, end: -1 });
    Round { parts: parts.collect(), bytes: 0, failed: true }
}

/// One pass over all partitions. `None`: `fetch` could not without blocking.
fn read_with(
    storage: &Storage,
    plan: &Plan,
    fetch: impl Fn(TopicPartition, i64, FetchLimits) -> Result<Option<Fetched>, StorageError>,
) -> Option<Round> {
    let mut round = Round { parts: Vec::new(), bytes: 0, failed: false };
    for part in plan.topics.iter().flat_map(|(_, parts)| parts) {
        let left = plan.bytes_max.saturating_sub(round.bytes);
        let limits = FetchLimits {
            bytes_max: part.bytes_max.min(left),
            at_least_one: round.bytes == 0,
            committed: plan.committed,
        };
        let result = match part.id {
            Err(code) => Err(code),
            Ok(id) => match fetch(id, part.from, limits) {
                Ok(None) => return None,
                Ok(Some(data)) if plan.without_zstd && has_zstd(&data) => {
                    Err(ResponseError::UnsupportedCompressionType.code())
                }
                Ok(Some(data)) => Ok(data),
                Err(error) => Err(super::code_by_name(&error).code()),
            },
        };
        round.parts.push(match result {
            Ok(data) => {
                round.bytes += data.bytes;
                Read::Data(data)
            }
            Err(code) => {
                round.failed = true;
                let offsets = part.id.ok().and_then(|id| storage.partition_offsets(id).ok());
                let (start, end) = offsets.map_or((-1, -1), |o| (o.start, o.end));
                Read::Failed { code, start, end }
            }
        });
    }
    Some(round)
}

fn has_zstd(data: &Fetched) -> bool {
    data.batches.iter().any(|bytes| {
        let mut rest: &[u8] = bytes;
        while let Some(header) = rest.get(..23) {
            let length = i32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            if Codec::of_attributes(i16::from_be_bytes([header[21], header[22]])) == Some(Codec::Zstd) {
                return true;
            }
            let Some(next) = usize::try_from(length).ok().and_then(|n| rest.get(12 + n..)) else { break };
            rest = next;
        }
        false
    })
}

/// Writes the response by hand, so that the batches are not copied.
fn respond(request: &Request, plan: &Plan, round: Round) -> Result<Reply, Error> {
    let version = request.head.version;
    let flexible = version >= 12;
    let mut out = Builder::new(&request.head, flexible, 64 + 96 * round.parts.len());
    out.head().put_i32(0); // throttle_time_ms
    if version >= 7 {
        out.head().put_i16(0); // error_code
        out.head().put_i32(0); // session_id
    }
    put_count(out.head(), plan.topics.len(), flexible);
    let mut reads = round.parts.into_iter();
    for (name, parts) in &plan.topics {
        put_text(out.head(), name, flexible);
        put_count(out.head(), parts.len(), flexible);
        for (part, read) in parts.iter().zip(&mut reads) {
            let (code, data) = match read {
                Read::Data(data) => (0, data),
                Read::Failed { code, start, end } => {
                    let data = Fetched {
                        high_watermark: end,
                        last_stable_offset: end,
                        log_start_offset: start,
                        ..Fetched::default()
                    };
                    (code, data)
                }
            };
            put_partition(&mut out, part.index, code, data, version, plan.committed);
        }
        if flexible {
            out.head().put_u8(0);
        }
    }
    if flexible {
        out.head().put_u8(0);
    }
    out.finish().map(Reply::Response)
}

fn put_partition(out: &mut Builder, index: i32, code: i16, data: Fetched, version: i16, committed: bool) {
    let flexible = version >= 12;
    let head = out.head();
    head.put_i32(index);
    head.put_i16(code);
    head.put_i64(data.high_watermark);
    head.put_i64(data.last_stable_offset);
    if version >= 5 {
        head.put_i64(data.log_start_offset);
    }
    // Null for those who do not ask for committed data only.
    match (flexible, committed) {
        (true, false) => head.put_u8(0),
        (false, false) => head.put_i32(-1),
        (_, true) => put_count(head, data.aborted.len(), flexible),
    }
    for aborted in data.aborted.iter().filter(|_| committed) {
        head.put_i64(aborted.producer_id);
        head.put_i64(aborted.first_offset);
        if flexible {
            head.put_u8(0);
        }
    }
    if version >= 11 {
        head.put_i32(-1); // preferred_read_replica
    }
    // Records are empty where there are none, never null.
    let size: usize = data.batches.iter().map(Bytes::len).sum();
    if flexible {
        put_varint(head, size as u32 + 1);
    } else {
        head.put_i32(size as i32);
    }
    for batch in data.batches {
        out.piece(batch);
    }
    if flexible {
        out.head().put_u8(0);
    }
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_count(out: &mut BytesMut, count: usize, flexible: bool) {
    if flexible { put_varint(out, count as u32 + 1) } else { out.put_i32(count as i32) }
}

fn put_text(out: &mut BytesMut, text: &[u8], flexible: bool) {
    if flexible {
        put_varint(out, text.len() as u32 + 1)
    } else {
        out.put_i16(text.len() as i16)
    }
    out.put_slice(text);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Decodable;

    use super::*;
    use crate::storage::AbortedTransaction;
    use crate::wire::RequestHead;

    /// What is written by hand is what the codec reads.
    #[test]
    fn responses_are_the_codecs() {
        for version in 4..=12 {
            let head = RequestHead { key: 1, version, correlation_id: 7, client_id: None };
            let caller = Arc::new(crate::security::Caller::local());
            let request = Request { head, body: Bytes::new(), caller, api: super::super::find(1).unwrap() };
            let part = |index, id| Part { index, from: 0, bytes_max: 0, id };
            let id = TopicPartition { topic: millpond_types::TopicId([1; 16]), partition: 0 };
            let plan = Plan {
                topics: vec![(Bytes::from("t"), vec![part(0, Ok(id)), part(1, Err(3))]), (Bytes::from("u"), vec![])],
                bytes_max: 0,
                without_zstd: false,
                committed: true,
            };
            let data = Fetched {
                batches: vec![Bytes::from(vec![b'x'; 200]), Bytes::from("yz")],
                bytes: 202,
                high_watermark: 9,
                last_stable_offset: 8,
                log_start_offset: 1,
                aborted: vec![AbortedTransaction { producer_id: 5, first_offset: 2 }],
            };
            let parts = vec![Read::Data(data), Read::Failed { code: 3, start: -1, end: -1 }];
            let round = Round { parts, bytes: 202, failed: true };
            let Reply::Response(response) = respond(&request, &plan, round).unwrap() else { panic!() };
            let frame = response.pieces().concat();
            assert_eq!(frame.len(), response.size());
            assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
            let mut body = Bytes::from(frame).slice(if version >= 12 { 9 } else { 8 }..);
            let read = FetchResponse::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "v{version}");
            let [first, second] = &read.responses[0].partitions[..] else { panic!() };
            assert_eq!(first.records.as_ref().map(Bytes::len), Some(202));
            assert_eq!((first.high_watermark, first.last_stable_offset), (9, 8));
            let aborted = first.aborted_transactions.as_ref().unwrap();
            assert_eq!((aborted.len(), aborted[0].producer_id.0, aborted[0].first_offset), (1, 5, 2));
            assert_eq!(second.aborted_transactions, Some(vec![]));
            assert_eq!((second.error_code, second.records.as_ref().map(Bytes::len)), (3, Some(0)));
            assert_eq!(read.responses.len(), 2);
        }
    }
}

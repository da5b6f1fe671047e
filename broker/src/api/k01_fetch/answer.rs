//! The response of a fetch, written by hand, so that the batches are not copied.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;

use super::Read;
use super::sessions::{Named, Part};
use crate::api::topics::advertised;
use crate::api::{Request, Shared};
use crate::storage::Fetched;
use crate::wire::{Builder, Error, Reply};

/// First version with lengths as varints, and tagged fields.
const FLEXIBLE: i16 = 12;
/// First version that says where leaders are found.
const ENDPOINTS: i16 = 16;
const TAG_CURRENT_LEADER: u32 = 1;
const TAG_ENDPOINTS: u32 = 0;

pub(super) struct Answered<'a> {
    pub part: &'a Part,
    pub read: Read,
}

/// Parts of one topic that follow each other go under one head.
pub(super) fn respond(
    shared: &Shared,
    request: &Request,
    session: i32,
    committed: bool,
    answers: Vec<Answered<'_>>,
) -> Result<Reply, Error> {
    let fenced = |a: &Answered<'_>| matches!(a.read, Read::Failed { code, .. } if is_about_leaders(code));
    let leader = answers.iter().any(fenced).then(|| {
        let (host, port) = advertised(&request.caller);
        Leader { node: shared.storage.node_id(), epoch: shared.storage.leader_epoch(), host, port }
    });
    write(request, session, committed, answers, leader.as_ref())
}

/// Where the leader is, for clients that believe in another one.
struct Leader {
    node: i32,
    epoch: i32,
    host: String,
    port: i32,
}

fn is_about_leaders(code: i16) -> bool {
    code == ResponseError::FencedLeaderEpoch.code() || code == ResponseError::NotLeaderOrFollower.code()
}

fn is_missing(code: i16) -> bool {
    use ResponseError::{TopicAuthorizationFailed, UnknownTopicId, UnknownTopicOrPartition};
    [UnknownTopicOrPartition, UnknownTopicId, TopicAuthorizationFailed].into_iter().any(|error| error.code() == code)
}

fn write(
    request: &Request,
    session: i32,
    committed: bool,
    answers: Vec<Answered<'_>>,
    leader: Option<&Leader>,
) -> Result<Reply, Error> {
    let version = request.head.version;
    let flexible = version >= FLEXIBLE;
    let mut out = Builder::new(&request.head, flexible, 64 + 96 * answers.len());
    out.head().put_i32(0); // throttle_time_ms
    if version >= 7 {
        out.head().put_i16(0); // error_code
        out.head().put_i32(session);
    }
    let same =
        |a: &Answered<'_>, b: &Answered<'_>| Arc::ptr_eq(&a.part.topic, &b.part.topic) || a.part.topic == b.part.topic;
    // How many parts each run of one topic has, the last run first.
    let mut runs: Vec<usize> = answers.chunk_by(same).map(<[_]>::len).collect();
    put_count(out.head(), runs.len(), flexible);
    runs.reverse();
    let mut left = 0;
    for Answered { part, read } in answers {
        if left == 0 {
            left = runs.pop().unwrap_or(1);
            match &*part.topic {
                Named::Id(id) => out.head().put_slice(id.as_bytes()),
                Named::Name(name) => put_text(out.head(), name.as_bytes(), flexible),
            }
            put_count(out.head(), left, flexible);
        }
        put_partition(&mut out, part.index, read, version, committed, leader);
        left -= 1;
        if left == 0 && flexible {
            out.head().put_u8(0);
        }
    }
    if flexible {
        match leader.filter(|_| version >= ENDPOINTS) {
            None => out.head().put_u8(0),
            Some(leader) => {
                let mut field = BytesMut::new();
                put_count(&mut field, 1, true);
                field.put_i32(leader.node);
                put_text(&mut field, leader.host.as_bytes(), true);
                field.put_i32(leader.port);
                field.put_u8(0); // no rack
                field.put_u8(0);
                put_tagged(out.head(), TAG_ENDPOINTS, &field);
            }
        }
    }
    out.finish().map(Reply::Response)
}

fn put_partition(out: &mut Builder, index: i32, read: Read, version: i16, committed: bool, leader: Option<&Leader>) {
    let (code, data) = match read {
        Read::Data(data) => (0, data),
        // Kafka tells no offsets to those who are out of range.
        Read::Failed { code, .. } if code == ResponseError::OffsetOutOfRange.code() => {
            let unknown =
                Fetched { high_watermark: -1, last_stable_offset: -1, log_start_offset: -1, ..Fetched::default() };
            (code, unknown)
        }
        Read::Failed { code, start, end } => {
            let offsets =
                Fetched { high_watermark: end, last_stable_offset: end, log_start_offset: start, ..Fetched::default() };
            (code, offsets)
        }
    };
    let flexible = version >= FLEXIBLE;
    let head = out.head();
    head.put_i32(index);
    head.put_i16(code);
    head.put_i64(data.high_watermark);
    head.put_i64(data.last_stable_offset);
    if version >= 5 {
        head.put_i64(data.log_start_offset);
    }
    // Null for those who do not ask for committed data only, but for partitions that are not there.
    match (flexible, committed || is_missing(code)) {
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
        match leader.filter(|_| is_about_leaders(code)) {
            None => out.head().put_u8(0),
            Some(leader) => {
                let mut field = BytesMut::new();
                field.put_i32(leader.node);
                field.put_i32(leader.epoch);
                field.put_u8(0);
                put_tagged(out.head(), TAG_CURRENT_LEADER, &field);
            }
        }
    }
}

/// The one tagged field of a struct.
fn put_tagged(out: &mut BytesMut, tag: u32, field: &[u8]) {
    put_varint(out, 1);
    put_varint(out, tag);
    put_varint(out, field.len() as u32);
    out.put_slice(field);
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The length of an array.
pub(in crate::api) fn put_count(out: &mut BytesMut, count: usize, flexible: bool) {
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
    use kafka_protocol::messages::FetchResponse;
    use kafka_protocol::protocol::Decodable;
    use uuid::Uuid;

    use super::*;
    use crate::security::Caller;
    use crate::storage::AbortedTransaction;
    use crate::wire::RequestHead;

    /// What is written by hand is what the codec reads.
    #[test]
    fn responses_are_the_codecs() {
        for version in 4..=18 {
            let head = RequestHead { key: 1, version, correlation_id: 7, client_id: None };
            let (api, caller) = (crate::api::find(1).unwrap(), Arc::new(Caller::local()));
            let request = Request { head, body: Bytes::new(), caller, api };
            let topic = |name: &'static str, id| {
                Arc::new(if version >= 13 { Named::Id(Uuid::from_u128(id)) } else { Named::Name(name.into()) })
            };
            let (t, u) = (topic("t", 7), topic("u", 8));
            let part = |topic: &Arc<Named>, index| Part {
                topic: Arc::clone(topic),
                index,
                from: 0,
                bytes_max: 0,
                epoch: -1,
                id: Err(3),
                name: None,
            };
            let data = Fetched {
                batches: vec![Bytes::from(vec![b'x'; 200]), Bytes::from("yz")],
                bytes: 202,
                high_watermark: 9,
                last_stable_offset: 8,
                log_start_offset: 1,
                aborted: vec![AbortedTransaction { producer_id: 5, first_offset: 2 }],
                behind: None,
            };
            let failed = |code| Read::Failed { code, start: -1, end: -1 };
            let parts = [part(&t, 0), part(&t, 1), part(&u, 4), part(&t, 2)];
            let reads = [Read::Data(data), failed(3), failed(74), Read::Data(Fetched::default())];
            let answers = parts.iter().zip(reads).map(|(part, read)| Answered { part, read }).collect();
            let leader = Leader { node: 1, epoch: 5, host: "here".into(), port: 9092 };
            let Reply::Response(response) = write(&request, 77, true, answers, Some(&leader)).unwrap() else {
                panic!()
            };
            let frame = response.pieces().concat();
            assert_eq!(frame.len(), response.size());
            assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
            let mut body = Bytes::from(frame).slice(if version >= 12 { 9 } else { 8 }..);
            let read = FetchResponse::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "v{version}");
            assert_eq!(read.session_id, if version >= 7 { 77 } else { 0 });
            let names: Vec<_> = read.responses.iter().map(|t| (t.topic.to_string(), t.topic_id.as_u128())).collect();
            let expected = [("t", 7), ("u", 8), ("t", 7)].map(|(name, id)| match version {
                13.. => (String::new(), id),
                _ => (name.to_owned(), 0),
            });
            assert_eq!(names, expected);
            let [first, second] = &read.responses[0].partitions[..] else { panic!() };
            assert_eq!(first.records.as_ref().map(Bytes::len), Some(202));
            assert_eq!((first.high_watermark, first.last_stable_offset), (9, 8));
            let aborted = first.aborted_transactions.as_ref().unwrap();
            assert_eq!((aborted.len(), aborted[0].producer_id.0, aborted[0].first_offset), (1, 5, 2));
            assert_eq!(second.aborted_transactions, Some(vec![]));
            assert_eq!((second.error_code, second.records.as_ref().map(Bytes::len)), (3, Some(0)));
            let fenced = &read.responses[1].partitions[0];
            let told = (fenced.current_leader.leader_id.0, fenced.current_leader.leader_epoch);
            assert_eq!((fenced.error_code, told), (74, if version >= 12 { (1, 5) } else { (-1, -1) }));
            let endpoints: Vec<_> = read.node_endpoints.iter().map(|n| (n.node_id.0, n.port)).collect();
            assert_eq!(endpoints, if version >= 16 { vec![(1, 9092)] } else { vec![] });
        }
    }
}

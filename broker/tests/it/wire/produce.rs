//! What a topic's settings ask of produced batches, and what clients are told of those that are refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use millpond_broker::batch::{BatchHeader, Codec, EncodeOptions, encode, is_intact};
use millpond_broker::server::TopicGuard;
use millpond_broker::storage::Durability;
use millpond_types::Clock;
use millpond_types::record::RecordBuffer;

use super::answers::{fetch_request, produce_request};
use super::client::{Client, Server};
use crate::fixture::{Fixture, START_MS, batch, create};

fn send(client: &mut Client, topic: &str, version: i16, records: &Bytes) -> PartitionProduceResponse {
    let mut answer = client.call(version, &produce_request(topic, -1, records.clone()));
    answer.responses.remove(0).partition_responses.remove(0)
}

fn stored(client: &mut Client, topic: &str) -> (BatchHeader, Bytes) {
    let mut answer = client.call(11, &fetch_request(topic, 0, 1, 100));
    let bytes = answer.responses.remove(0).partitions.remove(0).records.unwrap();
    assert!(is_intact(&bytes));
    (BatchHeader::parse(&bytes).unwrap(), bytes)
}

/// Batches whose records have these keys, and a value of some size.
fn keyed(keys: &[Option<&str>], value: usize, codec: Codec) -> Bytes {
    let mut records = RecordBuffer::default();
    for key in keys {
        records.push(key.map(str::as_bytes), Some(&vec![b'v'; value]), START_MS, &[]);
    }
    let options =
        EncodeOptions { compression: codec.into(), batch_bytes_max: 1 << 22, log_append_time: None, room_before: 0 };
    encode(&records, options).unwrap().remove(0).bytes.into()
}

#[test]
fn each_refusal_has_its_code() {
    let server = Server::with(Fixture::with(|options| options.decompressed_bytes_max = 100_000), |_, _| {});
    let topic = |name: &str, configs: &[(&str, &str)]| create(server.storage(), name, configs);
    topic("small", &[("max.message.bytes", "500")]);
    topic("segment", &[("segment.bytes", "500")]);
    topic("times", &[("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "2000")]);
    topic("grows", &[("max.message.bytes", "500"), ("compression.type", "uncompressed")]);
    let mut client = server.client();
    let mut code = |topic: &str, records: &Bytes| {
        let answer = send(&mut client, topic, 9, records);
        assert_eq!(answer.base_offset == -1, answer.error_code != 0);
        ResponseError::try_from_code(answer.error_code)
    };
    assert_eq!(code("small", &keyed(&[None], 300, Codec::None)), None);
    assert_eq!(code("small", &keyed(&[None], 500, Codec::None)), Some(ResponseError::MessageTooLarge));
    assert_eq!(code("small", &keyed(&[None], 5000, Codec::Gzip)), None, "as it is sent");
    assert_eq!(
        code("grows", &keyed(&[None], 5000, Codec::Gzip)),
        Some(ResponseError::MessageTooLarge),
        "as it is kept"
    );
    assert_eq!(code("segment", &keyed(&[None], 500, Codec::None)), Some(ResponseError::RecordListTooLarge));
    for (time, wanted) in [
        (START_MS - 1000, None),
        (START_MS - 1001, Some(ResponseError::InvalidTimestamp)),
        (START_MS + 2000, None),
        (START_MS + 2001, Some(ResponseError::InvalidTimestamp)),
    ] {
        assert_eq!(code("times", &batch(&[("v", START_MS), ("w", time)], Codec::Lz4)), wanted, "{time}");
    }
    assert_eq!(
        code("small", &keyed(&[None], 100_000, Codec::Gzip)),
        Some(ResponseError::MessageTooLarge),
        "producers send what is in it in smaller ones"
    );
    assert_eq!(code("small", &Bytes::new()), Some(ResponseError::InvalidRecord));
    let mut torn = keyed(&[None], 300, Codec::None).to_vec();
    *torn.last_mut().unwrap() ^= 1;
    assert_eq!(code("small", &torn.into()), Some(ResponseError::CorruptMessage));
    assert_eq!(code("nowhere", &keyed(&[None], 1, Codec::None)), Some(ResponseError::UnknownTopicOrPartition));
}

/// A produce request of before version 7 must not hold it, whatever the topic keeps; what it holds otherwise a topic may keep in
/// it.
#[test]
fn zstd_is_refused_from_versions_that_came_before_it() {
    let server = Server::new();
    let mut client = server.client();
    let refused = ResponseError::UnsupportedCompressionType.code();
    for (topic, configured) in [("as-sent", "producer"), ("as-gzip", "gzip"), ("as-zstd", "zstd")] {
        create(server.storage(), topic, &[("compression.type", configured)]);
        let mut offset = 0;
        for codec in [Codec::Gzip, Codec::Zstd] {
            let records = keyed(&[Some("a")], 3000, codec);
            for version in 3..=12 {
                let answer = send(&mut client, topic, version, &records);
                let taken = version >= 7 || codec == Codec::Gzip;
                let wanted = if taken { (0, offset) } else { (refused, -1) };
                assert_eq!((answer.error_code, answer.base_offset), wanted, "{codec:?} {topic}, produce {version}");
                offset += i64::from(taken);
            }
        }
    }
}

#[test]
fn records_without_key_are_named_one_by_one() {
    let server = Server::new();
    create(server.storage(), "t", &[("cleanup.policy", "compact")]);
    let mut client = server.client();
    let records = keyed(&[Some("a"), None, Some("b"), None], 5, Codec::Snappy);
    for version in 3..=12 {
        let answer = send(&mut client, "t", version, &records);
        assert_eq!(answer.error_code, ResponseError::InvalidRecord.code());
        let named: Vec<i32> = answer.record_errors.iter().map(|r| r.batch_index).collect();
        if version >= 8 {
            assert_eq!(named, [1, 3]);
            let message = answer.record_errors[0].batch_index_error_message.as_deref().unwrap();
            assert_eq!(message, "records of a compacted topic need a key");
            assert!(answer.error_message.as_deref().unwrap().contains("record 1"), "{answer:?}");
        }
    }
    assert_eq!(send(&mut client, "t", 9, &keyed(&[Some("a")], 5, Codec::None)).base_offset, 0, "nothing was kept");
}

#[test]
fn times_and_codecs_are_the_topics() {
    let server = Server::new();
    // Long enough to be worth compressing.
    let (a, b) = ("a".repeat(300), "b".repeat(300));
    let sent = batch(&[(&a, START_MS - 20), (&b, START_MS - 10)], Codec::Gzip);
    let mut client = server.client();
    for (name, value, codec) in [
        ("producer", "producer", Codec::Gzip),
        ("none", "uncompressed", Codec::None),
        ("gzip", "gzip", Codec::Gzip),
        ("snappy", "snappy", Codec::Snappy),
        ("lz4", "lz4", Codec::Lz4),
        ("zstd", "zstd", Codec::Zstd),
    ] {
        for (stamp, time) in [("CreateTime", START_MS - 10), ("LogAppendTime", START_MS)] {
            let topic = format!("{name}-{stamp}");
            create(server.storage(), &topic, &[("compression.type", value), ("message.timestamp.type", stamp)]);
            let answer = send(&mut client, &topic, 9, &sent);
            let stamped = stamp == "LogAppendTime";
            assert_eq!(answer.log_append_time_ms, if stamped { START_MS } else { -1 });
            let (header, bytes) = stored(&mut client, &topic);
            assert_eq!((header.codec(), header.max_timestamp), (Some(codec), time), "{topic}");
            assert_eq!((header.is_log_append_time(), header.count, header.last_offset_delta), (stamped, 2, 1));
            let shown: Vec<_> = crate::compaction::records_of(&bytes).into_iter().map(|r| (r.2, r.3)).collect();
            let first = if stamped { START_MS } else { START_MS - 20 };
            assert_eq!(shown, [(Some(a.clone()), first), (Some(b.clone()), time)], "{topic}");
        }
    }
}

#[test]
fn zstd_is_sent_to_clients_of_every_version() {
    let server = Server::new();
    let mut client = server.client();
    let sent = keyed(&[Some("a")], 3000, Codec::Zstd);
    for (topic, value) in [("as-sent", "producer"), ("set", "zstd")] {
        create(server.storage(), topic, &[("compression.type", value)]);
        send(&mut client, topic, 9, &sent);
        for version in [4, 9, 10] {
            let mut answer = client.call(version, &fetch_request(topic, 0, 1, 100));
            let records = answer.responses.remove(0).partitions.remove(0).records.unwrap();
            assert_eq!(BatchHeader::parse(&records).unwrap().codec(), Some(Codec::Zstd), "{topic} v{version}");
        }
    }
}

/// A clock at which the thread that writes waits for as long as the test wants.
#[derive(Default)]
struct Gate(Mutex<()>);

impl Clock for Gate {
    fn now_ms(&self) -> i64 {
        if std::thread::current().name() == Some("storage-writer") {
            drop(self.0.lock());
        }
        START_MS
    }
}

/// Counts produce requests that have begun.
#[derive(Default)]
struct Begun(AtomicUsize);

impl TopicGuard for Begun {
    fn refuse_write(&self, _: &str) -> Option<String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        None
    }
}

#[test]
fn so_many_requests_of_a_connection_are_under_way_and_no_more() {
    let (gate, begun) = (Arc::new(Gate::default()), Arc::new(Begun::default()));
    let fixture = Fixture::with(|options| {
        options.clock = Arc::clone(&gate) as _;
        options.durability = Durability::Group;
    });
    let server = Server::with(fixture, |settings, hooks| {
        settings.pipelined_requests_max = 3;
        hooks.guard = Arc::clone(&begun) as _;
    });
    create(server.storage(), "t", &[]);
    let closed = gate.0.lock().unwrap();
    let mut client = server.client();
    let records = batch(&[("v", START_MS)], Codec::None);
    let sent: Vec<i32> = (0..10).map(|_| client.send(9, &produce_request("t", -1, records.clone()))).collect();
    let since = Instant::now();
    while begun.0.load(Ordering::SeqCst) < 3 {
        assert!(since.elapsed() < Duration::from_secs(30), "they wait for one another");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(begun.0.load(Ordering::SeqCst), 3);
    drop(closed);
    for (offset, correlation) in sent.into_iter().enumerate() {
        let answer = client.response::<ProduceRequest>(9, correlation);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset as i64));
    }
    assert_eq!(begun.0.load(Ordering::SeqCst), 10);
}

//! Produce, fetch, offsets, steps, state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_broker::batch::{BatchHeader, Codec};
use millpond_broker::configs::ChangedConfigs;
use millpond_broker::storage::{Durability, FetchLimits, ListedOffset, OffsetQuery, Storage, StorageError};
use millpond_types::ports::{Cursor, Outcome, ReadLimits, StateReader, StateStore, Step, TopicLog};
use millpond_types::record::RecordBuffer;
use millpond_types::{Clock, ErrorKind, TopicPartition};

use crate::fixture::{
    ALL, Fixture, START_MS, batch, block_on, crc32c_of, create, produce, read_all, send, spec, step, topic,
    with_producer,
};
use crate::transactions;

const EVERYTHING: FetchLimits = FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed: false };

fn records(rows: &[(&str, &str)]) -> RecordBuffer {
    let mut records = RecordBuffer::default();
    for (key, value) in rows {
        records.push(Some(key.as_bytes()), Some(value.as_bytes()), START_MS, &[]);
    }
    records
}

#[test]
fn batches_are_served_as_they_were_sent() {
    for tail_bytes in [0, 1 << 20] {
        let fixture = Fixture::with(|o| o.tail_bytes = tail_bytes);
        let place = create(&fixture.storage, "t", &[]);
        let mut sent = Vec::new();
        for (i, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate() {
            let batch = batch(&[("a", 1), ("b", 2)], codec);
            let appended = produce(&fixture.storage, place, &batch).unwrap();
            assert_eq!((appended.base_offset, appended.last_offset), (i as i64 * 2, i as i64 * 2 + 1));
            assert_eq!((appended.log_append_time_ms, appended.duplicate), (-1, false));
            sent.push(batch);
        }
        let fetched = fixture.storage.fetch(place, 3, EVERYTHING).unwrap();
        assert_eq!((fetched.high_watermark, fetched.log_start_offset), (10, 0));
        assert_eq!(fetched.batches.len(), 4, "the batch that contains the offset comes whole");
        for (i, batch) in fetched.batches.iter().enumerate() {
            let header = BatchHeader::parse(batch).unwrap();
            assert_eq!(header.base_offset, (i as i64 + 1) * 2);
            assert_eq!(header.leader_epoch, fixture.storage.leader_epoch());
            assert_eq!(batch[16..], sent[i + 1][16..]);
        }
        let values: String = read_all(&fixture.storage, place, 0).into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, "ababababab");
    }
}

#[test]
fn fetch_keeps_its_limits_and_tells_what_is_out_of_range() {
    for tail_bytes in [0, 1 << 20] {
        let fixture = Fixture::with(|o| o.tail_bytes = tail_bytes);
        let storage = &fixture.storage;
        let place = create(storage, "t", &[]);
        for _ in 0..10 {
            send(storage, place, &["0123456789"]);
        }
        let fetch = |offset, bytes_max, at_least_one| {
            storage
                .fetch(place, offset, FetchLimits { bytes_max, at_least_one, committed: false })
                .map(|f| f.batches.len())
        };
        let one = storage.fetch(place, 0, EVERYTHING).unwrap().bytes / 10;
        assert_eq!(fetch(0, one * 3, true), Ok(3));
        assert_eq!(fetch(0, 1, true), Ok(1));
        assert_eq!(fetch(0, 1, false), Ok(0));
        assert_eq!(fetch(10, 1000, true), Ok(0));
        let out_of_range = |offset| Err(StorageError::OffsetOutOfRange { offset, start: 0, end: 10 });
        assert_eq!(fetch(11, 1000, true), out_of_range(11));
        assert_eq!(fetch(-1, 1000, true), out_of_range(-1));
        assert_eq!(storage.fetch_hot(place, 0, EVERYTHING).unwrap().is_some(), tail_bytes > 0);
        let nowhere = TopicPartition { partition: 1, ..place };
        assert!(matches!(storage.fetch(nowhere, 0, EVERYTHING), Err(StorageError::UnknownTopicOrPartition(_))));
    }
}

#[test]
fn a_duplicate_is_answered_as_the_first_time_even_after_a_restart() {
    let mut fixture = Fixture::with(|o| o.tail_bytes = 0);
    let place = create(&fixture.storage, "t", &[]);
    let id = block_on(fixture.storage.allocate_producer_id()).unwrap();
    let batches: Vec<_> = (0..7).map(|i| with_producer(&batch(&[("v", START_MS)], Codec::None), id, 0, i)).collect();
    for (i, batch) in batches.iter().enumerate() {
        assert_eq!(produce(&fixture.storage, place, batch).unwrap().base_offset, i as i64);
    }
    for clean in [true, false] {
        fixture = fixture.reopen(clean);
        let storage = &fixture.storage;
        let again = produce(storage, place, &batches[3]).unwrap();
        assert_eq!((again.base_offset, again.duplicate), (3, true));
        assert!(matches!(produce(storage, place, &batches[0]), Err(StorageError::OutOfOrderSequence(_))));
        assert_eq!(storage.partition_offsets(place).unwrap().end, 7);
        assert!(block_on(storage.allocate_producer_id()).unwrap() > id);
    }
    let gap = with_producer(&batches[0], id, 0, 9);
    assert!(matches!(produce(&fixture.storage, place, &gap), Err(StorageError::OutOfOrderSequence(_))));
    let newer = with_producer(&batches[0], id, 1, 0);
    assert_eq!(produce(&fixture.storage, place, &newer).unwrap().base_offset, 7);
    let fenced = with_producer(&batches[0], id, 0, 7);
    assert!(matches!(produce(&fixture.storage, place, &fenced), Err(StorageError::InvalidProducerEpoch(_))));
}

#[test]
fn a_partition_remembers_so_many_producers() {
    let fixture = Fixture::with(|options| options.partition_producers_max = 2);
    let place = create(&fixture.storage, "t", &[]);
    let plain = batch(&[("v", START_MS)], Codec::None);
    let known = |fixture: &Fixture| {
        let all = fixture.storage.active_producers(place).unwrap();
        all.iter().map(|p| p.id).collect::<Vec<_>>()
    };
    for (time, id, wanted) in [(0, 7, vec![7]), (10, 5, vec![5, 7]), (20, 6, vec![5, 6]), (30, 8, vec![6, 8])] {
        fixture.clock.set(START_MS + time);
        produce(&fixture.storage, place, &with_producer(&plain, id, 0, 0)).unwrap();
        assert_eq!(known(&fixture), wanted, "the one that was idle longest makes room");
    }
    assert_eq!(known(&fixture.reopen(true)), [6, 8]);
}

#[test]
fn a_producer_that_rests_for_too_long_is_forgotten() {
    const EXPIRATION_MS: i64 = 10_000;
    for clean in [true, false] {
        let fixture = Fixture::with(|o| o.producer_expiration = Duration::from_millis(EXPIRATION_MS as u64));
        let storage = &fixture.storage;
        let place = create(storage, "t", &[]);
        let value = batch(&[("v", START_MS)], Codec::None);
        let send = |storage: &Storage, id, sequence| produce(storage, place, &with_producer(&value, id, 0, sequence));
        let known =
            |storage: &Storage| storage.active_producers(place).unwrap().iter().map(|p| p.id).collect::<Vec<_>>();
        let (resting, used, open) = (5, 6, 7);
        send(storage, resting, 0).unwrap();
        send(storage, used, 0).unwrap();
        transactions::add(storage, &[place], open, 0);
        produce(storage, place, &transactions::transactional(&["v"], open, 0, 0)).unwrap();

        fixture.clock.set(START_MS + EXPIRATION_MS);
        storage.retain().unwrap();
        assert_eq!(known(storage), [resting, used, open]);
        assert!(matches!(send(storage, resting, 40), Err(StorageError::OutOfOrderSequence(_))));
        send(storage, used, 1).unwrap();
        fixture.clock.set(START_MS + EXPIRATION_MS + 1);
        storage.retain().unwrap();
        assert_eq!(known(storage), [used, open]);

        let fixture = fixture.reopen(clean);
        let storage = &fixture.storage;
        assert_eq!(known(storage), [used, open]);
        let taken = send(storage, resting, 40).unwrap();
        assert!(!taken.duplicate, "any sequence may be the first of a producer that nothing is known of");
        assert!(matches!(send(storage, resting, 42), Err(StorageError::OutOfOrderSequence(_))), "it is known again");
        assert!(send(storage, resting, 40).unwrap().duplicate);
        assert!(send(storage, used, 1).unwrap().duplicate);
        assert!(matches!(send(storage, used, 3), Err(StorageError::OutOfOrderSequence(_))));
        transactions::end(storage, &[place], open, 0, true);
        assert_eq!(
            storage.partition_offsets(place).unwrap().stable_end,
            taken.last_offset + 2,
            "the marker is the last"
        );

        // Once its transaction is over, it rests as the others do.
        fixture.clock.set(START_MS + 3 * EXPIRATION_MS);
        storage.retain().unwrap();
        assert_eq!(known(storage), [0i64; 0]);
    }
}

#[test]
fn batches_of_one_write_are_checked_against_each_other() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let place = create(storage, "t", &[]);
    let value = batch(&[("v", START_MS)], Codec::None);
    let results = block_on(async {
        let mut pending = Vec::new();
        for sequence in [0, 1, 1, 3, 2] {
            let prepared = storage.prepare(place, &with_producer(&value, 5, 0, sequence)).await.unwrap();
            pending.push(storage.append(place, prepared).await.unwrap());
        }
        let mut results = Vec::new();
        for pending in pending {
            results.push(pending.await.map(|a| (a.base_offset, a.duplicate)).ok());
        }
        results
    });
    assert_eq!(results, [Some((0, false)), Some((1, false)), Some((1, true)), None, Some((2, false))]);
}

#[test]
fn offsets_are_found_by_time() {
    for tail_bytes in [0, 1 << 20] {
        // Small segments, so that they matter.
        let fixture = Fixture::with(|o| {
            o.tail_bytes = tail_bytes;
            o.segment_bytes = 150;
        });
        let storage = &fixture.storage;
        let place = create(storage, "t", &[]);
        let list = |what| storage.list_offset(place, what).map(|l| (l.offset, l.timestamp)).unwrap();
        assert_eq!(list(OffsetQuery::MaxTimestamp), (-1, -1));
        assert_eq!(list(OffsetQuery::Timestamp(0)), (-1, -1));
        let times: [&[i64]; 4] = [&[10, 20], &[15, 50, 30], &[40], &[50, 45]];
        for (i, batch_times) in times.iter().enumerate() {
            let rows: Vec<_> = batch_times.iter().map(|t| ("v", *t)).collect();
            let codec = if i % 2 == 0 { Codec::Lz4 } else { Codec::None };
            produce(storage, place, &batch(&rows, codec)).unwrap();
        }
        assert_eq!(list(OffsetQuery::Earliest), (0, -1));
        assert_eq!(list(OffsetQuery::Latest), (8, -1));
        assert_eq!(list(OffsetQuery::Timestamp(0)), (0, 10));
        assert_eq!(list(OffsetQuery::Timestamp(16)), (1, 20));
        assert_eq!(list(OffsetQuery::Timestamp(21)), (3, 50));
        assert_eq!(list(OffsetQuery::Timestamp(51)), (-1, -1));
        assert_eq!(list(OffsetQuery::MaxTimestamp), (3, 50));
        block_on(storage.delete_records(place, 4)).unwrap();
        assert_eq!(list(OffsetQuery::Earliest), (4, -1));
        assert_eq!(list(OffsetQuery::Timestamp(0)), (4, 30));
        assert_eq!(list(OffsetQuery::Timestamp(41)), (6, 50));
        assert_eq!(list(OffsetQuery::MaxTimestamp), (6, 50));
        assert_eq!(
            storage.list_offset(place, OffsetQuery::Timestamp(41)).unwrap(),
            ListedOffset { offset: 6, timestamp: 50, leader_epoch: storage.leader_epoch() }
        );
    }
}

#[test]
fn leader_epochs_end_where_the_next_begins() {
    let mut fixture = Fixture::new();
    let place = create(&fixture.storage, "t", &[]);
    let first = fixture.storage.leader_epoch();
    let end = |fixture: &Fixture, epoch| fixture.storage.epoch_end(place, epoch).unwrap();
    let listed = |fixture: &Fixture| {
        [OffsetQuery::Earliest, OffsetQuery::Latest, OffsetQuery::LatestStable]
            .map(|what| fixture.storage.list_offset(place, what).unwrap().leader_epoch)
    };
    assert_eq!((end(&fixture, first), end(&fixture, first - 1)), ((first, 0), (first - 1, 0)), "before any record");
    assert_eq!(listed(&fixture), [first; 3]);
    send(&fixture.storage, place, &["a", "b"]);
    // An epoch in which nothing was written leaves no trace.
    fixture = fixture.reopen(true).reopen(true);
    let third = fixture.storage.leader_epoch();
    assert_eq!((end(&fixture, third), end(&fixture, third - 1)), ((third, 2), (first, 2)), "it may yet have records");
    assert_eq!(listed(&fixture), [first, third, third]);
    send(&fixture.storage, place, &["c"]);
    assert_eq!(end(&fixture, first - 1), (first - 1, 0), "it ended before the log began");
    assert_eq!(end(&fixture, third + 1), (-1, -1), "nobody knows of it yet");
    assert_eq!(end(&fixture, first), (first, 2));
    assert_eq!(end(&fixture, first + 1), (first, 2));
    assert_eq!(end(&fixture, third), (third, 3));
    block_on(fixture.storage.delete_records(place, -1)).unwrap();
    fixture = fixture.reopen(true);
    assert_eq!(listed(&fixture), [fixture.storage.leader_epoch(); 3], "nothing is left of an earlier one");
}

#[test]
fn deleted_records_are_gone_and_stay_gone() {
    for tail_bytes in [0, 1 << 20] {
        let mut fixture = Fixture::with(|o| o.tail_bytes = tail_bytes);
        let place = create(&fixture.storage, "t", &[]);
        send(&fixture.storage, place, &["a", "b", "c"]);
        send(&fixture.storage, place, &["d"]);
        let delete =
            |storage: &millpond_broker::storage::Storage, before| block_on(storage.delete_records(place, before));
        assert_eq!(delete(&fixture.storage, 2), Ok(2));
        assert_eq!(delete(&fixture.storage, 1), Ok(2), "never backwards");
        assert!(matches!(delete(&fixture.storage, 5), Err(StorageError::OffsetOutOfRange { .. })));
        for _ in 0..2 {
            let storage = &fixture.storage;
            assert_eq!(read_all(storage, place, 2), [(2, "c".to_owned()), (3, "d".to_owned())]);
            let gone = storage.read(place, 1, ALL).unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::NotFound);
            assert!(gone.message().contains("starts at 2"), "{gone}");
            assert!(matches!(storage.fetch(place, 1, EVERYTHING), Err(StorageError::OffsetOutOfRange { .. })));
            fixture = fixture.reopen(false);
        }
        assert_eq!(delete(&fixture.storage, -1), Ok(4));
        fixture = fixture.reopen(false);
        let offsets = fixture.storage.partition_offsets(place).unwrap();
        assert_eq!((offsets.start, offsets.end), (4, 4), "the end is kept though nothing is left");
        assert_eq!(send(&fixture.storage, place, &["e"]).base_offset, 4);
    }
}

#[test]
fn old_records_are_deleted() {
    let fixture = Fixture::with(|o| {
        o.retention_interval = Duration::from_millis(20);
        o.segment_bytes = 1;
    });
    let storage = &fixture.storage;
    let timed = create(storage, "timed", &[("retention.ms", "1000")]);
    let sized = create(storage, "sized", &[("retention.bytes", "150")]);
    let kept = create(storage, "kept", &[("cleanup.policy", "compact"), ("retention.ms", "1000")]);
    for place in [timed, sized, kept] {
        for i in 0..4 {
            produce(storage, place, &batch(&[("v", START_MS + i * 500)], Codec::None)).unwrap();
        }
    }
    fixture.clock.set(START_MS + 2001);
    let deadline = Instant::now() + Duration::from_secs(30);
    let start = |place| storage.partition_offsets(place).unwrap().start;
    while start(timed) != 3 || start(sized) != 1 {
        assert!(Instant::now() < deadline, "timed {} sized {}", start(timed), start(sized));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(start(kept), 0);
    assert_eq!(storage.partition_bytes(sized).unwrap(), 3 * (storage.partition_bytes(timed).unwrap()));
}

#[test]
fn records_that_say_they_are_old_stay_for_a_while() {
    const GRACE_MS: i64 = 300_000;
    for clean in [false, true] {
        let mut fixture = Fixture::with(|o| {
            o.retention_grace = Duration::from_millis(GRACE_MS as u64);
            o.retention_interval = Duration::from_secs(3600);
            o.segment_bytes = 100;
        });
        let timed = create(&fixture.storage, "timed", &[("retention.ms", "1000")]);
        let sized = create(&fixture.storage, "sized", &[("retention.ms", "1000"), ("retention.bytes", "1")]);
        for place in [timed, sized] {
            for time in 0..3 {
                produce(&fixture.storage, place, &batch(&[("v", time)], Codec::None)).unwrap();
            }
        }
        let retained = |fixture: &Fixture, since_ms| {
            fixture.clock.set(START_MS + since_ms);
            fixture.storage.retain().unwrap();
            [timed, sized].map(|place| fixture.storage.partition_offsets(place).unwrap().start)
        };
        assert_eq!(retained(&fixture, GRACE_MS - 1), [0, 2], "what is too much goes at once");
        fixture = fixture.reopen(clean);
        assert_eq!(retained(&fixture, GRACE_MS - 1), [0, 2]);
        // When the last was appended is known of what was closed; of the rest it may be the start.
        let left = if clean { 3 } else { 2 };
        assert_eq!(retained(&fixture, GRACE_MS), [left, left]);
        assert_eq!(retained(&fixture, 2 * GRACE_MS - 2), [left, left]);
        assert_eq!(retained(&fixture, 2 * GRACE_MS - 1), [3, 3]);
    }
}

#[test]
fn topics_compress_at_their_levels() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let text: String = (0u32..9_000).map(|i| format!("{:x} ", i.wrapping_mul(i).wrapping_mul(40_503) >> 18)).collect();
    let bytes_of = |place| storage.partition_bytes(place).unwrap();
    let kept = |name: &str, codec: &str, level: Option<&str>, sent: Codec| {
        let key = format!("compression.{codec}.level");
        let level = level.map(|level| (key.as_str(), level));
        let configs: Vec<_> = [("compression.type", codec)].into_iter().chain(level).collect();
        let place = create(storage, &format!("{name}-{codec}-{sent:?}"), &configs);
        produce(storage, place, &batch(&[(&text, START_MS)], sent)).unwrap();
        assert_eq!(read_all(storage, place, 0), [(0, text.clone())], "{name} {codec}");
        bytes_of(place)
    };
    for (codec, own, low, high) in
        [("gzip", Codec::Gzip, "1", "9"), ("lz4", Codec::Lz4, "9", "17"), ("zstd", Codec::Zstd, "-100", "19")]
    {
        let (most, least) = (kept("low", codec, Some(low), Codec::None), kept("high", codec, Some(high), Codec::None));
        assert!(least < most, "{codec}: {least} bytes at level {high}, {most} at {low}");
        // What comes in the topic's codec is kept as it was sent.
        assert_eq!(kept("low", codec, Some(low), own), kept("high", codec, Some(high), own), "{codec}");
    }
    // What queries write too, and what the broker says where the topic says nothing.
    let written = |name: &str| {
        let place = create(storage, name, &[("compression.type", "gzip")]);
        let written = step(storage, Step { appends: vec![(place, records(&[("k", &text)]))], ..Step::default() });
        assert!(matches!(written, Outcome::Committed { .. }), "{written:?}");
        (bytes_of(place), kept(name, "gzip", None, Codec::None))
    };
    let default = written("default");
    let cluster = [("compression.gzip.level".to_owned(), "1".to_owned())].into();
    block_on(storage.set_broker_configs(ChangedConfigs { cluster, ..ChangedConfigs::default() })).unwrap();
    let fast = written("fast");
    assert!(default.0 < fast.0 && default.1 < fast.1, "{default:?} {fast:?}");
}

#[test]
fn times_of_the_log_are_in_the_order_of_offsets() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("message.timestamp.type", "LogAppendTime")]);
    let value = batch(&[("v", 5)], Codec::Lz4);
    let produced = with_producer(&batch(&[("p", 5)], Codec::None), 7, 0, 0);
    // Checked in the order in which they were sent, and queued in another: there was no room for the first.
    let prepared: Vec<_> = [&value, &produced, &value]
        .into_iter()
        .map(|batch| {
            fixture.clock.set(fixture.clock.now_ms() + 10);
            block_on(storage.prepare(place, batch)).unwrap()
        })
        .collect();
    let mut told = Vec::new();
    for prepared in prepared.into_iter().rev() {
        fixture.clock.set(fixture.clock.now_ms() + 1);
        told.push(block_on(async { storage.append(place, prepared).await?.await }).unwrap().log_append_time_ms);
    }
    assert_eq!(told, [START_MS + 31, START_MS + 32, START_MS + 33]);
    let batches = storage.fetch(place, 0, EVERYTHING).unwrap().batches;
    let headers = batches.iter().map(|batch| BatchHeader::parse(batch).unwrap());
    assert!(headers.clone().all(|header| header.is_log_append_time()));
    assert_eq!(headers.map(|header| header.max_timestamp).collect::<Vec<_>>(), told);
    for batch in &batches {
        assert_eq!(batch[17..21], crc32c_of(&batch[21..]).to_be_bytes(), "it is sealed anew");
    }
    let found = storage.list_offset(place, OffsetQuery::Timestamp(told[1])).unwrap();
    assert_eq!((found.offset, found.timestamp), (1, told[1]));
    let again = produce(storage, place, &produced).unwrap();
    assert_eq!((again.duplicate, again.log_append_time_ms), (true, told[1]), "what was told is remembered");
}

#[test]
fn topics_come_change_and_go() {
    let mut fixture = Fixture::new();
    let storage = &fixture.storage;
    let id = block_on(storage.create_topic(spec("t", 2, &[("retention.ms", "5")]))).unwrap().id;
    let again = block_on(storage.create_topic(spec("t", 1, &[])));
    assert_eq!(again.err(), Some(StorageError::TopicExists("t".into())));
    assert!(matches!(storage.check_topic(&spec("a b", 1, &[])), Err(StorageError::InvalidTopic(_))));
    assert!(matches!(storage.check_topic(&spec("u", 0, &[])), Err(StorageError::InvalidPartitions(_))));
    assert!(matches!(storage.check_topic(&spec("u", 1, &[("no", "1")])), Err(StorageError::InvalidConfig(_))));
    assert_eq!(storage.check_topic(&spec("u", -1, &[])), Ok(()));
    let second = TopicPartition { topic: id, partition: 1 };
    send(storage, second, &["a"]);
    assert!(matches!(block_on(storage.add_partitions(id, 2)), Err(StorageError::InvalidPartitions(_))));
    block_on(storage.add_partitions(id, 3)).unwrap();
    block_on(storage.set_topic_configs(id, [("retention.ms".to_owned(), "6".to_owned())].into())).unwrap();
    send(storage, TopicPartition { topic: id, partition: 2 }, &["b"]);

    fixture = fixture.reopen(false);
    let storage = &fixture.storage;
    let info = topic(storage, "t");
    assert_eq!((info.id, info.partitions, info.configs["retention.ms"].as_str()), (id, 3, "6"));
    assert_eq!(read_all(storage, second, 0), [(0, "a".to_owned())]);

    block_on(storage.delete_topic(id)).unwrap();
    assert!(matches!(storage.fetch(second, 0, EVERYTHING), Err(StorageError::UnknownTopicId(_))));
    let reborn = create(storage, "t", &[]);
    assert_ne!(reborn.topic, id);
    assert_eq!(storage.partition_offsets(reborn).unwrap().end, 0);
    fixture = fixture.reopen(true);
    assert_eq!(fixture.storage.topics().len(), 1);
    assert_eq!(read_all(&fixture.storage, reborn, 0), []);
}

#[test]
fn a_step_is_one_write() {
    let mut fixture = Fixture::new();
    let storage = &fixture.storage;
    let input = create(storage, "in", &[]);
    let cursor = |query: &str, offset| Cursor { query: query.into(), source: input, offset };
    let first = Step {
        create_topics: vec![spec("out", 2, &[])],
        cursors: vec![cursor("q", 0), cursor("r", 1)],
        catalog: vec![(b"c/q".to_vec(), Some(b"plan".to_vec())), (b"d".to_vec(), Some(b"other".to_vec()))],
        ..Step::default()
    };
    let Outcome::Committed { created, .. } = step(storage, first) else { panic!("not committed") };
    let out = TopicPartition { topic: created[0].id, partition: 1 };
    let second = Step {
        appends: vec![(out, records(&[("k", "v"), ("k", "w")])), (input, records(&[("x", "y")]))],
        cursors: vec![cursor("q", 7)],
        drop_cursors: vec!["r".into()],
        state: vec![
            (b"a1".to_vec(), Some(b"1".to_vec())),
            (b"a2".to_vec(), Some(b"2".to_vec())),
            (b"b".to_vec(), Some(b"3".to_vec())),
        ]
        .into(),
        ..Step::default()
    };
    let Outcome::Committed { sequence, .. } = step(storage, second) else { panic!("not committed") };
    assert_eq!(storage.sequence(), sequence);
    let third = Step {
        drop_state: vec![(b"a".to_vec(), b"b".to_vec())],
        state: vec![(b"a2".to_vec(), Some(b"again".to_vec())), (b"b".to_vec(), None)].into(),
        ..Step::default()
    };
    assert!(matches!(step(storage, third), Outcome::Committed { .. }));

    for clean in [false, true] {
        let storage = &fixture.storage;
        assert_eq!(read_all(storage, out, 0), [(0, "v".to_owned()), (1, "w".to_owned())]);
        assert_eq!(storage.cursors("q").unwrap(), [cursor("q", 7)]);
        assert_eq!(storage.cursors("r").unwrap(), []);
        assert_eq!(storage.query_cursors().unwrap(), [cursor("q", 7)]);
        assert_eq!(storage.catalog(b"c/").unwrap(), [(b"c/q".to_vec(), Bytes::from("plan"))]);
        let state = storage.range(b"", b"z", false, 10).unwrap();
        assert_eq!(state, [(Bytes::from("a2"), Bytes::from("again"))]);
        assert_eq!(storage.sequence(), sequence);
        fixture = fixture.reopen(clean);
    }
}

#[test]
fn a_step_is_refused_whole() {
    let fixture = Fixture::with(|o| o.step_bytes_max = 10_000);
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("max.message.bytes", "500")]);
    let keyed = create(storage, "keyed", &[("cleanup.policy", "compact")]);
    let good = || Step {
        appends: vec![(place, records(&[("k", "v")]))],
        state: vec![(b"s".to_vec(), Some(vec![1]))].into(),
        ..Step::default()
    };
    let nowhere = TopicPartition { partition: 9, ..place };
    let large = "x".repeat(600);
    let mut keyless = RecordBuffer::default();
    keyless.push(None, Some(b"v"), 1, &[]);
    let bad = |change: &dyn Fn(&mut Step), words: &str| {
        let mut refused = good();
        change(&mut refused);
        match step(storage, refused) {
            Outcome::Fatal(message) => assert!(message.contains(words), "{message}"),
            other => panic!("{words}: {other:?}"),
        }
    };
    bad(&|s| s.appends.push((nowhere, records(&[("k", "v")]))), "partition 9");
    bad(&|s| s.appends.push((place, records(&[("k", &large)]))), "\"t\"");
    bad(&|s| s.appends.push((keyed, keyless.clone())), "no key");
    bad(&|s| s.state.push(b"l", Some(&[0; 10_000])), "step_bytes_max");
    bad(&|s| s.create_topics.push(spec("t", 1, &[])), "exists");
    bad(&|s| s.create_topics.extend([spec("u", 1, &[]), spec("u", 1, &[])]), "exists");
    bad(&|s| s.delete_topics.push(place.topic), "partition 0");
    assert_eq!(storage.partition_offsets(place).unwrap().end, 0);
    assert_eq!(storage.get(b"s").unwrap(), None);
    assert_eq!(storage.topics().len(), 2);
    assert!(matches!(step(storage, good()), Outcome::Committed { .. }));
}

#[test]
fn large_steps_become_several_batches() {
    let fixture = Fixture::with(|o| o.tail_bytes = 0);
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("max.message.bytes", "1000"), ("compression.type", "zstd")]);
    let rows: Vec<String> = (0..500).map(|i| format!("value {i}")).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|r| ("key", r.as_str())).collect();
    let all = Step { appends: vec![(place, records(&rows))], ..Step::default() };
    assert!(matches!(step(storage, all), Outcome::Committed { .. }));
    let fetched = storage.fetch(place, 0, EVERYTHING).unwrap();
    assert!(fetched.batches.len() > 5 && fetched.batches.iter().all(|b| b.len() <= 1000));
    assert!(fetched.batches.iter().all(|b| BatchHeader::parse(b).unwrap().codec() == Some(Codec::Zstd)));
    let read = read_all(storage, place, 0);
    assert!(read.iter().map(|(_, v)| v.as_str()).eq(rows.iter().map(|(_, v)| *v)));
}

#[test]
fn reads_stop_at_limits_and_sequences() {
    for tail_bytes in [0, 1 << 20] {
        let fixture = Fixture::with(|o| o.tail_bytes = tail_bytes);
        let storage = &fixture.storage;
        let place = create(storage, "t", &[]);
        let first = send(storage, place, &["a", "b", "c"]);
        let other = create(storage, "u", &[]);
        let between = send(storage, other, &["x"]);
        let second = send(storage, place, &["d", "e"]);
        assert!(first.sequence < between.sequence && between.sequence < second.sequence);
        let read = |from, records_max, bytes_max, up_to| {
            let records = storage.read(place, from, ReadLimits { records_max, bytes_max, up_to }).unwrap();
            let offsets: Vec<i64> = records.views.iter().map(|v| v.offset).collect();
            (offsets, records.next_offset)
        };
        assert_eq!(read(0, 9, 999, u64::MAX), (vec![0, 1, 2, 3, 4], 5));
        assert_eq!(read(1, 9, 999, between.sequence), (vec![1, 2], 3));
        assert_eq!(read(1, 9, 999, first.sequence - 1), (vec![], 1));
        assert_eq!(read(1, 3, 999, u64::MAX), (vec![1, 2, 3], 4));
        assert_eq!(read(4, 9, 0, u64::MAX), (vec![4], 5));
        assert_eq!(read(5, 9, 999, u64::MAX), (vec![], 5));
        let records = storage.read(place, 2, ALL).unwrap();
        assert_eq!(records.views[0].sequence, first.sequence);
        assert_eq!(records.views[1].sequence, second.sequence);
        assert_eq!((records.key(1), records.stable_end), (Some(&b"k"[..]), 5));
    }
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let put = |pairs: &[(&str, Option<&str>)]| {
        let state = pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec()))).collect();
        assert!(matches!(step(storage, Step { state, ..Step::default() }), Outcome::Committed { .. }));
    };
    put(&[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    let snapshot = storage.snapshot();
    put(&[("a", None), ("b", Some("9")), ("d", Some("4"))]);
    let keys: [&[u8]; 4] = [b"d", b"a", b"b", b"a"];
    let found = |reader: &dyn StateReader| -> Vec<Option<Bytes>> { reader.multi_get(&keys).unwrap() };
    let some = |v: &str| Some(Bytes::copy_from_slice(v.as_bytes()));
    assert_eq!(found(&*snapshot), [None, some("1"), some("2"), some("1")]);
    assert_eq!(found(storage), [some("4"), None, some("9"), None]);
    let range = |reader: &dyn StateReader, reverse, max| -> String {
        let entries = reader.range(b"a", b"d", reverse, max).unwrap();
        entries.iter().map(|(k, v)| format!("{}{}", k[0] as char, v[0] as char)).collect()
    };
    assert_eq!(range(&*snapshot, false, 9), "a1b2c3");
    assert_eq!(range(&*snapshot, true, 2), "c3b2");
    assert_eq!(range(storage, false, 9), "b9c3");
    assert_eq!(storage.range(b"d", b"a", false, 9).unwrap(), []);
}

#[test]
fn those_who_wait_are_woken() {
    let fixture = Fixture::with(|o| o.durability = Durability::Group);
    let storage = Arc::new(fixture.storage.clone());
    let place = create(&storage, "t", &[]);
    let other = create(&storage, "u", &[]);
    let before = storage.sequence();
    assert_eq!(storage.wait_past(before, Duration::from_millis(1)), before);
    let waiting = {
        let storage = storage.clone();
        std::thread::spawn(move || storage.wait_past(before, Duration::from_secs(20)))
    };
    let watch = storage.watch(&[place]);
    send(&storage, other, &["x"]);
    assert_eq!(waiting.join().unwrap(), before + 1);
    block_on(async {
        let quiet = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
        assert!(quiet.is_err(), "another partition's append wakes nobody");
        let prepared = storage.prepare(place, &batch(&[("v", START_MS)], Codec::None)).await.unwrap();
        storage.append(place, prepared).await.unwrap().await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap();
        storage.delete_records(place, -1).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap();
        storage.delete_topic(place.topic).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap();
    });
}

#[test]
fn group_entries_are_kept_by_prefix() {
    let mut fixture = Fixture::new();
    let put = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    block_on(fixture.storage.group_write(vec![put("o/a", "1"), put("o/b", "2"), put("p", "3")])).unwrap();
    block_on(fixture.storage.group_write(vec![(b"o/a".to_vec(), None), put("o/c", "4")])).unwrap();
    fixture = fixture.reopen(false);
    let found = fixture.storage.group_scan(b"o/").unwrap();
    assert_eq!(found, [(b"o/b".to_vec(), Bytes::from("2")), (b"o/c".to_vec(), Bytes::from("4"))]);
    assert_eq!(fixture.storage.group_get(b"p").unwrap(), Some(Bytes::from("3")));
}

#[test]
fn the_log_may_stamp_the_time() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("message.timestamp.type", "LogAppendTime")]);
    let appended = produce(storage, place, &batch(&[("a", 1), ("b", 2)], Codec::Gzip)).unwrap();
    assert_eq!(appended.log_append_time_ms, START_MS);
    let stepped = Step { appends: vec![(place, records(&[("k", "v")]))], ..Step::default() };
    assert!(matches!(step(storage, stepped), Outcome::Committed { .. }));
    let records = storage.read(place, 0, ALL).unwrap();
    assert!(records.views.iter().all(|v| v.timestamp == START_MS), "{:?}", records.views);
}

#[test]
fn tails_of_many_partitions_share_one_budget() {
    let fixture = Fixture::with(|o| {
        o.tail_bytes = 1700;
        o.tail_partition_bytes = 1500;
    });
    let storage = &fixture.storage;
    let places: Vec<_> = (0..5).map(|i| create(storage, &format!("t{i}"), &[])).collect();
    let value = "v".repeat(300);
    for _ in 0..4 {
        for place in &places {
            send(storage, *place, &[&value]);
        }
    }
    let hot = |place, offset| storage.fetch_hot(place, offset, EVERYTHING).unwrap().is_some();
    assert!(hot(places[4], 3) && !hot(places[0], 3), "who appended longest ago loses its tail first");
    for place in places {
        assert_eq!(read_all(storage, place, 0).len(), 4);
    }
}

#[test]
fn tails_where_nobody_reads_are_short() {
    let fixture = Fixture::with(|o| {
        o.tail_partition_bytes = 8 << 10;
        o.tail_unread_bytes = 2 << 10;
    });
    let storage = &fixture.storage;
    let place = create(storage, "t", &[]);
    let value = "v".repeat(900);
    for _ in 0..20 {
        send(storage, place, &[&value]);
    }
    let hot = |offset| storage.fetch_hot(place, offset, EVERYTHING).unwrap().is_some();
    assert!(hot(20) && !hot(17), "2 KiB are not three batches");
    for end in 21..41 {
        send(storage, place, &[&value]);
        assert!(hot(end));
    }
    assert!(hot(35) && !hot(25), "8 KiB where somebody reads");
    for _ in 0..20 {
        send(storage, place, &[&value]);
    }
    assert!(!hot(57), "who stopped would not be served by 8 KiB either");
}

#[test]
fn what_was_read_ahead_is_what_lies_in_the_log() {
    let fixture = Fixture::with(|o| o.tail_bytes = 0);
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("cleanup.policy", "delete")]);
    let value = "v".repeat(70 << 10);
    for _ in 0..6 {
        send(storage, place, &[&value]);
    }
    let limits = FetchLimits { bytes_max: 100 << 10, at_least_one: true, committed: false };
    let mut offset = 0;
    for round in 0..6 {
        let hot = storage.fetch_hot(place, offset, limits).unwrap();
        assert_eq!(hot.is_some(), round > 0, "at {offset}");
        let fetched = hot.map_or_else(|| storage.fetch(place, offset, limits), Ok).unwrap();
        assert_eq!(fetched.batches.len(), 1);
        assert_eq!(BatchHeader::parse(&fetched.batches[0]).unwrap().base_offset, offset);
        offset = fetched.behind.unwrap();
        storage.read_ahead(place, offset, limits).unwrap();
    }
    assert_eq!((offset, storage.memory_used().iter().find(|(name, _)| *name == "read_ahead_bytes").unwrap().1), (6, 0));
    storage.read_ahead(place, 2, limits).unwrap();
    assert!(storage.fetch_hot(place, 2, limits).unwrap().is_some());
    block_on(storage.delete_records(place, 4)).unwrap();
    assert!(matches!(storage.fetch_hot(place, 2, limits), Err(StorageError::OffsetOutOfRange { .. })));
}

#[test]
fn what_lies_below_a_sequence_is_complete() {
    let fixture = Fixture::with(|o| {
        o.tail_bytes = 20_000;
        o.segment_bytes = 2000;
    });
    let storage = &fixture.storage;
    let places: Vec<_> = (0..3).map(|i| create(storage, &format!("t{i}"), &[])).collect();
    let below = |sequence| -> Vec<u64> {
        let limits = ReadLimits { up_to: sequence, ..ALL };
        let read = |place| {
            let (mut from, mut sequences) = (0, Vec::new());
            loop {
                let records = storage.read(place, from, limits).unwrap();
                sequences.extend(records.views.iter().map(|v| v.sequence));
                if records.next_offset == from {
                    return sequences;
                }
                from = records.next_offset;
            }
        };
        let mut all: Vec<u64> = places.iter().flat_map(|place| read(*place)).collect();
        all.sort_unstable();
        all
    };
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let places = &places;
            scope.spawn(move || {
                for i in 0..200 {
                    if (i + writer) % 3 == 0 {
                        let appends = places.iter().map(|p| (*p, records(&[("k", "step")]))).collect();
                        let outcome = step(storage, Step { appends, ..Step::default() });
                        assert!(matches!(outcome, Outcome::Committed { .. }));
                    } else {
                        send(storage, places[(i + writer) % 3], &["produced"]);
                    }
                }
            });
        }
        let mut sequence = 0;
        while sequence < 3 * (67 * 3 + 133) - 50 {
            sequence = storage.wait_past(sequence, Duration::from_secs(20));
            // One record per append here, so that each sequence up to this one is there once.
            assert!(below(sequence).into_iter().eq(1..=sequence), "not all of the first {sequence} are visible");
        }
    });
}

#[test]
fn a_watch_wakes_by_its_own_partitions_alone() {
    let fixture = Fixture::new();
    let (a, b) = (create(&fixture.storage, "a", &[]), create(&fixture.storage, "b", &[]));
    let wakeups = Arc::default();
    let (of_a, of_b) = (fixture.storage.watch_one(a, &wakeups, 7), fixture.storage.watch_one(b, &wakeups, 8));
    let watch = fixture.storage.watch(&[a]);
    let woken = |watch: &millpond_broker::storage::Watch| {
        block_on(async { tokio::time::timeout(Duration::from_millis(30), watch.changed()).await.is_ok() })
    };
    send(&fixture.storage, b, &["x"]);
    send(&fixture.storage, b, &["x"]);
    assert!(!woken(&watch));
    assert_eq!(wakeups.take(), [8], "marked once");
    send(&fixture.storage, b, &["x"]);
    assert!(wakeups.take().is_empty(), "not unmarked yet");
    of_b.unwrap().unmark();
    send(&fixture.storage, b, &["dropped"]);
    assert!(wakeups.take().is_empty());
    send(&fixture.storage, a, &["y"]);
    assert!(woken(&watch));
    assert_eq!(wakeups.take(), [7]);
    of_a.as_ref().unwrap().unmark();
    block_on(fixture.storage.delete_topic(a.topic)).unwrap();
    assert!(woken(&watch), "the topic's end is a change");
    assert_eq!(wakeups.take(), [7]);
}

/// Where nothing is forced to disk, batches are written by whoever waits for them; but nobody has to.
#[test]
fn what_nobody_waits_for_is_written() {
    for durability in [Durability::None, Durability::Interval(Duration::from_secs(3600)), Durability::Group] {
        let fixture = Fixture::with(|o| o.durability = durability);
        let place = create(&fixture.storage, "t", &[]);
        drop(append(&fixture.storage, place));
        let until = Instant::now() + Duration::from_secs(10);
        while fixture.storage.partition_offsets(place).unwrap().end == 0 {
            assert!(Instant::now() < until, "it is not written with {durability:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn append(storage: &Storage, place: TopicPartition) -> millpond_broker::storage::PendingAppend {
    block_on(async {
        let batch = storage.prepare(place, &batch(&[("a", 1)], Codec::None)).await.unwrap();
        storage.append(place, batch).await
    })
    .unwrap()
}

#[test]
fn there_is_room_for_more_than_one_queue_of_batches_before_any_is_waited_for() {
    let fixture = Fixture::with(|o| o.produce_queue_bytes = 2048);
    let place = create(&fixture.storage, "t", &[]);
    let pending: Vec<_> = (0..200).map(|_| append(&fixture.storage, place)).collect();
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(block_on(pending).unwrap().base_offset, i as i64);
    }
}

#[test]
fn many_who_append_at_once_have_one_order() {
    const TASKS: i64 = 8;
    const BATCHES: i64 = 300;
    for durability in [Durability::None, Durability::Group] {
        let fixture = Fixture::with(|o| o.durability = durability);
        let place = create(&fixture.storage, "t", &[]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let mut all = runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..TASKS {
                let storage = fixture.storage.clone();
                tasks.spawn(async move {
                    let mut offsets = Vec::new();
                    for i in 0..BATCHES / 3 {
                        // Some are more than one may write for itself, and some writes are no batches.
                        let value = "x".repeat(if i % 10 == 0 { 200_000 } else { 10 });
                        let mut pending = Vec::new();
                        for _ in 0..3 {
                            let batch = storage.prepare(place, &batch(&[(&value, 1)], Codec::None)).await.unwrap();
                            pending.push(storage.append(place, batch).await.unwrap());
                        }
                        if i % 20 == 0 {
                            storage.create_topic(spec(&format!("t-{task}-{i}"), 1, &[])).await.unwrap();
                        }
                        let before = offsets.len();
                        for pending in pending {
                            offsets.push(pending.await.unwrap().base_offset);
                        }
                        assert!(
                            offsets[before..].is_sorted()
                                && offsets[before..].iter().min() > offsets[..before].iter().max()
                        );
                    }
                    offsets
                });
            }
            tasks.join_all().await.concat()
        });
        all.sort_unstable();
        assert_eq!(all, (0..TASKS * BATCHES).collect::<Vec<_>>());
        assert_eq!(read_all(&fixture.storage, place, 0).len(), all.len());
    }
}

//! Log compaction as clients, queries and tools see it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond_broker::batch::{
    BatchHeader, Codec, EncodeOptions, HEADER_LEN, RecordIter, decompress, encode, is_intact,
};
use millpond_broker::storage::{AbortedTransaction, FetchLimits, OffsetQuery, Storage, StorageOptions};
use millpond_types::ports::{ReadLimits, TopicLog};
use millpond_types::record::{Header, RecordBuffer, encode_headers};
use millpond_types::{Offset, TopicPartition};

use crate::fixture::{ALL, Fixture, START_MS, block_on, create, produce, with_producer};
use crate::transactions::{add, end};

const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
const HOUR: Duration = Duration::from_secs(3600);

/// Each batch is a segment, all but the newest may be compacted, and nobody compacts but the test.
fn by_hand(options: &mut StorageOptions) {
    options.segment_bytes = 1;
    options.active_bytes_max = 0;
    options.compaction_interval = HOUR;
    options.retention_interval = HOUR;
}

type Row<'a> = (&'a str, Option<&'a str>);

pub fn keyed_at(rows: &[Row<'_>], codec: Codec, time: i64) -> Bytes {
    let mut records = RecordBuffer::default();
    for (i, (key, value)) in rows.iter().enumerate() {
        let header = |value: Option<Vec<u8>>| Header { key: "h".into(), value };
        let headers = encode_headers(&[header(None), header(Some(key.as_bytes().to_vec()))]);
        let headers = if i % 2 == 0 { &headers[..] } else { &[] };
        records.push(Some(key.as_bytes()), value.map(str::as_bytes), time, headers);
    }
    let options =
        EncodeOptions { compression: codec.into(), batch_bytes_max: 1 << 20, log_append_time: None, room_before: 0 };
    encode(&records, options).unwrap().remove(0).bytes.into()
}

pub fn keyed(rows: &[Row<'_>], codec: Codec) -> Bytes {
    keyed_at(rows, codec, START_MS)
}

fn put(storage: &Storage, place: TopicPartition, rows: &[Row<'_>]) -> Offset {
    produce(storage, place, &keyed(rows, Codec::None)).unwrap().base_offset
}

/// What a client makes of a batch: offset, key, value, time, headers.
type Record = (Offset, Option<String>, Option<String>, i64, Vec<u8>);

pub fn records_of(batch: &Bytes) -> Vec<Record> {
    assert!(is_intact(batch), "a checksum is wrong");
    let header = BatchHeader::parse(batch).unwrap();
    let bytes = decompress(header.codec().unwrap(), &batch.slice(HEADER_LEN..), 1 << 24).unwrap();
    let text = |s: millpond_broker::batch::Span| String::from_utf8(s.of(&bytes).to_vec()).unwrap();
    RecordIter::new(&bytes, header.count)
        .check_headers()
        .map(|record| {
            let record = record.unwrap();
            let offset = header.base_offset + i64::from(record.offset_delta);
            assert!(offset <= header.last_offset());
            let time = header.timestamp_of(record.timestamp_delta);
            (offset, record.key.map(text), record.value.map(text), time, record.headers.of(&bytes).to_vec())
        })
        .collect()
}

fn batches(storage: &Storage, place: TopicPartition) -> Vec<Bytes> {
    let limits = FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed: false };
    let start = storage.partition_offsets(place).unwrap().start;
    storage.fetch(place, start, limits).unwrap().batches
}

fn fetched(storage: &Storage, place: TopicPartition) -> Vec<Record> {
    batches(storage, place)
        .iter()
        .filter(|b| !BatchHeader::parse(b).unwrap().is_control())
        .flat_map(records_of)
        .collect()
}

/// Offsets, keys and values in short.
fn shown(storage: &Storage, place: TopicPartition) -> String {
    let all = fetched(storage, place).into_iter();
    all.map(|(offset, key, value, ..)| format!("{offset}{}{}", key.unwrap_or_default(), value.unwrap_or("-".into())))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_newest_of_each_key_stays_as_it_was() {
    for (tail_bytes, codec) in [(0, None), (1 << 20, None), (0, Some("zstd")), (1 << 20, Some("uncompressed"))] {
        let mut fixture = Fixture::with(|o| {
            by_hand(o);
            o.tail_bytes = tail_bytes;
        });
        let mut configs = vec![COMPACT];
        configs.extend(codec.map(|c| ("compression.type", c)));
        let place = create(&fixture.storage, "t", &configs);
        let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        for i in 0..40 {
            let value = format!("{i}");
            let keys = [format!("k{}", i % 7), format!("l{}", i % 3), format!("m{i}")];
            let rows: Vec<Row<'_>> = keys.iter().map(|k| (k.as_str(), Some(value.as_str()))).collect();
            produce(&fixture.storage, place, &keyed_at(&rows, codecs[i % 5], START_MS + i as i64)).unwrap();
        }
        let before = fetched(&fixture.storage, place);
        let sequences = |storage: &Storage| -> BTreeMap<Offset, u64> {
            storage.read(place, 0, ALL).unwrap().views.iter().map(|v| (v.offset, v.sequence)).collect()
        };
        let places = sequences(&fixture.storage);
        let bytes_before = fixture.storage.partition_bytes(place).unwrap();
        let done = fixture.storage.compact(place).unwrap();
        assert_eq!((done.to, done.passes), (117, 1), "all but the last batch");

        let mut newest: BTreeMap<_, _> = BTreeMap::new();
        for record in before.iter().filter(|r| r.0 < 117) {
            newest.insert(record.1.clone(), record.0);
        }
        let expected: Vec<Record> = before.iter().filter(|r| r.0 >= 117 || newest[&r.1] == r.0).cloned().collect();
        for clean in [None, Some(true), Some(false)] {
            if let Some(clean) = clean {
                fixture = fixture.reopen(clean);
            }
            let storage = &fixture.storage;
            assert_eq!(fetched(storage, place), expected);
            for batch in batches(storage, place) {
                let header = BatchHeader::parse(&batch).unwrap();
                let original = (header.last_offset() as usize) / 3;
                assert_eq!((header.base_offset, header.last_offset_delta), (original as i64 * 3, 2));
                let kept = codec.and_then(Codec::by_name).unwrap_or(codecs[original % 5]);
                assert!([Some(kept), Some(Codec::None)].contains(&header.codec()));
            }
            // Queries see the same records, each where it was in the order of commits.
            let read = storage.read(place, 0, ALL).unwrap();
            assert_eq!((read.next_offset, read.stable_end), (120, 120));
            assert!(read.views.iter().map(|v| v.offset).eq(expected.iter().map(|r| r.0)));
            assert!(read.views.iter().all(|v| places[&v.offset] == v.sequence));
            // From any offset: what lies at it or after.
            for from in 0..=120 {
                let rest = expected.iter().filter(|r| r.0 >= from).count();
                assert_eq!(storage.read(place, from, ALL).unwrap().views.len(), rest, "from {from}");
                let one = FetchLimits { bytes_max: 1, at_least_one: true, committed: true };
                let first = storage.fetch(place, from, one).unwrap().batches;
                let offset = first.iter().flat_map(records_of).map(|r| r.0).find(|o| *o >= from);
                assert!(from == 120 || first.len() == 1 && offset.is_none_or(|o| o >= from));
            }
            let time = |what| storage.list_offset(place, what).map(|l| (l.offset, l.timestamp)).unwrap();
            for at in 0..40 {
                let first = expected.iter().find(|r| r.3 >= START_MS + at).unwrap();
                assert_eq!(time(OffsetQuery::Timestamp(START_MS + at)), (first.0, first.3));
            }
            assert_eq!(time(OffsetQuery::MaxTimestamp), (117, START_MS + 39));
            let bytes: usize = batches(storage, place).iter().map(Bytes::len).sum();
            assert_eq!(storage.partition_bytes(place).unwrap(), bytes as u64);
            assert!(bytes as u64 <= bytes_before);
            assert_eq!(storage.epoch_end(place, storage.leader_epoch()).unwrap().1, 120);
        }
        // What is compacted is not written again.
        assert_eq!(fixture.storage.compact(place).unwrap().bytes_written, 0);
        assert_eq!(put(&fixture.storage, place, &[("k1", Some("new"))]), 120);
    }
}

#[test]
fn more_keys_than_memory_take_more_passes() {
    let fixture = Fixture::with(|o| {
        by_hand(o);
        o.compaction_map_bytes = 64 * 5;
    });
    let place = create(&fixture.storage, "t", &[COMPACT]);
    for i in 0..30 {
        let keys: Vec<String> = (0..3).map(|k| format!("k{}", (i * 3 + k) % 20)).collect();
        let value = i.to_string();
        let rows: Vec<Row<'_>> = keys.iter().map(|k| (k.as_str(), Some(value.as_str()))).collect();
        put(&fixture.storage, place, &rows);
    }
    put(&fixture.storage, place, &[("end", Some("x"))]);
    let done = fixture.storage.compact(place).unwrap();
    assert!(done.passes > 10 && done.to == 90, "{done:?}");
    let offsets: Vec<Offset> = fetched(&fixture.storage, place).iter().map(|r| r.0).collect();
    assert!(offsets.into_iter().eq(70..=90), "the last 20 of 90, and what is active");
}

#[test]
fn deletion_markers_go_when_their_time_has_passed() {
    let mut fixture = Fixture::with(by_hand);
    let place = create(&fixture.storage, "t", &[COMPACT, ("delete.retention.ms", "1000")]);
    put(&fixture.storage, place, &[("a", Some("1")), ("b", Some("1"))]);
    put(&fixture.storage, place, &[("a", None), ("c", Some("1"))]);
    put(&fixture.storage, place, &[("z", Some("1"))]);
    fixture.clock.set(START_MS + 500);
    fixture.storage.compact(place).unwrap();
    assert_eq!(shown(&fixture.storage, place), "1b1 2a- 3c1 4z1");
    let header = BatchHeader::parse(&batches(&fixture.storage, place)[1]).unwrap();
    assert_eq!(header.delete_horizon(), Some(START_MS + 1500), "bit 6 of the attributes, and the base timestamp");
    assert!(fetched(&fixture.storage, place).iter().all(|r| r.3 == START_MS), "times stay");

    fixture.clock.set(START_MS + 1499);
    fixture = fixture.reopen(false);
    fixture.storage.compact(place).unwrap();
    assert_eq!(shown(&fixture.storage, place), "1b1 2a- 3c1 4z1");
    fixture.clock.set(START_MS + 1500);
    fixture.storage.compact(place).unwrap();
    assert_eq!(shown(&fixture.storage, place), "1b1 3c1 4z1");
    // A marker that was superseded before its time goes at once.
    put(&fixture.storage, place, &[("c", None)]);
    put(&fixture.storage, place, &[("c", Some("2"))]);
    put(&fixture.storage, place, &[("z", Some("2"))]);
    fixture.storage.compact(place).unwrap();
    assert_eq!(shown(&fixture.storage, place), "1b1 4z1 6c2 7z2");
}

#[test]
fn what_was_aborted_goes_and_markers_follow() {
    let mut fixture = Fixture::with(by_hand);
    let storage = &fixture.storage;
    let place = create(storage, "t", &[COMPACT, ("delete.retention.ms", "1000")]);
    let send = |storage: &Storage, id: i64, sequence: i32, rows: &[Row<'_>]| {
        let mut plain = keyed(rows, Codec::None).to_vec();
        plain[22] |= 0x10;
        produce(storage, place, &with_producer(&plain.into(), id, 0, sequence)).unwrap().base_offset
    };
    put(storage, place, &[("a", Some("0")), ("b", Some("0"))]);
    for (id, commit) in [(7, false), (8, true)] {
        add(storage, &[place], id, 0);
        send(storage, id, 0, &[("a", Some("x")), ("c", Some("x"))]);
        send(storage, id, 2, &[("d", Some("x"))]);
        end(storage, &[place], id, 0, commit);
    }
    // 0a 1b | 2a 3c | 4d | 5 abort | 6a 7c | 8d | 9 commit
    put(storage, place, &[("d", Some("2"))]);
    add(storage, &[place], 9, 0);
    let open = send(storage, 9, 0, &[("a", Some("open"))]);
    put(storage, place, &[("a", Some("3"))]);
    put(storage, place, &[("z", Some("3"))]);
    assert_eq!(open, 11);
    let done = storage.compact(place).unwrap();
    assert_eq!(done.to, 11, "nothing that is not decided");
    let lasts = |storage: &Storage| -> Vec<(Offset, i32, bool)> {
        let headers = batches(storage, place).into_iter().map(|b| BatchHeader::parse(&b).unwrap());
        headers.map(|h| (h.last_offset(), h.count, h.is_control())).collect()
    };
    // Aborted ones are no newest; the last batch of each producer stays, without records.
    let expected =
        [(1, 1, false), (4, 0, false), (5, 1, true), (7, 2, false), (8, 0, false), (9, 1, true), (10, 1, false)];
    assert_eq!(lasts(storage)[..7], expected);
    assert_eq!(shown(storage, place), "1b0 6ax 7cx 10d2 11aopen 12a3 13z3");
    let committed = FetchLimits { bytes_max: usize::MAX, at_least_one: true, committed: true };
    let aborted = |storage: &Storage| storage.fetch(place, 0, committed).unwrap().aborted;
    assert_eq!(aborted(storage), [AbortedTransaction { producer_id: 7, first_offset: 2 }]);

    end(storage, &[place], 9, 0, true);
    put(storage, place, &[("y", Some("4"))]);
    // The producer with the aborted transaction goes on, so that its empty batch may go.
    add(storage, &[place], 7, 0);
    send(storage, 7, 3, &[("e", Some("7"))]);
    end(storage, &[place], 7, 0, true);
    put(storage, place, &[("y", Some("5"))]);
    for ms in [0, 0, 1000, 1000, 2000, 2000] {
        fixture.clock.set(START_MS + ms);
        fixture.storage.compact(place).unwrap();
        fixture = fixture.reopen(ms == 1000);
    }
    let storage = &fixture.storage;
    assert!(!lasts(storage).iter().any(|b| b.0 == 4 || b.0 == 5), "{:?}", lasts(storage));
    assert!(lasts(storage).iter().any(|b| b.0 == 9), "the marker stays with its transaction's records");
    assert_eq!(aborted(storage), [], "without its marker nobody must hear of it: {:?}", lasts(storage));
    assert_eq!(shown(storage, place), "1b0 7cx 10d2 12a3 13z3 15y4 16e7 18y5");
    let read = storage.read(place, 0, ALL).unwrap();
    assert_eq!(read.views.iter().map(|v| v.offset).collect::<Vec<_>>(), [1, 7, 10, 12, 13, 15, 16, 18]);
    assert!(read.views.is_sorted_by_key(|v| v.sequence));
    // A producer whose batches are gone goes on with its sequence, and is told of duplicates.
    let mut plain = keyed(&[("d", Some("x"))], Codec::None).to_vec();
    plain[22] |= 0x10;
    assert!(produce(storage, place, &with_producer(&plain.into(), 8, 0, 2)).unwrap().duplicate);
}

#[test]
fn readers_get_over_a_stretch_without_batches() {
    for tail_bytes in [0, 1 << 20] {
        let fixture = Fixture::with(|o| {
            by_hand(o);
            o.tail_bytes = tail_bytes;
        });
        let storage = &fixture.storage;
        let place = create(storage, "t", &[COMPACT, ("delete.retention.ms", "0")]);
        for _ in 0..5 {
            put(storage, place, &[("a", None)]);
        }
        add(storage, &[place], 7, 0);
        let mut plain = keyed(&[("b", Some("1"))], Codec::None).to_vec();
        plain[22] |= 0x10;
        let transactional = with_producer(&plain.into(), 7, 0, 0);
        produce(storage, place, &transactional).unwrap();
        for _ in 0..2 {
            put(storage, place, &[("c", Some("1"))]);
        }
        storage.compact(place).unwrap();
        storage.compact(place).unwrap();
        assert_eq!(shown(storage, place), "5b1 6c1 7c1");
        // Between the start and what is open there is nothing left.
        let read = storage.read(place, 0, ReadLimits { up_to: u64::MAX, ..ALL }).unwrap();
        assert_eq!((read.views.len(), read.next_offset, read.stable_end), (0, 5, 5));
        let offsets = storage.partition_offsets(place).unwrap();
        assert_eq!((offsets.start, offsets.stable_end, offsets.end), (0, 5, 8));
    }
}

#[test]
fn both_policies_and_records_without_key() {
    let fixture = Fixture::with(|o| {
        by_hand(o);
        o.retention_interval = Duration::from_millis(10);
    });
    let storage = &fixture.storage;
    let place = create(storage, "t", &[("retention.ms", "1000")]);
    let mut records = RecordBuffer::default();
    records.push(None, Some(b"no key"), START_MS + 2000, &[]);
    let options =
        EncodeOptions { compression: Codec::None.into(), batch_bytes_max: 1000, log_append_time: None, room_before: 0 };
    produce(storage, place, &encode(&records, options).unwrap().remove(0).bytes.into()).unwrap();
    for time in [0, 1000, 2000] {
        let batch = keyed_at(&[("a", Some("1")), (&time.to_string(), Some("1"))], Codec::None, START_MS + time);
        produce(storage, place, &batch).unwrap();
    }
    let both = [("cleanup.policy", "compact,delete"), ("retention.ms", "1000")];
    let both = both.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    block_on(storage.set_topic_configs(place.topic, both)).unwrap();
    storage.compact(place).unwrap();
    assert_eq!(shown(storage, place), "201 3a1 410001 5a1 620001");
    fixture.clock.set(START_MS + 2001);
    let deadline = Instant::now() + Duration::from_secs(60);
    while shown(storage, place) != "5a1 620001" {
        assert!(Instant::now() < deadline, "{}", shown(storage, place));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_happens_by_itself_when_enough_is_dirty() {
    let fixture = Fixture::with(|o| {
        by_hand(o);
        o.compaction_interval = Duration::from_millis(5);
    });
    let storage = &fixture.storage;
    let topic = |name: &str, more: &[(&str, &str)]| create(storage, name, &[&[COMPACT], more].concat());
    let eager = topic("eager", &[("min.cleanable.dirty.ratio", "0.01")]);
    // Not compacted before all is there, so that it is known how much is dirty.
    let half = create(storage, "half", &[]);
    let late = topic("late", &[("min.compaction.lag.ms", "5000"), ("min.cleanable.dirty.ratio", "0.01")]);
    let overdue = topic("overdue", &[("min.cleanable.dirty.ratio", "1"), ("max.compaction.lag.ms", "9000")]);
    let all = [eager, half, late, overdue];
    for (key, value) in [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("a", "2"), ("e", "1")] {
        for place in all {
            put(storage, place, &[(key, Some(value))]);
        }
    }
    let compact = [(COMPACT.0.to_owned(), COMPACT.1.to_owned())].into();
    block_on(storage.set_topic_configs(half.topic, compact)).unwrap();
    let wait = |place, wanted: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while shown(storage, place) != wanted {
            assert!(Instant::now() < deadline, "{} is not {wanted}", shown(storage, place));
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait(eager, "1b1 2c1 3d1 4a2 5e1");
    wait(half, "1b1 2c1 3d1 4a2 5e1");
    for value in ["2", "3"] {
        put(storage, half, &[("e", Some(value))]);
        put(storage, eager, &[("e", Some(value))]);
    }
    wait(eager, "1b1 2c1 3d1 4a2 6e2 7e3");
    assert_eq!(shown(storage, half), "1b1 2c1 3d1 4a2 5e1 6e2 7e3", "too little is dirty");
    assert_eq!(shown(storage, late), "0a1 1b1 2c1 3d1 4a2 5e1");
    fixture.clock.set(START_MS + 5000);
    wait(late, "1b1 2c1 3d1 4a2 5e1");
    put(storage, overdue, &[("e", Some("2"))]);
    fixture.clock.set(START_MS + 5000 + 9001);
    wait(overdue, "1b1 2c1 3d1 4a2 5e1 6e2");
}

#[test]
fn what_is_newest_is_left_alone_for_a_while() {
    let fixture = Fixture::with(|o| {
        by_hand(o);
        o.active_bytes_max = 10_000;
    });
    let storage = &fixture.storage;
    let timed = create(storage, "timed", &[COMPACT, ("segment.ms", "7000")]);
    let sized = create(storage, "sized", &[COMPACT, ("segment.bytes", "200")]);
    for value in ["1", "2", "3", "4", "5"] {
        put(storage, timed, &[("a", Some(value))]);
        put(storage, sized, &[("a", Some(value))]);
    }
    for place in [timed, sized] {
        storage.compact(place).unwrap();
    }
    assert_eq!(shown(storage, timed), "0a1 1a2 2a3 3a4 4a5");
    assert_eq!(shown(storage, sized), "2a3 3a4 4a5", "two batches are less than a segment");
    fixture.clock.set(START_MS + 7000);
    storage.compact(timed).unwrap();
    assert_eq!(shown(storage, timed), "3a4 4a5");
}

//! The log against a map, through appends, reads, deletions and reopening.

use std::collections::BTreeMap;

use millpond_broker::batch::Codec;
use millpond_broker::storage::{FetchLimits, StorageError};
use millpond_types::ports::{Outcome, ReadLimits, Step, TopicLog};
use millpond_types::record::RecordBuffer;
use proptest::prelude::*;

use crate::fixture::{Fixture, START_MS, batch, block_on, create, live_in_files, produce, read_all, step};

#[derive(Clone, Debug)]
enum Action {
    Produce(usize, u8),
    Step(usize),
    Delete(prop::sample::Index),
    Read(prop::sample::Index, usize),
    Reopen(bool),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => (1usize..6, 0u8..5).prop_map(|(n, codec)| Action::Produce(n, codec)),
        2 => (1usize..6).prop_map(Action::Step),
        1 => any::<prop::sample::Index>().prop_map(Action::Delete),
        4 => (any::<prop::sample::Index>(), 1usize..8).prop_map(|(at, n)| Action::Read(at, n)),
        1 => any::<bool>().prop_map(Action::Reopen),
    ];
    proptest::collection::vec(action, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_a_map_from_offsets(actions in actions(), tail_bytes in prop_oneof![Just(0), Just(600), Just(1 << 20)], inline_bytes_max in prop_oneof![Just(0), Just(900), Just(32 << 10)]) {
        let mut fixture = Fixture::with(|o| {
            o.tail_bytes = tail_bytes;
            o.segment_bytes = 200;
            o.inline_bytes_max = inline_bytes_max;
            o.log_file_bytes = 400;
            o.log_files_open_max = 2;
        });
        let place = create(&fixture.storage, "t", &[]);
        let mut model: BTreeMap<i64, String> = BTreeMap::new();
        let (mut start, mut end) = (0i64, 0i64);
        for action in actions {
            match action {
                Action::Produce(n, codec) => {
                    let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][codec as usize];
                    let values: Vec<String> = (0..n).map(|i| format!("v{}", end + i as i64)).collect();
                    let rows: Vec<_> = values.iter().map(|v| (v.as_str(), START_MS)).collect();
                    let appended = produce(&fixture.storage, place, &batch(&rows, codec)).unwrap();
                    prop_assert_eq!(appended.base_offset, end);
                    for value in values {
                        model.insert(end, value);
                        end += 1;
                    }
                }
                Action::Step(n) => {
                    let mut records = RecordBuffer::default();
                    for _ in 0..n {
                        let value = format!("s{end}");
                        records.push(None, Some(value.as_bytes()), START_MS, &[]);
                        model.insert(end, value);
                        end += 1;
                    }
                    let outcome = step(&fixture.storage, Step { appends: vec![(place, records)], ..Step::default() });
                    let committed = matches!(outcome, Outcome::Committed { .. });
                    prop_assert!(committed, "{:?}", outcome);
                }
                Action::Delete(at) => {
                    let before = at.index(end as usize + 1) as i64;
                    let low = block_on(fixture.storage.delete_records(place, before)).unwrap();
                    start = start.max(before);
                    prop_assert_eq!(low, start);
                    model = model.split_off(&start);
                }
                Action::Read(at, n) => {
                    let from = at.index(end as usize + 1) as i64;
                    let limits = ReadLimits { records_max: n, bytes_max: usize::MAX, up_to: u64::MAX };
                    let fetched = fixture.storage.fetch(place, from, FetchLimits { bytes_max: 100, at_least_one: true, committed: false });
                    match fixture.storage.read(place, from, limits) {
                        Err(_) => {
                            prop_assert!(from < start);
                            let refused = matches!(fetched, Err(StorageError::OffsetOutOfRange { .. }));
                            prop_assert!(refused);
                        }
                        Ok(records) => {
                            prop_assert!(from >= start);
                            prop_assert_eq!(fetched.unwrap().batches.is_empty(), from == end);
                            prop_assert!(from == end || !records.views.is_empty());
                            let expected = model.range(from..).take(records.views.len());
                            for (row, (offset, value)) in expected.enumerate() {
                                prop_assert_eq!(records.views[row].offset, *offset);
                                prop_assert_eq!(records.value(row).unwrap(), value.as_bytes());
                            }
                            prop_assert!(records.views.len() <= n);
                            prop_assert_eq!(records.next_offset, from + records.views.len() as i64);
                        }
                    }
                }
                Action::Reopen(clean) => fixture = fixture.reopen(clean),
            }
            let offsets = fixture.storage.partition_offsets(place).unwrap();
            prop_assert_eq!((offsets.start, offsets.end), (start, end));
        }
        let model: Vec<_> = model.into_iter().collect();
        prop_assert_eq!(read_all(&fixture.storage, place, start), &model[..]);
        fixture.storage.reclaim().unwrap();
        prop_assert_eq!(read_all(&fixture.storage, place, start), &model[..]);
        // As it was counted along the way, and by a walk over all that is there.
        let counted = live_in_files(&fixture.storage);
        fixture = fixture.reopen(false);
        prop_assert_eq!(live_in_files(&fixture.storage), counted);
        prop_assert_eq!(read_all(&fixture.storage, place, start), model);
    }
}

//! Random histories of everything that changes a log, against a plain model in memory.
//!
//! The seed of a failure is in its message; with `MILLPOND_SEED=N` histories begin with that one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use millpond_broker::batch::{BatchHeader, Codec};
use millpond_broker::storage::{FetchLimits, Fetched, OffsetQuery, Storage};
use millpond_types::ports::{ReadLimits, TopicLog};
use millpond_types::{Offset, TopicPartition};

use crate::compaction::{keyed_at, records_of};
use crate::fixture::{Fixture, START_MS, block_on, create, produce, with_producer};
use crate::transactions::{Random, add, end, seeds};

const STEPS: usize = 150;
const DELETE_RETENTION_MS: i64 = 300;
const RETENTION_MS: i64 = 2000;

/// A record as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    key: String,
    value: Option<String>,
    time: i64,
    /// Of which transaction.
    transaction: Option<usize>,
}

/// A partition as it should be: what was sent at each offset, without markers.
struct Model {
    place: TopicPartition,
    compacted: bool,
    deleted: bool,
    sent: BTreeMap<Offset, Sent>,
    start: Offset,
    end: Offset,
    /// Below this nothing is there twice.
    compacted_to: Offset,
    /// The last batch of each idempotent producer, and its next sequence.
    idempotent: BTreeMap<i64, (Bytes, Offset, i32)>,
    sequences: BTreeMap<i64, i32>,
}

struct History {
    seed: u64,
    random: Random,
    models: Vec<Model>,
    /// How each transaction ended.
    outcomes: Vec<Option<bool>>,
    /// Of each producer: its open transaction and the partitions in it.
    open: BTreeMap<i64, (usize, BTreeSet<usize>)>,
    now_ms: i64,
    count: usize,
}

#[test]
fn random_histories_are_what_the_model_says() {
    seeds(if std::env::var_os("SLOW").is_some() { 200 } else { 12 }).for_each(run);
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let (segment_bytes, tail_bytes) = (1 + random.below(600), random.below(3) as usize * 1000);
    let (map_bytes, active) = (64 * (2 + random.below(20)) as usize, random.below(2) * 400);
    let log_file_bytes = 300 + random.below(4000);
    let mut fixture = Fixture::with(|o| {
        o.segment_bytes = segment_bytes;
        o.tail_partition_bytes = tail_bytes;
        o.compaction_map_bytes = map_bytes;
        o.active_bytes_max = active;
        o.log_file_bytes = log_file_bytes;
        o.compaction_interval = Duration::from_secs(3600);
        o.retention_interval = Duration::from_secs(3600);
    });
    let (markers, old) = (DELETE_RETENTION_MS.to_string(), RETENTION_MS.to_string());
    let models = ["delete", "compact", "compact,delete"].into_iter().enumerate().map(|(i, policy)| {
        let mut configs = vec![("cleanup.policy", policy), ("delete.retention.ms", &markers)];
        if i != 1 {
            configs.push(("retention.ms", &old));
        }
        Model {
            place: create(&fixture.storage, &format!("t{i}"), &configs),
            compacted: i > 0,
            deleted: i != 1,
            sent: BTreeMap::new(),
            start: 0,
            end: 0,
            compacted_to: 0,
            idempotent: BTreeMap::new(),
            sequences: BTreeMap::new(),
        }
    });
    let models = models.collect();
    let mut history =
        History { seed, random, models, outcomes: Vec::new(), open: BTreeMap::new(), now_ms: START_MS, count: 0 };
    for step in 0..STEPS {
        let action = history.random.below(25);
        if action == 0 {
            let clean = history.random.below(2) == 0;
            fixture = fixture.reopen(clean);
        }
        history.act(&fixture, action);
        for i in 0..history.models.len() {
            history.check(&fixture.storage, i, step);
        }
    }
}

impl History {
    fn batch(&mut self, transaction: Option<usize>) -> (Bytes, Vec<Sent>) {
        let time = self.now_ms - self.random.below(50) as i64;
        let sent: Vec<Sent> = (0..1 + self.random.below(4))
            .map(|_| {
                self.count += 1;
                let value = (self.random.below(5) > 0).then(|| format!("v{}", self.count));
                Sent { key: format!("k{}", self.random.below(6)), value, time, transaction }
            })
            .collect();
        let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        // Only what is not compressed can be given a producer here.
        let codec = codecs[self.random.below(5) as usize];
        let rows: Vec<_> = sent.iter().map(|s| (s.key.as_str(), s.value.as_deref())).collect();
        (keyed_at(&rows, codec, time), sent)
    }

    fn plain(&mut self, transaction: Option<usize>) -> (Bytes, Vec<Sent>) {
        loop {
            let (batch, sent) = self.batch(transaction);
            if BatchHeader::parse(&batch).unwrap().codec() == Some(Codec::None) {
                return (batch, sent);
            }
        }
    }

    fn appended(&mut self, which: usize, base: Offset, sent: Vec<Sent>) {
        let model = &mut self.models[which];
        assert_eq!(base, model.end, "seed {}", self.seed);
        for record in sent {
            model.sent.insert(model.end, record);
            model.end += 1;
        }
    }

    fn act(&mut self, fixture: &Fixture, action: u64) {
        let storage = &fixture.storage;
        let which = self.random.below(self.models.len() as u64) as usize;
        let place = self.models[which].place;
        let id = 1 + self.random.below(3) as i64;
        match action {
            1..7 => {
                let (batch, sent) = self.batch(None);
                let base = produce(storage, place, &batch).unwrap().base_offset;
                self.appended(which, base, sent);
            }
            7..10 => {
                let id = 100 + id;
                let again = self.random.below(3) == 0;
                if let Some((batch, base, _)) = self.models[which].idempotent.get(&id).filter(|_| again) {
                    let appended = produce(storage, place, batch).unwrap();
                    assert_eq!((appended.base_offset, appended.duplicate), (*base, true), "seed {}", self.seed);
                    return;
                }
                let sequence = self.models[which].idempotent.get(&id).map_or(0, |p| p.2);
                let (batch, sent) = self.plain(None);
                let batch = with_producer(&batch, id, 0, sequence);
                let base = produce(storage, place, &batch).unwrap().base_offset;
                let next = (batch, base, sequence + sent.len() as i32);
                self.models[which].idempotent.insert(id, next);
                self.appended(which, base, sent);
            }
            10..16 => {
                if !self.open.contains_key(&id) {
                    self.outcomes.push(None);
                    self.open.insert(id, (self.outcomes.len() - 1, BTreeSet::new()));
                }
                let (number, places) = self.open.get_mut(&id).unwrap();
                if places.insert(which) {
                    add(storage, &[place], id, 0);
                }
                let number = *number;
                let (batch, sent) = self.plain(Some(number));
                let mut batch = batch.to_vec();
                batch[22] |= 0x10;
                let sequence = self.models[which].sequences.entry(id).or_default();
                let batch = with_producer(&batch.into(), id, 0, *sequence);
                *sequence += sent.len() as i32;
                let base = produce(storage, place, &batch).unwrap().base_offset;
                self.appended(which, base, sent);
            }
            16..19 => {
                if let Some((number, places)) = self.open.remove(&id) {
                    let commit = self.random.below(3) > 0;
                    let all: Vec<_> = places.iter().map(|i| self.models[*i].place).collect();
                    end(storage, &all, id, 0, commit);
                    self.outcomes[number] = Some(commit);
                    for i in places {
                        self.models[i].end += 1;
                    }
                }
            }
            19 if self.random.below(3) == 0 => {
                let model = &mut self.models[which];
                let before = self.random.below(model.end as u64 + 1) as i64;
                model.start = model.start.max(before);
                assert_eq!(block_on(storage.delete_records(place, before)), Ok(model.start), "seed {}", self.seed);
            }
            19 => {}
            20..22 => {
                let model = &mut self.models[which];
                match storage.compact(place) {
                    Ok(done) => model.compacted_to = model.compacted_to.max(done.to),
                    Err(e) => assert!(!model.compacted, "seed {}: {e}", self.seed),
                }
                assert!(model.compacted || model.compacted_to == 0, "seed {}", self.seed);
            }
            22 => {
                self.now_ms += self.random.below(400) as i64;
                fixture.clock.set(self.now_ms);
            }
            23 => storage.retain().unwrap(),
            24 => storage.reclaim().unwrap(),
            _ => {}
        }
    }

    fn check(&mut self, storage: &Storage, which: usize, step: usize) {
        let (seed, now_ms) = (self.seed, self.now_ms);
        let at = format!("seed {seed}, step {step}, topic {which}");
        let offsets = storage.partition_offsets(self.models[which].place).unwrap();
        let model = &mut self.models[which];
        // Retention takes nothing that is young or undecided.
        assert!(offsets.start == model.start || model.deleted && offsets.start > model.start, "{at}");
        let visible = |s: &Sent| s.transaction.is_none_or(|n| self.outcomes[n] == Some(true));
        let compacted_away = |offset: Offset, sent: &Sent| {
            let later = |(_, s): (&Offset, &Sent)| s.key == sent.key && visible(s);
            let superseded = !visible(sent) || sent.value.is_none() || model.sent.range(offset + 1..).any(later);
            offset < model.compacted_to && superseded
        };
        for (offset, sent) in model.sent.range(model.start..offsets.start) {
            let old = sent.time < now_ms - RETENTION_MS;
            assert!(old || compacted_away(*offset, sent), "{at}: offset {offset} was too young to be deleted");
        }
        model.start = offsets.start;
        let undecided = |s: &Sent| s.transaction.is_some_and(|n| self.outcomes[n].is_none());
        let first_open = model.sent.range(..).find(|(_, s)| undecided(s)).map_or(model.end, |(offset, _)| *offset);
        // A transaction whose beginning was deleted by hand holds up what is left of it.
        let stable = first_open.max(model.start).min(model.end);
        assert_eq!((offsets.stable_end, offsets.end), (stable, model.end), "{at}");

        let place = model.place;
        let fetch = |from, committed, bytes_max| {
            storage.fetch(place, from, FetchLimits { bytes_max, at_least_one: true, committed }).unwrap()
        };
        let seen = as_a_consumer(&fetch(model.start, true, usize::MAX), model.start);
        let mut newest: BTreeMap<&str, Offset> = BTreeMap::new();
        let mut wanted: BTreeMap<Offset, &Sent> = BTreeMap::new();
        for (offset, sent) in model.sent.range(model.start..stable).filter(|(_, s)| visible(s)) {
            newest.insert(&sent.key, *offset);
            wanted.insert(*offset, sent);
        }
        for (offset, key, value, time) in &seen {
            let sent = wanted.get(offset).unwrap_or_else(|| panic!("{at}: offset {offset} should not be seen"));
            assert_eq!((key, value, *time), (&sent.key, &sent.value, sent.time), "{at}, offset {offset}");
        }
        let there: BTreeSet<Offset> = seen.iter().map(|s| s.0).collect();
        assert_eq!(there.len(), seen.len(), "{at}: something is seen twice");
        for (offset, sent) in &wanted {
            let may_go = model.compacted
                && *offset < model.compacted_to
                && (newest[sent.key.as_str()] > *offset
                    || sent.value.is_none() && sent.time + DELETE_RETENTION_MS <= now_ms);
            assert!(may_go || there.contains(offset), "{at}: offset {offset} is missing");
        }
        let below: Vec<_> = seen.iter().filter(|s| s.0 < model.compacted_to).map(|s| &s.1).collect();
        let keys: BTreeSet<_> = below.iter().collect();
        assert_eq!(keys.len(), below.len(), "{at}: a key twice below {}", model.compacted_to);

        // From anywhere, in pieces, through the port and by time it is the same.
        let from = model.start + self.random.below((stable - model.start) as u64 + 1) as i64;
        let rest: Vec<_> = seen.iter().filter(|s| s.0 >= from).cloned().collect();
        assert_eq!(as_a_consumer(&fetch(from, true, usize::MAX), from), rest, "{at}, from {from}");
        let limits = ReadLimits { records_max: 1 + self.random.below(5) as usize, bytes_max: 4000, up_to: u64::MAX };
        let (mut next, mut read) = (from, Vec::new());
        while next < stable {
            let records = storage.read(place, next, limits).unwrap();
            assert!(records.next_offset > next, "{at}: no progress at {next}");
            read.extend(records.views.iter().map(|v| (v.offset, v.sequence)));
            next = records.next_offset;
        }
        assert!(read.iter().map(|r| r.0).eq(rest.iter().map(|r| r.0)), "{at}, from {from}: {read:?}");
        assert!(read.is_sorted_by_key(|r| r.1), "{at}: out of order");
        let everything: Vec<_> = fetch(model.start, false, usize::MAX)
            .batches
            .iter()
            .flat_map(records_of)
            .filter(|r| r.0 >= model.start)
            .collect();
        let time = now_ms - self.random.below(500) as i64;
        let first = everything.iter().find(|r| r.3 >= time).map_or((-1, -1), |r| (r.0, r.3));
        let listed = storage.list_offset(place, OffsetQuery::Timestamp(time)).unwrap();
        assert_eq!((listed.offset, listed.timestamp), first, "{at}, time {time}");
    }
}

/// Offset, key, value and time of what a consumer with read_committed sees.
fn as_a_consumer(fetched: &Fetched, from: Offset) -> Vec<(Offset, String, Option<String>, i64)> {
    let mut aborted = fetched.aborted.iter().peekable();
    let mut skipping = BTreeSet::new();
    let mut rows = Vec::new();
    for batch in &fetched.batches {
        let header = BatchHeader::parse(batch).unwrap();
        while let Some(next) = aborted.next_if(|a| a.first_offset <= header.last_offset()) {
            skipping.insert(next.producer_id);
        }
        if header.is_control() {
            // The type is in the key's last byte.
            let key = records_of_control(batch);
            if key == Some(0) {
                skipping.remove(&header.producer_id);
            }
        } else if !header.is_transactional() || !skipping.contains(&header.producer_id) {
            let records = records_of(batch).into_iter().filter(|r| r.0 >= from);
            rows.extend(records.map(|r| (r.0, r.1.unwrap(), r.2, r.3)));
        }
    }
    rows
}

fn records_of_control(batch: &Bytes) -> Option<u8> {
    let header = BatchHeader::parse(batch)?;
    let records = &batch[millpond_broker::batch::HEADER_LEN..];
    let record = millpond_broker::batch::RecordIter::new(records, header.count).next()?.ok()?;
    record.key?.of(records).last().copied()
}

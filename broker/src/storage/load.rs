//! Opening: identity, counters, topics, and what each partition's memory starts from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use millpond_types::{Offset, TopicPartition};
use rocksdb::{DB, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::StorageOptions;
use super::commits::{self, Replayed};
use super::compaction::Compacted;
use super::directory::{Claim, claim, open_database};
use super::error::{OpenError, StorageError};
use super::log_files::{LogFiles, Noted};
use super::log_space;
use super::note::Notes;
use super::offsets_topic::OffsetsTopic;
use super::partition::{LogState, Partition, Segment};
use super::producers::Producer;
use super::recovery::number_in;
use super::reserve::Reserve;
use super::salvage;
use super::shared::{Counters, Found, Shared, family};
use super::topics::{StoredTopic, Topic, TopicTable};
use super::verify::{self, Verified};
use super::walk::walk;
use crate::batch::BatchHeader;
use crate::configs::{ChangedConfigs, topic_settings};
use crate::keys::{self, BATCH_PREFIX_LEN, BatchPlace, Counter, Fields, Kind, Placed, cf};

const IDENTITY_VERSION: u8 = 1;
/// Partitions that are named whose batches are missing.
const MISSING_TOLD: usize = 10;
const TABLE_WAY_OUT: &str =
    "bring back a copy, or start once with --accept-data-loss: the log ends with what can be read";
const FILE_WAY_OUT: &str = "if its disk is not there, start again when it is; otherwise bring back a copy, or start once with --accept-data-loss: what lies there stays damaged";
/// Offsets and counters stay below this, so that nothing that is added to them overflows.
const NUMBER_MAX: u64 = 1 << 62;
/// More numbers than what was lost can have used.
const LOST_NUMBERS: u64 = 1 << 32;

fn checked_offset(offset: u64) -> Option<Offset> {
    Offset::try_from(offset).ok().filter(|_| offset < NUMBER_MAX)
}

pub fn open(mut options: StorageOptions) -> Result<Shared, OpenError> {
    let mut claim = claim(&options.path)?;
    let reserve = Reserve::begin(&options);
    let (least, verified) = if options.accept_data_loss {
        verify::accept_loss(&options)?;
        (0, Verified { whole: false, cut: true, cut_at: None })
    } else {
        let verified = verify::verify(&options)?;
        (verify::least_write(&options)?, verified)
    };
    let files = Arc::new(LogFiles::open(&options)?);
    let mut db = open_database(&options, &files).map_err(verify::with_way_out)?;
    if options.accept_data_loss {
        db = salvage::accept_loss(db, &options, &files)?;
    }
    // Before what is written again.
    let ahead = verified.tables_are_ahead(&db);
    let replayed = commits::replay(&db, &options)?;
    // What is in tables and what is in the log may both have been whole, and a file of the log be missing.
    if let Ok(last) = number_in(&db)
        && last < least
    {
        return Err(verify::ends_early(&options, last, least, None));
    }
    let found = load(&db, &options, &files, &claim, (verified.whole, ahead, replayed));
    let found = found.map_err(|e| not_opened(&options, e))?;
    claim.set_ready(&options.path)?;
    files.make_folder()?;
    // What is lost later, while this process runs, was not accepted.
    options.accept_data_loss = false;
    let notes = Notes::begin(&options.path, found.counters.writes, options.durability)?;
    let shared = Shared::new(options, found, db, files, claim, notes, reserve);
    // Where there is little, at once; the rest beside the work.
    log_space::begin_counting(&shared)
        .map_err(|e| OpenError::Io { path: shared.options.path.display().to_string(), detail: e.to_string() })?;
    log_space::go_on_counting(&shared, shared.options.start_keys_max);
    Ok(shared)
}

/// What an error says of the directory.
pub fn not_opened(options: &StorageOptions, e: StorageError) -> OpenError {
    let path = options.path.display().to_string();
    match e {
        StorageError::Corrupt(detail) => OpenError::Damaged { path, detail },
        other => OpenError::Io { path, detail: other.to_string() },
    }
}

fn in_meta(e: rocksdb::Error) -> StorageError {
    salvage::failed(cf::META, e)
}

fn in_index(e: rocksdb::Error) -> StorageError {
    salvage::failed(cf::INDEX, e)
}

fn damaged(what: &str, key: &[u8]) -> StorageError {
    StorageError::Corrupt(format!("the stored {what} {key:02x?} is damaged"))
}

fn load(
    db: &DB,
    options: &StorageOptions,
    files: &LogFiles,
    claim: &Claim,
    (whole, ahead, replayed): (bool, bool, Replayed),
) -> Result<Found, StorageError> {
    let meta = family(db, cf::META)?;
    let mut batch = WriteBatch::default();

    let identity = match db.get_cf(meta, keys::identity()).map_err(in_meta)? {
        Some(value) => Identity::decode(&value).ok_or_else(|| damaged("identity", &keys::identity()))?,
        None => {
            let new = Identity { cluster_id: *uuid::Uuid::new_v4().as_bytes(), node_id: options.node_id };
            batch.put_cf(meta, keys::identity(), new.encode());
            new
        }
    };
    let counter = |which: Counter| -> Result<u64, StorageError> {
        match db.get_cf(meta, keys::counter(which)).map_err(in_meta)? {
            None => Ok(0),
            Some(value) => {
                let number = Fields(&value).u64().filter(|n| *n < NUMBER_MAX);
                number.ok_or_else(|| damaged("counter", &keys::counter(which)))
            }
        }
    };
    let epoch = counter(Counter::LeaderEpoch)? + 1;
    let mut counters = Counters {
        partition_uid: counter(Counter::PartitionUid)?.max(1),
        producer_id: counter(Counter::ProducerId)?,
        sequence: counter(Counter::Sequence)?,
        writes: counter(Counter::Writes)?,
    };
    if options.accept_data_loss {
        // What is left of records of the log files is never taken for a next write.
        counters.writes = counters.writes.max(replayed.end);
    }
    if ahead {
        // Tables may hold what was written later than the counters that are left say.
        for (which, number) in [
            (Counter::PartitionUid, &mut counters.partition_uid),
            (Counter::ProducerId, &mut counters.producer_id),
            (Counter::Sequence, &mut counters.sequence),
        ] {
            *number = number.saturating_add(LOST_NUMBERS).min(NUMBER_MAX - 1);
            batch.put_cf(meta, keys::counter(which), number.to_be_bytes());
        }
    }
    // Where the end of the log is missing, tables may hold batches from after the clean end that the counters tell of.
    let clean = whole && counters.writes > 0 && counter(Counter::Closed)? == counters.writes;
    let noted = if clean { Some(load_noted(db)?) } else { None };
    let placed = db.get_cf(meta, keys::counter(Counter::Placed)).map_err(in_meta)?;
    let placed = placed.and_then(|value| Placed::decode(value.as_slice().try_into().ok()?));
    if !options.accept_data_loss {
        // Where the log is whole, tables hold nothing that was written later.
        let never_any = whole && claim.says_last_file() && placed.is_some_and(|placed| placed.file == 0);
        check_files(db, files, noted.as_ref(), never_any)?;
    }
    files.there_was(placed.map_or(0, |placed| placed.file));
    match noted {
        Some(noted) => {
            files.noted(&noted);
            if let Some(file) = replayed.goes_on {
                files.go_on(file);
            }
        }
        None => files.begin_count(),
    }
    // Older versions did not always say it. The number of the last write does not follow at once, so that this is not taken
    // for it.
    let last = Placed { file: files.writes_from(), ..Placed::default() };
    batch.put_cf(meta, keys::counter(Counter::Placed), last.encode());
    if !whole {
        batch.delete_cf(meta, keys::counter(Counter::Closed));
    }
    batch.put_cf(meta, keys::counter(Counter::LeaderEpoch), epoch.to_be_bytes());
    // Each log says by its first write how far it was before.
    batch.put_cf(meta, keys::counter(Counter::Writes), counters.writes.to_be_bytes());
    // The new epoch must be on disk before anything is stamped with it.
    let mut durable = WriteOptions::default();
    durable.set_sync(true);
    db.write_opt(batch, &durable)?;

    let configs = match db.get_cf(meta, keys::broker_configs()).map_err(in_meta)? {
        None => ChangedConfigs::default(),
        Some(value) => {
            ChangedConfigs::decode(&value).ok_or_else(|| damaged("broker's settings", &keys::broker_configs()))?
        }
    };
    let offsets_topic = match db.get_cf(meta, keys::offsets_topic()).map_err(in_meta)? {
        None => None,
        Some(value) => {
            let found = OffsetsTopic::decode(&value);
            Some(found.ok_or_else(|| damaged("topic of groups' offsets", &keys::offsets_topic()))?)
        }
    };
    Ok(Found {
        cluster_id: identity.cluster_id_text(),
        node_id: identity.node_id,
        epoch: i32::try_from(epoch).unwrap_or(i32::MAX),
        topics: load_topics(db, options, &configs, clean)?,
        configs,
        offsets_topic,
        counters,
    })
}

/// What was noted of log files at a clean end.
fn load_noted(db: &DB) -> Result<BTreeMap<u32, Noted>, StorageError> {
    let mut noted = BTreeMap::new();
    for entry in db.iterator_cf(family(db, cf::META)?, IteratorMode::From(&keys::log_file(0), Direction::Forward)) {
        let (key, value) = entry.map_err(in_meta)?;
        if key.first() != Some(&(Kind::LogFile as u8)) {
            break;
        }
        let mut fields = Fields(&value);
        let (number, live) =
            keys::parse_log_file(&key).zip(fields.u64()).ok_or_else(|| damaged("size of a log file", &key))?;
        // Earlier versions did not note the second, nor the third, which is not there either where it is not known.
        let end = fields.u64().unwrap_or(live);
        noted.insert(number, Noted { live, end, records: fields.u64() });
    }
    Ok(noted)
}

/// Refuses to begin where log files are missing: what is written from now on would lie beside another folder than what is
/// there. After an end without warning it is not known which there should be, only whether there should be some, unless there
/// never were.
fn check_files(
    db: &DB,
    files: &LogFiles,
    noted: Option<&BTreeMap<u32, Noted>>,
    never_any: bool,
) -> Result<(), StorageError> {
    let missing: HashSet<u32> = noted.map(|noted| files.missing(noted)).into_iter().flatten().collect();
    if missing.is_empty() && (noted.is_some() || never_any || !files.is_empty()) {
        return Ok(());
    }
    let is_missing = |place: &BatchPlace| missing.is_empty() || missing.contains(&place.file);
    let (mut first, mut partitions) = (missing.iter().min().copied(), Vec::new());
    let mut at = db.raw_iterator_cf(family(db, cf::LOG)?);
    at.seek_to_first();
    // What cannot be read is told of when it is counted.
    while let (Some(key), Some(value)) = (at.key(), at.value()) {
        if let Some(place) = BatchPlace::decode(value).filter(is_missing) {
            first = Some(first.map_or(place.file, |first| first.min(place.file)));
            if let Some((uid, _)) = keys::parse_numbered(Kind::Batch, key) {
                partitions.push(uid);
                // On to the next partition.
                at.seek(keys::partition_range(Kind::Batch, uid).1);
                continue;
            }
        }
        at.next();
    }
    let Some(first) = first else { return Ok(()) };
    let more = match missing.len() {
        0 => ", and all others,".into(),
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let path = files.path_of(first);
    let whose = names_of(db, &partitions)?;
    Err(StorageError::Corrupt(format!(
        "log file \"{}\"{more} is missing, with batches of {whose}; {FILE_WAY_OUT}",
        path.display()
    )))
}

/// Partitions by the names that people know.
fn names_of(db: &DB, uids: &[u64]) -> Result<String, StorageError> {
    let mut names = Vec::new();
    let prefix = [Kind::Topic as u8];
    for entry in db.iterator_cf(family(db, cf::META)?, IteratorMode::From(&prefix, Direction::Forward)) {
        let (key, value) = entry.map_err(in_meta)?;
        if !key.starts_with(&prefix) {
            break;
        }
        let Some(stored) = StoredTopic::decode(&value) else { continue };
        for (partition, _) in (0..).zip(&stored.uids).filter(|(_, uid)| uids.contains(uid)) {
            let partition: i32 = partition;
            names.push(format!("topic \"{}\" partition {partition}", stored.name));
        }
    }
    let more = names.len().saturating_sub(MISSING_TOLD);
    names.truncate(MISSING_TOLD);
    let more = if more > 0 { format!(" and {more} more partitions") } else { String::new() };
    Ok(format!("{}{more}", names.join(", ")))
}

/// After a clean end all segments are closed, so that no batches are read: also damaged ones keep nothing from opening.
fn load_topics(
    db: &DB,
    options: &StorageOptions,
    configs: &ChangedConfigs,
    clean: bool,
) -> Result<TopicTable, StorageError> {
    let mut logs = load_logs(db)?;
    let mut table = TopicTable::default();
    let meta = family(db, cf::META)?;
    let prefix = [Kind::Topic as u8];
    for entry in db.iterator_cf(meta, IteratorMode::From(&prefix, Direction::Forward)) {
        let (key, value) = entry.map_err(in_meta)?;
        if !key.starts_with(&prefix) {
            break;
        }
        let (id, stored) =
            keys::parse_topic(&key).zip(StoredTopic::decode(&value)).ok_or_else(|| damaged("topic", &key))?;
        let settings = topic_settings(&stored.configs, configs).map_err(StorageError::Corrupt)?;
        let mut partitions = Vec::with_capacity(stored.uids.len());
        for (partition, uid) in (0..).zip(&stored.uids) {
            let mut log = logs.remove(uid).unwrap_or_default();
            find_end(db, *uid, &mut log, clean, options).map_err(|e| match e {
                StorageError::Corrupt(what) => {
                    StorageError::Corrupt(format!("topic \"{}\" partition {partition}: {what}", stored.name))
                }
                other => other,
            })?;
            partitions.push(Arc::new(Partition::new(*uid, TopicPartition { topic: id, partition }, log)));
        }
        table.insert(Arc::new(Topic {
            id,
            name: stored.name,
            replicas: stored.replicas,
            configs: stored.configs,
            settings,
            partitions,
        }));
    }
    load_producers(db, &table)?;
    Ok(table)
}

/// Log starts, epochs and closed segments by partition uid.
fn load_logs(db: &DB) -> Result<HashMap<u64, LogState>, StorageError> {
    let meta = family(db, cf::META)?;
    let mut logs: HashMap<u64, LogState> = HashMap::new();
    let prefix = [Kind::LogStart as u8];
    for entry in db.iterator_cf(meta, IteratorMode::From(&prefix, Direction::Forward)) {
        let (key, value) = entry.map_err(in_meta)?;
        match key.first() {
            Some(&kind) if kind == Kind::LogStart as u8 => {
                let (uid, start) = keys::parse_log_start(&key)
                    .zip(Fields(&value).u64().and_then(checked_offset))
                    .ok_or_else(|| damaged("log start", &key))?;
                logs.entry(uid).or_default().start = start;
            }
            Some(&kind) if kind == Kind::EpochStart as u8 => {
                let ((uid, epoch), first) = keys::parse_epoch_start(&key)
                    .zip(Fields(&value).i64())
                    .ok_or_else(|| damaged("leader epoch", &key))?;
                logs.entry(uid).or_default().epochs.push((epoch, first));
            }
            _ => break,
        }
    }
    let prefix = [Kind::Compacted as u8];
    for entry in db.iterator_cf(meta, IteratorMode::From(&prefix, Direction::Forward)) {
        let (key, value) = entry.map_err(in_meta)?;
        if !key.starts_with(&prefix) {
            break;
        }
        let (uid, compacted) = keys::parse_compacted(&key)
            .zip(Compacted::decode(&value))
            .ok_or_else(|| damaged("point of compaction", &key))?;
        logs.entry(uid).or_default().compacted = compacted;
    }
    for entry in db.iterator_cf(family(db, cf::INDEX)?, IteratorMode::Start) {
        let (key, value) = entry.map_err(in_index)?;
        if key.first() != Some(&(Kind::Segment as u8)) {
            break;
        }
        let (uid, segment) = keys::parse_numbered(Kind::Segment, &key)
            .and_then(|(uid, last)| Some((uid, Segment::decode(checked_offset(last)?, &value)?)))
            .ok_or_else(|| damaged("segment", &key))?;
        logs.entry(uid).or_default().segments.push(segment);
    }
    Ok(logs)
}

/// The end of a partition is after its last batch; batches after the last closed segment are read into an open one.
fn find_end(db: &DB, uid: u64, log: &mut LogState, clean: bool, options: &StorageOptions) -> Result<(), StorageError> {
    let (_, to) = keys::partition_range(Kind::Batch, uid);
    let known = log.segments.back().map_or(0, |s| s.last + 1);
    log.end = log.start.max(known);
    log.tail_from = log.end;
    if clean {
        return Ok(());
    }
    let read = || {
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(to.to_vec());
        read
    };
    let (mut from, now_ms) = (keys::batch(uid, log.end).to_vec(), options.clock.now_ms());
    let mut added = Ok(());
    let walked = walk(db, read, &mut from, |key, value| {
        added = add_to_end(log, key, value, now_ms);
        added.is_ok()
    })?;
    added?;
    if let Some(why) = walked.why {
        let detail = format!("what comes after offset {} cannot be read: {why}", log.end - 1);
        if !options.accept_data_loss {
            return Err(StorageError::Corrupt(format!("{detail}; {TABLE_WAY_OUT}")));
        }
        tracing::error!("{detail}");
    }
    log.tail_from = log.end;
    Ok(())
}

fn add_to_end(log: &mut LogState, key: &[u8], value: &[u8], now_ms: i64) -> Result<(), StorageError> {
    let last = keys::parse_numbered(Kind::Batch, key).and_then(|(_, last)| checked_offset(last));
    let (last, batch) = last.zip(Extent::of(value)).ok_or_else(|| damaged("batch", key))?;
    let base = last.saturating_sub(i64::from(batch.last_offset_delta));
    if base < 0 || batch.last_offset_delta < 0 || batch.base.is_some_and(|said| said != base) {
        return Err(damaged("batch", key));
    }
    match &mut log.open {
        Some(open) => open.add(last, batch.max_timestamp, now_ms, batch.len),
        None => log.open = Some(Segment::starting_with(base, last, batch.max_timestamp, now_ms, batch.len)),
    }
    log.end = last + 1;
    Ok(())
}

/// What a segment is made of.
struct Extent {
    /// Where the batch itself says so.
    base: Option<Offset>,
    last_offset_delta: i32,
    max_timestamp: i64,
    len: usize,
}

impl Extent {
    fn of(value: &[u8]) -> Option<Self> {
        if let Some(place) = BatchPlace::decode(value) {
            let (last_offset_delta, max_timestamp) = (place.last_offset_delta, place.max_timestamp);
            return Some(Self { base: None, last_offset_delta, max_timestamp, len: place.len as usize });
        }
        let batch = value.get(BATCH_PREFIX_LEN..)?;
        let BatchHeader { base_offset, last_offset_delta, max_timestamp, .. } = BatchHeader::parse(batch)?;
        Some(Self { base: Some(base_offset), last_offset_delta, max_timestamp, len: batch.len() })
    }
}

fn load_producers(db: &DB, topics: &TopicTable) -> Result<(), StorageError> {
    let partitions: HashMap<u64, &Arc<Partition>> =
        topics.by_id.values().flat_map(|t| &t.partitions).map(|p| (p.uid, p)).collect();
    for entry in db.iterator_cf(family(db, cf::PRODUCER)?, IteratorMode::Start) {
        let (key, value) = entry.map_err(|e| salvage::failed(cf::PRODUCER, e))?;
        let ((uid, id), producer) = keys::parse_numbered(Kind::Producer, &key)
            .zip(Producer::decode(&value))
            .ok_or_else(|| damaged("producer", &key))?;
        if let Some(partition) = partitions.get(&uid) {
            if let Some(first) = producer.open_from() {
                partition.log.lock().transactions.open.insert(first, id as i64);
            }
            partition.producers.lock().insert(id as i64, producer);
        }
    }
    find_indexed(db, &partitions)
}

/// How far the indexes of aborted and of settled offsets reach.
fn find_indexed(db: &DB, partitions: &HashMap<u64, &Arc<Partition>>) -> Result<(), StorageError> {
    let mut at = db.raw_iterator_cf(family(db, cf::INDEX)?);
    for kind in [Kind::Aborted, Kind::Settled] {
        // From the last entry of the last partition to that of the one before it, so that partitions without any cost
        // nothing.
        at.seek_for_prev(keys::partition_range(kind, u64::MAX - 1).1);
        while let Some(key) = at.key() {
            let Some((uid, last)) = keys::parse_numbered(kind, key) else { break };
            let last = checked_offset(last).ok_or_else(|| damaged("index of transactions", key))?;
            if let Some(partition) = partitions.get(&uid) {
                let transactions = &mut partition.log.lock().transactions;
                match kind {
                    Kind::Aborted => transactions.aborted_to = last,
                    _ => transactions.settled_to = last,
                }
            }
            // The greatest key that is below all of this partition.
            at.seek_for_prev(keys::partition_range(kind, uid).0);
            if at.key().and_then(|key| keys::parse_numbered(kind, key)).is_some_and(|(found, _)| found == uid) {
                at.prev();
            }
        }
        at.status().map_err(in_index)?;
    }
    Ok(())
}

/// Version u8, cluster id [16], node id i32.
struct Identity {
    cluster_id: [u8; 16],
    node_id: i32,
}

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![IDENTITY_VERSION];
        out.extend_from_slice(&self.cluster_id);
        out.extend_from_slice(&self.node_id.to_be_bytes());
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        if fields.u8()? != IDENTITY_VERSION {
            return None;
        }
        Some(Self { cluster_id: fields.take()?, node_id: fields.i32()? })
    }

    /// As Kafka writes its ids: base64 for URLs, without padding.
    fn cluster_id_text(&self) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(22);
        for group in self.cluster_id.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
            for digit in 0..=group.len() {
                let digit = (bits >> (18 - 6 * digit)) & 63;
                text.extend(DIGITS.get(digit as usize).map(|b| char::from(*b)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_base64_for_urls() {
        let id = Identity { cluster_id: [0xff; 16], node_id: 1 };
        assert_eq!(id.cluster_id_text(), "_____________________w");
        let id = Identity { cluster_id: *b"abcdefghijklmnop", node_id: 1 };
        assert_eq!(id.cluster_id_text(), "YWJjZGVmZ2hpamtsbW5vcA");
    }
}

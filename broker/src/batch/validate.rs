//! Checks a batch that a client sent, as Kafka's log does, and rewrites what the log rewrites.
//!
//! Pure: the caller gives the time. Not here: producer sequences and offsets, which only the writer knows.

use bytes::Bytes;

use super::codec::{Codec, DecompressError, compress, decompress};
use super::records::RecordIter;
use super::{
    ATTRIBUTE_CODEC, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTES_AT, BatchHeader, HEADER_LEN, LENGTH_OVERHEAD,
    MAX_TIMESTAMP_AT, seal,
};

/// At most so many records of a refused batch are named.
const RECORD_ERRORS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What a topic asks of batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchRules {
    pub batch_bytes_max: usize,
    /// Records are kept by key, so each needs one.
    pub compacted: bool,
    pub timestamp_type: TimestampType,
    pub before_max_ms: i64,
    pub after_max_ms: i64,
    /// `None`: as the producer chose.
    pub codec: Option<Codec>,
    pub decompressed_bytes_max: usize,
    pub now_ms: i64,
    /// Bytes left free before the batch, for the caller's own header.
    pub room_before: usize,
}

/// A checked batch in bytes of its own, without its place in the log.
#[derive(Clone, Debug)]
pub struct ValidBatch {
    /// The room that was asked for, then the batch.
    pub bytes: Vec<u8>,
    pub header: BatchHeader,
    /// Some record has no key.
    pub keyless: bool,
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("{0}")]
    Corrupt(String),
    #[error("a batch of {size} bytes is larger than \"max.message.bytes\", {max}")]
    TooLarge { size: usize, max: usize },
    #[error("the batch takes more than \"decompressed_bytes_max\", {max} bytes, when decompressed")]
    ExpandsTooMuch { max: usize },
    #[error("{message}")]
    InvalidRecord { message: String, records: Vec<(i32, String)> },
    #[error("{message}")]
    InvalidTimestamp { message: String, records: Vec<(i32, String)> },
    #[error("{0}")]
    UnsupportedCompression(String),
}

fn invalid(message: impl Into<String>) -> BatchError {
    BatchError::InvalidRecord { message: message.into(), records: Vec::new() }
}

/// Checks the records of a produce request for one partition, which must be exactly one batch.
pub fn validate(bytes: &Bytes, rules: &BatchRules) -> Result<ValidBatch, BatchError> {
    let magic = bytes.get(16).copied();
    if magic.is_some_and(|m| m != 2) {
        return Err(invalid("only record batches of version 2 are accepted"));
    }
    let header = BatchHeader::parse(bytes).ok_or_else(|| BatchError::Corrupt("the batch is cut short".into()))?;
    let size = usize::try_from(header.length).ok().and_then(|l| l.checked_add(LENGTH_OVERHEAD)).unwrap_or(0);
    if size < HEADER_LEN || size > bytes.len() {
        return Err(BatchError::Corrupt(format!(
            "the batch says it has {} bytes, but there are {}",
            header.length,
            bytes.len()
        )));
    }
    if size < bytes.len() {
        return Err(invalid("a produce request holds exactly one batch per partition"));
    }
    if header.base_offset != 0 {
        return Err(invalid(format!("the base offset of a produced batch must be 0, not {}", header.base_offset)));
    }
    if size > rules.batch_bytes_max {
        return Err(BatchError::TooLarge { size, max: rules.batch_bytes_max });
    }
    if bytes.get(ATTRIBUTES_AT..).map(crc32c::crc32c) != Some(header.crc) {
        return Err(BatchError::Corrupt("the batch's checksum is wrong".into()));
    }
    if header.count <= 0 {
        return Err(invalid("the batch has no records"));
    }
    if header.last_offset_delta.checked_add(1) != Some(header.count) {
        return Err(invalid(format!(
            "the batch's last offset delta, {}, does not match its {} records",
            header.last_offset_delta, header.count
        )));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control batches"));
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return Err(invalid("a batch with a producer id needs a sequence"));
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err(invalid("a transactional batch needs a producer id"));
    }
    if header.is_log_append_time() {
        return Err(BatchError::InvalidTimestamp {
            message: "producers may not set the timestamp type to log append time".into(),
            records: Vec::new(),
        });
    }
    let codec = header
        .codec()
        .ok_or_else(|| BatchError::UnsupportedCompression("the batch is compressed by an unknown codec".into()))?;
    let records =
        decompress(codec, &bytes.slice(HEADER_LEN..), rules.decompressed_bytes_max).map_err(|error| match error {
            // Its producer can send what is in it in smaller ones.
            DecompressError::TooLarge(max) => BatchError::ExpandsTooMuch { max },
            DecompressError::Damaged(e) => BatchError::Corrupt(format!("the batch cannot be decompressed: {e}")),
        })?;

    let walk = walk(&records, &header, rules)?;
    rewrite(bytes, header, codec, &records, walk, rules)
}

struct Walk {
    max_timestamp: i64,
    keyless: bool,
}

fn walk(records: &[u8], header: &BatchHeader, rules: &BatchRules) -> Result<Walk, BatchError> {
    let mut max_timestamp = -1;
    let mut keyless = false;
    let mut errors = Vec::new();
    let mut late = Vec::new();
    let earliest = rules.now_ms.saturating_sub(rules.before_max_ms);
    let latest = rules.now_ms.saturating_add(rules.after_max_ms);
    for (index, record) in (0i32..).zip(RecordIter::new(records, header.count).check_headers()) {
        let record = record.map_err(|e| BatchError::InvalidRecord {
            message: format!("record {index} is damaged: {e}"),
            records: vec![(index, e.to_owned())],
        })?;
        if record.offset_delta != index && errors.len() < RECORD_ERRORS_MAX {
            errors.push((index, format!("the record's offset delta is {}, not {index}", record.offset_delta)));
        }
        if record.key.is_none() {
            keyless = true;
            if rules.compacted && errors.len() < RECORD_ERRORS_MAX {
                errors.push((index, "records of a compacted topic need a key".to_owned()));
            }
        }
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if rules.timestamp_type == TimestampType::CreateTime
            && timestamp != -1
            && (timestamp < earliest || timestamp > latest)
            && late.len() < RECORD_ERRORS_MAX
        {
            late.push((index, format!("timestamp {timestamp} is not between {earliest} and {latest}")));
        }
    }
    if let Some((index, first)) = errors.first() {
        let message = format!("record {index}: {first}");
        return Err(BatchError::InvalidRecord { message, records: errors });
    }
    if let Some((index, first)) = late.first() {
        let message = format!("record {index}: {first}");
        return Err(BatchError::InvalidTimestamp { message, records: late });
    }
    Ok(Walk { max_timestamp, keyless })
}

/// Copies the batch, with the codec, times and checksum that the topic asks for.
fn rewrite(
    bytes: &Bytes,
    mut header: BatchHeader,
    codec: Codec,
    records: &Bytes,
    walk: Walk,
    rules: &BatchRules,
) -> Result<ValidBatch, BatchError> {
    let mut out = Vec::with_capacity(rules.room_before + bytes.len());
    out.resize(rules.room_before, 0);
    let mut changed = false;
    match rules.codec.filter(|wanted| *wanted != codec) {
        None => out.extend_from_slice(bytes),
        Some(wanted) => {
            out.extend_from_slice(bytes.get(..HEADER_LEN).unwrap_or_default());
            compress(wanted, records, &mut out)
                .map_err(|e| BatchError::Corrupt(format!("the batch cannot be compressed again: {e}")))?;
            let size = out.len() - rules.room_before;
            if size > rules.batch_bytes_max {
                return Err(BatchError::TooLarge { size, max: rules.batch_bytes_max });
            }
            header.length = i32::try_from(size - LENGTH_OVERHEAD)
                .map_err(|_| BatchError::TooLarge { size, max: rules.batch_bytes_max })?;
            header.attributes = (header.attributes & !ATTRIBUTE_CODEC) | wanted.bits();
            changed = true;
        }
    }
    let max_timestamp = match rules.timestamp_type {
        TimestampType::CreateTime => walk.max_timestamp,
        TimestampType::LogAppendTime => {
            header.attributes |= ATTRIBUTE_LOG_APPEND_TIME;
            changed = true;
            rules.now_ms
        }
    };
    changed |= max_timestamp != header.max_timestamp;
    header.max_timestamp = max_timestamp;
    if changed {
        let batch = out.get_mut(rules.room_before..).unwrap_or_default();
        if let Some(length) = batch.get_mut(8..12) {
            length.copy_from_slice(&header.length.to_be_bytes());
        }
        if let Some(attributes) = batch.get_mut(ATTRIBUTES_AT..ATTRIBUTES_AT + 2) {
            attributes.copy_from_slice(&header.attributes.to_be_bytes());
        }
        if let Some(max) = batch.get_mut(MAX_TIMESTAMP_AT) {
            max.copy_from_slice(&max_timestamp.to_be_bytes());
        }
        seal(batch);
    }
    Ok(ValidBatch { bytes: out, header, keyless: walk.keyless })
}

#[cfg(test)]
mod tests {
    use millpond_types::record::{Header, RecordBuffer, encode_headers};
    use proptest::prelude::*;

    use super::super::{EncodeOptions, encode};
    use super::*;

    const RULES: BatchRules = BatchRules {
        batch_bytes_max: 1 << 20,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        codec: None,
        decompressed_bytes_max: 1 << 22,
        now_ms: 1_000_000,
        room_before: 0,
    };

    type Row = (Option<Vec<u8>>, Option<Vec<u8>>, i64, Vec<Header>);

    fn batch(rows: &[Row], codec: Codec) -> Bytes {
        let mut records = RecordBuffer::default();
        for (key, value, timestamp, headers) in rows {
            let headers = if headers.is_empty() { Vec::new() } else { encode_headers(headers) };
            records.push(key.as_deref(), value.as_deref(), *timestamp, &headers);
        }
        let options = EncodeOptions { codec, batch_bytes_max: 1 << 20, log_append_time: None, room_before: 0 };
        let mut batches = encode(&records, options).unwrap();
        assert_eq!(batches.len(), 1);
        batches.remove(0).bytes.into()
    }

    fn rows_of(batch: &[u8]) -> Vec<Row> {
        let header = BatchHeader::parse(batch).unwrap();
        let records = Bytes::copy_from_slice(&batch[HEADER_LEN..]);
        let records = decompress(header.codec().unwrap(), &records, 1 << 22).unwrap();
        RecordIter::new(&records, header.count)
            .map(|record| {
                let record = record.unwrap();
                let headers = match record.headers.len {
                    0 => Vec::new(),
                    _ => millpond_types::record::decode_headers(record.headers.of(&records)).unwrap(),
                };
                (
                    record.key.map(|s| s.of(&records).to_vec()),
                    record.value.map(|s| s.of(&records).to_vec()),
                    header.timestamp_of(record.timestamp_delta),
                    headers,
                )
            })
            .collect()
    }

    fn codecs() -> impl Strategy<Value = Codec> {
        prop_oneof![Just(Codec::None), Just(Codec::Gzip), Just(Codec::Snappy), Just(Codec::Lz4), Just(Codec::Zstd)]
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let header = ("[a-c]{0,3}", bytes()).prop_map(|(key, value)| Header { key, value });
        let row = (bytes(), bytes(), -1i64..2_000_000, proptest::collection::vec(header, 0..3));
        proptest::collection::vec(row, 1..30)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_accepted_and_read_back(rows in rows(), from in codecs(), to in codecs()) {
            let sent = batch(&rows, from);
            let kept = validate(&sent, &RULES).unwrap();
            prop_assert_eq!(&kept.bytes[..], &sent[..]);
            prop_assert_eq!(rows_of(&kept.bytes), rows.clone());
            let again = validate(&sent, &BatchRules { codec: Some(to), ..RULES }).unwrap();
            prop_assert_eq!(rows_of(&again.bytes), rows);
            prop_assert!(validate(&again.bytes.into(), &RULES).is_ok());
        }

        #[test]
        fn damaged_batches_never_panic(
            rows in rows(),
            codec in codecs(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = batch(&rows, codec).to_vec();
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            // With the checksum made right again, the damage reaches the decoders.
            seal(&mut bytes);
            let _ = validate(&bytes.clone().into(), &RULES);
            let records = Bytes::copy_from_slice(&bytes[HEADER_LEN..]);
            for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
                if let Ok(records) = decompress(codec, &records, 1 << 20) {
                    prop_assert!(records.len() <= (1 << 20) || codec == Codec::None);
                    let _ = RecordIter::new(&records, i32::MAX).check_headers().count();
                    let _ = RecordIter::new(&records, i32::MAX).count();
                }
            }
            bytes.truncate(cut.index(bytes.len()));
            let _ = validate(&bytes.into(), &RULES);
        }
    }

    #[test]
    fn each_fault_is_told_apart() {
        let good = batch(&[(Some(b"k".to_vec()), Some(b"v".to_vec()), 5, vec![])], Codec::None);
        let with = |at: usize, bytes: &[u8]| {
            let mut batch = good.to_vec();
            batch[at..at + bytes.len()].copy_from_slice(bytes);
            seal(&mut batch);
            validate(&batch.into(), &RULES).err()
        };
        assert_eq!(with(0, &[0]), None);
        assert!(matches!(with(16, &[1]), Some(BatchError::InvalidRecord { .. })), "magic");
        assert!(matches!(with(7, &[1]), Some(BatchError::InvalidRecord { .. })), "base offset");
        assert!(matches!(with(22, &[0x20]), Some(BatchError::InvalidRecord { .. })), "control");
        assert!(matches!(with(22, &[0x08]), Some(BatchError::InvalidTimestamp { .. })), "timestamp type");
        assert!(matches!(with(22, &[0x05]), Some(BatchError::UnsupportedCompression(_))), "codec");
        assert!(matches!(with(23, &[0, 0, 0, 7]), Some(BatchError::InvalidRecord { .. })), "last offset delta");
        assert!(matches!(with(43, &[0; 8]), Some(BatchError::InvalidRecord { .. })), "producer without sequence");
        let no_epoch = [[0; 8].as_slice(), &[0xff; 2], &[0; 4]].concat();
        assert_eq!(with(43, &no_epoch), None, "of its epoch the log takes what comes");
        assert!(matches!(with(27, &[0, 0, 1]), Some(BatchError::InvalidTimestamp { .. })), "timestamp");
        let mut torn = good.to_vec();
        *torn.last_mut().unwrap() ^= 1;
        assert!(matches!(validate(&torn.into(), &RULES), Err(BatchError::Corrupt(_))), "checksum");
        let two = Bytes::from([&good[..], &good[..]].concat());
        assert!(matches!(validate(&two, &RULES), Err(BatchError::InvalidRecord { .. })), "two batches");
        let small = BatchRules { batch_bytes_max: 60, ..RULES };
        assert!(matches!(validate(&good, &small), Err(BatchError::TooLarge { .. })), "size");
        let packed = batch(&[(None, Some(vec![0; 9000]), 5, vec![])], Codec::Zstd);
        let tight = BatchRules { decompressed_bytes_max: 9000, ..RULES };
        assert_eq!(validate(&packed, &tight).err(), Some(BatchError::ExpandsTooMuch { max: 9000 }));
        assert!(validate(&packed, &BatchRules { decompressed_bytes_max: 9100, ..RULES }).is_ok());
    }

    #[test]
    fn a_compacted_topic_names_the_records_without_key() {
        let rows = [(Some(b"k".to_vec()), None, 1, vec![]), (None, Some(b"v".to_vec()), 2, vec![])];
        let rules = BatchRules { compacted: true, ..RULES };
        match validate(&batch(&rows, Codec::Lz4), &rules) {
            Err(BatchError::InvalidRecord { records, .. }) => assert_eq!(records[0].0, 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_are_corrected_and_stamped() {
        let rows = [(None, Some(b"a".to_vec()), 30, vec![]), (None, Some(b"b".to_vec()), 10, vec![])];
        let mut lying = batch(&rows, Codec::None).to_vec();
        lying[MAX_TIMESTAMP_AT].copy_from_slice(&99i64.to_be_bytes());
        seal(&mut lying);
        let lying = Bytes::from(lying);
        let kept = validate(&lying, &RULES).unwrap();
        assert_eq!(BatchHeader::parse(&kept.bytes).unwrap().max_timestamp, 30);
        let rules = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..RULES };
        let stamped = validate(&lying, &rules).unwrap();
        assert_eq!(rows_of(&stamped.bytes).iter().map(|r| r.2).collect::<Vec<_>>(), [RULES.now_ms; 2]);
        assert_eq!(BatchHeader::parse(&stamped.bytes).unwrap().crc, crc32c::crc32c(&stamped.bytes[ATTRIBUTES_AT..]));
    }
}

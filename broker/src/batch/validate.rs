//! Checks a batch that a client sent, as Kafka's log does, and rewrites what the log rewrites.
//!
//! Pure: the caller gives the time. Records are looked at while they come out of the decoder, and compressed again, where
//! that is to be, at the same time: what it takes beside the batch is a decoder's memory (`decoder`), however much comes
//! out. Not here: producer sequences and offsets, which only the writer knows.

use std::io::{self, Write};

use bytes::Bytes;

use super::codec::{Codec, Compression, Encoder};
use super::decoder::decoder;
use super::walk::{Walk, WalkError};
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
    /// `None`: as the producer chose. What has the codec already is kept as it is, whatever the level.
    pub compression: Option<Compression>,
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
    let mut header = BatchHeader::parse(bytes).ok_or_else(|| BatchError::Corrupt("the batch is cut short".into()))?;
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
    let records = bytes.get(HEADER_LEN..).unwrap_or_default();
    let mut out = Out { bytes: Vec::with_capacity(rules.room_before + bytes.len()), max: usize::MAX, is_over: false };
    out.bytes.resize(rules.room_before, 0);
    let Some(wanted) = rules.compression.filter(|wanted| wanted.codec != codec) else {
        let looked = look(codec, records, &header, rules, None)?;
        out.bytes.extend_from_slice(bytes);
        return stamp(out.bytes, header, &looked, rules, false);
    };
    out.bytes.extend_from_slice(bytes.get(..HEADER_LEN).unwrap_or_default());
    out.max = rules.room_before.saturating_add(rules.batch_bytes_max);
    let failed = |e: io::Error| BatchError::Corrupt(format!("the batch cannot be compressed again: {e}"));
    let mut encoder = Encoder::new(wanted, &mut out).map_err(failed)?;
    let looked = look(codec, records, &header, rules, Some(&mut encoder))?;
    encoder.finish().map_err(failed)?;
    let (size, max) = (out.bytes.len() - rules.room_before, rules.batch_bytes_max);
    if out.is_over {
        return Err(BatchError::TooLarge { size: size.max(max.saturating_add(1)), max });
    }
    header.length = i32::try_from(size - LENGTH_OVERHEAD).map_err(|_| BatchError::TooLarge { size, max })?;
    header.attributes = (header.attributes & !ATTRIBUTE_CODEC) | wanted.codec.bits();
    stamp(out.bytes, header, &looked, rules, true)
}

/// What is written to it, up to a limit; what is beyond is dropped.
struct Out {
    bytes: Vec<u8>,
    max: usize,
    is_over: bool,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_over |= bytes.len() > self.max.saturating_sub(self.bytes.len());
        if !self.is_over {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Looked {
    max_timestamp: i64,
    keyless: bool,
}

/// Looks at all records; `copy` gets them too.
fn look<'a>(
    codec: Codec,
    records: &'a [u8],
    header: &BatchHeader,
    rules: &BatchRules,
    copy: Option<&'a mut (dyn Write + 'a)>,
) -> Result<Looked, BatchError> {
    let mut max_timestamp = -1;
    let mut keyless = false;
    let mut errors = Vec::new();
    let mut late = Vec::new();
    let earliest = rules.now_ms.saturating_sub(rules.before_max_ms);
    let latest = rules.now_ms.saturating_add(rules.after_max_ms);
    let corrupt = |e: io::Error| BatchError::Corrupt(format!("the batch cannot be decompressed: {e}"));
    let bytes_max = if codec == Codec::None { usize::MAX } else { rules.decompressed_bytes_max };
    let mut walk = Walk::new(decoder(codec, records).map_err(corrupt)?, bytes_max, copy);
    let walked = walk.each(header.count, |index, record| {
        if record.offset_delta != index && errors.len() < RECORD_ERRORS_MAX {
            errors.push((index, format!("the record's offset delta is {}, not {index}", record.offset_delta)));
        }
        if !record.has_key {
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
    });
    walked.map_err(|(index, error)| match error {
        WalkError::Io(e) => corrupt(e),
        // Its producer can send what is in it in smaller ones.
        WalkError::TooLarge => BatchError::ExpandsTooMuch { max: rules.decompressed_bytes_max },
        WalkError::Record(what) => BatchError::InvalidRecord {
            message: format!("record {index} is damaged: {what}"),
            records: vec![(index, what.to_owned())],
        },
    })?;
    if let Some((index, first)) = errors.first() {
        let message = format!("record {index}: {first}");
        return Err(BatchError::InvalidRecord { message, records: errors });
    }
    if let Some((index, first)) = late.first() {
        let message = format!("record {index}: {first}");
        return Err(BatchError::InvalidTimestamp { message, records: late });
    }
    Ok(Looked { max_timestamp, keyless })
}

/// Gives the batch the times that the topic asks for, and seals it where anything of it has changed.
fn stamp(
    mut out: Vec<u8>,
    mut header: BatchHeader,
    looked: &Looked,
    rules: &BatchRules,
    mut changed: bool,
) -> Result<ValidBatch, BatchError> {
    let max_timestamp = match rules.timestamp_type {
        TimestampType::CreateTime => looked.max_timestamp,
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
    Ok(ValidBatch { bytes: out, header, keyless: looked.keyless })
}

#[cfg(test)]
mod tests {
    use millpond_types::record::{Header, RecordBuffer, encode_headers};
    use proptest::prelude::*;

    use super::super::{DECODER_BYTES_USUAL, EncodeOptions, RecordIter, decoder_bytes, decompress, encode};
    use super::*;

    const RULES: BatchRules = BatchRules {
        batch_bytes_max: 1 << 20,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        compression: None,
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
        let options = EncodeOptions {
            compression: codec.into(),
            batch_bytes_max: 1 << 20,
            log_append_time: None,
            room_before: 0,
        };
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
            let again = validate(&sent, &BatchRules { compression: Some(to.into()), ..RULES }).unwrap();
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

    /// Records that reach over any number of pieces, damaged or not, are judged as if all lay in memory.
    #[test]
    fn what_comes_piece_by_piece_is_judged_as_a_whole() {
        let rules = BatchRules { batch_bytes_max: 1 << 24, before_max_ms: i64::MAX, ..RULES };
        let mut random = 7u64;
        let mut below = move |count: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % count
        };
        let (mut good, mut bad) = (0, 0);
        for round in 0..200 {
            let rows: Vec<Row> = (0..1 + below(40))
                .map(|_| {
                    let size = [10, 3000, 70_000, 200_000][below(4)];
                    let mut bytes = |max: usize| Some((0..below(max)).map(|i| (i / 3) as u8).collect::<Vec<u8>>());
                    let (key, value) = (bytes(size / 4 + 1), bytes(size));
                    let headers = vec![Header { key: "h".into(), value: bytes(size) }];
                    (key, value, 5, if value_is_even(&headers) { headers } else { vec![] })
                })
                .collect();
            let mut plain = {
                let mut records = RecordBuffer::default();
                for (key, value, timestamp, headers) in &rows {
                    let headers = if headers.is_empty() { Vec::new() } else { encode_headers(headers) };
                    records.push(key.as_deref(), value.as_deref(), *timestamp, &headers);
                }
                let options = EncodeOptions {
                    compression: Codec::None.into(),
                    batch_bytes_max: 1 << 24,
                    log_append_time: None,
                    room_before: 0,
                };
                encode(&records, options).unwrap().remove(0).bytes
            };
            if round % 2 == 0 {
                for _ in 0..1 + below(3) {
                    // Where lengths are, or anywhere.
                    let near = [12, plain.len() - HEADER_LEN][below(2)].min(plain.len() - HEADER_LEN);
                    plain[HEADER_LEN + below(near)] ^= 1 << below(8);
                }
            }
            let count = BatchHeader::parse(&plain).unwrap().count;
            let whole = RecordIter::new(&plain[HEADER_LEN..], count).check_headers().all(|record| record.is_ok());
            for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
                let mut packed = plain[..HEADER_LEN].to_vec();
                packed[22] = codec.bits() as u8;
                super::super::compress(codec.into(), &plain[HEADER_LEN..], &mut packed).unwrap();
                let len = packed.len() - LENGTH_OVERHEAD;
                packed[8..12].copy_from_slice(&(len as u32).to_be_bytes());
                seal(&mut packed);
                // Blocks of this encoder are as large as what it is given.
                assert!(codec == Codec::Lz4 || decoder_bytes(&packed) <= DECODER_BYTES_USUAL, "{codec:?}");
                let rules = BatchRules { decompressed_bytes_max: plain.len() - HEADER_LEN, ..rules };
                let judged = validate(&packed.clone().into(), &rules);
                let by_delta = matches!(&judged, Err(BatchError::InvalidRecord { message, .. })
                    if message.contains("offset delta"));
                let by_time = matches!(&judged, Err(BatchError::InvalidTimestamp { .. }));
                assert_eq!(judged.is_ok() || by_delta || by_time, whole, "{codec:?}, round {round}: {judged:?}");
                if whole {
                    good += 1;
                    let less = BatchRules { decompressed_bytes_max: plain.len() - HEADER_LEN - 1, ..rules };
                    let refused = matches!(validate(&packed.into(), &less), Err(BatchError::ExpandsTooMuch { .. }));
                    assert!(refused || codec == Codec::None || by_delta || by_time, "{codec:?}");
                } else {
                    bad += 1;
                }
            }
        }
        assert!(good > 100 && bad > 100, "{good} good, {bad} bad");
    }

    fn value_is_even(headers: &[Header]) -> bool {
        headers.iter().all(|header| header.value.as_ref().is_some_and(|value| value.len() % 2 == 0))
    }

    #[test]
    fn what_a_decoder_takes_is_known_before() {
        let of = |codec: Codec, frame: &[u8]| {
            let mut batch = batch(&[(None, None, 5, vec![])], Codec::None)[..HEADER_LEN].to_vec();
            batch[22] = codec.bits() as u8;
            decoder_bytes(&[&batch, frame].concat())
        };
        // A window of 32 MiB, one of 8 MiB and an eighth, one segment of 5 MiB; and one that no decoder is given.
        assert_eq!(of(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0, 15 << 3]) >> 20, 32);
        assert_eq!(of(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3 | 1]) >> 20, 16);
        assert_eq!(of(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0x50, 0]) >> 20, 8);
        assert_eq!(of(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0, 0xff]) >> 20, 32);
        // Blocks of 4 MiB, alone and with a look back.
        assert_eq!(of(Codec::Lz4, &[4, 0x22, 0x4d, 0x18, 0x60, 0x70]) >> 20, 8);
        assert_eq!(of(Codec::Lz4, &[4, 0x22, 0x4d, 0x18, 0x40, 0x70]) >> 20, 12);
        // A block that says that it holds 20 MiB, and one of xerial's framing after a small one.
        let block = [0x80, 0x80, 0x80, 0x0a];
        assert_eq!(of(Codec::Snappy, &block), 20 << 20);
        let framed = [&[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &[0, 0, 0, 2, 1, 0]];
        let framed = [framed.concat(), vec![0, 0, 0, 4], block.to_vec()].concat();
        assert_eq!(of(Codec::Snappy, &framed), 20 << 20);
        assert_eq!(of(Codec::Snappy, &[0xff; 4]), 0);
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

//! Leaves records out of a batch, as compaction does: what stays keeps its offset, its time and its bytes.
//!
//! Base offset, last offset delta, leader epoch and the producer's fields are kept, so that neither consumers nor
//! producers notice more than gaps.

use millpond_types::record::put_varint;

use super::codec::{Codec, Compression, compress};
use super::encode::varint_len;
use super::records::{RawRecord, RecordIter, varint};
use super::{
    ATTRIBUTE_CODEC, ATTRIBUTE_CONTROL, ATTRIBUTE_DELETE_HORIZON, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL,
    BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, seal,
};

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Everything, and there is nothing to note in it.
    Unchanged,
    Nothing,
    Rewritten(Vec<u8>),
}

/// Keeps the records that `keep` says, in the given codec. `horizon` is noted as the time from which deletion markers in it may
/// go. `records` are those of the batch, decompressed.
pub fn retain(
    header: &BatchHeader,
    records: &[u8],
    compression: Compression,
    horizon: Option<i64>,
    mut keep: impl FnMut(&RawRecord) -> bool,
) -> Result<Retained, &'static str> {
    let base = horizon.unwrap_or(header.base_timestamp);
    let mut kept = Vec::with_capacity(records.len());
    let mut count = 0i32;
    let mut max_timestamp = -1;
    let mut at = RecordIter::new(records, header.count);
    loop {
        let start = at.at();
        let Some(record) = at.next() else { break };
        let record = record?;
        if !keep(&record) {
            continue;
        }
        let bytes = records.get(start..at.at()).ok_or("a record is cut short")?;
        count += 1;
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if base == header.base_timestamp {
            kept.extend_from_slice(bytes);
        } else {
            put_moved(&mut kept, bytes, timestamp.wrapping_sub(base))?;
        }
    }
    if count == header.count && horizon.is_none() {
        return Ok(Retained::Unchanged);
    }
    if count == 0 {
        return Ok(Retained::Nothing);
    }
    let mut out = Vec::with_capacity(HEADER_LEN + kept.len());
    out.resize(HEADER_LEN, 0);
    let mut codec = compression.codec;
    if compress(compression, &kept, &mut out).is_err() {
        // Compressing into memory fails only by a defect of the codec; the records are there all the same.
        codec = Codec::None;
        out.truncate(HEADER_LEN);
        out.extend_from_slice(&kept);
    }
    let mut attributes = (header.attributes & !ATTRIBUTE_CODEC) | codec.bits();
    if horizon.is_some() {
        attributes |= ATTRIBUTE_DELETE_HORIZON;
    }
    let length = i32::try_from(out.len() - LENGTH_OVERHEAD).map_err(|_| "the batch became too large")?;
    let new = BatchHeader {
        length,
        attributes,
        base_timestamp: base,
        max_timestamp: if header.is_log_append_time() { header.max_timestamp } else { max_timestamp },
        count,
        ..*header
    };
    put_header(&mut out, &new);
    Ok(Retained::Rewritten(out))
}

/// A batch without records in the place of one that has lost them all.
pub fn empty_batch(header: &BatchHeader) -> Vec<u8> {
    let mut out = vec![0; HEADER_LEN];
    let kept = ATTRIBUTE_LOG_APPEND_TIME | ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL;
    let new = BatchHeader {
        length: (HEADER_LEN - LENGTH_OVERHEAD) as i32,
        attributes: header.attributes & kept,
        base_timestamp: -1,
        count: 0,
        ..*header
    };
    put_header(&mut out, &new);
    out
}

fn put_header(out: &mut [u8], header: &BatchHeader) {
    let mut head = Vec::with_capacity(HEADER_LEN);
    header.put(&mut head);
    if let Some(place) = out.get_mut(..HEADER_LEN) {
        place.copy_from_slice(&head);
    }
    seal(out);
}

/// Puts a record with another timestamp delta.
fn put_moved(out: &mut Vec<u8>, record: &[u8], delta: i64) -> Result<(), &'static str> {
    let cut = "a record is cut short";
    let mut at = 0;
    varint(record, &mut at).ok_or(cut)?;
    let attributes = *record.get(at).ok_or(cut)?;
    at += 1;
    varint(record, &mut at).ok_or(cut)?;
    let rest = record.get(at..).ok_or(cut)?;
    put_varint(out, (1 + varint_len(delta) + rest.len()) as i64);
    out.push(attributes);
    put_varint(out, delta);
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond_types::record::{Header, RecordBuffer, encode_headers};
    use proptest::prelude::*;

    use super::super::{EncodeOptions, decompress, encode, is_intact};
    use super::*;

    type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, i64, Vec<u8>);

    fn rows_of(batch: &[u8]) -> Vec<Row> {
        let header = BatchHeader::parse(batch).unwrap();
        let records =
            decompress(header.codec().unwrap(), &Bytes::copy_from_slice(&batch[HEADER_LEN..]), 1 << 22).unwrap();
        RecordIter::new(&records, header.count)
            .check_headers()
            .map(|record| {
                let record = record.unwrap();
                (
                    header.base_offset + i64::from(record.offset_delta),
                    record.key.map(|s| s.of(&records).to_vec()),
                    record.value.map(|s| s.of(&records).to_vec()),
                    header.timestamp_of(record.timestamp_delta),
                    record.headers.of(&records).to_vec(),
                )
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_as_it_was(
            rows in proptest::collection::vec(
                (any::<Option<Vec<u8>>>(), any::<Option<Vec<u8>>>(), 0i64..1 << 41, 0usize..4, any::<bool>()), 1..20),
            from in 0usize..5,
            to in 0usize..5,
            horizon in proptest::option::of(0i64..1 << 42),
        ) {
            let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
            let mut records = RecordBuffer::default();
            for (key, value, time, headers, _) in &rows {
                // The same header key again and a header without a value.
                let headers: Vec<_> = (0..*headers)
                    .map(|i| Header { key: "h".into(), value: (i > 0).then(|| vec![i as u8]) })
                    .collect();
                let headers = if headers.is_empty() { Vec::new() } else { encode_headers(&headers) };
                records.push(key.as_deref(), value.as_deref(), *time, &headers);
            }
            let options =
                EncodeOptions { compression: codecs[from].into(), batch_bytes_max: 1 << 20, log_append_time: None, room_before: 0 };
            let mut batch = encode(&records, options).unwrap().remove(0).bytes;
            super::super::patch_place(&mut batch, 1000, 3);
            let header = BatchHeader::parse(&batch).unwrap();
            let plain = decompress(
                header.codec().unwrap(), &Bytes::copy_from_slice(&batch[HEADER_LEN..]), 1 << 22).unwrap();
            let mut which = rows.iter().map(|r| r.4);
            let left = retain(&header, &plain, codecs[to].into(), horizon, |_| which.next().unwrap()).unwrap();
            let expected: Vec<_> =
                rows_of(&batch).into_iter().zip(&rows).filter(|(_, r)| r.4).map(|(row, _)| row).collect();
            match left {
                Retained::Unchanged => prop_assert!(horizon.is_none() && expected.len() == rows.len()),
                Retained::Nothing => prop_assert!(expected.is_empty()),
                Retained::Rewritten(out) => {
                    let out = &out[..];
                    let new = BatchHeader::parse(out).unwrap();
                    prop_assert!(is_intact(out));
                    prop_assert_eq!(new.length as usize + LENGTH_OVERHEAD, out.len());
                    prop_assert_eq!(
                        (new.base_offset, new.last_offset(), new.leader_epoch, new.codec(), new.delete_horizon()),
                        (1000, header.last_offset(), 3, Some(codecs[to]), horizon)
                    );
                    prop_assert_eq!(new.max_timestamp, expected.iter().map(|r| r.3).max().unwrap());
                    prop_assert_eq!(rows_of(out), expected);
                }
            }
            let empty = empty_batch(&header);
            prop_assert!(is_intact(&empty) && rows_of(&empty).is_empty());
            prop_assert_eq!(BatchHeader::parse(&empty).unwrap().last_offset(), header.last_offset());
        }
    }
}

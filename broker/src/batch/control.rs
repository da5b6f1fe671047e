//! Control batches: the markers that end a transaction in a partition.
//!
//! One record, without compression: key = version i16 0, type i16 (0 abort, 1 commit); value = version i16 0,
//! coordinator epoch i32. Nobody but the log writes them, and consumers skip them.

use millpond_types::record::put_varint;

use super::validate::ValidBatch;
use super::{ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, seal};

/// The marker of a producer's transaction, after `room_before` bytes for the caller.
pub fn control_batch(
    producer_id: i64,
    producer_epoch: i16,
    commit: bool,
    now_ms: i64,
    coordinator_epoch: i32,
    room_before: usize,
) -> ValidBatch {
    let mut body = Vec::with_capacity(20);
    body.push(0);
    put_varint(&mut body, 0);
    put_varint(&mut body, 0);
    put_varint(&mut body, 4);
    body.extend_from_slice(&0i16.to_be_bytes());
    body.extend_from_slice(&i16::from(commit).to_be_bytes());
    put_varint(&mut body, 6);
    body.extend_from_slice(&0i16.to_be_bytes());
    body.extend_from_slice(&coordinator_epoch.to_be_bytes());
    put_varint(&mut body, 0);
    let mut record = Vec::with_capacity(body.len() + 1);
    put_varint(&mut record, body.len() as i64);
    record.extend_from_slice(&body);
    let header = BatchHeader {
        base_offset: 0,
        length: (HEADER_LEN + record.len() - LENGTH_OVERHEAD) as i32,
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL,
        last_offset_delta: 0,
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        producer_id,
        producer_epoch,
        base_sequence: -1,
        count: 1,
    };
    let mut bytes = Vec::with_capacity(room_before + HEADER_LEN + record.len());
    bytes.resize(room_before, 0);
    header.put(&mut bytes);
    bytes.extend_from_slice(&record);
    seal(bytes.get_mut(room_before..).unwrap_or_default());
    ValidBatch { bytes, header, keyless: false }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::RecordIter;
    use super::*;

    #[test]
    fn a_marker_is_as_kafka_writes_it() {
        for (commit, kind) in [(false, 0), (true, 1)] {
            let batch = Bytes::from(control_batch(7, 3, commit, 99, 5, 0).bytes);
            let header = BatchHeader::parse(&batch).unwrap();
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, -1));
            assert_eq!((header.attributes, header.count, header.max_timestamp), (0x30, 1, 99));
            assert_eq!(header.length as usize, batch.len() - 12);
            assert_eq!(header.crc, crc32c::crc32c(&batch[21..]));
            let records = batch.slice(HEADER_LEN..);
            let record = RecordIter::new(&records, 1).check_headers().next().unwrap().unwrap();
            assert_eq!(record.key.unwrap().of(&records), [0, 0, 0, kind]);
            assert_eq!(record.value.unwrap().of(&records), [0, 0, 0, 0, 0, 5]);
        }
    }
}

//! Makes record batches of records that a step appends.

use millpond_types::record::{RecordBuffer, RecordRef, put_varint};

use super::codec::{Codec, Compression, compress};
use super::validate::ValidBatch;
use super::{ATTRIBUTE_LOG_APPEND_TIME, BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, seal};

#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    pub compression: Compression,
    /// No batch is larger than this.
    pub batch_bytes_max: usize,
    /// The time that the log stamps, where it does.
    pub log_append_time: Option<i64>,
    /// Bytes left free before each batch, for the caller's own header.
    pub room_before: usize,
}

/// A record does not fit into a batch by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTooLarge {
    pub row: usize,
    pub size: usize,
    pub max: usize,
}

/// Encodes all records in order, in as many batches as the limit asks for.
pub fn encode(records: &RecordBuffer, options: EncodeOptions) -> Result<Vec<ValidBatch>, RecordTooLarge> {
    let mut batches = Vec::new();
    let mut open = Open::new(options, records.size());
    for (row, record) in records.iter().enumerate() {
        let size = open.size_with(&record);
        if size > options.batch_bytes_max || open.count == i32::MAX {
            if open.count > 0 {
                batches.push(open.finish());
                open = Open::new(options, records.size());
            }
            let size = open.size_with(&record);
            if size > options.batch_bytes_max {
                return Err(RecordTooLarge { row, size, max: options.batch_bytes_max });
            }
        }
        open.push(&record);
    }
    if open.count > 0 {
        batches.push(open.finish());
    }
    Ok(batches)
}

struct Open {
    options: EncodeOptions,
    bytes: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    keyless: bool,
}

impl Open {
    fn new(options: EncodeOptions, size: usize) -> Self {
        let mut bytes = Vec::with_capacity(options.room_before + HEADER_LEN + (size + 64).min(options.batch_bytes_max));
        bytes.resize(options.room_before + HEADER_LEN, 0);
        Self { options, bytes, count: 0, base_timestamp: 0, max_timestamp: -1, keyless: false }
    }

    fn body_len(&self, record: &RecordRef<'_>) -> usize {
        let base = if self.count == 0 { record.timestamp } else { self.base_timestamp };
        1 + varint_len(record.timestamp.wrapping_sub(base))
            + varint_len(i64::from(self.count))
            + nullable_len(record.key)
            + nullable_len(record.value)
            + record.headers.len().max(1)
    }

    fn size_with(&self, record: &RecordRef<'_>) -> usize {
        let body = self.body_len(record);
        self.bytes.len() - self.options.room_before + varint_len(body as i64) + body
    }

    fn push(&mut self, record: &RecordRef<'_>) {
        let body = self.body_len(record);
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.keyless |= record.key.is_none();
        put_varint(&mut self.bytes, body as i64);
        self.bytes.push(0);
        put_varint(&mut self.bytes, record.timestamp.wrapping_sub(self.base_timestamp));
        put_varint(&mut self.bytes, i64::from(self.count));
        put_nullable(&mut self.bytes, record.key);
        put_nullable(&mut self.bytes, record.value);
        match record.headers {
            [] => self.bytes.push(0),
            some => self.bytes.extend_from_slice(some),
        }
        self.count += 1;
    }

    fn finish(mut self) -> ValidBatch {
        let records_at = self.options.room_before + HEADER_LEN;
        let mut codec = self.options.compression.codec;
        if codec != Codec::None {
            let mut packed = Vec::with_capacity(self.bytes.len() / 2);
            packed.resize(records_at, 0);
            // What does not get smaller is kept as it is; compressing into memory does not fail otherwise.
            let records = self.bytes.get(records_at..).unwrap_or_default();
            let done = compress(self.options.compression, records, &mut packed);
            if done.is_ok() && packed.len() < self.bytes.len() {
                self.bytes = packed;
            } else {
                codec = Codec::None;
            }
        }
        let mut attributes = codec.bits();
        let mut max_timestamp = self.max_timestamp;
        if let Some(now) = self.options.log_append_time {
            attributes |= ATTRIBUTE_LOG_APPEND_TIME;
            max_timestamp = now;
        }
        let header = BatchHeader {
            base_offset: 0,
            length: (self.bytes.len() - self.options.room_before - LENGTH_OVERHEAD) as i32,
            leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: self.count,
        };
        let mut head = Vec::with_capacity(HEADER_LEN);
        header.put(&mut head);
        if let Some(place) = self.bytes.get_mut(self.options.room_before..records_at) {
            place.copy_from_slice(&head);
        }
        seal(self.bytes.get_mut(self.options.room_before..).unwrap_or_default());
        ValidBatch { bytes: self.bytes, header, keyless: self.keyless }
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varint_len(b.len() as i64) + b.len())
}

pub(super) fn varint_len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

//! The record batch, version 2: what the log stores and serves.
//!
//! ```text
//!  0 base offset i64          21 attributes i16         43 producer id i64
//!  8 length i32 (from 12 on)  23 last offset delta i32  51 producer epoch i16
//! 12 leader epoch i32         27 base timestamp i64     53 base sequence i32
//! 16 magic i8 = 2             35 max timestamp i64      57 record count i32
//! 17 crc32c u32 (from 21 on)                            61 records, compressed as the attributes say
//! ```
//! Attributes: bits 0-2 codec, 3 timestamp type (1 = log append time), 4 transactional, 5 control, 6 delete horizon.
//!
//! Not here: where batches lie (`storage`). Invariants: no bytes, however damaged, panic or make these functions
//! allocate more than a limit that the caller names; base offset and leader epoch lie outside the checksum and may be
//! patched freely.

mod codec;
mod control;
mod decoder;
mod encode;
mod records;
mod retain;
mod validate;
mod walk;

use std::ops::Range;

pub use codec::{Codec, Compression, DecompressError, compress, decompress};
pub use control::control_batch;
pub use decoder::{DECODER_BYTES_USUAL, decoder_bytes};
pub use encode::{EncodeOptions, RecordTooLarge, encode};
pub use records::{RawRecord, RecordIter, Span};
pub use retain::{Retained, empty_batch, retain};
pub use validate::{BatchError, BatchRules, TimestampType, ValidBatch, validate};

pub const HEADER_LEN: usize = 61;
/// Bytes before those that the length field counts.
pub const LENGTH_OVERHEAD: usize = 12;

const LEADER_EPOCH_AT: usize = 12;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: Range<usize> = 35..43;
const PRODUCER_AT: usize = 43;

pub const ATTRIBUTE_CODEC: i16 = 0x07;
pub const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
pub const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub const ATTRIBUTE_CONTROL: i16 = 0x20;
pub const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    pub length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header; `None` where the bytes are too short. Checks nothing.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        Some(Self {
            base_offset: i64::from_be_bytes(take(&mut rest)?),
            length: i32::from_be_bytes(take(&mut rest)?),
            leader_epoch: i32::from_be_bytes(take(&mut rest)?),
            magic: i8::from_be_bytes(take(&mut rest)?),
            crc: u32::from_be_bytes(take(&mut rest)?),
            attributes: i16::from_be_bytes(take(&mut rest)?),
            last_offset_delta: i32::from_be_bytes(take(&mut rest)?),
            base_timestamp: i64::from_be_bytes(take(&mut rest)?),
            max_timestamp: i64::from_be_bytes(take(&mut rest)?),
            producer_id: i64::from_be_bytes(take(&mut rest)?),
            producer_epoch: i16::from_be_bytes(take(&mut rest)?),
            base_sequence: i32::from_be_bytes(take(&mut rest)?),
            count: i32::from_be_bytes(take(&mut rest)?),
        })
    }

    /// Appends the header's 61 bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.leader_epoch.to_be_bytes());
        out.extend_from_slice(&self.magic.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
        out.extend_from_slice(&self.attributes.to_be_bytes());
        out.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&self.producer_id.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.to_be_bytes());
        out.extend_from_slice(&self.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// `None` for a codec that does not exist.
    pub fn codec(&self) -> Option<Codec> {
        Codec::of_attributes(self.attributes)
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// When compaction may drop the deletion markers in it, where that is decided. The field of the base timestamp holds
    /// it then, and timestamps are relative to it.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & ATTRIBUTE_DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// The time of a record: its own, or the batch's where the log stamped it.
    pub fn timestamp_of(&self, timestamp_delta: i64) -> i64 {
        if self.is_log_append_time() { self.max_timestamp } else { self.base_timestamp.wrapping_add(timestamp_delta) }
    }
}

/// Stamps a batch with its place in the log; both fields lie outside the checksum. Shorter bytes are left alone.
pub fn patch_place(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    if let Some(place) = batch.first_chunk_mut::<{ LEADER_EPOCH_AT + 4 }>() {
        place[..8].copy_from_slice(&base_offset.to_be_bytes());
        place[LEADER_EPOCH_AT..].copy_from_slice(&leader_epoch.to_be_bytes());
    }
}

/// Whether a whole batch is as its producer sealed it.
pub fn is_intact(batch: &[u8]) -> bool {
    let sealed = batch.get(CRC_AT..CRC_AT + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    sealed.is_some() && batch.get(ATTRIBUTES_AT..).map(crc32c::crc32c) == sealed
}

/// Goes on with the checksum of what lies before attributes, the checksum of the rest among it: this and [`is_intact`]
/// together hold every byte.
pub fn head_crc(crc: u32, batch: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, batch.get(..ATTRIBUTES_AT).unwrap_or(batch))
}

/// Says who produced a batch and with which sequence number it begins, and seals it anew. Shorter bytes are left alone.
pub fn stamp_producer(batch: &mut [u8], producer_id: i64, producer_epoch: i16, base_sequence: i32) {
    if let Some(place) = batch.get_mut(PRODUCER_AT..PRODUCER_AT + 14) {
        place[..8].copy_from_slice(&producer_id.to_be_bytes());
        place[8..10].copy_from_slice(&producer_epoch.to_be_bytes());
        place[10..].copy_from_slice(&base_sequence.to_be_bytes());
        seal(batch);
    }
}

/// Says when the log took a batch whose time it tells, and seals it anew. Shorter bytes are left alone.
pub fn stamp_time(batch: &mut [u8], now_ms: i64) {
    if let Some(place) = batch.get_mut(MAX_TIMESTAMP_AT) {
        place.copy_from_slice(&now_ms.to_be_bytes());
        seal(batch);
    }
}

/// Computes the checksum over attributes and everything after, and writes it.
fn seal(batch: &mut [u8]) {
    let Some(crc) = batch.get(ATTRIBUTES_AT..).map(crc32c::crc32c) else { return };
    if let Some(place) = batch.get_mut(CRC_AT..CRC_AT + 4) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

//! What libFuzzer calls with bytes: one binary, the target chosen by MILLPOND_FUZZ. Run by `scripts/fuzz.sh`.
//!
//! - `request`: a frame from a socket, as far as the struct of its API;
//! - `batch`: a record batch from a producer, with its length and checksum put right: checked, decompressed, walked;
//! - `statement`: SQL text, to its syntax tree.
//!
//! A target may refuse anything but must not panic, hang or take memory beyond a small multiple of the bytes.
#![no_main]

use std::sync::OnceLock;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestKind};
use libfuzzer_sys::fuzz_target;
use millpond_broker::batch::{self, BatchHeader, BatchRules, Codec, RecordIter, TimestampType};
use millpond_broker::inspect::Inspector;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
static INSPECTOR: OnceLock<Inspector> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("MILLPOND_FUZZ").unwrap_or_default();
        let target: fn(&[u8]) = match name.as_str() {
            "request" => request,
            "batch" => record_batch,
            "statement" => statement,
            other => panic!("MILLPOND_FUZZ is request, batch or statement, not {other:?}"),
        };
        let _ = TARGET.set(target);
        let _ = INSPECTOR.set(Inspector::new(Default::default()));
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(bytes);
        }
    }
);

fn request(bytes: &[u8]) {
    let Some(inspector) = INSPECTOR.get() else { return };
    let Ok(Some(inspected)) = inspector.request(Bytes::copy_from_slice(bytes)) else { return };
    let api = ApiKey::try_from(inspected.api_key).expect("an answered API is known to the codec");
    let _refused = RequestKind::decode(api, &mut inspected.body.clone(), inspected.api_version);
}

fn record_batch(bytes: &[u8]) {
    let Some((&[choice], bytes)) = bytes.split_first_chunk::<1>() else { return };
    let mut bytes = bytes.to_vec();
    // A checksum is not found by trying.
    if choice & 1 == 0 && bytes.len() >= batch::HEADER_LEN {
        bytes[..8].fill(0);
        let length = (bytes.len() - batch::LENGTH_OVERHEAD) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let rules = BatchRules {
        batch_bytes_max: 1 << 20,
        compacted: choice & 2 != 0,
        timestamp_type: if choice & 4 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime },
        before_max_ms: i64::MAX,
        after_max_ms: if choice & 8 == 0 { i64::MAX } else { 1000 },
        compression: [None, Some(Codec::Lz4), Some(Codec::Zstd), Some(Codec::None)][usize::from(choice >> 4 & 3)]
            .map(Into::into),
        decompressed_bytes_max: 1 << 20,
        now_ms: 1_700_000_000_000,
        room_before: usize::from(choice >> 6),
    };
    let Ok(valid) = batch::validate(&Bytes::from(bytes), &rules) else { return };
    // What was found good is good for whoever reads it.
    let stored = &valid.bytes[rules.room_before..];
    let header = BatchHeader::parse(stored).expect("a valid batch has a header");
    let codec = Codec::of_attributes(header.attributes).expect("a valid batch has a codec");
    let records = Bytes::copy_from_slice(&stored[batch::HEADER_LEN..]);
    let records = batch::decompress(codec, &records, rules.decompressed_bytes_max).expect("valid records decompress");
    let walked = RecordIter::new(&records, header.count).check_headers();
    let count = walked.map(|record| record.expect("a valid record is whole")).count();
    assert_eq!(count as i32, header.count);
}

fn statement(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _parsed = millpond_sql::parse(text);
}

//! The four codecs of record batches, with a limit on what comes out.
//!
//! Snappy comes raw or in xerial's framing (Java); lz4 is the frame format with independent blocks.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;

use super::ATTRIBUTE_CODEC;

/// The largest window a zstd batch may ask for (2^25 = 32 MiB), which bounds the decoder's memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
const ZSTD_LEVEL: i32 = 3;
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_LEN: usize = 16;
const XERIAL_BLOCK: usize = 32 * 1024;
/// A snappy copy of three bytes gives at most 64; what claims to expand further is damaged.
const SNAPPY_EXPANSION_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub fn of_attributes(attributes: i16) -> Option<Self> {
        match attributes & ATTRIBUTE_CODEC {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The codec by the name that `compression.type` uses.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "none" | "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    pub fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// Why a batch's records cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    #[error("records are larger than {0} bytes when decompressed")]
    TooLarge(usize),
    #[error("{0}")]
    Damaged(#[from] io::Error),
}

type Result<T> = std::result::Result<T, DecompressError>;

fn damaged(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Decompresses the records of a batch to at most `bytes_max` bytes; uncompressed ones are shared, not copied.
pub fn decompress(codec: Codec, bytes: &Bytes, bytes_max: usize) -> Result<Bytes> {
    match codec {
        Codec::None => Ok(bytes.clone()),
        Codec::Gzip => read_all(flate2::read::MultiGzDecoder::new(&bytes[..]), bytes.len(), bytes_max),
        Codec::Lz4 => take_all(lz4_flex::frame::FrameDecoder::new(&bytes[..]), bytes.len(), bytes_max),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&bytes[..])?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            read_all(decoder, bytes.len(), bytes_max)
        }
        Codec::Snappy => unsnap(bytes, bytes_max),
    }
}

fn read_all(reader: impl Read, compressed: usize, bytes_max: usize) -> Result<Bytes> {
    let mut out = Vec::with_capacity(compressed.saturating_mul(3).min(bytes_max));
    reader.take(bytes_max as u64 + 1).read_to_end(&mut out)?;
    if out.len() > bytes_max {
        return Err(DecompressError::TooLarge(bytes_max));
    }
    Ok(out.into())
}

/// As `read_all`, from a decoder that has a buffer of its own: room that is not filled yet is not zeroed for it.
fn take_all(mut reader: impl BufRead, compressed: usize, bytes_max: usize) -> Result<Bytes> {
    let mut out = Vec::with_capacity(compressed.saturating_mul(3).min(bytes_max));
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            return Ok(out.into());
        }
        if part.len() > bytes_max - out.len() {
            return Err(DecompressError::TooLarge(bytes_max));
        }
        out.extend_from_slice(part);
        let len = part.len();
        reader.consume(len);
    }
}

fn unsnap(bytes: &Bytes, bytes_max: usize) -> Result<Bytes> {
    let mut out = Vec::new();
    match bytes.strip_prefix(&XERIAL_MAGIC) {
        None => unsnap_block(bytes, bytes_max, &mut out)?,
        Some(_) => {
            let mut rest = bytes.get(XERIAL_HEADER_LEN..).ok_or_else(|| damaged("snappy framing is cut short"))?;
            while !rest.is_empty() {
                let (len, after) =
                    rest.split_first_chunk::<4>().ok_or_else(|| damaged("snappy framing is cut short"))?;
                let (block, after) = after
                    .split_at_checked(u32::from_be_bytes(*len) as usize)
                    .ok_or_else(|| damaged("a snappy block is cut short"))?;
                unsnap_block(block, bytes_max, &mut out)?;
                rest = after;
            }
        }
    }
    Ok(out.into())
}

fn unsnap_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<()> {
    let len = snap::raw::decompress_len(block).map_err(damaged)?;
    if len > block.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
        return Err(damaged("a snappy block claims more than it can hold").into());
    }
    if len > bytes_max.saturating_sub(out.len()) {
        return Err(DecompressError::TooLarge(bytes_max));
    }
    let start = out.len();
    out.resize(start + len, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(block, room).map_err(damaged)?;
    out.truncate(start + written);
    Ok(())
}

/// Appends the compressed form of `records` to `out`.
pub fn compress(codec: Codec, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::None => out.extend_from_slice(records),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(records)?;
            encoder.finish()?;
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            encoder.write_all(records)?;
            encoder.finish().map_err(damaged)?;
        }
        Codec::Zstd => zstd::stream::copy_encode(records, out, ZSTD_LEVEL)?,
        Codec::Snappy => {
            out.extend_from_slice(&XERIAL_MAGIC);
            out.extend_from_slice(&1u32.to_be_bytes());
            out.extend_from_slice(&1u32.to_be_bytes());
            let mut encoder = snap::raw::Encoder::new();
            for block in records.chunks(XERIAL_BLOCK) {
                let compressed = encoder.compress_vec(block).map_err(damaged)?;
                out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
                out.extend_from_slice(&compressed);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn each_codec_survives_the_round_trip() {
        let mut text = Vec::new();
        for i in 0..20_000u32 {
            text.extend_from_slice(format!("line {}\n", i % 97).as_bytes());
        }
        for codec in ALL {
            let mut packed = Vec::new();
            compress(codec, &text, &mut packed).unwrap();
            assert!(codec == Codec::None || packed.len() < text.len() / 2, "{codec:?}");
            let packed = Bytes::from(packed);
            assert_eq!(decompress(codec, &packed, text.len()).unwrap(), text, "{codec:?}");
            if codec != Codec::None {
                let refused = decompress(codec, &packed, text.len() - 1);
                assert!(matches!(refused, Err(DecompressError::TooLarge(_))), "{codec:?} ignores the limit");
                let cut = packed.slice(..packed.len() / 2);
                let refused = decompress(codec, &cut, text.len());
                assert!(matches!(refused, Err(DecompressError::Damaged(_))), "{codec:?} takes a part for all");
            }
        }
        let raw = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw.into(), text.len()).unwrap(), text);
    }

    #[test]
    fn a_claim_of_gigabytes_is_refused_before_allocating() {
        // A raw snappy block of six bytes that says it holds 4 GiB.
        let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
        assert!(decompress(Codec::Snappy, &claim, usize::MAX / 2).is_err());
    }
}

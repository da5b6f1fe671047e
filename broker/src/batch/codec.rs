//! The four codecs of record batches, with a limit on what comes out.
//!
//! Snappy comes raw or in xerial's framing (Java); lz4 is the frame format with independent blocks.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;

use super::ATTRIBUTE_CODEC;
use super::decoder::{ZSTD_WINDOW_LOG_MAX, blocks};

const ZSTD_LEVEL: i32 = 3;
pub(super) const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
pub(super) const XERIAL_HEADER_LEN: usize = 16;
const XERIAL_BLOCK: usize = 32 * 1024;
/// A snappy copy of three bytes gives at most 64; what claims to expand further is damaged.
pub(super) const SNAPPY_EXPANSION_MAX: usize = 32;

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

pub(super) fn damaged(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
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
    for block in blocks(bytes) {
        unsnap_block(block?, bytes_max, &mut out)?;
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
    let mut encoder = Encoder::new(codec, out)?;
    encoder.write_all(records)?;
    encoder.finish()
}

/// Compresses what is written to it.
pub(super) enum Encoder<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Snappy(Snappy<W>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(codec: Codec, mut out: W) -> io::Result<Self> {
        Ok(match codec {
            Codec::None => Self::None(out),
            Codec::Gzip => Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
            Codec::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Codec::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
            Codec::Snappy => {
                out.write_all(&XERIAL_MAGIC)?;
                out.write_all(&1u32.to_be_bytes())?;
                out.write_all(&1u32.to_be_bytes())?;
                Self::Snappy(Snappy { out, block: Vec::new(), encoder: snap::raw::Encoder::new() })
            }
        })
    }

    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::None(_) => {}
            Self::Gzip(encoder) => drop(encoder.finish()?),
            Self::Snappy(mut encoder) => encoder.end_block()?,
            Self::Lz4(encoder) => drop(encoder.finish().map_err(damaged)?),
            Self::Zstd(encoder) => drop(encoder.finish()?),
        }
        Ok(())
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Snappy(encoder) => encoder.write(bytes),
            Self::Lz4(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks in xerial's framing.
pub(super) struct Snappy<W> {
    out: W,
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl<W: Write> Snappy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(XERIAL_BLOCK - self.block.len());
        self.block.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.block.len() == XERIAL_BLOCK {
            self.end_block()?;
        }
        Ok(count)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let compressed = self.encoder.compress_vec(&self.block).map_err(damaged)?;
        self.block.clear();
        self.out.write_all(&(compressed.len() as u32).to_be_bytes())?;
        self.out.write_all(&compressed)
    }
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

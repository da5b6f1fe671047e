//! The four codecs of record batches, with a limit on what comes out.
//!
//! Snappy comes raw or in xerial's framing (Java); lz4 is the frame format with independent blocks. Levels are Kafka's: how
//! hard the codecs that have any look for what repeats.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;

use super::ATTRIBUTE_CODEC;
use super::decoder::{ZSTD_WINDOW_LOG_MAX, blocks};

const ZSTD_LEVEL: i32 = 3;
pub(super) const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
pub(super) const XERIAL_HEADER_LEN: usize = 16;
/// What is compressed here asks for no larger window, at whatever level: 2 MiB, as zstd's own level has it. That bounds the
/// encoder's memory.
const ZSTD_WINDOW_LOG: u32 = 21;
/// Kafka's name for the fast way of lz4, which is no level of the other one.
const LZ4_LEVEL: i32 = 9;
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

/// A codec, and how hard it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub codec: Codec,
    /// In the codec's own numbers; `None`: its default. Nothing to snappy.
    pub level: Option<i32>,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        Self { codec, level: None }
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
pub fn compress(compression: Compression, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = Encoder::new(compression, out)?;
    encoder.write_all(records)?;
    encoder.finish()
}

/// Compresses what is written to it.
pub(super) enum Encoder<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Snappy(Box<Snappy<W>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    /// The slow ways.
    Lz4High(Box<lz4::Encoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(compression: Compression, mut out: W) -> io::Result<Self> {
        let level = compression.level;
        Ok(match compression.codec {
            Codec::None => Self::None(out),
            Codec::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok()).map(|level| level.min(9));
                let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                Self::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Codec::Lz4 if level.is_some_and(|level| level != LZ4_LEVEL) => {
                Self::Lz4High(Box::new(lz4_at(level.unwrap_or_default(), out)?))
            }
            Codec::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Codec::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level.unwrap_or(ZSTD_LEVEL))?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
            Codec::Snappy => {
                out.write_all(&XERIAL_MAGIC)?;
                out.write_all(&1u32.to_be_bytes())?;
                out.write_all(&1u32.to_be_bytes())?;
                Self::Snappy(Box::new(Snappy { out, block: Vec::new(), encoder: snap::raw::Encoder::new() }))
            }
        })
    }

    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::None(_) => {}
            Self::Gzip(encoder) => drop(encoder.finish()?),
            Self::Snappy(mut encoder) => encoder.end_block()?,
            Self::Lz4(encoder) => drop(encoder.finish().map_err(damaged)?),
            Self::Lz4High(encoder) => encoder.finish().1?,
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
            Self::Lz4High(encoder) => encoder.write(bytes),
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

/// The slow ways of lz4. In blocks of 64 KiB, as Kafka's, they would find less than the fast way does in larger ones.
fn lz4_at<W: Write>(level: i32, out: W) -> io::Result<lz4::Encoder<W>> {
    use lz4::{BlockMode, BlockSize, ContentChecksum, EncoderBuilder, liblz4::BlockChecksum};
    EncoderBuilder::new()
        .level(u32::try_from(level).unwrap_or_default())
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max256KB)
        .block_checksum(BlockChecksum::NoBlockChecksum)
        .checksum(ContentChecksum::NoChecksum)
        .build(out)
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
            compress(codec.into(), &text, &mut packed).unwrap();
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

    /// Text in which there is something to find for whoever looks for long.
    fn words(count: u32) -> Vec<u8> {
        let mut seed = 7u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let mut text = Vec::new();
        for _ in 0..count {
            let word = next() % 700;
            text.extend_from_slice(format!("{:x}-{word} ", word.wrapping_mul(40_503)).as_bytes());
        }
        text
    }

    #[test]
    fn levels_are_heeded() {
        let text = words(60_000);
        let packed = |codec, level| {
            let mut packed = Vec::new();
            compress(Compression { codec, level }, &text, &mut packed).unwrap();
            let packed = Bytes::from(packed);
            assert_eq!(decompress(codec, &packed, text.len()).unwrap(), text, "{codec:?} {level:?}");
            packed.len()
        };
        for (codec, low, default, high) in
            [(Codec::Gzip, 1, -1, 9), (Codec::Lz4, 9, 9, 17), (Codec::Zstd, -131_072, 3, 22), (Codec::Zstd, 1, 3, 19)]
        {
            let (least, most) = (packed(codec, Some(high)), packed(codec, Some(low)));
            assert!(least < most, "{codec:?}: {least} bytes at level {high}, {most} at {low}");
            assert_eq!(packed(codec, Some(default)), packed(codec, None), "{codec:?}");
        }
        for level in 1..=17 {
            packed(Codec::Lz4, Some(level));
        }
        assert_eq!(packed(Codec::Snappy, Some(3)), packed(Codec::Snappy, None));
    }

    #[test]
    fn no_level_asks_for_more_than_can_be_read() {
        // More than the largest window that is read, so that a frame that asked for all of it would be refused.
        let text = vec![b'x'; (1 << ZSTD_WINDOW_LOG_MAX) + 1];
        let mut packed = Vec::new();
        compress(Compression { codec: Codec::Zstd, level: Some(22) }, &text, &mut packed).unwrap();
        assert_eq!(decompress(Codec::Zstd, &packed.into(), text.len()).unwrap().len(), text.len());
    }

    #[test]
    fn a_claim_of_gigabytes_is_refused_before_allocating() {
        // A raw snappy block of six bytes that says it holds 4 GiB.
        let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
        assert!(decompress(Codec::Snappy, &claim, usize::MAX / 2).is_err());
    }
}

//! Decompresses a batch piece by piece, and knows beforehand what memory that takes: a piece and what the codec looks
//! back on, however much comes out.

use std::io::{self, BufRead, BufReader, Read};

use super::codec::{Codec, SNAPPY_EXPANSION_MAX, XERIAL_HEADER_LEN, XERIAL_MAGIC, damaged};
use super::{BatchHeader, HEADER_LEN};

/// What a decoder gives at a time that has no blocks of its own.
const PIECE_BYTES: usize = 64 << 10;
/// The largest window a zstd batch may ask for (32 MiB), which bounds the decoder's memory.
pub(super) const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// What the codec of most clients asks for, whatever it compresses (2 MiB).
const ZSTD_WINDOW_LOG_USUAL: u32 = 21;
/// What a zstd decoder has beside its window: tables, a block in and one out.
const ZSTD_CONTEXT_BYTES: usize = 512 << 10;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// No batch of usual clients needs more to be decompressed.
pub const DECODER_BYTES_USUAL: usize = (1 << ZSTD_WINDOW_LOG_USUAL) + ZSTD_CONTEXT_BYTES + PIECE_BYTES;
/// About what memory it takes to decompress a batch piece by piece, as its frames say.
pub fn decoder_bytes(batch: &[u8]) -> usize {
    let codec = BatchHeader::parse(batch).and_then(|header| header.codec());
    let records = batch.get(HEADER_LEN..).unwrap_or_default();
    match codec {
        None | Some(Codec::None) => 0,
        Some(Codec::Gzip) => 2 * PIECE_BYTES,
        Some(Codec::Snappy) => {
            blocks(records).map_while(|block| snap::raw::decompress_len(block.ok()?).ok()).max().unwrap_or(0)
        }
        Some(Codec::Lz4) => lz4_bytes(records),
        Some(Codec::Zstd) => (1 << zstd_window_log(records)) + ZSTD_CONTEXT_BYTES + PIECE_BYTES,
    }
}

/// A decoder of a batch's records, within what [`decoder_bytes`] says of it.
pub(super) fn decoder<'a>(codec: Codec, records: &'a [u8]) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(records),
        Codec::Gzip => Box::new(pieces(flate2::bufread::MultiGzDecoder::new(records))),
        Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(records)),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(records)?;
            decoder.window_log_max(zstd_window_log(records))?;
            Box::new(pieces(decoder))
        }
        Codec::Snappy => Box::new(Unsnapped { blocks: blocks(records), block: Vec::new(), len: 0, at: 0 }),
    })
}

fn pieces<R: Read>(decoder: R) -> BufReader<R> {
    BufReader::with_capacity(PIECE_BYTES, decoder)
}

/// A frame's blocks have a size that it names, and may look back on the one before.
fn lz4_bytes(records: &[u8]) -> usize {
    if !records.starts_with(&LZ4_MAGIC) {
        return 2 * LZ4_LEGACY_BLOCK;
    }
    let (flags, sizes) = (records.get(4).copied().unwrap_or(0), records.get(5).copied().unwrap_or(0));
    let block = 1usize << (8 + 2 * usize::from((sizes >> 4) & 7));
    if flags & 0x20 != 0 { 2 * block } else { 3 * block + PIECE_BYTES }
}

/// The window of the first frame, and not less than the usual; none of the others has a larger one where a single writer
/// made them.
fn zstd_window_log(records: &[u8]) -> u32 {
    let window = zstd_window(records).unwrap_or(u64::MAX).max(1);
    let log = u64::BITS - (window - 1).leading_zeros();
    log.clamp(ZSTD_WINDOW_LOG_USUAL, ZSTD_WINDOW_LOG_MAX)
}

fn zstd_window(records: &[u8]) -> Option<u64> {
    let (descriptor, rest) = records.strip_prefix(&ZSTD_MAGIC)?.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // There is one segment, as large as the content.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = rest.get(dictionary..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*content.first()?),
        1 => u64::from(u16::from_le_bytes(*content.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*content.first_chunk()?)),
        _ => u64::from_le_bytes(*content.first_chunk()?),
    })
}

/// The blocks of raw snappy, which is one, or of xerial's framing.
pub(super) fn blocks(records: &[u8]) -> Blocks<'_> {
    if !records.starts_with(&XERIAL_MAGIC) {
        return Blocks { rest: Some(records), framed: false };
    }
    Blocks { rest: records.get(XERIAL_HEADER_LEN..).or(Some(&[0])), framed: true }
}

pub(super) struct Blocks<'a> {
    rest: Option<&'a [u8]>,
    framed: bool,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = io::Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if !self.framed {
            return Some(Ok(rest));
        }
        if rest.is_empty() {
            return None;
        }
        let Some((len, rest)) = rest.split_first_chunk::<4>() else {
            return Some(Err(damaged("snappy framing is cut short")));
        };
        let Some((block, rest)) = rest.split_at_checked(u32::from_be_bytes(*len) as usize) else {
            return Some(Err(damaged("a snappy block is cut short")));
        };
        self.rest = Some(rest);
        Some(Ok(block))
    }
}

/// Snappy, block by block.
struct Unsnapped<'a> {
    blocks: Blocks<'a>,
    block: Vec<u8>,
    /// What is in the block, and how much of that was taken.
    len: usize,
    at: usize,
}

impl Read for Unsnapped<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Unsnapped<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.len {
            let Some(block) = self.blocks.next() else { break };
            let block = block?;
            let len = snap::raw::decompress_len(block).map_err(damaged)?;
            if len > block.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
                return Err(damaged("a snappy block claims more than it can hold"));
            }
            if len > self.block.len() {
                self.block.resize(len, 0);
            }
            let room = self.block.get_mut(..len).unwrap_or_default();
            self.len = snap::raw::Decoder::new().decompress(block, room).map_err(damaged)?;
            self.at = 0;
        }
        Ok(self.block.get(self.at..self.len).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.len);
    }
}

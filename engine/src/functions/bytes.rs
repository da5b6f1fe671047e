//! BYTES and texts into each other, numbers out of bytes, MD5.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as BASE64};

use super::typed::{Big, Builtin, Byt, Dbl, Int, Str, scalar};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub fn register(b: &mut Builtin) {
    b.add(
        "TO_BYTES",
        "STRING",
        "the bytes that a text stands for in an encoding",
        vec![scalar!((text: Str, encoding: Str) -> Byt => encoding.parse::<Encoding>().and_then(|e| e.decode(text)))],
    );
    b.add(
        "FROM_BYTES",
        "STRING",
        "bytes as text in an encoding",
        vec![scalar!((bytes: Byt, encoding: Str) -> Str => from_bytes(bytes, encoding))],
    );
    b.add(
        "ENCODE",
        "STRING",
        "a text moved from one encoding to another",
        vec![scalar!((text: Str, from: Str, to: Str) -> Str => recode(text, from, to))],
    );
    b.add(
        "MD5",
        "STRING",
        "the MD5 digest of a text, in hexadecimal",
        vec![scalar!((text: Str) -> Str => hex(&md5(text.as_bytes())))],
    );
    b.add(
        "INT_FROM_BYTES",
        "CONVERSIONS",
        "the INTEGER of four bytes",
        vec![
            scalar!((bytes: Byt) -> Int => fixed(bytes, "BIG_ENDIAN").map(i32::from_be_bytes)),
            scalar!((bytes: Byt, byte_order: Str) -> Int => fixed(bytes, byte_order).map(i32::from_be_bytes)),
        ],
    );
    b.add(
        "BIGINT_FROM_BYTES",
        "CONVERSIONS",
        "the BIGINT of eight bytes",
        vec![
            scalar!((bytes: Byt) -> Big => fixed(bytes, "BIG_ENDIAN").map(i64::from_be_bytes)),
            scalar!((bytes: Byt, byte_order: Str) -> Big => fixed(bytes, byte_order).map(i64::from_be_bytes)),
        ],
    );
    b.add(
        "DOUBLE_FROM_BYTES",
        "CONVERSIONS",
        "the DOUBLE of eight bytes",
        vec![
            scalar!((bytes: Byt) -> Dbl => fixed(bytes, "BIG_ENDIAN").map(f64::from_be_bytes)),
            scalar!((bytes: Byt, byte_order: Str) -> Dbl => fixed(bytes, byte_order).map(f64::from_be_bytes)),
        ],
    );
}

/// Exactly N bytes in big-endian order.
fn fixed<const N: usize>(bytes: &[u8], order: &str) -> Result<[u8; N], String> {
    let mut array =
        <[u8; N]>::try_from(bytes).map_err(|_| format!("{N} bytes are needed, there are {}", bytes.len()))?;
    match order.to_ascii_uppercase().as_str() {
        "BIG_ENDIAN" => {}
        "LITTLE_ENDIAN" => array.reverse(),
        _ => return Err(format!("byte order \"{order}\" is neither BIG_ENDIAN nor LITTLE_ENDIAN")),
    }
    Ok(array)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Hex,
    Utf8,
    Ascii,
    Base64,
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.to_ascii_lowercase().as_str() {
            "hex" => Ok(Self::Hex),
            "utf8" => Ok(Self::Utf8),
            "ascii" => Ok(Self::Ascii),
            "base64" => Ok(Self::Base64),
            _ => Err(format!("encoding \"{name}\" is not hex, utf8, ascii or base64")),
        }
    }
}

impl Encoding {
    /// The bytes that a text stands for.
    fn decode(self, text: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Hex => unhex(text),
            Self::Utf8 => Ok(text.as_bytes().to_vec()),
            Self::Ascii => Ok(text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect()),
            Self::Base64 => lenient_base64(text).ok_or_else(|| "the text is not base64".to_owned()),
        }
    }

    /// The text that stands for bytes.
    fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex(bytes),
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Ascii => {
                bytes.iter().map(|b| if b.is_ascii() { char::from(*b) } else { char::REPLACEMENT_CHARACTER }).collect()
            }
            Self::Base64 => BASE64.encode(bytes),
        }
    }
}

/// As ENCODE, but with hexadecimal digits in upper case.
fn from_bytes(bytes: &[u8], encoding: &str) -> Result<String, String> {
    Ok(match encoding.parse::<Encoding>()? {
        Encoding::Hex => hex(bytes).to_ascii_uppercase(),
        other => other.encode(bytes),
    })
}

fn recode(text: &str, from: &str, to: &str) -> Result<String, String> {
    let (source, target) = (from.parse::<Encoding>()?, to.parse::<Encoding>()?);
    if source == target {
        return Err(format!("the text is to be recoded from \"{from}\" to the same encoding"));
    }
    Ok(target.encode(&source.decode(text)?))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// As MIME has it: what is not of the alphabet is skipped, and the padding may be missing.
pub fn lenient_base64(text: &str) -> Option<Vec<u8>> {
    let body = text.split('=').next().unwrap_or_default();
    let kept: String = body.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/')).collect();
    LENIENT.decode(kept).ok()
}

/// With `0x` in front, when an odd number of digits has a zero in front, or as `X'..'`.
fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let quoted = ["X'", "x'"].iter().find_map(|p| text.strip_prefix(p)).and_then(|t| t.strip_suffix('\''));
    let prefixed = text.strip_prefix("0x");
    let digits = quoted.or(prefixed).unwrap_or(text);
    let digits: Vec<u8> = digits
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()
        .filter(|digits: &Vec<u8>| prefixed.is_some() || digits.len().is_multiple_of(2))
        .ok_or_else(|| "the text is not hexadecimal".to_owned())?;
    let (first, rest) = digits.split_at(digits.len() % 2);
    Ok(first.iter().copied().chain(rest.chunks_exact(2).map(|p| p[0] << 4 | p[1])).collect())
}

/// RFC 1321.
fn md5(message: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    // The integer part of 2^32 times |sin(i + 1)|.
    let sines: Vec<u32> = (1..=64).map(|i| (f64::from(i).sin().abs() * 4_294_967_296.0) as u32).collect();
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64).wrapping_mul(8).to_le_bytes());
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        let words: Vec<u32> = block.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64 {
            let (mix, word) = match i / 16 {
                0 => (b & c | !b & d, i),
                1 => (d & b | !d & c, (5 * i + 1) % 16),
                2 => (b ^ c ^ d, (3 * i + 5) % 16),
                _ => (c ^ (b | !d), 7 * i % 16),
            };
            let sum = a.wrapping_add(mix).wrapping_add(sines[i]).wrapping_add(words[word]);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4]));
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d]) {
            *s = s.wrapping_add(v);
        }
    }
    let mut digest = [0; 16];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_encodings() {
        assert_eq!(hex(&md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(&md5(b"The quick brown fox jumps over the lazy dog")), "9e107d9d372bb6826bd81d3542a419d6");
        assert_eq!(unhex("0xabc"), Ok(vec![0x0a, 0xbc]));
        assert_eq!(unhex("X'ff'"), Ok(vec![0xff]));
        assert!(unhex("xyz").is_err());
        assert!(unhex("abc").is_err());
        assert_eq!(lenient_base64("I Q"), Some(vec![0x21]));
        assert!(recode("a", "hex", "HEX").is_err());
    }
}

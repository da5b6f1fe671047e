//! A cursor over JSON bytes: white space, strings, numbers, and skipping whole values with full syntax checks.
//!
//! Not here: what a value means for a column (`decode`). The bytes are valid UTF-8; the caller has checked that.

use std::ops::Range;

/// Deepest nesting of objects and arrays that is read.
pub const DEPTH_MAX: usize = 1000;

/// Why a record cannot be read, with where in its bytes; boxed, so that the good path moves one word.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    /// Byte position.
    pub at: usize,
    /// Column and the members below it, outermost last.
    pub path: Vec<String>,
}

pub type Scan<T> = Result<T, Box<Failure>>;

#[cold]
#[inline(never)]
pub fn fail<T>(at: usize, message: impl Into<String>) -> Scan<T> {
    Err(Box::new(Failure { message: message.into(), at, path: Vec::new() }))
}

impl Failure {
    pub fn text(&self) -> String {
        if self.path.is_empty() {
            return format!("{} at byte {}", self.message, self.at);
        }
        let path: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        format!("column \"{}\": {} at byte {}", path.join("."), self.message, self.at)
    }
}

#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub pos: usize,
}

/// A number literal.
pub struct Number<'a> {
    pub text: &'a [u8],
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A byte with the high bit set where a byte of `word` ends a run of plain string bytes: quote, backslash, control.
/// Exact up to and including the first such byte, which is all that is used.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let slash = slash.wrapping_sub(ONES) & !slash;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | slash | control) & HIGHS
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    /// The next byte after white space; it is not taken.
    #[inline(always)]
    pub fn next(&mut self) -> Option<u8> {
        match self.peek() {
            Some(b) if b > b' ' => Some(b),
            _ => self.next_slow(),
        }
    }

    #[inline(never)]
    fn next_slow(&mut self) -> Option<u8> {
        while let Some(b) = self.peek() {
            if !matches!(b, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(b);
            }
            self.pos += 1;
        }
        None
    }

    #[cold]
    #[inline(never)]
    pub fn unexpected<T>(&self, wanted: &str) -> Scan<T> {
        match self.bytes.get(self.pos..).and_then(|rest| std::str::from_utf8(rest).ok()).and_then(|s| s.chars().next())
        {
            Some(c) => fail(self.pos, format!("expected {wanted}, found {c:?}")),
            None => fail(self.pos, format!("expected {wanted}, found the end")),
        }
    }

    /// Takes one byte after white space.
    #[inline(always)]
    pub fn expect(&mut self, byte: u8, wanted: &str) -> Scan<()> {
        if self.next() == Some(byte) {
            self.pos += 1;
            Ok(())
        } else {
            self.unexpected(wanted)
        }
    }

    /// From inside a string to its next quote, backslash or control byte.
    #[inline(always)]
    fn plain(&mut self) -> Scan<u8> {
        let mut pos = self.pos;
        while let Some(chunk) = self.bytes.get(pos..).and_then(|rest| rest.first_chunk::<8>()) {
            let found = specials(u64::from_le_bytes(*chunk));
            if found != 0 {
                pos += (found.trailing_zeros() / 8) as usize;
                self.pos = pos;
                return Ok(chunk[(found.trailing_zeros() / 8) as usize]);
            }
            pos += 8;
        }
        while let Some(&b) = self.bytes.get(pos) {
            if b == b'"' || b == b'\\' || b < 0x20 {
                self.pos = pos;
                return Ok(b);
            }
            pos += 1;
        }
        self.pos = pos;
        self.unexpected("the end of a string")
    }

    /// Takes a string, the cursor being on its opening quote; returns what is between the quotes and whether it has escapes.
    #[inline(always)]
    pub fn raw_string(&mut self) -> Scan<(&'a [u8], bool)> {
        self.pos += 1;
        let start = self.pos;
        let stop = self.plain()?;
        if stop == b'"' {
            let text = &self.bytes[start..self.pos];
            self.pos += 1;
            return Ok((text, false));
        }
        self.raw_string_slow(start, stop)
    }

    #[inline(never)]
    fn raw_string_slow(&mut self, start: usize, mut stop: u8) -> Scan<(&'a [u8], bool)> {
        loop {
            match stop {
                b'"' => {
                    let text = &self.bytes[start..self.pos];
                    self.pos += 1;
                    return Ok((text, true));
                }
                b'\\' => {
                    self.pos += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 1,
                        Some(b'u') => {
                            let hex = self.bytes.get(self.pos + 1..self.pos + 5);
                            if !hex.is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)) {
                                return self.unexpected("four hexadecimal digits after \\u");
                            }
                            self.pos += 5;
                        }
                        _ => return self.unexpected("an escape"),
                    }
                }
                _ => return self.unexpected("no bare control character in a string"),
            }
            stop = self.plain()?;
        }
    }

    /// Takes a number. Leading zeros, a bare point and a plus sign are refused as JSON does.
    #[inline(always)]
    pub fn number(&mut self) -> Scan<Number<'a>> {
        let start = self.pos;
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        let first = self.pos;
        self.digits();
        if self.pos == first || (self.pos - first > 1 && self.bytes[first] == b'0') {
            self.pos = first;
            return self.unexpected("a number");
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            let first = self.pos;
            self.digits();
            if self.pos == first {
                return self.unexpected("a digit");
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            let first = self.pos;
            self.digits();
            if self.pos == first {
                return self.unexpected("a digit");
            }
        }
        Ok(Number { text: &self.bytes[start..self.pos] })
    }

    #[inline(always)]
    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.pos += 1;
        }
    }

    /// Takes `true`, `false` or `null`.
    #[inline(always)]
    pub fn word(&mut self, word: &'static [u8]) -> Scan<()> {
        if self.bytes.get(self.pos..).is_some_and(|rest| rest.starts_with(word)) {
            self.pos += word.len();
            Ok(())
        } else {
            self.unexpected("a JSON value")
        }
    }

    /// Takes any value after white space; returns where it lies.
    #[inline(always)]
    pub fn skip_value(&mut self) -> Scan<Range<usize>> {
        let first = self.next();
        let start = self.pos;
        match first {
            Some(b'"') => {
                self.raw_string()?;
            }
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
            }
            Some(b'{' | b'[') => self.skip_nested()?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            _ => return self.unexpected("a JSON value"),
        }
        Ok(start..self.pos)
    }

    /// Takes an object or array without recursion: one bit per level tells which of the two it is.
    #[inline(never)]
    fn skip_nested(&mut self) -> Scan<()> {
        let mut is_object = [0u64; DEPTH_MAX.div_ceil(64)];
        let mut depth = 0usize;
        loop {
            // Here a value begins.
            match self.next() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == DEPTH_MAX {
                        return fail(self.pos, format!("nested deeper than {DEPTH_MAX} levels"));
                    }
                    self.pos += 1;
                    let bit = 1u64 << (depth % 64);
                    if open == b'{' {
                        is_object[depth / 64] |= bit;
                    } else {
                        is_object[depth / 64] &= !bit;
                    }
                    depth += 1;
                    let close = if open == b'{' { b'}' } else { b']' };
                    if self.next() == Some(close) {
                        self.pos += 1;
                        depth -= 1;
                    } else {
                        if open == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.skip_scalar()?;
                }
            }
            // Here a value has ended.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = is_object[(depth - 1) / 64] >> ((depth - 1) % 64) & 1 == 1;
                match self.next() {
                    Some(b',') => {
                        self.pos += 1;
                        if object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    Some(b'}') if object => {
                        self.pos += 1;
                        depth -= 1;
                    }
                    Some(b']') if !object => {
                        self.pos += 1;
                        depth -= 1;
                    }
                    _ => return self.unexpected(if object { "',' or '}'" } else { "',' or ']'" }),
                }
            }
        }
    }

    fn skip_scalar(&mut self) -> Scan<()> {
        match self.peek() {
            Some(b'"') => self.raw_string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.unexpected("a JSON value"),
        }
    }

    fn skip_key(&mut self) -> Scan<()> {
        if self.next() != Some(b'"') {
            return self.unexpected("a member name");
        }
        self.raw_string()?;
        self.expect(b':', "':'")
    }
}

/// Appends the text of a string that has escapes. A lone half of a surrogate pair becomes U+FFFD.
#[inline(never)]
pub fn unescape(out: &mut Vec<u8>, raw: &[u8]) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (escape, after) = match rest.get(at + 1) {
            Some(&escape) => (escape, &rest[at + 2..]),
            None => return,
        };
        rest = after;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (first, after) = unit(rest);
                rest = after;
                let mut code = u32::from(first);
                if (0xd800..0xdc00).contains(&code)
                    && let Some(low) = rest.strip_prefix(b"\\u")
                {
                    let (second, after) = unit(low);
                    if (0xdc00..0xe000).contains(&u32::from(second)) {
                        rest = after;
                        code = 0x10000 + ((code - 0xd800) << 10) + (u32::from(second) - 0xdc00);
                    }
                }
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
}

/// The four hexadecimal digits at the front.
fn unit(bytes: &[u8]) -> (u16, &[u8]) {
    let (digits, rest) = bytes.split_at(bytes.len().min(4));
    let value = digits.iter().fold(0u16, |n, b| n << 4 | char::from(*b).to_digit(16).unwrap_or(0) as u16);
    (value, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_checked() {
        for good in ["{}", "[]", r#"{"a":[1,{"b":null}],"c":"x\u00e9\n"}"#, "[1,[2,[3,[]]],true]", "-0.5e+10", "\"\""] {
            let mut cursor = Cursor::new(good.as_bytes());
            cursor.skip_value().unwrap_or_else(|e| panic!("{good}: {}", e.text()));
            assert_eq!(cursor.pos, good.len());
        }
        for bad in [
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "[1}",
            "{\"a\":1]",
            "01",
            "1.",
            "+1",
            "tru",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "",
            "nul",
            "[1 2]",
            "-",
            "1e",
            "{1:2}",
            "\"\nlong enough for words\"",
        ] {
            assert!(Cursor::new(bad.as_bytes()).skip_value().is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_is_limited() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Cursor::new(deep(DEPTH_MAX).as_bytes()).skip_value().is_ok());
        assert!(Cursor::new(deep(DEPTH_MAX + 1).as_bytes()).skip_value().is_err());
        assert!(Cursor::new("[".repeat(1 << 20).as_bytes()).skip_value().is_err());
    }

    #[test]
    fn escapes() {
        let mut out = Vec::new();
        unescape(&mut out, br#"a\u00e9\ud83d\ude00\ud800x\/\"\\\t"#);
        assert_eq!(String::from_utf8(out).unwrap(), "aé😀\u{fffd}x/\"\\\t");
    }
}

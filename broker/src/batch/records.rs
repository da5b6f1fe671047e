//! Walks the records of a batch without allocating.

/// A piece of the bytes that were walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// The bytes; empty where the span does not lie within them.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        bytes.get(start..start + self.len as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<Span>,
    pub value: Option<Span>,
    /// Headers in wire form, the count first; empty where there are none.
    pub headers: Span,
}

/// Records of decompressed bytes. The first damaged record ends the walk with an error that says what is wrong.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    bytes: &'a [u8],
    at: usize,
    left: i32,
    check_headers: bool,
}

impl<'a> RecordIter<'a> {
    /// `count` is the header's; bytes left over after so many records are an error.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Self { bytes, at: 0, left: count, check_headers: false }
    }

    /// Walks the headers of each record too.
    pub fn check_headers(mut self) -> Self {
        self.check_headers = true;
        self
    }

    /// How far the walk has come in the bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn record(&mut self) -> Result<RawRecord, &'static str> {
        // Spans are 32 bits wide.
        if self.bytes.len() > u32::MAX as usize {
            return Err("the batch is larger than 4 GiB");
        }
        let len = varint(self.bytes, &mut self.at).ok_or("a record's length is cut short")?;
        let len = usize::try_from(len).map_err(|_| "a record's length is negative")?;
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or("a record is cut short")?;
        let record = record(self.bytes, self.at, end, self.check_headers)?;
        self.at = end;
        Ok(record)
    }
}

/// The record whose length lies before `start`, and which ends with `end`.
pub(super) fn record(bytes: &[u8], start: usize, end: usize, check_headers: bool) -> Result<RawRecord, &'static str> {
    // Nothing below reads past the record's own end.
    let body = bytes.get(..end).ok_or("a record is cut short")?;
    let mut at = start + 1;
    let timestamp_delta = varint(body, &mut at).ok_or("a record's timestamp is cut short")?;
    let offset_delta = varint(body, &mut at).ok_or("a record's offset is cut short")?;
    let offset_delta = i32::try_from(offset_delta).map_err(|_| "a record's offset is out of range")?;
    let key = nullable(body, &mut at).ok_or("a record's key is cut short")?;
    let value = nullable(body, &mut at).ok_or("a record's value is cut short")?;
    let headers_at = at;
    let headers = varint(body, &mut at).ok_or("a record's headers are cut short")?;
    if headers < 0 {
        return Err("a record's count of headers is negative");
    }
    if check_headers {
        for _ in 0..headers {
            nullable(body, &mut at).ok_or("a header's key is cut short")?.ok_or("a header's key is null")?;
            nullable(body, &mut at).ok_or("a header's value is cut short")?;
        }
        if at != end {
            return Err("a record's length does not match its contents");
        }
    }
    let headers = match headers {
        0 => Span::default(),
        _ => Span { start: headers_at as u32, len: (end - headers_at) as u32 },
    };
    Ok(RawRecord { offset_delta, timestamp_delta, key, value, headers })
}

impl Iterator for RecordIter<'_> {
    type Item = Result<RawRecord, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            if self.at < self.bytes.len() {
                self.at = self.bytes.len();
                return Some(Err("there are bytes after the last record"));
            }
            return None;
        }
        self.left -= 1;
        let record = self.record();
        if record.is_err() {
            self.left = 0;
            self.at = self.bytes.len();
        }
        Some(record)
    }
}

/// Length and bytes; `Some(None)` for null, `None` where they are cut short.
fn nullable(bytes: &[u8], at: &mut usize) -> Option<Option<Span>> {
    let len = varint(bytes, at)?;
    if len < 0 {
        return Some(None);
    }
    let start = *at;
    let end = start.checked_add(usize::try_from(len).ok()?).filter(|end| *end <= bytes.len())?;
    *at = end;
    Some(Some(Span { start: start as u32, len: len as u32 }))
}

pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    let mut value = u64::from(first & 0x7f);
    if first >= 0x80 {
        let mut shift = 7;
        loop {
            let next = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(next & 0x7f) << shift;
            if next < 0x80 {
                break;
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

//! Walks the records of a batch as they come out of a decoder. What lies whole in a piece is looked at where it lies; a
//! record that reaches beyond is read field by field, however large it is.

use std::io::{self, BufRead, Write};

use super::records::{record, varint};

/// What is looked at of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub has_key: bool,
}

#[derive(Debug)]
pub(super) enum WalkError {
    Io(io::Error),
    /// More comes out than may.
    TooLarge,
    /// What is wrong with the record that is next.
    Record(&'static str),
}

type Result<T, E = WalkError> = std::result::Result<T, E>;

/// Records that come out of a decoder, at most so many bytes of them; what was walked is handed on to `copy`.
pub(super) struct Walk<'a> {
    source: Box<dyn BufRead + 'a>,
    /// How much may still come, what lies in the source now included.
    left: usize,
    /// The source has no more, and is not to be asked again.
    ended: bool,
    copy: Option<&'a mut (dyn Write + 'a)>,
}

impl<'a> Walk<'a> {
    pub fn new(source: Box<dyn BufRead + 'a>, bytes_max: usize, copy: Option<&'a mut (dyn Write + 'a)>) -> Self {
        Self { source, left: bytes_max, ended: false, copy }
    }

    /// Gives each of so many records to `see`; more or less than these is an error.
    pub fn each(&mut self, count: i32, mut see: impl FnMut(i32, Seen)) -> Result<(), (i32, WalkError)> {
        let mut index = 0;
        while index < count {
            let mut at = 0;
            let piece = self.piece().map_err(|e| (index, e))?;
            while index < count {
                match whole(piece, &mut at) {
                    Ok(Some(seen)) => see(index, seen),
                    Ok(None) => break,
                    Err(what) => return Err((index, WalkError::Record(what))),
                }
                index += 1;
            }
            let is_all = at == piece.len();
            self.take(at).map_err(|e| (index, e))?;
            if index < count && !is_all {
                see(index, self.split().map_err(|e| (index, e))?);
                index += 1;
            } else if index < count && self.ended {
                return Err((index, WalkError::Record("a record's length is cut short")));
            }
        }
        if !self.piece().map_err(|e| (index, e))?.is_empty() {
            return Err((index, WalkError::Record("there are bytes after the last record")));
        }
        Ok(())
    }

    /// What lies there; empty at the end.
    fn piece(&mut self) -> Result<&[u8]> {
        if self.ended {
            return Ok(&[]);
        }
        let piece = self.source.fill_buf().map_err(WalkError::Io)?;
        if piece.len() > self.left {
            return Err(WalkError::TooLarge);
        }
        self.ended = piece.is_empty();
        Ok(piece)
    }

    fn take(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        if let Some(copy) = &mut self.copy {
            let piece = self.source.fill_buf().map_err(WalkError::Io)?;
            copy.write_all(piece.get(..count).unwrap_or(piece)).map_err(WalkError::Io)?;
        }
        self.source.consume(count);
        self.left = self.left.saturating_sub(count);
        Ok(())
    }

    /// The next record, which reaches beyond what lies there.
    fn split(&mut self) -> Result<Seen> {
        let mut rest = usize::MAX;
        let len = self.varint(&mut rest, "a record's length is cut short")?;
        let mut rest = usize::try_from(len).map_err(|_| WalkError::Record("a record's length is negative"))?;
        self.skip(1, &mut rest, "a record's timestamp is cut short")?;
        let timestamp_delta = self.varint(&mut rest, "a record's timestamp is cut short")?;
        let offset_delta = self.varint(&mut rest, "a record's offset is cut short")?;
        let offset_delta =
            i32::try_from(offset_delta).map_err(|_| WalkError::Record("a record's offset is out of range"))?;
        let has_key = self.nullable(&mut rest, "a record's key is cut short")?;
        self.nullable(&mut rest, "a record's value is cut short")?;
        let headers = self.varint(&mut rest, "a record's headers are cut short")?;
        if headers < 0 {
            return Err(WalkError::Record("a record's count of headers is negative"));
        }
        for _ in 0..headers {
            if !self.nullable(&mut rest, "a header's key is cut short")? {
                return Err(WalkError::Record("a header's key is null"));
            }
            self.nullable(&mut rest, "a header's value is cut short")?;
        }
        if rest != 0 {
            return Err(WalkError::Record("a record's length does not match its contents"));
        }
        Ok(Seen { offset_delta, timestamp_delta, has_key })
    }

    fn varint(&mut self, rest: &mut usize, cut: &'static str) -> Result<i64> {
        const LEN_MAX: usize = 10;
        let mut bytes = [0; LEN_MAX];
        for (at, place) in bytes.iter_mut().enumerate() {
            *place = match self.piece()?.first() {
                Some(byte) if at < *rest => *byte,
                Some(_) => return Err(WalkError::Record(cut)),
                None => return Err(WalkError::Record("a record is cut short")),
            };
            self.take(1)?;
            if *place < 0x80 {
                *rest -= at + 1;
                let mut from = 0;
                return varint(&bytes, &mut from).ok_or(WalkError::Record(cut));
            }
        }
        Err(WalkError::Record(cut))
    }

    /// Passes over bytes with their length; false for null.
    fn nullable(&mut self, rest: &mut usize, cut: &'static str) -> Result<bool> {
        match usize::try_from(self.varint(rest, cut)?) {
            Ok(len) => self.skip(len, rest, cut).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn skip(&mut self, mut len: usize, rest: &mut usize, cut: &'static str) -> Result<()> {
        *rest = rest.checked_sub(len).ok_or(WalkError::Record(cut))?;
        while len > 0 {
            let there = self.piece()?.len().min(len);
            if there == 0 {
                return Err(WalkError::Record("a record is cut short"));
            }
            self.take(there)?;
            len -= there;
        }
        Ok(())
    }
}

/// The record at `at`, where all of it lies in the piece; `at` is moved behind it then.
fn whole(piece: &[u8], at: &mut usize) -> std::result::Result<Option<Seen>, &'static str> {
    let mut body = *at;
    let Some(len) = varint(piece, &mut body) else { return Ok(None) };
    let len = usize::try_from(len).map_err(|_| "a record's length is negative")?;
    let Some(end) = body.checked_add(len).filter(|end| *end <= piece.len()) else { return Ok(None) };
    let record = record(piece, body, end, true)?;
    *at = end;
    Ok(Some(Seen {
        offset_delta: record.offset_delta,
        timestamp_delta: record.timestamp_delta,
        has_key: record.key.is_some(),
    }))
}

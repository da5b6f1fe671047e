//! Protobuf's wire format: varints, tags, and passing over what is unknown.

use crate::json::scan::{Scan, fail};

/// Deepest nesting of unknown groups that is passed over.
const GROUP_DEPTH_MAX: usize = 100;
/// Largest number that a field can have.
const FIELD_MAX: u64 = (1 << 29) - 1;

/// A part of a record; positions are those of the whole, so that failures can say where.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    pub pos: usize,
    end: usize,
    /// Cells that items may still need beyond their bytes; see `columns::spend`.
    pub spare: Option<&'a std::cell::Cell<usize>>,
}

/// The payload of a field.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Len(Reader<'a>),
    Group,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0, end: bytes.len(), spare: None }
    }

    pub fn is_at_end(&self) -> bool {
        self.pos >= self.end
    }

    /// Refuses an item that is a message of these bytes and needs more cells than the batch has left.
    pub fn spend(&self, width: usize) -> Scan<()> {
        // Its tag and its length come before it.
        let bytes = self.end.saturating_sub(self.pos) + 2;
        match self.spare {
            Some(spare) if !crate::columns::spend(spare, width, bytes) => {
                fail(self.pos, "the batch has more empty items than there is room for")
            }
            _ => Ok(()),
        }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..self.end).unwrap_or_default()
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Scan<u64> {
        match self.rest().first() {
            Some(&b) if b < 0x80 => {
                self.pos += 1;
                Ok(u64::from(b))
            }
            _ => self.varint_slow(),
        }
    }

    fn varint_slow(&mut self) -> Scan<u64> {
        let mut value = 0u64;
        for (i, &b) in self.rest().iter().take(10).enumerate() {
            // Of the tenth byte only one bit counts; others are dropped, as protobuf's own readers do.
            value |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                self.pos += i + 1;
                return Ok(value);
            }
        }
        fail(self.pos, if self.rest().len() < 10 { "a varint is cut off" } else { "a varint has more than ten bytes" })
    }

    pub fn fixed64(&mut self) -> Scan<u64> {
        match self.rest().first_chunk::<8>() {
            Some(bytes) => {
                self.pos += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => fail(self.pos, "a 64-bit value is cut off"),
        }
    }

    pub fn fixed32(&mut self) -> Scan<u32> {
        match self.rest().first_chunk::<4>() {
            Some(bytes) => {
                self.pos += 4;
                Ok(u32::from_le_bytes(*bytes))
            }
            None => fail(self.pos, "a 32-bit value is cut off"),
        }
    }

    /// A field's number and payload.
    #[inline(always)]
    pub fn field(&mut self) -> Scan<(usize, Payload<'a>)> {
        self.field_within(0)
    }

    fn field_within(&mut self, depth: usize) -> Scan<(usize, Payload<'a>)> {
        let at = self.pos;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_MAX {
            return fail(at, format!("{number} is not the number of a field"));
        }
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(self.fixed64()?),
            2 => {
                let len = self.varint()?;
                let start = self.pos;
                match usize::try_from(len).ok().and_then(|len| start.checked_add(len)) {
                    Some(end) if end <= self.end => {
                        self.pos = end;
                        Payload::Len(Reader { bytes: self.bytes, pos: start, end, spare: self.spare })
                    }
                    _ => return fail(at, format!("a field of {len} bytes goes beyond its message")),
                }
            }
            3 => {
                self.skip_group(number as usize, depth)?;
                Payload::Group
            }
            4 => return fail(at, "a group ends that has not begun"),
            5 => Payload::Fixed32(self.fixed32()?),
            kind => return fail(at, format!("wire type {kind} does not exist")),
        };
        Ok((number as usize, payload))
    }

    #[cold]
    #[inline(never)]
    fn skip_group(&mut self, number: usize, depth: usize) -> Scan<()> {
        if depth >= GROUP_DEPTH_MAX {
            return fail(self.pos, format!("groups are nested deeper than {GROUP_DEPTH_MAX}"));
        }
        loop {
            let mut ahead = *self;
            let tag = ahead.varint()?;
            if tag & 7 == 4 {
                if tag >> 3 != number as u64 {
                    return fail(self.pos, "a group ends that has not begun");
                }
                self.pos = ahead.pos;
                return Ok(());
            }
            self.field_within(depth + 1)?;
        }
    }
}

#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What a field's payload is, as its tag says it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Varint = 0,
    Fixed64 = 1,
    Len = 2,
    Fixed32 = 5,
}

#[inline]
pub fn write_tag(out: &mut Vec<u8>, number: usize, kind: Kind) {
    write_varint(out, (number as u64) << 3 | kind as u64);
}

/// Writes a field whose length is known only once it is written.
#[inline]
pub fn write_len(out: &mut Vec<u8>, number: usize, payload: impl FnOnce(&mut Vec<u8>)) {
    write_tag(out, number, Kind::Len);
    // One byte is enough for most lengths; for others the payload moves up.
    let at = out.len();
    out.push(0);
    payload(out);
    let start = at + 1;
    let len = out.len() - start;
    if len < 0x80 {
        out[at] = len as u8;
        return;
    }
    let more = (len.ilog2() / 7) as usize;
    out.resize(start + len + more, 0);
    out.copy_within(start..start + len, start + more);
    let mut value = len;
    for byte in &mut out[at..at + more] {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    out[at + more] = value as u8;
}

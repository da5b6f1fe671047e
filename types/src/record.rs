//! Records as they pass between the log and the engine: views into shared buffers on the way in, one growing buffer on
//! the way out. No allocation per record either way.

use bytes::Bytes;

use crate::{Offset, Sequence};

/// Records of one partition, in offset order.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// What the views point into: stored batches, or their decompressed form.
    pub buffers: Vec<Bytes>,
    pub views: Vec<RecordView>,
    /// Where the next read goes on. Past the last view's offset + 1 where the log has gaps (markers, compaction).
    pub next_offset: Offset,
    /// First offset that is not stable yet; `next_offset == stable_end` means: at the end.
    pub stable_end: Offset,
}

/// A slice of one of the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub buffer: u32,
    pub start: u32,
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct RecordView {
    pub offset: Offset,
    /// Milliseconds since the epoch; -1 where the producer set none.
    pub timestamp: i64,
    /// Place in the log's total order at which the record became stable; equal within a commit.
    pub sequence: Sequence,
    pub key: Option<Slice>,
    pub value: Option<Slice>,
    /// The record's headers in wire form (count, then key and value each with a varint length). Empty slice: none.
    pub headers: Slice,
}

impl Records {
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        let start = slice.start as usize;
        &self.buffers[slice.buffer as usize][start..start + slice.len as usize]
    }

    /// What is held with these records, whoever else holds it.
    pub fn held_bytes(&self) -> usize {
        self.buffers.iter().map(Bytes::len).sum::<usize>() + self.views.len() * size_of::<RecordView>()
    }

    pub fn key(&self, row: usize) -> Option<&[u8]> {
        self.views[row].key.map(|s| self.bytes(s))
    }

    pub fn value(&self, row: usize) -> Option<&[u8]> {
        self.views[row].value.map(|s| self.bytes(s))
    }

    /// The headers of a record; empty where they are damaged.
    pub fn headers(&self, row: usize) -> Vec<Header> {
        let slice = self.views[row].headers;
        if slice.len == 0 { Vec::new() } else { decode_headers(self.bytes(slice)).unwrap_or_default() }
    }

    /// Adds a record with its own copy of the bytes; for tests and small amounts.
    pub fn push(&mut self, offset: Offset, timestamp: i64, sequence: Sequence, record: &OwnedRecord) {
        let mut add = |bytes: Option<&[u8]>| {
            bytes.map(|b| {
                self.buffers.push(Bytes::copy_from_slice(b));
                Slice { buffer: self.buffers.len() as u32 - 1, start: 0, len: b.len() as u32 }
            })
        };
        let key = add(record.key.as_deref());
        let value = add(record.value.as_deref());
        let headers = match record.headers.as_slice() {
            [] => Slice { buffer: 0, start: 0, len: 0 },
            some => add(Some(&encode_headers(some))).unwrap_or(Slice { buffer: 0, start: 0, len: 0 }),
        };
        self.views.push(RecordView { offset, timestamp, sequence, key, value, headers });
        self.next_offset = offset + 1;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    pub key: String,
    pub value: Option<Vec<u8>>,
}

/// A record by itself, where speed does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
    pub headers: Vec<Header>,
}

/// Records to append to one partition, in order, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct RecordBuffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    key_len: i32,
    value_len: i32,
    headers_len: u32,
    timestamp: i64,
}

/// A record of a [`RecordBuffer`].
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp: i64,
    /// Wire form as in [`RecordView::headers`]; empty: none.
    pub headers: &'a [u8],
}

impl RecordBuffer {
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64, headers: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.bytes.extend_from_slice(headers);
        self.entries.push(Entry {
            start,
            key_len: key.map_or(-1, |k| k.len() as i32),
            value_len: value.map_or(-1, |v| v.len() as i32),
            headers_len: headers.len() as u32,
            timestamp,
        });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys, values and headers together.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn get(&self, row: usize) -> RecordRef<'_> {
        let e = self.entries[row];
        let key_end = e.start + e.key_len.max(0) as usize;
        let value_end = key_end + e.value_len.max(0) as usize;
        RecordRef {
            key: (e.key_len >= 0).then(|| &self.bytes[e.start..key_end]),
            value: (e.value_len >= 0).then(|| &self.bytes[key_end..value_end]),
            timestamp: e.timestamp,
            headers: &self.bytes[value_end..value_end + e.headers_len as usize],
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// Kafka's zigzag varint.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes a zigzag varint from the front; `None` where it is cut short or longer than ten bytes.
pub fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&b, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(b & 0x7f) << (7 * i);
        if b < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Headers in wire form, the count first.
pub fn encode_headers(headers: &[Header]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, headers.len() as i64);
    for h in headers {
        put_varint(&mut out, h.key.len() as i64);
        out.extend_from_slice(h.key.as_bytes());
        match &h.value {
            None => put_varint(&mut out, -1),
            Some(v) => {
                put_varint(&mut out, v.len() as i64);
                out.extend_from_slice(v);
            }
        }
    }
    out
}

/// Reads headers in wire form; `None` where they are damaged. Never allocates more than the bytes can hold.
pub fn decode_headers(mut bytes: &[u8]) -> Option<Vec<Header>> {
    fn take<'a>(bytes: &mut &'a [u8], len: i64) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
        *bytes = rest;
        Some(head)
    }
    let count = usize::try_from(take_varint(&mut bytes)?).ok()?;
    let mut headers = Vec::with_capacity(count.min(bytes.len() / 2));
    for _ in 0..count {
        let len = take_varint(&mut bytes)?;
        let key = String::from_utf8_lossy(take(&mut bytes, len)?).into_owned();
        let value = match take_varint(&mut bytes)? {
            len if len < 0 => None,
            len => Some(take(&mut bytes, len)?.to_vec()),
        };
        headers.push(Header { key, value });
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_round_trip() {
        let headers = vec![
            Header { key: "a".into(), value: Some(vec![1, 2, 3]) },
            Header { key: "a".into(), value: None },
            Header { key: String::new(), value: Some(vec![]) },
        ];
        assert_eq!(decode_headers(&encode_headers(&headers)), Some(headers));
    }

    #[test]
    fn damaged_headers_are_refused() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, i64::MAX);
        assert_eq!(decode_headers(&bytes), None);
        assert_eq!(decode_headers(&[0x80; 20]), None);
    }

    #[test]
    fn a_buffer_tells_null_from_empty() {
        let mut buffer = RecordBuffer::default();
        buffer.push(None, Some(b""), 7, &[]);
        buffer.push(Some(b"k"), None, 8, &[]);
        assert_eq!((buffer.get(0).key, buffer.get(0).value), (None, Some(&b""[..])));
        assert_eq!((buffer.get(1).key, buffer.get(1).value), (Some(&b"k"[..]), None));
    }
}

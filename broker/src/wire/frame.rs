//! Requests out of a stream of bytes.
//!
//! ```text
//! frame   i32 length │ header │ body
//! header  i16 api key │ i16 version │ i32 correlation id │ i16-string client id │ (flexible) tagged fields
//! ```

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::Error;

/// Bytes of a length.
const PREFIX: usize = 4;
/// Room made for a read when nothing is known about what comes; so much a connection may have without being asked.
const READ_CHUNK: usize = 16 * 1024;
/// How a TLS handshake begins: its record type, and the major version.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// Bytes of one connection that came and were not taken yet.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    request_bytes_max: usize,
}

impl Frames {
    pub fn new(request_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), request_bytes_max }
    }

    /// Changes how large a request may be.
    pub fn limit(&mut self, request_bytes_max: usize) {
        self.request_bytes_max = request_bytes_max;
    }

    /// The length that the next frame announces, if its prefix has come.
    pub fn announced(&self) -> Result<Option<usize>, Error> {
        if self.buffer.starts_with(TLS_HANDSHAKE) {
            return Err(Error::tls());
        }
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        match usize::try_from(length) {
            Ok(length) if length <= self.request_bytes_max => Ok(Some(length)),
            Ok(_) => Err(Error::malformed(format!(
                "a request of {length} bytes is more than the {} that are taken",
                self.request_bytes_max
            ))),
            Err(_) => Err(Error::malformed(format!("a request has the length {length}"))),
        }
    }

    /// Whether a whole frame is there.
    pub fn ready(&self) -> Result<bool, Error> {
        Ok(self.announced()?.is_some_and(|length| self.buffer.len() >= PREFIX + length))
    }

    /// The next frame without its length, sharing the buffer's memory.
    pub fn take(&mut self) -> Result<Option<Bytes>, Error> {
        match self.announced()? {
            Some(length) if self.buffer.len() >= PREFIX + length => {
                self.buffer.advance(PREFIX);
                let frame = self.buffer.split_to(length).freeze();
                if length > READ_CHUNK {
                    // What is left must not keep the memory of a large frame after its request is done.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                Ok(Some(frame))
            }
            _ => Ok(None),
        }
    }

    /// Key of the next frame, if it has come.
    pub fn peek_key(&self) -> Option<i16> {
        self.buffer.get(PREFIX..PREFIX + 2).map(|b| i16::from_be_bytes([b[0], b[1]]))
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Memory that the next frame may take now. It grows with what has come, so that a length alone takes little: no
    /// more than `believed`, or a chunk. Small frames are not counted.
    pub fn allowance(&self, believed: usize) -> Result<usize, Error> {
        let have = self.buffer.len();
        Ok(match self.announced()? {
            Some(length) if length > READ_CHUNK => {
                (PREFIX + length).min(have.saturating_mul(2).max(believed).max(READ_CHUNK))
            }
            _ => 0,
        })
    }

    /// The buffer with room to read into, `allowed` bytes in all.
    pub fn room(&mut self, allowed: usize) -> &mut BytesMut {
        let have = self.buffer.len();
        let wanted = allowed.saturating_sub(have).max(1);
        if self.buffer.capacity() - have < wanted {
            self.buffer.reserve(wanted.max(READ_CHUNK));
        }
        &mut self.buffer
    }
}

/// A request's header, and where its body begins.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

impl RequestHead {
    /// Key, version and correlation id, which every header begins with.
    pub fn begin(frame: &mut Bytes) -> Result<Self, Error> {
        let mut number = |name| frame.try_get_i16().map_err(|_| ends_within(name));
        let (key, version) = (number("api key")?, number("api version")?);
        let correlation_id = frame.try_get_i32().map_err(|_| ends_within("correlation id"))?;
        Ok(Self { key, version, correlation_id, client_id: None })
    }

    /// The rest of the header; what is left of the frame is the body.
    pub fn finish(&mut self, frame: &mut Bytes, flexible: bool, tags_max: usize) -> Result<(), Error> {
        let length = frame.try_get_i16().map_err(|_| ends_within("client id"))?;
        if length >= 0 {
            let length = length as usize;
            if frame.len() < length {
                return Err(ends_within("client id"));
            }
            // In bytes of its own, which do not keep those of the frame.
            let id = StrBytes::from_utf8(Bytes::copy_from_slice(&frame.split_to(length)));
            self.client_id = Some(id.map_err(|_| Error::malformed("the client id is not UTF-8"))?);
        } else if length != -1 {
            return Err(Error::malformed(format!("the client id has the length {length}")));
        }
        if flexible {
            let count = varint(frame)?;
            if count > tags_max {
                return Err(Error::malformed(format!("the header claims {count} tagged fields")));
            }
            for _ in 0..count {
                varint(frame)?;
                let length = varint(frame)?;
                if frame.len() < length {
                    return Err(ends_within("tagged field"));
                }
                frame.advance(length);
            }
        }
        Ok(())
    }
}

fn varint(bytes: &mut Bytes) -> Result<usize, Error> {
    let mut value = 0u64;
    for i in 0..5 {
        let byte = bytes.try_get_u8().map_err(|_| ends_within("tagged fields"))?;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok(value as usize);
        }
    }
    Err(Error::malformed("a varint of the header is longer than 5 bytes"))
}

fn ends_within(name: &str) -> Error {
    Error::malformed(format!("the request ends within its {name}"))
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut frames = Frames::new(100);
        let bytes = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1, b'c'];
        let mut out = Vec::new();
        for byte in bytes {
            frames.room(0).put_u8(byte);
            while let Some(frame) = frames.take().unwrap() {
                out.push(frame);
            }
        }
        assert_eq!(out, [&b"ab"[..], b"", b"c"]);
        assert!(frames.is_empty());
    }

    #[test]
    fn lengths_are_refused_before_anything_is_reserved() {
        for prefix in [-1i32, i32::MIN, 101, i32::MAX, 0x1603_0100] {
            let mut frames = Frames::new(100);
            frames.room(0).put_i32(prefix);
            assert!(frames.take().is_err(), "{prefix}");
            assert!(frames.allowance(0).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_length_alone_takes_little() {
        let mut frames = Frames::new(1 << 30);
        frames.room(0).put_i32(1 << 30);
        assert_eq!(frames.allowance(1 << 20), Ok(1 << 20));
        assert_eq!(frames.allowance(0), Ok(READ_CHUNK));
        frames.room(0).put_bytes(0, 100_000);
        assert_eq!(frames.allowance(0), Ok(200_008));
    }
}

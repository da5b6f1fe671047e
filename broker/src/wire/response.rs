//! Responses as pieces of bytes, so that record data goes from storage to the socket without another copy.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use millpond_types::{Pool, Reservation};

use super::{Error, RequestHead};

/// Smaller responses are not counted: a connection has one at a time.
const COUNTED_BYTES_MIN: usize = 16 * 1024;
/// Longer ones are sent by themselves.
const JOINED_BYTES_MAX: usize = 16 * 1024;

/// What goes back for a request.
#[derive(Debug)]
pub enum Reply {
    Response(Response),
    /// The connection ends when this has gone.
    Last(Response),
    /// Nothing goes back (a produce with acks=0).
    Silent,
    /// The connection ends.
    Close(String),
}

impl Reply {
    pub fn counted(self, pool: &Pool) -> Self {
        match self {
            Self::Response(response) => Self::Response(response.counted(pool)),
            other => other,
        }
    }
}

/// A response frame in pieces, its length in the first of them.
#[derive(Debug, Default)]
pub struct Response {
    pieces: Vec<Bytes>,
    size: usize,
    /// Counts the bytes until they are sent.
    room: Option<Reservation>,
    /// They are counted for having been made, and not read within a room that was there for them.
    counted: bool,
}

impl Response {
    /// The frame of a message that the codec encodes. `flexible`: the response header ends with tagged fields.
    pub fn of<T: Encodable>(head: &RequestHead, flexible: bool, message: &T) -> Result<Self, Error> {
        let failed = |e| Error::malformed(format!("response of api {} v{} not encoded: {e}", head.key, head.version));
        let size = message.compute_size(head.version).map_err(failed)?;
        let mut builder = Builder::new(head, flexible, size);
        message.encode(builder.head(), head.version).map_err(failed)?;
        builder.finish()
    }

    /// Bytes with their length and nothing else before them.
    pub fn bare(bytes: &[u8]) -> Result<Self, Error> {
        let length = i32::try_from(bytes.len())
            .map_err(|_| Error::malformed(format!("{} bytes do not fit a frame", bytes.len())))?;
        let mut frame = BytesMut::with_capacity(4 + bytes.len());
        frame.put_i32(length);
        frame.extend_from_slice(bytes);
        Ok(Self { size: frame.len(), pieces: vec![frame.freeze()], room: None, counted: false })
    }

    /// Counts its bytes for as long as it is held.
    pub fn holding(self, room: Reservation) -> Self {
        Self { room: Some(room), ..self }
    }

    /// Counts its bytes for as long as it is held, where nothing counts them yet and they are many.
    pub fn counted(mut self, pool: &Pool) -> Self {
        if self.room.is_none() && self.size >= COUNTED_BYTES_MIN {
            let mut room = pool.reservation();
            room.set(self.size);
            self.room = Some(room);
            self.counted = true;
        }
        self
    }

    /// Whether more than half of the memory for answers is taken, or all of its part. Never so where it was read within a
    /// room: others get less then, and while they read hold more than they answer.
    pub fn is_crowding(&self, answers: &Pool) -> bool {
        let is_short = answers.used() > answers.limit() / 2;
        self.counted && self.room.as_ref().is_some_and(|room| is_short || room.pool().left() == 0)
    }

    /// Puts another behind it, to be sent with it, unless they are long together or something counts the bytes of one.
    pub fn join(&mut self, other: Self) -> Result<(), Self> {
        if self.room.is_some() || other.room.is_some() || self.size + other.size > JOINED_BYTES_MAX {
            return Err(other);
        }
        self.size += other.size;
        self.pieces.extend(other.pieces);
        Ok(())
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Overwrites four bytes of the frame. They lie in one piece, as a field does.
    pub fn put_i32(&mut self, mut place: usize, value: i32) {
        for piece in &mut self.pieces {
            if let Some(rest) = place.checked_sub(piece.len()) {
                place = rest;
                continue;
            }
            let mut bytes = BytesMut::from(&piece[..]);
            if let Some(field) = bytes.get_mut(place..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                *field = value.to_be_bytes();
            }
            *piece = bytes.freeze();
            return;
        }
    }

    /// Bytes of the frame, its length prefix included.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Builds a frame from small fields written in place and large pieces passed on.
#[derive(Debug)]
pub struct Builder {
    current: BytesMut,
    pieces: Vec<Bytes>,
    size: usize,
}

impl Builder {
    /// `size_hint`: bytes of the body that will be written in place.
    pub fn new(head: &RequestHead, flexible: bool, size_hint: usize) -> Self {
        let mut current = BytesMut::with_capacity(size_hint + 9);
        current.put_i32(0);
        current.put_i32(head.correlation_id);
        if flexible {
            current.put_u8(0);
        }
        Self { current, pieces: Vec::new(), size: 0 }
    }

    /// Where the next small field goes.
    pub fn head(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Adds bytes as they lie.
    pub fn piece(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let written = self.current.split().freeze();
        self.size += written.len() + bytes.len();
        self.pieces.push(written);
        self.pieces.push(bytes);
    }

    pub fn finish(mut self) -> Result<Response, Error> {
        self.size += self.current.len();
        let length = i32::try_from(self.size - 4)
            .map_err(|_| Error::malformed(format!("a response of {} bytes does not fit a frame", self.size)))?;
        if self.pieces.is_empty() {
            if let Some(prefix) = self.current.first_chunk_mut::<4>() {
                *prefix = length.to_be_bytes();
            }
            return Ok(Response { pieces: vec![self.current.freeze()], size: self.size, room: None, counted: false });
        }
        // The first piece is shared by now: its length goes before it as a piece of its own.
        if let Some(first) = self.pieces.first_mut() {
            *first = first.slice(4..);
        }
        if !self.current.is_empty() {
            self.pieces.push(self.current.freeze());
        }
        self.pieces.insert(0, Bytes::copy_from_slice(&length.to_be_bytes()));
        Ok(Response { pieces: self.pieces, size: self.size, room: None, counted: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_counted_once_made_crowds() {
        let bytes = vec![0; COUNTED_BYTES_MIN];
        let response = || Response::bare(&bytes).unwrap();
        let fetches = Pool::root("fetch_answers", 1 << 20);
        let read = response().holding(fetches.reserve_between(1, COUNTED_BYTES_MIN));
        let _being_read = fetches.reserve_between(1, 1 << 20);
        let answers = Pool::root("answers", 1 << 20);
        let share = answers.passing("answers_of_address", 2 * COUNTED_BYTES_MIN + 4);
        let (read, made) = (read.counted(&share), response().counted(&share));
        assert!(fetches.used() > fetches.limit() / 2 && !read.is_crowding(&answers));
        assert!(!made.is_crowding(&answers), "there is memory");
        let same = response().counted(&share);
        assert!(share.left() == 0 && made.is_crowding(&answers), "its address has no more");
        drop(same);
        assert!(!made.is_crowding(&answers), "it has again");
        let _others = answers.reserve_between(1, 1 << 20);
        assert!(made.is_crowding(&answers) && !read.is_crowding(&answers));
    }

    #[test]
    fn short_ones_that_nobody_counts_go_together() {
        let pool = Pool::root("answers", 1 << 20);
        let bare = |byte: u8, len: usize| Response::bare(&vec![byte; len]).unwrap();
        let mut first = bare(1, 10);
        first.join(bare(2, 20)).unwrap();
        assert_eq!(first.pieces().concat(), [bare(1, 10).pieces().concat(), bare(2, 20).pieces().concat()].concat());
        assert_eq!(first.size(), 38);
        assert_eq!(first.join(bare(3, JOINED_BYTES_MAX)).unwrap_err().size(), JOINED_BYTES_MAX + 4);
        assert!(first.join(bare(3, 10).holding(pool.reserve_between(1, 10))).is_err(), "its bytes are counted");
        assert_eq!(first.size(), 38);
    }
}

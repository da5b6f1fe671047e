//! Every key and value of the data directory that is ours, byte by byte.
//!
//! ```text
//! kind  column family  key after the kind byte                       value
//! 0x01  default        -                                             identity: version, cluster id, node id
//! 0x02  default        counter u8                                    u64
//! 0x03  default        topic id [16]                                 topic: version, name, replicas, configs, uids
//! 0x04  default        partition uid u64                             log start i64
//! 0x05  default        partition uid u64, leader epoch u32           first offset of the epoch i64
//! 0x06  default        bytes of `security`                       a user's credential, its own
//! 0x07  default        bytes of `security::acl`                  an access control entry, its own
//! 0x08  default        bytes of `security::quota`                a quota, its own
//! 0x09  default        -                                             settings of the broker that were changed, its own
//! 0x0a  default        partition uid u64                              how far it is compacted
//! 0x0b  default        name of a feature                              version u8, level i16
//! 0x0c  default        bytes of `security::delegation`               a delegation token, its own
//! 0x0d  default        number of a log file u32                      bytes of live batches in it u64, at a clean end
//! 0x0e  default        -                                             which topic has what groups hold, its own
//! 0x10  log            partition uid u64, last offset u64            version 1, flags, commit sequence u64, batch
//!                                                                    or version 2 and where it lies ([`BatchPlace`])
//! 0x11  index          partition uid u64, last offset u64            segment
//! 0x12  index          partition uid u64, marker's offset u64          aborted transaction
//! 0x13  index          partition uid u64, last offset u64            offsets that became stable together
//! 0x20  producer       partition uid u64, producer id u64            producer's last batches
//! 0x30  group          bytes of the protocol layer                   its own
//! 0x40  catalog        bytes of the engine                           its own
//! 0x41  catalog        query (escaped), topic id [16], partition u32 offset i64
//! ```
//! The column family `state` holds the engine's keys as they are. All numbers are big endian, so that keys sort as their
//! numbers do. A text of unknown length is escaped: 00 becomes 00 FF, and 00 00 ends it. The byte of a retired kind is
//! never used again; retired: none.

use millpond_types::{Offset, TopicId, TopicPartition};

/// The version of everything above, as the directory's marker file names it.
/// 2: batches in log files. 3: commit records in them, and smaller entries of producers.
pub const FORMAT_VERSION: u32 = 3;
/// From it on [`Counter::Placed`] always says which the last log file was.
pub const LAST_FILE_FORMAT: u32 = 3;

pub mod cf {
    pub const META: &str = "default";
    pub const LOG: &str = "log";
    pub const INDEX: &str = "index";
    pub const PRODUCER: &str = "producer";
    pub const GROUP: &str = "group";
    pub const CATALOG: &str = "catalog";
    pub const STATE: &str = "state";
    pub const ALL: [&str; 7] = [META, LOG, INDEX, PRODUCER, GROUP, CATALOG, STATE];
}

#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Identity = 0x01,
    Counter = 0x02,
    Topic = 0x03,
    LogStart = 0x04,
    EpochStart = 0x05,
    Credential = 0x06,
    Acl = 0x07,
    Quota = 0x08,
    BrokerConfigs = 0x09,
    Compacted = 0x0a,
    Feature = 0x0b,
    Token = 0x0c,
    LogFile = 0x0d,
    OffsetsTopic = 0x0e,
    Batch = 0x10,
    Segment = 0x11,
    Aborted = 0x12,
    Settled = 0x13,
    Producer = 0x20,
    Group = 0x30,
    Catalog = 0x40,
    Cursor = 0x41,
}

#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    PartitionUid = 1,
    LeaderEpoch = 2,
    ProducerId = 3,
    Sequence = 4,
    /// Of writes, so that it can be told which was the last.
    Writes = 5,
    /// The last write before a clean end, after which nothing has to be looked for.
    Closed = 6,
    /// What the write before this number put into a log file ([`Placed`]); where it put nothing there, which the last file
    /// was, or 0 where there never was one.
    Placed = 7,
}

/// Before each stored batch: version u8, flags u8 (none yet), commit sequence u64.
pub const BATCH_PREFIX_LEN: usize = 10;
const BATCH_VERSION: u8 = 1;

/// Where a batch lies that is in a log file. Shorter than any batch with its prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchPlace {
    pub sequence: u64,
    pub file: u32,
    pub at: u32,
    pub len: u32,
    /// Of the whole batch.
    pub crc: u32,
    pub last_offset_delta: i32,
    pub max_timestamp: i64,
}

pub const PLACE_LEN: usize = 38;
const PLACE_VERSION: u8 = 2;

impl BatchPlace {
    /// Version u8, flags u8 (none yet), commit sequence u64, file u32, position u32, length u32, crc32c u32, last offset
    /// delta i32, greatest timestamp i64.
    pub fn encode(&self) -> [u8; PLACE_LEN] {
        let mut value = [0; PLACE_LEN];
        value[0] = PLACE_VERSION;
        value[2..10].copy_from_slice(&self.sequence.to_be_bytes());
        value[10..14].copy_from_slice(&self.file.to_be_bytes());
        value[14..18].copy_from_slice(&self.at.to_be_bytes());
        value[18..22].copy_from_slice(&self.len.to_be_bytes());
        value[22..26].copy_from_slice(&self.crc.to_be_bytes());
        value[26..30].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        value[30..].copy_from_slice(&self.max_timestamp.to_be_bytes());
        value
    }

    /// `None` where the value is none or is damaged.
    pub fn decode(value: &[u8]) -> Option<Self> {
        if value.len() != PLACE_LEN {
            return None;
        }
        let mut fields = Fields(value);
        if fields.u8()? != PLACE_VERSION || fields.u8()? != 0 {
            return None;
        }
        Some(Self {
            sequence: fields.u64()?,
            file: fields.u32()?,
            at: fields.u32()?,
            len: fields.u32()?,
            crc: fields.u32()?,
            last_offset_delta: fields.i32()?,
            max_timestamp: fields.i64()?,
        })
    }
}

/// What a write put into a log file, in one piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    pub file: u32,
    pub from: u32,
    pub len: u32,
    pub crc: u32,
}

pub const PLACED_LEN: usize = 16;

impl Placed {
    /// File u32, position u32, length u32, crc32c u32.
    pub fn encode(&self) -> [u8; PLACED_LEN] {
        let mut value = [0; PLACED_LEN];
        value[..4].copy_from_slice(&self.file.to_be_bytes());
        value[4..8].copy_from_slice(&self.from.to_be_bytes());
        value[8..12].copy_from_slice(&self.len.to_be_bytes());
        value[12..].copy_from_slice(&self.crc.to_be_bytes());
        value
    }

    pub fn decode(value: &[u8; PLACED_LEN]) -> Option<Self> {
        let mut fields = Fields(value);
        Some(Self { file: fields.u32()?, from: fields.u32()?, len: fields.u32()?, crc: fields.u32()? })
    }
}

pub fn log_file(number: u32) -> [u8; 5] {
    let mut key = [Kind::LogFile as u8; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub fn parse_log_file(key: &[u8]) -> Option<u32> {
    let (&first, rest) = key.split_first()?;
    (first == Kind::LogFile as u8).then_some(u32::from_be_bytes(rest.try_into().ok()?))
}

pub fn identity() -> [u8; 1] {
    [Kind::Identity as u8]
}

pub fn broker_configs() -> [u8; 1] {
    [Kind::BrokerConfigs as u8]
}

pub fn offsets_topic() -> [u8; 1] {
    [Kind::OffsetsTopic as u8]
}

pub fn counter(counter: Counter) -> [u8; 2] {
    [Kind::Counter as u8, counter as u8]
}

pub fn topic(id: TopicId) -> [u8; 17] {
    let mut key = [Kind::Topic as u8; 17];
    key[1..].copy_from_slice(&id.0);
    key
}

pub fn log_start(uid: u64) -> [u8; 9] {
    let mut key = [Kind::LogStart as u8; 9];
    key[1..].copy_from_slice(&uid.to_be_bytes());
    key
}

pub fn compacted(uid: u64) -> [u8; 9] {
    let mut key = [Kind::Compacted as u8; 9];
    key[1..].copy_from_slice(&uid.to_be_bytes());
    key
}

pub fn epoch_start(uid: u64, epoch: i32) -> [u8; 13] {
    let mut key = [Kind::EpochStart as u8; 13];
    key[1..9].copy_from_slice(&uid.to_be_bytes());
    key[9..].copy_from_slice(&(epoch as u32).to_be_bytes());
    key
}

fn numbered(kind: Kind, uid: u64, number: u64) -> [u8; 17] {
    let mut key = [kind as u8; 17];
    key[1..9].copy_from_slice(&uid.to_be_bytes());
    key[9..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The batch whose last offset this is; seeking to it finds the batch that contains the offset.
pub fn batch(uid: u64, last_offset: Offset) -> [u8; 17] {
    numbered(Kind::Batch, uid, last_offset.max(0) as u64)
}

pub fn segment(uid: u64, last_offset: Offset) -> [u8; 17] {
    numbered(Kind::Segment, uid, last_offset.max(0) as u64)
}

/// The aborted transaction that ended with the marker at this offset.
pub fn aborted(uid: u64, marker: Offset) -> [u8; 17] {
    numbered(Kind::Aborted, uid, marker.max(0) as u64)
}

/// The run of offsets up to this one that became stable together.
pub fn settled(uid: u64, last_offset: Offset) -> [u8; 17] {
    numbered(Kind::Settled, uid, last_offset.max(0) as u64)
}

pub fn producer(uid: u64, producer_id: i64) -> [u8; 17] {
    numbered(Kind::Producer, uid, producer_id as u64)
}

/// An entry of one of the kinds numbered by partition and offset.
pub fn indexed(kind: Kind, uid: u64, offset: Offset) -> [u8; 17] {
    numbered(kind, uid, offset.max(0) as u64)
}

/// All keys `[from, to)` of a partition in one of the kinds numbered by partition first.
pub fn partition_range(kind: Kind, uid: u64) -> ([u8; 17], [u8; 17]) {
    (numbered(kind, uid, 0), numbered(kind, uid.wrapping_add(1), 0))
}

/// Partition uid and the number after it.
pub fn parse_numbered(kind: Kind, key: &[u8]) -> Option<(u64, u64)> {
    let (&first, rest) = key.split_first()?;
    let (uid, rest) = rest.split_first_chunk::<8>()?;
    let number: [u8; 8] = rest.try_into().ok()?;
    (first == kind as u8).then_some((u64::from_be_bytes(*uid), u64::from_be_bytes(number)))
}

pub fn parse_log_start(key: &[u8]) -> Option<u64> {
    let (&first, rest) = key.split_first()?;
    (first == Kind::LogStart as u8).then_some(u64::from_be_bytes(rest.try_into().ok()?))
}

pub fn parse_compacted(key: &[u8]) -> Option<u64> {
    let (&first, rest) = key.split_first()?;
    (first == Kind::Compacted as u8).then_some(u64::from_be_bytes(rest.try_into().ok()?))
}

pub fn parse_epoch_start(key: &[u8]) -> Option<(u64, i32)> {
    let (&first, rest) = key.split_first()?;
    let (uid, rest) = rest.split_first_chunk::<8>()?;
    let epoch = u32::from_be_bytes(rest.try_into().ok()?);
    (first == Kind::EpochStart as u8).then_some((u64::from_be_bytes(*uid), epoch as i32))
}

pub fn parse_topic(key: &[u8]) -> Option<TopicId> {
    let (&first, rest) = key.split_first()?;
    (first == Kind::Topic as u8).then_some(TopicId(rest.try_into().ok()?))
}

pub fn prefixed(kind: Kind, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(kind as u8);
    out.extend_from_slice(key);
    out
}

/// First key after all that start with `prefix`; empty where there is none.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xff {
            out.push(last + 1);
            break;
        }
    }
    out
}

/// What all cursors of a query start with.
pub fn cursors_of(query: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(query.len() + 24);
    key.push(Kind::Cursor as u8);
    for &byte in query.as_bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 0]);
    key
}

pub fn cursor(query: &str, source: TopicPartition) -> Vec<u8> {
    let mut key = cursors_of(query);
    key.extend_from_slice(&source.topic.0);
    key.extend_from_slice(&(source.partition as u32).to_be_bytes());
    key
}

pub fn parse_cursor(key: &[u8]) -> Option<(String, TopicPartition)> {
    let (&first, mut rest) = key.split_first()?;
    if first != Kind::Cursor as u8 {
        return None;
    }
    let mut query = Vec::new();
    loop {
        match rest {
            [0, 0, after @ ..] => {
                rest = after;
                break;
            }
            [0, 0xff, after @ ..] => {
                query.push(0);
                rest = after;
            }
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                query.push(*byte);
                rest = after;
            }
        }
    }
    let (topic, rest) = rest.split_first_chunk::<16>()?;
    let partition = u32::from_be_bytes(rest.try_into().ok()?) as i32;
    Some((String::from_utf8(query).ok()?, TopicPartition { topic: TopicId(*topic), partition }))
}

/// Fills the room before a batch.
pub fn put_batch_prefix(value: &mut [u8], sequence: u64) {
    if let Some(prefix) = value.first_chunk_mut::<BATCH_PREFIX_LEN>() {
        prefix[0] = BATCH_VERSION;
        prefix[1] = 0;
        prefix[2..].copy_from_slice(&sequence.to_be_bytes());
    }
}

/// Commit sequence of a stored batch; `None` where the prefix is damaged or of another version.
pub fn parse_batch_prefix(value: &[u8]) -> Option<u64> {
    let (prefix, _) = value.split_first_chunk::<BATCH_PREFIX_LEN>()?;
    let [version, flags, sequence @ ..] = prefix;
    (*version == BATCH_VERSION && *flags == 0).then_some(u64::from_be_bytes(*sequence))
}

/// Takes fields from the front of a value; `None` where it is too short.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    pub fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// Length u32 and so many bytes of text.
    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_as_drawn() {
        assert_eq!(batch(0x0102, 3), [0x10, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(counter(Counter::Sequence), [2, 4]);
        assert_eq!(offsets_topic(), [14]);
        assert_eq!(log_start(1), [4, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(epoch_start(1, 2), [5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        let source = TopicPartition { topic: TopicId([7; 16]), partition: 1 };
        let mut drawn = vec![0x41, b'q', 0, 0xff, b'r', 0, 0];
        drawn.extend_from_slice(&[7; 16]);
        drawn.extend_from_slice(&[0, 0, 0, 1]);
        assert_eq!(cursor("q\0r", source), drawn);
        let mut value = vec![9; BATCH_PREFIX_LEN];
        put_batch_prefix(&mut value, 258);
        assert_eq!(value, [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(parse_batch_prefix(&value), Some(258));
        value[0] = 2;
        assert_eq!(parse_batch_prefix(&value), None);
        let (file, at, len, crc, last_offset_delta) = (1, 2, 3, 4, 5);
        let place = BatchPlace { sequence: 258, file, at, len, crc, last_offset_delta, max_timestamp: -1 };
        let drawn =
            [&[2, 0][..], &[0, 0, 0, 0, 0, 0, 1, 2], &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]];
        assert_eq!(place.encode()[..], [drawn.concat(), vec![255; 8]].concat());
        assert_eq!(BatchPlace::decode(&place.encode()), Some(place));
        assert_eq!(parse_batch_prefix(&place.encode()), None);
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after_prefix(&[1, 2]), [1, 3]);
        assert_eq!(after_prefix(&[1, 0xff, 0xff]), [2]);
        assert!(after_prefix(&[0xff]).is_empty());
    }

    proptest! {
        #[test]
        fn numbered_keys_sort_and_read_back(a in any::<(u64, u32)>(), b in any::<(u64, u32)>()) {
            let key = |(uid, offset): (u64, u32)| batch(uid, i64::from(offset));
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(parse_numbered(Kind::Batch, &key(a)), Some((a.0, u64::from(a.1))));
            prop_assert_eq!(parse_numbered(Kind::Segment, &key(a)), None);
        }

        #[test]
        fn cursors_read_back_and_stay_apart(a in "[a\0\u{ff}]{0,4}", b in "[a\0\u{ff}]{0,4}", partition in 0i32..9) {
            let source = TopicPartition { topic: TopicId([0; 16]), partition };
            prop_assert_eq!(parse_cursor(&cursor(&a, source)), Some((a.clone(), source)));
            prop_assert_eq!(cursor(&b, source).starts_with(&cursors_of(&a)), a == b);
        }

        #[test]
        fn any_bytes_may_be_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_cursor(&bytes);
            let _ = parse_numbered(Kind::Batch, &bytes);
            let _ = parse_epoch_start(&bytes);
            let _ = parse_log_start(&bytes);
            let _ = parse_compacted(&bytes);
            let _ = parse_topic(&bytes);
            let _ = BatchPlace::decode(&bytes);
            let _ = parse_log_file(&bytes);
        }
    }
}

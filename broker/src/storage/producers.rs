//! Idempotent producers of a partition: what each appended last, and whether its next batch fits.
//!
//! A producer that is in a transaction with the partition has its entry from when the partition was added to the
//! transaction until the marker; what it may append, and what is not stable, follows from that entry alone.
//!
//! Pure. The writer keeps a producer's entry in the same write as the batch, so that a duplicate is known after a restart.

use std::collections::VecDeque;

use millpond_types::Offset;
use millpond_types::record::{put_varint, take_varint};

use super::error::StorageError;
use crate::batch::BatchHeader;
use crate::keys::Fields;

/// So many batches a producer may have in flight, and so many are remembered.
const BATCHES_KEPT: usize = 5;
/// Of earlier versions, as long as there was no transaction.
const VERSION_PLAIN: u8 = 1;
/// 2 differs in how numbers are written.
const VERSION: u8 = 3;
/// With the epoch of a coordinator.
const VERSION_ENDED: u8 = 4;
const NOT_OPEN: i64 = -1;
const ADDED: i64 = -2;
/// What the first batch is put in relation to.
const BEFORE_ALL: ProducedBatch =
    ProducedBatch { first_sequence: -1, last_sequence: -1, base_offset: -1, last_offset: -1, log_append_time_ms: -1 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// What the producer was answered: the log's time, or -1.
    pub log_append_time_ms: i64,
}

/// What a producer's transaction has in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The partition is part of it; nothing was appended yet.
    Added,
    /// From this offset on.
    From(Offset),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    /// The transaction that it is in.
    pub open: Option<Open>,
    /// Nothing is known of what it appended before, so that any sequence may come next.
    pub any_sequence: bool,
    /// That of the coordinator that ended its last transaction here; -1: none has.
    pub coordinator_epoch: i32,
    /// Wall-clock time of the last append.
    pub used_ms: i64,
    /// Oldest first.
    pub batches: VecDeque<ProducedBatch>,
}

impl Default for Producer {
    fn default() -> Self {
        Self { epoch: 0, open: None, any_sequence: false, coordinator_epoch: -1, used_ms: 0, batches: VecDeque::new() }
    }
}

fn last_sequence(header: &BatchHeader) -> i32 {
    // Sequences wrap from the greatest i32 to 0.
    ((i64::from(header.base_sequence) + i64::from(header.last_offset_delta)) & i64::from(i32::MAX)) as i32
}

/// Whether a batch may be appended (`None`), or is the duplicate of one that was.
pub fn check(known: Option<&Producer>, header: &BatchHeader) -> Result<Option<ProducedBatch>, StorageError> {
    let id = header.producer_id;
    let in_transaction = |producer: Option<&Producer>| match (header.is_transactional(), producer.and_then(|p| p.open))
    {
        (true, Some(_)) if producer.is_some_and(|p| p.epoch == header.producer_epoch) => Ok(()),
        (true, _) => Err(StorageError::InvalidTxnState(format!(
            "the partition is in no transaction of producer {id} with epoch {}",
            header.producer_epoch
        ))),
        (false, Some(Open::From(_))) => {
            Err(StorageError::InvalidTxnState(format!("producer {id} has a transaction open in the partition")))
        }
        (false, _) => Ok(()),
    };
    let Some(producer) = known else { return in_transaction(None).map(|()| None) };
    if header.producer_epoch < producer.epoch {
        return Err(StorageError::InvalidProducerEpoch(format!(
            "epoch {} of producer {id} is older than {}",
            header.producer_epoch, producer.epoch
        )));
    }
    if header.producer_epoch > producer.epoch {
        return match header.base_sequence {
            0 => in_transaction(known).map(|()| None),
            other => Err(StorageError::OutOfOrderSequence(format!(
                "producer {id} starts epoch {} with sequence {other}, not 0",
                header.producer_epoch
            ))),
        };
    }
    let last = last_sequence(header);
    if let Some(same) =
        producer.batches.iter().find(|b| b.first_sequence == header.base_sequence && b.last_sequence == last)
    {
        return Ok(Some(*same));
    }
    if header.is_transactional() {
        in_transaction(known)?;
    }
    let expected = producer.batches.back().map_or(0, |b| b.last_sequence.wrapping_add(1) & i32::MAX);
    let any = producer.batches.is_empty() && producer.any_sequence;
    if !any && header.base_sequence != expected {
        return Err(StorageError::OutOfOrderSequence(format!(
            "producer {id} sent sequence {} where {expected} was due",
            header.base_sequence
        )));
    }
    // A gap is told before a transaction that is in the way.
    in_transaction(known).map(|()| None)
}

impl Producer {
    /// The producer after it appended a batch.
    pub fn after(known: Option<&Producer>, header: &BatchHeader, base: Offset, time: i64, now_ms: i64) -> Self {
        let mut next = match known {
            Some(producer) if producer.epoch == header.producer_epoch => producer.clone(),
            Some(producer) => producer.anew(header.producer_epoch),
            None => Self { epoch: header.producer_epoch, ..Self::default() },
        };
        next.used_ms = now_ms;
        if header.is_transactional() && next.open == Some(Open::Added) {
            next.open = Some(Open::From(base));
        }
        if next.batches.len() >= BATCHES_KEPT {
            next.batches.pop_front();
        }
        next.batches.push_back(ProducedBatch {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header),
            base_offset: base,
            last_offset: base + i64::from(header.last_offset_delta),
            log_append_time_ms: time,
        });
        next
    }

    /// The producer after the partition became part of its transaction. `any_sequence`: where nothing was known of it, it may go on
    /// with any.
    pub fn added(known: Option<&Producer>, epoch: i16, any_sequence: bool, now_ms: i64) -> Self {
        let open = Some(Open::Added);
        match known {
            Some(producer) if producer.epoch == epoch => {
                Self { used_ms: now_ms, open: producer.open.or(open), ..producer.clone() }
            }
            Some(producer) => Self { used_ms: now_ms, open, ..producer.anew(epoch) },
            None => Self { epoch, used_ms: now_ms, open, any_sequence, ..Self::default() },
        }
    }

    /// With an epoch under which it appended nothing yet.
    fn anew(&self, epoch: i16) -> Self {
        Self { epoch, coordinator_epoch: self.coordinator_epoch, ..Self::default() }
    }

    /// The producer after a coordinator ended its transaction; a greater epoch fences what it sent before.
    pub fn ended(&self, epoch: i16, coordinator_epoch: i32, now_ms: i64) -> Self {
        let after = match epoch == self.epoch {
            true => Self { open: None, ..self.clone() },
            false => self.anew(epoch),
        };
        Self { coordinator_epoch, used_ms: now_ms, ..after }
    }

    /// First offset of its open transaction, where it has appended to it.
    pub fn open_from(&self) -> Option<Offset> {
        match self.open {
            Some(Open::From(first)) => Some(first),
            Some(Open::Added) | None => None,
        }
    }

    /// Version u8, epoch i16, used i64, whether any sequence may come u8; its transaction varint, -1 for none, -2 for one
    /// without data, else its first offset; where there is one, the coordinator's epoch, varint; then per batch, as varints: first sequence and first offset less those that
    /// were due after the one before, how far the last sequence and the last offset are from the first, the latter less the
    /// former, and the time less the one before. It goes with each batch, into a log file too, and is as small as that.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + 8 * self.batches.len());
        let ended = self.coordinator_epoch >= 0;
        out.push(if ended { VERSION_ENDED } else { VERSION });
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.used_ms.to_be_bytes());
        out.push(u8::from(self.any_sequence));
        let open = match self.open {
            None => NOT_OPEN,
            Some(Open::Added) => ADDED,
            Some(Open::From(first)) => first,
        };
        put_varint(&mut out, open);
        if ended {
            put_varint(&mut out, i64::from(self.coordinator_epoch));
        }
        let mut before = BEFORE_ALL;
        for batch in &self.batches {
            let sequences = i64::from(batch.last_sequence) - i64::from(batch.first_sequence);
            put_varint(&mut out, i64::from(batch.first_sequence) - i64::from(before.next_sequence()));
            put_varint(&mut out, batch.base_offset.wrapping_sub(before.last_offset.wrapping_add(1)));
            put_varint(&mut out, sequences);
            put_varint(&mut out, batch.last_offset.wrapping_sub(batch.base_offset).wrapping_sub(sequences));
            put_varint(&mut out, batch.log_append_time_ms.wrapping_sub(before.log_append_time_ms));
            before = *batch;
        }
        out
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let version = fields.u8()?;
        if !(VERSION_PLAIN..=VERSION_ENDED).contains(&version) {
            return None;
        }
        let mut producer = Self { epoch: fields.i16()?, used_ms: fields.i64()?, ..Self::default() };
        if version > VERSION_PLAIN {
            producer.any_sequence = fields.u8()? != 0;
            let open = if version >= VERSION { take_varint(&mut fields.0)? } else { fields.i64()? };
            producer.open = match open {
                NOT_OPEN => None,
                ADDED => Some(Open::Added),
                first => Some(Open::From(Offset::max(first, 0))),
            };
        }
        if version == VERSION_ENDED {
            producer.coordinator_epoch = i32::try_from(take_varint(&mut fields.0)?).ok()?;
        }
        let mut before = BEFORE_ALL;
        while !fields.0.is_empty() {
            let batch = if version >= VERSION { before.take_next(&mut fields)? } else { take_whole(&mut fields)? };
            producer.batches.push_back(batch);
            before = batch;
        }
        Some(producer)
    }
}

impl ProducedBatch {
    fn next_sequence(&self) -> i32 {
        self.last_sequence.wrapping_add(1) & i32::MAX
    }

    /// The one behind this one.
    fn take_next(&self, fields: &mut Fields<'_>) -> Option<Self> {
        let mut varint = || take_varint(&mut fields.0);
        let first_sequence = varint()?.checked_add(i64::from(self.next_sequence()))?;
        let base_offset = varint()?.wrapping_add(self.last_offset.wrapping_add(1));
        let sequences = varint()?;
        Some(Self {
            first_sequence: i32::try_from(first_sequence).ok()?,
            last_sequence: i32::try_from(first_sequence.checked_add(sequences)?).ok()?,
            base_offset,
            last_offset: varint()?.wrapping_add(sequences).wrapping_add(base_offset),
            log_append_time_ms: varint()?.wrapping_add(self.log_append_time_ms),
        })
    }
}

/// As versions 1 and 2 have it.
fn take_whole(fields: &mut Fields<'_>) -> Option<ProducedBatch> {
    Some(ProducedBatch {
        first_sequence: fields.i32()?,
        last_sequence: fields.i32()?,
        base_offset: fields.i64()?,
        last_offset: fields.i64()?,
        log_append_time_ms: fields.i64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, sequence: i32, count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            length: 0,
            leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 1,
            producer_epoch: epoch,
            base_sequence: sequence,
            count,
        }
    }

    fn run(batches: &[(i16, i32, i32)]) -> Producer {
        let mut producer = None;
        for (i, (epoch, sequence, count)) in batches.iter().enumerate() {
            let header = header(*epoch, *sequence, *count);
            assert_eq!(check(producer.as_ref(), &header), Ok(None), "batch {i}");
            producer = Some(Producer::after(producer.as_ref(), &header, i as i64 * 100, -1, 7));
        }
        producer.unwrap()
    }

    #[test]
    fn sequences_are_held_and_wrap() {
        let producer = run(&[(0, 40, 2), (0, 42, 1), (1, 0, 5), (1, 5, 1)]);
        let verdict = |epoch, sequence, count| check(Some(&producer), &header(epoch, sequence, count));
        assert_eq!(verdict(1, 6, 1), Ok(None));
        assert_eq!(verdict(1, 0, 5).unwrap().unwrap().base_offset, 200);
        assert!(matches!(verdict(1, 7, 1), Err(StorageError::OutOfOrderSequence(_))));
        assert!(matches!(verdict(1, 5, 2), Err(StorageError::OutOfOrderSequence(_))));
        assert!(matches!(verdict(0, 43, 1), Err(StorageError::InvalidProducerEpoch(_))));
        assert!(matches!(verdict(2, 6, 1), Err(StorageError::OutOfOrderSequence(_))));
        let wrapped = run(&[(0, i32::MAX - 1, 3)]);
        assert_eq!(check(Some(&wrapped), &header(0, 1, 1)), Ok(None));
    }

    /// As Kafka tells it: none before the first marker, and then that of the last one, whatever is appended since.
    #[test]
    fn who_ended_the_last_transaction_is_remembered() {
        let mut producer = Producer::added(Some(&run(&[(0, 0, 1)])), 0, true, 7);
        assert_eq!(producer.coordinator_epoch, -1);
        producer = producer.ended(1, 3, 7);
        assert_eq!((producer.epoch, producer.coordinator_epoch), (1, 3));
        for epoch in [1, 2] {
            producer = Producer::added(Some(&producer), epoch, true, 7);
            producer = Producer::after(Some(&producer), &header(epoch, 0, 1), 5, -1, 7);
            assert_eq!((producer.epoch, producer.coordinator_epoch), (epoch, 3));
        }
        producer = Producer::after(Some(&producer), &header(4, 0, 1), 6, -1, 7);
        assert_eq!((producer.coordinator_epoch, producer.ended(4, 5, 7).coordinator_epoch), (3, 5));
    }

    #[test]
    fn any_batches_survive_and_earlier_versions_are_read() {
        let any = |first_sequence, last_sequence, base_offset, last_offset, log_append_time_ms| ProducedBatch {
            first_sequence,
            last_sequence,
            base_offset,
            last_offset,
            log_append_time_ms,
        };
        let batches = [
            any(i32::MAX - 1, 1, 1 << 40, (1 << 40) + 3, -1),
            any(i32::MIN, i32::MAX, i64::MIN, i64::MAX, i64::MAX),
            any(i32::MAX, i32::MIN, i64::MAX, i64::MIN, i64::MIN),
            any(-1, 7, 0, 0, 1_700_000_000_000),
        ];
        for open in [None, Some(Open::Added), Some(Open::From(9))] {
            let producer = Producer {
                epoch: 3,
                open,
                any_sequence: true,
                used_ms: 77,
                batches: batches.into(),
                ..Producer::default()
            };
            assert_eq!(Producer::decode(&producer.encode()), Some(producer.clone()));
            for coordinator_epoch in [0, 7, i32::MAX] {
                let ended = Producer { coordinator_epoch, ..producer.clone() };
                assert_eq!(Producer::decode(&ended.encode()), Some(ended));
            }
            let mut earlier = [&[2, 0, 3][..], &77i64.to_be_bytes(), &[1]].concat();
            let open = open.map_or(-1i64, |open| if open == Open::Added { -2 } else { 9 });
            earlier.extend(open.to_be_bytes());
            for b in batches {
                earlier.extend([b.first_sequence, b.last_sequence].iter().flat_map(|n| n.to_be_bytes()));
                earlier
                    .extend([b.base_offset, b.last_offset, b.log_append_time_ms].iter().flat_map(|n| n.to_be_bytes()));
            }
            assert_eq!(Producer::decode(&earlier), Some(producer.clone()));
            let plain = [&[1, 0, 3][..], &77i64.to_be_bytes(), &earlier[20..]].concat();
            let expected = Producer { open: None, any_sequence: false, ..producer };
            assert_eq!(Producer::decode(&plain), Some(expected));
        }
        assert_eq!(Producer::decode(&[5; 60]), None);
    }

    #[test]
    fn five_batches_are_remembered_and_survive_the_round_trip() {
        let producer = run(&[(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1)]);
        assert!(matches!(check(Some(&producer), &header(0, 0, 1)), Err(StorageError::OutOfOrderSequence(_))));
        assert!(check(Some(&producer), &header(0, 1, 1)).unwrap().is_some());
        assert_eq!(Producer::decode(&producer.encode()), Some(producer.clone()));
        let encoded = producer.encode();
        assert!(encoded.len() < 60, "{encoded:?}");
        assert_eq!(Producer::decode(&encoded[..encoded.len() - 1]), None);
        for open in [None, Some(Open::Added), Some(Open::From(0)), Some(Open::From(9))] {
            let producer = Producer { open, any_sequence: open.is_none(), ..producer.clone() };
            assert_eq!(Producer::decode(&producer.encode()), Some(producer));
        }
    }
}

//! Transactional ids as they lie in storage, among the groups' entries.
//!
//! ```text
//! key 3 │ transactional id
//! value = version 1 or 2 │ i64 producer id │ i16 epoch │ i16 last epoch │ i32 timeout │ u8 state │ i64 since
//!       │ (version 2) i64 last producer id
//!       │ u32 n │ n × (16 topic id, i32 partition)
//!       │ u32 n │ n × str group
//!       │ u32 n │ n × (str group, str topic, i32 partition, bytes offset as groups store it)
//! state = 0 empty, 1 ongoing, 2 committed, 3 aborted; str, bytes = u32 length │ bytes
//! ```
//! Numbers are big-endian.

use std::collections::{BTreeMap, BTreeSet};

use millpond_types::{TopicId, TopicPartition};

use super::machine::{State, Transaction};
use crate::groups::{Committed, OffsetKey};
use crate::keys::{Fields, put_text};

const KIND_TRANSACTION: u8 = 3;
/// As long as no producer id ran out of epochs.
const VERSION_PLAIN: u8 = 1;
const VERSION: u8 = 2;

pub(super) const PREFIX: &[u8] = &[KIND_TRANSACTION];

pub(super) fn key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

pub(super) fn id_of_key(key: &[u8]) -> Option<String> {
    String::from_utf8(key.strip_prefix(PREFIX)?.to_vec()).ok()
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend((count as u32).to_be_bytes());
}

impl Transaction {
    pub(super) fn encode(&self) -> Vec<u8> {
        let plain = self.last_producer_id < 0;
        let mut out = vec![if plain { VERSION_PLAIN } else { VERSION }];
        out.extend(self.producer_id.to_be_bytes());
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.last_epoch.to_be_bytes());
        out.extend(self.timeout_ms.to_be_bytes());
        out.push(match self.state {
            State::Empty => 0,
            State::Ongoing => 1,
            State::Committed => 2,
            State::Aborted => 3,
        });
        out.extend(self.stamp.to_be_bytes());
        if !plain {
            out.extend(self.last_producer_id.to_be_bytes());
        }
        put_count(&mut out, self.partitions.len());
        for place in &self.partitions {
            out.extend(place.topic.0);
            out.extend(place.partition.to_be_bytes());
        }
        put_count(&mut out, self.groups.len());
        for group in &self.groups {
            put_text(&mut out, group);
        }
        put_count(&mut out, self.offsets.len());
        for ((group, key), committed) in &self.offsets {
            put_text(&mut out, group);
            put_text(&mut out, &key.topic);
            out.extend(key.partition.to_be_bytes());
            let offset = committed.encode();
            put_count(&mut out, offset.len());
            out.extend(offset);
        }
        out
    }

    /// `None`: damaged, or of a later version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let version = fields.u8()?;
        if version != VERSION_PLAIN && version != VERSION {
            return None;
        }
        let (producer_id, epoch, last_epoch) = (fields.i64()?, fields.i16()?, fields.i16()?);
        let timeout_ms = fields.i32()?;
        let state = match fields.u8()? {
            0 => State::Empty,
            1 => State::Ongoing,
            2 => State::Committed,
            3 => State::Aborted,
            _ => return None,
        };
        let since = fields.i64()?;
        let last_producer_id = if version == VERSION { fields.i64()? } else { -1 };
        let mut partitions = BTreeSet::new();
        for _ in 0..fields.u32()? {
            partitions.insert(TopicPartition { topic: TopicId(fields.take()?), partition: fields.i32()? });
        }
        let mut groups = BTreeSet::new();
        for _ in 0..fields.u32()? {
            groups.insert(fields.text()?.to_owned());
        }
        let mut offsets = BTreeMap::new();
        for _ in 0..fields.u32()? {
            let group = fields.text()?.to_owned();
            let key = OffsetKey { topic: fields.text()?.to_owned(), partition: fields.i32()? };
            let len = fields.u32()? as usize;
            let (offset, rest) = fields.0.split_at_checked(len)?;
            fields.0 = rest;
            offsets.insert((group, key), Committed::decode(offset)?);
        }
        Some(Self {
            producer_id,
            epoch,
            last_epoch,
            last_producer_id,
            timeout_ms,
            state,
            since,
            stamp: since,
            partitions,
            groups,
            offsets,
        })
    }
}

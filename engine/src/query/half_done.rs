//! The row whose outputs did not fit into a step, as it lies in state.

use millpond_types::{Error, Offset, Result, TopicPartition};

use crate::ops::More;
use crate::state::cells::{put_bytes, take_bytes, take_int, take_u8};
use crate::step::Pending;

/// A row whose outputs did not fit into a step: what is still to be emitted, and where the cursors go then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HalfDone {
    pub(super) cursors: Vec<(TopicPartition, Offset)>,
    pub(super) headers: Vec<u8>,
    /// As [`LogReader::names`] has it.
    pub(super) name: u64,
    pub(super) pending: Vec<Pending>,
}

const HALF_DONE_VERSION: u8 = 2;

/// ```text
/// version (1) = 02 | count | per cursor: topic (16), partition, offset | headers | name (8) | count
///   | per operator: id, resume
/// ```
/// Numbers are zigzag varints; byte strings have their length before them. Version 01 had no name.
impl HalfDone {
    pub(super) fn encode(&self) -> Vec<u8> {
        use millpond_types::record::put_varint;
        let mut out = vec![HALF_DONE_VERSION];
        put_varint(&mut out, self.cursors.len() as i64);
        for (at, offset) in &self.cursors {
            out.extend_from_slice(&at.topic.0);
            put_varint(&mut out, i64::from(at.partition));
            put_varint(&mut out, *offset);
        }
        put_bytes(&self.headers, &mut out);
        out.extend_from_slice(&self.name.to_be_bytes());
        put_varint(&mut out, self.pending.len() as i64);
        for pending in &self.pending {
            put_bytes(pending.operator.as_bytes(), &mut out);
            put_bytes(&pending.more.resume, &mut out);
        }
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self> {
        let bytes = &mut bytes;
        let version = take_u8(bytes)?;
        if !(1..=HALF_DONE_VERSION).contains(&version) {
            return Err(Error::corrupt("a half-done row in state has an unknown version"));
        }
        let mut cursors = Vec::new();
        for _ in 0..take_int(bytes)? {
            let topic = millpond_types::TopicId(crate::state::cells::take_array(bytes)?);
            let partition = take_int(bytes)? as i32;
            cursors.push((TopicPartition { topic, partition }, take_int(bytes)?));
        }
        let headers = take_bytes(bytes)?.to_vec();
        let name = if version == 1 { 0 } else { u64::from_be_bytes(crate::state::cells::take_array(bytes)?) };
        let mut pending = Vec::new();
        for _ in 0..take_int(bytes)? {
            let operator = String::from_utf8_lossy(take_bytes(bytes)?).into_owned();
            pending.push(Pending { operator, more: More { pos: 0, resume: take_bytes(bytes)?.to_vec() } });
        }
        Ok(Self { cursors, headers, name, pending })
    }
}

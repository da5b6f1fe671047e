//! Groups and offsets as they lie in storage.
//!
//! ```text
//! key 1 │ group                                        → group (below)
//! key 2 │ u16 length, group │ u32 partition │ topic     → offset (below)
//! key 6 │ group                                        → settings of the group (`configs/group.rs`)
//! group  = version 1 │ i32 generation │ i64 since │ str protocol type │ str protocol │ str leader │ u32 n │ n × member
//! member = str id │ str instance (may be null) │ str client │ str host │ i32 session │ i32 rebalance
//!          │ u32 n │ n × (str protocol, bytes metadata) │ bytes assignment
//! offset = version 1 │ 16 topic id │ i64 offset │ i32 epoch │ i64 committed at │ i64 expires at │ str metadata
//! str, bytes = u32 length (0xffffffff: null) │ bytes
//! ```
//! Numbers are big-endian. Kinds 1 and 2 are taken, 3 by transactions, 4 and 5 by groups of the consumer protocol
//! (`consumer/record.rs`), 6 by settings of groups; a retired kind is never used again.

use bytes::Bytes;
use millpond_types::TopicId;

use super::member::Member;
use super::offsets::{Committed, OffsetKey};

const KIND_GROUP: u8 = 1;
const KIND_OFFSET: u8 = 2;
const KIND_CONFIGS: u8 = 6;
const VERSION: u8 = 1;
const NULL: u32 = u32::MAX;

/// A group between two changes of its membership.
#[derive(Debug, Clone)]
pub struct GroupRecord {
    /// Counts the group's records in this process; not written.
    pub number: u64,
    pub group: String,
    pub generation: i32,
    /// When the group came into this state.
    pub since: i64,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub(super) members: Vec<Member>,
}

pub(super) const GROUP_PREFIX: &[u8] = &[KIND_GROUP];
pub(super) const OFFSET_PREFIX: &[u8] = &[KIND_OFFSET];
pub(super) const CONFIGS_PREFIX: &[u8] = &[KIND_CONFIGS];

pub(super) fn configs_key(group: &str) -> Vec<u8> {
    [CONFIGS_PREFIX, group.as_bytes()].concat()
}

pub(super) fn group_of_configs_key(key: &[u8]) -> Option<String> {
    String::from_utf8(key.strip_prefix(CONFIGS_PREFIX)?.to_vec()).ok()
}

pub(super) fn group_key(group: &str) -> Vec<u8> {
    [GROUP_PREFIX, group.as_bytes()].concat()
}

pub(super) fn offset_key(group: &str, key: &OffsetKey) -> Vec<u8> {
    let mut out = vec![KIND_OFFSET];
    // A group id is a string of the protocol, at most 32 KiB long.
    out.extend((group.len() as u16).to_be_bytes());
    out.extend(group.as_bytes());
    out.extend((key.partition as u32).to_be_bytes());
    out.extend(key.topic.as_bytes());
    out
}

/// As it is written.
#[cfg(test)]
pub(crate) fn offset_entry(group: &str, key: &OffsetKey, committed: Option<&Committed>) -> (Vec<u8>, Option<Vec<u8>>) {
    (offset_key(group, key), committed.map(Committed::encode))
}

pub(super) fn group_of_key(key: &[u8]) -> Option<String> {
    String::from_utf8(key.strip_prefix(GROUP_PREFIX)?.to_vec()).ok()
}

pub(super) fn offset_of_key(key: &[u8]) -> Option<(String, OffsetKey)> {
    let mut rest = Reader(key.strip_prefix(OFFSET_PREFIX)?);
    let length = u16::from_be_bytes(rest.array()?);
    let group = String::from_utf8(rest.take(length.into())?.to_vec()).ok()?;
    let partition = i32::from_be_bytes(rest.array()?);
    let topic = String::from_utf8(rest.0.to_vec()).ok()?;
    Some((group, OffsetKey { topic, partition }))
}

impl GroupRecord {
    /// About what it takes.
    pub(super) fn bytes(&self) -> usize {
        self.members.iter().map(Member::bytes).sum::<usize>() + self.group.len() + self.leader.len() + 64
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.generation.to_be_bytes());
        out.extend(self.since.to_be_bytes());
        put(&mut out, Some(self.protocol_type.as_bytes()));
        put(&mut out, Some(self.protocol.as_bytes()));
        put(&mut out, Some(self.leader.as_bytes()));
        out.extend((self.members.len() as u32).to_be_bytes());
        for member in &self.members {
            put(&mut out, Some(member.id.as_bytes()));
            put(&mut out, member.instance_id.as_ref().map(String::as_bytes));
            put(&mut out, Some(member.client_id.as_bytes()));
            put(&mut out, Some(member.client_host.as_bytes()));
            out.extend(member.session_timeout_ms.to_be_bytes());
            out.extend(member.rebalance_timeout_ms.to_be_bytes());
            out.extend((member.protocols.len() as u32).to_be_bytes());
            for (name, metadata) in &member.protocols {
                put(&mut out, Some(name.as_bytes()));
                put(&mut out, Some(metadata));
            }
            put(&mut out, Some(&member.assignment));
        }
        out
    }

    /// `None`: damaged, or of a later version.
    pub(super) fn decode(group: String, bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.array::<1>()? != [VERSION] {
            return None;
        }
        let generation = i32::from_be_bytes(r.array()?);
        let since = i64::from_be_bytes(r.array()?);
        let (protocol_type, protocol, leader) = (r.string()??, r.string()??, r.string()??);
        let mut members = Vec::new();
        for order in 0..u32::from_be_bytes(r.array()?) {
            let (id, instance_id) = (r.string()??, r.string()?);
            let (client_id, client_host) = (r.string()??, r.string()??);
            let session_timeout_ms = i32::from_be_bytes(r.array()?);
            let rebalance_timeout_ms = i32::from_be_bytes(r.array()?);
            let mut protocols = Vec::new();
            for _ in 0..u32::from_be_bytes(r.array()?) {
                protocols.push((r.string()??, Bytes::copy_from_slice(r.bytes()??)));
            }
            let assignment = Bytes::copy_from_slice(r.bytes()??);
            members.push(Member {
                id,
                instance_id,
                client_id,
                client_host,
                session_timeout_ms,
                rebalance_timeout_ms,
                protocols,
                assignment,
                order: order.into(),
                join: None,
                replaced: None,
                sync: None,
                must_sync: false,
                unconfirmed: false,
                session_ends: i64::MAX,
            });
        }
        Some(Self { number: 0, group, generation, since, protocol_type, protocol, leader, members })
    }
}

impl Committed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.topic_id.0);
        out.extend(self.offset.to_be_bytes());
        out.extend(self.leader_epoch.to_be_bytes());
        out.extend(self.committed_at.to_be_bytes());
        out.extend(self.expires_at.to_be_bytes());
        put(&mut out, Some(self.metadata.as_bytes()));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.array::<1>()? != [VERSION] {
            return None;
        }
        Some(Self {
            topic_id: TopicId(r.array()?),
            offset: i64::from_be_bytes(r.array()?),
            leader_epoch: i32::from_be_bytes(r.array()?),
            committed_at: i64::from_be_bytes(r.array()?),
            expires_at: i64::from_be_bytes(r.array()?),
            metadata: r.string()??,
        })
    }
}

pub(super) fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.extend(bytes.map_or(NULL, |b| b.len() as u32).to_be_bytes());
    out.extend(bytes.unwrap_or_default());
}

pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// Outer `None`: damaged; inner: null.
    pub fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match u32::from_be_bytes(self.array()?) {
            NULL => Some(None),
            length => self.take(length as usize).map(Some),
        }
    }

    pub fn string(&mut self) -> Option<Option<String>> {
        match self.bytes()? {
            None => Some(None),
            Some(bytes) => String::from_utf8(bytes.to_vec()).ok().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_the_round_trip() {
        let key = OffsetKey { topic: "t".into(), partition: 3 };
        assert_eq!(offset_of_key(&offset_key("g", &key)), Some(("g".into(), key)));
        let committed = Committed {
            topic_id: TopicId([7; 16]),
            offset: 5,
            leader_epoch: 2,
            metadata: "here".into(),
            committed_at: 9,
            expires_at: -1,
        };
        assert_eq!(Committed::decode(&committed.encode()), Some(committed.clone()));
        for cut in 0..committed.encode().len() {
            assert_eq!(Committed::decode(&committed.encode()[..cut]), None);
        }
    }
}

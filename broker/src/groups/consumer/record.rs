//! Groups of the consumer protocol as they lie in storage: an entry for the group and one for each member.
//!
//! ```text
//! key 4 │ group                             → group (below)
//! key 5 │ u16 length, group │ member        → member (below)
//! group  = version 1 │ i32 epoch │ i32 assignment epoch │ i64 since │ u64 what its topics were │ str assignor
//! member = version 1 │ i32 epoch │ i32 previous epoch │ u8 progress │ i32 rebalance timeout │ str client │ str host
//!          │ str instance │ str rack │ str pattern │ str assignor (each may be null)
//!          │ u32 n │ n × str topic │ partitions assigned │ partitions revoking │ partitions target │ classic
//! classic = u8 0, or u8 1 │ i32 session timeout │ u32 n │ n × (str protocol, bytes metadata)
//! partitions = u32 n │ n × (16 topic id │ u32 m │ m × i32)
//! str = u32 length (0xffffffff: null) │ bytes
//! ```

use bytes::Bytes;
use millpond_types::TopicId;

use super::super::record::{Reader, put};
use super::assign::{Assignor, Partitions};
use super::classic::Classic;
use super::member::{Member, Progress};

const KIND_GROUP: u8 = 4;
const KIND_MEMBER: u8 = 5;
const VERSION: u8 = 1;

pub const GROUP_PREFIX: &[u8] = &[KIND_GROUP];
pub const MEMBER_PREFIX: &[u8] = &[KIND_MEMBER];

/// A group without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub since: i64,
    pub topics_hash: u64,
    pub assignor: Assignor,
}

pub fn group_key(group: &str) -> Vec<u8> {
    [GROUP_PREFIX, group.as_bytes()].concat()
}

pub fn member_key(group: &str, member: &str) -> Vec<u8> {
    let mut out = vec![KIND_MEMBER];
    // A group id is a string of the protocol, at most 32 KiB long.
    out.extend((group.len() as u16).to_be_bytes());
    out.extend(group.as_bytes());
    out.extend(member.as_bytes());
    out
}

pub fn group_of_key(key: &[u8]) -> Option<String> {
    String::from_utf8(key.strip_prefix(GROUP_PREFIX)?.to_vec()).ok()
}

/// Group and member id.
pub fn member_of_key(key: &[u8]) -> Option<(String, String)> {
    let mut rest = Reader(key.strip_prefix(MEMBER_PREFIX)?);
    let length = u16::from_be_bytes(rest.array()?);
    let group = String::from_utf8(rest.take(length.into())?.to_vec()).ok()?;
    Some((group, String::from_utf8(rest.0.to_vec()).ok()?))
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.assignment_epoch.to_be_bytes());
        out.extend(self.since.to_be_bytes());
        out.extend(self.topics_hash.to_be_bytes());
        put(&mut out, Some(self.assignor.name().as_bytes()));
        out
    }

    /// `None`: damaged, or of a later version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.array::<1>()? != [VERSION] {
            return None;
        }
        Some(Self {
            epoch: i32::from_be_bytes(r.array()?),
            assignment_epoch: i32::from_be_bytes(r.array()?),
            since: i64::from_be_bytes(r.array()?),
            topics_hash: u64::from_be_bytes(r.array()?),
            assignor: Assignor::named(&r.string()??)?,
        })
    }
}

impl Member {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.previous_epoch.to_be_bytes());
        out.push(self.progress as u8);
        out.extend(self.rebalance_timeout_ms.to_be_bytes());
        put(&mut out, Some(self.client_id.as_bytes()));
        put(&mut out, Some(self.client_host.as_bytes()));
        for text in [&self.instance_id, &self.rack_id, &self.pattern, &self.assignor] {
            put(&mut out, text.as_ref().map(String::as_bytes));
        }
        out.extend((self.topics.len() as u32).to_be_bytes());
        for topic in &self.topics {
            put(&mut out, Some(topic.as_bytes()));
        }
        for partitions in [&self.assigned, &self.revoking, &self.target] {
            out.extend((partitions.len() as u32).to_be_bytes());
            for (topic, indexes) in partitions {
                out.extend(topic.0);
                out.extend((indexes.len() as u32).to_be_bytes());
                out.extend(indexes.iter().flat_map(|index| index.to_be_bytes()));
            }
        }
        match &self.classic {
            None => out.push(0),
            Some(classic) => {
                out.push(1);
                out.extend(classic.session_timeout_ms.to_be_bytes());
                out.extend((classic.protocols.len() as u32).to_be_bytes());
                for (name, metadata) in &classic.protocols {
                    put(&mut out, Some(name.as_bytes()));
                    put(&mut out, Some(metadata));
                }
            }
        }
        out
    }

    /// `None`: damaged, or of a later version.
    pub fn decode(id: String, bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.array::<1>()? != [VERSION] {
            return None;
        }
        let mut member = Self::new(id);
        member.epoch = i32::from_be_bytes(r.array()?);
        member.previous_epoch = i32::from_be_bytes(r.array()?);
        let [progress] = r.array::<1>()?;
        member.progress = Progress::ALL.into_iter().find(|p| *p as u8 == progress)?;
        member.rebalance_timeout_ms = i32::from_be_bytes(r.array()?);
        member.client_id = r.string()??;
        member.client_host = r.string()??;
        member.instance_id = r.string()?;
        member.rack_id = r.string()?;
        member.pattern = r.string()?;
        member.assignor = r.string()?;
        for _ in 0..u32::from_be_bytes(r.array()?) {
            member.topics.insert(r.string()??);
        }
        member.assigned = partitions(&mut r)?;
        member.revoking = partitions(&mut r)?;
        member.target = partitions(&mut r)?;
        member.classic = match r.array()? {
            [0] => None,
            [1] => {
                let session_timeout_ms = i32::from_be_bytes(r.array()?);
                let mut protocols = Vec::new();
                for _ in 0..u32::from_be_bytes(r.array()?) {
                    protocols.push((r.string()??, Bytes::copy_from_slice(r.bytes()??)));
                }
                Some(Box::new(Classic { session_timeout_ms, protocols, rejoin_ends: None }))
            }
            _ => return None,
        };
        Some(member)
    }
}

fn partitions(r: &mut Reader<'_>) -> Option<Partitions> {
    let mut out = Partitions::new();
    for _ in 0..u32::from_be_bytes(r.array()?) {
        let topic = TopicId(r.array()?);
        let indexes = out.entry(topic).or_default();
        for _ in 0..u32::from_be_bytes(r.array()?) {
            indexes.insert(i32::from_be_bytes(r.array()?));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_round_trip() {
        let mut member = Member::new("m".into());
        member.instance_id = Some("i".into());
        member.pattern = Some("a.*".into());
        member.topics = ["t".to_owned(), "u".to_owned()].into();
        (member.epoch, member.previous_epoch, member.progress) = (7, 6, Progress::Waiting);
        member.assigned = Partitions::from([(TopicId([1; 16]), [0, 3].into())]);
        member.target = Partitions::from([(TopicId([1; 16]), [0, 3, 4].into()), (TopicId([2; 16]), [0].into())]);
        assert_eq!(Member::decode("m".into(), &member.encode()), Some(member.clone()));
        let protocols = vec![("range".to_owned(), Bytes::from("x"))];
        member.classic = Some(Box::new(Classic { session_timeout_ms: 5, protocols, rejoin_ends: None }));
        let bytes = member.encode();
        assert_eq!(Member::decode("m".into(), &bytes), Some(member));
        let head = Head { epoch: 3, assignment_epoch: 2, since: 9, topics_hash: 1, assignor: Assignor::Range };
        assert_eq!(Head::decode(&head.encode()), Some(head.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Member::decode("m".into(), &bytes[..cut]), None);
        }
        for cut in 0..head.encode().len() {
            assert_eq!(Head::decode(&head.encode()[..cut]), None);
        }
        assert_eq!(member_of_key(&member_key("g", "m")), Some(("g".into(), "m".into())));
        assert_eq!(group_of_key(&group_key("g")), Some("g".into()));
    }
}

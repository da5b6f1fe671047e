//! What groups hold as Kafka keeps it in its topic `__consumer_offsets`: entries of storage (`record`) to records of that
//! topic.
//!
//! ```text
//! key of an offset   i16 1 │ str group │ str topic │ i32 partition
//! offset             i16 3 │ i64 offset │ i32 epoch │ str metadata │ i64 committed at
//!                 or i16 1 │ i64 offset │ str metadata │ i64 committed at │ i64 expires at, where the client said when
//! key of a group     i16 2 │ str group
//! group              i16 3 │ str protocol type │ i32 generation │ str protocol │ str leader (each may be null)
//!                          │ i64 since │ i32 n │ n × member
//! member             str id │ str instance (may be null) │ str client │ str host │ i32 rebalance │ i32 session
//!                          │ bytes subscription │ bytes assignment
//! str = i16 length (-1: null) │ bytes; bytes = i32 length │ bytes
//! ```
//! Numbers are big-endian. These are the versions that Kafka writes. A deleted group or offset has no value.
//!
//! Not here: members of groups of the consumer protocol, settings of groups and transactions, of which nothing is in the
//! topic; where and when records are written (`storage`).

use super::offsets::{Committed, OffsetKey};
use super::record::{self, GroupRecord};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET: i16 = 3;
const OFFSET_WITH_END: i16 = 1;
const GROUP: i16 = 3;

/// A record of the topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopicRecord {
    pub group: String,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// The record of an entry; `None` where the topic has none of its kind, or cannot say its name.
pub(crate) fn record_of(key: &[u8], value: Option<&[u8]>) -> Option<TopicRecord> {
    if let Some((group, offset)) = record::offset_of_key(key) {
        let value = match value {
            Some(value) => Some(offset_value(&Committed::decode(value)?)),
            None => None,
        };
        let key = offset_key(&group, &offset)?;
        return Some(TopicRecord { group, key, value });
    }
    let group = record::group_of_key(key)?;
    let value = match value {
        Some(value) => Some(group_value(&GroupRecord::decode(group.clone(), value)?)),
        None => None,
    };
    let mut key = GROUP_KEY.to_be_bytes().to_vec();
    put_name(&mut key, &group)?;
    Some(TopicRecord { group, key, value })
}

/// Where a group's records lie among so many partitions: by Java's hash of its id, as all who look for them reckon.
pub(crate) fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions.max(1)
}

fn offset_key(group: &str, OffsetKey { topic, partition }: &OffsetKey) -> Option<Vec<u8>> {
    let mut out = OFFSET_KEY.to_be_bytes().to_vec();
    put_name(&mut out, group)?;
    put_name(&mut out, topic)?;
    out.extend(partition.to_be_bytes());
    Some(out)
}

fn offset_value(committed: &Committed) -> Vec<u8> {
    let expires = committed.expires_at >= 0;
    let mut out = if expires { OFFSET_WITH_END } else { OFFSET }.to_be_bytes().to_vec();
    out.extend(committed.offset.to_be_bytes());
    if !expires {
        out.extend(committed.leader_epoch.to_be_bytes());
    }
    put_text(&mut out, Some(&committed.metadata));
    out.extend(committed.committed_at.to_be_bytes());
    if expires {
        out.extend(committed.expires_at.to_be_bytes());
    }
    out
}

fn group_value(group: &GroupRecord) -> Vec<u8> {
    let mut out = GROUP.to_be_bytes().to_vec();
    put_text(&mut out, Some(&group.protocol_type));
    out.extend(group.generation.to_be_bytes());
    put_text(&mut out, said(&group.protocol));
    put_text(&mut out, said(&group.leader));
    out.extend(group.since.to_be_bytes());
    out.extend((group.members.len() as i32).to_be_bytes());
    for member in &group.members {
        put_text(&mut out, Some(&member.id));
        put_text(&mut out, member.instance_id.as_deref());
        put_text(&mut out, Some(&member.client_id));
        put_text(&mut out, Some(&member.client_host));
        out.extend(member.rebalance_timeout_ms.to_be_bytes());
        out.extend(member.session_timeout_ms.to_be_bytes());
        put_bytes(&mut out, &member.metadata(&group.protocol));
        put_bytes(&mut out, &member.assignment);
    }
    out
}

fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// What something is called, whole; `None` where the format has no room for it.
fn put_name(out: &mut Vec<u8>, name: &str) -> Option<()> {
    out.extend(i16::try_from(name.len()).ok()?.to_be_bytes());
    out.extend(name.as_bytes());
    Some(())
}

/// A text that is only told, as much of it as the format has room for.
fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return out.extend((-1i16).to_be_bytes()) };
    let fits = text.floor_char_boundary(i16::MAX as usize);
    out.extend((fits as i16).to_be_bytes());
    out.extend(text.as_bytes().iter().take(fits));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as i32).to_be_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond_types::TopicId;

    use super::super::consumer;
    use super::super::member::Member;
    use super::*;

    fn committed(expires_at: i64, metadata: &str) -> Vec<u8> {
        let (topic_id, offset, leader_epoch) = (TopicId([7; 16]), 258, 5);
        Committed { topic_id, offset, leader_epoch, metadata: metadata.into(), committed_at: 1, expires_at }.encode()
    }

    #[test]
    fn offsets_are_kafkas_bytes() {
        let key = record::offset_key("gr", &OffsetKey { topic: "top".into(), partition: 3 });
        let drawn = b"\0\x01\0\x02gr\0\x03top\0\0\0\x03".to_vec();
        let kept = b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x05\0\x02hi\0\0\0\0\0\0\0\x01".to_vec();
        let ends = b"\0\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x09".to_vec();
        let record = |value| Some(TopicRecord { group: "gr".into(), key: drawn.clone(), value });
        assert_eq!(record_of(&key, Some(&committed(-1, "hi"))), record(Some(kept)));
        assert_eq!(record_of(&key, Some(&committed(9, ""))), record(Some(ends)));
        assert_eq!(record_of(&key, None), record(None));
        // What is damaged is left out.
        assert_eq!(record_of(&key, Some(b"")), None);
        assert_eq!(record_of(&key[..4], None), None);
    }

    #[test]
    fn groups_are_kafkas_bytes() {
        let mut member = Member {
            id: "m".into(),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 2,
            rebalance_timeout_ms: 1,
            protocols: vec![("a".into(), Bytes::from("no")), ("b".into(), Bytes::from("yes"))],
            assignment: Bytes::from("all"),
            order: 0,
            join: None,
            replaced: None,
            sync: None,
            must_sync: false,
            unconfirmed: false,
            session_ends: i64::MAX,
        };
        let text = |text: &str| text.to_owned();
        let mut group = GroupRecord {
            number: 0,
            group: text("g"),
            generation: 4,
            since: 6,
            protocol_type: text("consumer"),
            protocol: text("b"),
            leader: text("m"),
            members: vec![member.clone()],
        };
        let value = |group: &GroupRecord| record_of(&record::group_key("g"), Some(&group.encode())).unwrap();
        let head = b"\0\x03\0\x08consumer\0\0\0\x04\0\x01b\0\x01m\0\0\0\0\0\0\0\x06\0\0\0\x01\0\x01m".to_vec();
        let rest = b"\0\x01c\0\x02/h\0\0\0\x01\0\0\0\x02\0\0\0\x03yes\0\0\0\x03all";
        let drawn = [&head[..], b"\xff\xff", rest].concat();
        let key = b"\0\x02\0\x01g".to_vec();
        assert_eq!(value(&group), TopicRecord { group: text("g"), key: key.clone(), value: Some(drawn) });
        member.instance_id = Some(text("i"));
        group.members = vec![member];
        assert_eq!(value(&group).value, Some([&head[..], b"\0\x01i", rest].concat()));
        (group.members, group.protocol, group.leader, group.protocol_type) = (vec![], text(""), text(""), text(""));
        let empty = b"\0\x03\0\0\0\0\0\x04\xff\xff\xff\xff\0\0\0\0\0\0\0\x06\0\0\0\0";
        assert_eq!(value(&group).value, Some(empty.to_vec()));
        let gone = TopicRecord { group: text("g"), key, value: None };
        assert_eq!(record_of(&record::group_key("g"), None), Some(gone));
        // Groups of the consumer protocol have other entries.
        assert_eq!(record_of(&consumer::record::group_key("g"), None), None);
        assert_eq!(record_of(&consumer::record::member_key("g", "m"), None), None);
    }

    #[test]
    fn texts_keep_to_the_formats_room() {
        let long = "ä".repeat(20_000);
        let key = OffsetKey { topic: "t".into(), partition: 0 };
        let value = record_of(&record::offset_key("g", &key), Some(&committed(-1, &long))).unwrap().value.unwrap();
        assert_eq!((&value[14..16], value.len()), (&[0x7f, 0xfe][..], 16 + 0x7ffe + 8));
        // What is called so cannot be cut.
        assert_eq!(record_of(&record::offset_key(&long, &key), None), None);
        assert_eq!(record_of(&record::group_key(&long), None), None);
    }

    #[test]
    fn partitions_are_javas_hash() {
        // "polygenelubricants" has the smallest hash that there is, whose absolute value is none.
        let hashes = [
            ("", 0),
            ("hello", 99_162_322),
            ("world!", -782_084_401 & i32::MAX),
            ("polygenelubricants", 0),
            ("\u{1f600}", 1_772_899),
        ];
        for (group, hash) in hashes {
            assert_eq!(partition_of(group, i32::MAX), hash, "{group}");
            assert_eq!(partition_of(group, 50), hash % 50, "{group}");
        }
        assert_eq!(partition_of("g", 0), 0);
    }
}

//! Every response that we answer, in every version, with any values: what another codec may write, ours reads, writes, and
//! reads again as the same; unknown tagged fields included.
//!
//! The forms are those of Kafka 4.1's own codec (`tests/data/responses.txt`, printed by `java Wire schemas` in
//! `tests/clients`): one letter for a plain type, () for a struct, [] and {} for arrays, ? where it may be null, <> for tagged
//! fields. `tests/clients/differential.py` has Kafka's codec read what a server really answers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner, contextualize_config};

const FORMS: &str = include_str!("../../data/responses.txt");
/// A tag that no message has.
const UNKNOWN_TAG: u32 = 500;

#[derive(Debug, Clone)]
enum Form {
    Plain(u8),
    Struct { fields: Vec<Form>, nullable: bool },
    Array { of: Box<Form>, nullable: bool, compact: bool },
    Tagged(Vec<(u32, Form)>),
}

fn parse(text: &mut &[u8]) -> Form {
    let nullable = eat(text, b'?');
    let first = text[0];
    *text = &text[1..];
    match first {
        b'(' => {
            let mut fields = Vec::new();
            while !eat(text, b')') {
                fields.push(parse(text));
            }
            Form::Struct { fields, nullable }
        }
        b'[' | b'{' => {
            let (close, compact) = if first == b'[' { (b']', false) } else { (b'}', true) };
            // A mark at the element's front is the array's: elements are never null.
            let nullable = eat(text, b'?');
            let of = Box::new(parse(text));
            assert!(eat(text, close));
            Form::Array { of, nullable, compact }
        }
        b'<' => {
            let mut fields = Vec::new();
            while !eat(text, b'>') {
                let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
                let tag = std::str::from_utf8(&text[..digits]).unwrap().parse().unwrap();
                *text = &text[digits + 1..];
                fields.push((tag, parse(text)));
            }
            Form::Tagged(fields)
        }
        plain => Form::Plain(plain),
    }
}

fn eat(text: &mut &[u8], byte: u8) -> bool {
    let is = text.first() == Some(&byte);
    if is {
        *text = &text[1..];
    }
    is
}

fn varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length, or `None` for null.
fn length(out: &mut Vec<u8>, length: Option<usize>, compact: bool, wide: bool) {
    match (compact, wide, length) {
        (true, _, length) => varint(out, length.map_or(0, |n| n as u32 + 1)),
        (false, true, length) => out.extend(length.map_or(-1, |n| n as i32).to_be_bytes()),
        (false, false, length) => out.extend(length.map_or(-1, |n| n as i16).to_be_bytes()),
    }
}

/// Any values of a form, as bytes.
fn write(form: &Form, rng: &mut impl Rng, out: &mut Vec<u8>) {
    match form {
        Form::Plain(b'b') => out.push((rng.next_u32() & 1) as u8),
        Form::Plain(b'f') => out.extend(f64::from(rng.next_u32() as i32).to_be_bytes()),
        Form::Plain(b'u') => out.extend((0..16).map(|_| rng.next_u32() as u8)),
        Form::Plain(digit @ (b'1' | b'2' | b'4' | b'8')) => {
            let bytes = rng.next_u64().to_be_bytes();
            // Small numbers too, which codes and counts are.
            let bytes = if rng.next_u32() & 1 == 0 { (rng.next_u64() % 100).to_be_bytes() } else { bytes };
            out.extend(&bytes[8 - usize::from(digit - b'0')..]);
        }
        Form::Plain(kind) => {
            let compact = kind.is_ascii_uppercase();
            let wide = matches!(kind, b'y' | b'z');
            if matches!(kind, b'n' | b'N' | b'z' | b'Z') && rng.next_u32().is_multiple_of(4) {
                return length(out, None, compact, wide);
            }
            let text: String = (0..rng.next_u32() % 6)
                .map(|_| ['a', 'Z', '0', '-', 'é', '水'][(rng.next_u32() % 6) as usize])
                .collect();
            length(out, Some(text.len()), compact, wide);
            out.extend(text.as_bytes());
        }
        Form::Struct { fields, nullable } => {
            if *nullable {
                let there = rng.next_u32() & 1 == 0;
                out.push(if there { 1 } else { u8::MAX });
                if !there {
                    return;
                }
            }
            fields.iter().for_each(|field| write(field, rng, out));
        }
        Form::Array { of, nullable, compact } => {
            if *nullable && rng.next_u32().is_multiple_of(4) {
                return length(out, None, *compact, true);
            }
            let count = (rng.next_u32() % 3) as usize;
            length(out, Some(count), *compact, true);
            (0..count).for_each(|_| write(of, rng, out));
        }
        Form::Tagged(fields) => {
            let mut tagged: Vec<(u32, Vec<u8>)> = Vec::new();
            for (tag, form) in fields {
                if rng.next_u32() & 1 == 0 {
                    let mut value = Vec::new();
                    write(form, rng, &mut value);
                    tagged.push((*tag, value));
                }
            }
            if rng.next_u32().is_multiple_of(3) {
                tagged.push((UNKNOWN_TAG, vec![1, 2, 3]));
            }
            varint(out, tagged.len() as u32);
            for (tag, value) in tagged {
                varint(out, tag);
                varint(out, value.len() as u32);
                out.extend(value);
            }
        }
    }
}

fn has_tags(form: &Form) -> bool {
    match form {
        Form::Plain(_) => false,
        Form::Struct { fields, .. } => fields.iter().any(has_tags),
        Form::Array { of, .. } => has_tags(of),
        Form::Tagged(fields) => !fields.is_empty(),
    }
}

fn check<R: Request>(forms: &BTreeMap<(i16, i16), Form>, versions: std::ops::RangeInclusive<i16>)
where
    R::Response: PartialEq + Debug,
{
    for version in versions {
        let form = forms.get(&(R::KEY, version)).unwrap_or_else(|| panic!("no form of api {} v{version}", R::KEY));
        let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new(contextualize_config(config));
        let any_values = Just(()).prop_perturb(|(), mut rng| {
            let mut bytes = Vec::new();
            write(form, &mut rng, &mut bytes);
            bytes
        });
        let same = |bytes: Vec<u8>| {
            let what = format!("api {} v{version}", R::KEY);
            let mut left = Bytes::from(bytes.clone());
            let read = R::Response::decode(&mut left, version).unwrap_or_else(|e| panic!("{what}: {e}: {bytes:02x?}"));
            prop_assert!(left.is_empty(), "{what}: {} bytes are left", left.len());
            let mut written = BytesMut::new();
            read.encode(&mut written, version).unwrap_or_else(|e| panic!("{what}: {e}: {read:?}"));
            // A tagged field may have the value that is not written.
            prop_assert!(has_tags(form) || written == bytes, "{what}: {bytes:02x?} became {written:02x?}");
            let again = R::Response::decode(&mut written.freeze(), version).unwrap();
            prop_assert_eq!(read, again, "{}", what);
            Ok(())
        };
        runner.run(&any_values, same).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_response_is_read_and_written_as_the_same() {
    let mut forms = BTreeMap::new();
    for line in FORMS.lines() {
        let mut parts = line.split(' ');
        let mut number = || parts.next().unwrap().parse::<i16>().unwrap();
        let key = (number(), number());
        let mut text = parts.next().unwrap().as_bytes();
        forms.insert(key, parse(&mut text));
        assert!(text.is_empty(), "{line}");
    }
    let server = super::client::Server::new();
    let ranges = super::answers::ranges(&server);
    let mut seen = Vec::new();
    macro_rules! all {
        ($($request:ident)*) => {
            $({
                let key = <$request as Request>::KEY;
                let (_, min, max) = *ranges.iter().find(|(k, ..)| *k == key).expect("it is advertised");
                // Produce is told from 0 on for the sake of old clients that never send that.
                let min = if key == 0 { 3 } else { min };
                check::<$request>(&forms, min..=max);
                seen.push(key);
            })*
        };
    }
    all! {
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
        FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest
        ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest
        InitProducerIdRequest OffsetForLeaderEpochRequest AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest
        WriteTxnMarkersRequest TxnOffsetCommitRequest DescribeAclsRequest CreateAclsRequest DeleteAclsRequest
        DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        CreateDelegationTokenRequest RenewDelegationTokenRequest ExpireDelegationTokenRequest DescribeDelegationTokenRequest
        DeleteGroupsRequest ElectLeadersRequest IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest AlterClientQuotasRequest
        DescribeUserScramCredentialsRequest AlterUserScramCredentialsRequest DescribeQuorumRequest UpdateFeaturesRequest
        DescribeClusterRequest DescribeProducersRequest UnregisterBrokerRequest DescribeTransactionsRequest ListTransactionsRequest
        ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest ListConfigResourcesRequest DescribeTopicPartitionsRequest
    }
    seen.sort_unstable();
    let advertised: Vec<i16> = ranges.iter().map(|(key, ..)| *key).collect();
    assert_eq!(seen, advertised, "an advertised api is not tried here");
}

//! The topic `__consumer_offsets`: read with a reader of Kafka's formats that knows nothing of how they are written here.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use millpond_broker::storage::Storage;
use millpond_types::ports::TopicLog;
use millpond_types::{TopicId, TopicPartition};

use super::answers::{fetch_request, name};
use super::client::{Client, Server};
use super::groups::{commit, group, join, sync};
use super::transactions::{add_group, commit_offset, end, init};
use crate::fixture::{ALL, Fixture, block_on, create, spec};

const TOPIC: &str = "__consumer_offsets";

/// Takes fields from the front of a key or a value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.bytes(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        match self.i16() {
            -1 => "null".into(),
            length => String::from_utf8(self.bytes(length.try_into().unwrap()).to_vec()).unwrap(),
        }
    }

    fn block(&mut self) -> String {
        let length = self.i32().try_into().unwrap();
        String::from_utf8_lossy(self.bytes(length)).into_owned()
    }

    fn ends(&self) {
        assert!(self.0.is_empty(), "{:?} is left", self.0);
    }
}

/// A record in words: what it is about, and what it says, the group's times and names of members apart.
fn words(key: &[u8], value: Option<&[u8]>) -> (String, String) {
    let (mut key, mut value) = (Fields(key), value.map(Fields));
    let (about, says) = match key.i16() {
        1 => {
            let about = format!("{} {}/{}", key.text(), key.text(), key.i32());
            let says = value.as_mut().map(|value| {
                assert_eq!(value.i16(), 3);
                let (offset, epoch, note, time) = (value.i64(), value.i32(), value.text(), value.i64());
                assert!(epoch == -1 && time > crate::fixture::START_MS, "epoch {epoch}, time {time}");
                format!("{offset} {note}")
            });
            (about, says)
        }
        2 => {
            let about = key.text();
            let says = value.as_mut().map(|value| {
                assert_eq!(value.i16(), 3);
                let (kind, generation, protocol) = (value.text(), value.i32(), value.text());
                let (leader, _since, members) = (value.text(), value.i64(), value.i32());
                let mut says = format!("{kind} {generation} {protocol}");
                for _ in 0..members {
                    let (id, instance, client, host) = (value.text(), value.text(), value.text(), value.text());
                    let (rebalance, session) = (value.i32(), value.i32());
                    assert_eq!((id, instance.as_str(), client.as_str()), (leader.clone(), "null", "test"));
                    assert!(host.starts_with('/') || host.starts_with("127."), "{host}");
                    let (subscription, assignment) = (value.block(), value.block());
                    says += &format!(": {rebalance} {session} {} {assignment}", subscription.chars().count());
                }
                says
            });
            (about, says)
        }
        version => panic!("a key of version {version}"),
    };
    key.ends();
    value.iter().for_each(Fields::ends);
    (about, says.unwrap_or_else(|| "gone".into()))
}

fn id(storage: &Storage) -> TopicId {
    storage.find_topic(TOPIC).unwrap().id
}

/// All records of the topic in words, in the order of partitions, with theirs.
fn records(storage: &Storage) -> Vec<(i32, String, String)> {
    let mut all = Vec::new();
    for partition in 0..storage.find_topic(TOPIC).unwrap().partition_count() {
        let (place, mut from) = (TopicPartition { topic: id(storage), partition }, 0);
        loop {
            let read = storage.read(place, from, ALL).unwrap();
            for row in 0..read.views.len() {
                let (about, says) = words(read.key(row).unwrap(), read.value(row));
                all.push((partition, about, says));
            }
            if read.next_offset >= read.stable_end {
                break;
            }
            from = read.next_offset;
        }
    }
    all
}

/// Those of offsets; groups' own come when they come.
fn of_offsets(storage: &Storage) -> Vec<(i32, String, String)> {
    records(storage).into_iter().filter(|(_, about, _)| about.contains('/')).collect()
}

/// The last that was said of each, as who reads the topic knows it.
fn known(storage: &Storage) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for (partition, about, says) in records(storage) {
        let group = about.split(' ').next().unwrap();
        let hash = group.encode_utf16().fold(0i32, |h, unit| h.wrapping_mul(31).wrapping_add(unit.into()));
        assert_eq!(partition, (hash & 0x7fff_ffff) % 50, "{group}");
        known.insert(about, says);
    }
    known
}

fn is(known: &BTreeMap<String, String>, about: &str, says: &str) {
    assert_eq!(known.get(about).map(String::as_str), Some(says), "{about}: {known:?}");
}

/// Error, how many partitions, and whether it is internal.
fn ask(client: &mut Client, create: bool) -> (i16, usize, bool) {
    let topic = MetadataRequestTopic::default().with_name(Some(name(TOPIC)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(create);
    let topic = client.call(12, &request).topics.remove(0);
    (topic.error_code, topic.partitions.len(), topic.is_internal)
}

fn delete_group(client: &mut Client, id: &str) -> i16 {
    client.call(2, &DeleteGroupsRequest::default().with_groups_names(vec![group(id)])).results[0].error_code
}

#[test]
fn it_is_there_once_somebody_asks_and_says_what_groups_hold() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(ask(&mut client, false).0, 3, "there is no group");
    let member = join(&mut client, "").member_id.to_string();
    assert_eq!(join(&mut client, &member).error_code, 0);
    assert_eq!(sync(&mut client, &member, "all of it").error_code, 0);
    assert_eq!((commit(&mut client, "g", &member, 1, 42), commit(&mut client, "alone", "", -1, 7)), (0, 0));
    assert_eq!(commit(&mut client, "alone", "", -1, 8), 0);
    assert!(server.storage().find_topic(TOPIC).is_none());
    let all = client.call(12, &MetadataRequest::default().with_topics(None)).topics;
    assert_eq!(all.len(), 1, "who asks for all does not ask for it");

    assert_eq!(ask(&mut client, false), (0, 50, true));
    let configs = server.storage().find_topic(TOPIC).unwrap().configs.clone();
    assert_eq!(configs["cleanup.policy"], "compact");
    let stable = "consumer 1 range: 30000 30000 13 all of it";
    let now = of_offsets(server.storage());
    assert_eq!(now.len(), 2, "{now:?}");
    let told = known(server.storage());
    is(&told, "g", stable);
    is(&told, "g t/0", "42 a note");
    is(&told, "alone t/0", "8 a note");

    // From now on what changes comes by itself, also after a start.
    assert_eq!(commit(&mut client, "alone", "", -1, 9), 0);
    is(&known(server.storage()), "alone t/0", "9 a note");
    let server = Server::with(server.stop().reopen(false), |_, _| {});
    let mut client = server.client();
    assert_eq!((commit(&mut client, "g", &member, 1, 43), commit(&mut client, "new", "", -1, 1)), (0, 0));
    let told = known(server.storage());
    is(&told, "g t/0", "43 a note");
    is(&told, "new t/0", "1 a note");
    assert_eq!((delete_group(&mut client, "alone"), delete_group(&mut client, "g")), (0, 68));
    let told = known(server.storage());
    is(&told, "alone t/0", "gone");
    is(&told, "alone", "gone");
    is(&told, "g", stable);
    let leaves = leave_group_request::MemberIdentity::default().with_member_id(member.into());
    let request = LeaveGroupRequest::default().with_group_id(group("g")).with_members(vec![leaves]);
    assert_eq!(client.call(4, &request).error_code, 0);
    crate::actor::wait_until("the group is not said to be empty", || {
        known(server.storage()).get("g").is_some_and(|says| says.starts_with("consumer 2") && !says.contains(':'))
    });

    // It is read as others are.
    let (partition, ..) = records(server.storage()).into_iter().find(|(_, about, _)| about == "new t/0").unwrap();
    let mut request = fetch_request(TOPIC, 0, 1, 0);
    request.topics[0].partitions[0].partition = partition;
    assert!(!client.call(12, &request).responses[0].partitions[0].records.as_ref().unwrap().is_empty());
}

#[test]
fn offsets_of_transactions_come_with_the_commit() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(ask(&mut client, true), (0, 50, true), "made as others are, where there are no groups");
    let producer = init(&mut client, 4, 60_000).unwrap();
    for (commit, offset, says) in [(true, 5, "5 a note"), (false, 6, "5 a note"), (true, 7, "7 a note")] {
        assert_eq!((add_group(&mut client, producer), commit_offset(&mut client, 3, producer, -1, offset)), (0, 0));
        let before = of_offsets(server.storage()).len();
        assert_eq!(end(&mut client, 3, producer, commit), 0);
        is(&known(server.storage()), "g t/0", says);
        assert_eq!(of_offsets(server.storage()).len(), before + usize::from(commit));
    }
}

#[test]
fn it_can_be_deleted_and_is_then_made_anew() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(commit(&mut client, "a", "", -1, 1), 0);
    let topic = || TopicRequest::default().with_name(name(TOPIC));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic()]).with_response_partition_limit(9);
    assert_eq!(client.call(0, &request).topics[0].partitions.len(), 9);
    let first = id(server.storage());
    let more = create_partitions_request::CreatePartitionsTopic::default().with_name(name(TOPIC)).with_count(60);
    let more = more.with_assignments(None);
    let refused = client.call(3, &CreatePartitionsRequest::default().with_topics(vec![more])).results.remove(0);
    assert_eq!(refused.error_code, 42, "{refused:?}");
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![name(TOPIC)]);
    assert_eq!(client.call(5, &delete).responses[0].error_code, 0);
    assert_eq!(commit(&mut client, "b", "", -1, 2), 0);
    assert_eq!(delete_group(&mut client, "a"), 0);
    assert!(server.storage().find_topic(TOPIC).is_none());
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    assert_eq!(ask(&mut client, false), (0, 50, true));
    assert_ne!(id(server.storage()), first);
    assert_eq!(of_offsets(server.storage()).len(), 1);
    is(&known(server.storage()), "b t/0", "2 a note");
}

/// More than is put in at once, and groups that change and go meanwhile.
#[test]
fn much_comes_in_pieces_while_groups_go_on() {
    let server = Server::new();
    block_on(server.storage().create_topic(spec("t", 3000, &[]))).unwrap();
    let mut client = server.client();
    let commit_all = |client: &mut Client, id: &str, offset: i64| {
        let partition = |index| {
            offset_commit_request::OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_committed_metadata(Some("a note".into()))
        };
        let topic = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions((0..3000).map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(group(id))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        assert!(client.call(7, &request).topics[0].partitions.iter().all(|p| p.error_code == 0));
    };
    let ids: Vec<String> = (0..8).map(|n| format!("g{n}")).collect();
    ids.iter().for_each(|id| commit_all(&mut client, id, 1));
    std::thread::scope(|scope| {
        let mut other = server.client();
        let ids = &ids;
        scope.spawn(move || {
            for id in ids.iter().rev() {
                commit_all(&mut other, id, 2);
            }
            assert_eq!(delete_group(&mut other, "g3"), 0);
        });
        assert_eq!(ask(&mut client, false), (0, 50, true));
    });
    let told = known(server.storage());
    for id in &ids {
        let expected = if id == "g3" { "gone" } else { "2 a note" };
        (0..3000).for_each(|index| is(&told, &format!("{id} t/{index}"), expected));
    }
}

#[test]
fn compaction_leaves_the_newest() {
    let server = Server::with(
        Fixture::with(|options| {
            options.segment_bytes = 1;
            options.active_bytes_max = 0;
        }),
        |_, _| {},
    );
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(commit(&mut client, "a", "", -1, 1), 0);
    assert_eq!(ask(&mut client, false).0, 0);
    (2..20).for_each(|offset| assert_eq!(commit(&mut client, "a", "", -1, offset), 0));
    let (partition, ..) = records(server.storage())[0];
    server.storage().compact(TopicPartition { topic: id(server.storage()), partition }).unwrap();
    let left: Vec<_> = of_offsets(server.storage()).into_iter().map(|(_, about, says)| (about, says)).collect();
    let row = |offset: i64| ("a t/0".to_owned(), format!("{offset} a note"));
    // The last batch is never compacted.
    assert!(left == [row(19)] || left == [row(18), row(19)], "{left:?}");
}

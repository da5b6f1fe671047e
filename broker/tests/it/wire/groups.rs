//! Groups over the wire: what survives a restart, and groups that belong to queries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::*;
use millpond_broker::groups::{GroupOffset, QueryGroups};
use millpond_types::ports::{Consumers, Readers};

use super::answers::name;
use super::client::{Client, Server};
use crate::fixture::{Fixture, START_MS, create};

pub fn group(id: &str) -> GroupId {
    GroupId(id.to_owned().into())
}

pub fn commit(client: &mut Client, id: &str, member: &str, generation: i32, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some("a note".into()));
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_member_id(member.to_owned().into())
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic]);
    client.call(7, &request).topics[0].partitions[0].error_code
}

/// All offsets of a group, with their texts.
fn offsets(client: &mut Client, id: &str) -> Vec<(String, i32, i64, String)> {
    let request = OffsetFetchRequest::default().with_group_id(group(id)).with_topics(None);
    let mut out = Vec::new();
    for topic in client.call(7, &request).topics {
        for p in topic.partitions {
            let metadata = p.metadata.unwrap_or_default().to_string();
            out.push((topic.name.to_string(), p.partition_index, p.committed_offset, metadata));
        }
    }
    out
}

pub fn join(client: &mut Client, member: &str) -> JoinGroupResponse {
    let protocol = join_group_request::JoinGroupRequestProtocol::default()
        .with_name("range".into())
        .with_metadata(Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff"));
    let request = JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(member.to_owned().into())
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    client.call(5, &request)
}

pub fn sync(client: &mut Client, member: &str, assignment: &'static str) -> SyncGroupResponse {
    let assigned = sync_group_request::SyncGroupRequestAssignment::default()
        .with_member_id(member.to_owned().into())
        .with_assignment(Bytes::from_static(assignment.as_bytes()));
    let request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(1)
        .with_member_id(member.to_owned().into())
        .with_assignments(if assignment.is_empty() { vec![] } else { vec![assigned] });
    client.call(3, &request)
}

#[test]
fn members_assignments_and_offsets_survive_a_restart() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(offsets(&mut client, "nobody"), []);
    let told = join(&mut client, "");
    assert_eq!(told.error_code, 79);
    let member = told.member_id.to_string();
    let joined = join(&mut client, &member);
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
    assert_eq!(sync(&mut client, &member, "all of it").assignment, "all of it");
    assert_eq!(commit(&mut client, "g", &member, 1, 42), 0);
    assert_eq!(commit(&mut client, "g", &member, 2, 43), 22);
    assert_eq!(commit(&mut client, "alone", "", -1, 7), 0);

    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    assert_eq!(offsets(&mut client, "g"), [("t".into(), 0, 42, "a note".into())]);
    assert_eq!(offsets(&mut client, "alone"), [("t".into(), 0, 7, "a note".into())]);
    assert_eq!(sync(&mut client, &member, "").assignment, "all of it");
    assert_eq!(commit(&mut client, "g", &member, 1, 44), 0);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g"), group("alone"), group("nobody")]);
    let codes: Vec<i16> = client.call(2, &delete).results.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [68, 0, 69]);
    // Offsets of a topic say nothing about the next one of its name.
    let id = server.storage().find_topic("t").unwrap().id;
    crate::fixture::block_on(server.storage().delete_topic(id)).unwrap();
    create(server.storage(), "t", &[]);
    assert_eq!(offsets(&mut client, "g"), []);
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let listed = server.client().call(4, &ListGroupsRequest::default()).groups;
    assert_eq!(listed.iter().map(|g| g.group_id.to_string()).collect::<Vec<_>>(), ["g"]);
}

fn delete_offsets(client: &mut Client, id: &str, topics: &[&str]) -> (i16, Vec<i16>) {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let partitions = || vec![OffsetDeleteRequestPartition::default()];
    let topic = |t: &&str| OffsetDeleteRequestTopic::default().with_name(name(t)).with_partitions(partitions());
    let request =
        OffsetDeleteRequest::default().with_group_id(group(id)).with_topics(topics.iter().map(topic).collect());
    let response = client.call(0, &request);
    let codes = response.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
    (response.error_code, codes.collect())
}

#[test]
fn offsets_of_a_group_in_use_stay_where_nobody_can_tell_what_it_reads() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    create(server.storage(), "u", &[]);
    let mut client = server.client();
    let join = |client: &mut Client, id: &str, kind: &str| {
        let protocol = join_group_request::JoinGroupRequestProtocol::default()
            .with_name("range".into())
            .with_metadata(Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff"));
        let request = JoinGroupRequest::default()
            .with_group_id(group(id))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(kind.to_owned().into())
            .with_protocols(vec![protocol]);
        let joined = client.call(3, &request);
        assert_eq!(joined.error_code, 0);
        joined.member_id
    };
    let worker = join(&mut client, "workers", "connect");
    join(&mut client, "consumers", "consumer");
    assert_eq!(delete_offsets(&mut client, "workers", &["t", "nowhere"]), (68, vec![]));
    assert_eq!(delete_offsets(&mut client, "consumers", &["t", "u", "nowhere"]), (0, vec![86, 0, 3]));
    let leave = LeaveGroupRequest::default().with_group_id(group("workers")).with_member_id(worker);
    assert_eq!(client.call(2, &leave).error_code, 0);
    assert_eq!(delete_offsets(&mut client, "workers", &["t", "nowhere"]), (0, vec![0, 3]));
}

#[test]
fn texts_of_offsets_are_as_long_as_they_are_in_java() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let commit = |client: &mut Client, text: &str| {
        let text = Some(text.to_owned().into());
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let partition = partition.with_committed_metadata(text.clone());
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(group("g")).with_topics(vec![topic]);
        let plain = client.call(7, &request).topics[0].partitions[0].error_code;
        // There is no such transaction; a text that is too long is told first.
        use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_metadata(text);
        let topic = TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId("x".into()))
            .with_group_id(group("g"))
            .with_topics(vec![topic]);
        (plain, client.call(3, &request).topics[0].partitions[0].error_code)
    };
    for (unit, most) in [("x", 4096), ("\u{e9}", 4096), ("\u{20ac}", 4096), ("\u{1d11e}", 2048)] {
        assert_eq!(commit(&mut client, &unit.repeat(most)), (0, 49), "{unit}");
        assert_eq!(offsets(&mut client, "g")[0].3, unit.repeat(most));
        assert_eq!(commit(&mut client, &unit.repeat(most + 1)), (12, 12), "{unit}");
    }
}

#[test]
fn without_a_timeout_of_its_own_a_rebalance_takes_as_long_as_a_session() {
    let server = Server::new();
    let mut client = server.client();
    for version in [1, 5, 9] {
        let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name("range".into());
        let request = JoinGroupRequest::default()
            .with_group_id(group(&format!("g{version}")))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(-1)
            .with_protocol_type("consumer".into())
            .with_protocols(vec![protocol]);
        let mut joined = client.call(version, &request);
        if version >= 4 {
            assert_eq!(joined.error_code, 79);
            joined = client.call(version, &request.with_member_id(joined.member_id));
        }
        assert_eq!((joined.error_code, joined.generation_id), (0, 1), "v{version}");
    }
}

const KEPT_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// Groups read the clock when they are loaded and go on from there by themselves.
fn serve_at(fixture: Fixture, now: i64) -> Server {
    fixture.clock.set(now);
    let clock = Arc::clone(&fixture.clock);
    Server::with(fixture, |settings, hooks| {
        settings.groups.offsets_retention_ms = KEPT_MS;
        settings.groups.offsets_check = Duration::from_millis(10);
        hooks.clock = clock;
    })
}

#[track_caller]
fn stays(client: &mut Client, id: &str) {
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(offsets(client, id).len(), 1, "the offset of {id:?} is gone too early");
}

#[track_caller]
fn goes(client: &mut Client, id: &str) {
    let since = Instant::now();
    while !offsets(client, id).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(30), "the offset of {id:?} is kept for too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_clock_that_is_set_neither_takes_offsets_nor_keeps_them() {
    const DAYS_MS: i64 = 100 * 24 * KEPT_MS;
    // Forward, as where a machine learns the time late.
    let fixture = Fixture::new();
    let clock = Arc::clone(&fixture.clock);
    let server = serve_at(fixture, START_MS);
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(commit(&mut client, "before", "", -1, 1), 0);
    let member = join(&mut client, "").member_id.to_string();
    assert_eq!(join(&mut client, &member).generation_id, 1);
    assert_eq!(sync(&mut client, &member, "all of it").assignment, "all of it");
    clock.set(START_MS + DAYS_MS);
    stays(&mut client, "before");
    assert_eq!(commit(&mut client, "after", "", -1, 2), 0);
    assert_eq!(commit(&mut client, "g", &member, 1, 42), 0, "its session is not over");
    let server = serve_at(server.stop().reopen(true), START_MS + DAYS_MS + KEPT_MS - MINUTE_MS);
    stays(&mut server.client(), "after");
    goes(&mut server.client(), "before");
    // And back.
    let fixture = server.stop().reopen(true);
    let clock = Arc::clone(&fixture.clock);
    let server = serve_at(fixture, START_MS + DAYS_MS + KEPT_MS - MINUTE_MS);
    clock.set(START_MS);
    assert_eq!(commit(&mut server.client(), "back", "", -1, 3), 0);
    stays(&mut server.client(), "after");
    let server = serve_at(server.stop().reopen(true), START_MS + KEPT_MS + MINUTE_MS);
    goes(&mut server.client(), "back");
}

#[test]
fn offsets_expire_over_restarts_and_not_before_their_time() {
    let server = serve_at(Fixture::new(), START_MS);
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let member = join(&mut client, "").member_id.to_string();
    assert_eq!(join(&mut client, &member).generation_id, 1);
    assert_eq!(sync(&mut client, &member, "all of it").assignment, "all of it");
    assert_eq!(commit(&mut client, "g", &member, 1, 42), 0);
    assert_eq!(commit(&mut client, "alone", "", -1, 7), 0);

    let server = serve_at(server.stop().reopen(true), START_MS + KEPT_MS - MINUTE_MS);
    stays(&mut server.client(), "alone");
    let left = START_MS + KEPT_MS + MINUTE_MS;
    let server = serve_at(server.stop().reopen(true), left);
    let mut client = server.client();
    goes(&mut client, "alone");
    // Its member is there; from the end of that on time counts.
    stays(&mut client, "g");
    let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_member_id(member.into());
    assert_eq!(client.call(2, &leave).error_code, 0);
    let server = serve_at(server.stop().reopen(true), left + KEPT_MS - MINUTE_MS);
    stays(&mut server.client(), "g");
    let server = serve_at(server.stop().reopen(true), left + KEPT_MS + MINUTE_MS);
    goes(&mut server.client(), "g");
    // It is gone from the disk too, whatever the clock says.
    let server = serve_at(server.stop().reopen(true), START_MS);
    let mut client = server.client();
    assert_eq!((offsets(&mut client, "g"), offsets(&mut client, "alone")), (vec![], vec![]));
}

struct Cursors;

impl QueryGroups for Cursors {
    fn offsets(&self) -> Vec<GroupOffset> {
        vec![GroupOffset { group: "query-1".into(), topic: "t".into(), partition: 0, offset: 5 }]
    }
}

#[test]
fn groups_of_queries_can_be_seen_and_not_changed() {
    let server = Server::with(Fixture::new(), |_, hooks| hooks.query_groups = Some(Arc::new(Cursors)));
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let listed = client.call(4, &ListGroupsRequest::default()).groups;
    assert_eq!((listed[0].group_id.as_str(), listed[0].group_state.as_str()), ("query-1", "Stable"));
    assert_eq!(offsets(&mut client, "query-1"), [("t".into(), 0, 5, String::new())]);
    assert_eq!(commit(&mut client, "query-1", "", -1, 0), 30);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("query-1")]);
    assert_eq!(client.call(2, &delete).results[0].error_code, 30);
    assert_eq!(offsets(&mut client, "query-1"), [("t".into(), 0, 5, String::new())]);
}

#[test]
fn lag_is_what_lies_after_the_committed_offset() {
    let server = Server::with(Fixture::new(), |settings, hooks| {
        hooks.query_groups = Some(Arc::new(Cursors));
        settings.groups.lag_rows_max = 2;
    });
    let place = create(server.storage(), "t", &[]);
    crate::fixture::send(server.storage(), place, &["a", "b", "c", "d", "e", "f", "g"]);
    let mut client = server.client();
    assert_eq!(commit(&mut client, "a", "", -1, 3), 0);
    let shown = |server: &Server| {
        let lags = server.groups().lags();
        let rows = lags.rows.into_iter().map(|r| (r.group, r.topic, r.partition, r.committed, r.lag));
        (rows.collect::<Vec<_>>(), lags.left_out)
    };
    let row = |group: &str, committed, lag| (group.to_owned(), "t".to_owned(), 0, committed, lag);
    assert_eq!(shown(&server), (vec![row("a", 3, 4), row("query-1", 5, 2)], 0));
    assert_eq!(commit(&mut client, "c", "", -1, 9), 0);
    assert_eq!(commit(&mut client, "b", "", -1, 0), 0);
    assert_eq!(shown(&server), (vec![row("a", 3, 4), row("b", 0, 7)], 2), "the first by name, within the limit");
    assert_eq!(commit(&mut client, "b", "", -1, 9), 0);
    assert_eq!(shown(&server).0[1], row("b", 9, 0), "past the end is no lag");
    let id = server.storage().find_topic("t").unwrap().id;
    crate::fixture::block_on(server.storage().delete_topic(id)).unwrap();
    assert_eq!(shown(&server).0, []);
}

fn heartbeat(client: &mut Client, member: &str, epoch: i32, owned: Option<Vec<i32>>) -> ConsumerGroupHeartbeatResponse {
    use consumer_group_heartbeat_request::TopicPartitions;
    let joins = epoch == 0;
    let topic = TOPIC.with(std::cell::Cell::get);
    let owned = owned.map(|p| vec![TopicPartitions::default().with_topic_id(topic).with_partitions(p)]);
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("new"))
        .with_member_id(member.to_owned().into())
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(if joins { 60_000 } else { -1 })
        .with_subscribed_topic_names(joins.then(|| vec![name("t")]))
        .with_topic_partitions(if joins { Some(vec![]) } else { owned });
    client.call(1, &request)
}

std::thread_local! {
    /// The id of the topic that the members of the test below read.
    static TOPIC: std::cell::Cell<uuid::Uuid> = const { std::cell::Cell::new(uuid::Uuid::nil()) };
}

fn given(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    Some(assignment.topic_partitions.iter().flat_map(|t| t.partitions.clone()).collect())
}

#[test]
fn a_group_of_the_consumer_protocol_is_as_it_was_after_a_restart() {
    let server = Server::new();
    let id = create(server.storage(), "t", &[]).topic;
    crate::fixture::block_on(server.storage().add_partitions(id, 4)).unwrap();
    TOPIC.with(|topic| topic.set(uuid::Uuid::from_bytes(id.0)));
    let mut client = server.client();
    let joined = heartbeat(&mut client, "a", 0, None);
    assert_eq!((joined.error_code, joined.member_epoch, joined.heartbeat_interval_ms), (0, 1, 5_000));
    assert_eq!(given(&joined), Some(vec![0, 1, 2, 3]));
    let second = heartbeat(&mut client, "b", 0, None);
    assert_eq!((second.member_epoch, given(&second)), (2, Some(vec![])));
    let told = heartbeat(&mut client, "a", 1, Some(vec![0, 1, 2, 3]));
    assert_eq!((told.member_epoch, given(&told)), (1, Some(vec![0, 1])));

    let server = Server::with(server.stop().reopen(false), |_, _| {});
    let mut client = server.client();
    assert_eq!(heartbeat(&mut client, "b", 2, None).member_epoch, 2);
    let done = heartbeat(&mut client, "a", 1, Some(vec![0, 1]));
    assert_eq!((done.member_epoch, given(&done)), (2, None), "it has what it was told before");
    assert_eq!(given(&heartbeat(&mut client, "b", 2, None)), Some(vec![2, 3]));
    let fenced = heartbeat(&mut client, "a", 7, None);
    assert_eq!((fenced.error_code, fenced.assignment), (110, None));
    assert!(fenced.error_message.is_some_and(|why| why.contains("epoch is 2, not 7")));

    // Offsets are the members', by their epochs.
    let mut commit = |version, member: &str, epoch| {
        let partition = offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(5);
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group("new"))
            .with_member_id(member.to_owned().into())
            .with_generation_id_or_member_epoch(epoch)
            .with_topics(vec![topic]);
        client.call(version, &request).topics[0].partitions[0].error_code
    };
    assert_eq!([commit(9, "a", 2), commit(9, "a", 1), commit(9, "z", 2), commit(8, "a", 2)], [0, 113, 25, 35]);
    let mut fetch = |member: Option<&str>, epoch| {
        let asked = offset_fetch_request::OffsetFetchRequestGroup::default()
            .with_group_id(group("new"))
            .with_member_id(member.map(|m| m.to_owned().into()))
            .with_member_epoch(epoch)
            .with_topics(None);
        let answer = client.call(9, &OffsetFetchRequest::default().with_groups(vec![asked])).groups.remove(0);
        (answer.error_code, answer.topics.first().map(|t| t.partitions[0].committed_offset))
    };
    assert_eq!(fetch(Some("a"), 2), (0, Some(5)));
    assert_eq!(fetch(None, -1), (0, Some(5)));
    assert_eq!(fetch(Some("a"), 1), (113, None));

    let describe = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group("new"), group("nobody")]);
    let described = client.call(1, &describe).groups;
    assert_eq!((described[0].group_state.as_str(), described[0].group_epoch), ("Stable", 2));
    let member = &described[0].members[1];
    let names: Vec<_> =
        member.assignment.topic_partitions.iter().map(|t| (t.topic_name.to_string(), &t.partitions)).collect();
    assert_eq!((member.member_id.as_str(), names), ("b", vec![("t".to_owned(), &vec![2, 3])]));
    assert_eq!(described[1].error_code, 69);
    assert_eq!(server.groups().readers(&|_| true), [("t".to_owned(), Readers { groups: 1, members: 2 })].into());
    assert!(server.groups().readers(&|group| group != "new").is_empty(), "a group that does not count");
    let listed = client.call(5, &ListGroupsRequest::default().with_types_filter(vec!["Consumer".into()])).groups;
    assert_eq!((listed[0].group_id.as_str(), listed[0].group_type.as_str(), listed.len()), ("new", "consumer", 1));
    let classic = client.call(6, &DescribeGroupsRequest::default().with_groups(vec![group("new")])).groups;
    assert_eq!((classic[0].error_code, classic[0].group_state.as_str()), (69, "Dead"));

    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("new")]);
    assert_eq!(client.call(2, &delete).results[0].error_code, 68);
    assert_eq!(heartbeat(&mut client, "a", -1, None).member_epoch, -1);
    assert_eq!(heartbeat(&mut client, "b", -1, None).error_code, 0);
    assert_eq!(client.call(2, &delete).results[0].error_code, 0);
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    assert_eq!(server.client().call(4, &ListGroupsRequest::default()).groups.len(), 0);
}

#[test]
fn features_are_told_to_those_who_can_read_of_them() {
    let server = Server::new();
    let ask = |version| {
        let request = ApiVersionsRequest::default()
            .with_client_software_name("test".into())
            .with_client_software_version("1".into());
        let told = server.client().call(version, &request);
        let supported: Vec<String> = told.supported_features.iter().map(|f| f.name.to_string()).collect();
        let finalized: Vec<_> =
            told.finalized_features.iter().map(|f| (f.name.to_string(), f.max_version_level)).collect();
        (supported.contains(&"group.version".to_owned()), finalized.contains(&("group.version".to_owned(), 1)))
    };
    assert_eq!(ask(4), (true, true));
    assert_eq!(ask(3), (false, true), "old clients cannot read of a feature whose lowest level is 0");
    assert_eq!(ask(2), (false, false));
}

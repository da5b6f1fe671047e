//! Groups over the wire: what survives a restart, and groups that belong to queries.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::*;
use millpond_broker::groups::{GroupOffset, QueryGroups};

use super::answers::name;
use super::client::{Client, Server};
use crate::fixture::{Fixture, create};

fn group(id: &str) -> GroupId {
    GroupId(id.to_owned().into())
}

fn commit(client: &mut Client, id: &str, member: &str, generation: i32, offset: i64) -> i16 {
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

fn join(client: &mut Client, member: &str) -> JoinGroupResponse {
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

fn sync(client: &mut Client, member: &str, assignment: &'static str) -> SyncGroupResponse {
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

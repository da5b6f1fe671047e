//! Transactions over the wire: commit, abort, fencing, timeouts, offsets, and what a restart finds.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::answers::{fetch_request, name, produce_request};
use super::client::{Client, Server};
use crate::fixture::{Fixture, START_MS, create, read_all};
use crate::transactions::transactional;

const INVALID_EPOCH: i16 = 47;
const INVALID_STATE: i16 = 48;
const INVALID_MAPPING: i16 = 49;
const INVALID_TIMEOUT: i16 = 50;
const UNSTABLE: i16 = 88;
const FENCED: i16 = 90;
pub const ABORTABLE: i16 = 120;

pub type Producer = (i64, i16);

fn id() -> TransactionalId {
    TransactionalId(StrBytes::from_static_str("x"))
}

pub fn init(client: &mut Client, version: i16, timeout_ms: i32) -> Result<Producer, i16> {
    let request =
        InitProducerIdRequest::default().with_transactional_id(Some(id())).with_transaction_timeout_ms(timeout_ms);
    let response = client.call(version, &request);
    match response.error_code {
        0 => Ok((response.producer_id.0, response.producer_epoch)),
        code => Err(code),
    }
}

pub fn begin(client: &mut Client, version: i16, producer: Producer, topics: &[&str]) -> Vec<i16> {
    let topic = |t: &&str| AddPartitionsToTxnTopic::default().with_name(name(t)).with_partitions(vec![0]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(ProducerId(producer.0))
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(topics.iter().map(topic).collect());
    let topics = client.call(version, &request).results_by_topic_v3_and_below;
    topics.iter().flat_map(|t| &t.results_by_partition).map(|p| p.partition_error_code).collect()
}

pub fn produce(client: &mut Client, topic: &str, producer: Producer, sequence: i32, value: &str) -> i16 {
    produce_in(client, 9, topic, producer, sequence, value)
}

pub fn produce_in(
    client: &mut Client,
    version: i16,
    topic: &str,
    producer: Producer,
    sequence: i32,
    value: &str,
) -> i16 {
    let records = transactional(&[value], producer.0, producer.1, sequence);
    let request = produce_request(topic, -1, records).with_transactional_id(Some(id()));
    client.call(version, &request).responses[0].partition_responses[0].error_code
}

/// Ends the newer way; who the producer is in its next transaction.
fn raise(client: &mut Client, producer: Producer, commit: bool) -> Result<Producer, i16> {
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    let response = client.call(5, &request);
    match response.error_code {
        0 => Ok((response.producer_id.0, response.producer_epoch)),
        code => Err(code),
    }
}

pub fn end(client: &mut Client, version: i16, producer: Producer, commit: bool) -> i16 {
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    client.call(version, &request).error_code
}

fn fetch(client: &mut Client, isolation: i8, from: i64, wait_ms: i32) -> fetch_response::PartitionData {
    let request = fetch_request("t", from, 1, wait_ms).with_isolation_level(isolation);
    client.call(12, &request).responses.remove(0).partitions.remove(0)
}

fn state(client: &mut Client) -> String {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
    client.call(0, &request).transaction_states[0].transaction_state.to_string()
}

#[test]
fn what_is_aborted_is_named_and_what_is_open_is_waited_for() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let producer = init(&mut client, 4, 60_000).unwrap();
    assert_eq!(produce(&mut client, "t", producer, 0, "early"), INVALID_STATE);
    assert_eq!(begin(&mut client, 0, producer, &["t", "missing"]), [55, 3], "all of them or none");
    assert_eq!(begin(&mut client, 3, producer, &["t"]), [0]);
    assert_eq!(produce(&mut client, "t", producer, 0, "a"), 0);
    assert_eq!(state(&mut client), "Ongoing");
    let open = fetch(&mut client, 1, 0, 0);
    assert_eq!((open.last_stable_offset, open.high_watermark, open.records.unwrap().len()), (0, 1, 0));
    assert!(!fetch(&mut client, 0, 0, 0).records.unwrap().is_empty());
    let listed = |client: &mut Client, isolation| {
        let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
        let topic = list_offsets_request::ListOffsetsTopic::default().with_name(name("t"));
        let request = ListOffsetsRequest::default()
            .with_isolation_level(isolation)
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        client.call(2, &request).topics[0].partitions[0].offset
    };
    assert_eq!((listed(&mut client, 0), listed(&mut client, 1)), (1, 0));
    // The marker wakes who waits for committed data.
    let mut waiting = server.client();
    let request = fetch_request("t", 0, 1, 60_000).with_isolation_level(1);
    let correlation = waiting.send(12, &request);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(end(&mut client, 0, producer, false), 0);
    let response = waiting.response::<FetchRequest>(12, correlation);
    let partition = &response.responses[0].partitions[0];
    let aborted = partition.aborted_transactions.as_ref().unwrap();
    assert_eq!((aborted[0].producer_id.0, aborted[0].first_offset, partition.last_stable_offset), (producer.0, 0, 2));
    assert_eq!(fetch(&mut client, 0, 0, 0).aborted_transactions, None);
    assert_eq!((state(&mut client), end(&mut client, 3, producer, true)), ("CompleteAbort".into(), INVALID_STATE));
    assert_eq!(end(&mut client, 3, producer, false), 0, "asked again");
    begin(&mut client, 3, producer, &["t"]);
    assert_eq!(produce(&mut client, "t", producer, 1, "b"), 0);
    assert_eq!(end(&mut client, 1, producer, true), 0);
    assert_eq!(read_all(server.storage(), place, 0), [(2, "b".into())]);
    let listed = client.call(1, &ListTransactionsRequest::default().with_duration_filter(-1)).transaction_states;
    assert_eq!((listed.len(), &*listed[0].transaction_state), (1, "CompleteCommit"));
}

#[test]
fn a_successor_fences_from_any_connection() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let (mut old, mut new) = (server.client(), server.client());
    let first = init(&mut old, 1, 60_000).unwrap();
    begin(&mut old, 0, first, &["t"]);
    assert_eq!(produce(&mut old, "t", first, 0, "zombie"), 0);
    let second = init(&mut new, 4, 60_000).unwrap();
    assert_eq!(second, (first.0, first.1 + 2), "one to fence, one to go on with, as in Kafka");
    assert_eq!(produce(&mut old, "t", first, 1, "late"), INVALID_EPOCH);
    assert_eq!(begin(&mut old, 1, first, &["t"]), [INVALID_EPOCH], "clients from before the code");
    assert_eq!(begin(&mut old, 2, first, &["t"]), [FENCED]);
    assert_eq!((end(&mut old, 1, first, true), end(&mut old, 2, first, true)), (INVALID_EPOCH, FENCED));
    assert_eq!(end(&mut old, 2, (first.0 + 77, 0), true), INVALID_MAPPING);
    let expecting = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(1000)
        .with_producer_id(ProducerId(first.0))
        .with_producer_epoch(first.1);
    assert_eq!((old.call(3, &expecting).error_code, old.call(4, &expecting).error_code), (INVALID_EPOCH, FENCED));
    // Who knows id and epoch may end the transaction from anywhere.
    begin(&mut new, 3, second, &["t"]);
    assert_eq!(produce(&mut new, "t", second, 0, "good"), 0);
    assert_eq!(end(&mut server.client(), 4, second, true), 0);
    assert_eq!(read_all(server.storage(), place, 0), [(2, "good".into())]);
}

#[test]
fn time_ends_what_nobody_ends() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!(init(&mut client, 4, 0), Err(INVALID_TIMEOUT));
    assert_eq!(init(&mut client, 4, 900_001), Err(INVALID_TIMEOUT));
    let producer = init(&mut client, 4, 300).unwrap();
    begin(&mut client, 3, producer, &["t"]);
    assert_eq!(produce(&mut client, "t", producer, 0, "slow"), 0);
    // Waits for the marker alone.
    let fetched = fetch(&mut client, 1, 0, 15_000);
    assert_eq!(fetched.aborted_transactions.unwrap().len(), 1);
    assert_eq!(produce(&mut client, "t", producer, 1, "late"), INVALID_EPOCH);
    assert_eq!(end(&mut client, 3, producer, true), FENCED);
    assert!(read_all(server.storage(), place, 0).is_empty());
    assert_eq!(init(&mut client, 4, 300).unwrap(), (producer.0, 2));
}

#[test]
fn who_timed_out_goes_on_by_the_epoch_it_knows() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let again = |client: &mut Client, producer: Producer| {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1);
        let response = client.call(4, &request);
        (response.error_code, (response.producer_id.0, response.producer_epoch))
    };
    let slow = init(&mut client, 4, 300).unwrap();
    begin(&mut client, 3, slow, &["t"]);
    assert_eq!(produce(&mut client, "t", slow, 0, "slow"), 0);
    assert_eq!(fetch(&mut client, 1, 0, 15_000).aborted_transactions.unwrap().len(), 1);
    assert_eq!(produce(&mut client, "t", slow, 1, "late"), INVALID_EPOCH);
    let next = (slow.0, slow.1 + 1);
    assert_eq!((again(&mut client, slow), again(&mut client, slow)), ((0, next), (0, next)));
    assert_eq!(begin(&mut client, 3, next, &["t"]), [0]);
    assert_eq!(produce(&mut client, "t", next, 0, "good"), 0);
    assert_eq!(again(&mut client, slow).0, FENCED, "its transaction would be aborted");
    assert_eq!(end(&mut client, 3, next, true), 0);
    assert_eq!(read_all(server.storage(), place, 0), [(2, "good".into())]);
    // The newer way, whose end has an epoch to tell that never came.
    assert_eq!(produce_in(&mut client, 12, "t", next, 1, "better"), 0);
    let third = raise(&mut client, next, true).unwrap();
    assert_eq!(again(&mut client, next), (0, third));
    assert_eq!(produce_in(&mut client, 12, "t", third, 0, "best"), 0);
    assert!(raise(&mut client, third, true).is_ok());
    assert_eq!(read_all(server.storage(), place, 3).len(), 2);
}

#[test]
fn batches_of_a_transaction_need_its_id() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let producer = init(&mut client, 4, 60_000).unwrap();
    begin(&mut client, 3, producer, &["t"]);
    for version in [3, 9, 12] {
        let request = produce_request("t", -1, transactional(&["a"], producer.0, producer.1, 0));
        assert_eq!(client.call(version, &request).responses[0].partition_responses[0].error_code, 53);
    }
    assert_eq!(produce(&mut client, "t", producer, 0, "a"), 0);
}

#[test]
fn a_clock_that_is_set_back_keeps_no_transaction_open() {
    let fixture = Fixture::new();
    fixture.clock.set(START_MS + 100_000_000);
    let serve = |fixture: Fixture| {
        let clock = Arc::clone(&fixture.clock);
        Server::with(fixture, |_, hooks| hooks.clock = clock)
    };
    let server = serve(fixture);
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let producer = init(&mut client, 4, 1000).unwrap();
    begin(&mut client, 3, producer, &["t"]);
    assert_eq!(produce(&mut client, "t", producer, 0, "open"), 0);
    let fixture = server.stop().reopen(false);
    fixture.clock.set(START_MS);
    let server = serve(fixture);
    let fetched = fetch(&mut server.client(), 1, 0, 15_000);
    assert_eq!(fetched.aborted_transactions.unwrap().len(), 1);
    assert!(read_all(server.storage(), place, 0).is_empty());
}

pub fn commit_offset(client: &mut Client, version: i16, producer: Producer, generation: i32, offset: i64) -> i16 {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some("a note".into()));
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(GroupId("g".into()))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_generation_id(if version >= 3 { generation } else { -1 })
        .with_topics(vec![
            TxnOffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]),
        ]);
    client.call(version, &request).topics[0].partitions[0].error_code
}

pub fn add_group(client: &mut Client, producer: Producer) -> i16 {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_group_id(GroupId("g".into()));
    client.call(0, &request).error_code
}

fn offset(client: &mut Client, stable: bool) -> (i64, i16) {
    let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_topics(Some(vec![topic]))
        .with_require_stable(stable);
    let partition = client.call(7, &request).topics.remove(0).partitions.remove(0);
    (partition.committed_offset, partition.error_code)
}

/// Of groups "g" and "other", as clients ask that know several in one request; all topics of a group.
fn offsets_of_both(client: &mut Client, version: i16, stable: bool) -> [Vec<(String, i64, i16)>; 2] {
    let group =
        |id: &str| OffsetFetchRequestGroup::default().with_group_id(GroupId(id.to_owned().into())).with_topics(None);
    let request =
        OffsetFetchRequest::default().with_groups(vec![group("g"), group("other")]).with_require_stable(stable);
    let groups = client.call(version, &request).groups;
    assert!(groups.iter().all(|group| group.error_code == 0), "{groups:?}");
    let of = |at: usize| {
        let partitions = groups[at].topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
        partitions.map(|(t, p)| (t.name.to_string(), p.committed_offset, p.error_code)).collect()
    };
    [of(0), of(1)]
}

#[test]
fn only_what_a_transaction_may_yet_change_is_unstable() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    create(server.storage(), "u", &[]);
    let mut client = server.client();
    for (group, topic, offset) in [("g", "t", 3), ("g", "u", 4), ("other", "t", 7)] {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(GroupId(group.into())).with_topics(vec![topic]);
        assert_eq!(client.call(7, &request).topics[0].partitions[0].error_code, 0);
    }
    let row = |topic: &str, offset, code| (topic.to_owned(), offset, code);
    let u = || row("u", 4, 0);
    let other = || vec![row("t", 7, 0)];
    let producer = init(&mut client, 4, 60_000).unwrap();
    for (commit, before, after) in [(false, 3, 3), (true, 3, 5)] {
        assert_eq!(add_group(&mut client, producer), 0);
        for version in [8, 9] {
            assert_eq!(offsets_of_both(&mut client, version, true), [vec![row("t", before, 0), u()], other()]);
        }
        assert_eq!(commit_offset(&mut client, 3, producer, -1, 5), 0);
        for version in [8, 9] {
            assert_eq!(offsets_of_both(&mut client, version, true), [vec![row("t", -1, UNSTABLE), u()], other()]);
            assert_eq!(offsets_of_both(&mut client, version, false), [vec![row("t", before, 0), u()], other()]);
        }
        assert_eq!((offset(&mut client, true), offset(&mut client, false)), ((-1, UNSTABLE), (before, 0)));
        assert_eq!(end(&mut client, 3, producer, commit), 0);
        assert_eq!(offsets_of_both(&mut client, 9, true), [vec![row("t", after, 0), u()], other()]);
    }
}

/// The last commit counts, and not the end of the transaction that it was of.
#[test]
fn an_offset_that_is_committed_after_one_of_an_open_transaction_stays() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    let group = || GroupId("g".into());
    let commit = |client: &mut Client, offset| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![topic]);
        client.call(7, &request).topics[0].partitions[0].error_code
    };
    let all = |client: &mut Client| {
        let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(true);
        let topics = client.call(8, &request).groups.remove(0).topics;
        topics.iter().flat_map(|t| &t.partitions).map(|p| (p.committed_offset, p.error_code)).collect::<Vec<_>>()
    };
    let later = || std::thread::sleep(Duration::from_millis(5));
    let producer = init(&mut client, 4, 60_000).unwrap();
    assert_eq!((add_group(&mut client, producer), commit_offset(&mut client, 3, producer, -1, 5)), (0, 0));
    assert_eq!(all(&mut client), [], "there is none yet");
    later();
    assert_eq!((commit(&mut client, 3), all(&mut client)), (0, vec![(-1, UNSTABLE)]));
    assert_eq!((end(&mut client, 3, producer, true), all(&mut client)), (0, vec![(3, 0)]));
    assert_eq!((add_group(&mut client, producer), commit(&mut client, 4)), (0, 0));
    later();
    assert_eq!((commit_offset(&mut client, 3, producer, -1, 6), end(&mut client, 3, producer, true)), (0, 0));
    assert_eq!(all(&mut client), [(6, 0)]);
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    assert_eq!(all(&mut server.client()), [(6, 0)]);
}

#[test]
fn offsets_come_with_the_commit_and_a_restart_finds_all() {
    let server = Server::new();
    let place = create(server.storage(), "t", &[]);
    let mut client = server.client();
    let producer = init(&mut client, 4, 60_000).unwrap();
    assert_eq!(commit_offset(&mut client, 0, producer, -1, 5), INVALID_STATE, "the group was not added");
    assert_eq!(add_group(&mut client, producer), 0);
    assert_eq!(commit_offset(&mut client, 3, producer, 4, 5), 22, "there is no such generation");
    assert_eq!(commit_offset(&mut client, 3, (producer.0, 9), -1, 5), INVALID_EPOCH);
    assert_eq!(commit_offset(&mut client, 0, producer, -1, 5), 0);
    assert_eq!(offset(&mut client, false), (-1, 0), "not yet");
    assert_eq!(offset(&mut client, true), (-1, UNSTABLE));
    begin(&mut client, 0, producer, &["t"]);
    assert_eq!(produce(&mut client, "t", producer, 0, "a"), 0);

    // A server that starts again goes on where it was.
    let server = Server::with(server.stop().reopen(false), |_, _| {});
    let mut client = server.client();
    assert_eq!((offset(&mut client, false), offset(&mut client, true)), ((-1, 0), (-1, UNSTABLE)));
    assert_eq!(produce(&mut client, "t", producer, 1, "b"), 0);
    assert!(read_all(server.storage(), place, 0).is_empty());
    assert_eq!(end(&mut client, 3, producer, true), 0);
    assert_eq!((offset(&mut client, true), read_all(server.storage(), place, 0).len()), ((5, 0), 2));
    add_group(&mut client, producer);
    assert_eq!(commit_offset(&mut client, 4, producer, -1, 9), 0);
    assert_eq!(end(&mut client, 3, producer, false), 0);

    let server = Server::with(server.stop().reopen(true), |_, _| {});
    let mut client = server.client();
    assert_eq!(offset(&mut client, true), (5, 0), "the aborted one never counted");
    assert_eq!(init(&mut client, 4, 1000).unwrap(), (producer.0, producer.1 + 1));
}

fn delete_offset(client: &mut Client, topic: &str) -> (i16, Vec<i16>) {
    let partition = offset_delete_request::OffsetDeleteRequestPartition::default();
    let topic = offset_delete_request::OffsetDeleteRequestTopic::default().with_name(name(topic));
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_topics(vec![topic.with_partitions(vec![partition])]);
    let response = client.call(0, &request);
    let codes = response.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
    (response.error_code, codes.collect())
}

fn delete_group(client: &mut Client) -> i16 {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId("g".into())]);
    client.call(2, &request).results[0].error_code
}

/// How the group is listed, and how it is described.
fn seen(client: &mut Client) -> (Vec<String>, String) {
    let listed = client.call(4, &ListGroupsRequest::default()).groups;
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId("g".into())]);
    let described = client.call(5, &request).groups.remove(0).group_state.to_string();
    (listed.iter().map(|g| format!("{} {}", &*g.group_id, &*g.group_state)).collect(), described)
}

#[test]
fn what_is_deleted_does_not_come_back_with_a_commit() {
    let mut server = Server::new();
    create(server.storage(), "t", &[]);
    for (whole_group, restarts) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut client = server.client();
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(GroupId("g".into())).with_topics(vec![topic]);
        assert_eq!(client.call(7, &request).topics[0].partitions[0].error_code, 0);
        let producer = init(&mut client, 4, 60_000).unwrap();
        assert_eq!((add_group(&mut client, producer), commit_offset(&mut client, 3, producer, -1, 4)), (0, 0));
        assert_eq!(offset(&mut client, true), (-1, UNSTABLE));
        match whole_group {
            true => assert_eq!(delete_group(&mut client), 0),
            false => assert_eq!(delete_offset(&mut client, "t"), (0, vec![0])),
        }
        assert_eq!((offset(&mut client, true), offset(&mut client, false)), ((-1, 0), (-1, 0)));
        if restarts {
            let written = || whole_group || !server.storage().group_scan(&[1]).unwrap().is_empty();
            crate::actor::wait_until("the group is not written", written);
            server = Server::with(server.stop().reopen(true), |_, _| {});
            client = server.client();
            assert_eq!(offset(&mut client, true), (-1, 0));
        }
        assert_eq!(end(&mut client, 3, producer, true), 0);
        assert_eq!((offset(&mut client, true), offset(&mut client, false)), ((-1, 0), (-1, 0)));
        // Without offsets it is there until it is deleted, or found to have nothing left.
        assert_eq!(delete_group(&mut client), if whole_group { 69 } else { 0 });
    }
    let server = Server::with(server.stop().reopen(true), |_, _| {});
    assert_eq!(offset(&mut server.client(), true), (-1, 0), "not on disk either");
}

#[test]
fn a_group_of_offsets_in_open_transactions_is_there() {
    let server = Server::new();
    create(server.storage(), "t", &[]);
    let mut client = server.client();
    assert_eq!((delete_group(&mut client), delete_offset(&mut client, "t")), (69, (69, vec![])));
    for commit in [true, false] {
        let producer = init(&mut client, 4, 60_000).unwrap();
        assert_eq!((add_group(&mut client, producer), seen(&mut client)), (0, (vec![], "Dead".into())));
        assert_eq!(commit_offset(&mut client, 3, producer, -1, 4), 0);
        assert_eq!(seen(&mut client), (vec!["g Empty".into()], "Empty".into()));
        assert_eq!((delete_group(&mut client), delete_group(&mut client)), (0, 69));
        assert_eq!(
            (commit_offset(&mut client, 3, producer, -1, 5), delete_offset(&mut client, "t")),
            (0, (0, vec![0]))
        );
        assert_eq!(commit_offset(&mut client, 3, producer, -1, 6), 0, "what comes after it counts");
        assert_eq!(end(&mut client, 3, producer, commit), 0);
        let at = if commit { 6 } else { -1 };
        assert_eq!((offset(&mut client, true), seen(&mut client).1), ((at, 0), "Empty".to_owned()));
        assert_eq!((delete_group(&mut client), seen(&mut client).1), (0, "Dead".to_owned()));
    }
}

/// As Kafka's is found in its log: it stays Empty until it is deleted, or found to have nothing left.
#[test]
fn a_group_that_lost_its_offsets_is_there_after_a_start() {
    for (aborts, clean) in [(true, true), (true, false), (false, true), (false, false)] {
        let server = Server::new();
        create(server.storage(), "t", &[]);
        let mut client = server.client();
        let producer = init(&mut client, 4, 60_000).unwrap();
        add_group(&mut client, producer);
        assert_eq!(commit_offset(&mut client, 3, producer, -1, 4), 0);
        assert_eq!(end(&mut client, 3, producer, !aborts), 0);
        if !aborts {
            assert_eq!(offset(&mut client, true), (4, 0));
            assert_eq!(delete_offset(&mut client, "t"), (0, vec![0]));
        }
        assert_eq!(seen(&mut client), (vec!["g Empty".into()], "Empty".into()));
        let group_records = |server: &Server| server.storage().group_scan(&[1]).unwrap().len();
        crate::actor::wait_until("the group is not written", || group_records(&server) == 1);

        let server = Server::with(server.stop().reopen(clean), |_, _| {});
        let mut client = server.client();
        assert_eq!(seen(&mut client), (vec!["g Empty".into()], "Empty".into()), "aborts {aborts}, clean {clean}");
        assert_eq!(offset(&mut client, true), (-1, 0));
        assert_eq!((delete_group(&mut client), delete_group(&mut client)), (0, 69));
        let server = Server::with(server.stop().reopen(clean), |_, _| {});
        assert_eq!((seen(&mut server.client()).1, group_records(&server)), ("Dead".into(), 0));
    }
}

#[test]
fn in_the_newer_way_what_is_written_joins_by_itself() {
    let server = Server::new();
    let (t, u) = (create(server.storage(), "t", &[]), create(server.storage(), "u", &[]));
    let mut client = server.client();
    let features = |client: &mut Client, version| {
        let named = ApiVersionsRequest::default().with_client_software_name("test".into());
        let response = client.call(version, &named.with_client_software_version("1".into()));
        assert!(response.finalized_features_epoch >= 0);
        let level = response.finalized_features.iter().find(|f| &*f.name == "transaction.version");
        let supported = response.supported_features.iter().any(|f| &*f.name == "transaction.version");
        (level.map(|f| f.max_version_level), supported)
    };
    assert_eq!(features(&mut client, 4), (Some(2), true));
    assert_eq!(features(&mut client, 3), (Some(2), false), "older clients cannot read that 0 is supported");
    let first = init(&mut client, 5, 60_000).unwrap();
    assert_eq!(produce_in(&mut client, 11, "t", first, 0, "early"), ABORTABLE);
    assert_eq!(produce_in(&mut client, 12, "t", first, 0, "a"), 0);
    assert_eq!((state(&mut client), produce_in(&mut client, 12, "u", first, 0, "b")), ("Ongoing".into(), 0));
    assert_eq!(commit_offset(&mut client, 4, first, -1, 5), ABORTABLE, "the group is not part of it");
    assert_eq!(commit_offset(&mut client, 5, first, -1, 5), 0);
    assert!(read_all(server.storage(), t, 0).is_empty() && read_all(server.storage(), u, 0).is_empty());
    assert_eq!(offset(&mut client, true), (-1, UNSTABLE));
    let second = raise(&mut client, first, true).unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    assert_eq!((read_all(server.storage(), t, 0).len(), read_all(server.storage(), u, 0).len()), (1, 1));
    assert_eq!(offset(&mut client, true), (5, 0));
    assert_eq!(raise(&mut client, first, true), Ok(second), "asked again");
    assert_eq!(raise(&mut client, first, false), Err(INVALID_STATE));
    // What is late of the first one joins nothing, not even where it never was.
    create(server.storage(), "v", &[]);
    for topic in ["t", "v"] {
        assert_eq!(produce_in(&mut client, 12, topic, first, 1, "late"), INVALID_EPOCH);
    }
    assert_eq!(commit_offset(&mut client, 5, first, -1, 9), INVALID_EPOCH);
    assert_eq!(produce_in(&mut client, 12, "t", (first.0 + 9, 0), 0, "nobody"), INVALID_MAPPING);
    // The next one begins with sequence 0; a batch that was sent twice is there once.
    assert_eq!(produce_in(&mut client, 12, "t", second, 0, "c"), 0);
    assert_eq!(produce_in(&mut client, 12, "t", second, 0, "c"), 0);
    let third = raise(&mut client, second, false).unwrap();
    assert_eq!(raise(&mut client, second, false), Ok(third), "asked again");
    assert_eq!(raise(&mut client, third, true), Err(INVALID_STATE), "nothing has begun");
    let fourth = raise(&mut client, third, false).unwrap();
    assert_eq!(produce_in(&mut client, 12, "t", fourth, 0, "d"), 0);

    // A server that starts again goes on; an older client takes over, and a newer one again.
    let server = Server::with(server.stop().reopen(false), |_, _| {});
    let mut client = server.client();
    assert_eq!(produce_in(&mut client, 12, "t", fourth, 1, "e"), 0);
    let fifth = raise(&mut client, fourth, true).unwrap();
    assert_eq!(raise(&mut client, fourth, true), Ok(fifth));
    let values = |server: &Server| read_all(server.storage(), t, 0).into_iter().map(|(_, v)| v).collect::<Vec<_>>();
    assert_eq!(values(&server), ["a", "d", "e"]);
    let old = init(&mut client, 1, 60_000).unwrap();
    assert_eq!(raise(&mut client, fourth, true), Err(FENCED), "its successor is at work");
    assert_eq!(begin(&mut client, 3, old, &["t"]), [0]);
    assert_eq!((produce(&mut client, "t", old, 0, "f"), end(&mut client, 3, old, true)), (0, 0));
    let new = init(&mut client, 5, 60_000).unwrap();
    assert_eq!(produce_in(&mut client, 12, "t", new, 0, "g"), 0);
    assert!(raise(&mut client, new, true).is_ok());
    assert_eq!(values(&server), ["a", "d", "e", "f", "g"]);
}

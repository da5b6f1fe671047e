//! What real clients sent, byte by byte: it is read, written again as it was, and answered.
//!
//! The files are made by `CAPTURE=broker/tests/data/captured scripts/clients.sh`: frames one after another, one of each API
//! and version that the client of that name sends.

use std::fmt::Debug;
use std::fs;
use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

use super::client::{Server, read};

/// Frames without their lengths.
fn frames(mut file: Bytes) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while file.has_remaining() {
        let length = file.get_i32() as usize;
        frames.push(file.split_to(length));
    }
    frames
}

/// Sends a frame as it came; `None` for what wants no answer.
fn answer(server: &Server, frame: &Bytes, silent: bool) -> Option<Bytes> {
    let mut client = server.client();
    client.stream.write_all(&(frame.len() as i32).to_be_bytes()).unwrap();
    client.stream.write_all(frame).unwrap();
    (!silent).then(|| client.receive().expect("an answer"))
}

/// Reads a frame, writes it again, sends it, and reads the answer to its last byte.
fn check<R: Request + HeaderVersion + Debug>(server: &Server, frame: &Bytes, version: i16) {
    let mut rest = frame.clone();
    let header_version = <R as HeaderVersion>::header_version(version);
    let header = RequestHeader::decode(&mut rest, header_version).unwrap();
    if R::KEY == 18 && !(0..=4).contains(&version) {
        // Clients that are newer than the server ask in their version first, and learn of the server's.
        let response = read::<ApiVersionsRequest>(answer(server, frame, false).unwrap(), 0, header.correlation_id);
        assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
        return;
    }
    let request = R::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    let mut again = BytesMut::new();
    header.encode(&mut again, header_version).unwrap();
    request.encode(&mut again, version).unwrap();
    assert_eq!(again, frame, "{header:?} {request:?}");
    // A producer that wants no acknowledgement gets no answer.
    let silent = R::KEY == 0 && format!("{request:?}").contains("acks: 0,");
    if let Some(response) = answer(server, frame, silent) {
        read::<R>(response, version, header.correlation_id);
    }
}

#[test]
fn what_clients_sent_is_read_written_and_answered() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/captured");
    let (mut clients, mut requests) = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let server = Server::new();
        for frame in frames(fs::read(&path).unwrap().into()) {
            let mut start = frame.clone();
            let (key, version) = (start.get_i16(), start.get_i16());
            println!("{} api {key} v{version}, {} bytes", path.display(), frame.len());
            macro_rules! by_key {
                ($($request:ident),* $(,)?) => {
                    match key {
                        $(<$request as Request>::KEY => check::<$request>(&server, &frame, version),)*
                        _ => panic!("an api that the test does not know"),
                    }
                };
            }
            by_key! {
                ProduceRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
                FindCoordinatorRequest, JoinGroupRequest, HeartbeatRequest, LeaveGroupRequest, SyncGroupRequest,
                DescribeGroupsRequest, ListGroupsRequest, SaslHandshakeRequest, ApiVersionsRequest, CreateTopicsRequest,
                DeleteTopicsRequest, DeleteRecordsRequest, InitProducerIdRequest, OffsetForLeaderEpochRequest,
                AddPartitionsToTxnRequest, AddOffsetsToTxnRequest, EndTxnRequest, WriteTxnMarkersRequest,
                TxnOffsetCommitRequest, DescribeAclsRequest, CreateAclsRequest, DeleteAclsRequest, DescribeConfigsRequest,
                AlterConfigsRequest, DescribeLogDirsRequest, SaslAuthenticateRequest, CreatePartitionsRequest,
                DeleteGroupsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
                AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest, OffsetDeleteRequest,
                DescribeClientQuotasRequest, AlterClientQuotasRequest, DescribeUserScramCredentialsRequest,
                AlterUserScramCredentialsRequest, DescribeClusterRequest, DescribeProducersRequest,
                DescribeTransactionsRequest, ListTransactionsRequest, ConsumerGroupHeartbeatRequest,
                ConsumerGroupDescribeRequest, DescribeTopicPartitionsRequest,
            }
            requests += 1;
        }
        let snapshot = server.metrics.snapshot();
        assert_eq!((snapshot.malformed_total, snapshot.panics_total), (0, 0), "{}", path.display());
        server.stop();
        clients += 1;
    }
    assert!(clients >= 13 && requests >= 300, "{clients} clients, {requests} requests");
}

//! What real clients sent, byte by byte: it is read, written again as it was, and answered. Of every API that is
//! advertised there is a request of some client.
//!
//! The files are made by `CAPTURE=broker/tests/data/captured scripts/clients.sh`: frames one after another, one of each API
//! and version that the client of that name sends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::client::{Server, read};

/// Whose requests there are.
const CLIENTS: [&str; 24] = [
    "acls-admin",
    "acls-users",
    "aiokafka",
    "churn",
    "churn-consumer",
    "churn-cooperative",
    "confluent",
    "connect",
    "flink",
    "franz-go",
    "java-3.7",
    "java-4.1",
    "kafka-go",
    "kafka-python",
    "kafkajs",
    "kcat",
    "mirror",
    "platformatic",
    "sarama",
    "sasl-java-4.1",
    "sasl-kafka-python",
    "sasl-kafkajs",
    "sasl-librdkafka",
    "streams",
];
/// Those that log in.
const LOGINS: [&str; 5] = ["acls-users", "sasl-java-4.1", "sasl-kafka-python", "sasl-kafkajs", "sasl-librdkafka"];
/// How many APIs those send, at least, whose administration is tried as far as they have one.
const REACH: [(&str, usize); 4] = [("confluent", 31), ("kafka-python", 41), ("kafkajs", 31), ("kcat", 14)];

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
fn check(server: &Server, frame: &Bytes, key: ApiKey, version: i16) {
    let mut rest = frame.clone();
    let header_version = key.request_header_version(version);
    let header = RequestHeader::decode(&mut rest, header_version).unwrap();
    if key == ApiKey::ApiVersions && !(0..=4).contains(&version) {
        // Clients that are newer than the server ask in their version first, and learn of the server's.
        let response = read::<ApiVersionsRequest>(answer(server, frame, false).unwrap(), 0, header.correlation_id);
        assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
        return;
    }
    let request = RequestKind::decode(key, &mut rest, version).unwrap();
    // librdkafka ends this one with tagged fields twice.
    let spare: &[u8] = if key == ApiKey::AlterUserScramCredentials && !rest.is_empty() { &[0] } else { &[] };
    assert_eq!(rest, spare, "bytes too many");
    let mut again = BytesMut::new();
    header.encode(&mut again, header_version).unwrap();
    request.encode(&mut again, version).unwrap();
    again.extend_from_slice(spare);
    assert_eq!(again, frame, "{header:?} {request:?}");
    // A producer that wants no acknowledgement gets no answer.
    let silent = matches!(&request, RequestKind::Produce(produce) if produce.acks == 0);
    if let Some(mut response) = answer(server, frame, silent) {
        let head = ResponseHeader::decode(&mut response, key.response_header_version(version)).unwrap();
        assert_eq!(head.correlation_id, header.correlation_id);
        ResponseKind::decode(key, &mut response, version).unwrap();
        assert!(response.is_empty(), "{} bytes of the answer too many", response.len());
    }
}

#[test]
fn what_clients_sent_is_read_written_and_answered() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/captured");
    let mut seen: BTreeMap<i16, BTreeSet<i16>> = BTreeMap::new();
    let mut requests = 0;
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = files.filter_map(|name| name.strip_suffix(".bin").map(str::to_owned)).collect();
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), CLIENTS);
    for name in CLIENTS {
        let server = Server::new();
        let mut own = BTreeSet::new();
        for frame in frames(fs::read(format!("{folder}/{name}.bin")).unwrap().into()) {
            let mut start = frame.clone();
            let (key, version) = (start.get_i16(), start.get_i16());
            println!("{name} api {key} v{version}, {} bytes", frame.len());
            check(&server, &frame, ApiKey::try_from(key).unwrap(), version);
            seen.entry(key).or_default().insert(version);
            own.insert(key);
            requests += 1;
        }
        if LOGINS.contains(&name) {
            let login = [ApiKey::SaslHandshake, ApiKey::SaslAuthenticate].map(|key| key as i16);
            assert!(login.iter().all(|key| own.contains(key)), "{name}: {own:?}");
        }
        if let Some((_, least)) = REACH.iter().find(|(client, _)| *client == name) {
            assert!(own.len() >= *least, "{name}: {own:?}");
        }
        let snapshot = server.metrics.snapshot();
        assert_eq!((snapshot.malformed_total, snapshot.panics_total), (0, 0), "{name}");
        server.stop();
    }
    assert!(requests >= 300, "{requests} requests");
    let server = Server::new();
    let advertised = super::answers::ranges(&server);
    let missing: Vec<i16> = advertised.iter().map(|(key, ..)| *key).filter(|key| !seen.contains_key(key)).collect();
    assert!(missing.is_empty(), "no client's request is kept of {missing:?}");
    server.stop();
}

//! A small blocking Kafka client over the wire: produces with sequence numbers, so that a repeated request is no second
//! record, and reads partitions from offset to end. One connection; nothing is retried here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, CreateTopicsRequest, CreateTopicsResponse, EndTxnRequest,
    EndTxnResponse, FetchRequest, FetchResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest,
    ProduceResponse, RequestHeader, ResponseHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// The broker has this batch already: an earlier request of the same sequence number arrived.
const DUPLICATE_SEQUENCE: i16 = 46;

const PRODUCE: (i16, i16) = (0, 9);
const FETCH: (i16, i16) = (1, 11);
const LIST_OFFSETS: (i16, i16) = (2, 5);
const CREATE_TOPICS: (i16, i16) = (19, 5);
const INIT_PRODUCER_ID: (i16, i16) = (22, 2);
const ADD_PARTITIONS_TO_TXN: (i16, i16) = (24, 1);
const END_TXN: (i16, i16) = (26, 1);
const INCREMENTAL_ALTER_CONFIGS: (i16, i16) = (44, 1);

pub struct Client {
    stream: TcpStream,
    correlation: i32,
    /// Reads committed records only.
    pub committed: bool,
}

/// A record on its way in.
#[derive(Clone, Debug)]
pub struct Sent {
    pub key: Option<String>,
    pub value: String,
    pub timestamp: i64,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read1 {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
}

/// Who produces: id, epoch, and per partition the sequence number of the next record.
#[derive(Clone, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub next: Vec<i32>,
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_string())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, correlation: 0, committed: false })
    }

    pub fn connect_committed(address: SocketAddr) -> Result<Self> {
        Ok(Self { committed: true, ..Self::connect(address)? })
    }

    /// Sends a request without waiting for its answer.
    pub fn send<Q: Encodable + HeaderVersion>(&mut self, (key, version): (i16, i16), request: &Q) -> Result<()> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("millpond-tests")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, Q::header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        Ok(())
    }

    /// The next answer, of the oldest request that has none yet.
    pub fn receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> Result<A> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        ResponseHeader::decode(&mut frame, A::header_version(version))?;
        A::decode(&mut frame, version)
    }

    pub fn init_producer(&mut self, partitions: usize) -> Result<Producer> {
        self.init(None, partitions)
    }

    fn init(&mut self, id: Option<TransactionalId>, partitions: usize) -> Result<Producer> {
        let request = InitProducerIdRequest::default().with_transactional_id(id).with_transaction_timeout_ms(60_000);
        self.send(INIT_PRODUCER_ID, &request)?;
        let answer: InitProducerIdResponse = self.receive(INIT_PRODUCER_ID.1)?;
        ensure!(answer.error_code == 0, "init_producer_id: error {}", answer.error_code);
        Ok(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch, next: vec![0; partitions] })
    }

    /// Sends batches, one per partition, in one request with acks=all; all are acknowledged then, now or by an earlier
    /// attempt. The offset of each batch's first record, where it is told. The caller moves `producer.next` on.
    pub fn produce(
        &mut self,
        topic: &str,
        producer: &Producer,
        batches: &[(usize, Vec<Sent>)],
    ) -> Result<BTreeMap<usize, i64>> {
        let batches = batches
            .iter()
            .map(|(partition, records)| Ok((*partition, encode(records, Some((producer, producer.next[*partition])))?)))
            .collect::<Result<Vec<_>>>()?;
        self.send_batches(topic, &batches)?;
        self.acknowledged()
    }

    pub fn send_batches(&mut self, topic: &str, batches: &[(usize, Bytes)]) -> Result<()> {
        self.send_batches_of(None, topic, batches)
    }

    fn send_batches_of(&mut self, id: Option<TransactionalId>, topic: &str, batches: &[(usize, Bytes)]) -> Result<()> {
        let partitions = batches
            .iter()
            .map(|(partition, bytes)| {
                PartitionProduceData::default().with_index(*partition as i32).with_records(Some(bytes.clone()))
            })
            .collect();
        let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(partitions);
        let request = ProduceRequest::default().with_transactional_id(id).with_acks(-1).with_timeout_ms(30_000);
        self.send(PRODUCE, &request.with_topic_data(vec![topic]))
    }

    /// Begins under a transactional id; what was open under it is aborted.
    pub fn init_transactional(&mut self, id: &str, partitions: usize) -> Result<Producer> {
        self.init(Some(transactional_id(id)), partitions)
    }

    pub fn add_to_transaction(&mut self, id: &str, who: &Producer, topic: &str, partitions: &[usize]) -> Result<()> {
        let partitions = partitions.iter().map(|p| *p as i32).collect();
        let added = AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(partitions);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(id))
            .with_v3_and_below_producer_id(who.id.into())
            .with_v3_and_below_producer_epoch(who.epoch)
            .with_v3_and_below_topics(vec![added]);
        self.send(ADD_PARTITIONS_TO_TXN, &request)?;
        let answer: AddPartitionsToTxnResponse = self.receive(ADD_PARTITIONS_TO_TXN.1)?;
        let added = answer.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
        let code = added.map(|p| p.partition_error_code).find(|code| *code != 0);
        ensure!(code.is_none(), "add_partitions_to_txn: error {code:?}");
        Ok(())
    }

    /// As [`Client::produce`], in a transaction that has these partitions.
    pub fn produce_in_transaction(
        &mut self,
        id: &str,
        topic: &str,
        who: &Producer,
        batches: &[(usize, Vec<Sent>)],
    ) -> Result<BTreeMap<usize, i64>> {
        let batches = batches
            .iter()
            .map(|(partition, records)| Ok((*partition, encode_as(records, Some((who, who.next[*partition])), true)?)))
            .collect::<Result<Vec<_>>>()?;
        self.send_batches_of(Some(transactional_id(id)), topic, &batches)?;
        self.acknowledged()
    }

    pub fn end_transaction(&mut self, id: &str, who: &Producer, commit: bool) -> Result<()> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(who.id.into())
            .with_producer_epoch(who.epoch)
            .with_committed(commit);
        self.send(END_TXN, &request)?;
        let ended: EndTxnResponse = self.receive(END_TXN.1)?;
        ensure!(ended.error_code == 0, "end_txn: error {}", ended.error_code);
        Ok(())
    }

    /// Takes the answer to a produce request, with each partition's base offset; an error where it says anything but yes.
    /// A batch that came before, and longer ago than the broker knows where to, has none.
    pub fn acknowledged(&mut self) -> Result<BTreeMap<usize, i64>> {
        let answer: ProduceResponse = self.receive(PRODUCE.1)?;
        let mut offsets = BTreeMap::new();
        for partition in answer.responses.iter().flat_map(|t| &t.partition_responses) {
            let code = partition.error_code;
            if code != 0 && code != DUPLICATE_SEQUENCE {
                bail!("produce to partition {}: error {code}: {:?}", partition.index, partition.error_message);
            }
            if partition.base_offset >= 0 {
                offsets.insert(usize::try_from(partition.index)?, partition.base_offset);
            }
        }
        Ok(offsets)
    }

    /// Creates a topic with settings.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, u64)]) -> Result<()> {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(&value.to_string())))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        self.send(CREATE_TOPICS, &CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]))?;
        let answer: CreateTopicsResponse = self.receive(CREATE_TOPICS.1)?;
        let created = answer.topics.first().context("an empty answer")?;
        ensure!(created.error_code == 0, "create_topics: error {}: {:?}", created.error_code, created.error_message);
        Ok(())
    }

    /// Sets settings of a topic.
    pub fn alter_topic(&mut self, name: &str, configs: &[(&str, &str)]) -> Result<()> {
        let configs = configs
            .iter()
            .map(|(key, value)| AlterableConfig::default().with_name(text(key)).with_value(Some(text(value))));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.send(INCREMENTAL_ALTER_CONFIGS, &request)?;
        let answer: IncrementalAlterConfigsResponse = self.receive(INCREMENTAL_ALTER_CONFIGS.1)?;
        let altered = answer.responses.first().context("an empty answer")?;
        ensure!(altered.error_code == 0, "alter_configs: error {}: {:?}", altered.error_code, altered.error_message);
        Ok(())
    }

    pub fn end_offset(&mut self, topic: &str, partition: usize) -> Result<i64> {
        let partition = ListOffsetsPartition::default().with_partition_index(partition as i32).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        self.send(LIST_OFFSETS, &request.with_isolation_level(i8::from(self.committed)))?;
        let answer: ListOffsetsResponse = self.receive(LIST_OFFSETS.1)?;
        let found = answer.topics.first().and_then(|t| t.partitions.first()).context("an empty answer")?;
        ensure!(found.error_code == 0, "list_offsets: error {}", found.error_code);
        Ok(found.offset)
    }

    /// The bytes from an offset on: whole batches, as many as the broker gives.
    pub fn fetch(&mut self, topic: &str, partition: usize, offset: i64, bytes_max: i32) -> Result<Bytes> {
        Ok(self.fetched(topic, partition, offset, bytes_max)?.records.unwrap_or_default())
    }

    fn fetched(&mut self, topic: &str, partition: usize, offset: i64, bytes_max: i32) -> Result<PartitionData> {
        let partition = FetchPartition::default()
            .with_partition(partition as i32)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes_max);
        let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(bytes_max)
            .with_session_epoch(-1)
            .with_isolation_level(i8::from(self.committed))
            .with_topics(vec![topic]);
        self.send(FETCH, &request)?;
        let answer: FetchResponse = self.receive(FETCH.1)?;
        ensure!(answer.error_code == 0, "fetch: error {}", answer.error_code);
        let mut partitions = answer.responses.into_iter().flat_map(|t| t.partitions);
        let found = partitions.next().context("an empty answer")?;
        ensure!(found.error_code == 0, "fetch: error {}", found.error_code);
        Ok(found)
    }

    /// Records from an offset on as consumers give them, without markers, and, where only committed ones are read, without
    /// those of aborted transactions; and the offset to go on with.
    pub fn consume(&mut self, topic: &str, partition: usize, from: i64, bytes_max: i32) -> Result<(Vec<Read1>, i64)> {
        let found = self.fetched(topic, partition, from, bytes_max)?;
        let mut aborted = found.aborted_transactions.unwrap_or_default();
        aborted.sort_by_key(|begun| begun.first_offset);
        let (mut aborted, mut skipped) = (aborted.into_iter().peekable(), BTreeSet::new());
        let (mut bytes, mut records, mut next) = (found.records.unwrap_or_default(), Vec::new(), from);
        while !bytes.is_empty() {
            for record in RecordBatchDecoder::decode(&mut bytes)?.records {
                while let Some(begun) = aborted.next_if(|begun| begun.first_offset <= record.offset) {
                    skipped.insert(begun.producer_id.0);
                }
                let Record { offset, timestamp, key, value, control, transactional, producer_id, .. } = record;
                if control {
                    // Version and type, of two bytes each. What an abort ends is not skipped any more.
                    if key.is_some_and(|key| key.get(2..4) == Some(&[0, 0][..])) {
                        skipped.remove(&producer_id);
                    }
                } else if offset >= next && !(transactional && skipped.contains(&producer_id)) {
                    records.push(Read1 { offset, timestamp, key, value });
                }
                next = next.max(offset + 1);
            }
        }
        Ok((records, next))
    }

    /// All records of a partition up to its end of now.
    pub fn read_all(&mut self, topic: &str, partition: usize) -> Result<Vec<Read1>> {
        let end = self.end_offset(topic, partition)?;
        let (mut records, mut next) = (Vec::new(), 0);
        while next < end {
            let (more, after) = self.consume(topic, partition, next, 4 << 20)?;
            ensure!(after > next, "no progress at offset {next} of {end}");
            records.extend(more);
            next = after;
        }
        Ok(records)
    }
}

/// A record batch, with a producer and the sequence number of its first record.
pub fn encode(records: &[Sent], producer: Option<(&Producer, i32)>) -> Result<Bytes> {
    encode_as(records, producer, false)
}

fn encode_as(records: &[Sent], producer: Option<(&Producer, i32)>, transactional: bool) -> Result<Bytes> {
    let (id, epoch, first) = producer.map_or((-1, -1, -1), |(p, first)| (p.id, p.epoch, first));
    let records: Vec<Record> = (0..)
        .zip(records)
        .map(|(i, sent)| Record {
            transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: id,
            producer_epoch: epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(i),
            // Without a producer counted on from -1 all the same: the encoder would begin a new batch where it jumps.
            sequence: first + i,
            timestamp: sent.timestamp,
            key: sent.key.clone().map(Bytes::from),
            value: Some(Bytes::from(sent.value.clone())),
            headers: Default::default(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &records, &options)?;
    Ok(bytes.freeze())
}

/// Ends a client's transaction one way or the other, with one record in it.
pub fn transaction(address: SocketAddr, topic: &str, value: &str, commit: bool) {
    let mut client = Client::connect(address).unwrap();
    let id = format!("id of {value}");
    let who = client.init_transactional(&id, 1).unwrap();
    client.add_to_transaction(&id, &who, topic, &[0]).unwrap();
    let sent = Sent { key: None, value: value.to_string(), timestamp: 1000 };
    client.produce_in_transaction(&id, topic, &who, &[(0, vec![sent])]).unwrap();
    client.end_transaction(&id, &who, commit).unwrap();
}

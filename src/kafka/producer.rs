//! Sends records: in batches by partition, one request per broker under way, in order, each batch once.
//!
//! While a request is under way the next batches grow, so that they are as large as the broker is slow. A batch that
//! failed in a way that passes is sent again before anything after it; with a producer id the broker knows it again.
//! Invariant: at most `QUEUE_BYTES_MAX` bytes of records wait here.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{DescribeConfigsRequest, InitProducerIdRequest, ProduceRequest, ProduceResponse};
use millpond_broker::batch::{Codec, EncodeOptions, encode, stamp_producer};
use millpond_types::record::RecordBuffer;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::client::{Client, Lane, To};
use super::error::Error;
use super::partitioner::partition_of;
use super::{text, topic_name};

/// Records that wait to be sent.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// A batch before compression, unless the topic takes less.
const BATCH_BYTES: usize = 512 << 10;
/// Records of one request.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// What a record takes beside its key, value and headers, at most.
const RECORD_OVERHEAD: usize = 40;
const BATCH_OVERHEAD: usize = 61;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const TOPIC_RESOURCE: i8 = 2;

/// Tries that fail one after another before the user is told; one alone is a change of leader.
const FAILED_TRIES_TOLD: u32 = 3;

pub struct Plan {
    pub topic: String,
    pub acks: i16,
    pub idempotent: bool,
    pub codec: Codec,
    /// How long records wait for more of them.
    pub linger: Duration,
    /// How long one batch is tried.
    pub delivery: Duration,
    /// Where records go that do not say it; by key, else by turns, where absent.
    pub partition: Option<i32>,
    pub now_ms: fn() -> i64,
    /// Takes what somebody who waits should know.
    pub tell: fn(&str),
}

/// Where a record stood in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub source: u32,
    pub number: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Item {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// In wire form; empty: none.
    pub headers: Vec<u8>,
    pub timestamp: Option<i64>,
    pub partition: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub records: u64,
    pub bytes: u64,
    pub batches: u64,
    pub retries: u64,
}

/// Why it ended before its time, and about which lines.
#[derive(Debug)]
pub struct Failure {
    pub lines: Option<(Line, Line)>,
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { lines: None, why: error.to_string() }
    }
}

struct Batch {
    records: RecordBuffer,
    lines: Vec<Line>,
    bytes: usize,
    due: Instant,
}

struct Sealed {
    partition: i32,
    bytes: Bytes,
    lines: Vec<Line>,
    payload: usize,
    until: Instant,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Batch>,
    again: Option<Sealed>,
    under_way: bool,
    next_sequence: i32,
}

struct Landed {
    broker: i32,
    batches: Vec<Sealed>,
    answer: Result<Option<ProduceResponse>, Error>,
}

pub struct Producer {
    client: Arc<Client>,
    plan: Plan,
    queues: BTreeMap<i32, Queue>,
    /// Id and epoch, where each batch shall be recognised.
    identity: Option<(i64, i16)>,
    batch_bytes: usize,
    queued: usize,
    /// Where the next record without a key goes.
    turn: i32,
    /// Tries that failed since the last that did not.
    failed_tries: u32,
    pub counts: Counts,
}

impl Producer {
    /// Finds the topic, which is created where the broker does so, and asks for a producer id.
    pub async fn new(client: Arc<Client>, plan: Plan) -> Result<Self, Failure> {
        let topic = client.topic(&plan.topic, true).await?;
        let identity = if plan.idempotent { Some(identity(&client).await?) } else { None };
        let batch_bytes = batch_bytes(&client, &plan.topic).await.min(BATCH_BYTES);
        let queues: BTreeMap<i32, Queue> = topic.partitions.keys().map(|p| (*p, Queue::default())).collect();
        let turn = (plan.now_ms)().unsigned_abs() as i32 & 0xffff;
        let counts = Counts::default();
        let producer = Self { client, plan, queues, identity, batch_bytes, queued: 0, turn, failed_tries: 0, counts };
        if let Some(partition) = producer.plan.partition {
            producer.check(partition)?;
        }
        Ok(producer)
    }

    fn check(&self, partition: i32) -> Result<(), Failure> {
        if self.queues.contains_key(&partition) {
            return Ok(());
        }
        let (topic, count) = (&self.plan.topic, self.queues.len());
        let last = self.queues.keys().next_back().copied().unwrap_or(0);
        let why = format!("topic \"{topic}\" has no partition {partition}; it has {count}, 0 to {last}");
        Err(Failure { lines: None, why })
    }

    /// Sends what comes until the input ends, everything is acknowledged, or something fails.
    /// `progress` is called after each answer.
    pub async fn run(
        &mut self,
        mut input: Receiver<Vec<(Item, Line)>>,
        mut progress: impl FnMut(&Counts),
    ) -> Result<(), Failure> {
        let mut flights = FuturesUnordered::new();
        let mut busy = HashSet::new();
        let mut open = true;
        let mut stale = false;
        loop {
            if stale {
                tokio::time::sleep(RETRY_PAUSE).await;
                let topic = self.plan.topic.clone();
                // Where this fails, sending fails as well, and that has a limit in time.
                let _ = self.client.refresh(Some(&[&topic])).await;
                stale = false;
                self.check_time()?;
            }
            while let Some((broker, batches)) = self.load(&busy, !open) {
                busy.insert(broker);
                let request = self.request(&batches);
                let (client, acks) = (self.client.clone(), self.plan.acks);
                flights.push(async move {
                    let answer = match acks {
                        0 => client.tell(broker, &request).await.map(|()| None),
                        _ => {
                            let wait = Duration::ZERO;
                            client.call_once(&To::Broker(broker), Lane::Main, &request, wait).await.map(Some)
                        }
                    };
                    Landed { broker, batches, answer }
                });
            }
            let due = self.next_due(&busy);
            if !open && flights.is_empty() && self.queues.values().all(|q| q.waiting.is_empty() && q.again.is_none()) {
                return Ok(());
            }
            let has_flights = !flights.is_empty();
            tokio::select! {
                Some(landed) = flights.next(), if has_flights => {
                    let landed: Landed = landed;
                    busy.remove(&landed.broker);
                    stale |= self.land(landed)?;
                    progress(&self.counts);
                }
                chunk = input.recv(), if open && self.queued < QUEUE_BYTES_MAX => match chunk {
                    None => open = false,
                    Some(items) => for (item, line) in items {
                        self.push(item, line)?;
                    },
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    stale |= self.leaderless();
                }
                // Something is to be sent again, and nobody leads its partition.
                else => stale = true,
            }
        }
    }

    /// When a batch has waited long enough that could then be sent.
    fn next_due(&self, busy: &HashSet<i32>) -> Option<Instant> {
        let later = Instant::now() + RETRY_PAUSE;
        let idle = self.queues.iter().filter(|(_, queue)| !queue.under_way);
        let due = idle.filter_map(|(partition, queue)| {
            let due = queue.waiting.front()?.due;
            match self.client.leader(&self.plan.topic, *partition) {
                Some(leader) if busy.contains(&leader) => None,
                Some(_) => Some(due),
                None => Some(due.max(later)),
            }
        });
        due.min()
    }

    fn leaderless(&self) -> bool {
        self.queues.iter().any(|(p, q)| !q.waiting.is_empty() && self.client.leader(&self.plan.topic, *p).is_none())
    }

    /// What nobody leads for too long fails.
    fn check_time(&self) -> Result<(), Failure> {
        let now = Instant::now();
        for (partition, queue) in &self.queues {
            let waiting = queue.waiting.front().map(|b| (b.due + self.plan.delivery, &b.lines));
            let again = queue.again.as_ref().map(|s| (s.until, &s.lines));
            if let Some((until, lines)) = again.or(waiting)
                && until < now
                && self.client.leader(&self.plan.topic, *partition).is_none()
            {
                let lines = lines.first().zip(lines.last()).map(|(a, b)| (*a, *b));
                let topic = &self.plan.topic;
                let why = format!("nobody leads partition {partition} of topic \"{topic}\"; see --delivery-timeout");
                return Err(Failure { lines, why });
            }
        }
        Ok(())
    }

    fn push(&mut self, item: Item, line: Line) -> Result<(), Failure> {
        let size = item.key.as_ref().map_or(0, Vec::len)
            + item.value.as_ref().map_or(0, Vec::len)
            + item.headers.len()
            + RECORD_OVERHEAD;
        let count = i32::try_from(self.queues.len()).unwrap_or(i32::MAX).max(1);
        let limit = self.batch_bytes.saturating_sub(BATCH_OVERHEAD);
        let fits = |queue: &Queue| queue.waiting.back().is_some_and(|b| b.bytes + size <= limit);
        let partition = match (item.partition.or(self.plan.partition), &item.key) {
            (Some(partition), _) => {
                self.check(partition).map_err(|f| Failure { lines: Some((line, line)), ..f })?;
                partition
            }
            (None, Some(key)) => partition_of(key, count),
            (None, None) => {
                // Records without a key fill one batch after the other, each in another partition.
                if !self.queues.get(&self.turn.rem_euclid(count)).is_some_and(&fits) {
                    self.turn = self.turn.wrapping_add(1);
                }
                self.turn.rem_euclid(count)
            }
        };
        let due = Instant::now() + self.plan.linger;
        let Some(queue) = self.queues.get_mut(&partition) else {
            return Err(Failure { lines: Some((line, line)), why: format!("there is no partition {partition}") });
        };
        if !fits(queue) {
            queue.waiting.push_back(Batch { records: RecordBuffer::default(), lines: Vec::new(), bytes: 0, due });
        }
        let Some(batch) = queue.waiting.back_mut() else { return Ok(()) };
        let timestamp = item.timestamp.unwrap_or_else(self.plan.now_ms);
        batch.records.push(item.key.as_deref(), item.value.as_deref(), timestamp, &item.headers);
        batch.lines.push(line);
        batch.bytes += size;
        self.queued += size;
        Ok(())
    }

    /// What can be sent now to a broker that has nothing to do.
    fn load(&mut self, busy: &HashSet<i32>, all: bool) -> Option<(i32, Vec<Sealed>)> {
        let now = Instant::now();
        let limit = self.batch_bytes.saturating_sub(BATCH_OVERHEAD);
        let mut chosen = None;
        let mut taken = Vec::new();
        let mut bytes = 0;
        for (partition, queue) in &mut self.queues {
            if queue.under_way || bytes >= REQUEST_BYTES_MAX {
                continue;
            }
            let ready = queue.again.is_some()
                || queue.waiting.len() > 1
                || queue.waiting.front().is_some_and(|b| all || b.due <= now || b.bytes >= limit);
            if !ready {
                continue;
            }
            let Some(leader) = self.client.leader(&self.plan.topic, *partition) else { continue };
            if busy.contains(&leader) || chosen.is_some_and(|c| c != leader) {
                continue;
            }
            let sealed = match queue.again.take() {
                Some(again) => again,
                None => {
                    let Some(batch) = queue.waiting.pop_front() else { continue };
                    seal(
                        batch,
                        *partition,
                        self.plan.codec,
                        self.identity,
                        &mut queue.next_sequence,
                        now + self.plan.delivery,
                    )
                }
            };
            bytes += sealed.bytes.len();
            queue.under_way = true;
            chosen = Some(leader);
            taken.push(sealed);
        }
        chosen.map(|broker| (broker, taken))
    }

    fn request(&self, batches: &[Sealed]) -> ProduceRequest {
        let partitions = batches
            .iter()
            .map(|b| PartitionProduceData::default().with_index(b.partition).with_records(Some(b.bytes.clone())));
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.plan.topic))
            .with_partition_data(partitions.collect());
        let timeout = i32::try_from(self.client.timeout().as_millis()).unwrap_or(i32::MAX);
        ProduceRequest::default().with_acks(self.plan.acks).with_timeout_ms(timeout).with_topic_data(vec![topic])
    }

    /// Takes what became of a request. True: who leads what may have changed.
    fn land(&mut self, landed: Landed) -> Result<bool, Failure> {
        let mut stale = false;
        let mut failed: Option<Failure> = None;
        for sealed in landed.batches {
            let outcome = match &landed.answer {
                Err(error) => Err(error.clone()),
                Ok(None) => Ok(()),
                Ok(Some(answer)) => self.judge(answer, &sealed),
            };
            let Some(queue) = self.queues.get_mut(&sealed.partition) else { continue };
            queue.under_way = false;
            match outcome {
                Ok(()) => {
                    self.failed_tries = 0;
                    self.counts.records += sealed.lines.len() as u64;
                    self.counts.bytes += (sealed.payload - sealed.lines.len() * RECORD_OVERHEAD) as u64;
                    self.counts.batches += 1;
                    self.queued = self.queued.saturating_sub(sealed.payload);
                }
                // A topic that was there a moment ago may be on its way to another broker.
                Err(error) if passes(&error) && Instant::now() < sealed.until => {
                    self.counts.retries += 1;
                    self.failed_tries = self.failed_tries.saturating_add(1);
                    if self.failed_tries == FAILED_TRIES_TOLD {
                        let left = sealed.until.saturating_duration_since(Instant::now()).as_secs();
                        (self.plan.tell)(&format!("millpond: {error}; trying again for {left} s"));
                    }
                    queue.again = Some(sealed);
                    stale = true;
                }
                Err(error) => {
                    let whole = sealed.lines.first().zip(sealed.lines.last()).map(|(a, b)| (*a, *b));
                    let exact = match &landed.answer {
                        Ok(Some(answer)) => find(answer, sealed.partition)
                            .and_then(|p| p.record_errors.first())
                            .and_then(|e| sealed.lines.get(usize::try_from(e.batch_index).ok()?))
                            .map(|line| (*line, *line)),
                        _ => None,
                    };
                    let failure = Failure { lines: exact.or(whole), why: error.to_string() };
                    // The earliest line is the one to look at.
                    if failed.as_ref().is_none_or(|f| failure.lines < f.lines) {
                        failed = Some(failure);
                    }
                }
            }
        }
        failed.map_or(Ok(stale), Err)
    }

    fn judge(&self, answer: &ProduceResponse, sealed: &Sealed) -> Result<(), Error> {
        let topic = &self.plan.topic;
        let what = || format!("cannot write to partition {} of topic \"{topic}\"", sealed.partition);
        let Some(partition) = find(answer, sealed.partition) else {
            return Err(Error::refused(-1, what(), Some("the broker's answer does not speak of it")));
        };
        let duplicate = partition.error_code == ResponseError::DuplicateSequenceNumber.code();
        if duplicate && self.identity.is_some() {
            return Ok(());
        }
        let record = partition.record_errors.first().and_then(|e| e.batch_index_error_message.as_ref());
        let message = record.or(partition.error_message.as_ref()).map(|m| m.as_str());
        Error::check(partition.error_code, what, message)
    }
}

fn passes(error: &Error) -> bool {
    error.passes() || matches!(error.code(), Some(ResponseError::UnknownTopicOrPartition))
}

fn find(answer: &ProduceResponse, partition: i32) -> Option<&PartitionProduceResponse> {
    answer.responses.iter().flat_map(|t| &t.partition_responses).find(|p| p.index == partition)
}

fn seal(
    batch: Batch,
    partition: i32,
    codec: Codec,
    identity: Option<(i64, i16)>,
    next_sequence: &mut i32,
    until: Instant,
) -> Sealed {
    // The broker says whether a record is too large for it, so that there is no limit of our own.
    let options = EncodeOptions {
        compression: codec.into(),
        batch_bytes_max: i32::MAX as usize,
        log_append_time: None,
        room_before: 0,
    };
    let encoded = encode(&batch.records, options).ok().and_then(|batches| batches.into_iter().next());
    let mut bytes = encoded.map(|b| b.bytes).unwrap_or_default();
    if let Some((id, epoch)) = identity {
        stamp_producer(&mut bytes, id, epoch, *next_sequence);
        // Sequence numbers go on with 0 after the largest.
        *next_sequence = ((*next_sequence as u32 + batch.lines.len() as u32) & 0x7fff_ffff) as i32;
    }
    Sealed { partition, bytes: bytes.into(), lines: batch.lines, payload: batch.bytes, until }
}

async fn identity(client: &Client) -> Result<(i64, i16), Error> {
    let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
    let judge = |code: i16| {
        let what = || "the broker gives no producer id; --no-idempotence goes without one".to_string();
        Error::check(code, what, None)
    };
    let answer = client.call(&To::Any, &request, |answer| judge(answer.error_code)).await?;
    Ok((answer.producer_id.0, answer.producer_epoch))
}

/// What the topic takes; the default where this user may not know.
async fn batch_bytes(client: &Client, topic: &str) -> usize {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text("max.message.bytes")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call_once(&To::Any, Lane::Main, &request, Duration::ZERO).await;
    let value = answer.ok().and_then(|answer| {
        let config = answer.results.first()?.configs.iter().find(|c| c.name.as_str() == "max.message.bytes")?;
        config.value.as_ref()?.parse::<usize>().ok()
    });
    value.unwrap_or(BATCH_BYTES).max(BATCH_OVERHEAD + 1)
}

//! Fetch (1), versions 4 to 18.
//!
//! Batches go from storage to the socket as they lie. The first partition that has something gives at least one whole
//! batch whatever the limits; later ones stay within them. Where less than min_bytes is there the answer waits for
//! appends, moves of the log's start or the topic's end, and for max_wait_ms at most. From version 13 on topics are
//! named by their ids alone.
//!
//! A full fetch answers for every partition that it names; where it asks for a session (`sessions`) and there is room, one
//! is made. An incremental one answers for those of its session whose records, offsets or errors are new.
//!
//! Ignored: replica_id and what else is of followers (log_start_offset, last_fetched_epoch, replica_state,
//! replica_directory_id, high_watermark), rack. Who asks for committed data gets what lies below the last stable offset,
//! aborted batches and markers included, and the list of the aborted transactions among it.

mod answer;
pub(super) use answer::put_count;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use millpond_types::{Reservation, TopicId, TopicPartition};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use self::answer::{Answered, respond};
use self::sessions::{Changes, Kind, Named, Part, Resumed, Seen, Session};
pub(crate) use self::sessions::{FetchSessions, Limits as SessionLimits};
use super::topics::{at_once, check_epoch};
use super::{Request, Shared};
use crate::security::Caller;
use crate::security::acl::Operation;
use crate::storage::{FetchLimits, Fetched, Storage, StorageError, Topic};
use crate::wire::{Error, Reply};

const READ_COMMITTED: i8 = 1;
/// First version that names topics by their ids.
const BY_ID: i16 = 13;
/// The epoch of a request that wants no session.
const NO_SESSION: i32 = -1;

/// An answer may have so many bytes, however short memory is.
const ANSWER_BYTES_MIN: usize = 64 << 10;
/// More than this is not read from disk for one answer, so that it is on its way while the next one is read.
const DISK_ANSWER_BYTES: usize = 4 << 20;
/// With less room than this left in such an answer no further partition is read, as its first batch may not fit.
const DISK_ANSWER_SPARE_BYTES: usize = DISK_ANSWER_BYTES / 4;

/// One pass over some partitions.
struct Plan {
    parts: Vec<Part>,
    bytes_max: usize,
    /// Only what is decided, with the list of what was aborted.
    committed: bool,
    /// Partitions that no longer fit need not be looked at.
    partial: bool,
}

/// What came of a partition.
enum Read {
    Data(Fetched),
    Failed { code: i16, start: i64, end: i64 },
}

impl Read {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.bytes,
            Self::Failed { .. } => 0,
        }
    }

    fn failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// It was cut short: on disk there is more.
    fn is_behind(&self, committed: bool) -> bool {
        let Self::Data(data) = self else { return false };
        let end = if committed { data.last_stable_offset } else { data.high_watermark };
        data.behind.is_some_and(|next| next < end)
    }

    /// What the client has seen once it was told of this. After an error it is told again, whatever the offsets.
    fn seen(&self) -> Seen {
        match self {
            Self::Data(data) => Seen {
                high_watermark: data.high_watermark,
                last_stable_offset: data.last_stable_offset,
                log_start_offset: data.log_start_offset,
            },
            Self::Failed { .. } => Seen::NOTHING,
        }
    }
}

struct Round {
    /// Of the plan's parts, or of the first of them.
    reads: Vec<Read>,
    bytes: usize,
    failed: bool,
    /// It need not be waited for more.
    enough: bool,
    /// Counts the bytes until they are sent.
    room: Option<Reservation>,
}

/// How much is wanted, and by when.
#[derive(Clone, Copy)]
struct Wanted {
    bytes_min: usize,
    bytes_max: usize,
    until: Instant,
    waits: bool,
}

pub(super) async fn handle(shared: &Arc<Shared>, request: &Request) -> Result<Reply, Error> {
    let asked: FetchRequest = request.decode()?;
    let wait = Duration::from_millis(u64::try_from(asked.max_wait_ms).unwrap_or(0)).min(shared.settings.fetch_wait_max);
    let bytes_max = limit(shared, asked.max_bytes).min(at_once(shared, request));
    let wanted = Wanted {
        bytes_min: usize::try_from(asked.min_bytes).unwrap_or(0).min(bytes_max.max(1)),
        bytes_max,
        until: Instant::now() + wait,
        waits: !wait.is_zero(),
    };
    if asked.session_epoch > 0 {
        incremental(shared, request, asked, wanted).await
    } else {
        full(shared, request, asked, wanted).await
    }
}

fn limit(shared: &Shared, bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0).min(shared.settings.fetch_bytes_max)
}

fn plan(asked: &FetchRequest, wanted: Wanted, parts: Vec<Part>, partial: bool) -> Plan {
    Plan { parts, bytes_max: wanted.bytes_max, committed: asked.isolation_level == READ_COMMITTED, partial }
}

async fn full(shared: &Arc<Shared>, request: &Request, asked: FetchRequest, wanted: Wanted) -> Result<Reply, Error> {
    shared.fetch_sessions.close(asked.session_id);
    let version = request.head.version;
    let plan = Arc::new(plan(&asked, wanted, parts_of(shared, request, &asked.topics), false));
    let mut watch = None;
    if wanted.waits {
        let places: Vec<TopicPartition> = plan.parts.iter().filter_map(|part| part.id.ok()).collect();
        watch = (!places.is_empty()).then(|| shared.storage.watch(&places));
    }
    let round = loop {
        let round = read_within(shared, &request.caller, &plan, wanted).await;
        if round.enough || Instant::now() >= wanted.until {
            break round;
        }
        let Some(watch) = &watch else { break round };
        if tokio::time::timeout_at(wanted.until, watch.changed()).await.is_err() {
            break round;
        }
    };
    let Round { reads, room, .. } = round;
    let session = if version >= 7 && asked.session_epoch != NO_SESSION {
        // Who was served is served last the next time.
        let (served, others): (Vec<_>, Vec<_>) = plan.parts.iter().zip(&reads).partition(|(_, read)| read.bytes() > 0);
        let parts = others.into_iter().chain(served).map(|(part, read)| (part.clone(), read.seen()));
        let parts: Vec<_> = parts.collect();
        shared.fetch_sessions.open(&shared.storage, kind(request, &asked), parts.into_iter())
    } else {
        0
    };
    let answers = plan.parts.iter().zip(reads).map(|(part, read)| Answered { part, read });
    Ok(holding(respond(shared, request, session, plan.committed, answers.collect())?, room))
}

fn kind(request: &Request, asked: &FetchRequest) -> Kind {
    Kind {
        owner: request.caller.principal.clone(),
        by_id: request.head.version >= BY_ID,
        committed: asked.isolation_level == READ_COMMITTED,
    }
}

async fn incremental(
    shared: &Arc<Shared>,
    request: &Request,
    asked: FetchRequest,
    wanted: Wanted,
) -> Result<Reply, Error> {
    let (id, epoch, version) = (asked.session_id, asked.session_epoch, request.head.version);
    let changes = Changes {
        kind: kind(request, &asked),
        set: parts_of(shared, request, &asked.topics),
        forget: asked
            .forgotten_topics_data
            .iter()
            .map(|t| (named(&t.topic, t.topic_id, version), t.partitions.clone()))
            .collect(),
    };
    let session = match shared.fetch_sessions.resume(&shared.storage, id, epoch, changes) {
        Ok(Resumed::Session(session)) => session,
        Ok(Resumed::Empty) => return respond(shared, request, 0, false, Vec::new()),
        Err(error) => return refuse(request, error),
    };
    let wakeups = session.lock().wakeups();
    loop {
        let (tokens, parts) = due(shared, request, &session);
        let plan = Arc::new(plan(&asked, wanted, parts, true));
        let round = read_within(shared, &request.caller, &plan, wanted).await;
        let told = {
            let mut session = session.lock();
            if !session.follows(epoch) {
                drop(session);
                return refuse(request, ResponseError::InvalidFetchSessionEpoch);
            }
            tell(&mut session, &tokens, &round, round.enough || !wanted.waits || Instant::now() >= wanted.until)
        };
        if let Some(told) = told {
            let Round { reads, room, .. } = round;
            let answers = plan.parts.iter().zip(reads).zip(told).filter(|(_, told)| *told);
            let answers = answers.map(|((part, read), _)| Answered { part, read }).collect();
            return Ok(holding(respond(shared, request, id, plan.committed, answers)?, room));
        }
        drop(round);
        // When the time is over the next pass ends this.
        let _over = tokio::time::timeout_at(wanted.until, wakeups.changed()).await;
    }
}

/// Parts to look at. Those without a place in storage are looked for again: their topic may have come, or come anew. So
/// are all where rights may have been taken away.
fn due(shared: &Shared, request: &Request, session: &Mutex<Session>) -> (Vec<u32>, Vec<Part>) {
    let mut session = session.lock();
    let mut due = session.due();
    for (token, part) in &mut due {
        let lost = match part.id {
            Err(_) => true,
            Ok(id) => shared.storage.partition_offsets(id).is_err(),
        };
        if lost || shared.authorizer.is_some() {
            let topic = find(shared, request, &part.topic);
            let (mut id, name) = (at(&shared.storage, &topic, part.index, part.epoch), name_of(&part.topic, &topic));
            if let (Err(_), Some(known)) = (&topic, &part.name) {
                // What it may not know of is not told to be gone either.
                let may = shared.check_topic(&request.caller, Operation::Read, known);
                id = id.map_err(|code| may.map_or_else(|refusal| refusal.code(), |()| code));
            }
            if let Some(located) = session.locate_again(&shared.storage, *token, id, name) {
                *part = located.clone();
            }
        }
    }
    due.into_iter().unzip()
}

/// Sets parts to rest that have nothing new. At the end of a fetch it says which parts the client is told of.
fn tell(session: &mut Session, tokens: &[u32], round: &Round, ends: bool) -> Option<Vec<bool>> {
    let news: Vec<(u32, bool)> = tokens
        .iter()
        .zip(&round.reads)
        .map(|(token, read)| (*token, read.bytes() > 0 || read.failed() || session.seen(*token) != read.seen()))
        .collect();
    let resting: Vec<u32> = news.iter().filter(|(_, new)| !new).map(|(token, _)| *token).collect();
    session.rest(&resting);
    if !ends {
        return None;
    }
    let mut served = Vec::new();
    for ((token, new), read) in news.iter().zip(&round.reads) {
        if *new {
            session.told(*token, read.seen());
        }
        if read.bytes() > 0 {
            served.push(*token);
        }
    }
    session.put_behind(&served);
    Some(news.into_iter().map(|(_, new)| new).collect())
}

fn refuse(request: &Request, error: ResponseError) -> Result<Reply, Error> {
    request.respond(&FetchResponse::default().with_error_code(error.code()))
}

fn named(name: &TopicName, id: Uuid, version: i16) -> Arc<Named> {
    Arc::new(if version >= BY_ID { Named::Id(id) } else { Named::Name(name.as_str().into()) })
}

fn parts_of(shared: &Shared, request: &Request, topics: &[FetchTopic]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(topics.iter().map(|topic| topic.partitions.len()).sum());
    for asked in topics {
        let topic = named(&asked.topic, asked.topic_id, request.head.version);
        let found = find(shared, request, &topic);
        let name = name_of(&topic, &found);
        parts.extend(asked.partitions.iter().map(|p| Part {
            topic: Arc::clone(&topic),
            index: p.partition,
            from: p.fetch_offset,
            bytes_max: limit(shared, p.partition_max_bytes),
            epoch: p.current_leader_epoch,
            id: at(&shared.storage, &found, p.partition, p.current_leader_epoch),
            name: name.clone(),
        }));
    }
    parts
}

/// The topic that the client means and may read, or the code for there being none.
fn find(shared: &Shared, request: &Request, topic: &Named) -> Result<Arc<Topic>, i16> {
    let may = |name: &str| shared.check_topic(&request.caller, Operation::Read, name).map_err(|refusal| refusal.code());
    match topic {
        Named::Id(id) => {
            let found = shared.storage.find_topic_by_id(TopicId(*id.as_bytes()));
            let topic = found.ok_or(ResponseError::UnknownTopicId.code())?;
            may(&topic.name).map(|()| topic)
        }
        Named::Name(name) => {
            may(name)?;
            shared.storage.find_topic(name).ok_or(ResponseError::UnknownTopicOrPartition.code())
        }
    }
}

/// Of a topic that was asked for by its id.
fn name_of(topic: &Named, found: &Result<Arc<Topic>, i16>) -> Option<Arc<str>> {
    match (topic, found) {
        (Named::Id(_), Ok(found)) => Some(found.name.as_str().into()),
        _ => None,
    }
}

fn at(storage: &Storage, topic: &Result<Arc<Topic>, i16>, index: i32, epoch: i32) -> Result<TopicPartition, i16> {
    let topic = topic.as_ref().map_err(|code| *code)?;
    if index < 0 || index >= topic.partition_count() {
        return Err(ResponseError::UnknownTopicOrPartition.code());
    }
    check_epoch(storage, epoch).map_err(|refusal| refusal.code())?;
    Ok(TopicPartition { topic: topic.id, partition: index })
}

/// Counted while it is read and sent, not while nothing is there: where memory is short the answer is smaller.
async fn read_within(shared: &Arc<Shared>, caller: &Caller, plan: &Arc<Plan>, wanted: Wanted) -> Round {
    let most = plan.bytes_max;
    let mut room = shared.settings.fetch_memory.reserve_between(most.min(ANSWER_BYTES_MIN), most);
    let mut round = read(shared, caller, plan, room.bytes()).await;
    round.enough = round.failed
        || round.bytes >= wanted.bytes_min.min(room.bytes().max(1))
        || round.reads.iter().any(|read| read.is_behind(plan.committed));
    room.set(round.bytes);
    round.room = Some(room);
    round
}

fn holding(reply: Reply, room: Option<Reservation>) -> Reply {
    match (reply, room) {
        (Reply::Response(response), Some(room)) => Reply::Response(response.holding(room)),
        (other, _) => other,
    }
}

/// Reads what is there, from memory if all of it is; otherwise on a thread that may block.
async fn read(shared: &Arc<Shared>, caller: &Caller, plan: &Arc<Plan>, bytes_max: usize) -> Round {
    let hot = |id, from, limits| shared.storage.fetch_hot(id, from, limits);
    let round = match read_with(&shared.storage, plan, bytes_max, 0, hot) {
        Some(round) => round,
        None => {
            let _lane = shared.disk_reads_by_address.enter(caller.host()).await;
            let Ok(_permit) = shared.disk_reads.acquire().await else { return failed(plan) };
            let (storage, whole) = (shared.storage.clone(), Arc::clone(plan));
            let (bytes_max, spare) = match bytes_max {
                all if all <= DISK_ANSWER_BYTES => (all, 0),
                _ => (DISK_ANSWER_BYTES, DISK_ANSWER_SPARE_BYTES),
            };
            let task = tokio::task::spawn_blocking(move || {
                let fetch = |id, from, limits| storage.fetch(id, from, limits).map(Some);
                read_with(&storage, &whole, bytes_max, spare, fetch)
            });
            task.await.ok().flatten().unwrap_or_else(|| failed(plan))
        }
    };
    read_ahead(shared, plan, &round);
    round
}

/// While the consumer works on an answer from disk, the next one is read. Not where it reads several partitions, as
/// nobody knows which is next, and not where many read from disk already.
fn read_ahead(shared: &Arc<Shared>, plan: &Plan, round: &Round) {
    let ([part], [Read::Data(data)]) = (&plan.parts[..], &round.reads[..]) else { return };
    let (Ok(place), Some(next)) = (part.id, data.behind) else { return };
    if shared.disk_reads.available_permits() < shared.settings.disk_reads_max.div_ceil(2) {
        return;
    }
    let storage = shared.storage.clone();
    let bytes_max = data.bytes.min(storage.read_ahead_bytes());
    let limits = FetchLimits { bytes_max, at_least_one: true, committed: plan.committed };
    // Nobody waits for it; the runtime does at its end. What fails is told to whoever reads it then.
    let _unwatched = tokio::task::spawn_blocking(move || storage.read_ahead(place, next, limits).is_err());
}

fn failed(plan: &Plan) -> Round {
    let code = ResponseError::KafkaStorageError.code();
    let reads = plan.parts.iter().map(|_| Read::Failed { code, start: -1, end: -1 });
    Round { reads: reads.collect(), bytes: 0, failed: true, enough: true, room: None }
}

/// One pass over all partitions. With no more than `spare` bytes left nothing is added. `None`: `fetch` could not without
/// blocking.
fn read_with(
    storage: &Storage,
    plan: &Plan,
    bytes_max: usize,
    spare: usize,
    fetch: impl Fn(TopicPartition, i64, FetchLimits) -> Result<Option<Fetched>, StorageError>,
) -> Option<Round> {
    let reads = Vec::with_capacity(plan.parts.len());
    let mut round = Round { reads, bytes: 0, failed: false, enough: false, room: None };
    for part in &plan.parts {
        let left = match bytes_max.saturating_sub(round.bytes) {
            little if round.bytes > 0 && little <= spare => 0,
            left => left,
        };
        if plan.partial && left == 0 && round.bytes > 0 {
            break;
        }
        let limits = FetchLimits {
            bytes_max: part.bytes_max.min(left),
            at_least_one: round.bytes == 0,
            committed: plan.committed,
        };
        let result = match part.id {
            Err(code) => Err(code),
            Ok(id) => match fetch(id, part.from, limits) {
                Ok(None) => return None,
                Ok(Some(data)) => Ok(data),
                Err(error) if matches!(*part.topic, Named::Id(_)) && part.name.is_none() => {
                    Err(super::code_of(&error).code())
                }
                Err(error) => Err(super::code_by_name(&error).code()),
            },
        };
        round.reads.push(match result {
            Ok(data) => {
                round.bytes += data.bytes;
                Read::Data(data)
            }
            Err(code) => {
                round.failed = true;
                let offsets = part.id.ok().and_then(|id| storage.partition_offsets(id).ok());
                let (start, end) = offsets.map_or((-1, -1), |o| (o.start, o.end));
                Read::Failed { code, start, end }
            }
        });
    }
    Some(round)
}

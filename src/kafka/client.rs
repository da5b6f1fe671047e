//! A cluster as the command line sees it: connections by broker, requests routed to who can answer them, tried again
//! where that may help, within the time that the user gave.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::apis::Api;
use super::connection::{Connection, Greeting};
use super::error::Error;
use super::metadata::{Metadata, Topic, near, what_there_is};
use super::settings::{Address, Settings};
use super::{text, tls, topic_name};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Special times of ListOffsets.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

/// Who is to answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    Any,
    Controller,
    Broker(i32),
    Group(String),
}

/// Requests that may wait long have connections of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    Main,
    Fetch,
    Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    Uncommitted,
    Committed,
}

impl Isolation {
    pub fn number(self) -> i8 {
        match self {
            Self::Uncommitted => 0,
            Self::Committed => 1,
        }
    }
}

pub type Place = (String, i32);
/// A connection while nobody uses it.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

pub struct Client {
    greeting: Greeting,
    bootstrap: Vec<Address>,
    timeout: Duration,
    slots: Mutex<HashMap<(Address, Lane), Slot>>,
    metadata: Mutex<Metadata>,
    coordinators: Mutex<HashMap<String, Address>>,
    /// Whether there was ever a connection.
    reached: AtomicBool,
    /// Whether there was ever an answer to a request.
    answered: AtomicBool,
}

/// What is worth another attempt after all.
fn passing(error: Error) -> Error {
    match error {
        Error::Unreachable { address, why } => Error::Lost { address, why: format!("cannot connect again: {why}") },
        other => other,
    }
}

impl Client {
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let tls = settings.tls.as_ref().map(tls::client_config).transpose()?;
        Ok(Self {
            greeting: Greeting { tls, login: settings.login, client_id: settings.client_id, timeout: settings.timeout },
            bootstrap: settings.bootstrap,
            timeout: settings.timeout,
            slots: Mutex::default(),
            metadata: Mutex::default(),
            coordinators: Mutex::default(),
            reached: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        })
    }

    /// An address of another machine that is reached without encryption.
    pub fn in_the_open(&self) -> Option<&Address> {
        self.bootstrap.iter().find(|address| self.greeting.tls.is_none() && !address.is_here())
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks once.
    pub async fn call_once<Q: Api>(
        &self,
        to: &To,
        lane: Lane,
        request: &Q,
        wait: Duration,
    ) -> Result<Q::Response, Error> {
        let address = self.address_of(to).await?;
        let answered = self.call_at(&address, lane, request, self.timeout + wait).await;
        if answered.is_err()
            && let To::Group(group) = to
        {
            self.coordinators.lock().remove(group);
        }
        answered
    }

    /// Asks until an answer comes or time is up. `judge` finds the error codes in an answer that passes by.
    pub async fn call<Q: Api>(
        &self,
        to: &To,
        request: &Q,
        judge: impl Fn(&Q::Response) -> Result<(), Error>,
    ) -> Result<Q::Response, Error> {
        self.retrying(async || {
            let answer = self.call_once(to, Lane::Main, request, Duration::ZERO).await?;
            judge(&answer).inspect_err(|_| self.forget(to))?;
            Ok(answer)
        })
        .await
    }

    fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn forget(&self, to: &To) {
        if let To::Group(group) = to {
            self.coordinators.lock().remove(group);
        }
    }

    /// Runs it again while it fails with what may pass, with growing pauses.
    pub async fn retrying<T>(&self, mut once: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
        let until = Instant::now() + self.timeout;
        let mut pause = BACKOFF_MIN;
        loop {
            match once().await {
                Err(error) if error.passes() && Instant::now() + pause < until => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn address_of(&self, to: &To) -> Result<Address, Error> {
        match to {
            To::Any => self.any().await,
            To::Broker(id) => {
                let known = self.metadata.lock().brokers.get(id).cloned();
                known.ok_or_else(|| {
                    Error::refused(
                        ResponseError::LeaderNotAvailable.code(),
                        format!("broker {id}"),
                        Some("the cluster does not say where it is"),
                    )
                })
            }
            To::Controller => {
                if self.metadata.lock().brokers.is_empty() {
                    // In a box, since asking for it comes by here again.
                    Box::pin(self.refresh(Some(&[]))).await?;
                }
                let known = {
                    let metadata = self.metadata.lock();
                    metadata.controller.and_then(|id| metadata.brokers.get(&id).cloned())
                };
                match known {
                    Some(address) => Ok(address),
                    None => self.any().await,
                }
            }
            To::Group(group) => {
                let known = self.coordinators.lock().get(group).cloned();
                match known {
                    Some(address) => Ok(address),
                    None => self.find_coordinator(group).await,
                }
            }
        }
    }

    /// An address that accepts a connection: one in use, else of those that were given, else of those that the cluster
    /// told.
    async fn any(&self) -> Result<Address, Error> {
        let mut failed = None;
        let mut candidates = self.bootstrap.clone();
        candidates.extend(self.metadata.lock().brokers.values().filter(|a| !self.bootstrap.contains(a)).cloned());
        for address in &candidates {
            let slot = self.slot(address, Lane::Main);
            let mut connection = slot.lock().await;
            if connection.is_some() {
                return Ok(address.clone());
            }
            match Connection::open(address, &self.greeting).await {
                Ok(opened) => {
                    *connection = Some(opened);
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(address.clone());
                }
                Err(error @ Error::Login(_)) => return Err(error),
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
        let error = failed.unwrap_or_else(|| Error::Missing("no address of a broker is given".to_string()));
        // Whoever was there once may come back; who never answered is most likely somebody else.
        Err(match error {
            error if self.reached.load(Ordering::Relaxed) => passing(error),
            Error::Lost { address, why } => Error::Unreachable { address, why },
            error => error,
        })
    }

    fn slot(&self, address: &Address, lane: Lane) -> Slot {
        self.slots.lock().entry((address.clone(), lane)).or_default().clone()
    }

    async fn call_at<Q: Api>(
        &self,
        address: &Address,
        lane: Lane,
        request: &Q,
        within: Duration,
    ) -> Result<Q::Response, Error> {
        let slot = self.slot(address, lane);
        let mut place = slot.lock().await;
        // Out of its place while in use: whoever gives up in the middle leaves no half-read answer behind.
        let mut connection = match place.take() {
            Some(open) => open,
            None => self.open(address).await?,
        };
        let answered = connection.call(request, within).await;
        if matches!(answered, Ok(_) | Err(Error::Unsupported { .. })) {
            *place = Some(connection);
        }
        match answered {
            // Versions are told to everybody, the rest perhaps not.
            Err(Error::Lost { address, why }) if self.greeting.login.is_none() && !self.is_answered() => {
                let why = format!("{why} at the first request; if it wants a login, give --user");
                Err(Error::Unreachable { address, why })
            }
            Err(error) => Err(error),
            Ok(answer) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(answer)
            }
        }
    }

    /// A broker that the cluster named, which may be about to come back.
    async fn open(&self, address: &Address) -> Result<Connection, Error> {
        Connection::open(address, &self.greeting).await.map_err(passing)
    }

    /// Sends a request to a broker that will not answer it.
    pub async fn tell<Q: Api>(&self, broker: i32, request: &Q) -> Result<(), Error> {
        let address = self.address_of(&To::Broker(broker)).await?;
        let slot = self.slot(&address, Lane::Main);
        let mut place = slot.lock().await;
        let mut connection = match place.take() {
            Some(open) => open,
            None => self.open(&address).await?,
        };
        connection.tell(request, self.timeout).await?;
        *place = Some(connection);
        Ok(())
    }

    async fn find_coordinator(&self, group: &str) -> Result<Address, Error> {
        let request = FindCoordinatorRequest::default().with_key(text(group)).with_key_type(0);
        let any = self.any().await?;
        let answer = self.call_at(&any, Lane::Main, &request, self.timeout).await?;
        let message = answer.error_message.as_ref().map(|m| m.as_str());
        Error::check(answer.error_code, || format!("cannot find who keeps group \"{group}\""), message)?;
        let port = u16::try_from(answer.port).unwrap_or(0);
        let address = Address { host: answer.host.to_string(), port };
        self.coordinators.lock().insert(group.to_string(), address.clone());
        Ok(address)
    }

    /// Asks for metadata: of all topics, or of these. Leaders are remembered.
    pub async fn refresh(&self, topics: Option<&[&str]>) -> Result<Metadata, Error> {
        self.ask_metadata(topics, false).await
    }

    async fn ask_metadata(&self, topics: Option<&[&str]>, create: bool) -> Result<Metadata, Error> {
        let wanted = topics.map(|names| {
            names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect()
        });
        let request = MetadataRequest::default().with_topics(wanted).with_allow_auto_topic_creation(create);
        let answer = self.call(&To::Any, &request, |_| Ok(())).await?;
        let found = Metadata::of(&answer);
        let mut known = self.metadata.lock();
        known.cluster.clone_from(&found.cluster);
        known.controller = found.controller;
        known.brokers.clone_from(&found.brokers);
        known.topics.extend(found.topics.iter().map(|(name, topic)| (name.clone(), topic.clone())));
        Ok(found)
    }

    /// A topic that is there, and whose partitions all have leaders; the error names topics that look like it.
    pub async fn topic(&self, name: &str, create: bool) -> Result<Topic, Error> {
        let found = self
            .retrying(async || {
                let found = self.ask_metadata(Some(&[name]), create).await?;
                let Some(topic) = found.topics.get(name).cloned() else {
                    return Err(Error::refused(3, format!("topic \"{name}\""), None));
                };
                let leaderless = topic.error.is_none() && topic.partitions.values().any(|p| p.leader.is_none());
                let error = if leaderless { Some(ResponseError::LeaderNotAvailable) } else { topic.error };
                let creating = create && error == Some(ResponseError::UnknownTopicOrPartition);
                match error {
                    None => Ok(topic),
                    // It is being made.
                    Some(_) if creating => Err(Error::refused(
                        ResponseError::LeaderNotAvailable.code(),
                        format!("topic \"{name}\""),
                        Some("it is not there, and the broker does not create it; \"millpond topic create\" does"),
                    )),
                    Some(error) => Err(Error::refused(error.code(), format!("topic \"{name}\""), None)),
                }
            })
            .await;
        match found {
            Err(error) if error.code() == Some(ResponseError::UnknownTopicOrPartition) => {
                Err(Error::Missing(self.no_topic(name).await))
            }
            other => other,
        }
    }

    async fn no_topic(&self, name: &str) -> String {
        let all = self.refresh(None).await.map(|m| m.topics).unwrap_or_default();
        let names = near(name, all.keys().map(String::as_str));
        let names: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
        let more = match names.is_empty() {
            false => format!("did you mean {}?", names.join(" or ")),
            true => what_there_is("topic", all.len()),
        };
        format!("there is no topic \"{name}\"; {more}")
    }

    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.metadata.lock().leader(topic, partition)
    }

    pub fn brokers(&self) -> BTreeMap<i32, Address> {
        self.metadata.lock().brokers.iter().map(|(id, address)| (*id, address.clone())).collect()
    }

    /// The leader of a partition, asked for again where it is not known.
    pub async fn leader_of(&self, topic: &str, partition: i32) -> Result<i32, Error> {
        if let Some(leader) = self.leader(topic, partition) {
            return Ok(leader);
        }
        self.refresh(Some(&[topic])).await?;
        self.leader(topic, partition).ok_or_else(|| {
            Error::refused(
                ResponseError::LeaderNotAvailable.code(),
                format!("partition {partition} of topic \"{topic}\""),
                None,
            )
        })
    }

    /// Groups what is about partitions by who leads them.
    pub async fn by_leader<T>(&self, all: Vec<(Place, T)>) -> Result<BTreeMap<i32, Vec<(Place, T)>>, Error> {
        let mut found: BTreeMap<i32, Vec<(Place, T)>> = BTreeMap::new();
        for (place, what) in all {
            let leader = self.leader_of(&place.0, place.1).await?;
            found.entry(leader).or_default().push((place, what));
        }
        Ok(found)
    }

    /// Offsets by time, or by `LATEST` and `EARLIEST`. Where no record is so young, the offset is -1.
    pub async fn offsets(&self, wanted: &[(Place, i64)], isolation: Isolation) -> Result<HashMap<Place, i64>, Error> {
        self.retrying(async || {
            let mut found = HashMap::new();
            for (leader, places) in self.by_leader(wanted.to_vec()).await? {
                let mut topics: BTreeMap<String, Vec<ListOffsetsPartition>> = BTreeMap::new();
                for ((topic, partition), time) in places {
                    let one = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(time);
                    topics.entry(topic).or_default().push(one);
                }
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    ListOffsetsTopic::default().with_name(topic_name(&topic)).with_partitions(partitions)
                });
                let request = ListOffsetsRequest::default()
                    .with_replica_id((-1).into())
                    .with_isolation_level(isolation.number())
                    .with_topics(topics.collect());
                let answer = self.call_once(&To::Broker(leader), Lane::Main, &request, Duration::ZERO).await?;
                for topic in &answer.topics {
                    for p in &topic.partitions {
                        let name = topic.name.to_string();
                        let what =
                            || format!("cannot find offsets of partition {} of topic \"{name}\"", p.partition_index);
                        if let Err(error) = Error::check(p.error_code, what, None) {
                            self.metadata.lock().topics.remove(&name);
                            return Err(error);
                        }
                        found.insert((name.clone(), p.partition_index), p.offset);
                    }
                }
            }
            Ok(found)
        })
        .await
    }
}

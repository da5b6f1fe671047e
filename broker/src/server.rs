//! Listening for Kafka clients: connections, their limits and their end.
//!
//! Here: accepting, reading and writing frames, order of answers, timeouts. Not here: what bytes mean (`wire`), what
//! requests do (`api`).
//!
//! Invariants: responses of a connection go back in the order of its requests; what one connection sends or does
//! cannot end another, nor the server; whatever is spawned here is awaited when the server shuts down.

mod admission;
mod connection;
mod listener;
mod throttle;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millpond_types::{Clock, Pool, SystemClock};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, error, warn};

use self::admission::Addresses;
use crate::api::{FetchSessions, SessionLimits, Shared};
use crate::features::Features;
use crate::groups::{Coordinator, GroupSettings, QueryGroups};
use crate::lanes::Lanes;
use crate::metrics::{Metrics, OpenConnection};
use crate::security::quotas::Quotas;
use crate::security::turns::Turns;
use crate::security::users::UserError;
use crate::security::{
    AuthenticationSettings, Authenticator, AuthorizationSettings, Authorizer, Principal, QuotaSettings, tls,
};
use crate::storage::{Storage, StorageError};
use crate::transactions::{self, TransactionSettings};

pub use listener::Listener;
use listener::Listening;

/// Of the memory for requests, whoever has not authenticated yet has this part, all together.
const STRANGERS_PART: usize = 8;
/// How long the listener rests when a connection cannot be accepted, as when files have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Limits and times of the protocol server.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Metadata requests create topics that they name, where they allow it.
    pub auto_create_topics: bool,
    pub connections_max: usize,
    /// Of one address.
    pub connections_per_address_max: usize,
    /// Largest request.
    pub request_bytes_max: usize,
    /// Largest number of array elements and tagged fields in a request.
    pub request_elements_max: usize,
    /// Bytes of all requests that are being received or answered.
    pub requests_bytes_max: usize,
    /// Bytes of one connection's requests; one is always taken.
    pub connection_bytes_max: usize,
    /// Produce requests of a connection whose batches are queued and whose answers are awaited.
    pub pipelined_requests_max: usize,
    /// Largest fetch answer, but for the batch that is always given.
    pub fetch_bytes_max: usize,
    /// Fetch answers that are being read or sent, all together; where it is short they are smaller.
    pub fetch_memory: Pool,
    /// Other answers that are being sent, all together; where it is used up, requests whose answers may be large wait, and
    /// whoever takes his slowly is let go.
    pub answers: Pool,
    /// Largest answer, but for those to fetches and to metadata requests.
    pub answer_bytes_max: usize,
    /// Longest wait of a fetch, whatever is asked.
    pub fetch_wait_max: Duration,
    /// Fetch sessions that are kept.
    pub fetch_sessions_max: usize,
    /// Partitions of one fetch session; with more, every answer is a full one.
    pub fetch_session_partitions_max: usize,
    /// Partitions of all fetch sessions.
    pub fetch_sessions_partitions_max: usize,
    /// About what all fetch sessions take in memory.
    pub fetch_sessions_bytes_max: usize,
    /// A fetch session that was used more recently keeps its place.
    pub fetch_session_eviction: Duration,
    /// Reads from disk at a time.
    pub disk_reads_max: usize,
    /// A connection without any request is closed after this.
    pub idle_timeout: Duration,
    /// A request that has begun must be there after this.
    pub receive_timeout: Duration,
    /// A response must be taken within this.
    pub write_timeout: Duration,
    /// How long connections may finish what they are at when the server shuts down.
    pub shutdown_timeout: Duration,
    /// TLS must be agreed on within this.
    pub handshake_timeout: Duration,
    /// Connections that agree on TLS at a time; others wait, within their time.
    pub handshakes_max: usize,
    /// Of those, the ones that compute at a time.
    pub handshake_turns: Arc<Turns>,
    /// Whoever has to authenticate must have done so within this.
    pub authentication_timeout: Duration,
    /// Largest request before that.
    pub unauthenticated_request_bytes_max: usize,
    /// For an authenticator that is not handed in.
    pub authentication: AuthenticationSettings,
    /// Principals that may do everything.
    pub super_users: Vec<Principal>,
    /// Holds everybody else against access control entries; without it everything is allowed.
    pub authorization: Option<AuthorizationSettings>,
    pub quotas: QuotaSettings,
    pub groups: GroupSettings,
    pub transactions: TransactionSettings,
    /// Kafka's names of the settings that somebody gave, in a file or otherwise: they are told as such.
    pub named: BTreeSet<&'static str>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            auto_create_topics: true,
            connections_max: 10_000,
            connections_per_address_max: usize::MAX,
            request_bytes_max: 100 * 1024 * 1024,
            request_elements_max: 100_000,
            requests_bytes_max: 512 * 1024 * 1024,
            connection_bytes_max: 128 * 1024 * 1024,
            pipelined_requests_max: 8,
            fetch_bytes_max: 64 * 1024 * 1024,
            fetch_memory: Pool::root("fetch_answers", 512 * 1024 * 1024),
            answers: Pool::root("answers", 128 * 1024 * 1024),
            answer_bytes_max: 64 * 1024 * 1024,
            fetch_wait_max: Duration::from_secs(60),
            fetch_sessions_max: 1_000,
            fetch_session_partitions_max: 20_000,
            fetch_sessions_partitions_max: 500_000,
            fetch_sessions_bytes_max: 256 * 1024 * 1024,
            fetch_session_eviction: Duration::from_secs(120),
            disk_reads_max: 16,
            idle_timeout: Duration::from_secs(600),
            receive_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 1000,
            handshake_turns: Turns::of_processors(),
            authentication_timeout: Duration::from_secs(30),
            unauthenticated_request_bytes_max: 64 * 1024,
            authentication: AuthenticationSettings::default(),
            super_users: Vec::new(),
            authorization: None,
            quotas: QuotaSettings::default(),
            groups: GroupSettings::default(),
            transactions: TransactionSettings::default(),
            named: BTreeSet::new(),
        }
    }
}

/// What the rest of the program says about topics that clients want to change.
pub trait TopicGuard: Send + Sync {
    /// Why a client may not write to this topic; a table's sink, for instance.
    fn refuse_write(&self, topic: &str) -> Option<String>;

    /// Why a client may not delete this topic.
    fn refuse_delete(&self, topic: &str) -> Option<String> {
        let _ = topic;
        None
    }
}

/// Lets clients do everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGuard;

impl TopicGuard for NoGuard {
    fn refuse_write(&self, _topic: &str) -> Option<String> {
        None
    }
}

/// What the rest of the program adds to the server.
#[derive(Clone)]
pub struct Hooks {
    pub guard: Arc<dyn TopicGuard>,
    /// Cursors of queries, shown as groups that nobody can join or change.
    pub query_groups: Option<Arc<dyn QueryGroups>>,
    pub clock: Arc<dyn Clock>,
    /// Who the users are; read from storage where nobody shares it.
    pub authenticator: Option<Arc<Authenticator>>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { guard: Arc::new(NoGuard), query_groups: None, clock: Arc::new(SystemClock), authenticator: None }
    }
}

/// A server that runs.
pub struct ServerHandle {
    addresses: Vec<SocketAddr>,
    authenticator: Arc<Authenticator>,
    metrics: Arc<Metrics>,
    groups: Coordinator,
    authorizer: Option<Authorizer>,
    requests_bytes: (Arc<Semaphore>, usize),
    task: JoinHandle<()>,
}

impl ServerHandle {
    /// Of the first listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Of all listeners, in their order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Tells the bytes of requests under way.
    pub fn requests_bytes(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let (left, total) = (Arc::clone(&self.requests_bytes.0), self.requests_bytes.1);
        move || total.saturating_sub(left.available_permits())
    }

    pub fn groups(&self) -> &Coordinator {
        &self.groups
    }

    /// What decides who may do what, where something does.
    pub fn authorizer(&self) -> Option<&Authorizer> {
        self.authorizer.as_ref()
    }

    /// Waits until the server has shut down: connections are closed, groups are written.
    pub async fn join(self) {
        if let Err(error) = self.task.await {
            error!(%error, "the protocol server ended by a defect");
        }
    }
}

/// Serves Kafka clients until `shutdown` is done. Reads users, groups and transactions first, which fails where storage
/// does, and where a listener lacks what its protocol needs.
pub async fn serve(
    listeners: Vec<Listener>,
    storage: Storage,
    settings: ServerSettings,
    hooks: Hooks,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ServerHandle, StorageError> {
    let listeners: Vec<Arc<Listening>> =
        listeners.into_iter().map(|l| Listening::of(l).map(Arc::new)).collect::<Result<_, _>>()?;
    let addresses = listeners.iter().map(|l| l.address).collect();
    let authenticator = match hooks.authenticator {
        Some(shared) => shared,
        None => Authenticator::open(&storage, settings.authentication.clone()).await.map_err(|error| match error {
            UserError::Storage(error) => error,
            other => StorageError::Unavailable(other.to_string()),
        })?,
    };
    let (stored, clock, queries) = (storage.clone(), hooks.clock.clone(), hooks.query_groups.clone());
    let (of_groups, of_transactions) = (settings.groups.clone(), settings.transactions.clone());
    let of_quotas = settings.quotas.clone();
    let (authorization, super_users) = (settings.authorization.clone(), settings.super_users.clone());
    let load = move || {
        let load = |settings| Authorizer::load(stored.clone(), settings, &super_users);
        let authorizer = authorization.map(load).transpose()?;
        let quotas = Quotas::load(stored.clone(), of_quotas)?;
        let features = Features::load(stored.clone())?;
        let groups = Coordinator::load(stored.clone(), of_groups, clock.clone(), queries)?;
        let transactions = transactions::Coordinator::load(stored, groups.clone(), of_transactions, clock.clone())?;
        Ok::<_, StorageError>((groups, transactions, authorizer, quotas, features))
    };
    let (groups, transactions, authorizer, quotas, features) = tokio::task::spawn_blocking(load)
        .await
        .map_err(|e| StorageError::Unavailable(format!("groups were not read: {e}")))??;
    if authorizer.as_ref().is_some_and(|authorizer| !authorizer.can_be_changed()) {
        warn!(
            "nobody may add an access control entry over the network: no entry gives anybody ALTER on the cluster, and \
             there is no super user; super_users in [security] names some"
        );
    }
    let metrics = Arc::new(Metrics::default());
    metrics.watch_listeners(listeners.iter().map(|l| (l.endpoint.name.clone(), Arc::clone(&l.count))).collect());
    // One request must always fit.
    let with_length = |bytes: usize| bytes.saturating_add(size_of::<i32>());
    let requests_bytes = settings.requests_bytes_max.max(with_length(settings.request_bytes_max));
    let requests_bytes = requests_bytes.min(Semaphore::MAX_PERMITS);
    let stranger = with_length(settings.unauthenticated_request_bytes_max.min(settings.request_bytes_max));
    let strangers_bytes = (requests_bytes / STRANGERS_PART).max(stranger).min(requests_bytes);
    let fetch_sessions = FetchSessions::new(SessionLimits {
        sessions_max: settings.fetch_sessions_max,
        session_partitions_max: settings.fetch_session_partitions_max,
        partitions_max: settings.fetch_sessions_partitions_max,
        bytes_max: settings.fetch_sessions_bytes_max,
        eviction_ms: settings.fetch_session_eviction.as_millis() as u64,
    });
    let shared = Arc::new(Shared {
        storage,
        fetch_sessions,
        groups: groups.clone(),
        transactions,
        disk_reads: Semaphore::new(settings.disk_reads_max),
        disk_reads_by_address: Lanes::new((settings.disk_reads_max * 3).div_ceil(4)),
        requests_bytes_total: requests_bytes,
        requests_bytes: Arc::new(Semaphore::new(requests_bytes)),
        strangers_bytes: Arc::new(Semaphore::new(strangers_bytes)),
        handshakes: Semaphore::new(settings.handshakes_max.clamp(1, Semaphore::MAX_PERMITS)),
        handshakes_by_address: Lanes::new(settings.handshakes_max.div_ceil(2)),
        settings,
        guard: hooks.guard,
        authorizer: authorizer.clone(),
        quotas,
        authenticator: Arc::clone(&authenticator),
        features,
        metrics: Arc::clone(&metrics),
    });
    let requests_bytes = (Arc::clone(&shared.requests_bytes), requests_bytes);
    let task = spawn(run(listeners, shared, shutdown));
    Ok(ServerHandle { addresses, authenticator, metrics, groups, authorizer, requests_bytes, task })
}

#[allow(clippy::disallowed_methods, reason = "the handle is awaited by ServerHandle::join")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future)
}

async fn run(listeners: Vec<Arc<Listening>>, shared: Arc<Shared>, shutdown: impl Future<Output = ()> + Send) {
    let (stop, stopping) = watch::channel(false);
    let groups = spawn(shared.groups.clone().run(stopping.clone()));
    let transactions = spawn(shared.transactions.clone().run(stopping.clone()));
    let mut connections = JoinSet::new();
    let addresses = Arc::new(Addresses::new(shared.requests_bytes_total, shared.settings.request_bytes_max));
    let certificates: Vec<_> = listeners.iter().filter_map(|l| l.tls.clone()).collect();
    let certificates = (!certificates.is_empty()).then(|| spawn(tls::keep_current(certificates, stopping.clone())));
    let mut first = 0;
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => reap(&shared, ended),
            (listener, accepted) = listener::accept(&listeners, &mut first) => match accepted {
                Ok((socket, remote)) => {
                    let slot = match admission::admit(&shared, &addresses, connections.len(), remote) {
                        Ok(slot) => slot,
                        Err(limit) => {
                            shared.metrics.refused();
                            debug!(%remote, limit, "connection refused");
                            continue;
                        }
                    };
                    let Ok(local) = socket.local_addr() else { continue };
                    shared.metrics.connected();
                    let open = OpenConnection::of(&listener.count);
                    let caller = listener.caller(remote, local, &shared.authenticator);
                    let share = slot.share.clone();
                    let run = connection::run(socket, listener, caller, Arc::clone(&shared), share, stopping.clone());
                    connections.spawn(async move {
                        run.await;
                        drop((slot, open));
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop(listeners);
    let _nobody_left = stop.send(true);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            reap(&shared, ended);
        }
    };
    if tokio::time::timeout(shared.settings.shutdown_timeout, finish).await.is_err() {
        debug!(connections = connections.len(), "connections cut off");
        connections.shutdown().await;
    }
    if let Some(certificates) = certificates
        && let Err(error) = certificates.await
    {
        error!(%error, "the look at certificates ended by a defect");
    }
    if let Err(error) = transactions.await {
        error!(%error, "the transaction coordinator ended by a defect");
    }
    if let Err(error) = groups.await {
        error!(%error, "the group coordinator ended by a defect");
    }
}

fn reap(shared: &Shared, ended: Result<(), tokio::task::JoinError>) {
    shared.metrics.disconnected();
    if let Err(error) = ended
        && error.is_panic()
    {
        shared.metrics.panicked();
        error!(%error, "a connection ended by a defect");
    }
}

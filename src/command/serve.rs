//! `millpond serve`: opens the data directory, listens, and goes when it is told to.

mod access;
mod files;
mod key_set;
mod measured;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use millpond::config::Config;
use millpond::memory::{self, FixedParts};
use millpond::{Database, DatabaseOptions};
use millpond_broker::groups::{GroupOffset, QueryGroups};
use millpond_broker::security::Authenticator;
use millpond_broker::security::tls::{self, Tls};
use millpond_broker::server::{Hooks, ServerHandle, ServerSettings, TopicGuard};
use millpond_broker::storage::Storage;
use millpond_engine::Engine;
use millpond_engine::session::{check_property, check_value};
use millpond_server::{ConnectionLimits, HttpOptions, HttpServer, MetricsSource};
use millpond_sql::plan::Relation;
use millpond_types::Pool;
use millpond_types::access::Authority;
use millpond_types::ports::TopicLog;
use millpond_udfs::CompileCommand;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use self::key_set::KeySet;
use self::measured::{BrokerMetrics, GroupMetrics, MemoryMetrics, ProcessMetrics, StorageMetrics, used_of};
use crate::Serve;

pub const DATA_DEFAULT: &str = "./millpond-data";
const HTTP_DEFAULT: &str = "127.0.0.1:8088";
const STACK_BYTES: usize = 8 << 20;
const OPENING_TOLD_EVERY: Duration = Duration::from_secs(3);

pub fn run(args: &Serve) -> Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(data) = &args.data {
        config.data = Some(data.clone());
    }
    config.kafka = args.kafka.clone().or(config.kafka);
    config.http = args.http.clone().or(config.http);
    config.durability = args.durability.clone().or(config.durability);
    config.accept_data_loss = args.accept_data_loss;
    start_log();
    runtime()?.block_on(async {
        // Before anything is said to be ready, so that a signal is never missed.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::start(&config).await?;
        for line in server.listening() {
            say(&line);
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => server.read_certificates(),
            }
        }
        server.stop().await
    })
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // Whoever started this may not read what it says.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Log lines on stderr; `RUST_LOG` chooses them.
fn start_log() {
    log_from("info");
}

/// Only what somebody should act on, for commands that draw on the terminal.
pub fn start_log_quietly() {
    log_from("warn");
}

fn log_from(level: &str) {
    // What strangers do wrong over HTTP/2 is no warning here.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| format!("{level},h2=error").into());
    // A second call in one process changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        // One of them may be kept by a write of what it has received, and nobody else is to wait for that.
        builder.worker_threads(2);
    }
    builder
        .enable_all()
        .thread_name("millpond-io")
        // Statements are parsed and planned on these threads, as deeply nested as they may be.
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(128)
        .build()
        .context("cannot start the I/O threads")
}

/// A whole server in this process.
pub struct Server {
    pub database: Database,
    kafka: ServerHandle,
    http: HttpServer,
    stop_kafka: oneshot::Sender<()>,
    /// Names of Kafka's listeners, in the order of their addresses.
    listeners: Vec<String>,
    certificates: Vec<Arc<Tls>>,
    http_speaks_tls: bool,
    /// What looks for new certificates and keys until the server stops.
    looking: JoinSet<()>,
    stop_looking: watch::Sender<bool>,
}

impl Server {
    pub async fn start(config: &Config) -> Result<Self> {
        let options = options(config)?;
        let path = options.storage.path.clone();
        // Addresses first: they fail at once, and a directory should not be opened in vain.
        let kafka_listeners = access::listeners(config).await?;
        let http_listener = bind("http", config.http.as_deref().unwrap_or(HTTP_DEFAULT)).await?;
        let http_tls = access::http_tls(&config.http_security)?;
        let mut settings = broker_settings(config)?;
        access::configure(config, &mut settings)?;
        let mut http_options = http_options(config, (settings.handshake_timeout, settings.handshakes_max));
        let chosen = config.limits.connections_max.is_some() || config.limits.http_connections_max.is_some();
        files::fit(&options.storage, &mut settings, &mut http_options.connections, chosen);
        let database = open(options).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            path = %path.display(),
            topics = database.storage().all_topics().len(),
            queries = database.engine().catalog().queries.len(),
            "the data directory is open"
        );

        let authenticator = Authenticator::open(database.storage(), access::authentication(config)).await?;
        let (stop_looking, stopping) = watch::channel(false);
        let mut looking = JoinSet::new();
        if let (Some(oauth), Some(tokens)) = (&config.security.oauth, authenticator.tokens()) {
            let keys = KeySet::new(oauth, Arc::clone(tokens)).context("security.oauth")?;
            keys.begin().await.context("security.oauth")?;
            looking.spawn(keys.keep_current(stopping.clone()));
        }
        if let Some(tls) = &http_tls {
            looking.spawn(tls::keep_current(vec![Arc::clone(tls)], stopping));
        }
        let http_security = access::http(
            config,
            &kafka_listeners,
            http_tls.as_ref(),
            http_listener.local_addr().ok(),
            &authenticator,
            &settings.handshake_turns,
        );
        let listeners = kafka_listeners.iter().map(|l| l.endpoint.name.clone()).collect();
        let certificates = kafka_listeners.iter().filter_map(|l| l.tls.clone()).chain(http_tls.clone()).collect();
        let (fetches, answers) = (settings.fetch_memory.clone(), settings.answers.clone());
        let bodies = Pool::root("http_bodies", fixed_parts(config).http_bodies);
        let hooks = Hooks {
            guard: Arc::new(SinkGuard(database.engine().clone())),
            query_groups: Some(Arc::new(Cursors(database.storage().clone()))),
            authenticator: Some(Arc::clone(&authenticator)),
            ..Hooks::default()
        };
        let (stop_kafka, stopped) = oneshot::channel();
        let until = async {
            // Dropped without a word means stop as well.
            let _ = stopped.await;
        };
        let kafka =
            millpond_broker::server::serve(kafka_listeners, database.storage().clone(), settings, hooks, until).await?;
        database.engine().count_consumers(Arc::new(kafka.groups().clone()));
        let metrics: Vec<Arc<dyn MetricsSource>> = vec![
            Arc::new(BrokerMetrics(kafka.metrics(), Arc::clone(&authenticator))),
            Arc::new(StorageMetrics(database.storage().clone())),
            Arc::new(GroupMetrics(kafka.groups().clone())),
            Arc::new(ProcessMetrics),
            Arc::new(MemoryMetrics {
                database: database.clone(),
                listeners: vec![
                    ("requests_bytes_max", Box::new(kafka.requests_bytes())),
                    ("fetch_answers_bytes_max", used_of(&fetches)),
                    ("answers_bytes_max", used_of(&answers)),
                    ("http_bodies_bytes_max", used_of(&bodies)),
                    ("delegation_tokens_bytes_max", Box::new(move || authenticator.delegation().bytes())),
                ],
            }),
        ];
        let storage = database.storage().clone();
        let http_options = HttpOptions {
            authority: kafka.authorizer().map(|authorizer| Arc::new(authorizer.clone()) as Arc<dyn Authority>),
            memory: bodies,
            is_writable: Arc::new(move || storage.health().writable),
            ..http_options
        };
        let cluster = database.storage().cluster_id().to_string();
        let http = millpond_server::serve(
            http_listener,
            database.engine().clone(),
            cluster,
            metrics,
            http_options,
            http_security,
        )?;
        let http_speaks_tls = http_tls.is_some();
        Ok(Self { database, kafka, http, stop_kafka, listeners, certificates, http_speaks_tls, looking, stop_looking })
    }

    /// A line for each listener, with the address that it came to have.
    fn listening(&self) -> Vec<String> {
        let kafka = self.listeners.iter().zip(self.kafka.addresses()).map(|(name, address)| match name.as_str() {
            "PLAINTEXT" => format!("kafka listening on {address}"),
            name => format!("kafka {name} listening on {address}"),
        });
        let scheme = if self.http_speaks_tls { "https" } else { "http" };
        kafka.chain([format!("http listening on {scheme}://{}", self.http.address)]).collect()
    }

    /// Whoever changed certificates need not wait until that is noticed.
    fn read_certificates(&self) {
        self.certificates.iter().for_each(|tls| tls.reload_logged());
    }

    pub fn kafka_address(&self) -> std::net::SocketAddr {
        self.kafka.local_addr()
    }

    pub fn http_address(&self) -> std::net::SocketAddr {
        self.http.address
    }

    /// Answers what is under way, ends queries at the end of their step, writes everything out.
    pub async fn stop(self) -> Result<()> {
        tracing::info!("stopping: requests and steps of queries under way are finished");
        let _ = self.stop_kafka.send(());
        let _ = self.stop_looking.send(true);
        let mut looking = self.looking;
        while looking.join_next().await.is_some() {}
        self.http.shutdown().await;
        self.kafka.join().await;
        let database = self.database;
        tokio::task::spawn_blocking(move || database.close()).await??;
        tracing::info!("the data directory is closed");
        Ok(())
    }
}

/// Opens the data directory, and says that it is at it where that takes long: after a crash the log of RocksDB is read.
async fn open(options: DatabaseOptions) -> Result<Database> {
    let path = options.storage.path.clone();
    let opening = tokio::task::spawn_blocking(move || Database::open_with(options));
    tokio::pin!(opening);
    let begun = tokio::time::Instant::now();
    loop {
        tokio::select! {
            opened = &mut opening => return Ok(opened??),
            () = tokio::time::sleep(OPENING_TOLD_EVERY) => {
                let seconds = begun.elapsed().as_secs();
                tracing::info!(path = %path.display(), seconds, "still opening the data directory");
            }
        }
    }
}

async fn bind(what: &str, address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen for {what} on \"{address}\"; choose another address with --{what} HOST:PORT")
    })
}

fn options(config: &Config) -> Result<DatabaseOptions> {
    config.check()?;
    let mut options = DatabaseOptions::new(config.data.clone().unwrap_or_else(|| DATA_DEFAULT.into()));
    options.storage.durability = config.durability()?;
    options.storage.accept_data_loss = config.accept_data_loss;
    fn set<T: Copy>(target: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *target = value;
        }
    }
    let limits = &config.limits;
    let parts = fixed_parts(config);
    options.storage.write_buffer_bytes = parts.write_buffer;
    options.storage.block_cache_bytes = parts.block_cache;
    options.storage.produce_queue_bytes = parts.produce_queue;
    options.storage.decoder_bytes = parts.decoders;
    options.storage.step_queue_bytes = parts.step_queue;
    options.storage.tail_bytes = parts.tails;
    options.storage.read_ahead_bytes = parts.read_ahead;
    options.storage.write_bytes_max = parts.write;
    options.memory_budget = config.memory.budget;
    options.memory_set_aside = vec![
        ("requests_bytes_max", parts.requests),
        ("fetch_answers_bytes_max", parts.fetch_answers),
        ("answers_bytes_max", parts.answers),
        ("fetch_sessions_bytes_max", parts.fetch_sessions),
        ("http_bodies_bytes_max", parts.http_bodies),
        ("group_members_bytes_max", parts.group_members),
        ("group_offsets_bytes_max", parts.group_offsets),
        ("transactions_bytes_max", parts.transactions),
        ("delegation_tokens_bytes_max", parts.delegation_tokens),
    ];
    set(&mut options.storage.log_file_bytes, limits.log_file_bytes);
    set(&mut options.storage.log_files_open_max, limits.log_files_open_max);
    set(&mut options.storage.inline_bytes_max, limits.inline_bytes_max);
    set(&mut options.storage.partition_producers_max, limits.partition_producers_max);
    set(&mut options.storage.gather_wait_max, limits.gather_wait_us_max.map(Duration::from_micros));
    set(&mut options.storage.log_prewrite, limits.log_prewrite);
    set(&mut options.storage.disk_free_bytes_min, limits.disk_free_bytes_min);
    set(&mut options.storage.disk_reserve_bytes, limits.disk_reserve_bytes);
    options.storage.compaction_map_bytes = parts.compaction_map;
    set(&mut options.storage.compaction_bytes_per_second, limits.compaction_bytes_per_second);
    set(&mut options.storage.decompressed_bytes_max, limits.decompressed_bytes_max);
    if let Some(interval) = config.broker.log_retention_check_interval_ms.map(Duration::from_millis) {
        options.storage.retention_grace = interval;
        options.storage.retention_interval = options.storage.retention_interval.min(interval);
    }
    set(&mut options.storage.partitions_default, config.broker.partitions_default);
    set(&mut options.storage.producer_expiration, config.broker.producer_id_expiration_ms.map(milliseconds));
    set(&mut options.storage.any_replication_factor, config.broker.any_replication_factor);
    set(&mut options.engine.pull_rows_max, limits.pull_rows_max);
    set(&mut options.engine.push_queries_max, limits.push_queries_max);
    set(&mut options.engine.queries_max, limits.queries_max);
    set(&mut options.engine.workers, limits.workers);
    set(&mut options.guests.guest_memory_bytes_max, limits.guest_memory_bytes_max);
    set(&mut options.guests.module_bytes_max, limits.upload_bytes_max);
    for (name, value) in &config.ksql {
        check_property(name).and_then(|()| check_value(name, value)).map_err(|e| anyhow!("[ksql]: {}", e.message()))?;
    }
    options.engine.properties = config.ksql.clone();
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    options.compiler = Some(CompileCommand { program, args: vec!["compile-udf".into()] });
    Ok(options)
}

/// Of a setting that was checked to be positive.
fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// What suits the budget, unless a setting says otherwise.
fn fixed_parts(config: &Config) -> FixedParts {
    let parts = FixedParts::of(config.memory.budget.unwrap_or_else(memory::default_budget));
    let limits = &config.limits;
    FixedParts {
        write_buffer: limits.write_buffer_bytes.unwrap_or(parts.write_buffer),
        block_cache: limits.block_cache_bytes.unwrap_or(parts.block_cache),
        tails: limits.tail_bytes.unwrap_or(parts.tails),
        read_ahead: limits.read_ahead_bytes.unwrap_or(parts.read_ahead),
        produce_queue: limits.produce_queue_bytes.unwrap_or(parts.produce_queue),
        decoders: limits.decoder_bytes.unwrap_or(parts.decoders),
        step_queue: limits.step_queue_bytes.unwrap_or(parts.step_queue),
        write: parts.write,
        compaction_map: limits.compaction_map_bytes.unwrap_or(parts.compaction_map),
        // One request must always fit.
        requests: limits.requests_bytes_max.unwrap_or(parts.requests).max(limits.request_bytes_max.unwrap_or(0)),
        fetch_answers: limits.fetch_answers_bytes_max.unwrap_or(parts.fetch_answers),
        answers: limits.answers_bytes_max.unwrap_or(parts.answers),
        fetch_sessions: limits.fetch_sessions_bytes_max.unwrap_or(parts.fetch_sessions),
        http_bodies: limits.http_bodies_bytes_max.unwrap_or(parts.http_bodies),
        group_members: limits.group_members_bytes_max.unwrap_or(parts.group_members),
        group_offsets: limits.group_offsets_bytes_max.unwrap_or(parts.group_offsets),
        transactions: limits.transactions_bytes_max.unwrap_or(parts.transactions),
        delegation_tokens: limits.delegation_tokens_bytes_max.unwrap_or(parts.delegation_tokens),
    }
}

/// What the configuration says about HTTP; `handshakes` as of Kafka's listeners.
fn http_options(config: &Config, handshakes: (Duration, usize)) -> HttpOptions {
    let (limits, defaults) = (&config.limits, HttpOptions::default());
    let of = defaults.connections;
    let milliseconds = |value: Option<u64>, default| value.map_or(default, Duration::from_millis);
    let connections_max = limits.http_connections_max.unwrap_or(of.connections_max);
    let connections = ConnectionLimits {
        connections_max,
        // One address never has all of them, unless it is said that it may.
        connections_per_address_max: limits.http_connections_per_address_max.unwrap_or(connections_max.div_ceil(2)),
        requests_max: limits.http_requests_max.unwrap_or(of.requests_max),
        handshake_timeout: handshakes.0,
        handshakes_max: handshakes.1,
        headers_timeout: milliseconds(limits.http_headers_timeout_ms, of.headers_timeout),
        headers_bytes_max: limits.http_headers_bytes_max.unwrap_or(of.headers_bytes_max),
        idle_timeout: milliseconds(limits.http_idle_timeout_ms, of.idle_timeout),
        stall_timeout: milliseconds(limits.http_stall_timeout_ms, of.stall_timeout),
        ping_interval: milliseconds(limits.http_ping_interval_ms, of.ping_interval),
        streams_max: limits.http2_streams_max.unwrap_or(of.streams_max),
    };
    HttpOptions {
        request_bytes_max: limits.http_request_bytes_max.unwrap_or(defaults.request_bytes_max),
        upload_bytes_max: limits.upload_bytes_max.unwrap_or(defaults.upload_bytes_max),
        connections,
        statements_max: limits.http_statements_max.unwrap_or(defaults.statements_max),
        inserts_max: limits.http_inserts_max.unwrap_or(defaults.inserts_max),
        body_bytes_per_second_min: limits.http_body_bytes_per_second_min.unwrap_or(defaults.body_bytes_per_second_min),
        inserts_silence_max: milliseconds(limits.http_inserts_silence_max_ms, defaults.inserts_silence_max),
        ..defaults
    }
}

fn broker_settings(config: &Config) -> Result<ServerSettings> {
    let mut settings = ServerSettings::default();
    let parts = fixed_parts(config);
    settings.requests_bytes_max = parts.requests;
    settings.request_bytes_max = settings.request_bytes_max.min(parts.requests);
    settings.fetch_bytes_max = settings.fetch_bytes_max.min(parts.fetch_answers);
    settings.fetch_memory = Pool::root("fetch_answers", parts.fetch_answers);
    settings.answers = Pool::root("answers", parts.answers);
    // Half of what there is for all of them, so that nobody has all of it.
    let half = settings.answer_bytes_max.min(parts.answers / 2);
    settings.answer_bytes_max = config.limits.answer_bytes_max.unwrap_or(half).min(parts.answers);
    settings.groups.group_bytes_max = settings.answer_bytes_max;
    settings.groups.members_bytes_max = parts.group_members;
    settings.groups.offsets_bytes_max = parts.group_offsets;
    settings.transactions.bytes_max = parts.transactions;
    settings.fetch_sessions_bytes_max = parts.fetch_sessions;
    if let Some(bytes) = config.limits.transaction_bytes_max {
        settings.transactions.transaction_bytes_max = bytes;
    }
    if let Some(groups) = config.limits.groups_max {
        settings.groups.groups_max = groups;
    }
    if let Some(ids) = config.limits.transactional_ids_max {
        settings.transactions.ids_max = ids;
    }
    if let Some(create) = config.broker.auto_create_topics {
        settings.auto_create_topics = create;
    }
    if let Some(bytes) = config.limits.request_bytes_max {
        settings.request_bytes_max = bytes;
    }
    if let Some(connections) = config.limits.connections_max {
        settings.connections_max = connections;
    }
    if let Some(sessions) = config.limits.fetch_sessions_max {
        settings.fetch_sessions_max = sessions;
    }
    if let Some(partitions) = config.limits.fetch_session_partitions_max {
        settings.fetch_session_partitions_max = partitions;
    }
    if let Some(partitions) = config.limits.fetch_sessions_partitions_max {
        settings.fetch_sessions_partitions_max = partitions;
    }
    // One address never has all of them, unless it is said that it may.
    let half = settings.connections_max.div_ceil(2);
    settings.connections_per_address_max = config.limits.connections_per_address_max.unwrap_or(half);
    if let Some(bytes) = config.limits.connection_bytes_max {
        settings.connection_bytes_max = bytes;
    }
    if let Some(requests) = config.limits.pipelined_requests_max {
        settings.pipelined_requests_max = requests;
    }
    if let Some(elements) = config.limits.request_elements_max {
        settings.request_elements_max = elements;
    }
    if let Some(ms) = config.broker.group_initial_rebalance_delay_ms {
        settings.groups.initial_rebalance_delay_ms = ms;
    }
    if let Some(ms) = config.broker.group_min_session_timeout_ms {
        settings.groups.session_timeout_min_ms = ms;
    }
    if let Some(ms) = config.broker.group_consumer_session_timeout_ms {
        settings.groups.consumer_session_timeout_ms = ms;
    }
    if let Some(ms) = config.broker.group_consumer_heartbeat_interval_ms {
        settings.groups.consumer_heartbeat_interval_ms = ms;
    }
    if let Some(rows) = config.broker.group_lag_rows_max {
        settings.groups.lag_rows_max = rows;
    }
    if let Some(ms) = config.broker.group_offsets_retention_ms {
        settings.groups.offsets_retention_ms = ms;
    }
    if let Some(ms) = config.broker.group_max_session_timeout_ms {
        settings.groups.session_timeout_max_ms = ms;
    }
    let count = |value: Option<i32>| value.and_then(|value| usize::try_from(value).ok());
    if let Some(members) = count(config.broker.group_members_max) {
        settings.groups.members_max = members;
    }
    if let Some(characters) = count(config.broker.group_offset_metadata_max) {
        settings.groups.offset_metadata_max = characters;
    }
    if let Some(ms) = config.broker.transaction_timeout_max_ms {
        settings.transactions.timeout_max_ms = ms;
    }
    if let Some(ms) = config.broker.transactional_id_expiration_ms {
        settings.transactions.expiration_ms = ms.into();
    }
    settings.named = config.named();
    Ok(settings)
}

/// Clients may not write where a table's query writes: its state would no longer be what its topic says.
struct SinkGuard(Engine);

impl TopicGuard for SinkGuard {
    fn refuse_write(&self, topic: &str) -> Option<String> {
        let catalog = self.0.catalog();
        let table = catalog.sources.values().find(|s| {
            s.topic == topic
                && s.relation == Relation::Table
                && catalog.writers(&s.name).any(|q| q.creates_sink && !s.read_only)
        })?;
        Some(format!("topic \"{topic}\" is written by the query of table \"{}\" alone", table.name))
    }

    fn refuse_delete(&self, topic: &str) -> Option<String> {
        let catalog = self.0.catalog();
        let source = catalog.sources.values().find(|s| s.topic == topic)?;
        let user = catalog.readers(&source.name).chain(catalog.writers(&source.name)).next()?;
        Some(format!("topic \"{topic}\" is used by query \"{}\"", user.id))
    }
}

/// Cursors of persistent queries, as read-only consumer groups.
struct Cursors(Storage);

/// Before the id of a query whose cursors are shown as a consumer group; as ksqlDB names its groups.
const QUERY_GROUP_PREFIX: &str = "_confluent-ksql-default_query_";

impl QueryGroups for Cursors {
    fn owns(&self, group: &str) -> bool {
        group.starts_with(QUERY_GROUP_PREFIX)
    }

    fn offsets(&self) -> Vec<GroupOffset> {
        let cursors = self.0.query_cursors().unwrap_or_default();
        cursors
            .into_iter()
            .filter_map(|c| {
                Some(GroupOffset {
                    group: format!("{QUERY_GROUP_PREFIX}{}", c.query),
                    topic: self.0.topic_by_id(c.source.topic)?.name,
                    partition: c.source.partition,
                    offset: c.offset,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_on_how_many_there_are_come_from_the_file() {
        let counts = |text: &str| {
            let config = Config::parse(text).unwrap();
            let (settings, options) = (broker_settings(&config).unwrap(), options(&config).unwrap());
            let groups = (settings.groups.groups_max, settings.groups.members_max);
            (groups, settings.transactions.ids_max, options.storage.partition_producers_max)
        };
        assert_eq!(counts(""), ((100_000, 10_000), 100_000, 10_000));
        let given = "[limits]\ngroups_max = 5\ntransactional_ids_max = 7\npartition_producers_max = 8\n[broker]\ngroup_members_max = 6\n";
        assert_eq!(counts(given), ((5, 6), 7, 8));
    }
}

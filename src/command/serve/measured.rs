//! What `/metrics` shows of the server: each part's own numbers under the names that `docs/metrics.md` lists.
//!
//! Not here: counting (`broker::metrics`, `broker::storage`), the text form and the counters of queries (`server`).

use std::sync::Arc;

use millpond::Database;
use millpond::memory::Gauge;
use millpond_broker::groups::{Coordinator, GroupLag};
use millpond_broker::metrics::{Counted, Metrics};
use millpond_broker::security::Authenticator;
use millpond_broker::storage::Storage;
use millpond_server::{MetricsSource, Sample, Value};
use millpond_types::Pool;
use millpond_types::budget::PoolUse;

type Labels = Vec<(&'static str, String)>;

fn sample(name: &'static str, help: &'static str, labels: Labels, value: Value) -> Sample {
    Sample { name, help, labels, value }
}

fn counter(name: &'static str, help: &'static str, value: f64) -> Sample {
    sample(name, help, Vec::new(), Value::Counter(value))
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Sample {
    sample(name, help, Vec::new(), Value::Gauge(value))
}

fn histogram(counted: Counted) -> Value {
    Value::Histogram { buckets: counted.buckets, sum: counted.sum_seconds, count: counted.count }
}

/// The listeners of Kafka's protocol.
pub struct BrokerMetrics(pub Arc<Metrics>, pub Arc<Authenticator>);

impl MetricsSource for BrokerMetrics {
    fn samples(&self) -> Vec<Sample> {
        let snapshot = self.0.snapshot();
        let api = |api: &'static str| vec![("api", api.to_string())];
        let requests = snapshot.requests_total.iter();
        let mut samples: Vec<Sample> = requests
            .map(|(name, count)| {
                sample("broker_requests_total", "Requests by API.", api(name), Value::Counter(*count as f64))
            })
            .collect();
        let help = "From a request's last byte to its answer's; what waits for records or members waits in it.";
        samples.extend(
            snapshot
                .latencies
                .into_iter()
                .map(|(name, counted)| sample("broker_request_duration_seconds", help, api(name), histogram(counted))),
        );
        let listener = |name: &String| vec![("listener", name.clone())];
        samples.extend(snapshot.listeners.iter().map(|(name, open, _)| {
            sample("broker_connections", "Open connections.", listener(name), Value::Gauge(*open as f64))
        }));
        samples.extend(snapshot.listeners.iter().map(|(name, _, all)| {
            sample("broker_connections_total", "Connections accepted.", listener(name), Value::Counter(*all as f64))
        }));
        let (accepted, denied) = self.1.counts();
        samples.extend([
            counter("broker_authentications_total", "Authentications that succeeded.", accepted as f64),
            counter("broker_authentications_failed_total", "Authentications that failed.", denied as f64),
            counter(
                "broker_handshakes_failed_total",
                "Connections that ended before TLS was agreed on.",
                snapshot.handshakes_failed_total as f64,
            ),
            counter("broker_bytes_in_total", "Bytes of requests.", snapshot.bytes_in_total as f64),
            counter("broker_bytes_out_total", "Bytes of responses.", snapshot.bytes_out_total as f64),
            counter(
                "broker_connections_refused_total",
                "Connections refused for their number.",
                snapshot.connections_refused_total as f64,
            ),
            counter(
                "broker_throttled_total",
                "Answers that told a client to wait for its quota.",
                snapshot.throttled_total as f64,
            ),
            counter(
                "broker_throttled_seconds_total",
                "How long clients were told to wait, all together.",
                snapshot.throttled_seconds_total,
            ),
            counter("broker_malformed_total", "Requests that could not be read.", snapshot.malformed_total as f64),
            counter("broker_panics_total", "Defects caught in a connection.", snapshot.panics_total as f64),
            counter(
                "broker_batches_refused_total",
                "Batches refused by their checks.",
                snapshot.batches_refused_total as f64,
            ),
        ]);
        samples
    }
}

/// The log and its disk.
pub struct StorageMetrics(pub Storage);

impl MetricsSource for StorageMetrics {
    fn samples(&self) -> Vec<Sample> {
        let (s, health) = (self.0.measure(), self.0.health());
        let flag = |is: bool| f64::from(u8::from(is));
        let help = "One write of all that waited, with its fsync where there is one.";
        let mut samples = vec![
            sample("storage_commit_duration_seconds", help, Vec::new(), histogram(s.commits)),
            counter(
                "storage_commit_bytes_total",
                "Bytes given to RocksDB, its write-ahead log first.",
                s.commit_bytes_total as f64,
            ),
            counter("storage_writes_failed_total", "Writes that failed.", health.writes_failed as f64),
            counter(
                "storage_forces_failed_total",
                "Fsyncs that failed of what had been acknowledged.",
                health.forces_failed as f64,
            ),
            gauge(
                "storage_writable",
                "0 while nothing is written: a write or an fsync failed, or the disk is nearly full.",
                flag(health.writable),
            ),
            gauge(
                "storage_in_doubt",
                "1 while it is not known whether all that was acknowledged is on disk, after an fsync that failed.",
                flag(health.in_doubt),
            ),
            gauge("storage_wal_bytes", "Size of RocksDB's write-ahead log.", s.wal_bytes as f64),
            gauge("storage_write_stopped", "1 while RocksDB stops writes.", flag(s.write_stopped)),
            gauge(
                "storage_write_delayed_bytes_per_second",
                "What RocksDB slows writes down to; 0 where it does not.",
                s.write_delayed_bytes_per_second as f64,
            ),
            gauge(
                "storage_step_delay_seconds",
                "How long each step of a query is held back for producers' sake.",
                s.step_delay_ms as f64 / 1000.0,
            ),
            gauge("storage_disk_full", "1 while less is free than \"disk_free_bytes_min\".", flag(s.disk_full)),
            gauge("storage_topics", "Topics.", s.topics as f64),
            gauge("storage_partitions", "Partitions of all topics.", s.partitions as f64),
            gauge("storage_log_bytes", "Bytes of all records as they are kept.", s.log_bytes as f64),
            gauge("storage_log_files", "Log files.", s.log_files as f64),
            gauge("storage_log_file_bytes", "Size of the log files.", s.log_file_bytes as f64),
            gauge(
                "storage_log_file_dead_bytes",
                "Bytes in log files that no record lies in any more.",
                s.log_file_dead_bytes as f64,
            ),
            counter("storage_compaction_passes_total", "Passes of log compaction.", s.compaction_passes_total as f64),
            counter("storage_compaction_read_bytes_total", "Bytes it looked at.", s.compaction_bytes_read_total as f64),
            counter(
                "storage_compaction_written_bytes_total",
                "Bytes it wrote anew.",
                s.compaction_bytes_written_total as f64,
            ),
            counter(
                "storage_compaction_freed_bytes_total",
                "Bytes it left out.",
                s.compaction_bytes_freed_total as f64,
            ),
            gauge(
                "storage_compaction_backlog_bytes",
                "Bytes of compacted topics that could be compacted and are not yet.",
                s.compaction_backlog_bytes as f64,
            ),
            counter("storage_compaction_failures_total", "Passes that failed.", s.compaction_failures_total as f64),
            gauge(
                "storage_compaction_last_failure_timestamp_seconds",
                "When one last failed, since 1970; 0 for never.",
                s.compaction_failed_seconds,
            ),
            gauge(
                "storage_compaction_damaged_partitions",
                "Partitions that compaction leaves alone for their damage.",
                s.compaction_damaged_partitions as f64,
            ),
            counter(
                "storage_retention_freed_bytes_total",
                "Bytes deleted for their age or number.",
                s.retention_bytes_freed_total as f64,
            ),
        ];
        if let Some((total, free)) = s.volume {
            samples.push(gauge("storage_volume_bytes", "Size of the disk that the data lies on.", total as f64));
            samples.push(gauge("storage_volume_free_bytes", "What can still be written to it.", free as f64));
        }
        samples
    }
}

pub fn used_of(pool: &Pool) -> Gauge {
    let pool = pool.clone();
    Box::new(move || pool.used())
}

/// The memory budget, pool by pool.
pub struct MemoryMetrics {
    pub database: Database,
    /// What the listeners use of the parts that are theirs.
    pub listeners: Vec<(&'static str, Gauge)>,
}

impl MetricsSource for MemoryMetrics {
    fn samples(&self) -> Vec<Sample> {
        let of_storage = self.database.storage().memory_used();
        let used = |part: &str| {
            let listener = self.listeners.iter().find(|(name, _)| *name == part).map(|(_, used)| used());
            listener.or_else(|| of_storage.iter().find(|(name, _)| *name == part).map(|(_, used)| *used))
        };
        let uses = self.database.memory().uses(&used);
        let each = |name, help, value: fn(&PoolUse) -> Value| {
            uses.iter().map(move |pool| sample(name, help, vec![("pool", pool.name.clone())], value(pool)))
        };
        let limit =
            each("memory_limit_bytes", "Limit of a pool of the memory budget.", |p| Value::Gauge(p.limit as f64));
        let used = each("memory_used_bytes", "What is used of it.", |p| Value::Gauge(p.used as f64));
        let refused = each("memory_refused_total", "How often it was too full.", |p| Value::Counter(p.refused as f64));
        limit.chain(used).chain(refused).collect()
    }
}

/// How far groups and queries have read, under the names that Kafka's exporters made known.
pub struct GroupMetrics(pub Coordinator);

impl MetricsSource for GroupMetrics {
    fn samples(&self) -> Vec<Sample> {
        let lags = self.0.lags();
        let each = |name, help, pick: fn(&GroupLag) -> i64| {
            lags.rows.iter().map(move |row| {
                let partition = row.partition.to_string();
                let labels = vec![("group", row.group.clone()), ("topic", row.topic.clone()), ("partition", partition)];
                sample(name, help, labels, Value::Gauge(pick(row) as f64))
            })
        };
        let offset = each("consumergroup_current_offset", "Offset that a group has committed.", |row| row.committed);
        let lag = each("consumergroup_lag", "Offsets from a group's to the end of the log.", |row| row.lag);
        let help = "Committed offsets beyond \"group_lag_rows_max\", which are not shown.";
        let left_out = gauge("consumergroup_offsets_left_out", help, lags.left_out as f64);
        offset.chain(lag).chain([left_out]).collect()
    }
}

/// What the operating system says of this process.
pub struct ProcessMetrics;

impl MetricsSource for ProcessMetrics {
    fn samples(&self) -> Vec<Sample> {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split_whitespace().nth(1).and_then(|p| p.parse::<f64>().ok());
        let bytes = pages.map(|pages| pages * rustix::param::page_size() as f64);
        let resident = |bytes| gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", bytes);
        bytes.map(resident).into_iter().collect()
    }
}

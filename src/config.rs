//! The configuration file of `millpond serve`: the same as its flags, and the limits.
//!
//! Every setting has a default; an unknown one is an error that names it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// `--config FILE`, in TOML.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Data directory.
    pub data: Option<PathBuf>,
    /// Address of the Kafka listener.
    pub kafka: Option<String>,
    /// Host and port that Kafka clients are told to connect to; the listener's own where absent.
    pub kafka_advertised: Option<String>,
    /// Address of the HTTP listener.
    pub http: Option<String>,
    /// `none`, `group` (an fsync per group commit) or milliseconds between fsyncs.
    pub durability: Option<String>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub broker: Broker,
    /// Properties of ksqlDB for all sessions.
    #[serde(default)]
    pub ksql: std::collections::BTreeMap<String, String>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub write_buffer_bytes: Option<usize>,
    pub block_cache_bytes: Option<usize>,
    pub produce_queue_bytes: Option<usize>,
    pub step_queue_bytes: Option<usize>,
    pub tail_bytes: Option<usize>,
    pub request_bytes_max: Option<usize>,
    pub connections_max: Option<usize>,
    pub http_request_bytes_max: Option<usize>,
    pub pull_rows_max: Option<usize>,
    pub push_queries_max: Option<usize>,
    pub queries_max: Option<usize>,
    pub workers: Option<usize>,
    pub guest_memory_bytes_max: Option<usize>,
    pub upload_bytes_max: Option<usize>,
}

/// `[broker]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    pub auto_create_topics: Option<bool>,
    pub partitions_default: Option<i32>,
    pub group_initial_rebalance_delay_ms: Option<i64>,
    pub group_min_session_timeout_ms: Option<i32>,
}

impl Config {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
        toml::from_str(&text).with_context(|| format!("\"{}\" is not a valid configuration", path.display()))
    }

    pub fn durability(&self) -> Result<millpond_broker::storage::Durability> {
        use millpond_broker::storage::Durability;
        match self.durability.as_deref() {
            None | Some("group") => Ok(Durability::Group),
            Some("none") => Ok(Durability::None),
            Some(text) => match text.parse::<u64>() {
                Ok(ms) if ms > 0 => Ok(Durability::Interval(Duration::from_millis(ms))),
                _ => bail!("durability is \"group\", \"none\" or milliseconds between fsyncs, not \"{text}\""),
            },
        }
    }

    /// The host and port that clients are told.
    pub fn advertised(&self) -> Result<Option<(String, u16)>> {
        let Some(text) = &self.kafka_advertised else { return Ok(None) };
        let (host, port) = text.rsplit_once(':').context("kafka_advertised is HOST:PORT")?;
        let port = port.parse().with_context(|| format!("\"{port}\" in kafka_advertised is not a port"))?;
        Ok(Some((host.trim_matches(['[', ']']).to_string(), port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_setting_is_named() {
        let error = toml::from_str::<Config>("[limits]\nwrite_bufer_bytes = 1\n").unwrap_err().to_string();
        assert!(error.contains("write_bufer_bytes"), "{error}");
        let config: Config = toml::from_str("data = 'd'\n[ksql]\n'auto.offset.reset' = 'earliest'\n").unwrap();
        assert_eq!(config.ksql["auto.offset.reset"], "earliest");
    }
}

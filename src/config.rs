//! The configuration file of `millpond serve`: the same as its flags, and the limits.
//!
//! Every setting has a default; an unknown one is an error that names it.

mod numbers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millpond_broker::groups::GroupSettings;
use millpond_broker::security::AuthorizationSettings;
use millpond_broker::server::ServerSettings;
use serde::Deserialize;

/// The settings of TLS that a section has.
macro_rules! tls_of {
    ($section:expr) => {
        Tls {
            certificate: $section.certificate.clone(),
            key: $section.key.clone(),
            client_ca: $section.client_ca.clone(),
            client_crls: $section.client_crls.clone(),
            client_auth: $section.client_auth.clone(),
            principal_mapping: $section.principal_mapping.clone(),
        }
    };
}

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
    /// Further Kafka listeners, each with its own protocol.
    #[serde(default)]
    pub listener: Vec<Listener>,
    #[serde(default)]
    pub security: Security,
    #[serde(default)]
    pub http_security: HttpSecurity,
    /// `none`, `group` (an fsync per group commit) or `interval:MS` (so many milliseconds between fsyncs).
    pub durability: Option<String>,
    /// Of the command alone: a loss is accepted once, not for good.
    #[serde(skip)]
    pub accept_data_loss: bool,
    #[serde(default)]
    pub memory: Memory,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub broker: Broker,
    /// Properties of ksqlDB for all sessions.
    #[serde(default)]
    pub ksql: BTreeMap<String, String>,
}

/// `[memory]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Bytes that the process may take; all other limits on memory add up to this.
    pub budget: Option<usize>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub write_buffer_bytes: Option<usize>,
    pub block_cache_bytes: Option<usize>,
    pub produce_queue_bytes: Option<usize>,
    pub decoder_bytes: Option<usize>,
    pub step_queue_bytes: Option<usize>,
    pub tail_bytes: Option<usize>,
    pub read_ahead_bytes: Option<usize>,
    pub compaction_map_bytes: Option<usize>,
    pub disk_free_bytes_min: Option<u64>,
    pub disk_reserve_bytes: Option<u64>,
    pub log_file_bytes: Option<u64>,
    pub log_files_open_max: Option<usize>,
    pub inline_bytes_max: Option<usize>,
    pub gather_wait_us_max: Option<u64>,
    pub log_prewrite: Option<bool>,
    pub compaction_bytes_per_second: Option<u64>,
    pub decompressed_bytes_max: Option<usize>,
    pub request_bytes_max: Option<usize>,
    pub requests_bytes_max: Option<usize>,
    pub request_elements_max: Option<usize>,
    pub fetch_answers_bytes_max: Option<usize>,
    pub answers_bytes_max: Option<usize>,
    pub answer_bytes_max: Option<usize>,
    pub http_bodies_bytes_max: Option<usize>,
    pub group_members_bytes_max: Option<usize>,
    pub group_offsets_bytes_max: Option<usize>,
    pub transactions_bytes_max: Option<usize>,
    pub delegation_tokens_bytes_max: Option<usize>,
    pub connections_max: Option<usize>,
    pub fetch_sessions_max: Option<usize>,
    pub fetch_session_partitions_max: Option<usize>,
    pub fetch_sessions_partitions_max: Option<usize>,
    pub fetch_sessions_bytes_max: Option<usize>,
    pub transaction_bytes_max: Option<usize>,
    pub groups_max: Option<usize>,
    pub transactional_ids_max: Option<usize>,
    pub partition_producers_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
    pub connection_bytes_max: Option<usize>,
    pub pipelined_requests_max: Option<usize>,
    pub http_request_bytes_max: Option<usize>,
    pub http_connections_max: Option<usize>,
    pub http_connections_per_address_max: Option<usize>,
    pub http_requests_max: Option<usize>,
    pub http_statements_max: Option<usize>,
    pub http_inserts_max: Option<usize>,
    pub http_headers_timeout_ms: Option<u64>,
    pub http_headers_bytes_max: Option<usize>,
    pub http_idle_timeout_ms: Option<u64>,
    pub http_stall_timeout_ms: Option<u64>,
    pub http_body_bytes_per_second_min: Option<u64>,
    pub http_inserts_silence_max_ms: Option<u64>,
    pub http_ping_interval_ms: Option<u64>,
    pub http2_streams_max: Option<u32>,
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
    pub any_replication_factor: Option<bool>,
    pub group_initial_rebalance_delay_ms: Option<i64>,
    pub group_min_session_timeout_ms: Option<i32>,
    pub group_max_session_timeout_ms: Option<i32>,
    pub group_members_max: Option<i32>,
    pub group_offset_metadata_max: Option<i32>,
    pub group_lag_rows_max: Option<usize>,
    pub group_offsets_retention_ms: Option<i64>,
    pub log_retention_check_interval_ms: Option<u64>,
    pub group_consumer_session_timeout_ms: Option<i32>,
    pub group_consumer_heartbeat_interval_ms: Option<i32>,
    pub transaction_timeout_max_ms: Option<i32>,
    pub transactional_id_expiration_ms: Option<i32>,
    pub producer_id_expiration_ms: Option<i32>,
}

/// `[[listener]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where clients connect. Empty where absent, which is refused.
    #[serde(default)]
    pub address: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`. Empty where absent, which is refused.
    #[serde(default)]
    pub protocol: String,
    /// The protocol's where absent.
    pub name: Option<String>,
    /// Host and port that clients are told.
    pub advertised: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`.
    pub mechanisms: Option<Vec<String>>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    #[serde(default)]
    pub client_crls: Vec<PathBuf>,
    pub client_auth: Option<String>,
    pub principal_mapping: Option<String>,
}

impl Listener {
    pub fn tls(&self) -> Tls {
        tls_of!(self)
    }
}

/// TLS of a listener; names of PEM files. The sections have its settings as their own: by `serde(flatten)` an unknown key
/// would be found at the section's header, and nothing would say which there are.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    /// What those authorities have revoked.
    pub client_crls: Vec<PathBuf>,
    /// `none`, `requested` or `required`.
    pub client_auth: Option<String>,
    /// As Kafka's `ssl.principal.mapping.rules`.
    pub principal_mapping: Option<String>,
}

/// `[security]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// Who may do everything: `User:admin`.
    #[serde(default)]
    pub super_users: Vec<String>,
    /// Others may do what access control entries allow.
    #[serde(default)]
    pub authorizer: bool,
    pub allow_everyone_if_no_acl_found: Option<bool>,
    pub acls_max: Option<usize>,
    pub quotas_max: Option<usize>,
    pub users_max: Option<usize>,
    pub delegation_tokens_max: Option<usize>,
    pub delegation_token_max_ms: Option<i64>,
    pub delegation_token_renewal_ms: Option<i64>,
    pub failed_authentication_delay_ms: Option<u64>,
    pub password_checks_max: Option<usize>,
    pub tries_per_address_max: Option<usize>,
    /// After this a connection must authenticate again.
    pub session_max_ms: Option<u64>,
    pub authentication_timeout_ms: Option<u64>,
    pub handshake_timeout_ms: Option<u64>,
    pub handshakes_max: Option<usize>,
    pub handshakes_at_once: Option<usize>,
    pub unauthenticated_request_bytes_max: Option<usize>,
    pub oauth: Option<OAuth>,
}

impl Security {
    /// The rules that everybody is held against, if any.
    pub fn authorization(&self) -> Option<AuthorizationSettings> {
        let defaults = AuthorizationSettings::default();
        let everyone = self.allow_everyone_if_no_acl_found;
        self.authorizer.then(|| AuthorizationSettings {
            allow_everyone_if_no_acl_found: everyone.unwrap_or(defaults.allow_everyone_if_no_acl_found),
            acls_max: self.acls_max.unwrap_or(defaults.acls_max),
        })
    }
}

/// `[security.oauth]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    /// A file, or a URL with https.
    pub jwks: String,
    /// Authorities of that URL's certificate instead of the system's.
    pub jwks_ca: Option<PathBuf>,
    pub issuer: String,
    pub audience: Vec<String>,
    pub principal_claim: Option<String>,
    pub clock_skew_ms: Option<u64>,
    pub jwks_refresh_ms: Option<u64>,
    pub jwks_timeout_ms: Option<u64>,
    /// How long keys of a URL count that could not be fetched again.
    pub jwks_stale_max_ms: Option<u64>,
}

/// `[http_security]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSecurity {
    /// Whether HTTP asks who somebody is; where absent it does if a Kafka listener does.
    pub authentication: Option<bool>,
    /// `/healthcheck` answers everybody.
    pub healthcheck_open: Option<bool>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    #[serde(default)]
    pub client_crls: Vec<PathBuf>,
    pub client_auth: Option<String>,
    pub principal_mapping: Option<String>,
}

impl HttpSecurity {
    pub fn tls(&self) -> Tls {
        tls_of!(self)
    }
}

impl Config {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
        Self::parse(&text).with_context(|| format!("\"{}\" is not a valid configuration", path.display()))
    }

    /// Reads the text of a file. What numbers may be is checked here, the rest by [`Config::check`].
    pub fn parse(text: &str) -> Result<Self> {
        numbers::check(text)?;
        Ok(toml::from_str(text)?)
    }

    pub fn durability(&self) -> Result<millpond_broker::storage::Durability> {
        use millpond_broker::storage::Durability;
        match self.durability.as_deref() {
            None | Some("group") => Ok(Durability::Group),
            Some("none") => Ok(Durability::None),
            Some(text) => match text.strip_prefix("interval:").unwrap_or(text).parse::<u64>() {
                Ok(ms) if ms > 0 => Ok(Durability::Interval(Duration::from_millis(ms))),
                _ => bail!("durability is \"group\", \"none\" or \"interval:MS\" with milliseconds, not \"{text}\""),
            },
        }
    }

    /// Refuses settings with which together nothing would work.
    pub fn check(&self) -> Result<()> {
        let (broker, of) = (&self.broker, GroupSettings::default());
        let min = broker.group_min_session_timeout_ms.unwrap_or(of.session_timeout_min_ms);
        let max = broker.group_max_session_timeout_ms.unwrap_or(of.session_timeout_max_ms);
        if min > max {
            bail!(
                "[broker] group_min_session_timeout_ms is {min}, more than group_max_session_timeout_ms, which is {max}"
            );
        }
        let interval = broker.group_consumer_heartbeat_interval_ms.unwrap_or(of.consumer_heartbeat_interval_ms);
        let session = broker.group_consumer_session_timeout_ms.unwrap_or(of.consumer_session_timeout_ms);
        if interval >= session {
            bail!(
                "[broker] group_consumer_heartbeat_interval_ms is {interval}, not less than \
                 group_consumer_session_timeout_ms, which is {session}"
            );
        }
        for listener in &self.listener {
            let name = listener.name.as_deref().unwrap_or(&listener.address);
            if listener.address.is_empty() {
                bail!("[[listener]] \"{name}\" has no address, which is HOST:PORT to listen on");
            }
            if listener.protocol.is_empty() {
                bail!("[[listener]] \"{name}\" has no protocol, which is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL");
            }
        }
        if self.security.oauth.as_ref().is_some_and(|oauth| oauth.audience.is_empty()) {
            bail!(
                "[security.oauth] audience is empty, with which all tokens are refused; it must name whom they are for"
            );
        }
        Ok(())
    }

    /// The settings of a broker that are given here, by Kafka's names.
    pub fn named(&self) -> BTreeSet<&'static str> {
        let (limits, broker) = (&self.limits, &self.broker);
        let advertised = self.kafka_advertised.is_some() || self.listener.iter().any(|l| l.advertised.is_some());
        let fetch_bytes = limits.fetch_answers_bytes_max;
        let named = [
            ("advertised.listeners", advertised),
            ("auto.create.topics.enable", broker.auto_create_topics.is_some()),
            // It is given as a part of what all take, which is mostly more than one may.
            ("fetch.max.bytes", fetch_bytes.is_some_and(|b| b < ServerSettings::default().fetch_bytes_max)),
            ("group.consumer.heartbeat.interval.ms", broker.group_consumer_heartbeat_interval_ms.is_some()),
            ("group.consumer.max.size", broker.group_members_max.is_some()),
            ("group.consumer.session.timeout.ms", broker.group_consumer_session_timeout_ms.is_some()),
            ("group.initial.rebalance.delay.ms", broker.group_initial_rebalance_delay_ms.is_some()),
            ("group.max.session.timeout.ms", broker.group_max_session_timeout_ms.is_some()),
            ("group.max.size", broker.group_members_max.is_some()),
            ("group.min.session.timeout.ms", broker.group_min_session_timeout_ms.is_some()),
            ("listeners", self.kafka.is_some() || !self.listener.is_empty()),
            ("log.retention.check.interval.ms", broker.log_retention_check_interval_ms.is_some()),
            ("max.connections", limits.connections_max.is_some()),
            ("max.connections.per.ip", limits.connections_per_address_max.is_some()),
            ("max.incremental.fetch.session.cache.slots", limits.fetch_sessions_max.is_some()),
            ("num.partitions", broker.partitions_default.is_some()),
            ("offset.metadata.max.bytes", broker.group_offset_metadata_max.is_some()),
            ("offsets.retention.minutes", broker.group_offsets_retention_ms.is_some()),
            ("producer.id.expiration.ms", broker.producer_id_expiration_ms.is_some()),
            ("socket.request.max.bytes", limits.request_bytes_max.is_some()),
            ("transaction.max.timeout.ms", broker.transaction_timeout_max_ms.is_some()),
            ("transactional.id.expiration.ms", broker.transactional_id_expiration_ms.is_some()),
        ];
        named.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The host and port that clients are told.
    pub fn advertised(&self) -> Result<Option<(String, u16)>> {
        self.kafka_advertised.as_deref().map(|text| host_and_port("kafka_advertised", text)).transpose()
    }
}

/// `HOST:PORT` of the setting `name`.
pub fn host_and_port(name: &str, text: &str) -> Result<(String, u16)> {
    let (host, port) = text.rsplit_once(':').with_context(|| format!("{name} is HOST:PORT, not \"{text}\""))?;
    let port = port.parse().with_context(|| format!("\"{port}\" in {name} is not a port"))?;
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() {
        bail!("{name} is HOST:PORT, not \"{text}\"");
    }
    Ok((host.to_string(), port))
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

    #[test]
    fn settings_with_which_nothing_works_are_refused() {
        let check = |text: &str| Config::parse(text).and_then(|config| config.check()).map_err(|e| e.to_string());
        assert_eq!(check("[limits]\nworkers = 1\n[broker]\npartitions_default = 12\n"), Ok(()));
        let refused = |text: &str, part: &str| {
            let error = check(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused("[limits]\nworkers = 0\n", "[limits] workers is 0; it must be a whole number from 1 to 1024");
        refused("[limits]\nworkers = -1\n", "[limits] workers is -1; it must be a whole number from 1");
        refused("[broker]\ngroup_max_session_timeout_ms = 99\n", "which is 99");
        refused("[broker]\ngroup_consumer_session_timeout_ms = 5000\n", "is 5000, not less than");
        refused("[[listener]]\naddress = 'h:1'\n", "\"h:1\" has no protocol, which is PLAINTEXT, SSL");
        refused("[[listener]]\nname = 'x'\nprotocol = 'SSL'\n", "\"x\" has no address, which is HOST:PORT");
        refused("[security.oauth]\njwks = 'j'\nissuer = 'i'\naudience = []\n", "[security.oauth] audience is empty");
    }

    #[test]
    fn what_is_wrong_is_found_at_its_place_in_all_sections() {
        let error = |text: &str| Config::parse(text).unwrap_err().to_string();
        for section in ["[[listener]]", "[http_security]", "[security]", "[limits]"] {
            let error = error(&format!("{section}\nunknown = 1\n"));
            assert!(error.contains("line 2, column 1") && error.contains("`unknown`, expected"), "{error}");
        }
        for section in ["[[listener]]\naddress = 'h:1'\nprotocol = 'SSL'\n", "[http_security]\n"] {
            let all = error(&format!("{section}unknown = 1\n"));
            assert!(all.contains("`certificate`") && all.contains("`principal_mapping`"), "{all}");
            let wrong = error(&format!("{section}\nclient_crls = 'one'\n"));
            assert!(wrong.contains("client_crls = 'one'"), "{wrong}");
        }
        assert!(error("[limits\n").contains("line 1"));
    }

    #[test]
    fn what_is_given_has_kafkas_names() {
        let named = |text: &str| toml::from_str::<Config>(text).unwrap().named().into_iter().collect::<Vec<_>>();
        assert_eq!(named("data = 'd'\n[limits]\nworkers = 1\nfetch_answers_bytes_max = 1000000000\n"), [""; 0]);
        let some = "kafka = 'h:1'\n[broker]\nauto_create_topics = true\ngroup_members_max = 9\n[limits]\nfetch_answers_bytes_max = 9\n";
        let names =
            ["auto.create.topics.enable", "fetch.max.bytes", "group.consumer.max.size", "group.max.size", "listeners"];
        assert_eq!(named(some), names);
    }

    #[test]
    fn durability_is_one_of_three() {
        use millpond_broker::storage::Durability;
        let read = |text: &str| Config { durability: Some(text.into()), ..Config::default() }.durability();
        assert_eq!(Config::default().durability().unwrap(), Durability::Group);
        assert_eq!(read("group").unwrap(), Durability::Group);
        assert_eq!(read("none").unwrap(), Durability::None);
        for text in ["interval:20", "20"] {
            assert_eq!(read(text).unwrap(), Durability::Interval(Duration::from_millis(20)));
        }
        for text in ["", "interval", "interval:0", "fsync", "-1"] {
            assert!(read(text).unwrap_err().to_string().contains("interval:MS"), "{text}");
        }
    }
}

//! What the configuration's numbers may be: no less than something works with, no more than what it is for can take.
//!
//! They are looked at before anything else is read from the file, so that whoever is wrong reads what would be right and
//! not the name of a type. Invariant: each number of the file has a row here.

use anyhow::{Result, bail};
use millpond_broker::storage::TOPIC_PARTITIONS_MAX;
use toml::de::{DeTable, DeValue};

/// 1 PiB. Sums and sixteenths of it are still numbers, and no machine has it.
const BYTES_MAX: i64 = 1 << 50;
/// No semaphore and no list of anything is larger.
const COUNT_MAX: i64 = 1_000_000_000;
const INT_MAX: i64 = i32::MAX as i64;
/// As many minutes as Kafka's `offsets.retention.minutes` can be, about 4,000 years; no clock overflows by it.
const TIME_MAX_MS: i64 = INT_MAX * 60_000;
const DAY_MS: i64 = 24 * 3_600_000;
/// A shorter time is over before a client on a slow network has answered.
const ANSWER_MIN_MS: i64 = 100;
/// What clients say about themselves, and ask first, fits.
const REQUEST_BYTES_MIN: i64 = 1 << 10;
/// TCP takes no longer time between its own looks, in whole seconds.
const PING_MAX_MS: i64 = 32_767_000;
/// Threads beside which there is room for others.
const WORKERS_MAX: i64 = 1024;

/// A setting, its least and its most.
type Bounds = (&'static str, i64, i64);

/// All numbers, by their sections.
const SECTIONS: [(&str, &[Bounds]); 5] =
    [("memory", MEMORY), ("limits", LIMITS), ("broker", BROKER), ("security", SECURITY), ("security.oauth", OAUTH)];

const MEMORY: &[Bounds] = &[("budget", 0, BYTES_MAX)];

const LIMITS: &[Bounds] = &[
    ("write_buffer_bytes", 0, BYTES_MAX),
    ("block_cache_bytes", 0, BYTES_MAX),
    ("produce_queue_bytes", 0, BYTES_MAX),
    ("decoder_bytes", 1, BYTES_MAX),
    ("step_queue_bytes", 0, BYTES_MAX),
    ("tail_bytes", 0, BYTES_MAX),
    ("read_ahead_bytes", 0, BYTES_MAX),
    ("compaction_map_bytes", 0, BYTES_MAX),
    ("disk_free_bytes_min", 0, BYTES_MAX),
    ("disk_reserve_bytes", 0, BYTES_MAX),
    ("log_file_bytes", 4 << 10, 1 << 30),
    ("log_files_open_max", 1, COUNT_MAX),
    ("inline_bytes_max", 0, 1 << 30),
    ("gather_wait_us_max", 0, 1_000_000),
    ("compaction_bytes_per_second", 0, BYTES_MAX),
    ("decompressed_bytes_max", 1, BYTES_MAX),
    ("request_bytes_max", REQUEST_BYTES_MIN, INT_MAX),
    ("requests_bytes_max", 64 << 10, BYTES_MAX),
    // What a client with one topic and a few partitions asks for fits.
    ("request_elements_max", 100, COUNT_MAX),
    ("fetch_answers_bytes_max", 0, BYTES_MAX),
    ("answers_bytes_max", 64 << 10, BYTES_MAX),
    // The list of all APIs with their versions fits.
    ("answer_bytes_max", 16 << 10, INT_MAX),
    ("http_bodies_bytes_max", 64 << 10, BYTES_MAX),
    ("group_members_bytes_max", 4 << 10, BYTES_MAX),
    ("group_offsets_bytes_max", 4 << 10, BYTES_MAX),
    ("transactions_bytes_max", 4 << 10, BYTES_MAX),
    ("delegation_tokens_bytes_max", 0, BYTES_MAX),
    ("connections_max", 1, COUNT_MAX),
    ("fetch_sessions_max", 0, COUNT_MAX),
    ("fetch_session_partitions_max", 0, COUNT_MAX),
    ("fetch_sessions_partitions_max", 0, COUNT_MAX),
    ("fetch_sessions_bytes_max", 0, BYTES_MAX),
    ("transaction_bytes_max", 1 << 10, BYTES_MAX),
    ("groups_max", 1, COUNT_MAX),
    ("transactional_ids_max", 1, COUNT_MAX),
    ("partition_producers_max", 1, COUNT_MAX),
    ("connections_per_address_max", 1, COUNT_MAX),
    ("connection_bytes_max", 0, BYTES_MAX),
    ("pipelined_requests_max", 1, COUNT_MAX),
    ("http_request_bytes_max", REQUEST_BYTES_MIN, BYTES_MAX),
    ("http_connections_max", 1, COUNT_MAX),
    ("http_connections_per_address_max", 1, COUNT_MAX),
    ("http_requests_max", 1, COUNT_MAX),
    ("http_statements_max", 1, COUNT_MAX),
    ("http_inserts_max", 1, COUNT_MAX),
    ("http_headers_timeout_ms", ANSWER_MIN_MS, TIME_MAX_MS),
    // Each connection has buffers of that size, and HTTP/2 windows.
    ("http_headers_bytes_max", 1 << 10, 16 << 20),
    ("http_idle_timeout_ms", ANSWER_MIN_MS, TIME_MAX_MS),
    ("http_stall_timeout_ms", ANSWER_MIN_MS, TIME_MAX_MS),
    ("http_body_bytes_per_second_min", 0, 1 << 30),
    ("http_inserts_silence_max_ms", ANSWER_MIN_MS, TIME_MAX_MS),
    ("http_ping_interval_ms", 1_000, PING_MAX_MS),
    ("http2_streams_max", 1, COUNT_MAX),
    ("pull_rows_max", 0, COUNT_MAX),
    ("push_queries_max", 0, COUNT_MAX),
    ("queries_max", 0, COUNT_MAX),
    ("workers", 1, WORKERS_MAX),
    ("guest_memory_bytes_max", 0, BYTES_MAX),
    ("upload_bytes_max", 0, BYTES_MAX),
];

const BROKER: &[Bounds] = &[
    ("partitions_default", 1, TOPIC_PARTITIONS_MAX as i64),
    // Nobody joins a group that waits for longer.
    ("group_initial_rebalance_delay_ms", 0, 1_800_000),
    ("group_min_session_timeout_ms", 1, INT_MAX),
    ("group_max_session_timeout_ms", 1, INT_MAX),
    ("group_members_max", 1, INT_MAX),
    ("group_offset_metadata_max", 0, INT_MAX),
    ("group_lag_rows_max", 0, COUNT_MAX),
    ("group_offsets_retention_ms", 60_000, TIME_MAX_MS),
    ("log_retention_check_interval_ms", 1, TIME_MAX_MS),
    ("group_consumer_session_timeout_ms", ANSWER_MIN_MS, INT_MAX),
    ("group_consumer_heartbeat_interval_ms", 10, INT_MAX),
    ("transaction_timeout_max_ms", 1, INT_MAX),
    ("transactional_id_expiration_ms", 1, INT_MAX),
    ("producer_id_expiration_ms", 1, INT_MAX),
];

const SECURITY: &[Bounds] = &[
    ("acls_max", 0, COUNT_MAX),
    ("quotas_max", 0, COUNT_MAX),
    ("users_max", 0, COUNT_MAX),
    ("delegation_tokens_max", 0, COUNT_MAX),
    ("delegation_token_max_ms", 1_000, TIME_MAX_MS),
    ("delegation_token_renewal_ms", 1_000, TIME_MAX_MS),
    // Whoever is refused keeps a connection for so long.
    ("failed_authentication_delay_ms", 0, 60_000),
    ("password_checks_max", 1, COUNT_MAX),
    ("tries_per_address_max", 1, COUNT_MAX),
    ("session_max_ms", 0, TIME_MAX_MS),
    ("authentication_timeout_ms", ANSWER_MIN_MS, DAY_MS),
    ("handshake_timeout_ms", ANSWER_MIN_MS, DAY_MS),
    ("handshakes_max", 1, COUNT_MAX),
    ("handshakes_at_once", 1, COUNT_MAX),
    ("unauthenticated_request_bytes_max", REQUEST_BYTES_MIN, INT_MAX),
];

const OAUTH: &[Bounds] = &[
    ("clock_skew_ms", 0, DAY_MS),
    ("jwks_refresh_ms", 1_000, TIME_MAX_MS),
    ("jwks_timeout_ms", ANSWER_MIN_MS, DAY_MS),
    ("jwks_stale_max_ms", 1_000, TIME_MAX_MS),
];

/// Refuses a number that is none, too small or too large. What is no TOML at all is not told here.
pub fn check(text: &str) -> Result<()> {
    let Ok(config) = DeTable::parse(text) else { return Ok(()) };
    for (path, bounds) in SECTIONS {
        let section = path.split('.').try_fold(config.get_ref(), |table, key| table.get(key)?.get_ref().as_table());
        let Some(section) = section else { continue };
        for (name, least, most) in bounds {
            let Some(value) = section.get(*name) else { continue };
            let number = match value.get_ref() {
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            };
            if number.is_none_or(|number| !(*least..=*most).contains(&number)) {
                let written = text.get(value.span()).unwrap_or_default();
                let line = text.get(..value.span().start).unwrap_or_default().matches('\n').count() + 1;
                bail!("line {line}: [{path}] {name} is {written}; it must be a whole number from {least} to {most}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    /// A file with one setting.
    fn file(path: &str, name: &str, value: impl std::fmt::Display) -> String {
        let needed = if path == "security.oauth" { "jwks = 'j'\nissuer = 'i'\naudience = ['a']\n" } else { "" };
        format!("[{path}]\n{needed}{name} = {value}\n")
    }

    #[test]
    fn every_number_has_bounds_that_its_type_can_hold() {
        for (path, bounds) in SECTIONS {
            let unknown = toml::from_str::<Config>(&file(path, "unknown", 1)).unwrap_err().to_string();
            let (_, names) = unknown.split_once("expected ").unwrap();
            let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
            assert!(bounds.iter().all(|(name, ..)| names.contains(name)), "{path}: {names:?}");
            for name in names {
                let typed = |value: i64| toml::from_str::<Config>(&file(path, name, value)).map_err(|e| e.to_string());
                match bounds.iter().find(|(bounded, ..)| *bounded == name) {
                    None => assert!(typed(1).is_err(), "{path}: {name} is a number without bounds"),
                    Some((_, least, most)) => {
                        for value in [*least, *most] {
                            assert!(least < most && typed(value).is_ok(), "{path}: {name} = {value}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_within_its_bounds_is_refused_with_them() {
        for (path, bounds) in SECTIONS {
            for (name, least, most) in bounds {
                let outside = [(least - 1).to_string(), (most + 1).to_string(), format!("{most}000000000000000000")];
                for value in outside.iter().map(String::as_str).chain(["1.5", "\"many\"", "0xffffffffffffffff"]) {
                    let file = file(path, name, value);
                    let (line, error) = (file.lines().count(), Config::parse(&file).unwrap_err().to_string());
                    let wrong = format!("line {line}: [{path}] {name} is {value}");
                    assert_eq!(error, format!("{wrong}; it must be a whole number from {least} to {most}"));
                }
                let hexadecimal = file(path, name, format!("0x{least:x} # the least"));
                assert!(Config::parse(&hexadecimal).is_ok(), "{hexadecimal}");
            }
        }
    }

    #[test]
    fn numbers_may_be_written_in_parts() {
        let rate = |text: &str| Config::parse(text).map(|config| config.limits.compaction_bytes_per_second);
        assert_eq!(rate("limits = { compaction_bytes_per_second = 1_000_000 }").unwrap(), Some(1_000_000));
        assert!(rate("[limits]\ncompaction_bytes_per_second = 1__0\n").unwrap_err().to_string().contains("TOML"));
    }
}

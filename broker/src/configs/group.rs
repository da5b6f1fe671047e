//! Settings of single groups, by Kafka's names: those that the coordinator goes by. What is not set here is as the broker
//! has it. Not here: where they are kept (`groups`).
//!
//! Kafka's settings of share groups and streams groups are not among them, as there are no such groups.

use std::collections::BTreeMap;

use super::{Allowed, ConfigKind, TopicConfig};
use crate::groups::GroupSettings;
use crate::keys::{Fields, put_text};

const VERSION: u8 = 1;
pub const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";
pub const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";

/// What was set, by name.
pub type GroupConfigs = BTreeMap<String, String>;

/// By name. What a broker has may lie outside of Kafka's limits; then it is a limit.
static GROUP_CONFIGS: &[TopicConfig] = &[
    TopicConfig {
        name: HEARTBEAT_INTERVAL,
        default: "5000",
        kind: ConfigKind::Int,
        synonym: None,
        documentation: "how often a member under the consumer protocol is told to speak",
        allowed: Allowed::Between(5_000, 15_000),
    },
    TopicConfig {
        name: SESSION_TIMEOUT,
        default: "45000",
        kind: ConfigKind::Int,
        synonym: None,
        documentation: "how long a member under the consumer protocol may be silent",
        allowed: Allowed::Between(45_000, 60_000),
    },
];

pub fn group_config(name: &str) -> Option<&'static TopicConfig> {
    GROUP_CONFIGS.iter().find(|config| config.name == name)
}

/// Every setting of a group, with its value where the group has none of its own.
pub fn group_configs(settings: &GroupSettings) -> impl Iterator<Item = (&'static TopicConfig, String)> + use<'_> {
    GROUP_CONFIGS.iter().map(|config| (config, broad(config, settings).to_string()))
}

fn broad(config: &TopicConfig, settings: &GroupSettings) -> i32 {
    match config.name {
        HEARTBEAT_INTERVAL => settings.consumer_heartbeat_interval_ms,
        _ => settings.consumer_session_timeout_ms,
    }
}

/// What a setting is for a group.
pub fn group_number(configs: Option<&GroupConfigs>, name: &str) -> Option<i32> {
    configs?.get(name)?.trim().parse().ok()
}

/// Says what cannot be.
pub fn check_group_configs(configs: &GroupConfigs, settings: &GroupSettings) -> Result<(), String> {
    for (name, value) in configs {
        let config = group_config(name).ok_or_else(|| format!("there is no group setting \"{name}\""))?;
        let is_broad = value.trim().parse() == Ok(broad(config, settings));
        if !is_broad {
            config.check(value)?;
        }
    }
    let number = |name: &str, broad| group_number(Some(configs), name).unwrap_or(broad);
    let interval = number(HEARTBEAT_INTERVAL, settings.consumer_heartbeat_interval_ms);
    let session = number(SESSION_TIMEOUT, settings.consumer_session_timeout_ms);
    if interval >= session {
        return Err(format!("\"{HEARTBEAT_INTERVAL}\" is {interval}, not less than \"{SESSION_TIMEOUT}\", {session}"));
    }
    Ok(())
}

/// Version u8, then u32 and pairs of texts.
pub fn encode_group_configs(configs: &GroupConfigs) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&(configs.len() as u32).to_be_bytes());
    for (name, value) in configs {
        put_text(&mut out, name);
        put_text(&mut out, value);
    }
    out
}

pub fn decode_group_configs(value: &[u8]) -> Option<GroupConfigs> {
    let mut fields = Fields(value);
    if fields.u8()? != VERSION {
        return None;
    }
    let mut configs = GroupConfigs::new();
    for _ in 0..fields.u32()? {
        configs.insert(fields.text()?.to_owned(), fields.text()?.to_owned());
    }
    Some(configs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_may_be_set_to() {
        let settings = GroupSettings::default();
        let check = |pairs: &[(&str, &str)]| {
            let configs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let stored = encode_group_configs(&configs);
            assert_eq!(decode_group_configs(&stored).as_ref(), Some(&configs));
            (0..stored.len()).for_each(|cut| assert_eq!(decode_group_configs(&stored[..cut]), None));
            check_group_configs(&configs, &settings).is_ok()
        };
        assert!(check(&[]) && check(&[(SESSION_TIMEOUT, "50000"), (HEARTBEAT_INTERVAL, "6000")]));
        for (name, value) in [
            (SESSION_TIMEOUT, "1"),
            (SESSION_TIMEOUT, "x"),
            (HEARTBEAT_INTERVAL, "60000"),
            ("share.session.timeout.ms", "1"),
        ] {
            assert!(!check(&[(name, value)]), "{name}={value}");
        }
        let short =
            GroupSettings { consumer_heartbeat_interval_ms: 300, consumer_session_timeout_ms: 2000, ..settings };
        let of = |name: &str, value: &str| GroupConfigs::from([(name.to_owned(), value.to_owned())]);
        assert!(check_group_configs(&of(SESSION_TIMEOUT, "2000"), &short).is_ok(), "as the broker has it");
        assert!(check_group_configs(&of(HEARTBEAT_INTERVAL, "5000"), &short).is_err(), "longer than the session");
    }
}

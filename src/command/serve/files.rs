//! Files and connections that the process may have open. Whoever only connects must not take what the storage needs to make
//! its next file: connections get what is left of the limit.

use std::num::NonZeroUsize;

use millpond_broker::server::ServerSettings;
use millpond_broker::storage::{OPEN_FILES_MAX, StorageOptions};
use millpond_server::ConnectionLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For listeners, pipes, libraries, the certificates that are read anew, and files that are about to be replaced.
const OTHERS: usize = 128;
/// Where the limit is less than what all the rest may need, connections get this part of it.
const LEAST_PART: usize = 4;

/// Raises the limit of open files as far as that is allowed, and returns it, where there is one.
fn raised() -> Option<NonZeroUsize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!("the limit of open files cannot be raised: {e}");
    }
    let limit = getrlimit(Resource::Nofile).current?;
    NonZeroUsize::new(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Has connections fit into the limit of open files. `chosen`: somebody has said how many there may be, and is to know.
pub fn fit(storage: &StorageOptions, kafka: &mut ServerSettings, http: &mut ConnectionLimits, chosen: bool) {
    let Some(limit) = raised().map(NonZeroUsize::get) else { return };
    let needed = usize::try_from(OPEN_FILES_MAX).unwrap_or(0) + storage.log_files_open_max + OTHERS;
    let left = limit.saturating_sub(needed).max(limit / LEAST_PART);
    let (kafka_asked, http_asked) = (kafka.connections_max, http.connections_max);
    let asked = kafka_asked.saturating_add(http_asked);
    if asked <= left {
        return;
    }
    let part = |of: usize| usize::try_from(of as u128 * left as u128 / asked as u128).unwrap_or(left).max(1);
    (kafka.connections_max, http.connections_max) = (part(kafka_asked), part(http_asked));
    // One address does not have all of them because there are fewer.
    let half = |per_address: &mut usize, all: usize| *per_address = (*per_address).min(all.div_ceil(2));
    half(&mut kafka.connections_per_address_max, kafka.connections_max);
    half(&mut http.connections_per_address_max, http.connections_max);
    let told = format!(
        "this process may open {limit} files (\"ulimit -n\", LimitNOFILE), of which storage may need {needed}: there are at \
         most {} Kafka connections instead of \"connections_max\" = {kafka_asked}, and {} over HTTP instead of \
         \"http_connections_max\" = {http_asked}; raise that limit to {}, or lower these settings",
        kafka.connections_max,
        http.connections_max,
        asked.saturating_add(needed),
    );
    match chosen {
        true => tracing::warn!("{told}"),
        false => tracing::info!("{told}"),
    }
}

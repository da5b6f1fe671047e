//! Which connections are taken: not more than there may be, in all and from one address, nor faster than an address's
//! quota says.
//!
//! Invariant: an address is counted for as long as its [`Slot`] lives, however the connection ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use millpond_types::{Pool, network};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api::Shared;

/// This part of the memory for answers is for one address; more than one part, so that others are answered meanwhile.
const ANSWERS_PART: usize = 4;

/// Connections by address.
pub(super) struct Addresses {
    /// Bytes of requests under way that one address may have.
    share: usize,
    known: Mutex<HashMap<IpAddr, Known>>,
}

struct Known {
    connections: usize,
    share: Share,
}

/// What the connections of an address have together.
#[derive(Clone)]
pub(super) struct Share {
    /// Permits for bytes of requests.
    pub bytes: Arc<Semaphore>,
    /// Its answers on their way; while it has too many it waits for itself.
    pub answers: Pool,
}

impl Addresses {
    /// Where all may have so many bytes of requests under way, and one request at most so many. One address has at most
    /// half of them, and room for one request.
    pub fn new(total: usize, request_bytes_max: usize) -> Self {
        let one = request_bytes_max.saturating_add(size_of::<i32>());
        Self { share: (total / 2).max(one).min(total), known: Mutex::default() }
    }
}

/// A connection's place among those of its address.
pub(super) struct Slot {
    addresses: Arc<Addresses>,
    address: IpAddr,
    pub share: Share,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut known = self.addresses.known.lock();
        if let Some(of) = known.get_mut(&self.address) {
            of.connections = of.connections.saturating_sub(1);
            if of.connections == 0 {
                known.remove(&self.address);
            }
        }
    }
}

/// Takes a connection where `open` are open; or the limit that refuses it.
pub(super) fn admit(
    shared: &Shared,
    addresses: &Arc<Addresses>,
    open: usize,
    remote: SocketAddr,
) -> Result<Slot, &'static str> {
    if open >= shared.settings.connections_max {
        return Err("connections_max");
    }
    let address = remote.ip().to_canonical();
    let network = network(address);
    let share = {
        let mut known = addresses.known.lock();
        let first = || {
            let answers = &shared.settings.answers;
            let answers = answers.passing("answers_of_address", (answers.limit() / ANSWERS_PART).max(1));
            Known { connections: 0, share: Share { bytes: Arc::new(Semaphore::new(addresses.share)), answers } }
        };
        if shared.settings.connections_per_address_max == 0 {
            return Err("connections_per_address_max");
        }
        let of = known.entry(network).or_insert_with(first);
        if of.connections >= shared.settings.connections_per_address_max {
            return Err("connections_per_address_max");
        }
        of.connections += 1;
        of.share.clone()
    };
    let slot = Slot { addresses: Arc::clone(addresses), address: network, share };
    if !shared.quotas.connected(address, Instant::now()).is_zero() {
        return Err("connection_creation_rate");
    }
    Ok(slot)
}

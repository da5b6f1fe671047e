//! Which connections are taken: not more than there may be, in all and from one address, nor faster than an address's
//! quota says.
//!
//! Invariant: an address is counted for as long as its [`Slot`] lives, however the connection ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use millpond_types::network;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::Shared;

/// Connections by address.
#[derive(Default)]
pub(super) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place among those of its address.
pub(super) struct Slot {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
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
    {
        let mut counts = addresses.0.lock();
        let count = counts.entry(network).or_default();
        if *count >= shared.settings.connections_per_address_max {
            return Err("connections_per_address_max");
        }
        *count += 1;
    }
    let slot = Slot { addresses: Arc::clone(addresses), address: network };
    if !shared.quotas.connected(address, Instant::now()).is_zero() {
        return Err("connection_creation_rate");
    }
    Ok(slot)
}

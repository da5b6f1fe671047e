//! Lanes into something that only so many can do at a time: each address has a few of its own, so that a crowd from one
//! address queues behind itself and not in front of others.
//!
//! Invariant: an address is known for as long as somebody of it is in a lane or waits for one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use millpond_types::network;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// All lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Of one address.
    each: usize,
    of: Mutex<HashMap<IpAddr, (Arc<Semaphore>, usize)>>,
}

/// One lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    // In this order: the address may be forgotten once the lane is free.
    _permit: Option<OwnedSemaphorePermit>,
    _visit: Visit,
}

/// Somebody of an address, who keeps it known.
#[derive(Debug)]
struct Visit {
    lanes: Arc<Lanes>,
    address: IpAddr,
}

impl Lanes {
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { each: each.clamp(1, Semaphore::MAX_PERMITS), of: Mutex::default() })
    }

    /// Waits for a lane of the address, behind whoever came before.
    pub async fn enter(self: &Arc<Self>, address: IpAddr) -> Lane {
        let address = network(address);
        let semaphore = {
            let mut of = self.of.lock();
            let (semaphore, visits) = of.entry(address).or_insert_with(|| (Arc::new(Semaphore::new(self.each)), 0));
            *visits += 1;
            Arc::clone(semaphore)
        };
        let visit = Visit { lanes: Arc::clone(self), address };
        // It is never closed.
        let permit = semaphore.acquire_owned().await.ok();
        Lane { _permit: permit, _visit: visit }
    }
}

impl Lane {
    /// Keeps the lane taken until then, whether or not somebody waits for what was done in it.
    #[allow(clippy::disallowed_methods, reason = "bounded by the lanes that there are and by the time")]
    pub fn rest(self, until: Instant) {
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            drop(self);
        });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut of = self.lanes.of.lock();
        if let Some((_, visits)) = of.get_mut(&self.address) {
            *visits = visits.saturating_sub(1);
            if *visits == 0 {
                of.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What it gives at once, or that it does not.
    async fn at_once(lanes: &Arc<Lanes>, address: IpAddr) -> Option<Lane> {
        tokio::time::timeout(Duration::ZERO, lanes.enter(address)).await.ok()
    }

    #[tokio::test]
    async fn an_address_waits_for_itself_alone() {
        let lanes = Lanes::new(2);
        let [a, a2, b]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "10.0.0.1"].map(|a| a.parse().unwrap());
        let long = Instant::now() + Duration::from_secs(3600);
        lanes.enter(a).await.rest(long);
        lanes.enter(a2).await.rest(long);
        assert!(at_once(&lanes, b).await.is_some(), "another address waits for nobody");
        assert!(at_once(&lanes, a).await.is_none(), "both are taken");

        let lanes = Lanes::new(1);
        let until = Instant::now() + Duration::from_millis(200);
        lanes.enter(a).await.rest(until);
        drop(lanes.enter(a).await);
        assert!(Instant::now() >= until, "a lane at rest is taken");
        assert!(lanes.of.lock().is_empty(), "addresses are forgotten");
    }
}

//! Which connections are taken: not more than there may be, in all and from one address, nor faster than an address's
//! quota says.
//!
//! Invariant: an address is counted for as long as its [`Slot`] lives, however the connection ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use millpond_types::{Pool, network};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::api::Shared;

/// This part of the memory for answers is for one address; more than one part, so that others are answered meanwhile.
const ANSWERS_PART: usize = 4;

/// How long whoever is first looks away before it looks again whether there is memory for an answer.
const CROWDED_REST: Duration = Duration::from_millis(20);

/// Connections by address.
pub(super) struct Addresses {
    /// Bytes of requests under way that one address may have.
    share: usize,
    /// Whose turn it is to answer much, of all.
    answers_turn: Arc<Semaphore>,
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
    /// Whose turn it is while there are too many: one of the address, and one of all.
    turn: Arc<Semaphore>,
    all_turn: Arc<Semaphore>,
}

/// Held by whoever makes a large answer while memory for them is short, until the answer is counted.
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Share {
    fn new(bytes: usize, answers: &Pool, all_turn: &Arc<Semaphore>) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bytes)),
            answers: answers.passing("answers_of_address", (answers.limit() / ANSWERS_PART).max(1)),
            turn: Arc::new(Semaphore::new(1)),
            all_turn: Arc::clone(all_turn),
        }
    }

    /// Whether a large answer has to wait for its turn: there is no memory for it, or others wait already.
    pub fn is_crowded(&self) -> bool {
        self.answers.left() == 0 || self.turn.available_permits() == 0 || self.all_turn.available_permits() == 0
    }

    /// Waits until there is memory for an answer, in order: first among those of the address, then among all.
    pub async fn wait_for_turn(self) -> Option<Turn> {
        let own = self.turn.acquire_owned().await.ok()?;
        while self.answers.used() >= self.answers.limit() {
            tokio::time::sleep(CROWDED_REST).await;
        }
        let all = self.all_turn.acquire_owned().await.ok()?;
        while self.answers.left() == 0 {
            tokio::time::sleep(CROWDED_REST).await;
        }
        Some(Turn { _own: own, _all: all })
    }
}

impl Addresses {
    /// Where all may have so many bytes of requests under way, and one request at most so many. One address has at most
    /// half of them, and room for one request.
    pub fn new(total: usize, request_bytes_max: usize) -> Self {
        let one = request_bytes_max.saturating_add(size_of::<i32>());
        Self {
            share: (total / 2).max(one).min(total),
            answers_turn: Arc::new(Semaphore::new(1)),
            known: Mutex::default(),
        }
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
            let share = Share::new(addresses.share, &shared.settings.answers, &addresses.answers_turn);
            Known { connections: 0, share }
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_memory_gets_it_in_order() {
        let answers = Pool::root("answers", 1000);
        let all_turn = Arc::new(Semaphore::new(1));
        let [greedy, other] = [(); 2].map(|()| Share::new(1, &answers, &all_turn));
        let mut held = greedy.answers.reservation();
        held.set(250);
        let (got, mut gets) = mpsc::channel(20);
        let mut waiting = tokio::task::JoinSet::new();
        for i in 0..20 {
            assert!(greedy.is_crowded());
            let (share, got) = (greedy.clone(), got.clone());
            waiting.spawn(async move {
                let turn = share.wait_for_turn().await;
                got.send(i).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                drop(turn);
            });
            tokio::task::yield_now().await;
        }
        // Its own share is used up: that is nothing to others.
        assert!(!other.is_crowded());
        held.set(0);
        let order: Vec<i32> = [gets.recv().await, gets.recv().await].into_iter().flatten().collect();
        assert_eq!(order, [0, 1]);
        assert!(greedy.is_crowded(), "who comes now comes after those who wait");
        while waiting.join_next().await.is_some() {}
        drop(got);
        let mut rest = Vec::new();
        gets.recv_many(&mut rest, 100).await;
        assert_eq!(rest, (2..20).collect::<Vec<_>>());
        assert!(!greedy.is_crowded());
    }
}

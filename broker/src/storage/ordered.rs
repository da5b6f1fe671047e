//! Writes of the protocol layer by those to whom their order matters: room is waited for first, and then they are queued
//! at once, under whatever lock decides what they say. They are done, and answered, in the order of queueing.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::writer::{Change, ChangeJob};
use super::{Pending, Result, Storage, TransactionWrite};

/// What a write takes in the queue beside its bytes.
const WRITE_COST: usize = 256;

/// Room in the queue for one write.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

/// Entries of the protocol layer, alone or with what a transaction does; all or nothing.
#[derive(Debug)]
pub enum ProtocolWrite {
    Entries(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Transaction(Box<TransactionWrite>),
}

impl Storage {
    /// Waits until about so many bytes may be queued.
    pub async fn room(&self, bytes: usize) -> Result<Room> {
        self.shared.produce_room(WRITE_COST.saturating_add(bytes)).await.map(Room)
    }

    /// Queues a write; ready when it is durable.
    pub fn queue(&self, Room(room): Room, write: ProtocolWrite) -> Result<Pending<i64>> {
        let change = match write {
            ProtocolWrite::Entries(entries) => Change::Group(entries),
            ProtocolWrite::Transaction(write) => Change::Transaction(write),
        };
        let (answer, pending) = oneshot::channel();
        self.shared.queue.push_change(ChangeJob { change, answer, _room: Some(room) })?;
        Ok(Pending(pending))
    }
}

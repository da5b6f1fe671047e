//! The channel between a push query and its client.

use tokio::sync::mpsc;

use crate::sink::ResultRows;

/// Why the rows of a push query ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    LimitReached,
    Completed,
    Failed(String),
}

#[derive(Clone, Debug)]
pub enum ClientEvent {
    Rows(ResultRows),
    End(EndReason),
}

/// The engine's half of a push query's channel.
pub struct ClientSender {
    pub(super) sender: mpsc::Sender<ClientEvent>,
}

/// The client's half of a push query's channel.
pub struct ClientReceiver {
    receiver: mpsc::Receiver<ClientEvent>,
}

/// A channel in which at most `batches_max` batches wait; a query whose client is behind does not step.
pub fn client_channel(batches_max: usize) -> (ClientSender, ClientReceiver) {
    let (sender, receiver) = mpsc::channel(batches_max.max(1) + 1);
    (ClientSender { sender }, ClientReceiver { receiver })
}

impl ClientReceiver {
    /// The next rows, or the end; `None` after the end, and where the query was dropped.
    pub async fn recv(&mut self) -> Option<ClientEvent> {
        self.receiver.recv().await
    }

    /// As `recv`, for threads that may block.
    pub fn blocking_recv(&mut self) -> Option<ClientEvent> {
        self.receiver.blocking_recv()
    }

    /// As `recv`, for streams.
    pub fn poll_recv(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<ClientEvent>> {
        self.receiver.poll_recv(cx)
    }

    /// What is there already.
    pub fn try_recv(&mut self) -> Option<ClientEvent> {
        self.receiver.try_recv().ok()
    }
}

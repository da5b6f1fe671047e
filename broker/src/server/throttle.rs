//! What a request uses of its sender's quotas, and how the sender is told to wait.
//!
//! A request is answered at once, with the time to wait in its response where the response has room for that, and the
//! connection is not read until the time is over; so clients that do not look at the number wait too.
//! Not here: how much anybody may use (`security::quotas`).

use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::api::{FETCH, Request, Shared, changes_topics, throttle_place};
use crate::security::Caller;
use crate::security::quotas::{Client, Measure};
use crate::wire::Reply;

/// What counts of one request.
pub(super) struct Used {
    key: i16,
    version: i16,
    flexible_head: bool,
    client_id: Option<StrBytes>,
    produced: usize,
    /// Of a thread, as far as it was measured.
    pub spent: Duration,
}

impl Used {
    pub fn of(request: &Request, size: usize) -> Self {
        Self {
            key: request.head.key,
            version: request.head.version,
            flexible_head: request.flexible_head(),
            client_id: request.head.client_id.clone(),
            produced: if request.head.key == crate::api::PRODUCE { size } else { 0 },
            spent: Duration::ZERO,
        }
    }

    /// Counts the request and its answer, and puts the time to wait into the answer.
    pub fn settle(&self, shared: &Shared, caller: &Caller, reply: &mut Reply) -> Duration {
        let quotas = &shared.quotas;
        if !quotas.any() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let client = Client { user: caller.principal.name(), client_id: self.client_id.as_deref().unwrap_or_default() };
        let mut wait = Duration::ZERO;
        if self.produced > 0 {
            wait = wait.max(quotas.used(client, Measure::Produced, self.produced as f64, now));
        }
        if let (FETCH, Reply::Response(response)) = (self.key, &*reply) {
            wait = wait.max(quotas.used(client, Measure::Fetched, response.size() as f64, now));
        }
        if !self.spent.is_zero() {
            wait = wait.max(quotas.used(client, Measure::Time, self.spent.as_nanos() as f64, now));
        }
        if changes_topics(self.key) {
            wait = wait.max(quotas.owed(client, Measure::Mutations, now));
        }
        if !wait.is_zero()
            && let Reply::Response(response) = reply
            && let Some(place) = throttle_place(self.key, self.version, self.flexible_head, response.size())
        {
            response.put_i32(place, i32::try_from(wait.as_millis()).unwrap_or(i32::MAX).max(1));
        }
        wait
    }
}

//! A member under the consumer protocol, and how it comes from what it has to what it is meant to have.
//!
//! ```text
//!           something must go                    the member no longer owns it
//!   Stable ───────────────────▶ Revoking ────────────────────────────┐
//!     ▲                            ▲                                 ▼
//!     │ all is there               └──────────── something must go ──┤
//!     └──────────────── Waiting ◀────────────────────────────────────┘ others still have what it is meant to get
//! ```
//!
//! Invariant: a partition is given only once nobody else holds it, and is held until its member said that it let go;
//! by then the member has another epoch, so that what it still commits under the old one is refused.

use std::collections::{BTreeSet, HashSet};

use millpond_types::TopicId;

use super::assign::{self, Partitions};
use super::classic::Classic;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Progress {
    Stable = 0,
    /// Has yet to let go of something.
    Revoking = 1,
    /// Is meant to get what others still hold.
    Waiting = 2,
}

impl Progress {
    pub const ALL: [Self; 3] = [Self::Stable, Self::Revoking, Self::Waiting];
}

/// Epoch of a static member that went and may come back.
pub const EPOCH_AWAY: i32 = -2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub topics: BTreeSet<String>,
    pub pattern: Option<String>,
    /// Name of the assignor that it prefers.
    pub assignor: Option<String>,
    pub epoch: i32,
    /// Before its last change; a member that missed the answer comes with it.
    pub previous_epoch: i32,
    pub progress: Progress,
    pub assigned: Partitions,
    pub revoking: Partitions,
    pub target: Partitions,
    /// What it last said to own; unknown after a restart.
    pub owned: Option<Partitions>,
    pub session_ends: i64,
    /// While it is revoking: until when it may take.
    pub revoking_ends: Option<i64>,
    /// It speaks the classic protocol.
    pub classic: Option<Box<Classic>>,
}

/// What members hold or have yet to let go of.
pub type Held = HashSet<(TopicId, i32)>;

/// What a member takes in memory beyond its texts and partitions, about.
const MEMBER_BYTES: usize = 768;
const TEXT_BYTES: usize = 48;
const PARTITION_BYTES: usize = 16;

impl Member {
    pub fn new(id: String) -> Self {
        Self {
            id,
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 0,
            topics: BTreeSet::new(),
            pattern: None,
            assignor: None,
            epoch: 0,
            previous_epoch: 0,
            progress: Progress::Stable,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            target: Partitions::new(),
            owned: None,
            session_ends: i64::MAX,
            revoking_ends: None,
            classic: None,
        }
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let names: usize = self.topics.iter().map(|topic| TEXT_BYTES + topic.len()).sum();
        let partitions = [&self.assigned, &self.revoking, &self.target];
        let partitions: usize = partitions.into_iter().chain(&self.owned).map(assign::count).sum();
        let classic = self.classic.as_ref().map_or(0, |classic| classic.bytes());
        let optional = [&self.instance_id, &self.rack_id, &self.pattern];
        let optional: usize = optional.into_iter().flatten().map(|text| 2 * text.len()).sum();
        let texts = 3 * self.id.len() + self.client_id.len() + self.client_host.len() + optional;
        MEMBER_BYTES + classic + texts + names + PARTITION_BYTES * partitions
    }

    /// Whether both have the same entry in storage.
    pub fn is_written_as(&self, other: &Self) -> bool {
        (&self.topics, &self.pattern, &self.assignor) == (&other.topics, &other.pattern, &other.assignor)
            && (&self.instance_id, &self.rack_id) == (&other.instance_id, &other.rack_id)
            && (&self.client_id, &self.client_host) == (&other.client_id, &other.client_host)
            && (self.rebalance_timeout_ms, self.progress) == (other.rebalance_timeout_ms, other.progress)
            && self.classic.as_ref().map(|c| (c.session_timeout_ms, &c.protocols))
                == other.classic.as_ref().map(|c| (c.session_timeout_ms, &c.protocols))
            && (self.epoch, self.previous_epoch) == (other.epoch, other.previous_epoch)
            && (&self.assigned, &self.revoking, &self.target) == (&other.assigned, &other.revoking, &other.target)
    }

    /// The earliest time at which something is due about it.
    pub fn deadline(&self) -> i64 {
        let rejoin_ends = self.classic.as_ref().and_then(|classic| classic.rejoin_ends);
        self.session_ends.min(self.revoking_ends.unwrap_or(i64::MAX)).min(rejoin_ends.unwrap_or(i64::MAX))
    }

    /// All that it holds or has yet to let go of.
    pub fn holds(&self) -> impl Iterator<Item = (TopicId, i32)> {
        assign::each(&self.assigned).chain(assign::each(&self.revoking))
    }

    /// Whether all of this was given to it.
    pub fn was_given(&self, owned: &Partitions) -> bool {
        assign::each(owned).all(|(topic, index)| assign::has(&self.assigned, topic, index))
    }

    pub fn is_at(&self, target_epoch: i32) -> bool {
        self.progress == Progress::Stable && self.epoch == target_epoch
    }

    /// Goes as far towards the target as can be. `held` is kept in line with what the member holds.
    pub fn reconcile(&mut self, target_epoch: i32, held: &mut Held, now: i64) {
        let before = self.epoch;
        self.go_on(target_epoch, held, now);
        if self.epoch != before {
            self.previous_epoch = before;
        }
    }

    fn go_on(&mut self, target_epoch: i32, held: &mut Held, now: i64) {
        if self.progress == Progress::Revoking {
            if self.owns_what_must_go() {
                return;
            }
            self.let_go(held);
            self.epoch = (self.epoch + 1).min(target_epoch);
        } else if self.is_at(target_epoch) && self.assigned == self.target {
            return;
        }
        let mut keep = Partitions::new();
        let mut drop = Partitions::new();
        for (topic, index) in assign::each(&self.assigned) {
            let side = if assign::has(&self.target, topic, index) { &mut keep } else { &mut drop };
            assign::add(side, topic, index);
        }
        self.assigned = keep;
        self.revoking = drop;
        if self.classic.is_some() && !self.owns_what_must_go() {
            // What it says with a join it owns until the sync tells it more. All goes in one step with the epoch.
            self.let_go(held);
        }
        if !self.revoking.is_empty() {
            // What it said before it was told is no word on these.
            self.owned = None;
            self.progress = Progress::Revoking;
            self.revoking_ends = Some(now.saturating_add(i64::from(self.rebalance_timeout_ms)));
            return;
        }
        let mut waits = false;
        let mut given = Vec::new();
        for (topic, index) in assign::each(&self.target) {
            if assign::has(&self.assigned, topic, index) {
                continue;
            }
            if held.contains(&(topic, index)) {
                waits = true;
            } else {
                given.push((topic, index));
            }
        }
        for (topic, index) in given {
            held.insert((topic, index));
            assign::add(&mut self.assigned, topic, index);
        }
        self.progress = if waits { Progress::Waiting } else { Progress::Stable };
        self.epoch = target_epoch;
    }

    /// Whether it has not said that all that it has yet to let go of is gone.
    fn owns_what_must_go(&self) -> bool {
        let owns = |owned: &Partitions| assign::each(&self.revoking).any(|(t, index)| assign::has(owned, t, index));
        self.owned.as_ref().is_none_or(owns)
    }

    /// Gives up what it was about to.
    pub fn let_go(&mut self, held: &mut Held) {
        for place in assign::each(&self.revoking) {
            held.remove(&place);
        }
        self.revoking.clear();
        self.revoking_ends = None;
        self.progress = Progress::Stable;
    }

    /// Gives up everything.
    pub fn let_all_go(&mut self, held: &mut Held) {
        self.let_go(held);
        for place in assign::each(&self.assigned) {
            held.remove(&place);
        }
        self.assigned.clear();
    }
}

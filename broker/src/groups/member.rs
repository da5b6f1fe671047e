//! A member of a group, and what members ask and are answered.

use bytes::Bytes;

use super::machine::Ticket;

#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub group: String,
    /// Empty: not known to the group yet.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Ways of assignment that the member can do, the preferred one first, each with its opaque metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// The client can be told its id first and join with it (v4 on).
    pub id_required: bool,
    /// The client understands "you lead, but assign nothing" (v9 on).
    pub can_skip_assignment: bool,
    /// The id it gets if it has none.
    pub new_id: String,
}

impl JoinRequest {
    /// About what it adds to memory at most.
    pub fn bytes(&self) -> usize {
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        let texts = 3 * self.group.len() + 3 * self.new_id.len() + 2 * instance + self.client_id.len();
        MEMBER_BYTES + texts + self.protocol_type.len() + bytes_of(&self.protocols)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member_id: String,
    /// All members, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
    pub skip_assignment: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

#[derive(Debug, Clone)]
pub struct SyncRequest {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// From v5 on, to be held against what the group chose.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// The leader's word on who reads what.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAnswer {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

#[derive(Debug, Clone)]
pub struct LeaveRequest {
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// Order in which members came; the first leads.
    pub order: u64,
    /// Parked join, answered when the generation begins.
    pub join: Option<Ticket>,
    /// Parked join of a static member that took its old place, answered once that is persisted.
    pub replaced: Option<(Ticket, Box<JoinAnswer>)>,
    /// Parked sync, answered when the assignment is persisted.
    pub sync: Option<Ticket>,
    /// Has yet to ask for its assignment of this generation.
    pub must_sync: bool,
    /// Joined without having been told an id before: may be gone while it is parked.
    pub unconfirmed: bool,
    pub session_ends: i64,
}

impl Member {
    pub fn new(join: &JoinRequest, id: String, order: u64) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            order,
            join: None,
            replaced: None,
            sync: None,
            must_sync: false,
            unconfirmed: false,
            session_ends: i64::MAX,
        }
    }

    /// Takes over what a member says anew when it joins again.
    pub fn update(&mut self, join: &JoinRequest) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.protocols.clone_from(&join.protocols);
    }

    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// When silence ends the membership; never while the member is parked and known to be there.
    pub fn session_deadline(&self) -> i64 {
        if (self.join.is_some() && !self.unconfirmed) || self.replaced.is_some() || self.sync.is_some() {
            i64::MAX
        } else {
            self.session_ends
        }
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        // The ids are keys too, and those of static members look each other up.
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        let texts = 3 * self.id.len() + 2 * instance + self.client_id.len() + self.client_host.len();
        MEMBER_BYTES + texts + bytes_of(&self.protocols) + self.assignment.len()
    }

    pub fn heard(&mut self, now: i64) {
        self.session_ends = now + i64::from(self.session_timeout_ms);
    }
}

/// What a member takes in memory beyond its texts and bytes, about.
const MEMBER_BYTES: usize = 512;
/// The same of one named piece of bytes.
const ENTRY_BYTES: usize = 64;

/// About what named pieces of bytes take in memory.
pub(super) fn bytes_of(entries: &[(String, Bytes)]) -> usize {
    entries.iter().map(|(name, bytes)| ENTRY_BYTES + name.len() + bytes.len()).sum()
}

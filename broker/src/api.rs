//! What each Kafka API does, one file per API, and how errors become Kafka's codes.
//!
//! Here: the table of what is advertised, dispatch, and [`code_of`]. Not here: bytes and frames (`wire`), sockets and
//! queues (`server`), what groups do (`groups`), what is stored (`storage`).
//!
//! Invariant: what the table lists is answered for every version of its range; nothing else is. A body reaches the
//! codec only after it passed the check of its shape.

mod access;
mod acls;
mod config_entries;
mod k00_produce;
mod k01_fetch;
mod k02_list_offsets;
mod k03_metadata;
mod k08_offset_commit;
mod k09_offset_fetch;
mod k10_find_coordinator;
mod k11_join_group;
mod k12_heartbeat;
mod k13_leave_group;
mod k14_sync_group;
mod k15_describe_groups;
mod k16_list_groups;
mod k17_sasl_handshake;
mod k18_api_versions;
mod k19_create_topics;
mod k20_delete_topics;
mod k21_delete_records;
mod k22_init_producer_id;
mod k23_offset_for_leader_epoch;
mod k24_add_partitions_to_txn;
mod k25_add_offsets_to_txn;
mod k26_end_txn;
mod k27_write_txn_markers;
mod k28_txn_offset_commit;
mod k29_describe_acls;
mod k30_create_acls;
mod k31_delete_acls;
mod k32_describe_configs;
mod k33_alter_configs;
mod k34_alter_replica_log_dirs;
mod k35_describe_log_dirs;
mod k36_sasl_authenticate;
mod k37_create_partitions;
mod k38_create_delegation_token;
mod k39_renew_delegation_token;
mod k40_expire_delegation_token;
mod k41_describe_delegation_token;
mod k42_delete_groups;
mod k43_elect_leaders;
mod k44_incremental_alter_configs;
mod k45_alter_partition_reassignments;
mod k46_list_partition_reassignments;
mod k47_offset_delete;
mod k48_describe_client_quotas;
mod k49_alter_client_quotas;
mod k50_describe_user_scram_credentials;
mod k51_alter_user_scram_credentials;
mod k55_describe_quorum;
mod k57_update_features;
mod k60_describe_cluster;
mod k61_describe_producers;
mod k64_unregister_broker;
mod k65_describe_transactions;
mod k66_list_transactions;
mod k68_consumer_group_heartbeat;
mod k69_consumer_group_describe;
mod k74_list_config_resources;
mod k75_describe_topic_partitions;
mod topics;

pub(crate) use self::k01_fetch::{FetchSessions, SessionLimits};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::sync::Semaphore;

use crate::features::Features;
use crate::groups::{Coordinator, GroupError};
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::security::authorizer::Authorizer;
use crate::security::quotas::Quotas;
use crate::security::{Authenticator, Caller};
use crate::server::{ServerSettings, TopicGuard};
use crate::storage::{Storage, StorageError};
use crate::transactions::{self, TransactionError};
use crate::wire::{Error, Reply, RequestHead, Response, Shape, shape_of};

/// An API that is answered.
pub(crate) struct Api {
    pub key: i16,
    pub name: &'static str,
    /// Lowest version in the answer to ApiVersions.
    pub advertised_min: i16,
    /// Lowest version that is answered.
    pub min: i16,
    pub max: i16,
    pub shape: &'static Shape,
}

const fn api(key: i16, name: &'static str, min: i16, max: i16, shape: &'static Shape) -> Api {
    Api { key, name, advertised_min: min, min, max, shape }
}

/// All that is advertised, by key.
pub(crate) static APIS: &[Api] = &[
    // Old librdkafka believes in gzip, snappy and lz4 only where Produce 0 is offered. None sends it.
    Api { advertised_min: 0, ..api(0, "produce", 3, 13, &shape_of::PRODUCE) },
    api(1, "fetch", 4, 18, &shape_of::FETCH),
    api(2, "list_offsets", 1, 10, &shape_of::LIST_OFFSETS),
    api(3, "metadata", 0, 13, &shape_of::METADATA),
    api(8, "offset_commit", 2, 9, &shape_of::OFFSET_COMMIT),
    api(9, "offset_fetch", 1, 9, &shape_of::OFFSET_FETCH),
    api(10, "find_coordinator", 0, 6, &shape_of::FIND_COORDINATOR),
    api(11, "join_group", 0, 9, &shape_of::JOIN_GROUP),
    api(12, "heartbeat", 0, 4, &shape_of::HEARTBEAT),
    api(13, "leave_group", 0, 5, &shape_of::LEAVE_GROUP),
    api(14, "sync_group", 0, 5, &shape_of::SYNC_GROUP),
    api(15, "describe_groups", 0, 6, &shape_of::DESCRIBE_GROUPS),
    api(16, "list_groups", 0, 5, &shape_of::LIST_GROUPS),
    api(17, "sasl_handshake", 0, 1, &shape_of::SASL_HANDSHAKE),
    api(18, "api_versions", 0, 4, &shape_of::API_VERSIONS),
    api(19, "create_topics", 2, 7, &shape_of::CREATE_TOPICS),
    api(20, "delete_topics", 1, 6, &shape_of::DELETE_TOPICS),
    api(21, "delete_records", 0, 2, &shape_of::DELETE_RECORDS),
    api(22, "init_producer_id", 0, 5, &shape_of::INIT_PRODUCER_ID),
    api(23, "offset_for_leader_epoch", 2, 4, &shape_of::OFFSET_FOR_LEADER_EPOCH),
    api(24, "add_partitions_to_txn", 0, 3, &shape_of::ADD_PARTITIONS_TO_TXN),
    api(25, "add_offsets_to_txn", 0, 4, &shape_of::ADD_OFFSETS_TO_TXN),
    api(26, "end_txn", 0, 5, &shape_of::END_TXN),
    api(27, "write_txn_markers", 1, 1, &shape_of::WRITE_TXN_MARKERS),
    api(28, "txn_offset_commit", 0, 5, &shape_of::TXN_OFFSET_COMMIT),
    api(29, "describe_acls", 1, 3, &shape_of::DESCRIBE_ACLS),
    api(30, "create_acls", 1, 3, &shape_of::CREATE_ACLS),
    api(31, "delete_acls", 1, 3, &shape_of::DELETE_ACLS),
    api(32, "describe_configs", 1, 4, &shape_of::DESCRIBE_CONFIGS),
    api(33, "alter_configs", 0, 2, &shape_of::ALTER_CONFIGS),
    api(34, "alter_replica_log_dirs", 1, 2, &shape_of::ALTER_REPLICA_LOG_DIRS),
    api(35, "describe_log_dirs", 1, 4, &shape_of::DESCRIBE_LOG_DIRS),
    api(36, "sasl_authenticate", 0, 2, &shape_of::SASL_AUTHENTICATE),
    api(37, "create_partitions", 0, 3, &shape_of::CREATE_PARTITIONS),
    api(38, "create_delegation_token", 1, 3, &shape_of::CREATE_DELEGATION_TOKEN),
    api(39, "renew_delegation_token", 1, 2, &shape_of::RENEW_DELEGATION_TOKEN),
    api(40, "expire_delegation_token", 1, 2, &shape_of::EXPIRE_DELEGATION_TOKEN),
    api(41, "describe_delegation_token", 1, 3, &shape_of::DESCRIBE_DELEGATION_TOKEN),
    api(42, "delete_groups", 0, 2, &shape_of::DELETE_GROUPS),
    api(43, "elect_leaders", 0, 2, &shape_of::ELECT_LEADERS),
    api(44, "incremental_alter_configs", 0, 1, &shape_of::INCREMENTAL_ALTER_CONFIGS),
    api(45, "alter_partition_reassignments", 0, 1, &shape_of::ALTER_PARTITION_REASSIGNMENTS),
    api(46, "list_partition_reassignments", 0, 0, &shape_of::LIST_PARTITION_REASSIGNMENTS),
    api(47, "offset_delete", 0, 0, &shape_of::OFFSET_DELETE),
    api(48, "describe_client_quotas", 0, 1, &shape_of::DESCRIBE_CLIENT_QUOTAS),
    api(49, "alter_client_quotas", 0, 1, &shape_of::ALTER_CLIENT_QUOTAS),
    api(50, "describe_user_scram_credentials", 0, 0, &shape_of::DESCRIBE_USER_SCRAM_CREDENTIALS),
    api(51, "alter_user_scram_credentials", 0, 0, &shape_of::ALTER_USER_SCRAM_CREDENTIALS),
    api(55, "describe_quorum", 0, 2, &shape_of::DESCRIBE_QUORUM),
    api(57, "update_features", 0, 2, &shape_of::UPDATE_FEATURES),
    api(60, "describe_cluster", 0, 2, &shape_of::DESCRIBE_CLUSTER),
    api(61, "describe_producers", 0, 0, &shape_of::DESCRIBE_PRODUCERS),
    api(64, "unregister_broker", 0, 0, &shape_of::UNREGISTER_BROKER),
    api(65, "describe_transactions", 0, 0, &shape_of::DESCRIBE_TRANSACTIONS),
    api(66, "list_transactions", 0, 2, &shape_of::LIST_TRANSACTIONS),
    api(68, "consumer_group_heartbeat", 0, 1, &shape_of::CONSUMER_GROUP_HEARTBEAT),
    api(69, "consumer_group_describe", 0, 1, &shape_of::CONSUMER_GROUP_DESCRIBE),
    api(74, "list_config_resources", 0, 1, &shape_of::LIST_CONFIG_RESOURCES),
    api(75, "describe_topic_partitions", 0, 0, &shape_of::DESCRIBE_TOPIC_PARTITIONS),
];

pub(crate) const PRODUCE: i16 = 0;
pub(crate) const FETCH: i16 = 1;
const JOIN_GROUP: i16 = 11;
const SYNC_GROUP: i16 = 14;
const API_VERSIONS: i16 = 18;
pub(crate) const SASL_AUTHENTICATE: i16 = 36;

pub(crate) fn name_of(key: i16) -> &'static str {
    find(key).map_or("unknown", |api| api.name)
}

fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().and_then(|i| APIS.get(i))
}

/// Whether an answer to this may wait for others, so that it is given up when the peer is gone.
pub(crate) fn waits(key: i16) -> bool {
    matches!(key, FETCH | JOIN_GROUP | SYNC_GROUP)
}

/// Whether an answer to this may be large, however small the request is. Joining a group is not meant: whoever waited
/// for memory with it would be taken for dead.
pub(crate) fn answers_much(key: i16) -> bool {
    matches!(key, 2 | 3 | 9 | 15 | 16 | 19 | 29 | 31 | 32 | 35 | 41 | 48 | 50 | 61 | 65 | 66 | 69 | 74 | 75)
}

/// Whether an API may create or delete partitions.
pub(crate) fn changes_topics(key: i16) -> bool {
    const CREATE_TOPICS: i16 = 19;
    const DELETE_TOPICS: i16 = 20;
    const CREATE_PARTITIONS: i16 = 37;
    matches!(key, CREATE_TOPICS | DELETE_TOPICS | CREATE_PARTITIONS)
}

/// Where in a response's frame its throttle time lies, if it has one.
pub(crate) fn throttle_place(key: i16, version: i16, flexible_head: bool, size: usize) -> Option<usize> {
    /// Length and correlation id.
    const HEAD: usize = 8;
    let body = HEAD + usize::from(flexible_head);
    match key {
        // After the topics: only tagged fields follow, and there are none.
        PRODUCE => size.checked_sub(if version >= 9 { 5 } else { 4 }),
        // After the error code.
        47 => Some(body + 2),
        // Before all else.
        1 | 10 | 12 | 13 | 14 | 15 | 16 if version >= 1 => Some(body),
        2 | 11 if version >= 2 => Some(body),
        3 | 8 | 9 if version >= 3 => Some(body),
        19..=26 | 28..=35 | 37 | 42..=46 | 48..=51 | 57 | 60 | 61 | 65 | 66 | 68 | 69 | 74 | 75 => Some(body),
        _ => None,
    }
}

/// What every API may use.
pub(crate) struct Shared {
    pub storage: Storage,
    pub fetch_sessions: FetchSessions,
    pub groups: Coordinator,
    pub transactions: transactions::Coordinator,
    pub settings: ServerSettings,
    pub guard: Arc<dyn TopicGuard>,
    /// Without one everything is allowed.
    pub authorizer: Option<Authorizer>,
    pub quotas: Quotas,
    pub authenticator: Arc<Authenticator>,
    /// Permits for connections that agree on TLS.
    pub handshakes: Semaphore,
    /// One address has at most half of them.
    pub handshakes_by_address: Arc<Lanes>,
    pub features: Features,
    pub metrics: Arc<Metrics>,
    /// Permits for reads that may have to go to disk.
    pub disk_reads: Semaphore,
    /// One address has at most three quarters of them.
    pub disk_reads_by_address: Arc<Lanes>,
    /// Permits for bytes of requests.
    pub requests_bytes: Arc<Semaphore>,
    /// The same for all who have yet to authenticate.
    pub strangers_bytes: Arc<Semaphore>,
    /// How many there are of them.
    pub requests_bytes_total: usize,
}

/// A request whose body passed its shape's check.
pub(crate) struct Request {
    pub head: RequestHead,
    pub body: Bytes,
    /// Who sent it.
    pub caller: Arc<Caller>,
    api: &'static Api,
}

pub(crate) type Later = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// How far a request has come.
pub(crate) enum Stage {
    Done(Reply),
    /// Its place in the log is fixed, so that the next one may begin; the answer follows.
    Later(Later),
}

impl Request {
    /// Reads a frame. An unknown version of ApiVersions comes out as a request of version 0 with `Reply` ready.
    pub fn read(
        mut frame: Bytes,
        caller: &Arc<Caller>,
        settings: &ServerSettings,
    ) -> Result<Result<Self, Reply>, Error> {
        let mut head = RequestHead::begin(&mut frame)?;
        let Some(api) = find(head.key) else {
            return Err(Error::malformed(format!("api {} is not known here", head.key)));
        };
        if head.version < api.min || head.version > api.max {
            if api.key == API_VERSIONS {
                head.version = 0;
                return Ok(Err(k18_api_versions::unsupported(&head)?));
            }
            let (name, version, min, max) = (api.name, head.version, api.min, api.max);
            return Err(Error::malformed(format!("version {version} of \"{name}\" is not one of {min} to {max}")));
        }
        head.finish(&mut frame, head.version >= api.shape.flexible, settings.request_elements_max)?;
        api.shape.check(head.version, &frame, settings.request_elements_max)?;
        Ok(Ok(Self { head, body: frame, caller: Arc::clone(caller), api }))
    }

    fn decode<T: Decodable>(&self) -> Result<T, Error> {
        T::decode(&mut self.body.clone(), self.head.version)
            .map_err(|e| Error::malformed(format!("a \"{}\" request cannot be read: {e}", self.api.name)))
    }

    /// Whether the response's header ends with tagged fields. That of ApiVersions never does.
    pub fn flexible_head(&self) -> bool {
        self.head.version >= self.api.shape.flexible && self.api.key != API_VERSIONS
    }

    fn respond<T: Encodable>(&self, message: &T) -> Result<Reply, Error> {
        Response::of(&self.head, self.flexible_head(), message).map(Reply::Response)
    }

    /// As `respond`, or what says that it is too much, where it is larger than an answer may be.
    fn respond_within<T: Encodable>(
        &self,
        shared: &Shared,
        message: T,
        refused: impl FnOnce(Refusal) -> T,
    ) -> Result<Reply, Error> {
        let max = shared.settings.answer_bytes_max;
        // What cannot be sized cannot be encoded, which is told there.
        match message.compute_size(self.head.version) {
            Ok(size) if size > max => {
                drop(message);
                self.respond(&refused(too_much(max)))
            }
            _ => self.respond(&message),
        }
    }

    /// As `respond`, and the connection ends with it.
    fn respond_last<T: Encodable>(&self, message: &T) -> Result<Reply, Error> {
        Response::of(&self.head, self.flexible_head(), message).map(Reply::Last)
    }

    fn client_id(&self) -> &str {
        self.head.client_id.as_deref().unwrap_or_default()
    }
}

/// Answers a request, or brings it as far as the next one may begin.
pub(crate) async fn handle(shared: Arc<Shared>, request: Request) -> Stage {
    let result = match request.head.key {
        0 => return k00_produce::handle(&shared, request).await,
        1 => k01_fetch::handle(&shared, &request).await,
        2 => k02_list_offsets::handle(&shared, &request).await,
        3 => k03_metadata::handle(&shared, &request).await,
        8 => k08_offset_commit::handle(&shared, &request).await,
        9 => k09_offset_fetch::handle(&shared, &request),
        10 => k10_find_coordinator::handle(&shared, &request),
        11 => k11_join_group::handle(&shared, &request).await,
        12 => k12_heartbeat::handle(&shared, &request),
        13 => k13_leave_group::handle(&shared, &request),
        14 => k14_sync_group::handle(&shared, &request).await,
        15 => k15_describe_groups::handle(&shared, &request),
        16 => k16_list_groups::handle(&shared, &request),
        17 => k17_sasl_handshake::handle(&request),
        18 => k18_api_versions::handle(&shared, &request),
        19 => k19_create_topics::handle(&shared, &request).await,
        20 => k20_delete_topics::handle(&shared, &request).await,
        21 => k21_delete_records::handle(&shared, &request).await,
        22 => k22_init_producer_id::handle(&shared, &request).await,
        23 => k23_offset_for_leader_epoch::handle(&shared, &request),
        24 => k24_add_partitions_to_txn::handle(&shared, &request).await,
        25 => k25_add_offsets_to_txn::handle(&shared, &request).await,
        26 => k26_end_txn::handle(&shared, &request).await,
        27 => k27_write_txn_markers::handle(&shared, &request).await,
        28 => k28_txn_offset_commit::handle(&shared, &request).await,
        29 => k29_describe_acls::handle(&shared, &request),
        30 => k30_create_acls::handle(&shared, &request).await,
        31 => k31_delete_acls::handle(&shared, &request).await,
        32 => k32_describe_configs::handle(&shared, &request),
        33 => k33_alter_configs::handle(&shared, &request).await,
        34 => k34_alter_replica_log_dirs::handle(&shared, &request),
        35 => k35_describe_log_dirs::handle(&shared, &request).await,
        36 => k36_sasl_authenticate::handle(&request).await,
        37 => k37_create_partitions::handle(&shared, &request).await,
        38 => k38_create_delegation_token::handle(&shared, &request).await,
        39 => k39_renew_delegation_token::handle(&shared, &request).await,
        40 => k40_expire_delegation_token::handle(&shared, &request).await,
        41 => k41_describe_delegation_token::handle(&shared, &request),
        42 => k42_delete_groups::handle(&shared, &request).await,
        43 => k43_elect_leaders::handle(&shared, &request),
        44 => k44_incremental_alter_configs::handle(&shared, &request).await,
        45 => k45_alter_partition_reassignments::handle(&shared, &request),
        46 => k46_list_partition_reassignments::handle(&shared, &request),
        47 => k47_offset_delete::handle(&shared, &request).await,
        48 => k48_describe_client_quotas::handle(&shared, &request),
        49 => k49_alter_client_quotas::handle(&shared, &request).await,
        50 => k50_describe_user_scram_credentials::handle(&shared, &request),
        51 => k51_alter_user_scram_credentials::handle(&shared, &request).await,
        55 => k55_describe_quorum::handle(&shared, &request),
        57 => k57_update_features::handle(&shared, &request).await,
        60 => k60_describe_cluster::handle(&shared, &request),
        61 => k61_describe_producers::handle(&shared, &request),
        64 => k64_unregister_broker::handle(&shared, &request),
        65 => k65_describe_transactions::handle(&shared, &request),
        66 => k66_list_transactions::handle(&shared, &request),
        68 => k68_consumer_group_heartbeat::handle(&shared, &request).await,
        69 => k69_consumer_group_describe::handle(&shared, &request),
        74 => k74_list_config_resources::handle(&shared, &request),
        75 => k75_describe_topic_partitions::handle(&shared, &request).await,
        key => Err(Error::malformed(format!("api {key} is not known here"))),
    };
    Stage::Done(result.unwrap_or_else(|error| Reply::Close(error.to_string())))
}

/// Answers a message of a SASL exchange that came without a request around it.
pub(crate) async fn handle_bare(caller: Arc<Caller>, message: Bytes) -> Stage {
    let result = k36_sasl_authenticate::bare(&caller, &message).await;
    Stage::Done(result.unwrap_or_else(|error| Reply::Close(error.to_string())))
}

/// A refusal as it goes into a response: the code, and a sentence where the response has room for one.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub error: ResponseError,
    pub message: String,
}

/// The refusal of a request whose answer would be too large.
pub(crate) fn too_much(max: usize) -> Refusal {
    let message = format!("the answer would be larger than \"answer_bytes_max\" = {max} bytes; ask for less at a time");
    Refusal::new(ResponseError::InvalidRequest, message)
}

/// A refusal's sentence is cut here: it may be told for each partition of a topic whose name is long.
const MESSAGE_BYTES_MAX: usize = 400;
/// As much of a name is told in a sentence.
const BRIEF_BYTES_MAX: usize = 260;

/// A name as far as it goes into a sentence that is said many times. No topic's name is cut.
pub(crate) fn brief(name: &str) -> &str {
    name.get(..name.floor_char_boundary(BRIEF_BYTES_MAX)).unwrap_or_default()
}

impl Refusal {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self { error, message }
    }

    pub fn code(&self) -> i16 {
        self.error.code()
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Self::new(code_by_name(&error), error.to_string())
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        let error = code_of_group(error);
        Self::new(error, error.to_string())
    }
}

/// Kafka's code for what storage says.
pub(crate) fn code_of(error: &StorageError) -> ResponseError {
    match error {
        StorageError::UnknownTopicOrPartition(_) => ResponseError::UnknownTopicOrPartition,
        StorageError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
        StorageError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        StorageError::CorruptMessage(_) | StorageError::Corrupt(_) => ResponseError::CorruptMessage,
        StorageError::MessageTooLarge { .. } | StorageError::ExpandsTooMuch { .. } => ResponseError::MessageTooLarge,
        StorageError::RecordListTooLarge { .. } => ResponseError::RecordListTooLarge,
        StorageError::InvalidRecord { .. } => ResponseError::InvalidRecord,
        StorageError::InvalidTimestamp { .. } => ResponseError::InvalidTimestamp,
        StorageError::UnsupportedCompression(_) => ResponseError::UnsupportedCompressionType,
        StorageError::InvalidProducerEpoch(_) => ResponseError::InvalidProducerEpoch,
        StorageError::OutOfOrderSequence(_) => ResponseError::OutOfOrderSequenceNumber,
        StorageError::InvalidTxnState(_) => ResponseError::InvalidTxnState,
        StorageError::InvalidTopic(_) => ResponseError::InvalidTopicException,
        StorageError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        StorageError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        StorageError::InvalidReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
        StorageError::InvalidConfig(_) => ResponseError::InvalidConfig,
        StorageError::InvalidRequest(_) => ResponseError::InvalidRequest,
        StorageError::Unavailable(_) | StorageError::Closed => ResponseError::KafkaStorageError,
    }
}

/// Kafka's code for what storage says to a request that named the topic, which may have gone in the meantime.
pub(crate) fn code_by_name(error: &StorageError) -> ResponseError {
    match error {
        StorageError::UnknownTopicId(_) => ResponseError::UnknownTopicOrPartition,
        other => code_of(other),
    }
}

/// Kafka's code for what a group says.
pub(crate) fn code_of_group(error: GroupError) -> ResponseError {
    match error {
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::UnknownMember => ResponseError::UnknownMemberId,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::FencedInstance => ResponseError::FencedInstanceId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::GroupFull | GroupError::TooMany => ResponseError::GroupMaxSizeReached,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupNotFound => ResponseError::GroupIdNotFound,
        GroupError::QueryGroup => ResponseError::GroupAuthorizationFailed,
        GroupError::SubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::NotPersisted => ResponseError::CoordinatorNotAvailable,
        GroupError::InvalidRequest => ResponseError::InvalidRequest,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::InvalidPattern => ResponseError::InvalidRegularExpression,
        GroupError::FencedEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnreleasedInstance => ResponseError::UnreleasedInstanceId,
        GroupError::UnsupportedVersion => ResponseError::UnsupportedVersion,
    }
}

/// Kafka's code for what a transaction says. Clients from before `fenced_since` know only one code for being fenced.
pub(crate) fn code_of_transaction(error: TransactionError, version: i16, fenced_since: i16) -> ResponseError {
    match error {
        TransactionError::EmptyId => ResponseError::InvalidRequest,
        TransactionError::InvalidTimeout => ResponseError::InvalidTransactionTimeout,
        TransactionError::InvalidProducerId => ResponseError::InvalidProducerIdMapping,
        TransactionError::Fenced if version < fenced_since => ResponseError::InvalidProducerEpoch,
        TransactionError::Fenced => ResponseError::ProducerFenced,
        TransactionError::InvalidState => ResponseError::InvalidTxnState,
        TransactionError::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        TransactionError::TooMany => ResponseError::PolicyViolation,
        TransactionError::NotPersisted => ResponseError::CoordinatorNotAvailable,
    }
}

fn group_code(result: Result<(), GroupError>) -> i16 {
    result.map_or_else(|e| code_of_group(e).code(), |()| 0)
}

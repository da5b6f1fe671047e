//! The shapes of the requests that we answer, for the versions that we advertise. A test holds them against the codec.
//!
//! `list` is an array of structs, `list_of` an array of plain values; nullable or not makes no difference here.

use super::shape::{BLOB, BOOL, I8, I16, I32, I64, NEVER, Shape, TEXT, UUID, field, list, list_of, one, option, shape};

pub const PRODUCE: Shape = shape(
    9,
    &[
        field("transactional_id", TEXT),
        field("acks", I16),
        field("timeout_ms", I32),
        list(
            "topic_data",
            &[
                field("name", TEXT).until(12),
                field("topic_id", UUID).since(13),
                list("partition_data", &[field("index", I32), field("records", BLOB)]),
            ],
        ),
    ],
);

pub const FETCH: Shape = shape(
    12,
    &[
        field("replica_id", I32).until(14),
        field("max_wait_ms", I32),
        field("min_bytes", I32),
        field("max_bytes", I32),
        field("isolation_level", I8),
        field("session_id", I32).since(7),
        field("session_epoch", I32).since(7),
        list(
            "topics",
            &[
                field("topic", TEXT).until(12),
                field("topic_id", UUID).since(13),
                list(
                    "partitions",
                    &[
                        field("partition", I32),
                        field("current_leader_epoch", I32).since(9),
                        field("fetch_offset", I64),
                        field("last_fetched_epoch", I32).since(12),
                        field("log_start_offset", I64).since(5),
                        field("partition_max_bytes", I32),
                        field("replica_directory_id", UUID).since(17).tag(0),
                        field("high_watermark", I64).since(18).tag(1),
                    ],
                ),
            ],
        ),
        list(
            "forgotten_topics_data",
            &[field("topic", TEXT).until(12), field("topic_id", UUID).since(13), list_of("partitions", &I32)],
        )
        .since(7),
        field("rack_id", TEXT).since(11),
        field("cluster_id", TEXT).since(12).tag(0),
        one("replica_state", &[field("replica_id", I32), field("replica_epoch", I64)]).since(15).tag(1),
    ],
);

pub const LIST_OFFSETS: Shape = shape(
    6,
    &[
        field("replica_id", I32),
        field("isolation_level", I8).since(2),
        list(
            "topics",
            &[
                field("name", TEXT),
                list(
                    "partitions",
                    &[
                        field("partition_index", I32),
                        field("current_leader_epoch", I32).since(4),
                        field("timestamp", I64),
                    ],
                ),
            ],
        ),
        field("timeout_ms", I32).since(10),
    ],
);

pub const METADATA: Shape = shape(
    9,
    &[
        list("topics", &[field("topic_id", UUID).since(10), field("name", TEXT)]),
        field("allow_auto_topic_creation", BOOL).since(4),
        field("include_cluster_authorized_operations", BOOL).since(8).until(10),
        field("include_topic_authorized_operations", BOOL).since(8),
    ],
);

pub const OFFSET_COMMIT: Shape = shape(
    8,
    &[
        field("group_id", TEXT),
        field("generation_id_or_member_epoch", I32),
        field("member_id", TEXT),
        field("group_instance_id", TEXT).since(7),
        field("retention_time_ms", I64).until(4),
        list(
            "topics",
            &[
                field("name", TEXT),
                list(
                    "partitions",
                    &[
                        field("partition_index", I32),
                        field("committed_offset", I64),
                        field("committed_leader_epoch", I32).since(6),
                        field("committed_metadata", TEXT),
                    ],
                ),
            ],
        ),
    ],
);

pub const OFFSET_FETCH: Shape = shape(
    6,
    &[
        field("group_id", TEXT).until(7),
        list("topics", &[field("name", TEXT), list_of("partition_indexes", &I32)]).until(7),
        list(
            "groups",
            &[
                field("group_id", TEXT),
                field("member_id", TEXT).since(9),
                field("member_epoch", I32).since(9),
                list("topics", &[field("name", TEXT), list_of("partition_indexes", &I32)]),
            ],
        )
        .since(8),
        field("require_stable", BOOL).since(7),
    ],
);

pub const FIND_COORDINATOR: Shape = shape(
    3,
    &[field("key", TEXT).until(3), field("key_type", I8).since(1), list_of("coordinator_keys", &TEXT).since(4)],
);

pub const JOIN_GROUP: Shape = shape(
    6,
    &[
        field("group_id", TEXT),
        field("session_timeout_ms", I32),
        field("rebalance_timeout_ms", I32).since(1),
        field("member_id", TEXT),
        field("group_instance_id", TEXT).since(5),
        field("protocol_type", TEXT),
        list("protocols", &[field("name", TEXT), field("metadata", BLOB)]),
        field("reason", TEXT).since(8),
    ],
);

pub const HEARTBEAT: Shape = shape(
    4,
    &[
        field("group_id", TEXT),
        field("generation_id", I32),
        field("member_id", TEXT),
        field("group_instance_id", TEXT).since(3),
    ],
);

pub const LEAVE_GROUP: Shape = shape(
    4,
    &[
        field("group_id", TEXT),
        field("member_id", TEXT).until(2),
        list("members", &[field("member_id", TEXT), field("group_instance_id", TEXT), field("reason", TEXT).since(5)])
            .since(3),
    ],
);

pub const SYNC_GROUP: Shape = shape(
    4,
    &[
        field("group_id", TEXT),
        field("generation_id", I32),
        field("member_id", TEXT),
        field("group_instance_id", TEXT).since(3),
        field("protocol_type", TEXT).since(5),
        field("protocol_name", TEXT).since(5),
        list("assignments", &[field("member_id", TEXT), field("assignment", BLOB)]),
    ],
);

pub const DESCRIBE_GROUPS: Shape =
    shape(5, &[list_of("groups", &TEXT), field("include_authorized_operations", BOOL).since(3)]);

pub const LIST_GROUPS: Shape =
    shape(3, &[list_of("states_filter", &TEXT).since(4), list_of("types_filter", &TEXT).since(5)]);

pub const API_VERSIONS: Shape =
    shape(3, &[field("client_software_name", TEXT).since(3), field("client_software_version", TEXT).since(3)]);

pub const CREATE_TOPICS: Shape = shape(
    5,
    &[
        list(
            "topics",
            &[
                field("name", TEXT),
                field("num_partitions", I32),
                field("replication_factor", I16),
                list("assignments", &[field("partition_index", I32), list_of("broker_ids", &I32)]),
                list("configs", &[field("name", TEXT), field("value", TEXT)]),
            ],
        ),
        field("timeout_ms", I32),
        field("validate_only", BOOL),
    ],
);

pub const DELETE_TOPICS: Shape = shape(
    4,
    &[
        list("topics", &[field("name", TEXT), field("topic_id", UUID)]).since(6),
        list_of("topic_names", &TEXT).until(5),
        field("timeout_ms", I32),
    ],
);

pub const DELETE_RECORDS: Shape = shape(
    2,
    &[
        list(
            "topics",
            &[field("name", TEXT), list("partitions", &[field("partition_index", I32), field("offset", I64)])],
        ),
        field("timeout_ms", I32),
    ],
);

pub const INIT_PRODUCER_ID: Shape = shape(
    2,
    &[
        field("transactional_id", TEXT),
        field("transaction_timeout_ms", I32),
        field("producer_id", I64).since(3),
        field("producer_epoch", I16).since(3),
    ],
);

pub const OFFSET_FOR_LEADER_EPOCH: Shape = shape(
    4,
    &[
        field("replica_id", I32).since(3),
        list(
            "topics",
            &[
                field("topic", TEXT),
                list(
                    "partitions",
                    &[field("partition", I32), field("current_leader_epoch", I32), field("leader_epoch", I32)],
                ),
            ],
        ),
    ],
);

pub const ADD_PARTITIONS_TO_TXN: Shape = shape(
    3,
    &[
        field("v3_and_below_transactional_id", TEXT),
        field("v3_and_below_producer_id", I64),
        field("v3_and_below_producer_epoch", I16),
        list("v3_and_below_topics", &[field("name", TEXT), list_of("partitions", &I32)]),
    ],
);

pub const ADD_OFFSETS_TO_TXN: Shape = shape(
    3,
    &[
        field("transactional_id", TEXT),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("group_id", TEXT),
    ],
);

pub const END_TXN: Shape = shape(
    3,
    &[
        field("transactional_id", TEXT),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("committed", BOOL),
    ],
);

pub const TXN_OFFSET_COMMIT: Shape = shape(
    3,
    &[
        field("transactional_id", TEXT),
        field("group_id", TEXT),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("generation_id", I32).since(3),
        field("member_id", TEXT).since(3),
        field("group_instance_id", TEXT).since(3),
        list(
            "topics",
            &[
                field("name", TEXT),
                list(
                    "partitions",
                    &[
                        field("partition_index", I32),
                        field("committed_offset", I64),
                        field("committed_leader_epoch", I32).since(2),
                        field("committed_metadata", TEXT),
                    ],
                ),
            ],
        ),
    ],
);

pub const WRITE_TXN_MARKERS: Shape = shape(
    1,
    &[list(
        "markers",
        &[
            field("producer_id", I64),
            field("producer_epoch", I16),
            field("transaction_result", BOOL),
            list("topics", &[field("name", TEXT), list_of("partition_indexes", &I32)]),
            field("coordinator_epoch", I32),
        ],
    )],
);

pub const ALTER_PARTITION_REASSIGNMENTS: Shape = shape(
    0,
    &[
        field("timeout_ms", I32),
        field("allow_replication_factor_change", BOOL).since(1),
        list(
            "topics",
            &[field("name", TEXT), list("partitions", &[field("partition_index", I32), list_of("replicas", &I32)])],
        ),
    ],
);

pub const DESCRIBE_QUORUM: Shape =
    shape(0, &[list("topics", &[field("topic_name", TEXT), list("partitions", &[field("partition_index", I32)])])]);

pub const CREATE_DELEGATION_TOKEN: Shape = shape(
    2,
    &[
        field("owner_principal_type", TEXT).since(3),
        field("owner_principal_name", TEXT).since(3),
        list("renewers", &[field("principal_type", TEXT), field("principal_name", TEXT)]),
        field("max_lifetime_ms", I64),
    ],
);

pub const RENEW_DELEGATION_TOKEN: Shape = shape(2, &[field("hmac", BLOB), field("renew_period_ms", I64)]);

pub const EXPIRE_DELEGATION_TOKEN: Shape = shape(2, &[field("hmac", BLOB), field("expiry_time_period_ms", I64)]);

pub const DESCRIBE_DELEGATION_TOKEN: Shape =
    shape(2, &[list("owners", &[field("principal_type", TEXT), field("principal_name", TEXT)])]);

pub const UPDATE_FEATURES: Shape = shape(
    0,
    &[
        field("timeout_ms", I32),
        list(
            "feature_updates",
            &[
                field("feature", TEXT),
                field("max_version_level", I16),
                field("allow_downgrade", BOOL).until(0),
                field("upgrade_type", I8).since(1),
            ],
        ),
        field("validate_only", BOOL).since(1),
    ],
);

pub const LIST_CONFIG_RESOURCES: Shape = shape(0, &[list_of("resource_types", &I8).since(1)]);

pub const DESCRIBE_TOPIC_PARTITIONS: Shape = shape(
    0,
    &[
        list("topics", &[field("name", TEXT)]),
        field("response_partition_limit", I32),
        option("cursor", &[field("topic_name", TEXT), field("partition_index", I32)]),
    ],
);

pub const DESCRIBE_PRODUCERS: Shape =
    shape(0, &[list("topics", &[field("name", TEXT), list_of("partition_indexes", &I32)])]);

pub const DESCRIBE_TRANSACTIONS: Shape = shape(0, &[list_of("transactional_ids", &TEXT)]);

pub const LIST_TRANSACTIONS: Shape = shape(
    0,
    &[
        list_of("state_filters", &TEXT),
        list_of("producer_id_filters", &I64),
        field("duration_filter", I64).since(1),
        field("transactional_id_pattern", TEXT).since(2),
    ],
);

pub const DESCRIBE_ACLS: Shape = shape(
    2,
    &[
        field("resource_type_filter", I8),
        field("resource_name_filter", TEXT),
        field("pattern_type_filter", I8),
        field("principal_filter", TEXT),
        field("host_filter", TEXT),
        field("operation", I8),
        field("permission_type", I8),
    ],
);

pub const CREATE_ACLS: Shape = shape(
    2,
    &[list(
        "creations",
        &[
            field("resource_type", I8),
            field("resource_name", TEXT),
            field("resource_pattern_type", I8),
            field("principal", TEXT),
            field("host", TEXT),
            field("operation", I8),
            field("permission_type", I8),
        ],
    )],
);

pub const DELETE_ACLS: Shape = shape(
    2,
    &[list(
        "filters",
        &[
            field("resource_type_filter", I8),
            field("resource_name_filter", TEXT),
            field("pattern_type_filter", I8),
            field("principal_filter", TEXT),
            field("host_filter", TEXT),
            field("operation", I8),
            field("permission_type", I8),
        ],
    )],
);

pub const DESCRIBE_CONFIGS: Shape = shape(
    4,
    &[
        list(
            "resources",
            &[field("resource_type", I8), field("resource_name", TEXT), list_of("configuration_keys", &TEXT)],
        ),
        field("include_synonyms", BOOL),
        field("include_documentation", BOOL).since(3),
    ],
);

pub const ALTER_CONFIGS: Shape = shape(
    2,
    &[
        list(
            "resources",
            &[
                field("resource_type", I8),
                field("resource_name", TEXT),
                list("configs", &[field("name", TEXT), field("value", TEXT)]),
            ],
        ),
        field("validate_only", BOOL),
    ],
);

pub const ALTER_REPLICA_LOG_DIRS: Shape = shape(
    2,
    &[list("dirs", &[field("path", TEXT), list("topics", &[field("name", TEXT), list_of("partitions", &I32)])])],
);

pub const DESCRIBE_LOG_DIRS: Shape = shape(2, &[list("topics", &[field("topic", TEXT), list_of("partitions", &I32)])]);

pub const SASL_HANDSHAKE: Shape = shape(NEVER, &[field("mechanism", TEXT)]);

pub const SASL_AUTHENTICATE: Shape = shape(2, &[field("auth_bytes", BLOB)]);

pub const DESCRIBE_USER_SCRAM_CREDENTIALS: Shape = shape(0, &[list("users", &[field("name", TEXT)])]);

pub const ALTER_USER_SCRAM_CREDENTIALS: Shape = shape(
    0,
    &[
        list("deletions", &[field("name", TEXT), field("mechanism", I8)]),
        list(
            "upsertions",
            &[
                field("name", TEXT),
                field("mechanism", I8),
                field("iterations", I32),
                field("salt", BLOB),
                field("salted_password", BLOB),
            ],
        ),
    ],
);

pub const CREATE_PARTITIONS: Shape = shape(
    2,
    &[
        list(
            "topics",
            &[field("name", TEXT), field("count", I32), list("assignments", &[list_of("broker_ids", &I32)])],
        ),
        field("timeout_ms", I32),
        field("validate_only", BOOL),
    ],
);

pub const DELETE_GROUPS: Shape = shape(2, &[list_of("groups_names", &TEXT)]);

pub const ELECT_LEADERS: Shape = shape(
    2,
    &[
        field("election_type", I8).since(1),
        list("topic_partitions", &[field("topic", TEXT), list_of("partitions", &I32)]),
        field("timeout_ms", I32),
    ],
);

pub const INCREMENTAL_ALTER_CONFIGS: Shape = shape(
    1,
    &[
        list(
            "resources",
            &[
                field("resource_type", I8),
                field("resource_name", TEXT),
                list("configs", &[field("name", TEXT), field("config_operation", I8), field("value", TEXT)]),
            ],
        ),
        field("validate_only", BOOL),
    ],
);

pub const LIST_PARTITION_REASSIGNMENTS: Shape =
    shape(0, &[field("timeout_ms", I32), list("topics", &[field("name", TEXT), list_of("partition_indexes", &I32)])]);

pub const OFFSET_DELETE: Shape = shape(
    NEVER,
    &[
        field("group_id", TEXT),
        list("topics", &[field("name", TEXT), list("partitions", &[field("partition_index", I32)])]),
    ],
);

pub const DESCRIBE_CLIENT_QUOTAS: Shape = shape(
    1,
    &[
        list("components", &[field("entity_type", TEXT), field("match_type", I8), field("match", TEXT)]),
        field("strict", BOOL),
    ],
);

pub const ALTER_CLIENT_QUOTAS: Shape = shape(
    1,
    &[
        list(
            "entries",
            &[
                list("entity", &[field("entity_type", TEXT), field("entity_name", TEXT)]),
                list("ops", &[field("key", TEXT), field("value", I64), field("remove", BOOL)]),
            ],
        ),
        field("validate_only", BOOL),
    ],
);

pub const UNREGISTER_BROKER: Shape = shape(0, &[field("broker_id", I32)]);

pub const DESCRIBE_CLUSTER: Shape = shape(
    0,
    &[
        field("include_cluster_authorized_operations", BOOL),
        field("endpoint_type", I8).since(1),
        field("include_fenced_brokers", BOOL).since(2),
    ],
);

pub const CONSUMER_GROUP_HEARTBEAT: Shape = shape(
    0,
    &[
        field("group_id", TEXT),
        field("member_id", TEXT),
        field("member_epoch", I32),
        field("instance_id", TEXT),
        field("rack_id", TEXT),
        field("rebalance_timeout_ms", I32),
        list_of("subscribed_topic_names", &TEXT),
        field("subscribed_topic_regex", TEXT).since(1),
        field("server_assignor", TEXT),
        list("topic_partitions", &[field("topic_id", UUID), list_of("partitions", &I32)]),
    ],
);

pub const CONSUMER_GROUP_DESCRIBE: Shape =
    shape(0, &[list_of("group_ids", &TEXT), field("include_authorized_operations", BOOL)]);

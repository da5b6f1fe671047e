//! The APIs that the command line speaks: in which versions, and how their answers are laid out.
//!
//! Low versions where they say the same: brokers from 1.0 to today answer them. A test holds the shapes against the codec.

use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use millpond_broker::shape::{
    BLOB, BOOL, Field, I8, I16, I32, I64, NEVER, Shape, TEXT, UUID, field, list, list_of, one, shape,
};

/// A request that can be sent.
pub trait Api: Request {
    const NAME: &'static str;
    const MIN: i16;
    const MAX: i16;
    /// Of the answer.
    const SHAPE: &'static Shape;
}

/// What a member of a group of the newer protocol has.
const ASSIGNED: &[Field] =
    &[list("topic_partitions", &[field("topic_id", UUID), field("topic_name", TEXT), list_of("partitions", &I32)])];

macro_rules! apis {
    ($($request:ident $name:literal $min:literal..=$max:literal $flexible:expr, $fields:expr;)*) => {
        $(impl Api for $request {
            const NAME: &'static str = $name;
            const MIN: i16 = $min;
            const MAX: i16 = $max;
            const SHAPE: &'static Shape = &shape($flexible, $fields);
        })*

        #[cfg(test)]
        mod tests {
            use bytes::Bytes;
            use kafka_protocol::protocol::{Decodable, Message};

            use super::*;

            /// What the walk takes for an answer is what the codec takes for one, to the byte.
            fn agrees<Q: Api>() {
                let mut seed = 42;
                for version in Q::MIN..=Q::MAX {
                    let codecs = (Q::VERSIONS, <Q::Response as Message>::VERSIONS);
                    assert!(codecs.0.min <= version && version <= codecs.0.max, "{} v{version}", Q::NAME);
                    assert!(codecs.1.min <= version && version <= codecs.1.max, "{} v{version}", Q::NAME);
                    for _ in 0..40 {
                        let body = Q::SHAPE.sample(version, &mut seed);
                        Q::SHAPE.check(version, &body, 1000).unwrap_or_else(|e| panic!("{} v{version}: {e}", Q::NAME));
                        let mut bytes = Bytes::from(body.clone());
                        Q::Response::decode(&mut bytes, version)
                            .unwrap_or_else(|e| panic!("{} v{version}: {e}: {body:?}", Q::NAME));
                        assert!(bytes.is_empty(), "{} v{version}: the codec leaves {}", Q::NAME, bytes.len());
                        if let Some((_, cut)) = body.split_last() {
                            assert!(Q::SHAPE.check(version, cut, 1000).is_err(), "{} v{version} cut", Q::NAME);
                        }
                    }
                }
            }

            #[test]
            fn shapes_are_the_codecs() {
                $(agrees::<$request>();)*
            }
        }
    };
}

apis! {
    ApiVersionsRequest "ApiVersions" 0..=3 3, &[
        field("error_code", I16),
        list("api_keys", &[field("api_key", I16), field("min_version", I16), field("max_version", I16)]),
        field("throttle_time_ms", I32).since(1),
        list("supported_features", &[field("name", TEXT), field("min_version", I16), field("max_version", I16)])
            .since(3).tag(0),
        field("finalized_features_epoch", I64).since(3).tag(1),
        list("finalized_features", &[field("name", TEXT), field("max_version", I16), field("min_version", I16)])
            .since(3).tag(2),
        field("zk_migration_ready", BOOL).since(3).tag(3),
    ];
    MetadataRequest "Metadata" 1..=12 9, &[
        field("throttle_time_ms", I32).since(3),
        list("brokers", &[
            field("node_id", I32), field("host", TEXT), field("port", I32), field("rack", TEXT).since(1),
        ]),
        field("cluster_id", TEXT).since(2),
        field("controller_id", I32).since(1),
        list("topics", &[
            field("error_code", I16),
            field("name", TEXT),
            field("topic_id", UUID).since(10),
            field("is_internal", BOOL).since(1),
            list("partitions", &[
                field("error_code", I16),
                field("partition_index", I32),
                field("leader_id", I32),
                field("leader_epoch", I32).since(7),
                list_of("replica_nodes", &I32),
                list_of("isr_nodes", &I32),
                list_of("offline_replicas", &I32).since(5),
            ]),
            field("topic_authorized_operations", I32).since(8),
        ]),
        field("cluster_authorized_operations", I32).since(8).until(10),
    ];
    ProduceRequest "Produce" 3..=9 9, &[
        list("responses", &[
            field("name", TEXT),
            list("partition_responses", &[
                field("index", I32),
                field("error_code", I16),
                field("base_offset", I64),
                field("log_append_time_ms", I64),
                field("log_start_offset", I64).since(5),
                list("record_errors", &[field("batch_index", I32), field("message", TEXT)]).since(8),
                field("error_message", TEXT).since(8),
            ]),
        ]),
        field("throttle_time_ms", I32),
    ];
    FetchRequest "Fetch" 4..=11 NEVER, &[
        field("throttle_time_ms", I32),
        field("error_code", I16).since(7),
        field("session_id", I32).since(7),
        list("responses", &[
            field("topic", TEXT),
            list("partitions", &[
                field("partition_index", I32),
                field("error_code", I16),
                field("high_watermark", I64),
                field("last_stable_offset", I64),
                field("log_start_offset", I64).since(5),
                list("aborted_transactions", &[field("producer_id", I64), field("first_offset", I64)]),
                field("preferred_read_replica", I32).since(11),
                field("records", BLOB),
            ]),
        ]),
    ];
    ListOffsetsRequest "ListOffsets" 1..=7 6, &[
        field("throttle_time_ms", I32).since(2),
        list("topics", &[
            field("name", TEXT),
            list("partitions", &[
                field("partition_index", I32),
                field("error_code", I16),
                field("timestamp", I64),
                field("offset", I64),
                field("leader_epoch", I32).since(4),
            ]),
        ]),
    ];
    InitProducerIdRequest "InitProducerId" 0..=1 NEVER, &[
        field("throttle_time_ms", I32), field("error_code", I16), field("producer_id", I64), field("epoch", I16),
    ];
    FindCoordinatorRequest "FindCoordinator" 0..=2 NEVER, &[
        field("throttle_time_ms", I32).since(1),
        field("error_code", I16),
        field("error_message", TEXT).since(1),
        field("node_id", I32),
        field("host", TEXT),
        field("port", I32),
    ];
    JoinGroupRequest "JoinGroup" 2..=5 NEVER, &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("generation_id", I32),
        field("protocol_name", TEXT),
        field("leader", TEXT),
        field("member_id", TEXT),
        list("members", &[
            field("member_id", TEXT), field("group_instance_id", TEXT).since(5), field("metadata", BLOB),
        ]),
    ];
    SyncGroupRequest "SyncGroup" 1..=3 NEVER, &[
        field("throttle_time_ms", I32), field("error_code", I16), field("assignment", BLOB),
    ];
    HeartbeatRequest "Heartbeat" 1..=3 NEVER, &[field("throttle_time_ms", I32), field("error_code", I16)];
    LeaveGroupRequest "LeaveGroup" 1..=2 NEVER, &[field("throttle_time_ms", I32), field("error_code", I16)];
    OffsetCommitRequest "OffsetCommit" 2..=7 NEVER, &[
        field("throttle_time_ms", I32).since(3),
        list("topics", &[
            field("name", TEXT),
            list("partitions", &[field("partition_index", I32), field("error_code", I16)]),
        ]),
    ];
    OffsetFetchRequest "OffsetFetch" 2..=5 NEVER, &[
        field("throttle_time_ms", I32).since(3),
        list("topics", &[
            field("name", TEXT),
            list("partitions", &[
                field("partition_index", I32),
                field("committed_offset", I64),
                field("committed_leader_epoch", I32).since(5),
                field("metadata", TEXT),
                field("error_code", I16),
            ]),
        ]),
        field("error_code", I16),
    ];
    ListGroupsRequest "ListGroups" 0..=5 3, &[
        field("throttle_time_ms", I32).since(1),
        field("error_code", I16),
        list("groups", &[
            field("group_id", TEXT),
            field("protocol_type", TEXT),
            field("group_state", TEXT).since(4),
            field("group_type", TEXT).since(5),
        ]),
    ];
    DescribeGroupsRequest "DescribeGroups" 0..=4 NEVER, &[
        field("throttle_time_ms", I32).since(1),
        list("groups", &[
            field("error_code", I16),
            field("group_id", TEXT),
            field("group_state", TEXT),
            field("protocol_type", TEXT),
            field("protocol_data", TEXT),
            list("members", &[
                field("member_id", TEXT),
                field("group_instance_id", TEXT).since(4),
                field("client_id", TEXT),
                field("client_host", TEXT),
                field("member_metadata", BLOB),
                field("member_assignment", BLOB),
            ]),
            field("authorized_operations", I32).since(3),
        ]),
    ];
    ConsumerGroupDescribeRequest "ConsumerGroupDescribe" 0..=0 0, &[
        field("throttle_time_ms", I32),
        list("groups", &[
            field("error_code", I16),
            field("error_message", TEXT),
            field("group_id", TEXT),
            field("group_state", TEXT),
            field("group_epoch", I32),
            field("assignment_epoch", I32),
            field("assignor_name", TEXT),
            list("members", &[
                field("member_id", TEXT),
                field("instance_id", TEXT),
                field("rack_id", TEXT),
                field("member_epoch", I32),
                field("client_id", TEXT),
                field("client_host", TEXT),
                list_of("subscribed_topic_names", &TEXT),
                field("subscribed_topic_regex", TEXT),
                one("assignment", ASSIGNED),
                one("target_assignment", ASSIGNED),
            ]),
            field("authorized_operations", I32),
        ]),
    ];
    DeleteGroupsRequest "DeleteGroups" 0..=1 NEVER, &[
        field("throttle_time_ms", I32),
        list("results", &[field("group_id", TEXT), field("error_code", I16)]),
    ];
    OffsetDeleteRequest "OffsetDelete" 0..=0 NEVER, &[
        field("error_code", I16),
        field("throttle_time_ms", I32),
        list("topics", &[
            field("name", TEXT),
            list("partitions", &[field("partition_index", I32), field("error_code", I16)]),
        ]),
    ];
    CreateTopicsRequest "CreateTopics" 2..=4 NEVER, &[
        field("throttle_time_ms", I32),
        list("topics", &[field("name", TEXT), field("error_code", I16), field("error_message", TEXT)]),
    ];
    DeleteTopicsRequest "DeleteTopics" 1..=5 4, &[
        field("throttle_time_ms", I32),
        list("responses", &[
            field("name", TEXT), field("error_code", I16), field("error_message", TEXT).since(5),
        ]),
    ];
    DeleteRecordsRequest "DeleteRecords" 0..=1 NEVER, &[
        field("throttle_time_ms", I32),
        list("topics", &[
            field("name", TEXT),
            list("partitions", &[
                field("partition_index", I32), field("low_watermark", I64), field("error_code", I16),
            ]),
        ]),
    ];
    CreatePartitionsRequest "CreatePartitions" 0..=1 NEVER, &[
        field("throttle_time_ms", I32),
        list("results", &[field("name", TEXT), field("error_code", I16), field("error_message", TEXT)]),
    ];
    DescribeConfigsRequest "DescribeConfigs" 1..=3 NEVER, &[
        field("throttle_time_ms", I32),
        list("results", &[
            field("error_code", I16),
            field("error_message", TEXT),
            field("resource_type", I8),
            field("resource_name", TEXT),
            list("configs", &[
                field("name", TEXT),
                field("value", TEXT),
                field("read_only", BOOL),
                field("config_source", I8),
                field("is_sensitive", BOOL),
                list("synonyms", &[field("name", TEXT), field("value", TEXT), field("source", I8)]),
                field("config_type", I8).since(3),
                field("documentation", TEXT).since(3),
            ]),
        ]),
    ];
    IncrementalAlterConfigsRequest "IncrementalAlterConfigs" 0..=1 1, &[
        field("throttle_time_ms", I32),
        list("responses", &[
            field("error_code", I16),
            field("error_message", TEXT),
            field("resource_type", I8),
            field("resource_name", TEXT),
        ]),
    ];
    DescribeLogDirsRequest "DescribeLogDirs" 1..=1 NEVER, &[
        field("throttle_time_ms", I32),
        list("results", &[
            field("error_code", I16),
            field("log_dir", TEXT),
            list("topics", &[
                field("name", TEXT),
                list("partitions", &[
                    field("partition_index", I32),
                    field("partition_size", I64),
                    field("offset_lag", I64),
                    field("is_future_key", BOOL),
                ]),
            ]),
        ]),
    ];
    DescribeAclsRequest "DescribeAcls" 1..=1 NEVER, &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", TEXT),
        list("resources", &[
            field("resource_type", I8),
            field("resource_name", TEXT),
            field("pattern_type", I8),
            list("acls", &[
                field("principal", TEXT), field("host", TEXT), field("operation", I8), field("permission", I8),
            ]),
        ]),
    ];
    CreateAclsRequest "CreateAcls" 1..=1 NEVER, &[
        field("throttle_time_ms", I32),
        list("results", &[field("error_code", I16), field("error_message", TEXT)]),
    ];
    DeleteAclsRequest "DeleteAcls" 1..=1 NEVER, &[
        field("throttle_time_ms", I32),
        list("filter_results", &[
            field("error_code", I16),
            field("error_message", TEXT),
            list("matching_acls", &[
                field("error_code", I16),
                field("error_message", TEXT),
                field("resource_type", I8),
                field("resource_name", TEXT),
                field("pattern_type", I8),
                field("principal", TEXT),
                field("host", TEXT),
                field("operation", I8),
                field("permission_type", I8),
            ]),
        ]),
    ];
    AlterUserScramCredentialsRequest "AlterUserScramCredentials" 0..=0 0, &[
        field("throttle_time_ms", I32),
        list("results", &[field("user", TEXT), field("error_code", I16), field("error_message", TEXT)]),
    ];
    DescribeUserScramCredentialsRequest "DescribeUserScramCredentials" 0..=0 0, &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", TEXT),
        list("results", &[
            field("user", TEXT),
            field("error_code", I16),
            field("error_message", TEXT),
            list("credential_infos", &[field("mechanism", I8), field("iterations", I32)]),
        ]),
    ];
    SaslHandshakeRequest "SaslHandshake" 0..=1 NEVER, &[field("error_code", I16), list_of("mechanisms", &TEXT)];
    SaslAuthenticateRequest "SaslAuthenticate" 0..=1 NEVER, &[
        field("error_code", I16),
        field("error_message", TEXT),
        field("auth_bytes", BLOB),
        field("session_lifetime_ms", I64).since(1),
    ];
}

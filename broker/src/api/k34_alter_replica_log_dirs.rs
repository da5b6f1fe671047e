//! AlterReplicaLogDirs (34), versions 1 and 2: every partition lies in the one directory, and can lie nowhere else.
//!
//! Moving one to where it is changes nothing. A directory is told apart from others by its text alone, as in Kafka: one
//! that is not ours is refused before it is looked whether there is such a partition. Each partition is answered once; where
//! it is named with several directories, the last one counts.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::k35_describe_log_dirs::DIRECTORY;
use super::topics::{merged, partition};
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AlterReplicaLogDirsRequest = request.decode()?;
    let may = shared.check_cluster(&request.caller, Operation::Alter);
    let mut ours = HashMap::new();
    for directory in &asked.dirs {
        for topic in &directory.topics {
            for index in &topic.partitions {
                ours.insert((topic.name.clone(), *index), directory.path.as_str() == DIRECTORY);
            }
        }
    }
    let topics = merged(asked.dirs.into_iter().flat_map(|d| d.topics).map(|topic| (topic.name, topic.partitions)));
    let results = topics.into_iter().filter(|(_, indexes)| !indexes.is_empty()).map(|(name, indexes)| {
        let result = |index: i32| {
            let moved = match (&may, ours.get(&(name.clone(), index))) {
                (Err(refusal), _) => Err(refusal.clone()),
                (Ok(()), Some(true)) => partition(&shared.storage, &name, index).map(drop),
                (Ok(()), _) => Err(Refusal::new(ResponseError::LogDirNotFound, "there is no such directory")),
            };
            let code = moved.map_or_else(|refusal| refusal.code(), |()| 0);
            AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(code)
        };
        let partitions = indexes.into_iter().map(result).collect();
        AlterReplicaLogDirTopicResult::default().with_topic_name(name.clone()).with_partitions(partitions)
    });
    request.respond(&AlterReplicaLogDirsResponse::default().with_results(results.collect()))
}

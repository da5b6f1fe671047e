//! DescribeLogDirs (35), versions 1 to 4: one directory holds everything. Its size and free space are not told (-1).

use std::sync::Arc;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use millpond_types::TopicPartition;

use super::{Request, Shared};
use crate::security::acl::Operation;
use crate::storage::Storage;
use crate::wire::{Error, Reply, text};

/// Name of the directory, whatever its path is.
pub(super) const DIRECTORY: &str = "/millpond-data";

pub(super) async fn handle(shared: &Arc<Shared>, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeLogDirsRequest = request.decode()?;
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Describe) {
        return request.respond(&DescribeLogDirsResponse::default().with_error_code(refusal.code()));
    }
    let storage = shared.storage.clone();
    let task = tokio::task::spawn_blocking(move || topics(&storage, &asked));
    let topics = task.await.map_err(|_| Error::malformed("the server is shutting down"))?;
    let result = DescribeLogDirsResult::default()
        .with_log_dir(text(DIRECTORY))
        .with_topics(topics)
        .with_total_bytes(-1)
        .with_usable_bytes(-1);
    request.respond(&DescribeLogDirsResponse::default().with_results(vec![result]))
}

fn topics(storage: &Storage, asked: &DescribeLogDirsRequest) -> Vec<DescribeLogDirsTopic> {
    let wanted: Vec<(_, Option<&[i32]>)> = match &asked.topics {
        None => storage.all_topics().into_iter().map(|topic| (topic, None)).collect(),
        Some(named) => named
            .iter()
            .filter_map(|t| storage.find_topic(&t.topic).map(|topic| (topic, Some(t.partitions.as_slice()))))
            .collect(),
    };
    let mut out = Vec::with_capacity(wanted.len());
    for (topic, only) in wanted {
        let size = |index| storage.partition_bytes(TopicPartition { topic: topic.id, partition: index });
        let partitions = (0..topic.partition_count())
            .filter(|index| only.is_none_or(|only| only.is_empty() || only.contains(index)))
            .filter_map(|index| size(index).ok().map(|bytes| (index, bytes)))
            .map(|(index, bytes)| {
                DescribeLogDirsPartition::default()
                    .with_partition_index(index)
                    .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
            });
        out.push(DescribeLogDirsTopic::default().with_name(text(&topic.name)).with_partitions(partitions.collect()));
    }
    out
}

//! DescribeLogDirs (35), versions 1 to 4: one directory holds everything. A partition's size is that of its batches as
//! they are kept; what the volume holds and has room for is asked of the file system.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use millpond_types::TopicPartition;

use super::topics::merged;
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
    let gone = || Error::malformed("the server is shutting down");
    let _lane = shared.disk_reads_by_address.enter(request.caller.host()).await;
    let _permit = shared.disk_reads.acquire().await.map_err(|_| gone())?;
    let storage = shared.storage.clone();
    let task = tokio::task::spawn_blocking(move || (topics(&storage, asked), storage.volume()));
    let (topics, volume) = task.await.map_err(|_| gone())?;
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (total, usable) = volume.map_or((-1, -1), |(total, usable)| (bytes(total), bytes(usable)));
    let result = DescribeLogDirsResult::default()
        .with_log_dir(text(DIRECTORY))
        .with_topics(topics)
        .with_total_bytes(total)
        .with_usable_bytes(usable);
    let response = DescribeLogDirsResponse::default().with_results(vec![result]);
    request
        .respond_within(shared, response, |refusal| DescribeLogDirsResponse::default().with_error_code(refusal.code()))
}

fn topics(storage: &Storage, asked: DescribeLogDirsRequest) -> Vec<DescribeLogDirsTopic> {
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let named = |topics: Vec<DescribableLogDirTopic>| merged(topics.into_iter().map(|t| (t.topic, t.partitions)));
    let wanted: Vec<(_, Option<HashSet<i32>>)> = match asked.topics {
        None => storage.all_topics().into_iter().map(|topic| (topic, None)).collect(),
        Some(topics) => named(topics)
            .into_iter()
            .filter_map(|(name, indexes)| {
                storage.find_topic(&name).map(|topic| (topic, Some(indexes.into_iter().collect())))
            })
            .collect(),
    };
    let mut out = Vec::with_capacity(wanted.len());
    for (topic, only) in wanted {
        let size = |index| storage.partition_bytes(TopicPartition { topic: topic.id, partition: index });
        let partitions = (0..topic.partition_count())
            .filter(|index| only.as_ref().is_none_or(|only| only.contains(index)))
            .filter_map(|index| size(index).ok().map(|bytes| (index, bytes)))
            .map(|(index, bytes)| {
                DescribeLogDirsPartition::default()
                    .with_partition_index(index)
                    .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
            });
        let partitions: Vec<_> = partitions.collect();
        if !partitions.is_empty() {
            out.push(DescribeLogDirsTopic::default().with_name(text(&topic.name)).with_partitions(partitions));
        }
    }
    out
}

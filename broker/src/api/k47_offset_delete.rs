//! OffsetDelete (47), version 0: offsets of topics that no member of the group reads.

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::topics::partition;
use super::{Request, Shared, code_of_group, group_code};
use crate::groups::OffsetKey;
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: OffsetDeleteRequest = request.decode()?;
    let keys: Vec<OffsetKey> = asked
        .topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), p.partition_index)))
        .map(|(topic, partition)| OffsetKey { topic, partition })
        .collect();
    let results = match shared.groups.delete_offsets(&asked.group_id, &keys).await {
        Ok(results) => results,
        Err(error) => {
            let refused = OffsetDeleteResponse::default().with_error_code(code_of_group(error).code());
            return request.respond(&refused);
        }
    };
    let mut results = results.into_iter();
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut results).map(|(p, result)| {
            let code = match partition(&shared.storage, &topic.name, p.partition_index) {
                Ok(_) => group_code(result),
                Err(refusal) => refusal.code(),
            };
            OffsetDeleteResponsePartition::default().with_partition_index(p.partition_index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    request.respond(&OffsetDeleteResponse::default().with_topics(topics.collect()))
}

//! OffsetDelete (47), version 0: offsets of topics that no member of the group reads, those in open transactions too. A
//! group in use that is not of consumers is refused as a whole.

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::topics::partition;
use super::{Request, Shared, code_of_group, group_code};
use crate::groups::OffsetKey;
use crate::security::acl::Operation;
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: OffsetDeleteRequest = request.decode()?;
    if let Err(refusal) = shared.check_group(&request.caller, Operation::Delete, &asked.group_id) {
        return request.respond(&OffsetDeleteResponse::default().with_error_code(refusal.code()));
    }
    let may = |topic: &str| shared.check_topic(&request.caller, Operation::Read, topic);
    let keys: Vec<OffsetKey> = asked
        .topics
        .iter()
        .filter(|t| may(&t.name).is_ok())
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), p.partition_index)))
        .map(|(topic, partition)| OffsetKey { topic, partition })
        .collect();
    let results = match shared.transactions.delete_offsets(&asked.group_id, keys).await {
        Ok(results) => results,
        Err(error) => {
            let refused = OffsetDeleteResponse::default().with_error_code(code_of_group(error).code());
            return request.respond(&refused);
        }
    };
    let mut results = results.into_iter();
    let topics = asked.topics.into_iter().map(|topic| {
        let may = may(&topic.name);
        let partitions = topic.partitions.iter().map(|p| {
            // There is a result for each partition that the caller may name.
            let result = may.is_ok().then(|| results.next()).flatten().unwrap_or(Ok(()));
            let code = match may.clone().and_then(|()| partition(&shared.storage, &topic.name, p.partition_index)) {
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

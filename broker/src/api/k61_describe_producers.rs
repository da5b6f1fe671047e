//! DescribeProducers (61), version 0: who appends to a partition with a producer id, and what each has open there.

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::topics::partition;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::storage::ActiveProducer;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeProducersRequest = request.decode()?;
    let topics = asked.topics.into_iter().map(|topic| {
        let may = shared.check_topic(&request.caller, Operation::Read, &topic.name);
        let describe = |index: &i32| {
            let response = PartitionResponse::default().with_partition_index(*index);
            match may.clone().and_then(|()| find(shared, &topic.name, *index)) {
                Ok(producers) => {
                    response.with_active_producers(producers.into_iter().map(|p| state(shared, p)).collect())
                }
                Err(refusal) => {
                    response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message)))
                }
            }
        };
        let partitions = topic.partition_indexes.iter().map(describe).collect();
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    request.respond(&DescribeProducersResponse::default().with_topics(topics.collect()))
}

fn find(shared: &Shared, name: &str, index: i32) -> Result<Vec<ActiveProducer>, Refusal> {
    let (_, place) = partition(&shared.storage, name, index)?;
    Ok(shared.storage.active_producers(place)?)
}

fn state(shared: &Shared, producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.used_ms)
        .with_coordinator_epoch(shared.storage.leader_epoch())
        .with_current_txn_start_offset(producer.open_from.unwrap_or(-1))
}

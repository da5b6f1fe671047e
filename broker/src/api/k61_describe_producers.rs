//! DescribeProducers (61), version 0: who appends to a partition with a producer id, and what each has open there.

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::topics::{merged, partition};
use super::{Refusal, Request, Shared, too_much};
use crate::security::acl::Operation;
use crate::storage::ActiveProducer;
use crate::wire::{Error, Reply, text};

/// What a producer takes in the answer.
const PRODUCER_BYTES: usize = 40;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeProducersRequest = request.decode()?;
    // Each once, so that the answer grows with what there is and not with how often it is asked for.
    let asked = merged(asked.topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)));
    let again = asked.clone();
    let mut left = shared.settings.answer_bytes_max;
    let topics = asked.into_iter().map(|(name, indexes)| {
        let may = shared.check_topic(&request.caller, Operation::Read, &name);
        let mut describe = |index: &i32| {
            let response = PartitionResponse::default().with_partition_index(*index);
            let found = may.clone().and_then(|()| find(shared, &name, *index)).and_then(|producers| {
                // Before there are more of them than fit into an answer.
                let spent = left.checked_sub(PRODUCER_BYTES * producers.len());
                left = spent.ok_or_else(|| too_much(shared.settings.answer_bytes_max))?;
                Ok(producers)
            });
            match found {
                Ok(producers) => response.with_active_producers(producers.into_iter().map(state).collect()),
                Err(refusal) => {
                    response.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message)))
                }
            }
        };
        let partitions = indexes.iter().map(&mut describe).collect();
        TopicResponse::default().with_name(name).with_partitions(partitions)
    });
    let response = DescribeProducersResponse::default().with_topics(topics.collect());
    request.respond_within(shared, response, |refusal| {
        let partition = |index| {
            let response = PartitionResponse::default().with_partition_index(index);
            response.with_error_code(refusal.code())
        };
        let topic = |(name, indexes): (_, Vec<i32>)| {
            TopicResponse::default().with_name(name).with_partitions(indexes.into_iter().map(partition).collect())
        };
        DescribeProducersResponse::default().with_topics(again.into_iter().map(topic).collect())
    })
}

fn find(shared: &Shared, name: &str, index: i32) -> Result<Vec<ActiveProducer>, Refusal> {
    let (_, place) = partition(&shared.storage, name, index)?;
    Ok(shared.storage.active_producers(place)?)
}

fn state(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.used_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.open_from.unwrap_or(-1))
}

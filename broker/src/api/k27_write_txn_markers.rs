//! WriteTxnMarkers (27), version 1: aborts what a producer has open in single partitions, for transactions that hang.
//!
//! Between brokers this is how transactions end; here it is an administrator's tool alone. So it aborts only: what is
//! committed is committed whole, by EndTxn. A partition where the producer has nothing open needs no marker.
//! Tools send the coordinator's epoch that DescribeProducers told them, that of the producer's last marker there; an older one
//! is refused.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::topics::partition;
use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::storage::{Ending, TransactionWrite};
use crate::wire::{Error, Reply};

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: WriteTxnMarkersRequest = request.decode()?;
    let may = shared.check_cluster(&request.caller, Operation::ClusterAction);
    let may = may.or_else(|refusal| shared.check_cluster(&request.caller, Operation::Alter).map_err(|_| refusal));
    let mut markers = Vec::with_capacity(asked.markers.len());
    for marker in &asked.markers {
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in &marker.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in &topic.partition_indexes {
                let result = match &may {
                    Ok(()) => abort(shared, marker, &topic.name, *index).await,
                    Err(refusal) => Err(refusal.clone()),
                };
                let code = result.err().map_or(0, |refusal| refusal.code());
                let result = WritableTxnMarkerPartitionResult::default();
                partitions.push(result.with_partition_index(*index).with_error_code(code));
            }
            let result = WritableTxnMarkerTopicResult::default().with_name(topic.name.clone());
            topics.push(result.with_partitions(partitions));
        }
        markers.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    request.respond(&WriteTxnMarkersResponse::default().with_markers(markers))
}

async fn abort(shared: &Shared, marker: &WritableTxnMarker, name: &str, index: i32) -> Result<(), Refusal> {
    let (_, place) = partition(&shared.storage, name, index)?;
    if marker.transaction_result {
        let message = "a transaction is committed whole, not by single markers";
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    let id = marker.producer_id.0;
    let Some(producer) = shared.storage.active_producer(place, id)? else { return Ok(()) };
    if marker.producer_epoch < producer.epoch {
        let message = format!("the epoch of producer {id} is {}, not {}", producer.epoch, marker.producer_epoch);
        return Err(Refusal::new(ResponseError::InvalidProducerEpoch, message));
    }
    let epoch = producer.coordinator_epoch;
    if marker.coordinator_epoch < epoch {
        let message = format!("the coordinator's epoch is {epoch}, not {}", marker.coordinator_epoch);
        return Err(Refusal::new(ResponseError::TransactionCoordinatorFenced, message));
    }
    let write = TransactionWrite {
        producer_id: id,
        producer_epoch: marker.producer_epoch,
        ending: Some(Ending { commit: false, partitions: vec![place] }),
        ..TransactionWrite::default()
    };
    Ok(shared.storage.transaction_write(write).await?)
}

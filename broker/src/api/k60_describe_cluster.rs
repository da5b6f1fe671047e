//! DescribeCluster (60), versions 0 to 2. There is no endpoint of controllers to describe.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::access::NOT_ASKED;
use super::topics::advertised;
use super::{Request, Shared};
use crate::wire::{Error, Reply, text};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeClusterRequest = request.decode()?;
    let response = DescribeClusterResponse::default().with_endpoint_type(BROKERS);
    if request.head.version >= 1 && asked.endpoint_type != BROKERS {
        let response = response
            .with_error_code(match asked.endpoint_type {
                CONTROLLERS => ResponseError::MismatchedEndpointType.code(),
                _ => ResponseError::UnsupportedEndpointType.code(),
            })
            .with_error_message(Some(text("this is the endpoint of a broker")));
        return request.respond(&response);
    }
    let node = BrokerId(shared.storage.node_id());
    let (host, port) = advertised(&request.caller);
    let broker = DescribeClusterBroker::default().with_broker_id(node).with_host(text(&host)).with_port(port);
    let operations = match asked.include_cluster_authorized_operations {
        true => shared.cluster_operations(&request.caller),
        false => NOT_ASKED,
    };
    let response = response
        .with_cluster_id(text(shared.storage.cluster_id()))
        .with_controller_id(node)
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(operations);
    request.respond(&response)
}

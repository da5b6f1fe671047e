//! DescribeAcls (29), versions 1 to 3: there is no authorizer, which is what tools understand by SECURITY_DISABLED.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::Request;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(request: &Request) -> Result<Reply, Error> {
    let _asked: DescribeAclsRequest = request.decode()?;
    let response = DescribeAclsResponse::default()
        .with_error_code(ResponseError::SecurityDisabled.code())
        .with_error_message(Some(text("no authorizer is configured")));
    request.respond(&response)
}

//! ApiVersions (18), versions 0 to 4: what is answered here.
//!
//! A version that is not known is answered in version 0 with UNSUPPORTED_VERSION and the list, so that the client can
//! ask again. No features are listed. The response's header is always the old one.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{APIS, Request};
use crate::wire::{Error, Reply, RequestHead, Response};

fn list() -> Vec<ApiVersion> {
    let entry = |api: &super::Api| {
        ApiVersion::default().with_api_key(api.key).with_min_version(api.advertised_min).with_max_version(api.max)
    };
    APIS.iter().map(entry).collect()
}

pub(super) fn handle(request: &Request) -> Result<Reply, Error> {
    let asked: ApiVersionsRequest = request.decode()?;
    let named = |s: &str| is_software_name(s);
    if request.head.version >= 3 && !(named(&asked.client_software_name) && named(&asked.client_software_version)) {
        let refused = ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
        return request.respond(&refused);
    }
    request.respond(&ApiVersionsResponse::default().with_api_keys(list()))
}

/// The answer to a version that is not known; `head` is of version 0.
pub(super) fn unsupported(head: &RequestHead) -> Result<Reply, Error> {
    let message =
        ApiVersionsResponse::default().with_error_code(ResponseError::UnsupportedVersion.code()).with_api_keys(list());
    Response::of(head, false, &message).map(Reply::Response)
}

/// Letters and digits, with dots and dashes between them.
fn is_software_name(s: &str) -> bool {
    let bytes = s.as_bytes();
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'.' || *b == b'-')
}

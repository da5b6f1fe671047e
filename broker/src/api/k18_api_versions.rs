//! ApiVersions (18), versions 0 to 4: what is answered here.
//!
//! A version that is not known is answered in version 0 with UNSUPPORTED_VERSION and the list, so that the client can
//! ask again. The response's header is always the old one.
//!
//! Features (v3 on) are told with what is supported and the level they are at (`features`). Before version 4 none is told
//! that supports 0, which older clients cannot read; one at level 0 is not told as agreed on.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{APIS, Request, Shared};
use crate::features::{FEATURES, Features};
use crate::wire::{Error, Reply, RequestHead, Response, text};

fn with_features(response: ApiVersionsResponse, version: i16, features: &Features) -> ApiVersionsResponse {
    let (levels, epoch) = features.all();
    let supported = FEATURES.iter().filter(|f| version >= 4 || f.min > 0).map(|f| {
        SupportedFeatureKey::default().with_name(text(f.name)).with_min_version(f.min).with_max_version(f.max)
    });
    let finalized = levels.into_iter().filter(|(_, level)| *level > 0).map(|(feature, level)| {
        let key = FinalizedFeatureKey::default().with_name(text(feature.name));
        key.with_min_version_level(level).with_max_version_level(level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features(finalized.collect())
        .with_finalized_features_epoch(epoch)
}

fn list() -> Vec<ApiVersion> {
    let entry = |api: &super::Api| {
        ApiVersion::default().with_api_key(api.key).with_min_version(api.advertised_min).with_max_version(api.max)
    };
    APIS.iter().map(entry).collect()
}

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: ApiVersionsRequest = request.decode()?;
    let named = |s: &str| is_software_name(s);
    if request.head.version >= 3 && !(named(&asked.client_software_name) && named(&asked.client_software_version)) {
        let refused = ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
        return request.respond(&refused);
    }
    let response = ApiVersionsResponse::default().with_api_keys(list());
    let version = request.head.version;
    if version < 3 {
        return request.respond(&response);
    }
    request.respond(&with_features(response, version, &shared.features))
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

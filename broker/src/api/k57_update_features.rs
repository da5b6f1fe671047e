//! UpdateFeatures (57), versions 0 to 2: raises and lowers features, all or none. What a change may be is said in
//! `features`. Ignored: timeout_ms.
//!
//! Versions 0 and 1 have a result for each feature; version 0 says of a change only whether it may lower.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::{Refusal, Request, Shared};
use crate::features::{Direction, FeatureError};
use crate::security::acl::Operation;
use crate::wire::{Error, Reply, text};

/// First version that has no results of single features.
const ONE_RESULT: i16 = 2;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: UpdateFeaturesRequest = request.decode()?;
    let version = request.head.version;
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Alter) {
        return request.respond(&response.with_error_code(refusal.code()));
    }
    // Of several changes of one feature the last counts.
    let wanted: BTreeMap<String, _> = asked
        .feature_updates
        .iter()
        .map(|u| (u.feature.to_string(), (u.max_version_level, direction(u, version))))
        .collect();
    let wanted: Vec<_> = wanted.into_iter().map(|(name, (level, direction))| (name, level, direction)).collect();
    let done = shared.features.update(&wanted, asked.validate_only).await;
    let response = match done.map_err(refusal) {
        Err(refusal) => {
            let message = format!("no feature was changed: {}", refusal.message);
            response.with_error_code(refusal.code()).with_error_message(Some(text(&message)))
        }
        Ok(()) if version < ONE_RESULT => {
            let result = |update: &FeatureUpdateKey| {
                UpdatableFeatureResult::default()
                    .with_feature(update.feature.clone())
                    .with_error_message(Some(text("NONE")))
            };
            response.with_results(asked.feature_updates.iter().map(result).collect())
        }
        Ok(()) => response,
    };
    request.respond(&response)
}

fn direction(update: &FeatureUpdateKey, version: i16) -> Option<Direction> {
    match (version, update.upgrade_type) {
        (0, _) if update.allow_downgrade => Some(Direction::SafeDowngrade),
        (0, _) | (_, 1) => Some(Direction::Upgrade),
        (_, 2) => Some(Direction::SafeDowngrade),
        (_, 3) => Some(Direction::UnsafeDowngrade),
        _ => None,
    }
}

fn refusal(error: FeatureError) -> Refusal {
    match error {
        FeatureError::Invalid(message) => Refusal::new(ResponseError::InvalidUpdateVersion, message),
        FeatureError::Storage(error) => error.into(),
    }
}

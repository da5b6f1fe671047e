//! DescribeUserScramCredentials (50), version 0: mechanisms and iterations of users, of all where none is named.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};

use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::security::scram::ScramMechanism;
use crate::wire::{Error, Reply, text};

pub(super) fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: DescribeUserScramCredentialsRequest = request.decode()?;
    if let Err(refusal) = shared.check_cluster(&request.caller, Operation::Describe) {
        let response = DescribeUserScramCredentialsResponse::default()
            .with_error_code(refusal.code())
            .with_error_message(Some(text(&refusal.message)));
        return request.respond(&response);
    }
    let users = shared.authenticator.users();
    let results = match &asked.users {
        Some(named) if !named.is_empty() => {
            let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
            for user in named {
                if !seen.insert(user.name.as_str()) {
                    twice.insert(user.name.as_str());
                }
            }
            let mut done = HashSet::new();
            let names = named.iter().map(|user| user.name.as_str()).filter(|name| done.insert(*name));
            names
                .map(|name| match (twice.contains(name), users.describe(name)) {
                    (true, _) => {
                        let message = format!("user \"{name}\" is named twice");
                        refused(name, &Refusal::new(ResponseError::DuplicateResource, message))
                    }
                    (_, None) => {
                        let message = format!("user \"{name}\" has no SCRAM credential");
                        refused(name, &Refusal::new(ResponseError::ResourceNotFound, message))
                    }
                    (_, Some(credentials)) => described(name, &credentials),
                })
                .collect()
        }
        _ => users.list().iter().map(|(name, credentials)| described(name, credentials)).collect(),
    };
    let response = DescribeUserScramCredentialsResponse::default().with_results(results);
    request.respond_within(shared, response, |refusal| {
        let response = DescribeUserScramCredentialsResponse::default().with_error_code(refusal.code());
        response.with_error_message(Some(text(&refusal.message)))
    })
}

fn described(name: &str, credentials: &[(ScramMechanism, u32)]) -> DescribeUserScramCredentialsResult {
    let info = |(mechanism, iterations): &(ScramMechanism, u32)| {
        CredentialInfo::default().with_mechanism(mechanism.number()).with_iterations(*iterations as i32)
    };
    DescribeUserScramCredentialsResult::default()
        .with_user(text(name))
        .with_credential_infos(credentials.iter().map(info).collect())
}

fn refused(name: &str, refusal: &Refusal) -> DescribeUserScramCredentialsResult {
    DescribeUserScramCredentialsResult::default()
        .with_user(text(name))
        .with_error_code(refusal.code())
        .with_error_message(Some(text(&refusal.message)))
}

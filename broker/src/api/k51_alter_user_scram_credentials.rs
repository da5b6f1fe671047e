//! AlterUserScramCredentials (51), version 0: sets and removes credentials. Of one user all changes are made or none;
//! other users' do not depend on them. The client sends what it made of the password, never the password.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};

use super::{Refusal, Request, Shared};
use crate::security::acl::Operation;
use crate::security::scram::ScramMechanism;
use crate::security::users::{UserChange, UserError, of_client};
use crate::wire::{Error, Reply, text};

/// What is to be done for one user, or why not.
type OfUser = Result<Vec<UserChange>, Refusal>;

pub(super) async fn handle(shared: &Shared, request: &Request) -> Result<Reply, Error> {
    let asked: AlterUserScramCredentialsRequest = request.decode()?;
    let mut by_user: BTreeMap<&str, OfUser> = BTreeMap::new();
    for deletion in &asked.deletions {
        let name = deletion.name.as_str();
        let change = mechanism(deletion.mechanism).map(|m| UserChange::Remove(name.to_owned(), m));
        add(by_user.entry(name).or_insert(Ok(Vec::new())), change);
    }
    for upsertion in &asked.upsertions {
        let name = upsertion.name.as_str();
        let change = mechanism(upsertion.mechanism).and_then(|mechanism| {
            let credential = of_client(mechanism, upsertion.iterations, &upsertion.salt, &upsertion.salted_password)?;
            Ok(UserChange::Put(name.to_owned(), credential))
        });
        add(by_user.entry(name).or_insert(Ok(Vec::new())), change);
    }
    let mut results = Vec::with_capacity(by_user.len());
    for (name, changes) in by_user {
        let done = match (shared.check_cluster(&request.caller, Operation::Alter), changes) {
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
            (Ok(()), Ok(changes)) => shared.authenticator.users().change(changes).await.map_err(Refusal::from),
        };
        let result = AlterUserScramCredentialsResult::default().with_user(text(name));
        results.push(match done {
            Ok(()) => result,
            Err(refusal) => result.with_error_code(refusal.code()).with_error_message(Some(text(&refusal.message))),
        });
    }
    request.respond(&AlterUserScramCredentialsResponse::default().with_results(results))
}

fn add(of_user: &mut OfUser, change: Result<UserChange, Refusal>) {
    let Ok(changes) = of_user else { return };
    match change {
        Ok(change) if changes.iter().any(|other| other.mechanism() == change.mechanism()) => {
            let message = format!("user \"{}\" is changed twice for one mechanism", change.user());
            *of_user = Err(Refusal::new(ResponseError::DuplicateResource, message));
        }
        Ok(change) => changes.push(change),
        Err(refusal) => *of_user = Err(refusal),
    }
}

fn mechanism(number: i8) -> Result<ScramMechanism, Refusal> {
    ScramMechanism::numbered(number).ok_or_else(|| {
        let message = format!("mechanism {number} is not 1 (SCRAM-SHA-256) or 2 (SCRAM-SHA-512)");
        Refusal::new(ResponseError::UnsupportedSaslMechanism, message)
    })
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Self {
        let code = match error {
            UserError::Storage(error) => return error.into(),
            UserError::Unknown(_) => ResponseError::ResourceNotFound,
            UserError::TooMany(_) => ResponseError::PolicyViolation,
            UserError::Random => ResponseError::UnknownServerError,
            UserError::Name
            | UserError::Password
            | UserError::Salt
            | UserError::Iterations(_)
            | UserError::SaltedPassword(_) => ResponseError::UnacceptableCredential,
        };
        Self::new(code, error.to_string())
    }
}

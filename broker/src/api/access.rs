//! What the sender of a request may do, as short calls for the beginnings of handlers.
//!
//! Each API asks for what Kafka's asks for; `broker/tests/it/wire/access.rs` has a case for every one. Without an
//! authorizer everything is allowed. Invariant: whether something exists is looked up after the right to know it.

use kafka_protocol::ResponseError;

use super::config_entries::{RESOURCE_GROUP, RESOURCE_TOPIC};
use super::{Refusal, Shared};
use crate::security::Caller;
use crate::security::acl::{CLUSTER_NAME, Operation, ResourceType, Who};

/// What "authorized operations" says when nobody asked.
pub(super) const NOT_ASKED: i32 = i32::MIN;

impl Shared {
    /// Whether the caller may do something to a resource.
    pub(super) fn may(&self, caller: &Caller, operation: Operation, resource: ResourceType, name: &str) -> bool {
        let Some(authorizer) = &self.authorizer else { return true };
        let who = Who { principal: &caller.principal, host: caller.host() };
        caller.decisions.allows(authorizer, who, operation, resource, name)
    }

    /// Whether there is any resource of a type to which the caller may do something.
    pub(super) fn may_any(&self, caller: &Caller, operation: Operation, resource: ResourceType) -> bool {
        let Some(authorizer) = &self.authorizer else { return true };
        authorizer.allows_any(Who { principal: &caller.principal, host: caller.host() }, operation, resource)
    }

    pub(super) fn may_topic(&self, caller: &Caller, operation: Operation, name: &str) -> bool {
        self.may(caller, operation, ResourceType::Topic, name)
    }

    pub(super) fn may_group(&self, caller: &Caller, operation: Operation, name: &str) -> bool {
        self.may(caller, operation, ResourceType::Group, name)
    }

    pub(super) fn may_cluster(&self, caller: &Caller, operation: Operation) -> bool {
        self.may(caller, operation, ResourceType::Cluster, CLUSTER_NAME)
    }

    pub(super) fn may_transact(&self, caller: &Caller, operation: Operation, id: &str) -> bool {
        self.may(caller, operation, ResourceType::TransactionalId, id)
    }

    /// Refused where the caller may not.
    pub(super) fn check_topic(&self, caller: &Caller, operation: Operation, name: &str) -> Result<(), Refusal> {
        allowed(self.may_topic(caller, operation, name), ResponseError::TopicAuthorizationFailed)
    }

    pub(super) fn check_group(&self, caller: &Caller, operation: Operation, name: &str) -> Result<(), Refusal> {
        allowed(self.may_group(caller, operation, name), ResponseError::GroupAuthorizationFailed)
    }

    pub(super) fn check_cluster(&self, caller: &Caller, operation: Operation) -> Result<(), Refusal> {
        allowed(self.may_cluster(caller, operation), ResponseError::ClusterAuthorizationFailed)
    }

    pub(super) fn check_transact(&self, caller: &Caller, operation: Operation, id: &str) -> Result<(), Refusal> {
        allowed(self.may_transact(caller, operation, id), ResponseError::TransactionalIdAuthorizationFailed)
    }

    /// Refused where the caller may not read or change settings of a resource, whose type is one of those of settings.
    pub(super) fn check_settings(
        &self,
        caller: &Caller,
        operation: Operation,
        resource_type: i8,
        name: &str,
    ) -> Result<(), Refusal> {
        match resource_type {
            RESOURCE_TOPIC => self.check_topic(caller, operation, name),
            RESOURCE_GROUP => self.check_group(caller, operation, name),
            _ => self.check_cluster(caller, operation),
        }
    }

    /// A bit for each operation that the caller may do, of those that make sense.
    pub(super) fn topic_operations(&self, caller: &Caller, name: &str) -> i32 {
        use Operation::{Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read, Write};
        let all = [Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs];
        self.operations(caller, ResourceType::Topic, name, &all)
    }

    pub(super) fn group_operations(&self, caller: &Caller, name: &str) -> i32 {
        use Operation::{AlterConfigs, Delete, Describe, DescribeConfigs, Read};
        let all = [Read, Delete, Describe, DescribeConfigs, AlterConfigs];
        self.operations(caller, ResourceType::Group, name, &all)
    }

    /// None for those who may not even describe the cluster.
    pub(super) fn cluster_operations(&self, caller: &Caller) -> i32 {
        use Operation::{Alter, AlterConfigs, ClusterAction, Create, Describe, DescribeConfigs, IdempotentWrite};
        if !self.may_cluster(caller, Describe) {
            return 0;
        }
        let all = [Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite];
        self.operations(caller, ResourceType::Cluster, CLUSTER_NAME, &all)
    }

    fn operations(&self, caller: &Caller, resource: ResourceType, name: &str, all: &[Operation]) -> i32 {
        let allowed = all.iter().filter(|operation| self.may(caller, **operation, resource, name));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }
}

fn allowed(allowed: bool, error: ResponseError) -> Result<(), Refusal> {
    if allowed { Ok(()) } else { Err(Refusal::new(error, "authorization failed")) }
}

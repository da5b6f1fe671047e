//! What somebody may do, as statements ask for it, in Kafka's words. The port to whoever knows the rules.
//!
//! Not here: the rules themselves (`broker::security`), who somebody is (`principal`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{Error, ErrorKind, Principal, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
}

/// What a right is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protected<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
}

/// Knows the rules.
pub trait Authority: Send + Sync + fmt::Debug {
    fn allows(&self, who: &Principal, host: IpAddr, right: Right, of: Protected<'_>) -> bool;
}

/// Somebody at some place, with the rules that they are held against.
#[derive(Debug, Clone)]
pub struct Rights {
    authority: Arc<dyn Authority>,
    principal: Principal,
    host: IpAddr,
}

impl Rights {
    pub fn new(authority: Arc<dyn Authority>, principal: Principal, host: IpAddr) -> Self {
        Self { authority, principal, host }
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn allow(&self, right: Right, of: Protected<'_>) -> bool {
        self.authority.allows(&self.principal, self.host, right, of)
    }

    /// Refused where a right to one of the topics is missing; tells which.
    pub fn check_topics<'a>(&self, right: Right, topics: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut denied: Vec<&str> = topics.into_iter().filter(|t| !self.allow(right, Protected::Topic(t))).collect();
        denied.sort_unstable();
        denied.dedup();
        if denied.is_empty() {
            return Ok(());
        }
        // As ksqlDB says it.
        let message = format!("Authorization denied to {right:?} on topic(s): [{}]", denied.join(", "));
        Err(Error::new(ErrorKind::Forbidden, message))
    }

    /// Whoever may create any topic may create this one.
    pub fn check_create(&self, topic: &str) -> Result<()> {
        if self.allow(Right::Create, Protected::Cluster) { Ok(()) } else { self.check_topics(Right::Create, [topic]) }
    }

    pub fn check_cluster(&self, right: Right) -> Result<()> {
        if self.allow(right, Protected::Cluster) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Forbidden, format!("Authorization denied to {right:?} on cluster")))
    }
}

impl PartialEq for Rights {
    fn eq(&self, other: &Self) -> bool {
        self.principal == other.principal && self.host == other.host && Arc::ptr_eq(&self.authority, &other.authority)
    }
}

impl Eq for Rights {}

//! Who speaks, and what they may do: the principal that authentication found, held against the rules where there are any.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use millpond_engine::session::Session;
use millpond_types::Principal;
use millpond_types::access::{Protected, Right, Rights};

use crate::App;
use crate::errors::ApiError;
use crate::incoming::Peer;

/// What the request's sender may do. `None`: everything.
pub(crate) struct Speaker(Option<Rights>);

impl Speaker {
    pub fn restrict(&self, session: &mut Session) {
        if let Some(rights) = &self.0 {
            session.restrict(rights.clone());
        }
    }

    /// A session without properties.
    pub fn session(&self) -> Session {
        let mut session = Session::new();
        self.restrict(&mut session);
        session
    }

    pub fn check_topic(&self, right: Right, topic: &str) -> Result<(), ApiError> {
        Ok(self.0.as_ref().map_or(Ok(()), |rights| rights.check_topics(right, [topic]))?)
    }

    /// Whether a topic may be shown.
    pub fn may_see(&self, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|rights| rights.allow(Right::Describe, Protected::Topic(topic)))
    }

    pub fn check_cluster(&self, right: Right) -> Result<(), ApiError> {
        Ok(self.0.as_ref().map_or(Ok(()), |rights| rights.check_cluster(right))?)
    }
}

impl FromRequestParts<Arc<App>> for Speaker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let Some(authority) = &app.authority else { return Ok(Self(None)) };
        let principal = parts.extensions.get::<Principal>().cloned().unwrap_or_else(Principal::anonymous);
        let address = parts.extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.address.ip());
        let host = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
        Ok(Self(Some(Rights::new(Arc::clone(authority), principal, host))))
    }
}

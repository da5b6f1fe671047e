//! Who asks: each request gets a `Principal` among its extensions, or is answered 401.
//!
//! Not here: how somebody is known (behind the port [`Access`]), and what they may do.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use millpond_types::Principal;

use crate::errors::{ApiError, UNAUTHORIZED};
use crate::incoming::Peer;

/// What a request shows of whoever sent it.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    Password { user: String, password: String },
    Token(String),
}

/// `None`: they are not who they say.
pub type Checked = Pin<Box<dyn Future<Output = Option<Principal>> + Send>>;

/// Finds out whether somebody is who they say.
pub trait Access: Send + Sync {
    fn check(&self, shown: Shown, from: IpAddr) -> Checked;

    /// Whether tokens are worth showing.
    fn takes_tokens(&self) -> bool;
}

/// How a server asks.
#[derive(Clone)]
pub(crate) struct Gate {
    pub access: Option<Arc<dyn Access>>,
    pub healthcheck_open: bool,
}

/// Lets a request through as somebody, or answers 401. Where nobody is asked, everybody is anonymous, or whom their
/// certificate names.
pub(crate) async fn check(
    State(gate): State<Gate>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = match &gate.access {
        None => peer.principal.unwrap_or_else(Principal::anonymous),
        Some(_) if gate.healthcheck_open && request.uri().path() == "/healthcheck" => Principal::anonymous(),
        Some(access) => match (shown(request.headers()), peer.principal) {
            (Ok(Some(shown)), _) => match access.check(shown, peer.address.ip().to_canonical()).await {
                Some(principal) => principal,
                None => return refused(access.as_ref(), "the credentials are not right"),
            },
            (Ok(None), Some(principal)) => principal,
            (Ok(None), None) => return refused(access.as_ref(), "this server asks for credentials"),
            (Err(problem), _) => return refused(access.as_ref(), problem),
        },
    };
    request.extensions_mut().insert(principal);
    next.run(request).await
}

fn refused(access: &dyn Access, problem: &str) -> Response {
    let mut response = ApiError::new(UNAUTHORIZED, format!("Unauthorized: {problem}")).into_response();
    let headers = response.headers_mut();
    headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"millpond\", charset=\"UTF-8\""));
    if access.takes_tokens() {
        headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"millpond\""));
    }
    response
}

fn shown(headers: &HeaderMap) -> Result<Option<Shown>, &'static str> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let unreadable =
        "the Authorization header is not \"Basic\" with base64 of user:password, nor \"Bearer\" with a token";
    let (scheme, value) = value.to_str().ok().and_then(|v| v.trim().split_once(' ')).ok_or(unreadable)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Shown::Token(value.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unreadable);
    }
    let bytes = BASE64.decode(value).map_err(|_| unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable)?;
    let (user, password) = text.split_once(':').ok_or(unreadable)?;
    Ok(Some(Shown::Password { user: user.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Option<Shown>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        shown(&headers)
    }

    #[test]
    fn what_a_request_shows() {
        assert!(shown(&HeaderMap::new()) == Ok(None));
        let password = Shown::Password { user: "alice".into(), password: "a:b".into() };
        assert!(of("Basic YWxpY2U6YTpi") == Ok(Some(password.clone())));
        assert!(of("basic  YWxpY2U6YTpi") == Ok(Some(password)));
        assert!(of("Bearer x.y.z") == Ok(Some(Shown::Token("x.y.z".into()))));
        for bad in ["Basic", "Basic YWxpY2U=", "Basic %%%", "Digest x", "Basic /w=="] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}

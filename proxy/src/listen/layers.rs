//! What every listener of ours does around its handlers: request ids, panics, bodies, JSON.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::config::IpNet;

/// The header that carries a request id in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
/// Longest request id a caller may choose, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// Time for a request body to arrive whole.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The two ids of one request: ours, and the caller's when it sent a usable one.
///
/// Ours is what the ledger knows the request by; the caller's is only echoed and stored beside it, because
/// anybody can choose any value twice.
#[derive(Clone, Debug)]
pub struct RequestId {
    own: String,
    client: Option<HeaderValue>,
}

impl RequestId {
    /// Reads `X-Request-Id`: used when it occurs once and is 1 to 128 visible ASCII characters.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(REQUEST_ID).iter();
        let client = match (sent.next(), sent.next()) {
            (Some(value), None) if usable(value.as_bytes()) => Some(value.clone()),
            _ => None,
        };
        Self { own: Uuid::new_v4().to_string(), client }
    }

    /// Our own id (UUIDv4).
    #[must_use]
    pub fn own(&self) -> &str {
        &self.own
    }

    /// The caller's id.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.client.as_ref().and_then(|value| value.to_str().ok())
    }

    /// The id the caller sees in the header and in bodies: its own, else ours.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.client().unwrap_or(&self.own)
    }
}

fn usable(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Puts the common layers around a router: request id, `nosniff`, `no-store` unless a handler said otherwise,
/// and 500 `internal_error` in place of a panic.
pub fn dress(router: Router) -> Router {
    router.layer(CatchPanicLayer::custom(panicked)).layer(from_fn(identify))
}

async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    let shown = id.client.or_else(|| HeaderValue::from_str(&id.own).ok());
    let headers = response.headers_mut();
    if let Some(shown) = shown {
        headers.insert(REQUEST_ID, shown);
    }
    headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[expect(clippy::needless_pass_by_value, reason = "the panic layer hands the payload over by value")]
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = || payload.downcast_ref::<String>().map(String::as_str);
    let said = payload.downcast_ref::<&str>().copied().or_else(text);
    tracing::error!(panic = said.unwrap_or("no message"), "a handler panicked");
    json_response(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(br#"{"error":"internal_error"}"#))
}

/// A response with a JSON body that is already written out.
pub fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The socket's peer, IPv4-mapped addresses unmapped; the unspecified address when there is no socket.
#[must_use]
pub fn peer(extensions: &Extensions) -> IpAddr {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip().to_canonical())
}

/// [`source_address`] of a request of ours.
#[must_use]
pub fn source(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    source_address(peer(extensions), headers, trusted)
}

/// The source address of a request: the socket's peer, or behind trusted proxies the right-most entry of
/// `X-Forwarded-For` that is not one of them. An entry that is no address ends the search.
#[must_use]
pub fn source_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut source = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default());
    let lines: Vec<&str> = lines.collect();
    let mut entries = lines.iter().flat_map(|line| line.split(',')).rev();
    while is_trusted(source) {
        let Some(Ok(next)) = entries.next().map(|entry| entry.trim().parse::<IpAddr>()) else { break };
        source = next.to_canonical();
    }
    source
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyProblem {
    /// More bytes than allowed.
    TooLarge,
    /// Not whole within ten seconds.
    TooSlow,
    /// The connection or the framing broke.
    Broken,
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// [`BodyProblem`].
pub async fn read_body(body: Body, limit: usize) -> Result<Bytes, BodyProblem> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyProblem::TooLarge),
        Ok(Err(_)) => Err(BodyProblem::Broken),
        Err(_) => Err(BodyProblem::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_nearest_address_that_is_not_a_trusted_proxy() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "127.0.0.1"].map(|net| net.parse().unwrap()).to_vec();
        let source = |peer: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            source_address(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(source("192.0.2.1", &["1.1.1.1"]), "192.0.2.1");
        assert_eq!(source("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(source("10.0.0.1", &["6.6.6.6, 1.1.1.1"]), "1.1.1.1");
        assert_eq!(source("::ffff:10.0.0.1", &["6.6.6.6", "1.1.1.1,10.0.0.2"]), "1.1.1.1");
        assert_eq!(source("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(source("127.0.0.1", &["::ffff:9.9.9.9"]), "9.9.9.9");
    }
}

//! The target of a request line, and the head as the caller addressed it.

use std::net::SocketAddr;

use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::app::App;
use crate::gate::head::Head;

/// The authority that the target itself names, if it does, and its origin form; `None` for what cannot be
/// forwarded as a path. The parsed URI of an absolute-form target no longer has the authority.
pub(super) fn addressed(header: &RequestHeader) -> Option<(Option<&str>, &str)> {
    let raw = std::str::from_utf8(header.raw_path()).ok()?;
    // HTTP/2 names it beside the path.
    if header.uri.scheme_str().is_some_and(|scheme| !is_http(scheme)) {
        return None;
    }
    if raw.starts_with('/') {
        return Some((None, raw));
    }
    let (scheme, rest) = raw.split_once("://")?;
    if !is_http(scheme) {
        return None;
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match target {
        "" => Some((Some(authority), "/")),
        target if target.starts_with('/') => Some((Some(authority), target)),
        _ => None,
    }
}

/// Reads the head of a request once more, with the scheme that the caller used.
pub(super) fn with_head<T>(
    app: &App,
    session: &Session,
    find: impl FnOnce(&Head<'_>, &str) -> Option<T>,
) -> Option<T> {
    let header = session.req_header();
    let (named, target) = addressed(header)?;
    let socket = session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip);
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let head = Head {
        method: header.method.as_str(),
        target,
        authority: named.or_else(|| header.uri.authority().map(http::uri::Authority::as_str)),
        headers: &header.headers,
        peer: socket?.to_canonical(),
        tls,
    };
    // In front of the edge may stand something that speaks TLS for it.
    let trusted = app.config.trusted_proxies.iter().any(|network| network.contains(head.peer));
    let forwarded = header.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    find(&head, if tls || (trusted && forwarded) { "https" } else { "http" })
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

//! The target of a request line.

use pingora::http::RequestHeader;

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

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

//! Headers that no plugin may declare, and the ones that no plugin may read.

use http::HeaderName;

/// Why a plugin may not change `header`; `None` when it may.
///
/// Shape: `slots` are the header names, in lower case, that the resource's own provider injects or reads.
pub(crate) fn reason(header: &HeaderName, slots: &[&str]) -> Option<&'static str> {
    let name = header.as_str();
    if is_secret(name) || slots.contains(&name) {
        return Some("carries a mandate, a key or a cookie");
    }
    if FRAMING.contains(&name) {
        return Some("decides where a message ends or what a connection does");
    }
    if name == "host" {
        return Some("decides which upstream is addressed");
    }
    if OVERRIDES.contains(&name) {
        return Some("would change the method or path after it was decided on");
    }
    if PROVENANCE.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Some("is written by the edge itself");
    }
    None
}

/// Whether a header may hold something that only the edge and the upstream are to know.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name) || name.starts_with("sec-websocket-")
}

/// Where clients and upstreams put credentials. `sec-websocket-*` is covered by its prefix: one of the
/// common realtime clients passes its key as a subprotocol.
const SECRETS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "x-goog-api-key",
    "x-auth-token",
    "x-access-token",
    "cookie",
    "set-cookie",
];

/// RFC 9110 section 7.6.1, RFC 9112 sections 6 and 9.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers by which frameworks let a client restate the method or the path.
const OVERRIDES: &[&str] =
    &["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Says where a request came from (RFC 7239) and which one it is.
const PROVENANCE: &[&str] = &["forwarded", "x-real-ip", "x-request-id"];

const PREFIXES: &[&str] = &["x-caracal-", "x-forwarded-"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_reserved_header_is_refused_with_its_reason() {
        for (name, word) in [
            ("authorization", "mandate"),
            ("x-api-key", "mandate"),
            ("cookie", "cookie"),
            ("set-cookie", "cookie"),
            ("sec-websocket-protocol", "mandate"),
            ("content-length", "ends"),
            ("transfer-encoding", "ends"),
            ("host", "upstream"),
            ("x-http-method-override", "method"),
            ("x-original-url", "path"),
            ("x-caracal-resource", "edge"),
            ("x-forwarded-for", "edge"),
            ("forwarded", "edge"),
        ] {
            let reason = reason(&HeaderName::from_static(name), &[]).unwrap_or_default();
            assert!(reason.contains(word), "{name}: {reason}");
        }
    }

    #[test]
    fn the_resources_own_slot_is_reserved_and_ordinary_headers_are_not() {
        let vendor = HeaderName::from_static("x-vendor-key");
        assert_eq!(reason(&vendor, &[]), None);
        assert!(reason(&vendor, &["x-vendor-key"]).is_some());
        assert_eq!(reason(&HeaderName::from_static("x-team"), &["x-vendor-key"]), None);
    }
}

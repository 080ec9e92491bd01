//! What of an upstream's response head reaches the caller.

use caracal_policies::Resource;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that say too much about the upstream, or would make the caller act on its behalf.
const REMOVED: [&str; 7] = [
    "x-caracal-identity",
    "x-caracal-error",
    "server",
    "x-powered-by",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "refresh",
];

/// Fields that must be taken out of a response head; runs after the response plugins.
///
/// `injected` says whether a credential went upstream: then cookies the upstream sets are a derived credential
/// and only names the resource lists pass.
#[must_use]
pub fn removals(resource: &Resource, injected: bool, headers: &HeaderMap) -> Vec<HeaderName> {
    let mut remove: Vec<HeaderName> =
        headers.keys().filter(|name| REMOVED.contains(&name.as_str())).cloned().collect();
    for name in [http::header::LOCATION, http::header::CONTENT_LOCATION] {
        let absolute = headers.get_all(&name).iter().any(|value| !relative(value));
        if absolute {
            remove.push(name);
        }
    }
    if injected && resource.cookies.is_empty() && headers.contains_key(http::header::SET_COOKIE) {
        remove.push(http::header::SET_COOKIE);
    }
    remove
}

/// The `Set-Cookie` fields that pass, where the resource lets some cookies through by name.
#[must_use]
pub fn kept_cookies(resource: &Resource, headers: &HeaderMap) -> Vec<HeaderValue> {
    let fields = headers.get_all(http::header::SET_COOKIE).iter();
    let kept = fields.filter(|field| {
        let name = field.to_str().ok().and_then(|text| text.split_once('=')).map(|(name, _)| name.trim());
        name.is_some_and(|name| resource.cookies.iter().any(|kept| kept == name))
    });
    kept.cloned().collect()
}

/// Takes out of trailers what may not reach the caller. No cookie passes here, whatever the resource lets
/// through: a trailer that sets one is nothing a client relies on.
pub fn clean_trailers(resource: &Resource, injected: bool, trailers: &mut HeaderMap) {
    for name in removals(resource, injected, trailers) {
        trailers.remove(name);
    }
    if injected {
        trailers.remove(http::header::SET_COOKIE);
    }
}

/// Whether a body under this head is not what it says when it is read: compressed, or encoded as gRPC does it.
#[must_use]
pub fn encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING).iter().chain(headers.get_all("grpc-encoding").iter());
    let plain = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or("?");
        text.split(',').map(str::trim).all(|word| word.is_empty() || word.eq_ignore_ascii_case("identity"))
    };
    !encodings.into_iter().all(plain)
}

/// A reference without scheme and authority: nothing a client would follow to another host.
fn relative(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let text = text.trim();
    if text.starts_with("//") || text.contains('\\') || text.contains(char::is_control) {
        return false;
    }
    let before_path = text.split(['/', '?', '#']).next().unwrap_or_default();
    !before_path.contains(':')
}

#[cfg(test)]
mod tests {
    use super::{clean_trailers, encoded, relative};
    use caracal_policies::{Assigned, BundleSource, SourceFile, Zone, compile};
    use http::HeaderValue;

    #[test]
    fn only_references_that_stay_on_the_edge_are_relative() {
        for (text, expected) in [
            ("/next", true),
            ("next?page=2", true),
            ("?a=http://x", true),
            ("", true),
            ("http://evil", false),
            ("HTTPS:evil", false),
            ("//evil/x", false),
            ("/\\evil", false),
            ("javascript:alert(1)", false),
        ] {
            assert_eq!(relative(&HeaderValue::from_str(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn only_identity_is_no_encoding() {
        for (name, value, expected) in [
            ("content-type", "gzip", false),
            ("content-encoding", "", false),
            ("content-encoding", "identity, Identity", false),
            ("content-encoding", "gzip", true),
            ("content-encoding", "identity, br", true),
            ("grpc-encoding", "identity", false),
            ("grpc-encoding", "gzip", true),
        ] {
            let headers = [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            assert_eq!(encoded(&headers), expected, "{name}: {value}");
        }
    }

    #[test]
    fn trailers_set_no_cookie_where_a_credential_was_injected() {
        let zone = zone();
        let resource = zone.resources().next().unwrap();
        let sent = [("set-cookie", "theme=dark"), ("server", "stack"), ("grpc-status", "0")];
        let trailers =
            || sent.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        let mut cleaned: http::HeaderMap = trailers();
        clean_trailers(resource, true, &mut cleaned);
        assert_eq!(cleaned.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
        let mut cleaned: http::HeaderMap = trailers();
        clean_trailers(resource, false, &mut cleaned);
        assert_eq!(cleaned.len(), 2);
    }

    /// A zone whose one resource lets the cookie `theme` through.
    fn zone() -> Zone {
        let text = r#"schema = 1
[zone]
id = "z"
name = "Z"
[[providers]]
identifier = "provider://none"
kind = "none"
[[resources]]
identifier = "resource://r"
upstream_url = "http://127.0.0.1:9"
scopes = ["r:read"]
credential_provider = "provider://none"
operation_enforcement = "transport_uniform"
cookies = ["theme"]
"#;
        let files = vec![SourceFile { path: "z.toml".into(), text: text.into() }];
        let source = BundleSource { root: "bundles/z.toml".into(), files };
        compile(&source, "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}"))
    }
}

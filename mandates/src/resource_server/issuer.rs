//! The address of a zone's key set.

use std::net::Ipv4Addr;

use super::Transport;

/// `<issuer>/.well-known/jwks.json?zone_id=<zone>`; `None` when the transport rule forbids the issuer.
pub(super) fn jwks_url(issuer: &str, zone: &str, transport: Transport) -> Option<String> {
    let base = issuer.trim_end_matches('/');
    is_allowed(base, transport).then(|| format!("{base}/.well-known/jwks.json?zone_id={}", encoded(zone)))
}

fn is_allowed(base: &str, transport: Transport) -> bool {
    if let Some(rest) = base.strip_prefix("https://") {
        return !host(rest).is_empty();
    }
    let Some(host) = base.strip_prefix("http://").map(host) else { return false };
    match transport {
        Transport::AnyHttp => !host.is_empty(),
        Transport::SecureOrLoopback => is_loopback(host),
    }
}

/// The host of what follows `scheme://`; empty when it has user information, which only confuses readers.
fn host(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.contains('@') {
        return "";
    }
    if let Some(inner) = authority.strip_prefix('[') {
        return inner.split_once(']').map_or("", |(host, _port)| host);
    }
    authority.split_once(':').map_or(authority, |(host, _port)| host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "::1"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(digit), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        let strict = Transport::SecureOrLoopback;
        for allowed in [
            "https://a.example",
            "http://localhost:8080",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080/",
        ] {
            assert!(jwks_url(allowed, "z", strict).is_some(), "{allowed}");
        }
        for refused in [
            "",
            "a.example",
            "ftp://a.example",
            "https://",
            "http://a.example",
            "http://localhost.a.example",
            "http://127.0.0.1.a.example",
            "http://127.0.0.1@a.example",
            "http://10.0.0.1",
            "http://[::2]",
            "HTTP://a.example",
        ] {
            assert_eq!(jwks_url(refused, "z", strict), None, "{refused}");
        }
        assert!(jwks_url("http://a.example", "z", Transport::AnyHttp).is_some());
    }

    #[test]
    fn the_address_is_built_from_a_trimmed_issuer_and_an_encoded_zone() {
        let url = jwks_url("https://a.example/x//", "z 1&b=/é", Transport::SecureOrLoopback);
        assert_eq!(
            url.as_deref(),
            Some("https://a.example/x/.well-known/jwks.json?zone_id=z%201%26b%3D%2F%C3%A9")
        );
    }
}

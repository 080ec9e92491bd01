//! Subject issuers: identity providers whose users a zone knows.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::report::Place;
use crate::upstream::{Scheme, Upstream};

/// An identity provider whose identity tokens the zone accepts, for one audience.
#[derive(Debug, Clone)]
pub struct SubjectIssuer {
    /// `iss` of its tokens, compared byte for byte.
    pub issuer: Arc<str>,
    /// Where its keys are.
    pub jwks_url: JwksUrl,
    /// The `aud` its tokens must name: the client id of the zone's applications there.
    pub audience: String,
    /// Whether each identity token is good for one exchange only.
    pub single_use: bool,
    /// Where the bundle says so.
    pub place: Place,
}

/// The URL of a key set: https, or http on a loopback host; no query, fragment or user name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwksUrl {
    text: String,
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
}

impl JwksUrl {
    /// Bytes of a URL.
    const MOST: usize = 2_048;

    /// Reads a URL; the error says what a good one looks like.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > Self::MOST {
            return Err("a URL of at most 2048 bytes");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL of visible ASCII characters");
        }
        let upstream = Upstream::parse(text)?;
        if text.contains('?') {
            return Err("a URL without a query");
        }
        if upstream.scheme == Scheme::Http && !is_loopback(&upstream.host) {
            return Err(
                "an https URL; http only on loopback, because whoever is on the way could choose the keys",
            );
        }
        Ok(Self { text: text.to_owned(), scheme: upstream.scheme, host: upstream.host, port: upstream.port })
    }

    /// How it is fetched.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Lower-case DNS name or address; IPv6 without brackets.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// The port, the scheme's own when the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path as written; `/` when there is none.
    pub fn target(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
    }
}

/// The URL as written.
impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a host is this host by its name or address alone.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_is_fetched_where_nobody_can_swap_it() {
        for (text, host, port, target) in [
            ("https://id.example/keys/", "id.example", 443, "/keys/"),
            ("https://ID.example:8443", "id.example", 8443, "/"),
            ("http://127.0.0.1:9/a/b", "127.0.0.1", 9, "/a/b"),
            ("http://[::1]:9/k", "::1", 9, "/k"),
            ("http://localhost/k", "localhost", 80, "/k"),
        ] {
            let url = JwksUrl::parse(text).unwrap();
            assert_eq!(
                (&**url.host(), url.port(), url.target(), url.to_string()),
                (host, port, target, text.to_owned())
            );
        }
        for text in [
            "http://id.example/keys",
            "http://10.0.0.1/keys",
            "http://localhost.example/keys",
            "https://id.example/keys?p=x",
            "https://id.example/keys#x",
            "https://a:b@id.example/keys",
            "https:///keys",
            "https://id.example/k\u{e9}ys",
            "ftp://id.example/keys",
            "id.example/keys",
        ] {
            assert_eq!(JwksUrl::parse(text).ok(), None, "{text}");
        }
        JwksUrl::parse(&format!("https://id.example/{}", "k".repeat(2_048))).unwrap_err();
    }
}

//! The URL of something the edge itself asks: a key set, a token endpoint, an issuer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::upstream::{Scheme, Upstream};

/// A URL that is asked where nobody can swap the answer: https, or http on a loopback host; no query, fragment or
/// user name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    text: String,
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
}

impl EndpointUrl {
    /// Bytes of a URL.
    const MOST: usize = 2_048;

    /// Reads a URL.
    ///
    /// # Errors
    /// What a good one looks like; never the URL itself, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
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
                "an https URL; http only on loopback, because whoever is on the way could read and change it",
            );
        }
        Ok(Self { text: text.to_owned(), scheme: upstream.scheme, host: upstream.host, port: upstream.port })
    }

    /// The URL as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is asked.
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

    /// Scheme, host and port as written: what stands before the path.
    pub fn origin(&self) -> &str {
        let scheme = self.text.find("://").map_or(0, |at| at.saturating_add(3));
        let rest = self.text.get(scheme..).unwrap_or_default();
        let end = rest.find('/').map_or(self.text.len(), |at| at.saturating_add(scheme));
        self.text.get(..end).unwrap_or_default()
    }
}

/// The URL as written.
impl fmt::Display for EndpointUrl {
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
    fn an_endpoint_is_where_nobody_can_swap_its_answer() {
        for (text, host, port, target, origin) in [
            ("https://id.example/keys/", "id.example", 443, "/keys/", "https://id.example"),
            ("https://ID.example:8443", "id.example", 8443, "/", "https://ID.example:8443"),
            ("http://127.0.0.1:9/a/b", "127.0.0.1", 9, "/a/b", "http://127.0.0.1:9"),
            ("http://[::1]:9/k", "::1", 9, "/k", "http://[::1]:9"),
            ("http://localhost/k", "localhost", 80, "/k", "http://localhost"),
        ] {
            let url = EndpointUrl::parse(text).unwrap();
            assert_eq!(
                (&**url.host(), url.port(), url.target(), url.origin(), url.to_string()),
                (host, port, target, origin, text.to_owned())
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
            assert_eq!(EndpointUrl::parse(text).ok(), None, "{text}");
        }
        EndpointUrl::parse(&format!("https://id.example/{}", "k".repeat(2_048))).unwrap_err();
    }
}

//! Where a resource's calls go, from a URL that leaves nothing to interpretation.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use crate::names;
use crate::path::{Path, decode_strictly};

/// The upstream of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Lower-case DNS name or address; IPv6 without brackets.
    pub host: Arc<str>,
    /// Port, the scheme's own when the URL names none.
    pub port: u16,
    /// What every path is put behind: empty, or a path without a trailing slash.
    pub base_path: String,
    /// Pinned query pairs, in the order of the URL: decoded name, and the pair as written.
    pub query: Vec<(String, String)>,
}

/// One of the places where an upstream is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Lower-case DNS name or address; IPv6 without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

impl Target {
    /// Reads `host:port`; the error says what a good one looks like.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, port) = parse_authority(text)?;
        let port = port.ok_or("a host and a port, as in `10.0.0.5:8443`")?;
        Ok(Self { host, port })
    }
}

/// Host and port, as they are written.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The two ways to speak to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Upstream {
    /// Host and port as in the `Host` header: the port only when it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// Reads a URL; the error says what a good one looks like and never repeats the URL, which may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) =
            url.split_once("://").ok_or("an absolute URL: `http://host` or `https://host`")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err("the scheme `http` or `https`"),
        };
        if rest.contains('#') {
            return Err("a URL without a fragment");
        }
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match before_query.find('/') {
            Some(slash) => before_query.split_at_checked(slash).unwrap_or((before_query, "")),
            None => (before_query, ""),
        };
        if authority.contains('@') {
            return Err("a URL without user name and password; a provider adds credentials");
        }
        let (host, port) = parse_authority(authority)?;
        let base = path.trim_end_matches('/');
        Path::parse(base)
            .map_err(|_problem| "a path without dot segments, backslashes and broken escapes")?;
        if base.contains("//") {
            return Err("a path without empty segments");
        }
        Ok(Self {
            scheme,
            host,
            port: port.unwrap_or_else(|| scheme.default_port()),
            base_path: base.to_owned(),
            query: parse_query(query)?,
        })
    }
}

/// The URL, rebuilt.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority(), self.base_path)?;
        for (index, (_, pair)) in self.query.iter().enumerate() {
            write!(f, "{}{pair}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl Scheme {
    /// The port of URLs that name none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

fn parse_authority(authority: &str) -> Result<(Arc<str>, Option<u16>), &'static str> {
    const HOST: &str = "a host: a DNS name, an IPv4 address or an IPv6 address in brackets";
    let (host, port): (Arc<str>, &str) = if let Some(inner) = authority.strip_prefix('[') {
        let (address, after) = inner.split_once(']').ok_or(HOST)?;
        let address: Ipv6Addr = address.parse().map_err(|_not_an_address| HOST)?;
        (address.to_string().into(), after)
    } else {
        let colon = authority.find(':').unwrap_or(authority.len());
        let (host, after) = authority.split_at_checked(colon).ok_or(HOST)?;
        let host = host.to_ascii_lowercase();
        if !names::is_host(&host) {
            return Err(HOST);
        }
        (host.into(), after)
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    const PORT: &str = "a port between 1 and 65535";
    let digits = port.strip_prefix(':').ok_or(HOST)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PORT);
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(PORT),
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    const QUERY: &str = "query pairs `name=value` joined by `&`, percent-encoded";
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.bytes().any(|byte| !byte.is_ascii_graphic() || b";\"<>\\".contains(&byte)) {
            return Err(QUERY);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode_strictly(&name.replace('+', " ")).map_err(|_problem| QUERY)?.into_owned();
        decode_strictly(value).map_err(|_problem| QUERY)?;
        pairs.push((name, pair.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url_are_told_apart() {
        let upstream = Upstream::parse("https://API.example.com:8443/v1/?tenant=a&%6bey=b").unwrap();
        assert_eq!(upstream.scheme, Scheme::Https);
        assert_eq!(&*upstream.host, "api.example.com");
        assert_eq!(upstream.port, 8443);
        assert_eq!(upstream.base_path, "/v1");
        let pairs = [("tenant".to_owned(), "tenant=a".to_owned()), ("key".to_owned(), "%6bey=b".to_owned())];
        assert_eq!(upstream.query, pairs);
        assert_eq!(upstream.to_string(), "https://api.example.com:8443/v1?tenant=a&%6bey=b");
    }

    #[test]
    fn the_authority_names_a_port_only_when_it_must() {
        for (url, authority) in [
            ("http://a", "a"),
            ("http://a:80/", "a"),
            ("https://a:443", "a"),
            ("https://a:80", "a:80"),
            ("http://[::1]:9000", "[::1]:9000"),
            ("https://[2001:DB8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(Upstream::parse(url).unwrap().authority(), authority, "{url}");
        }
    }

    #[test]
    fn a_url_that_can_be_read_two_ways_is_refused() {
        for url in [
            "",
            "a",
            "//a",
            "ftp://a",
            "HTTP://a",
            "http://",
            "http:///x",
            "http://u@a",
            "http://u:p@a/",
            "http://a#f",
            "http://a:0",
            "http://a:65536",
            "http://a:",
            "http://a:+1",
            "http://127.1",
            "http://a b",
            "http://[::1",
            "http://[::1]x",
            "http://[a]",
            "http://::1",
            "http://a\\b",
            "http://a/..",
            "http://a/%2e%2e/b",
            "http://a//b",
            "http://a/%zz",
            "http://a?x=%zz",
            "http://a?x;y",
        ] {
            assert!(Upstream::parse(url).is_err(), "{url}");
        }
    }
}

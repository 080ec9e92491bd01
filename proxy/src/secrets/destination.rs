//! Where a secret may go: a host, or a host and a port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One allowed destination: a host on any port, or on one port.
///
/// Shape: the host is lower case, without brackets and without the root's dot; there are no wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    host: Box<str>,
    port: Option<u16>,
}

/// The text is no host and no `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no host and no host:port")]
pub struct NoDestination;

impl Destination {
    /// Whether a connection to `host` and `port` goes here. `host` comes without brackets.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        host.eq_ignore_ascii_case(&self.host) && self.port.is_none_or(|only| only == port)
    }
}

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split(text)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let name = !host.is_empty()
            && host.len() <= 253
            && host.split('.').all(|label| {
                !label.is_empty()
                    && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            });
        if !name && host.parse::<IpAddr>().is_err() {
            return Err(NoDestination);
        }
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// Host without brackets and the port, if there is one. An IPv6 address with a port needs brackets.
fn split(text: &str) -> Result<(&str, Option<u16>), NoDestination> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(NoDestination)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_bad| NoDestination)?;
        return match after.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(NoDestination),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, digits)) => Ok((host, Some(port(digits)?))),
        None => Ok((text, None)),
    }
}

fn port(digits: &str) -> Result<u16, NoDestination> {
    let number: u16 = digits.parse().map_err(|_bad| NoDestination)?;
    (number != 0 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(number).ok_or(NoDestination)
}

/// Whether a host name or address, without brackets, means this host: `localhost`, 127.0.0.0/8 or `::1`.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_matches_its_host_and_port_only() {
        let cases = [
            ("api.openai.com", "api.openai.com", 443, true),
            ("api.openai.com", "API.openai.com.", 8443, true),
            ("api.openai.com:443", "api.openai.com", 443, true),
            ("api.openai.com:443", "api.openai.com", 444, false),
            ("api.openai.com", "evil.api.openai.com", 443, false),
            ("api.openai.com", "openai.com", 443, false),
            ("api.openai.com", "api.openai.com.evil.example", 443, false),
            ("127.0.0.1:9000", "127.0.0.1", 9000, true),
            ("127.0.0.1:9000", "localhost", 9000, false),
            ("[::1]:9000", "::1", 9000, true),
            ("[::1]:9000", "::1", 9001, false),
            ("::1", "::1", 9001, true),
        ];
        for (allowed, host, port, matches) in cases {
            let destination: Destination = allowed.parse().unwrap();
            assert_eq!(destination.matches(host, port), matches, "{allowed} against {host}:{port}");
        }
    }

    #[test]
    fn wildcards_urls_and_nonsense_are_no_destinations() {
        for bad in [
            "",
            "*",
            "*.openai.com",
            "https://a",
            "a/b",
            "a:0",
            "a:+1",
            "a:99999",
            "a b",
            "[::1",
            "[a]:1",
            ".",
            "a..b",
            ":80",
        ] {
            assert_eq!(bad.parse::<Destination>(), Err(NoDestination), "{bad}");
        }
        for good in ["a.example:80", "[::1]:80", "::1", "10.0.0.1"] {
            assert_eq!(good.parse::<Destination>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn loopback_is_loopback_in_every_spelling() {
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["localhost.evil.example", "10.0.0.1", "0.0.0.0", "::", "127.0.0.1.nip.io"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}

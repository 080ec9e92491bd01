//! The request head as the gate sees it: what the listener read, with nothing interpreted twice.

use std::net::IpAddr;

use http::HeaderMap;

use super::refusal::Refusal;

/// A request head borrowed from the listener.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The raw origin-form target: path and query, byte for byte.
    pub target: &'a str,
    /// `:authority`, or the authority of an absolute-form target.
    pub authority: Option<&'a str>,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// The source address, after trusted proxies were taken into account.
    pub peer: IpAddr,
    /// Whether the caller's connection is TLS.
    pub tls: bool,
}

/// Caps on a head, from the listener's configuration.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of names and values together, plus the target.
    pub bytes: usize,
    /// Header lines.
    pub lines: usize,
}

impl<'a> Head<'a> {
    /// Checks what must hold for every request, whatever it asks for, and gives the host it addresses.
    ///
    /// # Errors
    /// [`Refusal::MethodRefused`], [`Refusal::HeadersTooLarge`], [`Refusal::HostInvalid`],
    /// [`Refusal::ClientHeader`].
    pub fn frame(&self, limits: HeadLimits) -> Result<Host, Refusal> {
        let bytes = self.headers.iter().fold(self.target.len(), |sum, (name, value)| {
            sum.saturating_add(name.as_str().len()).saturating_add(value.len()).saturating_add(4)
        });
        if bytes > limits.bytes || self.headers.len() > limits.lines {
            return Err(Refusal::HeadersTooLarge);
        }
        if matches!(self.method, "TRACE" | "TRACK" | "CONNECT") {
            return Err(Refusal::MethodRefused);
        }
        self.host()
    }

    /// The value of a header that may occur at most once; `Err` when it occurs more often.
    pub(crate) fn single(&self, name: &str) -> Result<Option<&'a [u8]>, ()> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map(http::HeaderValue::as_bytes);
        if values.next().is_some() { Err(()) } else { Ok(first) }
    }

    /// The path part of the target.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The query part of the target, without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    fn host(&self) -> Result<Host, Refusal> {
        let named = self.single("host").map_err(|()| Refusal::HostInvalid)?;
        let named = named.map(std::str::from_utf8).transpose().map_err(|_not_text| Refusal::HostInvalid)?;
        let (named, authority) = (named.map(Host::parse), self.authority.map(Host::parse));
        match (named, authority) {
            (Some(Some(a)), Some(Some(b))) if a == b => Ok(a),
            (Some(Some(only)), None) | (None, Some(Some(only))) => Ok(only),
            _ => Err(Refusal::HostInvalid),
        }
    }
}

/// A host as routes compare it: lower case, without port and trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name or address.
    pub name: String,
    /// The authority as sent, lower-cased; for `X-Forwarded-Host`.
    pub authority: String,
}

impl Host {
    fn parse(authority: &str) -> Option<Self> {
        let authority = authority.to_ascii_lowercase();
        if authority.is_empty() || authority.contains(['@', '/', '\\', ' ', '%']) {
            return None;
        }
        let name = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.0,
            None => authority.split_once(':').map_or(authority.as_str(), |(name, _)| name),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_owned();
        (!name.is_empty()).then_some(Self { name, authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1_000, lines: 10 };

    fn frame(
        method: &str,
        authority: Option<&str>,
        hosts: &[&str],
        limits: HeadLimits,
    ) -> Result<Host, Refusal> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append("host", HeaderValue::from_str(host).unwrap());
        }
        Head { method, target: "/", authority, headers: &headers, peer: [127, 0, 0, 1].into(), tls: false }
            .frame(limits)
    }

    #[test]
    fn one_host_is_needed_and_all_that_name_it_must_agree() {
        assert_eq!(frame("GET", None, &["Example.COM.:80"], LIMITS).unwrap().name, "example.com");
        assert_eq!(frame("GET", Some("a:1"), &["A:1"], LIMITS).unwrap().authority, "a:1");
        assert_eq!(frame("GET", None, &["[::1]:8080"], LIMITS).unwrap().name, "::1");
        for (authority, hosts) in [
            (None, vec![]),
            (None, vec!["a", "a"]),
            (Some("a"), vec!["b"]),
            (None, vec!["user@a"]),
            (None, vec![""]),
            (Some("a"), vec![""]),
        ] {
            assert_eq!(frame("GET", authority, &hosts, LIMITS), Err(Refusal::HostInvalid), "{hosts:?}");
        }
    }

    #[test]
    fn methods_that_echo_or_tunnel_are_refused() {
        for method in ["TRACE", "TRACK", "CONNECT"] {
            assert_eq!(frame(method, None, &["a"], LIMITS), Err(Refusal::MethodRefused));
        }
        assert!(frame("trace", None, &["a"], LIMITS).is_ok(), "methods are case-sensitive");
    }

    #[test]
    fn a_head_over_its_limits_is_refused() {
        let tight = HeadLimits { bytes: 5, lines: 10 };
        assert_eq!(frame("GET", None, &["a"], tight), Err(Refusal::HeadersTooLarge));
    }
}

//! The request head as the gate sees it: what the listener read, with nothing interpreted twice.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH};

use super::refusal::Refusal;

/// Fields that the edge sets itself on every request: taking them out again would leave nothing that can be sent.
const NEVER_NOMINATED: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Most options in `Connection`. Source: what the proxy library takes before it gives up on a request.
const MAX_CONNECTION_OPTIONS: usize = 9;

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
    /// [`Refusal::MethodRefused`], [`Refusal::HeadersTooLarge`], [`Refusal::ConnectionInvalid`],
    /// [`Refusal::LengthAmbiguous`], [`Refusal::HostInvalid`].
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
        self.connection()?;
        self.length()?;
        self.host()
    }

    /// What `Connection` names is taken out before forwarding, so it must not name what forwarding needs. Found out
    /// there, the mandate would be used up.
    fn connection(&self) -> Result<(), Refusal> {
        let fields = self.headers.get_all(CONNECTION).iter();
        let options = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
        let mut options = options.map(<[u8]>::trim_ascii).filter(|option| !option.is_empty());
        let bad = |option: &[u8]| {
            !option.iter().all(|byte| token(*byte))
                || NEVER_NOMINATED.iter().any(|name| option.eq_ignore_ascii_case(name.as_bytes()))
        };
        let refused = options.by_ref().take(MAX_CONNECTION_OPTIONS).any(bad) || options.next().is_some();
        if refused { Err(Refusal::ConnectionInvalid) } else { Ok(()) }
    }

    /// One length, or none (RFC 9110 section 8.6): of a list even of equal ones the upstream may think otherwise.
    fn length(&self) -> Result<(), Refusal> {
        match self.single(CONTENT_LENGTH.as_str()) {
            Ok(None) => Ok(()),
            Ok(Some(length)) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => Ok(()),
            Ok(Some(_)) | Err(()) => Err(Refusal::LengthAmbiguous),
        }
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

    /// The host it addresses.
    pub(super) fn host(&self) -> Result<Host, Refusal> {
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
    /// Whether the authority may stand in documents and between quotes as it is.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    }

    fn parse(authority: &str) -> Option<Self> {
        let authority = authority.to_ascii_lowercase();
        if authority.is_empty() || authority.contains(['@', '/', '\\', ' ', '%']) {
            return None;
        }
        let (name, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                (address, port)
            }
            None => {
                let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
                let name = name.strip_suffix('.').unwrap_or(name);
                if name.split('.').any(str::is_empty) {
                    return None;
                }
                (name, port)
            }
        };
        let name = name.to_owned();
        is_port(port).then_some(Self { name, authority })
    }
}

/// Nothing, or a colon and a port; after the colon there may be nothing (RFC 3986 section 3.2.3).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
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
    fn a_host_is_a_name_or_an_address_and_at_most_one_port() {
        for host in ["a:", "a:0", "a:65535", "a.:80", "[::1]", "[::1]:80", "a_b.c"] {
            assert!(frame("GET", None, &[host], LIMITS).is_ok(), "{host}");
        }
        for host in
            ["a:x", "a:99999", "a:+80", "a:80:80", "a..", ".a", "a..b", "[a]", "[::1]x", "[::1", "::1", ":80"]
        {
            assert_eq!(frame("GET", None, &[host], LIMITS), Err(Refusal::HostInvalid), "{host}");
        }
    }

    #[test]
    fn what_the_edge_needs_is_not_nominated_and_a_length_is_said_once() {
        let framed = |name: &'static str, values: &[&str]| {
            let mut headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("a"))]);
            for value in values {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            let peer = [127, 0, 0, 1].into();
            let head =
                Head { method: "GET", target: "/", authority: None, headers: &headers, peer, tls: false };
            head.frame(LIMITS).map(|_| ())
        };
        for values in
            [&["keep-alive, Upgrade"][..], &["a,,b", "c"], &["authorization"], &["a,b,c,d,e,f,g,h,i"]]
        {
            assert_eq!(framed("connection", values), Ok(()), "{values:?}");
        }
        for values in [
            &["HOST"][..],
            &["close", "x, x-forwarded-For"],
            &[":path"],
            &["\"host\""],
            &["a,b,c,d,e,f,g,h,i,j"],
        ] {
            assert_eq!(framed("connection", values), Err(Refusal::ConnectionInvalid), "{values:?}");
        }
        for values in [&["5"][..], &["005"], &[]] {
            assert_eq!(framed("content-length", values), Ok(()), "{values:?}");
        }
        for values in [&["5", "5"][..], &["5, 5"], &["+5"], &[""]] {
            assert_eq!(framed("content-length", values), Err(Refusal::LengthAmbiguous), "{values:?}");
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

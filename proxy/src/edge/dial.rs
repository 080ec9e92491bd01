//! Upstream addresses: resolved once, checked, and pinned for the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caracal_policies::Upstream;
use moka::sync::Cache;

use crate::gate::refusal::Refusal;

/// How long a resolved name is trusted. The resolver does not tell us a record's own lifetime.
const NAME_LIFETIME: Duration = Duration::from_secs(5);
const MAX_NAMES: u64 = 10_000;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves upstream names off the worker threads and keeps the answers for a moment.
#[derive(Debug)]
pub struct Dialer(Cache<(Arc<str>, u16), SocketAddr>);

impl Default for Dialer {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_NAMES).time_to_live(NAME_LIFETIME).build())
    }
}

impl Dialer {
    /// The address to dial for an upstream.
    ///
    /// # Errors
    /// [`Refusal::UpstreamFailed`] when the name does not resolve; [`Refusal::UpstreamUnsafe`] when any of its
    /// addresses may not be dialled.
    pub async fn address(&self, upstream: &Upstream) -> Result<SocketAddr, Refusal> {
        if let Ok(literal) = upstream.host.parse::<IpAddr>() {
            return if safe(literal) {
                Ok(SocketAddr::new(literal, upstream.port))
            } else {
                Err(Refusal::UpstreamUnsafe)
            };
        }
        let key = (Arc::clone(&upstream.host), upstream.port);
        if let Some(known) = self.0.get(&key) {
            return Ok(known);
        }
        let lookup = tokio::net::lookup_host((&*upstream.host, upstream.port));
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await;
        let addresses: Vec<SocketAddr> = match answer {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(_)) | Err(_) => return Err(Refusal::UpstreamFailed),
        };
        if addresses.iter().any(|address| !safe(address.ip())) {
            return Err(Refusal::UpstreamUnsafe);
        }
        let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
        let address = *first.ok_or(Refusal::UpstreamFailed)?;
        self.0.insert(key, address);
        Ok(address)
    }
}

/// Whether an address may be dialled at all. Loopback and private ranges may: operators provision upstreams.
/// Link-local (cloud metadata), multicast and unspecified ones may not, in whatever form they come.
#[must_use]
pub fn safe(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => safe_v4(v4),
        IpAddr::V6(v6) => {
            let embedded = nat64(v6).or_else(|| v4_compatible(v6));
            !(v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local())
                && embedded.is_none_or(safe_v4)
        }
    }
}

fn safe_v4(v4: Ipv4Addr) -> bool {
    !(v4.is_link_local() || v4.is_multicast() || v4.is_unspecified() || v4.is_broadcast())
}

/// The address inside `64:ff9b::/96` (RFC 6052 section 2.1).
fn nat64(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = v6.segments();
    ([a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| embedded(high, low))
}

/// The address inside the deprecated `::/96`, `::1` aside (RFC 4291 section 2.5.5.1).
fn v4_compatible(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = v6.segments();
    ([a, b, c, d, e, f] == [0; 6] && high != 0).then(|| embedded(high, low))
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn only_addresses_an_operator_could_mean_are_dialled() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("fd00::1", true),
            ("93.184.216.34", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::5db8:d822", true),
            ("::169.254.169.254", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(safe(address.parse().unwrap()), expected, "{address}");
        }
    }
}

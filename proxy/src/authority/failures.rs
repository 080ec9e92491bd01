//! How many failed attempts one key has made in the last minute.
//!
//! A throttle for failures, not for callers: it is asked only once an attempt has failed, so whoever proves a
//! secret is never refused because somebody else could not.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use moka::sync::Cache;

/// The window in which failures are counted.
const WINDOW_MS: i64 = 60_000;
/// Keys remembered at a time; the coldest are forgotten first, which can only be lenient.
const MAX_KEYS: u64 = 65_536;

/// Failure counters in fixed one-minute windows.
#[derive(Debug)]
pub(crate) struct Failures<K: Hash + Eq + Send + Sync + 'static> {
    allowed: u32,
    counters: Cache<K, Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    started_at: i64,
    count: u32,
}

impl<K: Hash + Eq + Send + Sync + 'static> Failures<K> {
    /// Counters that allow `allowed` failures a minute.
    pub(crate) fn new(allowed: u32) -> Self {
        let counters = Cache::builder().max_capacity(MAX_KEYS).time_to_idle(Duration::from_secs(120)).build();
        Self { allowed, counters }
    }

    /// Counts one failure; the seconds until the window ends when there were more than allowed.
    pub(crate) fn count(&self, key: K, now: i64) -> Option<u32> {
        let entry = self.counters.entry(key).and_upsert_with(|old| match old.map(moka::Entry::into_value) {
            Some(window) if now.saturating_sub(window.started_at) < WINDOW_MS => {
                Window { count: window.count.saturating_add(1), ..window }
            }
            Some(_) | None => Window { started_at: now, count: 1 },
        });
        self.wait(entry.into_value(), now)
    }

    /// The seconds until the window ends when `key` is over its allowance now.
    pub(crate) fn over(&self, key: &K, now: i64) -> Option<u32> {
        self.wait(self.counters.get(key)?, now)
    }

    fn wait(&self, window: Window, now: i64) -> Option<u32> {
        let left = window.started_at.saturating_add(WINDOW_MS).saturating_sub(now);
        if window.count <= self.allowed || left <= 0 {
            return None;
        }
        u32::try_from(left.saturating_add(999).div_euclid(1_000)).ok()
    }
}

/// The key under which an address is counted: itself, or the /64 of an IPv6 address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_over_the_allowance_wait_for_the_window_to_end() {
        let failures = Failures::new(2);
        assert_eq!(failures.count("a", 1_000), None);
        assert_eq!(failures.count("a", 2_000), None);
        assert_eq!(failures.count("a", 11_000), Some(50));
        assert_eq!(failures.over(&"a", 60_999), Some(1));
        assert_eq!(failures.over(&"b", 11_000), None);
        assert_eq!(failures.count("a", 61_000), None);
    }

    #[test]
    fn ipv6_addresses_are_counted_by_their_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}

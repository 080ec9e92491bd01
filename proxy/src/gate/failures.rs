//! An allowance of failed verifications per address, spent before any curve arithmetic.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

const WINDOW_MS: i64 = 60_000;
const MAX_ADDRESSES: usize = 65_536;

/// Counts failed verifications per address and minute.
#[derive(Debug)]
pub struct Failures {
    allowance: u32,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    window: i64,
    by_address: HashMap<IpAddr, u32>,
}

impl Failures {
    /// At most `allowance` failures per address and minute.
    #[must_use]
    pub fn new(allowance: u32) -> Self {
        Self { allowance, counts: Mutex::default() }
    }

    /// Whether this address may make us verify another unknown token now.
    #[must_use]
    pub fn allows(&self, address: IpAddr, now: i64) -> bool {
        let counts = self.counts.lock();
        counts.window != now.div_euclid(WINDOW_MS)
            || counts.by_address.get(&group(address)).is_none_or(|count| *count < self.allowance)
    }

    /// Counts one failure. Past a bounded number of addresses new ones are not counted in this window.
    pub fn count(&self, address: IpAddr, now: i64) {
        let mut counts = self.counts.lock();
        let window = now.div_euclid(WINDOW_MS);
        if counts.window != window {
            *counts = Counts { window, by_address: HashMap::new() };
        }
        if counts.by_address.len() < MAX_ADDRESSES || counts.by_address.contains_key(&group(address)) {
            let count = counts.by_address.entry(group(address)).or_default();
            *count = count.saturating_add(1);
        }
    }
}

/// One household is one address: IPv6 is grouped by /64.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_allowed_up_to_the_allowance_per_address_and_minute() {
        let failures = Failures::new(2);
        let (bad, good): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        failures.count(bad, 0);
        assert!(failures.allows(bad, 0));
        failures.count(bad, 59_999);
        assert!(!failures.allows(bad, 59_999));
        assert!(failures.allows(good, 59_999));
        assert!(failures.allows(bad, 60_000), "a new minute");
    }

    #[test]
    fn an_ipv6_network_shares_one_allowance_and_mapped_addresses_are_ipv4() {
        let failures = Failures::new(1);
        failures.count("2001:db8::1".parse().unwrap(), 0);
        assert!(!failures.allows("2001:db8::2".parse().unwrap(), 0));
        failures.count("::ffff:10.0.0.9".parse().unwrap(), 0);
        assert!(!failures.allows([10, 0, 0, 9].into(), 0));
    }
}

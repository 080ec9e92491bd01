//! Which of an upstream's addresses a request goes to, and which are left alone because they could not be reached.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use uuid::Uuid;

/// Addresses that are remembered; one that nobody asks for is forgotten.
const KEPT: u64 = 20_000;
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Addresses that are tried for one request.
const MAX_TRIES: usize = 4;
/// How long an address is left alone after it could not be reached; twice as long each further time.
const PAUSE_MS: i64 = 1_000;
const MAX_PAUSE_MS: i64 = 30_000;

/// What is known about the addresses of upstreams that have several.
pub struct Targets(Cache<SocketAddr, Arc<Target>>);

#[derive(Debug, Default)]
struct Target {
    in_flight: AtomicU32,
    failures: AtomicU32,
    /// Unix milliseconds.
    paused_until: AtomicI64,
}

impl Default for Targets {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(KEPT).time_to_idle(KEPT_FOR).build())
    }
}

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Targets")
    }
}

impl Targets {
    /// Puts the addresses into the order in which they are tried: those first that are not `unwell` and could be
    /// reached, of these the one with the fewest requests in flight, and equals at random. None is left out for being
    /// unwell or paused: with all of them away, trying is better than not.
    pub(super) fn order(&self, addresses: &mut Vec<SocketAddr>, unwell: &HashSet<SocketAddr>, now: i64) {
        if addresses.len() < 2 {
            return;
        }
        let [random, ..] = Uuid::new_v4().into_bytes();
        let start = usize::from(random).checked_rem(addresses.len()).unwrap_or_default();
        addresses.rotate_left(start);
        addresses.sort_by_cached_key(|address| {
            let target = self.of(*address);
            let paused = target.paused_until.load(Ordering::Relaxed) > now;
            (unwell.contains(address), paused, target.in_flight.load(Ordering::Relaxed))
        });
        addresses.truncate(MAX_TRIES);
    }

    /// Counts a request that goes to this address, until it is dropped.
    pub(super) fn ride(&self, address: SocketAddr) -> Ride {
        let target = self.of(address);
        target.in_flight.fetch_add(1, Ordering::Relaxed);
        Ride(target)
    }

    /// The address could not be reached.
    pub(super) fn failed(&self, address: SocketAddr, now: i64) {
        let target = self.of(address);
        let before = target.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let pause = PAUSE_MS.saturating_mul(1_i64.checked_shl(before).unwrap_or(1)).min(MAX_PAUSE_MS);
        target.paused_until.store(now.saturating_add(pause), Ordering::Relaxed);
    }

    /// The address was reached.
    pub(super) fn reached(&self, address: SocketAddr) {
        let target = self.of(address);
        if target.failures.swap(0, Ordering::Relaxed) > 0 {
            target.paused_until.store(0, Ordering::Relaxed);
        }
    }

    fn of(&self, address: SocketAddr) -> Arc<Target> {
        self.0.get_with(address, Arc::default)
    }
}

/// A request on its way to one address.
pub(super) struct Ride(Arc<Target>);

impl Drop for Ride {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Vec<SocketAddr> {
        (1..=6).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    #[test]
    fn the_least_busy_address_that_can_be_reached_comes_first() {
        let targets = Targets::default();
        let mut riding: Vec<_> = addresses().iter().skip(2).map(|address| targets.ride(*address)).collect();
        let mut order = addresses();
        targets.order(&mut order, &HashSet::new(), 0);
        assert_eq!(order.len(), MAX_TRIES);
        let mut idle: Vec<_> = order.iter().take(2).map(SocketAddr::port).collect();
        idle.sort_unstable();
        assert_eq!(idle, [1, 2]);
        targets.failed(addresses()[0], 0);
        targets.failed(addresses()[1], 0);
        riding.remove(3);
        let mut order = addresses();
        targets.order(&mut order, &HashSet::new(), 0);
        assert_eq!(order[0].port(), 6);
        assert!(order.iter().all(|address| address.port() > 2), "{order:?}");
        let unwell = addresses().into_iter().skip(2).collect();
        let mut order = addresses();
        targets.order(&mut order, &unwell, 0);
        assert!(order[..2].iter().all(|address| address.port() <= 2), "rather paused than unwell: {order:?}");
    }

    #[test]
    fn a_pause_grows_with_each_failure_and_ends_with_success() {
        let targets = Targets::default();
        let two = |now: i64| {
            let mut order = addresses();
            order.truncate(2);
            targets.order(&mut order, &HashSet::new(), now);
            order[0].port()
        };
        let dead = addresses()[0];
        let mut now = 0;
        for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            targets.failed(dead, now);
            assert!((0..50).all(|_| two(now + pause - 1) == 2), "{pause}");
            now += pause;
            assert!((0..200).any(|_| two(now) == 1), "after {pause} ms it is one of two again");
        }
        targets.failed(dead, now);
        targets.reached(dead);
        assert!((0..200).any(|_| two(now) == 1));
        targets.failed(dead, now);
        assert!((0..200).any(|_| two(now + 1_000) == 1), "it begins anew");
    }
}

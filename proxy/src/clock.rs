//! The process clock: wall time that never goes back, checked against boot time.
//!
//! Time is the wall clock at start plus the boot-time clock, pulled forward by the wall clock. No token and no
//! stored value influences it. When wall and boot time drift more than [`MAX_DRIFT_MS`] apart, expiry goes by
//! the later of the two and [`Clock::healthy`] turns false, which stops minting and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How far wall time and boot time may drift apart before the clock calls itself unhealthy, in milliseconds.
pub const MAX_DRIFT_MS: i64 = 5_000;

/// A cheap handle on the process time; clones share the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    System { wall_at_start: i64, boot_at_start: i64, highest: AtomicI64 },
    Manual { now: AtomicI64, drift: AtomicI64 },
}

impl Clock {
    /// The real clock of this machine.
    #[must_use]
    pub fn system() -> Self {
        let wall = read(ClockId::Realtime);
        Self(Arc::new(Kind::System {
            wall_at_start: wall,
            boot_at_start: read(ClockId::Boottime),
            highest: AtomicI64::new(wall),
        }))
    }

    /// A clock that moves only by [`Clock::advance`]; for tests.
    #[must_use]
    pub fn manual(start_ms: i64) -> Self {
        Self(Arc::new(Kind::Manual { now: AtomicI64::new(start_ms), drift: AtomicI64::new(0) }))
    }

    /// Unix milliseconds; never less than any earlier answer of this clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        match &*self.0 {
            Kind::Manual { now, .. } => now.load(Ordering::SeqCst),
            Kind::System { wall_at_start, boot_at_start, highest } => {
                let by_boot = by_boot(*wall_at_start, *boot_at_start);
                let now = by_boot.max(read(ClockId::Realtime));
                highest.fetch_max(now, Ordering::SeqCst).max(now)
            }
        }
    }

    /// Unix seconds, rounded down.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        self.now().div_euclid(1_000)
    }

    /// False while wall time and boot time disagree by more than [`MAX_DRIFT_MS`].
    #[must_use]
    pub fn healthy(&self) -> bool {
        match &*self.0 {
            Kind::Manual { drift, .. } => drift.load(Ordering::SeqCst) <= MAX_DRIFT_MS,
            Kind::System { wall_at_start, boot_at_start, .. } => {
                let drift = by_boot(*wall_at_start, *boot_at_start).saturating_sub(read(ClockId::Realtime));
                drift.abs() <= MAX_DRIFT_MS
            }
        }
    }

    /// Moves a manual clock forward; a system clock takes no orders and stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual { now, .. } = &*self.0 {
            let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            now.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Makes a manual clock's wall and boot time disagree by this much; a system clock stays as it is.
    pub fn disagree(&self, by: Duration) {
        if let Kind::Manual { drift, .. } = &*self.0 {
            drift.store(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

fn by_boot(wall_at_start: i64, boot_at_start: i64) -> i64 {
    wall_at_start.saturating_add(read(ClockId::Boottime).saturating_sub(boot_at_start))
}

fn read(clock: ClockId) -> i64 {
    let at = clock_gettime(clock);
    at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let clock = Clock::system();
        let mut last = 0;
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(clock.healthy());
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(5_500);
        assert_eq!((clock.now(), clock.now_s()), (5_500, 5));
        clock.advance(Duration::from_millis(700));
        assert_eq!((clock.now(), clock.now_s()), (6_200, 6));
        clock.disagree(Duration::from_millis(5_000));
        assert!(clock.healthy());
        clock.disagree(Duration::from_millis(5_001));
        assert!(!clock.healthy());
    }
}

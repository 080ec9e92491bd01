//! The process clock: wall time that never goes back, checked against boot time.
//!
//! Time is the wall clock at start plus the boot-time clock, pulled forward by the wall clock. No token and no
//! stored value influences it. When wall and boot time drift more than [`MAX_DRIFT_MS`] apart, expiry goes by
//! the later of the two and [`Clock::healthy`] turns false, which stops minting and readiness. A wall clock that
//! was set far ahead by mistake and back again leaves this process unhealthy until time has caught up, or until it is
//! started again.

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
struct Kind {
    source: Source,
    wall_at_start: i64,
    boot_at_start: i64,
    /// The latest answer so far.
    highest: AtomicI64,
}

/// Where the two times come from.
#[derive(Debug)]
enum Source {
    System,
    Manual { wall: AtomicI64, boot: AtomicI64 },
}

impl Source {
    fn wall(&self) -> i64 {
        match self {
            Self::System => read(ClockId::Realtime),
            Self::Manual { wall, .. } => wall.load(Ordering::SeqCst),
        }
    }

    fn boot(&self) -> i64 {
        match self {
            Self::System => read(ClockId::Boottime),
            Self::Manual { boot, .. } => boot.load(Ordering::SeqCst),
        }
    }
}

impl Clock {
    /// The real clock of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self::of(Source::System)
    }

    /// A clock that moves only by [`Clock::advance`] and [`Clock::step`]; for tests.
    #[must_use]
    pub fn manual(start_ms: i64) -> Self {
        Self::of(Source::Manual { wall: AtomicI64::new(start_ms), boot: AtomicI64::new(0) })
    }

    fn of(source: Source) -> Self {
        let (wall_at_start, boot_at_start) = (source.wall(), source.boot());
        Self(Arc::new(Kind { source, wall_at_start, boot_at_start, highest: AtomicI64::new(wall_at_start) }))
    }

    /// Unix milliseconds; never less than any earlier answer of this clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        let now = self.by_boot().max(self.0.source.wall());
        self.0.highest.fetch_max(now, Ordering::SeqCst).max(now)
    }

    /// Unix seconds, rounded down.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        self.now().div_euclid(1_000)
    }

    /// False while wall time and boot time disagree by more than [`MAX_DRIFT_MS`], and while time has already been
    /// further ahead than that: what is issued then would be from the future for everybody else.
    #[must_use]
    pub fn healthy(&self) -> bool {
        let (by_boot, wall) = (self.by_boot(), self.0.source.wall());
        let ahead = self.0.highest.load(Ordering::SeqCst).saturating_sub(by_boot.max(wall));
        by_boot.saturating_sub(wall).abs() <= MAX_DRIFT_MS && ahead <= MAX_DRIFT_MS
    }

    /// Lets time pass on a manual clock; a system clock takes no orders and stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { wall, boot } = &self.0.source {
            let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            wall.fetch_add(ms, Ordering::SeqCst);
            boot.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Sets the wall time of a manual clock forward or back by this many milliseconds, as somebody might set the
    /// host's; a system clock stays as it is.
    pub fn step(&self, ms: i64) {
        if let Source::Manual { wall, .. } = &self.0.source {
            wall.fetch_add(ms, Ordering::SeqCst);
        }
    }

    fn by_boot(&self) -> i64 {
        self.0.wall_at_start.saturating_add(self.0.source.boot().saturating_sub(self.0.boot_at_start))
    }
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
        assert!(clock.healthy());
    }

    #[test]
    fn a_wall_clock_that_is_set_back_brings_no_time_back() {
        let clock = Clock::manual(100_000);
        clock.step(-5_000);
        assert_eq!((clock.now(), clock.healthy()), (100_000, true), "as much as clocks may drift");
        clock.step(-1);
        assert_eq!((clock.now(), clock.healthy()), (100_000, false));
        clock.advance(Duration::from_secs(10));
        assert_eq!((clock.now(), clock.healthy()), (110_000, false), "time goes on by the boot clock");
        clock.step(5_001);
        assert_eq!((clock.now(), clock.healthy()), (110_000, true));
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_is_followed_and_nothing_issued_until_time_has_caught_up() {
        let clock = Clock::manual(100_000);
        clock.step(3_600_000);
        assert_eq!((clock.now(), clock.healthy()), (3_700_000, false), "what may be over counts as over");
        clock.step(-3_600_000);
        assert_eq!((clock.now(), clock.healthy()), (3_700_000, false), "what was over stays over");
        clock.advance(Duration::from_millis(3_594_999));
        assert!(!clock.healthy());
        clock.advance(Duration::from_millis(1));
        assert_eq!((clock.now(), clock.healthy()), (3_700_000, true));
    }
}

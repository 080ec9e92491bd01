//! One provider's token, the fetch that is running for it, and the failures before.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Token, Unavailable};

/// A token is not used any more this long before it expires, in milliseconds.
pub(super) const SKEW_MS: i64 = 30_000;
/// And replaced this long before that, or a fifth of its life if that is shorter.
pub(super) const AHEAD_MS: i64 = 60_000;
/// Failures in a row after which a provider is left alone.
const FAILURES: u32 = 5;
/// For how long, in milliseconds; then one caller may try.
const OPEN_MS: i64 = 30_000;
/// The wait after the first failure, in milliseconds; doubled by each further one.
const BACKOFF_MS: i64 = 100;
/// The least time between two tokens given up because an upstream did not take them, in milliseconds.
const REJECTION_MS: i64 = 10_000;

type Outcome = Option<Result<Arc<Token>, Unavailable>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    token: Option<Arc<Token>>,
    /// Closed when the running fetch is over.
    running: Option<watch::Receiver<Outcome>>,
    failures: u32,
    why: Option<Unavailable>,
    /// No fetch before this, unix milliseconds.
    not_before: i64,
    rejected_at: Option<i64>,
    /// Fingerprint of the last token that an upstream did not take.
    spent: Option<Box<str>>,
}

/// What a caller does.
pub(super) enum Plan {
    /// Take this, and replace it in the background if there is something to say it over.
    Use(Arc<Token>, Option<watch::Sender<Outcome>>),
    Wait(watch::Receiver<Outcome>),
    Fetch(watch::Receiver<Outcome>, watch::Sender<Outcome>),
    Refuse(Unavailable),
}

/// How a provider's token stands, for operators.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Fingerprint and expiry of the token that is kept.
    pub token: Option<(Box<str>, i64)>,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last fetch failed.
    pub why: Option<Unavailable>,
    /// Whether it is left alone.
    pub open: bool,
}

impl Known {
    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.has_changed().is_ok())
    }

    fn begin(&mut self) -> (watch::Receiver<Outcome>, watch::Sender<Outcome>) {
        let (over, done) = watch::channel(None);
        self.running = Some(done.clone());
        (done, over)
    }
}

impl Slot {
    /// Decides under the lock, so that no two callers begin a fetch.
    pub(super) fn plan(&self, now: i64) -> Plan {
        let mut known = self.0.lock();
        let may_fetch = now >= known.not_before;
        let half_open = known.failures >= FAILURES;
        if let Some(token) = known.token.clone().filter(|token| now < token.usable_until) {
            let due = now >= token.refresh_at && may_fetch && !known.is_running();
            let over = if due { Some(known.begin().1) } else { None };
            return Plan::Use(token, over);
        }
        if known.is_running() {
            // One probe at a time after an outage; nobody waits for it.
            return match known.running.clone().filter(|_| !half_open) {
                Some(running) => Plan::Wait(running),
                None => Plan::Refuse(Unavailable::Open),
            };
        }
        if !may_fetch {
            let why = known.why.unwrap_or(Unavailable::Unreachable);
            return Plan::Refuse(if half_open { Unavailable::Open } else { why });
        }
        let (done, over) = known.begin();
        Plan::Fetch(done, over)
    }

    /// The running fetch is over. A failure leaves the token there is, which then ages.
    pub(super) fn settle(&self, said: &Result<Arc<Token>, Unavailable>, now: i64) {
        let mut known = self.0.lock();
        known.running = None;
        match said {
            Ok(token) => {
                known.token = Some(Arc::clone(token));
                (known.failures, known.why, known.not_before) = (0, None, 0);
            }
            Err(why) => {
                known.failures = known.failures.saturating_add(1);
                known.why = Some(*why);
                let doubled = known.failures.saturating_sub(1).min(FAILURES);
                let wait = BACKOFF_MS.saturating_mul(1_i64.checked_shl(doubled).unwrap_or(1));
                let wait = if known.failures >= FAILURES { OPEN_MS } else { wait };
                known.not_before = now.saturating_add(wait);
            }
        }
    }

    pub(super) fn reject(&self, token: &Arc<Token>, now: i64) -> bool {
        let mut known = self.0.lock();
        if !known.token.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, token)) {
            // Somebody else was told first.
            return true;
        }
        if known.rejected_at.is_some_and(|at| now.saturating_sub(at) < REJECTION_MS) {
            return false;
        }
        known.rejected_at = Some(now);
        known.spent = Some(token.fingerprint.clone());
        known.token = None;
        true
    }

    /// Fingerprint of the last token that an upstream did not take.
    pub(super) fn spent(&self) -> Option<Box<str>> {
        self.0.lock().spent.clone()
    }

    pub(super) fn standing(&self, now: i64) -> Standing {
        let known = self.0.lock();
        let token = known.token.as_ref().filter(|token| now < token.usable_until);
        Standing {
            token: token.map(|token| (token.fingerprint.clone(), token.expires_at)),
            failures: known.failures,
            why: known.why,
            open: known.failures >= FAILURES && now < known.not_before,
        }
    }
}

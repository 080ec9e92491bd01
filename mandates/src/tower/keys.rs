//! The zone's key set, fetched when needed and kept for a while.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use parking_lot::Mutex;

use super::source::JwksSource;
use crate::keys::KeySet;

/// How long a key set is good, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTimes {
    /// Used without asking again. Default 300, the lifetime the authority announces.
    pub fresh: i64,
    /// Used at most this long when it cannot be fetched again, counted from the fetch. Default 900.
    pub stale: i64,
    /// The least time between two fetches while something is amiss: an unknown key, a failed fetch. Default 10.
    pub cooldown: i64,
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self { fresh: 300, stale: 900, cooldown: 10 }
    }
}

/// A fetch whose outcome all that wait for it share; it has stored the outcome when it is done.
type Flight = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Keys {
    url: String,
    source: Arc<dyn JwksSource>,
    times: KeyTimes,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    keys: Option<Arc<KeySet>>,
    /// When `keys` were fetched.
    fetched_at: i64,
    /// When a fetch last began, whatever came of it.
    tried_at: Option<i64>,
    /// The running fetch. When all that waited for it went away it stands still, and the next one takes it on: so
    /// callers who come and go cannot make us fetch more often.
    flight: Option<Shared<Flight>>,
}

/// What to do about a key set.
enum Plan {
    /// Use what there is, if anything.
    Use(Option<Arc<KeySet>>),
    /// Wait for this fetch first.
    Wait(Shared<Flight>),
}

impl Keys {
    pub(super) fn new(url: String, source: Arc<dyn JwksSource>, times: KeyTimes) -> Self {
        Self { url, source, times, known: Arc::default() }
    }

    /// The key set for a token that names the key `kid`; `None` when none can be had.
    pub(super) async fn having(&self, kid: &str, now: i64) -> Option<Arc<KeySet>> {
        match self.plan(kid, now) {
            Plan::Use(keys) => keys,
            Plan::Wait(flight) => {
                flight.await;
                self.usable(&self.known.lock(), now)
            }
        }
    }

    /// Decides under the lock, so that no two callers start a fetch.
    fn plan(&self, kid: &str, now: i64) -> Plan {
        let mut known = self.known.lock();
        let usable = self.usable(&known, now);
        let has_key = usable.as_ref().is_some_and(|keys| keys.get(kid).is_some());
        if has_key && is_within(known.fetched_at, now, self.times.fresh) {
            return Plan::Use(usable);
        }
        if let Some(flight) = &known.flight {
            // One of its handles is ours; with another one somebody drives it, and only who cannot do without waits.
            let driven = flight.strong_count().is_some_and(|handles| handles > 1);
            return if has_key && driven { Plan::Use(usable) } else { Plan::Wait(flight.clone()) };
        }
        if known.tried_at.is_some_and(|at| is_within(at, now, self.times.cooldown)) {
            return Plan::Use(usable);
        }
        let flight = self.fetch(now);
        known.tried_at = Some(now);
        known.flight = Some(flight.clone());
        Plan::Wait(flight)
    }

    fn usable(&self, known: &Known, now: i64) -> Option<Arc<KeySet>> {
        known
            .keys
            .clone()
            .filter(|_| is_within(known.fetched_at, now, self.times.stale.max(self.times.fresh)))
    }

    fn fetch(&self, now: i64) -> Shared<Flight> {
        let fetching = self.source.fetch(&self.url);
        let known: Weak<Mutex<Known>> = Arc::downgrade(&self.known);
        let flight: Flight = Box::pin(async move {
            let document = fetching.await;
            let Some(known) = known.upgrade() else { return };
            let keys = document.ok().and_then(|document| KeySet::from_jwks(&document).ok());
            let mut known = known.lock();
            known.flight = None;
            if let Some(keys) = keys {
                known.keys = Some(Arc::new(keys));
                known.fetched_at = now;
            }
        });
        flight.shared()
    }
}

/// Whether less than `life` seconds have passed since `at`. A clock that went back proves nothing: no.
fn is_within(at: i64, now: i64, life: i64) -> bool {
    (0..life).contains(&now.saturating_sub(at))
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("url", &self.url)
            .field("source", &self.source)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

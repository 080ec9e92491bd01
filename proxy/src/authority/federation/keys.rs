//! The key sets of the issuers: fetched when needed, kept for ten minutes, asked for again with restraint.

use std::sync::Arc;
use std::time::Duration;

use caracal_mandates::json_object;
use caracal_policies::{EndpointUrl, SubjectIssuer};
use moka::sync::Cache;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::fetch::Fetcher;
use super::key::Key;
use super::token::IdToken;
use crate::clock::Clock;

/// How long a set is used without asking again, in milliseconds. There is no use beyond it.
const FRESH_MS: i64 = 10 * 60 * 1_000;
/// The least time between two fetches of one set, in milliseconds: an unknown key or a failure does not bring more.
const COOLDOWN_MS: i64 = 10 * 1_000;
/// Keys of one set that are looked at.
const MAX_KEYS: usize = 100;
/// Sets held; a zone has at most twenty.
const MAX_SETS: u64 = 10_000;
/// A set nobody asked for in this time is forgotten.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer's set, which is fresh, has none of that name for that algorithm.
    Unknown,
    /// There is no fresh set.
    Unavailable,
}

/// The sets, one for each issuer of each zone.
#[derive(Debug)]
pub(super) struct KeySets {
    sets: Cache<(Arc<str>, Arc<str>, String), Arc<KeySet>>,
    fetcher: Arc<Fetcher>,
}

impl KeySets {
    pub(super) fn new(fetcher: Arc<Fetcher>) -> Self {
        Self { sets: Cache::builder().max_capacity(MAX_SETS).time_to_idle(IDLE).build(), fetcher }
    }

    /// The issuer's keys, if a key the token names is among them. Waits for a fetch where one is due.
    pub(super) async fn keys(
        &self,
        zone: &Arc<str>,
        issuer: &SubjectIssuer,
        token: &IdToken<'_>,
        clock: &Clock,
    ) -> Result<Arc<[Key]>, NoKey> {
        let place = (Arc::clone(zone), Arc::clone(&issuer.issuer), issuer.jwks_url.to_string());
        let set = self.sets.get_with(place, Arc::default);
        let wants = |key: &Key| token.wants(key);
        loop {
            let mut done = match set.plan(wants, clock.now()) {
                Plan::Answer(answer) => return answer,
                Plan::Wait(done) => done,
                Plan::Fetch(done, over) => {
                    // A task of its own: it ends, and says so, also when the caller that began it goes away.
                    let (set, fetcher) = (Arc::clone(&set), Arc::clone(&self.fetcher));
                    tokio::spawn(run(set, fetcher, issuer.jwks_url.clone(), clock.clone(), over));
                    done
                }
            };
            // An error says that the task is gone, which is an end as well.
            drop(done.changed().await);
        }
    }
}

/// One issuer's set.
#[derive(Debug, Default)]
struct KeySet(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    keys: Option<Arc<[Key]>>,
    /// When `keys` came, unix milliseconds.
    fetched_at: i64,
    /// When a fetch last began, whatever came of it.
    tried_at: Option<i64>,
    /// Closed when the running fetch is over.
    running: Option<watch::Receiver<()>>,
}

enum Plan {
    Answer(Result<Arc<[Key]>, NoKey>),
    Wait(watch::Receiver<()>),
    Fetch(watch::Receiver<()>, watch::Sender<()>),
}

impl KeySet {
    /// Decides under the lock, so that no two callers begin a fetch.
    fn plan(&self, wants: impl Fn(&Key) -> bool, now: i64) -> Plan {
        let mut known = self.0.lock();
        let fresh = known.keys.as_ref().filter(|_| is_within(known.fetched_at, now, FRESH_MS));
        if let Some(keys) = fresh.filter(|keys| keys.iter().any(&wants)) {
            return Plan::Answer(Ok(Arc::clone(keys)));
        }
        let missing = if fresh.is_some() { NoKey::Unknown } else { NoKey::Unavailable };
        if let Some(running) = known.running.as_ref().filter(|running| running.has_changed().is_ok()) {
            return Plan::Wait(running.clone());
        }
        if known.tried_at.is_some_and(|at| is_within(at, now, COOLDOWN_MS)) {
            return Plan::Answer(Err(missing));
        }
        let (over, done) = watch::channel(());
        known.tried_at = Some(now);
        known.running = Some(done.clone());
        Plan::Fetch(done, over)
    }

    /// The running fetch is over.
    fn settle(&self, keys: Option<Vec<Key>>, now: i64) {
        let mut known = self.0.lock();
        known.running = None;
        if let Some(keys) = keys {
            known.keys = Some(keys.into());
            known.fetched_at = now;
        }
    }
}

/// Fetches a set and keeps it; a failure leaves what there is, which then ages.
async fn run(
    set: Arc<KeySet>,
    fetcher: Arc<Fetcher>,
    url: EndpointUrl,
    clock: Clock,
    over: watch::Sender<()>,
) {
    let outcome = fetcher.fetch(&url).await.map_err(|problem| problem.to_string());
    let outcome =
        outcome.and_then(|document| read(&document).ok_or_else(|| "it has no usable key".to_owned()));
    if let Err(problem) = &outcome {
        tracing::warn!(%url, %problem, "a subject issuer's key set cannot be had");
    }
    set.settle(outcome.ok(), clock.now());
    drop(over);
}

/// The usable keys of a document; `None` when there are none.
fn read(document: &[u8]) -> Option<Vec<Key>> {
    let document = json_object(document)?;
    let listed = document.get("keys").and_then(Value::as_array)?;
    let keys: Vec<Key> = listed.iter().take(MAX_KEYS).filter_map(Key::read).collect();
    (!keys.is_empty()).then_some(keys)
}

/// Whether less than `life` has passed since `at`. A clock that went back proves nothing: no.
fn is_within(at: i64, now: i64, life: i64) -> bool {
    (0..life).contains(&now.saturating_sub(at))
}

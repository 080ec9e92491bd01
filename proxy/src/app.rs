//! What every listener shares: one value, put together once in [`crate::serve`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::broker::Broker;
use crate::budgets::{Budgets, Mints};
use crate::clock::Clock;
use crate::config::Config;
use crate::edge::health::Health;
use crate::edge::live::Live;
use crate::edge::secured::SecuredCache;
use crate::edge::targets::Targets;
use crate::egress::Egress;
use crate::fleet::Fleet;
use crate::gate::authenticate::ClaimsCache;
use crate::gate::concurrency::InFlight;
use crate::gate::exact::kept::Outcomes;
use crate::gate::failures::Failures;
use crate::keyring::Keyring;
use crate::ledger::{Ledger, PublicKey};
use crate::metrics::Metrics;
use crate::rehearsal::Queue;
use crate::reload::Reloader;
use crate::retired::Retirement;
use crate::sealing::SealingKey;
use crate::sinks::Sinks;
use crate::snapshot::SnapshotHandle;
use crate::state::{Narrowed, State};

/// The shared parts of a running process.
#[derive(Debug)]
pub struct App {
    /// The checked configuration; never changes while the process runs.
    pub config: Arc<Config>,
    /// Time.
    pub clock: Clock,
    /// Bundles, routes and secrets under one generation number.
    pub snapshot: SnapshotHandle,
    /// Zone signing keys.
    pub keyring: Arc<Keyring>,
    /// Sessions, delegations, records, marks.
    pub state: Arc<State>,
    /// What the fleet shares, if this process is a node of one.
    pub fleet: Option<Arc<Fleet>>,
    /// Evidence.
    pub ledger: Arc<Ledger>,
    /// The key that signs the ledger's checkpoints.
    pub ledger_key: PublicKey,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Verified mandates.
    pub claims: ClaimsCache,
    /// Failed verifications per address.
    pub failures: Failures,
    /// Requests in flight per application and resource.
    pub in_flight: InFlight,
    /// What is used of the budgets of bundles.
    pub budgets: Budgets,
    /// How fast each application mints.
    pub mints: Mints,
    /// Requests in flight that a revocation can end.
    pub live: Arc<Live>,
    /// What may be dialled, and where it is.
    pub egress: Arc<Egress>,
    /// Addresses of upstreams that have several.
    pub targets: Targets,
    /// Which places of upstreams do not pass their check.
    pub health: Health,
    /// What connections to upstreams are secured with.
    pub secured: SecuredCache,
    /// What came of requests that a person had approved.
    pub outcomes: Arc<Outcomes>,
    /// Access tokens for upstreams.
    pub broker: Broker,
    /// Who is told what happens to approvals.
    pub sinks: Sinks,
    /// What left a bundle, and does not come back with a file.
    pub retirement: Retirement,
    /// Reads the watched files.
    pub reloader: Reloader,
    /// Decisions that wait for candidate bundles.
    pub(crate) rehearsals: Queue,
    /// What `/metrics` asks for, if it asks for anything.
    pub metrics_bearer: Option<Zeroizing<String>>,
    /// Set once the process has begun to stop.
    pub stopping: AtomicBool,
}

/// What an application is put together from; the rest starts empty.
#[derive(Debug)]
pub struct Parts {
    /// See [`App::config`].
    pub config: Arc<Config>,
    /// See [`App::clock`].
    pub clock: Clock,
    /// See [`App::reloader`].
    pub reloader: Reloader,
    /// See [`App::keyring`].
    pub keyring: Keyring,
    /// See [`App::state`].
    pub state: State,
    /// See [`App::fleet`].
    pub fleet: Option<Arc<Fleet>>,
    /// See [`App::ledger`].
    pub ledger: Ledger,
    /// See [`App::ledger_key`].
    pub ledger_key: PublicKey,
    /// See [`App::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`App::metrics_bearer`].
    pub metrics_bearer: Option<Zeroizing<String>>,
    /// See [`App::egress`].
    pub egress: Arc<Egress>,
    /// What the tokens of connections are sealed with.
    pub sealing: SealingKey,
}

/// Verified mandates kept in memory; each is about 2 KiB.
const CACHED_MANDATES: u64 = 100_000;

impl App {
    /// Puts the parts together and lets every narrowing of authority end the requests that stand on it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let state = Arc::new(parts.state);
        let budgets = Budgets::default();
        budgets.restore(state.take_stored_budgets(), parts.clock.now());
        let app = Self {
            claims: ClaimsCache::new(CACHED_MANDATES),
            failures: Failures::new(parts.config.limits.failed_verifications_per_minute),
            snapshot: parts.reloader.snapshot().clone(),
            in_flight: InFlight::default(),
            budgets,
            mints: Mints::new(parts.config.limits.mints_per_minute),
            live: Arc::new(Live::default()),
            outcomes: Arc::new(Outcomes::new(parts.clock.clone())),
            broker: Broker::new(
                parts.clock.clone(),
                Arc::clone(&parts.metrics),
                Arc::clone(&parts.egress),
                Arc::clone(&state),
                parts.sealing,
            ),
            rehearsals: Queue::new(Arc::clone(&parts.metrics)),
            targets: Targets::default(),
            health: Health::default(),
            secured: SecuredCache::default(),
            retirement: Retirement::new(state.take_stored_identities()),
            sinks: Sinks::new(&parts.config, Arc::clone(&parts.egress)),
            egress: parts.egress,
            stopping: AtomicBool::new(false),
            keyring: Arc::new(parts.keyring),
            state,
            fleet: parts.fleet,
            ledger: Arc::new(parts.ledger),
            config: parts.config,
            clock: parts.clock,
            reloader: parts.reloader,
            ledger_key: parts.ledger_key,
            metrics: parts.metrics,
            metrics_bearer: parts.metrics_bearer,
        };
        let live = Arc::clone(&app.live);
        app.state.on_narrow(Arc::new(move |narrowed| tell(narrowed, live.narrow(narrowed))));
        if let Some(fleet) = app.fleet.clone() {
            app.state.on_narrow(Arc::new(move |narrowed| fleet.narrowed(narrowed)));
        }
        app
    }

    /// The epoch mandates minted now carry.
    #[must_use]
    pub fn epoch(&self) -> String {
        match &self.fleet {
            None => self.state.epoch().to_owned(),
            Some(fleet) => fleet.epoch().to_string(),
        }
    }

    /// The zones in which an operator's version is in force instead of what the files say, sorted.
    #[must_use]
    pub fn pinned(&self) -> Vec<Arc<str>> {
        let snapshot = self.snapshot.load();
        let pinned = snapshot.zones.iter().filter(|(_, live)| live.pinned);
        let mut zones: Vec<Arc<str>> = pinned.map(|(id, _)| Arc::clone(id)).collect();
        zones.sort_unstable();
        zones
    }

    /// Whether this process may take traffic, and if not, why.
    ///
    /// # Errors
    /// The first failing reason, a stable word.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("stopping");
        }
        if !self.clock.healthy() {
            return Err("clock");
        }
        if !self.ledger.healthy() {
            return Err("ledger_unavailable");
        }
        if self.fleet.as_ref().is_some_and(|fleet| !fleet.connected()) {
            return Err("redis_unavailable");
        }
        let standing = self.reloader.standing();
        if !standing.bundles_rejected.is_empty() {
            return Err("bundle_rejected");
        }
        if standing.secrets_rejected { Err("secrets_rejected") } else { Ok(()) }
    }
}

/// Sessions end all the time, and the ledger has each end. The log is for what somebody may wonder about.
fn tell(narrowed: &Narrowed, cut: usize) {
    if cut > 0 {
        let (zone, reason, anchors) = (&*narrowed.zone, &*narrowed.reason, narrowed.anchors.len());
        tracing::info!(zone, reason, anchors, cut, "authority ended, and requests that stood on it");
    }
}

//! Puts a process together, runs it, and takes it down in order.

mod agreement;
mod background;
mod watchers;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caracal_plugins::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{App, Parts};
use crate::clock::Clock;
use crate::config::{Config, LedgerMode, Listener};
use crate::edge;
use crate::edge::health;
use crate::edge::slot::Cut;
use crate::egress::{Egress, Resolver, SystemResolver};
use crate::fleet::{self, Fleet, FleetError, Joined};
use crate::keyring::Keyring;
use crate::ledger::{Durability, Ledger, LedgerKey, LedgerOptions, PublicKey};
use crate::listen::{self, Bounds, ReloadingTls};
use crate::metrics::Metrics;
use crate::sealing::{Readers, SealingKey, SealingSources};
use crate::state::{State, StateError, StateLimits};
use crate::watch::Asker;
use crate::{authority, control, coordinator, operate, ops};

/// What `caracal serve` may be told beside its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeOptions {
    /// Go on with a store or ledger that was brought back from a backup: end everything it revived.
    pub accept_restored: bool,
}

/// What a program of your own brings along: plugins beside the stock ones, and in tests the time
/// and the names.
///
/// ```no_run
/// # use std::sync::Arc;
/// # fn make(_: &toml::Table) -> Result<Arc<dyn caracal_plugins::Plugin>, String> { Err(String::new()) }
/// # async fn f(config: caracal::config::Config) -> Result<(), Box<dyn std::error::Error>> {
/// let mut own = caracal::serve::Embedding::default();
/// own.registry.register("ticket", make)?;
/// caracal::serve::run_with(config, Default::default(), own).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    /// The plugins that bundles may name.
    pub registry: Registry,
    /// Time.
    pub clock: Clock,
    /// Where names are looked up.
    pub resolver: Arc<dyn Resolver>,
}

impl Default for Embedding {
    fn default() -> Self {
        Self { registry: Registry::stock(), clock: Clock::system(), resolver: Arc::new(SystemResolver) }
    }
}

/// Why a process did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What the operator wrote cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// Another process holds the state folder.
    #[error("another process is running on this state folder; stop it first")]
    Locked,
    /// Store and ledger disagree: one of them was brought back from a backup.
    #[error(
        "the store and the ledger do not belong together: {0}\n  start with --accept-restored to go on: it ends every session and delegation and rotates every key"
    )]
    Restored(String),
    /// Something else failed.
    #[error("{0}")]
    Start(String),
}

impl ServeError {
    /// The process's exit code: 64 configuration, 65 store and ledger disagree, 66 locked, 1 otherwise.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 64,
            Self::Restored(_) => 65,
            Self::Locked => 66,
            Self::Start(_) => 1,
        }
    }
}

/// The sockets of a process, bound before anything else happens.
#[derive(Debug)]
pub struct Sockets {
    /// Gateway.
    pub gateway: TcpListener,
    /// Token endpoint and keys.
    pub authority: TcpListener,
    /// Sessions and delegations.
    pub coordinator: TcpListener,
    /// Metrics, health, readiness.
    pub ops: TcpListener,
}

impl Sockets {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// [`ServeError::Start`] naming the address that cannot be had.
    pub fn bind(config: &Config) -> Result<Self, ServeError> {
        let bind = |listener: &Listener| {
            TcpListener::bind(listener.address)
                .map_err(|error| ServeError::Start(format!("cannot listen on {}: {error}", listener.address)))
        };
        let listeners = &config.listeners;
        Ok(Self {
            gateway: bind(&listeners.gateway)?,
            authority: bind(&listeners.authority)?,
            coordinator: bind(&listeners.coordinator)?,
            ops: bind(&listeners.ops)?,
        })
    }

    fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            gateway: self.gateway.local_addr()?,
            authority: self.authority.local_addr()?,
            coordinator: self.coordinator.local_addr()?,
            ops: self.ops.local_addr()?,
        })
    }
}

/// Where a running process listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Gateway.
    pub gateway: SocketAddr,
    /// Token endpoint and keys.
    pub authority: SocketAddr,
    /// Sessions and delegations.
    pub coordinator: SocketAddr,
    /// Metrics, health, readiness.
    pub ops: SocketAddr,
}

/// A running process.
#[derive(Debug)]
pub struct Running {
    /// The shared parts.
    pub app: Arc<App>,
    /// Where it listens.
    pub addresses: Addresses,
    /// Makes the process read its watched files now.
    pub asker: Asker,
    stop: watch::Sender<bool>,
    /// Ends the ops listener, which says how a stop goes for as long as it lasts.
    silence: watch::Sender<bool>,
    listeners: JoinSet<()>,
    background: JoinSet<()>,
}

/// Runs a process in the foreground until a signal ends it.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(config: Config, options: ServeOptions) -> Result<(), ServeError> {
    run_with(config, options, Embedding::default()).await
}

/// As [`run`], with plugins of your own.
///
/// # Errors
/// See [`ServeError`].
pub async fn run_with(config: Config, options: ServeOptions, own: Embedding) -> Result<(), ServeError> {
    let sockets = Sockets::bind(&config)?;
    let running = start_with(config, sockets, options, own).await?;
    announce(&running);
    let mut signals = background::Signals::new().map_err(start_error)?;
    signals.first(&running.asker).await;
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        stopped = running.stop() => stopped,
        () = signals.second() => Err(ServeError::Start("stopped at once by a second signal".into())),
    }
}

/// Starts a process on bound sockets; it is ready when this returns.
///
/// # Errors
/// See [`ServeError`].
pub async fn start(config: Config, sockets: Sockets, options: ServeOptions) -> Result<Running, ServeError> {
    start_with(config, sockets, options, Embedding::default()).await
}

/// As [`start`], with plugins and a clock of your own.
///
/// # Errors
/// See [`ServeError`].
pub async fn start_with(
    config: Config,
    sockets: Sockets,
    options: ServeOptions,
    own: Embedding,
) -> Result<Running, ServeError> {
    let addresses = sockets.addresses().map_err(start_error)?;
    let (app, mut joined) = assemble(config, options, own).await?;
    let app = Arc::new(app);
    app.sinks.begin(&app).await.map_err(state_error)?;
    if let (Some(fleet), Some(joined)) = (&app.fleet, &mut joined) {
        joined.catch_up(fleet, &app.state).await.map_err(fleet_error)?;
    }
    app.retirement.settle(&app).await.map_err(state_error)?;
    app.retirement.tell(&app);
    let (stop, stopped) = watch::channel(false);
    let (silence, silenced) = watch::channel(false);
    let mut listeners = JoinSet::new();
    let mut background = JoinSet::new();
    let tls = watchers::Certificates::open(&app.config)?;
    let (gateway, edge_app, edge_stop) = (sockets.gateway, Arc::clone(&app), stopped.clone());
    let gateway_tls = tls.gateway.clone();
    listeners.spawn(async move {
        if let Err(error) = edge::listener::serve(edge_app, gateway, gateway_tls, edge_stop).await {
            tracing::error!(%error, "the gateway listener failed");
        }
    });
    let services = [
        ("authority", sockets.authority, tls.authority.clone(), authority::router(Arc::clone(&app))),
        ("coordinator", sockets.coordinator, tls.coordinator.clone(), coordinator::router(Arc::clone(&app))),
    ];
    for (name, socket, tls, router) in services {
        let bounds = Bounds::of(&app.config);
        spawn_axum(&mut listeners, name, (socket, tls, router), bounds, stopped.clone())?;
    }
    // While requests finish, they are still marked, and ended by what other nodes say.
    let fleet_stop = silenced.clone();
    let ops = (sockets.ops, tls.ops.clone(), ops::router(Arc::clone(&app)));
    spawn_axum(&mut background, "ops", ops, Bounds::of(&app.config), silenced)?;
    let watch = watchers::watch(&app.config);
    let socket = control::socket_path(&app.config.state_dir);
    let handler = Arc::new(operate::Operate::new(Arc::clone(&app), addresses));
    let control_stop = stopped.clone();
    let control = control::ControlSocket::bind(&socket).map_err(start_error)?;
    background.spawn(async move { control.serve(handler, control_stop).await });
    let asker = watch.asker();
    watchers::spawn(&mut background, &app, watch, tls, &stopped);
    background::spawn(&mut background, &app, &stopped);
    app.sinks.spawn(&mut background, &app, &stopped);
    background.spawn(health::run(Arc::clone(&app), stopped.clone()));
    if let (Some(fleet), Some(joined)) = (app.fleet.clone(), joined) {
        background.spawn(fleet::run(fleet, Arc::clone(&app.state), joined, fleet_stop));
    }
    Ok(Running { app, addresses, asker, stop, silence, listeners, background })
}

impl Running {
    /// Stops in order: no new work, requests finish or are cut at the deadline, marks saved, ledger closed.
    ///
    /// # Errors
    /// [`ServeError::Start`] when state or ledger could not be closed cleanly; nothing acknowledged is lost.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        let app = Arc::clone(&self.app);
        app.stopping.store(true, Ordering::Release);
        self.stop.send_replace(true);
        self.drain().await;
        if let Some(fleet) = &app.fleet {
            fleet.told().await;
        }
        self.silence.send_replace(true);
        self.listeners.shutdown().await;
        self.background.shutdown().await;
        app.ledger.close().await.map_err(start_error)?;
        app.state.store_heads(&app.ledger.heads()).await.map_err(start_error)?;
        background::keep_budgets(&app).await.map_err(start_error)?;
        app.state.close().await.map_err(start_error)
    }

    /// Lets requests finish until the deadline, then ends them.
    async fn drain(&mut self) {
        let (listeners, live) = (&mut self.listeners, &self.app.live);
        let finished = async {
            while listeners.join_next().await.is_some() {}
            live.empty().await;
        };
        if tokio::time::timeout(self.app.config.shutdown_deadline, finished).await.is_err() {
            let cut = live.cut_where(Cut::Stopping, |_| true);
            tracing::warn!(cut, "requests were cut at the stop deadline");
            live.empty().await;
        }
    }
}

async fn assemble(
    config: Config,
    options: ServeOptions,
    own: Embedding,
) -> Result<(App, Option<Joined>), ServeError> {
    let Embedding { registry, clock, resolver } = own;
    let config = Arc::new(config);
    let shared = fleet::shared_store(&config).map_err(fleet_error)?;
    let state = State::open_with(&config.state_dir, shared, clock.clone(), state_limits(&config));
    let state = state.await.map_err(state_error)?;
    let sealing = sealing_key(&config)?;
    let keyring = open_keyring(&config, &sealing, &clock)?;
    let (ledger, ledger_key) = open_ledger(&config, &clock)?;
    agreement::agree(&state, &ledger, &keyring, &clock, options).await?;
    let metrics = Arc::new(Metrics::new().map_err(start_error)?);
    let reloader = watchers::load(Arc::clone(&config), registry, Arc::clone(&metrics), clock.clone()).await?;
    let metrics_bearer = watchers::bearer(config.metrics_bearer_file.as_deref())?;
    let fleet = Fleet::join(&config, clock.clone(), Arc::clone(&metrics)).await.map_err(fleet_error)?;
    let (fleet, joined) = fleet.unzip();
    let parts = Parts {
        egress: Arc::new(Egress::new(&config, resolver).map_err(ServeError::Configuration)?),
        config,
        clock,
        reloader,
        keyring,
        state,
        fleet,
        ledger,
        ledger_key,
        metrics,
        metrics_bearer,
        sealing,
    };
    Ok((App::new(parts), joined))
}

fn state_limits(config: &Config) -> StateLimits {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = &config.limits;
    StateLimits {
        sessions_per_zone: count(limits.sessions_per_zone),
        sessions_per_application: count(limits.sessions_per_application),
        children_per_session: count(limits.session_children),
        depth: limits.session_depth,
        marks: limits.max_marks,
        // No application takes more than a quarter, so that one in a loop leaves the others theirs.
        marks_per_application: limits.max_marks / 4,
        cut_ahead_ms: if config.fleet.is_some() { fleet::CLOCKS_APART_MS } else { 0 },
        ..StateLimits::default()
    }
}

fn sealing_key(config: &Config) -> Result<SealingKey, ServeError> {
    let readers = if config.secrets.mounted { Readers::OwnGroups } else { Readers::OwnerOnly };
    let sources =
        SealingSources::from_environment(config.sealing_key.clone(), readers, config.state_dir.clone());
    let sealing = SealingKey::load_or_create(&sources).map_err(configuration_error)?;
    if let Some(warning) = sealing.origin.warning() {
        tracing::warn!("{warning}");
    }
    Ok(sealing.key)
}

fn open_keyring(config: &Config, sealing: &SealingKey, clock: &Clock) -> Result<Keyring, ServeError> {
    let zones: Vec<String> = config.zones.keys().cloned().collect();
    Keyring::open(&config.state_dir.join("keys/zones"), sealing, &zones, clock.now())
        .map_err(configuration_error)
}

fn open_ledger(config: &Config, clock: &Clock) -> Result<(Ledger, PublicKey), ServeError> {
    let key = LedgerKey::open(&config.state_dir.join("keys/ledger")).map_err(start_error)?;
    let options = LedgerOptions {
        durability: match config.ledger.mode {
            LedgerMode::Buffered => Durability::Buffered,
            LedgerMode::Strict => Durability::Strict,
        },
        queue: config.ledger.queue,
        checkpoint_every: u32::try_from(config.ledger.checkpoint_every).unwrap_or(u32::MAX),
        ..LedgerOptions::default()
    };
    let public = key.public();
    let ledger = Ledger::open(&config.state_dir.join("ledger"), options, key, clock.clone());
    ledger.map(|ledger| (ledger, public)).map_err(start_error)
}

fn spawn_axum(
    listeners: &mut JoinSet<()>,
    name: &'static str,
    (socket, tls, router): (TcpListener, Option<Arc<ReloadingTls>>, axum::Router),
    bounds: Bounds,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    socket.set_nonblocking(true).map_err(start_error)?;
    let socket = tokio::net::TcpListener::from_std(socket).map_err(start_error)?;
    listeners.spawn(async move {
        if let Err(error) = listen::serve(bounds, socket, tls, router, stop).await {
            tracing::error!(%error, listener = name, "a listener failed");
        }
    });
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the ready line is for whoever started the process in a terminal")]
fn announce(running: &Running) {
    let at = &running.addresses;
    eprintln!(
        "caracal: ready: gateway {} authority {} coordinator {} ops {}",
        at.gateway, at.authority, at.coordinator, at.ops
    );
}

fn start_error(error: impl std::fmt::Display) -> ServeError {
    ServeError::Start(error.to_string())
}

fn fleet_error(error: FleetError) -> ServeError {
    match error {
        FleetError::File { .. } | FleetError::Evicts(_) => configuration_error(error),
        FleetError::Redis(_) | FleetError::Answer(_) => start_error(error),
    }
}

fn configuration_error(error: impl std::fmt::Display) -> ServeError {
    ServeError::Configuration(error.to_string())
}

fn state_error(error: StateError) -> ServeError {
    if matches!(error, StateError::Locked(_)) {
        return ServeError::Locked;
    }
    // Of a database only the cause says what to do: a password, an address, a missing right.
    match std::error::Error::source(&error) {
        Some(cause) => start_error(format_args!("{error}: {cause}")),
        None => start_error(error),
    }
}

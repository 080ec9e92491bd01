//! Files that change while the process runs: bundles, secrets, certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_plugins::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::ServeError;
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, Listener};
use crate::listen::ReloadingTls;
use crate::metrics::Metrics;
use crate::reload::{LogObserver, ReloadEvent, ReloadObserver, Reloader, StartError};
use crate::watch::{Targets, Watch};

/// Reads bundles and secrets for the first time.
pub(super) async fn load(
    config: Arc<Config>,
    registry: Registry,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<Reloader, ServeError> {
    let registry = Arc::new(registry);
    let observer = Arc::new(Observer { metrics });
    let load = move || Reloader::load_initial(config, registry, observer, clock);
    match tokio::task::spawn_blocking(load).await {
        Ok(Ok(reloader)) => Ok(reloader),
        Ok(Err(StartError::Refused(report))) => Err(ServeError::Configuration(report.to_string())),
        Ok(Err(other)) => Err(ServeError::Start(other.to_string())),
        Err(error) => Err(ServeError::Start(error.to_string())),
    }
}

/// The bearer token of `/metrics`.
pub(super) fn bearer(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, ServeError> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        ServeError::Configuration(format!("cannot read the metrics bearer `{}`: {error}", file.display()))
    })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(ServeError::Configuration(format!("the metrics bearer `{}` is empty", file.display())));
    }
    Ok(Some(Zeroizing::new(token.to_owned())))
}

/// The certificates of the listeners that speak TLS.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub gateway: Option<Arc<ReloadingTls>>,
    pub authority: Option<Arc<ReloadingTls>>,
    pub coordinator: Option<Arc<ReloadingTls>>,
    pub ops: Option<Arc<ReloadingTls>>,
}

impl Certificates {
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        let open = |listener: &Listener| {
            let Some(files) = &listener.tls else { return Ok(None) };
            ReloadingTls::open(&files.cert, &files.key)
                .map(Some)
                .map_err(|problem| ServeError::Configuration(problem.to_string()))
        };
        let listeners = &config.listeners;
        Ok(Self {
            gateway: open(&listeners.gateway)?,
            authority: open(&listeners.authority)?,
            coordinator: open(&listeners.coordinator)?,
            ops: open(&listeners.ops)?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReloadingTls>> {
        [&self.gateway, &self.authority, &self.coordinator, &self.ops].into_iter().flatten()
    }
}

/// Watches bundles and secrets.
pub(super) fn watch(config: &Config) -> Watch {
    Watch::start(Targets::of(config), config.watch.poll)
}

/// Starts following the files.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    app: &Arc<App>,
    watch: Watch,
    tls: Certificates,
    stop: &watch::Receiver<bool>,
) {
    let (reloader, stopped) = (app.reloader.clone(), stop.clone());
    tasks.spawn(async move { reloader.follow(watch, stopped).await });
    let files =
        tls.all().flat_map(|tls| [tls.cert_path(), tls.key_path()]).map(PathBuf::from).collect::<Vec<_>>();
    if files.is_empty() {
        return;
    }
    let targets = Targets { files, folders: Vec::new() };
    let mut watch = Watch::start(targets, app.config.watch.poll);
    let mut stopped = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                trigger = watch.changed() => if trigger.is_none() { return },
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            for pair in tls.all() {
                match pair.reload() {
                    Ok(true) => tracing::info!(file = pair.cert_path(), "a new certificate is in use"),
                    Ok(false) => {}
                    Err(problem) => {
                        tracing::error!(%problem, "certificate refused, the last good one stays in use");
                    }
                }
            }
        }
    });
}

/// Tells log and metrics what reloads did.
struct Observer {
    metrics: Arc<Metrics>,
}

impl ReloadObserver for Observer {
    fn observe(&self, event: &ReloadEvent<'_>) {
        LogObserver.observe(event);
        let count = |what: &str, zone: &str, result: &str| {
            self.metrics.reloads.with_label_values(&[what, zone, result]).inc();
        };
        let newer = |what: &str, newer: bool| {
            self.metrics.files_newer.with_label_values(&[what]).set(newer.into());
        };
        match event {
            ReloadEvent::ZoneAccepted { zone, .. } => {
                count("bundle", zone, "accepted");
                newer(zone, false);
            }
            ReloadEvent::ZoneRejected { zone, .. } => {
                count("bundle", zone, "rejected");
                newer(zone, true);
            }
            ReloadEvent::ZoneStandsIn { zone, .. } | ReloadEvent::ZonePinned { zone, .. } => {
                newer(zone, true)
            }
            ReloadEvent::CandidateRehearsed { zone, .. } => count("candidate", zone, "accepted"),
            ReloadEvent::CandidateRefused { zone, .. } => count("candidate", zone, "rejected"),
            ReloadEvent::ZonePinEnded { .. }
            | ReloadEvent::ZonePinLost { .. }
            | ReloadEvent::CandidateGone { .. } => {}
            ReloadEvent::SecretsAccepted { .. } => {
                count("secrets", "", "accepted");
                newer("_secrets", false);
            }
            ReloadEvent::SecretsRejected { .. } => {
                count("secrets", "", "rejected");
                newer("_secrets", true);
            }
            ReloadEvent::Took { in_force, whole } => {
                for (until, took) in [("in_force", in_force), ("over", whole)] {
                    self.metrics.reload_seconds.with_label_values(&[until]).observe(took.as_secs_f64());
                }
            }
            ReloadEvent::Swapped { snapshot } => {
                self.metrics.generation.set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
                self.metrics.bundle_info.reset();
                for live in snapshot.zones.values() {
                    let digest = live.zone.digest().to_string();
                    self.metrics.bundle_info.with_label_values(&[&**live.zone.id(), &digest]).set(1);
                    self.metrics
                        .bundle_pinned
                        .with_label_values(&[&**live.zone.id()])
                        .set(live.pinned.into());
                }
            }
        }
    }
}

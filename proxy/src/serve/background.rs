//! What a process does between requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::authority::approvals;
use crate::metrics::NO_LABELS;
use crate::state::StateError;
use crate::watch::Asker;

/// How often requests that outlived their authority, or that a changed policy denies, are looked for.
const EXPIRE_EVERY: Duration = Duration::from_millis(250);
/// How often sessions, delegations and records that ended by themselves are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often keys move on and the ledger's heads are written into the store.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// How often it is looked whether another bundle came into force, and whom it does not know any more.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// How often what was used of budgets is written into the store: so much a crash may forget.
const SPENT_EVERY: Duration = Duration::from_secs(1);

/// Starts the periodic work.
pub(super) fn spawn(tasks: &mut JoinSet<()>, app: &Arc<App>, stop: &watch::Receiver<bool>) {
    tasks.spawn(every(EXPIRE_EVERY, stop.clone(), Arc::clone(app), |app| async move {
        let now = app.clock.now();
        app.live.expire(now);
        // As the row says that another node of a fleet wrote; what is ended here cuts at once.
        app.live.disconnect(&app.state);
        let denied = app.live.decide_again(&app.snapshot.load(), now);
        if denied > 0 {
            tracing::info!(denied, "requests under way were cut: the policy that changed denies them");
        }
        app.metrics.clock_healthy.set(app.clock.healthy().into());
        app.metrics.ledger_healthy.set(app.ledger.healthy().into());
        if let Some(fleet) = &app.fleet {
            let lag = Duration::from_millis(fleet.lag_ms());
            app.metrics.stream_lag_seconds.with_label_values(&NO_LABELS).set(lag.as_secs_f64());
            if app.state.in_fleet() {
                app.metrics.store_up.with_label_values(&NO_LABELS).set(app.state.store_up().into());
            }
        }
    }));
    tasks.spawn(every(SPENT_EVERY, stop.clone(), Arc::clone(app), |app| async move {
        if let Err(error) = keep_budgets(&app).await {
            tracing::error!(%error, "what was used of budgets could not be stored");
        }
    }));
    tasks.spawn(every(SETTLE_EVERY, stop.clone(), Arc::clone(app), |app| async move {
        if let Err(error) = app.retirement.settle(&app).await {
            tracing::error!(%error, "what left a bundle could not be stored as gone; it is tried again");
        }
    }));
    let (rehearsing, stopped) = (Arc::clone(app), stop.clone());
    tasks.spawn(async move { rehearsing.rehearsals.run(stopped).await });
    tasks.spawn(every(SWEEP_EVERY, stop.clone(), Arc::clone(app), |app| async move {
        app.mints.sweep(app.clock.now());
        app.outcomes.sweep();
        approvals::lapse(&app).await;
        app.retirement.tell(&app);
        if let Err(error) = app.state.sweep(app.clock.now()).await {
            tracing::error!(%error, "the sweep of ended sessions failed; it is tried again");
        }
    }));
    tasks.spawn(every(KEEP_EVERY, stop.clone(), Arc::clone(app), |app| async move {
        let (keyring, now) = (Arc::clone(&app.keyring), app.clock.now());
        match tokio::task::spawn_blocking(move || keyring.tick(now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a key could not move on; it is tried again"),
            Err(error) => tracing::error!(%error, "the key task failed"),
        }
        if let Err(error) = app.state.store_heads(&app.ledger.heads()).await {
            tracing::error!(%error, "the ledger's heads could not be stored; it is tried again");
        }
    }));
}

/// Stores what was used of budgets; a fleet has it in Redis.
pub(super) async fn keep_budgets(app: &App) -> Result<(), StateError> {
    let now = app.clock.now();
    let ended = app.budgets.sweep(now, |zone, subject| app.state.may_still_spend(zone, subject, now));
    app.metrics.budget_accounts.set(i64::try_from(app.budgets.len()).unwrap_or(i64::MAX));
    let changed = app.budgets.changed(now);
    if app.fleet.is_some() || (changed.is_empty() && ended.is_empty()) {
        return Ok(());
    }
    let stored = app.state.store_budgets(changed.clone(), ended, now).await;
    if stored.is_err() {
        app.budgets.owe(&changed);
    }
    stored
}

async fn every<F>(
    period: Duration,
    mut stop: watch::Receiver<bool>,
    app: Arc<App>,
    work: impl Fn(Arc<App>) -> F,
) where
    F: Future<Output = ()>,
{
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => work(Arc::clone(&app)).await,
            stopped = stop.changed() => {
                if stopped.is_err() || *stop.borrow() {
                    return;
                }
            }
        }
    }
}

/// The signals a foreground process obeys.
pub(super) struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Installs the handlers.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the signal that begins the stop; SIGHUP reads the watched files again.
    pub(super) async fn first(&mut self, asker: &Asker) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => asker.ask(),
            }
        }
    }

    /// Waits for the signal that ends the stop.
    pub(super) async fn second(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

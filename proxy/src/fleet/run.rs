//! Keeps the link: looks after it while it works, makes another when it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::follow::{Cursor, catch_up, follow};
use super::link::{Commands, Link};
use super::{Fleet, FleetError, Joined, announce, fresh_epoch};
use crate::metrics::NO_LABELS;
use crate::state::State;

/// How often the server is looked at while nothing fails.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pauses between two attempts to get a link.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Joined {
    /// Takes over what had ended before; until then the node must not serve.
    pub(crate) async fn catch_up(&mut self, fleet: &Fleet, state: &State) -> Result<(), FleetError> {
        catch_up(fleet, state, &mut self.link.streams, &mut self.cursor).await?;
        fleet.open(&self.link);
        Ok(())
    }
}

/// Runs a node's part in the fleet until the process stops.
pub(crate) async fn run(
    fleet: Arc<Fleet>,
    state: Arc<State>,
    joined: Joined,
    mut stop: watch::Receiver<bool>,
) {
    let Joined { link, cursor, mut outbox } = joined;
    tokio::select! {
        () = keep(&fleet, &state, link, cursor) => {}
        () = announce::announce(&fleet, &state, &mut outbox) => {}
        _ = stop.wait_for(|stopped| *stopped) => {}
    }
}

async fn keep(fleet: &Fleet, state: &State, mut link: Link, mut cursor: Option<Cursor>) {
    loop {
        let failure = until_it_fails(fleet, state, &mut link, &mut cursor).await;
        fleet.close(&failure);
        link = another(fleet, state, &mut cursor).await;
        fleet.open(&link);
        tracing::info!("Redis is back");
    }
}

async fn until_it_fails(
    fleet: &Fleet,
    state: &State,
    link: &mut Link,
    cursor: &mut Option<Cursor>,
) -> FleetError {
    let commands = link.commands.clone();
    tokio::select! {
        failure = follow(fleet, state, &mut link.streams, cursor) => failure,
        failure = look(fleet, commands) => failure,
        () = fleet.failed.notified() => FleetError::Answer("none to a command"),
    }
}

/// Looks at the server from time to time; ends with what is wrong with it.
async fn look(fleet: &Fleet, mut commands: Commands) -> FleetError {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let looked = async {
            fleet.note(&commands.epoch(&fresh_epoch()).await?);
            commands.keeps_everything().await
        };
        if let Err(error) = looked.await {
            return error;
        }
    }
}

/// A link that is up to date, however long it takes.
async fn another(fleet: &Fleet, state: &State, cursor: &mut Option<Cursor>) -> Link {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let attempt = async {
            let mut link = fleet.dialler.connect().await?;
            fleet.note(&link.commands.epoch(&fresh_epoch()).await?);
            let mut reached = cursor.clone();
            catch_up(fleet, state, &mut link.streams, &mut reached).await?;
            *cursor = reached;
            Ok::<Link, FleetError>(link)
        };
        match attempt.await {
            Ok(link) => return link,
            Err(error) => {
                if pause >= LONGEST_PAUSE {
                    tracing::warn!(%error, "Redis is still away");
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Fleet {
    /// Lets marks be made over a link and owes the fleet what ended while there was none.
    fn open(&self, link: &Link) {
        // A complaint about the last link says nothing about this one.
        if self.failed.notified().now_or_never().is_some() {
            tracing::debug!("passed over a complaint about the last link");
        }
        self.commands.store(Some(Arc::new(link.commands.clone())));
        self.owing.store(true, Ordering::Release);
        self.metrics.redis_up.with_label_values(&NO_LABELS).set(1);
        self.wake_announcer.notify_one();
    }

    fn close(&self, failure: &FleetError) {
        self.commands.store(None);
        self.metrics.redis_up.with_label_values(&NO_LABELS).set(0);
        tracing::error!(error = %failure, "Redis is away: single-use mandates are refused until it is back");
    }
}

//! Notification sinks: the operator's webhooks, which are told what happens to approvals (spec 6.7).
//!
//! The ledger is the outbox. Every step of an approval is a record there, and each sink has a cursor: the number of the
//! record up to which everything is settled. It is stored after each attempt, and a sink goes on from it after a stop
//! or a crash. So nothing that the ledger has is lost, order is kept, and an event may come twice, under one delivery
//! id. Only durable records are looked at: a cursor is never ahead of the ledger.
//!
//! In a fleet each node delivers the events of its own ledger.

mod deliver;
mod message;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
use crate::config::{Config, SinkConfig};
use crate::egress::{Egress, Reach};
use crate::ledger::LedgerError;
use crate::ledger::scan::{Found, Scan};
use crate::outbound::Http;
use crate::state::{StateError, StoredCursor};

/// One attempt, from the name to the status. Source: spec 6.7.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most events that are looked ahead, and counted as waiting.
const AHEAD: usize = 1_000;

/// Every sink of this process.
#[derive(Debug)]
pub struct Sinks {
    all: Vec<Arc<Sink>>,
    http: Http,
}

#[derive(Debug)]
struct Sink {
    config: SinkConfig,
    progress: Mutex<Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    cursor: Cursor,
    /// Unix milliseconds before which nothing is tried again.
    next_at: i64,
}

/// How far a sink has come, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// Everything up to the record with this number is settled.
    seq: u64,
    /// Failed attempts of the event after it.
    attempts: u32,
    /// Events that were delivered.
    delivered: u64,
    /// Unix milliseconds of the last delivery.
    delivered_at: Option<i64>,
    /// Events that were given up, or became too old.
    given_up: u64,
    /// The last failure.
    failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    /// Unix milliseconds.
    at: i64,
    /// Words for the operator.
    why: String,
}

/// A sink as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct SinkView {
    zone: String,
    sink: String,
    host: String,
    events: Vec<String>,
    /// Everything up to this record of the zone's chain is settled.
    cursor: u64,
    /// Events that are not settled; `more` when there are more than were counted.
    waiting: usize,
    more: bool,
    failed_attempts: u32,
    next_attempt_in_seconds: Option<i64>,
    delivered: u64,
    last_delivery: Option<String>,
    given_up: u64,
    last_failure: Option<String>,
    last_failure_at: Option<String>,
}

impl Sinks {
    /// The sinks that are configured. They begin with [`Sinks::begin`].
    #[must_use]
    pub fn new(config: &Config, egress: Arc<Egress>) -> Self {
        Self::within(config, egress, TIMEOUT)
    }

    fn within(config: &Config, egress: Arc<Egress>, timeout: Duration) -> Self {
        let sink =
            |config: &SinkConfig| Arc::new(Sink { config: config.clone(), progress: Mutex::default() });
        Self { all: config.sinks.iter().map(sink).collect(), http: Http::new(egress, Reach::Sink, timeout) }
    }

    /// Takes over how far each sink has come. A new one is told of what happens from now on; before this returns, that
    /// is stored. A sink that is not configured any more is forgotten.
    ///
    /// # Errors
    /// [`StateError`] when it could not be stored.
    pub async fn begin(&self, app: &App) -> Result<(), StateError> {
        let stored = app.state.take_stored_cursors().into_iter();
        let mut stored: HashMap<(String, String), String> =
            stored.map(|(zone, sink, body)| ((zone, sink), body)).collect();
        for sink in &self.all {
            let (zone, name) = (&sink.config.zone, &sink.config.name);
            let head = app.ledger.head(zone).map_or(0, |(seq, _)| seq);
            let known = stored.remove(&(zone.clone(), name.clone()));
            let known = known.and_then(|body| {
                let read = serde_json::from_str::<Cursor>(&body);
                read.inspect_err(|_bad| tracing::error!(zone, sink = name, "it is not known how far it came"))
                    .ok()
            });
            let mut cursor = known.unwrap_or_else(|| Cursor { seq: head, ..Cursor::default() });
            if cursor.seq > head {
                tracing::warn!(
                    zone,
                    sink = name,
                    "the ledger is older than the sink: it goes on from its end"
                );
                cursor.seq = head;
            }
            sink.progress.lock().cursor = cursor;
        }
        let now = self.all.iter().map(|sink| sink.row()).collect::<Vec<_>>();
        if now.is_empty() && stored.is_empty() {
            return Ok(());
        }
        app.state.store_cursors(now, stored.into_keys().collect()).await
    }

    /// Starts telling them.
    pub fn spawn(&self, tasks: &mut JoinSet<()>, app: &Arc<App>, stop: &watch::Receiver<bool>) {
        for sink in &self.all {
            tasks.spawn(work::run(Arc::clone(app), Arc::clone(sink), stop.clone()));
        }
    }

    /// Every sink of these zones. Reads the ledger; blocks.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn list(&self, app: &App, zones: &[Arc<str>]) -> Result<Vec<SinkView>, LedgerError> {
        let meant = |sink: &&Arc<Sink>| zones.iter().any(|zone| **zone == *sink.config.zone);
        self.all.iter().filter(meant).map(|sink| sink.view(app)).collect()
    }

    /// The zones in which there is a sink of this name.
    pub fn zones_of<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.all.iter().filter(move |sink| sink.config.name == name).map(|sink| &*sink.config.zone)
    }

    /// Sends a sink an event of type `step_up_test` now, once, past what waits; how that went, in words.
    ///
    /// # Errors
    /// Why it was not delivered, in words for the operator.
    pub async fn test(&self, app: &App, zone: &str, name: &str) -> Result<u16, String> {
        let named = |sink: &&Arc<Sink>| sink.config.zone == zone && sink.config.name == name;
        let sink = self.all.iter().find(named).ok_or("there is no such sink")?;
        deliver::deliver(app, sink, &message::Notice::test(zone, name, app.clock.now())).await
    }
}

impl Sink {
    /// Whether it is told of events of this type.
    fn wants(&self, event_type: &str) -> bool {
        self.config.events.is_empty() || self.config.events.iter().any(|wanted| wanted == event_type)
    }

    fn row(&self) -> StoredCursor {
        let body = serde_json::to_string(&self.progress.lock().cursor).unwrap_or_default();
        (self.config.zone.clone(), self.config.name.clone(), body)
    }

    fn scan(&self, app: &App) -> Result<Scan, LedgerError> {
        let seq = self.progress.lock().cursor.seq;
        Scan::after(app.ledger.dir(), &self.config.zone, seq, crate::config::SINK_EVENTS)
    }

    /// The next events it is told of, as far as the ledger is durable.
    fn ahead(&self, app: &App, scan: &mut Scan) -> Result<Vec<Found>, LedgerError> {
        let head = app.ledger.head(&self.config.zone).map_or(0, |(seq, _)| seq);
        let mut found = if head > scan.seq() { scan.up_to(head, AHEAD)? } else { Vec::new() };
        found.retain(|found| self.wants(&found.event_type));
        Ok(found)
    }

    fn view(&self, app: &App) -> Result<SinkView, LedgerError> {
        let mut scan = self.scan(app)?;
        let waiting = self.ahead(app, &mut scan)?.len();
        let more = app.ledger.head(&self.config.zone).is_some_and(|(seq, _)| seq > scan.seq());
        let Progress { cursor, next_at } = self.progress.lock().clone();
        let now = app.clock.now();
        let failing = cursor.attempts > 0;
        Ok(SinkView {
            zone: self.config.zone.clone(),
            sink: self.config.name.clone(),
            host: self.config.url.host().to_string(),
            events: self.config.events.clone(),
            cursor: cursor.seq,
            waiting,
            more,
            failed_attempts: cursor.attempts,
            next_attempt_in_seconds: failing.then(|| next_at.saturating_sub(now).max(0).div_euclid(1_000)),
            delivered: cursor.delivered,
            last_delivery: cursor.delivered_at.map(crate::state::iso),
            given_up: cursor.given_up,
            last_failure_at: cursor.failure.as_ref().map(|failure| crate::state::iso(failure.at)),
            last_failure: cursor.failure.map(|failure| failure.why),
        })
    }
}

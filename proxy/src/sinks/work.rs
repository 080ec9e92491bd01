//! Telling one sink event after event, from its cursor on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::message::Notice;
use super::{Failure, Sink, deliver};
use crate::app::App;
use crate::ledger::scan::{self, Found, Scan};
use crate::ledger::{LedgerError, Record};
use crate::state::parse_iso;

/// Attempts of one event. Source: spec 6.7, as everything here but the last two.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE_MS: i64 = 30_000;
const LONGEST_PAUSE_MS: i64 = 900_000;
/// How old an event may be that is still told.
const KEPT_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// How often it is looked whether a pause is over, and whether there is something new.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a cursor is stored that moved past what its sink is not told.
const STORE_EVERY_MS: i64 = 60_000;

/// Tells the sink until `stop` turns true. An attempt that is under way then is made again after the next start.
pub(super) async fn run(app: Arc<App>, sink: Arc<Sink>, mut stop: watch::Receiver<bool>) {
    let mut work = Work { app, sink, scan: None, ahead: VecDeque::new(), stored_at: 0 };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let work = async move {
        loop {
            looks.tick().await;
            while work.step().await {}
        }
    };
    tokio::select! {
        () = work => {}
        // An error is the end of the process too.
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

struct Work {
    app: Arc<App>,
    sink: Arc<Sink>,
    /// Nothing before the first look, and after a ledger that could not be read.
    scan: Option<Scan>,
    ahead: VecDeque<Found>,
    /// Unix milliseconds of the last time the cursor was stored.
    stored_at: i64,
}

impl Work {
    /// Does the next thing there is to do; whether there may be more to do at once.
    async fn step(&mut self) -> bool {
        if self.app.clock.now() < self.sink.progress.lock().next_at {
            return false;
        }
        let Some(next) = self.ahead.front().cloned() else { return self.look().await };
        match self.read(next.clone()).await {
            Ok(record) => {
                let settled = match record {
                    Some(record) => self.tell(record).await,
                    None => true,
                };
                if settled {
                    self.ahead.pop_front();
                    let mut progress = self.sink.progress.lock();
                    progress.cursor.seq = next.seq;
                    progress.cursor.attempts = 0;
                    progress.next_at = 0;
                }
                self.store().await;
                settled
            }
            Err(error) => self.unread(&error),
        }
    }

    /// Looks for what is new; whether there is something.
    async fn look(&mut self) -> bool {
        let (app, sink, scan) = (Arc::clone(&self.app), Arc::clone(&self.sink), self.scan.take());
        let looked = tokio::task::spawn_blocking(move || {
            let mut scan = scan.map_or_else(|| sink.scan(&app), Ok)?;
            let found = sink.ahead(&app, &mut scan)?;
            Ok((scan, found))
        });
        match looked.await {
            Ok(Ok((scan, found))) => {
                self.ahead = found.into();
                if self.ahead.is_empty() {
                    self.sink.progress.lock().cursor.seq = scan.seq();
                    if self.app.clock.now().saturating_sub(self.stored_at) >= STORE_EVERY_MS {
                        self.store().await;
                    }
                }
                self.scan = Some(scan);
                !self.ahead.is_empty()
            }
            Ok(Err(error)) => self.unread(&error),
            // The runtime is going away.
            Err(_gone) => false,
        }
    }

    async fn read(&self, found: Found) -> Result<Option<Record>, LedgerError> {
        let (dir, zone) = (self.app.ledger.dir().to_owned(), self.sink.config.zone.clone());
        let read = tokio::task::spawn_blocking(move || scan::record(&dir, &zone, &found));
        read.await.unwrap_or(Ok(None))
    }

    /// What cannot be read now may be later: the ledger's files can be on a disk that went away.
    fn unread(&mut self, error: &LedgerError) -> bool {
        let (zone, sink) = (&*self.sink.config.zone, &*self.sink.config.name);
        tracing::error!(zone, sink, %error, "the ledger cannot be read for a sink; it is tried again");
        (self.scan, self.ahead) = (None, VecDeque::new());
        self.sink.progress.lock().next_at = self.app.clock.now().saturating_add(FIRST_PAUSE_MS);
        false
    }

    /// Tries once to tell the sink; whether that is settled, one way or another.
    async fn tell(&self, record: Record) -> bool {
        let event = record.id.clone();
        let occurred = parse_iso(&record.occurred_at).unwrap_or(0);
        if self.app.clock.now().saturating_sub(occurred) > KEPT_MS {
            self.given_up("expired", &event, "it is older than 7 days");
            return true;
        }
        match deliver::deliver(&self.app, &self.sink, &Notice::of(record)).await {
            Ok(_status) => {
                self.count("delivered");
                let mut progress = self.sink.progress.lock();
                progress.cursor.delivered = progress.cursor.delivered.saturating_add(1);
                progress.cursor.delivered_at = Some(self.app.clock.now());
                true
            }
            Err(why) => self.failed(&event, &why),
        }
    }

    /// Notes a failed attempt; whether it was the last one.
    fn failed(&self, event: &str, why: &str) -> bool {
        let now = self.app.clock.now();
        let attempts = {
            let mut progress = self.sink.progress.lock();
            progress.cursor.attempts = progress.cursor.attempts.saturating_add(1);
            progress.cursor.failure = Some(Failure { at: now, why: why.to_owned() });
            progress.next_at = now.saturating_add(pause(progress.cursor.attempts));
            progress.cursor.attempts
        };
        if attempts >= ATTEMPTS {
            self.given_up("given_up", event, why);
            return true;
        }
        self.count("failed");
        let (zone, sink) = (&*self.sink.config.zone, &*self.sink.config.name);
        tracing::warn!(zone, sink, event, why, attempts, "an event was not delivered; it is tried again");
        false
    }

    fn given_up(&self, outcome: &str, event: &str, why: &str) {
        self.count(outcome);
        {
            let mut progress = self.sink.progress.lock();
            progress.cursor.given_up = progress.cursor.given_up.saturating_add(1);
        }
        let (zone, sink) = (&*self.sink.config.zone, &*self.sink.config.name);
        tracing::error!(zone, sink, event, why, "an event was given up: the sink was not told of it");
    }

    fn count(&self, outcome: &str) {
        let labels = [&*self.sink.config.zone, &*self.sink.config.name, outcome];
        self.app.metrics.deliveries.with_label_values(&labels).inc();
    }

    async fn store(&mut self) {
        self.stored_at = self.app.clock.now();
        if let Err(error) = self.app.state.store_cursors(vec![self.sink.row()], Vec::new()).await {
            let (zone, sink) = (&*self.sink.config.zone, &*self.sink.config.name);
            tracing::error!(zone, sink, %error, "how far a sink has come could not be stored");
        }
    }
}

/// Milliseconds after so many failed attempts.
pub(super) fn pause(attempts: u32) -> i64 {
    let doubled = attempts.saturating_sub(1).min(16);
    FIRST_PAUSE_MS.saturating_mul(1_i64 << doubled).min(LONGEST_PAUSE_MS)
}

//! Asking for a person's yes, answering, and using a yes up.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::again::Again;
use super::error::{CoordinatorError, StateError};
use super::holds::{Hold, HoldDecision, HoldState, HoldUse};
use super::model::AuthorityRecord;
use super::records::Keeping;
use super::store::Write;
use super::writer::Intent;
use super::{State, Zone};

/// Holds of one application that may wait for an answer at a time.
const MOST_PENDING: usize = 1_000;

impl State {
    /// The hold that stands for the same mint, or `asked` as a new one, visible when this returns. True with a new one.
    ///
    /// # Errors
    /// 429 `approval_limit_exceeded` when too many of the application's wait already; 503 when the commit fails.
    pub async fn hold(&self, asked: Hold) -> Result<(Arc<Hold>, bool), CoordinatorError> {
        let zone = self.zone(&asked.zone);
        let key = asked.key();
        let asked = Arc::new(asked);
        let mut again = Again::default();
        loop {
            let told = {
                let now = self.shared.clock.now();
                let mut desk = zone.desk.lock();
                if let Some(known) = desk.holds.standing(&key, now) {
                    return Ok((Arc::clone(known), false));
                }
                if desk.holds.pending(&asked.application, now) >= MOST_PENDING {
                    return Err(CoordinatorError::new(429, "approval_limit_exceeded"));
                }
                // Shown at once, so that a second request meets it: a hold gives nothing by itself.
                desk.holds.put(Arc::clone(&asked));
                let (tell, told) = oneshot::channel();
                let (zone, id) = (Arc::clone(&zone), Arc::clone(&asked.id));
                let done = move |outcome: Result<(), StateError>| {
                    if outcome.is_err() {
                        zone.desk.lock().holds.remove(&id);
                    }
                    drop(tell.send(outcome.map_err(CoordinatorError::from)));
                };
                let writes = vec![Write::Hold(Arc::clone(&asked))];
                self.shared.queue.send(writes, Intent::Widen, Box::new(done));
                told
            };
            let outcome = told.await.unwrap_or(Err(StateError::Closed.into()));
            if !again.should(&outcome) {
                return outcome.map(|()| (asked, true));
            }
        }
    }

    /// Answers a hold. A yes counts after its commit.
    ///
    /// # Errors
    /// 404 `approval_not_found`; 409 `approval_not_decidable` when it is answered, used or over; 503 when the commit
    /// fails: then it waits as before.
    pub async fn decide_hold(
        &self,
        zone: &str,
        id: &str,
        decision: &HoldDecision,
    ) -> Result<Arc<Hold>, CoordinatorError> {
        let refused = CoordinatorError::new(409, "approval_not_decidable");
        self.change_hold(zone, id, HoldState::Pending, &refused, |hold| {
            let row = Arc::new(Hold { decision: Some(decision.clone()), ..Hold::clone(hold) });
            (Arc::clone(&row), vec![Write::HoldDecided(row)])
        })
        .await
    }

    /// Uses a yes up for the request that this decision lets through.
    ///
    /// # Errors
    /// As [`State::use_hold`].
    pub async fn use_hold_for_request(
        &self,
        zone: &str,
        id: &str,
        decision: &str,
    ) -> Result<Arc<Hold>, CoordinatorError> {
        let refused = CoordinatorError::new(409, "approval_consumed");
        let at = self.shared.clock.now();
        self.change_hold(zone, id, HoldState::Approved, &refused, |hold| {
            let used = Some(HoldUse { at, record: decision.into() });
            let row = Arc::new(Hold { used, ..Hold::clone(hold) });
            (Arc::clone(&row), vec![Write::HoldUsed(row)])
        })
        .await
    }

    /// Notes that nobody answered a hold in time; whoever gets it back, and nobody else, writes that down.
    ///
    /// # Errors
    /// 409 `approval_not_decidable` when it was noted before or has an answer; 503 when the commit fails.
    pub async fn lapse_hold(&self, zone: &str, id: &str) -> Result<Arc<Hold>, CoordinatorError> {
        let refused = CoordinatorError::new(409, "approval_not_decidable");
        let now = self.shared.clock.now();
        if !self.find_hold(id).is_some_and(|hold| hold.lapses(now)) {
            return Err(refused);
        }
        self.change_hold(zone, id, HoldState::Expired, &refused, |hold| {
            let row = Arc::new(Hold { lapsed: Some(now), ..Hold::clone(hold) });
            (Arc::clone(&row), vec![Write::HoldLapsed(row)])
        })
        .await
    }

    /// Holds whose time is over without an answer, and nobody has written that down.
    #[must_use]
    pub fn lapsed_holds(&self) -> Vec<Arc<Hold>> {
        let now = self.shared.clock.now();
        let of = |zone: &Arc<Zone>| -> Vec<Arc<Hold>> {
            zone.desk.lock().holds.all().filter(|hold| hold.lapses(now)).cloned().collect()
        };
        self.all_zones().iter().flat_map(of).collect()
    }

    /// The newest hold for the same as `asked`, wherever it stands.
    #[must_use]
    pub fn latest_hold(&self, asked: &Hold) -> Option<Arc<Hold>> {
        let zone = self.known_zone(&asked.zone)?;
        zone.desk.lock().holds.latest(&asked.key()).cloned()
    }

    /// Uses a yes up and makes the record that stands on it, in one commit.
    ///
    /// # Errors
    /// 404 `approval_not_found`; 409 `approval_consumed` when it was used before or is no yes any more; 503 when the
    /// commit fails: then neither has happened.
    pub async fn use_hold(
        &self,
        zone: &str,
        id: &str,
        record: AuthorityRecord,
    ) -> Result<Arc<Hold>, CoordinatorError> {
        let refused = CoordinatorError::new(409, "approval_consumed");
        let at = self.shared.clock.now();
        let record = Arc::new(record);
        let used = self
            .change_hold(zone, id, HoldState::Approved, &refused, |hold| {
                let used = Some(HoldUse { at, record: Arc::clone(&record.id) });
                let row = Arc::new(Hold { used, ..Hold::clone(hold) });
                (Arc::clone(&row), vec![Write::HoldUsed(row), Write::Record(Arc::clone(&record))])
            })
            .await?;
        self.shared.records.put(AuthorityRecord::clone(&record), Keeping::Durable);
        Ok(used)
    }

    /// The hold with this id, in whichever zone.
    #[must_use]
    pub fn find_hold(&self, id: &str) -> Option<Arc<Hold>> {
        self.all_zones().iter().find_map(|zone| zone.desk.lock().holds.get(id).cloned())
    }

    /// Every hold of a zone that is remembered, newest first.
    #[must_use]
    pub fn list_holds(&self, zone: &str) -> Vec<Arc<Hold>> {
        let Some(zone) = self.known_zone(zone) else { return Vec::new() };
        let mut holds: Vec<Arc<Hold>> = zone.desk.lock().holds.all().cloned().collect();
        holds.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        holds
    }

    /// Returns when a hold was answered somewhere; look at the one you wait for before you ask and afterwards.
    pub fn hold_answered(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared.answered.notified()
    }

    async fn change_hold(
        &self,
        zone: &str,
        id: &str,
        from: HoldState,
        refused: &CoordinatorError,
        change: impl Fn(&Hold) -> (Arc<Hold>, Vec<Write>),
    ) -> Result<Arc<Hold>, CoordinatorError> {
        let lost = || CoordinatorError::new(404, "approval_not_found");
        let zone = self.known_zone(zone).ok_or_else(lost)?;
        let mut again = Again::default();
        loop {
            let told = {
                let mut desk = zone.desk.lock();
                let hold = desk.holds.get(id).cloned().ok_or_else(lost)?;
                // What is over is noted once.
                let noted = from == HoldState::Expired && hold.lapsed.is_some();
                if noted || hold.state(self.shared.clock.now()) != from || !desk.holds.reserve(&hold.id) {
                    return Err(refused.clone());
                }
                let (row, writes) = change(&hold);
                let (tell, told) = oneshot::channel();
                let (zone, shared) = (Arc::clone(&zone), Arc::clone(&self.shared));
                let done = move |outcome: Result<(), StateError>| {
                    drop(tell.send(zone.finish_hold(row, outcome)));
                    shared.answered.notify_waiters();
                };
                self.shared.queue.send(writes, Intent::Widen, Box::new(done));
                told
            };
            let outcome = told.await.unwrap_or(Err(StateError::Closed.into()));
            if !again.should(&outcome) {
                return outcome;
            }
        }
    }
}

impl Zone {
    /// Runs on the writer.
    fn finish_hold(
        &self,
        row: Arc<Hold>,
        outcome: Result<(), StateError>,
    ) -> Result<Arc<Hold>, CoordinatorError> {
        let mut desk = self.desk.lock();
        desk.holds.release(&row.id);
        outcome?;
        desk.holds.put(Arc::clone(&row));
        Ok(row)
    }
}

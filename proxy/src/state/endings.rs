//! Ending, suspending and resuming sessions.

use std::collections::HashSet;
use std::sync::Arc;

use super::again::Again;
use super::caller::Caller;
use super::error::{CoordinatorError, StateError};
use super::model::{Delegation, Lifecycle, Session, SessionStatus};
use super::shared::Narrowing;
use super::store::Write;
use super::writer::Intent;
use super::{State, Zone};

/// What an act ended, for the record of it.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Sessions that are over, the ones under them included.
    pub sessions: Vec<Arc<Session>>,
    /// Delegations that were taken back.
    pub delegations: Vec<Arc<Delegation>>,
    /// Authority records that were revoked, by id.
    pub records: Vec<Arc<str>>,
}

impl From<Narrowing> for Ended {
    fn from(narrowing: Narrowing) -> Self {
        Self { sessions: narrowing.ended, delegations: narrowing.closed, records: Vec::new() }
    }
}

impl State {
    /// Ends a session and its subtree. Whoever is not an administrator must show a service's lease generation.
    ///
    /// # Errors
    /// 404 `session_not_found` (also when it has ended), 403 `application_ownership_required`,
    /// 400 `lease_generation_required`, 409 `session_lease_fenced`, 503 when the commit fails: it is over then
    /// all the same.
    pub async fn end_session(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        lease_generation: Option<u64>,
        reason: &str,
    ) -> Result<Ended, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::session_not_found)?;
        let (ended, commit) = {
            let now = self.shared.clock.now();
            let mut desk = zone.desk.lock();
            let session = desk.sessions.get(id).filter(|session| !session.status.ended());
            let session = session.ok_or_else(CoordinatorError::session_not_found)?;
            may_manage(caller, session)?;
            if session.lifecycle == Lifecycle::Service && !caller.is_admin() {
                match lease_generation {
                    None => return Err(CoordinatorError::new(400, "lease_generation_required")),
                    Some(shown) if shown != session.lease_generation => {
                        return Err(CoordinatorError::new(409, "session_lease_fenced"));
                    }
                    Some(_) => {}
                }
            }
            let id = Arc::clone(&session.id);
            let mut narrowing = desk.end(&[id], SessionStatus::Terminated, reason, now);
            let commit = self.shared.narrow(&zone.name, reason, &mut narrowing);
            (Ended::from(narrowing), commit)
        };
        commit.done().await?;
        Ok(ended)
    }

    /// Suspends a session and everything active under it.
    ///
    /// # Errors
    /// 404 `session_not_found`, 403 `application_ownership_required`,
    /// 409 `session_not_found_or_not_active`, 503 when the commit fails.
    pub async fn suspend_session(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Vec<Arc<Session>>, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::session_not_found)?;
        let (suspended, commit) = {
            let mut desk = zone.desk.lock();
            desk.settle(self.shared.clock.now());
            let session = desk.sessions.get(id).ok_or_else(CoordinatorError::session_not_found)?;
            may_manage(caller, session)?;
            if session.status != SessionStatus::Active {
                return Err(CoordinatorError::new(409, "session_not_found_or_not_active"));
            }
            let mut narrowing = desk.suspend(id);
            let commit = self.shared.narrow(&zone.name, "suspended", &mut narrowing);
            (narrowing.suspended, commit)
        };
        commit.done().await?;
        Ok(suspended)
    }

    /// Resumes a session and everything suspended under it, down to the first session that is not. Services get
    /// a fresh deadline.
    ///
    /// # Errors
    /// 404 `session_not_found`, 403 `application_ownership_required` or `zone_frozen`,
    /// 409 `session_not_found_or_not_suspended`, 503 when the commit fails: then nothing is resumed.
    pub async fn resume_session(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Vec<Arc<Session>>, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::session_not_found)?;
        let mut again = Again::default();
        loop {
            let told = {
                let now = self.shared.clock.now();
                let mut desk = zone.desk.lock();
                desk.settle(now);
                desk.not_frozen()?;
                let session = desk.sessions.get(id).ok_or_else(CoordinatorError::session_not_found)?;
                may_manage(caller, session)?;
                if session.status != SessionStatus::Suspended {
                    return Err(CoordinatorError::new(409, "session_not_found_or_not_suspended"));
                }
                let deadline = now.saturating_add(self.shared.limits.lease_ms);
                let rows: Vec<_> =
                    desk.suspended_run(id).iter().map(|row| Arc::new(resumed(row, deadline))).collect();
                let writes = rows.iter().map(|row| Write::SessionResumed(Arc::clone(row))).collect();
                let (tell, told) = tokio::sync::oneshot::channel();
                let zone = Arc::clone(&zone);
                let publish = move |outcome: Result<(), StateError>| {
                    drop(tell.send(outcome.map(|()| zone.finish_resume(rows))));
                };
                self.shared.queue.send(writes, Intent::Widen, Box::new(publish));
                told
            };
            let outcome = told.await.unwrap_or(Err(StateError::Closed)).map_err(CoordinatorError::from);
            if !again.should(&outcome) {
                return outcome;
            }
        }
    }
}

impl Zone {
    /// Only rows that are still suspended come back: what ended meanwhile stays ended, here and in the store.
    fn finish_resume(&self, rows: Vec<Arc<Session>>) -> Vec<Arc<Session>> {
        let mut desk = self.desk.lock();
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            let current = desk.sessions.get(&row.id).cloned();
            let Some(current) = current.filter(|current| current.status == SessionStatus::Suspended) else {
                continue;
            };
            let row = Arc::new(Session {
                status: SessionStatus::Active,
                heartbeat_deadline_at: current.heartbeat_deadline_at.max(row.heartbeat_deadline_at),
                ..Session::clone(&current)
            });
            desk.schedule(&row);
            desk.show_session(Arc::clone(&row));
            shown.push(row);
        }
        shown
    }
}

impl super::desk::Desk {
    /// The session and what is suspended under it without a gap.
    fn suspended_run(&self, root: &str) -> Vec<Arc<Session>> {
        let mut reached = HashSet::new();
        let mut run = self.subtree(root);
        run.retain(|session| {
            let connected = *session.id == *root
                || session.parent.as_ref().is_some_and(|parent| reached.contains(parent));
            let resumes = connected && session.status == SessionStatus::Suspended;
            if resumes {
                reached.insert(Arc::clone(&session.id));
            }
            resumes
        });
        run
    }
}

pub(super) fn may_manage(caller: &Caller, session: &Session) -> Result<(), CoordinatorError> {
    if caller.may_manage(&session.application) { Ok(()) } else { Err(CoordinatorError::ownership()) }
}

fn resumed(row: &Session, deadline: i64) -> Session {
    let service = row.lifecycle == Lifecycle::Service;
    Session {
        status: SessionStatus::Active,
        heartbeat_deadline_at: service.then_some(deadline),
        ..row.clone()
    }
}

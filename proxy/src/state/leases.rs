//! Leases of services: take-over and heartbeat.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::again::Again;
use super::caller::Caller;
use super::desk::Desk;
use super::endings::may_manage;
use super::error::{CoordinatorError, StateError};
use super::model::{Lifecycle, RecordKind, Session, SessionStatus};
use super::store::Write;
use super::writer::{Commit, Intent};
use super::{State, Zone};

type Judged = Result<Arc<Session>, Refused>;

/// A refused lease operation, and the narrowing it set off, which is waited for.
struct Refused(CoordinatorError, Option<Commit>);

impl From<CoordinatorError> for Refused {
    fn from(refusal: CoordinatorError) -> Self {
        Self(refusal, None)
    }
}

impl State {
    /// Takes a service over: the lease generation rises and fences the former holder at once.
    ///
    /// # Errors
    /// In this order: 404 `session_not_found`, 403 `application_ownership_required`, 409 `session_not_service`,
    /// `session_suspended`, `session_not_live`, `session_subject_inactive`, `session_lease_expired`,
    /// 401 `authority_record_required`, `identity_revoked`; 503 when the commit fails.
    pub async fn lease_session(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<Session>, CoordinatorError> {
        self.renew(zone, id, caller, Renewal::Lease).await
    }

    /// Renews a service's lease. A suspended one may be renewed and stays suspended.
    ///
    /// # Errors
    /// In this order: 404 `session_not_found`, 403 `application_ownership_required`, 409 `session_not_live`,
    /// `session_not_service`, `session_subject_inactive`, `session_lease_fenced`, `session_lease_expired`,
    /// 401 `authority_record_required`, `identity_revoked`; 503 when the commit fails.
    pub async fn heartbeat_session(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        lease_generation: u64,
    ) -> Result<Arc<Session>, CoordinatorError> {
        self.renew(zone, id, caller, Renewal::Heartbeat { lease_generation }).await
    }

    async fn renew(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        renewal: Renewal,
    ) -> Result<Arc<Session>, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::session_not_found)?;
        let mut again = Again::default();
        loop {
            let begun = self.begin_renewal(&zone, id, caller, renewal);
            let outcome = match begun {
                Ok(told) => told.await.unwrap_or(Err(StateError::Closed.into())),
                Err(Refused(refusal, None)) => return Err(refusal),
                Err(Refused(refusal, Some(commit))) => {
                    commit.done().await?;
                    return Err(refusal);
                }
            };
            if !again.should(&outcome) {
                return outcome;
            }
        }
    }

    fn begin_renewal(
        &self,
        zone: &Arc<Zone>,
        id: &str,
        caller: &Caller,
        renewal: Renewal,
    ) -> Result<oneshot::Receiver<Result<Arc<Session>, CoordinatorError>>, Refused> {
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        let session = desk.judge_renewal(id, caller, renewal, now)?;
        let current = match renewal {
            Renewal::Heartbeat { .. } => session,
            // The old holder is fenced before the commit; the new deadline waits for it.
            Renewal::Lease => {
                let fenced = Arc::new(Session {
                    lease_generation: session.lease_generation.saturating_add(1),
                    ..Session::clone(&session)
                });
                desk.show_session(Arc::clone(&fenced));
                fenced
            }
        };
        let row = Arc::new(Session {
            last_heartbeat_at: Some(now),
            heartbeat_deadline_at: Some(now.saturating_add(self.shared.limits.lease_ms)),
            ..Session::clone(&current)
        });
        let writes = vec![Write::SessionLease(Arc::clone(&row))];
        let (tell, told) = oneshot::channel();
        let zone = Arc::clone(zone);
        let publish = move |outcome: Result<(), StateError>| {
            let renewed = outcome.map_err(CoordinatorError::from).and_then(|()| zone.finish_renewal(&row));
            drop(tell.send(renewed));
        };
        self.shared.queue.send(writes, Intent::Widen, Box::new(publish));
        Ok(told)
    }
}

#[derive(Clone, Copy, Debug)]
enum Renewal {
    Lease,
    Heartbeat { lease_generation: u64 },
}

impl Zone {
    /// Patches only the times: everything else may have changed while the commit was under way.
    fn finish_renewal(&self, renewed: &Session) -> Result<Arc<Session>, CoordinatorError> {
        let mut desk = self.desk.lock();
        let current = desk.sessions.get(&renewed.id).filter(|current| !current.status.ended());
        let current = current.ok_or_else(|| CoordinatorError::new(409, "session_not_live"))?;
        let mut row = Session::clone(current);
        row.last_heartbeat_at = row.last_heartbeat_at.max(renewed.last_heartbeat_at);
        row.heartbeat_deadline_at = row.heartbeat_deadline_at.max(renewed.heartbeat_deadline_at);
        desk.show_session(Arc::new(row.clone()));
        // The generation this very renewal got, even if another one has come since.
        row.lease_generation = renewed.lease_generation;
        Ok(Arc::new(row))
    }
}

impl Desk {
    fn judge_renewal(&mut self, id: &str, caller: &Caller, renewal: Renewal, now: i64) -> Judged {
        let session = self.sessions.get(id).cloned().ok_or_else(CoordinatorError::session_not_found)?;
        may_manage(caller, &session)?;
        let live = !session.status.ended();
        if matches!(renewal, Renewal::Heartbeat { .. }) && !live {
            return Err(CoordinatorError::new(409, "session_not_live").into());
        }
        if session.lifecycle != Lifecycle::Service {
            return Err(CoordinatorError::new(409, "session_not_service").into());
        }
        if matches!(renewal, Renewal::Lease) {
            if session.status == SessionStatus::Suspended {
                return Err(CoordinatorError::new(409, "session_suspended").into());
            }
            if !live {
                return Err(CoordinatorError::new(409, "session_not_live").into());
            }
        }
        if !self.shared.subject_stands(&session, now) {
            let reason = "subject_authority_inactive";
            let mut narrowing = self.end(&[Arc::clone(&session.id)], SessionStatus::Terminated, reason, now);
            let commit = self.shared.narrow(&self.zone, reason, &mut narrowing);
            return Err(Refused(CoordinatorError::new(409, "session_subject_inactive"), Some(commit)));
        }
        if let Renewal::Heartbeat { lease_generation } = renewal
            && lease_generation != session.lease_generation
        {
            return Err(CoordinatorError::new(409, "session_lease_fenced").into());
        }
        if !session.in_time(now) {
            let mut narrowing = self.suspend(id);
            let commit = self.shared.narrow(&self.zone, "service_heartbeat_lost", &mut narrowing);
            return Err(Refused(CoordinatorError::new(409, "session_lease_expired"), Some(commit)));
        }
        self.judge_holder(&session, caller, now)?;
        Ok(session)
    }

    /// A lease is held by an authority record of the owning application, not by an operator.
    fn judge_holder(&self, session: &Session, caller: &Caller, now: i64) -> Result<(), CoordinatorError> {
        let record =
            caller.record().ok_or_else(|| CoordinatorError::new(401, "authority_record_required"))?;
        let record = self.shared.live_record(&self.zone, record, now);
        let holds = record.is_some_and(|record| {
            record.kind == RecordKind::Application && record.application == session.application
        });
        if holds { Ok(()) } else { Err(CoordinatorError::new(401, "identity_revoked")) }
    }
}

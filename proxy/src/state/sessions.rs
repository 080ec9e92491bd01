//! Starting a session.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::again::Again;
use super::caller::Caller;
use super::desk::Desk;
use super::error::{CoordinatorError, StateError};
use super::model::{AuthorityRecord, DEFAULT_TASK_TTL_S, Delegation, Lifecycle, Session, SessionStatus};
use super::receipts::{self, IdempotencyKey, Known, Operation, Underway};
use super::shared::new_id;
use super::store::{ReceiptId, Write};
use super::writer::Intent;
use super::{State, Zone};

/// Whether a child starts with a copy of its parent's delegation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParentAuthority {
    /// A copy of the one live delegation the parent holds for the child's application, if it holds any.
    #[default]
    Inherit,
    /// Nothing.
    None,
}

/// A request to start a session; shapes are already checked.
#[derive(Clone, Debug)]
pub struct StartSession {
    /// Zone to start in.
    pub zone: Arc<str>,
    /// Who asks.
    pub caller: Caller,
    /// The application the session is of.
    pub application: Arc<str>,
    /// False when the zone has no such application: 404 `application_not_found`, in its place in the order.
    pub application_known: bool,
    /// The authority record the session acts for; the caller's own when none is named.
    pub subject_record: Option<Arc<str>>,
    /// The session to start under.
    pub parent: Option<Arc<str>>,
    /// Task or service.
    pub lifecycle: Lifecycle,
    /// At most 32 labels of 1 to 64 characters, trimmed.
    pub labels: Vec<Arc<str>>,
    /// 1 to 86,400; 3,600 for a task when none is given; ignored for a service.
    pub ttl_seconds: Option<u32>,
    /// What the child takes from its parent.
    pub parent_authority: ParentAuthority,
    /// The delegation to take when the parent holds several.
    pub inherit_edge: Option<Arc<str>>,
    /// An object.
    pub metadata: Value,
    /// From the `Idempotency-Key` header.
    pub idempotency: Option<IdempotencyKey>,
}

/// A started session.
#[derive(Clone, Debug)]
pub struct Started {
    /// The session.
    pub session: Arc<Session>,
    /// The delegation it inherited.
    pub delegation: Option<Arc<Delegation>>,
    /// The 201 body; on a replay, as it was the first time.
    pub response: Value,
    /// Whether this is the answer to an earlier request under the same key.
    pub replayed: bool,
}

/// What came of looking at a request under the zone's lock.
pub(super) enum Step<T> {
    /// The same request is being committed for somebody else.
    Wait(watch::Receiver<()>),
    /// It was answered before.
    Replay { id: ReceiptId, result: Arc<str> },
    /// It is on its way to the store.
    Committing(oneshot::Receiver<Result<T, CoordinatorError>>),
}

impl State {
    /// Starts a session: judged in the order of the coordinator's contract, visible after its commit.
    ///
    /// # Errors
    /// [`CoordinatorError`] with the code of the first condition that fails, or 503 when the commit does.
    pub async fn start_session(&self, request: StartSession) -> Result<Started, CoordinatorError> {
        let subject = request.subject_record.as_ref().or_else(|| request.caller.record());
        let Some(subject) = subject.cloned() else {
            return Err(CoordinatorError::new(400, "subject_session_id_required"));
        };
        if !request.caller.may_start_for(&request.application) {
            return Err(CoordinatorError::ownership());
        }
        let zone = self.zone(&request.zone);
        let mut again = Again::default();
        loop {
            match self.begin_start(&zone, &request, &subject)? {
                // An error means that the one we waited for is done, like a change does.
                Step::Wait(mut done) => drop(done.changed().await),
                Step::Replay { id, result } => return self.replay_start(id, &result).await,
                Step::Committing(answer) => {
                    let outcome = answer.await.unwrap_or(Err(StateError::Closed.into()));
                    if !again.should(&outcome) {
                        return outcome;
                    }
                }
            }
        }
    }

    fn begin_start(
        &self,
        zone: &Arc<Zone>,
        request: &StartSession,
        subject: &Arc<str>,
    ) -> Result<Step<Started>, CoordinatorError> {
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        desk.settle(now);
        let mut writes = Vec::new();
        let mut receipt = None;
        if let Some(key) = &request.idempotency {
            let id = self.receipt_id(zone, Operation::SessionStart, &request.application, key);
            match desk.look_up(id, key, now)? {
                Known::Underway(done) => return Ok(Step::Wait(done)),
                Known::Answered { id, result } => {
                    return if desk.session_pending(&result, now) {
                        Ok(Step::Replay { id, result })
                    } else {
                        Err(receipts::inactive())
                    };
                }
                Known::New { id, forgotten } => {
                    writes.extend(forgotten.into_iter().map(Write::ForgetReceipt));
                    receipt = Some((id, key));
                }
            }
        }
        let record = desk.judge_start(request, subject, now)?;
        let parent = desk.judge_parent(request, now)?;
        let session = new_session(request, &record, parent.as_deref(), desk.shared.limits.lease_ms, now);
        let delegation = match &parent {
            Some(parent) => desk.inherit(request, parent, &session.id, now)?,
            None => None,
        };
        let (session, delegation) = (Arc::new(session), delegation.map(Arc::new));
        let response = session.to_started_json(delegation.as_deref());
        writes.insert(0, Write::Session(Arc::clone(&session)));
        writes.extend(delegation.iter().map(|edge| Write::Delegation(Arc::clone(edge))));
        let underway = receipt.map(|(id, key)| desk.receipts.reserve(id, key, Arc::clone(&session.id), now));
        writes.extend(underway.iter().map(|underway| underway.write(&response)));
        desk.counts().add(&session);
        let (tell, told) = oneshot::channel();
        let zone = Arc::clone(zone);
        let started = Started { session, delegation, response, replayed: false };
        self.shared.queue.send(
            writes,
            Intent::Widen,
            Box::new(move |outcome| drop(tell.send(zone.finish_start(started, underway.as_ref(), outcome)))),
        );
        Ok(Step::Committing(told))
    }

    async fn replay_start(&self, id: ReceiptId, result: &str) -> Result<Started, CoordinatorError> {
        let session = self.session(&id.zone, result);
        let response = self.recorded(id).await?;
        let session = session.ok_or_else(receipts::inactive)?;
        let delegation = response.get("delegation_edge_id").and_then(Value::as_str);
        let delegation = delegation.and_then(|edge| self.delegation(&session.zone, edge));
        Ok(Started { session, delegation, response, replayed: true })
    }

    pub(super) async fn recorded(&self, id: ReceiptId) -> Result<Value, CoordinatorError> {
        let text = self.shared.queue.response(id).await?.ok_or_else(receipts::inactive)?;
        let unreadable = |_| StateError::Corrupt { table: "receipts", id: String::new() };
        Ok(serde_json::from_str(&text).map_err(unreadable)?)
    }

    pub(super) fn receipt_id(
        &self,
        zone: &Zone,
        operation: Operation,
        scope: &Arc<str>,
        key: &IdempotencyKey,
    ) -> ReceiptId {
        let key = receipts::key_digest(&self.receipt_key, &key.key);
        ReceiptId { zone: Arc::clone(&zone.name), operation, scope: Arc::clone(scope), key }
    }
}

impl Zone {
    /// Runs on the writer. What was narrowed while the commit was under way is found here and applied to the new
    /// session before anybody sees it.
    fn finish_start(
        &self,
        started: Started,
        underway: Option<&Underway>,
        outcome: Result<(), StateError>,
    ) -> Result<Started, CoordinatorError> {
        let mut desk = self.desk.lock();
        if let Err(failed) = outcome {
            desk.counts().remove(&started.session);
            if let Some(underway) = underway {
                desk.receipts.abandoned(underway);
            }
            return Err(failed.into());
        }
        if let Some(underway) = underway {
            desk.receipts.answered(underway);
        }
        let now = desk.shared.clock.now();
        let overtaken = desk.overtaken(&started, now);
        desk.place_session(Arc::clone(&started.session));
        if let Some(delegation) = &started.delegation {
            desk.place_delegation(Arc::clone(delegation));
        }
        let Some(refusal) = overtaken else { return Ok(started) };
        let reason = "overtaken";
        let mut narrowing =
            desk.end(&[Arc::clone(&started.session.id)], SessionStatus::Terminated, reason, now);
        drop(desk.shared.narrow(&desk.zone, reason, &mut narrowing));
        Err(refusal)
    }
}

impl Desk {
    pub(super) fn look_up(
        &mut self,
        id: ReceiptId,
        key: &IdempotencyKey,
        now: i64,
    ) -> Result<Known, CoordinatorError> {
        let most = self.shared.limits.receipts_per_scope;
        let Self { receipts, sessions, delegations, .. } = self;
        let ended = |id: &str| sessions.get(id).is_none_or(|session| session.status.ended());
        let closed = |id: &str| delegations.get(id).is_none_or(|edge| !edge.live(now));
        receipts.look_up(id, &key.request_digest, now, most, |id| ended(id) && closed(id))
    }

    /// Whether a replayed start still means something: active or suspended, and in its time.
    fn session_pending(&self, id: &str, now: i64) -> bool {
        self.sessions.get(id).is_some_and(|session| !session.status.ended() && session.in_time(now))
    }

    fn judge_start(
        &mut self,
        request: &StartSession,
        subject: &str,
        now: i64,
    ) -> Result<Arc<AuthorityRecord>, CoordinatorError> {
        self.not_frozen()?;
        let application = &request.application;
        let standing = self.shared.standing.application(&self.zone, application);
        if !request.application_known || standing.is_some_and(|standing| standing.blocked) {
            return Err(CoordinatorError::new(404, "application_not_found"));
        }
        let record = self.shared.live_record(&self.zone, subject, now);
        // A record of somebody else's is as good as unknown: acting for it would be acting as them.
        let record = record
            .filter(|record| record.application == *application || request.caller.owns(&record.application));
        let Some(record) = record else {
            return Err(CoordinatorError::session_not_found()
                .with_detail("the authority record the session would act for is not active"));
        };
        if self.counts().zone >= self.shared.limits.sessions_per_zone {
            return Err(CoordinatorError::new(429, "session_zone_limit_exceeded"));
        }
        if self.counts().application(application) >= self.shared.limits.sessions_per_application {
            return Err(CoordinatorError::new(429, "session_limit_exceeded"));
        }
        Ok(record)
    }

    fn judge_parent(
        &mut self,
        request: &StartSession,
        now: i64,
    ) -> Result<Option<Arc<Session>>, CoordinatorError> {
        let Some(id) = &request.parent else { return Ok(None) };
        let parent = self.sessions.get(id).filter(|parent| self.shared.session_stands(parent, now)).cloned();
        let Some(parent) = parent else {
            return Err(CoordinatorError::new(404, "parent_not_found"));
        };
        if parent.lifecycle == Lifecycle::Task && request.lifecycle == Lifecycle::Service {
            return Err(CoordinatorError::new(409, "task_session_cannot_start_service"));
        }
        if parent.application != request.application && !request.caller.may_start_under(&parent.application) {
            return Err(CoordinatorError::new(403, "parent_ownership_required"));
        }
        if self.counts().children(id) >= self.shared.limits.children_per_session {
            return Err(CoordinatorError::new(429, "session_children_limit_exceeded"));
        }
        if parent.depth >= self.shared.limits.depth {
            return Err(CoordinatorError::new(429, "session_depth_limit_exceeded"));
        }
        Ok(Some(parent))
    }

    pub(super) fn not_frozen(&self) -> Result<(), CoordinatorError> {
        if self.shared.standing.frozen(&self.zone) {
            return Err(CoordinatorError::new(403, "zone_frozen"));
        }
        Ok(())
    }

    /// What no longer holds for a session whose start is committed by now.
    fn overtaken(&self, started: &Started, now: i64) -> Option<CoordinatorError> {
        let session = &started.session;
        if self.shared.live_record(&self.zone, &session.subject_record, now).is_none()
            || self.shared.cut_off(&self.zone, &session.application, session.started_at)
        {
            return Some(CoordinatorError::session_not_found());
        }
        let parent = session.parent.as_ref().map(|id| self.sessions.get(id));
        if parent.is_some_and(|parent| !parent.is_some_and(|parent| self.shared.session_stands(parent, now)))
        {
            return Some(CoordinatorError::new(404, "parent_not_found"));
        }
        let copied = started.delegation.as_ref().and_then(|edge| edge.parent.as_ref());
        let gone = copied.is_some_and(|id| !self.delegations.get(id).is_some_and(|edge| edge.live(now)));
        gone.then(|| CoordinatorError::new(409, "inherit_parent_edge_not_active"))
    }
}

fn new_session(
    request: &StartSession,
    record: &AuthorityRecord,
    parent: Option<&Session>,
    lease_ms: i64,
    now: i64,
) -> Session {
    let service = request.lifecycle == Lifecycle::Service;
    Session {
        id: new_id(now),
        zone: Arc::clone(&request.zone),
        application: Arc::clone(&request.application),
        parent: parent.map(|parent| Arc::clone(&parent.id)),
        subject_record: Arc::clone(&record.id),
        subject_kind: record.kind,
        lifecycle: request.lifecycle,
        labels: request.labels.clone(),
        metadata: request.metadata.clone(),
        status: SessionStatus::Active,
        depth: parent.map_or(0, |parent| parent.depth.saturating_add(1)),
        ttl_seconds: (!service).then(|| request.ttl_seconds.unwrap_or(DEFAULT_TASK_TTL_S)),
        started_at: now,
        last_heartbeat_at: service.then_some(now),
        heartbeat_deadline_at: service.then(|| now.saturating_add(lease_ms)),
        lease_generation: u64::from(service),
        terminated_at: None,
        termination_reason: None,
    }
}

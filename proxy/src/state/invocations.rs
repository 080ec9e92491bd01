//! Invocations: created once per key, started, completed, given up, timed out.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::again::Again;
use super::caller::Caller;
use super::desk::Desk;
use super::error::{CoordinatorError, StateError};
use super::jobs::{Completion, Invocation, InvocationStatus};
use super::listing::{Page, PageRequest, nothing, page_of};
use super::model::{Lifecycle, Session};
use super::receipts::{IdempotencyKey, Known, Operation, Underway};
use super::sessions::Step;
use super::shared::new_id;
use super::store::Write;
use super::writer::Intent;
use super::{State, Zone};

/// A request to have something done; shapes are already checked.
#[derive(Clone, Debug)]
pub struct CreateInvocation {
    /// Zone of everything named.
    pub zone: Arc<str>,
    /// Who asks.
    pub caller: Caller,
    /// The service to ask.
    pub service: Arc<str>,
    /// The task session that asks; its application is then the one that asks.
    pub source_session: Option<Arc<str>>,
    /// The task session that is to do it.
    pub target_session: Option<Arc<str>>,
    /// See [`Invocation::method`].
    pub method: String,
    /// Anything; stored as it is.
    pub params: Value,
    /// An object; stored as it is.
    pub metadata: Value,
    /// 1 to 900,000.
    pub timeout_ms: i64,
    /// 1 to 10.
    pub max_attempts: u32,
    /// 0 to 300,000.
    pub backoff_ms: u32,
    /// Names the invocation among those of its application.
    pub idempotency: IdempotencyKey,
}

/// A created invocation.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// The 201 body; on a replay, as it was the first time.
    pub response: Value,
    /// Whether this is the answer to an earlier request under the same key.
    pub replayed: bool,
}

/// Which invocations are wanted; an absent member admits all.
#[derive(Clone, Debug, Default)]
pub struct InvocationFilter {
    /// With this status.
    pub status: Option<InvocationStatus>,
    /// Of this service.
    pub service: Option<String>,
    /// Asked by or of this session.
    pub session: Option<String>,
}

impl InvocationFilter {
    fn admits(&self, row: &Invocation) -> bool {
        let named = |session: &Option<Arc<str>>| session.as_deref() == self.session.as_deref();
        self.status.is_none_or(|status| status == row.status)
            && self.service.as_deref().is_none_or(|service| service == &*row.service)
            && (self.session.is_none() || named(&row.source_session) || named(&row.target_session))
    }
}

impl State {
    /// Creates an invocation, visible after its commit.
    ///
    /// # Errors
    /// 404 `agent_service_not_found` or `session_not_found`, 403 `invoker_ownership_required` or `zone_frozen`,
    /// 409 and 429 of the key, 429 `invocation_limit_exceeded`, 503 when the commit fails.
    pub async fn create_invocation(&self, request: CreateInvocation) -> Result<Invoked, CoordinatorError> {
        let zone = self.zone(&request.zone);
        let mut again = Again::default();
        loop {
            match self.begin_invocation(&zone, &request)? {
                Step::Wait(mut done) => drop(done.changed().await),
                Step::Replay { id, .. } => {
                    return Ok(Invoked { response: self.recorded(id).await?, replayed: true });
                }
                Step::Committing(answer) => {
                    let outcome = answer.await.unwrap_or(Err(StateError::Closed.into()));
                    if !again.should(&outcome) {
                        return outcome;
                    }
                }
            }
        }
    }

    fn begin_invocation(
        &self,
        zone: &Arc<Zone>,
        request: &CreateInvocation,
    ) -> Result<Step<Invoked>, CoordinatorError> {
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        desk.settle(now);
        let invoker = desk.invoker(request)?;
        let key = &request.idempotency;
        let id = self.receipt_id(zone, Operation::InvocationCreate, &invoker, key);
        let (id, forgotten) = match desk.look_up(id, key, now)? {
            Known::Underway(done) => return Ok(Step::Wait(done)),
            // What was asked for once stays asked for, however it ended.
            Known::Answered { id, result } => return Ok(Step::Replay { id, result }),
            Known::New { id, forgotten } => (id, forgotten),
        };
        let row = Arc::new(desk.judge_invocation(request, invoker, now)?);
        let payload = json!({ "params": request.params, "metadata_json": request.metadata }).to_string();
        let response = row.to_json();
        let underway = desk.receipts.reserve(id, key, Arc::clone(&row.id), now);
        let mut writes: Vec<Write> = forgotten.into_iter().map(Write::ForgetReceipt).collect();
        writes.push(Write::Invocation(Arc::clone(&row), payload));
        writes.push(underway.write(&response));
        desk.jobs.open = desk.jobs.open.saturating_add(1);
        let (tell, told) = oneshot::channel();
        let zone = Arc::clone(zone);
        let done = move |outcome: Result<(), StateError>| {
            let made = outcome.map(|()| Invoked { response, replayed: false }).map_err(Into::into);
            zone.finish_invocation(row, &underway, &made);
            drop(tell.send(made));
        };
        self.shared.queue.send(writes, Intent::Widen, Box::new(done));
        Ok(Step::Committing(told))
    }

    /// Begins an attempt.
    ///
    /// # Errors
    /// 404 `invocation_not_found`, 403 `application_ownership_required`, 409 `invocation_not_startable`, 503 when
    /// the commit fails: then it is as it was.
    pub async fn start_invocation(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<Invocation>, CoordinatorError> {
        let serves = |row: &Invocation| caller.may_manage(&row.service_application);
        self.step(zone, id, caller, serves, None, |row, now| {
            row.started(now).ok_or(CoordinatorError::new(409, "invocation_not_startable"))
        })
        .await
    }

    /// Gives an invocation up, or asks whoever works on it to stop.
    ///
    /// # Errors
    /// 404 `invocation_not_found`, 403 `application_ownership_required`, 409 `invocation_not_cancelable`, 503 when
    /// the commit fails: then it is as it was.
    pub async fn cancel_invocation(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        reason: Option<&str>,
    ) -> Result<Arc<Invocation>, CoordinatorError> {
        let party = |row: &Invocation| {
            caller.may_manage(&row.service_application) || caller.may_invoke_for(&row.invoker)
        };
        self.step(zone, id, caller, party, None, |row, now| {
            row.canceled(reason, now).ok_or(CoordinatorError::new(409, "invocation_not_cancelable"))
        })
        .await
    }

    /// Ends the attempt that is under way. `outcome` is stored as it is.
    ///
    /// # Errors
    /// 404 `invocation_not_found`, 403 `application_ownership_required`, 409 `invocation_not_completable`, 503 when
    /// the commit fails: then it is as it was.
    pub async fn complete_invocation(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        how: Completion,
        outcome: &Value,
    ) -> Result<Arc<Invocation>, CoordinatorError> {
        let serves = |row: &Invocation| caller.may_manage(&row.service_application);
        self.step(zone, id, caller, serves, Some(outcome.to_string()), |row, now| {
            row.completed(how, now).ok_or(CoordinatorError::new(409, "invocation_not_completable"))
        })
        .await
    }

    /// One invocation that the caller may see.
    ///
    /// # Errors
    /// 404 `invocation_not_found`.
    pub fn read_invocation(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<Invocation>, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(lost)?;
        let mut desk = zone.desk.lock();
        desk.settle(self.shared.clock.now());
        desk.jobs.invocations.get(id).filter(|row| visible(row, caller)).cloned().ok_or_else(lost)
    }

    /// One invocation with what was sent along and what came of it.
    ///
    /// # Errors
    /// 404 `invocation_not_found`, 503 when the store cannot be read.
    pub async fn invocation_detail(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Value, CoordinatorError> {
        let row = self.read_invocation(zone, id, caller)?;
        let (payload, outcome) =
            self.shared.queue.payload(Arc::clone(&row.zone), Arc::clone(&row.id)).await?.ok_or_else(lost)?;
        let read = |text: &str| {
            let unreadable = |_| StateError::Corrupt { table: "invocations", id: id.to_owned() };
            serde_json::from_str::<Value>(text).map_err(unreadable)
        };
        let mut shown = super::json::object(row.to_json());
        shown.extend(super::json::object(read(&payload)?));
        shown.insert("cancel_reason".into(), json!(row.cancel_reason));
        shown.insert("outcome".into(), outcome.as_deref().map(read).transpose()?.unwrap_or_default());
        Ok(Value::Object(shown))
    }

    /// Invocations that the caller asked for or serves, newest first, without what was sent along.
    ///
    /// # Errors
    /// 400 `invalid_cursor`.
    pub fn list_invocations(
        &self,
        zone: &str,
        caller: &Caller,
        filter: &InvocationFilter,
        page: &PageRequest,
    ) -> Result<Page<Invocation>, CoordinatorError> {
        let Some(zone) = self.known_zone(zone) else { return nothing(page) };
        let mut desk = zone.desk.lock();
        desk.settle(self.shared.clock.now());
        let sees = |row: &Invocation| visible(row, caller);
        page_of(&desk.jobs.invocations, page, sees, |row| filter.admits(row), |row| &row.id)
    }

    /// One step of one invocation: seen, allowed, possible; then in force, then committed. A step that is not
    /// committed is taken back.
    async fn step(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        allowed: impl Fn(&Invocation) -> bool,
        outcome: Option<String>,
        next: impl Fn(&Invocation, i64) -> Result<Invocation, CoordinatorError>,
    ) -> Result<Arc<Invocation>, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(lost)?;
        let mut again = Again::default();
        loop {
            let told = {
                let now = self.shared.clock.now();
                let mut desk = zone.desk.lock();
                desk.settle(now);
                let before =
                    desk.jobs.invocations.get(id).filter(|row| visible(row, caller)).ok_or_else(lost)?;
                if !allowed(before) {
                    return Err(CoordinatorError::ownership());
                }
                let (before, row) = (Arc::clone(before), Arc::new(next(before, now)?));
                desk.jobs.replace(Arc::clone(&row));
                let writes = vec![Write::InvocationStatus(Arc::clone(&row), outcome.clone())];
                let (tell, told) = oneshot::channel();
                let zone = Arc::clone(&zone);
                let done = move |outcome: Result<(), StateError>| {
                    if outcome.is_err() {
                        zone.desk.lock().jobs.take_back(&row, before);
                    }
                    drop(tell.send(outcome.map(|()| row).map_err(CoordinatorError::from)));
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
    fn finish_invocation(
        &self,
        row: Arc<Invocation>,
        underway: &Underway,
        made: &Result<Invoked, CoordinatorError>,
    ) {
        let mut desk = self.desk.lock();
        if made.is_ok() {
            desk.receipts.answered(underway);
            desk.jobs.place(row);
        } else {
            desk.receipts.abandoned(underway);
            desk.jobs.open = desk.jobs.open.saturating_sub(1);
        }
    }
}

impl Desk {
    /// The application that asks: that of the session that asks, if one is named, else the caller.
    fn invoker(&self, request: &CreateInvocation) -> Result<Arc<str>, CoordinatorError> {
        let Some(source) = &request.source_session else { return Ok(request.caller.id().into()) };
        let session = self.sessions.get(source).ok_or_else(CoordinatorError::session_not_found)?;
        if request.caller.may_invoke_for(&session.application) {
            return Ok(Arc::clone(&session.application));
        }
        Err(CoordinatorError::new(403, "invoker_ownership_required"))
    }

    fn judge_invocation(
        &self,
        request: &CreateInvocation,
        invoker: Arc<str>,
        now: i64,
    ) -> Result<Invocation, CoordinatorError> {
        self.not_frozen()?;
        let service = self.jobs.services.get(&request.service);
        let service = service.ok_or(CoordinatorError::new(404, "agent_service_not_found"))?;
        let works = |session: &Session| {
            session.lifecycle == Lifecycle::Task && self.shared.session_stands(session, now)
        };
        for named in [&request.source_session, &request.target_session].into_iter().flatten() {
            if !self.sessions.get(named).is_some_and(|session| works(session)) {
                return Err(CoordinatorError::session_not_found());
            }
        }
        if self.jobs.open >= self.shared.limits.invocations_per_zone {
            return Err(CoordinatorError::new(429, "invocation_limit_exceeded"));
        }
        Ok(Invocation {
            id: new_id(now),
            zone: Arc::clone(&request.zone),
            service: Arc::clone(&service.id),
            service_application: Arc::clone(&service.application),
            invoker,
            source_session: request.source_session.clone(),
            target_session: request.target_session.clone(),
            method: request.method.clone(),
            timeout_ms: request.timeout_ms,
            max_attempts: request.max_attempts,
            backoff_ms: request.backoff_ms,
            status: InvocationStatus::Pending,
            attempts: 0,
            deadline_at: None,
            started_at: None,
            cancel_requested_at: None,
            cancel_reason: None,
            completed_at: None,
            created_at: now,
        })
    }
}

fn visible(row: &Invocation, caller: &Caller) -> bool {
    caller.sees(&row.invoker) || caller.sees(&row.service_application) || caller.may_invoke_for(&row.invoker)
}

const fn lost() -> CoordinatorError {
    CoordinatorError::new(404, "invocation_not_found")
}

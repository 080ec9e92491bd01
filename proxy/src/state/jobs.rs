//! Agent services and invocations: where an agent can be reached, and what it was asked to do. Durable notes for
//! the parties; nothing is dispatched by them and no authority comes of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::iso;
use super::store::Write;

/// Milliseconds a service is remembered after it was last registered or heard of.
pub(super) const SERVICE_KEPT_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// What a service says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceHealth {
    /// Not heard of yet.
    #[default]
    Starting,
    /// Takes work.
    Healthy,
    /// Takes work, not as it should.
    Degraded,
    /// Takes none.
    Unhealthy,
}

impl ServiceHealth {
    /// Every health with its wire word.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("starting", Self::Starting),
        ("healthy", Self::Healthy),
        ("degraded", Self::Degraded),
        ("unhealthy", Self::Unhealthy),
    ];

    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Where an application's agent can be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentService {
    /// UUIDv7.
    pub id: Arc<str>,
    /// Zone of the service.
    pub zone: Arc<str>,
    /// The application that owns it.
    pub application: Arc<str>,
    /// An absolute http or https URL. Nothing here ever calls it.
    pub endpoint_url: Arc<str>,
    /// Versions of its protocol.
    pub protocol_versions: Vec<String>,
    /// What it is built with.
    pub framework_name: Option<String>,
    /// Version of that.
    pub framework_version: Option<String>,
    /// What it can do, in its own words.
    pub capabilities: Vec<String>,
    /// What it said last.
    pub health: ServiceHealth,
    /// An object.
    pub metadata: Value,
    /// Unix milliseconds of the last registration.
    pub registered_at: i64,
    /// Unix milliseconds.
    pub last_heartbeat_at: Option<i64>,
}

impl AgentService {
    /// The wire row.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "zone_id": self.zone,
            "application_id": self.application,
            "endpoint_url": self.endpoint_url,
            "protocol_versions": self.protocol_versions,
            "framework_name": self.framework_name,
            "framework_version": self.framework_version,
            "capabilities": self.capabilities,
            "health": self.health.as_str(),
            "metadata_json": self.metadata,
            "last_heartbeat_at": self.last_heartbeat_at.map(iso),
        })
    }

    fn last_seen(&self) -> i64 {
        self.registered_at.max(self.last_heartbeat_at.unwrap_or(self.registered_at))
    }
}

/// Where an invocation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvocationStatus {
    /// Not begun.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Did not work, and may be started again.
    Failed,
    /// Under way, and asked to stop.
    CancelRequested,
    /// Given up on request.
    Canceled,
    /// Not done by its deadline.
    TimedOut,
    /// Did not work, and may not be started again.
    Dead,
}

impl InvocationStatus {
    const ALL: [Self; 8] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::CancelRequested,
        Self::Canceled,
        Self::TimedOut,
        Self::Dead,
    ];

    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::CancelRequested => "cancel_requested",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::Dead => "dead",
        }
    }

    /// The status a wire word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }

    /// True when nothing can happen to it any more.
    #[must_use]
    pub const fn over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Canceled | Self::TimedOut | Self::Dead)
    }

    const fn under_way(self) -> bool {
        matches!(self, Self::Running | Self::CancelRequested)
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It worked.
    Succeeded,
    /// It did not.
    Failed,
}

/// One thing an agent service was asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// UUIDv7, so ids sort by creation.
    pub id: Arc<str>,
    /// Zone of the invocation.
    pub zone: Arc<str>,
    /// The service that is asked.
    pub service: Arc<str>,
    /// The application of that service.
    pub service_application: Arc<str>,
    /// The application that asks.
    pub invoker: Arc<str>,
    /// The session that asks.
    pub source_session: Option<Arc<str>>,
    /// The session that is to do it.
    pub target_session: Option<Arc<str>>,
    /// What is to be done, a word between the two.
    pub method: String,
    /// Milliseconds an attempt may take.
    pub timeout_ms: i64,
    /// How often it may be started.
    pub max_attempts: u32,
    /// Milliseconds the service should wait between attempts.
    pub backoff_ms: u32,
    /// Where it stands.
    pub status: InvocationStatus,
    /// How often it was started.
    pub attempts: u32,
    /// Unix milliseconds by which the running attempt must be done.
    pub deadline_at: Option<i64>,
    /// Unix milliseconds of the last start.
    pub started_at: Option<i64>,
    /// Unix milliseconds.
    pub cancel_requested_at: Option<i64>,
    /// Why it was to stop.
    pub cancel_reason: Option<String>,
    /// Unix milliseconds from which nothing can happen to it any more.
    pub completed_at: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

impl Invocation {
    /// The wire row, without what was sent along.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "zone_id": self.zone,
            "service_id": self.service,
            "source_session_id": self.source_session,
            "target_session_id": self.target_session,
            "method": self.method,
            "status": self.status.as_str(),
            "attempts": self.attempts,
            "max_attempts": self.max_attempts,
            "timeout_ms": self.timeout_ms,
            "retry_policy_json": { "max_attempts": self.max_attempts, "backoff_ms": self.backoff_ms },
            "deadline_at": self.deadline_at.map(iso),
            "cancel_requested_at": self.cancel_requested_at.map(iso),
            "started_at": self.started_at.map(iso),
            "completed_at": self.completed_at.map(iso),
            "created_at": iso(self.created_at),
        })
    }

    /// The row after a start; none when it cannot be started.
    pub(super) fn started(&self, now: i64) -> Option<Self> {
        let startable = matches!(self.status, InvocationStatus::Pending | InvocationStatus::Failed);
        (startable && self.attempts < self.max_attempts).then(|| Self {
            status: InvocationStatus::Running,
            attempts: self.attempts.saturating_add(1),
            started_at: Some(now),
            deadline_at: Some(now.saturating_add(self.timeout_ms)),
            ..self.clone()
        })
    }

    /// The row after it was to be given up; none when it is over. What is under way can only be asked to stop.
    pub(super) fn canceled(&self, reason: Option<&str>, now: i64) -> Option<Self> {
        if self.status == InvocationStatus::CancelRequested {
            return Some(self.clone());
        }
        let reason = reason.map(str::to_owned);
        match self.status {
            InvocationStatus::Pending | InvocationStatus::Failed => Some(Self {
                cancel_requested_at: Some(now),
                cancel_reason: reason,
                ..self.over(InvocationStatus::Canceled, now)
            }),
            InvocationStatus::Running => Some(Self {
                status: InvocationStatus::CancelRequested,
                cancel_requested_at: Some(now),
                cancel_reason: reason,
                ..self.clone()
            }),
            InvocationStatus::CancelRequested
            | InvocationStatus::Succeeded
            | InvocationStatus::Canceled
            | InvocationStatus::TimedOut
            | InvocationStatus::Dead => None,
        }
    }

    /// The row after an attempt ended; none when none is under way. An attempt that fails after somebody asked to
    /// stop is not made again.
    pub(super) fn completed(&self, how: Completion, now: i64) -> Option<Self> {
        let status = match (self.status, how) {
            (status, _) if !status.under_way() => return None,
            (_, Completion::Succeeded) => InvocationStatus::Succeeded,
            (InvocationStatus::CancelRequested, Completion::Failed) => InvocationStatus::Canceled,
            (_, Completion::Failed) if self.attempts < self.max_attempts => {
                return Some(Self { status: InvocationStatus::Failed, deadline_at: None, ..self.clone() });
            }
            (_, Completion::Failed) => InvocationStatus::Dead,
        };
        Some(self.over(status, now))
    }

    fn over(&self, status: InvocationStatus, now: i64) -> Self {
        Self { status, completed_at: Some(now), deadline_at: None, ..self.clone() }
    }

    fn overdue(&self, now: i64) -> bool {
        self.status.under_way() && self.deadline_at.is_some_and(|at| at <= now)
    }
}

/// The services and invocations of one zone.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) services: BTreeMap<Arc<str>, Arc<AgentService>>,
    pub(super) invocations: BTreeMap<Arc<str>, Arc<Invocation>>,
    /// Invocations that are not over, those on their way to the store included.
    pub(super) open: usize,
    due: BTreeSet<(i64, Arc<str>)>,
    finished: VecDeque<(i64, Arc<str>)>,
}

impl Jobs {
    /// Puts a row there that is new here; it must be counted in `open` already unless it is over.
    pub(super) fn place(&mut self, row: Arc<Invocation>) {
        if let Some(at) = row.completed_at {
            self.finished.push_back((at, Arc::clone(&row.id)));
        }
        self.due.extend(row.deadline_at.map(|at| (at, Arc::clone(&row.id))));
        self.invocations.insert(Arc::clone(&row.id), row);
    }

    /// Puts what was loaded into the order of its end.
    pub(super) fn loaded(&mut self) {
        self.finished.make_contiguous().sort();
        self.open = self.invocations.values().filter(|row| !row.status.over()).count();
    }

    /// Replaces a row by its next one.
    pub(super) fn replace(&mut self, row: Arc<Invocation>) {
        let before = self.invocations.get(&row.id).and_then(|before| before.deadline_at);
        if let Some(at) = before {
            self.due.remove(&(at, Arc::clone(&row.id)));
        }
        if row.status.over() {
            self.open = self.open.saturating_sub(1);
        }
        self.place(row);
    }

    /// Undoes a step that was not committed, unless something else has happened to the row since.
    pub(super) fn take_back(&mut self, row: &Arc<Invocation>, before: Arc<Invocation>) {
        let current = self.invocations.get(&row.id).is_some_and(|current| Arc::ptr_eq(current, row));
        if !current {
            return;
        }
        if row.status.over() {
            self.open = self.open.saturating_add(1);
            self.finished.retain(|(_, id)| *id != row.id);
        }
        self.due.extend(before.deadline_at.map(|at| (at, Arc::clone(&before.id))));
        if let Some(at) = row.deadline_at.filter(|at| before.deadline_at != Some(*at)) {
            self.due.remove(&(at, Arc::clone(&row.id)));
        }
        self.invocations.insert(Arc::clone(&before.id), before);
    }

    /// Undoes what was said of a service and not committed; `before` is none for a new one.
    pub(super) fn forget_said(&mut self, row: &Arc<AgentService>, before: Option<Arc<AgentService>>) {
        let current = self.services.get(&row.id).is_some_and(|current| Arc::ptr_eq(current, row));
        match before {
            Some(before) if current => drop(self.services.insert(Arc::clone(&before.id), before)),
            None if current => drop(self.services.remove(&row.id)),
            Some(_) | None => {}
        }
    }

    /// Times out whatever is past its deadline.
    pub(super) fn settle(&mut self, now: i64) -> Vec<Write> {
        let mut writes = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.due.pop_first() else { break };
            let overdue = self.invocations.get(&id).filter(|row| row.overdue(now));
            if let Some(row) = overdue.map(|row| Arc::new(row.over(InvocationStatus::TimedOut, now))) {
                self.replace(Arc::clone(&row));
                writes.push(Write::InvocationStatus(row, None));
            }
        }
        writes
    }

    /// Forgets invocations that are over and old or too many, and services nobody heard of for long.
    pub(super) fn forget(&mut self, zone: &Arc<str>, now: i64, kept_ms: i64, most: usize) -> Vec<Write> {
        let mut writes = Vec::new();
        let oldest = now.saturating_sub(kept_ms);
        while self.finished.front().is_some_and(|(at, _)| *at <= oldest || self.finished.len() > most) {
            let Some((_, id)) = self.finished.pop_front() else { break };
            self.invocations.remove(&id);
            writes.push(Write::ForgetInvocation { zone: Arc::clone(zone), id });
        }
        let silent = now.saturating_sub(SERVICE_KEPT_MS);
        let gone: Vec<_> = self.services.values().filter(|row| row.last_seen() <= silent).cloned().collect();
        for row in gone {
            self.services.remove(&row.id);
            writes.push(Write::ForgetService { zone: Arc::clone(zone), id: Arc::clone(&row.id) });
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::InvocationStatus::{
        CancelRequested, Canceled, Dead, Failed, Pending, Running, Succeeded, TimedOut,
    };
    use super::*;

    fn row(status: InvocationStatus, attempts: u32) -> Invocation {
        Invocation {
            id: "i".into(),
            zone: "z".into(),
            service: "s".into(),
            service_application: "app".into(),
            invoker: "app".into(),
            source_session: None,
            target_session: None,
            method: "run".into(),
            timeout_ms: 1_000,
            max_attempts: 2,
            backoff_ms: 0,
            status,
            attempts,
            deadline_at: None,
            started_at: None,
            cancel_requested_at: None,
            cancel_reason: None,
            completed_at: None,
            created_at: 0,
        }
    }

    #[test]
    fn every_step_leads_where_it_should_and_nowhere_else() {
        let cases = [
            (Pending, 0, Some(Running), Some(Canceled), None, None),
            (Running, 1, None, Some(CancelRequested), Some(Succeeded), Some(Failed)),
            (Running, 2, None, Some(CancelRequested), Some(Succeeded), Some(Dead)),
            (Failed, 1, Some(Running), Some(Canceled), None, None),
            (CancelRequested, 1, None, Some(CancelRequested), Some(Succeeded), Some(Canceled)),
            (Succeeded, 1, None, None, None, None),
            (Canceled, 1, None, None, None, None),
            (TimedOut, 1, None, None, None, None),
            (Dead, 2, None, None, None, None),
        ];
        for (status, attempts, start, cancel, succeed, fail) in cases {
            let row = row(status, attempts);
            let after = |row: Option<Invocation>| row.map(|row| row.status);
            assert_eq!(after(row.started(5)), start, "{status:?} started");
            assert_eq!(after(row.canceled(None, 5)), cancel, "{status:?} canceled");
            assert_eq!(after(row.completed(Completion::Succeeded, 5)), succeed, "{status:?} succeeded");
            assert_eq!(after(row.completed(Completion::Failed, 5)), fail, "{status:?} failed");
        }
    }

    #[test]
    fn times_go_with_the_steps() {
        let running = row(Pending, 0).started(5).unwrap();
        assert_eq!((running.started_at, running.deadline_at, running.attempts), (Some(5), Some(1_005), 1));
        assert!(!running.overdue(1_004) && running.overdue(1_005));
        let failed = running.completed(Completion::Failed, 6).unwrap();
        assert_eq!((failed.deadline_at, failed.completed_at), (None, None), "it may be started again");
        let canceled = failed.canceled(Some("enough"), 7).unwrap();
        assert_eq!((canceled.cancel_requested_at, canceled.completed_at), (Some(7), Some(7)));
        assert_eq!(canceled.cancel_reason.as_deref(), Some("enough"));
    }
}

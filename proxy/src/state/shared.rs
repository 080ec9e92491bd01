//! What the zones' desks, the reads and the writer's completions have in common.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::StateLimits;
use super::connections::Connections;
use super::error::StateError;
use super::model::{
    Anchor, AuthorityRecord, Delegation, Narrowed, Origin, RecordKind, Session, SessionStatus,
};
use super::records::Records;
use super::shards::Shards;
use super::standing::Standing;
use super::store::{Write, ZoneWrite};
use super::writer::{Commit, Intent, Queue};
use crate::clock::Clock;

/// Called with everything that just died, before it is committed and while the zone's lock is held. It may use
/// the plain look-ups of the state (`record`, `session`, `lineage` and the like), never its lists or changes,
/// which wait for that lock; and it should be quick.
pub type NarrowHook = Arc<dyn Fn(&Narrowed) + Send + Sync>;

pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) limits: StateLimits,
    pub(super) sessions: Shards<Session>,
    pub(super) delegations: Shards<Delegation>,
    pub(super) records: Records,
    pub(super) standing: Standing,
    pub(super) queue: Queue,
    pub(super) connections: Connections,
    pub(super) hooks: RwLock<Vec<NarrowHook>>,
    /// Told whenever a hold was answered or used.
    pub(super) answered: Notify,
}

/// One narrowing: already in force in memory, still to be told and committed.
#[derive(Debug, Default)]
pub(super) struct Narrowing {
    pub(super) ended: Vec<Arc<Session>>,
    pub(super) suspended: Vec<Arc<Session>>,
    pub(super) closed: Vec<Arc<Delegation>>,
    pub(super) graph_epoch: Option<u64>,
    /// Anchors beside the rows above.
    pub(super) anchors: Vec<Anchor>,
    /// Writes beside the rows above.
    pub(super) writes: Vec<Write>,
    pub(super) origin: Origin,
}

impl Narrowing {
    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty()
            && self.suspended.is_empty()
            && self.closed.is_empty()
            && self.anchors.is_empty()
            && self.writes.is_empty()
    }

    pub(super) fn absorb(&mut self, mut other: Self) {
        self.ended.append(&mut other.ended);
        self.suspended.append(&mut other.suspended);
        self.closed.append(&mut other.closed);
        self.graph_epoch = self.graph_epoch.max(other.graph_epoch);
        self.anchors.append(&mut other.anchors);
        self.writes.append(&mut other.writes);
    }

    fn all_anchors(&self) -> Vec<Anchor> {
        let sessions =
            self.ended.iter().chain(&self.suspended).map(|row| Anchor::Session(Arc::clone(&row.id)));
        let delegations = self.closed.iter().map(|row| Anchor::Delegation(Arc::clone(&row.id)));
        self.anchors.iter().cloned().chain(sessions).chain(delegations).collect()
    }

    fn all_writes(&mut self, zone: &Arc<str>) -> Vec<Write> {
        let mut writes = std::mem::take(&mut self.writes);
        let sessions = self.ended.iter().chain(&self.suspended);
        writes.extend(sessions.map(|row| Write::SessionStatus(Arc::clone(row))));
        writes.extend(self.closed.iter().map(|row| Write::DelegationStatus(Arc::clone(row))));
        let epoch = self.graph_epoch.map(|epoch| Write::Zone(ZoneWrite::GraphEpoch(Arc::clone(zone), epoch)));
        writes.extend(epoch);
        writes
    }
}

impl Shared {
    /// Tells the hooks, then sends the narrowing to the store. Call it under the zone's lock, after memory
    /// was changed: that keeps the order of commits the order of changes.
    pub(super) fn narrow(&self, zone: &Arc<str>, reason: &str, narrowing: &mut Narrowing) -> Commit {
        let anchors = narrowing.all_anchors();
        if !anchors.is_empty() {
            let narrowed = Narrowed {
                zone: Arc::clone(zone),
                anchors,
                graph_epoch: narrowing.graph_epoch,
                reason: reason.into(),
                origin: narrowing.origin,
            };
            for hook in self.hooks.read().iter() {
                hook(&narrowed);
            }
        }
        self.queue.commit(narrowing.all_writes(zone), Intent::Narrow)
    }

    pub(super) fn live_record(&self, zone: &str, id: &str, now: i64) -> Option<Arc<AuthorityRecord>> {
        let record = self.records.find(zone, id).filter(|record| self.stands(record, now))?;
        if record.root != record.id {
            self.records.find(zone, &record.root).filter(|root| self.stands(root, now))?;
        }
        Some(record)
    }

    pub(super) fn live_session(&self, zone: &str, id: &str, now: i64) -> Option<Arc<Session>> {
        self.sessions.find(zone, id).filter(|session| self.session_stands(session, now))
    }

    pub(super) fn session_stands(&self, session: &Session, now: i64) -> bool {
        session.status == SessionStatus::Active
            && session.in_time(now)
            && !self.cut_off(&session.zone, &session.application, session.started_at)
            && self.subject_stands(session, now)
    }

    /// A session of a person stands with the person's record; one of an application outlives the record it
    /// was started with, which is renewed every few minutes.
    pub(super) fn subject_stands(&self, session: &Session, now: i64) -> bool {
        match session.subject_kind {
            RecordKind::Application => true,
            RecordKind::User => self.live_record(&session.zone, &session.subject_record, now).is_some(),
        }
    }

    /// A tie counts as cut: which of the two came first inside a millisecond cannot be told.
    pub(super) fn cut_off(&self, zone: &str, application: &str, issued_at: i64) -> bool {
        self.standing.application(zone, application).is_some_and(|standing| issued_at <= standing.cut_at)
    }

    fn stands(&self, record: &AuthorityRecord, now: i64) -> bool {
        !record.revoked
            && record.expires_at > now
            && !self.cut_off(&record.zone, &record.application, record.issued_at)
    }
}

/// A new id whose order is the order of time; `now` in unix milliseconds.
pub(super) fn new_id(now: i64) -> Arc<str> {
    let (seconds, rest) = (now.div_euclid(1_000), now.rem_euclid(1_000));
    let nanos = u32::try_from(rest.saturating_mul(1_000_000)).unwrap_or(0);
    let at = uuid::Timestamp::from_unix(uuid::NoContext, u64::try_from(seconds).unwrap_or(0), nanos);
    uuid::Uuid::new_v7(at).to_string().into()
}

/// 128 random bits in hex.
pub(super) fn random_hex() -> Result<String, StateError> {
    let mut bytes = [0_u8; 16];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => Ok(hex::encode(bytes)),
        Err(aws_lc_rs::error::Unspecified) => Err(StateError::Random),
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

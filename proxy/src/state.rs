//! The runtime state: which authority records, sessions and delegations exist and stand, what was used up, cut
//! off or frozen. Reads are in memory; writes are committed to SQLite before they are acknowledged, or to the
//! Postgres that the nodes of a fleet share, from which each node also learns what the others did.
//!
//! Two rules carry everything. What widens (a session, a delegation, a resume, a record) becomes visible after
//! its commit. What narrows (an end, a revocation, a freeze) is in force in memory before its commit, stays in
//! force when the commit fails, and is then committed with the next one; the caller is told of the failure.
//!
//! Each start commits a new random epoch. Single-use mandates carry the epoch they were minted in, and one is
//! accepted only if it is the running one or one whose marks a clean stop saved and this start took over.
//! Loss of power or a crash therefore loses no mark that could still matter.

mod again;
mod approvals;
mod caller;
mod connections;
mod constraints;
mod cursors;
mod delegations;
mod desk;
mod doomed;
mod endings;
mod error;
mod folder;
mod following;
mod holds;
mod identities;
mod inheritance;
mod invocations;
mod jobs;
mod json;
mod learning;
mod leases;
mod lineage;
mod listing;
mod marks;
mod model;
mod narrowing;
mod opening;
mod receipts;
mod records;
mod revocations;
mod revoking;
mod services;
mod sessions;
mod shards;
mod shared;
mod standing;
mod store;
mod survey;
mod sweep;
mod writer;
mod zones;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::{Mutex, RwLock};

pub use caller::{ApplicationCaller, Caller};
pub use connections::{Claimed, Connection, ConnectionKey, ConnectionStatus, Granted, SHARED_SUBJECT};
pub use cursors::StoredCursor;
pub use delegations::{CreateDelegation, Delegated, Impact, Reach, ResourceCatalog, ResourceInfo, Revoked};
pub use doomed::Doomed;
pub use endings::Ended;
pub use error::{CoordinatorError, MarkError, StateError};
pub use following::Heard;
pub use holds::{ExactRequest, Hold, HoldDecision, HoldState, HoldUse};
pub use identities::Identity;
pub use invocations::{CreateInvocation, InvocationFilter, Invoked};
pub use jobs::{AgentService, Completion, Invocation, InvocationStatus, ServiceHealth};
pub(crate) use json::object;
pub use json::{iso, parse_iso};
pub use listing::{Page, PageRequest, SessionFilter};
pub use model::{
    Anchor, AuthorityRecord, Constraints, DEFAULT_TASK_TTL_S, Delegation, DelegationStatus, Lifecycle,
    Narrowed, Origin, RecordKind, Session, SessionStatus,
};
pub use receipts::{IdempotencyKey, KeyKind, Operation};
pub use revoking::{Extent, Target};
pub use services::RegisterService;
pub use sessions::{ParentAuthority, StartSession, Started};
pub use shared::NarrowHook;
pub use standing::TombstoneKind;
pub use survey::Surveyed;

use folder::{Folder, SavedEpoch};
use marks::Marks;
use records::Keeping;
use shared::Shared;
use store::Write;
pub use store::postgres::SharedStore;
use writer::{Intent, Queue};
use zones::{Zone, Zones};

/// How much the state takes on.
#[derive(Clone, Debug)]
pub struct StateLimits {
    /// Sessions that have not ended, in a zone.
    pub sessions_per_zone: usize,
    /// Sessions that have not ended, of one application.
    pub sessions_per_application: usize,
    /// Sessions that have not ended, directly under one session.
    pub children_per_session: usize,
    /// Sessions above the deepest one.
    pub depth: u32,
    /// Idempotency receipts of one application and operation.
    pub receipts_per_scope: usize,
    /// Marks of used mandates, altogether.
    pub marks: usize,
    /// Marks of used mandates of one application.
    pub marks_per_application: usize,
    /// Milliseconds a service may be silent.
    pub lease_ms: i64,
    /// Milliseconds an ended session or delegation is listed.
    pub keep_ended_ms: i64,
    /// Ended sessions and delegations listed in a zone, and as many invocations that are over.
    pub keep_ended: usize,
    /// Agent services of a zone.
    pub services_per_zone: usize,
    /// Invocations of a zone that are not over.
    pub invocations_per_zone: usize,
    /// Milliseconds by which a cut reaches into the future: another node's clock may be ahead of ours.
    pub cut_ahead_ms: i64,
}

impl Default for StateLimits {
    fn default() -> Self {
        Self {
            sessions_per_zone: 10_000,
            sessions_per_application: 10_000,
            children_per_session: 1_000,
            depth: 10,
            receipts_per_scope: 100_000,
            marks: 2_000_000,
            marks_per_application: 250_000,
            lease_ms: 120_000,
            keep_ended_ms: 24 * 3_600 * 1_000,
            keep_ended: 20_000,
            services_per_zone: 1_000,
            invocations_per_zone: 10_000,
            cut_ahead_ms: 0,
        }
    }
}

/// The state of one node; share it as an `Arc`.
#[derive(Debug)]
pub struct State {
    shared: Arc<Shared>,
    zones: Arc<Zones>,
    /// The way to what this node keeps for itself; without a fleet, to everything.
    local: Queue,
    /// Whether other nodes write the same store.
    in_fleet: bool,
    marks: Marks,
    epoch: String,
    earlier_epochs: RwLock<Vec<SavedEpoch>>,
    receipt_key: hmac::Key,
    heads: RwLock<HashMap<String, (u64, String)>>,
    /// What the store knew of budgets, until it is taken over.
    budgets: Mutex<Vec<crate::budgets::Standing>>,
    /// What the store knew of notification sinks, until it is taken over.
    cursors: Mutex<Vec<StoredCursor>>,
    /// What the store knew of who could ask, until it is taken over.
    identities: Mutex<Vec<Identity>>,
    /// Held here too: the marks in this memory need the lock even if the writer should be gone.
    folder: Mutex<Option<Arc<Folder>>>,
}

impl State {
    /// The epoch single-use mandates of this process carry.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Whether mandates of `epoch` may still be used once here.
    #[must_use]
    pub fn accepts_epoch(&self, epoch: &str) -> bool {
        if epoch == self.epoch {
            return true;
        }
        let now = self.shared.clock.now();
        self.earlier_epochs.read().iter().any(|earlier| earlier.epoch == epoch && earlier.until > now)
    }

    /// Uses a single-use mandate up. `keep_until` is its expiry with leeway, in unix milliseconds.
    ///
    /// # Errors
    /// [`MarkError`]: it was used before, there is no room, or the state is closed. All of them refuse.
    pub fn use_once(
        &self,
        zone: &str,
        jti: &str,
        application: &str,
        keep_until: i64,
    ) -> Result<(), MarkError> {
        self.marks.use_once(zone, jti, application, keep_until, self.shared.clock.now())
    }

    /// Marks of used mandates held now.
    #[must_use]
    pub fn mark_count(&self) -> usize {
        self.marks.len()
    }

    /// The record, whatever its standing.
    #[must_use]
    pub fn record(&self, zone: &str, id: &str) -> Option<Arc<AuthorityRecord>> {
        self.shared.records.find(zone, id)
    }

    /// The session, whatever its standing.
    #[must_use]
    pub fn session(&self, zone: &str, id: &str) -> Option<Arc<Session>> {
        self.shared.sessions.find(zone, id)
    }

    /// The delegation, whatever its standing.
    #[must_use]
    pub fn delegation(&self, zone: &str, id: &str) -> Option<Arc<Delegation>> {
        self.shared.delegations.find(zone, id)
    }

    /// The record, if it and its root are neither revoked, expired nor cut off.
    #[must_use]
    pub fn live_record(&self, zone: &str, id: &str, now: i64) -> Option<Arc<AuthorityRecord>> {
        self.shared.live_record(zone, id, now)
    }

    /// The session, if it is active, in its time, not cut off, and the person it acts for still stands.
    #[must_use]
    pub fn live_session(&self, zone: &str, id: &str, now: i64) -> Option<Arc<Session>> {
        self.shared.live_session(zone, id, now)
    }

    /// The delegation, if it is active and unexpired. Its sessions and ancestors are [`State::lineage`]'s part.
    #[must_use]
    pub fn live_delegation(&self, zone: &str, id: &str, now: i64) -> Option<Arc<Delegation>> {
        self.delegation(zone, id).filter(|delegation| delegation.live(now))
    }

    /// The zone's delegation epoch; it rises when a delegation is taken back and never otherwise.
    #[must_use]
    pub fn graph_epoch(&self, zone: &str) -> u64 {
        self.shared.standing.graph_epoch(zone)
    }

    /// Whether the zone is stopped by an operator.
    #[must_use]
    pub fn frozen(&self, zone: &str) -> bool {
        self.shared.standing.frozen(zone)
    }

    /// Every stopped zone.
    #[must_use]
    pub fn frozen_zones(&self) -> Vec<Arc<str>> {
        self.shared.standing.frozen_zones()
    }

    /// The unix millisecond up to which, itself included, everything issued to the application is dead.
    #[must_use]
    pub fn application_cut(&self, zone: &str, application: &str) -> Option<i64> {
        self.shared.standing.application(zone, application).map(|standing| standing.cut_at)
    }

    /// Whether nothing new may be minted for the application.
    #[must_use]
    pub fn application_blocked(&self, zone: &str, application: &str) -> bool {
        self.shared.standing.application(zone, application).is_some_and(|standing| standing.blocked)
    }

    /// Adds a record that lives in memory only: unknown, and so dead, after a crash and on other nodes.
    pub fn remember_record(&self, record: AuthorityRecord) {
        self.shared.records.put(record, Keeping::Passing);
    }

    /// Whether other nodes write the same store, and so must find there what this one gave out.
    #[must_use]
    pub const fn in_fleet(&self) -> bool {
        self.in_fleet
    }

    /// Whether what a budget counts for may still call: a session that has not ended, a delegation that stands.
    #[must_use]
    pub fn may_still_spend(&self, zone: &str, subject: &str, now: i64) -> bool {
        match subject.split_once(':') {
            Some(("session", id)) => self.session(zone, id).is_some_and(|session| !session.status.ended()),
            Some(("delegation", id)) => self.live_delegation(zone, id, now).is_some(),
            _ => true,
        }
    }

    /// Whether the store this node shares with its fleet answers; true where there is none.
    #[must_use]
    pub fn store_up(&self) -> bool {
        !self.shared.queue.away()
    }

    /// Returns when this node knows what the other nodes of its fleet had committed before the call, or cannot
    /// find it out. At once where there is no shared store.
    pub async fn catch_up(&self) {
        if self.in_fleet {
            self.shared.queue.catch_up().await;
        }
    }

    /// Commits a record; it is visible when this returns.
    ///
    /// # Errors
    /// [`StateError`] when it could not be committed; then it is not visible either.
    pub async fn insert_record(&self, record: AuthorityRecord) -> Result<(), StateError> {
        let shared = Arc::clone(&self.shared);
        let (tell, told) = tokio::sync::oneshot::channel();
        let writes = vec![Write::Record(Arc::new(record.clone()))];
        let publish = move |outcome: Result<(), StateError>| {
            if outcome.is_ok() {
                shared.records.put(record, Keeping::Durable);
            }
            drop(tell.send(outcome));
        };
        self.shared.queue.send(writes, Intent::Note, Box::new(publish));
        told.await.unwrap_or(Err(StateError::Closed))
    }

    /// Adds a listener for everything that dies from now on; see [`NarrowHook`] for what it may do.
    pub fn on_narrow(&self, hook: NarrowHook) {
        self.shared.hooks.write().push(hook);
    }

    fn zone(&self, name: &str) -> Arc<Zone> {
        self.zones.zone(name)
    }

    fn known_zone(&self, name: &str) -> Option<Arc<Zone>> {
        self.zones.known(name)
    }

    fn all_zones(&self) -> Vec<Arc<Zone>> {
        self.zones.all()
    }
}

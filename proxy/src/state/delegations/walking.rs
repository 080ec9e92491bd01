//! Downstream of a delegation: what hangs on it, and taking all of it back.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::state::State;
use crate::state::caller::Caller;
use crate::state::desk::{Desk, MAX_CHAIN};
use crate::state::doomed::Doomed;
use crate::state::error::CoordinatorError;
use crate::state::model::{Delegation, Session, SessionStatus};

/// One delegation downstream of another.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The delegation.
    pub delegation: Arc<Delegation>,
    /// Edges above it, down from where the walk began: 0 for the first.
    pub depth: usize,
}

impl Reach {
    /// One item of the traverse answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.delegation.id,
            "source_session_id": self.delegation.source_session,
            "target_session_id": self.delegation.target_session,
            "depth": self.depth,
        })
    }
}

/// What taking a delegation back would touch.
#[derive(Clone, Debug)]
pub struct Impact {
    /// The delegation asked about.
    pub delegation: Arc<str>,
    /// It and the ones downstream of it.
    pub delegations: Vec<Arc<Delegation>>,
    /// Sessions that would end.
    pub sessions: Vec<Arc<Session>>,
    /// Authority records those sessions act for.
    pub records: Vec<Arc<str>>,
}

impl Impact {
    /// The impact answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "edge_id": self.delegation,
            "affected_edges": self.delegations.iter().map(|edge| &edge.id).collect::<Vec<_>>(),
            "affected_sessions": self.sessions.iter().map(|session| &session.id).collect::<Vec<_>>(),
            "affected_authority_records": self.records,
        })
    }
}

/// What taking a delegation back did.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Delegations that were taken back, the ones of ended sessions included.
    pub delegations: Vec<Arc<Delegation>>,
    /// Sessions that held one of the delegations the walk found.
    pub affected_sessions: usize,
    /// Those sessions and their subtrees, as far as they had not ended.
    pub sessions: Vec<Arc<Session>>,
}

impl Revoked {
    /// The revoke answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "revoked_edges": self.delegations.len(),
            "affected_sessions": self.affected_sessions,
            "terminated_sessions": self.sessions.len(),
        })
    }
}

impl State {
    /// Takes a delegation back with everything downstream of it and ends the sessions that held any of it.
    ///
    /// # Errors
    /// 404 `delegation_not_found` (also when it is closed), 403 `issuer_ownership_required`, 503 when the commit
    /// fails: it is taken back all the same.
    pub async fn revoke_delegation(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Revoked, CoordinatorError> {
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::delegation_not_found)?;
        let (revoked, commit) = {
            let now = self.shared.clock.now();
            let mut desk = zone.desk.lock();
            desk.settle(now);
            let edge = desk.live_edge(id, now)?;
            if !caller.may_delegate_from(&edge.issuer_application) && !caller.is_admin() {
                return Err(CoordinatorError::new(403, "issuer_ownership_required"));
            }
            let reason = "delegation_revoked";
            let doomed = desk.under_delegation(&edge, now);
            let mut narrowing = desk.carry_out(&doomed, SessionStatus::Terminated, reason, now);
            let commit = self.shared.narrow(&zone.name, reason, &mut narrowing);
            let revoked = Revoked {
                delegations: narrowing.closed,
                affected_sessions: doomed.roots.len(),
                sessions: narrowing.ended,
            };
            (revoked, commit)
        };
        commit.done().await?;
        Ok(revoked)
    }

    /// The delegation and what is downstream of it, over at most ten edges.
    ///
    /// # Errors
    /// 403 `coordinator_admin_required`, 404 `delegation_not_found`.
    pub fn traverse_delegation(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Vec<Reach>, CoordinatorError> {
        if !caller.is_admin() {
            return Err(CoordinatorError::new(403, "coordinator_admin_required"));
        }
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::delegation_not_found)?;
        let now = self.shared.clock.now();
        let desk = zone.desk.lock();
        Ok(desk.downstream(&desk.live_edge(id, now)?, MAX_CHAIN, now))
    }

    /// What taking the delegation back would touch.
    ///
    /// # Errors
    /// 403 `coordinator_admin_required`, 404 `delegation_not_found`.
    pub fn delegation_impact(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Impact, CoordinatorError> {
        if !caller.is_admin() {
            return Err(CoordinatorError::new(403, "coordinator_admin_required"));
        }
        let zone = self.known_zone(zone).ok_or_else(CoordinatorError::delegation_not_found)?;
        let now = self.shared.clock.now();
        let desk = zone.desk.lock();
        let edge = desk.live_edge(id, now)?;
        let walk = desk.downstream(&edge, usize::MAX, now);
        let sessions = desk.under_delegation(&edge, now).sessions;
        let records: BTreeSet<_> =
            sessions.iter().map(|session| Arc::clone(&session.subject_record)).collect();
        Ok(Impact {
            delegation: Arc::clone(&edge.id),
            delegations: walk.into_iter().map(|reach| reach.delegation).collect(),
            sessions,
            records: records.into_iter().collect(),
        })
    }
}

impl Desk {
    pub(in crate::state) fn live_edge(
        &self,
        id: &str,
        now: i64,
    ) -> Result<Arc<Delegation>, CoordinatorError> {
        let edge = self.delegations.get(id).filter(|edge| edge.live(now));
        edge.cloned().ok_or_else(CoordinatorError::delegation_not_found)
    }

    /// What ends with a delegation: it, everything downstream of it, and the sessions that held any of it.
    pub(in crate::state) fn under_delegation(&self, edge: &Arc<Delegation>, now: i64) -> Doomed {
        let walk = self.downstream(edge, usize::MAX, now);
        let mut seen = HashSet::new();
        let targets = walk.iter().map(|reach| Arc::clone(&reach.delegation.target_session));
        let targets: Vec<_> = targets.filter(|target| seen.insert(Arc::clone(target))).collect();
        self.doomed(&targets, walk.into_iter().map(|reach| Arc::clone(&reach.delegation.id)))
    }

    /// The edge and, level by level, the live edges given by whoever received one: what a session hands on may
    /// come from any delegation it holds.
    fn downstream(&self, edge: &Arc<Delegation>, deepest: usize, now: i64) -> Vec<Reach> {
        let mut seen = HashSet::from([Arc::clone(&edge.id)]);
        let mut found = Vec::new();
        let mut next = VecDeque::from([Reach { delegation: Arc::clone(edge), depth: 0 }]);
        while let Some(reach) = next.pop_front() {
            let depth = reach.depth.saturating_add(1);
            if depth < deepest {
                let below = self.outbound(&reach.delegation.target_session, now);
                let new = below.into_iter().filter(|edge| seen.insert(Arc::clone(&edge.id)));
                next.extend(new.map(|delegation| Reach { delegation, depth }));
            }
            found.push(reach);
        }
        found
    }
}

//! Whether a delegation may be made. The order of the checks is the coordinator's contract.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::{Breadth, CreateDelegation, Judged, ResourceCatalog, ResourceInfo, new_delegation};
use crate::state::desk::{Desk, MAX_CHAIN};
use crate::state::error::CoordinatorError;
use crate::state::model::Delegation;
use crate::state::narrowing::{Draft, exceeds_parent, must_narrow};

impl CreateDelegation {
    /// The checks that need no zone, and what follows from them for the constraints.
    pub(super) fn check_shape(&mut self) -> Result<Breadth, CoordinatorError> {
        self.constraints.ttl_seconds = self.constraints.ttl_seconds.or(self.ttl_seconds);
        let timed = self.expires_at.or(self.constraints.expires_at).is_some();
        if !timed && self.constraints.ttl_seconds.is_none() {
            return Err(CoordinatorError::new(400, "delegation_expiry_required"));
        }
        if !self.caller.may_delegate_from(&self.issuer_application) {
            return Err(CoordinatorError::new(403, "issuer_ownership_required"));
        }
        if self.source_session == self.target_session {
            return Err(CoordinatorError::new(400, "self_delegation_denied"));
        }
        if self.resource.is_some() || !self.constraints.resources.is_empty() {
            return Ok(Breadth::Resources);
        }
        if !self.caller.may_delegate_broadly(&self.issuer_application) {
            return Err(CoordinatorError::new(403, "broad_delegation_permission_required"));
        }
        self.constraints.broad_reason.get_or_insert_with(|| "resource_null_delegation".to_owned());
        self.constraints.policy_approved = Some(true);
        Ok(Breadth::Everything)
    }

    fn explicit_expiry(&self) -> Option<i64> {
        [self.expires_at, self.constraints.expires_at].into_iter().flatten().min()
    }

    /// The earliest of everything that was said about time.
    fn expiry(&self, now: i64) -> i64 {
        let by_ttl =
            self.constraints.ttl_seconds.map(|ttl| now.saturating_add(i64::from(ttl).saturating_mul(1_000)));
        [self.explicit_expiry(), by_ttl].into_iter().flatten().min().unwrap_or(now)
    }
}

impl Desk {
    pub(super) fn judge_delegation(
        &self,
        request: &CreateDelegation,
        catalog: &dyn ResourceCatalog,
        now: i64,
    ) -> Result<Judged, CoordinatorError> {
        self.not_frozen()?;
        self.judge_endpoints(request, now)?;
        let draft = draft(request, catalog)?;
        let inbound = self.inbound(&request.source_session, now);
        let parent = pick_parent(request, &inbound)?;
        if let Some(parent) = parent {
            let fixed = parent.resource_id.as_ref().and_then(|id| catalog.find(id));
            must_narrow(parent, fixed.as_ref(), &draft)?;
        }
        if self.reaches(&request.target_session, &request.source_session, now) {
            return Err(CoordinatorError::new(409, "delegation_cycle_denied"));
        }
        let expires_at = request.expiry(now);
        if expires_at <= now {
            return Err(CoordinatorError::new(400, "delegation_expired"));
        }
        if parent.is_some_and(|parent| expires_at > parent.expires_at) {
            return Err(exceeds_parent());
        }
        let delegation = new_delegation(request, &draft, parent.map(|parent| &**parent), expires_at, now);
        let considered = inbound.iter().map(|edge| Arc::clone(&edge.id)).collect();
        Ok(Judged { delegation, considered })
    }

    fn judge_endpoints(&self, request: &CreateDelegation, now: i64) -> Result<(), CoordinatorError> {
        let find = |id: &Arc<str>| {
            let session = self.sessions.get(id).filter(|session| self.shared.session_stands(session, now));
            session.ok_or_else(|| CoordinatorError::new(404, "delegation_endpoint_not_found"))
        };
        let (source, target) = (find(&request.source_session)?, find(&request.target_session)?);
        if source.application != request.issuer_application
            || target.application != request.receiver_application
        {
            return Err(CoordinatorError::new(409, "delegation_application_mismatch"));
        }
        Ok(())
    }

    /// Whether one session already hands authority on to the other, over at most ten edges. Delegations on their
    /// way to the store count: two of them must not close a ring together.
    fn reaches(&self, from: &str, to: &str, now: i64) -> bool {
        let mut seen: HashSet<Arc<str>> = HashSet::new();
        let mut next: VecDeque<(Arc<str>, usize)> = VecDeque::from([(from.into(), 0)]);
        while let Some((session, distance)) = next.pop_front() {
            if *session == *to {
                return true;
            }
            if distance >= MAX_CHAIN || !seen.insert(Arc::clone(&session)) {
                continue;
            }
            let placed = self.outbound(&session, now);
            let underway = self.underway.values().filter(|edge| edge.source_session == session);
            let targets = placed.iter().chain(underway).map(|edge| Arc::clone(&edge.target_session));
            next.extend(targets.map(|target| (target, distance.saturating_add(1))));
        }
        false
    }
}

/// Looks the named resources up and checks the scopes against what they declare.
fn draft(request: &CreateDelegation, catalog: &dyn ResourceCatalog) -> Result<Draft, CoordinatorError> {
    let find = |name: &str| -> Result<ResourceInfo, CoordinatorError> {
        catalog.find(name).ok_or_else(|| CoordinatorError::new(404, "resource_not_found"))
    };
    let resource = request.resource.as_deref().map(find).transpose()?;
    let named: Vec<_> =
        request.constraints.resources.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
    if let Some(resource) = &resource
        && !named.is_empty()
        && !named.iter().any(|one| one.id == resource.id)
    {
        return Err(CoordinatorError::new(400, "delegation_resource_scope_mismatch"));
    }
    // What the delegation is fixed to decides alone; the list beside it cannot lend it scopes.
    let counted: Vec<&ResourceInfo> =
        if let Some(resource) = &resource { vec![resource] } else { named.iter().collect() };
    let declared = |scope: &Arc<str>| counted.iter().any(|resource| resource.scopes.contains(scope));
    if !counted.is_empty() && !request.scopes.iter().all(declared) {
        return Err(CoordinatorError::new(403, "delegation_scopes_exceed_resource"));
    }
    let mut constraints = request.constraints.clone();
    constraints.resources = named.into_iter().map(|resource| resource.identifier).collect();
    Ok(Draft {
        resource,
        scopes: request.scopes.clone(),
        constraints,
        explicit_expiry: request.explicit_expiry(),
    })
}

/// A session that holds delegations gives from one of them; one that holds none gives from its own authority.
fn pick_parent<'a>(
    request: &CreateDelegation,
    inbound: &'a [Arc<Delegation>],
) -> Result<Option<&'a Arc<Delegation>>, CoordinatorError> {
    if let Some(named) = &request.parent {
        let found = inbound.iter().find(|edge| edge.id == *named);
        return found.map(Some).ok_or_else(|| CoordinatorError::new(403, "parent_delegation_not_active"));
    }
    match inbound {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(CoordinatorError::new(409, "parent_delegation_ambiguous")),
    }
}
